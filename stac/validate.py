"""Is a STAC document valid: core and every extension it names, by schemas on this machine only.

The core schemas are those pystac ships; those of the extensions are in `stac/schemas`, restated by this project after
each extension's specification. An extension without a schema here is an error, never skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

STAC_VERSION = "1.1.0"  # the core version pystac ships schemas for
_KINDS = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}


def validate(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a STAC item, collection or catalog, a line each: `where: what (schema)`; empty when valid."""
    kind = _KINDS.get(str(document.get("type")))
    if kind is None:
        return [f"type: expected one of {', '.join(_KINDS)}, found {document.get('type')!r} (core)"]
    if document.get("stac_version") != STAC_VERSION:
        return [f"stac_version: expected {STAC_VERSION}, found {document.get('stac_version')!r} (core)"]
    extensions = document.get("stac_extensions") or []
    if not isinstance(extensions, list):
        return [f"stac_extensions: expected a list, found {extensions!r} (core)"]
    uris = [f"https://schemas.stacspec.org/v{STAC_VERSION}/{kind}-spec/json-schema/{kind}.json", *map(str, extensions)]
    plain = json.loads(json.dumps(document))  # tuples become lists, as a reader of the file sees them
    return [line for uri in uris for line in _check(plain, uri)]


def extensions() -> list[str]:
    """The extensions there are schemas for."""
    return sorted(uri for uri in _schemas() if uri.startswith("https://stac-extensions.github.io/"))


def _check(document: dict[str, Any], uri: str) -> list[str]:
    schema = _schemas().get(uri)
    if schema is None:
        return [f"stac_extensions: no schema on this machine for {uri}"]
    errors = Draft7Validator(schema, registry=_registry()).iter_errors(document)
    return [
        _line(error, uri) for error in sorted(errors, key=lambda error: [str(step) for step in error.absolute_path])
    ]


def _line(error: Any, uri: str) -> str:
    """The most telling part of an error: inside an anyOf or oneOf, the alternative that came closest."""
    deepest = best_match([error]) or error
    where = "/".join(map(str, deepest.absolute_path)) or "document"
    return f"{where}: {deepest.message[:300]} ({uri.split('/')[-4 if 'schemas.stacspec' in uri else -3]})"


@lru_cache(maxsize=1)
def _schemas() -> dict[str, dict[str, Any]]:
    """Every schema on this machine by its address."""
    folder = resources.files("stac") / "schemas"
    own = [json.loads(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".json")]
    return {**get_local_schema_cache(), **{schema["$id"]: schema for schema in own}}


@lru_cache(maxsize=1)
def _registry() -> Registry:
    """Where schemas find each other; it never looks anywhere else."""
    return Registry().with_resources((uri, Resource.from_contents(schema)) for uri, schema in _schemas().items())
