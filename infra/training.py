"""The emulator in service: when it is trained, how, and how a trained one comes into use.

    due ─▸ Plan ─train─▸ Result ─┬─ the first ──────▸ champion
      │                          ├─ a better one ───▸ shadow ─▸ a release ─▸ due ─▸ Plan ─train─▸ champion, or refused
      │                          └─ no better ──────▸ what was there stays; the reason in the journal
      └ no emulator yet · other parameters, model, forcing or settings · a check at some cells finds it drifting

A plan's key is the digest of its manifest: all that the emulator is a function of. One manifest is trained on once,
whatever asks for it and however often, and what comes of it is one commit. The ensemble runs as tasks known by their
content, so that a run that was killed goes on where it was, and the same manifest gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import regional, registry, spread, verbs, wiring
from infra.analysis import Stored, key_of
from infra.registry import PROMOTED, REFUSED, ROLLED_BACK, SHADOW, Pointer
from infra.settings import Region
from infra.store import Draft, View
from infra.tasks import Tasks, Track, tidy
from infra.telemetry import log
from infra.wiring import Services
from twin import drift, synthetic
from twin.emulator.features import FEATURES
from twin.emulator.outputs import SOIL_MOISTURE
from twin.emulator.physics import COEFFICIENTS
from twin.ensemble import Lost
from twin.errors import Conflict, RangeError, Rejected, SettingsError, Transient
from twin.events import EMULATOR_PROMOTED, EMULATOR_REFUSED, EMULATOR_ROLLED_BACK, fact
from twin.model import LandModel

if TYPE_CHECKING:  # what imports XGBoost is imported where it is used: not every look at what is due needs it
    from twin.emulator.fitting import Run
    from twin.emulator.model import Emulator
    from twin.emulator.scoring import Scores
    from twin.emulator.training import Ensemble

DAY = pd.Timedelta(days=1)
LEAD = 730 * DAY  # of forcing before the days that are checked: memories of a year must not know their start
WORSE = 1.05  # times the champion's error that one in the shadow may have on the newest days
_CHECKS: dict[tuple[str, ...], Check] = {}  # by store, region, version and last day: each is made once in a process


@dataclass(frozen=True)
class Plan:
    """What is due: an emulator to train by `manifest`, or the `shadow` to judge; and after which entry that is so."""

    digest: str  # of the manifest last trained on
    reasons: tuple[str, ...]
    manifest: Mapping[str, Any]
    last: pd.Timestamp  # day that forcing is taken up to
    snapshot: str  # of the store, that it was made from
    after: int  # the newest entry about emulators, -1 before the first
    shadow: str = ""  # version

    @property
    def key(self) -> str:
        """One run for each."""
        return key_of(self.digest, self.shadow)

    @property
    def span(self) -> str:
        """For people."""
        return f"emulator {self.shadow} in the shadow" if self.shadow else f"emulator: {'; '.join(self.reasons)}"


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a plan: an outcome of the registry, and for a new emulator the model and what it was trained on."""

    outcome: str
    version: str
    reasons: tuple[str, ...]  # of the verdict
    scores: Mapping[str, Any]
    emulator: Emulator | None = None
    trained: xr.Dataset | None = None


@dataclass(frozen=True)
class Check:
    """How an emulator does at some cells in the newest days, against the land model it answers for."""

    rmse: Mapping[str, float]
    coverage: float
    outside: float  # share of the days of cells outside the envelope
    psi: Mapping[str, float]  # of the features of weather, against the days it was trained on


