"""Air over a surface: humidity at saturation, and what the wind carries away, by Monin-Obukhov similarity.

Functions of one lane's numbers. Refs: Best et al. (2011), Geosci. Model Dev. 4, 677, section 2; Dyer (1974),
Boundary-Layer Meteorol. 7, 363 (unstable); Beljaars & Holtslag (1991), J. Appl. Meteorol. 30, 327 (stable); Godfrey &
Beljaars (1991), J. Geophys. Res. 96, 22043 (gusts); WMO (2008), Guide to Instruments, annex 4.B (saturation).
"""

from __future__ import annotations

import math

from twin.land.compiled import compiled, exp2, log2

KARMAN, GRAVITY, CP, R_DRY, EPSILON = 0.4, 9.80665, 1005.0, 287.05, 0.622
MELTING = 273.15

_LOG2_E, _LN_2 = 1.0 / math.log(2.0), math.log(2.0)
_GUST, _MIXED_LAYER = 0.08, 1000.0  # share of the convective velocity that counts as wind; depth of its eddies, m
_A, _B, _C, _D = 1.0, 2.0 / 3.0, 5.0, 0.35  # Beljaars & Holtslag (1991), eqs. 28 and 32
_MOST = 50.0  # |z/L| beyond which nothing more is asked of the theory


@compiled
def saturation(celsius, pressure):
    """Specific humidity at saturation, over ice below freezing, and its slope, K-1; pressure in Pa.

    Temperature is held within −100 and 80 degree Celsius, so that steam never is more than the air.
    """
    frozen = celsius < 0.0
    a, b = 22.46 if frozen else 17.62, 272.62 if frozen else 243.12
    t = min(max(celsius, -100.0), 80.0)
    e = 611.2 * exp2(_LOG2_E * a * t / (b + t))
    rest = pressure - (1.0 - EPSILON) * e
    q = EPSILON * e / rest
    return q, q * a * b / ((b + t) * (b + t)) * pressure / rest


@compiled
def _arc_tangent(x):
    """arctan(x) for 0 ≤ x ≤ 1; error < 2e-8 (Abramowitz & Stegun 1964, 4.4.49)."""
    z = x * x
    p = -0.0161657367 + z * 0.0028662257
    p = 0.0429096138 + z * p
    p = -0.0752896400 + z * p
    p = 0.1065626393 + z * p
    p = -0.1420889944 + z * p
    p = 0.1999355085 + z * p
    p = -0.3333314528 + z * p
    return x * (1.0 + z * p)


@compiled
def _momentum(upper, lower):
    """ψ_m(upper) − ψ_m(lower), ζ = z/L of the same sign."""
    x = math.sqrt(math.sqrt(1.0 - 16.0 * min(upper, 0.0)))
    y = math.sqrt(math.sqrt(1.0 - 16.0 * min(lower, 0.0)))
    ratio = (1.0 + x) / (1.0 + y)
    unstable = _LN_2 * log2(ratio * ratio * (1.0 + x * x) / (1.0 + y * y))
    unstable = unstable - 2.0 * _arc_tangent((x - y) / (1.0 + x * y))
    u, v = max(upper, 0.0), max(lower, 0.0)
    stable = _A * (v - u) + _B * ((v - _C / _D) * exp2(-_LOG2_E * _D * v) - (u - _C / _D) * exp2(-_LOG2_E * _D * u))
    return unstable if upper < 0.0 else stable


@compiled
def _heat(upper, lower):
    """ψ_h(upper) − ψ_h(lower), ζ = z/L of the same sign."""
    x = math.sqrt(1.0 - 16.0 * min(upper, 0.0))
    y = math.sqrt(1.0 - 16.0 * min(lower, 0.0))
    unstable = 2.0 * _LN_2 * log2((1.0 + x) / (1.0 + y))
    u, v = max(upper, 0.0), max(lower, 0.0)
    s, r = 1.0 + 2.0 / 3.0 * _A * u, 1.0 + 2.0 / 3.0 * _A * v
    stable = r * math.sqrt(r) - s * math.sqrt(s)
    stable = stable + _B * ((v - _C / _D) * exp2(-_LOG2_E * _D * v) - (u - _C / _D) * exp2(-_LOG2_E * _D * u))
    return unstable if upper < 0.0 else stable


@compiled
def _again(carried, velocity, wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h):
    """One iteration of the Obukhov length: (C_H U, friction velocity with gusts, without)."""
    lifted = carried * buoyancy
    inverse = -KARMAN * lifted / max(velocity * velocity * velocity, 1e-9)  # 1/L, m-1
    inverse = min(max(inverse, -_MOST / z_wind), _MOST / z_wind)
    phi_m = max(log_m - _momentum((z_wind + z0) * inverse, z0 * inverse), 0.1)
    phi_h = max(log_h - _heat((z_air + z0) * inverse, z0_heat * inverse), 0.1)
    friction = KARMAN * wind / phi_m
    gust = _gust(lifted)
    velocity = math.sqrt(friction * friction + gust * gust)
    return KARMAN * velocity / phi_h, velocity, friction


@compiled
def _neutral(wind, buoyancy, log_m, log_h):
    """What `_again` starts from: (C_H U, friction velocity with gusts, without) of neutral air."""
    friction = KARMAN * wind / log_m
    carried = KARMAN * friction / log_h
    gust = _gust(carried * buoyancy)
    return carried, math.sqrt(friction * friction + gust * gust), friction


@compiled
def _gust(lifted):
    """Wind of convective eddies near the ground, m s-1, from the buoyancy flux, m2 s-3."""
    gust = _GUST * exp2(log2(max(_MIXED_LAYER * lifted, 1e-12)) / 3.0)
    return gust if lifted > 0.0 else 0.0


@compiled
def exchange(wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h):
    """C_H U and the friction velocity, m s-1, of a surface whose air is lighter than that above by `buoyancy`.

    wind m s-1 at z_wind m; buoyancy g Δθ_v/θ_v, surface less air at z_air m, m s-2 (positive is unstable); roughness
    for momentum and heat, m, and ln((z + z0)/z0), ln((z + z0)/z0h) of the two.

    Three iterations from neutral, as near to JULES' output as five: within a few % of the converged exchange for
    Richardson numbers from −1 to 0.05, tens of % in hot calm and from 0.1 on, where little is exchanged.
    """
    wind, log_h = max(wind, 0.1), max(log_h, 0.2)
    c, v, _ = _neutral(wind, buoyancy, log_m, log_h)
    c, v, _ = _again(c, v, wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h)
    c, v, _ = _again(c, v, wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h)
    c, _, friction = _again(c, v, wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h)
    return c, friction


@compiled
def rough_exchange(wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h):
    """`exchange` after one iteration, for a first guess."""
    wind, log_h = max(wind, 0.1), max(log_h, 0.2)
    c, v, _ = _neutral(wind, buoyancy, log_m, log_h)
    c, _, friction = _again(c, v, wind, buoyancy, z_wind, z_air, z0, z0_heat, log_m, log_h)
    return c, friction
