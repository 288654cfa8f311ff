"""Indices in the store: fits gathered piece by piece, and a region that is its own reference of thirty years."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra import indices, verbs
from infra.settings import Region
from infra.store import Store
from twin import climatology, parameters
from twin.indices import standardised
from twin.indices.spells import availability
from twin.inputs import THETA
from twin.state import root_zone
from twin.variables import VARIABLES, with_role

CELLS = 3
PLACE = Region(
    name="own",
    title="A place of its own",
    bbox=(0.0, 0.0, 3.0, 1.0),
    resolution=1.0,
    grid="source",
    start="1991-01-01",
    reference_start="1991-01-01",
    reference_end="2020-12-31",
    soil="loam",
    products=("any",),
)


def rain_of(days: pd.DatetimeIndex) -> xr.DataArray:
    rng = np.random.default_rng(4)
    course = 0.35 + 0.25 * np.sin(2 * np.pi * days.day_of_year.to_numpy() / 365.25)[:, None]
    fell = np.where(rng.random((days.size, CELLS)) < course, rng.gamma(0.7, 9.0, (days.size, CELLS)), 0.0) / 86400.0
    attrs = {"units": "kg m-2 s-1"}
    return xr.DataArray(fell.astype(np.float32), {"time": days}, ("time", "cell"), "precipitation_flux", attrs)


@pytest.mark.parametrize("first", ["1990-01-01", "1991-01-01"])
def test_fits_gathered_by_the_year_are_those_of_the_record(first):
    """Also where the record begins with its reference, so that the first windows are cut."""
    rain = rain_of(pd.date_range(first, "2020-12-31"))
    windows = indices.Windows((1991, 2020))
    for _, year in rain.groupby("time.year"):
        windows.add(year)
    groups = dict(windows.groups())
    for name, days in indices.WINDOWS.items():
        whole, found = standardised.calibrate(rain, f"{days}D", (1991, 2020)), groups[indices.fitted(name)]
        assert found.attrs["reference_years"] == 30
        np.testing.assert_array_equal(found["years"], whole["years"])
        for row in ("shape", "scale", "zero_probability"):
            np.testing.assert_allclose(
                found[row], whole[row], rtol=5e-3
            )  # rain is counted in 0.001 mm, and ln x counts
    before = groups[indices.BEFORE][indices.RAIN]
    last = rain.isel(time=slice(-indices.LONGEST, None)).sum("time", dtype=np.float64).values * 86400.0
    np.testing.assert_allclose(-before.isel(before=0).values * 1e-3, last, atol=0.1)


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    """Thirty-one years of rain, and soil that follows it, as a region of its own reference has them."""
    store = Store.open(str(tmp_path_factory.mktemp("own") / "store"))
    draft = store.draft()
    cells = xr.Dataset(coords={"lat": ("cell", np.zeros(CELLS)), "lon": ("cell", np.arange(CELLS) + 0.5)})
    draft.create("own", cells.assign_attrs(region="own", resolution=1.0), PLACE.start)
    share = np.full(CELLS, 0.4), np.full(CELLS, 0.4), np.full(CELLS, 0.2)
    draft.put("own", "parameters", parameters.from_texture(*share))
    days = pd.date_range(PLACE.start, "2021-12-31")
    rain = rain_of(days)
    weather = {row.name: rain if row.name == rain.name else xr.full_like(rain, 1.0) for row in with_role("forcing")}
    draft.write("own", "forcing", xr.Dataset(weather))
    wet = 0.12 + 0.03 * pd.DataFrame(rain.values * 86400.0).ewm(halflife=20).mean().to_numpy()
    theta = np.repeat(wet.clip(0.05, 0.45)[:, None].astype(np.float32), 4, axis=1)
    draft.write("own", "state", xr.Dataset({THETA: (("time", "layer", "cell"), theta)}, {"time": days}))
    soil = root_zone(draft.dataset("own", "state")[THETA].load())
    ranks, _ = climatology.percentile_leave_one_out(soil, soil.time.values)
    draft.write("own", "drought", xr.Dataset({indices.ROOT: soil, "soil_moisture_percentile": ranks}))
    return draft


def drivers(draft):
    return lambda first, last: verbs.drivers(draft, PLACE, first, last)


def test_a_region_of_its_own_reference_has_all_indices(draft):
    """Followed to the end of its reference and then day by day, as if in one go."""
    origin, end = pd.Timestamp(PLACE.start), pd.Timestamp(PLACE.reference_end)
    told = indices.follow(draft, PLACE, origin, end, drivers(draft))
    assert told == {"spi": [*indices.WINDOWS]}
    for first, last in (("2021-01-01", "2021-01-01"), ("2021-01-02", "2021-02-14"), ("2021-02-15", "2021-12-31")):
        assert indices.follow(draft, PLACE, pd.Timestamp(first), pd.Timestamp(last), drivers(draft)) == told
    daily = draft.dataset("own", indices.GROUP).load()
    assert set(daily.data_vars) == {row.name for row in with_role("index")}
    early = daily["spi_180d"].sel(time=slice(None, "1991-06-28"))
    assert np.isnan(early).all() and np.isfinite(daily["spi_180d"].sel(time=slice("1991-06-29", None))).all()
    expected = standardised.spi(rain_of(pd.DatetimeIndex(daily.time.values)), "90D", ("1991-01-01", 2020))
    late = daily["spi_90d"].sel(time="2021")
    np.testing.assert_allclose(late, expected.sel(time="2021"), atol=5e-3)
    again = indices.follow(draft, PLACE, pd.Timestamp("2021-06-10"), pd.Timestamp("2021-12-31"), drivers(draft))
    assert again == told and draft.dataset("own", indices.GROUP).load().identical(daily)


def test_codes_are_told_with_their_variables(draft):
    """What is written is in the table of variables, within its range."""
    daily = draft.dataset("own", indices.GROUP).load()
    water = availability(root_zone(draft.dataset("own", "state")[THETA].load()), draft.dataset("own", "parameters"))
    assert water.sizes["time"] == daily.sizes["time"]
    for name, array in daily.data_vars.items():
        values = array.values[array.values != np.iinfo(np.int16).min] if array.dtype == np.int16 else array.values
        values = values[values != -128] if array.dtype == np.int8 else values
        row = VARIABLES[str(name)]
        assert np.nanmin(values) >= row.valid_min and np.nanmax(values) <= row.valid_max, name
