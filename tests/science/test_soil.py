"""Soil water against conservation, exact solutions, an ODE solver and JULES' own output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python, rtsys
from scipy.integrate import solve_ivp

from twin.errors import RangeError, SettingsError, VariableError
from twin.land import soil
from twin.land.compiled import BLOCK, compiled, single
from twin.variables import LAYERS

DEPTH = np.array(LAYERS)[:, None]
CHOICES = [
    (retention, numerics, excess)
    for retention in ("brooks-corey", "van-genuchten")
    for numerics, excess in (("newton", "up"), ("newton", "down"), ("jules", "up"), ("jules", "down"))
]


def soils(b: Any, psi_s: Any, k_s: Any, theta_s: Any) -> xr.Dataset:
    """Parameters by cell, or by layer and cell."""
    named = {"b": b, "psi_s": psi_s, "K_s": k_s, "theta_s": theta_s}
    return xr.Dataset({name: (("layer", "cell")[-np.ndim(v) :], np.asarray(v)) for name, v in named.items()})


def capacity(parameters: xr.Dataset) -> np.ndarray:
    return 1000.0 * DEPTH * parameters["theta_s"].values


class Column:
    """One block of cells, all of the same soil, stepped by the code of the models without `step`'s checks."""

    def __init__(self, parameters: xr.Dataset, *choice: str) -> None:
        self.solve, self.w = soil.solver(*choice), np.zeros((soil.ROWS, BLOCK))
        self.full = capacity(parameters)
        rows = {soil.B: parameters["b"], soil.PSI: parameters["psi_s"], soil.K: parameters["K_s"], soil.M: self.full}
        for row, values in rows.items():
            self.w[row : row + 4] = values
        self.water, self.ice, self.sink = (self.w[row : row + 4] for row in (soil.WATER, soil.ICE, soil.SINK))

    def step(self, dt: float, rain: Any, times: int = 1) -> np.ndarray:
        self.w[soil.STEP], self.w[soil.INFILTRATION] = dt, rain
        for _ in range(times):
            self.solve(self.w.reshape(-1))
        return self.water


def anything(cells: int, seed: int, retention: str) -> dict[str, Any]:
    """Arguments of `step`: any soil in each layer; bone dry, flooded, frozen; 60 s to a day."""
    rng = np.random.default_rng(seed)
    low = 0.3 if retention == "van-genuchten" else 1.0
    shape = (4, cells)
    parameters = soils(
        rng.uniform(low, 20.0, shape),
        10.0 ** rng.uniform(-2.5, 0.5, shape),
        10.0 ** rng.uniform(-6.0, -0.5, shape),
        rng.uniform(0.1, 0.9, shape),
    )
    full = capacity(parameters)

    def some(*special: float) -> np.ndarray:
        """A number from 0 to 1, often one of the special ones."""
        picked = rng.choice([*special, np.nan, np.nan], shape)
        return np.where(np.isnan(picked), rng.random(shape), picked)

    water = some(0.0, 1e-9, 0.03, 1.0 - 1e-12, 1.0) * full
    ice = some(0.0, 0.0, 0.0, 1e-9, 1.0) * water
    dt = rng.choice([60.0, 1800.0, 10800.0, 86400.0], cells)
    return {
        "water": water,
        "sink": some(0.0, 1.0) * (water - ice) / dt,
        "infiltration": rng.choice([0.0, 1e-8, 1.0], cells) * rng.exponential(0.005, cells),
        "parameters": parameters,
        "dt": dt,
        "ice": ice,
    }


def imbalance(done: soil.Step, case: dict[str, Any]) -> np.ndarray:
    """Water that came from or went nowhere, by layer, kg m-2."""
    came = np.vstack([case["infiltration"] * case["dt"] - done.excess, done.moved[:3]])
    return done.water - case["water"] - (came - done.moved - case["sink"] * case["dt"])


