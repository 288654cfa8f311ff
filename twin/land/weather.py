"""From a day's means to its steps: sunlight by the sun's path, a warm afternoon, one shower; the day's means are kept.

`day(w, keys, number, steps, out)` is given, for a block of cells,

    w       (ROWS * BLOCK,)             row r of cell i at r * BLOCK + i: rows 0..8 the day's means in the order of
                                        DAILY_ROWS (NaN in a range or a snowfall that is not known), LAT and LON in
                                        degrees; the rest is its own
    keys    (BLOCK,) uint64             what makes a cell's showers its own, see `cell_keys`
    number  int                         the UTC day, days since 1970-01-01
    steps   int                         how many steps make the day, 8 or more

and fills

    out     (steps * OUT * BLOCK,)      row r of step n of cell i at (n * OUT + r) * BLOCK + i, ordered as STEP_ROWS

Nothing depends on other cells, other days, the block or the length of the step but through its own means: a cell's day
has the same sun, the same afternoon and the same shower whoever asks.

Refs: Williams & Clark (2014), Hadley Centre Technical Note 96 (the scheme, as in JULES); Huntingford et al. (2010),
Geosci. Model Dev. 3, 679 (temperature and long wave); Michalsky (1988), Solar Energy 40, 227 (the sun); Allen et al.
(1998), FAO Irrigation and Drainage Paper 56, equations 11 and 50; Murray (1967), J. Appl. Meteorol. 6, 203 (saturation
over ice).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from twin.land.compiled import BLOCK, _float, compiled, exp2, stage
from twin.land.demand import SNOW_BELOW

# Rows of a day, and of each of its steps. Fluxes in kg m-2 s-1 and W m-2, temperatures K, wind m s-1, pressure Pa.
DAILY_ROWS = (
    "precipitation_flux",
    "air_temperature",
    "specific_humidity",
    "wind_speed",
    "surface_air_pressure",
    "surface_downwelling_shortwave_flux_in_air",
    "surface_downwelling_longwave_flux_in_air",
    "air_temperature_range",  # the day's highest less its lowest; from sunlight where it is NaN
    "snowfall_flux",  # its part of precipitation_flux; by the temperature of the step where it is NaN
)
STEP_ROWS = (
    "surface_downwelling_shortwave_flux_in_air",
    "surface_downwelling_longwave_flux_in_air",
    "rainfall_flux",
    "snowfall_flux",
    "air_temperature",
    "specific_humidity",
    "wind_speed",
    "surface_air_pressure",
)
DAILY, OUT = len(DAILY_ROWS), len(STEP_ROWS)
_RAIN, _AIR, _HUMIDITY, _WIND, _PRESSURE, _SUN, _THERMAL, _RANGE, _SNOWFALL = range(DAILY)
_SW, _LW, _RAINFALL, _SNOW, _T, _Q, _U, _P = range(OUT)

SHOWER = 6.0  # hours a day's precipitation lasts: JULES' default for convective rain (Williams & Clark 2014)
WARMEST = 14.5  # hour, local mean solar time, of the highest temperature
RANGES = (1.0, 25.0)  # bounds of a range estimated from sunlight, K

_SOLAR = 1361.0  # sunlight at the mean distance, W m-2 (Kopp & Lean 2011)
_HARGREAVES = 0.16  # k of Rs = k √ΔT Ra, K-0.5, inland (Allen et al. 1998, eq. 50)
_J2000 = 10957  # 2000-01-01, days since 1970-01-01
_LOG2_E = 1.0 / math.log(2.0)
_TWO_PI = 2.0 * math.pi
_TWO52 = 4503599627370496.0

# Rows of the work array after those of the day; symbols as in _begin.
LAT, LON = DAILY, DAILY + 1  # degrees
(_TIME, _X0, _WHOLE, _A, _B, _DIRECT, _EVEN, _BEFORE, _AFTERNOON, _REACH, _START, _ROOM, _SPILT) = range(
    LON + 1, LON + 14
)
_MADE = LON + 14  # 8 rows of one step in the order of STEP_ROWS, with the room for vapour in place of the humidity
_SUNS = (
    _MADE + OUT
)  # sin and cos of declination, equation of time (turns), sunlight above the air (W m-2), step (hours)
ROWS = _SUNS + 1

_S = tuple((-1.0) ** k * _TWO_PI ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(10))
_C = (1.5707963050, -0.2145988016, 0.0889789874, -0.0501743046, 0.0308918810, -0.0170881256, 0.0066700901, -0.0012624911)  # fmt: skip  # noqa: E501


@compiled
def sine(x):
    """sin(2πx) for x turns, −0.5 to 1.5; error < 1e-15.

    Folded into a quarter turn either way, then the series in x.
    """
    x = x - 1.0 if x > 0.5 else x
    x = 0.5 - x if x > 0.25 else x
    x = -0.5 - x if x < -0.25 else x
    z = x * x
    p = _S[8] + z * _S[9]
    p = _S[7] + z * p
    p = _S[6] + z * p
    p = _S[5] + z * p
    p = _S[4] + z * p
    p = _S[3] + z * p
    p = _S[2] + z * p
    p = _S[1] + z * p
    return x * (_S[0] + z * p)


@compiled
def arc_cosine(x):
    """arccos(x) in turns, x held within ±1; error < 1e-8 (Abramowitz & Stegun 1964, 4.4.46)."""
    y = min(abs(x), 1.0)
    p = _C[6] + y * _C[7]
    p = _C[5] + y * p
    p = _C[4] + y * p
    p = _C[3] + y * p
    p = _C[2] + y * p
    p = _C[1] + y * p
    p = (_C[0] + y * p) * math.sqrt(1.0 - y) / _TWO_PI
    return p if x > 0.0 else 0.5 - p


@compiled
def turn(x):
    """x less whole turns, −0.5 to 0.5."""
    return x - np.floor(x + 0.5)


@compiled
def mix(x):
    """SplitMix64's finalizer (Steele et al. 2014): 64 bits in, 64 well mixed bits out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def start_hour(key, day):
    """The whole hour, 0 to 23 UTC, at which a cell's shower begins; `day` is the mixed number of the day."""
    x = mix(key + day)
    hour = ((x >> np.uint64(32)) * np.uint64(24)) >> np.uint64(32)
    return _float(hour | np.uint64(0x4330000000000000)) - _TWO52


