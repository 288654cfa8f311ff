"""What the twin publishes of its emulators: valid by the machine learning model extension, and always the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pystac
import pytest

from stac.emulator import emulator_collection, emulator_item
from stac.validate import validate

MOISTURE = "volume_fraction_of_condensed_water_in_soil"
PROMOTION = {
    "region": "conus",
    "title": "Contiguous United States",
    "bbox": [-125.0, 25.0, -67.0, 50.0],
    "start_day": "2015-04-01",
    "valid_day": "2019-03-31",
    "simulated": False,
    "sequence": 12,
    "time": "2026-01-01T00:00:00.000Z",
    "snapshot": "1CECHNKREP0F1RSTCMT0",
    "store": "file:///srv/twin/store",
    "model": "land 1.0.0",
    "version": "abcdef012345",
    "predecessor": "abcdef012344",
    "features": ["precipitation", "b"],
    "outputs": [MOISTURE, "surface_snow_amount"],
    "variables": {
        "precipitation": {"units": "kg m-2 day-1", "long_name": "rain and snow", "dims": ("time", "cell")},
        "b": {"units": "1", "long_name": "exponent", "dims": ("time", "cell")},
        MOISTURE: {"units": "m3 m-3", "long_name": "soil moisture", "dims": ("time", "layer", "cell")},
        "surface_snow_amount": {"units": "kg m-2", "long_name": "snow", "dims": ("time", "cell")},
    },
    "files": [
        {"name": "emulator.json", "href": "file:///m/emulator.json", "size": 1234, "checksum": "1220" + "ab" * 32},
        {"name": f"{MOISTURE}.ubj", "href": "file:///m/theta.ubj", "size": 98765, "checksum": "1220" + "cd" * 32},
    ],
    "sources": [{"id": "conus-state-r11", "href": "collections/conus-state/items/conus-state-r11"}],
    "framework_version": "3.4.1",
    "hyperparameters": {"trees": 100, "depth": 6},
    "reasons": ["there is none yet"],
    "scores": {"rmse": [0.01, 0.005, 0.004, 0.006]},
}


def as_sent(thing: pystac.STACObject) -> dict[str, Any]:
    return thing.to_dict(include_self_link=False, transform_hrefs=False)


@pytest.mark.parametrize("make", [emulator_item, emulator_collection], ids=lambda make: make.__name__)
@pytest.mark.parametrize("change", [{}, {"simulated": True, "predecessor": None, "sources": []}], ids=["real", "first"])
def test_every_document_is_valid_and_the_same_each_time(make, change):
    promotion = {**PROMOTION, **change}
    assert validate(as_sent(make(promotion))) == []
    assert as_sent(make(promotion)) == as_sent(make(json.loads(json.dumps(promotion))))
    assert as_sent(pystac.read_dict(as_sent(make(promotion)))) == as_sent(make(promotion))


def test_an_item_says_what_goes_in_and_out_and_where_the_files_are():
    sent = as_sent(emulator_item(PROMOTION))
    properties, assets = sent["properties"], sent["assets"]
    assert sent["collection"] == "conus-emulators" and sent["id"] == "conus-emulator-abcdef012345"
    assert properties["mlm:input"][0]["variables"] == ["precipitation", "b"]
    assert properties["mlm:input"][0]["input"]["shape"] == [-1, 2]
    theta, snow = (each["result"] for each in properties["mlm:output"])
    assert theta["shape"] == [-1, 1, 4] and theta["dim_order"] == ["batch", "variables", "layer"]
    assert snow["shape"] == [-1, 1]
    assert set(properties["cube:variables"]) == set(PROMOTION["variables"])
    booster = assets[f"{MOISTURE}.ubj"]
    assert booster["roles"] == ["mlm:model", "mlm:weights"] and booster["file:checksum"] == "1220" + "cd" * 32
    assert assets["emulator.json"]["roles"] == ["metadata"] and assets["store"]["version"] == PROMOTION["snapshot"]
    links = {link["rel"]: link["href"] for link in sent["links"]}
    assert links["predecessor-version"] == "collections/conus-emulators/items/conus-emulator-abcdef012344"
    assert links["derived_from"] == "collections/conus-state/items/conus-state-r11"


def _without_booster(item: dict[str, Any]) -> None:
    item["assets"] = {"emulator.json": item["assets"]["emulator.json"]}


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda item: item["properties"].pop("mlm:tasks"), "'mlm:tasks' is a required property"),
        (lambda item: item["properties"].update({"mlm:colour": 1}), "'mlm:colour' does not match"),
        (lambda item: item["properties"].update({"mlm:artifact_type": "x"}), "'mlm:artifact_type' does not match"),
        (lambda item: item["properties"].update({"mlm:name": "7"}), "'7' does not match"),
        (lambda item: item["properties"].update({"mlm:tasks": ["guessing"]}), "'guessing' is not one of"),
        (lambda item: item["properties"]["mlm:output"][0].pop("tasks"), "'tasks' is a required property"),
        (lambda item: item["properties"]["mlm:input"][0]["input"].update(dim_order=["batch", "x"]), "dim_order"),
        (lambda item: item["properties"].pop("cube:variables"), "'cube:variables' is a required property"),
        (lambda item: item["assets"][f"{MOISTURE}.ubj"].pop("mlm:artifact_type"), "'mlm:artifact_type' is a required"),
        (lambda item: item["assets"]["emulator.json"].update({"mlm:artifact_type": "x"}), "assets/emulator.json"),
        (lambda item: item["assets"]["store"].update({"mlm:entrypoint": "a:b"}), "assets/store/roles"),
        (_without_booster, "assets"),
    ],
)
def test_what_the_extension_forbids_is_found(change: Callable[[dict[str, Any]], Any], said: str):
    item = copy.deepcopy(as_sent(emulator_item(PROMOTION)))
    change(item)
    assert any(said in line and line.endswith("(mlm)") for line in validate(item)), validate(item)
