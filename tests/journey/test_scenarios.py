"""A scenario from what is asked to what is published: one run however often, exact wherever it is cut, checked."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from flows.__main__ import REFUSED, app
from infra import projections, verbs
from infra.climate import write_simulated
from infra.projections import FIGURES, ROOT, Words, finished, home, project, publish, request
from infra.settings import Region, Settings, region
from infra.store import Store
from infra.weather import Recorded
from infra.wiring import Services, build, embedded_catalog
from stac.validate import validate
from twin import state
from twin.errors import SettingsError, TimeError
from twin.events import SCENARIO_COMPLETED
from twin.indices.season import wet_season
from twin.indices.spells import availability, dry_days
from twin.inputs import THETA
from twin.land import Land
from twin.scenarios import Delta

emulators = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "emulator_case.py")))
YEARS = (2009, 2012)  # over the end of a decade, so that there are two commits
DRIVER = """
import sys
from infra import projections
from infra.projections import Words
from infra.settings import Settings, region
from infra.wiring import build
if __name__ == "__main__":
    services, place = build(Settings()), region("demo")
    asked = projections.request(services, place, Words(rain=0.8, temperature=3.0, years=(2009, 2012)))
    projections.project(services, asked.unchanged)
    projections.BLOCK = 1  # some days at a time, so that there is something to be killed between
    projections.project(services, asked, lambda days, whole: print(days, flush=True))
"""


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """The simulated region at ten degrees, 25 cells, with two years of reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWIN_DEMO__RESOLUTION", "10")
        patch.setenv("TWIN_DEMO__REFERENCE_YEARS", "2")
        yield


@pytest.fixture(scope="module")
def place() -> Region:
    return region("demo")


@pytest.fixture(scope="module")
def settings(tmp_path_factory, place) -> Iterator[Settings]:
    with embedded_catalog(Settings(home=tmp_path_factory.mktemp("twin"))) as given:
        verbs.prepare(build(given), place)
        yield given


@pytest.fixture(scope="module")
def services(settings) -> Services:
    return build(settings)


@pytest.fixture(scope="module")
def asked(services, place) -> projections.Request:
    return request(services, place, Words(rain=0.8, temperature=3.0, years=YEARS))


@pytest.fixture(scope="module")
def done(services, asked) -> dict:
    return project(services, asked)


def arrays(done: dict, group: str) -> xr.Dataset:
    return Store.open(done["store"]).at(done["snapshot"]).dataset("demo", group).load()


# ---------------------------------------------------------------------------------------------------------------- runs
def test_a_run_is_its_land_model_on_the_changed_weather(asked, done):
    """Day by day the bits of one unbroken run of the model, from the state of equilibrium."""
    weather = asked.delta.apply(asked.weather.forcing(pd.Timestamp("2009-01-01"), pd.Timestamp("2012-12-31")))
    first = weather.sel(time="2009")
    start = state.initial(asked.parameters, temperature=first["air_temperature"].mean("time", dtype="float64"))
    start = state.spin_up(asked.model, start, first, asked.parameters, projections.SPIN_UP)
    _, run = asked.model.run(start, weather, asked.parameters)
    found = arrays(done, "soil")
    assert set(found.data_vars) == {ROOT} and found.sizes["time"] == 1461
    expected = state.root_zone(run[THETA].astype("float32")).values
    np.testing.assert_array_equal(found[ROOT].values, expected)


def test_figures_are_those_of_the_daily_values(asked, done):
    """Each year's means and counts from the stored series; decades weighted by the cells' areas."""
    series, yearly = arrays(done, "soil")[ROOT], arrays(done, "yearly")
    when = arrays(done, "calendar")
    free = availability(series, asked.parameters)
    dry = dry_days(free, start_month=when["start_month"].values).sel(year=yearly["year"])
    np.testing.assert_array_equal(yearly["dry_days"].values, dry.values)
    season = wet_season(free, when).sel(year=yearly["year"])
    np.testing.assert_array_equal(yearly["onset"].values, season["onset"].values)
    np.testing.assert_allclose(yearly[ROOT].sel(year=2012), series.sel(time="2012").mean("time"), rtol=1e-5)
    area = np.cos(np.deg2rad(asked.cells["lat"].values))  # all cells are ten degrees
    mean = np.average(yearly[ROOT].sel(year=[2011, 2012]).mean("year").values, weights=area)
    assert [row["years"] for row in done["decades"]] == ["2009–2010", "2011–2012"]
    assert done["decades"][1][ROOT] == pytest.approx(mean, abs=2e-5)


