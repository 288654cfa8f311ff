"""Daily weather for scenarios, on the cells of a region: its own record, simulated, or a climate model's, corrected.

store, simulated climate, `climate.Run` ──▸ Weather ─forcing(first, last)─▸ our variables (time, cell)
                                               └ Corrected: without the bias it has against a reference
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from infra import verbs
from infra.settings import Region
from infra.store import View
from twin import synthetic
from twin.errors import TimeError
from twin.scenarios import Correction, Delta

DAY = pd.Timedelta(days=1)
LEAST_YEARS = 10  # that a climate model and the region's record share, for the correction of bias


class Weather(Protocol):
    """Daily forcing of the cells of a region, made or read when it is asked for."""

    @property
    def label(self) -> str:
        """What it is, in words."""
        ...

    @property
    def scenario(self) -> str:
        """Such as rcp60; "recorded", or "simulated"."""
        ...

    @property
    def days(self) -> pd.DatetimeIndex:
        """All of them, without a gap."""
        ...

    @property
    def manifest(self) -> dict[str, Any]:
        """Everything its values depend on, as plain JSON."""
        ...

    @property
    def sources(self) -> list[dict[str, str]]:
        """What it was read from: key, id and href of each, none of what is made up."""
        ...

    def forcing(self, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
        """The forcing of the table, and what is known of OPTIONAL, dims (time, cell); TimeError for days not there."""
        ...


def span_of(days: pd.DatetimeIndex, first: pd.Timestamp, last: pd.Timestamp, where: str) -> slice:
    """Where first..last lie among the days; TimeError if they do not."""
    if first < days[0] or last > days[-1] or last < first:
        expected, found = (f"{a.date()} to {b.date()}" for a, b in ((days[0], days[-1]), (first, last)))
        raise TimeError("days of the forcing", expected=f"within {expected}", found=found, where=where)
    return slice(int((first - days[0]).days), int((last - days[0]).days) + 1)


@dataclass(frozen=True)
class Recorded:
    """The forcing in the region's store, as far as it is unbroken."""

    view: View
    region: Region
    label: str = "weather as recorded"
    scenario: str = "recorded"

    @cached_property
    def days(self) -> pd.DatetimeIndex:
        last = verbs.frontier(self.view, self.region)
        return pd.date_range(self.region.start, last) if last is not None else pd.DatetimeIndex([])

    @cached_property
    def sources(self) -> list[dict[str, str]]:
        ledger = self.view.ledger(self.region.name).values()
        used = [record for record in ledger if record["status"] == "consumed" and record["kind"] == "forcing"]
        return sorted(({name: r[name] for name in ("key", "id", "href")} for r in used), key=lambda s: s["key"])

    @property
    def manifest(self) -> dict[str, Any]:
        return {"recorded": self.region.name, "sources": [source["key"] for source in self.sources]}

    def forcing(self, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
        if self.days.empty:
            raise TimeError("forcing", expected="some days", found="none yet", where=f"region {self.region.name}")
        span_of(self.days, first, last, f"region {self.region.name}")
        return verbs.drivers(self.view, self.region, first, last)


@dataclass(frozen=True)
class Simulated:
    """The simulated climate at any cells, 1901 to 2100, warming by `warming` K a century around 2000; needs no file."""

    cells: xr.Dataset
    seed: int = synthetic.SEED
    warming: float = 0.0
    label: str = "simulated weather"
    scenario: str = "simulated"
    days: pd.DatetimeIndex = field(default_factory=lambda: pd.date_range("1901-01-01", "2100-12-31", unit="ns"))

    @cached_property
    def _climate(self) -> synthetic.Climate:
        return synthetic.climate(self.cells, self.seed)

    @property
    def manifest(self) -> dict[str, Any]:
        places = hashlib.sha256(b"".join(self.cells[name].values.tobytes() for name in ("lat", "lon"))).hexdigest()[:32]
        return {"simulated": self.seed, "warming": self.warming, "cells": places}

    @property
    def sources(self) -> list[dict[str, str]]:
        return []

    def forcing(self, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
        span = self.days[span_of(self.days, first, last, self.label)]
        weather = synthetic.forcing(self._climate, span)
        if not self.warming:
            return weather
        years = np.unique(span.year)
        deltas = (Delta(temperature=round(self.warming * (int(year) - 2000) / 100, 3)) for year in years)
        parts = [d.apply(weather.isel(time=span.year == year)) for d, year in zip(deltas, years, strict=True)]
        return parts[0] if len(parts) == 1 else xr.concat(parts, "time", join="override")


class Corrected:
    """A climate-model run with the bias it has against a reference taken out, month by month of the year.

    Trained on the whole years that both have (LEAST_YEARS or more, else TimeError); a day is ranked among those of its
    month in ten years, those of its decade and if it is cut short some beside it. The decade in use lies on disk, in
    `folder`; memory holds one month of ten years, and 34 kB of factors a cell.
    """

    def __init__(self, run: Weather, reference: Weather, folder: Path) -> None:
        self.run, self.reference = run, reference
        self.label, self.scenario, self.days = f"{run.label}, bias corrected", run.scenario, run.days
        self.years = sorted(set(whole_years(run.days)) & set(whole_years(reference.days)))
        if len(self.years) < LEAST_YEARS:
            found = f"{len(self.years)} of {reference.label}"
            expected = f"{LEAST_YEARS} years or more that both have"
            raise TimeError("correction of bias", expected=expected, found=found, where=run.label)
        self._folder = folder
        self._corrections: dict[int, Correction] = {}
        self._decade: tuple[int, xr.Dataset] | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        told = {"reference": self.reference.manifest, "years": self.years}
        return {**self.run.manifest, "corrected": told}

    @property
    def sources(self) -> list[dict[str, str]]:
        return [*self.run.sources, *self.reference.sources]

    def forcing(self, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
        """See `Weather.forcing`."""
        span_of(self.days, first, last, self.label)
        parts = [
            self._of_decade(decade).sel(time=slice(first, last)).copy(deep=True)
            for decade in range(_decade(first.year), _decade(last.year) + 1)
        ]
        return parts[0] if len(parts) == 1 else xr.concat(parts, "time", join="override")

    def _of_decade(self, decade: int) -> xr.Dataset:
        """The corrected days of a decade, on disk."""
        if self._decade is not None and self._decade[0] == decade:
            return self._decade[1]
        self._decade = None
        days = self.days[_decade(self.days.year) == decade]
        years = self.days.year.unique()
        begin = max(years[0], min(days[-1].year - 9, years[-1] - 9))
        pool_years = [year for year in range(begin, begin + 10) if year in years]
        arrays: dict[str, tuple[np.ndarray, dict]] = {}
        place: dict[str, Any] = {}
        for month in np.unique(days.month):
            pool = _month_of(self.run, pool_years, month)
            fixed = self._correction(month).apply(pool)
            place = {name: fixed[name] for name in ("lat", "lon")}
            mine = np.isin(pool["time"].values, days.values)
            at = days.get_indexer(pool.indexes["time"][mine])
            for name, variable in fixed.items():
                if name not in arrays:
                    arrays[str(name)] = self._on_disk((len(days), variable.sizes["cell"])), variable.attrs
                arrays[str(name)][0][at] = variable.values[mine]
        held = {name: (("time", "cell"), values, about) for name, (values, about) in arrays.items()}
        self._decade = decade, xr.Dataset(held, {"time": days, **place})
        return self._decade[1]

    def _on_disk(self, shape: tuple[int, int]) -> np.ndarray:
        """An array in a file without a name, which is gone when nobody uses the array any more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return np.memmap(file, np.float32, "w+", shape=shape)

    def _correction(self, month: int) -> Correction:
        if month not in self._corrections:
            past, true = (_month_of(weather, self.years, month) for weather in (self.run, self.reference))
            self._corrections[month] = Correction.of(true, past)
        return self._corrections[month]


def whole_years(days: pd.DatetimeIndex) -> list[int]:
    """The years of which every day is there, of days without a gap."""
    if days.empty:
        return []
    first = days[0].year + (days[0].day_of_year > 1)
    last = days[-1].year - ((days[-1] + DAY).year == days[-1].year)
    return list(range(first, last + 1))


def _decade(year: Any) -> Any:
    """Decades as files are cut: 2001 to 2010, 2011 to 2020."""
    return (year - 1) // 10


def _month_of(weather: Weather, years: Iterable[int], month: int) -> xr.Dataset:
    """All days of a month in some years."""
    firsts = (pd.Timestamp(year, month, 1) for year in years)
    spans = ((max(a, weather.days[0]), min(a + pd.offsets.MonthEnd(0), weather.days[-1])) for a in firsts)
    return xr.concat([weather.forcing(a, b) for a, b in spans if a <= b], "time", join="override")


def decades(years: range) -> list[range]:
    """Years cut as decade files are."""
    cuts = [year for year in years if year == years[0] or year % 10 == 1]
    return [range(a, b) for a, b in zip(cuts, [*cuts[1:], years[-1] + 1], strict=True)]
