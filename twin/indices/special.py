"""The special functions that standardised indices live on, in plain arithmetic so that loops over cells vectorise.

    log_gamma        ln Γ(a)              Stirling's series after eight steps of the recurrence   DLMF 5.5.1, 5.11.1
    gamma_tails      P(a, x), Q(a, x)     series below a + SPLIT, continued fraction above          DLMF 8.11.4, 8.9.2
                                          uniform expansion for a above LARGE                     DLMF 8.12.3–8.12.10
    beta_tails       I_x(a, b), 1 − I     continued fraction, from the nearer end                 DLMF 8.17.4, 8.17.22
    normal_quantile  Φ⁻¹                  rational functions                          Wichura (1988), AS 241
    normal_cdf       Φ                    the C library's erfc

Both tails of a probability travel together: one near 1 says nothing of how rare a value is, its complement does.
A value's result does not depend on which values are computed beside it.
"""

from __future__ import annotations

from math import erfc, exp, log, pi, sqrt
from typing import Any

import numpy as np

from twin.land.compiled import compiled, exp2, log2

LANES = 16  # values that are iterated together: two of the widest vectors
SPLIT = 6.0  # x above the shape from which the continued fraction converges faster than the series
LARGE = 1000.0  # shape from which the uniform expansion takes over
GROUP = 8  # terms between two divisions
ROWS, BETA_ROWS = 10, 9  # of numbers by lane
_LN2 = log(2.0)
_HALF_LOG_2PI = 0.5 * log(2.0 * pi)
_SMALLEST = 1e-300


def log_gamma(a: Any) -> np.ndarray:
    """ln Γ(a), float64, shape of `a`, for a from 1e-300 to 1e30; relative or absolute error < 1e-13."""
    return _each(_log_gammas, 1, a)[0]


def gamma_tails(a: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """(P(a, x), Q(a, x)), regularised incomplete gamma functions, of shapes that broadcast; absolute error < 1e-10.

    a > 0; x below 0 counts as 0. NaN where either is.
    """
    lower, upper = _each(_gamma_tails, 2, a, x)
    return lower, upper


def beta_tails(a: Any, b: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """(I_x(a, b), 1 − I_x(a, b)), regularised incomplete beta function, of shapes that broadcast; error < 1e-10.

    a, b > 0, up to 1e5; x is held within 0..1. NaN where one is.
    """
    lower, upper = _each(_beta_tails, 2, a, b, x)
    return lower, upper


def normal_quantile(lower: Any, upper: Any = None) -> np.ndarray:
    """z with Φ(z) = `lower`, and 1 − Φ(z) = `upper` where that is known better; relative error < 1e-13; NaN stays."""
    lower = np.asarray(lower, np.float64)
    return _each(_normal_quantiles, 1, lower, 1.0 - lower if upper is None else upper)[0]


def normal_cdf(z: Any) -> np.ndarray:
    """Φ(z), float64, shape of `z`."""
    return _each(_normal_cdfs, 1, z)[0]


def _each(kernel: Any, results: int, *arguments: Any) -> list[np.ndarray]:
    """What a kernel over flat float64 arrays gives for arguments that broadcast."""
    whole = np.broadcast_arrays(*[np.asarray(argument, np.float64) for argument in arguments])
    found = [np.empty(whole[0].shape) for _ in range(results)]
    kernel(*[np.ascontiguousarray(argument).reshape(-1) for argument in whole], *[out.reshape(-1) for out in found])
    return found


@compiled
def _log_gammas(a, out):
    for i in range(a.size):
        out[i] = _log_gamma(a[i])


@compiled
def _normal_quantiles(lower, upper, out):
    for i in range(lower.size):
        out[i] = quantile(lower[i], upper[i])


@compiled
def _normal_cdfs(z, out):
    for i in range(z.size):
        out[i] = _normal(z[i])


@compiled
def _log_gamma(a):
    """ln Γ(a), a > 0."""
    product = a * (a + 1.0) * (a + 2.0) * (a + 3.0) * (a + 4.0) * (a + 5.0) * (a + 6.0) * (a + 7.0)
    z = a + 8.0
    r = 1.0 / z
    s = r * r
    series = r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * (1 / 1188)))))
    return (z - 0.5) * (_LN2 * log2(z)) - z + _HALF_LOG_2PI + series - _LN2 * log2(max(product, _SMALLEST))


