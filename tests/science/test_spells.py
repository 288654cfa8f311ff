"""Dry days, spells and rain against counting by hand and against xclim, and the local year against the calendar."""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import parameters
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.indices import years
from twin.indices.spells import DRY_RAIN, DRY_SOIL, availability, dry_days, dry_spells, rain_metrics
from twin.variables import LAYERS

DAYS = pd.date_range("2010-01-01", "2013-12-31")


def series(values: np.ndarray, name: str = "availability", first: str = "2010-01-01") -> xr.DataArray:
    days = pd.date_range(first, periods=len(values))
    return xr.DataArray(values, {"time": days}, ("time", "cell"), name, {"units": "1"})


def runs_of(days: np.ndarray) -> list[tuple[int, int]]:
    """(first, length) of every run of days that are true."""
    places = [list(run) for dry, run in groupby(range(len(days)), lambda day: days[day]) if dry]
    return [(run[0], len(run)) for run in places]


def by_hand(values: np.ndarray, threshold: float, shortest: int) -> list[float]:
    """Dry days, longest spell, spells and days in them of one year of one cell."""
    runs = [length for _, length in runs_of(values < threshold)]
    spells = [length for length in runs if length >= shortest]
    return [sum(runs), max(runs, default=0), len(spells), sum(spells)]


def rain_of(years: int, cells: int, seed: int = 0) -> xr.DataArray:
    """Rain with wet and dry runs and a dry half of the year, mm day-1, float32."""
    rng, days = np.random.default_rng(seed), pd.date_range("2001-01-01", f"{2000 + years}-12-31")
    season = 0.5 - 0.45 * np.cos(2 * np.pi * (days.day_of_year.to_numpy()[:, None] - 30) / 365.0)
    wet = rng.random((len(days), cells)) < season * rng.uniform(0.2, 0.9, cells)
    rain = np.where(wet, rng.gamma(0.7, 12.0, wet.shape), 0.0).astype(np.float32)
    return xr.DataArray(rain, {"time": days}, ("time", "cell"), "precipitation_flux", {"units": "mm day-1"})


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


def in_dry_windows(values: np.ndarray, threshold: float, window: int) -> np.ndarray:
    """Days of any `window` days that together are below the threshold."""
    days = np.zeros(len(values), bool)
    for first in range(len(values) - window + 1):
        if values[first : first + window].astype(np.float64).sum() < threshold:
            days[first : first + window] = True
    return days


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.sampled_from(["day", "sum"]), st.sampled_from(["cut", "began"]))
def test_every_rule_and_way_is_as_counted_by_hand(seed, shortest, by, crossing):
    """A spell that began counts whole; what is cut is counted from the days of one year alone."""
    rain = rain_of(3, 4, seed)
    rain.values[np.random.default_rng(seed).random(rain.shape) < 0.01] = np.nan
    found = dry_spells(rain, 2.0, shortest=shortest, by=by, crossing=crossing, start_month=[1, 4, 1, 4])
    window = shortest if by == "sum" else 1
    for cell, month in enumerate((1, 4, 1, 4)):
        values = rain.values[:, cell]
        bounds = [rain.indexes["time"].get_loc(f"{year}-{month:02}-01") for year in (2001, 2002, 2003)]
        for year, (start, stop) in zip((2001, 2002), pairwise(bounds), strict=True):
            whole = in_dry_windows(values, 2.0, window)
            inside = in_dry_windows(values[start:stop], 2.0, window)
            runs = [length for first, length in runs_of(whole) if start <= first < stop]
            if crossing == "cut":
                runs = [length for _, length in runs_of(inside)]
            spells = [length for length in runs if length >= shortest]
            days = int((inside if crossing == "cut" else whole[start:stop]).sum())
            expected = [days, max(runs, default=0), len(spells), sum(spells)]
            assert [float(found[name].sel(year=year)[cell]) for name in found] == expected


def test_one_rule_written_twice_gives_the_same():
    """Windows of one day are days: the two kernels, of vectors and of single cells, count the same spells."""
    rain = rain_of(3, 70, 1)
    start = np.arange(70) % 12 + 1
    days, windows = (dry_spells(rain, 1.0, shortest=1, by=by, start_month=start) for by in ("day", "sum"))
    for name in days:
        np.testing.assert_array_equal(days[name], windows[name])


