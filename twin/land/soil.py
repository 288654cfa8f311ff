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
which makes the matrix an M-matrix: every pivot is positive, whatever the soil. Where eight iterations do not converge
the step is halved, down to a 64th. It ends in flux form, so water is conserved to rounding whatever was solved.

`solver` gives the same with van Genuchten's retention, or as JULES takes its step; `step` is one step of arrays.

Refs: Brooks & Corey (1964); Clapp & Hornberger (1978); Mualem (1976); van Genuchten (1980); Best et al. (2011),
section 3.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, SettingsError, VariableError
from twin.land.compiled import BLOCK, compiled, exp2, log2, single, stage, variant
from twin.variables import LAYERS

# Rows of the work array of a block: row r of cell i is at r * BLOCK + i, one flat array so that the compiler sees that
# no row overlaps another. Time is in the unit that STEP and K share: days or seconds.
WATER = 0  # 0..3 state: water by layer, liquid and ice, kg m-2
ICE = 4  # 4..7 of it ice, which neither moves nor conducts; 0 ≤ ice ≤ water ≤ M
SINK = 8  # 8..11 in: roots and evaporation, kg m-2 per time; at most the liquid water per STEP
INFILTRATION = 12  # in: what enters the top layer, kg m-2 per time
STEP = 13  # in: length of the step; 0 leaves the cell as it is
MOVED = 14  # 14..17 out: water that went down through the bottom of each layer in this step, kg m-2
EXCESS = 18  # out: water that found no room and left at the top, kg m-2, added to what is there
DRAINAGE = 19  # out: water that left at the bottom, kg m-2, added to what is there
B, PSI, K, M = 20, 24, 28, 32  # parameters by layer: exponent, m, kg m-2 per time, kg m-2
SOLVED = 36  # 36..39 scratch: unfrozen saturation, Newton's iterate
FLUX = 40  # 40..43 scratch: solved flux through the bottom of each layer, kg m-2 per time
MOVING = 44  # scratch: largest change of saturation in the last iteration
LEFT, PART = 45, 46  # scratch: fraction of the step still to do, and of the sub-step tried
SUBSTEP = 47  # scratch: its length; 0 for a cell that has finished
ROOM = 48  # 48..51 scratch: unfrozen saturation of each layer when full
ROWS = 52

_D0, _D1, _D2, _D3 = LAYERS
_CAP = 1e4  # largest suction, m
_DRIEST = 1e-3  # saturation below which conductivity and suction change no more
_DRIEST_AS_JULES, _EMPTY = 0.01, 1e-6  # the same in JULES, for suction and for conductivity
_VG_DRY, _VG_WET = 0.05, 0.95  # saturations between which van Genuchten's formulas hold
_CLIP = 0.2  # largest change of saturation in one iteration
_CLOSE = 1e-2  # iterate until no layer moves more; Newton's error is then about the square
_ITERATIONS = 8
_SHORTEST = 1.0 / 64.0  # of the step: a sub-step this short is taken as it is


@compiled
def _suction(s, b, psi_s):
    """Suction ψ (m) and its derivative by saturation (m, ≤ 0)."""
    s = min(max(s, _DRIEST), 1.0)
    psi = psi_s * exp2(-b * log2(s))
    slope = -b * psi / s if psi < _CAP else 0.0
    return min(psi, _CAP), slope


@compiled
def _conductivity(s, b, k_s):
    """Conductivity K (unit of k_s) and its derivative by saturation (≥ 0)."""
    s = min(max(s, _DRIEST), 1.0)
    k = k_s * exp2((2.0 * b + 3.0) * log2(s))
    return k, (2.0 * b + 3.0) * k / s


@compiled
def _exponent(b_a, b_b, share_a, share_b):
    """b between two layers: that of the upper one."""
    return b_a


@compiled
def _interface(s_a, s_b, psi_a, psi_b, slope_a, slope_b, d_a, d_b, b_a, b_b, k_s):
    """Flux between two layers (positive down) and its derivatives by the saturation above and below."""
    share_a, share_b, per_m = d_b / (d_a + d_b), d_a / (d_a + d_b), 2.0 / (d_a + d_b)
    k, slope = _conductivity(share_a * s_a + share_b * s_b, _exponent(b_a, b_b, share_a, share_b), k_s)
    gradient = per_m * (psi_b - psi_a) + 1.0
    by_mean = slope * gradient
    return k * gradient, by_mean * share_a - k * per_m * slope_a, by_mean * share_b + k * per_m * slope_b


