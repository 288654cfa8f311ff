"""One window of assimilation: the Kalman analysis where the model is linear, and clear ends where there is little."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import state
from twin.control import Control, Factor
from twin.cycle import Options, assimilate
from twin.ensemble import Lost, Prior, Window
from twin.errors import RangeError, TwinError, VariableError
from twin.inputs import CANOPY, SNOW, THETA
from twin.observations import Observations
from twin.parameters import from_texture

CELLS, NAMES = 6, ("surface_resistance", "soil_resistance", "canopy_capacity")
WINDOW = Window("2020-01-01", "2020-03-30", cycles=0)
CONTROL = Control(kappa=False, factors=tuple(Factor(name, 0.5) for name in NAMES))
SURE = Options(members=12, withheld=0.0, residual=False, inflation={"s": 1.0}, offset={"s": 0.03})


class Linear:
    """A land whose top layer is linear in the logarithms of three parameters."""

    name, version = "linear", "1"

    def __init__(self, background: xr.Dataset) -> None:
        self.background = {name: float(background[name][0]) for name in NAMES}

    def run(self, state, forcing, parameters):
        days, cells = forcing.sizes["time"], forcing.sizes["cell"]
        phase = np.arange(days)[:, None] / 9.0 + forcing["lat"].values
        logs = np.stack([np.log(parameters[name].values / self.background[name]) for name in NAMES])
        slopes = np.stack([np.sin(phase), np.cos(0.7 * phase), np.ones_like(phase)])
        theta = np.full((days, 4, cells), 0.25)
        theta[:, 0] = 0.3 + 0.04 * (slopes * logs[:, None]).sum(axis=0)
        run = xr.Dataset({THETA: (("time", "layer", "cell"), theta), SNOW: (("time", "cell"), np.zeros((days, cells)))})
        return state.assign({THETA: (("layer", "cell"), theta[-1])}), run


@pytest.fixture(scope="module")
def place() -> tuple[Linear, Prior, xr.Dataset]:
    """The linear land, what is believed of it, and weather without rain."""
    lat = np.linspace(-10.0, 10.0, CELLS)
    share = {name: xr.DataArray(np.full(CELLS, v), dims="cell") for name, v in (("sand", 0.5), ("silt", 0.3))}
    parameters = from_texture(share["sand"], share["silt"], 1.0 - share["sand"] - share["silt"])
    where = {"lat": ("cell", lat), "lon": ("cell", np.zeros(CELLS))}
    parameters = parameters.assign_coords(where)
    shape = len(WINDOW.days), CELLS
    forcing = xr.Dataset(
        {
            "precipitation_flux": (("time", "cell"), np.zeros(shape)),
            "air_temperature": (("time", "cell"), np.full(shape, 295.0)),
            "surface_downwelling_shortwave_flux_in_air": (("time", "cell"), np.full(shape, 200.0)),
        },
        {"time": WINDOW.days, **where},
    )
    start = state.initial(parameters)
    start = start.assign({THETA: start[THETA] * 0 + 0.3, CANOPY: start[CANOPY]})
    return Linear(parameters), Prior(parameters, start, CONTROL), forcing


def observed(seed: int = 0, every: int = 3, error: float = 0.04) -> Observations:
    rng = np.random.default_rng(seed)
    day, cell = (grid.ravel() for grid in np.meshgrid(np.arange(1, len(WINDOW.days), every), np.arange(CELLS)))
    value = 0.3 + 0.02 * np.sin(day / 5.0) + 0.01 * rng.standard_normal(day.size)
    return Observations(value, np.full(day.size, error), cell, day, "s", "surface_soil_moisture", WINDOW.days)


def analysed(place, observations, options=SURE, seed=1, map=map):
    model, prior, forcing = place
    return assimilate(model, prior, forcing, observations, WINDOW, np.random.default_rng(seed), map, options)


def kalman(place, o: Observations, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the Kalman analysis (1960) with dense matrices; slopes by differences of the model."""
    model, prior, forcing = place
    control = CONTROL

    def H(z):
        parameters = control.parameters(z, prior.parameters, np.zeros(CELLS))
        _, run = model.run(prior.state, forcing, parameters)
        top = np.concatenate([prior.state[THETA].values[:1], run[THETA].values[:, 0]])
        return (0.5 * (top[1:] + top[:-1]))[o.day, o.cell]

    G = np.stack([H(e) - H(np.zeros(3)) for e in np.eye(3)], axis=1)
    R = np.diag(o.error**2) + offset**2 * (o.cell[:, None] == o.cell)
    P = np.linalg.inv(np.eye(3) + G.T @ np.linalg.solve(R, G))
    return P @ G.T @ np.linalg.solve(R, o.value - H(np.zeros(3))), P


