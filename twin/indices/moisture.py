"""What soil moisture says: how rare it is for the time of the year, and how well the plants' need was met.

    theta ─┬─ soil_moisture_percentile ▸ rank among the other years, with its interval
           ├─ smi                      ▸ where it lies between wilting and field capacity
           └─ spells.availability (β)  ▸ the same up to where plants begin to suffer ── wrsi ▸ mean over the season
    evaporation, requirement ──────────────────────────────────────────────────── wrsi_fao ▸ share of the need met

β and SMI are one formula with two upper ends: θ_c, where stress begins (33 kPa), and θ_fc, what is left after drainage.
Field capacity is by convention the water at 33 kPa, too; there SMI is β. It differs where another suction is chosen.

WRSI has two usages and they are two functions: the mean of β over the season (as TAMSAT-ALERT has it), and evaporation
over requirement (Frère & Popov 1979, FAO). The first needs no crop, the second no soil.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from twin import climatology
from twin.errors import SettingsError, TimeError, VariableError
from twin.indices.scales import Period, within
from twin.indices.season import season_dates
from twin.indices.spells import availability
from twin.indices.units import amount_factors
from twin.indices.years import MISSING_DAYS, as_days, place
from twin.parameters import CRITICAL, water_content

LEVEL = 0.9
DRAWS = 500
_WIDTH = 2048  # cells whose cumulated days are in memory at a time


def soil_moisture_percentile(
    theta: xr.DataArray,
    reference: Period | xr.Dataset | None = None,
    *,
    leave_out: bool = True,
    least: int = 2,
    level: float = LEVEL,
    draws: int = DRAWS,
    rng: np.random.Generator | None = None,
) -> xr.Dataset:
    """percentile, low and high (time, cell), %, of each day among all values within 15 days of its time of the year.

    theta       (time, cell), consecutive days, any unit of which more is wetter
    reference   (first, last) year, or ISO date, inclusive; None is all of the record; or what `climatology.build` found
    leave_out   a day of the reference is ranked among the other years only
    least       years that the reference must have
    level       of the interval from low to high: that of `climatology.interval`, or with `rng` of `percentile_interval`
    The ranks are `climatology.percentile`'s and `percentile_leave_one_out`'s. Raises TimeError for a short reference,
    SettingsError for `rng` with a built reference, which no longer knows its years.
    """
    data, time = as_days(theta), theta["time"].values
    days = xr.DataArray(data, {"time": time, **place(theta)}, ("time", "cell"), theta.name)
    built: xr.Dataset | None
    if isinstance(reference, xr.Dataset):
        if rng is not None:
            raise SettingsError("interval by years", expected="a period as reference", found="its quantiles")
        told, built, record, own = reference.attrs, reference, days[:0], np.zeros(time.size, bool)
    else:
        inside = within(time, reference)
        years = round(inside.sum() / 365.25)
        if years < max(least, 1):
            raise TimeError("reference years", expected=f"{max(least, 1)} or more", found=years)
        record, own = days[inside], inside if leave_out else np.zeros(time.size, bool)
        built = None if own.all() else climatology.build(record, time[inside])
        first, last = time[inside][[0, -1]].astype("datetime64[D]")
        told = {"reference_start": str(first), "reference_end": str(last), "reference_years": years}
    rank = np.empty(data.shape, np.float32)
    if own.any():
        rank[own] = climatology.percentile_leave_one_out(record, time[own])[0]
    if built is not None:
        rank[~own] = climatology.percentile(days[~own], time[~own], built)
    if rng is None:
        years = int(told["reference_years"])
        low, high = climatology.interval(rank, years, level)
        if own.any():
            low[own], high[own] = climatology.interval(rank[own], years - 1, level)
    else:
        low, high = (bound.values for bound in percentile_interval(days, record, rng, level=level, draws=draws))
    attrs = {name: told[name] for name in ("reference_start", "reference_end", "reference_years")}
    attrs |= {"units": "%", "of": str(theta.name), "leave_out": int(leave_out), "level": level}
    found = {
        "percentile": (rank, "percentile of soil moisture"),
        "low": (low, "lower end of the interval of the percentile"),
        "high": (high, "upper end of the interval of the percentile"),
    }
    variables = {
        name: (("time", "cell"), values, {"long_name": words} | attrs) for name, (values, words) in found.items()
    }
    return xr.Dataset(variables, {"time": time, **place(theta)})


def percentile_interval(
    theta: xr.DataArray,
    record: xr.DataArray,
    rng: np.random.Generator,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
) -> tuple[xr.DataArray, xr.DataArray]:
    """(low, high) of the percentile of each value, %, (time, cell), by a bootstrap of whole years of the record.

    theta    the days asked for (time, cell); a day's own year is not resampled where it is in the record
    record   the reference (time, cell), days, same cells
    Each year's share of values below is one draw, for the values of a year depend on each other; the years are
    weighted by Dirichlet(1, …, 1), the value itself being one more year, in which it lies anywhere. With one value per
    year this is the Beta interval of `climatology.interval`, and it has a width where all years lie on one side.
    Cost: 16 µs of one core per value with 30 years and 500 draws, 5 µs with 100. Ref: Rubin (1981), Ann. Stat. 9, 130.
    """
    values, known = as_days(theta), as_days(record)
    if values.shape[1] != known.shape[1]:
        raise VariableError("record of the percentile", expected=f"{values.shape[1]} cells", found=known.shape[1])
    moments, moment = (series["time"].values.astype("datetime64[D]").astype(np.int64) for series in (record, theta))
    days, day = (climatology.day_of_year(series["time"].values) for series in (record, theta))
    away = int(np.ptp(np.concatenate([moments, moment])) / 365.0) + 1
    weights = rng.standard_exponential((draws, 2 * away + 2))  # of the years before and after, and of the value's own
    place_in = weights[:, -1] * rng.random(draws)
    tail = 50.0 * (1.0 - level)
    out = np.full((2, *values.shape), np.nan, np.float32)
    for row in range(day.size):
        near = (days - day[row] + 182) % 365 - 182
        offset = np.rint((moments - near - moment[row]) / 365.25).astype(np.int64)
        rows = np.flatnonzero((np.abs(near) <= climatology.HALF_WINDOW) & (np.abs(moments - moment[row]) >= 183))
        share, there = _shares(known[rows], values[row], offset[rows] + away, 2 * away + 1)
        have = np.flatnonzero(there.any(axis=1))
        total = weights[:, have] @ there[have] + weights[:, -1:]
        rank = (weights[:, have] @ share[have] + place_in[:, None]) / total
        found = np.percentile(100.0 * rank, [tail, 100.0 - tail], axis=0)
        out[:, row] = np.where(np.isnan(values[row]) | ~there.any(axis=0), np.nan, found)
    low, high = (xr.DataArray(bound, theta.coords, ("time", "cell"), attrs={"units": "%"}) for bound in out)
    return low, high


def _shares(record: np.ndarray, x: np.ndarray, year: np.ndarray, years: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of each year's values (year, cell) that x (cell) exceeds, equal ones half; and where there is any."""
    share, there = np.zeros((years, x.size)), np.zeros((years, x.size))
    for number in np.unique(year):
        some = record[year == number]
        count, less, equal = (
            np.add.reduce(told, axis=0, dtype=np.uint8) for told in (some == some, some < x, some == x)
        )  # of 32 days at most
        below = less + 0.5 * equal
        share[number], there[number] = below / np.maximum(count, 1), count > 0
    return share, there


