"""Drought events against runs counted by hand and by xclim, and return periods against distributions that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import SettingsError, TimeError, VariableError
from twin.indices.events import (
    annual_return_period,
    drought_events,
    event_area,
    flash_drought,
    joint_return_period,
    return_period,
)

BARE = {"merge_gap": 0, "shortest": 1}  # runs as they are


def series(values, first: str = "2001-01-01") -> xr.DataArray:
    values = np.asarray(values, dtype=np.float32)
    values = values[:, None] if values.ndim == 1 else values
    days = pd.date_range(first, periods=len(values))
    place = {"time": days, "lat": ("cell", np.arange(values.shape[1], dtype=float))}
    return xr.DataArray(values, place, ("time", "cell"), "soil_moisture_percentile", {"units": "%"})


def told(events: xr.Dataset, *names: str) -> list:
    """Figures of each event; days count from 2001."""
    columns = []
    for name in names:
        values = events[name].values
        since = (values - np.datetime64("2001-01-01")) // np.timedelta64(1, "D") if values.dtype.kind == "M" else values
        columns.append(since.tolist())
    return list(zip(*columns, strict=True))


def weather(seed: int, days: int = 600, cells: int = 8, missing: float = 0.0) -> np.ndarray:
    """Percentiles that remember for some weeks, (time, cell)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((days, cells))
    for day in range(1, days):
        noise[day] = 0.95 * noise[day - 1] + np.sqrt(1 - 0.95**2) * noise[day]
    values = 100.0 / (1.0 + np.exp(-1.7 * noise))
    values[rng.random(values.shape) < missing] = np.nan
    return values


# --- runs -------------------------------------------------------------------------------------------------------------
def test_one_event_by_hand():
    values = [50.0] * 10 + [10.0, 5.0, 15.0] * 12 + [20.0] + [60.0] * 9
    found = drought_events(series(values))
    assert told(found, "onset", "end", "duration", "peak", "peak_day") == [(10, 45, 36, 5.0, 11)]
    assert found["severity"].item() == 12 * 30.0 and found["intensity"].item() == 10.0
    assert found["severity"].attrs["units"] == "% day" and found.attrs["record_end"] == "2001-02-25"
    assert not found["censored_start"].item() and not found["censored_end"].item()


@pytest.mark.parametrize(
    ("gap", "wet", "number"),
    [(10, 21.0, 1), (11, 21.0, 2), (10, 59.9, 1), (10, 60.1, 2), (1, 419.0, 1), (1, 421.0, 2)],
)
def test_runs_are_one_event_when_little_lies_between(gap, wet, number):
    """40 days of deficit 100: gaps of at most 10 days, and of an excess below a tenth of 4000."""
    values = [-80.0] * 40 + [wet] * gap + [-80.0] * 40 + [90.0] * 5
    found = drought_events(series([90.0, *values]))
    assert found.sizes["event"] == number
    assert found["severity"].sum().item() == 8000.0
    assert found["duration"].sum().item() == 80 + gap * (number == 1)


def test_short_events_are_dropped_after_merging():
    values = [50.0] + [10.0] * 20 + [20.5] * 5 + [10.0] * 10 + [50.0] * 20 + [10.0] * 29 + [50.0]
    assert told(drought_events(series(values)), "onset", "end", "duration") == [(1, 35, 35)]
    assert drought_events(series(values), shortest=29).sizes["event"] == 2
    assert drought_events(series(values), merge_gap=0).sizes["event"] == 0


def test_a_missing_day_is_neither_drought_nor_its_end():
    dry, gone = [10.0] * 30, [np.nan]
    found = drought_events(series([50.0] + dry + gone * 5 + dry + [50.0]))
    assert told(found, "onset", "duration", "severity", "censored_end") == [(1, 65, 600.0, False)]
    found = drought_events(series([50.0] + dry + gone * 11 + dry + [50.0]))
    assert told(found, "onset", "censored_start", "censored_end") == [(1, False, True), (42, True, False)]
    assert drought_events(series(gone * 60)).sizes["event"] == 0