@compiled
def _normal(z):
    return 0.5 * erfc(-z / sqrt(2.0))


@compiled
def quantile(lower, upper):
    """z of a probability and its complement; ±37 where one of them is 0."""
    q = 0.5 * (lower - upper)
    r = 0.180625 - q * q
    top = 2.5090809287301226727e3
    top = top * r + 3.3430575583588128105e4
    top = top * r + 6.7265770927008700853e4
    top = top * r + 4.5921953931549871457e4
    top = top * r + 1.3731693765509461125e4
    top = top * r + 1.9715909503065514427e3
    top = top * r + 1.3314166789178437745e2
    top = top * r + 3.3871328727963666080
    low = 5.2264952788528545610e3
    low = low * r + 2.8729085735721942674e4
    low = low * r + 3.9307895800092710610e4
    low = low * r + 2.1213794301586595867e4
    low = low * r + 5.3941960214247511077e3
    low = low * r + 6.8718700749205790830e2
    low = low * r + 4.2313330701600911252e1
    low = low * r + 1.0
    middle = q * top / low
    tail = upper if upper < lower else lower
    root = sqrt(-_LN2 * log2(min(max(tail, _SMALLEST), 0.5)))
    r = root - 1.6
    top = 7.74545014278341407640e-4
    top = top * r + 2.27238449892691845833e-2
    top = top * r + 2.41780725177450611770e-1
    top = top * r + 1.27045825245236838258
    top = top * r + 3.64784832476320460504
    top = top * r + 5.76949722146069140550
    top = top * r + 4.63033784615654529590
    top = top * r + 1.42343711074968357734
    low = 1.05075007164441684324e-9
    low = low * r + 5.47593808499534494600e-4
    low = low * r + 1.51986665636164571966e-2
    low = low * r + 1.48103976427480074590e-1
    low = low * r + 6.89767334985100004550e-1
    low = low * r + 1.67638483018380384940
    low = low * r + 2.05319162663775882187
    low = low * r + 1.0
    near = top / low
    r = root - 5.0
    top = 2.01033439929228813265e-7
    top = top * r + 2.71155556874348757815e-5
    top = top * r + 1.24266094738807843860e-3
    top = top * r + 2.65321895265761230930e-2
    top = top * r + 2.96560571828504891230e-1
    top = top * r + 1.78482653991729133580
    top = top * r + 5.46378491116411436990
    top = top * r + 6.65790464350110377720
    low = 2.04426310338993978564e-15
    low = low * r + 1.42151175831644588870e-7
    low = low * r + 1.84631831751005468180e-5
    low = low * r + 7.86869131145613259100e-4
    low = low * r + 1.48753612908506148525e-2
    low = low * r + 1.36929880922735805310e-1
    low = low * r + 5.99832206555887937690e-1
    low = low * r + 1.0
    far = near if root <= 5.0 else top / low
    far = far if upper < lower else -far
    z = middle if abs(q) <= 0.425 else far
    return z if lower == lower and upper == upper else np.nan


@compiled
def _gamma_tails(a, x, lower, upper):
    """P and Q of every (a, x), LANES at a time; both expansions run until the slowest lane of a block has converged."""
    room = np.empty((ROWS, LANES))
    shape, value, front, series, fraction = room[0], room[1], room[2], room[3], room[4]
    for first in range(0, a.size, LANES):
        n = min(LANES, a.size - first)
        beyond = 0
        for i in range(LANES):
            j = first + min(i, n - 1)
            known = a[j] <= LARGE and x[j] > 0.0  # false for NaN
            shape[i] = a[j] if known else 1.0
            value[i] = min(x[j], 1e5) if known else 1.0
            beyond += value[i] >= shape[i] + SPLIT
        for i in range(LANES):
            front[i] = exp2(shape[i] * log2(value[i]) - (value[i] + _log_gamma(shape[i])) / _LN2)
        if beyond < LANES:
            _series(shape, value, series, room)
        if beyond > 0:
            _fraction(shape, value, fraction, room)
        for i in range(n):
            j = first + i
            if value[i] < shape[i] + SPLIT:
                p = min(front[i] / shape[i] * series[i], 1.0)
                q = 1.0 - p
            else:
                q = min(front[i] * fraction[i], 1.0)
                p = 1.0 - q
            if not (a[j] <= LARGE and x[j] > 0.0):
                p, q = _otherwise(a[j], x[j])
            lower[j], upper[j] = p, q


