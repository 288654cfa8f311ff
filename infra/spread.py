"""How sure the twin is after the last window: the members of its analysis, carried on by the weather.

    window ─▸ members' last states ─rain of their own─▸ day by day ─▸ standard deviation of the root zone's water

Without new observations the members part, as each has its own rain; a new analysis draws them together again. What they
were carried to last is remembered in this process, and worked out again from the end of the window when it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from infra.settings import Region
from infra.store import View
from twin import forcing, state
from twin.control import Control
from twin.inputs import THETA
from twin.model import LandModel
from twin.observations import FOOTPRINT
from twin.variables import VARIABLES

DAY = pd.Timedelta(days=1)
ASKED = ("sand", "clay", *FOOTPRINT)  # of a cell, beside the model's parameters
SPREAD = "root_zone_soil_moisture_spread"
_CARRIED: dict[str, _Carried] = {}  # by region: where its members are


@dataclass
class _Carried:
    """Members of one analysis: their parameters and the states they have on the morning of `day`."""

    key: str
    day: pd.Timestamp
    states: list[xr.Dataset]
    parameters: list[xr.Dataset] = field(default_factory=list)


def parameters_in_use(view: View, region: str) -> xr.Dataset:
    """The analysed parameters where there are some, else those the region was prepared with."""
    return view.dataset(region, "analysis" if view.has(region, "analysis") else "parameters").load()


def analysed_until(view: View, region: str) -> pd.Timestamp | None:
    """The last day of the window of the analysis in use."""
    return pd.Timestamp(view.dataset(region, "analysis").attrs["last"]) if view.has(region, "analysis") else None


def spread_after(
    view: View,
    region: Region,
    first: pd.Timestamp,
    last: pd.Timestamp,
    model: LandModel,
    drivers: Callable[[pd.Timestamp, pd.Timestamp], xr.Dataset],
) -> xr.Dataset | None:
    """The members' standard deviation of root-zone soil moisture on the days first..last after the window (time, cell).

    first     earliest day whose forcing has changed since it was last asked
    drivers   the forcing of some days
    None where there is no analysis, or no such day.
    """
    end = analysed_until(view, region.name)
    if end is None or last <= end:
        return None
    first = max(first, end + DAY)
    carried = _of(view, region)
    if carried.day > first:
        del _CARRIED[region.name]
        carried = _of(view, region)
    weather = drivers(carried.day, last)
    days = int((last - end).days)
    passed = int((carried.day - end - DAY).days)
    seed = int(carried.key[:8], 16)
    wet = []
    for member, (land, parameters) in enumerate(zip(carried.states, carried.parameters, strict=True)):
        factors = forcing.rain_factors(seed, member, days)[passed:].astype(np.float32)
        rain = weather["precipitation_flux"]
        most = np.float32(VARIABLES["precipitation_flux"].valid_max)
        own = weather.assign(precipitation_flux=rain.copy(data=np.minimum(rain.values * factors[:, None], most)))
        carried.states[member], run = model.run(land, own, parameters)
        wet.append(state.root_zone(run[THETA]).sel(time=slice(first, None)).values.astype(np.float32))
    carried.day = last + DAY
    return xr.Dataset(
        {SPREAD: (("time", "cell"), np.std(wet, axis=0, ddof=1), VARIABLES[SPREAD].attrs)},
        {"time": pd.date_range(first, last)},
    )


def _of(view: View, region: Region) -> _Carried:
    """The members of the analysis in use, where they were left or at the end of its window."""
    key = str(view.dataset(region.name, "analysis").attrs["key"])
    known = _CARRIED.get(region.name)
    if known is not None and known.key == key:
        return known
    kept = view.dataset(region.name, "members").load()
    prior = prior_parameters(view, region.name)
    control = Control.of(prior)
    damp = kept["humidity"].values
    end = analysed_until(view, region.name)
    assert end is not None
    found = _Carried(key, end + DAY, [])
    for i in range(kept.sizes["realization"]):
        fields = kept["residual"].values[i].astype(np.float64) if "residual" in kept else None
        z = kept["z"].values[i][: control.size]
        found.parameters.append(control.parameters(z, prior, damp, fields))
        ends = {str(name).removeprefix("end:"): each for name, each in kept.data_vars.items() if "end:" in str(name)}
        about = {name: VARIABLES[name].attrs for name in ends if name in VARIABLES}
        land = {
            name: end.isel(realization=i).astype("float64").assign_attrs(about.get(name, {}))
            for name, end in ends.items()
        }
        found.states.append(xr.Dataset(land, {name: prior[name] for name in ("lat", "lon")}))
    _CARRIED[region.name] = found
    return found


def prior_parameters(view: View, region: str) -> xr.Dataset:
    """The parameters the region was prepared with, and what else the cycle may ask of its cells."""
    grid = view.dataset(region, "grid").load()
    prior = view.dataset(region, "parameters").load()
    return prior.assign({name: grid[name].variable for name in ASKED if name in grid})


def forget(region: str) -> None:
    """Work the members out again from the end of the window at the next call."""
    _CARRIED.pop(region, None)
