"""Cells: where they are, how large, and which pixels of a source they average.

A grid is a Dataset with dim `cell`, coordinates `lat`, `lon` (degrees, lon in −180..180) and attributes `region` and
`resolution` (degrees). A cell is the box of that size around its centre, western and southern edge included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import PlaceError, VariableError

EARTH_RADIUS = 6371.0072  # km, of the sphere with the Earth's area
_SLACK = 1e-4  # of a cell: coordinates are often rounded to float32


def wrap(lon: ArrayLike) -> np.ndarray:
    """Longitudes within −180 ≤ lon < 180."""
    lon = np.asarray(lon, dtype=np.float64)
    return np.where((lon >= -180.0) & (lon < 180.0), lon, (lon + 180.0) % 360.0 - 180.0)


def from_points(lat: ArrayLike, lon: ArrayLike, region: str, resolution: float) -> xr.Dataset:
    """A grid of cells centred on the given points (cell), in their order.

    Raises PlaceError for no point, for a latitude beyond the poles, or where one is missing.
    """
    lat, lon = np.atleast_1d(np.asarray(lat, dtype=np.float64)), np.atleast_1d(np.asarray(lon, dtype=np.float64))
    if lat.shape != lon.shape or lat.ndim != 1 or lat.size == 0:
        raise PlaceError(
            "cells", expected="lat and lon of the same cells", found=f"{lat.shape} and {lon.shape}", where=region
        )
    if not (np.isfinite(lon).all() and (np.abs(lat) <= 90.0).all()):
        raise PlaceError("cells", expected="latitudes within ±90, no missing place", found="others", where=region)
    place = {"lat": ("cell", lat, {"units": "degrees_north"}), "lon": ("cell", wrap(lon), {"units": "degrees_east"})}
    return xr.Dataset(coords=place, attrs={"region": region, "resolution": float(resolution)})


def regular(
    bbox: Sequence[float], resolution: float, rings: Sequence[np.ndarray] | None = None, region: str = ""
) -> xr.Dataset:
    """Cells of a regular grid inside `bbox` whose centres lie inside the rings, north to south, west to east.

    bbox    (west, south, east, north), degrees; west > east crosses the date line
    rings   polygons and their holes, (n, 2) lon/lat each: a centre is inside when an odd number of rings surrounds it;
            all of the box without rings
    Centres are odd multiples of half the resolution, counted from 0°, so that two grids of one resolution share cells.
    Raises PlaceError when no centre is inside.
    """
    west, south, east, north = map(float, bbox)
    east += 360.0 if west > east else 0.0
    lat, lon = _centres(south, north, resolution)[::-1], wrap(_centres(west, east, resolution))
    inside = np.ones((lat.size, lon.size), dtype=bool) if rings is None else _inside(lat, lon, rings)
    if not inside.any():
        raise PlaceError(
            "grid", expected="cells inside the region", found="none", where=f"{region} {tuple(bbox)}".strip()
        )
    y, x = np.nonzero(inside)
    return from_points(lat[y], lon[x], region, resolution)


def cell_area(grid: xr.Dataset) -> xr.DataArray:
    """Area of each cell, km2: a box of the grid's resolution on the sphere."""
    half = 0.5 * np.deg2rad(grid.attrs["resolution"])
    lat = np.deg2rad(grid["lat"].values)
    edges = np.clip(lat - half, -np.pi / 2, np.pi / 2), np.clip(lat + half, -np.pi / 2, np.pi / 2)
    area = EARTH_RADIUS**2 * 2.0 * half * (np.sin(edges[1]) - np.sin(edges[0]))
    return xr.DataArray(area, {"lat": grid["lat"], "lon": grid["lon"]}, ("cell",), "cell_area", {"units": "km2"})


