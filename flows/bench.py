"""Benchmarks behind `twin bench`: each prints its machine and table, and with `--json` one object on the last line."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra.provider import Provider
from infra.settings import Settings, region
from infra.store import Store, View
from infra.wiring import build
from twin import state, synthetic
from twin.errors import SettingsError
from twin.land import LandDaily
from twin.parameters import from_texture

DEGREE_KM = 111.2
AFRICA_KM2 = 30.0e6


def arrival(cells: int, arrivals: int, browser: bool, as_json: bool) -> None:
    """The whole embedded twin over a simulated Africa of about `cells` cells: publish a day, wait to see it, repeat."""
    resolution = round((AFRICA_KM2 / cells) ** 0.5 / DEGREE_KM, 3)
    home = Path(tempfile.mkdtemp(prefix="twin-bench-"))
    os.environ.update(
        {"TWIN_HOME": str(home), "TWIN_DEMO__RESOLUTION": str(resolution), "TWIN_DEMO__REFERENCE_YEARS": "5"}
    )
    place = region("demo")
    provider = Provider(home / "feed", place)
    provider.backfill()
    provider.publish_next()  # the first day also spins the true land up, which no arrival should be charged for
    command = [sys.executable, "-m", "flows", "up", "--region", "demo", "--source", str(home / "feed" / "catalog.json")]
    started = time.perf_counter()
    twin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        portal = _portal_link(twin)
        services = build(Settings())
        page = _Page(portal) if browser else None
        first = provider.next_day - pd.Timedelta(days=1)
        _wait(partial(_announced, services, first), 900, "first release")
        first_release = time.perf_counter() - started
        if page:
            _wait(partial(page.shows, first), 120, "first map")
        on_bus, on_screen = [], []
        for _ in range(arrivals):
            day = provider.next_day
            provider.publish_next()
            visible = time.perf_counter()
            on_bus.append(_wait(partial(_announced, services, day), 120, f"event of {day}") - visible)
            if page:
                on_screen.append(_wait(partial(page.shows, day), 120, f"map of {day}") - visible)
        memory = _memory_gib(twin.pid)
        size = services.store.at().dataset("demo", "grid").sizes["cell"]
        if page:
            page.close()
    finally:
        os.killpg(twin.pid, signal.SIGINT)
        twin.wait(60)
        shutil.rmtree(home, ignore_errors=True)
    figures = {
        "cells": size,
        "arrivals": arrivals,
        "first_release_s": round(first_release, 1),
        "event_s": _spread(on_bus),
        **({"portal_s": _spread(on_screen)} if on_screen else {}),
        "memory_gib": memory,
    }
    _report("arrival", figures, as_json)


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
            appended.append(_timed(partial(_append, home, one)))
        view = home.at()
        for _ in range(9):
            day, cell = pd.Timestamp(rng.choice(pd.date_range("1985-01-01", last))), int(rng.integers(cells))
            maps.append(_timed(partial(view.map, "bench", "drought", "root_zone_soil_moisture", day)))
            series.append(_timed(partial(_load_series, view, cell)))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**30
    _report(
        "store",
        {
            "cells": cells,
            "years": years,
            "map_ms": _spread(maps, 1e3),
            "series_ms": _spread(series, 1e3),
            "append_and_commit_ms": _spread(appended, 1e3),
            "size_gib": round(size, 2),
        },
        as_json,
    )


def land(cells: int, as_json: bool) -> None:
    """CPU milliseconds per pixel-year of the daily land model over a simulated year."""
    grid = _band(cells)
    soil = synthetic.soils(grid, 1)
    parameters = from_texture(soil["sand"], soil["silt"], soil["clay"])
    forcing = synthetic.forcing(synthetic.climate(grid, 1), pd.date_range("2001-01-01", periods=365))
    model, start = LandDaily(), state.initial(parameters)
    model.run(start, forcing.isel(time=slice(0, 2)), parameters)  # compiled now, not while timing
    wall, cpu = [], []
    for _ in range(3):
        before = time.process_time()
        wall.append(_timed(lambda: model.run(start, forcing, parameters)))
        cpu.append(time.process_time() - before)
    _report(
        "land",
        {
            "cells": cells,
            "cpu_ms_per_pixel_year": _spread(cpu, 1e3 / cells),
            "wall_ms_per_pixel_year": _spread(wall, 1e3 / cells),
        },
        as_json,
    )


def _band(cells: int) -> xr.Dataset:
    side = int(np.ceil(cells**0.5))
    lat, lon = (
        axis.ravel()[:cells]
        for axis in np.meshgrid(np.linspace(-30, 30, side), np.linspace(-15, 45, side), indexing="ij")
    )
    return xr.Dataset(
        coords={"lat": ("cell", lat), "lon": ("cell", lon)}, attrs={"region": "bench", "resolution": 60 / side}
    )


def _append(home: Store, data: xr.Dataset) -> None:
    draft = home.draft()
    draft.write("bench", "drought", data)
    draft.commit("append")


def _load_series(view: View, cell: int) -> xr.DataArray:
    return view.series("bench", "drought", "root_zone_soil_moisture", cell).load()


def _announced(services: Any, day: pd.Timestamp) -> bool:
    return any(event.data.get("valid_day") == str(day)[:10] for event in services.bus.latest(5))


def _portal_link(twin: subprocess.Popen) -> str:
    for line in twin.stdout or ():
        if line.strip().startswith("portal"):
            return line.split()[-1]
    raise SettingsError("embedded twin", expected="a link to its portal", found="it stopped")


class _Page:
    """The portal in headless Chromium."""

    def __init__(self, url: str) -> None:
        from playwright.sync_api import sync_playwright

        self.playwright = sync_playwright().start()
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--no-first-run",
        ]
        self.browser = self.playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        self.page = self.browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.goto(url)

    def shows(self, day: pd.Timestamp) -> bool:
        """Whether the map on the screen says that it is of `day`."""
        return self.page.locator(f'[data-shown$="{str(day)[:10]}"]').count() > 0

    def close(self) -> None:
        self.browser.close()
        self.playwright.stop()


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """The moment `condition` came true; SettingsError when it did not within `seconds`."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if condition():
            return time.perf_counter()
        time.sleep(0.05)
    raise SettingsError("benchmark", expected=f"{what} within {seconds:.0f} s", found="nothing")


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Median, 95th percentile and extremes."""
    scaled = np.asarray(values) * scale
    names = {"p50": np.median(scaled), "p95": np.percentile(scaled, 95), "min": scaled.min(), "max": scaled.max()}
    return {name: float(f"{value:.3g}") for name, value in names.items()}


def _memory_gib(pid: int) -> float:
    """Resident memory of a process and everything below it."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if _ancestor(int(entry.name), pid):
                pages += int((entry / "statm").read_text().split()[1])
        except (OSError, ValueError):
            continue
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 2)


def _ancestor(pid: int, root: int) -> bool:
    while pid > 1:
        if pid == root:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def _report(name: str, figures: Mapping[str, Any], as_json: bool) -> None:
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {load:.1f}"
    print(f"twin bench {name} · {machine}")
    for key, value in figures.items():
        print(f"  {key:<26} {value}")
    if as_json:
        print(json.dumps({"bench": name, "machine": machine, **figures}))
