"""When an emulator must be trained again, and when the new one may take its place: rules, and nothing but rules.

    what is watched ─triggers─▸ reasons to train         Certificate of champion ┐
                                                         Certificate of challenger ┴─verdict─▸ promote, reasons

A Certificate is what is known of an emulator on places, years and a climate that it was not trained on. The same
hold-out serves both, cell by cell, so that their difference is known better than either (see `scores.interval`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from twin.conformal import ARIDITY
from twin.errors import RangeError, VariableError
from twin.scores import interval

# What starts a training (`triggers`): more than these, or less of the coverage.
PSI = 0.2
OUTSIDE = 0.05  # share of the cells outside the envelope
SPOT_CHECK = 1.5  # times the certified rmse
COVERAGE = 0.85
KAPPA = 0.5  # posterior standard deviations
THETA = 0.01  # m3 m-3, of a soil's θ_s or θ_c

# What stands between a challenger and its promotion (`verdict`).
WORSE, BETTER, WORST_CLASS = 1.02, 0.98, 1.1  # times the champion's
DRIFT = 5e-4  # of an output's unit a year
COVERED = (0.87, 0.95)  # of a nominal 0.9: intervals are calibrated under harsher climates than most hold-outs
SLOWEST = 1.0  # ms a pixel-year, in a batch
MONOTONE = 0.95  # share of cells that more rain does not dry

BINS = 10


# --- has the input changed? ------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Histogram:
    """Shares of each feature's values between the deciles of a reference.

    names    of the features
    edges    (feature, BINS − 1), rising
    shares   (feature, BINS) of the reference, which differ from a tenth where values repeat
    """

    names: tuple[str, ...]
    edges: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, names: Sequence[str]) -> Histogram:
        """Of rows (row, feature). RangeError without a row or where one is not finite.

        A reference must be of the same kind as what is held against it: the same cells, and whole years.
        """
        rows = _rows(features, names)
        edges = np.quantile(rows, np.arange(1, BINS) / BINS, axis=0).T
        return cls(tuple(names), edges, _shares(rows, edges))

    def psi(self, features: np.ndarray) -> dict[str, float]:
        """Population stability index of each feature of rows (row, feature): Σ (p − q) ln(p/q) over the bins.

        p and q are the shares of the rows and of the reference, of which none is taken for less than 1e-4. It is the
        divergence of Jeffreys (1946), Proc. R. Soc. A 186, 453. Of two samples of one distribution, n and m rows that
        are independent, it is (BINS − 1)(1/n + 1/m) on average: Yurdakul & Naranjo (2020), J. Risk Model Validation
        14(4), 89.
        """
        p, q = (np.maximum(s, 1e-4) for s in (_shares(_rows(features, self.names), self.edges), self.shares))
        index = ((p - q) * np.log(p / q)).sum(axis=1)
        return dict(zip(self.names, map(float, index), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: {"edges": edges.tolist(), "shares": shares.tolist()}
            for name, edges, shares in zip(self.names, self.edges, self.shares, strict=True)
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Histogram:
        """What `to_dict` gave; VariableError where it cannot have been that."""
        try:
            edges, shares = (np.array([row[k] for row in told.values()], np.float64) for k in ("edges", "shares"))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise VariableError("histogram", expected="what Histogram.to_dict gives", found=repr(err)) from err
        shapes = (len(told), BINS - 1), (len(told), BINS)
        if (edges.shape, shares.shape) != shapes or not np.isfinite(edges).all() or (np.diff(edges) < 0.0).any():
            raise VariableError("histogram", expected=f"rising edges, {shapes}", found=(edges.shape, shares.shape))
        if not (np.isfinite(shares).all() and np.allclose(shares.sum(axis=1), 1.0)):
            raise VariableError("histogram", expected="shares that sum to 1", found="others")
        return cls(tuple(map(str, told)), edges, shares)


def _rows(features: np.ndarray, names: Sequence[str]) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != len(names):
        raise VariableError("features", expected=f"(row, {len(names)})", found=f"shape {features.shape}")
    if not features.size or not np.isfinite(features).all():
        raise RangeError("features", expected="one row or more, finite", found="none, or nan or infinite")
    return features


def _shares(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    found = [
        np.bincount(np.searchsorted(e, column, "left"), minlength=BINS) for e, column in zip(edges, rows.T, strict=True)
    ]
    return np.array(found) / len(rows)


# --- what is known of an emulator ------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Certificate:
    """The scores of an emulator, running freely on its hold-out.

    rmse       {output: (cell)}, unit of the output
    dry_days   (cell) mean absolute error, days a year
    aridity    (cell) index of `conformal.ARIDITY`
    drift      {output: slope of its error over the years}, unit of the output a year
    coverage   share of truths within their intervals, every location counting once
    cost       ms a pixel-year, in a batch
    golden     whether its golden vectors came out
    monotone   share of cells that more rain does not dry
    """

    rmse: Mapping[str, np.ndarray]
    dry_days: np.ndarray
    aridity: np.ndarray
    drift: Mapping[str, float]
    coverage: float
    cost: float
    golden: bool
    monotone: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = asdict(self)
        told["rmse"] = {name: np.asarray(values).tolist() for name, values in self.rmse.items()}
        return told | {"dry_days": np.asarray(self.dry_days).tolist(), "aridity": np.asarray(self.aridity).tolist()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Certificate:
        """What `to_dict` gave; VariableError where it cannot have been that."""
        try:
            rmse = {str(name): np.array(values, np.float64) for name, values in told["rmse"].items()}
            drift = {str(name): float(value) for name, value in told["drift"].items()}
            by_cell = np.array(told["dry_days"], np.float64), np.array(told["aridity"], np.int64)
            coverage, cost, monotone = (float(told[name]) for name in ("coverage", "cost", "monotone"))
            return cls(rmse, *by_cell, drift, coverage, cost, told["golden"] is True, monotone)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise VariableError("certificate", expected="what Certificate.to_dict gives", found=repr(err)) from err


# --- is it time to train? --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trigger:
    """A reason to train: what it is about, the figure that was found, its limit, and both in words."""

    reason: str
    figure: float | str
    limit: float | str

    def __str__(self) -> str:
        return f"{self.reason}: {_word(self.figure)}, limit {_word(self.limit)}"


def triggers(
    *,
    psi: Mapping[str, float] | None = None,
    outside: float | None = None,
    rmse: Mapping[str, float] | None = None,
    certified: Mapping[str, float] | None = None,
    coverage: float | None = None,
    kappa_shift: float | None = None,
    soil_shift: float | None = None,
    versions: Mapping[str, str] | None = None,
    trained_on: Mapping[str, str] | None = None,
) -> tuple[Trigger, ...]:
    """Every reason to train that holds; what is not known is none.

    psi                     of each feature, `Histogram.psi`
    outside                 share of the cells outside the envelope
    rmse, certified         of each output: against the land model at its spot checks, and on the hold-out
    coverage                share of the spot checks within their intervals
    kappa_shift             largest change of a pedotransfer coefficient, in its posterior standard deviations
    soil_shift              largest change of a cell's θ_s or θ_c, m3 m-3
    versions, trained_on    of the land model, the forcing, …: now, and when it was trained
    A figure that is not a number is a reason, for it says that something cannot be trusted.
    """
    found = [Trigger(f"weather: '{name}' has another distribution", value, PSI) for name, value in (psi or {}).items()]
    found += [
        Trigger(f"spot check: '{name}' against what was certified", value / (certified or {})[name], SPOT_CHECK)
        for name, value in (rmse or {}).items()
    ]
    for reason, figure, limit in (
        ("weather: cells outside the envelope", outside, OUTSIDE),
        ("analysis: a pedotransfer coefficient moved", kappa_shift, KAPPA),
        ("analysis: a soil's θ_s or θ_c moved", soil_shift, THETA),
    ):
        if figure is not None:
            found.append(Trigger(reason, figure, limit))
    held = [trigger for trigger in found if not trigger.figure <= trigger.limit]  # type: ignore[operator]
    if coverage is not None and not coverage >= COVERAGE:
        held.append(Trigger("spot check: coverage", coverage, COVERAGE))
    before = trained_on or {}
    held += [
        Trigger(f"version: {name}", version, before.get(name, "none"))
        for name, version in (versions or {}).items()
        if before.get(name) != version
    ]
    return tuple(held)


# --- may it take the champion's place? -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Verdict:
    """Whether a challenger takes the champion's place: what speaks against it, or else where it is better."""

    promote: bool
    reasons: tuple[str, ...]


