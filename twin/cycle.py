"""One window of assimilation, as a pure function: prior, forcing and observations in, an analysis out.

    observations ─gates─▸ kept ─┐
    prior ─draw─▸ members ─map─▸ Y, d ─▸ sums ─step─▸ x ─▸ J as predicted? ─▸ fields, patch by patch ─▸ members, states
            ▴───────────────────── members about x ◂──────────── no

Stage 1 estimates what is the same everywhere, in outer loops that keep the prior where it is. Stage 2 estimates fields
of what differs from place to place; a patch takes its field only if observations that were withheld agree. Errors are
estimated along the way: how much they are correlated in time, how far a sensor and the model are apart at a cell, how
much parameters differ between places; the retrievals themselves are never changed.

Refs: Pinnington et al. (2020), Geosci. Model Dev. 13, 55; Hunt et al. (2007), Physica D 230, 112 (R-localisation);
Desroziers et al. (2005), Q. J. R. Meteorol. Soc. 131, 3385.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np
import xarray as xr

from twin import fourdenvar, scores
from twin import observations as obs
from twin.control import RESIDUAL, humidity
from twin.ensemble import (
    ROOT_ZONE,
    Forcing,
    Held,
    Lost,
    Prior,
    Simulation,
    Task,
    Window,
    check_quorum,
    draw,
    fields,
    tiles,
)
from twin.errors import TwinError, VariableError
from twin.grid import EARTH_RADIUS
from twin.inputs import SNOW, SOIL_TEMPERATURE
from twin.model import LandModel
from twin.observations import Observations
from twin.operators import operator

Map = Callable[..., Iterable[Any]]
LARGEST_OFFSET = 0.15  # of soil moisture, m3 m-3: beyond it a sensor and the model do not see the same thing
NEAR = 0.1  # a predicted J is believed if it missed by less than this share of the fall
FAR = 3.0  # standard deviations of the prior beyond which a linear step is not believed
FARTHEST = 4.0  # and beyond which an analysis is not
REJECTED = 0.05  # share of the observations the background check may refuse
CLIPPED = 0.5  # share of the cells whose soil may be kept back by a bound
WORSE = 1.02  # times the error of the open loop that withheld observations may show
PATCH, LENGTH = 150.0, 200.0  # km: size of what has one field weight, and distance over which residuals decorrelate
SETTLED = 1.2  # ratio within which an estimate of errors counts as unchanged
CHECKS = 2  # loops that begin with the background check: the prior's members are too wide to tell every outlier
ROUNDS = 1  # of bringing the members to where they fit
FIRST_AMPLITUDE = 0.5  # of the fields that are tried, in standard deviations of RESIDUAL
LEAST_AMPLITUDE = 0.2  # times that: below it places do not differ enough to be told apart
BIOMES = ("arid", "semi-arid", "humid")  # by P/E_0 below 0.2, below 0.5 and above (UNEP 1997)


@dataclass(frozen=True)
class Options:
    """How a window is assimilated.

    members    of the ensemble; more than control variables plus two
    tile       cells of one task
    loops      most steps of stage 1
    sample     cells on which it begins, in a region of more than twice as many
    withheld   share of the observations, whole months of a cell, that are kept back to judge by
    residual   whether stage 2 is tried
    offset     standard deviation of the offset between a sensor and the model at a cell, by sensor, where it is known;
               it is estimated where not
    inflation  α on the variance of the errors by sensor where it is known; estimated where not
    """

    members: int = 50
    tile: int = 400
    loops: int = 6
    sample: int = 8000
    withheld: float = 0.1
    residual: bool = True
    offset: Mapping[str, float] = field(default_factory=dict)
    inflation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was learnt from a window; `accepted` is False, with `reasons`, where the previous one had better stay.

    z, covariance   the control vector (n) and its covariance (n, n), in standard deviations of the prior
    residual        fields of stage 2, (field, cell), zero where none was accepted
    parameters      of the land model at z, (…, cell)
    members         control vectors of the posterior ensemble (realization, n), and the fields of each, (realization,
    residuals       field, cell), None where stage 2 found nothing
    states          of the window and the members: `root_zone_soil_moisture` (time, cell), the analysis',
                    `…_mean`, `…_spread`, `…_low`, `…_high` (5 and 95 %) of the members, and `end:<state>`
                    (realization, …, cell) after the last day, the analysis first, then the members
    diagnostics     plain numbers and lists, for a journal
    predicted       by sensor: H of the analysis at the observations kept and withheld, with the open loop's beside it
    """

    accepted: bool
    reasons: tuple[str, ...]
    z: np.ndarray
    covariance: np.ndarray
    residual: np.ndarray | None
    parameters: xr.Dataset
    members: np.ndarray
    residuals: np.ndarray | None
    states: xr.Dataset
    diagnostics: dict[str, Any]
    predicted: dict[str, xr.Dataset]


