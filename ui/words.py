"""Numbers to words: every text the portal shows, in one file, so that it can be tested and translated.

Sentences are pure functions; a missing number gives a sentence that says so, never a class or a rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from twin.indices.classes import MISSING as MISSING_CODE

TITLE = "Drought twin"
SUBTITLE = "The state of the land's water, kept up to date by every satellite and weather item that arrives."
REGION = "Region"
DAY = "Day shown"
LATEST = "Back to the latest day"
CLOSE = "Close"
SPAN = "Period shown"
SPANS = {"1 year": 365, "3 years": 1096, "All": None}
EVENTS = "Latest events"
NO_EVENTS = "No event yet. The first one appears here as soon as an item has been taken in."
QUARANTINE = "Set aside"
NO_QUARANTINE = "No item has been set aside: everything that arrived could be used."
PUBLISHED = "Published item"
INVITATION_TITLE = "Look closer"
INVITATION = (
    "Choose a cell on the map to see its soil moisture against the years before. "
    "With the keyboard: Tab to the map, move with the arrow keys, choose with Enter."
)
EMPTY_TITLE = "Nothing to show yet"
EMPTY = (
    "The twin holds no drought map yet. It is preparing its first region or waiting for the first item; "
    "this page changes by itself when there is something to see."
)
NO_SUCH_PLACE = "The address of this page names a place outside the region; choose another one on the map."
NO_SUCH_DAY = "The address of this page names a day that is not in the record; the latest day is shown."
HOW_TITLE = "How to read this map"
HOW = (
    "Each cell compares the water in the top metre of soil with the same time of year in the reference years. "
    "Classes follow the percentile limits of the United States Drought Monitor (30, 20, 10, 5 and 2 %; on the wet "
    "side 70, 80, 90, 95 and 98 %), but this is one indicator computed by a model, not that expert map. "
    "D0 is a warning stage and does not count as drought. Hatched cells have no value, which never means no drought."
)
PALETTE_NOTE = (
    "Colours run from pale yellow to dark purple for dry and from pale to dark blue for wet; each step is also darker "
    "than the one before, so the order survives colour blindness and grey printing."
)
BORDERS_NOTE = "Outlines: Natural Earth, public domain. They are drawn for orientation and take no position on borders."
CHART_MOISTURE = "Soil moisture of the top metre, m³ m⁻³"
CHART_LINE = "top metre"
CHART_DAY = "day"
CHART_CLASS = "class from this day"
MEDIAN = "median"
MISSING = "no value"

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_ENDINGS = {"ry": "ries", "ch": "ches"}  # of the plurals that do not just add an s
_MONTHS_PLURAL = tuple(month[:-2] + _ENDINGS.get(month[-2:], month[-2:] + "s") for month in _MONTHS)
ENOUGH_YEARS = 30  # a climatological normal, WMO-No. 1203
EXCEPTIONAL_YEARS = 24  # Hazen's 1/2/(n + 1) reaches 2 %, the limit of D4


class Kind(NamedTuple):
    """A drought class: its short name and its name in words."""

    short: str
    name: str


KINDS: Mapping[int, Kind] = {
    5: Kind("D4", "exceptional drought"),
    4: Kind("D3", "extreme drought"),
    3: Kind("D2", "severe drought"),
    2: Kind("D1", "moderate drought"),
    1: Kind("D0", "abnormally dry"),
    0: Kind("", "near normal"),
    -1: Kind("W0", "abnormally wet"),
    -2: Kind("W1", "moderately wet"),
    -3: Kind("W2", "very wet"),
    -4: Kind("W3", "extremely wet"),
    -5: Kind("W4", "exceptionally wet"),
    MISSING_CODE: Kind("", MISSING),
}


def kind(code: int) -> str:
    """'D2 severe drought' for 3; an unknown code is a missing value."""
    found = KINDS.get(int(code), KINDS[MISSING_CODE])
    return f"{found.short} {found.name}".strip()


def day(when: date) -> str:
    """'12 March 2026'."""
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}"


def clock(when: datetime) -> str:
    """'12 March, 09:05:03 UTC'."""
    when = when.astimezone(UTC)
    return f"{when.day} {_MONTHS[when.month - 1]}, {when:%H:%M:%S} UTC"


def made_from(what: str) -> str:
    """'Made from SM_20260312'."""
    return f"Made from {what}"


def place(lat: float, lon: float) -> str:
    """'9.25° N, 0.75° W'."""
    return f"{_degrees(lat)} {'S' if lat < 0 else 'N'}, {_degrees(lon)} {'W' if lon < 0 else 'E'}"


def _degrees(value: float) -> str:
    return f"{abs(value):.2f}".rstrip("0").rstrip(".") + "°"


def number(value: int) -> str:
    """'60 000', with narrow no-break spaces as in SI."""
    return f"{value:,}".replace(",", "\u202f")


def counted(value: int, one: str, many: str = "") -> str:
    """'1 item', '3 items'."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """'8 %' for 0.08; '<1 %' where rounding would hide what is there, '>99 %' where it would hide the rest."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.005:
        return "<1\u202f%"
    if 0.995 < share < 1:
        return ">99\u202f%"
    return f"{100 * share:.0f}\u202f%"


