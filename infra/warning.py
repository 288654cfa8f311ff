"""Warnings of a region: its rules, what they read from a release, what stands after it, and the messages that say so.

    rules file ─▸ rules ─────────┐
    arrays of a release ─▸ readings ─evaluate─▸ entry `warnings` {standing, said} ─┬─▸ events
    standing of the release before ┘                                                └─▸ CAP documents, in the home

What is said is part of the release's commit. The same journal gives the same firing log, and any rules can be held
against the releases there have been (`replay`): each is read at its own snapshot, as it was then.

Of an area's cells only what is probable for each of them is known. How probable it is that a share of the area is dry
is therefore worked out as if the cells were right and wrong together: the error of a reference and of parameters is.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import areas, cap
from infra.indices import ROOT
from infra.results import write
from infra.settings import REGIONS, Region, Settings
from infra.spread import parameters_in_use
from infra.store import Store, View
from twin import warning as warnings
from twin.errors import SettingsError
from twin.events import WARNING_CANCELLED, WARNING_RAISED, WARNING_UPDATED, fact
from twin.indices import combined
from twin.indices.classes import MISSING, NAMES
from twin.indices.season import STATUS
from twin.indices.spells import availability
from twin.rules import Rule, parse_rules
from twin.verification import Contingency
from twin.warning import Readings, Standing, Transition

DEFAULT = REGIONS.parent / "rules" / "default.toml"
DAY = pd.Timedelta(days=1)
EVENTS = {"raised": WARNING_RAISED, "updated": WARNING_UPDATED, "cancelled": WARNING_CANCELLED}
CLASSES = {name: code for name, code in NAMES.items() if name[0] == "D"}
ALERTED = {  # states of the combined indicator in each category or a worse one
    "watch": (combined.WATCH, combined.WARNING, combined.ALERT),
    "warning": (combined.WARNING, combined.ALERT),
    "alert": (combined.ALERT,),
}
WET = (STATUS["running"], STATUS["all_year"], STATUS["went_on_after_its_year"])
LIMITS = (0.95, 0.05)  # chance of a cell from which it counts for the low and the high limit of a share
LEAST = 0.5  # of the area that must be known


# ----------------------------------------------------------------------------------------------------------- rules
def rules(settings: Settings, region: Region, cells: xr.Dataset) -> tuple[Rule, ...]:
    """The rules of a region; one that is for each country stands there once for every country of the region.

    Raises SettingsError for a file that cannot be read, a rule that is none, or what this twin cannot tell; PlaceError
    for a place outside of the region.
    """
    known = check(settings, areas.names(region, cells))
    for rule in known:
        areas.weights(region, cells, rule.place)
    return known


def check(settings: Settings, countries: Sequence[str] = ("any",)) -> tuple[Rule, ...]:
    """The rules of the file, those for each country once for each of some; errors are those of `rules`."""
    path = Path(settings.warnings.rules) if settings.warnings.rules else DEFAULT
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise SettingsError("rules of warnings", expected="a TOML file", found=str(err), where=str(path)) from err
    found = []
    for table in tables.get("rule", ()):
        if isinstance(table, Mapping) and table.get("place") == {"each": "country"}:
            ids = {name: f"{table.get('id')}-{areas.slug(name)}" for name in countries}
            found += [{**table, "id": ids[name], "place": {"name": name}} for name in countries]
        else:
            found.append(table)
    known = parse_rules({**tables, "rule": found})
    for rule in known:
        if rule.probability is not None and rule.indicator != "drought_class":
            found_ = f"{rule.probability:g} of {rule.indicator}"
            raise SettingsError(f"rule {rule.id}: probability", expected="none but of drought_class", found=found_)
        if rule.indicator not in _GROUPS or rule.category not in ("", *CLASSES, *ALERTED, "lower_tercile", "p20"):
            found_ = f"{rule.indicator} {rule.category}".strip()
            raise SettingsError(f"rule {rule.id}: indicator", expected=f"one of {', '.join(_GROUPS)}", found=found_)
    return known


_GROUPS = {
    "soil_moisture_percentile": ("drought", "soil_moisture_percentile"),
    "drought_class": ("drought", "drought_class"),
    "dsci": ("drought", "drought_class"),
    "availability": ("drought", ROOT),
    "cdi": ("indices", "cdi"),
    "dry_spell": ("indices", "dry_spell"),
    "spi-30": ("indices", "spi_30d"),
    "spi-90": ("indices", "spi_90d"),
    "spi-180": ("indices", "spi_180d"),
    "outlook": ("outlook", "tercile_probability"),
}


# -------------------------------------------------------------------------------------------------------- readings
def readings(
    view: View, region: Region, known: Sequence[Rule], first: pd.Timestamp, last: pd.Timestamp
) -> dict[str, Readings]:
    """What the rules read from the arrays of a view, of days; none of a rule whose array is not there."""
    days = pd.date_range(first, last)
    cells = view.dataset(region.name, "grid").load()
    arrays: dict[tuple[str, ...], np.ndarray | None] = {}

    def array(*key: str) -> np.ndarray | None:
        if key not in arrays:
            arrays[key] = _array(view, region.name, days, *key)
        return arrays[key]

    found = {}
    for rule in known:
        at, weight = areas.weights(region, cells, rule.place)
        values = array(*_GROUPS[rule.indicator], rule.category if rule.indicator == "outlook" else "")
        wet = array("indices", "wet_season_status", "") if rule.season else None
        if values is None or (rule.season and wet is None):
            continue
        chances = array("drought", "drought_probability", "") if rule.indicator == "drought_class" else None
        told = {} if chances is None else _chances(rule, chances[:, CLASSES[rule.category] - 1, at], weight)
        if wet is not None:
            told["in_season"] = _mean(np.isin(wet[:, at], WET), weight) > 0.5
        found[rule.id] = Readings(days.values, _value(rule, values[:, at], weight), **told)
    return found


def _array(view: View, region: str, days: pd.DatetimeIndex, group: str, name: str, category: str) -> np.ndarray | None:
    """(time, [code,] cell) of some days, None where the region does not have it."""
    if not view.has(region, group) or name not in view.dataset(region, group):
        return None
    data = view.dataset(region, group)
    if group == "outlook":
        chance = data[name].sel(tercile="below") if category == "lower_tercile" else None
        below = data["probability_below"]
        chance = below.sel(percentile=float(category[1:])) if chance is None else chance
        issued = days >= pd.Timestamp(data.attrs["issued"])
        return np.where(issued[:, None], 100.0 * chance.values, np.nan)
    if name == ROOT:
        return availability(data[name].sel(time=days).load(), parameters_in_use(view, region)).values
    return data[name].sel(time=days).values


def _value(rule: Rule, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The indicator of an area on each day (time), from its cells (time, cell)."""
    if rule.indicator in ("drought_class", "dsci"):
        known = values != MISSING
        what = values >= CLASSES[rule.category] if rule.category else values.clip(0, 5)
        return 100.0 * _mean(np.where(known, what, np.nan), weight)
    if rule.indicator == "cdi":
        known = (values != combined.NO_DATA) & (values != MISSING)
        return 100.0 * _mean(np.where(known, np.isin(values, ALERTED[rule.category]), np.nan), weight)
    if values.dtype.kind == "i":
        values = np.where(values == np.iinfo(values.dtype).min, np.nan, values)
    return _mean(values, weight)


