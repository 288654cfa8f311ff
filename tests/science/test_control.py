"""The control vector: what its zero stands for, what it keeps within bounds, what models make of its parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import state, synthetic
from twin.control import KAPPA_DEVIATION, RESIDUAL, SHARES, SOIL, Control, Factor, humidity
from twin.errors import SettingsError, VariableError
from twin.grid import from_points
from twin.land import Land, LandDaily
from twin.operators import SoilMoisture
from twin.parameters import TILES, assemble, from_texture
from twin.parameters.soil import BOUNDS, COSBY, COSBY_UM, hydraulics

SAND, SILT, CLAY = np.array([0.2, 0.45, 0.7]), np.array([0.4, 0.35, 0.2]), np.array([0.4, 0.2, 0.1])
DAMP = np.array([-1.0, 0.0, 1.5])


def daily(variant: str = "cosby") -> xr.Dataset:
    ds = from_texture(SAND, SILT, CLAY, variant)
    return ds.assign(sand=("cell", SAND), clay=("cell", CLAY)).assign_coords(
        lat=("cell", [9.0, 0.0, -15.0]), lon=("cell", [2.0, 25.0, 30.0])
    )


def tiled() -> xr.Dataset:
    grid = from_points([9.0, 0.0, -15.0], [2.0, 25.0, 30.0], "test", 1.0)
    fraction = np.zeros((len(TILES), 3))
    fraction[[0, 2, 7]] = np.array([[0.3], [0.5], [0.2]])
    return assemble(grid.assign(sand=("cell", SAND), silt=("cell", SILT), clay=("cell", CLAY)), fraction)


def weather(days: int = 10) -> xr.Dataset:
    climate = synthetic.climate(from_points([9.0, 0.0, -15.0], [2.0, 25.0, 30.0], "test", 1.0), 1)
    return synthetic.forcing(climate, pd.date_range("2020-03-01", periods=days))


@pytest.mark.parametrize("variant", ["cosby", "cosby-um", "toth-class"])
def test_zero_is_the_background(variant):
    background = daily(variant)
    control = Control.of(background)
    found = control.parameters(np.zeros(control.size), background, DAMP)
    for name in background.data_vars:
        np.testing.assert_allclose(found[name], background[name], rtol=1e-12, err_msg=str(name))


@pytest.mark.parametrize(("variant", "base"), [("cosby", COSBY), ("cosby-um", COSBY_UM)])
def test_constants_it_prints_reproduce_its_soil(variant, base):
    """κ_j = κ_j,b (1 + 0.25 z_j), and Cosby's regressions with them give the same soil."""
    background = daily(variant)
    control = Control.of(background)
    z = np.zeros(control.size)
    z[:12] = 0.2 * np.random.default_rng(1).standard_normal(12)
    kappa = control.pedotransfer(z, variant)
    np.testing.assert_allclose(kappa, np.array(base.kappa) * (1.0 + KAPPA_DEVIATION * z[:12]), rtol=1e-15)
    expected = hydraulics(SAND, CLAY, replace(base, kappa=kappa))
    found = control.parameters(z, background, DAMP)
    assert found.attrs["clipped"] == 0
    for name in BOUNDS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)
    rows = control.table(z, np.full(control.size, 0.5), variant)
    assert [row["name"] for row in rows] == list(control.names)
    np.testing.assert_allclose([row["analysis"] for row in rows[:12]], kappa, rtol=1e-15)


