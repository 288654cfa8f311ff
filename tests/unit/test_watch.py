"""What is new in somebody's catalogue: found once, found again when it changed, never lost when it is wrong."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stac.catalog import Refused, StaticCatalog, Unreachable
from stac.watch import Arrival, Watcher, arrivals, resolve, version_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def document(id: str, checksum: str = "1220aa", collection: str = "smap-l3-am", **properties: object) -> dict:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": id,
        "geometry": {"type": "Point", "coordinates": [0, 0]},
        "bbox": [0, 0, 0, 0],
        "properties": {"datetime": "2026-01-01T00:00:00Z", "updated": "2026-02-01T00:00:00Z", **properties},
        "links": [],
        "assets": {"data": {"href": f"./{id}.nc", "roles": ["data"], "file:checksum": checksum, "file:size": 3}},
        "collection": collection,
    }


class Provider:
    """A provider that writes plain files, not always with care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[str] = []
        self.url = str(folder / "catalog.json")
        self.write(
            "catalog.json",
            {"type": "Catalog", "id": "c", "links": [{"rel": "child", "href": "./smap/collection.json"}]},
        )
        self.link()

    def write(self, path: str, content: dict | bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name("." + place.name)
        beside.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        os.replace(beside, place)

    def link(self, *hrefs: str) -> None:
        self.ids.extend(hrefs)
        links = [{"rel": "item", "href": href} for href in self.ids]
        self.write("smap/collection.json", {"type": "Collection", "id": "smap-l3-am", "links": links})

    def add(self, id: str, content: dict | bytes | None = None) -> None:
        self.write(f"smap/{id}/{id}.json", document(id) if content is None else content)
        self.link(f"./{id}/{id}.json")


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    return Provider(tmp_path / "provider")


def keys(watcher: Watcher, now: datetime = NOW) -> list[str]:
    return [found["id"] for found in watcher.poll(now)]


# --------------------------------------------------------------------------------------------------------------- static
def test_items_are_given_once_as_they_appear(provider):
    watcher = Watcher(provider.url)
    assert keys(watcher) == []
    provider.add("a")
    provider.add("b")
    assert keys(watcher) == ["a", "b"]
    provider.add("c")
    assert keys(watcher) == ["c"]
    assert keys(watcher) == []


def test_an_arrival_says_everything_ingest_needs(provider):
    provider.add("a", document("a", end_datetime="2026-01-02T00:00:00Z", start_datetime="2026-01-01T00:00:00Z"))
    (found,) = Watcher(provider.url).poll(NOW)
    home = str(provider.folder / "smap" / "a")
    assert found["key"] == f"smap-l3-am/a@{found['version']}" and len(found["version"]) == 16
    assert found["assets"]["data"] == {
        "href": f"{home}/a.nc", "raw": "./a.nc", "type": "", "roles": ["data"], "checksum": "1220aa", "size": 3,
    }  # fmt: skip
    assert (found["href"], found["source"], found["product"]) == (f"{home}/a.json", provider.url, "smap-l3-am")
    assert (found["datetime"], found["end"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert (found["updated"], found["published"], found["detected"]) == (
        "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T12:00:00.000Z",
    )  # fmt: skip
    assert json.loads(json.dumps(found)) == found and Arrival(**found).error == ""


def test_an_item_re_issued_with_other_bytes_is_given_again_and_one_merely_touched_is_not(provider):
    watcher = Watcher(provider.url)
    provider.add("a")
    (first,) = watcher.poll(NOW)
    provider.write("smap/a/a.json", document("a", updated="2026-02-02T00:00:00Z"))
    assert keys(watcher) == []
    provider.write("smap/a/a.json", document("a", "1220bb"))
    (second,) = watcher.poll(NOW)
    assert first["id"] == second["id"] and first["key"] != second["key"]
    assert keys(watcher) == []


def test_a_new_watcher_goes_on_where_the_cursor_says(provider):
    for id in ("a", "b", "c"):
        provider.add(id)
    watcher = Watcher(provider.url)
    assert keys(watcher) == ["a", "b", "c"]
    cursor = json.loads(json.dumps({**watcher.cursor, "swept": time.time_ns()}))  # as if the files were older
    provider.add("d")
    again = Watcher(provider.url, cursor=cursor)
    assert keys(again) == ["d"]
    provider.write("smap/b/b.json", document("b", "1220bb"))
    assert keys(again) == ["b"]
    assert len(json.dumps(again.cursor)) < 1000


def test_a_cursor_that_no_longer_fits_loses_nothing(provider):
    provider.add("a")
    provider.add("b")
    cursor = Watcher(provider.url).cursor
    watcher = Watcher(provider.url)
    list(watcher.poll(NOW))
    cursor = watcher.cursor
    provider.ids.insert(0, "./z/z.json")
    provider.write("smap/z/z.json", document("z"))
    provider.link()
    assert set(keys(Watcher(provider.url, cursor=cursor))) >= {"z"}


WRONG = {
    "truncated": (b'{"type": "Feature", "id": "bad"', "expected JSON"),
    "not json": (b"\x89HDF\r\n", "expected JSON"),
    "a list": (b"[]", "expected a JSON object"),
    "not an item": ({"type": "Collection", "id": "bad"}, "expected a STAC item"),
    "no time": ({**document("bad"), "properties": {"datetime": None}}, "expected a datetime"),
    "bad time": ({**document("bad"), "properties": {"datetime": "yesterday"}}, "yesterday"),
    "no assets": ({**document("bad"), "assets": {}}, "expected an asset"),
    "asset without href": ({**document("bad"), "assets": {"data": {}}}, "href"),
    "properties as a list": ({**document("bad"), "properties": [1]}, "JSON objects"),
}


@pytest.mark.parametrize(("content", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_read_arrives_with_its_reason_and_again_once_it_is_mended(provider, content, why):
    watcher = Watcher(provider.url)
    provider.add("bad", content)
    provider.add("good")
    bad, good = watcher.poll(NOW)
    assert bad["id"] == "bad" and why in bad["error"] and bad["error"]
    assert (good["id"], good["error"]) == ("good", "")
    assert keys(watcher) == []
    provider.write("smap/bad/bad.json", document("bad"))
    (mended,) = watcher.poll(NOW)
    assert (mended["id"], mended["error"]) == ("bad", "")


def test_an_item_that_is_linked_before_it_is_there_arrives_later(provider):
    watcher = Watcher(provider.url)
    provider.link("./late/late.json")
    (missing,) = watcher.poll(NOW)
    assert "found nothing" in missing["error"]
    assert keys(watcher) == []
    provider.write("smap/late/late.json", document("late"))
    assert [found["error"] for found in watcher.poll(NOW)] == [""]


@pytest.mark.parametrize(
    "href", ["/etc/hostname", "../../../secret.json", "http://169.254.169.254/latest", "file:///etc/passwd"]
)
def test_documents_outside_the_catalogue_are_not_read(provider, href):
    (provider.folder.parent / "secret.json").write_text(json.dumps(document("secret")))
    provider.link(href)
    watcher = Watcher(provider.url)
    (found,) = watcher.poll(NOW)
    assert "expected a file below" in found["error"]
    assert keys(watcher) == []


def test_a_link_that_leads_out_through_a_symlink_is_not_followed(provider):
    (provider.folder.parent / "secret.json").write_text(json.dumps(document("secret")))
    (provider.folder / "smap" / "s.json").symlink_to(provider.folder.parent / "secret.json")
    provider.link("./s.json")
    (found,) = Watcher(provider.url).poll(NOW)
    assert "expected a file below" in found["error"]


def test_a_source_that_is_away_is_no_reason_to_forget(provider):
    provider.add("a")
    watcher = Watcher(provider.url)
    assert keys(watcher) == ["a"]
    provider.folder.rename(provider.folder.with_name("away"))
    with pytest.raises(Unreachable):
        keys(watcher)
    provider.folder.with_name("away").rename(provider.folder)
    provider.add("b")
    assert keys(watcher) == ["b"]


def test_catalogues_that_point_at_each_other_end(provider):
    provider.write(
        "smap/collection.json", {"type": "Catalog", "id": "x", "links": [{"rel": "child", "href": "../catalog.json"}]}
    )
    assert keys(Watcher(provider.url)) == []


def test_known_items_cost_a_poll_next_to_nothing_however_many(tmp_path):
    provider = Provider(tmp_path / "many")
    count = 6_000  # above the number whose files are all looked at in every poll
    provider.write("smap/one.json", document("one"))
    for n in range(count):
        (provider.folder / "smap" / f"i{n}.json").hardlink_to(provider.folder / "smap" / "one.json")
    provider.link(*(f"./i{n}.json" for n in range(count)))
    watcher = Watcher(provider.url)
    assert len(keys(watcher)) == count
    provider.add("new")
    started = time.perf_counter()
    assert keys(watcher) == ["new"]
    assert time.perf_counter() - started < 0.5  # measured 0.02 s; reading them all again takes 1 s
    assert keys(watcher, NOW + timedelta(minutes=2)) == []


def test_only_wanted_collections_and_times(provider):
    provider.add("a")
    provider.add("b", document("b", updated="2026-02-10T00:00:00Z"))
    provider.add("c", document("c", updated=None))
    assert keys(Watcher(provider.url, collections=["nldas*"])) == []
    assert keys(Watcher(provider.url, collections=["smap*"])) == ["a", "b", "c"]
    found = arrivals(provider.url, "2026-02-01T01:00:00Z", NOW, overlap=timedelta(minutes=30))
    assert [arrival.id for arrival in found] == ["b", "c"]
    assert len(list(arrivals(provider.url, "2026-02-01T01:00:00Z", NOW))) == 3


def test_what_our_own_static_tree_publishes_is_seen_item_by_item(tmp_path):
    import pystac

    tree = StaticCatalog(tmp_path / "tree")
    extent = pystac.Extent(pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[NOW, None]]))
    collection = pystac.Collection("smap-l3-am", "about", extent)
    watcher = Watcher(tree.folder)
    for n in range(5):
        tree.upsert(collection, [pystac.Item.from_dict(document(f"i{n}"))])
        assert keys(watcher) == [f"i{n}"]


# ------------------------------------------------------------------------------------------------------------------ web
class Quiet(http.server.SimpleHTTPRequestHandler):
    broken: tuple[str, ...] = ()

    def do_GET(self):
        if self.path in self.broken:
            self.send_error(503)
        elif self.path == "/smap/gone.json":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.2:9/else.json")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(provider):
    handler = type("Handler", (Quiet,), {"broken": ()})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(provider.folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/catalog.json", handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_on_the_web_are_watched_alike(provider, web):
    url, handler = web
    provider.add("a")
    provider.add("b")
    watcher = Watcher(url)
    found = list(watcher.poll(NOW))
    assert [arrival["id"] for arrival in found] == ["a", "b"]
    assert found[0]["assets"]["data"]["href"] == url.replace("catalog.json", "smap/a/a.nc")
    provider.add("c")
    os.utime(provider.folder / "smap" / "collection.json", (2e9, 2e9))  # HTTP dates have whole seconds
    assert keys(watcher) == ["c"]
    provider.write("smap/a/a.json", document("a", "1220bb"))
    os.utime(provider.folder / "smap" / "a" / "a.json", (2e9, 2e9))
    assert keys(watcher) == ["a"]
    handler.broken = ("/smap/d/d.json",)
    provider.add("d")
    provider.add("e")
    os.utime(provider.folder / "smap" / "collection.json", (2e9 + 9, 2e9 + 9))
    assert keys(watcher) == ["e"]
    handler.broken = ()
    assert keys(watcher) == ["d"]
    provider.link("./gone.json", "http://127.0.0.3/x.json")
    os.utime(provider.folder / "smap" / "collection.json", (2e9 + 19, 2e9 + 19))
    assert [arrival["error"].split(",")[0] for arrival in watcher.poll(NOW)] == [
        f"expected a document on {url.split('/')[2]}"
    ] * 2


def test_a_server_that_does_not_answer_or_forbids():
    with pytest.raises(Unreachable):
        keys(Watcher("http://127.0.0.1:9/catalog.json", timeout=1))


def test_a_server_that_forbids(web):
    class Forbidding(web[1]):
        def do_GET(self):
            self.send_error(403)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidding)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(Refused):
        keys(Watcher(f"http://127.0.0.1:{server.server_port}/"))
    server.shutdown()
    server.server_close()


# ----------------------------------------------------------------------------------------------------- small functions
@pytest.mark.parametrize(
    ("href", "base", "found"),
    [
        ("./a.nc", "/x/y/item.json", "/x/y/a.nc"),
        ("../a.nc", "/x/y/item.json", "/x/a.nc"),
        ("/a.nc", "/x/y/item.json", "/a.nc"),
        ("file:///a%20b.nc", "/x/y/item.json", "/a b.nc"),
        ("https://z/a.nc", "/x/y/item.json", "https://z/a.nc"),
        ("s3://bucket/a.nc", "/x/y/item.json", "s3://bucket/a.nc"),
        ("./a.nc", "https://h/x/item.json", "https://h/x/a.nc"),
        ("/a.nc", "https://h/x/item.json", "https://h/a.nc"),
    ],
)
def test_hrefs_are_resolved_where_they_stand(href, base, found):
    assert resolve(href, base) == found


def test_the_version_is_that_of_the_data():
    def asset(**more):
        return {"raw": "x.nc", "href": "x.nc", "roles": ["data"], "type": "", "checksum": "", **more}

    summed = asset(checksum="1220aa")
    assert version_of({"d": summed}, "t1") == version_of({"d": {**summed, "raw": "moved.nc"}}, "t2")
    assert version_of({"d": summed}, "t1") != version_of({"d": asset(checksum="1220bb")}, "t1")
    assert version_of({"d": asset()}, "t1") != version_of({"d": asset()}, "t2")
    assert version_of({"d": asset(raw="x.nc?sig=1")}, "t1") == version_of({"d": asset(raw="x.nc?sig=2")}, "t1")
    look = asset(roles=["thumbnail"], checksum="1220cc")
    assert version_of({"d": summed, "look": look}, "t1") == version_of({"d": summed}, "t1")


@pytest.mark.real_data
def test_the_real_catalogue_is_listed_in_under_three_seconds(real_data):
    started = time.perf_counter()
    found = list(Watcher(real_data / "conus" / "catalog.json").poll(NOW))
    assert time.perf_counter() - started < 3.0
    assert Counter(arrival["product"] for arrival in found) == {"smap-l3-am": 717, "nldas2-fora-daily": 36}
    assert not [arrival for arrival in found if arrival["error"]] and len({arrival["key"] for arrival in found}) == 753
