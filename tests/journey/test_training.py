"""The emulator in service, end to end: trained, used, watched, trained anew, held back, and gone back from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from flows.__main__ import app
from flows.headless import advance, learn
from infra import registry, training, verbs
from infra.settings import Settings, region
from infra.verbs import Tally
from infra.wiring import Services, build, embedded_catalog
from stac.validate import validate
from stac.watch import Watcher
from twin.errors import Rejected, SettingsError
from twin.events import EMULATOR_PROMOTED, EMULATOR_REFUSED, EMULATOR_ROLLED_BACK

SMALL = {
    "TWIN_DEMO__RESOLUTION": "6",
    "TWIN_DEMO__REFERENCE_YEARS": "2",
    "TWIN_TRAINING__ENABLED": "true",
    "TWIN_TRAINING__LOCATIONS": "20",
    "TWIN_TRAINING__HELD_OUT": "12",
    "TWIN_TRAINING__MEMBERS": "1",
    "TWIN_TRAINING__DAYS": "300",
    "TWIN_TRAINING__LEAST": "300",
    "TWIN_TRAINING__TREES": "5",
    "TWIN_TRAINING__SPOT_CHECK": "10",
}
THETA = "volume_fraction_of_condensed_water_in_soil"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """About seventy cells, and an emulator that takes seconds to train."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory, small) -> list[dict]:
    """90 days of weather in one item, then one item for each of ten days."""
    from infra.provider import Provider

    folder = tmp_path_factory.mktemp("provider")
    source = Provider(folder, region("demo"))
    source.backfill()
    for _ in range(10):
        source.publish_next()
    found = Watcher(str(folder / "catalog.json")).poll(datetime.now(UTC))
    return sorted((a for a in found if a["product"] == "simulated-forcing"), key=lambda a: a["datetime"])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, arrivals) -> Path:
    """A home with a first release and no emulator yet."""
    home = tmp_path_factory.mktemp("untrained") / "home"
    with twin_at(home) as twin:
        advance(twin, region("demo"), arrivals[:-10], 1000, Tally())
    return home


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained) -> Path:
    """A home whose first emulator is in use."""
    home = tmp_path_factory.mktemp("trained") / "home"
    with twin_at(shutil.copytree(untrained, home)) as twin:
        assert "is in use (there is none yet)" in learnt(twin)
    return home


@contextmanager
def twin_at(home: Path) -> Iterator[Services]:
    with embedded_catalog(Settings(home=home)) as settings:
        yield build(settings)


def learnt(twin: Services, force: bool = False) -> str:
    """The sentence of the training that was due, '' if none was."""
    tally = Tally()
    learn(twin, region("demo"), tally, force)
    return tally.trained


def pointer(twin: Services) -> registry.Pointer:
    return registry.pointer(twin.store.at(), "demo")


def events(twin: Services) -> list[tuple[str, dict[str, Any]]]:
    found = twin.bus.poll("test", limit=1000)
    return [(event.type, event.data) for event in found if "emulator" in event.type]


def items(twin: Services) -> list[dict[str, Any]]:
    return [item.to_dict() for item in twin.catalog.search(collections=["demo-emulators"])]


def in_use(twin: Services) -> str:
    """The id of the item that the collection says is the newest."""
    collection = next(c for c in twin.catalog.collections() if c.id == "demo-emulators").to_dict()
    (newest,) = (link["href"] for link in collection["links"] if link["rel"] == "latest-version")
    return newest.rpartition("/")[2]


def tell(twin: Services) -> None:
    verbs.publish(twin, region("demo"))
    verbs.announce(twin, region("demo"))


def records(twin: Services) -> list[dict[str, Any]]:
    return [entry["emulator"] for entry in twin.store.at().journal("demo") if entry.get("emulator")]


