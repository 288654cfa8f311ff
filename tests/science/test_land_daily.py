"""The daily land model against conservation, its own promises of bits, and limiting cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import parameters, state
from twin.errors import RangeError, UnitsError, VariableError
from twin.land import LandDaily
from twin.land.daily import FORCING
from twin.variables import LAYERS, VARIABLES

THETA, CANOPY, SNOW = state.THETA, state.CANOPY, state.SNOW
ET, RUNOFF, RAIN, T = "water_evapotranspiration_flux", "runoff_flux", "precipitation_flux", "air_temperature"
DAY = 86400.0
DEPTH = 1000.0 * np.array(LAYERS)[:, None]


def soils(cells: int, seed: int = 1, variant: str = "cosby") -> xr.Dataset:
    """Random textures, from pure sand to pure clay."""
    sand, silt, clay = np.random.default_rng(seed).dirichlet([0.7, 0.7, 0.7], cells).T
    return parameters.from_texture(sand, silt, clay, variant)


def dataset(values: dict[str, np.ndarray]) -> xr.Dataset:
    days = pd.date_range("2003-10-01", periods=len(values[RAIN]))
    data = {name: (("time", "cell"), values[name], VARIABLES[name].attrs) for name in FORCING}
    return xr.Dataset(data, {"time": days})


def weather(days: int, cells: int, seed: int = 2, warmer: float = 0.0, rain: float = 1.0) -> xr.Dataset:
    """Seasonal weather with showers: 3 months below freezing, half a year of rain."""
    rng, day = np.random.default_rng(seed), np.arange(days)[:, None]
    season = np.cos(2 * np.pi * day / 365.0)
    air = 284.0 - 12.0 * season + rng.normal(0.0, 3.0, (days, cells))
    wet = rng.random((days, cells)) < 0.25 + 0.15 * season
    dew = np.exp(17.27 * (air - 278.0) / (air - 35.8)) * 0.0038 * 1.3
    return dataset(
        {
            RAIN: rain * np.where(wet, rng.exponential(9.0, (days, cells)), 0.0) / DAY,
            T: air + warmer,
            "specific_humidity": np.clip(dew * rng.uniform(0.5, 1.0, (days, cells)), 1e-4, 0.03),
            "wind_speed": rng.uniform(0.0, 8.0, (days, cells)),
            "surface_air_pressure": np.full((days, cells), 9.6e4),
            "surface_downwelling_shortwave_flux_in_air": np.clip(
                160 - 90 * season + rng.normal(0, 30, (days, cells)), 0, 400
            ),
            "surface_downwelling_longwave_flux_in_air": 0.8 * 5.67e-8 * air**4,
        }
    )


def anything(days: int, cells: int, seed: int) -> xr.Dataset:
    """Forcing anywhere in the table's range, without sense: polar to desert overnight, floods of 1700 mm."""
    rng = np.random.default_rng(seed)
    values = {
        name: rng.uniform(VARIABLES[name].valid_min, VARIABLES[name].valid_max, (days, cells)) for name in FORCING
    }
    values[RAIN] *= rng.choice([0.0, 1e-4, 1e-2, 1.0], (days, cells))
    return dataset(values)


def random_state(soil: xr.Dataset, seed: int) -> xr.Dataset:
    """Layers from empty to full, each on its own; snow and wet leaves here and there."""
    rng, cells = np.random.default_rng(seed), soil.sizes["cell"]
    start = state.initial(soil)
    saturation = rng.choice([0.0, 1e-6, 0.05, 0.5, 1.0 - 1e-9, 1.0, np.nan], (4, cells))
    saturation = np.where(np.isnan(saturation), rng.random((4, cells)), saturation)
    start[THETA].values[:] = saturation * soil["theta_s"].values
    start[CANOPY].values[:] = rng.choice([0.0, 0.5], cells)
    start[SNOW].values[:] = rng.choice([0.0, 1e-9, 300.0], cells)
    return start


def total(theta: np.ndarray, canopy: np.ndarray, snow: np.ndarray) -> np.ndarray:
    return (DEPTH * theta).sum(axis=-2) + canopy + snow


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    for name in left.data_vars:
        assert left[name].values.tobytes() == right[name].values.tobytes(), name


