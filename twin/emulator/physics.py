"""The daily physics inside the emulator: `LandDaily` with surface parameters that stand for a place's surface types.

    parameters with surface types ─▸ Surface (shares weighted by leaves) ─transfer (13 coefficients)─▸ LandDaily's own

The transfer is a regional one: the same coefficients everywhere, multiplied by what is known of a place, so that what
is fitted at some cells holds at others and at any resolution. They are fitted to the sub-daily model's soil moisture.

Refs: Samaniego et al. (2010), Water Resour. Res. 46, W05523 (transfer functions); Best et al. (2011), Geosci. Model
Dev. 4, 677 (light and roots of a canopy); Allen et al. (1998), FAO-56 (resistance of a surface).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from twin.checks import check_present
from twin.errors import RangeError
from twin.inputs import CANOPY, SNOW, THETA
from twin.land.daily import FORCING, SOIL, SURFACE, through
from twin.land.model import CARBON_DIOXIDE
from twin.parameters import TILES, root_fractions, tile_parameters
from twin.parameters.soil import GRASS
from twin.parameters.tiles import VEGETATED
from twin.variables import LAYERS

PRESENT, NOTICED = 391e-6, 5e-6  # mole fraction of carbon dioxide where nothing is said; steps in which it counts
LEAVES, NITROGEN, INTERNAL = 3.0, 0.035, 0.12  # a usual canopy: leaf area index, leaf nitrogen, 1 − f0
RESISTANCE = SURFACE.index("surface_resistance")
DRY = 0.02  # m3 m-3 below which no soil gets; theta_s less this is the range of soil moisture
_SURFACE_TYPES = ("leaf_area_index", "n_l0", "f0", "root_depth", "albedo", "water_capacity", "water_capacity_per_leaf")
_TABLED = (*_SURFACE_TYPES, "infiltration_factor", "surface_conductance")

COEFFICIENTS = {  # of the transfer: what each is, and the deviation it may be expected to have
    "soil_resistance": 1.0,  # logarithm of a factor
    "surface_resistance": 1.0,  # logarithm of a factor
    "surface_resistance per leaf area": 0.7,  # exponents of what is known of the canopy
    "surface_resistance per nitrogen": 0.7,
    "surface_resistance per internal carbon": 0.7,
    "surface_resistance of trees": 0.7,  # logarithms of factors where all is of this type
    "surface_resistance of C4": 0.7,
    "surface_resistance per carbon dioxide": 0.7,  # exponent; leaves close where there is more
    "vegetation_cover": 1.0,  # added to the logit
    "root_fraction per layer": 0.4,  # logarithm of a factor per layer down
    "infiltration_factor": 1.0,
    "canopy_capacity": 1.0,
    "albedo": 0.5,
}


@dataclass(frozen=True, eq=False)
class Surface:
    """What a cell's surface types come to, (cell): shares of the cell, and means weighted by the light leaves take.

    types    (type, cell) shares: trees, C4 grass, shrub, bare soil
    """

    cover: np.ndarray
    leaf_area_index: np.ndarray
    nitrogen: np.ndarray
    internal: np.ndarray  # 1 − f0: how far below the air's the leaves' carbon dioxide is, which sets their conductance
    root_fraction: np.ndarray  # (layer, cell)
    root_depth: np.ndarray
    albedo: np.ndarray
    canopy_capacity: np.ndarray
    infiltration_factor: np.ndarray
    soil_conductance: np.ndarray  # m s-1
    types: np.ndarray

    @classmethod
    def of(cls, parameters: xr.Dataset) -> Surface:
        """Of parameters as `twin.parameters.assemble` makes them; their leaves are the year's mean."""
        check_present(parameters, ("tile_fraction", "soil_albedo"), "parameters")
        share = parameters["tile_fraction"].transpose("tile", "cell").values.astype(np.float64)
        table = {name: _by_tile(parameters, name) for name in _TABLED}
        soil_albedo = np.broadcast_to(parameters["soil_albedo"].values, share.shape[1:])
        leaves = table["leaf_area_index"]
        taken = 1.0 - np.exp(-0.5 * leaves)
        vegetated = np.where(np.arange(len(TILES))[:, None] < VEGETATED, share * taken, 0.0)
        weight = vegetated + 1e-9 * (np.arange(len(TILES))[:, None] < VEGETATED)
        weight = weight / weight.sum(axis=0)

        def mean(name: str) -> np.ndarray:
            return (np.nan_to_num(table[name]) * weight).sum(axis=0)

        depths = np.where(np.isfinite(table["root_depth"]), table["root_depth"], 0.5)
        dense = np.where(np.isfinite(table["albedo"]), table["albedo"], soil_albedo)
        bare = np.where(np.arange(len(TILES))[:, None] < VEGETATED, soil_albedo, dense)
        held = table["water_capacity"] + table["water_capacity_per_leaf"] * leaves
        at = {name: TILES.index(name) for name in TILES}
        return cls(
            vegetated.sum(axis=0),
            mean("leaf_area_index"),
            mean("n_l0"),
            1.0 - mean("f0"),
            (root_fractions(depths) * weight).sum(axis=1),
            mean("root_depth"),
            (share * (taken * dense + (1.0 - taken) * bare)).sum(axis=0),
            np.maximum((share * held).sum(axis=0), 0.01),
            (share * table["infiltration_factor"]).sum(axis=0),
            table["surface_conductance"][at["bare_soil"]],
            np.stack(
                [
                    share[at["broadleaf_tree"]] + share[at["needleleaf_tree"]],
                    share[at["c4_grass"]],
                    share[at["shrub"]],
                    share[at["bare_soil"]],
                ]
            ),
        )


