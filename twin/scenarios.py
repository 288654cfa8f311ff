"""Other climates: what if it rained less and were warmer, and how a climate model's bias is taken out.

    forcing ─Delta.apply─▸ the same days, drier and warmer: humidity and thermal radiation go with the air
    model ┐
          ├─Correction.of─▸ factors by quantile ─apply─▸ its days, distributed as the reference's, with its own trend
    reference ┘

Every cell is computed by itself, and chance is a function of day and place: any tiling of cells gives the same bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from twin.checks import check_present
from twin.errors import RangeError, SettingsError
from twin.forcing import saturation_vapour_pressure, specific_humidity, vapour_pressure
from twin.land.weather import cell_keys, mix
from twin.variables import VARIABLES

RAIN, SNOWFALL, AIR, HUMIDITY = "precipitation_flux", "snowfall_flux", "air_temperature", "specific_humidity"
PRESSURE, SUNLIGHT = "surface_air_pressure", "surface_downwelling_shortwave_flux_in_air"
THERMAL, WIND = "surface_downwelling_longwave_flux_in_air", "wind_speed"
CARBON_DIOXIDE = "mole_fraction_of_carbon_dioxide_in_air"
YEAR = tuple(range(1, 13))
WET = 1.0 / 86400.0  # kg m-2 s-1: a wet day has 1 mm
TRACE = 0.05 / 86400.0  # kg m-2 s-1: less is no rain, in the correction of bias (Cannon et al. 2015)
QUANTILES = 100
LEAST = 150  # days a pool needs: a month of five years
_STEFAN_BOLTZMANN = 5.670374e-8  # W m-2 K-4
_BOUNDS = {  # of a change: lowest, highest, unit
    "rain": (0.0, 5.0, ""),
    "temperature": (-10.0, 10.0, "K"),
    "wet_days": (0.3, 1.0, ""),
    "carbon_dioxide": (1.5e-4, 2e-3, "mol mol-1"),
}
_MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
_MONTHS += ["August", "September", "October", "November", "December"]


@dataclass(frozen=True)
class Delta:
    """A change of climate: the same weather, but for what is named.

    rain             factor on rain and snow
    temperature      added to the air, K; relative humidity stays
    wet_days         share of the wet days that stay wet; the others' rain falls on those, in the long run
    carbon_dioxide   mole fraction, for the models that know leaves; None is as before
    months           in which all but carbon dioxide changes, 1..12
    Wind, pressure and sunlight stay. Raises SettingsError outside of what soil and formulas are good for.
    """

    rain: float = 1.0
    temperature: float = 0.0
    wet_days: float = 1.0
    carbon_dioxide: float | None = None
    months: tuple[int, ...] = YEAR

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SettingsError(f"change of {name}", expected=f"{low:g} to {high:g} {unit}".strip(), found=value)
        if not self.months or not set(self.months) <= set(YEAR) or len(set(self.months)) < len(self.months):
            raise SettingsError("months of a change", expected="some of 1 to 12, once each", found=self.months)

    @property
    def nothing(self) -> bool:
        """Whether it changes nothing."""
        return (self.rain, self.temperature, self.wet_days, self.carbon_dioxide) == (1.0, 0.0, 1.0, None)

    @property
    def identity(self) -> dict[str, Any]:
        """What its results depend on; empty for no change, however it is written."""
        numbers = {name: None if (value := getattr(self, name)) is None else float(value) for name in _BOUNDS}
        return {} if self.nothing else {**numbers, "months": sorted(self.months)}

    @property
    def label(self) -> str:
        """In words, as for a map's title."""
        if self.nothing:
            return "unchanged"
        changes = [
            f"rain {100 * (self.rain - 1):+.0f} %" * (self.rain != 1.0),
            f"temperature {self.temperature:+g} K" * (self.temperature != 0.0),
            f"{100 * (1 - self.wet_days):.0f} % fewer wet days" * (self.wet_days != 1.0),
        ]
        told = ", ".join(filter(None, changes)).replace("-", "−")
        if told and len(self.months) < 12:
            told += f" in {_in_words(self.months)}"
        carbon = "" if self.carbon_dioxide is None else f"CO2 {1e6 * self.carbon_dioxide:.0f} ppm"
        return ", ".join(filter(None, (told, carbon)))

    def apply(self, forcing: xr.Dataset) -> xr.Dataset:
        """The forcing so changed, dims (time, cell), in the types it came in; itself where nothing changes.

        forcing   the variables of the table, in its units; `snowfall_flux` and what else is there may come along
        Specific humidity follows the air at constant relative humidity, over water. Thermal radiation follows the air
        and its vapour: the clear sky's by `clear_sky_emissivity`, and clouds cover what they covered. Where the air
        warms, snowfall is left for the land model to tell from rain. Values stay within the table's range.
        """
        if self.nothing:
            return forcing
        changed = forcing
        if {self.rain, self.wet_days} != {1.0}:
            changed = self._drier(changed)
        if self.temperature:
            changed = self._warmer(changed).drop_vars(SNOWFALL, errors="ignore")
        if self.carbon_dioxide is not None:
            held = np.full(forcing.sizes["time"], self.carbon_dioxide)
            about = {"standard_name": CARBON_DIOXIDE, "units": "1"}
            changed = changed.assign({CARBON_DIOXIDE: ("time", held, about)})
        return changed

    def _drier(self, forcing: xr.Dataset) -> xr.Dataset:
        check_present(forcing, (RAIN,), "forcing to change")
        rain = forcing[RAIN].transpose("time", "cell").values
        factor: Any = rain.dtype.type(self.rain)
        if self.wet_days != 1.0:
            stays = (rain < WET) | (luck(forcing, "wet days") < self.wet_days)
            heavier = np.where(rain < WET, self.rain, self.rain / self.wet_days)
            factor = np.where(stays, heavier, 0.0).astype(rain.dtype)
        there = [name for name in (RAIN, SNOWFALL) if name in forcing]
        most = VARIABLES[RAIN].valid_max
        return forcing.assign({name: self._in_months(forcing, name, most, lambda v: v * factor) for name in there})

    def _warmer(self, forcing: xr.Dataset) -> xr.Dataset:
        check_present(forcing, (AIR, HUMIDITY, PRESSURE, THERMAL), "forcing to change")
        given = (AIR, HUMIDITY, PRESSURE, THERMAL)
        before, q, p, sky = (forcing[name].transpose("time", "cell").values.astype(np.float64) for name in given)
        after = before + self.temperature
        vapour = vapour_pressure(q, p)
        more = vapour * saturation_vapour_pressure(after) / saturation_vapour_pressure(before)
        values = {
            AIR: after,
            HUMIDITY: specific_humidity(more, p),
            THERMAL: thermal_radiation(sky, before, vapour, after, more),
        }
        return forcing.assign(
            {
                name: self._in_months(forcing, name, VARIABLES[name].valid_max, lambda _, new=new: new)
                for name, new in values.items()
            }
        )

    def _in_months(self, forcing: xr.Dataset, name: str, most: float, change: Any) -> xr.DataArray:
        """A variable changed in the months of the change, at most `most`; the same bits in the others."""
        old = forcing[name].transpose("time", "cell")
        new = np.minimum(change(old.values), most).astype(old.dtype)
        if len(self.months) < 12:
            new = np.where(np.isin(forcing["time"].dt.month.values, self.months)[:, None], new, old.values)
        return old.copy(data=new)


