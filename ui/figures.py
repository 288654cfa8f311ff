"""Datasets to figures, all pure: the raster and outlines the map component draws, and the chart of one place.

The class colours of `twin.indices.palette` serve the light and the dark theme alike, because a colour that changes its
meaning with the theme would be read wrongly in a screenshot; only the paper and the near-normal land follow the theme.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from twin.indices import classes
from twin.indices.palette import COLORS, DRY, WET
from ui import words

PAPER = {"light": "#f7f9fb", "dark": "#14181d"}
ORDER = (5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5)  # as the legend reads, worst first
INK = {"light": "#1d2730", "dark": "#f1f4f6"}
DOT = {"light": "#0f7c86", "dark": "#53c6cf"}
MEDIAN = "#7b868f"
PROBABILITIES = (0.05, 0.2, 0.5, 0.8, 0.95)
NO_VALUE, NO_CELL = 11, 255  # raster codes beside the palette positions 0..10 of ORDER
MAX_PIXELS = 1600  # on one side; a finer grid is drawn by its nearest cells


# ----------------------------------------------------------------------------------------------------------- raster


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of a map and the cell each one shows.

    cells (H, W) int32, number of the cell, -1 where there is none; row 0 is the northernmost
    west, north  outer corner, degrees; dx, dy size of a pixel, degrees
    """

    cells: np.ndarray
    west: float
    north: float
    dx: float
    dy: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, degrees."""
        height, width = self.cells.shape
        return self.west, self.north - height * self.dy, self.west + width * self.dx, self.north

    def cell(self, lat: float, lon: float) -> int | None:
        """The cell at a place, or None outside all cells."""
        row, column = int(np.floor((self.north - lat) / self.dy)), int(np.floor((lon - self.west) / self.dx))
        height, width = self.cells.shape
        found = int(self.cells[row, column]) if 0 <= row < height and 0 <= column < width else -1
        return None if found < 0 else found


def layout(lat: np.ndarray, lon: np.ndarray, resolution: float = 0.0) -> Raster:
    """Where on a map each cell lies.

    lat, lon (cell)  centres, degrees; any subset of a grid whose rows and columns are parallels and meridians, evenly
                     spaced or not (EASE grids are not in latitude)
    resolution       size of a cell, degrees; taken from the smallest spacing where it is 0

    A cell reaches half way to where its neighbour lies or would lie, so sparse samples of a grid fill the map too.
    """
    rows, columns = np.unique(np.round(lat, 4))[::-1], np.unique(np.round(lon, 4))
    high, wide = _spacing(rows, resolution), _spacing(columns, resolution)
    top, left = rows[0] + high[0] / 2, columns[0] - wide[0] / 2
    bottom, right = rows[-1] - high[-1] / 2, columns[-1] + wide[-1] / 2
    dy, height = _pixels(rows, high, top - bottom)
    dx, width = _pixels(columns, wide, right - left)

    table = np.full((rows.size + 1, columns.size + 1), -1, np.int32)  # the last row and column stand for "none"
    i = rows.size - 1 - np.searchsorted(rows[::-1], np.round(lat, 4))
    j = np.searchsorted(columns, np.round(lon, 4))
    table[i, j] = np.arange(lat.size, dtype=np.int32)
    at_row = _nearest(rows, high, top - (np.arange(height) + 0.5) * dy)
    at_column = _nearest(columns, wide, left + (np.arange(width) + 0.5) * dx)
    return Raster(table[at_row[:, None], at_column[None, :]], float(left), float(top), float(dx), float(dy))


def _spacing(lines: np.ndarray, resolution: float) -> np.ndarray:
    """Size of each row or column, degrees: the usual gap around it, never bridging a hole."""
    if lines.size < 2:
        return np.full(lines.size, resolution or 1.0)
    gaps = np.abs(np.diff(lines))
    usual = float(np.quantile(gaps, 0.25, method="lower"))
    near = np.minimum(np.r_[gaps, np.inf], np.r_[np.inf, gaps])
    return np.where(near < 1.5 * usual, near, usual)


def _pixels(lines: np.ndarray, sizes: np.ndarray, extent: float) -> tuple[float, int]:
    """Size and number of pixels along one side: one per cell on an even grid, finer on an uneven one."""
    even = np.ptp(sizes) < 0.02 * sizes.min()
    size = float(np.median(sizes)) / (1 if even else 6)
    count = int(np.clip(round(extent / size), 1, MAX_PIXELS))
    return extent / count, count


def _nearest(lines: np.ndarray, sizes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Number of the line nearest to each position, or lines.size where none is within half its size."""
    order = np.argsort(lines)
    ordered = lines[order]
    right = np.clip(np.searchsorted(ordered, at), 0, lines.size - 1)
    left = np.clip(right - 1, 0, lines.size - 1)
    best = order[np.where(np.abs(ordered[left] - at) <= np.abs(ordered[right] - at), left, right)]
    return np.where(np.abs(lines[best] - at) <= 0.501 * sizes[best], best, lines.size)


