"""Watching sources: what is new goes to `update`, once, whatever is repeated.

    source ──poll──▸ arrivals (outbox) ──dispatch──▸ update run ──▸ store
                        ▲                                 │
                        └── not in the store after all: offered again, alone the third time, set aside the fifth ◂──┘

The store remembers what was taken; the outbox only bridges the moment between noticing and committing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prefect import flow

from infra import verbs
from infra.arrivals import Arrivals
from infra.settings import Region, Settings, region
from infra.wiring import Services, build, outbox
from stac.catalog import Refused, Unreachable
from stac.watch import Watcher
from twin.errors import Rejected, SettingsError, Transient

log = logging.getLogger("twin.watch")
ALONE_AFTER, ASIDE_AFTER = 2, 4  # failed runs after which an item travels alone, and is set aside


class Runs(Protocol):
    """Where update runs are started; Prefect in the service."""

    def start(self, region: str, arrivals: Sequence[Mapping[str, Any]], key: str) -> str:
        """Start one update run, or find the one already started under this key; its id."""
        ...

    def finished(self, run: str) -> bool:
        """Whether the run has come to an end, good or bad."""
        ...


def poll(services: Services, place: Region, watchers: Iterable[Watcher], arrivals: Arrivals) -> int:
    """Ask every source what is new and remember it; how many items were not known yet."""
    view, new = services.store.at(), 0
    ledger = view.ledger(place.name) if place.name in view.regions() else {}
    for watcher in watchers:
        try:
            new += arrivals.remember(place.name, [a for a in look(watcher) if a["key"] not in ledger])
        except (Transient, SettingsError) as reason:
            log.warning("asked again at the next poll: %s", reason)
    return new


def look(watcher: Watcher) -> Iterator[dict[str, Any]]:
    """What a source has that this watcher has not seen; Transient while it is away, SettingsError where it refuses us."""
    try:
        yield from watcher.poll(verbs.now())
    except Unreachable as err:
        raise Transient("source", expected="an answer", found=str(err), where=watcher.source) from err
    except Refused as err:
        raise SettingsError("source", expected="to be let in", found=str(err), where=watcher.source) from err


def dispatch(services: Services, place: Region, arrivals: Arrivals, runs: Runs, limit: int) -> str | None:
    """Settle the batch under way; when there is none, start a run for everything that has gathered. The run's id."""
    for batch in arrivals.in_flight(place.name):
        if not runs.finished(batch.run):
            return batch.run
        settle(services, place, arrivals, batch)
    waiting = arrivals.waiting(place.name, limit)
    if not waiting:
        return None
    batch = waiting if waiting[0].attempt < ALONE_AFTER else waiting[:1]
    batch = [entry for entry in batch if entry.attempt == batch[0].attempt]
    key = batch_key(entry.arrival["key"] for entry in batch) + f"-{batch[0].attempt}"
    run = runs.start(place.name, [entry.arrival for entry in batch], key)
    arrivals.sent(place.name, [entry.arrival["key"] for entry in batch], run)
    return run


def settle(services: Services, place: Region, arrivals: Arrivals, batch: Any) -> None:
    """After a run: forget what the store has, offer the rest again, set aside what keeps failing."""
    ledger = services.store.at().ledger(place.name)
    left = [entry for entry in batch.entries if entry.arrival["key"] not in ledger]
    worn = [entry.arrival for entry in left if entry.attempt + 1 >= ASIDE_AFTER]
    if worn:
        reason = Rejected("update run", expected="to end well", found=f"{ASIDE_AFTER} runs that did not")
        verbs.set_aside(services, place, worn, reason)
    gone = {entry.arrival["key"] for entry in batch.entries} - {entry.arrival["key"] for entry in left}
    arrivals.forget(place.name, gone | {arrival["key"] for arrival in worn})
    arrivals.release(place.name, batch.run)


def batch_key(keys: Iterable[str]) -> str:
    """The idempotency key of a batch: a digest of its item ids and versions."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:32]


@flow(name="watch", flow_run_name="{region_name}")
def watch(region_name: str, sources: list[str]) -> int:
    """The scheduled sweep: read every source from its beginning and remember what the quick polls may have missed."""
    settings = Settings()
    services, place = build(settings), region(region_name)
    watchers = [Watcher(source) for source in sources]
    return poll(services, place, watchers, outbox(settings))
