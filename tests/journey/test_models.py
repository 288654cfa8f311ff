"""The same journey on every land model: chosen by a setting, written into the region, exact wherever it is cut."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows.headless import advance
from infra import verbs
from infra.provider import Provider
from infra.settings import Region, Settings, region, region_grid
from infra.verbs import Tally
from infra.wiring import Services, build, embedded_catalog
from stac.validate import validate
from stac.watch import Watcher
from twin.errors import RangeError, SettingsError
from twin.parameters import TILES

install = runpy.run_path(str(Path(__file__).parents[1] / "stand_in_jules.py"))["install"]
DAYS = 3
# A real region in all but its data: no reference is simulated, so that any model can run its few days in seconds.
TINY = """
name = "tiny"
title = "A few cells"
bbox = [0.0, 0.0, 30.0, 20.0]
resolution = 10.0
grid = "land"
start = 2024-03-27
reference_start = 2024-03-27
reference_end = 2030-12-31
soil = "loam"
land_cover = "grass"
c4_share = 0.75
products = ["simulated-forcing"]
"""


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """The simulated region at ten degrees with two years of reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWIN_DEMO__RESOLUTION", "10")
        patch.setenv("TWIN_DEMO__REFERENCE_YEARS", "2")
        yield


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory) -> list[dict]:
    """The weather before the first live day, month by month, and a few days that follow."""
    folder = tmp_path_factory.mktemp("provider")
    source = Provider(folder, region("demo"))
    source.backfill()
    for _ in range(DAYS):
        source.publish_next()
    found = Watcher(str(folder / "catalog.json")).poll(datetime.now(UTC))
    return sorted((a for a in found if a["product"] == "simulated-forcing"), key=lambda a: a["datetime"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Region:
    path = tmp_path_factory.mktemp("region") / "tiny.toml"
    path.write_text(TINY)
    return region(str(path))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, dict]:
    """Settings of each model; JULES is the stand-in."""
    executable, namelists = install(tmp_path_factory.mktemp("jules") / "set-up")
    jules = {"kind": "jules", "executable": executable, "namelists": namelists}
    return {"land-daily": {"kind": "land-daily"}, "land": {"kind": "land"}, "jules": jules}


def take(services: Services, place: Region, arrivals: list[dict]) -> Tally:
    tally = Tally()
    advance(services, place, arrivals, 1000, tally)
    return tally


@pytest.mark.parametrize("kind", ["land-daily", "land", "jules"])
def test_a_run_cut_anywhere_is_the_unbroken_one(tmp_path, arrivals, tiny, models, kind):
    """Items at once, or one by one, each in a twin that knows only its store: the same arrays and model state, bit for
    bit. Late days recompute from the checkpoint before them.
    """
    homes = [Settings(home=tmp_path / name, model=models[kind]) for name in ("whole", "parts", "late")]
    before, days = [a for a in arrivals if a["datetime"] < "2024-03-31"], arrivals[-DAYS:]
    order = {"whole": [arrivals], "parts": [before, days[:1], days[1:]], "late": [before + days[1:], days[:1]]}
    stores = []
    with embedded_catalog(homes[0]) as settings:
        for home, batches in zip(homes, order.values(), strict=True):
            for batch in batches:
                services = build(home.model_copy(update={"catalog": settings.catalog}))
                assert take(services, tiny, batch).quarantined == len(batch) - len(usable(batch))
            stores.append(services.store.at())
        item = next(services.catalog.search(collections=["tiny-state"])).to_dict()
    assert len({view.digest("tiny") for view in stores}) == 1
    view = stores[0]
    day, land = view.restart("tiny")
    assert str(day.date()) == "2024-04-03"
    state = view.dataset("tiny", "state").load()
    kept = set(verbs.KEPT) - ({"soil_temperature"} if kind == "land-daily" else set())
    assert set(state.data_vars) == kept
    assert state.sizes == {"time": 7, "layer": 4, "cell": land.sizes["cell"]}
    assert all(np.isfinite(values).all() for values in state.data_vars.values())
    theta = land["volume_fraction_of_condensed_water_in_soil"].values
    np.testing.assert_allclose(state["volume_fraction_of_condensed_water_in_soil"].values[-1], theta, rtol=1e-6)
    assert ("tile" in land.dims) == (kind != "land-daily")
    assert any(str(name).startswith("jules_") for name in land) == (kind == "jules")
    assert validate(item) == []
    told = item["properties"]
    assert set(told["cube:variables"]) == kept
    cover = "the reference grass" if kind == "land-daily" else "grass everywhere (75% C4)"
    assert f"{kind} on {cover}" in told["processing:software"] and cover in told["processing:lineage"]


def usable(batch: list[dict]) -> list[dict]:
    """Items with a day of the tiny region: those of January and February are refused as before its first."""
    return [a for a in batch if (a.get("end") or a["datetime"])[:10] >= "2024-03-27"]


def test_the_parameters_of_surface_types_are_kept(tmp_path, tiny, models):
    services = build(Settings(home=tmp_path, model=models["land"]))
    assert verbs.prepare(services, tiny)
    found = services.store.at().dataset("tiny", "parameters").load()
    assert tuple(found["tile"].values) == TILES and found.attrs["retention"] == "brooks-corey"
    for name in ("tile_fraction", "leaf_area_index", "canopy_height"):
        assert found[name].dims == ("tile", "cell") and found[name].dtype == np.float64
    np.testing.assert_array_equal(found["tile_fraction"].sel(tile="c4_grass"), 0.75)


def test_the_simulated_region_on_the_energy_balance(tmp_path, arrivals, models):
    """Its land cover follows its climate, its reference was run by the same model, its percentiles are whole."""
    with embedded_catalog(Settings(home=tmp_path, model={**models["land"], "step": "3h"})) as settings:
        services = build(settings)
        assert take(services, region("demo"), arrivals).commits == 1
        item = next(services.catalog.search(collections=["demo-drought"]))
    view = services.store.at()
    assert view.model("demo")["step"] == "3h"
    percentile = view.dataset("demo", "drought")["soil_moisture_percentile"].values
    assert np.isfinite(percentile).all() and 5.0 < percentile.mean() < 95.0
    assert np.isfinite(view.dataset("demo", "state")["soil_temperature"].values).all()
    assert "land on simulated land cover" in item.properties["processing:software"]


def test_another_model_than_the_regions_is_refused(tmp_path, arrivals, tiny, models):
    """By kind and by every choice that changes numbers; nothing is written, and the first goes on."""
    own = Settings(home=tmp_path, model=models["land"])
    first = build(own)
    assert verbs.prepare(first, tiny)
    snapshot = first.store.head()
    for name, found, chosen in (
        ("KIND", "land-daily", {}),
        ("KIND", "jules", models["jules"]),
        ("STEP", "3h", {"kind": "land", "step": "3h"}),
        ("PRECISION", "single", {"kind": "land", "precision": "single"}),
        ("RETENTION", "van-genuchten", {"kind": "land", "retention": "van-genuchten"}),
        ("SHOWER", "0.3", {"kind": "land", "shower": 0.3}),
    ):
        other = build(Settings(home=tmp_path, model=chosen))
        message = rf"TWIN_MODEL__{name}: expected .*, found {found} \(tiny was prepared with it; .* another TWIN_HOME\)"
        with pytest.raises(SettingsError, match=message):
            take(other, tiny, arrivals)
    assert first.store.head() == snapshot
    assert verbs.prepare(first, tiny)


def test_a_region_of_before_models_were_written_is_the_daily_ones(tmp_path, tiny):
    services = build(Settings(home=tmp_path))
    draft = services.store.draft()
    draft.create("tiny", region_grid(tiny), tiny.start)
    draft.commit("as version 0.1 did")
    assert verbs.prepare(services, tiny)
    with pytest.raises(SettingsError, match="TWIN_MODEL__KIND: expected land-daily, found land"):
        verbs.prepare(build(Settings(home=tmp_path, model={"kind": "land"})), tiny)


def test_a_model_that_fails_leaves_nothing(tmp_path, arrivals, tiny):
    """JULES ends well and wrote NaN: no array, no entry, and its run directory stays in the home."""
    executable, namelists = install(tmp_path / "set-up", fault="nan")
    model = {"kind": "jules", "executable": executable, "namelists": namelists}
    services = build(Settings(home=tmp_path / "home", model=model))
    assert verbs.prepare(services, tiny)
    snapshot, batch = services.store.head(), verbs.ingest(services, tiny, usable(arrivals))
    with pytest.raises(RangeError, match=r"JULES output 'smcl': .* found nan"):
        verbs.commit(services, tiny, batch)
    view = services.store.at()
    assert view.snapshot == snapshot and len(view.ledger("tiny")) == 0 and not view.has("tiny", "state")
    (left,) = (tmp_path / "home" / "jules").iterdir()
    assert (left / "jules.err").exists()
