"""The state of the land: where it starts, how it forgets where it started, and its root zone.

A state is a Dataset with `volume_fraction_of_condensed_water_in_soil` (layer, cell), m3 m-3, `canopy_water_amount` and
`surface_snow_amount` (cell), kg m-2; float64, at an instant.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from twin.errors import SettingsError
from twin.model import LandModel
from twin.variables import LAYERS, ROOT_ZONE, VARIABLES

THETA, CANOPY, SNOW = "volume_fraction_of_condensed_water_in_soil", "canopy_water_amount", "surface_snow_amount"


def initial(parameters: xr.Dataset, saturation: float = 0.6) -> xr.Dataset:
    """Every layer at `saturation` (fraction of pore space), no snow, dry leaves.

    Raises SettingsError unless 0 < saturation ≤ 1.
    """
    if not 0.0 < saturation <= 1.0:
        raise SettingsError("initial saturation", expected="above 0, up to 1", found=saturation)
    pores = parameters["theta_s"].transpose("layer", "cell", missing_dims="ignore").values
    theta = np.broadcast_to(saturation * pores, (len(LAYERS), parameters.sizes["cell"])).astype(np.float64)
    nothing = np.zeros(parameters.sizes["cell"])
    place = {name: parameters[name] for name in ("lat", "lon") if name in parameters.coords}
    return xr.Dataset(
        {
            THETA: (("layer", "cell"), theta, VARIABLES[THETA].attrs),
            CANOPY: ("cell", nothing, VARIABLES[CANOPY].attrs),
            SNOW: ("cell", nothing.copy(), VARIABLES[SNOW].attrs),
        },
        place,
    )


def water(state: xr.Dataset) -> xr.DataArray:
    """All water of each cell, kg m-2: soil, leaves and snow."""
    depth = xr.DataArray(1000.0 * np.array(LAYERS), dims="layer")
    stored = (state[THETA] * depth).sum("layer") + state[CANOPY] + state[SNOW]
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
) -> xr.Dataset:
    """The state after repeating `forcing_year` until it no longer remembers its start.

    A cell has settled when no soil layer's water changed by more than `tolerance` (kg m-2) over one cycle; cycles end
    when all cells have, or after `cycles`. The attributes say what happened: spin_up_cycles, spin_up_tolerance,
    spin_up_unsettled (cells still changing) and spin_up_change (the largest change of the last cycle, kg m-2).
    """
    depth = 1000.0 * np.array(LAYERS)[:, None]
    change, done = np.full(state.sizes["cell"], np.inf), 0
    while done < cycles and (change > tolerance).any():
        before = state[THETA].values
        state, _ = model.run(state, forcing_year, parameters)
        change = np.abs(depth * (state[THETA].values - before)).max(axis=0)
        done += 1
    return state.assign_attrs(
        spin_up_cycles=done,
        spin_up_tolerance=float(tolerance),
        spin_up_unsettled=int((change > tolerance).sum()),
        spin_up_change=float(change.max(initial=0.0)),
    )