# ----------------------------------------------------------------------------------------------------------------- due
def due(services: Services, region: Region, force: bool = False) -> Plan | None:
    """What is to be done about the region's emulator, if anything; None too where there is nothing to train on yet.

    force   as if something asked for it
    """
    view, given = services.store.at(), services.settings.training
    if not given.enabled or not view.has(region.name, "grid"):
        return None
    reached = verbs.frontier(view, region)
    if reached is None:
        return None
    now, last = registry.pointer(view, region.name), newest(view, region)
    after = last["seq"] if last else -1
    if now.shadow:
        assert last is not None
        released = verbs.last_of(view, region, "release")
        waited = verbs.now() - datetime.fromisoformat(last["time"])
        if not force and (released or -1) < after and waited < timedelta(hours=given.patience):
            return None
        return Plan(last["key"], ("it ran beside the one in use",), {}, reached, view.snapshot, after, now.shadow)
    manifest = _manifest(services, view, region, reached)
    if manifest is None:
        return None
    digest = key_of(manifest)
    if last and last["key"] == digest and not force:
        return None
    reasons = _reasons(services, view, region, manifest, reached) or (("somebody asked for it",) if force else ())
    if not reasons:
        return None
    return Plan(digest, reasons, manifest, pd.Timestamp(manifest["days"][1]), view.snapshot, after)


def _manifest(services: Services, view: View, region: Region, reached: pd.Timestamp) -> dict[str, Any] | None:
    """All that an emulator trained now would be a function of; None where the forcing does not reach for one."""
    given, origin = services.settings.training, pd.Timestamp(region.start)
    last = _quantum(region, reached, given.every)
    first = last - (given.days - 1) * DAY
    if not region.simulated:
        first = max(origin, first)
    if (last - first).days + 1 < given.least:
        return None
    drivers = [r for r in view.ledger(region.name).values() if r["status"] == "consumed" and r["kind"] == "forcing"]
    within = [r for r in drivers if any(pd.Timestamp(a) <= last and pd.Timestamp(b) >= first for a, b in r["spans"])]
    analysed = view.has(region.name, "analysis")
    return {
        "region": region.name,
        "model": _identity(view, region),
        "settings": given.identity,
        "form": key_of(FEATURES, list(COEFFICIENTS)),
        "parameters": view.dataset(region.name, "analysis").attrs["key"] if analysed else "prior",
        "control": _control(view, region),
        "products": sorted({r["product"] for r in drivers}),
        "seed": region.seed if region.simulated else None,
        "days": [str(first.date()), str(last.date())],
        "forcing": key_of(sorted(r["key"] for r in within)),
    }


def _quantum(region: Region, reached: pd.Timestamp, every: int) -> pd.Timestamp:
    """The newest day up to which forcing is taken: every so many days of the region's calendar."""
    origin = pd.Timestamp(region.start)
    return origin + ((reached - origin).days + 1) // every * every * DAY - DAY


def _control(view: View, region: Region) -> dict[str, list[float]]:
    """The control vector of the analysis in use and its standard deviation, by element, in those of the prior."""
    sequence = verbs.last_of(view, region, "analysis")
    while sequence is not None:
        (entry, *_) = view.journal(region.name, after=sequence - 1)
        if entry["analysis"]["accepted"]:
            rows = entry["analysis"]["diagnostics"]["control"]
            return {row["name"]: [row["z"], row["deviation"] / row["prior_deviation"]] for row in rows}
        sequence = entry.get("analysed")
    return {}


def _reasons(
    services: Services, view: View, region: Region, manifest: Mapping[str, Any], reached: pd.Timestamp
) -> tuple[str, ...]:
    """Why an emulator is to be trained; none where the one in use may stay."""
    version = registry.pointer(view, region.name).champion
    if not version:
        return ("there is none yet",)
    kept = registry.training_set(view, region.name, version)
    known = json.loads(kept.attrs["manifest"])
    changed = {"model": "another land model", "products": "other forcing", "settings": "other settings"}
    reasons = [said for name, said in changed.items() if known[name] != manifest[name]]
    found: dict[str, Any] = {}
    if known["parameters"] != manifest["parameters"]:
        used = spread.parameters_in_use(view, region.name)
        found["kappa_shift"] = _kappa_shift(known["control"], manifest["control"])
        found["soil_shift"] = max(float(abs(used[name] - kept[name]).max()) for name in ("theta_s", "theta_c"))
    try:
        check = _check(services, view, region, version, _quantum(region, reached, services.settings.training.every))
    except Rejected as reason:
        return (*reasons, f"the one in use cannot be used: {reason}")
    own_climate = next(iter(json.loads(kept.attrs["scores"])["errors"].values()))
    certified = {name: errors["rmse"] for name, errors in own_climate.items()}
    found |= {"rmse": check.rmse, "coverage": check.coverage, "outside": check.outside, "psi": check.psi}
    return (*reasons, *map(str, drift.triggers(**found, certified=certified)))


