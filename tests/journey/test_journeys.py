"""Items on their way through the twin, with every real component: order, repetition, lateness, poison, crashes."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from flows.headless import advance, retry
from infra import verbs
from infra.settings import Settings, region
from infra.verbs import Tally
from infra.wiring import build, embedded_catalog
from stac.validate import validate
from stac.watch import Watcher

DAYS = 6


@pytest.fixture(scope="module")
def provider(tmp_path_factory, small_region) -> Path:
    """A simulated provider's catalogue: the history up to the first days, and some days that follow."""
    from infra.provider import Provider

    folder = tmp_path_factory.mktemp("provider")
    source = Provider(folder, region("demo"))
    source.backfill()
    for _ in range(DAYS):
        source.publish_next()
    return folder / "catalog.json"


@pytest.fixture
def arrivals(provider) -> list[dict]:
    return list(Watcher(str(provider)).poll(datetime.now(UTC)))


@pytest.fixture
def twin(tmp_path, small_region, prepared_home):
    """A twin of its own in an empty home, its embedded catalogue running."""
    home = prepared_home(tmp_path / "home")
    with embedded_catalog(Settings(home=home)) as settings:
        yield build(settings)


def take(services, arrivals, size=1000) -> Tally:
    tally = Tally()
    advance(services, region("demo"), arrivals, size, tally)
    return tally


def test_an_item_walks_all_the_way_through(twin, arrivals):
    tally = take(twin, arrivals)
    view = twin.store.at()
    assert tally.ingested == len(arrivals) and tally.quarantined == 0
    assert tally.commits == 1 and tally.published == 1
    events = twin.bus.poll("test", limit=1000)
    updated = next(event for event in events if event.type == "twin.drought.updated.v1")
    drought = build(twin.settings).store.at(updated.data["snapshot"]).dataset("demo", "drought")
    assert str(drought.time.values[-1])[:10] == updated.data["valid_day"]
    percentile = drought["soil_moisture_percentile"].isel(time=-1).values
    assert np.isfinite(percentile).all() and percentile.min() >= 0 and percentile.max() <= 100
    item = next(twin.catalog.search(collections=["demo-drought"]))
    assert validate(item.to_dict()) == []
    overview = item.assets["overview"]
    picture = Path(urlsplit(overview.href).path).read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) == overview.extra_fields["file:size"]
    assert overview.extra_fields["file:checksum"] == "1220" + hashlib.sha256(picture).hexdigest()
    sources = {link.get_absolute_href() for link in item.get_links("derived_from")}
    assert sources == {Path(record["href"]).as_uri() for record in view.ledger("demo").values()}
    assert updated.data["item"] in {link.get_absolute_href() for link in item.get_links("self")}


def test_a_stranger_opens_the_arrays_with_xarray_alone(twin, arrivals):
    """The lines of docs/consumers.md, word for word."""
    take(twin, arrivals)
    page = Path(__file__).parents[2].joinpath("docs", "consumers.md").read_text()
    item = next(twin.catalog.search(collections=["demo-drought"]))
    program = page.split("```python\nimport icechunk")[1].split("```")[0]
    told = {"item": item}
    exec("import icechunk" + program, told)
    ours = twin.store.at().dataset("demo", "drought")
    np.testing.assert_array_equal(told["drought"]["time"].values, ours["time"].values)
    np.testing.assert_array_equal(told["drought"]["drought_class"].values, ours["drought_class"].values)


def test_delivered_twice_changes_nothing(twin, arrivals):
    take(twin, arrivals)
    snapshot, digest = twin.store.at().snapshot, twin.store.at().digest("demo")
    again = take(twin, arrivals * 2)
    assert (again.commits, again.published, again.events) == (0, 0, 0)
    assert twin.store.at().snapshot == snapshot and twin.store.at().digest("demo") == digest


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_grouping_ends_in_the_same_bits(twin, arrivals, prepared_home, tmp_path, seed):
    take(twin, arrivals)
    order = random.Random(seed)
    shuffled = arrivals + order.sample(arrivals, 3)
    order.shuffle(shuffled)
    other = build(
        Settings(
            home=prepared_home(tmp_path / "other"),
            catalog={"url": twin.catalog.url, "token": twin.settings.catalog.token},
        )
    )
    for batch in (
        itertools.batched(shuffled, 3)
        if sys.version_info >= (3, 12)
        else [shuffled[i : i + 3] for i in range(0, len(shuffled), 3)]
    ):
        take(other, list(batch))
    assert other.store.at().digest("demo") == twin.store.at().digest("demo")


