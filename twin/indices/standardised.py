"""Standardised indices: how rare an amount of water is for the time of the year, as a standard normal number.

    rain            ─ spi ──╮
    rain less PET   ─ spei ─┼▸ accumulate over a scale ▸ distribution of the calendar step ▸ H(x) ▸ z = Φ⁻¹(H)
    soil moisture   ─ ssmi ─╯

A scale of k (int) is k whole calendar months, fitted month by month; one with a missing day, or cut by an end of the
record, is missing. A scale of "90D" is a window of days that ends on each day, fitted by pentad (73 a year) to one
value per year, that of the pentad's middle day: the days around it share most of their rain and add no evidence. The
scores by the pentads before and after a day are interpolated, so that a value that stays does not jump where the
calendar turns a page. 29 February counts as 28 February.

A dry step has a probability of its own. Of n years n0 without rain, and G the distribution of the others,

    zero="centre"   p0 = n0/(n + 1), H(x) = p0 + (1 − p0) G(x), H(0) = (n0 + 1)/(2(n + 1))     Stagge et al. (2015)
    zero="upper"    p0 = n0/n, H(0) = p0: a month without rain where most have none is then "wet"; as others have it

so that no rain is in the middle of the dry years. Where no year was dry, no rain is no more likely than a trace, and no
rain is never less rare than some: H(0) ≤ H(TRACE), H(x) ≥ H(0).

Limits. Fewer than 30 years are refused. Where more than `suppress` of the years are dry the index says nothing and is
missing. Beyond the years that were seen a score is the distribution's word, not the record's: nothing is cut at ±3.09
unless `clip` asks for it, because a mean or a count of events changes with the cut; all are held within ±FARTHEST,
beyond which 1 − H is lost in rounding.
Refs: McKee et al. (1993), 8th Conf. Appl. Climatol., 179; Stagge et al. (2015), Int. J. Climatol. 35, 4027;
Vicente-Serrano et al. (2010), J. Clim. 23, 1696 (SPEI); Sheffield et al. (2004), J. Geophys. Res. 109, D24108 (beta).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from twin import climatology
from twin.errors import SettingsError, VariableError
from twin.indices.classes import MISSING
from twin.indices.distributions import FAMILIES, Family, distance, fit
from twin.indices.moisture import soil_moisture_percentile
from twin.indices.scales import Period, Plan, Record, days_of, lengths, steps_in_year, steps_of, told
from twin.indices.special import normal_quantile
from twin.indices.units import amount_factors, check_rain
from twin.indices.years import as_days, place
from twin.land.compiled import compiled
from twin.land.threads import spread

LEAST = 30  # years of every calendar step
KNOWN = 0.8  # of LEAST, the years a cell must have itself (WMO-No. 1203, 2017: 80 % of a normal's years)
SUPPRESS = 0.7  # share of dry years above which there is no index
TRACE = 0.1  # mm, the least that gauges tell from nothing (WMO-No. 8)
FARTHEST = 8.0
POOL = 3  # pentads on either side whose soil moisture counts as a pentad's: ±15 days
ZERO = ("centre", "upper")
STANDARD_CLASSES = {  # as drought classes: dry is positive
    "extremely_dry": 3,
    "severely_dry": 2,
    "moderately_dry": 1,
    "near_normal": 0,
    "moderately_wet": -1,
    "very_wet": -2,
    "extremely_wet": -3,
}
_EDGES = (1.0, 1.5, 2.0)
_POINTS = 1 << 16  # values that are computed together: they stay in the second cache


@dataclass(frozen=True)
class Index:
    """What is accumulated, and how it is distributed: as a sum or a mean, with dry steps apart or not."""

    name: str
    words: str
    distributions: tuple[str, ...]  # the usual one first
    mean: bool = False
    dry: bool = False
    pool: int = 0  # of daily windows

    def factors(self, values: xr.DataArray) -> np.ndarray:
        """What each time step is multiplied by before it is accumulated."""
        if self.mean:
            return lengths(values["time"].values).astype(np.float64)
        if self.dry:
            check_rain(values)
        return amount_factors(values)


_ANY = ("gamma", "pearson3", "log-logistic", "gev")
INDICES = {
    "spi": Index("spi", "standardised precipitation index", _ANY, dry=True),
    "spei": Index("spei", "standardised precipitation evapotranspiration index", ("log-logistic", "gev", "pearson3")),
    "ssmi": Index("ssmi", "standardised soil moisture index", ("beta",), mean=True, pool=POOL),
}


def spi(
    pr: xr.DataArray,
    scale: int | str = 3,
    reference: Period | xr.Dataset | None = None,
    *,
    distribution: str = "gamma",
    method: str | None = None,
    zero: str = "centre",
    suppress: float = SUPPRESS,
    least: int = LEAST,
    leave_out: bool = False,
    clip: float | None = None,
    threads: int | None = None,
) -> xr.DataArray:
    """Standardised precipitation index, dims (time, cell), 1; float64 of float64 rain, else float32.

    pr             (time, cell) or (time), consecutive days or months, an amount or a rate (`units.rain_amounts`)
    scale          calendar months, or a window of days ("90D"); the times of months are their first days
    reference      (first, last) year, or ISO date, inclusive; None is all of the record; or what `calibrate` found,
                   whose choices then hold
    distribution   gamma, pearson3, log-logistic, gev; method: thom, ml, lmoments for gamma, lmoments for the others
    zero           how a dry step is scored, "centre" or "upper"; suppress: share of dry years that is too many
    least          years that every calendar step must have
    leave_out      score each year of the reference by the others only
    clip           hold the scores within ±clip, for display
    Missing where the window is, or the cell has less than KNOWN of `least` values. Raises TimeError for a short
    reference or other times, SettingsError for other choices, and as `rain_amounts` does.
    """
    choices = Choices.of(INDICES["spi"], scale, distribution, method, zero, suppress, least)
    return _index(pr, choices, reference, leave_out, clip, threads)


def spei(
    balance: xr.DataArray,
    scale: int | str = 3,
    reference: Period | xr.Dataset | None = None,
    *,
    distribution: str = "log-logistic",
    method: str | None = None,
    least: int = LEAST,
    leave_out: bool = False,
    clip: float | None = None,
    threads: int | None = None,
) -> xr.DataArray:
    """Standardised precipitation evapotranspiration index, dims (time, cell), 1.

    balance        rain less potential evapotranspiration, as `water_balance` makes it, any sign
    distribution   log-logistic, gev or pearson3, all by unbiased L-moments
    The others are those of `spi`; no step is dry.
    """
    choices = Choices.of(INDICES["spei"], scale, distribution, method, "centre", 1.0, least)
    return _index(balance, choices, reference, leave_out, clip, threads)


def ssmi(
    theta: xr.DataArray,
    scale: int | str = 1,
    reference: Period | xr.Dataset | None = None,
    *,
    distribution: str = "beta",
    method: str | None = None,
    least: int = LEAST,
    leave_out: bool = True,
    clip: float | None = None,
    threads: int | None = None,
) -> xr.DataArray:
    """Standardised soil moisture index, dims (time, cell), 1: of the mean, not the sum, over the scale.

    theta          (time, cell), m3 m-3, days or months
    distribution   beta, on 0..1 m3 m-3, of windows of days fitted to all values within ±15 days; or "empirical": the
                   percentile of single days (scale "1D"), by `soil_moisture_percentile`, as a normal number
    The others are those of `spi`. With leave_out a calibration cannot score the years it was made of.
    """
    if distribution == "empirical":
        return _empirical(theta, scale, reference, leave_out, least, clip)
    choices = Choices.of(INDICES["ssmi"], scale, distribution, method, "centre", 1.0, least)
    return _index(theta, choices, reference, leave_out, clip, threads)


def calibrate(
    values: xr.DataArray,
    scale: int | str = 3,
    reference: Period | None = None,
    *,
    index: str = "spi",
    distribution: str | None = None,
    method: str | None = None,
    zero: str = "centre",
    suppress: float = SUPPRESS,
    least: int = LEAST,
    accumulated: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """What an index needs of its reference, dims (month or pentad, cell): a new day then costs a day.

    index         "spi", "spei" or "ssmi"; the other arguments are those of the index
    accumulated   the values are amounts over the scale already, as `accumulate` gives them; of windows of days, those
                  on the middle days of the pentads are enough
    Variables: the distribution's parameters; of rain `zero_probability` (p0) and `probability_of_none` (H(0)); `years`
    with a value, and the `kolmogorov_distance` of the fit from them. Attributes: every choice, and the reference.
    """
    if index not in INDICES:
        raise SettingsError("standardised index", expected=", ".join(INDICES), found=repr(index))
    kind = INDICES[index]
    choices = Choices.of(kind, scale, distribution or kind.distributions[0], method, zero, suppress, least)
    data, times = as_days(values), values["time"].values
    factors = np.ones(times.size) if accumulated else kind.factors(values)
    plan = Plan.of_amounts(times, scale) if accumulated else Plan.of(times, scale)
    record = Record.of(plan, reference, least)
    table = np.empty((len(choices.rows), plan.steps, data.shape[1]))
    away, years = np.empty(table.shape[1:]), np.empty(table.shape[1:], np.int16)

    def part(cells: slice) -> None:
        sample = record.sample(plan.amounts(data, factors, kind.mean, cells, record.rows))
        table[:, :, cells] = found = choices.table(sample, False)
        years[:, cells] = known_years(sample, False)
        away[:, cells] = distance(
            choices.family, choices.positive(sample), tuple(found[: len(choices.family.parameters)])
        )

    _by_parts(part, data.shape[1], record.years * plan.steps, threads)
    return _calibration(table, years, away, values, choices, record)


def accumulate(
    values: xr.DataArray, scale: int | str = 3, *, index: str = "spi", threads: int | None = None
) -> xr.DataArray:
    """What `standardise` takes: the amounts over the scale that end on each time, mm (ssmi: mean, m3 m-3), float64."""
    kind, plan, data = INDICES[index], Plan.of(values["time"].values, scale), as_days(values)
    out, factors = np.empty((plan.times.size, data.shape[1])), kind.factors(values)

    def part(cells: slice) -> None:
        out[:, cells] = plan.amounts(data, factors, kind.mean, cells)

    _by_parts(part, data.shape[1], plan.times.size, threads)
    attrs = {"units": str(values.attrs.get("units", "1")) if kind.mean else "mm", "of": str(values.name)}
    return _labelled(out, plan.times, values, attrs | {"long_name": f"amount over {told(scale)}"})


def standardise(
    amounts: xr.DataArray, calibration: xr.Dataset, *, clip: float | None = None, threads: int | None = None
) -> xr.DataArray:
    """The index of amounts over the calibration's scale, dims (time, cell), without the record they come from.

    amounts       (time, cell), in the unit of `accumulate`; of months, labelled by the first day of the last month
    calibration   of `calibrate`, same cells
    Bit for bit what the index gives for the whole record. Raises VariableError for other cells.
    """
    choices, data = Choices.given(calibration), as_days(amounts)
    if calibration.sizes["cell"] != data.shape[1]:
        raise VariableError("amounts", expected=f"{calibration.sizes['cell']} cells", found=data.shape[1])
    before, weight = steps_of(amounts["time"].values, choices.scale)
    steps = steps_in_year(choices.scale)
    needed, rows = np.unique(np.stack([before, before + (weight > 0.0)]) % steps, return_inverse=True)
    step = calibration[choices.rows[0]].dims[0]
    some = calibration.isel({step: needed})
    table = np.stack([some[name].transpose(step, "cell").values.astype(np.float64) for name in choices.rows])
    out = np.empty(data.shape, np.result_type(data.dtype, np.float32))

    def part(cells: slice) -> None:
        out[:, cells] = choices.scores(data[:, cells], table[:, :, cells], rows.reshape(2, -1), weight, clip)

    _by_parts(part, data.shape[1], before.size, threads)
    kept = {name: calibration.attrs[name] for name in calibration.attrs if name.startswith("reference_")}
    return _labelled(out, amounts["time"].values, amounts, choices.attrs | kept | {"of": calibration.attrs["of"]})


def water_balance(pr: xr.DataArray, pet: xr.DataArray) -> xr.DataArray:
    """Rain less potential evapotranspiration of each time step, mm, dims of `pr`; each in any unit of water.

    Raises VariableError for unknown units or other dims or times.
    """
    if pr.dims != pet.dims or pr.shape != pet.shape or (pr["time"].values != pet["time"].values).any():
        raise VariableError(
            "potential evapotranspiration", expected=f"dims and times of rain {pr.sizes}", found=pet.sizes
        )
    check_rain(pr)
    columns = (-1, *[1] * (pr.ndim - 1))
    rain, need = (values.values * amount_factors(values).reshape(columns) for values in (pr, pet))
    attrs = {"units": "mm", "long_name": "rain less potential evapotranspiration", "of": f"{pr.name} - {pet.name}"}
    return (
        pr.copy(data=(rain - need).astype(np.result_type(pr.dtype, np.float32))).assign_attrs(attrs).rename("balance")
    )


def standard_class(z: Any) -> Any:
    """Class of each index, int8, by McKee et al. (1993): STANDARD_CLASSES, dry positive; MISSING where it is NaN.

    Moderate from ±1, severe (wet: very) from ±1.5, extreme from ±2. An array gives an array, a DataArray a DataArray.
    """
    if isinstance(z, xr.DataArray):
        flags = {
            "flag_values": np.array([*STANDARD_CLASSES.values()], np.int8),
            "flag_meanings": " ".join(STANDARD_CLASSES),
        }
        words = {"long_name": f"class of the {z.attrs.get('long_name', 'index')}", "units": "1"}
        return z.copy(data=standard_class(z.values)).rename("standard_class").assign_attrs(words | flags)
    values = np.asarray(z)
    code = np.zeros(values.shape, np.int8)
    for edge in _EDGES:
        code += (values <= -edge).astype(np.int8)
        code -= (values >= edge).astype(np.int8)
    code[np.isnan(values)] = MISSING
    return code


# --- what was chosen --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choices:
    """The choices that make an index, checked."""

    index: Index
    scale: int | str
    distribution: str
    method: str
    zero: str
    suppress: float
    least: int

    @classmethod
    def of(cls, index: Index, scale, distribution: str, method: str | None, zero: str, suppress, least) -> Choices:
        if distribution not in index.distributions:
            expected = ", ".join(index.distributions)
            raise SettingsError(f"distribution of {index.name}", expected=expected, found=repr(distribution))
        methods = FAMILIES[distribution].methods
        method = method or next(iter(methods))
        if method not in methods:
            raise SettingsError(f"method of {distribution}", expected=", ".join(methods), found=repr(method))
        if zero not in ZERO:
            raise SettingsError("zero", expected=" or ".join(ZERO), found=repr(zero))
        days_of(scale)
        return cls(index, scale, distribution, method, zero, float(suppress), int(least))

    @classmethod
    def given(cls, calibration: xr.Dataset) -> Choices:
        """Those that a calibration was made with."""
        attrs = calibration.attrs
        if attrs.get("index") not in INDICES:
            raise SettingsError("calibration", expected="what calibrate returns", found=f"attributes {[*attrs]}")
        scale = attrs["scale"] if isinstance(attrs["scale"], str) else int(attrs["scale"])
        names = ("distribution", "method", "zero", "suppress", "least")
        return cls.of(INDICES[attrs["index"]], scale, *(attrs[name] for name in names))

    @property
    def family(self) -> Family:
        """The distribution."""
        return FAMILIES[self.distribution]

    @property
    def rows(self) -> tuple[str, ...]:
        """What the table of a fit holds: the last two only of what can be dry."""
        return (*self.family.parameters, *(("zero_probability", "probability_of_none") if self.index.dry else ()))

    @property
    def attrs(self) -> dict[str, Any]:
        """What a result says of them."""
        names = ("distribution", "method", "zero", "suppress") if self.index.dry else ("distribution", "method")
        chosen = {name: getattr(self, name) for name in names}
        return {"units": "1", "long_name": f"{self.index.words} over {told(self.scale)}", "scale": self.scale} | chosen

    def positive(self, sample: np.ndarray) -> np.ndarray:
        """The part of a sample that the distribution is fitted to."""
        return np.where(sample > 0.0, sample, np.nan) if self.index.dry else sample

    def table(self, sample: np.ndarray, leave_out: bool) -> np.ndarray:
        """The rows of a sample's fit, (row, step, cell); with leave_out (row, year, step, cell)."""
        pool = self.index.pool if isinstance(self.scale, str) else 0
        rows = list(fit(self.family, self.method, self.positive(sample), leave_out, pool))
        years = known_years(sample, leave_out)
        if self.index.dry:
            dry = sample == 0.0
            zeros = dry.sum(axis=0) - (dry if leave_out else 0)
            if self.zero == "centre":
                p0 = zeros / (years + 1.0)
                trace = p0 + (1.0 - p0) * self.family.tails(np.full_like(p0, TRACE), *rows)[0]
                rows += [p0, np.fmin((zeros + 1.0) / (2.0 * (years + 1.0)), trace)]
            else:
                p0 = zeros / np.maximum(years, 1)
                rows += [p0, p0]
        table = np.stack(rows)
        table[:, years < KNOWN * self.least - leave_out] = np.nan
        return table

    def scores(self, amounts, table, rows, weight, clip) -> np.ndarray:
        """z (time, cell): by the table's rows (2, time) before and after, `weight` that of the second."""
        z = self._scored(amounts, table[:, rows[0]])
        between = np.flatnonzero(weight)
        if between.size:
            w = weight[between, None]
            z[between] = (1.0 - w) * z[between] + w * self._scored(amounts[between], table[:, rows[1, between]])
        return z if clip is None else np.clip(z, -clip, clip)

    def _scored(self, amounts: np.ndarray, table: np.ndarray) -> np.ndarray:
        """z of amounts (time, cell) by a table (row, time, cell)."""
        x = np.asarray(amounts, np.float64)
        count = len(self.family.parameters)
        lower, upper = (np.ascontiguousarray(tail) for tail in self.family.tails(x, *table[:count]))
        if self.index.dry:
            p0, none = table[count:]
            _with_dry(*(values.reshape(-1) for values in (x, lower, upper, p0, none)))
            lower[np.isnan(x) | (p0 > self.suppress)] = np.nan
        z = normal_quantile(lower, upper)
        return np.clip(z, -FARTHEST, FARTHEST, out=z)


