"""The cost of the indices: CPU time of a pixel-year, beside reading the same days from memory and from the store."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from flows.bench.report import digits, machine, processor, timed
from infra.store import Store
from twin import climatology
from twin.errors import SettingsError
from twin.indices import running
from twin.indices.classes import drought_class
from twin.indices.rains import rain_regime, season_by_anomaly, season_by_rain
from twin.indices.season import wet_season
from twin.indices.spells import SHORTEST, dry_spells, rain_metrics
from twin.indices.standardised import TRACE, accumulate, calibrate, spi, standardise
from twin.indices.years import calendar
from twin.land.compiled import compiled
from twin.land.threads import spread

CELLS, YEARS = 60_000, 94  # what the times are scaled to: Africa, and a scenario of a century
READ, DECODE = "memory, read once", "store, decoded"
ALL, SUMS, BY_RAIN, SPI = "rain metrics, all nine", "dry spells, any sum", "wet season B, rain", "SPI-3"
PEERS = ("xclim", "climate_indices")
SCALE = "90D"  # of the standardised index of a new day
_ROW = 4  # bytes of a value


@dataclass(frozen=True)
class Record:
    """Daily rain and water of the soil of simulated places, and what is known of their years."""

    rain: xr.DataArray  # mm day-1
    water: xr.DataArray  # availability, 1
    monthly: xr.DataArray  # rain, mm
    when: xr.Dataset  # of the water
    rains: xr.Dataset  # of the rain

    @classmethod
    def of(cls, cells: int, years: int, seed: int = 0) -> Record:
        rain, water = days(cells, pd.date_range("1981-01-01", f"{1980 + years}-12-31"), seed)
        monthly = rain.resample(time="MS").sum().transpose("time", "cell").astype(np.float32)
        return cls(rain, water, monthly.assign_attrs(units="mm"), calendar(water), rain_regime(rain))

    @property
    def pixel_years(self) -> float:
        return self.rain.size / 365.25

    def part(self, cells: int) -> Record:
        """The same of the first cells only."""
        return Record(*(getattr(self, name).isel(cell=slice(0, cells)) for name in self.__dataclass_fields__))


def days(cells: int, time: pd.DatetimeIndex, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Rain (mm day-1) and availability of some places, (time, cell) float32: one rainy season, wet and dry spells.

    Wet after a wet day twice as often as after a dry one, amounts by a gamma distribution; a bucket that drains.
    Ref: Richardson (1981), Water Resour. Res. 17, 182.
    """
    rng = np.random.default_rng(seed)
    season = (0.5 - 0.5 * np.cos(2.0 * np.pi * (time.day_of_year.to_numpy() - 30) / 365.25)) ** 2
    often = rng.uniform(0.25, 0.45, cells)  # of the days of the rainy season's height
    rain, water = (np.empty((len(time), cells), np.float32) for _ in range(2))
    wet, bucket = np.zeros(cells, bool), np.full(cells, 0.3)
    for row in range(len(time)):
        wet = rng.random(cells) < season[row] * often * np.where(wet, 2.0, 1.0) + 0.005
        rain[row] = np.where(wet, rng.standard_gamma(0.8, cells) * 14.0, 0.0)
        bucket = np.clip(0.975 * bucket + rain[row] / 150.0, 0.0, 1.0)
        water[row] = bucket
    coords, dims = {"time": time}, ("time", "cell")
    return (
        xr.DataArray(rain, coords, dims, "precipitation_flux", {"units": "mm day-1"}),
        xr.DataArray(water, coords, dims, "availability", {"units": "1"}),
    )