def assimilate(
    model: LandModel,
    prior: Prior,
    forcing: xr.Dataset | Forcing,
    observations: Observations | Sequence[Observations],
    window: Window,
    rng: np.random.Generator,
    map: Map = builtins.map,
    options: Options | None = None,
) -> Analysis:
    """The analysis of a window.

    prior         parameters, and the state on the first day of the forcing
    forcing       daily means (time, cell) through the last day of the window, its lead before it
    observations  of each sensor, `day` counted from the first of the window; screened here, nothing is dropped untold
    map           calls a function on every task as the builtin does; may yield `Lost` for what cannot be done
    Without any usable observation the analysis is the prior and its ensemble, not accepted, and says why. Raises
    TwinError if too few members come back, RangeError if the background check refuses too many observations, and what
    the model raises.
    """
    options = options or Options()
    given = [observations] if isinstance(observations, Observations) else list(observations)
    names = [each.sensor for each in given]
    if len(set(names)) < len(names):
        raise VariableError("sensors", expected="each once", found=", ".join(names))
    held = cast(Forcing, Held(forcing) if isinstance(forcing, xr.Dataset) else forcing)
    sensors = {each.sensor: operator(each.variable, each.local_time) for each in given}
    simulation = Simulation(model, prior, held, window, sensors)
    work = _Work(simulation, map, prior.parameters.sizes["cell"], options)
    known = [_Known.of(each, options, rng) for each in given]
    return _Cycle(simulation, work, known, rng, options).analysis()


# ------------------------------------------------------------------------------------------------------ what is known
@dataclass(eq=False)
class _Known:
    """The observations of one sensor during the analysis: which count, and the errors they are thought to have."""

    observations: Observations
    withheld: np.ndarray  # bool (p)
    alpha: float
    offset: float  # standard deviation
    screenings: list[obs.Screening]
    value: np.ndarray  # (p) to fit, and their errors: those given but near the lowest value that passes the gate
    error: np.ndarray
    lowest: int  # how many are not above that

    @classmethod
    def of(cls, given: Observations, options: Options, rng: np.random.Generator) -> _Known:
        seed = int(rng.integers(2**31))
        return cls(
            given,
            obs.hold_out(given, options.withheld, seed),
            options.inflation.get(given.sensor, 1.0),
            options.offset.get(given.sensor, 0.0),
            [],
            given.value,
            given.error,
            int((given.value <= obs.RULES[given.variable].low).sum()),
        )

    @property
    def sensor(self) -> str:
        return self.observations.sensor

    @property
    def used(self) -> np.ndarray:
        return ~self.withheld

    def keep(self, which: np.ndarray) -> None:
        """Go on with those only."""
        self.observations, self.withheld = self.observations.select(which), self.withheld[which]
        self.value, self.error = self.observations.value, self.observations.error

    def within(self, which: np.ndarray) -> _Known:
        """Those of a sample, by themselves."""
        lowest = round(self.lowest * float(which.mean())) if which.size else 0
        kept = (self.observations.select(which), self.withheld[which], self.alpha, self.offset, list(self.screenings))
        return _Known(*kept, self.value[which], self.error[which], lowest)

    def fit(self, predicted: np.ndarray) -> np.ndarray:
        """Innovations (p), of values and errors that allow for what the gate cut off below."""
        o, low = self.observations, obs.RULES[self.observations.variable].low
        self.value, self.error = o.value, o.error
        for _ in range(3 if self.below else 0):  # what was cut off and the offsets depend on each other
            expected = predicted + self._offsets(self.value - predicted)
            self.value, self.error = obs.untruncated(o.value, o.error, expected, low, self.below)
        return self.value - predicted

    def _offsets(self, d: np.ndarray) -> np.ndarray:
        """The most likely offset of the cell of each observation (p)."""
        _, group, count = np.unique(self.observations.cell, return_inverse=True, return_counts=True)
        mean, noise = np.bincount(group, d) / count, self.alpha * np.bincount(group, self.error**2) / count**2
        return (mean * self.offset**2 / (self.offset**2 + noise))[group]

    @property
    def below(self) -> int:
        """How many the gate refused for values too low."""
        return min(self.screenings[0].rejected["range"], self.lowest)

    def estimate(self, d: np.ndarray, mean_spread: np.ndarray, options: Options) -> bool:
        """Estimate α and the offset from the innovations (p); whether either moved much.

        mean_spread   variance of the cells' mean innovation that the ensemble explains, (k) by cell in their order
        """
        before = self.alpha, self.offset
        used, cell, error = self.used, self.observations.cell, self.error
        if self.sensor not in options.inflation:
            self.alpha = obs.inflation(d[used], cell[used], self.observations.day[used])
        if self.sensor not in options.offset and used.any():
            self.offset = _offset(d[used], self.alpha * error[used] ** 2, cell[used], mean_spread)
        moved = [max(a, b, 1e-3) / max(min(a, b), 1e-3) for a, b in zip(before, (self.alpha, self.offset), strict=True)]
        return max(moved) > SETTLED


def _offset(d: np.ndarray, variance: np.ndarray, cell: np.ndarray, explained: np.ndarray) -> float:
    """Standard deviation of the cells' offsets: what their mean innovations vary by beyond noise and ensemble."""
    _, group, count = np.unique(cell, return_inverse=True, return_counts=True)
    mean = np.bincount(group, d) / count
    noise = np.bincount(group, variance) / count**2
    return float(np.sqrt(np.clip(np.mean(mean**2 - noise - explained), 0.0, LARGEST_OFFSET**2)))


