"""A trained booster as plain arrays: XGBoost's own file, read and checked by us before anything runs on it.

XGBoost (Chen & Guestrin, 2016) writes a booster as JSON or, the same names and numbers in binary, as UBJSON. A
prediction is

    base + leaf(tree 0) + leaf(tree 1) + …          in single precision, in this order

where a row goes left at a node if its feature is below the threshold, else right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from twin.emulator import ubjson
from twin.errors import Rejected

BYTES = 32 * 2**20  # largest file
TREES, NODES, DEPTH = 10_000, 2**20, 16  # most of a forest; deepest leaf
VERSIONS = (2, 3)  # major versions of XGBoost whose files are read
OBJECTIVES = ("reg:squarederror", "reg:pseudohubererror", "reg:quantileerror", "reg:absoluteerror")  # sums as they are

# all that may be in a booster and in a tree: what we do not know may change what the rest means, as dropout does
_BOOSTER = {"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"}
_TREE = {
    *("id", "tree_param", "left_children", "right_children", "parents", "split_indices", "split_conditions"),
    *("split_type", "default_left", "categories", "categories_nodes", "categories_segments", "categories_sizes"),
    *("base_weights", "loss_changes", "sum_hessian"),
}
_BASE = re.compile(r"\[?(-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?)\]?")


@dataclass(frozen=True)
class Forest:
    """Trees of one output. Nodes of a tree are numbered level by level, so that a child comes after its parent.

    features  names, in the order of the columns of a row
    base      what a row is given before the first tree
    start     (tree + 1,) first node of each tree
    feature   (node,) column that is compared; 0 at a leaf
    child     (node,) left child, counted within the tree; the right one follows it; 0 at a leaf
    value     (node,) float32, threshold of a split or value of a leaf
    depth     (tree,) of the deepest leaf
    """

    features: tuple[str, ...]
    base: np.float32
    start: np.ndarray
    feature: np.ndarray
    child: np.ndarray
    value: np.ndarray
    depth: np.ndarray

    @property
    def trees(self) -> int:
        return self.depth.size

    @property
    def thresholds(self) -> list[np.ndarray]:
        """Distinct thresholds of each feature, ascending."""
        split = self.child > 0
        return [np.unique(self.value[split & (self.feature == index)]) for index in range(len(self.features))]

    @classmethod
    def parse(cls, raw: bytes, features: Sequence[str]) -> Forest:
        """The forest in a file that `Booster.save_raw` wrote, "json" or "ubj", trained on exactly these features.

        Raises Rejected, with tree and node, for all that is not one: an unfit version, objective or booster, other
        features, nodes that form no tree, numbers that are not finite, sizes beyond the limits of this module.
        """
        raw = bytes(raw)
        if len(raw) > BYTES:
            raise _error("file too large", f"at most {BYTES} bytes", len(raw))
        model = _Part(_document(raw), "model")
        version = model.list("version")
        if not version or version[0] not in VERSIONS:
            raise _error("unknown version", f"XGBoost {' or '.join(map(str, VERSIONS))}", version)
        learner = model.part("learner")
        learner.part("objective").expect("name", *OBJECTIVES)
        base = _header(learner, tuple(features))
        booster = learner.part("gradient_booster")
        booster.expect("name", "gbtree")
        return cls(tuple(features), base, *_trees(booster.part("model"), len(features)))


def _error(what: str, expected: object = "", found: object = "", where: str = "model") -> Rejected:
    return Rejected(f"model file: {what}", expected=expected, found=_short(found), where=where)


def _short(found: object) -> object:
    text = str(found)
    return text if len(text) <= 80 else text[:77] + "…"


def _document(raw: bytes) -> Any:
    """The file's content; a JSON object goes on with a quotation mark, a UBJSON one with the length of a name."""
    if re.match(rb'\s*\{\s*["}]', raw[:64]) is None:
        return ubjson.loads(raw)
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as err:
        raise _error("nested too deep") from err
    except ValueError as err:
        raise _error("no JSON", "the JSON of a booster", err) from err


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        raise _error("name twice in one object", found=sorted(name for name, _ in pairs))
    return items


def _no_number(text: str) -> Any:
    raise _error("no number", "finite numbers", text)


