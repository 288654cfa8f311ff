"""What a region starts from: its cells, its soils, and if it is simulated the reference its percentiles refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import ingest as reading
from infra.settings import Region, region_grid
from twin import climatology, state, synthetic
from twin import parameters as pedotransfer
from twin.errors import Rejected, SettingsError, Transient

SPIN_UP_YEARS = 6  # before the reference years
START = 0.3  # saturation before the spin-up: near what a desert keeps; wetter climates fill up within four years
LOAM = {"sand": 0.40, "silt": 0.40, "clay": 0.20}  # USDA loam, near the centroid of its class


def cells(services: Any, region: Region, arrivals: Iterable[Mapping[str, Any]]) -> xr.Dataset | None:
    """The region's grid with soil texture; None if its cells come from its source and nothing readable has arrived."""
    if region.grid == "source":
        for arrival in arrivals:
            try:
                found = reading.grid_of_source(arrival, region, services.settings)
            except (Rejected, Transient):
                continue  # the item meets the same error again in `ingest`, which records it
            return _with_soil(found, reading.soil_of_source(arrival["source"], region, found))
        return None
    found = region_grid(region)
    soil = synthetic.soils(found, _seed(region)) if region.soil == "synthetic" else found
    return _with_soil(found, soil)


def _with_soil(found: xr.Dataset, soil: Mapping[str, Any] | xr.Dataset) -> xr.Dataset:
    texture = {
        name: soil[name] if name in soil else ("cell", np.full(found.sizes["cell"], share))
        for name, share in LOAM.items()
    }
    return found.assign(texture)


def _seed(region: Region) -> int:
    if region.seed is None:
        raise SettingsError(f"region {region.name}", expected="a seed for what is simulated", found="none")
    return region.seed


def parameters(found: xr.Dataset) -> xr.Dataset:
    """Soil and vegetation parameters of the region's cells."""
    return pedotransfer.from_texture(found["sand"], found["silt"], found["clay"])


def simulated_reference(services: Any, region: Region, found: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The climatology of the simulated climate's reference years, and the state on the region's first day.

    The land model runs without a break from SPIN_UP_YEARS before the reference to the first day. Desert soil forgets
    its start within decades only, so all of it starts near a desert's equilibrium.
    """
    climate, constants = synthetic.climate(found, _seed(region)), parameters(found)
    first, last = pd.Timestamp(region.reference_start).year, pd.Timestamp(region.reference_end).year
    land = state.initial(constants, START)
    record = []
    years = range(first - SPIN_UP_YEARS, pd.Timestamp(region.start).year)
    for year, drivers in zip(years, synthetic.reference_forcing(climate, years), strict=True):
        land, diagnostics = services.model.run(land, drivers, constants)
        if first <= year <= last:
            record.append(state.root_zone(diagnostics["volume_fraction_of_condensed_water_in_soil"]).astype("float32"))
    theta = xr.concat(record, "time")
    return climatology.build(theta, theta.time.values), land
