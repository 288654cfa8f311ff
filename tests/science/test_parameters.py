"""Pedotransfer against published and independently known numbers."""

from __future__ import annotations

import numpy as np
import pytest

from twin import parameters
from twin.errors import RangeError, SettingsError
from twin.variables import LAYERS


def one(sand: float, clay: float, variant: str = "cosby"):
    return parameters.from_texture([sand], [1.0 - sand - clay], [clay], variant).isel(cell=0)


def test_cosby_at_loobos():
    """Cosby's log10 regression at the Loobos texture (clay 0.23, sand 0.27): 0.397 m and 0.00277 kg m-2 s-1."""
    soil = one(0.27, 0.23)
    assert float(soil["psi_s"]) == pytest.approx(0.397, abs=5e-4)
    assert float(soil["K_s"]) == pytest.approx(0.00277, abs=5e-6)


def test_the_met_office_reading_gives_the_ancillary_of_jules_at_loobos():
    """The values of the JULES example at Loobos, to their five digits."""
    soil = one(0.27, 0.23, "cosby-um")
    assert float(soil["psi_s"]) == pytest.approx(0.049456, abs=5e-7)
    assert float(soil["K_s"]) == pytest.approx(0.0047150, abs=5e-7)
    assert float(soil["b"]) == pytest.approx(6.63, abs=0.005)
    assert float(soil["theta_s"]) == pytest.approx(0.4581, abs=5e-4)


def test_critical_and_wilting_points_lie_on_the_retention_curve():
    soil = one(0.4, 0.2)
    for name, suction in (("theta_c", 3.364), ("theta_w", 152.9)):
        saturation = float(soil[name] / soil["theta_s"])
        assert float(soil["psi_s"]) * saturation ** -float(soil["b"]) == pytest.approx(suction, rel=1e-12)


def test_every_texture_gives_an_ordered_usable_soil():
    sand, silt, clay = np.random.default_rng(0).dirichlet([0.5, 0.5, 0.5], 5000).T
    for variant in parameters.VARIANTS:
        soil = parameters.from_texture(sand, silt, clay, variant)
        assert (soil["theta_w"] > 0).all() and (soil["theta_w"] < soil["theta_c"]).all()
        assert (soil["theta_c"] <= soil["theta_s"]).all()
        for name, (low, high) in parameters.BOUNDS.items():
            assert (soil[name] >= low).all() and (soil[name] <= high).all()
        assert soil.attrs["pedotransfer"] == variant


def test_clipping_is_counted():
    soil = parameters.from_texture([0.0, 0.4, 0.0], [0.0, 0.4, 0.1], [1.0, 0.2, 0.9], "cosby-um")
    raw = parameters.hydraulics(np.array([0.0, 0.4, 0.0]), np.array([1.0, 0.2, 0.9]), parameters.VARIANTS["cosby-um"])
    beyond = sum(int(((raw[k] < low) | (raw[k] > high)).sum()) for k, (low, high) in parameters.BOUNDS.items())
    assert sum(soil.attrs[f"clipped_{name}"] for name in parameters.BOUNDS) == beyond


def test_roots_add_up_and_thin_out_as_in_jules():
    """r_k = [exp(−z_{k−1}/d) − exp(−z_k/d)]/[1 − exp(−3/d)], the form of JULES vn5.2."""
    roots, z = parameters.root_fractions(0.5), np.concatenate([[0.0], np.cumsum(LAYERS)])
    assert roots.sum() == pytest.approx(1.0, abs=1e-15)
    assert roots[0] == pytest.approx((1 - np.exp(-0.1 / 0.5)) / (1 - np.exp(-3.0 / 0.5)), rel=1e-12)
    assert (np.diff(roots / np.diff(z)) < 0).all()


def test_grass_is_the_reference_crop():
    soil = one(0.4, 0.2)
    assert float(soil["surface_resistance"]) == 70.0 and float(soil["albedo"]) == 0.23
    assert 0.0 < float(soil["vegetation_cover"]) < 1.0
    assert soil["root_fraction"].dims == ("layer",)


def test_texture_that_is_none_is_refused():
    with pytest.raises(RangeError, match=r"'sand'.*expected a fraction, 0 to 1, found 43.0"):
        parameters.from_texture([43.0], [39.0], [18.0])
    with pytest.raises(RangeError, match=r"'clay'.*found nan \(cell 1\)"):
        parameters.from_texture([0.4, 0.4], [0.4, 0.4], [0.2, np.nan])
    with pytest.raises(RangeError, match=r"sand \+ silt \+ clay.*found 0.700"):
        parameters.from_texture([0.3], [0.2], [0.2])
    with pytest.raises(SettingsError, match="cosby, cosby-um"):
        parameters.from_texture([0.4], [0.4], [0.2], "vereecken")
