"""The emulator against the model it stands for, XGBoost's own answers, and what every land model promises."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import forcing as weather
from twin.emulator import features, physics, scoring
from twin.emulator.features import CORRECTION, MEMORY, NAMES
from twin.emulator.fitting import Options, regimes_of
from twin.emulator.model import MANIFEST, Emulator
from twin.emulator.outputs import OUTPUTS, SOIL_MOISTURE, target
from twin.emulator.training import HOT, ROLES, roles, sample
from twin.errors import ChecksumError, RangeError, Rejected, SettingsError, UnitsError, VariableError
from twin.inputs import THETA
from twin.land import LandDaily
from twin.land.model import CARBON_DIOXIDE

case = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "emulator_case.py")))
RAIN = "precipitation_flux"


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return case.emulator()


@pytest.fixture(scope="module")
def given():
    return case.test_run()


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    xr.testing.assert_identical(left.drop_attrs(), right.drop_attrs())


# --- a land model ---------------------------------------------------------------------------------------------------
def test_two_halves_are_the_whole(emulator, given):
    start = emulator.start(given.state, given.forcing)
    end, whole = emulator.run(start, given.forcing, given.parameters)
    middle, first = emulator.run(start, given.forcing.isel(time=slice(0, 301)), given.parameters)
    last, second = emulator.run(middle, given.forcing.isel(time=slice(301, None)), given.parameters)
    same(end, last)
    same(whole, xr.concat([first, second], "time"))


def test_cells_do_not_know_of_each_other_nor_threads_of_cells(emulator, given):
    _, whole = emulator.run(given.state, given.forcing, given.parameters)
    some = {"cell": [7, 2, 5]}
    pieces = (ds.isel(some) for ds in (given.state, given.forcing, given.parameters))
    _, part = replace(emulator, threads=1).run(*pieces)
    same(part, whole.isel(some))


def test_nothing_given_is_changed(emulator, given):
    before = [ds.copy(deep=True) for ds in (given.state, given.forcing, given.parameters)]
    emulator.run(given.state, given.forcing, given.parameters)
    for ds, copy in zip((given.state, given.forcing, given.parameters), before, strict=True):
        xr.testing.assert_identical(ds, copy)


def test_a_known_place_gives_the_same_bits(emulator, given):
    place = emulator.at(given.parameters)
    for known, new in zip(
        emulator.run(given.state, given.forcing, place),
        emulator.run(given.state, given.forcing, given.parameters),
        strict=True,
    ):
        same(known, new)


def test_a_wetter_start_reaches_the_physics(emulator, given):
    """An increment to the soil moisture of a returned state is not undone by the correction beside it."""
    month = given.forcing.isel(time=slice(0, 30))
    end, _ = emulator.run(given.state, month, given.parameters)
    wetter = end.assign({THETA: (end[THETA] * 1.1).assign_attrs(end[THETA].attrs)})
    after = given.forcing.isel(time=slice(30, 60))
    _, dry = emulator.run(end, after, given.parameters)
    _, wet = emulator.run(wetter, after, given.parameters)
    assert (wet[THETA].isel(layer=3) > dry[THETA].isel(layer=3)).mean() > 0.95


def test_every_output_is_there_in_its_unit_and_possible(emulator, given):
    _, told = emulator.run(given.state, given.forcing, given.parameters)
    for name in OUTPUTS:
        assert np.isfinite(target(name, told, given.parameters)).all(), name
    theta = told[THETA].values
    assert (theta >= 0.0).all() and (theta <= given.parameters["theta_s"].values + 1e-6).all()
    assert told["soil_temperature"].min() > 250.0 and told["soil_temperature"].max() < 330.0


# --- how good it is -------------------------------------------------------------------------------------------------
def test_it_is_nearer_to_the_model_than_the_daily_physics(emulator, given):
    """At places it has not seen, running freely; a small emulator, so only its order of size is asked for."""
    _, told = emulator.run(given.state, given.forcing, given.parameters)
    plain = physics.Transfer().parameters(given.parameters)
    share = given.parameters["tile_fraction"]
    start = given.state[[THETA]].assign(
        {n: (given.state[n] * share).sum("tile").assign_attrs(given.state[n].attrs) for n in physics_names()}
    )
    _, daily = LandDaily().run(start, given.forcing, plain)
    span = physics.span(given.parameters)
    truth = given.truth[THETA].values[365:]
    ours, theirs = (
        100.0 * np.sqrt((((run[THETA].values[365:] - truth) / span) ** 2).mean(axis=(0, 2))) for run in (told, daily)
    )
    assert (ours < 0.6 * theirs).all()
    assert (ours < [4.5, 2.5, 2.5, 2.0]).all()


def physics_names() -> tuple[str, str]:
    return "canopy_water_amount", "surface_snow_amount"


def test_fitted_physics_halves_its_error_at_other_places(given):
    runs = [run for run in case.training().of("train") if run.climate == "unchanged"]
    fitted = physics.fit([run.case for run in runs], skip=90)
    error = {}
    for name, transfer in (("plain", physics.Transfer()), ("fitted", fitted)):
        place = features.Place.of(given.parameters, transfer)
        theta = features.prepared(place, given.state, given.forcing).run[0]
        apart = ((theta - given.truth[THETA].values) / physics.span(given.parameters))[365:, 1:]
        error[name] = np.sqrt((apart**2).mean())
    assert error["fitted"] < 0.5 * error["plain"]


def test_scores_are_of_what_was_not_learnt(emulator):
    scores = scoring.evaluate(emulator, case.training().of("test"))
    assert set(scores.table["climate"]) == {"unchanged", HOT.label}
    assert set(scores.table["output"]) == set(OUTPUTS)
    certificate = scores.certificate
    assert certificate.golden and certificate.monotone > 0.9
    assert certificate.dry_days.size == 2 * case.PLACES["test"]
    json.dumps(scores.to_dict())


def test_scores_of_a_perfect_emulator_are_nought(emulator):
    """The emulator as its own truth: no error in any figure."""
    runs = []
    for run in case.training().of("test"):
        _, told = emulator.run(run.state, run.forcing, run.parameters)
        runs.append(replace(run, truth=told))
    scores = scoring.evaluate(emulator, runs)
    assert scores.table["rmse"].max() < 1e-5 and scores.metrics["dry_days_mae"].max() == 0.0
    assert scores.certificate.coverage == 1.0
    assert not scores.certificate.drift, "a slope within one year would be of the season"


def test_a_slow_error_is_a_slope(emulator):
    """Over three years, against a truth that dries by a thousandth a year at every place."""
    runs = []
    for run in case.training().of("test"):
        longer = {"time": pd.date_range(run.forcing["time"].values[0], periods=3 * 730)}
        repeated = run.forcing.isel(time=np.tile(np.arange(730), 3)).assign_coords(longer)
        _, told = emulator.run(run.state, repeated, run.parameters)
        years = xr.DataArray(np.arange(3 * 730) / 365.0, longer, ("time",))
        drying = (told[THETA] - 0.001 * years).astype(np.float32).assign_attrs(told[THETA].attrs)
        runs.append(replace(run, forcing=repeated, truth=told.assign({THETA: drying.transpose(*told[THETA].dims)})))
    slopes = scoring.evaluate(emulator, runs).certificate.drift
    assert list(slopes) == list(SOIL_MOISTURE)
    assert all(slope == pytest.approx(0.001, rel=0.01) for slope in slopes.values())


def test_anomaly_correlation_knows_a_climatology_from_an_anomaly():
    """A pure yearly cycle has no anomaly to get right; one added to truth and forecast alike is got right."""
    times = np.arange(np.datetime64("2001-01-01"), np.datetime64("2006-01-01"))
    cycle = np.sin(2.0 * np.pi * np.arange(times.size) / 365.25)[:, None]
    rng = np.random.default_rng(0)
    anomaly = rng.standard_normal((times.size, 1))
    right = scoring.anomaly_sums(cycle + anomaly, cycle + anomaly, times)
    assert right[0] / np.sqrt(right[1] * right[2]) == pytest.approx(1.0)
    blind = scoring.anomaly_sums(cycle + rng.standard_normal((times.size, 1)), cycle + anomaly, times)
    assert abs(blind[0] / np.sqrt(blind[1] * blind[2])) < 0.1


# --- against XGBoost ------------------------------------------------------------------------------------------------
def test_predictions_are_xgboosts_own(emulator, given):
    rows = emulator.features(given.state, given.forcing, given.parameters)
    ours = emulator.kernel.predict(rows)
    for k, name in enumerate(emulator.outputs):
        np.testing.assert_array_equal(ours[:, k], emulator.booster(name).inplace_predict(np.ascontiguousarray(rows)))


def test_a_run_is_the_predictions_of_its_rows(emulator, given):
    rows = emulator.features(given.state, given.forcing, given.parameters)
    _, told = emulator.run(given.state, given.forcing, given.parameters)
    days, cells = given.forcing.sizes["time"], given.forcing.sizes["cell"]
    predicted = emulator.predict(rows).T.reshape(len(emulator.outputs), days, cells)
    pores = given.parameters["theta_s"].transpose("layer", "cell", missing_dims="ignore").values
    for k, name in enumerate(SOIL_MOISTURE):
        limit = np.broadcast_to(pores, (4, cells))[k].astype(np.float32)
        np.testing.assert_array_equal(told[THETA].values[:, k], np.clip(predicted[k], 0.0, limit), err_msg=name)


def test_the_same_runs_give_the_same_bytes():
    again = Emulator.fit(case.training(), case.SMALL)
    assert again.version == case.emulator().version and again.files() == case.emulator().files()


# --- features -------------------------------------------------------------------------------------------------------
def test_memories_are_fading_means(given, emulator):
    """Against the same recursion in NumPy, and against their limit: the mean of unchanging weather."""
    rows = emulator.features(given.state, given.forcing, given.parameters)
    days, cells = given.forcing.sizes["time"], given.forcing.sizes["cell"]
    rain = given.forcing[RAIN].values.astype(np.float64) * 86400.0
    for days_back in (5.0, 365.0):
        kept, memory, found = np.exp(-1.0 / days_back), rain[:365].mean(axis=0), []
        for day in rain:
            memory = kept * memory + (1.0 - kept) * day
            found.append(memory)
        column = rows[:, NAMES.index(f"precipitation_{days_back:g}d")].reshape(days, cells)
        np.testing.assert_allclose(column, found, rtol=2e-6, atol=1e-6)


def test_todays_demand_is_fao_56(given, emulator):
    """The compiled column against `twin.forcing`'s formula of the same equation, but for dew, which is not counted."""
    rows = emulator.features(given.state, given.forcing, given.parameters)
    names = ("air_temperature", "specific_humidity", "wind_speed", "surface_air_pressure")
    radiation = ("surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air")
    air, humidity, wind, pressure, light, thermal = (
        given.forcing[name].values.astype(np.float64).ravel() for name in (*names, *radiation)
    )
    net = (1.0 - 0.23) * light + 0.98 * (thermal - 5.670374e-8 * air**4)
    deficit = np.maximum(weather.vapour_pressure_deficit(air, humidity, pressure), 0.0)
    calm = np.maximum(weather.wind_at_2m(wind), 0.5)
    expected = 86400.0 * weather.reference_evapotranspiration(net, air, calm, deficit, pressure)
    column = rows[:, NAMES.index("reference_evapotranspiration")]
    np.testing.assert_allclose(column, np.maximum(expected, 0.0), rtol=0.01, atol=0.02)


