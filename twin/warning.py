"""Warnings by rule: who is told what, when a drought begins, worsens, eases and ends there.

    rules file ─parse_rules─▸ rules ┐
    readings of each rule's place ──┼─evaluate─▸ standing ─▸ next time
    standing (what is in force) ────┘         └▸ transitions: raised, updated, cancelled

    worse  enter ┄┄┄┄┄┄┄┄┄╭──╮┄┄┄┄╭─┄┄┄┄┄┄    a step is entered after `enter_days` in a row at or beyond `enter`,
                         ╭╯   ╲  ╱   ╲         as surely as the rule asks, in season;
    better exit  ┄┄┄┄┄┄┄╱┄┄┄┄┄┄╰╯┄┄┄┄┄╲┄┄┄    and left after `leave_days` in a row on the better side of `exit`:
                 ──────╯               ╰──    between the two nothing changes

A rule has one step or several, each worse than the one before; what is in force is the worst step that is. Levels are
words of systems there are: JRC's watch, warning, alert; the World Food Programme's ready, set, go; the classes of the
U.S. Drought Monitor. A missing day breaks a row of days: it raises nothing and ends nothing, and a warning whose newest
day is missing stands, stale.

Readings are told again as far back as they may have changed. What is in force is what the readings known now say, from
the first of their days that has a rule's `memory` behind it; before it, what was said stands. One message says each
change: `entered`, `escalated`, `eased`, `ended`; `out of season`; `revised` if other readings, or another version of
the rule, make it another level on days that were already told; `corrected` if by them it never held; `withdrawn` if
there is no such rule any more. Another version of a rule is judged by the readings alone. Nothing here knows the time
of day: the same readings in the same order give the same messages under the same identifiers, and the same readings
twice give nothing.
Refs: Schmitt (1938), J. Sci. Instrum. 15, 24 (two thresholds); OASIS (2010), Common Alerting Protocol 1.2 (messages
that supersede each other); Svoboda et al. (2002), Bull. Amer. Meteor. Soc. 83, 1181; Sepulcre-Canto et al. (2012), Nat.
Hazards Earth Syst. Sci. 12, 3519 (watch, warning, alert).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from twin.errors import TimeError, VariableError
from twin.rules import WET_SEASON, WORSE, Number, Rule
from twin.verification import Contingency, Spell, matched

REASONS = ("entered", "escalated", "eased", "revised", "ended", "corrected", "out of season", "withdrawn")
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Readings:
    """The days of a rule's indicator, up to the newest: arrays (n) of consecutive days, NaN where it is missing.

    probability   0..1 that the value is at or beyond `enter`, of each step (n, steps); (n) if there is one step
    low, high     limits of the value
    in_season     whether the place is in its wet season, for rules that ask for it
    """

    day: np.ndarray
    value: np.ndarray
    probability: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    in_season: np.ndarray | None = None


@dataclass(frozen=True)
class Transition:
    """One message: what changed, by which rule, with the numbers of the day; plain data, as a journal keeps it.

    kind         raised, updated or cancelled
    day, since   the day it is said of, and the first day of those in a row that raised the warning, ISO
    threshold    the one that was entered, or left
    event        identifier of the message that raised it; `supersedes` of the one before this, empty if it is the first
    """

    kind: str
    reason: str
    rule: str
    version: int
    region: str
    place: Mapping[str, Any]
    where: str
    indicator: str
    category: str
    units: str
    comparison: str
    level: str
    previous_level: str
    day: str
    since: str
    value: float | None
    low: float | None
    high: float | None
    probability: float | None
    threshold: float
    text: str
    actions: str
    event: str
    supersedes: str
    identifier: str = field(default="")

    @property
    def data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


Standing = dict[str, dict[str, Any]]  # by rule, as JSON: messages so far, newest day, levels told, stale, last message
_NOTHING: Mapping[str, Any] = {"messages": 0, "day": "", "levels": [], "stale": False}


def evaluate(
    rules: Sequence[Rule], readings: Mapping[str, Readings], standing: Standing, region: str = ""
) -> tuple[Standing, tuple[Transition, ...]]:
    """(what stands now, what changed) by the readings of each rule, by its id.

    standing   what this returned the last time; {} at first; not changed
    At most one message a rule. A rule without readings stays as it is, stale. Raises VariableError for readings that do
    not belong together or to no rule, TimeError for days that are not consecutive or end before those told before.
    """
    known = {rule.id: rule for rule in rules}
    if strange := sorted(set(readings) - set(known)):
        raise VariableError("readings", expected=f"of {', '.join(known) or 'no rule'}", found=strange[0])
    found: Standing = {}
    transitions = []
    for name in sorted({*known, *standing}):
        before = standing.get(name, _NOTHING)
        if name not in known:
            after, said = _withdrawn(before)
        elif name in readings:
            after, said = _judge(known[name], _checked(known[name], readings[name]), before, region)
        else:
            after, said = {**before, "stale": "last" in before}, None
        if name in known or after["messages"]:
            found[name] = after
        if said is not None:
            transitions.append(said)
    return found, tuple(transitions)


def replay(
    rules: Sequence[Rule], releases: Iterable[Mapping[str, Readings]], region: str = ""
) -> tuple[Standing, tuple[Transition, ...]]:
    """What stands after a row of releases, and all that was said: the firing log."""
    standing: Standing = {}
    log: list[Transition] = []
    for readings in releases:
        standing, said = evaluate(rules, readings, standing, region)
        log.extend(said)
    return standing, tuple(log)


def verify(
    log: Iterable[Transition], outcomes: Mapping[str, Sequence[Spell]], until: str, ahead: int = 0
) -> dict[str, Contingency]:
    """Hits, misses, false alarms and days of lead of each rule, from its firing log and what came.

    outcomes   by rule: first and last day of each event that it was to warn of; other rules are not judged
    until      last day of the log: warnings that stand are taken to stand until then
    ahead      days that a warning reaches beyond its end (`twin.verification.matched`)
    A warning is in force from the day it was raised to the one before it was cancelled; one that was corrected was
    given nevertheless.
    """
    given: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in outcomes}
    for said in log:
        spells = given.get(said.rule, {})
        if said.kind == "raised":
            spells[said.event] = (said.day, until)
        elif said.kind == "cancelled" and said.event in spells:
            first = spells[said.event][0]
            spells[said.event] = (first, max(first, str(np.datetime64(said.day, "D") - _DAY)))
    return {name: matched(list(spells.values()), outcomes[name], ahead) for name, spells in given.items()}


def _judge(
    rule: Rule, readings: Readings, before: Mapping[str, Any], region: str
) -> tuple[dict[str, Any], Transition | None]:
    """(what stands of a rule, what is to be said): the levels by the readings known now, held against those told."""
    days, last = readings.day, before.get("last")
    if before["day"] and days[-1] < np.datetime64(before["day"]):
        raise TimeError(f"readings of {rule.id}", expected=f"up to {before['day']} at least", found=str(days[-1]))
    other = last is not None and last["version"] != rule.version
    told = [] if other else [(np.datetime64(day), level) for day, level in before["levels"]]
    path, judged = _path(rule, readings, told)
    changes = np.flatnonzero(np.diff(path, prepend=_at(told, days[0] - _DAY)))
    levels = [*[step for step in told if step[0] < days[0]][-1:], *((days[row], int(path[row])) for row in changes)]
    level = rule.steps[path[-1] - 1].level if path[-1] else ""
    after = {
        "messages": before["messages"],
        "day": str(days[-1]),
        "levels": [[str(day), at] for day, at in levels],
        "stale": bool(level) and not np.isfinite(readings.value[-1]),
    }
    if level == (last["level"] if last else ""):
        return {**after, **({"last": {**last, "version": rule.version}} if last else {})}, None
    if not last:
        reason, since = "entered", str(_since(rule, readings, path))
    else:
        since = last["since"]
        then = np.flatnonzero(days == np.datetime64(before["day"]))
        as_told = not other and (not then.size or path[then[0]] == before["levels"][-1][1])
        entered = next((day for day, at in reversed(_begins(told)) if at), judged)
        held = entered < judged or path[days >= entered].any()
        if level and as_told:
            reason = "escalated" if int(path[-1]) > before["levels"][-1][1] else "eased"
        elif level:
            reason = "revised"
        elif other:
            reason = "withdrawn"
        elif not held:
            reason = "corrected"
        else:
            reason = "ended" if _in_season(rule, readings)[-1] else "out of season"
    said = _message(rule, readings, before, reason, level, int(path[-1]), since, region)
    after["messages"] += 1
    return {**after, **({"last": said.data} if level else {})}, said


def _path(
    rule: Rule, readings: Readings, told: Sequence[tuple[np.datetime64, int]]
) -> tuple[np.ndarray, np.datetime64]:
    """(level in force at the end of each day: 0 none, 1 the mildest step; first day that the readings decide about).

    The days before that, with less than the rule's memory behind them, keep the level that was told.
    """
    days, first = readings.day, min(rule.memory - 1, readings.day.size)
    beyond, better = _sides(rule, readings)
    entered, left = _in_a_row(beyond) >= rule.enter_days, _in_a_row(better) >= rule.leave_days
    season = _in_season(rule, readings)
    judged = days[0] + first * _DAY
    path = np.array([_at(told, day) for day in days], np.int64)
    held = np.arange(len(rule.steps)) < _at(told, judged - _DAY)
    for row in range(first, days.size):
        held = ((held & ~left[row]) | entered[row]) & season[row]
        path[row] = held.nonzero()[0].max(initial=-1) + 1
    return path, judged


def _sides(rule: Rule, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
    """Whether each day is beyond each step's threshold, as surely as is asked, or on its better side, (day, step)."""
    side = WORSE[rule.comparison]
    enter, leave = (side * np.array([getattr(step, which) for step in rule.steps]) for which in ("enter", "exit"))
    value = side * readings.value[:, None]
    beyond, better = value >= enter, value < leave
    if rule.probability is not None:
        probability = np.asarray(readings.probability)
        beyond &= probability >= rule.probability
        better &= np.isfinite(probability)
    return beyond, better