@compiled
def _series(a, x, s, room):
    """s = Σ xᵏ/((a + 1)…(a + k)), for x < a + SPLIT (lanes beyond as if there); added to until nothing changes.

    GROUP terms share one division: their sum is num/den.
    """
    y, c, power, num, den = room[5], room[6], room[7], room[8], room[9]
    for i in range(LANES):
        y[i], c[i], power[i], s[i] = min(x[i], a[i] + SPLIT), a[i], 1.0, 1.0
    more = 1.0
    while more > 0.0:
        for i in range(LANES):
            num[i], den[i] = 0.0, 1.0
        for _ in range(GROUP):
            for i in range(LANES):
                c[i] += 1.0
                power[i] *= y[i]
                num[i] = num[i] * c[i] + power[i]
                den[i] *= c[i]
        more = 0.0
        for i in range(LANES):
            scale = 1.0 / den[i]
            power[i] *= scale  # the last term; those after it add up to less than four of it
            s[i] += num[i] * scale
            more = max(more, power[i] - 1e-17 * s[i])


@compiled
def _fraction(a, x, f, room):
    """f = Γ(a, x) eˣ x⁻ᵃ as 1/(x+1−a − 1(1−a)/(x+3−a − …)), for x ≥ a + SPLIT (lanes below as if there).

    Numerators and denominators of the convergents by their recurrence, scaled once in GROUP steps; a lane that has
    converged is left as it is.
    """
    b, p, q, p_before, q_before = room[5], room[6], room[7], room[8], room[9]
    for i in range(LANES):
        b[i] = max(x[i], a[i] + SPLIT) + 1.0 - a[i]
        p_before[i], q_before[i] = 0.0, 1.0
        p[i], q[i] = 1.0, b[i]
        f[i] = -1.0  # the sign says that it has not converged
    m, more = 0.0, 1.0
    while more > 0.0 and m < 2000.0:
        for _ in range(GROUP):
            m += 1.0
            for i in range(LANES):
                c = m * (a[i] - m)
                b[i] += 2.0
                p_next, q_next = b[i] * p[i] + c * p_before[i], b[i] * q[i] + c * q_before[i]
                p_before[i], q_before[i], p[i], q[i] = p[i], q[i], p_next, q_next
        more = 0.0
        for i in range(LANES):
            scale = 1.0 / q[i]
            p[i], p_before[i], q_before[i] = p[i] * scale, p_before[i] * scale, q_before[i] * scale
            q[i] = 1.0
            settled = abs(p[i] * q_before[i] - p_before[i]) <= 1e-14 * p[i] * abs(q_before[i])
            f[i] = f[i] if f[i] > 0.0 else (p[i] if settled else -p[i])
            more = max(more, -f[i])
    for i in range(LANES):
        f[i] = abs(f[i])


