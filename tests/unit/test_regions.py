"""The regions that ship, and the outlines their land comes from."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra import regional
from infra.settings import REGIONS, Region, Settings, outlines, region, region_grid, region_names
from stac.sources import PRODUCTS
from twin import synthetic
from twin.errors import RangeError, SettingsError
from twin.parameters import TILES


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
        ('"grass"', '"ancillary"', "land_cover_file: expected with land_cover ancillary only, found '' and ancillary"),
        ('"grass"', '"grass"\nland_cover_file = "a.nc"', "land_cover_file: expected with land_cover ancillary only"),
        ('"grass"', '"synthetic"', "land_cover: expected synthetic with simulated = true only"),
        ('"grass"', '"grass"\nc4_share = 2', "c4_share: expected less than or equal to 1, found 2"),
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


# ----------------------------------------------------------------------------------------------------------- land cover
def made(place: Region, cells: xr.Dataset, kind: str = "land", sources: tuple[Path, ...] = (), **chosen) -> xr.Dataset:
    """The parameters of a region for a land model."""
    texture = {name: ("cell", np.full(cells.sizes["cell"], share)) for name, share in regional.LOAM.items()}
    arrivals = [{"source": str(source)} for source in sources]
    return regional.parameters(Settings(model={"kind": kind, **chosen}).model, place, cells.assign(texture), arrivals)


def tile(parameters: xr.Dataset, *names: str) -> np.ndarray:
    return parameters["tile_fraction"].sel(tile=list(names)).sum("tile").values


def test_each_model_gets_the_parameters_it_takes():
    place = region("africa")
    cells = region_grid(region("demo", Settings(demo={"resolution": 8.0})))
    daily, hourly = made(place, cells, "land-daily"), made(place, cells)
    assert "tile_fraction" not in daily and daily.attrs["land_cover"] == "the reference grass"
    assert (tile(hourly, "c4_grass") == 1.0).all() and hourly.attrs["land_cover"] == "grass everywhere (100% C4)"
    assert hourly.attrs["retention"] == "brooks-corey" and hourly["lat"].equals(cells["lat"])
    assert made(place, cells, retention="van-genuchten").attrs["retention"] == "van-genuchten"
    assert (tile(made(region("uk"), cells), "c3_grass") == 1.0).all()


def test_the_simulated_land_cover_follows_its_climate():
    """Deserts are bare, wet places wooded, woody plants within the bound of rain, warm wet seasons have C4 grass."""
    place = region("demo")
    cells = region_grid(region("demo", Settings(demo={"resolution": 2.0})))
    rain = synthetic.climate(cells, place.seed).rain
    parameters = made(place, cells)
    assert parameters.attrs["land_cover"] == "simulated land cover"
    np.testing.assert_allclose(parameters["tile_fraction"].sum("tile"), 1.0, rtol=1e-12)
    woody = tile(parameters, "broadleaf_tree", "shrub")
    assert (woody[rain < 101.0] == 0.0).all() and (woody <= 0.8 + 1e-12).all()  # Sankaran et al. (2005)
    assert (tile(parameters, "bare_soil")[rain < 50.0] > 0.7).all()
    assert (tile(parameters, "broadleaf_tree")[rain > 1600.0] > 0.79).all()
    near = [
        int(np.hypot(cells["lat"].values - lat, cells["lon"].values - lon).argmin())
        for lat, lon in ((13.0, 0.0), (35.0, -6.0))
    ]
    share = tile(parameters, "c4_grass") / tile(parameters, "c3_grass", "c4_grass")
    assert share[near[0]] > 0.8 and share[near[1]] < 0.3, "the Sahel's grass is C4, that of winter rain C3"
    other = np.array([3, 40, 100])
    few = made(place, cells.isel(cell=other))["tile_fraction"]
    np.testing.assert_array_equal(few, parameters["tile_fraction"].isel(cell=other), "each cell by itself")


CLASSES = np.array([[50, 50, 130, 130], [50, 0, 130, 210]], dtype="u1")  # trees left, grass right, a gap, a lake


@pytest.fixture
def place(tmp_path) -> Region:
    """Two cells of one degree and one that the file does not reach."""
    text = (
        (REGIONS / "uk.toml")
        .read_text()
        .replace('"grass"', '"ancillary"\nland_cover_file = "cover.nc"\nc4_share = 0.5')
    )
    (tmp_path / "own.toml").write_text(text)
    return region(str(tmp_path / "own.toml"))


@pytest.fixture
def cells() -> xr.Dataset:
    places = {"lat": ("cell", np.array([10.5, 10.5, 11.5])), "lon": ("cell", np.array([0.5, 1.5, 2.5]))}
    return xr.Dataset(coords=places, attrs={"resolution": 1.0, "region": "own"})


def write_codes(path: Path, codes: np.ndarray = CLASSES) -> None:
    axes = {"lat": np.array([10.75, 10.25]), "lon": np.array([0.25, 0.75, 1.25, 1.75])}
    xr.Dataset({"lccs_class": (("time", "lat", "lon"), codes[None])}, {"time": [0], **axes}).to_netcdf(path)


def test_land_cover_of_a_file_of_classes(tmp_path, place, cells):
    """Three of four pixels tree (class 50: 90 % broadleaf, 10 % shrub), the fourth without data; grass and a lake."""
    write_codes(tmp_path / "cover.nc")
    parameters = made(place, cells, sources=(tmp_path / "nothing" / "a.json", tmp_path / "catalog.json"))
    assert parameters.attrs["land_cover"] == "land cover of ESA CCI"
    np.testing.assert_allclose(tile(parameters, "broadleaf_tree"), [0.9, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(tile(parameters, "shrub"), [0.1, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(
        tile(parameters, "lake"), [0.0, 0.25, 0.25], atol=1e-12
    )  # the last cell: its neighbour's
    np.testing.assert_allclose(tile(parameters, "bare_soil"), [0.0, 0.3, 0.3], atol=1e-12)
    for grass in ("c3_grass", "c4_grass"):
        np.testing.assert_allclose(tile(parameters, grass), [0.0, 0.225, 0.225], atol=1e-12)


def test_land_cover_of_a_file_of_shares(tmp_path, place, cells):
    codes = np.array([50, 130, 210])
    shares = {"land_cover_fraction": (("lccs_class", "cell"), np.array([[0.5, 0.0], [0.5, 0.2], [0.0, 0.8]]))}
    places = {"lat": ("cell", np.array([10.5, 10.5])), "lon": ("cell", np.array([0.5, 1.5]))}
    xr.Dataset(shares, {"lccs_class": codes, **places}).to_netcdf(tmp_path / "cover.nc")
    parameters = made(place, cells, sources=(tmp_path / "catalog.json",))
    np.testing.assert_allclose(tile(parameters, "broadleaf_tree", "shrub"), [0.5, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(tile(parameters, "lake"), [0.0, 0.8, 0.8], atol=1e-12)


def test_land_cover_waits_for_a_source_and_says_what_is_wrong(tmp_path, place, cells):
    source = (tmp_path / "catalog.json",)
    assert made(place, cells) is None
    with pytest.raises(SettingsError, match=r"land cover of region uk: expected cover\.nc beside a source, found "):
        made(place, cells, sources=source)
    write_codes(tmp_path / "cover.nc", np.full((2, 4), 220, dtype="u1"))
    with pytest.raises(SettingsError, match="expected no cell that is mostly ice, found 3 cells, first cell 0"):
        made(place, cells, sources=source)
    write_codes(tmp_path / "cover.nc", np.full((2, 4), 33, dtype="u1"))
    with pytest.raises(RangeError, match="expected an LCCS code of ESA CCI, 10 to 220, found 33"):
        made(place, cells, sources=source)
    write_codes(tmp_path / "cover.nc", np.zeros((2, 4), dtype="u1"))
    with pytest.raises(RangeError, match="land cover of region uk: expected a class for some cell, found none"):
        made(place, cells, sources=source)
    xr.Dataset({"lat": ("y", [10.5]), "lon": ("x", [0.5]), "ndvi": (("y", "x"), [[0.2]])}).to_netcdf(
        tmp_path / "cover.nc"
    )
    with pytest.raises(
        SettingsError, match=r"expected latitudes, .* lccs_class, or land_cover_fraction .*found .*ndvi"
    ):
        made(place, cells, sources=source)
    xr.Dataset({"lccs_class": (("row", "column"), CLASSES)}).to_netcdf(tmp_path / "cover.nc")
    with pytest.raises(SettingsError, match=r"expected latitudes, longitudes .* found lccs_class"):
        made(place, cells, sources=source)


def test_a_little_ice_gives_way_to_the_rest(tmp_path, place, cells):
    write_codes(tmp_path / "cover.nc", np.array([[220, 50, 130, 130], [50, 50, 130, 130]], dtype="u1"))
    parameters = made(place, cells, sources=(tmp_path / "catalog.json",))
    np.testing.assert_allclose(tile(parameters, "broadleaf_tree"), [0.9, 0.0, 0.0], atol=1e-12)
    assert (tile(parameters, "ice") == 0.0).all() and len(TILES) == parameters.sizes["tile"]


def test_a_region_of_its_sources_cells_has_no_grid_before_an_item():
    with pytest.raises(SettingsError, match="expected grid = land, found grid = source"):
        region_grid(region("conus"))
