"""What the guides show in code runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin import parameters, state, synthetic
from twin.inputs import THETA
from twin.land import LandDaily
from twin.variables import VARIABLES, with_role

GUIDES = Path(__file__).parents[2] / "docs"


def code_of(section: str) -> str:
    """The program under "Using it" in a section of the science guide."""
    text = (GUIDES / "science.md").read_text(encoding="utf-8")
    code = re.search(rf"^{section}.*?### Using it\n\n```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert code
    return code[1]


def test_the_land_model_is_used_as_the_science_guide_says():
    """Four days of a tropical grassland: it evaporates between 1 and 8 mm a day, without running dry."""
    place = {"lat": ("cell", [5.0, 6.0, 7.0]), "lon": ("cell", [1.0, 2.0, 3.0])}
    parts = {"sand": 0.4, "silt": 0.4, "clay": 0.2}
    weather = (2e-5, 298.0, 0.012, 3.0, 98e3, 220.0, 390.0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")
    rows = {
        row.name: (("time", "cell"), np.full((4, 3), value), {"units": VARIABLES[row.name].units})
        for row, value in zip(with_role("forcing"), weather, strict=True)
    }
    known: dict[str, Any] = {
        "texture": xr.Dataset({name: ("cell", np.full(3, part)) for name, part in parts.items()}, place),
        "tile_fraction": np.eye(9)[3][:, None] * np.ones(3),
        "forcing": xr.Dataset(rows, {"time": times, **place}),
    }
    exec(code_of("## The land model"), known)
    daily = known["daily"]
    evaporated = 86400.0 * daily["water_evapotranspiration_flux"]
    assert daily.sizes == {"time": 4, "layer": 4, "cell": 3}
    assert float(evaporated.min()) > 1.0 and float(evaporated.max()) < 8.0


def test_a_window_is_assimilated_as_the_science_guide_says():
    """A season of the savanna seen every third day: closer to the truth than before; and the algebra is Kalman's."""
    lat, lon = (each.ravel() for each in np.meshgrid(np.arange(8.0, 15.0, 2.0), np.arange(0.0, 18.0, 3.0)))
    place = synthetic.climate(xr.Dataset(coords={"lat": ("cell", lat), "lon": ("cell", lon)}))
    forcing = synthetic.forcing(place, pd.date_range("2021-01-01", "2021-06-29"))
    texture, other = (synthetic.soils(xr.Dataset(forcing.coords), true=true) for true in (False, True))
    soil, truth = (parameters.from_texture(each["sand"], each["silt"], each["clay"]) for each in (texture, other))
    truth["surface_resistance"] = 2.0 * truth["surface_resistance"]
    start, _ = LandDaily().run(state.initial(truth), forcing, truth)
    _, run = LandDaily().run(start, forcing, truth)
    wet = run[THETA].isel(layer=0, drop=True).sel(time=slice("2021-04-01", None)).isel(time=slice(None, None, 3))
    rng = np.random.default_rng(5)
    value = wet + rng.normal(0.0, 0.03, wet.shape)
    units = {"units": "m3 m-3"}
    X, Y, d, x_b = rng.normal(size=(6, 3)), rng.normal(size=(6, 4)), rng.normal(size=4), rng.normal(size=3)
    X, Y, R = X - X.mean(axis=0), Y - Y.mean(axis=0), np.array([0.5, 1.0, 2.0, 0.1])
    known: dict[str, Any] = {
        "soil": soil.assign(sand=texture["sand"], clay=texture["clay"]),
        "forcing": forcing,
        "retrievals": xr.Dataset(
            {
                "surface_soil_moisture": value.assign_attrs(units),
                "surface_soil_moisture_error": xr.full_like(value, 0.03).assign_attrs(units),
            }
        ),
        **{"X": X, "Y": Y, "d": d, "R": R, "x_b": x_b},
    }
    exec(code_of("## Assimilation"), known)
    found, predicted = known["found"], known["found"].predicted["satellite"]
    missed = {n: float(((predicted[n] - predicted["value"]) ** 2).mean()) for n in ("open_loop", "analysis")}
    assert missed["analysis"] < missed["open_loop"]
    assert found.accepted == (known["better"] is found.parameters)
    assert known["spread"].sizes == {"time": 90, "cell": 24} and float(known["spread"].min()) > 0.0
    gain = X.T @ Y @ np.linalg.inv(Y.T @ Y + np.diag(R))
    np.testing.assert_allclose(known["x_a"], x_b + gain @ d, rtol=1e-10)
    np.testing.assert_allclose(known["X_a"].T @ known["X_a"], X.T @ X - gain @ Y.T @ X, atol=1e-10)


