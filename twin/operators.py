"""What a satellite would have seen of a run of the land model: H, a series for each cell and day.

Soil moisture. A radiometer at L band feels the top few centimetres, the model's first layer is 10 cm. Its passage is at
an hour h of local solar time, the model tells the ends of UTC days. With f = (h − lon/15)/24 the share of the day gone
by then, and rain R (kg m-2) that stays in the top half of the layer until it has drained with the time τ,

    H = θ_{d-1} + f (θ_d − θ_{d-1}) + x_d        x: excess of the top 5 cm over the 10 cm, m3 m-3
    x_d = e^{-f/τ} X_{d-1} + g f R_d e^{-f/2τ} / 100        X_d = e^{-1/τ} X_{d-1} + g R_d e^{-1/2τ} / 100

g = 0.4 and τ = 1 day a priori, as in Deardorff's force-restore slab a thin layer follows rain at once and its deeper
neighbour within a day; both are elements of the control vector.

Fluorescence. Where the model computes it, its emission, else what light use makes of absorbed light and the stress of
dry soil, to which fluorescence is nearly proportional (Guanter et al. 2014); a factor, in the control vector, carries
what relates the two to the sensor's band, direction and unit.

Refs: Deardorff (1978), J. Geophys. Res. 83, 1889; Entekhabi et al. (2010), Proc. IEEE 98, 704; Guanter et al. (2014),
Proc. Natl. Acad. Sci. 111, E1327; Best et al. (2011), Geosci. Model Dev. 4, 677 (stress β).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from twin.control import Factor
from twin.errors import SettingsError
from twin.inputs import SUNLIGHT, THETA
from twin.land.demand import SNOW_BELOW

SECONDS = 86400.0
GAIN = 0.4  # g; all of the rain would be 1, but some runs through, and what satellites see is less than 5 cm
HEAVY = 40.0  # kg m-2 of rain a day beyond which 5 cm hold no more
FLUORESCENCE, SURFACE_MOISTURE = "solar_induced_fluorescence", "surface_soil_moisture"
STRESS, PRODUCTIVITY = "soil_moisture_stress", "gross_primary_productivity_of_biomass_expressed_as_carbon"


class Operator(Protocol):
    """H of one sensor."""

    @property
    def variable(self) -> str: ...

    @property
    def factors(self) -> tuple[Factor, ...]: ...

    def __call__(
        self, run: xr.Dataset, before: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset, c: Mapping[str, float]
    ) -> np.ndarray:
        """What the sensor would see, (time, cell) float32.

        run       diagnostics of the window, (time, …, cell); `before` the state at its start; `forcing` what drove it
        c         the operator's constants, as factors by name
        """
        ...


@dataclass(frozen=True)
class SoilMoisture:
    """Retrievals of soil moisture at `hour` of local solar time; the mean of the day where that is None."""

    hour: float | None = None
    variable: str = SURFACE_MOISTURE
    factors: tuple[Factor, ...] = (Factor("skin_gain", 0.5), Factor("skin_time", 0.5))

    def __call__(
        self, run: xr.Dataset, before: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset, c: Mapping[str, float]
    ) -> np.ndarray:
        end = run[THETA].isel(layer=0).values.astype(np.float64)
        start = np.concatenate([before[THETA].isel(layer=0).values[None], end[:-1]])
        hour, lon = self.hour, np.asarray(forcing["lon"].values, dtype=np.float64)
        passed = np.full(lon.size, 0.5) if hour is None else ((hour - lon / 15.0) / 24.0) % 1.0
        wet = np.where(forcing["air_temperature"].values >= SNOW_BELOW, forcing["precipitation_flux"].values, 0.0)
        rain = np.minimum(SECONDS * wet.astype(np.float64), HEAVY) * (c.get("skin_gain", 1.0) * GAIN / 100.0)
        time = c.get("skin_time", 1.0)
        kept = np.exp(-1.0 / time)
        excess = lfilter([np.exp(-0.5 / time)], [1.0, -kept], rain, axis=0)
        excess = np.concatenate([np.zeros((1, lon.size)), excess[:-1]])
        seen = start + passed * (end - start)
        seen += np.exp(-passed / time) * excess + passed * np.exp(-0.5 * passed / time) * rain
        return np.minimum(seen, _pores(parameters)).astype(np.float32)


@dataclass(frozen=True)
class Fluorescence:
    """Fluorescence of the day, up to a factor: the model's, else its productivity's, else stressed absorbed light's."""

    variable: str = "sif_radiance"
    factors: tuple[Factor, ...] = (Factor("sif_scale", 0.7),)

    def __call__(
        self, run: xr.Dataset, before: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset, c: Mapping[str, float]
    ) -> np.ndarray:
        scale = c.get("sif_scale", 1.0)
        if FLUORESCENCE in run:
            return (scale * RADIANCE * run[FLUORESCENCE].values).astype(np.float32)
        if PRODUCTIVITY in run:
            return (scale * PER_CARBON * run[PRODUCTIVITY].values).astype(np.float32)
        if "vegetation_cover" not in parameters:
            raise SettingsError("fluorescence of a run", expected=f"{FLUORESCENCE} or {PRODUCTIVITY}", found="neither")
        theta = 0.5 * (run[THETA].values + np.concatenate([before[THETA].values[None], run[THETA].values[:-1]]))
        wilting, critical, roots = (_layers(parameters, name) for name in ("theta_w", "theta_c", "root_fraction"))
        beta = (roots * np.clip((theta - wilting) / (critical - wilting), 0.0, 1.0)).sum(axis=1)
        absorbed = parameters["vegetation_cover"].values * 0.48 * forcing[SUNLIGHT].values
        warm = np.clip((forcing["air_temperature"].values - 273.15) / 10.0, 0.0, 1.0)  # none in frost
        return (scale * PER_LIGHT * beta * warm * absorbed).astype(np.float32)


# From emission to radiance in the far red, mW m-2 sr-1 nm-1: 1.6e5 J mol-1 at 740 nm, 0.9 % of it per nm there, half of
# it escaping, over π. Light use in the same unit: 1.5 per 100 W m-2 absorbed, 1 per 1e-7 kg m-2 s-1 of carbon; the
# order of magnitude is what matters, since `sif_scale` is estimated.
RADIANCE = 1e3 * 1.6e5 * 0.009 * 0.5 / np.pi
PER_LIGHT, PER_CARBON = 1.5e-2, 1e7

OPERATORS = {SURFACE_MOISTURE: SoilMoisture, "sif_radiance": Fluorescence}


def operator(variable: str, hour: float | None = None) -> Operator:
    """The operator for what a sensor observes; SettingsError for a variable there is none for."""
    if variable == SURFACE_MOISTURE:
        return SoilMoisture(hour)
    if variable == "sif_radiance":
        return Fluorescence()
    raise SettingsError("observed variable", expected=" or ".join(OPERATORS), found=variable)


def _pores(parameters: xr.Dataset) -> np.ndarray:
    pores = parameters["theta_s"].values
    return pores[0] if pores.ndim == 2 else pores


def _layers(parameters: xr.Dataset, name: str) -> np.ndarray:
    """A parameter as (layer or 1, cell)."""
    return np.atleast_2d(parameters[name].transpose("layer", "cell", missing_dims="ignore").values)
