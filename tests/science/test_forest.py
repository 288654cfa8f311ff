"""Forests against XGBoost itself, and against a tree worked out by hand: the same numbers to the last bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from twin.emulator.forest import Forest
from twin.emulator.kernel import PATHS, ROWS, Kernel
from twin.emulator.lines import VBMI

here = [
    pytest.param(path, marks=pytest.mark.skipif(path == "avx512-vbmi" and not VBMI, reason="no AVX-512 VBMI here"))
    for path in PATHS
]

# Two trees over rain and heat. Tree 0: rain < 1 → (heat < 300 → 0.25 | 0.5) | −1. Tree 1: one leaf, 0.125.
BY_HAND: dict[str, Any] = {
    "version": [3, 4, 1],
    "learner": {
        "feature_names": ["rain", "heat"],
        "objective": {"name": "reg:squarederror"},
        "learner_model_param": {"base_score": "[5E-1]", "num_class": "0", "num_feature": "2", "num_target": "1"},
        "gradient_booster": {
            "name": "gbtree",
            "model": {
                "gbtree_model_param": {"num_trees": "2", "num_parallel_tree": "1"},
                "tree_info": [0, 0],
                "trees": [
                    {
                        "tree_param": {
                            "num_nodes": "5",
                            "num_deleted": "0",
                            "num_feature": "2",
                            "size_leaf_vector": "1",
                        },
                        "left_children": [2, -1, 3, -1, -1],
                        "right_children": [1, -1, 4, -1, -1],
                        "parents": [2147483647, 0, 0, 2, 2],
                        "split_indices": [0, 0, 1, 0, 0],
                        "split_conditions": [1.0, -1.0, 300.0, 0.25, 0.5],
                        "split_type": [0, 0, 0, 0, 0],
                        "default_left": [0, 0, 0, 0, 0],
                        "categories": [],
                    },
                    {
                        "tree_param": {
                            "num_nodes": "1",
                            "num_deleted": "0",
                            "num_feature": "2",
                            "size_leaf_vector": "1",
                        },
                        "left_children": [-1],
                        "right_children": [-1],
                        "parents": [2147483647],
                        "split_indices": [0],
                        "split_conditions": [0.125],
                        "split_type": [0],
                        "default_left": [0],
                        "categories": [],
                    },
                ],
            },
        },
    },
}


@pytest.mark.parametrize("path", here)
def test_a_forest_worked_out_by_hand(path):
    forest = Forest.parse(json.dumps(BY_HAND).encode(), ["rain", "heat"])
    below = [np.nextafter(np.float32(1), np.float32(0)), np.nextafter(np.float32(300), np.float32(0))]
    rows = np.array([[0, 290], [0, 300], [1, 290], [below[0], below[1]], [-np.inf, np.inf], [np.inf, 0]], np.float32)
    found = Kernel([forest], path).predict(rows)
    assert found[:, 0].tolist() == [0.875, 1.125, -0.375, 0.875, 1.125, -0.375]


def names(features: int) -> list[str]:
    return [f"x{index}" for index in range(features)]


def trained(depth: int, trees: int, features: int, seed: int = 0, **options: Any) -> xgb.Booster:
    """A booster of many kinds of features: of few and of many values, of any size, some that say nothing."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4000, features))
    z[:, 0] = rng.integers(0, 5, 4000)
    y = z[:, 0] * np.abs(z[:, 1]) + np.sin(3 * z[:, 2]) + z[:, -1] ** 2 + 0.1 * rng.normal(size=4000) + 7
    x = z.astype(np.float32)
    x[:, 1] *= np.float32(1e30)
    x[:, -1] *= np.float32(1e-42)  # not normal
    data = xgb.QuantileDMatrix(x, y, feature_names=names(features)) if "tree_method" not in options else None
    data = data or xgb.DMatrix(x, y, feature_names=names(features))
    return xgb.train({"max_depth": depth, "nthread": 1, "seed": seed, **options}, data, trees)


def rows_for(forest: Forest, number: int, seed: int = 1) -> np.ndarray:
    """Rows on thresholds, just beside them, far from them, and of every unusual number."""
    rng = np.random.default_rng(seed)
    unusual = [0.0, -0.0, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, 1e-38]
    rows = np.empty((number, len(forest.features)), np.float32)
    for column, cuts in enumerate(forest.thresholds):
        cuts = cuts if cuts.size else np.zeros(1, np.float32)
        beside = [cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, np.float32(-np.inf))]
        some = np.concatenate([*beside, cuts * np.float32(1.5), np.array(unusual, np.float32)])
        rows[:, column] = rng.choice(some, number)
    return rows


