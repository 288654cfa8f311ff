"""What is usual for the time of the year: quantiles of soil moisture, and where a value lies among them.

The year has 365 days (29 February counts as 28 February) in 73 pentads of five. The reference of a pentad holds all
values within 15 days of its middle, of all reference years. Its quantiles are kept at a few probabilities (knots) with
Weibull's plotting positions: the i-th smallest of m values has probability i/(m + 1). Between two pentads the knots are
interpolated, because a value that stays the same must not change its class overnight where the calendar turns a page.

The values of one season are hardly independent, so a percentile resolves to years, not to values: with a share F of the
values of n other years below it, a value is taken as one of n + 1 exchangeable years, at Hazen's position
(F n + 1/2)/(n + 1). The lowest of two other years is therefore at 17 %, never in an exceptional drought; the 2nd
percentile takes 24 years. How well a percentile is known is `interval`'s to say.
Refs: Hazen (1914), Trans. ASCE 77, 1539; Cunnane (1978), J. Hydrol. 37, 205.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import exp, lgamma, log, log1p

import numpy as np
import pandas as pd
import xarray as xr
from numba import njit

from twin.errors import TimeError, VariableError
from twin.land.threads import spread
from twin.variables import VARIABLES

PENTADS = 73
HALF_WINDOW = 15  # days on either side
PROBS = (
    *(0.0, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 1.0),
)  # 0 and 1 are the smallest and the largest value; the class bounds are knots

WIDTH = 256  # cells that are ranked together
HELD = 32  # ranks whose marks are counted together, and cells that are read together

KNOTS = "soil_moisture_quantile"


def day_of_year(time: np.ndarray) -> np.ndarray:
    """Day in the 365-day year, 0..364, int64; 29 February is the day of 28 February."""
    index = pd.DatetimeIndex(time)
    leap, day = index.is_leap_year, index.day_of_year.to_numpy() - 1
    return day - (leap & (day >= 59)).astype(np.int64)


def year_of(time: np.ndarray, start_month: int = 1) -> np.ndarray:
    """Year each time belongs to, labelled by the calendar year it starts in; years start with `start_month`."""
    index = pd.DatetimeIndex(time)
    return index.year.to_numpy() - (index.month.to_numpy() < start_month)


def build(
    theta: xr.DataArray | np.ndarray,
    time: np.ndarray,
    exclude_year: int | None = None,
    probs: Sequence[float] = PROBS,
    start_month: int = 1,
    threads: int | None = None,
) -> xr.Dataset:
    """Knots of every pentad and cell, Dataset with KNOTS (pentad, probability, cell), float32, NaN without any value.

    theta          (time, cell), any unit; NaN is left out
    time           (time) datetime64, days, any order
    exclude_year   a year (of `year_of`) that is left out
    Attributes: reference_start, reference_end (first and last day), reference_years (how many), reference_values (the
    most values a window holds), start_month. Raises TimeError without any day.
    """
    values, days, years = _prepare(theta, time, start_month)
    if exclude_year is not None:
        values, time, days, years = _keep(years != exclude_year, values, time, days, years)
    if len(days) == 0:
        raise TimeError("reference", expected="at least one day", found="none")
    knots = np.empty((PENTADS, len(probs), values.shape[1]), np.float32)
    march = partial(_knots, values, *_by_day(days), np.asarray(probs, dtype=np.float64), knots)
    spread(march, values.shape[1], threads or os.cpu_count() or 1)
    place = {name: theta[name] for name in ("lat", "lon") if isinstance(theta, xr.DataArray) and name in theta.coords}
    coords = {"pentad": np.arange(1, PENTADS + 1), "probability": np.asarray(probs, dtype=np.float64), **place}
    attrs = {**VARIABLES["root_zone_soil_moisture"].attrs, "long_name": "quantiles of soil moisture by time of year"}
    return xr.Dataset(
        {KNOTS: (("pentad", "probability", "cell"), knots, attrs)}, coords, _reference(time, years, start_month)
    )


def build_tiles(
    read: Callable[[slice], np.ndarray],
    cells: int,
    time: np.ndarray,
    tile: int = 2048,
    exclude_year: int | None = None,
    probs: Sequence[float] = PROBS,
    start_month: int = 1,
) -> Iterator[tuple[slice, xr.Dataset]]:
    """`build` for a grid too large for memory: (cells, reference of those cells), tile by tile.

    read   the series (time, cell) of a slice of cells; called once per tile
    """
    for first in range(0, cells, tile):
        part = slice(first, min(first + tile, cells))
        yield part, build(read(part), time, exclude_year, probs, start_month)


def percentile(
    theta: xr.DataArray | np.ndarray, time: np.ndarray, reference: xr.Dataset, threads: int | None = None
) -> xr.DataArray:
    """Percentile of each value among the reference of its time of year, %, float32, dims (time, cell).

    theta   (time, cell) or (cell) with one time; NaN gives NaN, as does a cell without reference
    Monotone in theta. Equal knots (a soil that is always at its driest, say) give the middle of their probabilities.
    Below all of n reference years 50/(n + 1), above all of them 100 less that.
    """
    values = np.atleast_2d(np.asarray(theta, dtype=np.float32))
    times = np.atleast_1d(np.asarray(time, dtype="datetime64[ns]"))
    before, weight = pentad_of(times)
    needed = np.unique([before, (before + 1) % PENTADS])  # the only ones to read
    knots = reference[KNOTS].isel(pentad=needed).transpose("pentad", "probability", "cell").values
    knots = np.ascontiguousarray(knots)
    if values.shape != (times.size, knots.shape[2]):
        expected = f"(time {times.size}, cell {knots.shape[2]})"
        raise VariableError("soil moisture", expected=expected, found=f"shape {values.shape}")
    positions = hazen(reference["probability"].values, int(reference.attrs["reference_years"]))
    ranks = np.empty(values.shape, dtype=np.float32)
    between = np.searchsorted(needed, np.stack([before, (before + 1) % PENTADS]))
    march = partial(_rank, values, knots, between, weight.astype(np.float32), 100.0 * positions, ranks)
    spread(march, values.shape[1], threads or os.cpu_count() or 1)
    return _labelled(ranks, theta, times)


def percentile_leave_one_out(theta: xr.DataArray | np.ndarray, time: np.ndarray) -> tuple[xr.DataArray, int]:
    """(percentile of each value among the other years, how many years those are): for records too short to be split.

    Each value is ranked among all values within 15 days of the same time of year, those of its own season (less than
    half a year away) left out; its share counts equal values half. NaN where there is no other value.
    Raises TimeError with a record of less than two years.
    """
    values, days, _ = _prepare(theta, time, 1)
    moments = np.asarray(time, dtype="datetime64[D]").astype(np.int64)
    number = round((moments.max() - moments.min() + 1) / 365.25) if len(moments) else 0
    if number < 2:
        raise TimeError("reference years", expected="two or more", found=number)
    order, start = _by_day(days)
    share = np.full(values.shape, np.nan, dtype=np.float32)
    _rank_others(values, days, moments, order, start, share)
    ranks = (100.0 * hazen(share, number - 1)).astype(np.float32)
    return _labelled(ranks, theta, np.asarray(time, dtype="datetime64[ns]")), number - 1


def hazen(share: np.ndarray, n_years: int) -> np.ndarray:
    """Position, 0..1, of a value that a `share` of n other years' values lies below."""
    return (share * n_years + 0.5) / (n_years + 1.0)


