"""An arrival in, a granule out: daily values of our variables on the region's cells, checked at the door.

    arrival ─recognise→ product
       └ assets ─resolve, fetch, open→ pixels ─units, flags, derive→ our variables ─days→ daily ─average→ cells

Nothing is trusted: bytes against the item's checksum, names and units against the product, times against the item's own
period, the clock and the region's first day, places against the region's cells, values against the table of variables.
Whatever is wrong with one item is a Rejected that names what was expected and found; it never touches the next item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pandas as pd
import xarray as xr

from infra import assets
from infra.assets import Access
from infra.settings import Region, Settings
from stac import sources
from stac.sources import Band, Flag, Product
from twin import grid as cells_of
from twin.checks import check_range
from twin.errors import PlaceError, RangeError, SettingsError, TimeError, UnitsError, VariableError
from twin.forcing import complete, mean_of_days
from twin.observations import FOOTPRINT
from twin.variables import VARIABLES

Average = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

DAY = pd.Timedelta(days=1)
_ALWAYS = pd.DatetimeIndex(["1970-01-01"])  # what does not change has one time step
SOIL = ("sand", "silt", "clay")
_SHARES = {"%": 0.01, "percent": 0.01, "1": 1.0}  # units of a soil fraction, and their factor
_MATCHERS: dict[tuple[str, str], tuple[Average, np.ndarray]] = {}
_MATCHERS_KEPT = 16


@dataclass(frozen=True)
class Granule:
    """What one item brings: `data` (time, cell) on the region's cells, float32, days by their start, UTC.

    Forcing holds every forcing variable; observations hold the value and its standard deviation `<name>_error`.
    `notes` says what was left out, filled or derived; it is plain JSON.
    """

    arrival: dict[str, Any]
    product: str
    kind: str
    data: xr.Dataset
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pixels:
    """Native values before anything is done to them: `values[name]` (time, pixel) in `units[name]`.

    lat, lon   degrees: the axes (y), (x) of a raster, whose pixels run along x first, or the place of every pixel
    names      everything the files hold, for messages
    """

    lat: np.ndarray
    lon: np.ndarray
    raster: bool
    times: pd.DatetimeIndex
    values: dict[str, np.ndarray]
    units: dict[str, str]
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.lat.size * self.lon.size if self.raster else self.lat.size


def read(arrival: Mapping[str, Any], grid: xr.Dataset, *, now: datetime, region: Region, settings: Settings) -> Granule:
    """The granule of an arrival on the region's grid.

    now        the wall clock; nothing after today is believed
    region     decides which products it takes and which day is its first
    settings   decide where assets may come from, see `Access.of`
    Raises Rejected for what is wrong with the item, Transient where reading it later may help.
    """
    where = f"item {arrival['id']}"
    product = _product(arrival, region, where)
    pixels = _pixels(arrival, product, Access.of(settings, arrival["source"]), _bounds(grid), where)
    average, covered = _matcher(pixels, grid, where)
    notes: dict[str, Any] = {"pixels": pixels.size, "cells": int(covered.sum())}
    native, days = _days(pixels, product, arrival, now, region, notes, where)
    values = _ours(native, product, notes, where)
    if product.kind == "observation":
        data = _observed(values, native, product, average, notes, where)
    else:
        data = _driven(values, product, average, grid, notes, where)
    dataset = xr.Dataset(data, {"time": days.values, "lat": grid["lat"], "lon": grid["lon"]})
    return Granule(dict(arrival), product.id, product.kind, dataset, notes)


def _product(arrival: Mapping[str, Any], region: Region, where: str) -> Product:
    """The item's product, if the region takes it: simulated data never reach a real region, nor the other way."""
    product = sources.recognise(arrival)
    if product is None or product.id not in region.products:
        who = f"{product.id}, which {region.name} does not take" if product else "an item no product recognises"
        found = f"{who}, in collection {arrival.get('collection')!r}"
        raise VariableError("item", expected=" or ".join(region.products), found=found, where=where)
    return product


