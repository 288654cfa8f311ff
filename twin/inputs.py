"""What a land model with an energy balance is given: forcing, parameters and state, checked before the first step."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xarray as xr

from twin import checks
from twin.errors import RangeError, UnitsError, VariableError
from twin.parameters import TILES
from twin.variables import LAYERS, VARIABLES

THETA, SOIL_TEMPERATURE = "volume_fraction_of_condensed_water_in_soil", "soil_temperature"
SURFACE_TEMPERATURE, CANOPY, SNOW = "surface_temperature", "canopy_water_amount", "surface_snow_amount"
WATER_TABLE, DEEP = "water_table_depth", "deep_saturation"
RAIN, SNOWFALL, PRECIPITATION = "rainfall_flux", "snowfall_flux", "precipitation_flux"
SUNLIGHT = "surface_downwelling_shortwave_flux_in_air"
WEATHER = (
    SUNLIGHT,
    "surface_downwelling_longwave_flux_in_air",
    "air_temperature",
    "specific_humidity",
    "wind_speed",
    "surface_air_pressure",
)
SOIL = ("b", "psi_s", "K_s", "theta_s", "theta_c", "theta_w", "heat_capacity", "heat_conductivity", "soil_albedo")
# longest step of an energy balance, s: with 24 h it diverges, with 6 h it loses a tenth of its evapotranspiration
LONGEST = 10800
DAY = 86400  # s
DEEPEST = 100.0  # m, deepest water table taken as one
# what daily forcing may also have, NaN where it is not known: unit, largest value
OPTIONAL = {SNOWFALL: ("kg m-2 s-1", 0.02), "air_temperature_range": ("K", 60.0)}
_BRIGHTEST, _WETTEST = 1500.0, 0.05  # W m-2, kg m-2 s-1: limits of a step, which are wider than those of a day


def phases(forcing: xr.Dataset) -> tuple[str, ...]:
    """How the forcing tells its precipitation: rain and snow apart, or all of it."""
    return (RAIN, SNOWFALL) if RAIN in forcing and SNOWFALL in forcing else (PRECIPITATION,)


def check_forcing(forcing: xr.Dataset, *, daily: bool = False) -> int:
    """The step of the forcing in whole seconds.

    daily   days are accepted besides steps of at most 3 h; they start at 00:00 UTC
    Raises VariableError, UnitsError or RangeError for what cannot be used.
    """
    checks.check_present(forcing, ("time", *WEATHER, *phases(forcing)), "forcing")
    step = _step(forcing["time"].values.astype("datetime64[ns]"), daily)
    for name in (*WEATHER, *phases(forcing)):
        variable, row = forcing[name], VARIABLES[name]
        if variable.dims != ("time", "cell"):
            raise VariableError(f"dims of '{name}'", expected=("time", "cell"), found=variable.dims, where="forcing")
        if variable.attrs.get("units") != row.units:
            found = repr(variable.attrs.get("units"))
            raise UnitsError(f"'{name}'", expected=row.units, found=found, where="forcing")
        most = row.valid_max
        if step < DAY:
            most = _BRIGHTEST if name == SUNLIGHT else _WETTEST if row.units == "kg m-2 s-1" else most
        check_values(name, variable.values, row.valid_min, most, "forcing")
    if step == DAY:
        check_optional(forcing)
    return step


def check_optional(daily: xr.Dataset) -> None:
    """Units and ranges of what daily forcing may also have, where it is known (OPTIONAL)."""
    for name, (units, most) in OPTIONAL.items():
        if name not in daily:
            continue
        found = daily[name].attrs.get("units")
        if found != units:
            raise UnitsError(f"'{name}'", expected=units, found=repr(found), where="daily forcing")
        values = daily[name].values
        wrong = (values < 0.0) | (values > most)
        if wrong.any():
            expected, value = f"0 to {most:g} {units}", f"{values[wrong][0]:g}"
            raise RangeError(f"'{name}'", expected=expected, found=value, where="daily forcing")


def _step(times: np.ndarray, daily: bool) -> int:
    steps = np.unique(np.diff(times)) / np.timedelta64(1, "s")
    if len(times) == 1 and daily:
        steps = np.array([float(DAY)])
    day = daily and len(steps) == 1 and steps[0] == DAY
    if len(steps) != 1 or steps[0] % 1 or not (0 < steps[0] <= LONGEST or day):
        found = ", ".join(f"{step:g} s" for step in steps[:3]) or f"{len(times)} time"
        expected = "at most 3 h, or 1 day, without gaps" if daily else "at most 3 h, without gaps"
        raise RangeError("time step", expected=expected, found=found, where="forcing")
    if (times.astype("datetime64[s]") != times).any():
        raise RangeError("times", expected="whole seconds", found=str(times[0]), where="forcing")
    if day and (times.astype("datetime64[D]") != times).any():
        raise RangeError("times of days", expected="00:00 UTC", found=str(times[0]), where="forcing")
    return int(steps[0])


def check_parameters(parameters: xr.Dataset, forcing: xr.Dataset) -> xr.Dataset:
    """SOIL by (layer, cell), `tile_fraction` (tile, cell), lat and lon, float64; where all ice, no pores.

    lat and lon may come with the forcing. Raises VariableError and RangeError for what is missing or impossible.
    """
    cells = forcing.sizes["cell"]
    if cells == 0:
        raise VariableError("cells", expected="at least one", found="none", where="forcing")
    checks.check_present(parameters, (*SOIL, "tile_fraction"), "parameters")
    fractions = parameters["tile_fraction"]
    if "tile" not in fractions.dims or fractions.sizes["tile"] != len(TILES):
        raise VariableError(
            "'tile_fraction'", expected=f"dims (tile, cell), tiles {', '.join(TILES)}", found=fractions.dims
        )
    _check_tiles(fractions, "parameters")
    ready = xr.Dataset(coords={name: ("cell", _places(name, forcing, parameters)) for name in ("lat", "lon")})
    fraction = shaped(parameters, "tile_fraction", ("tile", "cell"), (len(TILES), cells))
    check_values("tile_fraction", fraction, 0.0, 1.0, "parameters")
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
    for name in SOIL:
        dims, shape = (("cell",), (cells,)) if name == "soil_albedo" else (("layer", "cell"), (len(LAYERS), cells))
        values = shaped(parameters, name, dims, shape)
        check_values(name, values, 0.0, 1.0 if name in ("soil_albedo", "theta_s") else np.inf, "parameters")
        ready[name] = dims, np.where(ice == 1.0, 0.0, values) if name == "theta_s" else values
    wrong = (ready["theta_c"].values > ready["theta_s"].values) & (ready["theta_s"].values > 0.0)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        found, most = ready["theta_c"].values[at], ready["theta_s"].values[at]
        raise RangeError("theta_c", expected=f"at most theta_s, {most:g}", found=f"{found:g}", where=f"cell {at[-1]}")
    return ready


def _check_tiles(values: xr.DataArray | xr.Dataset, where: str) -> None:
    if "tile" in values.coords and tuple(values["tile"].values) != TILES:
        raise VariableError("tiles", expected=TILES, found=tuple(values["tile"].values), where=where)


def check_state(
    state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset, keep: Collection[str] = ()
) -> xr.Dataset:
    """The state with water and temperature of every layer and tile, float64, and the variables to keep as they are.

    Water on leaves and snow by (cell) is taken for each tile's. Where it has no temperatures, they are the air's of the
    first step: nothing later, so that a run does not depend on how long it is. Raises VariableError, RangeError.
    """
    cells, tiles = forcing.sizes["cell"], len(TILES)
    checks.check_present(state, (THETA, CANOPY, SNOW), "state")
    _check_tiles(state, "state")
    ready = xr.Dataset(coords=parameters.coords)
    theta = shaped(state, THETA, ("layer", "cell"), (len(LAYERS), cells))
    check_values(THETA, theta, 0.0, 1.0, "state")
    ready[THETA] = ("layer", "cell"), theta
    for name, most in ((CANOPY, 50.0), (SNOW, 2e4)):
        values = shaped(state, name, ("tile", "cell"), (tiles, cells))
        check_values(name, values, 0.0, most, "state")
        ready[name] = ("tile", "cell"), values
    air = forcing["air_temperature"].values[0].astype(np.float64)
    for name, dims, size in (
        (SOIL_TEMPERATURE, ("layer", "cell"), len(LAYERS)),
        (SURFACE_TEMPERATURE, ("tile", "cell"), tiles),
    ):
        values = shaped(state, name, dims, (size, cells)) if name in state else np.broadcast_to(air, (size, cells))
        check_values(name, values, 150.0, 400.0, "state")
        ready[name] = dims, values
    for name, most in ((WATER_TABLE, DEEPEST), (DEEP, 1.0)):
        if name in keep and name in state:
            check_values(name, shaped(state, name, ("cell",), (cells,)), 0.0, most, "state")
    return ready.assign({name: state[name].variable for name in keep if name in state})


def shaped(ds: xr.Dataset, name: str, dims: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A variable as float64 of `dims` and `shape`; the same in every layer or tile where it has none."""
    found = ds[name] if set(ds[name].dims) - set(dims) else ds[name].transpose(*dims, missing_dims="ignore")
    if found.dims not in (dims, dims[-1:]) or found.shape not in (shape, shape[-1:]):
        raise VariableError(f"'{name}'", expected=f"{dims} {shape}", found=f"{found.dims} {found.shape}")
    return np.broadcast_to(found.values.astype(np.float64), shape)


def _places(name: str, forcing: xr.Dataset, parameters: xr.Dataset) -> np.ndarray:
    here = [np.asarray(ds[name].values, dtype=np.float64) for ds in (parameters, forcing) if name in ds.coords]
    if not here:
        raise VariableError(f"'{name}'", expected=f"a coordinate '{name}' of the cells", found="none", where="forcing")
    if here[0].shape != here[-1].shape or not np.allclose(here[0], here[-1], rtol=0.0, atol=1e-3):
        raise VariableError(f"'{name}'", expected="the cells of the forcing", found="other cells", where="parameters")
    return here[0]


def check_values(name: str, values: np.ndarray, low: float, high: float, where: str) -> None:
    """Raise RangeError for the first value that is missing or outside."""
    wrong = ~((values >= low) & (values <= high))
    if wrong.any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        found = f"{values[at]:g} at {list(at)}, {int(wrong.sum())} of {wrong.size} values"
        raise RangeError(f"'{name}'", expected=f"{low:g} to {high:g}", found=found, where=where)
