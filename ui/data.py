"""What the portal reads: one shared consumer of the bus, and cached read-only questions to the store.

    bus ──▸ Feed (one thread per server process) ──▸ Pulse ──▸ every session looks at it once a second
    store ◂── questions keyed by snapshot id: a snapshot never changes, so an answer is never stale

The thread never calls Streamlit; sessions never call the bus.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from infra.bus import Event
from twin import climatology, grid
from twin.errors import TwinError
from twin.events import DROUGHT_UPDATED
from ui import figures

log = logging.getLogger("ui")

LISTED = 500  # events looked at in each round; enough to find the newest release of every region after a restart
ROUND = 0.5  # s between looks at the bus
CATALOGUE_ROUND = 15.0  # s between looks at the catalogue
MOISTURE, SPREAD = "surface_soil_moisture", "root_zone_soil_moisture_spread"


class View(Protocol):
    """One snapshot of the store, as `infra.store.View`."""

    snapshot: str

    def regions(self) -> Sequence[str]: ...
    def has(self, region: str, group: str) -> bool: ...
    def dataset(self, region: str, group: str) -> xr.Dataset: ...
    def map(self, region: str, group: str, variable: str, day: Any) -> np.ndarray: ...
    def series(self, region: str, group: str, variable: str, cell: int) -> xr.DataArray: ...
    def journal(self, region: str, after: int = -1) -> Sequence[Mapping[str, Any]]: ...
    def next_seq(self, region: str) -> int: ...
    def ledger(self, region: str) -> Mapping[str, Mapping[str, Any]]: ...


class Source(Protocol):
    """Where the portal reads from."""

    def announced(self, n: int) -> Sequence[Event]:
        """The last n events, oldest first; raises while the bus is away."""
        ...

    def view(self, snapshot: str | None = None) -> View:
        """One snapshot of the store, by default the newest."""
        ...

    def knock(self) -> None:
        """Ask the catalogue for one item; raises while it is away."""
        ...

    def outlines(self) -> Sequence[Mapping[str, Any]]:
        """Land outlines, [{name, rings}]."""
        ...

    def about(self, region: str) -> Mapping[str, Any]:
        """What the settings say of a region: its title; {} when it is unknown."""
        ...


class Recent(Protocol):
    """A bus that can be looked at without being a consumer: every server process must see every event."""

    def latest(self, n: int) -> Sequence[Event]: ...


class Served:
    """The Source on the real services."""

    def __init__(self) -> None:
        from infra import settings, wiring

        self._settings = settings
        self._services = wiring.build(settings.Settings())
        self._bus = cast("Recent", self._services.bus)

    def announced(self, n: int) -> Sequence[Event]:
        return self._bus.latest(n)

    def view(self, snapshot: str | None = None) -> View:
        return self._services.store.at(snapshot) if snapshot else self._services.store.at()

    def knock(self) -> None:
        next(iter(self._services.catalog.search(max_items=1)), None)

    def outlines(self) -> Sequence[Mapping[str, Any]]:
        return self._settings.outlines()

    def about(self, region: str) -> Mapping[str, Any]:
        try:
            found = self._settings.region(region)
        except TwinError:
            return {}  # a store may hold regions that these settings no longer describe
        return {"title": found.title}


# ------------------------------------------------------------------------------------------------------- the consumer


@dataclass(frozen=True)
class Pulse:
    """What the shared consumer knows at one moment; never changed, only replaced.

    version         grows with everything a page may have to show differently
    events          the newest, oldest first
    newest          region -> its newest event of any kind
    released        region -> its newest drought update
    bus_since, catalogue_since   since when they have not answered, None while they do
    """

    version: int = 0
    events: tuple[Event, ...] = ()
    newest: Mapping[str, Event] = field(default_factory=dict)
    released: Mapping[str, Event] = field(default_factory=dict)
    bus_since: datetime | None = None
    catalogue_since: datetime | None = None
    looked: bool = False


def told(pulse: Pulse, events: Sequence[Event]) -> Pulse:
    """The pulse after the bus answered with its last events."""
    known = pulse.events[-1].position if pulse.events else 0
    fresh = bool(events) and events[-1].position != known
    if not fresh and pulse.bus_since is None and pulse.looked:
        return pulse
    regional = [event for event in events if event.key]
    return replace(
        pulse,
        version=pulse.version + 1,
        events=tuple(events),
        newest={**pulse.newest, **{event.key: event for event in regional}},
        released={**pulse.released, **{event.key: event for event in regional if event.type == DROUGHT_UPDATED}},
        bus_since=None,
        looked=True,
    )


class Feed:
    """Looks at the bus for all sessions of this server process; survives its absence and says since when."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pulse = Pulse()
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._stop = threading.Event()
        # two threads, because an unreachable catalogue may take seconds to say so
        for look, every in ((self._look_at_bus, ROUND), (self._knock, CATALOGUE_ROUND)):
            threading.Thread(target=self._follow, args=(look, every), daemon=True, name="portal").start()

    def pulse(self, patience: float = 2.0) -> Pulse:
        """What is known now; on the very first call, waits up to `patience` seconds for the first look."""
        self._first.wait(patience)
        return self._pulse

    def stop(self) -> None:
        self._stop.set()

    def _follow(self, look: Any, every: float) -> None:
        while not self._stop.is_set():
            look()
            self._stop.wait(every)

    def _look_at_bus(self) -> None:
        try:
            events = self._source.announced(LISTED)
        except Exception as problem:  # whatever fails, the page must go on and say that news cannot arrive
            self._away("bus_since", problem)
        else:
            with self._lock:
                self._pulse = told(self._pulse, events)
        self._first.set()

    def _knock(self) -> None:
        try:
            self._source.knock()
        except Exception as problem:  # as above
            self._away("catalogue_since", problem)
        else:
            with self._lock:
                if self._pulse.catalogue_since is not None:
                    self._pulse = replace(self._pulse, catalogue_since=None, version=self._pulse.version + 1)

    def _away(self, which: str, problem: Exception) -> None:
        with self._lock:
            if getattr(self._pulse, which) is None:
                log.warning("%s: %s", which.removesuffix("_since"), problem)
                changed: dict[str, Any] = {which: datetime.now(UTC), "version": self._pulse.version + 1}
                self._pulse = replace(self._pulse, **changed)


