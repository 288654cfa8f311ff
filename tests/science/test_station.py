"""What a station did not measure, estimated as FAO-56 does; its local years; and trends by their definitions."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin.errors import TimeError
from twin.forcing import saturation_vapour_pressure, specific_humidity, vapour_pressure, wind_at_2m
from twin.station import complete, study, trend, year_of
from twin.variables import VARIABLES


def station(last: str = "1970-12-31", **measured: float) -> xr.Dataset:
    """One place at 9° N from 1970 on: rain and temperature with its range, and what else was measured, constant."""
    days = pd.date_range("1970-01-01", last)
    air = 300.65 + 2.0 * np.sin(days.day_of_year.to_numpy() / 58.0)
    given = {"precipitation_flux": 3.5e-5, "air_temperature": air, "air_temperature_range": 11.0, **measured}
    ds = xr.Dataset({name: ("time", np.broadcast_to(value, days.size)) for name, value in given.items()})
    return ds.expand_dims("cell", 1).assign_coords(time=days, lat=("cell", [9.0]), lon=("cell", [-1.0]))


def test_what_is_missing_is_estimated_as_fao_56_does():
    """Dew point at the lowest temperature, 2 m/s at 2 m, the standard atmosphere; and it is said."""
    weather, told = complete(station(), 200.0)
    vapour = vapour_pressure(weather["specific_humidity"], weather["surface_air_pressure"]).values
    air = weather["air_temperature"].values
    assert vapour == pytest.approx(saturation_vapour_pressure(air - 5.5))
    assert wind_at_2m(weather["wind_speed"]).values == pytest.approx(2.0)
    assert weather["surface_air_pressure"].values[0, 0] == pytest.approx(98_960.0, abs=50.0)  # FAO-56, table 2.1
    thermal, sun = (weather[f"surface_downwelling_{name}_flux_in_air"].values for name in ("longwave", "shortwave"))
    assert (thermal < 5.67e-8 * air**4).all() and (thermal > 0.6 * 5.67e-8 * air**4).all()
    assert 150.0 < sun.mean() < 280.0 and len(told) == 5
    assert weather["air_temperature"].dims == ("time", "cell")
    assert all(weather[name].attrs == VARIABLES[str(name)].attrs for name in weather)


def test_what_was_measured_is_not_estimated():
    weather, told = complete(station(relative_humidity=0.6, wind_speed=3.0, surface_air_pressure=99_000.0), 0.0)
    expected = specific_humidity(0.6 * saturation_vapour_pressure(weather["air_temperature"].values), 99_000.0)
    assert weather["specific_humidity"].values == pytest.approx(expected)
    assert (weather["wind_speed"] == 3.0).all() and (weather["surface_air_pressure"] == 99_000.0).all()
    assert len(told) == 2


def test_too_few_years_are_refused():
    with pytest.raises(TimeError, match="reference years: expected 30 or more of every month, found 20"):
        study(station("1989-12-31"))


@pytest.mark.parametrize(
    ("start_month", "peak", "expected"),
    [
        (1, 230, [1999, 2000, 2000]),  # the Sahel: calendar years
        (7, 20, [2000, 2000, 2001]),  # southern Africa: wettest in January, after the year began
        (3, 250, [1999, 1999, 2000]),  # wettest in September of the year it began in
    ],
)
def test_a_local_year_is_named_after_the_calendar_year_of_its_wettest_day(start_month, peak, expected):
    regime = xr.Dataset({"start_month": ("cell", [start_month]), "peak": ("cell", [peak])})
    days = np.array(["1999-12-31", "2000-02-01", "2000-08-01"], "datetime64[ns]")
    assert year_of(regime, days).tolist() == expected


def test_a_slope_is_the_median_over_all_pairs():
    """Sen (1968); a wild value among 20 moves it little, and its interval holds the true slope."""
    rng = np.random.default_rng(4)
    values = pd.Series(3.0 * np.arange(20) + rng.normal(0.0, 2.0, 20), index=np.arange(1981, 2001))
    values[1999] = 500.0
    pairs = [(values[b] - values[a]) / (b - a) for a, b in combinations(values.index, 2)]
    slope, low, high, _ = trend(values)
    assert slope == pytest.approx(median(pairs)) and low < 3.0 < high and abs(slope - 3.0) < 0.3


def test_the_probability_of_a_trend_is_that_of_its_order():
    """Kendall (1938): of the 5! orders of five values two are monotone; no trend in what goes up as often as down."""
    years = [2001, 2002, 2003, 2004, 2005]
    assert trend(pd.Series([5.0, 4.0, 3.0, 2.5, 0.0], years))[3] == pytest.approx(2 / 120)
    assert trend(pd.Series([2.0, 5.0, 1.0, 4.0, 3.0], years))[3] > 0.5
