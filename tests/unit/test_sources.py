"""The products: recognised by their collections, consistent with the table of variables."""

from __future__ import annotations

import pytest

from stac.sources import PRODUCTS, data_assets, product, recognise
from twin.variables import VARIABLES, with_role


@pytest.mark.parametrize(
    ("collection", "expected"),
    [
        ("smap-l3-am", "smap-l3-am"),
        ("nldas2-fora-daily", "nldas2-fora-daily"),
        ("c3s-soil-moisture", "c3s-soil-moisture"),
        ("C3S-soil-moisture-combined-daily", "c3s-soil-moisture"),
        ("esacci-soil-moisture-passive", "esacci-soil-moisture"),
        ("wfde5-cru-hourly", "wfde5"),
        ("uk-wfde5", "wfde5"),
        ("simulated-forcing", "simulated-forcing"),
        ("simulated-soil-moisture", "simulated-soil-moisture"),
        ("simulated-sif", "simulated-sif"),
    ],
)
def test_an_item_is_recognised_by_its_collection(collection, expected):
    found = recognise({"id": "x", "collection": collection})
    assert found is not None and found.id == expected


@pytest.mark.parametrize("collection", ["modis-061", "", None, "not-smap-l3-am"])
def test_an_unknown_collection_is_no_product(collection):
    assert recognise({"id": "x", "collection": collection}) is None


def test_ids_are_unique_and_found_by_name():
    assert len({entry.id for entry in PRODUCTS}) == len(PRODUCTS)
    assert product("wfde5").step == "1h"
    with pytest.raises(KeyError, match="there are smap-l3-am"):
        product("smap")


@pytest.mark.parametrize("entry", PRODUCTS, ids=lambda entry: entry.id)
def test_a_product_provides_variables_of_the_table(entry):
    assert entry.kind in ("forcing", "observation") and entry.step in ("1D", "1h")
    if entry.kind == "forcing":
        assert set(entry.provides) == {row.name for row in with_role("forcing")}
    else:
        assert all(VARIABLES[name].role == "observation" for name in entry.provides)
        assert entry.error > 0 and 0 < entry.floor <= entry.error


@pytest.mark.parametrize("entry", PRODUCTS, ids=lambda entry: entry.id)
def test_everything_provided_has_a_band_or_a_recipe(entry):
    made = {band.variable for band in entry.bands}
    for recipe in entry.derived:
        assert set(recipe.of) <= made
        made.add(recipe.variable)
    assert set(entry.provides) <= made


@pytest.mark.parametrize("entry", [entry for entry in PRODUCTS if entry.id.startswith("simulated")], ids=lambda e: e.id)
def test_simulated_products_speak_our_own_language(entry):
    for band in entry.bands:
        assert (band.native, band.scale, band.offset) == (band.variable, 1, 0)
        assert band.units == (VARIABLES[band.variable].units,)


@pytest.mark.parametrize("entry", PRODUCTS, ids=lambda entry: entry.id)
def test_every_flag_has_a_rule_and_says_what_passes(entry):
    for flag in entry.flags:
        assert flag.meaning and (flag.accepted or flag.clear or flag.below is not None)
        assert flag.band in entry.natives


def test_units_of_rain_are_converted_by_the_declared_factor():
    (rain,) = [band for band in product("nldas2-fora-daily").bands if band.variable == "precipitation_flux"]
    assert 3600 * rain.scale == pytest.approx(1) and "mm/day" not in rain.units


def test_data_assets_are_told_by_role_then_type_then_name():
    picture = {"href": "a.png", "type": "image/png", "roles": ["thumbnail"]}
    by_role = {"x": {"href": "a.bin", "roles": ["data"]}, "y": {"href": "b.nc"}, "z": picture}
    assert list(data_assets(by_role)) == ["x"]
    by_type = {"x": {"href": "a", "type": "application/x-netcdf"}, "y": {"href": "readme.txt"}, "z": picture}
    assert list(data_assets(by_type)) == ["x"]
    assert list(data_assets({"x": {"href": "http://h/a.NC?token=1"}, "y": {"href": "readme.txt"}})) == ["x"]
    assert list(data_assets({"x": {"href": "a"}, "z": picture})) == ["x"]
