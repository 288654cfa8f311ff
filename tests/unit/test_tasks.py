"""What is kept of tasks: files that are whole or not there, and a ledger that says how a run stands."""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from infra import doctor, results
from infra.compute import Local
from infra.results import address_of, intact, packed, write
from infra.tasks import Tasks, progress, shown, tidy
from twin.ensemble import Lost
from twin.errors import SettingsError

NUMBERS = arrays.floating_dtypes() | arrays.integer_dtypes() | arrays.datetime64_dtypes() | arrays.boolean_dtypes()


def simulate(key: str = "model", made=lambda task: {"theta": np.full(3, task.number, float)}):
    def function(task):
        return made(task)

    function.key = key
    return function


def members(count: int, tiles: int = 1) -> list[SimpleNamespace]:
    labels = [{"iteration": 1, "member": member, "tile": tile} for member in range(count) for tile in range(tiles)]
    return [SimpleNamespace(key=str(n), number=n, label=label) for n, label in enumerate(labels)]


@given(arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0)))
def test_an_array_comes_back_as_it_went_in(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("result") / "a"
    content = packed({"x": values, "also": values.T})
    assert content == packed({"x": values, "also": values.T}), "the same bits every time"
    write(path, content)
    found = intact(path)
    assert found is not None and list(found) == ["x", "also"]
    assert found["x"].dtype == values.dtype and found["x"].shape == values.shape
    assert found["x"].tobytes() == values.tobytes() and found["also"].tobytes() == values.T.tobytes()


@given(st.data())
def test_no_damage_goes_unnoticed(tmp_path_factory, data):
    content = packed({"theta": np.linspace(0, 1, 12).reshape(3, 4)})
    place = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = content[:place] if cut else content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    path = tmp_path_factory.mktemp("result") / "a"
    path.write_bytes(damaged)
    assert intact(path) is None and not path.exists()


def test_an_address_depends_on_both_keys():
    assert len({address_of(*keys) for keys in (("a", "b"), ("b", "a"), ("ab", ""), ("a", "c"))}) == 4
    assert address_of("a", "b") == address_of("a", "b") and len(address_of("a", "b")) == 64


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "ab" / "abc"
    write(path, b"before")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, b"after")
    assert path.read_bytes() == b"before" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda task: np.zeros(3), "result of a task: expected arrays by name, found ndarray"),
        (lambda task: {"x": np.array([{}])}, "result of a task: expected arrays of numbers, found x of Python objects"),
        (lambda task: 1 / task.number, "ZeroDivisionError: "),
    ],
)
def test_a_task_without_a_result_is_lost_with_its_reason(tmp_path, made, message):
    (lost,) = Tasks(Local(), tmp_path).map(simulate(made=made), members(1))
    assert (
        isinstance(lost, Lost) and lost.reason.startswith("iteration 1, member 0, tile 0: ") and message in lost.reason
    )


def test_a_result_that_will_not_stay_whole_is_lost_in_the_end(tmp_path, monkeypatch):
    """A disk that damages what it is given: three tries, then the task is given up."""
    monkeypatch.setattr(results, "write", lambda path, content: write(path, content[:-1]))
    (lost,) = Tasks(Local(), tmp_path).map(simulate(), members(1))
    assert lost == Lost("iteration 1, member 0, tile 0: expected an intact result, found 3 damaged")
    assert progress(tmp_path)[0]["lost"] == 1


