"""What JULES reads: a copy of the user's namelists with what the twin controls set, and three NetCDF files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from twin.errors import SettingsError, VariableError
from twin.inputs import phases
from twin.jules import namelist, versions
from twin.jules.names import (
    CANOPY,
    DEEP,
    DUMP,
    IN,
    MEAN,
    OUT,
    PARTED,
    RUN,
    SNOW,
    SOIL,
    SOIL_TEMPERATURE,
    STATE,
    SURFACE_TEMPERATURE,
    THETA,
    TOTAL,
    WEATHER,
)

_DRIVE, _ANCILLARIES, _INITIAL = (f"{IN}/{name}.nc" for name in ("drive", "ancillaries", "initial"))
_DIMS = {"cell": "land", "layer": "soil"}  # ours, JULES'
_SNOW_BELOW = 274.0  # K, JULES' default of t_for_snow
_GIVEN = {"cs": 10.0, "gs": 0.0, "rgrain": 50.0}  # kg m-2, m s-1, µm: where the user gives no constant
_DAY = 86400

# file, group, what to set, which other keys to drop (None: all)
Edit = tuple[str, str, dict[str, Any], Iterable[str] | None]


def write(
    folder: Path,
    files: Mapping[str, str],
    version: str,
    daily: bool,
    state: xr.Dataset,
    forcing: xr.Dataset,
    parameters: xr.Dataset,
    output: Mapping[str, list[str]],
) -> int:
    """The namelists and the input of a run in `folder`, and room for its output.

    files    the user's namelists by name; state, forcing and parameters as `twin.jules.accept` makes them ready
    output   profile to the variables JULES is to write out, for every step of the forcing or UTC day, if `daily`
    returns  the step of the model, s: the user's, or its largest part that also divides the forcing's
    Raises SettingsError for a namelist that cannot be edited, VariableError for a state that is not one.
    """
    (folder / IN).mkdir()
    (folder / OUT).mkdir()
    ancillaries = _ancillaries(parameters)
    initial = _initial(state, parameters, ancillaries)
    for ds, name in ((_drive(forcing), _DRIVE), (ancillaries, _ANCILLARIES), (initial, _INITIAL)):
        # 64-bit offsets: every netCDF library since 2005 reads them; nothing is packed or missing
        encoding = {variable: {"_FillValue": None} for variable in ds.variables}
        ds.to_netcdf(folder / name, engine="netcdf4", format="NETCDF3_64BIT", encoding=encoding)

    step = period(forcing)[2]
    timestep = math.gcd(namelist.value(files["timesteps"], "jules_time", "timestep_len", step), step)
    texts = dict(files)
    texts["output"] = namelist.remove(texts["output"], "jules_output_profile")
    for file, group, new, drop in (
        *_times(forcing, timestep),
        *_grid(version, parameters),
        *_soil(files),
        _weather(files, forcing),
        _start(files, state, initial),
        ("output", "jules_output", {"run_id": RUN, "output_dir": OUT, "nprofiles": len(output)}, _DUMP_PERIOD),
    ):
        try:
            texts[file] = namelist.edit(texts[file], group, new, drop)
        except SettingsError as err:
            raise SettingsError(err.what, expected=err.expected, found=err.found, where=f"{file}.nml") from err
    for profile, variables in output.items():
        texts["output"] += "\n" + namelist.written("jules_output_profile", _profile(profile, variables, forcing, daily))
    for name, text in texts.items():
        (folder / f"{name}.nml").write_bytes(text.encode(errors="surrogateescape"))
    return timestep


def link(namelists: Path, folder: Path) -> None:
    """Links in `folder` to all the user keeps beside the namelists, so that relative paths in them hold."""
    for path in namelists.iterdir():
        if path.suffix != ".nml" and path.name not in (IN, OUT):
            (folder / path.name).symlink_to(path.absolute())


def period(forcing: xr.Dataset) -> tuple[np.datetime64, np.datetime64, int]:
    """Start and end of the forcing, and its step in seconds."""
    times = forcing["time"].values.astype("datetime64[s]")
    step = times[1] - times[0]
    return times[0], times[-1] + step, int(step.astype(int))


def precipitation(forcing: xr.Dataset) -> dict[str, str]:
    """JULES' names to ours for rain and snow if the forcing has both, else for their sum."""
    return PARTED if phases(forcing) == tuple(PARTED.values()) else TOTAL