def span(seconds: float) -> str:
    """A length of time as one speaks of it: '8 s', '5 min', '3 h', '2 days', '8 years'."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    days = seconds / 86400
    if days < 60:
        return counted(round(days), "day")
    if days < 730:
        return counted(round(days / 30.44), "month")
    return counted(int(days / 365.25), "year")


def listed(parts: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


# ---------------------------------------------------------------------------------------------------- the region


def headline(shares: Mapping[int, float]) -> str:
    """What the map says in one sentence. shares: class code -> share of the area that has a value (0..1)."""
    known = sum(shares.get(code, 0.0) for code in range(-5, 6))
    if known <= 0:
        return "No cell has a value on this day."
    drought = sum(shares.get(code, 0.0) for code in (2, 3, 4, 5))
    worst = sum(shares.get(code, 0.0) for code in (4, 5))
    if drought <= 0:
        dry = shares.get(1, 0.0)
        return "No drought." + (f" {percent(dry)} of the land is abnormally dry." if dry > 0 else "")
    text = f"{percent(drought)} of the land is in drought"
    return f"{text}, {percent(worst)} in extreme or exceptional drought." if worst > 0 else f"{text}."


class Badge(NamedTuple):
    """A label and what it means."""

    label: str
    meaning: str


def badges(tier: str, simulated: bool, until: date | None = None, shown: date | None = None) -> list[Badge]:
    """Which answer this is: simulated or real data, open loop or analysis.

    until   last day whose observations corrected the land model, None where none ever did
    shown   the day on the map; days beyond `until` rest on the weather alone
    """
    tiers = {
        "open_loop": Badge("Open loop", "The land model was carried forward by the weather alone."),
        "analysis": Badge("Analysis", "The land model was corrected by satellite observations."),
    }
    if until and tier in tiers:
        alone = (shown - until).days if shown else 0
        since = f"{counted(alone, 'day')} since"
        checked = Badge(
            f"Checked against satellites until {day(until)}",
            "The land model was corrected by satellite observations up to that day"
            + (f"; the {since} {'rest' if alone > 1 else 'rests'} on the weather alone." if alone > 0 else "."),
        )
        on_its_own = Badge(
            f"Open loop for {counted(alone, 'day')}",
            f"The weather alone has carried the land model since {day(until)}, the last day satellites corrected it.",
        )
        tiers = {"open_loop": on_its_own if alone > 0 else checked, "analysis": checked}
    invented = Badge(
        "Simulated data", "Weather and observations are invented to show how it works: decide nothing by them."
    )
    known = tiers.get(tier, Badge(tier.replace("_", " ") or "Unknown tier", ""))
    return [invented, known] if simulated else [known]


def release(sequence: int | None, made: datetime | None) -> str:
    """'Release 12, made 12 March, 09:05:03 UTC'."""
    name = "Release not announced yet" if sequence is None else f"Release {number(sequence)}"
    return f"{name}, made {clock(made)}." if made else f"{name}."


def data_age(newest: date, now: datetime) -> str:
    """How old the newest day of the record is."""
    days = (now.astimezone(UTC).date() - newest).days
    if days <= 0:
        return "The newest day is today."
    if days == 1:
        return "The newest day is yesterday."
    return f"The newest day is {span(days * 86400.0)} old."


COUNTERS = ("items taken in", "items set aside", "releases", "cells", "since the last event")


# ------------------------------------------------------------------------------------------------------ the place


def rank(percentile: float, when: date, years: int) -> str:
    """'Drier than 19 of 20 Novembers.', 'Near normal for November: drier than 12 of 20.'

    percentile  Hazen's position among n + 1 years, 0..100, as `twin.climatology` gives it: the years below are
                p (n + 1)/100 - 1/2, and "all" is said only when no value of any reference year lies beyond it
    when        its month names the season compared with
    years       n, how many reference years there are
    """
    if not math.isfinite(percentile) or years < 1:
        return "There is no value to compare here."
    month, months = _MONTHS[when.month - 1], _MONTHS_PLURAL[when.month - 1]
    side, near = ("drier", percentile) if percentile <= 50 else ("wetter", 100 - percentile)
    beyond = max(0.0, near / 100 * (years + 1) - 0.5)  # years on the far side
    count = years if beyond < 1e-3 else min(years - 1, math.floor(years - beyond + 1e-4))
    if 30 < percentile < 70:
        return f"Near normal for {month}: {side} than {count} of {years}."
    if years == 1 and count == 0:
        return f"{side.capitalize()} than most of the one {month} there is to compare with."
    if years == 1:
        return f"{side.capitalize()} than the one {month} there is to compare with."
    return f"{side.capitalize()} than {'all' if count == years else f'{count} of'} {years} {months}."


def status(code: int, percentile: float) -> str:
    """'Severe drought, percentile 7'."""
    name = KINDS.get(int(code), KINDS[MISSING_CODE]).name
    name = name[0].upper() + name[1:]
    return f"{name}, percentile {percentile:.0f}" if math.isfinite(percentile) else name


def since(codes: Sequence[int], days: Sequence[date]) -> str:
    """Since when the place is in drought (D1 or worse) without a break; '' when it is not. Oldest day first."""
    run = 0
    for code in reversed(codes):
        if code < 2:
            break
        run += 1
    if run == 0:
        return ""
    if run == len(codes):
        return f"In drought since before {day(days[0])}."
    return f"In drought since {day(days[-run])} ({counted(run, 'day')})."


def trend(now: float, before: float, days: int) -> str:
    """Better or worse than `days` ago, by percentile; a change under 5 points is no change."""
    if not (math.isfinite(now) and math.isfinite(before)):
        return ""
    change = now - before
    if abs(change) < 5:
        return f"About the same, for the season, as {days} days earlier."
    return f"{'Wetter' if change > 0 else 'Drier'}, for the season, than {days} days earlier."


def reference(years: int, first: int | None = None, last: int | None = None) -> str:
    """How many years the percentile compares with, which (where known), and how far that can be trusted."""
    if years < 1:
        return "There are no reference years yet (two whole years are needed), so there is no percentile and no class."
    which = ""
    if first and last:
        whole = last - first + 1 == years
        which = f", {first} to {last}" if whole and years > 1 else f" out of {first} to {last}"
    text = f"Compared with {counted(years, 'reference year')}{which}"
    if years >= ENOUGH_YEARS:
        return f"{text}."
    short = f"{text}. That is a short record ({ENOUGH_YEARS} years are usual)"
    if years < EXCEPTIONAL_YEARS:
        rarest = f"nothing rarer than {50 / (years + 1):.0f} % can be told from it"
        return f"{short}: {rarest}, so take the class as a rough guide."
    return f"{short}, so take the class as a rough guide."


def certainty(low: float, high: float) -> str:
    """How well the percentile is known, from its 90 % interval; '' where it has none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"The true percentile is between {low:.0f} and {high:.0f} (90\u202f% sure)."


