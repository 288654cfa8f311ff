"""Water that does not stay in the soil: too fast, too full, or drawn by the slope of the land.

What a model calls in a step, for a block of cells, in this order:

    infiltration_excess_point / _grid     by tile: rain and melt faster than the ground takes them; the rest into
                                          INFILTRATION
    saturation_excess_pdm(w)              either   PDM: part of the cell is full; its share of INFILTRATION runs off
    topmodel_before(w)                    or       TOPMODEL: the same, and baseflow from below the water table
    soil.advance(w)
    topmodel_after(w)                     only after topmodel_before: the deep store and the water table

Surface runoff is EXCESS. What leaves at the bottom is DRAINAGE or, with TOPMODEL, BASEFLOW: then the drainage goes into
a store from 3 m to 6 m, of which DEEP is the saturation, and which counts as the cell's water.

     0 m ┌──────────────┐ ← INFILTRATION (1 − f_sat)
         │ four layers  │ → baseflow of the part below the water table   K (1 − S_ice)**(2b+3) exp(−Λ) per m
     3 m ├──────────────┤
         │ deep store ▿ │ → baseflow                                    K exp(−f (z − 3 m)) exp(−Λ) per m
     6 m └──────────────┘   Λ mean topographic index ln(a/tan β), f decay of conductivity (m-1), ▿ water table z_w

Refs: Dolman & Gregory (1992); Moore (1985); Beven & Kirkby (1979); Gedney & Cox (2003); Clark & Gedney (2008);
Best et al. (2011), section 3.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincc

from twin.errors import RangeError
from twin.land.compiled import BLOCK, compiled, exp2, log2, stage
from twin.land.soil import DRAINAGE, EXCESS, ICE, INFILTRATION, MOVED, PSI, SINK, STEP, WATER, B, K, M
from twin.land.soil import ROWS as _ROW
from twin.variables import LAYERS

# Rows of TOPMODEL, after those of the soil.
WATER_TABLE = _ROW  # state: depth of the water table, m
DEEP = _ROW + 1  # state: saturation of the deep store
BASEFLOW = _ROW + 2  # out: kg m-2, added to what is there
SATURATED = _ROW + 3  # out: saturated fraction of the cell in this step
TI_MEAN, DECAY = _ROW + 4, _ROW + 5  # in: mean topographic index; decay of conductivity below 3 m, m-1
FIT = _ROW + 6  # 6, 7 in: a and c of `fit_saturated_fraction`
_DEEP_FLOW = _ROW + 8  # scratch: baseflow of the deep store, kg m-2
ROWS = _ROW + 9

DEEPEST = 6.0  # deepest water table, m, and bottom of the deep store
TI_MAX = 10.0  # largest topographic index
PDM_DEPTH = 1.0  # m, the first three layers
PDM_SHAPE = 1.0  # exponent b of the distribution of storage capacities

_D0, _D1, _D2, _D3 = LAYERS
_Z1, _Z2, _Z3, _Z4 = LAYERS[0], sum(LAYERS[:2]), sum(LAYERS[:3]), sum(LAYERS)
_DEEP_DEPTH = DEEPEST - _Z4
_LOG2_E, _LN_2 = 1.0 / math.log(2.0), math.log(2.0)
_FULL = 1.0 - 1e-6  # saturation from which a layer counts as below the water table
_TINY = 1e-30


# --- infiltration excess --------------------------------------------------------------------------------------------
@compiled
def infiltration_excess_point(water, limit):
    """Runoff of `water` that falls evenly, above what the ground takes; all kg m-2 per time (Best et al. 2011)."""
    return max(water - limit, 0.0)


@compiled
def infiltration_excess_grid(rain, limit, canopy, capacity, share, dt):
    """Runoff of rain that falls on a part of the cell, exponentially distributed there, through a partly wet canopy.

    rain, limit        kg m-2 s-1: rate over the cell, what the ground takes
    canopy, capacity   kg m-2: water on the leaves before the rain, and at most
    share              fraction of the cell rained on: 1 large scale, 0.3 convective
    dt                 s
    Ref: Dolman & Gregory (1992); Best et al. (2011), the two forms for limit · dt ≤ canopy and above it.
    """
    filled = canopy / capacity if capacity > 0.0 else 1.0
    per = share * _LOG2_E / max(rain, _TINY)
    drip = exp2(-per * limit / max(filled, _TINY))
    through = exp2(-per * capacity / dt)
    low = filled * drip + (1.0 - filled) * through
    high = exp2(-per * (limit + (capacity - canopy) / dt))
    return rain * (low if limit * dt <= canopy else high)


# --- saturation excess: PDM -----------------------------------------------------------------------------------------
@compiled
def pdm_runoff(arriving, water, capacity, shape):
    """Runoff from a store whose capacity is Pareto distributed over the cell, kg m-2.

    arriving, water, capacity   kg m-2: input, content and its maximum
    shape                       exponent b: the share of the cell with less capacity than c is 1 − (1 − c/c_max)**b
    Refs: Moore (1985); Clark & Gedney (2008).
    """
    s = min(max(water / capacity, 0.0), 1.0)
    c_max = (shape + 1.0) * capacity
    unfilled = exp2(log2(max(1.0 - s, _TINY)) / (shape + 1.0)) - arriving / c_max  # 1 − c*/c_max, after the rain
    left = exp2((shape + 1.0) * log2(max(unfilled, _TINY)))
    left = left if unfilled > 0.0 else 0.0
    return min(max(arriving - capacity * (1.0 - s - left), 0.0), arriving)


@stage
def saturation_excess_pdm(w):
    """Take from INFILTRATION what falls where the first metre is full, into EXCESS."""
    for i in range(BLOCK):
        h = w[STEP * BLOCK + i]
        water = w[WATER * BLOCK + i] + w[(WATER + 1) * BLOCK + i] + w[(WATER + 2) * BLOCK + i]
        capacity = w[M * BLOCK + i] + w[(M + 1) * BLOCK + i] + w[(M + 2) * BLOCK + i]
        arriving = h * w[INFILTRATION * BLOCK + i]
        runoff = pdm_runoff(arriving, water, capacity, PDM_SHAPE)
        w[EXCESS * BLOCK + i] += runoff
        w[INFILTRATION * BLOCK + i] = (arriving - runoff) / h if h > 0.0 else w[INFILTRATION * BLOCK + i]


# --- TOPMODEL -------------------------------------------------------------------------------------------------------
def saturated_fraction(index: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Share of a cell whose topographic index lies between `index` and its largest value, 10.

    mean, deviation   of the index, which is gamma distributed; all of shapes that broadcast
    Ref: Gedney & Cox (2003).
    """
    shape, scale = (mean / deviation) ** 2, deviation**2 / mean
    return np.maximum(gammaincc(shape, index / scale) - gammaincc(shape, TI_MAX / scale), 0.0)


