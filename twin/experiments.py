"""Twin experiments: observations are made of a run that is kept as the truth, and the analysis is judged against it.

    seed ─▸ place, weather ─┬─▸ truth: its own parameters, spun up with them ─H, noise, offsets─▸ observations ─┐
                            └─▸ prior: parameters everyone knows, spun up with those ──────────────────────▸ assimilate
                                                                            truth ─▸ scores ◂── analysis ◂──────┘

Identical: the truth is a draw from the prior, run by the model of the analysis. Fraternal: the truth is of another
model, with surface types, an energy balance and three-hourly steps. Nothing of either is told to the analysis.

Ref: Arnold & Dey (1986), Bull. Am. Meteorol. Soc. 67, 687 (observing-systems simulation experiments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin import grid, state, synthetic
from twin.control import RESIDUAL, Control, humidity
from twin.cycle import LENGTH, Analysis, Options, assimilate
from twin.ensemble import ROOT_ZONE, Held, Prior, Simulation, Task, Window, factors_of, fields
from twin.errors import PlaceError
from twin.inputs import THETA
from twin.land import Land, LandDaily
from twin.model import LandModel
from twin.observations import Observations, total_error
from twin.operators import Fluorescence, Operator, SoilMoisture
from twin.parameters import assemble, from_texture

BOX = 16.0, -27.0, 34.0, 15.0  # degrees west, south, east, north: from the Kalahari to the Sahel
RAIN = 350.0, synthetic.FOREST  # mm a year: neither desert nor a canopy that hides the soil
YEAR = pd.Timestamp("2021-01-01"), pd.Timestamp("2021-12-31")
HOUR = 6.0  # local solar time of the satellite
RANGE = 0.02, 0.6  # m3 m-3, what a product delivers
RADIOMETER, SPECTROMETER = "radiometer", "spectrometer"


@dataclass(frozen=True)
class Setting:
    """What an experiment is made of.

    observed, held_out   cells with observations and without
    window               days that are assimilated; the year before them leads up to it
    fluorescence         whether it is observed too
    offset               standard deviation of the offset between sensor and model at a cell, m3 m-3
    outliers             share of the soil moisture that is any value a product delivers
    local                standard deviation of the fields on `RESIDUAL` in the truth, in those of their prior
    surface              whether the factors on the surface are unknown too, not the soil's and the operators' alone
    """

    observed: int = 45
    held_out: int = 25
    window: Window = field(default_factory=lambda: Window(*YEAR, cycles=0))
    fluorescence: bool = False
    offset: float = 0.0
    outliers: float = 0.0
    local: float = 0.0
    surface: bool = True

    @property
    def cells(self) -> int:
        return self.observed + self.held_out

    @property
    def days(self) -> pd.DatetimeIndex:
        """The year before the window, and the window."""
        return pd.date_range(self.window.first - pd.DateOffset(years=1), self.window.last)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is hidden from the analysis: soil moisture (time, layer, cell) m3 m-3, and z (n) where it is of the control.

    seen   what each sensor would see of it without error, (time, cell)
    """

    theta: np.ndarray
    seen: Mapping[str, np.ndarray]
    z: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an experiment came to.

    rmse         of soil moisture, m3 m-3, (run, place, layer): open_loop and analysis, observed and held_out
    parameters   error of the control vector over its posterior standard deviation, root mean square; NaN without z
    states       RMSE of the members' mean root-zone moisture over the root mean square of their spread
    coverage     share of the true root-zone moisture inside the 5 to 95 % interval of the members
    """

    seed: int
    rmse: xr.DataArray
    parameters: float
    states: float
    coverage: float
    analysis: Analysis
    truth: Truth

    @property
    def share(self) -> xr.DataArray:
        """RMSE of the analysis over that of the open loop, (place, layer)."""
        return self.rmse.sel(run="analysis", drop=True) / self.rmse.sel(run="open_loop", drop=True)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        told = self.analysis.diagnostics
        keys = ("observations", "members", "dofs", "chi2", "amplitude", "patches", "steps")
        return {
            "seed": self.seed,
            "accepted": self.analysis.accepted,
            "reasons": list(self.analysis.reasons),
            "rmse": {str(run): self.rmse.sel(run=run).values.tolist() for run in self.rmse["run"].values},
            "parameters": self.parameters,
            "states": self.states,
            "coverage": self.coverage,
            **{key: told[key] for key in keys},
            "sensors": {n: {k: s[k] for k in ("alpha", "offset")} for n, s in told["sensors"].items()},
        }


def identical(seed: int, setting: Setting | None = None, options: Options | None = None) -> Outcome:
    """An experiment whose truth is a draw from the prior, run by the model of the analysis, `LandDaily`.

    options   of the cycle; an offset that is not told there is estimated
    """
    setting, model = setting or Setting(), LandDaily(precision="single")
    rng = np.random.default_rng([seed, 0])
    prior, forcing = _prior(model, setting, seed)
    sensors = _sensors(setting)
    control = (prior.control or Control.of(prior.parameters)).with_operators(factors_of(sensors))
    damp = humidity(forcing.sel(time=setting.window.days))
    z = _draw(control, prior.parameters, damp, rng)
    lat, lon = (forcing[name].values for name in ("lat", "lon"))
    residual = setting.local * fields(rng, 1, len(RESIDUAL), lat, lon, LENGTH)[0]
    parameters = control.parameters(z, prior.parameters, damp, residual)
    truth = _truth(model, parameters, forcing, setting, sensors, control.constants(z), z)
    return _judged(seed, model, prior, forcing, truth, setting, options, rng)


def fraternal(seed: int, setting: Setting | None = None, options: Options | None = None) -> Outcome:
    """An experiment whose truth is of `Land` at three-hourly steps under a simulated vegetation, its soil a draw."""
    setting, model = setting or Setting(), LandDaily(precision="single")
    rng = np.random.default_rng([seed, 0])
    prior, forcing = _prior(model, setting, seed)
    sensors = _sensors(setting)
    climate = synthetic.climate(_cells(setting, seed), seed)
    tiled = assemble(synthetic.soils(climate.cells, seed), synthetic.land_cover(climate))
    control = Control.of(tiled, factors_of(sensors))
    z = rng.standard_normal(control.size)
    parameters = control.parameters(z, tiled, humidity(forcing.sel(time=setting.window.days)))
    other = Land("3h", output="1D", fluxes=("gross_primary_productivity_of_biomass_expressed_as_carbon",))
    truth = _truth(other, parameters, forcing, setting, sensors, control.constants(z), None)
    return _judged(seed, model, prior, forcing, truth, setting, options, rng)


# --- what everyone knows --------------------------------------------------------------------------------------------
def _cells(setting: Setting, seed: int) -> xr.Dataset:
    """Cells of a simulated Africa that are neither desert nor forest, anywhere in BOX, the observed ones first."""
    land = grid.regular(BOX, 1.0, region="twins")
    rain = synthetic.climate(land, seed).rain
    found = np.flatnonzero((rain > RAIN[0]) & (rain < RAIN[1]))
    if found.size < setting.cells:
        raise PlaceError("cells of the experiment", expected=f"at most {found.size}", found=setting.cells)
    return land.isel(cell=np.random.default_rng([seed, 1]).choice(found, setting.cells, replace=False))


def _prior(model: LandModel, setting: Setting, seed: int) -> tuple[Prior, xr.Dataset]:
    """Parameters of the soil map, the state they are spun up to, and the forcing."""
    cells = _cells(setting, seed)
    forcing = synthetic.forcing(synthetic.climate(cells, seed), setting.days)
    soil = synthetic.soils(cells, seed)
    parameters = from_texture(soil["sand"], soil["silt"], soil["clay"]).assign(sand=soil["sand"], clay=soil["clay"])
    control = None if setting.surface else Control(kappa=True, factors=())
    return Prior(parameters, _spun_up(model, parameters, forcing, setting), control), forcing


def _spun_up(model: LandModel, parameters: xr.Dataset, forcing: xr.Dataset, setting: Setting) -> xr.Dataset:
    lead = forcing.sel(time=slice(None, setting.window.first - pd.Timedelta(days=1)))
    return state.spin_up(model, state.initial(parameters), lead, parameters)


def _sensors(setting: Setting) -> dict[str, Operator]:
    sensors: dict[str, Operator] = {RADIOMETER: SoilMoisture(HOUR)}
    return sensors | ({SPECTROMETER: Fluorescence()} if setting.fluorescence else {})


# --- what is hidden -------------------------------------------------------------------------------------------------
def _draw(control: Control, background: xr.Dataset, damp: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw z (n) of the prior whose soil is one: at most a twentieth of the cells are next to a bound."""
    while True:
        z = rng.standard_normal(control.size)
        if control.parameters(z, background, damp).attrs["clipped"] <= 0.05 * damp.size:
            return z


