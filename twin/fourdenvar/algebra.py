"""The analysis of one window from A = Y R⁻¹ Yᵀ and c = Y R⁻¹ d: one symmetric eigenproblem of size N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from twin.errors import RangeError, VariableError

if TYPE_CHECKING:
    from twin.fourdenvar.regression import Filter


@dataclass(frozen=True, eq=False)
class Total:
    """What all observations say: A (N, N), c (N), e = dᵀ R⁻¹ d, and how many they are, p."""

    A: np.ndarray
    c: np.ndarray
    e: float
    p: int

    @classmethod
    def of(cls, gram: np.ndarray, p: int) -> Total:
        """From [Y; d] R⁻¹ [Y; d]ᵀ (N+1, N+1), whose last row is that of d."""
        return cls(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), p)


@dataclass(frozen=True, eq=False)
class Solution:
    """The analysis in ensemble space; X below may be of any field the members hold, shape (N, …).

    w (N), T (N, N)    weights of the mean; the symmetric transform (I + A)^−½
    eigenvalues        of A, ascending, one for each direction the observations were summed in
    dofs               degrees of freedom for signal tr[A (I + A)⁻¹] (Rodgers 2000, section 2.4)
    J_prior, J_min     J at w = 0 and at its minimum
    p                  observations
    """

    w: np.ndarray
    T: np.ndarray
    eigenvalues: np.ndarray
    dofs: float
    J_prior: float
    J_min: float
    p: int

    @property
    def chi2(self) -> float:
        """2 J_min / p, 1 on average if B and R are right; NaN without observations.

        It equals dᵀ (R + Yᵀ Y)⁻¹ d / p, the chi-square of the innovations before the analysis.
        Ref: Talagrand (1999), proceedings of the ECMWF workshop on diagnosis of data assimilation systems.
        """
        return 2.0 * self.J_min / self.p if self.p else float("nan")

    def mean(self, x_b: ArrayLike, X: ArrayLike) -> np.ndarray:
        """x_a = x_b + Xᵀ w, in the shape and unit of x_b."""
        return np.asarray(x_b) + np.tensordot(self.w, self._members(X), 1)

    def perturbations(self, X: ArrayLike) -> np.ndarray:
        """X_a = T X, over √(N−1) like X."""
        return np.tensordot(self.T, self._members(X), 1)

    def members(self, x_b: ArrayLike, X: ArrayLike) -> np.ndarray:
        """The posterior members x_a + √(N−1) X_a, (N, …); their mean is x_a if that of X is 0."""
        return self.mean(x_b, X) + np.sqrt(len(self.w) - 1.0) * self.perturbations(X)

    def _members(self, X: ArrayLike) -> np.ndarray:
        X = np.asarray(X)
        check_shape("X", X.shape[:1], self.w.shape)
        return X


def perturbations(members: ArrayLike, about: ArrayLike | None = None) -> np.ndarray:
    """(members − about) / √(N−1), float64, in the shape (N, …) of the members.

    about   (…) the control run's value; the mean of the members if not given
    Raises VariableError with fewer than two members, or if `about` has another shape than a member.
    """
    members = np.asarray(members, np.float64)
    if members.ndim == 0 or len(members) < 2:
        raise VariableError("members", expected="at least two", found=f"shape {members.shape}")
    if about is None:
        about = members.mean(axis=0)
    check_shape("about", np.shape(about), members.shape[1:])
    return (members - about) / np.sqrt(len(members) - 1.0)


def analyse(X: ArrayLike, Y: ArrayLike, d: ArrayLike, R: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Weights w (N) of the analysis x_a = x_b + Xᵀ w and its perturbations X_a (N, n), over √(N−1) like X.

    X (N, n), Y (N, p), d (p)   perturbations of control and observed variables, innovation
    R                           error covariance (p, p), or variances (p), or one variance
    The posterior members are x_a + √(N−1) X_a; without observations w is 0 and X_a is X. Raises VariableError for
    shapes that do not match, RangeError for numbers that are not finite or an R that is not positive definite.
    Refs: Liu et al. (2008), its cost minimised in closed form; Hunt et al. (2007), eq. 20 to 24.
    """
    X, Y, d, R = (np.asarray(values, np.float64) for values in (X, Y, d, R))
    for name, matrix in (("X", X), ("Y", Y)):
        if matrix.ndim != 2:
            raise VariableError(f"dims of {name}", expected="2, members first", found=matrix.shape)
    check_shape("Y", Y.shape, (len(X), *d.shape))
    for name, values in (("X", X), ("Y", Y), ("d", d)):
        check_finite(name, values)
    z = _whitened(np.vstack([Y, d]), R)
    solution = solve(Total.of(z @ z.T, d.size))
    return solution.w, solution.perturbations(X)