def _in_a_row(mask: np.ndarray) -> np.ndarray:
    """How many days in a row, up to each, a mask (day, step) holds."""
    count = mask.astype(np.int64)
    for row in range(1, len(count)):
        count[row] *= count[row - 1] + 1
    return count


def _in_season(rule: Rule, readings: Readings) -> np.ndarray:
    """Whether the rule's warnings may stand on each day."""
    month = readings.day.astype("datetime64[M]").astype(np.int64) % 12 + 1
    found = np.isin(month, rule.months)
    return found & np.asarray(readings.in_season) if rule.season == WET_SEASON else found


def _at(told: Sequence[tuple[np.datetime64, int]], day: np.datetime64) -> int:
    """The level that was told of a day."""
    return next((level for since, level in reversed(told) if since <= day), 0)


def _begins(told: Sequence[tuple[np.datetime64, int]]) -> list[tuple[np.datetime64, int]]:
    """Those of the levels told that follow upon none."""
    return [step for step, before in zip(told, [(None, 0), *told], strict=False) if not before[1]]


def _since(rule: Rule, readings: Readings, path: np.ndarray) -> np.datetime64:
    """First of the days in a row that raised what stands on the last day."""
    row = int(np.flatnonzero(path == 0)[-1]) + 1 if (path == 0).any() else 0
    run = _in_a_row(_sides(rule, readings)[0])[row, path[row] - 1]
    return readings.day[row] - (int(run) - 1) * _DAY


