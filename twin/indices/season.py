"""The wet seasons of each local year by soil moisture: when they begin, when they end, how long they are.

    availability    1 ┤          ╭───╮  ╭──────╮
               ENTER  ┤─ ─ ─ ─ ╭─╯─ ─╰──╯─ ─ ─ ╰─╮─ ─ ─ ─    onset: the first of 10 days in a row at or above ENTER
               LEAVE  ┤─ ─ ─ ─ │─ ─ ─ ─ ─ ─ ─ ─ ─│╮ ─ ─ ─    cessation: the first of 20 days in a row below LEAVE
                    0 ┤────────╯                   ╰─────
                             onset          cessation

Two thresholds and the days in a row keep a season that is interrupted for a week in one piece. A year of several wet
spells has the season that holds the cell's usual wettest day, or comes nearest to it: the longest, the usual choice,
changes from one spell to another with the smallest change of the soil's moisture. Where years have two seasons, a spell
is that of the nearer peak. Of a record that begins or ends within a year, what is wet there is taken to have been wet
before, or to go on.

The methods by rain are in `rains`; what they share is here: the form of the result, and what is known of a season.
Ref: Schmitt (1938), J. Sci. Instrum. 15, 24 (two thresholds).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import SettingsError, VariableError
from twin.indices.years import FIRST_DAYS, MISSING_DAYS, Years, as_days, calendar, local_years, place
from twin.land.compiled import compiled
from twin.land.threads import spread

ENTER, LEAVE = 0.5, 0.4  # plant-available water, 1
ENTER_DAYS, LEAVE_DAYS = 10, 20

MISSING = -128
WIDTH = 64  # cells that are stepped together
STATUS = {
    "whole": 0,
    "none": 1,
    "began_before_its_year": 2,
    "went_on_after_its_year": 3,
    "all_year": 4,
    "running": 5,  # the record ends within the season
    "not_yet": 6,  # the record ends before there is one
    "joined": 7,  # one wet spell over the peaks of both seasons
    "not_in_this_regime": 8,  # a second season where years have one, any season where it is too dry
}


class Expected(NamedTuple):
    """The seasons there are to find: peak (season, cell), days since the local year began; absent (season, cell)."""

    start_month: np.ndarray
    peak: np.ndarray
    absent: np.ndarray

    def of(self, cells: np.ndarray) -> Expected:
        """Those of some cells."""
        return Expected(self.start_month[cells], self.peak[:, cells], self.absent[:, cells])


class Found(NamedTuple):
    """What a method found in the local years of some cells, dims (…, season, year, cell), days since the year began.

    counts        (4 or more) onset, cessation, how many seasons, known days within the window; then the method's own
    first, last   the window: the day it begins, the day after it
    open          whether further days of the window could change a season that has ended
    to_come       True where what was found cannot be the season, were the record to end today
    """

    counts: np.ndarray
    first: ArrayLike
    last: ArrayLike
    open: bool = False
    to_come: np.ndarray | bool = False


def wet_season(
    values: xr.DataArray,
    when: xr.Dataset | None = None,
    *,
    enter: float = ENTER,
    leave: float = LEAVE,
    enter_days: int = ENTER_DAYS,
    leave_days: int = LEAVE_DAYS,
    to_date: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """onset, cessation, length (days), wet_seasons (how many) and season_status of each local year, dims (year, cell).

    values        (time, cell), consecutive days: `spells.availability`, or anything of which more is wetter
    when          start_month and peak (cell), as `years.calendar` finds in the values themselves if it is not given;
                  give the same one to runs that are to be compared, and to the blocks of one run. With peaks by
                  (season, cell), as `rains.rain_regime` finds them, the result is by (year, season, cell)
    enter, leave  thresholds in the unit of the values, leave at most enter
    to_date       the year in which the record ends is told as far as it goes: STATUS running or not_yet, days_to_date
    Onset and cessation are days since the local year began, 0 the first. The season is that of STATUS: a season cut at
    its year's limits, or running, is a bound on onset or cessation and on length. A year without season has length 0
    and neither onset nor cessation; one with more than MISSING_DAYS missing has nothing, and status MISSING.
    Raises VariableError for other dims, TimeError for gaps, SettingsError for thresholds or days that make no season.
    """
    if not leave <= enter:
        raise SettingsError(
            "thresholds of the wet season", expected="leave at most enter", found=f"{leave} and {enter}"
        )
    if min(enter_days, leave_days) < 1:
        raise SettingsError("days of the wet season", expected="1 or more", found=min(enter_days, leave_days))

    def find(data: np.ndarray, years: Years, seasons: Expected) -> Found:
        part = data if years.cells.size == data.shape[1] else data.take(years.cells, axis=1)
        found = np.zeros((len(seasons.peak), 4, years.label.size, years.cells.size), np.int32)
        for season, peak in enumerate(seasons.peak):
            other = np.where(seasons.absent[-1] | (len(seasons.peak) == 1), -1, seasons.peak[-1 - season])
            options = (enter, leave, enter_days, leave_days, peak, other)
            march = partial(_seasons, part, *options, years.bounds, found[season])
            spread(march, years.cells.size, threads or os.cpu_count() or 1)
        counts, length = found.swapaxes(0, 1), years.length[:, None]
        now = len(data) - years.bounds[:, :1]
        return Found(counts, 0, length, to_come=(counts[1] < length) & (now <= seasons.peak[:, None]))

    told = {"method": "soil", "enter": enter, "leave": leave, "enter_days": enter_days, "leave_days": leave_days}
    return each_year(values, calendar(values) if when is None else when, find, told, to_date)


def season_dates(days: xr.DataArray) -> xr.DataArray:
    """The dates, datetime64, of an `onset` or a `cessation`, dims as they are; NaT where there is none."""
    month = ((days["year"] - 1970) * 12 + days["start_month"] - 1).transpose(..., "cell").values
    first = month.astype("datetime64[M]").astype("datetime64[D]").reshape(len(month), *[1] * (days.ndim - 2), -1)
    dates = first + np.nan_to_num(days.values).astype("timedelta64[D]")
    dates[np.isnan(days.values)] = np.datetime64("NaT", "D")
    return days.copy(data=dates.astype("datetime64[ns]")).assign_attrs(long_name=days.attrs["long_name"].split(",")[0])


def onset_probability(seasons: xr.Dataset, days: ArrayLike | None = None) -> xr.DataArray:
    """Share of members whose season has begun by the end of each day, 1, dims (…, day, cell) without realization.

    seasons   onset and season_status with a dim `realization`; days_to_date where a status is running or not_yet
    days      since the local year began; 0 to 365 unless given
    A member without season has not begun by any day, one that began before its year has by the first; one without value
    leaves the sample, and where none has one the share is NaN. A member whose record ends before its season (not_yet)
    has surely not begun so far and nothing is known of it later: from that day on the share is NaN.
    Raises VariableError for seasons without these.
    """
    needed = {"onset", "season_status"}
    if "season_status" in seasons and (seasons["season_status"] == STATUS["not_yet"]).any():
        needed.add("days_to_date")
    if not needed <= set(seasons.data_vars) or "realization" not in seasons["onset"].dims:
        found = ", ".join(map(str, seasons.data_vars))
        raise VariableError(
            "seasons of an ensemble", expected=f"{', '.join(sorted(needed))} by realization", found=found
        )
    onset, status = seasons["onset"], seasons["season_status"]
    day = xr.DataArray(np.arange(366) if days is None else np.asarray(days), dims="day")
    day = day.assign_coords(day=day)
    known = status != MISSING
    waiting = status == STATUS["not_yet"]
    share = ((onset <= day) & known).sum("realization") / known.sum("realization").where(known.any("realization"))
    if waiting.any():
        share = share.where(~waiting.any("realization") | (day < seasons["days_to_date"]))
    share = share.transpose(*(dim for dim in onset.dims if dim not in ("realization", "cell")), "day", "cell")
    words = {"units": "1", "long_name": "probability that the wet season has begun"}
    return share.drop_attrs().rename("onset_probability").assign_attrs(words | {"of": str(onset.attrs.get("of"))})


# --- what the methods share ------------------------------------------------------------------------------------------
def each_year(
    values: xr.DataArray,
    when: xr.Dataset,
    find: Callable[[np.ndarray, Years, Expected], Found],
    told: Mapping[str, Any],
    to_date: bool,
    own: Mapping[str, Mapping[str, str]] | None = None,
) -> xr.Dataset:
    """The seasons that `find` finds, as `wet_season` returns them; of cells whose years begin together at a time.

    told   attributes of every figure: the choices made · own   attributes of the method's own counts, by name
    """
    data = as_days(values)
    seasons, dims = expected(when, data.shape[1])
    groups = list(local_years(values["time"].values, seasons.start_month, data.shape[1]))
    attrs: dict[str, Mapping[str, str]] = {
        "onset": {"units": "day", "long_name": "first day of the wet season, since the local year began"},
        "cessation": {"units": "day", "long_name": "first day after the wet season, since the local year began"},
        "length": {"units": "day", "long_name": "length of the wet season"},
        "wet_seasons": {"units": "1", "long_name": "wet seasons of the year"},
        **(own or {}),
    }
    shape = (groups[0].label.size, *seasons.peak.shape)
    figures, status = np.empty((len(attrs), *shape), np.float32), np.empty(shape, np.int8)
    to_day = np.empty((shape[0], shape[-1]), np.int32)
    for years in groups:
        here = seasons.of(years.cells)
        to_day[:, years.cells] = (len(data) - years.bounds[:, :1]).clip(0, years.length[:, None])
        found, known = _told(find(data, years, here), years, len(data), here.absent, to_date)
        figures[..., years.cells], status[..., years.cells] = found.swapaxes(1, 2), known.swapaxes(0, 1)
    if len(dims) == 2:
        figures, status = figures[:, :, 0], status[:, 0]
    choices = {"of": str(values.name), **told}
    variables = {name: (dims, figures[row], {**attrs[name], **choices}) for row, name in enumerate(attrs)}
    meanings = {"flag_values": np.array([*STATUS.values()], np.int8), "flag_meanings": " ".join(STATUS)}
    variables["season_status"] = dims, status, {"long_name": "what is known of the wet season", **meanings}
    if to_date:
        words = {"units": "day", "long_name": "days of the local year before the record ends"}
        variables["days_to_date"] = ("year", "cell"), to_day, words
    coords = {"year": groups[0].label, "start_month": ("cell", seasons.start_month), **place(values)}
    return xr.Dataset(variables, coords | ({"season": [1, 2]} if "season" in dims else {}))


def expected(when: xr.Dataset, cells: int) -> tuple[Expected, tuple[str, ...]]:
    """(the seasons that a calendar tells, dims of their figures); VariableError for one of other cells."""
    for name in ("start_month", "peak"):
        if name not in when or when[name].sizes.get("cell") != cells:
            found = dict(when[name].sizes) if name in when else "none"
            raise VariableError(f"'{name}' of a calendar", expected=f"cell {cells}", found=found)
    start_month = np.asarray(when["start_month"].values, np.int64)
    peak = since_start(when["peak"].transpose(..., "cell").values, start_month)
    absent = np.zeros(peak.shape, bool)
    if "rainy_seasons" in when:
        number = when["rainy_seasons"].values
        absent = (np.arange(len(peak))[:, None] >= number) & (number != MISSING)
    return Expected(start_month, peak, absent), ("year", "season", "cell") if when["peak"].ndim == 2 else (
        "year",
        "cell",
    )


def since_start(days: ArrayLike, start_month: np.ndarray) -> np.ndarray:
    """Days of the 365-day year, (…, cell), as days since the local year began, 0..364, (season, cell)."""
    return np.atleast_2d((np.asarray(days, np.int64) - FIRST_DAYS[start_month - 1]) % 365)


def _told(found: Found, years: Years, days: int, absent: np.ndarray, to_date: bool) -> tuple[np.ndarray, np.ndarray]:
    """(figures (…, season, year, cell): onset, cessation, length, wet_seasons, the method's own; season_status)."""
    onset, cessation, number, known, *own = found.counts
    now = days - years.bounds[:, :1]  # since the year began
    seen = np.minimum(found.last, now)
    cut = to_date & (now > 0) & (now < found.last)
    missing = np.where(cut, seen, found.last) - found.first - known > MISSING_DAYS
    there = (number > 0) & ~(cut & found.to_come)
    early, late = onset <= found.first, cessation >= seen
    waiting, running = cut & ~there, cut & there & (late | found.open)
    if len(onset) > 1:  # only one and the same spell has the same limits
        joined = there.all(axis=0) & ~absent.any(axis=0) & (onset[0] == onset[-1]) & (cessation[0] == cessation[-1])
    else:
        joined = np.False_
    states = {
        "not_in_this_regime": np.broadcast_to(absent[:, None], onset.shape),
        "missing": missing,
        "not_yet": waiting,
        "none": ~there,
        "running": running,
        "all_year": early & late,
        "began_before_its_year": early,
        "went_on_after_its_year": late,
        "joined": np.broadcast_to(joined, onset.shape),
    }
    status = np.select([*states.values()], [STATUS.get(name, MISSING) for name in states], STATUS["whole"])
    cessation = np.where(running, np.minimum(cessation, now), cessation)
    season = np.where(there, [onset, cessation], np.nan)
    length = np.where(waiting, np.nan, np.where(there, cessation - onset, 0))
    figures = np.stack([*season, length, np.where(there, number, 0), *own]).astype(np.float32)
    return np.where(states["not_in_this_regime"] | missing, np.float32(np.nan), figures), status


@compiled
def _seasons(values, enter, leave, enter_days, leave_days, peak, other, bounds, seasons, first, last):
    """The season of each year of cells first..last, (4, year, cell): onset, cessation, how many there were, known days.

    Onset and cessation count from the year's first day; both are 0 without a season. Spells nearer to the `other`
    season's peak (cell), −1 where there is one season, are not looked at.
    """
    wet, run, began = np.empty(WIDTH, np.bool_), np.empty(WIDTH, np.int32), np.empty(WIDTH, np.int32)
    for year in range(bounds.shape[0]):
        start, stop = max(bounds[year, 0], 0), min(bounds[year, 1], values.shape[0])
        for block in range(first, last, WIDTH):
            n = min(WIDTH, last - block)
            wet[:], run[:] = False, 0
            for row in range(start, stop):
                for i in range(n):
                    value = values[row, block + i]
                    seasons[3, year, block + i] += value == value
                    run[i] = run[i] + 1 if (value < leave if wet[i] else value >= enter) else 0
                    if not wet[i] and run[i] == enter_days:
                        began[i] = row + 1 - enter_days - bounds[year, 0] if row + 1 - enter_days > start else 0
                        wet[i], run[i] = True, 0
                    elif wet[i] and run[i] == leave_days:
                        ended = row + 1 - leave_days - bounds[year, 0]
                        wet[i], run[i] = False, 0
                        if _ours(began[i], ended, peak[block + i], other[block + i]):
                            _take(seasons, year, block + i, began[i], ended, peak[block + i])
            for i in range(n):
                if wet[i]:
                    ended = bounds[year, 1] - bounds[year, 0]
                    if _ours(began[i], ended, peak[block + i], other[block + i]):
                        _take(seasons, year, block + i, began[i], ended, peak[block + i])


@compiled
def _ours(began, ended, peak, other):
    """Whether a wet spell is the season of this peak: there is no other (−1), or none nearer."""
    return other < 0 or _away(began, ended, peak) <= _away(began, ended, other)


@compiled
def _take(seasons, year, cell, began, ended, peak):
    """Keep a wet spell that is nearer to the usual peak than those before it, or as near and longer."""
    onset, cessation = seasons[0, year, cell], seasons[1, year, cell]
    away, before = _away(began, ended, peak), _away(onset, cessation, peak)
    better = away < before or (away == before and ended - began > cessation - onset)
    if seasons[2, year, cell] == 0 or better:
        seasons[0, year, cell], seasons[1, year, cell] = began, ended
    seasons[2, year, cell] += 1


@compiled
def _away(began, ended, peak):
    """Days from a wet spell to a day, 0 within it."""
    return max(began - peak, peak - ended + 1, 0)
