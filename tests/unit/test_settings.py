"""Settings come from one place, with a reason for each that does not work."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from infra import compute, telemetry, wiring
from infra.settings import Settings
from twin.errors import SettingsError


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


@pytest.mark.parametrize("section, there_are", [("bus", "log"), ("model", "land"), ("compute", "local")])
def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path, section, there_are):
    settings = Settings(home=tmp_path, **{section: {"kind": "magic"}})
    message = f"TWIN_{section.upper()}__KIND: expected {there_are}, found magic"
    with pytest.raises(SettingsError, match=message):
        wiring.build(settings)


def test_the_map_is_a_map():
    assert list(compute.mapper(Settings())(lambda a, b: a + b, [1, 2], (10, 20))) == [11, 22]


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