@compiled
def _sun(number, steps, w):
    """Where the sun stands at noon UTC of a day: sine and cosine of its declination, equation of time, brightness.

    To 0.01 degree between 1950 and 2050 (Michalsky 1988, after the Astronomical Almanac).
    """
    n = number - _J2000
    mean = turn(280.460 / 360.0 + n * (0.9856474 / 360.0))
    anomaly = turn(357.528 / 360.0 + n * (0.9856003 / 360.0))
    sine_g, cosine_g = sine(anomaly), sine(anomaly + 0.25)
    longitude = turn(mean + (1.915 + 0.040 * cosine_g) * sine_g / 360.0)
    tilt = (23.439 - n * 0.0000004) / 360.0
    sine_d = sine(tilt) * sine(longitude)
    cosine_d = math.sqrt(1.0 - sine_d * sine_d)
    # equation of time = mean longitude - right ascension, below 0.08 rad: the first terms of the arc sine
    e = (sine(mean) * sine(longitude + 0.25) - sine(mean + 0.25) * sine(tilt + 0.25) * sine(longitude)) / cosine_d
    distance = 1.00014 - 0.01671 * cosine_g - 0.00014 * (2.0 * cosine_g * cosine_g - 1.0)
    w[_SUNS * BLOCK] = sine_d
    w[_SUNS * BLOCK + 1] = cosine_d
    w[_SUNS * BLOCK + 2] = e * (1.0 + e * e * (1.0 / 6.0 + e * e * 0.075)) / _TWO_PI
    w[_SUNS * BLOCK + 3] = _SOLAR / (distance * distance)
    w[_SUNS * BLOCK + 4] = 24.0 / steps


