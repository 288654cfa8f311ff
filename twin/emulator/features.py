"""What the trees are told of a cell's day: today's weather, its fading memories, the daily physics, soil and leaves.

    weather(day) ─┬────────────────────────────────────────────▸ row of FEATURES ─▸ trees
                  └▸ memory m += (1 − e^(−1/τ)) (x − m), O(1) a cell ─▸ ┘   ▲
    daily physics (its four layers, evaporation, runoff, snow) ─────────────┘

A new day needs yesterday's memories and nothing older. Rows are made a block of cells and some days at a time, while
they are in the processor's cache, so no table of them is ever held for a run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import xarray as xr

from twin.checks import check_present
from twin.emulator.physics import RESISTANCE, Surface, Transfer, carbon_of, soil_of, start_of, values_of
from twin.errors import VariableError
from twin.land.compiled import compiled, stage
from twin.land.daily import FORCING, SOIL, through
from twin.land.demand import DAY, demand
from twin.variables import LAYERS

MEMORY = "forcing_memory"  # (memory, cell) of a state
CORRECTION = "soil_moisture_correction"  # (layer, cell) of a state: emulated less the daily physics' soil moisture
YEAR = 365  # days whose mean is the memory of a state that has none
CROP_ALBEDO, CROP_RESISTANCE = 0.23, 70.0  # of the reference crop (Allen et al. 1998)


class Feature(NamedTuple):
    """One column: its name, unit, and what it is of: rain, heat, state, soil or leaves."""

    name: str
    units: str
    group: str


class Memory(NamedTuple):
    """A fading mean of something of each day: the column it is of, and its e-folding time in days."""

    of: str
    days: float

    @property
    def name(self) -> str:
        return f"{self.of}_{self.days:g}d"


TODAY = (
    Feature("precipitation", "kg m-2 day-1", "rain"),
    Feature("air_temperature", "K", "heat"),
    Feature("vapour_pressure_deficit", "Pa", "heat"),
    Feature("sunlight", "W m-2", "heat"),
    Feature("thermal_radiation", "W m-2", "heat"),
    Feature("wind_speed", "m s-1", "heat"),
    Feature("reference_evapotranspiration", "kg m-2 day-1", "heat"),
    Feature("wet_day", "1", "rain"),  # 1 on a day of 1 mm or more; only its memory is a column
    Feature("carbon_dioxide", "1", "leaves"),
)
_WET_DAY = 7
WET = 1.0  # kg m-2 of a wet day
MEMORIES = (
    *(Memory("precipitation", days) for days in (2.0, 5.0, 15.0, 30.0, 60.0, 150.0, 365.0)),
    *(Memory("reference_evapotranspiration", days) for days in (3.0, 15.0, 30.0, 60.0, 365.0)),
    *(Memory("air_temperature", days) for days in (5.0, 30.0)),
    Memory("vapour_pressure_deficit", 5.0),
    Memory("wet_day", 30.0),
)
PHYSICS = (
    *(Feature(f"physics_theta_{k + 1}", "m3 m-3", "state") for k in range(len(LAYERS))),
    Feature("physics_theta_1_yesterday", "m3 m-3", "state"),
    Feature("physics_evapotranspiration", "kg m-2 day-1", "state"),
    Feature("physics_runoff", "kg m-2 day-1", "state"),
    Feature("physics_snow", "kg m-2", "state"),
)
STATIC = (
    Feature("b", "1", "soil"),
    Feature("log_psi_s", "1", "soil"),
    Feature("log_K_s", "1", "soil"),
    *(Feature(name, "m3 m-3", "soil") for name in ("theta_s", "theta_c", "theta_w")),
    Feature("soil_conductance", "m s-1", "soil"),
    Feature("vegetation_cover", "1", "leaves"),
    Feature("leaf_area_index", "1", "leaves"),
    Feature("leaf_nitrogen", "1", "leaves"),
    Feature("internal_carbon", "1", "leaves"),
    Feature("root_depth", "m", "leaves"),
    Feature("surface_albedo", "1", "leaves"),
    Feature("canopy_capacity", "kg m-2", "leaves"),
    Feature("infiltration_factor", "1", "leaves"),
    *(Feature(f"{name}_share", "1", "leaves") for name in ("tree", "c4_grass", "shrub", "bare_soil")),
)
_TODAY = {feature.name: at for at, feature in enumerate(TODAY)}
FEATURES = (
    *(feature for feature in TODAY if feature.name != "wet_day"),
    *(Feature(m.name, TODAY[_TODAY[m.of]].units, TODAY[_TODAY[m.of]].group) for m in MEMORIES),
    *PHYSICS,
    *STATIC,
)
NAMES = tuple(feature.name for feature in FEATURES)
GROUPS = tuple(dict.fromkeys(feature.group for feature in FEATURES))

# columns of a row, in the order of FEATURES
_MEMORIES = len(TODAY) - 1
_PHYSICS = _MEMORIES + len(MEMORIES)
_STATIC = _PHYSICS + len(PHYSICS)
COLUMNS = _STATIC + len(STATIC)


@cache
def constants() -> tuple[np.ndarray, np.ndarray]:
    """What each memory is of, and the share e^(−1/τ) of it that a day leaves."""
    source = np.array([_TODAY[m.of] for m in MEMORIES], np.int64)
    return source, np.array([math.exp(-1.0 / m.days) for m in MEMORIES])


@compiled
def _today(forcing, carbon, t, first, n, today):
    """The columns TODAY of cells first..first + n, (column, cell)."""
    for i in range(n):
        j = first + i
        rain, temperature = DAY * float(forcing[0, t, j]), float(forcing[1, t, j])
        humidity, pressure = float(forcing[2, t, j]), float(forcing[4, t, j])
        sunlight, thermal = float(forcing[5, t, j]), float(forcing[6, t, j])
        a, b, c = demand(temperature, humidity, float(forcing[3, t, j]), pressure, sunlight, thermal, CROP_ALBEDO)
        # the slope that `demand` has in b, 4098 e_s/(t + 237.3)² kPa, back to e_s
        warmth = temperature - 273.15 + 237.3
        saturated = 1e3 * (b - 0.665e-6 * pressure) * warmth * warmth / 4098.0
        vapour = humidity * pressure / (0.622 + 0.378 * humidity)
        today[0, i] = rain
        today[1, i] = temperature
        today[2, i] = max(saturated - vapour, 0.0)
        today[3, i] = sunlight
        today[4, i] = thermal
        today[5, i] = float(forcing[3, t, j])
        today[6, i] = a / (b + c * CROP_RESISTANCE)
        today[7, i] = 1.0 if rain >= WET else 0.0
        today[8, i] = carbon[t]


@stage
def rows(forcing, carbon, physics, static, memory, kept, source, today, day, days, first, n, out):
    """Rows of `days` days from `day` on for cells first..first + n, (column, row) float32, day by day.

    forcing   (7, time, cell) in the order of FORCING; carbon (time); physics (8, time, cell) in the order of PHYSICS;
              static (column, cell); memory (memory, cell) float64, of the day before, is changed; today (9, n or more)
    """
    for t in range(day, day + days):
        _today(forcing, carbon, t, first, n, today)
        row = (t - day) * n
        at = 0
        for k in range(9):
            if k != _WET_DAY:
                for i in range(n):
                    out[at, row + i] = today[k, i]
                at += 1
        for m in range(kept.size):
            keep, of = kept[m], source[m]
            for i in range(n):
                value = keep * memory[m, first + i] + (1.0 - keep) * today[of, i]
                memory[m, first + i] = value
                out[at, row + i] = value
            at += 1
        for k in range(physics.shape[0]):
            for i in range(n):
                out[at, row + i] = physics[k, t, first + i]
            at += 1
        for k in range(static.shape[0]):
            for i in range(n):
                out[at, row + i] = static[k, first + i]
            at += 1


@stage
def _means(forcing, carbon, source, today, out):
    """Mean over all days of what each memory is of, (memory, cell)."""
    days, cells = forcing.shape[1:]
    for t in range(days):
        _today(forcing, carbon, t, 0, cells, today)
        for m in range(source.size):
            for i in range(cells):
                out[m, i] += today[source[m], i] / days


@dataclass(frozen=True, eq=False)
class Place:
    """What is known of some cells for good: constants of the daily physics, and the columns that do not change.

    soils (7, layer, cell) and surfaces (6, cell) as `twin.land.daily.through` takes them, under present carbon dioxide;
    static (column, cell); pores (layer, cell), m3 m-3; tile_fraction (tile, cell)
    """

    soils: np.ndarray
    surfaces: np.ndarray
    static: np.ndarray
    pores: np.ndarray
    tile_fraction: np.ndarray
    transfer: Transfer

    @classmethod
    def of(cls, parameters: xr.Dataset, transfer: Transfer) -> Place:
        """Of parameters with surface types. VariableError for one that is missing or not finite."""
        check_present(parameters, tuple(name for name in SOIL if name != "root_fraction"), "parameters")
        surface = Surface.of(parameters)
        surfaces, roots = transfer.of(surface)
        soils = np.concatenate([soil_of(parameters), roots[None]]).astype(np.float32)
        columns = static(soils, surface)
        if not np.isfinite(columns).all():
            column, cell = (int(i) for i in np.argwhere(~np.isfinite(columns))[0])
            what = f"feature '{STATIC[column].name}'"
            raise VariableError(what, expected="a finite value", found=columns[column, cell], where=f"cell {cell}")
        share = values_of(parameters, "tile_fraction", "tile", "cell")
        return cls(soils, surfaces.astype(np.float32), columns, soils[SOIL.index("theta_s")], share, transfer)


@dataclass(frozen=True, eq=False)
class Table:
    """What rows are made of, as arrays: see `rows`."""

    forcing: np.ndarray
    carbon: np.ndarray
    physics: np.ndarray
    static: np.ndarray
    memory: np.ndarray

    def matrix(self) -> np.ndarray:
        """All rows, (time · cell, column) float32, day by day; the memories go on to the last day."""
        days, cells = self.forcing.shape[1:]
        out = np.empty((COLUMNS, days * cells), np.float32)
        source, kept = constants()
        today = np.empty((len(TODAY), cells))
        arrays = self.forcing, self.carbon, self.physics, self.static, self.memory
        rows(*arrays, kept, source, today, 0, days, 0, cells, out)
        return out.T


def _weather(forcing: xr.Dataset) -> np.ndarray:
    return np.stack([values_of(forcing, name, "time", "cell").astype(np.float32, copy=False) for name in FORCING])


def means(forcing: xr.Dataset) -> np.ndarray:
    """Memories that know nothing but the mean of some forcing, (memory, cell)."""
    cells = forcing.sizes["cell"]
    out, today = np.zeros((len(MEMORIES), cells)), np.empty((len(TODAY), cells))
    _means(_weather(forcing), carbon_of(forcing), constants()[0], today, out)
    return out


MEMORY_NAMES = " ".join(memory.name for memory in MEMORIES)  # the attribute `names` of a state's memories


def memory_of(state: xr.Dataset) -> np.ndarray | None:
    """The memories a state holds, (memory, cell) in the order of MEMORIES; None where it has none.

    Raises VariableError for those of another set.
    """
    if MEMORY not in state:
        return None
    found = state.variables[MEMORY].attrs.get("names", "no names")
    if found != MEMORY_NAMES or state.sizes["memory"] != len(MEMORIES):
        raise VariableError(f"'{MEMORY}' of the state", expected=MEMORY_NAMES, found=found)
    return np.asarray(values_of(state, MEMORY, "memory", "cell"), np.float64)


def static(soils: np.ndarray, surface: Surface) -> np.ndarray:
    """The columns STATIC of every cell, (column, cell) float32; of soil by layers, the first's."""
    top = dict(zip(SOIL, soils[:, 0], strict=True))
    columns: Mapping[str, np.ndarray] = {
        "b": top["b"],
        "log_psi_s": np.log(top["psi_s"]),
        "log_K_s": np.log(top["K_s"]),
        "theta_s": top["theta_s"],
        "theta_c": top["theta_c"],
        "theta_w": top["theta_w"],
        "soil_conductance": surface.soil_conductance,
        "vegetation_cover": surface.cover,
        "leaf_area_index": surface.leaf_area_index,
        "leaf_nitrogen": surface.nitrogen,
        "internal_carbon": surface.internal,
        "root_depth": surface.root_depth,
        "surface_albedo": surface.albedo,
        "canopy_capacity": surface.canopy_capacity,
        "infiltration_factor": surface.infiltration_factor,
        "tree_share": surface.types[0],
        "c4_grass_share": surface.types[1],
        "shrub_share": surface.types[2],
        "bare_soil_share": surface.types[3],
    }
    return np.stack([columns[feature.name] for feature in STATIC]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The daily physics' run, and the table of rows that follows from it.

    end   theta (layer, cell), canopy and snow (cell), float64; run the same of every day, then evaporation and runoff
    """

    end: tuple[np.ndarray, ...]
    run: tuple[np.ndarray, ...]
    table: Table


def prepared(place: Place, state: xr.Dataset, forcing: xr.Dataset, threads: int = 0) -> Prepared:
    """The daily physics through the forcing, from a state as `Emulator.run` takes it."""
    theta, canopy, snow = start_of(state, place.tile_fraction)
    if CORRECTION in state:
        theta = theta - values_of(state, CORRECTION, "layer", "cell")
    theta = np.clip(theta, 0.0, 1.0)
    weather = _weather(forcing)
    memory = memory_of(state)
    if memory is None:
        memory = means(forcing.isel(time=slice(0, YEAR)))
    start = theta, canopy, snow
    carbon = carbon_of(forcing)
    end, run = _through(place, weather, start, carbon, threads or os.cpu_count() or 1)
    thetas, _, snows, evaporation, runoff = run
    yesterday = np.concatenate([theta[None, 0].astype(np.float32), thetas[:-1, 0]])
    physics = np.stack([*thetas.transpose(1, 0, 2), yesterday, evaporation * DAY, runoff * DAY, snows])
    return Prepared(end, run, Table(weather, carbon, physics, place.static, np.array(memory, np.float64)))


def _through(
    place: Place, weather: np.ndarray, start: tuple[np.ndarray, ...], carbon: np.ndarray, threads: int
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """`twin.land.daily.through`, cut where the carbon dioxide changes enough for the leaves to notice."""
    factor = place.transfer.resistance_under(carbon).astype(np.float32)
    edges = np.flatnonzero(np.diff(factor, prepend=np.float32(-1.0), append=np.float32(-1.0)))
    parts, end = [], start
    for first, last in pairwise(edges):
        surfaces = place.surfaces.copy()
        surfaces[RESISTANCE] *= factor[first]
        end, run = through([values[first:last] for values in weather], end, place.soils, surfaces, threads)
        parts.append(run)
    return end, parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))
