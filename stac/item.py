"""What the twin publishes: one item per release and kind, a pure function of the release.

    release (a journal entry as plain data) ─drought_item→ <region>-drought-r<sequence>
                                            ├state_item──→ <region>-state-r<sequence>
                                            └indices_item→ <region>-indices-r<sequence>, where there are some

A release has: region, title, bbox [w, s, e, n], sequence, previous (sequence of the release before it, or None),
valid_day, first_day (earliest day that changed), start_day (of the region's record), time (of the entry), tier,
simulated, snapshot, store (href), model ('name version'), variables {name: {units, long_name, dims, group…}},
sources [{key, id, href}], cells, class_fractions, reference_years. Optional: layers (thicknesses, m), code (version of
the twin), facility, quick_look {href, size, checksum}; analysed_until (last day whose observations were assimilated),
and of tier analysis `analysis`: its key, window [first, last], items, observations, members, dofs, chi2, patches and
sensors. An analysis takes no new item: what it used are the items of its sensors that releases before it derive from.

Links to our own documents are `collections/<collection>/items/<id>`, relative to the catalogue wherever it is served,
so that the same release is the same document on every catalogue.
Extensions: datacube 2.2, processing 1.2, version 1.2, zarr 1.1, file 2.1; our own fields begin with `twin:`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import pystac

DATACUBE = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
VERSION = "https://stac-extensions.github.io/version/v1.2.0/schema.json"
ZARR = "https://stac-extensions.github.io/zarr/v1.1.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
ICECHUNK = "application/vnd.zarr+icechunk"
EXCEEDED = (1, 2, 3, 4, 5)  # classes that a probability is given for
LAYERS = (0.1, 0.25, 0.65, 2.0)  # thickness of the soil layers, m, where a release names none
_VERDICT = ("accepted", "reasons")  # of an analysis: what is released was accepted

Release = Mapping[str, Any]


def drought_item(release: Release) -> pystac.Item:
    """Percentiles and drought classes of one release."""
    item = _item(release, "drought")
    for name in ("class_fractions", "reference_years"):
        if release.get(name) is not None:
            item.properties[f"twin:{name}"] = release[name]
    if look := release.get("quick_look"):
        extra = {f"file:{name}": look[name] for name in ("size", "checksum") if look.get(name)}
        item.add_asset(
            "overview", pystac.Asset(look["href"], "Map of drought classes", None, "image/png", ["overview"], extra)
        )
        item.stac_extensions.append(FILE)
    return item


def state_item(release: Release) -> pystac.Item:
    """The land state of one release: soil water by layer, canopy, snow, and the fluxes kept with it."""
    return _item(release, "state")


def indices_item(release: Release) -> pystac.Item:
    """Indices of one release: standardised rain, dry days and spells, the wet season so far, the combined indicator."""
    item = _item(release, "indices")
    if release.get("indices") is not None:
        item.properties["twin:indices"] = release["indices"]
    return item


def item_id(region: str, kind: str, sequence: int) -> str:
    """The id of a release's item; its sequence alone, so that the next release can name it."""
    return f"{region}-{kind}-r{sequence}"


def drought_href(catalog_url: str, region: str, sequence: int) -> str:
    """Where a release's drought item is found on a catalogue."""
    return f"{catalog_url.rstrip('/')}/{_path(region, 'drought', sequence)}"


def _path(region: str, kind: str, sequence: int) -> str:
    return f"collections/{region}-{kind}/items/{item_id(region, kind, sequence)}"


def _item(release: Release, kind: str) -> pystac.Item:
    region, sequence = release["region"], release["sequence"]
    item = pystac.Item(
        id=item_id(region, kind, sequence),
        geometry=outline(release["bbox"]),
        bbox=[float(edge) for edge in release["bbox"]],
        datetime=moment(release["valid_day"]),
        properties=_properties(release, kind),
        stac_extensions=[DATACUBE, PROCESSING, VERSION, ZARR],
        collection=f"{region}-{kind}",
    )
    item.add_asset("data", store_asset(release, kind))
    item.add_link(pystac.Link("collection", f"collections/{region}-{kind}", "application/json"))
    if release.get("previous") is not None:
        before = _path(region, kind, release["previous"])
        item.add_link(pystac.Link("predecessor-version", before, "application/geo+json", "The release before this one"))
    for source in release["sources"]:
        item.add_link(
            pystac.Link(
                "derived_from", source["href"], "application/geo+json", source["id"], {"twin:key": source["key"]}
            )
        )
    return item


def _properties(release: Release, kind: str) -> dict[str, Any]:
    name, _, number = release["model"].rpartition(" ")
    software = {name or number: number} | ({"drought-twin": release["code"]} if release.get("code") else {})
    facility = {"processing:facility": release["facility"]} if release.get("facility") else {}
    count = len(release["sources"])
    return {
        "title": f"{release['title']}: {kind} on {release['valid_day']}",
        "start_datetime": f"{release['start_day']}T00:00:00Z",
        "end_datetime": f"{release['valid_day']}T23:59:59Z",
        "created": release["time"],
        "updated": release["time"],
        "version": str(release["sequence"]),
        "processing:level": "L4",
        "processing:lineage": _lineage(release, count),
        "processing:software": software,
        "processing:datetime": release["time"],
        "processing:version": str(release["sequence"]),
        **facility,
        "cube:dimensions": dimensions(release, rows_of(release, kind)),
        "cube:variables": cube_variables(rows_of(release, kind)),
        "twin:region": release["region"],
        "twin:sequence": release["sequence"],
        "twin:tier": release["tier"],
        "twin:simulated": release["simulated"],
        "twin:snapshot": release["snapshot"],
        "twin:valid_day": release["valid_day"],
        "twin:first_day": release["first_day"],
        "twin:cells": release["cells"],
        "twin:inputs": count,
        **_analysis(release),
    }


