"""Rules of warnings: who is to be told what, by which indicator, beyond which thresholds; from a declarative file.

    [[rule]]
    id = "northern-root-zone"                    version = 1
    place = {name = "Northern"}                  indicator = "soil_moisture_percentile"
    steps = [{level = "watch", enter = 20, exit = 30}, {level = "warning", enter = 10, exit = 20}]
    enter_days = 20                              leave_days = 20
    text = "{place}: {level} since {since}, percentile {value:.0f}."

Levels are words of systems there are, and no others: JRC's watch, warning, alert; the World Food Programme's ready,
set, go; the classes of the U.S. Drought Monitor. What each field does is told in `twin.warning`, which follows rules.
Refs: Sepulcre-Canto et al. (2012), Nat. Hazards Earth Syst. Sci. 12, 3519 (watch, warning, alert); Svoboda et al.
(2002), Bull. Amer. Meteor. Soc. 83, 1181 (classes).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, isnan
from typing import Any

from twin.errors import SettingsError

VOCABULARIES = (("watch", "warning", "alert"), ("ready", "set", "go"), ("D0", "D1", "D2", "D3", "D4"))
WORSE = {"below": -1.0, "above": 1.0}  # where the worse side of a threshold is
WET_SEASON = "wet"
ENTER_DAYS = LEAVE_DAYS = 20  # two dekads
NUMBERS = ("value", "low", "high", "probability", "threshold")  # of a message, for its text
WORDS = ("place", "level", "previous_level", "indicator", "category", "units", "day", "since", "reason")


@dataclass(frozen=True)
class Indicator:
    """What a rule may watch: its unit, the side that is worse, and the categories of which one must be named."""

    units: str
    worse: str
    categories: tuple[str, ...] = ()


INDICATORS = {  # by name; of an area they are means over it, or shares of it
    "soil_moisture_percentile": Indicator("%", "below"),
    "availability": Indicator("1", "below"),
    "drought_class": Indicator("% of area", "above", ("D0", "D1", "D2", "D3", "D4")),  # in this class or a worse one
    "dsci": Indicator("1", "above"),
    "cdi": Indicator("% of area", "above", ("watch", "warning", "alert")),
    "dry_spell": Indicator("day", "above"),
    "outlook": Indicator("%", "above", ("lower_tercile", "p30", "p20", "p10", "p5", "p2")),  # probability of that
}
_STANDARDISED = re.compile(r"(spi|spei|ssmi)-[1-9]\d{0,2}")  # and the days it is of


def indicator(name: str) -> Indicator:
    """The indicator of that name, one of INDICATORS or a standardised index and its days (spi-90)."""
    return INDICATORS.get(name, Indicator("1", "below"))


@dataclass(frozen=True)
class Step:
    """A level, the threshold at or beyond which it begins, and the one on whose better side it ends."""

    level: str
    enter: float
    exit: float


@dataclass(frozen=True)
class Rule:
    """Who is to be told what, and when: one table of the rules file, checked by `parse_rules`.

    place         {"region": true}, {"name": …}, {"cell": [lat, lon]}, {"bbox": [west, south, east, north]} or
                  {"polygon": [[lon, lat], …]}
    indicator     one of INDICATORS, or spi-90, spei-90, ssmi-90 with any number of days
    category      of the indicators that have some
    comparison    the worse side: below or above; by default the indicator's own
    steps         from the mildest to the worst
    probability   0..1 that the threshold is passed, from which a step may be entered; None asks for none
    months        in which it may stand; `season` "wet" is the wet season of the place, told with the readings
    """

    id: str
    version: int
    place: Mapping[str, Any]
    indicator: str
    comparison: str
    steps: tuple[Step, ...]
    text: str
    category: str = ""
    probability: float | None = None
    months: tuple[int, ...] = tuple(range(1, 13))
    season: str = ""
    enter_days: int = ENTER_DAYS
    leave_days: int = LEAVE_DAYS
    actions: str = ""

    @property
    def memory(self) -> int:
        """Days of readings that decide about one day."""
        return max(self.enter_days, self.leave_days)

    @property
    def units(self) -> str:
        """Of the value and the thresholds."""
        return indicator(self.indicator).units

    @property
    def where(self) -> str:
        """The place in words."""
        kind, value = next(iter(self.place.items()))
        if kind == "cell":
            return f"{abs(value[0]):g}°{'NS'[value[0] < 0]} {abs(value[1]):g}°{'EW'[value[1] < 0]}"
        return value if kind == "name" else {"region": "the region"}.get(kind, f"the {kind} of {self.id}")


def parse_rules(mapping: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a file, {"rule": [table, …]} as TOML's [[rule]] gives them; SettingsError names rule and field."""
    tables = mapping.get("rule", [])
    if set(mapping) - {"rule"} or not _is_list(tables):
        raise SettingsError("rules", expected="tables [[rule]] and nothing else", found=", ".join(map(str, mapping)))
    rules = tuple(_rule(table, number) for number, table in enumerate(tables, start=1))
    names = [rule.id for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError("rules", expected="each id once", found=f"{twice[0]!r} twice")
    return rules


def _rule(table: Any, number: int) -> Rule:
    if not isinstance(table, Mapping):
        raise SettingsError(f"rule {number}", expected="a table", found=repr(table))
    name = table["id"] if isinstance(table.get("id"), str) else str(number)

    def demand(key: str, right: bool, expected: str, found: Any) -> None:
        if not right:
            raise SettingsError(f"rule {name}: {key}", expected=expected, found=found)

    for key, (right, expected) in _FIELDS.items():
        if key in table:
            demand(key, right(table[key]), expected, repr(table[key]))
        demand(key, key in table or key not in _REQUIRED, expected, "nothing")
    for key in table:
        demand(key, key in _FIELDS, f"one of {', '.join(_FIELDS)}", "this field")
    known = indicator(table["indicator"])
    given = {**table, "place": dict(table["place"]), "comparison": table.get("comparison", known.worse)}
    given["steps"] = tuple(Step(step["level"], float(step["enter"]), float(step["exit"])) for step in table["steps"])
    given |= {"months": tuple(table["months"])} if "months" in table else {}
    rule = Rule(**given)
    categories = f"one of {', '.join(known.categories)}" if known.categories else "none"
    demand("category", rule.category in (known.categories or ("",)), categories, repr(rule.category))
    _check_steps(rule, demand)
    for key, text in (("text", rule.text), ("actions", rule.actions)):
        demand(key, *_fillable(text))
    return rule


def _check_steps(rule: Rule, demand: Callable[[str, bool, str, Any], None]) -> None:
    """Levels of one vocabulary, mildest first, each worse one entered beyond the milder, left no later than it."""
    side, levels = WORSE[rule.comparison], [step.level for step in rule.steps]
    order = next(([words.index(level) for level in levels] for words in VOCABULARIES if {*levels} <= {*words}), [])
    words = f"levels of one of {'; '.join(', '.join(words) for words in VOCABULARIES)}, mildest first"
    demand("steps", order != [] and order == sorted({*order}), words, ", ".join(levels) or "none")
    for step in rule.steps:
        better = side * step.exit < side * step.enter
        demand("steps", better, f"exit of {step.level} on the better side of {step.enter:g}", f"{step.exit:g}")
    for mild, severe in pairwise(rule.steps):
        beyond = side * mild.enter < side * severe.enter and side * mild.exit <= side * severe.exit
        expected = f"{severe.level} to be entered beyond {mild.level}, and left no later"
        demand("steps", beyond, expected, f"{severe.enter:g} and {severe.exit:g}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_numbers(value: Any, count: int) -> bool:
    return _is_list(value) and len(value) == count and all(map(_is_number, value))


def _is_step(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"level", "enter", "exit"}
        and isinstance(value["level"], str)
        and _are_numbers([value["enter"], value["exit"]], 2)
    )


def _is_point(lat: float, lon: float) -> bool:
    return abs(lat) <= 90.0 and abs(lon) <= 180.0


def _is_box(value: Any) -> bool:
    if not _are_numbers(value, 4):
        return False
    west, south, east, north = value
    return south < north and west != east and _is_point(south, west) and _is_point(north, east)


def _is_ring(value: Any) -> bool:
    points = _is_list(value) and len(value) >= 3 and all(_are_numbers(point, 2) for point in value)
    return points and all(_is_point(lat, lon) for lon, lat in value)


_PLACES: Mapping[str, Callable[[Any], bool]] = {
    "region": lambda value: value is True,
    "name": lambda value: isinstance(value, str) and value.strip() != "",
    "cell": lambda value: _are_numbers(value, 2) and _is_point(*value),
    "bbox": _is_box,
    "polygon": _is_ring,
}


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and len(value) == 1 and all(k in _PLACES and _PLACES[k](v) for k, v in value.items())
    )


