"""Heat in four soil layers that freeze: conduction and water that carries it, energy kept exactly by enthalpy.

    H = (C_d + w_u c_w + w_f c_i) T − w_f L_f              per layer, J m-2, T in degree Celsius
    dH/dt = F_{k-1} − F_k + c_w (heat carried by water)    F_0 from the surface, F_4 = 0
    F_k = −λ̄ 2 (T_{k+1} − T_k)/(Δz_k + Δz_{k+1})
    θ_u ≤ θ_s (−L_f T/(g T_m ψ_s))^(−1/b)                   liquid water that stays below freezing

Fluxes come from one implicit linear step with the apparent heat capacity; the layers' enthalpies change by those
fluxes, and temperature and ice are what the new enthalpy means. Water that moves between layers has the temperature of
where it comes from, rain and what roots take that of their layer.

Refs: Best et al. (2011), Geosci. Model Dev. 4, 677, section 3; Cox et al. (1999), Clim. Dyn. 15, 183; Dharssi et al.
(2009), Met Office Forecasting R&D Technical Report 528 (conductivity).
"""

from __future__ import annotations

import math

from twin.land.compiled import BLOCK, compiled, exp2, log2, stage
from twin.land.rows import (
    AVAILABLE,
    CARRIED,
    CELL_ROWS,
    CRITICAL,
    DRY_HEAT,
    DRY_LAMBDA,
    ENTHALPY,
    GROUND_HEAT,
    LAMBDA,
    LIQUID,
    MOVING,
    SOIL_CONDUCTANCE,
    TEMPERATURE,
    WET_LAMBDA,
    WILTING,
)
from twin.land.soil import ICE, MOVED, PSI, STEP, WATER, B, M
from twin.variables import LAYERS

HEAT_OF_WATER, HEAT_OF_ICE = 4180.0, 2100.0  # J kg-1 K-1
FUSION = 0.334e6  # J kg-1
PER_KELVIN = 114.3  # suction per degree below freezing, m K-1, as in JULES; L_f/(g T_m) is 125

_D0, _D1, _D2, _D3 = LAYERS
_LOG2_ICE_BY_WATER = math.log2(2.24 / 0.56)  # conductivities, W m-1 K-1
_LOG10_2 = math.log10(2.0)
_ITERATIONS = 40


@compiled
def _thawed(w, m, psi_s, b, celsius):
    """Liquid water (kg m-2) of a layer that holds w, m when saturated."""
    ratio = PER_KELVIN * max(-celsius, 1e-12) / psi_s
    most = m * exp2(-log2(ratio) / b)
    return min(w, most) if celsius < 0.0 else w


@compiled
def _conductivity(water, ice, m, pores, dry, wet):
    """Of a layer, W m-1 K-1: between dry and saturated soil by 1 + log10 S, not below dry (Dharssi et al. 2009).

    wet is that of the thawed, saturated soil; the pores hold ice, which conducts four times better, in its share.
    """
    wet = wet * exp2(_LOG2_ICE_BY_WATER * pores * ice / max(water, 1e-6))
    return dry + (wet - dry) * max(1.0 + _LOG10_2 * log2(max(water / m, 1e-6)), 0.0)


@stage
def begin(c):
    """What a step starts from, by layer: ICE, LIQUID, LAMBDA, ENTHALPY, AVAILABLE; and the top's SOIL_CONDUCTANCE."""
    lanes = c.size // CELL_ROWS  # BLOCK, but not known to the compiler, which would unroll these short loops instead
    for k in range(4):
        coldest = c[(TEMPERATURE + k) * BLOCK]
        for i in range(lanes):
            coldest = min(coldest, c[(TEMPERATURE + k) * BLOCK + i])
            c[(LIQUID + k) * BLOCK + i] = c[(WATER + k) * BLOCK + i]
        if coldest < 0.0:
            for i in range(lanes):
                c[(LIQUID + k) * BLOCK + i] = _thawed(
                    c[(WATER + k) * BLOCK + i], c[(M + k) * BLOCK + i], c[(PSI + k) * BLOCK + i],
                    c[(B + k) * BLOCK + i], c[(TEMPERATURE + k) * BLOCK + i]
                )  # fmt: skip
        depth = 1000.0 * LAYERS[k]
        for i in range(lanes):
            water, liquid = c[(WATER + k) * BLOCK + i], c[(LIQUID + k) * BLOCK + i]
            m, celsius = c[(M + k) * BLOCK + i], c[(TEMPERATURE + k) * BLOCK + i]
            ice = water - liquid
            c[(ICE + k) * BLOCK + i] = ice
            c[(LAMBDA + k) * BLOCK + i] = _conductivity(
                water, ice, m, m / depth, c[(DRY_LAMBDA + k) * BLOCK + i], c[(WET_LAMBDA + k) * BLOCK + i]
            )
            capacity = c[(DRY_HEAT + k) * BLOCK + i] + liquid * HEAT_OF_WATER + ice * HEAT_OF_ICE
            c[(ENTHALPY + k) * BLOCK + i] = capacity * celsius - FUSION * ice
            critical, wilting = c[(CRITICAL + k) * BLOCK + i], c[(WILTING + k) * BLOCK + i]
            c[(AVAILABLE + k) * BLOCK + i] = min(max((liquid - wilting) / (critical - wilting), 0.0), 1.0)
    for i in range(lanes):
        wet = c[LIQUID * BLOCK + i] / c[CRITICAL * BLOCK + i]
        c[SOIL_CONDUCTANCE * BLOCK + i] = wet * wet


