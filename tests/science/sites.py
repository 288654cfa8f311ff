"""Real places to run a land model at: their weather in our names and units, and what was measured in their soil.

Not a test: `tests/science/test_sites.py` reads it. Nothing is filled in silently: `Site.notes` names every gap and
every variable the files do not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from twin import forcing

WIND = 2.0 / 0.748  # m s-1 at 10 m: the 2 m s-1 at 2 m that Allen et al. (1998, p. 63) give for where it is not known
RANGE = "air_temperature_range"
LOAM = (0.43, 0.39, 0.18)  # sand, silt, clay
_MJ = 1e6 / 86400.0  # MJ m-2 day-1 in W m-2
_SIGMA = 5.670374e-8


@dataclass(frozen=True)
class Site:
    """One place, or many cells of one product.

    forcing    (time, cell) at a constant step without gaps, lat and lon by cell; besides the table's variables
               rainfall_flux, snowfall_flux and air_temperature_range where the source knows them
    texture    sand, silt, clay
    observed   (time) surface_soil_moisture, m3 m-3, where it was measured
    notes      what was missing and what stands in its place
    """

    name: str
    forcing: xr.Dataset
    texture: tuple[float, float, float] = LOAM
    observed: xr.Dataset = field(default_factory=xr.Dataset)
    notes: tuple[str, ...] = ()

    @property
    def daily(self) -> xr.Dataset:
        """The forcing as daily means."""
        return forcing.daily_mean(self.forcing)[0]


def towers(data: Path) -> list[Site]:
    """Seven flux towers, 1 to 17 years of days, from the Australian desert to the Scottish hills (FLUXNET2015, OzFlux).

    Neither wind, nor thermal radiation, nor 29 February: 2 m s-1, `thermal`, the day before.
    """
    days = pd.read_parquet(data / "fluxnet" / "daily_drivers.parquet").assign(date=lambda f: pd.to_datetime(f["date"]))
    places = pd.read_csv(data / "fluxnet" / "sites.csv", index_col="site")
    return [_tower(str(name), frame.set_index("date"), places.loc[name]) for name, frame in days.groupby("site")]


def _tower(name: str, frame: pd.DataFrame, place: pd.Series) -> Site:
    whole = frame.drop(columns="site").reindex(pd.date_range(frame.index[0], frame.index[-1]))
    leap = whole.index[whole["temp"].isna()]
    assert all((day.month, day.day) == (2, 29) for day in leap), f"{name}: a gap other than leap days"
    whole = whole.ffill()
    air, sun = whole["temp"] + 273.15, whole["ppfd"] / 2.04e-6
    values = {
        "rainfall_flux": whole["prec"],
        "snowfall_flux": whole["snow"],
        "air_temperature": air,
        "specific_humidity": whole["qair"],
        "wind_speed": 0.0 * air + WIND,
        "surface_air_pressure": whole["patm"],
        "surface_downwelling_shortwave_flux_in_air": sun,
    }
    notes = (
        f"{len(leap)} leap days as the day before",
        "wind 2 m s-1 assumed",
        "thermal radiation from air and sunlight",
    )
    return Site(name, _forcing(values, place["lat"], place["lon"], place["elv"]), notes=notes)


def kansas(data: Path) -> Site:
    """Forty-one years of days on the Kansas prairie from gridMET (Abatzoglou 2013), as at 38.88 N, 94.82 W."""
    frame = pd.read_csv(data / "in_situ" / "gridmet_johnson_ks_1980-2020.csv.gz")
    frame.index = pd.DatetimeIndex(frame["timestamp"])
    assert (np.diff(frame.index) == np.timedelta64(1, "D")).all(), "gridMET has a gap"
    values = {
        "precipitation_flux": frame["pr"] / 86400.0,
        "air_temperature": 0.5 * (frame["tmmn"] + frame["tmmx"]) + 273.15,
        "specific_humidity": frame["sph"],
        "wind_speed": frame["vs"],
        "surface_downwelling_shortwave_flux_in_air": frame["srad"] * _MJ,
        RANGE: (frame["tmmx"] - frame["tmmn"]).clip(lower=0.0),
    }
    notes = (
        "days of the provider, not UTC",
        "pressure of the standard atmosphere at 320 m",
        "thermal radiation from air and sunlight",
    )
    return Site("US-Johnson", _forcing(values, 38.884, -94.822, 320.0), notes=notes)


def manhattan(data: Path) -> Site:
    """Eight years of days and soil moisture at 5 and 10 cm near Manhattan, Kansas (US Climate Reference Network)."""
    missing = [-9999, -99]
    frame = pd.read_csv(data / "in_situ" / "uscrn_manhattan_ks_daily.csv.gz", na_values=missing)
    frame.index = pd.DatetimeIndex(frame["LST_DATE"].astype(str))
    frame = frame.reindex(pd.date_range("2009-06-04", frame.index[-1]))  # the first day with humidity
    dry, filled = frame["P_DAILY_CALC"].isna(), frame["T_DAILY_AVG"].isna()
    frame["P_DAILY_CALC"] = frame["P_DAILY_CALC"].fillna(0.0)
    probes = frame[["SOIL_MOISTURE_5_DAILY", "SOIL_MOISTURE_10_DAILY"]].mean(axis=1, skipna=False)
    frame = frame.select_dtypes("number").interpolate(limit=20)
    air = frame["T_DAILY_AVG"] + 273.15
    values = {
        "precipitation_flux": frame["P_DAILY_CALC"] / 86400.0,
        "air_temperature": air,
        "relative_humidity": (0.01 * frame["RH_DAILY_AVG"]).clip(upper=1.0),
        "wind_speed": 0.0 * air + WIND,
        "surface_downwelling_shortwave_flux_in_air": frame["SOLARAD_DAILY"] * _MJ,
        RANGE: (frame["T_DAILY_MAX"] - frame["T_DAILY_MIN"]).clip(lower=0.0),
    }
    notes = (
        f"{int(dry.sum())} days without rain gauge taken as dry",
        f"{int(filled.sum())} days without other weather interpolated",
        "local days, 6 h behind UTC",
        "wind 2 m s-1 assumed",
        "thermal radiation from air and sunlight",
        "pressure of the standard atmosphere at 347 m",
    )
    observed = xr.Dataset({"surface_soil_moisture": ("time", probes.to_numpy())}, {"time": frame.index.values})
    silty = (0.10, 0.55, 0.35)
    return Site("US-Manhattan", _forcing(values, 39.1, -96.61, 347.0), silty, observed, notes)


def united_kingdom(data: Path) -> Site:
    """January 2017, every hour, at the 250 land cells of 0.5 degree around Great Britain and Ireland (WFDE5)."""
    folder, native = data / "uk_wfde5", {}
    for name in ("precipitation_flux", "air_temperature", "specific_humidity", "wind_speed", *_RADIATION):
        with xr.open_dataset(folder / f"{name}.nc") as source:
            (variable,) = source.data_vars
            native[name] = source[variable].load().stack(cell=("lat", "lon")).transpose("time", "cell")
    land = np.isfinite(native["air_temperature"].values).all(axis=0)
    first = native["air_temperature"][:, land]
    ds = xr.Dataset(
        {name: (("time", "cell"), array.values[:, land].astype(np.float64)) for name, array in native.items()},
        {"time": first["time"].values, "lat": ("cell", first["lat"].values), "lon": ("cell", first["lon"].values)},
    )
    return Site("UK", _named(ds), notes=("pressure of the standard atmosphere at sea level", "a loam everywhere"))


_RADIATION = ("surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air")


def sunlight_above(lat: float, day_of_year: np.ndarray) -> np.ndarray:
    """Daily mean sunlight at the top of the atmosphere, W m-2 (Allen et al. 1998, eq. 21 to 25)."""
    phase, phi = 2 * np.pi * np.asarray(day_of_year) / 365.0, np.radians(lat)
    tilt = 0.409 * np.sin(phase - 1.39)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(tilt), -1.0, 1.0))
    level, swing = np.sin(phi) * np.sin(tilt), np.cos(phi) * np.cos(tilt)
    return 24 * 60 / np.pi * 0.0820 * (1 + 0.033 * np.cos(phase)) * (sunset * level + swing * np.sin(sunset)) * _MJ


def thermal(air: pd.Series, vapour: pd.Series, sun: pd.Series, lat: float, altitude: float) -> pd.Series:
    """Thermal radiation of the sky, W m-2: Brutsaert's (1975) clear sky, and cloud from what sunlight it lets through
    (Crawford & Duchon 1999), clear being 0.75 + 2e-5 z of the sunlight above (Allen et al. 1998, eq. 37).
    """
    above = sunlight_above(lat, pd.DatetimeIndex(air.index).day_of_year.to_numpy())
    cloud = (1.0 - sun / (above * (0.75 + 2e-5 * altitude))).clip(0.0, 1.0)
    clear = 1.24 * (0.01 * vapour / air) ** (1.0 / 7.0)
    return (cloud + (1.0 - cloud) * clear) * _SIGMA * air**4


def _forcing(values: dict[str, pd.Series], lat: float, lon: float, altitude: float) -> xr.Dataset:
    """One cell's series as forcing: the table's variables, thermal radiation of the sky where it is not measured."""
    air, sun = values["air_temperature"], values[_RADIATION[0]]
    made, _ = forcing.complete(values, ("precipitation_flux",))
    ds = xr.Dataset(
        {name: (("time", "cell"), np.asarray(series, np.float64)[:, None]) for name, series in made.items()},
        {"time": air.index.values, "lat": ("cell", [float(lat)]), "lon": ("cell", [float(lon)])},
    ).assign(surface_altitude=("cell", [float(altitude)]))
    whole, _ = forcing.complete(ds, ("surface_air_pressure", "specific_humidity"))
    vapour = forcing.vapour_pressure(whole["specific_humidity"], whole["surface_air_pressure"])
    sky = thermal(air, pd.Series(vapour.values[:, 0], air.index), sun, lat, altitude)
    return _named(ds.assign({_RADIATION[1]: (("time", "cell"), sky.to_numpy()[:, None])}))


def _named(ds: xr.Dataset) -> xr.Dataset:
    """The table's seven variables with their attributes, and what shorter steps can use besides."""
    ds = forcing.derive(ds, keep=(*forcing.PHASES, RANGE))
    for name in ds.data_vars:
        ds[name].attrs = {"units": "K"} if name == RANGE else forcing.attributes(str(name))
    return ds