@dataclass(frozen=True)
class Matcher:
    """Which pixels each cell averages: pixel[start[j]:start[j + 1]] belong to cell[j]."""

    shape: tuple[int, ...]  # of the source's place dims: (y, x) or (p,)
    cells: int
    cell: np.ndarray
    start: np.ndarray
    pixel: np.ndarray

    def average(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, count) of the finite pixels of each cell, dims [..., cell]; NaN and 0 where there is none.

        values   [..., y, x] or [..., p] as the source has them
        Each cell adds its pixels in one fixed order: the bits do not depend on what else is averaged.
        Raises VariableError for another shape.
        """
        values = np.asarray(values)
        n = len(self.shape)
        if values.shape[-n:] != self.shape:
            raise VariableError("pixels", expected=f"shape (..., {self.shape})", found=f"shape {values.shape}")
        lead = values.shape[:-n]
        picked = values.reshape(-1, int(np.prod(self.shape)))[:, self.pixel].astype(np.float64)
        finite = np.isfinite(picked)
        total = np.add.reduceat(np.where(finite, picked, 0.0), self.start, axis=1)
        number = np.add.reduceat(finite, self.start, axis=1, dtype=np.int32)
        mean = np.full((picked.shape[0], self.cells), np.nan)
        count = np.zeros((picked.shape[0], self.cells), dtype=np.int32)
        count[:, self.cell] = number
        with np.errstate(invalid="ignore"):
            mean[:, self.cell] = total / number
        return mean.reshape(*lead, self.cells), count.reshape(*lead, self.cells)


def matcher(lat: ArrayLike, lon: ArrayLike, grid: xr.Dataset, points: bool | None = None) -> Matcher:
    """Which pixels of a source lie in which cell.

    lat, lon   of the pixel centres, degrees, in any order and in −180..180 or 0..360: axes (y) and (x) of a raster, or
               the place of every pixel, (p) or (y, x)
    points     whether one-dimensional lat and lon are places rather than axes; by default they are where they have the
               same length and do not both rise or fall all along
    A cell takes every pixel whose centre lies in its box; where there is none (a coarser source), the pixel that
    contains its centre, pixels being as large as the source's usual spacing.
    Raises PlaceError when the source covers no cell.
    """
    lat, lon = np.asarray(lat, dtype=np.float64), wrap(lon)
    raster = lat.ndim == 1 and lon.ndim == 1 and not (_are_points(lat, lon) if points is None else points)
    find = _match_raster if raster else _match_points
    shape = (lat.size, lon.size) if raster else lat.shape
    cell, pixel = find(
        lat.ravel(), lon.ravel(), grid["lat"].values, grid["lon"].values, float(grid.attrs["resolution"])
    )
    if cell.size == 0:
        found = f"lat {np.nanmin(lat):.2f} to {np.nanmax(lat):.2f}, lon {np.nanmin(lon):.2f} to {np.nanmax(lon):.2f}"
        raise PlaceError("place of the pixels", expected=_extent(grid), found=found)
    order = np.lexsort((pixel, cell))
    cell, start = np.unique(cell[order], return_index=True)
    return Matcher(shape, grid.sizes["cell"], cell, start, pixel[order])


def nearest_known(lat: ArrayLike, lon: ArrayLike, known: np.ndarray) -> np.ndarray:
    """For every cell the nearest one that is `known` (cell), by great circle; itself where it is."""
    lat, lon = np.radians(lat), np.radians(lon)
    places = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    nearest, there = np.arange(known.size), np.flatnonzero(known)
    for cell in np.flatnonzero(~known):
        nearest[cell] = there[np.argmax(places[there] @ places[cell])]
    return nearest


def _centres(low: float, high: float, resolution: float) -> np.ndarray:
    """Centres (k + 1/2) resolution within low..high."""
    first, last = np.ceil(low / resolution - 0.5 - _SLACK), np.floor(high / resolution - 0.5 + _SLACK)
    return (np.arange(first, last + 1) + 0.5) * resolution


def _inside(lat: np.ndarray, lon: np.ndarray, rings: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each point of the raster (lat, lon) is surrounded by an odd number of rings, by scan line.

    On a line of latitude the edges of all rings are crossed at some longitudes; a point is inside when the number of
    crossings to its west is odd. An edge owns its lower end, so that a vertex is crossed once.
    """
    ends = [(np.asarray(ring, float), np.roll(np.asarray(ring, float), -1, axis=0)) for ring in rings if len(ring) > 2]
    if not ends:
        return np.zeros((lat.size, lon.size), dtype=bool)
    (x0, y0), (x1, y1) = (np.concatenate(side).T for side in zip(*ends, strict=True))
    inside = np.empty((lat.size, lon.size), dtype=bool)
    for row, y in enumerate(lat):
        crossed = (y0 <= y) != (y1 <= y)
        a, b, c, d = x0[crossed], y0[crossed], x1[crossed], y1[crossed]
        crossings = np.sort(a + (y - b) / (d - b) * (c - a))
        inside[row] = np.searchsorted(crossings, lon, side="right") % 2 == 1
    return inside


