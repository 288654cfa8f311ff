"""Water in four soil layers: the Richards equation, solved for a block of cells at once.

    rain, melt                     M_k dS_k/dt = W_{k-1} − W_k − e_k
        ↓ W_0
    ┌─────────┐ S_0   0.10 m       W_k = K(S̄_k) [2 (ψ_{k+1} − ψ_k)/(Δz_k + Δz_{k+1}) + 1]     between layers
    ├─ ↓ W_1 ─┤ S_1   0.25 m       W_4 = K(S_3)                                             free drainage
    ├─ ↓ W_2 ─┤ S_2   0.65 m       ψ(S) = ψ_s S**−b, at most 1e4 m       K(S) = K_s S**(2b+3)
    ├─ ↓ W_3 ─┤ S_3   2.00 m       S̄_k = (Δz_{k+1} S_k + Δz_k S_{k+1})/(Δz_k + Δz_{k+1})
    └────┴────┘
         ↓ W_4 drainage            S saturation (θ/θ_s), M water at saturation (kg m-2), e roots and evaporation

Backward Euler by Newton's method. The derivative of a flux by the layer above is kept ≥ 0 and by the layer below ≤ 0,
which makes the matrix an M-matrix: every pivot is positive, whatever the soil. The step ends in flux form, so water is
conserved to rounding even where Newton's method has not converged.

Refs: Brooks & Corey (1964); Clapp & Hornberger (1978); Best et al. (2011), section 3.
"""

from __future__ import annotations

from twin.land.compiled import BLOCK, compiled, exp2, log2
from twin.variables import LAYERS

# Rows of the work array of a block: row r of cell i is at r * BLOCK + i, one flat array so that the compiler sees that
# no row overlaps another.
WATER = 0  # 0..3 water, kg m-2
SOLVED = 4  # 4..7 saturation, Newton's iterate
FLUX = 8  # 8..11 water leaving each layer downwards during the sub-step, kg m-2 day-1
SINK = 12  # 12..15 roots and evaporation, kg m-2 day-1
INFILTRATION = 16  # kg m-2 day-1
STEP = 17  # length of the sub-step, days; 0 for a cell that has finished its day
MOVED = 18  # largest change of saturation in the last iteration
EXCESS = 19  # water that found no room, kg m-2, summed over the day
DRAINAGE = 20  # kg m-2, summed over the day
B, PSI, K, M = 21, 25, 29, 33  # parameters by layer: exponent, m, kg m-2 day-1, kg m-2
ROWS = 37

_D0, _D1, _D2, _D3 = LAYERS
_CAP = 1e4  # largest suction, m
_DRIEST = 1e-3  # saturation below which conductivity and suction change no more
_CLIP = 0.2  # largest change of saturation in one iteration
_CLOSE = 1e-2  # iterate until no layer moves more; Newton's error is then about the square
_ITERATIONS = 8


@compiled
def _suction(s, b, psi_s):
    """Suction ψ (m), its derivative by saturation (m, ≤ 0) and log2 of the saturation used."""
    s = min(max(s, _DRIEST), 1.0)
    log_s = log2(s)
    psi = psi_s * exp2(-b * log_s)
    slope = -b * psi / s if psi < _CAP else 0.0
    return min(psi, _CAP), slope, log_s


@compiled
def _interface(s_a, s_b, psi_a, psi_b, slope_a, slope_b, d_a, d_b, b, k_s):
    """Flux between two layers (positive down) and its derivatives by the saturation above (≥ 0) and below (≤ 0)."""
    share_a, share_b, per_m = d_b / (d_a + d_b), d_a / (d_a + d_b), 2.0 / (d_a + d_b)
    s = min(max(share_a * s_a + share_b * s_b, _DRIEST), 1.0)
    k = k_s * exp2((2.0 * b + 3.0) * log2(s))
    gradient = per_m * (psi_b - psi_a) + 1.0
    by_mean = (2.0 * b + 3.0) * k / s * gradient
    by_a = max(by_mean * share_a - k * per_m * slope_a, 0.0)
    by_b = min(by_mean * share_b + k * per_m * slope_b, 0.0)
    return k * gradient, by_a, by_b


