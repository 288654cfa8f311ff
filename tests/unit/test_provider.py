"""The simulated provider: a valid catalogue at every moment, a day at a time, the same days after any restart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pystac
import pytest
import xarray as xr

from infra.provider import FORCING, MOISTURE, Provider, main
from infra.settings import DemoSettings, Region, Settings, region
from stac.sources import recognise
from stac.validate import validate
from twin import synthetic
from twin.errors import SettingsError
from twin.variables import VARIABLES

LATER = datetime(2026, 11, 20, 12, tzinfo=UTC)
LIVE = 3  # days published after the history


@pytest.fixture(scope="module")
def place() -> Region:
    """The simulated region at six degrees: about 70 cells."""
    return region("demo", Settings(demo=DemoSettings(resolution=6.0)))


def provider(folder: Path, place: Region, **options) -> Provider:
    return Provider(folder, place, now=lambda: LATER, **options)


@pytest.fixture(scope="module")
def published(tmp_path_factory, place) -> Path:
    """A catalogue of the history and three days."""
    source = provider(tmp_path_factory.mktemp("provider"), place)
    source.backfill()
    for _ in range(LIVE):
        source.publish_next()
    return source.folder


def documents(folder: Path, collection: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / collection).glob("*/*.json"))]


def checksums(folder: Path) -> dict[str, str]:
    items = documents(folder, FORCING) + documents(folder, MOISTURE)
    return {item["id"]: item["assets"]["data"]["file:checksum"] for item in items}


# --- what is published ----------------------------------------------------------------------------------------------
def test_the_catalogue_is_valid_and_pystac_reads_it(published):
    catalog = pystac.Catalog.from_file(published / "catalog.json")
    assert catalog.title.startswith("Simulated")
    collections = {collection.id: collection for collection in catalog.get_children()}
    assert set(collections) == {FORCING, MOISTURE}
    for collection in collections.values():
        assert collection.title.startswith("Simulated") and collection.license == "CC0-1.0"
        collection.validate()
    items = list(catalog.get_items(recursive=True))
    assert [len(documents(published, name)) for name in (FORCING, MOISTURE)] == [6, 3] and len(items) == 9
    for item in items:
        assert validate(item.to_dict(include_self_link=False)) == []
        assert recognise(item.to_dict()).id == item.collection_id
        assert item.get_collection().id == item.collection_id
        start, end = collections[item.collection_id].extent.temporal.intervals[0]
        assert start <= item.datetime <= end


def test_assets_are_what_the_items_say(published, place):
    grid = Provider(published, place).grid
    for item in documents(published, FORCING) + documents(published, MOISTURE):
        asset = item["assets"]["data"]
        content = (published / item["collection"] / item["id"] / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        with xr.open_dataset(published / item["collection"] / item["id"] / asset["href"], engine="h5netcdf") as data:
            assert [{"name": name, "unit": data[name].attrs["units"]} for name in data.data_vars] == asset["bands"]
            assert np.array_equal(data["lat"], grid["lat"]) and np.array_equal(data["lon"], grid["lon"])
            assert str(data.time.values[0])[:10] == item["properties"]["start_datetime"][:10]
            assert str(data.time.values[-1])[:10] == item["properties"]["end_datetime"][:10]
            for name in set(data.data_vars) & set(VARIABLES):
                assert data[name].dims == ("time", "cell") and data[name].attrs["units"] == VARIABLES[name].units
        assert item["properties"]["title"].startswith("Simulated") and "updated" in item["properties"]


def test_the_first_start_brings_three_months_and_then_one_day_at_a_time(published, place):
    weather = documents(published, FORCING)
    start = pd.Timestamp(place.start)
    days = [
        day
        for item in weather
        for day in pd.date_range(item["properties"]["start_datetime"][:10], item["properties"]["end_datetime"][:10])
    ]
    assert days == list(pd.date_range(start, start + pd.Timedelta(days=92)))
    assert [item["id"] for item in documents(published, MOISTURE)] == [
        f"{MOISTURE}-{day:%Y%m%d}" for day in pd.date_range(start + pd.Timedelta(days=90), periods=LIVE)
    ]


def test_the_published_weather_is_not_the_true_one(published, place):
    source = Provider(published, place)
    day = documents(published, FORCING)[-1]
    with xr.open_dataset(published / FORCING / day["id"] / f"{day['id']}.nc", engine="h5netcdf") as data:
        told = data["air_temperature"].values
    days = pd.DatetimeIndex([day["properties"]["datetime"][:10]])
    true = synthetic.forcing(source.climate, days)["air_temperature"].values
    rumour = synthetic.forcing(source.climate, days, perturbed=True)["air_temperature"].values
    assert told.tobytes() == rumour.tobytes() and told.tobytes() != true.tobytes()


def test_retrievals_lag(tmp_path, place):
    source = provider(tmp_path, place, lag=2)
    source.backfill()
    for _ in range(4):
        last = source.publish_next()
    seen = [item["id"][-8:] for item in documents(tmp_path, MOISTURE)]
    assert seen == [f"{day:%Y%m%d}" for day in pd.date_range(source.first, last - pd.Timedelta(days=2))]


# --- clocks ---------------------------------------------------------------------------------------------------------
def test_no_day_is_published_before_it_is_over(tmp_path, place):
    clock = [datetime(2024, 4, 1, 23, 59, tzinfo=UTC)]
    source = Provider(tmp_path, place, now=lambda: clock[0])
    source.backfill()
    assert str(source.publish_next())[:10] == "2024-03-31"
    assert source.publish_next() is None
    clock[0] = datetime(2024, 4, 2, 0, 0, 1, tzinfo=UTC)
    assert str(source.publish_next())[:10] == "2024-04-01"
    assert source.publish_next() is None


def test_run_publishes_until_it_is_stopped(tmp_path, place):
    source, stop = provider(tmp_path, place), threading.Event()
    thread = threading.Thread(target=source.run, args=(0.05, stop))
    thread.start()
    wait_until(lambda: source.next_day > source.first + pd.Timedelta(days=2))
    stop.set()
    thread.join(10.0)
    assert not thread.is_alive()


# --- restarts -------------------------------------------------------------------------------------------------------
def test_a_restart_goes_on_with_the_same_days(published, tmp_path, place):
    provider(tmp_path, place).backfill()
    for _ in range(LIVE):
        again = provider(tmp_path, place)
        assert again.backfill() == 0
        again.publish_next()
    assert checksums(tmp_path) == checksums(published)


def test_publishing_a_day_again_changes_nothing(published, place, tmp_path):
    folder = shutil.copytree(published, tmp_path / "copy")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = Provider(folder, place)
    for day in pd.date_range(again.first, periods=LIVE):
        again.publish_day(day)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Stands for the end of the process."""


