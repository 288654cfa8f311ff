"""The wet seasons of each local year by rain, in two ways, beside `season`'s by soil; and how many a year has.

    A  anomaly    D ┤╲                  ╱╲ cessation: the day after the highest    the season is where
                    ┤ ╲               ╱    ╲                                       D(t) = Σ (R − Q̄) rises most
                    ┤  ╲           ╱        ╲
                    ┤    ╲╱╲     ╱
                    ┤        ╲╱ onset: the day after the lowest

    B  rain       R ┤    █         █    █ ▂  ▇ ▃  █    ▂          onset: the day on which 25 mm have fallen in 3 days,
                    ┤▁ ▁ █▃      ▁ █▄ ▅ █ █▁ █ █▂▃█ ▂  █          and no dry week within the 30 days after
                    └──── false ─── onset ─────────────── cessation: the first of 20 days without rain

A: Liebmann et al. (2012), J. Climate 25, 4304; Dunning et al. (2016), J. Geophys. Res. Atmos. 121, 11405; Bombardi et
al. (2019), Bull. Amer. Meteor. Soc. 100, 1395. B: Sivakumar (1988), Agric. For. Meteorol. 42, 295, with the thresholds
in use at AGRHYMET and ICPAC. The three methods answer different questions, and a result names which one it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin.climatology import day_of_year
from twin.errors import SettingsError, TimeError, VariableError
from twin.indices.season import MISSING, Expected, Found, each_year, since_start, wet_season
from twin.indices.units import amount_factors, check_rain
from twin.indices.years import FIRST_DAYS, Years, as_days, calendar, place
from twin.land.compiled import compiled
from twin.land.threads import spread

TOO_DRY = 200.0  # mm a year, below which there is no season to speak of (Dunning et al. 2016)
SMOOTHING = 30  # days: running mean of the mean year, in search of two seasons (Dunning et al. 2016)
APART, SMALLEST = 60, 0.05  # days between two peaks; excess of the lesser season over the greater's
MARGINS = (50, 20)  # days on either side of the usual season that A looks at, of one season and of two

AMOUNT, DAYS = 25.0, 3  # B: an onset is this rain, mm, within so many days
DRY, SPELL, WITHIN = 1.0, 7, 30  # B: a false start is so many days at or below DRY, mm, within so many days after it
END_DRY, END_DAYS = 0.0, 20  # B: a cessation is the first of so many days at or below END_DRY, mm
CAPACITY, DEMAND = 60.0, 5.0  # B: or the day a soil that holds this, mm, has given it all, mm a day
ENDS = ("dry_spell", "water_balance")
METHODS = ("anomaly", "rain", "soil")
WIDTH = 128  # cells that are stepped together
_LEAST, _ABOUT = 0.01, 1e-6  # mm; 1

Dates = str | Sequence[str] | None


def rain_regime(
    pr: xr.DataArray,
    reference: tuple[Any, Any] | None = None,
    *,
    seasons: int | None = None,
    too_dry: float = TOO_DRY,
    smoothing: int = SMOOTHING,
    apart: int = APART,
    smallest: float = SMALLEST,
    threads: int | None = None,
) -> xr.Dataset:
    """How many rainy seasons years have, and when: rainy_seasons (cell) 0, 1 or 2, and the calendar of each.

    pr          rain of consecutive days (time, cell), any unit of rain
    reference   (first, last) year or day of the years to use, inclusive; all of the record unless given
    seasons     1 or 2 to take that many for given wherever there are; found unless given
    too_dry     mm a year, below which a cell has no season (0)
    Of the mean year Q, Q̄ its mean, the season is where C(d) = Σ (Q − Q̄) rises from its lowest to its highest. There
    are two where C of the running mean over `smoothing` days rises twice (the two longest rises count) and either the
    second harmonic of Q exceeds the first, amplitude_ratio ≥ 1, or the two peaks are `apart` days away from each other
    and the lesser rise is at least `smallest` of the greater: the ratio alone misses the Ethiopian highlands.
    Returns start_month (cell), 1..12, the driest month; peak, start and end, days of the 365-day year, end the day
    after the season, dims (cell), or (season, cell) if any cell has two, −1 where there is none; amplitude_ratio,
    annual_rain (mm) and daily_rain (mm, Q̄). It is the `when` of all three methods. A cell without data has MISSING.
    Raises VariableError for other units or dims, RangeError for negative rain, TimeError for gaps or a reference that
    lacks a day of the year, SettingsError for options that make no sense.
    Refs: Dunning et al. (2016), as corrected for two peaks; Liebmann et al. (2012).
    """
    if seasons not in (None, 1, 2) or min(smoothing, apart) < 1 or not 0.0 <= smallest <= 1.0:
        given = f"{seasons}, {smoothing} and {apart} days, {smallest}"
        raise SettingsError("rain regime", expected="1 or 2 seasons, days of 1, a share", found=given)
    pr = pr if reference is None else pr.sel(time=slice(*(str(end) for end in reference)))
    if pr.sizes["time"] == 0:
        raise TimeError("reference of the rain", expected="days of the record", found=str(reference))
    year = _mean_year(pr, threads)
    months, mean = calendar(year), year.values * _mm(pr)
    start_month = months["start_month"].values
    known, rain = np.isfinite(mean).all(axis=0), mean.mean(axis=0)
    excess = np.where(known, mean - rain, 0.0)
    waves = np.abs(np.fft.rfft(excess, axis=0)[1:3])
    ratio = waves[1] / np.maximum(waves[0], 1e-12 * rain.clip(1e-12))
    once = np.stack(
        [np.argmin(np.cumsum(excess, axis=0), axis=0) + 1, np.argmax(np.cumsum(excess, axis=0), axis=0) + 1]
    )
    found = np.full((3, 2, known.size), -1)
    found[:, 0] = [months["peak"].values, *once % 365]
    rises = np.full((5, 2, known.size), -1.0)
    half = smoothing // 2
    around = np.concatenate([excess[-half:], excess, excess[: smoothing - half]])
    sums = np.cumsum(np.concatenate([np.zeros_like(around[:1]), around]), axis=0)
    _rises((sums[smoothing : smoothing + 365] - sums[:365]) / smoothing, rises)
    away = np.abs(rises[0, 0] - rises[0, 1])
    lesser, greater = rises[4].min(axis=0), rises[4].max(axis=0)
    two = (np.minimum(away, 365 - away) >= apart) & (lesser >= smallest * greater)
    two = (two | (ratio >= 1.0) if seasons is None else seasons == 2) & (rises[3, 1] > 0)
    order = np.argsort(since_start(rises[1], start_month), axis=0)
    found = np.where(two, np.take_along_axis(rises[:3], order[None], axis=1), found)
    number = np.where(known, np.where(365.0 * rain < too_dry, 0, np.where(two, 2, 1)), MISSING)
    found[:, np.arange(2)[:, None] >= number] = -1
    dims: tuple[str, ...] = ("season", "cell")
    if not (number == 2).any():
        found, dims = found[:, 0], ("cell",)
    days = np.unique(pr["time"].values.astype("datetime64[D]"))
    told = {
        "of": str(pr.name),
        "reference_start": str(days[0]),
        "reference_end": str(days[-1]),
        "reference_years": max(1, round(days.size / 365.25)),
        "too_dry": too_dry,
        "smoothing": smoothing,
        "apart": apart,
        "smallest": smallest,
    }
    words = ("wettest day", "first day", "day after the last")
    flags = {"flag_values": np.array([0, 1, 2], np.int8), "flag_meanings": "too_dry one two"}
    one: dict[str, tuple[Any, str, str]] = {
        "amplitude_ratio": (ratio, "1", "amplitude of the half-yearly over that of the yearly wave of rain"),
        "annual_rain": (365.0 * rain, "mm", "mean rain of a year"),
        "daily_rain": (rain, "mm", "mean rain of a day"),
    }
    variables: dict[str, Any] = {"start_month": months["start_month"].variable}
    for row, name in enumerate(("peak", "start", "end")):
        words_of = {"units": "1", "long_name": f"{words[row]} of the rainy season, of the 365-day year"}
        variables[name] = dims, found[row].astype(np.int64), words_of
    variables["rainy_seasons"] = "cell", number.astype(np.int8), {"long_name": "rainy seasons of a year", **flags}
    for name, (figure, units, long_name) in one.items():
        variables[name] = "cell", np.where(known, figure, np.nan), {"units": units, "long_name": long_name}
    coords = place(pr) | ({"season": [1, 2]} if "season" in dims else {})
    return xr.Dataset(variables, coords, told)


def season_by_anomaly(
    pr: xr.DataArray,
    when: xr.Dataset | None = None,
    *,
    reference: tuple[Any, Any] | None = None,
    margin: int | None = None,
    amount: float = AMOUNT,
    to_date: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """A: the season in which rain exceeds its long-term mean most, as `wet_season` returns it; false_starts, ambiguous.

    pr          rain of consecutive days (time, cell), any unit of rain; a missing day counts as a mean one
    when        what `rain_regime` found; of `reference`, (first, last) year or day, in pr itself if it is not given
    margin      days on either side of the usual season within which it is sought, at most half of the dry season;
                MARGINS unless given
    amount      mm that D rises above its lowest, before it falls to a lower one: a false start
    to_date     as in `wet_season`; a season in whose window the record ends is `running` and may yet begin later
    The season is where D(t) = Σ (R − Q̄) rises most within its window: from the day after D's lowest to the day of its
    highest if these come in that order, as Liebmann et al. (2012) define it. In a year in which they do not, their rule
    has no season, and ours the one that rises most, marked ambiguous (1). No rise is no season. The window is the usual
    season's, so that onset may be negative and cessation after the year's end; a season that reaches the window's limit
    is a bound. Cessation is the day after Dunning's. Rain in other units or twice the rain gives the same season.
    Raises what `rain_regime` raises, and VariableError for a calendar that does not come from it.
    """
    when = rain_regime(pr, reference, threads=threads) if when is None else when
    starts, ends = _usual(when, margin)
    mean = np.asarray(when["daily_rain"].values, np.float64) / (mm := _mm(pr))

    def find(data: np.ndarray, years: Years, seasons: Expected) -> Found:
        first, last = (_in_years(days[:, years.cells], seasons, years) for days in (starts, ends))
        counts = np.zeros((len(first), 6, *first.shape[1:]), np.int32)
        origin = np.ascontiguousarray(years.bounds[:, 0])
        for season in range(len(first)):
            rows = (np.stack([first[season], last[season]]) + origin[:, None]).astype(np.int32)
            march = partial(_anomalies, data, years.cells, mean[years.cells], amount / mm, rows, origin, counts[season])
            spread(march, years.cells.size, threads or os.cpu_count() or 1)
        return Found(counts.swapaxes(0, 1), first, last, open=True)

    told = {"method": "anomaly", "margin": "default" if margin is None else margin, "amount": amount}
    return each_year(pr, when, find, told | _reference(when), to_date, _OWN)


def season_by_rain(
    pr: xr.DataArray,
    when: xr.Dataset | None = None,
    *,
    amount: float = AMOUNT,
    days: int = DAYS,
    dry: float = DRY,
    spell: int = SPELL,
    within: int = WITHIN,
    end: str = "dry_spell",
    end_dry: float = END_DRY,
    end_days: int = END_DAYS,
    capacity: float = CAPACITY,
    demand: float = DEMAND,
    start_from: Dates = None,
    start_until: Dates = None,
    end_from: Dates = None,
    end_until: Dates = None,
    margin: int | None = None,
    to_date: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """B: the season that a sower goes by, as `wet_season` returns it, with false_starts.

    pr            rain of consecutive days (time, cell), any unit of rain; a missing day has none and is not dry
    when          what `rain_regime` found, in pr itself if it is not given; or start_month and peak (cell)
    amount, days  the onset is the day on which the rain of this and the days before it, `days` in all, reaches
                  `amount`, mm, unless
    dry, spell    `spell` days in a row at or below `dry`, mm, follow
    within        and are over by so many days after it: a false start
    end           "dry_spell": the cessation is the first of `end_days` at or below `end_dry`, mm; "water_balance": the
                  day that a soil which holds `capacity`, mm, and gives `demand`, mm a day, is empty
    start_from …  MM-DD, one or one for each season, inclusive: when the onset's rain may begin, the onset and the
                  cessation may be. Otherwise from `margin` days (MARGINS) before the usual season to its end, and from
                  the usual peak to `margin` days after it; all of the local year where `when` knows no usual season
    to_date       as in `wet_season`; an onset is one only when `within` days after it are known
    All of it is looked for within those days, also what would make an onset false. A season whose end is not found is a
    bound, as is one that begins on the first day it could. Limits are met to one part in a million, so that rates in
    single precision give the days that amounts do.
    Raises what `rain_regime` raises, SettingsError for thresholds, days or dates that make no season.
    Refs: Sivakumar (1988); Stern et al. (1981), J. Climatol. 1, 59; FAO (1986), Early Agrometeorological Crop Yield
    Assessment (soil of 60 mm, 5 mm a day).
    """
    numbers = {"amount": amount, "dry": dry, "end_dry": end_dry, "capacity": capacity, "demand": demand}
    for name, value in numbers.items():
        lowest = 0.0 if name in ("dry", "end_dry") else _LEAST
        if not lowest <= value < np.inf:
            raise SettingsError(f"{name} of the wet season", expected=f"{lowest:g} mm or more", found=value)
    if min(days, spell, end_days) < 1 or within < 0:
        found = f"{days}, {spell}, {end_days} and {within}"
        raise SettingsError("days of the wet season", expected="1 or more, within 0 or more", found=found)
    if end not in ENDS:
        raise SettingsError("end of the wet season", expected=", ".join(ENDS), found=end)
    when = rain_regime(pr, threads=threads) if when is None else when
    mm = _mm(pr)
    limits = _limits(when, margin, (start_from, start_until, end_from, end_until), end_days if end == ENDS[0] else 1)
    more = 1.0 + _ABOUT
    rain = (amount / more / mm, float(days), dry * more / mm, float(spell), float(within))
    ending = (end == "water_balance", end_dry * more / mm, float(end_days), capacity / mm, demand / mm)

    def find(data: np.ndarray, years: Years, seasons: Expected) -> Found:
        windows = np.stack([_in_years(limit[:, years.cells], seasons, years) for limit in limits])
        counts = np.zeros((windows.shape[1], 5, *windows.shape[2:]), np.int32)
        origin = np.ascontiguousarray(years.bounds[:, 0])
        for season in range(windows.shape[1]):
            rows = (windows[:, season] + origin[:, None]).astype(np.int32)
            march = partial(_agronomic, data, years.cells, rain, ending, rows, origin, counts[season])
            spread(march, years.cells.size, threads or os.cpu_count() or 1)
        counts = counts.swapaxes(0, 1)
        return Found(counts, windows[0] + days - 1, windows[3])

    told: dict[str, Any] = {"method": "rain", "amount": amount, "days": days, "dry": dry, "spell": spell}
    told |= {"within": within, "end": end}
    told |= {"end_dry": end_dry, "end_days": end_days} if end == ENDS[0] else {"capacity": capacity, "demand": demand}
    own = {"false_starts": _OWN["false_starts"]}
    return each_year(pr, when, find, told | _reference(when), to_date, own)


def seasons(
    pr: xr.DataArray,
    availability: xr.DataArray,
    when: xr.Dataset | None = None,
    *,
    anomaly: Mapping[str, Any] | None = None,
    rain: Mapping[str, Any] | None = None,
    soil: Mapping[str, Any] | None = None,
    to_date: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """The seasons by the three METHODS side by side, dims (method, year, [season,] cell), and their disagreement.

    pr, availability     rain, and plant-available water, of the same consecutive days (time, cell)
    when                 what `rain_regime` found in the rain, for all three; found unless given
    anomaly, rain, soil  options of `season_by_anomaly`, `season_by_rain` and `wet_season`
    `disagreement` is the range of the onsets, days, of the methods that have one, NaN with fewer than two. Attributes
    of the choices begin with the method's name. One method is `sel({"method": "soil"})`. Raises what the methods raise,
    TimeError for other days.
    """
    if not np.array_equal(pr["time"].values, availability["time"].values):
        given = f"{availability.sizes['time']} days from {str(availability['time'].values[:1])[2:12]}"
        raise TimeError("days of soil and rain", expected="the same", found=given)
    when = rain_regime(pr, threads=threads) if when is None else when
    common: dict[str, Any] = {"to_date": to_date, "threads": threads}
    found = [
        season_by_anomaly(pr, when, **{**common, **(anomaly or {})}),
        season_by_rain(pr, when, **{**common, **(rain or {})}),
        wet_season(availability, when, **{**common, **(soil or {})}),
    ]
    names = ["onset", "cessation", "length", "wet_seasons", "season_status"]
    result = xr.concat([each[names] for each in found], pd.Index(METHODS, name="method"), combine_attrs="drop")
    shared = {"units", "long_name", "flag_values", "flag_meanings"}
    for name in names:
        result[name].attrs = {key: value for key, value in found[0][name].attrs.items() if key in shared}
    for method, each in zip(METHODS, found, strict=True):
        choices = {key: value for key, value in each["onset"].attrs.items() if key not in shared | {"method"}}
        result.attrs |= {f"{method}_{key}": value for key, value in choices.items()}
    onset = result["onset"]
    apart = (onset.max("method") - onset.min("method")).where(onset.notnull().sum("method") > 1)
    result["disagreement"] = apart.assign_attrs(units="day", long_name="range of the methods' onsets")
    if to_date:
        result["days_to_date"] = found[0]["days_to_date"]
    return result


_OWN = {
    "false_starts": {"units": "1", "long_name": "false starts before the wet season"},
    "ambiguous": {
        "units": "1",
        "long_name": "1 where the cumulative anomaly is lowest after its highest; the season is its largest rise",
    },
}


def _mm(pr: xr.DataArray) -> float:
    """mm that one of the unit of `pr` is in a day."""
    check_rain(pr)
    return float(amount_factors(pr)[0])


def _mean_year(pr: xr.DataArray, threads: int | None) -> xr.DataArray:
    """Mean of each day of the 365-day year (time 365, cell), float64, of what is known; NaN where nothing is."""
    data, day = as_days(pr), day_of_year(pr["time"].values)
    total, number = (np.zeros((365, data.shape[1])) for _ in range(2))
    spread(partial(_add_days, data, day, total, number), data.shape[1], threads or os.cpu_count() or 1)
    mean = total / np.where(number > 0, number, np.nan)
    days = pd.date_range("2001-01-01", periods=365)[np.unique(day)]
    return xr.DataArray(mean[np.unique(day)], {"time": days, **place(pr)}, ("time", "cell"))


def _reference(when: xr.Dataset) -> dict[str, Any]:
    return {name: value for name, value in when.attrs.items() if name.startswith("reference_")}


def _usual(when: xr.Dataset, margin: int | None, after: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(first day, day after the last) (season, cell) of the windows around the usual seasons, in the local year.

    after   days after the season at least, where the window of the next does not begin before
    """
    absent = [name for name in ("start", "end", "daily_rain", "rainy_seasons") if name not in when]
    if absent:
        raise VariableError("calendar of the seasons", expected="what rain_regime returns", found=f"no {absent[0]}")
    if margin is not None and margin < 0:
        raise SettingsError("margin of the wet season", expected="0 days or more", found=margin)
    month = when["start_month"].values
    start, end = (since_start(when[name].transpose(..., "cell").values, month) for name in ("start", "end"))
    two = when["rainy_seasons"].values == 2
    length = (end - start) % 365
    following = np.where(two, start[::-1], start)
    gap = (following - start - 1) % 365 + 1 - length  # to the next season, or the same of the next year
    before = np.where(two, gap[::-1], gap)
    most = np.where(two, MARGINS[1], MARGINS[0]) if margin is None else margin
    late = np.minimum(most, gap // 2)
    return start - np.minimum(most, before // 2), start + length + np.maximum(late, np.minimum(after, gap - late))


def _limits(when: xr.Dataset, margin: int | None, dates: Sequence[Dates], end_days: int) -> list[np.ndarray]:
    """(season, cell) days of the local year: an onset's rain from, an onset before, an end from, all before."""
    month = np.asarray(when["start_month"].values, np.int64)
    peak = since_start(when["peak"].transpose(..., "cell").values, month)
    if "start" in when:
        first, last = _usual(when, margin, MARGINS[0] if margin is None else margin)
        start, end = (since_start(when[name].transpose(..., "cell").values, month) for name in ("start", "end"))
        until = start + (end - start) % 365
        limits = [first, until, start + (peak - start) % 365, last]
    else:
        limits = [np.zeros_like(peak), np.full_like(peak, 365), peak, np.full_like(peak, 365)]
    for row, date in enumerate(dates):
        if date is not None:
            inclusive = row % 2
            day = since_start(_days(date, len(peak))[:, None] + inclusive, month)
            floor = limits[0] + inclusive if row else np.zeros_like(day)
            limits[row] = np.broadcast_to(floor + (day - floor) % 365, peak.shape) + (end_days - 1 if row == 3 else 0)
    return limits


def _days(dates: str | Sequence[str], number: int) -> np.ndarray:
    """(season) days of the 365-day year of dates MM-DD."""
    given = [dates] * number if isinstance(dates, str) else list(dates)
    try:
        found = np.array([f"2001-{date}" for date in given], "datetime64[D]") - np.datetime64("2001-01-01", "D")
    except ValueError as err:
        raise SettingsError("date of the wet season", expected="MM-DD", found=", ".join(map(str, given))) from err
    if len(given) != number:
        raise SettingsError("dates of the wet season", expected=f"one, or {number}", found=len(given))
    return found.astype(np.int64)


def _in_years(days: np.ndarray, seasons: Expected, years: Years) -> np.ndarray:
    """Days since the year began in the 365-day year (season, cell) as those of each year (season, year, cell)."""
    leap_day = (58 - FIRST_DAYS[seasons.start_month[0] - 1]) % 365 + 1
    return (days[:, None] + ((years.length[:, None] == 366) & (days[:, None] >= leap_day))).astype(np.int32)


@compiled
def _add_days(values, day, total, number, first, last):
    """Sums and numbers of known values (time, cell) by day of the year (365, cell), of cells first..last."""
    for row in range(values.shape[0]):
        _add_known(values[row, first:last], total[day[row], first:last], number[day[row], first:last])


@compiled
def _add_known(x, total, number):
    for i in range(x.size):
        value = float(x[i])
        known = value == value
        total[i] += value if known else 0.0
        number[i] += 1.0 if known else 0.0


@compiled
def _rises(excess, rises):
    """The two longest rises of C = Σ excess (365, cell), a year without end: rises (5, 2, cell) peak, first day, day
    after the last, length, and how much it rises; the longest first.
    """
    for cell in range(excess.shape[1]):
        origin = 0
        while origin < 365 and excess[origin, cell] > 0.0:
            origin += 1
        length, rise, most, peak = 0, 0.0, 0.0, 0
        for step in range(1, 366):
            day = (origin + step) % 365
            x = excess[day, cell]
            if x > 0.0:
                if length == 0 or x > most:
                    most, peak = x, day
                length += 1
                rise += x
            elif length > 0:
                if length > rises[3, 0, cell]:
                    rises[:, 1, cell] = rises[:, 0, cell]
                if length > rises[3, 1, cell]:
                    at = 0 if length > rises[3, 0, cell] else 1
                    rises[0, at, cell], rises[1, at, cell], rises[2, at, cell] = peak, (day - length) % 365, day
                    rises[3, at, cell], rises[4, at, cell] = length, rise
                length, rise, most = 0, 0.0, 0.0


# Rows of the work arrays, each of WIDTH cells: of both methods, of `_anomalies`, of `_agronomic`. Their inner loops are
# written for vectors: a slice of cells that begins at 0, & and not `and`, every row loaded before any is stored.
_FROM, _TO, _KNOWN, _FALSE, _ONSET, _END = range(6)
_D, _LOW, _AT, _SWELL, _BEST, _BEFORE, _HIGH, _TOP, _MEAN = range(6, 15)
_UNTIL, _END_FROM, _SUM, _DRY, _TRY, _END_DRY, _SOIL = range(6, 13)


@compiled
def _begin(w, rows, values, cells, window):
    """The work array cleared, windows rows (2 or more, cell) put into it, the values of all of them copied to `window`.

    Returns (first row copied, how many).
    """
    w[:] = 0.0
    start, stop = values.shape[0], 0
    for i in range(cells.size):
        w[_FROM * WIDTH + i], w[_TO * WIDTH + i] = rows[0, i], rows[-1, i]
        start, stop = min(start, rows[0, i]), max(stop, rows[-1, i])
    start, stop = max(start, 0), min(stop, values.shape[0])
    for row in range(start, stop):
        for i in range(cells.size):
            window[row - start, i] = values[row, cells[i]]
    return start, stop - start


@compiled
def _longest(rows):
    """The most days of a year that the windows rows (2 or more, year, cell) cover."""
    days = 0
    for year in range(rows.shape[1]):
        days = max(days, rows[-1, year].max() - rows[0, year].min())
    return days


@compiled
def _anomalies(values, cells, mean, amount, rows, origin, counts, first, last):
    """The largest rise of D in the window rows (2, year, cell) of each year, of first..last of the cells.

    mean (cell) of the values (time, any) · counts (6, year, cell)   onset, cessation (days since `origin` (year)), 1 if
    there is one, known days, false starts, ambiguous
    """
    w, window = np.empty(15 * WIDTH), np.empty((_longest(rows), WIDTH), values.dtype)
    for year in range(rows.shape[1]):
        for block in range(first, last, WIDTH):
            n = min(WIDTH, last - block)
            start, days = _begin(w, rows[:, year, block : block + n], values, cells[block : block + n], window)
            for i in range(n):
                w[_AT * WIDTH + i] = w[_FROM * WIDTH + i]
                w[_MEAN * WIDTH + i] = mean[block + i]
            for day in range(days):
                _add(window[day], w, float(start + day), amount, n)
            for i in range(n):
                onset = w[_ONSET * WIDTH + i]
                counts[3, year, block + i] = int(w[_KNOWN * WIDTH + i])
                if w[_BEST * WIDTH + i] > 0.0:
                    other = w[_AT * WIDTH + i] != onset or w[_HIGH * WIDTH + i] > w[_TOP * WIDTH + i]
                    counts[0, year, block + i] = int(onset) - origin[year]
                    counts[1, year, block + i] = int(w[_END * WIDTH + i]) - origin[year]
                    counts[2, year, block + i] = 1
                    counts[4, year, block + i] = int(w[_BEFORE * WIDTH + i])
                    counts[5, year, block + i] = other


@compiled
def _add(x, w, day, amount, n):
    """The rain of a day, x (n), added to D, and the largest rise so far."""
    for i in range(n):
        value = float(x[i])
        known = (day >= w[_FROM * WIDTH + i]) & (day < w[_TO * WIDTH + i]) & (value == value)
        seen, mean, d = w[_KNOWN * WIDTH + i], w[_MEAN * WIDTH + i], w[_D * WIDTH + i]
        low, at, swell, false = w[_LOW * WIDTH + i], w[_AT * WIDTH + i], w[_SWELL * WIDTH + i], w[_FALSE * WIDTH + i]
        best, onset, end = w[_BEST * WIDTH + i], w[_ONSET * WIDTH + i], w[_END * WIDTH + i]
        before, high, top = w[_BEFORE * WIDTH + i], w[_HIGH * WIDTH + i], w[_TOP * WIDTH + i]
        gain = value - mean
        d = d + (gain if known else 0.0)
        lower = d < low
        false = false + (1.0 if lower & (swell >= amount) else 0.0)
        low = d if lower else low
        at = day + 1.0 if lower else at
        rise = d - low
        swell = rise if lower | (rise > swell) else swell
        better = rise > best
        w[_KNOWN * WIDTH + i] = seen + (1.0 if known else 0.0)
        w[_D * WIDTH + i] = d
        w[_LOW * WIDTH + i] = low
        w[_AT * WIDTH + i] = at
        w[_SWELL * WIDTH + i] = swell
        w[_FALSE * WIDTH + i] = false
        w[_BEST * WIDTH + i] = rise if better else best
        w[_ONSET * WIDTH + i] = at if better else onset
        w[_END * WIDTH + i] = day + 1.0 if better else end
        w[_BEFORE * WIDTH + i] = false if better else before
        w[_HIGH * WIDTH + i] = d if d > high else high
        w[_TOP * WIDTH + i] = d if better else top


@compiled
def _agronomic(values, cells, rain, ending, rows, origin, counts, first, last):
    """The first onset that is not false and the end after it, of first..last of the cells.

    rain     amount, days, dry, spell, within · ending   by water balance, end_dry, end_days, capacity, demand
    rows     (4, year, cell) an onset's rain from, an onset before, an end from, all before
    counts   (5, year, cell) onset, cessation (days since `origin` (year)), 1 if there is one, known days, false starts
    """
    w, window = np.empty(13 * WIDTH), np.empty((_longest(rows), WIDTH), values.dtype)
    for year in range(rows.shape[1]):
        for block in range(first, last, WIDTH):
            n = min(WIDTH, last - block)
            start, days = _begin(w, rows[:, year, block : block + n], values, cells[block : block + n], window)
            for i in range(n):
                w[_UNTIL * WIDTH + i] = rows[1, year, block + i]
                w[_END_FROM * WIDTH + i] = rows[2, year, block + i]
                w[_TRY * WIDTH + i] = w[_ONSET * WIDTH + i] = w[_END * WIDTH + i] = -1.0
            for day in range(days):
                for i in range(n):
                    w[_SUM * WIDTH + i] = 0.0
                for back in range(max(day + 1 - int(rain[1]), 0), day + 1):
                    _sum(window[back], w, n)
                _go_on(window[day], w, float(start + day), rain, ending, n)
            for i in range(n):
                onset, end = int(w[_ONSET * WIDTH + i]), int(w[_END * WIDTH + i])
                counts[3, year, block + i] = int(w[_KNOWN * WIDTH + i])
                counts[4, year, block + i] = int(w[_FALSE * WIDTH + i])
                if onset >= 0:
                    counts[0, year, block + i] = onset - origin[year]
                    counts[1, year, block + i] = (end if end >= 0 else rows[3, year, block + i]) - origin[year]
                    counts[2, year, block + i] = 1


@compiled
def _sum(x, w, n):
    for i in range(n):
        value = float(x[i])
        w[_SUM * WIDTH + i] += value if value == value else 0.0


@compiled
def _go_on(x, w, day, rain, ending, n):
    """A day, x (n): a trial of an onset begins, proves false or is one; a season that has begun ends."""
    amount, days, dry, spell, within = rain
    by_balance, end_dry, end_days, capacity, demand = ending
    for i in range(n):
        value = float(x[i])
        begins, until, end_from = w[_FROM * WIDTH + i], w[_UNTIL * WIDTH + i], w[_END_FROM * WIDTH + i]
        inside, known = (day >= begins) & (day < w[_TO * WIDTH + i]), value == value
        fallen, seen, false = w[_SUM * WIDTH + i], w[_KNOWN * WIDTH + i], w[_FALSE * WIDTH + i]
        run, over, soil = w[_DRY * WIDTH + i], w[_END_DRY * WIDTH + i], w[_SOIL * WIDTH + i]
        trial, onset, end = w[_TRY * WIDTH + i], w[_ONSET * WIDTH + i], w[_END * WIDTH + i]

        run = run + 1.0 if known & (value <= dry) else 0.0
        since = day - trial
        waiting = (trial >= 0.0) & (onset < 0.0)
        fails = waiting & (run >= spell) & (since >= spell) & (since <= within)
        onset = trial if waiting & (not fails) & (since >= within) else onset
        false = false + (1.0 if fails else 0.0)
        trial = -1.0 if fails else trial
        counts = inside & (day - days + 1.0 >= begins)  # there could be an onset
        full = counts & (fallen >= amount) & (day < until)
        trial = day if full & (trial < 0.0) else trial

        late = inside & (day >= end_from)
        over = over + 1.0 if known & late & (value <= end_dry) else 0.0
        soil = soil + (value if known else 0.0) - demand
        soil = 0.0 if soil < 0.0 else soil
        soil = capacity if soil > capacity else soil
        soil = soil if inside else 0.0
        dried = day - onset if over > day - onset else over  # dry days since the onset
        done = (soil <= 0.0) & known if by_balance else dried >= end_days
        done = done & late & (onset >= 0.0) & (end < 0.0) & (day > onset)
        ends = day if by_balance else day - dried + 1.0

        w[_KNOWN * WIDTH + i] = seen + (1.0 if known & counts else 0.0)
        w[_FALSE * WIDTH + i] = false
        w[_DRY * WIDTH + i] = run
        w[_TRY * WIDTH + i] = trial
        w[_ONSET * WIDTH + i] = onset
        w[_END_DRY * WIDTH + i] = over
        w[_SOIL * WIDTH + i] = soil
        w[_END * WIDTH + i] = ends if done else end
