"""Triggers at their limits, the stability index against its law, and challengers that must not win."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from twin import drift
from twin.drift import Certificate, Histogram, Trigger, triggers, verdict
from twin.errors import RangeError, VariableError

CELLS = 100
OUTPUTS = ("theta_1", "theta_2", "theta_3", "theta_4")


# --- population stability index --------------------------------------------------------------------------------------
def test_the_index_of_a_shifted_normal():
    """Σ (p − q) ln(p/q) of N(μ, 1) against N(0, 1) in the deciles of the latter; for fine bins it tends to μ²."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    held = Histogram.fit(rng.standard_normal((200_000, 1)), ["x"])
    for shift in (0.0, 0.3, 0.6):
        edges = np.r_[-np.inf, norm.ppf(np.arange(1, 10) / 10), np.inf]
        p = np.diff(norm.cdf(edges - shift))
        expected = ((p - 0.1) * np.log(p / 0.1)).sum()
        found = held.psi(shift + rng.standard_normal((200_000, 1)))["x"]
        assert found == pytest.approx(expected, abs=0.004)
        assert 0.88 * shift**2 - 1e-12 <= expected <= shift**2 + 1e-12


def test_the_index_of_the_same_distribution_is_what_chance_makes_it():
    """(B − 1)(1/n + 1/m) on average: 9 (1/1000 + 1/500) (Yurdakul & Naranjo 2020)."""
    rng = np.random.default_rng(1)
    found = [
        Histogram.fit(rng.random((1000, 1)), ["x"]).psi(rng.random((500, 1)))[
            "x"
        ]  # a decile's counts are known less well
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(9 * (1 / 1000 + 1 / 500), rel=0.1)


def test_values_that_repeat_and_bins_that_are_empty():
    rows = np.zeros((1000, 2))
    rows[:, 1] = np.arange(1000)
    held = Histogram.fit(rows, ["still", "moves"])
    assert held.psi(rows) == {"still": 0.0, "moves": 0.0}
    moved = held.psi(rows + np.array([1.0, 5000.0]))
    assert moved["still"] > 5.0 and moved["moves"] > 5.0 and np.isfinite(list(moved.values())).all()


def test_a_histogram_comes_back_from_json():
    rows = np.random.default_rng(2).gamma(0.5, size=(1000, 3))
    held = Histogram.fit(rows, ["a", "b", "c"])
    again = Histogram.from_dict(json.loads(json.dumps(held.to_dict())))
    assert again.psi(rows * 1.3) == held.psi(rows * 1.3)
    for broken in (
        {"a": 1},
        {"a": {"edges": [0.0] * 8, "shares": [0.1] * 10}},
        {"a": held.to_dict()["a"] | {"shares": [1] * 10}},
    ):
        with pytest.raises(VariableError, match="histogram"):
            Histogram.from_dict(broken)
    with pytest.raises(VariableError, match=r"features: expected \(row, 3\)"):
        held.psi(rows[:, :2])
    with pytest.raises(RangeError, match="features: expected one row or more, finite"):
        held.psi(rows[:0])


# --- triggers --------------------------------------------------------------------------------------------------------
def test_nothing_known_and_nothing_wrong_trigger_nothing():
    assert triggers() == ()
    at_limit = triggers(
        psi={"rain": 0.2},
        outside=0.05,
        rmse={"theta_1": 0.015},
        certified={"theta_1": 0.01},
        coverage=0.85,
        kappa_shift=0.5,
        soil_shift=0.01,
        versions={"land": "1.0.0"},
        trained_on={"land": "1.0.0", "forcing": "a"},
    )
    assert at_limit == ()


@pytest.mark.parametrize(
    ("watched", "reason", "figure", "limit"),
    [
        ({"psi": {"rain": 0.1, "warmth": 0.21}}, "weather: 'warmth' has another distribution", 0.21, 0.2),
        ({"outside": 0.051}, "weather: cells outside the envelope", 0.051, 0.05),
        ({"rmse": {"theta_2": 0.032}, "certified": {"theta_2": 0.02}}, "spot check: 'theta_2'", 1.6, 1.5),
        ({"coverage": 0.84}, "spot check: coverage", 0.84, 0.85),
        ({"kappa_shift": 0.6}, "analysis: a pedotransfer coefficient moved", 0.6, 0.5),
        ({"soil_shift": 0.011}, "analysis: a soil's θ_s or θ_c moved", 0.011, 0.01),
        ({"versions": {"land": "2"}, "trained_on": {"land": "1"}}, "version: land", "2", "1"),
        ({"versions": {"land": "2"}}, "version: land", "2", "none"),
    ],
)
def test_each_trigger_on_its_own(watched, reason, figure, limit):
    (found,) = triggers(**watched)
    assert found.reason.startswith(reason) and found.limit == limit
    assert found.figure == (figure if isinstance(figure, str) else pytest.approx(figure))
    assert str(limit) in str(found) and isinstance(found, Trigger)


def test_a_figure_that_is_none_is_a_reason():
    found = triggers(outside=float("nan"), coverage=float("nan"), rmse={"theta_1": np.nan}, certified={"theta_1": 0.01})
    assert len(found) == 3


# --- the verdict -----------------------------------------------------------------------------------------------------
def scores(rng: np.random.Generator, hard: np.ndarray, factor: float = 1.0, **others) -> Certificate:
    """An emulator whose errors at each cell are those of the place, times a factor, and 5 % of its own."""
    own = {name: factor * hard * np.exp(0.05 * rng.standard_normal(CELLS)) for name in OUTPUTS}
    given = {
        "rmse": own,
        "dry_days": 200.0 * own["theta_3"],
        "aridity": np.arange(CELLS) % 5,
        "drift": {name: 1e-4 for name in OUTPUTS},
        "coverage": 0.9,
        "cost": 0.2,
        "golden": True,
        "monotone": 0.99,
    }
    return Certificate(**(given | others))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def hard(rng) -> np.ndarray:
    """How hard each cell is: a spread of a factor of two, which both emulators share."""
    return 0.006 * np.exp(0.5 * rng.standard_normal(CELLS))


def test_a_better_challenger_wins_and_says_why(rng, hard):
    found = verdict(scores(rng, hard), scores(rng, hard, 0.9), rng)
    assert found.promote and len(found.reasons) == 4 and "certainly below 0.98" in found.reasons[0]


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_of_a_hundred_challengers_that_are_not_better_none_wins(hard, factor):
    wins = 0
    for trial in range(100):
        rng = np.random.default_rng([7, trial])
        wins += verdict(scores(rng, hard), scores(rng, hard, factor), rng).promote
    assert wins == 0


def test_better_in_three_layers_does_not_make_up_for_one(hard):
    wins = 0
    for trial in range(100):
        rng = np.random.default_rng([8, trial])
        challenger = scores(rng, hard, 0.8)
        worse = challenger.rmse | {"theta_4": 1.05 / 0.8 * challenger.rmse["theta_4"]}
        wins += verdict(scores(rng, hard), replace(challenger, rmse=worse), rng).promote
    assert wins == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"coverage": 0.86}, "coverage 0.860, expected 0.87 to 0.95"),
        ({"coverage": float("nan")}, "coverage nan"),
        ({"cost": 1.01}, "1.01 ms a pixel-year, limit 1"),
        ({"golden": False}, "golden vectors did not come out"),
        ({"monotone": 0.9}, "more rain dries 10.0% of the cells, limit 5%"),
        ({"drift": {"theta_4": -6e-4}}, "'theta_4' drifts by -0.0006 a year, limit 0.0005"),
        ({"dry_days": np.full(CELLS, 9.0)}, "dry days wrong by 9.00 a year"),
        ({"dry_days": np.full(CELLS, np.nan)}, "'dry days' has no score at 100 cells"),
    ],
)
def test_each_fault_is_enough(rng, hard, fault, reason):
    found = verdict(scores(rng, hard), scores(rng, hard, 0.7, **fault), rng)
    assert not found.promote and any(told.startswith(reason) for told in found.reasons), found.reasons


