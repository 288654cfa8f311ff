"""Where a state starts, what water it holds, and that a repeated year makes it forget its start."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import state, synthetic
from twin.errors import SettingsError, VariableError
from twin.land import Land, LandDaily
from twin.parameters import TILES, assemble, from_texture
from twin.state import CANOPY, DEEP, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA
from twin.variables import LAYERS, VARIABLES

DEPTH = 1000.0 * np.array(LAYERS)[:, None]
SAHEL_TO_EQUATOR = np.array([13.0, 9.5, 5.0, 0.5, -5.5, -12.0, -18.0, -24.5])  # 400 to 2,000 mm of rain a year
LONGITUDE = np.array([3.0, -7.5, 20.5, 23.5, 15.0, 30.0, 30.5, 28.0])


def texture(cells: int) -> xr.Dataset:
    shares = {"sand": 0.45, "silt": 0.35, "clay": 0.20}
    return xr.Dataset({name: ("cell", np.full(cells, share)) for name, share in shares.items()})


def tiled(cells: int, **fraction: float) -> xr.Dataset:
    values = np.array([fraction.get(name, 0.0) for name in TILES])
    return assemble(texture(cells), np.repeat(values[:, None], cells, axis=1))


def grass(cells: int) -> xr.Dataset:
    soil = texture(cells)
    return from_texture(soil["sand"], soil["silt"], soil["clay"])


# --- where it starts ------------------------------------------------------------------------------------------------
def test_a_state_starts_as_asked():
    soil = tiled(3, shrub=0.4, bare_soil=0.6)
    start = state.initial(soil, 0.5, np.array([270.0, 280.0, 290.0]))
    np.testing.assert_array_equal(start[THETA].values, np.repeat(0.5 * soil["theta_s"].values[None], 4, axis=0))
    for name in (CANOPY, SNOW):
        assert start[name].dims == ("tile", "cell") and not start[name].values.any()
    for name, rows in ((SOIL_TEMPERATURE, 4), (SURFACE_TEMPERATURE, 9)):
        np.testing.assert_array_equal(start[name].values, np.repeat([[270.0, 280.0, 290.0]], rows, axis=0))
    for name, values in start.data_vars.items():
        assert values.dtype == np.float64 and values.attrs == VARIABLES[str(name)].attrs


def test_without_surface_types_or_temperature_there_is_none():
    assert set(state.initial(grass(2), temperature=280.0).data_vars) == {THETA, CANOPY, SNOW}
    assert state.initial(grass(2))[SNOW].dims == ("cell",)
    assert set(state.initial(tiled(2, shrub=1.0)).data_vars) == {THETA, CANOPY, SNOW}
    for saturation in (0.0, 1.1, np.nan):
        with pytest.raises(SettingsError, match="initial saturation: expected above 0, up to 1"):
            state.initial(grass(2), saturation)


# --- what it holds --------------------------------------------------------------------------------------------------
def test_water_on_surface_types_counts_by_their_area():
    soil = tiled(2, shrub=0.25, bare_soil=0.75)
    start = state.initial(soil)
    inside = (DEPTH * start[THETA].values).sum(axis=0)
    start[SNOW][TILES.index("bare_soil"), 1] = 4.0
    start[CANOPY][TILES.index("shrub"), 1] = 0.8
    start[SNOW][TILES.index("lake"), 0] = 9.0  # there is no lake
    np.testing.assert_allclose(state.water(start, soil).values - inside, [0.0, 3.2], atol=1e-12)
    with pytest.raises(VariableError, match="expected the parameters of its surface types, found none"):
        state.water(start)


def test_the_deep_store_of_topmodel_counts():
    """3 m of pores below the soil's 3 m, those of its last layer."""
    soil = tiled(2, shrub=1.0)
    start = state.initial(soil)
    more = state.water(start.assign({DEEP: ("cell", np.array([0.0, 0.5]))}), soil) - state.water(start, soil)
    np.testing.assert_allclose(more.values, [0.0, 1500.0 * soil["theta_s"].values[1]], rtol=1e-12)


def test_without_surface_types_water_is_what_lies_there():
    start = state.initial(grass(2))
    start[SNOW][:] = 5.0
    expected = (DEPTH * start[THETA].values).sum(axis=0) + 5.0
    np.testing.assert_allclose(state.water(start).values, expected, rtol=1e-14)
    np.testing.assert_array_equal(state.water(start), state.water(start, grass(2)))


# --- how it forgets -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def simulated() -> tuple[xr.Dataset, xr.Dataset]:
    """A simulated year at eight places and their parameters."""
    place = xr.Dataset(coords={"lat": ("cell", SAHEL_TO_EQUATOR), "lon": ("cell", LONGITUDE)})
    climate = synthetic.climate(place)
    assert climate.rain.min() > 400.0
    year = synthetic.forcing(climate, pd.date_range("1995-01-01", "1995-12-31"))
    return year, tiled(8, broadleaf_tree=0.2, c4_grass=0.5, shrub=0.1, bare_soil=0.2)


