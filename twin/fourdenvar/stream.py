"""The sums of the analysis, chunk by chunk: exact, in a fixed order, and small enough to keep.

The errors of a sensor at one cell share an offset: a block of R is D + s_b² 1 1ᵀ, D the diagonal of variances. By the
formula of Sherman & Morrison (1950), Ann. Math. Stat. 21, 124, its inverse is

    D⁻¹ − g D⁻¹ 1 1ᵀ D⁻¹        g = s_b² / (1 + s_b² m)        m = 1ᵀ D⁻¹ 1

so with z = [Y; d] the block adds z D⁻¹ zᵀ − g v vᵀ, v = z D⁻¹ 1. The first term, v and m are sums over observations:
they may come from several chunks (months of a tile, say), and only g needs them all.

    chunk ──summed──▶ Sums ──┐
    chunk ──summed──▶ Sums ──┼─total─▶ Total ─solve─▶ Solution        a late item: one Sums replaced, `total` again
    chunk ──summed──▶ Sums ──┘
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from twin.errors import RangeError, VariableError
from twin.fourdenvar.algebra import Solution, Total, check_finite, check_positive, check_shape, solve
from twin.fourdenvar.regression import Filter

_BLOCK = 16384  # observations at once: 3 MB of 50 members in float32

Key = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Observations of one sensor that are summed together.

    key            unique, sortable: (sensor, tile, month), say
    Y (N, p)       perturbations of what the members would observe, over √(N−1); float32 is summed from float32
    d (p)          innovation
    variance (p)   of the errors that are not shared: α s², with α for their correlation in time
    cell (p)       integers; the observations of a sensor at a cell share an offset, in whichever chunk they are
    offset         variance of that offset, s_b²: 0 for none, infinite if nothing is known about it
    Raises VariableError for shapes that do not match, RangeError for numbers no variance or innovation can be.
    """

    key: Key
    Y: np.ndarray
    d: np.ndarray
    variance: np.ndarray
    cell: np.ndarray
    offset: float
    sensor: str

    def __post_init__(self) -> None:
        where = f"chunk {self.key}"
        if self.Y.ndim != 2:
            raise VariableError("dims of Y", expected="2, members first", found=self.Y.shape, where=where)
        for name in ("d", "variance", "cell"):
            check_shape(name, getattr(self, name).shape, self.Y.shape[1:], where)
        check_finite("d", self.d, where)
        check_positive("variance", self.variance, where)
        if not self.offset >= 0.0:
            raise RangeError("offset variance", expected="0 or more", found=self.offset, where=where)
        if self.cell.dtype.kind not in "iu":
            raise VariableError("type of cell", expected="integers", found=self.cell.dtype, where=where)


