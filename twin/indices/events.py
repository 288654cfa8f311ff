"""Drought events by run theory: when each began and ended, how severe it was, how often such a one returns.

       x  │     ╲                ╱╲        ╱       gap: at most `merge_gap` days, its excess above x0 less than
      x0  │──────╲──────────────╱──╲──────╱───     `merge_excess` of the deficit so far: one event
          │       ╲░░░░░░░░░░░░╱ gap╲░░░░╱         severity S = ░ = Σ (x0 − x) over the days below x0
          └────────┴──────────────────────┴───     duration D from onset to end, both counted; dropped if short
                 onset                   end

A missing day is neither drought nor the end of it: within a gap it counts as a day without excess. An event next to a
missing day, or to the record's first or last, is `censored` on that side: it may have been longer and more severe.
Refs: Yevjevich (1967), Hydrology Paper 23, Colorado State Univ. (runs); Tallaksen et al. (1997), Hydrol. Sci. J. 42, 15
(pooling by time and excess; there the excess is taken off the severity, here it is not).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from twin.errors import SettingsError, TimeError, VariableError
from twin.indices.years import as_days, place
from twin.land.compiled import compiled
from twin.land.threads import spread

THRESHOLD = 20.0  # percentile: below it is moderate drought
MERGE_GAP, MERGE_EXCESS, SHORTEST = 10, 0.1, 30  # days; of the deficit; days
FALL_FROM, FALL_TO, FALL_WITHIN = 40.0, 20.0, 20  # percentiles; days
REPLICATIONS, CONFIDENCE = 1000, 0.9
_DAY = np.timedelta64(1, "D")
_YEAR = 365.25  # days
_ANY = 1 << 41  # days: with so many to fall in, every run counts
_NEVER = -(1 << 40)  # the day of what has not been
_ROWS = ("cell", "onset", "end", "peak_day", "high")  # what `_march` finds in whole numbers
_FIGURES = ("severity", "peak")  # and in others


def drought_events(
    values: xr.DataArray,
    threshold: float = THRESHOLD,
    *,
    merge_gap: int = MERGE_GAP,
    merge_excess: float = MERGE_EXCESS,
    shortest: int = SHORTEST,
    threads: int | None = None,
) -> xr.Dataset:
    """Every run of days below a threshold, dim `event`, in the order of cells and then of time.

    values         (time, cell), consecutive days: percentiles, or anything of which less is drier
    threshold      x0, in the unit of the values
    merge_gap      most days between two runs that are one event; 0 merges none
    merge_excess   what the excess of a gap must stay below, as a share of the deficit before it
    shortest       fewest days of an event
    cell (its index), onset and end (first and last day below x0), duration (days), severity (unit day), intensity
    (severity by duration), peak (lowest value) and peak_day, censored_start and censored_end. Raises VariableError for
    other dims, TimeError for gaps in time, SettingsError for rules that no event can meet.
    """
    rules = {"threshold": threshold, "merge_gap": merge_gap, "merge_excess": merge_excess, "shortest": shortest}
    data = _checked(values, rules)
    return _events(values, data, rules, threads, threshold, threshold, -np.inf, _ANY)


def flash_drought(
    percentile: xr.DataArray,
    *,
    fall_from: float = FALL_FROM,
    fall_to: float = FALL_TO,
    within: int = FALL_WITHIN,
    shortest: int = 1,
    threads: int | None = None,
) -> xr.Dataset:
    """Every run of days at or below `fall_to` that came within so many days of one at or above `fall_from`.

    percentile   (time, cell), consecutive days
    shortest     fewest days at or below `fall_to`
    As `drought_events` has it, severities below `fall_to`, no runs merged (a missing day ends one) and `falling_since`,
    the last day at or above `fall_from`. The same errors.
    Ref: Ford & Labosier (2017), Agric. For. Meteorol. 247, 414 (40th to 20th percentile in four pentads).
    """
    rules = {"fall_from": fall_from, "fall_to": fall_to, "within": within, "shortest": shortest}
    if not (fall_to < fall_from and within >= 1):
        expected = "fall_to below fall_from, and one day or more"
        raise SettingsError("flash drought", expected=expected, found=f"{fall_from} to {fall_to} in {within} days")
    data = _checked(percentile, rules)
    limit = np.nextafter(fall_to, np.inf)  # at or below: below the next number
    return _events(percentile, data, rules, threads, fall_to, limit, fall_from, within)


def event_area(events: xr.Dataset, time: np.ndarray, weights: ArrayLike) -> xr.DataArray:
    """Share of the area in an event on each day, 1, dims (time).

    time      (time) consecutive days
    weights   area of each cell (cell) of the values the events are of, any unit; 0 where nothing was ever known
    """
    days, area = _as_days(time), np.asarray(weights, dtype=np.float64)
    steps = np.zeros(days.size + 1)
    for edge, sign in ((_as_days(events["onset"].values), 1.0), (_as_days(events["end"].values) + _DAY, -1.0)):
        row = np.clip((edge - days[0]) // _DAY, 0, days.size)
        np.add.at(steps, row, sign * area[events["cell"].values])
    share = np.clip(np.cumsum(steps)[:-1] / area.sum(), 0.0, 1.0)
    attrs = {"units": "1", "long_name": "share of the area in drought", "of": events.attrs.get("of", "")}
    return xr.DataArray(share, {"time": np.asarray(time, "datetime64[ns]")}, ("time",), "event_area", attrs)


def _checked(values: xr.DataArray, rules: dict) -> np.ndarray:
    data, days = as_days(values), _as_days(values["time"].values)
    if days.size == 0 or (np.diff(days) != _DAY).any():
        raise TimeError("time of the days", expected="consecutive days", found="gaps" if days.size else "none")
    if rules["shortest"] < 1 or rules.get("merge_gap", 0) < 0 or rules.get("merge_excess", 0.0) < 0.0:
        raise SettingsError("rules of events", expected="shortest at least 1, no negative ones", found=rules)
    return data


def _events(values, data, rules, threads, x0, limit, high, within) -> xr.Dataset:
    """The events of cells (time, cell): counted first, then written side by side."""
    cells = data.shape[1]
    merge = int(rules.get("merge_gap", 0)), float(rules.get("merge_excess", 0.0)), int(rules["shortest"])
    number = np.zeros(cells, np.int64)
    told = np.empty((len(_ROWS), 0), np.int64), np.empty((len(_FIGURES), 0), np.float64)
    for fill in (False, True):
        offset = np.cumsum(number) - number
        if fill:
            total = int(number.sum())
            told = np.empty((len(_ROWS), total), np.int64), np.empty((len(_FIGURES), total), np.float64)
        march = partial(
            _march, data, float(x0), float(limit), float(high), int(within), merge, fill, offset, number, *told
        )
        spread(march, cells, threads or os.cpu_count() or 1)
    rows, figures = dict(zip(_ROWS, told[0], strict=True)), dict(zip(_FIGURES, told[1], strict=True))
    return _labelled(values, data, rules, rows, figures)


def _labelled(values: xr.DataArray, data: np.ndarray, rules: dict, rows: dict, figures: dict) -> xr.Dataset:
    time = np.asarray(values["time"].values, dtype="datetime64[ns]")
    unit = str(values.attrs.get("units", "1"))
    duration = rows["end"] - rows["onset"] + 1

    def unknown(row: np.ndarray) -> np.ndarray:
        outside = (row < 0) | (row >= time.size)
        return outside | np.isnan(data[np.where(outside, 0, row), rows["cell"]])

    event = {
        "cell": (rows["cell"], {"units": "1", "long_name": "index of the cell"}),
        "onset": (time[rows["onset"]], {"long_name": "first day of the event"}),
        "end": (time[rows["end"]], {"long_name": "last day of the event"}),
        "duration": (duration, {"units": "day", "long_name": "days from onset to end"}),
        "severity": (figures["severity"], {"units": _by_days(unit), "long_name": "deficit below the threshold"}),
        "intensity": (figures["severity"] / duration, {"units": unit, "long_name": "severity by duration"}),
        "peak": (figures["peak"], {"units": unit, "long_name": "lowest value"}),
        "peak_day": (time[rows["peak_day"]], {"long_name": "day of the lowest value"}),
        "censored_start": (unknown(rows["onset"] - 1), {"long_name": "the day before is not known"}),
        "censored_end": (unknown(rows["end"] + 1), {"long_name": "the day after is not known"}),
    }
    if "within" in rules:
        event["falling_since"] = (time[rows["high"]], {"long_name": "last day at or above fall_from"})
    coords = {name: ("event", where.values[rows["cell"]]) for name, where in place(values).items()}
    reference = {key: told for key, told in values.attrs.items() if key.startswith("reference_")}
    attrs = {
        "of": str(values.name),
        **reference,
        **rules,
        "record_start": str(time[0])[:10],
        "record_end": str(time[-1])[:10],
    }
    return xr.Dataset({name: ("event", *told) for name, told in event.items()}, coords, attrs)


def _by_days(unit: str) -> str:
    return "day" if unit == "1" else f"{unit} day"


def _as_days(time: np.ndarray) -> np.ndarray:
    return np.asarray(time).astype("datetime64[D]")


@compiled
def _march(values, x0, limit, high, within, merge, fill, offset, number, rows, figures, first, last):
    """Count the events of cells first..last, or fill them in: rows and figures (kind, event) from `offset` (cell) on.

    A run stays open until it can no longer be merged with what follows. All are closed after the last day.
    """
    gap, excess, shortest = merge
    n, days = last - first, values.shape[0]
    onset, below, peak_day = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    above, fell_from = np.full(n, _NEVER, np.int64), np.zeros(n, np.int64)  # last day ≥ high: so far, before this run
    deficit, over, peak = np.zeros(n), np.zeros(n), np.zeros(n)
    number[first:last] = 0
    for day in range(days + 1):
        for k in range(n):
            value = values[day, first + k] if day < days else np.nan
            dry = value < limit
            if value >= high:
                above[k] = day
            if onset[k] >= 0:
                away = day - below[k]
                if value == value and not dry:
                    over[k] += value - x0
                parted = away > 1 and not over[k] < excess * deficit[k] if dry else away > gap
                if parted or day == days:
                    if below[k] - onset[k] + 1 >= shortest and onset[k] - fell_from[k] <= within:
                        if fill:
                            e = offset[first + k] + number[first + k]
                            rows[0, e], rows[1, e], rows[2, e] = first + k, onset[k], below[k]
                            rows[3, e], rows[4, e] = peak_day[k], fell_from[k]
                            figures[0, e], figures[1, e] = deficit[k], peak[k]
                        number[first + k] += 1
                    onset[k] = -1
            if dry:
                if onset[k] < 0:
                    onset[k], fell_from[k], deficit[k], peak[k] = day, above[k], 0.0, np.inf
                below[k], over[k] = day, 0.0
                deficit[k] += x0 - value
                if value < peak[k]:
                    peak[k], peak_day[k] = value, day


# --- how often --------------------------------------------------------------------------------------------------------
def return_period(
    events: xr.Dataset,
    levels: ArrayLike,
    rng: np.random.Generator,
    *,
    of: str = "severity",
    distribution: str = "empirical",
    replications: int = REPLICATIONS,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Mean years between events of one place at each level or beyond it, dims (level): return_period, low, high.

    events         of one cell, of `drought_events`
    levels         (level) of the figure `of`: severity, duration, ...
    distribution   "empirical": F counts events; "exponential": with the smallest event as its origin, which also tells
                   of levels beyond the largest
    Partial-duration series, T = μ/(1 − F(s)), μ the years of the record by its events. low and high: the record's years
    drawn anew with replacement, inner share `confidence`; of a level that was never reached T and high are infinite and
    low is what so many years without it exclude (Poisson). Censored events count as they are, so T may be too long. For
    the climate of the record: in one that changes a return period is of its window of years only. Raises VariableError
    for events of several cells, SettingsError for another distribution.
    Refs: Langbein (1949), Trans. AGU 30, 879; Zelenhasić & Salvai (1987), Water Resour. Res. 23, 156 (exponential).
    """
    size, year, record = _one_place(events, of)
    level = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    draws = np.concatenate([np.ones((1, record.size)), _drawn_years(rng, record.size, replications)])
    if distribution == "empirical":
        reached = (draws @ _by_year(size[:, None] >= level, year, record.size)) / record.years
    elif distribution == "exponential":
        ones = np.ones((size.size, 1))
        number, total = (draws @ _by_year(x, year, record.size) for x in (ones, size[:, None]))
        origin = size.min() if size.size else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = (total - number * origin) / np.maximum(number - 1.0, 1.0)
            share = np.exp(-np.maximum(level - origin, 0.0) / scale)
        reached = number / record.years * np.where(level <= origin, 1.0, np.nan_to_num(share))
    else:
        raise SettingsError("distribution", expected="empirical or exponential", found=distribution)
    told = {"of": of, "distribution": distribution, "units_of_level": str(events[of].attrs.get("units", "1"))}
    return _periods(reached, record, replications, confidence, told, {"level": level})