def apart(one: xr.Dataset, other: xr.Dataset, name: str) -> float:
    return float(np.abs(one[name].values - other[name].values).max())


@pytest.mark.parametrize("precision", ["double", "single"])
def test_a_year_repeated_forgets_wet_and_dry_cold_and_warm(simulated, precision, capsys):
    """Settled to 1 kg m-2 and 0.1 K a cycle, states from either end agree to 0.01 m3 m-3 and 0.05 K."""
    year, soil = simulated
    model = Land("1h", precision=precision)
    starts = state.initial(soil, 0.3, 283.0), state.initial(soil, 0.95, 303.0), state.initial(soil, 0.6)
    ends = [state.spin_up(model, start, year, soil) for start in starts]
    for end in ends:
        assert end.attrs["spin_up_unsettled"] == 0 and 1 < end.attrs["spin_up_cycles"] <= 20
        assert end.attrs["spin_up_change"] <= end.attrs["spin_up_tolerance"] == 1.0
        assert end.attrs["spin_up_temperature_change"] <= end.attrs["spin_up_temperature_tolerance"] == 0.1
        assert apart(end, ends[0], THETA) < 0.01 and apart(end, ends[0], SOIL_TEMPERATURE) < 0.05
    with capsys.disabled():
        print(f"\n{precision}, Africa simulated: {[end.attrs['spin_up_cycles'] for end in ends]} cycles", end="")


def test_temperature_must_settle_too(simulated):
    """Where any change of water will do, a start 20 K too cold takes more than one cycle, and an unknown one two."""
    year, soil = simulated

    def cycles(start: xr.Dataset, kelvin: float) -> int:
        ended = state.spin_up(Land("3h"), start, year, soil, tolerance=1e9, temperature_tolerance=kelvin)
        return ended.attrs["spin_up_cycles"]

    cold = state.initial(soil, temperature=278.0)
    assert cycles(cold, 0.1) > cycles(cold, 5.0) >= 2 and cycles(cold, 1e9) == 1
    assert cycles(state.initial(soil), 1e9) == 2, "what cannot be compared has not settled"


def test_a_model_without_temperature_settles_by_its_water(simulated):
    year, _ = simulated
    end = state.spin_up(LandDaily(), state.initial(grass(8)), year, grass(8))
    assert end.attrs["spin_up_unsettled"] == 0
    assert not [name for name in end.attrs if "temperature" in name]


def test_what_has_not_settled_is_said(simulated):
    year, soil = simulated
    end = state.spin_up(Land("3h"), state.initial(soil, 0.95, 290.0), year, soil, cycles=1)
    assert end.attrs["spin_up_cycles"] == 1 and end.attrs["spin_up_unsettled"] == 8


@pytest.mark.real_data
def test_loobos_settles(real_data, capsys):
    """Pines on sand under the weather of 1997, half-hourly, with frozen soil in winter."""
    with xr.open_dataset(real_data / "jules" / "loobos_forcing.nc", engine="netcdf4") as raw:
        names = {"sw_down": "surface_downwelling_shortwave_flux_in_air", "t": "air_temperature", "wind": "wind_speed"}
        names |= {"lw_down": "surface_downwelling_longwave_flux_in_air", "pstar": "surface_air_pressure"}
        names |= {"q": "specific_humidity", "tot_rain": "rainfall_flux", "tot_snow": "snowfall_flux"}
        values = {
            ours: (("time", "cell"), raw[name].values[:, None], {"units": VARIABLES[ours].units})
            for name, ours in names.items()
        }
        place = {"lat": ("cell", [52.168]), "lon": ("cell", [5.744])}
        year = xr.Dataset(values, {"time": raw["time"].values, **place})
    sand = xr.Dataset({name: ("cell", [share]) for name, share in (("sand", 0.9), ("silt", 0.06), ("clay", 0.04))})
    soil = assemble(sand, np.array([[1.0 if name == "needleleaf_tree" else 0.0] for name in TILES]))
    starts = state.initial(soil, 0.2, 275.0), state.initial(soil, 0.95, 293.0)
    ends = [state.spin_up(Land("30min", wind_height=10.0, air_height=10.0), start, year, soil) for start in starts]
    assert all(end.attrs["spin_up_unsettled"] == 0 for end in ends)
    assert apart(*ends, THETA) < 0.002 and apart(*ends, SOIL_TEMPERATURE) < 0.05
    with capsys.disabled():
        print(f"\nLoobos 1997: {[end.attrs['spin_up_cycles'] for end in ends]} cycles", end="")
