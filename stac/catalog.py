"""The catalogue seam: what is published, whatever serves it; and a static tree of files that any STAC reader walks.

    folder/catalog.json ─child→ <collection>/collection.json ─item→ <collection>/<item>/<item>.json

Every file appears whole: it is written beside its place and renamed into it, an item before the link to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pystac


class Catalog(Protocol):
    """Where the twin publishes; the embedded STAC API, stac-fastapi-pgstac or any API with transactions."""

    url: str

    def upsert(self, collection: pystac.Collection, items: Iterable[pystac.Item] = ()) -> int:
        """Create or replace the collection and its items; how many documents really changed. Idempotent."""
        ...

    def get(self, collection: str, item: str) -> pystac.Item | None:
        """One item, or None."""
        ...

    def search(self, **query: Any) -> Iterator[pystac.Item]:
        """Items as pystac-client's search takes them: collections, datetime, bbox, filter, sortby, max_items."""
        ...


class Listing(Catalog, Protocol):
    """A catalogue that can also be copied."""

    def collections(self) -> Iterator[pystac.Collection]:
        """Every collection."""
        ...


class Unreachable(ConnectionError):
    """A catalogue does not answer; trying again may help."""


class Refused(RuntimeError):
    """A catalogue answered and will not do it; trying the same again does not help."""