@st.cache_resource(show_spinner=False)
def source() -> Source:
    """The one source of this server process."""
    return Served()


@st.cache_resource(show_spinner=False, on_release=lambda feed: feed.stop())
def feed() -> Feed:
    """The one consumer of this server process."""
    return Feed(source())


# --------------------------------------------------------------------------------------------------------- a release


@dataclass(frozen=True)
class Release:
    """One drought release, as announced, or the newest of the store where nothing was announced.

    latest_snapshot is the region's newest of any kind: it may hold items taken in since the release.
    """

    region: str
    snapshot: str
    latest_snapshot: str
    valid_day: date
    tier: str
    simulated: bool
    reference_years: int
    analysed_until: date | None
    sequence: int | None
    made: datetime | None
    href: str = ""
    announced: bool = True


def release(pulse: Pulse, region: str) -> Release | None:
    """The newest release of a region; None while it has none."""
    event = pulse.released.get(region)
    if event is None:
        return _unannounced(region)
    newest = pulse.newest[region].data.get("snapshot") or event.data["snapshot"]
    return _release(region, event.data, event.data["snapshot"], newest, when(event.time), True)


def _unannounced(region: str) -> Release | None:
    view = source().view()
    for entry in reversed(list(view.journal(region))):
        for body in entry.get("events", ()):
            if body["type"] == DROUGHT_UPDATED:
                return _release(region, body["data"], view.snapshot, view.snapshot, when(entry.get("time", "")), False)
    return None


def _release(
    region: str, data: Mapping[str, Any], snapshot: str, newest: str, made: datetime | None, announced: bool
) -> Release:
    until = data.get("analysed_until")
    return Release(
        region=region,
        snapshot=snapshot,
        latest_snapshot=newest,
        valid_day=date.fromisoformat(str(data["valid_day"])[:10]),
        tier=str(data.get("tier", "")),
        simulated=bool(data.get("simulated", False)),
        reference_years=int(data.get("reference_years") or 0),
        analysed_until=date.fromisoformat(str(until)[:10]) if until else None,
        sequence=data.get("sequence"),
        made=made,
        href=str(data.get("item") or ""),
        announced=announced,
    )