def mortal(step: str, times: int, die) -> type[Provider]:
    """A provider that dies when it is about to do `step` for the n-th time."""

    class Mortal(Provider):
        left = times

    def dying(self, *args):
        Mortal.left -= 1
        if not Mortal.left:
            die()
        return getattr(Provider, step)(self, *args)

    setattr(Mortal, step, dying)
    return Mortal


def die() -> None:
    raise Killed


def complete(folder: Path) -> int:
    """Everything that can be reached from the catalogue is there and is what it says; how many items."""
    if not (folder / "catalog.json").exists():
        return 0
    items = list(pystac.Catalog.from_file(folder / "catalog.json").get_items(recursive=True))
    for item in items:
        content = Path(item.assets["data"].get_absolute_href()).read_bytes()
        assert item.assets["data"].extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    return len(items)


# `_item` is called between asset and item, `_list` between item and collection, `_catalog` after it.
@pytest.mark.parametrize(("step", "times"), [("_item", 1), ("_item", 5), ("_list", 1), ("_list", 5), ("_catalog", 2)])
def test_wherever_it_dies_the_catalogue_is_complete_and_goes_on(published, tmp_path, place, step, times):
    source = mortal(step, times, die)(tmp_path, place, now=lambda: LATER)
    with pytest.raises(Killed):
        source.backfill()
        source.publish_next()
    there = complete(tmp_path)
    catch_up(provider(tmp_path, place))
    assert complete(tmp_path) > there and checksums(tmp_path) == checksums(published)


def catch_up(source: Provider) -> None:
    source.backfill()
    while source.next_day < source.first + pd.Timedelta(days=LIVE):
        source.publish_next()


def test_killed_by_the_kernel_between_asset_and_item(published, tmp_path, place):
    """A real SIGKILL, which runs no `finally`: half a file may stay behind, but nothing leads to it."""
    program = """
import os, signal, sys
from datetime import UTC, datetime
from infra.provider import Provider
from infra.settings import region

class Mortal(Provider):
    def _item(self, collection, asset, data):
        if "soil-moisture" in collection:
            asset.with_name(f".{asset.name}.part").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._item(collection, asset, data)

source = Mortal(sys.argv[1], region("demo"), now=lambda: datetime(2026, 11, 20, tzinfo=UTC))
source.backfill()
source.publish_next()
"""
    command, environment = [sys.executable, "-c", program, str(tmp_path)], {**os.environ, "TWIN_DEMO__RESOLUTION": "6"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert complete(tmp_path) == 4 and not (tmp_path / MOISTURE / "collection.json").exists()
    catch_up(provider(tmp_path, place))
    assert checksums(tmp_path) == checksums(published) and not list(tmp_path.rglob("*.part"))


def test_another_grid_in_the_same_folder_is_refused(published, place):
    other = Provider(published, region("demo", Settings(demo=DemoSettings(resolution=8.0))), now=lambda: LATER)
    with pytest.raises(SettingsError, match=r"expected \d+ cells, found \d+ cells"):
        other.publish_next()


def test_only_a_simulated_region_is_simulated(tmp_path):
    with pytest.raises(SettingsError, match="expected a simulated region, found conus"):
        Provider(tmp_path, region("conus"))


# --- the process ----------------------------------------------------------------------------------------------------
def test_the_process_stops_when_it_is_told_to_and_another_is_refused(tmp_path):
    environment = {**os.environ, "TWIN_DEMO__RESOLUTION": "6"}
    command = [sys.executable, "-m", "infra.provider", "--folder", str(tmp_path), "--interval", "0.1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        try:
            wait_until(lambda: (tmp_path / MOISTURE / "collection.json").exists())
            assert main(["--folder", str(tmp_path)]) == 5
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0, child.stdout.read()
    assert not list(tmp_path.rglob("*.part"))
    for item in pystac.Catalog.from_file(tmp_path / "catalog.json").get_items(recursive=True):
        assert Path(item.assets["data"].get_absolute_href()).exists()


def wait_until(true, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
