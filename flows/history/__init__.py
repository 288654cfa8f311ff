"""What a station's weather says of a place: its seasons, dry spells and droughts, as a page with figures.

    FILE ─read─▸ weather of a day ─study─▸ Study ─charts, words─▸ *.svg, page.md

Every number on the page is computed; what cannot be told is said to be unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from flows.history.figures import charts, svg
from flows.history.page import words
from infra.areas import slug
from twin.errors import AssetError, TimeError, UnitsError, VariableError
from twin.indices.units import rain_amounts
from twin.station import LOAM, study
from twin.variables import VARIABLES

NAMES = {
    "precipitation_flux": ("pr", "precip", "rain"),
    "air_temperature": ("tas", "tmean", "t2m"),
    "air_temperature_range": ("dtr",),
    "lowest": ("tasmin", "tmin"),
    "highest": ("tasmax", "tmax"),
    "surface_downwelling_shortwave_flux_in_air": ("rsds",),
    "surface_downwelling_longwave_flux_in_air": ("rlds",),
    "specific_humidity": ("huss",),
    "relative_humidity": ("hurs",),
    "wind_speed": ("sfcWind", "wind"),
    "surface_air_pressure": ("ps",),
}  # ours, or CF's: the short names they go by
_FREEZING, _DAY = 273.15, 86400.0


def history(
    file: Path | str,
    place: str,
    out: Path | str,
    *,
    altitude: float = 0.0,
    soil: tuple[float, float] = LOAM,
    threads: int | None = None,
) -> list[Path]:
    """Writes OUT/<name>.md and OUT/<name>/*.svg of one station's daily weather; the paths that were written.

    file       NetCDF, dims (time): `precipitation_flux` or pr, air temperature, its range or extremes, and sunlight if
               known, by CF or short names, with units; latitude and longitude as coordinates or attributes
    place      as the page names it; what stands before the comma names the files
    altitude   of the station, m; soil   shares of sand and clay
    Raises AssetError for a file that cannot be read, VariableError or UnitsError for what is missing or unknown,
    TimeError for gaps, SettingsError where charts cannot be drawn.
    """
    found = study(read(file), altitude, soil, threads)
    name = slug(place.split(",")[0]) or "place"
    folder = Path(out) / name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, chart in charts(found).items():
        written.append(folder / f"{title}.svg")
        written[-1].write_text(svg(chart), encoding="utf-8")
    page = folder.with_suffix(".md")
    page.write_text(words(found, place, name), encoding="utf-8")
    return [page, *written]


def read(file: Path | str) -> xr.Dataset:
    """The station's days, dims (time, cell 1), in the names of NAMES and the units of the table, with lat and lon."""
    try:
        ds = xr.open_dataset(file).load()
    except (OSError, ValueError) as err:
        raise AssetError("station file", expected="NetCDF", found=str(err).splitlines()[0], where=str(file)) from err
    by_standard = {str(variable.attrs.get("standard_name")): str(name) for name, variable in ds.data_vars.items()}
    found = {}
    for ours, others in NAMES.items():
        name = next((name for name in (ours, *others) if name in ds.data_vars), None)
        name = by_standard.get(ours) if name is None else name
        if name is not None:
            found[ours] = _in_our_units(ours, ds[name].squeeze(drop=True).transpose("time"))
    if {"lowest", "highest"} <= set(found):
        found.setdefault("air_temperature_range", found["highest"] - found["lowest"])
        found.setdefault("air_temperature", 0.5 * (found["highest"] + found["lowest"]))
    for needed, instead in (
        ("precipitation_flux", ""),
        ("air_temperature", ", or tasmin and tasmax"),
        ("air_temperature_range", ", or tasmin and tasmax"),
    ):
        if needed not in found:
            expected = ", ".join(NAMES[needed]) + instead
            raise VariableError(f"'{needed}' of a station", expected=expected, found=list(ds.data_vars))
    steps = np.diff(ds["time"].values) / np.timedelta64(1, "D")
    if ds.sizes["time"] < 2 or (steps != 1.0).any():
        raise TimeError("days of a station", expected="consecutive days", found=f"steps of {sorted(set(steps))[:3]}")
    coords = {name: ("cell", [_place(ds, name)]) for name in ("lat", "lon")}
    station = xr.Dataset(
        {name: values.drop_vars([c for c in values.coords if c != "time"]) for name, values in found.items()}
    )
    return station.expand_dims("cell", 1).assign_coords(coords)


def _in_our_units(name: str, values: xr.DataArray) -> xr.DataArray:
    """A station's variable as the table has it; UnitsError naming what is not understood."""
    units = str(values.attrs.get("units", "none"))
    if name == "precipitation_flux":
        return (rain_amounts(values) / _DAY).assign_attrs(VARIABLES[name].attrs).rename(name)
    temperature = name in ("air_temperature", "lowest", "highest")
    known = {
        "K": 0.0,
        **dict.fromkeys(("degC", "C", "celsius", "Celsius", "degree_Celsius", "°C"), _FREEZING if temperature else 0.0),
    }
    if temperature or name == "air_temperature_range":
        if units not in known:
            raise UnitsError(f"'{name}' of a station", expected="K or degC", found=repr(units))
        return (values + known[units]).assign_attrs(units="K")
    factors = {
        "relative_humidity": {"1": 1.0, "%": 0.01},
        "surface_air_pressure": {"Pa": 1.0, "hPa": 100.0, "kPa": 1e3},
    }
    given = factors.get(name, {VARIABLES[name].units: 1.0} if name in VARIABLES else {})
    if units not in given:
        raise UnitsError(f"'{name}' of a station", expected=" or ".join(given), found=repr(units))
    return (values * given[units]).assign_attrs(units=next(iter(given)))


def _place(ds: xr.Dataset, name: str) -> float:
    long = {"lat": "latitude", "lon": "longitude"}[name]
    for source in (ds.variables, ds.attrs):
        for key in (name, long):
            if key in source:
                return float(np.asarray(source[key]).ravel()[0])
    raise VariableError(f"{long} of a station", expected=f"a coordinate or attribute '{long}'", found="none")
