"""The slow verbs: when observations are assimilated, how, and how an analysis becomes the region's state.

    due ─▸ Plan ─assimilate─▸ Analysis ─┬─ accepted ─▸ parameters, members, all states and percentiles anew ─▸ release
      └ a window no analysis knows      └─ refused ──▸ what was there stays; the reason in the journal

Windows end every so many days of a region's calendar, at the last of them that forcing and observations reach; an
analysis is a pure function of what was consumed until then. Its key says of what: a late item of the window makes
another key, and the window due again. The open loop goes on meanwhile, and is never waited for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import regional, spread, verbs
from infra.settings import Region, Settings
from infra.store import Draft, View
from infra.tasks import Tasks, Track, tidy
from infra.wiring import Services
from stac import sources
from twin import cycle
from twin.control import humidity
from twin.cycle import Analysis, Options
from twin.ensemble import Prior, Window
from twin.errors import Conflict, RangeError, TwinError
from twin.events import ANALYSIS_COMPLETED, ANALYSIS_REFUSED, DROUGHT_UPDATED, fact
from twin.forcing import fill_nearest
from twin.observations import RULES, Observations

DAY = pd.Timedelta(days=1)
LEAD = 365 * DAY  # of forcing before a window, where there is as much
CYCLES = 2  # times the first year is repeated where the lead is shorter


@dataclass(frozen=True)
class Plan:
    """A window that is due: its key, its days, the first day of its forcing, and the sensors that saw it."""

    key: str
    window: Window
    first: pd.Timestamp
    sensors: tuple[str, ...]
    forcing: str  # key of the forcing alone: members outlive a late observation
    items: int  # of observations

    @property
    def span(self) -> str:
        return f"{self.window.first.date()} to {self.window.last.date()}"


def due(view: View, region: Region, settings: Settings) -> Plan | None:
    """The newest window, if it is not the one last analysed; None too where there is nothing to assimilate yet."""
    given = settings.assimilation
    if not given.enabled or not view.has(region.name, "grid"):
        return None
    records = [record for record in view.ledger(region.name).values() if record["status"] == "consumed"]
    seen = [r for r in records if r["kind"] == "observation" and _known(r["product"])]
    frontier = verbs.frontier(view, region)
    if frontier is None or not seen:
        return None
    origin = pd.Timestamp(region.start)
    reached = min(frontier, max(pd.Timestamp(last) for r in seen for _, last in r["spans"]))
    last = origin + ((reached - origin).days + 1) // given.every * given.every * DAY - DAY
    first = max(origin, last - (given.window - 1) * DAY)
    if (last - first).days + 1 < given.least:
        return None
    within = [r for r in seen if _meets(r, first, last)]
    lead = max(origin, first - LEAD)
    drivers = [r for r in records if r["kind"] == "forcing" and _meets(r, origin, last)]
    if not within:
        return None
    window = Window(first, last, 1 if first - lead >= LEAD else CYCLES)
    weather = key_of([str(lead.date()), str(last.date())], sorted(r["key"] for r in drivers))
    span = [str(first.date()), str(last.date())]
    key = key_of(view.model(region.name), given.identity, span, weather, sorted(r["key"] for r in within))
    if key == (last_attempt(view, region) or {}).get("key"):
        return None
    return Plan(key, window, lead, tuple(sorted({r["product"] for r in within})), weather, len(within))


def key_of(*parts: Any) -> str:
    """32 hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def last_attempt(view: View, region: Region) -> dict[str, Any] | None:
    """What the journal says of the newest analysis, accepted or refused."""
    sequence = verbs.last_of(view, region, "analysis")
    return view.journal(region.name, after=sequence - 1)[0]["analysis"] if sequence is not None else None


def assimilate(services: Services, region: Region, plan: Plan, track: Track | None = None) -> Analysis | str:
    """The analysis of a window; why there is none where the observations, or too many members, are refused.

    Members run where the settings say, and what they leave is kept, so that a run that was stopped goes on where it
    was. Raises Transient while the compute has no room.
    """
    view, settings = services.store.at(), services.settings
    parameters = spread.prior_parameters(view, region.name)
    forcing = Stored(view, region.name, plan.first, plan.window.last, plan.forcing)
    prior = Prior(parameters, _start(services, view, region, parameters, plan.first))
    observed = [_observations(view, region, sensor, plan.window) for sensor in plan.sensors]
    given = settings.assimilation
    options = Options(
        members=given.members, tile=given.tile, loops=given.loops, withheld=given.withheld, residual=given.local
    )
    rng = np.random.default_rng(int(plan.forcing[:15], 16))  # the first members are drawn anew for other weather only
    with services.compute as compute:
        tasks = Tasks(compute, settings.home / "tasks", track=track)
        try:
            return cycle.assimilate(services.model, prior, forcing, observed, plan.window, rng, tasks.map, options)
        except RangeError as reason:
            return str(reason)
        except TwinError as reason:
            if type(reason) is not TwinError:
                raise
            return str(reason)