# ---------------------------------------------------------------------------------------------------------- pixels
def _pixels(arrival: Mapping[str, Any], product: Product, access: Access, bounds: Any, where: str) -> Pixels:
    """The pixels of all data assets of an item together; they must share one set of places and times."""
    parts = []
    for key, asset in sources.data_assets(arrival["assets"]).items():
        at = f"{where}, asset {key}"
        path = _fetch(asset, arrival, access, at)
        dataset = assets.open_dataset(path, only=product.natives, bbox=bounds, max_bytes=access.max_bytes, where=at)
        parts.append(_flat(dataset, product.natives, _times(dataset, arrival, at), at))
    if not parts:
        raise VariableError("item", expected="a data asset", found="none", where=where)
    useful = [part for part in parts if part.values] or parts
    return _together(useful, where)


def _fetch(asset: Mapping[str, Any], arrival: Mapping[str, Any], access: Access, where: str) -> Path:
    href = assets.resolve(
        asset["href"],
        access,
        item_href=arrival.get("href") or "",
        source=arrival["source"],
        raw=asset.get("raw") or "",
        where=where,
    )
    return assets.fetch(href, access, checksum=asset.get("checksum") or "", size=asset.get("size"), where=where)


def _flat(dataset: xr.Dataset, natives: Sequence[str], times: pd.DatetimeIndex, where: str) -> Pixels:
    """A dataset's places as one list of pixels, its variables as (time, pixel)."""
    names = dataset.attrs["all_variables"]
    lat, lon, raster, space = _places(dataset, where)
    values, units = {}, {}
    for name in natives:
        if name in dataset.variables:
            values[name] = _as_time_pixel(name, dataset.variables[name], space, times.size, where)
            units[name] = " ".join(str(dataset.variables[name].attrs.get("units", "")).split())
    return Pixels(lat, lon, raster, times, values, units, names)


def _places(dataset: xr.Dataset, where: str) -> tuple[np.ndarray, np.ndarray, bool, tuple[str, ...]]:
    """Latitudes, longitudes, whether they are the axes of a raster, and the dimensions pixels lie along, in order."""
    if "lat" not in dataset.variables or "lon" not in dataset.variables:
        found = ", ".join(dataset.attrs["all_variables"]) or "nothing"
        raise PlaceError("asset", expected="latitudes and longitudes", found=found, where=where)
    axes = [dataset.variables[name] for name in ("lat", "lon")]
    lat, lon = (np.asarray(axis.values, float).ravel() for axis in axes)
    if lat.size == 0 or not (np.abs(lat) <= 90).all() or not (np.abs(lon) <= 360).all():
        found = f"latitudes {assets.span(lat)}, longitudes {assets.span(lon)}"
        raise PlaceError("asset", expected="latitudes and longitudes in degrees", found=found, where=where)
    raster = axes[0].dims != axes[1].dims
    space = (*axes[0].dims, *axes[1].dims) if raster else axes[0].dims
    return lat, cells_of.wrap(lon), raster, tuple(map(str, space))


def _times(dataset: xr.Dataset, arrival: Mapping[str, Any], where: str) -> pd.DatetimeIndex:
    """The times of the file to the second; a file without any has the item's."""
    if "time" not in dataset.variables:
        return pd.DatetimeIndex([_moment(arrival.get("datetime"), where)])
    clock = dataset.variables["time"]
    if clock.dtype.kind != "M" or clock.size == 0 or np.isnat(clock.values).any():
        found = f"units {clock.attrs.get('units', 'none')!r}, {clock.size} values of {clock.dtype}"
        raise TimeError("asset time", expected="CF times, none missing", found=found, where=where)
    return pd.DatetimeIndex(np.atleast_1d(clock.values)).round("s")


def _as_time_pixel(name: str, var: xr.Variable, space: tuple[str, ...], steps: int, where: str) -> np.ndarray:
    extra = [dim for dim in var.dims if dim not in space and dim != "time" and var.sizes[dim] == 1]
    var = var.squeeze(extra)
    if set(var.dims) - {"time"} != set(space) or ("time" not in var.dims and steps != 1):
        expected = f"dimensions time, {', '.join(space)}"
        raise VariableError(f"variable {name!r}", expected=expected, found=", ".join(map(str, var.dims)), where=where)
    ordered = var.transpose(*(("time",) if "time" in var.dims else ()), *space)
    return ordered.values.reshape(steps, -1)


