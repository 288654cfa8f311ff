"""The `twin` command: every verb takes `--json` for machines and ends with an honest exit code.

0 done · 2 refused input or usage · 3 something is waiting or set aside · 5 a service is away
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from twin.errors import Rejected, SettingsError, Transient, TwinError

app = typer.Typer(help="The drought twin.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
quarantine = typer.Typer(help="Items set aside, with their reasons.", no_args_is_help=True)
bench = typer.Typer(help="Measure; every figure of the docs comes from one of these.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
app.add_typer(bench, name="bench")

OutputJson = Annotated[bool, typer.Option("--json", help="One JSON object on the last line.")]
RegionName = Annotated[str, typer.Option("--region", help="A region of infra/regions.", envvar="TWIN_REGION")]
Sources = Annotated[list[str], typer.Option("--source", help="A STAC catalog: path or URL. May be repeated.")]

Day = Annotated[str, typer.Option(help="A day, YYYY-MM-DD.", show_default="the newest")]

REFUSED, WAITING, AWAY = 2, 3, 5


@contextmanager
def exit_codes() -> Iterator[None]:
    """Every error of ours ends as one clear line and the exit code of its class."""
    try:
        yield
    except (Rejected, SettingsError) as error:
        typer.secho(f"twin: {error}", err=True, fg="red")
        raise typer.Exit(REFUSED) from error
    except Transient as error:
        typer.secho(f"twin: {error}", err=True, fg="yellow")
        raise typer.Exit(AWAY) from error
    except TwinError as error:
        typer.secho(f"twin: {error}", err=True, fg="red")
        raise typer.Exit(1) from error


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, empty: str) -> None:
    """Rows as one JSON array, or as a table for people."""
    if as_json:
        print(json.dumps(rows, default=str))
        return
    if not rows:
        print(empty)
        return
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    Console().print(table)


@app.command()
def up(
    region_name: RegionName = "demo",
    source: Sources = [],  # noqa: B006 (typer needs a literal default)
) -> None:
    """Start the embedded twin with its portal; Ctrl-C stops all of it."""
    from flows import up as embedded
    from infra import telemetry, warning
    from infra.settings import Settings, region

    with exit_codes():
        settings, place = Settings(), region(region_name)
        telemetry.set_up(settings)
        warning.check(settings)
        if not place.simulated and not source:
            raise SettingsError(f"region {place.name}", expected="at least one --source", found="none")
        typer.echo(
            f"Drought twin · {place.title}" + (" · simulated data, for demonstration" if place.simulated else "")
        )
        processes, links = embedded.plan(settings, place, source)
        raise typer.Exit(embedded.supervise(processes, links, lambda: _prepare(settings, place)))


def _prepare(settings: Any, place: Any) -> None:
    """A simulated region can be prepared before anything arrives; others wait for their first item."""
    if place.simulated:
        from infra import verbs
        from infra.wiring import build

        services = build(settings)
        if not services.store.at().has(place.name, "grid"):
            typer.echo("first start: simulating the reference years that percentiles refer to …")
        verbs.prepare(services, place)


@app.command()
def run(
    source: Sources,
    region_name: RegionName = "demo",
    once: Annotated[bool, typer.Option("--once", help="Catch up and stop; otherwise keep watching.")] = False,
    as_json: OutputJson = False,
) -> None:
    """Headless: catch up with all sources, print what was done; without --once keep following them."""
    from flows import headless
    from infra import telemetry, warning
    from infra.settings import Settings, region

    with exit_codes():
        settings, place = Settings(), region(region_name)
        telemetry.set_up(settings)
        warning.check(settings)
        tally = headless.catch_up(settings, place, source, once=once)
        if as_json:
            print(json.dumps({"region": place.name, **tally}))
        else:
            print(headless.sentence(place, tally))
        raise typer.Exit(WAITING if tally["waiting"] else 0)


@app.command()
def watch(source: Sources, region_name: RegionName = "demo") -> None:
    """Serve the flows: notice new items and start an update run for each batch (needs PREFECT_API_URL)."""
    from flows import serve

    sys.argv = ["twin watch", "--region", region_name, *(word for url in source for word in ("--source", url))]
    with exit_codes():
        serve.main()


@app.command()
def status(as_json: OutputJson = False) -> None:
    """What the twin knows, region by region; the last analysis, the emulator in use, and what is under way."""
    from infra import registry, tasks
    from infra.settings import Settings
    from infra.wiring import build

    with exit_codes():
        settings = Settings()
        view = build(settings).store.at()
        under_way = {
            what: [run for run in tasks.progress(settings.home / folder) if run["state"] == "running"]
            for what, folder in (("assimilating", "tasks"), ("training", "training"))
        }
        rows, said = [], [f"{what}: {tasks.sentence(run)}" for what, runs in under_way.items() for run in runs]
        for name in view.regions():
            ledger = view.ledger(name).values()
            journal = view.journal(name)
            release: dict[str, Any] = next((e["release"] for e in reversed(journal) if e.get("release")), {})
            attempt: dict[str, Any] = next((e["analysis"] for e in reversed(journal) if e.get("analysis")), {})
            rows.append(
                {
                    "region": name,
                    "cells": view.dataset(name, "grid").sizes["cell"],
                    "drought of": release.get("valid_day", ""),
                    "tier": release.get("tier", "open_loop") if release else "",
                    "analysed until": release.get("analysed_until", ""),
                    "in drought": _share(release),
                    "items": sum(record["status"] == "consumed" for record in ledger),
                    "quarantined": sum(record["status"] == "quarantined" for record in ledger),
                    "updates": len(journal),
                    "snapshot": view.snapshot,
                    "last analysis": {n: attempt[n] for n in ("window", "accepted", "reasons")} if attempt else None,
                    "emulator": registry.pointer(view, name).champion,
                    **under_way,
                }
            )
            if attempt:
                outcome = "accepted" if attempt["accepted"] else f"refused: {'; '.join(attempt['reasons'])}"
                said.append(f"{name}: analysis of {' to '.join(attempt['window'])} {outcome}")
        columns = [name for name in rows[0] if name not in ("last analysis", *under_way)] if rows else []
        show(rows, columns, as_json, "nothing here yet: `twin up`, or `twin run --region … --source …`")
        for line in [] if as_json else said:
            print(line)


def _share(release: dict[str, Any]) -> str:
    """The area share in D1 or worse (D0 is abnormally dry, not yet drought)."""
    fractions = release.get("class_fractions", {})
    return f"{sum(fractions.get(name, 0.0) for name in ('D1', 'D2', 'D3', 'D4')):.0%}" if fractions else ""


@app.command()
def train(
    region_name: RegionName = "demo",
    force: Annotated[bool, typer.Option("--force", help="Although nothing asks for it.")] = False,
    as_json: OutputJson = False,
) -> None:
    """Train the emulator if that is due, or judge the one in the shadow; the flow does so by itself."""
    from flows import headless
    from infra import telemetry
    from infra.settings import Settings, region

    with exit_codes():
        settings, place = Settings(), region(region_name)
        telemetry.set_up(settings)
        tally = headless.train(settings, place, force=force)
        print(json.dumps({"region": place.name, **tally}) if as_json else tally["trained"] or "nothing is due")


@app.command()
def models(
    region_name: RegionName = "demo",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Use the emulator before the present one again.")
    ] = False,
    as_json: OutputJson = False,
) -> None:
    """The emulators a region keeps: the one in use, the one in its shadow, and those before it."""
    from flows import headless
    from infra import training
    from infra.settings import Settings, region
    from infra.wiring import build

    with exit_codes():
        settings, place = Settings(), region(region_name)
        if rollback:
            headless.roll_back(settings, place)
        view = build(settings).store.at()
        rows = training.listed(view, place)
        show(rows, ["version", "use", "since", "trained on", "because"], as_json, "no emulator yet: `twin train`")


SCENARIO_HELP = (
    "Soil moisture and drought under another climate: of climate models, or the region's own weather changed.\n\n"
    "--source is a folder of ISIMIP2b files (rcp26, rcp60, rcp85) or ISIMIP3b files (ssp126, ssp370, ssp585). Without "
    "it the weather is the region's own. The same request is run once; a run that was stopped goes on."
)


@app.command(help=SCENARIO_HELP)
def scenario(
    region_name: RegionName = "demo",
    source: Annotated[str, typer.Option(help="Folder of climate-model files.")] = "",
    scenario: Annotated[str, typer.Option(help="Such as rcp60 or ssp126.")] = "",
    climate_model: Annotated[str, typer.Option(help="Where the folder holds several.")] = "",
    correct: Annotated[bool, typer.Option("--correct", help="Take its bias against the region's record out.")] = False,
    rain: Annotated[float, typer.Option(help="Factor.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="K warmer, at the same relative humidity.")] = 0.0,
    wet_days: Annotated[float, typer.Option(help="Share of wet days that stay, with all of the rain.")] = 1.0,
    co2: Annotated[float | None, typer.Option(help="ppm, for models that know leaves.")] = None,
    months: Annotated[str, typer.Option(help="In which rain and temperature change: 6-9, 11-2 or 3,4.")] = "1-12",
    years: Annotated[str, typer.Option(help="First and last: 2006-2099.", show_default="all there are")] = "",
    model: Annotated[str, typer.Option(help="emulator, land-daily or land.", show_default="the best there is")] = "",
    layers: Annotated[bool, typer.Option("--layers", help="Keep the four soil layers too.")] = False,
    as_json: OutputJson = False,
) -> None:
    from infra import projections, telemetry
    from infra.settings import Settings, region
    from infra.wiring import build, embedded_catalog

    with exit_codes():
        settings, place = Settings(), region(region_name)
        telemetry.set_up(settings)
        words = projections.Words(
            source=source,
            scenario=scenario,
            climate_model=climate_model,
            correct=correct,
            rain=rain,
            temperature=temperature,
            wet_days=wet_days,
            co2=co2,
            months=_months(months),
            years=_years(years),
            model=model,
            layers=layers,
        )
        _prepare(settings, place)
        with embedded_catalog(settings) as given:
            services = build(given)
            done = projections.carry_out(services, projections.request(services, place, words))
        if as_json:
            print(json.dumps(done))
            return
        rows = projections.table(done)
        show(rows, list(rows[0]), False, "")
        print(projections.sentence(done))


def _months(text: str) -> tuple[int, ...]:
    """`6-9`, `11-2`, `3,4` or a mixture as months."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            begin, end = int(first), int(last or first)
            if not {begin, end} <= set(range(1, 13)):
                raise ValueError(part)
            found += [(begin - 1 + k) % 12 + 1 for k in range((end - begin) % 12 + 1)]
    except ValueError as err:
        raise SettingsError("--months", expected="such as 6-9, 11-2 or 3,4", found=text) from err
    return tuple(found)


