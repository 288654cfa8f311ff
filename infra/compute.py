"""Where independent calls run: in this process, in processes of this machine, or as jobs of a cluster's queue.

    with chosen(settings) as compute:
        for result in compute.map(function, arguments): ...       like the builtin, in order
        for outcome in compute.stream(function, arguments): ...   each call as it ends

`processes` is a Dask LocalCluster; `slurm`, `pbs` and `lsf` are dask-jobqueue's, all run alike: one
worker a job, one call at a time on it, jobs asked for while there are calls and replaced when they are lost. Nothing is
opened before the first call, and Dask is not even imported. Connections are encrypted and only our own workers get in.
"""

from __future__ import annotations

import builtins
import itertools
import logging
import os
import queue
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from infra.settings import ComputeSettings, Settings
from twin.errors import SettingsError, Transient

_AHEAD = 4  # calls handed over at a time for each worker there may be
_ATTEMPTS = 2  # of a call that raises
_DEATHS = 10  # workers that may die with a call on them: most were only near it
_GRACE = 60  # s that a worker without a call is kept
_LOST = "8s"  # a worker that is not back by then is replaced: what crashed starts again in its place, without queueing
_LOOK = 10  # s between two looks at the queue for jobs that are gone
_FETCH = 10  # s to wait for a result that is said to be there
_ORPHAN = 20  # s after which a worker without its driver ends
_NO_PAGES = "127.0.0.1:0"  # Dask cannot do without its web server: it gets a port nobody outside can reach
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How the call of the argument at `position` ended: its value, or its error; and after how many attempts."""

    position: int
    value: Any = None
    error: Exception | None = None
    attempts: int = 1


class Compute(Protocol):
    """Runs independent calls; closed by `close` or at the end of a `with` block, and opened again by the next call."""

    @property
    def workers(self) -> int:
        """Calls that can run at once now."""
        ...

    def stream(self, function: Callable, arguments: Iterable) -> Generator[Outcome, None, None]:
        """The outcome of each call of one argument as it ends, in any order; arguments are taken as there is room."""
        ...

    def map(self, function: Callable, *arguments: Iterable) -> Iterator[Any]:
        """As the builtin: the results in order; raises the error of the first call that has one."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