class _Part:
    """An object of the file, asked for what it must hold."""

    def __init__(self, items: Any, where: str) -> None:
        if not isinstance(items, Mapping):
            raise _error("not an object", "names and values", type(items).__name__, where)
        self.items, self.where = items, where

    def error(self, what: str, expected: object = "", found: object = "", node: int | None = None) -> Rejected:
        return _error(what, expected, found, self.where if node is None else f"{self.where}, node {node}")

    def get(self, name: str) -> Any:
        if name not in self.items:
            raise self.error("part missing", name, sorted(map(str, self.items)))
        return self.items[name]

    def part(self, name: str) -> _Part:
        return _Part(self.get(name), name if self.where == "model" else f"{self.where}.{name}")

    def only(self, known: Set[str]) -> None:
        if unknown := self.items.keys() - known:
            raise self.error("unknown parts", sorted(known), sorted(unknown))

    def list(self, name: str) -> list[Any]:
        value = self.get(name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list):
            raise self.error(f"{name} is no list", "a list", type(value).__name__)
        return value

    def expect(self, name: str, *allowed: object) -> None:
        value = self.get(name)
        if not isinstance(value, str) or value not in allowed:
            raise self.error(f"unfit {name}", " or ".join(map(str, allowed)), value)

    def count(self, name: str, most: int) -> int:
        """A whole number, which XGBoost writes as text."""
        value = self.get(name)
        if not isinstance(value, str) or re.fullmatch(r"[0-9]{1,9}", value) is None or int(value) > most:
            raise self.error(f"unfit {name}", f"0 to {most}", value)
        return int(value)

    def numbers(self, name: str, size: int, form: type, within: tuple[float, float] | None = None) -> np.ndarray:
        """`size` numbers (node,), whole or float32, all finite and within the bounds."""
        value = self.get(name)
        whole = form is not np.float32
        if isinstance(value, list):  # JSON; or, in UBJSON, an array without a type, of which XGBoost makes none here
            if not all(type(item) is int or (type(item) is float and not whole) for item in value):
                raise self.error(f"unfit {name}", "integers" if whole else "numbers")
            try:
                value = np.array(value, np.int64 if whole else np.float64)
            except OverflowError as err:
                raise self.error(f"unfit {name}", "numbers of 64 bits") from err
        if not isinstance(value, np.ndarray) or value.dtype.kind not in ("iu" if whole else "f"):
            raise self.error(f"unfit {name}", "integers" if whole else "numbers", type(value).__name__)
        if value.size != size:
            raise self.error(f"unfit {name}", f"{size} values", value.size)
        if whole:
            wrong = (value < within[0]) | (value > within[1]) if within else np.zeros(size, bool)
            expected = f"{within[0]} to {within[1]}" if within else ""
        else:
            with np.errstate(over="ignore"):
                value = value.astype(np.float32)
            wrong, expected = ~np.isfinite(value), "a finite number in single precision"
        if wrong.any():
            node = int(wrong.argmax())
            raise self.error(f"{name} out of range", expected, value[node], node)
        return value.astype(form)


def _header(learner: _Part, features: tuple[str, ...]) -> np.float32:
    """The base score, once features and outputs are those we expect."""
    names = learner.list("feature_names")
    if tuple(names) != features:
        raise learner.error("other features", *_difference(features, names))
    sizes = learner.part("learner_model_param")
    for name, expected in (("num_feature", len(features)), ("num_class", 0), ("num_target", 1)):
        if sizes.count(name, 2**20) != expected:
            raise sizes.error(f"unfit {name}", expected, sizes.get(name))
    score = sizes.get("base_score")
    match = isinstance(score, str) and len(score) < 40 and _BASE.fullmatch(score)
    if not match:
        raise sizes.error("unfit base_score", "one number", score)
    with np.errstate(over="ignore"):
        base = np.float32(float(match[1]))
    if not np.isfinite(base):
        raise sizes.error("unfit base_score", "a finite number in single precision", score)
    return base


def _difference(features: tuple[str, ...], names: list[Any]) -> tuple[str, str]:
    """What was expected and found where the names first differ."""
    if len(features) != len(names):
        return f"{len(features)} names", f"{len(names)} names"
    index = next(index for index, pair in enumerate(zip(features, names, strict=True)) if pair[0] != pair[1])
    return f"{features[index]} in place {index}", str(names[index])


