"""Members: exact moments, fields of the covariance they claim, tiles, keys that change with what matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from twin import state, synthetic
from twin.ensemble import Held, Prior, Simulation, Task, Window, check_quorum, draw, fields, fitted, tiles
from twin.errors import RangeError, TwinError
from twin.grid import from_points
from twin.inputs import THETA
from twin.land import LandDaily
from twin.operators import SoilMoisture
from twin.parameters import from_texture


# --- draws and fields -----------------------------------------------------------------------------------------------
def test_draws_have_exactly_the_moments():
    """Second-order exact sampling (Pham 2001): to rounding, with any covariance."""
    rng = np.random.default_rng(1)
    root = rng.standard_normal((5, 5))
    mean, P = rng.standard_normal(5), root @ root.T
    members = draw(rng, 20, mean, P)
    np.testing.assert_allclose(members.mean(axis=0), mean, atol=1e-12)
    np.testing.assert_allclose(np.cov(members.T), P, atol=1e-10)
    np.testing.assert_allclose(draw(rng, 4, mean, P).mean(axis=0), mean, atol=1e-12)  # too few for the covariance


def test_fields_have_their_covariance():
    """exp(−r²/2L²), at 0, L and 3 L on the equator; 4 standard errors of 2,000 members."""
    length, members = 200.0, 2000
    lon = np.rad2deg(np.array([0.0, length, 3.0 * length]) / 6371.0)
    found = fields(np.random.default_rng(2), members, 2, np.zeros(3), lon, length).astype(float)
    for kind in range(2):
        covariance = found[:, kind].T @ found[:, kind] / members
        np.testing.assert_allclose(
            covariance[0], np.exp(-0.5 * np.array([0.0, 1.0, 9.0])), atol=4.0 * (2 / members) ** 0.5
        )
    assert abs((found[:, 0] * found[:, 1]).mean()) < 4.0 / members**0.5  # kinds are independent


# --- states that fit ------------------------------------------------------------------------------------------------
def soils(*clay: float) -> xr.Dataset:
    clay_ = np.array(clay)
    return from_texture(0.8 - clay_, np.full(clay_.size, 0.2), clay_)


def test_a_fitted_state_is_as_wet_between_wilting_and_saturation():
    old, new = soils(0.1, 0.3), soils(0.4, 0.2)
    start = state.initial(old, 0.7)
    found = fitted(start, old, new)
    before, after = (
        (ds[THETA] - p["theta_w"]) / (p["theta_s"] - p["theta_w"]) for ds, p in ((start, old), (found, new))
    )
    np.testing.assert_allclose(before, after, rtol=1e-12)
    xr.testing.assert_allclose(fitted(found, new, old), start)
    xr.testing.assert_allclose(fitted(start, old, old), start)


def test_a_state_below_wilting_stays_above_nothing():
    old, new = soils(0.1, 0.3), soils(0.4, 0.2)
    start = state.initial(old)
    dry = start.assign({THETA: 0.3 * old["theta_w"] + 0.0 * start[THETA]})
    np.testing.assert_allclose(fitted(dry, old, new)[THETA] / new["theta_w"], 0.3, rtol=1e-12)


# --- tiles and tasks ------------------------------------------------------------------------------------------------
@given(st.integers(1, 500), st.integers(1, 100))
def test_tiles_cover_every_cell_once_and_evenly(cells, size):
    found = tiles(cells, size)
    assert [i for tile in found for i in range(tile.start, tile.stop)] == list(range(cells))
    lengths = [tile.stop - tile.start for tile in found]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_a_quorum_is_nine_in_ten():
    check_quorum(range(9), range(10), ["lost"])
    with pytest.raises(TwinError, match=r"expected at least 90%, found 8 of 10; the first: node down"):
        check_quorum(range(8), range(10), ["node down"])


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    grid = from_points([9.0, -15.0], [2.0, 30.0], "test", 1.0)
    forcing = synthetic.forcing(synthetic.climate(grid, 1), pd.date_range("2020-01-01", periods=20))
    soil = synthetic.soils(grid, 1)
    parameters = from_texture(soil["sand"], soil["silt"], soil["clay"]).assign(sand=soil["sand"], clay=soil["clay"])
    prior = Prior(parameters, state.initial(parameters))
    return Simulation(LandDaily(1), prior, Held(forcing), Window("2020-01-11", "2020-01-20"), {"s": SoilMoisture(6.0)})


def task(simulation: Simulation, **change) -> Task:
    return replace(Task(1, 2, 0, slice(0, 2), np.zeros(simulation.control.size)), **change)


def test_a_task_is_known_by_what_its_result_depends_on(simulation):
    a = task(simulation)
    assert a.key == task(simulation, iteration=9, realization=7, tile=3).key
    others = [
        task(simulation, z=a.z + 1e-9),
        task(simulation, cells=slice(0, 1)),
        task(simulation, keep="states"),
        task(simulation, residual=np.zeros((3, 2))),
        task(simulation, residual=np.ones((3, 2))),
    ]
    assert len({a.key, *(other.key for other in others)}) == 6


def test_a_simulation_is_known_by_what_its_results_depend_on(simulation):
    forcing = simulation.forcing.dataset
    warmer = Held(forcing.assign(air_temperature=forcing["air_temperature"] + 0.001))
    wetter = Prior(simulation.prior.parameters, state.initial(simulation.prior.parameters, 0.61))
    others = [
        replace(simulation, model=LandDaily(1, precision="single")),
        replace(simulation, forcing=warmer),
        replace(simulation, prior=wetter),
        replace(simulation, window=Window("2020-01-11", "2020-01-20", cycles=2)),
        replace(simulation, window=Window("2020-01-12", "2020-01-20")),
        replace(simulation, sensors={"s": SoilMoisture(18.0)}),
    ]
    assert len({simulation.key, *(other.key for other in others)}) == 7
    same = replace(simulation, model=LandDaily(2), forcing=Held(forcing.copy(deep=True)))
    assert same.key == simulation.key


def test_a_tile_gives_the_bits_of_the_whole(simulation):
    whole, part = simulation(task(simulation)), simulation(task(simulation, cells=slice(1, 2)))
    np.testing.assert_array_equal(part["s"][:, 0], whole["s"][:, 1])


def test_a_task_keeps_what_it_was_asked_for(simulation):
    assert set(simulation(task(simulation))) == {"s", "clipped"}
    states = simulation(task(simulation, keep="states"))
    assert states["root_zone_soil_moisture"].shape == (10, 2)
    assert states[f"end:{THETA}:layer"].shape == (4, 2)
    assert "surface_snow_amount" in simulation(task(simulation, keep="ground"))


def test_forcing_that_ends_too_early_is_refused(simulation):
    late = replace(simulation, window=Window("2020-01-11", "2020-01-25"))
    with pytest.raises(RangeError, match=r"forcing of the window.*2020-01-25"):
        late(task(late))
