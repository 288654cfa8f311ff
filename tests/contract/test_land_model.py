"""What every land model promises: state in and out, nothing kept, the same bits however the work is cut."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from twin import state
from twin.errors import RangeError, Rejected, UnitsError, VariableError
from twin.jules import Jules
from twin.land import Land, LandDaily
from twin.model import LandModel
from twin.parameters import TILES, assemble, from_texture
from twin.variables import VARIABLES, with_role

TESTS = Path(__file__).parents[1]
install = runpy.run_path(str(TESTS / "stand_in_jules.py"))["install"]
case = SimpleNamespace(**runpy.run_path(str(TESTS / "jules_case.py"))).case
RAIN, AIR = "precipitation_flux", "air_temperature"
ALWAYS = (
    "volume_fraction_of_condensed_water_in_soil",
    "canopy_water_amount",
    "surface_snow_amount",
    "water_evapotranspiration_flux",
    "runoff_flux",
)
CELLS, DAYS = 5, 6


@dataclass
class Case:
    """A model with what it is run on."""

    model: LandModel
    start: xr.Dataset
    forcing: xr.Dataset
    parameters: xr.Dataset

    def run(self, **changed: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        given = {"state": self.start, "forcing": self.forcing, "parameters": self.parameters} | changed
        return self.model.run(**given)


def weather() -> xr.Dataset:
    """Days about freezing, wet and dry, as means of the hours of `case`."""
    hours = case(CELLS, 24 * DAYS)[1]
    days = hours.resample(time="1D").mean()
    return days.map(lambda values: values.transpose("time", "cell").assign_attrs(hours[values.name].attrs))


def soils(forcing: xr.Dataset) -> xr.Dataset:
    rng = np.random.default_rng(11)
    parts = rng.dirichlet([4.0, 4.0, 2.0], CELLS).T
    texture = {name: ("cell", part) for name, part in zip(("sand", "silt", "clay"), parts, strict=True)}
    return xr.Dataset(texture, {name: forcing[name] for name in ("lat", "lon")})


def on_grass(model: LandModel) -> Case:
    forcing = weather()
    texture = soils(forcing)
    parameters = from_texture(texture["sand"], texture["silt"], texture["clay"])
    return Case(model, state.initial(parameters), forcing, parameters)


def on_tiles(model: LandModel) -> Case:
    """Every cell on other surface types, lakes too."""
    forcing = weather()
    fraction = np.random.default_rng(5).dirichlet(np.ones(len(TILES) - 1), CELLS).T
    fraction[:4, 0] = fraction[:4, 0].sum(), 0.0, 0.0, 0.0
    parameters = assemble(soils(forcing), np.concatenate([fraction, np.zeros((1, CELLS))]))
    return Case(model, state.initial(parameters, temperature=275.0), forcing, parameters)


def daily(_folder: Path) -> Case:
    return on_grass(LandDaily())


def daily_single(_folder: Path) -> Case:
    return on_grass(LandDaily(precision="single"))


def hourly(_folder: Path) -> Case:
    return on_tiles(Land())


def hourly_single(_folder: Path) -> Case:
    return on_tiles(Land(precision="single"))


def jules(folder: Path) -> Case:
    executable, namelists = install(folder / "set-up")
    return on_tiles(Jules(executable, namelists, folder / "work", cells_per_process=3))


MODELS: tuple[Callable[[Path], Case], ...] = (daily, daily_single, hourly, hourly_single, jules)


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__)
def given(request, tmp_path) -> Case:
    return request.param(tmp_path)


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    """The same variables, dims, types and bits."""
    assert set(left.variables) == set(right.variables)
    for name in left.variables:
        assert (left[name].dims, left[name].dtype) == (right[name].dims, right[name].dtype), name
        assert left[name].values.tobytes() == right[name].values.tobytes(), name


def test_what_goes_in_is_not_changed_and_nothing_is_kept(given):
    before = [ds.copy(deep=True) for ds in (given.start, given.forcing, given.parameters)]
    first = given.run()
    for left, right in zip(before, (given.start, given.forcing, given.parameters), strict=True):
        same(left, right)
    for left, right in zip(first, given.run(), strict=True):
        same(left, right)


def test_two_parts_are_the_whole(given):
    """Also where the second part is a single day."""
    end, series = given.run()
    half, one = given.run(forcing=given.forcing.isel(time=slice(0, DAYS - 1)))
    last, two = given.run(state=half, forcing=given.forcing.isel(time=slice(DAYS - 1, None)))
    same(end, last)
    same(series, xr.concat([one, two], "time", data_vars="minimal"))


def test_cells_do_not_know_each_other(given):
    end, series = given.run()
    some = [4, 1, 3]
    few, part = given.run(
        **{
            name: ds.isel(cell=some)
            for name, ds in (("state", given.start), ("forcing", given.forcing), ("parameters", given.parameters))
        }
    )
    same(end.isel(cell=some), few)
    same(series.isel(cell=some), part)


def test_diagnostics_are_those_of_the_table(given):
    _, series = given.run()
    assert given.model.name and given.model.version
    assert set(ALWAYS) <= set(series.data_vars)
    assert series.indexes["time"].equals(given.forcing.indexes["time"]), "a day is labelled by its start"
    for name, values in series.data_vars.items():
        row = VARIABLES[str(name)]
        assert values.dims == row.dims and values.attrs == row.attrs
        assert np.isfinite(values.values).all()
        assert values.values.min() >= row.valid_min and values.values.max() <= row.valid_max, name


def test_states_are_those_at_the_end_of_the_step(given):
    """The last diagnostics are the state that goes on; snow that falls on a day lies there at its end."""
    end, series = given.run()
    theta = end["volume_fraction_of_condensed_water_in_soil"].values
    np.testing.assert_allclose(series["volume_fraction_of_condensed_water_in_soil"].values[-1], theta, rtol=1e-6)
    cold = given.forcing.copy(deep=True)
    cold[AIR][:], cold["specific_humidity"][:], cold["wind_speed"][:], cold[RAIN][:] = 262.0, 1.4e-3, 0.5, 0.0
    cold[RAIN][2] = 1e-4
    _, series = given.run(forcing=cold)
    snow = np.diff(series["surface_snow_amount"].values, axis=0)
    assert (snow[1] > 0.5 * 8.64).all() and (snow[[0, 2, 3, 4]] < 0.5).all()


def test_water_is_neither_made_nor_lost(given):
    """P − E − R = ΔS to 1e-6 kg m-2 a day and cell in double precision; lakes' evaporation comes from outside."""
    end, series = given.run()
    stored = [state.water(land, given.parameters).values for land in (given.start, end)]
    lakes = series.get("lake_evaporation_flux", 0.0)
    gained = given.forcing[RAIN] - series["water_evapotranspiration_flux"] + lakes - series["runoff_flux"]
    gained = 86400.0 * gained.transpose("time", "cell").values.astype(np.float64).sum(axis=0)
    tolerance = 0.02 if getattr(given.model, "precision", "double") == "single" else 1e-6 * DAYS
    np.testing.assert_allclose(stored[1] - stored[0], gained, rtol=0.0, atol=tolerance)