@compiled
def _iterate(w):
    """One Newton iteration for every cell of the block that is still moving; how many still move after it."""
    for i in range(BLOCK):
        h = w[SUBSTEP * BLOCK + i]
        s0, s1 = w[SOLVED * BLOCK + i], w[(SOLVED + 1) * BLOCK + i]
        s2, s3 = w[(SOLVED + 2) * BLOCK + i], w[(SOLVED + 3) * BLOCK + i]
        b0, b1, b2, b3 = w[B * BLOCK + i], w[(B + 1) * BLOCK + i], w[(B + 2) * BLOCK + i], w[(B + 3) * BLOCK + i]
        k0, k1, k2, k3 = w[K * BLOCK + i], w[(K + 1) * BLOCK + i], w[(K + 2) * BLOCK + i], w[(K + 3) * BLOCK + i]
        m0, m1, m2, m3 = w[M * BLOCK + i], w[(M + 1) * BLOCK + i], w[(M + 2) * BLOCK + i], w[(M + 3) * BLOCK + i]

        # fluxes are those of layers at most full: what an iterate puts into them beyond does not push
        v0, v1 = w[ROOM * BLOCK + i], w[(ROOM + 1) * BLOCK + i]
        v2, v3 = w[(ROOM + 2) * BLOCK + i], w[(ROOM + 3) * BLOCK + i]
        t0, t1, t2, t3 = min(s0, v0), min(s1, v1), min(s2, v2), min(s3, v3)
        p0, q0 = _suction(t0, b0, w[PSI * BLOCK + i])
        p1, q1 = _suction(t1, b1, w[(PSI + 1) * BLOCK + i])
        p2, q2 = _suction(t2, b2, w[(PSI + 2) * BLOCK + i])
        p3, q3 = _suction(t3, b3, w[(PSI + 3) * BLOCK + i])
        f0, a0, c0 = _interface(t0, t1, p0, p1, q0, q1, _D0, _D1, b0, b1, k0)
        f1, a1, c1 = _interface(t1, t2, p1, p2, q1, q2, _D1, _D2, b1, b2, k1)
        f2, a2, c2 = _interface(t2, t3, p2, p3, q2, q3, _D2, _D3, b2, b3, k2)
        f3, a3 = _conductivity(t3, b3, k3)
        a0, a1 = max(a0, 0.0) if s0 < v0 else 0.0, max(a1, 0.0) if s1 < v1 else 0.0
        a2, a3 = max(a2, 0.0) if s2 < v2 else 0.0, a3 if s3 < v3 else 0.0
        c0, c1 = min(c0, 0.0) if s1 < v1 else 0.0, min(c1, 0.0) if s2 < v2 else 0.0
        c2 = min(c2, 0.0) if s3 < v3 else 0.0

        # right-hand side: what the fluxes bring, less what the iterate has already changed
        u0 = w[WATER * BLOCK + i] - w[ICE * BLOCK + i]
        u1 = w[(WATER + 1) * BLOCK + i] - w[(ICE + 1) * BLOCK + i]
        u2 = w[(WATER + 2) * BLOCK + i] - w[(ICE + 2) * BLOCK + i]
        u3 = w[(WATER + 3) * BLOCK + i] - w[(ICE + 3) * BLOCK + i]
        r0 = h * (w[INFILTRATION * BLOCK + i] - f0 - w[SINK * BLOCK + i]) - (s0 * m0 - u0)
        r1 = h * (f0 - f1 - w[(SINK + 1) * BLOCK + i]) - (s1 * m1 - u1)
        r2 = h * (f1 - f2 - w[(SINK + 2) * BLOCK + i]) - (s2 * m2 - u2)
        r3 = h * (f2 - f3 - w[(SINK + 3) * BLOCK + i]) - (s3 * m3 - u3)

        # [ m0+h a0     h c0                      ]        eliminated downwards, solved upwards; the pivots n + h a are
        # [  −h a0   m1+h(a1−c0)   h c1           ] d = r  sums of what is positive, so that none is lost in rounding
        # [             −h a1   m2+h(a2−c1)  h c2 ]
        # [                        −h a2   m3+h(a3−c2) ]
        g0 = 1.0 / (m0 + h * a0)
        u0, y0 = h * c0 * g0, r0 * g0
        n1 = m1 - u0 * m0
        g1 = 1.0 / (n1 + h * a1)
        u1, y1 = h * c1 * g1, (r1 + h * a0 * y0) * g1
        n2 = m2 - u1 * n1
        g2 = 1.0 / (n2 + h * a2)
        u2, y2 = h * c2 * g2, (r2 + h * a1 * y1) * g2
        g3 = 1.0 / (m3 - u2 * n2 + h * a3)
        x3 = (r3 + h * a2 * y2) * g3
        x2 = y2 - u2 * x3
        x1 = y1 - u1 * x2
        x0 = y0 - u0 * x1
        x0, x1 = min(max(x0, -_CLIP), _CLIP), min(max(x1, -_CLIP), _CLIP)
        x2, x3 = min(max(x2, -_CLIP), _CLIP), min(max(x3, -_CLIP), _CLIP)

        # a cell that no longer moves keeps its result: it must not depend on how long its neighbours in the block take
        on = w[MOVING * BLOCK + i] > _CLOSE
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
        w[MOVING * BLOCK + i] = moved if on else 0.0
    moving = 0.0
    for i in range(BLOCK):
        moving = max(moving, w[MOVING * BLOCK + i])
    return moving > _CLOSE