def test_a_late_item_recomputes_what_it_touches_and_nothing_else(twin, arrivals):
    forcing = sorted((a for a in arrivals if a["product"] == "simulated-forcing"), key=lambda a: a["datetime"])
    late = forcing[-3]
    take(twin, [arrival for arrival in arrivals if arrival is not late])
    before = twin.store.at()
    held = before.dataset("demo", "drought").time.values[-1]
    assert str(held)[:10] < late["datetime"][:10], "what lies behind the gap waits for it"
    kept = before.dataset("demo", "drought").load()
    take(twin, [late])
    after = twin.store.at().dataset("demo", "drought")
    assert str(after.time.values[-1])[:10] == forcing[-1]["datetime"][:10]
    entry = twin.store.at().journal("demo")[-1]
    assert entry["release"]["first_day"] == late["datetime"][:10]
    np.testing.assert_array_equal(
        after["soil_moisture_percentile"].sel(time=kept.time).values, kept["soil_moisture_percentile"].values
    )


def test_a_poisoned_item_is_set_aside_and_the_rest_goes_on(twin, arrivals, tmp_path):
    victim = next(a for a in arrivals if a["product"] == "simulated-soil-moisture")
    broken = json.loads(json.dumps(victim))
    asset = next(iter(broken["assets"].values()))
    asset["checksum"] = "1220" + "00" * 32
    rest = [arrival for arrival in arrivals if arrival is not victim]
    tally = take(twin, [broken, *rest])
    assert (tally.ingested, tally.quarantined) == (len(rest), 1)
    record = twin.store.at().ledger("demo")[broken["key"]]
    assert record["status"] == "quarantined" and record["kind"] == "ChecksumError"
    assert "expected" in record["reason"] and "found" in record["reason"]
    types = [event.type for event in twin.bus.poll("test", limit=1000)]
    assert types.count("twin.item.quarantined.v1") == 1
    tried = retry(twin.settings, region("demo"), [broken["key"]])
    assert tried["quarantined"] == 1, "it is still broken"


def test_a_crash_between_commit_and_publish_loses_nothing(twin, arrivals):
    """A process commits, then is killed before it can publish: the next turn tells what was not told."""
    program = """
import json, os, signal, sys
from infra import verbs
from infra.settings import Settings, region
from infra.wiring import build
services, place = build(Settings()), region("demo")
batch = verbs.ingest(services, place, json.load(sys.stdin))
assert verbs.commit(services, place, batch)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {"TWIN_HOME": str(twin.settings.home)}
    done = run_python(program, json.dumps(arrivals), environment)
    assert done.returncode == -9, done.stderr
    assert twin.store.at().ledger("demo").keys() == {arrival["key"] for arrival in arrivals}
    assert not list(twin.catalog.search(collections=["demo-drought"]))
    tally = take(twin, arrivals)
    assert (tally.commits, tally.published) == (0, 1)
    assert [e.type for e in twin.bus.poll("test", limit=99)].count("twin.drought.updated.v1") == 1


def test_two_writers_one_wins_and_the_other_goes_on_from_its_result(twin, arrivals):
    place = region("demo")
    half = len(arrivals) // 2
    first, second = (verbs.ingest(twin, place, part) for part in (arrivals[:half], arrivals[half:]))
    interrupted = iter([True])

    def refresh(draft, region_, batch, services):
        if next(interrupted, False):  # the other writer commits while this one is still at work
            verbs.commit(twin, place, first)
        return verbs.refresh(draft, region_, batch, services)

    assert verbs.commit(twin, place, second, refresh=refresh)
    assert len(twin.store.at().ledger("demo")) == len(arrivals)
    assert [entry["seq"] for entry in twin.store.at().journal("demo")] == [0, 1, 2]


def run_python(program: str, stdin: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [sys.executable, "-c", program],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
