"""The embedded STAC API: answers equal brute force, nothing acknowledged is lost, nobody writes without the token."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from pystac_client import Client

from stac import cql
from stac.index import Index
from stac.server import create_app
from stac.watch import Watcher

TOKEN = "a token for tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
START = datetime(2020, 1, 1, tzinfo=UTC)


class Server:
    """The embedded STAC API in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def start(self) -> None:
        command = [sys.executable, "-m", "stac.server", "--path", str(self.path), "--port", self.url.rpartition(":")[2]]
        with self.path.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, "TWIN_CATALOG__TOKEN": TOKEN}, stdout=log, stderr=log
            )
        for _ in range(600):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}/healthz", timeout=5).ok:
                    return
            assert self.process.poll() is None, self.path.with_suffix(".log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def get(self, path: str, **query: Any) -> requests.Response:
        return requests.get(self.url + path, params=query, timeout=10)

    def send(self, method: str, path: str, document: Any, headers: dict[str, str] = HEADERS) -> requests.Response:
        return requests.request(method, self.url + path, json=document, headers=headers, timeout=10)


def serve(path: Path) -> Iterator[Server]:
    server = Server(path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Iterator[Server]:
    """A server with ITEMS in it, which tests only read."""
    for server in serve(tmp_path_factory.mktemp("full") / "catalog.sqlite"):
        for name in ("a", "b"):
            assert server.send("POST", "/collections", collection(name)).status_code == 201
            features = [item for item in ITEMS if item["collection"] == name]
            body = {"type": "FeatureCollection", "features": features}
            assert server.send("POST", f"/collections/{name}/items", body).status_code == 201
        yield server


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path / "catalog.sqlite")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Server]:
    """The same application on a thread: it starts in no time, and these tests do not kill it."""
    server = Server(tmp_path / "catalog.sqlite")
    port = int(server.url.rpartition(":")[2])
    running = uvicorn.Server(uvicorn.Config(create_app(str(server.path), TOKEN), port=port, log_level="critical"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield server
    running.should_exit = True
    thread.join()


def collection(id: str) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]}}
    about = {"type": "Collection", "stac_version": "1.1.0", "id": id, "description": "about", "license": "other"}
    return {**about, "extent": extent, "links": []}


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def item(id: str, name: str = "a", bbox: tuple[float, ...] = (0, 0, 1, 1), **properties: Any) -> dict[str, Any]:
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    stamps = {"datetime": stamp(START), "created": stamp(START), "updated": stamp(START)}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(bbox),
        "properties": {**stamps, **properties},
        "links": [],
        "assets": {},
        "collection": name,
    }


def _random_items(count: int = 400) -> list[dict[str, Any]]:
    rng = random.Random(20260301)
    found = []
    for n in range(count):
        west, south = rng.randint(-180, 170), rng.randint(-90, 80)
        box = (west, south, west + rng.randint(1, 10), south + rng.randint(1, 10))
        start = START + timedelta(hours=rng.randint(0, 5000))
        times: dict[str, Any] = {"datetime": stamp(start)}
        if rng.random() < 0.4:
            end = start + timedelta(hours=rng.randint(0, 500))
            times = {"datetime": None, "start_datetime": stamp(start), "end_datetime": stamp(end)}
        extra = {
            "n": rng.randint(0, 20),
            "cover": round(rng.random() * 100, 2),
            "twin:tier": rng.choice(["open_loop", "analysis"]),
            "mixed": rng.choice([1, 2.5, "1", "text", True]),
            "observed": stamp(START + timedelta(days=rng.randint(0, 300))),
            "flag": rng.random() < 0.5,
            "path%_": rng.choice(["50%", "50_", "500", "Ä'B"]),
        }
        kept = {name: value for name, value in extra.items() if rng.random() < 0.85}
        updated = stamp(START + timedelta(minutes=rng.randint(0, 300)))
        found.append(item(f"i{n:04d}", rng.choice("ab"), box, **times, **kept, updated=updated))
    return found