def amount(moisture: float, spread: float) -> str:
    """'0.21 ± 0.02 m³ m⁻³'; '' where either is missing."""
    if not (math.isfinite(moisture) and math.isfinite(spread)):
        return ""
    return f"{moisture:.2f} ± {f'{spread:.2f}' if spread >= 0.005 else '<0.01'}\u202fm³\u202fm⁻³"


def water(moisture: float, spread: float) -> str:
    """How much water there is and how sure that is; '' where no analysis says how sure."""
    found = amount(moisture, spread)
    return f"{found} of water in the top metre." if found else ""


SPREAD_NOTE = (
    "After ± stands how far the model runs of the last analysis differ here (one standard deviation); with every rain "
    "since then they part further. What all runs have wrong alike is not in it."
)


def band(low: int, high: int) -> str:
    """Name of a percentile band in the chart: 'usual (20–80 %)'."""
    names = {(5, 20): "dry", (20, 80): "usual", (80, 95): "wet"}
    return f"{names.get((low, high), 'between')} ({low}–{high}\u202f%)"


def observed(product: str) -> str:
    """Name of an observation series in the chart."""
    return f"satellite, top 5 cm ({product})"


# --------------------------------------------------------------------------------------------------- what happened


def event(type_: str, subject: str, data: Mapping[str, Any]) -> str:
    """What happened, in one line."""
    taken = counted(len(data.get("consumed") or ()), "item")
    if type_ == "twin.drought.updated.v1":
        source = f" from {taken}" if data.get("consumed") else ""
        return f"Drought map updated to {_day(data.get('valid_day'))}{source}"
    if type_ == "twin.item.quarantined.v1":
        return f"Item set aside: {subject}"
    if type_ == "twin.observations.ingested.v1":
        return f"{taken} taken in"
    if type_ == "twin.analysis.completed.v1":
        return f"Checked against {number(int(data.get('observations') or 0))} satellite observations, {_span(data)}"
    if type_ == "twin.analysis.refused.v1":
        return f"Check against satellites not used: {_doubts(data.get('reasons'))}"
    if type_ == "twin.emulator.promoted.v1":
        before = "; it replaces the one before" if data.get("predecessor") else ""
        return f"A fast copy of the land model, for scenarios, is in use{before}"
    if type_ == "twin.emulator.refused.v1":
        return "A new fast copy of the land model was no better than the one in use, which stays"
    if type_ == "twin.emulator.rolledback.v1":
        return "An earlier fast copy of the land model is in use again"
    if type_ == "twin.scenario.completed.v1":
        span = " to ".join(str(year) for year in data.get("years") or ())
        return f"Scenario finished: {data.get('label') or subject}{f', {span}' if span else ''}"
    if type_ == "twin.outlook.issued.v1":
        return f"Outlook from {' to '.join(_day(edge) for edge in str(data.get('season')).split(' to '))}"
    if type_.startswith("twin.warning."):
        return _warning(data) or f"Warning: {subject}"
    if type_ == "twin.region.prepared.v1":
        return f"Region prepared, {counted(int(data.get('cells') or 0), 'cell')}"
    return f"{type_}: {subject}"


