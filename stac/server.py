"""The embedded STAC API: stac-fastapi's endpoints over one SQLite file; anyone reads, who holds the token writes.

    GET  /  /conformance  /collections…  /search  /queryables  /changes?since=N  /healthz
    POST /search                                            CQL2 JSON or text, sortby, query, fields, tokens
    POST PUT PATCH DELETE /collections…                     with `Authorization: Bearer <token>`

Nothing is fetched from elsewhere: there are no documentation pages that load scripts from a network.
Refs: STAC API v1.0.0; OGC API Features; transaction, filter, sort, fields and query extensions.
"""

from __future__ import annotations

import argparse
import hmac
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import attr
from fastapi import FastAPI, HTTPException, Query, Request, Response
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.middleware import ProxyHeaderMiddleware
from stac_fastapi.api.models import (
    ItemCollectionUri,
    create_get_request_model,
    create_post_request_model,
    create_request_model,
)
from stac_fastapi.extensions.fields import FieldsExtension
from stac_fastapi.extensions.filter import FilterExtension
from stac_fastapi.extensions.filter.client import BaseFiltersClient
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.extensions.query import QueryExtension
from stac_fastapi.extensions.sort import SortExtension
from stac_fastapi.extensions.transaction import TransactionExtension
from stac_fastapi.extensions.transaction.client import AsyncBaseTransactionsClient
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.requests import get_base_url
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from stac import cql
from stac.cql import QueryError
from stac.index import Exists, Index, Missing, Page, address, conditions, sorting
from stac.index import Query as Search

JSON, GEOJSON, SCHEMA = "application/json", "application/geo+json", "application/schema+json"
PAGE_LIMIT = 1000  # items a page holds at most, whatever is asked for
SEARCH_BYTES, WRITE_BYTES = 2**20, 2**28  # largest request bodies: of anyone's search, of a write with the token
TITLE, ABOUT = "Drought twin catalogue", "What the drought twin publishes: drought and land state, one item per release"


def create_app(path: str, token: str = "") -> FastAPI:
    """The application over the SQLite file at `path`; without a token nobody can write."""
    index = Index(path)
    logging.getLogger("stac_fastapi.api.errors").setLevel(logging.CRITICAL)  # a client's mistake is told to the client

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        index.close()

    settings = ApiSettings(
        _env_file=None,  # type: ignore[call-arg]  # a .env in the working directory is not for us
        stac_fastapi_title=TITLE,
        stac_fastapi_description=ABOUT,
        stac_fastapi_landing_id="drought-twin",
        stac_fastapi_version="1",
        openapi_url="/api",
        docs_url="",
        enable_direct_response=False,
    )
    search: list[Any] = [
        SortExtension(conformance_classes=_SORT),
        FilterExtension(client=Queryables(), conformance_classes=_FILTER),
        QueryExtension(),
        FieldsExtension(),
        TokenPaginationExtension(),
    ]
    writing = TransactionExtension(client=Writer(index), settings=settings)
    items_model: Any = create_request_model(
        "ItemsRequest",
        base_model=ItemCollectionUri,
        mixins=[extension.GET for extension in search],
        request_type="GET",
    )
    api = StacApi(
        app=FastAPI(
            openapi_url="/api", docs_url=None, redoc_url=None, title=TITLE, description=ABOUT, lifespan=closing
        ),
        settings=settings,
        client=Reader(index=index),
        extensions=[*search, writing],
        search_get_request_model=create_get_request_model(search),
        search_post_request_model=create_post_request_model(search),
        items_get_request_model=items_model,
        exceptions={QueryError: 400, Missing: 404, Exists: 409},
        middlewares=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "POST", "OPTIONS"],
                allow_headers=["Content-Type"],
            ),
            Middleware(ProxyHeaderMiddleware),
            Middleware(Guard, token=token),
        ],
    )
    _add_changes(api.app, index)
    return api.app