def _analysis(release: Release) -> dict[str, Any]:
    """Until when observations corrected what is released, and the numbers of the analysis that did where it is one."""
    until = {"twin:analysed_until": release["analysed_until"]} if release.get("analysed_until") else {}
    told = {name: value for name, value in (release.get("analysis") or {}).items() if name not in _VERDICT}
    return {**until, **({"twin:analysis": told} if told else {})}


def _lineage(release: Release, count: int) -> str:
    data = "simulated " if release["simulated"] else ""
    until, days = release.get("analysed_until"), f"from {release['first_day']} to {release['valid_day']}"
    if told := release.get("analysis"):
        seen = f"{told['observations']} {data}observations of {', '.join(told['sensors'])}"
        first, last = told["window"]
        return f"Land corrected with {seen} from {first} to {last}; all of it anew with {release['model']} {days}."
    how = {"open_loop": "carried forward by the land model", "analysis": "analysed with new observations"}
    since = f", as corrected with observations until {until}," if until else ""
    return (
        f"{count} new {data}item{'s' * (count != 1)} taken; land state{since} "
        f"{how.get(release['tier'], release['tier'])} with {release['model']} {days}."
    )


def store_asset(release: Release, kind: str, *, pinned: bool = True) -> pystac.Asset:
    """The store that holds the arrays: `version` is the snapshot to open, `twin:groups` where in it."""
    groups = [kind, f"{kind}/recent"]
    if pinned:
        how = (
            "Icechunk repository: open a read-only session at the snapshot named by `version`, read the Zarr groups of "
            "`twin:groups` with xarray.open_zarr(session.store, group=..., consolidated=False), and join them in time: "
            "the first holds full blocks of days, the second the days that are still filling one."
        )
        return repository(release, groups, f"{kind.capitalize()} arrays at this release", how)
    how = "Icechunk repository: the branch `main` holds the newest release in the Zarr groups of `twin:groups`."
    roles = ("data", "latest-version")
    return repository(release, groups, f"{kind.capitalize()} arrays, newest", how, roles=roles, pinned=False)


def repository(
    told: Mapping[str, Any],
    groups: Sequence[str],
    title: str,
    how: str,
    *,
    roles: Sequence[str] = ("data",),
    pinned: bool = True,
) -> pystac.Asset:
    """An Icechunk repository as an asset: its groups of a region, and the snapshot unless it is not `pinned`.

    told   has region, store (href) and snapshot
    """
    extra = {
        "zarr:node_type": "group",
        "zarr:zarr_format": 3,
        "zarr:consolidated": False,
        "twin:groups": [f"{told['region']}/{group}" for group in groups],
        "twin:grid_group": f"{told['region']}/grid",
        **({"version": told["snapshot"]} if pinned else {}),
    }
    return pystac.Asset(told["store"], title, how, ICECHUNK, list(roles), extra)


def rows_of(release: Release, kind: str) -> dict[str, Mapping[str, Any]]:
    """The variables of one kind of item."""
    return {name: row for name, row in release["variables"].items() if row["group"] == kind}


def dimensions(release: Release, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`cube:dimensions` of some variables: days, cells (a list of points), soil layers, classes."""
    day = "T00:00:00Z"
    found = {
        "time": {
            "type": "temporal",
            "extent": [f"{release['start_day']}{day}", f"{release['valid_day']}{day}"],
            "step": "P1D",
            "description": "days, labelled by their start",
        },
        "cell": {
            "type": "geometry",
            "axes": ["x", "y"],
            "bbox": [float(edge) for edge in release["bbox"]],
            "geometry_types": ["Point"],
            "reference_system": 4326,
            "description": "centres of the cells; their lat and lon are in the group of the grid",
        },
    }
    if any("layer" in row["dims"] for row in rows.values()):
        thicknesses = release.get("layers") or LAYERS
        found["layer"] = {
            "type": "spatial",
            "axis": "z",
            "values": [round(depth, 6) for depth in accumulate(thicknesses)],
            "unit": "m",
            "description": "depth of the bottom of the soil layer, downwards",
        }
    if any("code" in row["dims"] for row in rows.values()):
        found["code"] = {
            "type": "ordinal",
            "values": list(EXCEEDED),
            "description": "drought class that is reached or exceeded: 1 to 5 are D0 to D4",
        }
    return found


def cube_variables(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`cube:variables` of some variables, from the table of variables."""
    found = {}
    for name, row in rows.items():
        named = {"twin:standard_name": row["standard_name"]} if row.get("standard_name") else {}
        described = {
            "type": "data",
            "dimensions": list(row["dims"]),
            "unit": row["units"],
            "description": row["long_name"],
        }
        found[name] = {**described, **named}
    return found


def outline(bbox: Any) -> dict[str, Any]:
    """The GeoJSON polygon of west, south, east, north."""
    west, south, east, north = (float(edge) for edge in bbox)
    return {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }


def moment(day: str) -> datetime:
    """The start of a day, UTC."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
