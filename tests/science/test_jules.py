"""The JULES adapter: what it promises as a land model, and real output of JULES vn5.2 read by it."""

from __future__ import annotations

import pickle
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from twin import state as land_state
from twin.errors import RangeError, VariableError
from twin.jules import Jules, outputs
from twin.parameters import TILES
from twin.variables import LAYERS, VARIABLES

TESTS = Path(__file__).parents[1]
install = runpy.run_path(str(TESTS / "stand_in_jules.py"))["install"]
case = SimpleNamespace(**runpy.run_path(str(TESTS / "jules_case.py"))).case
THETA, CANOPY, SNOW = land_state.THETA, land_state.CANOPY, land_state.SNOW
ET, LAKE, RUNOFF, RAIN = (
    "water_evapotranspiration_flux",
    "lake_evaporation_flux",
    "runoff_flux",
    "precipitation_flux",
)
DEPTH = 1000.0 * np.array(LAYERS)[:, None]


@pytest.fixture
def jules(tmp_path):
    """Jules over a stand-in that is installed with the given faults, in a work directory of its own."""

    def make(version: str = "5.2", real: int = 8, changed: dict[str, str] | None = None, **options) -> Jules:
        folder = tmp_path / f"set-up {len(list(tmp_path.iterdir()))}"
        executable, namelists = install(folder, version=version, real=real, **changed or {})
        return Jules(executable, namelists, tmp_path / "work", version=version, **options)

    return make


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    assert set(left.variables) == set(right.variables)
    for name in left.variables:
        assert left[name].dims == right[name].dims, name
        assert left[name].values.tobytes() == right[name].values.tobytes(), name


def stored(state: xr.Dataset, parameters: xr.Dataset) -> np.ndarray:
    """Water in each cell, kg m-2."""
    on_tiles = (parameters["tile_fraction"] * (state[CANOPY] + state[SNOW])).sum("tile").values
    return (DEPTH * state[THETA].values).sum(axis=0) + on_tiles


# --- what every land model promises -----------------------------------------------------------------------------------
def test_water_closes_and_the_input_stays(jules):
    """To 1e-9 kg m-2 a step, as a double-precision JULES does, lakes' own evaporation aside."""
    start, forcing, parameters = case(5)
    before = [ds.copy(deep=True) for ds in (start, forcing, parameters)]
    end, series = jules().run(start, forcing, parameters)
    for left, right in zip(before, (start, forcing, parameters), strict=True):
        same(left, right)
    held = (DEPTH * series[THETA].values).sum(axis=1) + series[CANOPY].values + series[SNOW].values
    gained = np.diff(np.concatenate([stored(start, parameters)[None], held]), axis=0)
    passed = 3600.0 * (forcing[RAIN] - series[ET] + series[LAKE] - series[RUNOFF]).values
    assert np.abs(gained - passed).max() < 1e-9
    assert np.abs(stored(end, parameters) - held[-1]).max() < 1e-9
    assert series[LAKE].values.max() > 0.0 and series[SNOW].values.max() > 0.0
    for name in series.data_vars:
        assert series[name].dims == (("time", "layer", "cell") if series[name].ndim == 3 else ("time", "cell"))
        assert np.isfinite(series[name].values).all() and series[name].attrs["units"]
        if name in VARIABLES:
            assert series[name].attrs == VARIABLES[name].attrs
    assert series.indexes["time"].equals(forcing.indexes["time"])


def far(function, inputs):
    """A map as of a cluster: what it calls, and with what, has been bytes."""
    return [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item))) for item in inputs]


def test_two_halves_are_the_whole_and_any_tiling_gives_the_same_bits(jules):
    """Also from a state without temperatures or tiles, as the daily model's is."""
    start, forcing, parameters = case(4)
    plain = land_state.initial(parameters)
    for first in (start, plain):
        end, series = jules().run(first, forcing, parameters)
        half, one = jules(cells_per_process=3).run(first, forcing.isel(time=slice(0, 19)), parameters)
        with ThreadPoolExecutor(2) as pool:
            tiled = jules(cells_per_process=3, map=pool.map)
            whole, two = tiled.run(half, forcing.isel(time=slice(19, None)), parameters)
        same(end, whole)
        same(series, xr.concat([one, two], "time", data_vars="minimal"))