# --- conservation and bounds ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
def test_water_closes_and_stays_possible_whatever_comes(retention):
    """100,000 soil × state × step for each retention; closure of each layer < 1e-9 kg m-2.

    What a step moves reaches 5,000 kg m-2, whose rounding is 1e-12.
    """
    case = anything(100_000, 7, retention)
    done = soil.step(**case, retention=retention)
    assert all(np.isfinite(part).all() for part in done)
    assert np.abs(imbalance(done, case)).max() < 1e-9
    assert (done.water >= case["ice"]).all() and (done.water <= capacity(case["parameters"])).all()
    assert (done.excess >= 0.0).all() and (done.drainage >= 0.0).all()
    np.testing.assert_array_equal(done.drainage, done.moved[3])


@pytest.mark.parametrize(("retention", "numerics", "excess"), [choice for choice in CHOICES if choice[1] == "jules"])
def test_jules_numerics_close_and_stay_possible(retention, numerics, excess):
    """The same soils and states, of which JULES' linearised step makes fluxes of any size where layers are dry.

    Water stays within its bounds; where no layer is drier than half full, closure is < 1e-9 kg m-2, elsewhere it is the
    rounding of what moved.
    """
    case = anything(50_000, 7, retention)
    done = soil.step(**case, retention=retention, numerics=numerics, saturation_excess=excess)
    full = capacity(case["parameters"])
    assert all(np.isfinite(part).all() for part in done)
    assert (done.water >= case["ice"]).all() and (done.water <= full).all()
    lost, moved = np.abs(imbalance(done, case)).max(axis=0), np.abs(done.moved).max(axis=0) + done.excess
    assert (lost <= 1e-12 + 8.0 * np.finfo(float).eps * (full.max() + moved)).all()
    moist = (case["water"] - case["ice"] > 0.5 * full).all(axis=0)
    assert moist.sum() > 300 and lost[moist].max() < 1e-9


@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
def test_single_precision_closes_to_its_rounding(retention):
    """Some roundings (1.2e-7) of the largest amount involved: what the column holds, came or went.

    Eight where the step is taken whole; up to 64 sub-steps round each for themselves.
    """
    case = {name: part.astype(np.float32) for name, part in anything(50_000, 11, retention).items()}
    full = np.array([1000.0 * depth for depth in LAYERS], np.float32)[:, None] * case["parameters"]["theta_s"].values
    case["water"] = np.minimum(case["water"], full)
    case["ice"] = np.minimum(case["ice"], case["water"])
    case["sink"] = np.minimum(case["sink"], (case["water"] - case["ice"]) / case["dt"])
    done = soil.step(**case, retention=retention)
    assert done.water.dtype == np.float32
    assert (done.water >= case["ice"]).all() and (done.water <= full).all()
    case = {name: part.astype(np.float64) for name, part in case.items()}
    done = soil.Step(*(part.astype(np.float64) for part in done))
    amount = full.max(axis=0) + case["infiltration"] * case["dt"] + np.abs(done.moved).max(axis=0)
    lost = np.abs(imbalance(done, case))
    assert (lost <= 64.0 * np.finfo(np.float32).eps * amount).all()
    assert np.quantile(lost / amount, 0.9) <= 8.0 * np.finfo(np.float32).eps


saturations = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)


@settings(max_examples=300, deadline=None)
@example(liquid=[0.0] * 4, frozen=[0.0] * 4, b=20.0, psi=3.0, k=0.3, rain=0.0, taken=1.0, dt=86400.0)
@example(liquid=[1.0] * 4, frozen=[1.0] * 4, b=1.0, psi=0.003, k=0.3, rain=0.02, taken=1.0, dt=86400.0)
@given(
    liquid=saturations,
    frozen=saturations,
    b=st.floats(1.0, 20.0),
    psi=st.floats(0.003, 3.0),
    k=st.floats(1e-6, 0.3),
    rain=st.floats(0.0, 0.02),
    taken=st.floats(0.0, 1.0),
    dt=st.floats(60.0, 86400.0),
)
def test_every_choice_closes_at_the_edges(liquid, frozen, b, psi, k, rain, taken, dt):
    parameters = soils([b], [psi], [k], [0.45])
    full = capacity(parameters)
    water = np.array(liquid)[:, None] * full
    ice = np.array(frozen)[:, None] * water
    case = {
        "water": water,
        "ice": ice,
        "sink": taken * (water - ice) / dt,
        "infiltration": np.array([rain]),
        "parameters": parameters,
        "dt": dt,
    }
    for retention, numerics, excess in CHOICES:
        done = soil.step(**case, retention=retention, numerics=numerics, saturation_excess=excess)
        moved = 0.0 if numerics == "newton" else np.abs(done.moved).max() + done.excess.max()
        assert np.abs(imbalance(done, case)).max() < 1e-9 + 1e-15 * moved
        assert (done.water >= ice).all() and (done.water <= full).all()