def _trees(model: _Part, features: int) -> Iterator[np.ndarray]:
    """start, feature, child, value and depth of a `Forest`."""
    model.only(_BOOSTER)
    trees = model.list("trees")
    sizes = model.part("gbtree_model_param")
    if sizes.count("num_trees", TREES) != len(trees):
        raise sizes.error("unfit num_trees", len(trees), sizes.get("num_trees"))
    if model.list("tree_info") != [0] * len(trees):
        raise model.error("unfit tree_info", f"{len(trees)} trees of one output", model.list("tree_info"))
    if "cats" in model.items and any(len(model.part("cats").list(name)) for name in model.part("cats").items):
        raise model.error("categories", "numbers only", "cats")
    flat, nodes = [], 0
    for index, items in enumerate(trees):
        flat.append(_tree(_Part(items, f"tree {index}"), features))
        nodes += flat[-1][0].size
        if nodes > NODES:
            raise model.error("forest too large", f"at most {NODES} nodes", f"{nodes} in {index + 1} trees")
    start = np.cumsum([0, *(tree[0].size for tree in flat)])
    empty: tuple[np.ndarray, ...] = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    columns = (np.concatenate(column) for column in zip(empty, *(tree[:3] for tree in flat), strict=True))
    return iter((start, *columns, np.array([tree[3] for tree in flat], np.int64)))


def _tree(tree: _Part, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """feature, child, value (node,) and depth of a tree, numbered level by level; every node is reached once."""
    tree.only(_TREE)
    sizes = tree.part("tree_param")
    nodes = sizes.count("num_nodes", NODES)
    if nodes == 0:
        raise tree.error("empty tree", "a root")
    for name, allowed in (("num_deleted", (0,)), ("num_feature", (features,)), ("size_leaf_vector", (0, 1))):
        if sizes.count(name, 2**20) not in allowed:
            raise tree.error(f"unfit {name}", " or ".join(map(str, allowed)), sizes.get(name))
    if len(tree.list("categories")) or tree.numbers("split_type", nodes, np.int32, (0, 1)).any():
        raise tree.error("split by category", "splits by threshold")
    left = tree.numbers("left_children", nodes, np.int32, (-1, nodes - 1))
    right = tree.numbers("right_children", nodes, np.int32, (-1, nodes - 1))
    parent = tree.numbers("parents", nodes, np.int64, (-1, 2**31 - 1))
    feature = tree.numbers("split_indices", nodes, np.int32, (0, features - 1))
    value = tree.numbers("split_conditions", nodes, np.float32)
    tree.numbers("default_left", nodes, np.int32, (0, 1))
    if (half := (left < 0) != (right < 0)).any():
        raise tree.error("one child only", "two or none", node=int(half.argmax()))

    reached = np.zeros(nodes, bool)
    reached[0] = True
    level, order = np.zeros(1, np.int32), [np.zeros(1, np.int32)]
    while (split := level[left[level] >= 0]).size:
        if len(order) > DEPTH:
            raise tree.error("tree too deep", f"at most {DEPTH} levels of splits", node=int(split[0]))
        level = np.stack([left[split], right[split]], axis=1).ravel()
        twice = reached[level] | (np.bincount(level, minlength=nodes)[level] > 1)
        if twice.any():
            raise tree.error("node reached twice", "a tree", node=int(level[twice.argmax()]))
        if (wrong := parent[level] != np.repeat(split, 2)).any():
            at = int(wrong.argmax())
            raise tree.error("other parent", split[at // 2], parent[level[at]], int(level[at]))
        reached[level] = True
        order.append(level)
    if not reached.all():
        raise tree.error("node never reached", node=int(reached.argmin()))
    breadth = np.concatenate(order)
    place = np.empty(nodes, np.int32)
    place[breadth] = np.arange(nodes, dtype=np.int32)
    inner = left[breadth] >= 0
    child = np.where(inner, place[left[breadth]], 0).astype(np.int32)
    return np.where(inner, feature[breadth], 0).astype(np.int32), child, value[breadth], len(order) - 1
