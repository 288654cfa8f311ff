"""How good forecasts of yes and no have been: Brier score and its parts, reliability, ROC, warnings hit and missed.

    probability, outcome (n) ─┬─brier─────────────▸ score = reliability − resolution + uncertainty + within
                              ├─reliability_curve─▸ how often it happened, for each probability that was given
                              ├─roc_area──────────▸ whether it was given more where it happened
                              └─(≥ p)─contingency─▸ hits, misses, false alarms
    warnings, events (spells of days) ─matched──────▸ the same of whole events, and the days of warning before each

With p the forecasts, o the outcomes (0 or 1), ō their mean, and bins k of n_k forecasts of mean p_k and outcome o_k:

    brier         mean (p − o)²                     skill        1 − brier/brier of the reference
    reliability   Σ n_k (p_k − o_k)²/n              resolution   Σ n_k (o_k − ō)²/n
    uncertainty   ō (1 − ō)                         within       Σ Σ (p − p_k)²/n − 2 Σ Σ (p − p_k)(o − o_k)/n

`within` is 0 where a bin holds one probability alone, and the identity is exact with it. A pair of which either is
missing does not count. Forecasts of neighbouring cells in one year are not independent: all limits given here are
those of independent ones, and too narrow otherwise.
Refs: Murphy (1973), J. Appl. Meteorol. 12, 595 (parts of the score); Stephenson, Coelho & Jolliffe (2008), Wea.
Forecasting 23, 752 (within bins); Wilks (2011), Statistical Methods in the Atmospheric Sciences, chapter 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from twin.errors import RangeError, TimeError, VariableError

BINS = 10
LEVEL = 0.9


@dataclass(frozen=True)
class Brier:
    """A Brier score (0 is perfect) and the parts that add up to it, of `count` forecasts."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float
    count: int


def brier(probability: ArrayLike, outcome: ArrayLike, bins: int | None = None) -> Brier:
    """The Brier score of forecasts and its parts, by the probabilities that were given or by `bins` of equal width.

    probability   0..1, any shape
    outcome       whether it happened, 0 or 1, same shape
    Raises VariableError for other shapes or no forecast, RangeError for other values. NaN is left out.
    """
    p, o = _pairs(probability, outcome)
    group = np.unique(p if bins is None else _bin(p, bins), return_inverse=True)[1]
    count, forecast, observed = _means(p, o, group)
    away, about = p - forecast[group], o - observed[group]
    return Brier(
        score=float(np.mean((p - o) ** 2)),
        reliability=float(count @ (forecast - observed) ** 2 / p.size),
        resolution=float(count @ (observed - o.mean()) ** 2 / p.size),
        uncertainty=float(o.mean() * (1.0 - o.mean())),
        within=float(np.mean(away**2) - 2.0 * np.mean(away * about)),
        count=p.size,
    )


