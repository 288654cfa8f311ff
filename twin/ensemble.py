"""Members of an ensemble: how they are drawn, and the tasks that run them, one member on one tile of cells each.

    Prior ┐
    window ├─▸ Simulation ── a task (iteration, member, tile, z) ──▸ what each sensor would see, (day, cell); states
    forcing┘

A Simulation and a task have a `key`, a digest of everything their result depends on, so that a result is known by its
content wherever it was computed, and is never computed twice. Both travel: they can be pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from twin import control, state
from twin.checks import check_present
from twin.control import Control
from twin.errors import RangeError, TwinError
from twin.grid import EARTH_RADIUS
from twin.inputs import SNOW, SOIL_TEMPERATURE, THETA
from twin.model import LandModel
from twin.operators import Operator

YEAR = 365  # days of a spin-up cycle
QUORUM = 0.9  # share of the members that must have come back from every tile
ROOT_ZONE = "root_zone_soil_moisture"


@dataclass(frozen=True)
class Lost:
    """What a map yields in place of the result of a task that could not be completed, and why."""

    reason: str


@dataclass(frozen=True)
class Window:
    """Days `first` to `last` whose observations are used together.

    Forcing from before `first` leads up to it; before that its first year is repeated `cycles` times, so that soil
    water fits the parameters. Raises RangeError for a window without a day.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    cycles: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", pd.Timestamp(self.first))
        object.__setattr__(self, "last", pd.Timestamp(self.last))
        if self.last < self.first:
            raise RangeError("window", expected="a day", found=f"{self.first.date()} to {self.last.date()}")

    @property
    def days(self) -> pd.DatetimeIndex:
        return pd.date_range(self.first, self.last)


