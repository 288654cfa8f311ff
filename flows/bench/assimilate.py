"""What a window of assimilation costs: its algebra, the published way to do that, and the whole, model runs and all.

Everything is measured in a process of its own, so that peak memory is its own too; the algebra on one thread.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import fmin_ncg

from flows.bench.land import DAILY, Place
from flows.bench.report import digits, machine, spread
from twin import fourdenvar, state
from twin.cycle import Options, assimilate
from twin.ensemble import Forcing, Held, Prior, Simulation, Task, Window, tiles
from twin.errors import SettingsError
from twin.land import Land, LandDaily
from twin.observations import Observations
from twin.operators import SURFACE_MOISTURE, SoilMoisture

TIERS = (DAILY, "3h")
CHUNK = 400  # cells whose observations are summed together
OFFSET = 0.03  # standard deviation of what a sensor and the model differ by at a cell, m3 m-3
ERROR = 0.04  # of an observation, m3 m-3
TRUTH = 0.7  # standard deviations of the prior that the truth is away from it
HOUR = 6.0  # of local solar time
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
DAYS = pd.date_range("2001-01-01", periods=365)


# --------------------------------------------------------------------------------------------------------- the algebra
def algebra(cells: int, observations: int, members: int, peers: Sequence[int], repeats: int, as_json: bool) -> None:
    """Sums, total and solution of random Y; then the dense formulation beside ours, with so many observations.

    peers   how many, size by size
    Raises SettingsError for numbers that leave nothing to measure.
    """
    if min(cells, observations, repeats) < 1 or members < 2:
        found = f"{cells}, {observations}, {members} and {repeats}"
        raise SettingsError("cells, observations, members, repeats", expected="1, 1, 2, 1 or more", found=found)
    figures: dict[str, Any] = {"cells": cells, "observations": observations, "members": members}
    figures |= _alone(_streamed, cells, observations, members, repeats, threads=1)
    print(f"twin bench assimilate · {machine()}, load {os.getloadavg()[0]:.1f}")
    print("  {cells} cells, {observations} observations in single precision, {members} members".format(**figures))
    seconds, memory = figures["cpu_s"], "Y {Y_GB} GB, {beyond_GB} GB beyond it, peak of the process {peak_GB} GB"
    print(f"  sums, total, solution on one thread: {seconds['min']} CPU s at least, median {seconds['p50']}")
    print("  " + memory.format(**figures))
    print(
        "  as published (Pinnington et al. 2020: dense R, inverted in every call, Newton-CG) and ours, one thread, CPU"
    )
    text = "  {observations:>8} observations: {dense_cpu_s:>7} s, {ours_cpu_ms:>6} ms, {ratio:>8} times, max |dw| {dw}"
    figures["dense"] = []
    for size in peers:
        figures["dense"].append(_alone(_beside, size, members, threads=1))
        print(text.format(**figures["dense"][-1]), flush=True)
    if as_json:
        print(json.dumps({"bench": "assimilate", "machine": machine(), **figures}))


def _streamed(cells: int, p: int, members: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of the streamed sums and their solution, chunk by chunk, and what they need beyond Y."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((members, p), dtype=np.float32)
    d, variance = rng.standard_normal(p), rng.uniform(0.5, 2.0, p)
    cell = np.arange(p) * cells // p
    edges = [(part.start, part.stop) for part in tiles(cells, CHUNK)]
    bounds = [slice(*np.searchsorted(cell, edge)) for edge in edges]

    def work() -> fourdenvar.Solution:
        chunks = (
            fourdenvar.Chunk((tile,), Y[:, at], d[at], variance[at], cell[at], OFFSET**2, "random")
            for tile, at in enumerate(bounds)
        )
        return fourdenvar.analyse_stream(chunks)

    work()
    spent = [_cpu(work) for _ in range(repeats)]
    tracemalloc.start()
    work()
    beyond = tracemalloc.get_traced_memory()[1]
    return {
        "chunks": len(bounds),
        "cpu_s": spread(spent),
        "Y_GB": digits(Y.nbytes / 1e9),
        "beyond_GB": digits(beyond / 1e9),
        "peak_GB": _peak(),
    }


def _beside(p: int, members: int) -> dict[str, Any]:
    """CPU seconds of the dense formulation and of ours on the same random problem, and how much the weights differ."""
    rng = np.random.default_rng(p)
    Y, d = rng.standard_normal((members, p)) / np.sqrt(members - 1.0), rng.standard_normal(p)
    variance = rng.uniform(0.5, 2.0, p)
    chunk = fourdenvar.Chunk((0,), Y, d, variance, np.zeros(p, np.int64), 0.0, "random")
    fourdenvar.analyse_stream([chunk])
    ours = min(_cpu(partial(fourdenvar.analyse_stream, [chunk])) for _ in range(5))
    weights: list[np.ndarray] = []
    theirs = _cpu(lambda: weights.append(dense(Y, d, np.diag(variance))))
    dw = np.abs(weights[0] - fourdenvar.analyse_stream([chunk]).w).max()
    return {
        "observations": p,
        "dense_cpu_s": digits(theirs),
        "ours_cpu_ms": digits(1e3 * ours),
        "ratio": digits(theirs / ours),
        "dw": digits(float(dw)),
    }


def dense(Y: np.ndarray, d: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The weights (N) that minimise J, with a dense R (p, p) that is inverted in every evaluation of J and of ∇J.

    The cost, its gradient and the minimiser, Newton-CG, are those of LAVENDAR: Pinnington et al. (2020), Geosci. Model
    Dev. 13, 55.
    """

    def cost(w: np.ndarray) -> float:
        misfit = Y.T @ w - d
        return 0.5 * float(w @ w) + 0.5 * float(misfit @ np.linalg.inv(R) @ misfit)

    def gradient(w: np.ndarray) -> np.ndarray:
        return w + Y @ (np.linalg.inv(R) @ (Y.T @ w - d))

    return fmin_ncg(cost, np.zeros(len(Y)), fprime=gradient, disp=False)


