"""What is counted as days arrive: each new day costs a day, however long the record is.

    yesterday's counts (cell) ─┬─ day's rain and availability ─advance─▸ today's counts (cell), and what is told of them
                               └─ months' begin, where the local year begins: counts of the year start anew

The figures of the local year so far are those that `dry_spells` and `wet_season(…, to_date=True)` find in the same
days. Rain is also added up from the region's first day, in whole thousandths of a millimetre: the rain of any window is
the difference of two sums, the same bits whichever days it was reached by.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from twin.errors import SettingsError, TimeError
from twin.indices.season import ENTER, ENTER_DAYS, LEAVE, LEAVE_DAYS, STATUS, _take
from twin.indices.season import MISSING as UNKNOWN
from twin.indices.spells import DRY_RAIN, DRY_SOIL
from twin.indices.years import FIRST_DAYS, MISSING_DAYS, place
from twin.land.compiled import compiled
from twin.land.threads import spread

RESOLUTION = 1e-3  # kg m-2 that rain is counted in
DAY = 86400.0  # s
MISSING = np.iinfo(np.int16).min
COUNTS = ("wet", "run", "began", "onset", "cessation", "wet_seasons", "days", "known", "dry_days", "dry_spell", "rain")
_WET, _RUN, _BEGAN, _ONSET, _CESSATION, _SEASONS, _DAYS, _KNOWN, _DRY, _SPELL, _RAIN = range(len(COUNTS))


def begin(cells: int) -> xr.Dataset:
    """Counts before the first day, all zero, int32 (count, cell); attribute `next_day` is not there yet."""
    return xr.Dataset({"counts": (("count", "cell"), np.zeros((len(COUNTS), cells), np.int32))})


def advance(
    counts: xr.Dataset,
    rain: xr.DataArray,
    water: xr.DataArray,
    when: xr.Dataset,
    *,
    enter: float = ENTER,
    leave: float = LEAVE,
    enter_days: int = ENTER_DAYS,
    leave_days: int = LEAVE_DAYS,
    dry_soil: float = DRY_SOIL,
    dry_rain: float = DRY_RAIN,
    threads: int | None = None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """(counts after the days, what is told of each day): the days that follow those counted so far.

    counts   of `begin`, or what this function gave before
    rain     (time, cell) precipitation_flux, kg m-2 s-1, consecutive days without gaps
    water    (time, cell) `availability`
    when     start_month and peak (cell), as `years.calendar` finds
    Told, dims (time, cell): precipitation_to_date (1e-3 kg m-2 since the first day, int32), dry_days (of the local year
    so far, by soil), dry_spell (days in a row without rain), wet_season_onset (days since the local year began; MISSING
    before one), wet_season_length (days so far), int16, and wet_season_status (codes of STATUS, int8).
    A missing value adds nothing to a count and ends a spell. Raises TimeError for other days, SettingsError for
    thresholds that make no season.
    """
    if not leave <= enter or min(enter_days, leave_days) < 1:
        found = f"{leave} and {enter}, {enter_days} and {leave_days} days"
        raise SettingsError("thresholds of the wet season", expected="leave at most enter, days of 1", found=found)
    days = pd.DatetimeIndex(water["time"].values)
    if not days.equals(pd.DatetimeIndex(rain["time"].values)) or (np.diff(days.values) != np.timedelta64(1, "D")).any():
        raise TimeError(
            "days to count", expected="the same consecutive days of rain and water", found=str(days[[0, -1]])
        )
    months = when["start_month"].values.astype(np.int64)
    peak = ((when["peak"].values - FIRST_DAYS[months - 1]) % 365).astype(np.int32)
    state = counts["counts"].values.astype(np.int32)
    told = np.empty((len(_ROWS), days.size, state.shape[1]), np.int32)
    limits = (enter, leave, enter_days, leave_days, dry_soil, dry_rain)
    for row, day in enumerate(days):
        since, length = (each[months - 1] for each in _of_years(day))
        march = partial(_count, rain.values[row], water.values[row], since, length, peak, *limits, state, told[:, row])
        spread(march, state.shape[1], threads or os.cpu_count() or 1)
    told_by_name = {
        name: (("time", "cell"), each.astype(kind)) for (name, kind), each in zip(_ROWS.items(), told, strict=True)
    }
    return counts.assign(counts=(("count", "cell"), state)), xr.Dataset(told_by_name, {"time": days, **place(water)})


def without_rain(counts: xr.Dataset) -> xr.Dataset:
    """The counts with no rain added up yet: precipitation to date begins after them."""
    state = counts["counts"].copy()
    state[_RAIN] = 0
    return counts.assign(counts=state)


def counted(rain: np.ndarray) -> np.ndarray:
    """Rain of days, kg m-2 s-1, in whole RESOLUTION, int32, as `advance` adds it up; nothing where it is missing."""
    return np.nan_to_num(np.asarray(rain, np.float32).astype(np.float64) * DAY / RESOLUTION + 0.5).astype(np.int32)


def window_amounts(to_date: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rain of windows, kg m-2, float64, from the sums to date on their last days and on the days before them."""
    return (to_date.astype(np.int64) - before) * RESOLUTION


