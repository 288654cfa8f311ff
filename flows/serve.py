"""Serving the flows: deployments `watch`, `update`, `assimilate`, `train` and `scenario`, and the bells that ring.

`python -m flows.serve --region R --source URL …` runs until it is told to stop; it needs PREFECT_API_URL. A second one,
with --analyses, runs the slow half.

    schedule ──▸ watch run ─┐
                            ├─▸ outbox ──dispatch──▸ update run ──▸ store ──due──▸ assimilate or train run ──▸ store
    doorbell (every poll) ──┘                                      └─ another process ──────────────────────┘

Runs are executed by this process, one at a time. Prefect's own runner starts a process per run, whose imports alone
take longer than a whole update; here everything is imported and compiled already, so an arrival is on the map in
seconds. When this process dies, its supervisor starts it again and `reconcile` retries the run it left behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import FlowRunResponse, OrchestrationResult
from prefect.deployments import run_deployment
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import AwaitingRetry, Crashed, Pending

from flows.assimilate import assimilate
from flows.scenarios import scenario
from flows.train import train
from flows.update import update
from flows.watch import dispatch, poll, watch
from infra import analysis, telemetry, training, verbs
from infra.settings import Region, Settings, region
from infra.wiring import build, outbox
from stac.watch import Watcher
from twin.errors import Transient

log = logging.getLogger("twin.serve")
RUN_TRIES = 3  # times one run is restarted after its process died
PATIENCE = 300  # seconds after which an analysis that failed is tried again
NICE = 10
UPDATES, ANALYSES = "updates", "analyses"  # which process runs a run
T = TypeVar("T")


class PrefectRuns:
    """Update runs as runs of the deployment `update/<region>`."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def start(self, region_name: str, arrivals: Sequence[Mapping[str, Any]], key: str) -> str:
        """Start the run of this idempotency key; Prefect returns the existing one when it is repeated."""
        first = arrivals[0]["id"]
        label = first if len(arrivals) == 1 else f"{first} and {len(arrivals) - 1} more"
        parameters = {"region_name": region_name, "arrivals": [dict(arrival) for arrival in arrivals], "label": label}
        return self._run(f"update/{region_name}", parameters, key, ["twin", region_name, UPDATES])

    def begin(self, flow: Flow, region_name: str, plan: analysis.Plan | training.Plan, turn: int) -> str:
        """Start the run for a plan, or find the one of this turn."""
        parameters = {"region_name": region_name, "label": plan.span}
        tags = ["twin", region_name, ANALYSES]
        return self._run(f"{flow.name}/{region_name}", parameters, f"{plan.key}-{turn}", tags)

    def _run(self, deployment: str, parameters: dict[str, Any], key: str, tags: list[str]) -> str:
        run = run_deployment(deployment, parameters=parameters, timeout=0, idempotency_key=key, tags=tags)
        return str(_plain(run).id)

    def ended(self, run: str) -> bool | None:
        """Whether the run ended well, None while it is under way; one the server no longer knows did not."""
        try:
            state = self.client.read_flow_run(UUID(run)).state
        except ObjectNotFound:
            return False
        return state.is_completed() if state is not None and state.is_final() else None


def _plain(answer: T | Coroutine[Any, Any, T]) -> T:
    """The answer itself: called outside an event loop, Prefect's functions never give the coroutine they declare."""
    return cast(T, answer)


def reconcile(client: SyncPrefectClient, region_name: str, role: str) -> int:
    """Give runs that died with their process another try, and end those that used theirs up; how many there were."""
    dead = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(
            {
                "state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}},
                "tags": {"all_": ["twin", region_name, role]},
            }
        )
    )
    for run in dead:
        again: State[Any] = (
            AwaitingRetry() if run.run_count < RUN_TRIES else Crashed(message=f"its process died {run.run_count} times")
        )
        client.set_flow_run_state(run.id, again, force=True)
        log.info("%s: left behind by a process that is gone, now %s", run.name, again.name)
    return len(dead)


@contextmanager
def _next_turn_tries_again() -> Iterator[None]:
    try:
        yield
    except Transient as reason:
        log.warning("asked again at the next turn: %s", reason)
    except Exception:
        log.exception("this turn failed; the next one tries again")


def doorbell(place: Region, sources: Sequence[str], settings: Settings, stop: threading.Event) -> None:
    """Poll the sources and dispatch what has gathered, until told to stop; a turn that fails is logged and repeated."""
    try:
        with get_client(sync_client=True) as client:
            services, arrivals, runs = build(settings), outbox(settings), PrefectRuns(client)
            watchers = [Watcher(source) for source in sources]
            while not stop.wait(settings.watch.poll_seconds):
                with _next_turn_tries_again():  # what a killed run committed but did not tell
                    verbs.publish(services, place)
                    verbs.announce(services, place)
                with _next_turn_tries_again():  # goes on while the catalogue is away
                    poll(services, place, watchers, arrivals)
                    dispatch(services, place, arrivals, runs, settings.watch.batch)
    finally:
        stop.set()  # without its doorbell this process is of no use: it ends, and is started again


