"""Every cell is drawn where it is, nothing missing looks like an answer, and the colours can be told apart."""

from __future__ import annotations

import base64
import itertools
import zlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin.indices import classes, palette
from ui import component, figures, markup

SQUARE = [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]]
HOLE = [[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0], [1.0, 1.0]]


def even_grid(rows=4, columns=5, step=0.5):
    lat, lon = np.meshgrid(10 - step * np.arange(rows), 20 + step * np.arange(columns), indexing="ij")
    return lat.ravel(), lon.ravel()


def test_an_even_grid_has_one_pixel_per_cell_north_up():
    lat, lon = even_grid()
    where = figures.layout(lat, lon)
    assert where.cells.tolist() == np.arange(20).reshape(4, 5).tolist()
    assert where.bounds == pytest.approx((19.75, 8.25, 22.25, 10.25))
    assert (where.dx, where.dy) == pytest.approx((0.5, 0.5))


def test_cells_are_found_at_their_own_places_in_any_order_and_number():
    lat, lon = even_grid(30, 40, 0.25)
    keep = np.random.default_rng(1).permutation(lat.size)[:700]
    lat, lon = lat[keep], lon[keep]
    where = figures.layout(lat, lon, 0.25)
    assert [where.cell(a, o) for a, o in zip(lat, lon, strict=True)] == list(range(700))
    assert sorted(where.cells[where.cells >= 0]) == list(range(700))
    assert where.cell(lat.max() + 1, lon[0]) is None
    assert where.cell(0.0, 0.0) is None


def test_rows_that_are_not_even_in_latitude_are_drawn_to_scale():
    # EASE-Grid 2.0: columns even in longitude, rows even in the sine of latitude
    rows, columns = np.rad2deg(np.arcsin(np.linspace(0.75, 0.45, 18))), np.linspace(-123.4, -71.1, 36)
    lat, lon = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    where = figures.layout(lat, lon, 0.36)
    assert [where.cell(a, o) for a, o in zip(lat, lon, strict=True)] == list(range(lat.size))
    heights = (where.cells[:, 0][:, None] == np.arange(0, lat.size, 36)).sum(axis=0) * where.dy
    assert heights == pytest.approx(np.abs(np.gradient(rows)), rel=0.25)
    assert (where.cells >= 0).mean() > 0.97  # no gaps between neighbours


def test_a_hole_in_the_grid_stays_a_hole():
    lat, lon = even_grid(1, 9, 1.0)
    keep = [0, 1, 2, 6, 7, 8]
    where = figures.layout(lat[keep], lon[keep], 1.0)
    assert where.cells.tolist() == [[0, 1, 2, -1, -1, -1, 3, 4, 5]]


def test_one_cell_alone():
    where = figures.layout(np.array([5.0]), np.array([7.0]), 0.5)
    assert where.bounds == pytest.approx((6.75, 4.75, 7.25, 5.25))
    assert where.cell(5.1, 7.1) == 0


def test_raster_keeps_missing_and_outside_apart_from_near_normal():
    lat, lon = even_grid(1, 4, 1.0)
    where = figures.layout(lat[[0, 1, 3]], lon[[0, 1, 3]], 1.0)
    codes = figures.raster(np.array([5, classes.MISSING, 0], np.int8), where)
    assert codes.tolist() == [[0, figures.NO_VALUE, figures.NO_CELL, 5]]
    assert [figures.ORDER[code] for code in (0, 5)] == [5, 0]
    assert codes.dtype == np.uint8


def test_water_and_its_spread_are_drawn_where_both_are_known():
    lat, lon = even_grid(1, 4, 1.0)
    where = figures.layout(lat[[0, 1, 3]], lon[[0, 1, 3]], 1.0)
    found = figures.hundredths((np.array([0.214, 0.3, np.nan]), np.array([0.004, np.nan, 0.02])), where)
    assert found.tolist() == [[[21, 255, 255, 255]], [[0, 255, 255, 255]]] and found.dtype == np.uint8


def test_shares_are_of_the_area_with_a_value():
    codes, area = np.array([3, 0, 0, classes.MISSING], np.int8), np.array([1.0, 1.0, 2.0, 4.0])
    found = figures.shares(codes, area)
    assert found[3] == pytest.approx(0.25)
    assert found[0] == pytest.approx(0.75)
    assert found[classes.MISSING] == pytest.approx(0.5)
    assert figures.shares(np.full(4, classes.MISSING, np.int8), area)[0] == 0.0


def test_outlines_are_clipped_and_survive_packing():
    far = {"name": "far", "rings": [[[100.0, 50.0], [101.0, 50.0], [101.0, 51.0], [100.0, 50.0]]]}
    pieces = figures.polylines([{"name": "near", "rings": [SQUARE]}, far], (0.0, 0.0, 3.0, 3.0), margin=0.5)
    points = np.concatenate(pieces)
    assert points.max() == 4.0  # a line reaches to the first point outside, so that it ends out of sight
    stream = figures.packed(pieces)
    assert stream.dtype == np.dtype("<i2")
    decoded = []
    at = 0
    while at < stream.size:
        n = int(stream[at])
        steps = stream[at + 1 : at + 1 + 2 * n].reshape(n, 2)
        decoded.append(np.cumsum(steps.astype(int), axis=0) / 100)
        at += 1 + 2 * n
    assert np.allclose(np.concatenate(decoded), points)
    assert figures.packed([]).size == 0


