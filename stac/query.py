"""Questions about published releases, answered as plain data by any `stac.catalog.Catalog`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pystac

from stac.catalog import Catalog

_OURS = "twin:"


def latest_release(catalog: Catalog, region: str, kind: str = "drought") -> dict[str, Any] | None:
    """The newest release of a region, None before the first."""
    return next(iter(releases(catalog, region, 1, kind)), None)


def releases(catalog: Catalog, region: str, limit: int = 20, kind: str = "drought") -> list[dict[str, Any]]:
    """The last releases of a region, newest first."""
    return list(_found(catalog, region, kind, sortby="-properties.twin:sequence", max_items=limit))


def release_for(catalog: Catalog, region: str, day: date | str, kind: str = "drought") -> dict[str, Any] | None:
    """The newest release that reaches to `day` or beyond, so whose arrays hold that day; None where none does."""
    wanted = f"{day}T00:00:00Z"
    reaching = {"op": ">=", "args": [{"property": "datetime"}, {"timestamp": wanted}]}
    return next(_found(catalog, region, kind, filter=reaching, sortby="-properties.twin:sequence", max_items=1), None)


def provenance(catalog: Catalog, region: str, sequence: int, kind: str = "drought") -> dict[str, Any] | None:
    """What a release was made of: its items' keys and hrefs, snapshot, software and the release before it."""
    item = catalog.get(f"{region}-{kind}", f"{region}-{kind}-r{sequence}")
    return None if item is None else release(item)


def release(item: pystac.Item) -> dict[str, Any]:
    """A published item as plain data: id, snapshot, store, group, valid_day, tier, analysed_until, sources…"""
    asset = item.assets["data"]
    properties = item.properties
    own = {name.removeprefix(_OURS): value for name, value in properties.items() if name.startswith(_OURS)}
    links = item.to_dict(include_self_link=False, transform_hrefs=False)["links"]
    before = next((link["href"] for link in links if link["rel"] == "predecessor-version"), None)
    return {
        **own,
        "id": item.id,
        "collection": item.collection_id,
        "time": properties["updated"],
        "start": properties["start_datetime"],
        "end": properties["end_datetime"],
        "store": asset.href,
        "groups": asset.extra_fields["twin:groups"],
        "software": properties["processing:software"],
        "lineage": properties["processing:lineage"],
        "variables": properties["cube:variables"],
        "previous": before and before.rpartition("/")[2].removesuffix(".json"),
        "sources": [
            {"id": link.get("title", ""), "href": link["href"], "key": link.get("twin:key", "")}
            for link in links
            if link["rel"] == "derived_from"
        ],
    }


def _found(catalog: Catalog, region: str, kind: str, **query: Any) -> Iterator[dict[str, Any]]:
    return (release(item) for item in catalog.search(collections=[f"{region}-{kind}"], **query))
