"""The whole embedded twin as a person starts it: one command, its processes, three links; killed, stopped, resumed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
from pystac_client import Client

from infra.bus import Event
from infra.bus_log import LogBus
from infra.store import Store

pytestmark = pytest.mark.prefect
T = TypeVar("T")

UPDATED = "twin.drought.updated.v1"
SMALL = {  # a few dozen cells, a short reference, a day every two seconds, a sweep every few
    "TWIN_DEMO__RESOLUTION": "6",
    "TWIN_DEMO__REFERENCE_YEARS": "3",
    "TWIN_DEMO__INTERVAL": "2",
    "TWIN_WATCH__POLL_SECONDS": "1",
    "TWIN_WATCH__SWEEP_SECONDS": "15",
    "TWIN_ASSIMILATION__ENABLED": "false",
    "TWIN_TRAINING__ENABLED": "false",
}
UNDER_WAY = ["RUNNING", "PENDING", "CANCELLING"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc to see processes in")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def until(wanted: Callable[[], T], seconds: float, what: str) -> T:
    """The first answer that is true; asks again until the deadline."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := wanted():
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


@dataclass
class Twin:
    """A running `twin up`."""

    home: Path
    process: subprocess.Popen
    links: dict[str, str] = field(default_factory=dict)

    def events(self) -> list[Event]:
        return [event for event in LogBus(self.home / "events.sqlite").latest(100_000) if event.type == UPDATED]

    def later(self, after: int, count: int = 1, seconds: float = 60) -> list[Event]:
        """The drought updates beyond position `after`, once there are `count` of them."""

        def found() -> list[Event]:
            new = [event for event in self.events() if event.position > after]
            return new if len(new) >= count else []

        return until(found, seconds, f"{count} updates after event {after}")

    def runs(self, **chosen: Any) -> list[dict[str, Any]]:
        return self.asked("flow_runs", sort="START_TIME_DESC", **chosen)

    def asked(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """What Prefect's API answers to a filter."""
        answer = httpx.post(f"{self.links['prefect']}/api/{what}/filter", json=filters, timeout=20)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def started(home: Path) -> Iterator[Twin]:
    """`twin up`, ready, its links read from what it prints; killed at the end if it is still there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TWIN_", "PREFECT_"))}
    environment |= {**SMALL, "TWIN_HOME": str(home), "COLUMNS": "200"}
    printed = home.with_name(f"{home.name}.out")
    with printed.open("w") as out:
        command = [sys.executable, "-m", "flows", "up"]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        twin = Twin(home, process)

        def ready() -> bool:
            assert process.poll() is None, printed.read_text()
            return "Ctrl-C" in printed.read_text()

        until(ready, 120, "the links")
        links = re.findall(r"^ +(\w+).*(http://127\.0\.0\.1:\d+)$", printed.read_text(), re.M)
        twin.links = {{"runs": "prefect", "catalogue": "catalog"}.get(name, name): link for name, link in links}
        yield twin
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "home"


@pytest.fixture(scope="module")
def twin(home) -> Iterator[Twin]:
    """The twin of this module; its last test stops it."""
    with started(home) as twin:
        yield twin


def processes(home: Path, holding: str = "") -> list[int]:
    """Living processes of a home, by their environment, whose command line holds some words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # it has just ended, or is not ours
        if f"TWIN_HOME={home}".encode() in environment.split(b"\0") and holding in command:
            found.append(int(folder.name))
    return found


def journal(home: Path) -> list[dict[str, Any]]:
    return Store.open(home / "store").at().journal("demo")


def gapless(entries: list[dict[str, Any]]) -> bool:
    return [entry["seq"] for entry in entries] == list(range(len(entries)))


# ------------------------------------------------------------------------------------------------------------ running
def test_the_three_links_it_prints_answer(twin):
    assert twin.links.keys() == {"portal", "prefect", "catalog"}
    for name, path in {"portal": "/_stcore/health", "prefect": "/api/health", "catalog": "/healthz"}.items():
        assert httpx.get(twin.links[name] + path, timeout=20).status_code == 200, name


def test_days_keep_arriving_on_the_bus(twin):
    first = twin.later(0)
    twin.later(first[-1].position, count=2)
    events = twin.events()
    days = [event.data["valid_day"] for event in events]
    assert days == sorted(set(days)), "each update brings a later day"
    assert [event.data["sequence"] for event in events] == sorted({event.data["sequence"] for event in events})
    assert all(event.data["simulated"] for event in events)


def test_what_an_event_announces_is_in_the_catalogue_and_in_the_store(twin):
    event = twin.later(0)[-1]
    name = event.data["item"].rpartition("/")[2]
    item = next(Client.open(twin.links["catalog"]).search(collections=["demo-drought"], ids=[name]).items())
    assert item.datetime.date().isoformat() == event.data["valid_day"]
    assert httpx.get(event.data["item"], timeout=20).json()["id"] == name, "the item named is the one found"
    drought = Store.open(twin.home / "store").at(event.data["snapshot"]).dataset("demo", "drought")
    assert str(drought.time.values[-1])[:10] == event.data["valid_day"]
    assert float(drought["soil_moisture_percentile"].isel(time=-1).min()) >= 0


def test_nobody_without_the_token_can_write_to_the_catalogue(twin):
    answer = httpx.post(f"{twin.links['catalog']}/collections", json={"id": "mine"}, timeout=20)
    assert answer.status_code in (401, 403)


def test_prefect_shows_the_deployments_and_what_the_runs_did(twin):
    flows = {flow["id"]: flow["name"] for flow in twin.asked("flows")}
    deployed = {f"{flows[deployment['flow_id']]}/{deployment['name']}" for deployment in twin.asked("deployments")}
    assert deployed == {"watch/demo", "update/demo"}
    completed = {"type": {"any_": ["COMPLETED"]}}

    def finished(flow: str) -> list[dict[str, Any]]:
        return twin.runs(flows={"name": {"any_": [flow]}}, flow_runs={"state": completed})

    updates = until(lambda: finished("update"), 60, "a completed update run")
    assert all(re.fullmatch(r"demo · simulated-[-a-z0-9]+( and \d+ more)?", run["name"]) for run in updates)
    assert {"twin", "demo", "simulated"} <= set(updates[0]["tags"])
    tasks = twin.asked("task_runs", flow_runs={"id": {"any_": [updates[0]["id"]]}})
    assert {task["task_key"].rpartition(".")[2].partition("-")[0] for task in tasks} == {
        "ingest", "refresh", "assess", "publish", "announce",
    }  # fmt: skip
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    artifacts = twin.asked("artifacts", flow_runs={"id": {"any_": [updates[0]["id"]]}})
    assert {(artifact["key"], artifact["type"]) for artifact in artifacts} == {
        ("demo-update", "table"), ("demo-drought-map", "image"),
    }  # fmt: skip
    assert until(lambda: finished("watch"), 90, "a completed sweep")[0]["name"] == "demo"


# ----------------------------------------------------------------------------------------------------------- browser
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_portal_moves_on_to_later_days_by_itself_and_asks_only_this_machine(twin):
    from playwright.sync_api import sync_playwright

    abroad: list[str] = []

    def guard(route: Any) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            abroad.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.route("**/*", guard)
        page.goto(twin.links["portal"], timeout=60_000)
        canvas = page.wait_for_selector("canvas[data-shown]", timeout=60_000)
        page.evaluate("() => { window.still = true }")
        first = canvas.get_attribute("data-shown")
        shown = page.locator("canvas[data-shown]")
        changed = until(
            lambda: (now := shown.get_attribute("data-shown", timeout=20_000)) != first and now, 60, "a later map"
        )
        assert changed.split()[-1] > first.split()[-1], "a later day"
        assert page.evaluate("() => window.still"), "without a reload"
        browser.close()
    assert abroad == []


# ---------------------------------------------------------------------------------------------- dying and coming back
@needs_proc
def test_a_killed_flows_process_comes_back_and_leaves_nothing_behind(twin):
    last = twin.later(0)[-1].position
    until(lambda: twin.runs(flow_runs={"state": {"type": {"any_": UNDER_WAY}}}), 60, "a run under way")
    (flows,) = processes(twin.home, "flows.serve")
    os.kill(flows, signal.SIGKILL)
    before = {run["id"] for run in twin.runs(flow_runs={"state": {"type": {"any_": UNDER_WAY}}})}
    again = until(lambda: [pid for pid in processes(twin.home, "flows.serve") if pid != flows], 60, "its successor")
    assert len(again) == 1
    twin.later(last, count=2, seconds=120)

    def left() -> set[str]:
        """Runs the dead process had, not ended yet."""
        return before & {
            run["id"] for run in twin.runs(flow_runs={"state": {"type": {"any_": [*UNDER_WAY, "SCHEDULED"]}}})
        }

    until(lambda: not left(), 60, "an end for the runs it left")
    ended = twin.runs(flow_runs={"id": {"any_": sorted(before)}}) if before else []
    assert {run["state_type"] for run in ended} <= {"COMPLETED"}
    entries = journal(twin.home)
    assert gapless(entries)
    keys = [record["key"] for entry in entries for record in entry["consumed"]]
    assert len(keys) == len(set(keys)), "nothing was taken twice"


@needs_proc
def test_ctrl_c_stops_all_of_it_and_the_next_start_goes_on(twin, home):
    kept = journal(home)
    twin.process.send_signal(signal.SIGINT)
    assert twin.process.wait(30) == 0
    until(lambda: not processes(home), 5, "the end of every process")
    stopped = journal(home)
    assert gapless(stopped) and stopped[: len(kept)] == kept
    held, events = Store.open(home / "store").at().ledger("demo"), twin.events()
    with started(home) as again:
        assert again.links.keys() == twin.links.keys()
        later = again.later(events[-1].position, seconds=120)
        assert later[-1].data["valid_day"] > events[-1].data["valid_day"]
        entries, ledger = journal(home), Store.open(home / "store").at().ledger("demo")
        assert gapless(entries) and entries[: len(stopped)] == stopped
        assert all(ledger[key] == record for key, record in held.items()) and len(ledger) > len(held)
        assert [event.id for event in again.events()][: len(events)] == [event.id for event in events]