def snow(dump: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Snow on each tile, kg m-2: on leaves or ground, and under leaves; JULES leaves tiny negative amounts."""
    return np.maximum(dump["snow_tile"] + dump.get("snow_grnd", 0.0), 0.0)


# --- namelists --------------------------------------------------------------------------------------------------------
_DUMP_PERIOD = ("dump_period", "dump_period_unit")  # a dump at the end is enough


def _times(forcing: xr.Dataset, timestep: int) -> list[Edit]:
    start, end, _ = period(forcing)
    time = {"timestep_len": timestep, "main_run_start": _time(start), "main_run_end": _time(end)}
    return [("timesteps", "jules_time", time, ()), ("timesteps", "jules_spinup", {"max_spinup_cycles": 0}, None)]


def _grid(version: str, parameters: xr.Dataset) -> list[Edit]:
    """A vector of land points."""
    cells = parameters.sizes["cell"]
    named = {f"{name}_dim_name": name for name in ("time", "soil", "type", "tile")}
    grid = {"grid_is_1d": True, "npoints": cells, "grid_dim_name": "land", **named}
    place = versions.latlon(version, cells, float(parameters["lat"][0]), float(parameters["lon"][0]), _ANCILLARIES)
    land = {"file": _ANCILLARIES, "land_frac_name": "land_fraction"}
    return [
        ("model_grid", "jules_input_grid", grid, ("nx", "ny", "x_dim_name", "y_dim_name")),
        ("model_grid", "jules_latlon", place, None),
        ("model_grid", "jules_land_frac", land, None),
        ("model_grid", "jules_model_grid", {"land_only": True, "use_subgrid": False}, None),
    ]


def _soil(files: Mapping[str, str]) -> list[Edit]:
    """Tile fractions, and soil by layer: reading it as uniform with depth failed up to 5.8."""
    soil = {"const_z": False, "file": _ANCILLARIES, **_listed(files, "ancillaries", "jules_soil_props", list(SOIL), {})}
    return [
        ("ancillaries", "jules_frac", {"file": _ANCILLARIES, "frac_name": "frac"}, None),
        ("ancillaries", "jules_soil_props", soil, None),
    ]


def _weather(files: Mapping[str, str], forcing: xr.Dataset) -> Edit:
    """Driving data held over each of its steps ('nf')."""
    start, end, step = period(forcing)
    names = [*WEATHER, *precipitation(forcing)]
    drive = {"data_start": _time(start), "data_end": _time(end), "data_period": step, "file": _DRIVE}
    drive |= {"nvars": len(names), "var": names, "var_name": names, "interp": ["nf"] * len(names)}
    drive["t_for_snow"] = namelist.value(files["drive"], "jules_drive", "t_for_snow", _SNOW_BELOW)
    return "drive", "jules_drive", drive, ("read_list", "nfiles", "tpl_name")


def _start(files: Mapping[str, str], state: xr.Dataset, initial: xr.Dataset) -> Edit:
    """From JULES' own dump, which holds all it needs; or from values, all snow lying on the ground."""
    if _restarts(state):
        begin: dict[str, Any] = {"dump_file": True, "total_snow": False, "file": _INITIAL, "nvars": 0}
    else:
        given = _listed(files, "initial_conditions", "jules_initial", [str(name) for name in initial], _GIVEN)
        begin = {"dump_file": False, "total_snow": True, "file": _INITIAL, **given}
    return "initial_conditions", "jules_initial", begin, None


def _profile(profile: str, variables: list[str], forcing: xr.Dataset, daily: bool) -> dict[str, Any]:
    """An output profile; days must begin at midnight."""
    start, _, step = period(forcing)
    if daily:
        start = (start + np.timedelta64(_DAY - 1, "s")).astype("datetime64[D]")
    return {
        "profile_name": profile,
        "output_main_run": True,
        "output_start": _time(start),
        "output_period": _DAY if daily else step,
        "nvars": len(variables),
        "var": variables,
        "output_type": [{MEAN: "M", STATE: "S"}[profile]] * len(variables),
    }


def _listed(
    files: Mapping[str, str], file: str, group: str, ours: list[str], otherwise: Mapping[str, float]
) -> dict[str, Any]:
    """nvars, var, use_file and const_val of a group: ours from the file, and the constants the user gives for others.

    otherwise   constants for others the user gives none for
    Raises SettingsError for another variable that the user reads from a file, as that is on the user's grid.
    """
    user = namelist.values(files[file], group)
    use_file, const_val = (dict(enumerate(user.get(key, []))) for key in ("use_file", "const_val"))
    constants = dict(otherwise)
    for i, name in enumerate(user.get("var", [])):
        if not use_file.get(i, True) and i in const_val:
            constants[name] = const_val[i]
        elif name not in (*ours, *otherwise):
            raise SettingsError(f"'{name}' of {file}.nml", expected="a constant (use_file = F)", found="a file")
    names = [*ours, *(name for name in constants if name not in ours)]
    return {
        "nvars": len(names),
        "var": names,
        "var_name": names,
        "use_file": [name in ours for name in names],
        "const_val": [0.0 if name in ours else float(constants[name]) for name in names],
    }


def _time(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ")


# --- files ------------------------------------------------------------------------------------------------------------
def _drive(forcing: xr.Dataset) -> xr.Dataset:
    names = {**WEATHER, **precipitation(forcing)}
    return xr.Dataset({name: (("time", "land"), forcing[ours].values) for name, ours in names.items()})


def _ancillaries(parameters: xr.Dataset) -> xr.Dataset:
    """Soil, tile fractions and places as JULES calls them; all is land."""
    variables: dict[str, Any] = {name: _renamed(parameters[ours].variable) for name, ours in SOIL.items()}
    variables["frac"] = ("type", "land"), parameters["tile_fraction"].values
    variables["latitude"] = "land", parameters["lat"].values
    variables["longitude"] = "land", parameters["lon"].values
    variables["land_fraction"] = "land", np.ones(parameters.sizes["cell"])
    return xr.Dataset(variables)


def _initial(state: xr.Dataset, parameters: xr.Dataset, ancillaries: xr.Dataset) -> xr.Dataset:
    """The initial state: JULES' dump if the state carries one, else what it needs to start from values.

    Soil moisture that was changed since the dump is taken from the state; a change of the snow is refused, as it would
    leave the layers of the pack behind.
    """
    theta, pores = state[THETA].values, parameters["theta_s"].values
    wetness = np.divide(theta, pores, out=np.zeros_like(theta), where=pores > 0.0)
    dump = {str(name).removeprefix(DUMP): state[name].variable for name in state if str(name).startswith(DUMP)}
    deep = {name: ("land", state[ours].values) for name, ours in DEEP.items() if ours in state}
    tile: tuple[Any, ...] = ("tile", "land")
    soil: tuple[Any, ...] = ("soil", "land")
    file = {name: _renamed(variable) for name, variable in dump.items()}
    if _restarts(state):
        absent = parameters["tile_fraction"].values == 0.0
        if (~absent & (snow({name: v.values for name, v in dump.items()}) != state[SNOW].values)).any():
            expected = f"the snow of the JULES dump in the state (or a state without {DUMP}* variables)"
            raise VariableError(f"'{SNOW}'", expected=expected, found="other values", where="state")
        tile, soil = file["snow_tile"].dims, file["sthuf"].dims  # some versions may call them otherwise
        wetness = np.where(dump["sthuf"].values * pores == theta, dump["sthuf"].values, wetness)
        file |= {str(name): v for name, v in ancillaries.drop_vars("land_fraction").variables.items()}
    else:
        file = {"snow_tile": xr.Variable(tile, state[SNOW].values)}
    own = {"sthuf": xr.Variable(soil, wetness), "t_soil": xr.Variable(soil, state[SOIL_TEMPERATURE].values)}
    own |= {"canopy": xr.Variable(tile, state[CANOPY].values)}
    own |= {"tstar_tile": xr.Variable(tile, state[SURFACE_TEMPERATURE].values)}
    return xr.Dataset({**file, **own, **deep})


def _restarts(state: xr.Dataset) -> bool:
    """Whether the state carries what JULES dumped at its time."""
    return f"{DUMP}sthuf" in state


def _renamed(variable: xr.Variable) -> xr.Variable:
    """Our dims as JULES calls them; its own lose their prefix."""
    return xr.Variable([_DIMS.get(str(dim), str(dim).removeprefix(DUMP)) for dim in variable.dims], variable.values)