# ------------------------------------------------------------------------------------------------------ running members
@dataclass(eq=False)
class _Work:
    """Members over all tiles by the map of the caller."""

    simulation: Simulation
    map: Map
    cells: int
    options: Options
    iteration: int = 0
    tiles: list[tuple[int, slice]] = field(init=False)  # those members run on: all, unless on a sample

    def __post_init__(self) -> None:
        self.tiles = list(enumerate(tiles(self.cells, self.options.tile)))

    def sample(self, cells: int) -> list[tuple[int, slice]]:
        """Tiles with at least so many cells, spread evenly; all of them where they are not twice as many."""
        every = self.cells // max(cells, 1)
        return self.tiles[every // 2 :: every] if every > 1 else self.tiles

    def predict(
        self, members: np.ndarray, known: Sequence[_Known], residuals: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """(by sensor what the members (K, n) would observe (k, p) float32, which of the K those are, clipped cells).

        residuals   fields of each member (K, field, cell)
        """
        seen, kept, clipped, _ = self._taken(members, known, residuals, "predictions")
        return seen, kept, clipped

    def states(
        self, members: np.ndarray, known: Sequence[_Known], residuals: np.ndarray | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int, xr.Dataset]:
        """As `predict`, with the states of the window: the first member's, and the spread of the others."""
        seen, kept, clipped, parts = self._taken(members, known, residuals, "states")
        whole = xr.concat(parts, "cell", data_vars="all") if parts else xr.Dataset()
        place = {
            n: self.simulation.prior.parameters[n] for n in ("lat", "lon") if n in self.simulation.prior.parameters
        }
        return seen, kept, clipped, whole.isel(realization=kept).assign_coords(place)

    def _taken(
        self, members: np.ndarray, known: Sequence[_Known], residuals: np.ndarray | None, keep: str
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int, list[xr.Dataset]]:
        """What `predict` returns, and with keep = "states" the summary of each tile."""
        seen = {k.sensor: np.empty((len(members), len(k.observations)), np.float32) for k in known}
        lost: dict[int, str] = {}
        clipped, parts = 0, []
        of_tile: list[dict[str, np.ndarray] | None] = []
        for task, result in self.results(members, residuals, keep):
            if isinstance(result, Lost):
                lost.setdefault(task.realization, result.reason)
            else:
                clipped += int(result["clipped"]) if task.realization == 0 else 0
                for k in known:
                    at = _of_tile(k.observations, task.cells)
                    day, cell = k.observations.day[at], k.observations.cell[at] - task.cells.start
                    seen[k.sensor][task.realization, at] = result[k.sensor][day, cell]
            if keep == "states":
                of_tile.append(None if isinstance(result, Lost) else result)
                if len(of_tile) == len(members):
                    parts.append(_summary(of_tile, self.simulation.window))
                    of_tile = []
        kept = self._kept(len(members), lost)
        return {name: values[kept] for name, values in seen.items()}, kept, clipped, parts

    def results(
        self, members: np.ndarray, residuals: np.ndarray | None, keep: str
    ) -> Iterable[tuple[Task, dict[str, np.ndarray] | Lost]]:
        """Every member on every tile, tile by tile."""
        self.iteration += 1
        tasks = [
            Task(
                self.iteration,
                i,
                tile,
                cells,
                np.asarray(z, dtype=np.float64),
                None if residuals is None else residuals[i][:, cells],
                keep,
            )
            for tile, cells in self.tiles
            for i, z in enumerate(members)
        ]
        return zip(tasks, self.map(self.simulation, tasks), strict=True)

    def _kept(self, count: int, lost: Mapping[int, str]) -> np.ndarray:
        """Members that came back from every tile; the control run must have."""
        if 0 in lost:
            raise TwinError("control run", expected="complete on every tile", found=lost[0])
        kept = [i for i in range(count) if i not in lost]
        check_quorum(kept, range(count), list(lost.values()))
        return np.array(kept)


def _of_tile(observations: Observations, cells: slice) -> slice:
    first, last = np.searchsorted(observations.cell, [cells.start, cells.stop])
    return slice(int(first), int(last))


def _in_tiles(observations: Observations, some: Sequence[tuple[int, slice]]) -> np.ndarray:
    inside = np.zeros(len(observations), bool)
    for _, cells in some:
        inside[_of_tile(observations, cells)] = True
    return inside


def _summary(results: Sequence[dict[str, np.ndarray] | None], window: Window) -> xr.Dataset:
    """States of a tile: the first member's, mean, spread and range of those of the others that came back."""
    members = [result for result in results[1:] if result is not None]
    some = next(result for result in results if result is not None)
    wet = np.stack([result[ROOT_ZONE] for result in members]) if members else some[ROOT_ZONE][None]
    low, high = np.quantile(wet, [0.05, 0.95], axis=0).astype(np.float32)
    first = results[0][ROOT_ZONE] if results[0] is not None else np.full_like(low, np.nan)
    data: dict[str, Any] = {
        ROOT_ZONE: (("time", "cell"), first),
        f"{ROOT_ZONE}_mean": (("time", "cell"), wet.mean(axis=0)),
        f"{ROOT_ZONE}_spread": (("time", "cell"), wet.std(axis=0, ddof=1 if len(wet) > 1 else 0)),
        f"{ROOT_ZONE}_low": (("time", "cell"), low),
        f"{ROOT_ZONE}_high": (("time", "cell"), high),
    }
    for key in (key for key in some if key.startswith("end:")):
        _, name, dims = key.split(":")
        values = np.stack([np.full_like(some[key], np.nan) if r is None else r[key] for r in results])
        data[f"end:{name}"] = (("realization", *dims.split(), "cell"), values)
    return xr.Dataset(data, {"time": window.days})


# ------------------------------------------------------------------------------------------------------------ the cycle
@dataclass(eq=False)
class _Cycle:
    """The analysis of one window, step by step."""

    simulation: Simulation
    work: _Work
    known: list[_Known]
    rng: np.random.Generator
    options: Options
    steps: list[dict[str, float]] = field(default_factory=list)
    open_loop: dict[str, np.ndarray] = field(default_factory=dict)  # at the observations (p), by sensor
    clipped: list[int] = field(default_factory=list)  # cells whose soil a bound keeps back: before and after
    amplitude: float = 0.0  # of what differs between places, in standard deviations of its prior

    def analysis(self) -> Analysis:
        """Stage 1, stage 2, the members about both, and whether to believe it all."""
        n = self.simulation.control.size
        x, P = np.zeros(n), np.eye(n)
        self._screen(x)
        local = None
        if any(k.used.any() for k in self.known):
            x, P = self._on_a_sample(x, P)
            local = self._stage_2(x) if self.options.residual else None
        return self._finish(x, P, local)

    def _screen(self, x: np.ndarray) -> None:
        """Let the gates ask weather and ground, tile by tile, and keep the open loop at what they leave."""
        kept: dict[str, list[np.ndarray]] = {k.sensor: [] for k in self.known}
        said: dict[str, list[obs.Screening]] = {k.sensor: [] for k in self.known}
        seen: dict[str, list[np.ndarray]] = {k.sensor: [] for k in self.known}
        window, ground, clipped = self.simulation.window, self.simulation.prior.parameters, 0
        for task, result in self.work.results(x[None], None, "ground"):
            if isinstance(result, Lost):
                raise TwinError("control run", expected="complete on every tile", found=result.reason)
            clipped += int(result["clipped"])
            names = ["air_temperature", "precipitation_flux"]
            weather = self.simulation.forcing.tile(task.cells)[names].sel(time=slice(window.first, window.last))
            land = weather.assign({n: (("time", "cell"), result[n]) for n in (SNOW, SOIL_TEMPERATURE) if n in result})
            land = land.assign({n: ("cell", ground[n].values[task.cells]) for n in obs.FOOTPRINT if n in ground})
            for k in self.known:
                some = k.observations.of_cells(task.cells)
                passed, screening = obs.screen(some, land)
                kept[k.sensor].append(some.among(passed))
                said[k.sensor].append(screening)
                seen[k.sensor].append(result[k.sensor][passed.day, passed.cell])
        for k in self.known:
            k.keep(np.concatenate(kept[k.sensor]))
            k.screenings.append(obs.merged(said[k.sensor]))
        self.open_loop = {name: np.concatenate(values) for name, values in seen.items()}
        self.clipped.append(clipped)

    # ---------------------------------------------------------------------------------------------- the same everywhere
    def _on_a_sample(self, x: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stage 1: (estimate, covariance). In a large region on a sample of its tiles first, then once on all of them.

        What is the same everywhere is known from few cells to all that a linear step needs; the last one weighs all.
        """
        whole, some = (self.work.tiles, self.known, self.open_loop), self.work.sample(self.options.sample)
        if len(some) == len(self.work.tiles):
            return self._outer_loops(x, P, self.options.loops)
        masks = {k.sensor: _in_tiles(k.observations, some) for k in self.known}
        self.work.tiles, self.known = some, [k.within(masks[k.sensor]) for k in self.known]
        self.open_loop = {name: values[masks[name]] for name, values in self.open_loop.items()}
        x, P = self._outer_loops(x, P, self.options.loops)
        parts = self.known
        self.work.tiles, self.known, self.open_loop = whole
        for k, part in zip(self.known, parts, strict=True):
            k.alpha, k.offset = part.alpha, part.offset
        return self._outer_loops(x, P, 1)

    def _outer_loops(self, x: np.ndarray, P: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(estimate, its covariance) after at most so many steps."""
        for loop in range(most):
            members = np.vstack([x, draw(self.rng, self.options.members, x, P)])
            seen, kept, _ = self.work.predict(members, self.known)
            X = fourdenvar.perturbations(members[kept][1:])
            linear = fourdenvar.Filter(X)
            if loop < CHECKS:
                left = {k.sensor: self._check(k, seen[k.sensor]) for k in self.known}
                seen = {name: values[:, left[name]] for name, values in seen.items()}
            d = {k.sensor: k.fit(seen[k.sensor][0]) for k in self.known}
            moved = [k.estimate(d[k.sensor], _mean_spread(k, seen[k.sensor]), self.options) for k in self.known]
            parts, variance = self._sums(seen, d, linear)
            total = fourdenvar.total(parts)
            J = 0.5 * float(x @ x) + 0.5 * total.e
            step = fourdenvar.gauss_newton(total, X, x, np.zeros_like(x), np.eye(x.size), linear)
            there, J_there, share = self._walk(x, step.x, J, variance)
            told = {"J": J, "J_predicted": step.J, "J_found": J_there, "share": share}
            self.steps.append({**told, "largest_z": float(np.abs(there).max())})
            near = abs(J_there - step.J) <= NEAR * max(J - J_there, 0.0) or J - J_there <= NEAR * x.size
            short = J - J_there <= 0.5 * x.size  # less than about a standard deviation in every direction
            x, P = there, step.P
            if share == 0.0 or (near and short and np.abs(x).max() <= FAR and not any(moved)):
                break
        return x, P

    def _check(self, k: _Known, seen: np.ndarray) -> np.ndarray:
        """The background check: which observations (p) are believable; RangeError if too few are."""
        d = k.observations.value - seen[0]
        spread = seen[1:].std(axis=0, ddof=1)
        good = obs.background_check(d, spread, k.observations.error, k.observations.cell)
        _, said = obs.sift(k.observations, {"background": ~good}, REJECTED)
        k.screenings.append(said)
        obs.accept(said)
        k.keep(good)
        self.open_loop[k.sensor] = self.open_loop[k.sensor][good]
        return good

    def _innovations(self, predicted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k.sensor: k.value - predicted[k.sensor] for k in self.known}

    def _settled(self, x: np.ndarray, P: np.ndarray) -> np.ndarray:
        """The analysis and members about it (1 + N, n), each brought to the minimum of its own cost.

        A draw x_i of N(x, P) minimises the cost of a prior and observations that were perturbed, if H is linear; where
        it is not, it is moved to where that cost has its minimum, with the slopes G of the ensemble:
            x_i ← x_i + P [P⁻¹ (x_i⁰ − x) − x_i + G R⁻¹ (y − H(x_i))]
        Refs: Oliver, He & Reynolds (1996), ECMOR V (randomised maximum likelihood); Chen & Oliver (2013), Comput.
        Geosci. 17, 689 (with an ensemble's slopes).
        """
        members = np.vstack([x, draw(self.rng, self.options.members, x, P)])
        pull = np.linalg.solve(P, (members[1:] - x).T)
        for _ in range(ROUNDS):
            seen, kept, _ = self.work.predict(members, self.known)
            members, pull = members[kept], pull[:, kept[1:] - 1]
            X = fourdenvar.perturbations(members[1:])
            linear = fourdenvar.Filter(X)
            d = self._innovations({name: values[0] for name, values in seen.items()})
            A = fourdenvar.total(self._sums(seen, d, linear, each=True)[0]).A
            r = linear.rank
            slopes = np.linalg.pinv(linear.project(X))
            F, b = slopes @ A[:r, :r] @ slopes.T, slopes @ A[:r, r:]
            step = np.linalg.solve(np.eye(x.size) + F, pull - members[1:].T + b)
            members = np.vstack([members[:1], members[1:] + step.T])
        return members

    def _sums(
        self,
        seen: Mapping[str, np.ndarray],
        d: Mapping[str, np.ndarray],
        linear: fourdenvar.Filter,
        each: bool = False,
    ) -> tuple[list[fourdenvar.Sums], dict[str, np.ndarray]]:
        """(the sums of every sensor and tile; the variances (p) they were made with, by sensor).

        each   also of the innovations of every member, after what is linear
        """
        parts: list[fourdenvar.Sums] = []
        variance = {k.sensor: k.alpha * k.error**2 for k in self.known}
        for k in self.known:
            scale = np.float32(np.sqrt(len(seen[k.sensor]) - 2.0))
            for key, at in self._chunks(k):
                Y = (seen[k.sensor][1:, at] - seen[k.sensor][0, at]) / scale
                Y, rest = linear.coordinates(Y)
                variance[k.sensor][at] += rest
                if each:
                    Y = np.vstack([Y, k.value[at] - seen[k.sensor][1:, at]])
                parts.append(self._sum(k, key, at, Y, d[k.sensor], variance[k.sensor]))
        return parts, variance

    def _sum(
        self, k: _Known, key: tuple[str, int], at: np.ndarray, Y: np.ndarray, d: np.ndarray, variance: np.ndarray
    ) -> fourdenvar.Sums:
        cell = k.observations.cell[at]
        return fourdenvar.summed(fourdenvar.Chunk(key, Y, d[at], variance[at], cell, k.offset**2, k.sensor))

    def _chunks(self, k: _Known) -> Iterable[tuple[tuple[str, int], np.ndarray]]:
        """Positions of the observations used of each tile, with their key."""
        for tile, cells in self.work.tiles:
            at = _of_tile(k.observations, cells)
            yield (k.sensor, tile), np.arange(at.start, at.stop)[k.used[at]]

    def _misfit(self, d: Mapping[str, np.ndarray], variance: Mapping[str, np.ndarray]) -> float:
        """dᵀ R⁻¹ d of the observations used."""
        parts = [
            self._sum(k, key, at, np.empty((0, at.size)), d[k.sensor], variance[k.sensor])
            for k in self.known
            for key, at in self._chunks(k)
        ]
        return fourdenvar.total(parts).e

    def _walk(
        self, x: np.ndarray, target: np.ndarray, J: float, variance: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, float, float]:
        """(where J is lower, J there, share of the way gone): the step, or half of it, and so on; nowhere at worst."""
        for share in (1.0, 0.5, 0.25, 0.125):
            there = x + share * (target - x)
            seen, _, _ = self.work.predict(there[None], self.known)
            d = self._innovations({name: values[0] for name, values in seen.items()})
            found = 0.5 * float(there @ there) + 0.5 * self._misfit(d, variance)
            if found < J:
                return there, found, share
        return x, J, 0.0

    # ------------------------------------------------------------------------------------------- from place to place
    def _stage_2(self, x: np.ndarray) -> _Local | None:
        """Fields of what differs from place to place, where withheld observations confirm them; None if little does."""
        where = self.simulation.prior.parameters
        patches = _Patches.of(where["lat"].values, where["lon"].values)
        N = self.options.members
        raw = fields(self.rng, N, len(RESIDUAL), where["lat"].values, where["lon"].values, LENGTH)
        raw = FIRST_AMPLITUDE * (raw - raw.mean(axis=0))
        members = np.broadcast_to(x, (N + 1, x.size))
        seen, kept, _ = self.work.predict(members, self.known, np.concatenate([np.zeros_like(raw[:1]), raw]))
        d = {k.sensor: k.fit(seen[k.sensor][0]) for k in self.known}
        raw = raw[kept[1:] - 1]
        parts = self._by_patch(patches, seen, d, withheld=False)
        self.amplitude = _amplitude(parts)
        if self.amplitude < LEAST_AMPLITUDE:
            return None
        X = (self.amplitude * raw - (self.amplitude * raw).mean(axis=0)) / np.float32(np.sqrt(len(raw) - 1.0))
        mean, spread = np.zeros(raw.shape[1:]), np.array(X)
        for patch in range(patches.count):
            weights = patches.weights(patch)
            near = [part for part in parts if weights[_patch(part)] > 0.0]
            if not near:
                continue
            t = fourdenvar.total(near, {part.key: weights[_patch(part)] for part in near})
            scaled = fourdenvar.Total(self.amplitude**2 * t.A, self.amplitude * t.c, t.e, t.p)
            solution = fourdenvar.solve(scaled)
            cells = patches.of_cell == patch
            mean[:, cells] = np.tensordot(solution.w, X[:, :, cells], 1)
            spread[:, :, cells] = solution.perturbations(X[:, :, cells])
        found, _, _ = self.work.predict(x[None], self.known, mean[None])
        after = self._innovations({name: values[0] for name, values in found.items()})
        gain = np.zeros(patches.count)
        for each, sign in ((d, 1.0), (after, -1.0)):
            for part in self._by_patch(patches, None, each, withheld=True):
                gain[_patch(part)] += sign * fourdenvar.total([part]).e
        accepted = np.array([patches.weights(patch) @ gain > 0.0 for patch in range(patches.count)])
        mean[:, ~accepted[patches.of_cell]] = 0.0
        return _Local(mean, spread * np.sqrt(len(raw) - 1.0), accepted, patches)

    def _by_patch(
        self,
        patches: _Patches,
        seen: Mapping[str, np.ndarray] | None,
        d: Mapping[str, np.ndarray],
        *,
        withheld: bool,
    ) -> list[fourdenvar.Sums]:
        """Sums of every sensor and patch, of the observations used or withheld; without `seen` of d alone."""
        parts = []
        for k in self.known:
            variance = k.alpha * k.error**2
            patch = np.where(k.withheld == withheld, patches.of_cell[k.observations.cell], -1)
            order = np.argsort(patch, kind="stable")
            edges = np.searchsorted(patch[order], np.arange(patches.count + 1))
            for number, (first, last) in enumerate(pairwise(edges)):
                at = order[first:last]
                if not at.size:
                    continue
                Y = np.empty((0, at.size))
                if seen is not None:
                    Y = fourdenvar.perturbations(seen[k.sensor][1:, at]).astype(np.float32)
                parts.append(self._sum(k, (k.sensor, number), at, Y, d[k.sensor], variance))
        return parts

    # ------------------------------------------------------------------------------------------------ the outcome
    def _finish(self, x: np.ndarray, P: np.ndarray, local: _Local | None) -> Analysis:
        """The members about the analysis, its states and diagnostics, and whether to believe it."""
        cells, N = self.work.cells, self.options.members
        members = self._settled(x, P) if self.steps else np.vstack([x, draw(self.rng, N, x, P)])
        N = len(members) - 1
        residuals = None
        if local is not None:
            rows = self.rng.permutation(len(local.spread))
            rows = np.resize(rows, N)
            residuals = np.concatenate([local.mean[None], local.mean + local.spread[rows]])
        seen, kept, clipped, states = self.work.states(members, self.known, residuals)
        self.clipped.append(clipped)
        members = members[kept]
        predicted = {k.sensor: _at_observations(k, self.open_loop[k.sensor], seen[k.sensor]) for k in self.known}
        reasons = self._doubts(x, predicted)
        return Analysis(
            accepted=not reasons,
            reasons=tuple(reasons),
            z=x,
            covariance=P,
            residual=None if local is None else local.mean,
            parameters=self._parameters(x, local),
            members=members[1:],
            residuals=None if residuals is None else residuals[kept][1:],
            states=states,
            diagnostics=self._diagnostics(x, P, local, predicted, len(members) - 1, cells),
            predicted=predicted,
        )

    def _parameters(self, x: np.ndarray, local: _Local | None) -> xr.Dataset:
        """The land model's parameters at the analysis, tile by tile."""
        control, prior, window = self.simulation.control, self.simulation.prior, self.simulation.window
        parts = []
        for _, cells in self.work.tiles:
            forcing = self.simulation.forcing.tile(cells).sel(time=slice(window.first, window.last))
            field_ = None if local is None else local.mean[:, cells]
            parts.append(control.parameters(x, prior.tile(cells).parameters, humidity(forcing), field_))
        whole = xr.concat(parts, "cell", data_vars="minimal", combine_attrs="override")
        return whole.assign_attrs(clipped=sum(part.attrs.get("clipped", 0) for part in parts))

    def _doubts(self, x: np.ndarray, predicted: Mapping[str, xr.Dataset]) -> list[str]:
        """Why the analysis should not be believed; empty if it may be."""
        if not self.steps:
            return [f"no observation to use: {self._why()}"]
        doubts = []
        if self.steps[-1]["share"] == 0.0 and len(self.steps) == 1:
            doubts.append("no step made the cost fall")
        if (far := float(np.abs(x).max())) > FARTHEST:
            name = self.simulation.control.names[int(np.abs(x).argmax())]
            doubts.append(
                f"{name} went {far:.1f} standard deviations from its prior, at most {FARTHEST:g} are believed"
            )
        before, after = self.clipped[0], self.clipped[-1]
        if after > max(CLIPPED * self.work.cells, before):
            found = f"{after} of {self.work.cells} cells, {before} before"
            doubts.append(f"soil parameters beyond their bounds in {found}")
        for name, table in predicted.items():
            held = withheld_scores(table)
            if held and held["analysis_ubrmse"] > WORSE * held["open_loop_ubrmse"]:
                found = f"{held['analysis_ubrmse']:.4f} against {held['open_loop_ubrmse']:.4f} of the open loop"
                doubts.append(f"withheld observations of {name} fit worse: ubRMSE {found}")
        return doubts

    def _why(self) -> str:
        said = (screening.as_json() for k in self.known for screening in k.screenings[:1])
        return "; ".join(f"{each['sensor']}: {each['kept']} of {each['given']} passed the gates" for each in said)

    def _diagnostics(
        self,
        x: np.ndarray,
        P: np.ndarray,
        local: _Local | None,
        predicted: Mapping[str, xr.Dataset],
        members: int,
        cells: int,
    ) -> dict[str, Any]:
        control, prior = self.simulation.control, self.simulation.prior
        p = int(sum(k.used.sum() for k in self.known))
        J = self.steps[-1]["J_found"] if self.steps else float("nan")
        variant = str(prior.parameters.attrs.get("pedotransfer", "cosby"))
        window = self.simulation.window
        return {
            "window": [str(window.first.date()), str(window.last.date())],
            "cells": cells,
            "members": members,
            "observations": p,
            "dofs": float(x.size - np.trace(P)),
            "chi2": 2.0 * J / p if p else None,
            "steps": self.steps,
            "control": control.table(x, np.sqrt(np.diag(P)), variant if control.kappa else "cosby"),
            "clipped": self.clipped,
            "amplitude": self.amplitude,
            "patches": None if local is None else [int(local.accepted.sum()), int(local.accepted.size)],
            "sensors": {
                k.sensor: {
                    "alpha": k.alpha,
                    "offset": k.offset,
                    "screenings": [screening.as_json() for screening in k.screenings],
                    "withheld": withheld_scores(predicted[k.sensor]),
                    "errors": _errors(predicted[k.sensor], self._biomes(k)),
                }
                for k in self.known
            },
        }

    def _biomes(self, k: _Known) -> np.ndarray:
        """The climate of each observation's cell: arid, semi-arid or humid, by the humidity index."""
        window, damp = self.simulation.window, []
        for _, cells in self.work.tiles:
            damp.append(humidity(self.simulation.forcing.tile(cells).sel(time=slice(window.first, window.last))))
        index = 0.5 * np.exp(0.7 * np.concatenate(damp))
        return np.array(BIOMES)[np.searchsorted([0.2, 0.5], index)][k.observations.cell]


# ------------------------------------------------------------------------------------------------------ patches
@dataclass(frozen=True, eq=False)
class _Patches:
    """Groups of neighbouring cells with one weight each: boxes of PATCH km, and how near they are to each other."""

    of_cell: np.ndarray  # (cell) number of its patch
    lat: np.ndarray  # (patch) degrees, mean of its cells
    lon: np.ndarray

    @classmethod
    def of(cls, lat: np.ndarray, lon: np.ndarray) -> _Patches:
        size = np.rad2deg(PATCH / EARTH_RADIUS)
        row = np.floor(lat / size)
        column = np.floor(lon * np.cos(np.deg2rad((row + 0.5) * size)) / size)
        _, of_cell = np.unique(np.stack([row, column]), axis=1, return_inverse=True)
        of_cell = of_cell.reshape(-1)
        count = np.bincount(of_cell)
        return cls(of_cell, np.bincount(of_cell, lat) / count, np.bincount(of_cell, lon) / count)

    @property
    def count(self) -> int:
        return self.lat.size

    def weights(self, patch: int) -> np.ndarray:
        """Factor on R⁻¹ of the observations of every patch in the analysis of this one (patch)."""
        a, b = np.deg2rad(self.lat), np.deg2rad(self.lat[patch])
        half = (
            np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.deg2rad(self.lon - self.lon[patch]) / 2) ** 2
        )
        return fourdenvar.gaspari_cohn(2.0 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1.0))) / LENGTH)


