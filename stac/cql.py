"""CQL2 filters as SQL over the table of `stac.index`: what it can say is evaluated as SQL, anything else is refused.

    = <> < <= > >=   and or not   in between like isNull casei
    s_intersects     t_after t_before t_during t_equals t_intersects

Logic is three-valued as in CQL2: a comparison with a missing property is neither true nor false. Ordering compares
like with like only: a text is neither above nor below a number.
Refs: OGC 21-065r2 (Common Query Language, CQL2), STAC API filter extension v1.0.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import cql2

COLUMNS = {"id", "collection", "datetime", "created", "updated", "geometry"}
TIMES = {"datetime", "created", "updated"}
FIRST, LAST = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
MAX_TERMS, MAX_DEPTH = 500, 50  # SQLite refuses expressions deeper than 1000; a person never comes near
_COMPARISONS = {"=": "=", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_GEOMETRIES = {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}

Sql = tuple[str, list[Any]]


class QueryError(ValueError):
    """The query cannot be read, or asks for something that is not supported."""


def parse(expression: str | Mapping[str, Any], lang: str | None = None) -> dict[str, Any] | bool:
    """CQL2 text or JSON as validated CQL2 JSON; raises QueryError."""
    try:
        if isinstance(expression, str) and lang != "cql2-json":
            return cql2.parse_text(expression).to_json()
        document = json.loads(expression) if isinstance(expression, str) else dict(expression)
        if isinstance(document, dict):
            return document
        raise QueryError(f"filter: expected a CQL2 object, found {type(document).__name__}")
    except (cql2.ParseError, cql2.ValidationError, json.JSONDecodeError, RecursionError) as err:
        raise QueryError(f"filter: expected CQL2, found {str(err)[:500]}") from err


def to_sql(expression: Any) -> Sql:
    """A WHERE condition and its parameters from CQL2 JSON; raises QueryError."""
    return _Translation().condition(expression, 0)


class _Translation:
    """One filter on its way to SQL; counts its terms so that no filter is too large to evaluate."""

    def __init__(self) -> None:
        self.terms = 0

    def condition(self, node: Any, depth: int) -> Sql:
        self.terms += 1
        if self.terms > MAX_TERMS or depth > MAX_DEPTH:
            raise QueryError(f"filter: expected at most {MAX_TERMS} terms, {MAX_DEPTH} deep, found more")
        if isinstance(node, bool):
            return ("1" if node else "0"), []
        if isinstance(node, Mapping) and "property" in node:
            sql, values = _property(node["property"])
            return f"({sql} IS 1)", values
        if not isinstance(node, Mapping) or not isinstance(node.get("args"), list):
            raise QueryError(f"filter: expected an operation with arguments, found {_short(node)}")
        operation, arguments = str(node.get("op")), node["args"]
        if operation in ("and", "or"):
            parts = [self.condition(part, depth + 1) for part in arguments]
            if not parts:
                raise QueryError(f"filter: expected arguments of {operation!r}, found none")
            joined = f" {operation.upper()} ".join(sql for sql, _ in parts)
            return f"({joined})", [value for _, values in parts for value in values]
        if operation == "not":
            (part,) = _exactly(arguments, 1, operation)
            sql, values = self.condition(part, depth + 1)
            return f"(NOT {sql})", values
        if operation in _COMPARISONS:
            return _compare(operation, *_exactly(arguments, 2, operation))
        special = _OPERATIONS.get(operation)
        if special is None:
            raise QueryError(f"filter: operation {operation!r} is not supported")
        self.terms += sum(len(a) for a in arguments if isinstance(a, list))
        return special(arguments)


def _compare(operation: str, left: Any, right: Any) -> Sql:
    (a, a_values, a_kind), (b, b_values, b_kind) = _pair(left, right)
    if operation not in ("=", "<>") and "time" not in (a_kind, b_kind):
        kind = "number" if "number" in (a_kind, b_kind) else "text" if "text" in (a_kind, b_kind) else ""
        a, b = _only(a, a_kind, kind), _only(b, b_kind, kind)
    return f"({a} {_COMPARISONS[operation]} {b})", a_values + b_values


def _exactly(arguments: list[Any], count: int, operation: str) -> list[Any]:
    if len(arguments) != count:
        raise QueryError(f"filter: expected {count} arguments of {operation!r}, found {len(arguments)}")
    return arguments


def _only(sql: str, kind: str, wanted: str) -> str:
    """A property's value where it has the wanted type, else NULL; literals and columns are what they are."""
    return f"only_{wanted}({sql})" if not kind and wanted else sql


