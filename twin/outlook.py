"""The rest of the season, as past years had it: an ensemble of how the season may end, and what became of such.

    observed so far ───────────────────────────┐
                                               ├─▸ whole season ─metric─▸ a member ─weights─▸ quantiles, probabilities
    the rest, as in each past year (`rest`) ───┘
    every past season whole ─metric─▸ climatology: terciles and percentiles that the members are held against

`rest` resamples the record itself, or is a land model that goes on from the state of today under the weather of a past
year (`carried`). `metric` is any function of a season's days: its mean, its rain, its dry days, its onset. Members are
weighted alike, by `analogues`, or by a forecast of `terciles`. The year that is foretold is never among its own
members, nor in its own climatology. In `hindcast` all other years are, later ones too.

With m the members, w their weights (Σw = 1), c the bound that is asked for:

    by count      Σ w [m < c] + ½ Σ w [m = c]
    as normal     Φ((c − m̄)/s),  m̄ = Σ w m,  s² = Σ w (m − m̄)²/(1 − Σ w²)
    effective sample size   1/Σ w²: of how many members of equal weight one may speak

Limits: the future is taken to be one of the past years, so that nothing worse than they were together with what has
been is foretold, and no trend; a resampled record of soil moisture knows nothing of the drought so far, which only a
land model carries on: resample rain, or carry a model.
Refs: Asfaw et al. (2018), Geosci. Model Dev. 11, 2353 (TAMSAT-ALERT); Boult et al. (2020), Meteorol. Appl. 27, e1959
(soil moisture and WRSI); Ellis et al. (2024), Geosci. Model Dev. 17, 8353 (weights by analogues); Kish (1965), Survey
Sampling, section 11.7 (effective sample size).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import ndtr

from twin.errors import RangeError, TimeError, VariableError
from twin.indices.years import place
from twin.model import LandModel

LEAST = 10  # past years below which there is no outlook
TERCILES = ("below", "normal", "above")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PERCENTILES = (20.0,)  # of climatology: D1 begins there
STRENGTH = 1.0  # of analogues: a year one standard deviation away has e⁻¹ of the weight

_DAY = np.timedelta64(86_400_000_000_000, "ns")

Day = str | date | np.datetime64
Metric = Callable[[xr.DataArray], xr.DataArray]  # days of a season (time, cell) → (cell)
Rest = Callable[[pd.DatetimeIndex, int], xr.DataArray]  # days to come, years ago → as it was then, (time, cell)
Weigh = Callable[[np.ndarray, int, xr.DataArray | None], np.ndarray]  # years, target, so far → (year, 1 or cell)


def outlook(
    series: xr.DataArray,
    metric: Metric,
    season: tuple[Day, Day],
    *,
    issued: Day | None = None,
    rest: Rest | None = None,
    weigh: Weigh | None = None,
    years: tuple[int, int] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    quantiles: Sequence[float] = QUANTILES,
    least: int = LEAST,
) -> xr.Dataset:
    """What a season's metric may become: members and weights (realization, cell), and what follows from them (… cell).

    series        what the metric is of, (time, cell), consecutive days: past seasons, and this one up to `issued`
    metric        of the days of one season, (cell); NaN is missing, so let no onset be a number
    season        first and last day of the season that is foretold; past seasons are on the same days of their years
    issued        the last day that is known; by default the last of the series
    rest          how the days to come would be under the weather of a past year; by default as the series had them
    weigh         `analogues`, `terciles` or one's own; by default all alike
    years         first and last past season, by the year they begin in; by default all that the series holds whole
    percentiles   of climatology, %, below which the probability is asked for
    Variables: member (named by `year`), weight; mean, standard_deviation, effective_sample_size, member_quantile;
    climatology_mean, climatology_standard_deviation, tercile_bound, percentile_bound; tercile_probability and
    probability_below by count, and `…_normal`. A cell with fewer than `least` members has NaN. Raises TimeError with
    fewer past seasons or for days that are not there, RangeError for percentiles and quantiles there are not.
    """
    days, known = _season(season), _day(series["time"].values[-1] if issued is None else issued)
    past = _past(series, metric, days, years, least, int(days[0].year))
    return _foretold(series, metric, days, known, past, rest, weigh or equal, percentiles, quantiles, least)


def hindcast(
    series: xr.DataArray,
    metric: Metric,
    season: tuple[Day, Day],
    leads: Sequence[int],
    *,
    rest: Callable[[pd.Timestamp], Rest] | None = None,
    weigh: Weigh | None = None,
    years: tuple[int, int] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    quantiles: Sequence[float] = QUANTILES,
    least: int = LEAST,
) -> xr.Dataset:
    """Outlooks of every past season at every lead, from all others, and what came: dims (year, lead_time, …, cell).

    season   of any one year: first and last day
    leads    days of the season that are still to come, most first; more than it has is before it begins
    rest     what goes on from a day: issued → `rest` of that outlook; by default the series resampled
    Other arguments, and errors, are those of `outlook`. The variables of each outlook but its members, and `observed`
    (year, cell), `observed_tercile` (0 to 2, −1 missing) and `observed_below` (percentile; 0, 1, NaN missing), held
    against the bounds of the same outlook, which do not know it: what `twin.verification` takes.
    """
    days = _season(season)
    begins = int(days[0].year)
    targets = _whole(series, days, years, least + 1, None)
    of_years = []
    for target in targets:
        limits = same_days(days, begins - target)[[0, -1]]
        then = pd.date_range(*limits)
        past = _past(series, metric, then, (targets[0], targets[-1]), least, int(target))
        of_leads = []
        for lead in leads:
            issued = then[-1] - pd.Timedelta(days=int(lead))
            going = None if rest is None else rest(issued)
            told = _foretold(series, metric, then, issued, past, going, weigh or equal, percentiles, quantiles, least)
            of_leads.append(told.drop_vars(["member", "weight", "year"]))
        truth = _figure(metric, _same(series, then, 0))
        of_years.append(_stacked(of_leads, "lead_time").assign(observed=("cell", truth)))
    found = _stacked(of_years, "year").assign_coords(
        year=targets, lead_time=("lead_time", [*leads], {"units": "day", "long_name": "days of the season to come"})
    )
    observed, missing = found["observed"], found["observed"].isnull() | found["mean"].isnull()
    found["observed_tercile"] = xr.where(missing, -1, (observed > found["tercile_bound"]).sum("bound")).astype(np.int8)
    found["observed_below"] = (observed < found["percentile_bound"]).astype(np.float64).where(~missing)
    about = {
        "of": str(series.name),
        "reference_start": str(same_days(days, begins - targets[0])[0].date()),
        "reference_end": str(same_days(days, begins - targets[-1])[-1].date()),
        "reference_years": targets.size - 1,
    }
    return found.assign_attrs(about)


@dataclass(frozen=True)
class _Past:
    """The past seasons of an outlook: years (n), their days on those of the target (n, day, cell), metric (n, cell)."""

    years: np.ndarray
    seasons: np.ndarray
    figures: np.ndarray


def _past(
    series: xr.DataArray,
    metric: Metric,
    days: pd.DatetimeIndex,
    years: tuple[int, int] | None,
    least: int,
    target: int,
) -> _Past:
    found = _whole(series, days, years, least, target)
    seasons = [_same(series, days, target - year) for year in found]
    figures = [_figure(metric, season) for season in seasons]
    return _Past(found, np.stack([season.values for season in seasons]), np.stack(figures))


def _foretold(
    series: xr.DataArray,
    metric: Metric,
    days: pd.DatetimeIndex,
    known: pd.Timestamp,
    past: _Past,
    rest: Rest | None,
    weigh: Weigh,
    percentiles: Sequence[float],
    quantiles: Sequence[float],
    least: int,
) -> xr.Dataset:
    """The outlook of one season, as it was known on one day."""
    target, seen, ahead = int(days[0].year), days[days <= known], days[days > known]
    so_far, where = _same(series, seen, 0).values, place(series)
    members = []
    for year, season in zip(past.years, past.seasons, strict=True):
        then = season[seen.size :]
        if rest is not None and ahead.size:
            going = rest(ahead, target - int(year)).transpose("time", "cell")
            if not going.indexes["time"].equals(ahead):
                found = f"{going.sizes['time']} others"
                raise TimeError(f"the rest of the season as in {year}", expected=f"its {ahead.size} days", found=found)
            then = going.values
        spliced = np.concatenate([so_far, then])
        member = xr.DataArray(spliced, {"time": days, **where}, ("time", "cell"), series.name, series.attrs)
        members.append(_figure(metric, member))
    likeness = None
    if seen.size:
        means = np.concatenate([past.seasons[:, : seen.size].mean(axis=1), so_far.mean(axis=0)[None]])
        likeness = xr.DataArray(means, {"year": [*past.years, target]}, ("year", "cell"))
    weights = np.asarray(weigh(past.years, target, likeness), np.float64)
    told = _statistics(np.stack(members), weights, past.figures, percentiles, quantiles, least)
    about = {
        "of": str(series.name),
        "season": f"{days[0].date()} to {days[-1].date()}",
        "issued": str(known.date()),
        "lead_time": f"{ahead.size} days",
        "reference_start": str(same_days(days, target - past.years[0])[0].date()),
        "reference_end": str(same_days(days, target - past.years[-1])[-1].date()),
        "reference_years": past.years.size,
    }
    return told.assign_coords({"year": ("realization", past.years), **where}).assign_attrs(about)


# ------------------------------------------------------------------------------------------------- the days to come
def same_days(days: pd.DatetimeIndex, ago: int) -> pd.DatetimeIndex:
    """The same days of the calendar `ago` years before; 28 February for a 29th that is not there."""
    month = days.values.astype("datetime64[M]")
    then = month - np.timedelta64(12 * int(ago), "M")
    moment = then + (days.values - month)
    return pd.DatetimeIndex(np.where(moment.astype("datetime64[M]") == then, moment, moment - np.timedelta64(1, "D")))


def carried(
    model: LandModel,
    state: xr.Dataset,
    parameters: xr.Dataset,
    forcing: xr.Dataset,
    of: Callable[[xr.Dataset], xr.DataArray],
) -> Rest:
    """`rest` by a land model that goes on from `state`, at the end of the last known day, under past years' weather.

    forcing   recorded weather that holds those days of the past years, at any constant step
    of        what the series is, from the model's diagnostics: (time, cell), one value a day
    """
    return lambda days, ago: of(model.run(state, _same(forcing, days, ago), parameters)[1])


# --------------------------------------------------------------------------------------------------------- weights
def equal(years: np.ndarray, target: int, so_far: xr.DataArray | None) -> np.ndarray:
    """All years alike."""
    return np.ones(years.size)


def analogues(index: xr.DataArray | None = None, strength: float = STRENGTH) -> Weigh:
    """Years weigh the more, the more they resemble the one that is foretold: exp(−Σ (strength · Δ)²).

    index      (year), (year, index) or (year, cell), of past years and the target: a climate index known by now (of the
               ocean before the season, say); by default the mean of the series over the season so far, by cell
    strength   0 is all alike
    Δ is in standard deviations of the index among the past years; a year without index has no weight, and where the
    target has none all weigh alike. Ref: Ellis et al. (2024). Raises TimeError for an index that lacks a year, or
    before the season begins.
    """
    if not strength >= 0.0:
        raise RangeError("strength of analogues", expected="0 or more", found=strength)

    def weigh(years: np.ndarray, target: int, so_far: xr.DataArray | None) -> np.ndarray:
        values = so_far if index is None else index
        if values is None:
            raise TimeError("analogues", expected="an index, or a season that has begun", found="neither")
        then, now = _of_years(values, [*years, target], "index of the analogues")[:-1], values.sel(year=target).values
        count = np.maximum(np.isfinite(then).sum(axis=0), 1)
        spread = np.sqrt(np.nansum((then - np.nansum(then, axis=0) / count) ** 2, axis=0) / count)
        away = strength * np.divide(then - now, spread, out=np.zeros_like(then), where=spread > 0.0)
        square = np.where(np.isfinite(then), away**2, np.inf)
        if "index" in values.dims:
            square = square.sum(axis=values.transpose("year", ...).get_axis_num("index"))
            now = np.where(np.isfinite(now).all(), 1.0, np.nan)
        return np.where(np.isfinite(now), np.exp(-square), 1.0)

    return weigh


def terciles(probabilities: ArrayLike | xr.DataArray, totals: xr.DataArray) -> Weigh:
    """Years weigh as a forecast says of their tercile: p_k over the number of years in tercile k.

    probabilities   (below, normal, above) that add up to 1, or a DataArray (year, tercile) with the target's
    totals          (year) or (year, cell) what is forecast, of past years: the rain of the season, say
    The terciles are those of the past years; one that no year is in (of no rain, all are equal) cannot be given, and
    the others' probabilities are scaled to 1. Ref: Asfaw et al. (2018). Raises RangeError for other probabilities,
    TimeError for a year there is not.
    """

    def weigh(years: np.ndarray, target: int, so_far: xr.DataArray | None) -> np.ndarray:
        given = probabilities
        if isinstance(given, xr.DataArray) and "year" in given.dims:
            given = _of_years(given, [target], "forecast of terciles")[0]
        p = np.asarray(given, np.float64)
        if p.shape != (3,) or not (p >= 0.0).all() or abs(p.sum() - 1.0) > 1e-6:
            expected = "below, normal and above, 0 to 1, adding up to 1"
            raise RangeError("forecast of terciles", expected=expected, found=p.tolist())
        values = _of_years(totals, years, "totals of the terciles")
        known = np.isfinite(values)
        low, high = weighted_quantile(values, known.astype(np.float64), (1.0 / 3.0, 2.0 / 3.0))
        tercile = (values >= low).astype(int) + (values > high)
        members = [((tercile == k) & known).sum(axis=0) for k in range(3)]
        each = [np.divide(p[k], n, out=np.zeros(np.shape(n)), where=n > 0) for k, n in enumerate(members)]
        return np.where(known, np.choose(tercile, each), 0.0)

    return weigh


# ------------------------------------------------------------------------------------------------------ statistics
def weighted_quantile(values: np.ndarray, weights: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Quantiles (probability, …) of values (n, …) with weights (n, …), between Hazen's positions C_i − w_i/2.

    C_i is the weight of the i smallest, all weights 1 in sum: with equal weights, Hazen's quantiles (i − ½)/n. Values
    without weight, and NaN, are not there. Ref: Hazen (1914), Trans. ASCE 77, 1539.
    """
    known = np.isfinite(values) & (weights > 0.0)
    largest = np.where(known.any(axis=0), np.where(known, values, -np.inf).max(axis=0), np.nan)
    order = np.argsort(np.where(known, values, np.inf), axis=0, kind="stable")
    ranked = np.take_along_axis(np.where(known, values, largest), order, axis=0)
    share = np.take_along_axis(np.where(known, weights, 0.0), order, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = share / share.sum(axis=0)
    position = np.cumsum(share, axis=0) - 0.5 * share
    found = []
    for p in probabilities:
        above = np.clip((position < p).sum(axis=0), 1, len(values) - 1)[None]
        (x0, x1), (p0, p1) = (
            [np.take_along_axis(array, above - k, axis=0)[0] for k in (1, 0)] for array in (ranked, position)
        )
        part = np.divide(p - p0, p1 - p0, out=np.zeros_like(p0), where=p1 > p0).clip(0.0, 1.0)
        found.append(x0 + part * (x1 - x0))
    return np.stack(found)


def mean_and_deviation(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation (…) of values (n, …), weights adding up to 1; NaN counts if it has weight.

    s² = Σ w (x − x̄)²/(1 − Σ w²): with equal weights, the usual one with n − 1; NaN with the weight on one value.
    """
    values = np.where(weights > 0.0, values, 0.0)
    mean = (weights * values).sum(axis=0)
    spare = 1.0 - (weights**2).sum(axis=0)
    square = (weights * (values - mean) ** 2).sum(axis=0)
    return mean, np.sqrt(np.divide(square, spare, out=np.full_like(square, np.nan), where=spare > 1e-12))


def below(values: np.ndarray, weights: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Share of the weight (…) of values (n, …) below a bound (…), of those at it half; weights adding up to 1."""
    return (weights * ((values < bound) + 0.5 * (values == bound))).sum(axis=0).clip(0.0, 1.0)


def below_as_normal(mean: np.ndarray, deviation: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Probability of less than a bound under a normal distribution; without spread 0, ½ or 1."""
    away = np.asarray(bound - mean, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            deviation > 0.0, ndtr(away / deviation), np.where(deviation == 0.0, (np.sign(away) + 1) / 2, np.nan)
        )


def _statistics(members, weights, climate, percentiles, quantiles, least) -> xr.Dataset:
    """The Dataset of `outlook` from members (year, cell), weights (year[, cell]) and climatology (year, cell)."""
    _check("quantiles", quantiles, 1.0)
    _check("percentiles", percentiles, 100.0)
    weights = weights[:, None] if weights.ndim == 1 else weights
    if weights.shape not in (members.shape, (len(members), 1)) or not (weights >= 0.0).all():
        expected = f"{members.shape[0]} years or {members.shape}, none negative or missing"
        raise RangeError("weights of the years", expected=expected, found=f"shape {weights.shape}")
    known = np.isfinite(members)
    few = (known.sum(axis=0) < least) | (np.isfinite(climate).sum(axis=0) < least)
    w = np.where(known, weights, 0.0)
    total = w.sum(axis=0)
    w = np.divide(w, total, out=np.zeros_like(w), where=(total > 0.0) & ~few)
    unknown = ~(w.sum(axis=0) > 0.0)
    usual = np.isfinite(climate) / np.maximum(np.isfinite(climate).sum(axis=0), 1)
    (mean, deviation), (normal_mean, normal_deviation) = (
        mean_and_deviation(members, w),
        mean_and_deviation(climate, usual),
    )
    bounds = weighted_quantile(climate, usual, (1.0 / 3.0, 2.0 / 3.0))
    limits = weighted_quantile(climate, usual, [p / 100.0 for p in percentiles])

    def of_terciles(under: np.ndarray, over: np.ndarray) -> np.ndarray:
        return np.stack([under, 1.0 - under - over, over]).clip(0.0, 1.0)

    count = [below(members, w, bound) for bound in (*bounds, *limits)]
    normal = [below_as_normal(mean, deviation, bound) for bound in (*bounds, *limits)]
    with np.errstate(divide="ignore"):
        size = 1.0 / (w**2).sum(axis=0)
    rows: dict[str, tuple[tuple[str, ...], np.ndarray, str]] = {
        "mean": ((), mean, "weighted mean of the members"),
        "standard_deviation": ((), deviation, "weighted standard deviation of the members"),
        "effective_sample_size": ((), size, "members of equal weight that these stand for"),
        "climatology_mean": ((), normal_mean, "mean of the past seasons"),
        "climatology_standard_deviation": ((), normal_deviation, "standard deviation of the past seasons"),
        "member_quantile": (
            ("quantile",),
            weighted_quantile(members, w, quantiles),
            "weighted quantiles of the members",
        ),
        "tercile_bound": (("bound",), bounds, "bounds of the terciles of the past seasons"),
        "percentile_bound": (("percentile",), limits, "percentiles of the past seasons"),
        "tercile_probability": (("tercile",), of_terciles(count[0], 1.0 - count[1]), "probability of each tercile"),
        "tercile_probability_normal": (
            ("tercile",),
            of_terciles(normal[0], 1.0 - normal[1]),
            "probability of each tercile, members taken as normal",
        ),
        "probability_below": (("percentile",), np.stack(count[2:]), "probability of less than the percentile"),
        "probability_below_normal": (
            ("percentile",),
            np.stack(normal[2:]),
            "probability of less than the percentile, members taken as normal",
        ),
    }
    found = xr.Dataset(
        {
            name: ((*dims, "cell"), np.where(unknown, np.nan, values), {"long_name": words})
            for name, (dims, values, words) in rows.items()
        },
        {"quantile": [*quantiles], "percentile": [*percentiles], "tercile": [*TERCILES]},
    )
    found["member"] = (("realization", "cell"), members, {"long_name": "the metric if the rest is as in that year"})
    found["weight"] = (("realization", "cell"), w, {"units": "1", "long_name": "weight of that year"})
    return found


# --------------------------------------------------------------------------------------------------------- helpers
def _same(data: Any, days: pd.DatetimeIndex, ago: int) -> Any:
    """The data of the same days `ago` years before, all steps of each day, under the days' own times."""
    record = data.indexes["time"].values
    steps = max(1, round(_DAY / (record[1] - record[0])))
    times = (
        days if steps == 1 else pd.DatetimeIndex((days.values[:, None] + np.arange(steps) * (_DAY // steps)).ravel())
    )
    rows, missing = _rows(record, same_days(times, ago))
    if missing.any():
        raise TimeError("days of the record", expected=str(same_days(times, ago)[missing][0].date()), found="none")
    if isinstance(data, xr.Dataset):
        return data.isel(time=rows).assign_coords(time=times)
    values = data.transpose("time", "cell").values[rows]
    return xr.DataArray(values, {"time": times, **place(data)}, ("time", "cell"), data.name, data.attrs)


def _rows(record: np.ndarray, times: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
    """(row of each time in an ascending record, whether there is none)."""
    rows = np.searchsorted(record, times.values).clip(max=record.size - 1)
    return rows, record[rows] != times.values


def _season(season: tuple[Day, Day]) -> pd.DatetimeIndex:
    first, last = (_day(day) for day in season)
    days = pd.date_range(first, last)
    if not 0 < days.size <= 366:
        raise TimeError(
            "season", expected="a first day and a last one within a year", found=f"{first.date()} to {last.date()}"
        )
    return days


def _day(day: Any) -> pd.Timestamp:
    return pd.Timestamp(day).normalize()


def _whole(
    series: xr.DataArray, days: pd.DatetimeIndex, years: tuple[int, int] | None, least: int, target: int | None
) -> np.ndarray:
    """Years whose season the series holds whole, but for the target; TimeError where they are fewer than `least`."""
    if set(series.dims) != {"time", "cell"}:
        raise VariableError(f"dims of '{series.name}'", expected=("time", "cell"), found=series.dims)
    record, begins = series.indexes["time"], int(days[0].year)
    first, last = years or (record[0].year, record[-1].year)
    whole = [
        year
        for year in range(first, last + 1)
        if year != target and not _rows(record.values, same_days(days, begins - year))[1].any()
    ]
    if len(whole) < max(least, 2):
        raise TimeError("past seasons of an outlook", expected=f"{max(least, 2)} or more", found=len(whole))
    return np.array(whole)


def _figure(metric: Metric, days: xr.DataArray) -> np.ndarray:
    """The metric of a season, (cell) float64; VariableError for another shape."""
    found = np.asarray(metric(days), np.float64)
    if found.shape != (days.sizes["cell"],):
        raise VariableError("metric of a season", expected=f"(cell {days.sizes['cell']})", found=f"shape {found.shape}")
    return found


def _of_years(values: xr.DataArray, years: Sequence[int] | np.ndarray, what: str) -> np.ndarray:
    """The values (year, …) of those years."""
    missing = sorted(set(map(int, years)) - set(values["year"].values.tolist()))
    if missing:
        raise TimeError(what, expected="every year that is weighed", found=f"none of {missing[0]}")
    return values.sel(year=[*years]).transpose("year", ...).values.astype(np.float64)


def _stacked(parts: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(parts, dim, coords="minimal", compat="override", combine_attrs="drop")


def _check(what: str, values: Sequence[float], top: float) -> None:
    if not len(values) or not all(0.0 < value < top for value in values):
        raise RangeError(f"{what} of an outlook", expected=f"some between 0 and {top:g}", found=list(values))
