"""Independent tasks, each run once: what came out is kept under the address of everything it depends on.

    folder/results/ab/abcdef...     the arrays of one task and their checksum, written whole or not at all
    folder/functions/...            what the tasks are given to, pickled once; a task itself is a small message
    folder/tries/run/address        the hosts that began a task of a run under way
    folder/ledger.sqlite            every run, and every task with its label and state

The address is the SHA-256 of the function's key and the task's. A result that is there is never computed again, so a
killed worker or driver, a requeued job or a second driver at the same tasks costs what was in flight and nothing else.
Who computes a result twice writes the same bits: the later one replaces the earlier.
"""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from infra.compute import Compute, Local, Outcome
from infra.records import Records
from infra.results import Arrays, Work, address_of, intact, write
from infra.telemetry import log
from twin.ensemble import Lost
from twin.errors import SettingsError

Track = Callable[[Mapping[str, Any]], None]

_READINGS = 3  # times a result is made and found damaged
_EVERY = 1.0  # s between two entries in the ledger: a task may take less
_SILENT = 3600.0  # s after which a run of another host that writes nothing counts as stopped
_SCHEMA = """
create table run(
    run text primary key, started real not null, updated real not null, host text not null, process integer not null,
    workers integer not null, state text not null);
create table task(
    run text not null, address text not null, iteration, member, tile, state text not null, attempts integer not null,
    seconds real, host text, updated real not null, primary key(run, address)) without rowid
"""


class Task(Protocol):
    """One task: a small object to send."""

    @property
    def key(self) -> str:
        """Digest of what its result depends on besides the function."""
        ...

    @property
    def label(self) -> Mapping[str, Any]:
        """What it is to people: iteration, member, tile."""
        ...


class Tasks:
    """Runs tasks on `compute` and keeps their results in `folder`, which the workers share.

    track   is told how a run stands, about once a second while tasks end: one of `progress`
    """

    def __init__(self, compute: Compute, folder: Path, *, track: Track | None = None) -> None:
        self.compute, self.folder, self.track = compute, Path(folder).absolute(), track

    def map(self, function: Callable[[Any], Arrays], tasks: Iterable[Any]) -> Iterator[Arrays | Lost]:
        """What `function` makes of each task, in the order of the tasks, or why there is nothing.

        function   has a `key`: digest of everything the results depend on besides the task; without one nothing is kept
        A task is Lost that raises twice, or whose worker dies four times. Transient if the compute has no worker.
        """
        if not hasattr(function, "key"):
            yield from self.compute.map(function, tasks)
            return
        ordered, key = list(tasks), function.key
        named = {address_of(key, task.key): task for task in ordered}
        run = _Run(self.folder, named, self.compute, self.track)
        here = isinstance(self.compute, Local)
        work = Work(self.folder, run.name, key, function if here else None)
        if not here:
            write(work.function_path, _pickled(function))
        with run:
            yield from self._results(run, work, named, [address_of(key, task.key) for task in ordered])

    def _results(self, run: _Run, work: Work, tasks: Mapping[str, Any], order: list[str]) -> Iterator[Arrays | Lost]:
        """The results at these addresses, each awaited and then read."""
        ended: dict[str, Lost | None] = {}
        sent: list[str] = []

        def missing() -> Iterator[Any]:
            for address, task in tasks.items():
                if work.result_path(address).exists():
                    ended[address] = None
                    run.note(address, "reused")
                else:
                    run.note(address, "running")
                    sent.append(address)
                    yield task

        def take(address: str, outcome: Outcome) -> None:
            if outcome.error is None:
                ended[address] = None
                run.note(address, *outcome.value)
            else:
                ended[address] = Lost(f"{_said(tasks[address])}: {type(outcome.error).__name__}: {outcome.error}")
                run.note(address, "lost", max(outcome.attempts, len(work.begun(address))))

        with closing(self.compute.stream(work, missing())) as stream:
            for address in order:
                while address not in ended:
                    if (outcome := next(stream, None)) is not None:
                        take(sent[outcome.position], outcome)
                for _ in range(_READINGS):
                    if (result := ended[address] or intact(work.result_path(address))) is not None:
                        yield result
                        break
                    log.warning("%s: result is damaged or gone, computed again", _said(tasks[address]))
                    for outcome in self.compute.stream(work, [tasks[address]]):
                        take(address, outcome)
                else:
                    run.note(address, "lost", _READINGS)
                    yield Lost(f"{_said(tasks[address])}: expected an intact result, found {_READINGS} damaged")


def progress(folder: Path, run: str | None = None) -> list[dict[str, Any]]:
    """How the runs of a folder stand, or one of them, the latest first.

    run, started, updated (s since 1970), state: running, done or stopped; workers;
    total, waiting, running (handed to the workers), done, reused, lost: tasks;
    members and members_done, tiles and tiles_done: those of which every task has its result;
    seconds_left: median time of a task × tasks left / workers, None before the first has ended.
    """
    path = Path(folder) / "ledger.sqlite"
    if not path.exists():
        return []
    where, named = ("where run = ?", (run,)) if run else ("", ())
    with _ledger(path).reading() as db:
        rows = db.execute(
            f"select run, started, updated, host, process, workers, state from run {where} order by started desc", named
        )
        return [_standing(db, *row) for row in rows.fetchall()]


