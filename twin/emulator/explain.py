"""Why the emulator says what it says: of its trees feature by feature, and of the land by what would have been.

    rows of a period, rows of the same days of other years ─shap─▸ contributions that add up to the anomaly
    a run, a run of reference ─counterfactual─▸ rain, heat, start, soil, satellite: parts of their difference

`shap` says what the trees looked at, exactly. As the daily physics is a feature, most of a drought is "the state": rain
and heat have already made it dry. `counterfactual` asks instead what the same days would have been with the reference's
rain, and so on for every group of inputs, in all combinations; it is about the land, and has the unit of what is asked.
Refs: Lundberg et al. (2020), Nat. Mach. Intell. 2, 56 (trees); Shapley (1953), Contributions to the Theory of Games 2,
307 (the only shares that add up and treat all alike).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import xarray as xr
import xgboost as xgb

from twin.climatology import day_of_year
from twin.emulator.features import FEATURES, GROUPS, NAMES
from twin.emulator.model import Emulator
from twin.emulator.outputs import base_of
from twin.errors import TimeError, VariableError
from twin.inputs import THETA
from twin.land.model import CARBON_DIOXIDE
from twin.model import LandModel
from twin.scenarios import RAIN, SNOWFALL
from twin.state import root_zone

INPUTS = ("rain", "heat", "start", "satellites", "soil", "carbon_dioxide")  # groups of what a run is of
ROWS = 20_000  # that are explained in one call


# --- of the trees ----------------------------------------------------------------------------------------------------
def same_days(time: np.ndarray, first: np.datetime64 | str, last: np.datetime64 | str) -> tuple[np.ndarray, np.ndarray]:
    """(days of the period first..last, the same days of the year in all other years), masks (time).

    Raises TimeError for a period that is not in the record, that lasts longer than a year, or has no other year.
    """
    days = np.asarray(time).astype("datetime64[D]")
    inside = (days >= np.datetime64(first, "D")) & (days <= np.datetime64(last, "D"))
    others = np.isin(day_of_year(days), day_of_year(days[inside])) & ~inside
    if not 0 < np.count_nonzero(inside) <= 366 or not others.any():
        expected = "up to a year of the record, and the same days of another"
        found = f"{np.count_nonzero(inside)} and {np.count_nonzero(others)} days"
        raise TimeError("period to explain", expected=expected, found=found)
    return inside, others


def shap(emulator: Emulator, rows: np.ndarray, reference: np.ndarray) -> xr.DataArray:
    """What each feature adds to an anomaly: mean prediction of some rows less that of others, dims (output, feature).

    rows, reference   (row, feature) as `Emulator.features` makes them, of the days to explain and of those they are
                      held against: of one place, the same days of other years
    Exact Shapley values of the trees, in the unit of the output's features; the sum over features is the difference of
    the means of `Emulator.predict`, to rounding. The coordinate `group` says what each feature is of. About 1 ms of a
    core a day, so for a place and a season, not for a map. Raises VariableError for rows of other features.
    """
    found = _contributions(emulator, rows).mean(axis=1) - _contributions(emulator, reference).mean(axis=1)
    coords = {"output": list(emulator.outputs), "feature": list(NAMES)}
    groups = ("feature", [feature.group for feature in FEATURES])
    return xr.DataArray(found, {**coords, "group": groups}, ("output", "feature"), "contribution")


def importance(emulator: Emulator, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """{output: {group: how far the group moves the output from its mean}}: the mean over rows of |Shapley value|.

    rows   (row, feature), as varied as the days the emulator is used on. In the unit of the output's features; of a
    group, of the sum over its features. Raises VariableError for rows of other features.
    """
    values = _contributions(emulator, rows)
    values -= values.mean(axis=1, keepdims=True)
    member = np.array([[feature.group == group for group in GROUPS] for feature in FEATURES], np.float64)
    sizes = np.abs(values @ member).mean(axis=1)
    return {name: dict(zip(GROUPS, map(float, sizes[k]), strict=True)) for k, name in enumerate(emulator.outputs)}


def _contributions(emulator: Emulator, rows: np.ndarray) -> np.ndarray:
    """Shapley values (output, row, feature), float64; the column an output is a correction of also has its own value.

    What the trees say of no row in particular is left out: it is the same for all.
    """
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(NAMES) or not len(rows):
        raise VariableError(
            "rows to explain", expected=f"(row, {len(NAMES)}), one or more", found=f"shape {rows.shape}"
        )
    found = np.empty((len(emulator.outputs), *rows.shape))
    for k, name in enumerate(emulator.outputs):
        booster = emulator.booster(name)
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            found[k, first : first + ROWS] = booster.predict(
                xgb.DMatrix(part, feature_names=list(NAMES)), pred_contribs=True
            )[:, :-1]
        if (base := base_of(name, emulator.hybrid)) >= 0:
            found[k, :, base] += rows[:, base]
    return found


# --- of the land -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run is of: state, forcing and parameters as `LandModel.run` takes them.

    increment   what satellites have added to the state's soil moisture, (layer, cell), m3 m-3
    """

    state: xr.Dataset
    forcing: xr.Dataset
    parameters: xr.Dataset
    increment: np.ndarray | float = 0.0


