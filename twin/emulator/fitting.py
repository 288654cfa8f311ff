"""How an emulator is trained: rows drawn from the runs, a booster an output, intervals from places it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
import xgboost as xgb

from twin.conformal import Conformal, regimes
from twin.emulator import physics
from twin.emulator.envelope import Envelope
from twin.emulator.features import FEATURES, GROUPS, NAMES, Place, prepared
from twin.emulator.forest import Forest
from twin.emulator.kernel import Kernel
from twin.emulator.outputs import OUTPUTS, SOIL_MOISTURE, base_of, target
from twin.emulator.physics import Transfer
from twin.errors import RangeError, SettingsError
from twin.inputs import THETA

RISING = ("precipitation", "wet_day", "physics_theta", "physics_runoff")  # wetter soil with more of it: `safe`
FALLING = ("reference_evapotranspiration", "vapour_pressure_deficit", "sunlight")
TOGETHER = (  # taken together for the envelope: climate, weather and soil
    "precipitation_365d",
    "reference_evapotranspiration_365d",
    "air_temperature_30d",
    "vapour_pressure_deficit_5d",
    "theta_s",
    "log_K_s",
)
FOLLOWED = 400  # cells that the daily physics is fitted to
THREADS = 2  # of training, the same everywhere: histograms are added up in an order that depends on it
_REGIME = (
    "precipitation_365d",
    "reference_evapotranspiration_365d",
    "precipitation_30d",
    "reference_evapotranspiration_30d",
)


@dataclass(frozen=True)
class Options:
    """How an emulator is made.

    outputs     of OUTPUTS, those of soil moisture first
    trees       of each output, and their depth, at most 6 for the fastest kernel
    rate        what a tree is weighed with
    rows        most days of cells to train on, drawn from all there are
    least       fewest rows of a leaf, as their hessian
    hybrid      whether trees correct the daily physics, or say all of it
    without     groups of features that the trees do not see, of "rain", "heat", "state", "soil" and "leaves"
    fitted      whether the daily physics is fitted to the runs first, or taken for what the surface types say
    level       of the intervals
    safe        whether there is a variant too that more rain never dries, nor more demand wets
    """

    outputs: tuple[str, ...] = SOIL_MOISTURE
    trees: int = 80
    depth: int = 6
    rate: float = 0.18
    rows: int = 500_000
    least: float = 20.0
    hybrid: bool = True
    without: tuple[str, ...] = ()
    fitted: bool = True
    level: float = 0.9
    safe: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or self.outputs[: len(SOIL_MOISTURE)] != SOIL_MOISTURE:
            expected = f"{', '.join(SOIL_MOISTURE)}, then any of {', '.join(OUTPUTS)}"
            raise SettingsError("outputs of the emulator", expected=expected, found=", ".join(self.outputs))
        if not set(self.without) < set(GROUPS):
            raise SettingsError(
                "features without", expected=f"some of {', '.join(GROUPS)}", found=", ".join(self.without)
            )
        for name, low, high in (("trees", 1, 2000), ("depth", 1, 12), ("rows", 1000, 100_000_000)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"{name} of the emulator", expected=f"{low} to {high}", found=getattr(self, name))


@dataclass(frozen=True, eq=False)
class Run:
    """A run of the model to be learnt, of some locations under one climate.

    state, forcing, parameters   as the model took them, daily forcing
    truth                        its diagnostics, of every day
    location                     (cell) which location each cell is, the same in all runs
    role                         train, calibrate or test
    climate                      in words
    """

    state: xr.Dataset
    forcing: xr.Dataset
    parameters: xr.Dataset
    truth: xr.Dataset
    location: np.ndarray
    role: str = "train"
    climate: str = "unchanged"

    def part(self, cells: slice | np.ndarray) -> Run:
        """Some of its cells."""
        state, forcing, parameters, truth = (
            ds.isel(cell=cells) for ds in (self.state, self.forcing, self.parameters, self.truth)
        )
        return Run(state, forcing, parameters, truth, self.location[cells], self.role, self.climate)

    @property
    def case(self) -> physics.Case:
        theta = self.truth[THETA].transpose("time", "layer", "cell").values
        return physics.Case(self.state, self.forcing, self.parameters, theta)


@dataclass(frozen=True, eq=False)
class Training:
    """Runs to train and calibrate on, and the manifest: what they are a function of, as plain JSON.

    skip   first days of a run that do not count: the start is not the model's own yet
    """

    runs: Sequence[Run]
    manifest: Mapping[str, Any]
    skip: int = 90

    def of(self, role: str) -> list[Run]:
        return [run for run in self.runs if run.role == role]


def fit(training: Training, options: Options) -> dict[str, Any]:
    """What an `Emulator` is made of, by the names of its fields; see `Emulator.fit`."""
    runs, held = training.of("train"), training.of("calibrate")
    if not runs or not held:
        found = f"{len(runs)} and {len(held)}"
        raise RangeError("runs to train and to calibrate on", expected="at least one of each", found=found)
    transfer = physics.fit(_followed(runs, training.skip), skip=training.skip) if options.fitted else Transfer()
    rows = _drawn(runs, transfer, options, training.skip)
    boosters = _boosters(rows, options, options.hybrid)
    check = _drawn(held, transfer, options, training.skip)
    intervals = _calibrated(boosters, check, options, options.hybrid)
    some = rows.features[:: max(1, len(rows.features) // 100_000)]
    card = {
        "manifest": dict(training.manifest),
        "options": {**asdict(options), "outputs": list(options.outputs), "without": list(options.without)},
        "locations": {"train": _places(runs), "calibrate": _places(held)},
        "rows": {"train": len(rows.features), "calibrate": len(check.features)},
        "transfer": dict(zip(physics.COEFFICIENTS, transfer.values, strict=True)),
        "importance": importance(boosters),
    }
    made = {
        "outputs": options.outputs,
        "boosters": boosters,
        "transfer": transfer,
        "intervals": intervals,
        "envelope": Envelope.fit(some, NAMES, TOGETHER),
        "hybrid": options.hybrid,
    }
    if options.safe:
        safe = _boosters(rows, options, False, SOIL_MOISTURE, monotone=True)
        card["safe_intervals"] = _calibrated(safe, check, options, False).to_dict()
        made["safe_boosters"] = safe
    return {**made, "card": card}


@dataclass(frozen=True, eq=False)
class Rows:
    """Days of cells that were drawn: features (row, feature), truth (row, output), and the location of each (row)."""

    features: np.ndarray
    truth: np.ndarray
    location: np.ndarray


def _followed(runs: Sequence[Run], skip: int) -> list[physics.Case]:
    """Some hundreds of cells of the runs, evenly, for the daily physics to follow."""
    cells = sum(run.location.size for run in runs)
    every = max(1, cells // FOLLOWED)
    return [run.part(slice(None, None, every)).case for run in runs]


def rows_of(
    runs: Iterable[Run], transfer: Transfer, outputs: Sequence[str], skip: int = 0
) -> Iterator[tuple[Run, np.ndarray, np.ndarray]]:
    """Each run with its rows (time, cell, feature) and truth (output, time, cell), the first `skip` days left out."""
    for run in runs:
        place = Place.of(run.parameters, transfer)
        table = prepared(place, run.state, run.forcing).table
        days, cells = run.forcing.sizes["time"], run.forcing.sizes["cell"]
        matrix = table.matrix().reshape(days, cells, len(NAMES))
        truth = np.stack([target(name, run.truth, run.parameters) for name in outputs])
        yield run, matrix[skip:], truth[:, skip:]


def _drawn(runs: Sequence[Run], transfer: Transfer, options: Options, skip: int) -> Rows:
    """At most `options.rows` days of cells, each as likely as any other."""
    total = sum(max(run.forcing.sizes["time"] - skip, 0) * run.location.size for run in runs)
    if total == 0:
        raise RangeError("days to learn from", expected=f"more than {skip} in a run", found="none")
    rng = np.random.default_rng(options.seed)
    share, parts = min(1.0, options.rows / total), []
    for run, matrix, truth in rows_of(runs, transfer, options.outputs, skip):
        day, cell = np.nonzero(rng.random(matrix.shape[:2]) < share)
        parts.append((matrix[day, cell], truth[:, day, cell].T, run.location[cell]))
    columns = zip(*parts, strict=True)
    return Rows(*(np.concatenate(column) for column in columns))


def _boosters(
    rows: Rows, options: Options, hybrid: bool, outputs: Sequence[str] = (), monotone: bool = False
) -> dict[str, bytes]:
    """A booster of each output, all cut from one quantile sketch so that they share their thresholds."""
    settings = {
        "tree_method": "hist",
        "max_bin": 255,  # no more thresholds a feature than the kernel ranks in eight bits
        "max_depth": options.depth,
        "eta": options.rate,
        "min_child_weight": options.least,
        "seed": options.seed,
        "nthread": THREADS,
    }
    if monotone:
        settings["monotone_constraints"] = str(tuple(map(_sign, NAMES)))
    unseen = [k for k, feature in enumerate(FEATURES) if feature.group in options.without]
    seen = np.array(rows.features, np.float32, order="C")
    seen[:, unseen] = 0.0  # nothing to split at
    data = xgb.QuantileDMatrix(seen, max_bin=255, nthread=THREADS, feature_names=list(NAMES))
    found = {}
    for name in outputs or options.outputs:
        truth, base = rows.truth[:, options.outputs.index(name)], base_of(name, hybrid)
        data.set_info(label=truth - rows.features[:, base] if base >= 0 else truth)
        found[name] = bytes(xgb.train(settings, data, options.trees).save_raw("ubj"))
    return found


def _sign(name: str) -> int:
    if name.startswith(RISING):
        return 1
    return -1 if name.startswith(FALLING) else 0


def _calibrated(boosters: Mapping[str, bytes], held: Rows, options: Options, hybrid: bool) -> Conformal:
    kernel = Kernel([Forest.parse(raw, NAMES) for raw in boosters.values()])
    error = kernel.predict(held.features).astype(np.float64)
    for k, name in enumerate(boosters):
        if (base := base_of(name, hybrid)) >= 0:
            error[:, k] += held.features[:, base]
        error[:, k] -= held.truth[:, options.outputs.index(name)]
    return Conformal.calibrate(error, held.location, regimes_of(held.features), tuple(boosters), options.level)


def regimes_of(rows: np.ndarray) -> np.ndarray:
    """The regime of each row (row, feature), from its memories of rain and demand."""
    return regimes(*(rows[:, NAMES.index(name)] for name in _REGIME))


def importance(boosters: Mapping[str, bytes]) -> dict[str, dict[str, dict[str, float]]]:
    """{output: {groups, features: {name: share}}} of the loss that an output's trees took away; each adds up to one.

    What a feature tells that another tells too goes to whichever was asked first: `explain` shares it out.
    """
    found, group = {}, {feature.name: feature.group for feature in FEATURES}
    for name, raw in boosters.items():
        gain: dict[str, Any] = dict(xgb.Booster(model_file=bytearray(raw)).get_score(importance_type="total_gain"))
        total = sum(gain.values()) or 1.0
        features = {str(column): float(value / total) for column, value in sorted(gain.items(), key=lambda g: -g[1])}
        groups = {one: sum(v for column, v in features.items() if group[column] == one) for one in GROUPS}
        found[name] = {"groups": groups, "features": features}
    return found


def _places(runs: Sequence[Run]) -> int:
    return int(np.unique(np.concatenate([run.location for run in runs])).size)
