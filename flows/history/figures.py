"""The figures of a station's page: pure functions from what was found to a chart, and a chart to SVG."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from twin.errors import SettingsError
from twin.indices.classes import drought_class
from twin.indices.palette import COLORS, DRY, NORMAL, WET
from twin.indices.rains import METHODS
from twin.station import SCALES, Study

METHOD_WORDS = ("cumulative anomaly of rain", "25 mm in 3 days", "soil moisture")
METHOD_COLORS = (WET[2], DRY[2], DRY[4])
SPI_CLASSES = {  # up to: words and colour (McKee et al. 1993)
    -2.0: ("extremely dry", DRY[4]),
    -1.5: ("severely dry", DRY[3]),
    -1.0: ("moderately dry", DRY[1]),
    1.0: ("near normal", NORMAL["light"]),
    1.5: ("moderately wet", WET[1]),
    2.0: ("very wet", WET[3]),
    np.inf: ("extremely wet", WET[4]),
}
CLASS_WORDS = {code: f"D{code - 1}" if code > 0 else f"W{-code - 1}" for code in COLORS} | {0: "neither"}
WIDTH, NARROW, INK, QUIET = 600, 540, "#1d2730", "#a9b6c0"


def charts(found: Study) -> dict[str, alt.TopLevelMixin]:
    """The figures of the page, by name."""
    return {
        "rain": rain_chart(found.rain),
        "droughts": percentile_chart(found.percentile),
        "spi": spi_chart(found.months),
        "seasons": season_chart(table_of(found.seasons), int(found.regime["start_month"].item())),
        "dry-spells": spell_chart(found.spells),
    }


def table_of(seasons: xr.Dataset) -> pd.DataFrame:
    """One row for each method, year and season: onset, cessation, length in days of the local year, and status."""
    names = ["onset", "cessation", "length", "season_status"]
    part = seasons[names].isel(cell=0).drop_vars(["start_month", "lat", "lon"], errors="ignore")
    frame = (part if "season" in part.dims else part.expand_dims(season=[1])).to_dataframe().reset_index()
    frame["method"] = frame["method"].map(dict(zip(METHODS, METHOD_WORDS, strict=True)))
    return frame


def rain_chart(rain: pd.Series) -> alt.TopLevelMixin:
    """Rain of each year, the driest five marked, and its mean."""
    frame = pd.DataFrame({"year": rain.index.astype(int), "rain": rain.values, "rank": rain.rank().values})
    x = alt.X("year:O", title=None, axis=_years(frame["year"]))
    bars = alt.Chart(frame).mark_bar()
    driest = alt.condition("datum.rank <= 5", alt.value(DRY[3]), alt.value(QUIET))
    marked = alt.Chart(frame[frame["rank"] <= 5]).mark_text(angle=270, dx=20, color="white", fontWeight="bold")
    mean = alt.Chart(pd.DataFrame({"mean": [rain.mean()], "words": [f"mean {rain.mean():.0f} mm"]}))
    return _dressed(
        alt.layer(
            bars.encode(x=x, y=alt.Y("rain:Q", title="rain of the year, mm"), color=driest),
            marked.encode(x=x, y=alt.datum(0), text="year:O"),
            mean.mark_rule(color=INK, strokeDash=[5, 3]).encode(y="mean:Q"),
            mean.mark_text(color=INK, align="left").encode(x=alt.value(NARROW + 6), y="mean:Q", text="words:N"),
        ).properties(height=220),
        NARROW,
    )


def percentile_chart(percentile: xr.DataArray) -> alt.TopLevelMixin:
    """Class of soil moisture of every ten days of every year."""
    days = pd.DatetimeIndex(percentile["time"].values)
    third = np.minimum((days.day - 1) // 10, 2)
    frame = pd.DataFrame({"year": days.year, "part": 3 * (days.month - 1) + third, "percentile": percentile.values})
    frame = frame.groupby(["year", "part"])["percentile"].mean().dropna().reset_index()
    frame["class"] = [CLASS_WORDS[int(code)] for code in drought_class(frame["percentile"].to_numpy())]
    order = range(5, -6, -1)
    colors = [COLORS.get(code, NORMAL["light"]) for code in order]
    months = "['Jan','Feb','Mar','Apr','May','Jun','Jul','Aug','Sep','Oct','Nov','Dec'][datum.value / 3]"
    return _dressed(
        alt.Chart(frame)
        .mark_rect(stroke="white", strokeWidth=0.5, aria=False)
        .encode(
            x=alt.X(
                "part:O",
                title=None,
                axis=alt.Axis(
                    values=[*range(0, 36, 3)], labelExpr=months, labelAngle=0, labelAlign="left", ticks=False
                ),
            ),
            y=alt.Y("year:O", title=None, axis=alt.Axis(ticks=False)),
            color=alt.Color(
                "class:N",
                scale=alt.Scale(domain=[CLASS_WORDS[code] for code in order], range=colors),
                legend=alt.Legend(title="class of soil moisture", orient="bottom", columns=11, symbolType="square"),
            ),
        )
        .properties(height=13 * frame["year"].nunique())
    )


def spi_chart(months: pd.DataFrame) -> alt.TopLevelMixin:
    """Standardised precipitation index of every month, a strip for each scale."""
    frame = months.rename_axis("month").reset_index().melt("month", var_name="scale", value_name="spi").dropna()
    frame["row"] = frame["scale"].astype(str) + " months"
    names, colors = zip(*SPI_CLASSES.values(), strict=True)
    frame["class"] = np.array(names)[np.searchsorted(np.array([*SPI_CLASSES])[:-1], frame["spi"].to_numpy())]
    frame = frame.sort_values(["scale", "month"])
    run = (frame[["scale", "class"]] != frame[["scale", "class"]].shift()).any(axis=1).cumsum()
    frame = frame.groupby(run).agg(
        month=("month", "first"), end=("month", "last"), row=("row", "first"), **{"class": ("class", "first")}
    )
    frame["end"] = frame["end"] + pd.offsets.MonthBegin(1)
    years = [
        alt.DateTime(year=year) for year in range(months.index[0].year, months.index[-1].year + 2) if year % 5 == 0
    ]
    return _dressed(
        alt.Chart(frame)
        .mark_rect(aria=False)
        .encode(
            x=alt.X("month:T", title=None, axis=alt.Axis(format="%Y", values=years, grid=False)),
            x2="end:T",
            y=alt.Y("row:N", title=None, sort=[f"{scale} months" for scale in SCALES], axis=alt.Axis(ticks=False)),
            color=alt.Color(
                "class:N",
                scale=alt.Scale(domain=list(names), range=list(colors)),
                legend=alt.Legend(
                    title="rain of so many months (SPI)", orient="bottom", columns=4, symbolType="square"
                ),
            ),
        )
        .properties(height=120)
    )


def season_chart(table: pd.DataFrame, start_month: int) -> alt.TopLevelMixin:
    """From onset to cessation, by year and method."""
    first = pd.Timestamp(2001, start_month, 1)
    frame = table.dropna(subset=["onset"]).copy()
    for name in ("onset", "cessation"):
        frame[name] = first + pd.to_timedelta(frame[name], unit="D")
    axis = alt.Axis(format="%b", tickCount="month", grid=True, gridColor="#e3e8ec", orient="top", labelAlign="left")
    years = sorted(table["year"].unique())
    return _dressed(
        alt.Chart(frame[["year", "method", "onset", "cessation"]])
        .mark_bar(height={"band": 0.9})
        .encode(
            x=alt.X("onset:T", title=None, axis=axis, scale=alt.Scale(nice="month")),
            x2="cessation:T",
            y=alt.Y("year:O", title=None, scale=alt.Scale(domain=[int(year) for year in years], paddingInner=0.25)),
            yOffset=alt.YOffset("method:N", sort=list(METHOD_WORDS)),
            color=alt.Color(
                "method:N",
                scale=alt.Scale(domain=list(METHOD_WORDS), range=list(METHOD_COLORS)),
                legend=alt.Legend(title="wet season by", orient="bottom", symbolType="square"),
            ),
        )
        .properties(height=18 * len(years))
    )


def spell_chart(spells: pd.DataFrame) -> alt.TopLevelMixin:
    """Longest dry spell within the usual wet season of each year, by rain and by soil."""
    rows = {"rain": "without 1 mm of rain", "soil": "with dry soil"}
    frame = (
        spells.rename(columns=rows).rename_axis("year").reset_index().melt("year", var_name="what", value_name="days")
    )
    bars = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("year:O", title=None, axis=_years(frame["year"])),
            y=alt.Y("days:Q", title="days"),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=[*rows.values()], range=[METHOD_COLORS[1], METHOD_COLORS[2]]),
                legend=None,
            ),
        )
        .properties(width=WIDTH, height=110)
    )
    title = alt.Header(title=None, labelOrient="top", labelAnchor="start", labelFontSize=12, labelColor=INK)
    grid = bars.facet(row=alt.Row("what:N", sort=[*rows.values()], header=title)).resolve_scale(y="independent")
    return _styled(grid)


def _years(years: pd.Series) -> alt.Axis:
    """Every fifth year."""
    return alt.Axis(values=[int(year) for year in sorted(set(years)) if year % 5 == 0], labelAngle=0, ticks=False)


def _dressed(chart: Any, width: int = WIDTH) -> alt.TopLevelMixin:
    return _styled(chart.properties(width=width))


def _styled(chart: Any) -> alt.TopLevelMixin:
    font = "Helvetica, Arial, sans-serif"
    return (
        chart.configure(font=font, background="white", padding=10)
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=12, titleFontSize=12, labelColor=INK, titleColor=INK, domain=False, gridColor="#e3e8ec"
        )
        .configure_legend(
            labelFontSize=12, titleFontSize=12, labelColor=INK, titleColor=INK, labelLimit=300, titleLimit=300
        )
        .configure_text(fontSize=12)
    )


def svg(chart: alt.TopLevelMixin) -> str:
    """A chart as SVG; SettingsError where the converter is not installed."""
    try:
        import vl_convert
    except ImportError as err:
        raise SettingsError("charts as files", expected="vl-convert-python installed", found="none") from err
    return vl_convert.vegalite_to_svg(chart.to_dict())
