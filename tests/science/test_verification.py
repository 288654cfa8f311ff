"""Scores of yes and no against identities they must keep, limiting forecasts, and a textbook's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import RangeError, TimeError, VariableError
from twin.verification import (
    brier,
    brier_score,
    brier_skill_score,
    contingency,
    matched,
    ranked_probability_score,
    ranked_probability_skill_score,
    reliability_curve,
    roc_area,
)

FORECASTS = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60)


def truth(n: int = 20_000, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts that are right about how often: each event is drawn with the probability given."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.8, 1.6, n)
    return p, rng.random(n) < p


@settings(max_examples=150, deadline=None)
@given(FORECASTS, st.one_of(st.none(), st.integers(1, 12)))
def test_the_parts_add_up_to_the_score(forecasts, bins):
    """Murphy (1973), eq. 8; Stephenson et al. (2008), eq. 10, with what is within bins."""
    p, o = np.array(forecasts).T
    found = brier(p, o, bins)
    parts = found.reliability - found.resolution + found.uncertainty + found.within
    assert found.score == pytest.approx(parts, abs=1e-12) and found.score == pytest.approx(brier_score(p, o), abs=1e-15)
    assert min(found.reliability, found.resolution, found.uncertainty) >= 0.0
    if bins is None:
        assert abs(found.within) < 1e-12


def test_forecasts_that_are_right_resolve_all_there_is():
    """By hand: 0.2, 0.5 and 0.9 were given ten times each, and 2, 5 and 9 of those happened."""
    p = np.repeat([0.2, 0.5, 0.9], 10)
    o = np.concatenate([np.arange(10) < hits for hits in (2, 5, 9)])
    found = brier(p, o)
    mean = 16.0 / 30.0
    assert found.reliability == pytest.approx(0.0, abs=1e-15)
    assert found.resolution == pytest.approx(np.mean((np.array([0.2, 0.5, 0.9]) - mean) ** 2))
    assert found.uncertainty == pytest.approx(mean * (1.0 - mean)) and found.count == 30


def test_climatology_has_no_skill_and_perfection_has_all():
    _, o = truth()
    assert brier_skill_score(np.full(o.size, o.mean()), o) == pytest.approx(0.0, abs=1e-12)
    assert brier_skill_score(np.full(o.size, 0.3), o, 0.3) == 0.0
    assert brier_skill_score(o.astype(float), o) == roc_area(o.astype(float), o) == 1.0
    assert roc_area(np.full(o.size, 0.3), o) == 0.5 and roc_area(1.0 - o, o) == 0.0
    assert np.isnan(roc_area([0.1, 0.2], [0, 0])) and np.isnan(brier_skill_score([0.1, 0.2], [0, 0]))


def test_forecasts_that_are_right_are_reliable_within_sampling_error():
    p, o = truth()
    curve = reliability_curve(p, o)
    inside = (curve["low"] <= curve["probability"]) & (curve["probability"] <= curve["high"])
    assert inside.sum() >= 8 and curve["count"].sum() == p.size
    error = np.sqrt(curve["frequency"] * (1.0 - curve["frequency"]) / curve["count"])
    assert (np.abs(curve["frequency"] - curve["probability"]) < 4.0 * error).all()
    assert brier(p, o, 10).reliability < 1e-3 < brier(p**2, o, 10).reliability
    away = reliability_curve(p**2, o)[:9]
    assert not ((away["low"] <= away["probability"]) & (away["probability"] <= away["high"])).any()


def test_the_limits_cover_as_often_as_they_say():
    """Clopper and Pearson's limits cover at least as often as the level, for any number of forecasts."""
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(400):
        o = rng.random(15) < 0.2
        row = reliability_curve(np.full(15, 0.2), o, bins=1).iloc[0]
        covered.append(row["low"] <= 0.2 <= row["high"])
    assert 0.9 <= np.mean(covered) <= 0.99


def test_an_empty_bin_is_missing_and_certainty_is_in_the_last():
    curve = reliability_curve([0.0, 1.0, 1.0], [0, 1, 0], bins=4)
    assert curve["count"].tolist() == [1, 0, 0, 2]
    assert np.isnan(curve.loc[1, ["probability", "frequency", "low", "high"]].astype(float)).all()
    assert curve.loc[0, "low"] == 0.0 and curve.loc[3, "frequency"] == 0.5


