"""Whatever dies while tasks run, every result is there in the end, and only what was in flight is computed twice."""

from __future__ import annotations

import hashlib
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra import compute
from infra.compute import Compute
from infra.tasks import Tasks, progress
from twin.ensemble import Lost
from twin.errors import Transient

CASE = Path(__file__).parents[1] / "slurm_case.py"
case = SimpleNamespace(**runpy.run_path(str(CASE)))

# One driver in a process of its own: folder, kind, number of tasks, seconds of a task. Prints a line for each result.
DRIVER = f"""
import runpy, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from infra import compute
from infra.tasks import Tasks
def simulate(task):
    with Path(task.runs, task.key).open("a") as file:
        file.write("x")
    time.sleep(task.seconds)
    return {{"theta": np.full((2, 3), task.number, float)}}
simulate.key = "model"
if __name__ == "__main__":
    folder, kind, count, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    case = runpy.run_path({str(CASE)!r})
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    every = {{"seconds": seconds, "runs": runs}}
    tasks = [SimpleNamespace(key=str(n), number=n, label={{"member": n}}, **every) for n in range(count)]
    with compute.chosen(case["settings"](kind, folder)) as place:
        for result in Tasks(place, folder / "kept").map(simulate, tasks):
            print(int(result["theta"][0, 0]), flush=True)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[None]:
    with case.slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module", params=case.KINDS[1:])
def place(request, tmp_path_factory) -> Iterator[Compute]:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    with compute.chosen(case.settings(request.param, tmp_path_factory.mktemp(request.param))) as place:
        yield place


@pytest.fixture
def queue(slurm, tmp_path) -> Iterator[Compute]:
    with compute.chosen(case.settings("slurm", tmp_path)) as place:
        yield place


def troubled(folder: Path, kills: dict[str, int] | None = None, seconds: float = 0.0):
    """A task function that kills its worker the first so many times that it runs these tasks."""
    folder.mkdir()

    def simulate(task):
        with (folder / task.key).open("a") as file:
            file.write("x")
        if (folder / task.key).stat().st_size <= (kills or {}).get(task.key, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return {"theta": np.full(3, task.number, float)}

    simulate.key = "model"
    return simulate


def members(count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(key=str(n), number=n, label={"member": n, "tile": 0}) for n in range(count)]


def executions(folder: Path) -> Counter:
    return Counter({path.name: len(path.read_text()) for path in folder.iterdir()})


def numbers(results) -> list[float | None]:
    return [None if isinstance(result, Lost) else float(result["theta"][0]) for result in results]


def jobs(state: str = "running,pending") -> list[str]:
    listed = ["squeue", "--noheader", "--me", "--format=%A", f"--states={state}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def nodes(state: str, which: str = "ALL") -> None:
    change = ["scontrol", "update", f"nodename={which}", f"state={state}", "reason=test"]
    subprocess.run(change, check=state != "resume", capture_output=True)  # some are back by themselves


def test_a_worker_killed_in_the_middle_of_a_task(place, tmp_path):
    function = troubled(tmp_path / "runs", kills={"3": 1})
    assert numbers(Tasks(place, tmp_path / "kept").map(function, members(8))) == list(range(8))
    assert executions(tmp_path / "runs") == {str(n): 1 + (n == 3) for n in range(8)}
    (run,) = progress(tmp_path / "kept")
    assert (run["done"] + run["reused"], run["lost"]) == (8, 0), "a receipt may be lost with its worker, never a result"
    assert not list((tmp_path / "kept" / "tries").iterdir())


def test_a_task_that_kills_every_worker_is_lost_and_the_others_are_not(place, tmp_path):
    function = troubled(tmp_path / "runs", kills={"1": 99})
    started = time.monotonic()
    found = list(Tasks(place, tmp_path / "kept").map(function, members(6)))
    assert numbers(found) == [0, None, 2, 3, 4, 5]
    assert found[1].reason.startswith("member 1, tile 0: Transient: task: expected a worker that lives to its end")
    assert "found 4 that died, the last on" in found[1].reason
    assert executions(tmp_path / "runs")["1"] == 4 and time.monotonic() - started < 120
    assert all(executions(tmp_path / "runs")[str(n)] == 1 for n in (0, 2, 3, 4, 5))


@pytest.mark.parametrize("kind", case.KINDS[::2])
def test_a_driver_killed_and_started_again(kind, tmp_path, request):
    """What had a result is not run again; the tasks in flight, two workers' at most, are."""
    if kind == "slurm":
        request.getfixturevalue("slurm")
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), kind, "10", "0.4"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = [first.stdout.readline().strip() for _ in range(3)]
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert seen == ["0", "1", "2"] and again.stdout.split() == [str(n) for n in range(10)]
    runs = executions(tmp_path / "runs")
    assert sum(runs.values()) <= 10 + 2 and all(runs[number] == 1 for number in seen)
    latest, killed = progress(tmp_path / "kept")
    assert (latest["state"], killed["state"]) == ("done", "stopped") and latest["reused"] >= 3


