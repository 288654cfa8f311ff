"""The land model against output of the real JULES vn5.2, from the same weather, soil and first state.

Loobos 1997 (Scots pine) with its nine surface types and as bare soil, and 200 points of perturbed weather, random soils
and surfaces. Nothing is tuned here; tolerances are the acceptance of the model, and shares what was measured less a few
points. `pytest -s` prints what was found.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin.inputs import CANOPY, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA
from twin.jules import names
from twin.land import Land
from twin.parameters import TILES
from twin.variables import LAYERS, VARIABLES

ET, GPP = "water_evapotranspiration_flux", "gross_primary_productivity_of_biomass_expressed_as_carbon"
DRIVERS = {**names.WEATHER, **names.PARTED}  # JULES' name, ours
FIRST = pd.Timestamp("1996-12-31T23:00")  # start of the first half hour
DAY = 48  # half hours; JULES' days begin at midnight, two half hours after its first step
KILOGRAMS = 1000.0 * np.array(LAYERS)  # of water that fill a metre of pores, by layer


def opened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_times=False) as ds:
        return ds.load()


def forcing(drivers: xr.Dataset, start: pd.Timestamp, lat, lon, together: int = 1) -> xr.Dataset:
    """JULES' driving data (time, land) as forcing; means of `together` half hours."""
    data = {}
    for theirs, ours in DRIVERS.items():
        values = drivers[theirs].values.astype(np.float64).reshape(drivers.sizes["time"], -1)
        values = values.reshape(-1, together, values.shape[1]).mean(axis=1)
        data[ours] = ("time", "cell"), values, VARIABLES[ours].attrs
    time = pd.date_range(start, periods=drivers.sizes["time"] // together, freq=f"{30 * together}min")
    return xr.Dataset(data, {"time": time, "lat": ("cell", np.atleast_1d(lat)), "lon": ("cell", np.atleast_1d(lon))})


def parameters(soil: xr.Dataset, fraction: np.ndarray) -> xr.Dataset:
    """Soil of JULES' names, the same in every layer, and the fractions (tile, cell) of its nine surface types."""
    values = {
        ours: ("cell", np.atleast_1d(soil[theirs].values.astype(np.float64))) for theirs, ours in names.SOIL.items()
    }
    values["tile_fraction"] = ("tile", "cell"), fraction / fraction.sum(axis=0)
    return xr.Dataset(values, {"tile": list(TILES)})


def state(theta, kelvin, surface, leaves, snow) -> xr.Dataset:
    cells = theta.shape[1]
    return xr.Dataset({
        THETA: (("layer", "cell"), theta),
        SOIL_TEMPERATURE: (("layer", "cell"), kelvin),
        SURFACE_TEMPERATURE: (("tile", "cell"), np.broadcast_to(surface, (9, cells))),
        CANOPY: (("tile", "cell"), np.broadcast_to(leaves, (9, cells))),
        SNOW: (("tile", "cell"), np.broadcast_to(np.maximum(snow, 0.0), (9, cells))),
    })  # fmt: skip


def daily(values: np.ndarray, together: int = 1) -> np.ndarray:
    """Means of whole days, double precision."""
    length = DAY // together
    number = values.shape[0] // length
    return values[: number * length].astype(np.float64).reshape(number, length, *values.shape[1:]).mean(axis=1)


def rmse(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.sqrt(((found - expected) ** 2).mean(axis=0))


def correlation(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Along time; NaN where JULES does not vary."""
    a, b = found - found.mean(axis=0), expected - expected.mean(axis=0)
    spread = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.full(spread.shape, np.nan), where=spread > 0.0)


def shown(*values) -> str:
    return " ".join(np.array2string(np.asarray(value), precision=4, suppress_small=True) for value in values)


# --- Loobos -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def loobos(real_data):
    """(kind, precision) → (series of half hours, what JULES has), from the state JULES starts with."""
    folder, drivers = real_data / "jules", opened(real_data / "jules" / "loobos_forcing.nc")

    def run(kind: str, precision: str) -> tuple[xr.Dataset, xr.Dataset]:
        dump, theirs = opened(folder / f"loobos_{kind}_initdump.nc"), opened(folder / f"loobos_{kind}_tstep.nc")
        theta = dump["sthuf"].values * float(drivers["sm_sat"])
        start = state(theta, *(dump[name].values for name in ("t_soil", "tstar_tile", "canopy", "snow_tile")))
        fraction = drivers["frac"].values if kind == "bc" else np.eye(9)[TILES.index("bare_soil")]
        ds = parameters(drivers, fraction[:, None])
        land = Land("30min", precision=precision, wind_height=10.0, air_height=10.0)
        _, series = land.run(start, forcing(drivers, FIRST, 52.168, 5.744), ds)
        return series.isel(cell=0), theirs

    return run


@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("kind", ["bc", "bc_bare"])
def test_a_year_at_loobos_is_that_of_jules(loobos, kind, precision, capsys):
    """Days: soil moisture to 0.010 m3 m-3 and r 0.98 in every layer, evapotranspiration r 0.99 and 5 % in the year,
    soil temperature to 0.25 K, carbon gain r 0.98 and 10 %."""
    series, theirs = loobos(kind, precision)
    from_midnight = slice(2, None)

    def both(ours: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        return daily(series[ours].values[from_midnight]), daily(theirs[name].values[from_midnight])

    theta, water = both(THETA, "smcl")
    water = water / KILOGRAMS
    et, their_et = both(ET, "fqw_gb")
    kelvin, their_kelvin = both(SOIL_TEMPERATURE, "t_soil")
    gpp, their_gpp = both(GPP, "gpp_gb")
    moist, close, warm = rmse(theta, water), correlation(theta, water), rmse(kelvin, their_kelvin)
    ratio, with_et = et.sum() / their_et.sum(), float(correlation(et, their_et))
    with capsys.disabled():
        words = f"SM rmse {shown(moist)} r {shown(close)}; ET {ratio:.4f} r {with_et:.4f}; T rmse {shown(warm)}"
        print(f"\nLoobos {kind} {precision}: {words}", end="")
    assert (moist <= 0.010).all() and (close >= 0.98).all()
    assert with_et >= 0.99 and abs(ratio - 1.0) <= 0.05
    assert (warm <= 0.25).all()
    if kind == "bc":
        gained, with_gpp = gpp.sum() / their_gpp.sum(), float(correlation(gpp, their_gpp))
        with capsys.disabled():
            print(f"; GPP {gained:.4f} r {with_gpp:.4f}", end="")
        assert with_gpp >= 0.98 and abs(gained - 1.0) <= 0.10
    else:
        assert gpp.max() == 0.0


# --- 200 points -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def points(real_data):
    """(together, precision) → series of 363 days at 200 points, from JULES' first daily snapshot on; run once each."""
    folder = real_data / "jules"
    drivers, soil = opened(folder / "grid200_forcing.nc"), opened(folder / "grid200_ancil.nc")
    snap = opened(folder / "grid200_bc_daysnap.nc").isel(time=0)
    ds = parameters(soil, soil["frac"].values.astype(np.float64))
    theta = np.minimum(snap["smcl"].values / KILOGRAMS[:, None], soil["sm_sat"].values.astype(np.float64))
    # the snapshot has means over the surface types of what lies on them
    start = state(theta, snap["t_soil"].values, snap["tstar_gb"].values, 0.0, snap["snow_mass_gb"].values)
    skipped, length, done = 2 + DAY, 363 * DAY, {}
    part = drivers.isel(time=slice(skipped, skipped + length))
    begin = FIRST + pd.Timedelta(minutes=30 * skipped)
    lat, lon = soil["latitude"].values.astype(np.float64), soil["longitude"].values.astype(np.float64)

    def run(together: int = 1, precision: str = "double") -> xr.Dataset:
        if (together, precision) not in done:
            land = Land(precision=precision, wind_height=10.0, air_height=10.0, fluxes=(ET, GPP))
            _, series = land.run(start, forcing(part, begin, lat, lon, together), ds)
            done[together, precision] = series.map(lambda x: xr.DataArray(daily(x.values, together), dims=x.dims))
        return done[together, precision]

    return run


@pytest.fixture(scope="module")
def theirs(real_data) -> xr.Dataset:
    return opened(real_data / "jules" / "grid200_bc_daymean.nc").isel(time=slice(1, None))


@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["double", "single"])
def test_points_are_as_good_as_loobos(points, theirs, precision, capsys):
    """The median point, and the share of the 200 that meets each criterion of Loobos."""
    series = points(1, precision)
    theta, water = series[THETA].values, theirs["smcl"].values / KILOGRAMS[:, None]
    et, their_et = series[ET].values, theirs["fqw_gb"].values
    gpp, their_gpp = series[GPP].values, theirs["gpp_gb"].values.astype(np.float64)
    green = their_gpp.sum(axis=0) > 0.0
    ratio = et.sum(axis=0) / their_et.sum(axis=0)
    gained = gpp[:, green].sum(axis=0) / their_gpp[:, green].sum(axis=0)
    found = {  # value, the median's criterion, share of points that meet it
        "soil moisture, m3 m-3": (rmse(theta, water), 0.010, 0.95),
        "soil moisture, 1 − r": (1.0 - correlation(theta, water), 0.02, 0.94),
        "evapotranspiration, 1 − r": (1.0 - correlation(et, their_et), 0.01, 0.98),
        "evapotranspiration, ratio − 1": (np.abs(ratio - 1.0), 0.05, 0.98),
        "soil temperature, K": (rmse(series[SOIL_TEMPERATURE].values, theirs["t_soil"].values), 0.25, 0.80),
        "carbon gain, 1 − r": (1.0 - correlation(gpp[:, green], their_gpp[:, green]), 0.02, 0.98),
        "carbon gain, ratio − 1": (np.abs(gained - 1.0), 0.10, 0.98),
    }
    for name, (values, most, share) in found.items():
        values = np.atleast_2d(values)  # (layer, point)
        middle, met = np.nanmedian(values, axis=1), np.mean(~(values > most), axis=1)
        with capsys.disabled():
            print(f"\n200 points, {precision}, {name}: median {shown(middle)}, within {most:g} {shown(met)}", end="")
        assert (middle <= most).all(), name
        assert (met >= share).all(), name


@pytest.mark.real_data
def test_single_precision_is_double_precision(points):
    """Daily soil moisture to 1e-3 m3 m-3 at the median point, evapotranspiration of the year to 1 % at every one."""
    double, single = points(1), points(1, "single")
    apart = np.abs(single[THETA].values - double[THETA].values).max(axis=0)
    assert (np.median(apart, axis=1) < 1e-3).all() and (np.percentile(apart, 95, axis=1) < 5e-3).all()
    years = [found[ET].values.sum(axis=0) for found in (single, double)]
    assert np.abs(years[0] / years[1] - 1.0).max() < 0.01


@pytest.mark.real_data
@pytest.mark.parametrize(("together", "most"), [(2, 0.003), (6, 0.006)])
def test_longer_steps_stay_near_half_hours(points, together, most, capsys):
    """1 h and 3 h with the means of the half-hourly weather: median RMSE of daily soil moisture in every layer."""
    short, long = points(1), points(together)
    apart = np.median(rmse(long[THETA].values, short[THETA].values), axis=1)
    years = np.median(long[ET].values.sum(axis=0) / short[ET].values.sum(axis=0))
    with capsys.disabled():
        print(f"\n{together / 2:g} h against 30 min: SM rmse {shown(apart)}, ET {years:.4f}", end="")
    assert (apart < most).all() and abs(years - 1.0) < 0.02