def fit_saturated_fraction(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, c) of a exp(−c TI), the exponential nearest to `saturated_fraction` from the mean index up.

    mean, deviation   (cell) of the topographic index
    Least squares of the logarithm at 20 indices, weighted by the square of the fraction, which is least squares of the
    fraction itself for a close fit. (0, 0) where the mean is 10 or more. Raises RangeError where not finite and > 0.
    Ref: Gedney & Cox (2003).
    """
    mean, deviation = np.asarray(mean, np.float64), np.asarray(deviation, np.float64)
    for name, values in (("mean", mean), ("standard deviation", deviation)):
        if not (np.isfinite(values) & (values > 0.0)).all():
            found = values[~(np.isfinite(values) & (values > 0.0))].flat[0]
            raise RangeError(f"{name} of the topographic index", expected="finite and > 0", found=f"{found:g}")
    index = np.linspace(np.minimum(mean, TI_MAX), TI_MAX, 20, endpoint=False)
    fraction = saturated_fraction(index, mean, deviation)
    weight = fraction**2 / np.maximum((fraction**2).sum(axis=0), _TINY)
    log = np.log(np.maximum(fraction, _TINY))
    at, height = (weight * index).sum(axis=0), (weight * log).sum(axis=0)
    spread = (weight * (index - at) ** 2).sum(axis=0)
    c = -(weight * (index - at) * (log - height)).sum(axis=0) / np.where(spread > 0.0, spread, 1.0)
    some = mean < TI_MAX
    return np.where(some, np.exp(height + c * at), 0.0), np.where(some, c, 0.0)


@compiled
def _below(table, top, bottom):
    """How much of a layer lies below the water table, m."""
    return min(max(bottom - table, 0.0), bottom - top)


@compiled
def deep_transmissivity(table, k, decay):
    """Transmissivity between the water table, or 3 m where that is higher, and 6 m; (unit of k) m."""
    upper = exp2(-_LOG2_E * decay * max(table - _Z4, 0.0))
    return k / decay * max(upper - exp2(-_LOG2_E * decay * _DEEP_DEPTH), 0.0)


@compiled
def _flow(k, ice, m, b, slope, below):
    """Baseflow of a layer, kg m-2 per time: its part below the water table is saturated but for the ice."""
    return k * exp2((2.0 * b + 3.0) * log2(max(1.0 - ice / m, _TINY))) * slope * below


@stage
def topmodel_before(w):
    """Saturated fraction, its runoff into EXCESS, and the layers' baseflow, added to SINK and BASEFLOW.

    The critical topographic index is Λ + ln(T(0)/T(z_w)), T the transmissivity below a depth, unfrozen: where the local
    water table reaches the surface (Beven & Kirkby 1979). No layer gives more than its liquid water.
    """
    for i in range(BLOCK):
        h = w[STEP * BLOCK + i]
        per = 1.0 / h if h > 0.0 else 0.0
        table, ti, decay = w[WATER_TABLE * BLOCK + i], w[TI_MEAN * BLOCK + i], w[DECAY * BLOCK + i]
        k0, k1, k2, k3 = w[K * BLOCK + i], w[(K + 1) * BLOCK + i], w[(K + 2) * BLOCK + i], w[(K + 3) * BLOCK + i]
        n0, n1 = _below(table, 0.0, _Z1), _below(table, _Z1, _Z2)
        n2, n3 = _below(table, _Z2, _Z3), _below(table, _Z3, _Z4)
        deep = deep_transmissivity(table, k3, decay)
        now = k0 * n0 + k1 * n1 + k2 * n2 + k3 * n3 + deep
        most = k0 * _D0 + k1 * _D1 + k2 * _D2 + k3 * _D3 + deep_transmissivity(0.0, k3, decay)
        critical = ti + _LN_2 * log2(most / max(now, _TINY))
        fraction = w[FIT * BLOCK + i] * exp2(-_LOG2_E * w[(FIT + 1) * BLOCK + i] * critical)
        fraction = min(fraction, 1.0) if critical < TI_MAX else 0.0
        w[SATURATED * BLOCK + i] = fraction
        arriving = w[INFILTRATION * BLOCK + i]
        w[EXCESS * BLOCK + i] += h * arriving * fraction
        w[INFILTRATION * BLOCK + i] = arriving * (1.0 - fraction)

        slope = exp2(-_LOG2_E * ti)
        i0, i1, i2, i3 = (
            w[ICE * BLOCK + i],
            w[(ICE + 1) * BLOCK + i],
            w[(ICE + 2) * BLOCK + i],
            w[(ICE + 3) * BLOCK + i],
        )
        e0, e1 = w[SINK * BLOCK + i], w[(SINK + 1) * BLOCK + i]
        e2, e3 = w[(SINK + 2) * BLOCK + i], w[(SINK + 3) * BLOCK + i]
        q0 = _flow(k0, i0, w[M * BLOCK + i], w[B * BLOCK + i], slope, n0)
        q1 = _flow(k1, i1, w[(M + 1) * BLOCK + i], w[(B + 1) * BLOCK + i], slope, n1)
        q2 = _flow(k2, i2, w[(M + 2) * BLOCK + i], w[(B + 2) * BLOCK + i], slope, n2)
        q3 = _flow(k3, i3, w[(M + 3) * BLOCK + i], w[(B + 3) * BLOCK + i], slope, n3)
        q0 = min(q0, max(per * (w[WATER * BLOCK + i] - i0) - e0, 0.0))
        q1 = min(q1, max(per * (w[(WATER + 1) * BLOCK + i] - i1) - e1, 0.0))
        q2 = min(q2, max(per * (w[(WATER + 2) * BLOCK + i] - i2) - e2, 0.0))
        q3 = min(q3, max(per * (w[(WATER + 3) * BLOCK + i] - i3) - e3, 0.0))
        w[SINK * BLOCK + i] = e0 + q0
        w[(SINK + 1) * BLOCK + i] = e1 + q1
        w[(SINK + 2) * BLOCK + i] = e2 + q2
        w[(SINK + 3) * BLOCK + i] = e3 + q3
        w[_DEEP_FLOW * BLOCK + i] = h * deep * slope
        w[BASEFLOW * BLOCK + i] += h * (q0 + q1 + q2 + q3)


@stage
def topmodel_after(w):
    """Put the drainage into the deep store, take its baseflow, let what it cannot hold rise, find the water table.

    What rises takes back DRAINAGE and fills the layers from below, the last of it leaving as EXCESS; what JULES' own
    numerics drew up from an empty store is taken back in the same way.
    """
    for i in range(BLOCK):
        capacity = w[(M + 3) * BLOCK + i] * (_DEEP_DEPTH / _D3)
        f0, f1, f2 = w[MOVED * BLOCK + i], w[(MOVED + 1) * BLOCK + i], w[(MOVED + 2) * BLOCK + i]
        f3 = w[(MOVED + 3) * BLOCK + i]
        held = w[DEEP * BLOCK + i] * capacity
        out = min(w[_DEEP_FLOW * BLOCK + i], max(held + f3, 0.0))
        rising = max(held + f3 - out - capacity, 0.0) + min(held + f3, 0.0)
        full, empty = rising > 0.0, rising < 0.0
        saturation = w[DEEP * BLOCK + i] + (f3 - out) / capacity
        saturation = 1.0 if full else min(max(saturation, 0.0), 1.0)
        w[DEEP * BLOCK + i] = 0.0 if empty else saturation
        w[BASEFLOW * BLOCK + i] += out
        w[DRAINAGE * BLOCK + i] -= rising
        w[(MOVED + 3) * BLOCK + i] = f3 - rising
        w3 = w[(WATER + 3) * BLOCK + i] + rising
        t = _beyond(w3, w[(ICE + 3) * BLOCK + i], w[(M + 3) * BLOCK + i], rising)
        w3, w2, f2 = w3 - t, w[(WATER + 2) * BLOCK + i] + t, f2 - t
        t = _beyond(w2, w[(ICE + 2) * BLOCK + i], w[(M + 2) * BLOCK + i], rising)
        w2, w1, f1 = w2 - t, w[(WATER + 1) * BLOCK + i] + t, f1 - t
        t = _beyond(w1, w[(ICE + 1) * BLOCK + i], w[(M + 1) * BLOCK + i], rising)
        w1, w0, f0 = w1 - t, w[WATER * BLOCK + i] + t, f0 - t
        t = _beyond(w0, w[ICE * BLOCK + i], w[M * BLOCK + i], rising)
        w[EXCESS * BLOCK + i] += max(t, 0.0)
        w[WATER * BLOCK + i] = w0 - t
        w[(WATER + 1) * BLOCK + i] = w1
        w[(WATER + 2) * BLOCK + i] = w2
        w[(WATER + 3) * BLOCK + i] = w3
        w[MOVED * BLOCK + i] = f0
        w[(MOVED + 1) * BLOCK + i] = f1
        w[(MOVED + 2) * BLOCK + i] = f2
    water_table(w)


@compiled
def _beyond(water, ice, capacity, rising):
    """What a layer has too much of when water rises into it, or too little (negative) when some is taken back."""
    above = max(water - capacity, 0.0) if rising > 0.0 else 0.0
    return min(water - ice, 0.0) if rising < 0.0 else above


@stage
def water_table(w):
    """WATER_TABLE where the lowest layer that is not full holds what it would at rest above that water table.

    At rest ψ = ψ_s + z_w − z, so that S = (1 + (z_w − z)/ψ_s)**(−1/b) above the water table and 1 below it, with the
    exponents of Brooks and Corey whatever the retention. A layer too dry for any water table within it puts it at its
    bottom. Refs: Clark & Gedney (2008); Best et al. (2011).
    """
    for i in range(BLOCK):
        s0, s1 = w[WATER * BLOCK + i] / w[M * BLOCK + i], w[(WATER + 1) * BLOCK + i] / w[(M + 1) * BLOCK + i]
        s2, s3 = (
            w[(WATER + 2) * BLOCK + i] / w[(M + 2) * BLOCK + i],
            w[(WATER + 3) * BLOCK + i] / w[(M + 3) * BLOCK + i],
        )
        deep = w[DEEP * BLOCK + i]
        b, psi = w[B * BLOCK + i], w[PSI * BLOCK + i]
        s, top, depth = s0, 0.0, _D0
        s, top, depth = (s1, _Z1, _D1) if s1 < _FULL else (s, top, depth)
        b, psi = (w[(B + 1) * BLOCK + i], w[(PSI + 1) * BLOCK + i]) if s1 < _FULL else (b, psi)
        s, top, depth = (s2, _Z2, _D2) if s2 < _FULL else (s, top, depth)
        b, psi = (w[(B + 2) * BLOCK + i], w[(PSI + 2) * BLOCK + i]) if s2 < _FULL else (b, psi)
        s, top, depth = (s3, _Z3, _D3) if s3 < _FULL else (s, top, depth)
        lower = s3 < _FULL or deep < _FULL
        b, psi = (w[(B + 3) * BLOCK + i], w[(PSI + 3) * BLOCK + i]) if lower else (b, psi)
        s, top, depth = (deep, _Z4, _DEEP_DEPTH) if deep < _FULL else (s, top, depth)
        w[WATER_TABLE * BLOCK + i] = top + depth_of_table(s, depth, b, psi)


@compiled
def depth_of_table(s, depth, b, psi_s):
    """Depth of the water table below the top of a layer of saturation `s` at rest; at most its `depth`, m.

    Newton's method from the left of the root of a concave function: the first step overshoots, then it falls to it.
    """
    missing = max(1.0 - s, 0.0) * depth
    x = min(math.sqrt(2.0 * b * psi_s * missing), depth)
    e = 1.0 - 1.0 / b
    e = e if abs(e) > 1e-4 else 1e-4
    x = _nearer(x, missing, depth, e, psi_s)
    x = _nearer(x, missing, depth, e, psi_s)
    x = _nearer(x, missing, depth, e, psi_s)
    x = _nearer(x, missing, depth, e, psi_s)
    x = _nearer(x, missing, depth, e, psi_s)
    return _nearer(x, missing, depth, e, psi_s)


@compiled
def _nearer(x, missing, depth, e, psi_s):
    """One iteration for x = z_w: missing = x − ∫ S over x, S = (1 + x/ψ_s)**(e − 1)."""
    above = 1.0 + x / psi_s
    s = exp2((e - 1.0) * log2(above))
    gap = missing - x + psi_s / e * (s * above - 1.0)
    return min(max(x + gap / max(1.0 - s, 1e-9), 0.0), depth)
