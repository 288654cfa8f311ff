"""Explanations against what they must add up to, and models whose shares are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import xgboost as xgb

from twin import state, synthetic
from twin.conformal import REGIMES, Conformal
from twin.emulator import explain
from twin.emulator.envelope import Envelope
from twin.emulator.explain import INPUTS, Inputs, counterfactual, importance, same_days, shap
from twin.emulator.features import FEATURES, GROUPS, NAMES
from twin.emulator.model import Emulator
from twin.emulator.outputs import SOIL_MOISTURE
from twin.emulator.physics import Transfer
from twin.errors import TimeError, VariableError
from twin.inputs import THETA
from twin.land import LandDaily
from twin.land.model import CARBON_DIOXIDE
from twin.parameters import assemble

CELLS, DAYS = 12, pd.date_range("2001-01-01", "2003-12-31")
RAIN, T = "precipitation_flux", "air_temperature"


class Place:
    """Some places of the simulated continent: parameters, start and weather."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        where = {"lat": ("cell", rng.uniform(-25, 12, CELLS)), "lon": ("cell", rng.uniform(12, 38, CELLS))}
        climate = synthetic.climate(xr.Dataset(coords=where))
        self.parameters = assemble(synthetic.soils(climate.cells), synthetic.land_cover(climate))
        self.forcing = synthetic.forcing(climate, DAYS)
        self.start = state.initial(self.parameters)

    def inputs(self, days: slice, wetter: float = 0.0, soil: int = 0, increment: float = 0.0) -> Inputs:
        """The first three cells in some days, with more water at the start, and the soil of those from `soil` on."""
        some = {name: self.parameters[name].isel(cell=slice(3)) for name in ("lat", "lon")}
        begin = self.start.isel(cell=slice(3))
        begin = begin.assign({THETA: begin[THETA] + wetter + increment})
        ground = self.parameters.isel(cell=slice(soil, soil + 3)).assign_coords(some)
        return Inputs(begin, self.forcing.isel(cell=slice(3), time=days), ground, increment)


@pytest.fixture(scope="module")
def place() -> Place:
    return Place()


@pytest.fixture(scope="module")
def rows(place) -> np.ndarray:
    """Rows of all days and cells (time, cell, feature)."""
    found = of({}).features(place.start, place.forcing, place.parameters)
    return np.ascontiguousarray(found).reshape(len(DAYS), CELLS, len(NAMES))


def of(boosters: dict[str, bytes], hybrid: bool = True) -> Emulator:
    """An emulator of these trees, the daily physics as it is."""
    intervals = Conformal(0.9, SOIL_MOISTURE, np.full((len(REGIMES), 4), 0.02), np.full(len(REGIMES), 20))
    envelope = Envelope.fit(np.random.default_rng(1).random((1000, len(NAMES))), NAMES, ["theta_s"])
    return Emulator(SOIL_MOISTURE, boosters, Transfer(), {}, intervals, envelope, hybrid)


def emulator(rows: np.ndarray, depth: int, hybrid: bool = True, only: str = "") -> Emulator:
    """Trees of a depth that have learnt, of the feature `only` or of several, what a wet month and heat add."""
    flat = rows.reshape(-1, len(NAMES))[::5].copy()
    if only:
        flat[:, [name != only for name in NAMES]] = 0.0

    def column(name: str) -> np.ndarray:
        values = flat[:, NAMES.index(only or name)]
        return (values - values.mean()) / values.std()

    add = 0.02 * np.tanh(column("precipitation_30d")) - 0.015 * column("air_temperature") * column("theta_s")
    boosters = {}
    for k, name in enumerate(SOIL_MOISTURE):
        data = xgb.DMatrix(flat, (k + 1) * add, feature_names=list(NAMES))
        settings = {"max_depth": depth, "eta": 0.3, "nthread": 1, "base_score": 0.0}
        boosters[name] = bytes(xgb.train(settings, data, 12).save_raw("ubj"))
    return of(boosters, hybrid)


# --- of the trees ---------------------------------------------------------------------------------------------------
def test_contributions_add_up_to_the_anomaly(rows):
    """A wet season against the same days of the other years: to 1e-5 of an anomaly, m3 m-3, of every layer."""
    model = emulator(rows, 5)
    now, before = same_days(DAYS.values, "2003-02-01", "2003-04-30")
    assert now.sum() == 89 and before.sum() == 178
    for cell in (0, 7):
        found = shap(model, rows[now, cell], rows[before, cell])
        anomaly = model.predict(rows[now, cell]).mean(axis=0) - model.predict(rows[before, cell]).mean(axis=0)
        assert np.abs(anomaly).max() > 1e-3
        np.testing.assert_allclose(found.sum("feature"), anomaly, atol=1e-6, rtol=1e-5)
        by_group = found.groupby("group").sum()
        assert set(by_group["group"].values) == set(GROUPS)
        np.testing.assert_allclose(by_group.sum("group"), anomaly, atol=1e-6, rtol=1e-5)


