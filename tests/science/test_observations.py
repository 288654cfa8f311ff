"""Observations: each gate by the defect it is for, errors by their textbook numbers, and a year of SMAP."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin.errors import RangeError, TimeError, UnitsError, VariableError
from twin.observations import (
    FEW,
    GATES,
    Observations,
    accept,
    background_check,
    hold_out,
    inflation,
    screen,
    sift,
    superobs,
    thin,
    total_error,
)

WINDOW = pd.date_range("2016-01-01", "2016-12-31")
MOISTURE, SIF = "surface_soil_moisture", "sif_radiance"
UNITS = {MOISTURE: "m3 m-3", SIF: "W m-2 sr-1 um-1"}


def dataset(value, error=0.03, times=WINDOW, variable=MOISTURE, units=None) -> xr.Dataset:
    """A product as the store has it; value (time, cell)."""
    value = np.asarray(value, np.float32)
    error = np.where(np.isfinite(value), np.float32(error), np.nan)
    attrs = {"units": UNITS[variable] if units is None else units}
    both = {variable: (("time", "cell"), value, attrs), f"{variable}_error": (("time", "cell"), error, attrs)}
    return xr.Dataset(both, {"time": times})


def series(
    cells: int = 3, every: int = 3, noise: float = 0.04, seed: int = 0, variable: str = MOISTURE
) -> Observations:
    """A clean year: a season and Gaussian noise, seen every third day."""
    rng = np.random.default_rng(seed)
    day, cell = (array.ravel() for array in np.meshgrid(np.arange(0, WINDOW.size, every), np.arange(cells)))
    value = 0.25 + 0.05 * np.sin(2 * np.pi * day / 366) + noise * np.clip(rng.standard_normal(day.size), -2, 2)
    return Observations(value, np.full(day.size, 0.04), cell, day, "smap", variable, WINDOW, 6.0)


def put(observations: Observations, where, value) -> Observations:
    changed = observations.value.copy()
    changed[where] = value
    return replace(observations, value=changed)


def ground(cells: int = 3, **values: float) -> xr.Dataset:
    """Weather and ground that spoil nothing, or what is given, on every day."""
    usual = {"air_temperature": 290.0, "surface_snow_amount": 0.0, "precipitation_flux": 0.0} | values
    shape = (WINDOW.size, cells)
    land = {name: (("time", "cell"), np.full(shape, number)) for name, number in usual.items()}
    return xr.Dataset(land, {"time": WINDOW})


def same(one: Observations, other: Observations) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("value", "error", "cell", "day"))


# --- the table ------------------------------------------------------------------------------------------------------
def test_retrievals_of_the_window_are_sorted_by_cell_and_day():
    times = pd.date_range("2015-12-31T06:00", periods=4)
    value = [[0.9, 0.9], [0.1, np.nan], [np.nan, 0.4], [0.3, 0.2]]
    found = Observations.from_dataset(dataset(value, times=times), WINDOW, "smap-l3-am", local_time=6.0)
    assert (len(found), found.sensor, found.variable, found.local_time) == (4, "smap-l3-am", MOISTURE, 6.0)
    assert found.cell.tolist() == [0, 0, 1, 1] and found.day.tolist() == [0, 2, 1, 2]
    np.testing.assert_allclose(found.value, [0.1, 0.3, 0.4, 0.2], rtol=1e-6)
    assert found.dates.equals(pd.DatetimeIndex(["2016-01-01", "2016-01-03", "2016-01-02", "2016-01-03"]))
    later = found.select(found.day > 0)
    assert len(later) == 3 and later.local_time == 6.0
    assert set(found.months) == {46 * 12}


def test_a_day_outside_the_window_is_not_there():
    late = dataset(np.full((2, 1), 0.2), times=pd.date_range("2017-01-01", periods=2))
    assert len(Observations.from_dataset(late, WINDOW, "smap")) == 0


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (dataset(np.full((366, 1), 0.2)).drop_vars(f"{MOISTURE}_error"), VariableError, f"'{MOISTURE}_error'"),
        (dataset(np.full((366, 1), 20.0), units="%"), UnitsError, r"expected m3 m-3, found '%' \(observations of smap"),
        (
            dataset(np.full((366, 1), 0.2), error=0.0),
            RangeError,
            r"expected positive .* found 0 at cell 0 on 2016-01-01",
        ),
        (dataset(np.full((366, 1), 0.2), error=np.nan), RangeError, r"found nan at cell 0"),
        (dataset(np.full((2, 1), 0.2), times=WINDOW[[0, 0]]), TimeError, "expected each time once, found 2016-01-01"),
        (dataset(np.full((366, 1), 0.2)).transpose(), VariableError, r"dims of .* expected \('time', 'cell'\)"),
    ],
)
def test_a_product_that_is_not_what_it_should_be_is_refused(data, error, text):
    with pytest.raises(error, match=text):
        Observations.from_dataset(data, WINDOW, "smap")


def test_a_variable_without_rules_and_a_window_with_gaps_are_refused():
    with pytest.raises(VariableError, match=f"expected {MOISTURE} or {SIF}, found 'air_temperature'"):
        Observations.from_dataset(dataset(np.full((366, 1), 0.2)), WINDOW, "smap", "air_temperature")
    with pytest.raises(TimeError, match="whole days without gaps, found 183 times"):
        Observations.from_dataset(dataset(np.full((366, 1), 0.2)), WINDOW[::2], "smap")


def test_two_of_a_cell_and_day_are_an_error():
    with pytest.raises(RangeError, match="expected one a cell and day, found 2 or more, first in cell 4, day 7"):
        Observations(np.full(3, 0.2), np.full(3, 0.04), [4, 4, 4], [7, 8, 7], "smap", MOISTURE, WINDOW)


@pytest.mark.parametrize(("value", "error"), [(np.nan, 0.04), (0.2, 0.0), (0.2, np.inf)])
def test_what_is_no_observation_is_an_error(value, error):
    with pytest.raises(RangeError, match=r"expected finite values with positive errors, found .* in cell 5, day 1"):
        Observations([0.2, value], [0.04, error], [0, 5], [0, 1], "smap", MOISTURE, WINDOW)


def test_days_must_be_those_of_the_window():
    with pytest.raises(TimeError, match=r"expected days 0..365 of the window, found 0..366"):
        Observations([0.2, 0.2], [0.04, 0.04], [0, 0], [0, 366], "smap", MOISTURE, WINDOW)


def test_no_observations_go_through_everything():
    none = Observations([], [], [], [], "smap", MOISTURE, WINDOW)
    kept, said = screen(none, ground())
    assert len(kept) == 0 and said.outcome == "nothing_given" and said.share == 1
    assert set(said.rejected) == set(GATES) - {"water", "vegetation"} and not any(said.rejected.values())
    assert background_check(none.value, 0.1, none.error, none.cell).shape == (0,)
    assert inflation(none.value, none.cell, none.day) == 1
    assert len(thin(none, 3)) == 0 and hold_out(none, 0.5, 1).shape == (0,)
    accept(said)


# --- errors ---------------------------------------------------------------------------------------------------------
def test_the_error_of_soil_moisture_is_never_below_what_represents_a_cell():
    for stated, expected in ((0.01, 0.04), (0.03, 0.04), (0.07, 0.07)):
        found = Observations.from_dataset(dataset(np.full((366, 1), 0.2), stated), WINDOW, "smap")
        np.testing.assert_allclose(found.error, expected, rtol=1e-6)


def test_the_error_of_fluorescence_is_a_quarter_of_it_and_does_not_follow_the_noise_down():
    value, cell = np.array([-0.4, 0.8, 1.2, 2.0, 0.0, 0.1, -0.1]), np.array([0, 0, 0, 0, 1, 1, 1])
    found = total_error(SIF, value, np.full(7, 0.3), cell)
    median = 1.0  # of the first cell; nothing grows in the second
    expected = np.hypot(0.3, 0.25 * np.array([median, median, 1.2, 2.0, 0.0, 0.1, 0.1]))
    np.testing.assert_allclose(found, expected)
    assert total_error(SIF, np.array([0.0]), np.array([0.02]), np.array([0])) == pytest.approx(0.1)


def test_several_of_a_day_become_their_inverse_variance_mean():
    """The best linear estimate from independent values of one quantity: weights 1/s², variance 1/Σ s⁻²."""
    times = pd.DatetimeIndex(["2016-01-01T06:00", "2016-01-01T18:00", "2016-01-02T06:00"])
    data = dataset([[0.1], [0.4], [0.3]], times=times)
    data[f"{MOISTURE}_error"][:, 0] = [0.1, 0.2, 0.3]
    found = Observations.from_dataset(data, WINDOW, "smap")
    np.testing.assert_allclose(found.value, [0.16, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found.error, [0.2 / np.sqrt(5), 0.3], rtol=1e-6)


def test_super_observations_have_the_same_bits_in_any_order():
    rng = np.random.default_rng(3)
    table = rng.normal(0.2, 0.1, 500), rng.uniform(0.02, 0.1, 500), rng.integers(0, 5, 500), rng.integers(0, 9, 500)
    shuffled = rng.permutation(500)
    one, other = superobs(*table), superobs(*(array[shuffled] for array in table))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].size == 45 and (np.diff(one[2]) >= 0).all()


# --- gates ----------------------------------------------------------------------------------------------------------
def only(reason: str, screening) -> int:
    """How many the gate took, when none of the others took any."""
    assert screening.given - screening.kept == screening.rejected[reason] == sum(screening.rejected.values())
    return screening.rejected[reason]


def test_a_clean_year_passes_every_gate():
    clean = series()
    kept, said = screen(clean, ground())
    assert same(kept, clean) and said.outcome == "kept" and said.share == 1 and said.worst == ()
    assert list(said.rejected) == ["frozen", "snow", "range", "stuck", "spike", "few"]


def test_impossible_values_are_out_of_range():
    kept, said = screen(put(series(), [5, 100, 200, 210], [0.02, 0.6, 0.71, 0.0]), ground())
    assert only("range", said) == 4 and len(kept) == said.kept == said.given - 4
    assert ((kept.value > 0.02) & (kept.value < 0.6)).all()


def test_frozen_ground_is_told_by_the_soil_where_there_is_one_and_by_the_air_else():
    land = ground()
    land["air_temperature"][100:130, 1] = 275.0
    observations = series()
    frosty = (observations.cell == 1) & (observations.day >= 100) & (observations.day < 130)
    kept, said = screen(observations, land)
    assert only("frozen", said) == 10 and same(kept, observations.select(~frosty))
    soil = np.full((WINDOW.size, 4, 3), 274.0)  # frozen below the top layer, and for a day in it
    soil[:, 0] = 280.0
    soil[99, 0, 2] = 275.0
    land["soil_temperature"] = ("time", "layer", "cell"), soil
    kept, said = screen(observations, land)
    assert only("frozen", said) == 1 and not ((kept.cell == 2) & (kept.day == 99)).any()


def test_snow_hides_the_ground():
    land = ground()
    land["surface_snow_amount"][30:60, 2] = 0.2
    land["surface_snow_amount"][60:90, 2] = 0.1
    assert only("snow", screen(series(), land)[1]) == 10


def test_a_gate_that_could_not_be_asked_is_not_counted():
    assert list(screen(series())[1].rejected) == ["range", "stuck", "spike", "few"]
    with pytest.raises(
        TimeError, match=r"'air_temperature' .* expected every day of the window, found none on 2016-01-0"
    ):
        screen(series(), ground().isel(time=slice(3, None)))
    with pytest.raises(VariableError, match=r"'air_temperature' .* expected cells 0..1, found cell 2"):
        screen(series(), ground(2))


def test_frost_and_noise_about_nought_are_no_defect_of_fluorescence():
    sif = replace(series(noise=0.5, variable=SIF), error=np.full(366, 0.5))
    assert (sif.value < 0).any()
    kept, said = screen(sif, ground(air_temperature=250.0, surface_snow_amount=50.0))
    assert same(kept, sif) and list(said.rejected) == ["range", "stuck", "spike", "few"]


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_stuck_cell_goes_whole(share):
    observations = series()
    stuck = np.flatnonzero(observations.cell == 1)
    held = put(observations, stuck[: int(share * stuck.size)], 0.4905)
    kept, said = screen(held, ground())
    assert only("stuck", said) == stuck.size and set(kept.cell) == {0, 2}
    for value in (0.4905, np.median(observations.value[stuck])):
        assert only("stuck", screen(put(observations, stuck[: int(0.4 * stuck.size)], value), ground())[1]) == 0


@pytest.mark.parametrize("size", [0.3, -0.21])
def test_a_spike_stands_out_from_both_sides(size):
    smooth = series(noise=0.01)
    kept, said = screen(put(smooth, 150, smooth.value[150] + size), ground())
    assert only("spike", said) == 1 and same(kept, smooth.select(np.arange(len(smooth)) != 150))
    ((cell, date, value, reason),) = said.worst
    assert (cell, date, reason) == (1, "2016-03-25", "spike") and value == pytest.approx(smooth.value[150] + size)


def test_what_stands_out_is_told_by_the_cells_own_noise():
    quiet = replace(series(noise=0.01), error=np.full(366, 0.01))
    loud = replace(series(noise=0.06), error=np.full(366, 0.01))
    for observations, spikes in ((quiet, 1), (loud, 0)):
        value = observations.value[147:154].mean() + 0.15
        assert only("spike", screen(put(observations, 150, value), ground())[1]) == spikes


def test_a_step_is_no_spike_and_rain_explains_a_rise():
    smooth = series(noise=0.01)
    wetter = put(smooth, slice(150, 170), smooth.value[150:170] + 0.25)
    assert only("spike", screen(wetter, ground())[1]) == 0
    one = put(smooth, 150, smooth.value[150] + 0.3)
    for back, spikes in ((0, 0), (2, 0), (3, 1)):
        land = ground()
        land["precipitation_flux"][smooth.day[150] - back, smooth.cell[150]] = 5 / 86400
        assert only("spike", screen(one, land)[1]) == spikes
    land = ground(precipitation_flux=5 / 86400)  # rain explains no fall
    assert only("spike", screen(put(smooth, 150, smooth.value[150] - 0.21), land)[1]) == 1


def test_a_cell_with_too_few_is_left_out():
    observations = series()
    few = observations.select((observations.cell != 1) | (observations.day < 3 * (FEW - 1)))
    kept, said = screen(few, ground())
    assert only("few", said) == FEW - 1 and set(kept.cell) == {0, 2}
    enough = observations.select((observations.cell != 1) | (observations.day < 3 * FEW))
    assert only("few", screen(enough, ground())[1]) == 0


def test_the_first_reason_counts_and_the_counts_add_up():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        observations = series(cells=12, seed=seed)
        observations = put(observations, rng.random(len(observations)) < 0.05, rng.uniform(0, 0.7))
        observations = put(observations, observations.cell == rng.integers(12), 0.31)
        observations = observations.select((observations.cell % 5 > 0) | (rng.random(len(observations)) < 0.04))
        land = ground(12)
        land["air_temperature"][:] = rng.normal(285.0, 6.0, (WINDOW.size, 12))
        land["surface_snow_amount"][:] = rng.exponential(0.03, (WINDOW.size, 12))
        kept, said = screen(observations, land)
        assert said.given == len(observations) and len(kept) == said.kept
        assert said.kept + sum(said.rejected.values()) == said.given and len(said.worst) == min(
            100, said.given - said.kept
        )
        mixed = rng.permutation(len(observations))
        again, said_again = screen(observations.select(mixed), land)
        assert same(kept, again) and said == said_again


def test_one_observation_has_one_reason_and_the_worst_come_first():
    observations = put(series(noise=0.01), [10, 20, 30], [0.05, 0.5, 0.4])
    first, second = np.zeros((2, len(observations)), bool)
    first[[10, 20]], second[[20, 30]] = True, True
    kept, said = sift(observations, {"first": first, "second": second})
    assert said.rejected == {"first": 2, "second": 1} and len(kept) == len(observations) - 3
    assert [(round(value, 2), reason) for _, _, value, reason in said.worst] == [
        (0.5, "first"),
        (0.05, "first"),
        (0.4, "second"),
    ]


def test_a_product_of_which_nothing_is_left_says_so_and_is_no_error():
    kept, said = screen(series(), ground(air_temperature=260.0))
    assert len(kept) == 0 and said.outcome == "nothing_left" and said.sensor == "smap"
    accept(said)
    told = json.loads(json.dumps(said.as_json()))
    assert (told["outcome"], told["kept"], told["rejected"]["frozen"]) == ("nothing_left", 0, 366)
    assert len(told["worst"]) == 100 and told["worst"][0]["reason"] == "frozen"


# --- against the model ----------------------------------------------------------------------------------------------
def innovations(cells: int = 200, n: int = 100, outliers: float = 0.0, seed: int = 0):
    """(d, cell, outlier in standard deviations or 0): offsets of 0.06 by cell, noise 0.05, some gross outliers."""
    rng = np.random.default_rng(seed)
    cell = np.repeat(np.arange(cells), n)
    gross = np.where(
        rng.random(cell.size) < outliers, rng.choice([-1, 1], cell.size) * rng.uniform(5, 10, cell.size), 0
    )
    noise = np.where(gross, gross, rng.standard_normal(cell.size))
    return rng.normal(0.0, 0.06, cells)[cell] + 0.05 * noise, cell, gross


def test_clean_innovations_lose_less_than_one_in_a_thousand():
    """Beyond four standard deviations lie 6e-5 of a Gaussian; the median of a cell adds a little."""
    d, cell, _ = innovations()
    assert 1 - background_check(d, 0.03, np.full(d.size, 0.04), cell).mean() < 1e-3


def test_gross_outliers_are_caught_and_good_values_are_not():
    d, cell, gross = innovations(outliers=0.02)
    kept = background_check(d, 0.03, np.full(d.size, 0.04), cell)
    assert (~kept[np.abs(gross) > 6]).mean() > 0.99
    assert (~kept[gross == 0]).mean() < 1e-3


def test_the_offset_of_a_cell_does_not_count():
    d, cell, _ = innovations(outliers=0.02)
    shifted = d + np.linspace(-0.5, 0.5, 200)[cell]
    error = np.full(d.size, 0.04)
    assert np.array_equal(background_check(d, 0.03, error, cell), background_check(shifted, 0.03, error, cell))


def test_a_cell_with_few_is_held_against_all():
    d, cell = np.r_[np.zeros(50), np.full(FEW - 1, 0.5), np.full(FEW, 0.5)], np.repeat([0, 1, 2], [50, FEW - 1, FEW])
    kept = background_check(d, 0.03, np.full(d.size, 0.04), cell)
    assert kept[cell == 0].all() and not kept[cell == 1].any() and kept[cell == 2].all()


def test_too_many_rejected_is_an_outcome_that_accept_refuses():
    observations = series()
    bad = np.arange(len(observations)) < 18  # 4.9 %
    kept, said = sift(observations, {"background": bad}, limit=0.05)
    assert said.outcome == "kept" and len(kept) == len(observations) - 18
    accept(said)
    bad[:20] = True  # 5.5 %
    said = sift(observations, {"background": bad}, limit=0.05)[1]
    assert said.outcome == "too_many_rejected"
    with pytest.raises(RangeError) as caught:
        accept(said)
    text = "observations of smap: expected at most 5 % rejected, found 5.5 % (20 of 366: background)"
    assert str(caught.value) == text
    said = sift(observations, {"background": np.ones(366, bool)}, limit=0.05)[1]
    assert said.outcome == "too_many_rejected"


# --- errors in time -------------------------------------------------------------------------------------------------
def red_noise(phi: float, days: int, cells: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AR(1) series of unit variance: (value, cell, day)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((days, cells))
    for k in range(1, days):
        noise[k] = phi * noise[k - 1] + np.sqrt(1 - phi**2) * noise[k]
    return noise.T.ravel(), np.repeat(np.arange(cells), days), np.tile(np.arange(days), cells)


@pytest.mark.parametrize("phi", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("every", [1, 3])
def test_inflation_is_that_of_an_autoregressive_process(phi, every):
    """The variance of a mean of AR(1) values is (1 + φ)/(1 − φ) times that of independent ones."""
    d, cell, day = red_noise(phi, 366, 100)
    seen = day % every == 0
    expected = (1 + phi**every) / (1 - phi**every)
    assert inflation(d[seen], cell[seen], day[seen]) == pytest.approx(expected, rel=0.2)


def test_inflation_counts_only_the_pairs_there_are():
    """Seen by chance on 4 days in 10, a value has 4 in 10 of its neighbours: 1 + 0.4 · 2φ/(1 − φ)."""
    d, cell, day = red_noise(0.7, 366, 100)
    seen = np.random.default_rng(5).random(d.size) < 0.4
    assert inflation(d[seen], cell[seen], day[seen]) == pytest.approx(1 + 0.4 * 2 * 0.7 / 0.3, rel=0.2)
    for phi in (0.7, 0.95):  # every sixteenth day: most lags have no pair at all
        d, cell, day = red_noise(phi, 1600, 50)
        sparse = day % 16 == 0
        expected = (1 + phi**16) / (1 - phi**16)
        assert inflation(d[sparse], cell[sparse], day[sparse]) == pytest.approx(expected, rel=0.2)


def test_inflation_of_white_noise_is_one_and_knows_bounds():
    d, cell, day = red_noise(0.0, 366, 100)
    assert inflation(d, cell, day) == pytest.approx(1.0, abs=0.05)
    assert inflation(np.cumsum(d.reshape(100, -1), axis=1).ravel(), cell, day) == 20.0
    assert inflation(np.full(10, 0.3), np.zeros(10, int), np.arange(10)) == 1.0
    assert inflation(np.array([0.3]), np.array([0]), np.array([4])) == 1.0


def test_inflation_depends_on_no_offset_scale_or_order():
    d, cell, day = red_noise(0.7, 200, 20)
    mixed = np.random.default_rng(1).permutation(d.size)
    alpha = inflation(d, cell, day)
    assert inflation(d[mixed], cell[mixed], day[mixed]) == alpha
    assert inflation(0.05 * d + cell, cell, day) == pytest.approx(alpha, rel=1e-9)


# --- choosing -------------------------------------------------------------------------------------------------------
def test_whole_months_of_a_cell_are_held_out_and_nothing_but_the_hash_decides():
    observations = series(cells=400)
    out = hold_out(observations, 0.2, seed=1)
    assert out.mean() == pytest.approx(0.2, abs=0.02)  # 4800 draws: a standard deviation of 0.006
    key = observations.cell * 12 + observations.months - observations.months.min()
    shares = np.bincount(key, out) / np.bincount(key)
    assert set(shares) == {0.0, 1.0}
    assert np.corrcoef(shares.reshape(400, 12)[:, :-1].ravel(), shares.reshape(400, 12)[:, 1:].ravel())[0, 1] < 0.05
    some = np.random.default_rng(2).permutation(len(observations))[:5000]
    part = observations.select(some)
    assert np.array_equal(hold_out(part, 0.2, seed=1), out[np.sort(some)])
    longer = replace(part, window=pd.date_range("2015-01-01", "2016-12-31"), day=part.day + 365, sensor="other")
    assert np.array_equal(hold_out(longer, 0.2, seed=1), out[np.sort(some)])
    assert not np.array_equal(hold_out(observations, 0.2, seed=2), out)


def test_all_or_none_can_be_held_out():
    assert not hold_out(series(), 0.0, 1).any() and hold_out(series(), 1.0, 1).all()
    with pytest.raises(RangeError, match=r"fraction to hold out: expected 0..1, found 1.5"):
        hold_out(series(), 1.5, 1)


def test_thinned_observations_keep_their_distance():
    observations = Observations(np.full(7, 0.2), np.full(7, 0.04), [0, 0, 0, 0, 0, 1, 1], [0, 2, 3, 4, 9, 1, 2], "smap",
                                MOISTURE, WINDOW)  # fmt: skip
    thinned = thin(observations, 3)
    assert thinned.cell.tolist() == [0, 0, 0, 1] and thinned.day.tolist() == [0, 3, 9, 1]
    assert same(thin(observations, 1), observations)


# --- a year of SMAP -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def smap(real_data) -> tuple[Observations, xr.Dataset]:
    """One year of retrievals over the contiguous United States, and the weather of it."""
    window = pd.date_range("2015-04-01", "2016-03-31")
    assets = real_data / "conus" / "assets"
    opened = [xr.open_dataset(path) for path in sorted((assets / "smap").glob("*.nc"))[:366]]
    moisture = xr.concat(opened, "time")["soil_moisture"]
    times = pd.DatetimeIndex(moisture["time"].values)
    months = [assets / "nldas" / f"nldas2_fora_{month}.nc" for month in pd.period_range("2015-04", "2016-03", freq="M")]
    weather = xr.concat([xr.open_dataset(path)[["TMP_2_FORA", "APCP_FORA"]] for path in months], "time")
    land = {"air_temperature": weather["TMP_2_FORA"], "precipitation_flux": weather["APCP_FORA"] / 3600}
    data = dataset(moisture.values, 0.04, times)
    return Observations.from_dataset(data, window, "smap-l3-am", local_time=6.0), xr.Dataset(land)


@pytest.mark.real_data
def test_of_real_retrievals_the_stuck_cells_and_few_others_go(smap):
    observations, land = smap
    assert len(observations) > 45000
    kept, said = screen(observations, land)
    gone = set(observations.cell) - set(kept.cell)
    assert 289 in gone  # 0.4905 whenever it was seen
    assert len(gone) < 0.04 * 308
    assert said.rejected["range"] < 0.005 * said.given and said.rejected["spike"] < 0.001 * said.given
    assert said.rejected["frozen"] < 0.05 * said.given and said.rejected["few"] == 0
    modes = [np.unique(observations.value[observations.cell == cell], return_counts=True)[1] for cell in gone]
    assert all(counts.max() > 0.45 * counts.sum() for counts in modes)


@pytest.mark.real_data
def test_real_retrievals_pass_the_check_against_their_cells(smap):
    """Against the median of the cell, with a spread of 0.03 m3 m-3: seasons and rain are believed, gross errors not."""
    kept, _ = screen(*smap)
    believable = background_check(kept.value, 0.03, kept.error, kept.cell)
    accept(sift(kept, {"background": ~believable}, limit=0.02)[1])


@pytest.mark.real_data
def test_real_retrievals_are_correlated_in_time(smap):
    kept, _ = screen(*smap)
    assert 4 < inflation(kept.value, kept.cell, kept.day) < 20
