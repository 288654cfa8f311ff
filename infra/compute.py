"""Where independent pieces of work run: anything that takes calls the way the builtin `map` does."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from infra.settings import Settings
from twin.errors import SettingsError

Mapper = Callable[..., Iterable[Any]]


def in_process(function: Callable, *arguments: Iterable) -> Iterator[Any]:
    """One call after the other, here, each when its result is asked for."""
    return builtins.map(function, *arguments)


KINDS: Mapping[str, Callable[[Settings], Mapper]] = {"local": lambda settings: in_process}


def mapper(settings: Settings) -> Mapper:
    """The map that TWIN_COMPUTE__KIND names; SettingsError for a kind there is not."""
    kind = settings.compute.kind
    if kind not in KINDS:
        raise SettingsError("TWIN_COMPUTE__KIND", expected=" or ".join(sorted(KINDS)), found=kind, where="environment")
    return KINDS[kind](settings)
