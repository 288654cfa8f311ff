"""Distributions fitted to one value per year: from a sample to statistics, to parameters, to the two tails of a value.

    sample (year, step, cell) ─statistics▸ sums, or L-moments ─fit▸ parameters ─tails▸ F(x), 1 − F(x)

Every statistic is a sum, over the values or over their ranks, from which one year can be taken back; so all fits with
one year left out cost little more than the fit with all of them.
Refs: Thom (1958), Mon. Weather Rev. 86, 117; Hosking (1990), J. R. Stat. Soc. B 52, 105; Hosking & Wallis (1997),
Regional Frequency Analysis, appendix A; Minka (2002), Estimating a gamma distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special as scipy_special

from twin.indices.special import beta_tails, gamma_tails, log_gamma

FEWEST = 4  # values that any fit takes
_STRAIGHT = 1e-6  # shape or skew nearer to 0 than this is as good as this, and divides
_LEVEL = 1e-10  # relative spread of a sample that is no sample: a value that is always the same

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Family:
    """A distribution: names of its parameters, {method: (statistics, fit)}, and tails(x, *parameters)."""

    parameters: tuple[str, ...]
    methods: Mapping[str, tuple[Callable[..., Arrays], Callable[..., Arrays]]]
    tails: Callable[..., tuple[np.ndarray, np.ndarray]]


def fit(family: Family, method: str, sample: np.ndarray, leave_out: bool, pool: int = 0) -> Arrays:
    """Parameters (step, cell) of a sample (year, step, cell), or with leave_out (year, step, cell): of the other years.

    NaN is not in the sample. pool: steps on either side whose values belong to the sample of a step and year, too.
    NaN where fewer than FEWEST values are left, or all are the same.
    """
    statistics, parameters = family.methods[method]
    with np.errstate(all="ignore"):
        count, *moments = statistics(sample, leave_out, pool)
        found = parameters(*moments)
        good = count >= FEWEST
        for parameter in found:
            good &= np.isfinite(parameter)
        return tuple(np.where(good, parameter, np.nan) for parameter in found)


# --- statistics -----------------------------------------------------------------------------------------------------
def _means(transform: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Arrays]:
    """Statistics (count, mean of x, mean of transform(x))."""

    def statistics(sample: np.ndarray, leave_out: bool, pool: int) -> Arrays:
        known = ~np.isnan(sample)
        terms = (
            known.astype(np.float64),
            np.where(known, sample, 0.0),
            transform(np.where(known, sample, 1.0)) * known,
        )
        blocks = [_pooled(term, pool) for term in terms]
        count, first, second = (block.sum(axis=0) - (block if leave_out else 0.0) for block in blocks)
        return count, first / count, second / count

    return statistics


def _pooled(term: np.ndarray, pool: int) -> np.ndarray:
    """Sums of a term (year, step, cell) over the steps within `pool`, across the turn of the year."""
    if pool == 0:
        return term
    flat = term.reshape(-1, term.shape[2])
    whole = np.zeros((len(flat) + 2 * pool, flat.shape[1]))
    whole[pool:-pool] = flat
    return np.add.reduce([whole[shift : shift + len(flat)] for shift in range(2 * pool + 1)]).reshape(term.shape)


def _l_moments(sample: np.ndarray, leave_out: bool, pool: int) -> Arrays:
    """Statistics (count, λ1, λ2, τ3) from unbiased probability-weighted moments (Hosking & Wallis 1997, eq. 2.59).

    Without the value of rank i, of n from 0, those above it move down by one: Σ j x loses i x_i and all x above i.
    """
    order = np.argsort(sample, axis=0)  # missing ones last
    x = np.take_along_axis(sample, order, axis=0)
    known = ~np.isnan(x)
    x = np.where(known, x, 0.0)
    rank = np.arange(len(x), dtype=np.float64)[:, None, None]
    count, sums = known.sum(axis=0).astype(np.float64), [x.sum(axis=0), (rank * x).sum(axis=0)]
    sums.append((rank * (rank - 1.0) * x).sum(axis=0))
    if leave_out:
        above = _after(x)
        sums = [
            sums[0] - x,
            sums[1] - rank * x - np.where(known, above, 0.0),
            sums[2] - rank * (rank - 1.0) * x - np.where(known, 2.0 * _after((rank - 1.0) * x), 0.0),
        ]
        count = count - known
        for values in (count, *sums):
            np.put_along_axis(values, order, values.copy(), axis=0)
    b0, b1 = sums[0] / count, sums[1] / (count * (count - 1.0))
    b2 = sums[2] / (count * (count - 1.0) * (count - 2.0))
    spread = 2.0 * b1 - b0
    spread = np.where(spread > _LEVEL * np.abs(b0), spread, np.nan)
    return count, b0, spread, (6.0 * b2 - 6.0 * b1 + b0) / spread


def _after(x: np.ndarray) -> np.ndarray:
    """Sums of all later values along the first axis."""
    return np.cumsum(x[::-1], axis=0)[::-1] - x


# --- gamma ----------------------------------------------------------------------------------------------------------
def _log_ratio(mean: np.ndarray, mean_log: np.ndarray) -> np.ndarray:
    """A = ln of the mean less the mean of the ln; NaN where all values are the same."""
    ratio = np.log(mean) - mean_log
    return np.where(ratio > _LEVEL, ratio, np.nan)


def _gamma_thom(mean: np.ndarray, mean_log: np.ndarray) -> Arrays:
    """Thom's approximation to maximum likelihood: α = (1 + √(1 + 4A/3))/(4A) (Thom 1958, eq. 22)."""
    ratio = _log_ratio(mean, mean_log)
    shape = (1.0 + np.sqrt(1.0 + 4.0 * ratio / 3.0)) / (4.0 * ratio)
    return shape, mean / shape