@compiled
def _between(a, b, d_a, d_b):
    """Conductance between the middles of two layers, W m-2 K-1, conductivities weighted as the distance they cover."""
    return (d_b * a + d_a * b) / (d_a + d_b) * 2.0 / (d_a + d_b)


@compiled
def _apparent(c, k, i):
    """Heat capacity of a layer with what thawing takes, J m-2 K-1."""
    liquid, ice = c[(LIQUID + k) * BLOCK + i], c[(ICE + k) * BLOCK + i]
    capacity = c[(DRY_HEAT + k) * BLOCK + i] + liquid * HEAT_OF_WATER + ice * HEAT_OF_ICE
    below = max(-c[(TEMPERATURE + k) * BLOCK + i], 1e-3)
    thawing = FUSION * liquid / (c[(B + k) * BLOCK + i] * below)
    return capacity + (thawing if ice > 0.0 else 0.0)


@compiled
def _gained(c, k, i):
    """Water that a layer gained in the step, and what of it came from rain less roots, not from its neighbours."""
    gained = c[(WATER + k) * BLOCK + i] - c[(LIQUID + k) * BLOCK + i] - c[(ICE + k) * BLOCK + i]
    above = c[(MOVED + max(k - 1, 0)) * BLOCK + i] if k > 0 else 0.0
    return HEAT_OF_WATER * gained, HEAT_OF_WATER * (gained + c[(MOVED + k) * BLOCK + i] - above)


@stage
def conduct(c):
    """Move heat for one STEP (s): ENTHALPY after conduction, the surface's heat and the water that moved.

    Through the bottom of a layer goes F = (g + c_w↓) T_k − (g + c_w↑) T_{k+1} with the temperatures at the end of the
    step, g conduction, ↓ and ↑ water (kg m-2) that moved down or up; they change by d_k, from

        (A_k + F_k/T_k) d_k − … = what the fluxes bring at the old temperatures, less what heating the new water takes
    """
    for i in range(BLOCK):
        h = c[STEP * BLOCK + i]
        t0, t1 = c[TEMPERATURE * BLOCK + i], c[(TEMPERATURE + 1) * BLOCK + i]
        t2, t3 = c[(TEMPERATURE + 2) * BLOCK + i], c[(TEMPERATURE + 3) * BLOCK + i]
        l1, l2 = c[(LAMBDA + 1) * BLOCK + i], c[(LAMBDA + 2) * BLOCK + i]
        g0 = h * _between(c[LAMBDA * BLOCK + i], l1, _D0, _D1)
        g1 = h * _between(l1, l2, _D1, _D2)
        g2 = h * _between(l2, c[(LAMBDA + 3) * BLOCK + i], _D2, _D3)
        m0, m1 = HEAT_OF_WATER * c[MOVED * BLOCK + i], HEAT_OF_WATER * c[(MOVED + 1) * BLOCK + i]
        m2, m3 = HEAT_OF_WATER * c[(MOVED + 2) * BLOCK + i], HEAT_OF_WATER * c[(MOVED + 3) * BLOCK + i]
        down0, down1, down2 = g0 + max(m0, 0.0), g1 + max(m1, 0.0), g2 + max(m2, 0.0)
        up0, up1, up2 = g0 + max(-m0, 0.0), g1 + max(-m1, 0.0), g2 + max(-m2, 0.0)
        w0, o0 = _gained(c, 0, i)
        w1, o1 = _gained(c, 1, i)
        w2, o2 = _gained(c, 2, i)
        w3, o3 = _gained(c, 3, i)
        into, o0, o1, o2, o3 = h * c[GROUND_HEAT * BLOCK + i], o0 * t0, o1 * t1, o2 * t2, o3 * t3
        f0, f1, f2, f3 = down0 * t0 - up0 * t1, down1 * t1 - up1 * t2, down2 * t2 - up2 * t3, m3 * t3
        a0, a1 = _apparent(c, 0, i) + w0, _apparent(c, 1, i) + w1
        a2, a3 = _apparent(c, 2, i) + w2, _apparent(c, 3, i) + w3

        p0 = 1.0 / (a0 + down0)
        u0, y0 = up0 * p0, (into - f0 + o0 - w0 * t0) * p0
        p1 = 1.0 / (a1 + up0 + down1 - down0 * u0)
        u1, y1 = up1 * p1, (f0 - f1 + o1 - w1 * t1 + down0 * y0) * p1
        p2 = 1.0 / (a2 + up1 + down2 - down1 * u1)
        u2, y2 = up2 * p2, (f1 - f2 + o2 - w2 * t2 + down1 * y1) * p2
        d3 = (f2 - f3 + o3 - w3 * t3 + down2 * y2) / (a3 + up2 + max(m3, 0.0) - down2 * u2)
        d2 = y2 + u2 * d3
        d1 = y1 + u1 * d2
        d0 = y0 + u0 * d1
        f0, f1, f2 = f0 + down0 * d0 - up0 * d1, f1 + down1 * d1 - up1 * d2, f2 + down2 * d2 - up2 * d3
        f3 = f3 + max(m3, 0.0) * d3
        c[ENTHALPY * BLOCK + i] += into - f0 + o0
        c[(ENTHALPY + 1) * BLOCK + i] += f0 - f1 + o1
        c[(ENTHALPY + 2) * BLOCK + i] += f1 - f2 + o2
        c[(ENTHALPY + 3) * BLOCK + i] += f2 - f3 + o3
        c[CARRIED * BLOCK + i] += o0 + o1 + o2 + o3 - f3