# --- exact solutions ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("numerics", ["newton", "jules"])
def test_hydrostatic_equilibrium_stays(numerics):
    """Where ψ falls by one metre per metre nothing moves; what the free bottom loses is given back to its layer."""
    b, psi_s, k_s, theta_s = np.full(5, 5.0), np.linspace(0.05, 0.5, 5), np.full(5, 4e-3), np.full(5, 0.45)
    height = (DEPTH.sum() - np.cumsum(DEPTH) + 0.5 * DEPTH[:, 0])[:, None]
    s = ((psi_s + 0.5 + height) / psi_s) ** (-1.0 / b)
    parameters = soils(b, psi_s, k_s, theta_s)
    water, sink = s * capacity(parameters), np.zeros((4, 5))
    sink[3] = -k_s * s[3] ** (2 * b + 3)
    done = soil.step(water, sink, np.zeros(5), parameters, 86400.0, numerics=numerics)
    np.testing.assert_allclose(done.water, water, rtol=1e-11)
    assert np.abs(done.moved[:3]).max() < 1e-9


@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
@pytest.mark.parametrize("numerics", ["newton", "jules"])
def test_steady_drainage_is_where_conductivity_equals_rain(retention, numerics):
    """Unit gradient: K(S) = q in every layer; S = (q/K_s)**(1/(2b+3)) by Brooks and Corey."""
    b, k_s = np.array([3.0, 6.6, 11.0]), np.full(3, 5e-3)
    s = np.array([0.6, 0.75, 0.85])
    q = k_s * (s ** (2 * b + 3) if retention == "brooks-corey" else mualem(s, b))
    for cell in range(3):
        column = Column(soils(*([value] for value in (b[cell], 0.2, k_s[cell], 0.45))), retention, numerics)
        column.water[:] = 0.9 * s[cell] * column.full
        for dt, steps in ((3600.0, 500), (86400.0, 20_000)):
            column.step(dt, q[cell], steps)
        np.testing.assert_allclose(column.water / column.full, s[cell], atol=1e-6)


def darcy(s: np.ndarray, b: float, psi_s: float, k_s: float) -> np.ndarray:
    """Fluxes between the layers and out at the bottom: the equations of the module's drawing, in plain numpy."""
    d = DEPTH[:, 0]
    psi = psi_s * s**-b
    between = (d[1:] * s[:-1] + d[:-1] * s[1:]) / (d[1:] + d[:-1])
    inner = k_s * between ** (2 * b + 3) * (2.0 * np.diff(psi) / (d[1:] + d[:-1]) + 1.0)
    return np.append(inner, k_s * s[3] ** (2 * b + 3))


@pytest.mark.parametrize("numerics", ["newton", "jules"])
def test_small_steps_converge_to_the_solution_of_the_four_equations(numerics):
    """First order in the step, towards LSODA at 1e-10: half the step, half the error, of two days' rain on dry soil."""
    b, psi_s, k_s, theta_s, rain, taken = 5.0, 0.15, 4e-3, 0.45, 3e-4, 2e-5
    parameters = soils([b], [psi_s], [k_s], [theta_s])
    full, start = capacity(parameters)[:, 0], np.array([0.45, 0.4, 0.5, 0.6])
    sink = taken * np.array([0.4, 0.3, 0.2, 0.1])

    def change(_: float, s: np.ndarray) -> np.ndarray:
        f = darcy(s, b, psi_s, k_s)
        return (np.append(rain, f[:3]) - f - sink) / full

    exact = solve_ivp(change, (0.0, 172_800.0), start, "LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
    errors = []
    for steps in (96, 192, 384, 768):
        column = Column(parameters, "brooks-corey", numerics)
        column.water[:], column.sink[:] = (start * full)[:, None], sink[:, None]
        column.step(172_800.0 / steps, rain, steps)
        errors.append(np.abs(column.water[:, 0] / full - exact).max())
    assert errors[-1] < 1e-4
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 0.85).all() and (orders < 1.2).all(), errors


