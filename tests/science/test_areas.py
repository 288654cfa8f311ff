"""Area statistics: the sphere, additivity, and the areas of countries as they are printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import grid
from twin.areas import admin_units, area_statistics, area_weights, cell_shares, polygons
from twin.errors import PlaceError, VariableError
from twin.grid import EARTH_RADIUS, cell_area
from twin.indices import area_fractions, drought_class, dsci

LAND = Path(__file__).parents[2] / "infra" / "regions" / "land.json"
BOX = grid.regular((-5.0, -4.0, 7.0, 6.0), 0.5)


def totals(weights: xr.Dataset) -> dict[str, float]:
    sums = np.bincount(weights["unit_index"], weights["weight"], minlength=weights.sizes["unit"])
    return dict(zip(weights["unit"].values.tolist(), sums, strict=True))


def values(cells: int, days: int = 3, seed: int = 0, missing: float = 0.0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    data = rng.uniform(0.0, 100.0, (days, cells))
    data[rng.random(data.shape) < missing] = np.nan
    time = pd.date_range("2020-01-01", periods=days)
    return xr.DataArray(data, {"time": time}, ("time", "cell"), "soil_moisture_percentile", {"units": "%"})


# --- shares and weights -----------------------------------------------------------------------------------------------
def test_a_quarter_degree_cell_has_its_area_on_the_sphere():
    """R² Δλ (sin φ₂ − sin φ₁): 772.77 km2 at the equator; and all cells of the world have 4πR²."""
    cell = grid.from_points([0.125], [0.125], "one", 0.25)
    expected = EARTH_RADIUS**2 * np.deg2rad(0.25) * np.sin(np.deg2rad(0.25))
    assert expected == pytest.approx(772.77, abs=0.01)
    weights = area_weights(cell, {"all": shapely.box(-1, -1, 1, 1)})
    assert weights["weight"].item() == pytest.approx(expected, rel=1e-12)
    world = area_weights(grid.regular((-180, -90, 180, 90), 5.0), {"world": shapely.box(-180, -90, 180, 90)})
    assert totals(world)["world"] == pytest.approx(4 * np.pi * EARTH_RADIUS**2, rel=1e-12)


def test_a_whole_cell_has_share_one_and_a_cut_one_its_part():
    share = cell_shares(BOX, shapely.box(0.0, 0.0, 1.25, 0.5))
    inside = share.values > 0
    assert sorted(share.values[inside]) == [0.5, 1.0, 1.0]
    assert cell_shares(BOX, shapely.box(-90, -90, 90, 90)).values.tolist() == [1.0] * BOX.sizes["cell"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_shares_are_those_of_many_points(seed):
    """Against counting 40 x 40 points in each cell by scan lines, another algorithm; a percent is their spacing."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    ring = np.stack([1 + 4 * rng.uniform(0.3, 1, 9) * np.cos(angle), 1 + 3 * rng.uniform(0.3, 1, 9) * np.sin(angle)], 1)
    fine = (np.arange(40) + 0.5) / 40 - 0.5
    counted = [
        grid._inside(lat + 0.5 * fine, lon + 0.5 * fine, [ring]).mean()
        for lat, lon in zip(BOX["lat"].values, BOX["lon"].values, strict=True)
    ]
    share = cell_shares(BOX, polygons([{"name": "star", "rings": [ring.tolist()]}])["star"])
    np.testing.assert_allclose(share, counted, atol=0.03)
    assert np.abs(share.values - counted).mean() < 0.003


def triangles(seed: int = 0) -> dict[str, shapely.Geometry]:
    """A partition of the box into triangles that keep to no cell."""
    corners = [(-5, -4), (7, -4), (7, 6), (-5, 6)]
    inner = np.random.default_rng(seed).uniform((-5, -4), (7, 6), (30, 2))
    parts = shapely.get_parts(shapely.delaunay_triangles(shapely.multipoints([*corners, *map(tuple, inner)])))
    return {f"part {k}": part for k, part in enumerate(parts)}


def test_units_that_share_a_region_out_add_up_to_it():
    """Areas to 1e-12; means, class areas and what is known weighted by area, too, with gaps in the values."""
    whole, parts = area_weights(BOX, {"all": shapely.box(-5, -4, 7, 6)}), area_weights(BOX, triangles())
    by_cell = np.bincount(parts["cell_index"], parts["weight"], minlength=BOX.sizes["cell"])
    np.testing.assert_allclose(by_cell, cell_area(BOX), rtol=1e-12)
    area, known = np.array([*totals(parts).values()]), values(BOX.sizes["cell"], missing=0.2)
    for data, name in ((known, "mean"), (drought_class(known), "class_fraction"), (drought_class(known), "dsci")):
        a, b = (area_statistics(data, weights, least=0.0) for weights in (whole, parts))
        assert (b["known"] > 0).all()
        there = b["known"] * area
        np.testing.assert_allclose(there.sum("unit") / area.sum(), a["known"].isel(unit=0), rtol=1e-12)
        np.testing.assert_allclose((b[name] * there).sum("unit") / there.sum("unit"), a[name].isel(unit=0), rtol=1e-12)


