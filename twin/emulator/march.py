"""The emulator's days, in compiled code: rows of features, the trees' answers, and what they are added to.

A block of cells goes through the days by as many as fill the kernel's rows; nothing of a block leaves the cache before
its results. Cells exchange nothing, so that threads, blocks and tiles do not change a bit.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from twin.emulator.features import COLUMNS, TODAY, Table, constants, rows
from twin.emulator.kernel import Kernel, evaluate
from twin.emulator.lines import ROWS
from twin.land.compiled import BLOCK, stage
from twin.land.threads import spread


@stage
def _march(
    forcing,
    carbon,
    physics,
    static,
    memory,
    kept,
    source,
    base,
    low,
    high,
    model,
    scratch,
    today,
    x,
    y,
    out,
    first,
    last,
):
    """All days of cells first..last into out (output, time, cell); the memories of these cells go on.

    base       (output,) the column a forest's sum is added to, or -1
    low, high  (output, cell) limits of what is possible
    """
    total = forcing.shape[1]
    for cell in range(first, last, BLOCK):
        n = min(BLOCK, last - cell)
        most = ROWS // n
        for day in range(0, total, most):
            days = min(most, total - day)
            rows(forcing, carbon, physics, static, memory, kept, source, today, day, days, cell, n, x)
            evaluate(x, days * n, model, scratch, y)
            for k in range(out.shape[0]):
                for t in range(days):
                    for i in range(n):
                        row = t * n + i
                        value = y[k, row] + (x[base[k], row] if base[k] >= 0 else np.float32(0.0))
                        out[k, day + t, cell + i] = min(max(value, low[k, cell + i]), high[k, cell + i])


def march(
    kernel: Kernel, table: Table, base: np.ndarray, low: np.ndarray, high: np.ndarray, threads: int
) -> np.ndarray:
    """What the forests make of every day and cell of the table, (output, time, cell) float32, within low and high."""
    days, cells = table.forcing.shape[1:]
    source, kept = constants()
    out = np.empty((len(base), days, cells), np.float32)
    arrays = table.forcing, table.carbon, table.physics, table.static, table.memory, kept, source, base, low, high

    def work(first: int, last: int) -> None:
        today, x = np.empty((len(TODAY), BLOCK)), np.zeros((COLUMNS, ROWS), np.float32)
        y = np.empty((len(base), ROWS), np.float32)
        _march(*arrays, kernel.model, np.empty(kernel.scratch, np.uint64), today, x, y, out, first, last)

    spread(partial(work), cells, threads)
    return out
