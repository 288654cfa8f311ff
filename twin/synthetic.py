"""A simulated Africa: climate, weather with droughts, soils and satellite-like retrievals, to demonstrate and to bench.

Nothing here is a measurement. Any day of any cell can be asked for alone and has the same bits as when a century of the
whole map is computed: noise is a pure function of (seed, stream, day, wave), and every cell is computed by itself.

    place ─climate─► wet seasons, warmth …─┐
    (seed, day) ─Fourier waves─► storms, ──┴─forcing─► truth ─nature─► soil moisture ─retrievals─► what a satellite sees
                                 spells              └ perturbed ─► what the twin is told

Random fields are sums of plane waves whose amplitudes are smooth Gaussian noise in time (random Fourier features,
Rahimi and Recht 2007), so each value is exactly standard normal and correlation in space and time is what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import xarray as xr

from twin.land.compiled import compiled
from twin.land.weather import mix
from twin.model import LandModel
from twin.parameters import TILES, c4_share
from twin.variables import VARIABLES

SEED = 1848  # of the demonstration: the whole continent follows from it
DAY = 86400.0  # s
SEASONS = 48  # nodes of the yearly tables
BLOCK = 32  # days computed at a time, so that memory stays small
KM = 111.2  # per degree


# --- reproducible noise ---------------------------------------------------------------------------------------------
@compiled
def _uniform(seed, stream, n, m):
    """One number in (0, 1) for the counter (seed, stream, n, m)."""
    x = mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    x = mix(x + np.uint64(stream) * np.uint64(0xD1B54A32D192ED03))
    x = mix(x + np.uint64(n) * np.uint64(0x9E3779B97F4A7C15))
    x = mix(x + np.uint64(m) * np.uint64(0x8CB92BA72F3D8DD7))
    return (float(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@compiled
def _normal(seed, stream, n, m):
    """One standard normal number for the counter (seed, stream, n, m), by Box and Muller (1958)."""
    u = _uniform(seed, stream, n, 2 * m)
    return math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * _uniform(seed, stream, n, 2 * m + 1))


@dataclass(frozen=True)
class Noise:
    """A family of random fields: how wide, how long, how fast they drift.

    scale km: correlation exp(−d²/2 scale²); days: correlation exp(−t²/4 days²), 0 is new every day; drift km/day east.
    """

    waves: int
    scale: float
    days: float
    drift: float = 0.0
    step: int = 1  # days between the random nodes that the time kernel smooths


STORMS = Noise(waves=40, scale=350.0, days=1.2, drift=-150.0)  # easterly waves carry rain systems west
SHOWERS = Noise(waves=40, scale=110.0, days=0.0)
AIR = Noise(waves=20, scale=700.0, days=1.5)
SEASONAL = Noise(waves=24, scale=650.0, days=60.0, drift=6.0, step=15)  # spells of months ...
LASTING = Noise(waves=24, scale=900.0, days=190.0, drift=-3.0, step=30)  # ... and of a year and more
SOILS = Noise(waves=32, scale=450.0, days=0.0)
FAMILIES = (STORMS, SHOWERS, AIR, SEASONAL, LASTING, SOILS)

# One number per random field: fields of one family share their waves and nothing else.
(_STORM, _SHOWER, _SEASONAL, _LASTING, _WARMTH, _DAMPNESS, _WIND, _MISPLACED, _BIAS, _WARMTH_ERROR, _SUN_ERROR,
 _SAND, _CLAY, _SAND_ERROR, _CLAY_ERROR, _SATELLITE_BIAS, _SATELLITE_ERROR, _SATELLITE_LUCK) = range(18)  # fmt: skip


@cache
def _wavenumbers(noise: Noise, seed: int) -> np.ndarray:
    """Wave vectors (2, waves) in rad/km, spread evenly over directions and over a Rayleigh law of lengths."""
    family, k = FAMILIES.index(noise), np.arange(noise.waves)
    jitter = np.array([[_uniform(seed, family, i, j) for i in k] for j in range(2)])
    length = np.sqrt(-2.0 * np.log(1.0 - (k + jitter[0]) / noise.waves)) / noise.scale
    angle = np.pi * (k * 0.6180339887498949 % 1.0 + jitter[1] / noise.waves)
    return np.stack([length * np.cos(angle), length * np.sin(angle)])


@compiled
def _waves(vectors, east, north):
    """Cosine and sine of each wave at each cell, scaled so that unit amplitudes make unit variance (2·waves, cell)."""
    waves = vectors.shape[1]
    out = np.empty((2 * waves, east.size), np.float32)
    scale = 1.0 / math.sqrt(waves)
    for k in range(waves):
        for i in range(east.size):
            phase = vectors[0, k] * east[i] + vectors[1, k] * north[i]
            out[2 * k, i] = math.cos(phase) * scale
            out[2 * k + 1, i] = math.sin(phase) * scale
    return out


@compiled
def _amplitudes(seed, stream, vectors, days, length, step, drift):
    """Amplitude of each cosine and sine on each day (day, 2·waves): noise at nodes, smoothed in time, then moved."""
    waves = vectors.shape[1]
    out = np.empty((days.size, 2 * waves), np.float32)
    reach = math.ceil(3.0 * length / step)
    first = days.min() // step - reach  # neighbouring days share most of their nodes, so draw each once
    nodes = np.empty((days.max() // step + reach - first + 1, 2 * waves))
    for n in range(nodes.shape[0]):
        for k in range(2 * waves):
            nodes[n, k] = _normal(seed, stream, first + n, k)
    weight = np.empty(2 * reach + 1)
    for t in range(days.size):
        node = days[t] // step
        norm = 0.0
        for j in range(-reach, reach + 1):
            distance = (days[t] - (node + j) * step) / length if length > 0.0 else 0.0
            weight[j + reach] = math.exp(-0.5 * distance * distance)
            norm += weight[j + reach] ** 2
        norm = 1.0 / math.sqrt(norm)
        for k in range(waves):
            a = b = 0.0
            for j in range(-reach, reach + 1):
                a += weight[j + reach] * nodes[node - first + j, 2 * k]
                b += weight[j + reach] * nodes[node - first + j, 2 * k + 1]
            turn = vectors[0, k] * drift * days[t]
            cos, sin = math.cos(turn), math.sin(turn)
            out[t, 2 * k] = (a * cos - b * sin) * norm
            out[t, 2 * k + 1] = (a * sin + b * cos) * norm
    return out


@compiled
def _field(amplitudes, waves):
    """Sum of the waves (day, cell), always in their order, so that a cell's bits do not depend on its neighbours."""
    days, cells = amplitudes.shape[0], waves.shape[1]
    out = np.zeros((days, cells), np.float32)
    for first in range(0, cells, 2048):  # a block of cells stays in cache while the days pass
        last = min(first + 2048, cells)
        for t in range(days):
            row = out[t, first:last]
            for k in range(waves.shape[0]):
                amplitude, wave = amplitudes[t, k], waves[k, first:last]
                for i in range(row.size):
                    row[i] += amplitude * wave[i]
    return out