def test_the_change_is_against_the_same_weather_unchanged(services, asked, done):
    before = project(services, asked.unchanged)
    assert done["reference"] == before["key"] and before["reference"] is None
    for row, other in zip(done["decades"], before["decades"], strict=True):
        for name in FIGURES:
            assert row["change"][name] == pytest.approx(row[name] - other[name], abs=2e-5)
        assert row["change"][ROOT] < -0.002 and row["change"]["dry_days"] > 0.0
    assert all(value == 0.0 for value in before["decades"][0]["change"].values())
    calendars = [arrays(run, "calendar") for run in (done, before)]
    assert calendars[0].equals(calendars[1])


def test_the_spot_check_is_the_land_model_beside_it(asked, done):
    """Against one unbroken run of the sub-daily model at the cells the summary names."""
    spots, check = asked.spots, done["spot_check"]
    drivers = asked.weather.forcing(pd.Timestamp("2009-01-01"), pd.Timestamp("2012-12-31")).isel(cell=spots)
    weather, parameters = asked.delta.apply(drivers), asked.land.isel(cell=spots)
    land, first = Land("3h", precision="single", fluxes=()), weather.sel(time="2009")
    start = state.initial(parameters, temperature=first["air_temperature"].mean("time", dtype="float64"))
    _, truth = land.run(state.spin_up(land, start, first, parameters, projections.SPIN_UP), weather, parameters)
    view = Store.open(done["store"]).at(done["snapshot"])
    ours = view.dataset("demo-spots", "model")[THETA].load()
    error = ours.values - truth[THETA].values
    np.testing.assert_allclose(check["rmse"], np.sqrt((error**2).mean(axis=(0, 2))), atol=2e-5)
    np.testing.assert_allclose(check["bias"], error.mean(axis=(0, 2)), atol=2e-5)
    np.testing.assert_array_equal(state.root_zone(ours).values, arrays(done, "soil")[ROOT].values[:, spots])
    assert [cell[0] for cell in check["cells"]] == asked.cells["lat"].values[spots].tolist()
    assert 0.0 < check["root_zone_rmse"] < 0.05 and check["errors"]["dry_days"] >= 0.0


def test_the_four_layers_are_kept_where_they_are_asked_for(services, place, done):
    both = project(services, request(services, place, Words(years=(2010, 2010), layers=True)))
    found = arrays(both, "soil")
    assert found[THETA].sizes == {"time": 365, "layer": 4, "cell": done["cells"]}
    np.testing.assert_array_equal(state.root_zone(found[THETA]).values, found[ROOT].values)


def test_a_run_that_was_killed_goes_on_with_the_same_bits(settings, services, asked, done, tmp_path):
    """SIGKILL after the first decade's commit, once more inside the second, then to its end in this process."""
    other = settings.model_copy(update={"home": tmp_path / "twin"})
    shutil.copytree(settings.home / "store", other.home / "store")
    store = home(other) / asked.key
    environment = {**os.environ, "TWIN_HOME": str(other.home)}
    for least in (800, 900):
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER], env=environment, stdout=subprocess.PIPE, text=True
        ) as run:
            for line in run.stdout or ():
                if int(line) >= least:
                    break
            else:
                pytest.fail("the run ended before it could be killed")
            run.send_signal(signal.SIGKILL)
        view = Store.open(store).at()
        assert projections.summary(view, "demo") is None
        assert [entry["part"]["years"] for entry in view.journal("demo") if "part" in entry] == [[2009, 2010]]
        assert view.last_day("demo", "soil") == pd.Timestamp("2010-12-31")
    again = project(build(other), replace(asked))
    digests = [Store.open(run["store"]).at().digest("demo") for run in (done, again)]
    assert digests[0] == digests[1]
    assert {**again, "store": "", "snapshot": ""} == {**done, "store": "", "snapshot": ""}


def test_the_same_request_is_one_run(services, place, asked, done):
    """However it is put; nothing is computed, published or announced twice."""
    words = Words.of({"temperature": 3, "rain": 0.8, "years": [2009, 2012], "months": list(range(12, 0, -1))})
    again = request(services, place, words)
    assert again.key == asked.key
    started = time.perf_counter()
    assert project(services, again, lambda *_: pytest.fail("it ran again")) == done
    assert time.perf_counter() - started < 5.0
    assert publish(services, asked, done) and not publish(services, again, done)
    assert projections.announce(services, asked, done) and not projections.announce(services, again, done)
    assert [run["key"] for run in finished(services.settings, "demo")].count(asked.key) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"rain": 0.81},
        {"temperature": 2.9},
        {"months": (6, 7)},
        {"co2": 550.0},
        {"years": (2009, 2011)},
        {"model": "land"},
        {"layers": True},
    ],
    ids=str,
)
def test_another_request_is_another_run(services, place, asked, change):
    words = Words(**{"rain": 0.8, "temperature": 3.0, "years": YEARS, **change})
    assert request(services, place, words).key != asked.key


