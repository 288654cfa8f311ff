"""How well a run follows what was observed, cell by cell, and how sure one can be of it.

    model, observed (time, cell) ─scores──┐
                                          ├─▸ one row a cell ─interval─▸ mean over the cells, 95 %
    model, observed, cell, day (p) ─grouped┘

With m the model and y the observations of a cell, primes for what is left of their means:

    bias  m̄ − ȳ        rmse  √(mean (m − y)²)        ubrmse  √(rmse² − bias²)        r  mean(m′ y′) / (σ_m σ_y)
    anomaly_r   r of the departures from the mean of the observed days within 17 days either way
    kge         1 − √((r − 1)² + (σ_m/σ_y − 1)² + (m̄/ȳ − 1)²)

Refs: Entekhabi et al. (2010), J. Hydrometeorol. 11, 832, eq. 1 to 6 (bias, rmse, ubrmse, r); Albergel et al. (2009),
Hydrol. Earth Syst. Sci. 13, 115 (anomalies from five weeks with five observations or more); Gupta et al. (2009), J.
Hydrol. 377, 80, eq. 9 and 10 (kge).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from twin.errors import RangeError, VariableError

SCORES = ("rmse", "bias", "ubrmse", "r", "anomaly_r", "kge")
LEAST = 20  # observations of a cell below which it has no scores
WINDOW, FILLED = 17, 5  # days either way that an anomaly is from, and how many of them must have been observed


def scores(model: ArrayLike, observed: ArrayLike, least: int = LEAST) -> pd.DataFrame:
    """The scores of each cell over consecutive days, one row a cell: `count` and SCORES.

    model, observed   (time, cell) in one unit; a day counts where both are finite
    NaN for a cell of fewer than `least` such days, and where a score is not defined: r of what does not vary, say.
    Raises VariableError for arrays of other shapes.
    """
    m, y = np.asarray(model, np.float64), np.asarray(observed, np.float64)
    if m.ndim != 2 or m.shape != y.shape:
        raise VariableError("model and observed", expected="both (time, cell)", found=f"{m.shape} and {y.shape}")
    cell, day = np.nonzero((np.isfinite(m) & np.isfinite(y)).T)
    return grouped(m[day, cell], y[day, cell], cell, day, least).reindex(range(m.shape[1])).fillna({"count": 0})


def grouped(
    model: np.ndarray, observed: np.ndarray, cell: np.ndarray, day: np.ndarray, least: int = LEAST
) -> pd.DataFrame:
    """As `scores`, of observations one by one (p): a row for each cell that has any, ascending."""
    order = np.lexsort((day, cell))
    cells, group, count = np.unique(np.asarray(cell)[order], return_inverse=True, return_counts=True)
    m, y, day = (np.asarray(values, np.float64)[order] for values in (model, observed, day))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, cells.size) / count

    mean_m, mean_y = mean(m), mean(y)
    about_m, about_y = m - mean_m[group], y - mean_y[group]
    spread_m, spread_y = np.sqrt(mean(about_m**2)), np.sqrt(mean(about_y**2))
    bias, ubrmse = mean_m - mean_y, np.sqrt(mean((about_m - about_y) ** 2))
    near = _near(group, day)
    kept = near[1] - near[0] >= FILLED
    anomaly_m, anomaly_y = ((values - _running(values, *near))[kept] for values in (about_m, about_y))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = _correlation(about_m, about_y, group, cells.size)
        kge = 1.0 - np.sqrt((r - 1.0) ** 2 + (spread_m / spread_y - 1.0) ** 2 + (mean_m / mean_y - 1.0) ** 2)
        anomaly_r = _correlation(anomaly_m, anomaly_y, group[kept], cells.size)
    found = (np.hypot(bias, ubrmse), bias, ubrmse, r, anomaly_r, kge)
    table = pd.DataFrame(dict(zip(SCORES, found, strict=True)), pd.Index(cells, name="cell"))
    table[count < least] = np.nan
    table.insert(0, "count", count)
    return table


def _correlation(a: np.ndarray, b: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Pearson's r of each group; NaN where either varies by no more than rounding."""
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    largest = np.abs(np.stack([a, b])).max(axis=1, initial=0.0)
    a, b = (values - (np.bincount(group, values, groups) / count)[group] for values in (a, b))
    aa, bb, ab = (np.bincount(group, product, groups) for product in (a * a, b * b, a * b))
    rounding = count * (1e-12 * largest[:, None]) ** 2
    return np.where((aa > rounding[0]) & (bb > rounding[1]), ab / np.sqrt(aa * bb), np.nan)


def _near(group: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, one past the last) observation of the same group within WINDOW days of each (p), sorted by both."""
    stride = day.max(initial=0.0) - day.min(initial=0.0) + 2.0 * WINDOW + 1.0
    place = group * stride + day
    return np.searchsorted(place, place - WINDOW), np.searchsorted(place, place + WINDOW, "right")


def _running(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean of values[first:last] for each pair."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[last] - sums[first]) / (last - first)


@dataclass(frozen=True)
class Interval:
    """A mean over cells, or a mean difference, and the limits between which it lies with the confidence asked for."""

    mean: float
    low: float
    high: float
    cells: int


def interval(values: ArrayLike, rng: np.random.Generator, level: float = 0.95, draws: int = 2000) -> Interval:
    """The mean of a score over the cells that have it, with percentile limits from a bootstrap by cell.

    values   (cell); of a difference between two runs, the paired difference of every cell
    All that cells share, the weather of a year above all, is taken as it was: the limits are of the choice of cells
    alone, and too narrow where cells are neighbours. Raises VariableError without a finite value, RangeError for a
    level outside 0..1. Ref: Efron & Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.
    """
    if not 0.0 < level < 1.0:
        raise RangeError("level", expected="between 0 and 1", found=level)
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        raise VariableError("scores", expected="of at least one cell", found="none")
    means = values[rng.integers(0, values.size, (draws, values.size))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(float(values.mean()), float(low), float(high), int(values.size))
