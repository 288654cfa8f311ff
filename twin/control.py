"""What assimilation may change: the control vector, and the parameters a value of it stands for.

The control vector z is standard normal a priori, x_b = 0 and B = I. Its elements are the same in every cell, so that
what is learnt where there are observations holds where there are none, and goes on holding:

    κ_j = κ_j,b (1 + 0.25 z_j)            the twelve constants of Cosby's pedotransfer, spread as in LAVENDAR
    ln q = ln q_b + σ (z + z' φ)          a factor on parameter q, everywhere and along the humidity φ of the climate;
                                          ln(q/(1 − q)) for shares, so that no value leaves its bounds

A residual adds fields to the logarithms of single parameters, for what differs from place to place beyond all that.

Refs: Pinnington et al. (2020), Geosci. Model Dev. 13, 55; Cosby et al. (1984), Water Resour. Res. 20, 682; Samaniego et
al. (2010), Water Resour. Res. 46, W05523 (transfer functions along what is known of a place).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from twin.errors import SettingsError, VariableError
from twin.land.lanes import POSSIBLE
from twin.parameters.soil import (
    BOUNDS,
    BOUNDS_VAN_GENUCHTEN,
    BROOKS_COREY,
    COSBY,
    COSBY_UM,
    GRASS_ROOTS,
    dependent,
    hydraulics,
    root_fractions,
)
from twin.parameters.tiles import tile_parameters

KAPPA_DEVIATION = 0.25  # of the constants, relative (Pinnington et al. 2020)
HUMIDITY = "humidity"  # the gradient of climate a factor may follow
SHARES = frozenset({"vegetation_cover", "albedo", "f0", "theta_s"})  # between 0 and 1: logit, not logarithm
_COSBY = {"cosby": COSBY, "cosby-um": COSBY_UM}


@dataclass(frozen=True)
class Factor:
    """A factor on `parameter` (or on a constant of an operator): standard deviation of its logarithm, or of the logit.

    along   "" for one everywhere, HUMIDITY for one per standard deviation of that
    """

    parameter: str
    deviation: float
    along: str = ""

    @property
    def name(self) -> str:
        return f"{self.parameter} along {self.along}" if self.along else self.parameter


def _both(**deviations: float) -> tuple[Factor, ...]:
    """Each factor everywhere and, a little less uncertain, along the humidity of the climate."""
    return tuple(
        Factor(name, share * deviation, along)
        for name, deviation in deviations.items()
        for along, share in (("", 1.0), (HUMIDITY, 0.7))
    )


DAILY = _both(
    surface_resistance=0.5,
    soil_resistance=0.5,
    vegetation_cover=1.0,
    root_depth=0.5,
    infiltration_factor=0.5,
    canopy_capacity=0.5,
    albedo=0.25,
)
TILED = _both(leaf_area_index=0.4, n_l0=0.25, f0=0.3, root_depth=0.5, surface_conductance=0.5, infiltration_factor=0.5)
SOIL = _both(b=0.25, psi_s=0.6, K_s=0.8, theta_s=0.3)  # where there are no constants of Cosby to change
RESIDUAL = (Factor("K_s", 0.8), Factor("psi_s", 0.6), Factor("theta_s", 0.3))  # what may differ from place to place


@dataclass(frozen=True)
class Control:
    """The elements of z: Cosby's constants if `kappa`, then factors on parameters, then those of operators."""

    kappa: bool
    factors: tuple[Factor, ...]
    operators: tuple[Factor, ...] = ()

    @classmethod
    def of(cls, parameters: xr.Dataset, operators: tuple[Factor, ...] = ()) -> Control:
        """What can be changed of these parameters: their pedotransfer, and the surface of their tier."""
        kappa = parameters.attrs.get("pedotransfer") in _COSBY and {"sand", "clay"} <= set(parameters.variables)
        surface = TILED if "tile_fraction" in parameters else DAILY
        return cls(kappa, surface if kappa else SOIL + surface, operators)

    def with_operators(self, operators: tuple[Factor, ...]) -> Control:
        return replace(self, operators=operators)

    @property
    def names(self) -> tuple[str, ...]:
        kappa = tuple(f"kappa_{j + 1}" for j in range(12)) if self.kappa else ()
        return (*kappa, *(factor.name for factor in (*self.factors, *self.operators)))

    @property
    def size(self) -> int:
        return len(self.names)

    def parameters(
        self, z: np.ndarray, background: xr.Dataset, humidity: np.ndarray, residual: np.ndarray | None = None
    ) -> xr.Dataset:
        """The parameters that control vector `z` (n) makes of the background's.

        humidity   of each cell's climate, as `humidity` gives it, (cell)
        residual   fields on RESIDUAL in standard deviations, (field, cell)
        returns    a new Dataset; attribute clipped counts the cells with a hydraulic parameter that bounds keep back
        """
        if np.shape(z) != (self.size,):
            raise VariableError("control vector", expected=f"shape ({self.size},)", found=f"shape {np.shape(z)}")
        ds = self._pedotransfer(z, background) if self.kappa else background.copy()
        first = 12 if self.kappa else 0
        exponents: dict[str, np.ndarray] = {}
        for value, factor in zip(z[first:], self.factors, strict=False):
            gradient = humidity if factor.along else np.ones_like(humidity)
            exponents[factor.parameter] = exponents.get(factor.parameter, 0.0) + value * factor.deviation * gradient
        if residual is not None:
            for field, factor in zip(residual, RESIDUAL, strict=True):
                exponents[factor.parameter] = exponents.get(factor.parameter, 0.0) + factor.deviation * field
        hydraulic = {name: exponents.pop(name) for name in tuple(exponents) if name in BOUNDS}
        if hydraulic:
            ds = _with_soil(ds, {name: _moved(name, ds[name].values, each) for name, each in hydraulic.items()})
        return ds.assign({name: _scaled(ds, name, exponent) for name, exponent in _placed(ds, exponents).items()})

    def constants(self, z: np.ndarray) -> dict[str, float]:
        """The factors of the operators that z stands for, by name."""
        last = z[len(z) - len(self.operators) :]
        return {f.parameter: float(np.exp(f.deviation * value)) for f, value in zip(self.operators, last, strict=True)}

    def pedotransfer(self, z: np.ndarray, variant: str = "cosby") -> tuple[float, ...]:
        """The twelve constants κ that z stands for."""
        base = np.array(_COSBY[variant].kappa)
        return tuple(float(k) for k in base * (1.0 + KAPPA_DEVIATION * z[:12]))

    def table(self, z: np.ndarray, deviation: np.ndarray, variant: str = "cosby") -> list[dict[str, float | str]]:
        """One row for each element: name, prior, analysis and their standard deviations, plain numbers.

        Constants are told as they are, factors as factors (standard deviations of their logarithm or logit).
        """
        kappa = self.pedotransfer(z, variant) if self.kappa else ()
        rows: list[dict[str, float | str]] = []
        for j, name in enumerate(self.names):
            if j < len(kappa):
                prior = _COSBY[variant].kappa[j]
                values = prior, abs(prior) * KAPPA_DEVIATION, kappa[j]
            else:
                factor = (*self.factors, *self.operators)[j - len(kappa)]
                values = 1.0, factor.deviation, float(np.exp(factor.deviation * z[j]))
            row: dict[str, float | str] = {
                "name": name,
                "prior": values[0],
                "prior_deviation": values[1],
                "analysis": values[2],
            }
            rows.append({**row, "deviation": values[1] * float(deviation[j]), "z": float(z[j])})
        return rows

    def _pedotransfer(self, z: np.ndarray, background: xr.Dataset) -> xr.Dataset:
        variant = background.attrs["pedotransfer"]
        chosen = replace(_COSBY[variant], kappa=self.pedotransfer(z, variant))
        return _with_soil(background, hydraulics(background["sand"].values, background["clay"].values, chosen))


