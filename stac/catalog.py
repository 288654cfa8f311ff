"""The catalogue seam: what is published, whatever serves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
