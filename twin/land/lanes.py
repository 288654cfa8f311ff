"""From a Dataset of parameters to the constants of a block's lanes.

What the Dataset does not say of a surface type, the published table does (`twin.parameters.tile_parameters`); a
variable of that name with dims (tile) or (tile, cell) takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from twin.errors import RangeError, VariableError
from twin.land import rows, soil
from twin.land.canopy import LEAVES
from twin.land.compiled import BLOCK
from twin.parameters import TILES, VEGETATED, canopy_heat_capacity, root_fractions, tile_parameters
from twin.variables import LAYERS

OPEN_WATER = 1e5  # surface conductance, m s-1, from which a type is open water that the soil does not feel

NEAREST = 1.0  # least logarithm of height over roughness for heat
LOWEST = 0.01  # m, of a canopy: where nothing grows, a product says 0
# what is refused outside: no plant or surface has it, or a formula has no value there
POSSIBLE = {
    "leaf_area_index": (0.0, 20.0),
    "canopy_height": (0.0, 120.0),
    "roughness_length": (0.0, 10.0),
    "thermal_roughness_ratio": (1e-6, 10.0),
    "albedo": (0.0, 1.0),
    "albedo_snow_leafless": (0.0, 1.0),
    "albedo_snow_leafy": (0.0, 1.0),
    "emissivity": (0.5, 1.0),
    "k_ext": (0.0, 5.0),
    "omega": (0.0, 0.99),
    "alpha_par": (0.0, 0.99),
    "f0": (0.0, 0.99),
    "dq_crit": (1e-4, np.inf),
    "f_d": (0.0, 1.0),
    "n_l0": (0.0, 1.0),
    "n_eff": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "c4": (0.0, 1.0),
    "root_depth": (1e-3, 100.0),
    "infiltration_factor": (0.0, 1e3),
    "water_capacity": (0.0, 50.0),
    "water_capacity_per_leaf": (0.0, 10.0),
    "surface_conductance": (0.0, np.inf),
    "snow_conductance": (0.0, np.inf),
    "g_min": (0.0, 1.0),
    "heat_capacity_of_surface": (0.0, np.inf),
}

BARE, ICE = TILES.index("bare_soil"), TILES.index("ice")
SOIL_ROWS = (
    soil.B, soil.PSI, soil.K, soil.M, rows.CRITICAL, rows.WILTING, rows.DRY_HEAT, rows.DRY_LAMBDA, rows.WET_LAMBDA
)  # fmt: skip
TILE_ROWS = tuple(range(rows.FRACTION, rows.GROUND + 1))


@dataclass(frozen=True)
class Layout:
    """Which cell and which surface type each lane of each block is."""

    cells: np.ndarray  # (block, BLOCK) cell; places behind the last cell repeat it
    used: np.ndarray  # (block,) cells in use
    slots: np.ndarray  # (block,) slots in use
    tiles: np.ndarray  # (block, SLOTS, BLOCK) surface type; where a cell has fewer, its first, with a fraction of 0
    there: np.ndarray  # (block, SLOTS, BLOCK) whether it is really there

    def part(self, first: int, last: int) -> Layout:
        """Blocks first to last, without the last."""
        some = slice(first, last)
        return Layout(self.cells[some], self.used[some], self.slots[some], self.tiles[some], self.there[some])


def layout(fraction: np.ndarray) -> Layout:
    """Blocks of cells with the same number of surface types, as far as there are enough; fraction (tile, cell)."""
    present = fraction > 0.0
    number = present.sum(axis=0)
    order = np.argsort(number, kind="stable")
    blocks = -(-order.size // BLOCK)
    padded = np.concatenate([order, np.full(blocks * BLOCK - order.size, order[-1])])
    cells = padded.reshape(blocks, BLOCK)
    kinds = np.argsort(~present, axis=0, kind="stable")  # present types first, in their order
    kinds = kinds[:, cells].transpose(1, 0, 2)
    there = np.arange(rows.SLOTS)[None, :, None] < number[cells][:, None, :]
    tiles = np.where(there, kinds, kinds[:, :1])
    used = np.full(blocks, BLOCK)
    used[-1] = order.size - BLOCK * (blocks - 1)
    return Layout(cells, used, number[cells].max(axis=1), tiles, there)


def complete(ready: xr.Dataset, parameters: xr.Dataset) -> xr.Dataset:
    """Checked soil and fractions (`inputs.check_parameters`) with every number of the surface types.

    parameters   what was given: its variables with the name of one in the table take that one's place
    Raises VariableError for wrong dims, RangeError for land ice or numbers that are not finite or not possible.
    """
    fraction = ready["tile_fraction"].values
    if (fraction[ICE] > 0.0).any():
        where = f"cell {int(np.argmax(fraction[ICE]))}"
        raise RangeError("tile_fraction of ice", expected="0, as there is no land ice", found="more", where=where)
    for name in ("b", "psi_s", "K_s", "theta_s", "theta_c", "heat_capacity", "heat_conductivity"):
        _positive(name, ready[name].values - (ready["theta_w"].values if name == "theta_c" else 0.0))
    given = {}
    for name, default in ((str(name), default) for name, default in tile_parameters().data_vars.items()):
        variable = parameters.get(name, default)
        months = variable.sizes.get("month", 12)
        if variable.dims not in (("tile",), ("tile", "cell"), ("month", "tile", "cell")) or months != 12:
            expected, found = "dims (tile), (tile, cell) or (month, tile, cell), 12 months", dict(variable.sizes)
            raise VariableError(f"parameter '{name}'", expected=expected, found=found)
        if name in parameters:
            _possible(name, variable, (fraction > 0.0) & np.isfinite(default.values)[:, None])
        given[name] = variable.variable
    return ready.assign(given)


def _possible(name: str, variable: xr.DataArray, needed: np.ndarray) -> None:
    """RangeError unless finite and within POSSIBLE wherever the type is there and the parameter means something."""
    values = variable.values if "cell" in variable.dims else variable.values[:, None]
    low, high = POSSIBLE.get(name, (-np.inf, np.inf))
    wrong = needed & ~(np.isfinite(values) & (values >= low) & (values <= high))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        found = np.broadcast_to(values, wrong.shape)[at]
        where = f"{TILES[at[-2]]}, cell {at[-1]}"
        raise RangeError(f"parameter '{name}'", expected=f"{low:g} to {high:g}", found=f"{found:g}", where=where)


def _positive(name: str, values: np.ndarray) -> None:
    wrong = ~(np.isfinite(values) & (values > 0.0))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        expected = "finite and above theta_w" if name == "theta_c" else "finite and positive"
        raise RangeError(f"parameter '{name}'", expected=expected, found=f"{values[at]:g}", where=f"cell {at[-1]}")


def soil_constants(parameters: xr.Dataset) -> np.ndarray:
    """The rows SOIL_ROWS of every layer and cell, (row, layer, cell)."""

    def of(name: str) -> np.ndarray:
        return parameters[name].values

    depth = np.array(LAYERS)[:, None]
    m = 1000.0 * depth * of("theta_s")
    dry = of("heat_conductivity")
    saturated = np.clip(1.58 + 12.4 * (dry - 0.25), 1.58, 2.2)  # Dharssi et al. (2009)
    kilograms = 1000.0 * depth
    return np.stack([
        of("b"), of("psi_s"), of("K_s"), m, kilograms * of("theta_c"), kilograms * of("theta_w"),
        depth * of("heat_capacity"), dry, saturated,
    ])  # fmt: skip


def tile_constants(parameters: xr.Dataset, plan: Layout, heights: tuple[float, float], month: int = 0) -> np.ndarray:
    """The rows TILE_ROWS of every lane, (block, row, SLOTS * BLOCK).

    heights   where wind and where air temperature and humidity are measured, m above the zero plane
    month     0 to 11, for what has a month
    """
    cell = np.broadcast_to(plan.cells[:, None, :], plan.tiles.shape)

    def of(name: str, tiles: Any = plan.tiles) -> np.ndarray:
        """A parameter of every lane; 0 where it has no meaning."""
        variable = parameters[name]
        values = variable.values[month] if "month" in variable.dims else variable.values
        values = values[tiles, cell] if "cell" in variable.dims else np.broadcast_to(values[tiles], cell.shape)
        return np.nan_to_num(values.astype(np.float64))

    green = plan.tiles < VEGETATED
    area = np.where(green, of("leaf_area_index"), 0.0)
    height = np.where(green, np.maximum(of("canopy_height"), LOWEST), 0.0)
    z0 = of("roughness_length") + of("roughness_ratio") * height
    z0_heat = of("thermal_roughness_ratio") * z0
    soil_albedo = parameters["soil_albedo"].values[cell]
    leafy = 1.0 - np.exp(-of("k_ext") * area)
    cover = np.where(green, leafy, 0.0)
    albedo = np.where(green, leafy * of("albedo") + (1.0 - leafy) * soil_albedo, of("albedo"))
    albedo = np.where(plan.tiles == BARE, soil_albedo, albedo)
    albedo_snow = of("albedo_snow_leafless") * (1.0 - leafy) + of("albedo_snow_leafy") * leafy
    wood = canopy_heat_capacity(area, of("sigma_l"), of("a_wl"), of("b_wl"))
    conductance = of("surface_conductance")
    lake = ~green & (conductance >= OPEN_WATER)
    conductance = np.where(green, of("surface_conductance", BARE), np.where(lake, 1.0, conductance))
    scatter = np.clip(of("omega"), 1e-3, 1.0 - 1e-3)
    back = 2.0 / 3.0 * of("alpha_par") + 1.0 / 3.0 * (scatter - of("alpha_par"))
    a = 1.0 - scatter + back
    decay = np.sqrt(a * a - back * back)
    p, q = (a - decay) / back, (a + decay) / back
    far, ground = np.exp(decay * area), soil_albedo
    # diffuse light of 1 from above, the ground reflects: p A + q B = 1, A e^{hL}(1 − ρp) + B e^{−hL}(1 − ρq) = 0
    c1, c2 = far * (1.0 - ground * p), (1.0 - ground * q) / far
    down = p * c2 - q * c1
    values = {
        rows.FRACTION: np.where(plan.there, of("tile_fraction"), 0.0),
        rows.LEAF_AREA: area,
        rows.COVER: cover,
        rows.Z0: z0,
        rows.Z0_HEAT: z0_heat,
        rows.LOG_M: np.log((heights[0] + z0) / z0),
        # above the leaves even where the air is measured lower: forcing at 2 m is not that of the air inside a forest
        rows.LOG_H: np.maximum(np.log((heights[1] + z0) / z0_heat), NEAREST),
        rows.ALBEDO: albedo,
        rows.ALBEDO_SNOW: albedo_snow,
        rows.EMISSIVITY: of("emissivity"),
        rows.HEAT_CAPACITY: of("heat_capacity_of_surface") + np.where(green, wood, 0.0),
        rows.CAPACITY: of("water_capacity") + of("water_capacity_per_leaf") * area,
        rows.INFILTRATES: of("infiltration_factor"),
        rows.CONDUCTANCE: conductance,
        rows.SNOW_CONDUCTANCE: of("snow_conductance"),
        rows.OPEN: np.where(lake, OPEN_WATER, 0.0),
        rows.VCMAX: of("n_eff") * of("n_l0"),
        rows.QUANTUM: of("alpha"),
        rows.F0: of("f0"),
        rows.DQ_CRIT: np.where(green, of("dq_crit"), 1.0),
        rows.F_D: of("f_d"),
        rows.T_LOW: of("T_low"),
        rows.T_UPP: of("T_upp"),
        rows.C4: of("c4"),
        rows.G_MIN: of("g_min"),
        rows.SCATTER: scatter,
        rows.BACK: back,
        rows.DECAY: decay,
        rows.RISE: np.exp(decay * area / LEAVES),
        rows.P_UP: p,
        rows.Q_UP: q,
        rows.DIFFUSE_A: c2 / down,
        rows.DIFFUSE_B: -c1 / down,
        rows.GROUND: ground,
    }
    for k, share in enumerate(root_fractions(np.where(green, of("root_depth"), 1.0))):
        values[rows.ROOTS + k] = np.where(green, share, 0.0)
    return np.stack([values[row] for row in TILE_ROWS], axis=1).reshape(plan.cells.shape[0], len(TILE_ROWS), -1)
