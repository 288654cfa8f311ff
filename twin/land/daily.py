"""The fast tier: one surface balance a day over the four-layer Richards soil.

Demand is FAO-56 Penman-Monteith; roots take water as JULES' beta allows; the soil does not freeze. Cells exchange
nothing, so they are stepped in blocks, by as many threads as there are cores, with the same bits as one by one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, SettingsError, VariableError
from twin.inputs import CANOPY, SNOW, THETA
from twin.land import soil
from twin.land.compiled import BLOCK, compiled, single
from twin.land.demand import DAY, SNOW_BELOW, demand, fast_runoff, leaves, snow_albedo, snow_cover, snowpack
from twin.land.soil import advance
from twin.land.threads import spread
from twin.variables import LAYERS, VARIABLES

FORCING = (
    "precipitation_flux",
    "air_temperature",
    "specific_humidity",
    "wind_speed",
    "surface_air_pressure",
    "surface_downwelling_shortwave_flux_in_air",
    "surface_downwelling_longwave_flux_in_air",
)
SOIL = ("b", "psi_s", "K_s", "theta_s", "theta_c", "theta_w", "root_fraction")  # by layer
SURFACE = (
    "canopy_capacity",
    "vegetation_cover",
    "albedo",
    "surface_resistance",
    "soil_resistance",
    "infiltration_factor",
)
EVAPORATION, RUNOFF = "water_evapotranspiration_flux", "runoff_flux"

# Rows of a block's work array after those of the soil.
_ROW = soil.ROWS
_FORCING = _ROW  # 0..6 in the order of FORCING
_SURFACE = _ROW + 7  # 0..5 in the order of SURFACE
_WILT, _CRIT, _ROOT = _ROW + 13, _ROW + 17, _ROW + 21  # by layer: kg m-2, kg m-2, 1
_CANOPY, _SNOW = _ROW + 25, _ROW + 26  # kg m-2
_A, _B, _C = _ROW + 27, _ROW + 28, _ROW + 29  # Penman-Monteith's terms on the dry, snow-free part of the cell
_SPENT, _FAST, _STEPS = _ROW + 30, _ROW + 31, _ROW + 32  # evaporated so far, run off at once (kg m-2), sub-steps
_ROWS = _ROW + 33

_WET_STEP = 0.3  # infiltration per sub-step, as a share of what the top layer holds
_FEWEST_STEPS, _MOST_STEPS = 2.0, 24.0  # against 400 a day: 0.0016 m3 m-3 in the top layer, 0.6 % of the runoff


@compiled
def _surface_day(w):
    """The surface's day for every cell of the block: what is left of the demand, and what reaches the soil."""
    for i in range(BLOCK):
        rate = DAY * w[_FORCING * BLOCK + i]
        temperature = w[(_FORCING + 1) * BLOCK + i]
        snowfall = rate if temperature < SNOW_BELOW else 0.0
        cover = snow_cover(w[_SNOW * BLOCK + i] + snowfall)
        a, b, c = demand(
            temperature,
            w[(_FORCING + 2) * BLOCK + i],
            w[(_FORCING + 3) * BLOCK + i],
            w[(_FORCING + 4) * BLOCK + i],
            w[(_FORCING + 5) * BLOCK + i],
            w[(_FORCING + 6) * BLOCK + i],
            snow_albedo(w[(_SURFACE + 2) * BLOCK + i], cover),
        )
        wet = a / b
        snow, melt, sublimation = snowpack(w[_SNOW * BLOCK + i], snowfall, temperature, cover * wet)
        bare = (1.0 - cover) * wet
        canopy, throughfall, intercepted = leaves(
            w[_CANOPY * BLOCK + i], w[_SURFACE * BLOCK + i], rate - snowfall, bare
        )
        left = 1.0 - intercepted / bare if bare > 0.0 else 0.0
        arriving = throughfall + melt
        fast = fast_runoff(arriving, w[(_SURFACE + 5) * BLOCK + i] * w[soil.K * BLOCK + i])
        infiltration = arriving - fast
        w[_SNOW * BLOCK + i] = snow
        w[_CANOPY * BLOCK + i] = canopy
        w[_A * BLOCK + i] = (1.0 - cover) * left * a
        w[_B * BLOCK + i] = b
        w[_C * BLOCK + i] = c
        w[_SPENT * BLOCK + i] = sublimation + intercepted
        w[_FAST * BLOCK + i] = fast
        w[soil.INFILTRATION * BLOCK + i] = infiltration
        w[soil.EXCESS * BLOCK + i] = 0.0
        w[soil.DRAINAGE * BLOCK + i] = 0.0
        steps = _FEWEST_STEPS + np.floor(infiltration / (_WET_STEP * w[soil.M * BLOCK + i]))
        w[_STEPS * BLOCK + i] = min(steps, _MOST_STEPS)