@compiled
def _iterate(w):
    """One Newton iteration for every cell of the block that is still moving; how many still move after it."""
    for i in range(BLOCK):
        h = w[STEP * BLOCK + i]
        s0, s1 = w[SOLVED * BLOCK + i], w[(SOLVED + 1) * BLOCK + i]
        s2, s3 = w[(SOLVED + 2) * BLOCK + i], w[(SOLVED + 3) * BLOCK + i]
        b0, b1, b2, b3 = w[B * BLOCK + i], w[(B + 1) * BLOCK + i], w[(B + 2) * BLOCK + i], w[(B + 3) * BLOCK + i]
        k0, k1, k2, k3 = w[K * BLOCK + i], w[(K + 1) * BLOCK + i], w[(K + 2) * BLOCK + i], w[(K + 3) * BLOCK + i]
        m0, m1, m2, m3 = w[M * BLOCK + i], w[(M + 1) * BLOCK + i], w[(M + 2) * BLOCK + i], w[(M + 3) * BLOCK + i]

        p0, q0, _ = _suction(s0, b0, w[PSI * BLOCK + i])
        p1, q1, _ = _suction(s1, b1, w[(PSI + 1) * BLOCK + i])
        p2, q2, _ = _suction(s2, b2, w[(PSI + 2) * BLOCK + i])
        p3, q3, log_s3 = _suction(s3, b3, w[(PSI + 3) * BLOCK + i])
        f0, a0, c0 = _interface(s0, s1, p0, p1, q0, q1, _D0, _D1, b0, k0)
        f1, a1, c1 = _interface(s1, s2, p1, p2, q1, q2, _D1, _D2, b1, k1)
        f2, a2, c2 = _interface(s2, s3, p2, p3, q2, q3, _D2, _D3, b2, k2)
        f3 = k3 * exp2((2.0 * b3 + 3.0) * log_s3)
        a3 = (2.0 * b3 + 3.0) * f3 / max(s3, _DRIEST)

        # right-hand side: what the fluxes bring, less what the iterate has already changed
        r0 = h * (w[INFILTRATION * BLOCK + i] - f0 - w[SINK * BLOCK + i]) - (s0 * m0 - w[WATER * BLOCK + i])
        r1 = h * (f0 - f1 - w[(SINK + 1) * BLOCK + i]) - (s1 * m1 - w[(WATER + 1) * BLOCK + i])
        r2 = h * (f1 - f2 - w[(SINK + 2) * BLOCK + i]) - (s2 * m2 - w[(WATER + 2) * BLOCK + i])
        r3 = h * (f2 - f3 - w[(SINK + 3) * BLOCK + i]) - (s3 * m3 - w[(WATER + 3) * BLOCK + i])

        # [ m0+h a0     h c0                      ]        eliminated downwards, solved upwards
        # [  −h a0   m1+h(a1−c0)   h c1           ] d = r
        # [             −h a1   m2+h(a2−c1)  h c2 ]
        # [                        −h a2   m3+h(a3−c2) ]
        g0 = 1.0 / (m0 + h * a0)
        u0, y0 = h * c0 * g0, r0 * g0
        g1 = 1.0 / (m1 + h * (a1 - c0) + h * a0 * u0)
        u1, y1 = h * c1 * g1, (r1 + h * a0 * y0) * g1
        g2 = 1.0 / (m2 + h * (a2 - c1) + h * a1 * u1)
        u2, y2 = h * c2 * g2, (r2 + h * a1 * y1) * g2
        g3 = 1.0 / (m3 + h * (a3 - c2) + h * a2 * u2)
        x3 = (r3 + h * a2 * y2) * g3
        x2 = y2 - u2 * x3
        x1 = y1 - u1 * x2
        x0 = y0 - u0 * x1
        x0, x1 = min(max(x0, -_CLIP), _CLIP), min(max(x1, -_CLIP), _CLIP)
        x2, x3 = min(max(x2, -_CLIP), _CLIP), min(max(x3, -_CLIP), _CLIP)

        # a cell that no longer moves keeps its result: it must not depend on how long its neighbours in the block take
        on = w[MOVED * BLOCK + i] > _CLOSE
        z0, z1, z2, z3 = (
            w[FLUX * BLOCK + i],
            w[(FLUX + 1) * BLOCK + i],
            w[(FLUX + 2) * BLOCK + i],
            w[(FLUX + 3) * BLOCK + i],
        )
        w[SOLVED * BLOCK + i] = s0 + x0 if on else s0
        w[(SOLVED + 1) * BLOCK + i] = s1 + x1 if on else s1
        w[(SOLVED + 2) * BLOCK + i] = s2 + x2 if on else s2
        w[(SOLVED + 3) * BLOCK + i] = s3 + x3 if on else s3
        w[FLUX * BLOCK + i] = f0 + a0 * x0 + c0 * x1 if on else z0
        w[(FLUX + 1) * BLOCK + i] = f1 + a1 * x1 + c1 * x2 if on else z1
        w[(FLUX + 2) * BLOCK + i] = f2 + a2 * x2 + c2 * x3 if on else z2
        w[(FLUX + 3) * BLOCK + i] = f3 + a3 * x3 if on else z3
        moved = max(max(abs(x0), abs(x1)), max(abs(x2), abs(x3)))
        w[MOVED * BLOCK + i] = moved if on else 0.0
    moving = 0.0
    for i in range(BLOCK):
        moving = max(moving, w[MOVED * BLOCK + i])
    return moving > _CLOSE