@compiled
def _beta_tails(a, b, x, lower, upper):
    """I_x and its complement of every (a, b, x), LANES at a time."""
    room = np.empty((BETA_ROWS, LANES))
    one, other, value, front, fraction = room[0], room[1], room[2], room[3], room[4]
    for first in range(0, a.size, LANES):
        n = min(LANES, a.size - first)
        for i in range(LANES):
            j = first + min(i, n - 1)
            known = x[j] > 0.0 and x[j] < 1.0 and a[j] == a[j] and b[j] == b[j]
            one[i], other[i], value[i] = (a[j], b[j], x[j]) if known else (1.0, 1.0, 0.5)
        for i in range(LANES):  # by the nearer end: I_x(a, b) = 1 − I_{1−x}(b, a)
            p, q, y = one[i], other[i], value[i]
            far = y > (p + 1.0) / (p + q + 2.0)
            power = p * log2(y) + q * log2(1.0 - y) + (_log_gamma(p + q) - _log_gamma(p) - _log_gamma(q)) / _LN2
            one[i], other[i], value[i] = (q, p, 1.0 - y) if far else (p, q, y)
            front[i] = exp2(power) / one[i]
        _beta_fraction(one, other, value, fraction, room)
        for i in range(n):
            j = first + i
            near = min(front[i] * fraction[i], 1.0)
            far = x[j] > (a[j] + 1.0) / (a[j] + b[j] + 2.0)
            p, q = (1.0 - near, near) if far else (near, 1.0 - near)
            if x[j] <= 0.0 or x[j] >= 1.0:
                p, q = (0.0, 1.0) if x[j] <= 0.0 else (1.0, 0.0)
            known = a[j] == a[j] and b[j] == b[j] and x[j] == x[j]
            lower[j], upper[j] = (p, q) if known else (np.nan, np.nan)


@compiled
def _beta_fraction(a, b, x, f, room):
    """f = 1/(1 + d1/(1 + d2/(1 + …))), as `_fraction`."""
    p, q, p_before, q_before = room[5], room[6], room[7], room[8]
    for i in range(LANES):
        p[i], q[i], p_before[i], q_before[i], f[i] = 1.0, 1.0, 0.0, 1.0, -1.0
    m, more = 0.0, 1.0
    while more > 0.0 and m < 20000.0:
        for _ in range(GROUP // 2):
            for i in range(LANES):
                odd = -(a[i] + m) * (a[i] + b[i] + m) * x[i] / ((a[i] + 2.0 * m) * (a[i] + 2.0 * m + 1.0))
                p_before[i], q_before[i] = p[i] + odd * p_before[i], q[i] + odd * q_before[i]
            m += 1.0
            for i in range(LANES):
                even = m * (b[i] - m) * x[i] / ((a[i] + 2.0 * m - 1.0) * (a[i] + 2.0 * m))
                p[i], q[i] = p_before[i] + even * p[i], q_before[i] + even * q[i]
        more = 0.0
        for i in range(LANES):
            scale = 1.0 / q[i]
            p[i], p_before[i], q_before[i], q[i] = p[i] * scale, p_before[i] * scale, q_before[i] * scale, 1.0
            settled = abs(p[i] * q_before[i] - p_before[i]) <= 1e-14 * abs(p[i] * q_before[i])
            f[i] = f[i] if f[i] > 0.0 else (p[i] if settled else -p[i])
            more = max(more, -f[i])
    for i in range(LANES):
        f[i] = abs(f[i])


@compiled
def _otherwise(a, x):
    """P and Q where neither expansion serves: a missing value, x of 0 and less, a above LARGE."""
    if not (a == a and x == x):
        return np.nan, np.nan
    if x <= 0.0:
        return 0.0, 1.0
    return _uniform(a, x)


@compiled
def _uniform(a, x):
    """P and Q for large a: Φ(±η√a) and the first two terms of its correction, their coefficients as series in η."""
    mu = (x - a) / a
    if abs(mu) > 0.5:  # more than 15 standard deviations
        return (0.0, 1.0) if mu < 0.0 else (1.0, 0.0)
    if abs(mu) > 0.05:
        half = mu - log(1.0 + mu)
    else:  # η²/2 = μ²/2 − μ³/3 + …
        half, power = 0.0, -mu
        for k in range(2, 16):
            power *= -mu
            half += power / k
    eta = sqrt(2.0 * half) if mu >= 0.0 else -sqrt(2.0 * half)
    c0 = -1 / 3 + eta * (1 / 12 + eta * (-2 / 135 + eta * (1 / 864 + eta * (1 / 2835 - eta * (139 / 777600)))))
    c1 = -1 / 540 + eta * (-1 / 288 + eta * (1 / 378 - eta * (77 / 77760)))
    correction = exp(-a * half) / sqrt(2.0 * pi * a) * (c0 + c1 / a)
    return _normal(eta * sqrt(a)) - correction, _normal(-eta * sqrt(a)) + correction
