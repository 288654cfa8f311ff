"""Land models at real places: every year stable, possible and closed, and monotone in rain and warmth.

Each place is run three times over, as cells of one run: as it was, with a tenth more precipitation, and 2 K warmer. To
have another model checked, add it to CASES. `pytest -s` prints the water budgets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from twin import forcing, parameters, state
from twin.land import Land, LandDaily
from twin.model import LandModel

from .sites import Site, kansas, manhattan, sunlight_above, thermal, towers, united_kingdom

THETA, SNOW, ET, RUNOFF = state.THETA, state.SNOW, "water_evapotranspiration_flux", "runoff_flux"
RAIN, AIR, HUMIDITY, PRESSURE = "precipitation_flux", "air_temperature", "specific_humidity", "surface_air_pressure"
THERMAL = "surface_downwelling_longwave_flux_in_air"
SITES = ("AU-ASM", "BW-Ma1", "ES-ES1", "FR-Pue", "IT-Cpz", "NL-Loo", "UK-Gri", "US-Johnson", "US-Manhattan", "UK")
UNFROZEN = ("AU-ASM", "BW-Ma1", "ES-ES1", "IT-Cpz")  # no day's mean is below 274 K


@dataclass(frozen=True)
class Case:
    """A model, what its parameters are made of texture by, whether it is given steps shorter than a day where there are
    some, and to what its water closes in a year, kg m-2: 1e-9 for each of 8,760 hours, or float32's last bits."""

    name: str
    model: LandModel
    parameters: Callable[..., xr.Dataset]
    hourly: bool = False
    closes: float = 1e-5

    def __str__(self) -> str:
        return self.name


def mixed(sand: np.ndarray, silt: np.ndarray, clay: np.ndarray) -> xr.Dataset:
    """Parameters of Land: half grass, a fifth trees, a fifth shrubs, the rest bare."""
    texture = xr.Dataset({name: ("cell", part) for name, part in (("sand", sand), ("silt", silt), ("clay", clay))})
    shares = {"broadleaf_tree": 0.2, "c3_grass": 0.5, "shrub": 0.2, "bare_soil": 0.1}
    return parameters.assemble(texture, [[shares.get(tile, 0.0)] * sand.size for tile in parameters.TILES])


def unhindered(sand: np.ndarray, silt: np.ndarray, clay: np.ndarray) -> xr.Dataset:
    """The same with leaves that neither heat nor dry air closes."""
    table = parameters.tile_parameters()
    return mixed(sand, silt, clay).assign(dq_crit=0.0 * table["dq_crit"] + 10.0, T_upp=table["T_upp"] + 25.0)


CASES = (
    Case("land-daily", LandDaily(), parameters.from_texture),
    Case("land", Land(), mixed, hourly=True),
    Case("land-3h-single", Land("3h", precision="single"), mixed, closes=0.05),
)


@dataclass(frozen=True)
class Year:
    """What went in and came out in one calendar year, and the state before and after it."""

    number: int
    weather: xr.Dataset
    start: xr.Dataset
    end: xr.Dataset
    series: xr.Dataset


@dataclass(frozen=True)
class Run:
    """The years of a site, one after the other; cells: as it was | a tenth wetter | 2 K warmer."""

    site: Site
    case: Case
    soil: xr.Dataset
    years: tuple[Year, ...]

    def soil_moisture(self, change: int) -> np.ndarray:
        """Mean of each year, layer and cell (year, layer, cell), m3 m-3; change 0, 1 or 2, as in the cells' order."""
        means = np.stack([year.series[THETA].mean("time").transpose("layer", "cell").values for year in self.years])
        return np.split(means, 3, axis=-1)[change]


def changed(weather: xr.Dataset) -> xr.Dataset:
    """The weather as it was, with all its water × 1.1, and at +2 K, relative humidity and the sky's emissivity kept."""
    wet, warm = weather.copy(deep=True), weather.copy(deep=True)
    for name in {RAIN, *forcing.PHASES} & set(wet):
        wet[name] = wet[name] * 1.1
    warm[AIR] = weather[AIR] + 2.0
    moister = forcing.saturation_vapour_pressure(warm[AIR]) / forcing.saturation_vapour_pressure(weather[AIR])
    vapour = forcing.vapour_pressure(weather[HUMIDITY], weather[PRESSURE]) * moister
    warm[HUMIDITY] = forcing.specific_humidity(vapour, weather[PRESSURE])
    warm[THERMAL] = weather[THERMAL] * (warm[AIR] / weather[AIR]) ** 4
    both = xr.concat([weather, wet, warm], "cell", data_vars="minimal", coords="minimal", compat="override")
    return both.map(lambda variable: variable.assign_attrs(weather[variable.name].attrs))


@pytest.fixture(scope="module")
def places(real_data) -> dict[str, Site]:
    pytest.importorskip("pyarrow")
    found = [*towers(real_data), kansas(real_data), manhattan(real_data), united_kingdom(real_data)]
    return {site.name: site for site in found}


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module", params=SITES)
def run(request, case, places) -> Run:
    site = places[request.param]
    weather = changed(site.forcing if case.hourly else site.daily)
    cells = weather.sizes["cell"]
    soil = case.parameters(*(np.full(cells, share) for share in site.texture))
    now, years = state.initial(soil), []
    for number, part in weather.groupby("time.year"):
        start = now
        now, series = case.model.run(start, part, soil)
        years.append(Year(int(number), part, start, now, series))
    return Run(site, case, soil, tuple(years))