def test_cells_do_not_know_each_other(jules):
    order = [4, 1, 3]
    model, whole = jules(), case(5)
    end, series = model.run(*whole)
    few, part = model.run(*(ds.isel(cell=order) for ds in whole))
    same(series.isel(cell=order), part)
    same(end.isel(cell=order), few)
    again, _ = model.run(end.isel(cell=order), whole[1].isel(cell=order), whole[2].isel(cell=order))
    same(model.run(end, *whole[1:])[0].isel(cell=order), again)


def test_every_version_is_driven_in_its_own_form(jules):
    """Each refuses keys it does not know; one cell is described otherwise than several up to 5.9."""
    whole = case(3, 24)
    expected, others = jules("5.2").run(*whole)
    for version in ("5.0", "5.9", "6.1", "7.2"):
        end, series = jules(version, cells_per_process=2).run(*whole)
        same(series, others)
        same(end, expected)


def test_a_step_is_labelled_by_its_start(jules):
    """Snow that falls between 05:00 and 06:00 lies at the end of the step that is labelled 05:00."""
    start, forcing, parameters = case(2, 24)
    forcing["air_temperature"][:] = 265.0
    forcing[RAIN][:] = 0.0
    forcing[RAIN][5] = 1e-3
    _, series = jules().run(start, forcing, parameters)
    rise = np.diff(series[SNOW].values, axis=0)
    assert np.allclose(rise[4], 3.6, rtol=1e-12) and np.abs(np.delete(rise, 4, axis=0)).max() < 1e-12


@pytest.mark.parametrize("step", ["30min", "3h"])
def test_the_model_keeps_its_step_and_rain_and_snow_may_come_apart(jules, step):
    start, forcing, parameters = case(2, 24, step)
    cold = forcing["air_temperature"] <= 274.0
    parted = forcing.drop_vars(RAIN)
    for name, there in (("rainfall_flux", ~cold), ("snowfall_flux", cold)):
        parted[name] = forcing[RAIN].where(there, 0.0).assign_attrs(units="kg m-2 s-1")
    end, series = jules().run(start, forcing, parameters)
    other, again = jules().run(start, parted, parameters)
    same(series, again)
    same(end, other)


def test_days_are_means_of_their_steps_and_half_days_are_left_out(jules):
    whole = case(2, 96, start="2003-02-25T22:00")
    _, series = jules().run(*whole)
    end, daily = jules(daily=True).run(*whole)
    same(end, jules().run(*whole)[0])
    assert daily.attrs["partial_days"] == 2
    assert [str(day)[:10] for day in daily["time"].values] == ["2003-02-26", "2003-02-27", "2003-02-28"]
    for name in (ET, RUNOFF, "surface_upward_latent_heat_flux"):
        mean = series[name].values[2:74].reshape(3, 24, -1).mean(axis=1)
        assert np.allclose(daily[name].values, mean, rtol=1e-9, atol=1e-16)
    for name in (THETA, SNOW):
        assert np.array_equal(daily[name].values, series[name].values[25:74:24])


def test_changed_soil_moisture_is_what_a_run_goes_on_from(jules):
    """An analysis may change the water of some layers; the others keep their bits. Snow has layers and may not."""
    start, forcing, parameters = case(3, 24)
    model = jules()
    end, _ = model.run(start, forcing, parameters)
    analysed = end.copy(deep=True)
    analysed[THETA][1, 2] = 0.21
    _, series = model.run(analysed, forcing, parameters)
    _, background = model.run(end, forcing, parameters)
    assert (series[THETA] == background[THETA]).values[:, :, :2].all()
    assert abs(series[THETA].values[0, 1, 2] - 0.21) < 0.01 < abs(background[THETA].values[0, 1, 2] - 0.21)
    analysed[SNOW][0, 0] += 1.0
    with pytest.raises(VariableError, match=r"the snow of the JULES dump .* without jules_\* variables"):
        model.run(analysed, forcing, parameters)