def raster(codes: np.ndarray, where: Raster) -> np.ndarray:
    """Palette codes uint8 (H, W): the position of a class in ORDER, NO_VALUE where it is missing, NO_CELL elsewhere.

    codes (cell) drought class codes -5..5; anything else is missing
    """
    wide = np.append(codes.astype(int), 0)
    palette = np.where(np.abs(wide) <= 5, 5 - wide, NO_VALUE).astype(np.uint8)
    palette[-1] = NO_CELL  # what cell number -1 finds
    return palette[where.cells]


def hundredths(sure: tuple[np.ndarray, np.ndarray], where: Raster) -> np.ndarray:
    """Soil moisture and its spread as the map tells them, uint8 (2, H, W) in 0.01 m3 m-3; 255 where there is none.

    sure   both (cell), m3 m-3; a cell without a spread has neither
    """
    known = np.isfinite(sure[0]) & np.isfinite(sure[1])
    wide = [np.append(np.where(known, np.round(100.0 * np.where(known, each, 0.0)), 255), 255) for each in sure]
    return np.stack(wide).astype(np.uint8)[:, where.cells]


def shares(codes: np.ndarray, area: np.ndarray) -> dict[int, float]:
    """Share of the area with a value in each class, code -> 0..1, and of all area without one (MISSING).

    codes (cell) drought class codes · area (cell) of each cell, any unit
    """
    found = classes.area_fractions(codes, area)
    known = float(area[np.abs(codes.astype(int)) <= 5].sum())
    pairs = zip(found["code"].values, found.values, strict=True)
    each = {int(code): float(share) if known else 0.0 for code, share in pairs}
    return {**each, classes.MISSING: 1 - known / float(area.sum()) if area.size else 1.0}


# --------------------------------------------------------------------------------------------------------- outlines


def polylines(
    outlines: Sequence[Mapping[str, Any]], bounds: tuple[float, float, float, float], margin: float = 2.0
) -> list[np.ndarray]:
    """Pieces (n, 2) lon, lat of the outlines that come within `margin` degrees of the bounds."""
    west, south, east, north = bounds
    low, high = np.array([west - margin, south - margin]), np.array([east + margin, north + margin])
    pieces = []
    for outline in outlines:
        for ring in outline["rings"]:
            points = np.asarray(ring, float)[:, :2]
            inside = ((points >= low) & (points <= high)).all(axis=1)
            # a segment is drawn when either end is inside
            keep = inside | np.r_[inside[1:], False] | np.r_[False, inside[:-1]]
            if not keep.any():
                continue
            edges = np.flatnonzero(np.diff(np.r_[False, keep, False].astype(int)))
            pieces += [points[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1]
    return pieces


def packed(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Polylines as one int16 stream in hundredths of a degree: n, x, y, then n - 1 differences dx, dy; and so on."""
    stream: list[np.ndarray] = []
    for piece in pieces:
        whole = np.round(piece * 100).astype(np.int32)
        moved = np.r_[True, (np.diff(whole, axis=0) != 0).any(axis=1)]
        whole = whole[moved]
        for start in range(0, max(len(whole) - 1, 0), 32000):
            part = whole[start : start + 32001]
            stream += [np.array([len(part)]), part[0], np.diff(part, axis=0).ravel()]
    return np.concatenate(stream).astype("<i2") if stream else np.zeros(0, "<i2")


def text(array: np.ndarray) -> str:
    """The bytes of an array, deflated, in base64: what the browser's DecompressionStream takes."""
    return base64.b64encode(zlib.compress(array.tobytes(), 6)).decode()


def country(outlines: Sequence[Mapping[str, Any]], lat: float, lon: float) -> str:
    """Name of the outline around a place, '' at sea: a ray to the east crosses its rings an odd number of times."""
    for outline in outlines:
        crossings = 0
        for ring in outline["rings"]:
            points = np.asarray(ring, float)[:, :2]
            x, y = points[:, 0], points[:, 1]
            if not (y.min() <= lat <= y.max() and x.max() >= lon):
                continue
            x2, y2 = np.roll(x, -1), np.roll(y, -1)
            spans = (y > lat) != (y2 > lat)
            with np.errstate(divide="ignore", invalid="ignore"):
                crossings += int((spans & (lon < x + (lat - y) * (x2 - x) / (y2 - y))).sum())
        if crossings % 2:
            return str(outline["name"])
    return ""


def legend(share: Mapping[int, float]) -> list[dict[str, str]]:
    """Rows of the legend in ORDER: short name, name, share in words, colour ('' follows the theme)."""
    return [
        {
            "short": words.KINDS[code].short,
            "name": words.KINDS[code].name,
            "share": words.percent(share.get(code, 0.0)),
            "color": COLORS.get(code, ""),
        }
        for code in ORDER
    ]


# ------------------------------------------------------------------------------------------------ the chart of a place


def series(
    moisture: xr.DataArray,
    codes: xr.DataArray,
    bands: xr.DataArray | None,
    observations: Mapping[str, xr.DataArray],
    day: np.datetime64,
    *,
    theme: str = "light",
    height: int = 300,
) -> alt.LayerChart | alt.FacetChart:
    """Soil moisture of one cell against its climatology.

    moisture      (time) m3 m-3
    codes         (time) drought class codes; drawn as a strip along the bottom
    bands         (time, probability) m3 m-3 at probabilities 0.05, 0.2, 0.5, 0.8, 0.95 (any others are not drawn)
    observations  product -> (time) m3 m-3, drawn as dots
    day           the day shown on the map, marked by a line
    """
    ink = INK[theme]
    x = alt.X("time:T", title=None, axis=alt.Axis(grid=False, format="%b %Y", labelOverlap=True, tickCount=6))
    scale = alt.Scale(zero=False, nice=True, padding=4)
    y = alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format=".2f", tickCount=5))
    at = alt.Tooltip("time:T", title=words.CHART_DAY, format="%d %b %Y")
    layers: list[alt.Chart] = _band_layers(bands, x, theme) if bands is not None else []
    strip = _strip(codes)
    if len(strip):
        layers.append(
            alt.Chart(strip)
            .mark_rect(tooltip=True)
            .encode(
                x=alt.X("time:T"),
                x2="until:T",
                y=alt.value(alt.ExprRef("height - 8")),
                y2=alt.value("height"),
                color=alt.Color("color:N", scale=None, legend=None),
                tooltip=[at, alt.Tooltip("name:N", title=words.CHART_CLASS)],
            )
        )
    for product, values in observations.items():
        dots = _frame(values).assign(name=words.observed(product))
        layers.append(
            alt.Chart(dots)
            .mark_circle(size=14, opacity=0.55, color=DOT[theme])
            .encode(x=x, y=y, tooltip=[at, alt.Tooltip("value:Q", title=words.observed(product), format=".3f")])
        )
    layers.append(
        alt.Chart(_frame(moisture, gaps=True))
        .mark_line(color=ink, strokeWidth=2, interpolate="monotone")
        .encode(x=x, y=y, tooltip=[at, alt.Tooltip("value:Q", title=words.CHART_LINE, format=".3f")])
    )
    layers.append(
        alt.Chart(pd.DataFrame({"time": [pd.Timestamp(day)]}))
        .mark_rule(color=ink, strokeDash=[3, 3], opacity=0.6)
        .encode(x="time:T")
    )
    return alt.layer(*layers).properties(height=height)