# --- the analysis ---------------------------------------------------------------------------------------------------
def test_linear_gaussian_is_the_kalman_analysis(place):
    """To 1e-4 standard deviations: what sensors see is kept in single precision."""
    o = observed()
    found, (x, P) = analysed(place, o), kalman(place, o, 0.03)
    assert found.accepted, found.reasons
    np.testing.assert_allclose(found.z[:3], x, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.covariance[:3, :3], P, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.z[3:], 0.0, atol=1e-4)  # without rain nothing is learnt of the skin
    np.testing.assert_allclose(np.diag(found.covariance)[3:], 1.0, atol=1e-4)


def test_members_of_a_linear_model_have_the_analysis_moments(place):
    """Bringing a member to its own minimum moves nothing where H is linear."""
    found = analysed(place, observed())
    np.testing.assert_allclose(found.members.mean(axis=0), found.z, atol=1e-3)
    np.testing.assert_allclose(np.cov(found.members.T), found.covariance, atol=1e-3)


def test_observations_without_information_return_the_prior(place):
    o = observed()
    found = analysed(place, replace(o, error=np.full(len(o), 4e4)))
    np.testing.assert_allclose(found.z, 0.0, atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.eye(5), atol=1e-6)


def test_the_same_bits_again_and_through_pickled_copies(place):
    def far(function, tasks):
        return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(task))) for task in tasks]

    first, again, copied = (
        analysed(place, observed()),
        analysed(place, observed()),
        analysed(place, observed(), map=far),
    )
    for other in (again, copied):
        np.testing.assert_array_equal(first.z, other.z)
        np.testing.assert_array_equal(first.covariance, other.covariance)
        xr.testing.assert_identical(first.states, other.states)


@pytest.mark.parametrize("tile", [1, 4])
def test_tiles_do_not_matter(place, tile):
    """To 1e-5 standard deviations: sums over other tiles round single precision otherwise."""
    whole, parts = analysed(place, observed()), analysed(place, observed(), replace(SURE, tile=tile))
    np.testing.assert_allclose(parts.z, whole.z, rtol=0, atol=1e-5)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=0, atol=1e-5)


# --- little or nothing to use ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [None, 0.3, 0.7])
def test_without_a_usable_observation_the_analysis_is_the_prior_and_says_why(place, value):
    """No observation, a single one, and many that are all impossible."""
    o = observed()
    o = replace(o, value=np.full(len(o), 0.7)) if value == 0.7 else o.select(np.arange(0 if value is None else 1))
    found = analysed(place, o)
    assert not found.accepted
    assert found.reasons == (f"no observation to use: s: 0 of {len(o)} passed the gates",)
    np.testing.assert_array_equal(found.z, 0.0)
    np.testing.assert_array_equal(found.covariance, np.eye(5))
    assert found.states.sizes["realization"] == SURE.members + 1


def test_a_sensor_that_is_given_twice_is_refused(place):
    with pytest.raises(VariableError, match="sensors"):
        analysed(place, [observed(), observed()])


def test_observations_that_contradict_everything_are_refused(place):
    o = observed()
    value = np.where(o.day % 2, 0.05, 0.55)
    with pytest.raises(RangeError, match="at most 5 % rejected"):
        analysed(place, replace(o, value=value))


# --- members that are lost ------------------------------------------------------------------------------------------
def losing(*members: int, tile: int = 1, keep: tuple[str, ...] = ("predictions", "states")):
    """A map that cannot do these members on one tile."""

    def run(function, tasks):
        gone = [t.realization in members and t.tile == tile and t.keep in keep for t in tasks]
        return [Lost("node down") if lost else function(t) for t, lost in zip(tasks, gone, strict=True)]

    return run


def test_a_member_lost_on_one_tile_is_dropped_everywhere(place):
    o, options = observed(), replace(SURE, tile=2)
    found = analysed(place, o, options, map=losing(3))
    x, P = kalman(place, o, 0.03)
    assert found.accepted
    kept = options.members - 2  # one in the round that settles them, one in the last
    assert found.diagnostics["members"] == kept == found.states.sizes["realization"] - 1
    np.testing.assert_allclose(found.z[:3], x, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.covariance[:3, :3], P, rtol=0, atol=1e-3)


def test_too_many_lost_members_are_an_error(place):
    with pytest.raises(TwinError, match=r"members complete on every tile.*node down"):
        analysed(place, observed(), replace(SURE, tile=2), map=losing(2, 3, 4))


def test_a_lost_control_run_is_an_error(place):
    with pytest.raises(TwinError, match=r"control run.*node down"):
        analysed(place, observed(), replace(SURE, tile=2), map=losing(0))


def test_a_window_without_a_day_is_refused():
    with pytest.raises(RangeError, match="window"):
        Window(pd.Timestamp("2020-02-01"), pd.Timestamp("2020-01-01"))
