"""The update flow: one run per batch of arrivals, one task per verb."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from infra import quicklook, verbs
from infra.settings import Settings, region
from infra.wiring import build
from twin.errors import Transient

P = ParamSpec("P")
R = TypeVar("R")


def _again(_task: Task, _run: TaskRun, state: State) -> bool:
    """Retry only what the error's class says may go better next time."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def _verb(function: Callable[P, R]) -> Task[P, R]:
    """A verb as a Prefect task: nothing cached, retried by class of error."""
    as_task = task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[1, 5, 20], retry_condition_fn=_again)
    return as_task(function)


ingest, publish, announce = _verb(verbs.ingest), _verb(verbs.publish), _verb(verbs.announce)
refresh, assess = _verb(verbs.refresh), _verb(verbs.assess)


@flow(name="update", flow_run_name="{region_name} · {label}", log_prints=False)
def update(region_name: str, arrivals: list[dict[str, Any]], label: str = "") -> dict[str, Any]:
    """Take a batch of arrivals into the twin and tell the world; the counts of what was done."""
    started = time.perf_counter()
    log = get_run_logger()
    services, place = build(Settings()), region(region_name)
    if not verbs.prepare(services, place, arrivals):
        log.warning("%s: none of these items can be read for the region's cells; they wait", region_name)
        return {"waiting": len(arrivals)}
    batch = ingest(services, place, arrivals)
    for what, items in (("set aside", batch.refused), ("waits", batch.waiting)):
        for item in items:
            log.warning("%s: %s", what, item["reason"])
    snapshot = verbs.commit(services, place, batch, refresh=refresh, assess=assess)
    published, events = publish(services, place), announce(services, place)
    done = {
        "ingested": len(batch.granules),
        "quarantined": len(batch.refused),
        "waiting": len(batch.waiting),
        "known": batch.known,
        "snapshot": snapshot,
        "published": published,
        "events": events,
        "seconds": round(time.perf_counter() - started, 2),
    }
    log.info("%s: %s", region_name, ", ".join(f"{count} {name}" for name, count in done.items()))
    if snapshot:
        create_table_artifact(
            [{"what": name, "count": str(count)} for name, count in done.items()],
            key=f"{region_name}-update",
            description=f"What the last update of {region_name} did.",
        )
        picture = quicklook.drought_png(services.store.at(snapshot), region_name)
        if picture:
            create_image_artifact(
                f"data:image/png;base64,{b64encode(picture).decode()}",
                key=f"{region_name}-drought-map",
                description=f"Drought classes, {region_name}",
            )
    return done