def known_years(sample: np.ndarray, leave_out: bool) -> np.ndarray:
    """How many years of a sample (year, step, cell) are known, or of the others of each."""
    known = ~np.isnan(sample)
    return known.sum(axis=0) - (known if leave_out else 0)


# --- all cells --------------------------------------------------------------------------------------------------------
def _index(
    values: xr.DataArray,
    choices: Choices,
    reference: Period | xr.Dataset | None,
    leave_out: bool,
    clip: float | None,
    threads: int | None,
) -> xr.DataArray:
    if isinstance(reference, xr.Dataset):
        return _by_calibration(values, choices, reference, leave_out, clip, threads)
    data, factors = as_days(values), choices.index.factors(values)
    plan = Plan.of(values["time"].values, choices.scale)
    record = Record.of(plan, reference, choices.least)
    rows = np.stack([plan.before, plan.before + 1]) - record.first
    within = (rows >= 0) & (rows < record.years * plan.steps)
    rows = np.where(leave_out & within, rows + plan.steps, rows % plan.steps)
    out = np.empty((plan.times.size, data.shape[1]), np.result_type(data.dtype, np.float32))

    def part(cells: slice) -> None:
        amounts = plan.amounts(data, factors, choices.index.mean, cells)
        sample = record.sample(amounts[record.rows])
        table = choices.table(sample, False)
        if leave_out:  # behind the steps of all years come those of each year's others
            others = choices.table(sample, True)
            table = np.concatenate([table, others.reshape(len(others), -1, others.shape[-1])], axis=1)
        out[:, cells] = choices.scores(amounts, table, rows, plan.weight, clip)

    _by_parts(part, data.shape[1], plan.times.size, threads)
    attrs = choices.attrs | record.attrs | {"of": str(values.name), "leave_out": int(leave_out)}
    return _labelled(out, plan.times, values, attrs, choices.index.name)


