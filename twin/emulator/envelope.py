"""What the trees have seen: outside it they answer with the nearest they know, which is no answer.

    one feature at a time    a box of 0.1 to 99.9 % of the training, all its sides widened until 1 row of 1000 is out
    some features together   Mahalanobis distance from their mean, the limit again that of 1 row of 1000

A row is outside where either says so. The two kinds of novelty are those of Mesgaran, Cousens & Webber (2014), Divers.
Distrib. 20, 1147; distance: Mahalanobis (1936), Proc. Natl. Inst. Sci. India 2, 49.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from twin.errors import RangeError, VariableError

TAIL = 0.001  # of the training rows, beyond a side of the box before it is widened, and outside in the end
_LEAST = 1000  # rows
_BLOCK = 1 << 16  # rows that are looked at together


@dataclass(frozen=True, eq=False)
class Envelope:
    """The limits of what was trained on.

    names              of the features, in the order of a row
    low, high          (feature) sides of the box
    together           which features are also taken together
    centre, whitening  (k) their mean and (k, k) what makes them uncorrelated with deviation 1: d² = |(x − centre) W|²
    distance           the largest d that is inside
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    together: tuple[str, ...]
    centre: np.ndarray
    whitening: np.ndarray
    distance: float

    @classmethod
    def fit(cls, features: np.ndarray, names: Sequence[str], together: Sequence[str]) -> Envelope:
        """Of training rows (row, feature), or enough of them that the rare ones are among them.

        The box is widened by the same multiple of each side's tail, from the 1 % to the 0.1 % quantile (5 % of the box
        at least), so that a feature with a long tail has more room. Raises VariableError for features that are not
        there, RangeError for rows that are too few or not finite.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != len(names):
            raise VariableError("features", expected=f"(row, {len(names)})", found=f"shape {features.shape}")
        unknown = [name for name in together if name not in names]
        if unknown or not together:
            found = ", ".join(unknown) or "none"
            raise VariableError("features taken together", expected="some of the names", found=found)
        if len(features) < _LEAST or not np.isfinite(features).all():
            found = f"{len(features)}" if len(features) < _LEAST else "nan or infinite values"
            raise RangeError("rows of an envelope", expected=f"{_LEAST} or more, finite", found=found)
        sides = np.quantile(features, [TAIL, 10 * TAIL, 1 - 10 * TAIL, 1 - TAIL], axis=0)
        still = sides[0] == sides[3]  # all but a few rows are the same: those few are the box
        sides[0][still], sides[3][still] = features[:, still].min(axis=0), features[:, still].max(axis=0)
        room = 0.05 * (sides[3] - sides[0])
        below, above = np.maximum(sides[1] - sides[0], room), np.maximum(sides[3] - sides[2], room)
        beyond = np.zeros(len(features))
        for part in _blocks(len(features)):
            rows = features[part]
            with np.errstate(divide="ignore", invalid="ignore"):
                away = np.fmax((sides[0] - rows) / below, (rows - sides[3]) / above)
            beyond[part] = np.nan_to_num(away, nan=0.0).max(axis=1)
        wider = max(float(np.quantile(beyond, 1 - TAIL)), 0.0)
        low, high = sides[0] - wider * below, sides[3] + wider * above
        at = [list(names).index(name) for name in together]
        some = features[:, at].astype(np.float64)
        centre, spread = some.mean(axis=0), some.std(axis=0)
        spread[spread == 0.0] = 1.0
        values, vectors = np.linalg.eigh(np.cov(((some - centre) / spread).T).reshape(len(at), len(at)))
        whitening = vectors / np.sqrt(np.maximum(values, 1e-6)) / spread[:, None]
        distance = float(np.quantile(_distance(some, centre, whitening), 1 - TAIL))
        return cls(tuple(names), low, high, tuple(together), centre, whitening, distance)

    def outside(self, features: np.ndarray) -> np.ndarray:
        """Which rows are, (row) bool; a row with a NaN is."""
        found = np.empty(len(features), bool)
        for part in _blocks(len(features)):
            rows = self._known(features[part])
            inside = ((rows >= self.low) & (rows <= self.high)).all(axis=1)
            found[part] = ~(inside & (self._away(rows) <= self.distance))
        return found

    def reasons(self, features: np.ndarray) -> pd.DataFrame:
        """Why rows are outside: row, feature, value, low, high; the feature "together" has its distance as its value.

        A line for each feature that is out of its box; the furthest of a row first, in widths of the box.
        """
        rows = self._known(features)
        distance = self._away(rows)
        row, at = np.nonzero(~((rows >= self.low) & (rows <= self.high)))
        values, low, high = rows[row, at].astype(np.float64), self.low[at], self.high[at]
        far = np.maximum(low - values, values - high) / np.where(high > low, high - low, np.abs(high) + 1e-30)
        odd = np.flatnonzero(~(distance <= self.distance))
        lines = pd.DataFrame(
            {
                "row": np.concatenate([row, odd]),
                "feature": np.concatenate([np.array(self.names, object)[at], np.full(odd.size, "together", object)]),
                "value": np.concatenate([values, distance[odd]]),
                "low": np.concatenate([low, np.zeros(odd.size)]),
                "high": np.concatenate([high, np.full(odd.size, self.distance)]),
                "far": np.concatenate([far, distance[odd] / self.distance - 1.0]),
            }
        )
        lines = lines.sort_values(["row", "far"], ascending=[True, False], kind="stable", na_position="first")
        return lines.drop(columns="far").reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        box = {name: [float(a), float(b)] for name, a, b in zip(self.names, self.low, self.high, strict=True)}
        ellipse = {"centre": self.centre.tolist(), "whitening": self.whitening.tolist(), "distance": self.distance}
        return {"box": box, "together": list(self.together), **ellipse}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Envelope:
        """What `to_dict` gave; VariableError or RangeError where it cannot have been that."""
        try:
            names, together = tuple(map(str, told["box"])), tuple(map(str, told["together"]))
            low, high = np.array([*told["box"].values()], np.float64).reshape(len(names), 2).T
            centre, whitening = (np.array(told[name], np.float64) for name in ("centre", "whitening"))
            distance = float(told["distance"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise VariableError("envelope", expected="what Envelope.to_dict gives", found=repr(err)) from err
        shapes = (len(together),), (len(together), len(together))
        if (centre.shape, whitening.shape) != shapes or not set(together) <= set(names):
            raise VariableError("envelope", expected=f"{shapes} of its names", found=(centre.shape, whitening.shape))
        if not (np.isfinite([*low, *high, *centre, *whitening.ravel(), distance]).all() and (low <= high).all()):
            raise RangeError("envelope", expected="finite limits, the low ones first", found="others")
        return cls(names, low, high, together, centre, whitening, distance)

    def _known(self, features: np.ndarray) -> np.ndarray:
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise VariableError("features", expected=f"(row, {len(self.names)})", found=f"shape {features.shape}")
        return features

    def _away(self, rows: np.ndarray) -> np.ndarray:
        at = [self.names.index(name) for name in self.together]
        return _distance(rows[:, at].astype(np.float64), self.centre, self.whitening)


def _distance(rows: np.ndarray, centre: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    return np.sqrt((((rows - centre) @ whitening) ** 2).sum(axis=1))


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(first, first + _BLOCK) for first in range(0, rows, _BLOCK))
