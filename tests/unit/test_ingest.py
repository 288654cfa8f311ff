"""Ingest: an item's files become daily values on the region's cells, in our names and units."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra import regional
from infra.ingest import grid_of_source, read, soil_of_source
from infra.settings import Region, Settings, region, region_grid
from twin.checks import check_dataset
from twin.errors import PlaceError, RangeError, TimeError, UnitsError, VariableError
from twin.forcing import standard_pressure
from twin.grid import from_points, regular
from twin.observations import FOOTPRINT
from twin.variables import VARIABLES, with_role

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAYS = pd.date_range("2020-01-01", periods=3)
PLACE = Region(
    name="test",
    title="Test",
    bbox=(0, 0, 2, 1),
    resolution=1,
    grid="source",
    start="2019-12-31",
    reference_start="2000-01-01",
    reference_end="2009-12-31",
    soil="ancillary",
    soil_file="soil.nc",
    products=("smap-l3-am", "nldas2-fora-daily", "c3s-soil-moisture", "wfde5", "simulated-forcing", "simulated-sif"),
)
CELLS = from_points([0.5, 0.5], [0.5, 1.5], "test", 1)
FORCING = {row.name for row in with_role("forcing")}


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path / "home")


def item(folder: Path, collection: str, start: str, files: dict[str, xr.Dataset | Path], **more: Any) -> dict[str, Any]:
    """An arrival whose assets are the given datasets, written here, or files that are there."""
    found = {}
    for key, content in files.items():
        path = content if isinstance(content, Path) else folder / f"{key}.nc"
        if isinstance(content, xr.Dataset):
            content.to_netcdf(path)
        body = path.read_bytes()
        checksum = "1220" + hashlib.sha256(body).hexdigest()
        found[key] = {"href": str(path), "type": "application/netcdf", "checksum": checksum, "size": len(body)}
    source = str(next(iter(found.values()))["href"]).rpartition("/")[0] + "/catalog.json"
    return {
        "id": f"{collection}-1",
        "collection": collection,
        "datetime": start,
        "source": source,
        "assets": found,
        **more,
    }


def take(arrival: dict[str, Any], settings: Settings, place: Region = PLACE, cells: xr.Dataset = CELLS):
    return read(arrival, cells, now=NOW, region=place, settings=settings)


def points(values: dict[str, tuple[np.ndarray, str]], lat=(0.5, 0.5), lon=(0.5, 1.5), days=DAYS) -> xr.Dataset:
    """Variables (time, cell) with their units."""
    data = {name: (("time", "cell"), np.asarray(v, np.float32), {"units": unit}) for name, (v, unit) in values.items()}
    return xr.Dataset(data, {"time": days, "lat": ("cell", list(lat)), "lon": ("cell", list(lon))})


def soil_moisture(values, days=DAYS[:1], **more: Any) -> xr.Dataset:
    return points({"soil_moisture": (values, "m3 m-3")}, days=days, **more)


def nldas(**other: tuple[float, str]) -> xr.Dataset:
    native = {
        "APCP_FORA": (0.36, "mm h-1"),
        "TMP_2_FORA": (290.0, "K"),
        "DSWRF_FORA": (200.0, "W m-2"),
        "DLWRF_FORA": (300.0, "W m-2"),
        "SPFH_2_FORA": (0.01, "kg kg-1"),
        "UGRD_10_FORA": (3.0, "m s-1"),
        "VGRD_10_FORA": (-4.0, "m s-1"),
    } | other
    return points({name: (np.full((3, 2), value), unit) for name, (value, unit) in native.items()})


# ---------------------------------------------------------------------------------------------------------- forcing
def test_nldas_becomes_ours(tmp_path, settings):
    granule = take(item(tmp_path, "nldas2-fora-daily", "2020-01-01T00:00:00Z", {"data": nldas()}), settings)
    assert (granule.product, granule.kind) == ("nldas2-fora-daily", "forcing")
    check_dataset(granule.data, "forcing")
    assert all(array.dtype == np.float32 for array in granule.data.values())
    assert granule.data.time.equals(xr.DataArray(DAYS, dims="time", coords={"time": DAYS}))
    means = {name: float(array.mean()) for name, array in granule.data.items()}
    assert means["precipitation_flux"] == pytest.approx(1e-4, rel=1e-6)  # 0.36 mm h-1
    assert means["wind_speed"] == pytest.approx(5)
    assert means["surface_air_pressure"] == pytest.approx(101300)
    assert set(granule.notes["derived"]) == {"wind_speed", "surface_air_pressure"}
    json.dumps(granule.notes)


def test_pressure_in_the_file_is_used(tmp_path, settings):
    data = nldas(PRES_FORA=(85000.0, "Pa"))
    granule = take(item(tmp_path, "nldas2-fora-daily", "2020-01-01T00:00:00Z", {"data": data}), settings)
    assert float(granule.data.surface_air_pressure.mean()) == 85000
    assert "surface_air_pressure" not in granule.notes["derived"]


def test_pressure_falls_with_the_elevation_of_the_grid(tmp_path, settings):
    cells = CELLS.assign(elevation=("cell", [0.0, 1800.0]))
    arrival = item(tmp_path, "nldas2-fora-daily", "2020-01-01T00:00:00Z", {"data": nldas()})
    granule = take(arrival, settings, cells=cells)
    np.testing.assert_allclose(
        granule.data.surface_air_pressure[0], standard_pressure(np.array([0, 1800.0])), rtol=1e-6
    )
    assert standard_pressure(1800.0) == pytest.approx(81800, abs=50)  # FAO-56, example 2: 81.8 kPa


@pytest.mark.parametrize("units", ["mm/day", "kg m-2 s-1", "", "mm"])
def test_units_that_are_not_declared_are_refused_with_both_sides(tmp_path, settings, units):
    data = nldas(APCP_FORA=(0.36, units))
    with pytest.raises(UnitsError, match=r"'APCP_FORA': expected mm h-1 or .*, found ") as caught:
        take(item(tmp_path, "nldas2-fora-daily", "2020-01-01T00:00:00Z", {"data": data}), settings)
    assert caught.value.found == (repr(units) if units else "none")


def test_a_missing_variable_is_named_with_what_is_there(tmp_path, settings):
    data = nldas().drop_vars("VGRD_10_FORA")
    with pytest.raises(
        VariableError, match="'wind_speed': expected UGRD_10_FORA or VGRD_10_FORA, found APCP_FORA, TMP"
    ):
        take(item(tmp_path, "nldas2-fora-daily", "2020-01-01T00:00:00Z", {"data": data}), settings)


def test_simulated_weather_passes_unchanged(tmp_path, settings):
    made = {
        row.name: (np.full((3, 2), 0.5 * (row.valid_min + row.valid_max)), row.units) for row in with_role("forcing")
    }
    granule = take(item(tmp_path, "simulated-forcing", "2020-01-01T00:00:00Z", {"data": points(made)}), settings)
    for name, (values, _) in made.items():
        np.testing.assert_array_equal(granule.data[name], values.astype(np.float32))
    assert "derived" not in granule.notes


# ----------------------------------------------------------------------------------------------------------- hourly
def hourly(name: str, values: np.ndarray, units: str, start: str = "2020-01-01") -> xr.Dataset:
    """A raster of two pixels in 0..360 longitudes, north first; values (hour)."""
    times = pd.date_range(start, periods=len(values), freq="h")
    cube = np.broadcast_to(np.asarray(values, np.float32)[:, None, None], (len(values), 2, 2))
    coordinates = {"time": times, "lat": [1.5, 0.5], "lon": [0.5, 1.5]}
    return xr.Dataset({name: (("time", "lat", "lon"), cube, {"units": units})}, coordinates)


def wfde5(hours: int = 48, start: str = "2020-01-01") -> dict[str, xr.Dataset]:
    ramp = np.arange(hours) % 24
    made = {"Tair": (280.0 + ramp, "K"), "Qair": (0.005 + 0 * ramp, "kg kg-1"), "Wind": (4.0 + 0 * ramp, "m s-1")}
    made |= {"SWdown": (20.0 * ramp, "W m-2"), "LWdown": (300.0 + ramp, "W m-2")}
    made |= {"Rainf": (1e-5 * ramp, "kg m-2 s-1"), "Snowf": (1e-6 * ramp, "kg m-2 s-1")}
    return {name: hourly(name, values, units, start) for name, (values, units) in made.items()}


def test_hours_become_utc_days_and_rain_and_snow_precipitation(tmp_path, settings):
    granule = take(item(tmp_path, "wfde5", "2020-01-01T00:00:00Z", wfde5()), settings)
    check_dataset(granule.data, "forcing")
    assert granule.data.sizes == {"time": 2, "cell": 2}
    np.testing.assert_allclose(granule.data.air_temperature, 291.5)  # 280 + the mean of 0..23
    np.testing.assert_allclose(granule.data.precipitation_flux, 1.1e-5 * 11.5, rtol=1e-6)
    assert granule.notes["derived"]["precipitation_flux"] == "sum of rainfall_flux, snowfall_flux"


def test_days_that_are_not_whole_are_left_out_and_counted(tmp_path, settings):
    granule = take(item(tmp_path, "wfde5", "2020-01-01T06:00:00Z", wfde5(66, "2020-01-01T06:00")), settings)
    assert list(granule.data.time.values) == [np.datetime64("2020-01-02"), np.datetime64("2020-01-03")]
    assert granule.notes["days_left_out"] == 1
    with pytest.raises(TimeError, match="expected 24 a day, found 12"):
        take(item(tmp_path, "wfde5", "2020-01-01T00:00:00Z", wfde5(12)), settings)


def test_assets_must_share_times_and_places(tmp_path, settings):
    files = wfde5()
    later = {**files, "Qair": files["Qair"].assign_coords(time=files["Qair"].time + np.timedelta64(1, "h"))}
    with pytest.raises(TimeError, match=r"expected the times of Tair, 48 from .*, found .* for Qair"):
        take(item(tmp_path, "wfde5", "2020-01-01T00:00:00Z", later), settings)
    elsewhere = {**files, "Qair": files["Qair"].assign_coords(lon=[0.6, 1.6])}
    with pytest.raises(PlaceError, match="for Qair"):
        take(item(tmp_path, "wfde5", "2020-01-01T00:00:00Z", elsewhere), settings)


def test_assets_of_no_use_do_no_harm(tmp_path, settings):
    files = wfde5() | {"ASurf": hourly("ASurf", np.ones(1), "m")}
    assert take(item(tmp_path, "wfde5", "2020-01-01T00:00:00Z", files), settings).data.sizes["time"] == 2


# ------------------------------------------------------------------------------------------------------ observations
def test_smap_at_noon_is_that_day(tmp_path, settings):
    granule = take(
        item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": soil_moisture([[0.2, np.nan]])}), settings
    )
    assert granule.data.time.values == np.datetime64("2020-01-01")
    np.testing.assert_array_equal(granule.data.surface_soil_moisture, np.array([[0.2, np.nan]], np.float32))
    np.testing.assert_array_equal(granule.data.surface_soil_moisture_error, np.array([[0.04, np.nan]], np.float32))
    assert granule.notes["observed"] == 1
    assert granule.data.surface_soil_moisture.attrs == VARIABLES["surface_soil_moisture"].attrs


def test_a_file_without_time_has_the_items(tmp_path, settings):
    data = soil_moisture([[0.2, 0.3]]).isel(time=0, drop=True)
    granule = take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00+03:00", {"data": data}), settings)
    assert granule.data.time.values == np.datetime64("2020-01-01")


def test_the_error_of_a_mean_falls_to_its_floor_and_no_further(tmp_path, settings):
    lat, lon = np.full(17, 0.5), np.concatenate([np.linspace(0.1, 0.9, 16), [1.5]])
    data = soil_moisture(np.full((1, 17), 0.2), lat=lat, lon=lon)
    granule = take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": data}), settings)
    np.testing.assert_allclose(granule.data.surface_soil_moisture_error, [[0.02, 0.04]])  # 0.04/√16 is below the floor


def merged(flag=0, uncertainty=0.1, **attrs: Any) -> xr.Dataset:
    """Four pixels in the western cell, one in the eastern, as the merged products have them."""
    shape = ("time", "lat", "lon")
    lat, lon = [0.75, 0.25], [0.25, 0.75, 1.5]
    sm = np.array([[[0.1, 0.2, 0.5], [0.3, 0.4, np.nan]]], np.float32)
    flags = np.zeros_like(sm, dtype=np.int8)
    flags[0, 0, 1] = flag
    data = {
        "sm": (shape, sm, {"units": "m3 m-3"}),
        "sm_uncertainty": (shape, np.full_like(sm, uncertainty), {"units": "m3 m-3"}),
        "flag": (shape, flags, {"_FillValue": np.int8(127)}),
    }
    return xr.Dataset(data, {"time": DAYS[:1], "lat": lat, "lon": lon}, attrs)


def test_flagged_pixels_are_left_out_of_means_and_counted(tmp_path, settings):
    clear = take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": merged()}), settings)
    np.testing.assert_allclose(clear.data.surface_soil_moisture, [[0.25, 0.5]])
    np.testing.assert_allclose(clear.data.surface_soil_moisture_error, [[0.05, 0.1]])  # 0.1/√4 and 0.1/√1
    doubtful = take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": merged(flag=2)}), settings)
    np.testing.assert_allclose(doubtful.data.surface_soil_moisture, [[0.8 / 3, 0.5]], rtol=1e-6)
    assert (clear.notes["masked"], doubtful.notes["masked"]) == (0, 1)


def test_smap_is_used_where_its_quality_is_recommended(tmp_path, settings):
    """0 and 8 (bit 3 is about freezing and thawing) are recommended, 1 is not, 7 failed and 65534 is missing."""
    lat, lon = np.full(6, 0.5), [0.1, 0.2, 0.3, 0.4, 0.5, 1.5]
    data = soil_moisture([[0.1, 0.2, 0.3, 0.4, 0.5, 0.45]], lat=lat, lon=lon)
    plain = take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": data}), settings)
    np.testing.assert_allclose(plain.data.surface_soil_moisture, [[0.3, 0.45]])
    assert plain.notes["flags_missing"] == ["retrieval_qual_flag"] and "masked" not in plain.notes
    for fill in ({}, {"_FillValue": np.uint16(65534)}):
        quality = np.array([[0, 8, 1, 7, 65534, 8]], np.uint16)
        flagged = data.assign(retrieval_qual_flag=(("time", "cell"), quality, fill))
        granule = take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": flagged}), settings)
        np.testing.assert_allclose(granule.data.surface_soil_moisture, [[0.15, 0.45]])
        assert granule.notes["masked"] == 3 and "flags_missing" not in granule.notes


def test_a_product_whose_every_retrieval_is_flagged_is_set_aside_and_says_why(tmp_path, settings):
    data = soil_moisture([[0.2, 0.3]]).assign(retrieval_qual_flag=(("time", "cell"), np.array([[1, 7]], np.uint16)))
    why = r"no finite value \(2 masked: 'retrieval_qual_flag' accepts recommended quality\) \(item smap-l3-am-1\)"
    with pytest.raises(RangeError, match=why):
        take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": data}), settings)


def test_fluorescence_is_used_where_less_than_half_is_clouded(tmp_path, settings):
    lat, lon = np.full(4, 0.5), [0.2, 0.4, 0.6, 1.5]
    sif, cloud = np.array([[1.0, 2.0, 9.0, 0.0]]), np.array([[0.0, 0.49, 0.5, np.nan]])
    data = points(
        {"sif_radiance": (sif, "W m-2 sr-1 um-1"), "cloud_area_fraction": (cloud, "1")}, lat, lon, days=DAYS[:1]
    )
    granule = take(item(tmp_path, "simulated-sif", "2020-01-01T12:00:00Z", {"data": data}), settings)
    np.testing.assert_allclose(granule.data.sif_radiance, [[1.5, np.nan]])
    np.testing.assert_allclose(granule.data.sif_radiance_error, [[0.5 / np.sqrt(2), np.nan]], rtol=1e-6)
    assert granule.notes["masked"] == 2


def test_a_flagged_value_may_be_impossible(tmp_path, settings):
    data = merged(flag=8)
    data["sm"][0, 0, 1] = 7.0
    assert (
        take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": data}), settings).notes["masked"] == 1
    )
    data["flag"][0, 0, 1] = 0
    with pytest.raises(RangeError, match=r"expected 0 to 1 m3 m-3, found 7"):
        take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": data}), settings)


def test_pixels_without_uncertainty_get_the_products(tmp_path, settings):
    data = merged(uncertainty=np.nan)
    granule = take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": data}), settings)
    np.testing.assert_allclose(granule.data.surface_soil_moisture_error, [[0.03, 0.06]])
    assert granule.notes["errors_assumed"] == 5


def test_uncertainty_in_other_units_is_refused(tmp_path, settings):
    data = merged()
    data["sm_uncertainty"].attrs["units"] = "%"
    with pytest.raises(UnitsError, match=r"'sm_uncertainty': expected m3 m-3 or .*, found '%'"):
        take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": data}), settings)


def test_a_monthly_mean_is_another_product(tmp_path, settings):
    data = merged().assign(nobs=(("time", "lat", "lon"), np.ones((1, 2, 3))))
    with pytest.raises(TimeError, match="expected daily values, found means over more than a day"):
        take(item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": data}), settings)


# ------------------------------------------------------------------------------------------------- times and products
def test_days_before_the_regions_first_are_left_out(tmp_path, settings):
    days = pd.date_range("2019-12-30", periods=3)
    data = soil_moisture([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]], days=days)
    granule = take(item(tmp_path, "smap-l3-am", "2019-12-30T00:00:00Z", {"data": data}), settings)
    assert list(granule.data.time.values) == list(days[1:].values)
    np.testing.assert_allclose(granule.data.surface_soil_moisture[:, 0], [0.2, 0.3])


def test_the_region_decides_which_products_it_takes(tmp_path, settings):
    arrival = item(tmp_path, "simulated-soil-moisture", "2020-01-01T00:00:00Z", {"data": soil_moisture([[0.1, 0.1]])})
    with pytest.raises(VariableError, match="found simulated-soil-moisture, which test does not take"):
        take(arrival, settings)
    arrival["collection"] = "modis-061"
    with pytest.raises(VariableError, match="found an item no product recognises, in collection 'modis-061'"):
        take(arrival, settings)


def test_one_item_read_twice_gives_the_same_bits(tmp_path, settings):
    arrival = item(tmp_path, "c3s-soil-moisture", "2020-01-01T00:00:00Z", {"data": merged()})
    xr.testing.assert_identical(take(arrival, settings).data, take(arrival, settings).data)


def test_a_coarser_source_lends_its_pixel_to_every_cell_in_it(tmp_path, settings):
    cells = regular((0, 0, 2, 1), 0.25, None, "test")
    values = np.array([[[0.1, 0.1], [0.2, 0.4]]], np.float32)
    data = xr.Dataset(
        {"soil_moisture": (("time", "lat", "lon"), values, {"units": "m3 m-3"})},
        {"time": DAYS[:1], "lat": [1.5, 0.5], "lon": [0.5, 1.5]},
    )
    granule = take(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": data}), settings, cells=cells)
    np.testing.assert_allclose(granule.data.surface_soil_moisture[0], np.where(cells.lon < 1, 0.2, 0.4))


# -------------------------------------------------------------------------------------------------- grids and soils
def test_cells_come_from_the_source_inside_the_regions_box(tmp_path, settings):
    data = soil_moisture([[0.1, 0.2, 0.3]], lat=[0.5, 0.5, 5.0], lon=[1.5, 0.5, 0.5])
    cells = grid_of_source(item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": data}), PLACE, settings)
    np.testing.assert_array_equal(cells.lon, [1.5, 0.5])
    assert cells.attrs == {"region": "test", "resolution": 1.0}


def soils(tmp_path, **other: list[float]) -> str:
    share = {"sand": [60.0, np.nan], "silt": [30.0, 20.0], "clay": [20.0, 20.0]} | other
    data = xr.Dataset(
        {name: ("cell", values, {"units": "%"}) for name, values in share.items()},
        {"lat": ("cell", [0.5, 0.5]), "lon": ("cell", [0.5, 1.5])},
    )
    data.to_netcdf(tmp_path / "soil.nc")
    return str(tmp_path / "catalog.json")


def test_soils_are_fractions_complete_and_counted(tmp_path):
    soil = soil_of_source(soils(tmp_path), PLACE, CELLS)
    for name, expected in (("sand", 6 / 11), ("silt", 3 / 11), ("clay", 2 / 11)):
        np.testing.assert_allclose(
            soil[name], [expected, expected]
        )  # the second cell has no sand: its neighbour's soil
    assert soil.attrs == {"filled": 1, "normalised": 1}


def test_impossible_soils_are_refused(tmp_path):
    with pytest.raises(RangeError, match="soil 'clay'"):
        soil_of_source(soils(tmp_path, clay=[-1.0, 20.0]), PLACE, CELLS)
    assert not soil_of_source("", PLACE.model_copy(update={"soil": "loam"}), CELLS)


def test_what_a_footprint_holds_comes_with_the_soil_where_the_file_has_it(tmp_path, settings):
    """The gates of assimilation ask it; what is not known of a cell stays unknown, and texture is as without."""
    plain = soil_of_source(soils(tmp_path), PLACE, CELLS)
    assert not set(FOOTPRINT) & set(plain.variables)
    water, forest = "water_fraction", "dense_vegetation_fraction"
    given = soil_of_source(soils(tmp_path, **{water: [5.0, np.nan], forest: [60.0, 0.0]}), PLACE, CELLS)
    np.testing.assert_allclose(given[water], [0.05, np.nan])
    np.testing.assert_allclose(given[forest], [0.6, 0.0])
    xr.testing.assert_identical(given.drop_vars(FOOTPRINT), plain)
    seen = soil_moisture([[0.1, 0.2]], lat=CELLS.lat.values, lon=CELLS.lon.values)
    arrival = item(tmp_path, "smap-l3-am", "2020-01-01T12:00:00Z", {"data": seen})
    cells = regional.cells(SimpleNamespace(settings=settings), PLACE, [arrival])
    xr.testing.assert_equal(cells.drop_vars(("lat", "lon")), given.drop_vars(("lat", "lon"), errors="ignore"))
    with pytest.raises(RangeError, match=r"'water_fraction': expected 0\.\.1"):
        soil_of_source(soils(tmp_path, **{water: [500.0, 0.0]}), PLACE, CELLS)


# -------------------------------------------------------------------------------------------------------- real files
def real_item(path: Path, source: Path) -> dict[str, Any]:
    """An arrival as the provider's catalog describes it."""
    document = json.loads(path.read_text())
    times = document["properties"]
    found = {
        key: {"href": str(path.parent / asset["href"]), "checksum": asset["file:checksum"], "size": asset["file:size"]}
        for key, asset in document["assets"].items()
    }
    start = times.get("start_datetime") or times["datetime"]
    return {
        "id": document["id"],
        "collection": document["collection"],
        "datetime": start,
        "end": times.get("end_datetime"),
        "source": str(source),
        "href": str(path),
        "assets": found,
    }


