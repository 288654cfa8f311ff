"""Where the sub-daily model keeps a block's numbers: two flat arrays, one by cell and one by cell and surface type.

    c   row r of cell i at r * BLOCK + i; starts with the rows of the soil's water (`soil`) and of the runoff (`runoff`)
    t   row r of lane j at r * LANES + j, j = slot * BLOCK + i

The surface types that a cell has fill its slots from the first, in the order of TILES, so that no lane waits for a type
that nobody has; cells with the same number of types share a block. Temperatures are in degree Celsius, which leaves
float32 a thousand times more digits for a flux than kelvin would.
"""

from __future__ import annotations

from itertools import count

from twin.land import runoff
from twin.land.compiled import BLOCK

SLOTS = 9
LANES = SLOTS * BLOCK

# --- by cell ---------------------------------------------------------------------------------------------------------
_next = count(runoff.ROWS)

# weather of the step: W m-2, kg m-2 s-1, degree Celsius, 1, m s-1, Pa; cosine of the sun's zenith angle; CO2 in Pa
SW, LW, RAIN, SNOWFALL, AIR, HUMIDITY, WIND, PRESSURE, SUN, CARBON = (next(_next) for _ in range(10))
SIN_LAT, COS_LAT, LON = (next(_next) for _ in range(3))  # LON in turns
# soil heat by layer: temperature (state), heat capacity of the dry layer J m-2 K-1, conductivity dry and of the
# saturated thawed soil W m-1 K-1, conductivity now, enthalpy J m-2
TEMPERATURE, DRY_HEAT, DRY_LAMBDA, WET_LAMBDA, LAMBDA, ENTHALPY = (
    start for start in [next(_next) for _ in range(24)][::4]
)
GROUND_HEAT = next(_next)  # into the soil, W m-2
CRITICAL, WILTING, AVAILABLE = (start for start in [next(_next) for _ in range(12)][::4])  # kg m-2, kg m-2, 0 to 1
SOIL_ALBEDO, SOIL_CONDUCTANCE = next(_next), next(_next)  # 1; of bare soil now over that at the critical point
SATURATED_K = next(_next)  # of the top layer, kg m-2 s-1
LIQUID = [next(_next) for _ in range(4)][0]  # kg m-2, before the step
MOVING = next(_next)  # scratch of the freezing curve

# what is summed over the steps of an output interval, in the order of FLUXES; the first are kg m-2
FLUXES = (
    "water_evapotranspiration_flux",
    "transpiration_flux",
    "water_evaporation_flux_from_soil",
    "water_evaporation_flux_from_canopy",
    "surface_snow_sublimation_flux",
    "water_evaporation_flux_from_lake",
    "throughfall_flux",
    "surface_snow_melt_flux",
    "surface_runoff_flux",
    "subsurface_runoff_flux",
    "surface_net_downward_radiative_flux",
    "surface_upward_sensible_heat_flux",
    "surface_upward_latent_heat_flux",
    "downward_heat_flux_in_soil",
    "surface_heat_storage_flux",
    "gross_primary_productivity_of_biomass_expressed_as_carbon",
    "solar_induced_fluorescence",
    "soil_moisture_stress",
)
SUM = [next(_next) for _ in FLUXES][0]
(ET, TRANSPIRED, FROM_SOIL, FROM_CANOPY, SUBLIMED, FROM_LAKE, FELL_THROUGH, MELTED, RAN_OFF, DRAINED,
 NET, SENSIBLE, LATENT, INTO_SOIL, STORED, GPP, SIF, STRESS) = range(SUM, SUM + len(FLUXES))  # fmt: skip
CELL_ROWS = next(_next)

# --- by cell and surface type ----------------------------------------------------------------------------------------
_next = count()

# state: degree Celsius, kg m-2, kg m-2
SURFACE, CANOPY, SNOW = (next(_next) for _ in range(3))
# constants of the type
FRACTION, LEAF_AREA, COVER = (next(_next) for _ in range(3))  # of the cell; 1; of the ground by leaves
Z0, Z0_HEAT, LOG_M, LOG_H = (next(_next) for _ in range(4))  # m, m, ln((z + z0)/z0) for momentum and heat
ALBEDO, ALBEDO_SNOW, EMISSIVITY = (next(_next) for _ in range(3))
HEAT_CAPACITY, CAPACITY, INFILTRATES = (next(_next) for _ in range(3))  # J m-2 K-1; kg m-2; on K_s
ROOTS = [next(_next) for _ in range(4)][0]
CONDUCTANCE, OPEN = next(_next), next(_next)  # of the bare type, m s-1; 1 for open water, which the soil does not feed
VCMAX, QUANTUM, F0, DQ_CRIT, F_D, T_LOW, T_UPP, C4, G_MIN = (next(_next) for _ in range(9))
SCATTER, BACK, DECAY, RISE, P_UP, Q_UP, DIFFUSE_A, DIFFUSE_B, GROUND = (next(_next) for _ in range(9))
# of the step
BETA, G_LEAVES, CARBON_GAIN, FLUORESCENCE = (next(_next) for _ in range(4))
GUESS = next(_next)  # of the surface's temperature in this step, degree Celsius
ABSORBED = next(_next)  # sunlight and thermal radiation from above, W m-2
EXCHANGE, FRICTION = next(_next), next(_next)  # C_H U, u*: m s-1
# scratch of the canopy
(_W0, _W1, _W2, _W3, _W4, _W5, _W6, _W7, _W8, _W9, _W10, _W11) = (next(_next) for _ in range(12))
SCRATCH = _W0
TILE_ROWS = next(_next)
