"""The seasonal outlook against limiting cases, a peer's defect, and synthetic climates whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from twin import grid, synthetic
from twin.errors import RangeError, TimeError, VariableError
from twin.land import LandDaily
from twin.outlook import (
    analogues,
    below,
    below_as_normal,
    carried,
    equal,
    hindcast,
    mean_and_deviation,
    outlook,
    same_days,
    terciles,
    weighted_quantile,
)
from twin.parameters import from_texture
from twin.state import initial, root_zone
from twin.verification import brier, brier_skill_score, ranked_probability_skill_score, reliability_curve

SEASON = ("2010-05-01", "2010-08-31")
DAYS = pd.date_range("1971-01-01", "2010-12-31")


def total(days: xr.DataArray) -> xr.DataArray:
    return days.sum("time")


def record(values: np.ndarray, days: pd.DatetimeIndex = DAYS) -> xr.DataArray:
    values = np.asarray(values, np.float64)
    return xr.DataArray(values, {"time": days}, ("time", "cell"), "rainfall", {"units": "mm day-1"})


def rain(cells: int = 4, seed: int = 1, memory: float = 0.0) -> xr.DataArray:
    """Daily rain whose years are wet or dry: a share `memory` of a season's anomaly is there from its first day."""
    rng = np.random.default_rng(seed)
    year = DAYS.year.to_numpy() - DAYS[0].year
    wet = np.exp(memory * rng.standard_normal((year.max() + 1, cells)))
    return record(rng.gamma(0.5, 6.0, (DAYS.size, cells)) * wet[year])


WITHOUT_MEMORY, WITH_MEMORY = rain(), rain(cells=12, seed=2, memory=0.5)


# ------------------------------------------------------------------------------------------------------- the ensemble
def test_alike_weights_are_plain_resampling():
    """Members, quantiles and probabilities by hand: the days so far, and those of each past year after them."""
    found = outlook(WITHOUT_MEMORY, total, SEASON, issued="2010-06-15")
    values = WITHOUT_MEMORY.sel(time=slice("2010-05-01", "2010-06-15")).sum("time").values
    past = [WITHOUT_MEMORY.sel(time=slice(f"{y}-06-16", f"{y}-08-31")).sum("time").values for y in range(1971, 2010)]
    members = values + np.stack(past)
    np.testing.assert_allclose(found["member"], members)
    assert found["year"].values.tolist() == list(range(1971, 2010)) and (found["weight"] == 1.0 / 39.0).all()
    np.testing.assert_allclose(
        found["member_quantile"], np.quantile(members, found["quantile"].values, axis=0, method="hazen")
    )
    np.testing.assert_allclose(found["mean"], members.mean(axis=0))
    np.testing.assert_allclose(found["standard_deviation"], members.std(axis=0, ddof=1))
    np.testing.assert_allclose(found["effective_sample_size"], 39.0)
    seasons = np.stack(
        [WITHOUT_MEMORY.sel(time=slice(f"{y}-05-01", f"{y}-08-31")).sum("time") for y in range(1971, 2010)]
    )
    bounds = np.quantile(seasons, [1 / 3, 2 / 3], axis=0, method="hazen")
    np.testing.assert_allclose(found["tercile_bound"], bounds)
    np.testing.assert_allclose(found["tercile_probability"][0], (members < bounds[0]).mean(axis=0))
    np.testing.assert_allclose(found["tercile_probability"].sum("tercile"), 1.0)
    assert found.attrs["reference_start"] == "1971-05-01" and found.attrs["reference_end"] == "2009-08-31"
    assert found.attrs["reference_years"] == 39 and found.attrs["issued"] == "2010-06-15"


def test_before_the_season_it_is_climatology_and_after_it_what_was():
    before = outlook(WITHOUT_MEMORY, total, SEASON, issued="2010-04-30")
    np.testing.assert_allclose(before["tercile_probability"], 1.0 / 3.0, atol=1e-12)
    np.testing.assert_allclose(before["mean"], before["climatology_mean"])
    assert np.abs(before["probability_below"] - 0.2).max() < 0.5 / 39
    after = outlook(WITHOUT_MEMORY, total, SEASON, issued="2010-08-31")
    truth = WITHOUT_MEMORY.sel(time=slice(*SEASON)).sum("time")
    np.testing.assert_allclose(after["member"], np.broadcast_to(truth, after["member"].shape))
    assert set(np.unique(after["tercile_probability"])) <= {0.0, 1.0}
    np.testing.assert_allclose(after["tercile_probability"], after["tercile_probability_normal"], atol=1e-12)


