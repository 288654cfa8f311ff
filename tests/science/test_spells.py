"""Dry days and spells against counting by hand, and the local year against the calendar."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import parameters
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.indices import years
from twin.indices.spells import DRY_RAIN, DRY_SOIL, availability, dry_days, dry_spells
from twin.variables import LAYERS

DAYS = pd.date_range("2010-01-01", "2013-12-31")


def series(values: np.ndarray, name: str = "availability", first: str = "2010-01-01") -> xr.DataArray:
    days = pd.date_range(first, periods=len(values))
    return xr.DataArray(values, {"time": days}, ("time", "cell"), name, {"units": "1"})


def by_hand(values: np.ndarray, threshold: float, shortest: int) -> list[float]:
    """Dry days, longest spell and spells of one year of one cell."""
    runs = [len(list(run)) for dry, run in groupby(values < threshold) if dry]
    return [sum(runs), max(runs, default=0), sum(run >= shortest for run in runs)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.floats(0.05, 0.95), st.sampled_from([np.float32, np.float64]))
def test_every_year_is_as_counted_by_hand(seed, shortest, threshold, kind):
    rng = np.random.default_rng(seed)
    start = rng.integers(1, 13, 5)
    values = rng.random((len(DAYS), 5)).astype(kind) ** rng.uniform(0.3, 3.0, 5).astype(kind)
    values[rng.random(values.shape) < 0.01] = np.nan
    found = dry_spells(series(values), threshold, start_month=start, shortest=shortest)
    assert found["year"].values.tolist() == list(range(2010 - (start.max() > 1), 2014))
    for cell in range(5):
        for year in found["year"].values:
            first, last = (pd.Timestamp(int(y), int(start[cell]), 1) for y in (year, year + 1))
            inside = values[(first <= DAYS) & (last > DAYS), cell]
            here = [float(found[name].sel(year=year)[cell]) for name in found]
            if np.isfinite(inside).sum() < (last - first).days - 15:
                assert np.isnan(here).all()
            else:
                assert here == by_hand(inside, kind(threshold), shortest)


def test_a_day_at_the_threshold_is_not_dry():
    """ETCCDI: a wet day has 1 mm or more."""
    rain = np.zeros((365, 2), np.float32)
    rain[::2, 0], rain[::2, 1] = 1.0 / 86400.0, 0.999 / 86400.0
    found = dry_spells(series(rain, "precipitation_flux"), DRY_RAIN)
    assert found["dry_days"].values.tolist() == [[182.0, 365.0]]
    assert found["longest_dry_spell"].values.tolist() == [[1.0, 365.0]]
    assert found["longest_dry_spell"].attrs["standard_name"].startswith("spell_length_of_days_with_lwe_thickness")
    assert found["dry_days"].attrs["of"] == "precipitation_flux"


def test_the_top_metre_decides_by_wilting_and_critical_point():
    """β of Best et al. (2011), eq. 12, on the means by depth of the top three layers; the fourth does not matter."""
    soil = parameters.from_texture([0.4, 0.8], [0.4, 0.1], [0.2, 0.1])
    weights = np.array(LAYERS[:3])[:, None] / sum(LAYERS[:3])
    low, high = (np.broadcast_to(soil[name].values, (4, 2))[:3] for name in ("theta_w", "theta_c"))
    shares = np.array([-0.2, 0.0, 0.1, 0.5, 1.0, 1.3])
    theta = np.empty((6, 4, 2))
    theta[:, :3] = low + shares[:, None, None] * (high - low)
    theta[:, 3] = np.linspace(0.0, 0.5, 6)[:, None]
    whole = xr.DataArray(theta, {"time": DAYS[:6]}, ("time", "layer", "cell"))
    found = availability(whole, soil)
    np.testing.assert_allclose(found, np.clip(shares, 0, 1)[:, None] * np.ones(2), atol=1e-12)
    mean = xr.DataArray((theta[:, :3] * weights).sum(axis=1), {"time": DAYS[:6]}, ("time", "cell"))
    np.testing.assert_allclose(availability(mean, soil), found, atol=1e-12)
    assert dry_days(availability(whole.astype(np.float32), soil), DRY_SOIL).isnull().all()  # six days are no year


def test_blocks_of_years_and_threads_give_the_same():
    rng = np.random.default_rng(3)
    values = series(rng.random((len(DAYS), 700)).astype(np.float32))
    start = rng.integers(1, 13, 700)
    whole = dry_spells(values, start_month=start, threads=2)
    xr.testing.assert_identical(whole, dry_spells(values, start_month=start, threads=1))
    block = dry_spells(values.sel(time=slice("2011", "2012")), start_month=start)
    known = block["dry_days"].notnull()
    assert known.sum() > 700 and (known.sel(year=2011) == 1).all()
    for name in whole:
        assert (block[name] == whole[name].sel(year=block["year"])).where(known, True).all()


def test_a_year_with_much_missing_has_no_figure():
    values = np.zeros((365, 3), np.float32)
    values[:15, 1], values[:16, 2] = np.nan, np.nan
    found = dry_days(series(values))
    np.testing.assert_array_equal(found, [[365.0, 350.0, np.nan]])


def test_the_calendar_of_a_wave():
    """A year that is wettest on one day is driest half a year later."""
    peaks = np.array([15, 105, 196, 288])
    day = years.day_of_year(DAYS.values)[:, None]
    found = years.calendar(series(0.5 + 0.4 * np.cos(2 * np.pi * (day - peaks) / 365.0)))
    assert found["peak"].values.tolist() == peaks.tolist()
    assert found["start_month"].values.tolist() == [7, 10, 1, 4]
    gaps = 0.5 + 0.4 * np.cos(2 * np.pi * (day - peaks) / 365.0)
    gaps[40:80] = np.nan
    assert years.calendar(series(gaps)).equals(found)


def test_what_is_no_series_of_days_is_refused():
    values = series(np.zeros((40, 2), np.float32))
    with pytest.raises(TimeError, match="expected consecutive days, found gaps"):
        dry_days(values.isel(time=[0, 1, 3]))
    with pytest.raises(TimeError, match="expected consecutive days, found none"):
        dry_days(values.isel(time=[]))
    with pytest.raises(VariableError, match="expected \\('time', 'cell'\\)"):
        dry_days(values.transpose("cell", "time"))
    with pytest.raises(RangeError, match="expected a month, 1 to 12"):
        dry_days(values, start_month=[1, 13])
    with pytest.raises(SettingsError, match="expected 1 day or more, found 0"):
        dry_spells(values, shortest=0)
    with pytest.raises(TimeError, match="expected every day of the year, found 40 of 365"):
        years.calendar(values)
