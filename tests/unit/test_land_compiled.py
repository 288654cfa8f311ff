"""The two functions everything rests on, and the cache that must not outlive an edit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twin.indices import running
from twin.land import air, compiled, daily, heat, march, soil


def test_log2_and_exp2_are_those_of_the_c_library():
    """Against numpy's: a few units in the last place."""
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-600.0, 600.0, 20_000))
    np.testing.assert_allclose([compiled.log2(v) for v in x], np.log2(x), rtol=1e-15, atol=1e-15)
    y = rng.uniform(-999.0, 999.0, 20_000)
    np.testing.assert_allclose([compiled.exp2(v) for v in y], np.exp2(y), rtol=1e-15)


@pytest.mark.parametrize("power", [-3, 0, 1, 10])
def test_powers_of_two_are_exact(power):
    assert compiled.log2(2.0**power) == power and compiled.exp2(float(power)) == 2.0**power


def test_exp2_is_held_where_float64_ends():
    assert compiled.exp2(-1e30) == 2.0**-1000 and compiled.exp2(1e30) == 2.0**1000


@pytest.mark.parametrize("function, package", [(daily._march, "land"), (running._count, "indices")])
def test_an_edit_of_any_file_that_compiled_code_may_call_makes_it_stale(function, package):
    names = [name for name, *_ in function._cache._cache_file._source_stamp[1]]
    twin = Path(compiled.__file__).parents[1]
    files = [path for folder in {"land", package} for path in (twin / folder).glob("*.py")]
    assert sorted(names) == sorted([path.name for path in files] + ["variables.py"])


def test_without_a_folder_to_cache_in_it_still_compiles(tmp_path):
    """Numba refuses to decorate where it can write nowhere; the model must not."""
    code = "from twin.land.compiled import compiled\nexec('def f(x): return x + 1')\nprint(compiled(f)(1.0))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, cwd=tmp_path
    )
    assert done.stdout.strip() == "2.0", done.stderr


def test_float32_twins_of_log2_and_exp2():
    """In float32 from end to end, to the errors their docstrings give."""
    rng = np.random.default_rng(1)
    log2, exp2 = compiled.single(compiled.log2), compiled.single(compiled.exp2)
    x = np.exp(rng.uniform(-80.0, 80.0, 20_000)).astype(np.float32)
    found, expected = np.array([log2(v) for v in x]), np.log2(x.astype(np.float64))
    assert (np.abs(found - expected) < 2e-7 * np.maximum(np.abs(expected), 1.0)).all()
    y = rng.uniform(-125.0, 125.0, 20_000).astype(np.float32)
    found, expected = np.array([exp2(v) for v in y]), np.exp2(y.astype(np.float64))
    assert (np.abs(found / expected - 1.0) < 3e-7).all()
    assert {str(twin.nopython_signatures[0].return_type) for twin in (log2, exp2)} == {"float32"}
    assert exp2(np.float32(-1e30)) == 2.0**-126 and exp2(np.float32(1e30)) == 2.0**126


def test_a_twin_computes_in_float32_all_the_way_down():
    """Saturation, through exp2, near the double's; asked for again it is the same function."""
    twin = compiled.single(air.saturation)
    assert compiled.single(air.saturation) is twin and twin is not air.saturation
    for celsius in (-30.0, 0.0, 15.0, 45.0):
        found = twin(np.float32(celsius), np.float32(1e5))
        np.testing.assert_allclose(found, air.saturation(celsius, 1e5), rtol=2e-6)
    assert {str(kind.return_type) for kind in twin.nopython_signatures} == {"UniTuple(float32 x 2)"}


def test_a_swap_reaches_every_caller_and_nothing_else():
    """Another `_momentum` changes what `exchange` finds through two callers; `saturation` has none to change."""
    doubled = compiled.compiled(_twice)
    swapped = compiled.variant(air.exchange, "twice", {air._momentum: doubled})
    given = (5.0, 0.2, 10.0, 2.0, 0.1, 0.01, np.log(101.0), np.log(201.0))
    assert swapped.py_func(*given) == pytest.approx(swapped(*given), rel=1e-12)
    assert swapped(*given)[0] != air.exchange(*given)[0]
    assert compiled.variant(air.saturation, "twice", {air._momentum: doubled}) is air.saturation
    assert compiled.variant(air._momentum, "twice", {air._momentum: doubled}) is doubled


def _twice(upper, lower):
    return 2.0 * (upper - lower)


def test_a_kernel_is_built_once_for_each_choice():
    kernels = {
        (retention, numerics, precision): march.kernel(retention, numerics, "up", precision)
        for retention in ("brooks-corey", "van-genuchten")
        for numerics in ("newton", "jules")
        for precision in ("double", "single")
    }
    assert len({id(kernel) for kernel in kernels.values()}) == 8
    assert march.kernel("brooks-corey", "newton", "up", "double") is kernels["brooks-corey", "newton", "double"]
    assert compiled.single(heat.settle) is not heat.settle and compiled.single(soil.advance) is not soil.advance