def _together(parts: Sequence[Pixels], where: str) -> Pixels:
    first = parts[0]
    for part in parts[1:]:
        one, other = ", ".join(first.values), ", ".join(part.values)
        if not _same(first.lat, part.lat) or not _same(first.lon, part.lon):
            found = f"{part.size} others for {other}"
            raise PlaceError("assets", expected=f"the {first.size} places of {one}", found=found, where=where)
        if not first.times.equals(part.times):
            found = f"{_spell(part.times)} for {other}"
            raise TimeError("assets", expected=f"the times of {one}, {_spell(first.times)}", found=found, where=where)
    return replace(
        first,
        values={name: values for part in parts for name, values in part.values.items()},
        units={name: units for part in parts for name, units in part.units.items()},
        names=tuple(dict.fromkeys(name for part in parts for name in part.names)),
    )


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=0, atol=1e-5))


# ------------------------------------------------------------------------------------------------------------ days
def _days(
    pixels: Pixels, product: Product, arrival: Mapping[str, Any], now: datetime, region: Region, notes: dict, where: str
) -> tuple[Pixels, pd.DatetimeIndex]:
    """The whole days of the file that the region keeps, and the pixels' values of those days only."""
    aggregates = [name for name in product.aggregates if name in pixels.values]
    if aggregates:
        found = f"means over more than a day (the file holds {', '.join(map(repr, aggregates))})"
        raise TimeError(product.id, expected="daily values", found=found, where=where)
    times = pixels.times
    if not times.is_monotonic_increasing or times.has_duplicates:
        raise TimeError("asset time", expected="increasing times", found=_spell(times), where=where)
    per_day = _per_day(product)
    days, counts = np.unique(times.floor("D").values, return_counts=True)
    if counts.max() > per_day or not (counts == per_day).any():
        found = f"{counts.max()} on {pd.Timestamp(days[counts.argmax()]).date()}"
        raise TimeError("asset time", expected=f"{per_day} a day", found=found, where=where)
    whole = pd.DatetimeIndex(days[counts == per_day])
    _check_period(whole, arrival, now, where)
    first = pd.Timestamp(region.start)
    kept = whole[whole >= first]
    if kept.empty:
        raise TimeError("asset time", expected=f"days from {first.date()} on", found=_spell(whole), where=where)
    notes["days"] = len(kept)
    if len(kept) < len(days):
        notes["days_left_out"] = len(days) - len(kept)
    if len(kept) == len(times):
        return pixels, kept
    chosen = times.floor("D").isin(kept)
    return replace(pixels, times=times[chosen], values={n: v[chosen] for n, v in pixels.values.items()}), kept


def _per_day(product: Product) -> int:
    """How many time steps of the files make a day."""
    return 24 if product.step == "1h" else 1


def _check_period(days: pd.DatetimeIndex, arrival: Mapping[str, Any], now: datetime, where: str) -> None:
    """Days must lie in the item's own period, a day's half either way, and not in the future."""
    start = _moment(arrival.get("datetime"), where)
    end = _moment(arrival["end"], where) if arrival.get("end") else None
    low, high = start.floor("D"), end.floor("D") if end is not None else None
    latest_start = low + DAY if high is None else high
    if days[0] < low or days[0] > latest_start or (high is not None and days[-1] > high):
        stated = f"{low.date()}" if high is None else f"{low.date()} to {high.date()}"
        raise TimeError("asset time", expected=f"the item's own period, {stated}", found=_spell(days), where=where)
    today = _moment(now, where).floor("D")
    if days[-1] > today:
        raise TimeError("asset time", expected=f"no later than {today.date()}", found=_spell(days), where=where)


def _moment(value: Any, where: str) -> pd.Timestamp:
    """A time as UTC without a zone, which is what arrays hold."""
    try:
        moment = pd.Timestamp(value)
        if moment is pd.NaT:
            raise ValueError("none")
        return (moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment).as_unit("ns")
    except (ValueError, TypeError, OverflowError) as err:
        raise TimeError("item time", expected="an RFC 3339 time", found=repr(value), where=where) from err


def _spell(times: pd.DatetimeIndex) -> str:
    first, last = times[0], times[-1]
    return (
        f"{first.date()}" if len(times) == 1 else f"{len(times)} from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
    )