def _kappa_shift(before: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]) -> float:
    """Largest change of an element of the control vector, in its standard deviations now."""
    return max(abs(z - before.get(name, (0.0,))[0]) / deviation for name, (z, deviation) in now.items())


# --------------------------------------------------------------------------------------------------------------- train
def train(services: Services, region: Region, plan: Plan, track: Track | None = None) -> Result:
    """The emulator of a manifest and what is thought of it, or whether the one in the shadow holds what it promised.

    Runs of the land model go where the settings say, and what they leave is kept, so that a training that was stopped
    goes on where it was. Raises Transient while the compute has no room.
    """
    if plan.shadow:
        return _judged(services, region, plan)
    try:
        return _trained(services, region, plan, track)
    except RangeError as reason:  # a region too small, runs that are lost
        return Result(REFUSED, plan.digest[:12], (str(reason),), {})


def _trained(services: Services, region: Region, plan: Plan, track: Track | None) -> Result:
    from twin.emulator import scoring
    from twin.emulator.fitting import Options
    from twin.emulator.model import Emulator

    view, given = services.store.at(plan.snapshot), services.settings.training
    rng = np.random.default_rng(int(plan.digest[:15], 16))
    ensemble, used = _ensemble(services, view, region, plan)
    members, results = ensemble.members(rng, given.members), list[Mapping[str, np.ndarray]]()
    with services.compute as compute:
        for found in Tasks(compute, services.settings.home / "training", track=track).map(ensemble, members):
            if isinstance(found, Lost):
                raise RangeError("runs to train on", expected=f"{len(members)}", found=found.reason)
            results.append(found)
    training = ensemble.training(members, results, plan.manifest)
    emulator = Emulator.fit(training, Options(trees=given.trees))
    tests = training.of("test")
    ours = scoring.evaluate(emulator, tests)
    before = _usable(view, region)
    theirs = None if before is None else scoring.evaluate(before, tests).certificate
    verdict = drift.verdict(theirs, ours.certificate, rng)
    emulator = replace(emulator, card={**emulator.card, "scores": _timeless(ours.to_dict())})
    outcome = SHADOW if verdict.promote else REFUSED
    if before is None and ours.certificate.golden:
        outcome = PROMOTED  # there is nothing it could be worse than; what speaks against it is told with it
    scores = _summary(ours)
    return Result(
        outcome, emulator.version, verdict.reasons, scores, emulator, _kept(ensemble, results, used, plan, scores)
    )


