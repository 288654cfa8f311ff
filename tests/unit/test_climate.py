"""Climate-model files: what is read is what was written, and what is wrong with a file is said by name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra import climate
from infra.climate import Run, in_words, named, write_simulated
from infra.weather import Corrected, Simulated, decades, whole_years
from twin import grid
from twin.errors import (
    AssetError,
    PlaceError,
    RangeError,
    Rejected,
    SettingsError,
    TimeError,
    UnitsError,
    VariableError,
)
from twin.scenarios import AIR, RAIN, SNOWFALL

LAT, LON = np.arange(14.75, 11.0, -0.5), np.arange(-3.25, 0.5, 0.5)  # north to south, as ISIMIP has them
CELLS = grid.from_points([14.8, 13.2, 11.3], [-3.3, -1.1, 0.2], "three", 0.5)
MODELS = {
    "360_day": ("HadGEM2-ES", "rcp60"),
    "noleap": ("gfdl-esm4", "ssp585"),
    "proleptic_gregorian": ("MIROC5", "rcp85"),
}


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """2009 to 2012 by three models, each with its own calendar, over two decade files."""
    here = tmp_path_factory.mktemp("isimip")
    for calendar, (model, scenario) in MODELS.items():
        write_simulated(here, scenario, range(2009, 2013), LAT, LON, model=model, calendar=calendar)
    return here


@pytest.fixture
def broken(folder, tmp_path) -> Callable[..., Path]:
    """One model's files, to be damaged: `change` gets each Dataset of a variable and returns another."""

    def make(
        variable: str = "", change: Callable[[xr.Dataset], xr.Dataset] = lambda data: data, only: str = ""
    ) -> Path:
        for path in folder.glob("*MIROC5*"):
            target = tmp_path / path.name
            if path.name.startswith(f"{variable}_") and only in path.name:
                with xr.open_dataset(path, decode_times=False) as data:
                    loaded = data.load()
                new = change(loaded)
                for each in new.variables.values():
                    each.encoding = {
                        name: value for name, value in each.encoding.items() if name in ("dtype", "_FillValue")
                    }
                new.to_netcdf(target, engine="netcdf4")
            else:
                shutil.copy(path, target)
        return tmp_path

    return make


def opened(where: Path) -> Run:
    return Run.open(where, CELLS, "rcp85")


def read(where: Path) -> xr.Dataset:
    return opened(where).forcing(day("2009-01-01"), day("2012-12-31"))


# -------------------------------------------------------------------------------------------------------------- names
def test_names_tell_everything_and_others_tell_nothing():
    old = named(Path("tas_day_HadGEM2-ES_rcp60_r1i1p1_EWEMBI_20060101-20101231.nc4"))
    assert old == ("ISIMIP2b (CMIP5)", "HadGEM2-ES", "r1i1p1", "rcp60", "tas", "20060101", "20101231")
    land = named(Path("sfcWind_day_IPSL-CM5A-LR_historical_r1i1p1_EWEMBI_landonly_19910101-20001231.nc4"))
    assert land is not None and land.variable == "sfcwind" and land.scenario == "historical"
    new = named(Path("gfdl-esm4_r1i1p1f1_w5e5_ssp126_tas_global_daily_2015_2020.nc"))
    assert new == ("ISIMIP3b (CMIP6)", "gfdl-esm4", "r1i1p1f1", "ssp126", "tas", "2015", "2020")
    cut = named(Path("ukesm1-0-ll_r1i1p1f2_w5e5_ssp370_pr_lat-35.0to38.0lon-18.5to52.0_daily_2021_2030.nc"))
    assert cut is not None and (cut.model, cut.variable) == ("ukesm1-0-ll", "pr")
    for other in ("tas_day_HadGEM2-ES_ssp126_r1i1p1_EWEMBI_20060101-20101231.nc4", "tas_Amon_CanESM2.nc", "notes.nc"):
        assert named(Path(other)) is None


@pytest.mark.parametrize("scenario", ["rcp26", "rcp60", "rcp85"])
def test_an_rcp_is_never_of_cmip6_nor_an_ssp_of_cmip5(scenario):
    name = named(Path(f"tas_day_MIROC5_{scenario}_r1i1p1_EWEMBI_20060101-20101231.nc4"))
    assert name is not None and "CMIP5" in name.family
    assert named(Path(f"miroc6_r1i1p1f1_w5e5_{scenario}_tas_global_daily_2015_2020.nc")) is None
    assert named(Path("tas_day_MIROC5_ssp126_r1i1p1_EWEMBI_20060101-20101231.nc4")) is None