def commit(services: Services, region: Region, plan: Plan, analysis: Analysis | str) -> str | None:
    """Make an analysis the region's state, in one commit, or note why it is not; the snapshot.

    None where the window was analysed meanwhile.
    """
    record = _record(plan, analysis)
    believed = analysis if isinstance(analysis, Analysis) and analysis.accepted else None
    reference = _reference(services, region, believed) if believed is not None and region.simulated else None
    for attempt in range(verbs.CONFLICT_TRIES):
        with services.store.turn():
            before = services.store.at()
            if (last_attempt(before, region) or {}).get("key") == plan.key:
                return None
            draft = services.store.draft()
            fields: dict[str, Any] = {"analysis": record}
            if believed is not None:
                fields |= _installed(services, draft, region, plan, believed, record, reference)
            else:
                about = {"region": region.name, "sequence": draft.next_seq(region.name), **_told(record)}
                fields["events"] = [fact(ANALYSIS_REFUSED, region.name, region.name, about)]
            verbs.append(draft, region, **fields)
            try:
                outcome = "analysed" if believed is not None else "analysis refused"
                snapshot = draft.commit(f"{region.name}: {outcome}, {' to '.join(record['window'])}")
            except Conflict:
                if attempt == verbs.CONFLICT_TRIES - 1:
                    raise
            else:
                tidy(services.settings.home / "tasks", _worth_keeping(services, before, region, record))
                return snapshot
    return None


def _worth_keeping(services: Services, before: View, region: Region, record: Mapping[str, Any]) -> float:
    """Days for which results of tasks may be asked for again; those of an older window than this never will."""
    days = services.settings.assimilation.keep_days
    sequence = verbs.last_of(before, region, "analysis")
    if sequence is None:
        return days
    older = before.journal(region.name, after=sequence - 1)[0]
    age = (verbs.now() - datetime.fromisoformat(older["time"])) / timedelta(days=1)
    return days if older["analysis"]["window"] == record["window"] else min(days, age)


# --------------------------------------------------------------------------------------------------------------- input
@dataclass(frozen=True, eq=False)
class Stored:
    """Forcing in the store, read tile by tile wherever a task runs; gaps are filled from the nearest cell."""

    view: View
    region: str
    first: pd.Timestamp
    last: pd.Timestamp
    key: str

    def tile(self, cells: slice | np.ndarray) -> xr.Dataset:
        return self._filled.isel(cell=cells) if self._has_gaps else self._read.isel(cell=cells).load()

    @cached_property
    def _read(self) -> xr.Dataset:
        days = self.view.dataset(self.region, "forcing")[list(verbs.REQUIRED)].sel(time=slice(self.first, self.last))
        return days

    @cached_property
    def _has_gaps(self) -> bool:
        rain = self._read[verbs.REQUIRED[0]]
        return any(not np.isfinite(rain[k : k + 128].values).all() for k in range(0, rain.sizes["time"], 128))

    @cached_property
    def _filled(self) -> xr.Dataset:
        return fill_nearest(self._read.load())

    def __getstate__(self) -> dict[str, Any]:
        names = ("view", "region", "first", "last", "key")
        return {name: getattr(self, name) for name in names}


def _start(services: Services, view: View, region: Region, parameters: xr.Dataset, first: pd.Timestamp) -> xr.Dataset:
    """The state on the first day of the forcing, as the parameters before any analysis have it."""
    origin = pd.Timestamp(region.start)
    if region.simulated:
        land = view.dataset(region.name, "start").load()
    else:
        frontier = verbs.frontier(view, region)
        assert frontier is not None
        land = verbs.initial_state(view, region, parameters, origin, frontier, services)
    if first > origin:
        land, _ = services.model.run(land, verbs.drivers(view, region, origin, first - DAY), parameters)
    return land


def _observations(view: View, region: Region, sensor: str, window: Window) -> Observations:
    product = sources.product(sensor)
    (name,) = product.provides
    data = view.dataset(region.name, f"observations/{sensor}").sel(time=slice(window.first, window.last)).load()
    return Observations.from_dataset(data, window.days, sensor, name, product.local_time)


def _known(product: str) -> bool:
    return bool(set(sources.product(product).provides) & RULES.keys())


def _meets(record: Mapping[str, Any], first: pd.Timestamp, last: pd.Timestamp) -> bool:
    return any(pd.Timestamp(a) <= last and pd.Timestamp(b) >= first for a, b in record["spans"])


# -------------------------------------------------------------------------------------------------------------- output
def _reference(services: Services, region: Region, analysis: Analysis) -> regional.Reference:
    """What a simulated region is compared with, and its first state, with the analysed parameters."""
    grid = services.store.at().dataset(region.name, "grid").load()
    return regional.simulated_reference(services, region, grid, _parameters(analysis))


