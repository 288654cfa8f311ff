"""The regions that ship, and the outlines their land comes from."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from infra.settings import REGIONS, Settings, outlines, region, region_grid, region_names
from stac.sources import PRODUCTS
from twin.errors import SettingsError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("RESOLUTION", "SEED", "REFERENCE_YEARS"):
        monkeypatch.delenv(f"TWIN_DEMO__{name}", raising=False)


def test_every_region_that_ships_is_whole():
    assert region_names() == ["africa", "conus", "demo", "uk"]
    known = {product.id for product in PRODUCTS}
    for name in region_names():
        place = region(name)
        assert place.name == name and set(place.products) <= known
        assert place.simulated == (name == "demo")


def test_the_simulated_region_is_as_the_settings_want_it(monkeypatch):
    monkeypatch.setenv("TWIN_DEMO__RESOLUTION", "4")
    monkeypatch.setenv("TWIN_DEMO__REFERENCE_YEARS", "5")
    place = region("demo")
    assert place.resolution == 4
    assert (place.reference_start, place.reference_end) == (date(2016, 1, 1), date(2020, 12, 31))
    assert region("demo", Settings(demo={"seed": 7})).seed == 7
    assert region("africa").resolution == 0.25, "real regions stay as they are"


def test_a_region_of_ones_own(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text((REGIONS / "uk.toml").read_text().replace('name = "uk"', 'name = "own"'))
    assert region(str(own)).name == "own"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("resolution = 0.5", "resolution = -1", "resolution: expected greater than 0, found -1"),
        ("[-11.0, 49.5, 2.5, 61.5]", "[2.5, 49.5, -11.0, 61.5]", "bbox: expected west < east and south < north"),
        ('soil = "loam"', 'soil = "ancillary"', "soil_file: expected with soil ancillary only"),
        ("resolution = 0.5", "resolutoin = 0.5", "resolution: expected Field required"),
        ("reference_end = 2020-12-31", "reference_end = 1980-01-01", "reference_end: expected after 1991-01-01"),
        ('soil = "loam"', "soil = ", "expected a TOML file"),
    ],
)
def test_a_wrong_region_is_refused_at_the_door(tmp_path, old, new, message):
    text = (REGIONS / "uk.toml").read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(SettingsError, match=message):
        region(str(tmp_path / "wrong.toml"))


def test_an_unknown_region_is_answered_with_those_there_are():
    with pytest.raises(SettingsError, match=r"expected one of africa, conus, demo, uk, or .* found atlantis"):
        region("atlantis")


# ------------------------------------------------------------------------------------------------------------- outlines
def area(rings) -> float:
    """Area of even-odd rings on a sphere of 6371 km, in millions of km²: the integral of sin(lat) along each ring."""
    total = 0.0
    for ring in rings:
        lon, lat = np.radians(np.array(ring)).T
        total += abs(np.sum(np.diff(lon) * (2 + np.sin(lat[1:]) + np.sin(lat[:-1])) / 2) - 2 * np.sum(np.diff(lon)))
    return total * 6371.0**2 / 1e6


def test_outlines_are_small_closed_and_cut_at_the_antimeridian():
    assert (REGIONS / "land.json").stat().st_size < 250_000
    rings = [(country["name"], ring) for country in outlines() for ring in country["rings"]]
    assert len(outlines()) == 177
    for name, ring in rings:
        lon, lat = np.array(ring).T
        assert ring[0] == ring[-1] and len(ring) > 3
        assert np.abs(lon).max() <= 180 and np.abs(lat).max() <= 90
        jump = np.abs(np.diff(lon)).max()
        assert jump < 180 or (name == "Antarctica" and np.abs(lat).max() == 90), name


@pytest.mark.parametrize(
    "name, millions", [("Algeria", 2.38), ("Brazil", 8.5), ("Russia", 17.1), ("South Africa", 1.22)]
)
def test_countries_have_their_published_area(name, millions):
    """UN Demographic Yearbook, surface areas; 1:110m coastlines keep them to a few per cent.

    South Africa's rings hold Lesotho as a hole, which this sum of absolute areas counts twice: 0.03 of 1.22.
    """
    country = next(country for country in outlines() if country["name"] == name)
    assert area(country["rings"]) == pytest.approx(millions, rel=0.06)


def test_africa_is_all_of_it_and_nothing_else():
    place = region("africa")
    chosen = [country for country in outlines() if country["name"] in place.countries]
    assert len(chosen) == len(place.countries) == 51
    total = sum(area(country["rings"]) for country in chosen)
    assert total == pytest.approx(30.3, rel=0.03), "million km², small islands left out"
    west, south, east, north = place.bbox
    lon, lat = np.concatenate([np.array(ring) for country in chosen for ring in country["rings"]]).T
    assert lon.min() > west and lon.max() < east and lat.min() > south and lat.max() < north


def test_land_cells_of_the_simulated_region():
    cells = region_grid(region("demo", Settings(demo={"resolution": 2.0})))
    weight = np.cos(np.radians(cells.lat.values)).sum() * (2 * 111.195) ** 2 / 1e6
    assert weight == pytest.approx(30.0, rel=0.04), "million km² of Africa"
    assert cells.attrs["region"] == "demo" and cells.attrs["resolution"] == 2.0
    near = np.hypot(cells.lat - 9.4, cells.lon + 0.9).min()  # Tamale, Ghana
    assert near < 1.5


def test_a_region_of_its_sources_cells_has_no_grid_before_an_item():
    with pytest.raises(SettingsError, match="expected grid = land, found grid = source"):
        region_grid(region("conus"))