def test_a_polygon_is_the_union_of_its_parts():
    parts = list(triangles(1).values())
    both = shapely.union_all(parts[:7])
    sums = np.sum([cell_shares(BOX, part).values for part in parts[:7]], axis=0)
    np.testing.assert_allclose(cell_shares(BOX, both), sums, atol=1e-12)
    features = [
        {"type": "Feature", "properties": {"name": "one"}, "geometry": shapely.geometry.mapping(p)} for p in parts[:7]
    ]
    joined = polygons({"type": "FeatureCollection", "features": features})
    assert joined.keys() == {"one"} and joined["one"].area == pytest.approx(both.area, rel=1e-12)


# --- the date line ----------------------------------------------------------------------------------------------------
def test_the_date_line_is_no_edge():
    """The same islands in two parts, or with longitudes beyond 180; cells beyond it, and one across it."""
    for resolution, shift in ((1.0, 0.0), (1.0, 0.5)):
        lon = np.arange(177.5, 183.5) + shift
        cells = grid.from_points(np.zeros(6), lon, "Pacific", resolution)
        in_two = shapely.multipolygons([shapely.box(178.25, -1, 180, 1), shapely.box(-180, -1, -178.5, 1)])
        east, west = shapely.box(178.25, -1, 181.5, 1), shapely.box(-181.75, -1, -178.5, 1)
        expected = np.clip(np.minimum(lon + 0.5, 181.5) - np.maximum(lon - 0.5, 178.25), 0, 1)
        for shape in (in_two, east, west):
            np.testing.assert_allclose(cell_shares(cells, shape), expected, atol=1e-12)


# --- statistics -------------------------------------------------------------------------------------------------------
def test_statistics_are_those_of_the_cells():
    """Of whole cells: numpy's average, and `area_fractions` and `dsci`, which portal and summaries use."""
    data, shape = values(BOX.sizes["cell"], missing=0.1), shapely.box(0, 0, 3, 2)
    weights = area_weights(BOX, {"a": shape, "b": shapely.box(-5, -4, -1, -1)})
    inside, area = cell_shares(BOX, shape).values > 0, cell_area(BOX).values
    part = data.values[:, inside]
    expected = [np.average(row[np.isfinite(row)], weights=area[inside][np.isfinite(row)]) for row in part]
    found = area_statistics(data, weights)
    np.testing.assert_allclose(found["mean"].sel(unit="a"), expected, rtol=1e-12)
    assert found["mean"].attrs["units"] == "%" and found["mean"].dims == ("time", "unit")
    codes = drought_class(data)
    found, fractions = area_statistics(codes, weights), area_fractions(codes[:, inside], area[inside])
    np.testing.assert_allclose(found["class_fraction"].sel(unit="a"), fractions, atol=1e-12)
    np.testing.assert_allclose(found["dsci"].sel(unit="a"), dsci(fractions), rtol=1e-12)
    assert found["class_fraction"].dims == ("time", "code", "unit")
    one = area_statistics(codes.isel(time=1, drop=True), weights)
    np.testing.assert_array_equal(one["dsci"], found["dsci"][1])


def test_an_area_mostly_unknown_has_no_figure():
    data = values(BOX.sizes["cell"], days=1)
    weights = area_weights(BOX, {"strip": shapely.box(0, 0, 5, 0.5)})
    cells = weights["cell_index"].values
    for missing, known in ((5, 0.5), (6, 0.4), (10, 0.0)):
        gone = data.copy()
        gone[0, cells[:missing]] = np.nan
        for what in (gone, drought_class(gone)):
            found = area_statistics(what, weights)
            assert found["known"].item() == pytest.approx(known, abs=1e-12)
            figures = [found[name].isnull().all().item() for name in found.data_vars if name != "known"]
            assert figures == [known < 0.49] * len(figures)
    assert not area_statistics(gone.fillna(1.0), weights, least=1.0)["mean"].isnull().any()


def test_days_do_not_depend_on_their_neighbours():
    data, weights = values(BOX.sizes["cell"], days=130, missing=0.1), area_weights(BOX, triangles())
    whole = area_statistics(data, weights)
    np.testing.assert_array_equal(whole["mean"][100:101], area_statistics(data[100:101], weights)["mean"])