@compiled
def _begin(w, keys, day):
    """What a cell's day needs at every step.

    At hour angle x (turns) the sun's height is cos z = sin φ sin δ + cos φ cos δ cos 2πx, above the horizon where
    |x| < x0. Times 2π, its integral from noon is G(x) = A x + B sin 2πx, A = 2π sin φ sin δ, B = cos φ cos δ.
    """
    sine_d, cosine_d, equation = w[_SUNS * BLOCK], w[_SUNS * BLOCK + 1], w[_SUNS * BLOCK + 2]
    brightness, length = w[_SUNS * BLOCK + 3], w[_SUNS * BLOCK + 4] / 24.0
    for i in range(BLOCK):
        lat, lon = w[LAT * BLOCK + i] / 360.0, turn(w[LON * BLOCK + i] / 360.0)
        level = sine(lat) * sine_d
        b = max(sine(lat + 0.25) * cosine_d, 0.0)
        a = _TWO_PI * level
        x0 = arc_cosine(-level / max(b, 1e-30))
        whole = max(2.0 * (a * x0 + b * sine(x0)), 0.0)
        above = brightness * whole / _TWO_PI
        sun = w[_SUN * BLOCK + i]
        direct = min(sun, above)
        time = turn(lon + equation - 0.5)
        reached = min(max(time, -x0), x0)
        clear = sun / (_HARGREAVES * max(above, 1.0))
        span = w[_RANGE * BLOCK + i]
        span = span if span >= 0.0 else min(max(clear * clear, RANGES[0]), RANGES[1])
        w[_TIME * BLOCK + i] = time
        w[_X0 * BLOCK + i] = x0
        w[_WHOLE * BLOCK + i] = whole
        w[_A * BLOCK + i] = a
        w[_B * BLOCK + i] = b
        w[_DIRECT * BLOCK + i] = direct / (max(whole, 1e-30) * length)
        w[_EVEN * BLOCK + i] = sun - direct
        w[_BEFORE * BLOCK + i] = a * reached + b * sine(reached)
        w[_AFTERNOON * BLOCK + i] = turn(lon + 0.25 - WARMEST / 24.0)
        # the mean of a cosine over a step of l turns is its value in the middle times sin(πl)/(πl)
        w[_REACH * BLOCK + i] = 0.5 * span * sine(0.5 * length) / (0.5 * _TWO_PI * length)
        w[_ROOM * BLOCK + i] = 0.0
        w[_SPILT * BLOCK + i] = 0.0
    for i in range(BLOCK):
        w[_START * BLOCK + i] = start_hour(keys[i], day)


@compiled
def _step(w, hour):
    """The step that begins at `hour` UTC, but for its humidity."""
    hours = w[_SUNS * BLOCK + 4]
    middle, ending = (hour + 0.5 * hours) / 24.0, (hour + hours) / 24.0
    for i in range(BLOCK):
        ends = w[_TIME * BLOCK + i] + ending
        x0 = w[_X0 * BLOCK + i]
        next_day = 1.0 if ends > 0.5 else 0.0
        x = min(max(ends - next_day, -x0), x0)
        after = w[_A * BLOCK + i] * x + w[_B * BLOCK + i] * sine(x) + next_day * w[_WHOLE * BLOCK + i]
        shone = max(after - w[_BEFORE * BLOCK + i], 0.0)
        w[_BEFORE * BLOCK + i] = after
        w[(_MADE + _SW) * BLOCK + i] = w[_DIRECT * BLOCK + i] * shone + w[_EVEN * BLOCK + i]

        mean = w[_AIR * BLOCK + i]
        rise = w[_REACH * BLOCK + i] * sine(w[_AFTERNOON * BLOCK + i] + middle)
        air = mean + rise
        w[(_MADE + _T) * BLOCK + i] = air
        w[(_MADE + _LW) * BLOCK + i] = w[_THERMAL * BLOCK + i] * (1.0 + 4.0 * rise / mean)

        # hours of the shower in this step; a shower that begins late goes on in the day's first hours
        begin = w[_START * BLOCK + i]
        tonight = min(hour + hours, begin + SHOWER) - max(hour, begin)
        carried = min(hour + hours, begin + SHOWER - 24.0) - hour
        falls = w[_RAIN * BLOCK + i] * (max(tonight, 0.0) + max(carried, 0.0)) * (24.0 / SHOWER) / hours
        given = w[_SNOWFALL * BLOCK + i] / max(w[_RAIN * BLOCK + i], 1e-30)
        by_air = 1.0 if air < SNOW_BELOW else 0.0
        snow = falls * (min(given, 1.0) if given >= 0.0 else by_air)
        w[(_MADE + _SNOW) * BLOCK + i] = snow
        w[(_MADE + _RAINFALL) * BLOCK + i] = falls - snow

        w[(_MADE + _U) * BLOCK + i] = w[_WIND * BLOCK + i]
        pressure = w[_PRESSURE * BLOCK + i]
        w[(_MADE + _P) * BLOCK + i] = pressure
        celsius = air - 273.15
        a, b = 21.875 if celsius < 0.0 else 17.27, 265.5 if celsius < 0.0 else 237.3
        e_s = 610.8 * exp2(_LOG2_E * a * celsius / (celsius + b))
        most = 0.622 * e_s / (pressure - 0.378 * e_s)
        humidity = w[_HUMIDITY * BLOCK + i]
        room = most - humidity
        w[(_MADE + _Q) * BLOCK + i] = room
        w[_ROOM * BLOCK + i] += max(room, 0.0)
        w[_SPILT * BLOCK + i] -= min(room, 0.0)


