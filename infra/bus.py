"""The event bus seam: facts go out once, in order, and every consumer keeps its own place.

CloudEvents 1.0; the embedded bus is a durable log in SQLite (`bus_log`), the platform's is Kafka (`bus_kafka`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twin.errors import SettingsError


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


def cloudevent(event: Event) -> dict[str, Any]:
    """The event as a CloudEvents 1.0 document in JSON format (structured mode), our `key` as `partitionkey`.

    `sequence` is the position in 20 digits: strings of it sort as the numbers do, as that extension wants.
    """
    optional = {"subject": event.subject, "dataschema": event.dataschema}
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": event.time,
        **{name: value for name, value in optional.items() if value},  # the format forbids empty strings
        "datacontenttype": "application/json",
        "partitionkey": event.key,
        **({"sequence": f"{event.position:020d}"} if event.position else {}),
        "data": event.data,
    }


def from_cloudevent(document: Mapping[str, Any]) -> Event:
    """The event of a CloudEvents 1.0 JSON document; SettingsError for another version of the format."""
    if document.get("specversion") != "1.0":
        raise SettingsError("event", expected="CloudEvents 1.0", found=f"specversion {document.get('specversion')!r}")
    return Event(
        id=document["id"],
        type=document["type"],
        source=document["source"],
        subject=document.get("subject", ""),
        time=document.get("time", ""),
        data=dict(document.get("data") or {}),
        key=document.get("partitionkey", ""),
        dataschema=document.get("dataschema", ""),
        position=int(document.get("sequence", 0)),
    )