@compiled
def _sinks(w, step):
    """What roots and bare ground take in this sub-step, at most half of what each layer can give."""
    for i in range(BLOCK):
        steps = w[_STEPS * BLOCK + i]
        h = 1.0 / steps if step < steps else 0.0
        w[soil.STEP * BLOCK + i] = h
        a, b, c = w[_A * BLOCK + i], w[_B * BLOCK + i], w[_C * BLOCK + i]
        cover = w[(_SURFACE + 1) * BLOCK + i]
        x0 = w[soil.WATER * BLOCK + i] - w[_WILT * BLOCK + i]
        x1 = w[(soil.WATER + 1) * BLOCK + i] - w[(_WILT + 1) * BLOCK + i]
        x2 = w[(soil.WATER + 2) * BLOCK + i] - w[(_WILT + 2) * BLOCK + i]
        x3 = w[(soil.WATER + 3) * BLOCK + i] - w[(_WILT + 3) * BLOCK + i]
        t0 = w[_ROOT * BLOCK + i] * min(max(x0 / (w[_CRIT * BLOCK + i] - w[_WILT * BLOCK + i]), 0.0), 1.0)
        t1 = w[(_ROOT + 1) * BLOCK + i] * min(
            max(x1 / (w[(_CRIT + 1) * BLOCK + i] - w[(_WILT + 1) * BLOCK + i]), 0.0), 1.0
        )
        t2 = w[(_ROOT + 2) * BLOCK + i] * min(
            max(x2 / (w[(_CRIT + 2) * BLOCK + i] - w[(_WILT + 2) * BLOCK + i]), 0.0), 1.0
        )
        t3 = w[(_ROOT + 3) * BLOCK + i] * min(
            max(x3 / (w[(_CRIT + 3) * BLOCK + i] - w[(_WILT + 3) * BLOCK + i]), 0.0), 1.0
        )
        beta = t0 + t1 + t2 + t3
        # transpiration a β / (b β + c r), shared as each layer's root fraction times its own beta
        per_beta = cover * a / (b * beta + c * w[(_SURFACE + 3) * BLOCK + i])
        half = 0.5 * steps
        t0 = min(t0 * per_beta, half * max(x0, 0.0))
        t1 = min(t1 * per_beta, half * max(x1, 0.0))
        t2 = min(t2 * per_beta, half * max(x2, 0.0))
        t3 = min(t3 * per_beta, half * max(x3, 0.0))
        # bare ground dries its layer to half of wilting point (Allen et al. 1998, eq. 73)
        wet = min(w[soil.WATER * BLOCK + i] / w[_CRIT * BLOCK + i], 1.0)
        wet = wet * wet
        spare = w[soil.WATER * BLOCK + i] - 0.5 * w[_WILT * BLOCK + i]
        ground = (1.0 - cover) * a * wet / (b * wet + c * w[(_SURFACE + 4) * BLOCK + i])
        t0 = t0 + min(ground, half * max(spare, 0.0))
        w[soil.SINK * BLOCK + i] = t0
        w[(soil.SINK + 1) * BLOCK + i] = t1
        w[(soil.SINK + 2) * BLOCK + i] = t2
        w[(soil.SINK + 3) * BLOCK + i] = t3
        w[_SPENT * BLOCK + i] += h * (t0 + t1 + t2 + t3)


@compiled
def _load(w, theta, canopy, snow, soils, surfaces, dz, cell, n):
    """State and parameters of cells cell..cell+n into the work array; unused places repeat the first cell."""
    for i in range(BLOCK):
        j = cell + (i if i < n else 0)
        for k in range(4):
            m = 1000.0 * dz[k]
            w[(soil.WATER + k) * BLOCK + i] = m * theta[k, j]
            w[(soil.B + k) * BLOCK + i] = soils[0, k, j]
            w[(soil.PSI + k) * BLOCK + i] = soils[1, k, j]
            w[(soil.K + k) * BLOCK + i] = DAY * soils[2, k, j]
            w[(soil.M + k) * BLOCK + i] = m * soils[3, k, j]
            w[(_CRIT + k) * BLOCK + i] = m * soils[4, k, j]
            w[(_WILT + k) * BLOCK + i] = m * soils[5, k, j]
            w[(_ROOT + k) * BLOCK + i] = soils[6, k, j]
        for p in range(6):
            w[(_SURFACE + p) * BLOCK + i] = surfaces[p, j]
        w[_CANOPY * BLOCK + i] = canopy[j]
        w[_SNOW * BLOCK + i] = snow[j]


