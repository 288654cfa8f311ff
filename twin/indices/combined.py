"""A combined drought indicator: rain, then soil, then plants, as a state machine over dekads.

                 rain in deficit        soil too             plants too
      0 none ──────────────▸ 1 watch ────────────▸ 2 warning ────────────▸ 3 alert
        ▴  ▴                    │                   ▴   │ ▴                  │ ▴
        │  └── rain is back ────┘                   │   ▾ │ soil dry again   ▾ │ plants low again
        │                                           │  5 temporary          6 temporary
        │                           soil dry (again)│   recovery of soil     recovery of plants
        │                                           │   │                    │
        │        rain and soil normal               │   ▾ after a dekad      ▾ after a dekad
        └────────────── for 3 dekads ───────────── 4 recovery ◂──────────────┘

It is built like the Combined Drought Indicator of the European Drought Observatory, uses its codes, and is not it: the
memory is our own formalisation. One step is taken a dekad. In full, with flags P, S, V (rain, soil, vegetation in
deficit) of the dekad:

    none          P: watch
    watch         S: warning; else P: watch; else none
    warning       not S: temporary recovery of soil; V: alert; else warning
    alert         V: alert; else temporary recovery of vegetation
    5 (of soil)   S: warning; else recovery
    6 (of plants) V: alert; else S: warning (a dry soil is no recovery); else recovery
    recovery      S: warning; else after RECOVERED dekads in a row with neither P nor S: none; else recovery

A missing input makes a dekad stale. Then the state moves only where every value of what is missing moves it the same
way, and never down: it is held. A place is 7 (no data) until its rain is known for the first time. Where vegetation can
never be known, for there is none, give it as normal (0) or leave it out.
Refs: Sepulcre-Canto et al. (2012), NHESS 12, 3519 (flags, watch to alert); Cammalleri et al. (2021), NHESS 21, 481
(recovery, codes).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import xarray as xr

from twin.errors import TimeError, VariableError
from twin.indices.years import as_days, place

SPI3, SPI1 = -1.0, -2.0  # rain is in deficit below either
SOIL, VEGETATION = -1.0, -1.0  # anomalies in standard deviations, in deficit below
RECOVERED = 3  # dekads
OLDEST = 40  # days that an input may be older than the end of its dekad: a month's SPI until the next one
LEAST = 0.8  # share of a dekad's days that must be known for its mean

STATES = {
    "none": 0,
    "watch": 1,
    "warning": 2,
    "alert": 3,
    "recovery": 4,
    "temporary_soil_recovery": 5,
    "temporary_vegetation_recovery": 6,
    "no_data": 7,
}
NONE, WATCH, WARNING, ALERT, RECOVERY, SOIL_RECOVERY, VEGETATION_RECOVERY, NO_DATA = STATES.values()
SEVERITY = (0, 1, 4, 6, 2, 3, 5, 0)  # of each state: what is held does not move down in it
_DAY = np.timedelta64(1, "D")
_UNKNOWN = 2  # of a flag, besides 0 and 1


# --- dekads -----------------------------------------------------------------------------------------------------------
def dekads(time: np.ndarray) -> np.ndarray:
    """First day of the dekad that each time lies in, datetime64[ns]: the 1st, 11th or 21st of its month."""
    days = np.asarray(time, dtype="datetime64[D]")
    month = days.astype("datetime64[M]").astype("datetime64[D]")
    third = np.minimum((days - month) // (10 * _DAY), 2)
    return (month + 10 * _DAY * third).astype("datetime64[ns]")


def next_dekads(time: np.ndarray) -> np.ndarray:
    """First day of the dekad after the one that each time lies in, datetime64[ns]."""
    return dekads(dekads(time) + 11 * _DAY)


def dekadal(values: xr.DataArray, *, least: float = LEAST) -> xr.DataArray:
    """Means (time, cell) of days (time, cell) over each dekad, labelled by its first day.

    NaN where less than `least` of the dekad's days are known; so a dekad that has just begun has no mean. Raises
    VariableError for other dims, TimeError for days that do not rise.
    """
    data, days = as_days(values), np.asarray(values["time"].values, dtype="datetime64[D]")
    if days.size == 0 or (np.diff(days) < _DAY).any():
        raise TimeError("time of the days", expected="rising days", found="others" if days.size else "none")
    first, start = np.unique(dekads(days), return_index=True)
    known = np.isfinite(data)
    count = np.add.reduceat(known, start, axis=0, dtype=np.int32)
    total = np.add.reduceat(np.where(known, data, 0.0), start, axis=0, dtype=np.float64)
    enough = count >= least * ((next_dekads(first) - first) / _DAY)[:, None]
    mean = np.where(enough, total / np.maximum(count, 1), np.nan).astype(data.dtype)
    coords = {"time": first, **place(values)}
    return xr.DataArray(mean, coords, ("time", "cell"), values.name, {**values.attrs, "cell_methods": "time: mean"})


def latest(values: xr.DataArray, time: np.ndarray, *, oldest: int = OLDEST) -> xr.DataArray:
    """The newest value of a past period that was over when each dekad of `time` was, dims (time, cell).

    values   (time, cell), labelled by the first day of their period: all the first of a month, months; all of a dekad,
             dekads; else days
    oldest   days between the end of a period and that of the dekad; NaN where there is nothing newer
    Coordinate `period` (time): the first day of the period used, NaT where there is none.
    """
    data, labels = as_days(values), np.asarray(values["time"].values, dtype="datetime64[D]")
    month = labels.astype("datetime64[M]")
    if labels.size and (labels == month).all():
        over = (month + np.timedelta64(1, "M")).astype("datetime64[D]")
    elif (dekads(labels) == labels).all():
        over = next_dekads(labels).astype("datetime64[D]")
    else:
        over = labels + _DAY
    end = next_dekads(time).astype("datetime64[D]")
    newest = np.searchsorted(over, end, side="right") - 1
    usable = (newest >= 0) & (end - over[newest] <= oldest * _DAY) if over.size else np.zeros(end.size, bool)
    found = np.full((end.size, data.shape[1]), np.nan, dtype=data.dtype)
    found[usable] = data[newest[usable]]
    period = np.full(end.size, np.datetime64("NaT", "ns"))
    period[usable] = labels[newest[usable]]
    coords = {"time": np.asarray(time, dtype="datetime64[ns]"), "period": ("time", period), **place(values)}
    return xr.DataArray(found, coords, ("time", "cell"), values.name, values.attrs)


# --- the machine ------------------------------------------------------------------------------------------------------
def cdi(
    spi3: xr.DataArray,
    spi1: xr.DataArray,
    soil: xr.DataArray,
    vegetation: xr.DataArray | None = None,
    *,
    start: xr.Dataset | None = None,
    spi3_below: float = SPI3,
    spi1_below: float = SPI1,
    soil_below: float = SOIL,
    vegetation_below: float = VEGETATION,
) -> xr.Dataset:
    """cdi (STATES, int8), stale (1 where an input is missing) and normal_dekads of every dekad, dims (time, cell).

    spi3, spi1         (time, cell), consecutive dekads by their first day; see `dekadal` and `latest`
    soil, vegetation   standardised anomalies of soil moisture and of fAPAR, likewise; without vegetation no alert
    start              what an earlier call gave, up to the dekad before: so run in pieces, it is run at once
    normal_dekads is for how many dekads in a row rain and soil have been normal, counted to RECOVERED. An input's
    coordinate `period` becomes `<input>_period`: of when each input was. Raises VariableError for other dims, cells or
    times than spi3's, TimeError where dekads are not consecutive, or do not follow `start`.
    """
    given = {"spi3": spi3, "spi1": spi1, "soil": soil, "vegetation": vegetation}
    inputs = {name: values for name, values in given.items() if values is not None}
    time = np.asarray(spi3["time"].values, dtype="datetime64[ns]")
    data = {name: as_days(values) for name, values in inputs.items()}
    for name, values in inputs.items():
        if data[name].shape != data["spi3"].shape or not np.array_equal(values["time"].values, time):
            found = f"{data[name].shape}, from {values['time'].values[:1]}"
            raise VariableError(
                f"input '{name}'", expected=f"spi3's {data['spi3'].shape}, from {time[:1]}", found=found
            )
    if time.size == 0 or (dekads(time) != time).any() or (next_dekads(time[:-1]) != time[1:]).any():
        raise TimeError("time of the dekads", expected="consecutive dekads, by their first day", found="others")
    P = _either(_below(data["spi3"], spi3_below), _below(data["spi1"], spi1_below))
    S = _below(data["soil"], soil_below)
    V = _below(data["vegetation"], vegetation_below) if "vegetation" in data else np.zeros_like(S)
    state, normal = _before(start, time[0], spi3.sizes.get("cell", 1))
    states, counts = np.empty((2, *P.shape), dtype=np.int8)
    for row in range(time.size):
        state, normal = _table()[:, state, normal, P[row], S[row], V[row]]
        states[row], counts[row] = state, normal
    stale = np.any([np.isnan(values) for values in data.values()], axis=0).astype(np.int8)
    thresholds = {"spi3_below": spi3_below, "spi1_below": spi1_below, "soil_below": soil_below}
    thresholds |= {"vegetation_below": vegetation_below} if "vegetation" in data else {}
    attrs = {"long_name": "combined drought indicator, own formalisation", "of": ", ".join(inputs), **thresholds}
    meanings = {"flag_values": np.array([*STATES.values()], np.int8), "flag_meanings": " ".join(STATES)}
    dims = ("time", "cell")
    periods = {f"{name}_period": ("time", v["period"].values) for name, v in inputs.items() if "period" in v.coords}
    return xr.Dataset(
        {
            "cdi": (dims, states, attrs | meanings),
            "stale": (dims, stale, {"units": "1", "long_name": "an input of the dekad is missing"}),
            "normal_dekads": (dims, counts, {"units": "1", "long_name": "dekads in a row with normal rain and soil"}),
        },
        {"time": time, **periods, **place(spi3)},
    )


def step(state: int, normal: int, P: bool, S: bool, V: bool) -> tuple[int, int]:
    """(state, normal dekads) after a dekad whose flags are all known: the machine itself, drawn above."""
    normal = 0 if P or S else min(normal + 1, RECOVERED)
    if state in (NONE, NO_DATA):
        return (WATCH if P else NONE), normal
    if state == WATCH:
        return (WARNING if S else WATCH if P else NONE), normal
    if state == WARNING:
        return (SOIL_RECOVERY if not S else ALERT if V else WARNING), normal
    if state == ALERT:
        return (ALERT if V else VEGETATION_RECOVERY), normal
    if state == SOIL_RECOVERY:
        return (WARNING if S else RECOVERY), normal
    if state == VEGETATION_RECOVERY:
        return (ALERT if V else WARNING if S else RECOVERY), normal
    return (WARNING if S else NONE if normal == RECOVERED else RECOVERY), normal


def _decided(state: int, normal: int, flags: tuple[int, ...]) -> tuple[int, int]:
    """`step` where flags may be unknown: what all their values lead to, else the state as it was."""
    ways = [(0, 1) if flag == _UNKNOWN else (flag,) for flag in flags]
    ends = [step(state, normal, *map(bool, known)) for known in product(*ways)]
    states, counts = ({end[k] for end in ends} for k in (0, 1))
    agreed = states.pop() if len(states) == 1 else state
    if _UNKNOWN in flags and SEVERITY[agreed] < SEVERITY[state]:
        agreed = state
    return agreed, counts.pop() if len(counts) == 1 else normal


@cache
def _table() -> np.ndarray:
    """(state, normal dekads) after every state, normal dekads and flags P, S, V (0, 1, unknown): (2, 8, 4, 3, 3, 3)."""
    table = np.empty((2, len(STATES), RECOVERED + 1, 3, 3, 3), dtype=np.int8)
    for index in np.ndindex(table.shape[1:]):
        table[(slice(None), *index)] = _decided(index[0], index[1], index[2:])
    return table


def _below(values: np.ndarray, threshold: float) -> np.ndarray:
    """Flag of each value, int8: 1 below, 0 not, unknown where it is missing."""
    return np.where(np.isnan(values), _UNKNOWN, values < threshold).astype(np.int8)


def _either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Flag of what holds where one of two does."""
    return np.where((a == 1) | (b == 1), 1, np.maximum(a, b)).astype(np.int8)


def _before(start: xr.Dataset | None, first: np.datetime64, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """State and normal dekads (cell) to go on from."""
    if start is None:
        return np.full(cells, NO_DATA, np.int8), np.zeros(cells, np.int8)
    if start.sizes["cell"] != cells:
        raise VariableError("state to go on from", expected=f"{cells} cells", found=start.sizes["cell"])
    last = start["time"].values[-1]
    if next_dekads(np.array([last]))[0] != first:
        raise TimeError(
            "dekads", expected=f"the one after {pd.Timestamp(last).date()}", found=pd.Timestamp(first).date()
        )
    return start["cdi"].values[-1], start["normal_dekads"].values[-1]
