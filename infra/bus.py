"""The event bus seam: facts go out once, in order, and every consumer keeps its own place.

CloudEvents 1.0; the embedded bus is a durable log in SQLite (`bus_log`), the platform's is Kafka (`bus_kafka`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """A CloudEvent: a fact in the past tense. Its id is derived from its content, so a repeat is recognised.

    `key` orders (the `partitionkey` extension: events of one region keep their order); `position` is the bus's own
    and 0 until published.
    """

    id: str
    type: str
    source: str
    subject: str
    time: str
    data: dict[str, Any]
    key: str
    dataschema: str = ""
    position: int = 0


class EventBus(Protocol):
    """Publish, poll, acknowledge."""

    def publish(self, events: Iterable[Event]) -> int:
        """Append the events not on the bus yet, durably before returning; how many were new."""
        ...

    def poll(self, consumer: str, limit: int = 100, timeout: float = 0.0) -> Sequence[Event]:
        """The next events after what `consumer` acknowledged, oldest first; waits up to `timeout` seconds for one."""
        ...

    def ack(self, consumer: str, position: int) -> None:
        """`consumer` is done with everything up to `position`; never moves back."""
        ...
