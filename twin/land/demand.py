"""One day at the surface: evaporative demand, snow, leaves, infiltration; functions of one cell's numbers.

Water is in kg m-2 (per day where it is a rate), as everywhere in the daily tier. Refs: Allen et al. (1998), FAO
Irrigation and Drainage Paper 56; Best et al. (2011), Geosci. Model Dev. 4, 677; Hock (2003), J. Hydrol. 282, 104.
"""

from __future__ import annotations

import math

from twin.land.compiled import compiled, exp2

DAY = 86400.0
SNOW_BELOW = 274.0  # precipitation is snow below this air temperature, K (Best et al. 2011)
STORM = 0.25  # days over which a day's rain falls (6 h, the JULES default for convective rain)

_LOG2_E = 1.0 / math.log(2.0)
_STEFAN_BOLTZMANN = 5.670374e-8  # W m-2 K-4
_EMISSIVITY = 0.98  # of grass and soil
_MELT = 4.0  # kg m-2 day-1 K-1, snow, middle of the range in Hock (2003)
_MELTING = 273.15
_SNOW_ALBEDO = 0.8
_SNOW_COVER = 0.2  # m2 kg-1, cover is 1 − exp(−0.2 S) (Best et al. 2011)
_SUBLIMATION = 2.45 / 2.834  # heat of vaporisation over that of sublimation
_CALM = 0.5  # lowest wind at 2 m, m s-1 (Allen et al. 1998, p. 63)


@compiled
def demand(temperature, humidity, wind, pressure, sunlight, thermal, albedo):
    """Terms (a, b, c) of Penman-Monteith: evaporation at surface resistance r (s m-1) is a / (b + c r), kg m-2 day-1.

    temperature K, humidity 1, wind at 10 m in m s-1, pressure Pa, sunlight and thermal down W m-2, albedo 1; a ≥ 0, as
    dew is not counted. With r = 70 s m-1 this is equation 6 of Allen et al. (1998) with no heat flux into the ground.
    """
    celsius = temperature - _MELTING
    e_s = 0.6108 * exp2(_LOG2_E * 17.27 * celsius / (celsius + 237.3))  # kPa, eq. 11
    slope = 4098.0 * e_s / ((celsius + 237.3) * (celsius + 237.3))  # kPa K-1, eq. 13
    kpa = 1e-3 * pressure
    e_a = humidity * kpa / (0.622 + 0.378 * humidity)
    gamma = 0.665e-3 * kpa  # eq. 8
    wind_2m = max(0.748 * wind, _CALM)  # eq. 47 at 10 m
    square = temperature * temperature
    net = (1.0 - albedo) * sunlight + _EMISSIVITY * (thermal - _STEFAN_BOLTZMANN * square * square)
    a = 0.408 * 0.0864 * slope * net + gamma * 900.0 / (celsius + 273.0) * wind_2m * max(e_s - e_a, 0.0)
    return max(a, 0.0), slope + gamma, gamma * wind_2m / 208.0


@compiled
def snow_cover(snow):
    """Fraction of the ground under `snow` (kg m-2)."""
    return 1.0 - exp2(-_LOG2_E * _SNOW_COVER * snow)


@compiled
def snow_albedo(albedo, cover):
    """Albedo of ground with albedo `albedo`, partly under snow."""
    return albedo + (_SNOW_ALBEDO - albedo) * cover


@compiled
def snowpack(snow, snowfall, temperature, potential):
    """(snow, melt, sublimation) after a day; potential evaporation of a wet surface limits sublimation. All kg m-2."""
    snow = snow + snowfall
    sublimation = min(snow, _SUBLIMATION * potential)
    snow = snow - sublimation
    melt = min(snow, max(_MELT * (temperature - _MELTING), 0.0))
    return snow - melt, melt, sublimation


@compiled
def leaves(canopy, capacity, rain, potential):
    """(canopy water, throughfall, evaporation from the leaves) after a day, kg m-2: fill, drip, evaporate."""
    canopy = canopy + rain
    throughfall = max(canopy - capacity, 0.0)
    canopy = canopy - throughfall
    evaporation = min(canopy, potential)
    return canopy - evaporation, throughfall, evaporation


@compiled
def fast_runoff(water, limit):
    """Water that falls faster than the ground takes it, kg m-2 in the day.

    Intensity within the storm is exponentially distributed over the cell, so that the part above the limit is
    w exp(−limit · storm / w) (Best et al. 2011, after Dolman & Gregory 1992); `limit` is kg m-2 day-1.
    """
    return water * exp2(-_LOG2_E * limit * STORM / (water + 1e-30))
