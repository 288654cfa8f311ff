"""Local years: each cell's own, from the first of a month; and the calendar of its wet season.

A year is labelled by the calendar year it starts in, as `climatology.year_of` has it, and is taken on its own: any
block of days that holds a whole year gives the same figures for it. One with more than MISSING_DAYS days missing has
none, as annual indices of ETCCDI have none. Ref: Zhang et al. (2011), WIREs Clim. Change 2, 851.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from twin.climatology import day_of_year
from twin.errors import RangeError, TimeError, VariableError

MISSING_DAYS = 15
SMOOTHING = 61  # days: what stays wet for two months is a season

_DAY = np.timedelta64(1, "D")
FIRST_DAYS = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])  # of the months


@dataclass(frozen=True)
class Years:
    """The local years of some cells within a record of days.

    label    (year) calendar year they start in
    length   (year) their days, 365 or 366
    bounds   (year, 2) row of their first day and of the next year's; a year may lie outside of the record in part
    cells    (n) indices of the cells
    """

    label: np.ndarray
    length: np.ndarray
    bounds: np.ndarray
    cells: np.ndarray


def local_years(time: np.ndarray, start_month: ArrayLike, cells: int) -> Iterator[Years]:
    """The years of all cells, those of one start together; every item has the same labels.

    time          (time) datetime64, consecutive days
    start_month   (cell), or one for all, 1..12
    Raises TimeError for other times, RangeError for other months.
    """
    days = np.asarray(time).astype("datetime64[D]")
    if days.size == 0 or (np.diff(days) != _DAY).any():
        raise TimeError("time of the days", expected="consecutive days", found="gaps" if days.size else "none")
    start = np.broadcast_to(np.asarray(start_month, dtype=np.int64), (cells,))
    months = np.unique(start)
    if not np.isin(months, range(1, 13)).all():
        raise RangeError("start of the year", expected="a month, 1 to 12", found=months[[0, -1]])
    first, last = (pd.Timestamp(day) for day in days[[0, -1]])
    label = np.arange(first.year - (first.month < months[-1]), last.year + (last.month >= months[0]))
    for month in months:
        limits = np.array([f"{year}-{month:02}-01" for year in (*label, label[-1] + 1)], dtype="datetime64[D]")
        rows = (limits - days[0]).astype(np.int64)
        yield Years(label, np.diff(rows), np.stack([rows[:-1], rows[1:]], axis=1), np.flatnonzero(start == month))


def calendar(values: xr.DataArray) -> xr.Dataset:
    """When the year of each cell begins and is wettest: start_month (cell), 1..12, and peak (cell), 0..364.

    values   (time, cell), the larger the wetter, of a few whole years
    `start_month` is the month of the lowest mean, so that no wet season is cut in two; `peak` the day of the 365-day
    year in the middle of the wettest SMOOTHING days of the mean year. Hand one calendar to all that is compared.
    Raises TimeError unless every day of the year is there.
    """
    data, day = as_days(values), day_of_year(values["time"].values)
    if np.unique(day).size < 365:
        raise TimeError("days of a calendar", expected="every day of the year", found=f"{np.unique(day).size} of 365")
    mean = np.stack([_mean(data[day == row]) for row in range(365)])
    mean = np.where(np.isfinite(mean), mean, np.nan_to_num(_mean(mean)))
    monthly = np.add.reduceat(mean, FIRST_DAYS) / np.diff([*FIRST_DAYS, 365])[:, None]
    half = SMOOTHING // 2
    sums = np.cumsum(np.concatenate([np.zeros_like(mean[:1]), mean[-half:], mean, mean[:half]]), axis=0)
    found = {"start_month": monthly.argmin(axis=0) + 1, "peak": (sums[SMOOTHING:] - sums[:-SMOOTHING]).argmax(axis=0)}
    words = {"start_month": "driest month, where the local year begins", "peak": "wettest day of the 365-day year"}
    return xr.Dataset(
        {name: ("cell", days, {"units": "1", "long_name": words[name]}) for name, days in found.items()}, place(values)
    )


def as_days(values: xr.DataArray) -> np.ndarray:
    """The values (time, cell) in memory, of one place (time) as one cell; VariableError for other dims."""
    if values.dims == ("time",):
        return np.ascontiguousarray(values.values[:, None])
    if values.dims != ("time", "cell"):
        raise VariableError(f"dims of '{values.name}'", expected=("time", "cell"), found=values.dims)
    return np.ascontiguousarray(values.values)


def place(values: xr.DataArray) -> dict[str, xr.DataArray]:
    """Where the cells are, as far as it is known."""
    return {name: values[name] for name in ("lat", "lon") if name in values.coords}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is known, float64; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0, dtype=np.float64) / np.maximum(count, 1), np.nan)
