"""A day's weather in steps, against the sun of the almanac, the conservation of what was given, and itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from twin import forcing
from twin.land import weather
from twin.land.compiled import BLOCK, single
from twin.land.weather import DAILY, DAILY_ROWS, LAT, LON, OUT, ROWS, STEP_ROWS

SW, LW, RAIN, SNOW, T, Q, U, P = range(OUT)
STEPS = (48, 24, 8)
EQUINOX, JUNE, DECEMBER = 18341, 18433, 18617  # days since 1970: 2020-03-20, 2020-06-20, 2020-12-21


def anything(cells: int, days: int, seed: int = 0) -> np.ndarray:
    """Daily weather anywhere in the table's range (DAILY, time, cell); half the ranges and snowfalls are not known."""
    rng = np.random.default_rng(seed)
    limits = [(0.0, 0.02), (200.0, 330.0), (0.0, 0.03), (0.0, 60.0), (4.5e4, 1.1e5), (0.0, 550.0), (50.0, 700.0)]
    rows = [rng.uniform(low, high, (days, cells)) for low, high in limits]
    rows[0] *= rng.choice([0.0, 1e-3, 1.0], (days, cells))
    span = np.where(rng.random((days, cells)) < 0.5, np.nan, rng.uniform(0.0, 45.0, (days, cells)))
    snow = np.where(rng.random((days, cells)) < 0.5, np.nan, rows[0] * rng.choice([0.0, 0.3, 1.0], (days, cells)))
    return np.stack([*rows, span, snow])


def places(cells: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, cells))), rng.uniform(-180, 180, cells)


def run(daily: np.ndarray, lat: np.ndarray, lon: np.ndarray, numbers: np.ndarray, steps: int) -> np.ndarray:
    """Steps (OUT, time, step, cell)."""
    out = np.empty((OUT, numbers.size * steps, lat.size))
    weather.days(daily, lat, lon, weather.cell_keys(lat, lon), numbers, steps, out)
    return out.reshape(OUT, numbers.size, steps, lat.size)


def clear(lat: list[float], lon: list[float], numbers: list[int], steps: int = 48, **rows: float) -> np.ndarray:
    """Steps of a plain day, 100 W m-2 of sun at 290 K, with some rows replaced."""
    plain = {
        "air_temperature": 290.0,
        "surface_downwelling_shortwave_flux_in_air": 100.0,
        "air_temperature_range": 10.0,
    }
    plain |= {"surface_air_pressure": 1e5, "surface_downwelling_longwave_flux_in_air": 300.0, "wind_speed": 2.0} | rows
    daily = np.zeros((DAILY, len(numbers), len(lat)))
    for name, value in plain.items():
        daily[DAILY_ROWS.index(name)] = value
    return run(daily, np.array(lat, float), np.array(lon, float), np.array(numbers), steps)


