"""The surface of each type in a cell: radiation, wind, evaporation, snow, and one temperature that balances them.

    (1 − α) SW + ε LW − ε σ T*⁴ = H + L E + L_f M + C_s (T* − T*_old)/Δt + G

    H = ρ c_p C_H U (T* − T_air − g z/c_p)          E = ψ ρ C_H U (q_sat(T*) − q)
    ψ = f_a + (1 − f_a) g/(g + C_H U)               f_a wet or snowy part, g conductance of leaves and ground
    G = v [ε σ (T*⁴ − T_s⁴) + ρ c_p u*/100 (T* − T_s)] + (1 − v) 2 λ/Δz (T* − T_s)        v ground under leaves

T* from one Newton step about the state at the start of the step; above an hour about that of the middle of the step,
which a first Newton step guesses. Then evaporation is held to what there is, and snow melts; what the linear terms
leave open at the end is heat into the soil, so that energy closes exactly.

Refs: Best et al. (2011), Geosci. Model Dev. 4, 677, sections 2 to 4 (equations as there); Essery et al. (2001), Hadley
Centre Technical Note 30 (numerics, snow albedo); Essery et al. (2003), J. Climate 16, 1855 (snow between needles).
"""

from __future__ import annotations

import math

from twin.land.air import CP, GRAVITY, KARMAN, MELTING, R_DRY, exchange, rough_exchange, saturation
from twin.land.compiled import BLOCK, compiled, exp2, log2, stage, variant
from twin.land.heat import FUSION, HEAT_OF_ICE, HEAT_OF_WATER
from twin.land.rows import (
    ABSORBED,
    AIR,
    ALBEDO,
    ALBEDO_SNOW,
    AVAILABLE,
    BETA,
    CANOPY,
    CAPACITY,
    CARBON_GAIN,
    CONDUCTANCE,
    COVER,
    DRY_HEAT,
    EMISSIVITY,
    ET,
    EXCHANGE,
    FELL_THROUGH,
    FLUORESCENCE,
    FRACTION,
    FRICTION,
    FROM_CANOPY,
    FROM_LAKE,
    FROM_SOIL,
    G_LEAVES,
    GPP,
    GROUND_HEAT,
    GUESS,
    HEAT_CAPACITY,
    HUMIDITY,
    INFILTRATES,
    INTO_SOIL,
    LAMBDA,
    LANES,
    LATENT,
    LIQUID,
    LOG_H,
    LOG_M,
    LW,
    MELTED,
    NET,
    OPEN,
    PRESSURE,
    RAIN,
    RAN_OFF,
    ROOTS,
    SATURATED_K,
    SCRATCH,
    SENSIBLE,
    SIF,
    SNOW,
    SNOW_CONDUCTANCE,
    SNOWFALL,
    SOIL_CONDUCTANCE,
    STORED,
    STRESS,
    SUBLIMED,
    SURFACE,
    SW,
    TEMPERATURE,
    TRANSPIRED,
    WIND,
    Z0,
    Z0_HEAT,
)
from twin.land.runoff import infiltration_excess_grid, infiltration_excess_point
from twin.land.soil import ICE, INFILTRATION, SINK
from twin.variables import LAYERS

LATENT_HEAT = 2.501e6  # J kg-1
SIGMA = 5.670374e-8  # W m-2 K-4
_SNOW_COVER = 0.2  # m2 kg-1: cover is 1 − exp(−0.2 S)
_SNOW_DENSITY, _SNOW_LAMBDA = 250.0, 0.265  # kg m-3, W m-1 K-1
_AGEING, _AGED = 2.0, 0.3  # K below melting where snow darkens, and by how much of the way to bare
_BELOW_LEAVES = 0.01  # u* times this is the conductance between leaves and ground
_TOP = LAYERS[0]
_LOG2_E = 1.0 / math.log(2.0)
# what `balance` leaves for `share`
_START, _FILM, _ICE, _MELT, _BARE, _E, _, _, _, _RHO, _HEAT = range(SCRATCH, SCRATCH + 11)
# what `newton` leaves for `balance`: T*, parts of the potential rate from wet leaves or snow and through g, g, that of
# the ground, q_sat, its slope, and the derivative of all but evaporation
_T, _WET, _DRY, _G, _GROUND_G, _Q, _SLOPE, _STIFFNESS = range(SCRATCH + 11, SCRATCH + 19)
_LONGEST = 20.0  # K, most that one Newton step may change T*
_SHARE = 0.5  # of the liquid water of a layer that one step may take


