"""The few machine operations of the forest kernel that numba has no words for, each written as LLVM instructions.

A line is 512 bits in 64 bytes: one yes or no for each of ROWS rows, lowest bit first. Addresses are of lines, aligned
to LINE bytes. Most is plain LLVM for vectors, which it fits to any machine; what starts with `vbmi_` needs AVX-512 with
VBMI and GFNI (Intel since Ice Lake, AMD since Zen 4) and may only be compiled where `VBMI` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

ROWS, LINE = 512, 64  # rows of a line, bytes of a line

_NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "gfni")


def _features() -> set[str]:
    """What the machine can do, as far as numba compiles for it."""
    text = cpu_target.target_context.codegen().magic_tuple()[2]
    return {word[1:] for word in text.split(",") if word.startswith("+")}


VBMI = _features().issuperset(_NEEDED)

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_WORDS, _BYTES, _LANES = ir.VectorType(_I64, 8), ir.VectorType(_I8, 64), ir.VectorType(_I32, 16)
_FLOATS = ir.VectorType(ir.FloatType(), 16)
_ZERO = ir.Constant(_WORDS, None)


def _operation(addresses: int, write: Callable[..., None]) -> Any:
    """An intrinsic of so many addresses, without result, whose instructions `write(builder, *addresses)` emits."""

    def codegen(context, builder, signature, args):
        write(builder, *args)
        return context.get_dummy_value()

    form = types.void(*[types.intp] * addresses), codegen
    takes: dict[int, Callable[..., Any]] = {
        2: lambda typingctx, a, b: form,
        3: lambda typingctx, a, b, c: form,
        4: lambda typingctx, a, b, c, d: form,
    }
    return intrinsic(takes[addresses])


def _load(builder, address, kind, offset=0, align=LINE):
    place = builder.add(address, ir.Constant(_I64, offset)) if isinstance(offset, int) else builder.add(address, offset)
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=align)


def _store(builder, value, address, offset=0, align=LINE):
    place = builder.add(address, ir.Constant(_I64, offset))
    builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=align)


def _not(builder, a):
    return builder.xor(a, ir.Constant(_WORDS, [-1] * 8))


def _choose(builder, bit, yes, no):
    """`yes` in the rows where `bit` is set, else `no`: one instruction with AVX-512."""
    return builder.or_(builder.and_(bit, yes), builder.and_(_not(builder, bit), no))


def _above(builder, planes):
    """For each number j below 2**len(planes): the rows whose bits `planes` (lowest first) form a number above j."""
    above = [_ZERO]
    for plane in planes:
        above = [builder.or_(plane, line) for line in above] + [builder.and_(plane, line) for line in above]
    return above


def _equal(builder, planes):
    """For each number j below 2**len(planes): the rows whose bits form exactly j."""
    equal = [ir.Constant(_WORDS, [-1] * 8)]
    for plane in planes:
        rest = _not(builder, plane)
        equal = [builder.and_(rest, line) for line in equal] + [builder.and_(plane, line) for line in equal]
    return equal


def _write_digits(builder, planes, digits):
    """Of the high digit of numbers of two hexadecimal digits, for each digit: the rows above it, and those at it."""
    high = [_load(builder, planes, _WORDS, LINE * bit) for bit in range(4, 8)]
    for digit, line in enumerate([*_above(builder, high), *_equal(builder, high)]):
        _store(builder, line, digits, LINE * digit)


def _write_sixteen(builder, planes, digit, lines):
    """The rows above each of sixteen numbers, which share the high digit at whose lines `digit` points."""
    above = _load(builder, digit, _WORDS)
    equal = _load(builder, digit, _WORDS, 16 * LINE)
    low = [_load(builder, planes, _WORDS, LINE * bit) for bit in range(4)]
    for number, line in enumerate(_above(builder, low)):
        _store(builder, builder.or_(above, builder.and_(equal, line)), lines, LINE * number)


digits = _operation(2, _write_digits)
sixteen = _operation(3, _write_sixteen)


def _path(builder, depth, nodes, lines):
    """The turns of every row through a complete tree, first turn first: lines that are set where it goes right.

    The turn at a level is that of the node where the turns before lead to: a choice between two choices, and so on.
    """
    turns: list[Any] = []

    def turn(node: int, level: int) -> Any:
        if level == len(turns):
            offset = _load(builder, nodes, _I32, 4 * node, 4)
            return _load(builder, lines, _WORDS, builder.zext(offset, _I64))
        left, right = turn(2 * node, level + 1), turn(2 * node + 1, level + 1)
        return _choose(builder, turns[level], right, left)

    for _ in range(depth):
        turns.append(turn(1, 0))
    return turns


def _unpack(builder, a, b, size: int):
    """Items of `size` bytes, in turn from a and b, of the lower and of the upper half of every 16 bytes."""
    kind = ir.VectorType(ir.IntType(8 * size), LINE // size)
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    lane, half, count = 16 // size, 8 // size, LINE // size
    for first in (0, half):
        mask = [
            place + other
            for start in range(first, count, lane)
            for place in range(start, start + half)
            for other in (0, count)
        ]
        yield builder.bitcast(builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, count), mask)), _BYTES)


def _bytes(builder, planes):
    """Eight lines with their bytes interleaved, so that each 8 bytes are a matrix: a byte from each line, a bit a row.

    Turned, they are a byte for each row. Result r has, in its L-th 16 bytes, the rows 128 L + 16 r and the 15 after it.
    """
    quads = []
    for first in (0, 4):
        pairs = [list(_unpack(builder, planes[at], planes[at + 1], 1)) for at in (first, first + 2)]
        quads.append([quad for a, b in zip(*pairs, strict=True) for quad in _unpack(builder, a, b, 2)])
    return [whole for a, b in zip(*quads, strict=True) for whole in _unpack(builder, a, b, 4)]


def _flipped(builder, matrix, step, keep):
    """Blocks of bits swapped across the diagonal of a matrix (Warren, 2013, Hacker's Delight, section 7-3)."""
    count = ir.Constant(_WORDS, [step] * 8)
    swap = builder.and_(builder.xor(matrix, builder.lshr(matrix, count)), ir.Constant(_WORDS, [keep] * 8))
    return builder.xor(builder.xor(matrix, swap), builder.shl(swap, count))


def _write_leaves(depth):
    """Number of the leaf of every row in a tree, one byte each, in the order of `_bytes`."""

    def write(builder, nodes, lines, leaves):
        turns = [*reversed(_path(builder, depth, nodes, lines)), *[_ZERO] * (8 - depth)]
        for part, matrix in enumerate(_bytes(builder, turns)):
            matrix = builder.bitcast(matrix, _WORDS)
            for step, keep in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
                matrix = _flipped(builder, matrix, step, keep)
            _store(builder, matrix, leaves, LINE * part)

    return write


leaves_6, leaves_8 = (_operation(3, _write_leaves(depth)) for depth in (6, 8))


def _write_above(builder, values, threshold, line):
    """Which of 64 values are at or above a threshold, written to their part of a line."""
    kind = ir.VectorType(ir.FloatType(), 32)
    number = _load(builder, threshold, ir.FloatType(), 0, 4)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    each = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, 32), None))
    for half in range(2):
        at_or_above = builder.fcmp_ordered(">=", _load(builder, values, kind, 128 * half, 4), each)
        _store(builder, builder.bitcast(at_or_above, _I32), line, 4 * half, 4)


