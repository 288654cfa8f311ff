"""The state of the land: where it starts, how it forgets where it started, and its root zone.

A state is a Dataset, float64, at an instant: `volume_fraction_of_condensed_water_in_soil` (layer, cell), m3 m-3, with
`canopy_water_amount` and `surface_snow_amount`, kg m-2, by (cell), or by (tile, cell) where the model knows surface
types; such a model's state also has `soil_temperature` (layer, cell) and `surface_temperature` (tile, cell), K, and
with TOPMODEL `deep_saturation` (cell), 1, and `water_table_depth` (cell), m. A model may add what else it needs.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import SettingsError, VariableError
from twin.inputs import CANOPY, DEEP, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA
from twin.model import LandModel
from twin.variables import LAYERS, ROOT_ZONE, VARIABLES

DEEP_STORE = 3.0  # depth of TOPMODEL's store below the layers, m, unless told


def initial(parameters: xr.Dataset, saturation: float = 0.6, temperature: ArrayLike | None = None) -> xr.Dataset:
    """Every layer at `saturation` (fraction of pore space), no snow, dry leaves.

    temperature   K, (cell) or one for all, of every layer and surface; asked of parameters with surface types only
                  (`tile_fraction`). Without it the model starts from the air's of its first step
    Raises SettingsError unless 0 < saturation ≤ 1.
    """
    if not 0.0 < saturation <= 1.0:
        raise SettingsError("initial saturation", expected="above 0, up to 1", found=saturation)
    cells, layered = parameters.sizes["cell"], ("layer", "cell")
    pores = parameters["theta_s"].transpose(*layered, missing_dims="ignore").values
    theta = np.broadcast_to(saturation * pores, (len(LAYERS), cells)).astype(np.float64)
    surface: tuple[str, ...] = ("cell",)
    if "tile_fraction" in parameters:
        surface = ("tile", "cell")
    shape = tuple(parameters.sizes[dim] for dim in surface)
    values = {THETA: (layered, theta), CANOPY: (surface, np.zeros(shape)), SNOW: (surface, np.zeros(shape))}
    if "tile_fraction" in parameters and temperature is not None:
        warmth = np.broadcast_to(np.asarray(temperature, dtype=np.float64), (cells,))
        values[SOIL_TEMPERATURE] = layered, np.broadcast_to(warmth, theta.shape).copy()
        values[SURFACE_TEMPERATURE] = surface, np.broadcast_to(warmth, shape).copy()
    place = {name: parameters[name] for name in ("lat", "lon") if name in parameters.coords}
    return xr.Dataset({name: (*value, VARIABLES[name].attrs) for name, value in values.items()}, place)


def water(state: xr.Dataset, parameters: xr.Dataset | None = None, deep_store: float = DEEP_STORE) -> xr.DataArray:
    """All water of each cell, kg m-2: soil, leaves and snow, and TOPMODEL's deep store.

    parameters   needed where the state has surface types (for `tile_fraction`) or a deep store (`theta_s` of the last
                 layer); deep_store is its depth, m. Raises VariableError without them
    """
    depth = xr.DataArray(1000.0 * np.array(LAYERS), dims="layer")
    stored = (state[THETA] * depth).sum("layer")
    above = state[CANOPY] + state[SNOW]
    if parameters is None and ("tile" in above.dims or DEEP in state):
        raise VariableError("water of a state", expected="the parameters of its surface types", found="none")
    if parameters is not None and "tile" in above.dims:
        fraction = parameters["tile_fraction"].transpose("tile", "cell").values
        above = (above * xr.DataArray(fraction, dims=("tile", "cell"))).sum("tile")
    stored = stored + above
    if parameters is not None and DEEP in state:
        pores = parameters["theta_s"].transpose("layer", "cell", missing_dims="ignore").values
        stored = stored + 1000.0 * deep_store * state[DEEP] * np.atleast_2d(pores)[-1]
    return xr.DataArray(stored, name="water", attrs={"units": "kg m-2"})


def root_zone(theta: xr.DataArray) -> xr.DataArray:
    """Mean soil moisture of the top metre, m3 m-3: dims of `theta` without `layer`; NaN where a layer is NaN."""
    axis = theta.dims.index("layer")
    layers = [theta.isel(layer=k).variable * LAYERS[k] for k in range(ROOT_ZONE)]
    mean = sum(layers[1:], layers[0]) / sum(LAYERS[:ROOT_ZONE])
    values = mean.data.astype(theta.dtype, copy=False)
    dims = theta.dims[:axis] + theta.dims[axis + 1 :]
    coords = {name: c for name, c in theta.coords.items() if "layer" not in c.dims}
    variable = VARIABLES["root_zone_soil_moisture"]
    return xr.DataArray(values, coords, dims, variable.name, variable.attrs)


def spin_up(
    model: LandModel,
    state: xr.Dataset,
    forcing_year: xr.Dataset,
    parameters: xr.Dataset,
    cycles: int = 20,
    tolerance: float = 1.0,
    temperature_tolerance: float = 0.1,
) -> xr.Dataset:
    """The state after repeating `forcing_year` until it no longer remembers its start.

    A cell has settled when over one cycle no soil layer's water changed by more than `tolerance` (kg m-2) nor, where
    the state has one, its temperature by more than `temperature_tolerance` (K); cycles end when all cells have, or
    after `cycles`. The attributes say what happened: spin_up_cycles, spin_up_tolerance, spin_up_unsettled (cells still
    changing), spin_up_change (the largest of the last cycle, kg m-2), and of temperatures
    spin_up_temperature_tolerance and spin_up_temperature_change (K).
    """
    depth = 1000.0 * np.array(LAYERS)[:, None]
    wetter = warmer = np.full(state.sizes["cell"], np.inf)
    done, unsettled = 0, np.ones(state.sizes["cell"], bool)
    while done < cycles and unsettled.any():
        before = state
        state, _ = model.run(state, forcing_year, parameters)
        wetter = np.abs(depth * (state[THETA].values - before[THETA].values)).max(axis=0)
        unsettled = wetter > tolerance
        if SOIL_TEMPERATURE in state:
            if SOIL_TEMPERATURE in before:
                warmer = np.abs(state[SOIL_TEMPERATURE].values - before[SOIL_TEMPERATURE].values).max(axis=0)
            unsettled = unsettled | (warmer > temperature_tolerance)
        done += 1
    told = {
        "spin_up_cycles": done,
        "spin_up_tolerance": float(tolerance),
        "spin_up_unsettled": int(unsettled.sum()),
        "spin_up_change": float(wetter.max(initial=0.0)),
    }
    if SOIL_TEMPERATURE in state:
        told["spin_up_temperature_tolerance"] = float(temperature_tolerance)
        told["spin_up_temperature_change"] = float(warmer.max(initial=0.0))
    return state.assign_attrs(told)