# --- climate --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Belt:
    """Rain that follows the sun: a belt whose latitude swings over the year, inside a window of longitudes.

    rain mm/day on its axis; `peak` (fraction of the year) is when it lies furthest north and, with
    `depth` > 0, rains most; widths in degrees; depth 0 rains all year on the axis, 1 only around `peak`.
    """

    rain: float
    latitude: float
    swing: float
    peak: float
    south: float
    north: float
    longitude: float
    width: float
    depth: float = 0.0


@dataclass(frozen=True)
class Bump:
    """A local feature: `size` at the centre, fading over `dlat`, `dlon` degrees."""

    size: float
    lat: float
    lon: float
    dlat: float
    dlon: float


BELTS = (
    Belt(7.6, 4.8, 6.8, 0.59, 5.0, 3.0, -1.0, 18.0, 0.7),  # West African monsoon
    Belt(4.8, 5.0, 5.5, 0.59, 4.0, 3.0, 33.0, 9.0, 0.8),  # Sudan and Ethiopia, one long summer season
    Belt(5.0, -1.0, 6.5, 0.59, 5.5, 5.0, 21.0, 9.0),  # Congo basin, rain all year with two peaks
    Belt(7.0, -0.5, 12.0, 0.60, 3.8, 3.8, 37.5, 8.0),  # East Africa: long rains and short rains
    Belt(6.0, -13.0, 1.0, 0.04, 7.5, 5.0, 27.0, 16.0, 1.0),  # southern Africa, November to March
    Belt(3.5, -29.0, 0.0, 0.04, 4.0, 5.0, 30.5, 4.5, 0.8),  # Drakensberg and the coast below it
    Belt(9.0, -17.0, 0.0, 0.08, 6.0, 5.0, 50.0, 3.0, 0.6),  # Madagascar
    Belt(4.2, 36.8, 0.0, 0.98, 2.7, 6.0, 2.0, 20.0, 0.95),  # Mediterranean coast, in winter
    Belt(3.5, -34.5, 0.0, 0.50, 3.0, 1.8, 18.5, 3.5, 0.9),  # the Cape, in winter
    Belt(8.0, 4.5, 0.0, 0.60, 3.0, 2.2, 9.0, 3.8, 0.4),  # Gulf of Guinea below Mount Cameroon
    Belt(11.0, 6.8, 0.0, 0.58, 3.0, 2.7, -12.0, 4.0, 0.8),  # Liberia to Guinea
)
DRY = (  # share of the rain that is lost
    Bump(0.85, 7.0, 48.0, 7.0, 6.0),  # Horn of Africa
    Bump(0.80, 3.0, 38.0, 2.3, 3.5),  # Turkana
    Bump(0.45, 17.0, 30.0, 3.0, 8.0),  # Nubian desert
    Bump(0.98, -22.5, 13.0, 6.5, 1.8),  # Namib
    Bump(0.15, -26.0, 20.5, 4.0, 4.5),  # Kalahari
    Bump(0.60, -8.5, 12.0, 4.0, 2.0),  # Angolan coast
    Bump(0.45, 6.0, 1.0, 1.5, 1.5),  # Dahomey gap
    Bump(0.45, -6.0, 36.0, 3.0, 3.0),  # central Tanzania
)
RELIEF = (  # m above the 250 m that stand for the lowlands
    Bump(1900.0, 9.5, 39.0, 3.5, 2.5),
    Bump(1000.0, -1.5, 33.5, 5.0, 4.5),
    Bump(900.0, -20.0, 24.0, 9.0, 8.0),
    Bump(1000.0, -29.3, 28.3, 2.5, 2.5),
    Bump(900.0, 32.5, -4.5, 2.0, 4.0),
    Bump(800.0, 22.5, 9.0, 4.0, 9.0),
    Bump(800.0, 6.5, 11.5, 2.5, 3.0),
    Bump(900.0, -19.0, 46.8, 4.0, 1.5),
)
FOREST = 1500.0  # mm a year above which the canopy hides the soil from the satellite


