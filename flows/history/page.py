"""The words of a station's page: pure functions from what was found to sentences and tables, in Markdown."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from flows.history.figures import CLASS_WORDS, METHOD_WORDS, table_of
from twin.indices.classes import drought_class
from twin.indices.season import STATUS
from twin.station import DROUGHT, SCALES, Study, trend, year_of

SURE = 0.05  # probability of a trend by chance, from which none is claimed


def words(found: Study, place: str, name: str) -> str:
    """The page, Markdown."""
    first, last = (pd.Timestamp(found.percentile["time"].values[k]).year for k in (0, -1))
    options = f" --altitude {found.altitude:g}" if found.altitude else ""
    lowest = 50 / (found.reference_years + 1)
    parts = [
        f"# {place}: rain, seasons and droughts, {first}–{last}",
        f"What the years {first} to {last} were like at {place}, computed from one station's daily weather. Soil "
        "moisture is not measured there: a land model computes it from the weather; what is said of the soil is its "
        "account of what that weather means for a field of grass.",
        "## Droughts",
        *_rain_words(found.rain),
        f"![Rain of each year]({name}/rain.svg)",
        *_drought_words(found),
        f"![Class of soil moisture of every ten days]({name}/droughts.svg)",
        "Each row is a year, each square ten days. A class compares the water in the top metre of soil with the same "
        f"time of the year in the other {found.reference_years} years: D1 is at or below the 20th percentile, D2 the "
        "10th, D3 the 5th, D4 the 2nd; D0, to the 30th, is dry but not yet a drought, and W0 to W4 mirror them on the "
        f"wet side. Among so few years the lowest percentile there can be is {lowest:.1f}: the driest of all.",
        f"![Standardised precipitation index]({name}/spi.svg)",
        "From rain alone: the standardised precipitation index (SPI) tells how unusual the rain of the last "
        f"{', '.join(map(str, SCALES[:-1]))} or {SCALES[-1]} months was, in standard deviations.",
        "## Wet seasons",
        *_season_words(found),
        f"![Wet season of each year by three methods]({name}/seasons.svg)",
        "## Dry spells",
        *_spell_words(found),
        f"![Longest dry spell of each wet season]({name}/dry-spells.svg)",
        "## Change",
        *_trend_words(found),
        "## How it was computed",
        *_method_words(found),
        f'Made from the station\'s file by `twin history FILE --place "{place}" --out FOLDER{options}`.',
    ]
    return "\n\n".join(part if part.startswith(("|", "!", "#")) else _wrapped(part) for part in parts) + "\n"


def _rain_words(rain: pd.Series) -> list[str]:
    order = rain.sort_values()
    (worst, least), (second, less) = list(order.items())[:2]
    return [
        f"A year had {rain.mean():.0f} mm of rain on average, from {least:.0f} mm in {worst} to {rain.max():.0f} mm in "
        f"{rain.idxmax()}. {worst} was the driest of {rain.size} years, with {100 * least / rain.mean():.0f} % of the "
        f"mean; {second} the second driest, with {less:.0f} mm ({100 * less / rain.mean():.0f} %)."
    ]


def _drought_words(found: Study) -> list[str]:
    events = found.events
    if events.empty:
        return [f"The soil was never below its {DROUGHT:.0f}th percentile for a month: there was no drought."]
    rows = [
        "| from | to | days | lowest percentile | class then | rain of the year | lowest SPI-12 |",
        "|---|---|---|---|---|---|---|",
    ]
    for event in events.head(6).itertuples():
        year = int(year_of(found.regime, np.array([event.onset]))[0])
        spi12 = found.months[SCALES[-1]].loc[str(event.onset)[:7] : str(event.end)[:7]].min()
        rank = f"{year}: {_rank(found.rain, year)}" if year in found.rain.index else f"{year}: not whole"
        code = int(drought_class(np.array([event.peak]))[0])
        ended = f"{_date(event.end)}{' (the record ends)' if event.censored_end else ''}"
        figures = f"{event.duration} | {event.peak:.1f} | {CLASS_WORDS[code]} | {rank} | {_signed(spi12)}"
        rows.append(f"| {_date(event.onset)} | {ended} | {figures} |")
    return [
        f"A drought of the soil is a month or more below the {DROUGHT:.0f}th percentile, short breaks included. "
        f"There were {len(events)}. The worst, by how far and how long the soil was below:",
        "\n".join(rows),
        *(_event_words(found, event) for event in events.head(2).itertuples()),
    ]


def _event_words(found: Study, event: Any) -> str:
    """What the seasons were in the year of a drought."""
    start_month, year = int(found.regime["start_month"].item()), int(year_of(found.regime, np.array([event.onset]))[0])
    table, said = table_of(found.seasons), []
    for method, label in zip(METHOD_WORDS, ("the cumulative anomaly", "the 25 mm rule", "soil moisture"), strict=True):
        mine = table[table["method"] == method]
        row: Any
        for row in mine[mine["year"] == year].itertuples():
            late = round(row.onset - mine.loc[mine["season"] == row.season, "onset"].median(), 0)
            if row.season_status == STATUS["none"]:
                said.append(f"by {label} there was none")
            elif np.isfinite(row.onset):
                away = (
                    "as usual" if late == 0 else f"{_days(abs(late))} {'later' if late > 0 else 'earlier'} than usual"
                )
                bound = "" if row.season_status == STATUS["whole"] else "at least "
                begun = _day(row.onset, start_month)
                said.append(f"by {label} it began on {begun}, {away}, for {bound}{_days(row.length)}")
    spell = f"from {_date(event.onset)} to {_date(event.end)} the soil was in drought, {_days(event.duration)}"
    return f"**{year}**: {spell}." + (f" The wet season: {'; '.join(said)}." if said else "")


def _season_words(found: Study) -> list[str]:
    regime, table, start_month = found.regime, table_of(found.seasons), int(found.regime["start_month"].item())
    number = int(regime["rainy_seasons"].item())
    if number == 0:
        return [f"With {regime['annual_rain'].item():.0f} mm a year it is too dry here to speak of a wet season."]
    starts, ends = (np.atleast_1d(regime[name].values.ravel()) for name in ("start", "end"))
    pairs = [(start, end) for start, end in zip(starts, ends, strict=True) if start >= 0]
    usual = " and ".join(f"from {_day(start, 1)} to {_day(end - 1, 1)}" for start, end in pairs)
    rows = [
        "| by | onset: median (earliest, latest) | cessation: median | days: median | years without | years told |",
        "|---|---|---|---|---|---|",
    ]
    for (season, method), part in table.groupby(["season", "method"], sort=False):
        onset, cessation = part["onset"].dropna(), part["cessation"].dropna()
        if onset.empty:
            continue
        title = method if number == 1 else f"{method}, season {season}"
        first, middle, last = (_day(value, start_month) for value in (onset.min(), onset.median(), onset.max()))
        without = (part["season_status"] == STATUS["none"]).sum()
        length = f"{part.loc[part['onset'].notna(), 'length'].median():.0f}"
        figures = f"{_day(cessation.median(), start_month)} | {length} | {without} | {part['length'].notna().sum()}"
        rows.append(f"| {title} | {middle} ({first}, {last}) | {figures} |")
    bounds = (table["season_status"] == STATUS["went_on_after_its_year"]) & (table["method"] == METHOD_WORDS[1])
    apart, false = found.seasons["disagreement"].median().item(), found.false_starts
    return [
        f"In the mean of all years it rains more than the year's average {usual}: "
        f"{'one wet season' if number == 1 else 'two wet seasons'} a year. When it begins in one year is a matter of "
        "definition, and three are shown: the day from which rain keeps ahead of its average (cumulative anomaly); the "
        "day on which 25 mm have fallen in three days, with no dry week in the 30 days after (a rule for sowing); the "
        "first of ten days on which the top metre holds half of the water that plants can take, or more.",
        "\n".join(rows),
        f"The first and the last of a year's onsets are {_days(apart)} apart (median). In {int((false > 0).sum())} "
        f"of {false.size} years there was at least one false start: 25 mm in three days, and then a dry week."
        + (
            f" In {int(bounds.sum())} years that rule found no end in time; those bars end on a bound."
            * bool(bounds.any())
        ),
    ]


def _spell_words(found: Study) -> list[str]:
    rain, soil = found.spells["rain"], found.spells["soil"]
    alike = rain.corr(soil, method="spearman")
    return [
        f"Within the usual wet season the longest time without 1 mm of rain a day was {_days(rain.median())} in the "
        f"middle year, and {_days(rain.max())} in {rain.idxmax()}. The soil was dry, with less than a quarter of the "
        f"water that plants can take, for {_days(soil.median())} on end in the middle year, {_days(soil.max())} in "
        f"{soil.idxmax()}. The rank correlation of the two is {alike:.2f}: they are different things."
    ]


def _trend_words(found: Study) -> list[str]:
    table = table_of(found.seasons)
    series = {"rain of the year, mm": found.rain}
    for season, part in table[table["method"] == METHOD_WORDS[0]].dropna().groupby("season"):
        which = "" if table["season"].nunique() == 1 else f" {season}"
        years = part.set_index("year")
        series |= {f"onset of season{which}, days": years["onset"], f"length of season{which}, days": years["length"]}
    series["longest spell without rain, days"] = found.spells["rain"]
    series["longest spell of dry soil, days"] = found.spells["soil"]
    rows = ["| | change in ten years | 95 % interval | probability by chance |", "|---|---|---|---|"]
    sure = []
    for title, values in series.items():
        slope, low, high, chance = trend(values)
        interval = f"{_signed(10 * low)} to {_signed(10 * high)}"
        rows.append(f"| {title} | {_signed(10 * slope)} | {interval} | {chance:.2f} |")
        sure += [title.split(",")[0]] if chance < SURE / len(series) else []
    verdict = (
        f"A trend can be told of: {', '.join(sure)}." if sure else "No trend can be told from chance in these years."
    )
    return [
        f"{verdict} Slopes are medians over all pairs of years (Theil and Sen), probabilities Kendall's; as "
        f"{len(series)} questions are asked, a trend is called one below {SURE / len(series):.2f}. A record this short "
        "hides all but large changes.",
        "\n".join(rows),
    ]


def _method_words(found: Study) -> list[str]:
    sand, clay = found.soil
    start = pd.Timestamp(2001, int(found.regime["start_month"].item()), 1)
    estimated = f" What the file lacks was estimated as FAO-56 advises: {'; '.join(found.estimated)}."
    return [
        f"Soil moisture is that of the daily land model (`twin.land.LandDaily`) on a soil of {100 * sand:.0f} % sand, "
        f"{100 * clay:.0f} % clay, under grass, the first two years repeated until it had forgotten where it began."
        + estimated
        * bool(found.estimated),
        f"A percentile ranks a day among all days within 15 days of it in {found.reference_years} other years. SPI: "
        "gamma distribution by calendar month, with the record itself as reference. Seasons: Dunning et al. (2016), "
        "Sivakumar (1988), and two thresholds of soil moisture. The limits of the classes are those of the US Drought "
        "Monitor; this is one indicator of one model, not that map."
        + f" Years begin in {start:%B} and are named after the calendar year of their wettest time."
        * (start.month > 1),
    ]


def _rank(rain: pd.Series, year: int) -> str:
    place = int(rain.rank().loc[year])
    dry = place <= rain.size / 2
    place = place if dry else rain.size + 1 - place
    ending = "th" if 10 < place % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{'' if place == 1 else f'{place}{ending} '}{'driest' if dry else 'wettest'}"


def _date(day: Any) -> str:
    day = pd.Timestamp(day)
    return f"{day.day} {day:%B %Y}"


def _day(days: float, start_month: int) -> str:
    """Days since the local year began as a date without its year."""
    day = pd.Timestamp(2001, start_month, 1) + pd.Timedelta(days=round(float(days)))
    return f"{day.day} {day:%B}"


def _days(number: float) -> str:
    return f"{number:.0f} day{'' if round(number) == 1 else 's'}"


def _signed(value: float) -> str:
    return "unknown" if not np.isfinite(value) else f"{value:+.1f}".replace("-", "−")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
