"""The envelope against normal draws, whose tails are known, and rows moved out of it one way at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twin.emulator.envelope import Envelope
from twin.errors import RangeError, VariableError

NAMES = ("rain", "temperature", "rain_365d", "demand_365d", "theta_s", "carbon")
TOGETHER = ("temperature", "rain_365d", "demand_365d")


def rows(number: int, seed: int) -> np.ndarray:
    """Rain with a long tail, climate memories that go together, a soil, and carbon dioxide that never changes."""
    rng = np.random.default_rng(seed)
    warm = rng.standard_normal(number)
    wet = -0.9 * warm + np.sqrt(1 - 0.81) * rng.standard_normal(number)
    columns = (
        rng.gamma(0.3, 10.0, number),
        295.0 + 6.0 * warm + rng.standard_normal(number),
        2.5 + 0.6 * wet,
        4.0 - 0.8 * wet + 0.2 * rng.standard_normal(number),
        rng.uniform(0.3, 0.5, number),
        np.full(number, 4e-4),
    )
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def envelope() -> Envelope:
    return Envelope.fit(rows(100_000, 0), NAMES, TOGETHER)


def test_what_it_was_made_of_is_inside(envelope):
    """One row in a thousand is out by each kind, of the rows themselves and of others like them."""
    for seed in (0, 1):
        assert 0.0008 < envelope.outside(rows(100_000, seed)).mean() < 0.0025


def test_the_distance_is_that_of_three_normal_features(envelope):
    """d² of k correlated normal features is χ² with k degrees of freedom: its 99.9 % quantile is 16.27 for three."""
    assert envelope.distance**2 == pytest.approx(16.27, rel=0.06)


def test_warmer_than_ever_is_outside_and_says_why(envelope):
    new = rows(10_000, 2)
    new[:, 1] += 60.0
    assert envelope.outside(new).all()
    told = envelope.reasons(new[:3])
    assert told["row"].tolist() == [0, 0, 1, 1, 2, 2]
    assert set(told["feature"]) == {"temperature", "together"}
    warm = told[told["feature"] == "temperature"]
    np.testing.assert_array_equal(warm["value"], new[:3, 1])
    assert (warm["value"] > warm["high"]).all() and (warm["high"] < 330.0).all()


def test_usual_features_in_an_unusual_combination_are_outside(envelope):
    """Wet with a high demand: each has been seen, together they have not."""
    new = rows(1, 3)
    new[0, :4] = [0.0, 295.0, 4.0, 6.0]
    assert envelope.outside(new).tolist() == [True]
    assert envelope.reasons(new)["feature"].tolist() == ["together"]


def test_what_never_changed_must_not_change(envelope):
    new = rows(1000, 4)
    assert envelope.outside(new).mean() < 0.01
    new[:, 5] = 5.6e-4
    assert envelope.outside(new).all()
    assert envelope.reasons(new[:1])["feature"].tolist()[0] == "carbon"


def test_a_long_tail_has_more_room_than_a_short_one(envelope):
    """A soil of 0.55 is further from 0.5 than any was; rain somewhat beyond the largest was to be expected."""
    seen = np.quantile(rows(100_000, 0), [0.001, 0.999], axis=0)
    room = (envelope.high - seen[1]) / np.where(seen[1] > seen[0], seen[1] - seen[0], 1.0)
    assert room[0] > 0.2 and 0.0 < room[4] < 0.1 and envelope.high[4] < 0.53


def test_missing_is_outside(envelope):
    new = rows(4, 5)
    new[1, 3], new[2, 0] = np.nan, np.inf
    assert envelope.outside(new).tolist() == [False, True, True, False]
    assert envelope.reasons(new)["row"].tolist()[0] == 1


def test_it_comes_back_from_json(envelope):
    again = Envelope.from_dict(json.loads(json.dumps(envelope.to_dict())))
    new = rows(200_000, 6) * np.float32(1.05)
    np.testing.assert_array_equal(again.outside(new), envelope.outside(new))
    assert again.names == NAMES and again.together == TOGETHER


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"box": {"rain": [0.0, 1.0]}}, VariableError),
        ({"box": {name: [1.0, 0.0] for name in NAMES}}, RangeError),
        ({"box": {name: [0.0] for name in NAMES}}, VariableError),
        ({"centre": [0.0]}, VariableError),
        ({"whitening": "none"}, VariableError),
        ({"distance": float("nan")}, RangeError),
    ],
)
def test_what_was_changed_is_refused(envelope, change, error):
    with pytest.raises(error, match="envelope"):
        Envelope.from_dict({**envelope.to_dict(), **change})


def test_rows_that_do_not_fit_are_refused(envelope):
    with pytest.raises(VariableError, match=r"features: expected \(row, 6\), found shape \(3, 5\)"):
        envelope.outside(np.zeros((3, 5)))
    with pytest.raises(VariableError, match="taken together: expected some of the names, found snow"):
        Envelope.fit(rows(1000, 0), NAMES, ["rain", "snow"])
    with pytest.raises(RangeError, match="expected 1000 or more, finite, found 10"):
        Envelope.fit(rows(10, 0), NAMES, TOGETHER)