@dataclass(frozen=True, eq=False)
class Climate:
    """What is normal at each cell, and the waves that make its weather; made by `climate`, never changed.

    cells      the grid: lat, lon (cell)
    tables     (5, SEASONS, cell) float32: wet-day probability, mm per wet day, K, relative humidity, cloud cover
    static     (6, cell) float32: latitude rad, elevation m, mean pressure Pa, mean wind m s-1, spread of log rain,
               share of the day-to-day variance of rain that is showers rather than systems
    rain       (cell) mm a year
    """

    seed: int
    cells: xr.Dataset
    tables: np.ndarray
    static: np.ndarray
    rain: np.ndarray
    waves: dict[Noise, np.ndarray]

    @property
    def elevation(self) -> np.ndarray:
        """Height above the sea, m (cell)."""
        return self.static[1]


def _bumps(bumps: Iterable[Bump], lat: np.ndarray, lon: np.ndarray) -> list[np.ndarray]:
    return [b.size * np.exp(-0.5 * (((lat - b.lat) / b.dlat) ** 2 + ((lon - b.lon) / b.dlon) ** 2)) for b in bumps]


def _season(days: np.ndarray) -> np.ndarray:
    """Fraction of the year 0..1 of each day number (since 1970-01-01)."""
    return (days - 10957.0) / 365.2425 % 1.0


