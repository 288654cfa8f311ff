"""What a release says of drought: indices by the day, areas, warnings, an outlook; each as the whole record has it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri
from typer.testing import CliRunner

from flows.__main__ import REFUSED, app
from flows.headless import advance
from infra import areas, indices, outlooks, verbs, warning
from infra.cap import NAMESPACE
from infra.settings import Settings, region
from infra.verbs import Tally
from infra.wiring import build, embedded_catalog
from stac.validate import validate
from stac.watch import Watcher
from twin import state
from twin.errors import PlaceError, SettingsError, TimeError
from twin.indices import classes, combined, standardised
from twin.indices.season import wet_season
from twin.indices.spells import availability, dry_days
from twin.inputs import THETA

DAYS = 12
RULES = """
[[rule]]
id = "any-dryness"
version = 1
place = { each = "country" }
indicator = "drought_class"
category = "D0"
probability = 0.5
enter_days = 3
leave_days = 3
steps = [{ level = "watch", enter = 20.0, exit = 10.0 }, { level = "warning", enter = 50.0, exit = 40.0 }]
text = "{value:.0f} % of {place} are dry."

[[rule]]
id = "rain"
version = 1
place = { bbox = [-10.0, 5.0, 20.0, 20.0] }
indicator = "spi-90"
enter_days = 1
leave_days = 1
steps = [{ level = "watch", enter = 5.0, exit = 6.0 }]
text = "SPI {value:.1f}."
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory, small_region, prepared_home):
    """A twin that has taken the history and then day after day, with rules of its own."""
    from infra.provider import Provider

    folder = tmp_path_factory.mktemp("drought")
    rules = folder / "rules.toml"
    rules.write_text(RULES)
    source = Provider(folder / "provider", region("demo"))
    source.backfill()
    home = prepared_home(folder / "home")
    with embedded_catalog(Settings(home=home, warnings={"rules": str(rules)})) as settings:
        twin = build(settings)
        for day in range(DAYS):
            source.publish_next()
            if day in (0, 1, 5, DAYS - 1):
                found = list(Watcher(str(source.catalog)).poll(datetime.now(UTC)))
                advance(twin, region("demo"), found, 1000, Tally())
        yield twin


@pytest.fixture(scope="module")
def view(services):
    return services.store.at()


@pytest.fixture(scope="module")
def told(view) -> xr.Dataset:
    return view.dataset("demo", "indices").load()


def test_rain_to_date_is_the_rain_there_was(view, told):
    rain = view.dataset("demo", "forcing")["precipitation_flux"].load().values.astype(np.float64) * 86400.0
    found = told["precipitation_to_date"].values * 1e-3
    assert np.abs(found - np.cumsum(rain, axis=0)).max() < 0.5e-3 * len(rain) and (np.diff(found, axis=0) >= 0).all()


@pytest.mark.parametrize("name, days", indices.WINDOWS.items())
def test_standardised_rain_is_that_of_its_window(view, told, name, days):
    """Of the last days, whose windows of 30 and 90 days lie in the record; of 180 days they begin before it."""
    rain = view.dataset("demo", "forcing")["precipitation_flux"].load()
    fit = view.dataset("demo", indices.fitted(name)).load()
    assert fit.attrs["reference_years"] == 30 and fit.attrs["scale"] == f"{days}D"
    found = told[name].isel(time=-1).values
    dry = fit["zero_probability"].max("pentad").values > standardised.SUPPRESS
    assert np.isfinite(found[~dry]).all(), "the days before the region's first are known"
    if days <= rain.sizes["time"]:
        amounts = (rain.isel(time=slice(-days, None)).sum("time", dtype=np.float64) * 86400.0).values[None]
        last = xr.DataArray(amounts, {"time": told["time"][-1:]}, ("time", "cell"))
        expected = standardised.standardise(last, fit).values[0]
        np.testing.assert_allclose(found, expected, atol=2e-3)  # rain is counted in thousandths of a millimetre
    assert abs(np.nanmean(told[name].values)) < 1.0 and 0.4 < np.nanstd(told[name].values) < 1.8


