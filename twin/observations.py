"""From the retrievals in the store to what the analysis is fed: gates, errors, super-observations, what to hold out.

    Dataset (time, cell) ─from_dataset→ Observations ─screen→ Observations ─model→ d, spread ─background_check, sift→ …
       value ± stated error     value ± total error, └ Screening: counts by reason,            └ Screening ─accept→
                                one a cell and day     the worst of them                         or too many

An observation is never moved towards the model: no rescaling, no matching of distributions. The offset between a sensor
and the model at a cell is left in and belongs to the covariance of errors of that cell and sensor,
R = α [diag s²] + s_b² 1 1ᵀ, where s is `Observations.error` and α is `inflation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import brentq
from scipy.special import ndtr

from twin.checks import check_dims, check_present, check_units
from twin.errors import RangeError, TimeError, VariableError
from twin.land.compiled import compiled
from twin.land.weather import mix

FEW = 5  # observations of a cell below which its offset cannot be told
FREEZING = 275.0  # K: at or below this mean of the day some of the soil may be frozen in the morning
SNOW = 0.1  # kg m-2 of modelled snow that hides the ground
FOOTPRINT = ("water_fraction", "dense_vegetation_fraction")  # what may be known of a sensor's footprints, (cell)
WATER, DENSE = 0.05, 0.5  # share of the footprint from which on retrievals are not of recommended quality
SPIKE, NEIGHBOURS, NEAR = 4.0, 3, 10  # standard deviations; how many values on either side, and how many days away
RAIN = 1.0 / 86400.0  # kg m-2 s-1: a mean of a millimetre a day, today or in the two days before, may wet the ground
LISTED = 100  # rejected observations that are told one by one
LAGS, LAG_BIN = 60, 5  # days: how far residuals are compared, in bins of how many lags
ALPHA = (1.0, 20.0)
NARROW = 0.05  # share of the error that is thought of as none, near a bound


@dataclass(frozen=True)
class Rules:
    """What is asked of one variable.

    low, high   plausible values lie between them, both excluded
    total       smallest standard deviation of an observation, whatever the product states
    relative    standard deviation of representativeness as a share of the value
    frost       frozen, snow-covered, flooded or overgrown ground spoils it
    """

    low: float
    high: float
    total: float
    relative: float
    frost: bool


# Soil moisture: 0.04 m3 m-3 is what SMAP is required to reach (Entekhabi et al. 2010, Proc. IEEE 98, 704), and 0.02 is
# where its retrievals are cut off. Fluorescence: in W m-2 sr-1 um-1; noise about nought is not cut, it would be a bias.
RULES: Mapping[str, Rules] = {
    "surface_soil_moisture": Rules(0.02, 0.6, total=0.04, relative=0.0, frost=True),
    "sif_radiance": Rules(-5.0, 20.0, total=0.1, relative=0.25, frost=False),
}


@dataclass(frozen=True, eq=False)
class Observations:
    """Observations of one variable by one sensor in a window, sorted by cell and day, one a cell and day.

    value, error   (p) in the unit of the variable; standard deviation of the whole random error
    cell, day      (p) int64; index of the cell, and of the day in `window`
    window         the days, UTC, without gaps
    local_time     hour of local solar time of the overpass, None for a mean of the day
    Raises RangeError for a value or error that is not finite, an error that is not positive, or two a cell and day.
    """

    value: np.ndarray
    error: np.ndarray
    cell: np.ndarray
    day: np.ndarray
    sensor: str
    variable: str
    window: pd.DatetimeIndex
    local_time: float | None = None

    def __post_init__(self) -> None:
        where = f"observations of {self.sensor}"
        if self.variable not in RULES:
            raise VariableError(where, expected=" or ".join(RULES), found=repr(self.variable))
        sizes = [np.shape(array) for array in (self.value, self.error, self.cell, self.day)]
        if len(set(sizes)) > 1 or len(sizes[0]) != 1:
            raise VariableError(where, expected="value, error, cell and day of one length", found=sizes)
        order = np.lexsort((self.day, self.cell))
        for name, kind in (("value", np.float64), ("error", np.float64), ("cell", np.int64), ("day", np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind)[order])
        wrong = ~(np.isfinite(self.value) & np.isfinite(self.error) & (self.error > 0))
        if wrong.any():
            found = f"{self.value[wrong][0]:g} ± {self.error[wrong][0]:g} in {self._place(np.argmax(wrong))}"
            raise RangeError(where, expected="finite values with positive errors", found=found)
        if len(self) and not 0 <= self.day.min() <= self.day.max() < len(self.window):
            found = f"{self.day.min()}..{self.day.max()}"
            raise TimeError(where, expected=f"days 0..{len(self.window) - 1} of the window", found=found)
        again = (np.diff(self.cell) == 0) & (np.diff(self.day) == 0)
        if again.any():
            found = f"{again.sum() + 1} or more, first in {self._place(np.argmax(again))}"
            raise RangeError(where, expected="one a cell and day", found=found)

    def __len__(self) -> int:
        return int(self.value.size)

    def _place(self, i: int | np.intp) -> str:
        return f"cell {self.cell[i]}, day {self.day[i]}"

    @classmethod
    def from_dataset(
        cls,
        data: xr.Dataset,
        window: pd.DatetimeIndex,
        sensor: str,
        variable: str = "surface_soil_moisture",
        local_time: float | None = None,
    ) -> Observations:
        """The retrievals of `data` on the days of `window`, several of one cell and day made one by `superobs`.

        data   `variable` and `<variable>_error` (time, cell) in the table's unit; NaN where there is none
        Raises VariableError, UnitsError, TimeError, RangeError.
        """
        where, error_name = f"observations of {sensor}", f"{variable}_error"
        if variable not in RULES:
            raise VariableError(where, expected=" or ".join(RULES), found=repr(variable))
        check_present(data, ("time", variable, error_name), where)
        for name in (variable, error_name):
            check_dims(variable, data[name].dims, f"{where}, {name}")
            check_units(variable, data[name].attrs.get("units"), f"{where}, {name}")
        days, times = _days(window, where), pd.DatetimeIndex(data["time"].values)
        if times.has_duplicates:
            found = f"{times[times.duplicated()][0]} twice"
            raise TimeError(where, expected="each time once", found=found)
        day = days.get_indexer(times.floor("D"))
        value = np.asarray(data[variable].values, np.float64)[day >= 0]
        error = np.asarray(data[error_name].values, np.float64)[day >= 0]
        row, cell = np.nonzero(np.isfinite(value))
        value, error, day = value[row, cell], error[row, cell], day[day >= 0][row]
        wrong = ~(np.isfinite(error) & (error > 0))
        if wrong.any():
            found = f"{error[wrong][0]:g} at cell {cell[wrong][0]} on {days[day[wrong][0]].date()}"
            raise RangeError(f"{where}, {error_name}", expected="positive where there is a value", found=found)
        value, error, cell, day = superobs(value, error, cell, day)
        return cls(value, total_error(variable, value, error, cell), cell, day, sensor, variable, days, local_time)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The day of each observation (p)."""
        return self.window[self.day]

    @property
    def months(self) -> np.ndarray:
        """The calendar month of each observation (p), counted from January 1970, int64."""
        return self.dates.values.astype("datetime64[M]").astype(np.int64)

    def select(self, which: np.ndarray) -> Observations:
        """Those a mask (p) or a list of positions picks."""
        return replace(
            self, value=self.value[which], error=self.error[which], cell=self.cell[which], day=self.day[which]
        )

    def of_cells(self, cells: slice) -> Observations:
        """Those of consecutive cells, numbered from the first of them."""
        first, last = np.searchsorted(self.cell, [cells.start, cells.stop])
        return replace(self.select(np.arange(first, last)), cell=self.cell[first:last] - cells.start)

    def among(self, others: Observations) -> np.ndarray:
        """Which are of a cell and day that `others` have too, bool (p)."""
        days = len(self.window)
        return np.isin(self.cell * days + self.day, others.cell * days + others.day)


