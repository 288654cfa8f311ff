"""Intervals against the law of conformal prediction over locations, and what they must refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.conformal import ARIDITY, REGIMES, Conformal, coverage, regimes
from twin.errors import RangeError, VariableError

DAYS = 40


def places(
    rng: np.random.Generator, number: int, days: int = DAYS, alike: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (row, 1) and locations (row): a bias and a spread of its own at each place."""
    bias, spread = alike * rng.normal(0.0, 1.0, number), rng.lognormal(0.0, 0.5, number)
    error = bias[:, None] + spread[:, None] * rng.standard_normal((number, days))
    return error.reshape(-1, 1), np.repeat(np.arange(number), days)


@pytest.mark.parametrize(("number", "alike"), [(10, 1.0), (20, 0.0), (20, 3.0), (50, 1.0)])
def test_new_places_are_covered_as_often_as_it_says(number, alike):
    """Within 0.02 of the level on average over calibrations, however few the locations and however alike their days.

    The quantile of all days together, as if they were independent, is below the level where locations are few.
    """
    rng = np.random.default_rng(number)
    ours, pooled = [], []
    for _ in range(250):
        error, location = places(rng, number, alike=alike)
        new, _ = places(rng, 20, alike=alike)
        intervals = Conformal.calibrate(error, location, np.zeros(location.size, int), ["theta"])
        ours.append((np.abs(new) <= intervals.half_width([0])).mean())
        pooled.append((np.abs(new) <= np.quantile(np.abs(error), 0.9)).mean())
    sure = 3.0 * np.std(ours) / 250**0.5
    assert 0.9 - sure <= np.mean(ours) <= 0.92 + sure
    assert np.mean(pooled) < np.mean(ours) - 0.5 * (np.mean(ours) - 0.9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(10, 60))
def test_with_a_day_a_place_it_is_split_conformal(seed, number):
    """The (⌈0.9 K⌉ + 1)-th smallest of K scores: never less than the ⌈0.9 (K + 1)⌉-th of Lei et al. (2018), and that
    one but for every tenth K.
    """
    rng = np.random.default_rng(seed)
    error = rng.standard_normal((number, 2))
    found = Conformal.calibrate(error, np.arange(number), np.zeros(number, int), ["a", "b"]).half_width([0])[0]
    ranked = np.sort(np.abs(error), axis=0)
    np.testing.assert_array_equal(found, ranked[int(np.ceil(0.9 * number - 1e-9))])
    exact = ranked[int(np.ceil(0.9 * (number + 1) - 1e-9)) - 1]
    assert (found == exact).all() if number % 10 != 9 else (found > exact).all()


def test_a_place_with_many_days_counts_once():
    """Nineteen places of one day, and one of a thousand: each has a twentieth of the say."""
    error = np.concatenate([np.arange(1.0, 20.0), np.full(1000, 100.0)])[:, None]
    location = np.concatenate([np.arange(19), np.full(1000, 19)])
    once = np.unique(location, return_index=True)[1]
    found, same = (
        Conformal.calibrate(error[rows], location[rows], np.zeros(rows.size, int), ["theta"]).half_width([0]).item()
        for rows in (np.arange(location.size), once)
    )
    assert found == same == 19.0


def test_each_regime_has_its_own_width():
    """Errors three times as large in the wet season: both seasons are covered, where one width for all would not."""
    rng = np.random.default_rng(1)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        error, location = places(rng, number, 100)
        regime = np.tile(4 + (np.arange(100) >= 50), number)
        return error * np.where(regime == 5, 3.0, 1.0)[:, None], location, regime

    found = Conformal.calibrate(*draw(300), ["theta"])
    error, location, regime = draw(1000)
    table = coverage(error, found.half_width(regime), location, regime, ["theta"]).set_index("group")
    for season in ("dry season", "wet season"):
        assert table.loc[season, "coverage"] == pytest.approx(0.9, abs=0.02)
    assert table.loc["wet season", "width"] == pytest.approx(3.0 * table.loc["dry season", "width"], rel=0.15)
    one = Conformal.calibrate(error, location, np.zeros(regime.size, int), ["theta"]).half_width([0])
    table = coverage(error, one, location, regime, ["theta"]).set_index("group")
    assert table.loc["wet season", "coverage"] < 0.83 and table.loc["dry season", "coverage"] > 0.95


def test_too_few_places_are_wider_or_refused():
    rng = np.random.default_rng(3)
    error, location = places(rng, 30)
    regime = np.where(location < 9, 7, 2)  # nine places in regime 7, none in the rest
    found = Conformal.calibrate(error, location, regime, ["theta"])
    assert np.isfinite(found.half_widths).all() and found.locations.tolist() == [0, 0, 21, 0, 0, 0, 0, 9, 0, 0]
    everywhere = Conformal.calibrate(error, location, np.zeros(location.size, int), ["theta"]).half_widths[0]
    widest = max(everywhere, found.half_widths[2])
    assert (np.delete(found.half_widths, 2, axis=0) == widest).all()
    few = location < 9
    with pytest.raises(RangeError, match="locations to calibrate 90% intervals on: expected 10 or more, found 9"):
        Conformal.calibrate(error[few], location[few], regime[few], ["theta"])
    with pytest.raises(RangeError, match="expected 20 or more, found 19"):
        Conformal.calibrate(error[location < 19], location[location < 19], regime[location < 19], ["theta"], level=0.95)