def test_an_emulator_is_used_as_the_science_guide_says(tmp_path, monkeypatch):
    """Trained on a few places: intervals hold its values, causes sum, rain alone explains what less rain does."""
    case = runpy.run_path(str(Path(__file__).parents[1] / "emulator_case.py"))
    runs = case["training"]()
    run = runs.of("test")[0]
    monkeypatch.chdir(tmp_path)
    given = {"training": runs, "start": run.state, "forcing": run.forcing, "parameters": run.parameters}
    known: dict[str, Any] = dict(given)
    exec(code_of("## The emulator"), known)
    told, predicted = known["told"], known["emulator"].predict(known["rows"])
    assert told.sizes["time"] == run.forcing.sizes["time"]
    assert (known["low"] <= predicted + 1e-6).all() and (predicted <= known["high"] + 1e-6).all()
    assert known["strange"].shape == (len(known["rows"]),) and not known["strange"].all()
    days, spring, others = known["days"], known["spring"], known["others"]
    anomaly = known["emulator"].predict(days[spring]).mean(axis=0) - known["emulator"].predict(days[others]).mean(
        axis=0
    )
    np.testing.assert_allclose(known["why"].sum("group").values, anomaly, atol=1e-5)
    causes = known["causes"]
    change = causes["value"] - causes["reference_value"]
    np.testing.assert_allclose(causes["contribution"].sum("group"), change, atol=1e-9)
    np.testing.assert_allclose(causes["contribution"].sel(group="rain"), change, atol=1e-9)
    assert float(change.max()) <= 1e-4


def test_indices_are_used_as_the_science_guide_says():
    """Thirty years of one rainy season, one of them with a third of the rain: found by all."""
    days = pd.date_range("1971-01-01", "2000-12-31")
    rng = np.random.default_rng(0)
    course = np.clip(np.sin(2 * np.pi * (days.day_of_year.to_numpy() - 110) / 365.25), 0.0, None)[:, None]
    less = np.where(days.year == 1983, 0.3, 1.0)[:, None]
    fell = rng.gamma(0.5, 14.0, (days.size, 2)) * (rng.random((days.size, 2)) < 0.6 * course) * less / 86400.0
    soil = pd.DataFrame(fell * 86400.0).ewm(halflife=25).mean().to_numpy()
    about = {"units": "kg m-2 s-1"}
    dims, coords = ("time", "cell"), {"time": days}
    known: dict[str, Any] = {
        "rain": xr.DataArray(fell.astype(np.float32), coords, dims, "precipitation_flux", about),
        "theta": xr.DataArray((0.1 + 0.02 * soil).astype(np.float32), coords, dims, "theta", {"units": "m3 m-3"}),
        "available": xr.DataArray((soil / 6.0).clip(0.0, 1.0).astype(np.float32), coords, dims, "availability"),
    }
    exec(code_of("## Indices"), known)
    assert float(known["index"].sel(time="1983-09-01").max()) < -2.0
    assert set(known["droughts"]["onset"].dt.year.values.tolist()) & {1983}
    assert known["each"].sizes["method"] == 3 and known["dry"]["longest_dry_spell"].sizes["year"] == 30
