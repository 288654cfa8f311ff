"""STAC documents in one SQLite file: transactions, search, keyset paging, and a change sequence without gaps.

    put ──BEGIN IMMEDIATE──▸ items + boxes + changes ──COMMIT (fsync)──▸ acknowledged
                                      search ◂── filter as SQL, page by page, documents as stored text

Documents are kept as JSON text and handed out unparsed. Links a server infers (self, root, parent, collection, items)
are not kept; their places, and links that begin with `collections/`, carry a mark that becomes the server's address.
"""

from __future__ import annotations

import base64
import json
import queue
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stac import cql
from stac.cql import QueryError, Sql

INFERRED = {"self", "root", "parent", "collection", "items", "item"}
MARK = "§"  # documents are stored as ASCII, so this can only be ours
PAGE_BYTES = 16 * 2**20  # a page ends early rather than grow beyond this
COUNT_LIMIT = 10_000  # larger results are not counted

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections(id TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL REFERENCES collections(id), id TEXT NOT NULL,
    datetime TEXT NOT NULL, dt_start TEXT NOT NULL, dt_end TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
    geometry TEXT, doc TEXT NOT NULL,
    UNIQUE(collection, id));
CREATE INDEX IF NOT EXISTS by_datetime ON items(datetime, collection, id);
CREATE INDEX IF NOT EXISTS by_collection ON items(collection, datetime, id);
CREATE INDEX IF NOT EXISTS by_start ON items(dt_start);
CREATE INDEX IF NOT EXISTS by_updated ON items(updated, collection, id);
CREATE INDEX IF NOT EXISTS by_created ON items(created, collection, id);
CREATE INDEX IF NOT EXISTS by_id ON items(id);
CREATE VIRTUAL TABLE IF NOT EXISTS boxes USING rtree(part, west, east, south, north, +item INTEGER);
CREATE TABLE IF NOT EXISTS changes(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    op TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, at TEXT NOT NULL);
"""


_STAMPS = (
    "json_extract(doc, '$.properties.created'), json_extract(doc, '$.properties.updated')"  # as the client sent them
)


class Missing(LookupError):
    """There is no such document."""


class Exists(ValueError):
    """There is such a document already, or something still needs it."""


@dataclass(frozen=True)
class Query:
    """One search. `where` are conditions that all hold; `order` is (property, descending) from the most important."""

    where: tuple[Sql, ...] = ()
    order: tuple[tuple[str, bool], ...] = (("datetime", True),)
    limit: int = 10
    token: str = ""


@dataclass(frozen=True)
class Page:
    """Documents as JSON text, the token of the next page ('' on the last), how many match (None where not counted)."""

    documents: list[str] = field(default_factory=list)
    token: str = ""
    matched: int | None = None


def conditions(
    collections: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Mapping[str, Any] | None = None,
    datetime: str | None = None,
    filter: Any = None,
) -> tuple[Sql, ...]:
    """The parameters of a STAC item search as SQL; raises QueryError."""
    if bbox is not None and intersects is not None:
        raise QueryError("search: expected bbox or intersects, found both")
    where: list[Sql] = []
    for column, values in (("collection", collections), ("id", ids)):
        if values:
            where.append((f"items.{column} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))]))
    if bbox is not None:
        half = len(bbox) // 2
        if len(bbox) not in (4, 6):
            raise QueryError(f"bbox: expected 4 or 6 numbers, found {len(bbox)}")
        where.append(cql.box(bbox[0], bbox[1], bbox[half], bbox[half + 1]))
    if intersects is not None:
        where.append(cql.intersects(intersects))
    if datetime:
        where.append(_during(datetime))
    if filter is not None:
        where.append(cql.to_sql(filter))
    return tuple(where)


def _during(text: str) -> Sql:
    """Items whose time shares a moment with a time or an interval `start/end`, open where '..' or empty."""
    start, slash, end = text.partition("/")
    first = cql.FIRST if slash and start in ("", "..") else cql.instant(start)
    last = first if not slash else cql.LAST if end in ("", "..") else cql.instant(end)
    if slash and start in ("", "..") and end in ("", ".."):
        raise QueryError("datetime: expected at least one end, found an interval open at both")
    if first > last:
        raise QueryError(f"datetime: expected a start before the end, found {text}")
    return "(items.dt_start <= ? AND items.dt_end >= ?)", [last, first]


def sorting(sortby: Sequence[str | Mapping[str, str]] | str | None) -> tuple[tuple[str, bool], ...]:
    """`+updated,-id`, ['-updated'] or [{'field': ..., 'direction': 'desc'}] as (property, descending) pairs."""
    if not sortby:
        return Query.order
    terms = sortby.split(",") if isinstance(sortby, str) else sortby
    order = []
    for term in terms:
        if isinstance(term, Mapping):
            name, descending = term["field"], str(term.get("direction", "asc")) == "desc"
        else:
            text = term.strip()
            name, descending = text.lstrip("+-").strip(), text.startswith("-")
        cql.sort_term(name)
        order.append((name, descending))
    return tuple(order)


class Index:
    """The documents of one file, safe for several threads and processes; ':memory:' keeps them here."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._free: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._writing = threading.RLock()
        self._memory = self._connect() if self.path == ":memory:" else None
        if self._memory is None:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with self._write() as db:
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    db.execute(statement)

    def close(self) -> None:
        """Close every connection."""
        while not self._free.empty():
            self._free.get_nowait().close()
        if self._memory is not None:
            self._memory.close()

    # ------------------------------------------------------------------------------------------------------ reading
    def collections(self) -> list[str]:
        """All collections as JSON text, by id."""
        with self._read() as db:
            return [doc for (doc,) in db.execute("SELECT doc FROM collections ORDER BY id")]

    def collection(self, id: str) -> str:
        """One collection as JSON text; raises Missing."""
        with self._read() as db:
            return _one(db, "SELECT doc FROM collections WHERE id = ?", [id], f"collection {id}")

    def item(self, collection: str, id: str) -> str:
        """One item as JSON text; raises Missing."""
        with self._read() as db:
            return _one(
                db, "SELECT doc FROM items WHERE collection = ? AND id = ?", [collection, id], f"item {collection}/{id}"
            )

    def search(self, query: Query) -> Page:
        """One page of items; paging by the tokens neither repeats nor misses an item that stays as it is."""
        order = _total(query.order)
        terms = [cql.sort_term(name) for name, _ in order]
        where = [sql for sql, _ in query.where]
        values = [value for _, bound in query.where for value in bound]
        counted = (" AND ".join(where) or "1", list(values))
        if query.token:
            after, bound = _after(order, terms, _unpack(query.token, len(order)))
            where.append(after)
            values += bound
        columns = ", ".join(sql for sql, _ in terms)
        sort = ", ".join(f"{sql} {'DESC' if down else 'ASC'}" for (sql, _), (_, down) in zip(terms, order, strict=True))
        bound = [value for _, used in terms for value in used]
        text = f"SELECT items.doc, {columns} FROM items WHERE {' AND '.join(where) or '1'} ORDER BY {sort} LIMIT ?"
        documents: list[str] = []
        token, size, last = "", 0, ()
        with self._read() as db:
            try:
                for row in db.execute(text, [*bound, *values, *bound, query.limit + 1]):
                    if len(documents) == query.limit or (size + len(row[0]) > PAGE_BYTES and documents):
                        token = _pack(last)
                        break
                    documents.append(row[0])
                    size, last = size + len(row[0]), row[1:]
                matched = None if query.token else _count(db, *counted)
            except (sqlite3.OperationalError, OverflowError) as err:
                if isinstance(err, OverflowError) or "too" in str(err):
                    raise QueryError(f"search: expected a simpler query, found {err}") from err
                raise
        return Page(documents, token, matched)

    def changes(self, since: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Changes after `since` in the order they were committed: seq without gaps, op, collection, id, at."""
        with self._read() as db:
            rows = db.execute(
                "SELECT seq, op, collection, id, at FROM changes WHERE seq > ? ORDER BY seq LIMIT ?", [since, limit]
            )
            return [dict(zip(("seq", "op", "collection", "id", "at"), row, strict=True)) for row in rows]

    # ------------------------------------------------------------------------------------------------------ writing
    def put_collection(self, document: Mapping[str, Any], *, create: bool = False, replace: bool = False) -> bool:
        """Create or replace a collection; whether anything changed. Raises Exists, Missing where one was ruled out."""
        id = _identifier(document, "collection")
        text = _text(document, f"collections/{quote(id, safe='')}")
        with self._write() as db:
            old = db.execute("SELECT doc FROM collections WHERE id = ?", [id]).fetchone()
            _allow(old is not None, create, replace, f"collection {id}")
            if old == (text,):
                return False
            db.execute(
                "INSERT INTO collections VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET doc = excluded.doc", [id, text]
            )
            _note(db, "update" if old else "insert", id, "")
        return True

    def put_items(
        self, collection: str, documents: Sequence[Mapping[str, Any]], *, create: bool = False, replace: bool = False
    ) -> int:
        """Create or replace items of one collection, all or none; how many changed. Raises Missing, Exists,
        QueryError.
        """
        changed = 0
        with self._write() as db:
            _one(db, "SELECT id FROM collections WHERE id = ?", [collection], f"collection {collection}")
            for document in documents:
                changed += self._put_item(db, collection, document, create, replace)
        return changed

    def _put_item(
        self, db: sqlite3.Connection, collection: str, document: Mapping[str, Any], create: bool, replace: bool
    ) -> bool:
        id = _identifier(document, "item")
        if document.get("collection", collection) != collection:
            raise QueryError(f"item {id}: expected collection {collection!r}, found {document['collection']!r}")
        old = db.execute(
            f"SELECT key, {_STAMPS}, doc FROM items WHERE collection = ? AND id = ?", [collection, id]
        ).fetchone()
        _allow(old is not None, create, replace, f"item {collection}/{id}")
        properties = document.get("properties") or {}
        if old and not (properties.get("created") and properties.get("updated")):
            kept = _text(_filled({**document, "collection": collection}, old[1], old[2]), _item_path(collection, id))
            if kept == old[3]:
                return False
        document = _filled({**document, "collection": collection}, old[1] if old else None, None)
        text = _text(document, _item_path(collection, id))
        if old and old[3] == text:
            return False
        stamps = [cql.instant(document["properties"][name]) for name in ("created", "updated")]
        geometry = document.get("geometry")
        shape = json.dumps(geometry, sort_keys=True) if geometry else None
        row = (*_times(document), *stamps, shape, text)
        boxes = _boxes(document)
        if old:
            key = old[0]
            columns = "datetime=?, dt_start=?, dt_end=?, created=?, updated=?, geometry=?, doc=?"
            db.execute(f"UPDATE items SET {columns} WHERE key=?", [*row, key])
            db.execute("DELETE FROM boxes WHERE part IN (?, ?)", [2 * key, 2 * key + 1])
        else:
            key = db.execute(
                f"INSERT INTO items VALUES(NULL, ?, ?{', ?' * len(row)})", [collection, id, *row]
            ).lastrowid
        for part, (west, south, east, north) in enumerate(boxes):
            db.execute("INSERT INTO boxes VALUES(?, ?, ?, ?, ?, ?)", [2 * key + part, west, east, south, north, key])
        _note(db, "update" if old else "insert", collection, id)
        return True

    def delete_item(self, collection: str, id: str) -> str:
        """Delete an item and return it; raises Missing."""
        with self._write() as db:
            row = db.execute("SELECT key, doc FROM items WHERE collection = ? AND id = ?", [collection, id]).fetchone()
            if row is None:
                raise Missing(f"item {collection}/{id}: not found")
            db.execute("DELETE FROM boxes WHERE part IN (?, ?)", [2 * row[0], 2 * row[0] + 1])
            db.execute("DELETE FROM items WHERE key = ?", [row[0]])
            _note(db, "delete", collection, id)
            return row[1]

    def delete_collection(self, id: str) -> str:
        """Delete an empty collection and return it; raises Missing, or Exists while it holds items."""
        with self._write() as db:
            text = _one(db, "SELECT doc FROM collections WHERE id = ?", [id], f"collection {id}")
            if db.execute("SELECT 1 FROM items WHERE collection = ? LIMIT 1", [id]).fetchone():
                raise Exists(f"collection {id}: expected no items, found some; delete them first")
            db.execute("DELETE FROM collections WHERE id = ?", [id])
            _note(db, "delete", id, "")
            return text

    # -------------------------------------------------------------------------------------------------- connections
    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30.0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        for name, (arguments, function) in cql.functions().items():
            db.create_function(name, arguments, function, deterministic=True)
        return db

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if self._memory is not None:
            with self._writing:
                yield self._memory
            return
        try:
            db = self._free.get_nowait()
        except queue.Empty:
            db = self._connect()
        try:
            yield db
        finally:
            self._free.put(db)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start, so change numbers follow the order of commits."""
        with self._writing, self._read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


# ---------------------------------------------------------------------------------------------------------- documents
def _identifier(document: Mapping[str, Any], kind: str) -> str:
    id = document.get("id")
    if not isinstance(id, str) or not id or "/" in id:
        raise QueryError(f"{kind}: expected an id without '/', found {id!r}")
    return id


def _item_path(collection: str, id: str) -> str:
    return f"collections/{quote(collection, safe='')}/items/{quote(id, safe='')}"


def _text(document: Mapping[str, Any], path: str) -> str:
    """A document as the text that is stored: own links kept as sent, inferred links behind a mark."""
    kept = [link for link in document.get("links") or () if link.get("rel") not in INFERRED]
    try:
        rest = {name: value for name, value in document.items() if name != "links"}
        bare = json.dumps(rest, separators=(",", ":"), allow_nan=False)
        links = ",".join([*_inferred(path), *(_link(link) for link in kept)])
    except ValueError as err:
        raise QueryError(f"{document.get('id')}: expected finite numbers, found {err}") from err
    return f'{bare[:-1]},"links":[{links}]}}'


def _inferred(path: str) -> list[str]:
    parent, kind = (
        (path.rpartition("/items/")[0], "application/geo+json") if "/items/" in path else ("", "application/json")
    )
    links = [("self", path, kind), ("root", "", "application/json"), ("parent", parent, "application/json")]
    links.append(
        ("collection", parent, "application/json") if parent else ("items", f"{path}/items", "application/geo+json")
    )
    return [f'{{"rel":"{rel}","href":"{MARK}{href}","type":"{media}"}}' for rel, href, media in links]


def _link(link: Mapping[str, Any]) -> str:
    text = json.dumps(link, separators=(",", ":"), allow_nan=False)
    return text.replace('"href":"collections/', f'"href":"{MARK}collections/', 1)


def address(text: str, base: str) -> str:
    """A stored document as a server at `base` (ending in '/') gives it out."""
    return text.replace(MARK, base)


def _filled(document: dict[str, Any], created: str | None, updated: str | None) -> dict[str, Any]:
    """The document with `created` and `updated` where the client gave none: those it had, or the present moment."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    properties = dict(document.get("properties") or {})
    for name, value in (("created", created), ("updated", updated)):
        if not properties.get(name):
            properties[name] = value or now
    return {**document, "properties": properties}


def _times(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """The item's moment, start and end; raises QueryError where it has no time."""
    properties = document["properties"]
    moment, start, end = (properties.get(name) for name in ("datetime", "start_datetime", "end_datetime"))
    if start and end:
        first, last = cql.instant(start), cql.instant(end)
        return cql.instant(moment) if moment else first, first, last
    if not moment:
        raise QueryError(
            f"item {document['id']}: expected a datetime, or start_datetime and end_datetime, found neither"
        )
    return (cql.instant(moment),) * 3


def _boxes(document: Mapping[str, Any]) -> list[tuple[float, float, float, float]]:
    """West, south, east, north of the item's geometry; nothing where it has none."""
    geometry = document.get("geometry")
    return [cql.bounds(geometry)] if geometry else []


def _allow(there: bool, create: bool, replace: bool, what: str) -> None:
    if there and create:
        raise Exists(f"{what}: expected a new id, found one that exists")
    if not there and replace:
        raise Missing(f"{what}: not found")


def _note(db: sqlite3.Connection, op: str, collection: str, id: str) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    db.execute("INSERT INTO changes(op, collection, id, at) VALUES(?, ?, ?, ?)", [op, collection, id, at])


def _one(db: sqlite3.Connection, sql: str, values: list[Any], what: str) -> str:
    row = db.execute(sql, values).fetchone()
    if row is None:
        raise Missing(f"{what}: not found")
    return row[0]


def _count(db: sqlite3.Connection, where: str, values: list[Any]) -> int | None:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM items WHERE {where} LIMIT {COUNT_LIMIT + 1})"
    (count,) = db.execute(sql, values).fetchone()
    return count if count <= COUNT_LIMIT else None