def mean_root_zone(diagnostics: xr.Dataset) -> xr.DataArray:
    """Mean over the run of the top metre's soil moisture, m3 m-3, (cell)."""
    return root_zone(diagnostics[THETA]).mean("time", dtype=np.float64)


def counterfactual(
    model: LandModel,
    actual: Inputs,
    reference: Inputs,
    measure: Callable[[xr.Dataset], xr.DataArray] = mean_root_zone,
) -> xr.Dataset:
    """How much of a run's difference to a run of reference is due to each group of its inputs, in the measure's unit.

    actual, reference   the same cells; as many days, which need not be of the same year
    measure             diagnostics of a run → what is explained, (cell)
    returns   contribution (group, cell): Shapley values, which add up to value less reference_value, to rounding;
              alone (group, cell): what goes where this group alone is the reference's; value, reference_value (cell)
    The groups are INPUTS: rain and snow, all other weather, the state at the start without what satellites added to it,
    that, soil with its leaves, and carbon dioxide. Of n groups that differ there are 2ⁿ runs, all in one, so that many
    cells are better handed in by tiles. Average over reference years rather than hand in their mean: in a mean year it
    rains every day. Raises TimeError for another number of days.
    """
    if actual.forcing.sizes["time"] != reference.forcing.sizes["time"]:
        expected, found = (run.forcing.sizes["time"] for run in (actual, reference))
        raise TimeError("days of the reference", expected=expected, found=found)
    ours, theirs = _pieces(actual), _pieces(reference)
    groups = [name for name in INPUTS if not ours[name].equals(theirs[name])]
    by_cell = [name for name in INPUTS[:-1] if name in groups]
    cells, number = actual.forcing.sizes["cell"], 1 << len(by_cell)
    own = np.tile(np.arange(cells), number)
    pieces = {name: ours[name].isel(cell=own) for name in INPUTS[:-1]}
    for k, name in enumerate(by_cell):
        pair = xr.concat([ours[name], theirs[name]], "cell", data_vars="minimal", coords="minimal", compat="equals")
        others = np.repeat(~np.arange(number) >> k & 1, cells)  # coalitions that the group is not in
        pieces[name] = pair.isel(cell=own + cells * others)
    runs = []
    for air in (theirs, ours) if INPUTS[-1] in groups else (ours,):  # a series of time alone: a run of its own
        pieces[INPUTS[-1]] = air[INPUTS[-1]]
        runs.append(measure(model.run(*_whole(pieces, actual.forcing["time"].values))[1]))
    values = np.concatenate([np.asarray(run.values, np.float64).reshape(number, cells) for run in runs])
    shares = np.zeros((2, len(INPUTS), values.shape[1]))
    for k, name in enumerate(groups):
        row = INPUTS.index(name)
        shares[1, row] = values[-1] - values[-1 - (1 << k)]
        for without in range(len(values)):
            if not without >> k & 1:
                size = without.bit_count()
                weight = factorial(size) * factorial(len(groups) - size - 1) / factorial(len(groups))
                shares[0, row] += weight * (values[without | 1 << k] - values[without])
    attrs = {"units": runs[0].attrs.get("units", "")}
    return xr.Dataset(
        {
            "contribution": (("group", "cell"), shares[0], attrs),
            "alone": (("group", "cell"), shares[1], attrs),
            "value": ("cell", values[-1], attrs),
            "reference_value": ("cell", values[0], attrs),
        },
        {"group": list(INPUTS)},
    )


def _pieces(inputs: Inputs) -> dict[str, xr.Dataset]:
    """The inputs of a run by group; weather by the number of its day."""
    forcing = inputs.forcing.drop_vars("time")
    rain = [name for name in (RAIN, SNOWFALL, "rainfall_flux") if name in forcing]
    carbon = [CARBON_DIOXIDE] if CARBON_DIOXIDE in forcing else []
    theta = inputs.state[THETA].transpose("layer", "cell")
    increment = np.broadcast_to(np.asarray(inputs.increment, np.float64), theta.shape)
    return {
        "rain": forcing[rain],
        "heat": forcing.drop_vars(rain + carbon),
        "start": inputs.state.assign({THETA: theta.copy(data=theta.values - increment)}),
        "satellites": xr.Dataset({THETA: (("layer", "cell"), increment)}),
        "soil": inputs.parameters,
        "carbon_dioxide": forcing[carbon].drop_vars(["lat", "lon"], errors="ignore"),
    }


def _whole(pieces: dict[str, xr.Dataset], time: np.ndarray) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """(state, forcing, parameters) of pieces by group; the forcing has the days `time`."""
    state = pieces["start"]
    theta = (state[THETA].values + pieces["satellites"][THETA].values).clip(0.0)
    forcing = pieces["heat"].assign({**pieces["rain"].data_vars, **pieces["carbon_dioxide"].data_vars})
    return state.assign({THETA: state[THETA].copy(data=theta)}), forcing.assign_coords(time=time), pieces["soil"]