def test_a_single_precision_build_is_read_and_goes_on(jules):
    """Its time axis is float32, its balance closes to what its reals resolve, a restart is exact all the same."""
    whole = case(3)
    model = jules(real=4)
    end, series = model.run(*whole)
    exact = jules().run(*whole)[1]
    assert np.abs(series[THETA] - exact[THETA]).max() < 1e-4
    half, _ = model.run(whole[0], whole[1].isel(time=slice(0, 24)), whole[2])
    same(end, model.run(half, whole[1].isel(time=slice(24, None)), whole[2])[0])
    with pytest.raises(RangeError, match=r"water balance of JULES.*≤ 1e-06"):
        jules(real=4, tolerance=1e-6).run(*whole)


def test_the_deep_store_of_topmodel_counts(jules):
    start, forcing, parameters = case(3)
    deep = {"deep_saturation": ("cell", np.full(3, 0.8)), "water_table_depth": ("cell", np.full(3, 3.6))}
    changed = {"jules_hydrology": "&jules_hydrology l_top = T, zw_max = 6.0 /\n"}
    model = jules(changed=changed)
    end, _ = model.run(start.assign(deep), forcing, parameters)
    assert (end["deep_saturation"] != 0.8).all()
    half, _ = model.run(start.assign(deep), forcing.isel(time=slice(0, 25)), parameters)
    same(end, model.run(half, forcing.isel(time=slice(25, None)), parameters)[0])


def test_land_ice_has_no_soil(jules):
    start, forcing, parameters = case(3, 24, ice=True)
    end, series = jules().run(start, forcing, parameters)
    assert (end[THETA].values[:, 2] == 0.0).all() and (series[THETA].values[:, :, :2] > 0.0).all()


def test_it_spins_up_as_any_model_does(jules):
    start, forcing, parameters = case(2, 24)
    spun = land_state.spin_up(jules(), start, forcing, parameters, cycles=2)
    assert spun.attrs["spin_up_cycles"] == 2


# --- real output of JULES vn5.2, double precision ---------------------------------------------------------------------
_NAMES = {
    "precipitation_flux": None,
    "air_temperature": "t",
    "specific_humidity": "q",
    "wind_speed": "wind",
    "surface_air_pressure": "pstar",
    "surface_downwelling_shortwave_flux_in_air": "sw_down",
    "surface_downwelling_longwave_flux_in_air": "lw_down",
}


def forcing_of(raw: xr.Dataset) -> xr.Dataset:
    """The forcing of a real run in our names, (time, cell)."""
    raw = raw if "land" in raw.dims else raw.expand_dims("land", -1)
    raw = raw.assign({"sum": raw["tot_rain"] + raw["tot_snow"]})
    data = {
        ours: (("time", "cell"), raw[name or "sum"].transpose("time", "land").values) for ours, name in _NAMES.items()
    }
    return xr.Dataset(data, {"time": raw["time"].values})


def as_written(folder: Path, profile: str, squeezed: xr.Dataset, lat: np.ndarray, lon: np.ndarray) -> None:
    """A real output file put back into the layout JULES wrote it in: classic, (time, [soil,] y, x), seconds."""
    kept = [name for name in squeezed.data_vars if "time" in squeezed[name].dims and "tile" not in squeezed[name].dims]
    wide = squeezed[[name for name in kept if "pft" not in squeezed[name].dims and name != "time_bounds"]]
    wide = wide.reset_coords(drop=True).assign_coords(time=squeezed["time"])
    wide = wide.rename_dims(land="x") if "land" in wide.dims else wide.expand_dims("x", -1)
    wide = wide.expand_dims("y", -2).transpose("time", "soil", "y", "x", missing_dims="ignore")
    wide = wide.assign(
        latitude=(("y", "x"), lat[None]), longitude=(("y", "x"), lon[None]), elake=0.0 * wide["smcl"].isel(soil=0)
    )
    encoding = {name: {"_FillValue": None} for name in wide.variables}
    wide.to_netcdf(folder / f"twin.{profile}.nc", engine="netcdf4", format="NETCDF3_CLASSIC", encoding=encoding)


def opened(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, engine="netcdf4", decode_times=False, mask_and_scale=False).load()


