"""Where the sub-daily model keeps a block's numbers: two flat arrays, one by cell and one by cell and surface type.

    c   row r of cell i at r * BLOCK + i; starts with the rows of the soil's water (`soil`) and of the runoff (`runoff`)
    t   row r of lane j at r * LANES + j, j = slot * BLOCK + i

The surface types that a cell has fill its slots from the first, in the order of TILES, so that no lane waits for a type
that nobody has; cells with the same number of types share a block. Temperatures are in degree Celsius, which leaves
float32 a thousand times more digits for a flux than kelvin would.
"""

from __future__ import annotations

from twin.land import runoff
from twin.land.compiled import BLOCK

SLOTS = 9
LANES = SLOTS * BLOCK


class _Rows:
    """Row numbers in turn."""

    def __init__(self, first: int) -> None:
        self.free = first

    def one(self, length: int = 1) -> int:
        """The first of the next `length` rows."""
        first = self.free
        self.free += length
        return first

    def many(self, number: int, length: int = 1) -> tuple[int, ...]:
        return tuple(self.one(length) for _ in range(number))


# --- by cell ---------------------------------------------------------------------------------------------------------
_rows = _Rows(runoff.ROWS)

# weather of the step: W m-2, kg m-2 s-1, degree Celsius, 1, m s-1, Pa; cosine of the sun's zenith angle; CO2 in Pa
SW, LW, RAIN, SNOWFALL, AIR, HUMIDITY, WIND, PRESSURE, SUN, CARBON = _rows.many(10)
SIN_LAT, COS_LAT, LON = _rows.many(3)  # LON in turns
# soil heat by layer: temperature (state), heat capacity of the dry layer J m-2 K-1, conductivity dry and of the
# saturated thawed soil W m-1 K-1, conductivity now, enthalpy J m-2
TEMPERATURE, DRY_HEAT, DRY_LAMBDA, WET_LAMBDA, LAMBDA, ENTHALPY = _rows.many(6, 4)
GROUND_HEAT = _rows.one()  # into the soil, W m-2
CRITICAL, WILTING, AVAILABLE = _rows.many(3, 4)  # kg m-2, kg m-2, 0 to 1
SOIL_CONDUCTANCE = _rows.one()  # of bare soil now over that at the critical point
SATURATED_K = _rows.one()  # of the top layer, kg m-2 s-1
LIQUID = _rows.one(4)  # kg m-2, before the step
MOVING = _rows.one()  # scratch of the freezing curve

# what is summed over the steps of an output interval, in the order of FLUXES; the first are kg m-2
FLUXES = (
    "water_evapotranspiration_flux",
    "transpiration_flux",
    "water_evaporation_flux_from_soil",
    "water_evaporation_flux_from_canopy",
    "surface_snow_and_ice_sublimation_flux",
    "lake_evaporation_flux",
    "canopy_throughfall_flux",
    "surface_snow_melt_flux",
    "surface_runoff_flux",
    "subsurface_runoff_flux",
    "surface_net_downward_radiative_flux",
    "surface_upward_sensible_heat_flux",
    "surface_upward_latent_heat_flux",
    "downward_heat_flux_in_soil",
    "surface_heat_storage_flux",
    "soil_heat_flux_due_to_water",
    "gross_primary_productivity_of_biomass_expressed_as_carbon",
    "solar_induced_fluorescence",
    "soil_moisture_stress",
)
SUM = _rows.one(len(FLUXES))
(ET, TRANSPIRED, FROM_SOIL, FROM_CANOPY, SUBLIMED, FROM_LAKE, FELL_THROUGH, MELTED, RAN_OFF, DRAINED,
 NET, SENSIBLE, LATENT, INTO_SOIL, STORED, CARRIED, GPP, SIF, STRESS) = range(SUM, SUM + len(FLUXES))  # fmt: skip
CELL_ROWS = _rows.free

# --- by cell and surface type ----------------------------------------------------------------------------------------
_rows = _Rows(0)

# state: degree Celsius, kg m-2, kg m-2
SURFACE, CANOPY, SNOW = _rows.many(3)
# constants of the type
FRACTION, LEAF_AREA, COVER = _rows.many(3)  # of the cell; 1; of the ground by leaves
Z0, Z0_HEAT, LOG_M, LOG_H = _rows.many(4)  # m, m, ln((z + z0)/z0) for momentum and heat
ALBEDO, ALBEDO_SNOW, EMISSIVITY = _rows.many(3)
HEAT_CAPACITY, CAPACITY, INFILTRATES = _rows.many(3)  # J m-2 K-1; kg m-2; on K_s
ROOTS = _rows.one(4)
CONDUCTANCE, SNOW_CONDUCTANCE, OPEN = _rows.many(
    3
)  # bare; of 1 kg m-2 of snow, m s-1; > 0 for open water, which the soil does not feed
VCMAX, QUANTUM, F0, DQ_CRIT, F_D, T_LOW, T_UPP, C4, G_MIN = _rows.many(9)
SCATTER, BACK, DECAY, RISE, P_UP, Q_UP, DIFFUSE_A, DIFFUSE_B, GROUND = _rows.many(9)
# of the step
BETA, G_LEAVES, CARBON_GAIN, FLUORESCENCE = _rows.many(4)
GUESS = _rows.one()  # of the surface's temperature in this step, degree Celsius
ABSORBED = _rows.one()  # sunlight and thermal radiation from above, W m-2
EXCHANGE, FRICTION = _rows.many(2)  # C_H U, u*: m s-1
SCRATCH = _rows.one(19)  # of one stage for itself, or for the next
TILE_ROWS = _rows.free
