"""Land: the LandModel with an energy balance, from Datasets to the compiled march and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin import checks, inputs
from twin.errors import RangeError, SettingsError, VariableError
from twin.inputs import CANOPY, DEEP, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA, WATER_TABLE
from twin.land import lanes, weather
from twin.land.compiled import BLOCK
from twin.land.demand import SNOW_BELOW
from twin.land.march import NO_EXCESS, PDM, SITE_ROWS, TOPMODEL, kernel, sky_of
from twin.land.rows import CELL_ROWS, FLUXES, LANES, TILE_ROWS
from twin.land.runoff import DEEPEST, fit_saturated_fraction
from twin.land.threads import spread
from twin.variables import LAYERS, VARIABLES

CARBON_DIOXIDE = "mole_fraction_of_carbon_dioxide_in_air"
TOPOGRAPHY = ("topographic_index", "topographic_index_deviation", "transmissivity_decay")
RUNOFF = "runoff_flux"
_SHED = ("surface_runoff_flux", "subsurface_runoff_flux")
STEPS = (1800, 3600, 10800)  # s; longer steps of an energy balance diverge
_HALF_WAY = 3600  # s; above it, the surface is solved about the middle of the step
_EXCESS = {"none": NO_EXCESS, "pdm": PDM, "topmodel": TOPMODEL}
_ZERO = 273.15  # K
_FAR = 12.0  # K, a change of T* that one Newton step is not trusted with
_CLOSE = {"double": 1e-12, "single": 1e-6}  # relative, of a freezing layer's temperature
_COPIED = 100e6  # bytes of forcing made ready at a time


class Land:
    """LandModel with an energy balance of every surface type: leaves, snow, freezing soil, Richards.

    step              "30min", "1h" or "3h"; by default that of the forcing, or an hour when it is daily
    precision         "double", or "single" for two times the speed
    retention         "brooks-corey" or "van-genuchten", as the parameters were made for; by default as they say
    numerics          of soil water: "newton", or "jules" for JULES' own single linearised step
    saturation_excess where water goes that a soil layer has no room for: "down", as in JULES' runs, or "up"
    runoff            where part of a cell is full: "none", "pdm", or "topmodel", which needs TOPOGRAPHY
    shower            fraction of the cell that rain falls on, exponentially distributed there; 0 is even rain
    wind_height, air_height   of the forcing, m above the zero plane
    diffuse           share of diffuse light in sunlight
    carbon_dioxide    mole fraction where the forcing has no `mole_fraction_of_carbon_dioxide_in_air` (time)
    output            interval of the diagnostics, a multiple of the step; by default the forcing's
    fluxes            which of `FLUXES` to return besides runoff; all by default
    threads           how many cores to use, all by default; results do not depend on it

    Refs: Best et al. (2011), Geosci. Model Dev. 4, 677; Clark et al. (2011), Geosci. Model Dev. 4, 701. Raises
    SettingsError for a choice there is not.
    """

    name = "land"
    version = "1.0.0"

    def __init__(
        self,
        step: str | np.timedelta64 | None = None,
        *,
        precision: str = "double",
        retention: str | None = None,
        numerics: str = "newton",
        saturation_excess: str = "down",
        runoff: str = "none",
        shower: float = 0.0,
        wind_height: float = 10.0,
        air_height: float = 2.0,
        diffuse: float = 0.0,
        carbon_dioxide: float = 391e-6,
        output: str | np.timedelta64 | None = None,
        fluxes: Iterable[str] = FLUXES,
        threads: int | None = None,
    ) -> None:
        _one_of("precision", precision, tuple(_CLOSE))
        _one_of("runoff", runoff, tuple(_EXCESS))
        for name, value, low, high in (
            ("shower", shower, 0.0, 1.0),
            ("diffuse", diffuse, 0.0, 1.0),
            ("wind_height", wind_height, 0.5, 200.0),
            ("air_height", air_height, 0.5, 200.0),
            ("carbon_dioxide", carbon_dioxide, 1.5e-4, 2e-3),
        ):
            if not low <= value <= high:
                raise SettingsError(name, expected=f"{low:g} to {high:g}", found=value)
        self.fluxes = tuple(fluxes)
        for name in self.fluxes:
            _one_of("flux", name, FLUXES)
        self.step, self.output = _seconds("step", step), _seconds("output", output)
        if self.step is not None and self.step not in STEPS:
            expected = "30min, 1h or 3h: an energy balance with longer steps diverges"
            raise SettingsError("step", expected=expected, found=str(step))
        kernel(retention or "brooks-corey", numerics, saturation_excess, precision)  # refuses what there is not
        self.precision, self.real = precision, np.float32 if precision == "single" else np.float64
        self.retention, self.numerics, self.saturation_excess = retention, numerics, saturation_excess
        self.runoff, self.shower, self.diffuse = runoff, shower, diffuse
        self.heights, self.carbon_dioxide = (wind_height, air_height), carbon_dioxide
        self.threads = threads or os.cpu_count() or 1

    def run(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """See `twin.model.LandModel.run`.

        state        `twin.state` describes it; water on leaves and snow by (cell) is taken for every surface type's, a
                     missing temperature is the air's of the first step
        forcing      steps of at most 3 h, or days, which are spread over the day; rainfall_flux and snowfall_flux, or
                     precipitation_flux
        parameters   `twin.parameters.assemble` makes them; any number of `tile_parameters` by (tile) or (tile, cell)
        """
        seconds = inputs.check_forcing(forcing, daily=True)
        ready = inputs.check_parameters(parameters, forcing)
        start = inputs.check_state(state, forcing, ready, (WATER_TABLE, DEEP))
        dt, interval = self._lengths(seconds, forcing.sizes["time"])
        march = kernel(self._retention(parameters), self.numerics, self.saturation_excess, self.precision)
        table = lanes.complete(ready, parameters)
        cells = _Cells(
            lanes.layout(table["tile_fraction"].values),
            table,
            lanes.soil_constants(table).astype(self.real),
            _site(table, parameters, self.runoff == "topmodel"),
            weather.cell_keys(table["lat"].values, table["lon"].values),
        )
        land = _Land.of(start)
        out = _Output.of(self.fluxes, forcing, seconds, interval, self.real)
        done = 0
        for part in _parts(forcing, seconds, interval, "month" in table.dims):
            sky = _Weather.of(part, seconds, dt, self)
            spread(partial(self._march, march, cells, sky, land, out, done), cells.number, self.threads)
            done += part.sizes["time"] * seconds // interval
        return land.state(start, self.runoff == "topmodel"), out.diagnostics()

    def _march(
        self, march: Any, cells: _Cells, sky: _Weather, land: _Land, out: _Output, done: int, first: int, last: int
    ) -> None:
        """The march of cells first to last of the plan, which are whole blocks."""
        plan, real = cells.plan.part(first // BLOCK, -(-last // BLOCK)), self.real
        constants = lanes.tile_constants(cells.table, plan, self.heights, sky.month).astype(real)
        t, c = np.zeros(TILE_ROWS * LANES, real), np.zeros(CELL_ROWS * BLOCK, real)
        work, steps = np.zeros(weather.ROWS * BLOCK), np.zeros(sky.held * weather.OUT * BLOCK)
        passes = 2 if sky.dt > _HALF_WAY else 1
        march(
            t, c, work, steps, cells.keys[plan.cells], plan.cells, plan.tiles, plan.used, plan.slots,
            cells.soils, constants, sky.given, sky.daily, sky.numbers, sky.held, sky.suns, sky.turns, sky.carbon,
            real(sky.dt), *(real(value) for value in (*self.heights, self.diffuse, self.shower)), passes, real(_FAR),
            _EXCESS[self.runoff], out.interval // sky.dt, real(_CLOSE[self.precision]), _ZERO,
            land.theta, land.kelvin, land.surface, land.leaves, land.snow, land.table, cells.site,
            out.wanted, out.fluxes, out.layers, out.stores, done,
        )  # fmt: skip

    def _lengths(self, seconds: int, times: int) -> tuple[int, int]:
        """Step and output interval in seconds for forcing with a step of `seconds`."""
        step = self.step or (3600 if seconds == inputs.DAY else seconds)
        if step not in STEPS:
            raise RangeError("time step", expected="30 min, 1 h, 3 h or 1 day", found=f"{seconds} s", where="forcing")
        if seconds % step:
            raise SettingsError("step", expected=f"one that divides the forcing's {seconds} s", found=f"{step} s")
        interval = self.output or seconds
        if interval % max(seconds if seconds < inputs.DAY else step, step) or inputs.DAY % interval:
            expected = f"a multiple of {step} s that divides a day, not within a step of the forcing"
            raise SettingsError("output", expected=expected, found=f"{interval} s")
        if times * seconds % interval:
            found = f"{times} steps of {seconds} s"
            raise RangeError("length of the forcing", expected=f"whole intervals of {interval} s", found=found)
        return step, interval

    def _retention(self, parameters: xr.Dataset) -> str:
        made_for = parameters.attrs.get("retention", self.retention or "brooks-corey")
        if self.retention not in (None, made_for):
            raise SettingsError("retention", expected=f"{made_for}, as the parameters are", found=self.retention)
        return made_for


@dataclass(frozen=True)
class _Cells:
    """What stays of the cells through a run."""

    plan: lanes.Layout
    table: xr.Dataset  # every parameter
    soils: np.ndarray
    site: np.ndarray
    keys: np.ndarray

    @property
    def number(self) -> int:
        return int(self.keys.size)


@dataclass(frozen=True)
class _Weather:
    """Forcing of a part of a run as `march` takes it."""

    given: tuple[np.ndarray, ...]
    daily: bool
    numbers: np.ndarray
    dt: int
    held: int  # steps that one forcing time is for
    suns: np.ndarray
    turns: np.ndarray
    carbon: np.ndarray
    month: int

    @classmethod
    def of(cls, forcing: xr.Dataset, seconds: int, dt: int, model: Land) -> _Weather:
        times = forcing["time"].values.astype("datetime64[s]")
        daily, held = seconds == inputs.DAY, seconds // dt
        begins = times[0] + np.arange(times.size * held) * np.timedelta64(dt, "s")
        suns, turns = (values.astype(model.real) for values in sky_of(begins, dt))
        return cls(
            _given(forcing, weather.DAILY_ROWS if daily else weather.STEP_ROWS),
            daily,
            times.astype("datetime64[D]").astype(np.int64),
            dt,
            held,
            suns,
            turns,
            np.repeat(_carbon(forcing, model.carbon_dioxide), held),
            pd.Timestamp(times[0]).month - 1,
        )


@dataclass(frozen=True)
class _Land:
    """The state while it changes: float64, contiguous, its own."""

    theta: np.ndarray
    kelvin: np.ndarray
    surface: np.ndarray
    leaves: np.ndarray
    snow: np.ndarray
    table: np.ndarray  # depth of the water table, saturation of the deep store

    @classmethod
    def of(cls, start: xr.Dataset) -> _Land:
        names = (THETA, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, CANOPY, SNOW)
        cells = start.sizes["cell"]
        table = np.empty((2, cells))
        # not known: the first step finds the water table; a store too full empties in years, one too dry in decades
        table[0] = start.get(WATER_TABLE, DEEPEST)
        table[1] = start.get(DEEP, 1.0)
        theta, kelvin, surface, leaves, snow = (np.array(start[name].values, np.float64, order="C") for name in names)
        return cls(theta, kelvin, surface, leaves, snow, table)

    def state(self, start: xr.Dataset, deep: bool) -> xr.Dataset:
        layered, tiled = ("layer", "cell"), ("tile", "cell")
        end: dict[str, Any] = {
            THETA: (layered, self.theta, VARIABLES[THETA].attrs),
            SOIL_TEMPERATURE: (layered, self.kelvin, VARIABLES[SOIL_TEMPERATURE].attrs),
            SURFACE_TEMPERATURE: (tiled, self.surface, VARIABLES[SURFACE_TEMPERATURE].attrs),
            CANOPY: (tiled, self.leaves, VARIABLES[CANOPY].attrs),
            SNOW: (tiled, self.snow, VARIABLES[SNOW].attrs),
        }
        if deep:
            end[WATER_TABLE] = ("cell", self.table[0], {"standard_name": WATER_TABLE, "units": "m"})
            end[DEEP] = ("cell", self.table[1], {"units": "1", "long_name": "saturation below the layers"})
        return xr.Dataset(end, start.coords)


@dataclass(frozen=True)
class _Output:
    """The diagnostics while they are filled."""

    names: tuple[str, ...]
    rows: tuple[str, ...]  # of fluxes: the names, and what makes up the runoff
    interval: int
    times: np.ndarray
    place: dict[str, xr.DataArray]
    wanted: np.ndarray
    fluxes: np.ndarray
    layers: np.ndarray
    stores: np.ndarray

    @classmethod
    def of(cls, names: tuple[str, ...], forcing: xr.Dataset, seconds: int, interval: int, real: Any) -> _Output:
        number, cells = forcing.sizes["time"] * seconds // interval, forcing.sizes["cell"]
        first = forcing["time"].values[0].astype("datetime64[ns]")
        rows = (*names, *(name for name in _SHED if name not in names))
        return cls(
            names,
            rows,
            interval,
            first + np.arange(number) * np.timedelta64(interval, "s"),
            {name: forcing[name] for name in ("lat", "lon") if name in forcing.coords},
            np.array([FLUXES.index(name) for name in rows], dtype=np.int64),
            np.empty((len(rows), number, cells), real),
            np.empty((2, number, len(LAYERS), cells), real),
            np.empty((3, number, cells), real),
        )

    def diagnostics(self) -> xr.Dataset:
        flat, layered = ("time", "cell"), ("time", "layer", "cell")
        rows = dict(zip(self.rows, self.fluxes, strict=True))
        found: dict[str, Any] = {
            THETA: (layered, self.layers[0]),
            SOIL_TEMPERATURE: (layered, self.layers[1]),
            CANOPY: (flat, self.stores[0]),
            SNOW: (flat, self.stores[1]),
            SURFACE_TEMPERATURE: (flat, self.stores[2]),
            **{name: (flat, rows[name]) for name in self.names},
            RUNOFF: (flat, rows[_SHED[0]] + rows[_SHED[1]]),
        }
        named = {name: (*value, VARIABLES[name].attrs) for name, value in found.items()}
        return xr.Dataset(named, {"time": self.times, **self.place})


def _parts(forcing: xr.Dataset, seconds: int, interval: int, monthly: bool) -> Iterator[xr.Dataset]:
    """The forcing in pieces of whole intervals and, if asked, of months, small enough to be copied."""
    whole = max(interval // seconds, 1)
    most = max(whole, int(_COPIED / (8 * len(weather.DAILY_ROWS) * forcing.sizes["cell"])) // whole * whole)
    times = forcing["time"].values
    edges = [0]
    if monthly:
        month = times[::whole].astype("datetime64[M]")  # an interval has the month it begins in, whoever asks
        edges += [int(at) * whole for at in np.flatnonzero(month[1:] != month[:-1]) + 1]
    edges.append(times.size)
    for first, last in pairwise(edges):
        for at in range(first, last, most):
            yield forcing.isel(time=slice(at, min(at + most, last)))


def _given(forcing: xr.Dataset, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The named variables, (time, cell) float64: NaN what is not there, rain and snow by air temperature."""
    values = {}
    for name in names:
        if name in forcing:
            values[name] = np.ascontiguousarray(forcing[name].values, dtype=np.float64)
    if names == weather.STEP_ROWS and inputs.phases(forcing) == (inputs.PRECIPITATION,):
        falls = forcing[inputs.PRECIPITATION].values.astype(np.float64)
        cold = forcing["air_temperature"].values < SNOW_BELOW
        values[inputs.RAIN], values[inputs.SNOWFALL] = np.where(cold, 0.0, falls), np.where(cold, falls, 0.0)
    elif inputs.PRECIPITATION in names and inputs.PRECIPITATION not in values:
        values[inputs.PRECIPITATION] = forcing[inputs.RAIN].values.astype(np.float64) + values[inputs.SNOWFALL]
    unknown = np.full((forcing.sizes["time"], forcing.sizes["cell"]), np.nan)
    return tuple(values.get(name, unknown) for name in names)