def test_of_trees_of_one_question_a_feature_has_what_it_changes_alone(rows):
    """Stumps add up, and the Shapley value of a term is the term: what swapping that one feature changes."""
    model = emulator(rows, 1, hybrid=False)
    x, y = rows[100, 3:4], rows[800, 9:10]
    found = shap(model, x, y)
    for k, name in enumerate(NAMES):
        swapped = y.copy()
        swapped[:, k] = x[:, k]
        np.testing.assert_allclose(found.sel(feature=name), (model.predict(swapped) - model.predict(y))[0], atol=2e-7)


def test_what_the_trees_do_not_ask_has_no_part_but_for_the_physics(rows):
    """Trees that only know rain: in the hybrid the daily physics' own soil moisture is the rest, exactly."""
    now, before = rows[1000:1040, 4], rows[600:640, 4]
    alone, hybrid = (shap(emulator(rows, 4, kind, "precipitation_30d"), now, before) for kind in (False, True))
    rain = alone.sel(feature="precipitation_30d")
    assert (alone.drop_sel(feature="precipitation_30d") == 0.0).all() and (rain != 0.0).all()
    np.testing.assert_allclose(hybrid.sel(feature="precipitation_30d"), rain, atol=1e-9)
    for k, output in enumerate(SOIL_MOISTURE):
        column = NAMES.index(f"physics_theta_{k + 1}")
        own = now[:, column].astype(float).mean() - before[:, column].astype(float).mean()
        assert hybrid.sel(output=output, feature=f"physics_theta_{k + 1}").item() == pytest.approx(own, abs=1e-9)


def test_importance_is_how_far_a_group_moves_the_output(rows):
    """Of stumps a feature's value less its mean is its term less the mean of that."""
    model, some = emulator(rows, 1, hybrid=False, only="air_temperature"), rows[::50].reshape(-1, len(NAMES))
    found = importance(model, some)
    assert set(found) == set(SOIL_MOISTURE) and set(found["theta_1"]) == set(GROUPS)
    said = model.predict(some).astype(float)
    np.testing.assert_allclose(
        [found[name]["heat"] for name in SOIL_MOISTURE], np.abs(said - said.mean(axis=0)).mean(axis=0), rtol=1e-4
    )
    assert all(found[name][group] == 0.0 for name in found for group in GROUPS if group != "heat")
    assert {feature.group for feature in FEATURES} == set(GROUPS)


def test_periods_and_rows_that_cannot_be_explained_are_refused(rows):
    now, before = same_days(DAYS.values, "2002-12-15", "2003-01-14")
    assert now.sum() == 31 and before.sum() == 14 + 17 + 14 + 17  # the rest of two Januaries, two Decembers
    for first, last in (("2004-01-01", "2004-02-01"), ("2001-01-01", "2003-01-01"), ("2001-02-01", "2001-01-01")):
        with pytest.raises(TimeError, match="period to explain: expected up to a year of the record"):
            same_days(DAYS.values, first, last)
    with pytest.raises(VariableError, match=r"rows to explain: expected \(row, 51\)"):
        shap(emulator(rows, 1), rows[:5, 0, :-1], rows[:5, 0])


# --- of the land ----------------------------------------------------------------------------------------------------
class Toy:
    """A land model of which the shares are known: the start, plus rain, plus rain times warmth."""

    name, version = "toy", "1"

    def run(self, state, forcing, parameters):
        rain, warmth = (forcing[name].mean("time", dtype="float64").values for name in (RAIN, T))
        air = float(forcing[CARBON_DIOXIDE].mean()) if CARBON_DIOXIDE in forcing else 0.0
        theta = state[THETA].values[0] + 1e3 * rain + rain * warmth + air
        times = forcing.sizes["time"]
        data = np.broadcast_to(theta, (times, 4, theta.size))
        return state, xr.Dataset({THETA: (("time", "layer", "cell"), data)}, {"time": forcing["time"]})


