"""A small emulator for tests: `ensemble()`, `training()` and `emulator()` of a few places in a simulated Africa."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from twin import grid, synthetic
from twin.emulator.fitting import Options, Run, Training
from twin.emulator.model import Emulator
from twin.emulator.outputs import OUTPUTS, SOIL_MOISTURE
from twin.emulator.training import Ensemble, sub_daily
from twin.ensemble import Held
from twin.parameters import assemble

PLACES = {"train": 40, "calibrate": 12, "test": 12}
BOX = (16.0, -27.0, 34.0, 15.0)  # from the Kalahari to the Sahel
SMALL = Options(trees=15, rate=0.4, rows=20_000, outputs=tuple(OUTPUTS))


@cache
def ensemble(outputs: tuple[str, ...] = tuple(OUTPUTS), days: int = 730) -> Ensemble:
    """Places to train, calibrate and test at, and two years of their weather."""
    land = grid.regular(BOX, 2.0, region="case")
    rng, size = np.random.default_rng(4), sum(PLACES.values())
    cells = land.isel(cell=np.sort(rng.choice(land.sizes["cell"], size, replace=False)))
    climate, soil = synthetic.climate(cells, 3), synthetic.soils(cells, 3)
    parameters = assemble(soil, synthetic.land_cover(climate)).assign(sand=soil["sand"], clay=soil["clay"])
    forcing = synthetic.forcing(climate, pd.date_range("2003-01-01", periods=days))
    role = np.repeat(list(PLACES), list(PLACES.values()))
    return Ensemble(sub_daily(outputs), parameters, Held(forcing), np.arange(size), role, outputs)


@cache
def training() -> Training:
    """Runs of every member."""
    runs = ensemble()
    members = runs.members(np.random.default_rng(7))
    return runs.training(members, [runs(member) for member in members], {"case": "small"})


@cache
def emulator() -> Emulator:
    """Trained on it, with all outputs."""
    return Emulator.fit(training(), SMALL)


def test_run() -> Run:
    """Places nothing was learnt from, under their own weather."""
    return next(run for run in training().of("test") if run.climate == "unchanged")


__all__ = ["BOX", "PLACES", "SMALL", "SOIL_MOISTURE", "emulator", "ensemble", "test_run", "training"]