@compiled
def _rise(u0, u1, u2, u3, f0, f1, f2, f3, m0, m1, m2, m3):
    """Water u of the layers held to their room m; what is too much rises, with fluxes f, and the last of it is out."""
    t = max(u3 - m3, 0.0)
    u3, u2, f2 = u3 - t, u2 + t, f2 - t
    t = max(u2 - m2, 0.0)
    u2, u1, f1 = u2 - t, u1 + t, f1 - t
    t = max(u1 - m1, 0.0)
    u1, u0, f0 = u1 - t, u0 + t, f0 - t
    t = max(u0 - m0, 0.0)
    return u0 - t, u1, u2, u3, f0, f1, f2, f3, t


@compiled
def _sink(u0, u1, u2, u3, f0, f1, f2, f3, m0, m1, m2, m3):
    """As `_rise`, but what is too much sinks, the last of it into the drainage."""
    t = max(u0 - m0, 0.0)
    u0, u1, f0 = u0 - t, u1 + t, f0 + t
    t = max(u1 - m1, 0.0)
    u1, u2, f1 = u1 - t, u2 + t, f1 + t
    t = max(u2 - m2, 0.0)
    u2, u3, f2 = u2 - t, u3 + t, f2 + t
    t = max(u3 - m3, 0.0)
    return u0, u1, u2, u3 - t, f0, f1, f2, f3 + t, 0.0 * t


