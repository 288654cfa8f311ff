"""A small case for tests of the JULES adapter: `case(cells, steps)` gives state, forcing and parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from twin.parameters import TILES
from twin.variables import VARIABLES

THETA, CANOPY, SNOW = "volume_fraction_of_condensed_water_in_soil", "canopy_water_amount", "surface_snow_amount"


def case(
    cells: int = 3, steps: int = 48, step: str = "1h", start: str = "2003-02-25", ice: bool = False
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Days around freezing with showers, on soils and tiles (lakes too) that differ from cell to cell."""
    rng, at = np.random.default_rng(7), (steps, cells)
    times = pd.date_range(start, periods=steps, freq=step)
    hour = (times.hour.values + times.minute.values / 60.0)[:, None]
    values = {
        "precipitation_flux": rng.exponential(5e-4, at) * (rng.random(at) < 0.3),
        "air_temperature": 276.0 + 6.0 * np.sin((hour - 9.0) * np.pi / 12.0) + rng.normal(0.0, 2.0, at),
        "specific_humidity": rng.uniform(0.003, 0.006, at),
        "wind_speed": rng.uniform(0.5, 8.0, at),
        "surface_air_pressure": np.full(at, 9.8e4),
        "surface_downwelling_shortwave_flux_in_air": np.maximum(0.0, 600.0 * np.sin((hour - 6.0) * np.pi / 12.0))
        * rng.uniform(0.3, 1.0, at),
        "surface_downwelling_longwave_flux_in_air": rng.uniform(250.0, 350.0, at),
    }
    lat, lon = np.linspace(-34.0, 51.0, cells), np.linspace(-17.0, 179.0, cells)
    place = {"lat": ("cell", lat), "lon": ("cell", lon)}
    forcing = xr.Dataset(
        {name: (("time", "cell"), data, {"units": VARIABLES[name].units}) for name, data in values.items()},
        {"time": times, **place},
    )
    fraction = np.concatenate([rng.dirichlet(np.ones(8), cells).T, np.zeros((1, cells))])
    fraction[1, 0] += fraction[2, 0]
    fraction[2, 0] = 0.0
    if ice:
        fraction[:, -1] = np.arange(9) == 8
    layered = {"b": (4.0, 9.0), "psi_s": (0.03, 0.3), "K_s": (1e-3, 2e-2), "theta_s": (0.36, 0.5)}
    layered |= {"theta_c": (0.2, 0.3), "theta_w": (0.08, 0.15)}
    soil = {name: (("layer", "cell"), rng.uniform(*bounds, (4, cells))) for name, bounds in layered.items()}
    soil |= {"heat_capacity": ("cell", np.full(cells, 1.2e6)), "heat_conductivity": ("cell", np.full(cells, 0.22))}
    soil |= {"soil_albedo": ("cell", np.full(cells, 0.17)), "tile_fraction": (("tile", "cell"), fraction)}
    parameters = xr.Dataset(soil, {"tile": list(TILES), **place})
    state = xr.Dataset(
        {
            THETA: (("layer", "cell"), rng.uniform(0.4, 1.0, (4, cells)) * parameters["theta_s"].values),
            CANOPY: (("tile", "cell"), rng.uniform(0.0, 0.3, (9, cells)) * (np.arange(9) < 5)[:, None]),
            SNOW: (("tile", "cell"), rng.uniform(0.0, 5.0, (9, cells))),
            "soil_temperature": (("layer", "cell"), rng.uniform(271.0, 285.0, (4, cells))),
            "surface_temperature": (("tile", "cell"), rng.uniform(271.0, 285.0, (9, cells))),
        },
        place,
    )
    return state, forcing, parameters