_SORT = [
    *(f"https://api.stacspec.org/v1.{minor}.0/item-search#sort" for minor in (0, 1)),  # pystac-client looks for 1.0
    *(f"https://api.stacspec.org/v1.{minor}.0/ogcapi-features#sort" for minor in (0, 1)),
]
_CQL2 = (
    "cql2-text",
    "cql2-json",
    "basic-cql2",
    "advanced-comparison-operators",
    "basic-spatial-functions",
    "case-insensitive-comparison",
)
_FILTER = [
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "https://api.stacspec.org/v1.0.0-rc.2/item-search#filter",
    *(f"http://www.opengis.net/spec/cql2/1.0/conf/{name}" for name in _CQL2),
]


# ------------------------------------------------------------------------------------------------------------ reading
@attr.s
class Reader(BaseCoreClient):
    """Collections, items and searches; answers are made of stored text, so they are responses rather than dicts."""

    index: Index = attr.ib(kw_only=True)

    def landing_page(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The catalogue's first page: where everything is."""
        request: Request = kwargs["request"]
        base = _base(request)
        page = self._landing_page(base_url=base, conformance_classes=self.conformance_classes(), extension_schemas=[])
        more = (
            ("service-desc", "api", "application/vnd.oai.openapi+json;version=3.0"),
            (_QUERYABLES, "queryables", SCHEMA),
            ("changes", "changes", JSON),
        )
        links = [{"rel": rel, "type": media, "href": base + path} for rel, path, media in more]
        return {**page, "links": [*page["links"], *links]}

    def all_collections(self, **kwargs: Any) -> Response:  # type: ignore[override]
        """All collections."""
        base = _base(kwargs["request"])
        documents = ",".join(address(text, base) for text in self.index.collections())
        links = json.dumps(
            [{"rel": rel, "type": JSON, "href": base + path} for rel, path in (("root", ""), ("self", "collections"))]
        )
        return Response(f'{{"collections":[{documents}],"links":{links}}}', media_type=JSON)

    def get_collection(self, collection_id: str, **kwargs: Any) -> Response:  # type: ignore[override]
        """One collection."""
        return Response(address(self.index.collection(collection_id), _base(kwargs["request"])), media_type=JSON)

    def get_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Response:  # type: ignore[override]
        """One item."""
        return Response(address(self.index.item(collection_id, item_id), _base(kwargs["request"])), media_type=GEOJSON)

    def item_collection(self, collection_id: str, **kwargs: Any) -> Response:  # type: ignore[override]
        """A page of the items of one collection."""
        self.index.collection(collection_id)
        return self._found(kwargs.pop("request"), {**kwargs, "collections": [collection_id]})

    def get_search(self, **kwargs: Any) -> Response:  # type: ignore[override]
        """A page of a search whose parameters came in the address."""
        request: Request = kwargs.pop("request")
        for name in ("intersects", "query"):
            if isinstance(kwargs.get(name), str):
                kwargs[name] = _json(kwargs[name], name)
        return self._found(request, kwargs)

    def post_search(self, search_request: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        """A page of a search whose parameters came as a document."""
        try:
            asked = search_request.model_dump(mode="json", by_alias=False, exclude_none=True)
            body = search_request.model_dump(mode="json", by_alias=True, exclude_unset=True)
        except ValueError as err:
            raise QueryError(f"search: expected a simpler document, found {err}") from err
        return self._found(kwargs["request"], asked, body)

    def _found(self, request: Request, asked: Mapping[str, Any], body: dict[str, Any] | None = None) -> Response:
        names = ("collections", "ids", "bbox", "intersects", "datetime")
        terms = (
            [cql.parse(asked["filter_expr"], asked.get("filter_lang"))] if asked.get("filter_expr") is not None else []
        )
        terms += _query_terms(asked.get("query") or {})
        filter = None if not terms else terms[0] if len(terms) == 1 else {"op": "and", "args": terms}
        where = conditions(**{name: asked.get(name) for name in names}, filter=filter)
        limit = min(asked.get("limit") or 10, PAGE_LIMIT)
        page = self.index.search(Search(where, sorting(asked.get("sortby")), limit, asked.get("token") or ""))
        base = _base(request)
        return Response(
            _feature_collection(page, base, _links(page, request, base, body), asked.get("fields")), media_type=GEOJSON
        )


def _feature_collection(page: Page, base: str, links: list[dict[str, Any]], fields: Any) -> str:
    """A page as GeoJSON; the documents go through as text unless only some of their fields are wanted."""
    documents = [address(text, base) for text in page.documents]
    chosen = _chosen(fields)
    if chosen is not None:
        documents = [json.dumps(_pruned(json.loads(text), *chosen), separators=(",", ":")) for text in documents]
    about = {"numberReturned": len(documents), **({} if page.matched is None else {"numberMatched": page.matched})}
    head = json.dumps({"type": "FeatureCollection", "links": links, **about}, separators=(",", ":"))
    return f'{head[:-1]},"features":[{",".join(documents)}]}}'


def _links(page: Page, request: Request, base: str, body: dict[str, Any] | None) -> list[dict[str, Any]]:
    path = request.url.path.removeprefix(str(request.scope.get("root_path") or "")).lstrip("/")
    links: list[dict[str, Any]] = [{"rel": "root", "type": JSON, "href": base}]
    if body is not None:
        onward = {"rel": "next", "type": GEOJSON, "method": "POST", "href": base + path}
        return [*links, {**onward, "body": {**body, "token": page.token}}] if page.token else links
    links.append(
        {"rel": "self", "type": GEOJSON, "href": f"{base}{path}{'?' * bool(request.url.query)}{request.url.query}"}
    )
    if page.token:
        parameters = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        href = f"{base}{path}?{urlencode([*parameters, ('token', page.token)])}"
        links.append({"rel": "next", "type": GEOJSON, "method": "GET", "href": href})
    return links


def _chosen(fields: Any) -> tuple[set[str], set[str]] | None:
    """Included and excluded fields, from `a,-b` or {'include': [...], 'exclude': [...]}."""
    if not fields:
        return None
    if isinstance(fields, Mapping):
        return set(fields.get("include") or ()), set(fields.get("exclude") or ())
    signed = [str(name).strip() for name in (fields.split(",") if isinstance(fields, str) else fields)]
    include = {name.lstrip("+ ") for name in signed if not name.startswith("-")}
    return include, {name[1:] for name in signed if name.startswith("-")}


_MINIMUM = {"id", "type", "geometry", "bbox", "links", "assets", "collection", "stac_version", "properties.datetime"}


def _pruned(document: dict[str, Any], include: set[str], exclude: set[str]) -> dict[str, Any]:
    """Only the included fields, without the excluded ones; what every reader needs stays unless it is excluded."""
    wanted = include | (_MINIMUM if include else set())
    properties = document.get("properties") or {}
    if include and "properties" not in include:
        properties = {name: value for name, value in properties.items() if {name, f"properties.{name}"} & wanted}
    properties = {name: value for name, value in properties.items() if f"properties.{name}" not in exclude}
    kept = {name: value for name, value in document.items() if not include or name in wanted}
    return {name: value for name, value in {**kept, "properties": properties}.items() if name not in exclude}


_OPERATORS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in"}
_PATTERNS = {"startsWith": "{}%", "endsWith": "%{}", "contains": "%{}%"}


def _query_terms(query: Any) -> list[dict[str, Any]]:
    """The query extension's `{property: {operator: value}}` as CQL2 terms."""
    if not isinstance(query, Mapping) or not all(isinstance(tests, Mapping) for tests in query.values()):
        raise QueryError(f"query: expected properties with operators, found {query!r}"[:200])
    return [
        _query_term(name, str(operator), value) for name, tests in query.items() for operator, value in tests.items()
    ]


def _query_term(name: str, operator: str, value: Any) -> dict[str, Any]:
    subject = {"property": name}
    if operator in _OPERATORS:
        return {"op": _OPERATORS[operator], "args": [subject, value]}
    if operator in _PATTERNS:
        literal = re.sub(r"([\\%_])", r"\\\1", str(value))
        return {"op": "like", "args": [subject, _PATTERNS[operator].format(literal)]}
    raise QueryError(f"query: expected one of {', '.join([*_OPERATORS, *_PATTERNS])}, found {operator!r}")


_QUERYABLES = "http://www.opengis.net/def/rel/ogc/1.0/queryables"


class Queryables(BaseFiltersClient):
    """What can be asked: the indexed properties, and any other by its name."""

    def get_queryables(self, collection_id: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """The queryables of one collection, or of all: the same."""
        path = f"collections/{quote(collection_id, safe='')}/queryables" if collection_id else "queryables"
        times = {name: {"type": "string", "format": "date-time"} for name in ("datetime", "created", "updated")}
        geometry = {"$ref": "https://geojson.org/schema/Feature.json#/properties/geometry"}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": _base(kwargs["request"]) + path,
            "type": "object",
            "title": "Queryables",
            "properties": {"id": {"type": "string"}, "collection": {"type": "string"}, "geometry": geometry, **times},
            "additionalProperties": True,
        }


# ------------------------------------------------------------------------------------------------------------ writing
@attr.s
class Writer(AsyncBaseTransactionsClient):
    """Transactions; stac-fastapi has validated the document, what is stored is what the client sent."""

    index: Index = attr.ib()

    async def create_item(self, collection_id: str, item: Any, **kwargs: Any) -> Response:
        """Add one item, or all items of a FeatureCollection or none."""
        request: Request = kwargs["request"]
        document = await request.json()
        many = document.get("type") == "FeatureCollection"
        documents = document.get("features") or [] if many else [document]
        await run_in_threadpool(self.index.put_items, collection_id, documents, create=True)
        if many:
            return Response(status_code=201)
        return await self._item(request, collection_id, document["id"], 201)

    async def update_item(self, collection_id: str, item_id: str, item: Any, **kwargs: Any) -> Response:
        """Replace an item."""
        request: Request = kwargs["request"]
        document = await request.json()
        _same_id(document, item_id)
        await run_in_threadpool(self.index.put_items, collection_id, [document], replace=True)
        return await self._item(request, collection_id, item_id, 200)

    async def patch_item(self, collection_id: str, item_id: str, patch: Any, **kwargs: Any) -> Response:
        """Merge a JSON merge patch (RFC 7396) into an item."""
        request: Request = kwargs["request"]
        stored = json.loads(await run_in_threadpool(self.index.item, collection_id, item_id))
        merged = _merged(stored, await _merge_patch(request))
        _same_id(merged, item_id)
        await run_in_threadpool(self.index.put_items, collection_id, [merged], replace=True)
        return await self._item(request, collection_id, item_id, 200)

    async def delete_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Response:
        """Delete an item and return it."""
        text = await run_in_threadpool(self.index.delete_item, collection_id, item_id)
        return Response(address(text, _base(kwargs["request"])), media_type=GEOJSON)

    async def create_collection(self, collection: Any, **kwargs: Any) -> Response:
        """Add a collection."""
        request: Request = kwargs["request"]
        document = await request.json()
        await run_in_threadpool(self.index.put_collection, document, create=True)
        return await self._collection(request, document["id"], 201)

    async def update_collection(self, collection_id: str, collection: Any, **kwargs: Any) -> Response:
        """Replace a collection."""
        request: Request = kwargs["request"]
        document = await request.json()
        _same_id(document, collection_id)
        await run_in_threadpool(self.index.put_collection, document, replace=True)
        return await self._collection(request, collection_id, 200)

    async def patch_collection(self, collection_id: str, patch: Any, **kwargs: Any) -> Response:
        """Merge a JSON merge patch (RFC 7396) into a collection."""
        request: Request = kwargs["request"]
        stored = json.loads(await run_in_threadpool(self.index.collection, collection_id))
        merged = _merged(stored, await _merge_patch(request))
        _same_id(merged, collection_id)
        await run_in_threadpool(self.index.put_collection, merged, replace=True)
        return await self._collection(request, collection_id, 200)

    async def delete_collection(self, collection_id: str, **kwargs: Any) -> Response:
        """Delete an empty collection and return it."""
        text = await run_in_threadpool(self.index.delete_collection, collection_id)
        return Response(address(text, _base(kwargs["request"])), media_type=JSON)

    async def _item(self, request: Request, collection: str, id: str, status: int) -> Response:
        text = await run_in_threadpool(self.index.item, collection, id)
        return Response(address(text, _base(request)), status_code=status, media_type=GEOJSON)

    async def _collection(self, request: Request, id: str, status: int) -> Response:
        text = await run_in_threadpool(self.index.collection, id)
        return Response(address(text, _base(request)), status_code=status, media_type=JSON)


def _same_id(document: Mapping[str, Any], id: str) -> None:
    if document.get("id") != id:
        raise QueryError(f"document: expected the id {id!r} of its address, found {document.get('id')!r}")


async def _merge_patch(request: Request) -> dict[str, Any]:
    patch = await request.json()
    if not isinstance(patch, dict):
        raise QueryError("patch: expected a JSON merge patch (an object), found a list of operations")
    return patch


def _merged(document: Any, patch: Any) -> Any:
    """RFC 7396: objects merge, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


class Guard:
    """Lets anyone read; refuses every other request without the token, before its body is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        searching = scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/search")
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or searching:
            return await self.app(scope, _limited(receive, SEARCH_BYTES), send)
        if not self._holds_token(scope["headers"]):
            refusal = {"code": "Unauthorized", "description": "writing: expected the bearer token of this catalogue"}
            response = Response(json.dumps(refusal), 401, {"WWW-Authenticate": "Bearer"}, JSON)
            return await response(scope, receive, send)
        return await self.app(scope, _limited(receive, WRITE_BYTES), send)

    def _holds_token(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, word = given.partition(b" ")
        return bool(self.token) and scheme.lower() == b"bearer" and hmac.compare_digest(word.strip(), self.token)


def _limited(receive: Receive, most: int) -> Receive:
    """A request body that may not grow beyond `most` bytes."""
    size = 0

    async def limited() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body") or b"")
        if size > most:
            raise HTTPException(413, f"request: expected at most {most} bytes, found more")
        return message

    return limited


# ------------------------------------------------------------------------------------------------------------- extras
def _add_changes(app: FastAPI, index: Index) -> None:
    def changes(since: int = Query(0, ge=0, le=2**62), limit: int = Query(1000, ge=1, le=10_000)) -> dict[str, Any]:
        """What was written after `since`, in order, without gaps; `next` is what to ask for afterwards."""
        found = index.changes(since, limit)
        return {"changes": found, "next": found[-1]["seq"] if found else since}

    def healthz() -> dict[str, str]:
        """Whether the file can be read."""
        index.changes(limit=1)
        return {"status": "ok"}

    app.add_api_route("/changes", changes, methods=["GET"], tags=["Changes"])
    app.add_api_route("/healthz", healthz, methods=["GET"], tags=["Liveliness/Readiness"])


def _base(request: Request) -> str:
    return get_base_url(request).rstrip("/") + "/"


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as err:
        raise QueryError(f"{name}: expected JSON, found {text[:80]!r}") from err


def main(arguments: list[str] | None = None) -> None:
    """`python -m stac.server --path FILE --port N`: serve until interrupted."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="stac.server", description=ABOUT)
    parser.add_argument("--path", required=True, help="the SQLite file, made when it is not there")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument(
        "--token-env", default="TWIN_CATALOG__TOKEN", help="environment variable that holds the token for writing"
    )
    options = parser.parse_args(arguments)
    app = create_app(options.path, os.environ.get(options.token_env, ""))
    uvicorn.run(
        app, host=options.host, port=options.port, log_level="warning", access_log=False, timeout_graceful_shutdown=3
    )


if __name__ == "__main__":
    main()
