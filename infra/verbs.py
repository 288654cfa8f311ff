"""The verbs of one update, in order: prepare, ingest, refresh, assess, commit, publish, announce.

    arrivals ─ingest─▸ Batch ─refresh─▸ Change ─assess─▸ entry ─commit─▸ snapshot ─publish─▸ items ─announce─▸ events
                          └ refused items keep their reason   └ one commit: arrays, item keys and facts together

Every array is a pure function of the set of items consumed, so any order, grouping or repetition of arrivals ends in
the same bits. Publishing and announcing are projections of the journal: they may be repeated, and resume by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import indices, quicklook, regional, registry, warning
from infra import ingest as reading
from infra.bus import Event
from infra.settings import Region
from infra.spread import SPREAD, analysed_until, parameters_in_use, spread_after
from infra.store import Draft, View
from infra.wiring import Services
from stac import collection as collections
from stac import emulator as emulators
from stac import item as items
from stac import outlook as outlooks
from stac.catalog import Refused, Unreachable
from stac.watch import Watcher
from twin import climatology, forcing, grid, state
from twin.errors import Conflict, Rejected, SettingsError, TimeError, Transient
from twin.events import DROUGHT_UPDATED, ITEM_QUARANTINED, OBSERVATIONS_INGESTED, REGION_PREPARED, fact
from twin.indices import classes
from twin.variables import LAYERS, VARIABLES, with_role

DAY = pd.Timedelta(days=1)
SPIN_UP = 365 * DAY
CONFLICT_TRIES = 8
REQUIRED = tuple(row.name for row in with_role("forcing"))
KEPT = (  # of what a land model tells of a day
    "volume_fraction_of_condensed_water_in_soil",
    "soil_temperature",
    "canopy_water_amount",
    "surface_snow_amount",
    "water_evapotranspiration_flux",
    "runoff_flux",
)


@dataclass(frozen=True)
class Batch:
    """Arrivals after reading: what can be used, what is set aside and why, what must be tried again."""

    granules: tuple[reading.Granule, ...] = ()
    refused: tuple[dict[str, Any], ...] = ()
    waiting: tuple[dict[str, Any], ...] = ()
    known: int = 0


@dataclass(frozen=True)
class Change:
    """What one batch changed in the store, by days; None where nothing did."""

    observations: int = 0
    forcing: int = 0
    state: tuple[pd.Timestamp, pd.Timestamp] | None = None


@dataclass
class Tally:
    """Counts of one run, for people and for `--json`."""

    seen: int = 0
    ingested: int = 0
    quarantined: int = 0
    waiting: int = 0
    commits: int = 0
    published: int = 0
    events: int = 0
    analyses: int = 0
    analysed: str = ""
    emulators: int = 0
    trained: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def now() -> datetime:
    """The clock of the twin, UTC."""
    return datetime.now(UTC)


# ------------------------------------------------------------------------------------------------------------- look
def look(watcher: Watcher) -> Iterator[dict[str, Any]]:
    """What a source has that this watcher has not seen; Transient while it is away, SettingsError if it refuses us."""
    try:
        yield from watcher.poll(now())
    except Unreachable as err:
        raise Transient("source", expected="an answer", found=str(err), where=watcher.source) from err
    except Refused as err:
        raise SettingsError("source", expected="to be let in", found=str(err), where=watcher.source) from err


# ---------------------------------------------------------------------------------------------------------- prepare
def prepare(services: Services, region: Region, arrivals: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Create the region in the store if it is not there: cells, parameters, and the reference where it is simulated.

    True when it is there afterwards; False when its cells come from its source and no item that shows them has arrived.
    Raises SettingsError if it was prepared for another land model than the settings choose.
    """
    view = services.store.at()
    if view.has(region.name, "grid"):
        _check_model(view, region, services)
        return True
    cells = regional.cells(services, region, arrivals)
    if cells is None:
        return False
    parameters = regional.parameters(services.settings.model, region, cells, arrivals)
    if parameters is None:
        return False
    draft = services.store.draft()
    draft.create(region.name, cells, region.start, services.settings.model.identity)
    draft.put(region.name, "parameters", parameters)
    if region.simulated:
        first_state = regional.simulated_reference(services, region, cells, parameters).write(draft, region)
        draft.put(region.name, "start", first_state)
    prepared = fact(
        REGION_PREPARED, region.name, region.name, {"cells": cells.sizes["cell"], "simulated": region.simulated}
    )
    append(draft, region, events=[prepared])
    try:
        draft.commit(f"prepare {region.name}")
    except Conflict:
        return prepare(services, region, arrivals)
    return True


