"""The products we understand: which collections they come in, what their files hold, and in which units.

A product is one entry of PRODUCTS and nothing else; `infra/ingest.py` reads whatever is declared here.

    item ─recognise→ Product ─bands→ native variable × scale + offset → our variable
                             ├─flags→ pixels that may not be used
                             ├─derived→ variables made of others
                             └─error, error_band, floor→ standard deviation of an observation

Variables are those of the table of variables; names no table holds (`eastward_wind`, `rainfall_flux`) only live between
a band and the derivation that uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Band:
    """One native variable: ours = native × scale + offset, if its units are spelt in one of the accepted ways.

    Two bands with the same native name are alternatives: the first whose units match is used, so a file in other units
    needs another Band and no code. Nothing is converted that is not declared.
    """

    native: str
    variable: str
    units: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Flag:
    """A quality band; only pixels that pass every rule it has are used, and a missing value passes none.

    accepted   the values that may be used
    meaning    what a pixel that passes is, in words
    clear      bits that must all be 0
    below      what the value must be less than
    optional   files without the band are taken as they are, and the granule's notes say that it was missing
    """

    band: str
    accepted: tuple[int, ...] = ()
    meaning: str = ""
    clear: int = 0
    below: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class Derived:
    """`variable` made of the variables `of`, or of what the twin knows itself, where the files do not hold it."""

    variable: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Product:
    """What a source delivers.

    collections   patterns (fnmatch) of the collection ids it comes in
    provides      the variables a file must yield, in our names
    step          length of one time step in the file: '1D' or '1h'
    error         standard deviation of one pixel where the file gives none, in our unit
    error_band    native name of the pixel's own standard deviation, in the unit of the value
    floor         smallest standard deviation of a cell mean: what a cell mean cannot represent however many pixels
                  it has (representativeness, errors shared by neighbours)
    local_time    hour of local solar time at which the sensor passes; None for a mean of the day
    aggregates    native names that give away a file of means over more than a step, which is another product
    """

    id: str
    title: str
    kind: str  # 'forcing' or 'observation'
    collections: tuple[str, ...]
    bands: tuple[Band, ...]
    provides: tuple[str, ...]
    step: str = "1D"
    error: float = 0.0
    error_band: str = ""
    floor: float = 0.0
    flags: tuple[Flag, ...] = ()
    derived: tuple[Derived, ...] = ()
    local_time: float | None = None
    aggregates: tuple[str, ...] = ()

    def recognise(self, item: Mapping[str, Any]) -> bool:
        """Is this item, a STAC document or an arrival, one of ours?"""
        collection = str(item.get("collection") or "").lower()
        return any(fnmatchcase(collection, pattern) for pattern in self.collections)

    @property
    def natives(self) -> tuple[str, ...]:
        """Every native name a reader may need, once, in order."""
        names = [band.native for band in self.bands] + [flag.band for flag in self.flags] + [self.error_band]
        return tuple(dict.fromkeys(name for name in (*names, *self.aggregates) if name))


# Spellings of one unit seen in files of the providers below.
_KELVIN = ("K", "kelvin", "Kelvin")
_WATT = ("W m-2", "W m^-2", "W/m2", "W/m^2", "W m**-2")
_SPEED = ("m s-1", "m s^-1", "m/s", "m s**-1")
_HUMIDITY = ("kg kg-1", "kg/kg", "kg kg^-1", "kg kg**-1", "1")
_PASCAL = ("Pa", "pascal")
_FLUX = ("kg m-2 s-1", "kg/m2/s", "kg/m^2/s", "kg m^-2 s^-1", "mm s-1", "mm/s")
_PER_HOUR = ("mm h-1", "mm/h", "mm hr-1", "mm/hr", "kg m-2 h-1")
_VOLUME = ("m3 m-3", "m3/m3", "m^3 m^-3", "m^3/m^3", "m**3 m**-3", "cm3 cm-3", "cm^3/cm^3")

_RAIN, _TEMPERATURE, _HUMID = "precipitation_flux", "air_temperature", "specific_humidity"
_WIND, _PRESSURE = "wind_speed", "surface_air_pressure"
_SUN, _THERMAL = "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air"
_FORCING = (_RAIN, _TEMPERATURE, _HUMID, _WIND, _PRESSURE, _SUN, _THERMAL)
_MOISTURE, _FLUORESCENCE = "surface_soil_moisture", "sif_radiance"

# No provider below sends surface pressure with every file, and the twin needs it only for the psychrometric constant.
_NO_PRESSURE = Derived(_PRESSURE)


# Merged satellite soil moisture as TU Wien publishes it for C3S and ESA CCI: one file a day for the 24 hours centred on
# 00:00 UTC of its date. Flag 0 is "no data inconsistency detected"; every other value names a reason for doubt
# (1 snow or frost, 2 dense vegetation, 4 no convergence, 8 beyond physical bounds, 16 low weight, 32 unreliable).
def _merged(id: str, title: str) -> Product:
    return Product(
        id=id,
        title=title,
        kind="observation",
        collections=(f"{id}*",),
        bands=(Band("sm", _MOISTURE, _VOLUME),),
        provides=(_MOISTURE,),
        error=0.06,
        error_band="sm_uncertainty",
        floor=0.02,
        flags=(Flag("flag", (0,), "no data inconsistency detected"),),
        aggregates=("nobs",),
    )


PRODUCTS: tuple[Product, ...] = (
    Product(
        id="smap-l3-am",
        title="SMAP L3 passive soil moisture, morning overpass",
        kind="observation",
        collections=("smap-l3-am",),
        bands=(Band("soil_moisture", _MOISTURE, _VOLUME),),
        provides=(_MOISTURE,),
        error=0.04,  # the mission's requirement on the unbiased error, m3 m-3
        floor=0.02,
        local_time=6.0,
        # bit 0 set: not of recommended quality, 1: not attempted, 2: failed; bit 3 is about freezing and thawing
        flags=(Flag("retrieval_qual_flag", meaning="recommended quality", clear=0b111, optional=True),),
    ),
    Product(
        id="nldas2-fora-daily",
        title="NLDAS-2 forcing A, daily means",
        kind="forcing",
        collections=("nldas2-fora-daily",),
        bands=(
            Band("APCP_FORA", _RAIN, _PER_HOUR, scale=1 / 3600),
            Band("TMP_2_FORA", _TEMPERATURE, _KELVIN),
            Band("DSWRF_FORA", _SUN, _WATT),
            Band("DLWRF_FORA", _THERMAL, _WATT),
            Band("SPFH_2_FORA", _HUMID, _HUMIDITY),
            Band("UGRD_10_FORA", "eastward_wind", _SPEED),
            Band("VGRD_10_FORA", "northward_wind", _SPEED),
            Band("PRES_FORA", _PRESSURE, _PASCAL),
        ),
        provides=_FORCING,
        # of daily mean components: a lower bound of the day's mean speed
        derived=(Derived(_WIND, ("eastward_wind", "northward_wind")), _NO_PRESSURE),
    ),
    _merged("c3s-soil-moisture", "C3S soil moisture, daily"),
    _merged("esacci-soil-moisture", "ESA CCI soil moisture, daily"),
    Product(
        id="wfde5",
        title="WFDE5 bias-adjusted ERA5 forcing, hourly",
        kind="forcing",
        collections=("wfde5*", "*-wfde5*"),
        bands=(
            Band("pr", _RAIN, _FLUX),
            Band("Rainf", "rainfall_flux", _FLUX),
            Band("Snowf", "snowfall_flux", _FLUX),
            Band("Tair", _TEMPERATURE, _KELVIN),
            Band("Qair", _HUMID, _HUMIDITY),
            Band("Wind", _WIND, _SPEED),
            Band("PSurf", _PRESSURE, _PASCAL),
            Band("SWdown", _SUN, _WATT),
            Band("LWdown", _THERMAL, _WATT),
        ),
        provides=_FORCING,
        step="1h",
        derived=(Derived(_RAIN, ("rainfall_flux", "snowfall_flux")), _NO_PRESSURE),
    ),
    Product(
        id="simulated-forcing",
        title="simulated weather, daily means",
        kind="forcing",
        collections=("simulated-forcing*",),
        bands=(
            Band(_RAIN, _RAIN, ("kg m-2 s-1",)),
            Band(_TEMPERATURE, _TEMPERATURE, ("K",)),
            Band(_HUMID, _HUMID, ("1",)),
            Band(_WIND, _WIND, ("m s-1",)),
            Band(_PRESSURE, _PRESSURE, ("Pa",)),
            Band(_SUN, _SUN, ("W m-2",)),
            Band(_THERMAL, _THERMAL, ("W m-2",)),
        ),
        provides=_FORCING,
        derived=(_NO_PRESSURE,),
    ),
    Product(
        id="simulated-soil-moisture",
        title="simulated satellite soil moisture, daily",
        kind="observation",
        collections=("simulated-soil-moisture*",),
        bands=(Band(_MOISTURE, _MOISTURE, ("m3 m-3",)),),
        provides=(_MOISTURE,),
        error=0.04,
        error_band=f"{_MOISTURE}_error",
        floor=0.01,
    ),
    Product(
        id="simulated-sif",
        title="simulated satellite fluorescence, daily",
        kind="observation",
        collections=("simulated-sif*",),
        bands=(Band(_FLUORESCENCE, _FLUORESCENCE, ("W m-2 sr-1 um-1",)),),
        provides=(_FLUORESCENCE,),
        error=0.5,  # of one sounding of TROPOMI, mW m-2 sr-1 nm-1, which is the same number (Guanter et al. 2021)
        error_band=f"{_FLUORESCENCE}_error",
        floor=0.1,
        flags=(Flag("cloud_area_fraction", meaning="less than half clouded", below=0.5, optional=True),),
    ),
)


def recognise(item: Mapping[str, Any]) -> Product | None:
    """The product an item (STAC document or arrival, as a mapping) belongs to, or None."""
    return next((product for product in PRODUCTS if product.recognise(item)), None)


def product(id: str) -> Product:
    """The product of that id; KeyError names those there are."""
    for entry in PRODUCTS:
        if entry.id == id:
            return entry
    raise KeyError(f"no product {id!r}; there are {', '.join(entry.id for entry in PRODUCTS)}")


_TYPES = ("application/netcdf", "application/x-netcdf", "application/x-hdf", "application/x-hdf5")
_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
_NOT_DATA = {"thumbnail", "overview", "metadata", "documentation"}


def data_assets(assets: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The assets that hold data: by role, else by media type or file name, else all that are not pictures or papers."""
    useful = {key: asset for key, asset in assets.items() if not _NOT_DATA & set(asset.get("roles") or ())}
    by_role = {key: asset for key, asset in useful.items() if "data" in (asset.get("roles") or ())}
    return by_role or {key: asset for key, asset in useful.items() if _looks_like_data(asset)} or useful


def _looks_like_data(asset: Mapping[str, Any]) -> bool:
    media = str(asset.get("type") or "").split(";")[0].strip().lower()
    suffix = PurePosixPath(urlsplit(str(asset.get("href") or "")).path).suffix.lower()
    return media in _TYPES or suffix in _SUFFIXES