@compiled
def _settle(w):
    """Move the water along the solved fluxes, never out of an empty layer or into a full one.

    Excess leaves by `_rise` (or `_sink`); a deficit is filled by less drainage, then from below and above.
    No flux is larger than all the column can hold and gets, which only matters where Newton's method went astray. A
    sub-step whose solution was not found is not taken but tried again, half as long; the next is twice as long. True
    while a cell of the block has some of its step left.
    """
    for i in range(BLOCK):
        h = w[SUBSTEP * BLOCK + i]
        part, left = w[PART * BLOCK + i], w[LEFT * BLOCK + i]
        on = left > 0.0 and (w[MOVING * BLOCK + i] <= _CLOSE or part <= _SHORTEST)
        left = left - part if on else left
        w[LEFT * BLOCK + i] = left
        w[PART * BLOCK + i] = min(2.0 * part, left) if on else 0.5 * part
        # ice, and what roots and evaporation will take in the rest of the step, does not move
        rest = left * w[STEP * BLOCK + i]
        i0 = w[ICE * BLOCK + i] + rest * max(w[SINK * BLOCK + i], 0.0)
        i1 = w[(ICE + 1) * BLOCK + i] + rest * max(w[(SINK + 1) * BLOCK + i], 0.0)
        i2 = w[(ICE + 2) * BLOCK + i] + rest * max(w[(SINK + 2) * BLOCK + i], 0.0)
        i3 = w[(ICE + 3) * BLOCK + i] + rest * max(w[(SINK + 3) * BLOCK + i], 0.0)
        m0, m1 = w[M * BLOCK + i] - i0, w[(M + 1) * BLOCK + i] - i1
        m2, m3 = w[(M + 2) * BLOCK + i] - i2, w[(M + 3) * BLOCK + i] - i3
        most = m0 + m1 + m2 + m3 + h * w[INFILTRATION * BLOCK + i]
        f0 = min(max(h * w[FLUX * BLOCK + i], -most), most)
        f1 = min(max(h * w[(FLUX + 1) * BLOCK + i], -most), most)
        f2 = min(max(h * w[(FLUX + 2) * BLOCK + i], -most), most)
        f3 = min(max(h * w[(FLUX + 3) * BLOCK + i], 0.0), most)
        u0 = w[WATER * BLOCK + i] - i0 + h * (w[INFILTRATION * BLOCK + i] - w[SINK * BLOCK + i]) - f0
        u1 = w[(WATER + 1) * BLOCK + i] - i1 - h * w[(SINK + 1) * BLOCK + i] + f0 - f1
        u2 = w[(WATER + 2) * BLOCK + i] - i2 - h * w[(SINK + 2) * BLOCK + i] + f1 - f2
        u3 = w[(WATER + 3) * BLOCK + i] - i3 - h * w[(SINK + 3) * BLOCK + i] + f2 - f3

        # deficits: a layer below zero takes from the next one down, the lowest from drainage, what is left from above
        t = min(u0, 0.0)
        u0, u1, f0 = u0 - t, u1 + t, f0 + t
        t = min(u1, 0.0)
        u1, u2, f1 = u1 - t, u2 + t, f1 + t
        t = min(u2, 0.0)
        u2, u3, f2 = u2 - t, u3 + t, f2 + t
        t = max(min(u3, 0.0), -f3)
        u3, f3 = u3 - t, f3 + t
        t = min(u3, 0.0)
        u3, u2, f2 = u3 - t, u2 + t, f2 - t
        t = min(u2, 0.0)
        u2, u1, f1 = u2 - t, u1 + t, f1 - t
        t = min(u1, 0.0)
        u1, u0, f0 = u1 - t, u0 + t, f0 - t

        u0, u1, u2, u3, f0, f1, f2, f3, t = _rise(u0, u1, u2, u3, f0, f1, f2, f3, m0, m1, m2, m3)

        # what rounding left outside the bounds is put on them
        u0, u1 = min(max(u0, 0.0) + i0, w[M * BLOCK + i]), min(max(u1, 0.0) + i1, w[(M + 1) * BLOCK + i])
        u2, u3 = min(max(u2, 0.0) + i2, w[(M + 2) * BLOCK + i]), min(max(u3, 0.0) + i3, w[(M + 3) * BLOCK + i])
        w[WATER * BLOCK + i] = u0 if on else w[WATER * BLOCK + i]
        w[(WATER + 1) * BLOCK + i] = u1 if on else w[(WATER + 1) * BLOCK + i]
        w[(WATER + 2) * BLOCK + i] = u2 if on else w[(WATER + 2) * BLOCK + i]
        w[(WATER + 3) * BLOCK + i] = u3 if on else w[(WATER + 3) * BLOCK + i]
        w[MOVED * BLOCK + i] += f0 if on else 0.0
        w[(MOVED + 1) * BLOCK + i] += f1 if on else 0.0
        w[(MOVED + 2) * BLOCK + i] += f2 if on else 0.0
        w[(MOVED + 3) * BLOCK + i] += f3 if on else 0.0
        w[EXCESS * BLOCK + i] += t if on else 0.0
        w[DRAINAGE * BLOCK + i] += f3 if on else 0.0
    left = 0.0
    for i in range(BLOCK):
        left = max(left, w[LEFT * BLOCK + i])
    return left > 0.0


@compiled
def _start(w):
    """Newton's first guess: the water as it is."""
    for k in range(4):
        for i in range(BLOCK):
            per = 1.0 / w[(M + k) * BLOCK + i]
            ice = w[(ICE + k) * BLOCK + i]
            w[(SOLVED + k) * BLOCK + i] = (w[(WATER + k) * BLOCK + i] - ice) * per
            w[(ROOM + k) * BLOCK + i] = (w[(M + k) * BLOCK + i] - ice) * per
            w[(FLUX + k) * BLOCK + i] = 0.0
    for i in range(BLOCK):
        on = w[LEFT * BLOCK + i] > 0.0
        w[SUBSTEP * BLOCK + i] = w[PART * BLOCK + i] * w[STEP * BLOCK + i] if on else 0.0
        w[MOVING * BLOCK + i] = 1.0 if on else 0.0


