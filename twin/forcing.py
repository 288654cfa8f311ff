"""From what a provider gives to the forcing of the table: derived variables, FAO-56 quantities, daily means.

Ref: Allen et al. (1998), FAO Irrigation and Drainage Paper 56 (equation numbers below are theirs).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from twin.errors import RangeError, TimeError, VariableError
from twin.grid import nearest_known
from twin.variables import VARIABLES, with_role

DAY = np.timedelta64(1, "D")
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


def derive(ds: xr.Dataset) -> xr.Dataset:
    """The seven forcing variables of the table, in its order; those that are missing from their close relatives.

    precipitation_flux     rainfall_flux + snowfall_flux
    wind_speed             eastward_wind, northward_wind
    surface_air_pressure   standard atmosphere at surface_altitude (m), or at sea level
    specific_humidity      dew_point_temperature (K), or relative_humidity (fraction) with air_temperature
    The attribute `derived` of the result names what was derived. Units must already be the table's.
    Raises VariableError naming what is missing.
    """
    derived: list[str] = []

    def add(name: str, needs: tuple[str, ...], make: Any) -> None:
        nonlocal ds
        if name not in ds and all(need in ds for need in needs):
            ds = ds.assign({name: make(*(ds[need] for need in needs))})
            derived.append(name)

    add("precipitation_flux", ("rainfall_flux", "snowfall_flux"), lambda rain, snow: rain + snow)
    add("wind_speed", ("eastward_wind", "northward_wind"), np.hypot)
    add("surface_air_pressure", ("air_temperature", "surface_altitude"), _pressure)
    add("surface_air_pressure", ("air_temperature",), _pressure)
    add(
        "specific_humidity",
        ("dew_point_temperature", "surface_air_pressure"),
        lambda dew, pressure: specific_humidity(saturation_vapour_pressure(dew), pressure),
    )
    add(
        "specific_humidity",
        ("relative_humidity", "air_temperature", "surface_air_pressure"),
        lambda part, air, pressure: specific_humidity(part * saturation_vapour_pressure(air), pressure),
    )
    names = [variable.name for variable in with_role("forcing")]
    absent = [name for name in names if name not in ds]
    if absent:
        raise VariableError(
            "forcing", expected=", ".join(absent), found=", ".join(map(str, ds.data_vars)) or "no variable"
        )
    ds = ds[names].assign_attrs(derived=" ".join(derived))
    for name in derived:
        ds[name].attrs = VARIABLES[name].attrs
    return ds


def _pressure(air: xr.DataArray, altitude: Any = 0.0) -> xr.DataArray:
    """Standard pressure wherever there is air, so that a cell without data stays without."""
    return xr.where(air.isnull(), np.nan, standard_pressure(altitude)).astype(air.dtype)


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


def _mean_of_each(variable: xr.DataArray, full: int) -> xr.DataArray:
    """Mean of each `full` consecutive steps; variables without time stay."""
    if "time" not in variable.dims:
        return variable
    dims = ("time", *(dim for dim in variable.dims if dim != "time"))
    values = variable.transpose(*dims).values
    means = values.reshape(-1, full, *values.shape[1:]).mean(axis=1, dtype=np.float64).astype(values.dtype)
    coords = {name: c for name, c in variable.coords.items() if "time" not in c.dims}
    return xr.DataArray(means, coords, dims, variable.name, variable.attrs)
