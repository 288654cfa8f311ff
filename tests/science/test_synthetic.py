"""The simulated continent against published climatology, physics, and its promise of random access."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import synthetic
from twin.variables import VARIABLES, with_role

RAIN, Q, T, P = "precipitation_flux", "specific_humidity", "air_temperature", "surface_air_pressure"
SUN, THERMAL = "surface_downwelling_shortwave_flux_in_air", "surface_downwelling_longwave_flux_in_air"


def box(south: float, north: float, west: float, east: float, step: float = 2.0) -> xr.Dataset:
    """Cells of a box of latitudes and longitudes, `step` degrees apart."""
    lat, lon = np.meshgrid(np.arange(south, north + 0.01, step), np.arange(west, east + 0.01, step), indexing="ij")
    return xr.Dataset(coords={"lat": ("cell", lat.ravel()), "lon": ("cell", lon.ravel())})


def year(number: int) -> pd.DatetimeIndex:
    return pd.date_range(f"{number}-01-01", f"{number}-12-31")


def monthly(values: np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
    """Sums of (day, cell) over each month (month, cell)."""
    return np.add.reduceat(values.astype(float), np.flatnonzero(days.day == 1), axis=0)


def monthly_rain(grid: xr.Dataset) -> np.ndarray:
    """Rain of each calendar month, mm (12): mean over the cells and 20 years."""
    climate, days = synthetic.climate(grid), pd.date_range("1997-01-01", "2016-12-31")
    rain = monthly(synthetic.forcing(climate, days)[RAIN].values * 86400.0, days)
    return rain.mean(axis=1).reshape(20, 12).mean(axis=0)


CONTINENT = box(-34.0, 36.0, -16.0, 50.0, 4.0)


@pytest.fixture(scope="module")
def continent() -> synthetic.Climate:
    return synthetic.climate(CONTINENT)


@pytest.fixture(scope="module")
def decade(continent) -> xr.Dataset:
    return synthetic.forcing(continent, pd.date_range("2001-01-01", "2010-12-31"))


# --- random access --------------------------------------------------------------------------------------------------
def same(left: xr.Dataset, right: xr.Dataset) -> None:
    assert list(left.data_vars) == list(right.data_vars)
    for name in left.data_vars:
        assert left[name].values.tobytes() == right[name].values.tobytes(), name


@pytest.mark.parametrize("perturbed", [False, True])
def test_any_day_asked_for_alone_has_the_bits_of_the_whole_run(continent, perturbed):
    days = pd.date_range("2003-11-20", periods=80)
    whole = synthetic.forcing(continent, days, perturbed=perturbed)
    for position in (79, 0, 41):
        alone = synthetic.forcing(continent, days[[position]], perturbed=perturbed)
        same(alone, whole.isel(time=[position]))


@pytest.mark.parametrize("cells", [[0], [217], [5, 3, 100], list(range(1, 40))])
def test_any_subset_of_cells_has_the_bits_of_the_whole_map(continent, cells):
    days = pd.date_range("2024-02-27", periods=4)
    part = synthetic.climate(CONTINENT.isel(cell=cells))
    assert part.tables.tobytes() == continent.tables[:, :, cells].tobytes()
    same(synthetic.forcing(part, days), synthetic.forcing(continent, days).isel(cell=cells))
    same(synthetic.soils(CONTINENT.isel(cell=cells)), synthetic.soils(CONTINENT).isel(cell=cells))
    moisture = np.linspace(0.1, 0.4, CONTINENT.sizes["cell"])
    whole = synthetic.retrievals(moisture, continent, days[0])
    same(synthetic.retrievals(moisture[cells], part, days[0]), whole.isel(cell=cells))


def test_another_seed_is_another_weather(continent):
    days = pd.date_range("2024-02-27", periods=4)
    one, two = synthetic.spells(continent, days), synthetic.spells(synthetic.climate(CONTINENT, seed=7), days)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.3


def test_dates_are_ours(continent):
    forced = synthetic.forcing(continent, pd.DatetimeIndex(["2024-02-29 13:00"]))
    assert forced.time.values.tolist() == [np.datetime64("2024-02-29", "ns").astype(int)]
    assert forced[RAIN].dims == ("time", "cell") and forced[RAIN].dtype == np.float32


# --- rain against published climatology -----------------------------------------------------------------------------
# The model has eleven rain belts and is meant to be plausible, not exact: where a source gives a range, the zone's mean
# must lie in it, widened by 15 % where the source speaks of most of the zone only.
ANNUAL = {
    # Nicholson (2022), in Congo Basin Hydrology, Climate and Biogeochemistry: above 1500 mm over most of the basin,
    # above 1750 in the core, above 2000 in places
    "Congo core": (box(-2, 2, 18, 26), 1500, 2000),
    # Nicholson et al. (1988) zones of North Africa: Sahelo-Sudanian 300-600 mm
    "Sahelo-Sudanian": (box(13, 14, -4, 10, 1), 300, 600),
    # ... and Sudanian, up to 1200
    "Sudanian": (box(10, 12, -8, 8), 600, 1200),
    # Chenje (2000), State of the Environment Zambezi Basin: 500 mm in the south and south-west, above 1000 in the north
    "Zambezi south": (box(-19, -18, 22, 28, 1), 500, 850),
    "Zambezi north": (box(-13, -11, 24, 32), 1000, 1600),
    # Atlas of Namibia (2022): 20 mm at the coast, rising inland; a cell of one degree reaches 100 km inland
    "Namib": (box(-25, -21, 14, 14, 1), 10, 110),
    # UNEP World Atlas of Desertification: hyper-arid
    "Sahara": (box(22, 28, 0, 28), 3, 60),
    # National normals of Algeria and Tunisia: 400-800 mm along the coast
    "Mediterranean coast": (box(36, 37, 0, 10, 1), 400, 800),
    # South African Weather Service: Western Cape lowlands
    "Cape": (box(-34, -33.5, 18, 19, 0.5), 300, 700),
}


@pytest.mark.parametrize("zone", ANNUAL)
def test_annual_rain_of(zone):
    grid, least, most = ANNUAL[zone]
    assert 0.85 * least <= monthly_rain(grid).sum() <= 1.15 * most


def test_the_sahel_has_one_season_in_summer():
    """The box 8-18 N, 17 W-20 E gets about 90 % of its rain in June to September (NOAA CPC, Climate Assessment 1996).

    Ours swings as a sine, which comes and goes more slowly: 75 % are asked for, 85 % in its northern half.
    """
    for south, share in ((8, 0.75), (13, 0.85)):
        rain = monthly_rain(box(south, 18, -16, 20))
        assert rain[5:9].sum() > share * rain.sum()
        assert seasons(rain) == 1 and int(rain.argmax()) == 7


def test_southern_africa_has_one_season_around_january():
    """At most places more than 75 % fall from October to April, at its strongest November to March (NOAA CPC 1996)."""
    rain = monthly_rain(box(-25, -11, 18, 34))
    assert rain[[9, 10, 11, 0, 1, 2, 3]].sum() > 0.85 * rain.sum()
    assert seasons(rain) == 1


def test_east_africa_has_two_seasons():
    """Long rains March to May, short rains October to December, dry between (Kenya Meteorological Department)."""
    rain = monthly_rain(box(-2, 1, 37, 41, 1))
    long, short = rain[2:5].sum(), rain[9:12].sum()
    assert long + short > 0.65 * rain.sum() and min(long, short) > 0.2 * rain.sum()
    assert seasons(rain) == 2
    assert max(rain[[6, 7]].max(), rain[[0, 1]].max()) < 0.6 * min(rain[2:5].max(), rain[9:12].max())


def test_it_rains_in_winter_at_both_ends():
    north, south = monthly_rain(box(36, 37, 0, 10, 1)), monthly_rain(box(-34, -33.5, 18, 19, 0.5))
    assert north[[10, 11, 0, 1]].sum() > 0.6 * north.sum()
    assert south[4:9].sum() > 0.6 * south.sum()


def seasons(rain: np.ndarray) -> int:
    """Number of peaks of the year that stand out of both neighbouring valleys by a quarter of the year's range."""
    smooth = (np.roll(rain, 1) + 2 * rain + np.roll(rain, -1)) / 4
    level = smooth.min() + 0.5 * (smooth.max() - smooth.min())
    wet = smooth > level
    return int((wet & ~np.roll(wet, 1)).sum())