def test_labels_name_model_scenario_and_phase(folder):
    assert Run.open(folder, CELLS, "rcp60").label == "HadGEM2-ES RCP6.0, ISIMIP2b (CMIP5)"
    assert Run.open(folder, CELLS, "ssp585").label == "gfdl-esm4 SSP5-8.5, ISIMIP3b (CMIP6)"
    assert in_words("historical") == "historical"


# ------------------------------------------------------------------------------------------------------------ reading
def test_a_cell_has_the_nearest_pixels_values(folder):
    """Against the files read by xarray alone."""
    found = read(folder)
    for native, name in (("pr", RAIN), ("tas", AIR), ("sfcWind", "wind_speed"), ("prsn", SNOWFALL)):
        with xr.open_mfdataset(sorted(map(str, folder.glob(f"{native}_day_MIROC5*"))), decode_times=True) as data:
            places = {axis: xr.DataArray(CELLS[axis].values, dims="cell") for axis in ("lat", "lon")}
            true = data[native].sel(places, method="nearest").transpose("time", "cell").load()
        np.testing.assert_array_equal(found[name].values, true.values)
        assert found[name].attrs["units"] and (found["time"].values == true["time"].values).all()
    np.testing.assert_allclose(found["air_temperature_range"], 10.0, atol=1e-3)


@pytest.mark.parametrize("calendar", MODELS)
def test_any_block_of_days_has_the_same_bits(folder, calendar):
    run = Run.open(folder, CELLS, MODELS[calendar][1])
    whole = run.forcing(run.days[0], run.days[-1])
    rng = np.random.default_rng(4)
    for first, last in np.sort(rng.integers(0, len(run.days), (6, 2))):
        part = run.forcing(run.days[first], run.days[last])
        assert part.identical(whole.isel(time=slice(first, last + 1)).assign_attrs(part.attrs))


@pytest.mark.parametrize(("calendar", "inserted"), [("360_day", 21), ("noleap", 1), ("proleptic_gregorian", 0)])
def test_days_a_calendar_lacks_lie_between_their_neighbours(folder, calendar, inserted):
    """2009 to 2012 have 1461 days: 360 a year leave 21 of them, a calendar without leap years the 29th of February."""
    run = Run.open(folder, CELLS, MODELS[calendar][1])
    assert (run.inserted, len(run.days), run.calendar) == (inserted, 1461, calendar)
    assert [run.days[0], run.days[-1]] == [day("2009-01-01"), day("2012-12-31")]
    found = run.forcing(run.days[0], run.days[-1])
    (lacking,) = np.nonzero(run.at < 0)
    rain, air = found[RAIN].values, found[AIR].values
    np.testing.assert_array_equal(rain[lacking], rain[lacking - 1])
    np.testing.assert_allclose(air[lacking], 0.5 * (air[lacking - 1] + air[lacking + 1]), rtol=1e-6)
    if calendar == "noleap":
        assert list(run.days[lacking]) == [day("2012-02-29")]
    own = np.sort(run.at[run.at >= 0])
    np.testing.assert_array_equal(own, np.arange(1461 - inserted))  # every day of the run is used, once, in order


def test_a_calendar_without_days_keeps_the_mean_rain(folder):
    run = Run.open(folder, CELLS, "rcp60")
    found = run.forcing(run.days[0], run.days[-1])[RAIN].mean().item()
    own = run.forcing(run.days[0], run.days[-1])[RAIN].values[run.at >= 0].mean()
    assert found == pytest.approx(own, rel=0.02)


def test_other_units_are_the_same_weather(broken, folder):
    def in_days(data: xr.Dataset) -> xr.Dataset:
        return data.assign(pr=(86400.0 * data["pr"]).assign_attrs(units="mm/day"))

    other = read(broken("pr", in_days))
    np.testing.assert_allclose(other[RAIN], read(folder)[RAIN], rtol=1e-6, atol=1e-12)