@stage
def advance(w):
    """One step of every cell of a block: solve for the fluxes, then move the water.

    w (ROWS * BLOCK or longer,) work array; reads STEP, INFILTRATION, SINK, ICE and the parameters; changes WATER and
    MOVED, adds to EXCESS and DRAINAGE. A cell whose STEP is 0 is left as it is.
    """
    for i in range(BLOCK):
        w[LEFT * BLOCK + i] = 1.0 if w[STEP * BLOCK + i] > 0.0 else 0.0
        w[PART * BLOCK + i] = 1.0
    w[MOVED * BLOCK : (MOVED + 4) * BLOCK] = 0.0
    left = True
    while left:
        _start(w)
        for _ in range(_ITERATIONS):
            if not _iterate(w):
                break
        left = _settle(w)


# --- JULES' own numerics --------------------------------------------------------------------------------------------
@compiled
def _up(h, w0, f0, f1, f2, f3, e0, e1, e2, e3, n0, n1, n2, n3):
    """Fluxes into and out of the layers, none of which gains more than its room n in h; what is too much rises."""
    f2 = n3 / h + f3 + e3 if (f2 - f3 - e3) * h > n3 else f2
    f1 = n2 / h + f2 + e2 if (f1 - f2 - e2) * h > n2 else f1
    f0 = n1 / h + f1 + e1 if (f0 - f1 - e1) * h > n1 else f0
    w0 = n0 / h + f0 + e0 if (w0 - f0 - e0) * h > n0 else w0
    return w0, f0, f1, f2, f3


@compiled
def _down(h, w0, f0, f1, f2, f3, e0, e1, e2, e3, n0, n1, n2, n3):
    """As `_up`, but what is too much sinks, the last of it into the drainage."""
    f0 = w0 - e0 - n0 / h if (w0 - f0 - e0) * h > n0 else f0
    f1 = f0 - e1 - n1 / h if (f0 - f1 - e1) * h > n1 else f1
    f2 = f1 - e2 - n2 / h if (f1 - f2 - e2) * h > n2 else f2
    f3 = f2 - e3 - n3 / h if (f2 - f3 - e3) * h > n3 else f3
    return w0, f0, f1, f2, f3


@compiled
def _held(x, s, filled):
    """A change of saturation, no more than there is and than there is room for; none where the system is singular."""
    return min(max(x, -s), 1.0 - filled) if x == x else 0.0