def test_days_are_wet_as_often_and_as_much_as_they_should(continent, decade):
    """The mean is what the climate says; wet days follow one another; rain comes as showers of some 5 to 20 mm."""
    rain = decade[RAIN].values * 86400.0
    yearly = rain.sum(axis=0) / 10.0
    assert np.average(yearly) == pytest.approx(np.average(continent.rain), rel=0.1)  # spells colour a decade
    sahel = synthetic.forcing(synthetic.climate(box(13, 14, 0, 4, 1)), pd.date_range("1991-01-01", "2010-12-31"))[RAIN]
    august = sahel.values[sahel.time.dt.month.values == 8] * 86400.0
    wet = august > 1.0  # ETCCDI's wet day
    assert 0.25 < wet.mean() < 0.55  # Niamey has rain on 12 to 14 of 31 August days
    assert 8.0 < august[wet].mean() < 18.0
    after_wet = wet[1:][wet[:-1]].mean()
    assert after_wet > wet.mean() + 0.1
    assert rain.max() < 300.0


# --- physics --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("perturbed", [False, True])
def test_values_lie_in_the_ranges_of_the_table(continent, perturbed):
    forced = synthetic.forcing(continent, year(2003), perturbed=perturbed)
    assert set(forced.data_vars) == {row.name for row in with_role("forcing")}
    for name, data in forced.data_vars.items():
        row = VARIABLES[str(name)]
        assert data.attrs["units"] == row.units
        assert np.isfinite(data.values).all()
        assert row.valid_min <= float(data.min()) and float(data.max()) <= row.valid_max