def smi(theta: xr.DataArray, parameters: xr.Dataset, *, field_capacity: float = CRITICAL) -> xr.DataArray:
    """Soil moisture index of the root zone, 0 at wilting to 1 at field capacity, dims (time, cell): relative
    extractable water (θ − θ_w)/(θ_fc − θ_w).

    theta            soil moisture (time, layer, cell), or of the root zone (time, cell), m3 m-3
    parameters       b, psi_s, theta_s, theta_c, theta_w and the attribute retention, as `twin.parameters` makes them
    field_capacity   suction that drainage leaves, m; of 33 kPa unless said otherwise, where this is `availability`
    Raises SettingsError for a suction at which no water is left to take.
    Ref: Granier et al. (1999), Ecol. Model. 116, 269.
    """
    if field_capacity != CRITICAL:
        b, psi_s, theta_s = (parameters[name] for name in ("b", "psi_s", "theta_s"))
        held: Any = water_content(field_capacity, b, psi_s, theta_s, parameters.attrs["retention"])  # type: ignore[arg-type]
        if not bool((held > parameters["theta_w"]).all()):
            expected = "a suction below that of wilting"
            raise SettingsError("field capacity", expected=expected, found=f"{field_capacity} m")
        parameters = parameters.assign(theta_c=held)
    found = availability(theta, parameters).rename("soil_moisture_index")
    words = {"long_name": "soil moisture index of the root zone", "field_capacity": field_capacity}
    return found.assign_attrs(words | {"of": str(theta.name)})


class Window(NamedTuple):
    """The season of each year: rows [start, stop) of the record (year, cell), −1 where there is none."""

    label: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def wrsi(
    beta: xr.DataArray, season: xr.Dataset | tuple[int, int], reference: tuple[int, int] | None = None
) -> xr.Dataset:
    """wrsi (%), the mean of β over the season of each year, and percent_of_climatology (%), dims (year, cell).

    beta        (time, cell), consecutive days, of `spells.availability`
    season      onset and cessation as `season.wet_season` finds them, or the (first, last) day of the year, 1..365; a
                last day before the first lies in the next year; a year is labelled by where it starts
    reference   (first, last) year of the mean that is 100 %; None is all of them
    A year without season has no index, as one that the record does not hold whole or that misses more than
    MISSING_DAYS. Ref: as used by TAMSAT-ALERT, Boult et al. (2020), Weather Clim. Soc. 12, 891.
    """
    window = _window(beta["time"].values, season, beta.sizes.get("cell", 1))
    (total,), days = _sums([as_days(beta)], window)
    return _told(100.0 * total / days, window, beta, reference, "mean plant-available water of the season")


