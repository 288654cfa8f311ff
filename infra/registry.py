"""The emulators of a region: their files in its store, which one is in use, and the way back.

    /<region>/emulator/pointer             attrs: champion, shadow, previous (the newest first, at most two)
                       models/<version>    the files, byte for byte
                       training/<version>  manifest, locations and their roles, digests of the features

What the pointer does not name is forgotten with the commit that lets it go; older snapshots still hold it. A champion
is never changed: another one is written beside it, and the pointer moves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from infra.results import write
from infra.settings import Region
from infra.store import Draft, View
from infra.wiring import Services
from stac.emulator import CARD
from stac.item import item_id
from twin.emulator import ubjson
from twin.emulator.outputs import OUTPUTS
from twin.errors import VariableError
from twin.variables import VARIABLES

if TYPE_CHECKING:
    from twin.emulator.model import Emulator

PROMOTED, SHADOW, REFUSED, ROLLED_BACK = "promoted", "shadow", "refused", "rolled back"  # what may come of one
KEPT = 2  # emulators kept besides the one in use
_POINTER = "emulator/pointer"


@dataclass(frozen=True)
class Pointer:
    """Versions by what they are for; empty where there is none."""

    champion: str = ""
    shadow: str = ""
    previous: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """All that are kept, the champion first."""
        return tuple(filter(None, (self.champion, self.shadow, *self.previous)))

    def promoted(self, version: str) -> Pointer:
        """With that version as champion, what it replaces first of the previous ones."""
        before = [name for name in (self.champion, *self.previous) if name and name != version]
        return Pointer(version, "", tuple(before[:KEPT]))

    def rolled_back(self) -> Pointer:
        """With the newest previous version as champion; what it replaces comes last, so nothing is lost."""
        newest, *others = self.previous
        return replace(self, champion=newest, previous=(*others, self.champion))


def pointer(view: View, region: str) -> Pointer:
    """Which emulators the region has."""
    if not view.has(region, _POINTER):
        return Pointer()
    about = view.dataset(region, _POINTER).attrs
    return Pointer(about["champion"], about["shadow"], tuple(about["previous"]))


def champion(view: View, region: str) -> Emulator | None:
    """The emulator in use; Rejected if its files are not what was stored."""
    version = pointer(view, region).champion
    return load(view, region, version) if version else None


def shadow(view: View, region: str) -> Emulator | None:
    """The emulator that runs beside the one in use before it may replace it; Rejected as above."""
    version = pointer(view, region).shadow
    return load(view, region, version) if version else None


def load(view: View, region: str, version: str) -> Emulator:
    """One of the emulators kept, checked before use; Rejected if its files are not what was stored."""
    return _loaded(tuple(files(view, region, version).items()))


@lru_cache(maxsize=4)
def _loaded(content: tuple[tuple[str, bytes], ...]) -> Emulator:
    from twin.emulator.model import Emulator  # with XGBoost, which an update has no use for

    return Emulator.from_files(dict(content))


def files(view: View, region: str, version: str) -> dict[str, bytes]:
    """The files of one of the emulators kept."""
    data = view.dataset(region, f"emulator/models/{version}")
    return {str(name): array.values.tobytes() for name, array in data.data_vars.items()}


def training_set(view: View, region: str, version: str) -> xr.Dataset:
    """What one of the emulators kept was trained on: locations, roles, and attribute `manifest`."""
    return view.dataset(region, f"emulator/training/{version}")


def save(draft: Draft, region: str, emulator: Emulator, trained: xr.Dataset) -> None:
    """Write an emulator and what it was trained on; `point` says what it is for."""
    content = emulator.files()
    arrays = {name: (f"byte of {name}", np.frombuffer(data, np.uint8)) for name, data in sorted(content.items())}
    draft.put(region, f"emulator/models/{emulator.version}", xr.Dataset(arrays))
    draft.put(region, f"emulator/training/{emulator.version}", trained)


def point(draft: Draft, region: str, to: Pointer) -> None:
    """Move the pointer, and forget the emulators it no longer names."""
    for version in set(pointer(draft, region).versions) - set(to.versions):
        for group in ("models", "training"):
            draft.drop(region, f"emulator/{group}/{version}")
    draft.put(region, _POINTER, xr.Dataset(attrs={**asdict(to), "previous": list(to.previous)}))


# ----------------------------------------------------------------------------------------------------------- publishing
def promotion_of(services: Services, region: Region, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Everything an item says about an emulator that came into use, as plain data; its files are kept beside the store.

    The entry of a rollback gives the promotion of what was gone back to.
    """
    record = entry["emulator"]
    if record["outcome"] != PROMOTED:
        entry = _promoted(services.store.at(), region.name, record["version"], entry["seq"])
        record = entry["emulator"]
    snapshot = services.store.snapshot_of(region.name, entry["seq"])
    content = files(services.store.at(snapshot), region.name, record["version"])
    folder = services.settings.home / "models" / region.name / record["version"]
    kept = training_set(services.store.at(snapshot), region.name, record["version"]).attrs
    first, last = json.loads(kept["manifest"])["days"]
    return {
        "version": record["version"],
        "predecessor": record["predecessor"],
        "reasons": list(kept["reasons"]),
        "model": kept["model"],
        "scores": json.loads(kept["scores"]),
        "region": region.name,
        "title": region.title,
        "bbox": list(region.bbox),
        "sequence": entry["seq"],
        "time": entry["time"],
        "simulated": region.simulated,
        "snapshot": snapshot,
        "store": Path(services.store.url).as_uri(),
        "start_day": first,
        "valid_day": last,
        "files": [_kept(folder / name, data) for name, data in sorted(content.items())],
        "sources": _sources(region, entry),
        **_described(content),
    }


