"""What JULES wrote, checked for what it does not check itself, in our names and units.

JULES labels by the end of a step and counts seconds in reals, float32 in a single-precision build; it calls a run good
that made NaN or lost water; it drops a last day that is not whole. Ref.: jules-lsm.github.io, "JULES output".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from twin.errors import AssetError, RangeError, SettingsError, TimeError, VariableError
from twin.jules import names
from twin.jules.inputs import period, precipitation, snow
from twin.jules.names import CANOPY, DEEP, DEPTH, DUMP, MEANS, RUNOFF, SNOW, STATES, THETA, Output
from twin.parameters import TILES
from twin.variables import VARIABLES

_MISSING = -1e20
_CLOSED = 1e-6  # kg m-2 a day: what a double-precision build must close to, beyond rounding
_STATE_UNITS = {names.SOIL_TEMPERATURE: "K", names.SURFACE_TEMPERATURE: "K", DEEP["sthzw"]: "1", DEEP["zw"]: "m"}
_DUMPED = re.compile(rf"{names.RUN}\.dump\.(\d{{8}})\.(\d+)\.nc")


def read(
    folder: Path,
    forcing: xr.Dataset,
    parameters: xr.Dataset,
    daily: bool,
    deep: float | None,
    steps: int,
    tolerance: float | None,
    first: int,
    where: str,
) -> tuple[xr.Dataset, xr.Dataset]:
    """(end state, diagnostics) of the run in `folder`, as `twin.model.LandModel.run` promises them.

    deep        depth of TOPMODEL's store below the soil, m, if there is one
    steps       model steps in a day, each of which may round the stores once
    tolerance   of the water balance, kg m-2 a day; by default from the precision of the build
    first       number of the first cell, for errors
    Raises AssetError, VariableError, TimeError, RangeError or SettingsError.
    """
    if spun := sorted(path.name for path in folder.joinpath(names.OUT).glob("*spin*")):
        raise SettingsError("JULES", expected="no spin-up, as set", found=", ".join(spun[:3]), where=where)
    start, end, step = period(forcing)
    edges, partial = _edges(start, end, step, daily)
    wanted = names.written(deep is not None)
    (means, fine), (states, coarse) = (
        _series(folder, profile, wanted[profile], edges, parameters, where) for profile in (names.MEAN, names.STATE)
    )
    for output, series in [(o, states) for o in STATES] + [(o, means) for o in MEANS]:
        _check_range(output, series[output.jules], edges, first, where)

    dumps = _dumps(folder)
    if end not in dumps:
        raise AssetError(
            "JULES dump", expected=f"one of {end}", found=", ".join(map(str, dumps)) or "none", where=where
        )
    stored = _stored(states, deep, parameters)
    if start == edges[0] and start in dumps:
        stored = np.concatenate([_stored_in(_dump(dumps[start], where), deep, parameters)[None], stored])
    else:
        stored = np.concatenate([np.full_like(stored[:1], np.nan), stored])
    parts = [forcing[name].values.astype(np.float64) for name in precipitation(forcing).values()]
    fall = _averaged(sum(parts[1:], parts[0]), forcing["time"].values.astype("datetime64[s]"), edges)
    days, miss = _imbalance(fall, means, stored, edges)
    allowed = _CLOSED + 2.0 * steps * max(fine, coarse) * np.nanmax(stored, axis=0)
    if tolerance is not None:
        allowed = np.full_like(allowed, tolerance)
    wrong = (miss > allowed) & (parameters["tile_fraction"].values[TILES.index("ice")] < 1.0)  # ice melts from no store
    if wrong.any():
        day, cell = (int(i) for i in np.unravel_index(int(np.argmax(np.where(wrong, miss, 0.0))), wrong.shape))
        cells = f"{wrong.any(axis=0).sum()} of {wrong.shape[1]} cells"
        raise RangeError(
            "water balance of JULES",
            expected=f"|P − E − R − ΔS| ≤ {allowed[cell]:.2g} kg m-2 a day",
            found=f"{miss[day, cell]:.3g} on {days[day]} in cell {first + cell}, {cells}",
            where=where,
        )

    place = {name: parameters[name] for name in ("lat", "lon")}
    series = {output.name: means[output.jules] for output in MEANS} | {o.name: states[o.jules] for o in STATES}
    series[RUNOFF] = series["surface_runoff_flux"] + series["subsurface_runoff_flux"]
    series[THETA] = np.clip(series[THETA] / DEPTH, 0.0, None)
    series[SNOW] = np.clip(series[SNOW], 0.0, None)  # JULES leaves tiny negative amounts on needles
    attrs = {o.name: {"units": o.units, "long_name": o.long_name} for o in (*MEANS, *STATES)}
    variables = {
        name: (
            ("time", "layer", "cell") if values.ndim == 3 else ("time", "cell"),
            values,
            _attrs(name, attrs.get(name)),
        )
        for name, values in series.items()
    }
    times = edges[:-1].astype("datetime64[ns]")
    diagnostics = xr.Dataset(variables, {"time": times, **place}, {"partial_days": partial} if daily else {})
    return _end_state(_dump(dumps[end], where), parameters, place), diagnostics


def _edges(start: np.datetime64, end: np.datetime64, step: int, daily: bool) -> tuple[np.ndarray, int]:
    """Bounds of the periods JULES writes out, datetime64[s], and how many days at either end are not whole."""
    day = np.timedelta64(1, "D")
    if not daily:
        return np.arange(start, end + np.timedelta64(step, "s"), np.timedelta64(step, "s")), 0
    first, last = (start + day - np.timedelta64(1, "s")).astype("datetime64[D]"), end.astype("datetime64[D]")
    if last <= first:
        raise TimeError("forcing", expected="a whole UTC day, for daily output", found=f"{start} to {end}")
    return np.arange(first, last + day).astype("datetime64[s]"), int(first != start) + int(last != end)


def _series(
    folder: Path, profile: str, wanted: list[str], edges: np.ndarray, parameters: xr.Dataset, where: str
) -> tuple[dict[str, np.ndarray], float]:
    """Each variable of a profile, (time, [layer,] cell) in float64, and the relative rounding of the file's reals."""
    path = folder / names.OUT / f"{names.RUN}.{profile}.nc"
    ds = _open(path, where)
    absent = [name for name in ("time", "latitude", "longitude", *wanted) if name not in ds.variables]
    if absent:
        raise VariableError(
            f"JULES output {path.name}", expected=", ".join(absent), found="no such variable", where=where
        )
    _check_times(ds["time"], edges, f"{path.name}, {where}")
    for name, ours in (("latitude", "lat"), ("longitude", "lon")):
        found, expected = ds[name].values.ravel().astype(np.float64), parameters[ours].values
        if found.shape != expected.shape or np.abs((found - expected + 180.0) % 360.0 - 180.0).max() > 1e-3:
            raise VariableError(f"{name} of JULES output", expected="the cells of the run", found="others", where=where)
    series = {}
    for name in wanted:
        values = ds[name].values.reshape(*ds[name].shape[:-2], -1).astype(np.float64)  # y and x are one vector of land
        series[name] = np.where(values <= 0.99 * _MISSING, np.nan, values)
    return series, max(float(np.finfo(ds[name].dtype).eps) for name in wanted)


