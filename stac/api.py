"""A STAC API with transactions as the twin's catalogue: the embedded server, stac-fastapi-pgstac, or another."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote

import pystac
import requests
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning

from stac.catalog import Refused, Unreachable

_INFERRED = {"self", "root", "parent", "collection", "items", "item"}
_BATCH = 100  # documents looked up, or added, in one request
_FILLED = ("created", "updated")  # a server may fill these where we gave none


class ApiCatalog:
    """Implements `stac.catalog.Catalog`; safe to construct before the API runs."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"ApiCatalog({self.url!r})"

    # ------------------------------------------------------------------------------------------------------ Catalog
    def upsert(self, collection: pystac.Collection, items: Iterable[pystac.Item] = ()) -> int:
        """Create or replace the collection and its items; how many documents really changed.

        Documents that are there already, word for word, are not sent. Raises Unreachable, Refused.
        """
        path = f"/collections/{quote(collection.id, safe='')}"
        there = self._json("GET", path, missing=True)
        sent = document(collection)
        changed = 0
        if there is None:
            self._json("POST", "/collections", sent, taken=lambda: self._json("PUT", path, sent))
            changed += 1
        elif not self._same(sent, there):
            self._json("PUT", path, sent)
            changed += 1
        remaining = iter(items)
        while batch := [document(item) for item in islice(remaining, _BATCH)]:
            changed += self._upsert_items(path, batch, known=there is not None)
        return changed

    def get(self, collection: str, item: str) -> pystac.Item | None:
        """One item, or None."""
        there = self._json(
            "GET", f"/collections/{quote(collection, safe='')}/items/{quote(item, safe='')}", missing=True
        )
        return None if there is None else pystac.Item.from_dict(there)

    def search(self, **query: Any) -> Iterator[pystac.Item]:
        """Items as pystac-client's search takes them: collections, ids, datetime, bbox, filter, sortby, max_items."""
        return (pystac.Item.from_dict(there) for there in self.search_dicts(**query))

    # -------------------------------------------------------------------------------------------------------- more
    def search_dicts(self, **query: Any) -> Iterator[dict[str, Any]]:
        """The same, as plain dicts; also takes `fields`."""
        try:
            if self._client is None:
                headers = {name: str(value) for name, value in self._session.headers.items() if name == "Authorization"}
                self._client = open_client(self.url, self.timeout, headers)
            yield from found(self._client, **query)
        except APIError as err:
            self._client = None
            raise _trouble(f"search of {self.url}", getattr(err, "status_code", None), err) from err

    def collections(self) -> Iterator[pystac.Collection]:
        """Every collection."""
        page = self._json("GET", "/collections")
        while page:
            yield from (pystac.Collection.from_dict(found) for found in page.get("collections") or ())
            after = next((link["href"] for link in page.get("links") or () if link.get("rel") == "next"), None)
            page = self._json("GET", after) if after else None

    def _upsert_items(self, path: str, batch: list[dict[str, Any]], known: bool) -> int:
        """Add the items that are not there in one request, replace those that differ; how many."""
        stored: dict[str, dict[str, Any]] = {}
        if known and len(batch) == 1:
            one = self._json("GET", f"{path}/items/{quote(batch[0]['id'], safe='')}", missing=True)
            stored = {} if one is None else {one["id"]: one}
        elif known:
            ids = [sent["id"] for sent in batch]
            stored = {
                found["id"]: found
                for found in self.search_dicts(collections=[batch[0]["collection"]], ids=ids, limit=_BATCH)
            }
        fresh = [sent for sent in batch if sent["id"] not in stored]
        other = [sent for sent in batch if sent["id"] in stored and not self._same(sent, stored[sent["id"]])]
        if fresh:
            body = fresh[0] if len(fresh) == 1 else {"type": "FeatureCollection", "features": fresh}
            self._json("POST", f"{path}/items", body, taken=lambda: self._put_each(path, fresh))
        self._put_each(path, other)
        return len(fresh) + len(other)

    def _put_each(self, path: str, documents: Iterable[Mapping[str, Any]]) -> None:
        for sent in documents:
            item = f"{path}/items/{quote(sent['id'], safe='')}"
            self._json("POST", f"{path}/items", sent, taken=lambda item=item, sent=sent: self._json("PUT", item, sent))

    def _same(self, sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
        return plain(sent, self.url, sent) == plain(stored, self.url, sent)

    def _json(self, method: str, path: str, body: Any = None, *, missing: bool = False, taken: Any = None) -> Any:
        """One request; its JSON. 404 is None where `missing`, 409 is answered by calling `taken`."""
        url = path if "://" in path else self.url + path
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        media = (
            "application/geo+json"
            if isinstance(body, dict) and body.get("type", "").startswith("Feature")
            else "application/json"
        )
        try:
            headers = {"Content-Type": media} if data else {}
            answer = self._session.request(method, url, data=data, headers=headers, timeout=self.timeout)
        except requests.RequestException as err:
            raise Unreachable(f"{method} {url}: {err}") from err
        if missing and answer.status_code == 404:
            return None
        if taken is not None and answer.status_code == 409:
            return taken()
        if not answer.ok:
            raise _trouble(f"{method} {url}", answer.status_code, answer.text[:500])
        try:
            return answer.json() if answer.content else {}
        except ValueError as err:
            raise Unreachable(f"{method} {url}: expected JSON, found {answer.text[:80]!r}") from err


def open_client(url: str, timeout: float, headers: dict[str, str] | None = None) -> Client:
    """pystac-client on an API; it tries a failed connection once more, the rest is for who called."""
    return Client.open(url, stac_io=StacApiIO(headers=headers, timeout=timeout, max_retries=1))


def found(client: Client, **query: Any) -> Iterator[dict[str, Any]]:
    """The items of a pystac-client search, to the last page; what an API does not advertise is asked all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)
        search = client.search(**query)
    yield from search.items_as_dicts()


def _trouble(what: str, status: int | None, why: object) -> Exception:
    """The error that says whether trying again helps."""
    if status is None or status in (408, 425, 429) or status >= 500:
        return Unreachable(f"{what}: {f'{status} ' if status else ''}{why}")
    return Refused(f"{what}: {status} {why}")


def document(thing: pystac.Item | pystac.Collection) -> dict[str, Any]:
    """An item or collection as it is sent: hrefs as they are, without the links every server makes itself."""
    found = thing.to_dict(include_self_link=False, transform_hrefs=False)
    found["links"] = [link for link in found.get("links") or () if link.get("rel") not in _INFERRED]
    return found


def plain(found: Mapping[str, Any], url: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """A document without what a server adds: its own links and address, empty fields, times that `sent` left open."""
    open_times = {name for name in _FILLED if name not in (sent.get("properties") or {})}
    properties = {name: value for name, value in (found.get("properties") or {}).items() if name not in open_times}
    links = [
        {**link, "href": str(link.get("href", "")).removeprefix(url + "/")}
        for link in found.get("links") or ()
        if link.get("rel") not in _INFERRED
    ]
    rest = {name: value for name, value in found.items() if value not in (None, [], {})}
    return {**rest, "properties": properties, "links": links}


def open(url: str, token: str | None = None, timeout: float = 30.0) -> ApiCatalog:
    """The catalogue at `url`, once it answers as a STAC API; raises Unreachable or Refused."""
    catalog = ApiCatalog(url, token, timeout)
    found = catalog._json("GET", "/")
    if "conformsTo" not in found:
        raise Refused(f"{url}: expected a STAC API, found {found.get('type', 'another document')}")
    return catalog