def indices(cells: int, years: int, peers: Sequence[str], peer_cells: int, repeats: int, as_json: bool) -> None:
    """Time of a pixel-year of each index, its share of read bandwidth, decoding beside it, and what peers take.

    years   at least 30 for SPI, which is left out of fewer
    peers   of PEERS, on `peer_cells` and one thread; those that are not installed are left out, and said to be
    Raises SettingsError for a peer there is not.
    """
    for name in peers:
        if name not in PEERS:
            raise SettingsError("--peers", expected=" or ".join(PEERS), found=name)
    threads, load, cpu = os.cpu_count() or 1, os.getloadavg()[0], processor()
    print(f"twin bench indices · {machine()}, load {load:.1f}")
    print("  {cpu}: vectors of {bits} bits".format(**cpu) + f"; {cells} cells x {years} years, {repeats} repeats")
    record = Record.of(cells, years)
    rows = _measured(record, threads, repeats)
    print(_line(_TABLE))
    for row in rows:
        print(_line(row.values()), flush=True)
    missing = [name for name in peers if not importlib.util.find_spec(name)]
    beside = []
    for name in sorted(set(peers) - set(missing), reverse=True):  # xclim calls by cell, the other by block: all of it
        for peer in _beside(name, record.part(peer_cells) if name == "xclim" else record, rows):
            print(_PEER.format(**peer), flush=True)
            beside.append(peer)
    counting = {"cpu_us": sum(peer["cpu_us"] for peer in beside if peer["index"] == ALL)}
    counting["ratio"] = digits(counting["cpu_us"] / next(row["cpu_us"] for row in rows if row["index"] == ALL))
    print("  these counts of rain together: {cpu_us:g} CPU us/py, {ratio:g} times that of".format(**counting), ALL)
    if missing:
        print(f"  not installed: {', '.join(missing)}")
    day = new_day(CELLS, repeats)
    print("  a new day of {cells} cells, ms: ".format(**day) + ", ".join(f"{k} {v:g}" for k, v in day["ms"].items()))
    if as_json:
        figures = {
            "processor": cpu,
            "cells": cells,
            "years": years,
            "rows": rows,
            "peers": beside,
            "counting": counting,
            "new_day": day,
        }
        figures["load"] = [load, os.getloadavg()[0]]
        print(json.dumps({"bench": "indices", "machine": machine(), **figures}))


_TABLE = {  # widths
    "index": 26,
    "CPU us/py": 10,
    "wall us/py": 11,
    "GB/s": 7,
    "of read": 8,
    "of decode": 10,
    "94 y x 60,000, s": 17,
}
_PEER = (
    "  {peer}, {cells} cells, one thread: {cpu_us:g} CPU us/py, {ratio:g} times that of {index}, {wall_ratio:g} times "
    "its time on all threads; {difference}"
)


def _line(values: Iterable[Any]) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return "  " + " ".join(f"{text:>{width}}" for text, width in zip(texts, _TABLE.values(), strict=True))


def works(record: Record, threads: int) -> dict[str, Callable[[], Any]]:
    """Every index of a record, by name."""
    rain, water, when, rains = record.rain, record.water, record.when, record.rains
    time, monthly = rain["time"].values, record.monthly
    reference = climatology.build(water, time)
    found: dict[str, Callable[[], Any]] = {
        ALL: partial(rain_metrics, rain, threads=threads),
        "dry spells, soil": partial(dry_spells, water, threads=threads),
        SUMS: partial(dry_spells, rain, 1.0, by="sum", threads=threads),
        "wet season, soil": partial(wet_season, water, when, threads=threads),
        "wet season A, anomaly": partial(season_by_anomaly, rain, rains, threads=threads),
        BY_RAIN: partial(season_by_rain, rain, rains, threads=threads),
        "climatology": partial(climatology.build, water, time, threads=threads),
        "percentile": partial(climatology.percentile, water, time, reference),
    }
    if monthly.sizes["time"] >= 12 * 30:
        found[SPI] = partial(spi, monthly, 3, threads=threads)
    return found


