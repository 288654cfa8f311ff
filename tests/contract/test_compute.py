"""One contract for every place where work runs: like the builtin map, and with tasks, each result once, bit for bit."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra import compute
from infra.compute import Compute
from infra.settings import Settings
from infra.tasks import Tasks, progress
from twin.ensemble import Lost
from twin.errors import RangeError, SettingsError, Transient

case = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slurm_case.py")))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[None]:
    with case.slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module", params=case.KINDS)
def place(request, tmp_path_factory) -> Iterator[Compute]:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    with compute.chosen(case.settings(request.param, tmp_path_factory.mktemp(request.param))) as place:
        yield place


def counted(folder: Path):
    """A task function that leaves a line in `folder` for each execution, and draws numbers from the task's seed."""
    folder.mkdir(exist_ok=True)

    def simulate(task):
        with (folder / task.key).open("a") as file:
            file.write("x")
        rng = np.random.default_rng(task.seed)
        if task.seed == 13:
            raise RangeError("soil", expected="0 to 1", found="13")
        return {"theta": rng.normal(size=(4, 25)), "day": np.array("2020-01-01", "datetime64[D]"), "n": np.arange(0)}

    simulate.key = "model-1"
    return simulate


def members(seeds) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(key=f"member-{seed}", seed=seed, label={"iteration": 1, "member": seed // 2, "tile": seed % 2})
        for seed in seeds
    ]


def executions(folder: Path) -> Counter:
    return Counter({path.name: len(path.read_text()) for path in folder.iterdir()})


def digest(results) -> str:
    told = hashlib.sha256()
    for result in results:
        for name, values in result.items():
            told.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return told.hexdigest()


def test_it_is_a_map(place):
    assert list(place.map(lambda a, b: a - b, range(20), range(0, 40, 2))) == [-n for n in range(20)]
    assert list(place.map(lambda a, b: a, [1, 2, 3], "ab")) == [1, 2], "the shortest ends it"
    assert list(place.map(lambda a: a, [])) == []
    assert place.workers >= 1


def test_a_call_that_raises_raises_here(place):
    results = place.map(lambda n: 1 // (2 - n), range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(place.map(abs, [-1])) == [1], "the others are not harmed"


def test_outcomes_are_streamed_and_arguments_taken_as_there_is_room(place):
    taken = []

    def arguments():
        for n in range(50):
            taken.append(n)
            yield n

    stream = place.stream(lambda n: n * n, arguments())
    first = next(stream)
    assert first.value == first.position**2 and len(taken) < 20
    rest = list(stream)
    assert sorted(outcome.position for outcome in (first, *rest)) == list(range(50))
    assert all(outcome.error is None for outcome in rest)


def test_errors_are_outcomes_too(place):
    outcomes = {outcome.position: outcome for outcome in place.stream(lambda n: 6 // n, [1, 0, 3])}
    assert (outcomes[0].value, outcomes[2].value) == (6, 2)
    assert isinstance(outcomes[1].error, ZeroDivisionError)
    assert outcomes[1].attempts == (1 if isinstance(place, compute.Local) else 2)


def test_the_same_bits_in_the_same_order_wherever_it_runs(place, tmp_path):
    """`local` without a cache is the authority."""
    function, tasks = counted(tmp_path / "runs"), members(range(12))
    expected = digest(map(function, tasks))
    found = list(Tasks(place, tmp_path / "kept").map(function, tasks))
    assert digest(found) == expected
    assert found[0]["day"] == np.datetime64("2020-01-01") and found[0]["n"].shape == (0,)


def test_what_is_there_is_not_computed_again(place, tmp_path):
    function, tasks = counted(tmp_path / "runs"), members(range(8))
    kept = Tasks(place, tmp_path / "kept")
    first = digest(kept.map(function, tasks[:6]))
    assert executions(tmp_path / "runs") == {f"member-{n}": 1 for n in range(6)}
    again = list(kept.map(function, [*tasks, tasks[0]]))
    assert digest(again[:6]) == first and digest(again[8:]) == digest(again[:1])
    assert set(executions(tmp_path / "runs").values()) == {1}
    latest, earlier = progress(tmp_path / "kept")
    assert (latest["reused"], latest["done"], latest["members_done"], latest["state"]) == (6, 2, 4, "done")
    assert (earlier["reused"], earlier["done"], earlier["tiles"], earlier["seconds_left"]) == (0, 6, 2, 0.0)
    function.key = "model-2"
    list(kept.map(function, tasks))
    assert set(executions(tmp_path / "runs").values()) == {2}, "another function, other results"


def test_a_task_that_raises_is_lost_and_named(place, tmp_path):
    function, tasks = counted(tmp_path / "runs"), members([12, 13, 14])
    good, lost, other = Tasks(place, tmp_path / "kept").map(function, tasks)
    assert lost == Lost("iteration 1, member 6, tile 1: RangeError: soil: expected 0 to 1, found 13")
    assert digest([good, other]) == digest(map(function, [tasks[0], tasks[2]]))
    attempts = 1 if isinstance(place, compute.Local) else 2
    assert executions(tmp_path / "runs")["member-13"] == attempts
    (standing,) = progress(tmp_path / "kept")
    assert (standing["done"], standing["lost"], standing["members_done"], standing["tiles_done"]) == (2, 1, 1, 1)


def test_nothing_to_do_is_done(place, tmp_path):
    assert list(Tasks(place, tmp_path).map(counted(tmp_path / "runs"), [])) == []
    assert [(run["total"], run["state"]) for run in progress(tmp_path)] == [(0, "done")]


def test_without_a_key_nothing_is_kept(place, tmp_path):
    assert list(Tasks(place, tmp_path / "kept").map(lambda task: task + 1, [1, 2])) == [2, 3]
    assert not (tmp_path / "kept").exists()


def test_a_copy_on_a_worker_does_not_open_another_cluster(place):
    assert list(place.map(lambda n: list(place.map(abs, [n, -n])), [1, 2])) == [[1, 1], [2, 2]]


def test_an_unknown_kind_is_named():
    with pytest.raises(SettingsError, match="expected local or lsf or pbs or processes or slurm, found abacus"):
        compute.chosen(Settings(compute={"kind": "abacus"}))


@pytest.mark.parametrize("kind, command", [("pbs", "qsub"), ("lsf", "bsub"), ("slurm", "sbatch")])
def test_a_queue_that_is_not_installed_is_named(tmp_path, monkeypatch, kind, command):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        compute.chosen(case.settings(kind, tmp_path)) as place,
        pytest.raises(SettingsError, match=f"TWIN_COMPUTE__KIND: expected {command} on the PATH, found none"),
    ):
        list(place.map(abs, [1]))


@pytest.mark.parametrize(
    "kind, lines",
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A water", "#SBATCH --cpus-per-task=4", "#SBATCH -t 01:30:00"]),
        ("pbs", ["#PBS -q long", "#PBS -A water", "#PBS -l select=1:ncpus=4:mem=3815MB", "#PBS -l walltime=01:30:00"]),
        ("lsf", ["#BSUB -q long", '#BSUB -P "water"', "#BSUB -n 4", "#BSUB -W 01:30"]),
    ],
)
def test_jobs_ask_for_what_the_settings_say(tmp_path, kind, lines):
    """One process a job that takes one call at a time with all its cores, and leaves before its walltime."""
    given = {"cores": 4, "queue": "long", "account": "water", "walltime": 90, "memory": "4GB"}
    script = compute.job_script(
        Settings(home=tmp_path, compute={"kind": kind, "prologue": "module load python", **given})
    )
    for line in (*lines, "module load python", *(f"export {name}_NUM_THREADS=4" for name in ("OMP", "NUMBA"))):
        assert f"\n{line}\n" in script
    (worker,) = [line for line in script.splitlines() if "dask_worker" in line]
    assert (
        worker.endswith("--lifetime=5100s --lifetime-stagger=240s") and worker.rpartition("--nthreads")[2][:2] == "=1"
    )


@pytest.mark.slurm
def test_a_queue_that_refuses_says_why(slurm, tmp_path):
    settings = case.settings("slurm", tmp_path, queue="nowhere", start_timeout=6)
    with (
        compute.chosen(settings) as place,
        pytest.raises(Transient, match=r"compute: expected a worker within 6 s, found sbatch: .*nowhere"),
    ):
        list(place.map(abs, [1]))


def test_dask_is_not_imported_before_it_is_needed():
    program = "import sys, infra.compute, infra.results; print('dask' in sys.modules, 'distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
