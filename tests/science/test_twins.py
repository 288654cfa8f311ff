"""Twin experiments of a small size: what was hidden is found, and how far the analysis trusts itself."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from twin.cycle import Options
from twin.ensemble import Window
from twin.experiments import RADIOMETER, Outcome, Setting, fraternal, identical
from twin.observations import untruncated

YEAR = Window("2021-01-01", "2021-12-31", cycles=0)
STAGE_1 = Options(residual=False)


@cache
def twins(seed: int, members: int = 40, **change) -> Outcome:
    """30 + 10 cells whose soil is unknown, and what the sensors make of it."""
    setting = Setting(observed=30, held_out=10, window=YEAR, surface=False, **change)
    return identical(seed, setting, Options(members=members, residual=False))


@pytest.mark.parametrize("seed", [3, 7])
def test_soil_is_found_where_nothing_was_observed(seed):
    """The error of hidden layers and of cells held out falls to a quarter and less (over 20 seeds: a tenth)."""
    found = twins(seed)
    assert found.analysis.accepted, found.analysis.reasons
    assert found.share.max() < 0.25
    assert found.parameters < 2.0


def test_offsets_cost_much_of_what_is_learnt_and_never_more_than_all():
    """An offset of 0.03 at every cell is estimated from nothing but the observations."""
    found = twins(3, offset=0.03)
    assert 0.02 < found.analysis.diagnostics["sensors"][RADIOMETER]["offset"] < 0.045
    assert found.share.max() < 0.35
    assert twins(3).share.mean() < found.share.mean()


def test_wild_values_do_no_harm():
    """2 % of any value a product delivers: most are refused, and the error stays a quarter of the open loop's."""
    found = twins(3, outliers=0.02)
    screenings = found.analysis.diagnostics["sensors"][RADIOMETER]["screenings"]
    assert sum(each["rejected"].get(name, 0) for each in screenings for name in ("spike", "background")) > 20
    assert found.share.max() < 0.25


def test_fluorescence_adds_to_what_soil_moisture_tells():
    """Joint assimilation leaves less of the prior than soil moisture alone: log det of the covariance they share."""
    alone, joint = twins(3), twins(3, fluorescence=True)
    n = alone.analysis.z.size
    assert joint.analysis.z.size == n + 1
    shared = [i for i, row in enumerate(joint.analysis.diagnostics["control"]) if row["name"] != "sif_scale"]
    P = joint.analysis.covariance[np.ix_(shared, shared)]
    assert np.linalg.slogdet(P)[1] < np.linalg.slogdet(alone.analysis.covariance)[1]


def test_the_truth_of_another_model_is_neared():
    """Fraternal: the daily tier cannot be the three-hourly one, and still comes nearer to it at the surface."""
    found = fraternal(1, Setting(observed=16, held_out=6, window=YEAR), Options(members=40, residual=False, loops=3))
    assert np.isnan(found.parameters)
    assert found.share.sel(place="held_out").values[0] < 1.0


def test_an_outcome_is_repeatable_and_plain():
    small = Setting(observed=8, held_out=2, window=Window("2021-03-01", "2021-05-31", cycles=0), surface=False)
    options = Options(members=20, residual=False, loops=2)
    one, two = (identical(4, small, options).as_json() for _ in range(2))
    assert one == two
    assert one["seed"] == 4


# --- what a gate cuts off -------------------------------------------------------------------------------------------
def test_the_mean_of_what_exceeds_a_bound_is_allowed_for():
    """Cohen (1950): of 200,000 draws of N(η, s²) those above 0.02 are fitted by η itself, at any distance from it."""
    rng = np.random.default_rng(1)
    s, low = 0.04, 0.02
    eta = np.repeat([0.02, 0.04, 0.08, 0.3], 50_000)
    y = eta + s * rng.standard_normal(eta.size)
    kept = y > low
    value, error = untruncated(y[kept], np.full(kept.sum(), s), eta[kept], low, int((~kept).sum()))
    for level in np.unique(eta):
        at = eta[kept] == level
        assert abs(value[at].mean() - level) < 4.0 * value[at].std() / at.sum() ** 0.5
        np.testing.assert_allclose(value[at].std(), error[at][0], rtol=0.02)  # the width is estimated
    assert y[kept & (eta == 0.02)].mean() > 0.05  # what would be fitted otherwise


def test_without_anything_cut_off_values_stay_as_they_are():
    y, s = np.array([0.05, 0.2]), np.array([0.04, 0.04])
    for found, given in zip(untruncated(y, s, y, 0.02, 0), (y, s), strict=True):
        np.testing.assert_array_equal(found, given)