class Local:
    """This process: one call after the other, each when its result is asked for."""

    workers = 1

    def stream(self, function: Callable, arguments: Iterable) -> Generator[Outcome, None, None]:
        for position, argument in enumerate(arguments):
            try:
                outcome = Outcome(position, function(argument))
            except Exception as err:
                outcome = Outcome(position, error=err)
            yield outcome

    def map(self, function: Callable, *arguments: Iterable) -> Iterator[Any]:
        return builtins.map(function, *arguments)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class Dask:
    """Workers of a Dask cluster that `open_cluster(folder)` makes when the first call comes.

    There are as many as there are calls, at most `most`, and none when there was nothing to do for a minute.
    A call whose worker dies runs again on another, up to ten times; one that raises runs once more, on another worker
    if there is one. Transient when no worker is there for `start_timeout` seconds: the queue is full, or refuses us.
    A pickled copy, on a worker, is `Local`: calls do not nest jobs.
    """

    def __init__(self, open_cluster: Callable[[Path], Any], most: int, folder: Path, start_timeout: float) -> None:
        self._open_cluster, self._most, self._folder, self._start_timeout = open_cluster, most, folder, start_timeout
        self._cluster: Any = None
        self._client: Any = None

    @property
    def workers(self) -> int:
        return max(1, len(self._cluster.scheduler.workers)) if self._cluster else 1

    def stream(self, function: Callable, arguments: Iterable) -> Generator[Outcome, None, None]:
        client, ended = self._opened(), queue.SimpleQueue[Any]()
        calls, running = enumerate(arguments), dict[Any, tuple[int, Any, int]]()

        def submit(position: int, argument: Any, attempt: int = 1, elsewhere: list[str] | None = None) -> None:
            future = client.submit(
                function, argument, pure=False, workers=elsewhere or None, allow_other_workers=bool(elsewhere)
            )
            running[future] = position, argument, attempt
            future.add_done_callback(ended.put)

        try:
            while True:
                for call in itertools.islice(calls, _AHEAD * self._most - len(running)):
                    submit(*call)
                if not running:
                    return
                future = self._next(ended)
                if (result := _result(future)) is None:
                    future.add_done_callback(ended.put)
                    continue
                (value, error), (position, argument, attempt) = result, running.pop(future)
                if error is None or attempt == _ATTEMPTS or isinstance(error, _Died):
                    yield Outcome(position, value, error, attempt)
                else:
                    submit(position, argument, attempt + 1, self._elsewhere(future))
                future.release()
        finally:
            if running and self._client is client:
                client.cancel(list(running))

    def map(self, function: Callable, *arguments: Iterable) -> Iterator[Any]:
        waiting: dict[int, Outcome] = {}
        outcomes = self.stream(partial(_spread, function), zip(*arguments, strict=False))
        for position in itertools.count():
            while position not in waiting:
                outcome = next(outcomes, None)
                if outcome is None:
                    return
                waiting[outcome.position] = outcome
            outcome = waiting.pop(position)
            if outcome.error is not None:
                raise outcome.error
            yield outcome.value

    def close(self) -> None:
        client, cluster, self._client, self._cluster = self._client, self._cluster, None, None
        if client is not None:
            client.close()
        if cluster is not None:
            cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __reduce__(self):
        return Local, ()

    def _opened(self) -> Any:
        if self._client is None:
            import dask
            from distributed import Client

            self._folder.mkdir(parents=True, exist_ok=True)
            dask.config.set(
                {
                    "distributed.deploy.lost-worker-timeout": _LOST,
                    "distributed.scheduler.allowed-failures": _DEATHS,
                    "distributed.scheduler.http.routes": ["distributed.http.health"],
                }
            )
            self._cluster = self._open_cluster(self._folder)
            self._cluster.adapt(
                minimum=0,
                maximum=self._most,
                interval="1s",
                wait_count=_GRACE,
                target_duration="1ms",  # a worker for every call, however short it may be
            )
            self._client = Client(self._cluster, set_as_default=False)
        return self._client

    def _next(self, ended: queue.SimpleQueue) -> Any:
        """The next future to end; Transient if meanwhile no worker is there for too long."""
        seen = looked = time.monotonic()
        while True:
            try:
                return ended.get(timeout=min(1.0, self._start_timeout))
            except queue.Empty:
                now = time.monotonic()
            if now - looked >= _LOOK and hasattr(self._cluster, "replace_gone"):
                looked = now
                self._cluster.sync(self._cluster.replace_gone)
            if self._cluster.scheduler.workers:
                seen = now
            elif now - seen >= self._start_timeout:
                raise self._nobody()

    def _nobody(self) -> Transient:
        """Nothing is left in the queue: who tries again asks again."""
        found = getattr(self._cluster, "refused", "") or f"queue: {len(self._cluster.workers)} pending"
        self.close()
        return Transient("compute", expected=f"a worker within {self._start_timeout:g} s", found=found)

    def _elsewhere(self, future: Any) -> list[str]:
        """The workers that have not failed at this future's call."""
        task = self._cluster.scheduler.tasks.get(future.key)
        failed = set(task.erred_on or ()) if task else set()
        return [address for address in list(self._cluster.scheduler.workers) if address not in failed]