@stage
def _linearised(w):
    """One step as JULES takes it: one linearised backward-Euler step, without iteration.

    Explicit fluxes, capped where a layer would overflow; one tridiagonal system (of the uncapped fluxes) for the change
    of saturation, eliminated upwards and solved downwards, each layer clipped to what it holds and to its room before
    the next; then fluxes from the top down, so that what was clipped leaves at the bottom (which may also take in).
    Refs: Best et al. (2011), section 3; JULES vn5.2 with l_holdwater off.
    """
    for i in range(BLOCK):
        on = w[STEP * BLOCK + i] > 0.0
        h = w[STEP * BLOCK + i] if on else 1.0
        m0, m1, m2, m3 = w[M * BLOCK + i], w[(M + 1) * BLOCK + i], w[(M + 2) * BLOCK + i], w[(M + 3) * BLOCK + i]
        w0, w1 = w[WATER * BLOCK + i], w[(WATER + 1) * BLOCK + i]
        w2, w3 = w[(WATER + 2) * BLOCK + i], w[(WATER + 3) * BLOCK + i]
        s0, s1 = (w0 - w[ICE * BLOCK + i]) / m0, (w1 - w[(ICE + 1) * BLOCK + i]) / m1
        s2, s3 = (w2 - w[(ICE + 2) * BLOCK + i]) / m2, (w3 - w[(ICE + 3) * BLOCK + i]) / m3
        b0, b1, b2, b3 = w[B * BLOCK + i], w[(B + 1) * BLOCK + i], w[(B + 2) * BLOCK + i], w[(B + 3) * BLOCK + i]
        e0, e1 = w[SINK * BLOCK + i], w[(SINK + 1) * BLOCK + i]
        e2, e3 = w[(SINK + 2) * BLOCK + i], w[(SINK + 3) * BLOCK + i]
        p0, q0 = _suction(s0, b0, w[PSI * BLOCK + i])
        p1, q1 = _suction(s1, b1, w[(PSI + 1) * BLOCK + i])
        p2, q2 = _suction(s2, b2, w[(PSI + 2) * BLOCK + i])
        p3, q3 = _suction(s3, b3, w[(PSI + 3) * BLOCK + i])
        f0, a0, c0 = _interface(s0, s1, p0, p1, q0, q1, _D0, _D1, b0, b1, w[K * BLOCK + i])
        f1, a1, c1 = _interface(s1, s2, p1, p2, q1, q2, _D1, _D2, b1, b2, w[(K + 1) * BLOCK + i])
        f2, a2, c2 = _interface(s2, s3, p2, p3, q2, q3, _D2, _D3, b2, b3, w[(K + 2) * BLOCK + i])
        f3, a3 = _conductivity(s3, b3, w[(K + 3) * BLOCK + i])
        top = w[INFILTRATION * BLOCK + i]
        into, f0, f1, f2, f3 = _up(h, top, f0, f1, f2, f3, e0, e1, e2, e3, m0 - w0, m1 - w1, m2 - w2, m3 - w3)

        # [ 1+g a0    g c0                    ]        eliminated upwards, solved downwards; g = h/m by layer
        # [  −g a0  1+g(a1−c0)  g c1          ] x = r
        # [           −g a1   1+g(a2−c1) g c2 ]
        # [                     −g a2 1+g(a3−c2) ]
        g0, g1, g2, g3 = h / m0, h / m1, h / m2, h / m3
        d3, r3 = 1.0 + g3 * (a3 - c2), g3 * (f2 - f3 - e3)
        d2, r2 = 1.0 + g2 * (a2 - c1) + g2 * c2 * g3 * a2 / d3, g2 * (f1 - f2 - e2) - g2 * c2 * r3 / d3
        d1, r1 = 1.0 + g1 * (a1 - c0) + g1 * c1 * g2 * a1 / d2, g1 * (f0 - f1 - e1) - g1 * c1 * r2 / d2
        d0, r0 = 1.0 + g0 * a0 + g0 * c0 * g1 * a0 / d1, g0 * (into - f0 - e0) - g0 * c0 * r1 / d1
        x0 = _held(r0 / d0, s0, w0 / m0)
        x1 = _held((r1 + g1 * a0 * x0) / d1, s1, w1 / m1)
        x2 = _held((r2 + g2 * a1 * x1) / d2, s2, w2 / m2)
        x3 = _held((r3 + g3 * a2 * x2) / d3, s3, w3 / m3)

        h = w[STEP * BLOCK + i]
        x0, x1, x2, x3 = x0 * m0, x1 * m1, x2 * m2, x3 * m3
        x0, x1, x2, x3 = x0 if on else 0.0, x1 if on else 0.0, x2 if on else 0.0, x3 if on else 0.0
        f0 = h * (into - e0) - x0
        f1 = f0 - h * e1 - x1
        f2 = f1 - h * e2 - x2
        f3 = f2 - h * e3 - x3
        w[WATER * BLOCK + i] = min(max(w0 + x0, w[ICE * BLOCK + i]), m0)
        w[(WATER + 1) * BLOCK + i] = min(max(w1 + x1, w[(ICE + 1) * BLOCK + i]), m1)
        w[(WATER + 2) * BLOCK + i] = min(max(w2 + x2, w[(ICE + 2) * BLOCK + i]), m2)
        w[(WATER + 3) * BLOCK + i] = min(max(w3 + x3, w[(ICE + 3) * BLOCK + i]), m3)
        w[MOVED * BLOCK + i] = f0
        w[(MOVED + 1) * BLOCK + i] = f1
        w[(MOVED + 2) * BLOCK + i] = f2
        w[(MOVED + 3) * BLOCK + i] = f3
        w[EXCESS * BLOCK + i] += h * (top - into)
        w[DRAINAGE * BLOCK + i] += f3


@compiled
def _suction_as_jules(s, b, psi_s):
    """ψ and its derivative as JULES has them: no change below a saturation of 0.01, no cap."""
    psi = psi_s * exp2(-b * log2(max(s, _DRIEST_AS_JULES)))
    return psi, -b * psi / s if s > _DRIEST_AS_JULES else 0.0


@compiled
def _conductivity_as_jules(s, b, k_s):
    """K and its derivative as JULES has them: down to an empty layer."""
    s = max(s, _EMPTY)
    k = k_s * exp2((2.0 * b + 3.0) * log2(s))
    return k, (2.0 * b + 3.0) * k / s