class StaticCatalog:
    """Implements `Catalog` over a folder that one writer fills and any number of readers poll.

    Adding an item writes the item and appends its link to the collection; no other item is read or written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], id: str = "catalog", description: str = "A static STAC catalog"
    ) -> None:
        self.folder = Path(folder)
        self.url = str(self.folder / "catalog.json")
        self.id, self.description = id, description
        self._known: dict[str, tuple[tuple[int, int, int], dict[str, Any], set[str]]] = {}

    def __repr__(self) -> str:
        return f"StaticCatalog({str(self.folder)!r})"

    def upsert(self, collection: pystac.Collection, items: Iterable[pystac.Item] = ()) -> int:
        """Create or replace the collection and its items; how many documents really changed."""
        about = _static(_dict(collection), f"{collection.id}/collection.json", item=False)
        stored, linked = self._collection(collection.id)
        order = [link for link in stored.get("links", ()) if link["rel"] == "item"]
        changed, added = 0, False
        for item in items:
            path = f"{collection.id}/{item.id}/{item.id}.json"
            changed += _write(
                self.folder / path, _static({**_dict(item), "collection": collection.id}, path, item=True)
            )
            href = f"./{item.id}/{item.id}.json"
            if href not in linked:
                order.append({"rel": "item", "href": href, "type": "application/geo+json"})
                linked.add(href)
                added = True
        own = [link for link in about["links"] if link["rel"] != "item"]
        before = {**stored, "links": [link for link in stored.get("links", ()) if link["rel"] != "item"]}
        new = before != {**about, "links": own}
        if new or added:
            place = self.folder / collection.id / "collection.json"
            whole = {**about, "links": own + order}
            _write(place, whole)
            self._known[collection.id] = (_signature(place), whole, linked)
        if not stored:
            self._link(collection.id)
        return changed + new

    def get(self, collection: str, item: str) -> pystac.Item | None:
        """One item, or None."""
        path = self.folder / _safe(collection) / _safe(item) / f"{item}.json"
        found = _read(path)
        return None if found is None else pystac.Item.from_dict(found, href=str(path))

    def search(self, **query: Any) -> Iterator[pystac.Item]:
        """The same answers as the embedded STAC API; reads every item, so it is for small trees and tests."""
        from stac.index import Index, Query, conditions, sorting

        names = query.pop("collections", None)
        order, most, filter = (
            sorting(query.pop("sortby", None)),
            query.pop("max_items", None),
            query.pop("filter", None),
        )
        limit = query.pop("limit", None) or 100
        where = conditions(**query, filter=_cql(filter, query.pop("filter_lang", None)))
        index = Index(":memory:")
        try:
            for id in self._ids():
                if not names or id in names:
                    index.put_collection({"type": "Collection", "id": id})
                    index.put_items(id, list(self._items(id)))
            token, given = "", 0
            while most is None or given < most:
                page = index.search(Query(where, order, limit if most is None else min(limit, most - given), token))
                for text in page.documents:
                    found = json.loads(text)
                    path = self.folder / found["collection"] / found["id"] / f"{found['id']}.json"
                    yield pystac.Item.from_dict(_read(path) or found, href=str(path))
                given, token = given + len(page.documents), page.token
                if not token:
                    return
        finally:
            index.close()

    def collections(self) -> Iterator[pystac.Collection]:
        """Every collection, without its links to items."""
        for id in self._ids():
            stored, _ = self._collection(id)
            own = [link for link in stored["links"] if link["rel"] != "item"]
            yield pystac.Collection.from_dict({**stored, "links": own}, href=str(self.folder / id / "collection.json"))

    def _ids(self) -> list[str]:
        root = _read(self.folder / "catalog.json") or {}
        return [link["href"].split("/")[-2] for link in root.get("links", ()) if link["rel"] == "child"]

    def _items(self, collection: str) -> Iterator[dict[str, Any]]:
        stored, _ = self._collection(collection)
        for link in stored.get("links", ()):
            found = _read(self.folder / collection / link["href"]) if link["rel"] == "item" else None
            if found is not None:
                yield found

    def _collection(self, id: str) -> tuple[dict[str, Any], set[str]]:
        """The stored collection and the hrefs of its items, read again only when the file has changed."""
        path = self.folder / _safe(id) / "collection.json"
        now = _signature(path)
        known = self._known.get(id)
        if known is None or known[0] != now:
            stored = _read(path) or {}
            known = now, stored, {link["href"] for link in stored.get("links", ()) if link["rel"] == "item"}
        return known[1], set(known[2]) if id not in self._known else known[2]

    def _link(self, collection: str) -> None:
        """Name the collection in the root catalog."""
        path = self.folder / "catalog.json"
        root = _read(path) or {
            "type": "Catalog",
            "id": self.id,
            "stac_version": pystac.get_stac_version(),
            "description": self.description,
            "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}],
        }
        href = f"./{collection}/collection.json"
        if all(link["href"] != href for link in root["links"]):
            root["links"].append({"rel": "child", "href": href, "type": "application/json"})
        _write(path, root)


def write_static(catalog: Listing, folder: str | os.PathLike[str]) -> int:
    """Copy a whole catalogue into a static tree at `folder`; how many items.

    Readers see the old tree until the new one is complete: it is built beside its place and moved there.
    """
    target = Path(folder)
    build, old = (target.with_name(f".{target.name}.{word}-{os.getpid()}") for word in ("new", "old"))
    shutil.rmtree(build, ignore_errors=True)
    count = 0
    try:
        tree = StaticCatalog(build, id="drought-twin", description="What the drought twin has published")
        build.mkdir(parents=True)
        for collection in catalog.collections():
            items = list(catalog.search(collections=[collection.id], sortby="+created,+id", limit=500))
            tree.upsert(collection, items)
            count += len(items)
        if not (build / "catalog.json").exists():
            _write(build / "catalog.json", {"type": "Catalog", "id": tree.id, "stac_version": pystac.get_stac_version(),
                                            "description": tree.description, "links": []})  # fmt: skip
        if target.exists():
            target.rename(old)
        build.rename(target)
    finally:
        shutil.rmtree(build, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return count


def _dict(thing: pystac.Item | pystac.Collection) -> dict[str, Any]:
    return thing.to_dict(include_self_link=False, transform_hrefs=False)


_STRUCTURE = {"self", "root", "parent", "collection", "items", "item", "child"}


def _static(document: Mapping[str, Any], path: str, *, item: bool) -> dict[str, Any]:
    """A document with the links of its place in the tree: relative ones, so that the tree can be moved."""
    up = "../.." if item else ".."
    links = [{"rel": "root", "href": f"{up}/catalog.json", "type": "application/json"}]
    if item:
        links += [
            {"rel": rel, "href": "../collection.json", "type": "application/json"} for rel in ("collection", "parent")
        ]
    else:
        links += [{"rel": "parent", "href": "../catalog.json", "type": "application/json"}]
    kept = [link for link in document.get("links") or () if link.get("rel") not in _STRUCTURE]
    return {**document, "links": links + [{**link, "href": _relative(str(link["href"]), up)} for link in kept]}


def _relative(href: str, up: str) -> str:
    """`…/collections/<c>/items/<i>`, the place of an item on an API, as its place in the tree; others as they are."""
    head, found, tail = href.rpartition("collections/")
    parts = tail.split("/")
    if not found or (head and "://" not in head) or len(parts) != 3 or parts[1] != "items":
        return href
    return f"{up}/{parts[0]}/{parts[2]}/{parts[2]}.json"


def _safe(id: str) -> str:
    if not id or "/" in id or id in (".", ".."):
        raise Refused(f"id: expected a name without '/', found {id!r}")
    return id


def _cql(filter: Any, lang: str | None) -> Any:
    from stac import cql

    return None if filter is None else cql.parse(filter, lang)


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _write(path: Path, document: Mapping[str, Any]) -> bool:
    """Put a document at `path` whole, durably; False when it is there already."""
    data = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return True
