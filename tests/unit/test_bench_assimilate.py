"""`twin bench assimilate` on a small problem: that its figures are what they are called, not how large they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import REFUSED, app
from flows.bench.assimilate import dense
from twin import fourdenvar


def run(*words: str) -> dict:
    done = CliRunner().invoke(app, ["bench", "assimilate", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def test_the_dense_formulation_has_the_same_minimum():
    """Pinnington et al. (2020) minimise by iteration what is solved in closed form; R may be any covariance."""
    rng = np.random.default_rng(1)
    Y, d = rng.standard_normal((8, 30)), rng.standard_normal(30)
    root = rng.standard_normal((30, 30))
    R = np.eye(30) + 0.1 * root @ root.T
    w, _ = fourdenvar.analyse(np.eye(8), Y, d, R)
    np.testing.assert_allclose(dense(Y, d, R), w, atol=1e-5)  # Newton-CG stops when steps are 1e-5 on average


def test_the_algebra_and_its_peer_agree():
    told = run("--cells", "900", "--observations", "9000", "--members", "20", "--peers", "50", "--repeats", "2")
    assert told["chunks"] == 3 and 0.0 < told["cpu_s"]["min"] <= told["cpu_s"]["p50"]
    assert told["Y_GB"] == pytest.approx(9000 * 20 * 4 / 1e9, rel=0.01) and told["beyond_GB"] < told["peak_GB"]
    (row,) = told["dense"]
    assert row["observations"] == 50 and row["dw"] < 1e-5
    assert row["ratio"] == pytest.approx(1e3 * row["dense_cpu_s"] / row["ours_cpu_ms"], rel=0.02)


def test_the_whole_is_the_sum_of_its_parts():
    told = run("--whole", "--cells", "20", "--observations", "1000", "--members", "32")
    (row,) = told["rows"]
    assert sum(row["split_s"].values()) == pytest.approx(row["wall_s"], rel=0.05)
    assert min(row["split_s"].values()) >= 0.0 and row["observations"] == 1000
    assert row["runs"] >= 1 + (row["loops"] + 1) * 33 + row["loops"]  # open loop; members and a walk a loop; the last
    assert row["dofs"] > 1.0 and row["peak_GB"] >= row["peak_before_GB"]


def test_a_tier_there_is_not_is_refused():
    done = CliRunner().invoke(app, ["bench", "assimilate", "--whole", "--tier", "6h"])
    assert done.exit_code == REFUSED and "--tier: expected 1D or 3h, found 6h" in " ".join(done.output.split())
