"""What the twin publishes: valid, complete, and the same each time."""

from __future__ import annotations

import json

import pystac
import pytest

from stac import item as items
from stac.collection import drought_collection, state_collection
from stac.validate import extensions, validate

RELEASE = {
    "region": "conus",
    "title": "Contiguous United States",
    "bbox": [-125.0, 25.0, -67.0, 50.0],
    "start_day": "2015-04-01",
    "first_day": "2018-03-01",
    "valid_day": "2018-03-31",
    "simulated": False,
    "sequence": 12,
    "previous": 11,
    "tier": "open_loop",
    "time": "2026-01-01T00:00:00.000Z",
    "snapshot": "1CECHNKREP0F1RSTCMT0",
    "store": "file:///srv/twin/store",
    "model": "land 1.0",
    "sources": [{"key": f"smap/s{n}@{n:016x}", "id": f"s{n}", "href": f"/provider/smap/s{n}.json"} for n in range(9)],
    "cells": 308,
    "class_fractions": {"D0": 0.2, "D1": 0.1, "none": 0.7},
    "reference_years": 2,
    "variables": {
        "soil_moisture_percentile": {
            "units": "%",
            "long_name": "percentile",
            "dims": ("time", "cell"),
            "group": "drought",
        },
        "drought_class": {"units": "1", "long_name": "class", "dims": ("time", "cell"), "group": "drought"},
        "volume_fraction_of_condensed_water_in_soil": {
            "standard_name": "volume_fraction_of_condensed_water_in_soil",
            "units": "m3 m-3",
            "long_name": "soil moisture",
            "dims": ("time", "layer", "cell"),
            "group": "state",
        },
        "surface_snow_amount": {
            "units": "kg m-2",
            "long_name": "snow on the ground",
            "dims": ("time", "cell"),
            "group": "state",
        },
    },
}
SIMULATED = {**RELEASE, "simulated": True, "previous": None, "sources": []}
ANALYSED = {
    **RELEASE,
    "tier": "analysis",
    "sources": [],
    "analysed_until": "2018-03-26",
    "analysis": {
        "key": "ab" * 16,
        "window": ["2017-03-27", "2018-03-26"],
        "items": 358,
        "accepted": True,
        "reasons": [],
        "observations": 61234,
        "members": 50,
        "dofs": 7.5,
        "chi2": 0.97,
        "patches": [40, 61],
        "sensors": {"smap": {"offset": 0.04, "inflation": 1.3, "withheld": {"open_loop_r": 0.7, "analysis_r": 0.8}}},
    },
    "variables": {
        **RELEASE["variables"],
        "root_zone_soil_moisture_spread": {
            "units": "m3 m-3",
            "long_name": "spread",
            "dims": ("time", "cell"),
            "group": "drought",
        },
    },
}
LOOKED = {**RELEASE, "quick_look": {"href": "quick/12.png", "size": 1234, "checksum": "1220" + "ab" * 32}}
MAKERS = (items.drought_item, items.state_item, drought_collection, state_collection)


def as_sent(thing: pystac.STACObject) -> dict:
    return thing.to_dict(include_self_link=False, transform_hrefs=False)


@pytest.mark.parametrize(
    "release", [RELEASE, SIMULATED, LOOKED, ANALYSED], ids=["plain", "simulated", "quick look", "analysed"]
)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_every_document_is_valid_with_all_its_extensions(make, release):
    assert validate(as_sent(make(release))) == []


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_same_release_is_the_same_document(make):
    again = json.loads(json.dumps(RELEASE))
    assert json.dumps(as_sent(make(RELEASE))) == json.dumps(as_sent(make(again)))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_documents_survive_pystac(make):
    sent = as_sent(make(RELEASE))
    read = pystac.read_dict(json.loads(json.dumps(sent)))
    assert as_sent(read) == json.loads(json.dumps(sent))


def test_every_source_item_is_named_however_many():
    sources = [{"key": f"smap/s{n}@{n:016x}", "id": f"s{n}", "href": f"/provider/s{n}.json"} for n in range(753)]
    item = as_sent(items.drought_item({**RELEASE, "sources": sources}))
    links = [link for link in item["links"] if link["rel"] == "derived_from"]
    assert [(link["href"], link["twin:key"]) for link in links] == [(s["href"], s["key"]) for s in sources]
    assert item["properties"]["twin:inputs"] == 753
    assert validate(item) == []


def test_the_asset_says_which_snapshot_and_group_to_open():
    asset = items.drought_item(RELEASE).assets["data"]
    assert (asset.href, asset.media_type) == (RELEASE["store"], "application/vnd.zarr+icechunk")
    assert asset.extra_fields["version"] == RELEASE["snapshot"]
    assert asset.extra_fields["twin:groups"] == ["conus/drought", "conus/drought/recent"]


