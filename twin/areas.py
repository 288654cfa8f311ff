"""Areas: what a country, a district or any polygon has on average, and how much of it is in drought.

    GeoJSON, outlines ─polygons─▸ {name: shape} ─area_weights─▸ weights (unit, cell), sparse ┐
                                                                        values (time, cell) ─┴▸ area_statistics (unit)

A cell counts with the area of its part inside, share times cell area, the share being the overlap in longitude and
latitude: the cosine of the latitude is taken as that of the whole cell. Units that share a region out add up to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import shapely
import xarray as xr
from scipy.sparse import csr_array

from twin.errors import PlaceError, VariableError
from twin.grid import cell_area
from twin.indices.classes import CODES, dsci

LEAST = 0.5  # share of a unit's area that must be known
_SLACK = 1e-9  # half an area is half of it, however it was added up
_BLOCK = 64  # days taken together


# --- polygons ---------------------------------------------------------------------------------------------------------
def polygons(features: Mapping[str, Any] | Iterable[Mapping[str, Any]], *, name: str = "name") -> dict[str, Any]:
    """Shapes by name: shapely polygons of GeoJSON, or of outlines, longitude and latitude in degrees.

    features   a GeoJSON FeatureCollection, Feature or geometry (called `area`), a sequence of Features, or of outlines
               {name, rings}, of which a point is inside when an odd number of rings surrounds it
    name       property of a Feature that names it; else its id. Features of one name are one unit.
    A shape across the date line has parts on either side (RFC 7946, 3.1.9), or longitudes beyond 180. Raises PlaceError
    for what is no polygon, is not valid, or lies beyond the poles, and where there is none.
    """
    found: dict[str, list[Any]] = {}
    for number, feature in enumerate(_features(features)):
        if not isinstance(feature, Mapping):
            raise PlaceError(f"feature {number}", expected="a GeoJSON object or an outline", found=repr(feature)[:40])
        if "rings" in feature:
            called, shape = str(feature.get("name", number)), _even_odd(feature["rings"], number)
        else:
            properties = feature.get("properties") or {}
            called = str(properties.get(name, feature.get("id", "area" if "geometry" not in feature else number)))
            shape = _shape(feature.get("geometry", feature), called)
        found.setdefault(called, []).append(_checked(shape, called))
    if not found:
        raise PlaceError("polygons", expected="at least one", found="none")
    return {called: shapely.union_all(parts) if len(parts) > 1 else parts[0] for called, parts in found.items()}


def _features(features: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(features, Mapping):
        return features
    return features.get("features", []) if features.get("type") == "FeatureCollection" else [features]


def _shape(geometry: Any, called: str) -> Any:
    try:
        return shapely.from_geojson(json.dumps(geometry))
    except (shapely.errors.GEOSException, TypeError, ValueError) as err:
        raise PlaceError(f"polygon '{called}'", expected="a GeoJSON geometry", found=str(err)) from err


def _even_odd(rings: Any, number: int) -> Any:
    try:
        shape = shapely.Polygon()
        for ring in rings:
            parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(ring)))
            shape = shape.symmetric_difference(shapely.union_all(parts[shapely.area(parts) > 0.0]))
        return shape
    except (shapely.errors.GEOSException, TypeError, ValueError) as err:
        raise PlaceError(f"outline {number}", expected="rings of [longitude, latitude]", found=str(err)) from err


def _checked(shape: Any, called: str) -> Any:
    """A polygon or several; PlaceError for anything else."""
    what = f"polygon '{called}'"
    if shape is None or shape.geom_type not in ("Polygon", "MultiPolygon") or shape.is_empty:
        found = "nothing" if shape is None or shape.is_empty else shape.geom_type
        raise PlaceError(what, expected="a Polygon or MultiPolygon", found=found)
    if not shape.is_valid:
        raise PlaceError(what, expected="a valid polygon", found=shapely.is_valid_reason(shape))
    west, south, east, north = shape.bounds
    if south < -90.0 or north > 90.0 or east - west > 360.0 or max(-west, east) > 540.0:
        raise PlaceError(what, expected="latitudes within ±90, at most one turn of longitudes", found=shape.bounds)
    return shape


# --- weights ----------------------------------------------------------------------------------------------------------
def cell_shares(grid: xr.Dataset, shape: Any) -> xr.DataArray:
    """Share of each cell that lies inside a polygon, 0..1, dims (cell): their overlap in longitude and latitude.

    grid    of `twin.grid`
    shape   of `polygons`
    Raises PlaceError where it covers no cell.
    """
    share = np.zeros(grid.sizes["cell"])
    inside, part = _Cells(grid).overlap(shape)
    if inside.size == 0:
        raise PlaceError("polygon", expected="a cell of the region within it", found=f"none in {shape.bounds}")
    share[inside] = part
    attrs = {"units": "1", "long_name": "share of the cell inside"}
    return xr.DataArray(share, {"lat": grid["lat"], "lon": grid["lon"]}, ("cell",), "cell_share", attrs)


def area_weights(grid: xr.Dataset, shapes: Mapping[str, Any]) -> xr.Dataset:
    """Area of every cell within every unit, km2, as pairs: unit_index, cell_index and weight, dim `pair`.

    shapes   {name: polygon}, of `polygons`
    Pairs are in the order of units (`unit`, their names), then of cells. covered (unit) is how much of the polygon lies
    on cells, 1; units on none are left out, and named in the attribute `outside`. Raises PlaceError where all are.
    """
    cells, area = _Cells(grid), cell_area(grid).values
    units: list[str] = []
    pairs, covered = [], []
    for name, shape in shapes.items():
        cell, share = cells.overlap(shape)
        if cell.size:
            pairs.append((np.full(cell.size, len(units), np.int32), cell.astype(np.int32), share * area[cell]))
            covered.append(min(float(share.sum()) * cells.size / shape.area, 1.0))
            units.append(name)
    if not units:
        raise PlaceError("units", expected="one that covers a cell of the region", found=", ".join(map(str, shapes)))
    unit, cell, weight = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return xr.Dataset(
        {
            "unit_index": ("pair", unit, {"units": "1", "long_name": "index of the unit"}),
            "cell_index": ("pair", cell, {"units": "1", "long_name": "index of the cell"}),
            "weight": ("pair", weight, {"units": "km2", "long_name": "area of the cell within the unit"}),
            "covered": ("unit", np.array(covered), {"units": "1", "long_name": "share of the unit on cells"}),
        },
        {"unit": units},
        {"cells": grid.sizes["cell"], "outside": ", ".join(name for name in shapes if name not in units)},
    )


def admin_units(grid: xr.Dataset, features: Any, *, name: str = "name") -> xr.Dataset:
    """`area_weights` of the `polygons` of features: countries, districts, basins."""
    return area_weights(grid, polygons(features, name=name))


class _Cells:
    """The boxes of a grid, found by place."""

    def __init__(self, grid: xr.Dataset) -> None:
        half, lat, lon = 0.5 * float(grid.attrs["resolution"]), grid["lat"].values, grid["lon"].values
        south, north = np.maximum(lat - half, -90.0), np.minimum(lat + half, 90.0)
        self.boxes = shapely.box(lon - half, south, lon + half, north)
        self.tree = shapely.STRtree(self.boxes)
        self.area = shapely.area(self.boxes)
        self.bounds = shapely.total_bounds(self.boxes)
        self.size = float(self.area[0])  # square degrees

    def overlap(self, shape: Any) -> tuple[np.ndarray, np.ndarray]:
        """(cells that a polygon covers, rising; share of each)."""
        found, shares = [], []
        for turn in (-360.0, 0.0, 360.0):  # a polygon and a cell may write one place as 181 and as −179
            west, _, east, _ = np.array(shape.bounds) + turn
            if west >= self.bounds[2] or east <= self.bounds[0]:
                continue
            moved = shapely.transform(shape, partial(np.add, [turn, 0.0])) if turn else shape
            shapely.prepare(moved)
            near = self.tree.query(moved, predicate="intersects")
            cut = near[~shapely.covers(moved, self.boxes[near])]
            found += [near[~np.isin(near, cut)], cut]
            shares += [np.ones(near.size - cut.size), self._cut(moved, cut)]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0)
        cell, where = np.unique(np.concatenate(found), return_inverse=True)
        total = np.minimum(np.bincount(where, np.concatenate(shares), minlength=cell.size), 1.0)
        return cell[total > 0.0], total[total > 0.0]

    def _cut(self, shape: Any, cells: np.ndarray) -> np.ndarray:
        """Share of each cell inside; clipping to a box takes a tenth of the time of a general intersection."""
        parts = [shapely.clip_by_rect(shape, *box) for box in shapely.bounds(self.boxes[cells])]
        return shapely.area(np.array(parts, dtype=object)) / self.area[cells]


# --- statistics -------------------------------------------------------------------------------------------------------
def area_statistics(values: xr.DataArray, weights: xr.Dataset, *, least: float = LEAST) -> xr.Dataset:
    """What the cells of each unit have together, dims (time, unit), float64.

    values    (time, cell) or (cell): drought classes (integers), or any quantity; missing ones are left out
    weights   of `area_weights`
    least     share of a unit's area that must be known: below it a unit has no figure
    Always `known`, that share. Of a quantity its `mean`; of classes `class_fraction` (time, code, unit), shares of what
    is known, and `dsci`. Raises VariableError for cells other than those of the weights.
    """
    if values.dims == ("cell",):
        return area_statistics(values.expand_dims("time"), weights, least=least).isel(time=0)
    if values.dims != ("time", "cell") or values.sizes["cell"] != int(weights.attrs["cells"]):
        expected = f"(time, cell {weights.attrs['cells']})"
        raise VariableError(f"values '{values.name}'", expected=expected, found=dict(values.sizes))
    W = _matrix(weights)
    area = W.sum(axis=1)
    classes = values.dtype.kind in "iu"
    coords = {"unit": weights["unit"].values} | ({"time": values["time"].values} if "time" in values.coords else {})
    days, units = values.sizes["time"], area.size
    shares = np.empty((days, len(CODES) if classes else 1, units))
    known = np.empty((days, units))
    for first in range(0, days, _BLOCK):
        block = slice(first, first + _BLOCK)
        columns = values.values[block].T
        if classes:
            sums = np.stack([W @ (columns == code).astype(np.float64) for code in CODES])
            there = sums.sum(axis=0)
        else:
            finite = np.isfinite(columns)
            sums, there = (W @ np.where(finite, columns, 0.0))[None], W @ finite.astype(np.float64)
        known[block] = (there / area[:, None]).T
        enough = (there > 0.0) & (there >= (least - _SLACK) * area[:, None])
        shares[block] = np.divide(sums, there, out=np.full(sums.shape, np.nan), where=enough).transpose(2, 0, 1)
    told = {key: text for key, text in values.attrs.items() if key.startswith("reference_")}
    told |= {"of": str(values.name), "least": least}
    found = {"known": (("time", "unit"), known, {"units": "1", "long_name": "share of the area that is known", **told})}
    if not classes:
        attrs = {"units": values.attrs.get("units", "1"), "long_name": "mean over the area", **told}
        return xr.Dataset(found | {"mean": (("time", "unit"), shares[:, 0], attrs)}, coords)
    attrs = {"units": "1", "long_name": "share of the known area in the class", **told}
    result = xr.Dataset(
        found | {"class_fraction": (("time", "code", "unit"), shares, attrs)}, {**coords, "code": list(CODES)}
    )
    return result.assign(dsci=dsci(result["class_fraction"]))


def _matrix(weights: xr.Dataset) -> csr_array:
    """Weights (unit, cell)."""
    unit, cell = weights["unit_index"].values, weights["cell_index"].values
    shape = weights.sizes["unit"], int(weights.attrs["cells"])
    start = np.searchsorted(unit, np.arange(shape[0] + 1))
    return csr_array((weights["weight"].values, cell, start), shape)