def test_air_is_never_saturated_beyond_its_temperature(decade):
    """Against another formula than the one inside: Magnus with the WMO (2014) coefficients, which differ by 0.5 %."""
    celsius = decade[T].values.astype(float) - 273.15
    saturation = 611.2 * np.exp(17.62 * celsius / (243.12 + celsius))
    pressure, humidity = decade[P].values.astype(float), decade[Q].values.astype(float)
    vapour = humidity * pressure / (0.622 + 0.378 * humidity)
    relative = vapour / saturation
    assert relative.max() < 1.0 and relative.min() > 0.04


def test_temperatures_are_african(decade):
    """Normals of In Salah (14 °C in January, 37 in July), Kisangani (25 all year) and Pretoria (23, 12), within 5 K."""
    places = xr.Dataset(coords={"lat": ("cell", [27.2, 0.5, -25.7]), "lon": ("cell", [2.5, 25.2, 28.2])})
    warm = synthetic.forcing(synthetic.climate(places), year(2005))[T].values - 273.15
    january, july = warm[:31].mean(axis=0), warm[181:212].mean(axis=0)
    assert january == pytest.approx([14.0, 25.0, 23.0], abs=5.0)
    assert july == pytest.approx([37.0, 25.0, 12.0], abs=5.0)
    assert january[0] < july[0] - 12.0 and january[2] > july[2] + 5.0


def test_wet_days_are_dark_damp_and_cool(decade):
    """At most places, days with more than 5 mm against those without; and no sky is brighter than a black body."""
    rain = decade[RAIN].values * 86400.0
    rainy = np.flatnonzero((rain > 5.0).mean(axis=0) > 0.1)
    wet = rain[:, rainy] > 5.0
    for name, sign in ((SUN, -1.0), (Q, 1.0), (T, -1.0)):
        values = decade[name].values[:, rainy].astype(float)
        difference = (values * wet).sum(axis=0) / wet.sum(axis=0) - (values * ~wet).sum(axis=0) / (~wet).sum(axis=0)
        assert np.median(sign * difference) > 0.0
    emissivity = decade[THERMAL].values / (5.670374e-8 * decade[T].values.astype(float) ** 4)
    assert emissivity.min() > 0.6 and emissivity.max() <= 1.0 + 1e-6