# ------------------------------------------------------------------------------------------------------------ the first
def test_the_first_emulator_is_one_commit_one_event_and_one_valid_item(trained):
    with twin_at(trained) as twin:
        view = twin.store.at()
        (record,) = records(twin)
        ((kind, told),) = events(twin)
        (item,) = items(twin)
        version = pointer(twin).champion
        assert pointer(twin) == registry.Pointer(version) and len(version) == 12
        assert (record["outcome"], record["version"]) == (registry.PROMOTED, version)
        assert kind == EMULATOR_PROMOTED and told["version"] == version and told["key"] == record["key"]
        assert told["snapshot"] == twin.store.snapshot_of("demo", told["sequence"])
        assert validate(item) == [] and item["id"] == f"demo-emulator-{version}"
        assert item["properties"]["twin:scores"] == told["scores"]
        assert in_use(twin) == item["id"]
        assert not learnt(twin), "the same manifest is trained on once"
        assert registry.champion(view, "demo").version == version and registry.shadow(view, "demo") is None


def test_what_was_trained_on_is_kept_with_it(trained):
    with twin_at(trained) as twin:
        kept = registry.training_set(twin.store.at(), "demo", pointer(twin).champion)
        manifest = json.loads(kept.attrs["manifest"])
        assert manifest["days"] == ["2023-06-05", "2024-03-30"] and manifest["parameters"] == "prior"
        names = kept["role"].attrs["flag_meanings"].split()
        roles = {role: int((kept["role"] == code).sum()) for code, role in enumerate(names)}
        assert roles["train"] == 20 and roles["calibrate"] >= 9 and roles["test"] >= 5
        assert len(np.unique(kept["location"])) == kept.sizes["location"]


def test_the_assets_of_the_item_are_the_emulator(trained):
    from twin.emulator.model import Emulator

    with twin_at(trained) as twin:
        (item,) = items(twin)
        paths = [Path(asset["href"].removeprefix("file://")) for asset in item["assets"].values()]
        files = {path.name: path.read_bytes() for path in paths if path.is_file()}
        assert Emulator.from_files(files).version == item["properties"]["version"] == pointer(twin).champion


# ------------------------------------------------------------------------------------------------------- those after it
@pytest.fixture(scope="module")
def challenged(tmp_path_factory, trained) -> tuple[Path, training.Plan, training.Result]:
    """A home in which another emulator is due, and what came of training it."""
    home = tmp_path_factory.mktemp("challenged") / "home"
    with pytest.MonkeyPatch.context() as patch, twin_at(shutil.copytree(trained, home)) as twin:
        patch.setenv("TWIN_TRAINING__TREES", "1")
        services = replace(twin, settings=Settings(home=home))
        plan = training.due(services, region("demo"))
        return home, plan, training.train(services, region("demo"), plan)


def test_a_worse_one_is_refused_and_the_one_in_use_stays(challenged, tmp_path, monkeypatch):
    home, plan, result = challenged
    assert plan.reasons[0] == "other settings" and result.outcome == registry.REFUSED and result.reasons
    monkeypatch.setenv("TWIN_TRAINING__TREES", "1")
    with twin_at(shutil.copytree(home, tmp_path / "home")) as twin:
        before = pointer(twin)
        assert training.commit(twin, region("demo"), plan, result)
        assert training.commit(twin, region("demo"), plan, result) is None, "it is told once"
        tell(twin)
        kind, told = events(twin)[-1]
        assert kind == EMULATOR_REFUSED and tuple(told["verdict"]) == result.reasons
        assert told["predecessor"] == before.champion and pointer(twin) == before and len(items(twin)) == 1
        assert "What was there stays" in training.sentence(plan, result)
        assert not learnt(twin), "it is not tried again before something changes"


