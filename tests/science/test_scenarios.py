"""Changed climates against the laws they must keep, and the correction of bias against what it promises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import forcing as recipes
from twin import grid, synthetic
from twin.errors import RangeError, SettingsError, VariableError
from twin.scenarios import (
    AIR,
    CARBON_DIOXIDE,
    HUMIDITY,
    KINDS,
    PRESSURE,
    RAIN,
    SNOWFALL,
    SUNLIGHT,
    THERMAL,
    WET,
    WIND,
    Correction,
    Delta,
    clear_sky_emissivity,
    thermal_radiation,
)

SIGMA = 5.670374e-8


def weather(days: pd.DatetimeIndex, cells: int = 12) -> xr.Dataset:
    """Simulated weather from the Sahara to the Congo."""
    places = grid.from_points(np.linspace(24.0, -4.0, cells), np.linspace(2.0, 22.0, cells), "some", 1.0)
    return synthetic.forcing(synthetic.climate(places), days)


YEAR = weather(pd.date_range("2001-01-01", "2001-12-31"))


def relative_humidity(data: xr.Dataset) -> np.ndarray:
    vapour = recipes.vapour_pressure(data[HUMIDITY].astype(float), data[PRESSURE].astype(float))
    return (vapour / recipes.saturation_vapour_pressure(data[AIR].astype(float))).values


# ----------------------------------------------------------------------------------------------------------- changes
def test_no_change_is_the_same_forcing():
    assert Delta().apply(YEAR) is YEAR
    assert Delta().identity == Delta(months=(5,)).identity == {}


def test_a_fifth_less_rain_adds_up_to_four_fifths_and_changes_nothing_else():
    drier = Delta(rain=0.8).apply(YEAR)
    before, after = (data[RAIN].values.astype(float).sum(axis=0) for data in (YEAR, drier))
    np.testing.assert_allclose(after, 0.8 * before, rtol=1e-6)  # float32 keeps 6e-8 of each day
    assert drier.drop_vars(RAIN).identical(YEAR.drop_vars(RAIN))
    assert drier[RAIN].dtype == YEAR[RAIN].dtype and drier[RAIN].attrs == YEAR[RAIN].attrs


@settings(max_examples=30, deadline=None)
@given(st.floats(-8.0, 8.0).filter(lambda d: abs(d) > 0.01), st.floats(0.0, 1.5))
def test_relative_humidity_stays_and_what_is_not_named_too(temperature, rain):
    found = Delta(rain=rain, temperature=temperature).apply(YEAR)
    np.testing.assert_allclose(found[AIR] - YEAR[AIR], temperature, atol=1e-4)
    unlimited = found[HUMIDITY].values < 0.0599
    np.testing.assert_allclose(relative_humidity(found)[unlimited], relative_humidity(YEAR)[unlimited], rtol=3e-5)
    for name in (WIND, PRESSURE, SUNLIGHT):
        assert found[name].identical(YEAR[name])


def test_a_kelvin_is_about_seven_per_cent_of_vapour():
    """Clausius and Clapeyron: 5 to 8 % between 273 and 310 K (Held & Soden 2006, J. Climate 19, 5686: 7 %)."""
    found = Delta(temperature=1.0).apply(YEAR)
    more = (found[HUMIDITY] / YEAR[HUMIDITY]).values - 1.0
    assert more.min() > 0.05 and more.max() < 0.08 and 0.055 < more.mean() < 0.07


def test_a_black_sky_follows_the_fourth_power_and_a_clear_one_its_formula():
    air, vapour, warmer, moister = 290.0, 1200.0, 294.0, 1550.0
    black, clear = SIGMA * air**4, clear_sky_emissivity(air, vapour) * SIGMA * air**4
    assert thermal_radiation(black, air, vapour, warmer, moister) == pytest.approx(SIGMA * warmer**4, rel=1e-12)
    expected = clear_sky_emissivity(warmer, moister) * SIGMA * warmer**4
    assert thermal_radiation(clear, air, vapour, warmer, moister) == pytest.approx(expected, rel=1e-12)
    same = [thermal_radiation(sky, air, vapour, air, vapour) for sky in (0.5 * clear, clear, 400.0, 1.1 * black)]
    np.testing.assert_allclose(same, [0.5 * clear, clear, 400.0, 1.1 * black], rtol=1e-12)


def test_the_clear_sky_is_between_dry_and_moist_limits():
    """Prata (1996): without vapour 1 − e^(−√1.2) = 0.666 (his fit to the dry atmosphere), towards 1 with much of it."""
    assert clear_sky_emissivity(270.0, 0.0) == pytest.approx(1.0 - np.exp(-np.sqrt(1.2)), abs=1e-12)
    emissivity = clear_sky_emissivity(np.full(50, 300.0), np.linspace(0.0, 3500.0, 50))
    assert (np.diff(emissivity) > 0.0).all() and emissivity[-1] < 0.92


def test_a_warmer_moister_sky_sends_four_per_mille_a_kelvin_beyond_the_fourth_power():
    """In the wet tropics, half clouded; with no vapour feedback the law would leave nothing beyond T⁴."""
    humid = YEAR.isel(cell=slice(8, 12))
    found = Delta(temperature=3.0).apply(humid)
    fourth = ((humid[AIR].astype(float) + 3.0) / humid[AIR]) ** 4
    beyond = float((found[THERMAL] / humid[THERMAL] / fourth).mean() - 1.0) / 3.0
    assert 0.002 < beyond < 0.006


def test_a_season_changes_alone():
    found = Delta(rain=0.5, temperature=2.0, months=(11, 12, 1)).apply(YEAR)
    named = np.isin(YEAR["time"].dt.month.values, (11, 12, 1))
    for name in (RAIN, AIR, HUMIDITY, THERMAL):
        np.testing.assert_array_equal(found[name].values[~named], YEAR[name].values[~named])
    np.testing.assert_allclose(found[AIR].values[named], YEAR[AIR].values[named] + 2.0, atol=1e-4)


def test_fewer_wet_days_have_the_same_rain_in_the_long_run():
    long = weather(pd.date_range("1991-01-01", "2010-12-31"), 40)
    found = Delta(wet_days=0.75).apply(long)
    before, after = (int((data[RAIN] >= WET).sum()) for data in (long, found))
    assert after / before == pytest.approx(0.75, abs=0.01)
    assert float(found[RAIN].mean() / long[RAIN].mean()) == pytest.approx(1.0, abs=0.01)


def test_chance_depends_on_day_and_place_alone():
    whole = Delta(wet_days=0.6, temperature=1.0).apply(YEAR)
    backwards = YEAR.isel(cell=slice(None, None, -1))
    parts = [
        Delta(wet_days=0.6, temperature=1.0).apply(backwards.isel(time=part)) for part in (slice(100), slice(100, None))
    ]
    again = xr.concat(parts, "time").isel(cell=slice(None, None, -1))
    for name in whole:
        np.testing.assert_array_equal(whole[name].values, again[name].values)


def test_snow_is_left_to_the_model_where_the_air_warms_and_kept_in_proportion_where_it_does_not():
    snowy = YEAR.assign({SNOWFALL: 0.25 * YEAR[RAIN]})
    assert SNOWFALL not in Delta(temperature=1.0).apply(snowy)
    found = Delta(rain=0.6).apply(snowy)
    np.testing.assert_allclose(found[SNOWFALL], 0.25 * found[RAIN], rtol=1e-6)


def test_carbon_dioxide_goes_along_with_the_days():
    found = Delta(carbon_dioxide=5.5e-4, months=(6,)).apply(YEAR)
    assert found[CARBON_DIOXIDE].dims == ("time",) and float(found[CARBON_DIOXIDE].min()) == 5.5e-4
    assert found.drop_vars(CARBON_DIOXIDE).identical(YEAR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rain": -0.1}, "change of rain: expected 0 to 5, found -0.1"),
        ({"temperature": 12.0}, "change of temperature: expected -10 to 10 K, found 12.0"),
        ({"temperature": float("nan")}, "change of temperature: expected -10 to 10 K, found nan"),
        ({"wet_days": 1.2}, "change of wet_days: expected 0.3 to 1, found 1.2"),
        ({"carbon_dioxide": 550.0}, "change of carbon_dioxide: expected 0.00015 to 0.002 mol mol-1, found 550.0"),
        ({"months": (0, 1)}, "months of a change: expected some of 1 to 12, once each, found (0, 1)"),
        ({"months": ()}, "months of a change: expected some of 1 to 12, once each, found ()"),
    ],
)
def test_impossible_changes_are_refused(change, message):
    with pytest.raises(SettingsError) as error:
        Delta(**change)
    assert str(error.value) == message


def test_a_forcing_without_the_variable_is_refused():
    with pytest.raises(VariableError, match="specific_humidity"):
        Delta(temperature=1.0).apply(YEAR.drop_vars(HUMIDITY))


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (Delta(), "unchanged"),
        (Delta(rain=0.8, temperature=3.0), "rain −20 %, temperature +3 K"),
        (Delta(rain=1.1, months=(12, 1, 2)), "rain +10 % in December to February"),
        (Delta(temperature=-1.5, months=(3, 9)), "temperature −1.5 K in March, September"),
        (Delta(wet_days=0.9, carbon_dioxide=5.5e-4), "10 % fewer wet days, CO2 550 ppm"),
    ],
)
def test_labels_are_words(delta, words):
    assert delta.label == words


# ------------------------------------------------------------------------------------------------- correction of bias
def july(first: int, last: int, cells: int = 12) -> xr.Dataset:
    years = range(first, last + 1)
    return weather(
        pd.DatetimeIndex(np.concatenate([pd.date_range(f"{year}-07-01", f"{year}-07-31") for year in years])), cells
    )


def biased(data: xr.Dataset, rain: float, dry: float) -> xr.Dataset:
    """A model that rains `rain` times as much, loses the weakest part `dry` of wet days, is warm, windy and dull."""
    wet = data[RAIN].values
    threshold = np.quantile(wet, dry, axis=0)
    changed = data.assign({RAIN: data[RAIN].copy(data=np.where(wet > threshold, rain * wet, 0.0).astype(np.float32))})
    changed[AIR] = data[AIR] + 2.5
    changed[WIND], changed[SUNLIGHT], changed[THERMAL] = 1.3 * data[WIND], 0.85 * data[SUNLIGHT], data[THERMAL] - 12.0
    return changed


REFERENCE = july(1991, 2020)


@pytest.mark.parametrize(("rain", "dry"), [(1.6, 0.0), (0.7, 0.75)], ids=["too wet", "too many dry days"])
def test_the_past_becomes_the_reference(rain, dry):
    """Means within 2 %, wet days within 3 in 100, and every tenth percentile of the air within 0.15 K."""
    model = biased(REFERENCE, rain, dry)
    found = Correction.of(REFERENCE, model).apply(model)
    for name in KINDS:
        true, was, now = (data[name].values.astype(float).mean(axis=0) for data in (REFERENCE, model, found))
        tolerance = 0.02 if name != RAIN else 0.05
        wet = true > (5e-7 if name == RAIN else -np.inf)  # not where there are three showers in thirty years
        np.testing.assert_allclose(now[wet], true[wet], rtol=tolerance)
        if name in (RAIN, AIR, WIND):
            assert (np.abs(now - true)[wet] < np.abs(was - true)[wet]).all()
    wet_days = [(data[RAIN].values >= WET).mean(axis=0) for data in (REFERENCE, found)]
    np.testing.assert_allclose(wet_days[1], wet_days[0], atol=0.03)
    tenths = [np.quantile(data[AIR], np.linspace(0.1, 0.9, 9), axis=0) for data in (REFERENCE, found)]
    np.testing.assert_allclose(tenths[1], tenths[0], atol=0.15)


def test_the_models_own_change_is_kept():
    """Cannon et al. (2015): quantile delta mapping keeps absolute changes of temperature, relative ones of rain."""
    model = biased(REFERENCE, 1.6, 0.0)
    future = Delta(rain=0.7, temperature=3.0).apply(model).isel(time=slice(0, 310))
    correction, past = Correction.of(REFERENCE, model), model.isel(time=slice(0, 310))
    then, now = correction.apply(future), correction.apply(past)
    np.testing.assert_allclose((then[AIR] - now[AIR]).mean("time"), 3.0, atol=0.05)
    rainy = now[RAIN].mean("time").values > 5e-6
    np.testing.assert_allclose((then[RAIN].mean("time") / now[RAIN].mean("time"))[rainy], 0.7, atol=0.03)


def test_corrected_values_are_possible():
    model = biased(REFERENCE, 1.6, 0.3)
    hot = Delta(rain=5.0, temperature=9.0).apply(model).assign({SNOWFALL: 0.1 * model[RAIN]})
    found = Correction.of(REFERENCE, model).apply(hot)
    held = recipes.specific_humidity(recipes.saturation_vapour_pressure(found[AIR].astype(float)), found[PRESSURE])
    assert (found[HUMIDITY] <= held * (1 + 1e-6)).all()
    assert float(found[RAIN].min()) == 0.0 and float(found[RAIN].max()) <= 0.02
    assert (found[SNOWFALL] <= found[RAIN]).all()
    assert all(np.isfinite(found[name]).all() for name in found)


def test_cells_are_corrected_each_by_itself():
    model = biased(REFERENCE, 0.7, 0.5)
    whole = Correction.of(REFERENCE, model).apply(model)
    some = [7, 2]
    parts = Correction.of(REFERENCE.isel(cell=some), model.isel(cell=some)).apply(model.isel(cell=some))
    for name in KINDS:
        np.testing.assert_array_equal(parts[name].values, whole[name].values[:, some])


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(RangeError, match="days of the reference: expected 150 or more, found 93"):
        Correction.of(july(1991, 1993), REFERENCE)
    with pytest.raises(VariableError, match="wind_speed"):
        Correction.of(REFERENCE, REFERENCE.drop_vars(WIND))


@pytest.mark.real_data
def test_a_real_climate_model_loses_its_bias_and_keeps_its_warming(real_data):
    """CanESM2 RCP8.5 against station records in Canada (AHCCD), January and July, daily highs and precipitation."""
    folder = real_data / "climate_model" / "xclim" / "sdba"
    with (
        xr.open_dataset(folder / "CanESM2_1950-2100.nc") as model,
        xr.open_dataset(folder / "ahccd_1950-2013.nc") as seen,
    ):
        for month in (1, 7):
            past, future, true = (
                _as_forcing(data.sel(time=slice(str(a), str(b))), month)
                for data, a, b in ((model, 1981, 2010), (model, 2071, 2100), (seen, 1981, 2010))
            )
            correction = Correction.of(true, past)
            now, then = correction.apply(past), correction.apply(future)
            bias = [np.abs((data[AIR] - true[AIR]).mean("time")) for data in (past, now)]
            assert (bias[1] < 0.1).all() and float(bias[0].max()) > 1.0
            warming = [(b[AIR].mean("time") - a[AIR].mean("time")).values for a, b in ((past, future), (now, then))]
            np.testing.assert_allclose(warming[1], warming[0], atol=0.1)
            wet = [(data[RAIN] >= WET).mean("time").values for data in (true, past, now)]
            assert (np.abs(wet[2] - wet[0]) < 0.03).all() and np.abs(wet[1] - wet[0]).max() > 0.1
            amount = [data[RAIN].mean("time").values for data in (true, now)]
            np.testing.assert_allclose(amount[1], amount[0], rtol=0.1)  # the wettest days share a factor


def _as_forcing(data: xr.Dataset, month: int) -> xr.Dataset:
    """Rain and daily highs as forcing of a month; what the stations did not measure is the same everywhere."""
    data = data.isel(time=(data["time"].dt.month == month).values).transpose("time", "location").load()
    rain = data["pr"].values / (86400.0 if data["pr"].attrs["units"] == "mm day-1" else 1.0)
    air = data["tasmax"].values + (273.15 if data["tasmax"].attrs["units"] == "degC" else 0.0)
    rain, air = (pd.DataFrame(values).ffill().bfill().values for values in (rain, air))
    constant = {HUMIDITY: 1e-3, WIND: 3.0, PRESSURE: 1e5, SUNLIGHT: 100.0, THERMAL: 280.0}
    held = {name: np.full(rain.shape, value) for name, value in constant.items()}
    days = pd.to_datetime([f"{day.year}-{day.month:02}-{day.day:02}" for day in data["time"].values])
    place = {name: ("cell", data[name].values.astype(float)) for name in ("lat", "lon")}
    values = {RAIN: rain, AIR: air, **held}
    return xr.Dataset({name: (("time", "cell"), array) for name, array in values.items()}, {"time": days, **place})
