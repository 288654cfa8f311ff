"""Forcing against the worked examples of FAO Irrigation and Drainage Paper 56 (Allen et al. 1998), and exact means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import checks, forcing
from twin.errors import TimeError, VariableError
from twin.variables import VARIABLES, with_role

MJ_PER_DAY, KPA = 1e6 / 86400.0, 1e3


@pytest.mark.parametrize(("metres", "kpa"), [(0.0, 101.3), (1800.0, 81.8), (100.0, 100.1)])
def test_pressure_examples_2_and_18(metres, kpa):
    assert forcing.standard_pressure(metres) / KPA == pytest.approx(kpa, abs=0.05)


def test_psychrometric_constant_example_2():
    assert forcing.psychrometric_constant(81.8 * KPA) / KPA == pytest.approx(0.054, abs=5e-4)


@pytest.mark.parametrize(("celsius", "kpa"), [(24.5, 3.075), (15.0, 1.705)])
def test_saturation_vapour_pressure_example_3(celsius, kpa):
    assert forcing.saturation_vapour_pressure(celsius + 273.15) / KPA == pytest.approx(kpa, abs=5e-4)


def test_wind_example_14():
    assert forcing.wind_at_2m(3.2, 10.0) == pytest.approx(2.4, abs=0.05)


def test_reference_evapotranspiration_example_17_bangkok_april():
    """5.72 mm/day from monthly means; the deficit of the example uses the mean of e(Tmax) and e(Tmin)."""
    found = forcing.reference_evapotranspiration(
        14.33 * MJ_PER_DAY, 30.2 + 273.15, 2.0, (4.42 - 2.85) * KPA, 101.3 * KPA, ground_heat=0.14 * MJ_PER_DAY
    )
    assert found * 86400.0 == pytest.approx(5.72, abs=0.02)


def test_reference_evapotranspiration_example_18_uccle_6_july():
    """3.88, printed as 3.9 mm/day."""
    found = forcing.reference_evapotranspiration(13.28 * MJ_PER_DAY, 16.9 + 273.15, 2.078, 0.589 * KPA, 100.1 * KPA)
    assert found * 86400.0 == pytest.approx(3.88, abs=0.01)


def test_humidity_and_vapour_pressure_are_inverse():
    q = np.array([0.0, 0.001, 0.02])
    np.testing.assert_allclose(forcing.specific_humidity(forcing.vapour_pressure(q, 9e4), 9e4), q, rtol=1e-14)


def test_deficit_is_never_negative():
    assert forcing.vapour_pressure_deficit(280.0, 0.03, 1e5) == 0.0
    assert (
        forcing.vapour_pressure_deficit(np.array([280.0, 300.0]), 0.01, 1e5) == [0.0, pytest.approx(1938, abs=20)]
    ).all()


# --- derive ---------------------------------------------------------------------------------------------------------
def provider() -> xr.Dataset:
    """One day of a provider with rain and snow apart, wind components, no pressure."""
    values = {
        "rainfall_flux": 1e-5,
        "snowfall_flux": 2e-5,
        "eastward_wind": -3.0,
        "northward_wind": 4.0,
        "air_temperature": 280.0,
        "specific_humidity": 0.005,
        "surface_downwelling_shortwave_flux_in_air": 100.0,
        "surface_downwelling_longwave_flux_in_air": 300.0,
    }
    ds = xr.Dataset({name: (("time", "cell"), np.full((1, 2), value)) for name, value in values.items()})
    for name in set(values) & set(VARIABLES):
        ds[name].attrs = VARIABLES[name].attrs
    return ds.assign_coords(time=pd.date_range("2020-01-01", periods=1))


def test_derive_gives_the_table_and_says_what_it_made():
    ds = forcing.derive(provider())
    assert list(ds.data_vars) == [variable.name for variable in with_role("forcing")]
    assert ds.attrs["derived"] == "precipitation_flux wind_speed surface_air_pressure"
    assert float(ds["wind_speed"][0, 0]) == 5.0
    assert float(ds["precipitation_flux"][0, 0]) == pytest.approx(3e-5)
    assert float(ds["surface_air_pressure"][0, 0]) == pytest.approx(101.3e3)
    checks.check_dataset(ds, "forcing")


def test_derive_uses_altitude_dew_point_and_relative_humidity():
    ds = provider().drop_vars("specific_humidity").assign(surface_altitude=("cell", [0.0, 1800.0]))
    pressure = forcing.derive(ds.assign(relative_humidity=ds["air_temperature"] * 0 + 0.5))["surface_air_pressure"]
    np.testing.assert_allclose(pressure.values[0] / KPA, [101.3, 81.8], atol=0.05)
    dew = forcing.derive(ds.assign(dew_point_temperature=ds["air_temperature"] * 0 + 275.0))
    vapour = forcing.vapour_pressure(dew["specific_humidity"], dew["surface_air_pressure"])
    np.testing.assert_allclose(vapour.values, forcing.saturation_vapour_pressure(275.0), rtol=1e-12)


def test_what_is_there_is_not_derived_again():
    ds = provider()
    ds["wind_speed"] = (("time", "cell"), np.full((1, 2), 7.0), VARIABLES["wind_speed"].attrs)
    assert float(forcing.derive(ds)["wind_speed"][0, 0]) == 7.0


def test_missing_air_stays_missing_in_derived_pressure():
    ds = provider()
    ds["air_temperature"].values[0, 1] = np.nan
    assert np.isnan(forcing.derive(ds)["surface_air_pressure"].values[0]).tolist() == [False, True]


def test_derive_names_what_is_missing():
    with pytest.raises(VariableError, match="expected air_temperature, surface_air_pressure"):
        forcing.derive(provider().drop_vars("air_temperature"))


# --- daily means ----------------------------------------------------------------------------------------------------
def hourly(first: str, hours: int) -> xr.Dataset:
    values = np.arange(hours, dtype=np.float64)[:, None] * [1.0, 2.0]
    attrs = VARIABLES["air_temperature"].attrs
    return xr.Dataset(
        {"air_temperature": (("time", "cell"), values, attrs)}, {"time": pd.date_range(first, periods=hours, freq="h")}
    )


def test_daily_mean_takes_full_utc_days_and_reports_the_others():
    daily, incomplete = forcing.daily_mean(hourly("2020-02-28T22", 2 + 24 + 24 + 5))
    assert [str(day)[:10] for day in daily["time"].values] == ["2020-02-29", "2020-03-01"]
    np.testing.assert_array_equal(daily["air_temperature"].values, [[13.5, 27.0], [37.5, 75.0]])
    assert incomplete == {"2020-02-28": (2, 24), "2020-03-02": (5, 24)}
    assert daily["air_temperature"].attrs["units"] == "K"


def test_a_gap_makes_a_day_incomplete_and_nan_a_cell_missing():
    ds = hourly("2020-01-01", 48)
    ds["air_temperature"].values[30, 1] = np.nan
    daily, incomplete = forcing.daily_mean(ds.isel(time=[*range(3), *range(4, 48)]))
    assert incomplete == {"2020-01-01": (23, 24)}
    assert np.isnan(daily["air_temperature"].values).tolist() == [[False, True]]


def test_daily_means_of_daily_values_are_themselves():
    ds = hourly("2020-01-01", 3).assign_coords(time=pd.date_range("2020-01-01", periods=3))
    daily, incomplete = forcing.daily_mean(ds)
    np.testing.assert_array_equal(daily["air_temperature"].values, ds["air_temperature"].values)
    assert incomplete == {}


def test_unusable_time_is_refused():
    with pytest.raises(TimeError, match="rising times"):
        forcing.daily_mean(hourly("2020-01-01", 24).isel(time=[1, 0]))
    odd = hourly("2020-01-01", 24).assign_coords(time=pd.date_range("2020-01-01", periods=24, freq="50min"))
    with pytest.raises(TimeError, match="divides the day"):
        forcing.daily_mean(odd)