def test_a_better_one_waits_in_the_shadow_for_a_release_and_one_can_go_back(
    challenged, arrivals, tmp_path, monkeypatch
):
    """As if the verdict on it had been another one."""
    home, plan, result = challenged
    version = result.version
    monkeypatch.setenv("TWIN_TRAINING__TREES", "1")
    with twin_at(shutil.copytree(home, tmp_path / "home")) as twin:
        before = pointer(twin).champion
        assert training.commit(twin, region("demo"), plan, replace(result, outcome=registry.SHADOW))
        tell(twin)
        assert pointer(twin) == registry.Pointer(before, version)
        assert registry.shadow(twin.store.at(), "demo").version == version
        assert len(events(twin)) == len(items(twin)) == 1, "nothing is told before it is in use"
        assert training.due(twin, region("demo")) is None, "no release has passed"
        advance(twin, region("demo"), arrivals[-10:], 1000, Tally())
        judged = training.due(twin, region("demo"))
        found = training.train(twin, region("demo"), judged)
        assert judged.shadow == version and set(found.scores["rmse"]) == {f"theta_{k}" for k in (1, 2, 3, 4)}
        assert training.commit(twin, region("demo"), judged, replace(found, outcome=registry.PROMOTED))
        tell(twin)
        assert pointer(twin) == registry.Pointer(version, "", (before,))
        newest = next(item for item in items(twin) if item["properties"]["version"] == version)
        assert len(items(twin)) == 2 and validate(newest) == []
        assert any(link["rel"] == "predecessor-version" and before in link["href"] for link in newest["links"])
        assert "other settings" in newest["properties"]["processing:lineage"]

        token = twin.settings.catalog.token.get_secret_value()
        about = {"TWIN_CATALOG__URL": twin.catalog.url, "TWIN_CATALOG__TOKEN": token}
        command = CliRunner(env={"TWIN_HOME": str(twin.settings.home), **about})
        done = command.invoke(app, ["models", "--rollback", "--json"])
        assert done.exit_code == 0, done.output
        rows = json.loads(done.output)
        assert [(row["version"], row["use"]) for row in rows] == [(before, "champion"), (version, "previous")]
        assert pointer(twin) == registry.Pointer(before, "", (version,))
        kinds = [kind for kind, _ in events(twin)]
        assert kinds == [EMULATOR_PROMOTED, EMULATOR_PROMOTED, EMULATOR_ROLLED_BACK]
        assert in_use(twin) == f"demo-emulator-{before}" and len(items(twin)) == 2
        assert not learnt(twin), "what was gone back from is not trained again"


def test_one_that_fails_in_the_shadow_is_forgotten(challenged, tmp_path):
    home, plan, result = challenged
    with twin_at(shutil.copytree(home, tmp_path / "home")) as twin:
        before = pointer(twin).champion
        training.commit(twin, region("demo"), plan, replace(result, outcome=registry.SHADOW))
        judged = training.due(twin, region("demo"), force=True)
        refused = training.Result(registry.REFUSED, result.version, ("it is worse",), {})
        assert training.commit(twin, region("demo"), judged, refused)
        assert pointer(twin) == registry.Pointer(before)
        assert not twin.store.at().has("demo", f"emulator/models/{result.version}")


def test_a_manifest_is_trained_on_again_only_where_somebody_insists(trained, tmp_path):
    home = shutil.copytree(trained, tmp_path / "home")
    command = CliRunner(env={"TWIN_HOME": str(home), "TWIN_TRAINING__ENABLED": "false"})
    done = json.loads(command.invoke(app, ["train", "--json"]).output.splitlines()[-1])
    assert done["commits"] == 0 and done["trained"] == ""
    done = json.loads(command.invoke(app, ["train", "--force", "--json"]).output.splitlines()[-1])
    assert done["commits"] == 1 and "Emulator" in done["trained"]


# --------------------------------------------------------------------------------------------------------- what is kept
def test_two_before_the_present_one_are_kept_and_no_more(trained, tmp_path):
    with twin_at(shutil.copytree(trained, tmp_path / "home")) as twin:
        emulator = registry.champion(twin.store.at(), "demo")
        kept = registry.training_set(twin.store.at(), "demo", emulator.version).load()
        versions = [emulator.version]
        for number in range(3):
            other = another(emulator, number)
            draft = twin.store.draft()
            registry.save(draft, "demo", other, kept)
            registry.point(draft, "demo", registry.pointer(draft, "demo").promoted(other.version))
            draft.commit("another")
            versions.append(other.version)
        view = twin.store.at()
        assert pointer(twin) == registry.Pointer(versions[3], "", (versions[2], versions[1]))
        models = [name for name in view.groups("demo") if name.startswith("emulator/models/")]
        assert models == sorted(f"emulator/models/{version}" for version in versions[1:])
        assert registry.champion(view, "demo").version == versions[3]


def another(emulator: Any, number: int) -> Any:
    """One whose intervals are a little wider, and so another version."""
    wider = replace(emulator.intervals, half_widths=emulator.intervals.half_widths + 1e-6 * (number + 1))
    return replace(emulator, intervals=wider)


