"""From noticing an item to giving it to a run: one run at a time, nothing forgotten, nothing tried for ever."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.watch import PATIENCE, batch_key, dispatch, poll
from infra.arrivals import Arrivals
from infra.settings import Settings, region
from infra.wiring import build
from stac.watch import Watcher

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = region("demo")


class Memory:
    """Update runs in memory: each stays under way until it is told how it ended."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Mapping[str, Any]]] = {}  # by idempotency key, which is also the run's id
        self.outcome: dict[str, bool] = {}

    def start(self, region: str, arrivals: Sequence[Mapping[str, Any]], key: str) -> str:
        self.runs.setdefault(key, list(arrivals))
        return key

    def ended(self, run: str) -> bool | None:
        return self.outcome.get(run)

    def end(self, run: str, well: bool) -> None:
        self.outcome[run] = well

    def ids(self, run: str) -> list[str]:
        return [arrival["id"] for arrival in self.runs[run]]


class Desk:
    """A region of four cells in a real store, its outbox and its runs."""

    def __init__(self, home: Path, prepared: bool = True) -> None:
        self.services = build(Settings(home=home))
        self.arrivals, self.runs, self.moment = Arrivals(home / "arrivals.sqlite"), Memory(), MOMENT
        if prepared:
            self.prepare()

    def prepare(self) -> None:
        draft = self.services.store.draft()
        cells = xr.Dataset(coords={"lat": ("cell", np.arange(4.0)), "lon": ("cell", np.zeros(4))})
        draft.create(PLACE.name, cells.assign_attrs(region=PLACE.name, resolution=1.0), PLACE.start)
        draft.commit("prepare")

    def notice(self, *names: str) -> int:
        return self.arrivals.remember(PLACE.name, [arrival(name) for name in names])

    def dispatch(self) -> str | None:
        return dispatch(self.services, PLACE, self.arrivals, self.runs, limit=100, now=lambda: self.moment)

    def poll(self, *watchers: Watcher) -> int:
        return poll(self.services, PLACE, watchers, self.arrivals)

    def take(self, run: str, names: Iterable[str] | None = None) -> None:
        """The run commits these items, by default all it was given, and ends well."""
        names = self.runs.ids(run) if names is None else list(names)
        draft = self.services.store.draft()
        consumed = [{**arrival(name), "kind": "observation", "spans": []} for name in names]
        draft.append_journal(PLACE.name, {"consumed": consumed, "quarantined": [], "events": [], "release": None})
        draft.commit("an update")
        self.runs.end(run, well=True)

    def ledger(self) -> Mapping[str, Mapping[str, Any]]:
        return self.services.store.at().ledger(PLACE.name)

    def waiting(self) -> list[tuple[str, int]]:
        return [(entry.arrival["id"], entry.attempt) for entry in self.arrivals.waiting(PLACE.name)]


def arrival(name: str) -> dict[str, Any]:
    return {"key": f"c/{name}@1", "id": name, "datetime": "2026-01-01T00:00:00Z", "detected": "", "assets": {}}


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path / "home")


# ---------------------------------------------------------------------------------------------------------- dispatch
def test_one_run_at_a_time_and_what_gathers_meanwhile_is_the_next_batch(desk):
    assert desk.dispatch() is None, "nothing to do"
    desk.notice("a", "b")
    first = desk.dispatch()
    assert desk.runs.ids(first) == ["a", "b"]
    desk.notice("c")
    desk.notice("d", "a")
    assert desk.dispatch() == first and desk.dispatch() == first
    assert len(desk.runs.runs) == 1
    desk.take(first)
    second = desk.dispatch()
    assert desk.runs.ids(second) == ["c", "d"]
    desk.take(second)
    assert desk.dispatch() is None and desk.waiting() == [] and not desk.arrivals.in_flight(PLACE.name)
    assert len(desk.runs.runs) == 2


def test_a_batch_takes_no_more_than_its_limit(desk):
    desk.notice("a", "b", "c")
    run = dispatch(desk.services, PLACE, desk.arrivals, desk.runs, limit=2)
    assert desk.runs.ids(run) == ["a", "b"] and desk.waiting() == [("c", 0)]


