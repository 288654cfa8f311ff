"""`twin bench indices` on a few cells: that its figures are what they are called, not how large they are."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from flows.bench import indices as bench
from twin.errors import SettingsError

CELLS, YEARS = 40, 30


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.extend(str(word) for word in words))
        patch.setattr(bench, "CELLS", 2 * CELLS)
        bench.indices(CELLS, YEARS, bench.PEERS, 8, 1, as_json=True)
    return json.loads(lines[-1])


def test_every_index_has_a_row_beside_reading_and_decoding(figures):
    rows = {row["index"]: row for row in figures["rows"]}
    assert list(rows)[:2] == [bench.READ, bench.DECODE] and len(rows) == 11
    assert rows[bench.READ]["of_read"] == rows[bench.DECODE]["of_decode"] == 1.0
    for row in rows.values():
        assert row["wall_us"] > 0.0 and row["cpu_us"] >= 0.0
        # three digits each
        assert row["of_read"] == pytest.approx(row["wall_us"] / rows[bench.READ]["wall_us"], rel=0.02)
        assert row["gb_s"] == pytest.approx(4 * 365.25 / (1e3 * row["wall_us"]), rel=0.01)
        assert row["all_s"] == pytest.approx(1e-6 * row["wall_us"] * 2 * CELLS * bench.YEARS, rel=0.01)


def test_peers_agree_where_they_mean_the_same(figures):
    """Days to the day; the score of single-precision rain to 1e-3, of double precision by the same formula to 1e-9."""
    found = {peer["peer"]: peer for peer in figures["peers"]}
    assert len(found) == 8 and found["xclim rain_season"]["largest_difference"] is None
    for name, peer in found.items():
        assert peer["cpu_us"] > 0.0 and peer["cells"] == (8 if name.startswith("xclim") else CELLS)
        if name != "xclim rain_season":
            limit = 0.0 if "SPI" not in name else 1e-3 if name.startswith("xclim") else 1e-9
            assert peer["largest_difference"] <= limit, name


def test_what_is_counted_at_once_is_beside_all_that_counts_it(figures):
    counts = [peer["cpu_us"] for peer in figures["peers"] if peer["index"] == bench.ALL]
    own = next(row["cpu_us"] for row in figures["rows"] if row["index"] == bench.ALL)
    assert len(counts) == 3 and figures["counting"]["cpu_us"] == pytest.approx(sum(counts))
    assert figures["counting"]["ratio"] == pytest.approx(sum(counts) / own, rel=0.01)


def test_a_new_day_is_all_of_its_parts(figures):
    ms = dict(figures["new_day"]["ms"])
    assert figures["new_day"]["cells"] == 2 * CELLS
    assert ms.pop("all") == pytest.approx(sum(ms.values()), rel=0.01)
    assert set(ms) == {"counts", "index", "percentile", "classes"} and min(ms.values()) > 0.0


def test_reading_reads_all():
    """The sum of the words, whatever the number of threads and of values."""
    values = np.random.default_rng(0).random((37, 55)).astype(np.float32)
    words = values.reshape(-1)[:-1].view(np.int64)
    for threads in (1, 2):
        assert bench._read_all(values, threads) == int(words.sum())


def test_simulated_rain_has_seasons_and_spells():
    """Wetter in one half of the year, and a wet day likelier after a wet one; the soil follows."""
    rain, water = bench.days(50, pd.date_range("2001-01-01", "2004-12-31"))
    season = rain["time"].dt.month.isin([6, 7, 8, 9])
    assert rain[season].mean() > 5.0 * rain[~season].mean()
    assert 300.0 < float(rain.mean()) * 365.25 < 3000.0
    wet = rain.values[season.values] >= 1.0
    assert wet[1:][wet[:-1]].mean() > 1.3 * wet[1:][~wet[:-1]].mean()
    assert water.min() >= 0.0 and water.max() <= 1.0 and water[season].mean() > water[~season].mean()
    again, _ = bench.days(50, rain.indexes["time"])
    np.testing.assert_array_equal(again, rain)


def test_an_unknown_peer_is_refused_before_anything_is_timed():
    with pytest.raises(SettingsError, match="--peers: expected xclim or climate_indices, found other"):
        bench.indices(CELLS, YEARS, ["other"], 8, 1, as_json=False)
