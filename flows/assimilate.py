"""The assimilate flow: one run per window that is due, while the open loop goes on.

Runs have a process of their own, `python -m flows.serve --analyses`, so that no arrival waits for one. A run that dies
is started again and finds the results of its tasks; one the queue has no room for fails, says so, and is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.progress import progress
from flows.update import announce, publish
from infra import analysis
from infra.settings import Region, Settings, region
from infra.tasks import Track, sentence
from infra.wiring import Services, build


@flow(name="assimilate", flow_run_name="{region_name} · {label}", log_prints=False)
def assimilate(region_name: str, label: str = "") -> dict[str, Any]:
    """Assimilate the newest window, if it still is due, and tell the world; what came of it."""
    started, log = time.perf_counter(), get_run_logger()
    services, place = build(Settings()), region(region_name)
    plan = analysis.due(services.store.at(), place, services.settings)
    if plan is None:
        log.info("%s: nothing is due any more", region_name)
        return {"accepted": None}
    found = members(services, place, plan)
    snapshot = commit(services, place, plan, found)
    log.info("%s: %s", region_name, analysis.sentence(plan, found))
    done = {
        "window": plan.span,
        "accepted": analysis.accepted(found),
        "snapshot": snapshot,
        "published": publish(services, place),
        "events": announce(services, place),
        "seconds": round(time.perf_counter() - started, 2),
    }
    if not isinstance(found, str):
        create_table_artifact(
            [{name: _short(value) for name, value in row.items()} for row in found.diagnostics["control"]],
            key=f"{region_name}-analysis",
            description=analysis.sentence(plan, found),
        )
    return done


@task(cache_policy=NO_CACHE)
def members(services: Services, place: Region, plan: analysis.Plan) -> analysis.Analysis | str:
    """Run the ensemble and the algebra; progress by members and tiles goes to an artifact of the run."""
    return analysis.assimilate(services, place, plan, followed(f"{place.name}-assimilation", plan.span))


@task(cache_policy=NO_CACHE)
def commit(services: Services, place: Region, plan: analysis.Plan, found: analysis.Analysis | str) -> str | None:
    """Make the analysis the region's state, or note why it is not."""
    return analysis.commit(services, place, plan, found)


def followed(key: str, label: str) -> Track:
    """Shows how the tasks of a run stand as its progress artifact; to be given to `Tasks`."""
    show = progress(key, label)

    def track(standing: Mapping[str, Any]) -> None:
        show((standing["done"] + standing["reused"]) / max(standing["total"], 1), f"{label}: {sentence(standing)}")

    return track


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
