"""All parameters of the land model in one call, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.checks import check_present
from twin.errors import RangeError, VariableError
from twin.parameters.soil import SOIL_ALBEDO, soil_from_texture
from twin.parameters.tiles import TILES, tile_parameters

DENSEST, TALLEST = 20.0, 120.0  # largest leaf area index and canopy height taken as real, 1 and m


def assemble(
    texture: xr.Dataset,
    tile_fraction: xr.DataArray | ArrayLike,
    variant: str = "cosby",
    *,
    leaf_area_index: xr.DataArray | ArrayLike | None = None,
    canopy_height: xr.DataArray | ArrayLike | None = None,
    soil_albedo: ArrayLike = SOIL_ALBEDO,
) -> xr.Dataset:
    """The parameters of `twin.land.Land`: soil by (cell) or (layer, cell), surface by (tile, cell).

    texture           sand, silt, clay (1) [bulk_density, kg m-3, organic_carbon, kg kg-1], dims (cell) or (layer,
                      cell), as `from_soilgrids` gives them; lat and lon are kept
    tile_fraction     (tile, cell), in the order of TILES or labelled; adds up to one within 1e-6, made exact
    variant           pedotransfer, a name in VARIANTS
    leaf_area_index   (tile, cell) or (month, tile, cell), 1; canopy_height (tile, cell), m: if absent, the table's
    soil_albedo       (cell) or a number, 1
    Every other number of a surface type is that of `tile_parameters`, unless a variable of that name, dims (tile) or
    (tile, cell), is added to the result.
    Raises VariableError for wrong dims or labels, RangeError for values that are missing or impossible.
    """
    check_present(texture, ("sand", "silt", "clay"))
    known: dict[str, Any] = {
        name: texture[name].transpose("layer", "cell", missing_dims="ignore").values
        for name in ("sand", "silt", "clay", "bulk_density", "organic_carbon")
        if name in texture
    }
    ds = soil_from_texture(**known, variant=variant, soil_albedo=soil_albedo)
    cells, table = ds.sizes["cell"], tile_parameters()
    fraction = _by_tile("tile_fraction", tile_fraction, cells, 1.0)
    total = fraction.sum(axis=0)
    wrong = np.abs(total - 1.0) > 1e-6
    if wrong.any():
        cell = int(np.argmax(wrong))
        raise RangeError("tile fractions", expected="a sum of 1", found=f"{total[cell]:.6g}", where=f"cell {cell}")
    leaves, height = (
        np.repeat(table[name].values[:, None], cells, axis=1) if given is None else given
        for name, given in (("leaf_area_index", leaf_area_index), ("canopy_height", canopy_height))
    )
    leaves = _by_tile("leaf_area_index", leaves, cells, DENSEST, monthly=True)
    height = _by_tile("canopy_height", height, cells, TALLEST)
    for name, values, units in (
        ("tile_fraction", fraction / total, "1"),
        ("leaf_area_index", leaves, "1"),
        ("canopy_height", height, "m"),
    ):
        ds[name] = (("month", "tile", "cell")[-values.ndim :], values, {"units": units})
    place = {name: texture[name] for name in ("lat", "lon") if name in texture.variables}
    return ds.assign_coords({"tile": list(TILES), **place})


def _by_tile(
    name: str, given: xr.DataArray | ArrayLike, cells: int, high: float, *, monthly: bool = False
) -> np.ndarray:
    """Checked values (tile, cell), or (month, tile, cell); what is labelled is put in the order of TILES."""
    if isinstance(given, xr.DataArray):
        if "tile" in given.coords:
            if set(given["tile"].values) != set(TILES):
                found = ", ".join(map(str, given["tile"].values))
                raise VariableError(f"tiles of '{name}'", expected=", ".join(TILES), found=found)
            given = given.sel(tile=list(TILES))
        given = given.transpose("month", "tile", "cell", missing_dims="ignore").values
    values = np.asarray(given, dtype=np.float64)
    shapes = [(len(TILES), cells), (12, len(TILES), cells)][: 1 + monthly]
    if values.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise VariableError(f"shape of '{name}'", expected=expected, found=values.shape)
    wrong = ~((values >= 0.0) & (values <= high))
    if wrong.any():
        *_, tile, cell = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        found = f"{values[wrong][0]:g}"
        raise RangeError(f"'{name}'", expected=f"0 to {high:g}", found=found, where=f"{TILES[tile]}, cell {cell}")
    return values
