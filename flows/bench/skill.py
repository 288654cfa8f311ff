"""How good the emulator is where it has not been: other blocks of Africa, other years, another climate, other models.

    simulated Africa ─roles by blocks─▸ train, calibrate │ test
       years from 1996: runs of Land ─▸ Emulator.fit       years from 2001: runs of Land, as it is and HOT ─▸ scores

What is scored is in other blocks, other years, and half of it in another climate than all that was learnt from, and
runs freely from its first day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from flows.bench.report import digits, machine
from infra.settings import region, region_grid
from twin import forcing as weather
from twin import synthetic
from twin.emulator import scoring
from twin.emulator.fitting import Options, Run, Training
from twin.emulator.model import Emulator
from twin.emulator.outputs import SOIL_MOISTURE, target
from twin.emulator.physics import Transfer, span
from twin.emulator.training import Ensemble, climate_of, roles, sample, sub_daily
from twin.ensemble import Held
from twin.errors import SettingsError, VariableError
from twin.inputs import CANOPY, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA
from twin.land import LandDaily
from twin.parameters import TILES, assemble
from twin.variables import LAYERS, VARIABLES

FIRST, TESTED = 1996, 2001  # years: the first trained on, the first scored (after a year that is not)
SEED = synthetic.SEED
FOLDS = 5  # of real points


@dataclass(frozen=True, eq=False)
class Africa:
    """Locations of a simulated Africa at 0.25°: their cells, parameters and roles."""

    cells: xr.Dataset
    parameters: xr.Dataset
    role: np.ndarray
    location: np.ndarray

    @classmethod
    def of(cls, locations: int, held_out: int, seed: int) -> Africa:
        """`locations` to train, `held_out` each to calibrate and to test; all stand for the map of their own blocks."""
        land = region_grid(region("africa"))
        climate, rng = synthetic.climate(land, SEED), np.random.default_rng(seed)
        parameters = parameters_of(land, climate)
        year = synthetic.forcing(climate, pd.date_range("1995-01-01", periods=36, freq="10D"))
        usual = climate_of(year)
        of_role = roles(land["lat"].values, land["lon"].values, rng)
        sizes = {"train": locations, "calibrate": held_out, "test": held_out}
        found = [sample(parameters, usual, n, rng, np.flatnonzero(of_role == role)) for role, n in sizes.items()]
        chosen, role = np.concatenate(found), np.repeat(list(sizes), [part.size for part in found])
        return cls(land.isel(cell=chosen), parameters.isel(cell=chosen), role, chosen)

    def ensemble(self, which: Sequence[str], first: int, years: int, outputs: Sequence[str]) -> Ensemble:
        """The runs of some roles through `years` years."""
        here = np.isin(self.role, which)
        climate = synthetic.climate(self.cells.isel(cell=here), SEED)
        days = pd.date_range(f"{first}-01-01", f"{first + years - 1}-12-31")
        return Ensemble(
            sub_daily(outputs),
            self.parameters.isel(cell=here),
            Held(synthetic.forcing(climate, days)),
            self.location[here],
            self.role[here],
            tuple(outputs),
        )


def parameters_of(cells: xr.Dataset, climate: synthetic.Climate) -> xr.Dataset:
    """Soil and surface types of simulated cells, as the land model takes them."""
    soil = synthetic.soils(cells, SEED)
    return assemble(soil, synthetic.land_cover(climate)).assign(sand=soil["sand"], clay=soil["clay"])


def runs_of(ensemble: Ensemble, seed: int) -> list[Run]:
    """Every member, run here and now."""
    return [ensemble.run(member, ensemble(member)) for member in ensemble.members(np.random.default_rng(seed))]


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs to learn from and runs to be scored on, which share neither blocks nor years."""

    training: Training
    tests: list[Run]
    seconds: float

    @classmethod
    def of(
        cls, locations: int, held_out: int, years: int, test_years: int, seed: int, outputs: Sequence[str]
    ) -> Experiment:
        started = time.perf_counter()
        africa = Africa.of(locations, held_out, seed)
        learnt = africa.ensemble(("train", "calibrate"), FIRST, years, outputs)
        scored = africa.ensemble(("test",), TESTED, test_years, outputs)
        about = {
            "region": "simulated Africa",
            "locations": locations,
            "years": [FIRST, FIRST + years - 1],
            "seed": seed,
        }
        tests = runs_of(scored, seed)
        training = Training(runs_of(learnt, seed), {**about, "runs": learnt.key})
        return cls(training, tests, time.perf_counter() - started)

    def at(self, locations: int) -> Training:
        """The training of fewer locations, taken evenly."""
        runs = self.training.of("train")
        every = max(1, sum(run.location.size for run in runs) // 2 // locations)
        return Training(
            [run.part(slice(None, None, every)) for run in runs] + self.training.of("calibrate"),
            {**self.training.manifest, "locations": locations},
        )


def skill(
    locations: int, held_out: int, years: int, test_years: int, seed: int, every_output: bool, as_json: bool
) -> None:
    """Train on `locations` locations and report every score; see the module."""
    from twin.emulator.outputs import OUTPUTS

    outputs = tuple(OUTPUTS) if every_output else SOIL_MOISTURE
    experiment = Experiment.of(locations, held_out, years, test_years, seed, outputs)
    started = time.perf_counter()
    emulator = Emulator.fit(experiment.training, Options(outputs=outputs))
    fitted = time.perf_counter() - started
    told = {"emulator": scoring.evaluate(emulator, experiment.tests).to_dict()}
    if emulator.safe is not None and not every_output:
        told["safe"] = scoring.evaluate(emulator.safe, experiment.tests).to_dict()
    print(f"twin bench skill · {machine()}, load {os.getloadavg()[0]:.1f} · {emulator.kernel.path}")
    print(f"  {locations} locations × {years} years, scored on {held_out} others × {test_years} other years")
    print(f"  runs of the land model {experiment.seconds:.0f} s, fitting {fitted:.0f} s, version {emulator.version}")
    for name, scores in told.items():
        _show(name, scores)
    if as_json:
        about = {"locations": locations, "held_out": held_out, "years": years, "test_years": test_years, "seed": seed}
        print(json.dumps({"bench": "skill", "machine": machine(), **about, "version": emulator.version, **told}))


def _show(name: str, scores: Mapping[str, Any]) -> None:
    print(f"  {name}:")
    for frame in ("table", "metrics", "coverage"):
        rows = pd.DataFrame(scores[frame])
        text = rows.map(lambda v: f"{v:.4g}" if isinstance(v, float) else v).to_string(index=False)
        print("    " + text.replace("\n", "\n    "))
    print(f"    outside the envelope {scores['outside']}; {scores['certificate']}")


# --- which form -----------------------------------------------------------------------------------------------------
FORMS: Mapping[str, Options] = {
    "trees alone": Options(hybrid=False, without=("state",), safe=False),
    "trees that know the physics": Options(hybrid=False, safe=False),
    "trees correct unfitted physics": Options(fitted=False, safe=False),
    "trees correct fitted physics": Options(safe=True),
    "40 trees": Options(trees=40, rate=0.3, safe=False),
    "160 trees": Options(trees=160, rate=0.1, safe=False),
    "depth 8": Options(depth=8, safe=False),
    "without soil and leaves": Options(without=("soil", "leaves"), safe=False),
}
CURVE = (50, 100, 250, 500)


def formulations(locations: int, held_out: int, years: int, test_years: int, seed: int, as_json: bool) -> None:
    """Every form of the emulator on the same runs: error of the four layers in percent of the range, and its cost."""
    experiment = Experiment.of(locations, held_out, years, test_years, seed, SOIL_MOISTURE)
    rows = list(_rows(experiment, locations))
    print(f"twin bench formulations · {machine()}, load {os.getloadavg()[0]:.1f}")
    print(pd.DataFrame(rows).map(lambda v: f"{v:.2f}" if isinstance(v, float) else v).to_string(index=False))
    if as_json:
        print(json.dumps({"bench": "formulations", "machine": machine(), "rows": rows}))


def _rows(experiment: Experiment, locations: int) -> Iterator[dict[str, Any]]:
    for name, options in FORMS.items():
        emulator = Emulator.fit(experiment.training, options)
        if name == "trees correct fitted physics":
            yield from _physics(experiment.tests, {"daily physics": Transfer(), "fitted": emulator.transfer})
        yield _row(name, locations, emulator, experiment.tests)
        if emulator.safe is not None:
            yield _row("safe: more rain never dries", locations, emulator.safe, experiment.tests)
    for fewer in CURVE:
        if fewer < locations:
            emulator = Emulator.fit(experiment.at(fewer), Options(safe=False))
            yield _row("trees correct fitted physics", fewer, emulator, experiment.tests)


def _row(name: str, locations: int, emulator: Emulator, tests: Sequence[Run]) -> dict[str, Any]:
    scores = scoring.evaluate(emulator, tests)
    return {"form": name, "locations": locations, **_percent(scores.table), "cpu_ms": digits(scores.certificate.cost)}


def _percent(table: pd.DataFrame) -> dict[str, float]:
    """Columns of the four layers, as they are and in another climate."""
    found: dict[str, float] = {}
    for label, climate in zip(("", " hot"), table["climate"].unique(), strict=False):
        here = table[table["climate"] == climate].set_index("output")["rmse_percent"]
        found |= {f"L{k + 1}{label}": float(here[name]) for k, name in enumerate(SOIL_MOISTURE)}
    return found


def _physics(tests: Sequence[Run], transfers: Mapping[str, Transfer]) -> Iterator[dict[str, Any]]:
    """The daily physics without trees."""
    for name, transfer in transfers.items():
        found: dict[str, list[np.ndarray]] = {}
        spent = days = 0.0
        for run in tests:
            parameters, model = transfer.parameters(run.parameters), LandDaily(threads=1, precision="single")
            start = cell_means(run)
            clock = time.process_time()
            _, told = model.run(start, run.forcing, parameters)
            spent, days = spent + time.process_time() - clock, days + run.forcing.sizes["time"] * run.location.size
            error = (told[THETA].values - run.truth[THETA].values) / span(run.parameters)
            found.setdefault(run.climate, []).append((error[365:] ** 2).mean(axis=0))
        row: dict[str, Any] = {"form": f"{name}, no trees" if name == "fitted" else name, "locations": 0}
        for label, parts in zip(("", " hot"), found.values(), strict=False):
            layers = 100.0 * np.sqrt(np.concatenate(parts, axis=1).mean(axis=1))
            row |= {f"L{k + 1}{label}": float(layers[k]) for k in range(len(LAYERS))}
        yield {**row, "cpu_ms": digits(1e3 * spent * 365 / days)}


def cell_means(run: Run) -> xr.Dataset:
    """A run's state with leaves and snow of the whole cell."""
    share = run.parameters["tile_fraction"]
    means = {name: (run.state[name] * share).sum("tile").assign_attrs(VARIABLES[name].attrs) for name in (CANOPY, SNOW)}
    return xr.Dataset({THETA: run.state[THETA].assign_attrs(VARIABLES[THETA].attrs), **means})


# --- real JULES -----------------------------------------------------------------------------------------------------
def jules(folder: Path, seed: int, as_json: bool) -> None:
    """Trained on points of a real JULES run and scored on others, FOLDS times, so that every point is scored once.

    folder   with grid200_forcing.nc, grid200_ancil.nc and grid200_bc_daysnap.nc
    """
    runs = jules_run(folder)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(runs.location.size) % FOLDS
    parts = []
    for k in range(FOLDS):
        roles_of = {"calibrate": fold == (k + 1) % FOLDS, "test": fold == k}
        roles_of["train"] = ~(roles_of["calibrate"] | roles_of["test"])
        pieces = {role: replace(runs.part(np.flatnonzero(here)), role=role) for role, here in roles_of.items()}
        emulator = Emulator.fit(
            Training([pieces["train"], pieces["calibrate"]], {"points": "JULES", "fold": k}, skip=30),
            Options(safe=False, rate=0.12),
        )
        test = pieces["test"]
        _, told = emulator.run(test.state, test.forcing, test.parameters)
        error = np.stack(
            [target(n, told, test.parameters) - target(n, test.truth, test.parameters) for n in SOIL_MOISTURE]
        )
        covered = np.abs(error[:, 30:]) <= _half_widths(emulator, test)[:, 30:]
        _, daily = LandDaily(precision="single").run(
            cell_means(test), test.forcing, Transfer().parameters(test.parameters)
        )
        plain = daily[THETA].values.transpose(1, 0, 2) - test.truth[THETA].values.transpose(1, 0, 2)
        parts.append((error[:, 30:], plain[:, 30:], covered, span(test.parameters)))
    rows = {}
    for name, at in (("emulator", 0), ("daily physics", 1)):
        squares = np.concatenate([(part[at] / part[3][:, None]) ** 2 for part in parts], axis=2)
        rows[name] = (100.0 * np.sqrt(squares.mean(axis=(1, 2)))).round(2).tolist()
    rows["coverage"] = np.concatenate([part[2] for part in parts], axis=2).mean(axis=(1, 2)).round(3).tolist()
    print(f"twin bench skill --jules · {machine()}: {runs.location.size} points, {FOLDS} folds, layers 1 to 4")
    for name, values in rows.items():
        print(f"  {name:<16} {values} {'% of range' if name != 'coverage' else ''}")
    if as_json:
        print(json.dumps({"bench": "skill", "points": int(runs.location.size), "folds": FOLDS, **rows}))


def _half_widths(emulator: Emulator, run: Run) -> np.ndarray:
    rows = emulator.features(run.state, run.forcing, run.parameters)
    widths = emulator.intervals.half_width(emulator.regimes(rows))
    return widths.T.reshape(len(emulator.outputs), run.forcing.sizes["time"], -1)


def jules_run(folder: Path) -> Run:
    """Real JULES at 200 points: daily means of its forcing, its soil and surface types, its daily soil moisture.

    Raises SettingsError where a file is not there, VariableError where it is not what it should be.
    """
    names = ("grid200_forcing", "grid200_ancil", "grid200_bc_daysnap")
    missing = [f"{name}.nc" for name in names if not (folder / f"{name}.nc").is_file()]
    if missing:
        raise SettingsError("--jules", expected=", ".join(missing), found="no such file", where=str(folder))
    drivers, soil, snap = (xr.open_dataset(folder / f"{name}.nc").load() for name in names)
    snap = snap.transpose("time", "soil", "land", ...)
    begins = pd.DatetimeIndex(drivers["time"].values)
    first = pd.Timestamp(snap["time"].values[0])
    days = snap.sizes["time"] - 1
    skipped = int(np.flatnonzero(begins == first)[0]) if first in begins else -1
    if skipped < 0 or skipped + 48 * days > begins.size:
        raise VariableError(
            "time of the forcing", expected=f"{days} days from {first}", found=f"{begins[0]} to {begins[-1]}"
        )

    def mean(name: str) -> np.ndarray:
        values = drivers[name].values[skipped : skipped + 48 * days]
        return values.reshape(days, 48, -1).mean(axis=1, dtype=np.float64)

    values = {
        "precipitation_flux": mean("tot_rain") + mean("tot_snow"),
        "air_temperature": mean("t"),
        "specific_humidity": mean("q"),
        "wind_speed": mean("wind"),
        "surface_air_pressure": mean("pstar"),
        "surface_downwelling_shortwave_flux_in_air": mean("sw_down"),
        "surface_downwelling_longwave_flux_in_air": mean("lw_down"),
    }
    cells = soil.sizes["land"]
    place = {
        "lat": ("cell", soil["latitude"].values.astype(float)),
        "lon": ("cell", soil["longitude"].values.astype(float)),
    }
    times = {"time": pd.date_range(first, periods=days)}
    forcing = xr.Dataset(
        {name: (("time", "cell"), v.astype(np.float32), weather.attributes(name)) for name, v in values.items()},
        {**times, **place},
    )
    fraction = soil["frac"].values.astype(np.float64)
    texture = xr.Dataset(
        {
            "sand": ("cell", soil["sand"].values.astype(float)),
            "silt": ("cell", 1.0 - soil["sand"].values.astype(float) - soil["clay"].values),
            "clay": ("cell", soil["clay"].values.astype(float)),
        },
        place,
    )
    parameters = assemble(texture, fraction / fraction.sum(axis=0), soil_albedo=soil["albsoil"].values.astype(float))
    renamed = {
        "b": "b",
        "psi_s": "sathh",
        "K_s": "satcon",
        "theta_s": "sm_sat",
        "theta_c": "sm_crit",
        "theta_w": "sm_wilt",
    }
    for ours, theirs in renamed.items():
        parameters[ours] = parameters[ours].copy(data=np.broadcast_to(soil[theirs].values, parameters[ours].shape))
    depth = 1000.0 * np.array(LAYERS)[:, None]
    theta = np.minimum(snap["smcl"].values / depth, soil["sm_sat"].values).astype(np.float64)
    surface = {
        CANOPY: np.zeros((len(TILES), cells)),
        SNOW: np.repeat(snap["snow_mass_gb"].values[:1], len(TILES), axis=0).astype(float),
        SURFACE_TEMPERATURE: np.repeat(snap["tstar_gb"].values[:1], len(TILES), axis=0).astype(float),
    }
    start = {THETA: (("layer", "cell"), theta[0]), SOIL_TEMPERATURE: (("layer", "cell"), snap["t_soil"].values[0])}
    start |= {name: (("tile", "cell"), v) for name, v in surface.items()}
    state = xr.Dataset({name: (*v, VARIABLES[name].attrs) for name, v in start.items()})
    truth = xr.Dataset({THETA: (("time", "layer", "cell"), theta[1:], VARIABLES[THETA].attrs)}, times)
    return Run(state, forcing, parameters, truth, np.arange(cells))
