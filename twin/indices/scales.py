"""From a record to the amounts of a scale: which rows are added up for each time, and where it is in the calendar.

    days ─▸ calendar months ─▸ months of the scale        step: 12 months
    days ─▸ window that ends on each day                  step: 73 pentads, by their middle days

What a missing day or an end of the record cuts is missing. 29 February counts as 28 February.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from twin import climatology
from twin.errors import SettingsError, TimeError
from twin.indices.units import is_monthly, month_days
from twin.land.compiled import compiled

Period = tuple[int | str, int | str]
_MONTH = np.timedelta64(1, "M")


def days_of(scale: int | str) -> int:
    """Days of a window ("90D"), or 0 for calendar months; SettingsError for what is neither."""
    if isinstance(scale, int) and not isinstance(scale, bool) and scale >= 1:
        return 0
    if isinstance(scale, str) and scale[-1:] == "D" and scale[:-1].isdigit() and int(scale[:-1]) > 0:
        return int(scale[:-1])
    raise SettingsError("scale", expected="months, as 3, or days, as '90D'", found=repr(scale))


def told(scale: int | str) -> str:
    """A scale in words."""
    days = days_of(scale)
    number, unit = (days, "day") if days else (scale, "month")
    return f"{number} {unit}{'s' * (number != 1)}"


def steps_in_year(scale: int | str) -> int:
    """How many calendar steps a year has."""
    return climatology.PENTADS if days_of(scale) else 12


def steps_of(time: np.ndarray, scale: int | str) -> tuple[np.ndarray, np.ndarray]:
    """(number of the calendar step at or before each time, counted from 1970; weight of the next step)."""
    index = pd.DatetimeIndex(time)
    if not days_of(scale):
        return (index.year.to_numpy() - 1970) * 12 + index.month.to_numpy() - 1, np.zeros(index.size)
    since = climatology.day_of_year(time) - 2  # the middle of the first pentad is 3 January
    return (index.year.to_numpy() - 1970) * climatology.PENTADS + since // 5, since % 5 / 5.0


def lengths(time: np.ndarray) -> np.ndarray:
    """Days of each time step."""
    return month_days(time) if is_monthly(time) else np.ones(len(time), np.int64)


@dataclass(frozen=True)
class Plan:
    """What is accumulated for each time of the result, and where it is in the calendar.

    times    (time) datetime64; months by their first days
    ends     (time) last day that the window holds
    stages   windows of rows, [start, stop) each, one after the other: days to months, months to the scale
    days     (time) days of the window
    before   (time) number of the calendar step at or before, from 1970; weight (time): of the next one
    """

    times: np.ndarray
    ends: np.ndarray
    stages: tuple[tuple[np.ndarray, np.ndarray], ...]
    days: np.ndarray
    steps: int
    before: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, time: np.ndarray, scale: int | str) -> Plan:
        monthly, window = is_monthly(time), days_of(scale)
        if window:
            if monthly:
                raise TimeError(f"time of a window of {scale}", expected="consecutive days", found="months")
            stop = np.arange(len(time)) + 1
            times = np.asarray(time).astype("datetime64[ns]")
            stages: tuple = ((stop - window, stop),)
            days, ends = np.full(len(time), window), times.astype("datetime64[D]")
        else:
            first, last = np.asarray(time)[[0, -1]].astype("datetime64[M]")
            months = np.arange(first, last + _MONTH)
            stop = np.arange(months.size) + 1
            length = month_days(months)
            stages = ((stop - int(scale), stop),)
            if not monthly:
                start = (months.astype("datetime64[D]") - np.asarray(time)[0].astype("datetime64[D]")).astype(np.int64)
                stages = ((start, start + length), *stages)
            sums = np.concatenate([np.zeros(int(scale), np.int64), np.cumsum(length)])
            days, times = sums[int(scale) :] - sums[: -int(scale)], months.astype("datetime64[ns]")
            ends = (months + _MONTH).astype("datetime64[D]") - np.timedelta64(1, "D")
        return cls(times, ends, stages, days, steps_in_year(scale), *steps_of(times, scale))

    @classmethod
    def of_amounts(cls, time: np.ndarray, scale: int | str) -> Plan:
        """Of what is accumulated already, at rising times that need not follow each other: one row each."""
        times, row = np.asarray(time).astype("datetime64[ns]"), np.arange(len(time))
        if row.size == 0 or (np.diff(times) <= np.timedelta64(0, "ns")).any():
            raise TimeError("time of the amounts", expected="rising times", found="others" if row.size else "none")
        ends = times.astype("datetime64[D]")
        if not days_of(scale):
            ends = (times.astype("datetime64[M]") + _MONTH).astype("datetime64[D]") - np.timedelta64(1, "D")
        return cls(times, ends, ((row, row + 1),), np.ones(row.size), steps_in_year(scale), *steps_of(times, scale))

    def amounts(self, data, factors, mean: bool, cells: slice, rows: np.ndarray | None = None) -> np.ndarray:
        """Amounts (time, or those `rows` of it; cell) of some cells of data (time, cell), float64."""
        part, first, scale = data, cells.start, factors
        for number, (start, stop) in enumerate(self.stages):
            if rows is not None and number == len(self.stages) - 1:
                start, stop = start[rows], stop[rows]
            out = np.empty((start.size, cells.stop - cells.start))
            _windows(part, first, scale, start, stop, out)
            part, first, scale = out, 0, np.ones(start.size)
        days = self.days if rows is None else self.days[rows]
        return part / days[:, None] if mean else part


@dataclass(frozen=True)
class Record:
    """The reference: which rows of a plan are its sample, one per year and calendar step, and from when to when."""

    rows: np.ndarray  # of the plan's times
    first: int  # number of the calendar step that the sample's first year begins with
    where: np.ndarray  # step of each row, from there
    years: int
    steps: int
    attrs: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan, reference: Period | None, least: int) -> Record:
        """Raises TimeError for fewer than `least` years of any calendar step."""
        inside = within(plan.times, reference)
        rows = np.flatnonzero(inside & (plan.weight == 0.0))
        number = plan.before[rows]
        found = np.bincount(number % plan.steps, minlength=plan.steps).min()
        if found < max(least, 1):
            expected = f"{max(least, 1)} or more of every {'month' if plan.steps == 12 else 'pentad'}"
            where = "" if reference is None else f"reference {reference[0]} to {reference[1]}"
            raise TimeError("reference years", expected=expected, found=int(found), where=where)
        year, final = (int(edge) // plan.steps for edge in (number[0], number[-1]))
        days = plan.times[inside][0].astype("datetime64[D]"), plan.ends[inside][-1]
        attrs = {"reference_start": str(days[0]), "reference_end": str(days[1]), "reference_years": int(found)}
        start = year * plan.steps
        return cls(rows, start, number - start, final - year + 1, plan.steps, attrs)

    def sample(self, amounts: np.ndarray) -> np.ndarray:
        """Amounts of the rows as (year, step, cell), NaN where there is none."""
        whole = np.full((self.years * self.steps, amounts.shape[1]), np.nan)
        whole[self.where] = amounts
        return whole.reshape(self.years, self.steps, -1)


def within(time: np.ndarray, period: Period | None) -> np.ndarray:
    """Which times lie in a period, both its ends included, each a year, a month or a day; None holds all of them."""
    if period is None:
        return np.ones(len(time), bool)
    try:
        first, last = (np.datetime64(str(edge)) for edge in period)
        one: Any = (1, np.datetime_data(last.dtype)[0])
        after = last + np.timedelta64(*one)
    except (ValueError, TypeError):
        raise SettingsError("reference", expected="(first, last), years or ISO dates", found=repr(period)) from None
    return (time >= first.astype("datetime64[ns]")) & (time < after.astype("datetime64[ns]"))


@compiled
def _windows(values, first, factors, starts, stops, out):
    """Sums over rows [start, stop) of values (time, cell) from a cell on, each by its factor; NaN where an end cuts.

    Every window is added up on its own, never as a difference of longer sums, so that no rain stays exactly 0 and a
    sum does not depend on where the record begins.
    """
    for row in range(starts.size):
        total = out[row]
        if starts[row] < 0 or stops[row] > values.shape[0]:
            total[:] = np.nan
            continue
        total[:] = 0.0
        for t in range(starts[row], stops[row]):
            factor = factors[t]
            added = values[t, first : first + total.size]
            for cell in range(total.size):
                total[cell] += added[cell] * factor