def _gamma_ml(mean: np.ndarray, mean_log: np.ndarray) -> Arrays:
    """Maximum likelihood, ln α − ψ(α) = A, by Minka's iteration, which converges in four steps (Minka 2002, eq. 18)."""
    ratio, (shape, _) = _log_ratio(mean, mean_log), _gamma_thom(mean, mean_log)
    for _ in range(5):
        slope = shape - shape**2 * scipy_special.polygamma(1, shape)
        shape = 1.0 / (1.0 / shape + (np.log(shape) - scipy_special.digamma(shape) - ratio) / slope)
    return shape, mean / shape


def _gamma_l_moments(l1: np.ndarray, l2: np.ndarray, _: np.ndarray) -> Arrays:
    """Shape from the L-CV, relative error < 5e-5 (Hosking 1990, section 4; the same numbers as in R's lmomco)."""
    t = l2 / l1
    z = np.where(t < 0.5, np.pi * t**2, 1.0 - t)
    low = (1.0 - 0.3080 * z) / (z - 0.05812 * z**2 + 0.01765 * z**3)
    high = (0.7213 * z - 0.5947 * z**2) / (1.0 - 2.1817 * z + 1.2113 * z**2)
    shape = np.where(t < 0.5, low, high)
    shape = np.where((t > 0.0) & (t < 1.0), shape, np.nan)
    return shape, l1 / shape