def _in_words(months: tuple[int, ...]) -> str:
    """Months as a span where they are one, also over the year's end."""
    for first in months:
        span = [(first - 1 + k) % 12 + 1 for k in range(len(months))]
        if set(span) == set(months):
            ends = [_MONTHS[month - 1] for month in (span[0], span[-1])]
            return ends[0] if len(span) == 1 else " to ".join(ends)
    return ", ".join(_MONTHS[month - 1] for month in sorted(months))


def clear_sky_emissivity(temperature: Any, vapour: Any) -> Any:
    """Emissivity of the clear sky, 1, at `temperature` K and vapour pressure `vapour` Pa, near the ground.

    Ref: Prata (1996), Q. J. R. Meteorol. Soc. 122, 1127: 1 − (1 + w) exp(−√(1.2 + 3 w)), w = 46.5 e/T with e in hPa.
    """
    w = 0.465 * vapour / temperature
    return 1.0 - (1.0 + w) * np.exp(-np.sqrt(1.2 + 3.0 * w))


def thermal_radiation(sky: Any, temperature: Any, vapour: Any, warmer: Any, moister: Any) -> Any:
    """Thermal radiation, W m-2, that becomes of `sky` when the air changes: (temperature K, vapour Pa) to the new ones.

    What the sky sends beyond the clear sky is clouds, a share c of ε = c + (1 − c) ε_clear, and they stay; a sky that
    sends less than the formula's clear one keeps its ratio to it. Ref: Crawford & Duchon (1999), J. Appl. Meteorol. 38,
    474 (ε of a cloudy sky).
    """
    before, after = clear_sky_emissivity(temperature, vapour), clear_sky_emissivity(warmer, moister)
    ratio = sky / (_STEFAN_BOLTZMANN * temperature**4)
    clouds = (ratio - before) / (1.0 - before)
    cloudy = np.where(clouds <= 1.0, clouds + (1.0 - clouds) * after, ratio)
    return np.where(clouds >= 0.0, cloudy, ratio * after / before) * _STEFAN_BOLTZMANN * warmer**4