# -------------------------------------------------------------------------------------------------------------- pages
def _total(order: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The order completed by collection and id, so that no two items tie."""
    named = {name for name, _ in order}
    down = order[-1][1]
    return [*order, *((name, down) for name in ("collection", "id") if name not in named)]


def _after(order: Sequence[tuple[str, bool]], terms: Sequence[Sql], last: list[Any]) -> Sql:
    """Items behind the last one of a page: a row comparison where all terms run one way, else term by term.

    (a, b) > (x, y)   or   a > x  OR  (a = x AND b < y)
    """
    if len({down for _, down in order}) == 1:
        names, marks = ", ".join(sql for sql, _ in terms), ", ".join("?" * len(terms))
        return f"({names}) {'<' if order[0][1] else '>'} ({marks})", [v for _, used in terms for v in used] + last
    ways, values = [], []
    for depth, (sql, used) in enumerate(terms):
        same = [f"{s} = ?" for s, _ in terms[:depth]]
        for (_, earlier), value in zip(terms[:depth], last, strict=False):
            values += [*earlier, value]
        ways.append(" AND ".join([*same, f"{sql} {'<' if order[depth][1] else '>'} ?"]))
        values += [*used, last[depth]]
    return "(" + " OR ".join(f"({way})" for way in ways) + ")", values


def _pack(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(values)).encode()).decode().rstrip("=")


def _unpack(token: str, count: int) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError as err:
        raise QueryError("token: expected one that came with a page, found another text") from err
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(isinstance(v, (str, int, float)) for v in values)
    ):
        raise QueryError(f"token: expected {count} values, found {str(values)[:80]}")
    return values