def humidity(forcing: xr.Dataset) -> np.ndarray:
    """How humid the climate of each cell is, (cell): ln(P/E_0) about a half, in units of 0.7, within ±3.

    P is the mean precipitation of the forcing, E_0 what its sunlight could evaporate, 0.77 S/λ (Budyko 1974).
    """
    rain = forcing["precipitation_flux"].mean("time", dtype="float64").values
    light = forcing["surface_downwelling_shortwave_flux_in_air"].mean("time", dtype="float64").values
    index = np.maximum(rain, 1e-9) / np.maximum(0.77 * light / 2.45e6, 1e-9)
    return np.clip((np.log(index) - np.log(0.5)) / 0.7, -3.0, 3.0)


def _with_soil(ds: xr.Dataset, raw: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The soil with these b, psi_s, K_s or theta_s, brought within their bounds, and all that follows from them."""
    retention = ds.attrs.get("retention", BROOKS_COREY)
    bounds = BOUNDS if retention == BROOKS_COREY else BOUNDS_VAN_GENUCHTEN
    values = {name: ds[name].values for name in (*BOUNDS, "theta_r")}
    beyond = np.zeros(ds.sizes["cell"], bool)
    for name in raw.keys() & bounds.keys():
        values[name], held = _within(raw[name], *bounds[name], logarithmic=name != "theta_s")
        beyond |= np.atleast_2d(held).any(axis=0)
    clay = ds["clay"].values if "clay" in ds else np.full(ds.sizes["cell"], 0.2)
    values |= dependent(values, clay, retention)
    clipped = max(int(beyond.sum()), int(ds.attrs.get("clipped", 0)))
    return ds.assign({n: (ds[n].dims, v, ds[n].attrs) for n, v in values.items() if n in ds}).assign_attrs(
        clipped=clipped
    )


def _within(raw: np.ndarray, low: float, high: float, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """(`raw` brought within its bounds, where it was beyond): left alone but for the last twentieth before a bound.

    From there on a bound is neared exponentially, with the same slope, so that a step towards it is still felt.
    """
    tiny = np.finfo(np.float64).tiny
    scale = (lambda x: np.log(np.maximum(x, tiny))) if logarithmic else np.asarray
    u, (a, b) = scale(raw), (float(scale(low)), float(scale(high)))
    margin = 0.05 * (b - a)
    over, under = np.maximum(u - (b - margin), 0.0), np.maximum((a + margin) - u, 0.0)
    near = (over > 0.0) | (under > 0.0)
    eased = np.where(
        over > 0.0, b - margin * np.exp(-over / margin), np.where(under > 0.0, a + margin * np.exp(-under / margin), u)
    )
    return np.where(near, np.exp(eased) if logarithmic else eased, raw), (raw < low) | (raw > high)


def _placed(ds: xr.Dataset, exponents: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The exponents under the name of the variable they change."""
    return {"root_fraction" if n == "root_depth" and "root_fraction" in ds else n: e for n, e in exponents.items()}


def _scaled(ds: xr.Dataset, name: str, exponent: np.ndarray) -> xr.Variable:
    """A parameter with its factor; a surface type's own number where the background does not give it by cell."""
    if name == "root_fraction":
        return xr.Variable(("layer", "cell"), root_fractions(GRASS_ROOTS * np.exp(exponent)), {"units": "1"})
    if name not in ds:
        known = tile_parameters()
        if name not in known:
            raise SettingsError("factor", expected="a parameter of the model", found=name)
        values = np.clip(
            _moved(name, known[name].values[:, None], exponent[None, :]), *POSSIBLE.get(name, (-np.inf, np.inf))
        )
        return xr.Variable(("tile", "cell"), values, {"units": known[name].attrs["units"]})
    old = ds[name]
    dims, values = (old.dims, old.values) if "cell" in old.dims else ((*old.dims, "cell"), old.values[..., None])
    limits = POSSIBLE.get(name, (-np.inf, np.inf))
    return xr.Variable(dims, np.clip(_moved(name, values, exponent), *limits), old.attrs)


def _moved(name: str, values: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """`values` with `exponent` added to their logarithm, or to the logit of shares; 0 and 1 stay."""
    if name not in SHARES:
        return values * np.exp(exponent)
    grown = values * np.exp(exponent)
    return grown / (1.0 - values + grown)