def _open(path: Path, where: str) -> xr.Dataset:
    """All of a NetCDF file as it is. Raises AssetError for one that is missing, unreadable or shorter than it says."""
    if not path.is_file():
        raise AssetError("JULES output", expected=path.name, found="no such file", where=where)
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_cf=False) as ds:
            ds = ds.load()
    except (OSError, RuntimeError, ValueError) as err:
        raise AssetError("JULES output", expected=f"{path.name} in NetCDF", found=str(err), where=where) from err
    least = sum(variable.nbytes for variable in ds.variables.values())
    if path.stat().st_size < least:  # the library reads zeros where a classic file was cut
        found = f"{path.stat().st_size} bytes"
        raise AssetError(f"JULES output {path.name}", expected=f"at least {least} bytes", found=found, where=where)
    return ds


def _check_times(time: xr.DataArray, edges: np.ndarray, where: str) -> None:
    """Raise TimeError unless the records end at edges[1:], up to what their reals can tell apart."""
    units = re.fullmatch(r"seconds since (\S+)[ T](\S+)", str(time.attrs.get("units", "")).strip())
    if not units:
        raise TimeError("time of JULES output", expected="seconds since …", found=time.attrs.get("units"), where=where)
    if time.size != len(edges) - 1:
        found = f"{time.size}: the run ended early"
        raise TimeError("records of JULES output", expected=len(edges) - 1, found=found, where=where)
    expected = (edges[1:] - np.datetime64(f"{units[1]}T{units[2]}", "s")).astype(np.float64)
    apart = np.abs(time.values.astype(np.float64) - expected)
    wrong = ~(apart <= np.maximum(1.0, np.spacing(np.abs(expected).astype(time.dtype)).astype(np.float64)))
    if wrong.any():
        k = int(np.argmax(wrong))
        found = f"{time.values[k]:g} s since {units[1]} {units[2]}"
        raise TimeError(f"time {k} of JULES output", expected=f"{expected[k]:g} s", found=found, where=where)


def _check_range(output: Output, values: np.ndarray, edges: np.ndarray, first: int, where: str) -> None:
    """Raise RangeError for the first value that is missing, NaN or impossible."""
    wrong = ~((values >= output.low) & (values <= output.high))
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        bad = wrong.any(axis=tuple(range(wrong.ndim - 1)))
        found = f"{values[at]:g} at {edges[at[0]]} in cell {first + int(at[-1])}, {int(bad.sum())} of {bad.size} cells"
        expected = f"{output.low:g} to {output.high:g}"
        raise RangeError(f"JULES output '{output.jules}'", expected=expected, found=found, where=where)


