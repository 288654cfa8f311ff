"""Scenario runs: decades of another climate through a land model, kept day by day, and what they mean for drought.

    Request ─key─▸ store of its own ─┬─ decade: weather ─Delta─▸ model ─▸ soil moisture ─┐
                                     │          └─ at a few cells the land model itself ─┴─▸ one commit, with the states
                                     └─ end: figures of years and decades, spot check ─────▸ one commit ─▸ item, event

A request's key is the digest of everything its results depend on: asked twice it is one run. A run that was killed goes
on after its last whole decade, with the same bits. Memory holds some days of all cells, whatever the number of years.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra import regional, registry, verbs
from infra.bus import Event
from infra.climate import Run
from infra.settings import ModelSettings, Region, Settings
from infra.spread import parameters_in_use
from infra.store import CELLS, DAYS, Store, View, canonical
from infra.weather import Corrected, Recorded, Simulated, Weather, decades, whole_years
from infra.wiring import Services
from stac import scenario as documents
from twin import state
from twin.errors import SettingsError, TimeError
from twin.events import SCENARIO_COMPLETED, fact
from twin.grid import cell_area
from twin.indices.season import wet_season
from twin.indices.spells import availability, dry_spells
from twin.indices.years import calendar
from twin.inputs import THETA
from twin.land import Land, LandDaily
from twin.land.daily import SOIL
from twin.model import LandModel
from twin.parameters import from_texture
from twin.scenarios import YEAR, Delta
from twin.variables import VARIABLES

VERSION = 1  # of what is computed here; another one makes other keys
DAY = pd.Timedelta(days=1)
BLOCK = 1 << 21  # days × cells of weather in memory at a time, if that is more than DAYS of all cells
TILE = 4096  # cells that a model is given at a time
SPOTS = 4  # cells of the spot check
SPIN_UP = 20  # times the first year is repeated, at most
ENVELOPE = 256  # cells by which the share outside the emulator's envelope is estimated
SERIES = 1 << 26  # bytes of daily values in memory while years are counted
ROOT = "root_zone_soil_moisture"
FIGURES = ("root_zone_soil_moisture", "dry_days", "longest_dry_spell", "onset", "length")

Track = Callable[[int, int], None]  # days done, of how many


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for: which weather, changed how, through which land model, in which years.

    parameters   of the model's cells; `land` those of the land model that checks it
    layers       also keep the four layers of soil, not the root zone alone
    """

    region: Region
    weather: Weather
    delta: Delta
    model: LandModel
    years: range
    cells: xr.Dataset
    parameters: xr.Dataset
    land: xr.Dataset
    layers: bool = False

    @cached_property
    def key(self) -> str:
        """The identity of the run, 32 hexadecimal digits."""
        parts = {
            "version": VERSION,
            "region": self.region.name,
            "cells": _digest(self.cells),
            "parameters": [_digest(self.parameters), _digest(self.land)],
            "weather": self.weather.manifest,
            "delta": self.delta.identity,
            "model": [self.model.name, self.model.version, getattr(self.model, "precision", "")],
            "checked by": [Land.name, Land.version],
            "years": [self.years[0], self.years[-1]],
            "layers": self.layers,
        }
        return hashlib.sha256(canonical(parts).encode()).hexdigest()[:32]

    @property
    def label(self) -> str:
        """In words: whose weather, and how it is changed."""
        return self.weather.label + ("" if self.delta.nothing else f", {self.delta.label}")

    @property
    def spots(self) -> np.ndarray:
        """The cells of the spot check, drawn by the key."""
        count = self.cells.sizes["cell"]
        return np.sort(np.random.default_rng(int(self.key, 16)).choice(count, min(SPOTS, count), replace=False))

    @property
    def unchanged(self) -> Request:
        """The same without the change of climate."""
        return replace(self, delta=Delta())