def test_countries_and_their_holes():
    outlines = [{"name": "Around", "rings": [SQUARE, HOLE]}]
    assert figures.country(outlines, 3.0, 3.0) == "Around"
    assert figures.country(outlines, 1.5, 1.5) == ""
    assert figures.country(outlines, 9.0, 9.0) == ""


def test_text_is_what_a_browser_inflates():
    array = np.arange(12, dtype=np.uint8)
    assert zlib.decompress(base64.b64decode(figures.text(array))) == array.tobytes()


# ---------------------------------------------------------------------------------------------------------- colours

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB
VISION = {
    "all cones": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


TO_LMS = (
    (0.41222147, 0.53633254, 0.05144599),
    (0.21190350, 0.68069955, 0.10739696),
    (0.08830246, 0.28171884, 0.62997870),
)
TO_LAB = (
    (0.21045426, 0.79361779, -0.00407205),
    (1.97799850, -2.42859221, 0.45059371),
    (0.02590404, 0.78277177, -0.80867577),
)


def oklab(color: str, eyes) -> np.ndarray:
    """Oklab coordinates (Ottosson 2020) x 100 of a colour as these eyes see it."""
    rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(eyes) @ linear, 0, 1)
    return 100 * np.asarray(TO_LAB) @ np.cbrt(np.asarray(TO_LMS) @ seen)


@pytest.mark.parametrize("eyes", VISION)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_classes_can_be_told_apart_by_all_eyes(eyes, theme):
    colors = {**palette.COLORS, 0: palette.NORMAL[theme]}
    seen = {code: oklab(color, VISION[eyes]) for code, color in colors.items()}
    # 2 is a just noticeable difference side by side; a map needs several times that
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 6.5, (a, b)


def test_every_step_is_darker_so_the_order_survives_grey_printing():
    for side in (palette.DRY, palette.WET):
        lightness = [oklab(color, np.eye(3))[0] for color in side]
        assert all(b < a - 8 for a, b in itertools.pairwise(lightness))


# ------------------------------------------------------------------------------------------------------------ series


def series(**changes):
    time = pd.date_range("2026-01-01", periods=40)
    values = np.linspace(0.3, 0.2, 40).astype("float32")
    values[10] = np.nan
    codes = np.repeat([0, 1, 2, classes.MISSING], 10).astype(np.int8)
    bands = xr.DataArray(
        np.linspace(0.1, 0.4, 5)[None, :].repeat(40, axis=0),
        {"time": time, "probability": list(figures.PROBABILITIES)},
        ("time", "probability"),
    )
    given = {
        "moisture": xr.DataArray(values, {"time": time}, ("time",)),
        "codes": xr.DataArray(codes, {"time": time}, ("time",)),
        "bands": bands,
        "observations": {"smap": xr.DataArray(values[::4], {"time": time[::4]}, ("time",))},
        "day": np.datetime64("2026-02-09"),
    }
    return figures.series(**{**given, **changes}).to_dict()


def test_the_series_draws_bands_strip_dots_line_and_day():
    chart = series()
    marks = [layer["mark"]["type"] for layer in chart["layer"]]
    assert marks == ["area", "area", "area", "line", "rect", "circle", "line", "rule"]


def test_a_place_without_reference_or_observations_still_has_its_line():
    marks = [layer["mark"]["type"] for layer in series(bands=None, observations={})["layer"]]
    assert marks == ["rect", "line", "rule"]


def test_a_missing_day_is_a_gap_in_the_line_and_in_the_strip():
    chart = series()
    rows = chart["datasets"][chart["layer"][6]["data"]["name"]]
    assert pd.isna(rows[10]["value"])
    strip = chart["datasets"][chart["layer"][4]["data"]["name"]]
    assert [row["name"] for row in strip] == ["D0 abnormally dry", "D1 moderate drought"]
    assert strip[1]["until"].startswith("2026-01-31")


# ---------------------------------------------------------------------------------------------- what comes from outside


def test_hostile_text_stays_text():
    evil = '<img src=x onerror="alert(1)">'
    row = {"text": evil, "time": evil, "sources": [evil] * 5, "href": "javascript:alert(1)", "refused": True}
    pieces = [
        markup.events([row]),
        markup.quarantine([{"id": evil, "kind": evil, "reason": evil}]),
        markup.notices([evil]),
        markup.place(evil, evil, evil, evil, evil, [evil]),
        markup.key([{"mark": evil, "color": evil, "name": evil}]),
    ]
    for piece in pieces:
        assert "<img" not in piece
        assert "javascript:" not in piece


@pytest.mark.parametrize("text", ["", "nowhere", "1", "91,0", "0,361", "nan,nan", "1,2,3", "inf,0"])
def test_an_address_that_is_no_place_is_none(text):
    assert component.address(text) is None


def test_places_from_the_url_and_from_the_browser():
    assert component.address("9.25,-0.75") == (9.25, -0.75)
    assert component.point({"lat": 9.25, "lon": -0.75}) == (9.25, -0.75)
    assert component.point(None) is component.point({"lat": "x", "lon": 1}) is None
