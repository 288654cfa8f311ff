"""The comparison of runtimes: every runtime is asked the same, and ours differs from XGBoost by nothing."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb

from flows.bench.runtimes import REFERENCE, YEAR, compare

FEATURES = ["rain", "heat", "sand"]


def boosters() -> list[xgb.Booster]:
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    data = [xgb.QuantileDMatrix(x, x[:, output] ** 2, feature_names=FEATURES) for output in range(2)]
    return [xgb.train({"max_depth": 4, "nthread": 1}, some, 5) for some in data]


def test_every_runtime_answers_the_same_question():
    rows = np.random.default_rng(1).normal(size=(2 * YEAR, 3)).astype(np.float32)
    table = compare(boosters(), rows, repeats=1, threads=[1])
    timed = [row for row in table if "missing" not in row]
    assert {"all", "year"} == {row["call"] for row in timed}
    assert sum(row["what"].startswith("ours") for row in timed) >= 3
    for row in timed:
        assert row["ms"] > 0 and row["cpu_ms"] > 0 and row["ratio"] > 0
        exact = row["what"].startswith(("ours", "xgboost"))
        assert row["difference"] == 0.0 if exact else row["difference"] < 1e-5, row["what"]
    assert [row["ratio"] for row in timed if row["what"] == REFERENCE] == [1.0, 1.0]


def test_rows_are_whole_years():
    with pytest.raises(ValueError, match="expected whole years of 365, found 364"):
        compare(boosters(), np.zeros((YEAR - 1, 3), np.float32))