def test_more_carbon_dioxide_leaves_more_water(emulator, given):
    """Leaves that need less open pores lose less water; the daily physics says so before any tree does."""
    rich = given.forcing.assign({CARBON_DIOXIDE: ("time", np.full(given.forcing.sizes["time"], 800e-6))})
    rows = [emulator.features(given.state, forcing, given.parameters) for forcing in (given.forcing, rich)]
    column = NAMES.index("physics_theta_3")
    assert emulator.card["transfer"]["surface_resistance per carbon dioxide"] > 0.0
    assert rows[1][:, column].mean() > rows[0][:, column].mean()


def test_carbon_dioxide_that_changes_by_the_year_can_be_cut_anywhere(emulator, given):
    levels = np.where(np.arange(given.forcing.sizes["time"]) < 365, 400e-6, 450e-6)
    rising = given.forcing.assign({CARBON_DIOXIDE: ("time", levels)})
    start = emulator.start(given.state, given.forcing)
    _, whole = emulator.run(start, rising, given.parameters)
    middle, first = emulator.run(start, rising.isel(time=slice(0, 200)), given.parameters)
    _, second = emulator.run(middle, rising.isel(time=slice(200, None)), given.parameters)
    same(whole, xr.concat([first, second], "time"))


# --- where it learns ------------------------------------------------------------------------------------------------
def test_no_block_has_two_roles():
    lat, lon = (values.ravel() for values in np.meshgrid(np.arange(-34.5, 37.0, 1.0), np.arange(-17.5, 51.0, 1.0)))
    found = roles(lat, lon, np.random.default_rng(0))
    blocks: dict[tuple[int, int], set[str]] = {}
    for y, x, role in zip(np.floor(lat / 5), np.floor(lon / 5), found, strict=True):
        blocks.setdefault((int(y), int(x)), set()).add(role)
    assert all(len(one) == 1 for one in blocks.values())
    shares = [np.mean(found == role) for role in ROLES]
    assert shares[0] > 0.6 and min(shares) > 0.1