def test_sunlight_follows_the_sun():
    """Sunlight above the air, FAO-56 table 2.6: 37.6 MJ m-2 day-1 at the equator in March, 44.1 at 30 S in December.

    Below it FAO-56 lets 25 % through on overcast days and 75 % on clear ones, a little more in the highlands.
    """
    places = xr.Dataset(coords={"lat": ("cell", [0.0, -30.0]), "lon": ("cell", [20.0, 20.0])})
    climate = synthetic.climate(places)
    for month, cell, top in ((3, 0, 37.6), (12, 1, 44.1)):
        days = pd.DatetimeIndex([f"{y}-{month:02d}-15" for y in range(1961, 2021)])
        megajoules = synthetic.forcing(climate, days)[SUN].values[:, cell] * 0.0864
        assert 0.24 * top < megajoules.min() and megajoules.max() < 0.80 * top


# --- droughts -------------------------------------------------------------------------------------------------------
def test_droughts_cover_a_fifth_of_the_map_on_average_and_never_all_of_it(continent):
    """Half a year's rain among 30 years: by definition 20 % below the 20th percentile on average, unevenly in space."""
    wet = np.flatnonzero(continent.rain > 300.0)
    climate = synthetic.climate(CONTINENT.isel(cell=wet))
    totals = np.stack([forced[RAIN].values.sum(axis=0) for forced in synthetic.reference_forcing(climate)])
    below = totals < np.quantile(totals, 0.2, axis=0)
    share = below.mean(axis=1)
    assert share.mean() == pytest.approx(0.2, abs=0.02)
    assert share.max() < 0.75 and (share > 0.02).mean() > 0.9
    variation = totals.std(axis=0) / totals.mean(axis=0)  # 0.1 in the forest to 0.5 at the desert (Nicholson 2011)
    assert 0.1 < np.median(variation) < 0.45


def test_spells_are_wide_and_long_and_gaussian(continent):
    """Correlated over hundreds of km and for months, independent across the continent and after two years."""
    days = pd.date_range("1961-01-15", "2020-12-31", freq="30D")
    spell = synthetic.spells(continent, days)
    assert spell.mean() == pytest.approx(0.0, abs=0.15) and spell.std() == pytest.approx(1.0, abs=0.1)

    def at(lat: float, lon: float) -> np.ndarray:
        return spell[:, np.flatnonzero((CONTINENT.lat == lat) & (CONTINENT.lon == lon))[0]]

    pairs = [((a, b), (a, b + 4.0), (-a, 52.0 - b)) for a in (-18.0, 10.0) for b in (8.0, 20.0)]
    near = np.mean([np.corrcoef(at(*one), at(*two))[0, 1] for one, two, _ in pairs])
    far = np.mean([np.corrcoef(at(*one), at(*three))[0, 1] for one, _, three in pairs])
    assert near > 0.65 and abs(far) < 0.3
    lagged = [np.mean(spell[lag:] * spell[:-lag]) for lag in (3, 24)]
    assert lagged[0] > 0.5 and abs(lagged[1]) < 0.2


def test_a_drought_lasts_three_to_eighteen_months(continent):
    """Runs below the 20th percentile (z < −0.84), run theory with a month as the least run (Yevjevich 1967)."""
    days = pd.date_range("1961-01-05", "2020-12-31", freq="10D")
    dry = synthetic.spells(continent, days) < -0.84
    edges = np.diff(np.pad(dry, ((1, 1), (0, 0))).astype(int), axis=0)
    runs = np.concatenate([np.flatnonzero(e < 0) - np.flatnonzero(e > 0) for e in edges.T]) * 10
    runs = runs[runs >= 30]
    assert 60 < np.median(runs) < 300
    assert np.quantile(runs, 0.95) < 560 and np.mean((runs > 85) & (runs < 550)) > 0.5


def test_the_map_moves(continent):
    first, later = synthetic.spells(continent, pd.DatetimeIndex(["2024-04-01", "2024-10-01"]))
    assert np.abs(first - later).mean() > 0.2


def test_what_the_twin_is_told_is_wrong_but_not_useless(continent, decade):
    told = synthetic.forcing(continent, pd.date_range("2001-01-01", "2010-12-31"), perturbed=True)
    true, rumour = (monthly(ds[RAIN].values * 86400.0, ds.indexes["time"]) for ds in (decade, told))
    wet = np.flatnonzero(continent.rain > 300.0)
    correlation = [np.corrcoef(true[:, c], rumour[:, c])[0, 1] for c in wet]
    assert 0.75 < np.median(correlation) < 0.98
    assert rumour.mean() == pytest.approx(true.mean(), rel=0.04)  # wrong day by day, right in the long run
    assert np.std(told[T].values - decade[T].values) == pytest.approx(0.7, rel=0.35)


