"""The `twin` command: honest exit codes, one JSON document where asked, one clear line where something is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import AWAY, REFUSED, app
from infra.compute import Local
from infra.tasks import Tasks


@pytest.fixture
def twin(tmp_path):
    runner = CliRunner(env={"TWIN_HOME": str(tmp_path / "home")})
    return lambda *words: runner.invoke(app, list(words))


def test_nothing_yet_is_no_error(twin):
    assert json.loads(twin("status", "--json").output) == []
    assert "nothing here yet" in twin("status").output
    assert twin("subscribe", "--once").output == ""


def test_status_tells_what_is_being_assimilated(twin, tmp_path):
    """Asked by a task of a run that is under way."""
    told = []

    @dataclass(frozen=True)
    class Task:
        key: str = "one"

        @property
        def label(self):
            return {"iteration": 1, "member": 0, "tile": 0}

    class Asking:
        key = "asking"

        def __call__(self, task):
            told.append(twin("status").output)
            return {"answer": np.zeros(1)}

    list(Tasks(Local(), tmp_path / "home" / "tasks").map(Asking(), [Task()]))
    assert "assimilating: 0 of 1 tasks" in told[0]
    assert "assimilating" not in twin("status").output, "it has ended"


def test_an_unknown_region_names_the_known_ones(twin):
    done = twin("run", "--region", "atlantis", "--source", "catalog.json", "--once")
    assert done.exit_code == REFUSED
    assert "expected one of africa, conus, demo, uk, or a .toml file, found atlantis" in " ".join(done.output.split())


def test_a_source_that_is_not_there_is_told_apart_from_bad_input(twin):
    done = twin("run", "--region", "conus", "--source", "http://127.0.0.1:9/catalog.json", "--once")
    assert done.exit_code == AWAY and "source: expected an answer" in done.output


def test_a_real_region_needs_a_source(twin):
    done = twin("up", "--region", "conus")
    assert done.exit_code == REFUSED and "at least one --source" in done.output


@pytest.mark.parametrize(
    ("target", "said"),
    [("drought.xlsx", "a name ending in .nc or .csv"), ("drought.nc", "one of none yet")],
)
def test_export_says_what_it_can_do(twin, tmp_path, target, said):
    done = twin("export", str(tmp_path / target), "--region", "conus")
    assert done.exit_code == REFUSED and said in " ".join(done.output.split())
    assert not Path(tmp_path / target).exists()


def test_retrying_an_unknown_key_is_refused(twin):
    done = twin("quarantine", "retry", "no/such@key", "--region", "conus")
    assert done.exit_code == REFUSED


def test_a_setting_that_does_not_work_is_named(tmp_path):
    done = CliRunner(env={"TWIN_HOME": str(tmp_path), "TWIN_BUS__KIND": "pigeon"}).invoke(app, ["status"])
    assert done.exit_code == REFUSED and "TWIN_BUS__KIND" in done.output and "pigeon" in done.output


def test_the_doctor_examines_this_machine(twin):
    rows = json.loads(twin("doctor", "--json").output)
    assert {"check", "state", "needed", "advice"} == rows[0].keys()
    assert all(row["state"] == "ok" for row in rows if row["needed"] and row["check"] != "Python")
