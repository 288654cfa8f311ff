"""4DEnVar against the Kalman analysis, dense matrices, scipy's minimiser and the laws of its statistics."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.optimize import least_squares

from twin.errors import RangeError, VariableError
from twin.fourdenvar import (
    Chunk,
    Filter,
    Sums,
    analyse,
    analyse_stream,
    cost,
    coverage,
    desroziers,
    gaspari_cohn,
    gauss_newton,
    gradient,
    perturbations,
    rank_histogram,
    solve,
    summed,
    total,
)


def covariance(rng: np.random.Generator, n: int) -> np.ndarray:
    """A positive definite matrix (n, n) with eigenvalues of 0.1 and more."""
    root = rng.standard_normal((n, n))
    return root @ root.T / n + 0.1 * np.eye(n)


def with_covariance(rng: np.random.Generator, B: np.ndarray, N: int) -> np.ndarray:
    """Perturbations X (N, n) about 0 with XᵀX = B to rounding: a rotation of its Cholesky factor."""
    U = np.linalg.qr(rng.standard_normal((N, len(B))))[0]
    return U @ np.linalg.cholesky(B).T


def kalman(x_b, B, H, y, R):
    """Mean and covariance of the Kalman analysis, by its gain (Kalman 1960)."""
    K = B @ H.T @ np.linalg.inv(H @ B @ H.T + R)
    return x_b + K @ (y - H @ x_b), B - K @ H @ B


def some_chunks(rng: np.random.Generator, N: int, sizes: list[int], cells: int = 4, offset: float = 0.4) -> list[Chunk]:
    """Chunks of two sensors, the second without offset; cells come in any order and in several chunks."""
    chunks = []
    for i, p in enumerate(sizes):
        numbers = rng.standard_normal((N + 1, p))
        variance, cell = rng.uniform(0.5, 2.0, p), rng.integers(0, cells, p)
        sensor = "AB"[i % 2]
        chunks.append(Chunk((sensor, i), numbers[:-1], numbers[-1], variance, cell, offset * (sensor == "A"), sensor))
    return chunks


def dense(chunks: list[Chunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, d and R (p, p) of all chunks."""
    sensor = np.concatenate([np.full(c.d.shape, c.sensor) for c in chunks])
    cell = np.concatenate([c.cell for c in chunks])
    offset = np.concatenate([np.full(c.d.shape, c.offset) for c in chunks])
    shared = (sensor == sensor[:, None]) & (cell == cell[:, None])
    R = np.diag(np.concatenate([c.variance for c in chunks])) + shared * offset
    return np.hstack([c.Y for c in chunks]), np.concatenate([c.d for c in chunks]), R


def same_bits(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("w", "T", "J_min", "dofs", "eigenvalues")
    )