def test_factors_are_factors_everywhere_and_along_the_humidity():
    background, control = daily(), Control.of(daily())
    names, z = list(control.names), np.zeros(control.size)
    z[names.index("soil_resistance")] = 1.0
    z[names.index("soil_resistance along humidity")] = -2.0
    found = control.parameters(z, background, DAMP)
    expected = background["soil_resistance"] * np.exp(0.5 * (1.0 - 2.0 * 0.7 * DAMP))
    np.testing.assert_allclose(found["soil_resistance"], expected, rtol=1e-12)
    np.testing.assert_allclose(found["root_fraction"].sum("layer"), 1.0)
    operators = control.with_operators((Factor("gain", 0.3),))
    assert operators.constants(np.r_[z, 2.0]) == {"gain": pytest.approx(np.exp(0.6))}


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_nothing_leaves_its_bounds(scale):
    """Shares stay shares, soil stays within what is known of soils, whatever z and whatever the fields."""
    rng = np.random.default_rng(2)
    for background in (daily(), daily("toth-class"), tiled()):
        control = Control.of(background)
        for _ in range(20):
            z = scale * rng.standard_normal(control.size)
            residual = scale * rng.standard_normal((len(RESIDUAL), 3))
            found = control.parameters(z, background, DAMP, residual)
            for name in SHARES & set(found.data_vars):
                assert not ((found[name] < 0.0) | (found[name] > 1.0)).any(), name
            assert (found["theta_w"] < found["theta_c"]).all()
            assert (found["theta_c"] <= found["theta_s"]).all()
            soil = [name for name in BOUNDS if name in found]
            assert all(np.isfinite(found[name]).all() for name in soil)


def test_fields_change_single_cells():
    background, control = daily(), Control.of(daily())
    residual = np.zeros((len(RESIDUAL), 3))
    residual[0, 1] = 0.5
    found = control.parameters(np.zeros(control.size), background, DAMP, residual)
    np.testing.assert_allclose(found["K_s"] / background["K_s"], [1.0, np.exp(0.8 * 0.5), 1.0], rtol=1e-12)
    np.testing.assert_array_equal(found["theta_s"], background["theta_s"])


@pytest.mark.parametrize(
    ("model", "background"), [(LandDaily(), daily()), (Land("3h"), tiled())], ids=["daily", "land"]
)
def test_models_accept_what_a_draw_stands_for(model, background):
    control = Control.of(background)
    z = np.random.default_rng(3).standard_normal(control.size)
    parameters = control.parameters(z, background, humidity(weather()))
    _, run = model.run(state.initial(parameters), weather(), parameters)
    theta = run["volume_fraction_of_condensed_water_in_soil"]
    assert np.isfinite(theta).all()
    _, before = model.run(state.initial(background), weather(), background)
    assert np.abs(theta - before["volume_fraction_of_condensed_water_in_soil"]).max() > 1e-3


def test_without_cosby_the_soil_has_factors():
    assert set(SOIL) <= set(Control.of(daily("toth-class")).factors)
    assert not Control.of(daily().drop_vars("sand")).kappa
    assert Control.of(daily()).size == 12 + 14
    assert Control.of(daily(), SoilMoisture().factors).names[-2:] == ("skin_gain", "skin_time")


def test_humidity_of_known_climates():
    """0 where half of what sunlight could evaporate falls as rain (0.77 S/λ, Budyko 1974), ±1 at e^±0.7 times that."""
    sunlight = 200.0
    rain = 0.5 * 0.77 * sunlight / 2.45e6 * np.exp(0.7 * np.array([-1.0, 0.0, 1.0, 9.0, -9.0]))
    forcing = xr.Dataset(
        {
            "precipitation_flux": (("time", "cell"), np.stack([0.0 * rain, 2.0 * rain])),
            "surface_downwelling_shortwave_flux_in_air": (("time", "cell"), np.full((2, 5), sunlight)),
        }
    )
    np.testing.assert_allclose(humidity(forcing), [-1.0, 0.0, 1.0, 3.0, -3.0], atol=1e-12)


def test_what_cannot_be_is_refused():
    background, control = daily(), Control.of(daily())
    with pytest.raises(VariableError, match=r"control vector: expected shape \(26,\), found shape \(3,\)"):
        control.parameters(np.zeros(3), background, DAMP)
    with pytest.raises(SettingsError, match="a parameter of the model, found colour"):
        Control(False, (Factor("colour", 0.1),)).parameters(np.ones(1), background, DAMP)