def test_a_small_region_has_all_roles_and_one_place_none():
    lat, lon = (values.ravel() for values in np.meshgrid(np.arange(50.0, 53.0, 0.5), np.arange(0.0, 3.0, 0.5)))
    assert set(roles(lat, lon, np.random.default_rng(0))) == set(ROLES)
    with pytest.raises(RangeError, match="places to train"):
        roles(lat[:1], lon[:1], np.random.default_rng(0))


def test_a_sample_covers_what_places_there_are():
    """Of a thousand like places and twenty odd ones, a sample of fifty has odd ones, which chance would miss."""
    parameters = case.ensemble().parameters.isel(cell=np.zeros(1020, int))
    rng = np.random.default_rng(2)
    climate = xr.Dataset(
        {
            "precipitation": ("cell", 2.0 + 0.1 * rng.random(1020)),
            "reference_evapotranspiration": ("cell", np.full(1020, 4.0)),
            "air_temperature": ("cell", 295.0 + rng.random(1020)),
        }
    )
    climate["precipitation"][1000:] = 0.1
    climate["air_temperature"][1000:] = np.linspace(270.0, 315.0, 20)
    chosen = sample(parameters, climate, 50, rng)
    assert chosen.size == 50 and np.unique(chosen).size == 50 and (chosen >= 1000).sum() >= 4


