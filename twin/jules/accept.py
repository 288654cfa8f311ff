"""What is accepted: namelists, forcing, parameters and state, checked and made ready before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, SettingsError, UnitsError, VariableError
from twin.jules import namelist, versions
from twin.jules.inputs import precipitation
from twin.jules.names import CANOPY, DEEP, DUMP, SNOW, SOIL, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA, WEATHER
from twin.parameters import TILES
from twin.variables import LAYERS, VARIABLES

LONGEST = 10800  # s, longest step of forcing an energy balance can be driven by
_BRIGHTEST, _WETTEST = 1500.0, 0.05  # W m-2, kg m-2 s-1: limits of a step, which are wider than those of a day

# Switches that would make JULES do other than the twin asks: file, group, key, the value it must have, why.
_MUST = (
    ("jules_rivers", "jules_rivers", "l_rivers", False, "rivers join cells that run apart"),
    ("jules_surface", "jules_surface", "l_aggregate", False, "the state has nine tiles"),
    ("jules_soil", "jules_soil", "l_tile_soil", False, "the state has one soil column a cell"),
    ("jules_vegetation", "jules_vegetation", "l_veg_compete", False, "tile fractions are parameters"),
    ("jules_water_resources", "jules_water_resources", "l_water_resources", False, "it joins cells that run apart"),
    ("timesteps", "jules_time", "l_360", False, "the calendar is the real one"),
    ("timesteps", "jules_time", "l_leap", True, "the calendar is the real one"),
    ("timesteps", "jules_time", "l_local_solar_time", False, "times are UTC"),
    ("drive", "jules_drive", "l_imogen", False, "the twin drives"),
    ("imogen", "imogen_onoff_switch", "l_imogen", False, "the twin drives"),
    ("drive", "jules_drive", "l_daily_disagg", False, "the forcing has its steps"),
    ("drive", "jules_drive", "l_perturb_driving", False, "the forcing is used as it is"),
)
_SURFACE_TYPES = {"npft": 5, "nnvg": 4, "urban": 6, "lake": 7, "soil": 8, "ice": 9}  # the order of TILES


def read_namelists(folder: Path) -> dict[str, str]:
    """Text of every namelist file, by its name without `.nml`; SettingsError where there is none."""
    if not folder.is_dir():
        raise SettingsError(
            "JULES namelists", expected="a folder of .nml files", found=str(folder), where="TWIN_MODEL__NAMELISTS"
        )
    files = {path.stem: path.read_bytes().decode(errors="surrogateescape") for path in sorted(folder.glob("*.nml"))}
    if not files:
        raise SettingsError(
            "JULES namelists",
            expected="a folder of .nml files",
            found=f"none in {folder}",
            where="TWIN_MODEL__NAMELISTS",
        )
    return files


def check_namelists(files: Mapping[str, str], version: str) -> None:
    """Raise SettingsError for a missing file, other surface types or layers, or a switch the twin cannot live with."""
    if absent := [f"{name}.nml" for name in versions.needed(version) if name not in files]:
        raise SettingsError("JULES namelists", expected=f"those of version {version}", found=f"no {', '.join(absent)}")
    for key, expected in _SURFACE_TYPES.items():
        found = namelist.value(files["jules_surface_types"], "jules_surface_types", key)
        if found != expected and not (found is None and key not in ("npft", "nnvg", "soil")):
            raise SettingsError(f"{key} of jules_surface_types.nml", expected=expected, found=found)
    soil = namelist.values(files["jules_soil"], "jules_soil")
    if tuple(soil.get("dzsoil_io", LAYERS)) != LAYERS:
        raise SettingsError("dzsoil_io of jules_soil.nml", expected=LAYERS, found=soil["dzsoil_io"])
    for file, group, key, value, why in _MUST:
        found = namelist.value(files.get(file, ""), group, key, value)
        if found != value:
            raise SettingsError(f"{key} of {file}.nml", expected=f"{value}, as {why}", found=found)


def check_forcing(forcing: xr.Dataset) -> int:
    """The step of the forcing in whole seconds; VariableError, UnitsError, RangeError for what cannot be used."""
    names = [*WEATHER.values(), *precipitation(forcing).values()]
    checks.check_present(forcing, ("time", *names), "forcing")
    for name in names:
        wide = VARIABLES.get(name, VARIABLES["precipitation_flux"])
        if forcing[name].dims != ("time", "cell"):
            raise VariableError(
                f"dims of '{name}'", expected=("time", "cell"), found=forcing[name].dims, where="forcing"
            )
        if forcing[name].attrs.get("units") != wide.units:
            found = repr(forcing[name].attrs.get("units"))
            raise UnitsError(f"'{name}'", expected=wide.units, found=found, where="forcing")
        most = {WEATHER["sw_down"]: _BRIGHTEST}.get(name, _WETTEST if wide.units == "kg m-2 s-1" else wide.valid_max)
        _check_finite(name, forcing[name].values, wide.valid_min, most, "forcing")
    times = forcing["time"].values.astype("datetime64[ns]")
    steps = np.unique(np.diff(times)) / np.timedelta64(1, "s")
    if len(times) < 2 or len(steps) != 1 or steps[0] % 1 or not 0 < steps[0] <= LONGEST:
        found = ", ".join(f"{step:g} s" for step in steps[:3]) or f"{len(times)} time"
        raise RangeError(
            "time step",
            expected="one of at most 3 h, without gaps; disaggregate daily means",
            found=found,
            where="forcing",
        )
    if (times.astype("datetime64[s]") != times).any():
        raise RangeError("times", expected="whole seconds", found=str(times[0]), where="forcing")
    return int(steps[0])


def check_parameters(parameters: xr.Dataset, forcing: xr.Dataset) -> xr.Dataset:
    """Soil by (layer, cell), `tile_fraction` (tile, cell), lat and lon, float64; where all ice, no pores.

    lat and lon may come with the forcing. Raises VariableError and RangeError for what is missing or impossible.
    """
    cells = forcing.sizes["cell"]
    checks.check_present(parameters, (*SOIL.values(), "tile_fraction"), "parameters")
    fractions = parameters["tile_fraction"]
    if "tile" not in fractions.dims or fractions.sizes["tile"] != len(TILES):
        raise VariableError(
            "'tile_fraction'", expected=f"dims (tile, cell), tiles {', '.join(TILES)}", found=fractions.dims
        )
    if "tile" in fractions.coords and tuple(fractions["tile"].values) != TILES:
        raise VariableError("tiles", expected=TILES, found=tuple(fractions["tile"].values), where="parameters")
    ready = xr.Dataset(coords={name: ("cell", _place(name, forcing, parameters)) for name in ("lat", "lon")})
    fraction = shaped(parameters, "tile_fraction", ("tile", "cell"), (len(TILES), cells))
    _check_finite("tile_fraction", fraction, 0.0, 1.0, "parameters")
    wrong = np.abs(fraction.sum(axis=0) - 1.0) > 1e-6
    if wrong.any():
        cell = int(np.argmax(wrong))
        raise RangeError(
            "tile_fraction", expected="1 in all", found=f"{fraction[:, cell].sum():.6g}", where=f"cell {cell}"
        )
    ice = fraction[TILES.index("ice")]
    if ((ice > 0.0) & (ice < 1.0)).any():
        cell = int(np.argmax((ice > 0.0) & (ice < 1.0)))
        raise RangeError("tile_fraction of ice", expected="0 or 1", found=f"{ice[cell]:.6g}", where=f"cell {cell}")
    ready["tile_fraction"] = ("tile", "cell"), fraction
    for name in SOIL.values():
        dims, shape = (("cell",), (cells,)) if name == "soil_albedo" else (("layer", "cell"), (len(LAYERS), cells))
        values = shaped(parameters, name, dims, shape)
        _check_finite(name, values, 0.0, np.inf, "parameters")
        ready[name] = dims, np.where(ice == 1.0, 0.0, values) if name == "theta_s" else values
    return ready


def check_state(state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> xr.Dataset:
    """The state with every variable JULES starts from, float64, and what it kept of an earlier run of JULES.

    Water on leaves and snow by (cell) is taken for each tile's. Where it has no temperatures, they are the air's of the
    first step: nothing later, so that a run does not depend on how long it is. Raises VariableError, RangeError.
    """
    cells, tiles = forcing.sizes["cell"], len(TILES)
    checks.check_present(state, (THETA, CANOPY, SNOW), "state")
    ready = xr.Dataset(coords=parameters.coords)
    theta = shaped(state, THETA, ("layer", "cell"), (len(LAYERS), cells))
    _check_finite(THETA, theta, 0.0, 1.0, "state")
    ready[THETA] = ("layer", "cell"), theta
    for name, most in ((CANOPY, 50.0), (SNOW, 2e4)):
        values = shaped(state, name, ("tile", "cell"), (tiles, cells))
        _check_finite(name, values, 0.0, most, "state")
        ready[name] = ("tile", "cell"), values
    air = forcing["air_temperature"].values[0].astype(np.float64)
    for name, dims, size in (
        (SOIL_TEMPERATURE, ("layer", "cell"), len(LAYERS)),
        (SURFACE_TEMPERATURE, ("tile", "cell"), tiles),
    ):
        values = shaped(state, name, dims, (size, cells)) if name in state else np.broadcast_to(air, (size, cells))
        _check_finite(name, values, 150.0, 400.0, "state")
        ready[name] = dims, values
    kept = {name: state[name] for name in state.data_vars if str(name).startswith((DUMP, *DEEP.values()))}
    return ready.assign({name: value.variable for name, value in kept.items()})


def shaped(ds: xr.Dataset, name: str, dims: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A variable as float64 of `dims` and `shape`; the same in every layer or tile where it has none."""
    found = ds[name].transpose(*dims, missing_dims="ignore")
    if found.dims not in (dims, dims[-1:]) or found.shape not in (shape, shape[-1:]):
        raise VariableError(f"'{name}'", expected=f"{dims} {shape}", found=f"{found.dims} {found.shape}")
    return np.broadcast_to(found.values.astype(np.float64), shape)


def _place(name: str, forcing: xr.Dataset, parameters: xr.Dataset) -> np.ndarray:
    here = [np.asarray(ds[name].values, dtype=np.float64) for ds in (parameters, forcing) if name in ds.coords]
    if not here:
        raise VariableError(f"'{name}'", expected=f"a coordinate '{name}' of the cells", found="none", where="forcing")
    if here[0].shape != here[-1].shape or not np.allclose(here[0], here[-1], rtol=0.0, atol=1e-3):
        raise VariableError(f"'{name}'", expected="the cells of the forcing", found="other cells", where="parameters")
    return here[0]


def _check_finite(name: str, values: np.ndarray, low: float, high: float, where: str) -> None:
    """Raise RangeError for the first value that is missing or outside."""
    wrong = ~((values >= low) & (values <= high))
    if wrong.any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        found = f"{values[at]:g} at {list(at)}, {int(wrong.sum())} of {wrong.size} values"
        raise RangeError(f"'{name}'", expected=f"{low:g} to {high:g}", found=found, where=where)
