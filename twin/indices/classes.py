"""Drought classes of a percentile, how probable each is, and how much of a region is in each.

    percentile ─────────────────────────▸ drought_class ─▸ area_fractions ─▸ dsci
    percentile of each member ──────────┐
    soil moisture and its spread ───────┴▸ probability of each class ─▸ at_least

Classes are those of the U.S. Drought Monitor's percentile table, applied to one indicator; the wet side mirrors it. Its
table also prints bounds of SPI (SPI_DRY). They are rounded, and at some values give another class than the percentile
does: the percentile is what counts here.
Ref: Svoboda et al. (2002), Bull. Amer. Meteor. Soc. 83, 1181.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import betainc, ndtri

from twin import climatology
from twin.errors import TimeError, VariableError
from twin.land.compiled import compiled
from twin.land.threads import spread as spread_over_threads
from twin.variables import VARIABLES

MISSING = -128
DRY = (30.0, 20.0, 10.0, 5.0, 2.0)  # D0..D4: at or below, %
WET = (70.0, 80.0, 90.0, 95.0, 98.0)  # W0..W4: at or above, %
SPI_DRY = (-0.5, -0.8, -1.3, -1.6, -2.0)  # D0..D4 as printed: at or below, SPI or SPEI to one decimal
SPI_WET = tuple(-z for z in SPI_DRY)
CODES = tuple(range(-5, 6))
NAMES = {
    **{f"D{k}": k + 1 for k in reversed(range(5))},
    "none": 0,
    **{f"W{k}": -k - 1 for k in range(5)},
}  # worst first
SHORT_TERM = 6  # months: droughts of shorter sums are of short term (S), others of long term (L)

_NODES = ndtri((np.arange(7) + 0.5) / 7)
NODES = tuple(map(float, _NODES / _NODES.std()))  # of equal probability, as spread as the normal distribution
_GRID = 1001  # ranks at which a class's probability is kept


def drought_class(percentile: Any) -> Any:
    """Class of each percentile (%), int8: D0..D4 are 1..5, W0..W4 −1..−5, 0 is neither, MISSING where it is NaN.

    An array gives an array, a DataArray a DataArray with its coordinates.
    """
    return _class_of(percentile, DRY, WET)


def printed_class(spi: Any) -> Any:
    """`drought_class` by the bounds printed for SPI and SPEI, to hold beside the percentile's.

    SPI −0.81 is at the 20.9th percentile: D1 as printed, D0 by percentile.
    """
    return _class_of(spi, SPI_DRY, SPI_WET)


def term(months: float) -> str:
    """S (short term) or L (long term) of an index over so many months."""
    return "S" if months < SHORT_TERM else "L"


def _class_of(values: Any, dry: tuple[float, ...], wet: tuple[float, ...]) -> Any:
    if isinstance(values, xr.DataArray):
        variable = VARIABLES["drought_class"]
        codes = values.copy(data=_class_of(values.values, dry, wet)).rename(variable.name)
        codes.attrs = variable.attrs
        return codes
    values = np.asarray(values)
    code = np.zeros(values.shape, dtype=np.int8)
    for low, high in zip(dry, wet, strict=True):
        code += (values <= low).astype(np.int8)
        code -= (values >= high).astype(np.int8)
    code[np.isnan(values)] = MISSING
    return code


# --- how probable each class is --------------------------------------------------------------------------------------
def class_probabilities(
    percentile: xr.DataArray, *, reference_years: int | None = None, threads: int | None = None
) -> xr.DataArray:
    """Probability of each class, dims (time, code, cell), float32; NaN where no member is known.

    percentile        %, (realization, time, cell), members equally probable, those missing left out; or (time, cell)
    reference_years   the n years the percentiles are among. With them, how well n years tell a percentile is part of
                      the probability: r of n exchangeable years below a value leave its true percentile
                      Beta(r + 1, n − r + 1) (uniform before any year is seen). Without, percentiles are taken as exact.
    Raises VariableError for other dims, TimeError for less than one year.
    Ref: Gelman et al. (2013), Bayesian Data Analysis, 2.1, for the Beta.
    """
    if percentile.dims == ("time", "cell"):
        percentile = percentile.expand_dims("realization")
    if percentile.dims != ("realization", "time", "cell"):
        expected = "(realization, time, cell) or (time, cell)"
        raise VariableError(f"dims of '{percentile.name}'", expected=expected, found=percentile.dims)
    if reference_years is not None and reference_years < 1:
        raise TimeError("reference years", expected="at least one", found=reference_years)
    days = [_shares(members, reference_years, threads) for members in percentile.values.swapaxes(0, 1)]
    told = {} if reference_years is None else {"reference_years": reference_years}
    reference = {key: value for key, value in percentile.attrs.items() if key.startswith("reference_")}
    return _labelled(days, percentile, reference | told)


def probability_from_spread(
    theta: xr.DataArray,
    spread: xr.DataArray | None,
    time: np.ndarray,
    reference: xr.Dataset,
    *,
    threads: int | None = None,
) -> xr.DataArray:
    """Probability of each class, dims (time, code, cell), float32, of soil moisture known as mean and spread.

    theta, spread   (time, cell), as `climatology.percentile` takes theta; a value normal around theta, through its
                    percentile at NODES of equal probability. Where a spread is missing so is the probability; None
                    leaves only how well the reference is known (see `class_probabilities`).
    reference       of `climatology.build`
    The percentile of a node is never nearer to 0 or 100 than its years allow. Raises VariableError for other shapes.
    """
    times = np.atleast_1d(np.asarray(time, dtype="datetime64[ns]"))
    means = np.atleast_2d(theta.values)
    if len(means) != times.size or (spread is not None and spread.shape != theta.shape):
        found = f"{theta.shape} and {'none' if spread is None else spread.shape}, {times.size} times"
        raise VariableError("soil moisture and its spread", expected="one shape, (time, cell)", found=found)
    nodes = np.array([0.0] if spread is None else NODES, dtype=np.float32)[:, None]
    days = []
    for row, day in enumerate(times):
        values = means[row] + (0.0 if spread is None else nodes * np.atleast_2d(spread.values)[row])
        ranks = climatology.percentile(values, np.repeat(day, len(nodes)), reference)
        days.append(_shares(ranks.values, int(reference.attrs["reference_years"]), threads))
    told = {key: value for key, value in reference.attrs.items() if key.startswith("reference_")}
    return _labelled(days, theta, told).assign_coords(time=times)


def at_least(probabilities: xr.DataArray) -> xr.DataArray:
    """Probability of each class or a worse one, from that of each: `code` 2 is D1 or drier, −2 is W1 or wetter.

    probabilities   (..., code, ...), of `class_probabilities`; code 0 has no worse one and is left out
    """
    wet, dry = (
        probabilities.sel(code=worst_first).cumsum("code", skipna=False).assign_coords(code=worst_first)
        for worst_first in ([-5, -4, -3, -2, -1], [5, 4, 3, 2, 1])
    )
    found = xr.concat([wet, dry], "code").sortby("code").transpose(*probabilities.dims).clip(max=1.0)
    return found.assign_attrs(probabilities.attrs | {"long_name": "probability of the class or a worse one"})


def _shares(ranks: np.ndarray, years: int | None, threads: int | None) -> np.ndarray:
    """Probability of each class (code, cell), float32, as the mean over percentiles (member, cell) that are known."""
    if years is None:
        codes = drought_class(ranks)
        with np.errstate(invalid="ignore"):
            shares = np.stack([(codes == code).sum(axis=0) for code in CODES]) / (codes != MISSING).sum(axis=0)
        return shares.astype(np.float32)
    below = np.clip(np.asarray(ranks, np.float32) * ((years + 1) / 100.0) - 0.5, 0.0, years) / years  # as hazen has it
    found = np.empty((ranks.shape[1], len(CODES)), np.float32)
    march = partial(_mean, below, _table(years), found)
    spread_over_threads(march, len(found), threads or os.cpu_count() or 1)
    return np.ascontiguousarray(found.T)


def _labelled(days: list[np.ndarray], of: xr.DataArray, reference: dict[str, Any]) -> xr.DataArray:
    """Probabilities (code, cell) of each day, with the coordinates of what they are of."""
    coords = {name: of[name] for name in ("time", "lat", "lon") if name in of.coords}
    attrs = {"units": "1", "long_name": "probability of the class", "of": str(of.name), **reference}
    name, dims = "drought_class_probability", ("time", "code", "cell")
    return xr.DataArray(np.stack(days), {**coords, "code": list(CODES)}, dims, name, attrs)


@lru_cache(maxsize=8)
def _table(years: int) -> np.ndarray:
    """Probability of each class (CODES), (rank, code), float32, of a value with a share 0..1 of the years below it."""
    below = np.linspace(0.0, years, _GRID)[:, None]
    bounds = np.array([0.0, *reversed(DRY), *WET, 100.0]) / 100.0
    shares = np.diff(betainc(below + 1.0, years - below + 1.0, bounds), axis=1)[:, ::-1]  # the driest class has code 5
    return np.ascontiguousarray(np.where(shares < 1e-12, 0.0, shares), dtype=np.float32)  # denormals take their time


@compiled
def _mean(below, table, found, first, last):
    """Mean of each class's probability over the known shares `below` (member, cell); fills found (cell, code)."""
    steps = table.shape[0] - 1
    for cell in range(first, last):
        found[cell], known = np.float32(0.0), 0
        for member in range(below.shape[0]):
            share = below[member, cell]
            if share == share:
                known += 1
                place = share * np.float32(steps)
                under = min(int(place), steps - 1)
                part = place - np.float32(under)
                for code in range(table.shape[1]):
                    low = table[under, code]
                    found[cell, code] += low + part * (table[under + 1, code] - low)
        for code in range(table.shape[1]):
            found[cell, code] /= np.float32(known)