@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
def test_more_rain_never_dries_a_layers_year(retention):
    """A tenth more of hourly rain, drying proportional to moisture, 16 soils; 1e-5 is the tolerance of the saturation.

    In a single step it can: with K at the mean saturation, a wetter top draws more from below (Best et al. 2011 form).
    """
    rng = np.random.default_rng(3)
    parameters = soils(
        rng.uniform(2.0, 12.0, BLOCK),
        10.0 ** rng.uniform(-1.5, 0.0, BLOCK),
        10.0 ** rng.uniform(-4.0, -2.0, BLOCK),
        np.full(BLOCK, 0.45),
    )
    rain = np.where(rng.random((8760, BLOCK)) < 0.05, rng.exponential(6e-4, (8760, BLOCK)), 0.0)
    means = []
    for more in (1.0, 1.1):
        column = Column(parameters, retention)
        column.water[:] = 0.6 * column.full
        mean = np.zeros((4, BLOCK))
        for k in range(8760):
            column.sink[:] = 2e-5 * np.array([[0.4], [0.3], [0.2], [0.1]]) * column.water / column.full
            mean += column.step(3600.0, more * rain[k]) / column.full / 8760.0
        means.append(mean)
    assert (means[1] - means[0]).min() > -1e-5
    assert (means[1] - means[0])[:3].mean() > 1e-3  # and it does matter


@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
def test_steps_of_an_hour_agree_with_steps_of_a_minute_in_a_storm(retention):
    """20 mm in an hour on dry clay: what finds no room runs off, and does not press water through the layer below.

    Within 0.005 of the saturation; three quarters or more run off.
    """
    column_hour, column_minute = (
        Column(soils([11.5], [0.043], [1.6e-4], [0.45]), retention),
        Column(soils([11.5], [0.043], [1.6e-4], [0.45]), retention),
    )
    for column, dt, times in ((column_hour, 3600.0, 1), (column_minute, 60.0, 60)):
        column.water[:] = np.array([[0.95], [0.58], [0.49], [0.58]]) * column.full
        column.step(dt, 20.0 / 3600.0, times)
    difference = (column_hour.water - column_minute.water) / column_hour.full
    assert np.abs(difference).max() < 0.005
    np.testing.assert_allclose(column_hour.w[soil.EXCESS], column_minute.w[soil.EXCESS], rtol=0.02)
    assert (column_hour.w[soil.EXCESS] > 15.0).all()


def test_ice_neither_moves_nor_conducts():
    """A frozen column keeps its water; rain finds only the pores that are left and the rest runs off."""
    parameters = soils([6.0], [0.1], [5e-3], [0.4])
    full = capacity(parameters)
    water = 0.9 * full
    done = soil.step(water, 0.0 * water, np.array([0.01]), parameters, 86400.0, ice=water)
    assert done.moved.max() < 0.11 * full.sum() and done.drainage[0] < 1e-9
    np.testing.assert_allclose(done.water[0], full[0], rtol=1e-12)
    np.testing.assert_allclose(done.excess, 864.0 - (done.water - water).sum(), rtol=1e-12)


@pytest.mark.parametrize(("excess", "runs_off"), [("up", 0.006), ("down", 0.0)])
@pytest.mark.parametrize("numerics", ["newton", "jules"])
def test_what_a_layer_cannot_hold_rises_or_sinks(numerics, excess, runs_off):
    """A full column conducts K_s; rain of 2.2 K_s leaves at the top, or all of it at the bottom."""
    parameters = soils([6.0], [0.1], [5e-3], [0.4])
    full = capacity(parameters)
    done = soil.step(
        full, 0.0 * full, np.array([0.011]), parameters, 100.0, numerics=numerics, saturation_excess=excess
    )
    np.testing.assert_array_equal(done.water, full)
    np.testing.assert_allclose(done.excess, [100.0 * runs_off], atol=1e-12)
    np.testing.assert_allclose(done.drainage, [100.0 * (0.011 - runs_off)], rtol=1e-12)


