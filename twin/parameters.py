"""From soil texture to the parameters of the land model.

Refs: Cosby et al. (1984), Water Resour. Res. 20, 682; Clapp & Hornberger (1978), Water Resour. Res. 14, 601;
Best et al. (2011), Geosci. Model Dev. 4, 677; Allen et al. (1998), FAO Irrigation and Drainage Paper 56.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from twin.errors import RangeError, SettingsError
from twin.variables import LAYERS


@dataclass(frozen=True)
class Pedotransfer:
    """Coefficients κ1..κ12 of Cosby's regressions on clay c and sand s (fractions).

    b   = κ1 + κ2 c − κ3 s              θ_s = κ10 − κ11 c − κ12 s
    ψ_s = 0.01 base^(κ4 − κ5 c − κ6 s)   m        K_s = base^(κ7 − κ8 c + κ9 s)   kg m-2 s-1
    """

    kappa: tuple[float, ...]
    base: float


_COSBY = (3.10, 15.70, 0.30, 2.17, 0.63, 1.58, -2.75, 0.64, 1.26, 0.505, 0.037, 0.142)

VARIANTS = {
    "cosby": Pedotransfer(_COSBY, 10.0),
    # the same regression read with exp() and another intercept reproduces the Met Office's ancillaries for JULES
    "cosby-um": Pedotransfer((*_COSBY[:6], -5.55, *_COSBY[7:]), float(np.e)),
}

BOUNDS = {"b": (1.5, 20.0), "psi_s": (0.005, 2.0), "K_s": (1e-5, 0.2), "theta_s": (0.25, 0.65)}
CRITICAL, WILTING = 3.364, 152.9  # suction where stress begins (33 kPa) and ends in wilting (1500 kPa), m

_UNITS = {"b": "1", "psi_s": "m", "K_s": "kg m-2 s-1", "theta_s": "m3 m-3", "theta_c": "m3 m-3", "theta_w": "m3 m-3"}

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


def from_texture(sand: ArrayLike, silt: ArrayLike, clay: ArrayLike, variant: str = "cosby") -> xr.Dataset:
    """Soil and grass parameters of each cell, dims (cell) and (layer, cell), float64.

    sand, silt, clay   fractions of the fine earth (cell); they may add up to anything from 0.9 to 1.1
    variant            a name in VARIANTS
    returns            b, psi_s, K_s, theta_s, theta_c, theta_w, root_fraction and the constants of GRASS; attributes
                       `clipped_b` and so on count the cells held at a bound of BOUNDS
    Raises RangeError for texture that is no fraction or missing, SettingsError for an unknown variant.
    """
    if variant not in VARIANTS:
        raise SettingsError("pedotransfer variant", expected=", ".join(VARIANTS), found=repr(variant))
    s, u, c = (np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (sand, silt, clay))
    _check_texture(s, u, c)
    raw = hydraulics(s, c, VARIANTS[variant])
    values = {name: np.clip(raw[name], *BOUNDS[name]) for name in BOUNDS}
    clipped = {f"clipped_{name}": int((values[name] != raw[name]).sum()) for name in BOUNDS}
    for name, suction in (("theta_c", CRITICAL), ("theta_w", WILTING)):
        values[name] = values["theta_s"] * np.minimum(values["psi_s"] / suction, 1.0) ** (1.0 / values["b"])
    ds = xr.Dataset({name: ("cell", values[name], {"units": _UNITS[name]}) for name in _UNITS})
    ds = ds.assign(vegetation(s.size).data_vars)
    where = {
        name: sand.coords[name] for name in ("lat", "lon") if isinstance(sand, xr.DataArray) and name in sand.coords
    }
    return ds.assign_coords(where).assign_attrs(pedotransfer=variant, **clipped)


def hydraulics(sand: np.ndarray, clay: np.ndarray, pedotransfer: Pedotransfer) -> dict[str, np.ndarray]:
    """b (1), psi_s (m), K_s (kg m-2 s-1) and theta_s (m3 m-3) as the regressions give them, not clipped."""
    k, base = pedotransfer.kappa, pedotransfer.base
    return {
        "b": k[0] + k[1] * clay - k[2] * sand,
        "psi_s": 0.01 * base ** (k[3] - k[4] * clay - k[5] * sand),
        "K_s": base ** (k[6] - k[7] * clay + k[8] * sand),
        "theta_s": k[9] - k[10] * clay - k[11] * sand,
    }


def root_fractions(depth: float = GRASS_ROOTS) -> np.ndarray:
    """Share of the roots in each layer (4,), as JULES computes it: e-folding `depth` (m), none below the soil.

    The published form (Best et al. 2011) decays twice as fast; this one is what JULES vn5.2 does.
    """
    edges = np.concatenate([[0.0], np.cumsum(LAYERS)])
    return -np.diff(np.exp(-edges / depth)) / (1.0 - np.exp(-edges[-1] / depth))


def vegetation(cells: int) -> xr.Dataset:
    """The grass reference crop in every cell."""
    roots = np.repeat(root_fractions()[:, None], cells, axis=1)
    constants = {name: ("cell", np.full(cells, value), {"units": units}) for name, (value, units) in GRASS.items()}
    return xr.Dataset({"root_fraction": (("layer", "cell"), roots, {"units": "1"}), **constants})


def _check_texture(sand: np.ndarray, silt: np.ndarray, clay: np.ndarray) -> None:
    for name, part in (("sand", sand), ("silt", silt), ("clay", clay)):
        wrong = ~((part >= 0.0) & (part <= 1.0))
        if wrong.any():
            cell = int(np.argmax(wrong))
            raise RangeError(f"'{name}'", expected="a fraction, 0 to 1", found=part[cell], where=f"cell {cell}")
    total = sand + silt + clay
    wrong = np.abs(total - 1.0) > 0.1
    if wrong.any():
        cell = int(np.argmax(wrong))
        raise RangeError("sand + silt + clay", expected="0.9 to 1.1", found=f"{total[cell]:.3f}", where=f"cell {cell}")
