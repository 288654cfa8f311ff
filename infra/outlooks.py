"""The outlook of a season: what is known of it, continued by the land model under the weather of each past year.

    past years: weather, soil ─┐                                          ┌ probability of terciles, quantiles, by cell
    this season so far ────────┼─ twin.outlook ─▸ group `outlook` ─ entry ┤
    state of today ────────────┘                                          └ by country, for people and events

The past years are those of the record; of a simulated region, those of its reference, which the land model runs through
once more. Nothing is kept of an older outlook but the entry of the journal that told it, and its snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
import xarray as xr

from infra import areas, regional, verbs
from infra.analysis import Stored
from infra.settings import Region
from infra.spread import parameters_in_use
from infra.store import View
from infra.wiring import Services
from twin import outlook as seasons
from twin import state
from twin.errors import Conflict, RangeError, SettingsError, TimeError
from twin.events import OUTLOOK_ISSUED, fact
from twin.indices.spells import availability
from twin.inputs import THETA
from twin.model import LandModel

GROUP = "outlook"
DAY, SECONDS = pd.Timedelta(days=1), 86400.0
TILE = 512  # cells whose past is in memory at a time
LONGEST = 366  # days


@dataclass(frozen=True)
class Metric:
    """What is foretold of a season: one figure of its daily values.

    carried   whether the land model goes on with them; rain is just that of past years
    """

    title: str
    units: str
    figure: Callable[[xr.DataArray], xr.DataArray]
    carried: bool


METRICS = {
    "water": Metric("mean plant-available water", "1", lambda days: days.mean("time", skipna=False), True),
    "rain": Metric("rain", "kg m-2", lambda days: days.sum("time", skipna=False), False),
}


@dataclass(frozen=True)
class Request:
    """An outlook that is asked for.

    first, last   the season
    metric        of METRICS
    terciles      forecast of the rain still to come: probability of a dry, a normal and a wet third; none: all alike
    analogues     whether years that began alike weigh more
    """

    first: date
    last: date
    metric: str = "water"
    terciles: tuple[float, float, float] | None = None
    analogues: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise SettingsError("metric of an outlook", expected=" or ".join(METRICS), found=self.metric)
        days = (self.last - self.first).days + 1
        if not 1 <= days <= LONGEST:
            raise SettingsError("season of an outlook", expected=f"1 to {LONGEST} days", found=f"{days} days")
        if self.terciles is not None and self.analogues:
            raise SettingsError("weights of an outlook", expected="terciles or analogues", found="both")
        if self.terciles is not None and (min(self.terciles) < 0 or abs(sum(self.terciles) - 1.0) > 1e-6):
            expected = "dry, normal and wet, adding up to 1"
            raise RangeError("forecast of terciles", expected=expected, found=list(self.terciles))

    @property
    def days(self) -> pd.DatetimeIndex:
        return pd.date_range(self.first, self.last)


def issue(services: Services, region: Region, asked: Request) -> dict[str, Any]:
    """Work an outlook out from the newest state and commit it; what the journal tells of it.

    Raises SettingsError before there is a state, TimeError for a season that is over, or has too little past.
    """
    view = services.store.at()
    known = view.last_day(region.name, "drought") if view.has(region.name, "drought") else None
    if known is None:
        raise SettingsError(f"outlook of {region.name}", expected="a state to go on from", found="none yet")
    if asked.days[-1] <= known:
        raise TimeError("season of an outlook", expected=f"days after {known.date()}", found=str(asked.last))
    found = _of_tiles(services, region, view, asked, known)
    told = _told(services, view, region, asked, found)
    for attempt in range(verbs.CONFLICT_TRIES):
        with services.store.turn():
            draft = services.store.draft()
            draft.put(region.name, GROUP, _with_units(found, METRICS[asked.metric].units).astype("float32"))
            about = {"region": region.name, "sequence": draft.next_seq(region.name), "simulated": region.simulated}
            event = fact(OUTLOOK_ISSUED, region.name, f"{region.name}-outlook", {**about, **told})
            verbs.append(draft, region, outlook=told, events=[event])
            try:
                draft.commit(f"{region.name}: outlook of {told['season']}, issued {told['issued']}")
                return told
            except Conflict:
                if attempt == verbs.CONFLICT_TRIES - 1:
                    raise
    raise AssertionError("unreachable")


def carry_out(services: Services, region: Region, asked: Request) -> dict[str, Any]:
    """Issue an outlook and tell the world; what the journal tells of it."""
    told = issue(services, region, asked)
    verbs.publish(services, region)
    verbs.announce(services, region)
    return told


def sentence(told: Mapping[str, Any]) -> str:
    """An outlook in words."""
    worst = max(told["areas"], key=lambda row: row["below"] or 0.0, default=None)
    where = f" It is most likely a dry one in {worst['area']} ({worst['below']:.0%})." if worst else ""
    return (
        f"Outlook of {told['about']} from {told['season']}, issued {told['issued']} with {told['lead_time']} to come, "
        f"from {told['reference_years']} past years ({told['effective_years']:g} of equal weight).{where}"
    )


def _of_tiles(services: Services, region: Region, view: View, asked: Request, known: pd.Timestamp) -> xr.Dataset:
    """The outlook of all cells, tile by tile."""
    cells = view.dataset(region.name, "grid").load()
    parameters = parameters_in_use(view, region.name)
    restart = view.restart(region.name, before=known + DAY)
    if restart is None or restart[0] != known + DAY:
        found = "none" if restart is None else str(restart[0].date())
        raise TimeError(f"state of {region.name}", expected=f"the morning after {known.date()}", found=found)
    parts = []
    for first in range(0, cells.sizes["cell"], TILE):
        part = slice(first, first + TILE)
        here = [each.isel(cell=part) for each in (cells, parameters, restart[1])]
        parts.append(_of_cells(services.model, region, view, asked, known, part, *here))
    told = xr.concat(parts, "cell", combine_attrs="override", coords="minimal", compat="override")
    return told.assign_attrs(parts[0].attrs)


def _of_cells(
    model: LandModel,
    region: Region,
    view: View,
    asked: Request,
    known: pd.Timestamp,
    part: slice,
    cells: xr.Dataset,
    parameters: xr.Dataset,
    land: xr.Dataset,
) -> xr.Dataset:
    """The outlook of some cells: their past, their season so far, and the weights of the years."""
    metric = METRICS[asked.metric]
    now = asked.days[asked.days <= known]
    if region.simulated:
        weather, water = _simulated(model, region, cells, parameters)
        if len(now):
            seen, soil = _recorded(view, region, now[0], now[-1], part, parameters)
            weather, water = xr.concat([weather, seen], "time"), xr.concat([water, soil], "time")
    else:
        weather, water = _recorded(view, region, pd.Timestamp(region.start), known, part, parameters)
    rain = weather["precipitation_flux"] * SECONDS
    carried = seasons.carried(model, land, parameters, weather, lambda told: _available(told, parameters))
    return seasons.outlook(
        water if metric.carried else rain,
        metric.figure,
        (asked.first, asked.last),
        issued=known.to_datetime64(),
        rest=carried if metric.carried else None,
        weigh=_weights(asked, rain, known),
    )


def _with_units(found: xr.Dataset, units: str) -> xr.Dataset:
    """The outlook with the metric's unit where a variable has none of its own; probabilities and counts have 1."""
    own = {name: "1" if "probability" in str(name) or "size" in str(name) else units for name in found.data_vars}
    return found.assign({name: found[name].assign_attrs(units=unit) for name, unit in own.items() if name != "weight"})