# --- van Genuchten (1980) and Mualem (1976), 1/alpha = ψ_s, n = 1 + 1/b ---------------------------------------------
@compiled
def _vg_suction(s, b, psi_s):
    """ψ = ψ_s (S**−(b+1) − 1)**(b/(b+1)) and its derivative, straight on where S is not within 0.05 and 0.95.

    As JULES: ψ goes to 0 at saturation, and on with its own slope below 0.05.
    """
    c = min(max(s, _VG_DRY), _VG_WET)
    y = exp2(-(b + 1.0) * log2(c))
    psi = psi_s * exp2(b / (b + 1.0) * log2(y - 1.0))
    slope = -b * psi / c * (y / (y - 1.0))
    slope = -psi / (1.0 - _VG_WET) if s > _VG_WET else slope
    return psi + slope * (min(max(s, 0.0), 1.0) - c), slope


@compiled
def _vg_suction_capped(s, b, psi_s):
    """The same, at most 1e4 m."""
    psi, slope = _vg_suction(s, b, psi_s)
    return min(psi, _CAP), slope if psi < _CAP else 0.0


@compiled
def _vg_conductivity(s, b, k_s):
    """K = K_s √S [1 − (1 − S**(b+1))**(1/(b+1))]² and its derivative, straight on where S is not within 0.05 and 0.95.

    As JULES: K goes to K_s at saturation and to 0 in an empty layer.
    """
    c = min(max(s, _VG_DRY), _VG_WET)
    m = 1.0 / (b + 1.0)
    power = exp2(b * log2(c))
    x = power * c
    rest = exp2(m * log2(1.0 - x))
    # 1 − (1 − x)**m, as its series where it would cancel
    few = 1.0 + (4.0 - m) / 5.0 * x * (1.0 + (5.0 - m) / 6.0 * x)
    few = 1.0 + (2.0 - m) / 3.0 * x * (1.0 + (3.0 - m) / 4.0 * x * few)
    few = m * x * (1.0 + (1.0 - m) / 2.0 * x * few)
    a = few if x < 0.01 else 1.0 - rest
    root = exp2(0.5 * log2(c))
    k = k_s * root * a * a
    slope = 0.5 * k / c + 2.0 * k_s * root * a * power * rest / (1.0 - x)
    slope = (k_s - k) / (1.0 - _VG_WET) if s > _VG_WET else slope
    slope = k / _VG_DRY if s < _VG_DRY else slope
    return k + slope * (min(max(s, 0.0), 1.0) - c), slope


@compiled
def _mean_exponent(b_a, b_b, share_a, share_b):
    """b between two layers, at their interface."""
    return share_a * b_a + share_b * b_b


# --- a choice of formulas -------------------------------------------------------------------------------------------
_SWAPS = {
    ("brooks-corey", "newton"): {},
    ("brooks-corey", "jules"): {_suction: _suction_as_jules, _conductivity: _conductivity_as_jules},
    ("van-genuchten", "newton"): {
        _suction: _vg_suction_capped,
        _conductivity: _vg_conductivity,
        _exponent: _mean_exponent,
    },
    ("van-genuchten", "jules"): {_suction: _vg_suction, _conductivity: _vg_conductivity, _exponent: _mean_exponent},
}


@cache
def solver(
    retention: str = "brooks-corey", numerics: str = "newton", saturation_excess: str = "up", real: Any = np.float64
) -> Any:
    """The compiled function to call in place of `advance`, which does the same with other formulas.

    retention          "brooks-corey" or "van-genuchten"
    numerics           "newton", or "jules" for JULES' own single linearised step
    saturation_excess  where water goes that a layer has no room for: "up" and off the surface, or "down" and into the
                       drainage
    real               type of the work array, float64 or float32
    Raises SettingsError for any other choice.
    """
    if (retention, numerics) not in _SWAPS:
        expected = ", ".join(" with ".join(pair) for pair in _SWAPS)
        raise SettingsError("soil water", expected=f"one of {expected}", found=f"{retention} with {numerics}")
    if saturation_excess not in ("up", "down"):
        raise SettingsError("saturation_excess", expected="'up' or 'down'", found=f"'{saturation_excess}'")
    swaps = dict(_SWAPS[retention, numerics])
    suffix = "vg" if retention == "van-genuchten" else "bc"
    if saturation_excess == "down":
        swaps |= {_up: _down, _rise: _sink}
        suffix += "_down"
    chosen = variant(advance if numerics == "newton" else _linearised, suffix, swaps) if swaps else advance
    return single(chosen) if real is np.float32 else chosen


advance_as_jules = solver(numerics="jules")


class Step(NamedTuple):
    """What a step of `step` did: the new water, and where the rest went, all kg m-2."""

    water: np.ndarray  # (layer, cell) liquid and ice
    moved: np.ndarray  # (layer, cell) down through the bottom of each layer; the last is the drainage
    excess: np.ndarray  # (cell) found no room and left at the top
    drainage: np.ndarray  # (cell) left at the bottom; with jules' numerics it can be slightly negative


