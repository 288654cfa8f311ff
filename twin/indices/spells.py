"""Dry days and dry spells of each local year, by soil moisture and by rain.

    theta ─availability─▸ below DRY_SOIL ┐
                                         ├─▸ dry_spells: days, longest spell, how many
    precipitation_flux ─▸ below DRY_RAIN ┘

The two answer different questions, and a result names which one it is. Ref: ETCCDI, Zhang et al. (2011), WIREs Clim.
Change 2, 851 (dry days below 1 mm, longest spell CDD).
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import SettingsError
from twin.indices.years import MISSING_DAYS, as_days, local_years, place
from twin.land.compiled import compiled
from twin.land.threads import spread
from twin.state import root_zone
from twin.variables import LAYERS, ROOT_ZONE

DRY_SOIL = 0.25  # of the water that plants can take, 1
DRY_RAIN = 1.0 / 86400.0  # 1 mm a day, kg m-2 s-1
SHORTEST = 5  # days from which dry days are a spell
WIDTH = 512  # cells that are counted together: their counts stay in the nearest cache

_CDD = "spell_length_of_days_with_lwe_thickness_of_precipitation_amount_below_threshold"


def availability(theta: xr.DataArray, parameters: xr.Dataset) -> xr.DataArray:
    """Water of the root zone that plants can take, 0 at wilting to 1 at the critical point, dims (time, cell).

    theta        soil moisture (time, layer, cell), or of the root zone (time, cell), m3 m-3
    parameters   theta_w and theta_c, (layer, cell) or (cell)
    (θ − θ_w)/(θ_c − θ_w) of the mean of the top metre, held within 0..1. Ref: Best et al. (2011), eq. 12 (β).
    """
    theta = root_zone(theta) if "layer" in theta.dims else theta
    low, high = (_of_root_zone(parameters[name]).astype(theta.dtype) for name in ("theta_w", "theta_c"))
    found = ((theta.transpose("time", "cell").values - low) / (high - low)).clip(0.0, 1.0)
    attrs = {"units": "1", "long_name": "plant-available water of the root zone"}
    return xr.DataArray(found, {"time": theta["time"], **place(theta)}, ("time", "cell"), "availability", attrs)


def _of_root_zone(parameter: xr.DataArray) -> np.ndarray:
    """Mean of the top metre (cell)."""
    if "layer" not in parameter.dims:
        return parameter.values
    return np.average(parameter.transpose("layer", "cell").values[:ROOT_ZONE], axis=0, weights=LAYERS[:ROOT_ZONE])


def dry_days(values: xr.DataArray, threshold: ArrayLike = DRY_SOIL, **options: Any) -> xr.DataArray:
    """How many days of each year were dry, (year, cell); options and errors are those of `dry_spells`."""
    return dry_spells(values, threshold, **options)["dry_days"]


def dry_spells(
    values: xr.DataArray,
    threshold: ArrayLike = DRY_SOIL,
    *,
    start_month: ArrayLike = 1,
    shortest: int = SHORTEST,
    threads: int | None = None,
) -> xr.Dataset:
    """dry_days, longest_dry_spell (days) and dry_spells (how many) of each local year, dims (year, cell), float32.

    values        (time, cell), consecutive days; dry is what is below the threshold, in the same unit: `availability`
                  with DRY_SOIL, `precipitation_flux` with DRY_RAIN
    threshold     one, or (cell)
    start_month   1..12, one or (cell), as `years.calendar` finds; a spell is cut where a year ends
    shortest      days in a row that make a spell
    A missing day ends a spell. NaN for a year with more than MISSING_DAYS missing, or not in the record. Raises
    VariableError for other dims, TimeError for gaps, RangeError for a month there is not, SettingsError for a spell of
    no day.
    """
    if shortest < 1:
        raise SettingsError("shortest dry spell", expected="1 day or more", found=shortest)
    data = as_days(values)
    limit = np.broadcast_to(np.asarray(threshold, dtype=data.dtype), data.shape[1:])
    groups = list(local_years(values["time"].values, start_month, data.shape[1]))
    found = np.empty((3, groups[0].label.size, data.shape[1]), np.float32)
    for years in groups:
        part = data if len(groups) == 1 else np.ascontiguousarray(data[:, years.cells])
        counts = np.zeros((5, *found.shape[1:2], years.cells.size), np.int32)
        march = partial(_count, part, limit[years.cells], years.bounds, shortest, counts)
        spread(march, years.cells.size, threads or os.cpu_count() or 1)
        missing = years.length[:, None] - counts[3]
        found[:, :, years.cells] = np.where(missing > MISSING_DAYS, np.nan, counts[:3])
    attrs: dict[str, dict[str, Any]] = {
        "dry_days": {"units": "day", "long_name": "dry days of the year"},
        "longest_dry_spell": {"units": "day", "long_name": "longest dry spell of the year"},
        "dry_spells": {"units": "1", "long_name": f"dry spells of {shortest} days or more"},
    }
    if values.name == "precipitation_flux":
        attrs["longest_dry_spell"]["standard_name"] = _CDD
    told = {
        "of": str(values.name),
        "threshold": _told(threshold),
        "threshold_units": str(values.attrs.get("units", "1")),
    }
    variables = {name: (("year", "cell"), found[row], attrs[name] | told) for row, name in enumerate(attrs)}
    return xr.Dataset(variables, {"year": groups[0].label, **place(values)})


def _told(threshold: ArrayLike) -> float | str:
    """A threshold as an attribute."""
    return float(np.asarray(threshold)) if np.ndim(threshold) == 0 else "by cell"


@compiled
def _count(values, limit, bounds, shortest, counts, first, last):
    """Counts of cells first..last, (5, year, cell): dry days, longest spell, spells, known days, days of this spell."""
    for year in range(bounds.shape[0]):
        start, stop = max(bounds[year, 0], 0), min(bounds[year, 1], values.shape[0])
        dry, longest, spells = counts[0, year], counts[1, year], counts[2, year]
        known, run = counts[3, year], counts[4, year]
        for block in range(first, last, WIDTH):
            end = min(block + WIDTH, last)
            for day in range(start, stop):
                row = values[day]
                for cell in range(block, end):
                    below = np.int32(row[cell] < limit[cell])
                    length = below * (run[cell] + np.int32(1))
                    run[cell] = length
                    dry[cell] += below
                    longest[cell] = max(longest[cell], length)
                    spells[cell] += np.int32(length == shortest)
                    known[cell] += np.int32(row[cell] == row[cell])