def test_the_year_foretold_is_not_among_its_members_nor_in_its_climatology():
    """Whatever the target's days to come hold, the outlook is the same."""
    other = WITHOUT_MEMORY.copy(data=np.where((DAYS >= "2010-06-16")[:, None], 1e6, WITHOUT_MEMORY.values))
    first, second = (outlook(data, total, SEASON, issued="2010-06-15") for data in (WITHOUT_MEMORY, other))
    assert first.identical(second)
    assert 1990 not in outlook(WITHOUT_MEMORY, total, ("1990-05-01", "1990-08-31"), issued="1990-06-15")["year"]


def test_any_function_of_a_season_can_be_foretold():
    def longest_dry(days: xr.DataArray) -> xr.DataArray:
        dry, run = (days < 1.0).values, np.zeros(days.sizes["cell"])
        longest = run.copy()
        for row in dry:
            run = row * (run + 1)
            longest = np.maximum(longest, run)
        return xr.DataArray(longest, dims="cell")

    found = outlook(WITHOUT_MEMORY, longest_dry, SEASON, issued="2010-06-15", percentiles=(20.0, 80.0))
    assert found["probability_below"].dims == ("percentile", "cell") and found.sizes["percentile"] == 2
    so_far = longest_dry(WITHOUT_MEMORY.sel(time=slice("2010-05-01", "2010-06-15")))
    assert (found["member"] >= so_far).all()


def test_29_february_counts_as_28_february():
    days = pd.date_range("2000-02-27", "2000-03-01")
    assert same_days(days, 1).strftime("%m-%d").tolist() == ["02-27", "02-28", "02-28", "03-01"]
    assert same_days(days, 4).strftime("%Y-%m-%d").tolist()[2] == "1996-02-29"
    hours = pd.date_range("2000-01-01", "2001-01-01", freq="6h")
    for ago in (1, 3, -2):
        assert same_days(hours, ago).equals(pd.DatetimeIndex(hours - pd.DateOffset(years=ago)))
    found = outlook(WITHOUT_MEMORY, total, ("2007-11-01", "2008-03-31"), issued="2008-01-15")  # over the year's end
    assert found["year"].values.tolist() == [*range(1971, 2007), 2008, 2009]


def test_a_missing_member_is_left_out_of_its_cell():
    values = WITHOUT_MEMORY.values.copy()
    values[(DAYS.year == 1980) & (DAYS.month == 7), 0] = np.nan
    values[(DAYS.year >= 1999), 1] = np.nan
    values[(DAYS.year >= 1979) & (DAYS.month == 7), 2] = np.nan
    found = outlook(record(values), lambda d: d.sum("time", skipna=False), SEASON, issued="2010-04-30")
    np.testing.assert_allclose(found["effective_sample_size"], [38.0, 28.0, np.nan, 39.0])  # 8 years are too few
    assert np.isnan(found["mean"][2]) and np.isfinite(found["mean"][[0, 1, 3]]).all()
    assert float(found["weight"].sel(cell=0)[found["year"].values == 1980].item()) == 0.0


# -------------------------------------------------------------------------------------------------------- statistics
def test_the_standard_deviation_has_its_square():
    """TAMSAT-ALERT's API (V2) takes √mean|x − x̄|: with a climatology of 0.05 and a forecast of half that, 1 and 1.5
    standard deviations dry, it gives the lower tercile 0.39 and 0.46 where 0.87 and 0.98 are right."""
    z = norm.ppf((np.arange(4000) + 0.5) / 4000)
    climate, weights = 0.25 + 0.05 * z[:, None], np.full((4000, 1), 1.0 / 4000)

    def without_square(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(np.abs(x - x.mean(axis=0)), axis=0))

    assert without_square(climate) == pytest.approx(0.20, abs=0.005)
    for drier, right, wrong in ((1.0, 0.87, 0.39), (1.5, 0.98, 0.46)):
        members = 0.25 - drier * 0.05 + 0.025 * z[:, None]
        mean, deviation = mean_and_deviation(members, weights)
        bound = norm.ppf(1.0 / 3.0, *mean_and_deviation(climate, weights))
        assert below_as_normal(mean, deviation, bound) == pytest.approx(right, abs=0.01)
        assert below(members, weights, bound) == pytest.approx(right, abs=0.01)  # counting agrees
        theirs = norm.ppf(1.0 / 3.0, climate.mean(), without_square(climate))
        assert norm.cdf(theirs, members.mean(), without_square(members)) == pytest.approx(wrong, abs=0.01)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 4)), min_size=1, max_size=25))
