"""One contract for every event bus: each event once, in order, durably, and every consumer at its own place."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from infra.bus import Event, EventBus, cloudevent, from_cloudevent
from infra.bus_log import LogBus
from twin.errors import SettingsError


def event(name: str, key: str = "demo") -> Event:
    data = {"n": name, "share": 0.1}
    return Event(name, "twin.drought.updated.v1", f"/regions/{key}", "drought", "2026-01-01T00:00:00Z", data, key)


def ids(events) -> list[str]:
    return [found.id for found in events]


class BusContract:
    """What any adapter must do; `bus` gives a bus, `again` a second one on the same log, as another process has it."""

    def test_events_come_back_as_they_went_in_and_in_order(self, bus: EventBus):
        sent = [event(str(n)) for n in range(5)]
        assert bus.publish(sent) == 5
        found = bus.poll("reader")
        assert ids(found) == ids(sent) and found[0].data == sent[0].data
        positions = [one.position for one in found]
        assert positions == sorted(set(positions)) and positions[0] > 0

    def test_a_repeat_adds_nothing(self, bus: EventBus, again: Callable[[], EventBus]):
        bus.publish([event("a"), event("b")])
        assert bus.publish([event("a"), event("c"), event("c")]) == 1
        assert again().publish([event("b")]) == 0
        assert bus.publish([]) == 0
        assert ids(bus.poll("reader")) == ["a", "b", "c"]

    def test_every_consumer_keeps_its_place(self, bus: EventBus, again: Callable[[], EventBus]):
        bus.publish([event(str(n)) for n in range(4)])
        first = bus.poll("one", limit=2)
        assert ids(first) == ["0", "1"]
        assert ids(bus.poll("one", limit=2)) == ["0", "1"], "polled is not acknowledged"
        bus.ack("one", first[-1].position)
        bus.ack("one", first[0].position)
        assert ids(again().poll("one")) == ["2", "3"], "acknowledgements are kept, and never move back"
        assert ids(bus.poll("other")) == ["0", "1", "2", "3"]

    def test_polling_waits_for_an_event_and_no_longer_than_asked(self, bus: EventBus, again: Callable[[], EventBus]):
        started = time.monotonic()
        assert bus.poll("reader", timeout=0.2) == []
        assert 0.2 <= time.monotonic() - started < 2
        later = threading.Timer(0.2, lambda: again().publish([event("late")]))
        later.start()
        assert ids(bus.poll("reader", timeout=10)) == ["late"]
        assert time.monotonic() - started < 5
        later.join()

    def test_what_is_published_survives_the_process(self, bus: EventBus, again: Callable[[], EventBus]):
        bus.publish([event("kept")])
        del bus
        assert ids(again().poll("reader")) == ["kept"]


class TestLogBus(BusContract):
    @pytest.fixture
    def again(self, tmp_path) -> Callable[[], LogBus]:
        return lambda: LogBus(tmp_path / "events.sqlite")

    @pytest.fixture
    def bus(self, again) -> LogBus:
        return again()

    def test_the_latest_need_no_consumer(self, bus):
        bus.publish([event(str(n)) for n in range(5)])
        assert ids(bus.latest(2)) == ["3", "4"] and ids(bus.latest(99)) == ["0", "1", "2", "3", "4"]
        assert ids(pickle.loads(pickle.dumps(bus)).latest(1)) == ["4"]

    def test_one_bad_event_of_a_batch_and_none_is_published(self, bus):
        bad = event("bad")
        bad.data["n"] = float("nan")
        with pytest.raises(ValueError, match="JSON"):
            bus.publish([event("good"), bad])
        assert bus.latest() == []

    @pytest.mark.parametrize(
        "content, message",
        [
            ("garbage", "expected an intact file"),
            ("other", "expected version 1, found another program's file"),
            ("newer", "expected version 1, found version 7"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path, content, message):
        path = tmp_path / "events.sqlite"
        if content == "garbage":
            path.write_bytes(b"not a database at all" * 100)
        else:
            if content == "newer":
                LogBus(path)
            with sqlite3.connect(path) as db:
                db.execute("pragma user_version = 7" if content == "newer" else "create table theirs(x)")
            db.close()
        with pytest.raises(SettingsError, match=message):
            LogBus(path)

    def test_racing_processes_publish_each_event_once_without_gaps(self, tmp_path, bus):
        """Three processes publish overlapping events, one is killed: what was acknowledged is there, once, gapless."""
        program = """
import sys
from infra.bus import Event
from infra.bus_log import LogBus
bus, name = LogBus(sys.argv[1]), sys.argv[2]
for n in range(60):
    shared, own = (Event(i, "t", "s", "", "", {}, name) for i in (f"shared-{n}", f"{name}-{n}"))
    bus.publish([shared, own])
    print(n, flush=True)
"""
        run = [sys.executable, "-c", program, str(tmp_path / "events.sqlite")]
        children = [subprocess.Popen([*run, name], stdout=subprocess.PIPE, text=True) for name in "abc"]
        for _ in range(5):
            children[2].stdout.readline()
        os.kill(children[2].pid, signal.SIGKILL)
        acknowledged = [child.communicate(timeout=60)[0].split() for child in children]
        found = bus.latest(1000)
        assert [one.position for one in found] == list(range(1, len(found) + 1))
        assert len(set(ids(found))) == len(found)
        assert {f"shared-{n}" for n in range(60)} <= set(ids(found))
        for name, count in zip("abc", (60, 60, 5 + len(acknowledged[2])), strict=True):
            own = [one.id for one in found if one.id.startswith(f"{name}-")]
            assert own == [f"{name}-{n}" for n in range(len(own))], "one publisher's events keep their order"
            assert len(own) >= count


def test_events_are_cloudevents():
    """CloudEvents 1.0 §3.1 and its JSON format: required attributes, no empty strings, lower-case extension names."""
    when = "2026-01-01T00:00:00Z"
    full = Event("1f", "twin.x.v1", "/regions/uk", "item", when, {"a": [1]}, "uk", "https://example.org/x", 12)
    document = cloudevent(full)
    assert {name: document[name] for name in ("specversion", "id", "source", "type")} == {
        "specversion": "1.0",
        "id": "1f",
        "source": "/regions/uk",
        "type": "twin.x.v1",
    }
    assert document["partitionkey"] == "uk" and document["datacontenttype"] == "application/json"
    later = cloudevent(Event("", "", "", "", "", {}, "", position=100))
    assert document["sequence"] < later["sequence"], "sorts as text"
    assert from_cloudevent(json.loads(json.dumps(document))) == full
    bare = Event("1", "t", "s", "", when, {}, "k")
    assert not {"subject", "dataschema", "sequence"} & cloudevent(bare).keys()
    assert from_cloudevent(cloudevent(bare)) == bare
    with pytest.raises(SettingsError, match=r"expected CloudEvents 1.0, found specversion '0.3'"):
        from_cloudevent({"specversion": "0.3"})
