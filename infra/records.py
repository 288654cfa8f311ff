"""A small SQLite file that several processes share: durable, recognised by its header, one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twin.errors import SettingsError, Transient

_BUSY = 30.0  # s to wait for another process's transaction; each takes milliseconds


class _Held:
    """Closes a connection with the thread, or the owner, that opened it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()


class Records:
    """The file at `path`, made with `schema` if nothing is there; one connection per thread, opened at first use.

    what         for messages
    application  32-bit number in the file's header that tells it from any other SQLite file
    version      of the layout; another one is refused, never guessed at
    Commits are on disk when they return (WAL, synchronous=FULL). SettingsError for a file that is not ours.
    """

    def __init__(self, path: Path, what: str, application: int, version: int, schema: str) -> None:
        self.path, self.what, self.application, self.version, self.schema = path, what, application, version, schema
        self._local = threading.local()
        with self.reading():
            pass

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from."""
        with self._errors():
            yield self._connection()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that takes the write lock first: all of it, or nothing."""
        with self._errors():
            db = self._connection()
            db.execute("begin immediate")
            try:
                yield db
            except BaseException:
                db.execute("rollback")
                raise
            db.execute("commit")

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "held", None) is None:
            self._local.held = _Held(self._open())
        return self._local.held.db

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.OperationalError) as err:
            raise SettingsError(self.what, expected="a file to write", found=str(err), where=str(self.path)) from err
        try:
            db.execute("pragma synchronous = full")
            db.execute("pragma journal_mode = wal")
            db.execute("begin immediate")  # two processes may both find the file new
            self._recognise(db)
            db.execute("commit")
        except BaseException:
            db.close()
            raise
        return db

    def _recognise(self, db: sqlite3.Connection) -> None:
        """Accept our file or make it of an empty one."""
        found = tuple(db.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if found == (self.application, self.version):
            return
        if found != (0, 0) or db.execute("select count(*) from sqlite_master").fetchone() != (0,):
            theirs = f"version {found[1]}" if found[0] == self.application else "another program's file"
            raise SettingsError(self.what, expected=f"version {self.version}", found=theirs, where=str(self.path))
        for statement in filter(str.strip, self.schema.split(";")):
            db.execute(statement)
        db.execute(f"pragma application_id = {self.application}")
        db.execute(f"pragma user_version = {self.version}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as err:  # locked, disk full, ...
            raise Transient(self.what, found=str(err), where=str(self.path)) from err
        except sqlite3.DatabaseError as err:
            raise SettingsError(self.what, expected="an intact file", found=str(err), where=str(self.path)) from err