ITEMS = _random_items()


def ids(items: Any) -> list[str]:
    return sorted(found["id"] for found in items)


def searched(server: Server, **query: Any) -> list[str]:
    """All ids of a search with pystac-client, which follows every page; none may come twice."""
    found = [entry["id"] for entry in Client.open(server.url).search(limit=37, **query).items_as_dicts()]
    assert len(found) == len(set(found))
    return sorted(found)


def span(found: dict[str, Any]) -> tuple[str, str]:
    times = found["properties"]
    return (times["datetime"],) * 2 if times["datetime"] else (times["start_datetime"], times["end_datetime"])


# ---------------------------------------------------------------------------------------- searches against brute force
def test_bbox_and_time_agree_with_brute_force(full):
    rng = random.Random(1)
    for _ in range(12):
        west, south = rng.uniform(-180, 150), rng.uniform(-90, 60)
        box = [west, south, west + rng.uniform(1, 60), south + rng.uniform(1, 40)]
        first = START + timedelta(hours=rng.randint(0, 4000))
        last = first + timedelta(hours=rng.randint(0, 1500))
        expected = [
            found
            for found in ITEMS
            if found["bbox"][0] <= box[2]
            and found["bbox"][2] >= box[0]
            and found["bbox"][1] <= box[3]
            and found["bbox"][3] >= box[1]
            and span(found)[0] <= stamp(last)
            and span(found)[1] >= stamp(first)
        ]
        assert searched(full, bbox=box, datetime=f"{stamp(first)}/{stamp(last)}") == ids(expected)


def test_open_intervals_and_moments(full):
    moment = "2020-03-01T00:00:00Z"
    assert searched(full, datetime=f"{moment}/..") == ids(f for f in ITEMS if span(f)[1] >= moment)
    assert searched(full, datetime=f"../{moment}") == ids(f for f in ITEMS if span(f)[0] <= moment)
    assert searched(full, datetime=span(ITEMS[0])[0]) == ids(
        f for f in ITEMS if span(f)[0] <= span(ITEMS[0])[0] <= span(f)[1]
    )


def test_a_box_across_the_antimeridian(full):
    expected = [
        f for f in ITEMS if (f["bbox"][2] >= 170 or f["bbox"][0] <= -170) and f["bbox"][3] >= -20 and f["bbox"][1] <= 20
    ]
    assert searched(full, bbox=[170, -20, -170, 20]) == ids(expected)


def test_a_triangle_is_not_its_box(full):
    triangle = {"type": "Polygon", "coordinates": [[[-60, -60], [60, -60], [-60, 60], [-60, -60]]]}
    corner = searched(full, bbox=[-60, -60, 60, 60])
    # A box meets this triangle exactly when its lower left corner lies below the long side, having met its bounds.
    inside = [f for f in ITEMS if f["id"] in corner and f["bbox"][0] + f["bbox"][1] <= 0]
    expected = ids(inside)
    assert searched(full, intersects=triangle) == expected
    text = "S_INTERSECTS(geometry, POLYGON((-60 -60, 60 -60, -60 60, -60 -60)))"
    assert searched(full, filter=text, filter_lang="cql2-text", method="GET") == expected


Test = Callable[[dict[str, Any]], bool | None]


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


