"""The scenario flow: one run per request, beside the analyses, whoever asks: a person, the portal, another service.

What is asked for is in words, as the command has them; asked twice it is one run of the twin. A run that dies is
started again and goes on after its last whole decade.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.progress import progress
from infra import projections
from infra.projections import Request, Words
from infra.settings import Settings, region
from infra.wiring import Services, build


@flow(name="scenario", flow_run_name="{region_name} · {label}", log_prints=False)
def scenario(region_name: str, words: dict[str, Any] | None = None, label: str = "") -> dict[str, Any]:
    """Run a scenario, publish and announce it; its summary without the decades, which are an artifact of the run."""
    started, log = time.perf_counter(), get_run_logger()
    services, place = build(Settings()), region(region_name)
    asked = projections.request(services, place, Words.of(words or {}))
    done = project(services, asked)
    log.info("%s: %s", region_name, projections.sentence(done))
    create_table_artifact(
        projections.table(done), key=f"{region_name}-scenario", description=projections.sentence(done)
    )
    return {
        "key": done["key"],
        "label": done["label"],
        "snapshot": done["snapshot"],
        "published": publish(services, asked, done),
        "events": announce(services, asked, done),
        "seconds": round(time.perf_counter() - started, 2),
    }


@task(cache_policy=NO_CACHE)
def project(services: Services, asked: Request) -> dict[str, Any]:
    """Run what is not there yet; progress by days goes to an artifact of the run."""
    show = progress(f"{asked.region.name}-projection", asked.label)
    return projections.project(services, asked, lambda days, whole: show(days / whole, asked.label))


@task(cache_policy=NO_CACHE)
def publish(services: Services, asked: Request, done: dict[str, Any]) -> bool:
    """Publish the item of the run."""
    return projections.publish(services, asked, done)


@task(cache_policy=NO_CACHE)
def announce(services: Services, asked: Request, done: dict[str, Any]) -> bool:
    """Put the event of the run on the bus."""
    return projections.announce(services, asked, done)
