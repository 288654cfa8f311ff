"""Reference evapotranspiration against the worked examples of FAO-56 (Allen et al. 1998)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import forcing
from twin.errors import SettingsError, UnitsError, VariableError
from twin.evapotranspiration import (
    HARGREAVES,
    PENMAN_MONTEITH,
    extraterrestrial_radiation,
    net_longwave,
    potential,
)
from twin.variables import VARIABLES

MJ_PER_DAY, DAY = 1e6 / 86400.0, 86400.0
SUN, THERMAL = "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air"


def drivers(day: str, lat: float, days: int = 1, **values: float) -> xr.Dataset:
    attrs = {name: VARIABLES[name].attrs if name in VARIABLES else {"units": "K"} for name in values}
    ds = xr.Dataset(
        {name: (("time", "cell"), np.full((days, 1), value), attrs[name]) for name, value in values.items()}
    )
    return ds.assign_coords(time=pd.date_range(day, periods=days), lat=("cell", [lat]), lon=("cell", [0.0]))


def uccle() -> xr.Dataset:
    """Example 18, 6 July: 21.5 and 12.3 °C, 2.78 m s-1 at 10 m, vapour pressure 1.409 kPa, sunlight 22.07 MJ m-2."""
    pressure = float(forcing.standard_pressure(100.0))
    given = {
        "air_temperature": 16.9 + 273.15,
        "air_temperature_range": 9.2,
        "specific_humidity": float(forcing.specific_humidity(1409.0, pressure)),
        "wind_speed": 2.78,
        "surface_air_pressure": pressure,
        SUN: 22.07 * MJ_PER_DAY,
    }
    return drivers("2015-07-06", 50.8, **given).assign(surface_altitude=("cell", [100.0]))


def test_extraterrestrial_radiation_example_8():
    """20° S, 3 September: 32.2 MJ m-2 day-1."""
    found = extraterrestrial_radiation(-20.0, np.array(["2015-09-03"], "datetime64[ns]")) / MJ_PER_DAY
    assert found.item() == pytest.approx(32.2, abs=0.05)


def test_extraterrestrial_radiation_where_it_has_a_closed_form():
    """Over the equator at equinox S0/π, at the pole S0 sin δ all summer's day and nothing in winter, of 1367 W m-2."""
    time = pd.to_datetime(["2015-03-22", "2015-06-21", "2015-12-21"]).values
    found = extraterrestrial_radiation([0.0, 90.0], time)
    distance = 1.0 + 0.033 * np.cos(2.0 * np.pi * np.array([81, 172, 355]) / 365.0)
    assert found[0, 0] == pytest.approx(0.0820e6 / 60.0 * distance[0] / np.pi, rel=2e-3)
    assert found[1, 1] == pytest.approx(0.0820e6 / 60.0 * distance[1] * np.sin(0.409), rel=1e-3)
    assert found[2, 1] == 0.0


def test_net_longwave_example_11():
    """Rio de Janeiro, May: 25.1 and 19.1 °C, 2.1 kPa, 14.5 of 18.8 clear-sky MJ m-2: loses 3.5 MJ m-2 day-1."""
    top = 25.1 * MJ_PER_DAY
    found = net_longwave(22.1 + 273.16, 6.0, 2100.0, 14.5 * MJ_PER_DAY, top) / MJ_PER_DAY
    assert found == pytest.approx(3.5, abs=0.05)


def test_penman_monteith_example_18_uccle_6_july():
    """3.88, printed as 3.9 mm/day, from the day's weather alone: radiation balance and deficit are ours."""
    found = potential(uccle())
    assert found.item() * DAY == pytest.approx(3.88, abs=0.03)
    assert found.dims == ("time", "cell") and found.attrs["units"] == "kg m-2 s-1"
    assert found.name == found.attrs["standard_name"] == "water_potential_evaporation_flux"
    assert found.attrs["method"] == PENMAN_MONTEITH and "eq. 39" in found.attrs["net_longwave"]


def test_thermal_radiation_is_used_where_it_is_known():
    """The loss of the example, 3.71 MJ m-2, told by what comes down; without the range es is that of the mean."""
    ds = uccle().drop_vars("surface_altitude")
    down = 4.903e-9 * MJ_PER_DAY * (16.9 + 273.15) ** 4 - 3.71 * MJ_PER_DAY
    ds[THERMAL] = (("time", "cell"), [[down]], VARIABLES[THERMAL].attrs)
    found = potential(ds)
    assert found.item() * DAY == pytest.approx(3.88, abs=0.03) and "thermal" in found.attrs["net_longwave"]
    assert 3.6 < potential(ds.drop_vars("air_temperature_range")).item() * DAY < found.item() * DAY


def test_hargreaves_example_20_lyon_july():
    """Tmax 26.6, Tmin 14.8 °C, 45°43' N, 15 July, Ra 40.6: 5.0 mm/day."""
    given = drivers("2015-07-15", 45.717, air_temperature=20.7 + 273.15, air_temperature_range=11.8)
    found = potential(given)
    assert found.item() * DAY == pytest.approx(5.0, abs=0.06)
    assert found.attrs["method"] == HARGREAVES
    both = potential(uccle(), HARGREAVES)
    assert both.attrs["method"] == HARGREAVES and both.item() * DAY == pytest.approx(3.9, abs=0.6)


def test_it_never_rains_upwards_and_missing_stays():
    """A polar night with dew; a day without temperature."""
    cold = drivers("2015-12-20", 80.0, 2, air_temperature=250.0, air_temperature_range=4.0)
    cold["air_temperature"][1] = np.nan
    found = potential(cold).values
    assert found[0] == 0.0 and np.isnan(found[1])


def test_pressure_is_made_of_altitude():
    assert potential(uccle().drop_vars("surface_air_pressure")).item() == pytest.approx(
        potential(uccle()).item(), rel=1e-6
    )


def test_what_is_missing_is_named():
    ds = uccle()[["wind_speed", "surface_altitude"]]
    with pytest.raises(VariableError, match="hargreaves-samani: air_temperature, air_temperature_range"):
        potential(ds)
    with pytest.raises(VariableError, match="fao56-penman-monteith: specific_humidity"):
        potential(uccle().drop_vars("specific_humidity"), PENMAN_MONTEITH)
    with pytest.raises(SettingsError, match="method: expected fao56-penman-monteith or hargreaves-samani"):
        potential(uccle(), "thornthwaite")
    wrong = uccle()
    wrong["air_temperature"].attrs["units"] = "degC"
    with pytest.raises(UnitsError, match="'air_temperature': expected K"):
        potential(wrong)