def _days(window: pd.DatetimeIndex, where: str) -> pd.DatetimeIndex:
    days = pd.DatetimeIndex(window)
    if len(days) and not days.equals(pd.date_range(days[0].floor("D"), periods=len(days), freq="D")):
        found = f"{len(days)} times from {days[0]} to {days[-1]}"
        raise TimeError(where, expected="a window of whole days without gaps", found=found)
    return days


# -------------------------------------------------------------------------------------------------------------- errors
def superobs(
    value: np.ndarray, error: np.ndarray, cell: np.ndarray, day: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(value, error, cell, day) of the inverse-variance mean of all that share a cell and day, sorted by both.

    value, error, cell, day   (n); errors are the stated, independent ones, positive
    x̄ = Σ x/s² / Σ 1/s², s̄² = 1 / Σ 1/s². What neighbours share does not average out and is added by `total_error`.
    Ref: Lorenc (1981), Mon. Weather Rev. 109, 701, on combining close observations into one.
    """
    order = np.lexsort((error, value, day, cell))  # to the last bit the same in whatever order they come
    value, error, cell, day = (np.asarray(array)[order] for array in (value, error, cell, day))
    first = np.flatnonzero(np.r_[True, (np.diff(cell) != 0) | (np.diff(day) != 0)][: value.size])
    if first.size in (0, value.size):
        return value, error, cell, day
    weight = np.add.reduceat(error**-2.0, first)
    return np.add.reduceat(value * error**-2.0, first) / weight, weight**-0.5, cell[first], day[first]


def total_error(variable: str, value: np.ndarray, stated: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Standard deviation of the whole random error, in the unit of the value: retrieval and representativeness.

    s² = max(s_stated², total²) + (relative · |x|)², with x the larger of the value and the median of its cell, for an
    error that follows the noisy value itself would trust the values that came out low.
    value, stated, cell   (n)
    """
    rules = RULES[variable]
    size = np.maximum(np.abs(value), np.abs(_cell_median(value, cell)))
    return np.hypot(np.maximum(stated, rules.total), rules.relative * size)


def untruncated(
    value: np.ndarray, error: np.ndarray, expected: np.ndarray, low: float, below: int
) -> tuple[np.ndarray, np.ndarray]:
    """(value, error) (p) to fit in place of those given, of which only what exceeds `low` is known.

    expected   (p) what they would be without error
    below      how many more there were, at `low` or below
    What is left of errors that are cut off below is not 0 on average: of y ~ N(η, s²), y > low, the mean is m = η + s λ
    and the variance v s², with a = (low − η)/s, λ = φ(a)/Φ(−a), v = 1 + a λ − λ². A least-squares step with
    y′ = η + (y − m)/v and s′ = s/√v is one of Fisher's scoring towards the most likely η. Near the bound errors are
    taken as narrow as `below` says, Σ Φ(a)/Φ(−a) = below, for a product's are smaller where it is dry.
    Refs: Cohen (1950), Ann. Math. Stat. 21, 557; McCullagh & Nelder (1989), Generalized Linear Models, section 2.5.
    """
    above = (expected - low) / error
    share = np.maximum(above, 0.0)  # of what lies below the bound itself, half at most is missing

    def missing(width: float) -> float:
        return float((ndtr(-share / width) / ndtr(share / width)).sum()) - below

    if not below or missing(NARROW) >= 0.0:
        return value, error
    width = 1.0 if missing(1.0) <= 0.0 else brentq(missing, NARROW, 1.0, xtol=1e-3)
    a = np.minimum(-above / width, 1.0)  # further below, nothing is known of η
    ratio = np.exp(-0.5 * a * a) / (np.sqrt(2.0 * np.pi) * ndtr(-a))
    shrink = 1.0 + a * ratio - ratio * ratio
    return expected + (value - expected - width * error * ratio) / shrink, error / np.sqrt(shrink)


def inflation(d: np.ndarray, cell: np.ndarray, day: np.ndarray) -> float:
    """Factor α on the variance of errors correlated in time, by which n of them weigh as the few they are worth.

    α = n/n_eff = 1 + 2 Σ_k (n_k/n) ρ_k, with n_k the pairs k days apart and ρ_k the autocorrelation of the residuals
    from the cell's mean, pooled over cells; gaps in time only make pairs fewer. The sum goes on over bins of five lags
    while they are positive, at most to 60 days, for what is further would only add noise. Held within 1..20.
    d, cell, day   (p) innovations, any order
    Refs: Bayley and Hammersley (1946), J. R. Stat. Soc. Suppl. 8, 184; cut off like the initial
    positive sequence of Geyer (1992), Stat. Sci. 7, 473.
    """
    order = np.lexsort((day, cell))
    cell, day = np.asarray(cell)[order], np.asarray(day)[order]
    residual = np.asarray(d, np.float64)[order]
    rounding = 1e-24 * float(residual @ residual)
    residual = residual - _by_cell(cell, residual)
    variance = float(residual @ residual)
    products, pairs = np.zeros(LAGS + 1), np.zeros(LAGS + 1)
    for shift in range(1, min(LAGS + 1, cell.size)):
        lag = day[shift:] - day[:-shift]
        near = (cell[shift:] == cell[:-shift]) & (lag <= LAGS)
        if not near.any():
            break
        products += np.bincount(lag[near], (residual[shift:] * residual[:-shift])[near], minlength=LAGS + 1)
        pairs += np.bincount(lag[near], minlength=LAGS + 1)
    binned, there = (array[1:].reshape(-1, LAG_BIN).sum(axis=1) for array in (products, pairs))
    positive = np.logical_and.accumulate((binned > 0) | (there == 0))
    alpha = 1.0 + 2.0 * float(binned[positive].sum()) / variance if variance > rounding else 1.0
    return min(max(alpha, ALPHA[0]), ALPHA[1])


def _by_cell(cell: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the cell of each value (p)."""
    _, group = np.unique(cell, return_inverse=True)
    return (np.bincount(group, values) / np.maximum(np.bincount(group), 1))[group] if values.size else values


def _cell_median(values: np.ndarray, cell: np.ndarray, least: int = 1) -> np.ndarray:
    """Median of the cell of each value (p); of all values where the cell has fewer than `least`."""
    if not values.size:
        return values
    _, group = np.unique(cell, return_inverse=True)
    ranked, count = values[np.lexsort((values, group))], np.bincount(group)
    first = np.cumsum(count) - count
    median = 0.5 * (ranked[first + (count - 1) // 2] + ranked[first + count // 2])
    return np.where(count < least, np.median(values), median)[group]


# --------------------------------------------------------------------------------------------------------------- gates
@dataclass(frozen=True)
class Screening:
    """What became of the observations of one sensor.

    rejected   how many each gate took, in the order they were asked; a gate that could not be asked is missing
    worst      (cell, date, value, reason) of the rejected, furthest from its cell's median first, at most 100
    limit      largest share that may be rejected
    """

    sensor: str
    given: int
    rejected: Mapping[str, int]
    worst: tuple[tuple[int, str, float, str], ...] = ()
    limit: float = 1.0

    @property
    def kept(self) -> int:
        return self.given - sum(self.rejected.values())

    @property
    def share(self) -> float:
        """Share of the given that were kept; 1 of nothing."""
        return self.kept / self.given if self.given else 1.0

    @property
    def outcome(self) -> str:
        """'nothing_given', 'too_many_rejected', 'nothing_left' or 'kept'."""
        if not self.given:
            return "nothing_given"
        if 1.0 - self.share > self.limit:
            return "too_many_rejected"
        return "kept" if self.kept else "nothing_left"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for a journal."""
        said = {"sensor": self.sensor, "outcome": self.outcome, "given": self.given, "kept": self.kept}
        worst = [dict(zip(("cell", "date", "value", "reason"), row, strict=True)) for row in self.worst]
        return said | {"share": self.share, "limit": self.limit, "rejected": dict(self.rejected), "worst": worst}


def merged(parts: Sequence[Screening]) -> Screening:
    """The screenings of one sensor over different cells as one; of the worst, the first."""
    counts: dict[str, int] = {}
    for part in parts:
        for name, count in part.rejected.items():
            counts[name] = counts.get(name, 0) + count
    worst = tuple(row for part in parts for row in part.worst)[:LISTED]
    return Screening(parts[0].sensor, sum(part.given for part in parts), counts, worst, parts[0].limit)


Gate = Callable[[Observations, xr.Dataset], "np.ndarray | None"]


def screen(observations: Observations, land: xr.Dataset | None = None) -> tuple[Observations, Screening]:
    """(what passes every gate, what became of the rest).

    land   what is known of ground and weather on the window's days, and on more if need be, of air_temperature,
           surface_snow_amount, precipitation_flux (time, cell) and soil_temperature (time, layer, cell)
    Each gate sees what those before it left. Nothing left is an outcome and no error. Raises TimeError where `land`
    lacks a day.
    """
    around = xr.Dataset() if land is None else land
    kept, rejected = np.ones(len(observations), bool), {}
    for name, gate in GATES.items():
        left = np.flatnonzero(kept)
        bad = gate(observations.select(left), around)
        if bad is not None:
            rejected[name] = np.zeros(len(observations), bool)
            rejected[name][left[bad]] = True
            kept[left[bad]] = False
    return sift(observations, rejected)


def sift(
    observations: Observations, rejected: Mapping[str, np.ndarray], limit: float = 1.0
) -> tuple[Observations, Screening]:
    """(those no mask (p) of `rejected` takes, what became of the rest); the first reason counts."""
    reasons = list(rejected)
    code = np.full(len(observations), len(reasons))
    for k in reversed(range(len(reasons))):
        code[rejected[reasons[k]]] = k
    counts = {name: int((code == k).sum()) for k, name in enumerate(reasons)}
    distance = np.abs(observations.value - _cell_median(observations.value, observations.cell)) / observations.error
    gone = np.flatnonzero(code < len(reasons))
    gone = gone[np.argsort(-distance[gone], kind="stable")][:LISTED]
    dates = observations.dates[gone].strftime("%Y-%m-%d")
    worst = tuple(
        (int(observations.cell[i]), date, float(observations.value[i]), reasons[code[i]])
        for i, date in zip(gone, dates, strict=True)
    )
    said = Screening(observations.sensor, len(observations), counts, worst, limit)
    return observations.select(code == len(reasons)), said


def accept(screening: Screening) -> None:
    """Nothing, unless more were rejected than the limit allows: then RangeError."""
    if screening.outcome == "too_many_rejected":
        gone = screening.given - screening.kept
        expected = f"at most {100 * screening.limit:g} % rejected"
        found = f"{100 * (1 - screening.share):.1f} % ({gone} of {screening.given}: {', '.join(screening.rejected)})"
        raise RangeError(f"observations of {screening.sensor}", expected=expected, found=found)


def _implausible(observations: Observations, land: xr.Dataset) -> np.ndarray:
    """Outside the open range of the variable."""
    rules = RULES[observations.variable]
    return ~((observations.value > rules.low) & (observations.value < rules.high))


def _frozen(observations: Observations, land: xr.Dataset) -> np.ndarray | None:
    """Ground that may be frozen: by the temperature of the top soil layer where the model has one, else of the air."""
    name = "soil_temperature" if "soil_temperature" in land else "air_temperature"
    if name not in land or not RULES[observations.variable].frost:
        return None
    return _on_the_day(land, name, observations) <= FREEZING


def _snowy(observations: Observations, land: xr.Dataset) -> np.ndarray | None:
    """Ground that the model has under snow."""
    if "surface_snow_amount" not in land or not RULES[observations.variable].frost:
        return None
    return _on_the_day(land, "surface_snow_amount", observations) > SNOW


def _watery(observations: Observations, land: xr.Dataset) -> np.ndarray | None:
    """Footprints with open water in them, which shines through as wet soil."""
    return _footprint(observations, land, "water_fraction", WATER)


def _overgrown(observations: Observations, land: xr.Dataset) -> np.ndarray | None:
    """Footprints that are mostly dense vegetation, under which the soil is not seen."""
    return _footprint(observations, land, "dense_vegetation_fraction", DENSE)


def _footprint(observations: Observations, land: xr.Dataset, name: str, most: float) -> np.ndarray | None:
    if name not in land or not RULES[observations.variable].frost:
        return None
    return land[name].values[observations.cell] >= most


def _stuck(observations: Observations, land: xr.Dataset) -> np.ndarray:
    """All of a cell of which more than half are one and the same value: it says nothing, and has no scale (MAD = 0)."""
    away = np.abs(observations.value - _cell_median(observations.value, observations.cell))
    same = _by_cell(observations.cell, (away == 0).astype(np.float64))
    return (same > 0.5) & _enough(observations.cell)


def _spiky(observations: Observations, land: xr.Dataset) -> np.ndarray:
    """A single value that stands out, one way, from those before it and from those after it.

    Both medians of up to three neighbours within ten days are more than four standard deviations away, on the same
    side; the standard deviation is 1.4826 times the cell's median absolute difference from the values before, and no
    less than the error. A rise is no spike where rain explains it: the ground dries within days, and what is seen once
    in three days then looks like one. After the spike test of Dorigo et al. (2013), Vadose Zone J. 12, on irregular
    series, with the scale of Hampel's filter (Pearson 2002, IEEE Trans. Control Syst. Technol. 10, 55).
    """
    before, after = (observations.value - _neighbours(observations, side) for side in (-1, 1))
    known, scale = np.isfinite(before), np.zeros(len(observations))
    scale[known] = 1.4826 * _cell_median(np.abs(before[known]), observations.cell[known])
    bound = SPIKE * np.maximum(scale, observations.error)
    high, low = (before > bound) & (after > bound), (before < -bound) & (after < -bound)
    if "precipitation_flux" in land:
        rain = [_on_the_day(land, "precipitation_flux", observations, back) for back in range(3)]
        high &= ~(np.nanmax(rain, axis=0, initial=0.0) >= RAIN)
    return high | low


def _few(observations: Observations, land: xr.Dataset) -> np.ndarray:
    """All of a cell that has too few to tell its offset."""
    return ~_enough(observations.cell)


# By name, in the order they are asked: what the ground says first, what needs a series of good values last.
GATES: Mapping[str, Gate] = {
    "water": _watery,
    "vegetation": _overgrown,
    "frozen": _frozen,
    "snow": _snowy,
    "range": _implausible,
    "stuck": _stuck,
    "spike": _spiky,
    "few": _few,
}


def _enough(cell: np.ndarray) -> np.ndarray:
    """Whether the cell of each observation (p) has FEW or more."""
    _, group = np.unique(cell, return_inverse=True)
    return np.bincount(group, minlength=1)[group] >= FEW


def _neighbours(observations: Observations, side: int) -> np.ndarray:
    """Median (p) of up to three values of the same cell within ten days before (−1) or after (1); NaN without any."""
    value, cell, day = observations.value[::-side], observations.cell[::-side], observations.day[::-side]
    near = np.full((NEIGHBOURS, len(observations)), np.nan)
    for k in range(1, min(NEIGHBOURS + 1, len(observations))):
        same = (cell[k:] == cell[:-k]) & (np.abs(day[k:] - day[:-k]) <= NEAR)
        near[k - 1, k:] = np.where(same, value[:-k], np.nan)
    near.sort(axis=0)  # NaN last
    count = np.isfinite(near).sum(axis=0)
    rows = np.arange(len(observations))
    median = 0.5 * (near[np.maximum(count - 1, 0) // 2, rows] + near[np.minimum(count // 2, NEIGHBOURS - 1), rows])
    return median[::-side]


def _on_the_day(land: xr.Dataset, name: str, observations: Observations, back: int = 0) -> np.ndarray:
    """Value (p) at the cell, of the top layer where there are layers, `back` days before each observation.

    NaN before the first day of `land`. Raises TimeError where it lacks a day of the observations themselves.
    """
    array = land[name].isel(layer=0) if "layer" in land[name].dims else land[name]
    row = land.indexes["time"].get_indexer(observations.dates)
    if (row < 0).any():
        found = f"none on {observations.dates[row < 0][0].date()}"
        raise TimeError(f"'{name}' for the gates", expected="every day of the window", found=found)
    values = array.transpose("time", "cell").values
    if len(observations) and observations.cell.max() >= values.shape[1]:
        found = f"cell {observations.cell.max()}"
        raise VariableError(f"'{name}' for the gates", expected=f"cells 0..{values.shape[1] - 1}", found=found)
    there = row >= back
    return np.where(there, values[np.where(there, row - back, 0), observations.cell], np.nan)


# ---------------------------------------------------------------------------------------------------- against the model
def background_check(
    d: np.ndarray, spread: np.ndarray | float, error: np.ndarray, cell: np.ndarray, sigmas: float = 4.0
) -> np.ndarray:
    """Which innovations are believable, bool (p): |d − median of the cell| < sigmas · √(spread² + error²).

    d        (p) observation minus background; the median takes out the offset of the sensor at the cell, and where a
             cell has fewer than five is that of all
    spread   (p) or one number: standard deviation of the background in observation space
    error    (p) standard deviation of the observation
    Ref: Järvinen and Undén (1997), ECMWF Tech. Memo. 236, on checks against the background.
    """
    d = np.asarray(d, np.float64)
    return np.abs(d - _cell_median(d, cell, FEW)) < sigmas * np.hypot(spread, error)


# ------------------------------------------------------------------------------------------------------------- choosing
def hold_out(observations: Observations, fraction: float, seed: int) -> np.ndarray:
    """Which observations to withhold, bool (p): whole months of a cell, about a `fraction` of them, drawn by hash.

    Whole months, for neighbours in time share their errors and would vouch for each other. The draw depends on the
    seed, the cell and the calendar month and on nothing else: not on the order, the window or the sensor.
    Raises RangeError for a fraction outside 0..1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise RangeError("fraction to hold out", expected="0..1", found=fraction)
    return _uniform(np.uint64(seed), observations.cell, observations.months) < fraction


def thin(observations: Observations, spacing: int) -> Observations:
    """Those at least `spacing` days after the last one kept of their cell, from the first on."""
    return observations.select(_spaced(observations.cell, observations.day, spacing))


@compiled
def _uniform(seed, cell, month):
    """One number in [0, 1) for each (seed, cell, month)."""
    out = np.empty(cell.size)
    for i in range(cell.size):
        x = mix(seed + np.uint64(0x9E3779B97F4A7C15))
        x = mix(x + np.uint64(cell[i]) * np.uint64(0xD1B54A32D192ED03))
        x = mix(x + np.uint64(month[i]) * np.uint64(0x9E3779B97F4A7C15))
        out[i] = float(x >> np.uint64(11)) / 9007199254740992.0
    return out


@compiled
def _spaced(cell, day, spacing):
    """Greedy choice along cells and days that are sorted, bool (p)."""
    kept = np.zeros(cell.size, np.bool_)
    last = 0
    for i in range(cell.size):
        if i == 0 or cell[i] != cell[last] or day[i] - day[last] >= spacing:
            kept[i] = True
            last = i
    return kept
