"""The wet season of each local year by soil moisture: when it begins, when it ends, how long it is.

    availability    1 ┤          ╭───╮  ╭──────╮
               ENTER  ┤─ ─ ─ ─ ╭─╯─ ─╰──╯─ ─ ─ ╰─╮─ ─ ─ ─    onset: the first of 10 days in a row at or above ENTER
               LEAVE  ┤─ ─ ─ ─ │─ ─ ─ ─ ─ ─ ─ ─ ─│╮ ─ ─ ─    cessation: the first of 20 days in a row below LEAVE
                    0 ┤────────╯                   ╰─────
                             onset          cessation

Two thresholds and the days in a row keep a season that is interrupted for a week in one piece. A year of several wet
spells has the season that holds the cell's usual wettest day, or comes nearest to it: the longest, the usual choice,
changes from one spell to another with the smallest change of the soil's moisture. Of a record that begins or ends
within a year, what is wet there is taken to have been wet before, or to go on.
Ref: Schmitt (1938), J. Sci. Instrum. 15, 24 (two thresholds).
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import xarray as xr

from twin.errors import SettingsError
from twin.indices.years import FIRST_DAYS, MISSING_DAYS, as_days, calendar, local_years, place
from twin.land.compiled import compiled
from twin.land.threads import spread

ENTER, LEAVE = 0.5, 0.4  # plant-available water, 1
ENTER_DAYS, LEAVE_DAYS = 10, 20

MISSING = -128
WIDTH = 64  # cells that are stepped together
STATUS = {"whole": 0, "none": 1, "began_before_its_year": 2, "went_on_after_its_year": 3, "all_year": 4}


def wet_season(
    values: xr.DataArray,
    when: xr.Dataset | None = None,
    *,
    enter: float = ENTER,
    leave: float = LEAVE,
    enter_days: int = ENTER_DAYS,
    leave_days: int = LEAVE_DAYS,
    threads: int | None = None,
) -> xr.Dataset:
    """onset, cessation, length (days), wet_seasons (how many) and season_status of each local year, dims (year, cell).

    values        (time, cell), consecutive days: `spells.availability`, or anything of which more is wetter
    when          start_month and peak (cell), as `years.calendar` finds in the values themselves if it is not given;
                  give the same one to runs that are to be compared, and to the blocks of one run
    enter, leave  thresholds in the unit of the values, leave at most enter
    Onset and cessation are days since the local year began, 0 the first. The season is that of STATUS: a season cut at
    its year's limits is a bound on onset or cessation and on length. A year without season has length 0 and neither
    onset nor cessation; one with more than MISSING_DAYS missing has nothing, and status MISSING.
    Raises VariableError for other dims, TimeError for gaps, SettingsError for thresholds or days that make no season.
    """
    if not leave <= enter:
        raise SettingsError(
            "thresholds of the wet season", expected="leave at most enter", found=f"{leave} and {enter}"
        )
    if min(enter_days, leave_days) < 1:
        raise SettingsError("days of the wet season", expected="1 or more", found=min(enter_days, leave_days))
    data = as_days(values)
    when = calendar(values) if when is None else when
    start_month, peak = (np.asarray(when[name].values, np.int64) for name in ("start_month", "peak"))
    groups = list(local_years(values["time"].values, start_month, data.shape[1]))
    found = np.empty((4, groups[0].label.size, data.shape[1]), np.float32)
    status = np.empty(found.shape[1:], np.int8)
    for years in groups:
        part = data if len(groups) == 1 else np.ascontiguousarray(data[:, years.cells])
        usual = (peak[years.cells] - FIRST_DAYS[start_month[years.cells] - 1]) % 365
        seasons = np.zeros((4, years.label.size, years.cells.size), np.int32)
        march = partial(_seasons, part, enter, leave, enter_days, leave_days, usual, years.bounds, seasons)
        spread(march, years.cells.size, threads or os.cpu_count() or 1)
        found[:, :, years.cells], status[:, years.cells] = _told(seasons, years.length[:, None])
    attrs = {
        "onset": {"units": "day", "long_name": "first day of the wet season, since the local year began"},
        "cessation": {"units": "day", "long_name": "first day after the wet season, since the local year began"},
        "length": {"units": "day", "long_name": "length of the wet season"},
        "wet_seasons": {"units": "1", "long_name": "wet seasons of the year"},
    }
    told = {"of": str(values.name), "enter": enter, "leave": leave, "enter_days": enter_days, "leave_days": leave_days}
    variables = {name: (("year", "cell"), found[row], attrs[name] | told) for row, name in enumerate(attrs)}
    meanings = {"flag_values": np.array([*STATUS.values()], np.int8), "flag_meanings": " ".join(STATUS)}
    words = {"long_name": "what is known of the wet season"}
    variables["season_status"] = (("year", "cell"), status, words | meanings)
    return xr.Dataset(variables, {"year": groups[0].label, "start_month": ("cell", start_month), **place(values)})


def season_dates(days: xr.DataArray) -> xr.DataArray:
    """The dates (year, cell), datetime64, of an `onset` or a `cessation` of `wet_season`; NaT where there is none."""
    month = (days["year"].values[:, None] - 1970) * 12 + days["start_month"].values - 1
    first = month.astype("datetime64[M]").astype("datetime64[D]")
    dates = first + np.nan_to_num(days.values).astype("timedelta64[D]")
    dates[np.isnan(days.values)] = np.datetime64("NaT", "D")
    return days.copy(data=dates.astype("datetime64[ns]")).assign_attrs(long_name=days.attrs["long_name"].split(",")[0])


def _told(seasons: np.ndarray, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(onset, cessation, length, wet_seasons; status) from what `_seasons` counted, by (year, cell)."""
    onset, cessation, number, known = seasons
    early, late = onset == 0, cessation == days
    names = ("none", "all_year", "began_before_its_year", "went_on_after_its_year")
    status = np.select([number == 0, early & late, early, late], [STATUS[name] for name in names], STATUS["whole"])
    season = np.where(number > 0, [onset, cessation], np.nan)
    figures = np.stack([*season, cessation - onset, number]).astype(np.float32)
    missing = days - known > MISSING_DAYS
    return np.where(missing, np.float32(np.nan), figures), np.where(missing, MISSING, status)


@compiled
def _seasons(values, enter, leave, enter_days, leave_days, peak, bounds, seasons, first, last):
    """The season of each year of cells first..last, (4, year, cell): onset, cessation, how many there were, known days.

    Onset and cessation count from the year's first day; both are 0 without a season.
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
                        _take(seasons, year, block + i, began[i], ended, peak[block + i])
            for i in range(n):
                if wet[i]:
                    _take(seasons, year, block + i, began[i], bounds[year, 1] - bounds[year, 0], peak[block + i])


@compiled
def _take(seasons, year, cell, began, ended, peak):
    """Keep a wet spell that is nearer to the usual peak than those before it, or as near and longer."""
    onset, cessation = seasons[0, year, cell], seasons[1, year, cell]
    away, before = max(began - peak, peak - ended + 1, 0), max(onset - peak, peak - cessation + 1, 0)
    better = away < before or (away == before and ended - began > cessation - onset)
    if seasons[2, year, cell] == 0 or better:
        seasons[0, year, cell], seasons[1, year, cell] = began, ended
    seasons[2, year, cell] += 1