# ---------------------------------------------------------------------------------------------------------- published
def test_item_and_event_say_what_was_run(services, asked, done):
    publish(services, asked, done)
    projections.announce(services, asked, done)
    item = next(services.catalog.search(collections=["demo-scenarios"], ids=[f"demo-scenario-{done['key'][:12]}"]))
    document = item.to_dict()
    assert validate(document) == []
    told = document["properties"]
    assert told["title"] == "Africa, simulated: simulated weather, rain −20 %, temperature +3 K, 2009 to 2012"
    assert set(told["cube:variables"]) == {*FIGURES, "season_status"}
    assert told["twin:delta"] == asked.delta.identity and told["twin:simulated"] is True
    assert told["twin:spot_check"] == done["spot_check"] and told["twin:decades"] == done["decades"]
    assert document["assets"]["data"]["version"] == done["snapshot"]
    compared = [link["href"] for link in document["links"] if link["rel"] == "derived_from"]
    assert len(compared) == 1 and done["reference"][:12] in compared[0]
    events = [event for event in services.bus.poll("test", timeout=0.0) if event.type == SCENARIO_COMPLETED]
    assert [event.data["key"] for event in events].count(done["key"]) == 1
    assert events[-1].data["item"].endswith(item.id)


def test_a_climate_models_run_is_named_by_its_phase_and_derived_from_its_files(services, place, tmp_path):
    """A model of 360-day years; the year 2010 alone, through the region's nearest pixels."""
    lat, lon = np.arange(39.0, -37.0, -2.0), np.arange(-19.0, 54.0, 2.0)
    paths = write_simulated(tmp_path, "rcp60", range(2009, 2011), lat, lon, calendar="360_day")
    words = Words(source=str(tmp_path), scenario="rcp60", years=(2010, 2010))
    asked = request(services, place, words)
    found = projections.carry_out(services, asked)
    assert found["family"] == "ISIMIP2b (CMIP5)" and "CMIP6" not in json.dumps(found)
    assert found["notes"] == {"calendar": "360_day", "inserted_days": 10, "moved_cells": 0}
    item = services.catalog.get("demo-scenarios", f"demo-scenario-{found['key'][:12]}").to_dict()
    assert item["properties"]["title"].startswith("Africa, simulated: HadGEM2-ES RCP6.0, ISIMIP2b (CMIP5), 2010")
    sources = {link["title"] for link in item["links"] if link["rel"] == "derived_from"}
    assert sources == {path.name for path in paths}
    with pytest.raises(TimeError, match="expected 2009 to 2010, found 2006 to 2010"):
        request(services, place, replace(words, years=(2006, 2010)))


def test_an_emulator_runs_with_its_memories_and_tells_what_it_never_saw(services, asked):
    """Over two commits the bits of one unbroken run; the share of rows outside its envelope, of all cells here."""
    emulator = emulators.emulator()
    short = replace(asked, model=emulator, parameters=asked.land, years=range(2010, 2012), delta=Delta())
    found = project(services, short)
    weather = asked.weather.forcing(pd.Timestamp("2010-01-01"), pd.Timestamp("2011-12-31"))
    first = weather.sel(time="2010")
    start = state.initial(asked.land, temperature=first["air_temperature"].mean("time", dtype="float64"))
    start = state.spin_up(emulator, start, first, asked.land, projections.SPIN_UP)
    _, run = emulator.run(start, weather, asked.land)
    expected = state.root_zone(run[THETA].astype("float32")).values
    np.testing.assert_array_equal(arrays(found, "soil")[ROOT].values, expected)
    outside = emulator.envelope.outside(emulator.features(start, weather, asked.land)).reshape(730, -1)
    shares = [row["outside_envelope"] for row in found["decades"]]
    np.testing.assert_allclose(shares, [outside[:365].mean(), outside[365:].mean()], atol=2e-6)
    assert found["model"] == f"emulator {emulator.version}"