def _stored(states: Mapping[str, np.ndarray], deep: float | None, parameters: xr.Dataset) -> np.ndarray:
    """Water in each cell, kg m-2, (time, cell), as written out."""
    stored = states["smcl"].sum(axis=1) + states["canopy_gb"] + states["snow_mass_gb"]
    return stored if deep is None else stored + states["sthzw"] * _deep_pores(deep, parameters)


def _stored_in(dump: xr.Dataset, deep: float | None, parameters: xr.Dataset) -> np.ndarray:
    """Water in each cell, kg m-2, (cell), as dumped."""
    on_tiles = dump["canopy"].values + dump["snow_tile"].values
    if "snow_grnd" in dump:
        on_tiles = on_tiles + dump["snow_grnd"].values
    fraction = parameters["tile_fraction"].values
    stored = (dump["sthuf"].values * DEPTH * parameters["theta_s"].values).sum(axis=0)
    stored = stored + np.where(fraction > 0.0, fraction * on_tiles, 0.0).sum(axis=0)
    return stored if deep is None else stored + dump["sthzw"].values * _deep_pores(deep, parameters)


def _deep_pores(deep: float, parameters: xr.Dataset) -> np.ndarray:
    return 1000.0 * deep * parameters["theta_s"].values[-1]


def _averaged(values: np.ndarray, times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over each period between edges of values (time, cell) at the steps that begin in it."""
    first = np.searchsorted(times, edges)
    total = np.add.reduceat(values[: first[-1]], first[:-1], axis=0)
    return total / np.diff(first)[:, None]


def _imbalance(
    fall: np.ndarray, means: Mapping[str, np.ndarray], stored: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The days, and |P − E − R − ΔS| of each day and cell, kg m-2; 0 where the first store is not known.

    Lakes evaporate from no store, so their evaporation is left out.
    """
    gained = fall - (means["fqw_gb"] - means["elake"]) - means["surf_roff"] - means["sub_surf_roff"]
    miss = np.nan_to_num(gained * np.diff(edges).astype(np.float64)[:, None] - np.diff(stored, axis=0))
    days, opens = np.unique(edges[:-1].astype("datetime64[D]"), return_index=True)
    return days, np.abs(np.add.reduceat(miss, opens, axis=0))


def _dumps(folder: Path) -> dict[np.datetime64, Path]:
    """Dumps of the main run by their time."""
    found = {}
    for path in sorted((folder / names.OUT).iterdir()):
        if name := _DUMPED.fullmatch(path.name):
            day = f"{name[1][:4]}-{name[1][4:6]}-{name[1][6:]}"
            found[np.datetime64(day, "s") + np.timedelta64(int(name[2]), "s")] = path
    return found


def _dump(path: Path, where: str) -> xr.Dataset:
    """A dump in our dims (its own with a prefix), float64, with the variables every state needs."""
    ds = _open(path, where)
    absent = [name for name in ("canopy", "tstar_tile", "t_soil", "sthuf", "snow_tile") if name not in ds]
    if absent:
        raise VariableError(
            f"JULES dump {path.name}", expected=", ".join(absent), found="no such variable", where=where
        )
    ours = {"land": "cell", "soil": "layer"}
    ds = ds.rename_dims({dim: ours.get(str(dim), f"{DUMP}{dim}") for dim in ds.dims if dim != "tile"}).reset_coords()
    return ds.map(lambda variable: variable.astype(np.float64) if variable.dtype.kind == "f" else variable)


def _end_state(dump: xr.Dataset, parameters: xr.Dataset, place: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """The state in our variables, and the rest of the dump beside it under its prefix."""
    absent = parameters["tile_fraction"].values == 0.0
    values = {name: dump[name].values for name in dump}
    top = np.broadcast_to(values["t_soil"][0], absent.shape)
    state = {
        THETA: (("layer", "cell"), values["sthuf"] * parameters["theta_s"].values),
        names.SOIL_TEMPERATURE: (("layer", "cell"), values["t_soil"]),
        CANOPY: (("tile", "cell"), np.where(absent, 0.0, values["canopy"])),
        SNOW: (("tile", "cell"), np.where(absent, 0.0, snow(values))),
        names.SURFACE_TEMPERATURE: (("tile", "cell"), np.where(absent, top, values["tstar_tile"])),
    } | {ours: ("cell", values[name]) for name, ours in DEEP.items() if name in values}
    known = {*names.SOIL, "frac", "latitude", "longitude", "canopy", "t_soil", "tstar_tile", *DEEP}
    kept = {f"{DUMP}{name}": dump[name].variable for name in dump if name not in known}
    end = xr.Dataset({**state, **kept}, {**place, "tile": list(TILES)})
    for name in state:
        end[name].attrs.update(_attrs(str(name), {"units": _STATE_UNITS.get(str(name), "")}))
    return end


def _attrs(name: str, otherwise: Mapping[str, str] | None) -> dict[str, str]:
    """Attributes of the table of variables, or of the row above for what it does not hold."""
    return VARIABLES[name].attrs if name in VARIABLES else dict(otherwise or {})