# --- countries --------------------------------------------------------------------------------------------------------
def on_the_sphere(rings: list) -> float:
    """Area, km2, between straight lines of longitude and latitude: R² ∮ sin φ dλ, each edge in closed form."""
    total = 0.0
    for ring in rings:
        lon, lat = np.radians(np.array([*ring, ring[0]])).T
        rise, middle = np.diff(lat), 0.5 * (lat[1:] + lat[:-1])
        total += abs(np.sum(np.diff(lon) * np.sin(middle) * np.sinc(rise / (2 * np.pi))))
    return EARTH_RADIUS**2 * total


def test_countries_have_their_areas():
    """Against Green's theorem on the sphere; and printed areas, km2, which outlines at 1:110 million come near to."""
    printed = {"Algeria": 2.382e6, "Chad": 1.284e6, "Tanzania": 9.47e5, "Ghana": 2.385e5, "Angola": 1.247e6}
    outlines = json.loads(LAND.read_text(encoding="utf-8"))["countries"]
    weights = admin_units(grid.regular((-20, -36, 55, 38), 0.25), outlines)
    found = totals(weights)
    rings = {country["name"]: country["rings"] for country in outlines}
    for name in ("Niger", "Ghana", "Madagascar", "Lesotho", "Tanzania", "Algeria"):
        assert found[name] == pytest.approx(on_the_sphere(rings[name]), rel=1e-4)
    for name, area in printed.items():
        assert found[name] == pytest.approx(area, rel=0.04), name
    covered = dict(zip(weights["unit"].values, weights["covered"].values, strict=True))
    assert covered["Chad"] == pytest.approx(1.0) and covered["Spain"] < 0.5
    assert "Canada" in weights.attrs["outside"] and "Lesotho" in found


def test_a_hole_is_not_inside_and_a_bad_ring_is_read_as_it_is_drawn():
    outlines = json.loads(LAND.read_text(encoding="utf-8"))["countries"]
    shapes = polygons(outlines)
    assert len(shapes) == 177 and all(shape.is_valid for shape in shapes.values())
    assert not shapes["South Africa"].contains(shapely.Point(28.2, -29.5)), "Lesotho"
    assert shapes["South Africa"].intersection(shapes["Lesotho"]).area < 1e-3


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Point", "coordinates": [0, 0]}, "expected a Polygon or MultiPolygon, found Point"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}, "Self-intersection"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "expected a GeoJSON geometry"),
        ({"type": "Polygon", "coordinates": []}, "found nothing"),
        ({"type": "Polygon", "coordinates": [[[0, 80], [9, 80], [9, 95], [0, 80]]]}, "latitudes within ±90"),
        (None, "expected a GeoJSON geometry|found nothing"),
        ({"kind": "Polygon"}, "expected a GeoJSON geometry"),
    ],
)
def test_a_bad_polygon_is_named(geometry, message):
    feature = {"type": "Feature", "id": "x7", "properties": {"name": "Volta"}, "geometry": geometry}
    with pytest.raises(PlaceError, match=f"polygon 'Volta': .*({message})"):
        polygons([feature])


def test_names_come_from_the_property_asked_for():
    square = shapely.geometry.mapping(shapely.box(0, 0, 1, 1))
    feature = {"type": "Feature", "id": "x7", "properties": {"adm1": "Northern"}, "geometry": square}
    assert [*polygons(feature, name="adm1"), *polygons(feature), *polygons(square)] == ["Northern", "x7", "area"]
    with pytest.raises(PlaceError, match="expected at least one, found none"):
        polygons({"type": "FeatureCollection", "features": []})
    with pytest.raises(PlaceError, match="feature 0: expected a GeoJSON object or an outline"):
        polygons(["land.json"])
    with pytest.raises(PlaceError, match=r"outline 0: expected rings of \[longitude, latitude\]"):
        polygons([{"name": "a", "rings": [[[0, 0]]]}])


def test_nowhere_and_other_cells_are_refused():
    with pytest.raises(PlaceError, match="expected a cell of the region within it"):
        cell_shares(BOX, shapely.box(100, 50, 101, 51))
    with pytest.raises(PlaceError, match="units: expected one that covers a cell of the region, found a, b"):
        area_weights(BOX, {"a": shapely.box(100, 50, 101, 51), "b": shapely.box(7, 6, 8, 8)})
    with pytest.raises(VariableError, match=r"expected \(time, cell 480\)"):
        area_statistics(values(7), area_weights(BOX, {"a": shapely.box(0, 0, 1, 1)}))
