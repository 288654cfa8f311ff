"""What the twin publishes of scenario runs: one item per run, a pure function of its summary.

    summary (plain data) ─scenario_item─▸ <region>-scenario-<12 digits of its key>

A summary has: key, region, title, bbox [w, s, e, n], label, family, scenario, delta, model ('name version'), years
[first, last], cells, reference (key of the run it is compared with, or None), decades, spot_check, notes, simulated,
time, snapshot, store (href), variables {name: {units, long_name, dims, group…}}, sources [{key, id, href}].
Extensions: datacube 2.2, processing 1.2, zarr 1.1; our own fields begin with `twin:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pystac

from stac.collection import open_collection
from stac.item import DATACUBE, PROCESSING, ZARR, cube_variables, dimensions, moment, outline, repository

_KIND = "scenarios"
_TOLD = ("family", "scenario", "delta", "reference", "decades", "spot_check", "notes", "simulated", "cells", "label")
Summary = Mapping[str, Any]


def scenario_item(run: Summary) -> pystac.Item:
    """One run: whose weather and how changed, through which model, what it means by decade, and how far it is off."""
    first, last = (f"{run['years'][0]}-01-01", f"{run['years'][1]}-12-31")
    name, _, number = run["model"].rpartition(" ")
    item = pystac.Item(
        id=item_id(run),
        geometry=outline(run["bbox"]),
        bbox=[float(edge) for edge in run["bbox"]],
        datetime=None,
        start_datetime=moment(first),
        end_datetime=moment(last).replace(hour=23, minute=59, second=59),
        properties={
            "title": f"{run['title']}: {run['label']}, {run['years'][0]} to {run['years'][1]}",
            "created": run["time"],
            "updated": run["time"],
            "processing:level": "L4",
            "processing:lineage": _lineage(run),
            "processing:software": {name: number},
            "cube:dimensions": _dimensions(run),
            "cube:variables": cube_variables(run["variables"]),
            "twin:region": run["region"],
            "twin:key": run["key"],
            "twin:snapshot": run["snapshot"],
            **{f"twin:{field}": run[field] for field in _TOLD},
        },
        stac_extensions=[DATACUBE, PROCESSING, ZARR],
        collection=f"{run['region']}-{_KIND}",
    )
    item.add_asset("data", _asset(run))
    item.add_link(pystac.Link("collection", f"collections/{item.collection_id}", "application/json"))
    for source in run["sources"]:
        extra = {"twin:key": source["key"]}
        item.add_link(pystac.Link("derived_from", source["href"], "application/geo+json", source["id"], extra))
    if run["reference"]:
        compared = _path(run["region"], run["reference"])
        item.add_link(pystac.Link("derived_from", compared, "application/geo+json", "The run it is compared with"))
    return item


def scenario_collection(run: Summary) -> pystac.Collection:
    """Where the region's scenario runs are published."""
    about = (
        "Daily soil moisture under other climates and what it means for drought, one item per run. "
        "Runs on RCPs are of CMIP5 (ISIMIP2b), those on SSPs of CMIP6 (ISIMIP3b): `twin:family` says which."
    )
    return open_collection(run, _KIND, "scenarios", about, ["climate scenario", "soil moisture"])


def item_id(run: Summary) -> str:
    return f"{run['region']}-scenario-{run['key'][:12]}"


def href(catalog_url: str, run: Summary) -> str:
    """Where the run's item is found on a catalogue."""
    return f"{catalog_url.rstrip('/')}/{_path(run['region'], run['key'])}"


def _path(region: str, key: str) -> str:
    return f"collections/{region}-{_KIND}/items/{item_id({'region': region, 'key': key})}"


def _lineage(run: Summary) -> str:
    error = run["spot_check"]["root_zone_rmse"]
    return (
        f"{run['label']}, {run['years'][0]} to {run['years'][1]}, through {run['model']}; at "
        f"{len(run['spot_check']['cells'])} cells {run['spot_check']['model']} ran beside it: {error:g} m3 m-3 of "
        "difference in the root zone."
    )


def _dimensions(run: Summary) -> dict[str, Any]:
    first, last = run["years"]
    years = {"type": "temporal", "extent": [f"{first}-01-01T00:00:00Z", f"{last}-12-31T23:59:59Z"], "step": "P1Y"}
    days = {**run, "start_day": f"{first}-01-01", "valid_day": f"{last}-12-31"}
    named = {"year": {**years, "description": "years, those of a season its cell's"}}
    return dimensions(days, run["variables"]) | named


def _asset(run: Summary) -> pystac.Asset:
    how = (
        "Icechunk repository: open a read-only session at the snapshot named by `version`, read the Zarr groups of "
        "`twin:groups` with xarray.open_zarr(session.store, group=..., consolidated=False); join `soil` and its "
        "`recent` in time, `yearly` has the figures of each year."
    )
    return repository(run, ["soil", "soil/recent", "yearly"], "Arrays of this run", how)