def amount(flux: xr.DataArray) -> np.ndarray:
    """Sum over time of a mean flux, kg m-2 (cell)."""
    seconds = float((flux["time"][1] - flux["time"][0]) / np.timedelta64(1, "s"))
    return seconds * flux.transpose("time", "cell").values.sum(axis=0, dtype=np.float64)


@pytest.mark.real_data
def test_every_years_water_adds_up(run, capsys):
    """P − ET − runoff is what is stored, in every year and cell."""
    budget = []
    for year in run.years:
        p, e, r = amount(year.weather[RAIN]), amount(year.series[ET]), amount(year.series[RUNOFF])
        stored = (state.water(year.end, run.soil) - state.water(year.start, run.soil)).values
        assert np.abs(p - e - r - stored).max() < run.case.closes, year.number
        budget.append([np.split(x, 3)[0].mean() for x in (p, e, r, stored)])
    p, e, r, stored = np.mean(budget, axis=0)
    with capsys.disabled():
        span = f"{run.years[0].number}..{run.years[-1].number}"
        words = f"P {p:.0f} = ET {e:.0f} + runoff {r:.0f} + storage {stored:.0f} kg m-2 a year"
        print(f"\n{run.case.name} {run.site.name} {span}: {words} ({'; '.join(run.site.notes)})", end="")


@pytest.mark.real_data
def test_every_step_is_possible(run):
    """Between empty and full pores; evaporation of at most 15 kg m-2 in a day, dew of 2, or 6 and frost onto snow."""
    for year in run.years:
        theta = year.series[THETA].transpose("time", "layer", "cell").values
        assert np.isfinite(theta).all() and theta.min() > 0.0, year.number
        pores = np.broadcast_to(run.soil["theta_s"].values, theta.shape[1:])
        assert (theta <= pores * (1.0 + 10.0 * np.finfo(theta.dtype).eps)).all(), year.number
        days = 86400.0 * year.series[ET].resample(time="1D").mean().values
        white = year.series[SNOW].resample(time="1D").max().values > 0.0
        assert days.min() > -6.0 and days.max() < 15.0, year.number
        assert (days[1:][~white[1:] & ~white[:-1]] > -2.0).all(), year.number
        assert year.series[RUNOFF].values.min() >= 0.0, year.number


@pytest.mark.real_data
def test_more_rain_never_dries_a_layers_year(run):
    """Tolerance 1e-4 m3 m-3, a tenth of the least a probe resolves; on the mean the soil must be wetter."""
    gained = run.soil_moisture(1) - run.soil_moisture(0)
    assert gained.min() > -1e-4 and gained.mean() > 0.0


@pytest.mark.real_data
@pytest.mark.parametrize("case", [CASES[0], Case("land-unhindered", Land(), unhindered)], indirect=True, ids=str)
@pytest.mark.parametrize("run", UNFROZEN, indirect=True)
def test_warmth_never_wets_a_layers_year(run):
    """Where nothing freezes, warmer air of the same relative humidity asks for more water; tolerance as for rain."""
    assert min(float(year.weather[AIR].resample(time="1D").mean().min()) for year in run.years) > 274.0
    gained = run.soil_moisture(2) - run.soil_moisture(0)
    assert gained.max() < 1e-4 and gained.mean() < 0.0


@pytest.mark.real_data
@pytest.mark.parametrize("case", CASES[1:], indirect=True, ids=str)
@pytest.mark.parametrize("run", UNFROZEN, indirect=True)
def test_leaves_that_close_in_heat_save_little_water(run):
    """Leaves close in drier air and above their best temperature (Clark et al. 2011), so that +2 K may save water in
    the desert: at most 0.0025 m3 m-3 in any layer's year, while the top layer, bare in part, dries."""
    gained = run.soil_moisture(2) - run.soil_moisture(0)
    assert gained.max() < 2.5e-3 and gained[:, 0].max() < 0.0


@pytest.mark.real_data
@pytest.mark.parametrize("run", ["US-Manhattan"], indirect=True)
def test_the_top_layer_follows_the_probes(run):
    """Days of the 0 to 10 cm layer against the mean of the probes at 5 and 10 cm: correlation at least 0.75."""
    days = xr.concat([year.series[THETA].isel(layer=0, cell=0) for year in run.years[1:]], "time")
    days = days.resample(time="1D").mean()
    probes = run.site.observed["surface_soil_moisture"].reindex(time=days["time"])
    known = np.isfinite(probes.values)
    assert known.sum() > 1500
    assert np.corrcoef(days.values[known], probes.values[known])[0, 1] > 0.75


@pytest.mark.real_data
def test_estimated_thermal_radiation_is_that_of_the_tower(real_data):
    """The sky's radiation made of air and sunlight, against the forcing of Loobos 1997: within 10 W m-2, r 0.85."""
    with xr.open_dataset(real_data / "jules" / "loobos_forcing.nc") as ds:
        days = ds[["t", "q", "pstar", "sw_down", "lw_down"]].to_dataframe().resample("1D").mean().iloc[1:-1]
    vapour = forcing.vapour_pressure(days["q"], days["pstar"])
    found = thermal(days["t"], vapour, days["sw_down"], 52.168, 25.0)
    assert abs((found - days["lw_down"]).mean()) < 10.0
    assert np.corrcoef(found, days["lw_down"])[0, 1] > 0.85


def test_sunlight_above_example_8():
    """32.2 MJ m-2 day-1 at 20 S on 3 September (Allen et al. 1998)."""
    assert sunlight_above(-20.0, np.array([246]))[0] * 0.0864 == pytest.approx(32.2, abs=0.05)