class Forcing(Protocol):
    """Forcing by tiles, for a region too large to hold at once or to send about."""

    @property
    def key(self) -> str:
        """A digest of its content."""
        ...

    def tile(self, cells: slice) -> xr.Dataset:
        """The forcing of these cells, (time, cell), from the first day of the lead to the last of the window."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Forcing held in memory."""

    dataset: xr.Dataset

    @cached_property
    def key(self) -> str:
        return digest(self.dataset)

    def tile(self, cells: slice) -> xr.Dataset:
        return self.dataset.isel(cell=cells)


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed before the observations: parameters x_b stands for, and the state on the forcing's first day.

    parameters   of the land model, with sand and clay (cell) where they come from Cosby's pedotransfer
    control      which of it may change; by default whatever `Control.of` finds
    """

    parameters: xr.Dataset
    state: xr.Dataset
    control: Control | None = None

    @cached_property
    def key(self) -> str:
        return digest_of(digest(self.parameters), digest(self.state), repr(self.control))

    def tile(self, cells: slice) -> Prior:
        return Prior(self.parameters.isel(cell=cells), self.state.isel(cell=cells), self.control)


@dataclass(frozen=True, eq=False)
class Task:
    """One member on one tile: control vector `z` (n), fields `residual` (field, cell of the tile), and what to keep.

    keep   "predictions" of every sensor; with "ground" also the snow and, where the model has it, the temperature of
           the top layer; with "states" the root zone's water and the state after the last day
    """

    iteration: int
    realization: int
    tile: int
    cells: slice
    z: np.ndarray
    residual: np.ndarray | None = None
    keep: str = "predictions"

    @cached_property
    def key(self) -> str:
        place = f"{self.cells.start}:{self.cells.stop} {self.keep}"
        fields = b"" if self.residual is None else np.ascontiguousarray(self.residual).tobytes()
        return digest_of(place, np.ascontiguousarray(self.z, dtype=np.float64).tobytes(), fields)

    @property
    def label(self) -> dict[str, int]:
        return {"iteration": self.iteration, "member": self.realization, "tile": self.tile}


@dataclass(frozen=True, eq=False)
class Simulation:
    """A member's run: parameters from z, spin-up, lead, window; what the sensors would see of it.

    sensors   the operator of each sensor, by its name
    """

    model: LandModel
    prior: Prior
    forcing: Forcing
    window: Window
    sensors: Mapping[str, Operator]
    _tiles: dict[tuple[int, int], xr.Dataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def key(self) -> str:
        model = {name: value for name, value in sorted(vars(self.model).items()) if name not in ("threads", "map")}
        sensors = {name: repr(operator) for name, operator in sorted(self.sensors.items())}
        window = f"{self.window.first.date()} {self.window.last.date()} {self.window.cycles}"
        about = f"{self.model.name} {self.model.version} {model} {sensors} {window}"
        return digest_of(about, self.prior.key, self.forcing.key)

    def __call__(self, task: Task) -> dict[str, np.ndarray]:
        """What every sensor would see of the tile, (day, cell) float32 by its name, and `clipped`, a count of cells.

        With keep = "ground" also surface_snow_amount and soil_temperature (day, cell), with "states" also
        root_zone_soil_moisture (day, cell), and the state after the last day as `end:<name>:<dims but cell>`.
        """
        start, run, last, forcing, parameters = self.run(task)
        constants = self.control.constants(task.z)
        seen = {name: h(run, start, forcing, parameters, constants) for name, h in self.sensors.items()}
        seen["clipped"] = np.array(parameters.attrs.get("clipped", 0))
        if task.keep == "predictions":
            return seen
        if task.keep == "ground":
            return seen | _ground(run, parameters)
        wet = state.root_zone(run[THETA]).values.astype(np.float32)
        ends = {
            f"end:{name}:{' '.join(map(str, v.dims[:-1]))}": v.values.astype(np.float32)
            for name, v in last.data_vars.items()
        }
        return seen | {ROOT_ZONE: wet} | ends

    @property
    def control(self) -> Control:
        chosen = self.prior.control or Control.of(self.prior.parameters)
        return chosen.with_operators(factors_of(self.sensors))

    def run(self, task: Task) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, xr.Dataset, xr.Dataset]:
        """(state at the window's start, diagnostics, state at its end, forcing, parameters) of a member on its tile."""
        forcing = self._forcing(task.cells)
        prior = self.prior.tile(task.cells)
        window = forcing.sel(time=slice(self.window.first, self.window.last))
        damp = control.humidity(window)
        parameters = self.control.parameters(task.z, prior.parameters, damp, task.residual)
        land = fitted(prior.state, prior.parameters, parameters)
        year = forcing.isel(time=slice(0, min(YEAR, forcing.sizes["time"])))
        for _ in range(self.window.cycles):
            land, _ = self.model.run(land, year, parameters)
        lead = forcing.sel(time=slice(None, self.window.first - pd.Timedelta(days=1)))
        if lead.sizes["time"]:
            land, _ = self.model.run(land, lead, parameters)
        end, run = self.model.run(land, window, parameters)
        return land, run, end, window, parameters

    def _forcing(self, cells: slice) -> xr.Dataset:
        """The forcing of a tile; the last one is kept, as its members follow each other."""
        at = (cells.start, cells.stop)
        found = self._tiles.get(at)
        if found is None:
            found = self.forcing.tile(cells)
            check_present(found, ("time", "lat", "lon"), "forcing")
            days = pd.DatetimeIndex(found["time"].values).normalize()
            if days[0] > self.window.first or days[-1] < self.window.last:
                window = f"{self.window.first.date()} to {self.window.last.date()}"
                raise RangeError(
                    "forcing of the window", expected=window, found=f"{days[0].date()} to {days[-1].date()}"
                )
            self._tiles.clear()
            self._tiles[at] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tiles": {}}


def _ground(run: xr.Dataset, parameters: xr.Dataset) -> dict[str, np.ndarray]:
    """What may keep a sensor from seeing the soil: snow, frost; (day, cell) float32."""
    snow = run[SNOW]
    if "tile" in snow.dims:
        snow = (snow * parameters["tile_fraction"]).sum("tile")
    ground = {SNOW: snow.values.astype(np.float32)}
    if SOIL_TEMPERATURE in run:
        ground[SOIL_TEMPERATURE] = run[SOIL_TEMPERATURE].isel(layer=0).values.astype(np.float32)
    return ground


def factors_of(sensors: Mapping[str, Operator]) -> tuple[control.Factor, ...]:
    """The factors of all operators; sensors that observe alike share theirs."""
    return tuple(dict.fromkeys(factor for name in sorted(sensors) for factor in sensors[name].factors))


def tiles(cells: int, size: int) -> list[slice]:
    """Consecutive slices of about `size` cells that cover `cells`, as equal as can be."""
    count = max(1, -(-cells // size))
    edges = np.linspace(0, cells, count + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def draw(rng: np.random.Generator, members: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Members (realization, n) whose sample mean and covariance are the given ones exactly, if there are more than n+1.

    Second-order exact sampling (Pham 2001, Mon. Wea. Rev. 129, 1194). With fewer members only the mean is exact.
    """
    n = mean.size
    raw = rng.standard_normal((members, n))
    raw -= raw.mean(axis=0)
    if members > n + 1:
        q, _ = np.linalg.qr(raw)
        signs = np.sign((q * raw).sum(axis=0))  # a decomposition may come with either sign
        raw = q * np.where(signs == 0.0, 1.0, signs) * np.sqrt(members - 1)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return mean + raw @ root


def fields(
    rng: np.random.Generator, members: int, kinds: int, lat: np.ndarray, lon: np.ndarray, length: float
) -> np.ndarray:
    """Gaussian random fields (realization, kind, cell), standard normal, that decorrelate over `length` km.

    Sums of 200 plane waves on the sphere's chords, their vectors normal with standard deviation 1/length: covariance
    exp(−r²/2 length²) (random Fourier features, Rahimi & Recht 2007).
    """
    waves = 200
    up, east = np.deg2rad(lat), np.deg2rad(lon)
    place = EARTH_RADIUS * np.stack([np.cos(up) * np.cos(east), np.cos(up) * np.sin(east), np.sin(up)])
    out = np.empty((members, kinds, lat.size), np.float32)
    for i in range(members):
        for k in range(kinds):
            vectors = rng.standard_normal((waves, 3)) / length
            phase = rng.uniform(0.0, 2.0 * np.pi, waves)[:, None]
            amplitude = rng.standard_normal(waves) * np.sqrt(2.0 / waves)
            out[i, k] = amplitude @ np.cos(vectors @ place + phase)
    return out


def fitted(start: xr.Dataset, old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    """A state for other parameters: each layer as far between wilting point and saturation as it was."""
    theta = start[THETA].transpose("layer", "cell").values
    (low, high), (to_low, to_high) = (
        tuple(
            np.atleast_2d(ds[name].transpose("layer", "cell", missing_dims="ignore").values)
            for name in ("theta_w", "theta_s")
        )
        for ds in (old, new)
    )
    share = (theta - low) / (high - low)
    wet = np.where(share >= 0.0, to_low + share * (to_high - to_low), theta / low * to_low)
    return start.assign({THETA: (("layer", "cell"), np.clip(wet, 1e-4, to_high), start[THETA].attrs)})


def check_quorum(kept: Sequence[int], members: Sequence[int], reasons: Sequence[str]) -> None:
    """Refuse an ensemble of which fewer than QUORUM of the members came back from every tile."""
    if len(kept) < QUORUM * len(members):
        why = f"; the first: {reasons[0]}" if reasons else ""
        found = f"{len(kept)} of {len(members)}{why}"
        raise TwinError("members complete on every tile", expected=f"at least {QUORUM:.0%}", found=found)


def digest(ds: xr.Dataset) -> str:
    """A digest of the values, dims and attributes of a Dataset."""
    found = hashlib.blake2b(digest_size=20)
    for name in sorted(map(str, ds.variables)):
        variable = ds.variables[name]
        found.update(f"{name} {variable.dims} {variable.dtype} {variable.shape}".encode())
        values = np.ascontiguousarray(variable.values)
        found.update(repr(values.tolist()).encode() if values.dtype.kind in "OUT" else values.tobytes())
    found.update(repr(sorted((str(k), repr(v)) for k, v in ds.attrs.items() if not isinstance(v, xr.Dataset))).encode())
    return found.hexdigest()


def digest_of(*parts: str | bytes) -> str:
    """A digest of texts and bytes, in this order."""
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