FILTERS: list[tuple[str, Test]] = [
    ("n = 3", lambda p: p.get("n") == 3),
    ("n <> 3", lambda p: "n" in p and p["n"] != 3),
    ("NOT n = 3", lambda p: "n" in p and p["n"] != 3),
    ("n > 5 AND n <= 12", lambda p: "n" in p and 5 < p["n"] <= 12),
    ("n < 3 OR cover >= 90.5", lambda p: p.get("n", 99) < 3 or p.get("cover", 0) >= 90.5),
    ("n IN (1, 5, 7)", lambda p: p.get("n") in (1, 5, 7)),
    ("n NOT IN (1, 5, 7)", lambda p: "n" in p and p["n"] not in (1, 5, 7)),
    ("cover BETWEEN 10 AND 20", lambda p: 10 <= p.get("cover", -1) <= 20),
    ("n IS NULL", lambda p: "n" not in p),
    ("n IS NOT NULL AND cover IS NULL", lambda p: "n" in p and "cover" not in p),
    ("\"twin:tier\" = 'analysis'", lambda p: p.get("twin:tier") == "analysis"),
    ("\"twin:tier\" LIKE 'open%'", lambda p: p.get("twin:tier") == "open_loop"),
    ("\"twin:tier\" LIKE 'OPEN%'", lambda p: False),
    ("CASEI(\"twin:tier\") = 'analysis'", lambda p: p.get("twin:tier") == "analysis"),
    ("\"path%_\" LIKE '50\\%'", lambda p: p.get("path%_") == "50%"),
    ("\"path%_\" LIKE '50_'", lambda p: p.get("path%_") in ("50%", "50_", "500")),
    ("\"path%_\" = 'Ä''B'", lambda p: p.get("path%_") == "Ä'B"),
    ("mixed > 1", lambda p: number(p.get("mixed")) and p["mixed"] > 1),
    ("mixed >= 'a'", lambda p: isinstance(p.get("mixed"), str) and p["mixed"] >= "a"),
    ("flag = TRUE", lambda p: p.get("flag") is True),
    ("NOT flag", lambda p: p.get("flag", True) is False or "flag" not in p),
    ("updated > TIMESTAMP('2020-01-01T02:30:00Z')", lambda p: p["updated"] > "2020-01-01T02:30:00Z"),
    ("updated <= TIMESTAMP('2020-01-01T04:30:00+02:00')", lambda p: p["updated"] <= "2020-01-01T02:30:00Z"),
    ("updated > '2020-01-01T02:30:00Z'", lambda p: p["updated"] > "2020-01-01T02:30:00Z"),
    ("observed < DATE('2020-05-01')", lambda p: p.get("observed", "9") < "2020-05-01"),
    ("properties.n = 3", lambda p: p.get("n") == 3),
    ("missing = 1 OR missing <> 1 OR NOT missing = 1", lambda p: False),
    ("T_AFTER(datetime, TIMESTAMP('2020-04-01T00:00:00Z'))", lambda p: p["#"][0] > "2020-04-01T00:00:00Z"),
    ("T_BEFORE(datetime, DATE('2020-02-01'))", lambda p: p["#"][1] < "2020-02-01"),
    (
        "T_INTERSECTS(datetime, INTERVAL('2020-02-01T00:00:00Z', '2020-02-10T00:00:00Z'))",
        lambda p: p["#"][0] <= "2020-02-10T00:00:00Z" and p["#"][1] >= "2020-02-01T00:00:00Z",
    ),
    (
        "T_DURING(datetime, INTERVAL('2020-02-01T00:00:00Z', '..'))",
        lambda p: p["#"][0] > "2020-02-01T00:00:00Z",
    ),
]


@pytest.mark.parametrize(("text", "test"), FILTERS, ids=[text for text, _ in FILTERS])
def test_filters_agree_with_brute_force_as_text_and_as_json(full, text, test):
    expected = ids(f for f in ITEMS if test({**f["properties"], "#": span(f)}))
    assert searched(full, filter=text, filter_lang="cql2-text", method="GET") == expected
    document = cql.parse(text)
    assert searched(full, filter=document, filter_lang="cql2-json") == expected


def test_the_query_extension(full):
    expected = ids(
        f for f in ITEMS if f["properties"].get("n", 0) > 3 and f["properties"].get("path%_", "").endswith("%")
    )
    assert searched(full, query={"n": {"gt": 3}, "path%_": {"endsWith": "%"}}) == expected