def _gamma_both(x: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return gamma_tails(shape, x / scale)


# --- Pearson III ----------------------------------------------------------------------------------------------------
def _pearson(l1: np.ndarray, l2: np.ndarray, t3: np.ndarray) -> Arrays:
    """location μ, scale σ, skew γ (Hosking & Wallis 1997, A.9)."""
    t = np.clip(np.abs(t3), _STRAIGHT, None)
    z = np.where(t < 1.0 / 3.0, 3.0 * np.pi * t**2, 1.0 - t)
    near = (1.0 + 0.2906 * z) / (z + 0.1882 * z**2 + 0.0442 * z**3)
    far = z * (0.36067 + z * (-0.59567 + z * 0.25361)) / (1.0 + z * (-2.78861 + z * (2.56096 - z * 0.77045)))
    shape = np.where(t < 1.0 / 3.0, near, far)
    shape = np.where(t < 1.0, shape, np.nan)
    ratio = np.exp(log_gamma(np.minimum(shape, 1e4)) - log_gamma(np.minimum(shape, 1e4) + 0.5))  # Γ(α)/Γ(α + ½)
    root = np.where(shape > 1e4, 1.0 + 0.125 / shape, ratio * np.sqrt(shape))  # DLMF 5.11.13
    return l1, l2 * np.sqrt(np.pi) * root, np.sign(t3) * 2.0 / np.sqrt(shape)


def _pearson_both(
    x: np.ndarray, location: np.ndarray, scale: np.ndarray, skew: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    sign = np.where(skew < 0.0, -1.0, 1.0)
    skew = np.maximum(np.abs(skew), _STRAIGHT)
    shape = 4.0 / skew**2
    lower, upper = gamma_tails(shape, shape + sign * (x - location) / scale * np.sqrt(shape))
    return np.where(sign < 0.0, upper, lower), np.where(sign < 0.0, lower, upper)


# --- generalised logistic, generalised extreme value ------------------------------------------------------------------
def _logistic(l1: np.ndarray, l2: np.ndarray, t3: np.ndarray) -> Arrays:
    """location ξ, scale α, shape κ = −τ3 (Hosking & Wallis 1997, A.7)."""
    k = _not_straight(np.where(np.abs(t3) < 1.0, -t3, np.nan))
    scale = l2 * np.sinc(k)
    return l1 - scale * (1.0 - 1.0 / np.sinc(k)) / k, scale, k


def _logistic_both(
    x: np.ndarray, location: np.ndarray, scale: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        y = _reduced(x, location, scale, shape)
        return 1.0 / (1.0 + np.exp(-y)), 1.0 / (1.0 + np.exp(y))


def _extreme(l1: np.ndarray, l2: np.ndarray, t3: np.ndarray) -> Arrays:
    """location ξ, scale α, shape κ to 9e-4 for |τ3| < 0.5 (Hosking & Wallis 1997, A.6)."""
    c = 2.0 / (3.0 + np.where(np.abs(t3) < 1.0, t3, np.nan)) - np.log(2.0) / np.log(3.0)
    k = _not_straight(7.8590 * c + 2.9554 * c**2)
    size = scipy_special.gamma(1.0 + k)
    scale = l2 * k / ((1.0 - 2.0**-k) * size)
    return l1 - scale * (1.0 - size) / k, scale, k


def _extreme_both(
    x: np.ndarray, location: np.ndarray, scale: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        rate = np.exp(-_reduced(x, location, scale, shape))
        return np.exp(-rate), -np.expm1(-rate)


def _reduced(x: np.ndarray, location: np.ndarray, scale: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """y = −ln(1 − κ(x − ξ)/α)/κ, held where x is beyond the end that the distribution has."""
    return -np.log(np.maximum(1.0 - shape * (x - location) / scale, 1e-300)) / shape


def _not_straight(k: np.ndarray) -> np.ndarray:
    return np.where(np.abs(k) < _STRAIGHT, _STRAIGHT, k)


# --- beta -------------------------------------------------------------------------------------------------------------
def _beta(mean: np.ndarray, mean_square: np.ndarray) -> Arrays:
    """Both shapes from mean and variance of values between 0 and 1."""
    variance = mean_square - mean**2
    size = np.where(variance > _LEVEL * mean**2, mean * (1.0 - mean) / variance - 1.0, np.nan)
    size = np.where(size > 0.0, size, np.nan)
    return mean * size, (1.0 - mean) * size


def _beta_both(x: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return beta_tails(alpha, beta, x)


_logs = _means(np.log)
_PLACED = ("location", "scale", "shape")
FAMILIES: Mapping[str, Family] = {  # of several methods, the first is the usual one
    "gamma": Family(
        ("shape", "scale"),
        {"thom": (_logs, _gamma_thom), "ml": (_logs, _gamma_ml), "lmoments": (_l_moments, _gamma_l_moments)},
        _gamma_both,
    ),
    "pearson3": Family(("location", "scale", "skew"), {"lmoments": (_l_moments, _pearson)}, _pearson_both),
    "log-logistic": Family(_PLACED, {"lmoments": (_l_moments, _logistic)}, _logistic_both),
    "gev": Family(_PLACED, {"lmoments": (_l_moments, _extreme)}, _extreme_both),
    "beta": Family(("alpha", "beta"), {"moments": (_means(np.square), _beta)}, _beta_both),
}


def distance(family: Family, sample: np.ndarray, parameters: Arrays) -> np.ndarray:
    """Kolmogorov's distance of a sample (year, step, cell) from its fit (step, cell): 0 is none."""
    with np.errstate(invalid="ignore"):
        shares = np.sort(family.tails(sample, *(np.broadcast_to(p, sample.shape) for p in parameters))[0], axis=0)
    count = (~np.isnan(shares)).sum(axis=0)
    steps = np.arange(len(sample), dtype=np.float64)[:, None, None]
    away: Any = np.fmax((steps + 1.0) / np.maximum(count, 1) - shares, shares - steps / np.maximum(count, 1))
    return np.where(count > 0, np.fmax.reduce(away, axis=0), np.nan)
