"""Observations assimilated end to end with every real component: two speeds, outages, late items, refusals, crashes."""

from __future__ import annotations

import hashlib
import json
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from flows.__main__ import app
from flows.headless import advance, analyse
from infra import analysis, spread, verbs
from infra.settings import Settings, region
from infra.tasks import progress
from infra.verbs import Tally
from infra.wiring import Services, build, embedded_catalog
from stac.validate import validate
from stac.watch import Watcher
from twin.events import ANALYSIS_COMPLETED, ANALYSIS_REFUSED, DROUGHT_UPDATED

OBSERVED, ALONE = 34, 30  # days the provider's satellite sees after its first 90 of weather, and days it is not asked
SMALL = {
    "TWIN_DEMO__RESOLUTION": "6",
    "TWIN_DEMO__REFERENCE_YEARS": "2",
    "TWIN_ASSIMILATION__ENABLED": "true",
    "TWIN_ASSIMILATION__MEMBERS": "40",
    "TWIN_ASSIMILATION__LOOPS": "1",
    "TWIN_ASSIMILATION__WINDOW": "60",
    "TWIN_ASSIMILATION__CARRIED": "10",
    "TWIN_ASSIMILATION__LOCAL": "false",
}
MOISTURE = "simulated-soil-moisture"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """About seventy cells, a short reference, an ensemble that takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def provider(tmp_path_factory, small) -> Path:
    """A simulated provider's folder: 90 days of weather, then days that a satellite sees as well."""
    from infra.provider import Provider

    folder = tmp_path_factory.mktemp("provider")
    source = Provider(folder, region("demo"))
    source.backfill()
    for _ in range(OBSERVED + ALONE):
        source.publish_next()
    return folder


@pytest.fixture(scope="module")
def arrivals(provider) -> list[dict]:
    return offered(provider)


def offered(provider: Path) -> list[dict]:
    return list(Watcher(str(provider / "catalog.json")).poll(datetime.now(UTC)))


def until(arrivals: list[dict], days: int = OBSERVED) -> list[dict]:
    """What is of the first so many days after the weather that is there from the beginning, and not late."""
    last = pd.Timestamp(region("demo").start) + pd.Timedelta(days=90 + days - 1)
    return [a for a in arrivals if a["datetime"][:10] <= str(last.date()) and a is not late(arrivals)]


def late(arrivals: list[dict]) -> dict:
    """A retrieval of the window that comes when all others have been assimilated."""
    return next(a for a in arrivals if a["product"] == MOISTURE and a["datetime"][:10] >= "2024-04-10")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small) -> Path:
    home = tmp_path_factory.mktemp("prepared") / "home"
    verbs.prepare(build(Settings(home=home)), region("demo"))
    return home


@pytest.fixture(scope="module")
def analysed(tmp_path_factory, prepared, arrivals) -> Path:
    """A home that took all that the satellite saw, and analysed it."""
    home = tmp_path_factory.mktemp("analysed") / "home"
    with twin_at(shutil.copytree(prepared, home)) as twin:
        take(twin, until(arrivals))
        assert analysed_now(twin)
    return home


@contextmanager
def twin_at(home: Path) -> Iterator[Services]:
    """The twin of a home, with its catalogue; what an earlier one remembers of its members is gone with its process."""
    spread.forget("demo")
    with embedded_catalog(Settings(home=home)) as settings:
        yield build(settings)


def take(twin: Services, arrivals: list[dict]) -> Tally:
    tally = Tally()
    advance(twin, region("demo"), arrivals, 1000, tally)
    return tally


def analysed_now(twin: Services) -> str:
    """The sentence of the analysis that was due, '' if none was."""
    tally = Tally()
    analyse(twin, region("demo"), tally)
    return tally.analysed


def newest(twin: Services) -> dict[str, Any]:
    return twin.store.at().journal("demo")[-1]


def item(twin: Services, kind: str = "drought") -> dict[str, Any]:
    found = twin.catalog.search(collections=[f"demo-{kind}"], sortby="-properties.twin:sequence", max_items=1)
    return next(iter(found)).to_dict()


