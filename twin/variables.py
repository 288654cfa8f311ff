"""The table of variables: one row each, read by checks, store attributes, STAC `cube:variables` and portal labels.

Units are CF/UDUNITS strings; `valid_min`/`valid_max` bound daily values and are refused outside.
Refs: CF standard name table v85 and newer; ranges follow the forcing limits of Best et al. (2011) and ETCCDI practice.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

LAYERS = (0.1, 0.25, 0.65, 2.0)  # thickness of the soil layers, m, from the surface down
ROOT_ZONE = 3  # the root zone is the top three layers: 1 m


@dataclass(frozen=True)
class Variable:
    """One variable: CF standard name ('' where CF has none), unit, dims and plausible range of a daily value."""

    name: str
    standard_name: str
    units: str
    dims: tuple[str, ...]
    valid_min: float
    valid_max: float
    long_name: str
    role: str  # forcing, state, flux, observation or drought

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes, without a standard_name where CF defines none."""
        named = {"standard_name": self.standard_name} if self.standard_name else {}
        return {**named, "units": self.units, "long_name": self.long_name}


def _cf(name: str, units: str, dims: tuple[str, ...], low: float, high: float, long_name: str, role: str) -> Variable:
    """A variable called by its CF standard name."""
    return Variable(name, name, units, dims, low, high, long_name, role)


_own = Variable  # what CF has no name of its own for
_TC, _TLC, _TKC = ("time", "cell"), ("time", "layer", "cell"), ("time", "code", "cell")
_THETA = "volume_fraction_of_condensed_water_in_soil"
_GPP = "gross_primary_productivity_of_biomass_expressed_as_carbon"
_SPREAD = "standard deviation of root-zone soil moisture among the members"
_PERCENTILE = "percentile of root-zone soil moisture among the reference years"
_CHANCE = "probability that the drought class is D0, D1, D2, D3 or D4, or worse"
_CDI = "combined drought indicator: 0 none, 1 watch, 2 warning, 3 alert, 4 to 6 recovery, 7 no data"
_SEASON = "the local year's wet season so far: codes of twin.indices.season.STATUS"
_CLASS = "drought class: D0..D4 are 1..5, W0..W4 are -1..-5, 0 is neither"

