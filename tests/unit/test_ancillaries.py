"""Soil maps onto layers, and everything the land model needs in one call."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from twin import parameters
from twin.errors import RangeError, SettingsError, UnitsError, VariableError
from twin.parameters import TILES
from twin.parameters.ancillaries import layer_weights
from twin.variables import LAYERS

DEPTHS = ["0-5cm", "5-15cm", "15-30cm", "30-60cm", "60-100cm", "100-200cm"]


def soilgrids(cells: int = 3) -> xr.Dataset:
    """As SoilGrids 2.0 serves it: integers in g/kg, cg/cm³ and dg/kg; sand falls with depth."""
    sand = np.repeat(np.array([500, 480, 450, 400, 350, 300])[:, None], cells, axis=1)
    clay = np.full_like(sand, 200)
    parts = {"sand": (sand, "g/kg"), "clay": (clay, "g/kg"), "silt": (1000 - sand - clay, "g/kg")}
    parts |= {"bdod": (np.full_like(sand, 140), "cg/cm³"), "soc": (np.full_like(sand, 120), "dg/kg")}
    variables = {name: (("depth", "cell"), values, {"units": units}) for name, (values, units) in parts.items()}
    place = {"lat": ("cell", np.arange(cells, dtype=float)), "lon": ("cell", np.zeros(cells))}
    return xr.Dataset(variables, {"depth": DEPTHS, **place})


def hwsd() -> xr.Dataset:
    values = {"T_SAND": 40.0, "T_SILT": 40.0, "T_CLAY": 20.0, "S_SAND": 30.0, "S_SILT": 35.0, "S_CLAY": 35.0}
    return xr.Dataset({name: ("cell", [value]) for name, value in values.items()})


def test_layers_take_their_share_of_each_depth():
    """0–10 cm is half 0–5 and half 5–15; 10–35 cm 5, 15 and 5 of 25; 1–3 m continues 100–200."""
    weights = layer_weights(np.array([0.0, 0.05, 0.15, 0.3, 0.6, 1.0, 2.0]))
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-14)
    assert weights[0] == pytest.approx([0.5, 0.5, 0, 0, 0, 0])
    assert weights[1] == pytest.approx([0, 0.2, 0.6, 0.2, 0, 0])
    assert weights[3] == pytest.approx([0, 0, 0, 0, 0, 1.0])


def test_a_map_that_ends_early_is_continued_and_one_that_ends_late_is_cut():
    for edges in ([0.0, 0.3, 1.0], [0.0, 0.3, 1.0, 5.0], [0.0, 0.2, 3.0, 4.0]):
        assert layer_weights(np.array(edges)).sum(axis=1) == pytest.approx(1.0, abs=1e-14)


def test_soilgrids_in_our_units_on_our_layers():
    soil = parameters.from_soilgrids(soilgrids())
    assert soil["sand"].dims == ("layer", "cell") and soil.sizes["layer"] == len(LAYERS)
    assert soil["sand"].values[:, 0] == pytest.approx([0.49, 0.446, (0.25 * 0.4 + 0.4 * 0.35) / 0.65, 0.3])
    assert soil["bulk_density"].values == pytest.approx(1400.0) and soil["organic_carbon"].values == pytest.approx(
        0.012
    )
    assert np.abs(soil["sand"] + soil["silt"] + soil["clay"] - 1.0).max() < 1e-14
    assert soil.attrs == {"fill": "refuse", "filled": 0}


def test_hwsd_has_two_depths_and_needs_no_units():
    soil = parameters.from_hwsd(hwsd())
    assert soil["clay"].values[:, 0] == pytest.approx([0.2, 0.8 * 0.2 + 0.2 * 0.35, 0.35, 0.35])
    assert "bulk_density" not in soil


def test_units_that_the_values_contradict_are_refused():
    wrong = soilgrids()
    for name in ("sand", "silt", "clay"):
        wrong[name].attrs["units"] = "%"
    with pytest.raises(UnitsError, match=r"'sand': expected 0 to 1 1, found 5 from '%'"):
        parameters.from_soilgrids(wrong)
    wrong = soilgrids()
    wrong["bdod"].attrs["units"] = "lb ft-3"
    with pytest.raises(UnitsError, match=r"'bdod': expected 'cg cm-3', found 'lb ft-3'"):
        parameters.from_soilgrids(wrong)
    wrong = soilgrids()
    wrong["sand"] = wrong["sand"] // 10
    with pytest.raises(UnitsError, match=r"sand \+ silt \+ clay: expected 0.9 to 1.1, found 0.55 \(depth 0, cell 0\)"):
        parameters.from_soilgrids(wrong.assign(sand=wrong["sand"].assign_attrs(units="g/kg")))


def test_depths_must_follow_each_other():
    with pytest.raises(VariableError, match="soil depths: expected 0-5cm, 5-15cm and so on"):
        parameters.from_soilgrids(soilgrids().isel(depth=[0, 2, 3]))


@pytest.mark.parametrize("nothing", [np.nan, -32768.0])
def test_missing_cells_are_filled_by_a_named_rule_and_counted(nothing):
    ds = soilgrids(4).astype(float)
    ds["sand"][:, 3] = 600.0
    ds["silt"][:, 3] = 200.0
    ds["clay"][2, 2] = nothing
    with pytest.raises(RangeError, match=r"1 of 4 cells missing \(cell 2 first\)"):
        parameters.from_soilgrids(ds)
    loam = parameters.from_soilgrids(ds, "loam")
    assert loam["sand"].values[:, 2] == pytest.approx(0.43) and loam.attrs == {"fill": "loam", "filled": 1}
    ds["lat"] = ("cell", [0.0, 1.0, 2.9, 3.0])
    nearest = parameters.from_soilgrids(ds, "nearest")
    assert nearest["sand"].values[:, 2] == pytest.approx(0.6) and nearest.attrs["filled"] == 1
    with pytest.raises(SettingsError, match="refuse, nearest, loam"):
        parameters.from_soilgrids(ds, "guess")


def test_water_without_texture_counts_as_missing():
    ds = soilgrids(2)
    for name in ("sand", "silt", "clay", "bdod", "soc"):
        ds[name][:, 1] = 0
    assert parameters.from_soilgrids(ds, "loam").attrs["filled"] == 1


def test_nearest_knows_that_the_earth_is_round():
    ds = soilgrids(3).astype(float).assign_coords(lat=("cell", [0.0, 0.0, 0.0]), lon=("cell", [-179.9, 179.9, 170.0]))
    ds["sand"][:, 0], ds["silt"][:, 0] = 700.0, 100.0
    ds["sand"][:, 1] = np.nan
    assert parameters.from_soilgrids(ds, "nearest")["sand"].values[:, 1] == pytest.approx(0.7)


# --- everything -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", parameters.VARIANTS)
def test_everything_from_maps(variant):
    texture = parameters.from_soilgrids(soilgrids())
    fraction = parameters.from_land_cover([50, 130, 190], 0.5)
    ds = parameters.assemble(texture, fraction, variant)
    by_layer = ("b", "psi_s", "K_s", "theta_s", "theta_c", "theta_w", "theta_r", "heat_capacity", "heat_conductivity")
    assert all(ds[name].dims == ("layer", "cell") for name in by_layer)
    assert all(ds[name].dims == ("tile", "cell") for name in ("tile_fraction", "leaf_area_index", "canopy_height"))
    assert all(ds[name].attrs["units"] and bool(ds[name].notnull().all()) for name in ds.data_vars)
    assert tuple(ds["tile"].values) == TILES and "lat" in ds.coords and ds.attrs["pedotransfer"] == variant
    assert ds["leaf_area_index"].sel(tile="broadleaf_tree").values == pytest.approx(5.0)


def test_tiles_are_put_in_order_and_months_are_kept():
    texture = parameters.from_hwsd(hwsd())
    fraction = parameters.from_land_cover([40], 0.3)
    leaves = np.random.default_rng(2).uniform(0, 6, (12, 9, 1))
    ds = parameters.assemble(
        texture, fraction.isel(tile=slice(None, None, -1)), leaf_area_index=leaves, soil_albedo=0.3
    )
    np.testing.assert_allclose(ds["tile_fraction"].values, fraction.values, atol=1e-15)
    assert ds["leaf_area_index"].dims == ("month", "tile", "cell") and ds["soil_albedo"].values == 0.3


def test_what_does_not_fit_is_refused():
    texture, fraction = parameters.from_hwsd(hwsd()), parameters.from_land_cover([40], 0.3)
    with pytest.raises(RangeError, match=r"tile fractions: expected a sum of 1, found 0.9 \(cell 0\)"):
        parameters.assemble(texture, 0.9 * fraction)
    with pytest.raises(VariableError, match=r"shape of 'tile_fraction': expected \(9, 1\), found \(5, 1\)"):
        parameters.assemble(texture, fraction.values[:5])
    with pytest.raises(VariableError, match="tiles of 'tile_fraction': expected broadleaf_tree"):
        parameters.assemble(texture, fraction.isel(tile=slice(5)))
    with pytest.raises(RangeError, match=r"'canopy_height': expected 0 to 120, found nan \(c3_grass, cell 0\)"):
        height = np.ones((9, 1))
        height[2] = np.nan
        parameters.assemble(texture, fraction, canopy_height=height)
    with pytest.raises(VariableError, match="variable 'sand'"):
        parameters.assemble(texture.drop_vars("sand"), fraction)