def _normal_rain(lat: np.ndarray, lon: np.ndarray, season: float) -> np.ndarray:
    """Mean rain at this time of the year, mm/day (cell)."""
    rain = np.full(lat.shape, 0.03)
    for belt in BELTS:
        course = np.cos(2.0 * np.pi * (season - belt.peak))
        distance = lat - (belt.latitude + belt.swing * course)
        across = np.exp(-0.5 * (distance / np.where(distance > 0.0, belt.north, belt.south)) ** 2)
        along = np.exp(-0.5 * np.abs((lon - belt.longitude) / belt.width) ** 4)
        strength = 1.0 - belt.depth + belt.depth * (0.5 + 0.5 * course) ** 2
        rain = rain + belt.rain * strength * across * along
    for loss in _bumps(DRY, lat, lon):
        rain = rain * (1.0 - loss)
    return rain


def climate(grid: xr.Dataset, seed: int = SEED) -> Climate:
    """The climate of an Africa-like continent at the cells of `grid` (lat, lon by cell), each from its own place only.

    Rain follows belts that swing with the sun, temperature falls with latitude and height, damp places are cloudy.
    """
    lat, lon = (np.asarray(grid[name].values, float) for name in ("lat", "lon"))
    height = 250.0 + sum(_bumps(RELIEF, lat, lon))
    seasons = np.arange(SEASONS) / SEASONS
    rain = np.stack([_normal_rain(lat, lon, s) for s in seasons])
    amount = 2.0 + 8.0 * np.sqrt(rain / 4.0)  # mm on a wet day: showers are heavier where they are frequent
    probability = np.minimum(rain / amount, 0.85)
    damp = 1.0 - np.exp(-rain / 2.5)
    course = np.cos(2.0 * np.pi * (seasons[:, None] - 0.55))
    yearly = sum(rain) * (365.2425 / SEASONS)  # row by row: a mean over the axis adds differently for one cell
    arid = np.exp(-yearly / 200.0)
    warmth = 302.4 - 0.0135 * np.maximum(np.abs(lat) - 10.0, 0.0) ** 2 - 0.0062 * height + 3.0 * arid - 3.0 * damp
    warmth = warmth + np.clip(0.34 * lat, -9.0, 9.0) * (1.0 + 0.45 * arid) * course
    humidity = 0.27 + 0.53 * damp + 0.06 * np.clip((np.abs(lat) - 26.0) / 8.0, 0.0, 1.0)
    cloud = 0.15 + 0.5 * damp
    pressure = 101325.0 * (1.0 - 2.25577e-5 * height) ** 5.25588  # ICAO standard atmosphere
    wind = 2.2 + 1.8 * np.exp(-yearly / 400.0)
    spread = 0.20 + 0.34 * np.exp(-yearly / 700.0)  # dry places have the more uncertain rain (Nicholson 2011)
    local = 0.4 * (1.0 - 0.85 * arid)  # desert rain comes with the passing systems, seldom as a shower by itself
    east, north = lon * KM * math.cos(math.radians(15.0)), lat * KM
    return Climate(
        seed=seed,
        cells=grid[["lat", "lon"]],
        tables=np.stack([probability, amount, warmth, humidity, cloud]).astype(np.float32),
        static=np.stack([np.deg2rad(lat), height, pressure, wind, spread, local]).astype(np.float32),
        rain=yearly,
        waves={noise: _waves(_wavenumbers(noise, seed), east, north) for noise in FAMILIES},
    )


# --- weather --------------------------------------------------------------------------------------------------------
_TAIL = 1024  # nodes of the table below
_TAIL_END = 16.0