# ---------------------------------------------------------------------------------------------------------- values
def _ours(pixels: Pixels, product: Product, notes: dict, where: str) -> dict[str, np.ndarray]:
    """The variables the product provides, in our units, (day, pixel), checked against the table of variables."""
    here = {recipe.variable for recipe in product.derived if recipe.of}
    later = {recipe.variable for recipe in product.derived} - here
    values, derived = complete(_converted(pixels, product, where), here)
    for name in product.provides:
        if name not in values and name not in later:
            wanted = " or ".join(
                dict.fromkeys(band.native for band in product.bands if band.variable in _makes(product, name))
            )
            found = ", ".join(pixels.names) or "nothing"
            raise VariableError(f"{product.kind} {name!r}", expected=wanted, found=found, where=where)
    per_day = _per_day(product)
    daily = {name: mean_of_days(values[name], per_day) for name in product.provides if name in values}
    usable = _unflagged(pixels, product, notes, where)
    for name, array in daily.items():
        daily[name] = array if usable is None else np.where(usable, array, np.float32(np.nan))
        if not np.isfinite(daily[name]).any():
            said = ", ".join(f"{flag.band!r} accepts {flag.meaning or flag.accepted}" for flag in product.flags)
            masked = f" ({notes['masked']} masked: {said})" if notes.get("masked") else ""
            raise RangeError(
                f"{product.kind} {name!r}", expected="values", found=f"no finite value{masked}", where=where
            )
        check_range(name, daily[name], where)
    if derived:
        notes["derived"] = derived
    return daily


def _converted(pixels: Pixels, product: Product, where: str) -> dict[str, np.ndarray]:
    return {
        band.variable: _scaled(pixels.values[native], band)
        for native in pixels.values
        if (band := _band(native, pixels.units[native], product, where)) is not None
    }


def _band(native: str, units: str, product: Product, where: str) -> Band | None:
    """How this variable becomes ours; None for flags and errors. Raises UnitsError where no alternative fits."""
    options = [band for band in product.bands if band.native == native]
    for band in options:
        if units in band.units:
            return band
    if options:
        expected = " or ".join(dict.fromkeys(spelling for band in options for spelling in band.units))
        raise UnitsError(
            f"{product.kind} {native!r}", expected=expected, found=repr(units) if units else "none", where=where
        )
    return None


def _scaled(values: np.ndarray, band: Band) -> np.ndarray:
    if band.scale == 1 and band.offset == 0:
        return values.astype(np.float32, copy=False)
    return (values * np.float64(band.scale) + band.offset).astype(np.float32)


def _makes(product: Product, name: str) -> set[str]:
    """The variable itself and those it may be derived from."""
    return {name}.union(*(recipe.of for recipe in product.derived if recipe.variable == name))


def _unflagged(pixels: Pixels, product: Product, notes: dict, where: str) -> np.ndarray | None:
    """Where every quality band lets a pixel through; None without any."""
    if not product.flags:
        return None
    missing = [flag for flag in product.flags if flag.band not in pixels.values]
    for flag in missing:
        if not flag.optional:
            found = ", ".join(pixels.names)
            raise VariableError(f"{product.kind} flag", expected=flag.band, found=found, where=where)
    if missing:
        notes["flags_missing"] = [flag.band for flag in missing]
    there = [flag for flag in product.flags if flag not in missing]
    if not there:
        return None
    usable = np.logical_and.reduce([_passes(pixels.values[flag.band], flag) for flag in there])
    value = pixels.values[product.bands[0].native]
    notes["masked"] = int((np.isfinite(value) & ~usable).sum())
    return usable


def _passes(values: np.ndarray, flag: Flag) -> np.ndarray:
    """Which pixels a quality band lets through."""
    passes = np.isfinite(values)
    if flag.accepted:
        passes &= np.isin(values, flag.accepted)
    if flag.clear:
        passes &= np.where(passes, values, flag.clear).astype(np.int64) & flag.clear == 0
    if flag.below is not None:
        passes &= values < flag.below
    return passes