def test_whole_weights_are_repeats(pairs):
    """A value of weight k is k values: means, deviations and shares below a bound; quantiles where all are alike."""
    values, weights = np.array(pairs, np.float64).T
    if weights.sum() == 0.0:
        assert np.isnan(weighted_quantile(values[:, None], weights[:, None], [0.5])).all()
        return
    repeated, share = np.repeat(values, weights.astype(int)), (weights / weights.sum())[:, None]
    mean, _ = mean_and_deviation(values[:, None], share)
    assert mean == pytest.approx(repeated.mean(), abs=1e-9)
    expected = np.mean(repeated < 3.0) + 0.5 * np.mean(repeated == 3.0)
    assert below(values[:, None], share, np.array([3.0])) == pytest.approx(expected, abs=1e-12)
    quantile = weighted_quantile(values[:, None], weights[:, None], [0.01, 0.3, 0.5, 0.99])[:, 0]
    assert (np.diff(quantile) >= -1e-12).all() and quantile[0] >= repeated.min() and quantile[-1] <= repeated.max()
    alike = weighted_quantile(repeated[:, None], np.full((repeated.size, 1), 7.0), [0.1, 0.5, 0.8])[:, 0]
    np.testing.assert_allclose(alike, np.quantile(repeated, [0.1, 0.5, 0.8], method="hazen"), atol=1e-9)


# ----------------------------------------------------------------------------------------------------------- weights
def test_terciles_give_each_its_probability():
    """The weights of a tercile's years add up to its probability, and a third each is plain resampling."""
    years = np.arange(1971, 2010)
    totals = WITHOUT_MEMORY.sel(time=DAYS.month.isin([5, 6, 7, 8])).groupby("time.year").sum()
    weights = terciles((0.5, 0.3, 0.2), totals)(years, 2010, None)
    low, high = np.quantile(totals.sel(year=years), [1 / 3, 2 / 3], axis=0, method="hazen")
    values = totals.sel(year=years).values
    np.testing.assert_allclose([weights[:, k][values[:, k] < low[k]].sum() for k in range(4)], 0.5)
    np.testing.assert_allclose([weights[:, k][values[:, k] > high[k]].sum() for k in range(4)], 0.2)
    alike = terciles((1 / 3, 1 / 3, 1 / 3), totals)(years, 2010, None)
    np.testing.assert_allclose(alike, 1.0 / 39.0)
    sure = outlook(WITHOUT_MEMORY, total, SEASON, issued="2010-04-30", weigh=terciles((1.0, 0.0, 0.0), totals))
    np.testing.assert_allclose(sure["tercile_probability"][0], 1.0)
    np.testing.assert_allclose(sure["effective_sample_size"], 13.0)
    by_year = xr.DataArray([[0.5, 0.3, 0.2]], {"year": [2010]}, ("year", "tercile"))
    np.testing.assert_array_equal(terciles(by_year, totals)(years, 2010, None), weights)


def test_a_tercile_of_no_year_cannot_be_given():
    totals = xr.DataArray(np.zeros(39), {"year": range(1971, 2010)}, ("year",))
    weights = terciles((0.6, 0.3, 0.1), totals)(np.arange(1971, 2010), 2010, None)
    np.testing.assert_allclose(weights / weights.sum(), 1.0 / 39.0)  # a desert: all years are alike


def test_analogues_weigh_by_likeness():
    """exp(−Δ²) with Δ in standard deviations; strength 0 is all alike; no index, no weight."""
    years = np.arange(2000, 2004)
    index = xr.DataArray([-1.0, 0.0, 1.0, np.nan, 1.0], {"year": [2000, 2001, 2002, 2003, 2010]}, ("year",))
    spread = np.std([-1.0, 0.0, 1.0])
    expected = [np.exp(-((2.0 / spread) ** 2)), np.exp(-((1.0 / spread) ** 2)), 1.0, 0.0]
    np.testing.assert_allclose(analogues(index)(years, 2010, None), expected)
    np.testing.assert_allclose(analogues(index, strength=0.0)(years[:3], 2010, None), 1.0)
    two = xr.DataArray(np.arange(10.0).reshape(2, 5), {"year": index["year"].values}, ("index", "year"))
    found = analogues(two)(years, 2010, None)
    assert found.shape == (4,) and (np.diff(found) > 0.0).all()
    seen = [[1.0, 5.0, np.nan], [2.0, 5.0, np.nan], [2.0, np.nan, np.nan]]
    found = analogues()(years[:2], 2010, xr.DataArray(seen, {"year": [2000, 2001, 2010]}, ("year", "cell")))
    assert found[1, 0] == 1.0 > found[0, 0] and (found[:, 1:] == 1.0).all()
    assert equal(years, 2010, None).tolist() == [1.0] * 4