@dataclass(frozen=True, eq=False)
class _Local:
    """Stage 2: fields (field, cell), what its members differ from them by (realization, field, cell), which patches."""

    mean: np.ndarray
    spread: np.ndarray
    accepted: np.ndarray  # bool (patch)
    patches: _Patches


def _patch(part: fourdenvar.Sums) -> int:
    return int(part.key[1])


def _amplitude(parts: Sequence[fourdenvar.Sums]) -> float:
    """By how much the members' fields would have to be scaled to explain the innovations; 0 if they need not.

    With a the scale, c = Y R⁻¹ d of a patch has E|c|² = a² tr A² + tr A (moments of d ~ N(0, R + a² YᵀY)).
    """
    by_patch: dict[int, list[fourdenvar.Sums]] = {}
    for part in parts:
        by_patch.setdefault(_patch(part), []).append(part)
    totals = [fourdenvar.total(group) for group in by_patch.values()]
    excess = sum(float(t.c @ t.c - np.trace(t.A)) for t in totals)
    scale = sum(float((t.A * t.A).sum()) for t in totals)
    return float(np.sqrt(np.clip(excess / scale, 0.0, 4.0))) if scale > 0.0 else 0.0


# --------------------------------------------------------------------------------------------------------------- scores
def _mean_spread(k: _Known, seen: np.ndarray) -> np.ndarray:
    """Variance over the members of the mean of each cell's observations that are used (cell, in order)."""
    used = np.flatnonzero(k.used)
    cell = k.observations.cell[used]
    first = np.flatnonzero(np.r_[True, np.diff(cell) != 0][: cell.size])
    if not first.size:
        return np.zeros(0)
    count = np.diff(np.r_[first, cell.size])
    return (np.add.reduceat(seen[1:, used], first, axis=1, dtype=np.float64) / count).var(axis=0, ddof=1)


