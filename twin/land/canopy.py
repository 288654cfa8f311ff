"""Leaves: the light they absorb, the carbon they gain, the water vapour that costs, the light they give back.

Light by the two-stream solution, direct sunlight by the sun's height; photosynthesis as the smooth minimum of three
rates (enzyme, light, export); stomata by the humidity deficit; summed over LEAVES equal layers of leaves, nitrogen
falling downwards.

Refs: Clark et al. (2011), Geosci. Model Dev. 4, 701, sections 2 and 3 (radiation as its multi-layer option with a
nitrogen profile); Sellers (1985), Int. J. Remote Sens. 6, 1335; Collatz et al. (1991), Agric. For. Meteorol. 54, 107,
and (1992), Aust. J. Plant Physiol. 19, 519; Jacobs (1994); van der Tol et al. (2014), J. Geophys. Res. Biogeosci. 119,
2312, and Lee et al. (2015), Glob. Change Biol. 21, 3469 (fluorescence).
"""

from __future__ import annotations

import math

from twin.land.air import KARMAN, saturation
from twin.land.compiled import BLOCK, compiled, exp2, log2, stage
from twin.land.rows import (
    AVAILABLE,
    BACK,
    BETA,
    C4,
    CARBON,
    CARBON_GAIN,
    DECAY,
    DIFFUSE_A,
    DIFFUSE_B,
    DQ_CRIT,
    F0,
    F_D,
    FLUORESCENCE,
    G_LEAVES,
    G_MIN,
    GROUND,
    GUESS,
    HUMIDITY,
    LANES,
    LEAF_AREA,
    LOG_H,
    LOG_M,
    P_UP,
    PRESSURE,
    Q_UP,
    QUANTUM,
    RISE,
    ROOTS,
    SCATTER,
    SCRATCH,
    SUN,
    SW,
    T_LOW,
    T_UPP,
    VCMAX,
    WIND,
)

LEAVES = 5  # layers of leaves
_FALL = 0.78  # nitrogen falls as exp(−0.78 z) from the top (z = 0) to the bottom (1): Mercado et al. (2007)
_PER_MOLE = 2.19e5  # J per mol of photons of photosynthetic light (Clark et al. 2011)
_VISIBLE = 0.5  # of sunlight
_BRIGHT = 10e-6  # mol m-2 s-1, light that slows the leaf's own respiration to _SLOWED (Clark et al. 2011)
_SLOWED = 0.7
_OXYGEN = 0.23 * 28.97 / 32.0  # partial pressure over that of the air
_GAS = 8.314  # J mol-1 K-1
_SMOOTH_1, _SMOOTH_2 = 0.83, 0.93  # co-limitation (Clark et al. 2011, eqs. 10 and 11)
_CARBON = 0.012  # kg mol-1
_LOWEST_SUN = 0.05  # cosine of the zenith angle
_LOG2_E = 1.0 / math.log(2.0)
_LOG2_TAU, _LOG2_KC, _LOG2_KO = math.log2(0.57), math.log2(2.1), math.log2(1.2)
_LAYERS = float(LEAVES)
_STEP_DOWN = math.exp(-_FALL / LEAVES)  # nitrogen of a layer over that of the one above
_FIRST = math.exp(-0.5 * _FALL / LEAVES)

# scratch rows of the tile array
_ENZYME, _LIGHT, _EXPORT, _V, _PAR, _DEPTH, _SPREAD, _BEAM, _BEAM_STEP, _GROWN, _QUENCHED, _DEFICIT = range(
    SCRATCH, SCRATCH + 12
)


@compiled
def smaller(a, b, curvature):
    """Smooth minimum of two rates: the smaller root x of curvature x² − (a + b) x + a b = 0."""
    total = a + b
    return (total - math.sqrt(max(total * total - 4.0 * curvature * a * b, 0.0))) / (2.0 * curvature)


@compiled
def _beam(sun, area, scatter, back, decay, p, q, ground):
    """Direct sunlight in the two-stream equations: (A, B, net of P, K) of a beam of 1 with cos z = sun.

    Down and up at leaf area L are D = p A e^{hL} + q B e^{−hL} + P₁ e^{−KL}, U = A e^{hL} + B e^{−hL} + P₀ e^{−KL}.
    Spherical leaves: K = 1/(2 cos z) (Sellers 1985, eqs. 2 to 4).
    """
    k = 0.5 / sun
    k = decay + 0.01 if abs(k - decay) < 0.01 else k  # K = h has another form of solution; a nearby K does
    single = 0.5 * scatter * (1.0 - sun * log2((sun + 1.0) / sun) / _LOG2_E)
    up = (1.0 + k) * single
    down = scatter * k - up
    a = 1.0 - scatter + back
    determinant = k * k - decay * decay
    p0 = (-up * (a - k) - back * down) / determinant
    p1 = (-(a + k) * down - back * up) / determinant
    far = exp2(_LOG2_E * decay * area)
    last = exp2(-_LOG2_E * k * area)
    # no diffuse light from above; the ground reflects what reaches it
    c1, c2, c3 = far * (1.0 - ground * p), (1.0 - ground * q) / far, (ground * (p1 + 1.0) - p0) * last
    first = -(p1 * c2 + q * c3) / (p * c2 - q * c1)
    second = (p1 * c1 + p * c3) / (p * c2 - q * c1)
    return first, second, p1 - p0 + 1.0, k


