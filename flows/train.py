"""The train flow: one run per emulator that is due, or per shadow whose time has come, beside the analyses.

Runs share their process with the analyses, one at a time, so that no arrival waits for one. A run that dies is started
again and finds the results of its tasks; the key of its plan makes one trigger one run.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.assimilate import followed
from flows.update import announce, publish
from infra import training
from infra.settings import Region, Settings, region
from infra.wiring import Services, build


@flow(name="train", flow_run_name="{region_name} · {label}", log_prints=False)
def train(region_name: str, label: str = "") -> dict[str, Any]:
    """Train the emulator, or judge the one in the shadow, if that still is due, and tell the world; what came of it."""
    started, log = time.perf_counter(), get_run_logger()
    services, place = build(Settings()), region(region_name)
    plan = training.due(services, place)
    if plan is None:
        log.info("%s: nothing is due any more", region_name)
        return {"outcome": None}
    result = carry_out(services, place, plan)
    snapshot = commit(services, place, plan, result)
    log.info("%s: %s", region_name, training.sentence(plan, result))
    return {
        "outcome": result.outcome,
        "version": result.version,
        "snapshot": snapshot,
        "published": publish(services, place),
        "events": announce(services, place),
        "seconds": round(time.perf_counter() - started, 2),
    }


@task(cache_policy=NO_CACHE)
def carry_out(services: Services, place: Region, plan: training.Plan) -> training.Result:
    """Run the ensemble, fit and score; progress by tasks goes to an artifact of the run."""
    return training.train(services, place, plan, followed(f"{place.name}-training", plan.span))


@task(cache_policy=NO_CACHE)
def commit(services: Services, place: Region, plan: training.Plan, result: training.Result) -> str | None:
    """Let the emulator in, or note why it stays out."""
    return training.commit(services, place, plan, result)