def test_what_the_record_cuts_is_marked():
    found = drought_events(series([10.0] * 30 + [50.0] * 20 + [10.0] * 30))
    assert told(found, "censored_start", "censored_end") == [(True, False), (False, True)]


def by_hand(values: np.ndarray, x0: float, gap: int, excess: float, shortest: int) -> list[tuple]:
    """The rules in words, one series, no state machine: runs first, then merging, then dropping."""
    runs: list[list[int]] = []
    for day in np.flatnonzero(values < x0):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(int(day))
        else:
            runs.append([int(day)])
    merged: list[list[int]] = []
    for run in runs:
        if merged:
            between = values[merged[-1][-1] + 1 : run[0]]
            deficit = sum(x0 - values[day] for day in merged[-1])
            if len(between) <= gap and np.nansum(between - x0) < excess * deficit:
                merged[-1] += run
                continue
        merged.append(run)
    kept = [run for run in merged if run[-1] - run[0] + 1 >= shortest]
    return [(run[0], run[-1], sum(x0 - values[day] for day in run), min(values[day] for day in run)) for run in kept]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 30), st.floats(0.0, 1.0), st.integers(1, 40), st.floats(5.0, 60.0))
def test_every_event_is_as_found_by_hand(seed, gap, excess, shortest, x0):
    values = weather(seed, missing=0.02).astype(np.float32)
    found = drought_events(series(values), x0, merge_gap=gap, merge_excess=excess, shortest=shortest, threads=2)
    for cell in range(values.shape[1]):
        expected = by_hand(values[:, cell].astype(np.float64), x0, gap, excess, shortest)
        mine = told(found.isel(event=found["cell"].values == cell), "onset", "end", "severity", "peak")
        assert [event[:2] for event in mine] == [event[:2] for event in expected]
        np.testing.assert_allclose([event[2:] for event in mine], [event[2:] for event in expected], rtol=1e-9)


def test_no_deficit_is_lost():
    """Before anything is dropped, severities sum to all that lies below the threshold, whatever is merged."""
    values = weather(1, missing=0.05)
    below = np.nansum(np.clip(20.0 - values.astype(np.float32), 0.0, None), dtype=np.float64)
    for gap in (0, 5, 60):
        found = drought_events(series(values), merge_gap=gap, merge_excess=0.5, shortest=1)
        assert found["severity"].sum().item() == pytest.approx(below, rel=1e-9)


def test_merging_what_is_merged_changes_nothing():
    """A series of the events' deficits, with the excess between them kept, has the same events."""
    values = weather(2, 3000, 4).astype(np.float32)
    rules = {"merge_gap": 15, "merge_excess": 0.4, "shortest": 1}
    once = drought_events(series(values), **rules)
    again = values.copy()
    day = (once["end"].values - np.datetime64("2001-01-01")) // np.timedelta64(1, "D")
    for end, cell, duration, severity in zip(
        day, once["cell"].values, once["duration"].values, once["severity"].values, strict=True
    ):
        again[end - duration + 1 : end + 1, cell] = 20.0 - severity / duration
    twice = drought_events(series(again), **rules)
    assert told(once, "cell", "onset", "end") == told(twice, "cell", "onset", "end")
    assert once.sizes["event"] < drought_events(series(values), **BARE).sizes["event"]


def test_a_higher_threshold_finds_no_less():
    values = series(weather(3))
    for low, high in ((10.0, 20.0), (20.0, 30.0)):
        a, b = drought_events(values, low, **BARE), drought_events(values, high, **BARE)
        assert b["severity"].sum() > a["severity"].sum()
        for cell, onset, end in zip(a["cell"].values, a["onset"].values, a["end"].values, strict=True):
            within = (b["cell"].values == cell) & (b["onset"].values <= onset) & (b["end"].values >= end)
            assert within.sum() == 1