@cache
def _gamma_tail(shape: float = 0.75) -> np.ndarray:
    """Rain amount over its mean, for exceedance probabilities exp(−v), v = 0..16: the gamma law of wet days.

    The law is integrated in y = x^shape, in which its density has no singularity.
    """
    y = np.linspace(0.0, 40.0**shape, 400_001)
    density = np.exp(-(y ** (1.0 / shape)))
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    exceedance = np.maximum(1.0 - below / below[-1], 1e-300)
    return np.interp(np.linspace(0.0, _TAIL_END, _TAIL), -np.log(exceedance), y ** (1.0 / shape) / shape)


@compiled
def saturation_vapour_pressure(temperature):
    """Vapour pressure over water, Pa, at a temperature in K (Bolton 1980, equation 10)."""
    celsius = temperature - 273.15
    return 611.2 * math.exp(17.67 * celsius / (celsius + 243.5))


@compiled
def _weather(season, tables, static, tail, fields, errors):
    """The seven forcing variables (7, day, cell) float32 from the climate and eleven random fields.

    fields  (11, day, cell): storm, shower, seasonal, lasting, warmth, dampness, wind; then those of the errors:
            misplaced, bias, warmth, sunlight
    errors  size of: misplaced rain (share of the showers), log rain bias, K, relative sunlight; zeros for the truth
    """
    days, cells = season.size, static.shape[1]
    out = np.empty((7, days, cells), np.float32)
    for t in range(days):
        place = season[t] * tables.shape[1]
        node = int(place) % tables.shape[1]
        after = (node + 1) % tables.shape[1]
        share = place - math.floor(place)
        angle = 2.0 * math.pi * (season[t] - 0.2205)  # from the March equinox
        declination = math.asin(0.39779 * math.sin(angle))
        nearness = 1.0 + 0.033 * math.cos(2.0 * math.pi * (season[t] - 0.008))
        for c in range(cells):
            latitude, height, pressure = float(static[0, c]), float(static[1, c]), float(static[2, c])
            probability = tables[0, node, c] * (1.0 - share) + tables[0, after, c] * share
            amount = tables[1, node, c] * (1.0 - share) + tables[1, after, c] * share
            warmth = tables[2, node, c] * (1.0 - share) + tables[2, after, c] * share
            humidity = tables[3, node, c] * (1.0 - share) + tables[3, after, c] * share
            cloud = tables[4, node, c] * (1.0 - share) + tables[4, after, c] * share

            # rain: the season's odds, shifted by the spell the place is in
            spell = 0.8 * fields[2, t, c] + 0.6 * fields[3, t, c]
            spread = static[4, c]
            shift = math.exp(0.5 * (spread * spell - 0.5 * spread * spread))
            probability = min(probability * shift, 0.92)
            local = static[5, c]
            disorder = math.sqrt(1.0 - local) * fields[0, t, c] + math.sqrt(local) * fields[1, t, c]
            misplaced = errors[0] * local
            disorder = math.sqrt(1.0 - misplaced) * disorder + math.sqrt(misplaced) * fields[7, t, c]
            exceedance = 0.5 * math.erfc(disorder * 0.7071067811865476)
            rain = 0.0
            if exceedance < probability:
                v = math.log(probability / exceedance) * ((_TAIL - 1) / _TAIL_END)
                below = min(int(v), _TAIL - 2)
                rain = tail[below] + (min(v, float(_TAIL - 1)) - below) * (tail[below + 1] - tail[below])
                rain = min(rain * amount * shift * math.exp(errors[1] * fields[8, t, c] - 0.5 * errors[1] ** 2), 400.0)

            # air: rain cools and dampens, spells dry and warm
            wet = 1.0 - math.exp(-rain / 5.0)
            cloud += 0.30 * wet - 0.06 * (1.0 - wet) + 0.05 * fields[0, t, c] + 0.05 * spell * spread
            cloud = min(max(cloud, 0.02), 1.0)
            temperature = warmth - 0.7 * spell - 1.8 * wet + (0.9 + 2.0 * abs(latitude)) * fields[4, t, c]
            temperature += errors[2] * fields[9, t, c]
            humidity += 0.10 * wet + 0.05 * spell + 0.06 * fields[5, t, c]
            humidity = min(max(humidity, 0.06), 0.98)
            pressure -= 120.0 * fields[0, t, c]
            vapour = humidity * min(saturation_vapour_pressure(temperature), 0.5 * pressure)

            # sunlight: Iqbal (1983) at the top, Ångström-Prescott as in FAO-56 below
            sunset = math.acos(min(max(-math.tan(latitude) * math.tan(declination), -1.0), 1.0))
            top = 1361.0 / math.pi * nearness * (
                sunset * math.sin(latitude) * math.sin(declination)
                + math.cos(latitude) * math.cos(declination) * math.sin(sunset)
            )  # fmt: skip
            sunlight = top * (0.25 + (0.5 + 2e-5 * height) * (1.0 - cloud))
            sunlight *= max(1.0 + errors[3] * fields[10, t, c], 0.3)

            # thermal radiation: Prata (1996) for clear sky, Maykut and Church (1973) for cloud
            water = 46.5 * (vapour / 100.0) / temperature
            emissivity = 1.0 - (1.0 + water) * math.exp(-math.sqrt(1.2 + 3.0 * water))
            emissivity = min(emissivity * (1.0 + 0.22 * cloud**2.75), 1.0)

            out[0, t, c] = rain / 86400.0
            out[1, t, c] = temperature
            out[2, t, c] = 0.622 * vapour / (pressure - 0.378 * vapour)
            out[3, t, c] = static[3, c] * math.exp(0.28 * fields[6, t, c] - 0.04)
            out[4, t, c] = pressure
            out[5, t, c] = sunlight
            out[6, t, c] = emissivity * 5.670374e-8 * temperature**4
    return out