def bell(place: Region, settings: Settings, stop: threading.Event) -> None:
    """Start a run for each window or emulator that is due, one at a time; one that failed, again by and by."""
    try:
        with get_client(sync_client=True) as client:
            services, runs, run = build(settings), PrefectRuns(client), ""
            while not stop.wait(settings.watch.poll_seconds):
                with _next_turn_tries_again():
                    if run and runs.ended(run) is None:
                        continue
                    turn, run = int(time.time() // PATIENCE), ""
                    if (window := analysis.due(services.store.at(), place, settings)) is not None:
                        run = runs.begin(assimilate, place.name, window, turn)
                    elif (plan := training.due(services, place)) is not None:
                        run = runs.begin(train, place.name, plan, turn)
    finally:
        stop.set()


def deploy_analyses(place: Region) -> dict[UUID, Flow]:
    """Register the deployments of the slow half; the flow to run for each."""
    tags, module = _tags(place, ANALYSES), EntrypointType.MODULE_PATH
    slow = assimilate.to_deployment(
        place.name,
        tags=tags,
        description=f"Assimilates observations into the twin of {place.title}: ensemble, 4DEnVar, commit, publish.",
        entrypoint_type=module,
    )
    learn = train.to_deployment(
        place.name,
        tags=tags,
        description=f"Trains the emulator of {place.title}: ensemble, trees, verdict, commit, publish.",
        entrypoint_type=module,
    )
    what_if = scenario.to_deployment(
        place.name,
        parameters={"region_name": place.name},
        tags=tags,
        description=f"Runs {place.title} under another climate: soil moisture, drought by decade, spot check, publish.",
        entrypoint_type=module,
    )
    served: tuple[tuple[Any, Flow], ...] = ((slow, assimilate), (learn, train), (what_if, scenario))
    return {_plain(_plain(deployment).apply()): flow for deployment, flow in served}


def _tags(place: Region, role: str) -> list[str]:
    return ["twin", place.name, role, *(["simulated"] if place.simulated else [])]


def deploy(place: Region, sources: Sequence[str], settings: Settings) -> dict[UUID, Flow]:
    """Register the deployments of the quick half; the flow to run for each."""
    tags, module = _tags(place, UPDATES), EntrypointType.MODULE_PATH
    sweep = watch.to_deployment(
        place.name,
        parameters={"region_name": place.name, "sources": list(sources)},
        interval=timedelta(seconds=settings.watch.sweep_seconds),
        tags=tags,
        description=f"Reads every source of {place.title} from its beginning and remembers what is new.",
        entrypoint_type=module,
    )
    advance = update.to_deployment(
        place.name,
        tags=tags,
        description=f"Takes a batch of new items into the twin of {place.title}: "
        "ingest, refresh, assess, publish, announce.",
        entrypoint_type=module,
    )
    return {_plain(_plain(sweep).apply()): watch, _plain(_plain(advance).apply()): update}


def work(client: SyncPrefectClient, served: Mapping[UUID, Flow], stop: threading.Event) -> None:
    """Execute what is due, oldest first, until told to stop; a failed run is Prefect's to show, ours to go on from."""
    while not stop.is_set():
        due = client.get_scheduled_flow_runs_for_deployments(list(served), scheduled_before=datetime.now(UTC), limit=1)
        if not due:
            stop.wait(0.2)
            continue
        execute(client, served[cast(UUID, due[0].deployment_id)], due[0])


def execute(client: SyncPrefectClient, served: Flow, run: FlowRunResponse) -> None:
    """One run, from Pending to its end, in this process."""
    claimed: OrchestrationResult[Any] = client.set_flow_run_state(run.id, Pending())
    if claimed.state is None or not claimed.state.is_pending():
        return  # cancelled, or paused
    run_flow(served, flow_run=client.read_flow_run(run.id), parameters=run.parameters, return_type="state")


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", required=True)
    parser.add_argument("--source", action="append", default=[])
    parser.add_argument("--analyses", action="store_true", help="serve the slow half: assimilation, training")
    options = parser.parse_args()
    if not options.analyses and not options.source:
        parser.error("expected a --source, or --analyses")
    settings, place = Settings(), region(options.region)
    telemetry.set_up(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if options.analyses:
        os.nice(NICE)  # arrivals go first
        ring, role = partial(bell, place, settings, stop), ANALYSES
    else:
        ring, role = partial(doorbell, place, options.source, settings, stop), UPDATES
    ringer = threading.Thread(target=ring, name="bell", daemon=True)
    # A run lives and dies with this process, so its heartbeat would tell nothing, and ending it costs a second a run.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), get_client(sync_client=True) as client:
        reconcile(client, place.name, role)
        served = deploy_analyses(place) if options.analyses else deploy(place, options.source, settings)
        ringer.start()
        log.info("serving %s for %s", ", ".join(flow.name for flow in served.values()), place.name)
        while not stop.is_set():
            try:
                work(client, served, stop)
            except Exception:
                log.exception("the Prefect server did not answer; asking again")
                time.sleep(1)
    ringer.join(timeout=5)


if __name__ == "__main__":
    main()
