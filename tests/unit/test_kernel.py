"""The kernel: nothing but the row decides its prediction, on whatever machine and in whatever company."""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import xgboost as xgb
from numba import njit

from twin.emulator.forest import Forest
from twin.emulator.kernel import PATHS, ROWS, Kernel, evaluate
from twin.emulator.lines import VBMI
from twin.errors import Rejected

PATHS_HERE = [path for path in PATHS if VBMI or path != "avx512-vbmi"]
FEATURES = [f"x{index}" for index in range(18)]


@cache
def forests() -> tuple[Forest, ...]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, len(FEATURES))).astype(np.float32)
    found = []
    for depth in (6, 7):
        y = x[:, 0] * x[:, depth] + np.abs(x[:, 2])
        data = xgb.QuantileDMatrix(x, y, feature_names=FEATURES)
        found.append(Forest.parse(xgb.train({"max_depth": depth, "nthread": 1}, data, 20).save_raw("ubj"), FEATURES))
    return tuple(found)


@cache
def rows() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(40 * ROWS + 5, len(FEATURES))).astype(np.float32)


@cache
def answer() -> np.ndarray:
    return Kernel(forests(), "portable", threads=1).predict(rows())


@pytest.mark.parametrize("path", PATHS_HERE)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_paths_and_threads_change_no_bit(path, threads):
    np.testing.assert_array_equal(Kernel(forests(), path, threads).predict(rows()), answer())


@pytest.mark.parametrize("number", [0, 1, 15, 16, 17, 63, 64, 65, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 31])
def test_a_row_is_the_same_in_any_company(number):
    kernel = Kernel(forests())
    np.testing.assert_array_equal(kernel.predict(rows()[:number]), answer()[:number])
    order = np.random.default_rng(number).permutation(len(rows()))[:number]
    np.testing.assert_array_equal(kernel.predict(rows()[order]), answer()[order])


def test_any_layout_of_the_rows_will_do():
    some = rows()[:700]
    for values in (np.asfortranarray(some), some.astype(np.float64), np.repeat(some, 2, axis=0)[::2]):
        np.testing.assert_array_equal(Kernel(forests()).predict(values), answer()[:700])


@njit
def ask(values, number, model, scratch, out):
    evaluate(values, number, model, scratch, out)


@pytest.mark.parametrize("path", PATHS_HERE)
@pytest.mark.parametrize("number", [1, 100, 365, ROWS])
def test_compiled_code_gets_the_same_and_needs_no_clean_scratch(path, number):
    kernel = Kernel(forests(), path)
    values = np.full((len(FEATURES), -(-number // 64) * 64), np.nan, np.float32)  # what is behind the rows is not read
    values[:, :number] = rows()[:number].T
    out = np.full((2, values.shape[1]), -9.0, np.float32)
    for shift in range(3):  # memory of any alignment
        scratch = np.random.default_rng(0).integers(0, 2**64, kernel.scratch + shift, np.uint64)[shift:]
        ask(values, number, kernel.model, scratch, out)
        np.testing.assert_array_equal(out[:, :number], answer()[:number].T)
    assert (out[:, number:] == -9.0).all()


def test_forests_without_trees_or_splits_give_their_base_and_leaves():
    x = np.ones((10, len(FEATURES)), np.float32)
    data = xgb.QuantileDMatrix(x, np.arange(10.0), feature_names=FEATURES)
    booster = xgb.train({"nthread": 1}, data, 2)
    forest = Forest.parse(booster.save_raw("ubj"), FEATURES)
    assert forest.depth.tolist() == [0, 0]
    for path in PATHS_HERE:
        np.testing.assert_array_equal(Kernel([forest], path).predict(x)[:, 0], booster.inplace_predict(x))


def test_a_kernel_that_is_sent_away_is_made_again():
    sent = pickle.loads(pickle.dumps(Kernel(forests(), threads=1)))
    assert sent.path == Kernel(forests()).path
    np.testing.assert_array_equal(sent.predict(rows()[:99]), answer()[:99])


def test_a_missing_value_is_named_and_refused():
    gaps = rows()[:2000].copy()
    gaps[1777, 4] = np.nan
    with pytest.raises(Rejected, match=r"feature 'x4': missing value: expected numbers, found NaN"):
        Kernel(forests()).predict(gaps)


@pytest.mark.parametrize("shape", [(5, 17), (5, 19), (18,), (2, 3, 18)])
def test_rows_of_other_features_are_refused(shape):
    with pytest.raises(Rejected, match=r"values of other features: expected \(row, 18\), found"):
        Kernel(forests()).predict(np.zeros(shape, np.float32))


def test_forests_of_other_features_and_unknown_paths_are_refused():
    with pytest.raises(Rejected, match="unfit forests"):
        Kernel([])
    with pytest.raises(Rejected, match=r"no such path here: expected .*portable, found gpu"):
        Kernel(forests(), "gpu")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kinds of x86 only")
def test_a_lesser_machine_takes_another_path_to_the_same_bits(tmp_path):
    """The code is compiled as for a machine of 2013 with AVX2, and with no instruction that it lacks."""
    np.save(tmp_path / "rows.npy", rows()[:1000])
    (tmp_path / "forests.pickle").write_bytes(pickle.dumps(forests()))
    script = (
        "import pickle, sys, numpy as np; from pathlib import Path; from twin.emulator.kernel import Kernel\n"
        "folder = Path(sys.argv[1]); kernel = Kernel(pickle.loads((folder / 'forests.pickle').read_bytes()))\n"
        "assert kernel.path == 'lines', kernel.path\n"
        "np.save(folder / 'found.npy', kernel.predict(np.load(folder / 'rows.npy')))\n"
    )
    machine = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+bmi,+bmi2,+sse4.2"}
    machine |= {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "1"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ | machine, check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), answer()[:1000])
