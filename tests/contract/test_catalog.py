"""One contract for every catalogue adapter: the static tree and a STAC API with transactions."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pystac
import pytest
import requests

from stac import query
from stac.api import ApiCatalog
from stac.api import open as open_api
from stac.catalog import Refused, StaticCatalog, Unreachable, write_static
from stac.collection import drought_collection
from stac.item import drought_href, drought_item
from stac.validate import validate
from stac.watch import Watcher

TOKEN = "a token for tests"
START = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """The embedded STAC API in a process of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stac.server", "--path", str(path), "--port", str(port)]
    with (path.parent / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env={**os.environ, "TWIN_CATALOG__TOKEN": TOKEN}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{url}/healthz", timeout=5).ok:
                    break
            assert process.poll() is None, (path.parent / "server.log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def api_url(tmp_path_factory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("api") / "catalog.sqlite") as url:
        yield url


@pytest.fixture(params=["static", "api"])
def catalog(request, tmp_path, api_url):
    if request.param == "static":
        return StaticCatalog(tmp_path / "tree")
    found, headers = open_api(api_url, TOKEN), {"Authorization": f"Bearer {TOKEN}"}
    for collection in found.collections():  # one server for all tests: each begins with an empty catalogue
        for item in list(found.search(collections=[collection.id])):
            requests.delete(
                f"{api_url}/collections/{collection.id}/items/{item.id}", headers=headers, timeout=10
            ).raise_for_status()
        requests.delete(f"{api_url}/collections/{collection.id}", headers=headers, timeout=10).raise_for_status()
    return found


def collection(id: str = "c", description: str = "about") -> pystac.Collection:
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[START, None]]))
    return pystac.Collection(id, description, extent)


