"""What JULES reads: a copy of the user's namelists with what the twin controls set, and three NetCDF files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, SettingsError, UnitsError, VariableError
from twin.jules import namelist, versions
from twin.parameters import TILES
from twin.variables import LAYERS, VARIABLES

THETA, CANOPY, SNOW = "volume_fraction_of_condensed_water_in_soil", "canopy_water_amount", "surface_snow_amount"
SOIL_TEMPERATURE, SURFACE_TEMPERATURE = "soil_temperature", "surface_temperature"
DEPTH = 1000.0 * np.array(LAYERS)[:, None]  # kg m-2 of water in a layer that is all water

# JULES' name: ours. Units are the same.
WEATHER = {
    "sw_down": "surface_downwelling_shortwave_flux_in_air",
    "lw_down": "surface_downwelling_longwave_flux_in_air",
    "t": "air_temperature",
    "wind": "wind_speed",
    "pstar": "surface_air_pressure",
    "q": "specific_humidity",
}
TOTAL = {"precip": "precipitation_flux"}
PARTED = {"tot_rain": "rainfall_flux", "tot_snow": "snowfall_flux"}
SOIL = {
    "b": "b",
    "sathh": "psi_s",
    "satcon": "K_s",
    "sm_sat": "theta_s",
    "sm_crit": "theta_c",
    "sm_wilt": "theta_w",
    "hcap": "heat_capacity",
    "hcon": "heat_conductivity",
    "albsoil": "soil_albedo",
}
DUMP = "jules_"  # what of JULES' own state no variable of ours holds is kept under this prefix and JULES' name
DEEP = {"sthzw": "deep_saturation", "zw": "water_table_depth"}  # with TOPMODEL

IN, OUT, RUN = "twin_input", "twin_output", "twin"  # folders inside a run directory, and the name of the run
LONGEST = 10800  # s, longest step of forcing an energy balance can be driven by
_BRIGHTEST, _WETTEST = 1500.0, 0.05  # W m-2, kg m-2 s-1: limits of a step, which are wider than those of a day
_ZERO = 273.15
_SNOW_BELOW = 274.0  # K, JULES' default of t_for_snow
_GIVEN = {"cs": 10.0, "gs": 0.0, "rgrain": 50.0}  # kg m-2, m s-1, µm: for an initial state that does not say

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


def precipitation(forcing: xr.Dataset) -> dict[str, str]:
    """JULES' names to ours for rain and snow if the forcing has both, else for their sum."""
    return PARTED if all(name in forcing for name in PARTED.values()) else TOTAL


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