def _whitened(z: np.ndarray, R: np.ndarray) -> np.ndarray:
    """L⁻¹ zᵀ transposed, where R = L Lᵀ and z (…, p)."""
    p = z.shape[-1]
    if R.ndim < 2:
        check_shape("R", R.shape, (p,) if R.ndim else ())
        check_positive("R", R)
        return z / np.sqrt(R)
    check_shape("R", R.shape, (p, p))
    check_finite("R", R)
    if (gap := np.abs(R - R.T).max(initial=0.0)) > 1e-10 * np.abs(R).max(initial=0.0):
        raise RangeError("R", expected="a symmetric matrix", found=f"entries that differ by {gap:g}")
    try:
        root = np.linalg.cholesky(R)
    except np.linalg.LinAlgError as err:
        found = f"smallest eigenvalue {np.linalg.eigvalsh(R)[0]:g}"
        raise RangeError("R", expected="a positive definite matrix", found=found) from err
    return solve_triangular(root, z.T, lower=True).T


def solve(total: Total, filter: Filter | None = None) -> Solution:
    """The minimum of J and the transform, from the totals over all observations.

    filter   that of the sums, if one was used: the solution is for all N members again
    T − I is formed from (1 + eigenvalue)^−½ − 1, so that observations without information leave the prior as it is.
    Raises VariableError if the totals are not in the filter's coordinates.
    """
    eigenvalues, V = np.linalg.eigh(total.A)
    rounding = len(V) * np.finfo(np.float64).eps * eigenvalues.max(initial=0.0)
    eigenvalues = np.where(eigenvalues > rounding, eigenvalues, 0.0)  # A is positive semidefinite
    b = V.T @ total.c
    if filter is not None:
        V = filter.lift(V)
    H = V * np.sqrt(-np.expm1(-0.5 * np.log1p(eigenvalues)))
    return Solution(
        w=V @ (b / (1.0 + eigenvalues)),
        T=np.eye(len(V)) - H @ H.T,
        eigenvalues=eigenvalues,
        dofs=float(np.sum(eigenvalues / (1.0 + eigenvalues))),
        J_prior=0.5 * total.e,
        J_min=0.5 * (total.e - float(np.sum(b**2 / (1.0 + eigenvalues)))),
        p=total.p,
    )


def cost(w: np.ndarray, total: Total) -> float:
    """J(w) = ½ wᵀ w + ½ (wᵀ A w − 2 wᵀ c + e), the cost that `solve` minimises; w (N), or (r) of a filter."""
    return 0.5 * float(w @ w + w @ total.A @ w - 2.0 * w @ total.c + total.e)


def gradient(w: np.ndarray, total: Total) -> np.ndarray:
    """∇J(w) = w + A w − c, in the shape of w."""
    return w + total.A @ w - total.c


# --- refused at the door --------------------------------------------------------------------------------------------
def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...], where: str = "") -> None:
    """The shapes are the same; else VariableError."""
    if found != expected:
        raise VariableError(f"shape of {name}", expected=expected, found=found, where=where)


def check_finite(name: str, values: np.ndarray, where: str = "") -> None:
    """Every number is finite; else RangeError with the first that is not."""
    _check(name, values, np.isfinite(values), "finite numbers", where)


def check_positive(name: str, values: np.ndarray, where: str = "") -> None:
    """Every number is finite and above 0; else RangeError with the first that is not."""
    _check(name, values, np.isfinite(values) & (values > 0.0), "finite and > 0", where)


def _check(name: str, values: np.ndarray, good: np.ndarray, expected: str, where: str) -> None:
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), good.shape)
        found = f"{values[at]:g} at {[int(i) for i in at]}, {good.size - int(good.sum())} of {good.size} values"
        raise RangeError(name, expected=expected, found=found, where=where)
