"""What can be emulated, and of which column of the features each is a correction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from twin.emulator.features import NAMES
from twin.errors import VariableError
from twin.inputs import SNOW, SOIL_TEMPERATURE, THETA
from twin.land.daily import EVAPORATION
from twin.land.demand import DAY
from twin.variables import LAYERS

GPP = "gross_primary_productivity_of_biomass_expressed_as_carbon"


class Output(NamedTuple):
    """Something emulated: variable and layer, the column it corrects, and its unit there in the variable's."""

    name: str
    variable: str
    layer: int | None = None
    base: str = ""
    scale: float = 1.0


OUTPUTS = {
    output.name: output
    for output in (
        *(Output(f"theta_{k + 1}", THETA, k, f"physics_theta_{k + 1}") for k in range(len(LAYERS))),
        Output("evapotranspiration", EVAPORATION, None, "physics_evapotranspiration", DAY),
        Output("gross_primary_productivity", GPP, None, "", 1e3 * DAY),  # g m-2 day-1
        Output("soil_temperature_1", SOIL_TEMPERATURE, 0, "air_temperature"),
        Output("soil_temperature_2", SOIL_TEMPERATURE, 1, "air_temperature_5d"),
        Output("soil_temperature_3", SOIL_TEMPERATURE, 2, "air_temperature_30d"),
        Output("soil_temperature_4", SOIL_TEMPERATURE, 3, "air_temperature_30d"),
        Output("snow", SNOW, None, "physics_snow"),
    )
}
SOIL_MOISTURE = tuple(name for name, output in OUTPUTS.items() if output.variable == THETA)


def base_of(name: str, hybrid: bool) -> int:
    """The column an output is a correction of, -1 where the trees say all of it."""
    base = OUTPUTS[name].base
    return NAMES.index(base) if hybrid and base else -1


def target(name: str, truth: xr.Dataset, parameters: xr.Dataset) -> np.ndarray:
    """The true values of an output, (time, cell), in its unit; of surface types, the cell's mean.

    Raises VariableError where the truth does not hold it.
    """
    output = OUTPUTS[name]
    if output.variable not in truth:
        found = ", ".join(map(str, truth.data_vars))
        raise VariableError(f"truth of output '{name}'", expected=output.variable, found=found)
    values = truth[output.variable]
    if "tile" in values.dims:
        values = (values * parameters["tile_fraction"]).sum("tile")
    if output.layer is not None:
        values = values.isel(layer=output.layer)
    return values.transpose("time", "cell").values * output.scale
