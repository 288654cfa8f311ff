"""The wet season against years drawn by hand, its definition written out, and what makes it flip."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import SettingsError
from twin.indices.season import MISSING, STATUS, season_dates, wet_season
from twin.indices.years import calendar

DAYS = pd.date_range("2010-01-01", "2013-12-31")


def series(values: np.ndarray, first: str = "2010-01-01") -> xr.DataArray:
    days = pd.date_range(first, periods=len(values))
    return xr.DataArray(np.asarray(values, np.float32), {"time": days}, ("time", "cell"), "availability")


def of(start_month: list[int], peak: list[int]) -> xr.Dataset:
    return xr.Dataset({"start_month": ("cell", start_month), "peak": ("cell", peak)})


def year(*wet: tuple[int, int], dry: float = 0.1, days: int = 365) -> np.ndarray:
    """A year that is dry but for some spells, from the first day to the one before the last."""
    values = np.full((days, 1), dry)
    for first, last in wet:
        values[first:last] = 0.8
    return values


def only(values: np.ndarray, peak: int = 180, **options) -> tuple[dict[str, float], int]:
    """The figures of the first year of one cell, and its status."""
    found = wet_season(series(values), of([1], [peak]), **options).isel(year=0, cell=0)
    return {name: float(found[name]) for name in ("onset", "cessation", "length")}, int(found["season_status"])


def test_a_season_is_where_it_was_drawn():
    assert only(year((100, 250))) == ({"onset": 100, "cessation": 250, "length": 150}, STATUS["whole"])


def test_short_gaps_do_not_end_it_and_short_showers_do_not_begin_it():
    gap, shower = year((100, 160), (179, 250)), year((40, 49), (100, 250), (300, 309))
    assert only(gap)[0] == only(shower)[0] == {"onset": 100, "cessation": 250, "length": 150}
    assert only(year((100, 160), (181, 250)))[0]["onset"] == 181  # after a gap of 21 days it is another one
    shallow = year((100, 160), (200, 250))
    shallow[160:200] = 0.45  # below ENTER but not below LEAVE
    assert only(shallow)[0]["length"] == 150


def test_water_that_wiggles_about_a_limit_makes_one_season():
    """Within the two limits, whatever it does, nothing begins and nothing ends; one limit alone flaps with it."""
    rng = np.random.default_rng(2)
    values = year((100, 120), (220, 250))
    values[120:220] = 0.45 + 0.049 * np.sign(rng.normal(size=(100, 1))) * rng.random((100, 1))
    found = wet_season(series(values), of([1], [180])).isel(year=0, cell=0)
    assert (found["onset"].item(), found["cessation"].item(), found["wet_seasons"].item()) == (100, 250, 1)
    flapping = wet_season(series(values), of([1], [180]), enter=0.45, leave=0.45, enter_days=1, leave_days=1)
    assert flapping["wet_seasons"].item() > 10


def test_none_is_not_missing():
    assert only(year()) == (pytest.approx({"onset": np.nan, "cessation": np.nan, "length": 0}, nan_ok=True), 1)
    gone = year((100, 250))
    gone[100:116] = np.nan
    figures, status = only(gone)
    assert status == MISSING and np.isnan([*figures.values()]).all()
    gone[100] = 0.8
    assert only(gone)[1] == STATUS["whole"]


def test_what_the_year_cuts_is_a_bound():
    assert only(year((0, 100)))[1] == STATUS["began_before_its_year"]
    assert only(year((300, 365))) == (
        {"onset": 300, "cessation": 365, "length": 65},
        STATUS["went_on_after_its_year"],
    )
    assert only(year((0, 365))) == ({"onset": 0, "cessation": 365, "length": 365}, STATUS["all_year"])
    cut = wet_season(series(year((300, 365))[:355]), of([1], [180]))  # the record ends before the year does
    assert cut["season_status"].item() == STATUS["went_on_after_its_year"] and cut["length"].item() == 65
    cut = wet_season(series(year((0, 100))[10:], "2010-01-11"), of([1], [180]))
    assert cut["season_status"].item() == STATUS["began_before_its_year"] and cut["onset"].item() == 0
    assert only(year((300, 350)))[1] == STATUS["went_on_after_its_year"]  # 15 days below LEAVE do not end it


def test_the_year_so_far_is_told_when_asked_for():
    """Before the season, within it, after it; an early wet spell is not the season while the usual peak is to come."""
    values = year((40, 60), (100, 250))
    for days, state, figures in (
        (30, "not_yet", (np.nan, np.nan, np.nan)),
        (50, "running", (40, 50, 10)),
        (90, "not_yet", (np.nan, np.nan, np.nan)),
        (200, "running", (100, 200, 100)),
        (269, "running", (100, 269, 169)),  # that it is over takes twenty days to know
        (271, "whole", (100, 250, 150)),
    ):
        found = wet_season(series(values[:days]), of([1], [180]), to_date=True).isel(year=0, cell=0)
        assert found["season_status"].item() == STATUS[state], days
        told = [found[name].item() for name in ("onset", "cessation", "length")]
        assert told == pytest.approx(figures, nan_ok=True) and found["days_to_date"].item() == days
        assert wet_season(series(values[:days]), of([1], [180]))["season_status"].item() == MISSING
    none = wet_season(series(year()[:300]), of([1], [180]), to_date=True)
    assert none["season_status"].item() == STATUS["not_yet"]  # of an unfinished year none is not known yet


def test_of_two_seasons_the_one_of_the_usual_peak():
    two = year((60, 150), (240, 345))
    assert [only(two, peak)[0]["onset"] for peak in (0, 100, 190, 200, 300, 364)] == [60, 60, 60, 240, 240, 240]
    found = wet_season(series(two), of([1], [100]))
    assert found["wet_seasons"].item() == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 25))
def test_every_season_is_its_definition(seed, enter_days, leave_days):
    """A walk between wet and dry, taken apart in Python."""
    rng = np.random.default_rng(seed)
    values = (0.5 + 0.35 * np.sin(np.cumsum(rng.normal(0, 0.15, 365)))).astype(np.float32)
    peak, options = int(rng.integers(365)), {"enter_days": enter_days, "leave_days": leave_days}
    found, status = only(values[:, None], peak, **options)
    runs, day, began = [], 0, None
    while day < 365:
        window = values[day : day + (leave_days if began is not None else enter_days)]
        if began is None and len(window) == enter_days and (window >= np.float32(0.5)).all():
            began, day = day, day + enter_days
        elif began is not None and len(window) == leave_days and (window < np.float32(0.4)).all():
            runs.append((began, day))
            began, day = None, day + leave_days
        else:
            day += 1
    if began is not None:
        runs.append((began, 365))
    if not runs:
        assert status == STATUS["none"]
        return
    onset, cessation = min(runs, key=lambda run: (max(run[0] - peak, peak - run[1] + 1, 0), run[0] - run[1]))
    assert found == {"onset": onset, "cessation": cessation, "length": cessation - onset}


def test_local_years_keep_a_season_over_new_year_in_one_piece():
    """Rains from 1 November to 31 March: years begin in July, dates come back as they were drawn, leap year or not."""
    month = DAYS.month.to_numpy()
    values = np.where((month >= 11) | (month <= 3), 0.8, np.where(month == 7, 0.05, 0.1))[:, None]
    found = wet_season(series(values))
    assert found["start_month"].item() == 7 and found["year"].values.tolist() == [2009, 2010, 2011, 2012, 2013]
    begun, ended = season_dates(found["onset"]), season_dates(found["cessation"])
    for label in (2010, 2011, 2012):
        assert begun.sel(year=label).item() == pd.Timestamp(label, 11, 1).value
        assert ended.sel(year=label).item() == pd.Timestamp(label + 1, 4, 1).value
    assert np.isnat(begun.sel(year=[2009, 2013]).values).all()


def test_blocks_of_years_and_threads_give_the_same():
    rng = np.random.default_rng(4)
    day = np.arange(len(DAYS))[:, None]
    values = series(
        0.5
        + 0.4 * np.cos(2 * np.pi * (day - rng.uniform(0, 365, 300)) / 365.25)
        + rng.normal(0, 0.05, (len(DAYS), 300))
    )
    when = calendar(values)
    whole = wet_season(values, when, threads=2)
    xr.testing.assert_identical(whole, wet_season(values, when, threads=1))
    block = wet_season(values.sel(time=slice("2011", "2012")), when)
    known = block["season_status"] != MISSING
    assert known.sel(year=2011).all() and known.sum() >= 300
    for name in whole.data_vars:
        same = block[name].where(known).fillna(-1) == whole[name].sel(year=block["year"]).where(known).fillna(-1)
        assert same.all()


def test_wetter_is_never_later():
    """With the season of one peak: the onset of a wetter run is at or before, its cessation at or after."""
    rng = np.random.default_rng(5)
    day = np.arange(365)[:, None]
    values = 0.45 + 0.3 * np.cos(2 * np.pi * (day - 180) / 365) + rng.normal(0, 0.02, (365, 50))
    when = of([1] * 50, [180] * 50)
    low, high = (wet_season(series(values + shift), when) for shift in (0.0, 0.03))
    assert (high["onset"] <= low["onset"]).all() and (high["cessation"] >= low["cessation"]).all()


def test_two_equal_seasons_do_not_flip():
    """Two rainy seasons a year of nearly equal length, soil moisture that is known to 0.01 of its range.

    The longest run above one threshold jumps by half a year (mean error 46 days, measured here); ours stays.
    """
    rng, cells = np.random.default_rng(6), 200
    day = np.arange(len(DAYS))[:, None]
    truth = 0.48 + 0.25 * np.cos(4 * np.pi * (day - rng.uniform(60, 120, cells)) / 365.25)
    truth = truth + np.repeat(rng.normal(0, 0.01, (len(DAYS) // 20 + 1, cells)), 20, axis=0)[: len(DAYS)]
    told = truth + 0.01 * rng.standard_normal(truth.shape)

    def longest(values: np.ndarray) -> np.ndarray:
        first = []
        for column in values.T:
            runs, at = [], 0
            for wet, run in groupby(column >= 0.5):
                length = len(list(run))
                runs.append((length * wet, -at))
                at += length
            first.append(-max(runs)[1])
        return np.array(first, float)

    when = calendar(series(truth))
    ours = [wet_season(series(values), when)["onset"].values for values in (truth, told)]
    usual = [
        np.stack([longest(values[first : first + 365]) for first in range(0, 1460, 365)]) for values in (truth, told)
    ]
    away, before = np.abs(ours[0] - ours[1]), np.abs(usual[0] - usual[1])
    assert np.nanmean(away) < 1.0 and np.nanquantile(away, 0.9) <= 2.0 and np.quantile(before, 0.9) > 150.0


def test_thresholds_that_make_no_season_are_refused():
    with pytest.raises(SettingsError, match=r"leave at most enter, found 0\.6 and 0\.5"):
        only(year(), leave=0.6)
    with pytest.raises(SettingsError, match="expected 1 or more, found 0"):
        only(year(), enter_days=0)