def _warning(data: Mapping[str, Any]) -> str:
    """'Drought warning for Ghana, before watch', and what was measured."""
    if not data.get("where"):
        return ""
    if not data.get("level"):
        return f"Drought {data.get('previous_level')} for {data['where']} is over: {data.get('reason')}"
    before = f", before {data['previous_level']}" if data.get("previous_level") else ""
    return f"Drought {data['level']} for {data['where']}{before}. {data.get('text', '')}".strip()


def _day(text: Any) -> str:
    try:
        return day(date.fromisoformat(str(text)[:10]))
    except ValueError:
        return "an unknown day"


def _span(data: Mapping[str, Any]) -> str:
    """'1 January 2024 to 9 May 2024'."""
    return " to ".join(_day(edge) for edge in data.get("window") or ("", ""))


_DOUBTS = {  # what a reason for refusing an analysis holds, and what that means
    "no observation to use": "none of the observations could be used",
    "% rejected": "too many observations were too far from anything the land model could do",
    "no step made": "nothing about the land model could be changed to come closer to the observations",
    "standard deviations from its prior": "it would have taken soil or plants unlike any known",
    "beyond their bounds": "it would have taken soils at the limits of what is possible",
    "fit worse": "observations kept aside for a test fitted worse than before",
    "members complete": "too many model runs failed",
    "control run": "the model run to start from failed",
}