def _check_model(view: View, region: Region, services: Services) -> None:
    """Refuse a land model, or choices of it, other than the region's: states and reference would not be comparable."""
    settings = services.settings.model
    for name, kept in (view.model(region.name) or {"kind": "land-daily", "precision": "double"}).items():
        chosen = getattr(settings, name)
        if chosen != kept:
            why = f"{region.name} was prepared with it; to use another, prepare it again under another TWIN_HOME"
            raise SettingsError(f"TWIN_MODEL__{name.upper()}", expected=kept, found=chosen, where=why)


# ----------------------------------------------------------------------------------------------------------- ingest
def ingest(
    services: Services,
    region: Region,
    arrivals: Iterable[Mapping[str, Any]],
    track: Callable[[Iterable], Iterable] = iter,
) -> Batch:
    """Read every arrival not dealt with yet; a bad one is set aside with its reason and never stops the others."""
    view = services.store.at()
    ledger = view.ledger(region.name)
    cells = view.dataset(region.name, "grid").load()
    fresh = {arrival["key"]: dict(arrival) for arrival in arrivals if arrival["key"] not in ledger}
    granules, refused, waiting = [], [], []
    for arrival in track(list(fresh.values())):
        try:
            if arrival.get("error"):
                raise Rejected(f"item {arrival['id']}", expected="a STAC item", found=arrival["error"])
            granules.append(reading.read(arrival, cells, now=now(), region=region, settings=services.settings))
        except Rejected as reason:
            refused.append(_refusal(arrival, reason))
        except Transient as reason:
            waiting.append({**arrival, "reason": str(reason)})
    granules.sort(key=lambda granule: _rank(granule.arrival))
    return Batch(
        tuple(granules), tuple(refused), tuple(waiting), known=len(ledger.keys() & {a["key"] for a in arrivals})
    )


def set_aside(
    services: Services, region: Region, arrivals: Iterable[Mapping[str, Any]], reason: Rejected
) -> str | None:
    """Quarantine arrivals that cannot even be tried, such as ones that keep killing their run."""
    ledger = services.store.at().ledger(region.name)
    refused = tuple(_refusal(dict(arrival), reason) for arrival in arrivals if arrival["key"] not in ledger)
    return commit(services, region, Batch(refused=refused))


def reconsider(services: Services, region: Region, keys: Sequence[str]) -> None:
    """Let quarantined items be read again: a journal entry takes back that they were set aside."""
    draft = services.store.draft()
    append(draft, region, retried=sorted(keys))
    draft.commit(f"{region.name}: {len(keys)} items are tried again")


# ---------------------------------------------------------------------------------------------------------- refresh
def refresh(draft: Draft, region: Region, batch: Batch, services: Services) -> Change:
    """Write the batch's observations and forcing, then carry the land state through every day that this changes."""
    ledger = draft.ledger(region.name)
    pieces: dict[str, list[xr.Dataset]] = {}
    for granule in batch.granules:
        group = "forcing" if granule.kind == "forcing" else f"observations/{granule.product}"
        pieces.setdefault(group, []).append(granule.data.sel(time=_uncontested(granule, ledger)))
    days = {group: _joined(parts) for group, parts in pieces.items()}
    for group, data in days.items():
        draft.write(region.name, group, data)
    drivers = days.pop("forcing", None)
    observations = sum(data.sizes["time"] for data in days.values())
    if drivers is None or drivers.sizes["time"] == 0:
        return Change(observations)
    first = pd.Timestamp(drivers.time.values[0])
    return Change(observations, drivers.sizes["time"], carry(draft, region, batch, first, services))


def _joined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The days of several granules of one product in order; of a day that several have, the last one's."""
    data = parts[0] if len(parts) == 1 else xr.concat(parts, "time", join="override", combine_attrs="override")
    return data.isel(time=~data.indexes["time"].duplicated(keep="last")).sortby("time")