def test_neither_order_nor_blocks_of_cells_nor_threads_matter():
    values = series(weather(4, 900, 300))
    whole = drought_events(values, shortest=10, threads=1)
    parts = [drought_events(values[:, part], shortest=10) for part in (slice(0, 130), slice(130, 300))]
    parts[1]["cell"] = parts[1]["cell"] + 130
    order = np.random.default_rng(0).permutation(300)
    mixed = drought_events(values[:, order], shortest=10, threads=4)
    mixed["cell"] = ("event", order[mixed["cell"].values])
    mixed = mixed.isel(event=np.lexsort((mixed["onset"].values, mixed["cell"].values)))
    for other in (xr.concat(parts, "event"), mixed):
        for name in whole.data_vars:
            np.testing.assert_array_equal(whole[name], other[name])
    np.testing.assert_array_equal(whole["lat"], whole["cell"])


def test_xclim_finds_the_same_runs():
    """xclim.indices.run_length on days below the threshold: how many, the longest, all days in runs of 30 or more."""
    run_length = pytest.importorskip("xclim.indices.run_length")
    values = series(weather(5, 1500, 6))
    for shortest in (1, 30):
        found = drought_events(values, merge_gap=0, shortest=shortest)
        below = values < 20.0
        cells = found["cell"].values
        number = run_length.windowed_run_events(below, window=shortest, dim="time")
        np.testing.assert_array_equal(np.bincount(cells, minlength=6), number)
        days = run_length.windowed_run_count(below, window=shortest, dim="time")
        np.testing.assert_array_equal(np.bincount(cells, found["duration"], minlength=6), days)
        if shortest == 1:
            longest = [found["duration"].values[cells == cell].max() for cell in range(6)]
            np.testing.assert_array_equal(longest, run_length.longest_run(below, dim="time"))


def test_the_area_in_drought_is_that_of_its_cells():
    values = series(weather(6, 400, 20))
    area = np.random.default_rng(0).uniform(1, 2, 20)
    share = event_area(drought_events(values, **BARE), values["time"].values, area)
    np.testing.assert_allclose(share, (values.values < 20.0) @ area / area.sum(), atol=1e-12)
    assert share.attrs["units"] == "1"


def test_bad_rules_are_refused():
    values = series([50.0] * 40)
    with pytest.raises(SettingsError, match="expected shortest at least 1"):
        drought_events(values, shortest=0)
    with pytest.raises(TimeError, match="expected consecutive days, found gaps"):
        drought_events(values.isel(time=[0, 2]))
    with pytest.raises(VariableError, match="dims of 'soil_moisture_percentile'"):
        drought_events(values.T)
    with pytest.raises(SettingsError, match="fall_to below fall_from"):
        flash_drought(values, fall_from=10.0)


# --- flash drought ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("days", "number"), [(20, 1), (21, 0)])
def test_a_flash_drought_falls_within_twenty_days(days, number):
    """From the 40th percentile to the 20th, both included."""
    fall = [60.0, 40.0] + [30.0] * (days - 1) + [20.0] * 12 + [20.1]
    found = flash_drought(series(fall))
    assert found.sizes["event"] == number
    if number:
        assert told(found, "falling_since", "onset", "end", "severity") == [(1, 21, 32, 0.0)]


def test_a_slow_drought_is_no_flash_drought_and_a_relapse_is_none():
    slow = np.linspace(60, 5, 120)
    relapse = [50.0, 10.0, 10.0, 25.0, 10.0] + [30.0] * 30 + [10.0, np.nan, 10.0, 50.0, np.nan, 15.0]
    assert flash_drought(series(slow)).sizes["event"] == 0
    assert told(flash_drought(series(relapse)), "falling_since", "onset", "end") == [(0, 1, 2), (0, 4, 4), (38, 40, 40)]
    assert told(flash_drought(series(relapse), shortest=2), "onset") == [(1,)]
    assert told(flash_drought(series(relapse), fall_from=51.0), "onset") == []