# --- van Genuchten --------------------------------------------------------------------------------------------------
def mualem(s: np.ndarray, b: np.ndarray) -> np.ndarray:
    """K/K_s by van Genuchten (1980), eq. 8, in his own n and m."""
    n = 1.0 + 1.0 / b
    m = 1.0 - 1.0 / n
    return np.sqrt(s) * np.expm1(m * np.log1p(-(s ** (1.0 / m)))) ** 2


@pytest.mark.parametrize("n", [1.1, 1.3, 2.06, 4.0])
def test_van_genuchten_is_his_closed_form(n):
    """Equations 3 and 8 of van Genuchten (1980) in α and n, from the dry to the wet end of where they are used."""
    alpha, b = 3.6, 1.0 / (n - 1.0)
    for s in np.linspace(0.05, 0.95, 37):
        h = (s ** (-1.0 / (1.0 - 1.0 / n)) - 1.0) ** (1.0 / n) / alpha
        assert soil._vg_suction(s, b, 1.0 / alpha)[0] == pytest.approx(h, rel=1e-12)
        assert (1.0 + (alpha * h) ** n) ** -(1.0 - 1.0 / n) == pytest.approx(s, rel=1e-12)
        assert soil._vg_conductivity(s, b, 0.005)[0] == pytest.approx(0.005 * mualem(s, b), rel=1e-10)


@pytest.mark.parametrize("b", [0.4, 3.0, 6.63, 15.0])
def test_van_genuchten_ends_straight(b):
    """ψ = 0 and K = K_s at saturation, K = 0 in an empty layer, no jump at 0.05 and 0.95."""
    assert soil._vg_suction(1.0, b, 0.2)[0] == pytest.approx(0.0, abs=1e-15)
    assert soil._vg_conductivity(1.0, b, 0.005)[0] == pytest.approx(0.005, rel=1e-14)
    assert soil._vg_conductivity(0.0, b, 0.005)[0] == pytest.approx(0.0, abs=1e-300)
    for end in (0.05, 0.95):
        for curve, scale in ((soil._vg_suction, 0.2), (soil._vg_conductivity, 0.005)):
            left, right = curve(end - 1e-12, b, scale)[0], curve(end + 1e-12, b, scale)[0]
            assert left == pytest.approx(right, rel=1e-8)


@pytest.mark.parametrize("retention", ["brooks-corey", "van-genuchten"])
def test_derivatives_are_those_of_the_curves(retention):
    """Against central differences, away from the bends."""
    by_name = {"brooks-corey": (soil._suction, soil._conductivity)}
    by_name["van-genuchten"] = (soil._vg_suction_capped, soil._vg_conductivity)
    for curve in by_name[retention]:
        for b in (1.5, 4.0, 9.0):
            for s in (0.02, 0.2, 0.5, 0.9, 0.97):
                step = 1e-6 * s
                slope = (curve(s + step, b, 0.01)[0] - curve(s - step, b, 0.01)[0]) / (2.0 * step)
                assert curve(s, b, 0.01)[1] == pytest.approx(slope, rel=1e-6, abs=1e-12)


# --- bits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("retention", "numerics", "excess"), CHOICES)
@pytest.mark.parametrize("real", [np.float64, np.float32])
def test_a_cell_does_not_depend_on_its_neighbours(retention, numerics, excess, real):
    """The same bits alone, and in any order among others that need more iterations."""
    case = anything(3 * BLOCK + 5, 5, retention)
    case = {
        name: 0.999 * part.astype(real) if name in ("ice", "sink") else part.astype(real) for name, part in case.items()
    }
    options = {"retention": retention, "numerics": numerics, "saturation_excess": excess}

    def run(cells: list[int] | np.ndarray) -> soil.Step:
        some = {name: part[..., cells] for name, part in case.items() if name != "parameters"}
        return soil.step(**some, parameters=case["parameters"].isel(cell=cells), **options)

    cells = np.arange(3 * BLOCK + 5)
    whole = run(cells)
    for some in (np.random.default_rng(0).permutation(cells), [52], [0], list(range(7, 40))):
        for one, all_of_them in zip(run(some), whole, strict=True):
            assert one.tobytes() == all_of_them[..., some].tobytes()