def _measured(record: Record, threads: int, repeats: int) -> list[dict[str, Any]]:
    """A row of the table for each index: medians of repeats in turn, forwards and backwards."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as folder:
        todo: dict[str, Callable[[], Any]] = {
            READ: partial(_read_all, record.rain.values, threads),
            DECODE: _stored(Path(folder), record.rain),
        }
        todo |= works(record, threads)
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
        for work in todo.values():
            work()  # compiles
        for repeat in range(repeats):
            for name in list(todo)[:: -1 if repeat % 2 else 1]:
                spent[name].append(_cost(todo[name]))
    cpu, wall = ({name: float(np.median(np.array(cost)[:, k])) for name, cost in spent.items()} for k in (0, 1))
    per = 1e6 / record.pixel_years
    return [
        {
            "index": name,
            "cpu_us": digits(cpu[name] * per),
            "wall_us": digits(wall[name] * per),
            "gb_s": digits(_ROW * record.rain.size / wall[name] / 1e9),
            "of_read": digits(wall[name] / wall[READ]),
            "of_decode": digits(wall[name] / wall[DECODE]),
            "all_s": digits(wall[name] / record.pixel_years * CELLS * YEARS),
        }
        for name in todo
    ]


def _cost(work: Callable[[], Any]) -> tuple[float, float]:
    """(CPU, wall) of `work`, s."""
    before = time.process_time()
    wall = timed(work)
    return time.process_time() - before, wall


def _read_all(values: np.ndarray, threads: int) -> int:
    """The sum of all bits, as whole numbers: nothing but reading, in pieces one after the other."""
    words = values.reshape(-1)[: values.size // 2 * 2].view(np.int64)
    pieces = 1024
    sums = np.zeros(pieces, np.int64)
    spread(partial(_read, words, -(-words.size // pieces), sums), pieces, threads)
    return int(sums.sum())


@compiled
def _read(words, length, sums, first, last):
    for piece in range(first, last):
        total = 0
        for word in words[piece * length : (piece + 1) * length]:
            total += word
        sums[piece] = total


def _stored(folder: Path, rain: xr.DataArray) -> Callable[[], Any]:
    """Reads all of the rain from a store, where it lies as the twin writes it."""
    home, cells = Store.open(str(folder / "store")), rain.sizes["cell"]
    draft = home.draft()
    grid = xr.Dataset(coords={name: ("cell", np.linspace(*ends, cells)) for name, ends in _ENDS.items()})
    draft.create("bench", grid.assign_attrs(region="bench", resolution=0.2), str(rain["time"].values[0])[:10])
    data = (
        (rain / 86400.0).astype(np.float32).rename("precipitation_flux").to_dataset().drop_vars("cell", errors="ignore")
    )
    draft.write("bench", "drought", data)
    draft.commit("fill")
    view = home.at()
    return lambda: view.dataset("bench", "drought")["precipitation_flux"].values


_ENDS = {"lat": (-34.0, 37.0), "lon": (-17.0, 51.0)}


# --- what others take -----------------------------------------------------------------------------------------------
def _beside(name: str, record: Record, rows: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """What a peer takes for what one of ours gives, and how far its results are from ours."""
    ours = {row["index"]: row for row in rows}
    for peer, index, theirs, same in [case for case in _CASES[name](record) if case[1] in ours]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs()
            before = time.process_time()
            result = theirs()
            cpu_us = 1e6 * (time.process_time() - before) / record.pixel_years
        difference = None if same is None else _difference(result, same())
        yield {
            "peer": peer,
            "cells": record.rain.sizes["cell"],
            "cpu_us": digits(cpu_us),
            "index": index,
            "ratio": digits(cpu_us / ours[index]["cpu_us"]),
            "wall_ratio": digits(cpu_us / ours[index]["wall_us"]),
            "largest_difference": difference,
            "difference": "another definition" if difference is None else f"largest difference {difference:g}",
        }


def _difference(theirs: Any, ours: xr.DataArray) -> float:
    """The largest of values that both have."""
    theirs = theirs.transpose("time", "cell").values if isinstance(theirs, xr.DataArray) else theirs
    return float(f"{np.nanmax(np.abs(theirs - ours.values)):.2g}")


Case = tuple[str, str, Callable[[], Any], Callable[[], xr.DataArray] | None]


def _xclim(record: Record) -> list[Case]:
    from xclim import indices as xc

    rain, monthly = record.rain, record.monthly.assign_attrs(units="mm/month")
    spell = {"thresh": "1 mm", "window": SHORTEST, "resample_before_rl": False}
    first, last = (str(rain["time"].values[at])[:10] for at in (0, -1))
    index = {"freq": None, "window": 3, "dist": "gamma", "cal_start": first, "cal_end": last, "fitkwargs": {"floc": 0}}
    centre = {"prob_zero_interpolation": "center", "plotting_position_zero": "weibull"}
    standardised = partial(xc.standardized_precipitation_index, monthly, **index, **centre)

    def metric(name: str) -> Callable[[], xr.DataArray]:
        return lambda: rain_metrics(rain)[name]

    def spells(rule: str) -> Callable[[], xr.DataArray]:
        return lambda: dry_spells(rain, 1.0, by=rule, crossing="began")["days_in_dry_spells"]

    def ours(method: str) -> Callable[[], xr.DataArray]:  # below a trace ours is no rarer than no rain
        return lambda: spi(record.monthly, 3, method=method).where(accumulate(record.monthly, 3) >= TRACE)

    longest, total = xc.maximum_consecutive_dry_days, xc.dry_spell_total_length
    return [
        ("xclim dry_days", ALL, partial(xc.dry_days, rain, thresh="1 mm/d"), metric("dry_days")),
        ("xclim maximum_consecutive_dry_days", ALL, partial(longest, rain), metric("longest_dry_spell")),
        ("xclim dry_spell_total_length, max", ALL, partial(total, rain, op="max", **spell), spells("day")),
        ("xclim dry_spell_total_length, sum", SUMS, partial(total, rain, op="sum", **spell), spells("sum")),
        ("xclim rain_season", BY_RAIN, partial(xc.rain_season, rain), None),
        ("xclim SPI-3, APP", SPI, partial(standardised, method="APP"), ours("thom")),
        ("xclim SPI-3, ML", SPI, partial(standardised, method="ML"), ours("ml")),
    ]


def _climate_indices(record: Record) -> list[Case]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    from climate_indices import compute, indices  # which takes the root logger for itself, and tells all it does

    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("climate_indices").setLevel(logging.ERROR)
    values = record.monthly.values.astype(np.float64)[:, :, None]
    first, last = (int(str(record.monthly["time"].values[at])[:4]) for at in (0, -1))
    choices = (3, indices.Distribution.gamma, first, first, last, compute.Periodicity.monthly)
    theirs = partial(indices.spi, values, *choices, spatial_time_major=True)

    def ours() -> xr.DataArray:
        return spi(record.monthly.astype(np.float64), 3, method="thom", zero="upper", suppress=1.0, clip=3.09)

    return [("climate_indices SPI-3, block", SPI, lambda: theirs()[:, :, 0], ours)]


_CASES: dict[str, Callable[[Record], list[Case]]] = {"xclim": _xclim, "climate_indices": _climate_indices}


# --- a new day ------------------------------------------------------------------------------------------------------
def new_day(cells: int, repeats: int) -> dict[str, Any]:
    """Milliseconds, all threads, of what a new day of many cells brings: counts, SPI of a window, percentile, classes.

    Calibrations are of a few places, repeated; what a day costs does not depend on them, nor on the record's length.
    """
    few = np.arange(cells) % 64
    record = Record.of(64, 30)
    past, today = record.rain["time"].values[:-1], record.rain["time"].values[-1:]
    knots = climatology.build(record.water, record.rain["time"].values)
    knots = knots.isel(cell=few)
    calibration = calibrate(record.rain, SCALE).isel(cell=few)
    rain, water = (values.isel(cell=few, time=[-1]) for values in (record.rain / 86400.0, record.water))
    when = record.when.isel(cell=few)
    amounts = (rain * 86400.0 + 100.0).assign_attrs(units="mm")
    counts = running.begin(cells)
    counts, _ = running.advance(counts, rain.assign_coords(time=past[-1:]), water.assign_coords(time=past[-1:]), when)
    steps: dict[str, Callable[[], Any]] = {
        "counts": partial(running.advance, counts, rain, water, when),
        "index": partial(standardise, amounts, calibration),
        "percentile": partial(climatology.percentile, water, today, knots),
    }
    ranks = steps["percentile"]()
    steps["classes"] = partial(drought_class, ranks)
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for work in steps.values():
        work()
    for _ in range(max(repeats, 3)):
        for name, work in steps.items():
            spent[name].append(timed(work))
    ms = {name: digits(1e3 * float(np.median(times))) for name, times in spent.items()}
    return {"cells": cells, "ms": ms | {"all": digits(sum(ms.values()))}}