def luck(forcing: xr.Dataset, stream: str) -> np.ndarray:
    """A number of 0..1 for every day and cell of the forcing, (time, cell), that depends on day and place alone."""
    days = forcing["time"].values.astype("datetime64[D]").astype(np.int64).astype(np.uint64)
    seed = np.uint64(int.from_bytes(stream.encode()[:8].ljust(8), "little"))
    keys = cell_keys(forcing["lat"].values, forcing["lon"].values)
    return (mix(keys[None, :] ^ mix(days + seed)[:, None]) >> np.uint64(11)) / 2.0**53


# --------------------------------------------------------------------------------------------- bias of a climate model
KINDS: Mapping[str, str] = {  # how a variable is corrected: by a factor where zero is an end, else by a difference
    RAIN: "*",
    AIR: "+",
    HUMIDITY: "*",
    WIND: "*",
    PRESSURE: "+",
    SUNLIGHT: "*",
    THERMAL: "+",
}
_FLOOR = {HUMIDITY: 1e-6, WIND: 1e-2, SUNLIGHT: 1e-2}  # less counts as this: no factor is without bound


@dataclass(frozen=True)
class Correction:
    """How the days of a climate model become the region's, by quantile delta mapping, for one pool of days (a month).

    factors   trained adjustment of each variable of KINDS
    kept      share of the model's dry days that stay dry, (cell)
    wettest   rain up to which the others are filled, kg m-2 s-1, (cell)
    """

    factors: Mapping[str, Any]
    kept: np.ndarray
    wettest: np.ndarray

    @classmethod
    def of(cls, reference: xr.Dataset, historical: xr.Dataset) -> Correction:
        """From the reference and the model's run of the same past, all variables of KINDS, dims (time, cell).

        Change by change of quantile: what the model says becomes of a quantile is kept, its error in the past is taken
        out. Ref: Cannon et al. (2015), J. Climate 28, 6938 (QDM); Themeßl et al. (2012), Clim. Change 112, 449 (dry
        days that become wet where the model is too dry). Raises VariableError for what is missing, RangeError for less
        than LEAST days.
        """
        from xsdba.adjustment import QuantileDeltaMapping  # takes seconds to import

        for what, data in (("reference", reference), ("past of the climate model", historical)):
            check_present(data, KINDS, what)
            if data.sizes["time"] < LEAST:
                raise RangeError(f"days of the {what}", expected=f"{LEAST} or more", found=data.sizes["time"])
        mine, true = (
            (data[RAIN].transpose("time", "cell").values < TRACE).mean(axis=0) for data in (historical, reference)
        )
        kept = np.where(mine > true, true / np.maximum(mine, 1e-9), 1.0)
        rain = np.sort(reference[RAIN].transpose("time", "cell").values.astype(np.float64), axis=0)
        rank = np.minimum((mine * len(rain)).astype(int), len(rain) - 1)
        wettest = np.maximum(rain[rank, np.arange(rain.shape[1])], TRACE)
        how: dict[str, Any] = {"nquantiles": QUANTILES, "group": "time"}
        with _quietly():
            factors = {
                name: QuantileDeltaMapping.train(
                    _ready(reference, name), _ready(historical, name, kept, wettest), kind=kind, **how
                )
                for name, kind in KINDS.items()
            }
        for trained in factors.values():
            trained.ds = trained.ds[["af"]].astype("float32")  # all that `adjust` asks of it
        return cls(factors, kept, wettest)

    def apply(self, simulated: xr.Dataset) -> xr.Dataset:
        """The model's days corrected, ranked among each other; dims (time, cell), within the table's range.

        Give it a pool that is as long as a climate: all days of a month in ten years. Humidity is at most what the air
        holds; snowfall keeps its share of precipitation. What the correction does not know comes back as it is.
        """
        values = {}
        for name in KINDS:
            ready = _ready(simulated, name, self.kept, self.wettest)
            with _quietly():
                new = self.factors[name].adjust(ready, interp="linear").transpose("time", "cell").values
            row = VARIABLES[name]
            if name == RAIN:
                new = np.where(new < TRACE, 0.0, new)
            values[name] = np.clip(new, row.valid_min, row.valid_max)
        held = specific_humidity(saturation_vapour_pressure(values[AIR]), values[PRESSURE])
        values[HUMIDITY] = np.minimum(values[HUMIDITY], held)
        corrected = {name: simulated[name].transpose("time", "cell") for name in KINDS}
        result = simulated.assign({n: old.copy(data=values[n].astype(old.dtype)) for n, old in corrected.items()})
        if SNOWFALL in simulated:
            before, after = (data[RAIN].values for data in (simulated, result))
            snow = simulated[SNOWFALL].transpose("time", "cell")
            share = np.divide(snow.values, before, out=np.zeros_like(after), where=before > 0.0).clip(0.0, 1.0)
            result[SNOWFALL] = snow.copy(data=share * after)
        return result


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the library warns of that is no concern of ours: its own encoder, quantiles it was not asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="xsdba")
        warnings.filterwarnings("ignore", "All-[nN]a[nN] slice", RuntimeWarning)
        yield


def _ready(data: xr.Dataset, name: str, kept: Any = 1.0, wettest: Any = TRACE) -> xr.DataArray:
    """A variable for the library: days one after the other, nothing below its floor, no two dry days alike.

    Of the dry days the share `kept` stays dry; the others get what is missing between a trace and the `wettest`.
    """
    values = data[name].transpose("time", "cell").values.astype(np.float64)
    if name == RAIN:
        chance = luck(data, "dry days")
        with np.errstate(divide="ignore", invalid="ignore"):
            filled = TRACE + (wettest - TRACE) * (chance - kept) / (1.0 - kept)
        little = 0.999 * TRACE * chance / np.maximum(kept, 1e-9)
        values = np.where(values >= TRACE, values, np.where(chance < kept, little, filled))
    else:
        values = np.maximum(values, _FLOOR.get(name, -np.inf))
    days = np.datetime64("2000-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    return xr.DataArray(values, {"time": days}, ("time", "cell"), name, {"units": VARIABLES[name].units})
