"""Fortran namelists edited as text: what is not asked for stays as the user wrote it, byte for byte.

A group runs from `&name` at the start of a line to `/`; text between groups is comment, as is what follows `!` inside
one. Parsing everything and writing it back would round the reals of the user's parameter tables and lose the comments,
so only the assignments in question are read, cut out or put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from twin.errors import SettingsError

_OPEN = re.compile(r"^[ \t]*[&$]([a-z]\w*)", re.IGNORECASE | re.MULTILINE)
_PIECE = re.compile(r"('[^']*'|\"[^\"]*\")|![^\n]*|/|[&$]end\b|['\"]", re.IGNORECASE)
_KEY = re.compile(r"\b([a-z]\w*)\s*(?:\(\s*(\d+)[^)]*\))?\s*=", re.IGNORECASE)
_VALUE = re.compile(r"(?:(\d+)\*)?('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[^\s,'\"]+)")


class _Group(NamedTuple):
    """A group and where in the text it opens, its assignments start and end, and it closes."""

    name: str
    opens: int
    starts: int
    ends: int
    closes: int


class _Assignment(NamedTuple):
    """A key, its first index (from 0), and where in its group it starts, its value begins and it ends."""

    key: str
    first: int
    starts: int
    begins: int
    ends: int


def groups(text: str) -> list[str]:
    """Names of the groups in the order they are written, lower case."""
    return [group.name for group in _groups(text)]


def values(text: str, name: str) -> dict[str, list[Any]]:
    """What group `name` assigns: lower-case key to a list of str, bool, int and float; {} where there is no such group.

    Elements that an index leaves out are None.
    """
    found: dict[str, list[Any]] = {}
    for group in _groups(text):
        if group.name != name:
            continue
        body = text[group.starts : group.ends]
        for item in _assignments(body):
            row, at = found.setdefault(item.key, []), item.first
            for repeat, constant in _VALUE.findall(
                _PIECE.sub(lambda piece: piece[1] or "", body[item.begins : item.ends])
            ):
                for _ in range(int(repeat or 1)):
                    row.extend([None] * (at + 1 - len(row)))
                    row[at] = _read(constant)
                    at += 1
    return found


def value(text: str, name: str, key: str, otherwise: Any = None) -> Any:
    """The first element that group `name` assigns to `key`; `otherwise` where it assigns none."""
    return next(iter(values(text, name).get(key, [])), otherwise)


def edit(text: str, name: str, new: Mapping[str, Any], drop: Iterable[str] | None = ()) -> str:
    """The text with `new` assigned in group `name`, without the keys of `drop`; None drops every other key.

    new   key to a str, bool, int, float or a list of them
    Raises SettingsError where there is no such group.
    """
    for group in _groups(text):
        if group.name == name:
            body = "" if drop is None else _without(text[group.starts : group.ends], {*new, *drop})
            lines = "".join(f"  {key} = {_written(value)},\n" for key, value in new.items())
            return f"{text[: group.starts]}\n{lines}{body.strip(chr(10))}\n{text[group.ends :]}"
    raise SettingsError("namelist group", expected=f"&{name}", found=", ".join(groups(text)) or "none")


def remove(text: str, name: str) -> str:
    """The text without any group `name`."""
    for group in reversed(list(_groups(text))):
        if group.name == name:
            text = text[: group.opens] + text[group.closes :]
    return text


def written(name: str, new: Mapping[str, Any]) -> str:
    """The text of a new group."""
    return edit(f"&{name}\n/\n", name, new)


def _groups(text: str) -> Iterator[_Group]:
    at = 0
    while opened := _OPEN.search(text, at):
        for piece in _PIECE.finditer(text, opened.end()):
            if piece[0] == "/" or piece[0][0] in "&$":
                yield _Group(opened[1].lower(), opened.start(), opened.end(), piece.start(), piece.end())
                at = piece.end()
                break
            if piece[0] in "'\"":
                raise SettingsError(f"namelist group &{opened[1]}", expected="a closing quote", found=piece[0])
        else:
            raise SettingsError(f"namelist group &{opened[1]}", expected="a closing '/'", found="the end of the file")


def _assignments(body: str) -> list[_Assignment]:
    """The assignments of a group; what looks like one in a string or a comment is none."""
    keys = list(_KEY.finditer(_PIECE.sub(lambda piece: " " * len(piece[0]), body)))
    ends = [key.start() for key in keys[1:]] + [len(body)]
    return [
        _Assignment(key[1].lower(), int(key[2] or 1) - 1, key.start(), key.end(), end)
        for key, end in zip(keys, ends, strict=False)
    ]


def _without(body: str, drop: set[str]) -> str:
    for item in reversed(_assignments(body)):
        if item.key in drop:
            body = body[: item.starts] + body[item.ends :]
    return body


def _read(constant: str) -> Any:
    """A Fortran constant as a Python value; what is none stays as it is."""
    if constant[0] in "'\"":
        return constant[1:-1].replace(constant[0] * 2, constant[0])
    if re.fullmatch(r"\.?(t|true|f|false)\.?", constant, re.IGNORECASE):
        return constant.strip(".")[0].lower() == "t"
    for kind, digits in ((int, constant), (float, re.sub("[dD]", "e", constant))):
        try:
            return kind(digits)
        except ValueError:
            continue
    return constant


def _written(value: Any) -> str:
    """A Python value as a Fortran constant, a list as constants with commas."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_written, value))
    if isinstance(value, bool):
        return ".true." if value else ".false."
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
