"""What an emulator learns from: which locations, under which climates and soils, and the runs of the land model there.

    all cells ─roles by blocks─▸ train │ calibrate │ test ─sample─▸ locations ─members─▸ runs of the sub-daily model

Locations cover what places there are (aridity, texture, vegetation, temperature), not the map. Each runs under its own
weather with its own soil, and again under another climate with soil and leaves drawn from what they may be: so the
emulator can stand in for the model where assimilation changes the soil, and for weather nobody has seen. No block of
the map holds locations of two roles: what is scored is far from what was learnt.

Refs: Lloyd (1982), IEEE Trans. Inf. Theory 28, 129 (k-means); Roberts et al. (2017), Ecography 40, 913 (blocks).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from scipy.cluster.vq import kmeans2

from twin import state
from twin.control import Control, humidity
from twin.emulator.features import MEMORIES, means
from twin.emulator.fitting import Run, Training
from twin.emulator.outputs import OUTPUTS
from twin.emulator.physics import Surface
from twin.ensemble import Forcing, digest, digest_of
from twin.errors import RangeError
from twin.inputs import THETA
from twin.land import Land
from twin.model import LandModel
from twin.scenarios import Delta
from twin.variables import VARIABLES

ROLES = ("train", "calibrate", "test")
HELD_OUT = {"calibrate": 0.15, "test": 0.15}  # share of the blocks
BLOCK = 5.0  # degrees; halved where a region would have fewer than BLOCKS of them
BLOCKS = 20
TILE = 20  # locations of one run: each is one more draw of climate and soil
SPIN_UP = 4  # times the first year, at most
WARMING, RAIN = (-1.0, 5.0), (0.5, 1.5)  # of the other climates: K, factor
CARBON_DIOXIDE = (330e-6, 1000e-6)
HOT = Delta(rain=0.8, temperature=3.0)  # the climate that is only tested on


def sub_daily(outputs: Sequence[str], threads: int | None = None) -> Land:
    """The model an emulator stands in for, told to give these outputs."""
    wanted = {OUTPUTS[name].variable for name in outputs}
    fluxes = tuple(sorted(name for name in wanted if name.endswith(("_flux", "_carbon"))))
    return Land("3h", precision="single", output="1D", fluxes=fluxes, threads=threads)


def roles(lat: np.ndarray, lon: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The role of every cell, (cell) of ROLES, by whole blocks of BLOCK degrees, smaller ones in a small region.

    Raises RangeError for a region whose cells lie in fewer than three blocks of any size.
    """
    size = BLOCK
    while True:
        _, block = np.unique(np.stack([np.floor(lat / size), np.floor(lon / size)]), axis=1, return_inverse=True)
        block = block.ravel()
        number = int(block.max(initial=-1)) + 1
        if number >= BLOCKS or size < 0.05:
            break
        size /= 2.0
    if number < len(ROLES):
        raise RangeError("places to train, calibrate and test on", expected="three apart, or more", found=number)
    order, chosen, first = rng.permutation(number), np.full(number, ROLES[0], object), 0
    for name, share in HELD_OUT.items():
        last = first + max(1, round(share * number))
        chosen[order[first:last]] = name
        first = last
    return chosen[block]


def sample(
    parameters: xr.Dataset, climate: xr.Dataset, size: int, rng: np.random.Generator, among: np.ndarray | None = None
) -> np.ndarray:
    """Locations that stand for all: indices of `size` cells, ascending, all of them where there are no more.

    climate   mean air_temperature (K) and precipitation, and reference_evapotranspiration, in one unit, (cell)
    among     indices to choose from, by default all
    The nearest cell to each centre of k-means in aridity (as logarithm), sand, clay, leaf area, trees, temperature.
    """
    among = np.arange(parameters.sizes["cell"]) if among is None else np.asarray(among)
    if size >= among.size:
        return np.sort(among)
    surface = Surface.of(parameters.isel(cell=among))
    some = climate.isel(cell=among)
    aridity = some["precipitation"] / np.maximum(some["reference_evapotranspiration"], 1e-9)
    soil = np.log(parameters["K_s"].transpose("layer", "cell", missing_dims="ignore").values)
    pores = parameters["theta_s"].transpose("layer", "cell", missing_dims="ignore").values
    columns = np.stack(
        [
            np.log(np.clip(aridity.values, 0.01, 5.0)),
            some["air_temperature"].values / 10.0,
            np.atleast_2d(soil)[0, among],
            np.atleast_2d(pores)[0, among] * 20.0,
            surface.leaf_area_index,
            surface.types[0] * 3.0,
        ],
        axis=1,
    )
    scaled = (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-9)
    first = _spread(scaled, size, rng)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of centres that nobody is nearest to
        centres, which = kmeans2(scaled, first, iter=10, minit="matrix")
    away = ((scaled - centres[which]) ** 2).sum(axis=1)
    order = np.lexsort((away, which))
    nearest = order[np.unique(which[order], return_index=True)[1]]
    left = np.setdiff1d(np.arange(among.size), nearest)  # such a centre is replaced by any cell
    return np.sort(among[np.concatenate([nearest, rng.choice(left, size - nearest.size, replace=False)])])


