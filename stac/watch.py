"""What is new, or new again, in somebody's catalogue: static files, files on the web, or a STAC API.

    static   collections whose file changed → links not known yet → items;  known items whose file changed → again
    API      search by `updated` since the newest seen, less an overlap, to the last page; by `datetime` where items
             carry no `updated` or the API cannot filter

An arrival is an item at one version: the digest of its checksums, so an item announced twice is one arrival and an item
re-issued with other bytes is two. Delivery is at least once: who takes arrivals remembers their keys.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from pystac_client import Client
from pystac_client.exceptions import APIError

from stac.api import found as found_by
from stac.api import open_client
from stac.catalog import Refused, Unreachable
from stac.sources import data_assets, recognise

log = logging.getLogger("twin.watch")

OVERLAP = timedelta(hours=2)  # `updated` is the producer's word, not the order in which items become visible
DEEP_EVERY, DEEP = timedelta(days=1), timedelta(days=7)  # now and then an API is read again from further back
WINDOW = timedelta(days=30)  # how far back an API without `updated` is read
SWEEP_ALWAYS, SWEEP_EVERY = 5_000, timedelta(minutes=1)  # known files are looked at each poll, or each minute if many
WEB_SWEEP = 20  # known items asked again per poll where each costs a request
FRESH = 10 * 10**9  # ns before the newest change seen in which another change may have been missed
MAX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Arrival:
    """An item at one version, as plain data; `error` says why it is not a usable item, '' if it is."""

    key: str  # collection/id@version
    id: str
    collection: str
    version: str  # 16 hex digits
    updated: str  # RFC 3339, '' if the item does not say
    datetime: str  # start of validity
    source: str  # the catalogue watched
    href: str  # the item itself, absolute
    assets: dict[str, dict[str, Any]]  # href (absolute), raw (as published), type, roles, checksum, size
    bbox: list[float]
    published: str  # when the provider says this version came out, '' if it does not
    detected: str  # when we saw it
    product: str  # Product.id, '' if it is none of ours
    end: str = ""  # end of validity, '' for a moment
    error: str = ""


def arrivals(source: str, since: str | None, now: datetime, overlap: timedelta = OVERLAP) -> Iterator[Arrival]:
    """What was updated in a catalogue since, less the overlap, or does not say when; all of it without since."""
    after = None if since is None else _text(_moment(since) - overlap)
    return (Arrival(**found) for found in Watcher(source, since=after).poll(now))


class Watcher:
    """Looks at one source again and again and gives what it has not given before.

    cursor       what an earlier watcher's `cursor` was; saves reading everything again, loses nothing
    since        RFC 3339: only what was updated from then on, or does not say when
    collections  patterns (fnmatch) of the collections wanted; all when empty
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        cursor: Mapping[str, Any] | None = None,
        since: str | None = None,
        collections: Sequence[str] = (),
        timeout: float = 30.0,
    ) -> None:
        self.source = str(source)
        self.since, self.collections, self.timeout = since, tuple(collections), timeout
        self._cursor = dict(cursor or {})
        self._reader: _Static | _Api | None = None

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the next watcher may go on, JSON-able; save it only after recording what `poll` gave."""
        return self._reader.cursor if self._reader else dict(self._cursor)

    def poll(self, now: datetime) -> Iterator[dict[str, Any]]:
        """Arrivals (`Arrival` as dicts) not given before, in the catalogue's order. Raises Unreachable, Refused."""
        if self._reader is None:
            self._reader = _open(self)
        for found in self._reader.poll(now):
            unwanted = found.updated and self.since and _before(found.updated, self.since)
            if not unwanted and self._wanted(found.collection):
                yield asdict(found)

    def _wanted(self, collection: str) -> bool:
        return not self.collections or any(fnmatchcase(collection, pattern) for pattern in self.collections)


