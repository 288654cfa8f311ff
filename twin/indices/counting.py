"""Dry and wet days, the runs they form and the rain they bring, of each year and cell, at the speed of the memory.

    values   day ─▸  8 rows  ┐ 16 cells of 8 days are counted before their counts go back to the nearest cache: what a
             day ─▸          ├─▸ counts (int16) and sums of these 16 cells          day costs is then to read it
             ...             ┘

Written as LLVM instructions for vectors, which LLVM fits to any machine: numba would count in 64 bits. The order of
every sum is written down too, so that all machines give the same bits.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from twin.land.compiled import compiled

LANES = 16  # cells counted together
DAYS = 8  # days of them that are read at once
WIDTH = 1024  # cells whose counts are kept in the nearest cache
GROUP = 16  # cells followed together

COUNTS = ("dry", "longest_dry", "dry_spells", "in_dry_spells", "wet", "longest_wet", "heavy", "dry_run", "wet_run")
SUMS = ("total", "on_wet_days", "lowest")
ROWS = 1 + 7 + len(SUMS)  # of a result: known days, the counts without the two runs, the sums

_BYTE, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_INTS = ir.VectorType(ir.IntType(16), LANES)
_NONE, _ONE = ir.Constant(_INTS, None), ir.Constant(_INTS, [1] * LANES)


def _counting(days: int) -> Any:
    """An intrinsic that takes so many days, from `row` on, of the LANES cells from `cell` on into counts and sums."""

    def count(typingctx, values, row, cell, limits, shortest, counts, sums, tile):
        one = types.intp
        return types.void(values, one, one, limits, one, counts, sums, one), codegen

    def codegen(context, builder, signature, args):
        _, row, cell, _, shortest, _, _, tile = args
        real, size = (ir.FloatType(), 4) if signature.args[0].dtype == types.float32 else (ir.DoubleType(), 8)
        reals = ir.VectorType(real, LANES)
        nothing, no_rain = ir.Constant(reals, [-0.0] * LANES), ir.Constant(reals, [0.0] * LANES)  # −0 + x is x

        def place(which, row, column, kind):
            array = context.make_array(signature.args[which])(context, builder, args[which])
            rows, columns = (
                builder.mul(at, builder.extract_value(array.strides, axis)) for axis, at in enumerate((row, column))
            )
            address = builder.add(builder.ptrtoint(array.data, _I64), builder.add(rows, columns))
            return builder.inttoptr(address, kind.as_pointer())

        def load(which, number, kind, align):
            return builder.load(place(which, ir.Constant(_I64, number), tile, kind), align=align)

        def more(count, where):
            return builder.select(where, builder.add(count, _ONE), count)

        def run_on(run, longest, where):
            run = builder.and_(builder.add(run, _ONE), builder.sext(where, _INTS))
            return run, builder.select(builder.icmp_signed(">", run, longest), run, longest)

        n = builder.insert_element(_NONE, builder.trunc(shortest, ir.IntType(16)), ir.Constant(_I32, 0))
        n = builder.shuffle_vector(n, n, ir.Constant(ir.VectorType(_I32, LANES), None))
        dry_limit, heavy_limit = (load(3, number, reals, size) for number in range(2))
        state = [load(5, number, _INTS, 2) for number in range(len(COUNTS))]
        dry, longest_dry, spells, within, wet, longest_wet, heavy, dry_run, wet_run = state
        total, on_wet, lowest = (load(6, number, reals, size) for number in range(len(SUMS)))
        rain, wet_rain = nothing, nothing
        for day in range(days):
            this = builder.add(row, ir.Constant(_I64, day))
            x = builder.load(place(0, this, cell, reals), align=size)
            if days > 1:
                _prefetch(builder, place(0, builder.add(this, ir.Constant(_I64, days)), cell, _BYTE), LANES * size)
            is_dry, is_wet = builder.fcmp_ordered("<", x, dry_limit), builder.fcmp_ordered(">=", x, dry_limit)
            dry_run, longest_dry = run_on(dry_run, longest_dry, is_dry)
            wet_run, longest_wet = run_on(wet_run, longest_wet, is_wet)
            spells = more(spells, builder.icmp_signed("==", dry_run, n))
            within = more(within, builder.icmp_signed(">=", dry_run, n))
            dry, wet = more(dry, is_dry), more(wet, is_wet)
            heavy = more(heavy, builder.fcmp_ordered(">=", x, heavy_limit))
            rain = builder.fadd(rain, builder.select(builder.fcmp_ordered(">", x, no_rain), x, no_rain))
            wet_rain = builder.fadd(wet_rain, builder.select(is_wet, x, nothing))
            lowest = builder.select(builder.fcmp_ordered("<", x, lowest), x, lowest)
        state = [dry, longest_dry, spells, within, wet, longest_wet, heavy, dry_run, wet_run]
        for number, vector in enumerate(state):
            builder.store(vector, place(5, ir.Constant(_I64, number), tile, _INTS), align=2)
        for number, vector in enumerate((builder.fadd(total, rain), builder.fadd(on_wet, wet_rain), lowest)):
            builder.store(vector, place(6, ir.Constant(_I64, number), tile, reals), align=size)
        return context.get_dummy_value()

    return intrinsic(count)


def _prefetch(builder, address, length: int) -> None:
    """Ask for the lines of memory from an address on: what is read next lies too far away for the machine to guess."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _I32, _I32, _I32])
    name = "llvm.prefetch.p0i8"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    read, near, data = (ir.Constant(_I32, number) for number in (0, 3, 1))
    for offset in range(0, length, 64):
        line = builder.gep(address, [ir.Constant(_I64, offset)])
        builder.call(function, [line, read, near, data])