def when(text: str) -> datetime | None:
    """A moment from RFC 3339 text, None where it is not one."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def regions(pulse: Pulse) -> list[str]:
    """All regions with something to show, alphabetically."""
    return sorted({*source().view().regions(), *pulse.released})


# --------------------------------------------------------------------------------------- questions keyed by snapshot


@st.cache_resource(max_entries=16, show_spinner=False)
def layout(snapshot: str, region: str) -> tuple[figures.Raster, np.ndarray]:
    """The region's raster, and the area of its cells, km2."""
    cells = source().view(snapshot).dataset(region, "grid").load()
    where = figures.layout(cells["lat"].values, cells["lon"].values, cells.attrs["resolution"])
    return where, grid.cell_area(cells).values


@st.cache_resource(max_entries=16, show_spinner=False)
def outlines(bounds: tuple[float, float, float, float]) -> str:
    """The outlines around a region, packed for the map."""
    return figures.text(figures.packed(figures.polylines(source().outlines(), bounds)))


@st.cache_resource(max_entries=1024, show_spinner=False)
def country(lat: float, lon: float) -> str:
    """Name of the country at a place, '' at sea."""
    return figures.country(source().outlines(), lat, lon)


@st.cache_resource(max_entries=64, show_spinner=False)
def days(snapshot: str, region: str) -> tuple[date, date]:
    """First and last day with a drought map."""
    times = pd.DatetimeIndex(source().view(snapshot).dataset(region, "drought")["time"].values)
    return times[0].date(), times[-1].date()


@st.cache_resource(max_entries=64, show_spinner=False)
def classes(snapshot: str, region: str, day: date) -> np.ndarray:
    """Drought class codes (cell) of one day; not to be changed."""
    found = np.asarray(source().view(snapshot).map(region, "drought", "drought_class", np.datetime64(day, "ns")))
    found.setflags(write=False)
    return found


@st.cache_resource(max_entries=64, show_spinner=False)
def sureness(snapshot: str, region: str, day: date) -> tuple[np.ndarray, np.ndarray] | None:
    """Root-zone soil moisture and the spread of the members, m3 m-3 (cell), of one day; None where none is known."""
    view = source().view(snapshot)
    if SPREAD not in view.dataset(region, "drought"):
        return None
    at = np.datetime64(day, "ns")
    spread = view.map(region, "drought", SPREAD, at)
    return (view.map(region, "drought", "root_zone_soil_moisture", at), spread) if np.isfinite(spread).any() else None


@dataclass(frozen=True, eq=False)
class Place:
    """All there is of one cell: series by day, and quantiles by day where there is a climatology.

    moisture (time) m3 m-3 · percentile (time) % · classes (time) · bands (time, probability) m3 m-3 or None
    spread (time) m3 m-3, of the members; None before any analysis · observations product -> (time) m3 m-3
    """

    moisture: xr.DataArray
    spread: xr.DataArray | None
    percentile: xr.DataArray
    classes: xr.DataArray
    bands: xr.DataArray | None
    observations: Mapping[str, xr.DataArray]


@st.cache_resource(max_entries=256, show_spinner=False)
def place(snapshot: str, region: str, cell: int) -> Place:
    """Everything about one cell at one snapshot."""
    view = source().view(snapshot)
    moisture = view.series(region, "drought", "root_zone_soil_moisture", cell)
    percentile = view.series(region, "drought", "soil_moisture_percentile", cell)
    codes = view.series(region, "drought", "drought_class", cell)
    spread = view.series(region, "drought", SPREAD, cell) if SPREAD in view.dataset(region, "drought") else None
    seen = {}
    for product in products(snapshot, region):
        group = f"observations/{product}"
        if MOISTURE in view.dataset(region, group):  # others have no place in a chart of soil moisture
            seen[product] = view.series(region, group, MOISTURE, cell).dropna("time")
    return Place(moisture, spread, percentile, codes, bands(view, region, cell, moisture["time"]), seen)


