"""How far an emulated value may be from the model's, told by its errors at places it was not trained on.

    errors at held-out locations ─calibrate─▸ Conformal: one half-width a regime and output
    memories of rain and demand ─regimes─▸ regime of any cell and day ─half_width─▸ value ± half-width

Errors of one place resemble each other, so that days are not exchangeable but places are. Each location counts once,
however many days it has: the share of scores |error| up to h is F(h) = Σ_k F_k(h)/K over the locations. A half-width
is tried on every location in turn as the others give it, h_k = min {h: F_−k(h) ≥ ℓ}; ℓ is the least for which they are
covered, on average, as often as the level says, and the half-width the widest of the h_k. With one score a location
that is split conformal prediction, which is exact for exchangeable locations; with many it comes as near as there are
locations. It holds on average over locations, not at each of them: `coverage` says how it is at the worst.
Regimes are calibrated apart.
Refs: Dunn, Wasserman & Ramdas (2023), J. Amer. Stat. Assoc. 118, 2491 (pooled F of a two-layer model); Barber, Candès,
Ramdas & Tibshirani (2021), Ann. Stat. 49, 486 (the widest of those left out); Vovk, Gammerman & Shafer (2005),
Algorithmic Learning in a Random World (regimes apart: "Mondrian"); Lei et al. (2018), J. Amer. Stat. Assoc. 113, 1094,
theorem 2.2 (split conformal).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from twin.errors import RangeError, VariableError

ARIDITY = {"hyper-arid": 0.0, "arid": 0.05, "semi-arid": 0.2, "dry sub-humid": 0.5, "humid": 0.65}  # from P/ET0 upward
SEASONS = ("dry", "wet")
REGIMES = tuple(f"{aridity}, {season} season" for aridity in ARIDITY for season in SEASONS)
LEVEL = 0.9
GRID = 2000  # scores that are looked at, of more


def regimes(rain_year: ArrayLike, demand_year: ArrayLike, rain_month: ArrayLike, demand_month: ArrayLike) -> np.ndarray:
    """Which of REGIMES a cell is in on a day, int8: its aridity class, and whether it is wetter than usual there.

    Decaying means of rain and of reference evapotranspiration, one unit, any shape: over a year and over a month.
    The aridity index P/ET0 is that of UNEP (Middleton & Thomas 1997, World Atlas of Desertification, 2nd ed.). The wet
    season is where a month's P/ET0 is above the year's. Raises RangeError for values that are not finite.
    """
    arrays = np.broadcast_arrays(
        *(np.asarray(a, np.float64) for a in (rain_year, demand_year, rain_month, demand_month))
    )
    if not all(np.isfinite(a).all() for a in arrays):
        raise RangeError("memories of rain and demand", expected="finite", found="nan or infinite")
    rain, demand, rain_now, demand_now = arrays
    aridity = sum((rain >= limit * demand).astype(np.int8) for limit in [*ARIDITY.values()][1:])
    return (2 * aridity + (rain_now * demand > rain * demand_now)).astype(np.int8)


@dataclass(frozen=True)
class Conformal:
    """Half-widths of intervals that hold the truth with probability `level`.

    outputs        names of what is emulated
    half_widths    (regime, output), unit of the output
    locations      (regime) how many stand behind each; the regimes of too few have the widest of the others
    """

    level: float
    outputs: tuple[str, ...]
    half_widths: np.ndarray
    locations: np.ndarray

    @classmethod
    def calibrate(
        cls,
        error: ArrayLike,
        location: ArrayLike,
        regime: ArrayLike,
        outputs: Sequence[str],
        level: float = LEVEL,
    ) -> Conformal:
        """From errors (row, output) at locations (row) the emulator has not seen, in regimes (row).

        The runs must be of the kind the intervals are to hold for: the same soils, changed or not, and climates. Raises
        RangeError for fewer locations than the level takes: 10 at 0.9.
        """
        scores = np.abs(np.asarray(error, np.float64))
        regime, location = np.asarray(regime), np.unique(location, return_inverse=True)[1]
        if scores.shape != (regime.size, len(outputs)) or location.shape != regime.shape:
            found = f"{scores.shape}, {location.shape} and {regime.shape} of {len(outputs)} outputs"
            raise VariableError("error, location and regime", expected="(row, output), (row), (row)", found=found)
        if not np.isfinite(scores).all():
            raise RangeError("errors to calibrate on", expected="finite", found="nan or infinite")
        if not 0.0 < level < 1.0:
            raise RangeError("level", expected="between 0 and 1", found=level)
        everywhere, number = _quantile(scores, location, level)
        if not np.isfinite(everywhere).all():
            expected = f"{_fewest(level)} or more"
            raise RangeError(f"locations to calibrate {level:.0%} intervals on", expected=expected, found=number)
        each = [_quantile(scores[regime == code], location[regime == code], level) for code in range(len(REGIMES))]
        widths, numbers = np.stack([width for width, _ in each]), np.array([n for _, n in each])
        known = np.isfinite(widths)
        widest = np.maximum(everywhere, np.where(known, widths, 0.0).max(axis=0))
        return cls(level, tuple(outputs), np.where(known, widths, widest), numbers)

    def half_width(self, regime: ArrayLike) -> np.ndarray:
        """Of regimes (…), dims (…, output)."""
        return self.half_widths[np.asarray(regime)]

    def interval(
        self,
        value: ArrayLike,
        regime: ArrayLike,
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) limits of values (…, output) in regimes (…), held within what is possible, low..high."""
        width = self.half_width(regime)
        value = np.asarray(value)
        return np.clip(value - width, low, high), np.clip(value + width, low, high)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        widths = {name: self.half_widths[:, k].tolist() for k, name in enumerate(self.outputs)}
        return {
            "level": self.level,
            "regimes": list(REGIMES),
            "locations": self.locations.tolist(),
            "half_widths": widths,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Conformal:
        """What `to_dict` gave; VariableError or RangeError where it cannot have been that."""
        try:
            level, outputs = float(told["level"]), tuple(map(str, told["half_widths"]))
            widths = np.array([*told["half_widths"].values()], np.float64).T
            locations, order = np.array(told["locations"], np.int64), tuple(told["regimes"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise VariableError("intervals", expected="what Conformal.to_dict gives", found=repr(err)) from err
        if order != REGIMES:
            raise VariableError("regimes of intervals", expected=REGIMES, found=order)
        shapes = (len(REGIMES), len(outputs)), (len(REGIMES),)
        if (widths.shape, locations.shape) != shapes:
            raise VariableError("intervals", expected=shapes, found=(widths.shape, locations.shape))
        if not (0.0 < level < 1.0 and np.isfinite(widths).all() and (widths >= 0.0).all()):
            raise RangeError("intervals", expected="a level of 0..1 and widths of 0 and more", found="others")
        return cls(level, outputs, widths, locations)


def coverage(
    error: ArrayLike, half_width: ArrayLike, location: ArrayLike, regime: ArrayLike, outputs: Sequence[str]
) -> pd.DataFrame:
    """How often the truth was inside, by output and group: all, each aridity class and season, the worst locations.

    error, half_width   (row, output); location and regime (row), of places that were not calibrated on
    Columns: output, group, coverage (every location counting once), width (mean of whole intervals), locations. The
    worst are the tenth of the locations that are covered least, one at least.
    """
    error, half_width = np.asarray(error), np.broadcast_to(half_width, np.shape(error))
    location, regime = np.unique(location, return_inverse=True)[1], np.asarray(regime)
    groups = {"all": np.ones(regime.shape, bool)}
    groups |= {name: regime // 2 == k for k, name in enumerate(ARIDITY)}
    groups |= {f"{name} season": regime % 2 == k for k, name in enumerate(SEASONS)}
    rows = []
    for k, output in enumerate(outputs):
        inside = np.abs(error[:, k]) <= half_width[:, k]
        for group, here in groups.items():
            places = location[here]
            if not places.size:
                continue
            days = np.bincount(places)
            share = np.bincount(places, inside[here])[days > 0] / days[days > 0]
            width = np.bincount(places, 2.0 * half_width[here, k])[days > 0] / days[days > 0]
            rows.append((output, group, share.mean(), width.mean(), share.size))
            if group == "all":
                worst = np.argsort(share, kind="stable")[: max(1, share.size // 10)]
                rows.append((output, "worst tenth", share[worst].mean(), width[worst].mean(), worst.size))
    return pd.DataFrame(rows, columns=["output", "group", "coverage", "width", "locations"])


def _quantile(scores: np.ndarray, location: np.ndarray, level: float) -> tuple[np.ndarray, int]:
    """(half-width (output) from scores (row, output), how many locations there are); infinite for too few."""
    found, number = np.full(scores.shape[1], np.inf), np.unique(location).size
    if number < _fewest(level):
        return found, number
    first = np.cumsum(np.unique(location, return_counts=True)[1])[:-1]
    groups = np.split(np.argsort(location, kind="stable"), first)
    for k, column in enumerate(scores.T):
        grid = np.sort(column)[np.unique(np.linspace(0, column.size - 1, GRID).round().astype(int))]
        shares = np.stack([np.searchsorted(np.sort(column[rows]), grid, "right") / rows.size for rows in groups])
        others = (shares.sum(axis=0) - shares) / (number - 1)
        low, high, at = 0.0, 1.0, _first(others, 1.0)
        if shares[range(number), at].mean() < level - 1e-12:
            continue
        while high - low > 1e-4:
            middle = 0.5 * (low + high)
            tried = _first(others, middle)
            if shares[range(number), tried].mean() >= level - 1e-12:
                high, at = middle, tried
            else:
                low = middle
        found[k] = grid[at.max()]
    return found, number


def _fewest(level: float) -> int:
    """Locations of which all but one are a share of the level."""
    return int(np.ceil(1.0 / (1.0 - level) - 1e-9))


def _first(shares: np.ndarray, asked: float) -> np.ndarray:
    """Where each row of shares, rising to 1, first reaches what is asked."""
    return np.minimum((shares < asked - 1e-12).sum(axis=1), shares.shape[1] - 1)
