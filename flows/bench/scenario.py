"""Decades of a continent under several climates: what a projection takes, weather to figures, and what it is worth.

Real runs of `infra.projections` through an emulator trained here, at cells drawn from the map: with all that a run
does, its weather simulated, soil moisture kept day by day, years counted, the land model beside it at a few cells.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flows.bench.report import digits, machine
from flows.bench.skill import Experiment, parameters_of
from infra import projections
from infra.settings import Settings, region, region_grid
from infra.weather import Simulated
from infra.wiring import build
from twin import synthetic
from twin.emulator.fitting import Options
from twin.emulator.model import Emulator
from twin.emulator.outputs import SOIL_MOISTURE
from twin.scenarios import Delta

WHOLE = 60_000  # cells of Africa at a quarter of a degree, as the figures are stated for
WARMINGS = (1.0, 3.0, 5.0)  # K a century: the scenarios, as RCP2.6, 6.0 and 8.5 are in order
CARBON = (440e-6, 600e-6, 800e-6)  # mole fraction, held


def scenario(cells: int, years: int, scenarios: int, locations: int, as_json: bool) -> None:
    """Run scenarios of so many years from 2006 at so many cells, and project what the whole map would take."""
    experiment = Experiment.of(locations, 20, 2, 1, 0, SOIL_MOISTURE)
    emulator = Emulator.fit(experiment.training, Options(safe=False))
    land = region_grid(region("africa"))
    at = np.sort(np.random.default_rng(0).choice(land.sizes["cell"], min(cells, land.sizes["cell"]), replace=False))
    places = land.isel(cell=at)
    parameters = parameters_of(places, synthetic.climate(places, synthetic.SEED))
    span = range(2006, 2006 + years)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        services = build(Settings(home=Path(folder)))
        for warming, carbon in list(zip(WARMINGS, CARBON, strict=True))[:scenarios]:
            weather = Simulated(places, warming=warming, label=f"{warming:g} K a century")
            asked = projections.Request(
                region("africa"), weather, Delta(carbon_dioxide=carbon), emulator, span, places, parameters, parameters
            )
            rows.append(_timed(services, asked))
    pixel_years = at.size * years * len(rows)
    wall, cpu = (sum(row[name] for row in rows) for name in ("wall_s", "cpu_s"))
    whole = WHOLE * years * len(rows)
    figures = {
        "pixel-years": pixel_years,
        "wall": f"{wall:.0f} s",
        "ms per pixel-year, wall": digits(1e3 * wall / pixel_years),
        "ms per pixel-year, CPU": digits(1e3 * cpu / pixel_years),
        f"{len(rows)} × {years} years × {WHOLE} cells, projected": f"{whole * wall / pixel_years / 60:.0f} min",
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB",
        "kept, kB per pixel-year": digits(sum(row["bytes"] for row in rows) / pixel_years / 1e3),
    }
    print(f"twin bench scenario · {machine()}, load {os.getloadavg()[0]:.1f}")
    for name, value in figures.items():
        print(f"  {name:<44} {value}")
    for row in rows:
        print(f"  {row['label']}: {row['wall_s']:.0f} s, against the land model {row['spot_check']}")
    if as_json:
        print(json.dumps({"bench": "scenario", "machine": machine(), "cells": int(at.size), **figures, "runs": rows}))


def _timed(services: Any, asked: projections.Request) -> dict[str, Any]:
    """One run, without its reference: the same weather unchanged."""
    wall, cpu = time.perf_counter(), time.process_time()
    store = projections.run(services, asked, None)
    told = projections.summary(store.at(), asked.region.name) or {}
    return {
        "label": asked.label,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "bytes": sum(file.stat().st_size for file in Path(store.url).rglob("*") if file.is_file()),
        "spot_check": told["spot_check"],
        "decades": told["decades"],
    }