def without(name: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda forcing: forcing.drop_vars(name)


def in_units(name: str, units: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda forcing: forcing.assign({name: forcing[name].assign_attrs(units=units)})


def holding(name: str, value: float) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(forcing: xr.Dataset) -> xr.Dataset:
        changed = forcing.copy(deep=True)
        changed[name][3, 1] = value
        return changed

    return change


REFUSED = {
    "a variable is missing": (without(AIR), VariableError, "air_temperature"),
    "rain in mm a day": (in_units(RAIN, "mm/day"), UnitsError, "'precipitation_flux': expected kg m-2 s-1, found 'mm"),
    "air in degrees": (in_units(AIR, "degree_Celsius"), UnitsError, "'air_temperature': expected K, found"),
    "NaN": (holding("specific_humidity", np.nan), RangeError, "'specific_humidity': expected .* found nan"),
    "impossible": (holding("wind_speed", 400.0), RangeError, "'wind_speed': expected 0 to 60.* found 400 "),
    "a gap": (lambda forcing: forcing.isel(time=[0, 1, 3, 4]), RangeError, "time step: expected .*without gaps"),
    "dims": (lambda forcing: forcing.transpose("cell", "time"), VariableError, "dims of '.*: expected .*time.*cell"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_forcing_it_cannot_use_is_refused(given, what):
    change, kind, message = REFUSED[what]
    with pytest.raises(kind, match=message) as error:
        given.run(forcing=change(given.forcing))
    assert isinstance(error.value, Rejected) and "forcing" in str(error.value)


def test_other_cells_are_refused(given):
    moved = given.parameters.assign_coords(lat=given.parameters["lat"] + 1.0)
    with pytest.raises(VariableError, match="the cells of the forcing"):
        given.run(parameters=moved)


def test_the_forcing_of_the_table_is_all_it_needs(given):
    assert {row.name for row in with_role("forcing")} == set(given.forcing.data_vars)