def _write_turned(builder, source, stride, target, other_stride):
    """16 × 16 numbers, rows as columns: in blocks of 1, 2, 4 and 8, each pair swapped across the diagonal."""
    rows = [_load(builder, source, _FLOATS, builder.mul(stride, ir.Constant(_I64, row)), 4) for row in range(16)]
    for step in (1, 2, 4, 8):
        for row in range(16):
            if row & step == 0:
                a, b = rows[row], rows[row | step]
                low = [lane if lane & step == 0 else 16 + lane - step for lane in range(16)]
                high = [lane + step if lane & step == 0 else 16 + lane for lane in range(16)]
                rows[row] = builder.shuffle_vector(a, b, ir.Constant(_LANES, low))
                rows[row | step] = builder.shuffle_vector(a, b, ir.Constant(_LANES, high))
    for row, line in enumerate(rows):
        place = builder.add(target, builder.mul(other_stride, ir.Constant(_I64, row)))
        _store(builder, line, place, 0, 4)


above = _operation(3, _write_above)
turned = _operation(4, _write_turned)


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [arg.type for arg in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args)


def _write_ranks(levels):
    """Where 16 values stand among 2**levels − 1 thresholds: as bits, the highest first found, written to their lines.

    The thresholds are a search tree; the bits found so far, the first as the lowest, pick the next from a register.
    """

    def write(builder, values, table, planes):
        tables = [_load(builder, table, _FLOATS, LINE * part, 4) for part in range(2**levels // 16)]
        x = _load(builder, values, _FLOATS, 0, 4)
        place = ir.Constant(_LANES, None)
        found: list[Any] = []

        def pick(parts):
            if len(parts) == 1:
                return _call(builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, parts[0], place)
            if len(parts) == 2:
                return _call(builder, "llvm.x86.avx512.vpermi2var.ps.512", _FLOATS, parts[0], place, parts[1])
            half = len(parts) // 2
            bit = found[len(parts).bit_length() + 2]
            return builder.select(bit, pick(parts[half:]), pick(parts[:half]))

        for level in range(levels):
            step = ir.Constant(_LANES, [2**level] * 16)
            if level < 4:
                index = builder.or_(place, step)
                threshold = _call(builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, tables[0], index)
            else:
                threshold = pick(tables[2 ** (level - 4) : 2 ** (level - 3)])
            found.append(builder.fcmp_ordered(">=", x, threshold))
            _store(builder, builder.bitcast(found[-1], _I16), planes, LINE * (levels - 1 - level), 2)
            place = builder.or_(place, builder.select(found[-1], step, ir.Constant(_LANES, None)))

    return write


def _write_sums(depth):
    """Adds the leaf that every row reaches in a tree to its sum; the sums' order is that of `_unpack`, see `place`.

    The four bytes of the leaves are four tables of bytes, looked up on their own and put together again.
    """

    def write(builder, nodes, lines, table, sums):
        turns = [*[_ZERO] * (8 - depth), *_path(builder, depth, nodes, lines)]
        unit = ir.Constant(_BYTES, [2**bit for bit in range(8)] * 8)
        parts = 2 ** (depth - 6)
        tables = [
            [_load(builder, table, _BYTES, LINE * (parts * byte + at), 1) for at in range(parts)] for byte in range(4)
        ]
        for part, matrix in enumerate(_bytes(builder, turns)):
            leaf = _call(builder, "llvm.x86.vgf2p8affineqb.512", _BYTES, unit, matrix, ir.Constant(_I8, 0))
            a, b, c, d = (_look_up(builder, parts, leaf) for parts in tables)
            low, high = _unpack(builder, a, b, 1), _unpack(builder, c, d, 1)
            quads = (quad for pair in zip(low, high, strict=True) for quad in _unpack(builder, pair[0], pair[1], 2))
            for quad, value in enumerate(quads):
                at = LINE * (4 * part + quad)
                value = builder.bitcast(value, _FLOATS)
                _store(builder, builder.fadd(_load(builder, sums, _FLOATS, at), value), sums, at)

    return write


def _look_up(builder, parts, index):
    """Bytes of a table of 64 or 256, by their number."""
    if len(parts) == 1:
        return _call(builder, "llvm.x86.avx512.permvar.qi.512", _BYTES, parts[0], index)
    low = _call(builder, "llvm.x86.avx512.vpermi2var.qi.512", _BYTES, parts[0], index, parts[1])
    high = _call(builder, "llvm.x86.avx512.vpermi2var.qi.512", _BYTES, parts[2], index, parts[3])
    return builder.select(builder.icmp_signed("<", index, ir.Constant(_BYTES, None)), high, low)


def _vbmi(addresses: int, write: Callable[..., None]) -> Any:
    """The operation where the machine has it; where not, none that is never reached."""
    return _operation(addresses, write if VBMI else lambda builder, *addresses: None)


vbmi_ranks_5, vbmi_ranks_6, vbmi_ranks_7, vbmi_ranks_8 = (_vbmi(3, _write_ranks(levels)) for levels in (5, 6, 7, 8))
vbmi_sums_6, vbmi_sums_8 = (_vbmi(4, _write_sums(depth)) for depth in (6, 8))
