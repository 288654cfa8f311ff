"""Soil maps on the models' layers: texture, bulk density and organic carbon of SoilGrids and HWSD.

Refs: Poggio et al. (2021), SOIL 7, 217 (SoilGrids 2.0); FAO et al. (2012), Harmonized World Soil Database 1.2.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from twin.checks import check_present
from twin.errors import RangeError, SettingsError, UnitsError, VariableError
from twin.variables import LAYERS

TEXTURE = ("sand", "silt", "clay")
LOAM = {"sand": 0.43, "silt": 0.39, "clay": 0.18, "bulk_density": 1400.0, "organic_carbon": 0.01}
FILLS = ("refuse", "nearest", "loam")

# what a unit is in ours, and the range in which its product is believed; ours are 1, kg m-3 and kg kg-1
_FACTORS = {
    **dict.fromkeys(("1", "kg kg-1", "kg/kg", "kg m-3", "kg/m3"), 1.0),
    **dict.fromkeys(("%", "percent", "% weight", "cg g-1"), 1e-2),
    **dict.fromkeys(("g kg-1", "g/kg"), 1e-3),
    **dict.fromkeys(("dg kg-1", "dg/kg"), 1e-4),
    **dict.fromkeys(("cg cm-3", "cg/cm3", "cg/cm³"), 10.0),
    **dict.fromkeys(("g cm-3", "g/cm3", "g/cm³", "kg dm-3", "kg/dm3", "kg/dm³"), 1e3),
}
_LIMITS = {"bulk_density": (50.0, 2700.0), "organic_carbon": (0.0, 0.65)}
_OURS = {"sand": "1", "silt": "1", "clay": "1", "bulk_density": "kg m-3", "organic_carbon": "kg kg-1"}

_SOILGRIDS = {
    **dict.fromkeys(TEXTURE, ("", "g kg-1")),
    "bulk_density": ("bdod", "cg cm-3"),
    "organic_carbon": ("soc", "dg kg-1"),
}
_HWSD = {
    "sand": ("SAND", "%"),
    "silt": ("SILT", "%"),
    "clay": ("CLAY", "%"),
    "bulk_density": ("BULK_DENSITY", "kg dm-3"),
    "organic_carbon": ("OC", "%"),
}


def from_soilgrids(ds: xr.Dataset, fill: str = "refuse") -> xr.Dataset:
    """Texture of the four layers from SoilGrids: sand, silt, clay (1) and, if there, bulk_density and organic_carbon.

    ds        sand, silt, clay [bdod, soc] with dims depth and cell; depth names its intervals in cm: "0-5cm", "5-15cm"
    fill      what to do with a cell that has a depth missing (NaN, negative, or no texture at all): a name in FILLS.
              "refuse" raises; "nearest" takes the nearest complete cell (needs lat and lon); "loam" takes LOAM
    returns   dims (layer, cell): means over each layer, weighted by depth, the deepest interval continued downwards;
              sand, silt and clay add up to one. Attributes: fill, and filled, the number of cells it was used for
    Units are those of the `units` attributes, or the product's own where there are none. Raises UnitsError if the
    values do not fit them, VariableError for what is not there, RangeError for cells that are missing.
    """
    check_present(ds, [*TEXTURE, "depth"])
    edges = _intervals([str(label) for label in ds["depth"].values])
    raw = {}
    for name, (product, units) in _SOILGRIDS.items():
        found = product or name
        if found in ds:
            raw[name] = _in_our_units(name, ds[found].transpose("depth", "cell"), units)
    return _on_layers(raw, edges, fill, ds)


def from_hwsd(ds: xr.Dataset, fill: str = "refuse") -> xr.Dataset:
    """Texture of the four layers from HWSD's topsoil (0 to 30 cm) and subsoil (30 to 100 cm), as `from_soilgrids`.

    ds   T_SAND, S_SAND and so on for SILT, CLAY [BULK_DENSITY, OC], dims (cell)
    """
    check_present(ds, [f"{part}_{name.upper()}" for name in TEXTURE for part in "TS"])
    raw = {}
    for name, (product, units) in _HWSD.items():
        if f"T_{product}" in ds:
            check_present(ds, [f"S_{product}"])
            raw[name] = np.stack([_in_our_units(name, ds[f"{part}_{product}"], units) for part in "TS"])
    return _on_layers(raw, np.array([0.0, 0.3, 1.0]), fill, ds)


def layer_weights(edges: np.ndarray) -> np.ndarray:
    """Share of each interval between `edges` (m, from 0 down) in each of LAYERS (layer, interval); rows add up to 1.

    The deepest interval is continued to the bottom of the soil.
    """
    bounds = np.concatenate([[0.0], np.cumsum(LAYERS)])
    reach = np.concatenate([edges[:-1], [max(edges[-1], bounds[-1])]])
    low = np.maximum(bounds[:-1, None], reach[None, :-1])
    high = np.minimum(bounds[1:, None], reach[None, 1:])
    return np.maximum(high - low, 0.0) / np.array(LAYERS)[:, None]


def _intervals(labels: list[str]) -> np.ndarray:
    """Edges in m of intervals such as "0-5cm", which must follow each other from the surface."""
    found = [re.fullmatch(r"(\d+)-(\d+) ?cm", label) for label in labels]
    edges = [(int(m[1]), int(m[2])) for m in found if m]
    joined = all(above[1] == below[0] for above, below in pairwise(edges))
    if len(edges) != len(labels) or not edges or edges[0][0] != 0 or not joined:
        raise VariableError("soil depths", expected="0-5cm, 5-15cm and so on from the surface", found=", ".join(labels))
    return 0.01 * np.array([0, *(low for _, low in edges)])


def _in_our_units(name: str, data: xr.DataArray, assumed: str) -> np.ndarray:
    """Values in our units, float64, NaN where missing; UnitsError if they are not what the units say."""
    units = " ".join(str(data.attrs.get("units", assumed)).split())
    if units not in _FACTORS:
        raise UnitsError(f"'{data.name}'", expected=f"'{assumed}'", found=repr(units))
    values = data.values.astype(np.float64)
    low, high = _LIMITS.get(name, (0.0, 1.0))
    values = np.where((values < 0.0) | (values < low) & (values == 0.0), np.nan, values * _FACTORS[units])
    wrong = (values < low) | (values > high)
    if wrong.any():
        found = f"{values[wrong].flat[0]:g} from {units!r}"
        raise UnitsError(f"'{data.name}'", expected=f"{low:g} to {high:g} {_OURS[name]}", found=found)
    return values


def _on_layers(raw: dict[str, np.ndarray], edges: np.ndarray, fill: str, ds: xr.Dataset) -> xr.Dataset:
    if fill not in FILLS:
        raise SettingsError("rule for missing soil", expected=", ".join(FILLS), found=repr(fill))
    total = raw["sand"] + raw["silt"] + raw["clay"]
    total = np.where(total == 0.0, np.nan, total)
    wrong = np.abs(total - 1.0) > 0.1  # false where missing
    if wrong.any():
        depth, cell = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        where = f"depth {depth}, cell {cell}"
        raise UnitsError("sand + silt + clay", expected="0.9 to 1.1", found=f"{total[depth, cell]:.4g}", where=where)
    for name in TEXTURE:
        raw[name] = raw[name] / total
    weights = layer_weights(edges)
    values = {name: weights @ part for name, part in raw.items()}
    missing = np.isnan(np.stack(list(values.values()))).any(axis=(0, 1))
    if missing.any():
        _fill(values, missing, fill, ds)
    place = {name: ds[name] for name in ("lat", "lon") if name in ds.variables}
    variables = {name: (("layer", "cell"), part, {"units": _OURS[name]}) for name, part in values.items()}
    return xr.Dataset(variables, place, {"fill": fill, "filled": int(missing.sum())})


def _fill(values: dict[str, np.ndarray], missing: np.ndarray, fill: str, ds: xr.Dataset) -> None:
    """Put something into the cells that are missing, in place; RangeError if the rule has nothing to put."""
    cell = int(np.argmax(missing))
    if fill == "refuse" or (fill == "nearest" and missing.all()):
        found = f"{int(missing.sum())} of {missing.size} cells missing"
        raise RangeError("soil texture", expected="a value in every cell", found=found, where=f"cell {cell} first")
    if fill == "loam":
        for name, part in values.items():
            part[:, missing] = LOAM[name]
        return
    check_present(ds, ["lat", "lon"])
    lat, lon = np.radians(ds["lat"].values), np.radians(ds["lon"].values)
    sphere = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    _, nearest = cKDTree(sphere[~missing]).query(sphere[missing])
    for part in values.values():
        part[:, missing] = part[:, ~missing][:, nearest]