def test_the_same_batch_has_the_same_key_in_any_order(desk, tmp_path):
    assert batch_key(["a", "b"]) == batch_key(["b", "a"]) != batch_key(["a"])
    desk.notice("a", "b")
    other = Desk(tmp_path / "other")
    other.notice("b")
    other.notice("a")
    assert desk.dispatch() == other.dispatch()


def test_a_crash_between_starting_and_noting_it_starts_no_second_run(desk):
    """The process dies after `start`, before `sent`: the outbox still offers the batch, the key finds its run."""
    desk.notice("a", "b")
    first = desk.dispatch()
    desk.arrivals.release(PLACE.name, first, failed=False)  # as if `sent` had never happened
    assert desk.dispatch() == first and len(desk.runs.runs) == 1


def test_a_run_that_fails_offers_again_what_it_did_not_take(desk):
    desk.notice("a", "b")
    first = desk.dispatch()
    desk.take(first, ["a"])
    desk.runs.end(first, well=False)  # killed after its commit
    second = desk.dispatch()
    assert second != first and desk.runs.ids(second) == ["b"]
    desk.take(second)
    assert desk.dispatch() is None and desk.ledger().keys() == {"c/a@1", "c/b@1"}


def test_an_item_that_kills_its_runs_travels_alone_and_is_set_aside_with_its_reason(desk):
    desk.notice("bad", "good")
    for _ in range(2):
        run = desk.dispatch()
        assert desk.runs.ids(run) == ["bad", "good"]
        desk.runs.end(run, well=False)
    run = desk.dispatch()
    assert desk.runs.ids(run) == ["bad"], "alone from the third attempt"
    desk.runs.end(run, well=False)
    run = desk.dispatch()
    assert desk.runs.ids(run) == ["good"]
    desk.take(run)
    run = desk.dispatch()
    assert desk.runs.ids(run) == ["bad"] and "c/bad@1" not in desk.ledger()
    desk.runs.end(run, well=False)
    assert desk.dispatch() is None and desk.waiting() == []
    record = desk.ledger()["c/bad@1"]
    assert record["status"] == "quarantined"
    assert record["reason"] == "update run: expected to end well, found 4 runs that did not"
    assert desk.ledger()["c/good@1"]["status"] == "consumed"
    (entry,) = desk.services.store.at().journal(PLACE.name, after=0)
    assert [fact["type"] for fact in entry["events"]] == ["twin.item.quarantined.v1"]


def test_a_new_item_does_not_wait_for_one_that_fails(desk):
    desk.notice("bad")
    desk.runs.end(desk.dispatch(), well=False)
    desk.notice("new")
    assert desk.runs.ids(desk.dispatch()) == ["new"]


def test_an_item_that_waits_is_offered_again_for_ever_and_never_set_aside(desk):
    """Its asset's server is away: runs end well without it, and one a minute is enough."""
    desk.notice("waits")
    for turn in range(1, 7):
        run = desk.dispatch()
        assert desk.runs.ids(run) == ["waits"]
        desk.runs.end(run, well=True)
        assert [desk.dispatch() for _ in range(3)] == [None] * 3, "not again within the same minute"
        assert len(desk.runs.runs) == turn
        desk.moment += timedelta(seconds=PATIENCE)
    assert desk.ledger() == {}
    desk.take(desk.dispatch())
    assert desk.dispatch() is None and desk.waiting() == []


def test_an_item_that_waits_holds_up_no_other(desk):
    desk.notice("fails")
    desk.runs.end(desk.dispatch(), well=False)
    desk.notice("waits")
    desk.runs.end(desk.dispatch(), well=True)
    assert desk.runs.ids(desk.dispatch()) == ["fails"], "the one that waits goes last"
    desk.notice("new")
    desk.runs.end(desk.dispatch(), well=False)
    assert desk.runs.ids(desk.dispatch()) == ["new", "waits"]


def test_in_a_region_not_prepared_yet_items_wait_until_it_is(tmp_path):
    desk = Desk(tmp_path / "home", prepared=False)
    assert desk.dispatch() is None and desk.poll() == 0
    desk.notice("odd")
    for _ in range(6):
        desk.runs.end(desk.dispatch(), well=False)
        desk.moment += timedelta(seconds=PATIENCE)
    assert desk.services.store.at().regions() == [], "no half-made region that could never be prepared"
    desk.notice("shows the cells")
    run = desk.dispatch()
    assert desk.runs.ids(run) == ["shows the cells"], "what is new goes first"
    desk.prepare()
    desk.take(run)
    run = desk.dispatch()
    assert desk.runs.ids(run) == ["odd"]
    desk.runs.end(run, well=False)
    desk.dispatch()
    assert desk.ledger()["c/odd@1"]["status"] == "quarantined"


