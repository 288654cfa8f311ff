"""What Land refuses at the door: each message names the thing, what was expected and what was found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import parameters, state
from twin.errors import RangeError, Rejected, SettingsError, TwinError, UnitsError, VariableError
from twin.land import Land
from twin.variables import VARIABLES

CELLS = 3
AIR, RAIN, WIND = "air_temperature", "precipitation_flux", "wind_speed"
SW, CARBON = "surface_downwelling_shortwave_flux_in_air", "mole_fraction_of_carbon_dioxide_in_air"
CALM = {
    RAIN: 1e-5,
    AIR: 285.0,
    "specific_humidity": 0.006,
    WIND: 2.0,
    "surface_air_pressure": 1e5,
    SW: 150.0,
    "surface_downwelling_longwave_flux_in_air": 310.0,
}


def forcing(times: int = 4, step: str = "1h", start: str = "2001-05-01") -> xr.Dataset:
    data = {name: (("time", "cell"), np.full((times, CELLS), x), VARIABLES[name].attrs) for name, x in CALM.items()}
    place = {"lat": ("cell", [1.0, 2.0, 3.0]), "lon": ("cell", [10.0, 20.0, 30.0])}
    return xr.Dataset(data, {"time": pd.date_range(start, periods=times, freq=step), **place})


def soil(variant: str = "cosby") -> xr.Dataset:
    texture = xr.Dataset({n: ("cell", np.full(CELLS, x)) for n, x in (("sand", 0.4), ("silt", 0.4), ("clay", 0.2))})
    fraction = np.zeros((9, CELLS))
    fraction[parameters.TILES.index("c3_grass")] = 1.0
    return parameters.assemble(texture, fraction, variant)


def cover(**shares: float) -> dict[str, object]:
    values = [[shares.get(tile, 0.0)] * CELLS for tile in parameters.TILES]
    return {"tile_fraction": (("tile", "cell"), values)}


def run(model: Land | None = None, weather: xr.Dataset | None = None, ds: xr.Dataset | None = None, **changed):
    ds = soil() if ds is None else ds
    start = state.initial(ds).assign(changed)
    return (model or Land()).run(start, forcing() if weather is None else weather, ds)


def message(error: type[TwinError], call) -> str:
    with pytest.raises(error) as found:
        call()
    assert found.value.expected and found.value.found
    return str(found.value)


def holed(name: str, value: float) -> xr.Dataset:
    weather = forcing()
    weather[name].values[2, 1] = value
    return weather


# --- choices ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"step": "1D"}, "step: expected 30min, 1h or 3h: an energy balance with longer steps diverges, found 1D"),
        ({"step": "6h"}, "step: expected 30min, 1h or 3h: an energy balance with longer steps diverges, found 6h"),
        ({"step": "a while"}, "step: expected a length of time such as '1h', found a while"),
        ({"precision": "half"}, "precision: expected double, single, found half"),
        ({"retention": "campbell"}, "found campbell with newton"),
        ({"numerics": "explicit"}, "found brooks-corey with explicit"),
        ({"saturation_excess": "sideways"}, "saturation_excess: expected 'up'"),
        ({"runoff": "vic"}, "runoff: expected none, pdm, topmodel, found vic"),
        ({"shower": 1.5}, "shower: expected 0 to 1, found 1.5"),
        ({"diffuse": float("nan")}, "diffuse: expected 0 to 1, found nan"),
        ({"wind_height": 0.0}, "wind_height: expected 0.5 to 200, found 0.0"),
        ({"carbon_dioxide": 391.0}, "carbon_dioxide: expected 0.00015 to 0.002, found 391.0"),
        ({"fluxes": ("latent_heat",)}, "flux: expected water_evapotranspiration_flux"),
    ],
)
def test_a_choice_there_is_not(choice, words):
    assert words in message(SettingsError, lambda: Land(**choice))


@pytest.mark.parametrize(
    ("model", "weather", "words"),
    [
        (Land("3h"), forcing(), "step: expected one that divides the forcing's 3600 s, found 10800 s"),
        (Land(output="90min"), forcing(), "output: expected a multiple of 3600 s that divides a day"),
        (Land(output="5h"), forcing(10), "output: expected a multiple of 3600 s that divides a day"),
        (Land(output="30min"), forcing(), "output: expected a multiple of 3600 s that divides a day"),
    ],
)
def test_lengths_that_do_not_divide(model, weather, words):
    assert words in message(SettingsError, lambda: run(model, weather))


def test_forcing_that_is_no_whole_number_of_outputs():
    words = message(RangeError, lambda: run(Land(output="3h"), forcing(4)))
    assert words == "length of the forcing: expected whole intervals of 10800 s, found 4 steps of 3600 s"


def test_parameters_made_for_another_retention():
    words = message(SettingsError, lambda: run(Land(retention="van-genuchten")))
    assert words == "retention: expected brooks-corey, as the parameters are, found van-genuchten"
    words = message(SettingsError, lambda: run(Land(retention="brooks-corey"), ds=soil("toth-class")))
    assert words == "retention: expected van-genuchten, as the parameters are, found brooks-corey"


# --- forcing ----------------------------------------------------------------------------------------------------------
def gap() -> xr.Dataset:
    return forcing(6).isel(time=[0, 1, 2, 4, 5])


@pytest.mark.parametrize(
    ("error", "weather", "words"),
    [
        (RangeError, forcing(4, "6h"), "time step: expected at most 3 h, or 1 day, without gaps, found 21600 s"),
        (RangeError, gap(), "time step: expected at most 3 h, or 1 day, without gaps, found 3600 s, 7200 s (forcing)"),
        (RangeError, forcing(4, "15min"), "time step: expected 30 min, 1 h, 3 h or 1 day, found 900 s"),
        (RangeError, forcing(2, "1D", "2001-05-01T06"), "times of days: expected 00:00 UTC, found 2001-05-01T06"),
        (RangeError, holed(AIR, np.nan), "'air_temperature': expected 180 to 340, found nan at [2, 1], 1 of 12 values"),
        (RangeError, holed(AIR, 12.0), "'air_temperature': expected 180 to 340, found 12 at [2, 1]"),
        (RangeError, holed(SW, np.inf), f"'{SW}': expected 0 to 1500, found inf at [2, 1]"),
        (RangeError, holed(RAIN, -1e-9), "'precipitation_flux': expected 0 to 0.05, found -1e-09 at [2, 1]"),
        (
            VariableError,
            forcing().drop_vars(WIND),
            "variable 'wind_speed': expected 'wind_speed', found air_temperature",
        ),
        (VariableError, forcing().drop_vars("lat"), "'lat': expected a coordinate 'lat' of the cells, found none"),
        (VariableError, forcing().transpose("cell", "time"), "dims of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_forcing_that_cannot_be_used(error, weather, words):
    assert words in message(error, lambda: run(weather=weather))


def test_units_that_are_others():
    weather = forcing()
    weather[RAIN].attrs["units"] = "mm/day"
    words = message(UnitsError, lambda: run(weather=weather))
    assert words == "'precipitation_flux': expected kg m-2 s-1, found 'mm/day' (forcing)"


def test_what_a_day_may_have_besides():
    """Range of temperature and snowfall of daily forcing, by the rules of `forcing.disaggregate`."""
    for name, value, units in (("air_temperature_range", 9.0, "degC"), ("snowfall_flux", 1e-5, "mm/day")):
        weather = forcing(2, "1D").assign({name: (("time", "cell"), np.full((2, CELLS), value), {"units": units})})
        assert f"found '{units}'" in message(UnitsError, lambda weather=weather: run(weather=weather))
    cold = (("time", "cell"), np.full((2, CELLS), -9.0), {"units": "K"})
    weather = forcing(2, "1D").assign(air_temperature_range=cold)
    assert "'air_temperature_range': expected 0 to" in message(RangeError, lambda: run(weather=weather))


def test_carbon_dioxide_in_parts_per_million_or_by_cell():
    times = ("time", np.full(4, 391.0))
    assert "expected 0.00015 to 0.002, found 391" in message(
        RangeError, lambda: run(weather=forcing().assign({CARBON: times}))
    )
    cells = (("time", "cell"), np.full((4, CELLS), 4e-4))
    assert "expected time, found ('time', 'cell')" in message(
        VariableError, lambda: run(weather=forcing().assign({CARBON: cells}))
    )


# --- parameters -------------------------------------------------------------------------------------------------------
def everywhere(value: float) -> tuple[tuple[str, str], np.ndarray]:
    return ("tile", "cell"), np.full((9, CELLS), value)


@pytest.mark.parametrize(
    ("error", "changed", "words"),
    [
        (RangeError, cover(ice=1.0), "tile_fraction of ice: expected 0, as there is no land ice, found more (cell 0)"),
        (RangeError, cover(ice=0.5, lake=0.5), "tile_fraction of ice: expected 0 or 1, found 0.5 (cell 0)"),
        (RangeError, cover(shrub=0.7), "tile_fraction: expected 1 in all, found 0.7 (cell 0)"),
        (RangeError, cover(shrub=1.5, lake=-0.5), "'tile_fraction': expected 0 to 1"),
        (RangeError, {"theta_c": ("cell", [0.3, 0.05, 0.3])}, "parameter 'theta_c': expected finite and above theta_w"),
        (RangeError, {"K_s": ("cell", [1e-3, 0.0, 1e-3])}, "parameter 'K_s': expected finite and positive, found 0"),
        (RangeError, {"b": ("cell", [5.0, np.nan, 5.0])}, "'b': expected 0 to inf, found nan"),
        (RangeError, {"soil_albedo": ("cell", [0.1, -0.1, 0.1])}, "'soil_albedo': expected 0 to"),
        (RangeError, {"soil_albedo": ("cell", [0.1, 7.0, 0.1])}, "'soil_albedo': expected 0 to 1, found 7"),
        (VariableError, {"psi_s": ("month", np.ones(12))}, "'psi_s'"),
        (VariableError, {"canopy_height": ("layer", np.ones(4))}, "parameter 'canopy_height'"),
        (VariableError, {"root_depth": (("cell", "tile"), np.ones((CELLS, 9)))}, "parameter 'root_depth'"),
        (VariableError, {"leaf_area_index": (("month", "tile", "cell"), np.ones((3, 9, CELLS)))}, "'leaf_area_index'"),
        (RangeError, {"f_d": everywhere(np.nan)}, "'f_d'"),
        (RangeError, {"dq_crit": ("tile", np.full(9, np.nan))}, "'dq_crit'"),
        (RangeError, {"dq_crit": everywhere(0.0)}, "'dq_crit'"),
        (RangeError, {"root_depth": everywhere(0.0)}, "'root_depth'"),
        (RangeError, {"leaf_area_index": everywhere(-1.0)}, "'leaf_area_index'"),
        (RangeError, {"canopy_height": everywhere(-1.0)}, "'canopy_height'"),
        (RangeError, {"albedo": everywhere(7.0)}, "'albedo'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_parameters_that_cannot_be(error, changed, words):
    assert words in message(error, lambda: run(ds=soil().assign(changed)))


def test_tiles_in_another_order():
    ds = soil()
    ds = ds.isel(tile=slice(None, None, -1))
    assert message(VariableError, lambda: run(ds=ds)).startswith("tiles: expected ('broadleaf_tree'")


def test_what_is_missing():
    assert "variable 'K_s'" in message(VariableError, lambda: run(ds=soil().drop_vars("K_s")))
    words = message(VariableError, lambda: run(Land(runoff="topmodel")))
    assert "variable 'topographic_index'" in words and "parameters" in words
    elsewhere = soil().assign_coords(lat=("cell", [1.0, 2.0, 4.0]), lon=("cell", [10.0, 20.0, 30.0]))
    assert "'lat': expected the cells of the forcing, found other cells" in message(
        VariableError, lambda: run(ds=elsewhere)
    )


# --- state ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "name", "value", "words"),
    [
        (RangeError, state.THETA, (("layer", "cell"), np.full((4, CELLS), 30.0)), "expected 0 to 1, found 30"),
        (RangeError, state.SNOW, ("cell", np.full(CELLS, -1.0)), "'surface_snow_amount': expected 0 to"),
        (RangeError, "soil_temperature", (("layer", "cell"), np.full((4, CELLS), 12.0)), "150 to 400, found 12"),
        (VariableError, state.THETA, (("depth", "cell"), np.full((4, CELLS), 0.2)), f"'{state.THETA}'"),
        (VariableError, state.CANOPY, (("layer", "cell"), np.zeros((4, CELLS))), "'canopy_water_amount'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_cannot_be(error, name, value, words):
    assert words in message(error, lambda: run(**{name: value}))


def test_a_state_of_tiles_in_another_order():
    upside_down = {state.SNOW: (("tile", "cell"), np.ones((9, CELLS))), "tile": list(parameters.TILES[::-1])}
    assert message(VariableError, lambda: run(**upside_down)).startswith("tiles: expected ('broadleaf_tree'")


def test_a_deep_store_that_cannot_be():
    topography = {"topographic_index": 5.0, "topographic_index_deviation": 1.0, "transmissivity_decay": 1.0}
    ds = soil().assign({name: ("cell", np.full(CELLS, value)) for name, value in topography.items()})
    for name, value in (("deep_saturation", 7.0), ("water_table_depth", -5.0)):
        changed = {name: ("cell", np.full(CELLS, value))}
        words = message(RangeError, lambda changed=changed: run(Land(runoff="topmodel"), ds=ds, **changed))
        assert f"'{name}'" in words and f"found {value:g}" in words


def test_every_refusal_of_data_sets_it_aside():
    """Data that cannot be used are Rejected; choices of the operator are not."""
    for kind in (VariableError, RangeError, UnitsError):
        assert issubclass(kind, Rejected)
    assert not issubclass(SettingsError, Rejected)


def test_what_is_not_refused():
    """Precipitation in one, water on leaves by cell, no temperatures, one number for every tile: all of that runs."""
    _, series = run(**{name: ("cell", np.full(CELLS, 0.1)) for name in (state.CANOPY, state.SNOW)})
    assert np.isfinite(series["runoff_flux"].values).all() and series.sizes == {"time": 4, "cell": CELLS, "layer": 4}
    end, _ = run(weather=forcing(2, "1D"))
    assert end["surface_temperature"].dims == ("tile", "cell")
    for nothing in ("canopy_height", "leaf_area_index"):  # what a product has where nothing grows
        _, series = run(ds=soil().assign({nothing: everywhere(0.0)}))
        assert np.isfinite(series["surface_temperature"].values).all(), nothing