# ----------------------------------------------------------------------------------------------------------- cells
def _observed(
    values: dict[str, np.ndarray], pixels: Pixels, product: Product, average: Average, notes: dict, where: str
) -> dict[str, Any]:
    """Cell means and their standard deviation.

    The variance of a mean of n pixels with standard deviations s is mean(s²)/n if their errors are independent; what
    neighbours share, and what the cell holds between them, does not average out, so it never goes below `floor`.
    """
    (name,) = product.provides
    mean, count = average(values[name])
    spread = np.where(np.isfinite(values[name]), _pixel_error(values[name], pixels, product, notes, where), np.nan)
    variance, _ = average(spread**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.maximum(np.sqrt(variance / count), product.floor)
    error = np.where(np.isfinite(mean), error, np.nan)
    notes["observed"] = int(np.isfinite(mean).sum())
    if not notes["observed"]:
        found = "no finite value in the region's cells"
        raise RangeError(f"{product.kind} {name!r}", expected="values", found=found, where=where)
    attrs = {"units": VARIABLES[name].units, "long_name": f"standard deviation of {VARIABLES[name].long_name}"}
    return {
        name: (("time", "cell"), mean.astype(np.float32), VARIABLES[name].attrs),
        f"{name}_error": (("time", "cell"), error.astype(np.float32), attrs),
    }


def _pixel_error(values: np.ndarray, pixels: Pixels, product: Product, notes: dict, where: str) -> np.ndarray:
    """Standard deviation of every pixel: the file's where it has one, else the product's."""
    if product.error_band not in pixels.values:
        return np.full(values.shape, product.error, np.float32)
    given, units = pixels.values[product.error_band], pixels.units[product.error_band]
    band = next(
        band for band in product.bands if band.native in pixels.values and pixels.units[band.native] in band.units
    )
    if units not in band.units:
        expected = " or ".join(band.units)
        raise UnitsError(f"{product.kind} {product.error_band!r}", expected=expected, found=repr(units), where=where)
    given = given * np.float32(band.scale)
    usable = np.isfinite(given) & (given >= 0)
    notes["errors_assumed"] = int((np.isfinite(values) & ~usable).sum())
    return np.where(usable, given, np.float32(product.error))


def _driven(
    values: dict[str, np.ndarray], product: Product, average: Average, grid: xr.Dataset, notes: dict, where: str
) -> dict[str, Any]:
    """Cell means of every forcing variable, in the order of the table."""
    means = {name: average(array)[0].astype(np.float32) for name, array in values.items()}
    for name, mean in means.items():
        if not np.isfinite(mean).any():
            found = "no finite value in the region's cells"
            raise RangeError(f"{product.kind} {name!r}", expected="values", found=found, where=where)
    known = np.isfinite(next(iter(means.values())))
    height = {"surface_altitude": grid["elevation"].values} if "elevation" in grid else {}
    means, derived = complete(means | height, {recipe.variable for recipe in product.derived})
    if derived:
        notes["derived"] = notes.get("derived", {}) | derived
    notes["cells_missing"] = int((~known).any(axis=0).sum())
    return {name: (("time", "cell"), means[name], VARIABLES[name].attrs) for name in product.provides}


def _matcher(pixels: Pixels, grid: xr.Dataset, where: str) -> tuple[Average, np.ndarray]:
    """What averages (day, pixel) to (day, cell), and which cells get any; worked out once for each set of places."""
    key = _digest(grid["lat"].values, grid["lon"].values), _digest(pixels.lat, pixels.lon)
    if key not in _MATCHERS:
        while len(_MATCHERS) >= _MATCHERS_KEPT:
            _MATCHERS.pop(next(iter(_MATCHERS)), None)
        _MATCHERS[key] = _match(pixels, grid, where)
    return _MATCHERS[key]


def _match(pixels: Pixels, grid: xr.Dataset, where: str) -> tuple[Average, np.ndarray]:
    if not pixels.raster and _same(pixels.lat, grid["lat"].values) and _same(pixels.lon, grid["lon"].values):
        return _each_its_own, np.ones(pixels.size, bool)  # a source on the region's own cells: no search
    try:
        matcher = cells_of.matcher(pixels.lat, pixels.lon, grid, points=not pixels.raster)
    except PlaceError as err:
        raise PlaceError("asset", expected=err.expected, found=err.found, where=where) from err
    covered = np.isin(np.arange(matcher.cells), matcher.cell)
    return (lambda values: matcher.average(values.reshape(-1, *matcher.shape))), covered


def _each_its_own(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values, np.isfinite(values).astype(np.int32)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _bounds(grid: xr.Dataset) -> tuple[float, float, float, float]:
    """West, south, east, north of the cells' areas."""
    lat, lon, half = grid["lat"].values, grid["lon"].values, float(grid.attrs.get("resolution", 0)) / 2
    return float(lon.min() - half), float(lat.min() - half), float(lon.max() + half), float(lat.max() + half)


# ---------------------------------------------------------------------------------------- what a region starts from
def grid_of_source(arrival: Mapping[str, Any], region: Region, settings: Settings) -> xr.Dataset:
    """The cells of a region that takes them from its source: the places of the arrival's pixels inside its box.

    Returns lat and lon by cell, in the file's order. Raises as `read` does.
    """
    where = f"item {arrival['id']}"
    product = _product(arrival, region, where)
    pixels = _pixels(arrival, product, Access.of(settings, arrival["source"]), tuple(region.bbox), where)
    west, south, east, north = region.bbox
    lat, lon = np.meshgrid(pixels.lat, pixels.lon, indexing="ij") if pixels.raster else (pixels.lat, pixels.lon)
    inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
    if not inside.any():
        found = f"latitudes {assets.span(lat)}, longitudes {assets.span(lon)}"
        expected = f"latitudes {south:g}..{north:g}, longitudes {west:g}..{east:g}"
        raise PlaceError("asset", expected=expected, found=found, where=where)
    return cells_of.from_points(lat[inside], lon[inside], region.name, region.resolution)


def soil_of_source(source: str, region: Region, grid: xr.Dataset) -> xr.Dataset:
    """Sand, silt and clay of the region's cells, fractions that add up to 1, from the file beside the catalog.

    Cells without texture get their nearest neighbour's; attrs count what was `filled` and what was `normalised`. With
    them comes what the file has of FOOTPRINT, 0..1, NaN where it is not known.
    Returns no variable for a region whose soil is not in such a file. Raises as `read` does, and SettingsError for a
    file without these variables.
    """
    if region.soil != "ancillary":
        return xr.Dataset()
    access = Access().with_source(source)
    href = urljoin(source, region.soil_file) if "://" in source else Path(source).absolute().with_name(region.soil_file)
    where = f"soil of region {region.name}"
    path = assets.fetch(href, access, where=where)
    dataset = assets.open_dataset(path, only=SOIL + FOOTPRINT, bbox=_bounds(grid), where=where)
    missing = [name for name in SOIL if name not in dataset]
    if missing:
        raise SettingsError(where, expected=", ".join(SOIL), found=f"no {' and no '.join(missing)}", where=str(href))
    texture = _flat(dataset, SOIL + FOOTPRINT, _ALWAYS, where)
    average, _ = _matcher(texture, grid, where)
    footprint = {name: average(_share(name, texture, where))[0][0] for name in FOOTPRINT if name in texture.values}
    shares = np.concatenate([average(_share(name, texture, where))[0] for name in SOIL])
    total = shares.sum(axis=0)
    known = np.isfinite(total) & (total > 0)
    if not known.any():
        raise RangeError(where, expected="sand, silt and clay", found="no finite value", where=str(href))
    nearest = cells_of.nearest_known(grid["lat"].values, grid["lon"].values, known)
    shares = shares[:, nearest]
    rows = dict(zip(SOIL, shares / shares.sum(axis=0), strict=True)) | footprint
    return xr.Dataset(
        {name: ("cell", row) for name, row in rows.items()},
        attrs={"filled": int((~known).sum()), "normalised": int((np.abs(total[known] - 1) > 0.01).sum())},
    )


def _share(name: str, texture: Pixels, where: str) -> np.ndarray:
    """One soil fraction, 0..1, (1, pixel)."""
    values, units = texture.values[name], texture.units[name]
    if units not in _SHARES:
        raise UnitsError(f"soil {name!r}", expected=" or ".join(_SHARES), found=repr(units), where=where)
    share = values.astype(float) * _SHARES[units]
    if np.any((share < 0) | (share > 1)):
        raise RangeError(f"soil {name!r}", expected="0..1", found=assets.span(share), where=where)
    return share