def interval(percentile: xr.DataArray | np.ndarray, n_years: int, level: float = 0.9) -> tuple:
    """(low, high) of the sampling interval of a percentile known from n independent years, %, shapes as `percentile`.

    With n years the value at probability p has about rank p(n + 1), and the true probability of that rank follows
    Beta(p(n + 1), (1 − p)(n + 1)). A rank outside 1..n is held there, so that three years never claim to be sure of an
    exceptional drought, and the interval is widened to contain the percentile itself.
    """
    if n_years < 1:
        raise TimeError("reference years", expected="at least one", found=n_years)
    grid = np.linspace(0.0, 1.0, 201)
    ranks = np.clip(grid * (n_years + 1), 1.0, n_years) if n_years > 1 else np.full(grid.shape, 1.0)
    tail = 0.5 * (1.0 - level)
    bounds = [[_beta_quantile(q, r, n_years + 1 - r) for r in ranks] for q in (tail, 1.0 - tail)]
    values = np.asarray(percentile, dtype=np.float64)
    low, high = (100.0 * np.interp(values / 100.0, grid, bound) for bound in bounds)  # NaN stays NaN
    found = [bound.astype(np.float32) for bound in (np.minimum(low, values), np.maximum(high, values))]
    if isinstance(percentile, xr.DataArray):
        return tuple(percentile.copy(data=bound) for bound in found)
    return tuple(found)


def pentad_of(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index 0..72 of the pentad whose middle is at or before each day, weight 0..0.8 of the next)."""
    since = day_of_year(time) - 2  # the middle of the first pentad is 3 January
    return (since // 5) % PENTADS, (since % 5) / 5.0


def _prepare(theta, time, start_month) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values float32 (time, cell), day of the year, year)."""
    if isinstance(theta, xr.DataArray):
        theta = theta.transpose("time", "cell").values
    values = np.asarray(theta, dtype=np.float32)
    if values.ndim != 2 or values.shape[0] != len(time):
        raise VariableError("soil moisture", expected=f"(time {len(time)}, cell)", found=f"shape {values.shape}")
    return values, day_of_year(time), year_of(time, start_month)