def test_each_kind_holds_its_own_variables_on_its_own_dimensions():
    drought, state = (as_sent(make(RELEASE))["properties"] for make in (items.drought_item, items.state_item))
    assert set(drought["cube:variables"]) == {"soil_moisture_percentile", "drought_class"}
    assert "layer" not in drought["cube:dimensions"]
    assert state["cube:dimensions"]["layer"]["values"] == [0.1, 0.35, 1.0, 3.0]
    for properties in (drought, state):
        for row in properties["cube:variables"].values():
            assert set(row["dimensions"]) <= set(properties["cube:dimensions"])


def test_a_release_names_the_one_before_it_and_the_collection_the_newest():
    links = {link["rel"]: link["href"] for link in as_sent(items.drought_item(RELEASE))["links"]}
    assert links["predecessor-version"] == "collections/conus-drought/items/conus-drought-r11"
    newest = {link["rel"]: link["href"] for link in as_sent(drought_collection(RELEASE))["links"]}
    assert newest["latest-version"] == "collections/conus-drought/items/conus-drought-r12"
    assert items.drought_href("http://here/", "conus", 12).endswith("/" + newest["latest-version"])
    assert not [
        x
        for x in as_sent(items.drought_item(SIMULATED))["links"]
        if x["rel"] in ("predecessor-version", "derived_from")
    ]


def test_an_analysis_says_what_it_used_and_how_well_without_naming_every_item():
    item = as_sent(items.drought_item(ANALYSED))
    told = item["properties"]["twin:analysis"]
    assert item["properties"]["twin:tier"] == "analysis" and item["properties"]["twin:analysed_until"] == "2018-03-26"
    assert (told["items"], told["observations"], told["window"][1]) == (358, 61234, "2018-03-26")
    assert told["sensors"]["smap"]["withheld"]["analysis_r"] == 0.8 and "reasons" not in told
    assert "61234 observations of smap from 2017-03-27 to 2018-03-26" in item["properties"]["processing:lineage"]
    assert [link["rel"] for link in item["links"]] == ["collection", "predecessor-version"]
    spread = item["properties"]["cube:variables"]["root_zone_soil_moisture_spread"]
    assert (spread["unit"], spread["dimensions"]) == ("m3 m-3", ["time", "cell"])
    assert "root_zone_soil_moisture_spread" not in as_sent(items.state_item(ANALYSED))["properties"]["cube:variables"]


def test_an_open_loop_after_an_analysis_says_until_when_it_was_corrected():
    properties = items.drought_item({**RELEASE, "analysed_until": "2018-03-26"}).properties
    assert properties["twin:analysed_until"] == "2018-03-26" and "twin:analysis" not in properties
    assert "as corrected with observations until 2018-03-26" in properties["processing:lineage"]
    assert "twin:analysed_until" not in items.drought_item(RELEASE).properties


def test_simulated_data_is_called_simulated():
    assert items.drought_item(SIMULATED).properties["twin:simulated"] is True
    assert drought_collection(SIMULATED).description.startswith("Simulated data")


# ------------------------------------------------------------------------------------------------------------- validate
BROKEN = {
    "no outline": lambda d: d.pop("geometry"),
    "no time": lambda d: d["properties"].pop("datetime"),
    "time without a zone": lambda d: d["properties"].update(datetime="2018-03-31T00:00:00"),
    "no collection link": lambda d: d.update(links=[]),
    "dimension without a type": lambda d: d["properties"]["cube:dimensions"]["time"].pop("type"),
    "cell without bbox": lambda d: d["properties"]["cube:dimensions"]["cell"].pop("bbox"),
    "variable without dimensions": lambda d: d["properties"]["cube:variables"]["drought_class"].pop("dimensions"),
    "unknown cube field": lambda d: d["properties"].update({"cube:other": 1}),
    "software as text": lambda d: d["properties"].update({"processing:software": "land 1.0"}),
    "version as number": lambda d: d["properties"].update(version=12),
    "zarr format 4": lambda d: d["assets"]["data"].update({"zarr:zarr_format": 4}),
    "checksum in capitals": lambda d: d["assets"]["overview"].update({"file:checksum": "1220ABCD"}),
    "negative size": lambda d: d["assets"]["overview"].update({"file:size": -1}),
    "not an item": lambda d: d.update(type="Thing"),
    "older core": lambda d: d.update(stac_version="0.9.0"),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_found(spoil):
    document = json.loads(json.dumps(as_sent(items.drought_item(LOOKED))))
    assert validate(document) == []
    spoil(document)
    assert validate(document) != []


def test_an_extension_without_a_schema_is_an_error():
    document = as_sent(items.drought_item(RELEASE))
    document["stac_extensions"].append("https://stac-extensions.github.io/eo/v1.1.0/schema.json")
    (line,) = validate(document)
    assert "no schema on this machine for https://stac-extensions.github.io/eo" in line


def test_there_is_a_schema_for_every_extension_we_publish():
    used = {uri for make in MAKERS for uri in as_sent(make(LOOKED))["stac_extensions"]}
    assert used <= set(extensions())
