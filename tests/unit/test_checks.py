"""The door: every refusal names both sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from twin import checks
from twin.errors import RangeError, UnitsError, VariableError
from twin.variables import VARIABLES, with_role

AIR = "air_temperature"


def forcing() -> xr.Dataset:
    data = {
        variable.name: (
            ("time", "cell"),
            np.full((2, 3), 0.5 * (variable.valid_min + variable.valid_max)),
            variable.attrs,
        )
        for variable in with_role("forcing")
    }
    return xr.Dataset(data, {"time": pd.date_range("2020-01-01", periods=2)})


def test_a_good_dataset_passes():
    checks.check_dataset(forcing(), "forcing", "item x")
    checks.check_dataset(forcing(), [AIR], missing=False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            20.0,
            r"expected 180 to 340 K, found 20 at time 2020-01-02T00:00, cell 1, 1 of 6 values \(item x\)",
        ),
        (1e30, "found 1e\\+30 at"),
        (np.inf, "found inf at"),
    ],
)
def test_one_impossible_value_is_enough(value, message):
    ds = forcing()
    ds[AIR].values[1, 1] = value
    with pytest.raises(RangeError, match=message):
        checks.check_dataset(ds, "forcing", "item x")


def test_an_impossible_value_is_found_beside_missing_ones():
    with pytest.raises(RangeError, match="found -1"):
        checks.check_range(AIR, np.array([np.nan, 280.0, -1.0]))


def test_missing_is_allowed_unless_nothing_else_is_there():
    checks.check_range(AIR, np.array([np.nan, 280.0]))
    with pytest.raises(RangeError, match="no finite value"):
        checks.check_range(AIR, np.array([np.nan, np.nan]))
    with pytest.raises(RangeError, match="found nan"):
        checks.check_range(AIR, np.array([np.nan, 280.0]), missing=False)
    with pytest.raises(RangeError, match="no value"):
        checks.check_range(AIR, np.array([]))


@pytest.mark.parametrize("units", ["degC", "", None, "k"])
def test_other_units_are_refused(units):
    with pytest.raises(UnitsError, match=r"'air_temperature': expected K, found .*\(here\)"):
        checks.check_units(AIR, units, "here")


def test_spaces_in_units_do_not_matter():
    checks.check_units("precipitation_flux", " kg  m-2 s-1 ")


def test_dims_names_and_order():
    checks.check_dims(AIR, ("time", "cell"))
    checks.check_dims("canopy_water_amount", ("cell",), time=False)
    with pytest.raises(VariableError, match=r"expected \('time', 'cell'\), found \('cell', 'time'\)"):
        checks.check_dims(AIR, ("cell", "time"))
    with pytest.raises(VariableError, match="expected 'wind_speed', found"):
        checks.check_dataset(forcing().drop_vars("wind_speed"), "forcing")


def test_bounds_themselves_are_possible():
    for variable in VARIABLES.values():
        checks.check_range(variable.name, np.array([variable.valid_min, variable.valid_max]))