def chosen(settings: Settings) -> Compute:
    """What TWIN_COMPUTE__KIND names, not yet opened; SettingsError for a kind there is not."""
    given, folder = settings.compute, _folder(settings)
    if given.kind == "local":
        return Local()
    if given.kind == "processes":
        most = given.workers or max(1, (os.cpu_count() or 1) // given.cores)
        return Dask(partial(_processes, given), most, folder, given.start_timeout)
    if given.kind in QUEUES:
        return Dask(partial(_jobs, given, QUEUES[given.kind]), given.jobs, folder, given.start_timeout)
    known = " or ".join(sorted(("local", "processes", *QUEUES)))
    raise SettingsError("TWIN_COMPUTE__KIND", expected=known, found=given.kind, where="environment")


def job_script(settings: Settings) -> str:
    """The script of a job, as the queue that TWIN_COMPUTE__KIND names would get it."""
    kind, folder = QUEUES[settings.compute.kind], _folder(settings)
    return _adopted(kind).job_cls("tls://…", name="…", **_job(settings.compute, kind, folder)).job_script()


def _folder(settings: Settings) -> Path:
    given = settings.compute.directory
    return Path(given).expanduser().absolute() if given else settings.home / "compute"


class Queue(NamedTuple):
    """What differs between the queues."""

    cluster: str  # of dask-jobqueue
    submit: str  # the command that must be there
    listing: str  # a command that prints our jobs, each on a line that begins with its number
    account: str = "account"
    walltime: str = "{:02d}:{:02d}:00"
    directives: tuple[str, ...] = ()


QUEUES = {
    "slurm": Queue("SLURMCluster", "sbatch", "squeue --noheader --me --format=%A", directives=("--no-requeue",)),
    "pbs": Queue("PBSCluster", "qsub", "qstat", directives=("-r n",)),
    "lsf": Queue("LSFCluster", "bsub", "bjobs -noheader -o jobid", "project", "{:02d}:{:02d}", ("-rn",)),
}


def _processes(given: ComputeSettings, folder: Path) -> Any:
    """Processes of this machine."""
    from distributed import LocalCluster, Security

    return LocalCluster(
        n_workers=0,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        protocol="tls://",
        security=Security.temporary(),
        memory_limit=given.memory,
        local_directory=str(folder),
        dashboard_address=_NO_PAGES,
        env=dict.fromkeys(_THREADS, str(given.cores)),
        silence_logs=logging.CRITICAL,
    )


def _jobs(given: ComputeSettings, kind: Queue, folder: Path) -> Any:
    """Jobs of a queue."""
    if not shutil.which(kind.submit):
        expected = f"{kind.submit} on the PATH"
        raise SettingsError("TWIN_COMPUTE__KIND", expected=expected, found="none", where=given.kind)
    from distributed import Security

    return _adopted(kind)(
        **_job(given, kind, folder),
        security=Security.temporary(),
        shared_temp_directory=str(folder),  # keys for the workers, readable by us only, gone with the cluster
        scheduler_options={"dashboard": False, "dashboard_address": _NO_PAGES},
        silence_logs=logging.CRITICAL,
    )


def _job(given: ComputeSettings, kind: Queue, folder: Path) -> dict[str, Any]:
    """What dask-jobqueue makes a job with.

    One worker a job: with more, a lost job is never replaced. It leaves before the walltime, each at another moment,
    and takes one call at a time, whatever the cores (the last `--nthreads` counts).
    """
    seconds = 60 * given.walltime
    margin = min(300.0, seconds / 4)
    last = [f"--lifetime={seconds - margin:.0f}s", f"--lifetime-stagger={0.8 * margin:.0f}s"]
    optional = {"queue": given.queue, kind.account: given.account, "interface": given.interface}
    return {
        "cores": given.cores,
        "processes": 1,
        "memory": given.memory,
        "walltime": kind.walltime.format(*divmod(given.walltime, 60)),
        "job_name": "twin",
        "death_timeout": _ORPHAN,
        "local_directory": str(folder / "scratch"),
        "log_directory": str(folder / "logs"),
        "job_extra_directives": list(kind.directives),  # we ask again ourselves
        "job_script_prologue": [*(f"export {name}={given.cores}" for name in _THREADS), *given.prologue],
        "worker_extra_args": ["--nthreads=1", "--no-dashboard", f"--dashboard-address={_NO_PAGES}", *last],
        **{name: value for name, value in optional.items() if value},
    }


def _adopted(kind: Queue) -> Any:
    """The dask-jobqueue cluster of that kind, which also notices jobs that end before their worker is there.

    Dask would wait for them for ever. `refused` is why the queue did not take the last job, or nothing.
    """
    import dask_jobqueue
    from distributed.deploy.spec import ProcessInterface

    known: Any = getattr(dask_jobqueue, kind.cluster)

    class Job(known.job_cls):
        async def start(self) -> None:
            try:
                await super().start()
                Cluster.refused = ""
            except (OSError, RuntimeError, ValueError) as err:
                Cluster.refused = " ".join(str(err).rpartition("stderr:")[2].split())
                await ProcessInterface.start(self)  # as a job without a number, which is asked for again

    class Cluster(known):
        job_cls = Job
        refused = ""

        def close(self, timeout: float | None = None) -> None:
            super().close(timeout)
            for name in ("ca_file", "cert", "key"):
                getattr(self, f"_job_{name}").close()  # the files of the keys, which also removes them

        async def replace_gone(self) -> None:
            """Forget jobs that are neither queued nor running; adapting asks for others."""
            connected = {worker.name for worker in self.scheduler.workers.values()}
            awaited = {name: job.job_id for name, job in self.workers.items() if name not in connected}
            if not awaited:
                return
            try:
                listed = await Job._call(kind.listing.split())
            except (OSError, RuntimeError):
                return  # the queue does not answer: another time
            there = set(re.findall(r"^\s*(\d+)", listed, re.MULTILINE))
            for name, number in awaited.items():
                if number not in there and name in self.workers:
                    await self.workers.pop(name).close()

    return Cluster


class _Died(Transient):
    """A call was given up: worker after worker died with it."""


def _result(future: Any) -> tuple[Any, Exception | None] | None:
    """The value of a future that ended, or its error; None if the worker took it along and it is computed again."""
    from distributed import KilledWorker

    try:
        return future.result(timeout=_FETCH), None
    except KilledWorker:
        return None, _Died("compute", expected="a worker that lives", found=f"{_DEATHS + 1} that died with this call")
    except Exception as err:
        gone = isinstance(err, TimeoutError) and future.status != "error"
        return None if gone else (None, err)


def _spread(function: Callable, arguments: tuple) -> Any:
    return function(*arguments)
