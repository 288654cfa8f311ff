"""How the land model is compiled, and the two functions it lives on: log2 and exp2 that vectorise.

Numba's own exp and log are calls to the C library, one number at a time; a polynomial and a bit pattern are plain
arithmetic, so the compiler turns a loop over cells into vector instructions. Plain arithmetic also gives the same bits
on every machine: no fused multiply-add, no fast-math, no vector library.

One source serves both precisions: `single` rebuilds a function, and all it calls, with float32 numbers.
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 16  # cells that are stepped together: two of the widest vectors, few enough that none waits long for another

_MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, held in the lowest bits
_TWO52 = 4503599627370496.0  # 2**52, whose bit pattern with a small integer in the mantissa is that integer plus 2**52


def _stamp(package: Path) -> tuple[tuple[str, float, int], ...]:
    """Name, time and size of every source that compiled code of a package may depend on: its own, and this one's."""
    here = Path(__file__).parent
    files = [path for folder in sorted({here, package}) for path in sorted(folder.glob("*.py"))]
    return tuple(
        (path.name, path.stat().st_mtime, path.stat().st_size) for path in (*files, here.parent / "variables.py")
    )


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled once per machine, without the GIL, with IEEE arithmetic and IEEE division by zero.

    What it calls is put in its place (a call inside a loop keeps the loop from being vectorised).
    """
    return _compile(function, forceinline=True)


def stage(function: Callable[..., Any]) -> Any:
    """`function` compiled like `compiled`, but called: for what works on a whole block, to be compiled on its own."""
    return _compile(function)


def _compile(function: Callable[..., Any], **options: bool) -> Any:
    """Numba's cache looks only at the file of the function itself, so it would go on using old code after an edit of
    another file; the stamp of the packages it may call is added to it. Where that or a writable folder is missing, the
    function is compiled in every process instead.
    """
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", **options}
    dispatcher = _cached(function, settings) or njit(**settings)(function)
    _OPTIONS[dispatcher] = settings
    return dispatcher


def _cached(function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """The function with a cache that knows the whole package, or None where that cannot be had."""
    try:
        dispatcher = njit(**options, cache=True)(function)
    except RuntimeError:  # no folder to cache in
        return None
    if not hasattr(dispatcher, "_cache"):  # NUMBA_DISABLE_JIT
        return dispatcher
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is None or not hasattr(index, "_source_stamp"):
        return None
    index._source_stamp = (index._source_stamp, _stamp(Path(function.__code__.co_filename).parent))
    return dispatcher


_OPTIONS: dict[Any, dict[str, Any]] = {}  # every function compiled here, and how
_BY_HAND: dict[Any, Any] = {}  # float64 function → its float32 twin, where the bits matter
_VARIANTS: dict[tuple[Any, str], Any] = {}


def single(function: Any) -> Any:
    """The float32 twin of a compiled function: its numbers, and the functions it calls, in single precision."""
    return variant(function, "single", real=np.float32)


def variant(function: Any, suffix: str, swaps: Mapping[Any, Any] | None = None, real: Any = None) -> Any:
    """A compiled function rebuilt under the name `<name>_<suffix>`, with other functions or another kind of number.

    suffix  says which swaps and which kind of number: the same function and suffix is built once
    swaps   {compiled function: the one to call instead}, wherever it is called, however deep
    real    type of every float written in it or in the globals it names; unchanged when None
    Raises TypeError where a float or a function of ours is reached through a module, which cannot be swapped.
    """
    if swaps and function in swaps:
        return swaps[function]
    if real is np.float32 and function in _BY_HAND:
        return _BY_HAND[function]
    if (function, suffix) not in _VARIANTS:
        _VARIANTS[function, suffix] = _rebuilt(function, suffix, swaps, real)
    return _VARIANTS[function, suffix]


def _rebuilt(function: Any, suffix: str, swaps: Mapping[Any, Any] | None, real: Any) -> Any:
    plain: FunctionType = getattr(function, "py_func", function)
    code = plain.__code__
    names = dict(plain.__globals__)
    changed = real is not None
    for name in set(code.co_names) & set(names):
        value = names[name]
        if isinstance(value, ModuleType) and value is not math:
            _refuse_hidden(value, name, plain)
        elif _known(value):
            names[name] = variant(value, suffix, swaps, real)
            changed = changed or names[name] is not value
        elif real is not None:
            names[name] = _as(real, value)
    if not changed:
        return function
    called = f"{plain.__name__}_{suffix}"
    consts = code.co_consts if real is None else tuple(_as(real, value) for value in code.co_consts)
    rebuilt = FunctionType(code.replace(co_consts=consts, co_name=called, co_qualname=called), names, called)
    rebuilt.__qualname__, rebuilt.__module__, rebuilt.__doc__ = called, plain.__module__, plain.__doc__
    return _compile(rebuilt, **_OPTIONS[function])


def _known(value: Any) -> bool:
    return callable(value) and getattr(value, "__hash__", None) is not None and value in _OPTIONS


def _as(real: Any, value: Any) -> Any:
    """A float, or a tuple of floats, as `real`; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_as(real, item) for item in value)
    return real(value) if type(value) is float else value