def saturated(air: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    celsius = air - 273.15
    over_ice = 610.8 * np.exp(21.875 * celsius / (celsius + 265.5))  # Murray (1967)
    vapour = np.where(celsius < 0.0, over_ice, forcing.saturation_vapour_pressure(air))
    return forcing.specific_humidity(vapour, pressure)


# --- functions ------------------------------------------------------------------------------------------------------
def test_sine_is_that_of_the_c_library():
    """To 2e-15: the series is cut at 3e-16, and 2πx of the reference is rounded itself."""
    x = np.random.default_rng(0).uniform(-0.5, 1.5, 20_000)
    np.testing.assert_allclose([weather.sine(v) for v in x], np.sin(2 * np.pi * x), atol=2e-15)
    np.testing.assert_allclose([weather.sine(v) for v in (0.0, 0.25, 0.5, 1.0, -0.25)], [0, 1, 0, 0, -1], atol=3e-16)


def test_arc_cosine_has_the_error_of_abramowitz_and_stegun():
    x = np.linspace(-1.2, 1.2, 10_001)
    found = 2 * np.pi * np.array([weather.arc_cosine(v) for v in x])
    np.testing.assert_allclose(found, np.arccos(np.clip(x, -1, 1)), atol=2e-8)


def test_mix_is_splitmix64():
    """The first outputs of SplitMix64 from seed 1234567, as its published reference implementation prints them."""
    golden, seed = 0x9E3779B97F4A7C15, 1234567
    found = [int(weather.mix(np.uint64((seed + (k + 1) * golden) % 2**64))) for k in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


# --- the sun --------------------------------------------------------------------------------------------------------
def sun(number: int) -> np.ndarray:
    """sin and cos of the declination, equation of time (turns), sunlight above the air (W m-2)."""
    w = np.zeros(ROWS * BLOCK)
    weather.day(w, np.zeros(BLOCK, np.uint64), number, 8, np.empty(8 * OUT * BLOCK))
    return w[weather._SUNS * BLOCK :][:4]


@pytest.mark.parametrize(
    ("day", "declination", "minutes"),
    [("2020-02-11", -14.0, -14.2), ("2020-03-20", 0.1, -7.4), ("2020-06-20", 23.44, -1.7), ("2020-11-03", -15.2, 16.5)],
)
def test_the_sun_is_where_the_almanac_says(day, declination, minutes):
    """Declination to 0.15 degree (half a day's change) and equation of time to 0.15 minute at noon UTC."""
    sine, cosine, turns, _ = sun(int(np.datetime64(day).astype(int)))
    assert math.degrees(math.asin(sine)) == pytest.approx(declination, abs=0.15)
    assert sine * sine + cosine * cosine == pytest.approx(1.0, abs=1e-14)
    assert turns * 1440.0 == pytest.approx(minutes, abs=0.15)


def test_the_earth_is_nearest_in_january():
    """1361 W m-2 (Kopp & Lean 2011) and 3.4 % more at perihelion, 3.3 % less at aphelion."""
    bright = [sun(18262 + day)[3] for day in range(366)]
    assert max(bright) / 1361.0 == pytest.approx(1.034, abs=1e-3) and np.argmax(bright) in range(2, 6)
    assert min(bright) / 1361.0 == pytest.approx(0.967, abs=1e-3) and np.argmin(bright) in range(183, 188)


def test_day_length_and_sunlight_above_of_fao_56():
    """Examples 8 and 9 of Allen et al. (1998), 20 S on 3 September: 11.7 hours, 32.2 MJ m-2 day-1.

    To 2 %: the solar constant is 1361 instead of 1367 W m-2, and the declination there is half a degree off the
    almanac's. More than that sunlight the sun does not give: what was given besides is spread evenly.
    """
    number = int(np.datetime64("2015-09-03").astype(int))
    half_hours = clear([-20.0], [0.0], [number])[SW, 0, :, 0]
    assert (half_hours > 0.0).sum() / 2 == pytest.approx(11.7, abs=0.6)  # whole half-hours at either end
    above = clear([-20.0], [0.0], [number], surface_downwelling_shortwave_flux_in_air=1000.0)[SW, 0, :, 0]
    night = above.min()
    assert (1000.0 - night) * 0.0864 == pytest.approx(32.2, rel=0.02)


def test_below_the_horizon_the_sun_gives_nothing():
    """Against the height of the sun each minute: a step wholly in the night is exactly 0, one with sun is not."""
    lat, lon = places(200)
    for number in (EQUINOX, JUNE, DECEMBER):
        shine = clear(lat, lon, [number], surface_downwelling_shortwave_flux_in_air=5.0)[SW, 0]
        sine, cosine, turns, brightness = sun(number)
        hour = (np.arange(1440) + 0.5)[:, None] / 60.0
        angle = 2 * np.pi * (hour / 24.0 - 0.5 + lon / 360.0 + turns)
        height = np.sin(np.radians(lat)) * sine + np.cos(np.radians(lat)) * cosine * np.cos(angle)
        up = np.maximum(height, 0.0).reshape(48, 30, -1).mean(axis=1)
        enough = brightness * up.mean(axis=0) > 6.0
        assert enough.sum() > 150
        night = height.reshape(48, 30, -1).max(axis=1) < -1e-2
        assert (shine[:, enough][night[:, enough]] == 0.0).all()
        expected = 5.0 * up[:, enough] / up[:, enough].mean(axis=0)
        np.testing.assert_allclose(shine[:, enough], expected, atol=0.02)  # a minute's rounding at sunset


def test_poles_and_polar_night():
    """At a pole the sun circles at one height; where it stays down, whatever was measured is spread evenly."""
    shine = clear([90.0, 90.0, -90.0, 75.0, 75.0], [0.0, 123.0, 0.0, 10.0, -170.0], [JUNE, DECEMBER])[SW]
    np.testing.assert_allclose(shine[0, :, :2], 100.0, rtol=1e-12)
    np.testing.assert_allclose(shine[0, :, 2], 100.0, rtol=1e-12)  # twilight and more: no sun to follow
    np.testing.assert_allclose(shine[1, :, 3:], 100.0, rtol=1e-12)
    assert shine[0, :, 3].min() > 0.0 and shine[0, :, 3].argmax() == pytest.approx(48 * (0.5 - 10 / 360), abs=1.5)


def test_longitude_180_is_one_place_and_noon_follows_the_sun():
    east, west, _ = np.moveaxis(clear([10.0, 10.0, 10.0], [180.0, -180.0, 0.0], [EQUINOX]), -1, 0)
    assert east.tobytes() == west.tobytes()
    lon = np.arange(-180.0, 180.0, 15.0)
    hottest = clear(np.zeros(24), lon, [EQUINOX])[T, 0].argmax(axis=0) / 2.0
    assert np.abs((hottest + lon / 15.0 - weather.WARMEST + 12.0) % 24.0 - 12.0).max() <= 0.5


def test_a_leap_day_is_a_day_like_its_neighbours():
    """2020-02-28 to 03-01 at noon, 45 N: each day's longest sun follows the last's (no jump of the calendar)."""
    numbers = np.arange(np.datetime64("2020-02-25"), np.datetime64("2020-03-05")).astype(int)
    sines = np.array([sun(int(number))[0] for number in numbers])
    assert np.abs(np.diff(sines, 2)).max() < 1e-4 < np.diff(sines).min()


# --- conservation ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", STEPS)
def test_the_days_means_are_kept(steps):
    """To 1e-12, relative, whatever the weather; humidity wherever the day's air can hold it."""
    lat, lon = places(300)
    numbers = np.arange(18262, 18262 + 400, 20)
    daily = anything(300, numbers.size)
    out = run(daily, lat, lon, numbers, steps)
    assert np.isfinite(out).all() and out[SW].min() >= 0.0 and out[RAIN].min() >= 0.0 and out[SNOW].min() >= 0.0
    means = out.mean(axis=2)
    for row, name in ((SW, "surface_downwelling_shortwave_flux_in_air"), (U, "wind_speed"), (T, "air_temperature"),
                      (LW, "surface_downwelling_longwave_flux_in_air"), (P, "surface_air_pressure")):  # fmt: skip
        np.testing.assert_allclose(means[row], daily[DAILY_ROWS.index(name)], rtol=1e-12)
    np.testing.assert_allclose(means[RAIN] + means[SNOW], daily[0], rtol=1e-12)
    known = np.isfinite(daily[8])
    np.testing.assert_allclose(means[SNOW][known], daily[8][known], rtol=1e-12)
    most = saturated(out[T], out[P])
    assert (out[Q] <= most * (1.0 + 1e-12) + 1e-17).all()
    held = daily[2] <= most.mean(axis=1)
    np.testing.assert_allclose(means[Q][held], daily[2][held], rtol=1e-12)
    np.testing.assert_allclose(out[Q].transpose(0, 2, 1)[~held], most.transpose(0, 2, 1)[~held], rtol=1e-12, atol=1e-17)
    assert held.any() and not held.all()


def test_long_steps_are_the_means_of_short_ones():
    """Sun, temperature, thermal radiation and rain at 3 h are those at 30 min, averaged; to rounding."""
    lat, lon = places(100)
    numbers, daily = np.arange(18262, 18272), anything(100, 10)
    half_hours = run(daily, lat, lon, numbers, 48).reshape(OUT, 10, 8, 6, 100).mean(axis=3)
    three_hours = run(daily, lat, lon, numbers, 8)
    for row in (SW, LW, T, U, P):
        np.testing.assert_allclose(three_hours[row], half_hours[row], rtol=1e-11, atol=1e-9)
    water = three_hours[RAIN] + three_hours[SNOW]
    np.testing.assert_allclose(water, half_hours[RAIN] + half_hours[SNOW], rtol=1e-11, atol=1e-18)


def test_temperature_has_the_range_it_was_given():
    """Of the steps' means: sin(πl)/(πl) of it for steps of l days, less what the peak misses by falling inside one."""
    span = np.ptp(clear([0.0, 50.0], [0.0, 7.5], [EQUINOX], air_temperature_range=12.0)[T, 0], axis=0)
    np.testing.assert_allclose(span, 12.0 * np.sinc(1 / 48), rtol=3e-3)


def test_a_range_that_is_not_known_follows_hargreaves():
    """ΔT of Rs = 0.16 √ΔT Ra (Allen et al. 1998, eq. 50), between 1 and 25 K; Ra of its example 8, to 2 %."""
    number = int(np.datetime64("2015-09-03").astype(int))
    above = 32.2 / 0.0864
    for share, expected in ((0.5, (0.5 / 0.16) ** 2), (0.01, 1.0), (0.95, 25.0)):
        rows = {"surface_downwelling_shortwave_flux_in_air": share * above, "air_temperature_range": np.nan}
        span = np.ptp(clear([-20.0], [0.0], [number], **rows)[T, 0], axis=0)
        np.testing.assert_allclose(span, expected, rtol=0.04)


def test_snow_falls_where_the_step_is_cold_unless_it_was_measured():
    rows = {"precipitation_flux": 1e-4, "air_temperature": weather.SNOW_BELOW, "snowfall_flux": np.nan}
    out = clear(np.linspace(-60, 60, 50), np.linspace(-180, 150, 50), [EQUINOX], **rows)
    assert (out[SNOW][out[T] >= weather.SNOW_BELOW] == 0.0).all() and (
        out[RAIN][out[T] < weather.SNOW_BELOW] == 0.0
    ).all()
    assert (out[SNOW] > 0.0).any() and (out[RAIN] > 0.0).any()
    measured = clear([0.0], [0.0], [EQUINOX], **{**rows, "snowfall_flux": 2.5e-5})
    falling = measured[RAIN] > 0.0
    np.testing.assert_allclose(measured[SNOW][falling], measured[RAIN][falling] / 3.0, rtol=1e-12)


# --- showers --------------------------------------------------------------------------------------------------------
def test_a_shower_lasts_six_hours_at_one_intensity():
    for steps, length in ((48, 12), (24, 6)):
        rain = clear(np.linspace(-80, 80, 99), np.linspace(-179, 179, 99), [EQUINOX], steps, precipitation_flux=1e-5)[
            RAIN, 0
        ]
        assert ((rain > 0.0).sum(axis=0) == length).all()
        np.testing.assert_allclose(rain[rain > 0.0], 4e-5, rtol=1e-12)


def test_showers_begin_at_every_hour_alike_and_know_nothing_of_their_neighbours():
    """χ² of 24 hours below its 0.1 % point (49.7) over cells and over days; neighbours agree as chance has it."""
    lat, lon = np.meshgrid(np.arange(-60.0, 60.0, 0.5), np.arange(-180.0, 180.0, 1.5))
    keys = weather.cell_keys(lat.ravel(), lon.ravel())
    assert np.unique(keys).size == keys.size
    today, tomorrow = (np.uint64(weather.mix(np.uint64(number))) for number in (18262, 18263))
    hours = np.array([[weather.start_hour(key, day) for key in keys] for day in (today, tomorrow)])
    one_cell = [weather.start_hour(keys[0], np.uint64(weather.mix(np.uint64(number)))) for number in range(36_500)]
    for sample in (hours[0], hours[1], np.array(one_cell)):
        assert (sample == np.floor(sample)).all()
        counts = np.bincount(sample.astype(int), minlength=24)
        assert counts.size == 24 and (counts - sample.size / 24).__pow__(2).sum() * 24 / sample.size < 49.7
    pairs = ((hours[0], hours[1]), (hours[0][1:], hours[0][:-1]), (one_cell[1:], one_cell[:-1]))
    for one, other in pairs:
        agree = (np.array(one) == np.array(other)).mean()
        assert abs(agree - 1 / 24) < 4 * math.sqrt(1 / 24 / len(one))


def test_a_place_keeps_its_key_through_single_precision():
    lat, lon = np.round(places(1000), 2)
    same = weather.cell_keys(lat.astype(np.float32), lon.astype(np.float32)) == weather.cell_keys(lat, lon)
    assert same.all()
    assert weather.cell_keys(10.0, 190.0) == weather.cell_keys(10.0, -170.0) != weather.cell_keys(10.0, 170.0)


# --- bits -----------------------------------------------------------------------------------------------------------
def test_any_subset_order_and_block_gives_the_same_bits():
    lat, lon = places(100)
    numbers, daily = np.arange(18262, 18268), anything(100, 6)
    whole = run(daily, lat, lon, numbers, 24)
    for cells in (np.arange(3, 50), np.arange(99, -1, -1), np.array([77]), np.arange(0, 100, 7)):
        part = run(np.ascontiguousarray(daily[:, :, cells]), lat[cells], lon[cells], numbers, 24)
        assert part.tobytes() == whole[..., cells].tobytes()
    backwards = run(np.ascontiguousarray(daily[:, ::-1]), lat, lon, numbers[::-1].copy(), 24)
    assert backwards.tobytes() == whole[:, ::-1].tobytes()


def block(dtype: type, function: object) -> np.ndarray:
    """One day of one block (step, OUT, BLOCK), straight from the block function."""
    lat, lon = places(BLOCK)
    w = np.zeros((ROWS, BLOCK), dtype)
    w[:DAILY] = anything(BLOCK, 1)[:, 0]
    w[LAT], w[LON] = lat, lon
    out = np.empty(48 * OUT * BLOCK, dtype)
    function(w.ravel(), weather.cell_keys(lat, lon), JUNE, 48, out)
    return out.reshape(48, OUT, BLOCK)


def test_a_block_is_the_documented_layout():
    lat, lon = places(BLOCK)
    rows = run(anything(BLOCK, 1), lat, lon, np.array([JUNE]), 48)[:, 0]
    assert block(np.float64, weather.day).transpose(1, 0, 2).tobytes() == rows.tobytes()


def test_single_precision_is_close():
    """float32 against float64: 1e-5 of each variable's largest value (sunlight near the horizon is a difference)."""
    exact, fast = block(np.float64, weather.day), block(np.float32, single(weather.day))
    assert fast.dtype == np.float32
    for row, name in enumerate(STEP_ROWS):
        np.testing.assert_allclose(fast[:, row], exact[:, row], atol=1e-5 * exact[:, row].max(), err_msg=name)
