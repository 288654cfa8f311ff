"""Indices as days arrive: a new day costs a day, however long the record is.

    reference ─▸ calendar, standardisation/<index>, rain before the first day       groups of the region, fitted once
    counts of yesterday ─advance─▸ counts of today ──────────────────────────┐
    rain to date ─difference─▸ rain of 30, 90, 180 days ─standardise─▸ SPI ──┼─▸ group `indices`, by the day
    percentiles of a dekad ─▸ anomaly of the soil ─┬─ combined indicator ────┘
                                           SPI ────┘
Every array is a pure function of the days and of the fitted reference. What goes on from day to day is kept as restarts
(`counts`), so that a late item costs the days from the beginning of its month.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from infra.settings import Region
from infra.spread import parameters_in_use
from infra.store import Draft, View
from twin import climatology
from twin.errors import TimeError
from twin.indices import combined, running, standardised
from twin.indices.spells import availability
from twin.indices.years import calendar

DAY = pd.Timedelta(days=1)
WINDOWS = {"spi_30d": 30, "spi_90d": 90, "spi_180d": 180}  # days
LONGEST = max(WINDOWS.values())
YEAR = 365
UNKNOWN = np.iinfo(np.int32).min
GROUP, COUNTS, CALENDAR, BEFORE = "indices", "counts", "calendar", "rain_before"
RAIN, ROOT = "precipitation_to_date", "root_zone_soil_moisture"
EXTREME = 3.0  # standard deviations that a percentile of few years is held within

Drivers = Callable[[pd.Timestamp, pd.Timestamp], xr.Dataset]


def fitted(name: str) -> str:
    """The group that holds the fit of a standardised index."""
    return f"standardisation/{name}"


# -------------------------------------------------------------------------------------------------------- the reference
@dataclass
class Windows:
    """Rain of windows that end in the middle of a pentad, gathered year by year, as a record is too long to hold.

    years   first and last that count
    """

    years: tuple[int, int]
    ends: list[pd.Timestamp] = field(default_factory=list)
    amounts: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in WINDOWS})
    _sums: np.ndarray | None = None  # to the end of each of the last days, in running.RESOLUTION

    def add(self, rain: xr.DataArray) -> None:
        """The days that follow, (time, cell), kg m-2 s-1."""
        new = np.cumsum(running.counted(rain.values), axis=0, dtype=np.int64)
        if self._sums is None:
            self._sums = np.zeros((1, new.shape[1]), np.int64)
        known = len(self._sums)
        self._sums = np.concatenate([self._sums, self._sums[-1] + new])
        times = pd.DatetimeIndex(rain["time"].values)
        _, weight = climatology.pentad_of(times.values)
        for row in np.flatnonzero(weight == 0.0).tolist():
            at = known + row
            if self.years[0] <= times[row].year <= self.years[1]:
                self.ends.append(times[row])
                for name, days in WINDOWS.items():
                    before = self._sums[at - days] if at >= days else np.nan  # the record begins within the window
                    self.amounts[name].append(((self._sums[at] - before) * running.RESOLUTION).astype(np.float32))
        self._sums = self._sums[-LONGEST - 1 :]

    def groups(self) -> Iterator[tuple[str, xr.Dataset]]:
        """What is kept of it: fits, if there are years enough, and the sums on the days before the region's first."""
        for name, days in WINDOWS.items():
            given = np.stack(self.amounts[name])
            amounts = xr.DataArray(given, {"time": self.ends}, ("time", "cell"), "precipitation_flux")
            try:
                fit = standardised.calibrate(amounts, f"{days}D", accumulated=True)
            except TimeError:  # too few years
                continue
            yield fitted(name), fit.astype("float32")
        assert self._sums is not None
        sums = (self._sums - self._sums[-1]).astype(np.int32)
        yield BEFORE, xr.Dataset({RAIN: (("before", "cell"), sums)}, {"before": np.arange(1 - len(sums), 1)})


# ------------------------------------------------------------------------------------------------------------- each day
def follow(
    draft: Draft, region: Region, first: pd.Timestamp, last: pd.Timestamp, drivers: Drivers
) -> dict[str, Any] | None:
    """Write the indices of the days first..last, whose weather, soil or percentiles changed; what a release says of it.

    Soil moisture and percentiles are read from the group `drought`, where they are by then. None before there is a year
    of soil moisture, from which the calendar of local years is made.
    """
    if not region.simulated:
        first = _own_reference(draft, region, first, last, drivers)
    if not draft.has(region.name, CALENDAR):
        return None
    draft.drop_restarts(region.name, after=first, of=COUNTS)
    when, parameters = draft.dataset(region.name, CALENDAR).load(), parameters_in_use(draft, region.name)
    kept = draft.restart(region.name, before=first, of=COUNTS)
    start, counts = kept or (pd.Timestamp(region.start), _nothing(when.sizes["cell"]))
    day, marks = start, {}
    while day <= last:
        end = min(day + pd.offsets.MonthEnd(0), last)
        rain = drivers(day, end)["precipitation_flux"]
        water = availability(_root_zone(draft, region.name, day, end), parameters)
        counts, told = running.advance(counts, rain, water, when)
        draft.write(region.name, GROUP, told.sel(time=slice(first, None)))
        day = end + DAY
        marks[day] = counts
    days = pd.date_range(first, last)
    fits = [name for name in WINDOWS if draft.has(region.name, fitted(name))]
    if fits:
        draft.write(region.name, GROUP, xr.Dataset({name: _standardised(draft, region, name, days) for name in fits}))
        machine = _combined(draft, region.name, start, last, counts)
        draft.write(region.name, GROUP, _after(machine[["cdi"]], days))
        ends = _after(machine, pd.DatetimeIndex([*marks]) - DAY)
        marks = {day: each.assign(ends.isel(time=row, drop=True)) for row, (day, each) in enumerate(marks.items())}
    for day, counts in marks.items():
        draft.save_restart(region.name, day, counts, of=COUNTS)
    return {"spi": fits, **({} if fits else {"note": f"no SPI: {standardised.LEAST} reference years are needed"})}