FORCING = ("precipitation_flux", "air_temperature", "specific_humidity", "wind_speed", "surface_air_pressure",
           "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air")  # fmt: skip
_TRUE_FIELDS = ((STORMS, _STORM), (SHOWERS, _SHOWER), (SEASONAL, _SEASONAL), (LASTING, _LASTING),
                (AIR, _WARMTH), (AIR, _DAMPNESS), (AIR, _WIND))  # fmt: skip
_ERROR_FIELDS = ((SHOWERS, _MISPLACED), (SEASONAL, _BIAS), (AIR, _WARMTH_ERROR), (AIR, _SUN_ERROR))
_ERRORS = (0.25, 0.15, 0.7, 0.06)  # what `_weather` calls errors, for the forcing the twin is told


def day_numbers(days: pd.DatetimeIndex) -> np.ndarray:
    """Whole days since 1970-01-01 (day) int64; the hour is dropped."""
    return np.asarray(pd.DatetimeIndex(days).values.astype("datetime64[D]").astype(np.int64))


def _random_field(climate: Climate, noise: Noise, stream: int, days: np.ndarray) -> np.ndarray:
    """Standard normal field (day, cell) float32."""
    vectors = _wavenumbers(noise, climate.seed)
    amplitudes = _amplitudes(climate.seed, stream, vectors, days, noise.days, noise.step, noise.drift)
    return _field(amplitudes, climate.waves[noise])


def spells(climate: Climate, days: pd.DatetimeIndex) -> np.ndarray:
    """The slow anomaly behind droughts (negative) and wet spells, standard normal (day, cell)."""
    numbers = day_numbers(days)
    seasonal, lasting = (_random_field(climate, *which, numbers) for which in _TRUE_FIELDS[2:4])
    return 0.8 * seasonal + 0.6 * lasting


