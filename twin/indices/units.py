"""Water as an amount: whatever rate or depth a record is given in, the mm (= kg m-2) of each of its steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from twin.errors import RangeError, TimeError, VariableError

DEPTHS = {"mm": 1.0, "kg m-2": 1.0, "kg/m2": 1.0, "cm": 10.0, "m": 1000.0}  # in mm
PER_DAY = {"s-1": 86400.0, "h-1": 24.0, "hour-1": 24.0, "d-1": 1.0, "day-1": 1.0}
PER_MONTH = ("month-1", "mon-1")
_UNDERSTOOD = "an amount (mm, kg m-2, cm, m) or a rate of it (s-1, h-1, day-1; of months month-1)"


def rain_amounts(pr: xr.DataArray) -> xr.DataArray:
    """Rain of each time step, mm (= kg m-2), dims of `pr`, float32 unless it is float64.

    pr   (time, cell) or (time), consecutive days or months; `units` a rate (kg m-2 s-1, mm day-1, mm/month …) or an
         amount in the step (mm, kg m-2, cm, m)
    Raises VariableError for other units, RangeError for negative rain, TimeError for other times.
    """
    check_rain(pr)
    factors = amount_factors(pr).astype(np.result_type(pr.dtype, np.float32))
    amounts = pr.copy(data=pr.values * factors.reshape(-1, *[1] * (pr.ndim - 1)))
    amounts.attrs = {"units": "mm", "long_name": "rain of the time step"}
    return amounts


def check_rain(pr: xr.DataArray) -> None:
    """RangeError where rain is negative; missing rain is not looked at."""
    lowest = np.fmin.reduce(pr.values, axis=None) if pr.size else 0.0
    if lowest < 0.0:
        raise RangeError(f"rain '{pr.name}'", expected="0 or more", found=float(lowest))


def amount_factors(values: xr.DataArray) -> np.ndarray:
    """What turns the water of each time step, of any sign, into mm, (time), float64; errors as in `rain_amounts`."""
    if values.dims[:1] != ("time",):
        raise VariableError(f"dims of '{values.name}'", expected="time first", found=values.dims)
    monthly = is_monthly(values["time"].values)
    factor, by_day = _factor(values, monthly)
    if monthly and by_day:
        return factor * month_days(values["time"].values)
    return np.full(values.sizes["time"], factor)


def is_monthly(time: np.ndarray) -> bool:
    """Whether the times are consecutive months, not consecutive days; one time alone is a day."""
    times = np.asarray(time)
    if times.size == 0:
        raise TimeError("time of the series", expected="consecutive days or months", found="none")
    if (np.diff(times.astype("datetime64[D]")) == np.timedelta64(1, "D")).all():
        return False
    if (np.diff(times.astype("datetime64[M]")) == np.timedelta64(1, "M")).all():
        return True
    raise TimeError("time of the series", expected="consecutive days or months", found="gaps, or another step")


def month_days(time: np.ndarray) -> np.ndarray:
    """Days of the calendar month that each time lies in, int64."""
    return pd.DatetimeIndex(time).days_in_month.to_numpy().astype(np.int64)


def _factor(values: xr.DataArray, monthly: bool) -> tuple[float, bool]:
    """(factor to mm in the step, or in a day if the second is true)."""
    given = str(values.attrs.get("units", "none"))
    units = " ".join(given.replace("**", "").replace("^", "").replace(" / ", "/").split())
    if units in DEPTHS:
        return DEPTHS[units], False
    depth, _, per = units.rpartition("/" if "/" in units else " ")
    per = f"{per}-1" if "/" in units else per
    if depth in DEPTHS and per in PER_DAY:
        return DEPTHS[depth] * PER_DAY[per], True
    if depth in DEPTHS and per in PER_MONTH and monthly:
        return DEPTHS[depth], False
    raise VariableError(f"units of '{values.name}'", expected=_UNDERSTOOD, found=repr(given))