def _truth(
    model: LandModel,
    parameters: xr.Dataset,
    forcing: xr.Dataset,
    setting: Setting,
    sensors: Mapping[str, Operator],
    constants: Mapping[str, float],
    z: np.ndarray | None,
) -> Truth:
    window = forcing.sel(time=setting.window.days)
    lead = forcing.sel(time=slice(None, setting.window.first - pd.Timedelta(days=1)))
    start, _ = model.run(_spun_up(model, parameters, forcing, setting), lead, parameters)
    _, run = model.run(start, window, parameters)
    seen = {name: h(run, start, window, parameters, constants) for name, h in sensors.items()}
    return Truth(run[THETA].values.astype(np.float64), seen, z)


def _observations(truth: Truth, forcing: xr.Dataset, setting: Setting, rng: np.random.Generator) -> list[Observations]:
    """What the sensors report of the observed cells: all under the swath, fluorescence when half the sky is clear."""
    days = setting.window.days
    lat, lon = (forcing[name].values[: setting.observed] for name in ("lat", "lon"))
    under = np.stack([synthetic.swath(lat, lon, number) for number in synthetic.day_numbers(days)])
    day, cell = np.nonzero(under)
    value = truth.seen[RADIOMETER][day, cell].astype(np.float64)
    value += (setting.offset * rng.standard_normal(setting.observed))[cell]
    value += synthetic.RETRIEVAL_ERROR * rng.standard_normal(value.size)
    wild = rng.random(value.size) < setting.outliers
    value[wild] = rng.uniform(*RANGE, int(wild.sum()))
    error = total_error("surface_soil_moisture", value, np.full(value.size, synthetic.RETRIEVAL_ERROR), cell)
    given = [Observations(value, error, cell, day, RADIOMETER, "surface_soil_moisture", days, HOUR)]
    if SPECTROMETER in truth.seen:
        day, cell = np.nonzero(under & (rng.random(under.shape) < 0.5))
        value, stated = truth.seen[SPECTROMETER][day, cell].astype(np.float64), np.full(day.size, 0.1)
        value += total_error("sif_radiance", value, stated, cell) * rng.standard_normal(value.size)
        error = total_error("sif_radiance", value, stated, cell)
        given.append(Observations(value, error, cell, day, SPECTROMETER, "sif_radiance", days))
    return given