_ROWS = (
    _cf("precipitation_flux", "kg m-2 s-1", _TC, 0.0, 0.02, "precipitation", "forcing"),
    _cf("air_temperature", "K", _TC, 180.0, 340.0, "air temperature at 2 m", "forcing"),
    _cf("specific_humidity", "1", _TC, 0.0, 0.06, "specific humidity at 2 m", "forcing"),
    _cf("wind_speed", "m s-1", _TC, 0.0, 60.0, "wind speed at 10 m", "forcing"),
    _cf("surface_air_pressure", "Pa", _TC, 4.5e4, 1.1e5, "surface air pressure", "forcing"),
    _cf("surface_downwelling_shortwave_flux_in_air", "W m-2", _TC, 0.0, 550.0, "incoming sunlight", "forcing"),
    _cf("surface_downwelling_longwave_flux_in_air", "W m-2", _TC, 50.0, 700.0, "incoming thermal radiation", "forcing"),
    _cf("rainfall_flux", "kg m-2 s-1", _TC, 0.0, 0.02, "rain", "phase"),
    _cf("snowfall_flux", "kg m-2 s-1", _TC, 0.0, 0.02, "snowfall", "phase"),
    _cf(_THETA, "m3 m-3", _TLC, 0.0, 1.0, "soil moisture", "state"),
    _cf("soil_temperature", "K", _TLC, 150.0, 400.0, "soil temperature", "state"),
    _cf("surface_temperature", "K", _TC, 150.0, 400.0, "temperature of the surface", "state"),
    _cf("canopy_water_amount", "kg m-2", _TC, 0.0, 50.0, "water on leaves", "state"),
    _cf("surface_snow_amount", "kg m-2", _TC, 0.0, 2e4, "snow on the ground", "state"),
    _cf("water_evapotranspiration_flux", "kg m-2 s-1", _TC, -1e-3, 1e-2, "evapotranspiration", "flux"),
    _cf("runoff_flux", "kg m-2 s-1", _TC, 0.0, 0.1, "surface runoff and drainage", "flux"),
    _cf("surface_runoff_flux", "kg m-2 s-1", _TC, 0.0, 0.1, "surface runoff", "flux"),
    _cf("subsurface_runoff_flux", "kg m-2 s-1", _TC, -1e-4, 0.1, "drainage and baseflow", "flux"),
    _cf("transpiration_flux", "kg m-2 s-1", _TC, -1e-3, 1e-2, "transpiration", "flux"),
    _cf("water_evaporation_flux_from_soil", "kg m-2 s-1", _TC, -1e-3, 1e-2, "evaporation from bare soil", "flux"),
    _cf("water_evaporation_flux_from_canopy", "kg m-2 s-1", _TC, -1e-2, 1e-2, "evaporation from wet leaves", "flux"),
    _cf("surface_snow_and_ice_sublimation_flux", "kg m-2 s-1", _TC, -1e-2, 1e-2, "sublimation less frost", "flux"),
    _own("lake_evaporation_flux", "", "kg m-2 s-1", _TC, -1e-2, 1e-2, "evaporation from lakes", "flux"),
    _cf("canopy_throughfall_flux", "kg m-2 s-1", _TC, 0.0, 0.05, "rain that reaches the ground", "flux"),
    _cf("surface_snow_melt_flux", "kg m-2 s-1", _TC, 0.0, 0.05, "snow melt", "flux"),
    _cf("surface_net_downward_radiative_flux", "W m-2", _TC, -1e3, 2e3, "net radiation", "flux"),
    _cf("surface_upward_sensible_heat_flux", "W m-2", _TC, -3e3, 3e3, "sensible heat flux", "flux"),
    _cf("surface_upward_latent_heat_flux", "W m-2", _TC, -2e3, 5e3, "latent heat flux", "flux"),
    _cf("downward_heat_flux_in_soil", "W m-2", _TC, -3e3, 3e3, "heat flux from the surface into the soil", "flux"),
    _own("surface_heat_storage_flux", "", "W m-2", _TC, -3e3, 3e3, "heat taken up by leaves and wood", "flux"),
    _own("soil_heat_flux_due_to_water", "", "W m-2", _TC, -3e3, 3e3, "heat that water brings into the soil", "flux"),
    _cf(_GPP, "kg m-2 s-1", _TC, 0.0, 1e-5, "gross primary productivity, carbon", "flux"),
    _own("solar_induced_fluorescence", "", "mol m-2 s-1", _TC, 0.0, 1e-3, "light the leaves give back", "flux"),
    _own("soil_moisture_stress", "", "1", _TC, 0.0, 1.0, "factor on photosynthesis, 1 where water is plenty", "flux"),
    _own("surface_soil_moisture", _THETA, "m3 m-3", _TC, 0.0, 1.0, "satellite soil moisture, top 5 cm", "observation"),
    _own("sif_radiance", "", "W m-2 sr-1 um-1", _TC, -5.0, 20.0, "satellite fluorescence of leaves", "observation"),
    _own("root_zone_soil_moisture", _THETA, "m3 m-3", _TC, 0.0, 1.0, "soil moisture of the top metre", "drought"),
    _own("root_zone_soil_moisture_spread", "", "m3 m-3", _TC, 0.0, 1.0, _SPREAD, "drought"),
    _own("soil_moisture_percentile", "", "%", _TC, 0.0, 100.0, _PERCENTILE, "drought"),
    _own("drought_class", "", "1", _TC, -5.0, 5.0, _CLASS, "drought"),
    _own("drought_probability", "", "1", _TKC, 0.0, 1.0, _CHANCE, "drought"),
    _own("precipitation_to_date", "", "1e-3 kg m-2", _TC, 0.0, 2**31, "precipitation since the first day", "index"),
    *(
        _own(f"spi_{days}d", "", "1", _TC, -8.0, 8.0, f"standardised precipitation of {days} days", "index")
        for days in (30, 90, 180)
    ),
    _own("dry_days", "", "day", _TC, 0.0, 366.0, "days of the local year so far whose root zone was dry", "index"),
    _own("dry_spell", "", "day", _TC, 0.0, 32767.0, "days in a row without rain", "index"),
    _own("wet_season_onset", "", "day", _TC, 0.0, 366.0, "onset of the wet season since the local year began", "index"),
    _own("wet_season_length", "", "day", _TC, 0.0, 366.0, "length of the wet season so far", "index"),
    _own("wet_season_status", "", "1", _TC, 0.0, 127.0, _SEASON, "index"),
    _own("cdi", "", "1", _TC, 0.0, 7.0, _CDI, "index"),
)

VARIABLES = MappingProxyType({row.name: row for row in _ROWS})


def with_role(role: str) -> tuple[Variable, ...]:
    """All variables of one role, in table order."""
    return tuple(row for row in _ROWS if row.role == role)