def test_counts_are_those_of_the_whole_record(services, view, told):
    """Season and dry days of the year so far, against the record that begins a year before the region does."""
    cells = view.dataset("demo", "grid").load()
    parameters = view.dataset("demo", "parameters").load()
    from infra.regional import simulated_years

    *_, before = simulated_years(services.model, region("demo"), cells, parameters)
    soil = [state.root_zone(each[THETA]) for each in (before.diagnostics, view.dataset("demo", "state").load())]
    water = availability(xr.concat(soil, "time").astype("float32"), parameters)
    when = view.dataset("demo", indices.CALENDAR).load()
    seasons, dry = wet_season(water, when, to_date=True), dry_days(water, start_month=when["start_month"])
    today, day = told.isel(time=-1), pd.Timestamp(told["time"].values[-1])
    for cell in range(cells.sizes["cell"]):
        year = day.year - (day.month < int(when["start_month"][cell]))
        one = seasons.sel(year=year).isel(cell=cell)
        assert int(today["wet_season_status"][cell]) == int(one["season_status"]), cell
        onset = int(today["wet_season_onset"][cell])
        assert onset == int(np.nan_to_num(one["onset"], nan=np.iinfo(np.int16).min)), cell
        if np.isfinite(dry.sel(year=year)[cell]):
            assert int(today["dry_days"][cell]) == int(dry.sel(year=year)[cell])


def test_the_combined_indicator_is_that_of_the_dekads(view, told):
    """One run of the machine over all dekads since January, against what was carried from day to day."""
    days = told["time"].values
    over = np.flatnonzero(combined.next_dekads(days) == days + np.timedelta64(1, "D"))
    percentile = view.dataset("demo", "drought")["soil_moisture_percentile"].load()
    soil = combined.dekadal(percentile.copy(data=ndtri(percentile.values / 100.0))).isel(time=slice(over.size))
    rain = [told[name].isel(time=over).assign_coords(time=soil["time"]) for name in ("spi_90d", "spi_30d")]
    machine = combined.cdi(*rain, soil, start=None)
    last = told["cdi"].isel(time=-1).values
    known = np.isfinite(rain[0].values).all(axis=0)
    np.testing.assert_array_equal(last[known], machine["cdi"].values[-1][known])


def test_probabilities_agree_with_the_classes(view):
    drought = view.dataset("demo", "drought").load()
    chance, code = drought["drought_probability"].values, drought["drought_class"].values
    assert (np.diff(chance, axis=1) <= 1e-6).all(), "a worse class is never more probable than it or a milder one"
    dry = code >= classes.NAMES["D2"]
    assert chance[:, 1][dry].mean() > 0.85 and chance[:, 1][code <= 0].mean() < 0.15


def test_areas_add_up_to_the_region(view):
    rows = areas.statistics(view, region("demo"))
    assert len(rows) > 30 and {"Ghana", "Ethiopia"} <= {row["area"] for row in rows}
    known = [row for row in rows if row["drought"] is not None]
    for row in known:
        assert sum(row[code] for code in classes.NAMES) == pytest.approx(100.0, abs=0.6)
        assert 0.0 <= row["dsci"] <= 500.0 and 0.0 <= row["probability"] <= 100.0
    with pytest.raises(SettingsError, match="day: expected 2024-01-01 to"):
        areas.statistics(view, region("demo"), "1999-01-01")


