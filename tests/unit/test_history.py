"""A station's history: what is made of its file, and that Tamale's two great droughts are found in its weather."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows import history
from flows.history.figures import METHOD_WORDS, table_of
from flows.history.page import words
from twin.errors import AssetError, TimeError, UnitsError, VariableError
from twin.indices.season import STATUS
from twin.station import Study, study


def station(**changes: xr.DataArray | None) -> xr.Dataset:
    """Thirty-two years of one rainy season, with short names and a place in the attributes."""
    days = pd.date_range("1970-01-01", "2001-12-31")
    rng, day = np.random.default_rng(1), days.day_of_year.to_numpy()
    wet = rng.random(days.size) < 0.02 + 0.5 * np.exp(-(((day - 220) / 50.0) ** 2))
    rain = np.where(wet, rng.gamma(0.8, 14.0, days.size), 0.0)
    rain[(days.year == 1985)] *= 0.3
    values = {
        "pr": ("time", rain, {"units": "mm d-1"}),
        "tasmin": ("time", 22.0 + 2.0 * np.sin(day / 58.0), {"units": "degC"}),
        "tasmax": ("time", 33.0 + 2.0 * np.sin(day / 58.0), {"units": "degC"}),
    }
    ds = xr.Dataset(values, {"time": days}, {"latitude": 9.0, "longitude": -1.0})
    return ds.assign({name: value for name, value in changes.items() if value is not None}).drop_vars(
        [name for name, value in changes.items() if value is None]
    )


def written(tmp_path: Path, ds: xr.Dataset) -> Path:
    ds.to_netcdf(tmp_path / "station.nc")
    return tmp_path / "station.nc"


def test_short_names_become_the_tables_variables(tmp_path):
    found = history.read(written(tmp_path, station()))
    assert found["air_temperature"].attrs["units"] == "K" and found["air_temperature"].dims == ("time", "cell")
    assert found["air_temperature_range"].values == pytest.approx(11.0)
    assert float(found["lat"][0]) == 9.0 and float(found["lon"][0]) == -1.0
    rain = station()["pr"].values
    assert found["precipitation_flux"].values[:, 0] * 86400.0 == pytest.approx(rain)


def test_humidity_and_pressure_in_other_units_are_converted(tmp_path):
    days = station()["time"].size
    given = {
        "hurs": ("time", np.full(days, 60.0), {"units": "%"}),
        "sfcWind": ("time", np.full(days, 3.0), {"units": "m s-1"}),
        "ps": ("time", np.full(days, 990.0), {"units": "hPa"}),
    }
    found = history.read(written(tmp_path, station().assign(given)))
    for name, value in (("relative_humidity", 0.6), ("wind_speed", 3.0), ("surface_air_pressure", 99_000.0)):
        assert found[name].values == pytest.approx(value)


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "text.nc").write_text("no data")
    with pytest.raises(AssetError, match="station file: expected NetCDF"):
        history.read(tmp_path / "text.nc")
    ds = station()
    for changed, kind, said in (
        (ds.drop_vars("pr"), VariableError, "'precipitation_flux' of a station: expected pr"),
        (ds.drop_vars("tasmin"), VariableError, "'air_temperature' of a station"),
        (ds.assign(tasmin=ds["tasmin"].assign_attrs(units="F")), UnitsError, "expected K or degC, found 'F'"),
        (ds.isel(time=[0, 1, 5]), TimeError, "consecutive days"),
        (ds.assign_attrs(latitude=None).drop_attrs(deep=False), VariableError, "latitude of a station"),
    ):
        with pytest.raises(kind, match=said):
            history.read(written(tmp_path, changed))


def test_a_page_of_a_made_up_station(tmp_path):
    """The year that was made dry is told as the driest, and every figure the page shows is there."""
    pytest.importorskip("vl_convert")
    paths = history.history(written(tmp_path, station()), "Nowhere, Land of None", tmp_path / "out", altitude=100.0)
    page = paths[0].read_text(encoding="utf-8")
    assert paths[0] == tmp_path / "out" / "nowhere.md" and "1985 was the driest of 3" in " ".join(page.split())
    assert {f"nowhere/{path.name}" for path in paths[1:]} == {
        line.split("(")[-1].rstrip(")") for line in page.splitlines() if line.startswith("![")
    }
    assert all(path.read_text(encoding="utf-8").startswith("<svg") for path in paths[1:])
    assert " nan" not in page.lower() and max(map(len, page.splitlines())) <= 200


@pytest.fixture(scope="module")
def tamale(real_data) -> Study:
    return study(history.read(real_data / "africa" / "tamale_daily_1970-2000.nc"), 168.0)


@pytest.mark.real_data
def test_the_droughts_of_tamale_are_found(tamale):
    """1983 and 1986: the two driest years by rain, the two worst droughts of the soil, and by the index of rain."""
    assert tamale.rain.sort_values().index[:2].tolist() == [1986, 1983] and tamale.rain.mean() == pytest.approx(
        995, abs=2
    )
    worst = tamale.events.head(2)
    assert worst["onset"].dt.year.tolist() == [1986, 1983] and (worst["duration"] > 200).all()
    assert (worst["peak"] < 2.0).all()  # D4
    lowest = tamale.months[12].groupby(tamale.months.index.year).min()
    assert lowest[1986] < -2.5 and lowest[1983] < -1.5 and set(lowest.nsmallest(4).index) <= {1983, 1984, 1986, 1987}
    regime = tamale.regime
    assert (
        regime["rainy_seasons"].item() == 1 and 90 < regime["start"].item() < 120 and 270 < regime["end"].item() < 300
    )
    table = table_of(tamale.seasons).set_index(["method", "year"])
    anomaly, _, soil = METHOD_WORDS
    usual = table.loc[anomaly, "onset"].median()
    assert table.loc[(anomaly, 1986), "onset"] > usual + 60
    assert table.loc[(soil, 1986), "season_status"] == STATUS["none"] and table.loc[(soil, 1983), "length"] < 30
    assert tamale.spells["soil"].idxmax() == 1986 and tamale.spells["rain"].idxmax() != 1986
    page = words(tamale, "Tamale, Ghana", "tamale")
    assert "1986 was the driest of 31 years" in page and "No trend can be told from chance" in page


@pytest.mark.real_data
def test_the_published_page_is_what_the_command_writes(tamale):
    published = Path(history.__file__).parents[2] / "docs" / "tamale.md"
    assert published.read_text(encoding="utf-8") == words(tamale, "Tamale, Ghana", "tamale")
