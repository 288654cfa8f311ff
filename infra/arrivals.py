"""The outbox between noticing an item and committing what it changed: nothing noticed is forgotten by a crash.

    remember ─▸ waiting ──sent──▸ in flight ──forget──▸ gone: the store has it
                   ▴                  └─release: a run failed, or it must wait ─┐
                   └────────────────────────────────────────────────────────────┘

The store alone knows what was taken; losing this file means only that the sources are read from their beginning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from infra.records import Records

_SCHEMA = """
create table arrival(
    region text not null, key text not null, datetime text not null, document text not null,
    attempt integer not null default 0, run text, primary key (region, key)) without rowid;
create index arrival_run on arrival(region, run)
"""


@dataclass(frozen=True)
class Entry:
    """One remembered arrival, and how many runs have already failed to take it."""

    arrival: Mapping[str, Any]
    attempt: int


@dataclass(frozen=True)
class Sent:
    """The arrivals given to one run."""

    run: str
    entries: tuple[Entry, ...]


class Arrivals:
    """The outbox in the SQLite file at `path`, shared by processes, kept apart by region."""

    def __init__(self, path: str | Path) -> None:
        self._records = Records(Path(path), "arrivals", 0x74774172, 1, _SCHEMA)

    def remember(self, region: str, arrivals: Iterable[Mapping[str, Any]]) -> int:
        """Keep the arrivals not known yet; how many that were."""
        rows = [(region, a["key"], a.get("datetime") or "", json.dumps(a, sort_keys=True)) for a in arrivals]
        if not rows:
            return 0
        with self._records.writing() as db:
            before = db.total_changes
            db.executemany("insert or ignore into arrival(region, key, datetime, document) values (?, ?, ?, ?)", rows)
            return db.total_changes - before

    def waiting(self, region: str, limit: int = 1000) -> list[Entry]:
        """Up to `limit` arrivals given to no run, those with the fewest failed attempts first, then oldest first."""
        sql = """select document, attempt from arrival where region = ? and run is null
                 order by attempt, datetime, key limit ?"""
        with self._records.reading() as db:
            return [Entry(json.loads(document), attempt) for document, attempt in db.execute(sql, (region, limit))]

    def sent(self, region: str, keys: Iterable[str], run: str) -> None:
        """These arrivals were given to `run`."""
        with self._records.writing() as db:
            rows = [(run, region, key) for key in keys]
            db.executemany("update arrival set run = ? where region = ? and key = ?", rows)

    def in_flight(self, region: str) -> Sequence[Sent]:
        """The runs that have arrivals, and theirs."""
        sql = """select run, document, attempt from arrival where region = ? and run is not null
                 order by run, datetime, key"""
        with self._records.reading() as db:
            rows = db.execute(sql, (region,)).fetchall()
        return [
            Sent(run, tuple(Entry(json.loads(document), attempt) for _, document, attempt in group))
            for run, group in groupby(rows, key=lambda row: row[0])
        ]

    def release(self, region: str, run: str, failed: bool = True) -> None:
        """`run` has ended without them: what is left of its arrivals waits again, one attempt older if it failed."""
        with self._records.writing() as db:
            sql = "update arrival set run = null, attempt = attempt + ? where region = ? and run = ?"
            db.execute(sql, (int(failed), region, run))

    def forget(self, region: str, keys: Iterable[str]) -> None:
        """These arrivals are dealt with."""
        with self._records.writing() as db:
            db.executemany("delete from arrival where region = ? and key = ?", [(region, key) for key in keys])