def test_the_worst_places_and_the_groups_are_told():
    """20 places of two aridity classes; two of them are never inside, the others always."""
    location = np.repeat(np.arange(20), 10)
    error = np.where(location[:, None] < 2, 2.0, 0.5)
    regime = np.where(location < 10, 2, 9)
    table = coverage(error, np.ones_like(error), location, regime, ["theta"]).set_index("group")
    expected = {"all": 0.9, "worst tenth": 0.0, "arid": 0.8, "humid": 1.0, "dry season": 0.8, "wet season": 1.0}
    assert table["coverage"].to_dict() == pytest.approx(expected)
    assert (table["width"] == 2.0).all() and table["locations"].tolist() == [20, 2, 10, 10, 10, 10]


def test_limits_stay_in_what_is_possible():
    found = Conformal(0.9, ("theta",), np.full((10, 1), 0.1), np.full(10, 20))
    low, high = found.interval([[0.05], [0.3], [0.42]], [0, 1, 2], low=0.0, high=[[0.45]])
    np.testing.assert_allclose(low.ravel(), [0.0, 0.2, 0.32])
    np.testing.assert_allclose(high.ravel(), [0.15, 0.4, 0.45])


# --- regimes --------------------------------------------------------------------------------------------------------
def test_aridity_classes_are_those_of_the_united_nations():
    """World Atlas of Desertification: hyper-arid below 0.05, arid to 0.20, semi-arid to 0.50, dry sub-humid to 0.65."""
    index = np.array([0.01, 0.049, 0.05, 0.19, 0.21, 0.49, 0.51, 0.64, 0.65, 2.0])
    found = regimes(3.0 * index, 3.0, 3.0 * index, 3.0)
    assert (found // 2).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and (found % 2 == 0).all()
    assert [name.split(",")[0] for name in REGIMES[::2]] == list(ARIDITY)


def test_the_wet_season_is_wetter_than_the_year_and_there_is_no_demand_at_the_pole():
    assert regimes([1.0, 1.0, 1.0], 4.0, [0.9, 1.1, 1.1], [4.0, 4.0, 8.0]).tolist() == [4, 5, 4]
    assert regimes(0.0, 0.0, 0.0, 0.0) == 8  # humid, dry season
    with pytest.raises(RangeError, match="expected finite, found nan"):
        regimes([1.0, np.nan], 1.0, 1.0, 1.0)


# --- as a file ------------------------------------------------------------------------------------------------------
def test_it_comes_back_from_json():
    rng = np.random.default_rng(4)
    error, location = places(rng, 30)
    found = Conformal.calibrate(np.hstack([error, 2 * error]), location, location % 3, ["theta", "et"])
    again = Conformal.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.level == found.level and again.outputs == found.outputs
    np.testing.assert_array_equal(again.half_widths, found.half_widths)
    np.testing.assert_array_equal(again.locations, found.locations)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"level": 1.5}, RangeError),
        ({"level": "high"}, VariableError),
        ({"regimes": list(REGIMES[::-1])}, VariableError),
        ({"half_widths": {"theta": [0.1] * 9}}, VariableError),
        ({"half_widths": {"theta": [0.1] * 9 + [float("nan")]}}, RangeError),
        ({"half_widths": {"theta": [0.1] * 9 + [-1.0]}}, RangeError),
        ({"half_widths": [0.1]}, VariableError),
        ({"locations": None}, VariableError),
    ],
)
def test_what_was_changed_is_refused(change, error):
    told = Conformal(0.9, ("theta",), np.full((10, 1), 0.1), np.full(10, 20)).to_dict()
    Conformal.from_dict(told)
    with pytest.raises(error, match="intervals"):
        Conformal.from_dict({**told, **change})
    with pytest.raises(VariableError, match="intervals"):
        Conformal.from_dict({name: told[name] for name in told if name not in change})


def test_errors_that_do_not_fit_are_refused():
    with pytest.raises(VariableError, match=r"expected \(row, output\), \(row\), \(row\)"):
        Conformal.calibrate(np.zeros((20, 2)), np.arange(20), np.zeros(20, int), ["theta"])
    with pytest.raises(RangeError, match="errors to calibrate on: expected finite"):
        Conformal.calibrate(np.full((20, 1), np.nan), np.arange(20), np.zeros(20, int), ["theta"])
    with pytest.raises(RangeError, match="level: expected between 0 and 1, found 90"):
        Conformal.calibrate(np.zeros((20, 1)), np.arange(20), np.zeros(20, int), ["theta"], level=90)
