"""Runoff: the published formulas and their limits, and water that closes with the deep store."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma

from twin.errors import RangeError
from twin.land import runoff, soil
from twin.land.compiled import BLOCK, single
from twin.variables import LAYERS

DEPTH = 1000.0 * np.array(LAYERS)[:, None]
DAY = 86400.0


def block(seed: int, saturation: tuple[float, float] = (0.3, 1.0), frozen: float = 0.0) -> np.ndarray:
    """A work array of random soils of one kind down to 3 m, with rain, roots and a slope."""
    rng = np.random.default_rng(seed)
    w = np.zeros((runoff.ROWS, BLOCK))
    theta_s = rng.uniform(0.35, 0.5, BLOCK)
    w[soil.M : soil.M + 4] = DEPTH * theta_s
    w[soil.WATER : soil.WATER + 4] = rng.uniform(*saturation, (4, BLOCK)) * w[soil.M : soil.M + 4]
    w[soil.ICE : soil.ICE + 4] = frozen * rng.random((4, BLOCK)) * w[soil.WATER : soil.WATER + 4]
    w[soil.B : soil.B + 4] = rng.uniform(3.0, 12.0, BLOCK)
    w[soil.PSI : soil.PSI + 4] = 10.0 ** rng.uniform(-1.5, -0.3, BLOCK)
    w[soil.K : soil.K + 4] = 10.0 ** rng.uniform(-4.0, -1.5, BLOCK)
    w[soil.STEP] = 3600.0
    w[soil.INFILTRATION] = rng.choice([0.0, 1e-5, 2e-3], BLOCK)
    liquid = w[soil.WATER : soil.WATER + 4] - w[soil.ICE : soil.ICE + 4]
    w[soil.SINK : soil.SINK + 4] = rng.choice([0.0, 1e-3, 1.0], (4, BLOCK)) * liquid / 3600.0
    mean = rng.uniform(4.0, 8.0, BLOCK)
    w[runoff.TI_MEAN], w[runoff.DECAY] = mean, rng.uniform(0.5, 5.0, BLOCK)
    w[runoff.FIT], w[runoff.FIT + 1] = runoff.fit_saturated_fraction(mean, rng.uniform(1.0, 3.0, BLOCK))
    w[runoff.DEEP] = rng.choice([0.0, 0.5, 0.95, 1.0 - 1e-9, 1.0], BLOCK)
    runoff.water_table(w.reshape(-1))
    return w


def stored(w: np.ndarray) -> np.ndarray:
    """Water of the layers and of the deep store, kg m-2."""
    theta_s = w[soil.M + 3] / DEPTH[3]
    return w[soil.WATER : soil.WATER + 4].sum(axis=0) + w[runoff.DEEP] * 3000.0 * theta_s


# --- infiltration excess --------------------------------------------------------------------------------------------
def test_even_rain_runs_off_above_the_limit():
    assert runoff.infiltration_excess_point(3.0, 2.0) == 1.0
    assert runoff.infiltration_excess_point(1.0, 2.0) == 0.0


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_rain_on_bare_ground_runs_off_as_its_exponential_distribution_says(share):
    """Where it rains its intensity r has the density ε/R e**(−ε r/R), R the mean of the cell, ε the share rained on."""
    rain, limit = 2e-3, 1.5e-3

    def above(r: float) -> float:
        return (r - limit) * share * share / rain * np.exp(-share * r / rain)

    expected = quad(above, limit, np.inf, epsabs=1e-16)[0]
    assert runoff.infiltration_excess_grid(rain, limit, 0.0, 0.0, share, 1800.0) == pytest.approx(expected, rel=1e-8)


def test_rain_through_leaves_runs_off_by_the_two_published_forms():
    """Best et al. (2011), surface runoff for K Δt ≤ C and for K Δt > C, in their own symbols; the two meet."""
    p, c, c_m, eps, dt = 1.2e-3, 0.4, 0.9, 0.3, 1800.0
    k = 0.3 / dt
    low = p * c / c_m * np.exp(-eps * k * c_m / (p * c)) + p * (1.0 - c / c_m) * np.exp(-eps * c_m / (p * dt))
    assert runoff.infiltration_excess_grid(p, k, c, c_m, eps, dt) == pytest.approx(low, rel=1e-13)
    k = 0.5 / dt
    high = p * np.exp(-eps * (k * dt + c_m - c) / (p * dt))
    assert runoff.infiltration_excess_grid(p, k, c, c_m, eps, dt) == pytest.approx(high, rel=1e-13)
    meet = [runoff.infiltration_excess_grid(p, k / dt, c, c_m, eps, dt) for k in (0.4 - 1e-12, 0.4 + 1e-12)]
    assert meet[0] == pytest.approx(meet[1], rel=1e-10)


def test_grid_runoff_is_part_of_what_falls_through():
    """0 ≤ runoff ≤ throughfall = R [(1 − C/C_m) e**(−ε C_m/(R Δt)) + C/C_m], whatever comes; none without rain."""
    rng = np.random.default_rng(0)
    for _ in range(5000):
        rain, limit = 10.0 ** rng.uniform(-8, -1.5), rng.choice([0.0, 10.0 ** rng.uniform(-6, -1)])
        capacity, dt, share = rng.uniform(0.01, 2.0), rng.choice([1800.0, 3600.0]), rng.choice([0.3, 1.0])
        canopy = capacity * rng.choice([0.0, 1.0, rng.random()])
        fell = rain * ((1 - canopy / capacity) * np.exp(-share * capacity / (rain * dt)) + canopy / capacity)
        ran = runoff.infiltration_excess_grid(rain, limit, canopy, capacity, share, dt)
        assert 0.0 <= ran <= fell * (1.0 + 1e-12) + 1e-300
    assert runoff.infiltration_excess_grid(0.0, 1e-3, 0.5, 1.0, 1.0, 1800.0) == 0.0


# --- PDM ------------------------------------------------------------------------------------------------------------
def test_pdm_limits():
    """Empty and full: nothing runs off but for the smallest stores (of one per cent, 2 % of the cell); all runs off."""
    assert runoff.pdm_runoff(1.0, 400.0, 400.0, 1.0) == 1.0
    assert runoff.pdm_runoff(0.0, 300.0, 400.0, 1.0) == 0.0
    assert runoff.pdm_runoff(8.0, 0.0, 400.0, 1.0) == pytest.approx(0.25 * 8.0**2 / 400.0, rel=1e-12)  # b = 1
    assert runoff.pdm_runoff(1000.0, 0.0, 400.0, 1.0) == pytest.approx(600.0, rel=1e-14)  # fills and spills


@pytest.mark.parametrize("b", [0.3, 1.0, 2.5])
def test_pdm_is_moores_distribution_of_stores(b):
    """Stores of capacity c, share b/c_max (1 − c/c_max)**(b−1), filled to c*: each spills what it cannot hold."""
    capacity = 400.0
    c_max = (b + 1.0) * capacity

    def over_stores(content) -> float:
        """∫ content(c) over the stores, by the share u = 1 − (1 − c/c_max)**b of the cell with smaller ones."""
        return quad(lambda u: content(c_max * (1.0 - (1.0 - u) ** (1.0 / b))), 0.0, 1.0, epsabs=1e-10, limit=500)[0]

    for s, arriving in ((0.1, 5.0), (0.5, 60.0), (0.9, 30.0), (0.99, 500.0)):
        critical = c_max * (1.0 - (1.0 - s) ** (1.0 / (b + 1.0)))
        assert over_stores(lambda c, k=critical: min(c, k)) == pytest.approx(s * capacity, rel=1e-6)
        kept = over_stores(lambda c, k=critical + arriving: min(c, k)) - s * capacity
        found = runoff.pdm_runoff(arriving, s * capacity, capacity, b)
        assert found == pytest.approx(arriving - kept, rel=1e-5)


def test_pdm_only_moves_water_from_infiltration_to_excess():
    for seed in range(200):
        w = block(seed, (0.0, 1.0), frozen=0.5)
        before = w.copy()
        runoff.saturation_excess_pdm(w.reshape(-1))
        moved = w[soil.STEP] * (before[soil.INFILTRATION] - w[soil.INFILTRATION])
        np.testing.assert_allclose(w[soil.EXCESS], moved, atol=1e-12)
        assert (w[soil.EXCESS] >= 0.0).all() and (w[soil.INFILTRATION] >= 0.0).all()
        unchanged = [row for row in range(runoff.ROWS) if row not in (soil.EXCESS, soil.INFILTRATION)]
        np.testing.assert_array_equal(w[unchanged], before[unchanged])


# --- TOPMODEL -------------------------------------------------------------------------------------------------------
def test_saturated_fraction_is_the_integral_of_the_gamma_density():
    mean, deviation = 5.99, 2.35
    density = gamma(a=(mean / deviation) ** 2, scale=deviation**2 / mean)
    assert density.mean() == pytest.approx(mean) and density.std() == pytest.approx(deviation)
    for index in (2.0, 6.0, 8.5, 9.9):
        expected = quad(density.pdf, index, runoff.TI_MAX)[0]
        assert runoff.saturated_fraction(index, mean, deviation) == pytest.approx(expected, rel=1e-8)


def test_the_exponential_is_close_to_the_gamma_distribution():
    """Within 0.06 of the cell for means of 4 to 8 and deviations of 1.5 to 3, from the mean index to the largest."""
    mean, deviation = (grid.ravel() for grid in np.meshgrid(np.linspace(4.0, 8.0, 9), np.linspace(1.5, 3.0, 7)))
    a, c = runoff.fit_saturated_fraction(mean, deviation)
    index = np.linspace(mean, runoff.TI_MAX, 50)
    error = a * np.exp(-c * index) - runoff.saturated_fraction(index, mean, deviation)
    assert np.abs(error).max() < 0.06
    assert (c > 0.0).all()
    assert runoff.fit_saturated_fraction(np.array([11.0]), np.array([2.0])) == (0.0, 0.0)
    with pytest.raises(RangeError, match="mean of the topographic index: expected finite and > 0, found nan"):
        runoff.fit_saturated_fraction(np.array([np.nan]), np.array([2.0]))


def test_transmissivity_is_the_integral_of_conductivity():
    """K exp(−f (z − 3 m)) from the water table, at least 3 m, to 6 m."""
    for table, k, f in ((3.0, 5e-3, 3.0), (3.7, 1e-3, 0.5), (0.4, 2e-3, 1.0)):
        expected = quad(lambda z, k=k, f=f: k * np.exp(-f * (z - 3.0)), max(table, 3.0), 6.0)[0]
        assert runoff.deep_transmissivity(table, k, f) == pytest.approx(expected, rel=1e-10)
    assert runoff.deep_transmissivity(6.0, 5e-3, 3.0) == pytest.approx(0.0, abs=1e-18)


def test_water_table_of_a_layer_at_rest():
    """The saturation of ψ = ψ_s + z_w − z, integrated numerically, gives back z_w; within 1 mm."""
    rng = np.random.default_rng(4)
    for _ in range(300):
        b, psi_s = rng.uniform(0.6, 15.0), 10.0 ** rng.uniform(-2.5, 0.0)
        depth = rng.choice([0.1, 0.25, 0.65, 2.0, 3.0])
        table = depth * rng.choice([rng.random(), 10.0 ** rng.uniform(-3.0, 0.0)])
        above = quad(lambda z, t=table, p=psi_s, b=b: (1.0 + (t - z) / p) ** (-1.0 / b), 0.0, table)[0]
        s = (above + depth - table) / depth
        assert runoff.depth_of_table(s, depth, b, psi_s) == pytest.approx(table, abs=1e-3)
    assert runoff.depth_of_table(1.0, 2.0, 6.0, 0.1) == 0.0
    assert runoff.depth_of_table(0.0, 2.0, 6.0, 0.1) == 2.0


def test_the_water_table_is_in_the_lowest_layer_that_is_not_full():
    w = block(0)
    full = w[soil.M : soil.M + 4].copy()
    for cell, water in enumerate(
        ([0.5, 0.5, 0.5, 0.5, 0.9], [0.5, 0.5, 0.5, 0.9, 1.0], [0.5, 0.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0])
    ):
        w[soil.WATER : soil.WATER + 4, cell] = np.array(water[:4]) * full[:, cell]
        w[runoff.DEEP, cell] = water[4]
    runoff.water_table(w.reshape(-1))
    table = w[runoff.WATER_TABLE]
    assert 3.0 < table[0] <= 6.0 and 1.0 < table[1] <= 3.0 and 0.1 < table[2] <= 0.35 and table[3] == 0.0


def test_the_deeper_the_table_the_less_is_saturated_and_drawn():
    """Saturated fraction within 0 and 1, baseflow ≥ 0, both falling with the water table; none of either at 6 m."""
    for seed in range(20):
        fractions, flows = [], []
        for table in np.linspace(0.0, runoff.DEEPEST, 61):
            w = block(seed, (0.9, 1.0))
            w[soil.SINK : soil.SINK + 4] = 0.0
            w[runoff.WATER_TABLE], w[runoff.DEEP] = table, 1.0
            runoff.topmodel_before(w.reshape(-1))
            fractions.append(w[runoff.SATURATED].copy())
            flows.append(w[runoff.BASEFLOW] + w[runoff._DEEP_FLOW])
        fractions, flows = np.array(fractions), np.array(flows)
        assert fractions.min() >= 0.0 and fractions.max() <= 1.0 and flows.min() >= 0.0
        assert (np.diff(fractions, axis=0) <= 0.0).all() and (np.diff(flows, axis=0) <= 1e-15).all()
        assert (fractions[-1] == 0.0).all() and (flows[-1] < 1e-12).all() and (flows[0] > 0.0).all()


def test_baseflow_of_a_full_cell_is_its_transmissivity_over_the_slope():
    """T(0) exp(−Λ), T(0) = 3 m K_s + K_s (1 − exp(−3 f))/f: Gedney & Cox (2003)."""
    w = block(1, (1.0, 1.0))
    w[soil.SINK : soil.SINK + 4], w[runoff.WATER_TABLE], w[runoff.DEEP] = 0.0, 0.0, 1.0
    k, f = w[soil.K].copy(), w[runoff.DECAY]
    runoff.topmodel_before(w.reshape(-1))
    expected = 3600.0 * np.exp(-w[runoff.TI_MEAN]) * k * (3.0 + (1.0 - np.exp(-3.0 * f)) / f)
    np.testing.assert_allclose(w[runoff.BASEFLOW] + w[runoff._DEEP_FLOW], expected, rtol=1e-12)


@pytest.mark.parametrize("choice", [(), ("van-genuchten",), ("brooks-corey", "jules")])
def test_topmodel_closes_with_its_deep_store(choice):
    """A step of 500 blocks of random soils, dry to flooded, part frozen; closure < 1e-9 kg m-2, nothing negative."""
    solve = soil.solver(*choice)
    worst = 0.0
    for seed in range(500):
        w = block(seed, (0.5, 1.0) if choice[1:] else (0.0, 1.0), frozen=0.9 if seed % 2 else 0.0)
        flat = w.reshape(-1)
        roots = w[soil.SINK : soil.SINK + 4].copy()
        came = w[soil.STEP] * (w[soil.INFILTRATION] - roots.sum(axis=0))
        before = stored(w)
        runoff.topmodel_before(flat)
        assert (w[soil.SINK : soil.SINK + 4] >= roots).all()
        solve(flat)
        runoff.topmodel_after(flat)
        worst = max(worst, np.abs(stored(w) - before - came + w[soil.EXCESS] + w[runoff.BASEFLOW]).max())
        water, ice = w[soil.WATER : soil.WATER + 4], w[soil.ICE : soil.ICE + 4]
        assert np.isfinite(w).all() and (water >= ice).all() and (water <= w[soil.M : soil.M + 4]).all()
        assert (w[runoff.DEEP] <= 1.0).all() and (w[runoff.BASEFLOW] >= 0.0).all() and (w[soil.EXCESS] >= 0.0).all()
        if not choice[1:]:
            assert (w[runoff.DEEP] >= 0.0).all()
        np.testing.assert_array_equal(w[soil.MOVED + 3], w[soil.DRAINAGE])
    assert worst < 1e-9


def test_under_steady_rain_topmodel_balances_it():
    """After eleven years of steady rain, surface runoff and baseflow together are the rain."""
    w = block(2, (0.8, 0.9))
    w[soil.SINK : soil.SINK + 4], w[soil.K : soil.K + 4], w[runoff.TI_MEAN] = 0.0, 5e-3, 6.0
    w[runoff.FIT], w[runoff.FIT + 1] = runoff.fit_saturated_fraction(np.full(BLOCK, 6.0), np.full(BLOCK, 2.4))
    w[runoff.DECAY], w[runoff.DEEP], w[soil.STEP], rain = 3.0, 0.95, 10800.0, 5e-6
    flat = w.reshape(-1)
    for k in range(8 * 365 * 12):
        if k == 8 * 365 * 11:
            w[soil.EXCESS], w[runoff.BASEFLOW] = 0.0, 0.0
        w[soil.SINK : soil.SINK + 4], w[soil.INFILTRATION] = 0.0, rain
        runoff.topmodel_before(flat)
        soil.advance(flat)
        runoff.topmodel_after(flat)
    year = w[soil.EXCESS] + w[runoff.BASEFLOW]
    np.testing.assert_allclose(year, rain * 365 * DAY, rtol=0.02)
    assert (w[soil.EXCESS] > 0.0).all() and (w[runoff.BASEFLOW] > w[soil.EXCESS]).all()


def test_runoff_does_not_depend_on_neighbours_and_runs_in_single_precision():
    """Bits of a cell among copies of itself; float32 within a few of its roundings of a column of 1,500 kg m-2."""
    w = block(9)
    alone = np.repeat(w[:, 3:4], BLOCK, axis=1)
    small = w.astype(np.float32)
    runs = ((w, lambda f: f), (alone, lambda f: f), (small, single))
    for values, precision in runs:
        for part in (runoff.saturation_excess_pdm, runoff.topmodel_before, soil.advance, runoff.topmodel_after):
            precision(part)(values.reshape(-1))
    assert w[: soil.SOLVED, 3].tobytes() == alone[: soil.SOLVED, 0].tobytes()
    assert w[runoff.WATER_TABLE :, 3].tobytes() == alone[runoff.WATER_TABLE :, 0].tobytes()
    np.testing.assert_allclose(small[soil.WATER : soil.WATER + 4], w[soil.WATER : soil.WATER + 4], atol=2e-3)
    np.testing.assert_allclose(small[runoff.WATER_TABLE], w[runoff.WATER_TABLE], atol=2e-3)
