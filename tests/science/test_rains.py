"""Seasons by rain against years drawn by hand, the published definitions written out, and another program."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.climatology import day_of_year
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.indices.rains import METHODS, rain_regime, season_by_anomaly, season_by_rain, seasons
from twin.indices.season import MISSING, STATUS, onset_probability, season_dates, wet_season
from twin.indices.years import calendar

RATE = 1.0 / 86400.0  # 1 mm a day, kg m-2 s-1


def series(values: np.ndarray, first: str = "2001-01-01", units: str = "mm day-1", kind: type = np.float32):
    values = np.asarray(values, kind)
    values = values[:, None] if values.ndim == 1 else values
    return xr.DataArray(
        values, {"time": pd.date_range(first, periods=len(values))}, ("time", "cell"), "pr", {"units": units}
    )


def climate(
    cells: int = 6, first: str = "1990-01-01", last: str = "2003-12-31", seed: int = 0, **shape
) -> xr.DataArray:
    """Showers with the yearly course of `course`, every cell a little later than the one before."""
    days = pd.date_range(first, last)
    rng, day = np.random.default_rng(seed), day_of_year(days.values)[:, None] - 5.0 * np.arange(cells)
    wet = rng.random((days.size, cells)) < course(day, **shape)
    return series(np.where(wet, rng.gamma(0.8, 12.0, wet.shape), 0.0), first)


def course(day: np.ndarray, peaks: tuple[float, ...] = (210.0,), width: float = 60.0, most: float = 0.6) -> np.ndarray:
    away = [np.abs((day - peak + 182.5) % 365 - 182.5) for peak in peaks]
    return 0.01 + most * sum(np.exp(-((each / width) ** 2)) for each in away)


def block(start: int, end: int, rain: float = 10.0, years: int = 3) -> np.ndarray:
    """Years without 29 February of steady rain from one day to another."""
    return np.tile(np.where((np.arange(365) >= start) & (np.arange(365) < end), rain, 0.0), years)


def of(start_month: int = 1, peak: int = 200) -> xr.Dataset:
    return xr.Dataset({"start_month": ("cell", [start_month]), "peak": ("cell", [peak])})


def first_year(found: xr.Dataset, year: int = 0) -> tuple[dict[str, float], int]:
    found = found.isel(year=year, cell=0)
    names = ("onset", "cessation", "length", "false_starts")
    return {name: float(found[name]) for name in names}, int(found["season_status"])


# --- the regime ------------------------------------------------------------------------------------------------------
def test_the_regime_of_a_rain_that_was_drawn():
    found = rain_regime(series(block(150, 250)))
    assert found["start"].item() == 150 and found["end"].item() == 250 and 180 <= found["peak"].item() <= 220
    assert found["annual_rain"].item() == pytest.approx(1000.0) and found["rainy_seasons"].item() == 1
    assert found.attrs["reference_start"] == "2001-01-01" and found.attrs["reference_years"] == 3
    # two rectangles of equal rain have the amplitudes of their Fourier series, sin(nx)/n each
    x = np.pi * 100 / 365
    assert found["amplitude_ratio"].item() == pytest.approx(np.sin(2 * x) / 2 / np.sin(x), abs=0.005)


def test_one_peak_is_one_season_and_two_are_two():
    one, two = rain_regime(climate()), rain_regime(climate(peaks=(110.0, 300.0), width=35.0))
    assert (one["rainy_seasons"] == 1).all() and one["start"].dims == ("cell",) and (one["amplitude_ratio"] < 0.6).all()
    assert (two["rainy_seasons"] == 2).all() and (two["amplitude_ratio"] > 1.0).all()
    assert two["peak"].dims == ("season", "cell")
    late = 5 * np.arange(6)
    assert (np.abs(np.sort(two["peak"].values, axis=0) - [110 + late, 300 + late]) < 25).all()
    assert (rain_regime(climate(peaks=(110.0, 300.0), width=35.0), seasons=1)["rainy_seasons"] == 1).all()


def test_unequal_peaks_are_two_seasons_though_the_amplitude_ratio_says_one():
    """As in the Ethiopian highlands: a small rain in March and April, the main one from June to September."""
    day = np.arange(365 * 3) % 365
    rain = 0.2 + 3.5 * np.exp(-(((day - 90) / 25.0) ** 2)) + 7.0 * np.exp(-(((day - 215) / 40.0) ** 2))
    found = rain_regime(series(rain))
    assert 0.4 < found["amplitude_ratio"].item() < 0.85
    assert found["rainy_seasons"].item() == 2 and found["peak"].values.ravel().tolist() == pytest.approx(
        [90, 215], abs=3
    )
    assert rain_regime(series(rain), apart=150)["rainy_seasons"].item() == 1


def test_too_dry_is_neither_missing_nor_a_year_without_season():
    rain = climate(3).values
    rain[:, 1] *= 0.1
    rain[:, 2] = np.nan
    pr = series(rain, "1990-01-01")
    when = rain_regime(pr)
    assert when["rainy_seasons"].values.tolist() == [1, 0, MISSING] and when["start"].values[1:].tolist() == [-1, -1]
    for found in (season_by_anomaly(pr, when), season_by_rain(pr, when), wet_season(pr, when)):
        assert (found["season_status"].values[:, 1] == STATUS["not_in_this_regime"]).all()
        assert (found["season_status"].values[:, 2] == MISSING).all()
        assert found["onset"].isel(cell=[1, 2]).isnull().all() and found["length"].isel(cell=1).isnull().all()


def test_a_reference_is_named_and_used():
    pr = climate(2)
    part = rain_regime(pr, (1991, 1999))
    assert (part.attrs["reference_start"], part.attrs["reference_end"]) == ("1991-01-01", "1999-12-31")
    xr.testing.assert_identical(part, rain_regime(pr.sel(time=slice("1991", "1999"))))
    found = season_by_anomaly(pr, reference=(1991, 1999))
    assert found["onset"].attrs["reference_years"] == 9 and found.equals(season_by_anomaly(pr, part))
    with pytest.raises(TimeError, match="reference of the rain: expected days of the record"):
        rain_regime(pr, (2050, 2060))


# --- A ---------------------------------------------------------------------------------------------------------------
def test_the_anomaly_finds_what_was_drawn():
    figures, status = first_year(season_by_anomaly(series(block(150, 250))))
    assert figures == {"onset": 150, "cessation": 250, "length": 100, "false_starts": 0} and status == STATUS["whole"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_anomaly_is_its_definition(seed):
    """Liebmann's lowest and highest of D where they come in that order; else the pair of days with the largest rise."""
    pr = climate(5, "2001-01-01", "2003-12-31", seed)
    when = rain_regime(pr, seasons=1)
    found = season_by_anomaly(pr, when, margin=40)
    for cell in range(5):
        begin = (np.datetime64(f"2002-{when['start_month'].values[cell]:02}-01") - np.datetime64("2001-01-01")).astype(
            int
        )
        month = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])[when["start_month"].values[cell] - 1]
        start, length = (when["start"].values[cell] - month) % 365, (when["end"] - when["start"]).values[cell] % 365
        gap = min(40, (365 - length) // 2)
        first, last = start - gap, start + length + gap
        rain = pr.values[begin + first : begin + last, cell].astype(float)
        curve = np.concatenate([[0.0], np.cumsum(rain - when["daily_rain"].values[cell])])
        low, high = int(curve.argmin()), int(curve.argmax())
        here = found.sel(year=2002).isel(cell=cell)
        assert here["ambiguous"].item() == (low >= high)
        if low >= high:
            rise = np.triu(curve[None, :] - curve[:, None])
            low, high = np.unravel_index(int(rise.argmax()), rise.shape)
        assert (here["onset"].item(), here["cessation"].item()) == (first + low, first + high)


def test_years_that_are_shifted_have_shifted_seasons():
    """The same days later by k: the same seasons later by k, whatever month their years begin in."""
    rain = climate(4, "2001-01-01", "2003-12-31").values
    for later in (40, 150, 300):
        moved = {}
        for by in (0, later):
            pr = series(np.roll(rain, by, axis=0))
            for method in (season_by_anomaly, season_by_rain):
                found = method(pr)
                moved[by, method] = [
                    np.sort(season_dates(found[name]).values.ravel()) for name in ("onset", "cessation")
                ]
        for method in (season_by_anomaly, season_by_rain):
            for before, after in zip(moved[0, method], moved[later, method], strict=True):
                due = before + np.timedelta64(later, "D")
                due = due[(due >= np.datetime64("2002-01-01")) & (due < np.datetime64("2003-06-01"))]
                assert due.size >= 4 and np.isin(due, after).all()


def test_units_and_twice_the_rain_change_nothing():
    pr = climate(20)
    rates = pr.copy(data=(pr.values * np.float32(RATE)).astype(np.float32)).assign_attrs(units="kg m-2 s-1")
    for method in (season_by_anomaly, season_by_rain):
        one, other = method(pr), method(rates)
        for name in one.data_vars:
            np.testing.assert_array_equal(one[name].values, other[name].values)
    twice = pr.copy(data=2.0 * pr.values)
    names = ["onset", "cessation", "length", "season_status", "ambiguous"]
    xr.testing.assert_equal(season_by_anomaly(pr)[names], season_by_anomaly(twice)[names])


def test_limits_that_are_met_exactly_are_met_in_every_unit():
    """25.0 mm and 1.0 mm, as a rain gauge has them, in single-precision rates."""
    rain = np.zeros(365)
    rain[100:103] = 9.0, 8.0, 8.0
    rain[103:250] = np.tile([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0], 21)  # six days at the limit never are a dry week
    options = {"when": of(), "end_from": "09-08", "end_until": "11-01"}
    for pr in (series(rain), series(rain * RATE, units="kg m-2 s-1")):
        assert first_year(season_by_rain(pr, **options))[0] == {
            "onset": 102,
            "cessation": 250,
            "length": 148,
            "false_starts": 0,
        }
        assert first_year(season_by_rain(pr, spell=6, **options))[1] == STATUS["none"]


# --- B ---------------------------------------------------------------------------------------------------------------
def test_a_false_start_is_not_an_onset_and_is_counted():
    rain = np.zeros(365)
    rain[100] = 30.0  # and a dry week after it
    rain[120] = 30.0
    rain[126:250:5] = 10.0
    figures, status = first_year(season_by_rain(series(rain), of()))
    assert figures == {"onset": 120, "cessation": 247, "length": 127, "false_starts": 1} and status == STATUS["whole"]
    assert first_year(season_by_rain(series(rain), of(), spell=31))[0]["onset"] == 100
    assert first_year(season_by_rain(series(rain), of(), within=6))[0]["onset"] == 100
    assert first_year(season_by_rain(series(rain), of(), amount=35.0))[1] == STATUS["none"]
    later, sooner = (season_by_rain(series(rain), of(), **{name: "04-29"}) for name in ("start_from", "start_until"))
    assert first_year(later)[0] == {**figures, "false_starts": 0}
    assert first_year(sooner)[1] == STATUS["none"] and first_year(sooner)[0]["false_starts"] == 1
    assert first_year(season_by_rain(series(rain), of(), start_from="05-02"))[1] == STATUS["none"]


def test_the_end_by_water_balance_is_when_the_soil_has_given_all():
    """60 mm at 5 mm a day are twelve days; a soil that is never full is empty sooner."""
    rain = np.zeros(365)
    rain[100:240] = 10.0
    options = {"end": "water_balance", "end_from": "08-01"}
    assert first_year(season_by_rain(series(rain), of(), **options))[0]["cessation"] == 240 + 11
    assert first_year(season_by_rain(series(rain), of(), capacity=20.0, **options))[0]["cessation"] == 240 + 3
    assert first_year(season_by_rain(series(rain), of(), demand=2.5, **options))[0]["cessation"] == 240 + 23


def test_what_has_no_end_is_a_bound_and_what_never_begins_is_none():
    rain = np.zeros(365)
    rain[100:] = 10.0
    figures, status = first_year(season_by_rain(series(rain), of()))
    assert status == STATUS["went_on_after_its_year"] and figures["cessation"] == 365
    figures, status = first_year(season_by_rain(series(np.zeros(365)), of()))
    assert status == STATUS["none"] and figures["length"] == 0 and np.isnan(figures["onset"])
    gone = np.zeros(365)
    gone[100:116] = np.nan
    assert first_year(season_by_rain(series(gone), of()))[1] == MISSING


def test_beside_another_program():
    """xclim's rain_season. Its first dry week may begin on day 33 after the onset, so ours is over by day 38.

    Two differences, in which ours is the definition. After a false start its three-day sum is still high on the second
    dry day, and it takes that day of the dry week for the onset. And of dry spells it knows the first day only: rain
    that stops in August has no end in September, where ours ends on the first day asked for.
    """
    xclim = pytest.importorskip("xclim.indices")
    cells = 12
    pr = climate(cells, "1990-01-01", "1999-12-31", 3, peaks=(215.0,), width=70.0, most=0.75)
    pr = pr.copy(data=np.round(pr.values)).assign_attrs(units="mm/day")
    dates = {"start_from": "05-01", "start_until": "12-31", "end_from": "09-01", "end_until": "12-12"}
    when = xr.Dataset({"start_month": ("cell", [1] * cells), "peak": ("cell", [215] * cells)})
    ours = season_by_rain(pr, when, within=38, **dates)
    start, end, _ = (each.values for each in xclim.rain_season(pr.assign_coords(cell=range(cells))))
    onset, cessation = (season_dates(ours[name]).dt.dayofyear.values for name in ("onset", "cessation"))
    wrong = 0
    for year, cell in np.argwhere(onset != start):
        rain = pr.sel(time=str(1990 + year)).values[:, cell]
        day = int(start[year, cell]) - 1
        assert not onset[year, cell] <= day + 1 and (rain[day - 1 : day + 6] <= 1.0).all()
        wrong += 1
    same = onset == start
    assert 0 < wrong < 12 and same.sum() >= 108
    for year, cell in np.argwhere(same & (cessation != end)):
        rain = pr.sel(time=str(1990 + year)).values[:, cell]
        first = int(cessation[year, cell]) - 1
        if ours["season_status"].values[year, cell] == STATUS["went_on_after_its_year"]:
            assert np.isnan(end[year, cell])
        else:
            assert (rain[first - 1 : first + 20] == 0.0).all() and pd.Timestamp(
                1990 + year, 9, 1
            ).dayofyear == first + 1
    assert (same & (cessation == end)).sum() > 50


# --- two seasons, dates, the present ---------------------------------------------------------------------------------
def test_two_seasons_are_found_each_in_its_own_time():
    pr = climate(6, peaks=(110.0, 300.0), width=35.0, most=0.7)
    when = rain_regime(pr)
    for method in (season_by_anomaly, season_by_rain):
        found = method(pr, when)
        assert found["onset"].dims == ("year", "season", "cell")
        dates = season_dates(found["onset"])
        for season in (1, 2):
            late = (dates.sel(season=season).dt.dayofyear - when["start"].sel(season=season) + 182) % 365 - 182
            assert abs(late.median()) < 15 and abs(late).quantile(0.9) < 60
        whole = (found["season_status"] == STATUS["whole"]).mean("cell")
        assert whole.isel(year=slice(2, -2)).mean() > 0.7


def test_a_cell_of_one_season_has_no_second():
    rain = np.concatenate([climate(1, peaks=(110.0, 300.0), width=35.0).values, climate(1).values], axis=1)
    pr = series(rain, "1990-01-01")
    when = rain_regime(pr)
    assert when["rainy_seasons"].values.tolist() == [2, 1]
    alone = rain_regime(pr.isel(cell=[1]))
    for method in (season_by_anomaly, season_by_rain, wet_season):
        found, one = method(pr, when), method(pr.isel(cell=[1]), alone)
        second = found.sel(season=2).isel(cell=1)
        assert (second["season_status"] == STATUS["not_in_this_regime"]).all() and second["length"].isnull().all()
        first = found.sel(season=1).isel(cell=[1]).sel(year=one["year"])
        for name in ("onset", "cessation", "length", "season_status"):
            np.testing.assert_array_equal(first[name].values, one[name].values)


def test_a_wet_spell_over_both_peaks_is_joined():
    when = xr.Dataset({"start_month": ("cell", [1]), "peak": (("season", "cell"), [[100], [300]])})
    wet = np.full(365, 0.1)
    wet[60:150], wet[260:330] = 0.8, 0.8
    apart = wet_season(series(wet), when).isel(year=0, cell=0)
    assert apart["onset"].values.tolist() == [60, 260] and (apart["season_status"] == STATUS["whole"]).all()
    assert apart["wet_seasons"].values.tolist() == [1, 1]
    wet[60:330] = 0.8
    assert (wet_season(series(wet), when)["season_status"] == STATUS["joined"]).all()


@pytest.mark.parametrize("method", [season_by_anomaly, season_by_rain, wet_season])
def test_the_present_year_as_it_goes(method):
    """Day by day: not yet, then running, then whole; whatever has been told as whole stays."""
    pr = climate(8, "1998-01-01", "2003-12-31", 5, width=50.0, most=0.8)
    when = rain_regime(pr)
    values, name = (pr, "rain")
    if method is wet_season:
        soil = pr.rolling(time=20, min_periods=1).mean() / 6.0
        values, when, name = soil.rename("availability"), calendar(soil), "soil"
    end = method(values, when).sel(year=2002)
    order = [STATUS["not_yet"], STATUS["running"], STATUS["whole"]]
    told = []
    for last in pd.date_range("2002-01-15", "2003-01-15", freq="15D"):
        found = method(values.sel(time=slice(None, last)), when, to_date=True)
        if 2002 not in found["year"]:
            continue
        found = found.sel(year=2002)
        told.append(found["season_status"].values)
        done = told[-1] == STATUS["whole"]
        assert (found["length"].values[done] == end["length"].values[done]).all(), (name, last)
        running = told[-1] == STATUS["running"]
        assert (found["cessation"].values[running] <= found["days_to_date"].values[running]).all()
        assert (found["length"] <= found["days_to_date"].max()).values[running].all()
        assert (
            found["length"].values[told[-1] == STATUS["not_yet"]].size == 0
            or np.isnan(found["length"].values[told[-1] == STATUS["not_yet"]]).all()
        )
        plain = method(values.sel(time=slice(None, last)), when).reindex(year=[2002]).sel(year=2002)["season_status"]
        if last < pd.Timestamp("2002-08-01"):
            assert (plain.fillna(MISSING) == MISSING).all()  # unless asked, an unfinished year is not told
    sequence = np.array(told)
    for cell in range(8):
        seen = [code for code in sequence[:, cell] if code != MISSING]
        ranks = [order.index(code) for code in seen if code in order]
        assert ranks[0] == 0 and 1 in ranks
        if method is not season_by_anomaly:  # whose lowest may yet come, so that it may begin again
            assert ranks == sorted(ranks)


def test_an_onset_of_sowers_is_told_only_when_it_has_not_proved_false():
    rain = np.zeros(200)
    rain[100] = 30.0
    rain[104:200:4] = 8.0
    for days, status in ((125, "not_yet"), (131, "running")):
        found = season_by_rain(series(rain[:days]), of(), to_date=True)
        assert found["season_status"].item() == STATUS[status], days
    assert found["onset"].item() == 100 and found["days_to_date"].item() == 131


def test_three_methods_side_by_side_and_how_far_they_are_apart():
    pr = climate(4)
    soil = (pr.rolling(time=30, min_periods=1).mean() / 8.0).clip(0.0, 1.0).rename("availability")
    found = seasons(pr, soil, rain={"amount": 20.0}, soil={"enter": 0.4, "leave": 0.3})
    assert found["onset"].dims == ("method", "year", "cell") and found["method"].values.tolist() == list(METHODS)
    when = rain_regime(pr)
    alone = [
        season_by_anomaly(pr, when),
        season_by_rain(pr, when, amount=20.0),
        wet_season(soil, when, enter=0.4, leave=0.3),
    ]
    for method, each in zip(METHODS, alone, strict=True):
        for name in ("onset", "cessation", "length", "wet_seasons", "season_status"):
            np.testing.assert_array_equal(found[name].sel({"method": method}).values, each[name].values)
    onset = found["onset"].values
    expected = np.where(np.isfinite(onset).sum(axis=0) > 1, np.nanmax(np.nan_to_num(onset, nan=-1e9), axis=0), np.nan)
    lowest = np.min(np.nan_to_num(onset, nan=1e9), axis=0)
    np.testing.assert_array_equal(found["disagreement"].values, (expected - lowest).astype(np.float32))
    assert found.attrs["rain_amount"] == 20.0 and found.attrs["soil_enter"] == 0.4
    assert found.attrs["anomaly_reference_start"] == "1990-01-01"
    with pytest.raises(TimeError, match="days of soil and rain"):
        seasons(pr, soil.isel(time=slice(5, None)))


def test_probability_of_onset_counts_members_for_what_is_known_of_them():
    codes = [STATUS[name] for name in ("whole", "began_before_its_year", "none", "not_yet")] + [MISSING]
    onset = [40.0, 0.0, np.nan, np.nan, np.nan]

    def members(which: list[int], to_date: int) -> xr.Dataset:
        dims, coords = ("realization", "year", "cell"), {"year": [2001]}
        return xr.Dataset(
            {
                "onset": (dims, np.array(onset)[which].reshape(-1, 1, 1)),
                "season_status": (dims, np.array(codes, np.int8)[which].reshape(-1, 1, 1)),
                "days_to_date": (("year", "cell"), [[to_date]]),
            },
            coords,
        )

    found = onset_probability(members([0, 1, 2, 4], 365), [0, 39, 40, 365])
    assert found.dims == ("year", "day", "cell") and found.values.ravel().tolist() == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    )
    found = onset_probability(members([0, 0, 3, 3], 60), [39, 59, 60, 300])
    np.testing.assert_array_equal(found.values.ravel(), [0.0, 0.5, np.nan, np.nan])
    assert onset_probability(members([4], 60)).isnull().all()
    with pytest.raises(VariableError, match="days_to_date, onset, season_status by realization"):
        onset_probability(members([0, 3], 60).drop_vars("days_to_date"))


