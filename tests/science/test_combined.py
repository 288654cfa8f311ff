"""The combined indicator against its own definition, flag by flag, and against a published code's mistake."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import TimeError, VariableError
from twin.indices import combined
from twin.indices.combined import RECOVERED, SEVERITY, STATES, cdi, dekadal, dekads, latest, next_dekads

N, W, WA, A, R, TRS, TRV, NO = range(8)
GONE = None  # an input that is missing


def times(number: int, first: str = "2020-01-01") -> np.ndarray:
    found = [np.datetime64(first, "ns")]
    while len(found) < number:
        found.append(next_dekads(np.array(found[-1:]))[0])
    return np.array(found)


def anomaly(flags) -> xr.DataArray:
    """Anomalies (time, cell) of which −1.5 is a deficit, 0 none and NaN not known."""
    values = np.array([[{True: -1.5, False: 0.0, GONE: np.nan}[flag] for flag in row] for row in flags])
    return xr.DataArray(values, {"time": times(len(values))}, ("time", "cell"), "z")


def run(*days: tuple, vegetation: bool = True) -> list[int]:
    """States of one cell after days of (P, S, V)."""
    P, S, V = (anomaly([[day[k]] for day in days]) for k in range(3))
    return cdi(P, xr.where(P.isnull(), np.nan, 0.0), S, V if vegetation else None)["cdi"].values[:, 0].tolist()


WET, DRY = (False, False, False), (True, True, True)


# --- every transition -------------------------------------------------------------------------------------------------
def test_a_drought_comes_and_goes():
    """Rain, soil, plants: one level a dekad; then each recovery once, and none after three normal dekads."""
    drought = run(WET, DRY, DRY, DRY, DRY, WET, WET, WET, WET)
    assert drought == [N, W, WA, A, A, TRV, R, N, N]
    assert run(DRY, DRY, WET, WET, WET, WET) == [W, WA, TRS, R, N, N]
    assert run(DRY, WET, WET) == [W, N, N]


def test_a_pause_of_one_dekad_does_not_end_a_drought():
    assert run(DRY, DRY, (True, False, False), DRY, DRY) == [W, WA, TRS, WA, A]
    assert run(DRY, DRY, DRY, (True, True, False), DRY) == [W, WA, A, TRV, A]


def test_recovery_is_never_said_of_a_dry_soil():
    assert run(DRY, DRY, DRY, (False, True, False), (False, True, False)) == [W, WA, A, TRV, WA]
    assert run(DRY, DRY, DRY, WET, WET, (False, True, False)) == [W, WA, A, TRV, R, WA]


def test_recovery_lasts_until_rain_and_soil_are_normal_for_three_dekads():
    short = (True, False, False)
    assert run(DRY, DRY, WET, short, WET, WET, WET, WET) == [W, WA, TRS, R, R, R, N, N]


def test_plants_may_lag_the_rain():
    late = (False, False, True)
    assert run(DRY, DRY, DRY, late, late, late, WET, WET, WET) == [W, WA, A, A, A, A, TRV, R, N]


NEXT = {  # (P, S, V) from 000 to 111, binary, of a dekad that is not the third normal one
    N: [N, N, N, N, W, W, W, W],
    W: [N, N, WA, WA, W, W, WA, WA],
    WA: [TRS, TRS, WA, A, TRS, TRS, WA, A],
    A: [TRV, A, TRV, A, TRV, A, TRV, A],
    R: [R, R, WA, WA, R, R, WA, WA],
    TRS: [R, R, WA, WA, R, R, WA, WA],
    TRV: [R, A, WA, A, R, A, WA, A],
    NO: [N, N, N, N, W, W, W, W],
}


def test_the_machine_is_its_table():
    """All states, all flags, written out."""
    for state, flags in product(NEXT, product((False, True), repeat=3)):
        expected = NEXT[state][int("".join(str(int(flag)) for flag in flags), 2)]
        assert combined.step(state, 0, *flags)[0] == expected, (state, flags)
    assert combined.step(R, RECOVERED - 1, False, False, True) == (N, RECOVERED)


def test_no_level_is_jumped():
    """Up by one level at a time, down from warning and alert only through a recovery; each state with its own flag."""
    for state, normal, flags in product(range(8), range(RECOVERED + 1), product((False, True), repeat=3)):
        after, _ = combined.step(state, normal, *flags)
        if after == A:
            assert flags[2] and state in (WA, A, TRV)
        if after == WA:
            assert flags[1] and state not in (N, NO)
        if after == W:
            assert flags[0] and state in (N, W, NO)
        if after == N:
            assert not flags[0] and state in (N, W, R, NO)
        if after == R:
            assert not flags[1] and state in (TRS, TRV, R)


def test_rain_is_in_deficit_by_either_sum():
    """EDO: SPI-3 below −1, or SPI-1 below −2."""
    calm = xr.zeros_like(anomaly([[False]] * 1))
    for spi3, spi1, state in ((-1.01, 0, W), (-1.0, -2.0, N), (0, -2.01, W), (np.nan, -2.01, W), (np.nan, -1.5, NO)):
        assert cdi(calm + spi3, calm + spi1, calm, calm)["cdi"].item() == state


# --- what is missing --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("missing", [m for m in product((False, True), repeat=3) if any(m)])
def test_what_is_missing_never_moves_a_place_down(missing):
    """From all states and flags; and where it moves it up, every value of what is missing would have."""
    for state, normal, flags in product(range(8), range(RECOVERED + 1), product((False, True), repeat=3)):
        told = tuple(2 if gone else int(flag) for gone, flag in zip(missing, flags, strict=True))
        after = int(combined._table()[(0, state, normal, *told)])
        assert SEVERITY[after] >= SEVERITY[state]
        if after != state:
            assert after == combined.step(state, normal, *flags)[0]


def test_missing_holds_and_is_said():
    nothing = (GONE, GONE, GONE)
    assert run(nothing, WET, DRY, nothing, nothing, DRY, nothing, DRY) == [NO, N, W, W, W, WA, WA, A]
    assert run(DRY, DRY, DRY, (False, False, GONE), WET) == [W, WA, A, A, TRV]
    P = anomaly([[True], [True], [True]])
    found = cdi(P, P, anomaly([[True], [GONE], [True]]), P)
    assert found["stale"].values[:, 0].tolist() == [0, 1, 0] and found["cdi"].values[:, 0].tolist() == [W, W, WA]


def test_without_vegetation_there_is_no_alert():
    assert run(DRY, DRY, DRY, DRY, WET, WET, vegetation=False) == [W, WA, WA, WA, TRS, R]
    assert run((GONE, True, True)) == [NO]


# --- a mistake that was made ------------------------------------------------------------------------------------------
def test_greener_plants_raise_no_alert():
    """RHEAS (`drought.calcCDI`, NASA) asks for fAPAR z > 1 where a deficit is meant. Both rules, on a green dekad."""
    dry, green, brown = anomaly([[True]] * 4), xr.full_like(anomaly([[True]] * 4), 2.0), anomaly([[True]] * 4)
    theirs = (dry < -1) & (green > 1)
    assert theirs.all(), "warns of plants two standard deviations greener than usual"
    assert not ((dry < -1) & (brown > 1)).any(), "and is silent of brown ones"
    assert cdi(dry, dry, dry, green)["cdi"].values[:, 0].tolist() == [W, WA, WA, WA]
    assert cdi(dry, dry, dry, brown)["cdi"].values[:, 0].tolist() == [W, WA, A, A]


# --- pieces -----------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 39))
def test_run_in_pieces_it_is_run_at_once(seed, cut):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((4, 40, 30))
    for row in range(1, 40):
        noise[:, row] = 0.8 * noise[:, row - 1] + 0.6 * noise[:, row]
    values = np.where(rng.random(noise.shape) < 0.05, np.nan, 1.5 * noise)
    inputs = [xr.DataArray(v, {"time": times(40)}, ("time", "cell")) for v in values]
    whole = cdi(*inputs)
    first = cdi(*(v[:cut] for v in inputs))
    xr.testing.assert_identical(xr.concat([first, cdi(*(v[cut:] for v in inputs), start=first)], "time"), whole)
    order = rng.permutation(30)
    xr.testing.assert_identical(cdi(*(v[:, order] for v in inputs)), whole.isel(cell=order))
    assert len(np.unique(whole["cdi"])) >= 6


def test_it_says_what_it_is():
    P = anomaly([[True, False]]).assign_coords(lat=("cell", [1.0, 2.0]))
    found = cdi(P, P, P, soil_below=-2.0)
    assert found["cdi"].dtype == np.int8 and found["cdi"].attrs["soil_below"] == -2.0
    assert found["cdi"].attrs["of"] == "spi3, spi1, soil" and "vegetation_below" not in found["cdi"].attrs
    assert "own" in found["cdi"].attrs["long_name"] and found["lat"].values.tolist() == [1.0, 2.0]
    assert (
        dict(zip(found["cdi"].attrs["flag_meanings"].split(), found["cdi"].attrs["flag_values"], strict=True)) == STATES
    )


def test_bad_input_is_refused():
    P = anomaly([[True]] * 3)
    with pytest.raises(VariableError, match=r"input 'soil': expected spi3's \(3, 1\)"):
        cdi(P, P, P[:2])
    with pytest.raises(TimeError, match="expected consecutive dekads"):
        cdi(*(P.isel(time=[0, 2]),) * 3)
    with pytest.raises(TimeError, match="expected the one after 2020-01-21, found 2020-01-01"):
        cdi(P, P, P, start=cdi(P, P, P))
    later = P.assign_coords(time=times(6)[3:])
    with pytest.raises(VariableError, match="expected 1 cells, found 2"):
        cdi(later, later, later, start=cdi(*(xr.concat([P, P], "cell"),) * 3))


# --- dekads -----------------------------------------------------------------------------------------------------------
def test_a_month_has_three_dekads():
    days = pd.date_range("2020-02-01", "2020-03-01").values
    first, number = np.unique(dekads(days), return_counts=True)
    assert [str(day)[:10] for day in first] == ["2020-02-01", "2020-02-11", "2020-02-21", "2020-03-01"]
    assert number.tolist() == [10, 10, 9, 1]
    assert str(next_dekads(np.array(["2020-12-31"], "datetime64[D]"))[0])[:10] == "2021-01-01"
    assert np.unique(dekads(pd.date_range("2021-01-01", "2021-12-31").values)).size == 36


def test_means_of_dekads_need_their_days():
    """Against pandas, and an unfinished dekad has none."""
    days = pd.date_range("2020-02-01", "2020-03-05")
    values = np.random.default_rng(0).random((len(days), 2))
    values[:3, 1] = np.nan
    found = dekadal(xr.DataArray(values, {"time": days}, ("time", "cell"), "theta", {"units": "1"}))
    expected = pd.DataFrame(values).groupby(dekads(days.values)).mean().to_numpy()
    np.testing.assert_allclose(found[:3, 0], expected[:3, 0])
    np.testing.assert_allclose(found[1:3, 1], expected[1:3, 1])
    assert np.isnan(found[0, 1]) and np.isnan(found[3]).all() and found.name == "theta"


def test_each_input_is_the_newest_that_was_over():
    """A month's SPI is known at the end of its last dekad, not before; and its month is said."""
    months = pd.to_datetime(["2020-01-01", "2020-02-01"])
    spi = xr.DataArray([[1.0], [2.0]], {"time": months}, ("time", "cell"), "spi")
    found = latest(spi, times(13))
    np.testing.assert_array_equal(found[:, 0], [np.nan, np.nan, 1, 1, 1, 2, 2, 2, 2, np.nan, np.nan, np.nan, np.nan])
    assert [str(p)[:7] for p in found["period"].values[[2, 4, 5]]] == ["2020-01", "2020-01", "2020-02"]
    assert np.isnat(found["period"].values[0])
    daily = xr.DataArray(np.arange(31.0), {"time": pd.date_range("2020-01-01", periods=31)}, ("time",))
    assert latest(daily, times(3))[:, 0].values.tolist() == [9.0, 19.0, 30.0]
    late = xr.DataArray([[5.0], [6.0]], {"time": times(3)[1:]}, ("time", "cell"))
    np.testing.assert_array_equal(latest(late, times(4), oldest=5)[:, 0], [np.nan, 5, 6, np.nan])


def test_when_each_input_was_stays_with_the_result():
    months = xr.DataArray([[-1.5]], {"time": pd.to_datetime(["2020-01-01"])}, ("time", "cell"), "spi")
    spi, soil = latest(months, times(5)[2:]), anomaly([[True]] * 5)[2:]
    found = cdi(spi, spi, soil)
    assert found["cdi"].values[:, 0].tolist() == [W, WA, WA]
    assert (found["spi3_period"].values == np.datetime64("2020-01-01")).all() and "soil_period" not in found.coords