def begin(rain: xr.DataArray, theta: xr.DataArray, parameters: xr.Dataset, when: xr.Dataset) -> xr.Dataset:
    """What is counted before a region's first day, from the year before it; the rain to date begins with the region.

    rain, theta   (time, cell) kg m-2 s-1, and soil moisture of the root zone
    """
    counts, _ = running.advance(_nothing(when.sizes["cell"]), rain, availability(theta, parameters), when)
    return running.without_rain(counts)


def _nothing(cells: int) -> xr.Dataset:
    """Counts before any day."""
    state = {"cdi": np.full(cells, combined.NO_DATA, np.int8), "normal_dekads": np.zeros(cells, np.int8)}
    return running.begin(cells).assign({name: ("cell", each) for name, each in state.items()})


def _combined(draft: View, region: str, first: pd.Timestamp, last: pd.Timestamp, counts: xr.Dataset) -> xr.Dataset:
    """The combined indicator's state after each dekad that ends on the days first..last, and the one before them.

    counts   hold that one: `cdi` and `normal_dekads` (cell)
    """
    dekad = combined.dekads(np.array([first], "datetime64[ns]"))
    before = combined.dekads(dekad - DAY.to_timedelta64())
    start = counts[["cdi", "normal_dekads"]].expand_dims(time=before)
    days = pd.date_range(dekad[0], last)
    ends = days[combined.next_dekads(days.values) == days + DAY]
    if ends.empty:
        return start
    percentile = draft.dataset(region, "drought")["soil_moisture_percentile"].sel(time=slice(days[0], ends[-1])).load()
    soil = combined.dekadal(percentile.copy(data=ndtri(percentile.values / 100.0)))
    rain = draft.dataset(region, GROUP)[["spi_90d", "spi_30d"]].sel(time=ends).load().assign_coords(time=soil["time"])
    found = combined.cdi(rain["spi_90d"], rain["spi_30d"], soil, start=start)
    return xr.concat([start, found[["cdi", "normal_dekads"]]], "time", coords="minimal", compat="override")


def _after(states: xr.Dataset, days: pd.DatetimeIndex) -> xr.Dataset:
    """What holds on some days (time, cell): the state after the last dekad that was over by their end."""
    over = combined.next_dekads(states["time"].values) - DAY.to_timedelta64()
    rows = np.searchsorted(over, days.values, side="right") - 1
    return states.isel(time=rows).assign_coords(time=days)


def _own_reference(
    draft: Draft, region: Region, first: pd.Timestamp, last: pd.Timestamp, drivers: Drivers
) -> pd.Timestamp:
    """Make calendar and fits from the region's own record if days of its reference changed; the first day to redo."""
    origin, begin, end = (pd.Timestamp(day) for day in (region.start, region.reference_start, region.reference_end))
    if first > end and draft.has(region.name, CALENDAR):
        return first
    theta = _root_zone(draft, region.name, begin, min(last, end))
    if theta.sizes["time"] < YEAR:
        return first
    draft.put(region.name, CALENDAR, calendar(theta))
    if last >= end and end.year - begin.year + 1 >= standardised.LEAST:
        rain = Windows((begin.year, end.year))
        for month in pd.period_range(origin, end, freq="M"):
            days = max(month.start_time, origin), min(month.end_time.normalize(), end)
            rain.add(drivers(*days)["precipitation_flux"])
        for name, fit in rain.groups():
            if name != BEFORE:  # the sums begin with the region
                draft.put(region.name, name, fit)
    return origin


def _standardised(draft: View, region: Region, name: str, days: pd.DatetimeIndex) -> xr.DataArray:
    """A standardised index of some days (time, cell), NaN where its window begins before the record."""
    until, before = (_to_date(draft, region, days - k * DAY) for k in (0, WINDOWS[name]))
    amounts = np.where(before == UNKNOWN, np.nan, running.window_amounts(until, before))
    fit = draft.dataset(region.name, fitted(name)).load()
    return standardised.standardise(xr.DataArray(amounts, {"time": days}, ("time", "cell"), name), fit)


def _to_date(view: View, region: Region, days: pd.DatetimeIndex) -> np.ndarray:
    """Rain from the region's first day to the end of consecutive days, in running.RESOLUTION; UNKNOWN before all."""
    origin = pd.Timestamp(region.start)
    early, later = days[days < origin], days[days >= origin]
    record = view.dataset(region.name, GROUP)[RAIN]
    parts = [record.sel(time=later).values]
    if len(early):
        ago = (early - origin).days + 1  # 0 is the day before the first, when nothing had fallen
        none = np.zeros((1, record.sizes["cell"]), np.int32)
        sums = view.dataset(region.name, BEFORE)[RAIN] if view.has(region.name, BEFORE) else None
        known = xr.DataArray(none, {"before": [0]}, ("before", "cell")) if sums is None else sums.load()
        parts.insert(0, known.reindex(before=ago, fill_value=UNKNOWN).values)
    return np.concatenate(parts)


def _root_zone(view: View, region: str, first: pd.Timestamp, last: pd.Timestamp) -> xr.DataArray:
    """Soil moisture of the root zone, as it was assessed."""
    return view.dataset(region, "drought")[ROOT].sel(time=slice(first, last)).load()
