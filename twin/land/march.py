"""The sub-daily tier, step by step: the energy balance of every surface type over one soil that conducts and drains.

    weather ──► radiation ─ canopy ─ wind ─ balance ─ share         by type: `surface`, `canopy`, `air`
                    ▲                                   │ roots, rain, heat
                    └── temperature, water ◄── runoff, soil, heat   by cell

Cells exchange nothing, so they are stepped in blocks with the same bits as one by one. Daily forcing is spread over the
day (`weather`) as it is needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from twin.land import lanes, soil, weather
from twin.land.canopy import canopy
from twin.land.compiled import BLOCK, stage, variant
from twin.land.heat import begin, conduct, settle
from twin.land.rows import (
    AIR,
    CANOPY,
    CARBON,
    CELL_ROWS,
    COS_LAT,
    DRAINED,
    FLUXES,
    FRACTION,
    GUESS,
    HUMIDITY,
    LANES,
    LON,
    LW,
    PRESSURE,
    RAIN,
    RAN_OFF,
    SATURATED_K,
    SIN_LAT,
    SNOW,
    SNOWFALL,
    SUM,
    SUN,
    SURFACE,
    SW,
    TEMPERATURE,
    WIND,
)
from twin.land.runoff import (
    BASEFLOW,
    DECAY,
    DEEP,
    FIT,
    TI_MEAN,
    WATER_TABLE,
    saturation_excess_pdm,
    topmodel_after,
    topmodel_before,
)
from twin.land.soil import DRAINAGE, EXCESS, STEP, WATER, K, advance
from twin.land.surface import balance, first_wind, follow, half_way, newton, radiation, share, wind
from twin.land.weather import LAT as DAY_LAT
from twin.land.weather import LON as DAY_LON
from twin.land.weather import day, sine, turn
from twin.variables import LAYERS

NO_EXCESS, PDM, TOPMODEL = 0, 1, 2  # how the cell sheds water that finds part of it full


SITE_ROWS = (SIN_LAT, COS_LAT, LON, TI_MEAN, DECAY, FIT, FIT + 1)
SOIL_ROWS, CONSTANT_ROWS = lanes.SOIL_ROWS, lanes.TILE_ROWS
_DEPTHS = tuple(1000.0 * depth for depth in LAYERS)  # kg m-2 of water that fill a layer
_LOWEST_SUN = 1e-3
_TRIES = 10  # Newton steps for T* where the weather jumps


@stage
def _place(t, c, n, cells, tiles, soils, constants, theta, kelvin, surface, leaves, snow, table, site, zero):
    """State and constants of a block into its work arrays; `zero` is 0 degree Celsius in kelvin, float64."""
    for row in range(len(SOIL_ROWS)):
        for k in range(4):
            for i in range(BLOCK):
                c[(SOIL_ROWS[row] + k) * BLOCK + i] = soils[row, k, cells[i]]
    for i in range(BLOCK):
        cell = cells[i]
        for k in range(4):
            c[(TEMPERATURE + k) * BLOCK + i] = kelvin[k, cell] - zero
            c[(WATER + k) * BLOCK + i] = theta[k, cell]
            c[(WATER + k) * BLOCK + i] *= _DEPTHS[k]
        c[SATURATED_K * BLOCK + i] = c[K * BLOCK + i]
        c[WATER_TABLE * BLOCK + i] = table[0, cell]
        c[DEEP * BLOCK + i] = table[1, cell]
        for row in range(len(SITE_ROWS)):
            c[SITE_ROWS[row] * BLOCK + i] = site[row, cell]
        for row in range(len(FLUXES)):
            c[(SUM + row) * BLOCK + i] = 0.0
        c[EXCESS * BLOCK + i] = 0.0
        c[DRAINAGE * BLOCK + i] = 0.0
        c[BASEFLOW * BLOCK + i] = 0.0
    for row in range(len(CONSTANT_ROWS)):
        for j in range(n * BLOCK):
            t[(CONSTANT_ROWS[row]) * LANES + j] = constants[row, j]
    for s in range(n):
        for i in range(BLOCK):
            j = s * BLOCK + i
            tile, cell = tiles[s, i], cells[i]
            t[SURFACE * LANES + j] = surface[tile, cell] - zero
            t[CANOPY * LANES + j] = leaves[tile, cell]
            t[SNOW * LANES + j] = snow[tile, cell]


@stage
def _round(t, c, n, zero):
    """Make the state what it is when written and read again: θ (m3 m-3) and kelvin."""
    width = c.size // CELL_ROWS  # see heat.begin
    for k in range(4):
        depth = _DEPTHS[k]
        for i in range(width):
            c[(WATER + k) * BLOCK + i] = depth * (c[(WATER + k) * BLOCK + i] / depth)
        for i in range(width):
            c[(TEMPERATURE + k) * BLOCK + i] = (c[(TEMPERATURE + k) * BLOCK + i] + zero) - zero
    for j in range(n * BLOCK):
        t[SURFACE * LANES + j] = (t[SURFACE * LANES + j] + zero) - zero


@stage
def _weather(c, steps, at, carbon, zero):
    """One step of a block's weather, from (step, row, BLOCK) in the order of `weather.STEP_ROWS`."""
    for i in range(BLOCK):
        c[SW * BLOCK + i] = steps[(at * 8 + 0) * BLOCK + i]
        c[LW * BLOCK + i] = steps[(at * 8 + 1) * BLOCK + i]
        c[RAIN * BLOCK + i] = steps[(at * 8 + 2) * BLOCK + i]
        c[SNOWFALL * BLOCK + i] = steps[(at * 8 + 3) * BLOCK + i]
        c[AIR * BLOCK + i] = steps[(at * 8 + 4) * BLOCK + i] - zero
        c[HUMIDITY * BLOCK + i] = steps[(at * 8 + 5) * BLOCK + i]
        c[WIND * BLOCK + i] = steps[(at * 8 + 6) * BLOCK + i]
        pressure = steps[(at * 8 + 7) * BLOCK + i]
        c[PRESSURE * BLOCK + i] = pressure
        c[CARBON * BLOCK + i] = carbon * pressure