# --- how often --------------------------------------------------------------------------------------------------------
def events(severity: np.ndarray, onset_year: np.ndarray, years: int, duration: np.ndarray | None = None) -> xr.Dataset:
    """Events of one cell as `drought_events` has them, of a record of so many years."""
    start = np.datetime64("1900-01-01")
    onset = start + (365.25 * onset_year + 100).astype("timedelta64[D]")
    figures = {"cell": np.zeros(len(severity), int), "onset": onset.astype("datetime64[s]"), "severity": severity}
    figures["duration"] = severity if duration is None else duration
    end = str(start + np.timedelta64(round(365.25 * years) - 1, "D"))
    found = xr.Dataset({name: ("event", values) for name, values in figures.items()})
    return found.assign_attrs(record_start=str(start), record_end=end)


def exponential(rng: np.random.Generator, years: int) -> xr.Dataset:
    """Two events a year at random (Poisson), severities exponential with mean 100."""
    number = rng.poisson(2.0 * years)
    return events(rng.exponential(100.0, number), np.sort(rng.integers(0, years, number)), years)


@pytest.mark.parametrize("distribution", ["empirical", "exponential"])
def test_exponential_severities_return_when_they_should(distribution):
    """T(s) = exp(s/100)/2 years; 90 % intervals of 200 records of 60 years hold it 85 to 96 times in a hundred."""
    rng, levels = np.random.default_rng(0), np.array([100.0, 230.0])
    truth, inside, found = np.exp(levels / 100.0) / 2.0, np.zeros(2), []
    for _ in range(200):
        T = return_period(exponential(rng, 60), levels, rng, distribution=distribution, replications=300)
        inside += (T["low"].values <= truth) & (truth <= T["high"].values)
        found.append(T["return_period"].values)
        assert (T["low"] <= T["return_period"]).all() and (T["return_period"] <= T["high"]).all()
    assert (inside / 200 > 0.85).all() and (inside / 200 < 0.96).all()
    np.testing.assert_allclose(1.0 / np.mean(1.0 / np.array(found), axis=0), truth, rtol=0.05)


def test_partial_duration_is_the_years_by_the_events():
    found = return_period(events(np.arange(1.0, 11.0), np.arange(10), 20), [1.0, 10.0, 11.0], np.random.default_rng(0))
    np.testing.assert_allclose(found["return_period"], [2.0, 20.0, np.inf])
    assert found["low"][2] == pytest.approx(20 / -np.log(0.05)) and np.isinf(found["high"][2])
    assert found.attrs["record_years"] == pytest.approx(20.0) and found["level"].values.tolist() == [1.0, 10.0, 11.0]


def test_no_event_is_not_no_risk():
    none = events(np.zeros(0), np.zeros(0), 30)
    for distribution in ("empirical", "exponential"):
        found = return_period(none, 5.0, np.random.default_rng(0), distribution=distribution)
        assert np.isinf(found["return_period"].item())
        assert found["low"].item() == pytest.approx(30 / -np.log(0.05), rel=1e-4)


def gumbel_pairs(rng: np.random.Generator, theta: float, number: int) -> np.ndarray:
    """Uniform pairs (2, number) of a Gumbel copula. Ref: Marshall & Olkin (1988); positive stable by Kanter (1975)."""
    alpha, w, e = 1.0 / theta, rng.uniform(0, np.pi, number), rng.exponential(1.0, number)
    stable = np.sin(alpha * w) / np.sin(w) ** (1 / alpha) * (np.sin((1 - alpha) * w) / e) ** ((1 - alpha) / alpha)
    return np.exp(-((rng.exponential(1.0, (2, number)) / stable) ** alpha))


