"""The collections the twin publishes releases in, `<region>-<kind>`, each a pure function of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pystac

from stac.item import (
    DATACUBE,
    VERSION,
    ZARR,
    Release,
    cube_variables,
    dimensions,
    item_id,
    moment,
    rows_of,
    store_asset,
)

LICENCE = "other"
_ABOUT = {
    "drought": "Percentiles of root-zone soil moisture and drought classes D0 to D4, one item per release.",
    "state": "Water in soil, canopy and snow, soil temperature where the model has it, one item per release.",
    "indices": "Standardised precipitation, dry days and spells, the wet season so far and a combined indicator, "
    "one item per release.",
}


def drought_collection(release: Release) -> pystac.Collection:
    """Where drought releases of the region are published, as of this release."""
    return _collection(release, "drought")


def state_collection(release: Release) -> pystac.Collection:
    """Where releases of the region's land state are published, as of this release."""
    return _collection(release, "state")


def indices_collection(release: Release) -> pystac.Collection:
    """Where releases of the region's indices are published, as of this release."""
    return _collection(release, "indices")


def _collection(release: Release, kind: str) -> pystac.Collection:
    """Its extent, cube, newest item and `version` are those of the release given, so publish releases in order."""
    region = release["region"]
    label = "Simulated data for demonstration. " if release["simulated"] else ""
    start = datetime.fromisoformat(release["start_day"]).replace(tzinfo=UTC)
    end = datetime.fromisoformat(release["valid_day"]).replace(hour=23, minute=59, second=59, tzinfo=UTC)
    collection = pystac.Collection(
        id=f"{region}-{kind}",
        title=f"{release['title']}: {kind}",
        description=f"{label}{_ABOUT[kind]} Region: {release['title']}.",
        extent=pystac.Extent(
            pystac.SpatialExtent([[float(edge) for edge in release["bbox"]]]), pystac.TemporalExtent([[start, end]])
        ),
        license=LICENCE,
        keywords=["drought", "soil moisture", "digital twin", *(["simulated"] if release["simulated"] else [])],
        stac_extensions=[DATACUBE, VERSION, ZARR],
        extra_fields={
            "version": str(release["sequence"]),
            "cube:dimensions": dimensions(release, rows_of(release, kind)),
            "cube:variables": cube_variables(rows_of(release, kind)),
            "twin:region": region,
            "twin:simulated": release["simulated"],
        },
        assets={"data": store_asset(release, kind, pinned=False)},
    )
    newest = f"collections/{region}-{kind}/items/{item_id(region, kind, release['sequence'])}"
    collection.add_link(pystac.Link("latest-version", newest, "application/geo+json", "The newest release"))
    return collection


def open_collection(
    told: Mapping[str, Any], kind: str, name: str, about: str, keywords: Sequence[str]
) -> pystac.Collection:
    """Where items of a kind are published that are not of one time axis; it says nothing of any one item.

    told   has region, title, bbox and simulated
    """
    label = "Simulated data for demonstration. " if told["simulated"] else ""
    always = [moment("1900-01-01"), moment("2101-01-01")]
    return pystac.Collection(
        id=f"{told['region']}-{kind}",
        title=f"{told['title']}: {name}",
        description=f"{label}{about} Region: {told['title']}.",
        extent=pystac.Extent(
            pystac.SpatialExtent([[float(edge) for edge in told["bbox"]]]), pystac.TemporalExtent([always])
        ),
        license=LICENCE,
        keywords=[*keywords, "drought", *(["simulated"] if told["simulated"] else [])],
        stac_extensions=[],
        extra_fields={"twin:region": told["region"], "twin:simulated": told["simulated"]},
    )
