"""Many trees over many rows: every question the trees ask is answered once, for 512 rows in 512 bits.

A booster of histograms has few distinct thresholds (at most 255 a feature, over all boosters cut from one
QuantileDMatrix) and many nodes that repeat them. So, for a block of ROWS rows:

    answers  for each threshold a line: the rows at or above it. With AVX-512 first the rank of each value among its
             feature's thresholds, whose eight bits, as lines, then give all answers without another comparison
    path     for each tree, from the lines of its nodes, lines of the turns that the rows take
    sum      the leaf that the turns lead to, added to what the row has so far

A line holds one bit for each row, so that one instruction decides a node for all of them; there is no branch, and no
row looks anything up on its own before its leaf. Trees as words of bits are the idea of QuickScorer (Lucchese et al.,
2015, SIGIR); rows as bits is bit slicing (Biham, 1997). The comparison is that of floats, exactly as XGBoost's, and
leaves are added in its order, in single precision: a prediction is `Booster.predict`'s, bit for bit, on every path.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from twin.emulator import lines as ops
from twin.emulator.forest import Forest
from twin.emulator.lines import LINE, ROWS, VBMI
from twin.errors import Rejected
from twin.land.compiled import stage
from twin.land.threads import spread

CUTS = 255  # thresholds of a column of ranks; a feature with more has several columns
DEEPEST = 8  # of a tree whose path is found in lines
PATHS = ("avx512-vbmi", "lines", "portable")  # fastest first; the second is for any machine, the third for any tree
_VBMI, _LINES, _PORTABLE = range(3)

# scratch, in lines: the bits of a rank; its high digit; number of each row's leaf; sums; answers
_DIGITS, _LEAVES, _SUMS, _ANSWERS = 8, 40, 48, 80
_WORDS = LINE // 8


class Trees(NamedTuple):
    """All trees as they are; nodes numbered through.

    start    (tree,) first node
    depth    (tree,) of the deepest leaf
    feature  (node,) whose value is compared
    child    (node,) where to go below the threshold, and one further at or above it; a leaf is its own
    value    (node,) threshold; NaN at a leaf, which nothing reaches
    leaf     (node,) value of a leaf
    """

    start: np.ndarray
    depth: np.ndarray
    feature: np.ndarray
    child: np.ndarray
    value: np.ndarray
    leaf: np.ndarray


class Model(NamedTuple):
    """Forests as the kernel reads them. Answers are lines, counted from one that says no to all rows.

    path    index of PATHS
    base    (output,) what a row has before the first tree
    until   (output,) the first tree that is no longer of this output
    source  (column,) feature with these thresholds; one with more than CUTS has several columns
    levels  (column,) bits of a rank
    cuts    (column, 256) thresholds, ascending; NaN after the last
    search  (column, 256) the same as a search tree: level l at 2**l, in it by the bits found before, lowest first
    answer  (column + 1,) of the first threshold
    deep    (tree,) whether the path has eight turns instead of six
    first   (tree,) first of its nodes and of its leaves
    nodes   of the complete tree, numbered as a heap from 1: how many bytes after the first answer theirs is
    leaves  of the complete tree, from left to right
    planes  the same as bytes: all first bytes of a tree's leaves, all second ones, …
    trees   as they are, for the portable path
    """

    path: int
    base: np.ndarray
    until: np.ndarray
    source: np.ndarray
    levels: np.ndarray
    cuts: np.ndarray
    search: np.ndarray
    answer: np.ndarray
    deep: np.ndarray
    first: np.ndarray
    nodes: np.ndarray
    leaves: np.ndarray
    planes: np.ndarray
    trees: Trees


class Kernel:
    """Forests of the same features, one output each, ready to run.

    path     one of PATHS; None takes the fastest this machine and these trees allow
    threads  of `predict`; 0 takes all cores
    model    what `evaluate` takes, in compiled code
    scratch  how many uint64 it needs to work in
    Raises Rejected when the forests do not take the same features, or cannot run on the path.
    """

    def __init__(self, forests: Sequence[Forest], path: str | None = None, threads: int = 0) -> None:
        if not forests or any(forest.features != forests[0].features for forest in forests):
            raise Rejected("kernel: unfit forests", expected="at least one, all of the same features")
        allowed = [name for name in PATHS if _runs(name, forests)]
        if path is not None and path not in allowed:
            raise Rejected("kernel: no such path here", expected=" or ".join(allowed), found=path)
        self._made_of = forests, path, threads
        self.path = path or allowed[0]
        self.features = forests[0].features
        self.threads = threads or os.cpu_count() or 1
        self.model = _model(forests, self.path)
        self.scratch = _WORDS * (1 + _ANSWERS + int(self.model.answer[-1])) + (ROWS + 16) * len(self.features) // 2

    def __reduce__(self) -> tuple[Any, ...]:
        """It is sent as its forests, and made again for the machine where it arrives."""
        return Kernel, self._made_of

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Prediction (row, output), float32, of values (row, feature); equal to `Booster.predict` bit for bit.

        Raises Rejected for other features or a NaN: a model that never saw a gap has no answer for one.
        """
        values = np.ascontiguousarray(values, np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise Rejected("values of other features", expected=f"(row, {len(self.features)})", found=values.shape)
        out = np.empty((values.shape[0], self.model.base.size), np.float32)
        gaps = np.full(-(-values.shape[0] // ROWS), -1)

        def march(first: int, last: int) -> None:
            some = slice(first * _UNIT, last * _UNIT)
            blocks = slice(first * _UNIT // ROWS, -(-last * _UNIT // ROWS))
            _predict(values[some], self.model, np.empty(self.scratch, np.uint64), out[some], gaps[blocks])

        spread(march, -(-values.shape[0] // _UNIT), self.threads)
        if (gaps >= 0).any():
            name = self.features[gaps[gaps >= 0][0]]
            raise Rejected(f"feature {name!r}: missing value", expected="numbers", found="NaN")
        return out


_UNIT = 32  # rows that `spread` counts as one cell: its blocks are then ours


def _runs(path: str, forests: Sequence[Forest]) -> bool:
    """Whether this machine has the instructions and the trees fit."""
    fits = all(forest.depth.max(initial=0) <= DEEPEST for forest in forests)
    return {"avx512-vbmi": VBMI and fits, "lines": fits, "portable": True}[path]


def _model(forests: Sequence[Forest], path: str) -> Model:
    trees = _trees(forests)
    base = np.array([forest.base for forest in forests], np.float32)
    until = np.cumsum([forest.trees for forest in forests])
    columns, asks = _columns(trees)
    complete = _complete(trees, asks, 0 if path == "portable" else trees.start.size)
    return Model._make([PATHS.index(path), base, until, *columns, *complete, trees])


def _trees(forests: Sequence[Forest]) -> Trees:
    depth, feature, child, leaf = (
        np.concatenate([getattr(forest, name) for forest in forests]) for name in ("depth", "feature", "child", "value")
    )
    sizes = np.concatenate([np.diff(forest.start) for forest in forests])
    start = np.cumsum([0, *sizes])[:-1]
    split, node = child > 0, np.arange(child.size)
    child = np.where(split, child + np.repeat(start, sizes), node)
    return Trees(start, depth, feature, child, np.where(split, leaf, np.float32(np.nan)), leaf)


def _columns(trees: Trees) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """source, levels, cuts, search and answer of a `Model`; and the answer (node,) that each split asks for."""
    split = ~np.isnan(trees.value)
    asks = np.zeros(split.size, np.int64)
    source, levels, answer, cuts, search = [], [], [1], [], []  # the answer before the first is no to all rows
    for feature in np.unique(trees.feature[split]):
        nodes = np.flatnonzero(split & (trees.feature == feature))
        thresholds, which = np.unique(trees.value[nodes], return_inverse=True)
        for first in range(0, thresholds.size, CUTS):
            some = thresholds[first : first + CUTS]
            here = (which >= first) & (which < first + CUTS)
            asks[nodes[here]] = answer[-1] + which[here] - first
            source.append(feature)
            levels.append(max(5, some.size.bit_length()))
            cuts.append(np.concatenate([some, np.full(CUTS + 1 - some.size, np.nan, np.float32)]))
            search.append(_search(cuts[-1], levels[-1]))
            answer.append(answer[-1] + 16 * -(-some.size // 16))
    tables = (np.array(table, np.float32).reshape(-1, CUTS + 1) for table in (cuts, search))
    return (np.array(source, np.int64), np.array(levels, np.int64), *tables, np.array(answer, np.int64)), asks


def _search(cuts: np.ndarray, levels: int) -> np.ndarray:
    """The first 2**levels − 1 thresholds by level and, within it, by the bits of the levels before."""
    tree = np.full(CUTS + 1, np.nan, np.float32)
    for level in range(levels):
        found = np.arange(2**level)
        rank = sum(((found >> bit) & 1) << (levels - 1 - bit) for bit in range(level))
        tree[2**level + found] = cuts[rank + (1 << (levels - 1 - level)) - 1]
    return tree


def _complete(trees: Trees, asks: np.ndarray, number: int) -> tuple[np.ndarray, ...]:
    """deep, first, nodes, leaves and planes of a `Model`: so many trees with all nodes of six or eight levels."""
    deep = trees.depth[:number] > 6
    sizes = 2 ** (6 + 2 * deep)
    first = np.cumsum([0, *sizes])
    nodes, leaves = np.zeros(first[-1], np.uint32), np.zeros(first[-1], np.float32)
    for tree in range(number):
        node = trees.start[tree : tree + 1]  # at each place of a level
        size = 1
        while size < sizes[tree]:
            nodes[first[tree] + size : first[tree] + 2 * size] = LINE * asks[node]
            right = trees.child[node] + (trees.child[node] != node)
            node = np.stack([trees.child[node], right], axis=1).ravel()
            size *= 2
        leaves[first[tree] : first[tree + 1]] = trees.leaf[node]
    planes = np.empty(4 * first[-1], np.uint8)
    for begin, end in pairwise(first):
        planes[4 * begin : 4 * end] = leaves[begin:end].view(np.uint8).reshape(-1, 4).T.ravel()
    return deep, first[:-1], nodes, leaves, planes


@stage
def evaluate(values, rows, model, scratch, out):
    """Predictions of up to ROWS rows, in compiled code, without the GIL; it takes as long for fewer.

    values   (feature, width) float32, C order, width ≥ 64 ⌈rows / 64⌉; none of the first `rows` of a feature is NaN
    model    of a `Kernel`
    scratch  (Kernel.scratch,) uint64 of the caller's, one for each thread; what it holds does not matter
    out      (output, width) float32, C order; the first `rows` of an output are written
    """
    if model.path == _PORTABLE:
        _walk(values, rows, model, scratch, out)
        return
    lines = scratch[-(scratch.ctypes.data // 8) % _WORDS :]
    lines[_WORDS * _ANSWERS : _WORDS * (_ANSWERS + 1)] = 0
    if model.path == _VBMI:
        _answer_vbmi(values, rows, model, lines)
        _sum_vbmi(rows, model, lines, out)
    else:
        _answer(values, rows, model, lines)
        _sum(rows, model, lines, out)


@stage
def _answer(values, rows, model, lines):
    """For each threshold, the rows at or above it."""
    for column in range(model.source.size):
        x, cuts = values[model.source[column]].ctypes.data, model.cuts[column].ctypes.data
        line = lines.ctypes.data + LINE * (_ANSWERS + model.answer[column])
        for cut in range(model.answer[column + 1] - model.answer[column]):
            for part in range((rows + 63) // 64):
                ops.above(x + 256 * part, cuts + 4 * cut, line + LINE * cut + 8 * part)


@stage
def _sum(rows, model, lines, out):
    """Leaves of all trees, added for each row."""
    here = lines.ctypes.data
    answers, leaves = here + LINE * _ANSWERS, lines[_WORDS * _LEAVES : _WORDS * _SUMS].view(np.uint8)
    sums = lines[_WORDS * _SUMS : _WORDS * _ANSWERS].view(np.float32)
    tree = 0
    for output in range(model.base.size):
        sums[:] = model.base[output]
        while tree < model.until[output]:
            nodes = model.nodes.ctypes.data + 4 * model.first[tree]
            if model.deep[tree]:
                ops.leaves_8(nodes, answers, here + LINE * _LEAVES)
            else:
                ops.leaves_6(nodes, answers, here + LINE * _LEAVES)
            values = model.leaves[model.first[tree] :]
            for place in range(ROWS):
                sums[place] += values[leaves[place]]
            tree += 1
        for row in range(rows):  # the order of `lines._bytes`, in groups of 16 rows
            group = row // 16
            out[output, row] = sums[16 * (4 * (group % 8) + group // 8) + row % 16]


@stage
def _walk(values, rows, model, scratch, out):
    """Leaves of all trees, added for each row, found by going from node to node."""
    trees, place, tree = model.trees, scratch.view(np.int32)[:rows], 0
    for output in range(model.base.size):
        out[output, :rows] = model.base[output]
        while tree < model.until[output]:
            place[:] = trees.start[tree]
            for _ in range(trees.depth[tree]):
                for row in range(rows):
                    node = place[row]
                    place[row] = trees.child[node] + (values[trees.feature[node], row] >= trees.value[node])
            for row in range(rows):
                out[output, row] += trees.leaf[place[row]]
            tree += 1


@stage
def _answer_vbmi(values, rows, model, lines):
    """`_answer`, by the rank of a value among its feature's thresholds."""
    here = lines.ctypes.data
    for column in range(model.source.size):
        lines[: _WORDS * _DIGITS] = 0
        _rank(values[model.source[column]], rows, model.levels[column], model.search[column], lines)
        ops.digits(here, here + LINE * _DIGITS)
        to = here + LINE * (_ANSWERS + model.answer[column])
        for digit in range((model.answer[column + 1] - model.answer[column]) // 16):
            ops.sixteen(here, here + LINE * (_DIGITS + digit), to + LINE * 16 * digit)


@stage
def _rank(x, rows, levels, search, lines):
    """Where values stand among the thresholds of a column, as lines of the bits of that number."""
    table, here = search.ctypes.data, lines.ctypes.data
    for group in range((rows + 15) // 16):
        at = x.ctypes.data + LINE * group
        if levels == 5:
            ops.vbmi_ranks_5(at, table, here + 2 * group)
        elif levels == 6:
            ops.vbmi_ranks_6(at, table, here + 2 * group)
        elif levels == 7:
            ops.vbmi_ranks_7(at, table, here + 2 * group)
        else:
            ops.vbmi_ranks_8(at, table, here + 2 * group)


@stage
def _sum_vbmi(rows, model, lines, out):
    """`_sum`, with the leaves looked up in registers."""
    here = lines.ctypes.data
    answers, sums = here + LINE * _ANSWERS, lines[_WORDS * _SUMS : _WORDS * _ANSWERS].view(np.float32)
    tree = 0
    for output in range(model.base.size):
        sums[:] = model.base[output]
        while tree < model.until[output]:
            nodes = model.nodes.ctypes.data + 4 * model.first[tree]
            leaves = model.planes.ctypes.data + 4 * model.first[tree]
            if model.deep[tree]:
                ops.vbmi_sums_8(nodes, answers, leaves, here + LINE * _SUMS)
            else:
                ops.vbmi_sums_6(nodes, answers, leaves, here + LINE * _SUMS)
            tree += 1
        for row in range(rows):  # the sums of four rows lie together, those of the next four 16 places on
            out[output, row] = sums[16 * (row % 128 // 4) + 4 * (row // 128) + row % 4]


@stage
def _predict(values, model, scratch, out, gaps):
    """Predictions (row, output) of values (row, feature), and of each block a feature with a NaN, or −1."""
    features = values.shape[1]
    width = ROWS + 16  # not a power of two, at which one row's values would crowd into the same places of the cache
    room = scratch[scratch.size - features * width // 2 :].view(np.float32)
    block, found = room.reshape(features, width), np.empty((out.shape[1], width), np.float32)
    for first in range(0, values.shape[0], ROWS):
        rows = min(ROWS, values.shape[0] - first)
        gaps[first // ROWS] = _turn(values[first : first + rows], block)
        evaluate(block, rows, model, scratch, found)
        for row in range(rows):
            for output in range(out.shape[1]):
                out[first + row, output] = found[output, row]


@stage
def _turn(values, block):
    """Values (row, feature) as a block (feature, row), and a feature that has a NaN, or −1."""
    rows, features = values.shape
    squares = rows // 16 if features >= 16 else 0
    for square in range(squares):
        for start in range(0, features, 16):
            feature = min(start, features - 16)
            source, target = values[16 * square :, feature:], block[feature:, 16 * square :]
            ops.turned(source.ctypes.data, values.strides[0], target.ctypes.data, block.strides[0])
    for row in range(16 * squares, rows):
        for feature in range(features):
            block[feature, row] = values[row, feature]
    gap = -1
    for feature in range(features):
        missing = 0
        for row in range(rows):
            missing += block[feature, row] != block[feature, row]
        if missing:
            gap = feature
    return gap