@compiled
def _prepare(t, c, j, i):
    """What all layers of a type's leaves share in this step."""
    celsius, pressure, carbon = t[GUESS * LANES + j], c[PRESSURE * BLOCK + i], c[CARBON * BLOCK + i]
    warm = 0.1 * (celsius - 25.0)
    hot = exp2(_LOG2_E * 0.3 * (celsius - t[T_UPP * LANES + j]))
    cold = exp2(_LOG2_E * 0.3 * (t[T_LOW * LANES + j] - celsius))
    v = t[VCMAX * LANES + j] * exp2(warm) / ((1.0 + hot) * (1.0 + cold))
    oxygen = _OXYGEN * pressure
    c4 = t[C4 * LANES + j]
    gamma = (1.0 - c4) * oxygen / (5200.0 * exp2(_LOG2_TAU * warm))
    michaelis = 30.0 * exp2(_LOG2_KC * warm) * (1.0 + oxygen / (3e4 * exp2(_LOG2_KO * warm)))
    q, _ = saturation(celsius, pressure)
    deficit = max(q - c[HUMIDITY * BLOCK + i], 0.0)
    open_ = t[F0 * LANES + j] * max(1.0 - deficit / t[DQ_CRIT * LANES + j], 0.0)
    inside = gamma + (carbon - gamma) * open_
    c3 = 1.0 - c4
    t[_ENZYME * LANES + j] = c4 + c3 * (inside - gamma) / (inside + michaelis)
    t[_LIGHT * LANES + j] = t[QUANTUM * LANES + j] * (c4 + c3 * (inside - gamma) / (inside + 2.0 * gamma + 1e-9))
    t[_EXPORT * LANES + j] = c4 * 2e4 * inside / pressure + c3 * 0.5
    t[_V * LANES + j] = v * _FIRST
    # mol m-2 s-1 of carbon into m s-1 of vapour: diffusivities, ideal gas
    t[_DEPTH * LANES + j] = 1.6 * _GAS * (celsius + 273.15) / max(carbon - inside, 1e-2)
    k_d = max(0.03 * celsius + 0.0773, 0.087)
    t[_QUENCHED * LANES + j] = 0.05 + k_d
    t[_DEFICIT * LANES + j] = deficit


@compiled
def _lighten(t, c, j, i, diffuse):
    """Light at the top of the leaves, as the amplitudes of its upward and downward decaying parts and of the beam."""
    sun = max(c[SUN * BLOCK + i], _LOWEST_SUN)
    area = t[LEAF_AREA * LANES + j]
    p, q = t[P_UP * LANES + j], t[Q_UP * LANES + j]
    first, second, net, k = _beam(
        sun, area, t[SCATTER * LANES + j], t[BACK * LANES + j], t[DECAY * LANES + j], p, q, t[GROUND * LANES + j]
    )
    par = _VISIBLE / _PER_MOLE * c[SW * BLOCK + i] * _LAYERS / max(area, 1e-6)  # per leaf area of a layer
    t[_PAR * LANES + j] = par
    t[_GROWN * LANES + j] = ((1.0 - diffuse) * first + diffuse * t[DIFFUSE_A * LANES + j]) * (p - 1.0)
    t[_SPREAD * LANES + j] = ((1.0 - diffuse) * second + diffuse * t[DIFFUSE_B * LANES + j]) * (q - 1.0)
    t[_BEAM * LANES + j] = (1.0 - diffuse) * net
    t[_BEAM_STEP * LANES + j] = exp2(-_LOG2_E * k * area / _LAYERS)


