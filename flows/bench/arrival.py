"""From an item's appearance to its event and to the portal that shows it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from flows.bench.report import report, spread
from infra.provider import Provider
from infra.settings import Settings, region
from infra.wiring import build
from twin.errors import SettingsError

DEGREE_KM = 111.2
AFRICA_KM2 = 30.0e6


def arrival(cells: int, arrivals: int, browser: bool, as_json: bool) -> None:
    """The whole embedded twin over a simulated Africa of about `cells` cells: publish a day, wait to see it, repeat."""
    resolution = round((AFRICA_KM2 / cells) ** 0.5 / DEGREE_KM, 3)
    home = Path(tempfile.mkdtemp(prefix="twin-bench-"))
    os.environ.update(
        {"TWIN_HOME": str(home), "TWIN_DEMO__RESOLUTION": str(resolution), "TWIN_DEMO__REFERENCE_YEARS": "5"}
    )
    place = region("demo")
    provider = Provider(home / "feed", place)
    provider.backfill()
    provider.publish_next()  # the first day also spins the true land up, which no arrival should be charged for
    command = [sys.executable, "-m", "flows", "up", "--region", "demo", "--source", str(home / "feed" / "catalog.json")]
    started = time.perf_counter()
    twin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        portal = _portal_link(twin)
        services = build(Settings())
        page = _Page(portal) if browser else None
        first = provider.next_day - pd.Timedelta(days=1)
        _wait(partial(_announced, services, first), 900, "first release")
        first_release = time.perf_counter() - started
        if page:
            _wait(partial(page.shows, first), 120, "first map")
        on_bus, on_screen = [], []
        for _ in range(arrivals):
            day = provider.next_day
            provider.publish_next()
            visible = time.perf_counter()
            on_bus.append(_wait(partial(_announced, services, day), 120, f"event of {day}") - visible)
            if page:
                on_screen.append(_wait(partial(page.shows, day), 120, f"map of {day}") - visible)
        memory = _memory_gib(twin.pid)
        size = services.store.at().dataset("demo", "grid").sizes["cell"]
        if page:
            page.close()
    finally:
        os.killpg(twin.pid, signal.SIGINT)
        twin.wait(60)
        shutil.rmtree(home, ignore_errors=True)
    figures = {
        "cells": size,
        "arrivals": arrivals,
        "first_release_s": round(first_release, 1),
        "event_s": spread(on_bus),
        **({"portal_s": spread(on_screen)} if on_screen else {}),
        "memory_gib": memory,
    }
    report("arrival", figures, as_json)


def _announced(services: Any, day: pd.Timestamp) -> bool:
    return any(event.data.get("valid_day") == str(day)[:10] for event in services.bus.latest(5))


def _portal_link(twin: subprocess.Popen) -> str:
    for line in twin.stdout or ():
        if line.strip().startswith("portal"):
            return line.split()[-1]
    raise SettingsError("embedded twin", expected="a link to its portal", found="it stopped")


class _Page:
    """The portal in headless Chromium."""

    def __init__(self, url: str) -> None:
        from playwright.sync_api import sync_playwright

        self.playwright = sync_playwright().start()
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--no-first-run",
        ]
        self.browser = self.playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        self.page = self.browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.goto(url)

    def shows(self, day: pd.Timestamp) -> bool:
        """Whether the map on the screen says that it is of `day`."""
        return self.page.locator(f'[data-shown$="{str(day)[:10]}"]').count() > 0

    def close(self) -> None:
        self.browser.close()
        self.playwright.stop()


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """The moment `condition` came true; SettingsError when it did not within `seconds`."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if condition():
            return time.perf_counter()
        time.sleep(0.05)
    raise SettingsError("benchmark", expected=f"{what} within {seconds:.0f} s", found="nothing")


def _memory_gib(pid: int) -> float:
    """Resident memory of a process and everything below it."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if _ancestor(int(entry.name), pid):
                pages += int((entry / "statm").read_text().split()[1])
        except (OSError, ValueError):
            continue
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 2)


def _ancestor(pid: int, root: int) -> bool:
    while pid > 1:
        if pid == root:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
