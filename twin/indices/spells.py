"""Dry days and dry spells of each local year, by soil moisture and by rain; and what else a year's days of rain tell.

    theta ─availability─▸ below DRY_SOIL ┐
                                         ├─▸ dry_spells: days, longest spell, how many, days in them
    precipitation_flux ─▸ below DRY_RAIN ┘
    precipitation_flux ─▸ rain_metrics: the same and wet days, longest wet spell, heavy rain, total, intensity

Soil and rain answer different questions, and a result names which one it is. Spells of n days or more are counted by
one of two rules, of which the second finds more of them, and longer ones:
    by="day"   each day is below the threshold
    by="sum"   a day is dry in any n days that together are below the threshold; such windows may overlap
and by one of two ways where a year ends:
    crossing="cut"     a year is taken on its own: what is left of a spell on either side counts for itself
    crossing="began"   a spell counts, with all its days, in the year in which it began
Dry days themselves always count in the year they are in. The spells by which a record begins and ends are as long as
is known. Ref: ETCCDI, Zhang et al. (2011), WIREs Clim. Change 2, 851 (wet from 1 mm on; CDD, CWD, R20mm, SDII).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import RangeError, SettingsError
from twin.indices.counting import ROWS, count, follow
from twin.indices.units import amount_factors
from twin.indices.years import MISSING_DAYS, as_days, local_years, place
from twin.land.threads import spread
from twin.state import root_zone
from twin.variables import LAYERS, ROOT_ZONE

DRY_SOIL = 0.25  # of the water that plants can take, 1
WET, HEAVY = 1.0, 20.0  # rain of a day, mm
DRY_RAIN = WET / 86400.0  # the same as a flux, kg m-2 s-1
SHORTEST = 5  # days from which dry days are a spell
BY, CROSSING = ("day", "sum"), ("cut", "began")

_SPELL = "spell_length_of_days_with_lwe_thickness_of_precipitation_amount_{}_threshold"


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
    by: str = "day",
    crossing: str = "cut",
    threads: int | None = None,
) -> xr.Dataset:
    """dry_days, longest_dry_spell, dry_spells (how many) and days_in_dry_spells of each local year, (year, cell).

    values        (time, cell), consecutive days; dry is what is below the threshold, in the same unit: `availability`
                  with DRY_SOIL, `precipitation_flux` with DRY_RAIN
    threshold     one, or (cell); by="sum" of all days of a window together
    start_month   1..12, one or (cell), as `years.calendar` finds
    shortest      days in a row that make a spell, and the window of by="sum"
    by, crossing  the rule of a spell, and where one counts that goes on into another year, as above
    A missing day ends a spell. NaN for a year with more than MISSING_DAYS missing, or not in the record. Raises
    VariableError for other dims, TimeError for gaps, RangeError for a month there is not, SettingsError for a spell of
    no day and for another rule.
    """
    if shortest < 1:
        raise SettingsError("shortest dry spell", expected="1 day or more", found=shortest)
    for name, given, known in (("by", by, BY), ("crossing", crossing, CROSSING)):
        if given not in known:
            raise SettingsError(f"'{name}' of dry spells", expected=" or ".join(known), found=given)
    data = _reals(values)
    limit = np.broadcast_to(np.asarray(threshold, dtype=data.dtype), data.shape[1:])
    if (by, crossing) == ("day", "cut"):
        kernel = partial(count, np.stack([limit, limit]), min(shortest, 400))
    else:
        kernel = partial(follow, limit.astype(np.float64), shortest, shortest if by == "sum" else 1, crossing != "cut")
    found, years = _of_years(kernel, 5, values, data, start_month, threads)
    attrs = _words(shortest)
    if values.name == "precipitation_flux" and by == "day":
        attrs["longest_dry_spell"]["standard_name"] = _SPELL.format("below")
    told = _told(values, threshold=threshold, shortest=shortest, by=by, crossing=crossing)
    told["threshold_units"] = str(values.attrs.get("units", "1"))
    variables = {name: (("year", "cell"), found[row], attrs[name] | told) for row, name in enumerate(attrs, 1)}
    return xr.Dataset(variables, {"year": years, **place(values)})


def rain_metrics(
    pr: xr.DataArray,
    threshold: ArrayLike = WET,
    *,
    heavy: ArrayLike = HEAVY,
    start_month: ArrayLike = 1,
    shortest: int = SHORTEST,
    threads: int | None = None,
) -> xr.Dataset:
    """What the daily rain of each local year comes to, all at once, dims (year, cell), float32.

    pr                (time, cell), consecutive days, in a unit of `units.rain_amounts`, which it names
    threshold, heavy  rain of a day, mm, one or (cell): dry below the first, wet from it on; heavy from the second on
    start_month, shortest, missing days and errors as in `dry_spells`, of which these are by="day", crossing="cut"
        total_rain                               mm, of all days
        dry_days, wet_days, heavy_rain_days      how many; of these CF and ETCCDI have R1mm and R20mm
        longest_dry_spell, longest_wet_spell     days, CDD and CWD
        dry_spells, days_in_dry_spells           of `shortest` dry days or more
        daily_intensity                          mm a wet day, SDII; NaN without any
    Raises VariableError for a unit there is not, RangeError for rain below zero. Ref: Zhang et al. (2011).
    """
    if shortest < 1:
        raise SettingsError("shortest dry spell", expected="1 day or more", found=shortest)
    data = _reals(pr)
    factor = amount_factors(pr)[0] if pr.sizes["time"] else 1.0  # of one unit of `pr`, mm
    limits = [np.broadcast_to(np.asarray(limit) / factor, data.shape[1:]) for limit in (threshold, heavy)]
    kernel = partial(count, np.stack(limits).astype(data.dtype), min(shortest, 400))
    found, years = _of_years(kernel, ROWS, pr, data, start_month, threads)
    if (found[10] < 0.0).any():
        raise RangeError(f"rain '{pr.name}'", expected="0 or more", found=float(np.nanmin(found[10]) * factor))
    found[8:10] *= np.float32(factor)
    found[9] = np.divide(found[9], found[5], out=np.full_like(found[9], np.nan), where=found[5] > 0.0)
    attrs = _words(shortest) | {
        "wet_days": {"units": "day", "long_name": "wet days of the year"},
        "longest_wet_spell": {"units": "day", "long_name": "longest wet spell of the year"},
        "heavy_rain_days": {"units": "day", "long_name": "days of heavy rain"},
        "total_rain": {"units": "mm", "long_name": "rain of the year", "standard_name": "precipitation_amount"},
        "daily_intensity": {"units": "mm day-1", "long_name": "mean rain of a wet day"},
    }
    attrs["longest_dry_spell"]["standard_name"] = _SPELL.format("below")
    attrs["longest_wet_spell"]["standard_name"] = _SPELL.format("above")
    told = _told(pr, threshold=threshold, heavy=heavy, shortest=shortest, by="day", crossing="cut")
    told["threshold_units"] = "mm day-1"
    variables = {name: (("year", "cell"), found[row], attrs[name] | told) for row, name in enumerate(attrs, 1)}
    return xr.Dataset(variables, {"year": years, **place(pr)})


def _of_years(
    kernel: Callable[..., None],
    rows: int,
    values: xr.DataArray,
    data: np.ndarray,
    start_month: ArrayLike,
    threads: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(rows (row, year, cell) that a kernel of `counting` finds, NaN for a year with too much missing; the years)."""
    groups = list(local_years(values["time"].values, start_month, data.shape[1]))
    found = np.empty((rows, groups[0].label.size, data.shape[1]), np.float32)
    for years in groups:
        march = partial(kernel, data, years.cells, years.bounds, found)
        spread(march, years.cells.size, threads or os.cpu_count() or 1)
        for year, length in enumerate(years.length):
            missing = years.cells[length - found[0, year, years.cells] > MISSING_DAYS]
            found[:, year, missing] = np.nan
    return found, groups[0].label


def _reals(values: xr.DataArray) -> np.ndarray:
    """Days (time, cell), float32 or float64."""
    data = as_days(values)
    return data if data.dtype in (np.float32, np.float64) else data.astype(np.float64)


def _words(shortest: int) -> dict[str, dict[str, Any]]:
    """Attributes of the first figures, in the order that they are counted."""
    return {
        "dry_days": {"units": "day", "long_name": "dry days of the year"},
        "longest_dry_spell": {"units": "day", "long_name": "longest dry spell of the year"},
        "dry_spells": {"units": "1", "long_name": f"dry spells of {shortest} days or more"},
        "days_in_dry_spells": {"units": "day", "long_name": f"days in dry spells of {shortest} days or more"},
    }


def _told(values: xr.DataArray, **choices: Any) -> dict[str, Any]:
    """What a result is of, and the choices made: a threshold of every cell is said to be one."""
    given = {name: "by cell" if np.ndim(choice) else np.asarray(choice).item() for name, choice in choices.items()}
    return {"of": str(values.name), **given}