def _parameters(analysis: Analysis) -> xr.Dataset:
    """The land model's, without what only the analysis asks of a cell."""
    return analysis.parameters.drop_vars(spread.ASKED, errors="ignore")


def _installed(
    services: Services,
    draft: Draft,
    region: Region,
    plan: Plan,
    analysis: Analysis,
    record: Mapping[str, Any],
    reference: regional.Reference | None,
) -> dict[str, Any]:
    """Write the analysis and everything that follows from it; the fields of its journal entry."""
    window, origin = plan.window, pd.Timestamp(region.start)
    prior = draft.dataset(region.name, "parameters").load()
    known = [draft.dataset(region.name, "analysis").attrs["first"]] if draft.has(region.name, "analysis") else []
    about = {"key": plan.key, "first": str(window.first.date()), "last": str(window.last.date())}
    draft.put(region.name, "analysis", _parameters(analysis).assign_attrs(**prior.attrs, **about))
    kept = services.settings.assimilation.carried
    draft.put(region.name, "members", _members(draft, region, plan, analysis, kept))
    spread.forget(region.name)
    draft.drop_restarts(region.name, after=origin - DAY)
    if reference is not None:
        reference.write(draft, region)
    change = verbs.Change(state=verbs.carry(draft, region, verbs.Batch(), origin, services))
    earliest = min([window.first, *map(pd.Timestamp, known)])  # what an older window had before this one is gone
    days = pd.date_range(earliest, window.last)
    within = analysis.states[spread.SPREAD].transpose("time", "cell").reindex(time=days)
    draft.write(region.name, "drought", within.to_dataset().astype("float32"))
    summary = verbs.assess(draft, region, change)
    assert summary is not None
    sequence = draft.next_seq(region.name)
    data = {"region": region.name, "sequence": sequence, "simulated": region.simulated}
    told = {**summary, "tier": "analysis", "analysed_until": about["last"]}
    latency = {"published": "", "detected": ""}
    events = [
        fact(ANALYSIS_COMPLETED, region.name, region.name, {**data, **_told(record)}),
        fact(
            DROUGHT_UPDATED,
            region.name,
            f"{region.name}-drought",
            {**data, **told, "consumed": [], "quarantined": [], "latency": latency},
        ),
    ]
    warned, said = verbs.warn(draft, region, services, told)
    release = {**told, "model": verbs.made_with(draft, region, services), "analysis": _told(record)}
    return {"release": release, "events": events + said, "warnings": warned}


def _members(draft: View, region: Region, plan: Plan, analysis: Analysis, count: int) -> xr.Dataset:
    """What the members are carried on from: control vectors, fields and states at the end of the window, float32."""
    ends = [name for name in analysis.states.data_vars if str(name).startswith("end:")]
    some = analysis.states[ends].isel(realization=slice(1, 1 + count))
    data = some.astype("float32").assign(z=(("realization", "control"), analysis.members[:count]))
    if analysis.residuals is not None:
        data["residual"] = ("realization", "field", "cell"), analysis.residuals[:count].astype(np.float32)
    days = verbs.drivers(draft, region, plan.window.first, plan.window.last)
    data["humidity"] = "cell", humidity(days)
    return data.drop_vars("realization", errors="ignore")


def _record(plan: Plan, analysis: Analysis | str) -> dict[str, Any]:
    """What the journal keeps of an analysis: plain JSON."""
    window = [str(plan.window.first.date()), str(plan.window.last.date())]
    base = {"key": plan.key, "window": window, "sensors": list(plan.sensors), "items": plan.items}
    if isinstance(analysis, str):
        return {**base, "accepted": False, "reasons": [analysis], "diagnostics": None}
    return {
        **base,
        "accepted": analysis.accepted,
        "reasons": list(analysis.reasons),
        "diagnostics": _plain(analysis.diagnostics),
    }


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that others are told."""
    found = record["diagnostics"] or {}
    sensors = {
        name: {"offset": each["offset"], "inflation": each["alpha"], "withheld": each["withheld"]}
        for name, each in (found.get("sensors") or {}).items()
    }
    numbers = {name: found.get(name) for name in ("observations", "members", "dofs", "chi2", "patches")}
    return {
        **{name: record[name] for name in ("key", "window", "items", "accepted", "reasons")},
        **({**numbers, "sensors": sensors} if found else {}),
    }


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts that JSON knows; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def accepted(found: Analysis | str) -> bool:
    """Whether an analysis is to be believed."""
    return isinstance(found, Analysis) and found.accepted


def sentence(plan: Plan, found: Analysis | str) -> str:
    """What came of a window, in words."""
    if isinstance(found, str) or not found.accepted:
        why = found if isinstance(found, str) else "; ".join(found.reasons)
        return f"Analysis of {plan.span} refused: {why}. What was there stays."
    told = found.diagnostics
    return f"Analysed {plan.span} with {told['observations']} observations and {told['members']} members."