# ---------------------------------------------------------------------------------------------------------- hindcasts
@pytest.fixture(scope="module")
def hindcasts() -> dict[str, xr.Dataset]:
    options = {"season": SEASON, "leads": [100, 61, 30, 0], "years": (1981, 2010)}
    return {
        "alike": hindcast(WITH_MEMORY, total, **options),
        "analogues": hindcast(WITH_MEMORY, total, weigh=analogues(strength=1.0), **options),
    }


def skill(found: xr.Dataset, lead: int) -> float:
    one = found.sel(lead_time=lead).transpose("year", "cell", "tercile", "percentile", "bound", "quantile")
    probabilities = one["tercile_probability"].values.reshape(-1, 3)
    return ranked_probability_skill_score(probabilities, one["observed_tercile"].values.ravel())


def test_skill_rises_as_the_season_goes_on(hindcasts):
    found = [skill(hindcasts["alike"], lead) for lead in (100, 61, 30, 0)]
    assert found == sorted(found) and found[0] > 0.0 and found[-1] == pytest.approx(1.0)


def test_analogues_help_where_the_climate_remembers(hindcasts):
    """Half a season is known and the rest goes on like it: years that were like it so far say more than all do."""
    assert skill(hindcasts["analogues"], 61) > skill(hindcasts["alike"], 61) + 0.02
    size = hindcasts["analogues"]["effective_sample_size"].sel(lead_time=61)
    assert 3.0 < float(size.mean()) < 28.0


def test_probabilities_are_reliable_in_a_climate_without_memory():
    """Days independent of each other: what resampling says happens as often as it says, within sampling error."""
    rng = np.random.default_rng(11)
    wet = record(rng.gamma(0.5, 6.0, (DAYS.size, 60)))
    found = hindcast(wet, total, SEASON, [61], years=(1981, 2010)).isel(lead_time=0, percentile=0)
    p, o = found["probability_below"].values.ravel(), found["observed_below"].values.ravel()
    curve = reliability_curve(p, o, bins=5, level=0.99)
    filled = curve[curve["count"] >= 30]
    assert ((filled["low"] <= filled["probability"]) & (filled["probability"] <= filled["high"])).all()
    parts = brier(p, o, 5)
    assert parts.reliability < 0.005 < parts.resolution and brier_skill_score(p, o, 0.2) > 0.1


def test_a_hindcast_is_the_outlook_of_its_day(hindcasts):
    """Year by year and lead by lead, with that year left out; and no year knows of itself."""
    one = hindcasts["alike"].sel(year=1990, lead_time=30)
    alone = outlook(WITH_MEMORY, total, ("1990-05-01", "1990-08-31"), issued="1990-08-01", years=(1981, 2010))
    np.testing.assert_allclose(one["tercile_probability"], alone["tercile_probability"])
    assert alone.attrs["reference_years"] == 29 and 1990 not in alone["year"].values
    truth = WITH_MEMORY.sel(time=slice("1990-05-01", "1990-08-31")).sum("time")
    np.testing.assert_allclose(one["observed"], truth)


def test_a_hindcast_goes_on_from_the_day_it_is_of():
    """`rest` is asked once for every day of issue; one that resamples gives what the default gives."""
    asked = []

    def rest(issued: pd.Timestamp):
        asked.append(str(issued.date()))
        return lambda days, ago: WITHOUT_MEMORY.sel(time=same_days(days, ago)).assign_coords(time=days)

    options = {"season": SEASON, "leads": [30], "years": (1999, 2010)}
    found, usual = hindcast(WITHOUT_MEMORY, total, rest=rest, **options), hindcast(WITHOUT_MEMORY, total, **options)
    assert found.identical(usual) and asked == [f"{year}-08-01" for year in range(1999, 2011)]
    assert found.attrs["reference_start"] == "1999-05-01" and found.attrs["reference_end"] == "2010-08-31"
    assert found.attrs["reference_years"] == 11


@pytest.mark.real_data
def test_the_rain_of_tamale_is_foretold_as_its_season_goes_on(real_data):
    """May to October 1970 to 2000, each year from the thirty others: skill rises, and by the end of August the droughts
    of 1983 and 1986 are all but certain (Asfaw et al. 2018: six to eight weeks before harvest)."""
    with xr.open_dataset(real_data / "africa" / "tamale_daily_1970-2000.nc") as ds:
        daily = ds["pr"].expand_dims("cell", 1).load()
    found = hindcast(daily, total, ("2000-05-01", "2000-10-31"), [153, 92, 61])
    dry, was = (found[name].isel(percentile=0, cell=0) for name in ("probability_below", "observed_below"))
    skills = [brier_skill_score(dry.sel(lead_time=lead), was.sel(lead_time=lead), 0.2) for lead in (153, 61)]
    assert 0.1 < skills[0] < 0.4 < skills[1]
    assert (dry.sel(lead_time=61, year=[1983, 1986]) > 0.95).all()
    assert (was.sel(lead_time=61, year=[1983, 1986]) == 1.0).all()