@pytest.mark.real_data
def test_a_real_year_of_half_hours_closes_in_our_names(real_data, tmp_path):
    """Loobos 1997 from its real initial dump: P − E − R = ΔS to 1e-6 kg m-2 a day (evaporation is kept in float32).

    Grid-box means of the dump's tiles, signs, units and times must all be right for it to close, day by day.
    """
    folder = tmp_path / "twin_output"
    folder.mkdir()
    data = real_data / "jules"
    dump = (data / "loobos_bc_initdump.nc").read_bytes()
    for stamp in ("19961231.82800", "19971231.82800"):  # the final dump of that run is not kept: read the first twice
        (folder / f"twin.dump.{stamp}.nc").write_bytes(dump)
    steps = opened(data / "loobos_bc_tstep.nc")
    lat, lon = np.array([52.168]), np.array([5.744])
    for profile in ("mean", "state"):
        as_written(folder, profile, steps, lat, lon)
    raw = xr.open_dataset(data / "loobos_forcing.nc", engine="netcdf4")
    parameters = xr.Dataset(
        {
            "theta_s": (("layer", "cell"), np.full((4, 1), raw["sm_sat"].item())),
            "tile_fraction": (("tile", "cell"), raw["frac"].values[:, None]),
        },
        {"lat": ("cell", lat), "lon": ("cell", lon)},
    )
    given = dict(daily=False, deep=None, steps=48, first=0, where="Loobos")
    end, series = outputs.read(tmp_path, forcing_of(raw), parameters, tolerance=1e-6, **given)
    assert series.sizes["time"] == 17520 and str(series["time"].values[0]) == "1996-12-31T23:00:00.000000000"
    assert np.array_equal(series[THETA].values[:, :, 0], steps["smcl"].values / DEPTH.T)
    annual = 1800.0 * series[[ET, RUNOFF]].sum("time")
    assert annual[ET].item() == pytest.approx(679.0, abs=0.5)  # the annual budget of that run, mm
    assert annual[RUNOFF].item() == pytest.approx(3.0 + 86.4, abs=0.5)
    assert end[THETA].values[:, 0] == pytest.approx(steps["smcl"].values[0] / DEPTH[:, 0], abs=0.01)
    assert end[SNOW].values.min() == 0.0 > opened(data / "loobos_bc_initdump.nc")["snow_tile"].values.min()
    moved = forcing_of(raw)
    moved[RAIN] = moved[RAIN].roll(time=48, roll_coords=False)
    with pytest.raises(RangeError, match="water balance of JULES"):
        outputs.read(tmp_path, moved, parameters, tolerance=1e-6, **given)


@pytest.mark.real_data
def test_a_real_grid_of_days_closes_in_our_names(real_data, tmp_path):
    """200 points, one year from 23:00: 364 whole days; daily means and states in float32 close to 2e-3 kg m-2 a day."""
    folder = tmp_path / "twin_output"
    folder.mkdir()
    data = real_data / "jules"
    ancillaries = xr.open_dataset(data / "grid200_ancil.nc", engine="netcdf4")
    lat, lon = ancillaries["latitude"].values.astype(float), ancillaries["longitude"].values.astype(float)
    for profile, name in (("mean", "daymean"), ("state", "daysnap")):
        as_written(folder, profile, opened(data / f"grid200_bc_{name}.nc"), lat, lon)
    with xr.open_dataset(data / "loobos_bc_initdump.nc", engine="netcdf4") as dump:
        wide = dump.load().isel(land=np.zeros(200, int))
        wide.to_netcdf(folder / "twin.dump.19971231.82800.nc", engine="netcdf4", format="NETCDF3_CLASSIC")
    parameters = xr.Dataset(
        {
            "theta_s": (("layer", "cell"), np.repeat(ancillaries["sm_sat"].values[None].astype(float), 4, axis=0)),
            "tile_fraction": (("tile", "cell"), ancillaries["frac"].values),
        },
        {"lat": ("cell", lat), "lon": ("cell", lon)},
    )
    raw = xr.open_dataset(data / "grid200_forcing.nc", engine="netcdf4")
    _, series = outputs.read(
        tmp_path,
        forcing_of(raw),
        parameters,
        daily=True,
        deep=None,
        steps=48,
        tolerance=2e-3,
        first=0,
        where="grid",
    )
    assert series.sizes == {"time": 364, "layer": 4, "cell": 200} and series.attrs["partial_days"] == 2
    assert str(series["time"].values[0])[:10] == "1997-01-01"
    budget = 86400.0 * series[ET].sum("time").values
    assert 230.0 < budget.min() < budget.max() < 870.0  # 236 to 864 mm over the 300 points of that run
    assert len(TILES) == parameters.sizes["tile"]