@stage
def _height(c, declination, turns):
    """SUN: the mean over a step of the cosine of the zenith angle, weighted by itself.

    declination   (2,) its sine and cosine; turns (n,) hour angles at longitude 0 within the step, in turns
    """
    for i in range(BLOCK):
        total, square = 0.0, 0.0
        for n in range(turns.size):
            x = turn(turns[n] + c[LON * BLOCK + i])
            high = c[SIN_LAT * BLOCK + i] * declination[0]
            high = max(high + c[COS_LAT * BLOCK + i] * declination[1] * sine(turn(x + 0.25)), 0.0)
            total += high
            square += high * high
        c[SUN * BLOCK + i] = square / total if total > _LOWEST_SUN else 0.0


@stage
def march(
    t, c, day_work, day_steps, keys, plan_cells, plan_tiles, used, slots, soils, constants, weather_in, daily, numbers,
    held, suns, turns, carbon, dt, z_wind, z_air, diffuse, shower, passes, far, excess, per_output, close, zero,
    theta, kelvin, surface, leaves, snow, table, site, wanted, fluxes, layers, stores, first_output,
):  # fmt: skip
    """Every step for some blocks: changes the state in place and fills the diagnostics.

    t, c                    work arrays (`rows`); day_work, day_steps those of `weather.day`
    plan_cells to slots     the `lanes.Layout` of the blocks, keys their `weather.cell_keys`
    soils, constants        `lanes.soil_constants` of all cells, `lanes.tile_constants` of the blocks
    weather_in              arrays (time, cell): `weather.DAILY_ROWS` when `daily`, else `weather.STEP_ROWS`; each holds
                            for `held` steps; numbers are the days since 1970-01-01
    suns, turns             `sky_of`; carbon the mole fraction of carbon dioxide, by step
    dt to close             numbers of `Land`; passes Newton steps of the surface,
                            more while one moves T* by more than `far` K; per_output steps of an interval
    zero                    273.15, float64 in both precisions
    theta to table, site    state by (layer, cell), (tile, cell), (2, cell); SITE_ROWS, then latitude and longitude
    wanted                  which of FLUXES go into fluxes (row, time, cell); layers (2, time, layer, cell) water and
                            temperature, stores (3, time, cell) leaves, snow, surface temperature; from first_output on
    """
    length = per_output * 1.0
    for block in range(used.size):
        n, cells, tiles = slots[block], plan_cells[block], plan_tiles[block]
        _place(t, c, n, cells, tiles, soils, constants[block], theta, kelvin, surface, leaves, snow, table, site, zero)
        for i in range(BLOCK):
            c[STEP * BLOCK + i] = dt
        steps = suns.shape[0]
        for step in range(steps):
            at = step % held
            if at == 0 and daily:
                today = step // held
                for row in range(9):
                    for i in range(BLOCK):
                        day_work[row * BLOCK + i] = weather_in[row][today, cells[i]]
                for i in range(BLOCK):
                    day_work[DAY_LAT * BLOCK + i] = site[7, cells[i]]
                    day_work[DAY_LON * BLOCK + i] = site[8, cells[i]]
                day(day_work, keys[block], numbers[today], held, day_steps)
            elif at == 0:
                for row in range(8):
                    for i in range(BLOCK):
                        day_steps[row * BLOCK + i] = weather_in[row][step // held, cells[i]]
            if not daily:
                at = 0
            _weather(c, day_steps, at, carbon[step], zero)
            _height(c, suns[step], turns[step])
            begin(c)
            radiation(t, c, n)
            for j in range(n * BLOCK):
                t[GUESS * LANES + j] = t[SURFACE * LANES + j]
            canopy(t, c, n, diffuse)
            for _ in range(passes - 1):
                first_wind(t, c, n, z_wind, z_air, dt)
                newton(t, c, n, z_air, dt)
                half_way(t, n)
            wind(t, c, n, z_wind, z_air, dt)
            moved = newton(t, c, n, z_air, dt)
            for _ in range(_TRIES):
                if moved <= far:
                    break
                follow(t, n, far)
                wind(t, c, n, z_wind, z_air, dt)
                moved = newton(t, c, n, z_air, dt)
            balance(t, c, n, dt)
            share(t, c, n, z_air, dt, shower)
            if excess == PDM:
                saturation_excess_pdm(c)
            elif excess == TOPMODEL:
                topmodel_before(c)
            advance(c)
            if excess == TOPMODEL:
                topmodel_after(c)
            conduct(c)
            settle(c, close)
            _round(t, c, n, zero)
            if (step + 1) % per_output == 0:
                out = first_output + step // per_output
                for i in range(used[block]):
                    cell = cells[i]
                    c[RAN_OFF * BLOCK + i] += c[EXCESS * BLOCK + i]
                    c[DRAINED * BLOCK + i] += c[BASEFLOW * BLOCK + i] if excess == TOPMODEL else c[DRAINAGE * BLOCK + i]
                    for row in range(wanted.size):
                        fluxes[row, out, cell] = c[(SUM + wanted[row]) * BLOCK + i] / (length * dt)
                    for k in range(4):
                        layers[0, out, k, cell] = c[(WATER + k) * BLOCK + i] / _DEPTHS[k]
                        layers[1, out, k, cell] = c[(TEMPERATURE + k) * BLOCK + i] + zero
                    on_leaves, on_ground, warm = 0.0, 0.0, 0.0
                    for s in range(n):
                        j = s * BLOCK + i
                        on_leaves += t[FRACTION * LANES + j] * t[CANOPY * LANES + j]
                        on_ground += t[FRACTION * LANES + j] * t[SNOW * LANES + j]
                        warm += t[FRACTION * LANES + j] * t[SURFACE * LANES + j]
                    stores[0, out, cell] = on_leaves
                    stores[1, out, cell] = on_ground
                    stores[2, out, cell] = warm + zero
                for i in range(BLOCK):
                    for row in range(len(FLUXES)):
                        c[(SUM + row) * BLOCK + i] = 0.0
                    c[EXCESS * BLOCK + i] = 0.0
                    c[DRAINAGE * BLOCK + i] = 0.0
                    c[BASEFLOW * BLOCK + i] = 0.0
        for i in range(used[block]):
            cell = cells[i]
            for k in range(4):
                theta[k, cell] = c[(WATER + k) * BLOCK + i] / _DEPTHS[k]
                kelvin[k, cell] = c[(TEMPERATURE + k) * BLOCK + i] + zero
            table[0, cell] = c[WATER_TABLE * BLOCK + i]
            table[1, cell] = c[DEEP * BLOCK + i]
            for s in range(n):
                j = s * BLOCK + i
                if t[FRACTION * LANES + j] > 0.0:
                    surface[tiles[s, i], cell] = t[SURFACE * LANES + j] + zero
                    leaves[tiles[s, i], cell] = t[CANOPY * LANES + j]
                    snow[tiles[s, i], cell] = t[SNOW * LANES + j]


@cache
def kernel(retention: str, numerics: str, saturation_excess: str, precision: str) -> Any:
    """`march` with the soil water solver of that kind (`soil.solver`), in "double" or "single" precision."""
    real = np.float32 if precision == "single" else np.float64
    solve = soil.solver(retention, numerics, saturation_excess, real)
    suffix = f"{retention}_{numerics}_{saturation_excess}_{precision}".replace("-", "_")
    # the weather of a day stays in double precision, so that both see the same
    return variant(march, suffix, {advance: solve, day: day}, np.float32 if precision == "single" else None)


def sky_of(start: np.ndarray, dt: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the sun is: (sine and cosine of its declination, hour angles at longitude 0 within the step, in turns).

    start   (step,) datetime64, UTC; dt in s. One hour angle for every half hour of a step: dims (step, 2), (step, n).
    """
    days = start.astype("datetime64[D]")
    numbers, at = np.unique(days.astype(np.int64), return_inverse=True)
    values = np.array([weather.sun(int(number)) for number in numbers])[at]
    parts = max(dt // 1800, 1)
    offsets = (np.arange(parts) + 0.5) * (dt / parts)
    turns = ((start - days).astype("timedelta64[s]").astype(np.int64)[:, None] + offsets) / 86400.0
    return values[:, :2], turns + values[:, 2:3] - 0.5