def events(twin: Services, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in twin.bus.poll(kind, limit=1000) if event.type == kind]


# ---------------------------------------------------------------------------------------------------------- two speeds
def test_the_open_loop_is_out_first_and_the_analysis_supersedes_it(analysed):
    with twin_at(analysed) as twin:
        view = twin.store.at()
        quick, slow = (entry for entry in view.journal("demo") if entry["release"])
        assert quick["release"]["tier"] == "open_loop" and "analysed_until" not in quick["release"]
        assert slow["release"]["tier"] == "analysis" and slow["previous"] == quick["seq"] and not slow["consumed"]
        assert slow["release"]["valid_day"] == quick["release"]["valid_day"] == "2024-05-03"
        assert slow["release"]["analysed_until"] == "2024-04-29", "the last tenth day that was seen"
        before, after = (
            twin.store.at(twin.store.snapshot_of("demo", entry["seq"])).dataset("demo", "drought")
            for entry in (quick, slow)
        )
        assert spread.SPREAD not in before
        moved = after["root_zone_soil_moisture"] - before["root_zone_soil_moisture"]
        assert float(abs(moved).max()) > 0.01, "states changed"
        assert [data["tier"] for data in events(twin, DROUGHT_UPDATED)] == ["open_loop", "analysis"]
        (told,) = events(twin, ANALYSIS_COMPLETED)
        assert told["accepted"] and told["window"] == ["2024-03-01", "2024-04-29"]
        assert not analysed_now(twin), "nothing new, nothing due"
        status = CliRunner(env={"TWIN_HOME": str(twin.settings.home)})
        (row,) = json.loads(status.invoke(app, ["status", "--json"]).output)
        assert (row["tier"], row["analysed until"]) == ("analysis", "2024-04-29") and not row["assimilating"]
        assert row["last analysis"] == {"window": ["2024-03-01", "2024-04-29"], "accepted": True, "reasons": []}
        said = " ".join(status.invoke(app, ["status"]).output.split())
        assert "demo: analysis of 2024-03-01 to 2024-04-29 accepted" in said


def test_the_item_of_an_analysis_is_valid_small_and_says_what_it_rests_on(analysed):
    with twin_at(analysed) as twin:
        seen = [r for r in twin.store.at().ledger("demo").values() if r["product"] == MOISTURE]
        for kind in ("drought", "state"):
            sent = item(twin, kind)
            properties, told = sent["properties"], sent["properties"]["twin:analysis"]
            assert validate(sent) == []
            assert properties["twin:tier"] == "analysis" and properties["twin:analysed_until"] == "2024-04-29"
            assert "Land corrected with" in properties["processing:lineage"]
            assert told["items"] == sum(r["datetime"][:10] <= "2024-04-29" for r in seen)
            assert told["members"] == 40 and told["observations"] > 300
            assert len(json.dumps(sent)) < 12_000
            links = [link["rel"] for link in sent["links"]]
            assert "derived_from" not in links and "predecessor-version" in links
        assert item(twin)["properties"]["cube:variables"][spread.SPREAD]["unit"] == "m3 m-3"


def test_in_an_outage_the_open_loop_goes_on_says_so_and_its_spread_grows_with_the_rain(analysed, arrivals, tmp_path):
    """Weather goes on for a month, no satellite does."""
    with twin_at(shutil.copytree(analysed, tmp_path / "home")) as twin:
        diagnostics = newest(twin)["analysis"]["diagnostics"]
        rows = diagnostics["control"]
        narrower = [row["deviation"] / row["prior_deviation"] for row in rows]
        assert max(narrower) <= 1.0 + 1e-9 and min(narrower) < 0.9, "no parameter is less sure than it was"
        tally = take(twin, [a for a in arrivals if a["product"] != MOISTURE])
        assert tally.ingested == ALONE and not analysed_now(twin)
        release, sent = newest(twin)["release"], item(twin)["properties"]
        assert (release["tier"], release["analysed_until"]) == ("open_loop", "2024-04-29")
        assert release["valid_day"] == "2024-06-02"
        assert sent["twin:analysed_until"] == "2024-04-29" and "twin:analysis" not in sent
        view = twin.store.at()
        wide = view.dataset("demo", "drought")[spread.SPREAD].load()
        assert np.isnan(wide.sel(time="2024-02-29")).all(), "nothing is known of it before the window"
        assert np.isfinite(wide.sel(time=slice("2024-03-01", None))).all()
        rain = view.dataset("demo", "forcing")["precipitation_flux"].sel(time=slice("2024-04-30", "2024-06-02"))
        wet = 86400.0 * rain.mean("time").values > 1.5  # mm a day; where none falls, no member has its own
        end, month = (float(wide.sel(time=day)[wet].mean()) for day in ("2024-04-29", "2024-06-02"))
        assert wet.sum() > 5 and month > 1.2 * end


