"""What satellites would see: the recursion as written, its limits, and what dry soil does to fluorescence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import state
from twin.errors import SettingsError
from twin.inputs import SUNLIGHT, THETA
from twin.operators import (
    FLUORESCENCE,
    GAIN,
    HEAVY,
    PER_CARBON,
    PRODUCTIVITY,
    RADIANCE,
    Fluorescence,
    SoilMoisture,
    operator,
)
from twin.parameters import from_texture

DAYS, LON = 30, np.array([-60.0, 0.0, 37.0])


@pytest.fixture
def case() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, xr.Dataset]:
    """(run, state before, forcing, parameters) of three cells."""
    rng = np.random.default_rng(1)
    shape = DAYS, LON.size
    parameters = from_texture(np.full(3, 0.5), np.full(3, 0.3), np.full(3, 0.2))
    rain = np.where(rng.random(shape) < 0.3, rng.exponential(8.0, shape), 0.0) / 86400.0
    forcing = xr.Dataset(
        {
            "precipitation_flux": (("time", "cell"), rain),
            "air_temperature": (("time", "cell"), np.full(shape, 295.0)),
            SUNLIGHT: (("time", "cell"), np.full(shape, 220.0)),
        },
        {"time": pd.date_range("2020-01-01", periods=DAYS), "lat": ("cell", np.zeros(3)), "lon": ("cell", LON)},
    )
    run = xr.Dataset({THETA: (("time", "layer", "cell"), rng.uniform(0.15, 0.25, (DAYS, 4, 3)))})
    return run, state.initial(parameters, 0.5), forcing, parameters


def seen(h, case, **c) -> np.ndarray:
    return h(*case, c)


@pytest.mark.parametrize("hour", [None, 6.0, 18.0])
def test_soil_moisture_is_the_recursion_written_out(case, hour):
    """H = θ_{d-1} + f (θ_d − θ_{d-1}) + x_d, day by day in a loop."""
    run, before, forcing, parameters = case
    g, tau = 0.7, 1.6
    theta = np.concatenate([before[THETA].values[:1], run[THETA].values[:, 0]])
    rain = np.minimum(86400.0 * forcing["precipitation_flux"].values, HEAVY)
    expected = np.empty((DAYS, 3))
    for cell, lon in enumerate(LON):
        f = 0.5 if hour is None else ((hour - lon / 15.0) / 24.0) % 1.0
        X = 0.0
        for d in range(DAYS):
            x = np.exp(-f / tau) * X + g * GAIN * f * rain[d, cell] * np.exp(-0.5 * f / tau) / 100.0
            X = np.exp(-1.0 / tau) * X + g * GAIN * rain[d, cell] * np.exp(-0.5 / tau) / 100.0
            expected[d, cell] = theta[d, cell] + f * (theta[d + 1, cell] - theta[d, cell]) + x
    expected = np.minimum(expected, parameters["theta_s"].values)
    np.testing.assert_allclose(seen(SoilMoisture(hour), case, skin_gain=g, skin_time=tau), expected, atol=1e-6)


def test_rain_before_the_overpass_is_seen_and_rain_after_it_hardly(case):
    """At 06:00 in longitude 0 a quarter of the UTC day is over: a quarter of its rain has fallen."""
    run, before, forcing, parameters = case
    dry = forcing.assign(precipitation_flux=0.0 * forcing["precipitation_flux"])
    storm = dry.copy(deep=True)
    storm["precipitation_flux"][10] = 10.0 / 86400.0
    wetter = seen(SoilMoisture(6.0), (run, before, storm, parameters)) - seen(
        SoilMoisture(6.0), (run, before, dry, parameters)
    )
    assert (wetter[:10] == 0.0).all()
    np.testing.assert_allclose(wetter[10, 1], GAIN * 0.25 * 0.1 * np.exp(-0.125), rtol=1e-3)
    np.testing.assert_allclose(wetter[11, 1], GAIN * 0.1 * np.exp(-0.5) * np.exp(-0.25), rtol=1e-3)
    np.testing.assert_allclose(wetter[13, 1] / wetter[12, 1], np.exp(-1.0), rtol=1e-3)
    assert wetter[10, 0] > wetter[10, 1] > wetter[10, 2]  # in the west 06:00 is later in the UTC day


def test_nothing_is_wetter_than_its_pores_and_snow_does_not_wet(case):
    run, before, forcing, parameters = case
    flood = forcing.assign(precipitation_flux=0.0 * forcing["precipitation_flux"] + 0.001)
    full = seen(SoilMoisture(6.0), (run, before, flood, parameters), skin_gain=3.0)[-1]
    np.testing.assert_allclose(full, parameters["theta_s"])
    cold = flood.assign(air_temperature=flood["air_temperature"] - 40.0)
    no_rain = seen(SoilMoisture(6.0), case, skin_gain=0.0)
    np.testing.assert_allclose(seen(SoilMoisture(6.0), (run, before, cold, parameters)), no_rain, atol=1e-7)


def test_fluorescence_of_light_use_falls_with_dry_soil(case):
    """None at the wilting point, the most at the critical point and beyond, in proportion to its factor."""
    run, before, forcing, parameters = case

    def at(theta):
        return seen(
            Fluorescence(),
            (0.0 * run + theta, before.assign({THETA: 0.0 * before[THETA] + theta}), forcing, parameters),
        )

    wilting, critical = (float(parameters[name][0]) for name in ("theta_w", "theta_c"))
    assert np.abs(at(wilting)).max() < 1e-6
    np.testing.assert_allclose(at(0.5 * (wilting + critical)), 0.5 * at(critical), rtol=1e-4)
    np.testing.assert_allclose(at(critical + 0.1), at(critical), rtol=1e-5)
    assert 0.1 < at(critical).max() < 10.0  # mW m-2 sr-1 nm-1, the order of what is observed
    np.testing.assert_allclose(seen(Fluorescence(), case, sif_scale=1.7), 1.7 * seen(Fluorescence(), case), rtol=1e-6)


def test_a_model_that_tells_its_own_fluorescence_is_believed(case):
    run, before, forcing, parameters = case
    emitted = xr.DataArray(np.full((DAYS, 3), 3e-9), dims=("time", "cell"))
    for name, factor in ((PRODUCTIVITY, PER_CARBON), (FLUORESCENCE, RADIANCE)):  # the second goes before the first
        run = run.assign({name: emitted})
        found = seen(Fluorescence(), (run, before, forcing, parameters), sif_scale=2.0)
        np.testing.assert_allclose(found, 2.0 * factor * 3e-9, rtol=1e-6)


def test_what_cannot_be_seen_is_refused(case):
    run, before, forcing, parameters = case
    with pytest.raises(SettingsError, match="fluorescence of a run"):
        seen(Fluorescence(), (run, before, forcing, parameters.drop_vars("vegetation_cover")))
    with pytest.raises(SettingsError, match=r"observed variable.*backscatter"):
        operator("backscatter")
    assert operator("surface_soil_moisture", 6.0) == SoilMoisture(6.0)
    assert operator("sif_radiance") == Fluorescence()