def _chances(rule: Rule, chances: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Probability that the share of the area is at each step's threshold (time, step), and limits of the share."""
    order = np.argsort(-np.nan_to_num(chances), axis=1, kind="stable")
    ranked = np.take_along_axis(np.nan_to_num(chances), order, axis=1)
    covered = 100.0 * np.cumsum(weight[order], axis=1)
    shares = [step.enter for step in rule.steps]
    at = [np.minimum((covered < share - 1e-9).sum(axis=1), len(weight) - 1) for share in shares]
    probability = np.stack([np.take_along_axis(ranked, row[:, None], axis=1)[:, 0] for row in at], axis=1)
    low, high = (100.0 * _mean(np.where(np.isnan(chances), np.nan, chances >= limit), weight) for limit in LIMITS)
    unknown = np.isnan(low)
    return {"probability": np.where(unknown[:, None], np.nan, probability), "low": low, "high": high}


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean (time) over the known cells of an area (time, cell), NaN where less than LEAST of it is known."""
    known = np.isfinite(values)
    total = known @ weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total >= LEAST, np.where(known, values, 0.0) @ weight / total, np.nan)


# -------------------------------------------------------------------------------------------------------- a release
def evaluate(
    view: View, region: Region, settings: Settings, first: pd.Timestamp, last: pd.Timestamp, standing: Standing
) -> tuple[Standing, tuple[Transition, ...]]:
    """(what stands, what is said) after a release that changed the days first..last."""
    cells = view.dataset(region.name, "grid").load()
    known = rules(settings, region, cells)
    if not known:
        return warnings.evaluate((), {}, standing, region.name)
    begin = max(pd.Timestamp(region.start), first - max(rule.memory for rule in known) * DAY)
    return warnings.evaluate(known, readings(view, region, known, begin, last), standing, region.name)


def facts(region: Region, sequence: int, said: Sequence[Transition], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts of what is said, for the journal and the bus."""
    place = {"region": region.name, "sequence": sequence, "simulated": region.simulated, **about}
    return [
        fact(EVENTS[each.kind], region.name, f"{region.name}-warning-{each.rule}", {**each.data, **place})
        for each in said
    ]


def table(found: Mapping[str, Contingency]) -> list[dict[str, Any]]:
    """Verification for people; a rate of nothing is empty."""

    def number(value: float) -> float | None:
        return round(value, 2) if np.isfinite(value) else None

    return [
        {
            "rule": name,
            "hits": each.hits,
            "misses": each.misses,
            "false_alarms": each.false_alarms,
            "hit_rate": number(each.hit_rate),
            "false_alarm_ratio": number(each.false_alarm_ratio),
            "lead_days": number(each.lead_time),
        }
        for name, each in found.items()
    ]


def firing_log(view: View, region: str, after: int = -1) -> list[dict[str, Any]]:
    """What was said after an entry, oldest first: each transition with the time and the sequence of its release."""
    return [
        {**said, "sequence": entry["seq"], "time": entry["time"]}
        for entry in view.journal(region, after=after)
        for said in (entry.get("warnings") or {}).get("said", ())
    ]


def replay(store: Store, region: Region, settings: Settings) -> tuple[Standing, list[dict[str, Any]]]:
    """What would stand, and the firing log, had these rules been there from the first release on.

    Every release is read at its own snapshot, so that the rules that were there give the log there was.
    """
    standing: Standing = {}
    log = []
    for entry in store.at().journal(region.name):
        if release := entry.get("release"):
            view = store.at(store.snapshot_of(region.name, entry["seq"]))
            days = pd.Timestamp(release["first_day"]), pd.Timestamp(release["valid_day"])
            standing, said = evaluate(view, region, settings, *days, standing)
            log += [{**each.data, "sequence": entry["seq"], "time": entry["time"]} for each in said]
    return standing, log


def verified(
    view: View, region: Region, settings: Settings, log: Sequence[Mapping[str, Any]], ahead: int = 0
) -> dict[str, Contingency]:
    """Hits, misses, false alarms and lead of each rule against what is known now.

    An event is a row of days, as many as a rule asks for, at or beyond the threshold of its mildest step.
    """
    known = rules(settings, region, view.dataset(region.name, "grid").load())
    last = view.last_day(region.name, "drought")
    if last is None:
        return {}
    told = readings(view, region, known, pd.Timestamp(region.start), last)
    outcomes = {rule.id: _events(rule, told[rule.id]) for rule in known if rule.id in told}
    said = [Transition(**{each.name: body[each.name] for each in fields(Transition)}) for body in log]
    return warnings.verify(said, outcomes, str(last.date()), ahead)


def _events(rule: Rule, told: Readings) -> list[tuple[str, str]]:
    """First and last day of each event of a rule."""
    beyond = told.value >= rule.steps[0].enter if rule.comparison == "above" else told.value <= rule.steps[0].enter
    edges = np.flatnonzero(np.diff(np.concatenate([[0], beyond.astype(np.int8), [0]])))
    days = told.day.astype("datetime64[D]").astype(str)
    spells = zip(edges[::2], edges[1::2], strict=True)
    return [(days[first], days[end - 1]) for first, end in spells if end - first >= rule.enter_days]


# -------------------------------------------------------------------------------------------------------- messages
def message(
    view: View, region: Region, settings: Settings, body: Mapping[str, Any], sent: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The data of the event of a warning, and its CAP document, kept under the home: `cap` says where.

    body   data of the fact · about   snapshot, item
    """
    said = Transition(**{each.name: body[each.name] for each in fields(Transition)})
    moment = datetime.fromisoformat(sent)
    before = _before(view, region.name, said.supersedes) if said.supersedes else None
    sender = settings.warnings.sender
    issue = cap.Issue(
        sender=sender,
        sent=moment,
        superseded=(sender, before["identifier"], datetime.fromisoformat(before["time"])) if before else None,
        expires=moment + timedelta(days=settings.warnings.holds),
        simulated=region.simulated,
        sender_name=f"Drought twin, {region.title}",
        baseline=f"{region.reference_start} to {region.reference_end}",
        tier=str(body["tier"]),
        **about,
    )
    place = areas.outline(region, view.dataset(region.name, "grid").load(), said.place)
    path = settings.home / "warnings" / region.name / f"{said.identifier}.xml"
    write(path, cap.document(said, issue, cap.Area(said.where, place.polygons, place.codes)))
    return {**body, **cap.cloudevent_data(said, issue), "cap": path.as_uri()}


def _before(view: View, region: str, identifier: str) -> dict[str, Any] | None:
    """The message of that identifier; looked for in the newest entries first, for it is seldom old."""
    count = view.next_seq(region)
    for reach in (100, 1000, count):
        for each in firing_log(view, region, after=max(count - reach, 0) - 1):
            if each["identifier"] == identifier:
                return each
    return None