def _are_points(lat: np.ndarray, lon: np.ndarray) -> bool:
    def one_way(axis: np.ndarray) -> bool:
        steps = np.diff(axis)
        return bool((steps > 0).all() or (steps < 0).all())

    return lat.size == lon.size and not (one_way(lat) and (one_way(lon) or one_way(lon % 360.0)))


def _spacing(values: np.ndarray, fallback: float) -> float:
    """Usual distance between neighbouring coordinates."""
    steps = np.diff(np.unique(values[np.isfinite(values)]))
    steps = steps[steps > 1e-3 * fallback]  # rounding makes twins
    return float(np.median(steps)) if steps.size else fallback


def _match_axis(axis: np.ndarray, centre: np.ndarray, width: float, turn: float) -> tuple[np.ndarray, ...]:
    """For every cell the range lo..hi of positions in `order` that its box holds, else the pixel around its centre.

    turn    360 for longitudes, which go round; 0 for latitudes
    returns (order, lo, hi) with hi = lo where the axis does not cover the cell
    """
    size = axis.size
    spacing = _spacing(axis, width)
    order = np.argsort(axis, kind="stable")
    if turn:  # a second and third copy on either side, so that no box is cut by the date line
        order = np.concatenate([order, order, order])
        values = np.concatenate([axis[order[:size]] - turn, axis[order[:size]], axis[order[:size]] + turn])
    else:
        values = axis[order]
    slack = _SLACK * width
    lo = np.searchsorted(values, centre - 0.5 * width - slack)
    hi = np.searchsorted(values, centre + 0.5 * width - slack)
    right = np.clip(np.searchsorted(values, centre), 1, max(values.size - 1, 1))
    left = right - 1
    right = np.minimum(right, values.size - 1)
    nearest = np.where(centre - values[left] <= values[right] - centre, left, right)
    around = np.abs(values[nearest] - centre) <= 0.5 * spacing + slack
    coarse = hi <= lo
    lo, hi = np.where(coarse, nearest, lo), np.where(coarse, np.where(around, nearest + 1, nearest), hi)
    return order, lo, hi


def _match_raster(lat, lon, cell_lat, cell_lon, width) -> tuple[np.ndarray, np.ndarray]:
    """(cell, flat pixel) pairs of a raster with axes lat (y) and lon (x)."""
    rows, top, bottom = _match_axis(lat, cell_lat, width, 0.0)
    columns, west, east = _match_axis(lon, cell_lon, width, 360.0)
    high, wide = bottom - top, np.minimum(east - west, lon.size)
    number = high * wide
    cell = np.repeat(np.arange(cell_lat.size), number)
    k = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    across = np.repeat(wide, number)
    y, x = np.repeat(top, number) + k // across, np.repeat(west, number) + k % across
    return cell, rows[y] * lon.size + columns[x]


def _match_points(lat, lon, cell_lat, cell_lon, width) -> tuple[np.ndarray, np.ndarray]:
    """(cell, pixel) pairs of pixels anywhere."""
    order = np.argsort(lat, kind="stable")
    order = order[np.isfinite(lat[order]) & np.isfinite(lon[order])]
    known_lat, known_lon = lat[order], lon[order]
    half_lat, half_lon = 0.5 * _spacing(known_lat, width), 0.5 * _spacing(known_lon, width)
    slack = _SLACK * width
    reach = max(0.5 * width, half_lat) + slack
    first, last = (
        np.searchsorted(known_lat, cell_lat - reach),
        np.searchsorted(known_lat, cell_lat + reach, side="right"),
    )
    cells, pixels = [], []
    for j in range(cell_lat.size):
        near = slice(first[j], last[j])
        north, east = known_lat[near] - cell_lat[j], wrap(known_lon[near] - cell_lon[j])
        box = np.abs(north + slack) <= 0.5 * width, np.abs(east + slack) <= 0.5 * width
        taken = np.flatnonzero(box[0] & box[1])
        if taken.size == 0:
            around = np.flatnonzero((np.abs(north) <= half_lat + slack) & (np.abs(east) <= half_lon + slack))
            taken = around[np.argsort(north[around] ** 2 + east[around] ** 2, kind="stable")[:1]]
        cells.append(np.full(taken.size, j))
        pixels.append(order[near][taken])
    return np.concatenate(cells), np.concatenate(pixels)


def _extent(grid: xr.Dataset) -> str:
    lat, lon = grid["lat"].values, grid["lon"].values
    return f"the region, lat {lat.min():.2f} to {lat.max():.2f}, lon {lon.min():.2f} to {lon.max():.2f}"