@stage
def radiation(t, c, n):
    """What each type takes in of the radiation from above (ABSORBED, W m-2): albedo with snow, emissivity."""
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            bare, deep = t[ALBEDO * LANES + j], t[ALBEDO_SNOW * LANES + j]
            aged = min(max(t[SURFACE * LANES + j] + _AGEING, 0.0), _AGEING) / _AGEING
            deep = deep + _AGED * (bare - deep) * aged
            cover = 1.0 - exp2(-_LOG2_E * _SNOW_COVER * max(t[SNOW * LANES + j], 0.0))
            albedo = bare + (deep - bare) * cover
            sun = (1.0 - albedo) * c[SW * BLOCK + i]
            t[ABSORBED * LANES + j] = sun + t[EMISSIVITY * LANES + j] * c[LW * BLOCK + i]


@compiled
def _wetness(canopy, capacity, snow, potential, dt):
    """Part of a type that evaporates freely: all of it under dew, else canopy water over what it could need; none of
    what lies under snow."""
    wet = min(canopy / (max(potential, 0.0) * dt + capacity + 1e-12), 1.0)
    wet = 1.0 if potential < 0.0 else wet
    return 0.0 if snow > 0.0 else wet


@compiled
def _sublimes(snow, conductance, carried):
    """Part of the potential rate at which snow sublimes: snow between needles is sheltered (Essery et al. 2003)."""
    g = conductance * exp2(log2(max(snow, 1e-12)) * (2.0 / 3.0))
    return g / (g + carried) if snow > 0.0 else 0.0


@compiled
def _conductance(leaves, cover, bare, soil):
    """(of leaves and ground together, of the ground's part): ground under leaves counts by the sky it sees."""
    ground = (1.0 - cover) * bare * soil
    return leaves + ground, ground


@stage
def wind(t, c, n, z_wind, z_air, dt):
    """EXCHANGE and FRICTION of each type at the GUESS of its temperature; measured at z_wind and z_air, m."""
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            celsius, air, speed = t[GUESS * LANES + j], c[AIR * BLOCK + i], max(c[WIND * BLOCK + i], 0.1)
            q, _ = saturation(celsius, c[PRESSURE * BLOCK + i])
            log_m, log_h = t[LOG_M * LANES + j], t[LOG_H * LANES + j]
            neutral = KARMAN * KARMAN * speed / (log_m * max(log_h, 0.2))
            density = c[PRESSURE * BLOCK + i] / (R_DRY * (celsius + MELTING))
            potential = density * neutral * (q - c[HUMIDITY * BLOCK + i])
            wet = _wetness(t[CANOPY * LANES + j], t[CAPACITY * LANES + j], t[SNOW * LANES + j], potential, dt)
            g, _ = _conductance(
                t[G_LEAVES * LANES + j], t[COVER * LANES + j], t[CONDUCTANCE * LANES + j],
                max(c[SOIL_CONDUCTANCE * BLOCK + i], t[OPEN * LANES + j])
            )  # fmt: skip
            snow = t[SNOW * LANES + j]
            frozen = _sublimes(snow, t[SNOW_CONDUCTANCE * LANES + j], neutral)
            moist = frozen if snow > 0.0 else wet + (1.0 - wet) * g / (g + neutral)
            warmer = (celsius - air - GRAVITY / CP * z_air) / (air + MELTING)
            buoyancy = GRAVITY * (warmer + 0.61 * moist * (q - c[HUMIDITY * BLOCK + i]))
            carried, friction = exchange(
                speed, buoyancy, z_wind, z_air, t[Z0 * LANES + j], t[Z0_HEAT * LANES + j], log_m, log_h
            )
            t[EXCHANGE * LANES + j] = carried
            t[FRICTION * LANES + j] = friction


first_wind = variant(wind, "first", {exchange: rough_exchange})