def _carbon(forcing: xr.Dataset, otherwise: float) -> np.ndarray:
    """Mole fraction of carbon dioxide by forcing time."""
    if CARBON_DIOXIDE not in forcing:
        return np.full(forcing.sizes["time"], otherwise)
    values = forcing[CARBON_DIOXIDE]
    if values.dims not in (("time",), ()):
        raise VariableError(f"dims of '{CARBON_DIOXIDE}'", expected="time", found=values.dims, where="forcing")
    inputs.check_values(CARBON_DIOXIDE, values.values, 1.5e-4, 2e-3, "forcing")
    return np.broadcast_to(values.values.astype(np.float64), (forcing.sizes["time"],))


def _site(table: xr.Dataset, parameters: xr.Dataset, topmodel: bool) -> np.ndarray:
    """SITE_ROWS of `march`, then latitude and longitude, (row, cell)."""
    lat, lon = table["lat"].values, table["lon"].values
    site = np.zeros((len(SITE_ROWS) + 2, lat.size))
    site[0], site[1], site[2] = np.sin(np.radians(lat)), np.cos(np.radians(lat)), lon / 360.0
    site[-2], site[-1] = lat, lon
    if topmodel:
        checks.check_present(parameters, TOPOGRAPHY, "parameters")
        mean, deviation, decay = (inputs.shaped(parameters, name, ("cell",), lat.shape) for name in TOPOGRAPHY)
        inputs.check_values("transmissivity_decay", decay, 1e-3, 1e3, "parameters")
        site[3], site[4] = mean, decay
        site[5], site[6] = fit_saturated_fraction(mean, deviation)
    return site


def _one_of(what: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise SettingsError(what, expected=", ".join(known), found=str(found))


def _seconds(what: str, length: str | np.timedelta64 | None) -> int | None:
    if length is None:
        return None
    try:
        return int(pd.Timedelta(length).total_seconds())
    except ValueError as err:
        raise SettingsError(what, expected="a length of time such as '1h'", found=str(length)) from err
