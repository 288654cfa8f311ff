"""What a station's weather says of a place: its seasons, dry spells and droughts, as a page with figures.

    FILE ─read─▸ weather of a day ─complete─▸ forcing ─LandDaily─▸ soil moisture ┐
                        └─ rain ─────────────────────────────────────────────────┴─study─▸ Study ─▸ page.md, *.svg

Weather that the file lacks is estimated as Allen et al. (1998), FAO Irrigation and Drainage Paper 56, chapter 3, say.
Every number on the page is computed; what cannot be told is said to be unknown.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import kendalltau, theilslopes

from twin import climatology, forcing
from twin.errors import AssetError, SettingsError, TimeError, UnitsError, VariableError
from twin.evapotranspiration import extraterrestrial_radiation, net_longwave
from twin.indices.classes import drought_class
from twin.indices.events import drought_events
from twin.indices.palette import COLORS, DRY, NORMAL, WET
from twin.indices.rains import METHODS, rain_regime, season_by_rain, seasons
from twin.indices.season import STATUS
from twin.indices.spells import DRY_SOIL, availability, dry_spells
from twin.indices.standardised import spi
from twin.indices.units import rain_amounts
from twin.indices.years import FIRST_DAYS
from twin.inputs import THETA
from twin.land import LandDaily
from twin.parameters import from_texture
from twin.state import initial, root_zone, spin_up
from twin.variables import VARIABLES

NAMES = {
    "precipitation_flux": ("pr", "precip", "rain"),
    "air_temperature": ("tas", "tmean", "t2m"),
    "air_temperature_range": ("dtr",),
    "lowest": ("tasmin", "tmin"),
    "highest": ("tasmax", "tmax"),
    "surface_downwelling_shortwave_flux_in_air": ("rsds",),
    "surface_downwelling_longwave_flux_in_air": ("rlds",),
    "specific_humidity": ("huss",),
    "relative_humidity": ("hurs",),
    "wind_speed": ("sfcWind", "wind"),
    "surface_air_pressure": ("ps",),
}  # ours, or CF's: the short names they go by
LOAM = (0.40, 0.20)  # sand and clay of the middle of the class, 1
SPIN_UP = 10  # times that the first two years are repeated before the first counts
CALM = 2.0  # wind at 2 m where it is not known, m s-1 (Allen et al. 1998, chapter 3)
SCALES = (3, 6, 12)  # months
DROUGHT = 20.0  # percentile below which there is drought: D1
SURE = 0.05  # probability of a trend by chance, from which none is claimed
_STEFAN_BOLTZMANN, _FREEZING, _DAY = 5.67e-8, 273.15, 86400.0
_SUN, _THERMAL = "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air"


def history(
    file: Path | str,
    place: str,
    out: Path | str,
    *,
    altitude: float = 0.0,
    soil: tuple[float, float] = LOAM,
    threads: int | None = None,
) -> list[Path]:
    """Writes OUT/<name>.md and OUT/<name>/*.svg of one station's daily weather; the paths that were written.

    file       NetCDF, dims (time): `precipitation_flux` or pr, air temperature, its range or extremes, and sunlight if
               known, by CF or short names, with units; latitude and longitude as coordinates or attributes
    place      as the page names it; what stands before the comma names the files
    altitude   of the station, m; soil   shares of sand and clay
    Raises AssetError for a file that cannot be read, VariableError or UnitsError for what is missing or unknown,
    TimeError for gaps, SettingsError where charts cannot be drawn.
    """
    found = study(read(file), altitude, soil, threads)
    name = re.sub(r"[^a-z0-9]+", "-", place.split(",")[0].lower()).strip("-") or "place"
    folder = Path(out) / name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, chart in charts(found).items():
        written.append(folder / f"{title}.svg")
        written[-1].write_text(svg(chart), encoding="utf-8")
    page = folder.with_suffix(".md")
    page.write_text(words(found, place, name), encoding="utf-8")
    return [page, *written]


# --- what the file holds, and what is made of it ---------------------------------------------------------------------
def read(file: Path | str) -> xr.Dataset:
    """The station's days, dims (time, cell 1), in the names of NAMES and the units of the table, with lat and lon."""
    try:
        ds = xr.open_dataset(file).load()
    except (OSError, ValueError) as err:
        raise AssetError("station file", expected="NetCDF", found=str(err).splitlines()[0], where=str(file)) from err
    by_standard = {str(variable.attrs.get("standard_name")): str(name) for name, variable in ds.data_vars.items()}
    found = {}
    for ours, others in NAMES.items():
        name = next((name for name in (ours, *others) if name in ds.data_vars), None)
        name = by_standard.get(ours) if name is None else name
        if name is not None:
            found[ours] = _in_our_units(ours, ds[name].squeeze(drop=True).transpose("time"))
    for needed in ("precipitation_flux",):
        if needed not in found:
            raise VariableError(f"'{needed}' of a station", expected=", ".join(NAMES[needed]), found=list(ds.data_vars))
    if {"lowest", "highest"} <= set(found):
        found.setdefault("air_temperature_range", found["highest"] - found["lowest"])
        found.setdefault("air_temperature", 0.5 * (found["highest"] + found["lowest"]))
    for needed in ("air_temperature", "air_temperature_range"):
        if needed not in found:
            expected = f"{', '.join(NAMES[needed])}, or tasmin and tasmax"
            raise VariableError(f"'{needed}' of a station", expected=expected, found=list(ds.data_vars))
    steps = np.diff(ds["time"].values) / np.timedelta64(1, "D")
    if ds.sizes["time"] < 2 or (steps != 1.0).any():
        raise TimeError("days of a station", expected="consecutive days", found=f"steps of {sorted(set(steps))[:3]}")
    coords = {name: ("cell", [_place(ds, name)]) for name in ("lat", "lon")}
    station = xr.Dataset(
        {name: values.drop_vars([c for c in values.coords if c != "time"]) for name, values in found.items()}
    )
    return station.expand_dims("cell", 1).assign_coords(coords)


def _in_our_units(name: str, values: xr.DataArray) -> xr.DataArray:
    """A station's variable as the table has it; UnitsError naming what is not understood."""
    units = str(values.attrs.get("units", "none"))
    if name == "precipitation_flux":
        return (rain_amounts(values) / _DAY).assign_attrs(VARIABLES[name].attrs).rename(name)
    temperature = name in ("air_temperature", "lowest", "highest")
    known = {
        "K": 0.0,
        **dict.fromkeys(("degC", "C", "celsius", "Celsius", "degree_Celsius", "°C"), _FREEZING if temperature else 0.0),
    }
    if temperature or name == "air_temperature_range":
        if units not in known:
            raise UnitsError(f"'{name}' of a station", expected="K or degC", found=repr(units))
        return (values + known[units]).assign_attrs(units="K")
    factors = {
        "relative_humidity": {"1": 1.0, "%": 0.01},
        "surface_air_pressure": {"Pa": 1.0, "hPa": 100.0, "kPa": 1e3},
    }
    given = factors.get(name, {VARIABLES[name].units: 1.0} if name in VARIABLES else {})
    if units not in given:
        raise UnitsError(f"'{name}' of a station", expected=" or ".join(given), found=repr(units))
    return (values * given[units]).assign_attrs(units=next(iter(given)))


def _place(ds: xr.Dataset, name: str) -> float:
    long = {"lat": "latitude", "lon": "longitude"}[name]
    for source in (ds.variables, ds.attrs):
        for key in (name, long):
            if key in source:
                return float(np.asarray(source[key]).ravel()[0])
    raise VariableError(f"{long} of a station", expected=f"a coordinate or attribute '{long}'", found="none")


def complete(station: xr.Dataset, altitude: float) -> tuple[xr.Dataset, list[str]]:
    """(the forcing of the daily land model, what was estimated and how, in words).

    Allen et al. (1998): dew point at the lowest temperature (eq. 48), 2 m s-1 of wind, pressure by altitude (eq. 7),
    sunlight by Hargreaves' formula (eq. 50), thermal radiation from what grass loses on balance (eq. 39).
    """
    ds, told = station.copy(), []
    air, span = ds["air_temperature"], ds["air_temperature_range"]
    if "surface_air_pressure" not in ds:
        ds["surface_air_pressure"] = xr.full_like(air, forcing.standard_pressure(altitude))
        told.append(f"air pressure from the altitude of {altitude:.0f} m (equation 7)")
    if not {"specific_humidity", "relative_humidity"} & set(ds.data_vars):
        ds["dew_point_temperature"] = air - 0.5 * span
        told.append("humidity from a dew point at the day's lowest temperature (equation 48)")
    if "wind_speed" not in ds:
        ds["wind_speed"] = xr.full_like(air, CALM / forcing.wind_at_2m(1.0))
        told.append(f"a wind of {CALM:g} m/s, two metres above the ground")
    above = xr.zeros_like(air) + extraterrestrial_radiation(ds["lat"].values, ds["time"].values)
    if _SUN not in ds:
        ds[_SUN] = 0.16 * np.sqrt(span) * above
        told.append("sunlight from the daily range of temperature (equation 50)")
    ready, _ = forcing.complete({str(name): ds[name] for name in ds.data_vars}, ["specific_humidity"])
    if _THERMAL not in ds:
        vapour = forcing.vapour_pressure(ready["specific_humidity"], ready["surface_air_pressure"])
        lost = net_longwave(air, span, vapour, ready[_SUN], above, altitude)
        ready[_THERMAL] = _STEFAN_BOLTZMANN * air**4 - lost
        told.append("thermal radiation from temperature, humidity and cloud (equation 39)")
    found = forcing.derive(xr.Dataset(ready, ds.coords))
    for name in found:
        found[name].attrs = VARIABLES[str(name)].attrs
    return found.transpose("time", "cell"), told


# --- the study -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Study:
    """All that the page tells of one place; years are local years, named as `year_of` does."""

    rain: pd.Series  # mm, by year
    months: pd.DataFrame  # SPI by month and scale
    percentile: xr.DataArray  # of root-zone soil moisture among the other years, % (time)
    reference_years: int
    events: pd.DataFrame  # droughts of the soil, worst first
    regime: xr.Dataset
    seasons: xr.Dataset
    false_starts: pd.Series
    spells: pd.DataFrame  # longest dry spell within the usual season, days, by year: rain, soil
    estimated: list[str]
    altitude: float
    soil: tuple[float, float]


def study(
    station: xr.Dataset, altitude: float = 0.0, soil: tuple[float, float] = LOAM, threads: int | None = None
) -> Study:
    """Runs the daily land model over the station's record and computes what the page tells."""
    weather, estimated = complete(station, altitude)
    sand, clay = soil
    parameters = from_texture(np.array([sand]), np.array([1.0 - sand - clay]), np.array([clay]))
    model = LandDaily(threads)
    state = spin_up(model, initial(parameters), weather.isel(time=slice(730)), parameters, SPIN_UP)
    _, run = model.run(state, weather, parameters)
    pr, water = weather["precipitation_flux"], availability(run[THETA], parameters)
    regime = rain_regime(pr)
    percentile, others = climatology.percentile_leave_one_out(root_zone(run[THETA]), run["time"].values)
    droughts = drought_events(percentile, DROUGHT)
    events = droughts.drop_vars("cell").to_dataframe().sort_values("severity", ascending=False, ignore_index=True)
    months = {scale: spi(pr, scale).isel(cell=0).to_series() for scale in SCALES}
    year = year_of(regime, pr["time"].values)
    amounts = pd.Series(rain_amounts(pr).values[:, 0]).groupby(year)
    whole = amounts.count() >= 365
    return Study(
        amounts.sum()[whole].rename("rain"),
        pd.DataFrame(months),
        percentile.isel(cell=0),
        others,
        events,
        regime,
        _named(seasons(pr, water, regime, threads=threads), regime),
        season_by_rain(pr, regime, threads=threads)["false_starts"].isel(cell=0).to_series().dropna(),
        _spells(pr, water, regime),
        estimated,
        altitude,
        soil,
    )


def _spells(pr: xr.DataArray, water: xr.DataArray, regime: xr.Dataset) -> pd.DataFrame:
    """Longest dry spell of each year within the usual wet seasons: days with less than 1 mm, and with dry soil."""
    day = climatology.day_of_year(pr["time"].values)
    start, end = (np.atleast_1d(regime[name].values.ravel()) for name in ("start", "end"))
    inside = np.zeros(day.size, bool)
    for first, last in zip(start[start >= 0], end[start >= 0], strict=True):
        inside |= (day - first) % 365 < (last - first) % 365
    month = regime["start_month"].values
    found = {}
    for name, values, limit in (("rain", pr, 1.0 / _DAY), ("soil", water, DRY_SOIL)):
        within = values.where(xr.DataArray(inside, dims="time"), np.inf).rename(values.name)
        found[name] = dry_spells(within, limit, start_month=month)["longest_dry_spell"].isel(cell=0).to_series()
    frame = pd.DataFrame(found).dropna()
    return frame.set_axis(frame.index + _ahead(regime))


def year_of(regime: xr.Dataset, time: np.ndarray) -> np.ndarray:
    """The local year of each time, named after the calendar year of its usual wettest day."""
    return climatology.year_of(time, int(regime["start_month"].item())) + _ahead(regime)


def _ahead(regime: xr.Dataset) -> int:
    """1 where the usual wettest day of a local year is in the calendar year after the one it begins in, else 0."""
    return int(regime["peak"].values.ravel()[0] < FIRST_DAYS[int(regime["start_month"].item()) - 1])


def _named(found: xr.Dataset, regime: xr.Dataset) -> xr.Dataset:
    return found.assign_coords(year=found["year"] + _ahead(regime))


def table_of(seasons: xr.Dataset) -> pd.DataFrame:
    """One row for each method, year and season: onset, cessation, length in days of the local year, and status."""
    names = ["onset", "cessation", "length", "season_status"]
    part = seasons[names].isel(cell=0).drop_vars(["start_month", "lat", "lon"], errors="ignore")
    frame = (part if "season" in part.dims else part.expand_dims(season=[1])).to_dataframe().reset_index()
    frame["method"] = frame["method"].map(dict(zip(METHODS, METHOD_WORDS, strict=True)))
    return frame


# --- figures ---------------------------------------------------------------------------------------------------------
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


# --- words -----------------------------------------------------------------------------------------------------------
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
        slope, _, low, high = 10.0 * np.array(theilslopes(values.to_numpy(), values.index.to_numpy(), 0.95))
        chance = kendalltau(values.index.to_numpy(), values.to_numpy()).pvalue
        rows.append(f"| {title} | {_signed(slope)} | {_signed(low)} to {_signed(high)} | {chance:.2f} |")
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