def _described(content: Mapping[str, bytes]) -> dict[str, Any]:
    """Features, outputs and options, as the files tell them."""
    told = json.loads(content[CARD])
    columns = {
        feature["name"]: {
            "units": feature["units"],
            "long_name": f"{feature['name'].replace('_', ' ')} ({feature['group']})",
            "dims": ("time", "cell"),
        }
        for feature in told["features"]
    }
    outputs = list(dict.fromkeys(OUTPUTS[name].variable for name in told["outputs"]))
    known = {name: {**VARIABLES[name].attrs, "dims": VARIABLES[name].dims} for name in outputs}
    return {
        "features": list(columns),
        "outputs": outputs,
        "variables": {**columns, **known},
        "hyperparameters": {name: value for name, value in told["card"]["options"].items() if name != "outputs"},
        "framework_version": ".".join(map(str, ubjson.loads(content[f"{told['outputs'][0]}.ubj"])["version"])),
    }


def _promoted(view: View, region: str, version: str, before: int) -> dict[str, Any]:
    """The newest entry before that one by which a version came into use."""
    sequence: int | None = before
    while sequence is not None:
        (entry, *_) = view.journal(region, after=sequence - 1)
        record = entry.get("emulator") or {}
        if record.get("version") == version and record["outcome"] == PROMOTED:
            return entry
        sequence = entry.get("trained")
    raise VariableError(f"journal of {region}", expected=f"the promotion of emulator {version}", found="none")


def _kept(path: Path, content: bytes) -> dict[str, Any]:
    """A file written whole or not at all; its href, size and checksum."""
    write(path, content)
    checksum = f"1220{hashlib.sha256(content).hexdigest()}"
    return {"name": path.name, "href": path.as_uri(), "size": len(content), "checksum": checksum}


def _sources(region: Region, entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """The state whose forcing and parameters it was trained with."""
    release = entry.get("previous")
    if release is None:
        return []
    name = item_id(region.name, "state", release)
    return [{"id": name, "href": f"collections/{region.name}-state/items/{name}"}]
