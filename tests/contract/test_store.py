"""What the store promises: whole commits or none, exact values, the same bits in any order, nothing lost once said."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra.store import DAYS, RECENT, Draft, Store, canonical
from twin.errors import Conflict, SettingsError, TimeError, TwinError, VariableError
from twin.variables import VARIABLES

CELLS, ORIGIN = 700, "2020-01-01"  # more than one chunk of cells
SOIL, CLASS = "volume_fraction_of_condensed_water_in_soil", "drought_class"


def grid(cells: int = CELLS) -> xr.Dataset:
    places = {"lat": ("cell", np.linspace(-30, 30, cells)), "lon": ("cell", np.linspace(-10, 50, cells))}
    return xr.Dataset({"sand": ("cell", np.full(cells, 0.4))}, places, {"region": "demo", "resolution": 1.0})


def daily(first: str, last: str | None = None, seed: int = 0) -> xr.Dataset:
    """States and classes that depend on the day only, so that any order of writing should end the same."""
    days = pd.date_range(first, last or first)
    rng = [np.random.default_rng((seed, day.toordinal())) for day in days]
    soil = np.stack([r.random((4, CELLS), dtype="float32") for r in rng])
    codes = np.stack([r.integers(-5, 6, CELLS).astype("int8") for r in rng])
    return xr.Dataset({SOIL: (("time", "layer", "cell"), soil), CLASS: (("time", "cell"), codes)}, {"time": days})


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store.open(tmp_path / "store")
    draft = store.draft()
    draft.create("demo", grid(), ORIGIN)
    draft.commit("create")
    return store


def write(store: Store, data: xr.Dataset, group: str = "state", region: str = "demo") -> str:
    draft = store.draft()
    draft.write(region, group, data)
    return draft.commit("write")


# -------------------------------------------------------------------------------------------------------------- values
def test_what_is_written_is_read_and_the_rest_is_missing(store):
    data = daily("2020-01-03", "2020-01-05")
    write(store, data)
    found = store.at().dataset("demo", "state")
    assert found[SOIL].dims == ("time", "layer", "cell") and found[SOIL].dtype == "float32"
    assert found.time.dtype == "datetime64[ns]" and str(found.time.values[0])[:10] == ORIGIN
    xr.testing.assert_equal(found[[SOIL, CLASS]].isel(time=slice(2, 5)).drop_vars(["lat", "lon"]).load(), data)
    assert np.isnan(found[SOIL].isel(time=slice(0, 2))).all()
    assert (found[CLASS].isel(time=0) == -128).all(), "no class is no drought class"
    assert found[SOIL].attrs["units"] == VARIABLES[SOIL].units
    np.testing.assert_array_equal(found.lat, grid().lat)
    assert store.at().last_day("demo", "state") == pd.Timestamp("2020-01-05")
    assert store.at().last_day("demo", "forcing") is None


@pytest.mark.parametrize("select", [slice(None), slice(9, 140), slice(None, None, -7), 127, 128, -1, [3, 270, 130], []])
def test_reading_across_full_and_filling_blocks(store, select):
    """Days lie in two arrays, the full blocks and the one being filled; a reader sees one axis, as numpy indexes it."""
    data = daily(ORIGIN, pd.Timestamp(ORIGIN) + pd.Timedelta(days=2 * DAYS + 19))
    write(store, data)
    view = store.at()
    np.testing.assert_array_equal(view.dataset("demo", "state")[SOIL][select].values, data[SOIL][select].values)
    cells = [5, 600, 7]
    found = view.dataset("demo", "state")[SOIL].isel(cell=cells, layer=2)[select]
    np.testing.assert_array_equal(found.values, data[SOIL].isel(cell=cells, layer=2)[select].values)


def test_one_map_and_one_series(store):
    data = daily(ORIGIN, "2020-06-15")
    write(store, data)
    view = store.at()
    for day in ("2020-02-01", "2020-06-14"):
        np.testing.assert_array_equal(view.map("demo", "state", SOIL, day), data[SOIL].sel(time=day).values)
    series = view.series("demo", "state", SOIL, 650)
    assert series.dims == ("time", "layer") and series.attrs["units"] == "m3 m-3"
    np.testing.assert_array_equal(series, data[SOIL].isel(cell=650))
    assert (view.map("demo", "state", CLASS, "2031-01-01") == -128).all()
    assert np.isnan(view.map("demo", "state", SOIL, "2019-12-31")).all()
    with pytest.raises(VariableError, match=f"expected nothing_of_ours, found {CLASS}, {SOIL}"):
        view.series("demo", "state", "nothing_of_ours", 0)


def test_a_day_written_again_replaces_only_itself(store):
    write(store, daily(ORIGIN, "2020-08-30"))
    write(store, daily("2020-03-03", seed=1))
    found = store.at().dataset("demo", "state")[SOIL]
    before = daily(ORIGIN, "2020-08-30")[SOIL]
    changed = (found.values != before.values).any(axis=(1, 2))
    assert list(np.flatnonzero(changed)) == [62]
    np.testing.assert_array_equal(found.values[62], daily("2020-03-03", seed=1)[SOIL].values[0])


def test_scattered_days_and_a_late_variable(store):
    days = ["2020-01-04", "2020-01-02", "2020-11-11", "2020-02-20"]
    data = xr.concat([daily(day) for day in days], "time")
    write(store, data[[SOIL]])
    write(store, data[[CLASS]].isel(time=[0]))
    found = store.at().dataset("demo", "state")
    assert found.sizes["time"] == (pd.Timestamp("2020-11-11") - pd.Timestamp(ORIGIN)).days + 1
    written = np.isfinite(found[SOIL]).all(("layer", "cell"))
    assert sorted(str(day)[:10] for day in found.time.values[written]) == sorted(days)
    for day in days:
        np.testing.assert_array_equal(found[SOIL].sel(time=day), daily(day)[SOIL].isel(time=0))
    assert (found[CLASS].sel(time="2020-01-04") != -128).all()
    assert (found[CLASS].sel(time="2020-11-11") == -128).all()


def test_a_block_that_fills_leaves_nothing_behind(store):
    """The days of a filled block move; those of the next one that nobody has written yet are missing."""
    write(store, daily("2020-04-20", "2020-05-07"))  # the last day of the first block of 128
    write(store, daily("2020-05-21"))
    found = store.at().dataset("demo", "state")[SOIL]
    written = np.isfinite(found).all(("layer", "cell")).values
    assert list(np.flatnonzero(written)) == [*range(110, 128), 141]
    np.testing.assert_array_equal(found.sel(time="2020-05-07"), daily("2020-05-07")[SOIL].isel(time=0))


def test_static_groups_are_replaced_whole(store):
    draft = store.draft()
    levels = [0.1, 0.3, 0.5]
    values = {"quantile": (("level", "cell"), np.ones((3, CELLS)))}
    table = xr.Dataset(values, {"level": levels}, {"reference_years": 30})
    draft.put("demo", "climatology", table)
    draft.put("demo", "climatology", table.rename(quantile="value").isel(level=slice(0, 2)))
    draft.commit("climatology")
    found = store.at().dataset("demo", "climatology").load()
    assert list(found.data_vars) == ["value"] and found.attrs["reference_years"] == 30
    np.testing.assert_array_equal(found.level, [0.1, 0.3])
    assert found.value.dtype == "float64", "what is not daily keeps its type"


def test_restarts_are_exact_and_the_newest_before_a_day(store):
    draft = store.draft()
    assert draft.restart("demo") is None
    states = {}
    for day in ("2020-01-01", "2020-02-01", "2020-02-11", "2020-03-01", "2020-03-05"):
        states[day] = xr.Dataset({SOIL: (("layer", "cell"), np.random.default_rng(len(states)).random((4, CELLS)))})
        draft.save_restart("demo", day, states[day])
    draft.commit("restarts")
    view = store.at()
    newest = {None: "2020-03-05", "2020-03-04": "2020-03-01", "2020-02-28": "2020-02-01", "2020-02-01": "2020-02-01"}
    for before, expected in newest.items():
        day, state = view.restart("demo", before=before)
        assert day == pd.Timestamp(expected)
        np.testing.assert_array_equal(state[SOIL].values, states[expected][SOIL].values)
    draft = store.draft()
    draft.drop_restarts("demo", after="2020-01-20")
    assert draft.restart("demo")[0] == pd.Timestamp("2020-01-01")
    draft.save_restart("demo", "2020-02-11", states["2020-02-11"])
    assert draft.restart("demo")[0] == pd.Timestamp("2020-02-11")
    assert draft.restart("demo", before="2020-02-10")[0] == pd.Timestamp("2020-01-01")


def any_state() -> xr.Dataset:
    """What some land model may want to go on from: surface types, its own dims, whole and half precision, no cells."""
    rng = np.random.default_rng(3)
    return xr.Dataset(
        {
            SOIL: (("layer", "cell"), rng.random((4, CELLS))),
            "surface_temperature": (("tile", "cell"), rng.normal(280.0, 9.0, (9, CELLS))),
            "jules_snow": (("tile", "jules_level", "cell"), rng.random((9, 3, CELLS)).astype("f4")),
            "jules_layers": (("tile", "cell"), rng.integers(-3, 4, (9, CELLS)).astype("i4")),
            "jules_first": (("cell", "jules_pool"), rng.random((CELLS, 2))),
            "jules_count": ((), np.int64(2**60 + 1)),
            "odd": ("cell", np.where(np.arange(CELLS) % 2, np.nan, -0.0)),
        }
    )


def test_a_restart_is_the_models_state_bit_for_bit(store):
    state = any_state()
    draft = store.draft()
    draft.save_restart("demo", "2020-02-01", state)
    draft.save_restart("demo", "2020-02-03", state * 2)
    draft.commit("restarts")
    for before, expected in (("2020-02-01", state), (None, state * 2)):
        _, found = store.at().restart("demo", before=before)
        assert set(found.data_vars) == set(expected.data_vars)
        for name, values in expected.data_vars.items():
            assert (found[name].dims, found[name].dtype) == (values.dims, values.dtype), name
            assert found[name].values.tobytes() == values.values.tobytes(), name
    draft = store.draft()
    draft.drop_restarts("demo", after=ORIGIN)
    assert draft.restart("demo") is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (any_state().drop_vars("odd"), r"state of demo: expected odd \(\('cell',\), \(700,\), .*found odd absent"),
        (
            any_state().assign(jules_layers=any_state()["jules_layers"].astype("i8")),
            "expected jules_layers .*int32.*, found .*int64",
        ),
        (any_state().isel(jules_level=slice(0, 2)), r"jules_snow .*9, 3, 700.* found .*9, 2, 700"),
    ],
    ids=["fewer", "other types", "other dims"],
)
def test_a_state_of_another_model_is_refused(store, other, message):
    draft = store.draft()
    draft.save_restart("demo", "2020-02-01", any_state())
    with pytest.raises(SettingsError, match=message):
        draft.save_restart("demo", "2020-03-01", other)


def test_a_region_knows_the_land_model_it_was_prepared_for(store):
    model = {"kind": "land", "step": "1h", "shower": 0.3}
    draft = store.draft()
    draft.create("other", grid(), ORIGIN, model)
    draft.commit("create")
    assert store.at().model("other") == model and store.at().model("demo") == {}


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"time": pd.DatetimeIndex(["2019-12-31"])}, TimeError, "before the region's first, found 2019-12-31"),
        ({"time": pd.DatetimeIndex(["2020-01-01T12:00"])}, TimeError, "expected different UTC midnights"),
        ({"cell": slice(0, 3)}, TwinError, "expected 700, found 3"),
    ],
)
def test_what_cannot_be_a_day_of_the_region_is_refused(store, wrong, error, message):
    data = daily("2020-01-01")
    data = data.assign_coords(time=wrong["time"]) if "time" in wrong else data.isel(wrong)
    with pytest.raises(error, match=message):
        store.draft().write("demo", "state", data)


# -------------------------------------------------------------------------------------------------------------- journal
def test_the_journal_is_numbered_and_read_from_anywhere(store):
    draft = store.draft()
    entries = [{"events": [], "text": "ä" * size} for size in (3, 0, 200_000, 1)]
    assert [draft.append_journal("demo", entry) for entry in entries] == [0, 1, 2, 3]
    assert draft.next_seq("demo") == 4
    with pytest.raises(TwinError, match="expected entry 4, found entry 9"):
        draft.append_journal("demo", {"seq": 9})
    draft.commit("journal")
    numbered = [{**entry, "seq": n} for n, entry in enumerate(entries)]
    for after in range(-1, 5):
        assert store.at().journal("demo", after=after) == numbered[after + 1 :]
    assert store.at().journal("elsewhere") == []
    assert canonical({"b": [1.5, None], "a": "é"}) == '{"a":"é","b":[1.5,null]}'


def test_the_ledger_folds_the_journal(store):
    first, bad = {"key": "a@1", "id": "a"}, {"key": "b@1", "id": "b", "reason": "units: expected K, found mm"}
    draft = store.draft()
    draft.append_journal("demo", {"consumed": [first], "quarantined": [bad]})
    assert draft.ledger("demo")["b@1"] == {**bad, "status": "quarantined", "seq": 0}
    draft.commit("one")
    old = store.at()
    assert store.at().ledger("demo")["a@1"] == {**first, "status": "consumed", "seq": 0}
    draft = store.draft()
    draft.append_journal("demo", {"retried": ["b@1", "a@1", "never seen"]})
    assert "b@1" not in draft.ledger("demo"), "a draft sees its own entries"
    assert "b@1" in store.at().ledger("demo"), "and nobody else does"
    draft.append_journal("demo", {"consumed": [{"key": "b@1", "id": "b"}]})
    draft.commit("two")
    ledger = store.at().ledger("demo")
    assert {key: record["status"] for key, record in ledger.items()} == dict.fromkeys(("a@1", "b@1"), "consumed")
    assert old.ledger("demo")["b@1"]["status"] == "quarantined", "a snapshot's ledger is its own"


def test_every_entry_leads_to_its_snapshot_until_history_is_tidied(store):
    snapshots = []
    for n in range(4):
        draft = store.draft()
        draft.append_journal("demo", {"n": n})
        snapshots.append(draft.commit(f"entry {n}"))
        write(store, daily("2020-01-01", seed=n))
        assert store.snapshot_of("demo", n) == snapshots[n]
    again = Store.open(store.url)
    assert [again.snapshot_of("demo", n) for n in range(4)] == snapshots
    assert again.at(snapshots[1]).journal("demo")[-1]["n"] == 1
    with pytest.raises(TwinError, match="expected entry 4, found last entry 3"):
        again.snapshot_of("demo", 4)
    before = again.at().digest("demo")
    again.tidy(datetime.now(UTC))
    fresh = Store.open(store.url)
    assert [entry["n"] for entry in fresh.at().journal("demo")] == [0, 1, 2, 3], "the journal needs no history"
    assert fresh.snapshot_of("demo", 0) == fresh.head() and fresh.at().digest("demo") == before
    with pytest.raises(TwinError, match="expected a snapshot that is kept"):
        fresh.at(snapshots[0]).journal("demo")


# -------------------------------------------------------------------------------------------------------------- commits
def test_a_reader_keeps_its_snapshot(store):
    write(store, daily("2020-01-01", "2020-01-02"))
    view = store.at()
    lazy, copy = view.dataset("demo", "state"), pickle.loads(pickle.dumps(view))
    digest = view.digest("demo")
    write(store, daily("2020-01-01", "2020-01-09", seed=1))
    assert view.digest("demo") == copy.digest("demo") == digest != store.at().digest("demo")
    np.testing.assert_array_equal(lazy[SOIL].values, daily("2020-01-01", "2020-01-02")[SOIL].values)
    assert store.at(view.snapshot).last_day("demo", "state") == pd.Timestamp("2020-01-02")


def test_nothing_of_a_draft_is_seen_before_its_commit(store):
    head, digest = store.head(), store.at().digest("demo")
    draft = store.draft()
    draft.write("demo", "state", daily("2020-01-01"))
    assert draft.has("demo", "state") and not store.at().has("demo", "state")
    assert store.head() == head and store.at().digest("demo") == digest
    with pytest.raises(TypeError, match="belongs to its process"):
        pickle.dumps(draft)
    assert store.draft().commit("nothing") == head, "an empty draft is no commit"


def test_two_writers_one_wins(store):
    first, second = store.draft(), store.draft()
    first.write("demo", "state", daily("2020-01-01"))
    first.append_journal("demo", {"who": "first"})
    second.write("demo", "drought", daily("2020-01-01"))  # not even the same group
    second.append_journal("demo", {"who": "second"})
    winner = first.commit("first")
    with pytest.raises(Conflict, match=f"expected snapshot {second.snapshot}, found {winner}"):
        second.commit("second")
    assert store.head() == winner and not store.at().has("demo", "drought")
    third = store.draft()
    third.append_journal("demo", {"who": "second"})
    third.commit("again")
    assert [entry["who"] for entry in store.at().journal("demo")] == ["first", "second"]


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_writing_ends_in_the_same_bits(tmp_path, seed):
    firsts, lasts = ("01-01", "04-01", "05-21", "06-03"), ("03-31", "05-20", "06-02", "06-03")
    spans = [(f"2020-{first}", f"2020-{last}") for first, last in zip(firsts, lasts, strict=True)]
    digests = set()
    for name, order in (("whole", None), ("parts", random.Random(seed).sample(spans, 4))):
        store = Store.open(tmp_path / name)
        draft = store.draft()
        draft.create("demo", grid(), ORIGIN)
        draft.append_journal("demo", {"name": name})
        draft.commit("create")
        for first, last in order or [("2020-01-01", "2020-06-03")]:
            write(store, daily(first, last))
        digests.add(store.at().digest("demo"))
    assert len(digests) == 1
    write(store, daily("2020-02-02", seed=1)[[CLASS]])
    assert store.at().digest("demo") not in digests


def test_a_day_costs_little_disk(store):
    """Appending rewrites the chunk of RECENT days it lies in, not the block it will end in."""
    rng = np.random.default_rng(0)
    noise = rng.random((DAYS, CELLS), dtype="float32")

    data = xr.Dataset({"noise": (("time", "cell"), noise)}, {"time": pd.date_range(ORIGIN, periods=DAYS)})
    write(store, data.isel(time=slice(0, 80)), "drought")
    before = size(store)
    for n in range(80, 88):
        write(store, data.isel(time=[n]), "drought")
    assert size(store) - before < 8 * (RECENT * CELLS * 4 + 20_000), "the rest is what every commit costs"


def size(store: Store) -> int:
    return sum(file.stat().st_size for file in Path(store.url).rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------------------ processes
RACE = """
import sys, numpy as np, pandas as pd, xarray as xr
from infra.store import Store
from twin.errors import Conflict