# ------------------------------------------------------------------------------------------------------- late and again
def test_a_late_observation_makes_the_window_due_again_and_its_first_members_are_not_run_again(
    analysed, arrivals, tmp_path
):
    with twin_at(shutil.copytree(analysed, tmp_path / "home")) as twin:
        first = newest(twin)["analysis"]
        tally = take(twin, [late(arrivals)])
        assert tally.ingested == 1 and newest(twin)["release"] is None, "it alone moves no map"
        ran = {run["run"] for run in progress(twin.settings.home / "tasks")}
        assert analysed_now(twin)
        again = newest(twin)["analysis"]
        assert again["window"] == first["window"] and again["items"] == first["items"] + 1
        assert again["diagnostics"]["observations"] > first["diagnostics"]["observations"]
        runs = [run for run in progress(twin.settings.home / "tasks") if run["run"] not in ran]
        assert sum(run["reused"] for run in runs) >= 41, "the members about the prior"


def test_any_order_and_grouping_of_arrivals_ends_in_the_same_bits(analysed, prepared, arrivals, tmp_path):
    """Whoever got the last days late had an older window analysed meanwhile; nothing is left of it."""
    seen = until(arrivals)
    early = until(arrivals, OBSERVED - 10)
    rest = [a for a in seen if a not in early]
    random.Random(1).shuffle(early)
    random.Random(2).shuffle(rest)
    with twin_at(shutil.copytree(prepared, tmp_path / "home")) as other:
        for batch in (early[::2], early[1::2]):
            take(other, batch)
        assert analysed_now(other)
        assert newest(other)["analysis"]["window"][1] == "2024-04-19"
        results = other.settings.home / "tasks" / "results"
        of_the_older_window = set(results.glob("*/*"))
        for batch in (rest[::2], rest[1::2]):
            take(other, batch)
        assert analysed_now(other)
        assert of_the_older_window and not of_the_older_window & set(results.glob("*/*")), "nobody asks for them again"
        assert other.store.at().digest("demo") == build(Settings(home=analysed)).store.at().digest("demo")


# ------------------------------------------------------------------------------------------------------------ refusals
def test_an_absurd_sensor_is_refused_and_the_analysis_before_stays(analysed, arrivals, provider, tmp_path):
    """Soil moisture that is suddenly wet where it was dry, and dry where it was wet: too much cannot be believed."""
    spoilt = shutil.copytree(provider, tmp_path / "provider")
    days = pd.date_range("2024-05-04", "2024-05-13")
    for day in days:
        _spoil(spoilt, day)
    absurd = [a for a in until(offered(spoilt), OBSERVED + len(days)) if a["datetime"][:10] > "2024-05-03"]
    with twin_at(shutil.copytree(analysed, tmp_path / "home")) as twin:
        before = newest(twin)
        tally = take(twin, absurd)
        assert tally.quarantined == 0, "each value by itself is possible"
        said = analysed_now(twin)
        entry = newest(twin)
        (told,) = events(twin, ANALYSIS_REFUSED)
        assert said.startswith("Analysis of") and "What was there stays" in said
        assert entry["release"] is None and entry["analysis"]["accepted"] is False
        assert told["reasons"] == entry["analysis"]["reasons"]
        assert f"observations of {MOISTURE}: expected at most 5 % rejected" in told["reasons"][0]
        assert spread.analysed_until(twin.store.at(), "demo") == pd.Timestamp("2024-04-29")
        assert twin.store.at().dataset("demo", "analysis").attrs["key"] == before["analysis"]["key"]
        assert not analysed_now(twin), "it is not tried again before something new comes"