def _pair(left: Any, right: Any) -> tuple[tuple[str, list[Any], str], tuple[str, list[Any], str]]:
    """Both sides of a comparison as (sql, parameters, kind), as times as soon as one of them is a time."""
    a, b = _scalar(left), _scalar(right)
    if "time" in (a[2], b[2]):
        a, b = _as_time(a, left), _as_time(b, right)
    return a, b


def _as_time(side: tuple[str, list[Any], str], node: Any) -> tuple[str, list[Any], str]:
    if side[2] == "time":
        return side
    if side[2] == "text":
        return "?", [instant(node)], "time"
    if side[2]:
        raise QueryError(f"filter: expected a time, found {_short(node)}")
    return f"instant({side[0]})", side[1], "time"


def _scalar(node: Any) -> tuple[str, list[Any], str]:
    """One side of a comparison: (sql, parameters, kind), kind '' where only the data can tell."""
    if isinstance(node, bool):
        return "?", [int(node)], "bool"
    if isinstance(node, (int, float)):
        return "?", [node], "number"
    if isinstance(node, str):
        return "?", [node], "text"
    if isinstance(node, Mapping):
        if "property" in node:
            name = _plain(node["property"])
            if name == "geometry":
                raise QueryError("filter: a geometry can only be used with s_intersects")
            return *_property(name), "time" if name in TIMES else "text" if name in COLUMNS else ""
        if "timestamp" in node:
            return "?", [instant(node["timestamp"])], "time"
        if "date" in node:
            return "?", [instant(node["date"])], "time"
        if node.get("op") == "casei":
            sql, values, kind = _scalar(*_exactly(node.get("args") or [], 1, "casei"))
            if kind not in ("", "text"):
                raise QueryError(f"filter: expected a text in casei, found {_short(node)}")
            return f"casefold({sql})", values, "text"
    raise QueryError(f"filter: {_short(node)} is not supported here")