@compiled
def _march(
    forcing, theta, canopy, snow, soils, surfaces, dz, thetas, canopies, snows, evaporation, runoff, first, last
):
    """Every day of `forcing` for cells first..last: changes the state in place and fills the diagnostics.

    forcing (7, time, cell), theta (4, cell), canopy and snow (cell), soils (7, 4, cell), surfaces (6, cell), dz (4);
    thetas (time, 4, cell), canopies, snows, evaporation, runoff (time, cell). Water in kg m-2, fluxes in kg m-2 s-1.
    """
    w = np.zeros(_ROWS * BLOCK, thetas.dtype)
    for cell in range(first, last, BLOCK):
        n = min(BLOCK, last - cell)
        _load(w, theta, canopy, snow, soils, surfaces, dz, cell, n)
        for day in range(forcing.shape[1]):
            for f in range(7):
                for i in range(BLOCK):
                    w[(_FORCING + f) * BLOCK + i] = forcing[f, day, cell + (i if i < n else 0)]
            _surface_day(w)
            most = 1.0
            for i in range(BLOCK):
                most = max(most, w[_STEPS * BLOCK + i])
            for step in range(int(most)):
                _sinks(w, float(step))
                advance(w)
            # the state that goes on is the one that is written, so that a restart finds the same bits
            for k in range(4):
                m = 1000.0 * dz[k]
                for i in range(n):
                    value = w[(soil.WATER + k) * BLOCK + i] / m
                    thetas[day, k, cell + i] = value
                    theta[k, cell + i] = value
                for i in range(BLOCK):
                    w[(soil.WATER + k) * BLOCK + i] = m * (w[(soil.WATER + k) * BLOCK + i] / m)
            for i in range(n):
                canopies[day, cell + i] = w[_CANOPY * BLOCK + i]
                snows[day, cell + i] = w[_SNOW * BLOCK + i]
                evaporation[day, cell + i] = w[_SPENT * BLOCK + i] / DAY
                run = w[_FAST * BLOCK + i] + w[soil.EXCESS * BLOCK + i] + w[soil.DRAINAGE * BLOCK + i]
                runoff[day, cell + i] = run / DAY
        for i in range(n):
            canopy[cell + i] = w[_CANOPY * BLOCK + i]
            snow[cell + i] = w[_SNOW * BLOCK + i]