def test_areas_of_ones_own_and_files_that_are_none(view, tmp_path):
    """Two halves of a box have the means of the box between them."""

    def box(name: str, west: float, east: float) -> dict:
        ring = [[west, 0.0], [east, 0.0], [east, 16.0], [west, 16.0], [west, 0.0]]
        return {"type": "Feature", "properties": {"name": name}, "geometry": {"type": "Polygon", "coordinates": [ring]}}

    file = tmp_path / "areas.json"
    boxes = [box("west", -8.0, 8.0), box("east", 8.0, 24.0), box("all", -8.0, 24.0)]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": boxes}))
    rows = {row["area"]: row for row in areas.statistics(view, region("demo"), features=file)}
    assert set(rows) == {"west", "east", "all"}
    assert min(rows[k]["dsci"] for k in ("west", "east")) <= rows["all"]["dsci"] <= max(rows[k]["dsci"] for k in rows)
    file.write_text("no json")
    with pytest.raises(SettingsError, match="a GeoJSON file"):
        areas.statistics(view, region("demo"), features=file)


def test_a_place_is_found_or_refused(view):
    place, cells = region("demo"), view.dataset("demo", "grid").load()
    at, weight = areas.weights(place, cells, {"cell": [float(cells["lat"][7]), float(cells["lon"][7])]})
    assert at.tolist() == [7] and weight.tolist() == [1.0]
    whole = areas.weights(place, cells, {"region": True})
    box = areas.weights(place, cells, {"bbox": list(place.bbox)})
    np.testing.assert_array_equal(whole[0], box[0])
    for wrong in ({"name": "Atlantis"}, {"cell": [60.0, 100.0]}, {"bbox": [100.0, 50.0, 110.0, 60.0]}):
        with pytest.raises(PlaceError):
            areas.weights(place, cells, wrong)
    assert areas.outline(place, cells, {"name": "Ghana"}).codes == {"ISO 3166-1 numeric": "288"}


def test_warnings_are_said_once_published_and_replayed(services, view):
    log = warning.firing_log(view, "demo")
    events = [event for event in services.bus.poll("warned", limit=5000) if event.type.startswith("twin.warning.")]
    assert log and [event.data["identifier"] for event in events] == [each["identifier"] for each in log]
    assert {each["rule"] for each in log} >= {"rain"} and len(log) < 3 * 52
    for event in events:
        document = ElementTree.parse(urlsplit(event.data["cap"]).path).getroot()
        assert document.findtext(f"{{{NAMESPACE}}}identifier") == event.data["identifier"]
        assert document.findtext(f"{{{NAMESPACE}}}status") == "Exercise"
        item = event.data["item"].rpartition("/")[2]
        assert services.catalog.get("demo-drought", item) is not None
    standing, again = warning.replay(services.store, region("demo"), services.settings)
    assert again == log, "the same rules over the same releases say the same"
    assert standing == verbs.warned(view, region("demo"))["standing"]


def test_warnings_are_judged(services, view):
    found = warning.verified(view, region("demo"), services.settings, warning.firing_log(view, "demo"))
    assert found["rain"].hits == 1 and found["rain"].misses == found["rain"].false_alarms == 0
    rows = warning.table(found)
    assert {"rule", "hits", "misses", "false_alarms", "hit_rate", "lead_days"} <= set(rows[0])


@pytest.mark.parametrize(
    "text, words",
    [
        ("[[rule]]\nid = 'x'", "version"),
        (RULES.replace('"spi-90"', '"spi-45"'), "rule rain: indicator: expected one of"),
        (RULES.replace('indicator = "spi-90"', 'indicator = "spi-90"\nprobability = 0.5'), "none but of drought_class"),
        ("no toml", "a TOML file"),
    ],
)
def test_rules_that_cannot_be_used_say_why(tmp_path, text, words):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        warning.check(Settings(warnings={"rules": str(file)}))


def test_a_release_goes_out_though_its_rules_cannot_be_used(services, small_region, tmp_path):
    """What stood stands, and the entry keeps the reason."""
    broken = services.settings.model_copy(
        update={"warnings": services.settings.warnings.model_copy(update={"rules": str(tmp_path / "none.toml")})}
    )
    other = type(services)(**{**vars(services), "settings": broken})
    before = verbs.warned(services.store.at(), region("demo"))["standing"]
    draft = services.store.draft()
    last = services.store.at().last_day("demo", "drought")
    summary = {"first_day": str(last.date()), "valid_day": str(last.date()), "tier": "open_loop"}
    record, facts = verbs.warn(draft, region("demo"), other, summary)
    assert record["standing"] == before and "a TOML file" in record["error"] and facts == []