def _open(watcher: Watcher) -> _Static | _Api:
    """The reader for what is found at the source."""
    if not is_url(watcher.source):
        return _Static(_Files(watcher.source), watcher.source, watcher._cursor)
    web = _Web(watcher.source, watcher.timeout)
    try:
        root = _document(web.get(watcher.source, "")[0] or b"", watcher.source)
    except PermissionError as err:
        raise Refused(f"{watcher.source}: {err}") from err
    except (FileNotFoundError, ValueError) as err:
        raise Unreachable(f"{watcher.source}: {err}") from err
    if root.get("conformsTo"):
        return _Api(watcher, root["conformsTo"])
    return _Static(web, watcher.source, watcher._cursor)


# ------------------------------------------------------------------------------------------------------ item → arrival
def arrival(item: Mapping[str, Any], href: str, source: str, now: datetime, collection: str = "") -> Arrival:
    """An item's JSON as an arrival; whatever is wrong with it ends in `error`, nothing is raised."""
    try:
        return _arrival(item, href, source, now, collection)
    except (TypeError, ValueError, AttributeError, KeyError) as err:
        known = item.get("id") if isinstance(item, Mapping) else None
        digest = hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()
        return broken(href, source, now, str(err), digest, collection, str(known or ""))


def broken(
    href: str, source: str, now: datetime, why: str, digest: str = "", collection: str = "", id: str = ""
) -> Arrival:
    """An arrival for something that should have been an item, so that it is set aside and seen, not lost."""
    id = id or Path(urlsplit(href).path).stem or "item"
    version = (digest or hashlib.sha256(why.encode()).hexdigest())[:16]
    return Arrival(
        key=f"{collection}/{id}@{version}", id=id, collection=collection, version=version, updated="", datetime="",
        source=source, href=href, assets={}, bbox=[], published="", detected=_text(now), product="", error=why,
    )  # fmt: skip


def _arrival(item: Mapping[str, Any], href: str, source: str, now: datetime, collection: str) -> Arrival:
    if (
        not isinstance(item, Mapping)
        or item.get("type") != "Feature"
        or not isinstance(item.get("id"), str)
        or not item["id"]
    ):
        raise ValueError(f"expected a STAC item, found {_short(item)}")
    properties = item.get("properties") or {}
    if not isinstance(properties, Mapping) or not isinstance(item.get("assets") or {}, Mapping):
        raise ValueError("expected properties and assets as JSON objects, found something else")
    collection = str(item.get("collection") or collection)
    start = properties.get("start_datetime") or properties.get("datetime")
    if not start:
        raise ValueError("expected a datetime or start_datetime, found neither")
    end = properties.get("end_datetime") or ""
    for text in filter(None, (start, end)):
        _moment(text)
    assets = {str(name): _asset(asset, href) for name, asset in (item.get("assets") or {}).items()}
    if not assets:
        raise ValueError("expected an asset, found none")
    updated = str(properties.get("updated") or "")
    version = version_of(assets, updated)
    product = recognise({**item, "collection": collection})
    return Arrival(
        key=f"{collection}/{item['id']}@{version}",
        id=item["id"],
        collection=collection,
        version=version,
        updated=updated,
        datetime=str(start),
        source=source,
        href=href,
        assets=assets,
        bbox=[float(edge) for edge in item.get("bbox") or ()],
        published=updated or str(properties.get("created") or ""),
        detected=_text(now),
        product=product.id if product else "",
        end=str(end),
    )


def _asset(asset: Mapping[str, Any], base: str) -> dict[str, Any]:
    raw = asset.get("href")
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"expected assets with an href, found {_short(asset)}")
    found = {
        "href": resolve(raw, base),
        "raw": raw,
        "type": str(asset.get("type") or ""),
        "roles": list(asset.get("roles") or ()),
    }
    return {**found, "checksum": str(asset.get("file:checksum") or ""), "size": asset.get("file:size")}