def _years(text: str) -> tuple[int, int] | None:
    """`2006-2099`, or one year."""
    try:
        first, _, last = text.partition("-")
        return (int(first), int(last or first)) if text else None
    except ValueError as err:
        raise SettingsError("--years", expected="such as 2006-2099", found=text) from err


@app.command()
def areas(
    region_name: RegionName = "demo",
    day: Day = "",
    features: Annotated[Path | None, typer.Option(help="GeoJSON of other areas than countries.")] = None,
    as_json: OutputJson = False,
) -> None:
    """Drought by country: share of the area in each class, DSCI, and how probable drought is there."""
    from infra import areas as places
    from infra.settings import Settings, region
    from infra.wiring import build

    with exit_codes():
        place = region(region_name)
        rows = places.statistics(build(Settings()).store.at(), place, day or None, features)
        show(rows, ["area", "drought", "dsci", "probability", "D1", "D2", "D3", "D4"], as_json, "no area yet")


@app.command()
def warnings(
    region_name: RegionName = "demo",
    log: Annotated[bool, typer.Option("--log", help="All that was said, not only what stands.")] = False,
    replay: Annotated[
        str, typer.Option(help="A file of rules: what they would have said, release by release.", metavar="FILE")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Hits, misses, false alarms and days of lead by rule.")
    ] = False,
    as_json: OutputJson = False,
) -> None:
    """Warnings that stand, by the rules of TWIN_WARNINGS__RULES; what was said before, and how good it was."""
    from infra import verbs, warning
    from infra.settings import Settings, region
    from infra.wiring import build

    with exit_codes():
        settings, place = Settings(), region(region_name)
        if replay:
            asked = settings.warnings.model_copy(update={"rules": replay})
            settings = settings.model_copy(update={"warnings": asked})
        store = build(settings).store
        view = store.at()
        if replay:
            standing, said = warning.replay(store, place, settings)
        else:
            newest, said = verbs.warned(view, place), warning.firing_log(view, place.name)
            standing = newest["standing"]
            if "error" in newest:
                typer.secho(f"twin: the rules could not be used: {newest['error']}", err=True, fg="yellow")
        if verify:
            rows = warning.table(warning.verified(view, place, settings, said))
            show(rows, ["rule", "hits", "misses", "false_alarms", "hit_rate", "lead_days"], as_json, "nothing to judge")
        elif log or replay:
            show(said, ["day", "kind", "level", "reason", "where", "text"], as_json, "no warning yet")
        else:
            rows = [{**each["last"], "stale": each["stale"]} for each in standing.values() if each.get("last")]
            show(rows, ["level", "since", "where", "text", "stale"], as_json, "no warning stands")