@compiled
def again(solve, w, times):
    for _ in range(times):
        solve(w)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("real", [np.float64, np.float32])
def test_a_cell_without_a_step_keeps_its_bits_and_nothing_is_allocated(choice, real):
    rng, solve = np.random.default_rng(1), soil.solver(*choice, real=real)
    w = np.zeros((soil.ROWS, BLOCK), real)
    w[soil.M : soil.M + 4] = 1000.0 * DEPTH * 0.45
    w[soil.WATER : soil.WATER + 4] = rng.uniform(0.1, 1.0, (4, BLOCK)) * w[soil.M : soil.M + 4]
    w[soil.B : soil.B + 4], w[soil.PSI : soil.PSI + 4], w[soil.K : soil.K + 4] = 6.0, 0.1, 5e-3
    w[soil.STEP, ::2] = 1800.0
    before = w.copy()
    again(solve, w.reshape(-1), 1)
    assert (w[: soil.SINK, 1::2] == before[: soil.SINK, 1::2]).all()
    assert (w[soil.WATER : soil.WATER + 4, ::2] != before[soil.WATER : soil.WATER + 4, ::2]).any()
    assert (w[soil.MOVED : soil.DRAINAGE + 1, 1::2] == 0.0).all()
    _nrt_python.memsys_enable_stats()
    counts = [rtsys.get_allocation_stats().alloc]
    for times in (1, 100):
        again(solve, w.reshape(-1), times)
        counts.append(rtsys.get_allocation_stats().alloc)
    assert counts[2] - counts[1] == counts[1] - counts[0]  # the view handed over, however many steps


def test_step_runs_the_code_of_the_models_and_leaves_its_inputs():
    case = anything(BLOCK, 2, "brooks-corey")
    before = {name: part.copy() for name, part in case.items()}
    done = soil.step(**case)
    w = np.zeros((soil.ROWS, BLOCK))
    rows = {soil.WATER: "water", soil.ICE: "ice", soil.SINK: "sink"}
    for row, name in rows.items():
        w[row : row + 4] = case[name]
    for row, name in {soil.B: "b", soil.PSI: "psi_s", soil.K: "K_s"}.items():
        w[row : row + 4] = case["parameters"][name]
    w[soil.M : soil.M + 4] = capacity(case["parameters"])
    w[soil.INFILTRATION], w[soil.STEP] = case["infiltration"], case["dt"]
    soil.advance(w.reshape(-1))
    assert w[soil.WATER : soil.WATER + 4].tobytes() == done.water.tobytes()
    for name, part in before.items():
        assert np.array_equal(part, case[name]) if name != "parameters" else part.identical(case[name])
    assert soil.solver(real=np.float32) is single(soil.advance)
    assert soil.solver(numerics="jules") is soil.advance_as_jules