def bands(view: View, region: str, cell: int, time: xr.DataArray) -> xr.DataArray | None:
    """The quantiles the chart draws, of the cell's climatology on each day of `time`, dims (time, probability)."""
    if not view.has(region, "climatology"):
        return None
    knots = view.dataset(region, "climatology")[climatology.KNOTS].isel(cell=cell)
    knots = knots.sel(probability=list(figures.PROBABILITIES), method="nearest").load()
    before, weight = climatology.pentad_of(time.values)
    held = knots.transpose("pentad", "probability").values
    values = held[before] + weight[:, None] * (held[(before + 1) % climatology.PENTADS] - held[before])
    dims = ("time", "probability")
    return xr.DataArray(values, {"time": time.values, "probability": list(figures.PROBABILITIES)}, dims)


@dataclass(frozen=True)
class Reference:
    """First and last year of the climatology, None where there is none."""

    first: int | None = None
    last: int | None = None


@st.cache_resource(max_entries=64, show_spinner=False)
def reference(snapshot: str, region: str) -> Reference:
    """The years percentiles refer to."""
    view = source().view(snapshot)
    if not view.has(region, "climatology"):
        return Reference()
    about = view.dataset(region, "climatology").attrs
    return Reference(*(int(about[name][:4]) for name in ("reference_start", "reference_end")))


@st.cache_resource(max_entries=64, show_spinner=False)
def _intervals(years: int) -> tuple[np.ndarray, np.ndarray]:
    return climatology.interval(np.arange(101.0), years)


def interval(percentile: float, years: int) -> tuple[float, float]:
    """90 % interval of a percentile known from so many years, %; NaN where there is none."""
    if years < 1 or not np.isfinite(percentile):
        return np.nan, np.nan
    low, high = (float(np.interp(percentile, np.arange(101.0), bound)) for bound in _intervals(years))
    return low, high


@st.cache_resource(max_entries=64, show_spinner=False)
def products(snapshot: str, region: str) -> tuple[str, ...]:
    """Observation products the region holds."""
    view = source().view(snapshot)
    records = view.ledger(region).values()
    taken = {record.get("product", "") for record in records if record.get("kind") == "observation"}
    return tuple(sorted(name for name in taken if name and view.has(region, f"observations/{name}")))


@st.cache_resource(max_entries=64, show_spinner=False)
def refusal(snapshot: str, region: str) -> Mapping[str, Any] | None:
    """The newest analysis, if it was refused: its window and reasons."""
    view = source().view(snapshot)
    for entry in view.journal(region, after=view.next_seq(region) - 2):
        last = entry if entry.get("analysis") else None
        if last is None and entry.get("analysed") is not None:
            last = view.journal(region, after=entry["analysed"] - 1)[0]
        return last["analysis"] if last and not last["analysis"]["accepted"] else None
    return None


@dataclass(frozen=True)
class Counts:
    """The region's books: items taken in and set aside, releases made, and the newest refused, newest first."""

    ingested: int
    quarantined: int
    releases: int
    refused: tuple[Mapping[str, Any], ...]


@st.cache_resource(max_entries=64, show_spinner=False)
def counts(snapshot: str, region: str, shown: int = 50) -> Counts:
    """Counted from the ledger and the journal."""
    view = source().view(snapshot)
    ledger = view.ledger(region)
    refused = [record for record in ledger.values() if record.get("status") == "quarantined"]
    taken = sum(record.get("status") == "consumed" for record in ledger.values())
    return Counts(taken, len(refused), _releases(view, region), tuple(refused[::-1][:shown]))


@st.cache_resource(show_spinner=False)
def _released() -> dict[str, tuple[int, int]]:
    return {}


def _releases(view: View, region: str) -> int:
    """Releases up to this view; journals are append-only, so only entries since the last count are read."""
    last, count = _released().get(region, (-1, 0))
    entries = list(view.journal(region, after=last))
    count += sum(bool(entry.get("release")) for entry in entries)
    if entries:
        _released()[region] = (entries[-1]["seq"], count)
    return count
