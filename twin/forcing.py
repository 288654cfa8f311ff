"""From what a provider gives to the forcing of the table: derived variables, FAO-56 quantities, days and steps.

    provider ─derive→ the table's variables ─daily_mean→ days ─disaggregate→ steps of 3 h and less

Ref: Allen et al. (1998), FAO Irrigation and Drainage Paper 56 (equation numbers below are theirs).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.signal import lfilter

from twin import checks
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.grid import nearest_known
from twin.inputs import LONGEST, RAIN, SNOWFALL, check_optional
from twin.land import weather
from twin.variables import VARIABLES, with_role

DAY = np.timedelta64(1, "D")
PHASES = (RAIN, SNOWFALL)
_WINDS, _AIR, _PRESSURE = ("eastward_wind", "northward_wind"), "air_temperature", "surface_air_pressure"
_WATER_TO_AIR = 0.622  # molecular weight of water over that of dry air
_FREEZING = 273.15  # K
_LATENT_HEAT = 2.45e6  # J kg-1, as in Allen et al. (1998)


def standard_pressure(altitude: Any) -> Any:
    """Surface pressure of the standard atmosphere, Pa, at `altitude` m (eq. 7)."""
    return 101.3e3 * ((293.0 - 0.0065 * altitude) / 293.0) ** 5.26


def saturation_vapour_pressure(temperature: Any) -> Any:
    """Saturation vapour pressure over water, Pa, at `temperature` K (eq. 11)."""
    celsius = temperature - _FREEZING
    return 610.8 * np.exp(17.27 * celsius / (celsius + 237.3))


def saturation_slope(temperature: Any) -> Any:
    """Slope of the saturation vapour pressure, Pa K-1, at `temperature` K (eq. 13)."""
    return 4098.0 * saturation_vapour_pressure(temperature) / (temperature - _FREEZING + 237.3) ** 2


def vapour_pressure(humidity: Any, pressure: Any) -> Any:
    """Vapour pressure, Pa, of air with specific humidity (1) at `pressure` Pa."""
    return humidity * pressure / (_WATER_TO_AIR + (1.0 - _WATER_TO_AIR) * humidity)


def specific_humidity(vapour: Any, pressure: Any) -> Any:
    """Specific humidity (1) of air with vapour pressure `vapour` at `pressure`, both Pa."""
    return _WATER_TO_AIR * vapour / (pressure - (1.0 - _WATER_TO_AIR) * vapour)


def vapour_pressure_deficit(temperature: Any, humidity: Any, pressure: Any) -> Any:
    """How much vapour the air still takes, Pa, never negative."""
    deficit = saturation_vapour_pressure(temperature) - vapour_pressure(humidity, pressure)
    return deficit.clip(0.0) if hasattr(deficit, "clip") else max(deficit, 0.0)


def wind_at_2m(wind: Any, height: float = 10.0) -> Any:
    """Wind over grass at 2 m from wind at `height` m, same unit (eq. 47)."""
    return wind * 4.87 / np.log(67.8 * height - 5.42)


def psychrometric_constant(pressure: Any) -> Any:
    """Pa K-1 at `pressure` Pa (eq. 8)."""
    return 0.665e-3 * pressure


def reference_evapotranspiration(
    net_radiation: Any, temperature: Any, wind_2m: Any, deficit: Any, pressure: Any, ground_heat: Any = 0.0
) -> Any:
    """Evapotranspiration of well-watered grass, kg m-2 s-1, by FAO-56 Penman-Monteith from daily means (eq. 6).

    net_radiation, ground_heat W m-2; temperature K; wind at 2 m, m s-1; vapour pressure deficit and pressure, Pa
    """
    slope, gamma = saturation_slope(temperature), psychrometric_constant(pressure)
    radiative = slope * (net_radiation - ground_heat) / _LATENT_HEAT
    aerodynamic = gamma * 900.0 / (temperature - _FREEZING + 273.0) * wind_2m * deficit / 1e3 / 86400.0
    return (radiative + aerodynamic) / (slope + gamma * (1.0 + 0.34 * wind_2m))


def _at_dew_point(dew: Any, pressure: Any) -> Any:
    return specific_humidity(saturation_vapour_pressure(dew), pressure)


def _at_part(part: Any, air: Any, pressure: Any) -> Any:
    return specific_humidity(part * saturation_vapour_pressure(air), pressure)


def _pressure(air: Any, altitude: Any = 0.0) -> Any:
    """Standard pressure wherever there is air, so that a cell without data stays without."""
    return xr.where(np.isfinite(air), standard_pressure(altitude), np.nan).astype(air.dtype)


@dataclass(frozen=True)
class Recipe:
    """A variable, what it is made of, the same in words, and the function of those, on arrays of any kind."""

    variable: str
    of: tuple[str, ...]
    words: str
    make: Callable[..., Any]


RECIPES = (  # of two for one variable the first that can be made
    Recipe("precipitation_flux", PHASES, "sum of rainfall_flux, snowfall_flux", operator.add),
    Recipe("wind_speed", _WINDS, "hypot of eastward_wind, northward_wind", np.hypot),
    Recipe(
        "surface_air_pressure", (_AIR, "surface_altitude"), "standard atmosphere at the cells' elevation", _pressure
    ),
    Recipe("surface_air_pressure", (_AIR,), "standard atmosphere at sea level, for no elevation is known", _pressure),
    Recipe("specific_humidity", ("dew_point_temperature", _PRESSURE), "saturation at the dew point", _at_dew_point),
    Recipe("specific_humidity", ("relative_humidity", _AIR, _PRESSURE), "relative humidity of saturation", _at_part),
)


def complete(values: Mapping[str, Any], wanted: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """`values` with those of the wanted variables that RECIPES can make of them, and {what was made: of what}.

    values   arrays of one shape, or that broadcast, in the table's units: numpy's or xarray's
    """
    found, made = dict(values), {}
    for recipe in RECIPES:
        if recipe.variable in wanted and recipe.variable not in found and all(name in found for name in recipe.of):
            found[recipe.variable] = recipe.make(*(found[name] for name in recipe.of))
            made[recipe.variable] = recipe.words
    return found, made


def derive(ds: xr.Dataset, keep: Collection[str] = ()) -> xr.Dataset:
    """The seven forcing variables of the table, in its order; those that are missing by RECIPES.

    ds     relative_humidity is a fraction, dew_point_temperature in K, surface_altitude in m; units are the table's
    keep   further variables that stay where they are there, such as PHASES for steps shorter than a day
    The attribute `derived` of the result names what was derived. Raises VariableError naming what is missing.
    """
    names = [variable.name for variable in with_role("forcing")]
    values, made = complete({str(name): variable for name, variable in ds.data_vars.items()}, names)
    absent = [name for name in names if name not in values]
    if absent:
        raise VariableError(
            "forcing", expected=", ".join(absent), found=", ".join(map(str, ds.data_vars)) or "no variable"
        )
    kept = [name for name in keep if name in values and name not in names]
    result = xr.Dataset({name: values[name] for name in (*names, *kept)}, attrs={**ds.attrs, "derived": " ".join(made)})
    for name in made:
        result[name].attrs = VARIABLES[name].attrs
    return result


def daily_mean(ds: xr.Dataset) -> tuple[xr.Dataset, dict[str, tuple[int, int]]]:
    """Means over full UTC days, labelled by their start, and the days that are not full.

    ds        dim `time` with a constant step that divides the day; values are means over the step that starts at `time`
    returns   (daily Dataset, {day: (steps found, steps of a full day)}); a cell with one NaN in a day is NaN that day
    Raises TimeError without a usable time axis.
    """
    if "time" not in ds.dims or ds.sizes["time"] == 0 or "time" not in ds.coords:
        raise TimeError("time of the forcing", expected="a time axis", found="none")
    times = ds["time"].values.astype("datetime64[ns]")
    full = _steps_per_day(times)
    days, found = np.unique(times.astype("datetime64[D]"), return_counts=True)
    incomplete = {str(day): (int(n), full) for day, n in zip(days, found, strict=True) if n != full}
    whole = days[found == full]
    kept = ds.isel(time=np.isin(times.astype("datetime64[D]"), whole))
    daily = kept.map(lambda variable: _mean_of_each(variable, full), keep_attrs=True)
    return daily.assign_coords(time=whole.astype("datetime64[ns]")).assign_attrs(ds.attrs), incomplete


def disaggregate(daily: xr.Dataset, step: np.timedelta64 | str) -> xr.Dataset:
    """Days as steps of `step`, by the rules of `twin.land.weather`: the same bits as inside a land model.

    daily     the seven forcing variables, dims (time, cell) with lat and lon by cell; also, NaN where not known,
              `air_temperature_range` (the day's highest less its lowest, K) and `snowfall_flux` (part of precipitation)
    step      3 h or less, a whole part of the day
    returns   dims (time, cell), float64, means over the step that starts at `time`, UTC; `rainfall_flux` and
              `snowfall_flux` in place of precipitation. The mean of a day's steps is the day's value, except for
              humidity that its air cannot hold
    Raises SettingsError for a step a land model cannot take, TimeError for days that do not start at 00:00, and
    VariableError, UnitsError or RangeError for daily values that are not the table's.
    """
    per_day = steps_of(step)
    checks.check_dataset(daily, "forcing", "daily forcing", missing=False)
    checks.check_present(daily, ("time", "lat", "lon"), "daily forcing")
    times = daily["time"].values.astype("datetime64[ns]")
    days = times.astype("datetime64[D]")
    if (times != days).any() or (np.diff(days) <= np.timedelta64(0, "D")).any():
        raise TimeError("time of the daily forcing", expected="rising days, each at 00:00 UTC", found=str(times[:2]))
    check_optional(daily)
    values = np.full((weather.DAILY, *(daily.sizes[dim] for dim in ("time", "cell"))), np.nan)
    for row, name in enumerate(weather.DAILY_ROWS):
        if name in daily:
            values[row] = daily[name].transpose("time", "cell").values
    lat, lon = (np.asarray(daily[name].values, np.float64) for name in ("lat", "lon"))
    out = np.empty((weather.OUT, days.size * per_day, lat.size))
    weather.days(values, lat, lon, weather.cell_keys(lat, lon), days.astype(np.int64), per_day, out)
    starts = times[:, None] + np.arange(per_day) * (DAY.astype("timedelta64[ns]") // per_day)
    steps = {name: (("time", "cell"), out[row], attributes(name)) for row, name in enumerate(weather.STEP_ROWS)}
    return xr.Dataset(steps, {"time": starts.ravel(), "lat": daily["lat"], "lon": daily["lon"]}, daily.attrs)


def steps_of(step: np.timedelta64 | str) -> int:
    """How many steps of this length make a day; SettingsError unless it is a whole part of it, 3 h at most."""
    try:
        length = pd.Timedelta(step).to_timedelta64()
    except ValueError:
        length = np.timedelta64(0, "ns")
    if not np.timedelta64(0, "ns") < length <= np.timedelta64(LONGEST, "s") or DAY % length:
        expected = "a whole part of the day, 3 h at most: an energy balance with a step of 24 h diverges"
        raise SettingsError("step of the land model", expected=expected, found=str(step))
    return int(DAY // length)


def attributes(name: str) -> dict[str, str]:
    """CF attributes of a forcing variable, also of rain and snow apart."""
    if name in VARIABLES:
        return VARIABLES[name].attrs
    return {"standard_name": name, "units": "kg m-2 s-1", "long_name": name.removesuffix("_flux")}


def rain_factors(seed: int, member: int, days: int, deviation: float = 0.3, memory: float = 30.0) -> np.ndarray:
    """Factors (days) on the precipitation of one member: log-normal, mean 1 in the long run, 1 before the first day.

    deviation   of their logarithm, once they have forgotten the start; memory is the e-folding time in days
    The logarithm is an autoregressive process of first order that starts at 0, so that members part with time. Ref:
    Reichle et al. (2007), J. Geophys. Res. 112, D09108 (log-normal, correlated factors on precipitation).
    """
    draws = np.random.default_rng([seed, member]).standard_normal(days)
    kept = np.exp(-1.0 / memory)
    walk = lfilter([np.sqrt(1.0 - kept**2)], [1.0, -kept], draws)
    spread = 1.0 - kept ** (2.0 * np.arange(1, days + 1))
    return np.exp(deviation * walk - 0.5 * deviation**2 * spread)


def fill_nearest(ds: xr.Dataset) -> xr.Dataset:
    """The forcing with every missing cell-day taken whole from the nearest cell that has all variables that day.

    ds   dims (time, cell) with lat and lon by cell, degrees
    A coastal cell outside a product's land mask gets its neighbour's weather. Raises RangeError for a day without any
    complete cell.
    """
    known = np.logical_and.reduce([np.isfinite(variable.transpose("time", "cell").values) for variable in ds.values()])
    if known.all():
        return ds
    if not known.any(axis=1).all():
        day = ds["time"].values[~known.any(axis=1)][0]
        raise RangeError("forcing", expected="at least one complete cell a day", found=f"none on {str(day)[:10]}")
    masks, which = np.unique(known, axis=0, return_inverse=True)
    source = np.stack([nearest_known(ds["lat"].values, ds["lon"].values, mask) for mask in masks])[which.ravel()]
    filled = {name: np.take_along_axis(variable.values, source, axis=1) for name, variable in ds.items()}
    return ds.map(lambda variable: variable.copy(data=filled[variable.name]), keep_attrs=True)


def _steps_per_day(times: np.ndarray) -> int:
    """How many steps make a day; times must rise by one step or whole gaps of it."""
    gaps = np.diff(times)
    if (gaps <= np.timedelta64(0, "ns")).any():
        raise TimeError("time of the forcing", expected="rising times", found="a repeated or falling time")
    step = gaps.min() if gaps.size else DAY
    if step > DAY or DAY % step or ((times - times.astype("datetime64[D]")) % step).any() or (gaps % step).any():
        found = f"steps from {step.astype('timedelta64[s]')}"
        raise TimeError("time of the forcing", expected="a step that divides the day, from 00:00 UTC", found=found)
    return int(DAY // step)


def mean_of_days(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean of each `steps` consecutive rows, in the type of the values; NaN where one is missing."""
    if steps == 1:
        return values
    return values.reshape(-1, steps, *values.shape[1:]).mean(axis=1, dtype=np.float64).astype(values.dtype)


def _mean_of_each(variable: xr.DataArray, full: int) -> xr.DataArray:
    """Mean of each `full` consecutive steps; variables without time stay."""
    if "time" not in variable.dims:
        return variable
    dims = ("time", *(dim for dim in variable.dims if dim != "time"))
    means = mean_of_days(variable.transpose(*dims).values, full)
    coords = {name: c for name, c in variable.coords.items() if "time" not in c.dims}
    return xr.DataArray(means, coords, dims, variable.name, variable.attrs)
