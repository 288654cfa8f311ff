"""The sub-daily tier: the energy balance of every surface type in a cell over one soil that conducts, freezes, drains.

    weather ──► radiation ─ canopy ─ wind ─ balance ─ share         by type: `surface`, `canopy`, `air`
                    ▲                                   │ roots, rain, heat
                    └── temperature, water ◄── runoff, soil, heat   by cell

Cells exchange nothing, so they are stepped in blocks, by as many threads as there are cores, with the same bits as one
by one. Daily forcing is spread over the day (`weather`) as it is needed.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.land import lanes, runoff, soil, weather
from twin.land.canopy import canopy
from twin.land.compiled import BLOCK, single, stage, variant
from twin.land.daily import spread
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
    SLOTS,
    SNOW,
    SNOWFALL,
    SUM,
    SUN,
    SURFACE,
    SW,
    TEMPERATURE,
    TILE_ROWS,
    WIND,
)
from twin.land.runoff import (
    BASEFLOW,
    DEEP,
    DECAY,
    FIT,
    TI_MEAN,
    WATER_TABLE,
    saturation_excess_pdm,
    topmodel_after,
    topmodel_before,
)
from twin.land.soil import DRAINAGE, EXCESS, STEP, WATER, K, M, advance
from twin.land.weather import LAT as DAY_LAT
from twin.land.weather import LON as DAY_LON
from twin.land.weather import day, sine, turn
from twin.land.surface import balance, first_wind, radiation, refine, share, wind
from twin.variables import LAYERS, VARIABLES

NO_EXCESS, PDM, TOPMODEL = 0, 1, 2  # how the cell sheds water that finds part of it full


SITE_ROWS = (SIN_LAT, COS_LAT, LON, TI_MEAN, DECAY, FIT, FIT + 1)
SOIL_ROWS, CONSTANT_ROWS = lanes.SOIL_ROWS, lanes.TILE_ROWS
_DEPTHS = tuple(1000.0 * depth for depth in LAYERS)  # kg m-2 of water that fill a layer
_LOWEST_SUN = 1e-3


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
def _march(
    t, c, day_work, day_steps, keys, plan_cells, plan_tiles, used, slots, soils, constants, weather_in, daily, numbers,
    per_day, suns, turns, carbon, dt, z_wind, z_air, diffuse, shower, passes, excess, per_output, close, zero,
    theta, kelvin, surface, leaves, snow, table, site, wanted, fluxes, layers, stores, first_output,
):  # fmt: skip
    """Every step for the given blocks: changes the state in place and fills the diagnostics.

    See `Land.run` for what goes in; (row, time, cell) for fluxes and stores, (row, time, layer, cell) for layers.
    """
    length = per_output * 1.0
    for block in range(used.size):
        n, cells, tiles = slots[block], plan_cells[block], plan_tiles[block]
        _place(t, c, n, cells, tiles, soils, constants[block], theta, kelvin, surface, leaves, snow, table, site, zero)
        for i in range(BLOCK):
            c[STEP * BLOCK + i] = dt
        steps = suns.shape[0]
        for step in range(steps):
            if daily:
                at = step % per_day
                if at == 0:
                    today = step // per_day
                    for row in range(9):
                        for i in range(BLOCK):
                            day_work[row * BLOCK + i] = weather_in[row][today, cells[i]]
                    for i in range(BLOCK):
                        day_work[DAY_LAT * BLOCK + i] = site[7, cells[i]]
                        day_work[DAY_LON * BLOCK + i] = site[8, cells[i]]
                    day(day_work, keys[block], numbers[today], per_day, day_steps)
            else:
                at = 0
                for row in range(8):
                    for i in range(BLOCK):
                        day_steps[row * BLOCK + i] = weather_in[row][step, cells[i]]
            _weather(c, day_steps, at, carbon[step], zero)
            _height(c, suns[step], turns[step])
            begin(c)
            radiation(t, c, n)
            for j in range(n * BLOCK):
                t[GUESS * LANES + j] = t[SURFACE * LANES + j]
            canopy(t, c, n, diffuse)
            for _ in range(passes - 1):
                first_wind(t, c, n, z_wind, z_air, dt)
                refine(t, c, n, z_air, dt)
            wind(t, c, n, z_wind, z_air, dt)
            balance(t, c, n, z_air, dt)
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


THETA, CANOPY_WATER, SNOW_AMOUNT = "volume_fraction_of_condensed_water_in_soil", "canopy_water_amount", "surface_snow_amount"
SOIL_TEMPERATURE, SURFACE_TEMPERATURE = "soil_temperature", "surface_temperature"
WATER_TABLE_DEPTH, DEEP_SATURATION = "water_table_depth", "deep_saturation"
CARBON_DIOXIDE = "mole_fraction_of_carbon_dioxide_in_air"
_ZERO = 273.15
_STEPS = {"30min": 1800, "1h": 3600, "3h": 10800}
_EXCESS = {"none": NO_EXCESS, "pdm": PDM, "topmodel": TOPMODEL}
_PASSES = {1800: 1, 3600: 1, 10800: 2}


@cache
def _kernel(retention: str, numerics: str, saturation_excess: str, precision: str) -> Any:
    real = np.float32 if precision == "single" else np.float64
    solve = soil.solver(retention, numerics, saturation_excess, real)
    suffix = f"{retention}_{numerics}_{saturation_excess}_{precision}".replace("-", "_")
    return variant(_march, suffix, {advance: solve, day: day}, np.float32 if precision == "single" else None)


class Land:
    """LandModel with an energy balance: tiles, stomata, snow, freezing soil, Richards.

    step              "30min", "1h" or "3h": longer ones diverge
    precision         "double", or "single" for speed
    retention         "brooks-corey" or "van-genuchten", as the parameters were made for
    numerics          "newton", or "jules" for JULES' own soil-water step; saturation_excess "up" or "down" with it
    runoff            what part of a cell being full means: "none", "pdm" or "topmodel"
    shower            fraction of the cell that rain falls on, exponentially distributed; 0 for a point
    wind_height, air_height   of the forcing, m
    diffuse           share of diffuse light in sunlight
    carbon_dioxide    mole fraction where the forcing has none
    output            interval of the diagnostics; that of the forcing by default
    fluxes            which of `rows.FLUXES` to return
    threads           how many cores to use; results do not depend on it
    """

    name = "land"
    version = "1.0.0"

    def __init__(
        self,
        step: str = "1h",
        *,
        precision: str = "double",
        retention: str = "brooks-corey",
        numerics: str = "newton",
        saturation_excess: str = "up",
        runoff: str = "none",
        shower: float = 0.0,
        wind_height: float = 10.0,
        air_height: float = 2.0,
        diffuse: float = 0.0,
        carbon_dioxide: float = 391e-6,
        output: str | None = None,
        fluxes: tuple[str, ...] = FLUXES,
        threads: int | None = None,
    ) -> None:
        self.step = step
        self.dt = _STEPS[step]
        self.precision, self.real = precision, np.float32 if precision == "single" else np.float64
        self.march = _kernel(retention, numerics, saturation_excess, precision)
        self.excess = _EXCESS[runoff]
        self.shower, self.heights, self.diffuse = shower, (wind_height, air_height), diffuse
        self.carbon_dioxide, self.output, self.fluxes = carbon_dioxide, output, fluxes
        self.threads = threads or os.cpu_count() or 1
        self.passes = _PASSES[self.dt]

    def run(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        cells = forcing.sizes["cell"]
        table = lanes.check(parameters, cells)
        times = forcing["time"].values.astype("datetime64[s]")
        spacing = int((times[1] - times[0]).astype(int)) if times.size > 1 else 86400
        daily = spacing == 86400
        rows_in = weather.DAILY_ROWS if daily else weather.STEP_ROWS
        nothing = np.broadcast_to(np.float64(np.nan), (times.size, cells))
        given = tuple(np.ascontiguousarray(forcing[n].values, dtype=np.float64) if n in forcing else np.array(nothing) for n in rows_in)
        per_day = 86400 // self.dt
        steps = times.size * (per_day if daily else 1)
        start = times[0] + np.arange(steps) * np.timedelta64(self.dt, "s")
        suns, turns = _sky(start, self.dt)
        carbon = np.full(steps, self.carbon_dioxide)
        interval = self.dt * (per_day if daily else 1) if self.output is None else {"1D": 86400, "1h": 3600}[self.output]
        per_output = interval // self.dt
        outputs = steps // per_output
        lat, lon = forcing["lat"].values.astype(float), forcing["lon"].values.astype(float)
        site = np.zeros((9, cells))
        site[0], site[1], site[2] = np.sin(np.radians(lat)), np.cos(np.radians(lat)), lon / 360.0
        site[7], site[8] = lat, lon
        keys_of_cells = weather.cell_keys(lat, lon)
        theta = state[THETA].values.astype(np.float64).copy()
        kelvin = state[SOIL_TEMPERATURE].values.astype(np.float64).copy()
        surface = state[SURFACE_TEMPERATURE].values.astype(np.float64).copy()
        leaves = state[CANOPY_WATER].values.astype(np.float64).copy()
        snow = state[SNOW_AMOUNT].values.astype(np.float64).copy()
        deep = np.zeros((2, cells))
        soils = lanes.soil_constants(table).astype(self.real)
        plan = lanes.layout(table["tile_fraction"].transpose("tile", "cell").values)
        wanted = np.array([FLUXES.index(name) for name in self.fluxes])
        fluxes = np.empty((wanted.size, outputs, cells), self.real)
        layers = np.empty((2, outputs, 4, cells), np.float64)
        stores = np.empty((3, outputs, cells), np.float64)

        def part(first: int, last: int) -> None:
            some = slice(first // BLOCK, -(-last // BLOCK))
            mine = lanes.Layout(plan.cells[some], plan.used[some], plan.slots[some], plan.tiles[some], plan.there[some])
            constants = lanes.tile_constants(table, mine, self.heights).astype(self.real)
            t, c = np.zeros(TILE_ROWS * LANES, self.real), np.zeros(CELL_ROWS * BLOCK, self.real)
            work, made = np.zeros(weather.ROWS * BLOCK), np.zeros(max(per_day, 1) * weather.OUT * BLOCK)
            r = self.real
            self.march(
                t, c, work, made, keys_of_cells[mine.cells], mine.cells, mine.tiles, mine.used, mine.slots, soils, constants,
                given, daily, times.astype("datetime64[D]").astype(np.int64), per_day, suns.astype(r), turns.astype(r), carbon,
                r(self.dt), r(self.heights[0]), r(self.heights[1]), r(self.diffuse), r(self.shower), self.passes, self.excess,
                per_output, r(1e-12 if r is np.float64 else 1e-6), _ZERO, theta, kelvin, surface, leaves, snow, deep, site,
                wanted, fluxes, layers, stores, 0,
            )  # fmt: skip

        spread(part, cells, self.threads)
        place = {name: forcing[name] for name in ("lat", "lon") if name in forcing.coords}
        end = xr.Dataset(
            {THETA: (("layer", "cell"), theta), SOIL_TEMPERATURE: (("layer", "cell"), kelvin), SURFACE_TEMPERATURE: (("tile", "cell"), surface),
             CANOPY_WATER: (("tile", "cell"), leaves), SNOW_AMOUNT: (("tile", "cell"), snow)}, place)
        out = {name: (("time", "cell"), fluxes[k]) for k, name in enumerate(self.fluxes)}
        out |= {THETA: (("time", "layer", "cell"), layers[0]), SOIL_TEMPERATURE: (("time", "layer", "cell"), layers[1])}
        out |= {CANOPY_WATER: (("time", "cell"), stores[0]), SNOW_AMOUNT: (("time", "cell"), stores[1]), SURFACE_TEMPERATURE: (("time", "cell"), stores[2])}
        labels = times[0] + np.arange(outputs) * np.timedelta64(interval, "s")
        return end, xr.Dataset(out, {"time": labels.astype("datetime64[ns]"), **place})


def _sky(start: np.ndarray, dt: int) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the sun's declination on the day of each step, and hour angles within the step at longitude 0."""
    days = start.astype("datetime64[D]")
    work = np.zeros(weather.ROWS * BLOCK)
    first = weather._SUNS * BLOCK
    sky = {}
    for number in np.unique(days.astype(np.int64)):
        weather._sun(number, 48, work)
        sky[number] = work[first : first + 3].copy()
    values = np.array([sky[number] for number in days.astype(np.int64)])
    seconds = (start - days).astype("timedelta64[s]").astype(np.int64)
    parts = max(dt // 1800, 1)
    offsets = (np.arange(parts) + 0.5) * (dt / parts)
    turns = (seconds[:, None] + offsets) / 86400.0 + values[:, 2:3] - 0.5
    return values[:, :2], turns