def _by_calibration(values, choices: Choices, calibration: xr.Dataset, leave_out, clip, threads) -> xr.DataArray:
    """The index by what `calibrate` found; SettingsError where that is of another index or scale."""
    made = Choices.given(calibration)
    if (made.index, made.scale) != (choices.index, choices.scale):
        expected = f"{choices.index.name} over {told(choices.scale)}"
        raise SettingsError("calibration", expected=expected, found=f"{made.index.name} over {told(made.scale)}")
    amounts = accumulate(values, made.scale, index=made.index.name, threads=threads)
    start, end = (np.datetime64(calibration.attrs[f"reference_{edge}"]) for edge in ("start", "end"))
    if leave_out and ((amounts["time"].values >= start) & (amounts["time"].values <= end)).any():
        expected = "times outside of the calibration's reference, or its period as reference"
        raise SettingsError("leave_out with a calibration", expected=expected, found=f"times in {start} to {end}")
    found = standardise(amounts, calibration, clip=clip, threads=threads).rename(made.index.name)
    return found.astype(np.result_type(values.dtype, np.float32)).assign_attrs(leave_out=int(leave_out))


def _empirical(theta, scale, reference, leave_out, least, clip) -> xr.DataArray:
    if days_of(scale) != 1:
        raise SettingsError("scale of the empirical ssmi", expected="'1D'", found=repr(scale))
    percentile = soil_moisture_percentile(theta, reference, leave_out=leave_out, least=least)["percentile"]
    z = normal_quantile(percentile.values / 100.0)
    kept = {name: percentile.attrs[name] for name in percentile.attrs if name.startswith("reference_")}
    words = f"{INDICES['ssmi'].words} over {told(scale)}"
    attrs = {"units": "1", "long_name": words, "scale": scale, "distribution": "empirical", "of": str(theta.name)}
    z = z if clip is None else np.clip(z, -clip, clip)
    return _labelled(
        z.astype(np.float32), theta["time"].values, theta, attrs | kept | {"leave_out": int(leave_out)}, "ssmi"
    )