# --------------------------------------------------------------------------------------------------------- request
@dataclass(frozen=True)
class Words:
    """A request as a person puts it.

    source, scenario, climate_model   a run among the climate-model files of a folder; without source the weather is
                                      the region's own: recorded, or simulated
    correct                           take the climate model's bias against that weather out
    rain, temperature, wet_days, co2, months   the change of climate, see `Delta`; co2 in ppm
    years                             first and last; without them all whole years, of simulated weather the reference's
    model                             see `chosen`
    layers                            keep the four layers too
    """

    source: str = ""
    scenario: str = ""
    climate_model: str = ""
    correct: bool = False
    rain: float = 1.0
    temperature: float = 0.0
    wet_days: float = 1.0
    co2: float | None = None
    months: tuple[int, ...] = YEAR
    years: tuple[int, int] | None = None
    model: str = ""
    layers: bool = False

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Words:
        """From plain JSON; SettingsError for a word there is not."""
        if unknown := sorted(set(told) - {field.name for field in fields(cls)}):
            expected = ", ".join(field.name for field in fields(cls))
            raise SettingsError("words of a scenario", expected=expected, found=", ".join(unknown))
        lists = {name: tuple(told[name]) for name in ("months", "years") if told.get(name)}
        return cls(**{**told, **lists})

    @property
    def delta(self) -> Delta:
        carbon = None if self.co2 is None else round(1e-6 * self.co2, 12)
        return Delta(self.rain, self.temperature, self.wet_days, carbon, tuple(self.months))


def request(services: Services, region: Region, words: Words) -> Request:
    """What the words ask for.

    Raises SettingsError for what there is not, TimeError for years that are not there in whole, Rejected for files.
    """
    view = services.store.at()
    if not view.has(region.name, "grid"):
        expected = "a region prepared by `twin run` or `twin up`"
        raise SettingsError(f"scenario of {region.name}", expected=expected, found="nothing in the store")
    delta, model = words.delta, chosen(services, region, words.model)
    cells = view.dataset(region.name, "grid").load()
    own = _own(view, region, cells)
    weather: Weather = own
    if words.source:
        if not words.scenario:
            raise SettingsError("scenario", expected="its name, such as rcp60 or ssp126", found="none")
        weather = Run.open(words.source, cells, words.scenario, words.climate_model)
        if words.correct:
            weather = Corrected(weather, own, home(services.settings))
    elif words.scenario or words.climate_model or words.correct:
        raise SettingsError("scenario", expected="the folder of its files as --source", found="none")
    years = _years(weather, words.years, region)
    parameters = _parameters(services, view, region, cells, model)
    return Request(region, weather, delta, model, years, cells, *parameters, words.layers)


def _own(view: View, region: Region, cells: xr.Dataset) -> Weather:
    """The region's record, or its climate where that is simulated: a live region of those has few days."""
    if region.simulated and region.seed is not None:
        return Simulated(cells, region.seed)
    return Recorded(view, region)


def _years(weather: Weather, asked: tuple[int, int] | None, region: Region) -> range:
    there = whole_years(weather.days)
    if asked is None and isinstance(weather, Simulated):
        asked = region.reference_start.year, region.reference_end.year
    if not there or (asked and not (there[0] <= asked[0] <= asked[1] <= there[-1])):
        expected = f"{there[0]} to {there[-1]}" if there else "a whole year of weather"
        found = f"{asked[0]} to {asked[1]}" if asked else "none"
        raise TimeError("years of the scenario", expected=expected, found=found, where=weather.label)
    first, last = asked or (there[0], there[-1])
    return range(first, last + 1)