@pytest.mark.parametrize("copula", ["gumbel", "empirical"])
def test_joint_return_period_of_a_known_copula(copula):
    """θ = 2.5, F_D = F_S = 0.9: P(both) = 1 − 1.8 + 0.9^(2^(1/θ)); two events a year."""
    rng, theta = np.random.default_rng(3), 2.5
    u, v = gumbel_pairs(rng, theta, 4000)
    found = events(-np.log1p(-v), np.arange(4000) // 2, 2000, -np.log1p(-u))
    T = joint_return_period(found, -np.log(0.1), -np.log(0.1), rng, copula=copula, replications=100)
    truth = 1.0 / (2.0 * (1 - 1.8 + 0.9 ** (2.0 ** (1 / theta))))
    assert T["low"].item() <= truth <= T["high"].item() and T["return_period"].item() == pytest.approx(truth, rel=0.08)


def test_both_at_once_is_rarer_than_either():
    rng = np.random.default_rng(4)
    found = exponential(rng, 60)
    found["duration"] = ("event", rng.permutation(found["severity"].values) + found["severity"].values)
    alone = [
        return_period(found, level, rng, of=of)["return_period"].item()
        for level, of in ((150.0, "severity"), (250.0, "duration"))
    ]
    for copula in ("gumbel", "empirical"):
        both = joint_return_period(found, 250.0, 150.0, rng, copula=copula, replications=50)
        assert both["return_period"].item() >= max(alone) * 0.97


def test_annual_minima_return_by_their_distribution():
    """z of −1, −1.5, −2 return every 6.3, 15 and 44 years if values are annual."""
    z = np.random.default_rng(5).standard_normal((20_000, 1))
    minima = xr.DataArray(z, dims=("year", "cell"), name="z")
    found = annual_return_period(minima, [-1.0, -1.5, -2.0])
    np.testing.assert_allclose(found["return_period"][:, 0], [6.3, 15.0, 44.0], rtol=0.05)
    assert (found["low"] < found["return_period"]).all() and (found["return_period"] < found["high"]).all()


def test_a_monthly_z_of_minus_two_is_no_44_year_event():
    """The lowest of twelve independent months is below −2 in 1 − (1 − 1/44)^12 of the years: every 4.1 years."""
    months = np.random.default_rng(6).standard_normal((20_000, 12))
    found = annual_return_period(xr.DataArray(months.min(axis=1)[:, None], dims=("year", "cell")), -2.0)
    assert found["return_period"].item() == pytest.approx(4.14, rel=0.03)


def test_annual_intervals_hold_the_truth_and_gaps_are_left_out():
    """The 90 % interval of a 10-year minimum, of 4000 records of 60 years, holds ten years 87 to 94 times in 100."""
    values = np.random.default_rng(7).random((60, 4000))
    found = annual_return_period(xr.DataArray(values, dims=("year", "cell")), 0.1)
    assert 0.87 < float(((found["low"] <= 10.0) & (found["high"] >= 10.0)).mean()) < 0.94
    values[:, 0], values[30:, 1], values[:30, 1] = np.nan, np.nan, 0.5
    found = annual_return_period(xr.DataArray(values, dims=("year", "cell")), 0.1)
    assert found[["return_period", "low", "high"]].isel(cell=0).isnull().all().to_array().all()
    assert np.isinf(found["return_period"][0, 1]) and 10 < found["low"][0, 1] < 30


def test_bad_questions_are_refused():
    rng, two = np.random.default_rng(0), drought_events(series(weather(0)), **BARE)
    with pytest.raises(VariableError, match="expected those of one cell, found 8"):
        return_period(two, 10.0, rng)
    one = two.isel(event=two["cell"].values == 0)
    with pytest.raises(SettingsError, match="expected empirical or exponential, found normal"):
        return_period(one, 10.0, rng, distribution="normal")
    with pytest.raises(SettingsError, match="expected gumbel or empirical, found clayton"):
        joint_return_period(one, 10.0, 10.0, rng, copula="clayton")
    with pytest.raises(VariableError, match=r"expected \('year', 'cell'\)"):
        annual_return_period(xr.DataArray(np.zeros(3), dims=("year",)), 0.1)