class LandDaily:
    """LandModel at daily steps: FAO-56 demand, interception, snow, JULES' beta, four-layer Richards soil.

    threads     how many cores to use; all of them by default. Results do not depend on it.
    precision   "double", or "single" for speed
    """

    name = "land-daily"
    version = "1.0.0"

    def __init__(self, threads: int | None = None, *, precision: str = "double") -> None:
        if precision not in ("double", "single"):
            raise SettingsError("precision", expected="double, single", found=precision)
        self.threads = threads or os.cpu_count() or 1
        self.precision = precision

    def run(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """See `twin.model.LandModel.run`; the step must be one day."""
        check_days(forcing)
        check_cells(forcing, state, parameters)
        checks.check_dataset(forcing, FORCING, "forcing", missing=False)
        checks.check_dataset(state, (THETA, CANOPY, SNOW), "state", time=False, missing=False)
        cells = forcing.sizes["cell"]
        start = tuple(_state(state, name, cells) for name in (THETA, CANOPY, SNOW))
        soils, surfaces = constants(parameters, cells)
        weather = [forcing[name].values for name in FORCING]
        (theta, canopy, snow), (thetas, canopies, snows, evaporation, runoff) = through(
            weather, start, soils, surfaces, self.threads, np.float64 if self.precision == "double" else np.float32
        )
        place = {name: forcing[name] for name in ("lat", "lon") if name in forcing.coords}
        end = xr.Dataset({THETA: (("layer", "cell"), theta), CANOPY: ("cell", canopy), SNOW: ("cell", snow)}, place)
        named = {THETA: thetas, CANOPY: canopies, SNOW: snows, EVAPORATION: evaporation, RUNOFF: runoff}
        variables = {name: (VARIABLES[name].dims, values) for name, values in named.items()}
        diagnostics = xr.Dataset(variables, {"time": forcing["time"], **place})
        for data in (end, diagnostics):
            for name in data.data_vars:
                data[name].attrs.update(VARIABLES[str(name)].attrs)
        return end, diagnostics


def constants(parameters: xr.Dataset, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """(soils (7, 4, cell), surfaces (6, cell)) float64: the parameters in the order of SOIL and of SURFACE.

    Raises VariableError for one that is not there or of other cells, RangeError for one that is not finite.
    """
    soils = np.stack([_parameter(parameters, name, (len(LAYERS), cells)) for name in SOIL])
    return soils, np.stack([_parameter(parameters, name, (cells,)) for name in SURFACE])


def through(
    weather: Sequence[np.ndarray],
    start: Sequence[np.ndarray],
    soils: np.ndarray,
    surfaces: np.ndarray,
    threads: int,
    real: type[np.floating] = np.float32,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The model without its labels and checks, for what calls it often: (end of start's variables, their days).

    weather   seven arrays (time, cell) in the order of FORCING; start theta (layer, cell), canopy and snow (cell),
              float64, are not changed; soils and surfaces as `constants` gives them
    returns   float64, and of type `real`: theta (time, layer, cell), canopy, snow, evaporation and runoff (time, cell)
    """
    days, cells = weather[0].shape
    theta, canopy, snow = (np.array(values, dtype=np.float64, order="C") for values in start)
    march = _march if real is np.float64 else single(_march)
    soils, surfaces = soils.astype(real, copy=False), surfaces.astype(real, copy=False)
    thetas = np.empty((days, len(LAYERS), cells), real)
    canopies, snows, evaporation, runoff = series = tuple(np.empty((days, cells), real) for _ in range(4))
    for first in range(0, days, _batch(cells)):
        part = slice(first, first + _batch(cells))
        some = np.stack([np.asarray(values[part], dtype=real) for values in weather])
        values = (some, theta, canopy, snow, soils, surfaces, np.array(LAYERS, real), thetas[part])
        spread(partial(march, *values, *(flux[part] for flux in series)), cells, threads)
    return (theta, canopy, snow), (thetas, canopies, snows, evaporation, runoff)


def _batch(cells: int) -> int:
    """How many days of forcing are copied at a time: 100 MB of them."""
    return max(1, 1_800_000 // cells)


def check_days(forcing: xr.Dataset) -> None:
    """Refuse a step other than one day, and gaps."""
    checks.check_present(forcing, ("time",), "forcing")
    steps = np.unique(np.diff(forcing["time"].values.astype("datetime64[ns]")))
    if forcing.sizes["time"] == 0 or (len(steps) and (len(steps) > 1 or steps[0] != np.timedelta64(1, "D"))):
        found = ", ".join(str(step.astype("timedelta64[s]")) for step in steps[:3]) or "no day"
        raise RangeError("time step", expected="1 day, without gaps", found=found, where="forcing")


def check_cells(forcing: xr.Dataset, *others: xr.Dataset) -> None:
    """Refuse a state or parameters of other cells, where both say where they are (float32 rounding apart)."""
    for other in others:
        for name in {"lat", "lon"} & set(forcing.coords) & set(other.coords):
            mine, theirs = forcing[name].values, other[name].values
            if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=0.0, atol=1e-3):
                raise VariableError(f"'{name}'", expected="the cells of the forcing", found="other cells")


def _state(state: xr.Dataset, name: str, cells: int) -> np.ndarray:
    """A float64 copy of a state variable, for `cells` cells."""
    values = np.array(state[name].transpose("layer", "cell", missing_dims="ignore").values, dtype=np.float64, order="C")
    if values.shape[-1] != cells or (values.ndim == 2 and values.shape[0] != 4):
        expected = (4, cells) if values.ndim == 2 else (cells,)
        raise VariableError(f"state '{name}'", expected=f"shape {expected}", found=f"shape {values.shape}")
    return values


def _parameter(parameters: xr.Dataset, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter as float64 of `shape`, (4, cell) or (cell); the same in every layer where it has no layer."""
    checks.check_present(parameters, (name,), "parameters")
    values = parameters[name].transpose("layer", "cell", missing_dims="ignore").values.astype(np.float64)
    if values.shape not in (shape, shape[-1:]):
        raise VariableError(f"parameter '{name}'", expected=f"shape {shape}", found=f"shape {values.shape}")
    if not np.isfinite(values).all():
        cell = int(np.argwhere(~np.isfinite(values))[0][-1])
        raise RangeError(f"parameter '{name}'", expected="finite", found="nan or infinite", where=f"cell {cell}")
    return np.broadcast_to(values, shape)
