"""Settings come from one place, with a reason for each that does not work."""

from __future__ import annotations

import logging
import os
import runpy
from pathlib import Path

import pytest
from pydantic import BaseModel

from infra import compute, doctor, telemetry, wiring
from infra.settings import Settings
from twin.errors import SettingsError

install = runpy.run_path(str(Path(__file__).parents[1] / "stand_in_jules.py"))["install"]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No TWIN_ variable of the machine may reach these tests."""
    for name in [name for name in os.environ if name.startswith("TWIN_")]:
        monkeypatch.delenv(name)


def test_everything_has_a_default_and_a_description():
    def fields(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            yield name, field
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from fields(field.annotation)

    settings = Settings()
    assert settings.home == Path.cwd() / ".twin" and settings.region == "demo" and settings.store.url == ""
    for name, field in fields(Settings):
        assert not field.is_required() and field.description and field.description.endswith("."), name


def test_the_environment_is_read(monkeypatch, tmp_path):
    for name, value in {
        "TWIN_HOME": str(tmp_path),
        "TWIN_SOURCES": "https://a.example/catalog.json, /data/catalog.json",
        "TWIN_ACCESS__HOSTS": '["a.example", "*.b.example"]',
        "TWIN_CATALOG__TOKEN": "secret-word",
        "TWIN_WATCH__POLL_SECONDS": "0.5",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings(region="uk")
    assert settings.home == tmp_path and settings.region == "uk"
    assert settings.sources == ("https://a.example/catalog.json", "/data/catalog.json")
    assert settings.access.hosts == ("a.example", "*.b.example")
    assert settings.catalog.token.get_secret_value() == "secret-word" and "secret-word" not in repr(settings)
    assert settings.watch.poll_seconds == 0.5


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("TWIN_WATCH__POLL_SECONDS", "soon", "TWIN_WATCH__POLL_SECONDS: expected a valid number, .* found soon"),
        ("TWIN_WATCH__BATCH", "0", "TWIN_WATCH__BATCH: expected greater than or equal to 1, found 0"),
        ("TWIN_STORE__ULR", "x", "TWIN_STORE__ULR: expected a setting there is, found this one"),
        ("TWIN_ACCESS__ROOTS", "[/a", "TWIN_ACCESS__ROOTS: .* found \\[/a"),
        ("TWIN_STORE", "/a", '"store"'),
        ("TWIN_LOG__LEVEL", "loud", "TWIN_LOG__LEVEL: expected 'debug', 'info', 'warning' or 'error', found loud"),
    ],
)
def test_what_does_not_work_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        Settings()


@pytest.mark.parametrize(
    "section, there_are",
    [
        ("bus", "log"),
        ("model", "jules or land or land-daily"),
        ("compute", "local or lsf or pbs or processes or slurm"),
    ],
)
def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path, section, there_are):
    settings = Settings(home=tmp_path, **{section: {"kind": "magic"}})
    message = f"TWIN_{section.upper()}__KIND: expected {there_are}, found magic"
    with pytest.raises(SettingsError, match=message):
        wiring.build(settings)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("STEP", "1D", "TWIN_MODEL__STEP: expected '30min', '1h' or '3h', found 1D"),
        ("PRECISION", "half", "TWIN_MODEL__PRECISION: expected 'double' or 'single', found half"),
        ("RETENTION", "linear", "TWIN_MODEL__RETENTION: expected 'brooks-corey' or 'van-genuchten', found linear"),
        ("RUNOFF", "topmodel", "TWIN_MODEL__RUNOFF: expected 'none' or 'pdm', found topmodel"),
        ("SHOWER", "30", "TWIN_MODEL__SHOWER: expected less than or equal to 1, found 30"),
        ("WIND_HEIGHT", "0", "TWIN_MODEL__WIND_HEIGHT: expected greater than or equal to 0.5, found 0"),
        ("CELLS_PER_PROCESS", "0", "TWIN_MODEL__CELLS_PER_PROCESS: expected greater than or equal to 1, found 0"),
        ("STEPS", "1h", "TWIN_MODEL__STEPS: expected a setting there is"),
    ],
)
def test_a_choice_the_land_model_does_not_have_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(f"TWIN_MODEL__{name}", value)
    with pytest.raises(SettingsError, match=message):
        Settings()


@pytest.mark.parametrize(
    "chosen",
    [
        {
            "step": step,
            "precision": precision,
            "retention": retention,
            "numerics": numerics,
            "runoff": runoff,
            **numbers,
        }
        for step, precision, retention, numerics, runoff in (
            ("30min", "double", "brooks-corey", "newton", "none"),
            ("1h", "single", "van-genuchten", "jules", "pdm"),
            ("3h", "double", "van-genuchten", "newton", "none"),
        )
        for numbers in (
            {"shower": 0.0, "wind_height": 0.5, "air_height": 0.5, "diffuse": 0.0},
            {"shower": 1.0, "wind_height": 200.0, "air_height": 200.0, "diffuse": 1.0},
        )
    ],
)
def test_what_the_settings_allow_the_land_model_takes(tmp_path, chosen):
    model = wiring.build(Settings(home=tmp_path, model={"kind": "land", **chosen})).model
    assert model.name == "land" and model.step == {"30min": 1800, "1h": 3600, "3h": 10800}[chosen["step"]]
    assert (model.precision, model.retention, model.runoff) == tuple(
        chosen[name] for name in ("precision", "retention", "runoff")
    )
    assert (model.shower, model.diffuse, model.heights[0]) == tuple(
        chosen[name] for name in ("shower", "diffuse", "wind_height")
    )


def test_the_default_is_the_daily_tier(tmp_path):
    settings = Settings(home=tmp_path)
    assert wiring.build(settings).model.name == "land-daily"
    identity = {"kind": "land-daily", "precision": "double"}
    assert settings.model.identity == identity, "what it does not read makes no difference"
    assert wiring.build(Settings(home=tmp_path, model={"precision": "single"})).model.precision == "single"


def test_jules_needs_its_executable_and_namelists(tmp_path):
    executable, namelists = install(tmp_path / "set-up")

    def chosen(**given: str):
        return wiring.build(Settings(home=tmp_path, model={"kind": "jules", **given})).model

    told = {"executable": executable, "namelists": namelists}
    assert (chosen(**told, version="5.2").version, chosen(**told).name) == ("5.2", "jules")
    for changed, message in (
        ({"executable": ""}, "TWIN_MODEL__EXECUTABLE: expected jules.exe, .*found nothing"),
        ({"namelists": ""}, "TWIN_MODEL__NAMELISTS: expected the folder"),
        ({"executable": "/no/jules.exe"}, "TWIN_MODEL__EXECUTABLE: .*found nothing at /no/jules.exe"),
        ({"namelists": str(tmp_path / "none")}, "TWIN_MODEL__NAMELISTS: .*expected a folder of .nml files"),
        ({"version": "3.1"}, "TWIN_MODEL__VERSION: .*expected one of 5.0, .* found 3.1"),
    ):
        with pytest.raises(SettingsError, match=message):
            chosen(**{**told, **changed})


def test_the_doctor_tells_of_jules(tmp_path, monkeypatch):
    """A note where nobody asked for it; good or bad where it is set up."""

    def row(**given: str) -> dict:
        for name in ("KIND", "EXECUTABLE", "NAMELISTS"):
            monkeypatch.delenv(f"TWIN_MODEL__{name}", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(f"TWIN_MODEL__{name.upper()}", value)
        (found,) = [row for row in doctor.examine() if row["check"] == "JULES"]
        return found

    monkeypatch.setenv("TWIN_HOME", str(tmp_path))
    executable, namelists = install(tmp_path / "set-up")
    absent = row()
    assert (absent["state"], absent["needed"]) == ("note", False) and "TWIN_MODEL__EXECUTABLE" in absent["advice"]
    assert row(kind="jules")["state"] == "missing" and row(kind="jules")["needed"]
    there = row(executable=executable, namelists=namelists)
    assert (there["state"], there["needed"]) == ("ok", False) and "can be used" in there["advice"]
    half = row(executable=executable)
    assert half["state"] == "missing" and "TWIN_MODEL__NAMELISTS" in half["advice"]
    wrong = row(kind="jules", executable=namelists, namelists=namelists)
    assert (wrong["state"], wrong["needed"]) == ("missing", True) and "found a folder" in wrong["advice"]


def test_the_map_is_a_map():
    assert list(compute.chosen(Settings()).map(lambda a, b: a + b, [1, 2], (10, 20))) == [11, 22]


@pytest.fixture
def logger():
    """The twin's logger, left as it was."""
    logger = logging.getLogger("twin")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    yield logger
    logger.handlers, logger.level, logger.propagate = before


def test_log_lines_carry_the_item_they_are_about(capsys, logger):
    telemetry.set_up(Settings(log={"level": "info"}))
    telemetry.set_up(Settings(log={"level": "warning"}))
    log = logger.getChild("test")
    with telemetry.about("smap/1@ab"):
        log.warning("found %d", 3)
    log.info("too quiet")
    log.warning("alone")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("Z warning twin.test [smap/1@ab] found 3") and second.endswith("Z warning twin.test alone")


def test_progress_yields_the_same_items_and_says_so_without_a_terminal(caplog, logger):
    with caplog.at_level("INFO", logger="twin.progress"):
        assert list(telemetry.progress(["a", "b"], "reading")) == ["a", "b"]
        assert list(telemetry.progress(iter("xyz"), "endless")) == ["x", "y", "z"]
    assert caplog.messages == ["reading: 2 of 2, done", "endless: 3, done"]
