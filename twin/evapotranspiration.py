"""What well-watered grass would evaporate: FAO-56 Penman-Monteith where its drivers are, Hargreaves-Samani where not.

    temperature, humidity, wind, pressure, sunlight (, thermal radiation) ─▸ Penman-Monteith   eq. 6
    temperature and its daily range, latitude, day of the year            ─▸ Hargreaves        eq. 52

A result names its method: the two differ by a tenth and more, and must not be mixed in one climatology.
Ref: Allen et al. (1998), FAO Irrigation and Drainage Paper 56 (equation numbers are theirs).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin import checks, forcing
from twin.errors import SettingsError, UnitsError, VariableError

PENMAN_MONTEITH, HARGREAVES = "fao56-penman-monteith", "hargreaves-samani"
ALBEDO = 0.23  # of the reference grass
CALM = 0.5  # least wind at 2 m, m s-1 (Allen et al. 1998, p. 63)

_AIR, _RANGE, _SUN = "air_temperature", "air_temperature_range", "surface_downwelling_shortwave_flux_in_air"
_THERMAL, _PRESSURE, _HUMIDITY, _WIND = (
    *("surface_downwelling_longwave_flux_in_air", "surface_air_pressure", "specific_humidity", "wind_speed"),
)
_NEEDED = (_AIR, _HUMIDITY, _WIND, _PRESSURE, _SUN)
_MJ_PER_DAY = 1e6 / 86400.0  # W m-2
_SOLAR_CONSTANT = 0.0820 * 1e6 / 60.0  # W m-2
_LATENT_HEAT = 2.45e6  # J kg-1
_STEFAN_BOLTZMANN = 4.903e-9 * _MJ_PER_DAY  # W m-2 K-4, as in Allen et al. (1998)
_FREEZING = 273.15


def potential(drivers: xr.Dataset, method: str | None = None) -> xr.DataArray:
    """Reference evapotranspiration of each day, `water_potential_evaporation_flux`, kg m-2 s-1, dims (time, cell).

    drivers   daily means (time, cell) in the table's units, with `lat` (cell, degrees); `air_temperature_range` (the
              day's highest less its lowest, K) for Hargreaves, and where there is no thermal radiation. What
              `forcing.RECIPES` can make is made (pressure at `surface_altitude`, say)
    method    PENMAN_MONTEITH or HARGREAVES; None is the first whose drivers are all there
    Never negative. Attributes: `method`, and `net_longwave`, which says where it came from. Raises VariableError naming
    what is missing, UnitsError for other units, SettingsError for another method.
    """
    if method not in (None, PENMAN_MONTEITH, HARGREAVES):
        raise SettingsError("method", expected=f"{PENMAN_MONTEITH} or {HARGREAVES}", found=repr(method))
    given, _ = forcing.complete({str(name): drivers[name] for name in drivers.data_vars}, _NEEDED)
    given |= {name: drivers[name] for name in ("lat", "surface_altitude") if name in drivers}
    absent = {
        PENMAN_MONTEITH: [name for name in _NEEDED if name not in given]
        + ([f"{_THERMAL} or {_RANGE}"] if _THERMAL not in given and _RANGE not in given else []),
        HARGREAVES: [name for name in (_AIR, _RANGE, "lat") if name not in given],
    }
    possible = [name for name in ([method] if method else absent) if not absent[name]]
    if not possible:
        wanted = "; or ".join(f"{name}: {', '.join(absent[name])}" for name in ([method] if method else absent))
        there = ", ".join(map(str, drivers.data_vars)) or "no variable"
        raise VariableError("drivers of evapotranspiration", expected=wanted, found=there)
    for name in (*_NEEDED, _THERMAL):
        if name in drivers:
            checks.check_units(name, drivers[name].attrs.get("units"), "evapotranspiration")
    if _RANGE in drivers and drivers[_RANGE].attrs.get("units", "K") != "K":
        raise UnitsError(f"'{_RANGE}'", expected="K", found=repr(drivers[_RANGE].attrs["units"]))
    found, told = (_penman_monteith if possible[0] == PENMAN_MONTEITH else _hargreaves)(given)
    name = "water_potential_evaporation_flux"
    attrs = {"standard_name": name, "units": "kg m-2 s-1", "long_name": "reference evapotranspiration"}
    result = found.clip(0.0).transpose("time", "cell").astype(given[_AIR].dtype).rename(name)
    result.attrs = attrs | {"method": possible[0]} | told
    return result


def extraterrestrial_radiation(lat: Any, time: np.ndarray) -> np.ndarray:
    """Sunlight on top of the atmosphere, mean of the day, W m-2, (time, cell), at `lat` degrees (eqs. 21 to 25)."""
    day = pd.DatetimeIndex(np.atleast_1d(time)).day_of_year.to_numpy()[:, None]
    angle, phi = 2.0 * np.pi * day / 365.0, np.deg2rad(np.atleast_1d(np.asarray(lat, np.float64)))
    distance, declination = 1.0 + 0.033 * np.cos(angle), 0.409 * np.sin(angle - 1.39)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1.0, 1.0))
    high = sunset * np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    return np.maximum(_SOLAR_CONSTANT / np.pi * distance * high, 0.0)


def net_longwave(
    temperature: Any, temperature_range: Any, vapour: Any, sunlight: Any, extraterrestrial: Any, altitude: Any = 0.0
) -> Any:
    """Thermal radiation the grass loses, W m-2 (eqs. 37 and 39).

    temperature of the air and its daily range, K; vapour pressure, Pa; sunlight and that above the atmosphere, W m-2;
    altitude, m
    """
    clear = (0.75 + 2e-5 * altitude) * extraterrestrial
    brightness = np.minimum(sunlight / np.maximum(clear, 1e-3), 1.0)
    high, low = temperature + 0.5 * temperature_range, temperature - 0.5 * temperature_range
    humid = 0.34 - 0.14 * np.sqrt(1e-3 * vapour)
    return _STEFAN_BOLTZMANN * 0.5 * (high**4 + low**4) * humid * (1.35 * brightness - 0.35)


def _penman_monteith(given: dict[str, Any]) -> tuple[xr.DataArray, dict[str, str]]:
    air, sun = given[_AIR], given[_SUN]
    spread = given.get(_RANGE, 0.0)
    vapour = forcing.vapour_pressure(given[_HUMIDITY], given[_PRESSURE])
    saturation = (
        sum(forcing.saturation_vapour_pressure(air + sign * 0.5 * spread) for sign in (-1.0, 1.0)) / 2.0
    )  # eq. 12
    if _THERMAL in given:
        loss, source = _STEFAN_BOLTZMANN * air**4 - given[_THERMAL], "downwelling thermal radiation"
    else:
        if "lat" not in given:
            raise VariableError("drivers of evapotranspiration", expected="lat", found="none")
        top = _above(given)
        loss = net_longwave(air, spread, vapour, sun, top, given.get("surface_altitude", 0.0))
        source = "eq. 39 of Allen et al. (1998)"
    wind = forcing.wind_at_2m(given[_WIND]).clip(CALM)
    net = (1.0 - ALBEDO) * sun - loss
    deficit = (saturation - vapour).clip(0.0)
    found = forcing.reference_evapotranspiration(net, air, wind, deficit, given[_PRESSURE])
    return found, {"net_longwave": source}


def _hargreaves(given: dict[str, Any]) -> tuple[xr.DataArray, dict[str, str]]:
    """0.0023 (T + 17.8) √(Tmax − Tmin) Ra, Ra as the water it would evaporate (eq. 52)."""
    celsius = given[_AIR] - _FREEZING
    return 0.0023 * (celsius + 17.8) * np.sqrt(given[_RANGE].clip(0.0)) * _above(given) / _LATENT_HEAT, {}


def _above(given: dict[str, Any]) -> xr.DataArray:
    """Extraterrestrial radiation of the drivers' days and cells."""
    return xr.DataArray(
        extraterrestrial_radiation(given["lat"].values, given[_AIR]["time"].values), dims=("time", "cell")
    )
