"""Counting by the day: the same figures as counting the record, whatever pieces it comes in, and exact sums of rain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin.errors import SettingsError, TimeError
from twin.indices import running
from twin.indices.season import STATUS, wet_season
from twin.indices.spells import DRY_RAIN, dry_days

CELLS = 48
DAYS = pd.date_range("2001-05-01", "2004-06-17")


def weather(seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """(rain, water): showers, and water of a season that comes at another time in each cell."""
    rng = np.random.default_rng(seed)
    rain = np.where(rng.random((DAYS.size, CELLS)) < 0.3, rng.gamma(0.8, 9.0, (DAYS.size, CELLS)), 0.0) / 86400.0
    phase = rng.uniform(0, 2 * np.pi, CELLS)
    course = 0.5 + 0.35 * np.sin(2 * np.pi * DAYS.day_of_year.to_numpy()[:, None] / 365.25 + phase)
    noise = rng.normal(0.0, 0.06, (DAYS.size, CELLS)).cumsum(axis=0)
    water = (course + noise - pd.DataFrame(noise).rolling(40, min_periods=1).mean().to_numpy()).clip(0.0, 1.0)
    dims = {"time": DAYS}
    return (
        xr.DataArray(rain.astype(np.float32), dims, ("time", "cell"), "precipitation_flux", {"units": "kg m-2 s-1"}),
        xr.DataArray(water.astype(np.float32), dims, ("time", "cell"), "availability"),
    )


def months(seed: int = 1) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"start_month": ("cell", rng.integers(1, 13, CELLS)), "peak": ("cell", rng.integers(0, 365, CELLS))}
    )


def counted(pieces: list[slice], seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    rain, water = weather(seed)
    counts, parts = running.begin(CELLS), []
    for piece in pieces:
        counts, told = running.advance(counts, rain[piece], water[piece], months())
        parts.append(told)
    return counts, xr.concat(parts, "time")


@pytest.fixture(scope="module")
def told() -> xr.Dataset:
    return counted([slice(None)])[1]


def test_pieces_are_the_whole(told):
    edges = [0, 1, 2, 40, 365, 366, 700, DAYS.size]
    counts, parts = counted([slice(a, b) for a, b in pairwise(edges)])
    whole, _ = counted([slice(None)])
    assert parts.identical(told) and counts.identical(whole)


@pytest.mark.parametrize("last", ["2001-09-15", "2002-02-28", "2002-12-31", "2003-11-03", "2004-02-29", "2004-06-17"])
def test_the_year_so_far_is_what_the_record_says(told, last):
    """Season and dry days of the local year in which each cell is, against the functions that take the record."""
    _, water = weather()
    seasons = wet_season(water.sel(time=slice(None, last)), months(), to_date=True)
    dry = dry_days(water.sel(time=slice(None, last)), start_month=months()["start_month"])
    day, today = pd.Timestamp(last), told.sel(time=last)
    start = months()["start_month"].values
    for cell in range(CELLS):
        year = day.year - (day.month < start[cell])
        one = seasons.sel(year=year).isel(cell=cell)
        status, onset = int(today["wet_season_status"][cell]), int(today["wet_season_onset"][cell])
        assert status == int(one["season_status"]), (cell, year)
        assert onset == int(np.nan_to_num(one["onset"], nan=running.MISSING)), (cell, year)
        assert int(today["wet_season_length"][cell]) == int(np.nan_to_num(one["length"], nan=running.MISSING))
        if np.isfinite(dry.sel(year=year)[cell]):
            assert int(today["dry_days"][cell]) == int(dry.sel(year=year)[cell])


def test_every_kind_of_season_is_met(told):
    assert {STATUS[name] for name in ("whole", "running", "not_yet")} <= set(np.unique(told["wet_season_status"]))


def test_a_dry_spell_goes_over_the_years_end_and_ends_with_rain():
    rain, water = (array[:, :2].copy() for array in weather())
    rain[:] = 0.0
    rain[[10, 300], :] = 2 * DRY_RAIN
    rain[400, 0] = np.nan
    spell = running.advance(running.begin(2), rain, water, months().isel(cell=slice(2)))[1]["dry_spell"].values
    assert spell[9].tolist() == [10, 10] and spell[10].tolist() == [0, 0] and spell[299].tolist() == [289, 289]
    assert spell[400].tolist() == [0, 100], "of a missing day nothing is known"


def test_rain_is_the_same_from_any_difference_of_sums(told):
    """Whole thousandths of a millimetre: each day within half of one, and windows exactly the sum of their days."""
    rain, _ = weather()
    to_date = told["precipitation_to_date"].values
    daily = running.window_amounts(to_date[1:], to_date[:-1])
    np.testing.assert_allclose(daily, rain.values[1:] * 86400.0, atol=0.5e-3 * (1 + 1e-6))
    assert (running.counted(rain.values).cumsum(axis=0) == to_date).all()
    window = running.window_amounts(to_date[90:], to_date[:-90])
    np.testing.assert_array_equal(np.round(window * 1e3), np.lib.stride_tricks.sliding_window_view(
        np.round(daily * 1e3), 90, axis=0).sum(axis=-1))  # fmt: skip


def test_other_days_and_thresholds_are_refused():
    rain, water = weather()
    with pytest.raises(TimeError, match="the same consecutive days"):
        running.advance(running.begin(CELLS), rain[1:], water[:-1], months())
    with pytest.raises(SettingsError, match="leave at most enter"):
        running.advance(running.begin(CELLS), rain[:1], water[:1], months(), enter=0.3, leave=0.4)
