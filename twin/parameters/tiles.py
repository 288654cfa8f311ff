"""The nine surface types of a cell and the published numbers of each; read by the land model, never changed.

Vegetation first, in the order of Best et al. (2011). Formulas that hold for every type, with zeros where a term does
not apply (L is the leaf area index, h the canopy height):

    z_0 = roughness_length + roughness_ratio h       C_m = water_capacity + water_capacity_per_leaf L
    z_0h = thermal_roughness_ratio z_0               C_s = heat_capacity_of_surface + canopy_heat_capacity

Where the papers' numbers do not give what JULES 5.2 gives, the number is one that does (source "output of JULES 5.2").
Regression of its net radiation gives the emissivity of bare soil, of vegetation (in cells of one type, rounded to 0.01)
and, with those, the albedo of vegetation (over 190 mixed cells). Its sensible heat flux in wind fixes only the
exchange, not momentum and heat apart: the pair of roughness lengths is a choice that meets it to some 10 %.

Refs: Best et al. (2011), Geosci. Model Dev. 4, 677; Clark et al. (2011), Geosci. Model Dev. 4, 701; Essery et al.
(2001), Hadley Centre Technical Note 30; Cox (2001), Hadley Centre Technical Note 24.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

TILES = (
    "broadleaf_tree",
    "needleleaf_tree",
    "c3_grass",
    "c4_grass",
    "shrub",
    "urban",
    "lake",
    "bare_soil",
    "ice",
)
VEGETATED = 5  # the first five have leaves
LEAF_HEAT, WOOD_HEAT = 5.7e4, 1.1e4  # heat capacity of leaves and wood, J K-1 per kg of carbon (Essery et al. 2001)

NONE = float("nan")  # has no meaning for this type


@dataclass(frozen=True)
class TileParameter:
    """One parameter of every surface type, in the order of TILES."""

    name: str
    units: str
    long_name: str
    source: str
    values: tuple[float, ...]


def _row(name: str, units: str, long_name: str, source: str, leaves: object, rest: object) -> TileParameter:
    """A row from the values of the five kinds of vegetation and of the four others (one number stands for all)."""
    spread = (*np.broadcast_to(np.asarray(leaves, float), 5), *np.broadcast_to(np.asarray(rest, float), 4))
    return TileParameter(name, units, long_name, source, tuple(map(float, spread)))


_BEST, _CLARK, _COX = "Best et al. (2011)", "Clark et al. (2011)", "Cox (2001)"
_ESSERY, _OUTPUT = "Essery et al. (2001)", "output of JULES 5.2"
_MIXED = f"vegetation and bare soil: {_OUTPUT}; others: {_ESSERY}"

# fmt: off
TABLE = (
    # shape; vegetation is broadleaf, needleleaf, C3, C4, shrub, the rest urban, lake, bare soil, ice
    _row("leaf_area_index", "1", "leaf area index", _COX, (5.0, 4.0, 2.0, 4.0, 1.0), 0.0),
    _row("canopy_height", "m", "height of the canopy", _COX, (19.01, 16.38, 0.79, 1.26, 1.0), 0.0),
    _row("roughness_ratio", "1", "roughness over canopy height", _ESSERY, (0.05, 0.05, 0.1, 0.1, 0.1), 0.0),
    _row("roughness_length", "m", "roughness without a canopy", _MIXED, 0.0, (1.0, 3e-4, 1e-3, 1e-4)),
    _row("thermal_roughness_ratio", "1", "roughness for heat over that for momentum", _MIXED,
         (1.65, 1.65, 0.1, 0.1, 0.1), (0.1, 0.1, 0.02, 0.1)),
    _row("sigma_l", "kg m-2", "leaf carbon per leaf area", _CLARK, (0.0375, 0.1, 0.025, 0.05, 0.05), NONE),
    _row("a_wl", "kg m-2", "woody carbon at leaf area index 1", _CLARK, (0.65, 0.65, 0.005, 0.005, 0.1), NONE),
    _row("a_ws", "1", "woody over stem carbon", _CLARK, (10.0, 10.0, 1.0, 1.0, 10.0), NONE),
    _row("b_wl", "1", "exponent of leaf area index in woody carbon", _CLARK, 5 / 3, NONE),
    _row("eta_sl", "kg m-3", "live stem carbon per leaf area and height", _CLARK, 0.01, NONE),
    _row("heat_capacity_of_surface", "J m-2 K-1", "heat capacity without a canopy", _ESSERY, 0.0,
         (2.8e5, 0.0, 0.0, 0.0)),
    # water
    _row("water_capacity", "kg m-2", "water held without leaves", _BEST, 0.5, (0.5, 0.0, 0.0, 0.0)),
    _row("water_capacity_per_leaf", "kg m-2", "water held per leaf area", _BEST, 0.05, 0.0),
    _row("infiltration_factor", "1", "on K_s, limits infiltration", _ESSERY,
         (4.0, 4.0, 2.0, 2.0, 2.0), (0.1, 0.0, 0.5, 0.0)),
    _row("root_depth", "m", "e-folding depth of the roots", _BEST, (3.0, 1.0, 0.5, 0.5, 0.5), NONE),
    _row("surface_conductance", "m s-1", "conductance without leaves, of soil at its critical point", _ESSERY,
         NONE, (0.0, 1e6, 0.01, 1e6)),
    _row("snow_conductance", "m s-1", "of 1 kg m-2 of snow, between leaves where it is sheltered", _OUTPUT,
         (1e6, 0.05, 1e6, 1e6, 1e6), 1e6),
    # light; the albedo of bare soil is that of the cell
    _row("emissivity", "1", "thermal emissivity", _MIXED, (0.98, 0.99, 0.98, 0.98, 0.98), (0.97, 0.97, 0.9, 0.97)),
    _row("k_ext", "1", "extinction of light per leaf area", _BEST, 0.5, NONE),
    _row("albedo", "1", "snow-free albedo, of dense leaves or without any", _MIXED,
         (0.143, 0.088, 0.195, 0.161, 0.12), (0.18, 0.06, NONE, 0.75)),
    _row("albedo_snow_leafless", "1", "albedo under deep snow, no leaves", _ESSERY,
         (0.3, 0.3, 0.8, 0.8, 0.8), (0.4, 0.8, 0.8, 0.8)),
    _row("albedo_snow_leafy", "1", "albedo under deep snow, dense leaves", _ESSERY,
         (0.15, 0.15, 0.6, 0.6, 0.4), (0.4, 0.8, 0.8, 0.8)),
    _row("alpha_par", "1", "leaf reflectance, visible", _BEST, (0.1, 0.07, 0.1, 0.1, 0.1), NONE),
    _row("alpha_nir", "1", "leaf reflectance, near infrared", _BEST, (0.45, 0.35, 0.58, 0.58, 0.58), NONE),
    _row("omega_par", "1", "leaf scattering, visible", _BEST, (0.15, 0.15, 0.15, 0.17, 0.15), NONE),
    _row("omega_nir", "1", "leaf scattering, near infrared", _BEST, (0.7, 0.45, 0.83, 0.83, 0.83), NONE),
    # leaf
    _row("c4", "1", "1 for C4, 0 for C3 photosynthesis", _CLARK, (0.0, 0.0, 0.0, 1.0, 0.0), NONE),
    _row("alpha", "1", "quantum efficiency, mol CO2 per mol PAR", _COX, (0.08, 0.08, 0.08, 0.04, 0.08), NONE),
    _row("omega", "1", "leaf scattering of PAR", _CLARK, (0.15, 0.15, 0.15, 0.17, 0.15), NONE),
    _row("f0", "1", "ci/ca in saturated air", _CLARK, (0.875, 0.875, 0.9, 0.8, 0.9), NONE),
    _row("dq_crit", "1", "critical humidity deficit, kg kg-1", _CLARK, (0.09, 0.06, 0.1, 0.075, 0.1), NONE),
    _row("f_d", "1", "dark respiration over V_cmax", _CLARK, (0.015, 0.015, 0.015, 0.025, 0.015), NONE),
    _row("n_l0", "1", "leaf nitrogen over leaf carbon at the top", _COX, (0.04, 0.03, 0.06, 0.03, 0.03), NONE),
    _row("n_eff", "mol m-2 s-1", "V_cmax at 25 degC per n_l0", _CLARK, (8e-4, 8e-4, 8e-4, 4e-4, 8e-4), NONE),
    _row("T_low", "degree_Celsius", "lower temperature of photosynthesis", _COX, (0.0, -5.0, 0.0, 13.0, 0.0), NONE),
    _row("T_upp", "degree_Celsius", "upper temperature of photosynthesis", _COX, (36.0, 31.0, 36.0, 45.0, 36.0), NONE),
    _row("g_min", "m s-1", "leaf conductance of closed stomata", _CLARK, 1e-6, NONE),
)
# fmt: on


def tile_parameters() -> xr.Dataset:
    """Every parameter of TABLE, dims (tile), float64; NaN where it has no meaning; attributes units and source."""
    rows = {
        row.name: ("tile", np.array(row.values), {"units": row.units, "long_name": row.long_name, "source": row.source})
        for row in TABLE
    }
    return xr.Dataset(rows, {"tile": list(TILES)})


def canopy_heat_capacity(
    leaf_area_index: np.ndarray, sigma_l: np.ndarray, a_wl: np.ndarray, b_wl: np.ndarray
) -> np.ndarray:
    """Heat capacity of leaves and wood, J m-2 K-1: their carbon, σ_l L and a_wl L^b_wl, times LEAF_HEAT and WOOD_HEAT.

    Ref: Essery et al. (2001), section 2.
    """
    return LEAF_HEAT * sigma_l * leaf_area_index + WOOD_HEAT * a_wl * leaf_area_index**b_wl