def brier_score(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Mean square of the difference between probability and outcome, 0 (perfect) to 1; arguments as of `brier`."""
    p, o = _pairs(probability, outcome)
    return float(np.mean((p - o) ** 2))


def brier_skill_score(probability: ArrayLike, outcome: ArrayLike, reference: ArrayLike | None = None) -> float:
    """1 for perfect forecasts, 0 for ones no better than the reference; arguments as of `brier`.

    reference   probability that was known before, of each forecast or one of all; the share of the outcomes themselves
                if it is not given, which nobody knew before. NaN where the reference is perfect.
    """
    p, o, known = _pairs(probability, outcome, np.nan if reference is None else reference)
    worse = float(np.mean(((o.mean() if reference is None else known) - o) ** 2))
    return 1.0 - float(np.mean((p - o) ** 2)) / worse if worse > 0.0 else float("nan")


def reliability_curve(
    probability: ArrayLike, outcome: ArrayLike, bins: int = BINS, level: float = LEVEL
) -> pd.DataFrame:
    """How often it happened, for bins of the probability given: a row a bin, arguments as of `brier`.

    lower, upper   of the bin; `upper` belongs to the last bin alone
    count, probability, frequency   forecasts, their mean, share of them that happened; NaN in an empty bin
    low, high      limits of the frequency at `level`, by Clopper & Pearson (1934), Biometrika 26, 404
    """
    if not 0.0 < level < 1.0:
        raise RangeError("level", expected="between 0 and 1", found=level)
    p, o = _pairs(probability, outcome)
    count, forecast, frequency = _means(p, o, _bin(p, bins), bins)
    happened, tail = np.rint(count * np.nan_to_num(frequency)), 0.5 * (1.0 - level)
    with np.errstate(invalid="ignore"):
        low = np.where(happened > 0, stats.beta.ppf(tail, happened, count - happened + 1), 0.0)
        high = np.where(happened < count, stats.beta.ppf(1.0 - tail, happened + 1, count - happened), 1.0)
    limits = {"low": np.where(count > 0, low, np.nan), "high": np.where(count > 0, high, np.nan)}
    edges = np.linspace(0.0, 1.0, bins + 1)
    table = {"lower": edges[:-1], "upper": edges[1:], "count": count, "probability": forecast, "frequency": frequency}
    return pd.DataFrame(table | limits)


def roc_area(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Chance that an event was given more than a non-event, ties half: 1 is perfect, ½ no skill; as of `brier`.

    The area under the curve of hit rate over false-alarm rate, which is Mann and Whitney's statistic; NaN where all or
    none happened. Ref: Mason & Graham (2002), Q. J. R. Meteorol. Soc. 128, 2145.
    """
    p, o = _pairs(probability, outcome)
    events = int(o.sum())
    if events in (0, o.size):
        return float("nan")
    ranks = stats.rankdata(p)[o == 1.0].sum()
    return float((ranks - events * (events + 1) / 2.0) / (events * (o.size - events)))


def ranked_probability_score(probabilities: ArrayLike, category: ArrayLike) -> float:
    """Mean over forecasts of Σ_k (Σ_{j≤k} p_j − [category ≤ k])², 0 (perfect) to K − 1, for K ordered categories.

    probabilities   (n, K), each row adding up to 1
    category        (n) which one it was, 0 to K − 1; negative or NaN is missing
    Refs: Epstein (1969), J. Appl. Meteorol. 8, 985; Murphy (1971), J. Appl. Meteorol. 10, 155.
    """
    return float(_ranked(probabilities, category).mean())


def ranked_probability_skill_score(
    probabilities: ArrayLike, category: ArrayLike, reference: ArrayLike | None = None
) -> float:
    """1 for perfect forecasts, 0 for ones no better than the reference; arguments as of `ranked_probability_score`.

    reference   (K) or (n, K); all categories alike (terciles: a third each) if it is not given
    """
    p = np.asarray(probabilities, np.float64)
    known = np.full(p.shape[-1], 1.0 / p.shape[-1]) if reference is None else np.asarray(reference, np.float64)
    mine, theirs = _ranked(p, category), _ranked(np.broadcast_to(known, p.shape), category)
    return float(1.0 - mine.mean() / theirs.mean()) if theirs.mean() > 0.0 else float("nan")


@dataclass(frozen=True)
class Contingency:
    """How many were warned of and happened, and the rates of it; a rate of nothing is NaN.

    lead   days from warning to event, of each hit, where they are known; negative if the warning came after it
    correct_negatives is None where events are counted, not days: there is no number of events that were not.
    """

    hits: int
    misses: int
    false_alarms: int
    correct_negatives: int | None = None
    lead: tuple[int, ...] = ()

    @property
    def hit_rate(self) -> float:
        """Share of what happened that was warned of."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def false_alarm_ratio(self) -> float:
        """False alarms among hits and false alarms."""
        return _share(self.false_alarms, self.hits + self.false_alarms)

    @property
    def false_alarm_rate(self) -> float:
        """Share of what did not happen that was warned of; NaN where that is not counted."""
        if self.correct_negatives is None:
            return float("nan")
        return _share(self.false_alarms, self.false_alarms + self.correct_negatives)

    @property
    def lead_time(self) -> float:
        """Median days from warning to event."""
        return float(np.median(self.lead)) if self.lead else float("nan")


def contingency(warned: ArrayLike, outcome: ArrayLike) -> Contingency:
    """Hits, misses, false alarms and correct negatives of warnings (0 or 1) and outcomes (0 or 1), one shape."""
    w, o = _pairs(warned, outcome)
    if not np.isin(w, (0.0, 1.0)).all():
        raise RangeError("warnings", expected="0 or 1", found=f"{w.min():g} to {w.max():g}")
    yes, happened = w == 1.0, o == 1.0
    hits, misses = int((yes & happened).sum()), int((~yes & happened).sum())
    return Contingency(hits, misses, int((yes & ~happened).sum()), int((~yes & ~happened).sum()))


Spell = tuple[str | np.datetime64, str | np.datetime64]  # first and last day


def matched(warnings: Sequence[Spell], events: Sequence[Spell], ahead: int = 0) -> Contingency:
    """Which events were warned of, which warnings were false, and how early they came.

    warnings, events   their first and last days, ISO or datetime64
    ahead              days that a warning reaches beyond its last day: one of an outlook is right until then
    An event is hit by a warning that is in force on one of its days, its lead counts from the first such warning to its
    first day. A warning is false if it hits no event; of several that hit one event only the first counts.
    Raises TimeError for a spell that ends before it begins.
    """
    given, were = _spells(warnings, "warning"), _spells(events, "event")
    meets = (given[:, None, 0] <= were[None, :, 1]) & (given[:, None, 1] + ahead >= were[None, :, 0])
    hit = np.flatnonzero(meets.any(axis=0))
    first = [int(given[meets[:, event], 0].min()) for event in hit]
    lead = tuple(int(were[event, 0]) - begun for event, begun in zip(hit, first, strict=True))
    return Contingency(hit.size, len(were) - hit.size, int((~meets.any(axis=1)).sum()), None, lead)


def _pairs(probability: ArrayLike, outcome: ArrayLike, *more: ArrayLike) -> tuple[np.ndarray, ...]:
    """(p, o, …) as flat float64 without the pairs that miss one."""
    p, o = np.asarray(probability, np.float64), np.asarray(outcome, np.float64)
    if p.shape != o.shape:
        raise VariableError("forecasts and outcomes", expected="one shape", found=f"{p.shape} and {o.shape}")
    known = np.isfinite(p) & np.isfinite(o)
    if not known.any():
        raise VariableError("forecasts", expected="at least one with its outcome", found="none")
    rest = [np.broadcast_to(np.asarray(values, np.float64), p.shape)[known] for values in more]
    p, o = p[known], o[known]
    if p.min() < 0.0 or p.max() > 1.0:
        raise RangeError("probabilities", expected="0 to 1", found=f"{p.min():g} to {p.max():g}")
    if not np.isin(o, (0.0, 1.0)).all():
        raise RangeError("outcomes", expected="0 or 1", found=f"{o.min():g} to {o.max():g}")
    return p, o, *rest


def _bin(p: np.ndarray, bins: int) -> np.ndarray:
    if bins < 1:
        raise RangeError("bins", expected="1 or more", found=bins)
    return np.minimum(np.searchsorted(np.linspace(0.0, 1.0, bins + 1), p, side="right") - 1, bins - 1)


def _means(p: np.ndarray, o: np.ndarray, group: np.ndarray, groups: int = 0) -> tuple[np.ndarray, ...]:
    """(count, mean p, mean o) of each group; NaN means of an empty one."""
    count = np.bincount(group, minlength=groups)
    with np.errstate(invalid="ignore"):
        return count, *(np.bincount(group, values, groups) / count for values in (p, o))


def _ranked(probabilities: ArrayLike, category: ArrayLike) -> np.ndarray:
    """Ranked probability score of each forecast whose category is known."""
    p, found = np.asarray(probabilities, np.float64), np.asarray(category, np.float64)
    if p.ndim != 2 or p.shape[:1] != found.shape:
        raise VariableError("forecasts", expected="(n, K) with categories (n)", found=f"{p.shape} and {found.shape}")
    known = np.isfinite(p).all(axis=1) & (found >= 0)  # NaN is not
    p, found = p[known], found[known]
    if not known.any():
        raise VariableError("forecasts", expected="at least one with its category", found="none")
    if p.min() < 0.0 or np.abs(p.sum(axis=1) - 1.0).max() > 1e-6 or found.max() >= p.shape[1]:
        expected = f"0 to 1 adding up to 1, and categories below {p.shape[1]}"
        raise RangeError("probabilities", expected=expected, found="others")
    return ((np.cumsum(p, axis=1) - (found[:, None] <= np.arange(p.shape[1]))) ** 2).sum(axis=1)


def _spells(spells: Sequence[Spell], what: str) -> np.ndarray:
    """(n, 2) first and last days, numbered."""
    days = np.array([[np.datetime64(day, "D") for day in spell] for spell in spells], "datetime64[D]").reshape(-1, 2)
    numbers = days.astype(np.int64)
    if (numbers[:, 1] < numbers[:, 0]).any():
        wrong = days[numbers[:, 1] < numbers[:, 0]][0]
        raise TimeError(what, expected="a last day not before the first", found=f"{wrong[0]} to {wrong[1]}")
    return numbers


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
