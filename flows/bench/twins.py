"""Twin experiments over many seeds: how much of the open loop's error an analysis leaves, and whether it knows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.bench.report import digits, report
from twin.cycle import Options
from twin.errors import RangeError, SettingsError
from twin.experiments import Outcome, Setting, fraternal, identical

KINDS = {"identical": identical, "fraternal": fraternal}


def twins(kind: str, seeds: int, setting: Setting, fields: bool, as_json: bool) -> None:
    """Run one experiment for each seed and report shares of the open loop's error, spread and coverage.

    A seed whose observations are refused is counted and shown. Raises SettingsError for a kind there is not.
    """
    if kind not in KINDS:
        raise SettingsError("--kind", expected=" or ".join(KINDS), found=kind)
    outcomes: list[Outcome] = []
    refused: dict[int, str] = {}
    started = time.perf_counter()
    for seed in range(seeds):
        try:
            outcome = KINDS[kind](seed, setting, Options(residual=fields))
        except RangeError as error:
            refused[seed] = str(error)
            continue
        outcomes.append(outcome)
        print(f"  {seed:>3} {_line(outcome)}", flush=True)
        if as_json:
            print(json.dumps(outcome.as_json()), flush=True)
    minutes = (time.perf_counter() - started) / 60.0
    figures = {"kind": kind, "seeds": seeds, "refused": refused, "minutes": digits(minutes), **summary(outcomes)}
    report("twins", figures, as_json)


def summary(outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    """Over all seeds: share of the open loop's RMSE by place and layer (pooled, median), calibration, acceptance."""
    if not outcomes:
        return {"accepted": 0}
    rmse = np.stack([outcome.rmse.values for outcome in outcomes])
    pooled = np.sqrt(np.mean(rmse**2, axis=0))
    median = np.median(rmse[:, 1] / rmse[:, 0], axis=0)
    error, spread = (np.array([getattr(outcome, name) for outcome in outcomes]) for name in ("parameters", "states"))
    figures: dict[str, Any] = {"accepted": sum(outcome.analysis.accepted for outcome in outcomes)}
    for j, place in enumerate(outcomes[0].rmse["place"].values):
        figures[f"open loop {place}"] = [digits(value) for value in pooled[0, j]]
        figures[f"share {place}"] = [digits(value) for value in pooled[1, j] / pooled[0, j]]
        figures[f"median share {place}"] = [digits(value) for value in median[j]]
    if np.isfinite(error).all():
        figures["error/spread, parameters"] = digits(np.sqrt(np.mean(error**2)))
    figures["error/spread, states"] = digits(np.sqrt(np.mean(spread**2)))
    figures["coverage of 5-95 %"] = digits(np.mean([outcome.coverage for outcome in outcomes]))
    return figures


def _line(outcome: Outcome) -> str:
    shares = "  ".join(
        f"{place} {' '.join(f'{value:.3f}' for value in outcome.share.sel(place=place).values)}"
        for place in outcome.share["place"].values
    )
    about = f"error/spread {outcome.parameters:.2f} {outcome.states:.2f}, covers {outcome.coverage:.2f}"
    doubts = "".join(f"  not accepted: {reason}" for reason in outcome.analysis.reasons)
    return f"{shares}  {about}{doubts}"