@compiled
def _settle(w):
    """Move the water along the solved fluxes, never out of an empty layer or into a full one.

    Excess rises layer by layer and leaves at the top; a deficit is filled by less drainage, then from below and above.
    """
    for i in range(BLOCK):
        h = w[STEP * BLOCK + i]
        m0, m1, m2, m3 = w[M * BLOCK + i], w[(M + 1) * BLOCK + i], w[(M + 2) * BLOCK + i], w[(M + 3) * BLOCK + i]
        f0, f1, f2 = h * w[FLUX * BLOCK + i], h * w[(FLUX + 1) * BLOCK + i], h * w[(FLUX + 2) * BLOCK + i]
        f3 = max(h * w[(FLUX + 3) * BLOCK + i], 0.0)
        w0 = w[WATER * BLOCK + i] + h * (w[INFILTRATION * BLOCK + i] - w[SINK * BLOCK + i]) - f0
        w1 = w[(WATER + 1) * BLOCK + i] - h * w[(SINK + 1) * BLOCK + i] + f0 - f1
        w2 = w[(WATER + 2) * BLOCK + i] - h * w[(SINK + 2) * BLOCK + i] + f1 - f2
        w3 = w[(WATER + 3) * BLOCK + i] - h * w[(SINK + 3) * BLOCK + i] + f2 - f3

        # deficits: a layer below zero takes from the next one down, the lowest from drainage, what is left from above
        t = min(w0, 0.0)
        w0, w1 = w0 - t, w1 + t
        t = min(w1, 0.0)
        w1, w2 = w1 - t, w2 + t
        t = min(w2, 0.0)
        w2, w3 = w2 - t, w3 + t
        t = max(min(w3, 0.0), -f3)
        w3, f3 = w3 - t, f3 + t
        t = min(w3, 0.0)
        w3, w2 = w3 - t, w2 + t
        t = min(w2, 0.0)
        w2, w1 = w2 - t, w1 + t
        t = min(w1, 0.0)
        w1, w0 = w1 - t, w0 + t

        # excess rises
        t = max(w3 - m3, 0.0)
        w3, w2 = w3 - t, w2 + t
        t = max(w2 - m2, 0.0)
        w2, w1 = w2 - t, w1 + t
        t = max(w1 - m1, 0.0)
        w1, w0 = w1 - t, w0 + t
        t = max(w0 - m0, 0.0)

        w[WATER * BLOCK + i] = w0 - t
        w[(WATER + 1) * BLOCK + i] = w1
        w[(WATER + 2) * BLOCK + i] = w2
        w[(WATER + 3) * BLOCK + i] = w3
        w[EXCESS * BLOCK + i] += t
        w[DRAINAGE * BLOCK + i] += f3


@compiled
def advance(w):
    """One sub-step of every cell of a block: solve for the fluxes, then move the water.

    w (ROWS * BLOCK,) work array; reads STEP, INFILTRATION, SINK and the parameters, changes WATER, EXCESS, DRAINAGE.
    A cell whose STEP is 0 is left as it is.
    """
    for i in range(BLOCK):
        for k in range(4):
            w[(SOLVED + k) * BLOCK + i] = w[(WATER + k) * BLOCK + i] / w[(M + k) * BLOCK + i]
            w[(FLUX + k) * BLOCK + i] = 0.0
        w[MOVED * BLOCK + i] = 1.0 if w[STEP * BLOCK + i] > 0.0 else 0.0
    for _ in range(_ITERATIONS):
        if not _iterate(w):
            break
    _settle(w)