@stage
def newton(t, c, n, z_air, dt):
    """One Newton step of every type's balance about its GUESS, into the rows _T to _STIFFNESS, _RHO and _HEAT.

    Returns the largest change, K.
    """
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            guess, pressure, q_air = t[GUESS * LANES + j], c[PRESSURE * BLOCK + i], c[HUMIDITY * BLOCK + i]
            q, slope = saturation(guess, pressure)
            carried = t[EXCHANGE * LANES + j]
            start, below = t[SURFACE * LANES + j], c[TEMPERATURE * BLOCK + i]
            rho = pressure / (R_DRY * (start + MELTING)) * carried
            snow = t[SNOW * LANES + j]
            potential = rho * (q - q_air)
            wet = _wetness(t[CANOPY * LANES + j], t[CAPACITY * LANES + j], snow, potential, dt)
            soil = max(c[SOIL_CONDUCTANCE * BLOCK + i], t[OPEN * LANES + j])
            cover = t[COVER * LANES + j]
            g, ground = _conductance(t[G_LEAVES * LANES + j], cover, t[CONDUCTANCE * LANES + j], soil)
            frozen = _sublimes(snow, t[SNOW_CONDUCTANCE * LANES + j], carried)
            dry = (1.0 - wet) * g / (g + carried) if snow <= 0.0 else 0.0
            moist = frozen + wet + dry
            heat = LATENT_HEAT + (FUSION if snow > 0.0 or (potential < 0.0 and guess < 0.0) else 0.0)
            kelvin, kelvin_s = guess + MELTING, below + MELTING
            black = t[EMISSIVITY * LANES + j] * SIGMA
            emission = black * kelvin * kelvin * kelvin
            emission_s = black * kelvin_s * kelvin_s * kelvin_s * kelvin_s
            insulation = 0.5 * _TOP / c[LAMBDA * BLOCK + i] + max(snow, 0.0) / (_SNOW_DENSITY * _SNOW_LAMBDA)
            air_below = cover * CP * rho / carried * _BELOW_LEAVES * t[FRICTION * LANES + j]
            # no more than would bring the top layer to T* within the step, as it keeps its temperature meanwhile
            water = c[LIQUID * BLOCK + i] * HEAT_OF_WATER + c[ICE * BLOCK + i] * HEAT_OF_ICE
            most = (c[DRY_HEAT * BLOCK + i] + water) / dt
            coupling = min((1.0 - cover) / insulation + air_below, most)
            inertia = t[HEAT_CAPACITY * LANES + j] / dt
            stiffness = inertia + 4.0 * (1.0 + cover) * emission + CP * rho + coupling
            rest = t[ABSORBED * LANES + j] - (1.0 + cover) * emission * kelvin + cover * emission_s
            rest = rest - inertia * (guess - start) - CP * rho * (guess - c[AIR * BLOCK + i] - GRAVITY / CP * z_air)
            rest = rest - coupling * (guess - below)
            change = (rest - heat * moist * potential) / (stiffness + heat * moist * rho * slope)
            t[_T * LANES + j] = guess + min(max(change, -_LONGEST), _LONGEST)
            t[_WET * LANES + j] = frozen + wet
            t[_DRY * LANES + j] = dry
            t[_G * LANES + j] = g
            t[_GROUND_G * LANES + j] = ground
            t[_RHO * LANES + j] = rho
            t[_Q * LANES + j] = q
            t[_SLOPE * LANES + j] = slope
            t[_STIFFNESS * LANES + j] = stiffness
            t[_HEAT * LANES + j] = heat
    most = 0.0 * dt
    for j in range(n * BLOCK):
        most = max(most, abs(t[_T * LANES + j] - t[GUESS * LANES + j]))
    return most


@stage
def half_way(t, n):
    """Move every GUESS halfway to where `newton` took it: the middle of the step."""
    for j in range(n * BLOCK):
        t[GUESS * LANES + j] = 0.5 * (t[GUESS * LANES + j] + t[_T * LANES + j])


@stage
def follow(t, n, far):
    """Move the GUESS to where `newton` took it, if that is more than `far` (K); what is near stays as it is."""
    for j in range(n * BLOCK):
        guess, found = t[GUESS * LANES + j], t[_T * LANES + j]
        t[GUESS * LANES + j] = found if abs(found - guess) > far else guess


