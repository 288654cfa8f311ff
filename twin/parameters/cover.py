"""From land cover of ESA CCI to the fractions of the nine surface types.

Refs: Poulter et al. (2015), Geosci. Model Dev. 8, 2315, Table 2; Still et al. (2003), Glob. Biogeochem. Cycles 17,
1006; Collatz et al. (1998), Oecologia 114, 441.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import RangeError, VariableError
from twin.parameters.tiles import TILES

# Poulter's types, evergreen and deciduous, natural and managed together, % of each class; all water is lake
_TYPES = ("broadleaf_tree", "needleleaf_tree", "grass", "shrub", "urban", "lake", "bare_soil", "ice")
CROSSWALK = {
    10: (0, 0, 100, 0, 0, 0, 0, 0),  # rain-fed crops
    11: (0, 0, 100, 0, 0, 0, 0, 0),
    12: (0, 0, 50, 50, 0, 0, 0, 0),
    20: (0, 0, 100, 0, 0, 0, 0, 0),  # irrigated crops
    30: (10, 0, 75, 15, 0, 0, 0, 0),  # mosaics of crops and natural vegetation
    40: (10, 0, 65, 25, 0, 0, 0, 0),
    50: (90, 0, 0, 10, 0, 0, 0, 0),  # broadleaved trees, evergreen, then deciduous
    60: (70, 0, 15, 15, 0, 0, 0, 0),
    61: (70, 0, 15, 15, 0, 0, 0, 0),
    62: (30, 0, 35, 25, 0, 0, 10, 0),
    70: (0, 70, 15, 15, 0, 0, 0, 0),  # needleleaved trees, evergreen, then deciduous
    71: (0, 70, 15, 15, 0, 0, 0, 0),
    72: (0, 30, 30, 10, 0, 0, 30, 0),
    80: (0, 70, 15, 15, 0, 0, 0, 0),
    81: (0, 70, 15, 15, 0, 0, 0, 0),
    82: (0, 30, 30, 10, 0, 0, 30, 0),
    90: (30, 30, 15, 15, 0, 0, 10, 0),  # mixed trees
    100: (30, 10, 40, 20, 0, 0, 0, 0),  # mosaics of trees, shrubs and grass
    110: (15, 5, 60, 20, 0, 0, 0, 0),
    120: (0, 0, 20, 60, 0, 0, 20, 0),  # shrubs
    121: (0, 0, 20, 60, 0, 0, 20, 0),
    122: (0, 0, 20, 60, 0, 0, 20, 0),
    130: (0, 0, 60, 0, 0, 0, 40, 0),  # grass
    140: (0, 0, 60, 0, 0, 0, 40, 0),  # lichens and mosses
    150: (4, 1, 5, 5, 0, 0, 85, 0),  # sparse vegetation
    151: (2, 8, 5, 0, 0, 0, 85, 0),
    152: (0, 0, 5, 10, 0, 0, 85, 0),
    153: (0, 0, 15, 0, 0, 0, 85, 0),
    160: (60, 0, 20, 0, 0, 20, 0, 0),  # flooded trees, shrubs and grass
    170: (60, 0, 0, 20, 0, 20, 0, 0),
    180: (5, 10, 40, 15, 0, 30, 0, 0),
    190: (2.5, 2.5, 15, 0, 75, 5, 0, 0),  # urban
    200: (0, 0, 0, 0, 0, 0, 100, 0),  # bare
    201: (0, 0, 0, 0, 0, 0, 100, 0),
    202: (0, 0, 0, 0, 0, 0, 100, 0),
    210: (0, 0, 0, 0, 0, 100, 0, 0),  # water
    220: (0, 0, 0, 0, 0, 0, 0, 100),  # permanent snow and ice
}


def from_land_cover(cover: ArrayLike | xr.DataArray, c4_share: ArrayLike) -> xr.DataArray:
    """Tile fractions (tile, cell), 1, that add up to one, by the cross-walk of Poulter et al. (2015).

    cover      the class of each cell (cell), LCCS codes 10 to 220; or a DataArray of the share of each class
               (lccs_class, cell) with the codes as coordinate, which adds up to one within 0.01
    c4_share   part of the grass, crops included, that is C4: a number or (cell), as `c4_share` gives it
    Raises RangeError for a code that is not in the table, shares that do not add up, or a c4_share that is none.
    """
    codes, shares = _classes(cover)
    table = np.array([CROSSWALK[code] for code in codes]) / 100.0
    types = dict(zip(_TYPES, table.T @ shares, strict=True))
    c4 = np.broadcast_to(np.asarray(c4_share, dtype=np.float64), shares.shape[1:])
    wrong = ~((c4 >= 0.0) & (c4 <= 1.0))
    if wrong.any():
        cell = int(np.argmax(wrong))
        raise RangeError("C4 share of grass", expected="0 to 1", found=f"{c4[cell]:g}", where=f"cell {cell}")
    grass = types.pop("grass")
    types |= {"c3_grass": (1.0 - c4) * grass, "c4_grass": c4 * grass}
    fractions = np.stack([types[name] for name in TILES])
    place = {} if not isinstance(cover, xr.DataArray) else {n: cover[n] for n in ("lat", "lon") if n in cover.coords}
    attrs = {"units": "1", "long_name": "fraction of the cell"}
    return xr.DataArray(
        fractions / fractions.sum(axis=0), {"tile": list(TILES), **place}, ("tile", "cell"), "tile_fraction", attrs
    )


def c4_share(air_temperature: np.ndarray, precipitation: np.ndarray) -> np.ndarray:
    """Part of the grass that is C4, 0 to 1 (cell): months that favour it among those in which grass grows.

    air_temperature, precipitation   means and sums of the twelve months (12, cell), K and kg m-2. Grass grows above
    5 degC with 25 kg m-2; C4 is favoured above 22 degC as well (Collatz et al. 1998; Still et al. 2003). Where nothing
    grows the grass is C3.
    """
    grows = (air_temperature > 278.15) & (precipitation >= 25.0)
    favoured = grows & (air_temperature > 295.15)
    return favoured.sum(axis=0) / np.maximum(grows.sum(axis=0), 1)


def _classes(cover: ArrayLike | xr.DataArray) -> tuple[list[int], np.ndarray]:
    """Codes and the share of each in every cell (code, cell), both checked."""
    if isinstance(cover, xr.DataArray) and "lccs_class" in cover.dims:
        if "lccs_class" not in cover.coords:
            raise VariableError("land cover", expected="codes as coordinate 'lccs_class'", found="none")
        shares = cover.transpose("lccs_class", "cell").values.astype(np.float64)
        present = ((shares != 0.0) | np.isnan(shares)).any(axis=1)
        codes, shares = cover["lccs_class"].values[present], shares[present]
        _check_codes(codes, shares != 0.0)
        wrong = ~((shares >= 0.0).all(axis=0) & (np.abs(shares.sum(axis=0) - 1.0) <= 0.01))
        if wrong.any():
            cell = int(np.argmax(wrong))
            found = f"a sum of {shares[:, cell].sum():.3f}"
            raise RangeError("land cover shares", expected="0 to 1, adding up to 1", found=found, where=f"cell {cell}")
        return [int(code) for code in codes], shares
    each = np.atleast_1d(np.asarray(cover))
    codes, position = np.unique(each, return_inverse=True)
    shares = (position == np.arange(codes.size)[:, None]).astype(np.float64)
    _check_codes(codes, shares > 0.0)
    return [int(code) for code in codes], shares


def _check_codes(codes: np.ndarray, present: np.ndarray) -> None:
    """Every code is in CROSSWALK; else RangeError names the first that is not and a cell that has it."""
    for code, where in zip(codes, present, strict=True):
        if code not in CROSSWALK:
            raise RangeError(
                "land cover class",
                expected="an LCCS code of ESA CCI, 10 to 220",
                found=code,
                where=f"cell {np.argmax(where)}",
            )