def wrsi_fao(
    evaporation: xr.DataArray,
    requirement: xr.DataArray,
    season: xr.Dataset | tuple[int, int],
    reference: tuple[int, int] | None = None,
) -> xr.Dataset:
    """wrsi (%), 100 ΣAET/ΣWR over the season of each year, and percent_of_climatology (%), dims (year, cell).

    evaporation, requirement   (time, cell), consecutive days: actual evapotranspiration, and what the crop would need
                               (crop coefficient times potential evapotranspiration), each in any unit of water
    The others, and what is missing, are as in `wrsi`. Ref: Frère & Popov (1979), FAO Plant Prod. Prot. Pap. 17.
    """
    if evaporation.dims != requirement.dims or evaporation.shape != requirement.shape:
        raise VariableError(
            "requirement", expected=f"the dims of evaporation {evaporation.sizes}", found=requirement.sizes
        )
    window = _window(evaporation["time"].values, season, evaporation.sizes.get("cell", 1))
    both = [as_days(values) * amount_factors(values)[:, None] for values in (evaporation, requirement)]
    (taken, needed), _ = _sums(both, window)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(needed > 0.0, 100.0 * taken / needed, np.nan)
    return _told(share, window, evaporation, reference, "evapotranspiration over requirement of the season")


def _window(time: np.ndarray, season: xr.Dataset | tuple[int, int], cells: int) -> Window:
    first = np.asarray(time)[0].astype("datetime64[D]")
    if isinstance(season, xr.Dataset):
        dates = [season_dates(season[name]).values.astype("datetime64[D]") for name in ("onset", "cessation")]
        rows = [np.where(np.isnat(days), -1, (days - first).astype(np.int64)) for days in dates]
        return Window(season["year"].values, *rows)
    if not all(1 <= day <= 365 for day in season):
        raise SettingsError("season", expected="days of the year, 1 to 365", found=season)
    index = pd.DatetimeIndex(time)
    label = np.arange(index[0].year - 1, index[-1].year + 1)
    begin = _date(label, season[0])
    after = _date(label + int(season[1] < season[0]), season[1]) + np.timedelta64(1, "D")
    rows = [np.repeat((days - first).astype(np.int64)[:, None], cells, axis=1) for days in (begin, after)]
    return Window(label, *rows)


def _date(year: np.ndarray, day: int) -> np.ndarray:
    """The dates of a day of the 365-day year."""
    january, next_january = ((year - 1970 + after).astype("datetime64[Y]").astype("datetime64[D]") for after in (0, 1))
    leap = (next_january - january).astype(np.int64) == 366
    return january + (day - 1 + (leap & (day > 59))).astype("timedelta64[D]")


def _sums(series: list[np.ndarray], window: Window) -> tuple[list[np.ndarray], np.ndarray]:
    """Sums of each series (time, cell) over the windows (year, cell), and of how many days all of them are known."""
    times, cells = series[0].shape
    whole = (window.start >= 0) & (window.stop <= times) & (window.stop > window.start)
    start, stop = np.where(whole, window.start, 0), np.where(whole, window.stop, 0)
    sums, days = [np.empty(start.shape) for _ in series], np.empty(start.shape)
    for begin in range(0, cells, _WIDTH):
        part = slice(begin, begin + _WIDTH)
        known = np.logical_and.reduce([~np.isnan(values[:, part]) for values in series])
        for values, out in zip([*series, None], [*sums, days], strict=True):
            day = known if values is None else np.where(known, values[:, part], 0.0)
            summed = np.concatenate([np.zeros((1, known.shape[1])), np.cumsum(day, axis=0, dtype=np.float64)])
            ends = (np.take_along_axis(summed, edge[:, part], axis=0) for edge in (stop, start))
            out[:, part] = next(ends) - next(ends)
    missing = ~whole | (stop - start - days > MISSING_DAYS) | (days == 0)
    for values in (*sums, days):
        values[missing] = np.nan
    return sums, days


def _told(found: np.ndarray, window: Window, values: xr.DataArray, reference: Period | None, words: str) -> xr.Dataset:
    first, last = (window.label[[0, -1]]) if reference is None else reference
    inside = (window.label >= int(first)) & (window.label <= int(last))
    known = ~np.isnan(found[inside])
    if not known.any():
        raise TimeError("reference years of the season", expected="one with a season", found="none")
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.nansum(found[inside], axis=0) / np.maximum(count, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(mean > 0.0, 100.0 * found / mean, np.nan)
    labels = window.label[inside][known.any(axis=1)]
    told: dict[str, Any] = {"units": "%", "of": str(values.name), "reference_start": f"{labels[0]}-01-01"}
    told |= {"reference_end": f"{labels[-1]}-12-31", "reference_years": int(count.max())}
    variables = {
        "wrsi": (("year", "cell"), found, {"long_name": words} | told),
        "percent_of_climatology": (("year", "cell"), share, {"long_name": f"{words}, of its mean"} | told),
    }
    return xr.Dataset(variables, {"year": window.label, **place(values)})
