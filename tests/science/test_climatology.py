"""Percentiles against sorting, uniformity, and tables of the Beta distribution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from twin import climatology
from twin.errors import TimeError, VariableError

DAYS = pd.date_range("1991-01-01", "2020-12-31").values


def seasonal(cells: int, seed: int = 0, days: np.ndarray = DAYS) -> np.ndarray:
    """Independent values with a season in mean and spread, float32; in 15 days the mean moves by spread/4."""
    rng, day = np.random.default_rng(seed), climatology.day_of_year(days)[:, None]
    season = np.sin(2 * np.pi * day / 365.0)
    return (0.25 + 0.02 * season + (0.03 + 0.02 * season) * rng.standard_normal((len(days), cells))).astype(np.float32)


@pytest.fixture(scope="module")
def reference():
    return climatology.build(seasonal(4), DAYS)


def window(day: np.datetime64, times: np.ndarray) -> np.ndarray:
    """Times within 15 days of the time of year of `day`."""
    away = np.abs(climatology.day_of_year(times) - climatology.day_of_year(np.array([day]))[0])
    return np.minimum(away, 365 - away) <= 15


# --- the calendar ---------------------------------------------------------------------------------------------------
def test_every_year_has_365_days_and_the_leap_day_is_the_28th():
    for year in (2019, 2020):
        days = climatology.day_of_year(pd.date_range(f"{year}-01-01", f"{year}-12-31").values)
        assert days[0] == 0 and days[-1] == 364 and set(days) == set(range(365))
    leap = climatology.day_of_year(pd.to_datetime(["2020-02-28", "2020-02-29", "2020-03-01"]).values)
    assert leap.tolist() == [58, 58, 59]
    assert 58 // 5 + 1 == 12  # pentad 12, counted from one


def test_hydrological_years_are_named_by_their_start():
    days = pd.to_datetime(["2015-09-30", "2015-10-01", "2016-09-30"]).values
    assert climatology.year_of(days, 10).tolist() == [2014, 2015, 2015]
    assert climatology.year_of(days).tolist() == [2015, 2015, 2016]


def test_knots_are_interpolated_between_the_middles_of_pentads():
    days = pd.to_datetime(["2019-01-03", "2019-01-07", "2019-01-08", "2019-01-01", "2019-12-31"]).values
    before, weight = climatology.pentad_of(days)
    assert before.tolist() == [0, 0, 1, 72, 72]
    np.testing.assert_allclose(weight, [0.0, 0.8, 0.0, 0.6, 0.4])


# --- knots ----------------------------------------------------------------------------------------------------------
def test_knots_are_weibull_quantiles_of_the_window(reference):
    """numpy's method "weibull" is the same definition, written by others."""
    values = seasonal(4)
    for pentad in (0, 11, 40, 72):
        inside = window(np.datetime64("2019-01-03") + np.timedelta64(5 * pentad, "D"), DAYS)
        expected = np.quantile(values[inside].astype(float), climatology.PROBS, axis=0, method="weibull")
        np.testing.assert_allclose(reference[climatology.KNOTS].values[pentad], expected, atol=1e-7)


@pytest.mark.parametrize("years", [1, 3, 30])
def test_knots_have_the_bits_that_sorting_every_window_gives(years):
    """Of gaps, ties, values of either sign, a cell that never changes and one without any; and on any threads."""
    rng, days = np.random.default_rng(years), DAYS[np.datetime64(f"{1991 + years}-01-01") > DAYS]
    values = seasonal(40, years, days) - np.float32(0.25)
    values[rng.random(values.shape) < 0.05] = np.nan
    values[:, 0], values[:, 1], values[40:90, 2] = np.nan, 0.1, np.nan
    values[:, 3] = values[:, 3].round(1) + np.float32(0.0)
    probs = (0.5, 0.0, 1.0, 0.02, 0.3)
    found = climatology.build(values, days, probs=probs, threads=1)
    assert found.identical(climatology.build(values, days, probs=probs, threads=2))
    for pentad in (0, 3, 36, 72):
        inside = window(np.datetime64("2019-01-03") + np.timedelta64(5 * pentad, "D"), days)
        for cell in range(40):
            ranked = np.sort(values[inside, cell])
            ranked = ranked[~np.isnan(ranked)].astype(np.float64)
            for p, knot in zip(probs, found[climatology.KNOTS].values[pentad, :, cell], strict=True):
                m = len(ranked)
                if m == 0:
                    assert np.isnan(knot)
                    continue
                rank = min(max(p * (m + 1), 1.0), m) - 1.0
                low, high = ranked[int(rank)], ranked[min(int(rank) + 1, m - 1)]
                assert knot == np.float32(low + (rank - int(rank)) * (high - low))