def tidy(folder: Path, keep_days: float) -> int:
    """Remove what was not used for so many days: results, functions, runs; bytes that were freed."""
    folder, before, freed = Path(folder), time.time() - 86400 * keep_days, 0
    for path in (*folder.glob("results/*/*"), *folder.glob("functions/*"), *folder.glob("tries/*/*")):
        with suppress(FileNotFoundError):  # another process was faster
            found = path.stat()
            if found.st_mtime < before:
                path.unlink()
                freed += found.st_size
    path = folder / "ledger.sqlite"
    if path.exists():
        with _ledger(path).writing() as db:
            db.execute("delete from task where run in (select run from run where updated < ?)", (before,))
            db.execute("delete from run where updated < ?", (before,))
    return freed


@contextmanager
def shown(label: str) -> Iterator[Track]:
    """Shows how a run stands: a bar on a terminal, a log line now and then elsewhere; to be given to `Tasks`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        told = 0.0

        def tell(found: Mapping[str, Any]) -> None:
            nonlocal told
            if found["state"] != "running" or time.monotonic() - told >= 10:
                told = time.monotonic()
                log.info("%s: %s", label, sentence(found))

        yield tell
        return
    with Progress(TextColumn(label), BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        line = bar.add_task("")
        yield lambda found: bar.update(
            line, total=found["total"], completed=found["done"] + found["reused"], description=sentence(found)
        )


class _Run:
    """One run in the ledger, entered in batches."""

    def __init__(self, folder: Path, tasks: Mapping[str, Any], compute: Compute, track: Track | None) -> None:
        self.folder, self.compute, self.track, self.name = folder, compute, track, uuid.uuid4().hex
        self._records, self._tasks = _ledger(folder / "ledger.sqlite"), tasks
        self._news: dict[str, tuple] = {}
        self._entered = time.monotonic()

    def __enter__(self) -> _Run:
        now = time.time()
        started = (self.name, now, now, socket.gethostname(), os.getpid(), self.compute.workers, "running")
        labels = ((a, *(task.label.get(n) for n in ("iteration", "member", "tile"))) for a, task in self._tasks.items())
        with self._records.writing() as db:
            db.execute("insert into run values (?,?,?,?,?,?,?)", started)
            db.executemany(
                "insert into task values (?,?,?,?,?,'waiting',0,null,null,?)",
                ((self.name, *label, now) for label in labels),
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            self._enter("stopped" if kind else "done")
        finally:
            shutil.rmtree(self.folder / "tries" / self.name, ignore_errors=True)

    def note(
        self, address: str, state: str, attempts: int = 0, seconds: float | None = None, host: str | None = None
    ) -> None:
        """What became of a task."""
        self._news[address] = state, attempts, seconds, host, time.time(), self.name, address
        if time.monotonic() - self._entered >= _EVERY:
            self._enter("running")

    def _enter(self, state: str) -> None:
        with self._records.writing() as db:
            db.executemany(
                "update task set state = ?, attempts = ?, seconds = ?, host = ?, updated = ? "
                "where run = ? and address = ?",
                self._news.values(),
            )
            db.execute(
                "update run set updated = ?, workers = ?, state = ? where run = ?",
                (time.time(), self.compute.workers, state, self.name),
            )
        self._news.clear()
        self._entered = time.monotonic()
        if self.track:
            self.track(*progress(self.folder, self.name))


def _ledger(path: Path) -> Records:
    return Records(path, "task ledger", 0x74774C65, 1, _SCHEMA)


def _standing(
    db: Any, run: str, started: float, updated: float, host: str, process: int, workers: int, state: str
) -> dict[str, Any]:
    """One row of `progress`."""
    states = dict(db.execute("select state, count(*) from task where run = ? group by state", (run,)).fetchall())
    of = {name: states.get(name, 0) for name in ("waiting", "running", "done", "reused", "lost")}
    for noun in ("member", "tile"):
        every = db.execute(
            f"select min(state in ('done', 'reused')) from task where run = ? and {noun} is not null group by {noun}",
            (run,),
        ).fetchall()
        of |= {f"{noun}s": len(every), f"{noun}s_done": sum(complete for (complete,) in every)}
    if state == "running" and not _lives(host, process, updated):
        state = "stopped"
    seconds = [row[0] for row in db.execute("select seconds from task where run = ? and state = 'done'", (run,))]
    left = of["waiting"] + of["running"]
    if state != "running" or not left:
        seconds_left: float | None = 0.0
    else:
        seconds_left = statistics.median(seconds) * left / workers if seconds else None
    total = sum(states.values())
    return {
        "run": run,
        "started": started,
        "updated": updated,
        "state": state,
        "workers": workers,
        "total": total,
        **of,
        "seconds_left": seconds_left,
    }


def _lives(host: str, process: int, updated: float) -> bool:
    """Whether the driver of a run is there, as far as one can tell from here."""
    if host != socket.gethostname():
        return time.time() - updated < _SILENT
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sentence(found: Mapping[str, Any]) -> str:
    """How a run stands, in words."""
    ended = found["done"] + found["reused"]
    parts = [f"{ended} of {found['total']} tasks"]
    parts += [f"{found[f'{n}_done']} of {found[n]} {n}" for n in ("members", "tiles") if found[n] > 1]
    parts += [f"{found['lost']} lost"] * bool(found["lost"])
    left = found["seconds_left"]
    if found["state"] == "running" and left is not None:
        parts.append(f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
    elif found["state"] != "running":
        parts.append(found["state"])
    return ", ".join(parts)


def _said(task: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in task.label.items()) or "task"


def _pickled(function: Callable) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(function)
    except (TypeError, AttributeError, pickle.PicklingError) as err:
        raise SettingsError("task function", expected="an object that can be sent to workers", found=str(err)) from err