def _timeless(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores without how long it took, which is never twice the same."""
    certificate = {name: value for name, value in scores["certificate"].items() if name != "cost"}
    return {**scores, "certificate": certificate}


def _summary(scores: Scores) -> dict[str, Any]:
    """The scores that are told: by climate and output, in the output's unit and in percent of the range."""
    rows, told = scores.to_dict(), scores.certificate
    by_climate: dict[str, dict[str, Any]] = {}
    for row in rows["table"]:
        by_climate.setdefault(row["climate"], {})[row["output"]] = {n: row[n] for n in ("rmse", "rmse_percent", "acc")}
    dry = {row["climate"]: row["dry_days_mae"] for row in rows["metrics"]}
    alone = {"coverage": told.coverage, "monotone": told.monotone, "cost": round(told.cost, 3)}
    return {"errors": by_climate, "dry_days": dry, **alone}


def _ensemble(services: Services, view: View, region: Region, plan: Plan) -> tuple[Ensemble, xr.Dataset]:
    """The runs to learn from, and the parameters in use."""
    from twin.emulator.training import ROLES, Ensemble, roles, sample

    given, manifest = services.settings.training, plan.manifest
    model, parameters = _truth(services, view, region)
    first, last = map(pd.Timestamp, manifest["days"])
    weather = Weather(view, region, first, last, manifest["forcing"], np.arange(parameters.sizes["cell"]))
    rng = np.random.default_rng(int(hashlib.sha256(region.name.encode()).hexdigest()[:15], 16))
    of_role = roles(parameters["lat"].values, parameters["lon"].values, rng)  # the same whenever it is trained
    climate = _climate(weather)
    sizes = {role: given.locations if role == "train" else given.held_out for role in ROLES}
    chosen = [sample(parameters, climate, sizes[role], rng, np.flatnonzero(of_role == role)) for role in ROLES]
    cells, role = np.concatenate(chosen), np.repeat(ROLES, [len(part) for part in chosen])
    ensemble = Ensemble(model, parameters.isel(cell=cells), weather.at(cells), cells, role, SOIL_MOISTURE)
    return ensemble, spread.parameters_in_use(view, region.name)


def _climate(weather: Weather) -> xr.Dataset:
    """The climate of all cells, some thousands at a time."""
    from twin.emulator.training import climate_of

    cells = weather.cells.size
    parts = [climate_of(weather.tile(slice(first, min(first + 2048, cells)))) for first in range(0, cells, 2048)]
    return xr.concat(parts, "cell")


def _kept(
    ensemble: Ensemble,
    results: Sequence[Mapping[str, np.ndarray]],
    used: xr.Dataset,
    plan: Plan,
    scores: Mapping[str, Any],
) -> xr.Dataset:
    """What is stored with an emulator: locations and roles, digests of the runs, the soil then, scores to be held to.

    Features and runs are gigabytes, and follow from the manifest.
    """
    from twin.emulator.training import ROLES

    digests = [hashlib.sha256(b"".join(r[name].tobytes() for name in sorted(r))).digest() for r in results]
    codes = np.array([ROLES.index(role) for role in ensemble.role], np.int8)
    return xr.Dataset(
        {
            "location": ("location", ensemble.location),
            "role": ("location", codes, {"flag_values": list(range(len(ROLES))), "flag_meanings": " ".join(ROLES)}),
            "run": (("run", "byte"), np.array([np.frombuffer(d, np.uint8) for d in digests])),
            "theta_s": (used["theta_s"].dims, used["theta_s"].values.astype(np.float32)),
            "theta_c": (used["theta_c"].dims, used["theta_c"].values.astype(np.float32)),
        },
        attrs={
            "manifest": json.dumps(plan.manifest, sort_keys=True),
            "scores": json.dumps(scores),  # the climate they have comes first
            "reasons": list(plan.reasons),
            "model": f"{ensemble.model.name} {ensemble.model.version}",
        },
    )


def _usable(view: View, region: Region) -> Emulator | None:
    """The emulator in use; None where there is none, or none that this version of the twin can run."""
    try:
        return registry.champion(view, region.name)
    except Rejected as reason:
        log.warning("%s: the emulator in use is not what was stored, or of another version: %s", region.name, reason)
        return None


def _judged(services: Services, region: Region, plan: Plan) -> Result:
    """Whether the one in the shadow does no worse than the one in use, on the newest forcing."""
    view, last, theirs = services.store.at(plan.snapshot), plan.last, None
    try:
        ours = _check(services, view, region, plan.shadow, last)
    except Rejected as reason:
        return Result(REFUSED, plan.shadow, (str(reason),), {})
    champion = _usable(view, region)
    if champion is not None:
        theirs = _check(services, view, region, champion.version, last)
    scores = {"rmse": dict(ours.rmse), "coverage": ours.coverage, "day": str(last.date())}
    against = [
        f"rmse of '{name}' {error / theirs.rmse[name]:.3f} of the champion's on the newest days, limit {WORSE}"
        for name, error in ours.rmse.items()
        if theirs is not None and not error <= WORSE * theirs.rmse[name]
    ]
    return Result(REFUSED if against else PROMOTED, plan.shadow, tuple(against), scores)


# --------------------------------------------------------------------------------------------------------------- check
def _check(services: Services, view: View, region: Region, version: str, last: pd.Timestamp) -> Check:
    """How an emulator does at some cells in the last days; Rejected where it cannot be used."""
    name = (services.store.url, region.name, version, str(last.date()))
    if name not in _CHECKS:
        _CHECKS[name] = _checked(services, view, region, registry.load(view, region.name, version), last)
    return _CHECKS[name]


def _checked(services: Services, view: View, region: Region, emulator: Emulator, last: pd.Timestamp) -> Check:
    from twin.emulator.features import NAMES
    from twin.emulator.fitting import rows_of
    from twin.emulator.training import Ensemble, Member

    given = services.settings.training
    model, parameters = _truth(services, view, region)
    rng = np.random.default_rng(int(hashlib.sha256(f"{region.name} {last.date()}".encode()).hexdigest()[:15], 16))
    every = np.arange(parameters.sizes["cell"])
    cells = np.sort(rng.choice(every, min(given.spot_check, every.size), replace=False))
    first = last - LEAD - (given.checked - 1) * DAY
    first = first if region.simulated else max(first, pd.Timestamp(region.start))
    weather = Weather(view, region, first, last, emulator.version, cells)
    role = np.full(cells.size, "test")
    ensemble = Ensemble(model, parameters.isel(cell=cells), weather, cells, role, emulator.outputs)
    member = Member(0, slice(0, cells.size), "test")
    ((run, matrix, truth),) = rows_of([ensemble.run(member, ensemble(member))], emulator.transfer, emulator.outputs)
    days = given.checked
    rows, truth = matrix[-days:].reshape(-1, len(NAMES)), truth[:, -days:].reshape(len(emulator.outputs), -1).T
    error = emulator.predict(rows) - truth
    inside = np.abs(error) <= emulator.intervals.half_width(emulator.regimes(rows))
    rmse = np.sqrt((error.astype(np.float64) ** 2).mean(axis=0))
    return Check(
        dict(zip(emulator.outputs, map(float, rmse), strict=True)),
        float(inside.mean()),
        float(emulator.envelope.outside(rows).mean()),
        _psi(view, region, emulator, run, cells, matrix),
    )


def _psi(
    view: View, region: Region, emulator: Emulator, run: Run, cells: np.ndarray, matrix: np.ndarray
) -> dict[str, float]:
    """How differently weather is distributed in the last year than in the days trained on, at the same cells."""
    from twin.emulator.features import NAMES

    manifest = emulator.card["manifest"]
    first, last = map(pd.Timestamp, manifest["days"])
    years = ((last - first).days + 1) // 365
    if not years or len(matrix) < 365:
        return {}  # a season against another would always differ
    weather = Weather(view, region, last - (365 * years - 1) * DAY, last, emulator.version, cells)
    reference = emulator.features(run.state, weather.tile(slice(None)), run.parameters)
    columns = [k for k, feature in enumerate(FEATURES) if feature.group in ("rain", "heat")]
    histogram = drift.Histogram.fit(reference[:, columns], [NAMES[k] for k in columns])
    return histogram.psi(matrix[-365:].reshape(-1, len(NAMES))[:, columns])


# --------------------------------------------------------------------------------------------------------------- truth
def _identity(view: View, region: Region) -> dict[str, Any]:
    """The land model the emulator answers for: the region's own, or for a daily one `land` in steps of 3 h."""
    own = view.model(region.name)
    return own if own.get("kind") in ("land", "jules") else {"kind": "land", "step": "3h", "precision": "single"}


def _truth(services: Services, view: View, region: Region) -> tuple[LandModel, xr.Dataset]:
    """That model, and its parameters of every cell: as analysed, on the region's land cover."""
    own, used = services.settings.model, spread.parameters_in_use(view, region.name)
    chosen = own.model_copy(update=_identity(view, region))
    grid = view.dataset(region.name, "grid").load()
    if chosen != own:
        settings = services.settings.model_copy(update={"model": chosen})
        surfaces = regional.with_surfaces(view, region, grid, used, chosen)
        if surfaces is None:
            raise Transient(f"land cover of region {region.name}", expected="a source that has it", found="none yet")
        used = surfaces
    texture = {name: grid[name].variable for name in spread.ASKED if name in grid}
    model = services.model if chosen == own else wiring.MODELS[chosen.kind](settings, services.compute)
    return model, used.assign(texture)


@dataclass(frozen=True, eq=False)
class Weather:
    """The forcing of some days at some cells, read tile by tile wherever a task runs; a simulated past is simulated.

    on   digest of what the store holds of these days
    """

    view: View
    region: Region
    first: pd.Timestamp
    last: pd.Timestamp
    on: str
    cells: np.ndarray

    @property
    def key(self) -> str:
        return key_of(self.region.name, self.region.seed, str(self.first), str(self.last), self.on, self.cells.tolist())

    def at(self, cells: np.ndarray) -> Weather:
        """The same days at other cells."""
        return replace(self, cells=cells)

    def tile(self, cells: slice) -> xr.Dataset:
        origin, chosen, parts = pd.Timestamp(self.region.start), self.cells[cells], []
        if self.first < origin and self.region.seed is not None:
            places = self.view.dataset(self.region.name, "grid").load().isel(cell=chosen)
            days = pd.date_range(self.first, min(self.last, origin - DAY))
            climate = synthetic.climate(places, self.region.seed)
            parts.append(synthetic.forcing(climate, days, perturbed=True)[list(verbs.REQUIRED)])
        if self.last >= origin:
            parts.append(self._stored.tile(chosen))
        return parts[0] if len(parts) == 1 else xr.concat(parts, "time", join="override", combine_attrs="override")

    @cached_property
    def _stored(self) -> Stored:
        first = max(self.first, pd.Timestamp(self.region.start))
        return Stored(self.view, self.region.name, first, self.last, self.on)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("view", "region", "first", "last", "on", "cells")}


