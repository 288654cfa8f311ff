"""How good an emulator is where it has never been: it runs freely for years, held against the model it stands for.

Every figure is of the whole run but its first year, at locations in blocks of the map nothing was learnt from, under
their own weather and under another climate. What a drought service tells is scored itself: dry days and wet seasons.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin.climatology import day_of_year
from twin.conformal import coverage
from twin.drift import Certificate
from twin.emulator import physics
from twin.emulator.fitting import Run
from twin.emulator.model import Emulator
from twin.emulator.outputs import OUTPUTS, SOIL_MOISTURE, target
from twin.errors import RangeError
from twin.indices import season, spells, years
from twin.inputs import THETA
from twin.state import root_zone

YEAR = 365  # days
SAMPLED = 20_000  # rows of a run that are looked at for coverage and envelope
GOLDEN = 2000  # rows on which the kernel must say what XGBoost says
SLOPED = 2.0  # years that a slope of the error takes: within one it is the season
WETTER = 1.1  # times the rain that must not dry a cell
ROUNDING = 1e-6  # m3 m-3
_UNCENSORED = {  # seasons whose end is a date, not the end of what was looked at
    "onset": ("whole", "went_on_after_its_year"),
    "cessation": ("whole", "began_before_its_year"),
}
HALF_WINDOW = 15  # days about a day of the year that make its climatology


@dataclass(frozen=True, eq=False)
class Scores:
    """What is known of an emulator.

    table        one row for each climate and output: rmse, bias, worst_tenth (rmse of the cells that are worst), in the
                 output's unit and, for soil moisture, in percent of the cell's range; acc, the anomaly correlation over
                 all days and cells, and acc_cells, its mean over cells
    metrics      one row for each climate: errors of dry days a year, onset and cessation in days, mean, median, 90 %
    coverage     as `conformal.coverage` gives it
    certificate  what promotion looks at, by climate and cell
    outside      share of the days that are outside the envelope, by climate
    """

    table: pd.DataFrame
    metrics: pd.DataFrame
    coverage: pd.DataFrame
    certificate: Certificate
    outside: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the card; numbers that are not known are null."""
        tables = {name: _records(getattr(self, name)) for name in ("table", "metrics", "coverage")}
        told = self.certificate
        alone = {"drift": dict(told.drift), "coverage": told.coverage, "cost": told.cost, "monotone": told.monotone}
        return {**tables, "outside": dict(self.outside), "certificate": {**alone, "golden": told.golden}}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rounded = frame.map(lambda v: float(f"{v:.5g}") if isinstance(v, float) and np.isfinite(v) else v)
    rows = rounded.astype(object).where(rounded.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


@dataclass(eq=False)
class _Cells:
    """What a run came to, by cell."""

    climate: str
    rmse: np.ndarray  # (output, cell)
    relative: np.ndarray  # (output, cell), percent of the range; NaN but for soil moisture
    bias: np.ndarray  # (output, cell)
    relative_bias: np.ndarray
    acc: np.ndarray  # (3, output, cell), sums that make the anomaly correlation
    slope: np.ndarray  # (output, cell), of the error, a year
    dry_days: np.ndarray  # (cell), mean absolute error a year
    onset: np.ndarray  # errors (season), days
    cessation: np.ndarray
    aridity: np.ndarray  # (cell)


def evaluate(emulator: Emulator, runs: Sequence[Run]) -> Scores:
    """The scores of an emulator on runs of the model it stands for, all of the same days.

    Raises RangeError for runs shorter than half a year: there is nothing to score once the start is left out.
    """
    if not runs:
        raise RangeError("runs to score on", expected="at least one", found="none")
    cells, errors, widths, places, codes = [], [], [], [], []
    outside: dict[str, list[float]] = {}
    costs, asked, rng = [], [], np.random.default_rng(0)
    emulator.run(runs[0].state, runs[0].forcing, runs[0].parameters)  # what is compiled now is not timed
    for run in runs:
        started = time.process_time()
        _, told = emulator.run(run.state, run.forcing, run.parameters)
        spent = time.process_time() - started
        costs.append(1e3 * spent / (run.forcing.sizes["time"] / YEAR * run.location.size))
        found = {name: target(name, told, run.parameters) for name in emulator.outputs}
        truth = {name: target(name, run.truth, run.parameters) for name in emulator.outputs}
        rows = emulator.features(run.state, run.forcing, run.parameters)
        first = _skipped(run) * run.location.size
        regime = emulator.regimes(rows)
        cells.append(_cells(run, found, truth, regime[-run.location.size :]))
        some = np.sort(rng.choice(np.arange(first, len(rows)), min(SAMPLED, len(rows) - first), replace=False))
        error = np.stack([(found[name] - truth[name]).ravel()[some] for name in emulator.outputs], axis=1)
        errors.append(error)
        widths.append(emulator.intervals.half_width(regime[some]))
        places.append(np.tile(run.location, run.forcing.sizes["time"])[some])
        codes.append(regime[some])
        outside.setdefault(run.climate, []).append(float(emulator.envelope.outside(rows[some]).mean()))
        asked.append(rows[:: max(1, len(rows) * len(runs) // GOLDEN)])
    error, width, place, code = (np.concatenate(part) for part in (errors, widths, places, codes))
    covered = coverage(error, width, place, code, emulator.outputs)
    everywhere = covered[(covered["group"] == "all") & covered["output"].isin(SOIL_MOISTURE)]
    certificate = Certificate(
        rmse={name: np.concatenate([part.rmse[k] for part in cells]) for k, name in enumerate(emulator.outputs)},
        dry_days=np.concatenate([part.dry_days for part in cells]),
        aridity=np.concatenate([part.aridity for part in cells]),
        drift={
            name: float(np.mean(np.concatenate([part.slope[k] for part in cells])))
            for k, name in enumerate(emulator.outputs)
            if name in SOIL_MOISTURE and all(_years(run) >= SLOPED for run in runs)
        },
        coverage=float(everywhere["coverage"].mean()),
        cost=float(np.median(costs)),
        golden=_golden(emulator, np.concatenate(asked)),
        monotone=_monotone(emulator, runs[0]),
    )
    shares = {climate: float(np.mean(values)) for climate, values in outside.items()}
    return Scores(_table(emulator.outputs, cells), _metrics(cells), covered, certificate, shares)


def _years(run: Run) -> float:
    """Years of a run that count."""
    return (run.forcing.sizes["time"] - _skipped(run)) / YEAR


def _skipped(run: Run) -> int:
    """Days that do not count: a year, or a third of a run that is shorter than three."""
    days = run.forcing.sizes["time"]
    if days < YEAR // 2:
        raise RangeError("days of a run to score", expected=f"{YEAR // 2} or more", found=days)
    return min(YEAR, days // 3)


def _cells(run: Run, found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], regime: np.ndarray) -> _Cells:
    skip, outputs = _skipped(run), list(found)
    span = 0.01 * physics.span(run.parameters)
    error = np.stack([found[name] - truth[name] for name in outputs])[:, skip:].astype(np.float64)
    rmse, bias = np.sqrt((error**2).mean(axis=1)), error.mean(axis=1)
    unit = np.full(rmse.shape, np.nan)
    for k, name in enumerate(outputs):
        if name in SOIL_MOISTURE:
            unit[k] = span[OUTPUTS[name].layer]
    at = np.arange(error.shape[1]) / YEAR
    centred = at - at.mean()
    slope = np.einsum("t,otc->oc", centred, error) / (centred**2).sum()
    times = run.forcing["time"].values[skip:]
    acc = np.stack([anomaly_sums(found[name][skip:], truth[name][skip:], times) for name in outputs], axis=1)
    dry, onset, cessation = _drought(run, found, truth)
    return _Cells(run.climate, rmse, rmse / unit, bias, bias / unit, acc, slope, dry, onset, cessation, regime // 2)


def anomaly_sums(found: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Σab, Σa² and Σb², (3, cell), of the departures a and b of both, (time, cell), from the truth's climatology.

    Their anomaly correlation is Σab/√(Σa² Σb²), over any cells. A day's climatology is the mean of all days within
    HALF_WINDOW of it in the other years; NaN below three years. Ref: Wilks (2011), Statistical Methods in the
    Atmospheric Sciences, 3rd ed., sect. 8.6.4.
    """
    day, year = day_of_year(times), pd.DatetimeIndex(times).year.values
    if truth.shape[0] < 3 * YEAR:
        return np.full((3, truth.shape[1]), np.nan)
    which = year - year.min()
    sums, counts = np.zeros((which.max() + 1, YEAR, truth.shape[1])), np.zeros((which.max() + 1, YEAR, 1))
    np.add.at(sums, (which, day), truth)
    np.add.at(counts, (which, day), 1.0)
    width = 2 * HALF_WINDOW + 1

    def around(values: np.ndarray) -> np.ndarray:
        padded = np.concatenate([values[:, -HALF_WINDOW:], values, values[:, :HALF_WINDOW]], axis=1)
        total = np.cumsum(np.concatenate([np.zeros_like(padded[:, :1]), padded], axis=1), axis=1)
        return total[:, width:] - total[:, :-width]

    sums, counts = around(sums), around(counts)
    others = (sums.sum(axis=0) - sums) / np.maximum(counts.sum(axis=0) - counts, 1.0)
    usual = others[which, day]
    a, b = found - usual, truth - usual
    return np.stack([(a * b).sum(axis=0), (a**2).sum(axis=0), (b**2).sum(axis=0)])


def _correlation(sums: np.ndarray) -> np.ndarray:
    return sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), 1e-30)


def _drought(
    run: Run, found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean absolute error of a year's dry days (cell), errors of onsets and of cessations (season)), days."""
    skip = _skipped(run)
    water = []
    for values in (truth, found):
        theta = np.stack([values[name][skip:] for name in SOIL_MOISTURE], axis=1)
        coords = {"time": run.forcing["time"].values[skip:]}
        data = xr.DataArray(theta, coords, ("time", "layer", "cell"), THETA)
        water.append(spells.availability(root_zone(data), run.parameters))
    true, ours = (spells.dry_days(part).values for part in water)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(true)
        dry = np.where(known, np.abs(ours - true), 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    if water[0].sizes["time"] < 2 * YEAR:
        return np.where(known.any(axis=0), dry, _of_days(*water)), np.empty(0), np.empty(0)
    when = years.calendar(water[0])
    true_season, season_found = (season.wet_season(part, when) for part in water)
    late = {}
    status = [part["season_status"].values for part in (true_season, season_found)]
    for name, uncensored in _UNCENSORED.items():
        codes = [season.STATUS[one] for one in uncensored]
        seen = np.isin(status[0], codes) & np.isin(status[1], codes)
        late[name] = (season_found[name] - true_season[name]).values[seen]
    return dry, late["onset"], late["cessation"]


def _of_days(true: xr.DataArray, ours: xr.DataArray) -> np.ndarray:
    """The same, by cell, for days that make no year: the difference of their numbers, scaled to one."""
    dry = [(part < spells.DRY_SOIL).sum("time").values for part in (true, ours)]
    return np.abs(dry[1] - dry[0]) * (YEAR / true.sizes["time"])


def _golden(emulator: Emulator, rows: np.ndarray) -> bool:
    """Whether the kernel says what XGBoost itself says."""
    ours = emulator.kernel.predict(rows)
    theirs = np.stack([emulator.booster(name).inplace_predict(np.ascontiguousarray(rows)) for name in emulator.outputs])
    return bool(np.allclose(ours, theirs.T, rtol=1e-5, atol=1e-7))


def _monotone(emulator: Emulator, run: Run) -> float:
    """Share of the cells of a run whose root zone more rain does not dry, in the mean."""
    rain = run.forcing["precipitation_flux"]
    wetter = run.forcing.assign(precipitation_flux=(WETTER * rain).assign_attrs(rain.attrs))
    before, after = (
        root_zone(emulator.run(run.state, forcing, run.parameters)[1][THETA]).mean("time", dtype="float64").values
        for forcing in (run.forcing, wetter)
    )
    return float(np.mean(after >= before - ROUNDING))


def _by_climate(cells: Iterable[_Cells]) -> dict[str, list[_Cells]]:
    found: dict[str, list[_Cells]] = {}
    for part in cells:
        found.setdefault(part.climate, []).append(part)
    return found


def _table(outputs: Sequence[str], cells: Iterable[_Cells]) -> pd.DataFrame:
    rows = []
    for climate, parts in _by_climate(cells).items():
        joined = {n: np.concatenate([getattr(p, n) for p in parts], axis=1) for n in ("rmse", "relative", "bias")}
        acc = np.concatenate([part.acc for part in parts], axis=2)
        relative_bias = np.concatenate([part.relative_bias for part in parts], axis=1)
        for k, name in enumerate(outputs):
            rmse, relative = joined["rmse"][k], joined["relative"][k]
            rows.append(
                {
                    "climate": climate,
                    "output": name,
                    "rmse": _rms(rmse),
                    "bias": float(joined["bias"][k].mean()),
                    "rmse_percent": _rms(relative),
                    "bias_percent": float(relative_bias[k].mean()),
                    "worst_tenth": float(np.quantile(rmse, 0.9)),
                    "worst_tenth_percent": float(np.quantile(relative, 0.9)),
                    "acc": float(_correlation(acc[:, k].sum(axis=1))),
                    "acc_cells": float(np.mean(_correlation(acc[:, k]))),
                    "cells": rmse.size,
                }
            )
    return pd.DataFrame(rows)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _metrics(cells: Iterable[_Cells]) -> pd.DataFrame:
    rows = []
    for climate, parts in _by_climate(cells).items():
        row: dict[str, Any] = {"climate": climate}
        for name in ("dry_days", "onset", "cessation"):
            error = np.abs(np.concatenate([getattr(part, name) for part in parts]))
            known = error.size > 0
            row |= {
                f"{name}_mae": float(error.mean()) if known else np.nan,
                f"{name}_median": float(np.median(error)) if known else np.nan,
                f"{name}_p90": float(np.quantile(error, 0.9)) if known else np.nan,
            }
        rows.append({**row, "seasons": sum(part.onset.size for part in parts)})
    return pd.DataFrame(rows)
