"""The cost of the land model: CPU time and memory of a pixel-year, by step and precision."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from flows.bench.report import digits, machine, processor, spread, timed
from twin import state, synthetic
from twin.errors import SettingsError
from twin.forcing import disaggregate
from twin.land import Land, LandDaily
from twin.model import LandModel
from twin.parameters import TILES, VEGETATED, assemble, from_texture

DAILY = "1D"
STEPS = {"30min": 48, "1h": 24, "3h": 8, DAILY: 1}  # a tier's step: how many make a day
# CPU ms per pixel-year of JULES vn5.2 at 30 min on two cores of such a machine, from runs of our own: built with -O2 in
# either precision, 300 points with 4.6 surface types on average, one year, 34 variables written daily
JULES_MS = {"double": 280.0, "single": 170.0}
TYPES = 4.6  # surface types of a cell, on average


@dataclass(frozen=True)
class Case:
    """One way to run the land: a tier by its step, a precision, a number of threads."""

    step: str
    precision: str
    threads: int

    def model(self) -> LandModel:
        if self.step == DAILY:
            return LandDaily(self.threads, precision=self.precision)
        return Land(self.step, precision=self.precision, threads=self.threads, output=DAILY)

    def days(self, cells: int) -> int:
        """How many days are run: 240 steps of 10,000 cells, more of fewer; from 10 days to a year."""
        return int(np.clip(240 * (10_000 / cells) ** 0.5 / STEPS[self.step], 10, 365))


@dataclass(frozen=True)
class Place:
    """Cells of a simulated Africa: their climate, and what either tier needs to know of them."""

    climate: synthetic.Climate
    soil: xr.Dataset
    tiled: xr.Dataset
    grass: xr.Dataset

    @classmethod
    def of(cls, cells: int) -> Place:
        grid = _band(cells)
        soil = synthetic.soils(grid, 1)
        tiled = assemble(soil, tile_fractions(cells, np.random.default_rng(1)))
        return cls(synthetic.climate(grid, 1), soil, tiled, from_texture(soil["sand"], soil["silt"], soil["clay"]))

    @property
    def cells(self) -> int:
        return self.tiled.sizes["cell"]

    def forcing(self, days: int, start: str | pd.Timestamp = "2001-01-01") -> xr.Dataset:
        return synthetic.forcing(self.climate, pd.date_range(start, periods=days))

    def run(self, case: Case, forcing: xr.Dataset) -> Callable[[], tuple[xr.Dataset, xr.Dataset]]:
        """A run that starts from moist soil; all that it calls is compiled by now."""
        model, parameters = case.model(), self.grass if case.step == DAILY else self.tiled
        start, few = state.initial(parameters), {"cell": slice(0, 16)}
        model.run(start.isel(few), forcing.isel(few).isel(time=slice(0, STEPS["30min"])), parameters.isel(few))
        return partial(model.run, start, forcing, parameters)


def tile_fractions(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Random fractions (tile, cell), 1: of any kinds of vegetation and of bare soil, TYPES of them on average."""
    some = [*range(VEGETATED), TILES.index("bare_soil")]
    present = np.zeros((len(TILES), cells), bool)
    present[some] = rng.random((len(some), cells)) < TYPES / len(some)
    present[some[-1]] |= ~present.any(axis=0)
    weight = np.where(present, rng.exponential(size=present.shape), 0.0)
    return weight / weight.sum(axis=0)


def land(
    cells: Sequence[int],
    steps: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    days: int,
    repeats: int,
    as_json: bool,
) -> None:
    """Time of a pixel-year by tier, precision and threads; memory of a cell; what it costs to spread days over steps.

    threads   one and all cores when empty
    days      how many to run; 0 leaves it to `Case.days`
    Raises SettingsError for a step or a precision there is not.
    """
    _among("--steps", steps, STEPS)
    _among("--precisions", precisions, JULES_MS)
    workers = sorted(set(threads or (1, os.cpu_count() or 1)))
    cases = [
        Case(step, precision, number)
        for step, precision, number in product(STEPS, JULES_MS, workers)
        if step in steps and precision in precisions
    ]
    load, cpu = os.getloadavg()[0], processor()
    print(f"twin bench land · {machine()}, load {load:.1f}")
    print("  {cpu}: vectors of {bits} bits, {double} numbers in double, {single} in single precision".format(**cpu))
    print(_line(_TABLE))
    rows = []
    for number in cells:
        for row in _years(Place.of(number), cases, days, repeats):
            print(_line(row.values()), flush=True)
            rows.append(row)
    place = Place.of(min(max(cells), 4_000))
    memory = [_memory(place, case) for case in cases if case.step in (cases[0].step, DAILY)]
    print(*(_MEMORY.format(**use) for use in memory), sep="\n")
    stepped = [case for case in cases if case.step != DAILY and case.threads == workers[0]][-1:]
    costs = [_spreading(place, case, repeats) for case in stepped]
    print(*(_SPREADING.format(**cost) for cost in costs), sep="\n")
    ended = os.getloadavg()[0]
    types = digits(float((place.tiled["tile_fraction"] > 0.0).sum("tile").mean()))
    print(f"  {types} surface types per cell, {repeats} repeats, load at the end {ended:.1f}")
    print("  JULES vn5.2 at 30 min, not in this run: {double:g} double, {single:g} single".format(**JULES_MS))
    if as_json:
        figures = {"load": [load, ended], "repeats": repeats, "types_per_cell": types, "jules_cpu_ms": JULES_MS}
        figures |= {"processor": cpu, "rows": rows, "memory": memory, "spreading": costs}
        print(json.dumps({"bench": "land", "machine": machine(), **figures}))