# -------------------------------------------------------------------------------------------------------------- commit
def commit(services: Services, region: Region, plan: Plan, result: Result) -> str | None:
    """Let the emulator into the shadow or into use, or note why it stays out, in one commit; the snapshot.

    None where another run dealt with the region's emulators meanwhile.
    """

    def change(draft: Draft) -> bool:
        if _after(draft, region) != plan.after:
            return False
        now = registry.pointer(draft, region.name)
        to = {PROMOTED: now.promoted(result.version), SHADOW: replace(now, shadow=result.version)}
        if result.emulator is not None and result.trained is not None and result.outcome in to:
            registry.save(draft, region.name, result.emulator, result.trained)
        registry.point(draft, region.name, to.get(result.outcome, replace(now, shadow="")))
        record = {
            "key": plan.digest,
            "outcome": result.outcome,
            "version": result.version,
            "predecessor": now.champion or None,
            "reasons": list(plan.reasons),
            "verdict": list(result.reasons),
            "scores": dict(result.scores),
        }
        about = {name: record[name] for name in ("key", "reasons", "verdict", "scores")}
        kind = {PROMOTED: EMULATOR_PROMOTED, REFUSED: EMULATOR_REFUSED}.get(result.outcome)
        events = [_told(kind, draft, region, result.version, predecessor=now.champion, **about)] if kind else []
        verbs.append(draft, region, emulator=record, events=events)
        return True

    snapshot = _committed(services, change, f"{region.name}: emulator {result.version} {result.outcome}")
    if snapshot is not None:
        tidy(services.settings.home / "training", services.settings.training.keep_days)
    return snapshot


