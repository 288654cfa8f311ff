"""How the land model is compiled, and the two functions it lives on: log2 and exp2 that vectorise.

Numba's own exp and log are calls to the C library, one number at a time; a polynomial and a bit pattern are plain
arithmetic, so the compiler turns a loop over cells into vector instructions. Plain arithmetic also gives the same bits
on every machine: no fused multiply-add, no fast-math, no vector library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 16  # cells that are stepped together: two of the widest vectors, few enough that none waits long for another

_MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, held in the lowest bits
_TWO52 = 4503599627370496.0  # 2**52, whose bit pattern with a small integer in the mantissa is that integer plus 2**52


def _stamp() -> tuple[tuple[str, float, int], ...]:
    """Name, time and size of every source of this package: what the compiled code depends on."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "variables.py"]
    return tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in files)


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled once per machine, without the GIL, with IEEE arithmetic and IEEE division by zero.

    What it calls is put in its place (a call inside a loop keeps the loop from being vectorised).

    Numba's cache looks only at the file of the function itself, so it would go on using old code after an edit of
    another file; the stamp of the whole package is added to it. Where that or a writable folder is missing, the
    function is compiled in every process instead.
    """
    plain = njit(nogil=True, error_model="numpy", forceinline=True)
    try:
        dispatcher = njit(nogil=True, error_model="numpy", forceinline=True, cache=True)(function)
    except RuntimeError:  # no folder to cache in
        return plain(function)
    if not hasattr(dispatcher, "_cache"):  # NUMBA_DISABLE_JIT
        return dispatcher
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is None or not hasattr(index, "_source_stamp"):
        return plain(function)
    index._source_stamp = (index._source_stamp, _stamp())
    return dispatcher


def _to_bits(typingctx, x):
    """The bit pattern of a float64, int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _to_float(typingctx, n):
    """The float64 of a bit pattern."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


_bits: Any = intrinsic(_to_bits)
_float: Any = intrinsic(_to_float)

_A = tuple(2.0 / math.log(2.0) / (2 * k + 1) for k in range(10))  # 2/ln 2 artanh(s)/s in powers of s²
_E = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(13))  # 2**f in powers of f


@compiled
def log2(x):
    """log2(x) of a positive, normal x; error < 1e-15, relative, or absolute near x = 1.

    x = 2**e m with m in [1/√2, √2); ln m = 2 artanh(s), s = (m − 1)/(m + 1), as its series.
    """
    n = _bits(x) - 0x3FE6A09E667F3BCD  # the bits of 1/√2: what is left of the exponent is that of m around 1
    e = _float(((n >> 52) + 2048) | 0x4330000000000000) - (_TWO52 + 2048.0)
    m = _float((n & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = _A[8] + z * _A[9]
    p = _A[7] + z * p
    p = _A[6] + z * p
    p = _A[5] + z * p
    p = _A[4] + z * p
    p = _A[3] + z * p
    p = _A[2] + z * p
    p = _A[1] + z * p
    p = _A[0] + z * p
    return e + s * p


@compiled
def exp2(x):
    """2**x, x held within ±1000; relative error < 1e-15.

    x = n + f with n whole and |f| ≤ 1/2; 2**f as its series, 2**n written into the exponent.
    """
    x = min(max(x, -1000.0), 1000.0)
    whole = x + _MAGIC
    f = x - (whole - _MAGIC)
    p = _E[11] + f * _E[12]
    p = _E[10] + f * p
    p = _E[9] + f * p
    p = _E[8] + f * p
    p = _E[7] + f * p
    p = _E[6] + f * p
    p = _E[5] + f * p
    p = _E[4] + f * p
    p = _E[3] + f * p
    p = _E[2] + f * p
    p = _E[1] + f * p
    p = _E[0] + f * p
    return p * _float((_bits(whole) + 1023) << 52)
