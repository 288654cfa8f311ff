"""What the twin publishes of its emulators: one item per model that came into use, a pure function of its promotion.

    promotion (a journal entry and the model's card as plain data) ─emulator_item→ <region>-emulator-<version>

A promotion has what a release has to say where, when and on what it rests (`stac.item`): region, title, bbox, sequence,
time, simulated, snapshot, store, start_day and valid_day (of the forcing trained on), model (the land model that taught
it), code, variables (its features and outputs), sources (items it derives from). And of its own: version, predecessor
(version of the model before it, or None), features and outputs (names, in order), files [{name, href, size, checksum}],
framework_version, trees, hyperparameters, reasons (why it was trained), scores.
Extensions: machine learning model 1.5, datacube 2.2, processing 1.2, version 1.2, file 2.1.
"""

from __future__ import annotations

from typing import Any

import pystac

from stac.collection import LICENCE
from stac.item import (
    DATACUBE,
    FILE,
    ICECHUNK,
    LAYERS,
    PROCESSING,
    VERSION,
    Release,
    cube_variables,
    dimensions,
    moment,
    outline,
)

MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
CARD = "emulator.json"
_KIND = "emulators"


def emulator_item(promotion: Release) -> pystac.Item:
    """One emulator: what goes in, what comes out, how well it does, and its files."""
    region, version = promotion["region"], promotion["version"]
    item = pystac.Item(
        id=item_id(region, version),
        geometry=outline(promotion["bbox"]),
        bbox=[float(edge) for edge in promotion["bbox"]],
        datetime=moment(promotion["valid_day"]),
        properties=_properties(promotion),
        stac_extensions=[MLM, DATACUBE, PROCESSING, VERSION, FILE],
        collection=f"{region}-{_KIND}",
    )
    for file in promotion["files"]:
        item.add_asset(file["name"], _file_asset(file))
    item.add_asset("store", _store_asset(promotion))
    item.add_link(pystac.Link("collection", f"collections/{region}-{_KIND}", "application/json"))
    if promotion.get("predecessor"):
        before = _path(region, promotion["predecessor"])
        item.add_link(pystac.Link("predecessor-version", before, "application/geo+json", "The emulator before this"))
    for source in promotion["sources"]:
        item.add_link(pystac.Link("derived_from", source["href"], "application/geo+json", source["id"]))
    return item


def emulator_collection(promotion: Release) -> pystac.Collection:
    """Where the region's emulators are published; `latest-version` is the one in use."""
    region = promotion["region"]
    label = "Simulated data for demonstration. " if promotion["simulated"] else ""
    first, last = moment(promotion["start_day"]), moment(promotion["valid_day"])
    collection = pystac.Collection(
        id=f"{region}-{_KIND}",
        title=f"{promotion['title']}: emulators",
        description=f"{label}Trees that answer for the land model, with what they were trained on and how far they are "
        f"wrong where they were not, one item per model. Region: {promotion['title']}.",
        extent=pystac.Extent(
            pystac.SpatialExtent([[float(edge) for edge in promotion["bbox"]]]), pystac.TemporalExtent([[first, last]])
        ),
        license=LICENCE,
        keywords=["emulator", "XGBoost", "soil moisture", *(["simulated"] if promotion["simulated"] else [])],
        stac_extensions=[VERSION],
        extra_fields={
            "version": promotion["version"],
            "twin:region": region,
            "twin:simulated": promotion["simulated"],
        },
    )
    newest = _path(region, promotion["version"])
    collection.add_link(pystac.Link("latest-version", newest, "application/geo+json", "The emulator in use"))
    return collection


def item_id(region: str, version: str) -> str:
    """The id of an emulator's item."""
    return f"{region}-emulator-{version}"


def _path(region: str, version: str) -> str:
    return f"collections/{region}-{_KIND}/items/{item_id(region, version)}"


def _properties(promotion: Release) -> dict[str, Any]:
    version, taught = promotion["version"], promotion["model"]
    name, _, number = taught.rpartition(" ")
    days = f"from {promotion['start_day']} to {promotion['valid_day']}"
    data = "simulated forcing" if promotion["simulated"] else "forcing"
    return {
        "title": f"{promotion['title']}: emulator {version}",
        "start_datetime": f"{promotion['start_day']}T00:00:00Z",
        "end_datetime": f"{promotion['valid_day']}T23:59:59Z",
        "created": promotion["time"],
        "updated": promotion["time"],
        "version": version,
        "mlm:name": f"drought-twin emulator {version}",
        "mlm:architecture": "gradient boosted decision trees that correct a daily water balance",
        "mlm:tasks": ["regression"],
        "mlm:framework": "XGBoost",
        "mlm:framework_version": promotion["framework_version"],
        "mlm:memory_size": sum(file["size"] for file in promotion["files"]),
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:accelerator_constrained": False,  # the same bits on any processor
        "mlm:hyperparameters": promotion["hyperparameters"],
        "mlm:input": [
            {
                "name": "features of cells and days",
                "variables": list(promotion["features"]),
                "input": _array([len(promotion["features"])], ["variables"]),
            }
        ],
        "mlm:output": [_output(promotion, name) for name in promotion["outputs"]],
        "processing:level": "L4",
        "processing:lineage": f"Trained on {taught}, run with {data} {days}: {'; '.join(promotion['reasons'])}.",
        "processing:software": {name or number: number, "XGBoost": promotion["framework_version"]}
        | ({"drought-twin": promotion["code"]} if promotion.get("code") else {}),
        "processing:datetime": promotion["time"],
        "processing:version": version,
        "cube:dimensions": dimensions(promotion, promotion["variables"]),
        "cube:variables": cube_variables(promotion["variables"]),
        "twin:region": promotion["region"],
        "twin:sequence": promotion["sequence"],
        "twin:simulated": promotion["simulated"],
        "twin:snapshot": promotion["snapshot"],
        "twin:scores": promotion["scores"],
    }


def _output(promotion: Release, name: str) -> dict[str, Any]:
    row = promotion["variables"][name]
    layers = [len(LAYERS)] if "layer" in row["dims"] else []
    result = _array([1, *layers], ["variables", *(["layer"] if layers else [])])
    return {
        "name": name,
        "description": row["long_name"],
        "tasks": ["regression"],
        "variables": [name],
        "result": result,
    }


def _array(shape: list[int], dims: list[str]) -> dict[str, Any]:
    return {"shape": [-1, *shape], "dim_order": ["batch", *dims], "data_type": "float32"}


def _file_asset(file: Release) -> pystac.Asset:
    about = {f"file:{name}": file[name] for name in ("size", "checksum")}
    if file["name"] == CARD:
        title, kind, roles = "Model card: features, training, scores, calibration", "application/json", ["metadata"]
    else:
        title, kind, roles = file["name"], "application/ubjson", ["mlm:model", "mlm:weights"]
        about["mlm:artifact_type"] = "xgboost.Booster.save_model"
    return pystac.Asset(file["href"], title, None, kind, roles, about)


def _store_asset(promotion: Release) -> pystac.Asset:
    group = f"{promotion['region']}/emulator"
    how = (
        "Icechunk repository: at the snapshot named by `version`, the first group of `twin:groups` holds the files "
        "byte for byte, the second which locations were trained on, calibrated with and tested on."
    )
    groups = [f"{group}/models/{promotion['version']}", f"{group}/training/{promotion['version']}"]
    about = {"version": promotion["snapshot"], "twin:groups": groups}
    return pystac.Asset(promotion["store"], "The files and what they were trained on", how, ICECHUNK, ["data"], about)