@pytest.mark.parametrize("where", [0, -1], ids=["card", "booster"])
def test_files_that_were_changed_are_refused_and_nothing_moves(trained, tmp_path, where):
    with twin_at(shutil.copytree(trained, tmp_path / "home")) as twin:
        before = pointer(twin)
        emulator = another(registry.champion(twin.store.at(), "demo"), 0)
        draft = twin.store.draft()
        registry.save(draft, "demo", emulator, xr.Dataset(attrs={"manifest": "{}"}))
        group = f"emulator/models/{emulator.version}"
        data = draft.dataset("demo", group).load()
        name = sorted(data.data_vars)[where]
        spoilt = data[name].copy(data=data[name].values ^ (np.arange(data[name].size) == 100).astype(np.uint8))
        draft.put("demo", group, data.assign({name: spoilt}))
        registry.point(draft, "demo", registry.Pointer(before.champion, "", (emulator.version,)))
        draft.commit("spoilt")
        with pytest.raises(Rejected):
            registry.load(twin.store.at(), "demo", emulator.version)
        with pytest.raises(Rejected):
            training.roll_back(twin, region("demo"))
        assert pointer(twin).champion == before.champion
        assert registry.champion(twin.store.at(), "demo").version == before.champion


def test_there_is_nothing_to_go_back_to_at_first(trained):
    with twin_at(trained) as twin, pytest.raises(SettingsError, match="emulators of demo: expected one before"):
        training.roll_back(twin, region("demo"))


# ------------------------------------------------------------------------------------------------------- when it is due
def test_nothing_is_due_where_it_is_switched_off_or_there_is_nothing_to_train_on(untrained, monkeypatch, tmp_path):
    services, place = build(Settings(home=untrained)), region("demo")
    assert training.due(services, place).reasons == ("there is none yet",)
    fresh = build(Settings(home=tmp_path / "home"))
    assert training.due(fresh, place) is None
    verbs.prepare(fresh, place)
    assert training.due(fresh, place) is None
    monkeypatch.setenv("TWIN_TRAINING__ENABLED", "false")
    assert training.due(build(Settings(home=untrained)), place) is None


def test_an_analysis_that_moved_the_soil_asks_for_another(trained, tmp_path):
    """Parameters and journal as `analysis.commit` writes them."""
    with twin_at(shutil.copytree(trained, tmp_path / "home")) as twin:
        place, draft = region("demo"), twin.store.draft()
        moved = draft.dataset("demo", "parameters").load()
        moved["theta_s"] = moved["theta_s"] + 0.02
        draft.put("demo", "analysis", moved.assign_attrs(key="k1", first="2024-03-01", last="2024-03-30"))
        row = {"name": "kappa_1", "z": 0.9, "deviation": 0.5, "prior_deviation": 0.5}
        verbs.append(draft, place, analysis={"key": "k1", "accepted": True, "diagnostics": {"control": [row]}})
        draft.commit("analysed")
        plan = training.due(twin, place)
        said = "; ".join(plan.reasons)
        assert "a pedotransfer coefficient moved: 0.9, limit 0.5" in said
        assert "a soil's θ_s or θ_c moved: 0.02, limit 0.01" in said
        assert plan.manifest["parameters"] == "k1" and plan.manifest["control"] == {"kappa_1": [0.9, 1.0]}


def test_one_that_cannot_be_used_any_more_is_replaced(trained, arrivals, tmp_path, monkeypatch):
    """As after an upgrade: other settings are due, and what is in use is no longer readable."""
    monkeypatch.setenv("TWIN_TRAINING__TREES", "4")
    with twin_at(shutil.copytree(trained, tmp_path / "home")) as twin:
        before, draft = pointer(twin).champion, twin.store.draft()
        draft.put("demo", f"emulator/models/{before}", xr.Dataset({"emulator.json": ("byte", np.zeros(3, np.uint8))}))
        draft.commit("spoilt")
        assert "the one in use cannot be used" in learnt(twin)
        assert pointer(twin).champion != before and registry.champion(twin.store.at(), "demo") is not None
