"""Watching sources: what is new goes to `update`, once, whatever is repeated.

    source ──poll──▸ arrivals (outbox) ──dispatch──▸ update run ──▸ store
                        ▲                                 │
                        └── not in the store: again ◂─────┘

A run that fails may have died of one of its items: each travels alone from its third attempt and is set aside after the
fourth. A run that ends well and leaves items found them waiting for something else; they cost nothing but time.
The store remembers what was taken; the outbox only bridges the moment between noticing and committing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Protocol

from prefect import flow

from infra import verbs
from infra.arrivals import Arrivals, Entry, Sent
from infra.settings import Region, Settings, region
from infra.wiring import Services, build, outbox
from stac.watch import Watcher
from twin.errors import Rejected, SettingsError, Transient

log = logging.getLogger("twin.watch")
ALONE_AFTER, ASIDE_AFTER = 2, 4  # failed runs after which an item travels alone, and is set aside
PATIENCE = 60  # seconds in which a batch that waits for something else is not run again


class Runs(Protocol):
    """Where update runs are started; Prefect in the service."""

    def start(self, region: str, arrivals: Sequence[Mapping[str, Any]], key: str) -> str:
        """Start one update run, or find the one already started under this key; its id."""
        ...

    def ended(self, run: str) -> bool | None:
        """Whether the run ended well; None while it is under way."""
        ...


def poll(services: Services, place: Region, watchers: Iterable[Watcher], arrivals: Arrivals) -> int:
    """Ask every source what is new and remember it; how many items were not known yet."""
    view, new = services.store.at(), 0
    ledger = view.ledger(place.name) if place.name in view.regions() else {}
    for watcher in watchers:
        found: list[dict[str, Any]] = []
        try:
            for arrival in verbs.look(watcher):
                found.append(arrival)
        except (Transient, SettingsError) as reason:
            log.warning("asked again at the next poll: %s", reason)
        # Also what came before the source went away: its watcher will not give it a second time.
        new += arrivals.remember(place.name, [arrival for arrival in found if arrival["key"] not in ledger])
    return new


def dispatch(
    services: Services,
    place: Region,
    arrivals: Arrivals,
    runs: Runs,
    limit: int,
    now: Callable[[], datetime] = verbs.now,
) -> str | None:
    """Settle what was under way; when nothing is, start a run for what has gathered. The run under way, if any.

    A batch whose run has ended already is one that waits: the next batch goes first.
    """
    for sent in arrivals.in_flight(place.name):
        well = runs.ended(sent.run)
        if well is None:
            return sent.run
        settle(services, place, arrivals, sent, well)
    turn = int(now().timestamp() // PATIENCE)
    for batch in batches(arrivals.waiting(place.name, limit)):
        keys, attempt = [entry.arrival["key"] for entry in batch], min(batch[0].attempt, ASIDE_AFTER)
        run = runs.start(place.name, [entry.arrival for entry in batch], f"{batch_key(keys)}-{attempt}-{turn}")
        arrivals.sent(place.name, keys, run)
        if runs.ended(run) is None:
            return run
    return None


def batches(waiting: Iterable[Entry]) -> Iterator[list[Entry]]:
    """What travels together: arrivals with as many failed attempts, from ALONE_AFTER on each by itself."""
    for attempt, group in groupby(waiting, key=lambda entry: entry.attempt):
        entries = list(group)
        yield from [[entry] for entry in entries] if attempt >= ALONE_AFTER else [entries]


def settle(services: Services, place: Region, arrivals: Arrivals, sent: Sent, well: bool) -> None:
    """After a run: forget what the store has, offer the rest again, set aside what runs keep failing with."""
    view = services.store.at()
    ledger = view.ledger(place.name)
    left = [entry for entry in sent.entries if entry.arrival["key"] not in ledger]
    # A region that is not there yet has no journal to say why in: what it was offered waits until it is.
    final = not well and view.has(place.name, "grid")
    worn = [entry.arrival for entry in left if final and entry.attempt + 1 >= ASIDE_AFTER]
    if worn:
        reason = Rejected("update run", expected="to end well", found=f"{ASIDE_AFTER} runs that did not")
        verbs.set_aside(services, place, worn, reason)
    gone = {entry.arrival["key"] for entry in sent.entries} - {entry.arrival["key"] for entry in left}
    arrivals.forget(place.name, gone | {arrival["key"] for arrival in worn})
    arrivals.release(place.name, sent.run, failed=not well)


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