def forcing(climate: Climate, days: pd.DatetimeIndex, *, perturbed: bool = False) -> xr.Dataset:
    """Daily forcing, our names and units, (time, cell) float32: the truth, or with `perturbed` what a provider tells.

    The errors of the provider: rain partly in the wrong place, biased for months (15 %), air 0.7 K off, sunlight 6 %.
    """
    numbers = day_numbers(days)
    families = _TRUE_FIELDS + (_ERROR_FIELDS if perturbed else ())
    errors = np.array(_ERRORS if perturbed else (0.0,) * 4)
    cells = climate.rain.size
    out = np.empty((len(FORCING), numbers.size, cells), np.float32)
    for first in range(0, numbers.size, BLOCK):
        block = numbers[first : first + BLOCK]
        fields = np.zeros((11, block.size, cells), np.float32)
        for row, (noise, stream) in enumerate(families):
            fields[row] = _random_field(climate, noise, stream, block)
        out[:, first : first + BLOCK] = _weather(
            _season(block), climate.tables, climate.static, _gamma_tail(), fields, errors
        )
    names = {name: (("time", "cell"), out[row], VARIABLES[name].attrs) for row, name in enumerate(FORCING)}
    time = pd.DatetimeIndex(numbers.astype("datetime64[D]").astype("datetime64[ns]"), name="time")
    return xr.Dataset(names, coords={"time": time, **_places(climate)})


def reference_forcing(
    climate: Climate, years: Iterable[int] = range(1991, 2021), *, perturbed: bool = True
) -> Iterator[xr.Dataset]:
    """Forcing year by year, as `forcing` gives it, for a climatology of the reference years."""
    for year in years:
        yield forcing(climate, pd.date_range(f"{year}-01-01", f"{year}-12-31"), perturbed=perturbed)