_TABLE = {  # widths
    "cells": 6,
    "step": 6,
    "precision": 9,
    "threads": 7,
    "days": 5,
    "CPU ms/py": 13,
    "wall ms/py": 13,
    "efficiency": 10,
    "of double": 9,
    "of 30min": 8,
    "JULES/this": 10,
}
_MEMORY = (
    "  memory per cell, {step} {precision}, threads {threads}: {working} bytes, {per_day} more for each day of forcing "
    "and output; {held} of state and parameters"
)
_SPREADING = (
    "  forcing, {step} {precision}, {cells} cells, CPU ms/py: {from_days} from days, of which {spreading} to spread "
    "them; {from_steps} from the same in steps"
)


def _line(values: Iterable[Any]) -> str:
    """A line of the table: times are minimum and median, what is not known is empty."""
    texts = []
    for value in values:
        value = "{min:g} {p50:g}".format(**value) if isinstance(value, dict) else "" if value is None else value
        texts.append(f"{value:g}" if isinstance(value, float) else str(value))
    return "  " + " ".join(f"{text:>{width}}" for text, width in zip(texts, _TABLE.values(), strict=True))


def _years(place: Place, cases: Sequence[Case], days: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row of the table for each case. Each repeat is of another season, its cases in turn forwards and backwards."""
    length = {case: days or case.days(place.cells) for case in cases}
    spent: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    for repeat in range(repeats):
        start = pd.Timestamp("2001-01-01") + pd.Timedelta(days=365 * repeat // repeats)
        forcing = place.forcing(max(length.values()), start)
        for case in cases[:: -1 if repeat % 2 else 1]:
            run = place.run(case, forcing.isel(time=slice(0, length[case])))
            spent[case].append(_per_pixel_year(run, place.cells, length[case]))
    cpu, wall = ({case: np.array(times)[:, k] for case, times in spent.items()} for k in (0, 1))

    def ratio(times: Mapping[Case, np.ndarray], case: Case, **change: Any) -> float | None:
        other = replace(case, **change)
        return digits(np.median(times[case] / times[other])) if other in times else None

    for case in cases:
        alone = wall.get(replace(case, threads=1))  # other people's work only ever adds: the quickest of each count
        efficiency = None if alone is None else digits(alone.min() / (wall[case].min() * case.threads))
        yield {
            "cells": place.cells,
            **asdict(case),
            "days": length[case],
            "cpu_ms": spread(list(cpu[case])),
            "wall_ms": spread(list(wall[case])),
            "efficiency": efficiency,
            "of_double": ratio(cpu, case, precision="double"),
            "of_30min": ratio(cpu, case, step="30min"),
            "jules_over_this": None if case.step == DAILY else digits(JULES_MS[case.precision] / np.median(cpu[case])),
        }


def _memory(place: Place, case: Case) -> dict[str, Any]:
    """Bytes per cell at the peak of a run, as numpy asks for them: what a run needs, and what each of its days adds."""
    peaks = []
    for days in (1, 20, 40):
        run = place.run(case, place.forcing(days))
        tracemalloc.start()
        end, _ = run()
        peaks.append(tracemalloc.get_traced_memory()[1] / place.cells)
        tracemalloc.stop()
    per_day = (peaks[2] - peaks[1]) / 20
    parameters = place.grass if case.step == DAILY else place.tiled
    held = (end.nbytes + parameters.nbytes) / place.cells
    return {**asdict(case), "working": round(peaks[0] - per_day), "per_day": round(per_day), "held": round(held)}


def _spreading(place: Place, case: Case, repeats: int, days: int = 20) -> dict[str, Any]:
    """CPU ms per pixel-year from daily forcing, from the same forcing in steps, and of going from one to the other."""
    daily = place.forcing(days)
    steps = disaggregate(daily, case.step)
    works: dict[str, Callable[[], Any]] = {
        "from_days": place.run(case, daily),
        "spreading": partial(disaggregate, daily, case.step),
        "from_steps": place.run(case, steps),
    }
    spent: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name in list(works)[:: -1 if repeat % 2 else 1]:
            spent[name].append(_per_pixel_year(works[name], place.cells, days)[0])
    return {**asdict(case), "cells": place.cells, **{name: digits(np.median(times)) for name, times in spent.items()}}


def _per_pixel_year(work: Callable[[], Any], cells: int, days: int) -> tuple[float, float]:
    """(CPU, wall) of `work`, which is `days` of `cells`, ms per pixel-year."""
    before = time.process_time()
    wall = timed(work)
    cpu = time.process_time() - before
    return 1e3 * 365 / (cells * days) * cpu, 1e3 * 365 / (cells * days) * wall


def _among(option: str, given: Sequence[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise SettingsError(option, expected=" or ".join(known), found=name)


def _band(cells: int) -> xr.Dataset:
    side = int(np.ceil(cells**0.5))
    lat, lon = (
        axis.ravel()[:cells]
        for axis in np.meshgrid(np.linspace(-30, 30, side), np.linspace(-15, 45, side), indexing="ij")
    )
    return xr.Dataset(
        coords={"lat": ("cell", lat), "lon": ("cell", lon)}, attrs={"region": "bench", "resolution": 60 / side}
    )
