"""`twin bench emulator`, `skill` and `scenario` on a few cells: that their figures are what they are called."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.bench.runtimes import REFERENCE
from twin.emulator.kernel import PATHS
from twin.emulator.outputs import SOIL_MOISTURE


def figures(*words: str) -> dict:
    done = CliRunner().invoke(app, ["bench", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def test_costs_stand_beside_each_other():
    told = figures("emulator", "--cells", "50", "--whole", "50", "--locations", "20", "--repeats", "1")
    assert told["kernel"] in PATHS
    whole, physics, land = (value for name, value in told.items() if name.endswith(", CPU ms"))
    assert 0.0 < physics < whole < land
    ours = [row for row in told["runtimes"] if str(row["what"]).startswith("ours")]
    assert ours and all(row["difference"] == 0.0 for row in ours)
    reference = [row for row in told["runtimes"] if row["what"] == REFERENCE]
    assert reference and all(row["ratio"] == 1.0 for row in reference)


def test_skill_is_of_every_layer_and_both_climates():
    told = figures("skill", "--locations", "20", "--held-out", "12", "--years", "1", "--test-years", "1")
    for name in ("emulator", "safe"):
        table = told[name]["table"]
        assert {row["output"] for row in table} == set(SOIL_MOISTURE)
        assert len({row["climate"] for row in table}) == 2 and all(row["cells"] == 12 for row in table)
        assert all(0.0 < row["rmse_percent"] < 20.0 and row["acc"] is None for row in table)
        assert told[name]["certificate"]["golden"]


@pytest.mark.real_data
def test_points_of_a_real_jules_are_scored_once_each(real_data):
    told = figures("skill", "--jules", str(real_data / "jules"))
    assert told["points"] == 200
    assert all(ours < 0.6 * daily for ours, daily in zip(told["emulator"], told["daily physics"], strict=True))
    assert max(told["emulator"]) < 2.5 and all(0.85 < share < 0.96 for share in told["coverage"])


def test_a_scenario_is_run_end_to_end():
    told = figures("scenario", "--cells", "16", "--years", "3", "--scenarios", "1", "--locations", "20")
    assert told["pixel-years"] == 48 and len(told["runs"]) == 1
    assert told["runs"][0]["spot_check"]["years"] == 3 and told["runs"][0]["bytes"] > 0
