"""The emulator: a land model that is as good as the sub-daily one it learnt from, at the cost of the daily one.

    parameters ─transfer─▸ daily physics ─┐
    forcing ─memories─────────────────────┼─▸ row of features ─forests─▸ + the physics' own value ─▸ soil moisture
    soil and leaves ──────────────────────┘

Trees correct what the daily physics gets wrong; nothing they say goes back into a state, so that nothing drifts, and
where they know nothing the physics still answers. XGBoost trains them, and our kernel runs them.

Refs: Chen & Guestrin (2016), KDD (XGBoost); Reichstein et al. (2019), Nature 566, 195 (hybrid models).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import xgboost as xgb

from twin import checks
from twin.conformal import Conformal
from twin.emulator import features, physics
from twin.emulator.envelope import Envelope
from twin.emulator.features import CORRECTION, MEMORY, NAMES, Place, Prepared
from twin.emulator.fitting import Options, Training, fit, regimes_of
from twin.emulator.forest import Forest
from twin.emulator.kernel import Kernel
from twin.emulator.march import march
from twin.emulator.outputs import OUTPUTS, base_of
from twin.emulator.physics import Transfer
from twin.errors import ChecksumError, RangeError, Rejected, SettingsError, VariableError
from twin.inputs import CANOPY, SNOW, THETA
from twin.land.daily import EVAPORATION, FORCING, RUNOFF, check_cells, check_days
from twin.variables import LAYERS, VARIABLES

MANIFEST = "emulator.json"
FORMAT = 1  # of the manifest


@dataclass(frozen=True, eq=False)
class Emulator:
    """LandModel of daily steps that answers as the model it was trained on would.

    outputs     what it emulates; soil moisture first
    boosters    XGBoost's own file (UBJSON) of each output
    transfer    of the daily physics
    card        what is known of it, for people: what it was trained on, scores, coverage, importance; plain JSON
    intervals   half-widths by regime
    envelope    what it has seen
    safe_boosters   of the monotone variant; empty where there is none
    """

    outputs: tuple[str, ...]
    boosters: Mapping[str, bytes]
    transfer: Transfer
    card: Mapping[str, Any]
    intervals: Conformal
    envelope: Envelope
    hybrid: bool = True
    safe_boosters: Mapping[str, bytes] = field(default_factory=dict)
    threads: int = 0

    name = "emulator"

    @classmethod
    def fit(cls, training: Training, options: Options | None = None) -> Emulator:
        """Train on the runs of role "train", calibrate on those of role "calibrate"; the same bytes for the same runs.

        Raises RangeError where either has too few locations, VariableError where the truth lacks an output.
        """
        return cls(**fit(training, options or Options()))

    # --- a land model -----------------------------------------------------------------------------------------------
    @cached_property
    def version(self) -> str:
        """Twelve hex digits of all its answers are made of: how good they were found to be, the card, is not of it."""
        intervals = self.intervals.to_dict(), self.card.get("safe_intervals")
        told = [self.outputs, self.transfer.values, self.hybrid, *intervals, self.envelope.to_dict()]
        total = hashlib.sha256(json.dumps(told).encode())
        for kind, files in (("", self.boosters), ("safe-", self.safe_boosters)):
            for name in sorted(files):
                total.update(f"{kind}{name}".encode() + hashlib.sha256(files[name]).digest())
        return total.hexdigest()[:12]

    def at(self, parameters: xr.Dataset) -> Place:
        """What is known of a place for good: give it to `run` instead of the parameters where that is called often."""
        return Place.of(parameters, self.transfer)

    def run(
        self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset | Place
    ) -> tuple[xr.Dataset, xr.Dataset]:
        """See `twin.model.LandModel.run`.

        state        soil moisture, water on leaves and snow; what else the emulator needs is in the states it returns.
                     Without `forcing_memory` the memories are the mean of the run's first year, so that only runs that
                     start from a returned state, or from `start`, can be cut in two without a trace
        forcing      of days, as `LandDaily` takes it; `mole_fraction_of_carbon_dioxide_in_air` (time) where it changes
        parameters   with surface types, as `twin.parameters.assemble` makes them
        returns      (end state, diagnostics): the outputs, and what else the daily physics tells: snow, leaves, runoff
        """
        place, ready = self._prepared(state, forcing, parameters)
        cells = forcing.sizes["cell"]
        low, high = np.zeros((len(self.outputs), cells), np.float32), np.full((len(self.outputs), cells), np.inf, "f4")
        high[: len(LAYERS)] = place.pores
        if "evapotranspiration" in self.outputs:
            low[self.outputs.index("evapotranspiration")] = -np.inf  # dew
        base = np.array([base_of(name, self.hybrid) for name in self.outputs], np.int64)
        values = march(self.kernel, ready.table, base, low, high, self.threads or os.cpu_count() or 1)
        where = {name: forcing[name].variable for name in ("lat", "lon") if name in forcing.coords}
        theta, canopy, snow = ready.end
        emulated = values[: len(LAYERS), -1].astype(np.float64)
        end = {THETA: emulated, CORRECTION: emulated - theta, CANOPY: canopy, SNOW: snow, MEMORY: ready.table.memory}
        found = dict(zip((CANOPY, SNOW, EVAPORATION, RUNOFF), ready.run[1:], strict=True)) | self._variables(values)
        return (
            xr.Dataset({name: xr.Variable(*_of_state(name, v)) for name, v in end.items()}, where),
            xr.Dataset(
                {name: xr.Variable(VARIABLES[name].dims, v, VARIABLES[name].attrs) for name, v in found.items()},
                {"time": forcing["time"].variable, **where},
            ),
        )

    def start(self, state: xr.Dataset, forcing: xr.Dataset) -> xr.Dataset:
        """The state with the memories of a place whose every day was the mean of this forcing's first year."""
        memory = features.means(forcing.isel(time=slice(0, features.YEAR)))
        return state.assign({MEMORY: xr.Variable(*_of_state(MEMORY, memory))})

    def features(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset | Place) -> np.ndarray:
        """The rows of a run, (time · cell, feature) float32, day by day, in the order of NAMES."""
        return self._prepared(state, forcing, parameters)[1].table.matrix()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(row, output) float32 of rows (row, feature), before limits; units of the features, as OUTPUTS has them.

        Raises Rejected for other features, or one that is missing.
        """
        sums = self.kernel.predict(rows)
        for k, name in enumerate(self.outputs):
            if (base := base_of(name, self.hybrid)) >= 0:
                sums[:, k] += np.asarray(rows[:, base], np.float32)
        return sums

    def regimes(self, rows: np.ndarray) -> np.ndarray:
        """The regime of each row (row), from its memories."""
        return regimes_of(rows)

    @cached_property
    def safe(self) -> Emulator | None:
        """The variant that more rain never dries, nor more demand wets; None where none was trained."""
        if not self.safe_boosters:
            return None
        card = {**self.card, "variant": "safe"}
        intervals = Conformal.from_dict(self.card["safe_intervals"])
        return Emulator(
            tuple(self.safe_boosters),
            self.safe_boosters,
            self.transfer,
            card,
            intervals,
            self.envelope,
            hybrid=False,
            threads=self.threads,
        )

    @cached_property
    def kernel(self) -> Kernel:
        return Kernel([Forest.parse(self.boosters[name], NAMES) for name in self.outputs], threads=self.threads)

    def booster(self, name: str) -> xgb.Booster:
        """XGBoost's own booster of an output: the reference of the kernel, and for explanations."""
        booster = xgb.Booster(model_file=bytearray(self.boosters[name]))
        booster.set_param({"nthread": self.threads or os.cpu_count() or 1})
        return booster

    def _prepared(
        self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset | Place
    ) -> tuple[Place, Prepared]:
        """The place, and the daily physics' run with the table of rows."""
        checks.check_dataset(forcing, FORCING, "forcing", missing=False)
        check_days(forcing)
        checks.check_present(state, (THETA, CANOPY, SNOW), "state")
        if isinstance(parameters, Place):
            place = parameters
        else:
            check_cells(forcing, state, parameters)
            place = self.at(parameters)
        sizes = forcing.sizes["cell"], state.sizes["cell"], place.pores.shape[-1]
        if len(set(sizes)) > 1:
            raise VariableError("cells", expected="as many in forcing, state and parameters", found=sizes)
        for name in (THETA, CANOPY, SNOW):
            if not np.isfinite(state[name].values).all():
                raise RangeError(f"'{name}'", expected="finite", found="nan or infinite", where="state")
        return place, features.prepared(place, state, forcing, self.threads)

    def _variables(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs as variables of the diagnostics, in the table's units."""
        found: dict[str, list[np.ndarray]] = {}
        for name, value in zip(self.outputs, values, strict=True):
            output = OUTPUTS[name]
            found.setdefault(output.variable, []).append(value if output.scale == 1.0 else value / output.scale)
        layered = {name: "layer" in VARIABLES[name].dims for name in found}
        return {name: np.stack(parts, axis=1) if layered[name] else parts[0] for name, parts in found.items()}

    # --- files ------------------------------------------------------------------------------------------------------
    def files(self) -> dict[str, bytes]:
        """All it is made of: a manifest, and XGBoost's own file of every output."""
        held = {f"{name}.ubj": raw for name, raw in self.boosters.items()}
        held |= {f"safe-{name}.ubj": raw for name, raw in self.safe_boosters.items()}
        manifest = {
            "format": FORMAT,
            "version": self.version,
            "outputs": list(self.outputs),
            "safe_outputs": list(self.safe_boosters),
            "hybrid": self.hybrid,
            "features": [feature._asdict() for feature in features.FEATURES],
            "transfer": dict(zip(physics.COEFFICIENTS, self.transfer.values, strict=True)),
            "intervals": self.intervals.to_dict(),
            "envelope": self.envelope.to_dict(),
            "card": self.card,
            "sha256": {name: hashlib.sha256(raw).hexdigest() for name, raw in held.items()},
        }
        return {MANIFEST: json.dumps(manifest, indent=1).encode(), **held}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], threads: int = 0) -> Emulator:
        """What `files` gave, checked before anything runs on it.

        Raises ChecksumError for other bytes, Rejected for another format, other features, or forests that are none.
        """
        told = _manifest(files)
        for name, digest in told["sha256"].items():
            if name not in files:
                raise Rejected("emulator", expected=f"file {name}", found=", ".join(sorted(files)))
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise ChecksumError(f"file {name} of the emulator", expected=f"sha256 {digest}", found="another")
        known = [feature._asdict() for feature in features.FEATURES]
        if told["features"] != known:
            different = next(
                (str(a.get("name", a)) for a, b in zip(told["features"], known, strict=False) if a != b), ""
            )
            raise Rejected(
                "features of the emulator",
                expected=f"{len(known)}, as this version has them",
                found=f"{len(told['features'])}, the first other one {different!r}",
            )
        try:
            transfer = Transfer(tuple(float(told["transfer"][name]) for name in physics.COEFFICIENTS))
            boosters = {name: bytes(files[f"{name}.ubj"]) for name in told["outputs"]}
            safe = {name: bytes(files[f"safe-{name}.ubj"]) for name in told["safe_outputs"]}
            emulator = cls(
                Options(tuple(told["outputs"])).outputs,
                boosters,
                transfer,
                told["card"],
                Conformal.from_dict(told["intervals"]),
                Envelope.from_dict(told["envelope"]),
                bool(told["hybrid"]),
                safe,
                threads,
            )
            version, forms = emulator.version, [emulator, *filter(None, [emulator.safe])]
        except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as err:
            raise Rejected("manifest of the emulator", expected="what Emulator.files gives", found=repr(err)) from err
        if not np.isfinite(transfer.values).all():
            raise Rejected("transfer of the emulator", expected="finite coefficients", found=str(transfer.values))
        for form in forms:
            form.kernel  # noqa: B018  its forests are read and checked here, once for all
        if version != told["version"]:
            raise ChecksumError("emulator", expected=f"version {told['version']}", found=version)
        return emulator

    def save(self, path: str | Path) -> None:
        """Write the files into a folder, which is made if need be; each appears whole."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in reversed(self.files().items()):  # the manifest last: without it there is no emulator
            part = folder / f".{name}.part"
            part.write_bytes(raw)
            part.replace(folder / name)

    @classmethod
    def load(cls, path: str | Path, threads: int = 0) -> Emulator:
        """What `save` wrote; see `from_files` for what is refused."""
        folder = Path(path)
        if not (folder / MANIFEST).is_file():
            raise Rejected("emulator", expected=f"a folder with {MANIFEST}", found="none", where=str(folder))
        return cls.from_files({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}, threads)


_ABOUT = {
    MEMORY: {
        "long_name": "fading means of each day's weather, in the units of the emulator's features",
        "names": features.MEMORY_NAMES,
    },
    CORRECTION: {"units": "m3 m-3", "long_name": "emulated soil moisture less the daily physics'"},
}
_DIMS = {MEMORY: ("memory", "cell"), CORRECTION: ("layer", "cell")}


def _of_state(name: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """A variable of a state: dims, values, attributes."""
    if name in _DIMS:
        return _DIMS[name], values, _ABOUT[name]
    return tuple(dim for dim in VARIABLES[name].dims if dim != "time"), values, VARIABLES[name].attrs


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    if MANIFEST not in files:
        raise Rejected("emulator", expected=f"file {MANIFEST}", found=", ".join(sorted(files)) or "no file")
    try:
        told = json.loads(files[MANIFEST])
    except (ValueError, RecursionError) as err:
        raise Rejected("manifest of the emulator", expected="JSON", found=str(err)) from err
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else type(told).__name__
        raise Rejected("manifest of the emulator", expected=f"format {FORMAT}", found=found)
    kinds = {"sha256": dict, "features": list, "outputs": list, "safe_outputs": list, "transfer": dict, "card": dict}
    for name, kind in kinds.items():
        if not isinstance(told.get(name), kind):
            raise Rejected(
                "manifest of the emulator", expected=f"{name}, a {kind.__name__}", found=type(told.get(name)).__name__
            )
    if not all(isinstance(name, str) and name and "/" not in name for name in told["sha256"]):
        raise Rejected(
            "manifest of the emulator", expected="plain file names", found=", ".join(map(str, told["sha256"]))
        )
    wanted = {f"{name}.ubj" for name in told["outputs"]} | {f"safe-{name}.ubj" for name in told["safe_outputs"]}
    if wanted != set(told["sha256"]):
        raise Rejected(
            "manifest of the emulator", expected=f"checksums of {sorted(wanted)}", found=sorted(told["sha256"])
        )
    return told