def _spread(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Points to start k-means from, each chosen by its squared distance from those before it.

    Ref: Arthur & Vassilvitskii (2007), SODA, 1027 (k-means++).
    """
    found = [int(rng.integers(len(points)))]
    away = ((points - points[found[0]]) ** 2).sum(axis=1)
    for _ in range(size - 1):
        total = np.cumsum(away)
        found.append(min(int(np.searchsorted(total, rng.random() * total[-1])), len(points) - 1))
        away = np.minimum(away, ((points - points[found[-1]]) ** 2).sum(axis=1))
    return points[found]


def climate_of(forcing: xr.Dataset) -> xr.Dataset:
    """What `sample` asks of a climate, from daily forcing: means over its days, kg m-2 day-1 and K."""
    mean = dict(zip([m.of for m in MEMORIES], means(forcing), strict=True))
    wanted = ("precipitation", "reference_evapotranspiration", "air_temperature")
    return xr.Dataset({name: ("cell", mean[name]) for name in wanted})


@dataclass(frozen=True, eq=False)
class Member:
    """One run: which of the chosen locations, their role, under which climate, and the control vector of their soil.

    z   (n) as `twin.control.Control` has it; None for the soil as it is
    """

    index: int
    cells: slice
    role: str
    delta: Delta = field(default_factory=Delta)
    z: np.ndarray | None = None

    @cached_property
    def key(self) -> str:
        drawn = b"" if self.z is None else np.ascontiguousarray(self.z, np.float64).tobytes()
        return digest_of(f"{self.cells.start}:{self.cells.stop} {sorted(self.delta.identity.items())}", drawn)

    @property
    def label(self) -> dict[str, int]:
        return {"member": self.index, "tile": self.cells.start}


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Runs of a land model at the chosen locations; as a task, a pure function of a member.

    parameters   with surface types, of the chosen locations; with sand and clay where Cosby's constants may change
    forcing      daily, of the chosen locations
    location     (cell) what each is called; role (cell) of ROLES, of one role side by side
    outputs      what is kept
    """

    model: LandModel
    parameters: xr.Dataset
    forcing: Forcing
    location: np.ndarray
    role: np.ndarray
    outputs: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        model = {name: value for name, value in sorted(vars(self.model).items()) if name not in ("threads", "map")}
        about = f"{self.model.name} {self.model.version} {model} {self.outputs} {SPIN_UP}"
        return digest_of(about, digest(self.parameters), self.forcing.key)

    def members(self, rng: np.random.Generator, drawn: int = 1) -> list[Member]:
        """The runs: all locations as they are, and again under another climate.

        Those to train, `drawn` times, with other soil and leaves too; those to calibrate with their own; those to test
        under HOT, which is nobody else's.
        """
        found: list[Member] = []
        for role in ROLES:
            at = np.flatnonzero(self.role == role)
            if not at.size:
                continue
            if at.size != at[-1] - at[0] + 1:
                raise RangeError("locations of one role", expected="side by side", found="others between them")
            for first in range(int(at[0]), int(at[-1]) + 1, TILE):
                cells = slice(first, min(first + TILE, int(at[-1]) + 1))
                found.append(Member(len(found), cells, role))
                if role == "test":
                    found.append(Member(len(found), cells, role, HOT))
                    continue
                control = Control.of(self.parameters.isel(cell=cells))
                for _ in range(drawn if role == "train" else 1):
                    delta = Delta(
                        rain=round(float(rng.uniform(*RAIN)), 3),
                        temperature=round(float(rng.uniform(*WARMING)), 3),
                        carbon_dioxide=round(float(rng.uniform(*CARBON_DIOXIDE)), 7),
                    )
                    z = rng.standard_normal(control.size) if role == "train" else None
                    found.append(Member(len(found), cells, role, delta, z))
        return found

    def inputs(self, member: Member) -> tuple[xr.Dataset, xr.Dataset]:
        """(forcing, parameters) of a member."""
        forcing = member.delta.apply(self.forcing.tile(member.cells))
        parameters = self.parameters.isel(cell=member.cells)
        if member.z is not None:
            control = Control.of(parameters)
            parameters = control.parameters(member.z, parameters, humidity(forcing))
        return forcing, parameters

    def __call__(self, member: Member) -> dict[str, np.ndarray]:
        """What the model made of a member: `truth:<name>` and `start:<name>`, float32, each with its dims in the name.

        The start is where the first year leads when it is repeated.
        """
        forcing, parameters = self.inputs(member)
        year = forcing.isel(time=slice(0, min(365, forcing.sizes["time"])))
        warmth = year["air_temperature"].mean("time", dtype="float64")
        start = state.spin_up(self.model, state.initial(parameters, temperature=warmth), year, parameters, SPIN_UP)
        start = start.map(lambda v: v.astype(np.float32).astype(np.float64), keep_attrs=True)
        _, run = self.model.run(start, forcing, parameters)
        kept = run[sorted({OUTPUTS[name].variable for name in self.outputs} & set(run.data_vars))]
        return {**_arrays("truth", kept), **_arrays("start", start)}

    def run(self, member: Member, arrays: Mapping[str, np.ndarray]) -> Run:
        """A member and what `__call__` made of it, as a run to learn from."""
        forcing, parameters = self.inputs(member)
        truth, start = _dataset("truth", arrays), _dataset("start", arrays)
        start[THETA] = start[THETA].astype(np.float64)
        return Run(start, forcing, parameters, truth, self.location[member.cells], member.role, member.delta.label)

    def training(
        self, members: Sequence[Member], results: Sequence[Mapping[str, np.ndarray]], manifest: Mapping[str, Any]
    ) -> Training:
        """All runs, with the manifest of what they are a function of."""
        return Training([self.run(m, r) for m, r in zip(members, results, strict=True)], manifest)


def _arrays(kind: str, ds: xr.Dataset) -> dict[str, np.ndarray]:
    return {f"{kind}:{name}:{' '.join(map(str, v.dims))}": v.values.astype(np.float32) for name, v in ds.items()}


def _dataset(kind: str, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    found = {}
    for key, values in arrays.items():
        if key.startswith(f"{kind}:"):
            _, name, dims = key.split(":")
            found[name] = (tuple(dims.split()), values, VARIABLES[name].attrs)
    return xr.Dataset(found)