@pytest.mark.real_data
def test_real_smap_and_nldas(real_data, settings):
    catalog, place = real_data / "conus" / "catalog.json", region("conus")
    name = "smap-l3-am-20170118"
    smap = real_item(catalog.parent / "smap-l3-am" / name / f"{name}.json", catalog)
    cells = grid_of_source(smap, place, settings)
    soil = soil_of_source(str(catalog), place, cells)
    assert cells.sizes["cell"] == 308
    np.testing.assert_allclose(soil.sand + soil.silt + soil.clay, 1)
    with xr.open_dataset(real_data / "conus/ancillaries.nc") as native:
        for name in FOOTPRINT:
            np.testing.assert_allclose(soil[name], native[name])
    granule = take(smap, settings, place, cells)
    with xr.open_dataset(real_data / "conus/assets/smap/smap_l3_am_20170118.nc") as native:
        np.testing.assert_array_equal(granule.data.surface_soil_moisture, native.soil_moisture)
    name = "nldas2-fora-2015-04"
    granule = take(
        real_item(catalog.parent / "nldas2-fora-daily" / name / f"{name}.json", catalog), settings, place, cells
    )
    check_dataset(granule.data, "forcing", missing=False)
    with xr.open_dataset(real_data / "conus/assets/nldas/nldas2_fora_2015-04.nc") as native:
        np.testing.assert_allclose(granule.data.precipitation_flux * 3600, native.APCP_FORA, rtol=1e-6)
        np.testing.assert_array_equal(granule.data.time, native.time)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("collection", "pattern", "day"),
    [
        ("c3s-soil-moisture", "C3S*COMBINED-DAILY*.nc", "2017-07-01"),
        ("esacci-soil-moisture", "ESACCI*PASSIVE*.nc", "2016-12-31"),
    ],
)
def test_real_merged_soil_moisture(real_data, settings, collection, pattern, day):
    place = region("uk").model_copy(update={"start": date(2016, 12, 1)})
    cells = region_grid(place)
    (path,) = (real_data / "c3s_soil_moisture").glob(pattern)
    granule = take(item(path.parent, collection, f"{day}T00:00:00Z", {"data": path}), settings, place, cells)
    check_dataset(granule.data, ["surface_soil_moisture"])
    assert granule.notes["observed"] > 0.7 * cells.sizes["cell"]
    lat, lon = cells.lat.values[20], cells.lon.values[20]
    with xr.open_dataset(path) as native:
        box = (np.abs(native.lat - lat) < 0.25) & (np.abs(native.lon - lon) < 0.25)
        inside = native.where(box & (native.flag == 0), drop=True)
        expected = float(inside.sm.mean())
    np.testing.assert_allclose(granule.data.surface_soil_moisture[0, 20], expected, rtol=1e-6)
    assert float(granule.data.surface_soil_moisture_error.min()) == pytest.approx(0.02)