def joint_return_period(
    events: xr.Dataset,
    duration: ArrayLike,
    severity: ArrayLike,
    rng: np.random.Generator,
    *,
    copula: str = "gumbel",
    replications: int = REPLICATIONS,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Mean years between events of one place that are so long and so severe, dims (level), as `return_period` has it.

    duration, severity   (level), pairs
    copula               "gumbel": C = exp(−((−ln F_D)^θ + (−ln F_S)^θ)^(1/θ)), θ = 1/(1 − τ) from Kendall's τ, at least
                         1; "empirical": events counted
    T_and = μ/(1 − F_D − F_S + C(F_D, F_S)), F by Weibull's positions. The same errors.
    Refs: Shiau (2006), Water Resour. Manage. 20, 795; Genest & Favre (2007), J. Hydrol. Eng. 12, 347 (θ from τ).
    """
    D, year, record = _one_place(events, "duration")
    S = events["severity"].values
    d, s = np.broadcast_arrays(np.atleast_1d(np.asarray(duration, float)), np.atleast_1d(np.asarray(severity, float)))
    samples = [np.arange(D.size)]
    for draw in _drawn_years(rng, record.size, replications):
        samples.append(np.repeat(samples[0], draw[year].astype(np.int64)))
    if copula not in ("gumbel", "empirical"):
        raise SettingsError("copula", expected="gumbel or empirical", found=copula)
    jointly: Callable[..., np.ndarray] = _gumbel if copula == "gumbel" else _counted
    reached = np.stack([i.size / record.years * jointly(D[i], S[i], d, s) for i in samples])
    told = {"of": "duration, severity", "copula": copula}
    levels = {"duration": ("level", d), "severity": ("level", s)}
    return _periods(reached, record, replications, confidence, told, levels)


def annual_return_period(minima: xr.DataArray, levels: ArrayLike, *, confidence: float = CONFIDENCE) -> xr.Dataset:
    """Mean years between years with a minimum at each level or below, dims (level, cell): return_period, low, high.

    minima   (year, cell), the lowest value of each year; those missing are left out
    T = 1/p with p = k/(n + 1), k of n years at or below (Weibull). low and high are those of p ~ Beta(k + ½, n − k + ½)
    (Jeffreys), which hold the truth more often than years drawn anew; T and high of a level never reached are infinite.
    T counts years because minima are one a year: a z of −2 is one in 44 of what is sampled, of monthly values a month,
    and no 44-year event. Raises VariableError for other dims.
    Refs: Gumbel (1958), Statistics of Extremes, 1.2; Brown, Cai & DasGupta (2001), Stat. Sci. 16, 101 (interval).
    """
    if minima.dims != ("year", "cell"):
        raise VariableError(f"dims of '{minima.name}'", expected=("year", "cell"), found=minima.dims)
    level, tail = np.atleast_1d(np.asarray(levels, dtype=np.float64)), 0.5 * (1.0 - confidence)
    n = minima.notnull().sum("year").values
    k = np.stack([(minima.values <= x).sum(axis=0) for x in level])
    often, seldom = (betaincinv(k + 0.5, n - k + 0.5, q) for q in (1.0 - tail, tail))
    with np.errstate(divide="ignore"):
        found = np.stack([(n + 1) / k, 1.0 / often, np.where(k == 0, np.inf, 1.0 / seldom)])
    found[:, :, n == 0] = np.nan
    attrs = {"of": str(minima.name), "years": int(n.max(initial=0)), "confidence": confidence}
    variables = {name: (("level", "cell"), found[k], _YEARS) for k, name in enumerate(("return_period", "low", "high"))}
    return xr.Dataset(variables, {"level": level, **place(minima)}, attrs)


_YEARS = {"units": "year"}


@dataclass(frozen=True)
class _Record:
    """How long a record is, in years, and of how many years those are drawn that are drawn anew."""

    years: float
    size: int


def _one_place(events: xr.Dataset, of: str) -> tuple[np.ndarray, np.ndarray, _Record]:
    """(figure of each event, index of the year of the record it began in, the record)."""
    if np.unique(events["cell"].values).size > 1:
        raise VariableError("events", expected="those of one cell", found=f"{np.unique(events['cell'].values).size}")
    start, end = (np.datetime64(events.attrs[f"record_{side}"], "D") for side in ("start", "end"))
    years = float((end - start) / _DAY + 1) / _YEAR
    size = max(1, round(years))
    year = ((_as_days(events["onset"].values) - start) / _DAY / _YEAR).astype(np.int64)
    return events[of].values.astype(np.float64), np.minimum(year, size - 1), _Record(years, size)


def _drawn_years(rng: np.random.Generator, size: int, replications: int) -> np.ndarray:
    """How often each year is drawn (replication, year)."""
    return rng.multinomial(size, np.full(size, 1.0 / size), replications).astype(np.float64)


def _by_year(values: np.ndarray, year: np.ndarray, size: int) -> np.ndarray:
    """Sums (year, level) of values (event, level)."""
    sums = np.zeros((size, values.shape[1]))
    np.add.at(sums, year, values)
    return sums


def _gumbel(D: np.ndarray, S: np.ndarray, d: np.ndarray, s: np.ndarray) -> np.ndarray:
    """P(D ≥ d, S ≥ s) of events by a Gumbel copula, (level)."""
    from scipy.stats import kendalltau  # takes longer to import than the rest of the indices

    if D.size == 0:
        return np.zeros(d.shape)
    tau = kendalltau(D, S).statistic if D.size > 1 else 0.0
    theta = 1.0 / (1.0 - np.clip(np.nan_to_num(tau), 0.0, 0.99))
    u, v = (1.0 - (x >= level[:, None]).sum(axis=1) / (x.size + 1.0) for x, level in ((D, d), (S, s)))
    both = np.exp(-(((-np.log(u)) ** theta + (-np.log(v)) ** theta) ** (1.0 / theta)))
    return np.maximum(1.0 - u - v + both, 0.0)


def _counted(D: np.ndarray, S: np.ndarray, d: np.ndarray, s: np.ndarray) -> np.ndarray:
    """P(D ≥ d, S ≥ s) of events as their share, (level)."""
    return ((d[:, None] <= D) & (s[:, None] <= S)).sum(axis=1) / max(D.size, 1)


def _periods(reached: np.ndarray, record: _Record, replications: int, confidence: float, told, levels) -> xr.Dataset:
    """Return periods from rates a year (replication, level), the first of them that of the record itself."""
    tail = 0.5 * (1.0 - confidence)
    with np.errstate(divide="ignore"):
        T = 1.0 / np.where(reached > 1e-12, reached, 0.0)
    low, high = np.quantile(T[1:], [tail, 1.0 - tail], axis=0, method="inverted_cdf")
    low = np.where(np.isinf(T[0]), record.years / -np.log(tail), low)
    found = {"return_period": T[0], "low": low, "high": high}
    attrs = {**told, "record_years": record.years, "replications": replications, "confidence": confidence}
    return xr.Dataset({name: ("level", values, _YEARS) for name, values in found.items()}, levels, attrs)