@app.command()
def outlook(
    first: Annotated[str, typer.Option("--from", help="First day of the season, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="Last day of the season, YYYY-MM-DD.")],
    region_name: RegionName = "demo",
    metric: Annotated[str, typer.Option(help="water (that plants can take) or rain.")] = "water",
    terciles: Annotated[
        str, typer.Option(help="Forecast of the rain to come: chance of a dry, normal and wet third, as 40,35,25.")
    ] = "",
    analogues: Annotated[bool, typer.Option("--analogues", help="Years that began alike weigh more.")] = False,
    as_json: OutputJson = False,
) -> None:
    """How a season may end: what is known of it, gone on with as each past year did, by the land model."""
    from infra import outlooks, telemetry
    from infra.settings import Settings, region
    from infra.wiring import build, embedded_catalog

    with exit_codes():
        settings, place = Settings(), region(region_name)
        telemetry.set_up(settings)
        asked = outlooks.Request(_date("--from", first), _date("--to", last), metric, _terciles(terciles), analogues)
        with embedded_catalog(settings) as given:
            told = outlooks.carry_out(build(given), place, asked)
        if as_json:
            print(json.dumps(told))
            return
        show(told["areas"], ["area", "below", "drought"], False, "no area")
        print(outlooks.sentence(told))


@app.command()
def history(
    file: Annotated[Path, typer.Argument(help="NetCDF of one station's daily weather.")],
    place: Annotated[str, typer.Option(help="As the page names it.")],
    out: Annotated[Path, typer.Option(help="Folder to write the page and its figures to.")] = Path("."),
    altitude: Annotated[float, typer.Option(help="Of the station, m.")] = 0.0,
) -> None:
    """Write a page of a place's seasons, dry spells and droughts from its own weather."""
    from flows.history import history as written

    with exit_codes():
        for path in written(file, place, out, altitude=altitude):
            print(path)


def _date(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as err:
        raise SettingsError(option, expected="a day, YYYY-MM-DD", found=text) from err


def _terciles(text: str) -> tuple[float, float, float] | None:
    """`40,35,25` as shares."""
    if not text:
        return None
    try:
        dry, normal, wet = (float(part) / 100.0 for part in text.split(","))
    except ValueError as err:
        raise SettingsError("--terciles", expected="three numbers such as 40,35,25", found=text) from err
    return dry, normal, wet


@app.command()
def items(region_name: RegionName = "demo", as_json: OutputJson = False) -> None:
    """Every item taken or set aside."""
    from infra.settings import Settings
    from infra.wiring import build

    with exit_codes():
        ledger = build(Settings()).store.at().ledger(region_name)
        rows = sorted(ledger.values(), key=lambda record: (record["seq"], record["key"]))
        show(rows, ["status", "id", "product", "datetime", "version", "seq"], as_json, "no item yet")


@quarantine.command("list")
def quarantine_list(region_name: RegionName = "demo", as_json: OutputJson = False) -> None:
    """What was set aside, and why."""
    from infra.settings import Settings
    from infra.wiring import build

    with exit_codes():
        ledger = build(Settings()).store.at().ledger(region_name)
        rows = [record for record in ledger.values() if record["status"] == "quarantined"]
        show(rows, ["key", "kind", "reason"], as_json, "nothing is set aside")


@quarantine.command("retry")
def quarantine_retry(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys as `list` shows them; all when none is given.")] = None,
    region_name: RegionName = "demo",
    as_json: OutputJson = False,
) -> None:
    """Try items that were set aside once more."""
    from flows import headless
    from infra.settings import Settings, region

    with exit_codes():
        tally = headless.retry(Settings(), region(region_name), keys or [])
        print(json.dumps(tally) if as_json else f"{tally['ingested']} taken, {tally['quarantined']} set aside again")
        raise typer.Exit(WAITING if tally["quarantined"] else 0)


@app.command()
def export(
    target: Annotated[
        Path, typer.Argument(help="A .nc or .csv file to write, or a folder for a static STAC catalogue.")
    ],
    region_name: RegionName = "demo",
    first: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")] = "",
    last: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD.")] = "",
    what: Annotated[str, typer.Option(help="drought or indices, in a file.")] = "drought",
) -> None:
    """Write drought or indices of a period as NetCDF or CSV, or everything published as a static STAC catalogue."""
    from infra import export as exporting
    from infra.settings import Settings
    from infra.wiring import build, embedded_catalog

    with exit_codes(), embedded_catalog(Settings()) as settings:
        print(exporting.export(build(settings), region_name, target, first or None, last or None, what))


@app.command()
def subscribe(
    consumer: Annotated[str, typer.Option(help="Who is asking: each name keeps its own place.")] = "command-line",
    once: Annotated[bool, typer.Option("--once", help="Stop at the end instead of waiting for more.")] = False,
) -> None:
    """Follow the events, one CloudEvent a line."""
    from infra.bus import cloudevent
    from infra.settings import Settings
    from infra.wiring import build

    with exit_codes():
        bus = build(Settings()).bus
        while True:
            events = bus.poll(consumer, timeout=0.0 if once else 1.0)
            for event in events:
                print(json.dumps(cloudevent(event)), flush=True)
                bus.ack(consumer, event.position)
            if once and not events:
                return


@app.command()
def doctor(as_json: OutputJson = False) -> None:
    """What is here, what is missing, and how to get it."""
    from infra import doctor as checks

    rows = checks.examine()
    show(rows, ["check", "state", "advice"], as_json, "")
    raise typer.Exit(0 if all(row["state"] != "missing" or not row["needed"] for row in rows) else 1)


def _bench(name: str, help_text: str) -> Callable[[Callable], Callable]:
    return bench.command(name, help=help_text)


@_bench("arrival", "Seconds from an item's appearance to its event and to the portal showing it.")
def bench_arrival(
    cells: Annotated[int, typer.Option(help="About how many cells.")] = 60_000,
    arrivals: Annotated[int, typer.Option(help="How many items to time.")] = 50,
    browser: Annotated[bool, typer.Option(help="Also wait for the portal in headless Chromium.")] = True,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.arrival import arrival

    with exit_codes():
        arrival(cells, arrivals, browser, as_json)


@_bench("store", "Milliseconds to read a map and a series and to append a day.")
def bench_store(
    cells: Annotated[int, typer.Option(help="How many cells.")] = 60_000,
    years: Annotated[int, typer.Option(help="How many years.")] = 40,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.store import store

    with exit_codes():
        store(cells, years, as_json)


LAND_HELP = (
    "CPU and wall milliseconds per pixel-year (ms/py) of the land model, minimum and median.\n\n"
    "Simulated weather, random soils and surface types (4.6 per cell on average), daily forcing, daily output of every "
    "flux and state. Compiling is not counted, setting up each run is. 1D is the daily tier. Each repeat starts in "
    "another season, every other one goes through the list backwards, and ratios are medians over the repeats: compare "
    "within a run only. JULES/this is what real JULES takes at 30 min in the same precision, measured once by itself, "
    "over the median here. Then the peak memory of a run per cell, and what it costs to spread daily forcing."
)
LAND_CELLS, LAND_STEPS, LAND_PRECISIONS = [100, 1_000, 10_000], ["30min", "1h", "3h", "1D"], ["double", "single"]


@_bench("land", LAND_HELP)
def bench_land(
    cells: Annotated[list[int], typer.Option(min=16, max=60_000, help="How many. May be repeated.")] = LAND_CELLS,
    steps: Annotated[list[str], typer.Option(help="30min, 1h, 3h, 1D. May be repeated.")] = LAND_STEPS,
    precisions: Annotated[list[str], typer.Option(help="double, single. May be repeated.")] = LAND_PRECISIONS,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="How many. May be repeated.", show_default="1 and all cores")
    ] = None,
    days: Annotated[
        int, typer.Option(min=0, max=365, help="How many a repeat runs; 0: 10 to 365, by cells and step.")
    ] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="How often.")] = 3,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.land import land

    with exit_codes():
        land(cells, steps, precisions, threads or [], days, repeats, as_json)


OBSERVED_HELP = (
    "What assimilation is worth against real retrievals of soil moisture that it has not seen.\n\n"
    "Takes the catalog in, calibrates on its first year at one half of the cells, drawn by the seed, and scores the "
    "second year at the other half: before and after, as the sensor's operator sees the run and as the plain water of "
    "its first layer, for retrievals that pass the gates and for all. Means and medians over cells, with 95 % limits "
    "from a bootstrap by cell. With --probe also against a station in the ground, whose cell is left out."
)


@_bench("observed", OBSERVED_HELP)
def bench_observed(
    source: Annotated[str, typer.Option(help="A STAC catalog: path or URL.")],
    region_name: RegionName = "conus",
    seed: Annotated[int, typer.Option(help="Which half of the cells, and which members.")] = 0,
    probe: Annotated[Path | None, typer.Option(help="A daily station file of USCRN, as CSV.")] = None,
    model: Annotated[str, typer.Option(help="land-daily, or land in steps of 3 h.")] = "land-daily",
    residual: Annotated[bool, typer.Option(help="Also estimate what differs from place to place.")] = True,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.observed import observed

    with exit_codes():
        observed(source, region_name, seed, probe, model, residual, as_json)


ASSIMILATE_HELP = (
    "What a window of assimilation costs.\n\n"
    "--algebra: sums over random observations, their total and its solution, on one thread; then the same problem as "
    "published, with a dense covariance inverted at every step (Pinnington et al. 2020), at growing sizes. --whole: a "
    "simulated year assimilated, by what the time goes into; with --scaling also at three sizes each of cells, "
    "observations and members."
)
PEERS = [100, 300, 1_000, 2_000, 3_000]


@_bench("assimilate", ASSIMILATE_HELP)
def bench_assimilate(
    cells: Annotated[int, typer.Option(min=1, help="How many.")] = 60_000,
    observations: Annotated[int, typer.Option(min=1, help="How many, over all cells.")] = 1_500_000,
    members: Annotated[int, typer.Option(min=2, help="How many.")] = 50,
    whole: Annotated[
        bool, typer.Option("--whole/--algebra", help="With the land model, or the algebra alone.")
    ] = False,
    tier: Annotated[str, typer.Option(help="Of --whole: 1D or 3h.")] = "1D",
    scaling: Annotated[bool, typer.Option(help="Of --whole: how it grows.")] = False,
    peers: Annotated[
        list[int], typer.Option(min=1, help="Observations of the dense problem. May be repeated.")
    ] = PEERS,
    repeats: Annotated[int, typer.Option(min=1, help="Of the algebra.")] = 5,
    as_json: OutputJson = False,
) -> None:
    from flows.bench import assimilate

    with exit_codes():
        if whole:
            assimilate.whole(assimilate.Size(cells, observations, members, tier), scaling, as_json)
        else:
            assimilate.algebra(cells, observations, members, peers, repeats, as_json)


@_bench("twins", "Error an analysis leaves of a hidden truth, as a share of the open loop's, over many seeds.")
def bench_twins(
    kind: Annotated[str, typer.Option(help="identical or fraternal.")] = "identical",
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    offset: Annotated[float, typer.Option(min=0.0, help="Of sensor and model at a cell, m3 m-3.")] = 0.0,
    outliers: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of wild values.")] = 0.0,
    local: Annotated[float, typer.Option(min=0.0, help="Of the soil from place to place, standard deviations.")] = 0.0,
    fluorescence: Annotated[bool, typer.Option(help="Observe fluorescence too.")] = False,
    surface: Annotated[bool, typer.Option(help="The surface is unknown too, not the soil alone.")] = False,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.twins import twins
    from twin.experiments import Setting

    with exit_codes():
        setting = Setting(offset=offset, outliers=outliers, local=local, fluorescence=fluorescence, surface=surface)
        twins(kind, seeds, setting, local > 0.0, as_json)


EMULATOR_HELP = (
    "What a pixel-year costs the emulator, in one run with what it stands beside.\n\n"
    "Trains a small one first (its trees are as many and as deep as a real one's). Then CPU ms of a pixel-year, four "
    "soil layers: the emulator as a whole, the daily physics alone, the land model; one place a call; a whole map; and "
    "its trees by our kernel on every path of this processor and by the other runtimes that are installed, with the "
    "largest difference from XGBoost."
)


@_bench("emulator", EMULATOR_HELP)
def bench_emulator(
    cells: Annotated[int, typer.Option(min=50, help="Pixel-years of the comparison.")] = 1_000,
    whole: Annotated[int, typer.Option(min=50, help="Cells of the map.")] = 60_000,
    locations: Annotated[int, typer.Option(min=20, help="To train on.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="How often.")] = 5,
    as_json: OutputJson = False,
) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait by spinning count as work
    from flows.bench.emulator import emulator

    with exit_codes():
        emulator(cells, whole, locations, repeats, as_json)


SKILL_HELP = (
    "How good the emulator is where it has not been.\n\n"
    "Trains on locations of a simulated Africa and scores, running freely, other blocks in other years, as they are "
    "and 3 K warmer with a fifth less rain. --jules: on points of a real JULES run, scored on the others."
)
Locations = Annotated[int, typer.Option(min=20, help="To train on.")]
HeldOut = Annotated[int, typer.Option(min=12, help="To calibrate on, and as many to score on.")]
TrainYears = Annotated[int, typer.Option(min=1, help="To train on.")]
TestYears = Annotated[int, typer.Option(min=1, help="To score, other ones; the first does not count.")]
Seed = Annotated[int, typer.Option(help="Which blocks, locations and members.")]


@_bench("skill", SKILL_HELP)
def bench_skill(
    locations: Locations = 1_000,
    held_out: HeldOut = 200,
    years: TrainYears = 4,
    test_years: TestYears = 24,
    seed: Seed = 0,
    every_output: Annotated[
        bool, typer.Option("--every-output", help="Also evapotranspiration, carbon, soil temperature and snow.")
    ] = False,
    jules: Annotated[Path | None, typer.Option(help="A folder with grid200_*.nc of a real JULES.")] = None,
    as_json: OutputJson = False,
) -> None:
    from flows.bench import skill

    with exit_codes():
        if jules is not None:
            skill.jules(jules, seed, as_json)
        else:
            skill.skill(locations, held_out, years, test_years, seed, every_output, as_json)


INDICES_HELP = "CPU time of a pixel-year of every index, beside memory, the store and other programs; a new day's time."
PROGRAMS = ["xclim", "climate_indices"]


@_bench("indices", INDICES_HELP)
def bench_indices(
    cells: Annotated[int, typer.Option(min=1, help="How many.")] = 6000,
    years: Annotated[int, typer.Option(min=2, help="How many; SPI needs 30.")] = 30,
    peers: Annotated[list[str], typer.Option(help="Other programs to run beside it. May be repeated.")] = PROGRAMS,
    peer_cells: Annotated[int, typer.Option(min=1, help="Cells that xclim is given.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="How many; medians are told.")] = 5,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.indices import indices

    with exit_codes():
        indices(cells, years, peers, peer_cells, repeats, as_json)


@_bench("scenario", "Decades under several climates at part of a map, end to end, and what all of it would take.")
def bench_scenario(
    cells: Annotated[int, typer.Option(min=16, help="Drawn from Africa's.")] = 6_000,
    years: Annotated[int, typer.Option(min=1, max=94, help="From 2006.")] = 94,
    scenarios: Annotated[int, typer.Option(min=1, max=3, help="How many.")] = 3,
    locations: Annotated[int, typer.Option(min=20, help="To train the emulator on.")] = 200,
    as_json: OutputJson = False,
) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from flows.bench.scenario import scenario

    with exit_codes():
        scenario(cells, years, scenarios, locations, as_json)


@_bench("formulations", "Every form of the emulator on the same runs: its error, its cost, and what fewer places do.")
def bench_formulations(
    locations: Locations = 1_000,
    held_out: HeldOut = 200,
    years: TrainYears = 4,
    test_years: TestYears = 4,
    seed: Seed = 0,
    as_json: OutputJson = False,
) -> None:
    from flows.bench.skill import formulations

    with exit_codes():
        formulations(locations, held_out, years, test_years, seed, as_json)


if __name__ == "__main__":
    app()