def test_a_year_can_be_left_out_and_gaps_do_not_matter():
    values = seasonal(2)
    years = climatology.year_of(DAYS)
    without = climatology.build(values, DAYS, exclude_year=2003)
    np.testing.assert_array_equal(
        without[climatology.KNOTS], climatology.build(values[years != 2003], DAYS[years != 2003])[climatology.KNOTS]
    )
    values[years == 2003] = np.nan
    np.testing.assert_array_equal(without[climatology.KNOTS], climatology.build(values, DAYS)[climatology.KNOTS])
    assert without.attrs["reference_years"] == 29


def test_tiles_are_the_whole(reference):
    values, seen = seasonal(4), []
    for part, tile in climatology.build_tiles(lambda cells: values[:, cells], 4, DAYS, tile=3):
        seen.append(tile.sizes["cell"])
        np.testing.assert_array_equal(tile[climatology.KNOTS], reference[climatology.KNOTS].isel(cell=part))
    assert seen == [3, 1]


def test_the_reference_says_what_it_is(reference):
    assert reference[climatology.KNOTS].dims == ("pentad", "probability", "cell")
    assert reference[climatology.KNOTS].dtype == np.float32
    assert reference.attrs["reference_start"] == "1991-01-01" and reference.attrs["reference_end"] == "2020-12-31"
    assert reference.attrs["reference_years"] == 30 and reference.attrs["reference_values"] == 930


# --- percentiles ----------------------------------------------------------------------------------------------------
def remembering(cells: int, days: np.ndarray, seed: int) -> np.ndarray:
    """Standard normal values that forget within 45 days, as the water of the top metre does, float32."""
    rng, memory = np.random.default_rng(seed), np.exp(-1.0 / 45.0)
    values = np.empty((len(days), cells), dtype=np.float32)
    now = rng.standard_normal(cells)
    for row in range(len(days)):
        values[row] = now
        now = memory * now + np.sqrt(1 - memory**2) * rng.standard_normal(cells)
    return values


@pytest.mark.parametrize("years", [2, 5, 10, 30])
def test_classes_are_as_frequent_as_they_say_however_short_the_record(years):
    """Three more years of the same climate: the median is the median, and no class is called more often than it should.

    The tolerance of three points is what 150 cells of about 25 independent values each can tell; short records may call
    a class a little too seldom, never too often.
    """
    days = pd.date_range("1991-01-01", periods=round(365.25 * (years + 3))).values
    values = remembering(150, days, years)
    old, new = days < np.datetime64(f"{1991 + years}-01-01"), days >= np.datetime64(f"{1991 + years}-07-01")
    ranks = climatology.percentile(values[new], days[new], climatology.build(values[old], days[old])).values
    assert (ranks <= 50).mean() == pytest.approx(0.5, abs=0.03)
    for percent in (2, 5, 10, 20, 30):
        assert (ranks <= percent).mean() < percent / 100 + 0.03
        if percent > 50 / (years + 1):
            assert (ranks <= percent).mean() > percent / 100 - 0.04


def test_percentiles_rise_with_the_value_and_end_at_the_plotting_positions(reference):
    values = np.linspace(-0.2, 0.7, 301, dtype=np.float32)
    day = np.datetime64("2022-05-17")
    ranks = np.array([climatology.percentile(np.full(4, v), day, reference).values[0] for v in values])
    assert (np.diff(ranks, axis=0) >= 0).all()
    np.testing.assert_allclose(ranks[0], 50.0 / 31.0, rtol=1e-6)
    np.testing.assert_allclose(ranks[-1], 100.0 - 50.0 / 31.0, rtol=1e-6)


def test_the_knots_themselves_have_their_probabilities(reference):
    """At the middle of a pentad, every inner knot comes back as the position of its probability among 31 years."""
    knots = reference[climatology.KNOTS].values[30]
    day = np.datetime64("2019-01-03") + np.timedelta64(150, "D")
    for p, knot in zip(climatology.PROBS[1:-1], knots[1:-1], strict=True):
        expected = 100 * (30 * p + 0.5) / 31
        np.testing.assert_allclose(climatology.percentile(knot, day, reference).values[0], expected, atol=1e-3)


def test_a_value_that_stays_does_not_jump_from_day_to_day(reference):
    days = pd.date_range("2022-01-01", "2022-12-31").values
    ranks = climatology.percentile(np.full((365, 4), 0.25, dtype=np.float32), days, reference).values
    assert np.abs(np.diff(ranks, axis=0)).max() < 5.0


def test_missing_is_missing(reference):
    values = np.array([[0.2, np.nan, 0.2, 0.2]], dtype=np.float32)
    assert np.isnan(climatology.percentile(values, DAYS[:1], reference).values).tolist() == [
        [False, True, False, False]
    ]
    nowhere = seasonal(2)
    nowhere[:, 1] = np.nan
    blind = climatology.build(nowhere, DAYS)
    assert np.isnan(climatology.percentile(np.full((1, 2), 0.2), DAYS[:1], blind).values).tolist() == [[False, True]]