@stage
def balance(t, c, n, dt):
    """T*, evaporation and melt of every type, as `newton` has them and then as there is water for.

    Changes SURFACE; writes the rows _START to _HEAT for `share`.
    """
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            celsius, rho, slope = t[_T * LANES + j], t[_RHO * LANES + j], t[_SLOPE * LANES + j]
            wet, dry, g = t[_WET * LANES + j], t[_DRY * LANES + j], t[_G * LANES + j]
            heat, stiffness, bare = t[_HEAT * LANES + j], t[_STIFFNESS * LANES + j], t[_GROUND_G * LANES + j]
            humid = max(t[_Q * LANES + j] + slope * (celsius - t[GUESS * LANES + j]), 0.0) - c[HUMIDITY * BLOCK + i]
            free = wet * rho * humid
            drawn = dry * rho * humid
            snow, lake = t[SNOW * LANES + j], t[OPEN * LANES + j]

            # water for it: on leaves, in the snow, in the soil; dew wets the leaves, frost is snow; a lake has enough
            under_snow = snow > 0.0
            ice = min(free, snow / dt) if under_snow else 0.0
            film = 0.0 if under_snow else (free if lake > 0.0 else min(free, t[CANOPY * LANES + j] / dt))
            film = film + min(drawn, 0.0)
            frost = min(film, 0.0) if heat > LATENT_HEAT else 0.0
            ice, film = ice + frost, film - frost
            per_g = max(drawn, 0.0) / max(g, 1e-12)
            root = per_g * t[G_LEAVES * LANES + j] / max(t[BETA * LANES + j], 1e-12)
            most = _SHARE / dt if lake <= 0.0 else 1e9
            w0, w1 = most * c[LIQUID * BLOCK + i], most * c[(LIQUID + 1) * BLOCK + i]
            w2, w3 = most * c[(LIQUID + 2) * BLOCK + i], most * c[(LIQUID + 3) * BLOCK + i]
            ground = min(per_g * bare, w0)
            e0 = min(root * t[ROOTS * LANES + j] * c[AVAILABLE * BLOCK + i], w0)
            e1 = min(root * t[(ROOTS + 1) * LANES + j] * c[(AVAILABLE + 1) * BLOCK + i], w1)
            e2 = min(root * t[(ROOTS + 2) * LANES + j] * c[(AVAILABLE + 2) * BLOCK + i], w2)
            e3 = min(root * t[(ROOTS + 3) * LANES + j] * c[(AVAILABLE + 3) * BLOCK + i], w3)
            spent = ice + film + ground + (e0 + e1 + e2 + e3)
            celsius = celsius + heat * (free + drawn - spent) / stiffness

            # above freezing, snow takes the heat; with it goes some of the evaporation
            stiff = stiffness + heat * wet * rho * slope
            melt = min(stiff * max(celsius, 0.0) / FUSION, max(snow / dt - ice, 0.0)) if under_snow else 0.0
            cooled = FUSION * melt / stiff
            celsius = celsius - cooled
            ice = ice - wet * rho * slope * cooled if under_snow else ice

            t[_START * LANES + j] = t[SURFACE * LANES + j]
            t[SURFACE * LANES + j] = celsius
            t[_FILM * LANES + j] = film
            t[_ICE * LANES + j] = ice
            t[_MELT * LANES + j] = melt
            t[_BARE * LANES + j] = ground
            t[_E * LANES + j] = e0
            t[(_E + 1) * LANES + j] = e1
            t[(_E + 2) * LANES + j] = e2
            t[(_E + 3) * LANES + j] = e3
            t[_RHO * LANES + j] = rho
            t[_HEAT * LANES + j] = heat


