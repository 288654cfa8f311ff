"""What JULES calls things, and what we do: the only place where both are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.inputs import CANOPY, SNOW, SOIL_TEMPERATURE, SURFACE_TEMPERATURE, THETA
from twin.variables import LAYERS

RUNOFF = "runoff_flux"
DEPTH = 1000.0 * np.array(LAYERS)[:, None]  # kg m-2 of water in a layer that is all water

# What it reads: JULES' name, ours. Units are the same.
WEATHER = {
    "sw_down": "surface_downwelling_shortwave_flux_in_air",
    "lw_down": "surface_downwelling_longwave_flux_in_air",
    "t": "air_temperature",
    "wind": "wind_speed",
    "pstar": "surface_air_pressure",
    "q": "specific_humidity",
}
TOTAL = {"precip": "precipitation_flux"}
PARTED = {"tot_rain": "rainfall_flux", "tot_snow": "snowfall_flux"}
SOIL = {
    "b": "b",
    "sathh": "psi_s",
    "satcon": "K_s",
    "sm_sat": "theta_s",
    "sm_crit": "theta_c",
    "sm_wilt": "theta_w",
    "hcap": "heat_capacity",
    "hcon": "heat_conductivity",
    "albsoil": "soil_albedo",
}
DEEP = {"sthzw": "deep_saturation", "zw": "water_table_depth"}  # state with TOPMODEL

DUMP = "jules_"  # before JULES' name of what it dumped and no variable of ours holds
IN, OUT, RUN = "twin_input", "twin_output", "twin"  # folders inside a run directory, and the name of the run
MEAN, STATE = "mean", "state"  # output profiles: means over, and values at the end of, every step or day


@dataclass(frozen=True)
class Output:
    """A variable JULES writes out: its name, ours, unit, what it is, and the limits its values must keep."""

    jules: str
    name: str
    units: str
    long_name: str
    low: float
    high: float


_RATE, _POWER = "kg m-2 s-1", "W m-2"
_GPP = "gross_primary_productivity_of_biomass_expressed_as_carbon"
MEANS = (
    Output("fqw_gb", "water_evapotranspiration_flux", _RATE, "evapotranspiration", -0.01, 0.05),
    Output("elake", "lake_evaporation_flux", _RATE, "part of evapotranspiration that leaves lakes", -0.01, 0.05),
    Output("surf_roff", "surface_runoff_flux", _RATE, "surface runoff", -1e-4, 1.0),
    Output("sub_surf_roff", "subsurface_runoff_flux", _RATE, "drainage and baseflow", -1e-4, 1.0),
    Output("gpp_gb", _GPP, _RATE, "gross primary productivity, carbon", -1e-4, 1e-4),
    Output("latent_heat", "surface_upward_latent_heat_flux", _POWER, "latent heat flux, upward", -2e3, 5e3),
    Output("ftl_gb", "surface_upward_sensible_heat_flux", _POWER, "sensible heat flux, upward", -3e3, 3e3),
)
STATES = (
    Output("canopy_gb", CANOPY, "kg m-2", "water on leaves", -0.1, 50.0),
    Output("snow_mass_gb", SNOW, "kg m-2", "snow on the ground", -0.1, 1e5),
    Output("smcl", THETA, "m3 m-3", "soil moisture", -1.0, 5e3),
    Output("t_soil", SOIL_TEMPERATURE, "K", "soil temperature", 150.0, 400.0),
    Output("tstar_gb", SURFACE_TEMPERATURE, "K", "surface temperature", 150.0, 400.0),
)


def written(deep: bool) -> dict[str, list[str]]:
    """What JULES is asked to write, by profile; with TOPMODEL also its deep store."""
    states = [output.jules for output in STATES]
    return {MEAN: [output.jules for output in MEANS], STATE: [*states, "sthzw"] if deep else states}
