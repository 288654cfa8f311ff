"""Cells and pixels against brute force and geometry."""

from __future__ import annotations

import numpy as np
import pytest

from twin import grid
from twin.errors import PlaceError, VariableError


def even_odd(lon: float, lat: float, rings: list[np.ndarray]) -> bool:
    """One point at a time, edge by edge: the textbook rule."""
    inside = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if (y0 <= lat) != (y1 <= lat) and lon >= x0 + (lat - y0) / (y1 - y0) * (x1 - x0):
                inside = not inside
    return inside


def test_cells_are_the_centres_inside_the_rings():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
    star = np.c_[np.cos(angle), np.sin(angle)] * rng.uniform(4, 12, 60)[:, None]
    hole = np.array([[-1.0, -1.0], [2.0, -1.0], [2.0, 2.0], [-1.0, 2.0]])
    cells = grid.regular((-15, -15, 15, 15), 0.5, [star, hole], "star")
    found = set(zip(cells["lon"].values, cells["lat"].values, strict=True))
    centres = np.arange(-14.75, 15, 0.5)
    assert found == {(x, y) for x in centres for y in centres if even_odd(x, y, [star, hole])}
    assert (0.25, 0.25) not in found and cells.attrs == {"region": "star", "resolution": 0.5}


def test_a_box_without_rings_is_full_and_ordered_north_to_south_west_to_east():
    cells = grid.regular((0, 0, 1, 1), 0.5)
    assert cells["lat"].values.tolist() == [0.75, 0.75, 0.25, 0.25]
    assert cells["lon"].values.tolist() == [0.25, 0.75, 0.25, 0.75]


def test_a_box_may_cross_the_date_line():
    assert sorted(grid.regular((179, 0, -179, 1), 1.0)["lon"].values) == [-179.5, 179.5]


def test_a_region_without_cells_is_refused():
    with pytest.raises(PlaceError, match="expected cells inside the region, found none"):
        grid.regular((0, 0, 1, 1), 0.5, [np.array([[10, 10], [11, 10], [10, 11]])])
    with pytest.raises(PlaceError):
        grid.from_points([91.0], [0.0], "x", 1.0)


def test_areas_add_up_to_the_sphere():
    """Exact boxes: their sum is 4πR², to rounding."""
    area = grid.cell_area(grid.regular((-180, -90, 180, 90), 2.0))
    assert float(area.sum()) == pytest.approx(4 * np.pi * grid.EARTH_RADIUS**2, rel=1e-12)
    assert float(area.max() / area.min()) > 30


# --- pixels ---------------------------------------------------------------------------------------------------------
CELLS = grid.from_points([0.5, 0.5, 10.5], [0.5, 1.5, -0.5], "three", 1.0)


def fine(lats: np.ndarray, lons: np.ndarray) -> np.ndarray:
    return lats[:, None] * 100.0 + lons[None, :]


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("turn", [False, True])
def test_means_of_finer_pixels_whatever_way_the_axes_run(flip, turn):
    lat, lon = np.arange(-19.75, 20, 0.5)[::flip], np.arange(-179.75, 180, 0.5)
    values = fine(lat, lon)
    lon = lon % 360.0 if turn else lon
    order = np.argsort(lon)
    mean, count = grid.matcher(lat, lon[order], CELLS).average(values[:, order])
    np.testing.assert_allclose(mean, [50.5, 51.5, 1049.5], rtol=1e-14)
    assert count.tolist() == [4, 4, 4]


def test_missing_pixels_do_not_count():
    lat, lon = np.arange(-19.75, 20, 0.5), np.arange(-179.75, 180, 0.5)
    values = np.stack([np.ones((80, 720)), np.full((80, 720), np.nan)])
    values[0, 40, 360] = np.nan
    mean, count = grid.matcher(lat, lon, CELLS).average(values)
    assert count.tolist() == [[3, 4, 4], [0, 0, 0]]
    assert mean[0].tolist() == [1.0, 1.0, 1.0] and np.isnan(mean[1]).all()


