"""Drought classes of a percentile, and how much of a region is in each.

Classes are those of the U.S. Drought Monitor's percentile table, applied to one indicator; the wet side mirrors it.
Ref: Svoboda et al. (2002), Bull. Amer. Meteor. Soc. 83, 1181.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from twin.variables import VARIABLES

MISSING = -128
DRY = (30.0, 20.0, 10.0, 5.0, 2.0)  # D0..D4: at or below, %
WET = (70.0, 80.0, 90.0, 95.0, 98.0)  # W0..W4: at or above, %
CODES = tuple(range(-5, 6))
NAMES = {
    **{f"D{k}": k + 1 for k in reversed(range(5))},
    "none": 0,
    **{f"W{k}": -k - 1 for k in range(5)},
}  # worst first


def drought_class(percentile: Any) -> Any:
    """Class of each percentile (%), int8: D0..D4 are 1..5, W0..W4 −1..−5, 0 is neither, MISSING where it is NaN.

    An array gives an array, a DataArray a DataArray with its coordinates.
    """
    if isinstance(percentile, xr.DataArray):
        variable = VARIABLES["drought_class"]
        codes = percentile.copy(data=drought_class(percentile.values)).rename(variable.name)
        codes.attrs = variable.attrs
        return codes
    percentile = np.asarray(percentile)
    code = np.zeros(percentile.shape, dtype=np.int8)
    for dry, wet in zip(DRY, WET, strict=True):
        code += (percentile <= dry).astype(np.int8)
        code -= (percentile >= wet).astype(np.int8)
    code[np.isnan(percentile)] = MISSING
    return code


def area_fractions(codes: Any, weights: Any) -> xr.DataArray:
    """Share of the known area in each class, dims (..., code); NaN where nothing is known.

    codes     drought classes, dims (..., cell)
    weights   area of each cell (cell), any unit
    """
    dims = codes.dims[:-1] if isinstance(codes, xr.DataArray) else tuple(f"dim_{k}" for k in range(np.ndim(codes) - 1))
    coords = {name: codes.coords[name] for name in dims if isinstance(codes, xr.DataArray) and name in codes.coords}
    codes, weights = np.asarray(codes), np.asarray(weights, dtype=np.float64)
    areas = np.stack([(codes == code) @ weights for code in CODES], axis=-1)
    known = areas.sum(axis=-1, keepdims=True)
    shares = np.divide(areas, known, out=np.full_like(areas, np.nan), where=known > 0.0)
    return xr.DataArray(shares, {**coords, "code": list(CODES)}, (*dims, "code"), attrs={"units": "1"})


def dsci(fractions: xr.DataArray) -> xr.DataArray:
    """Drought Severity and Coverage Index, 0 (no drought) to 500 (all in D4): 1·D0 + 2·D1 + … + 5·D4, in % of area."""
    dry = fractions.sel(code=[1, 2, 3, 4, 5])
    return (100.0 * dry * dry["code"]).sum("code", skipna=False).rename("dsci").assign_attrs(units="1")
