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
import tracemalloc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pandas as pd
import xarray as xr

from infra.provider import Provider
from infra.settings import Settings, region
from infra.store import Store, View
from infra.wiring import build
from twin import state, synthetic
from twin.errors import SettingsError
from twin.forcing import disaggregate
from twin.land import Land, LandDaily
from twin.model import LandModel
from twin.parameters import TILES, VEGETATED, assemble, from_texture

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


# --- land -----------------------------------------------------------------------------------------------------------
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
    tiled: xr.Dataset
    grass: xr.Dataset

    @classmethod
    def of(cls, cells: int) -> Place:
        grid = _band(cells)
        soil = synthetic.soils(grid, 1)
        tiled = assemble(soil, tile_fractions(cells, np.random.default_rng(1)))
        return cls(synthetic.climate(grid, 1), tiled, from_texture(soil["sand"], soil["silt"], soil["clay"]))

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
    load, processor = os.getloadavg()[0], _processor()
    print(f"twin bench land · {_machine()}, load {load:.1f}")
    print(
        "  {cpu}: vectors of {bits} bits, {double} numbers in double, {single} in single precision".format(**processor)
    )
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
    spread = [_spreading(place, case, repeats) for case in stepped]
    print(*(_SPREADING.format(**cost) for cost in spread), sep="\n")
    ended = os.getloadavg()[0]
    types = _digits(float((place.tiled["tile_fraction"] > 0.0).sum("tile").mean()))
    print(f"  {types} surface types per cell, {repeats} repeats, load at the end {ended:.1f}")
    print("  JULES vn5.2 at 30 min, not in this run: {double:g} double, {single:g} single".format(**JULES_MS))
    if as_json:
        figures = {"load": [load, ended], "repeats": repeats, "types_per_cell": types, "jules_cpu_ms": JULES_MS}
        figures |= {"processor": processor, "rows": rows, "memory": memory, "spreading": spread}
        print(json.dumps({"bench": "land", "machine": _machine(), **figures}))


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
        return _digits(np.median(times[case] / times[other])) if other in times else None

    for case in cases:
        alone = wall.get(replace(case, threads=1))  # other people's work only ever adds: the quickest of each count
        efficiency = None if alone is None else _digits(alone.min() / (wall[case].min() * case.threads))
        yield {
            "cells": place.cells,
            **asdict(case),
            "days": length[case],
            "cpu_ms": _spread(list(cpu[case])),
            "wall_ms": _spread(list(wall[case])),
            "efficiency": efficiency,
            "of_double": ratio(cpu, case, precision="double"),
            "of_30min": ratio(cpu, case, step="30min"),
            "jules_over_this": None if case.step == DAILY else _digits(JULES_MS[case.precision] / np.median(cpu[case])),
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
    return {**asdict(case), "cells": place.cells, **{name: _digits(np.median(times)) for name, times in spent.items()}}


def _per_pixel_year(work: Callable[[], Any], cells: int, days: int) -> tuple[float, float]:
    """(CPU, wall) of `work`, which is `days` of `cells`, ms per pixel-year."""
    before = time.process_time()
    wall = _timed(work)
    cpu = time.process_time() - before
    return 1e3 * 365 / (cells * days) * cpu, 1e3 * 365 / (cells * days) * wall


_VECTORS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}  # widest first


def _processor() -> dict[str, Any]:
    """What the compiler sees: the processor, bits of its widest vectors, how many numbers they hold."""
    features = llvm.get_host_cpu_features()
    bits = next((bits for name, bits in _VECTORS.items() if features.get(name)), 64)
    return {"cpu": llvm.get_host_cpu_name(), "bits": bits, "double": bits // 64, "single": bits // 32}


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
    return {name: _digits(value) for name, value in names.items()}


def _digits(value: float) -> float:
    """To three digits, which is more than a shared machine gives."""
    return float(f"{value:.3g}")


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
    machine = f"{_machine()}, load {os.getloadavg()[0]:.1f}"
    print(f"twin bench {name} · {machine}")
    for key, value in figures.items():
        print(f"  {key:<26} {value}")
    if as_json:
        print(json.dumps({"bench": name, "machine": machine, **figures}))


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
