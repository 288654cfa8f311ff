"""The store's reads and appends."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from flows.bench.report import report, spread, timed
from infra.store import Store, View


def store(cells: int, years: int, as_json: bool) -> None:
    """Read one day's map and one cell's series from `years` of daily values, and append a day."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as folder:
        home = Store.open(str(Path(folder) / "store"))
        draft = home.draft()
        grid = xr.Dataset(
            coords={"lat": ("cell", np.linspace(-34, 37, cells)), "lon": ("cell", np.linspace(-17, 51, cells))}
        )
        draft.create("bench", grid.assign_attrs(region="bench", resolution=0.2), "1985-01-01")
        rng = np.random.default_rng(0)
        base = rng.uniform(0.1, 0.4, cells).astype("float32")
        for first in pd.date_range("1985-01-01", periods=years, freq="YS"):
            days = pd.date_range(first, first + pd.offsets.YearEnd(0))
            wave = np.sin(2 * np.pi * days.dayofyear.to_numpy() / 365)[:, None] * 0.05 + rng.normal(
                0, 0.004, (len(days), 1)
            )
            data = (base + wave + rng.normal(0, 0.002, (len(days), cells))).astype("float32")
            draft.write(
                "bench", "drought", xr.Dataset({"root_zone_soil_moisture": (("time", "cell"), data)}, {"time": days})
            )
        draft.commit("fill")
        last = days[-1]
        appended, maps, series = [], [], []
        for step in range(1, 8):
            day = last + pd.Timedelta(days=step)
            one = xr.Dataset({"root_zone_soil_moisture": (("time", "cell"), data[:1])}, {"time": [day]})
            appended.append(timed(partial(_append, home, one)))
        view = home.at()
        for _ in range(9):
            day, cell = pd.Timestamp(rng.choice(pd.date_range("1985-01-01", last))), int(rng.integers(cells))
            maps.append(timed(partial(view.map, "bench", "drought", "root_zone_soil_moisture", day)))
            series.append(timed(partial(_load_series, view, cell)))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**30
    report(
        "store",
        {
            "cells": cells,
            "years": years,
            "map_ms": spread(maps, 1e3),
            "series_ms": spread(series, 1e3),
            "append_and_commit_ms": spread(appended, 1e3),
            "size_gib": round(size, 2),
        },
        as_json,
    )


def _append(home: Store, data: xr.Dataset) -> None:
    draft = home.draft()
    draft.write("bench", "drought", data)
    draft.commit("append")


def _load_series(view: View, cell: int) -> xr.DataArray:
    return view.series("bench", "drought", "root_zone_soil_moisture", cell).load()