# ----------------------------------------------------------------------------------------------------------- the whole
@dataclass(frozen=True)
class Size:
    """A window of a year: cells, observations, members, and the tier that runs them."""

    cells: int
    observations: int
    members: int
    tier: str = DAILY


def whole(size: Size, scaling: bool, as_json: bool) -> None:
    """`assimilate` on a simulated year; with `scaling` also at three sizes each of cells, observations and members.

    Raises SettingsError for a tier there is not.
    """
    if size.tier not in TIERS:
        raise SettingsError("--tier", expected=" or ".join(TIERS), found=size.tier)
    print(f"twin bench assimilate · {machine()}, load {os.getloadavg()[0]:.1f}")
    rows = [_show(_alone(_window, size))]
    exponents = {}
    if scaling:
        base = replace(size, cells=max(size.cells // 4, 1), observations=max(size.observations // 4, 1))
        for name in ("cells", "observations", "members"):
            sizes = [_grown(base, name, factor) for factor in (1, 2, 4)]
            measured = [_show(_alone(_window, each)) for each in sizes]
            rows += measured
            step = [np.log(row["step_cpu_s"]) for row in measured]
            exponents[name] = digits(float(np.polyfit(np.log([1, 2, 4]), step, 1)[0]))
        print(f"  CPU seconds of a loop grow with the power of: {exponents}")
    if as_json:
        print(json.dumps({"bench": "assimilate", "machine": machine(), "rows": rows, "exponents": exponents}))


def _grown(size: Size, name: str, factor: int) -> Size:
    """More of one thing; of cells with as many observations each."""
    if name == "cells":
        return replace(size, cells=factor * size.cells, observations=factor * size.observations)
    return replace(size, **{name: factor * getattr(size, name)})


@dataclass(eq=False)
class Clock:
    """Where the time of an analysis goes: in reading forcing, in members by what is kept of them, between them."""

    forcing: Forcing
    key: str = "clock"
    reading: float = 0.0
    members: dict[str, float] = field(default_factory=dict)  # forcing left out
    between: dict[str, float] = field(default_factory=dict)  # until the next result is asked for
    runs: dict[str, int] = field(default_factory=dict)  # ensembles

    def tile(self, cells: slice) -> xr.Dataset:
        started = time.perf_counter()
        found = self.forcing.tile(cells)
        self.reading += time.perf_counter() - started
        return found

    def map(self, function: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[Any]:
        """As the builtin, timed."""
        tasks = list(tasks)
        self.runs[tasks[0].keep] = self.runs.get(tasks[0].keep, 0) + len({task.realization for task in tasks})
        for task in tasks:
            started, read = time.perf_counter(), self.reading
            result = function(task)
            spent = time.perf_counter() - started - (self.reading - read)
            self.members[task.keep] = self.members.get(task.keep, 0.0) + spent
            given = time.perf_counter()
            yield result
            self.between[task.keep] = self.between.get(task.keep, 0.0) + time.perf_counter() - given


def _window(size: Size) -> dict[str, Any]:
    """A simulated year assimilated: seconds by what they went into, peak memory, and what came of it."""
    place = Place.of(size.cells)
    model: LandDaily | Land = LandDaily(precision="single")
    parameters = place.grass
    if size.tier != DAILY:
        model, parameters = Land(size.tier, precision="single", output=DAILY), place.tiled
    soil = place.soil
    parameters = parameters.assign({name: soil[name] for name in ("sand", "clay")})
    parameters = parameters.assign_coords({name: soil[name] for name in ("lat", "lon")})
    prior = Prior(parameters, state.initial(parameters))
    held = Held(place.forcing(len(DAYS), DAYS[0]))
    window = Window(DAYS[0], DAYS[-1])
    given = _observed(Simulation(model, prior, held, window, {"simulated": SoilMoisture(HOUR)}), size)
    before, clock = _peak(), Clock(held)
    cpu, wall = time.process_time(), time.perf_counter()
    options = Options(members=size.members, tile=CHUNK)
    found = assimilate(model, prior, clock, given, window, np.random.default_rng(1), map=clock.map, options=options)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    runs = sum(clock.runs.values())
    members, between = sum(clock.members.values()), sum(clock.between.values())
    split = {
        "forcing": clock.reading,
        "members": members - clock.members.get("states", 0.0),
        "states": clock.members.get("states", 0.0),
        "summaries": clock.between.get("states", 0.0),
        "results": between - clock.between.get("states", 0.0),
        "algebra": wall - clock.reading - members - between,
    }
    loops = len(found.diagnostics["steps"])
    return {
        "cells": size.cells,
        "observations": len(given),
        "members": size.members,
        "tier": size.tier,
        "wall_s": digits(wall),
        "cpu_s": digits(cpu),
        "split_s": {name: digits(seconds) for name, seconds in split.items()},
        "loops": loops,
        "runs": runs,
        "step_cpu_s": digits(cpu * (size.members + 1) / runs),
        "ms_per_run_and_cell_year": digits(1e3 * members / (runs * size.cells * (1 + window.cycles))),
        "forcing_GB": digits(held.dataset.nbytes / 1e9),
        "peak_GB": _peak(),
        "peak_before_GB": before,
        "accepted": found.accepted,
        "dofs": digits(found.diagnostics["dofs"]),
    }


def _observed(truth: Simulation, size: Size) -> Observations:
    """Observations of a run of other parameters than the prior's, at random days of every cell, with random errors."""
    rng = np.random.default_rng(0)
    z = TRUTH * rng.standard_normal(truth.control.size)
    value, cell, day = [], [], []
    each = max(size.observations // size.cells, 1)
    for number, cells in enumerate(tiles(size.cells, CHUNK)):
        seen = truth(Task(0, 0, number, cells, z))["simulated"]
        days = np.argsort(rng.random((len(DAYS), seen.shape[1])), axis=0)[: min(each, len(DAYS))]
        value.append(np.take_along_axis(seen, days, 0).T.ravel())
        cell.append(np.repeat(np.arange(cells.start, cells.stop), len(days)))
        day.append(days.T.ravel())
    y = np.concatenate(value).astype(np.float64)
    y = np.clip(y + ERROR * rng.standard_normal(y.size), 0.021, 0.59)
    where = np.concatenate(cell), np.concatenate(day)
    return Observations(y, np.full(y.size, ERROR), *where, "simulated", SURFACE_MOISTURE, DAYS, HOUR)


def _show(row: Mapping[str, Any]) -> dict[str, Any]:
    text = (
        "  {cells} cells, {observations} observations, {members} members, {tier}: {wall_s} s ({cpu_s} CPU s), "
        "{loops} loops, {runs} runs of all cells, {ms_per_run_and_cell_year} ms a cell-year, peak {peak_GB} GB of "
        "which forcing {forcing_GB}; "
    )
    split = ", ".join(f"{name} {seconds}" for name, seconds in row["split_s"].items())
    print(text.format(**row) + split, flush=True)
    return dict(row)


# ------------------------------------------------------------------------------------------------------------- helpers
def _alone(work: Callable[..., dict[str, Any]], *given: Any, threads: int = 0) -> dict[str, Any]:
    """What `work` returns in a fresh process, whose linear algebra has so many threads, or as many as it likes."""
    saved = {name: os.environ.get(name) for name in THREADS}
    if threads:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(work, *given).result()
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _peak() -> float:
    """Most memory this process has held, GB."""
    return digits(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