def test_a_soil_that_never_changes_is_neither_dry_nor_wet():
    still = climatology.build(np.full((len(DAYS), 1), 0.1, dtype=np.float32), DAYS)
    assert climatology.percentile(np.array([0.1]), DAYS[7], still).item() == pytest.approx(50.0)
    ranks, _ = climatology.percentile_leave_one_out(np.full((1461, 1), 0.1), DAYS[:1461])
    np.testing.assert_allclose(ranks.values, 50.0)


def test_another_grid_is_refused(reference):
    with pytest.raises(VariableError, match=r"expected \(time 1, cell 4\), found shape \(1, 5\)"):
        climatology.percentile(np.zeros(5), DAYS[0], reference)


# --- short records --------------------------------------------------------------------------------------------------
def test_leave_one_out_ranks_against_the_other_years_only():
    """Every value against a count written out."""
    days = pd.date_range("2015-04-01", "2018-03-31").values
    values = seasonal(2, seed=4, days=days)
    values[100:120, 1] = np.nan
    ranks, years = climatology.percentile_leave_one_out(values, days)
    assert years == 2
    for row in (0, 110, 400, 333, 700, 1095):
        elsewhere = np.abs(days - days[row]) >= np.timedelta64(183, "D")
        others = values[window(days[row], days) & elsewhere]
        for cell in range(2):
            sample, x = others[:, cell][~np.isnan(others[:, cell])], values[row, cell]
            if np.isnan(x):
                assert np.isnan(ranks[row, cell])
                continue
            share = ((sample < x).sum() + 0.5 * (sample == x).sum()) / len(sample)
            assert float(ranks[row, cell]) == pytest.approx(100 * (2 * share + 0.5) / 3, rel=1e-6)


def test_leave_one_out_is_calibrated_and_its_own_season_does_not_count():
    days = pd.date_range("2010-01-01", "2015-12-31").values
    values = remembering(100, days, 5)
    ranks, years = climatology.percentile_leave_one_out(values, days)
    assert years == 5
    for percent in (10, 20, 30, 50):
        assert float((ranks <= percent).mean()) == pytest.approx(percent / 100, abs=0.04)
    dry = values.copy()
    summer = (days >= np.datetime64("2012-05-01")) & (days < np.datetime64("2012-08-01"))
    dry[summer] -= 20.0
    scored, _ = climatology.percentile_leave_one_out(dry, days)
    np.testing.assert_allclose(scored.values[summer], 100 * 0.5 / 6, rtol=1e-6)


def test_one_year_is_no_reference():
    with pytest.raises(TimeError, match="expected two or more, found 1"):
        climatology.percentile_leave_one_out(seasonal(1)[:365], DAYS[:365])
    with pytest.raises(TimeError):
        climatology.build(np.zeros((0, 2)), DAYS[:0])


# --- how well a percentile is known ---------------------------------------------------------------------------------
def test_beta_quantiles_against_closed_forms():
    """I_x(1, n) = 1 − (1 − x)^n and I_x(n, 1) = x^n; the median of Beta(a, a) is one half."""
    for n in (1, 2, 7, 30, 60):
        for q in (0.05, 0.5, 0.95):
            assert climatology._beta_quantile(q, 1.0, n) == pytest.approx(1 - (1 - q) ** (1 / n), abs=1e-12)
            assert climatology._beta_quantile(q, n, 1.0) == pytest.approx(q ** (1 / n), abs=1e-12)
        assert climatology._beta_quantile(0.5, n / 3, n / 3) == pytest.approx(0.5, abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """The r-th smallest of n uniform draws has true probability u_(r): inside the 90 % interval 90 % of the time."""
    rng, n = np.random.default_rng(0), 20
    draws = np.sort(rng.random((20_000, n)), axis=1)
    for r in (2, 5, 10, 19):
        low, high = climatology.interval(np.array([100.0 * r / (n + 1)]), n)
        inside = (100 * draws[:, r - 1] >= low) & (100 * draws[:, r - 1] <= high)
        assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_short_records_are_honestly_unsure():
    percentile = np.array([1.0, 2.0, 20.0, 50.0, np.nan])
    widths = []
    for years in (2, 5, 30, 100):
        low, high = climatology.interval(percentile, years)
        known = ~np.isnan(percentile)
        assert (low[known] <= percentile[known]).all() and (high[known] >= percentile[known]).all()
        assert np.isnan(low[-1]) and np.isnan(high[-1])
        widths.append((high - low)[known])
    assert (np.diff(widths, axis=0) < 0).all()
    assert widths[0][1] > 70.0  # two years say next to nothing