def _doubts(reasons: Any) -> str:
    """Why an analysis was refused, for everybody; the reason itself where it is not one of those known."""
    found = [next((said for mark, said in _DOUBTS.items() if mark in str(r)), str(r)) for r in reasons or ()]
    return listed(list(dict.fromkeys(found))) or "no reason was given"


def refused(attempt: Mapping[str, Any]) -> str:
    """The newest analysis was refused: when, why, and what that means for what is shown."""
    why = _doubts(attempt.get("reasons"))
    return f"The last check against satellites ({_span(attempt)}) is not used: {why}. The map goes on without it."


def name(key: Any) -> str:
    """The item id in a key `collection/id@version`, or the text itself."""
    text = str(key)
    return text.rsplit("@", 1)[0].split("/", 1)[-1] if "/" in text else text


_REFUSALS = {
    "AccessError": "from a place that is not allowed",
    "AssetError": "file missing or damaged",
    "ChecksumError": "file is not the one described",
    "VariableError": "variable missing",
    "UnitsError": "wrong units",
    "RangeError": "impossible values",
    "PlaceError": "outside the region",
    "TimeError": "no usable time",
}


def refusal(kind: str) -> str:
    """Why an item was set aside, in a few words, from the class of its error."""
    return _REFUSALS.get(kind, "cannot be used")


# --------------------------------------------------------------------------------------------------- degraded mode


def bus_away(since: datetime, newest: date | None) -> str:
    """The bus does not answer: what that means for what is shown."""
    shown = f" The map shows {day(newest)}, the newest that was announced before." if newest else ""
    return f"The event bus has not answered since {clock(since)}, so news cannot reach this page.{shown}"


def catalogue_away(since: datetime) -> str:
    """The catalogue does not answer."""
    missing = "The map is complete, but links to published items may not open."
    return f"The catalogue has not answered since {clock(since)}. {missing}"


def store_away(why: str) -> str:
    """The store cannot be read."""
    return f"The store cannot be read at the moment, so no map can be shown; the page tries again by itself. ({why})"


def not_announced() -> str:
    """A map from the store that the bus never announced."""
    return "No announcement has been received for this map; it is the newest one in the store."


def silent(seconds: float) -> str:
    """Nothing arrived for long."""
    return f"Nothing has arrived for {span(seconds)}. The map stays as it was; check the sources if more was expected."


# --------------------------------------------------------------------------------------------------------- the map

MAP = {
    "label": "Map of drought class",
    "help": "Arrow keys move between cells, Enter chooses one, plus and minus zoom, 0 shows the whole region.",
    "zoomIn": "Zoom in",
    "zoomOut": "Zoom out",
    "whole": "Show the whole region",
    "legend": "Classes and the share of land in each; choose one to see where it is",
    "missing": MISSING,
    "outside": "outside the region",
    "unit": "m³ m⁻³",
}


def snapshot(identifier: str) -> str:
    """Which snapshot of the store is shown."""
    return f"Snapshot {identifier}"
