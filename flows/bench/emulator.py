"""What a year of a place costs: the emulator, the models beside it, and its trees by every runtime at hand.

Everything is timed in one run of the command, so that ratios hold whatever else the machine does. The trees are those
of an emulator trained here on few locations: as many and as deep as the real ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from flows.bench.report import digits, machine, processor
from flows.bench.runtimes import REFERENCE, YEAR, compare
from flows.bench.skill import Experiment, cell_means
from twin.emulator.fitting import Options, Run
from twin.emulator.model import Emulator
from twin.emulator.outputs import SOIL_MOISTURE
from twin.emulator.physics import Transfer
from twin.emulator.training import sub_daily
from twin.land import LandDaily

SCENARIOS, YEARS = 3, 94  # RCPs or SSPs, and 2006 to 2099
TILE = 4096  # cells run at a time


def emulator(cells: int, whole: int, locations: int, repeats: int, as_json: bool) -> None:
    """Train on `locations`, then time the runtimes over `cells` pixel-years and the models over `cells` and `whole`.

    whole   cells of a whole map, of which each is run for a year
    """
    experiment = Experiment.of(locations, 20, 1, 1, 0, SOIL_MOISTURE)
    trained = Emulator.fit(experiment.training, Options(safe=False))
    some = _year(experiment, cells)
    place = trained.at(some.parameters)
    rows = trained.features(some.state, some.forcing, place)
    runtimes = compare([trained.booster(name) for name in trained.outputs], rows, repeats)
    models = _models(trained, some, repeats)
    single = _single(trained, some, max(20, repeats))
    map_ms, map_wall = _map(trained, some, whole)
    pixel_years = SCENARIOS * YEARS * whole
    figures = {
        "kernel": trained.kernel.path,
        "trees": f"{len(trained.outputs)} × {Options().trees} of depth {Options().depth}",
        "features": rows.shape[1],
        **{f"{name}, CPU ms": value for name, value in models.items()},
        "one pixel-year a call, ms": single,
        f"{whole} cells, CPU ms per pixel-year": digits(map_ms),
        f"{whole} cells, all cores, ms per pixel-year": digits(map_wall),
        f"{SCENARIOS} scenarios × {YEARS} years × {whole} cells, projected": f"{pixel_years * map_wall / 6e4:.0f} min",
    }
    print(f"twin bench emulator · {machine()}, load {os.getloadavg()[0]:.1f}, {processor()['cpu']}")
    for name, value in figures.items():
        print(f"  {name:<58} {value}")
    table = pd.DataFrame(runtimes)
    print(table.map(lambda v: f"{v:.4g}" if isinstance(v, float) else v).to_string(index=False))
    if as_json:
        told = {"bench": "emulator", "machine": machine(), "processor": processor(), "load": os.getloadavg()[:2]}
        print(json.dumps({**told, **figures, "reference": REFERENCE, "runtimes": runtimes}))


def _year(experiment: Experiment, cells: int) -> Run:
    """A year at as many cells, those of the experiment over and over."""
    run = next(run for run in experiment.tests if run.climate == "unchanged")
    at = np.arange(cells) % run.location.size
    days = {"time": slice(0, YEAR)}
    part = run.part(at)
    return replace(part, forcing=part.forcing.isel(days), truth=part.truth.isel(days))


def _models(trained: Emulator, run: Run, repeats: int) -> dict[str, float]:
    """CPU ms a pixel-year on one thread: the emulator and, with their own parameters, the models beside it."""
    one = replace(trained, threads=1)
    place = one.at(run.parameters)
    grass, start = Transfer().parameters(run.parameters), cell_means(run)
    daily, land = LandDaily(threads=1, precision="single"), sub_daily(SOIL_MOISTURE, threads=1)
    few = run.part(slice(0, max(16, run.location.size // 10)))
    cases: dict[str, tuple[int, Callable[[], Any]]] = {
        "emulator, physics and features and trees": (
            run.location.size,
            lambda: one.run(run.state, run.forcing, place),
        ),
        "daily physics alone": (run.location.size, lambda: daily.run(start, run.forcing, grass)),
        "land model, 3 h": (few.location.size, lambda: land.run(few.state, few.forcing, few.parameters)),
    }
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, (size, work) in cases.items():
            clock = time.process_time()
            work()
            spent[name].append(1e3 * (time.process_time() - clock) / (size * run.forcing.sizes["time"] / YEAR))
    return {name: digits(float(np.median(values[1:]))) for name, values in spent.items()}


def _single(trained: Emulator, run: Run, repeats: int) -> dict[str, float]:
    """Wall ms of one place's year by itself, from Datasets to Datasets, as a page asks for it."""
    one = run.part(slice(0, 1))
    place, start = trained.at(one.parameters), trained.start(one.state, one.forcing)
    times = []
    for _ in range(repeats + 1):
        clock = time.perf_counter()
        trained.run(start, one.forcing, place)
        times.append(1e3 * (time.perf_counter() - clock))
    return {"median": digits(float(np.median(times[1:]))), "least": digits(min(times))}


def _map(trained: Emulator, run: Run, cells: int) -> tuple[float, float]:
    """(CPU, wall) ms a pixel-year of a map's year, tile by tile on all cores, its weather in memory."""
    tile = run.part(np.arange(min(TILE, cells)) % run.location.size)
    place, start = trained.at(tile.parameters), trained.start(tile.state, tile.forcing)
    trained.run(start, tile.forcing, place)
    number = -(-cells // tile.location.size)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(number):
        trained.run(start, tile.forcing, place)
    pixel_years = number * tile.location.size * tile.forcing.sizes["time"] / YEAR
    return 1e3 * (time.process_time() - cpu) / pixel_years, 1e3 * (time.perf_counter() - wall) / pixel_years