@pytest.mark.real_data
def test_a_real_monthly_mean_is_refused(real_data, settings):
    path = next((real_data / "c3s_soil_moisture").glob("C3S*MONTHLY-201707*.nc"))
    place = region("uk")
    with pytest.raises(TimeError, match="'nobs'"):
        arrival = item(path.parent, "c3s-soil-moisture", "2017-07-01T00:00:00Z", {"data": path})
        take(arrival, settings, place, region_grid(place))


@pytest.mark.real_data
def test_real_wfde5(real_data, settings):
    folder, place = real_data / "uk_wfde5", region("uk")
    cells = region_grid(place)
    names = FORCING - {"surface_air_pressure"}
    files = {name: folder / f"{name}.nc" for name in sorted(names)}
    granule = take(item(folder, "wfde5", "2017-01-01T00:00:00Z", files), settings, place, cells)
    check_dataset(granule.data, "forcing")
    assert granule.data.sizes == {"time": 31, "cell": cells.sizes["cell"]}
    assert granule.notes["cells_missing"] == 0
    with xr.open_dataset(folder / "precipitation_flux.nc") as native:
        at = native.pr.sel(lat=cells.lat.values[20], lon=cells.lon.values[20], method="nearest")
        np.testing.assert_allclose(granule.data.precipitation_flux[:, 20], at.resample(time="1D").mean(), rtol=1e-5)