def step(
    water: np.ndarray,
    sink: np.ndarray,
    infiltration: np.ndarray,
    parameters: xr.Dataset,
    dt: float,
    *,
    ice: np.ndarray | None = None,
    retention: str = "brooks-corey",
    numerics: str = "newton",
    saturation_excess: str = "up",
) -> Step:
    """One step of soil water, by the code the land models run; in single precision where `water` is float32.

    water, ice    (layer, cell) kg m-2, of which ice; no ice when None
    sink          (layer, cell) kg m-2 s-1, at most the liquid water in dt
    infiltration  (cell) kg m-2 s-1
    parameters    b, psi_s m, K_s kg m-2 s-1, theta_s m3 m-3, each (layer, cell) or (cell)
    dt            s
    Raises VariableError for a wrong shape or missing parameter, RangeError for an impossible value, SettingsError for
    an unknown choice (see `solver`).
    """
    water = np.asarray(water)
    real = np.float32 if water.dtype == np.float32 else np.float64
    solve = solver(retention, numerics, saturation_excess, real)
    if water.ndim != 2 or water.shape[0] != len(LAYERS):
        raise VariableError("soil water", expected=f"shape ({len(LAYERS)}, cell)", found=f"shape {water.shape}")
    cells = water.shape[1]
    layers = (len(LAYERS), cells)
    checks.check_present(parameters, ("b", "psi_s", "K_s", "theta_s"), "parameters")
    b, psi_s, k_s, theta_s = (
        _finite(name, parameters[name], layers, real, above=0.0) for name in ("b", "psi_s", "K_s", "theta_s")
    )
    capacity = np.array([1000.0 * depth for depth in LAYERS], real)[:, None] * theta_s
    ice = _finite("ice", np.zeros(layers) if ice is None else ice, layers, real)
    sink, infiltration = _finite("sink", sink, layers, real), _finite("infiltration", infiltration, (cells,), real)
    water, length = _finite("water", water, layers, real), _finite("dt", np.full(cells, dt), (cells,), real, above=0.0)
    little = 8.0 * np.finfo(real).eps * capacity
    _refuse("ice", ice, (ice < 0.0) | (ice > water), "0 to the water of the layer")
    _refuse("water", water, water > capacity + little, "at most the capacity of the layer")
    _refuse("sink", sink, sink * length > water - ice + little, "at most the liquid water in a step")
    _refuse("infiltration", infiltration, infiltration < 0.0, "≥ 0")
    rows = {WATER: water, ICE: ice, SINK: sink, INFILTRATION: infiltration, STEP: length, B: b, PSI: psi_s, K: k_s}
    blocks = -(-cells // BLOCK)
    w = np.zeros((blocks, ROWS, BLOCK), real)
    for row, values in {**rows, M: capacity}.items():
        some = np.pad(np.atleast_2d(values), ((0, 0), (0, blocks * BLOCK - cells)), mode="edge")
        w[:, row : row + len(some)] = some.reshape(len(some), blocks, BLOCK).swapaxes(0, 1)
    for block in w:
        solve(block.reshape(-1))
    cell = w.swapaxes(0, 1).reshape(ROWS, -1)[:, :cells]
    return Step(cell[WATER : WATER + 4], cell[MOVED : MOVED + 4], cell[EXCESS], cell[DRAINAGE])


def _finite(name: str, values: Any, shape: tuple[int, ...], real: Any, above: float | None = None) -> np.ndarray:
    """`values` as numbers of kind `real` and of `shape`, or of its last dimension; finite, and > `above` if given."""
    found = np.asarray(values, real)
    if found.shape not in (shape, shape[-1:]):
        raise VariableError(f"'{name}'", expected=f"shape {shape}", found=f"shape {found.shape}")
    found = np.broadcast_to(found, shape)
    wrong = ~np.isfinite(found) if above is None else ~(np.isfinite(found) & (found > above))
    _refuse(name, found, wrong, "finite" if above is None else f"finite and > {above:g}")
    return found


def _refuse(name: str, values: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    """RangeError with the first value that is wrong, and where."""
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        where = ", ".join(f"{dim} {k}" for dim, k in zip(("layer", "cell")[-len(at) :], at, strict=False))
        raise RangeError(f"'{name}'", expected=expected, found=f"{values[at]:g}", where=where)