def _message(
    rule: Rule,
    readings: Readings,
    before: Mapping[str, Any],
    reason: str,
    level: str,
    now: int,
    since: str,
    region: str,
) -> Transition:
    """The message of a change to `level`, the step `now` (0 is none), with the numbers of the last day."""
    last = before.get("last") or {"level": "", "event": "", "identifier": ""}
    eased = reason in ("eased", "ended", "corrected", "out of season", "withdrawn")
    step = rule.steps[min(now, len(rule.steps) - 1) if eased else now - 1]
    probability = None if readings.probability is None else readings.probability[-1, rule.steps.index(step)]
    given = (readings.value[-1], *(None if limit is None else limit[-1] for limit in (readings.low, readings.high)))
    value, low, high, probability = (_plain(number) for number in (*given, probability))
    numbers = {"value": value, "low": low, "high": high, "probability": probability}
    numbers["threshold"] = step.exit if eased else step.enter
    words = {
        "place": rule.where,
        "level": level,
        "previous_level": last["level"],
        "indicator": rule.indicator,
        "category": rule.category,
        "units": rule.units,
        "day": str(readings.day[-1]),
        "since": since,
        "reason": reason,
    }
    named = {name: Number(np.nan if number is None else number) for name, number in numbers.items()} | words
    return _identified(
        {
            **numbers,
            **words,
            "kind": "cancelled" if not level else "updated" if last["level"] else "raised",
            "rule": rule.id,
            "version": rule.version,
            "region": region,
            "place": dict(rule.place),
            "where": rule.where,
            "comparison": rule.comparison,
            "text": rule.text.format_map(named),
            "actions": rule.actions.format_map(named),
            "event": last["event"],
            "supersedes": last["identifier"],
        },
        before["messages"],
    )


