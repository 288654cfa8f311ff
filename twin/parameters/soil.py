"""Soil parameters from texture, and the grass of the daily tier.

Two retention curves, S = θ/θ_s the saturation, ψ the suction (m); the models use one pair (b, ψ_s) for both:

    brooks-corey     S = (ψ_s/ψ)^(1/b)                 Cosby's regressions, after Clapp & Hornberger
    van-genuchten    S = [1 + (ψ/ψ_s)^n]^(−m)          Tóth's, with b = 1/(n − 1), ψ_s = 1/α, m = 1 − 1/n

θ is the water that moves. What van Genuchten's curve never gives up, θ_r, is kept apart: θ_s, θ_c and θ_w are net of
it, and a measured volume is θ + θ_r. Brooks and Corey's curve leaves nothing behind, θ_r = 0.

Refs: Cosby et al. (1984), Water Resour. Res. 20, 682; Clapp & Hornberger (1978), Water Resour. Res. 14, 601; van
Genuchten (1980), Soil Sci. Soc. Am. J. 44, 892; Tóth et al. (2015), Eur. J. Soil Sci. 66, 226; Best et al. (2011),
Geosci. Model Dev. 4, 677; Dharssi et al. (2009), Met Office Forecasting R&D Tech. Rep. 528; Allen et al. (1998), FAO
Irrigation and Drainage Paper 56.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import RangeError, SettingsError, VariableError
from twin.variables import LAYERS

BROOKS_COREY, VAN_GENUCHTEN = "brooks-corey", "van-genuchten"
CRITICAL, WILTING = 3.364, 152.9  # suction where stress begins (33 kPa) and ends in wilting (1500 kPa), m
TOPSOIL = 0.3  # depth to which a layer counts as topsoil in Tóth et al. (2015), by its middle, m
SOIL_ALBEDO = 0.17  # of soil of medium colour (Essery et al. 2001, after Wilson & Henderson-Sellers 1985)

_UNITS = {
    "b": "1",
    "psi_s": "m",
    "K_s": "kg m-2 s-1",
    "theta_s": "m3 m-3",
    "theta_c": "m3 m-3",
    "theta_w": "m3 m-3",
    "theta_r": "m3 m-3",
    "heat_capacity": "J m-3 K-1",
    "heat_conductivity": "W m-1 K-1",
}


class Soil(NamedTuple):
    """What a pedotransfer function may read: fractions of the fine earth, kg m-3, kg kg-1; any one shape."""

    sand: np.ndarray
    silt: np.ndarray
    clay: np.ndarray
    topsoil: np.ndarray  # bool
    bulk_density: np.ndarray
    organic_carbon: np.ndarray


# --- Cosby ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pedotransfer:
    """Coefficients κ1..κ12 of Cosby's regressions on clay c and sand s (fractions).

    b   = κ1 + κ2 c − κ3 s              θ_s = κ10 − κ11 c − κ12 s
    ψ_s = 0.01 base^(κ4 − κ5 c − κ6 s)   m        K_s = base^(κ7 − κ8 c + κ9 s)   kg m-2 s-1
    """

    kappa: tuple[float, ...]
    base: float


COSBY = Pedotransfer((3.10, 15.70, 0.30, 2.17, 0.63, 1.58, -2.75, 0.64, 1.26, 0.505, 0.037, 0.142), 10.0)
# the same regression read with exp() and another intercept reproduces the Met Office's ancillaries for JULES
COSBY_UM = Pedotransfer((*COSBY.kappa[:6], -5.55, *COSBY.kappa[7:]), math.e)


def hydraulics(sand: np.ndarray, clay: np.ndarray, pedotransfer: Pedotransfer) -> dict[str, np.ndarray]:
    """b (1), psi_s (m), K_s (kg m-2 s-1) and theta_s (m3 m-3) as the regressions give them, not clipped."""
    k, base = pedotransfer.kappa, pedotransfer.base
    return {
        "b": k[0] + k[1] * clay - k[2] * sand,
        "psi_s": 0.01 * base ** (k[3] - k[4] * clay - k[5] * sand),
        "K_s": base ** (k[6] - k[7] * clay + k[8] * sand),
        "theta_s": k[9] - k[10] * clay - k[11] * sand,
    }


def _cosby(pedotransfer: Pedotransfer, soil: Soil) -> dict[str, np.ndarray]:
    return {**hydraulics(soil.sand, soil.clay, pedotransfer), "theta_r": np.zeros_like(soil.sand)}


# --- Tóth -----------------------------------------------------------------------------------------------------------
FAO_CLASSES = ("coarse", "medium", "medium fine", "fine", "very fine", "organic")
_ORGANIC = FAO_CLASSES.index("organic")

# θ_r, θ_s (m3 m-3), α (cm-1), n (PTF 18) and log10 K_s (cm day-1; PTF 13) of each FAO class
_TOTH_TOPSOIL = (
    (0.044977, 0.438405, 0.047782, 1.344681, 1.142137),
    (0.0, 0.459179, 0.030930, 1.191997, 2.229200),
    (0.0, 0.432268, 0.009386, 1.211927, 1.142137),
    (0.0, 0.478315, 0.040344, 1.117633, 1.142137),
    (0.0, 0.521940, 0.011209, 1.143264, 1.142137),
    (0.111491, 0.696872, 0.006924, 1.468795, 1.142137),
)
_TOTH_SUBSOIL = (
    (0.056946, 0.404033, 0.042609, 1.534864, 0.765527),
    (0.0, 0.428037, 0.034684, 1.172461, 0.765527),
    (0.0, 0.417551, 0.006565, 1.217271, 0.765527),
    (0.0, 0.430075, 0.001069, 1.229015, 0.006746),
    (0.0, 0.510736, 0.000244, 1.404836, 0.006746),
    (0.0, 0.835263, 0.011310, 1.225589, 0.765527),
)
_CM_PER_DAY = 10.0 / 86400.0  # in kg m-2 s-1


def fao_class(soil: Soil) -> np.ndarray:
    """Position in FAO_CLASSES of each texture; organic where the carbon makes it so and is known.

    Refs: texture as in Wösten et al. (1999), Geoderma 90, 169; organic as in the World Reference Base.
    """
    organic = soil.organic_carbon >= np.where(soil.clay < 0.6, 0.12 + 0.1 * soil.clay, 0.18)
    return np.select(
        [organic, soil.clay >= 0.6, soil.clay >= 0.35, soil.sand < 0.15, (soil.clay < 0.18) & (soil.sand > 0.65)],
        [_ORGANIC, 4, 3, 2, 0],
        default=1,
    )


def _toth_classes(soil: Soil) -> dict[str, np.ndarray]:
    """Mualem-van Genuchten parameters of the FAO class (PTF 18), conductivity by regression tree (PTF 13)."""
    table = np.array([_TOTH_SUBSOIL, _TOTH_TOPSOIL])
    theta_r, theta_s, alpha, n, log_k = np.moveaxis(table[soil.topsoil.astype(int), fao_class(soil)], -1, 0)
    return _van_genuchten(theta_r, theta_s, alpha, n, log_k)


def _toth(soil: Soil) -> dict[str, np.ndarray]:
    """Linear regressions for mineral soil (PTF 21); the conductivity, and organic soil, by class."""
    density, carbon = 1e-3 * soil.bulk_density, 100.0 * soil.organic_carbon
    clay, silt, top = 100.0 * soil.clay, 100.0 * soil.silt, soil.topsoil
    theta_r = np.where(soil.sand < 0.02, 0.179, 0.040732)
    theta_s = 0.8308066 - 0.2821713 * density + 0.0002727767 * clay + 0.000186933 * silt
    log_alpha = (
        -0.4334815 - 0.4172921 * density - 0.04761893 * carbon + 0.2181032 * top - 0.01581369 * clay - 0.0120719 * silt
    )
    log_n = (
        0.2223588
        - 0.3018908 * density
        - 0.05557731 * top
        - 0.005305786 * clay
        - 0.003084333 * silt
        - 0.01072148 * carbon
    )
    by_class = _toth_classes(soil)
    regressed = _van_genuchten(theta_r, theta_s, 10.0**log_alpha, 1.0 + 10.0**log_n, 0.0)
    regressed["K_s"] = by_class["K_s"]
    organic = fao_class(soil) == _ORGANIC
    return {name: np.where(organic, by_class[name], regressed[name]) for name in regressed}


def _van_genuchten(theta_r, theta_s, alpha, n, log_k) -> dict[str, np.ndarray]:
    """The models' parameters from the literature's; α in cm-1, K_s in cm day-1 (log10)."""
    return {
        "b": 1.0 / (n - 1.0),
        "psi_s": 0.01 / alpha,
        "K_s": _CM_PER_DAY * 10.0**log_k,
        "theta_s": theta_s - theta_r,
        "theta_r": theta_r,
    }


# --- variants -------------------------------------------------------------------------------------------------------
BOUNDS = {"b": (1.5, 20.0), "psi_s": (0.005, 2.0), "K_s": (1e-5, 0.2), "theta_s": (0.25, 0.65)}
BOUNDS_VAN_GENUCHTEN = {"b": (0.2, 20.0), "psi_s": (0.005, 50.0), "K_s": (1e-5, 0.2), "theta_s": (0.2, 0.9)}


@dataclass(frozen=True)
class Variant:
    """A named way from texture to parameters: its function, retention curve, bounds and what it needs to know."""

    function: Callable[[Soil], dict[str, np.ndarray]]
    retention: str = BROOKS_COREY
    bounds: dict[str, tuple[float, float]] = field(default_factory=lambda: BOUNDS)
    needs: tuple[str, ...] = ()


VARIANTS = {
    "cosby": Variant(partial(_cosby, COSBY)),
    "cosby-um": Variant(partial(_cosby, COSBY_UM)),
    "toth": Variant(_toth, VAN_GENUCHTEN, BOUNDS_VAN_GENUCHTEN, ("bulk_density", "organic_carbon")),
    "toth-class": Variant(_toth_classes, VAN_GENUCHTEN, BOUNDS_VAN_GENUCHTEN),
}


def water_content(
    suction: ArrayLike, b: np.ndarray, psi_s: np.ndarray, theta_s: np.ndarray, retention: str
) -> np.ndarray:
    """Mobile water θ held at a suction (m, above 0), m3 m-3: the retention curves of this module's docstring."""
    if retention == BROOKS_COREY:
        return theta_s * np.minimum(psi_s / suction, 1.0) ** (1.0 / b)
    if retention == VAN_GENUCHTEN:
        return theta_s * (1.0 + (suction / psi_s) ** (1.0 + 1.0 / b)) ** (-1.0 / (b + 1.0))
    raise SettingsError("retention curve", expected=f"{BROOKS_COREY} or {VAN_GENUCHTEN}", found=repr(retention))