def _at_observations(k: _Known, open_loop: np.ndarray, seen: np.ndarray) -> xr.Dataset:
    """Observations with what the open loop and the analysis make of them, and the members' mean and spread."""
    o, members = k.observations, seen[1:] if len(seen) > 1 else seen
    columns = {
        "value": o.value,
        "error": o.error,
        "cell": o.cell,
        "day": o.day,
        "withheld": k.withheld,
        "open_loop": open_loop,
        "analysis": seen[0],
        "mean": members.mean(axis=0),
        "spread": members.std(axis=0),
    }
    return xr.Dataset({name: ("observation", values) for name, values in columns.items()}, attrs={"sensor": k.sensor})


def withheld_scores(table: xr.Dataset) -> dict[str, float]:
    """Means over the cells of unbiased RMSE and correlation at withheld observations, open loop and analysis.

    Of cells with eight or more of them; empty where there is none.
    """
    held = table.isel(observation=np.flatnonzero(table["withheld"].values))
    y, cell, day = (held[name].values for name in ("value", "cell", "day"))
    runs = {run: scores.grouped(held[run].values, y, cell, day, least=8) for run in ("open_loop", "analysis")}
    cells = int((runs["analysis"]["count"] >= 8).sum())
    told = {f"{run}_{name}": float(each[name].mean()) for run, each in runs.items() for name in ("ubrmse", "r")}
    return {**told, "cells": cells} if cells else {}


def _errors(table: xr.Dataset, biome: np.ndarray) -> list[dict[str, Any]]:
    """Standard deviations that the innovations show (Desroziers et al. 2005), by climate; plain JSON."""
    used = ~table["withheld"].values
    if not used.any():
        return []
    y = table["value"].values[used]
    d_b, d_a = y - table["open_loop"].values[used], y - table["analysis"].values[used]
    found = fourdenvar.desroziers(d_b, d_a, table["cell"].values[used], {"biome": biome[used]}).reset_index()
    return [
        {
            "biome": str(row["biome"]),
            "p": int(row["p"]),
            "observation": _root(row["observation_anomaly"]),
            "background": _root(row["background_anomaly"]),
        }
        for _, row in found.iterrows()
    ]


def _root(variance: float) -> float | None:
    return float(np.sqrt(variance)) if np.isfinite(variance) and variance >= 0.0 else None