def test_a_term_is_its_groups_and_a_product_is_shared_in_halves(place):
    """Shapley (1953): of f(a) + g(b) + ab the shares are Δf + Δa (b + b')/2 and Δg + Δb (a + a')/2."""
    now, before = place.inputs(slice(0, 60), wetter=0.03), place.inputs(slice(365, 425))
    now.forcing[CARBON_DIOXIDE], before.forcing[CARBON_DIOXIDE] = (
        ("time", np.full(60, 6e-4)),
        ("time", np.full(60, 4e-4)),
    )
    found = counterfactual(Toy(), now, before)
    (rain, warmth), (rain0, warmth0) = (
        [run.forcing[name].mean("time", dtype="float64").values for name in (RAIN, T)] for run in (now, before)
    )
    share = found["contribution"]
    np.testing.assert_allclose(share.sel(group="rain"), (rain - rain0) * (1e3 + 0.5 * (warmth + warmth0)), rtol=1e-9)
    np.testing.assert_allclose(share.sel(group="heat"), 0.5 * (rain + rain0) * (warmth - warmth0), atol=1e-15)
    np.testing.assert_allclose(share.sel(group="start"), 0.03, rtol=1e-9)
    np.testing.assert_allclose(share.sel(group="carbon_dioxide"), 2e-4, rtol=1e-6)
    np.testing.assert_allclose(found["alone"].sel(group="rain"), (rain - rain0) * (1e3 + warmth), rtol=1e-9)
    assert (share.sel(group=["soil", "satellites"]) == 0.0).all()


@pytest.mark.parametrize("kind", ["daily", "emulator"])
def test_shares_add_up_for_the_models_themselves(place, rows, kind):
    """Five groups, 32 runs; with all groups it is the run, with none the reference, bit for bit."""
    model = LandDaily() if kind == "daily" else emulator(rows, 4)
    now = place.inputs(slice(730, 820), wetter=0.05, increment=0.02)
    before = place.inputs(slice(365, 455), soil=6)
    if kind == "daily":
        ground = [Transfer().parameters(run.parameters) for run in (now, before)]
        starts = [state.initial(soil, part) for soil, part in zip(ground, (0.7, 0.5), strict=True)]
        now, before = Inputs(starts[0], now.forcing, ground[0], 0.02), Inputs(starts[1], before.forcing, ground[1])
    found = counterfactual(model, now, before)
    whole, none = (explain.mean_root_zone(model.run(r.state, r.forcing, r.parameters)[1]) for r in (now, before))
    np.testing.assert_array_equal(found["value"], whole)
    np.testing.assert_array_equal(found["reference_value"], none)
    np.testing.assert_allclose(found["contribution"].sum("group"), whole - none, atol=1e-14)
    assert (found["contribution"].sel(group=list(INPUTS[:-1])) != 0.0).all() and found["value"].attrs[
        "units"
    ] == "m3 m-3"
    assert (found["contribution"].sel(group="carbon_dioxide") == 0.0).all()


def test_what_only_satellites_changed_is_theirs(place, rows):
    model = emulator(rows, 4)
    now = place.inputs(slice(0, 30), increment=0.04)
    without = Inputs(now.state.assign({THETA: now.state[THETA] - 0.04}), now.forcing, now.parameters)
    found = counterfactual(model, now, without)
    change = (found["value"] - found["reference_value"]).values
    assert (change > 0.005).all()
    np.testing.assert_array_equal(found["contribution"].sel(group="satellites"), change)
    np.testing.assert_array_equal(found["alone"].sel(group="satellites"), change)


def test_another_measure_has_its_own_unit(place, rows):
    """Millimetres of the top metre: a thousand times the mean of the root zone."""

    def water(diagnostics: xr.Dataset) -> xr.DataArray:
        return (1000.0 * explain.mean_root_zone(diagnostics)).assign_attrs(units="kg m-2")

    pair = place.inputs(slice(0, 30), wetter=0.05), place.inputs(slice(365, 395))
    in_mm, plain = counterfactual(emulator(rows, 4), *pair, water), counterfactual(emulator(rows, 4), *pair)
    assert in_mm["contribution"].attrs["units"] == "kg m-2"
    np.testing.assert_allclose(in_mm["contribution"], 1000.0 * plain["contribution"], atol=1e-10)


def test_a_reference_of_other_days_is_refused(place):
    with pytest.raises(TimeError, match="days of the reference: expected 30, found 31"):
        counterfactual(Toy(), place.inputs(slice(0, 30)), place.inputs(slice(0, 31)))