def _withdrawn(before: Mapping[str, Any]) -> tuple[dict[str, Any], Transition | None]:
    """What stands of a rule that is no more, and the cancellation of what stood."""
    last = before.get("last")
    if not last:
        return {**before, "levels": []}, None
    changed = {
        "kind": "cancelled",
        "reason": "withdrawn",
        "previous_level": last["level"],
        "level": "",
        "day": before["day"],
        "supersedes": last["identifier"],
    }
    said = _identified({**last, **changed}, before["messages"])
    return {"messages": before["messages"] + 1, "day": before["day"], "levels": [], "stale": False}, said


def _identified(content: Mapping[str, Any], number: int) -> Transition:
    """The message under its identifier: 128 bits of the SHA-256 of its content and of how many its rule had before."""
    content = {name: value for name, value in content.items() if name != "identifier"}
    text = json.dumps({**content, "number": number}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    identifier = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Transition(**{**content, "event": content["event"] or identifier, "identifier": identifier})


def _plain(number: Any) -> float | None:
    return None if number is None or not np.isfinite(number) else float(number)


def _checked(rule: Rule, readings: Readings) -> Readings:
    """The readings as float arrays of one length; VariableError or TimeError where they are not."""
    days = np.asarray(readings.day).astype("datetime64[D]")
    if days.ndim != 1 or not days.size or (np.diff(days) != _DAY).any():
        raise TimeError(f"readings of {rule.id}", expected="consecutive days", found="gaps" if days.size else "none")
    asked = {"probability": rule.probability is not None, "in_season": rule.season == WET_SEASON}
    found: dict[str, Any] = {"day": days}
    for name in ("value", "probability", "low", "high", "in_season"):
        values = getattr(readings, name)
        if values is None:
            if asked.get(name):
                raise VariableError(f"readings of {rule.id}", expected=name, found="none")
            continue
        values = np.asarray(values, bool if name == "in_season" else np.float64)
        shape = (days.size, len(rule.steps)) if name == "probability" else (days.size,)
        if name == "probability" and values.shape == (days.size,) and len(rule.steps) == 1:
            values = values[:, None]
        if values.shape != shape:
            raise VariableError(f"{name} of {rule.id}", expected=f"shape {shape}", found=f"shape {values.shape}")
        found[name] = values
    return Readings(**found)