@cache
def _table() -> dict[str, np.ndarray]:
    """The published numbers of every type, (tile)."""
    table = tile_parameters()
    return {name: table[name].values for name in _TABLED}


def _by_tile(parameters: xr.Dataset, name: str) -> np.ndarray:
    """A parameter of the surface types as (tile, cell): that of the parameters, or the table's."""
    array = _table()[name]
    if name in parameters:
        values = parameters[name].mean("month") if "month" in parameters[name].dims else parameters[name]
        array = values.transpose("tile", "cell", missing_dims="ignore").values.astype(np.float64)
    shape = len(TILES), parameters.sizes["cell"]
    return np.broadcast_to(array if array.ndim == 2 else array[:, None], shape)


@dataclass(frozen=True)
class Transfer:
    """Coefficients in the order of COEFFICIENTS; zeros take every surface for what its types say."""

    values: tuple[float, ...] = field(default=(0.0,) * len(COEFFICIENTS))

    def parameters(self, given: xr.Dataset) -> xr.Dataset:
        """The parameters of `LandDaily` for a place with surface types; soil as it is, lat and lon kept."""
        surfaces, roots = self.of(Surface.of(given))  # under the carbon dioxide of PRESENT
        soil = {name: given[name].variable for name in SOIL if name != "root_fraction"}
        daily = xr.Dataset({**soil, **{name: ("cell", row) for name, row in zip(SURFACE, surfaces, strict=True)}})
        daily["root_fraction"] = ("layer", "cell"), roots
        return daily.assign_coords({name: given[name] for name in ("lat", "lon") if name in given.coords})

    def resistance_under(self, carbon_dioxide: np.ndarray) -> np.ndarray:
        """Factor on `surface_resistance` under a mole fraction of carbon dioxide, which counts in steps of NOTICED."""
        exponent = dict(zip(COEFFICIENTS, self.values, strict=True))["surface_resistance per carbon dioxide"]
        return (np.round(carbon_dioxide / NOTICED) * NOTICED / PRESENT) ** exponent

    def of(self, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
        """What the daily physics needs to know of a surface: (6, cell) in the order of SURFACE, roots (layer, cell)."""
        x = dict(zip(COEFFICIENTS, self.values, strict=True))
        # a place without leaves has the usual canopy: its cover is nothing, so that it does not matter
        canopy = np.where(surface.leaf_area_index > 0.0, surface.leaf_area_index, LEAVES)
        resistance = (
            x["surface_resistance"]
            + x["surface_resistance per leaf area"] * np.log(canopy / LEAVES)
            + x["surface_resistance per nitrogen"] * np.log(np.maximum(surface.nitrogen, 1e-3) / NITROGEN)
            + x["surface_resistance per internal carbon"] * np.log(np.maximum(surface.internal, 1e-3) / INTERNAL)
            + x["surface_resistance of trees"] * surface.types[0]
            + x["surface_resistance of C4"] * surface.types[1]
        )
        cover = np.clip(surface.cover, 1e-6, 0.999)
        cover = cover * np.exp(x["vegetation_cover"]) / (1.0 - cover + cover * np.exp(x["vegetation_cover"]))
        roots = surface.root_fraction * np.exp(x["root_fraction per layer"] * np.arange(len(LAYERS)))[:, None]
        values = {
            "surface_resistance": GRASS["surface_resistance"][0] * np.exp(resistance),
            "soil_resistance": np.exp(x["soil_resistance"]) / surface.soil_conductance,
            "vegetation_cover": cover,
            "infiltration_factor": surface.infiltration_factor * np.exp(x["infiltration_factor"]),
            "canopy_capacity": surface.canopy_capacity * np.exp(x["canopy_capacity"]),
            "albedo": np.minimum(surface.albedo * np.exp(x["albedo"]), 0.9),
        }
        return np.stack([values[name] for name in SURFACE]), roots / roots.sum(axis=0)


@dataclass(frozen=True, eq=False)
class Case:
    """A run of the sub-daily model to be followed: how it started, under what, and the soil moisture it came to.

    state, forcing, parameters   as `LandModel.run` takes them, daily forcing
    theta                        (time, layer, cell), m3 m-3, at the end of each day
    """

    state: xr.Dataset
    forcing: xr.Dataset
    parameters: xr.Dataset
    theta: np.ndarray


def values_of(ds: xr.Dataset, name: str, *dims: str) -> np.ndarray:
    """A variable's values in this order of dims, those it does not have left out; without the cost of a DataArray."""
    variable = ds.variables[name]
    return variable.values if variable.dims == dims else variable.transpose(*dims, missing_dims="ignore").values


def carbon_of(forcing: xr.Dataset) -> np.ndarray:
    """Mole fraction of carbon dioxide on each day, (time)."""
    if CARBON_DIOXIDE not in forcing:
        return np.full(forcing.sizes["time"], PRESENT)
    return np.asarray(forcing.variables[CARBON_DIOXIDE].values, np.float64)


def start_of(state: xr.Dataset, tile_fraction: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the daily physics needs of a state: theta (layer, cell), and of leaves and snow the cells' means (cell)."""
    values = [values_of(state, THETA, "layer", "cell")]
    for name in (CANOPY, SNOW):
        held = values_of(state, name, "tile", "cell")
        values.append((held * tile_fraction).sum(axis=0) if held.ndim == 2 else held)
    return tuple(values)


def soil_of(parameters: xr.Dataset) -> np.ndarray:
    """Soil constants in the order of SOIL but for the roots, (6, layer, cell) float64."""
    shape = len(LAYERS), parameters.sizes["cell"]
    names = [name for name in SOIL if name != "root_fraction"]
    found = (values_of(parameters, name, "layer", "cell") for name in names)
    return np.stack([np.broadcast_to(values, shape) for values in found])


def span(parameters: xr.Dataset) -> np.ndarray:
    """Range of soil moisture in each layer, θ_s − 0.02, (layer, cell), m3 m-3: the unit of relative errors."""
    pores = parameters["theta_s"].transpose("layer", "cell", missing_dims="ignore").values
    return np.broadcast_to(pores, (len(LAYERS), parameters.sizes["cell"])) - DRY


def fit(cases: Sequence[Case], skip: int = 180, every: int = 5) -> Transfer:
    """The transfer under which the daily physics follows the cases best, in the root zone above all.

    skip    days after the start that do not count; every n-th later day does
    Errors are relative to the range of soil moisture, and to a tenth of it in the top layer, whose course within the
    day a daily step cannot follow; coefficients are held near nought by their expected deviation. Raises RangeError for
    cases too short to count.
    """
    weights = np.array([0.15, 1.0, 1.0, 1.0])[:, None]
    scales = np.array(list(COEFFICIENTS.values()))
    days = sum(len(range(skip, case.theta.shape[0], every)) for case in cases)
    if days == 0:
        found = ", ".join(str(case.theta.shape[0]) for case in cases[:5]) or "no case"
        raise RangeError("days of the runs to follow", expected=f"more than {skip}", found=found)
    known = [
        (
            case,
            Surface.of(case.parameters),
            soil_of(case.parameters),
            start_of(case.state, values_of(case.parameters, "tile_fraction", "tile", "cell")),
            [values_of(case.forcing, name, "time", "cell") for name in FORCING],
            carbon_of(case.forcing).mean(keepdims=True),
            weights / (0.02 * span(case.parameters)),
        )
        for case in cases
    ]
    size = sum(len(range(skip, case.theta.shape[0], every)) * case.theta[0].size for case in cases)
    threads = os.cpu_count() or 1

    def residuals(one_more: np.ndarray) -> np.ndarray:
        x = one_more - 1.0  # the solver's steps are relative to what it is given, and there are none from nought
        transfer, parts = Transfer(tuple(x * scales)), []
        for case, surface, soil, start, weather, carbon, weight in known:
            surfaces, roots = transfer.of(surface)
            surfaces[RESISTANCE] *= transfer.resistance_under(carbon)
            _, (theta, *_) = through(weather, start, np.concatenate([soil, roots[None]]), surfaces, threads)
            parts.append((weight * (theta - case.theta)[skip::every]).ravel())
        # the fit is as sure as if a hundred errors of 2 % were independent: neighbouring days and layers are not
        return np.concatenate([np.concatenate(parts) * np.sqrt(100.0 / size), 0.3 * x])

    found = least_squares(residuals, np.ones(len(scales)), bounds=(-2.0, 4.0), diff_step=0.05, max_nfev=10)
    return Transfer(tuple(float(value) for value in (found.x - 1.0) * scales))