def test_what_the_files_lack_is_made_and_said(folder, tmp_path):
    for path in folder.glob("*MIROC5*"):
        if not path.name.startswith(("ps_", "tasmin_", "prsn_")):
            shutil.copy(path, tmp_path)
    found = opened(tmp_path).forcing(day("2009-01-01"), day("2009-01-31"))
    assert found.attrs["derived"] == {
        "surface_air_pressure": "standard atmosphere at sea level, for no elevation is known"
    }
    assert SNOWFALL not in found and "air_temperature_range" not in found
    np.testing.assert_allclose(found["surface_air_pressure"], 101_300.0, rtol=1e-4)


def test_a_cell_at_sea_takes_the_nearest_land(broken):
    """As `landonly` files have it: only three pixels at the northern edge are sea."""

    def masked(data: xr.Dataset) -> xr.Dataset:
        name = next(iter(data.data_vars))
        values = data[name].values.copy()
        values[:, 0, :3] = np.nan
        return data.assign({name: data[name].copy(data=values)})

    found = opened(broken("tas", masked))
    assert found.pixels.moved == 1
    assert (found.pixels.row[0], found.pixels.column[0]) == (1, 0)  # the one to the south
    with pytest.raises(PlaceError, match=r"expected data within 1\.5 degrees of 30\.00, 0\.00"):
        Run.open(found.files["tas"][0].path.parent, grid.from_points([30.0], [0.0], "far", 0.5), "rcp85")


def test_the_past_of_the_model_comes_first(folder, tmp_path):
    write_simulated(tmp_path, "historical", range(2007, 2009), LAT, LON, model="MIROC5")
    for path in folder.glob("*MIROC5*"):
        shutil.copy(path, tmp_path)
    run = opened(tmp_path)
    assert (run.days[0], run.days[-1]) == (day("2007-01-01"), day("2012-12-31"))
    assert run.label == "MIROC5 RCP8.5, ISIMIP2b (CMIP5)"


def test_a_changed_file_is_another_manifest(broken, folder):
    def warmer(data: xr.Dataset) -> xr.Dataset:
        return data.assign(tas=data["tas"] + np.float32(0.001))

    before, after = opened(folder).manifest, opened(broken("tas", warmer, "2011")).manifest
    changed = [name for name, key in after["sources"] if [name, key] not in before["sources"]]
    assert changed == ["tas_day_MIROC5_rcp85_r1i1p1_EWEMBI_20110101-20121231.nc4"]
    assert opened(folder).manifest == before


# -------------------------------------------------------------------------------------------------------------- faults
def _units(data: xr.Dataset) -> xr.Dataset:
    return data.assign(tas=data["tas"].assign_attrs(units="degF"))


def _hot(data: xr.Dataset) -> xr.Dataset:
    return data.assign(tas=data["tas"].where(data["tas"] < 305.0, 400.0))


def _missing(data: xr.Dataset) -> xr.Dataset:
    values = data["tas"].values.copy()
    values[5, 0, 0] = np.nan
    return data.assign(tas=data["tas"].copy(data=values))


def _repeated(data: xr.Dataset) -> xr.Dataset:
    times = data["time"].values.copy()
    times[7] = times[6]
    return data.assign_coords(time=("time", times, data["time"].attrs))


def _gap(data: xr.Dataset) -> xr.Dataset:
    return data.isel(time=np.delete(np.arange(data.sizes["time"]), 31))


def _clock(data: xr.Dataset, **attrs: str) -> xr.Dataset:
    return data.assign_coords(time=("time", data["time"].values, attrs))


