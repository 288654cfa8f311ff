"""Are the errors what they are said to be? Variances from innovations, ranks and coverage of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import chisquare

from twin.errors import RangeError, VariableError
from twin.fourdenvar.algebra import check_finite, check_shape


def desroziers(d_b: np.ndarray, d_a: np.ndarray, cell: np.ndarray, groups: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """Variances of observation and background errors as the innovations show them, one row per group.

    d_b, d_a (p)   y − H(x_b) and y − H(x_a), in one unit
    cell (p)       the offset of a group at a cell is its mean there
    groups         labels (p) by what they are: {"sensor": …, "biome": …}
    Columns, in the unit squared: observation = mean of d_a d_b, background = mean of (H(x_a) − H(x_b)) d_b, both again
    with the mean of every cell taken off as observation_anomaly and background_anomaly (NaN if no cell has two); and
    the counts p, cells. Raises VariableError for shapes that do not match, RangeError if not finite.
    Ref: Desroziers et al. (2005), Q. J. R. Meteorol. Soc. 131, 3385, eq. 2 and 3.
    """
    labels = {name: np.asarray(values) for name, values in groups.items()}
    for name, values in {"d_a": d_a, "cell": cell, **labels}.items():
        check_shape(name, np.shape(values), np.shape(d_b))
    if not labels:
        raise VariableError("groups", expected="at least one", found="none")
    check_finite("d_b", d_b)
    check_finite("d_a", d_a)
    index = pd.MultiIndex.from_arrays([*labels.values(), cell], names=[*labels, None])
    table = pd.DataFrame({"p": 1, "a": d_a, "b": d_b, "ab": d_a * d_b, "bb": d_b**2}, index)
    cells = table.groupby(level=list(range(index.nlevels))).sum().assign(cells=1)
    cells["ab_mean"], cells["bb_mean"] = cells.a * cells.b / cells.p, cells.b**2 / cells.p  # what the means make of it
    s = cells.groupby(level=list(range(len(labels)))).sum()
    freedom = (s.p - s.cells).where(s.p > s.cells)
    return pd.DataFrame(
        {
            "p": s.p,
            "cells": s.cells,
            "observation": s.ab / s.p,
            "background": (s.bb - s.ab) / s.p,
            "observation_anomaly": (s.ab - s.ab_mean) / freedom,
            "background_anomaly": (s.bb - s.bb_mean - s.ab + s.ab_mean) / freedom,
        }
    )


def rank_histogram(
    members: np.ndarray, y: np.ndarray, variance: ArrayLike, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """How often an observation has each rank 0..N among the members, (N+1), and the p-value of a flat histogram.

    members (N, p), y (p)   in one unit; every member is given an error of its own, ties are drawn
    variance                of the observation error, (p) or one number, 0 or more
    The p-value is that of Pearson's chi-square, for observations that do not depend on each other. Raises VariableError
    for shapes that do not match, RangeError for numbers not finite or negative variances.
    Ref: Hamill (2001), Mon. Weather Rev. 129, 550.
    """
    observed = _observed(members, y, variance, rng)
    ties = (observed == y).sum(axis=0)
    rank = (observed < y).sum(axis=0) + rng.integers(0, ties + 1)
    counts = np.bincount(rank, minlength=len(observed) + 1)
    return counts, float(chisquare(counts).pvalue)


def coverage(
    members: np.ndarray, y: np.ndarray, variance: ArrayLike, rng: np.random.Generator, level: float = 0.9
) -> float:
    """Share of the observations, or truths, inside the central interval of the ensemble that should hold `level`.

    members, y, variance, rng   as in `rank_histogram`; variance 0 for a truth
    The quantiles of N members have Weibull's plotting positions, which are those of exchangeable values. Raises as
    `rank_histogram` does, and RangeError if the interval is wider than that of all members, (N−1)/(N+1).
    """
    widest = (len(members) - 1.0) / (len(members) + 1.0)
    if not 0.0 < level <= widest:
        raise RangeError("level", expected=f"above 0, at most {widest:g} for {len(members)} members", found=level)
    observed = _observed(members, y, variance, rng)
    low, high = np.quantile(observed, [0.5 - level / 2, 0.5 + level / 2], axis=0, method="weibull")
    return float(np.mean((low <= y) & (y <= high)))


def _observed(members: np.ndarray, y: np.ndarray, variance: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """What each member would have observed, (N, p): the member and an error."""
    variance = np.asarray(variance, np.float64)
    check_shape("members", members.shape, (len(members), *y.shape))
    if variance.ndim:
        check_shape("variance", variance.shape, y.shape)
    for name, values in (("members", members), ("y", y), ("variance", variance)):
        check_finite(name, values)
    if (variance < 0.0).any():
        raise RangeError("variance", expected="0 or more", found=f"{variance.min():g}")
    if y.size == 0:
        raise VariableError("observations", expected="at least one", found="none")
    return members + np.sqrt(variance) * rng.standard_normal(members.shape)