_BANDS = (((0.05, 0.2), DRY[1], 0.35), ((0.2, 0.8), "#8a949d", 0.22), ((0.8, 0.95), WET[2], 0.28))


def _band_layers(bands: xr.DataArray, x: alt.X, theme: str) -> list[alt.Chart]:
    held = {round(float(p), 3): bands.sel(probability=p, drop=True) for p in bands["probability"].values}
    layers = []
    for (low, high), color, opacity in _BANDS:
        if low in held and high in held:
            frame = pd.DataFrame({"time": bands["time"].values, "low": held[low].values, "high": held[high].values})
            layers.append(
                alt.Chart(frame.dropna())
                .mark_area(color=color, opacity=opacity, interpolate="monotone", tooltip=False)
                .encode(x=x, y=alt.Y("low:Q", title=None, scale=alt.Scale(zero=False)), y2="high:Q")
            )
    if 0.5 in held:
        frame = _frame(held[0.5].assign_coords(time=bands["time"]))
        layers.append(
            alt.Chart(frame)
            .mark_line(color=MEDIAN, strokeWidth=1, strokeDash=[5, 3], interpolate="monotone")
            .encode(x=x, y=alt.Y("value:Q", title=None))
        )
    return layers


def _frame(values: xr.DataArray, gaps: bool = False) -> pd.DataFrame:
    """time, value; missing days are dropped, or kept as gaps in a line."""
    frame = pd.DataFrame({"time": values["time"].values, "value": values.values.astype(float)})
    return frame if gaps else frame.dropna()


def _strip(runs: xr.DataArray) -> pd.DataFrame:
    """Runs of equal class as rectangles: time, until, color, name; near normal and missing days leave gaps."""
    codes, times = runs.values.astype(int), runs["time"].values
    if not codes.size:
        return pd.DataFrame({"time": [], "until": [], "color": [], "name": []})
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    ends = np.r_[starts[1:] - 1, codes.size - 1]
    rows = [
        {"time": times[a], "until": times[b] + np.timedelta64(1, "D"), "color": COLORS[c], "name": words.kind(c)}
        for a, b in zip(starts, ends, strict=True)
        if (c := int(codes[a])) in COLORS
    ]
    return pd.DataFrame(rows, columns=["time", "until", "color", "name"])


def key(products: Sequence[str], bands: bool, theme: str = "light") -> list[dict[str, str]]:
    """Rows of the chart's key: mark (line, dash, area or dot), colour, name."""
    rows = [("line", INK[theme], words.CHART_LINE)]
    rows += [("dot", DOT[theme], words.observed(product)) for product in products]
    if bands:
        rows += [("area", color, words.band(round(100 * low), round(100 * high))) for (low, high), color, _ in _BANDS]
        rows += [("dash", MEDIAN, words.MEDIAN)]
    return [{"mark": mark, "color": color, "name": name} for mark, color, name in rows]
