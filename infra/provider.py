"""A simulated data provider: a static STAC catalogue in which a new day appears every few seconds.

    asset ─rename─► item ─rename─► collection ─rename─► visible to whoever polls

Each arrow is one atomic rename after an fsync, so at any moment, killed or not, the catalogue is valid and complete.
What is published is what a provider would know: weather with errors, and what a satellite sees of the soil moisture of
a true land (`twin.synthetic.nature`) that is shown to nobody; its state is kept in `.nature.npz` beside the catalogue.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra.settings import Region, region, region_grid
from twin import parameters, state, synthetic
from twin.errors import SettingsError
from twin.inputs import THETA
from twin.land import LandDaily

FORCING, MOISTURE = "simulated-forcing", "simulated-soil-moisture"
TITLES = {FORCING: "Simulated weather", MOISTURE: "Simulated satellite soil moisture"}
DESCRIPTIONS = {
    FORCING: "Simulated daily weather with the errors such a product has. Not a measurement: for demonstrations.",
    MOISTURE: "Simulated retrievals of surface soil moisture: swaths, gaps below forest, errors. Not a measurement.",
}
FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
WARM_UP = 90  # days of weather that are there at the first start, so that there is a map at once
SPIN_UP = 1096  # days the true land runs before the first day
ONE_DAY = pd.Timedelta(days=1)


class Provider:
    """Publishes `region`'s simulated days into the catalogue in `folder`, each once, in order, resuming where it was.

    lag   days by which retrievals come later than the weather of their day
    now   the wall clock, UTC: no day is published before it is over
    """

    def __init__(
        self, folder: Path, place: Region, *, lag: int = 0, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        if not place.simulated or place.seed is None:
            raise SettingsError("simulated provider", expected="a simulated region", found=place.name)
        self.folder, self.place, self.seed, self.lag, self.now = Path(folder), place, place.seed, lag, now
        self.first = pd.Timestamp(place.start).normalize() + pd.Timedelta(days=WARM_UP)
        self.grid = region_grid(place)
        self.climate = synthetic.climate(self.grid, self.seed)
        self.model = LandDaily()
        soil = synthetic.soils(self.grid, self.seed, true=True)
        self.parameters = parameters.from_texture(soil["sand"], soil["silt"], soil["clay"])
        self.catalog = self.folder / "catalog.json"
        self._checkpoint = self.folder / ".nature.npz"

    # --- what there is ----------------------------------------------------------------------------------------------
    @property
    def next_day(self) -> pd.Timestamp:
        """The first day whose weather is not published."""
        published = _load(self.folder / FORCING / "collection.json")
        if published is None:
            return pd.Timestamp(self.place.start).normalize()
        return _day(published["extent"]["temporal"]["interval"][0][1]) + ONE_DAY

    @property
    def yesterday(self) -> pd.Timestamp:
        """The last day that is over."""
        return pd.Timestamp(self.now().date()) - ONE_DAY

    # --- what is published ------------------------------------------------------------------------------------------
    def backfill(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Publish the weather before the first live day, month by month; how many items were new."""
        days = pd.date_range(self.next_day, min(self.first - ONE_DAY, self.yesterday))
        months = [part for _, part in pd.Series(days, index=days).groupby(days.to_period("M"))]
        for done, month in enumerate(months):
            if stopped():
                return done
            self._publish_weather(pd.DatetimeIndex(month))
        return len(months)

    def publish_next(self, stopped: Callable[[], bool] = lambda: False) -> pd.Timestamp | None:
        """Publish the next day's weather and every retrieval due with it; the day, or None before it is over."""
        day = self.next_day
        if day > self.yesterday:
            return None
        self.publish_day(day, stopped)
        return day

    def publish_day(self, day: pd.Timestamp, stopped: Callable[[], bool] = lambda: False) -> None:
        """Publish the weather of `day` and the retrievals due by then; what is there already does not change."""
        self._publish_weather(pd.DatetimeIndex([day]))
        self._observe(day - self.lag * ONE_DAY, stopped)

    def run(self, interval: float = 8.0, stop: threading.Event | None = None, speed: int = 1) -> None:
        """Publish `speed` days every `interval` seconds until `stop`; from yesterday on, one day each day."""
        stop = stop or threading.Event()
        self.backfill(stop.is_set)
        while not stop.is_set():
            began = time.monotonic()
            days = [self.publish_next(stop.is_set) for _ in range(speed) if not stop.is_set()]
            caught_up = None in days
            stop.wait(60.0 if caught_up else max(0.0, interval - (time.monotonic() - began)))

    def _publish_weather(self, days: pd.DatetimeIndex) -> None:
        name = f"{days[0]:%Y%m%d}" if len(days) == 1 else f"{days[0]:%Y%m%d}-{days[-1]:%Y%m%d}"
        self._publish(FORCING, name, synthetic.forcing(self.climate, days, perturbed=True))

    def _observe(self, until: pd.Timestamp, stopped: Callable[[], bool]) -> None:
        """Carry the true land on to `until`, publishing what the satellite sees of each live day."""
        land, last = self._true_land()
        while last < until and not stopped():
            # Before the first live day nobody observes, so the land may run month by month.
            days = pd.date_range(last + ONE_DAY, min(until, max(last + ONE_DAY, self.first - ONE_DAY)))[:31]
            before = land
            land, _ = synthetic.nature(self.model, self.climate, self.parameters, land, days)
            last = days[-1]
            if last >= self.first:  # one day, so that the mean of its start and end is that of the day
                surface = 0.5 * (before[THETA] + land[THETA]).isel(layer=0).values
                seen = synthetic.retrievals(surface, self.climate, last, self.seed)
                if np.isfinite(seen["surface_soil_moisture"].values).any():  # no overpass, no product
                    self._publish(MOISTURE, f"{last:%Y%m%d}", seen)
            values = {str(name): data.values for name, data in land.data_vars.items()}
            with _replacing(self._checkpoint) as draft, draft.open("wb") as out:
                np.savez(out, allow_pickle=False, day=f"{last:%Y-%m-%d}", **values)

    def _true_land(self) -> tuple[xr.Dataset, pd.Timestamp]:
        """The state of the true land and the last day it has seen, from its checkpoint or from the start."""
        land = state.initial(self.parameters)
        if not self._checkpoint.exists():
            return land, pd.Timestamp(self.place.start).normalize() - pd.Timedelta(days=SPIN_UP) - ONE_DAY
        with np.load(self._checkpoint, allow_pickle=False) as saved:
            values, day = {name: saved[name] for name in land.data_vars}, pd.Timestamp(str(saved["day"]))
        sizes = [f"{array.shape[-1]} cells" for array in (self.grid["lat"], values["canopy_water_amount"])]
        if sizes[0] != sizes[1]:
            raise SettingsError("simulated provider", expected=sizes[0], found=sizes[1], where=str(self._checkpoint))
        return land.copy(data=values), day

    # --- how it is published ----------------------------------------------------------------------------------------
    def _publish(self, collection: str, name: str, data: xr.Dataset) -> None:
        """Asset, then item, then collection, each in one rename; an item that is there already stays untouched."""
        home = self.folder / collection / f"{collection}-{name}"
        asset, item = home / f"{home.name}.nc", home / f"{home.name}.json"
        home.mkdir(parents=True, exist_ok=True)
        attrs = {"title": f"{TITLES[collection]}, {self.place.title}", "comment": DESCRIPTIONS[collection]}
        _write_netcdf(data.assign_attrs(Conventions="CF-1.11", **attrs), asset)
        document = self._item(collection, asset, data)
        before = _load(item)
        if before is None or before["assets"] != document["assets"]:
            _write_json(document, item)
        self._list(collection, document)
        if not self.catalog.exists() or collection not in self.catalog.read_text(encoding="utf-8"):
            _write_json(self._catalog(), self.catalog)

    def _item(self, collection: str, asset: Path, data: xr.Dataset) -> dict[str, Any]:
        first, last = pd.Timestamp(data.time.values[0]), pd.Timestamp(data.time.values[-1])
        made, content = self._stamp(), asset.read_bytes()
        west, south, east, north = self.bbox
        corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        span = f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        bands = [{"name": name, "unit": data[name].attrs["units"]} for name in data.data_vars]
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [FILE_EXTENSION],
            "id": asset.stem,
            "collection": collection,
            "bbox": self.bbox,
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": {
                "title": f"{TITLES[collection]}, {span}",
                "datetime": f"{first:%Y-%m-%d}T00:00:00Z",
                "start_datetime": f"{first:%Y-%m-%d}T00:00:00Z",
                "end_datetime": f"{last:%Y-%m-%d}T23:59:59Z",
                "created": made,
                "updated": made,
            },
            "assets": {
                "data": {
                    "href": f"./{asset.name}",
                    "type": "application/x-netcdf",
                    "title": TITLES[collection],
                    "roles": ["data"],
                    "bands": bands,
                    "file:size": len(content),
                    "file:checksum": "1220" + hashlib.sha256(content).hexdigest(),  # multihash: sha2-256, 32 bytes
                }
            },
            "links": [
                {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
                {"rel": "parent", "href": "../collection.json", "type": "application/json"},
                {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            ],
        }

    def _list(self, collection: str, item: dict[str, Any]) -> None:
        """Make the item known in its collection, which is created with its first item."""
        path = self.folder / collection / "collection.json"
        document = _load(path) or self._collection(collection, item)
        link = {"rel": "item", "href": f"./{item['id']}/{item['id']}.json", "type": "application/geo+json"}
        interval = document["extent"]["temporal"]["interval"][0]
        end = max(interval[1], item["properties"]["end_datetime"])
        if link in document["links"] and end == interval[1]:
            return
        interval[1] = end
        document["links"] = [known for known in document["links"] if known != link] + [link]
        document["updated"] = self._stamp()
        _write_json(document, path)

    def _collection(self, collection: str, item: dict[str, Any]) -> dict[str, Any]:
        properties = item["properties"]
        return {
            "type": "Collection",
            "stac_version": "1.1.0",
            "id": collection,
            "title": f"{TITLES[collection]}, {self.place.title}",
            "description": DESCRIPTIONS[collection],
            "keywords": ["simulated", "drought", "demonstration"],
            "license": "CC0-1.0",
            "extent": {
                "spatial": {"bbox": [self.bbox]},
                "temporal": {"interval": [[properties["start_datetime"], properties["end_datetime"]]]},
            },
            "created": self._stamp(),
            "updated": self._stamp(),
            "links": [
                {"rel": "root", "href": "../catalog.json", "type": "application/json"},
                {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            ],
        }

    def _catalog(self) -> dict[str, Any]:
        there = [name for name in (FORCING, MOISTURE) if (self.folder / name / "collection.json").exists()]
        children = [
            {"rel": "child", "href": f"./{name}/collection.json", "type": "application/json", "title": TITLES[name]}
            for name in there
        ]
        return {
            "type": "Catalog",
            "stac_version": "1.1.0",
            "id": f"simulated-{self.place.name}",
            "title": f"Simulated data, {self.place.title}",
            "description": "A simulated provider: nothing here is a measurement. New days keep arriving.",
            "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}, *children],
        }

    @property
    def bbox(self) -> list[float]:
        """West, south, east, north of the cells, degrees."""
        lat, lon, half = self.grid["lat"].values, self.grid["lon"].values, self.place.resolution / 2.0
        edges = (lon.min() - half, lat.min() - half, lon.max() + half, lat.max() + half)
        return [round(float(edge), 6) for edge in edges]

    def _stamp(self) -> str:
        return self.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- files ----------------------------------------------------------------------------------------------------------
def _day(stamp: str) -> pd.Timestamp:
    return pd.Timestamp(stamp[:10])


def _load(path: Path) -> dict[str, Any] | None:
    """A JSON document, or None if it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` in one step when all is written, or vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_json(document: dict[str, Any], path: Path) -> None:
    with _replacing(path) as draft:
        draft.write_text(json.dumps(document, indent=1), encoding="utf-8")


def _write_netcdf(data: xr.Dataset, path: Path) -> None:
    """A small NetCDF-4 file; the same data give the same bytes."""
    encoding: dict[str, dict[str, Any]] = {str(name): {"zlib": True, "complevel": 1} for name in data.variables}
    if "time" in encoding:
        encoding["time"] = {"units": "days since 1970-01-01", "dtype": "int32"}
    with _replacing(path) as draft:
        data.to_netcdf(draft, engine="h5netcdf", encoding=encoding)


# --- a process of its own -------------------------------------------------------------------------------------------
@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one provider publishes into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise SettingsError(
                "simulated provider", expected="a folder of its own", found="another provider in it", where=str(folder)
            ) from err
        yield


def main(arguments: list[str] | None = None) -> int:
    """Publish until SIGTERM or Ctrl-C; 0, or 5 if another provider has the folder."""
    parser = argparse.ArgumentParser(prog="python -m infra.provider", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the catalogue lies or will lie")
    parser.add_argument("--region", default="demo")
    parser.add_argument("--interval", type=float, default=8.0, help="seconds from one simulated day to the next")
    parser.add_argument("--speed", type=int, default=1, help="days published together")
    parser.add_argument("--lag", type=int, default=0, help="days by which retrievals come later than the weather")
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _alone(given.folder):
            Provider(given.folder, region(given.region), lag=given.lag).run(given.interval, stop, given.speed)
    except SettingsError as err:
        print(err, flush=True)
        return 5
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