def _refuse_hidden(module: ModuleType, name: str, function: FunctionType) -> None:
    """TypeError where the function takes a float or a function of ours from the module that it calls `name`."""
    steps = (step for step in dis.get_instructions(function) if step.opname != "EXTENDED_ARG")
    for before, after in pairwise(steps):
        taken = after.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if taken and (before.opname, before.argval) == ("LOAD_GLOBAL", name):
            value = getattr(module, after.argval, None)
            if type(value) is float or _known(value):
                found = f"{name}.{after.argval}"
                raise TypeError(f"{function.__name__} names {found}: import it by name to make a variant")


def _reinterpret(source: Any, target: Any) -> Any:
    """An intrinsic that reads the bits of a number as another type of the same length."""
    llvm = {types.float64: ir.DoubleType(), types.int64: ir.IntType(64)}[target]

    def bits(typingctx, x):
        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], llvm)

        return target(source), codegen

    return intrinsic(bits)


_bits: Any = _reinterpret(types.float64, types.int64)
_float: Any = _reinterpret(types.int64, types.float64)

# The same in 32 bits, whole steps at a time: numba would widen the integers in between to 64 bits.
_I32, _F32 = ir.IntType(32), ir.FloatType()
_HALF_ROOT = ir.Constant(_I32, 0x3F3504F3)  # the bits of 1/√2


def _exponent_of(typingctx, x):
    """e of x = 2**e m with m in [1/√2, √2), both float32."""

    def codegen(context, builder, signature, args):
        n = builder.sub(builder.bitcast(args[0], _I32), _HALF_ROOT)
        return builder.sitofp(builder.ashr(n, ir.Constant(_I32, 23)), _F32)

    return types.float32(types.float32), codegen


def _mantissa_of(typingctx, x):
    """m of x = 2**e m with m in [1/√2, √2), both float32."""

    def codegen(context, builder, signature, args):
        n = builder.sub(builder.bitcast(args[0], _I32), _HALF_ROOT)
        n = builder.and_(n, ir.Constant(_I32, 0x7FFFFF))
        return builder.bitcast(builder.add(n, _HALF_ROOT), _F32)

    return types.float32(types.float32), codegen


def _two_to_the(typingctx, x):
    """2**n, float32, of a float32 to which 1.5 * 2**23 was added, so that its lowest bits hold n."""

    def codegen(context, builder, signature, args):
        n = builder.add(builder.bitcast(args[0], _I32), ir.Constant(_I32, 127))
        return builder.bitcast(builder.shl(n, ir.Constant(_I32, 23)), _F32)

    return types.float32(types.float32), codegen


_exponent: Any = intrinsic(_exponent_of)
_mantissa: Any = intrinsic(_mantissa_of)
_power: Any = intrinsic(_two_to_the)

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


_A32, _E32 = _as(np.float32, _A[:5]), _as(np.float32, _E[:8])
_ONE32, _LIMIT32, _MAGIC32 = np.float32(1.0), np.float32(126.0), np.float32(12582912.0)


@compiled
def _log2_single(x):
    """`log2` of a positive, normal float32; error < 2e-7."""
    m = _mantissa(x)
    s = (m - _ONE32) / (m + _ONE32)
    z = s * s
    p = _A32[3] + z * _A32[4]
    p = _A32[2] + z * p
    p = _A32[1] + z * p
    p = _A32[0] + z * p
    return _exponent(x) + s * p


@compiled
def _exp2_single(x):
    """`exp2` of a float32, held within ±126; relative error < 3e-7."""
    x = min(max(x, -_LIMIT32), _LIMIT32)
    whole = x + _MAGIC32
    f = x - (whole - _MAGIC32)
    p = _E32[6] + f * _E32[7]
    p = _E32[5] + f * p
    p = _E32[4] + f * p
    p = _E32[3] + f * p
    p = _E32[2] + f * p
    p = _E32[1] + f * p
    p = _E32[0] + f * p
    return p * _power(whole)


_BY_HAND.update({log2: _log2_single, exp2: _exp2_single})
