"""Classes against the percentile table of the U.S. Drought Monitor."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from twin.indices import area_fractions, drought_class, dsci


@pytest.mark.parametrize(
    ("percentile", "code"),
    [
        *[(30.01, 0), (30.0, 1), (20.01, 1), (20.0, 2), (10.01, 2), (10.0, 3), (5.01, 3), (5.0, 4), (2.01, 4)],
        *[(2.0, 5), (0.0, 5), (50.0, 0), (69.9, 0), (70.0, -1), (80.0, -2), (90.0, -3), (95.0, -4), (98.0, -5)],
        *[(100.0, -5), (np.nan, -128)],
    ],
)
def test_the_printed_bounds(percentile, code):
    """USDM: D0 20.01-30, D1 10.01-20, D2 5.01-10, D3 2.01-5, D4 0-2 %; the wet side is its mirror image."""
    assert drought_class(np.array([percentile], dtype=np.float32)).tolist() == [code]


def test_uniform_percentiles_give_the_areas_of_the_table():
    codes = drought_class(np.linspace(0.0, 100.0, 100_001))
    shares = [float((codes == code).mean()) for code in (0, 1, 2, 3, 4, 5)]
    np.testing.assert_allclose(shares, [0.4, 0.1, 0.1, 0.05, 0.03, 0.02], atol=2e-5)


def test_labels_stay():
    percentile = xr.DataArray(
        [[10.0, np.nan]], {"lat": ("cell", [1.0, 2.0])}, ("time", "cell"), "soil_moisture_percentile"
    )
    codes = drought_class(percentile)
    assert codes.name == "drought_class" and codes.dtype == np.int8 and codes["lat"].values.tolist() == [1.0, 2.0]


def test_area_counts_what_is_known():
    codes = np.array([[5, 0, -128], [-128, -128, -128], [1, 1, -5]], dtype=np.int8)
    shares = area_fractions(codes, [1.0, 3.0, 100.0])
    assert float(shares[0].sel(code=5)) == 0.25 and float(shares[0].sum()) == 1.0
    assert np.isnan(shares[1]).all()
    assert float(shares[2].sel(code=-5)) == pytest.approx(100 / 104)


def test_dsci_runs_from_0_to_500():
    """Exclusive areas: 1·D0 + 2·D1 + 3·D2 + 4·D3 + 5·D4 in percent."""
    codes = xr.DataArray([[0, -5], [5, 5], [1, 4], [-128, -128]], dims=("time", "cell")).astype(np.int8)
    found = dsci(area_fractions(codes, [1.0, 1.0]))
    np.testing.assert_allclose(found.values, [0.0, 500.0, 50.0 + 200.0, np.nan])