def imbalance(start: xr.Dataset, forcing: xr.Dataset, days: xr.Dataset) -> np.ndarray:
    """Water that came from or went nowhere, kg m-2, for every day and cell."""
    stored = total(days[THETA].values, days[CANOPY].values, days[SNOW].values)
    before = total(start[THETA].values, start[CANOPY].values, start[SNOW].values)
    gained = np.diff(np.concatenate([before[None], stored]), axis=0)
    return gained - DAY * (forcing[RAIN].values - days[ET].values - days[RUNOFF].values)


# --- conservation ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_water_closes_and_stays_possible_whatever_comes(seed):
    """40,000 soil × state × day of stress in four goes: frozen, flooded, bone dry; closure to 1e-9 kg m-2 per day.

    Stores reach 20,000 kg m-2 (snow), whose rounding is 4e-12.
    """
    cells, days = 1000, 10
    soil = soils(cells, seed, "cosby-um" if seed % 2 else "cosby")
    start, forcing = random_state(soil, seed), anything(days, cells, seed)
    _, series = LandDaily().run(start, forcing, soil)
    assert np.abs(imbalance(start, forcing, series)).max() < 1e-9
    theta = series[THETA].values
    assert np.isfinite(theta).all() and theta.min() >= 0.0
    assert (theta <= soil["theta_s"].values * (1.0 + 1e-12)).all()
    for name in (CANOPY, SNOW, ET, RUNOFF):
        values = series[name].values
        assert np.isfinite(values).all() and values.min() >= 0.0, name


def test_ten_years_close():
    soil, forcing = soils(8), weather(3652, 8)
    start = state.initial(soil)
    end, series = LandDaily().run(start, forcing, soil)
    gained = (state.water(end) - state.water(start)).values
    spent = DAY * (forcing[RAIN] - series[ET] - series[RUNOFF]).sum("time").values
    assert np.abs(gained - spent).max() < 1e-8


# --- bits -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def reference():
    soil, forcing = soils(70), weather(60, 70)
    start = random_state(soil, 3)
    return start, forcing, soil, *LandDaily(threads=1).run(start, forcing, soil)


def test_two_halves_are_the_whole(reference):
    start, forcing, soil, end, series = reference
    middle, first = LandDaily().run(start, forcing.isel(time=slice(0, 23)), soil)
    finish, second = LandDaily().run(middle, forcing.isel(time=slice(23, None)), soil)
    same(end, finish)
    same(series, xr.concat([first, second], "time"))


def test_any_subset_in_any_order_has_the_bits_of_the_whole(reference):
    start, forcing, soil, end, series = reference
    for cells in ([69], [3, 2, 1], list(np.random.default_rng(0).permutation(70)), list(range(5, 38))):
        some, days = LandDaily().run(start.isel(cell=cells), forcing.isel(cell=cells), soil.isel(cell=cells))
        same(end.isel(cell=cells), some)
        same(series.isel(cell=cells), days)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_a_bit(threads):
    soil, forcing = soils(1000), weather(3, 1000)
    start = random_state(soil, 5)
    for one, many in zip(
        LandDaily(threads=1).run(start, forcing, soil), LandDaily(threads).run(start, forcing, soil), strict=True
    ):
        same(one, many)


def test_inputs_are_not_changed(reference):
    start, forcing, soil, *_ = reference
    before = [part.copy(deep=True) for part in (start, forcing, soil)]
    LandDaily().run(start, forcing, soil)
    for old, new in zip(before, (start, forcing, soil), strict=True):
        xr.testing.assert_identical(old, new)


# --- physics in limiting cases --------------------------------------------------------------------------------------
def test_more_rain_never_dries_a_layers_year_and_warmth_never_wets_it():
    """P + 10 % and T + 2 K without frost; 1e-3 m3 m-3 is the tolerance of the annual mean."""
    soil, cells = soils(64), 64
    start = state.initial(soil)
    forcing = weather(730, cells)
    forcing[T] = forcing[T] + 12.0  # no snow
    forcing[T].attrs = VARIABLES[T].attrs
    more, warm = forcing.copy(deep=True), forcing.copy(deep=True)
    more[RAIN].values[:] *= 1.1
    warm[T].values[:] += 2.0
    annual = [
        LandDaily().run(start, f, soil)[1][THETA].isel(time=slice(365, None)).mean("time").values
        for f in (forcing, more, warm)
    ]
    assert (annual[1] - annual[0]).min() > -1e-3
    assert (annual[2] - annual[0]).max() < 1e-3
    assert (annual[1] - annual[0]).mean() > 1e-3  # and it does matter


