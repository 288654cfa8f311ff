"""What the ensemble says about the slope of H: of Y only what is linear in X, and the Gauss-Newton step with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, solve_triangular

from twin.errors import RangeError, VariableError
from twin.fourdenvar.algebra import Total, check_finite, check_positive, check_shape


class Filter:
    """The least-squares regression of Y on X: keeps the linear part, gives the variance of the rest.

    X   (N, n) perturbations of all control variables, about whatever: their mean is taken off, as is that of Y
    What N members do not tell apart from chance, and what is not linear, is then an error of the observations and not a
    signal. Raises VariableError unless N is at least two more than the directions in X, RangeError if not finite.
    Ref: Gu & Oliver (2007), SPE J. 12, 438 (slopes of H by regression on an ensemble).
    """

    def __init__(self, X: ArrayLike) -> None:
        X = np.asarray(X, np.float64)
        if X.ndim != 2:
            raise VariableError("dims of X", expected="2, members first", found=X.shape)
        check_finite("X", X)
        U, s, _ = np.linalg.svd(_unit_columns(X - X.mean(axis=0)), full_matrices=False)
        self.Q = U[:, s > s.max(initial=0.0) * max(X.shape) * np.finfo(np.float64).eps]
        if self.rank > len(X) - 2:
            found = f"{len(X)} members for {self.rank} directions"
            raise VariableError("members of a regression", expected="two more than directions in X", found=found)

    @property
    def rank(self) -> int:
        """Directions in X, at most n."""
        return self.Q.shape[1]

    def coordinates(self, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Z (r, p), variance (p)): the linear part of Y (N, p) is Q Z; what a member's rest varies by, squared unit.

        The variance is unbiased, (N−1)/(N−1−r) |Y − Q Z|² by column. Raises VariableError for other members than X's.
        """
        N, r = self.Q.shape
        check_shape("Y", Y.shape[:1], (N,))
        basis = np.column_stack([self.Q, np.full(N, N**-0.5)]).astype(Y.dtype)  # the mean is fitted too
        Z = basis.T @ Y
        rest = Y - basis @ Z
        return Z[:-1], (N - 1.0) / (N - 1.0 - r) * np.einsum("ij,ij->j", rest, rest)

    def project(self, X: ArrayLike) -> np.ndarray:
        """Qᵀ X (r, …): perturbations (N, …) in the filter's coordinates."""
        X = np.asarray(X)
        check_shape("X", X.shape[:1], self.Q.shape[:1])
        return np.tensordot(self.Q.T, X, 1)

    def lift(self, w: np.ndarray) -> np.ndarray:
        """Q w (N, …): weights (r, …) of the filter's coordinates as weights of the members."""
        check_shape("weights in the filter's coordinates", w.shape[:1], (self.rank,))
        return self.Q @ w


class Step(NamedTuple):
    """Where an outer loop goes: the new estimate x (n), its covariance P (n, n), and the cost J predicted there."""

    x: np.ndarray
    P: np.ndarray
    J: float


def gauss_newton(
    total: Total, X: ArrayLike, x: ArrayLike, x_b: ArrayLike, B: ArrayLike, filter: Filter | None = None
) -> Step:
    """One outer loop in control space: H is linear about x with slopes G = (Xᵀ X)⁻¹ Xᵀ Y, the prior stays at x_b.

        J(x′) = ½ (x′ − x_b)ᵀ B⁻¹ (x′ − x_b) + ½ |Gᵀ (x′ − x) − d|² in the norm of R⁻¹

    total          of an ensemble about x, d = y − H(x)
    X (N, n)       its perturbations, over √(N−1), of full rank n
    x, x_b, B      (n) estimate and background; prior covariance (n, n) or variances (n)
    filter         that of the sums, if one was used
    At x = x_b and with Xᵀ X = B this is the mean of `solve`. Raises VariableError for shapes that do not match or an X
    of lower rank, RangeError for numbers not finite or a B that is not positive definite.
    Refs: Rodgers (2000), section 5.3 (the step); Bocquet & Sakov (2014), Q. J. R. Meteorol. Soc. 140, 1521 (outer loops
    of an ensemble); Gu & Oliver (2007).
    """
    X, x, x_b, B = (np.asarray(values, np.float64) for values in (X, x, x_b, B))
    if X.ndim != 2:
        raise VariableError("dims of X", expected="2, members first", found=X.shape)
    for name, values in (("X", X), ("x", x), ("x_b", x_b), ("B", B)):
        check_finite(name, values)
    n = X.shape[1]
    check_shape("x", x.shape, (n,))
    check_shape("x_b", x_b.shape, (n,))
    if filter is not None:
        X = filter.project(X)
    check_shape("c of the totals", total.c.shape, X.shape[:1])
    rank = np.linalg.matrix_rank(_unit_columns(X))
    if rank < n:
        raise VariableError("rank of X", expected=f"{n}, that of all control variables", found=rank)
    Q, S = np.linalg.qr(X)
    P = solve_triangular(S, Q.T)  # (XᵀX)⁻¹ Xᵀ, so that G = P Y
    F, b, L = P @ total.A @ P.T, P @ total.c, _root(B, n)
    u_b = solve_triangular(L, x_b - x, lower=True)  # u: in units of the prior's spread, x′ = x + L u
    C = np.linalg.cholesky(np.eye(n) + L.T @ F @ L)
    u = cho_solve((C, True), L.T @ b + u_b)
    step, spread = L @ u, solve_triangular(C, L.T, lower=True)
    J = 0.5 * float((u - u_b) @ (u - u_b) + step @ F @ step - 2.0 * step @ b + total.e)
    return Step(x + step, spread.T @ spread, J)


def _unit_columns(X: np.ndarray) -> np.ndarray:
    """X with columns of length 1 (or 0), so that its rank does not depend on units."""
    length = np.linalg.norm(X, axis=0)
    return X / np.where(length > 0.0, length, 1.0)


def _root(B: np.ndarray, n: int) -> np.ndarray:
    """L (n, n) with L Lᵀ = B."""
    if B.ndim == 1:
        check_shape("B", B.shape, (n,))
        check_positive("B", B)
        return np.diag(np.sqrt(B))
    check_shape("B", B.shape, (n, n))
    try:
        return np.linalg.cholesky(B)
    except np.linalg.LinAlgError as err:
        found = f"smallest eigenvalue {np.linalg.eigvalsh(B)[0]:g}"
        raise RangeError("B", expected="a positive definite matrix", found=found) from err
