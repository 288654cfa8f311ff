"""What this machine offers the twin: each row says what it is for, whether it is there, and how to get it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from infra.settings import ComputeSettings, ModelSettings, Settings


def examine() -> list[dict[str, Any]]:
    """One row a check: check, state (ok, missing or note), needed, advice."""
    settings = Settings()
    home = Path(settings.home).resolve()
    free = shutil.disk_usage(_existing(home)).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    return [
        _row(
            "Python",
            "ok" if sys.version_info >= (3, 12) else "note",
            True,
            f"{sys.version.split()[0]}; 3.12 and newer get icechunk 2",
        ),
        _row("writable home", "ok" if os.access(_existing(home), os.W_OK) else "missing", True, f"{home} (TWIN_HOME)"),
        _row(
            "disk",
            "ok" if free > 2 else "missing",
            True,
            f"{free:.0f} GiB free; 2 GiB are enough for the simulated region",
        ),
        _row(
            "memory",
            "ok" if memory > 3 else "note",
            False,
            f"{memory:.0f} GiB; 4 GiB run the simulated region in comfort",
        ),
        _row(
            "loopback ports",
            "ok" if _can_listen() else "missing",
            True,
            "the embedded services listen on 127.0.0.1 only",
        ),
        _row(
            "Chromium",
            "ok" if chromium else "note",
            False,
            f"{chromium or 'not found'}; only the browser tests and benchmarks use it",
        ),
        _compute(settings.compute),
        _jules(settings.model),
    ]


def _compute(given: ComputeSettings) -> dict[str, Any]:
    """Where ensembles run, and whether the queue that was chosen is there."""
    from infra.compute import QUEUES

    if given.kind not in QUEUES:
        here = ", ".join(kind for kind, queue in QUEUES.items() if shutil.which(queue.submit)) or "none"
        advice = f"{given.kind}; TWIN_COMPUTE__KIND may be local, processes, or a queue; queues here: {here}"
        known = given.kind in ("local", "processes")
        return _row("compute", "ok" if known else "missing", not known, advice)
    command = QUEUES[given.kind].submit
    found = shutil.which(command)
    advice = f"{given.kind}: {found or f'no {command} on the PATH; install its client or choose another kind'}"
    return _row("compute", "ok" if found else "missing", True, advice)


def _jules(model: ModelSettings) -> dict[str, Any]:
    """Whether the JULES of the settings can be used; it is needed only by who chose it."""
    from twin.jules import doctor

    told = doctor(model.executable, model.namelists, model.version or None)
    first, *rest = (line.removeprefix("JULES: ") for line in told)
    advice = f"{first}. {' '.join(rest)}"
    needed = model.kind == "jules"
    if not model.executable and not model.namelists:
        return _row("JULES", "missing" if needed else "note", needed, advice)
    usable = model.executable and model.namelists and told[0].endswith(" starts")
    return _row("JULES", "ok" if usable else "missing", needed, advice)


def _row(check: str, state: str, needed: bool, advice: str) -> dict[str, Any]:
    return {"check": check, "state": state, "needed": needed, "advice": advice}


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _can_listen() -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return True
    except OSError:
        return False
