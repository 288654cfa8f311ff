"""A training killed anywhere, or run twice at once, ends in the same emulator: one commit, one event, one item."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from typing import Any

import pytest

from flows.headless import advance, learn
from infra import registry, verbs
from infra.settings import Settings, region
from infra.tasks import progress
from infra.verbs import Tally
from infra.wiring import Services, build, embedded_catalog
from stac.watch import Watcher
from twin.events import EMULATOR_PROMOTED

SMALL = {
    "TWIN_DEMO__RESOLUTION": "6",
    "TWIN_DEMO__REFERENCE_YEARS": "2",
    "TWIN_TRAINING__ENABLED": "true",
    "TWIN_TRAINING__LOCATIONS": "20",
    "TWIN_TRAINING__HELD_OUT": "12",
    "TWIN_TRAINING__MEMBERS": "2",
    "TWIN_TRAINING__DAYS": "200",
    "TWIN_TRAINING__LEAST": "200",
    "TWIN_TRAINING__TREES": "3",
}
PROGRAM = """
import os, signal, threading, time
from infra import training, verbs
from infra.settings import Settings, region
from infra.wiring import build
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def die_with_tasks(results, count):
    while sum(not path.name.startswith(".") for path in results.glob("*/*")) < count:
        time.sleep(0.001)
    die()
services, place = build(Settings()), region("demo")
plan = training.due(services, place)
"""
POINTS = {
    "among the tasks": """
threading.Thread(target=die_with_tasks, args=(services.settings.home / "training" / "results", 3), daemon=True).start()
training.train(services, place, plan)
""",
    "before the commit": """
training.train(services, place, plan)
die()
""",
    "after the commit": """
assert training.commit(services, place, plan, training.train(services, place, plan))
die()
""",
}
WHOLE = """
snapshot = training.commit(services, place, plan, training.train(services, place, plan)) if plan else None
verbs.publish(services, place), verbs.announce(services, place)
print(bool(snapshot))
"""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, small) -> Path:
    """A home with a first release and no emulator yet."""
    from infra.provider import Provider

    folder, home = tmp_path_factory.mktemp("provider"), tmp_path_factory.mktemp("untrained") / "home"
    Provider(folder, region("demo")).backfill()
    arrivals = list(Watcher(str(folder / "catalog.json")).poll(datetime.now(UTC)))
    with embedded_catalog(Settings(home=home)) as settings:
        advance(build(settings), region("demo"), arrivals, 1000, Tally())
    return home


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, untrained) -> tuple[str, str]:
    """The version and the digest of all arrays where nothing went wrong."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    with embedded_catalog(Settings(home=shutil.copytree(untrained, home))) as settings:
        twin = build(settings)
        learn(twin, region("demo"), Tally())
        view = twin.store.at()
        return registry.pointer(view, "demo").champion, view.digest("demo")


def environment(settings: Settings) -> dict[str, str]:
    token = settings.catalog.token.get_secret_value() if settings.catalog.token else ""
    catalog = {"TWIN_CATALOG__URL": settings.catalog.url, "TWIN_CATALOG__TOKEN": token}
    return {**environ, "TWIN_HOME": str(settings.home), **catalog}


def outcome(twin: Services) -> dict[str, Any]:
    """What there is one of."""
    view = twin.store.at()
    told = [event for event in twin.bus.poll("test", limit=1000) if "emulator" in event.type]
    return {
        "version": registry.pointer(view, "demo").champion,
        "digest": view.digest("demo"),
        "commits": sum(bool(entry.get("emulator")) for entry in view.journal("demo")),
        "events": [event.type for event in told],
        "items": [item.id for item in twin.catalog.search(collections=["demo-emulators"])],
    }


def expected(undisturbed: tuple[str, str]) -> dict[str, Any]:
    version, digest = undisturbed
    item = f"demo-emulator-{version}"
    return {"version": version, "digest": digest, "commits": 1, "events": [EMULATOR_PROMOTED], "items": [item]}


@pytest.mark.parametrize("point", POINTS)
def test_a_training_that_is_killed_ends_as_one_that_is_not(untrained, undisturbed, tmp_path, point):
    with embedded_catalog(Settings(home=shutil.copytree(untrained, tmp_path / "home"))) as settings:
        twin = build(settings)
        before = twin.store.at().snapshot
        run = [sys.executable, "-c", PROGRAM + POINTS[point]]
        done = subprocess.run(run, env=environment(settings), capture_output=True, text=True, timeout=120)
        assert done.returncode == -9, done.stderr
        assert (twin.store.at().snapshot == before) == (point in ("among the tasks", "before the commit"))
        ran = {each["run"] for each in progress(settings.home / "training")}
        learn(twin, region("demo"), Tally())
        verbs.publish(twin, region("demo"))
        verbs.announce(twin, region("demo"))
        assert outcome(twin) == expected(undisturbed)
        again = [each for each in progress(settings.home / "training") if each["run"] not in ran]
        if point == "among the tasks":
            assert sum(each["reused"] for each in again) >= 3, "what was done is not done again"
        else:
            assert sum(each["done"] for each in again) == 0, "no task ran twice"


def test_two_trainings_at_once_are_one(untrained, undisturbed, tmp_path):
    with embedded_catalog(Settings(home=shutil.copytree(untrained, tmp_path / "home"))) as settings:
        run = [sys.executable, "-c", PROGRAM + WHOLE]
        both = [
            subprocess.Popen(run, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120) for process in both]
        assert sorted(out.strip() for out, _ in said) == ["False", "True"], said
        assert outcome(build(settings)) == expected(undisturbed)
