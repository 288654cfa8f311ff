"""What the twin publishes of outlooks: one item each, a pure function of its summary.

    summary (plain data) ─outlook_item─▸ <region>-outlook-r<sequence>

A summary has: region, title, bbox [w, s, e, n], sequence, season ('first to last'), issued, lead_time, metric, about
(words of the metric), weights, terciles (or none), effective_years, reference_start, reference_end, reference_years,
areas, cells, simulated, time, snapshot, store (href), model ('name version'), variables {name: {units, long_name,
dims}}, dimensions {name: values}.
Extensions: datacube 2.2, processing 1.2, zarr 1.1; our own fields begin with `twin:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pystac

from stac.collection import open_collection
from stac.item import DATACUBE, PROCESSING, ZARR, cube_variables, dimensions, moment, outline, repository

_KIND = "outlook"
_TOLD = ("issued", "lead_time", "metric", "weights", "effective_years", "areas", "cells", "simulated")
_REFERENCE = ("reference_start", "reference_end", "reference_years")
Summary = Mapping[str, Any]


def outlook_item(told: Summary) -> pystac.Item:
    """One outlook: of which season, issued when, from which past years and how weighed, and what it says by country."""
    first, last = told["season"].split(" to ")
    name, _, number = told["model"].rpartition(" ")
    item = pystac.Item(
        id=f"{told['region']}-{_KIND}-r{told['sequence']}",
        geometry=outline(told["bbox"]),
        bbox=[float(edge) for edge in told["bbox"]],
        datetime=moment(told["issued"]),
        start_datetime=moment(first),
        end_datetime=moment(last).replace(hour=23, minute=59, second=59),
        properties={
            "title": f"{told['title']}: outlook of {told['about']}, {told['season']}",
            "created": told["time"],
            "updated": told["time"],
            "processing:level": "L4",
            "processing:lineage": _lineage(told),
            "processing:software": {name: number},
            "cube:dimensions": _dimensions(told, first, last),
            "cube:variables": cube_variables(told["variables"]),
            "twin:region": told["region"],
            "twin:sequence": told["sequence"],
            "twin:snapshot": told["snapshot"],
            **{f"twin:{field}": told[field] for field in (*_TOLD, *_REFERENCE)},
            **({"twin:terciles": told["terciles"]} if told.get("terciles") else {}),
        },
        stac_extensions=[DATACUBE, PROCESSING, ZARR],
        collection=f"{told['region']}-{_KIND}",
    )
    item.add_asset("data", _asset(told))
    item.add_link(pystac.Link("collection", f"collections/{item.collection_id}", "application/json"))
    return item


def outlook_collection(told: Summary) -> pystac.Collection:
    """Where the region's outlooks are published."""
    about = "How a season may end: what is known of it, continued as each past year went on, one item per outlook."
    return open_collection(told, _KIND, "outlooks", about, ["seasonal outlook"])


def _lineage(told: Summary) -> str:
    weights = {
        "equal": "all alike",
        "analogues": "those that began alike the more",
        "terciles": "by a forecast of rain in terciles",
    }
    return (
        f"{told['about'].capitalize()} of {told['season']}, issued {told['issued']} with {told['lead_time']} to come: "
        f"the season so far, continued under the weather of {told['reference_years']} past years, weighed "
        f"{weights[told['weights']]}."
    )


def _dimensions(told: Summary, first: str, last: str) -> dict[str, Any]:
    found = dimensions({**told, "start_day": first, "valid_day": last}, told["variables"])
    del found["time"]
    return found | {name: {"type": "ordinal", "values": values} for name, values in told["dimensions"].items()}


def _asset(told: Summary) -> pystac.Asset:
    how = (
        "Icechunk repository: open a read-only session at the snapshot named by `version`, and read the Zarr group of "
        "`twin:groups` with xarray.open_zarr(session.store, group=..., consolidated=False)."
    )
    return repository(told, ["outlook"], "Probabilities by cell", how)