def _plain(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise QueryError(f"filter: expected the name of a property, found {_short(name)}")
    return name.removeprefix("properties.")


def _property(name: Any) -> Sql:
    """A property as SQL; its JSON path travels as a parameter, so no name can become SQL."""
    name = _plain(name)
    if name in COLUMNS:
        return f"items.{name}", []
    if '"' in name or "\\" in name or "\x00" in name:
        raise QueryError(f"filter: property {_short(name)} cannot be looked up")
    return "json_extract(items.doc, ?)", [f'$.properties."{name}"']


def sort_term(name: str) -> Sql:
    """A property as something every item can be sorted by: what is missing sorts as the empty text."""
    sql, values = _property(name)
    if _plain(name) == "geometry":
        raise QueryError("sortby: items cannot be sorted by geometry")
    return (sql, values) if not values else (f"coalesce({sql}, '')", values)


# ------------------------------------------------------------------------------------------- operations of their own
def _in(arguments: list[Any]) -> Sql:
    value, options = _exactly(arguments, 2, "in")
    if not isinstance(options, list):
        raise QueryError(f"filter: expected a list after 'in', found {_short(options)}")
    if not options:
        return "0", []
    parts = [_compare("=", value, option) for option in options]
    return "(" + " OR ".join(sql for sql, _ in parts) + ")", [v for _, values in parts for v in values]


def _between(arguments: list[Any]) -> Sql:
    value, low, high = _exactly(arguments, 3, "between")
    (a, x), (b, y) = _compare(">=", value, low), _compare("<=", value, high)
    return f"({a} AND {b})", x + y


def _like(arguments: list[Any]) -> Sql:
    value, pattern = _exactly(arguments, 2, "like")
    (a, x, a_kind), (b, y, b_kind) = _scalar(value), _scalar(pattern)
    if b_kind != "text" or a_kind not in ("", "text"):
        raise QueryError(f"filter: expected a text like a pattern, found {_short(arguments)}")
    return f"cql_like({a}, {b})", x + y


def _is_null(arguments: list[Any]) -> Sql:
    (node,) = _exactly(arguments, 1, "isNull")
    if not isinstance(node, Mapping) or "property" not in node:
        raise QueryError(f"filter: expected a property in isNull, found {_short(node)}")
    sql, values = _property(node["property"])
    return f"({sql} IS NULL)", values


def _s_intersects(arguments: list[Any]) -> Sql:
    """Items whose geometry shares a point with the literal geometry."""
    left, right = _exactly(arguments, 2, "s_intersects")
    if isinstance(right, Mapping) and "property" in right:
        left, right = right, left
    if not isinstance(left, Mapping) or _plain(left.get("property")) != "geometry" or not isinstance(right, Mapping):
        raise QueryError("filter: s_intersects is supported between the property geometry and a literal")
    return intersects(_box_geometry(right["bbox"]) if "bbox" in right else right)


def intersects(geometry: Mapping[str, Any]) -> Sql:
    """Items whose geometry shares a point with this GeoJSON geometry: a coarse look in the R*Tree, then exactly."""
    if geometry.get("type") == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        parts = [intersects(part) for part in geometry["geometries"]]
        joined = " OR ".join(sql for sql, _ in parts) or "0"
        return f"({joined})", [value for _, values in parts for value in values]
    west, south, east, north = bounds(geometry)
    coarse = "items.key IN (SELECT item FROM boxes WHERE west <= ? AND east >= ? AND south <= ? AND north >= ?)"
    text = json.dumps(geometry, sort_keys=True)
    _spatial(text)
    return f"({coarse} AND meets(items.geometry, ?))", [east, west, north, south, text]


def box(west: float, south: float, east: float, north: float) -> Sql:
    """Items that share a point with a box of longitude and latitude; west > east crosses the antimeridian."""
    return intersects(_box_geometry([west, south, east, north]))


def _box_geometry(corners: Any) -> dict[str, Any]:
    if not isinstance(corners, (list, tuple)) or len(corners) not in (4, 6) or not all(map(_number, corners)):
        raise QueryError(f"bbox: expected 4 or 6 numbers, found {_short(corners)}")
    half = len(corners) // 2
    west, south, east, north = corners[0], corners[1], corners[half], corners[half + 1]
    if south > north:
        raise QueryError(f"bbox: expected south below north, found {_short(corners)}")
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    rings = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in spans]
    return (
        {"type": "Polygon", "coordinates": rings[0]}
        if len(rings) == 1
        else {"type": "MultiPolygon", "coordinates": rings}
    )


def bounds(geometry: Any) -> tuple[float, float, float, float]:
    """West, south, east, north of a GeoJSON geometry; raises QueryError where it is none."""
    if not isinstance(geometry, Mapping):
        raise QueryError(f"geometry: expected GeoJSON, found {_short(geometry)}")
    if geometry.get("type") == "GeometryCollection" and geometry.get("geometries"):
        parts = [bounds(part) for part in geometry["geometries"]]
        return (min(p[0] for p in parts), min(p[1] for p in parts), max(p[2] for p in parts), max(p[3] for p in parts))
    if geometry.get("type") not in _GEOMETRIES:
        raise QueryError(f"geometry: expected GeoJSON, found {_short(geometry)}")
    points = list(_points(geometry.get("coordinates"), 0))
    if not points:
        raise QueryError(f"geometry: expected coordinates, found {_short(geometry)}")
    longitudes, latitudes = [p[0] for p in points], [p[1] for p in points]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _points(node: Any, depth: int):
    if not isinstance(node, (list, tuple)) or depth > 4:
        raise QueryError(f"geometry: expected positions, found {_short(node)}")
    if len(node) >= 2 and all(map(_number, node)):
        yield float(node[0]), float(node[1])
        return
    for part in node:
        yield from _points(part, depth + 1)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


# Each relation as comparisons of the item's start or end with the first or last moment of the literal.
_MOMENTS = {
    "t_after": (("start", ">", "last"),),
    "t_before": (("end", "<", "first"),),
    "t_during": (("start", ">", "first"), ("end", "<", "last")),
    "t_equals": (("start", "=", "first"), ("end", "=", "last")),
    "t_intersects": (("start", "<=", "last"), ("end", ">=", "first")),
}


