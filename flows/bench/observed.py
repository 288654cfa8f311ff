"""What assimilation is worth where it was observed: real retrievals at cells and in a year that it has not seen.

    catalog ─the twin's own ingest▸ forcing, retrievals, soil
                                     │ half of the cells, first year ──▸ assimilate ──▸ parameters, fields, constants
                                     │ the other half, second year ──▸ scores of ◂── runs before and after
    a probe in the ground near a cell that was left out ───────────▸ scores of ◂──┘

The retrievals that are scored never reach the analysis. Each run is scored as its own operator sees it and as the plain
water of its layer, the prior's with the operator's prior constants: whichever flatters the analysis less is there.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from flows.bench.report import digits, machine, timed
from infra.settings import ModelSettings, Settings, region
from infra.wiring import build
from stac import sources
from twin import state
from twin.control import Control
from twin.cycle import Analysis, Options, assimilate
from twin.ensemble import YEAR, Held, Prior, Simulation, Task, Window, fitted
from twin.errors import PlaceError, SettingsError, VariableError
from twin.forcing import fill_nearest
from twin.grid import EARTH_RADIUS
from twin.inputs import THETA
from twin.model import LandModel
from twin.observations import Observations, screen
from twin.operators import SURFACE_MOISTURE, SoilMoisture
from twin.scores import SCORES, interval, scores
from twin.variables import VARIABLES, with_role

CYCLES = 2  # years of spin-up before the first
BESIDE = ("sand", "clay", "water_fraction", "dense_vegetation_fraction")  # of a region's grid, for prior and gates
SHOWN = ("rmse", "rmse_offset", "ubrmse", "r", "anomaly_r")
FARTHEST = 100.0  # km between a probe and the cell whose weather it is given
DEPTHS = {5: 0, 10: 1, 20: 1}  # cm of a probe: the layer it lies in, or at whose edge
THAWED = 1.0  # degC at 5 cm, above which a probe sees all of the water


def observed(
    source: str, region_name: str, seed: int, probe: Path | None, kind: str, residual: bool, as_json: bool
) -> None:
    """Calibrate on one half of the cells, score the other half a year later; see the module.

    source   a STAC catalog; `region_name` takes its forcing and soil moisture from it
    kind     land-daily, or land (in steps of 3 h)
    Raises SettingsError for a kind of model that is not one of those or data that do not cover two years.
    """
    if kind not in ("land-daily", "land"):
        raise SettingsError("--model", expected="land-daily or land", found=kind)
    station = None if probe is None else Probe.read(probe)
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as home:
        spent = timed(lambda: take_in(Path(home), source, region_name, kind))
        case = Case.of(Path(home), region_name, kind)
    figures = {"region": region_name, "model": kind, "ingest_s": digits(spent)}
    figures |= experiment(case, seed, station, residual)
    _print(figures)
    if as_json:
        print(json.dumps({"bench": "observed", "machine": machine(), **figures}))


def experiment(case: Case, seed: int, station: Probe | None = None, residual: bool = True) -> dict[str, Any]:
    """What is found with the halves of the cells that `seed` draws; plain JSON."""
    left_out = None if station is None else station.nearest(case)
    cells, others = case.halves(seed, left_out)
    started = time.perf_counter()
    analysis = case.calibrate(cells, seed, residual)
    wall = time.perf_counter() - started
    runs = {"prior": case.run(), "analysis": case.run(analysis)}
    rng = np.random.default_rng(seed)
    figures: dict[str, Any] = {
        "sensor": case.sensor,
        "seed": seed,
        "cells": {"calibrated": int(cells.size), "held_out": int(others.size)},
        "assimilate_s": digits(wall),
        "analysis": _told(analysis),
        "scores": {name: case.compare(runs, which, rng) for name, which in case.groups(cells, others).items()},
    }
    if station is not None and left_out is not None:
        figures["probe"] = station.compare(case, runs, left_out)
    return figures


def take_in(home: Path, source: str, region_name: str, kind: str) -> None:
    """Everything of the catalog into a store under `home`, by the verbs of the twin."""
    from flows.headless import catch_up

    catch_up(_settings(home, kind), region(region_name), [source], once=True)


def _settings(home: Path, kind: str) -> Settings:
    return Settings(home=home, model=ModelSettings(kind=kind, step="3h", precision="single"))


@dataclass(frozen=True, eq=False)
class Run:
    """Soil moisture of a run at the ends of days (time, layer, cell), before the first, and H of it (time, cell)."""

    theta: np.ndarray
    before: np.ndarray
    seen: np.ndarray

    def at(self, cell: int, layer: int, share: float) -> np.ndarray:
        """One layer of one cell when `share` of each UTC day has gone, (time)."""
        end = self.theta[:, layer, cell].astype(np.float64)
        start = np.r_[self.before[layer, cell], end[:-1]]
        return start + share * (end - start)


@dataclass(frozen=True, eq=False)
class Case:
    """A region as the twin has taken it in: what drives it, what was retrieved, what is believed before."""

    model: LandModel
    prior: Prior
    forcing: xr.Dataset
    retrievals: xr.Dataset
    sensor: str
    hour: float | None

    @classmethod
    def of(cls, home: Path, region_name: str, kind: str) -> Case:
        services = build(_settings(home, kind))
        view = services.store.at()
        forcing = view.dataset(region_name, "forcing")[[row.name for row in with_role("forcing")]].load()
        grid = view.dataset(region_name, "grid").load()
        parameters = view.dataset(region_name, "parameters").load()
        parameters = parameters.assign({name: grid[name] for name in BESIDE if name in grid})
        product = next((p for p in sources.PRODUCTS if view.has(region_name, f"observations/{p.id}")), None)
        if product is None or SURFACE_MOISTURE not in product.provides:
            raise SettingsError(f"region {region_name}", expected=f"retrievals of {SURFACE_MOISTURE}", found="none")
        retrievals = view.dataset(region_name, f"observations/{product.id}").load()
        case = cls(
            services.model,
            Prior(parameters, state.initial(parameters)),
            fill_nearest(forcing),
            retrievals,
            product.id,
            product.local_time,
        )
        if min(len(case.days), retrievals.sizes["time"]) < 2 * YEAR:
            found = f"{len(case.days)} days of forcing, {retrievals.sizes['time']} of retrievals"
            raise SettingsError(f"region {region_name}", expected=f"{2 * YEAR} days of both", found=found)
        return case

    @property
    def days(self) -> pd.DatetimeIndex:
        return pd.DatetimeIndex(self.forcing["time"].values)

    @property
    def cells(self) -> int:
        return int(self.forcing.sizes["cell"])

    def year(self, number: int) -> pd.DatetimeIndex:
        """The days of the first or second year, 1 or 2."""
        return self.days[(number - 1) * YEAR : number * YEAR]

    def halves(self, seed: int, left_out: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(cells to calibrate on, the others), drawn at random; `left_out` is among the others."""
        drawn = np.random.default_rng(seed).permutation(self.cells)
        first = drawn[: self.cells // 2]
        chosen = np.sort(first[first != left_out] if left_out is not None else first)
        return chosen, np.setdiff1d(drawn, chosen)

    def calibrate(
        self, cells: np.ndarray, seed: int, residual: bool = True, options: Options | None = None
    ) -> Analysis:
        """The analysis of the first year's retrievals at `cells`; no other retrieval is given to it."""
        year = self.year(1)
        given = self._observations(year, cells)
        window = Window(year[0], year[-1], CYCLES)
        chosen = replace(options or Options(), residual=residual)
        forcing, rng = self.forcing.sel(time=year), np.random.default_rng(seed)
        return assimilate(self.model, self.prior, forcing, given, window, rng, options=chosen)

    def _observations(self, days: pd.DatetimeIndex, cells: np.ndarray | None = None) -> Observations:
        data = self.retrievals
        if cells is not None:
            among = xr.DataArray(np.isin(np.arange(self.cells), cells), dims="cell")
            data = data.assign(
                {SURFACE_MOISTURE: data[SURFACE_MOISTURE].where(among).assign_attrs(data[SURFACE_MOISTURE].attrs)}
            )
        return Observations.from_dataset(data, days, self.sensor, SURFACE_MOISTURE, self.hour)

    def run(self, analysis: Analysis | None = None) -> Run:
        """All days from a spin-up on the first year, with the parameters of the prior or of an analysis."""
        simulation, task = self._simulation(analysis)
        before, found, _, forcing, parameters = simulation.run(task)
        seen = simulation.sensors[self.sensor](found, before, forcing, parameters, simulation.control.constants(task.z))
        return Run(found[THETA].transpose("time", "layer", "cell").values, before[THETA].values, seen)

    def _simulation(self, analysis: Analysis | None = None, keep: str = "predictions") -> tuple[Simulation, Task]:
        """A run of given parameters, in which the constants of the operator are all of the control vector."""
        sensor = SoilMoisture(self.hour)
        parameters, start = self.prior.parameters, self.prior.state
        z = np.zeros(len(sensor.factors))
        if analysis is not None:
            start = fitted(start, parameters, analysis.parameters)
            parameters, z = analysis.parameters, analysis.z[-z.size :]
        given = Prior(parameters, start, Control(kappa=False, factors=()))
        window = Window(self.days[0], self.days[-1], CYCLES)
        simulation = Simulation(self.model, given, Held(self.forcing), window, {self.sensor: sensor})
        return simulation, Task(0, 0, 0, slice(0, self.cells), z, None, keep)

    @cached_property
    def ground(self) -> xr.Dataset:
        """What the gates ask: weather, what the prior run says of snow and frost, and footprints."""
        simulation, task = self._simulation(keep="ground")
        names = ["air_temperature", "precipitation_flux"]
        run = {name: (("time", "cell"), v) for name, v in simulation(task).items() if name in VARIABLES}
        known = {name: self.prior.parameters[name] for name in BESIDE[2:] if name in self.prior.parameters}
        return self.forcing[names].assign(run).assign(known)

    def retrieved(self, number: int, gates: bool) -> np.ndarray:
        """Retrievals of a year (time, cell), all of them or those that pass the gates, NaN elsewhere."""
        kept = self._observations(self.year(number))
        if gates:
            kept, _ = screen(kept, self.ground.sel(time=self.year(number)))
        found = np.full((YEAR, self.cells), np.nan)
        found[kept.day, kept.cell] = kept.value
        return found

    def groups(self, cells: np.ndarray, others: np.ndarray) -> dict[str, tuple[np.ndarray, bool]]:
        """By name: which cells are scored in the second year, and whether their retrievals must pass the gates."""
        return {
            "held out": (others, True),
            "held out, all retrievals": (others, False),
            "calibrated, a year later": (cells, True),
            "every cell, all retrievals": (np.arange(self.cells), False),
        }

    def compare(
        self, runs: Mapping[str, Run], which: tuple[np.ndarray, bool], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Scores of the second year over cells: of each run by its operator and by its plain layer, and differences."""
        cells, gates = which
        before, after = (self.retrieved(number, gates)[:, cells] for number in (1, 2))
        tables = {}
        for name, run in runs.items():
            for kind, series in (("operator", run.seen), ("layer", run.theta[:, 0])):
                m = series[: 2 * YEAR, cells].astype(np.float64)
                table = scores(m[YEAR:], after)
                offset = scores(m[:YEAR], before)["bias"].to_numpy()  # what a user would take off, known a year earlier
                table["rmse_offset"] = scores(m[YEAR:] - offset, after)["rmse"]
                tables[f"{name} {kind}"] = table
        found: dict[str, Any] = {"observations": int(np.isfinite(after).sum())}
        for name, table in tables.items():
            means = {score: asdict(interval(table[score], rng)) for score in (*SHOWN, "bias", "kge")}
            found[name] = {score: {**told, "median": float(table[score].median())} for score, told in means.items()}
        for kind in ("operator", "layer"):
            for reference in ("prior operator", "prior layer"):
                gain = tables[f"analysis {kind}"] - tables[reference]
                found[f"analysis {kind} − {reference}"] = {s: asdict(interval(gain[s], rng)) for s in SHOWN}
        return found


@dataclass(frozen=True, eq=False)
class Probe:
    """A station's soil moisture, daily means of local standard days, m3 m-3: a column for each depth in cm."""

    moisture: pd.DataFrame
    lat: float
    lon: float

    @classmethod
    def read(cls, path: Path) -> Probe:
        """A daily file of the US Climate Reference Network; days with frost at 5 cm are left out.

        Raises VariableError for a file without its columns. Ref: Bell et al. (2013), J. Hydrometeorol. 14, 977.
        """
        wanted = {depth: f"SOIL_MOISTURE_{depth}_DAILY" for depth in DEPTHS}
        table = pd.read_csv(path)
        missing = [
            n for n in ("LST_DATE", "LATITUDE", "LONGITUDE", "SOIL_TEMP_5_DAILY", *wanted.values()) if n not in table
        ]
        if missing:
            raise VariableError("columns of the probe", expected=", ".join(missing), found="none", where=str(path))
        days = pd.to_datetime(table["LST_DATE"].astype(str), format="%Y%m%d")
        thawed = table["SOIL_TEMP_5_DAILY"] > THAWED
        values = {depth: table[name].where((table[name] >= 0.0) & thawed).values for depth, name in wanted.items()}
        lat, lon = (float(table[name].median()) for name in ("LATITUDE", "LONGITUDE"))
        return cls(pd.DataFrame(values, days), lat, lon)

    def distance(self, case: Case) -> np.ndarray:
        """From each cell's centre, km."""
        lat, lon = (np.radians(case.forcing[name].values.astype(np.float64)) for name in ("lat", "lon"))
        a, b = np.radians([self.lat, self.lon])
        half = np.sin((lat - a) / 2.0) ** 2 + np.cos(lat) * np.cos(a) * np.sin((lon - b) / 2.0) ** 2
        return 2.0 * EARTH_RADIUS * np.arcsin(np.sqrt(half))

    def nearest(self, case: Case) -> int:
        """The cell whose weather is the probe's; PlaceError if it is too far for that."""
        distance = self.distance(case)
        if distance.min() > FARTHEST:
            raise PlaceError("probe", expected=f"within {FARTHEST:g} km of a cell", found=f"{distance.min():.0f} km")
        return int(distance.argmin())

    def compare(self, case: Case, runs: Mapping[str, Run], cell: int) -> dict[str, Any]:
        """Scores of the runs against each depth, over all days and over those after the first year.

        A mean over a local day stands for its noon, for which the ends of UTC days are interpolated.
        """
        zone = round(self.lon / 15.0)
        share = (12.0 - zone) / 24.0
        measured = self.moisture.reindex(case.days)
        found: dict[str, Any] = {"cell": cell, "km": digits(float(self.distance(case)[cell]))}
        for period, first in (("all days", 0), ("after the first year", YEAR)):
            for depth, layer in DEPTHS.items():
                series = {name: run.at(cell, layer, share) for name, run in runs.items()}
                if layer == 0:
                    series |= {f"{name} operator": run.seen[:, cell] for name, run in runs.items()}
                y = measured[depth].to_numpy(np.float64)[first:, None]
                tables = {name: scores(m[first:, None], y).to_dict("records")[0] for name, m in series.items()}
                if np.isfinite(next(iter(tables.values()))["rmse"]):
                    found[f"{depth} cm, {period}"] = {
                        name: {"days": int(t["count"]), **{s: digits(t[s]) for s in SCORES}}
                        for name, t in tables.items()
                    }
        return found


def _told(analysis: Analysis) -> dict[str, Any]:
    said = analysis.diagnostics
    (sensor,) = said["sensors"].values()
    names = ("observations", "members", "dofs", "chi2", "steps", "control", "amplitude", "patches", "clipped")
    kept = {name: sensor[name] for name in ("alpha", "offset", "withheld", "errors")}
    return {"accepted": analysis.accepted, "reasons": list(analysis.reasons), **{n: said[n] for n in names}, **kept}


def _print(figures: Mapping[str, Any]) -> None:
    told = figures["analysis"]
    print(f"twin bench observed · {machine()}, load {os.getloadavg()[0]:.1f}")
    print("  {region}, {sensor}, {model}, seed {seed}".format(**figures))
    print("  {calibrated} cells calibrated in the first year, {held_out} held out".format(**figures["cells"]))
    accepted = "accepted" if told["accepted"] else "not accepted: " + "; ".join(told["reasons"])
    print(f"  analysis {accepted}; {told['observations']} observations, {told['dofs']:.1f} degrees of freedom")
    print(f"  withheld observations: {_plain(told['withheld'])}")
    for name, found in figures["scores"].items():
        print(f"  {name}, second year: {found['observations']} retrievals")
        print("    " + f"{'mean over cells [95 %] (median)':<36}" + "".join(f"{score:>34}" for score in SHOWN))
        for row in (row for row in found if row != "observations"):
            print("    " + f"{row:<36}" + "".join(f"{_interval(found[row][score]):>34}" for score in SHOWN))
    if "probe" in figures:
        print("  probe, {km} km from the centre of cell {cell}, which was left out".format(**figures["probe"]))
        for name, runs in figures["probe"].items():
            if isinstance(runs, dict):
                for run, values in runs.items():
                    print(f"    {name:<28} {run:<18} {_plain(values)}")


def _interval(told: Mapping[str, float]) -> str:
    median = f" ({told['median']:.4f})" if "median" in told else ""
    return f"{told['mean']:.4f} [{told['low']:.4f}, {told['high']:.4f}]{median}"


def _plain(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
