"""What the twin says while it works: plain log lines that carry the item they are about, and progress.

    2026-11-21T12:00:00.123Z warning twin.watch [smap-l3-am/SMAP_20170118@1f2e] read again at the next poll

Nothing here changes what is done.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from infra.settings import Settings

T = TypeVar("T")
log = logging.getLogger("twin.progress")
_EVERY = 10.0  # s between two progress lines where there is no terminal
_item: ContextVar[str] = ContextVar("item", default="")


@contextmanager
def about(item: str) -> Iterator[None]:
    """Every line logged inside, from reading the item to its event, carries the item's key."""
    token = _item.set(item)
    try:
        yield
    finally:
        _item.reset(token)


class Lines(logging.Formatter):
    """One line a record: UTC time, level, logger, item, message."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        item = f" [{_item.get()}]" if _item.get() else ""
        head = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower():7} {record.name}{item}"
        text = f"{head} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Stderr(logging.Handler):
    """Writes to whatever stderr is when a line comes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def set_up(settings: Settings) -> None:
    """Write the twin's log lines to stderr, from TWIN_LOG__LEVEL on; calling it again changes only the level."""
    logger = logging.getLogger("twin")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        handler = _Stderr()
        handler.setFormatter(Lines())
        logger.addHandler(handler)
        logger.propagate = False  # Prefect's root handlers would write every line again
    logger.setLevel(settings.log.level.upper())


def progress(items: Iterable[T], label: str) -> Iterator[T]:
    """The same items, with a bar on a terminal and a log line now and then elsewhere."""
    total = len(items) if isinstance(items, Collection) else None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, label, total, console=Console(stderr=True), transient=True)
        return
    of = f" of {total}" if total is not None else ""
    done, told = 0, time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            log.info("%s: %d%s", label, done, of)
    log.info("%s: %d%s, done", label, done, of)