def _keep(mask: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(array)[mask] for array in arrays)


def _by_day(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows sorted by day of the year, where each of the 365 days starts in them, and the end)."""
    order = np.argsort(days, kind="stable")
    return order, np.searchsorted(days[order], np.arange(366))


def _reference(time: np.ndarray, years: np.ndarray, start_month: int) -> dict:
    days = np.unique(np.asarray(time, dtype="datetime64[D]"))
    number = max(1, round(days.size / 365.25))
    return {
        "reference_start": str(days.min()),
        "reference_end": str(days.max()),
        "reference_years": number,
        "reference_values": number * (2 * HALF_WINDOW + 1),
        "start_month": start_month,
    }


def _labelled(ranks: np.ndarray, theta, times: np.ndarray) -> xr.DataArray:
    place = {name: theta[name] for name in ("lat", "lon") if isinstance(theta, xr.DataArray) and name in theta.coords}
    variable = VARIABLES["soil_moisture_percentile"]
    return xr.DataArray(ranks, {"time": times, **place}, ("time", "cell"), variable.name, variable.attrs)


@njit(cache=True, nogil=True, error_model="numpy")
def _knots(values, order, start, probs, knots, first, last):
    """Quantiles (pentad, probability, cell) of values (time, cell); order and start list the rows of each day.

    A cell's values are sorted once. The window of a pentad is a mark on each of its ranks and the number of marks in
    every HELD of them: the next pentad moves the marks of ten days, and finds its i-th value by counting.
    """
    size = values.shape[0]
    series, place = np.empty((HELD, size), np.float32), np.empty(size, np.int64)
    ranked, marked = np.empty(size, np.float32), np.empty(size + 1, np.bool_)
    held, below = np.empty(size // HELD + 1, np.int64), np.empty(size // HELD + 2, np.int64)
    for block in range(first, last, HELD):
        for row in range(size):
            for cell in range(block, min(block + HELD, last)):
                series[cell - block, row] = values[row, cell]
        for cell in range(block, min(block + HELD, last)):
            _sort(series[cell - block], ranked, place)
            marked[:], held[:], below[:] = False, 0, 0
            for pentad in range(PENTADS):
                middle = 5 * pentad + 2
                if pentad > 0:
                    _mark(middle - HALF_WINDOW - 5, middle - HALF_WINDOW, order, start, place, marked, held, False)
                    _mark(middle + HALF_WINDOW - 4, middle + HALF_WINDOW + 1, order, start, place, marked, held, True)
                else:
                    _mark(middle - HALF_WINDOW, middle + HALF_WINDOW + 1, order, start, place, marked, held, True)
                for each in range(held.size):
                    below[each + 1] = below[each] + held[each]
                m, part = below[held.size], 0
                for p in range(probs.size):
                    if m == 0:
                        knots[pentad, p, cell] = np.nan
                        continue
                    rank = min(max(probs[p] * (m + 1), 1.0), float(m)) - 1.0
                    wanted = min(int(rank), m - 1)
                    while below[part] > wanted:  # only where the probabilities do not rise
                        part -= 1
                    while below[part + 1] <= wanted:
                        part += 1
                    at = HELD * part
                    seen = below[part] + marked[at]
                    while seen <= wanted:
                        at += 1
                        seen += marked[at]
                    low = float(ranked[at])
                    if wanted < m - 1:
                        at += 1
                        while not marked[at]:
                            at += 1
                    high = float(ranked[at])
                    knots[pentad, p, cell] = low + (rank - wanted) * (high - low)


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(first, last, order, start, place, marked, held, inside):
    """Put the values of the days first..last of the year into the window, or take them out."""
    for away in range(first, last):
        day = away % 365
        for r in range(start[day], start[day + 1]):
            rank = place[order[r]]
            if rank >= 0:
                marked[rank] = inside
                held[rank // HELD] += 1 if inside else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(series, ranked, place):
    """Ascending values, and the place of each row among them, −1 for NaN.

    By three digits of the bits, the lowest first. Ref: Knuth (1998), The Art of Computer Programming 3, 5.2.5.
    """
    bits, n = series.view(np.uint32), 0
    keys, rows = np.empty((2, series.size), np.uint32), np.empty((2, series.size), np.int32)
    number = np.zeros((3, 2048), np.int32)
    for row in range(series.size):
        place[row] = -1
        if series[row] == series[row]:
            key = np.uint32(bits[row] ^ (0xFFFFFFFF if bits[row] >> 31 else 0x80000000))  # in the order of the values
            keys[0, n], rows[0, n], n = key, row, n + 1
            for digit in range(3):
                number[digit, (key >> (11 * digit)) & 2047] += 1
    for digit in range(3):
        now, then, at = digit % 2, 1 - digit % 2, 0
        for d in range(2048):
            number[digit, d], at = at, at + number[digit, d]
        for i in range(n):
            d = (keys[now, i] >> (11 * digit)) & 2047
            to = number[digit, d]
            keys[then, to], rows[then, to] = keys[now, i], rows[now, i]
            number[digit, d] += 1
    for i in range(n):
        place[rows[1, i]] = i
        ranked[i] = series[rows[1, i]]


@njit(cache=True, nogil=True, error_model="numpy")
def _knot(knots, before, after, weight, p, cell):
    """A knot between those of two pentads."""
    return knots[before, p, cell] + weight * (knots[after, p, cell] - knots[before, p, cell])


@njit(cache=True, nogil=True, error_model="numpy")
def _rank(values, knots, between, weight, positions, ranks, first, last):
    """Fill ranks (time, cell) with the positions of values among the knots a + weight (b − a) of their time.

    a and b are the knots (pentad, probability, cell) of the pentads `between` (2, time).
    """
    end = positions.size - 1
    below, through = np.empty(WIDTH, np.int32), np.empty(WIDTH, np.int32)
    for block in range(first, last, WIDTH):
        n = min(WIDTH, last - block)
        for row in range(values.shape[0]):
            w, own = weight[row], values[row, block : block + n]
            before, after = between[0, row], between[1, row]
            below[:], through[:] = 0, 0  # how many knots are below a value, and how many at or below it
            for p in range(end + 1):
                a, b = knots[before, p, block : block + n], knots[after, p, block : block + n]
                for i in range(n):
                    knot = a[i] + w * (b[i] - a[i])
                    below[i] += np.int32(knot < own[i])
                    through[i] += np.int32(knot <= own[i])
            for i in range(n):
                x, under, upto, cell = own[i], below[i], through[i], block + i
                lowest = _knot(knots, before, after, w, 0, cell)
                if not (x == x and lowest == lowest):
                    ranks[row, cell] = np.nan
                elif upto > under:
                    ranks[row, cell] = 0.5 * (positions[under] + positions[upto - 1])
                elif under == 0:
                    ranks[row, cell] = positions[0]
                elif under > end:
                    ranks[row, cell] = positions[end]
                else:
                    low = _knot(knots, before, after, w, under - 1, cell)
                    high = _knot(knots, before, after, w, under, cell)
                    part = (x - low) / (high - low)
                    ranks[row, cell] = positions[under - 1] + part * (positions[under] - positions[under - 1])


@njit(cache=True, nogil=True, error_model="numpy")
def _rank_others(values, days, moments, order, start, share):
    """Share of other seasons' values at the same time of the year that each value exceeds; fills share (time, cell)."""
    cells = values.shape[1]
    less, equal, known = np.empty(cells, np.int64), np.empty(cells, np.int64), np.empty(cells, np.int64)
    for row in range(values.shape[0]):
        less[:], equal[:], known[:] = 0, 0, 0
        for away in range(-HALF_WINDOW, HALF_WINDOW + 1):
            day = (days[row] + away) % 365
            for r in range(start[day], start[day + 1]):
                other = order[r]
                if abs(moments[other] - moments[row]) < 183:
                    continue
                for cell in range(cells):
                    x = values[other, cell]
                    less[cell] += x < values[row, cell]
                    equal[cell] += x == values[row, cell]
                    known[cell] += x == x
        for cell in range(cells):
            if known[cell] > 0 and values[row, cell] == values[row, cell]:
                share[row, cell] = (less[cell] + 0.5 * equal[cell]) / known[cell]


def _beta_quantile(q, a, b):
    """x with I_x(a, b) = q, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        x = 0.5 * (low + high)
        if _beta_cdf(x, a, b) < q:
            low = x
        else:
            high = x
    return 0.5 * (low + high)


@njit(cache=True, nogil=True, error_model="numpy")
def _beta_cdf(x, a, b):
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22) and Lentz's method."""
    mirrored = x > (a + 1.0) / (a + b + 2.0)  # where 1 − I_{1−x}(b, a) converges faster
    if mirrored:
        x, a, b = 1.0 - x, b, a
    if x <= 0.0:
        return 1.0 if mirrored else 0.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        fraction *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-13:
            break
    return 1.0 - front * fraction if mirrored else front * fraction