def roll_back(services: Services, region: Region) -> Pointer:
    """Use the emulator before the present one again: one commit, one event; SettingsError if there is none."""
    found: list[Pointer] = []

    def change(draft: Draft) -> bool:
        now = registry.pointer(draft, region.name)
        if not now.previous:
            raise SettingsError(f"emulators of {region.name}", expected="one before the present", found="none")
        then = now.rolled_back()
        registry.load(draft, region.name, then.champion)  # refused here, and not when it is needed
        registry.point(draft, region.name, then)
        last = newest(draft, region) or {}
        record = {"key": last.get("key"), "outcome": ROLLED_BACK, "version": then.champion, "predecessor": now.champion}
        event = _told(EMULATOR_ROLLED_BACK, draft, region, then.champion, predecessor=now.champion)
        verbs.append(draft, region, emulator=record, events=[event])
        found.append(then)
        return True

    _committed(services, change, f"{region.name}: back to the emulator before")
    return found[-1]


def newest(view: View, region: Region) -> dict[str, Any] | None:
    """What the journal says of the last that happened to the region's emulators, with its entry's `seq` and `time`."""
    sequence = _after(view, region)
    if sequence < 0:
        return None
    entry = view.journal(region.name, after=sequence - 1)[0]
    return {**entry["emulator"], "seq": sequence, "time": entry["time"]}


