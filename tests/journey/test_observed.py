"""What assimilation is worth on real retrievals that it has not seen, and that it has not seen them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.__main__ import REFUSED, app
from flows.bench.observed import Case, Probe, Run, experiment, take_in
from twin.cycle import Options
from twin.ensemble import YEAR
from twin.errors import VariableError
from twin.operators import SURFACE_MOISTURE


# --------------------------------------------------------------------------------------------------------- real data
@pytest.fixture(scope="module")
def case(real_data, tmp_path_factory) -> Case:
    home = tmp_path_factory.mktemp("observed")
    take_in(home, str(real_data / "conus" / "catalog.json"), "conus", "land-daily")
    return Case.of(home, "conus", "land-daily")


@pytest.fixture(scope="module")
def probe(real_data) -> Probe:
    return Probe.read(real_data / "in_situ" / "uscrn_manhattan_ks_daily.csv.gz")


@pytest.fixture(scope="module")
def figures(case, probe) -> dict:
    return experiment(case, 0, probe)


@pytest.mark.real_data
def test_held_out_cells_are_followed_better_a_year_later(figures):
    """Other cells, another year: 95 % limits of the paired differences leave zero out, against either prior.

    SMAP is required to be within 0.04 m3 m-3 (ubRMSE) of the ground; nothing can be much closer to it than that to
    itself. Withheld observations must have said so before.
    """
    held_out = figures["scores"]["held out"]
    assert held_out["observations"] > 10_000
    for reference in ("prior operator", "prior layer"):
        gain = held_out[f"analysis operator − {reference}"]
        for score in ("rmse", "rmse_offset", "ubrmse"):
            assert gain[score]["high"] < 0.0, (reference, score)
        for score in ("r", "anomaly_r"):
            assert gain[score]["low"] > 0.0, (reference, score)
    analysis = held_out["analysis operator"]
    assert analysis["ubrmse"]["mean"] < 0.035 and analysis["r"]["mean"] > 0.78 and analysis["rmse"]["mean"] < 0.055
    withheld = figures["analysis"]["withheld"]
    assert withheld["analysis_ubrmse"] < withheld["open_loop_ubrmse"]


@pytest.mark.real_data
def test_nothing_was_picked(figures, case):
    """Of every retrieval at every cell, forests, lakes and frost among them, anomalies too are followed better."""
    every = figures["scores"]["every cell, all retrievals"]
    second = case.retrievals[SURFACE_MOISTURE].sel(time=case.year(2))
    assert every["observations"] == int(np.isfinite(second).sum())
    for score in ("r", "anomaly_r"):
        assert every["analysis operator − prior layer"][score]["low"] > 0.0
    assert every["analysis operator − prior layer"]["ubrmse"]["high"] < 0.0


@pytest.mark.real_data
def test_a_probe_near_a_cell_that_was_left_out(figures):
    """Better at 5 cm than the open loop, below no worse than the noise of one station allows (5 %)."""
    found = figures["probe"]
    assert found["km"] == pytest.approx(27.5, abs=0.1)
    shallow = found["5 cm, all days"]
    assert shallow["prior"]["days"] > 800
    assert shallow["analysis"]["ubrmse"] < shallow["prior"]["ubrmse"]
    assert shallow["analysis"]["r"] > shallow["prior"]["r"]
    for depth in ("10 cm, all days", "20 cm, all days"):
        assert found[depth]["analysis"]["ubrmse"] < 1.05 * found[depth]["prior"]["ubrmse"]
        assert found[depth]["analysis"]["r"] > 0.95 * found[depth]["prior"]["r"]
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.real_data
def test_what_is_scored_never_reaches_the_analysis(case, probe):
    """To the last bit the same, whatever the other cells and the second year hold."""
    quick = Options(members=40, loops=1, residual=False)
    chosen, others = case.halves(1, probe.nearest(case))
    assert probe.nearest(case) not in chosen and not set(chosen) & set(others)
    assert chosen.size + others.size == case.cells
    given = case.calibrate(chosen, 1, residual=False, options=quick)
    spoilt = case.retrievals.copy(deep=True)
    spoilt[SURFACE_MOISTURE].values[:, others] = 0.5
    spoilt[SURFACE_MOISTURE].values[YEAR:] = 0.5
    again = Case(case.model, case.prior, case.forcing, spoilt, case.sensor, case.hour)
    np.testing.assert_array_equal(again.calibrate(chosen, 1, residual=False, options=quick).z, given.z)


@pytest.mark.real_data
def test_the_prior_run_is_the_open_loop_of_the_gates(case):
    """A run of given parameters is what the analysis starts from: H of the window's own open loop."""
    chosen, _ = case.halves(2)
    few = Options(members=40, loops=1, residual=False)
    table = case.calibrate(chosen, 2, residual=False, options=few).predicted[case.sensor]
    run = case.run().seen
    np.testing.assert_allclose(
        run[table["day"].values, table["cell"].values], table["open_loop"].values, atol=1e-6, err_msg="float32"
    )


# ------------------------------------------------------------------------------------------------- what it is made of
def station(path, **columns) -> str:
    days = pd.date_range("2016-01-01", periods=4)
    table = pd.DataFrame(
        {
            "LST_DATE": days.strftime("%Y%m%d").astype(int),
            "LONGITUDE": -96.61,
            "LATITUDE": 39.1,
            "SOIL_TEMP_5_DAILY": [5.0, 0.4, -9999.0, 8.0],
            "SOIL_MOISTURE_5_DAILY": [0.30, 0.31, 0.32, -99.0],
            "SOIL_MOISTURE_10_DAILY": [0.20, 0.21, 0.22, 0.23],
            "SOIL_MOISTURE_20_DAILY": -9999.0,
            **columns,
        }
    )
    table.to_csv(path, index=False)
    return path


def test_a_probe_says_nothing_in_frost_or_where_it_is_missing(tmp_path):
    probe = Probe.read(station(tmp_path / "a.csv"))
    np.testing.assert_array_equal(probe.moisture[5], [0.30, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(probe.moisture[10], [0.20, np.nan, np.nan, 0.23])
    assert probe.moisture[20].isna().all() and (probe.lat, probe.lon) == (39.1, -96.61)
    with pytest.raises(VariableError, match=r"columns of the probe: expected SOIL_MOISTURE_10_DAILY, found none"):
        (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text().replace("SOIL_MOISTURE_10", "VWC_10"))
        Probe.read(tmp_path / "b.csv")


def test_a_moment_of_the_day_lies_between_its_ends():
    theta = np.array([0.2, 0.4]).reshape(2, 1, 1)
    run = Run(theta, np.array([[0.1]]), theta[:, 0])
    np.testing.assert_allclose(run.at(0, 0, 0.75), [0.175, 0.35])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "jules"), "--model: expected land-daily or land, found jules"),
        (("--region", "atlantis"), "found atlantis"),
    ],
)
def test_an_unknown_choice_is_refused(words, said):
    done = CliRunner().invoke(app, ["bench", "observed", "--source", "nowhere.json", *words])
    assert done.exit_code == REFUSED and said in " ".join(done.output.split())
