"""4DEnVar in closed form: the algebra of one window, streamed over chunks of observations.

    analyse(X, Y, d, R)                         in memory
    solve(total(summed(chunk) for chunk …))     the same, streamed: a chunk leaves N × N and N numbers
    gauss_newton(total, X, x, x_b, B)           one outer loop about x, the prior kept as it is at x_b

Symbols, `realization` first:

    N, n, p    members, control variables, observations
    x_b, x_a   (n) background, analysis
    X (N, n)   perturbations x_i − x_b over √(N−1)
    Y (N, p)   perturbations H(x_i) − H(x_b) over √(N−1)
    d (p)      innovation y − H(x_b)
    R          covariance of the observation errors, by sensor and cell: diag(variance) + offset 1 1ᵀ
    w (N)      weights: x_a = x_b + Xᵀ w
    A, c       Y R⁻¹ Yᵀ and Y R⁻¹ d, all that the analysis needs

    J(w) = ½ wᵀ w + ½ (Yᵀ w − d)ᵀ R⁻¹ (Yᵀ w − d)        w = (I + A)⁻¹ c        X_a = (I + A)^−½ X

Refs: Liu, Xiao & Wang (2008), Mon. Weather Rev. 136, 3363 (4DEnVar); Pinnington et al. (2020), Geosci. Model Dev. 13,
55 (of land parameters); Bishop, Etherton & Majumdar (2001), Mon. Weather Rev. 129, 420, and Hunt, Kostelich & Szunyogh
(2007), Physica D 230, 112 (the transform, symmetric).
"""

from twin.fourdenvar.algebra import Solution, Total, analyse, cost, gradient, perturbations, solve
from twin.fourdenvar.diagnostics import coverage, desroziers, rank_histogram
from twin.fourdenvar.regression import Filter, Step, gauss_newton
from twin.fourdenvar.stream import Chunk, Sums, analyse_stream, gaspari_cohn, summed, total

__all__ = [
    "Chunk",
    "Filter",
    "Solution",
    "Step",
    "Sums",
    "Total",
    "analyse",
    "analyse_stream",
    "cost",
    "coverage",
    "desroziers",
    "gaspari_cohn",
    "gauss_newton",
    "gradient",
    "perturbations",
    "rank_histogram",
    "solve",
    "summed",
    "total",
]