def version_of(assets: Mapping[str, Mapping[str, Any]], updated: str) -> str:
    """16 hex digits that change when the data do: of the checksums, or without them of `updated` and the hrefs.

    What follows a '?' in an href is left out: signed hrefs differ each time they are asked for.
    """
    data = data_assets(assets)
    parts = [f"{name} {asset['checksum']}" for name, asset in sorted(data.items())]
    if not all(asset["checksum"] for asset in data.values()):
        parts = [updated, *(f"{name} {asset['raw'].partition('?')[0]}" for name, asset in sorted(data.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------- hrefs
def is_url(href: str) -> bool:
    """Whether an href names its scheme, other than `file`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", href) is not None and not href.startswith("file://")


def resolve(href: str, base: str) -> str:
    """An href found in the document at `base`, absolute: a URL, or a path for a document that is a local file."""
    if href.startswith("file://"):
        return os.path.normpath(unquote(urlsplit(href).path))
    if is_url(href):
        return href
    if is_url(base):
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href))


# ------------------------------------------------------------------------------------------------------ static catalogs
class _Outside(PermissionError):
    """A catalogue names a document outside itself; it is never read."""


class _Files:
    """Documents in a folder; a signature is the file's change time, size and inode."""

    def __init__(self, source: str) -> None:
        path = Path(resolve(source, "")).absolute()
        self.root = str(path / "catalog.json" if path.is_dir() else path)
        self.inside = os.path.realpath(os.path.dirname(self.root)) + os.sep
        self.workers = 1

    def get(self, href: str, known: str) -> tuple[bytes | None, str]:
        """The document and its signature; None for the document when the signature is the known one."""
        if is_url(href) or not os.path.realpath(href).startswith(self.inside):
            raise _Outside(f"expected a file below {self.inside}, found {href}")
        signature = self.signature(href)
        if signature == known:
            return None, known
        with open(href, "rb") as file:
            return file.read(MAX_BYTES), signature

    @staticmethod
    def signature(href: str) -> str:
        """What changes whenever the file does; FileNotFoundError when it is not there."""
        found = os.stat(href)
        return f"{found.st_ctime_ns} {found.st_size} {found.st_ino}"


class _Web:
    """Documents on one web server; a signature is the ETag, the modification time, or the digest of the document."""

    def __init__(self, source: str, timeout: float) -> None:
        self.root, self.timeout = source, timeout
        self.session = requests.Session()
        self.workers = 8

    def get(self, href: str, known: str) -> tuple[bytes | None, str]:
        """The document and its signature; None for the document when the server says it is the known one."""
        kind, _, tag = known.partition(" ")
        headers = {"If-None-Match": tag} if kind == "etag" else {"If-Modified-Since": tag} if kind == "time" else {}
        for _ in range(5):
            if urlsplit(href)[:2] != urlsplit(self.root)[:2]:
                raise _Outside(f"expected a document on {urlsplit(self.root).netloc}, found {href}")
            try:
                answer = self.session.get(href, headers=headers, timeout=self.timeout, allow_redirects=False)
            except requests.RequestException as err:
                raise Unreachable(f"{href}: {err}") from err
            if answer.status_code not in (301, 302, 303, 307, 308):
                break
            href = urljoin(href, answer.headers.get("Location", ""))
        if answer.status_code == 304:
            return None, known
        if answer.status_code in (404, 410):
            raise FileNotFoundError(f"{href}: {answer.status_code}")
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise Unreachable(f"{href}: {answer.status_code}")
        if not answer.ok:
            raise PermissionError(f"{href}: {answer.status_code}")
        etag, time = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        signature = (
            f"etag {etag}" if etag else f"time {time}" if time else f"sha {hashlib.sha256(answer.content).hexdigest()}"
        )
        return (None, known) if signature == known else (answer.content, signature)


@dataclass
class _Node:
    """A catalog or collection as last read."""

    signature: str = ""
    id: str = ""
    children: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)


class _Static:
    """Walks catalogs and collections, and reads only what changed."""

    def __init__(self, files: _Files | _Web, source: str, cursor: Mapping[str, Any]) -> None:
        self.files, self.source = files, source
        self._nodes: dict[str, _Node] = {}
        self._seen: dict[str, tuple[str, str]] = {}  # item href → signature, key of the arrival given
        self._told: dict[str, str] = {}  # href that could not be read → key of the arrival given
        self._marks: dict[str, list[Any]] = dict(cursor.get("nodes") or {})
        self._swept: int = cursor.get("swept") or 0
        self._next_sweep: datetime | None = None
        self._turn = 0

    @property
    def cursor(self) -> dict[str, Any]:
        """For each collection how many of its first links are known, and their digest."""
        nodes = {}
        for href, node in self._nodes.items():
            count = next((n for n, item in enumerate(node.items) if item not in self._seen), len(node.items))
            if count:
                nodes[href] = [count, _digest(node.items[:count])]
        return {"nodes": {**self._marks, **nodes}, "swept": self._swept}

    def poll(self, now: datetime) -> Iterator[Arrival]:
        """Items not given yet, then items that changed since; what cannot be read now is tried at the next poll."""
        fresh: dict[str, str] = {}
        listed: dict[str, str] = {}
        for node, trouble in self._walk(now):
            if trouble is not None:
                yield from self._tell(node, trouble)
                continue
            for href in self._nodes[node].items:
                listed[href] = self._nodes[node].id
                if href not in self._seen:
                    fresh[href] = self._nodes[node].id
        yield from self._read(fresh, now)
        again = [href for href in self._changed(listed, now) if href not in fresh]
        yield from self._read({href: listed[href] for href in again}, now)

    def _walk(self, now: datetime) -> Iterator[tuple[str, Arrival | None]]:
        """Every catalog and collection below the root; one that cannot be read comes with an arrival that says why."""
        waiting, visited = [self.files.root], set()
        while waiting:
            href = waiting.pop()
            if href in visited:
                continue
            visited.add(href)
            node = self._nodes.get(href) or _Node()
            try:
                data, signature = self.files.get(href, node.signature)
                if data is not None:
                    node = self._parsed(href, data, signature)
                    self._nodes[href] = node
            except (OSError, ValueError) as err:
                if href == self.files.root or isinstance(err, Unreachable):
                    raise err if isinstance(err, Unreachable) else Unreachable(f"{href}: {err}") from err
                yield href, broken(href, self.source, now, str(err))
                if href not in self._nodes:
                    continue
            waiting.extend(reversed(node.children))
            yield href, None

    def _parsed(self, href: str, data: bytes, signature: str) -> _Node:
        found = _document(data, href)
        if found.get("type") == "Feature":
            return _Node(signature, str(found.get("collection") or ""), [], [href])
        links = [
            link for link in found.get("links") or () if isinstance(link, Mapping) and isinstance(link.get("href"), str)
        ]
        children = [resolve(link["href"], href) for link in links if link.get("rel") == "child"]
        items = list(dict.fromkeys(resolve(link["href"], href) for link in links if link.get("rel") == "item"))
        mark = self._marks.pop(href, None)
        if mark and mark[0] <= len(items) and _digest(items[: mark[0]]) == mark[1]:
            self._seen.update(dict.fromkeys((item for item in items[: mark[0]] if item not in self._seen), ("", "")))
        return _Node(
            signature, str(found.get("id") or "") if found.get("type") == "Collection" else "", children, items
        )

    def _read(self, hrefs: Mapping[str, str], now: datetime) -> Iterator[Arrival]:
        """Read items and give those whose version is new; several at a time where each is a request."""
        away: list[str] = []
        for href, found in _mapped(lambda href: self._fetched(href), hrefs, self.files.workers):
            if isinstance(found, Unreachable):
                away.append(str(found))
            elif isinstance(found, Exception):
                yield from self._tell(href, broken(href, self.source, now, _reason(found), collection=hrefs[href]))
                if isinstance(found, _Outside):
                    self._seen[href] = ("outside", self._told[href])
            elif found[0] is not None:
                yield from self._given(href, found[0], found[1], hrefs[href], now)
        if away:
            if len(away) == len(hrefs):
                raise Unreachable(f"{len(away)} items: {away[0]}")
            log.warning(
                "%s: %d of %d items could not be read and are tried again: %s",
                self.source,
                len(away),
                len(hrefs),
                away[0],
            )

    def _fetched(self, href: str) -> tuple[bytes | None, str] | Exception:
        try:
            return self.files.get(href, self._seen.get(href, ("", ""))[0])
        except OSError as err:
            return err

    def _given(self, href: str, data: bytes, signature: str, collection: str, now: datetime) -> Iterator[Arrival]:
        try:
            found = arrival(_document(data, href), href, self.source, now, collection)
        except ValueError as err:
            found = broken(href, self.source, now, str(err), hashlib.sha256(data).hexdigest(), collection)
        before = self._seen.get(href, ("", ""))[1]
        self._seen[href] = signature, found.key
        if found.key != before:
            yield found

    def _tell(self, href: str, found: Arrival) -> Iterator[Arrival]:
        """The arrival for something that cannot be read, once."""
        if self._told.get(href) != found.key:
            self._told[href] = found.key
            yield found

    def _changed(self, listed: Iterable[str], now: datetime) -> list[str]:
        """Known items that may have changed."""
        known = [href for href in listed if self._seen.get(href, ("outside",))[0] != "outside"]
        if isinstance(self.files, _Web):
            turn, self._turn = self._turn, (self._turn + WEB_SWEEP) % max(1, len(known))
            return (known + known)[turn : turn + min(WEB_SWEEP, len(known))]
        if len(known) > SWEEP_ALWAYS and self._next_sweep is not None and now < self._next_sweep:
            return []
        self._next_sweep = now + SWEEP_EVERY
        changed, newest = [], self._swept + FRESH
        for href in known:
            try:
                signature = self.files.signature(href)
            except OSError:
                continue  # withdrawn, or being replaced: its link is still there and it is looked at again
            time, before = int(signature.partition(" ")[0]), self._seen[href]
            newest = max(newest, time)
            if not before[0] and time < self._swept:
                self._seen[href] = signature, before[1]
            elif signature != before[0]:
                changed.append(href)
        self._swept = newest - FRESH
        return changed


def _mapped(call: Callable[[str], Any], hrefs: Iterable[str], workers: int) -> Iterator[tuple[str, Any]]:
    """(href, call(href)) in order, ahead by a few where calls wait for a network."""
    hrefs = list(hrefs)
    if workers == 1 or len(hrefs) < 2:
        yield from ((href, call(href)) for href in hrefs)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(hrefs), 256):
            part = hrefs[start : start + 256]
            yield from zip(part, pool.map(call, part), strict=True)


# ---------------------------------------------------------------------------------------------------------------- APIs
class _Api:
    """Asks a STAC API for what was updated since; `by` is 'updated' or 'datetime', what it is asked by."""

    def __init__(self, watcher: Watcher, conforms: Iterable[str]) -> None:
        self.watcher, self.source = watcher, watcher.source
        conforms = list(conforms)
        can = all(any(uri.endswith(f"item-search#{what}") for uri in conforms) for what in ("filter", "sort"))
        cursor = watcher._cursor
        self._by: str = cursor.get("by") or ("updated" if can else "datetime")
        self._until: str = cursor.get("until") or ""
        self._deep: str = cursor.get("deep") or ""
        self._seen: dict[tuple[str, str], str] = {}
        self._client: Client | None = None

    @property
    def cursor(self) -> dict[str, Any]:
        """What is asked by, the newest seen, and when it was last read from further back."""
        return {"by": self._by, "until": self._until, "deep": self._deep}

    def poll(self, now: datetime) -> Iterator[Arrival]:
        """Items not given yet, to the last page."""
        try:
            yield from self._poll(now)
        except APIError as err:
            self._client = None
            status = getattr(err, "status_code", None)
            if self._by == "updated" and status == 400:
                self._by, self._until = "datetime", ""
                yield from self.poll(now)
            elif status is None or status in (408, 425, 429) or status >= 500:
                raise Unreachable(f"{self.source}: {err}") from err
            else:
                raise Refused(f"{self.source}: {err}") from err

    def _poll(self, now: datetime) -> Iterator[Arrival]:
        deep = not self._deep or _moment(self._deep) + DEEP_EVERY <= now
        newest, silent = self._until, False
        for item in self._search(self._question(deep)):
            links = item.get("links") or ()
            own = next((link.get("href") for link in links if link.get("rel") == "self"), None)
            collection = str(item.get("collection") or "")
            href = own or f"{self.source.rstrip('/')}/collections/{collection}/items/{item.get('id')}"
            found = arrival(item, urljoin(self.source, str(href)), self.source, now)
            silent = silent or (not found.updated and not found.error)
            newest = max(newest, self._mark(found, now))
            if self._seen.get((collection, found.id)) != found.key:
                self._seen[collection, found.id] = found.key
                yield found
        if silent and self._by == "updated":
            self._by, newest = "datetime", ""
        self._until, self._deep = newest, _text(now) if deep else self._deep

    def _question(self, deep: bool) -> dict[str, Any]:
        """The search for everything since the newest seen, less the overlap."""
        wanted = [name for name in self.watcher.collections if not re.search(r"[*?\[]", name)]
        question: dict[str, Any] = {"limit": 100}
        if wanted and len(wanted) == len(self.watcher.collections):
            question["collections"] = wanted
        if self._by == "updated":
            question["sortby"] = "+properties.updated,+id"
            back = DEEP if deep else OVERLAP
            since = _text(_moment(self._until) - back) if self._until else self.watcher.since
            if since:
                newer = {"op": ">=", "args": [{"property": "updated"}, {"timestamp": since}]}
                question |= {"filter": newer, "filter_lang": "cql2-json"}
        elif self._until and not deep:
            question["datetime"] = f"{_text(_moment(self._until) - WINDOW)}/.."
        return question

    def _mark(self, found: Arrival, now: datetime) -> str:
        """How far this item moves the newest seen; a time in the future does not, or all until then would be missed."""
        text = found.updated if self._by == "updated" else found.datetime
        try:
            moment = _moment(text) if text else None
        except ValueError:
            return ""
        return _text(moment) if moment and moment <= now else ""

    def _search(self, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if self._client is None:
            self._client = open_client(self.source, self.watcher.timeout)
        return found_by(self._client, **question)


# ------------------------------------------------------------------------------------------------------------- helpers
def _document(data: bytes, href: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"expected JSON, found {_short(data[:60])} ({href})") from err
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {type(found).__name__} ({href})")
    return found


def _reason(err: Exception) -> str:
    return f"expected an item, found nothing ({err})" if isinstance(err, FileNotFoundError) else str(err)


def _digest(hrefs: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hrefs).encode()).hexdigest()[:16]


def _moment(text: str) -> datetime:
    """An RFC 3339 time, UTC where it does not say; ValueError."""
    try:
        moment = datetime.fromisoformat(str(text).strip().upper().replace("Z", "+00:00"))
    except ValueError as err:
        raise ValueError(f"time: expected RFC 3339, found {_short(text)}") from err
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _before(text: str, since: str) -> bool:
    try:
        return _moment(text) < _moment(since)
    except ValueError:
        return False


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