def predicted(booster: xgb.Booster, rows: np.ndarray) -> np.ndarray:
    return booster.inplace_predict(rows, missing=np.nan, validate_features=False)


@pytest.mark.parametrize("path", here)
@pytest.mark.parametrize(
    "depth, trees, features", [(1, 3, 3), (2, 20, 5), (3, 20, 17), (4, 30, 16), (5, 30, 70), (6, 40, 40), (8, 20, 20)]
)
def test_every_prediction_is_that_of_xgboost(path, depth, trees, features):
    booster = trained(depth, trees, features)
    forest = Forest.parse(booster.save_raw("ubj"), names(features))
    assert 1 <= forest.depth.max() <= depth
    rows = rows_for(forest, 3 * ROWS + 37)
    found = Kernel([forest], path).predict(rows)[:, 0]
    np.testing.assert_array_equal(found, predicted(booster, rows))
    finite = np.isfinite(rows).all(axis=1)
    np.testing.assert_array_equal(
        found[finite], booster.predict(xgb.DMatrix(rows[finite], feature_names=names(features)))
    )


@pytest.mark.parametrize("objective", ["reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror"])
def test_every_objective_that_is_read_sums_its_leaves_as_they_are(objective):
    alpha = {"quantile_alpha": 0.9} if objective.startswith("reg:quantile") else {}
    booster = trained(4, 10, 5, objective=objective, **alpha)
    forest = Forest.parse(booster.save_raw("json"), names(5))
    rows = rows_for(forest, 300)
    np.testing.assert_array_equal(Kernel([forest]).predict(rows)[:, 0], predicted(booster, rows))


@pytest.mark.parametrize("path", here)
def test_a_feature_may_have_any_number_of_thresholds(path):
    """More than a histogram has bins: every value of the data is a threshold of the exact method."""
    booster = trained(6, 60, 3, tree_method="exact")
    forest = Forest.parse(booster.save_raw("ubj"), names(3))
    assert max(cuts.size for cuts in forest.thresholds) > 2 * 255
    rows = rows_for(forest, 2000)
    np.testing.assert_array_equal(Kernel([forest], path).predict(rows)[:, 0], predicted(booster, rows))


def test_trees_too_deep_for_lines_are_walked():
    booster = trained(12, 10, 6)
    forest = Forest.parse(booster.save_raw("ubj"), names(6))
    kernel, rows = Kernel([forest]), rows_for(forest, 1000)
    assert forest.depth.max() > 8 and kernel.path == "portable"
    np.testing.assert_array_equal(kernel.predict(rows)[:, 0], predicted(booster, rows))


@pytest.mark.parametrize("path", here)
def test_several_outputs_at_once_are_each_alone(path):
    boosters = [trained(depth, 15, 20, seed) for seed, depth in enumerate((6, 2, 8, 5))]
    forests = [Forest.parse(booster.save_raw("ubj"), names(20)) for booster in boosters]
    rows = rows_for(forests[0], 1500)
    found = Kernel(forests, path).predict(rows)
    for output, booster in enumerate(boosters):
        np.testing.assert_array_equal(found[:, output], predicted(booster, rows))


@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_both_kinds_of_file_hold_the_same_forest(kind):
    booster = trained(6, 25, 8)
    forest, other = (Forest.parse(booster.save_raw(form), names(8)) for form in (kind, "json"))
    for name in ("base", "start", "feature", "child", "value", "depth"):
        np.testing.assert_array_equal(getattr(forest, name), getattr(other, name))


def test_a_forest_is_the_trees_that_xgboost_prints():
    booster = trained(5, 12, 6)
    forest = Forest.parse(booster.save_raw("ubj"), names(6))
    frame = booster.trees_to_dataframe()
    assert forest.trees == 12 and forest.start[-1] == len(frame)
    splits = frame[frame["Feature"] != "Leaf"]
    assert (forest.child > 0).sum() == len(splits)
    printed = {name: np.unique(part["Split"].astype(np.float32)) for name, part in splits.groupby("Feature")}
    for name, cuts in zip(forest.features, forest.thresholds, strict=True):
        np.testing.assert_array_equal(cuts, printed.get(name, np.zeros(0)))
    leaves = frame.loc[frame["Feature"] == "Leaf", "Gain"].astype(np.float32)
    assert sorted(forest.value[forest.child == 0]) == sorted(leaves)
    score = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    assert forest.base == np.float32(score.strip("[]"))