# -------------------------------------------------------------------------------------------------------------- poll
class Source:
    """A static catalogue of one collection; what is in `away` answers 503."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.away, self.names = folder, set(), []
        (folder / "c").mkdir(parents=True)
        child = {"rel": "child", "href": "./c/collection.json"}
        self._write("catalog.json", {"type": "Catalog", "stac_version": "1.1.0", "id": "source", "links": [child]})
        self.add()

    def add(self, *names: str) -> None:
        for name in names:
            properties = {"datetime": "2026-01-01T00:00:00Z", "updated": "2026-01-02T00:00:00Z"}
            item = {"type": "Feature", "id": name, "collection": "c", "properties": properties, "links": []}
            self._write(f"c/{name}.json", {**item, "assets": {"data": {"href": "./data.nc"}}})
        self.names += names
        links = [{"rel": "item", "href": f"./{name}.json"} for name in self.names]
        self._write("c/collection.json", {"type": "Collection", "id": "c", "links": links})

    def _write(self, path: str, document: dict[str, Any]) -> None:
        (self.folder / path).write_text(json.dumps(document))


class Handler(SimpleHTTPRequestHandler):
    """Serves a Source, with an ETag that is its content so that a change is seen at once."""

    def __init__(self, *arguments: Any, source: Source) -> None:
        self.source = source
        super().__init__(*arguments, directory=str(source.folder))

    def do_GET(self) -> None:
        path = self.source.folder / self.path.lstrip("/")
        if self.path in self.source.away:
            return self.send_error(503)
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def source(tmp_path) -> Source:
    return Source(tmp_path / "source")


@pytest.fixture
def lines(caplog):
    """What the watch logs; the twin's own handlers keep it from pytest's."""
    logger = logging.getLogger("twin.watch")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_what_is_new_is_remembered_once_and_what_the_store_has_never(desk, source):
    source.add("a", "b")
    watcher = Watcher(str(source.folder / "catalog.json"))
    assert (desk.poll(watcher), desk.poll(watcher)) == (2, 0)
    assert desk.poll(Watcher(watcher.source)) == 0, "also to a watcher that reads everything again"
    run = desk.dispatch()
    keys = [given["key"] for given in desk.runs.runs[run]]
    draft = desk.services.store.draft()
    taken = [{**given, "kind": "observation", "spans": []} for given in desk.runs.runs[run]]
    draft.append_journal(PLACE.name, {"consumed": taken, "quarantined": [], "events": [], "release": None})
    draft.commit("an update")
    desk.runs.end(run, well=True)
    assert desk.dispatch() is None and desk.ledger().keys() == set(keys)
    assert desk.poll(Watcher(watcher.source)) == 0


def test_a_source_that_is_away_is_said_so_and_asked_again_while_others_are_read(desk, source, tmp_path, lines):
    source.add("near")
    far = Source(tmp_path / "far")
    far.add("far")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, source=far)) as server:
        port = server.server_port
    watchers = [Watcher(f"http://127.0.0.1:{port}/catalog.json"), Watcher(str(source.folder))]  # nothing listens there
    assert desk.poll(*watchers) == 1
    assert "asked again at the next poll" in lines.text and str(port) in lines.text
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, source=far)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert desk.poll(*watchers) == 1
        server.shutdown()
    assert {name for name, _ in desk.waiting()} == {"near", "far"}


def test_what_was_read_before_the_source_went_away_is_kept(desk, source, lines):
    source.add("old")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, source=source)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watcher = Watcher(f"http://127.0.0.1:{server.server_port}/catalog.json")
        assert desk.poll(watcher) == 1
        source.add("new")
        source.away.add("/c/old.json")
        assert desk.poll(watcher) == 1, "`new` was read, then `old` could not be looked at again"
        server.shutdown()
    assert "asked again" in lines.text
    assert {name for name, _ in desk.waiting()} == {"old", "new"}
