"""Soil-moisture percentiles with intervals, SMI and both usages of WRSI, against counts, limits and known coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import climatology, parameters
from twin.errors import SettingsError, TimeError, VariableError
from twin.indices.moisture import percentile_interval, smi, soil_moisture_percentile, wrsi, wrsi_fao
from twin.indices.season import wet_season
from twin.indices.spells import availability

DAYS = pd.date_range("1991-01-01", "2020-12-31")


def series(values: np.ndarray, days=DAYS, units: str = "m3 m-3") -> xr.DataArray:
    return xr.DataArray(values, {"time": days[: len(values)]}, ("time", "cell"), "theta", {"units": units})


def remembering(cells: int, days=DAYS, seed: int = 0, memory: float = 45.0) -> np.ndarray:
    """Standard normal values that forget within 45 days."""
    rng, kept = np.random.default_rng(seed), np.exp(-1.0 / memory)
    values, now = np.empty((len(days), cells)), rng.standard_normal(cells)
    for row in range(len(days)):
        values[row] = now
        now = kept * now + np.sqrt(1 - kept**2) * rng.standard_normal(cells)
    return values


# --- percentile -------------------------------------------------------------------------------------------------------
def test_ranks_are_those_of_the_climatology():
    theta = series(remembering(5))
    inside = DAYS.year <= 2010
    found = soil_moisture_percentile(theta, (1991, 2010))
    alone, n = climatology.percentile_leave_one_out(theta[inside], DAYS.values[inside])
    built = climatology.build(theta[inside], DAYS.values[inside])
    later = climatology.percentile(theta[~inside], DAYS.values[~inside], built)
    np.testing.assert_array_equal(found["percentile"], np.concatenate([alone, later]))
    assert (n, found["percentile"].attrs["reference_years"]) == (19, 20)
    assert found["low"].attrs["reference_end"] == "2010-12-31"
    np.testing.assert_array_equal(soil_moisture_percentile(theta[~inside], built)["percentile"], later)
    every = soil_moisture_percentile(theta, (1991, 2010), leave_out=False)["percentile"]
    np.testing.assert_array_equal(every, climatology.percentile(theta, DAYS.values, built))


def test_percentiles_are_uniform_and_do_not_know_their_own_year():
    values = remembering(60)
    found = soil_moisture_percentile(series(values))["percentile"].values
    for percent in (5, 10, 20, 30, 50, 80):
        assert (found <= percent).mean() == pytest.approx(percent / 100, abs=0.015)
    dry = values.copy()
    summer = (DAYS.year == 2003) & (DAYS.month.isin([6, 7, 8]))
    dry[summer] = -20.0
    scored = soil_moisture_percentile(series(dry))["percentile"].values[summer]
    np.testing.assert_allclose(scored, 50.0 / 30.0, rtol=1e-5)


def test_one_value_a_year_has_the_beta_interval():
    """The limit of independent years, each with one value within the window: Beta(p(n + 1), (1 − p)(n + 1)).

    With 20 000 draws quantiles are known to half a point.
    """
    n = 30
    years = pd.to_datetime([f"{1980 + year}-07-01" for year in range(n)])
    record = xr.DataArray(np.arange(n, dtype=float)[:, None], {"time": years}, ("time", "cell"), "theta")
    today = np.array(["2021-07-01"], "datetime64[ns]")
    rng = np.random.default_rng(0)
    for below in (0, 3, 15, 30):
        now = xr.DataArray([[below - 0.5]], {"time": today}, ("time", "cell"), "theta")
        low, high = percentile_interval(now, record, rng, draws=20_000)
        draws = np.random.default_rng(1).dirichlet(np.ones(n + 1), 200_000)
        place = draws[:, :below].sum(axis=1) + draws[:, -1] * np.random.default_rng(2).random(200_000)
        np.testing.assert_allclose([low.item(), high.item()], 100 * np.quantile(place, [0.05, 0.95]), atol=0.6)
    known = climatology.interval(np.array([50.0]), n)
    now = xr.DataArray([[14.5]], {"time": today}, ("time", "cell"), "theta")
    low, high = percentile_interval(now, record, rng, draws=20_000)
    np.testing.assert_allclose([low.item(), high.item()], [known[0].item(), known[1].item()], atol=2.0)


@pytest.mark.parametrize(("memory", "seed"), [(10.0, 1), (200.0, 2)])
def test_the_interval_of_years_covers_the_truth(memory, seed):
    """20 years of a climate whose percentiles are known: the 90 % interval holds the true one 85 to 96 % of the time,
    whether the values of a season say much of each other or little."""
    days = pd.date_range("2001-01-01", "2020-12-31")
    values = remembering(400, days, seed, memory)
    rng = np.random.default_rng(3)
    now = rng.standard_normal(400)
    today = xr.DataArray(now[None], {"time": np.array(["2021-07-01"], "datetime64[ns]")}, ("time", "cell"), "theta")
    low, high = percentile_interval(today, series(values, days), rng)
    from scipy.special import ndtr

    truth = 100 * ndtr(now)
    assert 0.85 < ((low.values[0] <= truth) & (truth <= high.values[0])).mean() < 0.96


def test_interval_within_a_record_contains_the_percentile_and_leaves_the_year_out():
    theta = series(remembering(20))
    some = theta.isel(time=slice(3000, 3003))
    low, high = percentile_interval(some, theta, np.random.default_rng(0))
    rank = soil_moisture_percentile(theta)["percentile"][3000:3003]
    assert ((low <= rank + 1.0) & (rank - 1.0 <= high)).all() and float((high - low).mean()) > 10.0
    changed = theta.copy()
    changed[{"time": DAYS.year == DAYS.year[3000]}] = 99.0
    again = percentile_interval(some, changed, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0], low)
    short = theta.isel(time=slice(0, 900))
    whole = soil_moisture_percentile(short, rng=np.random.default_rng(0), draws=50)
    assert (whole["low"] <= whole["high"]).all()


def test_what_is_no_reference_is_refused():
    theta = series(remembering(2))
    with pytest.raises(TimeError, match="reference years: expected 30 or more, found 10"):
        soil_moisture_percentile(theta, (2001, 2010), least=30)
    with pytest.raises(SettingsError, match="interval by years"):
        soil_moisture_percentile(theta, climatology.build(theta, DAYS.values), rng=np.random.default_rng(0))
    with pytest.raises(VariableError, match="expected 2 cells, found 1"):
        percentile_interval(theta[:2], theta[:, :1], np.random.default_rng(0))


def test_missing_is_missing():
    values = remembering(3)
    values[100, 0], values[:, 2] = np.nan, np.nan
    found = soil_moisture_percentile(series(values))
    for name in found:
        assert found[name][:, 2].isnull().all() and found[name][:, 0].isnull().sum() == 1


# --- SMI --------------------------------------------------------------------------------------------------------------
def test_smi_is_availability_at_33_kpa_and_less_below():
    """Field capacity at 10 kPa holds more water, so the same soil is further from it."""
    soil = parameters.from_texture([0.4, 0.8], [0.4, 0.1], [0.2, 0.1])
    theta = series(np.linspace(0.02, 0.45, 50)[:, None] * np.ones(2))
    usual = smi(theta, soil)
    np.testing.assert_array_equal(usual, availability(theta, soil))
    assert usual.min() == 0.0 and usual.max() == 1.0 and usual.name == "soil_moisture_index"
    wetter = smi(theta, soil, field_capacity=1.02)
    inside = (usual > 0) & (usual < 1)
    assert (wetter <= usual).all() and (wetter < usual).where(inside, True).all()
    held = parameters.water_content(1.02, *(soil[n] for n in ("b", "psi_s", "theta_s")), soil.attrs["retention"])
    full = xr.DataArray(
        np.broadcast_to(np.asarray(held).reshape(-1, 2)[0], (3, 2)), {"time": DAYS[:3]}, ("time", "cell")
    )
    np.testing.assert_allclose(smi(full, soil, field_capacity=1.02), 1.0)
    with pytest.raises(SettingsError, match="field capacity: expected a suction below that of wilting, found 160"):
        smi(theta, soil, field_capacity=160.0)


# --- WRSI -------------------------------------------------------------------------------------------------------------
def test_wrsi_of_a_fixed_season_by_hand():
    rng = np.random.default_rng(4)
    beta = series(rng.random((len(DAYS), 3)), units="1")
    found = wrsi(beta, (121, 304))
    assert found["year"].values.tolist() == list(range(1990, 2021))
    for year in (1991, 2000, 2004, 2020):
        inside = beta.sel(time=slice(f"{year}-05-01", f"{year}-10-31")).mean("time")
        np.testing.assert_allclose(found["wrsi"].sel(year=year), 100 * inside, rtol=1e-10)
    known = found["wrsi"].sel(year=slice(1991, 2000)).mean("year")
    against = wrsi(beta, (121, 304), (1991, 2000))["percent_of_climatology"]
    np.testing.assert_allclose(against, 100 * found["wrsi"] / known)
    assert against.attrs["reference_years"] == 10 and against.attrs["reference_end"] == "2000-12-31"
    winter = wrsi(beta, (305, 59))
    inside = beta.sel(time=slice("2003-11-01", "2004-02-28")).mean("time")
    np.testing.assert_allclose(winter["wrsi"].sel(year=2003), 100 * inside, rtol=1e-10)
    assert winter["wrsi"].sel(year=[1990, 2020]).isnull().all() and winter["wrsi"].sel(year=1991).notnull().all()


def test_wrsi_of_the_wet_season():
    """β of 0.8 from April to September, in one year none: that one has no index, the others 80 % but for its edges."""
    wet = (DAYS.month >= 4) & (DAYS.month <= 9)
    values = np.where(wet, 0.8, 0.1)[:, None] * np.ones(2)
    values[DAYS.year == 2005, 1] = 0.1
    beta = series(values, units="1").rename("availability")
    season = wet_season(beta)
    found = wrsi(beta, season)
    whole = found["wrsi"].sel(year=slice(1992, 2019))
    np.testing.assert_allclose(whole[:, 0], 80.0)
    assert whole.isnull().sum() == 1 and whole[:, 1].sel(year=2005).isnull()
    np.testing.assert_allclose(found["percent_of_climatology"].sel(year=slice(1992, 2019))[:, 0], 100.0)


def test_wrsi_of_fao_is_a_share_of_sums():
    rng = np.random.default_rng(5)
    need = series(rng.gamma(2.0, 2.0, (len(DAYS), 2)), units="mm day-1").rename("requirement")
    taken = need * rng.random(need.shape)
    found = wrsi_fao(taken.assign_attrs(units="mm day-1"), need, (1, 365))
    expected = 100 * taken.groupby("time.year").sum() / need.groupby("time.year").sum()
    leap = expected["year"].values % 4 == 0
    np.testing.assert_allclose(found["wrsi"].sel(year=expected["year"][~leap]), expected[~leap], rtol=1e-10)
    flux = (taken / 86400.0).assign_attrs(units="kg m-2 s-1")
    np.testing.assert_allclose(wrsi_fao(flux, need, (1, 365))["wrsi"], found["wrsi"], rtol=1e-10)
    few, many = taken.copy(), taken.copy()
    few[100:115, 0], many[100:116, 0] = np.nan, np.nan
    lost = [
        wrsi_fao(v.assign_attrs(units="mm"), need, (1, 365))["wrsi"].sel(year=1991)[0].isnull() for v in (few, many)
    ]
    assert [bool(value) for value in lost] == [False, True]
    with pytest.raises(VariableError, match="requirement"):
        wrsi_fao(taken, need[:, :1], (1, 365))
    with pytest.raises(SettingsError, match="season: expected days of the year, 1 to 365"):
        wrsi(taken, (0, 100))