def test_without_rain_and_demand_only_gravity_moves_water():
    soil = soils(30)
    forcing = weather(50, 30)
    for name, value in ((RAIN, 0.0), ("surface_downwelling_shortwave_flux_in_air", 0.0), ("specific_humidity", 0.03)):
        forcing[name].values[:] = value
    forcing["surface_downwelling_longwave_flux_in_air"].values[:] = 60.0
    start = state.initial(soil, 0.9)
    end, series = LandDaily().run(start, forcing, soil)
    assert np.abs(series[ET].values).max() == 0.0
    drained = DAY * series[RUNOFF].sum("time").values
    np.testing.assert_allclose(drained, (state.water(start) - state.water(end)).values, atol=1e-9)
    assert (drained > 0.0).all()


def test_cold_precipitation_waits_as_snow():
    soil, forcing = soils(5), weather(20, 5)
    forcing[T].values[:] = 260.0
    start = state.initial(soil)
    end, series = LandDaily().run(start, forcing, soil)
    sublimated = DAY * series[ET].sum("time").values
    fallen = DAY * forcing[RAIN].sum("time").values
    assert (end[SNOW].values > fallen - sublimated - 1e-9).all()
    assert (end[SNOW].values > 0.0).all()


def test_saturated_grass_under_steady_demand_evaporates_at_the_reference_rate():
    """At full cover, dry leaves and no water stress the model is FAO-56's own reference evapotranspiration (eq. 6)."""
    from twin import forcing as derived

    soil, days = soils(20), weather(1, 20, seed=9)
    soil["vegetation_cover"].values[:] = 1.0
    days[RAIN].values[:] = 0.0
    days[T].values[:] = 293.0
    days["wind_speed"].values[:] = 3.0
    days["surface_downwelling_shortwave_flux_in_air"].values[:] = 250.0
    start = state.initial(soil, 1.0)
    _, series = LandDaily().run(start, days, soil)
    d = days.isel(time=0)
    thermal = d["surface_downwelling_longwave_flux_in_air"].values
    net = (1 - 0.23) * 250.0 + 0.98 * (thermal - 5.670374e-8 * 293.0**4)
    deficit = derived.vapour_pressure_deficit(293.0, d["specific_humidity"].values, 9.6e4)
    expected = derived.reference_evapotranspiration(net, 293.0, derived.wind_at_2m(3.0), deficit, 9.6e4)
    np.testing.assert_allclose(series[ET].values[0], expected, rtol=2e-3)  # 0.408 for 1/2.45, 0.748 for 4.87/6.51


def test_a_dry_soil_gives_nothing_below_wilting_to_roots():
    soil, forcing = soils(40), weather(400, 40)
    forcing[RAIN].values[:] = 0.0
    end, _ = LandDaily().run(state.initial(soil, 0.5), forcing, soil)
    below = end[THETA].isel(layer=slice(1, None)).values
    fell_below = below < np.minimum(soil["theta_w"].values, 0.5 * soil["theta_s"].values) - 0.03
    assert not fell_below.any()


# --- refusals -------------------------------------------------------------------------------------------------------
def test_missing_forcing_is_refused_with_variable_day_and_cell():
    soil, forcing = soils(5), weather(10, 5)
    forcing[T].values[4, 2] = np.nan
    with pytest.raises(RangeError, match=r"'air_temperature'.*found nan at time 2003-10-05T00:00, cell 2"):
        LandDaily().run(state.initial(soil), forcing, soil)


def test_wrong_units_variables_and_steps_are_refused():
    soil, forcing = soils(5), weather(10, 5)
    start = state.initial(soil)
    celsius = forcing.assign({T: forcing[T].assign_attrs(units="degC")})
    with pytest.raises(UnitsError, match=r"expected K, found 'degC'"):
        LandDaily().run(start, celsius, soil)
    with pytest.raises(VariableError, match="wind_speed"):
        LandDaily().run(start, forcing.drop_vars("wind_speed"), soil)
    with pytest.raises(RangeError, match="expected 1 day, without gaps, found 172800 seconds"):
        LandDaily().run(start, forcing.isel(time=slice(None, None, 2)), soil)
    elsewhere = {"lat": ("cell", np.arange(5.0)), "lon": ("cell", np.zeros(5))}
    with pytest.raises(VariableError, match="expected the cells of the forcing, found other cells"):
        LandDaily().run(
            start.assign_coords(elsewhere), forcing.assign_coords(elsewhere).isel(cell=slice(None, None, -1)), soil
        )
    with pytest.raises(VariableError, match="state"):
        LandDaily().run(start.isel(cell=slice(3)), forcing, soil)
    broken = soil.copy(deep=True)
    broken["b"].values[3] = np.nan
    with pytest.raises(RangeError, match=r"parameter 'b'.*cell 3"):
        LandDaily().run(start, forcing, broken)


