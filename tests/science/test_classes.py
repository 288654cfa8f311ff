"""Classes against the percentile table of the U.S. Drought Monitor; their probabilities against what then was true."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtr, ndtri

from twin import climatology
from twin.errors import TimeError, VariableError
from twin.indices.classes import (
    CODES,
    DRY,
    WET,
    area_fractions,
    at_least,
    class_probabilities,
    drought_class,
    dsci,
    printed_class,
    probability_from_spread,
    term,
)

DAY = np.array(["2022-07-03"], dtype="datetime64[ns]")


@pytest.mark.parametrize(
    ("percentile", "code"),
    [
        *[(30.01, 0), (30.0, 1), (20.01, 1), (20.0, 2), (10.01, 2), (10.0, 3), (5.01, 3), (5.0, 4), (2.01, 4)],
        *[(2.0, 5), (0.0, 5), (50.0, 0), (69.9, 0), (70.0, -1), (80.0, -2), (90.0, -3), (95.0, -4), (98.0, -5)],
        *[(100.0, -5), (np.nan, -128)],
    ],
)
def test_the_printed_bounds(percentile, code):
    """USDM: D0 20.01-30, D1 10.01-20, D2 5.01-10, D3 2.01-5, D4 0-2 %; the wet side is its mirror image."""
    assert drought_class(np.array([percentile], dtype=np.float32)).tolist() == [code]


def test_uniform_percentiles_give_the_areas_of_the_table():
    codes = drought_class(np.linspace(0.0, 100.0, 100_001))
    shares = [float((codes == code).mean()) for code in (0, 1, 2, 3, 4, 5)]
    np.testing.assert_allclose(shares, [0.4, 0.1, 0.1, 0.05, 0.03, 0.02], atol=2e-5)


def test_labels_stay():
    percentile = xr.DataArray(
        [[10.0, np.nan]], {"lat": ("cell", [1.0, 2.0])}, ("time", "cell"), "soil_moisture_percentile"
    )
    codes = drought_class(percentile)
    assert codes.name == "drought_class" and codes.dtype == np.int8 and codes["lat"].values.tolist() == [1.0, 2.0]


def test_area_counts_what_is_known():
    codes = np.array([[5, 0, -128], [-128, -128, -128], [1, 1, -5]], dtype=np.int8)
    shares = area_fractions(codes, [1.0, 3.0, 100.0])
    assert float(shares[0].sel(code=5)) == 0.25 and float(shares[0].sum()) == 1.0
    assert np.isnan(shares[1]).all()
    assert float(shares[2].sel(code=-5)) == pytest.approx(100 / 104)


def test_dsci_runs_from_0_to_500():
    """Exclusive areas: 1·D0 + 2·D1 + 3·D2 + 4·D3 + 5·D4 in percent."""
    codes = xr.DataArray([[0, -5], [5, 5], [1, 4], [-128, -128]], dims=("time", "cell")).astype(np.int8)
    found = dsci(area_fractions(codes, [1.0, 1.0]))
    np.testing.assert_allclose(found.values, [0.0, 500.0, 50.0 + 200.0, np.nan])


# --- SPI's own table --------------------------------------------------------------------------------------------------
def test_printed_bounds_are_not_the_percentiles():
    """SPI −0.81 is at the 20.9th percentile, −1.29 at the 9.9th: one class apart, either way."""
    spi = np.array([-0.81, -1.29, -0.4, -2.0, 0.5, np.nan])
    assert printed_class(spi).tolist() == [2, 2, 0, 5, -1, -128]
    assert drought_class(100.0 * ndtr(spi)).tolist() == [1, 3, 0, 4, 0, -128]


def test_short_term_ends_at_six_months():
    assert [term(months) for months in (1, 3, 5, 6, 12)] == ["S", "S", "S", "L", "L"]


# --- probabilities ----------------------------------------------------------------------------------------------------
def labelled(values: np.ndarray, *dims: str) -> xr.DataArray:
    place = {"time": DAY, "lat": ("cell", np.arange(values.shape[-1], dtype=float))}
    return xr.DataArray(values, place, dims or ("time", "cell"), "soil_moisture_percentile")


def test_members_are_counted_and_missing_ones_left_out():
    members = np.array([[[1.0, 25.0, np.nan]], [[4.0, 25.0, np.nan]], [[15.0, np.nan, np.nan]], [[99.0, 50.0, np.nan]]])
    found = class_probabilities(labelled(members, "realization", "time", "cell"))
    assert found.dims == ("time", "code", "cell") and found["code"].values.tolist() == list(CODES)
    assert {code: float(found.sel(code=code)[0, 0]) for code in (5, 4, 2, -5)} == {5: 0.25, 4: 0.25, 2: 0.25, -5: 0.25}
    np.testing.assert_allclose(found[0, :, 1].sel(code=[1, 0]), [2 / 3, 1 / 3], rtol=1e-6)
    assert np.isnan(found[0, :, 2]).all()


def test_at_least_counts_what_is_as_bad_or_worse():
    members = np.random.default_rng(0).uniform(0, 100, (50, 1, 40))
    members[0, 0, 0] = np.nan
    members[:, :, 3] = np.nan
    found = at_least(class_probabilities(labelled(members, "realization", "time", "cell")))
    known = np.isfinite(members).sum(axis=0)[0]
    assert found.dims == ("time", "code", "cell") and found["code"].values.tolist() == [c for c in CODES if c]
    with np.errstate(invalid="ignore"):
        for k in range(5):
            dry, wet = (members <= DRY[k]).sum(axis=0)[0] / known, (members >= WET[k]).sum(axis=0)[0] / known
            np.testing.assert_allclose(found.sel(code=k + 1)[0], dry, atol=1e-6)
            np.testing.assert_allclose(found.sel(code=-k - 1)[0], wet, atol=1e-6)


@pytest.mark.parametrize("years", [1, 10, 30, 94])
def test_extreme_ranks_against_closed_forms(years):
    """Below n years the truth is Beta(1, n + 1), above them Beta(n + 1, 1): 1 − (1 − p)^(n+1) and p^(n+1)."""
    ends = 50.0 / (years + 1)
    found = class_probabilities(labelled(np.array([[ends, 100.0 - ends]])), reference_years=years)
    np.testing.assert_allclose(found.sum("code"), 1.0, atol=1e-6)
    for k, p in enumerate(np.array(DRY) / 100.0):
        np.testing.assert_allclose(at_least(found).sel(code=k + 1)[0, 0], 1 - (1 - p) ** (years + 1), atol=1e-5)
        np.testing.assert_allclose(at_least(found).sel(code=-k - 1)[0, 1], 1 - (1 - p) ** (years + 1), atol=1e-5)
        np.testing.assert_allclose(at_least(found).sel(code=k + 1)[0, 1], p ** (years + 1), atol=1e-5)


def test_drought_is_less_probable_the_wetter_it_is_and_surer_the_more_years():
    percentile = labelled(np.linspace(0.0, 100.0, 401)[None])
    at_all = {n: at_least(class_probabilities(percentile, reference_years=n)).sel(code=2)[0].values for n in (10, 1000)}
    for chance in at_all.values():
        assert (np.diff(chance) <= 1e-6).all()
    assert np.abs(at_all[1000] - (percentile.values[0] <= 20)).mean() < 0.02 < np.abs(at_all[10] - at_all[1000]).mean()


def reliable(chance: np.ndarray, happened: np.ndarray, slack: float = 0.0) -> None:
    """In every fifth of the probabilities it happens as often as they say, within 3.5 standard errors and the slack."""
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (chance >= low) & (chance <= low + 0.2)
        if n := inside.sum():
            q = chance[inside].mean()
            assert happened[inside].mean() == pytest.approx(q, abs=slack + 3.5 * np.sqrt(q * (1 - q) / n))


@pytest.mark.parametrize("years", [10, 30])
def test_of_exchangeable_years_as_many_are_in_drought_as_was_said(years):
    """Days ranked among n others: of those given P(D1 or worse) = q, a share q is below the true 20th percentile."""
    rng = np.random.default_rng(years)
    truth, others = rng.random(20_000), rng.random((years, 20_000))
    percentile = 100.0 * climatology.hazen((others < truth).mean(axis=0), years)
    chance = at_least(class_probabilities(labelled(percentile[None]), reference_years=years))[0]
    reliable(chance.sel(code=2).values, truth <= 0.2)
    reliable(chance.sel(code=-1).values, truth >= 0.7)
    assert float(chance.sel(code=5).mean()) == pytest.approx(0.02, abs=0.003)


@pytest.mark.parametrize("years", [10, 30])
@pytest.mark.parametrize("memory", [0.0, 45.0])
def test_an_uncertain_analysis_and_a_short_reference_are_still_reliable(years, memory):
    """Truth seen with an error of half its spread; the mean and spread given are then exact (normal, conjugate).

    Years are exchangeable, and their days the same (memory 0) or forgotten within 45 days. A tenth is allowed for the
    knots, between which tied years are interpolated, and for the 31 days of a window telling more than one.
    """
    rng, cells, error = np.random.default_rng(years), 3000, 0.5
    series = np.empty((years, 31, cells), dtype=np.float32)
    keeps, now = np.exp(-1.0 / memory) if memory else 1.0, rng.standard_normal((years, cells))
    for day in range(31):
        series[:, day] = now + 1e-6 * rng.standard_normal(now.shape)
        now = keeps * now + np.sqrt(1.0 - keeps**2) * rng.standard_normal(now.shape)
    days = np.concatenate([pd.date_range(f"{1960 + year}-06-18", periods=31).values for year in range(years)])
    reference = climatology.build(series.reshape(-1, cells), days).assign_attrs(reference_years=years)
    truth = rng.standard_normal(cells)
    seen = truth + error * rng.standard_normal(cells)
    theta = labelled((seen / (1 + error**2))[None])
    found = probability_from_spread(theta, xr.full_like(theta, error / np.sqrt(1 + error**2)), DAY, reference)
    chance = at_least(found).sel(code=2)[0].values
    reliable(chance, ndtr(truth) <= 0.2, 0.1)
    assert chance.mean() == pytest.approx(0.2, abs=0.02)


def test_a_long_reference_leaves_only_the_spread():
    """θ ~ N(a, s) in a climate N(0, 1): P(percentile ≤ p) = Φ((Φ⁻¹(p) − a)/s), within half a node."""
    years, spread = 400, 0.5
    values = np.tile(ndtri((np.arange(31 * years) + 0.5) / (31 * years)), (1, 1)).T.astype(np.float32)
    days = np.tile(pd.date_range("2001-06-18", periods=31).values, years)
    centres = np.linspace(-2.5, 2.5, 21)
    reference = climatology.build(np.repeat(values, 21, axis=1), days).assign_attrs(reference_years=years)
    theta = labelled(centres[None])
    found = at_least(probability_from_spread(theta, xr.full_like(theta, spread), DAY, reference))
    for k, p in enumerate(np.array(DRY) / 100.0):
        expected = ndtr((ndtri(p) - centres) / spread)
        np.testing.assert_allclose(found.sel(code=k + 1)[0], expected, atol=0.08)


@pytest.fixture(scope="module")
def reference() -> xr.Dataset:
    days = pd.date_range("1991-01-01", "2000-12-31").values
    return climatology.build(np.random.default_rng(1).uniform(0.1, 0.4, (len(days), 5)), days)


def test_no_spread_is_the_percentile_alone(reference):
    theta = labelled(np.array([[0.11, 0.15, 0.2, 0.3, np.nan]]))
    ranks = climatology.percentile(theta, DAY, reference)
    expected = class_probabilities(ranks, reference_years=10)
    for spread in (None, xr.zeros_like(theta)):
        found = probability_from_spread(theta, spread, DAY, reference)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isnan(found[0, :, 4]).all() and found.dtype == np.float32
    assert found.attrs["reference_years"] == 10 and found.attrs["reference_start"] == "1991-01-01"
    assert found["lat"].values.tolist() == theta["lat"].values.tolist()
    one = probability_from_spread(theta[0], theta[0] * 0.0, DAY, reference)
    np.testing.assert_array_equal(one, probability_from_spread(theta, theta * 0.0, DAY, reference))
    assert one["time"].values.tolist() == DAY.tolist()


def test_what_is_not_known_has_no_probability(reference):
    theta = labelled(np.full((1, 5), 0.2))
    spread = theta.copy(data=[[0.01, np.nan, 0.01, 0.0, 0.02]])
    found = probability_from_spread(theta, spread, DAY, reference)
    assert np.isnan(found).all("code").values.tolist() == [[False, True, False, False, False]]
    np.testing.assert_allclose(found.sum("code", skipna=False)[0, [0, 2, 3, 4]], 1.0, atol=1e-5)


def test_threads_do_not_change_a_bit(reference):
    theta = labelled(np.random.default_rng(2).uniform(0.1, 0.4, (1, 5)))
    one, four = (probability_from_spread(theta, theta * 0.1, DAY, reference, threads=n) for n in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_bad_input_is_refused(reference):
    percentile = labelled(np.full((1, 5), 50.0))
    with pytest.raises(VariableError, match=r"expected \(realization, time, cell\) or \(time, cell\)"):
        class_probabilities(percentile.T)
    with pytest.raises(TimeError, match="expected at least one, found 0"):
        class_probabilities(percentile, reference_years=0)
    with pytest.raises(
        VariableError, match=r"expected one shape, \(time, cell\), found \(1, 5\) and \(1, 4\), 1 times"
    ):
        probability_from_spread(percentile, percentile[:, :4], DAY, reference)