def _of_years(day: pd.Timestamp) -> tuple[np.ndarray, np.ndarray]:
    """Of the local years that begin in month 1..12: days since this one began, and how many it has, int32."""
    begins = [pd.Timestamp(day.year - (month > day.month), month, 1) for month in range(1, 13)]
    spans = [((day - begin).days, (begin + pd.DateOffset(years=1) - begin).days) for begin in begins]
    since, length = np.array(spans, np.int32).T
    return since, length


_ROWS = {
    "precipitation_to_date": np.int32,
    "dry_days": np.int16,
    "dry_spell": np.int16,
    "wet_season_onset": np.int16,
    "wet_season_length": np.int16,
    "wet_season_status": np.int8,
}


_CODES = tuple(STATUS[name] for name in ("not_yet", "none", "running", "all_year", "began_before_its_year"))
_NOT_YET, _NONE, _RUNNING, _ALL_YEAR, _EARLY = _CODES
_LATE, _WHOLE = STATUS["went_on_after_its_year"], STATUS["whole"]


@compiled
def _count(
    rain, water, since, length, peak, enter, leave, enter_days, leave_days, dry_soil, dry_rain, state, told, first, last
):
    """One day of cells first..last: `state` (count, cell) goes on, `told` (6, cell) is filled.

    since, length   days since the local year began, and how many it has; a record may begin within its year
    """
    season = state[_ONSET : _SEASONS + 1].reshape(3, 1, state.shape[1])
    ahead = np.zeros((3, 1, 1), np.int32)  # the season, if what is wet today stays wet
    for cell in range(first, last):
        if since[cell] == 0:
            state[: _DRY + 1, cell] = 0
        value, fell, now = water[cell], rain[cell], since[cell] + 1
        state[_DAYS, cell] += 1
        state[_KNOWN, cell] += value == value
        wet = state[_WET, cell] == 1
        run = state[_RUN, cell] + 1 if (value < leave if wet else value >= enter) else 0
        if not wet and run == enter_days:
            state[_BEGAN, cell] = now - enter_days if state[_DAYS, cell] > enter_days else 0
            wet, run = True, 0
        elif wet and run == leave_days:
            _take(season, 0, cell, state[_BEGAN, cell], now - leave_days, peak[cell])
            wet, run = False, 0
        state[_WET, cell], state[_RUN, cell] = wet, run
        state[_DRY, cell] += value < dry_soil
        state[_SPELL, cell] = state[_SPELL, cell] + 1 if fell < dry_rain else 0
        if fell == fell:
            state[_RAIN, cell] += np.int32(np.float64(fell) * DAY / RESOLUTION + 0.5)
        told[0, cell], told[1, cell], told[2, cell] = state[_RAIN, cell], state[_DRY, cell], state[_SPELL, cell]
        ahead[:, 0, 0] = season[:, 0, cell]
        if wet:
            _take(ahead, 0, 0, state[_BEGAN, cell], length[cell], peak[cell])
        onset, cessation = ahead[0, 0, 0], ahead[1, 0, 0]
        goes_on, unfinished = cessation == length[cell], now < length[cell]
        there = ahead[2, 0, 0] > 0 and (goes_on or not unfinished or now > peak[cell])
        told[3, cell], told[4, cell] = MISSING, MISSING
        if now - state[_KNOWN, cell] > MISSING_DAYS:
            told[5, cell] = UNKNOWN
            continue
        if there:
            told[3, cell], told[4, cell] = onset, min(cessation, now) - onset
            if goes_on and unfinished:
                told[5, cell] = _RUNNING
            elif goes_on:
                told[5, cell] = _ALL_YEAR if onset == 0 else _LATE
            else:
                told[5, cell] = _EARLY if onset == 0 else _WHOLE
        else:
            told[5, cell] = _NOT_YET if unfinished else _NONE
            if not unfinished:
                told[4, cell] = 0