@stage
def share(t, c, n, z_air, dt, shower):
    """Water on leaves and snow after the step, and what the cell gets of it all.

    shower   fraction of the cell that rain falls on, exponentially distributed there; 0 for even rain, as at a point

    Changes CANOPY and SNOW; writes SINK (by layer), INFILTRATION (kg m-2 s-1) and GROUND_HEAT (W m-2); adds the step's
    fluxes times dt to the sums of FLUXES.
    """
    for row in range(4):
        for i in range(BLOCK):
            c[(SINK + row) * BLOCK + i] = 0.0
    for i in range(BLOCK):
        c[INFILTRATION * BLOCK + i] = 0.0
        c[GROUND_HEAT * BLOCK + i] = 0.0
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            film, ice, melt = t[_FILM * LANES + j], t[_ICE * LANES + j], t[_MELT * LANES + j]
            canopy = t[CANOPY * LANES + j]
            lake = t[OPEN * LANES + j] > 0.0
            # leaves: evaporation first, then rain and dew fall through in proportion to what is wet, or spill
            from_leaves = 0.0 if lake else film
            canopy = max(canopy - max(from_leaves, 0.0) * dt, 0.0)
            wetting = c[RAIN * BLOCK + i] + max(-from_leaves, 0.0)
            capacity = t[CAPACITY * LANES + j]
            limit = t[INFILTRATES * LANES + j] * c[SATURATED_K * BLOCK + i]
            filled = min(canopy / max(capacity, 1e-12), 1.0)
            if shower > 0.0:
                exceeds = exp2(-_LOG2_E * shower * capacity / (max(wetting, 1e-30) * dt))
                through = wetting * (filled + (1.0 - filled) * exceeds)
                fast = infiltration_excess_grid(wetting, limit, canopy, capacity, shower, dt)
            else:
                through = wetting * filled if wetting * dt <= capacity else wetting - (capacity - canopy) / dt
                fast = 0.0
            through = min(max(through, 0.0), wetting) if capacity > 0.0 else wetting
            t[CANOPY * LANES + j] = canopy + (wetting - through) * dt
            t[SNOW * LANES + j] = max(t[SNOW * LANES + j] + (c[SNOWFALL * BLOCK + i] - ice - melt) * dt, 0.0)

            part = t[FRACTION * LANES + j]
            arriving = through + melt
            # melt comes on top: of even rain with it, else alone
            alone = min(fast, through) + infiltration_excess_point(melt, limit)
            excess = alone if shower > 0.0 else infiltration_excess_point(arriving, limit)
            e0, e1 = t[_E * LANES + j], t[(_E + 1) * LANES + j]
            e2, e3, ground = t[(_E + 2) * LANES + j], t[(_E + 3) * LANES + j], t[_BARE * LANES + j]
            own = 0.0 if lake else part  # what the soil feels
            c[SINK * BLOCK + i] += own * (e0 + ground)
            c[(SINK + 1) * BLOCK + i] += own * e1
            c[(SINK + 2) * BLOCK + i] += own * e2
            c[(SINK + 3) * BLOCK + i] += own * e3
            c[INFILTRATION * BLOCK + i] += part * (arriving - excess)

            leaves = e0 + e1 + e2 + e3
            spent = ice + film + ground + leaves
            celsius = t[SURFACE * LANES + j]
            kelvin = celsius + MELTING
            square = kelvin * kelvin
            net = t[ABSORBED * LANES + j] - t[EMISSIVITY * LANES + j] * SIGMA * square * square
            sensible = CP * t[_RHO * LANES + j] * (celsius - c[AIR * BLOCK + i] - GRAVITY / CP * z_air)
            latent = t[_HEAT * LANES + j] * spent
            stored = t[HEAT_CAPACITY * LANES + j] * (celsius - t[_START * LANES + j]) / dt
            into = net - sensible - latent - FUSION * melt - stored
            c[GROUND_HEAT * BLOCK + i] += part * into

            weight = part * dt
            c[ET * BLOCK + i] += weight * spent
            c[TRANSPIRED * BLOCK + i] += own * dt * leaves
            c[FROM_SOIL * BLOCK + i] += own * dt * ground
            c[FROM_CANOPY * BLOCK + i] += weight * from_leaves
            c[SUBLIMED * BLOCK + i] += weight * ice
            c[FROM_LAKE * BLOCK + i] += weight * (film + ground + leaves) if lake else 0.0
            c[FELL_THROUGH * BLOCK + i] += weight * through
            c[MELTED * BLOCK + i] += weight * melt
            c[RAN_OFF * BLOCK + i] += weight * excess
            c[NET * BLOCK + i] += weight * net
            c[SENSIBLE * BLOCK + i] += weight * sensible
            c[LATENT * BLOCK + i] += weight * latent
            c[INTO_SOIL * BLOCK + i] += weight * into
            c[STORED * BLOCK + i] += weight * stored
            c[GPP * BLOCK + i] += weight * t[CARBON_GAIN * LANES + j]
            c[SIF * BLOCK + i] += weight * t[FLUORESCENCE * LANES + j]
            c[STRESS * BLOCK + i] += weight * t[BETA * LANES + j]