def test_members_of_training_are_drawn_and_tests_are_not():
    members = case.ensemble().members(np.random.default_rng(7))
    drawn = [m for m in members if m.z is not None]
    assert drawn and {m.role for m in drawn} == {"train"}
    assert {m.delta for m in members if m.role == "test"} == {type(HOT)(), HOT}
    assert HOT not in {m.delta for m in members if m.role != "test"}
    assert len({m.key for m in members}) == len(members)


# --- intervals and the safe variant ---------------------------------------------------------------------------------
def test_intervals_know_their_regimes(emulator, given):
    rows = emulator.features(given.state, given.forcing, given.parameters)
    width = emulator.intervals.half_width(regimes_of(rows))
    assert width.shape == (len(rows), len(emulator.outputs)) and (width[:, : len(SOIL_MOISTURE)] > 0.0).all()
    wet = rows[:, NAMES.index("precipitation_365d")] > 3.0
    assert width[wet, 0].mean() != width[~wet, 0].mean()


def test_the_safe_variant_never_dries_with_more_rain(emulator, given):
    """More of any rain, and of the physics' water, in every row that was ever seen: none of the answers falls."""
    safe = emulator.safe
    rows = emulator.features(given.state, given.forcing, given.parameters)
    rng = np.random.default_rng(3)
    some = rows[rng.choice(len(rows), 500, replace=False)]
    before = safe.predict(some)
    for feature in features.FEATURES:
        if feature.group == "rain" or feature.name.startswith("physics_theta"):
            wetter = some.copy()
            wetter[:, NAMES.index(feature.name)] *= 1.3
            assert (safe.predict(wetter) >= before).all(), feature.name
    for name in ("reference_evapotranspiration", "sunlight"):
        hotter = some.copy()
        hotter[:, NAMES.index(name)] *= 1.3
        assert (safe.predict(hotter) <= before).all(), name