def _are_months(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(_is_count(month) and month <= 12 for month in value)


_REQUIRED = ("id", "version", "place", "indicator", "steps", "text")
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # of a table: whether it is right, and what it must be
    "id": (
        lambda v: isinstance(v, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", v)),
        "small letters, digits, dot, dash and underscore",
    ),
    "version": (_is_count, "a whole number, 1 or more"),
    "place": (
        _is_place,
        "region = true, name = …, cell = [lat, lon], bbox = [west, south, east, north] or polygon = [[lon, lat], …]",
    ),
    "indicator": (
        lambda v: isinstance(v, str) and (v in INDICATORS or bool(_STANDARDISED.fullmatch(v))),
        f"{', '.join(INDICATORS)}, spi-90, spei-90 or ssmi-90",
    ),
    "category": (lambda v: isinstance(v, str), "a word"),
    "comparison": (lambda v: isinstance(v, str) and v in WORSE, "below or above"),
    "steps": (lambda v: _is_list(v) and all(map(_is_step, v)), "tables of level, enter and exit"),
    "probability": (lambda v: _is_number(v) and 0.0 < v <= 1.0, "above 0, at most 1"),
    "months": (_are_months, "some of 1 to 12"),
    "season": (lambda v: v == WET_SEASON, f"{WET_SEASON!r}, or nothing"),
    "enter_days": (_is_count, "days, 1 or more"),
    "leave_days": (_is_count, "days, 1 or more"),
    "text": (lambda v: isinstance(v, str) and v.strip() != "", "some words"),
    "actions": (lambda v: isinstance(v, str), "a text"),
}


def _fillable(text: str) -> tuple[bool, str, str]:
    """(whether the names of a message fill the text, what is expected, what was found)."""
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        if strange := sorted(used - {*NUMBERS, *WORDS}):
            return False, f"{{…}} of {', '.join((*NUMBERS, *WORDS))}", f"{{{strange[0]}}}"
        text.format_map({**dict.fromkeys(NUMBERS, Number(0.5)), **dict.fromkeys(WORDS, "")})
    except (ValueError, KeyError) as err:
        return False, "a template that can be filled", str(err)
    return True, "", ""


class Number(float):
    """A number in a text: one that is missing is `unknown`, whatever its format."""

    def __format__(self, spec: str) -> str:
        told = float.__format__(self, spec or "g")
        return "unknown" if isnan(self) else told