# --- JULES ----------------------------------------------------------------------------------------------------------
@pytest.mark.real_data
@pytest.mark.parametrize(("set_up", "apart"), [("bc", 3e-4), ("bc_bare", 5e-3)])
def test_jules_numerics_reproduce_a_year_of_jules(real_data, set_up, apart):
    """JULES vn5.2 (real*8) at Loobos, half-hourly, given its own surface fluxes and ice: soil moisture of each layer.

    One step from JULES' state within 1e-12 kg m-2, a year's free run within 1e-8. No layer overflows in this year, so
    infiltration is throughfall and melt less JULES' surface runoff, and excess up or down are the same. Newton's method
    stays within the error of a half-hour step, and on bare soil of the largest suction, which JULES does not have.
    """
    folder = real_data / "jules"
    with xr.open_dataset(folder / f"loobos_{set_up}_tstep.nc", decode_times=False) as data:
        data = data.load()
    with xr.open_dataset(folder / f"loobos_{set_up}_initdump.nc", decode_times=False) as dump:
        dump = dump.load()
    names = {"b": "b", "psi_s": "sathh", "K_s": "satcon", "theta_s": "sm_sat"}
    one = xr.Dataset({name: (("layer", "cell"), dump[jules].values) for name, jules in names.items()})
    full = capacity(one)
    infiltration = np.maximum((data["tfall"] + data["snow_melt_gb"] - data["surf_roff"]).values, 0.0)  # 0 is −1e-20
    start = np.concatenate([dump["sthuf"].values * full, data["smcl"].values[:-1].T], axis=1)
    frozen = np.concatenate([np.zeros((4, 1)), data["sthf"].values[:-1].T * full], axis=1)
    taken, water = data["ext"].values, data["smcl"].values
    every = one.isel(cell=np.zeros(len(infiltration), dtype=int))
    for excess in ("up", "down"):
        done = soil.step(
            start,
            taken.T,
            infiltration,
            every,
            1800.0,
            ice=frozen,
            numerics="jules",
            saturation_excess=excess,
        )
        assert np.abs(done.water - water.T).max() < 1e-12
        assert np.abs(done.drainage / 1800.0 - data["sub_surf_roff"].values).max() < 1e-15
        assert done.excess.max() == 0.0
    assert (frozen > 0.0).any(axis=0).sum() > 1000
    off = {}
    for numerics in ("jules", "newton"):
        column, series = Column(one, "brooks-corey", numerics), np.empty_like(water)
        column.water[:] = start[:, :1]
        for k in range(len(infiltration)):
            column.ice[:] = np.minimum(frozen[:, k : k + 1], column.water)
            column.sink[:] = np.minimum(taken[k][:, None], (column.water - column.ice) / 1800.0)
            series[k] = column.step(1800.0, infiltration[k])[:, 0]
        off[numerics] = series - water
    assert np.abs(off["jules"]).max() < 1e-8
    assert np.sqrt((off["newton"] ** 2).mean(axis=0) / (1000.0 * DEPTH[:, 0]) ** 2).max() < apart


# --- refusals -------------------------------------------------------------------------------------------------------
def test_impossible_input_is_refused_with_layer_and_cell():
    case = anything(6, 1, "brooks-corey")
    full = capacity(case["parameters"])
    with pytest.raises(RangeError, match=r"'water': expected at most the capacity.*layer 0, cell 0"):
        soil.step(**{**case, "water": full + 1.0})
    with pytest.raises(RangeError, match="'ice': expected 0 to the water"):
        soil.step(**{**case, "ice": case["water"] + 1.0})
    with pytest.raises(RangeError, match="'sink': expected at most the liquid water in a step"):
        soil.step(**{**case, "sink": case["sink"] + 1.0})
    with pytest.raises(RangeError, match=r"'infiltration': expected finite, found nan \(cell 2\)"):
        soil.step(**{**case, "infiltration": np.where(np.arange(6) == 2, np.nan, 0.0)})
    with pytest.raises(RangeError, match="'infiltration': expected ≥ 0"):
        soil.step(**{**case, "infiltration": np.full(6, -1e-3)})
    with pytest.raises(RangeError, match="'dt': expected finite and > 0, found 0"):
        soil.step(**{**case, "dt": 0.0})
    with pytest.raises(RangeError, match="'K_s': expected finite and > 0"):
        soil.step(**{**case, "parameters": case["parameters"].assign(K_s=0.0 * case["parameters"]["K_s"])})
    with pytest.raises(VariableError, match="expected 'psi_s'"):
        soil.step(**{**case, "parameters": case["parameters"].drop_vars("psi_s")})
    with pytest.raises(VariableError, match=r"'sink': expected shape \(4, 6\), found shape \(4, 5\)"):
        soil.step(**{**case, "sink": case["sink"][:, :5]})
    with pytest.raises(VariableError, match=r"expected shape \(4, cell\), found shape \(3, 6\)"):
        soil.step(**{**case, "water": case["water"][:3]})


def test_unknown_choices_are_refused():
    with pytest.raises(SettingsError, match="found campbell with newton"):
        soil.solver("campbell")
    with pytest.raises(SettingsError, match="'up' or 'down', found 'sideways'"):
        soil.solver(saturation_excess="sideways")