def _places(climate: Climate) -> dict[str, tuple]:
    lat, lon = climate.cells["lat"].values, climate.cells["lon"].values
    return {
        "lat": ("cell", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("cell", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }


# --- land -----------------------------------------------------------------------------------------------------------
def soils(grid: xr.Dataset, seed: int = SEED, *, true: bool = False) -> xr.Dataset:
    """`grid` with sand, silt and clay (cell), fractions that sum to 1: the soil map, or with `true` the ground.

    Deserts are sandy, damp tropics clayey; the map is wrong by about 9 % of sand and 7 % of clay.
    """
    place = climate(grid, seed)
    fields = (_SAND, _CLAY, _SAND_ERROR, _CLAY_ERROR)
    sandy, clayey, sand_error, clay_error = (_random_field(place, SOILS, f, np.zeros(1, np.int64))[0] for f in fields)
    damp = 1.0 - np.exp(-place.rain / 900.0)
    sand = 0.4 - 0.9 * damp + 0.55 * sandy + 0.35 * sand_error * true
    clay = -0.9 + 0.7 * damp + 0.45 * clayey + 0.35 * clay_error * true
    parts = np.exp(np.stack([sand + 0.5, np.full_like(sand, -0.3), clay]))
    parts = parts / (parts[0] + parts[1] + parts[2])
    texture = {name: ("cell", part, {"units": "1"}) for name, part in zip(("sand", "silt", "clay"), parts, strict=True)}
    return grid.assign(texture)


def land_cover(place: Climate) -> np.ndarray:
    """Fractions of surface types (tile, cell) that a simulated climate would bear.

    Woody plants cover what rain allows at most, 0.14 P − 14.2 % up to 80 % (Sankaran et al. 2005, Nature 438, 846);
    the more of them are trees the closer P comes to forest. The rest is bare in deserts and grass elsewhere.
    """
    chance, amount, warmth = (place.tables[k].astype(np.float64).reshape(12, -1, place.rain.size) for k in range(3))
    rain = (chance * amount).mean(axis=1) * (365.2425 / 12.0)
    c4 = c4_share(warmth.mean(axis=1), rain)
    woody = np.clip(0.0014 * place.rain - 0.142, 0.0, 0.8)
    trees = woody * np.minimum(place.rain / FOREST, 1.0)
    bare = (1.0 - woody) * np.exp(-place.rain / 200.0)
    grass = 1.0 - woody - bare
    cover = {"broadleaf_tree": trees, "shrub": woody - trees, "bare_soil": bare}
    cover |= {"c3_grass": (1.0 - c4) * grass, "c4_grass": c4 * grass}
    return np.stack([cover.get(name, np.zeros_like(grass)) for name in TILES])


def nature(
    model: LandModel, climate: Climate, parameters: xr.Dataset, state: xr.Dataset, days: pd.DatetimeIndex
) -> tuple[xr.Dataset, xr.Dataset]:
    """The true land through `days`: end state and diagnostics of `model` under the true forcing.

    With `parameters` of `soils(..., true=True)` this is the nature run: of it the twin sees `retrievals`, and of its
    weather the perturbed forcing.
    """
    return model.run(state, forcing(climate, days), parameters)


# --- a satellite ----------------------------------------------------------------------------------------------------
_ORBITS = 117.0 / 8.0  # a day: 117 orbits in an exact repeat of 8 days, as SMAP flies (Entekhabi et al. 2010)
_SWATH = 1000.0  # km
RETRIEVAL_ERROR, RETRIEVAL_BIAS = 0.04, 0.03  # m3 m-3: random each day, and for ever at one cell


@compiled
def _by_place(seed, stream, day, lat, lon, gaussian):
    """One random number for each cell, keyed by where it lies (to 1e-4 degree) and the day."""
    out = np.empty(lat.size)
    for i in range(lat.size):
        place = np.int64((lat[i] + 90.0) * 1e4 + 0.5) * 4_000_000 + np.int64((lon[i] + 180.0) * 1e4 + 0.5)
        out[i] = _normal(seed, stream, day, place) if gaussian else _uniform(seed, stream, day, place)
    return out


def swath(lat: np.ndarray, lon: np.ndarray, day: int) -> np.ndarray:
    """Which cells a polar orbiter with one 1000 km swath sees on a day (number since 1970-01-01): bool (cell).

    Tracks lean 0.2 degrees west for each degree north, are 24.6 degrees apart and repeat after 8 days.
    """
    spacing = 360.0 / _ORBITS
    first = day % 8 * _ORBITS % 1.0 * spacing
    offset = (lon + 0.2 * lat - first + spacing / 2.0) % spacing - spacing / 2.0
    return np.abs(offset) * np.cos(np.deg2rad(lat)) * KM < _SWATH / 2.0


def retrievals(surface_soil_moisture: np.ndarray, climate: Climate, day: pd.Timestamp, seed: int = SEED) -> xr.Dataset:
    """What a satellite makes of the true surface soil moisture (cell) on a day: (time=1, cell), NaN where unseen.

    Seen: cells below the swath without dense forest, less 3 % lost to quality. Error 0.04 m3 m-3, with a bias of 0.03
    that stays with the cell, and one retrieval in 300 that is far off; values lie in 0.02..0.6 as a product's would.
    """
    lat, lon = (np.asarray(climate.cells[name].values, float) for name in ("lat", "lon"))
    number = int(day_numbers(pd.DatetimeIndex([day]))[0])
    luck = _by_place(seed, _SATELLITE_LUCK, number, lat, lon, False)
    seen = swath(lat, lon, number) & (climate.rain < FOREST) & (luck > 0.03)
    value = np.asarray(surface_soil_moisture, float)
    value = value + RETRIEVAL_BIAS * _by_place(seed, _SATELLITE_BIAS, 0, lat, lon, True)
    error = _by_place(seed, _SATELLITE_ERROR, number, lat, lon, True)
    value = value + np.where(luck > 1.0 - 1.0 / 300.0, 5.0, 1.0) * RETRIEVAL_ERROR * error
    value = np.where(seen, np.clip(value, 0.02, 0.6), np.nan)[None, :].astype(np.float32)
    attrs = VARIABLES["surface_soil_moisture"].attrs
    spread = np.where(np.isfinite(value), RETRIEVAL_ERROR, np.nan).astype(np.float32)
    spread_attrs = {"units": attrs["units"], "long_name": "standard error of satellite soil moisture"}
    return xr.Dataset(
        {
            "surface_soil_moisture": (("time", "cell"), value, attrs),
            "surface_soil_moisture_error": (("time", "cell"), spread, spread_attrs),
        },
        coords={"time": pd.DatetimeIndex([pd.Timestamp(day).normalize()], name="time"), **_places(climate)},
    )