def chosen(services: Services, region: Region, name: str = "") -> LandModel:
    """The land model a scenario runs on: the region's emulator if it has one, else the daily one; or the one named.

    name   emulator, land-daily or land. Raises SettingsError for another, and for an emulator there is not.
    """
    if name in ("", "emulator"):
        champion: Any = registry.champion(services.store.at(), region.name)
        if champion is not None:
            return champion
        if name:
            what, expected = f"emulator of {region.name}", "one, which `twin train` makes"
            raise SettingsError(what, expected=expected, found="none")
    if name in ("", "land-daily"):
        return LandDaily(precision=services.settings.model.precision)
    if name == "land":
        return _land()
    raise SettingsError("model of the scenario", expected="emulator, land-daily or land", found=name)


def _land() -> Land:
    """The land model that emulators learn from, and that every run is checked by."""
    return Land("3h", precision="single", fluxes=())


def _parameters(
    services: Services, view: View, region: Region, cells: xr.Dataset, model: LandModel
) -> tuple[xr.Dataset, xr.Dataset]:
    """Parameters of the model, and those of the land model with surface types; analysed soils where there are some."""
    used = parameters_in_use(view, region.name)
    land = regional.with_surfaces(view, region, cells, used, ModelSettings(kind="land"))
    if land is None:
        raise SettingsError(f"land cover of {region.name}", expected="an item whose source has it", found="none")
    if model.name != LandDaily.name:
        return land, land
    if "root_fraction" in used:
        return used, land
    daily = from_texture(cells["sand"], cells["silt"], cells["clay"])
    return daily.assign({name: used[name].variable for name in SOIL if name in used}), land


# -------------------------------------------------------------------------------------------------------------- run
def home(settings: Settings) -> Path:
    """Where the runs are kept, each in a store of its own named by its key."""
    return settings.home / "scenarios"


def project(services: Services, asked: Request, track: Track | None = None) -> dict[str, Any]:
    """Run what is asked for as far as it is not there, and the same without the change; the summary of the run.

    The summary: key, label, family, model, years, `decades` (figures of each, and their change), `spot_check`, store
    and snapshot. Raises what the weather raises, and TimeError for years it does not have.
    """
    reference = None if asked.delta.nothing else project(services, asked.unchanged, track)
    store = run(services, asked, reference, track)
    told = summary(store.at(), asked.region.name)
    assert told is not None
    return told | {"store": store.url, "snapshot": store.head()}


def run(services: Services, asked: Request, reference: Mapping[str, Any] | None, track: Track | None = None) -> Store:
    """The store of a run, finished: what of it was not there yet is run; `reference` is the summary to compare with."""
    store = Store.open(home(services.settings) / asked.key)
    with store.turn():
        if summary(store.at(), asked.region.name) is None:
            prepare(store, asked)
            for part in decades(asked.years):
                advance(store, asked, part, track)
            finish(store, asked, reference)
    return store


def summary(view: View, region: str) -> dict[str, Any] | None:
    """What a finished run came to; None while it is under way."""
    journal = view.journal(region) if region in view.regions() else []
    return next((entry["summary"] for entry in reversed(journal) if entry.get("summary")), None)


def prepare(store: Store, asked: Request) -> None:
    """The first commit: cells, and the states in equilibrium with the first year."""
    name = asked.region.name
    if name in store.at().regions():
        return
    first = pd.Timestamp(asked.years[0], 1, 1)
    year = asked.weather.forcing(first, first + pd.offsets.YearEnd(0))
    draft = store.draft()
    draft.create(name, asked.cells, first, {"kind": asked.model.name, "version": asked.model.version})
    parts = [
        _settled(asked.model, asked.delta.apply(year.isel(cell=tile)), asked.parameters.isel(cell=tile))
        for tile in _tiles(asked.cells.sizes["cell"])
    ]
    settled = _joined(parts)
    draft.save_restart(name, first, settled)
    spots = asked.spots
    draft.create(_spot(name), asked.cells.isel(cell=spots), first)
    draft.put(_spot(name), "parameters", asked.land.isel(cell=spots))
    checked = _settled(_land(), asked.delta.apply(year.isel(cell=spots)), asked.land.isel(cell=spots))
    draft.save_restart(_spot(name), first, checked)
    draft.append_journal(name, {"asked": asked.label, "key": asked.key})
    draft.commit(f"{name}: {asked.label}")


