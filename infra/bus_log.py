"""The embedded event bus: an append-only log in one SQLite file, shared by any number of processes.

An event is on disk before `publish` returns, and its id is unique, so a repeat adds nothing. Positions are 1, 2, 3, ...
without a gap, given inside the transaction that appends. Consumers keep their place in the same file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.bus import Event
from infra.records import Records

_WAIT = 0.05  # s between two looks while polling: a commit of another process cannot wake us
_SCHEMA = """
create table event(
    position integer primary key, id text not null unique, type text not null, source text not null,
    subject text not null, time text not null, data text not null, key text not null, dataschema text not null);
create table consumer(name text primary key, position integer not null)
"""
_COLUMNS = "id, type, source, subject, time, data, key, dataschema, position"


class LogBus:
    """The EventBus on the SQLite file at `path`; SettingsError if that is something else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._records = Records(self.path, "event log", 0x74774275, 1, _SCHEMA)

    def publish(self, events: Iterable[Event]) -> int:
        """Append the events not on the bus yet, all or none, durably before returning; how many were new."""
        rows = [_row(event) for event in events]
        if not rows:
            return 0
        with self._records.writing() as db:
            before = last = db.execute("select coalesce(max(position), 0) from event").fetchone()[0]
            sql = f"insert or ignore into event({_COLUMNS}) values (?,?,?,?,?,?,?,?,?)"
            for row in rows:
                last += db.execute(sql, (*row, last + 1)).rowcount
        return last - before

    def poll(self, consumer: str, limit: int = 100, timeout: float = 0.0) -> Sequence[Event]:
        """The next events after what `consumer` acknowledged, oldest first; waits up to `timeout` seconds for one."""
        end = time.monotonic() + timeout
        after = "select coalesce(max(position), 0) from consumer where name = ?"
        while True:
            with self._records.reading() as db:
                sql = f"select {_COLUMNS} from event where position > ({after}) order by position limit ?"
                found = [_event(row) for row in db.execute(sql, (consumer, limit))]
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(_WAIT, left))

    def ack(self, consumer: str, position: int) -> None:
        """`consumer` is done with everything up to `position`; never moves back."""
        with self._records.writing() as db:
            db.execute(
                "insert into consumer(name, position) values (?, ?) "
                "on conflict(name) do update set position = max(position, excluded.position)",
                (consumer, position),
            )

    def latest(self, n: int = 20) -> list[Event]:
        """The last `n` events, oldest first, whatever any consumer acknowledged."""
        with self._records.reading() as db:
            rows = db.execute(f"select {_COLUMNS} from event order by position desc limit ?", (n,)).fetchall()
        return [_event(row) for row in reversed(rows)]

    def __reduce__(self):
        return LogBus, (self.path,)


def _row(event: Event) -> tuple[str, ...]:
    data = json.dumps(event.data, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return event.id, event.type, event.source, event.subject, event.time, data, event.key, event.dataschema


def _event(row: tuple) -> Event:
    id_, kind, source, subject, when, data, key, dataschema, position = row
    return Event(id_, kind, source, subject, when, json.loads(data), key, dataschema, position)