def test_an_outlook_is_issued_published_and_announced(services):
    place = region("demo")
    asked = outlooks.Request(date(2024, 3, 1), date(2024, 6, 30), terciles=(0.6, 0.3, 0.1))
    plain = outlooks.carry_out(services, place, outlooks.Request(asked.first, asked.last))
    dry = outlooks.carry_out(services, place, asked)
    mean = {
        kind: np.nanmean([row["below"] for row in told["areas"]]) for kind, told in (("plain", plain), ("dry", dry))
    }
    assert mean["dry"] > mean["plain"] + 0.05, "a forecast of a dry season makes a dry season more probable"
    view = services.store.at()
    found = view.dataset("demo", "outlook").load()
    total = found["tercile_probability"].sum("tercile")
    np.testing.assert_allclose(
        total.where(found["mean"].notnull()), np.where(found["mean"].notnull(), 1.0, np.nan), atol=1e-5
    )
    assert 10 < dry["effective_years"] < 30 == dry["reference_years"]
    items = list(services.catalog.search(collections=["demo-outlook"]))
    assert len(items) == 2 and all(validate(item.to_dict()) == [] for item in items)
    issued = [event for event in services.bus.poll("outlook", limit=5000) if event.type == "twin.outlook.issued.v1"]
    assert len(issued) == 2 and json.dumps(issued[-1].data["areas"])


def test_an_outlook_of_what_is_over_is_refused(services):
    with pytest.raises(TimeError, match="season of an outlook: expected days after"):
        outlooks.issue(services, region("demo"), outlooks.Request(date(2024, 1, 1), date(2024, 2, 1)))
    with pytest.raises(SettingsError, match="metric of an outlook"):
        outlooks.Request(date(2024, 3, 1), date(2024, 6, 30), metric="snow")


def test_the_command_tells_it(services, monkeypatch):
    monkeypatch.setenv("TWIN_HOME", str(services.settings.home))
    monkeypatch.setenv("TWIN_WARNINGS__RULES", services.settings.warnings.rules)
    run = CliRunner()
    rows = json.loads(run.invoke(app, ["areas", "--json"]).stdout)
    assert {"area", "drought", "dsci", "probability"} <= set(rows[0])
    standing = json.loads(run.invoke(app, ["warnings", "--json"]).stdout)
    log = json.loads(run.invoke(app, ["warnings", "--log", "--json"]).stdout)
    again = json.loads(run.invoke(app, ["warnings", "--replay", services.settings.warnings.rules, "--json"]).stdout)
    assert standing and log == again
    judged = json.loads(run.invoke(app, ["warnings", "--verify", "--json"]).stdout)
    assert {row["rule"] for row in judged} >= {"rain"}
    done = run.invoke(app, ["outlook", "--from", "2024-01-01", "--to", "2024-02-01"])
    assert done.exit_code == REFUSED and "season of an outlook" in done.output


def test_too_few_years_give_no_standardised_rain():
    days = pd.date_range("2010-01-01", "2012-12-31")
    rain = xr.DataArray(np.zeros((days.size, 2), np.float32), {"time": days}, ("time", "cell"))
    windows = indices.Windows((2010, 2012))
    for _, year in rain.groupby("time.year"):
        windows.add(year)
    groups = dict(windows.groups())
    assert set(groups) == {indices.BEFORE} and (groups[indices.BEFORE][indices.RAIN] == 0).all()


def test_documents_are_where_the_events_say(services):
    folder = Path(services.settings.home) / "warnings" / "demo"
    assert {path.suffix for path in folder.iterdir()} == {".xml"}