def _settled(model: LandModel, year: xr.Dataset, parameters: xr.Dataset) -> xr.Dataset:
    """The state of a model in equilibrium with a year of weather, its memories too."""
    warmth = year["air_temperature"].mean("time", dtype="float64")
    start = state.initial(parameters, temperature=warmth)
    return state.spin_up(model, start, year, parameters, SPIN_UP).drop_attrs(deep=False)


def advance(store: Store, asked: Request, part: range, track: Track | None = None) -> None:
    """Run the years of a part, and keep them and the states they end in, in one commit; nothing if that was done."""
    name, spots = asked.region.name, asked.spots
    last = pd.Timestamp(part[-1], 12, 31)
    draft = store.draft()
    found, checks = draft.restart(name), draft.restart(_spot(name))
    assert found is not None and checks is not None
    day, land, check = found[0], found[1].load(), checks[1].load()
    origin, whole = draft.origin(name), (pd.Timestamp(asked.years[-1], 12, 31) - draft.origin(name)).days + 1
    if day > last:
        return
    block, rows = max(BLOCK // asked.cells.sizes["cell"] // DAYS, 1) * DAYS, []
    while day <= last:
        end = min(day + (block - 1 - (day - origin).days % DAYS) * DAY, last)  # to the end of a chunk of the store
        weather = asked.weather.forcing(day, end)
        rows.append(_outside(asked, land, weather))
        land, theta = _run(asked, land, weather)
        kept = {ROOT: state.root_zone(theta).astype("float32")} | ({THETA: theta} if asked.layers else {})
        draft.write(name, "soil", xr.Dataset(kept))
        check, beside = _land().run(check, asked.delta.apply(weather.isel(cell=spots)), asked.land.isel(cell=spots))
        for group, values in (("model", theta.isel(cell=spots)), ("land", beside[THETA])):
            draft.write(_spot(name), group, xr.Dataset({THETA: values.astype("float32")}))
        day = end + DAY
        if track:
            track((day - origin).days, whole)
    draft.save_restart(name, day, land)
    draft.save_restart(_spot(name), day, check)
    told = {"years": [part[0], part[-1]], "outside_envelope": _mean(rows)}
    draft.append_journal(name, {"part": told})
    draft.commit(f"{name}: {asked.label}, {part[0]} to {part[-1]}")


def _run(asked: Request, land: xr.Dataset, weather: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """(end state, soil moisture (time, layer, cell) float32), some cells at a time."""
    ends, parts = [], []
    for tile in _tiles(asked.cells.sizes["cell"]):
        here, drivers, parameters = (data.isel(cell=tile) for data in (land, weather, asked.parameters))
        end, run = asked.model.run(here, asked.delta.apply(drivers), parameters)
        ends.append(end)
        parts.append(run[THETA].astype("float32"))
    return _joined(ends), xr.concat(parts, "cell", join="override") if len(parts) > 1 else parts[0]


def _outside(asked: Request, land: xr.Dataset, weather: xr.Dataset) -> float:
    """The share of cells and days outside what an emulator has seen, of some cells; NaN for a model without limits."""
    limits = getattr(asked.model, "envelope", None)
    if limits is None:
        return float("nan")
    count = asked.cells.sizes["cell"]
    rng = np.random.default_rng(int(asked.key, 16))
    some = np.sort(rng.choice(count, min(ENVELOPE, count), replace=False))
    model: Any = asked.model
    here, drivers, parameters = (data.isel(cell=some) for data in (land, weather, asked.parameters))
    rows = model.features(here, asked.delta.apply(drivers), parameters)
    return float(limits.outside(rows).mean())


def _tiles(cells: int) -> Iterator[slice]:
    return (slice(first, min(first + TILE, cells)) for first in range(0, cells, TILE))


def _joined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """States of neighbouring cells as one."""
    if len(parts) == 1:
        return parts[0]
    return xr.concat(parts, "cell", data_vars="minimal", coords="minimal", compat="override", join="override")


def _spot(region: str) -> str:
    """Where the cells of the spot check are kept."""
    return f"{region}-spots"


def _digest(data: xr.Dataset) -> str:
    """Of names, dims, types and bits of everything that is not a label."""
    total = hashlib.sha256()
    for name, array in sorted(data.variables.items(), key=lambda item: str(item[0])):
        if array.dtype.kind in "biuf":
            total.update(f"{name} {array.dims} {array.shape} {array.dtype}".encode())
            total.update(np.ascontiguousarray(array.values).tobytes())
    return total.hexdigest()[:32]


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    """The mean of what is finite, rounded for people; None if nothing is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return round(float(known.mean()), 6) if known.size else None


# ----------------------------------------------------------------------------------------------------------- figures
def finish(store: Store, asked: Request, reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of every year and decade, the spot check and the event, in the last commit; the summary."""
    name = asked.region.name
    draft = store.draft()
    compared = Store.open(reference["store"]).at(reference["snapshot"]) if reference else None
    seasons = None if compared is None else compared.dataset(name, "calendar").load()
    when, yearly = count_years(draft.dataset(name, "soil")[ROOT], asked.parameters, seasons)
    draft.put(name, "calendar", when)
    draft.put(name, "yearly", yearly)
    told = {
        "key": asked.key,
        "region": name,
        "label": asked.label,
        "family": getattr(asked.weather, "family", asked.weather.scenario),
        "scenario": asked.weather.scenario,
        "delta": asked.delta.identity,
        "model": f"{asked.model.name} {asked.model.version}",
        "years": [asked.years[0], asked.years[-1]],
        "cells": asked.cells.sizes["cell"],
        "reference": reference["key"] if reference else None,
        "decades": by_decade(yearly, asked, reference, _shares(draft, name)),
        "spot_check": spot_check(draft, name, asked, when),
        "notes": _notes(asked.weather),
        "simulated": asked.region.simulated,
    }
    done = fact(SCENARIO_COMPLETED, name, f"{name}-scenario-{asked.key[:12]}", told)
    draft.append_journal(name, {"summary": told, "event": done, "time": verbs.stamp(verbs.now())})
    draft.commit(f"{name}: {asked.label}, complete")
    return told


def count_years(
    root: xr.DataArray, parameters: xr.Dataset, seasons: xr.Dataset | None = None
) -> tuple[xr.Dataset, xr.Dataset]:
    """(calendar of the cells, FIGURES of each year (year, cell)) of daily root-zone soil moisture (time, cell).

    seasons   the calendar to use, of a run this one is compared with; otherwise the first thirty years' own
    Dry days, onset and length are of local years, which begin in a cell's driest month; the mean is of calendar years.
    """
    days, cells = root.sizes["time"], root.sizes["cell"]
    width = max(CELLS, SERIES // (4 * days) // CELLS * CELLS)
    calendars, parts = [], []
    for first in range(0, cells, width):
        tile = slice(first, min(first + width, cells))
        wet = root.isel(cell=tile).load()
        free = availability(wet, parameters.isel(cell=tile))
        if seasons is None:
            thirty = pd.Timestamp(root.time.values[0]) + pd.DateOffset(years=30) - DAY
            when = calendar(free.sel(time=slice(None, thirty)))
        else:
            when = seasons.isel(cell=tile)
        season = wet_season(free, when)
        dry = dry_spells(free, start_month=when["start_month"].values)
        mean = wet.groupby("time.year").mean("time", dtype="float64").astype("float32")
        years = mean["year"].values
        found = {name: season[name].sel(year=years) for name in ("onset", "length", "season_status")}
        found |= {name: dry[name].sel(year=years) for name in ("dry_days", "longest_dry_spell")}
        calendars.append(when)
        parts.append(xr.Dataset({ROOT: mean.assign_attrs(VARIABLES[ROOT].attrs), **found}).drop_vars("start_month"))
    return _joined(calendars), _joined(parts)


def by_decade(
    yearly: xr.Dataset, asked: Request, reference: Mapping[str, Any] | None, outside: Mapping[int, float | None]
) -> list[dict[str, Any]]:
    """FIGURES of each decade over the region, weighted by area, and their change.

    The change is against the same decade without the change of climate where there is one, else against the first.
    """
    area = cell_area(asked.cells).values
    rows: list[dict[str, Any]] = []
    for part in decades(asked.years):
        row: dict[str, Any] = {"years": f"{part[0]}–{part[-1]}"}
        for name in FIGURES:
            mean = yearly[name].sel(year=list(part)).mean("year", skipna=True, dtype="float64").values
            known = np.isfinite(mean)
            row[name] = round(float(np.average(mean[known], weights=area[known])), 5) if known.any() else None
        row["outside_envelope"] = outside.get(part[0])
        before = reference["decades"][len(rows)] if reference else (rows or [row])[0]
        pairs = {name: (row[name], before[name]) for name in FIGURES}
        row["change"] = {n: None if None in pair else round(pair[0] - pair[1], 5) for n, pair in pairs.items()}
        rows.append(row)
    return rows


def _shares(view: View, name: str) -> dict[int, float | None]:
    parts = [entry["part"] for entry in view.journal(name) if entry.get("part")]
    return {part["years"][0]: part["outside_envelope"] for part in parts}


def spot_check(view: View, name: str, asked: Request, when: xr.Dataset) -> dict[str, Any]:
    """How far the run is from the land model itself, at the cells where that ran beside it all the while.

    cells (lat, lon); rmse and bias by layer, m3 m-3, and of the root zone; mean absolute errors of the figures.
    """
    ours, truth = (view.dataset(_spot(name), group)[THETA].load() for group in ("model", "land"))
    error = (ours - truth).astype("float64")
    root = (state.root_zone(ours) - state.root_zone(truth)).astype("float64")
    spots, parameters = asked.spots, asked.land.isel(cell=asked.spots)
    seasons = when.isel(cell=spots)
    figures = [count_years(state.root_zone(theta), parameters, seasons)[1] for theta in (ours, truth)]
    return {
        "model": f"{Land.name} {Land.version}",
        "cells": [[round(float(asked.cells[axis].values[cell]), 4) for axis in ("lat", "lon")] for cell in spots],
        "years": len(asked.years),
        "rmse": [round(float(value), 5) for value in np.sqrt((error**2).mean(("time", "cell")))],
        "bias": [round(float(value), 5) for value in error.mean(("time", "cell"))],
        "root_zone_rmse": round(float(np.sqrt((root**2).mean())), 5),
        "errors": {n: _mean(np.abs(figures[0][n].values - figures[1][n].values)) for n in FIGURES[1:]},
    }


def _notes(weather: Weather) -> dict[str, Any]:
    """What was done to the weather so that it could be used."""
    run = getattr(weather, "run", weather)
    if not isinstance(run, Run):
        return {}
    return {"calendar": run.calendar, "inserted_days": run.inserted, "moved_cells": run.pixels.moved}


# ------------------------------------------------------------------------------------------------- publish, announce
def carry_out(services: Services, asked: Request) -> dict[str, Any]:
    """Run, publish and announce what is asked for, with a bar on a terminal; the summary."""
    with _bar(asked.label) as track:
        done = project(services, asked, track)
    publish(services, asked, done)
    announce(services, asked, done)
    return done


@contextmanager
def _bar(label: str) -> Iterator[Track | None]:
    """Shows how far a run is, where somebody may see it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console) as bar:
        line = bar.add_task(label)
        yield lambda days, whole: bar.update(line, completed=days, total=whole)


def publish(services: Services, asked: Request, done: Mapping[str, Any]) -> bool:
    """Publish the item of a finished run; whether it was new to the catalogue."""
    told = documented(asked.region, done, asked.weather.sources)
    return services.catalog.upsert(documents.scenario_collection(told), [documents.scenario_item(told)]) > 0


def announce(services: Services, asked: Request, done: Mapping[str, Any]) -> bool:
    """Put the event of a finished run on the bus; whether it was new to it."""
    entries = Store.open(done["store"]).at(done["snapshot"]).journal(asked.region.name)
    last = next(entry for entry in reversed(entries) if entry.get("summary"))
    body = last["event"]
    data = {**body["data"], "snapshot": done["snapshot"], "item": documents.href(services.catalog.url, done)}
    source = f"/regions/{asked.region.name}"
    event = Event(body["id"], body["type"], source, body["subject"], last["time"], data, key=asked.region.name)
    return services.bus.publish([event]) > 0


def documented(region: Region, done: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything the item of a finished run says, as plain data."""
    view = Store.open(done["store"]).at(done["snapshot"])
    entries = view.journal(region.name)
    variables = {
        str(name): {"units": "1", "long_name": str(name), **array.attrs, "dims": list(array.dims)}
        for group in ("soil", "yearly")
        for name, array in view.dataset(region.name, group).data_vars.items()
    }
    return {
        **done,
        "title": region.title,
        "bbox": list(region.bbox),
        "time": next(entry["time"] for entry in reversed(entries) if entry.get("summary")),
        "store": Path(done["store"]).absolute().as_uri(),
        "sources": [dict(source) for source in sources],
        "variables": variables,
    }


def finished(settings: Settings, region: str) -> list[dict[str, Any]]:
    """The summaries of all finished runs of a region, the newest first."""
    found = []
    for folder in home(settings).glob("[0-9a-f]" * 32):
        if folder.is_dir():
            store = Store.open(folder)
            if (told := summary(store.at(), region)) is not None:
                found.append((folder.stat().st_mtime, told | {"store": store.url, "snapshot": store.head()}))
    return [told for _, told in sorted(found, key=lambda pair: pair[0], reverse=True)]


# ------------------------------------------------------------------------------------------------------------- words
_COLUMNS = {ROOT: "root zone", "dry_days": "dry days", "onset": "onset", "length": "season"}


def table(done: Mapping[str, Any]) -> list[dict[str, str]]:
    """The decades of a run for people: each figure, and its change in brackets."""
    rows = []
    for decade in done["decades"]:
        row = {"years": decade["years"]}
        for name, column in _COLUMNS.items():
            digits = 3 if name == ROOT else 0
            row[column] = _told(decade[name], digits) + f" ({_told(decade['change'][name], digits, '+')})"
        if decade["outside_envelope"] is not None:
            row["outside"] = f"{decade['outside_envelope']:.1%}"
        rows.append(row)
    return rows


def sentence(done: Mapping[str, Any]) -> str:
    """What was run, what the changes are against, and how far it is from the land model."""
    check = done["spot_check"]
    against = "the same weather without the change" if done["reference"] else "the first decade"
    error, (first, last) = check["root_zone_rmse"], done["years"]
    return (
        f"{done['label']}, {first} to {last}, {done['cells']} cells, through {done['model']}. In brackets the change "
        f"against {against}; root zone in m3 m-3, the others in days (onset since the cell's driest month began). "
        f"Against {check['model']} at {len(check['cells'])} cells: root zone {error:.4f} m3 m-3, dry days "
        f"{_told(check['errors']['dry_days'], 1)}, onset {_told(check['errors']['onset'], 1)} days off."
    )


def _told(value: float | None, digits: int, sign: str = "") -> str:
    return "none" if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")