def test_no_class_of_aridity_may_pay_for_the_others(rng, hard):
    challenger = scores(rng, hard, 0.7)
    desert = np.where(challenger.aridity == 0, 1.2 / 0.7, 1.0)
    found = verdict(
        scores(rng, hard), replace(challenger, rmse={k: v * desert for k, v in challenger.rmse.items()}), rng
    )
    assert not found.promote and all("hyper-arid" in told for told in found.reasons) and len(found.reasons) == 4


def test_the_first_has_nobody_to_beat(rng, hard):
    assert verdict(None, scores(rng, hard), rng) == drift.Verdict(True, ())
    assert not verdict(None, scores(rng, hard, coverage=0.5), rng).promote


def test_the_same_draws_give_the_same_verdict(hard):
    pair = [scores(np.random.default_rng(9), hard, factor) for factor in (1.0, 0.97)]
    assert len({verdict(*pair, np.random.default_rng(10)) for _ in range(3)}) == 1


def test_other_outputs_or_cells_are_refused(rng, hard):
    champion, challenger = scores(rng, hard), scores(rng, hard)
    fewer = replace(challenger, rmse={name: challenger.rmse[name] for name in OUTPUTS[:3]})
    elsewhere = replace(challenger, aridity=challenger.aridity[::-1])
    for other in (fewer, elsewhere, replace(challenger, dry_days=np.zeros(3))):
        with pytest.raises(VariableError, match="challenger's scores: expected the champion's outputs and cells"):
            verdict(champion, other, rng)
    with pytest.raises(RangeError, match="champion's scores: expected one at every cell"):
        verdict(replace(champion, dry_days=np.full(CELLS, np.nan)), challenger, rng)


def test_a_certificate_comes_back_from_json(rng, hard):
    before = scores(rng, hard)
    again = Certificate.from_dict(json.loads(json.dumps(before.to_dict())))
    assert again.to_dict() == before.to_dict() and again.golden is True
    assert verdict(again, before, np.random.default_rng(0)) == verdict(before, before, np.random.default_rng(0))
    with pytest.raises(VariableError, match="certificate"):
        Certificate.from_dict({**before.to_dict(), "rmse": None})