# --- soils, nature, satellite ---------------------------------------------------------------------------------------
def test_soils_are_fractions_and_the_map_is_not_the_ground():
    told, true = (synthetic.soils(box(-34, 36, -16, 50), true=true) for true in (False, True))
    for soil in (told, true):
        total = soil["sand"] + soil["silt"] + soil["clay"]
        np.testing.assert_allclose(total, 1.0, atol=1e-12)
        assert min(float(soil[name].min()) for name in ("sand", "silt", "clay")) > 0.01
    error = np.sqrt(np.mean((told["sand"] - true["sand"]) ** 2))
    assert 0.03 < error < 0.12
    assert np.corrcoef(told["clay"], true["clay"])[0, 1] > 0.6
    north, middle = (told["sand"].values[select] for select in (told.lat.values > 20, np.abs(told.lat.values) < 5))
    assert north.mean() > middle.mean() + 0.05


def test_retrievals_have_the_gaps_and_errors_they_declare(continent):
    """Truth 0.25 everywhere for 80 days: what comes back has the errors of the docstring."""
    truth = np.full(CONTINENT.sizes["cell"], 0.25)
    days = pd.date_range("2024-04-01", periods=80)
    seen = xr.concat([synthetic.retrievals(truth, continent, day) for day in days], "time")
    value = seen["surface_soil_moisture"].values
    there = np.isfinite(value)
    assert (there == np.isfinite(seen["surface_soil_moisture_error"].values)).all()
    open_land = continent.rain < synthetic.FOREST
    assert not there[:, ~open_land].any() and (~open_land).any(), "forest hides the soil"
    revisit = 1.0 / there[:, open_land].mean()
    assert 2.0 < revisit < 3.2  # SMAP: 2 to 3 days
    assert there[:8, open_land].any(axis=0).all(), "the orbit repeats after 8 days and leaves no hole"
    error = np.where(there, value - 0.25, np.nan)[:, open_land]
    bias = np.nanmean(error, axis=0)
    assert np.std(bias) == pytest.approx(synthetic.RETRIEVAL_BIAS, rel=0.15)
    assert 1.4826 * np.nanmedian(np.abs(error - bias)) == pytest.approx(synthetic.RETRIEVAL_ERROR, rel=0.1)
    outliers = np.nanmean(np.abs(error - bias) > 5 * synthetic.RETRIEVAL_ERROR)
    assert 0.0 < outliers < 0.005
    assert np.nanmin(value) >= 0.02 and np.nanmax(value) <= 0.6


def test_a_day_without_overpass_is_empty():
    narrow = xr.Dataset(coords={"lat": ("cell", [10.0]), "lon": ("cell", [20.0])})
    climate = synthetic.climate(narrow)
    values = [
        synthetic.retrievals(np.array([0.2]), climate, day)["surface_soil_moisture"].values[0, 0]
        for day in pd.date_range("2024-04-01", periods=16)
    ]
    assert 0 < np.isfinite(values).sum() < 16


class Bucket:
    """The smallest land model: a store that fills with rain, leaks, and has no parameters."""

    name, version = "bucket", "1"

    def run(self, state, forcing, parameters):
        store, course = state["store"].values, []
        for rain in forcing[RAIN].values * 86400.0:
            store = (store + rain) * 0.98
            course.append(store)
        return xr.Dataset({"store": ("cell", store)}), xr.Dataset({"store": (("time", "cell"), np.array(course))})


def test_nature_steps_day_by_day_as_in_one_go(continent):
    start, days = xr.Dataset({"store": ("cell", np.zeros(CONTINENT.sizes["cell"]))}), year(2024)[:40]
    end, _ = synthetic.nature(Bucket(), continent, xr.Dataset(), start, days)
    state = start
    for day in days:
        state, seen = synthetic.nature(Bucket(), continent, xr.Dataset(), state, pd.DatetimeIndex([day]))
    assert state["store"].values.tobytes() == end["store"].values.tobytes()
    assert seen.sizes["time"] == 1