# --- how much of a region --------------------------------------------------------------------------------------------
def area_fractions(codes: Any, weights: Any) -> xr.DataArray:
    """Share of the known area in each class, dims (..., code); NaN where nothing is known.

    codes     drought classes, dims (..., cell)
    weights   area of each cell (cell), any unit
    """
    dims = codes.dims[:-1] if isinstance(codes, xr.DataArray) else tuple(f"dim_{k}" for k in range(np.ndim(codes) - 1))
    coords = {name: codes.coords[name] for name in dims if isinstance(codes, xr.DataArray) and name in codes.coords}
    codes, weights = np.asarray(codes), np.asarray(weights, dtype=np.float64)
    areas = np.stack([(codes == code) @ weights for code in CODES], axis=-1)
    known = areas.sum(axis=-1, keepdims=True)
    shares = np.divide(areas, known, out=np.full_like(areas, np.nan), where=known > 0.0)
    return xr.DataArray(shares, {**coords, "code": list(CODES)}, (*dims, "code"), attrs={"units": "1"})


def dsci(fractions: xr.DataArray) -> xr.DataArray:
    """Drought Severity and Coverage Index, 0 (no drought) to 500 (all in D4): 1·D0 + 2·D1 + … + 5·D4, in % of area."""
    dry = fractions.sel(code=[1, 2, 3, 4, 5])
    return (100.0 * dry * dry["code"]).sum("code", skipna=False).rename("dsci").assign_attrs(units="1")