def verdict(champion: Certificate | None, challenger: Certificate, rng: np.random.Generator) -> Verdict:
    """Promote only what is certainly not worse in any output, and certainly better in one.

    champion   None for a first emulator, which has nobody to be better than
    rng        of the bootstrap by cell that makes it certain, at 95 %
    Every output's rmse at most WORSE times the champion's and one at most BETTER times; in each aridity class at most
    WORST_CLASS times; dry days not certainly worse, and at most WORST_CLASS times; and on its own: no drift, coverage,
    speed, golden vectors, rain that does not dry. Raises VariableError for scores of other outputs or cells, RangeError
    for a champion that lacks one.
    """
    against = list(_alone(challenger))
    if champion is None or _unscored(challenger):
        return Verdict(not against, tuple(against))
    _same_hold_out(champion, challenger)
    better = []
    for name, theirs in champion.rmse.items():
        ours = challenger.rmse[name]
        most = interval(ours - WORSE * theirs, rng).high
        ratio = f"rmse of '{name}' {ours.mean() / theirs.mean():.3f} of the champion's"
        if most > 0.0:
            against.append(f"{ratio}, not certainly below {WORSE}")
        if interval(ours - BETTER * theirs, rng).high < 0.0:
            better.append(f"{ratio}, certainly below {BETTER}")
        for code, aridity in enumerate(ARIDITY):
            here = challenger.aridity == code
            if here.any() and ours[here].mean() > WORST_CLASS * theirs[here].mean():
                found = f"{ours[here].mean() / theirs[here].mean():.3f}"
                against.append(f"rmse of '{name}' where it is {aridity} {found} of the champion's, limit {WORST_CLASS}")
    if not better:
        against.append(f"no output certainly below {BETTER} of the champion's rmse")
    ours, theirs = challenger.dry_days, champion.dry_days
    if interval(ours - theirs, rng).low > 0.0 or ours.mean() > WORST_CLASS * theirs.mean():
        against.append(f"dry days wrong by {ours.mean():.2f} a year, the champion's by {theirs.mean():.2f}")
    return Verdict(not against, tuple(against or better))