def _told(**attrs: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda data: data.assign_attrs(attrs)


FAULTS = {  # what is wrong with the file of tas, 2009 to 2010: how it comes about, the error, what it says
    "units": (_units, UnitsError, r"'tas': expected K or degC or Celsius, found 'degF' \(.*tas_day.*2010"),
    "too hot": (_hot, RangeError, r"'air_temperature': expected 180 to 340 K, found 400 at .* \(tas of .*tas_day_"),
    "missing": (_missing, RangeError, r"'air_temperature': .*found nan at \[5, 0\], 1 of \d+ values"),
    "repeated": (_repeated, TimeError, r"each day once, found 2009-01-07 after 2009-01-07 \(.*tas_day"),
    "a gap": (_gap, TimeError, r"each day once, found 2009-02-02 after 2009-01-31 \(.*tas_day"),
    "cut short": (
        lambda data: data.isel(time=slice(0, -1)),
        TimeError,
        r"expected 20090101 to 20101231, as in its name, found 20090101 to 20101230",
    ),
    "scenario": (_told(experiment_id="rcp26"), VariableError, r"'experiment_id': expected rcp85, as in .* found rcp26"),
    "phase": (_told(mip_era="CMIP6"), VariableError, r"'mip_era': expected CMIP5, as in the name, found CMIP6"),
    "model": (_told(model_id="CanESM2"), VariableError, r"'model_id': expected MIROC5, as in the name, found CanESM2"),
    "variable": (lambda data: data.rename(tas="air"), VariableError, r"climate-model file: expected tas, found air"),
    "grid": (
        lambda data: data.assign_coords(lat=data["lat"] + 0.25),
        PlaceError,
        r"climate-model files: expected the pixels of .*, found others \(.*tas_day",
    ),
    "no time": (_clock, TimeError, r"time of the file: expected CF times in .*, found no time, calendar standard"),
    "calendar": (
        lambda data: _clock(data, **{**data["time"].attrs, "calendar": "julian"}),
        TimeError,
        r"calendar julian",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_is_refused_by_name(broken, fault):
    change, error, message = FAULTS[fault]
    with pytest.raises(error) as caught:
        read(broken("tas", change, "2010"))
    assert re.search(message, str(caught.value)), caught.value
    assert isinstance(caught.value, Rejected)


def test_a_truncated_file_and_one_that_is_none_are_refused(broken):
    where = broken()
    path = next(where.glob("tas_day*2010*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AssetError, match=f"expected NetCDF-4.*{path.name}"):
        read(where)
    path.write_bytes(b"CDF\x01" + bytes(1000))
    with pytest.raises(AssetError, match=r"expected NetCDF-4, found 1004 bytes starting with b'CDF"):
        read(where)


def test_damaged_values_are_refused(broken):
    where = broken()
    path = next(where.glob("tas_day*2010*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(
        AssetError, match=f"climate-model file: expected data, found tas that cannot be read.*{path.name}"
    ):
        read(where)


def test_a_missing_decade_and_one_too_many_are_named(broken):
    where = broken()
    next(where.glob("tas_day*2012*")).unlink()
    with pytest.raises(
        TimeError, match=r"days of tas: expected 2009-01-01 to 2012-12-31, as \w+, found 2009-01-01 to 2010"
    ):
        read(where)
    for path in where.glob("*2012*"):
        path.unlink()
    write_simulated(where, "rcp85", range(2013, 2014), LAT, LON, model="MIROC5")
    with pytest.raises(TimeError, match=r"from 2011-01-01 on, after \S+20101231.nc4, found from 2013-01-01 on"):
        read(where)


def test_a_missing_variable_and_an_unknown_run_are_named(folder, broken, tmp_path):
    where = broken()
    for path in where.glob("huss*"):
        path.unlink()
    with pytest.raises(VariableError, match="climate-model run: expected huss or hurs, found pr, prsn, ps, rlds"):
        read(where)
    with pytest.raises(SettingsError, match="expected one run of rcp26, found HadGEM2-ES r1i1p1 rcp60; MIROC5"):
        Run.open(folder, CELLS, "rcp26")
    with pytest.raises(SettingsError, match="expected one run of rcp60 by MIROC5, found"):
        Run.open(folder, CELLS, "rcp60", "MIROC5")
    with pytest.raises(SettingsError, match="expected a folder, found none there"):
        Run.open(tmp_path / "nowhere", CELLS, "rcp60")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "tas.nc").touch()
    with pytest.raises(SettingsError, match=r"files named as in ISIMIP2b or ISIMIP3b, found 1 others, such as tas\.nc"):
        Run.open(tmp_path / "empty", CELLS, "rcp60")


def test_days_beyond_the_end_are_refused(folder):
    with pytest.raises(TimeError, match="expected within 2009-01-01 to 2012-12-31, found 2012-12-01 to 2013-01-01"):
        opened(folder).forcing(day("2012-12-01"), day("2013-01-01"))


# ----------------------------------------------------------------------------------------------------------- correction
def test_a_corrected_run_has_the_climate_of_the_reference(tmp_path):
    """A model that warms by 4 K a century and is 2 K warm, against the simulated climate itself."""

    class Warm(Simulated):
        def forcing(self, first, last):
            data = super().forcing(first, last)
            return data.assign({AIR: data[AIR] + np.float32(2.0)})

    span = pd.date_range("2001-01-01", "2011-01-31")
    model = Warm(CELLS, warming=4.0, days=span)
    own = Simulated(CELLS, days=span)
    found = Corrected(model, own, tmp_path)
    for first, last in (("2001-01-01", "2010-12-31"), ("2011-01-01", "2011-01-31")):
        corrected, true, raw = (w.forcing(day(first), day(last))[AIR].mean("time") for w in (found, own, model))
        np.testing.assert_allclose(corrected - true, 0.0, atol=0.4)
        assert (np.abs(raw - true) > 1.5).all()
    across = found.forcing(day("2010-12-20"), day("2011-01-10"))
    assert across.sizes["time"] == 22 and np.isfinite(across[RAIN]).all()
    assert not list(tmp_path.iterdir()), "what lies on disk has no name"
    assert found.label == "simulated weather, bias corrected"
    assert found.manifest["corrected"]["years"] == list(range(2001, 2011)) and "corrected" not in model.manifest


def test_a_correction_needs_years_in_common(tmp_path):
    model = Simulated(CELLS, days=pd.date_range("2001-01-01", "2009-12-31"))
    with pytest.raises(TimeError, match="expected 10 years or more that both have, found 9 of simulated weather"):
        Corrected(model, Simulated(CELLS), tmp_path)


def test_years_and_decades_are_cut_as_files_are():
    assert whole_years(pd.date_range("2005-12-31", "2008-12-30")) == [2006, 2007]
    assert decades(range(2006, 2023)) == [range(2006, 2011), range(2011, 2021), range(2021, 2023)]
    assert decades(range(2011, 2012)) == [range(2011, 2012)]


@pytest.mark.real_data
def test_a_real_run_without_leap_years_is_read(real_data, tmp_path):
    """CanESM2 RCP8.5, 1950 to 2100 in 365-day years, three places in Canada; what it lacks here is constant."""
    path = real_data / "climate_model" / "xclim" / "sdba" / "CanESM2_1950-2100.nc"
    with xr.open_dataset(path, decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as data:
        part = data.isel(time=slice(56 * 365, 65 * 365)).load()  # 2006 to 2014
    constant = {
        "huss": (1e-3, "kg kg-1"),
        "rsds": (100.0, "W m-2"),
        "rlds": (280.0, "W m-2"),
        "sfcWind": (3.0, "m s-1"),
    }
    place = {"lat": [float(part["lat"][0])], "lon": [float(part["lon"][0])]}
    for first, last in (("2006", "2010"), ("2011", "2014")):
        span = part.sel(time=slice(first, last))
        values = {"pr": (span["pr"].values[:, 0], "kg m-2 s-1"), "tas": (span["tasmax"].values[:, 0], "K")}
        values |= {name: (np.full(span.sizes["time"], value), unit) for name, (value, unit) in constant.items()}
        for name, (array, unit) in values.items():
            file = xr.Dataset(
                {name: (("time", "lat", "lon"), array[:, None, None].astype("f4"), {"units": unit})},
                {"time": span["time"].values, **place},
                {"experiment_id": part.attrs["experiment_id"], "model_id": part.attrs["model_id"]},
            )
            told = f"{name}_day_CanESM2_rcp85_r1i1p1_EWEMBI_{first}0101-{last}1231.nc4"
            file.to_netcdf(tmp_path / told, engine="netcdf4", encoding={"time": {"units": "days since 1850-01-01"}})
    run = Run.open(tmp_path, grid.from_points(place["lat"], place["lon"], "Vancouver", 1.0), "rcp85")
    assert (run.calendar, run.inserted, run.days[-1]) == ("noleap", 2, day("2014-12-31"))
    found = run.forcing(run.days[0], run.days[-1])
    own = (found["time"].dt.month != 2) | (found["time"].dt.day != 29)
    np.testing.assert_array_equal(found[AIR].values[own.values, 0], part["tasmax"].values[:, 0])
    assert climate.fingerprint(next(tmp_path.glob("pr*"))) != climate.fingerprint(next(tmp_path.glob("tas*")))