def carry(
    draft: Draft, region: Region, batch: Batch, first: pd.Timestamp, services: Services
) -> tuple[pd.Timestamp, pd.Timestamp] | None:
    """Run the land model from the first changed day to the end of the unbroken forcing; the days it ran."""
    origin = pd.Timestamp(region.start)
    before, last_day = frontier(draft, region), frontier(draft, region, batch.granules)
    first = first if before is None else min(first, before + DAY)
    if last_day is None or first > last_day:
        return None
    parameters = parameters_in_use(draft, region.name)
    own_year = not region.simulated and first < origin + SPIN_UP
    if own_year:
        first = origin
    draft.drop_restarts(region.name, after=first)
    start = draft.restart(region.name, before=first)
    if start is None or own_year:
        day, land = origin, initial_state(draft, region, parameters, origin, last_day, services)
    else:
        day, land = pd.Timestamp(start[0]), start[1].load()
    while day <= last_day:
        last = min(day + pd.offsets.MonthEnd(0), last_day)
        land, diagnostics = services.model.run(land, drivers(draft, region, day, last), parameters)
        keep = diagnostics.sel(time=slice(first, None))
        if keep.sizes["time"]:
            draft.write(region.name, "state", keep[[name for name in KEPT if name in keep]].astype("float32"))
        day = last + DAY
        draft.save_restart(region.name, day, land)
    parted = spread_after(draft, region, first, last_day, services.model, partial(drivers, draft, region))
    if parted is not None:
        draft.write(region.name, "drought", parted)
    return first, last_day


def initial_state(
    draft: View,
    region: Region,
    parameters: xr.Dataset,
    origin: pd.Timestamp,
    last_day: pd.Timestamp,
    services: Services,
) -> xr.Dataset:
    """The state at the region's first day: in equilibrium with its first year of forcing once that year is complete."""
    if last_day < origin + SPIN_UP - DAY:
        return state.initial(parameters)
    year = drivers(draft, region, origin, origin + SPIN_UP - DAY)
    start = state.initial(parameters, temperature=year["air_temperature"].mean("time", dtype="float64"))
    return state.spin_up(services.model, start, year, parameters)