@settings(max_examples=100, deadline=None)
@given(FORECASTS)
def test_roc_is_a_chance_that_pairs_are_ordered(forecasts):
    """Mann and Whitney: the share of pairs of event and non-event in which the event was given more, ties half."""
    p, o = np.array(forecasts).T
    yes, no = p[o == 1], p[o == 0]
    if not (yes.size and no.size):
        return
    pairs = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    assert roc_area(p, o) == pytest.approx(pairs.mean(), abs=1e-12)


def test_two_categories_are_brier_scores():
    """RPS of two categories is the Brier score of the second (Murphy 1971)."""
    p, o = truth(200)
    two = np.stack([1.0 - p, p], axis=1)
    assert ranked_probability_score(two, o.astype(int)) == pytest.approx(brier_score(p, o))


def test_ranks_count_how_far_off_it_was():
    """Of two forecasts with as much on what happened, the one with more beside it is better: 0.73 and 0.89 (Wilks 2011,
    section 8.4)."""
    first, second = [[0.2, 0.5, 0.3]], [[0.2, 0.3, 0.5]]
    assert ranked_probability_score(first, [0]) == pytest.approx(0.73)
    assert ranked_probability_score(second, [0]) == pytest.approx(0.89)
    third = np.full((3, 3), 1.0 / 3.0)
    assert ranked_probability_skill_score(third, [0, 1, 2]) == pytest.approx(0.0, abs=1e-15)
    assert ranked_probability_skill_score(np.eye(3), [0, 1, 2]) == 1.0
    assert (
        ranked_probability_score(np.eye(3), [2, -1, np.nan]) == 2.0
    )  # two categories off; what is missing is left out


def test_contingency_counts_and_its_rates():
    """Finley's tornadoes of 1884 (Wilks 2011, section 8.2): 28 hits, 72 false alarms, 23 misses, 2680 neither."""
    warned = np.repeat([1, 0, 1, 0], [28, 23, 72, 2680])
    happened = np.repeat([1, 1, 0, 0], [28, 23, 72, 2680])
    found = contingency(warned, happened)
    assert (found.hits, found.misses, found.false_alarms, found.correct_negatives) == (28, 23, 72, 2680)
    assert found.hit_rate == pytest.approx(0.549, abs=5e-4) and found.false_alarm_ratio == pytest.approx(0.72)
    assert found.false_alarm_rate == pytest.approx(0.0262, abs=5e-5)
    none = contingency([0.0, 0.0], [0.0, np.nan])
    assert none.correct_negatives == 1 and np.isnan(none.hit_rate) and none.false_alarm_rate == 0.0


def test_events_are_hit_once_and_lead_counts_from_the_first_warning():
    warnings = [("2010-05-01", "2010-05-20"), ("2010-05-25", "2010-07-01"), ("2011-01-01", "2011-02-01")]
    events = [("2010-05-11", "2010-06-30"), ("2012-01-01", "2012-03-01")]
    found = matched(warnings, events)
    assert (found.hits, found.misses, found.false_alarms, found.lead) == (1, 1, 1, (10,))
    assert np.isnan(found.false_alarm_rate) and found.hit_rate == found.false_alarm_ratio == 0.5
    late = matched([("2010-06-01", "2010-07-01")], events[:1])
    assert late.lead == (-21,) and late.lead_time == -21
    outlook = [("2011-10-01", "2011-11-01")]
    assert matched(outlook, events[1:]).hits == 0 and matched(outlook, events[1:], ahead=61).lead == (92,)
    assert matched([], events).misses == 2 and matched(warnings, []).false_alarms == 3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: brier([0.1, 0.2], [1]), VariableError, "expected one shape"),
        (lambda: brier([np.nan], [1]), VariableError, "expected at least one with its outcome, found none"),
        (lambda: brier([1.2], [1]), RangeError, "probabilities: expected 0 to 1, found 1.2 to 1.2"),
        (lambda: brier([0.2], [0.5]), RangeError, "outcomes: expected 0 or 1"),
        (lambda: contingency([0.5], [1]), RangeError, "warnings: expected 0 or 1"),
        (lambda: reliability_curve([0.5], [1], bins=0), RangeError, "bins: expected 1 or more"),
        (lambda: reliability_curve([0.5], [1], level=1.0), RangeError, "level"),
        (lambda: ranked_probability_score([[0.5, 0.4]], [1]), RangeError, "adding up to 1"),
        (lambda: ranked_probability_score([[0.5, 0.5]], [2]), RangeError, "categories below 2"),
        (lambda: ranked_probability_score([0.5, 0.5], [1]), VariableError, "categories"),
        (lambda: matched([("2010-02-01", "2010-01-01")], []), TimeError, "2010-02-01 to 2010-01-01"),
    ],
)
def test_what_is_not_a_forecast_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
