"""Scores against their definitions written out, their identities, and what a bootstrap must cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import RangeError, VariableError
from twin.scores import SCORES, grouped, interval, scores

DAYS, CELLS = 200, 6


def series(seed: int, gaps: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """A model and what was observed of it on some days, (time, cell), m3 m-3."""
    rng = np.random.default_rng(seed)
    truth = 0.25 + 0.02 * np.cumsum(rng.standard_normal((DAYS, CELLS)), axis=0) / DAYS**0.5
    model = truth + 0.02 * rng.standard_normal(truth.shape)
    observed = 0.05 + 0.8 * truth + 0.03 * rng.standard_normal(truth.shape)
    return model, np.where(rng.random(truth.shape) < gaps, np.nan, observed)


def by_the_book(m: np.ndarray, y: np.ndarray, days: np.ndarray) -> dict[str, float]:
    """One cell, each definition as it is printed."""
    r = np.corrcoef(m, y)[0, 1]
    rows = []
    for i, day in enumerate(days):
        near = np.abs(days - day) <= 17
        if near.sum() >= 5:
            rows.append((m[i] - m[near].mean(), y[i] - y[near].mean()))
    return {
        "rmse": np.sqrt(np.mean((m - y) ** 2)),
        "bias": np.mean(m - y),
        "ubrmse": np.sqrt(np.mean(((m - m.mean()) - (y - y.mean())) ** 2)),
        "r": r,
        "anomaly_r": np.corrcoef(np.array(rows).T)[0, 1],
        "kge": 1 - np.sqrt((r - 1) ** 2 + (m.std() / y.std() - 1) ** 2 + (m.mean() / y.mean() - 1) ** 2),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.85))
def test_every_score_is_its_definition(seed, gaps):
    model, observed = series(seed, gaps)
    table = scores(model, observed, least=10)
    for cell in range(CELLS):
        days = np.flatnonzero(np.isfinite(observed[:, cell]))
        assert table["count"][cell] == days.size
        if days.size < 10:
            assert table.loc[cell, list(SCORES)].isna().all()
            continue
        expected = by_the_book(model[days, cell], observed[days, cell], days)
        assert dict(table.loc[cell, list(SCORES)]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_square_of_the_rmse_is_what_is_unbiased_and_what_is_biased():
    """Entekhabi et al. (2010), eq. 5."""
    table = scores(*series(1))
    np.testing.assert_allclose(table["rmse"] ** 2, table["ubrmse"] ** 2 + table["bias"] ** 2, rtol=1e-12)


def test_a_perfect_run_and_one_that_is_off_by_a_line():
    """KGE is 1 of a perfect run; of m = a + b y, r is 1 and what is left are the ratios of spread and mean."""
    _, y = series(2)
    perfect = scores(y, y)
    np.testing.assert_allclose(perfect[["r", "anomaly_r", "kge"]], 1.0, atol=1e-9)
    assert perfect[["rmse", "bias", "ubrmse"]].max(axis=None) == 0.0
    off = scores(0.1 + 0.5 * y, y)
    mean = np.nanmean(y, axis=0)
    np.testing.assert_allclose(off[["r", "anomaly_r"]], 1.0, atol=1e-9)
    np.testing.assert_allclose(off["kge"], 1.0 - np.hypot(0.5, (0.1 + 0.5 * mean) / mean - 1.0), atol=1e-9)


def test_anomalies_know_nothing_of_the_season():
    """A season in one and its mirror image in the other: r is negative, the days that both have left agree."""
    rng = np.random.default_rng(3)
    days = np.arange(730)[:, None]
    season, day = 0.1 * np.sin(2 * np.pi * days / 365), 0.02 * rng.standard_normal((730, 3))
    table = scores(0.3 + season + day, 0.3 - season + day)
    assert (table["r"] < -0.8).all() and (table["anomaly_r"] > 0.95).all()


def test_lone_observations_have_no_anomaly():
    """Four in five weeks are too few (Albergel et al. 2009 ask for five): r is there, the anomaly's is not."""
    model, observed = series(4, gaps=0.0)
    observed[np.arange(DAYS) % 9 != 0] = np.nan  # at most four within 17 days either way
    table = scores(model, observed)
    assert table["r"].notna().all() and table["anomaly_r"].isna().all()


def test_what_does_not_vary_has_no_correlation():
    model, observed = series(5)
    observed[:, 2] = np.where(np.isfinite(observed[:, 2]), 0.4905, np.nan)  # a retrieval that is stuck
    observed[:, 4] = np.nan
    table = scores(model, observed)
    assert table.loc[2, ["r", "anomaly_r", "kge"]].isna().all() and table.loc[2, ["rmse", "ubrmse"]].notna().all()
    assert table.loc[4, list(SCORES)].isna().all() and table["count"][4] == 0 and len(table) == CELLS


def test_one_by_one_is_the_same_in_any_order():
    model, observed = series(6)
    day, cell = np.nonzero(np.isfinite(observed))
    shuffled = np.random.default_rng(6).permutation(day.size)
    day, cell = day[shuffled], cell[shuffled]
    table = grouped(model[day, cell], observed[day, cell], cell + 100, day)
    assert list(table.index) == [100 + k for k in range(CELLS)]
    np.testing.assert_array_equal(table.values, scores(model, observed).values)
    assert grouped(*np.empty((4, 0))).empty


def test_other_shapes_are_refused():
    with pytest.raises(VariableError, match=r"expected both \(time, cell\), found \(3, 2\) and \(3,\)"):
        scores(np.zeros((3, 2)), np.zeros(3))


def test_the_limits_cover_the_mean_as_often_as_they_say():
    """95 % limits of 40 normal values hold the true mean 93 % of the time: the percentile bootstrap's known shortfall.

    It takes the standard deviation with n and the normal's quantile for Student's: 1.96 √(39/40) is t's 93.9 %.
    """
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(600):
        found = interval(rng.standard_normal(40), rng, draws=400)
        inside += found.low <= 0.0 <= found.high
    assert inside / 600 == pytest.approx(0.939, abs=3 * (0.939 * 0.061 / 600) ** 0.5 + 0.005)


def test_a_paired_difference_is_surer_than_two_means():
    """Two runs that share what makes cells hard: their difference is known far better than either."""
    rng = np.random.default_rng(8)
    hard = 0.02 * rng.standard_normal(100)
    one, other = 0.05 + hard, 0.048 + hard + 0.001 * rng.standard_normal(100)
    alone, paired = interval(one, rng), interval(other - one, rng)
    assert paired.high < 0.0 < alone.low and paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.mean == pytest.approx((other - one).mean()) and paired.cells == 100


def test_cells_without_a_score_do_not_count():
    rng = np.random.default_rng(9)
    assert interval([1.0, np.nan, 3.0], rng).cells == 2
    with pytest.raises(VariableError, match="of at least one cell"):
        interval([np.nan], rng)
    with pytest.raises(RangeError, match="level: expected between 0 and 1"):
        interval([1.0], rng, level=95)