def _simulated(
    model: LandModel, region: Region, cells: xr.Dataset, parameters: xr.Dataset
) -> tuple[xr.Dataset, xr.DataArray]:
    """Weather and available water of the reference years of a simulated region."""
    first, last = pd.Timestamp(region.reference_start).year, pd.Timestamp(region.reference_end).year
    years = [
        (each.forcing, _available(each.diagnostics, parameters))
        for each in regional.simulated_years(model, region, cells, parameters)
        if first <= each.year <= last
    ]
    weather, water = (xr.concat(parts, "time") for parts in zip(*years, strict=True))
    return weather, water


def _recorded(
    view: View, region: Region, first: pd.Timestamp, last: pd.Timestamp, part: slice, parameters: xr.Dataset
) -> tuple[xr.Dataset, xr.DataArray]:
    """Weather and available water of some days of the store."""
    weather = Stored(view, region.name, first, last, "").tile(part)
    told = view.dataset(region.name, "state")[[THETA]].isel(cell=part).sel(time=slice(first, last)).load()
    return weather, _available(told, parameters)


def _available(told: xr.Dataset, parameters: xr.Dataset) -> xr.DataArray:
    return availability(state.root_zone(told[THETA]), parameters)


def _weights(asked: Request, rain: xr.DataArray, known: pd.Timestamp) -> seasons.Weigh:
    """How past years weigh: by a forecast of the rain to come, by how alike they began, or all the same."""
    if asked.analogues:
        return seasons.analogues()
    if asked.terciles is None:
        return seasons.equal
    ahead = asked.days[asked.days > known]
    years = range(pd.Timestamp(rain.time.values[0]).year, asked.first.year)
    there = rain.indexes["time"]
    totals = {
        year: rain.sel(time=days).sum("time", skipna=False)
        for year in years
        if (days := seasons.same_days(ahead, asked.first.year - year)).isin(there).all()
    }
    return seasons.terciles(asked.terciles, xr.concat([*totals.values()], pd.Index([*totals], name="year")))


def _told(services: Services, view: View, region: Region, asked: Request, found: xr.Dataset) -> dict[str, Any]:
    """What the journal keeps of an outlook: what was asked, of how many years, and the means of countries."""
    metric = METRICS[asked.metric]
    forecast = {"terciles": list(asked.terciles)} if asked.terciles else {}
    names = ("season", "issued", "lead_time", "reference_start", "reference_end", "reference_years")
    about = {name: found.attrs[name] for name in names}
    model = verbs.made_with(view, region, services)
    below = found["tercile_probability"].sel(tercile="below")
    return {
        **about,
        "model": model,
        "metric": asked.metric,
        "about": metric.title,
        "weights": "terciles" if asked.terciles else "analogues" if asked.analogues else "equal",
        **forecast,
        "effective_years": round(float(found["effective_sample_size"].mean()), 1),
        "areas": areas.means(view, region, {"below": below, "drought": found["probability_below"].isel(percentile=0)}),
    }
