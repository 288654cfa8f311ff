"""Cells over threads: the compiled code holds no lock, so plain threads use every core."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from twin.land.compiled import BLOCK

PART = 64  # most blocks of a part, so that what a part holds of its own stays small


def spread(march: Callable[[int, int], None], cells: int, threads: int) -> None:
    """Call `march(first, last)` over all cells, in whole blocks, on as many threads as there is work for."""
    blocks = -(-cells // BLOCK)
    parts = max(1, min(4 * threads if threads > 1 else 1, blocks // 4), blocks // PART)
    edges = [min(cells, BLOCK * (blocks * part // parts)) for part in range(parts + 1)]
    if parts == 1 or threads == 1:
        for first, last in pairwise(edges):
            march(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(march, edges[:-1], edges[1:]))