@compiled
def _colder(c, k, i, x):
    """One Newton step for the temperature −x of a layer that holds ice: (new x, ≥ where ice begins)."""
    w, m, b = c[(WATER + k) * BLOCK + i], c[(M + k) * BLOCK + i], c[(B + k) * BLOCK + i]
    onset = c[(PSI + k) * BLOCK + i] / PER_KELVIN * exp2(-b * log2(max(w / m, 1e-6)))
    x = max(x, onset)
    liquid = min(m * exp2(-log2(PER_KELVIN * x / c[(PSI + k) * BLOCK + i]) / b), w)
    capacity = c[(DRY_HEAT + k) * BLOCK + i] + liquid * HEAT_OF_WATER + (w - liquid) * HEAT_OF_ICE
    value = -capacity * x - (w - liquid) * FUSION - c[(ENTHALPY + k) * BLOCK + i]
    slope = capacity + liquid / (b * x) * (FUSION - (HEAT_OF_WATER - HEAT_OF_ICE) * x)
    return max(x + value / slope, onset), onset


@stage
def settle(c, close):
    """TEMPERATURE from ENTHALPY and WATER; Newton's method until no layer moves by more than `close`, relatively.

    H(T) is convex where there is ice, so from the warm side the iterates only fall; a layer without is T = H/C.
    """
    lanes = c.size // CELL_ROWS  # BLOCK, but not known to the compiler, which would unroll these short loops instead
    for k in range(4):
        least = c[(ENTHALPY + k) * BLOCK]
        for i in range(lanes):
            least = min(least, c[(ENTHALPY + k) * BLOCK + i])
        if least >= 0.0:
            for i in range(lanes):
                capacity = c[(DRY_HEAT + k) * BLOCK + i] + c[(WATER + k) * BLOCK + i] * HEAT_OF_WATER
                c[(TEMPERATURE + k) * BLOCK + i] = c[(ENTHALPY + k) * BLOCK + i] / capacity
            continue
        for i in range(lanes):
            capacity = c[(DRY_HEAT + k) * BLOCK + i] + c[(WATER + k) * BLOCK + i] * HEAT_OF_WATER
            thawed = c[(ENTHALPY + k) * BLOCK + i] / capacity
            x = max(-c[(TEMPERATURE + k) * BLOCK + i], 0.0)
            _, onset = _colder(c, k, i, x)
            frozen = thawed < -onset
            c[(TEMPERATURE + k) * BLOCK + i] = -max(x, onset) if frozen else thawed
            c[MOVING * BLOCK + i] = 1.0 if frozen else 0.0
        for _ in range(_ITERATIONS):
            most = 0.0
            for i in range(lanes):
                x = -c[(TEMPERATURE + k) * BLOCK + i]
                new, _ = _colder(c, k, i, max(x, 1e-30))
                on = c[MOVING * BLOCK + i] > 0.0
                c[(TEMPERATURE + k) * BLOCK + i] = -new if on else -x
                c[MOVING * BLOCK + i] = 1.0 if on and abs(new - x) > close * new else 0.0
            for i in range(lanes):
                most = max(most, c[MOVING * BLOCK + i])
            if most == 0.0:
                break
