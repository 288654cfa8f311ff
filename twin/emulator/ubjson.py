"""UBJSON as XGBoost writes it, read from bytes that nobody vouches for.

Universal Binary JSON, draft 12 (ubjson.org): a value is a one-letter type and its bytes, the highest first; `[` may
announce one type and a count for all its items. Every announced size is held against the bytes that are left before
anything is made of it, so a small file cannot ask for much memory or time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twin.errors import Rejected

DEPTH = 16  # most containers in one another: a booster has seven
VALUES = 2**20  # most values, an array of one type being one
_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_WORDS = {"Z": None, "T": True, "F": False}


def loads(raw: bytes) -> Any:
    """The value that `raw` holds: dict, list, str, int, float, bool, None; an array of one type is a numpy array.

    Raises Rejected for what is cut short, too deep, twice in an object, left over at the end, or no UBJSON.
    """
    reader = _Reader(raw)
    value = reader.value(reader.letter(), 0)
    if reader.left:
        raise reader.error("the file goes on after its end", expected="no bytes", found=f"{reader.left} bytes")
    return value


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at, self.values = raw, 0, 0

    @property
    def left(self) -> int:
        return len(self.raw) - self.at

    def error(self, what: str, expected: object = "", found: object = "") -> Rejected:
        return Rejected(f"UBJSON: {what}", expected=expected, found=found, where=f"byte {self.at}")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise self.error("the file is cut short", expected=f"{count} bytes", found=f"{self.left} bytes")
        self.at += count
        return self.raw[self.at - count : self.at]

    def letter(self) -> str:
        return self.take(1).decode("latin-1")

    def number(self, kind: str) -> int | float:
        form = _NUMBERS[kind]
        return np.frombuffer(self.take(int(form[-1])), form)[0].item()

    def size(self) -> int:
        kind = self.letter()
        if kind not in "iUIlL":
            raise self.error("no length", expected="an integer", found=repr(kind))
        size = int(self.number(kind))
        if not 0 <= size <= self.left:
            raise self.error("impossible length", expected=f"0 to {self.left}", found=size)
        return size

    def text(self) -> str:
        try:
            return self.take(self.size()).decode()
        except UnicodeDecodeError as err:
            raise self.error("no text", expected="UTF-8", found=err.reason) from err

    def value(self, kind: str, depth: int) -> Any:
        self.values += 1
        if self.values > VALUES:
            raise self.error("too many values", expected=f"at most {VALUES}")
        if kind in _WORDS:
            return _WORDS[kind]
        if kind in _NUMBERS:
            return self.number(kind)
        if kind == "S":
            return self.text()
        if kind not in "[{":
            raise self.error("unknown type", expected="one of ZTFiUIlLdDS[{", found=repr(kind))
        if depth == DEPTH:
            raise self.error("nested too deep", expected=f"at most {DEPTH} containers")
        return self.array(depth + 1) if kind == "[" else self.object(depth + 1)

    def array(self, depth: int) -> Any:
        kind = self.letter()
        if kind == "$":
            return self.numbers()
        if kind == "#":
            return [self.value(self.letter(), depth) for _ in range(self.size())]
        items = []
        while kind != "]":
            items.append(self.value(kind, depth))
            kind = self.letter()
        return items

    def numbers(self) -> np.ndarray:
        kind = self.letter()
        if kind not in _NUMBERS:
            raise self.error("array of an unknown type", expected=f"one of {''.join(_NUMBERS)}", found=repr(kind))
        if self.letter() != "#":
            raise self.error("array without its count")
        form = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.take(self.size() * form.itemsize), form).astype(form.newbyteorder("="))

    def object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while True:
            start, kind = self.at, self.letter()
            if kind == "}":
                return items
            self.at = start
            name = self.text()
            if name in items:
                raise self.error("name twice in one object", found=repr(name[:40]))
            items[name] = self.value(self.letter(), depth)