def _spoil(provider: Path, day: pd.Timestamp) -> None:
    """Change a retrieval in its file, and the checksum with it."""
    home = provider / MOISTURE / f"{MOISTURE}-{day:%Y%m%d}"
    if not home.exists():
        return  # no overpass that day
    asset, document = home / f"{home.name}.nc", home / f"{home.name}.json"
    data = xr.load_dataset(asset)
    moisture = data["surface_soil_moisture"]
    data["surface_soil_moisture"] = moisture.copy(data=np.where(moisture > 0.3, moisture - 0.25, moisture + 0.3))
    data.to_netcdf(asset, engine="h5netcdf")
    content, told = asset.read_bytes(), json.loads(document.read_text())
    for each in told["assets"].values():
        each |= {"file:size": len(content), "file:checksum": "1220" + hashlib.sha256(content).hexdigest()}
    document.write_text(json.dumps(told))


# ------------------------------------------------------------------------------------------------------------- crashes
def test_a_crash_before_the_commit_shows_nothing_and_costs_nothing(prepared, analysed, arrivals, tmp_path):
    """Killed when the analysis was done but not committed: the next run finds every task done."""
    program = """
import os, signal
from infra import analysis
from infra.settings import Settings, region
from infra.wiring import build
services, place = build(Settings()), region("demo")
plan = analysis.due(services.store.at(), place, services.settings)
assert analysis.accepted(analysis.assimilate(services, place, plan))
os.kill(os.getpid(), signal.SIGKILL)
"""
    with twin_at(shutil.copytree(prepared, tmp_path / "home")) as twin:
        take(twin, until(arrivals))
        before = twin.store.at()
        run = [sys.executable, "-c", program]
        done = subprocess.run(
            run, env={**environ, "TWIN_HOME": str(twin.settings.home)}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == -9, done.stderr
        assert twin.store.at().snapshot == before.snapshot and not events(twin, ANALYSIS_COMPLETED)
        ran = progress(twin.settings.home / "tasks")
        assert analysed_now(twin)
        again = [run for run in progress(twin.settings.home / "tasks") if run not in ran]
        assert sum(run["done"] for run in again) == 0, "no task ran twice"
        assert sum(run["reused"] for run in again) == sum(run["total"] for run in ran) > 80
        assert twin.store.at().digest("demo") == build(Settings(home=analysed)).store.at().digest("demo")


# ------------------------------------------------------------------------------------------------------ where it runs
@pytest.mark.slurm
def test_an_analysis_has_the_same_bits_when_its_members_are_jobs_of_a_queue(analysed, prepared, arrivals, tmp_path):
    """Two nodes of a real SLURM run what this process ran in `analysed`; a job is cancelled while they do."""
    case = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slurm_case.py")))
    with case.slurm(tmp_path / "slurm"), pytest.MonkeyPatch.context() as patch:
        for name, value in {"KIND": "slurm", "JOBS": "2", "MEMORY": "1GB", "INTERFACE": "lo"}.items():
            patch.setenv(f"TWIN_COMPUTE__{name}", value)
        with twin_at(shutil.copytree(prepared, tmp_path / "home")) as twin:
            take(twin, until(arrivals, OBSERVED))
            plan = analysis.due(twin.store.at(), region("demo"), twin.settings)
            cancelled: list[str] = []

            def cancel_one(standing: dict[str, Any]) -> None:
                if not cancelled and standing["done"] > 5:
                    jobs = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True)
                    cancelled.extend(jobs.stdout.split()[:1])
                    subprocess.run(["scancel", *cancelled], check=True)

            found = analysis.assimilate(twin, region("demo"), plan, cancel_one)
            analysis.commit(twin, region("demo"), plan, found)
            hosts = {run["state"] for run in progress(twin.settings.home / "tasks")}
            assert cancelled and hosts == {"done"}
            there = twin.store.at().digest("demo")
    with twin_at(analysed) as twin:
        assert there == twin.store.at().digest("demo")