def test_blocks_of_cells_and_threads_give_the_same():
    pr = climate(300, "1998-01-01", "2002-12-31")
    when = rain_regime(pr)
    for method in (season_by_anomaly, season_by_rain):
        whole = method(pr, when, threads=2)
        xr.testing.assert_identical(whole, method(pr, when, threads=1))
        some = np.arange(1, 300, 7)
        xr.testing.assert_equal(
            whole.isel(cell=some), method(pr.isel(cell=some), when.isel(cell=some)).sel(year=whole["year"])
        )


def test_one_place_without_a_cell_is_a_cell():
    pr = climate(1)
    xr.testing.assert_equal(season_by_rain(pr.isel(cell=0)), season_by_rain(pr))


def test_bad_input_is_refused():
    pr = climate(2)
    with pytest.raises(VariableError, match="units of 'pr'"):
        rain_regime(pr.assign_attrs(units="K"))
    with pytest.raises(RangeError, match="0 or more"):
        season_by_rain(-pr)
    with pytest.raises(TimeError, match="expected consecutive days"):
        season_by_rain(pr.resample(time="MS").sum().assign_attrs(units="mm"), rain_regime(pr))
    with pytest.raises(VariableError, match="what rain_regime returns"):
        season_by_anomaly(pr, calendar(pr))
    with pytest.raises(VariableError, match="'start_month' of a calendar: expected cell 2"):
        season_by_rain(pr, of())
    for options, words in (
        ({"amount": 0.0}, "amount of the wet season"),
        ({"spell": 0}, "days of the wet season"),
        ({"end": "whenever"}, "end of the wet season: expected dry_spell, water_balance"),
        ({"start_from": "13-01"}, "expected MM-DD, found 13-01"),
        ({"start_from": ["04-01", "09-01"]}, "expected one, or 1, found 2"),
        ({"margin": -1}, "margin"),
    ):
        with pytest.raises(SettingsError, match=words):
            season_by_rain(pr, **options)