def test_a_regions_own_record_is_weather_as_far_as_it_is_unbroken(place, asked, tmp_path):
    """Two months consumed and one that waits behind a gap; the run's identity is that of the items."""
    own = place.model_copy(update={"simulated": False, "start": pd.Timestamp("2023-11-01").date()})
    weather = asked.weather.forcing(pd.Timestamp("2023-11-01"), pd.Timestamp("2024-02-29"))
    spans = {"november": ("2023-11-01", "2023-11-30"), "december": ("2023-12-01", "2023-12-31")}
    spans["february"] = ("2024-02-01", "2024-02-29")
    draft = Store.open(tmp_path / "store").draft()
    draft.create(own.name, asked.cells, own.start)
    draft.write(own.name, "forcing", weather)
    about = {"kind": "forcing", "product": "simulated-forcing"}
    consumed = [
        {"key": f"k-{n}", "id": n, "href": f"file:///{n}", "spans": [span], **about} for n, span in spans.items()
    ]
    draft.append_journal(own.name, {"consumed": consumed})
    found = Recorded(draft, own)
    assert [str(day.date()) for day in found.days[[0, -1]]] == ["2023-11-01", "2023-12-31"]
    part = found.forcing(pd.Timestamp("2023-12-30"), pd.Timestamp("2023-12-31"))
    assert part["air_temperature"].equals(weather["air_temperature"].isel(time=slice(59, 61)))
    assert found.manifest == {"recorded": "demo", "sources": ["k-december", "k-february", "k-november"]}
    assert found.sources[0] == {"key": "k-december", "id": "december", "href": "file:///december"}
    with pytest.raises(TimeError, match="expected within 2023-11-01 to 2023-12-31, found 2023-12-31 to 2024-01-01"):
        found.forcing(pd.Timestamp("2023-12-31"), pd.Timestamp("2024-01-01"))


# ------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (Words(years=(1890, 1990)), TimeError, "expected 1901 to 2100, found 1890 to 1990"),
        (Words(scenario="rcp60"), SettingsError, "expected the folder of its files as --source, found none"),
        (Words(source="."), SettingsError, "scenario: expected its name, such as rcp60 or ssp126, found none"),
        (Words(source="/nowhere", scenario="rcp60"), SettingsError, "expected a folder, found none there"),
        (
            Words(model="emulator"),
            SettingsError,
            "emulator of demo: expected one, which `twin train` makes, found none",
        ),
        (Words(model="crystal"), SettingsError, "expected emulator, land-daily or land, found crystal"),
        (Words(rain=-1.0), SettingsError, "change of rain: expected 0 to 5, found -1.0"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_cannot_be_run_is_refused_before_anything_is_done(services, place, words, error, message):
    with pytest.raises(error, match=message):
        request(services, place, words)


def test_unknown_words_and_unprepared_regions_are_refused(services, place, tmp_path):
    with pytest.raises(SettingsError, match=r"words of a scenario: expected source, .*, found rains"):
        Words.of({"rains": 0.8})
    fresh = replace(services, store=Store.open(tmp_path / "store"))
    with pytest.raises(SettingsError, match="scenario of demo: expected a region prepared by"):
        request(fresh, place, Words())


# ------------------------------------------------------------------------------------------------------------- command
def test_the_command_prints_a_table_and_one_document(settings, done):
    runner = CliRunner(env={"TWIN_HOME": str(settings.home), "COLUMNS": "200"})
    words = ["scenario", "--region", "demo", "--rain", "0.8", "--temperature", "+3", "--years", "2009-2012"]
    printed = runner.invoke(app, words)
    assert printed.exit_code == 0, printed.output
    text = " ".join(printed.output.split())
    assert "years root zone dry days onset season" in text and "2011–2012" in text
    assert "rain −20 %, temperature +3 K, 2009 to 2012, 25 cells, through land-daily 1.0.0." in text
    assert f"root zone {done['spot_check']['root_zone_rmse']:.4f} m3 m-3" in text
    told = json.loads(runner.invoke(app, [*words, "--json"]).output.splitlines()[-1])
    assert told["key"] == done["key"] and told["decades"] == done["decades"]
    refused = runner.invoke(app, [*words, "--months", "6-13"])
    assert refused.exit_code == REFUSED and "--months: expected such as 6-9, 11-2 or 3,4, found 6-13" in refused.output


@pytest.mark.prefect
def test_the_flow_runs_the_same(settings, asked, done, monkeypatch):
    from prefect.testing.utilities import prefect_test_harness

    from flows.scenarios import scenario

    monkeypatch.setenv("TWIN_HOME", str(settings.home))
    monkeypatch.setenv("TWIN_CATALOG__URL", settings.catalog.url)
    monkeypatch.setenv("TWIN_CATALOG__TOKEN", settings.catalog.token.get_secret_value())
    with prefect_test_harness(server_startup_timeout=60):
        told = scenario("demo", {"rain": 0.8, "temperature": 3.0, "years": list(YEARS)}, asked.label)
    assert (told["key"], told["label"]) == (done["key"], done["label"])