def dry_heat(porosity: np.ndarray, clay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heat capacity (J m-3 K-1) and conductivity (W m-1 K-1) of the dry soil.

    The solid is clay or not: capacities 2.373e6 and 2.133e6, added; conductivities 1.16025 and 1.57025, with 0.025 of
    the air in the pores, as geometric mean. Ref: Dharssi et al. (2009).
    """
    solid = 1.0 - porosity
    capacity = solid * (2.373e6 * clay + 2.133e6 * (1.0 - clay))
    return capacity, 0.025**porosity * 1.16025 ** (solid * clay) * 1.57025 ** (solid * (1.0 - clay))


def soil_from_texture(
    sand: ArrayLike,
    silt: ArrayLike,
    clay: ArrayLike,
    variant: str = "cosby",
    *,
    bulk_density: ArrayLike | None = None,
    organic_carbon: ArrayLike | None = None,
    soil_albedo: ArrayLike = SOIL_ALBEDO,
) -> xr.Dataset:
    """Soil parameters of each cell, dims (cell) or (layer, cell) as the texture, float64; soil_albedo (cell).

    sand, silt, clay   fractions of the fine earth, (cell) or (layer, cell); they may add up to anything from 0.9 to 1.1
    variant            a name in VARIANTS. Tóth's tell topsoil from subsoil, so their results have layers always
    bulk_density       kg m-3, and organic_carbon, kg kg-1: needed by "toth", (cell) or (layer, cell)
    returns            b, psi_s, K_s, theta_s, theta_c, theta_w, theta_r, heat_capacity, heat_conductivity, soil_albedo;
                       attributes pedotransfer and retention name the curve, `clipped_b` and so on count the cells held
                       at a bound
    Raises VariableError for other dims, RangeError for texture that is no fraction or missing, SettingsError for an
    unknown variant or one that needs more than it was given.
    """
    if variant not in VARIANTS:
        raise SettingsError("pedotransfer variant", expected=", ".join(VARIANTS), found=repr(variant))
    chosen = VARIANTS[variant]
    known = {"bulk_density": bulk_density, "organic_carbon": organic_carbon}
    missing = [name for name in chosen.needs if known[name] is None]
    if missing:
        raise SettingsError(f"pedotransfer '{variant}'", expected=" and ".join(chosen.needs), found=f"no {missing[0]}")
    soil = _soil(sand, silt, clay, bulk_density, organic_carbon, layered=chosen.retention == VAN_GENUCHTEN)
    raw = chosen.function(soil)
    values = {name: np.clip(raw[name], *limits) for name, limits in chosen.bounds.items()}
    at_bound = {name: values[name] != raw[name] for name in values}
    values["theta_r"] = raw["theta_r"]
    values |= dependent(values, soil.clay, chosen.retention)
    dims = ("layer", "cell")[-soil.clay.ndim :]
    ds = xr.Dataset({name: (dims, values[name], {"units": units}) for name, units in _UNITS.items()})
    ds["soil_albedo"] = ("cell", _albedo(soil_albedo, ds.sizes["cell"]), {"units": "1"})
    clipped = {f"clipped_{name}": int(np.atleast_2d(held).any(axis=0).sum()) for name, held in at_bound.items()}
    return ds.assign_attrs(pedotransfer=variant, retention=chosen.retention, **clipped)


def dependent(hydraulic: Mapping[str, np.ndarray], clay: np.ndarray, retention: str) -> dict[str, np.ndarray]:
    """What follows from b, psi_s, theta_s and theta_r: theta_c, theta_w, and heat capacity, conductivity when dry."""
    b, psi_s, theta_s = (hydraulic[name] for name in ("b", "psi_s", "theta_s"))
    points = (("theta_c", CRITICAL), ("theta_w", WILTING))
    values = {name: water_content(suction, b, psi_s, theta_s, retention) for name, suction in points}
    values["heat_capacity"], values["heat_conductivity"] = dry_heat(theta_s + hydraulic["theta_r"], clay)
    return values


def clipping(parameters: xr.Dataset) -> str:
    """One line for a log: which pedotransfer, and how many cells it holds at a bound."""
    counts = {name[8:]: n for name, n in parameters.attrs.items() if str(name).startswith("clipped_") and n}
    held = ", ".join(f"{name} in {n}" for name, n in counts.items()) or "none"
    return f"{parameters.attrs['pedotransfer']}, {parameters.sizes['cell']} cells, at a bound: {held}"


def _soil(sand, silt, clay, bulk_density, organic_carbon, *, layered: bool) -> Soil:
    """Checked arrays of one shape, (cell) or (layer, cell); density and carbon are NaN if not known."""
    s, u, c = (np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (sand, silt, clay))
    if not s.shape == u.shape == c.shape or s.shape[:-1] not in ((), (len(LAYERS),)):
        found = " ".join(str(part.shape) for part in (s, u, c))
        raise VariableError("shapes of sand, silt, clay", expected=f"(cell) or ({len(LAYERS)}, cell)", found=found)
    _check_texture(s, u, c)
    rest = []
    for name, part, high in (("bulk_density", bulk_density, 2700.0), ("organic_carbon", organic_carbon, 0.65)):
        values = np.full(s.shape, np.nan) if part is None else np.asarray(part, dtype=np.float64)
        if part is not None:
            _check_range(f"'{name}'", values, 0.0, high)
        rest.append(values)
    top = np.ones(s.shape, dtype=bool)
    if layered or s.ndim == 2:
        depth = np.cumsum(LAYERS) - 0.5 * np.array(LAYERS)
        s, u, c, *rest = (np.broadcast_to(part, (len(LAYERS), s.shape[-1])) for part in (s, u, c, *rest))
        top = np.broadcast_to((depth < TOPSOIL)[:, None], s.shape)
    return Soil(s, u, c, top, *rest)


def _albedo(soil_albedo: ArrayLike, cells: int) -> np.ndarray:
    values = np.broadcast_to(np.asarray(soil_albedo, dtype=np.float64), (cells,)).copy()
    _check_range("'soil_albedo'", values, 0.0, 1.0)
    return values


def _check_texture(sand: np.ndarray, silt: np.ndarray, clay: np.ndarray) -> None:
    for name, part in (("'sand'", sand), ("'silt'", silt), ("'clay'", clay)):
        _check_range(name, part, 0.0, 1.0, "a fraction, 0 to 1")
    _check_range("sand + silt + clay", sand + silt + clay, 0.9, 1.1)


def _check_range(name: str, values: np.ndarray, low: float, high: float, expected: str = "") -> None:
    """Every value lies between low and high; else RangeError shows the first that does not, and its place."""
    wrong = ~((values >= low) & (values <= high))
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        where = ", ".join(f"{dim} {i}" for dim, i in zip(("layer", "cell")[-len(at) :], at, strict=True))
        raise RangeError(name, expected=expected or f"{low:g} to {high:g}", found=f"{values[at]:g}", where=where)


# --- the grass of the daily tier ------------------------------------------------------------------------------------
# The reference crop of Allen et al. (1998): grass, 0.12 m high, LAI 24 h, albedo 0.23, surface resistance 70 s m-1.
GRASS_LAI = 24 * 0.12
GRASS = {
    "canopy_capacity": ((1 - np.exp(-0.5 * GRASS_LAI)) * (0.5 + 0.05 * GRASS_LAI), "kg m-2"),  # Best et al. (2011)
    "vegetation_cover": (1 - np.exp(-0.5 * GRASS_LAI), "1"),  # Best et al. (2011)
    "albedo": (0.23, "1"),
    "surface_resistance": (70.0, "s m-1"),
    "soil_resistance": (100.0, "s m-1"),  # of bare soil at the critical point: 1/0.01 m s-1, Best et al. (2011)
    "infiltration_factor": (2.0, "1"),  # of grass, on K_s, Best et al. (2011)
}
GRASS_ROOTS = 0.5  # e-folding depth of the roots, m (C3 grass in JULES)


def from_texture(sand: ArrayLike, silt: ArrayLike, clay: ArrayLike, variant: str = "cosby", **known: Any) -> xr.Dataset:
    """What the daily tier needs: `soil_from_texture`, with the root_fraction and the constants of its GRASS.

    known   bulk_density, organic_carbon, soil_albedo; lat and lon of `sand` are kept
    """
    ds = soil_from_texture(sand, silt, clay, variant, **known)
    where = {
        name: sand.coords[name] for name in ("lat", "lon") if isinstance(sand, xr.DataArray) and name in sand.coords
    }
    return ds.assign(vegetation(ds.sizes["cell"]).data_vars).assign_coords(where)


def root_fractions(depth: ArrayLike = GRASS_ROOTS) -> np.ndarray:
    """Share of the roots in each layer (4, …), as JULES computes it: e-folding `depth` (m), none below the soil.

    The published form (Best et al. 2011) decays twice as fast; this one is what JULES vn5.2 does.
    """
    edges = np.concatenate([[0.0], np.cumsum(LAYERS)])
    reach = np.exp(-np.divide.outer(edges, depth))
    return -np.diff(reach, axis=0) / (1.0 - reach[-1])


def vegetation(cells: int) -> xr.Dataset:
    """The grass reference crop in every cell."""
    roots = np.repeat(root_fractions()[:, None], cells, axis=1)
    constants = {name: ("cell", np.full(cells, value), {"units": units}) for name, (value, units) in GRASS.items()}
    return xr.Dataset({"root_fraction": (("layer", "cell"), roots, {"units": "1"}), **constants})