store, tries = Store.open(sys.argv[1]), 0
print("ready", flush=True)
while True:
    draft = store.draft()
    n = draft.next_seq("demo")
    day = [pd.Timestamp("2020-01-01") + pd.Timedelta(days=n)]
    for group in ("state", "drought"):
        draft.write("demo", group, xr.Dataset({"value": (("time", "cell"), np.full((1, 700), n, "f4"))}, {"time": day}))
    draft.append_journal("demo", {"n": n, "who": sys.argv[2]})
    try:
        draft.commit("race")
    except Conflict:
        continue
    print(n, flush=True)
"""


def test_racing_writers_killed_at_any_moment_lose_nothing_acknowledged(store):
    """Three processes write the same arrays as fast as they can until each is killed, the others still at it."""
    run, rng = [sys.executable, "-c", RACE, store.url], random.Random(0)
    writers = {name: subprocess.Popen([*run, name], stdout=subprocess.PIPE, text=True) for name in "abc"}
    for writer in writers.values():
        assert writer.stdout.readline() == "ready\n"
    acknowledged, patience = {}, time.monotonic() + 120.0
    while store.at().next_seq("demo") < 4 and time.monotonic() < patience:  # however busy the machine is
        time.sleep(0.05)
    for name, writer in writers.items():
        time.sleep(rng.uniform(0.3, 0.6))
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged[name] = [int(line) for line in writer.communicate()[0].split()]
    view = Store.open(store.url).at()
    journal = view.journal("demo")
    assert [entry["seq"] for entry in journal] == [entry["n"] for entry in journal] == list(range(len(journal)))
    for name, numbers in acknowledged.items():
        written = [entry["n"] for entry in journal if entry["who"] == name]
        assert written[: len(numbers)] == numbers, "what was acknowledged is there"
        assert len(written) <= len(numbers) + 1, "and at most one commit was killed before it could say so"
    for group in ("state", "drought"):
        values = view.dataset("demo", group)["value"].values
        np.testing.assert_array_equal(values, np.broadcast_to(np.arange(len(journal))[:, None], values.shape))
    assert len(journal) > 3 and write(store, daily("2020-01-01"), "other"), "the lock went with the processes"


# --------------------------------------------------------------------------------------------------------------- folder
def test_a_store_is_never_made_over_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="expected an Icechunk repository, found other files"):
        Store.open(tmp_path)
    with pytest.raises(SettingsError, match="expected a folder or file:// URL, found ftp://host/store"):
        Store.open("ftp://host/store")
    assert Store.open(f"file://{tmp_path}/a%20b").at().regions() == []
    assert (tmp_path / "a b").is_dir()


def test_unknown_regions_and_names_taken(store):
    assert store.at().regions() == ["demo"] and store.at().groups("demo") == ["grid"]
    with pytest.raises(VariableError, match="expected group mars/state, found none"):
        store.at().dataset("mars", "state")
    draft: Draft = store.draft()
    with pytest.raises(TwinError, match="expected a new name, found it exists"):
        draft.create("demo", grid(), ORIGIN)