def _after(view: View, region: Region) -> int:
    """The newest entry about emulators, -1 before the first."""
    sequence = verbs.last_of(view, region, "emulator")
    return -1 if sequence is None else sequence


def _committed(services: Services, change: Callable[[Draft], bool], message: str) -> str | None:
    """The snapshot with that change, made again on what is there when another writer was first; None if it has none."""
    for attempt in range(verbs.CONFLICT_TRIES):
        with services.store.turn():
            draft = services.store.draft()
            if not change(draft):
                return None
            try:
                return draft.commit(message)
            except Conflict:
                if attempt == verbs.CONFLICT_TRIES - 1:
                    raise
    return None


def _told(kind: str, draft: Draft, region: Region, version: str, **more: Any) -> dict[str, Any]:
    """The fact about an emulator of the region."""
    sequence = draft.next_seq(region.name)
    about = {"region": region.name, "sequence": sequence, "simulated": region.simulated, "version": version}
    return fact(kind, region.name, f"{region.name}-emulator-{version}", {**about, **more})


def listed(view: View, region: Region) -> list[dict[str, Any]]:
    """The emulators that are kept, the one in use first: version, use, since, trained on, because."""
    now = registry.pointer(view, region.name)
    since: dict[str, str] = {}
    sequence = verbs.last_of(view, region, "emulator")
    while sequence is not None:
        (entry, *_) = view.journal(region.name, after=sequence - 1)
        if entry["emulator"]["outcome"] != REFUSED:
            since.setdefault(entry["emulator"]["version"], entry["time"])
        sequence = entry.get("trained")
    uses = {version: "previous" for version in now.previous} | {now.shadow: "shadow", now.champion: "champion"}
    rows = []
    for version in now.versions:
        about = registry.training_set(view, region.name, version).attrs
        days = " to ".join(json.loads(about["manifest"])["days"])
        known = {"version": version, "use": uses[version], "since": since.get(version, "")}
        rows.append({**known, "trained on": f"{about['model']}, {days}", "because": "; ".join(about["reasons"])})
    return rows


def sentence(plan: Plan, result: Result) -> str:
    """What came of a plan, in words."""
    why = f" ({'; '.join(plan.reasons)})" if plan.reasons else ""
    if result.outcome == REFUSED:
        return f"Emulator {result.version} refused{why}: {'; '.join(result.reasons)}. What was there stays."
    if result.outcome == SHADOW:
        return f"Emulator {result.version} trained{why}; it runs in the shadow of the one in use for a release."
    return f"Emulator {result.version} is in use{why}."