# --- spin-up --------------------------------------------------------------------------------------------------------
def test_spin_up_forgets_where_it_started():
    soil, year = soils(6), weather(365, 6)
    ends = [
        state.spin_up(LandDaily(), state.initial(soil, wetness), year, soil, cycles=40, tolerance=0.1)
        for wetness in (0.3, 0.95)
    ]
    for end in ends:
        assert end.attrs["spin_up_unsettled"] == 0
        assert end.attrs["spin_up_change"] <= 0.1
        assert 1 < end.attrs["spin_up_cycles"] <= 40
    assert np.abs(ends[0][THETA] - ends[1][THETA]).max() < 0.01


# --- real towers ----------------------------------------------------------------------------------------------------
def tower(frame: pd.DataFrame) -> xr.Dataset:
    """Forcing of one tower; its file has neither wind (2 m s-1 assumed, as FAO-56 does) nor thermal radiation."""
    air = frame["temp"].to_numpy() + 273.15
    vapour = frame["qair"].to_numpy() * frame["patm"].to_numpy() / 0.622
    emissivity = 1.24 * (0.01 * vapour / air) ** (1 / 7)  # Brutsaert (1975), clear sky
    values = {
        RAIN: frame["prec"].to_numpy() + frame["snow"].to_numpy(),
        T: air,
        "specific_humidity": frame["qair"].to_numpy(),
        "wind_speed": np.full(len(frame), 2.0 / 0.748),
        "surface_air_pressure": frame["patm"].to_numpy(),
        "surface_downwelling_shortwave_flux_in_air": frame["ppfd"].to_numpy() / 2.04e-6,
        "surface_downwelling_longwave_flux_in_air": np.minimum(emissivity * 1.05, 1.0) * 5.67e-8 * air**4,
    }
    days = pd.date_range(frame["date"].iloc[0], periods=len(frame))
    data = {name: (("time", "cell"), values[name][:, None], VARIABLES[name].attrs) for name in FORCING}
    return xr.Dataset(data, {"time": days})


@pytest.mark.real_data
def test_real_towers_are_stable_and_their_water_adds_up(real_data, capsys):
    """All years of ten flux towers from rain forest to desert; the annual budget is printed, closure checked."""
    pytest.importorskip("pyarrow")
    drivers = pd.read_parquet(real_data / "fluxnet" / "daily_drivers.parquet")
    lines = []
    for site, frame in drivers.groupby(drivers.columns[0]):
        frame = frame.sort_values("date")
        gap = frame["date"].diff().dt.days.fillna(1) > 2  # the files have no 29 February
        frame = frame[~gap.cummax()]
        if len(lines) == 10 or len(frame) < 365:
            continue
        forcing, soil = tower(frame), parameters.from_texture(0.43, 0.39, 0.18)
        start = state.initial(soil)
        end, series = LandDaily().run(start, forcing, soil)
        assert np.abs(imbalance(start, forcing, series)).max() < 1e-9
        theta = series[THETA].values
        assert (theta > 0.01).all() and (theta <= soil["theta_s"].values).all()
        years = len(frame) / 365.0
        p, e, r = (DAY * float(x.sum(dtype=float)) / years for x in (forcing[RAIN], series[ET], series[RUNOFF]))
        stored = float((state.water(end) - state.water(start)).sum()) / years
        assert 0.0 < e < 2000.0 and p - e - r == pytest.approx(stored, abs=1e-6)
        lines.append(
            f"{site}: {years:.0f} years, P {p:.0f} = ET {e:.0f} + runoff {r:.0f} + storage {p - e - r:.0f} mm a-1"
        )
    assert lines
    with capsys.disabled():
        print("", *lines, sep="\n")