def test_a_run_stands_where_the_ledger_says(tmp_path, monkeypatch):
    """Half the tasks are done when we look: what is left takes the median time of a task."""
    monkeypatch.setattr("infra.tasks._EVERY", 0.0)
    told = []
    run = Tasks(Local(), tmp_path, track=told.append).map(
        simulate(made=lambda task: time.sleep(0.02) or {"x": np.zeros(task.number)}), members(3, tiles=2)
    )
    for _ in range(3):
        next(run)
    (found,) = progress(tmp_path)
    assert found == told[-1] and progress(tmp_path, found["run"]) == [found] and progress(tmp_path, "none") == []
    assert (found["state"], found["total"], found["done"], found["waiting"]) == ("running", 6, 3, 3)
    assert (found["members"], found["members_done"], found["tiles"], found["tiles_done"]) == (3, 1, 2, 0)
    assert found["seconds_left"] == pytest.approx(3 * statistics.median([0.02] * 3), rel=0.9)
    list(run)
    (found,) = progress(tmp_path)
    assert (found["state"], found["members_done"], found["tiles_done"], found["seconds_left"]) == ("done", 3, 2, 0.0)
    shares = [row["done"] / row["total"] for row in told]
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_run_that_was_left_is_stopped(tmp_path):
    run = Tasks(Local(), tmp_path).map(simulate(), members(3))
    next(run)
    run.close()
    (found,) = progress(tmp_path)
    assert (found["state"], found["seconds_left"]) == ("stopped", 0.0) and found["done"] < 3


def test_a_run_whose_process_is_gone_is_stopped(tmp_path):
    list(Tasks(Local(), tmp_path).map(simulate(), members(3)))
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        ledger.execute("update run set state = 'running', process = ?", (child.pid,))
    ledger.close()
    assert progress(tmp_path)[0]["state"] == "stopped"


def test_the_ledger_costs_little(tmp_path):
    """0.2 ms a task, of which this machine may be ten times slower today: 1,000 tasks that are all there."""
    run, tasks = Tasks(Local(), tmp_path), members(1000)
    list(run.map(simulate(), tasks))
    started = time.process_time()
    assert len(list(run.map(simulate(), tasks))) == 1000
    assert time.process_time() - started < 2.0


def test_a_folder_without_runs_is_left_alone(tmp_path):
    assert progress(tmp_path / "none") == [] and tidy(tmp_path / "none", 1) == 0 and not list(tmp_path.iterdir())


def test_a_ledger_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match="task ledger: expected an intact file"):
        progress(tmp_path)


def test_what_was_not_used_for_long_is_removed(tmp_path):
    kept, tasks = Tasks(Local(), tmp_path), members(4)
    list(kept.map(simulate(), tasks))
    old = time.time() - 10 * 86400
    files = sorted((tmp_path / "results").glob("*/*"))
    for path in files:
        os.utime(path, (old, old))
    list(kept.map(simulate(), tasks[:1]))
    size = files[0].stat().st_size
    assert tidy(tmp_path, keep_days=9) == 3 * size, "what was used today stays"
    assert len(list((tmp_path / "results").glob("*/*"))) == 1 and len(progress(tmp_path)) == 2
    assert tidy(tmp_path, keep_days=-1) == size and progress(tmp_path) == []


def test_progress_is_said_in_words(tmp_path, caplog):
    with caplog.at_level("INFO", logger="twin.progress"), shown("analysis") as track:
        list(Tasks(Local(), tmp_path, track=track).map(simulate(), members(2, tiles=3)))
    assert caplog.messages[-1] == "analysis: 6 of 6 tasks, 2 of 2 members, 3 of 3 tiles, done"


def test_the_doctor_knows_the_queue(monkeypatch, tmp_path):
    def row(kind: str) -> dict:
        monkeypatch.setenv("TWIN_COMPUTE__KIND", kind)
        (found,) = [row for row in doctor.examine() if row["check"] == "compute"]
        return found

    monkeypatch.setenv("PATH", str(tmp_path))
    assert (row("local")["state"], row("processes")["state"]) == ("ok", "ok")
    assert row("local")["advice"].endswith("queues here: none")
    assert row("pbs") == {
        "check": "compute",
        "state": "missing",
        "needed": True,
        "advice": "pbs: no qsub on the PATH; install its client or choose another kind",
    }
    (tmp_path / "qsub").touch(mode=0o755)
    assert row("pbs")["state"] == "ok" and str(Path(tmp_path, "qsub")) in row("pbs")["advice"]
    assert row("abacus")["state"] == "missing" and row("abacus")["advice"].endswith("queues here: pbs")