# --- the analysis ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["one variance", "variances", "dense", "blocks"])
def test_linear_gaussian_is_the_kalman_analysis(kind):
    rng = np.random.default_rng(1)
    n, N, p = 7, 12, 30
    B, H, x_b, y = covariance(rng, n), rng.standard_normal((p, n)), rng.standard_normal(n), rng.standard_normal(p)
    R = {
        "one variance": np.array(0.3),
        "variances": rng.uniform(0.1, 2.0, p),
        "dense": covariance(rng, p),
        "blocks": block_diag(*[np.diag(rng.uniform(0.1, 1.0, p // 3)) + 0.5] * 3),
    }[kind]
    X = with_covariance(rng, B, N)
    w, Xa = analyse(X, X @ H.T, y - H @ x_b, R)
    mean, P = kalman(x_b, B, H, y, R if R.ndim == 2 else np.eye(p) * R)
    np.testing.assert_allclose(x_b + X.T @ w, mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(Xa.T @ Xa, P, rtol=0, atol=1e-10)


def test_gradient_is_that_of_the_cost():
    """[J(w + εh) − J(w)] / (ε hᵀ∇J) → 1 ten times nearer with a step ten times smaller, down to 1 ± 1e-6."""
    rng = np.random.default_rng(2)
    sums = total(map(summed, some_chunks(rng, 9, [30, 20])))
    w, h = rng.standard_normal((2, 9))
    slope = h @ gradient(w, sums)
    steps = 10.0 ** -np.arange(1, 9)
    gaps = np.array([abs((cost(w + eps * h, sums) - cost(w, sums)) / (eps * slope) - 1.0) for eps in steps])
    np.testing.assert_allclose(gaps[1:5], gaps[:4] / 10.0, rtol=0.01)
    assert min(gaps) < 1e-6
    np.testing.assert_allclose(gradient(solve(sums).w, sums), 0.0, atol=1e-12)


def test_cost_is_what_the_formula_says():
    """J(w) = ½ wᵀw + ½ (Yᵀw − d)ᵀ R⁻¹ (Yᵀw − d) with the dense R; chi-square by (R + YᵀY)⁻¹."""
    rng = np.random.default_rng(3)
    chunks = some_chunks(rng, 9, [30, 20, 25])
    Y, d, R = dense(chunks)
    sums = total(map(summed, chunks))
    solution, w = solve(sums), rng.standard_normal(9)
    misfit = Y.T @ w - d
    assert cost(w, sums) == pytest.approx(0.5 * w @ w + 0.5 * misfit @ np.linalg.solve(R, misfit), rel=1e-12)
    assert solution.J_prior == pytest.approx(cost(np.zeros(9), sums), rel=1e-14)
    assert solution.J_min == pytest.approx(cost(solution.w, sums), rel=1e-12)
    assert solution.chi2 == pytest.approx(d @ np.linalg.solve(R + Y.T @ Y, d) / len(d), rel=1e-12)
    gain = Y.T @ np.linalg.solve(np.eye(9) + sums.A, Y) @ np.linalg.inv(R)
    assert solution.dofs == pytest.approx(np.trace(gain), rel=1e-12)


@pytest.mark.parametrize("inflation", [1e6, 1e9, 1e12])
def test_observations_without_information_leave_the_prior(inflation):
    """|x_a − x_b| ≤ |X| |Y| |d| / R and |X_a − X| ≤ ½ |X| |Y|² / R: below 1e-6 with 500 observations at 1e12."""
    rng = np.random.default_rng(4)
    X, Y, d = rng.standard_normal((20, 3)), rng.standard_normal((20, 500)), rng.standard_normal(500)
    w, Xa = analyse(X, Y, d, inflation)
    x, y, innovation = (np.linalg.norm(v) for v in (X, Y, d))
    assert np.linalg.norm(X.T @ w) <= x * y * innovation / inflation <= 2e-2 * 1e6 / inflation
    assert np.linalg.norm(Xa - X) <= 0.5 * x * y**2 / inflation + 1e-15 * x


def test_no_observation_leaves_the_prior_exactly():
    X = np.random.default_rng(5).standard_normal((6, 4))
    for R in (1.0, np.empty(0), np.empty((0, 0))):
        w, Xa = analyse(X, np.empty((6, 0)), np.empty(0), R)
        assert not w.any()
        assert np.array_equal(Xa, X)


def test_all_rejected_leaves_the_prior_and_says_so():
    chunks = some_chunks(np.random.default_rng(6), 6, [0, 0, 0])
    solution = analyse_stream(chunks)
    assert (solution.p, solution.dofs, solution.J_prior, solution.J_min) == (0, 0.0, 0.0, 0.0)
    assert not solution.w.any() and np.array_equal(solution.T, np.eye(6))
    assert np.isnan(solution.chi2)
    with pytest.raises(VariableError, match="sums: expected at least one chunk, though it may be empty, found none"):
        analyse_stream([])


def test_one_observation_is_the_scalar_update():
    """x_a = x_b + cov(x, h)/(var(h) + R) d, and the variance of h falls by the factor R/(var(h) + R)."""
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((8, 3)), rng.standard_normal((8, 1))
    variance = (Y**2).sum()
    w, Xa = analyse(np.hstack([X, Y]), Y, np.array([0.7]), 0.2)
    np.testing.assert_allclose(X.T @ w, X.T @ Y[:, 0] / (variance + 0.2) * 0.7, rtol=1e-12)
    assert (Xa[:, 3] ** 2).sum() == pytest.approx(variance * 0.2 / (variance + 0.2), rel=1e-12)


def test_members_have_the_mean_and_covariance_of_the_analysis():
    rng = np.random.default_rng(8)
    field = rng.standard_normal((40, 4, 5))  # member, layer, cell
    X, x_b = perturbations(field), field.mean(axis=0)
    chunk = replace(some_chunks(rng, 40, [60])[0], Y=perturbations(rng.standard_normal((40, 60))))
    solution = analyse_stream([chunk])
    members = solution.members(x_b, X)
    assert members.shape == field.shape
    np.testing.assert_allclose(members.mean(axis=0), solution.mean(x_b, X), atol=1e-12)
    np.testing.assert_allclose(perturbations(members), solution.perturbations(X), atol=1e-12)
    assert np.array_equal(solution.T, solution.T.T)
    assert (members.std(axis=0) < field.std(axis=0)).all()


def test_perturbations_are_about_the_control_run_if_told():
    members = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])
    np.testing.assert_allclose(perturbations(members, about=[1.0, 2.0]), (members - [1.0, 2.0]) / np.sqrt(2.0))
    np.testing.assert_allclose(perturbations(members).T @ perturbations(members), np.cov(members.T))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_degrees_of_freedom_are_no_more_than_parameters_or_observations(N, n, p, seed):
    rng = np.random.default_rng(seed)
    Y = rng.standard_normal((N, n)) @ rng.standard_normal((n, p)) * 1e3
    dofs = analyse_stream([Chunk((0,), Y, np.ones(p), np.full(p, 1e-2), np.arange(p), 0.0, "A")]).dofs
    assert 0.0 <= dofs <= min(n, p, N) + 1e-9


def test_chi_square_is_one_if_errors_are_as_they_are_said_to_be():
    """E[2 J_min] = p; its variance is 2 p, so 200 windows of 40 observations know it to 1.6 %: four of these."""
    rng = np.random.default_rng(9)
    Y = rng.standard_normal((10, 40))
    R = np.diag(rng.uniform(0.5, 2.0, 40)) + 0.5
    errors = rng.standard_normal((200, 40)) @ np.linalg.cholesky(R + Y.T @ Y).T
    chi2 = [analyse_stream([Chunk((0,), Y, d, np.diag(R) - 0.5, np.zeros(40, int), 0.5, "A")]).chi2 for d in errors]
    assert np.mean(chi2) == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / (40 * 200)))


# --- streamed -------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_streamed_is_dense(sizes, cells, seed):
    """Offsets of any cell over any chunks: the same as with the dense R, to 1e-12."""
    rng = np.random.default_rng(seed)
    chunks, X = some_chunks(rng, 9, sizes, cells), rng.standard_normal((9, 4))
    solution, (w, Xa) = analyse_stream(chunks), analyse(X, *dense(chunks))
    np.testing.assert_allclose(solution.w, w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(solution.perturbations(X), Xa, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ordered", [True, False])
def test_long_chunks_are_whitened_cell_by_cell(ordered):
    """20,000 observations of 7 cells against the whitening v − [1 − (1 + n s_b²/s²)^−½] mean(v), one variance s²."""
    rng = np.random.default_rng(10)
    p, s2, offset = 20_000, 0.5, 0.3
    Y, d, cell = 0.02 * rng.standard_normal((5, p)), rng.standard_normal(p), rng.integers(0, 7, p)
    cell = np.sort(cell) if ordered else cell
    z = np.vstack([Y, d])
    for c in range(7):
        n = (cell == c).sum()
        z[:, cell == c] -= (1.0 - (1.0 + n * offset / s2) ** -0.5) * z[:, cell == c].mean(axis=1, keepdims=True)
    w, T = analyse(np.eye(5), z[:-1], z[-1], s2)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6)):
        solution = analyse_stream([Chunk((0,), Y.astype(dtype), d, np.full(p, s2), cell, offset, "A")])
        np.testing.assert_allclose(solution.w, w, rtol=0, atol=tolerance)
        np.testing.assert_allclose(solution.T, T, rtol=0, atol=tolerance)


def test_chunks_in_any_order_give_the_same_bits():
    rng = np.random.default_rng(11)
    parts = [summed(chunk) for chunk in some_chunks(rng, 9, [30, 1, 0, 17, 25, 8, 40])]
    first = solve(total(parts))
    assert all(same_bits(solve(total([parts[i] for i in rng.permutation(7)])), first) for _ in range(10))


def test_a_late_item_replaces_one_chunk_and_gives_the_bits_of_a_new_start():
    rng = np.random.default_rng(12)
    before = some_chunks(rng, 9, [30, 12, 20, 25])
    late = replace(some_chunks(rng, 9, [33])[0], key=before[2].key)
    kept = {part.key: part for part in map(summed, before)}
    kept[late.key] = summed(late)
    assert same_bits(solve(total(kept.values())), analyse_stream([before[3], late, before[0], before[1]]))


def test_sums_come_back_from_a_file_bit_for_bit():
    parts = [summed(chunk) for chunk in some_chunks(np.random.default_rng(13), 9, [30, 12, 0])]
    stored = []
    for part in parts:
        file = io.BytesIO()
        np.savez(file, **part.to_arrays())
        file.seek(0)
        stored.append(Sums.from_arrays(np.load(file)))
    assert [(s.key, s.sensor, s.offset, s.p) for s in stored] == [(s.key, s.sensor, s.offset, s.p) for s in parts]
    assert same_bits(solve(total(stored)), solve(total(parts)))


@pytest.mark.parametrize(("offset", "tolerance"), [(1e10, 1e-8), (np.inf, 1e-12)])
def test_with_an_offset_of_any_size_only_what_differs_from_the_cells_mean_counts(offset, tolerance):
    chunk = some_chunks(np.random.default_rng(14), 9, [80], offset=offset)[0]
    z = np.vstack([chunk.Y, chunk.d])
    for c in range(4):
        at = chunk.cell == c
        z[:, at] -= np.average(z[:, at], axis=1, weights=1.0 / chunk.variance[at])[:, None]
    w, T = analyse(np.eye(9), z[:-1], z[-1], chunk.variance)
    np.testing.assert_allclose(analyse_stream([chunk]).w, w, rtol=0, atol=tolerance)
    np.testing.assert_allclose(analyse_stream([chunk]).T, T, rtol=0, atol=tolerance)


# --- localisation ---------------------------------------------------------------------------------------------------
def test_weights_scale_the_inverse_of_r():
    """1 keeps a chunk and 0 drops it; between, all of a sensor's R is divided by its weight, offsets included."""
    chunks = some_chunks(np.random.default_rng(15), 9, [30, 20, 25])
    parts, keys = [summed(chunk) for chunk in chunks], [chunk.key for chunk in chunks]
    assert same_bits(solve(total(parts, dict.fromkeys(keys, 1.0))), solve(total(parts)))
    dropped = total(parts, {keys[0]: 1.0, keys[1]: 1.0, keys[2]: 0.0})
    assert same_bits(solve(dropped), solve(total(parts[:2]))) and dropped.p == 50
    assert total(parts, dict.fromkeys(keys, 0.0)).p == 0
    Y, d, R = dense(chunks)
    of_a = np.concatenate([np.full(chunk.d.shape, chunk.sensor == "A") for chunk in chunks])
    w, T = analyse(np.eye(9), Y, d, np.where(of_a[:, None] & of_a, R / 0.3, R / 0.9))
    solution = solve(total(parts, {keys[0]: 0.3, keys[1]: 0.9, keys[2]: 0.3}))
    np.testing.assert_allclose(solution.w, w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(solution.T, T, rtol=0, atol=1e-12)


def test_gaspari_cohn_is_the_convolution_of_a_cone_with_itself():
    """Gaspari & Cohn (1999), section 4.3: (1 − |x|/c)₊ convolved in three dimensions, here by midpoints to 1e-4."""
    h = 0.01
    along, across = np.meshgrid(np.arange(-1 + h / 2, 3, h), np.arange(h / 2, 1, h), indexing="ij")

    def cone(x):
        return np.maximum(1.0 - np.hypot(along - x, across), 0.0)

    r = np.array([0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 1.7, 2.0])
    overlap = np.array([(cone(0.0) * cone(x) * across).sum() for x in r])
    np.testing.assert_allclose(gaspari_cohn(r), overlap / overlap[0], atol=1e-4)
    np.testing.assert_allclose(gaspari_cohn([0.0, 1.0, 2.0, 5.0]), [1.0, 5.0 / 24.0, 0.0, 0.0], atol=1e-15)
    assert (np.diff(gaspari_cohn(np.linspace(0.0, 3.0, 1000))) <= 0.0).all()


def test_gaspari_cohn_makes_positive_matrices():
    points = np.random.default_rng(16).uniform(0.0, 5.0, (300, 3))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    assert np.linalg.eigvalsh(gaspari_cohn(distance))[0] > -1e-12


# --- regression -----------------------------------------------------------------------------------------------------
def test_the_filter_keeps_a_linear_operator_as_it_is():
    rng = np.random.default_rng(17)
    members, H = rng.standard_normal((20, 5)), rng.standard_normal((5, 60))
    members[:, 4] = members[:, 0] - 2.0 * members[:, 1]  # a direction less
    X = perturbations(members)
    filter = Filter(X)
    Z, rest = filter.coordinates(X @ H + 3.0)  # whatever they are about
    assert filter.rank == 4
    np.testing.assert_allclose(filter.lift(Z), X @ H, atol=1e-12)
    np.testing.assert_allclose(rest, 0.0, atol=1e-24)
    chunk = replace(some_chunks(rng, 20, [60])[0], Y=X @ H)
    plain, filtered = analyse_stream([chunk]), analyse_stream([chunk], filter)
    np.testing.assert_allclose(filtered.w, plain.w, atol=1e-12)
    np.testing.assert_allclose(filtered.T, plain.T, atol=1e-12)
    assert filtered.dofs == pytest.approx(plain.dofs, rel=1e-10)


def test_the_filter_gives_the_variance_of_what_is_not_linear():
    """x + a x² of a Gaussian x: x² is not correlated with x, so the rest varies by a² var(x²) = 2 a² σ⁴."""
    rng = np.random.default_rng(18)
    a, sigma = 0.7, 0.6
    x = sigma * rng.standard_normal((40_000, 1))
    Z, rest = Filter(perturbations(x)).coordinates(perturbations(x + a * x**2))
    assert rest[0] == pytest.approx(2.0 * a**2 * sigma**4, rel=0.05)  # kurtosis of x²: 4 standard errors
    assert (Z**2).sum() == pytest.approx(sigma**2, rel=0.05)


def test_the_filter_takes_noise_for_noise_whatever_the_number_of_members():
    """Rest of unit variance on 10 members and 4 slopes: unbiased, to 4 standard errors √(2/5/4000) = 4 %."""
    rng = np.random.default_rng(19)
    X = perturbations(rng.standard_normal((10, 4)))
    _, rest = Filter(X).coordinates(perturbations(X @ rng.standard_normal((4, 4000)) + rng.standard_normal((10, 4000))))
    assert rest.mean() == pytest.approx(1.0, abs=0.04)


def test_filtered_sums_are_those_of_the_linear_part_with_a_larger_error():
    rng = np.random.default_rng(20)
    filter = Filter(rng.standard_normal((30, 4)))
    chunks = some_chunks(rng, 30, [40, 25, 35])
    kept = []
    for chunk in chunks:
        Z, rest = filter.coordinates(chunk.Y)
        kept.append(replace(chunk, Y=filter.lift(Z), variance=chunk.variance + rest))
    filtered, plain = analyse_stream(chunks, filter), analyse_stream(kept)
    np.testing.assert_allclose(filtered.w, plain.w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(filtered.T, plain.T, rtol=0, atol=1e-12)
    assert summed(chunks[0], filter).gram.shape == (5, 5)
    assert filtered.dofs <= 4.0


def test_an_outer_loop_of_a_linear_model_is_the_kalman_analysis_from_wherever_it_starts():
    rng = np.random.default_rng(21)
    n, N = 5, 12
    B, x_b, x = covariance(rng, n), rng.standard_normal(n), rng.standard_normal(n)
    X = rng.standard_normal((N, n))  # of another spread than B's
    y, chunk = rng.standard_normal(40), some_chunks(rng, N, [40])[0]
    H = rng.standard_normal((40, n))
    chunk = replace(chunk, Y=X @ H.T, d=y - H @ x)
    _, _, R = dense([chunk])
    mean, P = kalman(x_b, B, H, y, R)
    for filter in (None, Filter(X)):
        step = gauss_newton(total([summed(chunk, filter)]), X, x, x_b, B, filter)
        np.testing.assert_allclose(step.x, mean, rtol=0, atol=1e-10)
        np.testing.assert_allclose(step.P, P, rtol=0, atol=1e-10)
        J = (mean - x_b) @ np.linalg.solve(B, mean - x_b) + (y - H @ mean) @ np.linalg.solve(R, y - H @ mean)
        np.testing.assert_allclose(step.J, 0.5 * J, rtol=1e-10)


def test_the_first_outer_loop_of_an_exact_ensemble_is_the_analysis():
    rng = np.random.default_rng(22)
    B, x_b, chunk = np.diag(rng.uniform(0.5, 2.0, 4)), rng.standard_normal(4), some_chunks(rng, 12, [50])[0]
    X = with_covariance(rng, B, 12)
    chunk = replace(chunk, Y=X @ rng.standard_normal((4, 50)))
    sums = total([summed(chunk)])
    step, solution = gauss_newton(sums, X, x_b, x_b, np.diag(B)), solve(sums)
    np.testing.assert_allclose(step.x, solution.mean(x_b, X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(step.P, solution.perturbations(X).T @ solution.perturbations(X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(step.J, solution.J_min, rtol=1e-12)


def test_outer_loops_end_at_the_minimum_that_scipy_finds():
    """h(x) = Hx + ¼ (Hx)²: where the first pass ends is not yet it; where the loops end is, to 1e-8."""
    rng = np.random.default_rng(23)
    n, p = 3, 40
    H, x_b, B = 0.5 * rng.standard_normal((p, n)), np.zeros(n), np.full(n, 0.8)

    def h(x):
        return H @ x + 0.25 * (H @ x) ** 2

    y = h(rng.standard_normal(n)) + 0.1 * rng.standard_normal(p)
    variance = np.full(p, 0.01)
    best = least_squares(
        lambda x: np.concatenate([(x - x_b) / np.sqrt(B), (h(x) - y) / 0.1]), x_b, xtol=1e-15, ftol=1e-15, gtol=1e-12
    )
    x, estimates = x_b, []
    for _ in range(12):
        half = 0.05 * rng.standard_normal((6, n))
        members = x + np.concatenate([half, -half])  # pairs: the slope of a parabola, exactly
        X, Y = perturbations(members, about=x), perturbations([h(member) for member in members], about=h(x))
        sums = total([summed(Chunk((0,), Y, y - h(x), variance, np.arange(p), 0.0, "A"))])
        step = gauss_newton(sums, X, x, x_b, B)
        x = step.x
        estimates.append(x)
    assert np.abs(estimates[0] - best.x).max() > 1e-3
    np.testing.assert_allclose(x, best.x, rtol=0, atol=1e-8)
    np.testing.assert_allclose(step.J, best.cost, rtol=1e-8)


# --- diagnostics ----------------------------------------------------------------------------------------------------
def test_desroziers_finds_the_variances_of_a_simulated_case():
    """Two sensors over two biomes, 50,000 each: variances of errors and of offsets, to 5 % (6 standard errors)."""
    rng = np.random.default_rng(24)
    cells, times = 12_500, 4
    frames = []
    for sensor, R, B, offset in (("A", 0.3, 1.0, 0.0), ("B", 0.8, 0.5, 2.0)):
        shift = np.sqrt(offset) * rng.standard_normal((cells, 1))
        error = np.sqrt(R + B) * rng.standard_normal((cells, times))
        d_a = error * R / (R + B) + shift  # the optimal gain B/(R + B), by anomalies
        cell = np.broadcast_to(np.arange(cells)[:, None], error.shape)
        frames.append([np.ravel(v) for v in (error + shift, d_a, cell, np.full(error.shape, sensor), cell % 2)])
    d_b, d_a, cell, sensor, biome = (np.concatenate(v) for v in zip(*frames, strict=True))
    table = desroziers(d_b, d_a, cell, {"sensor": sensor})
    assert table.loc["A", ["p", "cells"]].tolist() == [50_000, 12_500]
    for name, R, B, offset in (("A", 0.3, 1.0, 0.0), ("B", 0.8, 0.5, 2.0)):
        row = table.loc[name]
        assert row.observation_anomaly == pytest.approx(R, rel=0.05)
        assert row.background_anomaly == pytest.approx(B, rel=0.05)
        assert row.observation == pytest.approx(R + offset, rel=0.05)
        assert row.background == pytest.approx(B, rel=0.1)  # the offsets add noise to it
    by_biome = desroziers(d_b, d_a, cell, {"sensor": sensor, "biome": biome})
    assert by_biome.p.tolist() == [25_000] * 4
    assert np.isnan(desroziers(d_b[:3], d_a[:3], np.arange(3), {"sensor": sensor[:3]}).observation_anomaly.iloc[0])


def test_rank_histogram_is_flat_for_a_calibrated_ensemble_and_a_u_for_one_too_sure():
    rng = np.random.default_rng(25)
    centre, members = rng.standard_normal(20_000), rng.standard_normal((19, 20_000))
    y = centre + rng.standard_normal(20_000) + 0.5 * rng.standard_normal(20_000)
    counts, p_value = rank_histogram(centre + members, y, 0.25, rng)
    assert counts.sum() == 20_000 and len(counts) == 20
    assert p_value > 0.01
    counts, p_value = rank_histogram(centre + 0.5 * members, y, 0.25, rng)
    assert p_value < 1e-10
    assert min(counts[0], counts[-1]) > 1.5 * counts[1:-1].mean()
    dry = rank_histogram(np.zeros((19, 20_000)), np.zeros(20_000), 0.0, rng)  # every day, forecast by all
    assert dry[1] > 0.01


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_the_level_for_a_calibrated_ensemble(level):
    """40,000 observations: four standard errors are 0.01."""
    rng = np.random.default_rng(26)
    members, y = rng.standard_normal((25, 40_000)), np.sqrt(1.5) * rng.standard_normal(40_000)
    assert coverage(members, y, 0.5, rng, level) == pytest.approx(level, abs=0.01)
    assert coverage(0.5 * members, y, 0.5, rng, level) < level - 0.1
    with pytest.raises(RangeError, match=r"level: expected above 0, at most 0\.8 for 9 members, found 0\.9"):
        coverage(members[:9], y, 0.5, rng)


# --- refused at the door --------------------------------------------------------------------------------------------
X, Y, D = np.ones((3, 2)), np.ones((3, 4)), np.ones(4)
NAN = np.array([1.0, np.nan, 2.0, np.inf])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, np.ones((2, 4)), D, 1.0), VariableError, r"shape of Y: expected \(3, 4\), found \(2, 4\)"),
        ((X, Y, np.ones(5), 1.0), VariableError, r"shape of Y: expected \(3, 5\), found \(3, 4\)"),
        ((X, Y, D, np.ones(3)), VariableError, r"shape of R: expected \(4,\), found \(3,\)"),
        ((X, Y, D, np.ones((4, 3))), VariableError, r"shape of R: expected \(4, 4\), found \(4, 3\)"),
        ((np.ones(3), Y, D, 1.0), VariableError, r"dims of X: expected 2, members first, found \(3,\)"),
        ((X, Y, NAN, 1.0), RangeError, r"d: expected finite numbers, found nan at \[1\], 2 of 4 values"),
        ((X, Y * NAN, D, 1.0), RangeError, r"Y: expected finite numbers, found nan at \[0, 1\], 6 of 12 values"),
        ((X, Y, D, 0.0), RangeError, r"R: expected finite and > 0, found 0 at \[\], 1 of 1 values"),
        ((X, Y, D, -D), RangeError, r"R: expected finite and > 0, found -1 at \[0\], 4 of 4 values"),
        (
            (X, Y, D, np.ones((4, 4)) - 2 * np.eye(4)),
            RangeError,
            "R: expected a positive definite matrix, found smallest",
        ),
        (
            (X, Y, D, np.triu(np.ones((4, 4)))),
            RangeError,
            "R: expected a symmetric matrix, found entries that differ by 1",
        ),
    ],
)
def test_analyse_refuses_and_shows_both_sides(arguments, error, message):
    with pytest.raises(error, match=message):
        analyse(*arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"d": np.ones(5)}, VariableError, r"shape of d: expected \(4,\), found \(5,\) \(chunk \('A', 0\)\)"),
        ({"d": NAN}, RangeError, r"d: expected finite numbers, found nan at \[1\], 2 of 4 values \(chunk"),
        ({"variance": np.zeros(4)}, RangeError, "variance: expected finite and > 0, found 0"),
        ({"cell": np.ones(4)}, VariableError, "type of cell: expected integers, found float64"),
        ({"offset": -0.1}, RangeError, r"offset variance: expected 0 or more, found -0\.1"),
        ({"Y": np.ones(4)}, VariableError, r"dims of Y: expected 2, members first, found \(4,\)"),
        ({"Y": Y * NAN}, RangeError, r"Y: expected finite numbers, found nan at \[0, 1\], 6 of 12 values \(chunk"),
        ({"Y": 1e200 * Y}, RangeError, "Y: expected numbers with finite squares, found up to 1e\\+200"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value) encountered:RuntimeWarning")
def test_a_chunk_refuses_and_names_itself(change, error, message):
    chunk = Chunk(("A", 0), Y, D, D, np.zeros(4, int), 0.1, "A")
    with pytest.raises(error, match=message):
        summed(replace(chunk, **change))


def test_totals_refuse_what_would_count_wrongly():
    chunks = some_chunks(np.random.default_rng(27), 5, [10, 10, 10])
    parts = [summed(chunk) for chunk in chunks]
    with pytest.raises(VariableError, match=r"key of a chunk: expected unique, found \('A', 0\) twice"):
        total([*parts, parts[0]])
    with pytest.raises(VariableError, match=r"shape of sums: expected \(6, 6\), found \(5, 5\) \(chunk \('B', 9\)\)"):
        total([*parts, summed(Chunk(("B", 9), np.ones((4, 3)), D[:3], D[:3], np.zeros(3, int), 0.0, "B"))])
    with pytest.raises(RangeError, match=r"offset variance of a cell: expected 0\.4 as in another chunk, found 0\.5"):
        total([*parts, replace(parts[0], key=("A", 9), offset=0.5)])
    weights = {part.key: 1.0 for part in parts}
    with pytest.raises(RangeError, match=r"weight of a cell: expected 1 as in another chunk, found 0\.5"):
        total(parts, weights | {parts[2].key: 0.5})
    with pytest.raises(RangeError, match=r"weight: expected 0 to 1, found 1\.5"):
        total(parts, weights | {parts[2].key: 1.5})
    with pytest.raises(VariableError, match=r"weights: expected one for chunk \('B', 1\), found none"):
        total(parts, {parts[0].key: 1.0, parts[2].key: 1.0})


def test_regression_refuses_what_it_cannot_tell():
    rng = np.random.default_rng(28)
    with pytest.raises(VariableError, match="expected two more than directions in X, found 6 members for 5 directions"):
        Filter(rng.standard_normal((6, 8)))
    sums = total([summed(some_chunks(rng, 6, [10])[0])])
    with pytest.raises(VariableError, match="rank of X: expected 8, that of all control variables, found 6"):
        gauss_newton(sums, rng.standard_normal((6, 8)), np.zeros(8), np.zeros(8), np.ones(8))
    with pytest.raises(RangeError, match="B: expected a positive definite matrix, found smallest eigenvalue -1"):
        gauss_newton(sums, rng.standard_normal((6, 2)), np.zeros(2), np.zeros(2), -np.eye(2))
    with pytest.raises(VariableError, match=r"weights in the filter's coordinates: expected \(2,\), found \(6,\)"):
        solve(sums, Filter(rng.standard_normal((6, 2))))
    with pytest.raises(VariableError, match="members: expected at least two"):
        perturbations([1.0])
    with pytest.raises(RangeError, match="distance: expected 0 or more, found -1"):
        gaspari_cohn([0.0, -1.0])
