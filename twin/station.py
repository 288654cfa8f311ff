"""One station's daily weather completed, run through the land model, and studied: seasons, dry spells, droughts.

    weather of a day ─complete─▸ forcing ─LandDaily─▸ soil moisture ┐
                                    └─ rain ────────────────────────┴─study─▸ Study

What a station did not measure is estimated from what it did, and said: Allen et al. (1998), FAO Irrigation and Drainage
Paper 56, chapter 3 (equation numbers are theirs). Soil moisture is the model's under grass on one soil, not measured.
Droughts: percentiles of root-zone soil moisture among the other years, and SPI (McKee et al. 1993). Seasons: Dunning et
al. (2016), Sivakumar (1988), and two thresholds of soil moisture. Trends: Sen (1968), Kendall (1938).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import kendalltau, theilslopes

from twin import climatology, forcing
from twin.evapotranspiration import extraterrestrial_radiation, net_longwave
from twin.indices.events import drought_events
from twin.indices.rains import rain_regime, season_by_rain, seasons
from twin.indices.spells import DRY_RAIN, DRY_SOIL, availability, dry_spells
from twin.indices.standardised import spi
from twin.indices.units import rain_amounts
from twin.indices.years import FIRST_DAYS
from twin.inputs import THETA
from twin.land import LandDaily
from twin.parameters import from_texture
from twin.state import initial, root_zone, spin_up
from twin.variables import VARIABLES

LOAM = (0.40, 0.20)  # sand and clay of the middle of the class, 1
SPIN_UP = 10  # times that the first two years are repeated before the first counts
CALM = 2.0  # wind at 2 m where it is not known, m s-1 (Allen et al. 1998, chapter 3)
SCALES = (3, 6, 12)  # months
DROUGHT = 20.0  # percentile below which there is drought: D1
_STEFAN_BOLTZMANN = 5.67e-8
_SUN, _THERMAL = "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air"


def complete(station: xr.Dataset, altitude: float) -> tuple[xr.Dataset, list[str]]:
    """(the forcing of the daily land model, dims (time, cell), what was estimated and how, in words).

    station    dims (time, cell 1), consecutive days, lat by cell: precipitation_flux, air_temperature,
               air_temperature_range, and what else of the daily forcing was measured, in the units of the table;
               relative_humidity (1) does for specific_humidity
    altitude   m
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


@dataclass(frozen=True)
class Study:
    """What is found of one place; years are local years, named as `year_of` does."""

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
    """Runs the daily land model over the station's record and finds what `Study` holds.

    station, altitude   as `complete` takes them; soil   shares of sand and clay, 1
    Raises TimeError for fewer than 30 years.
    """
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
    for name, values, limit in (("rain", pr, DRY_RAIN), ("soil", water, DRY_SOIL)):
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


def trend(values: pd.Series) -> tuple[float, float, float, float]:
    """(slope, its 95 % bounds, per year; probability of it by chance) of values by year.

    The median over all pairs of years with its interval (Sen 1968), and the two-sided probability of τ (Kendall 1938).
    """
    years, found = values.index.to_numpy(), values.to_numpy()
    slope, _, low, high = theilslopes(found, years, 0.95)
    return slope, low, high, kendalltau(years, found).pvalue