def item(n: int, collection: str = "c", **properties: object) -> pystac.Item:
    stamps = {"created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}
    place = {"type": "Point", "coordinates": [n, n]}
    found = pystac.Item(
        f"i{n}", place, [n, n, n, n], START + timedelta(days=n), {"n": n, **stamps, **properties}, collection=collection
    )
    found.add_link(pystac.Link("derived_from", f"/provider/i{n}.json"))
    found.add_asset("data", pystac.Asset("/srv/store", media_type="application/x-netcdf", roles=["data"]))
    return found


def ids(found) -> list[str]:
    return [item.id for item in found]


def release(sequence: int, day: str) -> dict:
    return {
        "region": "r", "title": "R", "bbox": [0, 0, 1, 1], "start_day": "2020-01-01",
        "first_day": day, "valid_day": day,
        "simulated": True, "sequence": sequence, "previous": sequence - 1 or None, "tier": "open_loop",
        "time": f"2026-01-01T00:00:{sequence:02d}.000Z", "snapshot": f"S{sequence}",
        "store": "/srv/store", "model": "land 1",
        "sources": [{"key": f"p/a{sequence}@0", "id": f"a{sequence}", "href": f"/p/a{sequence}.json"}], "cells": 3,
        "class_fractions": {"D0": 0.5}, "reference_years": 30,
        "variables": {
            "drought_class": {"units": "1", "long_name": "class", "dims": ["time", "cell"], "group": "drought"}
        },
    }  # fmt: skip


def test_upsert_counts_what_really_changed(catalog):
    assert catalog.upsert(collection(), [item(1), item(2)]) == 3
    assert catalog.upsert(collection(), [item(1), item(2)]) == 0
    assert catalog.upsert(collection(), [item(1), item(2), item(3)]) == 1
    assert catalog.upsert(collection(), [item(2, extra="x")]) == 1
    assert catalog.upsert(collection(description="more")) == 1
    assert sorted(ids(catalog.search(collections=["c"]))) == ["i1", "i2", "i3"]


def test_what_was_put_is_what_is_got(catalog):
    sent = item(1, nested={"a": [1, 2.5, None, "ü"]}, flag=True)
    catalog.upsert(collection(), [sent])
    found = catalog.get("c", "i1")
    assert found is not None
    assert found.properties == sent.properties and found.geometry == sent.geometry and found.bbox == sent.bbox
    assert [link.get_href(transform_href=False) for link in found.get_links("derived_from")] == ["/provider/i1.json"]
    assert found.assets["data"].href == "/srv/store"
    assert catalog.get("c", "none") is None
    assert catalog.get("none", "i1") is None


def test_items_without_times_of_their_own_are_not_sent_twice(catalog):
    bare = item(1)
    del bare.properties["created"], bare.properties["updated"]
    assert catalog.upsert(collection(), [bare]) == 2
    assert catalog.upsert(collection(), [bare]) == 0


def test_searches_agree_between_adapters(catalog):
    catalog.upsert(collection(), [item(n) for n in range(6)])
    catalog.upsert(collection("other"), [item(9, "other")])
    assert ids(catalog.search(collections=["other"])) == ["i9"]
    assert ids(catalog.search(collections=["c"], sortby="-properties.n", max_items=2)) == ["i5", "i4"]
    assert ids(
        catalog.search(collections=["c"], datetime="2026-01-02T00:00:00Z/2026-01-03T00:00:00Z", sortby="+id")
    ) == ["i1", "i2"]
    assert ids(catalog.search(bbox=[3.5, 3.5, 4.5, 4.5])) == ["i4"]
    test = {
        "op": "and",
        "args": [{"op": ">", "args": [{"property": "n"}, 1]}, {"op": "<>", "args": [{"property": "n"}, 3]}],
    }
    assert ids(catalog.search(collections=["c"], filter=test, sortby="+properties.n")) == ["i2", "i4", "i5"]
    assert ids(catalog.search(ids=["i2", "i9"], sortby="+id")) == ["i2", "i9"]


def test_many_items_at_once_come_back_page_by_page(catalog):
    assert catalog.upsert(collection(), (item(n) for n in range(60))) == 61
    found = ids(catalog.search(collections=["c"], limit=7))
    assert len(found) == 60 and len(set(found)) == 60


def test_documents_are_valid_as_they_come_back(catalog):
    catalog.upsert(drought_collection(release(1, "2020-06-01")), [drought_item(release(1, "2020-06-01"))])
    (found,) = catalog.collections()
    if isinstance(catalog, ApiCatalog):
        documents = [
            requests.get(catalog.url + path, timeout=10).json()
            for path in ("/collections/r-drought", "/collections/r-drought/items/r-drought-r1")
        ]
    else:
        documents = [
            found.to_dict(transform_hrefs=False),
            catalog.get("r-drought", "r-drought-r1").to_dict(transform_hrefs=False),
        ]
    assert [validate(document) for document in documents] == [[], []]


def test_questions_about_releases(catalog):
    assert query.latest_release(catalog, "r") is None
    for sequence, day in ((1, "2020-06-01"), (2, "2020-06-03"), (3, "2020-06-02")):
        made = release(sequence, day)
        catalog.upsert(drought_collection(made), [drought_item(made)])
    newest = query.latest_release(catalog, "r")
    assert (newest["sequence"], newest["snapshot"], newest["store"], newest["groups"]) == (
        3,
        "S3",
        "/srv/store",
        ["r/drought", "r/drought/recent"],
    )
    assert newest["previous"] == "r-drought-r2" and newest["class_fractions"] == {"D0": 0.5}
    assert [source["key"] for source in newest["sources"]] == ["p/a3@0"]
    assert [found["sequence"] for found in query.releases(catalog, "r", 2)] == [3, 2]
    assert query.release_for(catalog, "r", "2020-06-03")["sequence"] == 2
    assert query.release_for(catalog, "r", "2020-06-02")["sequence"] == 3
    assert query.release_for(catalog, "r", "2020-06-09") is None
    assert query.provenance(catalog, "r", 1)["snapshot"] == "S1"


def test_a_catalogue_can_be_copied_into_a_static_tree(catalog, tmp_path):
    for sequence in (1, 2):
        made = release(sequence, "2020-06-01")
        catalog.upsert(drought_collection(made), [drought_item(made)])
    target = tmp_path / "export"
    assert write_static(catalog, target) == 2
    assert write_static(catalog, target) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if "export" in path.name) == ["export"]
    tree = pystac.Catalog.from_file(str(target / "catalog.json"))
    found = {item.id: item for item in tree.get_items(recursive=True)}
    assert sorted(found) == ["r-drought-r1", "r-drought-r2"]
    before = found["r-drought-r2"].get_single_link("predecessor-version").get_absolute_href()
    assert pystac.Item.from_file(before).id == "r-drought-r1"
    newest = tree.get_child("r-drought").get_single_link("latest-version").get_absolute_href()
    assert pystac.Item.from_file(newest).id == "r-drought-r2"
    for place in [*target.rglob("*-r?.json"), *target.rglob("collection.json"), target / "catalog.json"]:
        assert validate(pystac.StacIO.default().read_json(str(place))) == []
    assert [arrival["id"] for arrival in Watcher(target).poll(START)] == ["r-drought-r1", "r-drought-r2"]