def test_the_rules_of_another_program():
    """xclim 0.62 by both of its rules: of a single year the same; of more, the same where spells count as they began.

    Where they are cut xclim looks into the next year and calls what is left a spell, however short; ours needs n days.
    """
    from xclim import indices as xc

    rain = rain_of(3, 12, 2).where(lambda r: (r == 0.0) | (r > 0.01), 0.01)
    one = rain.sel(time="2002")
    for by, op in (("day", "max"), ("sum", "sum")):
        for data, ways in ((one, ("cut", "began")), (rain, ("began",))):
            for crossing in ways:
                ours = dry_spells(data, 1.0, shortest=3, by=by, crossing=crossing)
                asked = {"thresh": "1 mm", "window": 3, "op": op, "resample_before_rl": crossing == "cut"}
                theirs = xc.dry_spell_frequency(data, **asked)
                np.testing.assert_array_equal(ours["dry_spells"], np.nan_to_num(theirs.transpose("time", "cell")))
                theirs = xc.dry_spell_total_length(data, **asked)
                np.testing.assert_array_equal(
                    ours["days_in_dry_spells"], np.nan_to_num(theirs.transpose("time", "cell"))
                )
    ours = rain_metrics(rain)
    for name, theirs in (
        ("dry_days", xc.dry_days(rain, thresh="1 mm/d")),
        ("longest_dry_spell", xc.maximum_consecutive_dry_days(rain)),
        ("longest_wet_spell", xc.maximum_consecutive_wet_days(rain)),
        ("wet_days", xc.wetdays(rain)),
        ("heavy_rain_days", xc.wetdays(rain, thresh="20 mm/d")),
    ):
        np.testing.assert_array_equal(ours[name], theirs.transpose("time", "cell"), name)
    intensity = xc.daily_pr_intensity(rain).transpose("time", "cell")
    np.testing.assert_allclose(ours["daily_intensity"], intensity, rtol=2e-6)
    np.testing.assert_allclose(ours["total_rain"], rain.groupby("time.year").sum(), rtol=2e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 15, 16, 33, 1100]), st.booleans(), st.sampled_from(["f4", "f8"]))
def test_every_figure_of_the_rain_is_as_counted_by_hand(seed, cells, apart, kind):
    """Whatever the number of cells, and whether those that begin their year together lie side by side."""
    rng = np.random.default_rng(seed)
    rain = rain_of(2, cells, seed).astype(kind)
    rain.values[rng.random(rain.shape) < 0.01] = np.nan
    low, heavy = (rng.choice([0.5, 1.0, 3.0], cells), 15.0)
    start = rng.choice([1, 7], cells) if apart else 1
    found = rain_metrics(rain, low, heavy=heavy, start_month=start, shortest=4)
    for cell in rng.choice(cells, min(cells, 6), replace=False):
        first = pd.Timestamp(2001, int(np.broadcast_to(start, cells)[cell]), 1)
        days = (rain["time"] >= first) & (rain["time"] < first + pd.DateOffset(years=1))
        x = rain.values[days, cell]
        wet = x >= np.asarray(low[cell], x.dtype)
        here = found.sel(year=2001).isel(cell=int(cell))
        assert [here[n].item() for n in list(found)[:4]] == by_hand(x, np.asarray(low[cell], x.dtype), 4)
        assert here["wet_days"] == wet.sum() and here["heavy_rain_days"] == (x >= heavy).sum()
        assert here["longest_wet_spell"] == max(length for _, length in runs_of(wet))
        assert here["total_rain"] == pytest.approx(np.nansum(x, dtype=float), rel=1e-6)
        assert here["daily_intensity"] == pytest.approx(x[wet].mean(dtype=float), rel=1e-6)


def test_rain_is_the_same_in_any_unit_and_on_any_number_of_threads():
    rain = rain_of(4, 130, 3)
    found = rain_metrics(rain, threads=1)
    xr.testing.assert_identical(found, rain_metrics(rain, threads=2))
    for units, factor in (("kg m-2 s-1", 86400.0), ("m day-1", 1e3), ("kg m-2", 1.0)):
        other = rain_metrics((rain.astype(np.float64) / factor).assign_attrs(units=units))
        for name in found:
            np.testing.assert_allclose(
                other[name], found[name], rtol=1e-6 if found[name].attrs["units"] != "day" else 0
            )
    assert found["dry_days"].attrs["threshold"] == 1.0 and found["dry_days"].attrs["threshold_units"] == "mm day-1"
    assert found["total_rain"].attrs["units"] == "mm"


def test_a_year_without_rain_and_one_without_rest():
    days = pd.date_range("2004-01-01", "2005-12-31")
    rain = np.repeat([[0.0, 30.0], [30.0, 0.0]], [366, 365], axis=0).astype(np.float32)
    found = rain_metrics(series(rain, "precipitation_flux", "2004-01-01").assign_attrs(units="mm"))
    assert len(days) == len(rain)
    expected = {"dry_days": [366, 365], "dry_spells": [1, 1], "wet_days": [0, 0], "total_rain": [0, 0]}
    for name, figures in expected.items():
        assert np.diag(found[name]).tolist() == figures
    assert np.isnan(np.diag(found["daily_intensity"])).all() and found["daily_intensity"].values[1, 0] == 30.0
    assert found["longest_wet_spell"].values.tolist() == [[0, 366], [365, 0]]
    assert found["total_rain"].values.tolist() == [[0, 30 * 366], [30 * 365, 0]]


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
    with pytest.raises(SettingsError, match="'by' of dry spells: expected day or sum, found max"):
        dry_spells(values, by="max")
    with pytest.raises(SettingsError, match="'crossing' of dry spells: expected cut or began, found whole"):
        dry_spells(values, crossing="whole")
    with pytest.raises(VariableError, match="units of 'availability'"):
        rain_metrics(values)
    with pytest.raises(RangeError, match=r"rain 'availability': expected 0 or more, found -2\.0"):
        rain_metrics(rain_of(1, 20).copy(data=np.full((365, 20), -2.0)).rename("availability"))
    with pytest.raises(TimeError, match="expected every day of the year, found 40 of 365"):
        years.calendar(values)