def test_two_drivers_at_the_same_tasks(tmp_path):
    """They may run a task twice, at the same time; both have every result, and every file is whole."""
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), "local", "30", "0.05"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for driver in both:
        assert driver.communicate(timeout=60)[0].split() == [str(n) for n in range(30)] and driver.returncode == 0
    assert max(executions(tmp_path / "runs").values()) <= 2
    kept = [path for path in (tmp_path / "kept" / "results").glob("*/*")]
    assert len(kept) == 30
    for path in kept:
        content = path.read_bytes()
        assert hashlib.sha256(content[:-32]).digest() == content[-32:]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_result_is_computed_again(place, tmp_path, damage, caplog):
    function, kept = troubled(tmp_path / "runs"), Tasks(place, tmp_path / "kept")
    list(kept.map(function, members(4)))
    path = sorted((tmp_path / "kept" / "results").glob("*/*"))[0]
    content = path.read_bytes()
    flipped = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    path.write_bytes({"truncated": content[:-40], "empty": b"", "flipped": flipped}[damage])
    with caplog.at_level("WARNING", logger="twin"):
        assert numbers(kept.map(function, members(4))) == [0, 1, 2, 3]
    assert sorted(executions(tmp_path / "runs").values()) == [1, 1, 1, 2] and path.read_bytes() == content
    assert any("result is damaged or gone, computed again" in line for line in caplog.messages)


@pytest.mark.slurm
@pytest.mark.parametrize("fault", ["scancel", "node"])
def test_a_job_or_a_node_that_is_lost_is_replaced(queue, tmp_path, fault):
    function = troubled(tmp_path / "runs", seconds=0.7)
    results = Tasks(queue, tmp_path / "kept").map(function, members(16))
    found = [next(results)]
    if fault == "scancel":
        subprocess.run(["scancel", jobs("running")[0]], check=True)
    else:
        nodes("down", "n1")
    try:
        found += results
    finally:
        if fault == "node":
            nodes("resume", "n1")
    assert numbers(found) == list(range(16))
    assert sum(executions(tmp_path / "runs").values()) <= 16 + 2, "at most what each of two workers had in hand"


@pytest.mark.slurm
def test_a_full_queue_puts_the_run_off_and_leaves_nothing_in_it(slurm, tmp_path):
    nodes("drain")
    started = time.monotonic()
    try:
        with (
            compute.chosen(case.settings("slurm", tmp_path, start_timeout=6)) as place,
            pytest.raises(Transient, match="compute: expected a worker within 6 s, found queue: 2 pending"),
        ):
            list(Tasks(place, tmp_path / "kept").map(troubled(tmp_path / "runs"), members(4)))
        assert jobs() == [] and time.monotonic() - started < 60
    finally:
        nodes("resume")
    (run,) = progress(tmp_path / "kept")
    assert run["state"] == "stopped" and run["done"] == 0 and not executions(tmp_path / "runs")


@pytest.mark.slurm
def test_jobs_that_end_before_their_worker_is_there_are_replaced(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "_LOOK", 1.0)
    nodes("drain")
    try:
        driver = subprocess.Popen(
            [sys.executable, "-c", CANCELS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert numbers(Tasks(queue, tmp_path / "kept").map(troubled(tmp_path / "runs"), members(4))) == [0, 1, 2, 3]
        assert driver.wait() == 0, driver.stderr.read()
        driver.stderr.close()
    finally:
        nodes("resume")


# Waits for a job in the queue, cancels all there are, and lets the nodes work again.
CANCELS = """
import os, subprocess, time
listed = ["squeue", "--noheader", "--me", "--format=%A"]
while not (found := subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()):
    time.sleep(0.1)
time.sleep(0.5)
subprocess.run(["scancel", "--me"], check=True)
subprocess.run(["scontrol", "update", "nodename=ALL", "state=resume"], check=True)
"""


@pytest.mark.slurm
def test_jobs_shorter_than_the_work(slurm, tmp_path):
    """Jobs of a minute for a minute of work on each: they leave at different times, and nothing is run for ever."""
    function = troubled(tmp_path / "runs", seconds=3.0)
    with compute.chosen(case.settings("slurm", tmp_path, walltime=1)) as place:
        assert numbers(Tasks(place, tmp_path / "kept").map(function, members(40))) == list(range(40))
    jobs = len(list((tmp_path / "compute" / "logs").glob("*.err")))
    runs = executions(tmp_path / "runs")
    assert 3 <= jobs <= 8 and sum(runs.values()) <= 40 + jobs and max(runs.values()) <= 3