def _temporal(operation: str) -> Callable[[list[Any]], Sql]:
    def condition(arguments: list[Any]) -> Sql:
        left, right = _exactly(arguments, 2, operation)
        if not isinstance(left, Mapping) or "property" not in left or not isinstance(right, Mapping):
            raise QueryError(f"filter: {operation} is supported between a property and a literal time")
        literal = dict(zip(("first", "last"), _interval(right), strict=True))
        name = _plain(left["property"])
        sql, values = _property(name)
        single = (sql if name in TIMES else f"instant({sql})", values)
        sides: dict[str, Sql] = {"start": single, "end": single}
        if name == "datetime":
            sides = {"start": ("items.dt_start", []), "end": ("items.dt_end", [])}
        tests = [(*sides[side], compare, literal[bound]) for side, compare, bound in _MOMENTS[operation]]
        joined = " AND ".join(f"{sql} {compare} ?" for sql, _, compare, _ in tests)
        return f"({joined})", [value for _, used, _, bound in tests for value in (*used, bound)]

    return condition


def _interval(node: Mapping[str, Any]) -> tuple[str, str]:
    """The first and last moment of a literal timestamp, date or interval."""
    if "interval" in node:
        ends = node["interval"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise QueryError(f"filter: expected an interval of two ends, found {_short(ends)}")
        start, end = (e.get("timestamp") or e.get("date") if isinstance(e, Mapping) else e for e in ends)
        return FIRST if start in ("..", "") else instant(start), LAST if end in ("..", "") else _end_of(end)
    if "date" in node:
        return instant(node["date"]), _end_of(node["date"])
    if "timestamp" in node:
        return instant(node["timestamp"]), instant(node["timestamp"])
    raise QueryError(f"filter: expected a time, found {_short(node)}")


def _end_of(text: Any) -> str:
    """The last moment of a date, or the moment itself."""
    if isinstance(text, str) and len(text) == 10:
        return _stamp(_moment(text) + timedelta(days=1, microseconds=-1))
    return instant(text)


_OPERATIONS: dict[str, Callable[[list[Any]], Sql]] = {
    "in": _in,
    "between": _between,
    "like": _like,
    "isNull": _is_null,
    "s_intersects": _s_intersects,
    **{name: _temporal(name) for name in _MOMENTS},
}


# --------------------------------------------------------------------------------------------- functions SQLite calls
def instant(text: Any) -> str:
    """An RFC 3339 time or a date as text that sorts as time: UTC, microseconds; raises QueryError."""
    return _stamp(_moment(text))


def _moment(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text).strip().upper().replace("Z", "+00:00"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise QueryError(f"time: expected RFC 3339, found {_short(text)}") from err


def _stamp(moment: datetime) -> str:
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S.%f}Z"


def _instant_or_null(value: Any) -> str | None:
    try:
        return instant(value) if isinstance(value, str) else None
    except QueryError:
        return None


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    """A CQL2 pattern as a regular expression: % any run, _ any character, \\ takes the next one literally."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    special = {"%": ".*", "_": "."}
    return re.compile("".join(special.get(p, re.escape(p[-1])) for p in parts), re.DOTALL)


def _matches(value: Any, pattern: str) -> int | None:
    return None if not isinstance(value, str) else int(_pattern(pattern).fullmatch(value) is not None)


@lru_cache(maxsize=64)
def _spatial(geometry: str) -> cql2.Expr:
    """The exact test of one literal geometry; raises QueryError where it is no valid GeoJSON."""
    try:
        test = cql2.Expr({"op": "s_intersects", "args": [{"property": "geometry"}, json.loads(geometry)]})
        test.validate()
        return test
    except Exception as err:  # the library raises bare Exception for GeoJSON it cannot read
        raise QueryError(f"geometry: expected valid GeoJSON, found {geometry[:200]}") from err


@lru_cache(maxsize=65536)
def _meets(shape: str, geometry: str) -> int:
    try:
        return int(_spatial(geometry).matches({"geometry": json.loads(shape)}))
    except Exception:  # a stored geometry the library cannot read meets nothing
        return 0


def functions() -> dict[str, tuple[int, Callable[..., Any]]]:
    """The functions a connection needs for these conditions, by name, with their number of arguments."""
    return {
        "instant": (1, _instant_or_null),
        "casefold": (1, lambda value: value.casefold() if isinstance(value, str) else None),
        "cql_like": (2, _matches),
        "meets": (2, _meets),
        "only_number": (1, lambda value: value if isinstance(value, (int, float)) else None),
        "only_text": (1, lambda value: value if isinstance(value, str) else None),
    }


def _short(node: Any) -> str:
    text = repr(node)
    return text if len(text) <= 80 else f"{text[:77]}..."
