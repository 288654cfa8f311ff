"""The areas of a region: its countries, and any place that a rule or a question names.

    names(region, cells)              countries that the region's cells lie in
    weights(region, cells, place)     (cells, their weights, which add up to 1) of a place
    statistics(view, region, day)     classes, DSCI and chances of every country, or of polygons, one row each
    outline(region, cells, place)     polygons and codes of a place, for messages

Places are those of `twin.warning`: {"region": true}, {"name": …}, {"cell": [lat, lon]}, {"bbox": …} or {"polygon": …}.
Borders are Natural Earth's at 1:110m: they are drawn for orientation and take no position.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from infra.settings import Region, outlines
from infra.store import View
from twin import areas
from twin.errors import PlaceError, SettingsError
from twin.indices.classes import NAMES

LEAST = 0.5  # of an area that must be known for it to have a mean
FORM = 0.02  # share of a country that must lie on cells for it to be an area of the region
_KNOWN: dict[tuple[Any, ...], Any] = {}  # what was worked out for the cells of a region
_KEPT = 512


@dataclass(frozen=True)
class Outline:
    """Corners (lon, lat) of the polygons of a place, and codes by the name of their system."""

    polygons: list[list[tuple[float, float]]]
    codes: Mapping[str, str] = field(default_factory=dict)


def countries(region: Region, cells: xr.Dataset) -> xr.Dataset:
    """`twin.areas.area_weights` of the countries of a region: those it names, else all that its cells lie in."""
    chosen = [
        each for each in outlines() if not region.countries or {each["name"], each.get("iso")} & {*region.countries}
    ]
    return _once(region, cells, "countries", lambda: _of_size(areas.admin_units(cells, chosen)))


def _of_size(weights: xr.Dataset) -> xr.Dataset:
    """Without countries of which the region holds next to nothing."""
    keep = np.flatnonzero(weights["covered"].values >= FORM)
    new = np.full(weights.sizes["unit"], -1, np.int32)
    new[keep] = np.arange(keep.size)
    pairs = new[weights["unit_index"].values] >= 0
    kept = weights.isel(unit=keep, pair=np.flatnonzero(pairs))
    return kept.assign(unit_index=("pair", new[kept["unit_index"].values], kept["unit_index"].attrs))


def names(region: Region, cells: xr.Dataset) -> list[str]:
    """The countries of a region."""
    return [str(name) for name in countries(region, cells)["unit"].values]


def slug(name: str) -> str:
    """A name in small letters, digits and dashes: `cote-d-ivoire`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def weights(region: Region, cells: xr.Dataset, place: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(cells of a place, their weights, which add up to 1); PlaceError for one outside of the region."""
    return _once(region, cells, repr(sorted(place.items())), lambda: _weights(region, cells, place))


def _weights(region: Region, cells: xr.Dataset, place: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    if "cell" in place:
        lat, lon = place["cell"]
        half = 0.5 * float(cells.attrs["resolution"]) * (1.0 + 1e-9)
        there = np.flatnonzero((abs(cells["lat"].values - lat) <= half) & (abs(cells["lon"].values - lon) <= half))
        if not there.size:
            raise PlaceError("cell", expected=f"a place on a cell of {region.title}", found=f"{lat}, {lon}")
        return there[:1], np.ones(1)
    if "name" in place and place["name"] in names(region, cells):
        found = countries(region, cells)
        pairs = found["unit_index"].values == names(region, cells).index(place["name"])
        at, weight = found["cell_index"].values[pairs], found["weight"].values[pairs]
    elif "name" in place:
        expected = f"a country of {region.title}: {', '.join(names(region, cells))}"
        raise PlaceError("area", expected=expected, found=repr(place["name"]))
    else:
        shape = areas.area_weights(cells, {"place": _shape(region, cells, place)})
        at, weight = shape["cell_index"].values, shape["weight"].values
    return at, weight / weight.sum()


def _shape(region: Region, cells: xr.Dataset, place: Mapping[str, Any]) -> Any:
    """The polygon of a place."""
    if "name" in place:
        return areas.polygons([each for each in outlines() if each["name"] == place["name"]])[place["name"]]
    if "polygon" in place:
        ring = [*map(list, place["polygon"])]
        closed = ring if ring[0] == ring[-1] else [*ring, ring[0]]
        return areas.polygons({"type": "Polygon", "coordinates": [closed]})["area"]
    half = 0.5 * float(cells.attrs["resolution"])
    if "cell" in place:
        lat, lon = place["cell"]
        return shapely.box(lon - half, lat - half, lon + half, lat + half)
    west, south, east, north = place.get("bbox", region.bbox)
    return shapely.box(west, south, east if east > west else east + 360.0, north)


def outline(region: Region, cells: xr.Dataset, place: Mapping[str, Any]) -> Outline:
    """Polygons and codes of a place, without holes; longitudes within ±180."""
    shape = _shape(region, cells, place)
    rings = [part.exterior for part in getattr(shape, "geoms", [shape])]
    iso = next((each.get("iso") for each in outlines() if each["name"] == place.get("name")), None)
    turned = [[((lon + 180.0) % 360.0 - 180.0, lat) for lon, lat in ring.coords] for ring in rings]
    return Outline(turned, {"ISO 3166-1 numeric": str(iso)} if iso else {})


def statistics(
    view: View, region: Region, day: str | None = None, features: Path | None = None
) -> list[dict[str, Any]]:
    """Of each area on a day, by default the newest: classes in % of it, DSCI, and the chance of drought.

    features   GeoJSON of polygons, named by their `name`; by default the countries of the region
    """
    last = view.last_day(region.name, "drought") if view.has(region.name, "drought") else None
    if last is None:
        return []
    at = last if day is None else pd.Timestamp(day)
    if not view.origin(region.name) <= at <= last:
        raise SettingsError("day", expected=f"{view.origin(region.name).date()} to {last.date()}", found=day)
    cells = view.dataset(region.name, "grid").load()
    today = view.dataset(region.name, "drought").sel(time=at).load()
    units = countries(region, cells) if features is None else areas.admin_units(cells, _read(features))
    found = areas.area_statistics(today["drought_class"], units, least=LEAST)
    chance = today["drought_probability"].isel(code=1)
    chances = areas.area_statistics(chance.drop_vars("code", errors="ignore"), units, least=LEAST)["mean"]
    rows = []
    for name in found["unit"].values:
        one = found.sel(unit=name)
        shares = {code: 100.0 * float(one["class_fraction"].sel(code=number)) for code, number in NAMES.items()}
        drought = sum(share for code, share in shares.items() if code in ("D1", "D2", "D3", "D4"))
        told = {"drought": drought, "dsci": float(one["dsci"]), "probability": 100.0 * float(chances.sel(unit=name))}
        numbers = {key: None if np.isnan(value) else round(value, 1) for key, value in {**told, **shares}.items()}
        rows.append({"area": str(name), "day": str(at.date()), **numbers, "known": round(float(one["known"]), 3)})
    return rows


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise SettingsError("areas", expected="a GeoJSON file", found=str(err), where=str(path)) from err


def means(view: View, region: Region, fields: Mapping[str, xr.DataArray]) -> list[dict[str, Any]]:
    """Means of fields (cell) over each country, by the names of the fields."""
    units = countries(region, view.dataset(region.name, "grid").load())
    found = {name: areas.area_statistics(each, units, least=LEAST)["mean"].values for name, each in fields.items()}
    return [
        {
            "area": str(area),
            **{name: None if np.isnan(v[row]) else round(float(v[row]), 3) for name, v in found.items()},
        }
        for row, area in enumerate(units["unit"].values)
    ]


def _once(region: Region, cells: xr.Dataset, what: str, make: Any) -> Any:
    """What is made of a region's cells, made once."""
    places = hash((cells["lat"].values.tobytes(), cells["lon"].values.tobytes()))
    key = (region.name, region.countries, places, what)
    if key not in _KNOWN:
        if len(_KNOWN) >= _KEPT:
            _KNOWN.clear()
        _KNOWN[key] = make()
    return _KNOWN[key]
