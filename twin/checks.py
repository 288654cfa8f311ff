"""Does a Dataset honour the table of variables? Refused at the door, with both sides in the message."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from twin.errors import RangeError, UnitsError, VariableError
from twin.variables import VARIABLES, with_role


def check_present(ds: xr.Dataset, names: Iterable[str], where: str = "") -> None:
    """Every name is a variable or coordinate of `ds`; else VariableError lists what is there."""
    for name in names:
        if name not in ds.variables:
            found = ", ".join(sorted(map(str, ds.data_vars))) or "no variable"
            raise VariableError(f"variable '{name}'", expected=f"'{name}'", found=found, where=where)


def check_units(name: str, units: str | None, where: str = "") -> None:
    """`units` is the table's spelling for `name`; else UnitsError."""
    expected = VARIABLES[name].units
    if " ".join(str(units or "").split()) != expected:
        raise UnitsError(f"'{name}'", expected=expected, found=repr(units) if units else "no units", where=where)


def check_dims(name: str, dims: Iterable[object], where: str = "", *, time: bool = True) -> None:
    """`dims` are the table's, in the table's order (without `time` if asked); else VariableError."""
    expected = tuple(dim for dim in VARIABLES[name].dims if time or dim != "time")
    if tuple(dims) != expected:
        raise VariableError(f"dims of '{name}'", expected=expected, found=tuple(dims), where=where)


def check_range(name: str, values: np.ndarray | xr.DataArray, where: str = "", *, missing: bool = True) -> None:
    """Every finite value lies in the table's range and there is one; else RangeError with the first offender.

    values    any shape; infinite values are out of range. A DataArray also tells the offender's time and place
    missing   NaN is allowed, unless there is nothing else
    """
    variable = VARIABLES[name]
    array = np.asarray(values)
    limits = f"{variable.valid_min:g} to {variable.valid_max:g} {variable.units}"
    if array.size == 0:
        raise RangeError(f"'{name}'", expected=limits, found="no value", where=where)
    if array.min() >= variable.valid_min and array.max() <= variable.valid_max:  # false as soon as one is NaN
        return
    nan = np.isnan(array)
    if nan.all():
        raise RangeError(f"'{name}'", expected=limits, found="no finite value", where=where)
    wrong = (array < variable.valid_min) | (array > variable.valid_max)
    if not missing:
        wrong |= nan
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        found = f"{array[at]:g} at {_place(values, at)}, {int(wrong.sum())} of {wrong.size} values"
        raise RangeError(f"'{name}'", expected=limits, found=found, where=where)


def _place(values: np.ndarray | xr.DataArray, at: tuple[np.intp, ...]) -> str:
    """Where an element is, in words: its day and position along each dim."""
    if not isinstance(values, xr.DataArray):
        return str([int(i) for i in at])
    words = []
    for dim, i in zip(values.dims, at, strict=True):
        day = dim == "time" and dim in values.coords
        words.append(f"{dim} {values[dim].values[i].astype('datetime64[m]') if day else int(i)}")
    return ", ".join(words)


def check_dataset(
    ds: xr.Dataset, role: str | Iterable[str], where: str = "", *, time: bool = True, missing: bool = True
) -> None:
    """Names, dims, units and ranges of a role of the table (or of the named variables); raises what fails first.

    time      the variables have their time dim (a state does not)
    missing   NaN is allowed
    Raises VariableError, UnitsError, RangeError.
    """
    names = [variable.name for variable in with_role(role)] if isinstance(role, str) else list(role)
    check_present(ds, names, where)
    for name in names:
        check_dims(name, ds[name].dims, where, time=time)
        check_units(name, ds[name].attrs.get("units"), where)
    for name in names:
        check_range(name, ds[name], where, missing=missing)
