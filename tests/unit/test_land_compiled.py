"""The two functions everything rests on, and the cache that must not outlive an edit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twin.land import compiled, daily


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


def test_an_edit_of_any_file_of_the_package_makes_the_cached_code_stale():
    names = {name for name, *_ in daily._march._cache._cache_file._source_stamp[1]}
    folder = Path(compiled.__file__).parent
    assert names == {path.name for path in folder.glob("*.py")} | {"variables.py"}


def test_without_a_folder_to_cache_in_it_still_compiles(tmp_path):
    """Numba refuses to decorate where it can write nowhere; the model must not."""
    code = "from twin.land.compiled import compiled\nexec('def f(x): return x + 1')\nprint(compiled(f)(1.0))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, cwd=tmp_path
    )
    assert done.stdout.strip() == "2.0", done.stderr