def test_the_address_in_events_is_that_of_the_item(api_url):
    made = release(7, "2020-06-01")
    open_api(api_url, TOKEN).upsert(drought_collection(made), [drought_item(made)])
    assert requests.get(drought_href(api_url, "r", 7), timeout=10).json()["id"] == "r-drought-r7"


# ------------------------------------------------------------------------------------------------ what only one has
def test_without_the_token_nothing_is_written(api_url):
    for token in (None, "", "another", TOKEN + "x"):
        with pytest.raises(Refused, match="401"):
            ApiCatalog(api_url, token).upsert(collection("forbidden"))
    assert "forbidden" not in [found.id for found in ApiCatalog(api_url).collections()]


def test_a_catalogue_that_is_away_says_that_trying_again_may_help():
    away = ApiCatalog("http://127.0.0.1:9", TOKEN, timeout=1)
    for call in (
        lambda: away.upsert(collection()),
        lambda: away.get("c", "i"),
        lambda: list(away.search()),
        lambda: open_api(away.url),
    ):
        with pytest.raises(Unreachable):
            call()


def test_a_catalogue_comes_back_after_it_was_away(tmp_path):
    path = tmp_path / "catalog.sqlite"
    with serving(path) as url:
        found = ApiCatalog(url, TOKEN)
        found.upsert(collection(), [item(1)])
        assert ids(found.search()) == ["i1"]
    with pytest.raises(Unreachable):
        list(found.search())


def test_adding_to_a_static_tree_touches_two_files(tmp_path):
    tree = StaticCatalog(tmp_path / "tree")
    tree.upsert(collection(), [item(n) for n in range(5)])
    before = {path: path.stat().st_mtime_ns for path in tree.folder.rglob("*.json")}
    tree.upsert(collection(), [item(9)])
    changed = {path.name for path in tree.folder.rglob("*.json") if before.get(path) != path.stat().st_mtime_ns}
    assert changed == {"i9.json", "collection.json"}
    assert not list(tree.folder.rglob(".*"))


def test_another_writer_of_the_same_tree_is_seen(tmp_path):
    one, two = StaticCatalog(tmp_path / "tree"), StaticCatalog(tmp_path / "tree")
    one.upsert(collection(), [item(1)])
    two.upsert(collection(), [item(2)])
    one.upsert(collection(), [item(3)])
    assert ids(two.search(sortby="+id")) == ["i1", "i2", "i3"]


def test_ids_cannot_leave_the_tree(tmp_path):
    tree = StaticCatalog(tmp_path / "tree")
    for bad in ("../x", "..", "a/b"):
        with pytest.raises(Refused):
            tree.upsert(collection(bad))
        with pytest.raises(Refused):
            tree.get("c", bad)
