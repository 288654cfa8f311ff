"""`twin bench land` on a few cells: that its figures are what they are called, not how large they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import REFUSED, app
from flows.bench import land as bench
from twin.parameters import TILES

CELLS, DAYS = 80, 3
WORDS = f"--cells {CELLS} --steps 3h --steps 1D --precisions single --threads 1 --threads 2 --days {DAYS} --repeats 2"


@pytest.fixture(scope="module")
def figures():
    done = CliRunner().invoke(app, ["bench", "land", *WORDS.split(), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def test_every_case_has_a_row(figures):
    rows = [(row["cells"], row["step"], row["precision"], row["threads"], row["days"]) for row in figures["rows"]]
    assert rows == [(CELLS, step, "single", threads, DAYS) for step in ("3h", "1D") for threads in (1, 2)]
    assert len(figures["load"]) == 2 and figures["repeats"] == 2
    assert figures["processor"]["bits"] == 64 * figures["processor"]["double"] == 32 * figures["processor"]["single"]


def test_times_are_per_pixel_year_and_ratios_are_of_them(figures):
    for row in figures["rows"]:
        for time in (row["cpu_ms"], row["wall_ms"]):
            assert 0.0 < time["min"] <= time["p50"] <= time["max"]
        assert row["of_double"] is None and row["of_30min"] is None  # neither was run
        if row["threads"] == 1:
            assert row["efficiency"] == 1.0
            # one thread cannot use more CPU than there was time; 10 ms is the coarsest clock
            assert row["cpu_ms"]["min"] <= row["wall_ms"]["max"] * 1.05 + 10.0 * 365 / (CELLS * DAYS)
        if row["step"] == "1D":
            assert row["jules_over_this"] is None  # it does a part of the physics
        else:
            assert row["jules_over_this"] == pytest.approx(170.0 / row["cpu_ms"]["p50"], rel=0.02)  # three digits


def test_a_pixel_year_is_365_days_of_one_cell(monkeypatch):
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))
    cpu, _ = bench._per_pixel_year(lambda: None, cells=100, days=73)
    assert cpu == pytest.approx(1e3 * 0.5 / (100 * 73 / 365))


def test_memory_counts_what_the_run_returns(figures):
    """At least a day's output, single: of Land water and heat of four layers, three stores, twenty fluxes."""
    by_step = {use["step"]: use for use in figures["memory"]}
    assert by_step["3h"]["per_day"] >= 4 * (2 * 4 + 3 + 20)
    assert by_step["1D"]["per_day"] >= 4 * (4 + 4)
    for use in figures["memory"]:
        assert use["working"] > 0 and use["held"] > 8 * 4  # the soil water of the state


def test_spreading_is_less_than_the_run_it_is_part_of(figures):
    (cost,) = figures["spreading"]
    assert 0.0 < cost["spreading"] < cost["from_days"] and cost["from_steps"] > 0.0


def test_surface_types_are_as_many_as_in_the_runs_of_jules():
    fraction = bench.tile_fractions(20_000, np.random.default_rng(3))
    number = (fraction > 0.0).sum(axis=0)
    assert number.mean() == pytest.approx(bench.TYPES, abs=5 * number.std() / 20_000**0.5)
    assert number.min() >= 1 and np.abs(fraction.sum(axis=0) - 1.0).max() < 1e-12
    assert not fraction[[TILES.index(name) for name in ("urban", "lake", "ice")]].any()
    np.testing.assert_array_equal(fraction, bench.tile_fractions(20_000, np.random.default_rng(3)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "6h"), "--steps: expected 30min or 1h or 3h or 1D, found 6h"),
        (("--precisions", "half"), "--precisions: expected double or single, found half"),
    ],
)
def test_an_unknown_choice_is_refused_before_anything_is_timed(words, said):
    done = CliRunner().invoke(app, ["bench", "land", *words])
    assert done.exit_code == REFUSED and said in " ".join(done.output.split())
