"""The outbox: what was noticed is offered until the store has it."""

from __future__ import annotations

import pytest

from infra.arrivals import Arrivals
from twin.errors import SettingsError


def arrival(name: str, day: str = "2026-01-01") -> dict:
    return {"key": f"c/{name}@1", "id": name, "datetime": f"{day}T00:00:00Z", "assets": {"data": {"href": "x.nc"}}}


@pytest.fixture
def arrivals(tmp_path) -> Arrivals:
    return Arrivals(tmp_path / "arrivals.sqlite")


def names(entries) -> list[str]:
    return [entry.arrival["id"] for entry in entries]


def test_an_arrival_is_remembered_once_and_kept_by_region(arrivals, tmp_path):
    assert arrivals.remember("demo", [arrival("b"), arrival("a"), arrival("a")]) == 2
    assert arrivals.remember("demo", [arrival("a")]) == 0 and arrivals.remember("demo", []) == 0
    assert arrivals.remember("uk", [arrival("a")]) == 1
    again = Arrivals(tmp_path / "arrivals.sqlite")
    assert names(again.waiting("demo")) == ["a", "b"] and again.waiting("demo")[0].arrival == arrival("a")
    assert names(again.waiting("demo", limit=1)) == ["a"]


def test_from_waiting_to_gone(arrivals):
    arrivals.remember("demo", [arrival("new", "2026-02-02"), arrival("old"), arrival("mid", "2026-01-15")])
    assert names(arrivals.waiting("demo")) == ["old", "mid", "new"]
    arrivals.sent("demo", ["c/old@1", "c/mid@1"], "run-1")
    assert names(arrivals.waiting("demo")) == ["new"]
    (batch,) = arrivals.in_flight("demo")
    assert batch.run == "run-1" and names(batch.entries) == ["old", "mid"]
    assert arrivals.remember("demo", [arrival("old")]) == 0, "under way is known"
    arrivals.forget("demo", ["c/old@1"])
    arrivals.release("demo", "run-1")
    assert arrivals.in_flight("demo") == []
    assert [(entry.arrival["id"], entry.attempt) for entry in arrivals.waiting("demo")] == [("new", 0), ("mid", 1)]
    arrivals.release("demo", "run-1")
    assert arrivals.waiting("demo")[-1].attempt == 1, "a run is released once"


def test_another_file_is_refused(tmp_path):
    (tmp_path / "arrivals.sqlite").write_bytes(b"something else" * 500)
    with pytest.raises(SettingsError, match="arrivals: expected an intact file"):
        Arrivals(tmp_path / "arrivals.sqlite")