@compiled
def _layer(t, j):
    """Carbon, conductance and fluorescence of the next layer of leaves, added up."""
    rise = t[RISE * LANES + j]
    grown, spread, beam = t[_GROWN * LANES + j], t[_SPREAD * LANES + j], t[_BEAM * LANES + j]
    next_grown, next_spread, next_beam = grown * rise, spread / rise, beam * t[_BEAM_STEP * LANES + j]
    t[_GROWN * LANES + j] = next_grown
    t[_SPREAD * LANES + j] = next_spread
    t[_BEAM * LANES + j] = next_beam
    light = t[_PAR * LANES + j] * max(grown - next_grown + (spread - next_spread) + (beam - next_beam), 0.0)

    v = t[_V * LANES + j]
    t[_V * LANES + j] = v * _STEP_DOWN
    by_light = t[_LIGHT * LANES + j] * light
    gross = smaller(v * t[_ENZYME * LANES + j], by_light, _SMOOTH_1)
    gross = max(smaller(gross, v * t[_EXPORT * LANES + j], _SMOOTH_2), 0.0)
    dark = t[F_D * LANES + j] * v
    dark = _SLOWED * dark if light > _BRIGHT else dark
    beta = t[BETA * LANES + j]
    t[CARBON_GAIN * LANES + j] += gross * beta
    t[G_LEAVES * LANES + j] += max(t[_DEPTH * LANES + j] * (gross - dark) * beta, t[G_MIN * LANES + j])

    # what light does that fixes no carbon: heat (k_d, k_n) or fluorescence (k_f = 0.05)
    used = min(gross * beta / max(by_light, 1e-12), 1.0)
    x = 1.0 - used
    k_n = max((6.2473 * x - 0.5944) * x, 0.0)
    t[FLUORESCENCE * LANES + j] += light * 0.05 / (t[_QUENCHED * LANES + j] + k_n) * (1.0 - 0.8 * used)


@compiled
def _felt(g, deficit, f0, critical, reach):
    """Conductance of leaves that feel the deficit of the air among them, D/(1 + g/reach), not that of the air above.

    g was found with the deficit D of the air above; carbon gain is taken as the same, so that g (1 − f0 + f0 D/D*) is.
    reach is the conductance of the air between, m s-1 (Cox et al. 1998, J. Hydrol. 212-213, 79).
    """
    still, slope = 1.0 - f0, f0 / critical
    least = max(still + slope * min(deficit, critical), 1e-6)
    gain = g * least
    b = still + gain / reach - slope * deficit
    near = 2.0 * still * deficit / (b + math.sqrt(b * b + 4.0 * slope * still * deficit) + 1e-12)
    return gain / max(still + slope * min(near, critical), 1e-6)


@stage
def canopy(t, c, n, diffuse):
    """Stress, stomatal conductance, carbon gain and fluorescence of every type that has leaves, and their conductance.

    t, c      work arrays (`rows`); the state at the start of the step, the weather and AVAILABLE are read
    n         slots in use
    diffuse   share of diffuse light in sunlight
    writes    BETA (1), G_LEAVES (m s-1), CARBON_GAIN (kg m-2 s-1 of carbon), FLUORESCENCE (mol m-2 s-1)
    """
    brightest = c[SW * BLOCK]
    for i in range(BLOCK):
        brightest = max(brightest, c[SW * BLOCK + i])
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            beta = t[ROOTS * LANES + j] * c[AVAILABLE * BLOCK + i]
            beta = beta + t[(ROOTS + 1) * LANES + j] * c[(AVAILABLE + 1) * BLOCK + i]
            beta = beta + t[(ROOTS + 2) * LANES + j] * c[(AVAILABLE + 2) * BLOCK + i]
            beta = beta + t[(ROOTS + 3) * LANES + j] * c[(AVAILABLE + 3) * BLOCK + i]
            t[BETA * LANES + j] = beta
            t[CARBON_GAIN * LANES + j] = 0.0
            t[G_LEAVES * LANES + j] = 0.0
            t[FLUORESCENCE * LANES + j] = 0.0
    if brightest > 0.0:
        for s in range(n):
            for i in range(BLOCK):
                _prepare(t, c, s * BLOCK + i, i)
        for s in range(n):
            for i in range(BLOCK):
                _lighten(t, c, s * BLOCK + i, i, diffuse)
        for _ in range(LEAVES):
            for j in range(n * BLOCK):
                _layer(t, j)
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            area = t[LEAF_AREA * LANES + j]
            share = area / _LAYERS
            lit = c[SW * BLOCK + i] > 0.0
            reach = KARMAN * KARMAN * max(c[WIND * BLOCK + i], 0.1)
            reach = reach / (t[LOG_M * LANES + j] * max(t[LOG_H * LANES + j], 0.2))
            felt = _felt(
                share * t[G_LEAVES * LANES + j],
                t[_DEFICIT * LANES + j],
                t[F0 * LANES + j],
                t[DQ_CRIT * LANES + j],
                reach,
            )
            t[G_LEAVES * LANES + j] = felt if lit else area * t[G_MIN * LANES + j]
            t[CARBON_GAIN * LANES + j] = _CARBON * share * t[CARBON_GAIN * LANES + j] if lit else 0.0
            t[FLUORESCENCE * LANES + j] = share * t[FLUORESCENCE * LANES + j] if lit else 0.0