# --- the experiment -------------------------------------------------------------------------------------------------
def _judged(
    seed: int,
    model: LandModel,
    prior: Prior,
    forcing: xr.Dataset,
    truth: Truth,
    setting: Setting,
    options: Options | None,
    rng: np.random.Generator,
) -> Outcome:
    """Assimilate what the sensors saw of the truth, and compare."""
    given = _observations(truth, forcing, setting, rng)
    analysis = assimilate(model, prior, forcing, given, setting.window, rng, options=options)
    simulation = Simulation(model, prior, Held(forcing), setting.window, {})
    runs = {"open_loop": (0.0 * analysis.z, None), "analysis": (analysis.z, analysis.residual)}
    places = {"observed": slice(0, setting.observed), "held_out": slice(setting.observed, setting.cells)}
    rmse = np.empty((2, 2, truth.theta.shape[1]))
    for i, (z, residual) in enumerate(runs.values()):
        z = z[: simulation.control.size]  # the elements of operators come last
        task = Task(0, 0, 0, slice(0, setting.cells), z, residual)
        error = simulation.run(task)[1][THETA].values - truth.theta
        for j, cells in enumerate(places.values()):
            rmse[i, j] = _rms(error[..., cells], (0, 2))
    true_wet = state.root_zone(xr.DataArray(truth.theta, dims=("time", "layer", "cell"))).values
    states = analysis.states
    mean, spread, low, high = (states[f"{ROOT_ZONE}_{n}"].values for n in ("mean", "spread", "low", "high"))
    deviation = np.sqrt(np.diag(analysis.covariance))
    return Outcome(
        seed,
        xr.DataArray(rmse, {"run": list(runs), "place": list(places)}, ("run", "place", "layer")),
        float("nan") if truth.z is None else float(_rms((analysis.z - truth.z) / deviation)),
        float(_rms(mean - true_wet) / _rms(spread)),
        float(np.mean((low <= true_wet) & (true_wet <= high))),
        analysis,
        truth,
    )


def _rms(values: np.ndarray, axis: tuple[int, ...] | None = None) -> Any:
    return np.sqrt(np.mean(np.square(values), axis=axis))