def _by_parts(work: Callable[[slice], None], cells: int, times: int, threads: int | None) -> None:
    """Call `work` on slices of cells, a few at a time, on as many threads as asked for."""
    width = int(np.clip(_POINTS // max(times, 1), 16, 1024))

    def march(first: int, last: int) -> None:
        for start in range(first, last, width):
            work(slice(start, min(start + width, last)))

    spread(march, cells, threads or os.cpu_count() or 1)


def _labelled(out: np.ndarray, times: np.ndarray, values: xr.DataArray, attrs: dict, name: str | None = None):
    return xr.DataArray(out, {"time": times, **place(values)}, ("time", "cell"), name, attrs)


def _calibration(table, years, away, values: xr.DataArray, choices: Choices, record: Record) -> xr.Dataset:
    step = "pentad" if record.steps == climatology.PENTADS else "month"
    rows = {**dict(zip(choices.rows, table, strict=True)), "years": years, "kolmogorov_distance": away}
    words = {
        "zero_probability": "share of steps without rain",
        "probability_of_none": "probability that a step without rain is scored with",
        "years": "years with a value",
        "kolmogorov_distance": "Kolmogorov distance of the fit from the values",
    }
    variables = {
        name: ((step, "cell"), row, {"units": "1", "long_name": words.get(name, f"{name} of {choices.distribution}")})
        for name, row in rows.items()
    }
    attrs = choices.attrs | {"index": choices.index.name, "of": str(values.name), "least": choices.least}
    attrs |= {"zero": choices.zero, "suppress": choices.suppress} | record.attrs
    attrs["long_name"] = f"calibration of the {attrs['long_name']}"
    return xr.Dataset(variables, {step: np.arange(1, record.steps + 1), **place(values)}, attrs)


@compiled
def _with_dry(x, lower, upper, p0, none):
    """Both tails of amounts x, in place of those they have where they are not 0; all flat, of one size."""
    for i in range(x.size):
        below, above = max(p0[i] + (1.0 - p0[i]) * lower[i], none[i]), min((1.0 - p0[i]) * upper[i], 1.0 - none[i])
        lower[i] = none[i] if x[i] == 0.0 else below
        upper[i] = 1.0 - none[i] if x[i] == 0.0 else above