def drivers(draft: View, region: Region, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
    """The stored forcing of some days as the model takes it: each gap filled from the nearest cell that has data."""
    return forcing.fill_nearest(
        draft.dataset(region.name, "forcing")[list(REQUIRED)].sel(time=slice(first, last)).load()
    )


def frontier(view: View, region: Region, granules: Iterable[reading.Granule] = ()) -> pd.Timestamp | None:
    """The last day up to which forcing is unbroken since the region's first day."""
    spans = [record["spans"] for record in view.ledger(region.name).values() if record.get("kind") == "forcing"]
    spans += [_spans(granule) for granule in granules if granule.kind == "forcing"]
    edge = pd.Timestamp(region.start)
    for first, last in sorted((pd.Timestamp(a), pd.Timestamp(b)) for group in spans for a, b in group):
        if first > edge:
            break
        edge = max(edge, last + DAY)
    return edge - DAY if edge > pd.Timestamp(region.start) else None


# ----------------------------------------------------------------------------------------------------------- assess
def assess(draft: Draft, region: Region, change: Change) -> dict[str, Any] | None:
    """Turn changed states into percentiles, classes, their probabilities and indices; the last day's summary.

    None when nothing changed.
    """
    if change.state is None:
        return None
    first, last = change.state
    theta = _root_zone(draft, region, first, last)
    if region.simulated:
        reference = draft.dataset(region.name, "climatology")
        ranks, years = climatology.percentile(theta, theta.time, reference), int(reference.attrs["reference_years"])
        chances = _chances(draft, region, theta, reference)
    else:
        theta, ranks, chances, years = _own_ranks(draft, region, theta)
    drought = xr.Dataset(
        {
            "root_zone_soil_moisture": theta.astype("float32"),
            "soil_moisture_percentile": ranks.astype("float32"),
            "drought_class": classes.drought_class(ranks),
            "drought_probability": chances.assign_attrs(VARIABLES["drought_probability"].attrs),
        }
    )
    draft.write(region.name, "drought", drought)
    told = indices.follow(draft, region, pd.Timestamp(theta.time.values[0]), last, partial(drivers, draft, region))
    today = drought.isel(time=-1)
    shares = classes.area_fractions(today["drought_class"], grid.cell_area(draft.dataset(region.name, "grid").load()))
    return {
        "valid_day": str(last.date()),
        "first_day": str(pd.Timestamp(drought.time.values[0]).date()),
        "cells": int(np.isfinite(today["root_zone_soil_moisture"]).sum()),
        "class_fractions": {name: round(float(shares.sel(code=code)), 6) for name, code in classes.NAMES.items()}
        if np.isfinite(shares).all()
        else {},
        "reference_years": years,
        "indices": told,
    }


def _chances(draft: View, region: Region, theta: xr.DataArray, reference: xr.Dataset) -> xr.DataArray:
    """Probability of D0 to D4 or worse, (time, code, cell): from the members' spread, where there are members, and
    from how well so many years tell a percentile."""
    spread = None
    if draft.has(region.name, "drought") and SPREAD in draft.dataset(region.name, "drought"):
        kept = draft.dataset(region.name, "drought")[SPREAD].sel(time=slice(*theta["time"].values[[0, -1]])).load()
        spread = kept.reindex(time=theta["time"]).fillna(0.0)
    return _drier(classes.probability_from_spread(theta, spread, theta.time.values, reference))


def _drier(probabilities: xr.DataArray) -> xr.DataArray:
    """Of each class D0 to D4 or a worse one."""
    return classes.at_least(probabilities).sel(code=slice(1, None))


def _own_ranks(
    draft: Draft, region: Region, theta: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, int]:
    """Percentiles of a region that is its own reference: (the days ranked, percentiles, chances, reference years).

    Days of the reference period are ranked against its other years, later days against all of it. A change inside the
    reference therefore moves every day's percentile, and all of them are ranked anew.
    """
    first, last = pd.Timestamp(region.reference_start), pd.Timestamp(region.reference_end)
    if theta.time.values[0] <= last.to_datetime64():
        theta = _root_zone(draft, region, pd.Timestamp(region.start), pd.Timestamp(theta.time.values[-1]))
        record = theta.sel(time=slice(first, last))
        draft.put(region.name, "climatology", climatology.build(record, record.time.values))
    reference = draft.dataset(region.name, "climatology").load()
    own = theta.sel(time=slice(first, last))
    later = theta.sel(time=slice(last + DAY, None))
    before = theta.sel(time=slice(None, first - DAY))
    parts, chances, years = [], [], int(reference.attrs["reference_years"])
    for days in (before, own, later):
        if days.sizes["time"] == 0:
            continue
        if days is own:
            ranks, years = _among_others(own)
            chances.append(_drier(classes.class_probabilities(ranks, reference_years=max(years, 1))))
        else:
            years = int(reference.attrs["reference_years"])
            ranks = climatology.percentile(days, days.time.values, reference)
            chances.append(_chances(draft, region, days, reference))
        parts.append(ranks)
    return theta, xr.concat(parts, "time"), xr.concat(chances, "time"), years


def _among_others(own: xr.DataArray) -> tuple[xr.DataArray, int]:
    """Percentiles of a record among its own other years, and how many those are; none before there are two years."""
    try:
        return climatology.percentile_leave_one_out(own, own.time.values)
    except TimeError:
        return xr.full_like(own, np.nan), 0


def _root_zone(view: View, region: Region, first: pd.Timestamp, last: pd.Timestamp) -> xr.DataArray:
    theta = view.dataset(region.name, "state")["volume_fraction_of_condensed_water_in_soil"]
    return state.root_zone(theta.sel(time=slice(first, last)).load())


# ----------------------------------------------------------------------------------------------------------- commit
def commit(
    services: Services,
    region: Region,
    batch: Batch,
    refresh: Callable[..., Change] = refresh,
    assess: Callable[..., dict[str, Any] | None] = assess,
) -> str | None:
    """Refresh, assess and commit in one transaction; when another writer was first, once more on its result.

    The snapshot id, or None when the batch holds nothing new.
    """
    for attempt in range(CONFLICT_TRIES):
        with services.store.turn():
            batch = _still_new(services.store.at().ledger(region.name), batch)
            if not batch.granules and not batch.refused:
                return None
            draft = services.store.draft()
            change = refresh(draft, region, batch, services)
            summary = assess(draft, region, change)
            append(draft, region, **_entry(draft, region, batch, change, summary, services))
            try:
                return draft.commit(_message(region, batch, summary))
            except Conflict:
                if attempt == CONFLICT_TRIES - 1:
                    raise
    return None


def _still_new(ledger: Mapping[str, Any], batch: Batch) -> Batch:
    """The batch without what another writer has dealt with meanwhile."""
    granules = tuple(granule for granule in batch.granules if granule.arrival["key"] not in ledger)
    return Batch(granules, tuple(r for r in batch.refused if r["key"] not in ledger), batch.waiting, batch.known)


def made_with(view: View, region: Region, services: Services) -> str:
    """Name and version of the land model, and on what land cover it runs."""
    cover = view.dataset(region.name, "parameters").attrs.get("land_cover")
    number = services.model.version.replace(" to ", "-")  # the last space parts name and version
    return f"{services.model.name}{f' on {cover}' if cover else ''} {number}"


def _entry(
    draft: Draft, region: Region, batch: Batch, change: Change, summary: dict[str, Any] | None, services: Services
) -> dict[str, Any]:
    """The journal entry of one update: what it consumed, what it set aside, and the facts to announce."""
    consumed = [_record(granule) for granule in batch.granules]
    warnings: dict[str, Any] = {}
    sequence = draft.next_seq(region.name)
    about = {"region": region.name, "sequence": sequence, "simulated": region.simulated}
    keys = {"consumed": [r["key"] for r in consumed], "quarantined": [r["key"] for r in batch.refused]}
    facts = [
        fact(
            ITEM_QUARANTINED, region.name, r["id"], {**about, "key": r["key"], "kind": r["kind"], "reason": r["reason"]}
        )
        for r in batch.refused
    ]
    if summary is not None:
        detected = min((r["detected"] for r in consumed), default="")
        latency = {"published": max((r["published"] for r in consumed), default=""), "detected": detected}
        summary |= {"tier": "open_loop", **_analysed(draft, region)}
        data = {**about, **summary, **keys, "latency": latency}
        facts.append(fact(DROUGHT_UPDATED, region.name, f"{region.name}-drought", data))
        warnings["warnings"], said = warn(draft, region, services, summary)
        facts += said
    elif change.observations or change.forcing:
        facts.append(fact(OBSERVATIONS_INGESTED, region.name, region.name, {**about, **keys}))
    release = summary and {**summary, "model": made_with(draft, region, services)}
    return {"consumed": consumed, "quarantined": list(batch.refused), "release": release, "events": facts, **warnings}


def warn(
    draft: Draft, region: Region, services: Services, summary: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what stands after a release and what it says, for the journal; the facts of what is said).

    Rules that cannot be used stop no release: what stood stands, and the entry keeps the reason.
    """
    before = warned(draft, region)["standing"]
    days = pd.Timestamp(summary["first_day"]), pd.Timestamp(summary["valid_day"])
    try:
        standing, said = warning.evaluate(draft, region, services.settings, *days, before)
    except (SettingsError, Rejected) as reason:
        return {"standing": before, "said": [], "error": str(reason)}, []
    facts = warning.facts(region, draft.next_seq(region.name), said, {"tier": summary["tier"]})
    return {"standing": standing, "said": [each.data for each in said]}, facts


def warned(view: View, region: Region) -> dict[str, Any]:
    """What the newest release with warnings left: `standing`, `said`, and `error` if its rules could not be used."""
    sequence = last_of(view, region, "warnings")
    return {"standing": {}, "said": []} if sequence is None else view.journal(region.name, sequence - 1)[0]["warnings"]


def _analysed(view: View, region: Region) -> dict[str, str]:
    """Until when observations have been assimilated, where they have."""
    until = analysed_until(view, region.name)
    return {} if until is None else {"analysed_until": str(until.date())}


def append(draft: Draft, region: Region, **fields: Any) -> None:
    """Add an entry to the region's journal, with the time and the newest of each kind before it."""
    empty: dict[str, Any] = {"consumed": [], "quarantined": [], "events": [], "release": None}
    before = {name: last_of(draft, region, kind) for name, kind in _POINTERS.items()}
    draft.append_journal(region.name, {**empty, **fields, **before, "time": stamp(now())})


# what an entry calls the last one before it of a kind
_POINTERS = {"previous": "release", "analysed": "analysis", "trained": "emulator", "warned": "warnings"}


def last_of(view: View, region: Region, kind: str) -> int | None:
    """The sequence of the newest entry with a `release`, an `analysis`, an `emulator` or `warnings`."""
    pointer = next(name for name, of in _POINTERS.items() if of == kind)
    for entry in view.journal(region.name, after=view.next_seq(region.name) - 2):
        return entry["seq"] if entry.get(kind) else entry.get(pointer)
    return None


def _message(region: Region, batch: Batch, summary: dict[str, Any] | None) -> str:
    until = f", drought to {summary['valid_day']}" if summary else ""
    return f"{region.name}: {len(batch.granules)} items in, {len(batch.refused)} set aside{until}"


# ------------------------------------------------------------------------------------------------- publish, announce
KINDS = {  # what is published of a release: its collection and its item
    "drought": (collections.drought_collection, items.drought_item),
    "state": (collections.state_collection, items.state_item),
    "indices": (collections.indices_collection, items.indices_item),
}


def publish(services: Services, region: Region) -> int:
    """Publish every release and emulator of the journal that the catalogue does not have yet; how many were new."""
    done = services.positions.get("published", region.name)
    new = 0
    for entry in services.store.at().journal(region.name, after=done):
        if entry.get("release"):
            release = release_of(services, region, entry)
            there = {row["group"] for row in release["variables"].values()}
            changed = [
                services.catalog.upsert(to(release), [of(release)]) for kind, (to, of) in KINDS.items() if kind in there
            ]
            new += sum(changed) > 0
        if entry.get("outlook"):
            told = outlook_of(services, region, entry)
            new += services.catalog.upsert(outlooks.outlook_collection(told), [outlooks.outlook_item(told)]) > 0
        if (entry.get("emulator") or {}).get("outcome") in (registry.PROMOTED, registry.ROLLED_BACK):
            promotion = registry.promotion_of(services, region, entry)
            new += (
                services.catalog.upsert(emulators.emulator_collection(promotion), [emulators.emulator_item(promotion)])
                > 0
            )
        services.positions.set("published", region.name, entry["seq"])
    return new


def announce(services: Services, region: Region) -> int:
    """Put every fact of the journal the bus does not have on it, with its snapshot and STAC item; how many were new."""
    done = services.positions.get("announced", region.name)
    new = 0
    for entry in services.store.at().journal(region.name, after=done):
        new += services.bus.publish(_event(services, region, entry, body) for body in entry["events"])
        services.positions.set("announced", region.name, entry["seq"])
    return new


def release_of(services: Services, region: Region, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Everything an item says about one release, as plain data; its picture is drawn and kept beside the store."""
    snapshot = services.store.snapshot_of(region.name, entry["seq"])
    view, pictures = services.store.at(snapshot), services.settings.home / "quicklooks"
    look = quicklook.keep(view, region.name, f"{region.name}-r{entry['seq']}", pictures)
    variables = {
        str(name): {**VARIABLES[str(name)].attrs, "dims": VARIABLES[str(name)].dims, "group": group}
        for group in KINDS
        if view.has(region.name, group)
        for name in view.dataset(region.name, group).data_vars
    }
    return {
        "model": made_with(view, region, services),  # of entries that do not say it
        **entry["release"],
        "region": region.name,
        "title": region.title,
        "bbox": list(region.bbox),
        "start_day": str(region.start),
        "simulated": region.simulated,
        "sequence": entry["seq"],
        "previous": entry["previous"],
        "tier": entry["release"].get("tier", "open_loop"),
        "time": entry["time"],
        "snapshot": snapshot,
        "quick_look": look,
        "store": _absolute(services.store.url),
        "layers": list(LAYERS),
        "sources": [{"key": r["key"], "id": r["id"], "href": _absolute(r["href"])} for r in entry["consumed"]],
        "variables": variables,
    }


def outlook_of(services: Services, region: Region, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Everything an item says about one outlook, as plain data."""
    snapshot = services.store.snapshot_of(region.name, entry["seq"])
    data = services.store.at(snapshot).dataset(region.name, "outlook")
    arrays = {str(name): array for name, array in data.data_vars.items()}
    return {
        **entry["outlook"],
        "region": region.name,
        "title": region.title,
        "bbox": list(region.bbox),
        "sequence": entry["seq"],
        "simulated": region.simulated,
        "time": entry["time"],
        "cells": data.sizes["cell"],
        "snapshot": snapshot,
        "store": _absolute(services.store.url),
        "variables": {
            name: {"units": "1", **array.attrs, "dims": tuple(map(str, array.dims))} for name, array in arrays.items()
        },
        "dimensions": {
            str(name): data[name].values.tolist() if name in data.coords else list(range(size))
            for name, size in data.sizes.items()
            if name != "cell"
        },
    }


def _event(services: Services, region: Region, entry: Mapping[str, Any], body: Mapping[str, Any]) -> Event:
    data = {**body["data"], "snapshot": services.store.snapshot_of(region.name, entry["seq"])}
    if body["type"] == DROUGHT_UPDATED:
        data["item"] = items.drought_href(services.catalog.url, region.name, entry["seq"])
        data["latency"] = {**data["latency"], "analysed": entry["time"], "announced": stamp(now())}
    if body["type"] in warning.EVENTS.values():
        item = items.drought_href(services.catalog.url, region.name, entry["seq"])
        about = {"snapshot": data["snapshot"], "item": item}
        view = services.store.at(data["snapshot"])
        data = warning.message(view, region, services.settings, body["data"], entry["time"], about)
    source = f"/regions/{region.name}"
    return Event(body["id"], body["type"], source, body["subject"], entry["time"], data, key=region.name)


# ---------------------------------------------------------------------------------------------------------- helpers
def _rank(arrival: Mapping[str, Any]) -> tuple[str, str, str]:
    """Which of two items that cover the same day wins: the newer, by the provider's own word."""
    return arrival["updated"], arrival["id"], arrival["version"]


def _uncontested(granule: reading.Granule, ledger: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
    """The granule's days on which no newer item of its product has been used already."""
    days = pd.DatetimeIndex(granule.data.time.values)
    free = np.ones(days.size, bool)
    for record in ledger.values():
        if (
            record.get("product") == granule.product
            and record["status"] == "consumed"
            and _rank(record) > _rank(granule.arrival)
        ):
            for first, last in record["spans"]:
                free &= (days < pd.Timestamp(first)) | (days > pd.Timestamp(last))
    return days.values[free]


def waits_for(view: View, region: Region) -> str | None:
    """The day of forcing that is missing before days that are there, so that these must wait; None if nothing waits."""
    edge = frontier(view, region)
    missing = pd.Timestamp(region.start) if edge is None else edge + DAY
    ends = [
        pd.Timestamp(last)
        for record in view.ledger(region.name).values()
        if record.get("kind") == "forcing"
        for _, last in record["spans"]
    ]
    return str(missing.date()) if ends and max(ends) > missing else None


def _spans(granule: reading.Granule) -> list[list[str]]:
    """The unbroken runs of days of a granule, as [first, last]."""
    days = pd.DatetimeIndex(granule.data.time.values)
    if days.empty:
        raise TimeError(f"item {granule.arrival['id']}", expected="at least one whole day", found="none")
    breaks = np.flatnonzero(np.diff(days.values) != DAY.to_timedelta64()) + 1
    return [[str(run[0].date()), str(run[-1].date())] for run in np.split(days, breaks)]


_KEPT = ("key", "id", "collection", "version", "updated", "datetime", "href", "source", "published", "detected")


def _record(granule: reading.Granule) -> dict[str, Any]:
    """What the journal keeps of a consumed item."""
    arrival = granule.arrival
    checksums = {name: asset.get("checksum", "") for name, asset in arrival["assets"].items()}
    kept = {name: arrival[name] for name in _KEPT}
    return {
        **kept,
        "product": granule.product,
        "kind": granule.kind,
        "spans": _spans(granule),
        "checksums": checksums,
        "notes": granule.notes,
    }


def _refusal(arrival: Mapping[str, Any], reason: Rejected) -> dict[str, Any]:
    """What the journal keeps of an item set aside: all of it, so that it can be tried again."""
    why = {"kind": type(reason).__name__, "reason": str(reason), "expected": reason.expected, "found": reason.found}
    return {**arrival, **why}


def _absolute(href: str) -> str:
    """A local path as the file URL it is, so that no catalogue takes it for one of its own."""
    return href if "://" in href else Path(href).absolute().as_uri()


def stamp(moment: datetime) -> str:
    """A moment, UTC, as STAC and CloudEvents write it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