def _alone(scores: Certificate) -> Iterator[str]:
    """What speaks against an emulator whoever the champion is; a figure that is not a number does."""
    for name, slope in scores.drift.items():
        if not abs(slope) <= DRIFT:
            yield f"'{name}' drifts by {slope:.2g} a year, limit {DRIFT:g}"
    if not COVERED[0] <= scores.coverage <= COVERED[1]:
        yield f"coverage {scores.coverage:.3f}, expected {COVERED[0]} to {COVERED[1]}"
    if not scores.cost <= SLOWEST:
        yield f"{scores.cost:.2f} ms a pixel-year, limit {SLOWEST:g}"
    if not scores.golden:
        yield "golden vectors did not come out"
    if not scores.monotone >= MONOTONE:
        yield f"more rain dries {1.0 - scores.monotone:.1%} of the cells, limit {1.0 - MONOTONE:.0%}"
    for name, cells in _unscored(scores).items():
        yield f"'{name}' has no score at {cells} cells"


def _unscored(scores: Certificate) -> dict[str, int]:
    """How many cells have no score, of those that should all have one."""
    found = {
        name: np.count_nonzero(~np.isfinite(v)) for name, v in {**scores.rmse, "dry days": scores.dry_days}.items()
    }
    return {name: int(cells) for name, cells in found.items() if cells}


def _same_hold_out(champion: Certificate, challenger: Certificate) -> None:
    ours, theirs = (
        (sorted(scores.rmse), {len(values) for values in (*scores.rmse.values(), scores.dry_days, scores.aridity)})
        for scores in (challenger, champion)
    )
    if _unscored(champion):
        raise RangeError("champion's scores", expected="one at every cell", found=f"none at {_unscored(champion)}")
    if ours != theirs or len(ours[1]) != 1 or not np.array_equal(challenger.aridity, champion.aridity):
        raise VariableError("challenger's scores", expected=f"the champion's outputs and cells, {theirs}", found=ours)


def _word(figure: float | str) -> str:
    return figure if isinstance(figure, str) else f"{figure:.3g}"
