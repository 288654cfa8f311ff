"""The same boosters over the same rows by every runtime at hand: what it costs, and how far from XGBoost it is.

A runtime is timed once in each round, so that what else the machine does meets all of them. Two traps: XGBoost keeps
the predictions of a DMatrix, so that a second `predict` on it costs nothing; and threads of OpenMP that wait by
spinning count as work unless OMP_WAIT_POLICY is passive when the process starts, so that CPU time is only to be
compared on one thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from twin.emulator.forest import Forest
from twin.emulator.kernel import PATHS, Kernel
from twin.emulator.lines import VBMI

YEAR = 365  # rows of a pixel-year
REFERENCE = "xgboost inplace_predict"
Predict = Callable[[np.ndarray], np.ndarray]  # values (row, feature) → predictions (row, output)


@dataclass(frozen=True)
class Contest:
    """One output of each booster, asked of rows (row, feature) that are whole pixel-years."""

    boosters: Sequence[xgb.Booster]
    rows: np.ndarray

    def __post_init__(self) -> None:
        if self.rows.shape[0] == 0 or self.rows.shape[0] % YEAR:
            raise ValueError(f"rows: expected whole years of {YEAR}, found {self.rows.shape[0]}")

    @property
    def features(self) -> list[str]:
        return list(self.boosters[0].feature_names or [])

    @property
    def forests(self) -> list[Forest]:
        return [Forest.parse(bytes(booster.save_raw("ubj")), self.features) for booster in self.boosters]

    def on(self, threads: int) -> list[xgb.Booster]:
        copies = [booster.copy() for booster in self.boosters]
        for copy in copies:
            copy.set_param({"nthread": threads})
        return copies


def compare(
    boosters: Sequence[xgb.Booster], rows: np.ndarray, repeats: int = 5, threads: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """What every runtime took, one row each: all pixel-years in one call, then one pixel-year a call.

    boosters  one for each output, of the same features
    rows      (row, feature) float32; whole pixel-years
    threads   one and all cores when empty
    Each row has what, threads, call ("all" or "year"), ms and cpu_ms (medians for a pixel-year with all outputs),
    ratio (to inplace_predict, same call and threads, by CPU time on one thread, by time on more), and difference (the
    largest from inplace_predict); or, where a runtime is missing, what and "not installed".
    """
    contest = Contest(boosters, np.ascontiguousarray(rows, np.float32))
    workers = sorted(set(threads or (1, os.cpu_count() or 1)))
    runs = [(*run, "all", contest.rows) for number in workers for run in _batch(contest, number)]
    years = contest.rows[: min(len(contest.rows), 20 * YEAR)]
    runs += [(*run, "year", years) for run in _single(contest)]
    expected = np.stack([booster.inplace_predict(contest.rows) for booster in contest.on(workers[-1])], axis=1)
    table: list[dict[str, Any]] = []
    times: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(repeats + 1):  # the first round compiles, fills caches and starts threads
        for spent, (_, _, predict, call, values) in zip(times, runs, strict=True):
            spent.append(_timed(predict, values, call))
    for spent, (what, number, predict, call, values) in zip(times, runs, strict=True):
        wall, cpu = (float(part) for part in 1e3 * np.median(spent[1:], axis=0) * YEAR / len(values))
        some = values if call == "all" else values[:YEAR]
        difference = float(np.abs(predict(some) - expected[: len(some)]).max())
        row = {"what": what, "threads": number, "call": call, "ms": wall, "cpu_ms": cpu, "difference": difference}
        table.append(row)
    other = {(row["threads"], row["call"]): row for row in table if row["what"] == REFERENCE}
    for row in table:
        by = "cpu_ms" if row["threads"] == 1 else "ms"
        row["ratio"] = other[row["threads"], row["call"]][by] / row[by]
    return table + [{"what": name, "missing": "not installed"} for name in _ADAPTERS if not _installed(name)]


def _timed(predict: Predict, values: np.ndarray, call: str) -> tuple[float, float]:
    """Time and CPU time of all values, in one call or one for each pixel-year."""
    edges = [0, len(values)] if call == "all" else range(0, len(values) + 1, YEAR)
    wall, cpu = time.perf_counter(), time.process_time()
    for first, last in pairwise(edges):
        predict(values[first:last])
    return time.perf_counter() - wall, time.process_time() - cpu


def _batch(contest: Contest, threads: int) -> Iterator[tuple[str, int, Predict]]:
    for path in PATHS:
        if VBMI or path != "avx512-vbmi":
            yield f"ours, {path}", threads, Kernel(contest.forests, path, threads).predict
    copies = contest.on(threads)
    yield REFERENCE, threads, _stacked([copy.inplace_predict for copy in copies])
    yield "xgboost DMatrix and predict", threads, _stacked([_fresh(copy, contest.features, threads) for copy in copies])
    for name, adapter in _ADAPTERS.items():
        if _installed(name):
            yield name, threads, adapter(contest, threads)


def _single(contest: Contest) -> Iterator[tuple[str, int, Predict]]:
    yield f"ours, {Kernel(contest.forests).path}", 1, Kernel(contest.forests, threads=1).predict
    yield REFERENCE, 1, _stacked([copy.inplace_predict for copy in contest.on(1)])
    yield "xgboost inplace_predict of a DataFrame", 1, _frames(contest)


def _stacked(each: Sequence[Callable[[np.ndarray], np.ndarray]]) -> Predict:
    """One prediction after the other, side by side."""
    return lambda values: np.stack([predict(values) for predict in each], axis=1)


def _fresh(booster: xgb.Booster, features: list[str], threads: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: booster.predict(xgb.DMatrix(values, feature_names=features, nthread=threads))


def _frames(contest: Contest) -> Predict:
    """`inplace_predict` of a DataFrame, which is what `XGBRegressor.predict` does with the table of a pixel."""
    stacked = _stacked([copy.inplace_predict for copy in contest.on(1)])
    return lambda values: stacked(pd.DataFrame(values, columns=contest.features))  # type: ignore[arg-type]


def _onnxruntime(contest: Contest, threads: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = [onnxruntime.InferenceSession(_onnx(forest), options) for forest in contest.forests]
    return lambda values: np.concatenate([session.run(None, {"x": values})[0] for session in sessions], axis=1)


def _onnx(forest: Forest) -> bytes:
    """A forest as the TreeEnsembleRegressor of ONNX's ml operators, version 3."""
    from onnx import TensorProto, helper

    tree = np.repeat(np.arange(forest.trees), np.diff(forest.start))
    node = np.arange(forest.start[-1]) - forest.start[tree]
    leaf = forest.child == 0
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[float(forest.base)],
        nodes_treeids=tree.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=forest.feature.tolist(),
        nodes_values=np.where(leaf, 0.0, forest.value).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_truenodeids=forest.child.tolist(),
        nodes_falsenodeids=np.where(leaf, 0, forest.child + 1).tolist(),
        target_treeids=tree[leaf].tolist(),
        target_nodeids=node[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights=forest.value[leaf].tolist(),
    )
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(forest.features)])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([ensemble], "forest", [values], [answer])
    operators = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=operators, ir_version=8).SerializeToString()


def _treelite(contest: Contest, threads: int) -> Predict:
    import treelite

    def ask(model: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: treelite.gtil.predict(model, values, nthread=threads).reshape(-1)

    return _stacked([ask(treelite.frontend.from_xgboost(booster)) for booster in contest.boosters])


_ADAPTERS: dict[str, Callable[[Contest, int], Predict]] = {"onnxruntime": _onnxruntime, "treelite": _treelite}


def _installed(name: str) -> bool:
    """Whether a runtime is there, with `onnx`, which writes what onnxruntime reads."""
    return all(find_spec(module) is not None for module in ({name, "onnx"} if name == "onnxruntime" else {name}))