def test_a_coarser_source_gives_the_pixel_around_the_centre():
    lat, lon = np.arange(-87.5, 90, 5.0), np.arange(2.5, 360, 5.0)
    mean, count = grid.matcher(lat, lon, CELLS).average(fine(lat, lon))
    np.testing.assert_allclose(mean, [252.5, 252.5, 1250 + 357.5])
    assert count.tolist() == [1, 1, 1]


def test_a_source_that_ends_before_a_cell_leaves_it_missing():
    lat, lon = np.arange(-4.5, 5, 1.0), np.arange(-4.5, 5, 1.0)
    mean, count = grid.matcher(lat, lon, CELLS, points=False).average(np.ones((10, 10)))
    assert count.tolist() == [1, 1, 0] and np.isnan(mean[2])


def test_points_are_matched_by_place():
    lat, lon = np.array([0.4, 0.6, 10.5, 0.5, 50.0]), np.array([0.5, 0.5, 359.5, 1.5, 7.0])
    mean, count = grid.matcher(lat, lon, CELLS).average(np.array([[1.0, 3.0, 5.0, 7.0, 9.0]]))
    assert mean.tolist() == [[2.0, 7.0, 5.0]] and count.tolist() == [[2, 1, 1]]


def test_a_source_on_the_cells_themselves_is_taken_as_it_is():
    rng = np.random.default_rng(1)
    cells = grid.regular((-20, 10, 20, 30), 0.375)
    values = rng.random((3, cells.sizes["cell"]))
    mean, count = grid.matcher(cells["lat"], cells["lon"], cells).average(values)
    np.testing.assert_array_equal(mean, values)
    assert (count == 1).all()


def test_places_may_lie_in_a_plane():
    y, x = np.meshgrid(np.arange(-1.75, 13, 0.5), np.arange(-3.75, 4, 0.5), indexing="ij")
    mean, _ = grid.matcher(y, x, CELLS).average(y * 100 + x)
    np.testing.assert_allclose(mean, [50.5, 51.5, 1049.5])


def test_float32_coordinates_do_not_move_pixels_across_edges():
    lat, lon = np.arange(-2.95, 3, 0.1), np.arange(-2.95, 3, 0.1)
    exact = grid.matcher(lat, lon, CELLS, points=False)
    rounded = grid.matcher(lat.astype(np.float32), lon.astype(np.float32), CELLS, points=False)
    assert exact.pixel.tolist() == rounded.pixel.tolist() and len(exact.pixel) == 200


def test_pixels_fall_into_exactly_one_cell_of_a_full_grid():
    cells = grid.regular((-180, -90, 180, 90), 1.0)
    lat, lon = np.arange(-89.9, 90, 0.2), np.arange(0.1, 360, 0.2)
    matched = grid.matcher(lat, lon, cells)
    assert np.array_equal(np.sort(matched.pixel), np.arange(lat.size * lon.size))


def test_a_mean_has_the_same_bits_alone_and_in_a_batch():
    rng = np.random.default_rng(3)
    lat, lon = np.arange(-1.97, 3, 0.05), np.arange(-3.97, 4, 0.05)
    values = rng.random((5, lat.size, lon.size)).astype(np.float32)
    match = grid.matcher(lat, lon, CELLS)
    whole = match.average(values)[0]
    for k in range(5):
        assert match.average(values[k])[0].tobytes() == whole[k].tobytes()


def test_a_source_elsewhere_and_other_shapes_are_refused():
    with pytest.raises(PlaceError, match=r"expected the region, lat 0.50 to 10.50.*found lat 40.50 to 44.50"):
        grid.matcher(np.arange(40.5, 45), np.arange(60.5, 66), CELLS)
    with pytest.raises(VariableError, match="pixels"):
        grid.matcher(np.arange(-5.0, 6), np.arange(-5.0, 7), CELLS).average(np.ones((12, 11)))