# --- files ----------------------------------------------------------------------------------------------------------
def test_files_come_back_as_they_were(emulator, given, tmp_path):
    emulator.save(tmp_path / "model")
    back = Emulator.load(tmp_path / "model")
    assert back.version == emulator.version and back.files() == emulator.files()
    for ours, theirs in zip(
        back.run(given.state, given.forcing, given.parameters),
        emulator.run(given.state, given.forcing, given.parameters),
        strict=True,
    ):
        same(ours, theirs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda f: f.pop(MANIFEST), Rejected, MANIFEST),
        (lambda f: f.pop("theta_2.ubj"), Rejected, "theta_2.ubj"),
        (lambda f: f.update({"theta_1.ubj": f["theta_2.ubj"]}), ChecksumError, "theta_1.ubj"),
        (lambda f: f.update({MANIFEST: b"{"}), Rejected, "JSON"),
        (lambda f: _told(f, format=99), Rejected, "format"),
        (lambda f: _told(f, version="0" * 12), ChecksumError, "version"),
        (lambda f: _told(f, outputs=["theta_1"]), Rejected, "manifest"),
        (lambda f: _feature(f, "units", "furlong"), Rejected, "features"),
        (lambda f: _feature(f, "name", "phase_of_the_moon"), Rejected, "phase_of_the_moon"),
        (lambda f: _transfer(f, float("nan")), Rejected, "transfer|manifest"),
        (lambda f: _hostile(f), Rejected, "cut short"),
    ],
)
def test_files_that_are_not_an_emulator_are_refused(emulator, change, error, words):
    files = dict(emulator.files())
    change(files)
    with pytest.raises(error, match=words):
        Emulator.from_files(files)


def _told(files: dict[str, bytes], **changes) -> None:
    files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), **changes}).encode()


def _feature(files: dict[str, bytes], key: str, value: str) -> None:
    told = json.loads(files[MANIFEST])
    told["features"][3][key] = value
    _told(files, features=told["features"])


def _transfer(files: dict[str, bytes], value: float) -> None:
    told = json.loads(files[MANIFEST])["transfer"]
    _told(files, transfer={**told, "albedo": value})


def _hostile(files: dict[str, bytes]) -> None:
    """A checksum that fits, over a booster cut short."""
    import hashlib

    files["theta_1.ubj"] = files["theta_1.ubj"][:-40]
    told = json.loads(files[MANIFEST])["sha256"]
    _told(files, sha256={**told, "theta_1.ubj": hashlib.sha256(files["theta_1.ubj"]).hexdigest()})


# --- bad input ------------------------------------------------------------------------------------------------------
def test_forcing_that_is_wrong_is_named(emulator, given):
    broken = given.forcing.copy()
    broken[RAIN] = broken[RAIN].copy()
    broken[RAIN][3, 2] = np.nan
    with pytest.raises(RangeError, match=RAIN):
        emulator.run(given.state, broken, given.parameters)
    celsius = given.forcing.assign(
        air_temperature=(given.forcing["air_temperature"] - 273.15).assign_attrs(units="degC")
    )
    with pytest.raises(UnitsError, match="air_temperature"):
        emulator.run(given.state, celsius, given.parameters)
    with pytest.raises(VariableError, match="wind_speed"):
        emulator.run(given.state, given.forcing.drop_vars("wind_speed"), given.parameters)
    gap = given.forcing.isel(time=[0, 1, 3])
    with pytest.raises(RangeError, match="time step"):
        emulator.run(given.state, gap, given.parameters)


def test_parameters_and_states_that_are_wrong_are_named(emulator, given):
    with pytest.raises(VariableError, match="tile_fraction"):
        emulator.run(given.state, given.forcing, given.parameters.drop_vars("tile_fraction"))
    with pytest.raises(VariableError, match="'b'"):
        emulator.run(given.state, given.forcing, given.parameters.drop_vars("b"))
    with pytest.raises(VariableError, match="cells"):
        emulator.run(given.state.isel(cell=slice(0, 3)), given.forcing, given.parameters)
    with pytest.raises(RangeError, match=THETA):
        emulator.run(given.state.assign({THETA: given.state[THETA] * np.nan}), given.forcing, given.parameters)
    other = emulator.start(given.state, given.forcing).isel(memory=slice(0, 3))
    with pytest.raises(VariableError, match=MEMORY):
        emulator.run(other, given.forcing, given.parameters)


def test_rows_that_are_wrong_are_refused(emulator):
    with pytest.raises(Rejected, match="features"):
        emulator.predict(np.zeros((3, len(NAMES) - 1), np.float32))
    with pytest.raises(Rejected, match="NaN"):
        emulator.predict(np.full((3, len(NAMES)), np.nan, np.float32))


@pytest.mark.parametrize("wrong", [{"outputs": ("snow",)}, {"trees": 0}, {"depth": 40}, {"without": ("moon",)}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SettingsError):
        Options(**wrong)


def test_a_state_says_what_it_holds(emulator, given):
    end, _ = emulator.run(given.state, given.forcing.isel(time=slice(0, 40)), given.parameters)
    assert end[CORRECTION].attrs["units"] == "m3 m-3"
    assert end[MEMORY].attrs["names"].split() == [memory.name for memory in features.MEMORIES]