@dataclass(frozen=True, eq=False)
class Sums:
    """What a chunk leaves; with a filter its coordinates stand for the members.

    gram (N+1, N+1)             z D⁻¹ zᵀ, z = [Y; d]
    cell (k), m (k), v (k, N+1) its cells, ascending, with 1ᵀ D⁻¹ 1 and z D⁻¹ 1 of each; k = 0 without an offset
    """

    key: Key
    sensor: str
    offset: float
    p: int
    gram: np.ndarray
    cell: np.ndarray
    m: np.ndarray
    v: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays without objects, for any format; `from_arrays` is the way back."""
        label = np.array(json.dumps([self.key, self.sensor, self.offset, self.p]))
        return {"label": label, "gram": self.gram, "cell": self.cell, "m": self.m, "v": self.v}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Sums:
        """The Sums that left these arrays."""
        key, sensor, offset, p = json.loads(str(arrays["label"]))
        return cls(tuple(key), sensor, offset, p, *(np.asarray(arrays[name]) for name in ("gram", "cell", "m", "v")))


def summed(chunk: Chunk, filter: Filter | None = None) -> Sums:
    """The sums over one chunk, in blocks of its observations, products in the precision of Y and sums in float64.

    filter   keeps of Y what is linear in X and adds the variance of the rest to the errors
    Raises RangeError if Y has a number that is not finite, VariableError if the filter is of other members.
    """
    N, p = chunk.Y.shape
    size = (N if filter is None else filter.rank) + 1
    dtype = np.float32 if chunk.Y.dtype == np.float32 else np.float64
    order, cell, first = _cells(chunk.cell) if chunk.offset else (None, chunk.cell[:0], np.empty(0, np.int64))
    gram, m, v = np.zeros((size, size)), np.zeros(len(cell)), np.zeros((len(cell), size), dtype)
    room = np.empty((size, min(_BLOCK, p)), dtype)
    for start in range(0, p, _BLOCK):
        end = min(start + _BLOCK, p)
        at = slice(start, end) if order is None else order[start:end]
        Y, variance = chunk.Y[:, at], chunk.variance[at].astype(np.float64)
        if filter is not None:
            Y, residual = filter.coordinates(Y)
            variance += residual
        root = np.sqrt(1.0 / variance)
        z = room[:, : end - start]
        np.multiply(Y, root.astype(dtype), out=z[:-1])
        z[-1] = chunk.d[at] * root
        gram += z @ z.T
        if chunk.offset:
            z *= root.astype(dtype)
            low, high = np.searchsorted(first, start, "right") - 1, np.searchsorted(first, end)  # cells of the block
            edges = np.maximum(first[low:high] - start, 0)
            m[low:high] += np.add.reduceat(1.0 / variance, edges)
            v[low:high] += np.add.reduceat(z, edges, axis=1, dtype=np.float64).T
    if not np.isfinite(gram).all():
        check_finite("Y", chunk.Y, f"chunk {chunk.key}")
        found = f"up to {np.abs(chunk.Y).max():g}"
        raise RangeError("Y", expected="numbers with finite squares", found=found, where=f"chunk {chunk.key}")
    return Sums(chunk.key, chunk.sensor, float(chunk.offset), p, gram, cell, m, v)


def _cells(cell: np.ndarray) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """(order that sorts the cells or None, the cells there are, where each begins in that order)."""
    order = None
    if (cell[1:] < cell[:-1]).any():
        order = np.argsort(cell, kind="stable")
        cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=cell[:1] - 1))
    return order, cell[first], first


def total(sums: Iterable[Sums], weights: Mapping[Key, float] | None = None) -> Total:
    """All chunks together, to the same bits in whatever order they come.

    weights   factor 0..1 on R⁻¹ of each key (R-localisation, Hunt et al. 2007, section 3): 0 leaves a chunk out, and
              chunks that share an offset have the same
    Raises VariableError without a chunk, for a key that comes twice or has no weight, for chunks of different members;
    RangeError for a weight out of range, or for an offset or a weight that differs within a block.
    """
    parts = sorted(sums, key=lambda part: part.key)
    if not parts:
        raise VariableError("sums", expected="at least one chunk, though it may be empty", found="none")
    shape, size = parts[0].gram.shape, len(parts[0].gram)
    for before, part in itertools.pairwise(parts):
        check_shape("sums", part.gram.shape, shape, f"chunk {part.key}")
        if part.key == before.key:
            raise VariableError("key of a chunk", expected="unique", found=f"{part.key} twice")
    weighted = [(part, 1.0 if weights is None else _weight(weights, part.key)) for part in parts]
    weighted = [(part, rho) for part, rho in weighted if rho > 0.0]
    if not weighted:
        return Total.of(np.zeros(shape), 0)
    sensors = defaultdict(list)
    for part, rho in weighted:
        if part.offset:
            sensors[part.sensor].append((part, rho))
    grams = [rho * part.gram for part, rho in weighted] + [_offsets(sensors[name], size) for name in sorted(sensors)]
    return Total.of(_tree(grams), sum(part.p for part, _ in weighted))


def _weight(weights: Mapping[Key, float], key: Key) -> float:
    if key not in weights:
        raise VariableError("weights", expected=f"one for chunk {key}", found="none")
    if not 0.0 <= weights[key] <= 1.0:
        raise RangeError("weight", expected="0 to 1", found=weights[key], where=f"chunk {key}")
    return float(weights[key])


def _offsets(weighted: list[tuple[Sums, float]], size: int) -> np.ndarray:
    """−Σ ρ g v vᵀ over the cells of one sensor: what the offsets take from the sums, (size, size)."""
    cells = np.unique(np.concatenate([part.cell for part, _ in weighted]))
    v, m = np.zeros((len(cells), size)), np.zeros(len(cells))
    offset, weight = np.full((2, len(cells)), np.nan)
    for part, rho in weighted:
        at = np.searchsorted(cells, part.cell)
        for name, of_cell, value in (("offset variance", offset, part.offset), ("weight", weight, rho)):
            before = of_cell[at]
            clash = before[~np.isnan(before) & (before != value)]
            if len(clash):
                expected, where = f"{clash[0]:g} as in another chunk", f"chunk {part.key}, sensor {part.sensor}"
                raise RangeError(f"{name} of a cell", expected=expected, found=f"{value:g}", where=where)
            of_cell[at] = value
        m[at] += part.m
        v[at] += part.v
    v *= np.sqrt(weight / (1.0 / offset + m))[:, None]  # 1/s_b² + m: also for an infinite s_b²
    return -(v.T @ v)


def _tree(parts: list[np.ndarray]) -> np.ndarray:
    """Their sum, neighbours first, then neighbours of those."""
    while len(parts) > 1:
        pairs = [first + second for first, second in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]


def analyse_stream(chunks: Iterable[Chunk], filter: Filter | None = None) -> Solution:
    """`analyse` of observations that never lie in memory together; raises what `summed` and `total` raise."""
    return solve(total(summed(chunk, filter) for chunk in chunks), filter)


def gaspari_cohn(distance_over_c: ArrayLike) -> np.ndarray:
    """Correlation 1 to 0 that falls like a Gaussian and ends at twice the length c, in the shape of its argument.

    distance_over_c   distance over c, both in the same unit, 0 or more; else RangeError
    Ref: Gaspari & Cohn (1999), Q. J. R. Meteorol. Soc. 125, 723, eq. 4.10.
    """
    r = np.asarray(distance_over_c, np.float64)
    if not (r >= 0.0).all():
        raise RangeError("distance", expected="0 or more", found=f"{r[~(r >= 0.0)].flat[0]:g}")
    near = np.polyval([-1 / 4, 1 / 2, 5 / 8, -5 / 3, 0.0, 1.0], np.minimum(r, 1.0))
    between = np.clip(r, 1.0, 2.0)
    far = np.polyval([1 / 12, -1 / 2, 5 / 8, 5 / 3, -5.0, 4.0], between) - 2.0 / (3.0 * between)
    return np.where(r < 1.0, near, np.where(r < 2.0, np.maximum(far, 0.0), 0.0))