@pytest.mark.parametrize(
    "order", ["+updated,-n", "-updated", "-properties.mixed,+id", "+collection,-cover", "+datetime"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_in_any_order_are_complete_and_sorted(full, order, method):
    search = Client.open(full.url).search(sortby=order, limit=23, method=method)
    found = list(search.items_as_dicts())
    assert ids(found) == ids(ITEMS)
    name = order.split(",")[0].removeprefix("+").removeprefix("-").removeprefix("properties.")
    if name == "updated":
        values = [f["properties"][name] for f in found]
        assert values == sorted(values, reverse=order.startswith("-"))
    assert search.matched() == len(ITEMS)


def test_pystac_client_recognises_what_is_offered(full):
    client = Client.open(full.url)
    for name in ("CORE", "COLLECTIONS", "FEATURES", "ITEM_SEARCH", "SORT", "FILTER", "QUERY", "FIELDS", "TRANSACTION"):
        assert client.conforms_to(name), name
    assert sorted(c.id for c in client.get_collections()) == ["a", "b"]
    assert len(list(client.get_collection("a").get_items())) == sum(f["collection"] == "a" for f in ITEMS)
    assert client.get_collection("a").get_item(ids(f for f in ITEMS if f["collection"] == "a")[0]) is not None


def test_only_the_fields_asked_for(full):
    (found,) = full.get("/search", ids="i0000", fields="id,properties.n,-assets").json()["features"]
    assert set(found) == {"id", "type", "geometry", "bbox", "links", "collection", "stac_version", "properties"}
    assert set(found["properties"]) <= {"n", "datetime"}


# ----------------------------------------------------------------------------------------------------------- bad input
BAD = [
    "/search?filter=n <",
    "/search?filter=foo(n) = 1",
    "/search?filter=n = POINT(0 0)",
    "/search?filter=geometry = 1",
    "/search?filter=s_within(geometry, POINT(0 0))",
    "/search?filter=n %2B 1 = 2",
    "/search?filter=updated > 'yesterday'",
    "/search?filter=updated > 5",
    "/search?filter-lang=cql2-json&filter={",
    "/search?filter-lang=cql2-json&filter=[]",
    '/search?filter-lang=cql2-json&filter={"op":"and","args":[]}',
    '/search?filter-lang=cql2-json&filter={"op":"=","args":[{"property":"a"}]}',
    '/search?filter-lang=cql2-json&filter={"op":"=","args":[{"property":7},1]}',
    '/search?filter-lang=cql2-json&filter={"op":"s_intersects","args":[{"property":"geometry"},{"type":"Polygon"}]}',
    '/search?filter-lang=cql2-json&filter={"op":"=","args":[{"property":"a\\"b"},1]}',
    "/search?filter-lang=cql1&filter=n=1",
    "/search?bbox=1,2,3",
    "/search?bbox=0,10,10,0",
    "/search?bbox=a,b,c,d",
    "/search?bbox=0,0,nan,1",
    "/search?bbox=0,0,1,1&intersects={}",
    "/search?intersects={}",
    '/search?intersects={"type":"Point","coordinates":[[0]]}',
    "/search?datetime=yesterday",
    "/search?datetime=../..",
    "/search?datetime=2020-01-02T00:00:00Z/2020-01-01T00:00:00Z",
    "/search?limit=0",
    "/search?limit=x",
    "/search?sortby=geometry",
    '/search?sortby=a"b',
    "/search?token=abc",
    "/search?token=WzFd",
    "/search?query={",
    '/search?query={"n":{"like":1}}',
    "/collections/a/items?filter=foo(n)",
    "/changes?since=-1",
    "/changes?since=x",
]


@pytest.mark.parametrize("path", BAD)
def test_what_cannot_be_answered_is_the_clients_fault_and_says_why(full, path):
    answer = full.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.json()


def test_huge_and_deep_requests_are_refused(full):
    deep: Any = {"op": "=", "args": [{"property": "n"}, 1]}
    for _ in range(200):
        deep = {"op": "not", "args": [deep]}
    wide = {"op": "in", "args": [{"property": "n"}, list(range(5000))]}
    for document in (deep, wide):
        assert full.send("POST", "/search", {"filter": document}, {}).status_code == 400
    assert full.send("POST", "/search", {"ids": ["x" * 100] * 20_000}, {}).status_code == 413
    nested = requests.post(
        f"{full.url}/search", data=b"[" * 200_000, headers={"Content-Type": "application/json"}, timeout=10
    )
    assert nested.status_code == 400


def test_sql_stays_text(full):
    for name in ("n') OR 1=1 --", "n]; DROP TABLE items", "$.x", "a.b"):
        document = {"op": "=", "args": [{"property": name}, "1' OR '1'='1"]}
        assert searched(full, filter=document, filter_lang="cql2-json") == []
    assert len(searched(full)) == len(ITEMS)


def test_unknown_things_are_not_found(full):
    for path in ("/collections/none", "/collections/none/items", "/collections/a/items/none", "/api.html", "/docs"):
        assert full.get(path).status_code == 404, path


def test_no_page_loads_anything_from_elsewhere(full):
    for path in ("/", "/api", "/conformance", "/queryables", "/collections", "/changes", "/healthz"):
        answer = full.get(path)
        assert answer.status_code == 200 and "<script" not in answer.text, path
    links = [link["href"] for link in full.get("/").json()["links"]]
    assert links and all(href.startswith(full.url) for href in links)
    assert all(requests.get(href, timeout=10).status_code in (200, 405) for href in links)


# -------------------------------------------------------------------------------------------------------- transactions
def test_writing_needs_the_token(empty):
    attempts = [
        ("POST", "/collections", collection("c")),
        ("PUT", "/collections/c", collection("c")),
        ("DELETE", "/collections/c", None),
        ("POST", "/collections/c/items", item("i", "c")),
        ("PUT", "/collections/c/items/i", item("i", "c")),
        ("PATCH", "/collections/c/items/i", {}),
        ("DELETE", "/collections/c/items/i", None),
    ]
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
    ):
        for method, path, document in attempts:
            answer = empty.send(method, path, document, headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), (method, path)
    assert empty.get("/changes").json() == {"changes": [], "next": 0}


def test_the_life_of_an_item(empty):
    assert empty.send("POST", "/collections/c/items", item("i", "c")).status_code == 404
    assert empty.send("POST", "/collections", collection("c")).status_code == 201
    assert empty.send("POST", "/collections", collection("c")).status_code == 409
    assert empty.send("PUT", "/collections/c/items/i", item("i", "c")).status_code == 404
    made = empty.send("POST", "/collections/c/items", item("i", "c", n=1))
    assert made.status_code == 201 and made.json()["properties"]["n"] == 1
    assert empty.send("POST", "/collections/c/items", item("i", "c")).status_code == 409
    assert empty.send("PUT", "/collections/c/items/i", item("other", "c")).status_code == 400
    assert empty.send("PUT", "/collections/c/items/i", item("i", "d")).status_code == 400
    assert empty.send("PUT", "/collections/c/items/i", item("i", "c", n=2)).json()["properties"]["n"] == 2
    merged = empty.send("PATCH", "/collections/c/items/i", {"properties": {"n": None, "m": 3}}).json()["properties"]
    assert merged["m"] == 3 and "n" not in merged
    for spoilt in (
        {**item("j", "c"), "geometry": {"type": "Point"}},
        {**item("j", "c"), "properties": {"datetime": None}},
        {},
        [],
    ):
        assert empty.send("POST", "/collections/c/items", spoilt).status_code == 400
    both = {"type": "FeatureCollection", "features": [item("k", "c"), item("i", "c")]}
    assert empty.send("POST", "/collections/c/items", both).status_code == 409
    assert empty.get("/collections/c/items/k").status_code == 404
    assert empty.send("DELETE", "/collections/c", None).status_code == 409
    assert empty.send("DELETE", "/collections/c/items/i", None).status_code == 200
    assert empty.get("/collections/c/items/i").status_code == 404
    assert empty.get("/search", bbox="0,0,1,1").json()["features"] == []
    assert empty.send("DELETE", "/collections/c", None).status_code == 200
    changes = empty.get("/changes").json()["changes"]
    assert [change["seq"] for change in changes] == list(range(1, 7))
    told = [(change["op"], change["collection"], change["id"]) for change in changes]
    life = [("insert", "c", "i"), ("update", "c", "i"), ("update", "c", "i"), ("delete", "c", "i")]
    assert told == [("insert", "c", ""), *life, ("delete", "c", "")]


def test_what_the_client_sent_is_kept_and_only_gaps_are_filled(empty):
    empty.send("POST", "/collections", collection("c"))
    sent = item("i", "c", odd={"a": [1, 2.50, None], "ü": "ß§"}, number=1e-7, **{"twin:x": True})
    sent["links"] = [
        {"rel": "derived_from", "href": "../provider/x.json"},
        {"rel": "predecessor-version", "href": "collections/c/items/h"},
    ]
    empty.send("POST", "/collections/c/items", sent)
    found = empty.get("/collections/c/items/i").json()
    assert {name: value for name, value in found.items() if name != "links"} == {
        n: v for n, v in sent.items() if n != "links"
    }
    links = {link["rel"]: link["href"] for link in found["links"]}
    assert links["derived_from"] == "../provider/x.json"
    assert links["predecessor-version"] == f"{empty.url}/collections/c/items/h"
    assert links["self"] == f"{empty.url}/collections/c/items/i"
    bare = item("bare", "c")
    del bare["properties"]["created"], bare["properties"]["updated"]
    empty.send("POST", "/collections/c/items", bare)
    first = empty.get("/collections/c/items/bare").json()["properties"]
    assert first["created"] == first["updated"]
    before = empty.get("/changes").json()["next"]
    empty.send("PUT", "/collections/c/items/bare", bare)
    empty.send("PUT", "/collections/c/items/i", sent)
    assert empty.get("/changes").json()["next"] == before
    assert empty.get("/collections/c/items/bare").json()["properties"] == first


def test_pages_while_others_insert_repeat_and_miss_nothing(empty):
    empty.send("POST", "/collections", collection("c"))
    old = [item(f"old{n:03d}", "c", updated=stamp(START + timedelta(minutes=n))) for n in range(120)]
    empty.send("POST", "/collections/c/items", {"type": "FeatureCollection", "features": old})
    stop = threading.Event()

    def insert() -> None:
        n = 0
        while not stop.is_set():
            time = stamp(START + timedelta(minutes=(n * 37) % 120, seconds=30))
            empty.send("POST", "/collections/c/items", item(f"new{n:03d}", "c", updated=time))
            n += 1

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        for order in ("+updated", "-updated,+id", "+id"):
            found = [f["id"] for f in Client.open(empty.url).search(sortby=order, limit=10).items_as_dicts()]
            assert len(found) == len(set(found))
            assert sorted(id for id in found if id.startswith("old")) == ids(old)
    finally:
        stop.set()
        writer.join()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(killable):
    killable.send("POST", "/collections", collection("c"))
    acknowledged: list[str] = []

    def load(worker: int) -> None:
        with contextlib.suppress(requests.RequestException):
            for n in range(10_000):
                if killable.send("POST", "/collections/c/items", item(f"w{worker}-{n}", "c")).status_code == 201:
                    acknowledged.append(f"w{worker}-{n}")

    workers = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    while len(acknowledged) < 30:
        time.sleep(0.01)
    killable.kill()
    for worker in workers:
        worker.join()
    killable.start()
    there = set(searched(killable))
    assert set(acknowledged) <= there
    changes, since = [], 0
    while page := killable.get("/changes", since=since, limit=50).json()["changes"]:
        changes += page
        since = page[-1]["seq"]
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    assert {change["id"] for change in changes if change["id"]} == there


def test_several_processes_on_one_file_leave_no_gap(tmp_path):
    path = tmp_path / "shared.sqlite"
    index = Index(path)
    index.put_collection(collection("c"))
    program = (
        "import json, sys; from stac.index import Index; index = Index(sys.argv[1])\n"
        "made = json.loads(sys.argv[3])\n"
        "for n in range(30): index.put_items('c', [{**made, 'id': f'{sys.argv[2]}-{n}'}])\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    running = [subprocess.Popen([*command, str(n), json.dumps(item("x", "c"))]) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert [change["seq"] for change in index.changes()] == list(range(1, 92))
    index.close()


# ------------------------------------------------------------------------------------------------------ watching an API
def test_an_api_is_watched_by_updated(empty):
    empty.send("POST", "/collections", collection("c"))
    asset = {"data": {"href": "./x.nc", "roles": ["data"], "file:checksum": "1220aa"}}

    def put(id: str, updated: datetime, checksum: str = "1220aa", method: str = "POST") -> None:
        made = item(id, "c", updated=stamp(updated)) | {
            "assets": {"data": {**asset["data"], "file:checksum": checksum}}
        }
        path = "/collections/c/items" + f"/{id}" * (method == "PUT")
        assert empty.send(method, path, made).status_code in (200, 201)

    now = START + timedelta(days=30)
    watcher = Watcher(empty.url)
    put("a", now - timedelta(days=1))
    put("b", now - timedelta(days=2))
    found = list(watcher.poll(now))
    assert [arrival["id"] for arrival in found] == ["b", "a"]
    assert found[0]["assets"]["data"]["href"] == f"{empty.url}/collections/c/items/x.nc"
    assert list(watcher.poll(now)) == []
    put("c", now - timedelta(days=1, hours=1))  # visible late, with an earlier time: within the overlap
    put("a", now - timedelta(hours=1), "1220bb", "PUT")
    assert [arrival["id"] for arrival in watcher.poll(now)] == ["c", "a"]
    put("future", now + timedelta(days=400))
    put("d", now - timedelta(minutes=1))
    assert sorted(arrival["id"] for arrival in watcher.poll(now)) == ["d", "future"]
    again = Watcher(empty.url, cursor=json.loads(json.dumps(watcher.cursor)))
    assert {arrival["id"] for arrival in again.poll(now)} >= {"d"}
    put("old", now - timedelta(days=5))
    assert list(again.poll(now)) == []
    assert "old" in [arrival["id"] for arrival in again.poll(now + timedelta(days=1, minutes=1))]
    since = Watcher(empty.url, since=stamp(now - timedelta(hours=2)), collections=["c"])
    assert sorted(arrival["id"] for arrival in since.poll(now)) == ["a", "d", "future"]


# ------------------------------------------------------------------------------------------------------------ real data
@pytest.mark.real_data
def test_real_documents_are_accepted_and_come_back_unchanged(real_data, empty):
    folder = real_data / "stac"
    places = [
        *folder.glob("modis/**/*.json"),
        *folder.glob("stac-spec/examples/*item*.json"),
        *real_data.glob("conus/nldas*/*/*.json"),
    ]
    items = [found for place in places if (found := json.loads(place.read_text())).get("type") == "Feature"]
    assert len(items) > 20
    for found in items:
        name = found.get("collection") or "none"
        empty.send("POST", "/collections", collection(name))
        answer = empty.send("POST", f"/collections/{name}/items", {**found, "collection": name})
        if answer.status_code == 409:
            continue  # two of the examples share an id
        assert answer.status_code == 201, (found["id"], answer.text)
        back = empty.get(f"/collections/{name}/items/{found['id']}").json()
        for part in ("geometry", "assets", "stac_extensions"):
            assert back.get(part) == found.get(part)
        assert {**found["properties"]}.items() <= back["properties"].items()
    for place in folder.glob("**/collection.json"):
        found = json.loads(place.read_text())
        if found.get("type") != "Collection":
            continue  # the schema of collections has the same name
        answer = empty.send("POST", "/collections", {**found, "id": f"real-{found['id']}"})
        assert answer.status_code in (201, 409), (found["id"], answer.text)