_eight_days, _one_day = _counting(DAYS), _counting(1)


@compiled
def count(limits, shortest, values, cells, bounds, found, first, last):
    """Fill the rows of `found` (row, year, cell) that it has, for cells[first..last]; a spell is cut where a year ends.

    limits     (2, cell), as the values: dry below the first, wet at or above it; heavy at or above the second
    shortest   dry days in a row that make a spell
    values     (time, cell), float32 or float64, NaN neither dry nor wet
    bounds     (year, 2) rows of a year's first day and of the next year's
    """
    pieces = max(-(-(last - first) // WIDTH), 1)
    width = LANES * (-(-(last - first) // (pieces * LANES)))
    counts, sums = np.empty((len(COUNTS), width), np.int16), np.empty((len(SUMS), width), values.dtype)
    own, gathered = np.zeros((2, width), values.dtype), np.full((DAYS, LANES), np.nan, values.dtype)
    for year in range(bounds.shape[0]):
        start, stop = max(bounds[year, 0], 0), min(bounds[year, 1], values.shape[0])
        for block in range(first, last, width):
            n = min(width, last - block)
            for i in range(n):
                own[0, i], own[1, i] = limits[0, cells[block + i]], limits[1, cells[block + i]]
            counts[:], sums[:] = 0, 0
            for row in range(start, stop, DAYS):
                days = min(DAYS, stop - row)
                for tile in range(0, n, LANES):
                    here, cell = row, cells[block + tile]
                    table = values
                    if tile + LANES > n or cells[block + tile + LANES - 1] - cell != LANES - 1:
                        _gather(values, cells, row, days, block + tile, min(LANES, n - tile), gathered)
                        table, here, cell = gathered, 0, 0
                    if days == DAYS:
                        _eight_days(table, here, cell, own, shortest, counts, sums, tile)
                    else:
                        for day in range(days):
                            _one_day(table, here + day, cell, own, shortest, counts, sums, tile)
            _tell(counts, sums, shortest, cells, block, n, year, found)


@compiled
def _gather(values, cells, row, days, at, n, gathered):
    """Some days of n cells that do not lie side by side."""
    for day in range(days):
        for lane in range(n):
            gathered[day, lane] = values[row + day, cells[at + lane]]


@compiled
def _tell(counts, sums, shortest, cells, block, n, year, found):
    """A year's counts and sums of n cells: a spell was known from its last necessary day, and had those before too."""
    for i in range(n):
        cell = cells[block + i]
        found[0, year, cell] = counts[0, i] + counts[4, i]
        for number in range(min(7, found.shape[0] - 1)):
            found[1 + number, year, cell] = counts[number, i]
        found[4, year, cell] += (shortest - 1) * counts[2, i]
        for number in range(found.shape[0] - 8):
            found[8 + number, year, cell] = sums[number, i]


@compiled
def follow(limit, shortest, window, crossing, values, cells, bounds, found, first, last):
    """The first five rows of `count`, where a day is dry in any `window` of days that together are below the limit.

    limit      (cell), float64
    crossing   whether a spell counts, whole, in the year it began in, or is cut where a year ends, as its windows are
    """
    dry, known = np.empty((values.shape[0], GROUP), np.bool_), np.empty(GROUP, np.int32)
    for block in range(first, last, GROUP):
        n = min(GROUP, last - block)
        if crossing:
            _flag(limit, window, values, cells, block, n, 0, values.shape[0], dry)
        for year in range(bounds.shape[0]):
            start, stop = max(bounds[year, 0], 0), min(bounds[year, 1], values.shape[0])
            if not crossing:
                _flag(limit, window, values, cells, block, n, start, stop, dry)
            known[:] = 0
            for row in range(start, stop):
                for i in range(n):
                    known[i] += values[row, cells[block + i]] == values[row, cells[block + i]]
            for i in range(n):
                found[0, year, cells[block + i]] = known[i]
                _runs(dry[:, i], start, stop, crossing, shortest, found[1:5, year, cells[block + i]])


@compiled
def _runs(dry, start, stop, crossing, shortest, found):
    """Dry days, the longest spell, spells and days in them, of one year of one cell."""
    days, run, longest, spells, within = 0, 0, 0, 0, 0
    before = int(crossing and 0 < start < stop and dry[start - 1])  # 1 in a spell of the year before
    for row in range(start, dry.size if crossing else stop):
        here = 1 if dry[row] else 0
        if row < stop:
            days += here
        elif run == 0:
            break
        before *= here
        run = (run + 1) * (here - before)
        longest = max(longest, run)
        spells += run == shortest
        within += run >= shortest
    found[0], found[1], found[2], found[3] = days, longest, spells, within + (shortest - 1) * spells


@compiled
def _flag(limit, window, values, cells, block, n, start, stop, dry):
    """Whether each day from start to stop is in a dry window that lies between them."""
    for row in range(start, stop):
        for i in range(n):
            total = 0.0
            for day in range(max(row + 1 - window, start), row + 1):
                total += values[day, cells[block + i]]
            below = total < limit[cells[block + i]] and row + 1 - window >= start
            dry[row, i] = below
            for day in range(max(row + 1 - window, start), row):
                dry[day, i] |= below
