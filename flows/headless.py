"""Catching up without a server: the same verbs as the update flow, in one process, with progress on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from infra import analysis, registry, telemetry, training, verbs
from infra.settings import Region, Settings
from infra.tasks import shown
from infra.verbs import Tally
from infra.wiring import Services, build, embedded_catalog
from stac.watch import Watcher
from twin.errors import SettingsError


def catch_up(settings: Settings, place: Region, sources: Sequence[str], once: bool) -> dict[str, Any]:
    """Bring the twin up to date with all sources; keeps polling unless `once`. The counts and seconds by step."""
    tally = Tally()
    with embedded_catalog(settings) as settings:
        services = build(settings)
        watchers = [Watcher(source) for source in sources]
        while True:
            with _timed(tally, "watch"):
                found = [arrival for watcher in watchers for arrival in verbs.look(watcher)]
            tally.seen += len(found)
            advance(services, place, found, settings.watch.batch, tally)
            analyse(services, place, tally)
            learn(services, place, tally)
            if once:
                view = services.store.at()
                waits = verbs.waits_for(view, place) if place.name in view.regions() else None
                return {**asdict(tally), "waits_for": waits}
            time.sleep(settings.watch.poll_seconds)


def advance(services: Services, place: Region, found: Sequence[Mapping[str, Any]], size: int, tally: Tally) -> None:
    """Take arrivals into the twin, batch by batch in order of time, and tell what was committed but not told before."""
    with _timed(tally, "prepare"):
        there = verbs.prepare(services, place, found)
    if not there:
        tally.waiting += len(found)
        return
    ledger = services.store.at().ledger(place.name)
    fresh = sorted((a for a in found if a["key"] not in ledger), key=lambda a: (a["datetime"], a["key"]))
    batches = [fresh[start : start + size] for start in range(0, len(fresh), size)]
    reading = partial(telemetry.progress, label=f"{place.name}: reading items") if fresh else iter
    for batch in batches or [[]]:
        with _timed(tally, "ingest"):
            read = verbs.ingest(services, place, batch, track=reading)
        tally.waiting += len(read.waiting)
        inside = sum(tally.seconds.get(step, 0.0) for step in ("refresh", "assess"))
        with _timed(tally, "commit"):
            done = verbs.commit(services, place, read, _timing(tally, "refresh"), _timing(tally, "assess"))
        inside = sum(tally.seconds.get(step, 0.0) for step in ("refresh", "assess")) - inside
        tally.seconds["commit"] = round(tally.seconds["commit"] - inside, 3)
        if done:
            tally.commits += 1
            tally.ingested += len(read.granules)
            tally.quarantined += len(read.refused)
        _tell(services, place, tally)


def analyse(services: Services, place: Region, tally: Tally) -> None:
    """Assimilate the newest window, if it is due, and tell what came of it."""
    plan = analysis.due(services.store.at(), place, services.settings)
    if plan is None:
        return
    with _timed(tally, "assimilate"), shown(f"{place.name}: assimilating {plan.span}") as track:
        found = analysis.assimilate(services, place, plan, track)
    with _timed(tally, "commit"):
        done = analysis.commit(services, place, plan, found)
    tally.commits += done is not None
    tally.analyses += analysis.accepted(found)
    tally.analysed = analysis.sentence(plan, found)
    _tell(services, place, tally)


def learn(services: Services, place: Region, tally: Tally, force: bool = False) -> None:
    """Train the emulator, or judge the one in the shadow, if that is due, and tell what came of it."""
    plan = training.due(services, place, force)
    if plan is None:
        return
    with _timed(tally, "train"), shown(f"{place.name}: training {plan.span}") as track:
        result = training.train(services, place, plan, track)
    with _timed(tally, "commit"):
        done = training.commit(services, place, plan, result)
    tally.commits += done is not None
    tally.emulators += result.outcome == registry.PROMOTED
    tally.trained = training.sentence(plan, result)
    _tell(services, place, tally)


def _tell(services: Services, place: Region, tally: Tally) -> None:
    with _timed(tally, "publish"):
        tally.published += verbs.publish(services, place)
    with _timed(tally, "announce"):
        tally.events += verbs.announce(services, place)


def train(settings: Settings, place: Region, force: bool) -> dict[str, Any]:
    """Train the emulator because somebody asks for it, with `force` although nothing else does."""
    tally, asked = Tally(), settings.training.model_copy(update={"enabled": True})
    with embedded_catalog(settings.model_copy(update={"training": asked})) as settings:
        learn(build(settings), place, tally, force)
    return asdict(tally)


def roll_back(settings: Settings, place: Region) -> None:
    """Use the emulator before the present one again, and tell the world."""
    with embedded_catalog(settings) as settings:
        services = build(settings)
        training.roll_back(services, place)
        _tell(services, place, Tally())


def retry(settings: Settings, place: Region, keys: Sequence[str]) -> dict[str, Any]:
    """Offer quarantined items again, all of them when no key is given."""
    with embedded_catalog(settings) as settings:
        services = build(settings)
        ledger = services.store.at().ledger(place.name)
        aside = {key: record for key, record in ledger.items() if record["status"] == "quarantined"}
        unknown = [key for key in keys if key not in aside]
        if unknown:
            raise SettingsError(
                "quarantine", expected="keys that `twin quarantine list` shows", found=", ".join(unknown)
            )
        chosen = [aside[key] for key in (keys or aside)]
        tally = Tally(seen=len(chosen))
        if chosen:
            verbs.reconsider(services, place, [record["key"] for record in chosen])
            advance(services, place, chosen, settings.watch.batch, tally)
        return asdict(tally)


def sentence(place: Region, tally: Mapping[str, Any]) -> str:
    """What was done, in words."""
    waits = f" Later days wait for the forcing of {tally['waits_for']}." if tally.get("waits_for") else ""
    if not tally["commits"]:
        return f"{place.name}: nothing new among {tally['seen']} items; nothing was done.{waits}"
    took = f"{sum(tally['seconds'].values()):.1f} s"
    then = "".join(f" {tally[said]}" for said in ("analysed", "trained") if tally.get(said))
    return (
        f"{place.name}: {tally['ingested']} of {tally['seen']} items taken, {tally['quarantined']} set aside, "
        f"{tally['commits']} commits, {tally['published']} releases published, {tally['events']} events "
        f"in {took}.{then}"
    )


@contextmanager
def _timed(tally: Tally, step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        tally.seconds[step] = round(tally.seconds.get(step, 0.0) + time.perf_counter() - started, 3)


def _timing(tally: Tally, step: str):
    """A verb that adds its time to the tally."""
    verb = getattr(verbs, step)

    def timed(*arguments: Any) -> Any:
        with _timed(tally, step):
            return verb(*arguments)

    return timed