@compiled
def _balance(w, out, n):
    """Humidity of step n: saturated where the day's mean is too much, and what had no room there where it has."""
    for i in range(BLOCK):
        room = out[(n * OUT + _Q) * BLOCK + i]
        share = min(w[_SPILT * BLOCK + i] / max(w[_ROOM * BLOCK + i], 1e-30), 1.0)
        out[(n * OUT + _Q) * BLOCK + i] = w[_HUMIDITY * BLOCK + i] + (room if room < 0.0 else share * room)


@stage
def day(w, keys, number, steps, out):
    """The steps of one UTC day of a block of cells, into `out`; layout and units at the top of this file."""
    _sun(number, steps, w)
    _begin(w, keys, mix(np.uint64(number)))
    count, hours = 0.0, w[_SUNS * BLOCK + 4]
    for n in range(steps):
        _step(w, count * hours)
        for j in range(OUT * BLOCK):
            out[n * OUT * BLOCK + j] = w[_MADE * BLOCK + j]
        count += 1.0
    for n in range(steps):
        _balance(w, out, n)


@stage
def days(daily, lat, lon, keys, numbers, steps, out):
    """Many days of many cells: daily (DAILY, time, cell) and place (cell) into out (OUT, time * steps, cell)."""
    w, block = np.zeros(ROWS * BLOCK), np.zeros(steps * OUT * BLOCK)
    mine = np.zeros(BLOCK, np.uint64)
    for first in range(0, lat.size, BLOCK):
        n = min(BLOCK, lat.size - first)
        for i in range(BLOCK):  # unused places repeat the first cell
            cell = first + (i if i < n else 0)
            w[LAT * BLOCK + i], w[LON * BLOCK + i], mine[i] = lat[cell], lon[cell], keys[cell]
        for t in range(numbers.size):
            for row in range(DAILY):
                for i in range(BLOCK):
                    w[row * BLOCK + i] = daily[row, t, first + (i if i < n else 0)]
            day(w, mine, numbers[t], steps, block)
            for step in range(steps):
                for row in range(OUT):
                    for i in range(n):
                        out[row, t * steps + step, first + i] = block[(step * OUT + row) * BLOCK + i]


def sun(number: int) -> np.ndarray:
    """Sine and cosine of the sun's declination and the equation of time (turns) on a UTC day since 1970-01-01."""
    w = np.zeros(ROWS * BLOCK)
    _sun(number, 24, w)
    return w[_SUNS * BLOCK : _SUNS * BLOCK + 3].copy()


def cell_keys(lat: Any, lon: Any) -> np.ndarray:
    """A key for each place, uint64, from its latitude and longitude (degrees) to 1e-4 degree; -180 and 180 are one."""
    north = np.round(np.asarray(lat, np.float64) * 1e4).astype(np.int64) + 900_000
    east = np.round(np.asarray(lon, np.float64) * 1e4).astype(np.int64) % 3_600_000
    return mix((north * 3_600_000 + east).astype(np.uint64))