def write(
    folder: Path,
    namelists: Path,
    version: str,
    daily: bool,
    state: xr.Dataset,
    forcing: xr.Dataset,
    parameters: xr.Dataset,
    means: list[str],
    states: list[str],
) -> int:
    """Everything of a run in `folder`: edited namelists, links to the user's other files, input, room for the output.

    means, states   what to write out as means over, and at the end of, every step (or UTC day, if `daily`)
    returns         the step of the model, s: the user's, or its largest part that also divides the forcing's
    All other arguments are as checked by the functions above.
    """
    files = read_namelists(namelists)
    for path in namelists.iterdir():
        if path.suffix != ".nml" and path.name not in (IN, OUT):
            (folder / path.name).symlink_to(path.absolute())
    (folder / IN).mkdir()
    (folder / OUT).mkdir()
    start, end, step = period(forcing)
    here = {name: f"{IN}/{name}.nc" for name in ("drive", "ancillaries", "initial")}
    _to_netcdf(_drive(forcing), folder / here["drive"])
    ancillaries = _ancillaries(parameters)
    _to_netcdf(ancillaries, folder / here["ancillaries"])

    cells = forcing.sizes["cell"]
    lat, lon = float(parameters["lat"][0]), float(parameters["lon"][0])
    names = {"grid_dim_name": "land", "time_dim_name": "time", "soil_dim_name": "soil"}
    names |= {"type_dim_name": "type", "tile_dim_name": "tile"}
    grid = {"grid_is_1d": True, "npoints": cells, **names}
    plain = {"land_only": True, "use_subgrid": False}
    latlon = versions.latlon(version, cells, lat, lon, here["ancillaries"])
    land = {"file": here["ancillaries"], "land_frac_name": "land_fraction"}
    first = -(-start.astype("datetime64[s]").astype(int) // 86400) * 86400 if daily else start.astype(int)
    output = {
        "output_main_run": True,
        "output_start": _time(np.datetime64(int(first), "s")),
        "output_period": 86400 if daily else step,
    }

    def change(file: str, group: str, new: Mapping[str, Any], drop: Any = ()) -> None:
        try:
            files[file] = namelist.edit(files[file], group, new, drop)
        except SettingsError as err:
            raise SettingsError(err.what, expected=err.expected, found=err.found, where=f"{file}.nml") from err

    timestep = math.gcd(namelist.value(files["timesteps"], "jules_time", "timestep_len", step), step)
    time = {"timestep_len": timestep, "main_run_start": _time(start), "main_run_end": _time(end)}
    change("timesteps", "jules_time", time)
    change("timesteps", "jules_spinup", {"max_spinup_cycles": 0}, None)
    change("model_grid", "jules_input_grid", grid, ("nx", "ny", "x_dim_name", "y_dim_name"))
    change("model_grid", "jules_latlon", latlon, None)
    change("model_grid", "jules_land_frac", land, None)
    change("model_grid", "jules_model_grid", plain, None)
    change("ancillaries", "jules_frac", {"file": here["ancillaries"], "frac_name": "frac"}, None)
    soil = {
        "const_z": False,
        "file": here["ancillaries"],
        **_variables(files, "ancillaries", "jules_soil_props", list(SOIL)),
    }
    change("ancillaries", "jules_soil_props", soil, None)
    rain = list({**WEATHER, **precipitation(forcing)})
    drive = {
        **{"data_start": _time(start), "data_end": _time(end), "data_period": step, "file": here["drive"]},
        **{"nvars": len(rain), "var": rain, "var_name": rain, "interp": ["nf"] * len(rain)},
    }
    drive["t_for_snow"] = namelist.value(files["drive"], "jules_drive", "t_for_snow", _SNOW_BELOW)
    change("drive", "jules_drive", drive, ("read_list", "nfiles", "tpl_name"))
    initial = _initial(state, parameters, ancillaries)
    _to_netcdf(initial, folder / here["initial"])
    if restarts(state):
        begin = {"dump_file": True, "total_snow": False, "file": here["initial"], "nvars": 0}
    else:
        given = _variables(files, "initial_conditions", "jules_initial", [str(name) for name in initial], _GIVEN)
        begin = {"dump_file": False, "total_snow": True, "file": here["initial"], **given}
    change("initial_conditions", "jules_initial", begin, None)
    run = {"run_id": RUN, "output_dir": OUT, "nprofiles": 2}
    change("output", "jules_output", run, ("dump_period", "dump_period_unit"))
    files["output"] = namelist.remove(files["output"], "jules_output_profile")
    for profile, kind, variables in (("mean", "M", means), ("state", "S", states)):
        named = {"nvars": len(variables), "var": variables, "output_type": [kind] * len(variables)}
        files["output"] += "\n" + namelist.written("jules_output_profile", {"profile_name": profile, **output, **named})
    for name, text in files.items():
        (folder / f"{name}.nml").write_bytes(text.encode(errors="surrogateescape"))
    return timestep


def restarts(state: xr.Dataset) -> bool:
    """Whether the state carries what JULES dumped at its time."""
    return f"{DUMP}sthuf" in state


def period(forcing: xr.Dataset) -> tuple[np.datetime64, np.datetime64, int]:
    """Start and end of the forcing, and its step in seconds."""
    times = forcing["time"].values.astype("datetime64[s]")
    step = times[1] - times[0]
    return times[0], times[-1] + step, int(step.astype(int))


def snow(dump: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Snow on each tile, kg m-2: on leaves or ground, and under leaves; JULES leaves tiny negative amounts."""
    return np.maximum(dump["snow_tile"] + dump.get("snow_grnd", 0.0), 0.0)


def _variables(
    files: Mapping[str, str], file: str, group: str, ours: list[str], otherwise: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """nvars, var, use_file and const_val of a group: ours from the file, and the constants the user gives for others.

    otherwise   constants for others the user does not give
    Raises SettingsError for another variable that the user reads from a file, which is on the user's grid.
    """
    user = namelist.values(files[file], group)
    constants = dict(otherwise or {})
    for i, name in enumerate(user.get("var", [])):
        from_file = dict(enumerate(user.get("use_file", []))).get(i, True)
        if name in ours or (from_file and name in constants):
            continue
        value = dict(enumerate(user.get("const_val", []))).get(i)
        if from_file or value is None:
            raise SettingsError(f"'{name}' of {file}.nml", expected="a constant (use_file = F)", found="a file")
        constants[name] = value
    names = [*ours, *(name for name in constants if name not in ours)]
    return {
        "nvars": len(names),
        "var": names,
        "var_name": names,
        "use_file": [name in ours for name in names],
        "const_val": [0.0 if name in ours else float(constants[name]) for name in names],
    }


def _drive(forcing: xr.Dataset) -> xr.Dataset:
    names = {**WEATHER, **precipitation(forcing)}
    return xr.Dataset({name: (("time", "land"), forcing[ours].values) for name, ours in names.items()})


def _ancillaries(parameters: xr.Dataset) -> xr.Dataset:
    """Soil, tile fractions and places as JULES calls them; all is land."""
    variables: dict[str, Any] = {name: _renamed(parameters[ours].variable) for name, ours in SOIL.items()}
    variables["frac"] = ("type", "land"), parameters["tile_fraction"].values
    variables["latitude"], variables["longitude"] = (
        ("land", parameters["lat"].values),
        ("land", parameters["lon"].values),
    )
    variables["land_fraction"] = "land", np.ones(parameters.sizes["cell"])
    return xr.Dataset(variables)


def _initial(state: xr.Dataset, parameters: xr.Dataset, ancillaries: xr.Dataset) -> xr.Dataset:
    """The file of the initial state: JULES' dump if the state carries one, else what it needs to start from values.

    Soil moisture that was changed since the dump is taken from the state; a change of the snow is refused, as it would
    leave the layers of the pack behind.
    """
    theta, pores = state[THETA].values, parameters["theta_s"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        wetness = np.where(pores > 0.0, theta / pores, 0.0)
    file = xr.Dataset(
        {
            "canopy": (("tile", "land"), state[CANOPY].values),
            "tstar_tile": (("tile", "land"), state[SURFACE_TEMPERATURE].values),
            "t_soil": (("soil", "land"), state[SOIL_TEMPERATURE].values),
            "sthuf": (("soil", "land"), wetness),
        }
    )
    file = file.assign({name: ("land", state[ours].values) for name, ours in DEEP.items() if ours in state})
    if not restarts(state):
        return file.assign(snow_tile=(("tile", "land"), state[SNOW].values))
    dump = {str(name).removeprefix(DUMP): state[name].variable for name in state if str(name).startswith(DUMP)}
    absent = parameters["tile_fraction"].values == 0.0
    if (~absent & (snow({name: v.values for name, v in dump.items()}) != state[SNOW].values)).any():
        raise VariableError(
            f"'{SNOW}'",
            expected=f"the snow of the JULES dump in the state (or a state without {DUMP}* variables)",
            found="other values",
            where="state",
        )
    kept = dump["sthuf"].values
    dump["sthuf"] = xr.Variable(dump["sthuf"].dims, np.where(kept * pores == theta, kept, wetness))
    restored = {name: _renamed(variable) for name, variable in dump.items()}
    return file.assign(restored).assign(ancillaries.drop_vars("land_fraction").variables)


def _renamed(variable: xr.Variable) -> xr.Variable:
    """Our dims as JULES calls them; its own lose their prefix."""
    names = {"cell": "land", "layer": "soil"}
    dims = [names.get(str(dim), str(dim).removeprefix(DUMP)) for dim in variable.dims]
    return xr.Variable(dims, variable.values)


def _to_netcdf(ds: xr.Dataset, path: Path) -> None:
    """Classic NetCDF with 64-bit offsets, which every netCDF library since 2005 reads; nothing packed or missing."""
    encoding = {name: {"_FillValue": None} for name in ds.variables}
    ds.to_netcdf(path, engine="netcdf4", format="NETCDF3_64BIT", encoding=encoding)


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


def _time(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ")
