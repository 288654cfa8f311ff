"""A model file is read as if an enemy had written it: it is refused with its reason or it is a forest."""

from __future__ import annotations

import copy
import json
import struct
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from twin.emulator import forest as limits
from twin.emulator.forest import Forest
from twin.emulator.kernel import Kernel
from twin.errors import Rejected

FEATURES = ["rain", "heat", "sand"]


@cache
def trained(kind: str, **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    data = xgb.DMatrix(x, 1 / (1 + np.exp(-x[:, 0] - np.abs(x[:, 1]))), feature_names=FEATURES)
    return bytes(xgb.train({"max_depth": 3, "nthread": 1, **options}, data, 3).save_raw(kind))


def document() -> Any:
    return json.loads(trained("json"))


def trees(model: Any) -> Any:
    return model["learner"]["gradient_booster"]["model"]["trees"]


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Sets what the dotted path of names and numbers leads to, counted from the learner."""

    def apply(model: Any) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        part = model["learner"]
        for step in way:
            part = part[step]
        part[last] = value

    return apply


TREE = "gradient_booster.model.trees.1."
SIZES = "learner_model_param."
HOSTILE = {
    "a child that is not there": (change(TREE + "left_children.0", 99), "left_children out of range.*node 0"),
    "a child before the first": (change(TREE + "left_children.1", -2), "left_children out of range.*found -2"),
    "a root that is its own child": (change(TREE + "left_children.0", 0), "node reached twice.*tree 1, node 0"),
    "a way back up": (change(TREE + "left_children.1", 0), "node reached twice"),
    "two parents of one node": (change(TREE + "right_children.0", 1), "node reached twice.*tree 1, node 1"),
    "a node that nothing leads to": (
        lambda model: [trees(model)[1][name].__setitem__(1, -1) for name in ("left_children", "right_children")],
        "node never reached",
    ),
    "one child": (change(TREE + "right_children.0", -1), "one child only.*tree 1, node 0"),
    "a parent that is another": (change(TREE + "parents.1", 2), "other parent: expected 0, found 2.*node 1"),
    "a feature that is not there": (change(TREE + "split_indices.0", 3), "split_indices out of range.*found 3"),
    "a feature before the first": (change(TREE + "split_indices.0", -1), "split_indices out of range.*found -1"),
    "a feature of 64 bits": (change(TREE + "split_indices.0", 2**40), "split_indices out of range"),
    "a feature of 100 bits": (change(TREE + "split_indices.0", 2**100), "unfit split_indices"),
    "a feature that is no number": (change(TREE + "split_indices.0", "0"), "unfit split_indices"),
    "a feature that is true": (change(TREE + "split_indices.0", True), "unfit split_indices"),
    "a threshold beyond single precision": (change(TREE + "split_conditions.0", 1e39), "split_conditions out of range"),
    "a threshold beyond any": (change(TREE + "split_conditions.0", 10**400), "unfit split_conditions|out of range"),
    "a threshold that is text": (change(TREE + "split_conditions.0", "1"), "unfit split_conditions"),
    "a missing threshold": (lambda model: trees(model)[1]["split_conditions"].pop(), "split_conditions: expected"),
    "thresholds within thresholds": (change(TREE + "split_conditions.0", [1.0]), "unfit split_conditions"),
    "no thresholds": (lambda model: trees(model)[1].pop("split_conditions"), "part missing: expected split_conditions"),
    "a split by category": (change(TREE + "split_type.0", 1), "split by category"),
    "categories": (change(TREE + "categories", [1]), "split by category"),
    "categories of a table": (change("gradient_booster.model.cats.enc", [1]), "categories"),
    "a wrong number of nodes": (change(TREE + "tree_param.num_nodes", "14"), "expected 14 values"),
    "no nodes": (change(TREE + "tree_param.num_nodes", "0"), "empty tree"),
    "more nodes than allowed": (change(TREE + "tree_param.num_nodes", "99999999"), "unfit num_nodes"),
    "a number of nodes that is none": (change(TREE + "tree_param.num_nodes", "-5"), "unfit num_nodes"),
    "nodes deleted": (change(TREE + "tree_param.num_deleted", "2"), "unfit num_deleted"),
    "leaves of several values": (change(TREE + "tree_param.size_leaf_vector", "3"), "unfit size_leaf_vector"),
    "a tree of other features": (change(TREE + "tree_param.num_feature", "4"), "unfit num_feature"),
    "a tree that is none": (change("gradient_booster.model.trees.0", 7), "not an object.*tree 0"),
    "trees that are none": (change("gradient_booster.model.trees", {}), "trees is no list"),
    "a tree too few": (lambda model: trees(model).pop(), "unfit num_trees"),
    "trees of several outputs": (change("gradient_booster.model.tree_info", [0, 1, 0]), "unfit tree_info"),
    "several outputs": (change(SIZES + "num_target", "2"), "unfit num_target: expected 1, found 2"),
    "classes": (change(SIZES + "num_class", "3"), "unfit num_class"),
    "another number of features": (change(SIZES + "num_feature", "4"), "unfit num_feature: expected 3, found 4"),
    "features in another order": (
        change("feature_names", ["heat", "rain", "sand"]),
        "other features: expected rain in place 0, found heat",
    ),
    "a feature too many": (
        change("feature_names", [*FEATURES, "x"]),
        "other features: expected 3 names, found 4 names",
    ),
    "no names": (change("feature_names", None), "feature_names is no list"),
    "a base that is no number": (change(SIZES + "base_score", "[NaN]"), "unfit base_score"),
    "a base beyond single precision": (change(SIZES + "base_score", "[1E99]"), "unfit base_score"),
    "a base for each of two outputs": (change(SIZES + "base_score", "[1E0,2E0]"), "unfit base_score"),
    "another objective": (change("objective.name", "binary:logistic"), "unfit name.*found binary:logistic"),
    "another booster": (change("gradient_booster.name", "dart"), "unfit name: expected gbtree, found dart"),
    "an unknown version": (lambda model: model.update(version=[9, 0, 0]), r"unknown version: expected .*\[9, 0, 0\]"),
    "weights of trees": (change("gradient_booster.model.weight_drop", [1.0, 0.5, 1.0]), "unknown parts.*weight_drop"),
    "leaves of another kind": (change(TREE + "leaf_weights", [1.0]), "unknown parts.*leaf_weights"),
    "no learner": (lambda model: model.pop("learner"), "part missing: expected learner"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_forest_is_refused_with_its_reason(kind):
    break_it, reason = HOSTILE[kind]
    model = document()
    break_it(model)
    with pytest.raises(Rejected, match=reason):
        Forest.parse(json.dumps(model).encode(), FEATURES)


OTHER_KINDS = {
    "pruned": ({"tree_method": "exact", "gamma": 5.0}, "unfit num_deleted"),
    "logistic": ({"objective": "binary:logistic", "base_score": 0.5}, "unfit name"),
    "dropout": ({"booster": "dart", "rate_drop": 0.5}, "unknown parts.*weight_drop|expected gbtree, found dart"),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": (0.1, 0.9)}, "unfit (num_target|base_score)"),
}


@pytest.mark.filterwarnings("ignore:.*dart:UserWarning")
@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_xgboost_can_do_and_we_do_not_is_refused(kind, form):
    options, reason = OTHER_KINDS[kind]
    with pytest.raises(Rejected, match=reason):
        Forest.parse(trained(form, **options), FEATURES)


def chain(depth: int) -> Any:
    """A tree that turns left so many times."""
    model, nodes = document(), 2 * depth + 1
    tree = trees(model)[1]
    inner = [1 + 2 * (node // 2) if node % 2 == 0 and node < 2 * depth else -1 for node in range(nodes)]
    tree["left_children"] = [right + 1 if right > 0 else -1 for right in inner]
    tree["right_children"] = inner
    tree["parents"] = [2147483647] + [2 * ((node - 1) // 2) for node in range(1, nodes)]
    tree["tree_param"]["num_nodes"] = str(nodes)
    for name in ("split_indices", "split_type", "default_left", "split_conditions"):
        tree[name] = [0] * nodes
    return json.dumps(model).encode()


def test_a_tree_may_be_deep_but_not_bottomless():
    assert Forest.parse(chain(limits.DEPTH), FEATURES).depth.max() == limits.DEPTH
    with pytest.raises(Rejected, match=r"tree too deep: expected at most 16 levels of splits \(tree 1, node 32\)"):
        Forest.parse(chain(limits.DEPTH + 1), FEATURES)


def announced(kind: bytes, size: int) -> bytes:
    return b"{L" + struct.pack(">q", 1) + b"x" + kind + b"#L" + struct.pack(">q", size)


BYTES = {
    "nothing": b"",
    "a letter": b"x",
    "an object cut short": b"{",
    "an empty object": b"{}",
    "an empty UBJSON object": b"{\x00}",
    "a list": b"[]",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin\x94.",
    "lists without end": b"[" * 10**6,
    "objects without end": b'{"x":' * 10**6,
    "UBJSON objects without end": b"{i\x01x" * 10**6,
    "UBJSON lists without end": b"{i\x01x" + b"[" * 10**6,
    "a huge array": announced(b"[$l", 2**62),
    "a huge array of nothing": announced(b"[$Z", 2**62),
    "a huge list": announced(b"[", 2**62),
    "a negative array": announced(b"[$d", -1),
    "a long row of nothing": b"{i\x01x[" + b"Z" * 2**21,
    "a huge name": b"{L" + struct.pack(">q", 2**62),
    "a name of no integer": b"{d" + bytes(4),
    "a name that is no text": b"{i\x02\xff\xfeZ}",
    "a name twice": b"{i\x01xZi\x01xZ}",
    "JSON with a name twice": b'{"version": [3], "version": [3]}',
    "JSON that is no text": b'{"x": "\xff"}',
    "a long number": b'{"version": ' + b"9" * 10**5 + b"}",
    "not a number": b'{"version": [NaN]}',
    "infinity": b'{"version": [-Infinity]}',
    "too large": b" " * (limits.BYTES + 1),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_of_any_kind_end_in_an_error_soon(kind):
    start = time.process_time()
    with pytest.raises(Rejected):
        Forest.parse(BYTES[kind], FEATURES)
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_a_file_goes_on_after_its_end_or_stops_before_it(form):
    raw = trained(form)
    assert Forest.parse(raw, FEATURES).trees == 3
    with pytest.raises(Rejected):
        Forest.parse(raw + b"x", FEATURES)
    for length in range(len(raw)):
        with pytest.raises(Rejected):
            Forest.parse(raw[:length], FEATURES)


def check(forest: Forest) -> None:
    """Every node of every tree is reached once, every number is finite, every row has one answer."""
    assert np.isfinite(forest.value).all() and np.isfinite(forest.base)
    for tree in range(forest.trees):
        child = forest.child[forest.start[tree] : forest.start[tree + 1]]
        inner = child[child > 0]
        assert sorted([0, *inner, *(inner + 1)]) == list(range(child.size))
        assert (inner > np.flatnonzero(child)).all()
    assert ((forest.feature >= 0) & (forest.feature < 3)).all()
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(Kernel([forest]).predict(rows), Kernel([forest], "portable").predict(rows))


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_a_file_with_flipped_bytes_is_refused_or_is_a_forest(form):
    raw, rng = trained(form), np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        broken = bytearray(raw)
        for at in rng.integers(0, len(raw), rng.integers(1, 4)):
            broken[at] = rng.integers(0, 256)
        try:
            forest = Forest.parse(bytes(broken), FEATURES)
        except Rejected:
            refused += 1
        else:
            if not refused % 10:  # a tenth is enough, and takes a tenth of the time
                check(forest)
    assert 150 < refused < 1500


def test_parts_of_the_document_that_are_something_else_are_refused_or_ignored():
    """Every part in turn becomes null, a number, a text, a list, an object."""

    def ways(part: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = part.items() if isinstance(part, dict) else enumerate(part[:2]) if isinstance(part, list) else ()
        return [way] * bool(way) + [found for key, value in inner for found in ways(value, (*way, key))]

    model = document()
    refused = 0
    for way in ways(model):
        for other in (None, 1, "1", [], {}, [[]], -1.5, True):
            changed = copy.deepcopy(model)
            part = changed
            for step in way[:-1]:
                part = part[step]
            part[way[-1]] = other
            try:
                forest = Forest.parse(json.dumps(changed).encode(), FEATURES)
            except Rejected:
                refused += 1
            else:
                check(forest)
    assert refused > 300