# ---------------------------------------------------------------------------------------------------- the land model
def test_a_land_model_carries_the_drought_so_far():
    """Members are the model's own runs, and the soil of today shows in them: after rain they are wetter."""
    cells = grid.from_points([9.4, 12.0], [-0.8, -1.5], "tamale", 0.5)
    climate = synthetic.climate(cells)
    weather = synthetic.forcing(climate, pd.date_range("1996-05-01", "2008-08-31"))
    texture = synthetic.soils(cells)
    soil = from_texture(*(texture[name] for name in ("sand", "silt", "clay")))
    model = LandDaily()

    def moisture(diagnostics: xr.Dataset) -> xr.DataArray:
        return root_zone(diagnostics["volume_fraction_of_condensed_water_in_soil"])

    start = initial(soil)
    _, past = model.run(start, weather, soil)
    series = moisture(past)
    state, _ = model.run(start, weather.sel(time=slice(None, "2008-06-30")), soil)
    going = carried(model, state, soil, weather, moisture)
    season = ("2008-05-01", "2008-07-31")

    def mean(days: xr.DataArray) -> xr.DataArray:
        return days.mean("time")

    found = outlook(series, mean, season, issued="2008-06-30", rest=going)
    year = int(found["year"][3])
    spliced = xr.concat(
        [weather.sel(time=slice(None, "2008-06-30")), weather.sel(time=slice(f"{year}-07-01", f"{year}-07-31"))], "time"
    )
    days = pd.date_range(weather["time"].values[0], periods=spliced.sizes["time"])
    _, run = model.run(start, spliced.assign_coords(time=days), soil)
    whole = moisture(run).isel(time=slice(-92, None)).mean("time")
    np.testing.assert_allclose(found["member"][3], whole, rtol=1e-6)
    wetter = state.copy(deep=True)
    wetter["volume_fraction_of_condensed_water_in_soil"][:3] *= 1.15
    after_rain = outlook(
        series, mean, season, issued="2008-06-30", rest=carried(model, wetter, soil, weather, moisture)
    )
    assert (after_rain["mean"] > found["mean"]).all()


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"years": (2002, 2009)}, TimeError, "past seasons of an outlook: expected 10 or more, found 8"),
        ({"season": ("2010-08-31", "2010-05-01")}, TimeError, "season: expected a first day and a last one"),
        (
            {"season": ("2011-05-01", "2011-08-31"), "issued": "2011-06-15"},
            TimeError,
            "expected 2011-05-01, found none",
        ),
        ({"metric": lambda days: days}, VariableError, "metric of a season"),
        ({"percentiles": (0.0,)}, RangeError, "percentiles of an outlook"),
        ({"quantiles": (1.5,)}, RangeError, "quantiles of an outlook"),
        ({"weigh": lambda *_: -np.ones(39)}, RangeError, "weights of the years"),
        ({"weigh": lambda *_: np.ones(3)}, RangeError, "weights of the years: expected 39 years"),
        (
            {"weigh": terciles((0.5, 0.5, 0.5), xr.DataArray([1.0], {"year": [2000]}, ("year",)))},
            RangeError,
            "adding up to 1",
        ),
        (
            {"weigh": terciles((0.5, 0.3, 0.2), xr.DataArray([1.0], {"year": [2000]}, ("year",)))},
            TimeError,
            "found none of 1971",
        ),
        ({"weigh": analogues(xr.DataArray([1.0], {"year": [2000]}, ("year",)))}, TimeError, "index of the analogues"),
        ({"weigh": analogues(), "issued": "2010-04-30"}, TimeError, "a season that has begun"),
        ({"rest": lambda days, ago: WITHOUT_MEMORY[:3]}, TimeError, "expected its 77 days, found 3 others"),
    ],
)
def test_what_cannot_be_foretold_is_refused(change, error, words):
    given = {"series": WITHOUT_MEMORY, "metric": total, "season": SEASON, "issued": "2010-06-15", **change}
    with pytest.raises(error, match=words):
        outlook(**given)


def test_no_strength_is_negative():
    with pytest.raises(RangeError, match="strength"):
        analogues(strength=-1.0)
