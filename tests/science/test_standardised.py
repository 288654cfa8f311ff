"""Standardised indices against R's SPEI, climate_indices and xclim where they are right, and beside them where not."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import structlog
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import climatology
from twin.errors import RangeError, SettingsError, TimeError, VariableError
from twin.indices import special
from twin.indices.distributions import FAMILIES, FEWEST, fit
from twin.indices.standardised import (
    FARTHEST,
    STANDARD_CLASSES,
    accumulate,
    calibrate,
    spei,
    spi,
    ssmi,
    standard_class,
    standardise,
    water_balance,
)
from twin.indices.units import rain_amounts

MONTHS = pd.date_range("1951-01-01", periods=12 * 60, freq="MS")
DAYS = pd.date_range("1981-01-01", "2020-12-31")


def rain(values: np.ndarray, time=MONTHS, units: str = "mm") -> xr.DataArray:
    values = np.asarray(values, dtype=np.float64)
    dims = ("time", "cell")[: values.ndim]
    return xr.DataArray(values, {"time": time[: len(values)]}, dims, "pr", {"units": units})


def gamma_rain(cells: int, seed: int = 0, dry: float = 0.0, time=MONTHS) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.5, 4.0, (12, cells))[time.month - 1]
    return rain(rng.gamma(shape, 40.0) * (rng.random(shape.shape) >= dry), time)


def daily_rain(cells: int, seed: int = 0) -> xr.DataArray:
    """Showers of a seasonal climate, mm day-1."""
    rng = np.random.default_rng(seed)
    wet = 0.35 + 0.25 * np.cos(2 * np.pi * DAYS.day_of_year.to_numpy() / 365.25)[:, None]
    return rain(rng.gamma(0.6, 9.0, (DAYS.size, cells)) * (rng.random((DAYS.size, cells)) < wet), DAYS, "mm day-1")


# --- special functions ----------------------------------------------------------------------------------------------
def test_incomplete_gamma_against_scipy():
    """To 1e-10 for shapes from 0.01 to 1000, over the whole of the distribution and far into both tails."""
    rng = np.random.default_rng(0)
    a = 10.0 ** rng.uniform(-2, 3, 20_000)
    x = np.where(rng.random(a.size) < 0.5, np.abs(a + 3 * np.sqrt(a) * rng.standard_normal(a.size)), a * rng.random())
    lower, upper = special.gamma_tails(a, x)
    np.testing.assert_allclose(lower, scipy.special.gammainc(a, x), atol=1e-10)
    np.testing.assert_allclose(upper, scipy.special.gammaincc(a, x), atol=1e-10)
    tail = scipy.special.gammaincc(3.0, np.linspace(20.0, 80.0, 50))
    np.testing.assert_allclose(special.gamma_tails(3.0, np.linspace(20.0, 80.0, 50))[1], tail, rtol=1e-12)


def test_incomplete_beta_against_scipy():
    """To 1e-10 for both shapes from 0.1 to 10 000, at values that occur."""
    rng = np.random.default_rng(1)
    a, b = 10.0 ** rng.uniform(-1, 4, (2, 20_000))
    x = rng.beta(a, b)
    lower, upper = special.beta_tails(a, b, x)
    np.testing.assert_allclose(lower, scipy.special.betainc(a, b, x), atol=1e-10)
    np.testing.assert_allclose(upper, scipy.special.betaincc(a, b, x), atol=1e-10)
    edges = special.beta_tails([2.0, 2.0, 2.0, np.nan], 3.0, [-0.1, 1.1, np.nan, 0.5])
    np.testing.assert_array_equal(edges, [[0.0, 1.0, np.nan, np.nan], [1.0, 0.0, np.nan, np.nan]])


def test_incomplete_gamma_of_large_shapes():
    """Up to 1e5 against scipy; beyond, against Edgeworth's expansion, whose next term is of order 1/a."""
    rng = np.random.default_rng(1)
    a = 10.0 ** rng.uniform(3, 5, 20_000)
    x = a + 4 * np.sqrt(a) * rng.standard_normal(a.size)
    np.testing.assert_allclose(special.gamma_tails(a, x)[0], scipy.special.gammainc(a, x), atol=1e-10)
    z, a = np.linspace(-5, 5, 41), 1e8
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    expected = special.normal_cdf(z) - (z**2 - 1.0) * density / (3.0 * np.sqrt(a))
    np.testing.assert_allclose(special.gamma_tails(a, a + z * np.sqrt(a))[0], expected, atol=1e-8)


def test_a_value_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(2)
    a, x = rng.uniform(0.01, 50.0, 501), rng.uniform(0.0, 100.0, 501)
    whole = special.gamma_tails(a, x)
    for tail in (0, 1):
        alone = [special.gamma_tails(a[i : i + 1], x[i : i + 1])[tail][0] for i in range(501)]
        np.testing.assert_array_equal(whole[tail], alone)


def test_missing_and_edges_of_the_incomplete_gamma():
    lower, upper = special.gamma_tails([2.0, 2.0, np.nan, 2.0, 2.0], [0.0, -1.0, 1.0, np.nan, np.inf])
    np.testing.assert_array_equal(lower, [0.0, 0.0, np.nan, np.nan, 1.0])
    np.testing.assert_allclose(upper, [1.0, 1.0, np.nan, np.nan, 0.0], atol=1e-300)


def test_log_gamma_and_the_normal_distribution_against_scipy():
    a = 10.0 ** np.random.default_rng(3).uniform(-12, 12, 10_000)
    np.testing.assert_allclose(special.log_gamma(a), scipy.special.gammaln(a), rtol=1e-12, atol=1e-12)
    z = np.linspace(-30.0, 8.0, 2001)
    np.testing.assert_allclose(special.normal_cdf(z), scipy.special.ndtr(z), rtol=1e-12)
    lower, upper = scipy.special.ndtr(z), scipy.special.ndtr(-z)
    np.testing.assert_allclose(special.normal_quantile(lower, upper), z, atol=1e-12)
    np.testing.assert_allclose(special.normal_quantile(lower[z < 4]), z[z < 4], atol=1e-9)  # 1 − Φ(4) has 12 digits
    assert np.isnan(special.normal_quantile(np.nan))


# --- distributions --------------------------------------------------------------------------------------------------
SCIPY = {
    "gamma": lambda p: scipy.stats.gamma(p[0], scale=p[1]),
    "pearson3": lambda p: scipy.stats.pearson3(p[2], p[0], p[1]),
    "log-logistic": lambda p: scipy.stats.kappa4(-1.0, p[2], p[0], p[1]),
    "gev": lambda p: scipy.stats.genextreme(p[2], p[0], p[1]),
    "beta": lambda p: scipy.stats.beta(p[0], p[1]),
}
TRUE = {
    "gamma": (2.5, 30.0),
    "pearson3": (100.0, 40.0, 0.9),
    "log-logistic": (10.0, 25.0, -0.15),
    "gev": (100.0, 30.0, 0.1),
    "beta": (20.0, 60.0),
}


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, family in FAMILIES.items() for m in family.methods])
def test_a_large_sample_gives_its_distribution_back(name, method):
    """Tails as scipy has them; parameters within the sampling error of 200 000 values."""
    family, true = FAMILIES[name], SCIPY[name](TRUE[name])
    x = true.rvs(200_000, random_state=4)
    found = fit(family, method, x[:, None, None], False)
    np.testing.assert_allclose([p.item() for p in found], TRUE[name], rtol=0.03)
    lower, upper = family.tails(x[:2000], *(np.full(2000, p) for p in TRUE[name]))
    np.testing.assert_allclose(lower, true.cdf(x[:2000]), atol=1e-9)
    np.testing.assert_allclose(upper, true.sf(x[:2000]), atol=1e-9)


def test_maximum_likelihood_is_scipys():
    x = np.random.default_rng(5).gamma(0.7, 20.0, (40, 3))
    shape, scale = fit(FAMILIES["gamma"], "ml", x[:, None], False)
    for cell in range(3):
        expected = scipy.stats.gamma.fit(x[:, cell], floc=0.0)
        np.testing.assert_allclose([shape[0, cell], scale[0, cell]], [expected[0], expected[2]], rtol=1e-3)


def test_mirrored_values_have_mirrored_tails():
    """Pearson III of negative skew is that of positive skew, read backwards."""
    x = np.linspace(-3.0, 3.0, 13)
    tails = FAMILIES["pearson3"].tails
    np.testing.assert_allclose(tails(x, 0.0, 1.0, -0.8)[0], tails(-x, 0.0, 1.0, 0.8)[1], atol=1e-12)
    np.testing.assert_allclose(tails(x, 0.0, 1.0, 0.0)[0], scipy.special.ndtr(x), atol=1e-6)


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, family in FAMILIES.items() for m in family.methods])
def test_leaving_a_year_out_is_fitting_the_others(name, method):
    rng = np.random.default_rng(6)
    sample = SCIPY[name](TRUE[name]).rvs((12, 2, 3), random_state=rng)
    sample[3, 0, 1], sample[5:7, 1, 2] = np.nan, np.nan
    left = fit(FAMILIES[name], method, sample, True)
    for year in range(12):
        expected = fit(FAMILIES[name], method, np.delete(sample, year, axis=0), False)
        for a, b in zip(left, expected, strict=True):
            np.testing.assert_allclose(a[year], b, rtol=1e-8)


def test_a_fit_pools_the_steps_around_across_the_turn_of_the_year():
    sample = np.random.default_rng(7).beta(20.0, 60.0, (10, 73, 1))
    found = fit(FAMILIES["beta"], "moments", sample, False, pool=3)
    flat = np.concatenate([np.full(3, np.nan), sample.ravel(), np.full(3, np.nan)])
    first = np.stack([flat[73 * year : 73 * year + 7] for year in range(10)]).reshape(-1, 1, 1)
    expected = fit(FAMILIES["beta"], "moments", first, False)
    np.testing.assert_allclose([p[0, 0] for p in found], [p[0, 0] for p in expected], rtol=1e-9)


def test_a_sample_that_cannot_be_fitted_is_missing():
    constant, short = np.full((30, 1, 1), 7.0), np.full((30, 1, 1), np.nan)
    short[: FEWEST - 1] = np.arange(1.0, FEWEST)[:, None, None]
    for name, family in FAMILIES.items():
        for method in family.methods:
            for sample in (constant, short):
                assert all(np.isnan(p).all() for p in fit(family, method, 0.01 * sample, False)), (name, method)


# --- R's SPEI ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wichita(real_data):
    table = pd.read_csv(real_data / "indices/r_spei/wichita_with_references.csv")
    time = pd.to_datetime({"year": table.YEAR, "month": table.MONTH, "day": 1}).values
    table["balance"] = table.PRCP - table.thornthwaite_out
    return table, {name: rain(table[name].values, pd.DatetimeIndex(time)) for name in ("PRCP", "balance")}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("column", "scale", "reference", "least"),
    [("spei_1_vector", 1, None, 30), ("spei_12_vector", 12, None, 30), ("spei_refst_refend", 12, (1989, 2004), 16)],
)
def test_spei_is_that_of_r(wichita, column, scale, reference, least):
    """Log-logistic by unbiased PWM: to 1e-8; where R says infinite, beyond the end of the distribution, we say 8."""
    table, series = wichita
    found = spei(series["balance"], scale, reference, least=least).values[:, 0]
    np.testing.assert_allclose(found, np.clip(table[column], -FARTHEST, FARTHEST), atol=1e-8)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("column", "scale", "reference", "distribution"),
    [
        ("spi_1_vector", 1, None, "gamma"),
        ("spi_gamma", 1, None, "gamma"),
        ("spi_pe3", 1, None, "pearson3"),
        ("spi_12_vector", 12, None, "gamma"),
        ("spi_refst_refend", 12, (1989, 2004), "gamma"),
    ],
)
def test_spi_is_that_of_r_in_months_that_always_have_rain(wichita, column, scale, reference, distribution):
    """By unbiased PWM, to 1e-6."""
    table, series = wichita
    method, least = "lmoments", 16 if reference else 30
    found = spi(series["PRCP"], scale, reference, distribution=distribution, method=method, least=least).values[:, 0]
    dry = table.MONTH.isin(table.MONTH[table.PRCP == 0.0] if scale == 1 else []).values
    assert dry.sum() == (95 if scale == 1 else 0)
    np.testing.assert_allclose(found[~dry], np.clip(table[column][~dry], -FARTHEST, FARTHEST), atol=1e-6)


@pytest.mark.real_data
def test_r_leaves_dry_months_out_of_the_fit_and_then_forgets_them(wichita):
    """In its stored results G stands for H: no rain, seen once or twice in 32 years, is infinitely rare with gamma, and
    all other months are too dry by p0. Ours puts no rain at the middle of its frequency, and agrees with R's G."""
    table, series = wichita
    found = spi(series["PRCP"], 1, method="lmoments").values[:, 0]
    for month, dry in ((1, 1), (2, 2), (11, 1)):
        rows = (month == table.MONTH).values
        x, r = table.PRCP[rows].values, table.spi_1_vector[rows].values
        assert (r[x == 0] == -np.inf).all() and (x == 0).sum() == dry
        places = rows.sum() + 1
        np.testing.assert_allclose(found[rows][x == 0], scipy.special.ndtri((dry + 1) / (2 * places)), atol=1e-12)
        expected = scipy.special.ndtri(dry / places + (1 - dry / places) * scipy.special.ndtr(r[x > 0]))
        np.testing.assert_allclose(found[rows][x > 0], expected, atol=1e-6)


@pytest.mark.real_data
def test_all_sites_of_r_are_standard_normal(real_data):
    """Eleven climates, from Punta Arenas to Sao Paulo: SPEI of mean 0 and deviation 1 in each month, none missing."""
    table = pd.read_csv(real_data / "indices/r_spei/balance_11_sites.csv")
    balance = rain(table.values, pd.date_range("1900-01-01", periods=len(table), freq="MS"))
    z = spei(balance, 3)
    assert z.isnull().sum() == 2 * 11 and np.abs(z).max() < FARTHEST
    months = z.groupby("time.month")
    assert np.abs(months.mean()).max() < 0.06 and np.abs(months.std() - 1.0).max() < 0.06


# --- climate_indices --------------------------------------------------------------------------------------------------
@pytest.mark.real_data
@pytest.mark.parametrize("scale", [1, 3])
def test_spi_is_that_of_climate_indices_on_imerg(real_data, scale):
    """Stored output of an older version, float32, clipped: the same; where it rained nothing that version has none."""
    folder = real_data / "indices/imerg_spi"
    theirs = xr.open_dataset(folder / f"IMERG_spi_gamma_{scale}_month.nc")[f"spi_gamma_{scale}_month"]
    theirs = theirs.isel(lat=theirs["lat"].values > -8.8)  # what the file of rain holds
    java = xr.open_dataset(folder / "java_imerg_monthly_2000-06_2020-12.nc")["precipitation"]
    some = java.sel(time=slice(None, "2020-03")).sel(lat=theirs.lat, lon=theirs.lon, method="nearest")
    values = some.transpose("time", "lat", "lon").values.reshape(238, -1)
    expected = theirs.transpose("time", "lat", "lon").values.reshape(238, -1)
    pr = rain(values, pd.DatetimeIndex(some["time"].values))
    found = spi(pr, scale, least=19, zero="upper", clip=3.09).values
    known = ~np.isnan(expected)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-5)
    lost = ~known & ~np.isnan(found)
    assert lost.sum() == (6 if scale == 1 else 0) and (values[lost] == 0.0).all()


@pytest.fixture(scope="module")
def climate_indices():
    """The package, silent, and with its compiled kernels, which it only uses where numpy reports nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    import climate_indices as package
    from climate_indices import compute, indices

    old = np.seterr(all="ignore")
    yield package, indices, compute
    np.seterr(**old)
    structlog.reset_defaults()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1, 3, 12])
def test_spi_is_that_of_climate_indices(climate_indices, scale):
    """Version 3.1 beside ours on synthetic rain, with its own placing of zero, to 1e-9."""
    _, indices, compute = climate_indices
    pr = gamma_rain(12, dry=0.1 if scale == 1 else 0.0)
    theirs = indices.spi(
        pr.values.reshape(-1, 3, 4), scale, indices.Distribution.gamma, 1951, 1961, 1990, compute.Periodicity.monthly,
        spatial_time_major=True,
    )  # fmt: skip
    ours = spi(pr, scale, (1961, 1990), zero="upper", clip=3.09)
    np.testing.assert_allclose(ours, theirs.reshape(len(MONTHS), -1), atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_spei_is_that_of_climate_indices(climate_indices):
    _, indices, compute = climate_indices
    pr = gamma_rain(1, seed=3)
    pet = 60.0 + 0.0 * pr
    theirs = indices.spei(
        pr.values[:, 0], pet.values[:, 0], 3, indices.Distribution.loglogistic, compute.Periodicity.monthly, 1951, 1961,
        1990,
    )  # fmt: skip
    ours = spei(water_balance(pr, pet.assign_attrs(units="mm")), 3, (1961, 1990), clip=3.09)
    np.testing.assert_allclose(ours.values[:, 0], theirs, atol=1e-6)


# --- xclim ------------------------------------------------------------------------------------------------------------
def xclim_spi(pr: xr.DataArray, window: int = 1, freq: str = "MS", **options) -> xr.DataArray:
    from xclim.indices import standardized_precipitation_index

    fixed = {"dist": "gamma", "method": "APP", "fitkwargs": {"floc": 0}, "cal_start": "1981-01-01"}
    given = pr.assign_attrs(units="mm/day")
    found = standardized_precipitation_index(given, freq=freq, window=window, cal_end="2010-12-31", **fixed, **options)
    return found.transpose("time", "cell").load()


@pytest.mark.filterwarnings("ignore")
def test_spi_is_that_of_xclim_with_stagges_zero():
    """Days to months, fit and zero: to 1e-9, but for February: xclim takes the mean rate of a month, we its sum, which
    is 3.6 % more in a leap year; with that taken away it is the same, too."""
    pr = daily_rain(4) + 0.01
    pr[{"time": np.isin(DAYS.month, (6, 7)) & (DAYS.year % 5 == 0)}] = 0.0
    theirs = xclim_spi(pr, prob_zero_interpolation="center", plotting_position_zero="weibull")
    ours = spi(pr, 1, (1981, 2010))
    other = theirs["time.month"].values != 2
    np.testing.assert_allclose(ours[other], theirs[other], atol=1e-9)
    rates = pr * 28.0 / xr.where((pr["time.month"] == 2) & pr["time"].dt.is_leap_year, 29.0, 28.0)
    np.testing.assert_allclose(spi(rates.assign_attrs(pr.attrs), 1, (1981, 2010))[~other], theirs[~other], atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("share", "expected"), [(0.3, -1.04), (0.6, -0.52), (0.8, -0.25)])
def test_no_rain_is_never_wet(share, expected):
    """Of 1000 Julys a share is dry: no rain is the middle of them, Φ⁻¹(p0/2); xclim's usual, its upper end, says wet.

    Stagge et al. (2015): so placed, the index keeps its mean of 0.
    """
    rng = np.random.default_rng(8)
    years = pd.date_range("1700-01-01", periods=12 * 100, freq="MS")
    pr = gamma_rain(1, 8, time=years).isel(time=slice(0, 12 * 100))
    july = np.flatnonzero(years.month == 7)
    pr[july[rng.permutation(100)[: int(100 * share)]]] = 0.0
    dry = july[pr.values[july, 0] == 0.0]
    centre = spi(pr, 1, suppress=0.9).values[:, 0]
    upper = spi(pr, 1, suppress=0.9, zero="upper").values[:, 0]
    np.testing.assert_allclose(centre[dry], expected, atol=0.02)
    np.testing.assert_allclose(upper[dry], scipy.special.ndtri(share), atol=1e-12)
    assert abs(centre[july].mean()) < 0.16 < upper[july].mean()
    days = daily_rain(1)
    summers = np.flatnonzero(DAYS.month == 7)
    gone = rng.permutation(np.arange(1981, 2021))[: int(40 * share)]
    days[summers[np.isin(DAYS.year[summers], gone)]] = 0.0
    theirs = xclim_spi(days)
    ours = spi(days, 1, (1981, 2010), suppress=0.95)
    zero = (theirs["time.month"].values == 7) & (accumulate(days, 1).values[:, 0] == 0.0)
    assert (ours.values[zero] < -0.1).all()
    if share > 0.5:
        assert (theirs.values[zero] > 0.0).any() and (ours.values[zero] < theirs.values[zero] - 0.3).all()


@pytest.mark.filterwarnings("ignore")
def test_a_month_that_is_not_over_has_no_index():
    """Ten days of December: xclim takes their rate as the month's; we say that it is not known yet."""
    pr = daily_rain(3).isel(time=slice(15, -21))
    theirs, ours = xclim_spi(pr), spi(pr, 1, (1982, 2010), least=29)
    assert theirs.notnull()[[0, -1]].all()
    assert ours.isnull()[[0, -1]].all() and ours.notnull()[1:-1].all()
    assert spi(pr, 3, (1982, 2010), least=29).isnull().all("cell").values.nonzero()[0].tolist() == [0, 1, 2, 479]
    gap = pr.copy()
    gap[5000, 1] = np.nan
    lost = spi(gap, 3, (1982, 2010), least=29).isnull()[3:-1]
    assert lost.sum().item() == 3 and lost[:, 1].sum().item() == 3


@pytest.mark.filterwarnings("ignore")
def test_the_last_day_of_a_leap_year_is_like_the_day_before():
    """xclim fits day 366 to the few leap years there are (7 of 30), so that the index jumps on 31 December of those:
    from one day to the next, of a sum over 90, by several times what it changes on other days. Ours does not."""
    pr = daily_rain(12)
    leap = np.flatnonzero((DAYS.month == 12) & (DAYS.day == 31) & DAYS.is_leap_year & (DAYS.year > 1981))
    normal = np.flatnonzero((DAYS.month == 12) & (DAYS.day == 31) & ~DAYS.is_leap_year & (DAYS.year > 1981))
    change = {}
    for name, z in (("xclim", xclim_spi(pr, 90, "D").values), ("ours", spi(pr, "90D", (1981, 2010)).values)):
        step = z[1:] - z[:-1]
        change[name] = np.sqrt((step[leap - 1] ** 2).mean() / (step[normal - 1] ** 2).mean())
    assert change["xclim"] > 2.0
    assert 0.7 < change["ours"] < 1.4
    february = np.flatnonzero((DAYS.month == 2) & (DAYS.day == 29))
    still = rain(np.full((DAYS.size, 1), 90.0), DAYS)
    same = standardise(still.assign_attrs(units="mm"), calibrate(pr[:, :1], "90D", (1981, 2010)))
    np.testing.assert_array_equal(same.values[february], same.values[february - 1])


@pytest.mark.filterwarnings("ignore")
def test_months_that_are_always_dry_have_no_index():
    """Ten rainless Julys say nothing of drought; xclim calls every one of them infinitely wet."""
    pr = daily_rain(2)
    pr[{"time": DAYS.month == 7, "cell": 0}] = 0.0
    july = np.arange(6, 480, 12)
    ours, theirs = spi(pr, 1, (1981, 2010)), xclim_spi(pr)
    assert (theirs.values[july, 0] > 5.0).all()
    assert ours[july, 0].isnull().all() and ours[:, 1].notnull().all() and ours[:, 0].isnull().sum() == 40
    assert calibrate(pr, 1, (1981, 2010))["zero_probability"][6, 0] == 30.0 / 31.0


# --- properties -------------------------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["gamma", "pearson3", "log-logistic", "gev"]), st.floats(0.0, 0.5))
def test_more_rain_is_never_drier(seed, distribution, dry):
    table = calibrate(gamma_rain(3, seed, dry), 1, distribution=distribution)
    amounts = np.sort(np.random.default_rng(seed).gamma(1.0, 100.0, 60))
    amounts[0] = 0.0
    times = np.full(60, np.datetime64("2020-05-01"))
    z = standardise(xr.DataArray(np.repeat(amounts[:, None], 3, 1), {"time": times}, ("time", "cell")), table).values
    assert (np.diff(z, axis=0) >= -1e-12)[:, ~np.isnan(z).any(axis=0)].all()


def test_the_first_dry_month_of_a_wet_place_is_rarer_than_any_trace():
    """30 Julys had rain. One without is the one in 31 of a place where 0.1 mm is not rare, and beyond in a wet one."""
    rng = np.random.default_rng(13)
    pr = rain(np.stack([rng.gamma(0.5, 4.0, 372), rng.gamma(8.0, 30.0, 372)], 1))
    pr[-6] = 0.0
    z = spi(pr, 1, (1951, 1980)).values[-6]
    assert z[0] == pytest.approx(scipy.special.ndtri(1 / 62), abs=1e-12)
    table = calibrate(pr, 1, (1951, 1980))
    july = xr.DataArray([[0.1, 0.1], [1e-6, 1e-6]], {"time": MONTHS[[6, 18]]}, ("time", "cell"))
    trace, less = standardise(july, table).values
    assert z[1] == pytest.approx(trace[1]) and z[1] < -6 and (less == z).all() and trace[0] > z[0]


@pytest.mark.parametrize("scale", [1, 6, "30D"])
def test_the_unit_of_rain_does_not_matter(scale):
    pr = daily_rain(2)
    expected = spi(pr, scale)
    for units, factor in {
        "kg m-2 s-1": 1 / 86400,
        "mm/d": 1.0,
        "mm": 1.0,
        "m s-1": 1e-3 / 86400,
        "mm h-1": 1 / 24,
    }.items():
        np.testing.assert_allclose(spi((pr * factor).assign_attrs(units=units), scale), expected, atol=1e-9)


def test_amounts_of_months_and_days():
    rate = rain(np.ones((24, 1)), MONTHS, "kg m-2 s-1")
    np.testing.assert_allclose(rain_amounts(rate).values[:, 0], 86400.0 * MONTHS[:24].days_in_month)
    for units in ("mm month-1", "mm/month", "kg m-2", "mm"):
        np.testing.assert_array_equal(rain_amounts(rate.assign_attrs(units=units.replace("month", "mon"))), rate)
    day = rain(np.ones(3), DAYS, "mm day-1")
    assert rain_amounts(day).values.tolist() == [1.0, 1.0, 1.0] and rain_amounts(day).attrs["units"] == "mm"
    for units in ("mm month-1", "K", "", "inch"):
        with pytest.raises(VariableError, match="units of 'pr'"):
            rain_amounts(day.assign_attrs(units=units))
    with pytest.raises(RangeError, match=r"rain 'pr': expected 0 or more, found -1\.0"):
        rain_amounts(-day)
    with pytest.raises(TimeError, match="consecutive days or months"):
        rain_amounts(day.isel(time=[0, 2]))


@pytest.mark.parametrize("method", ["thom", "ml"])
def test_the_index_is_standard_normal_and_with_a_year_left_out_calibrated(method):
    """Synthetic climates, 60 years, 20 cells: within Kolmogorov's distance for 14 400 values at 0.1 %.

    With all years in the reference extremes are too rare: a value pulls its own distribution. Left out, a value below
    the 5th percentile is as frequent as that, within 0.7 points, and a little more frequent for the fit's own error.
    """
    pr = gamma_rain(20, 9)
    shares = []
    for leave_out in (False, True):
        z = spi(pr, 1, method=method, leave_out=leave_out).values
        assert scipy.stats.kstest(z.ravel(), "norm").statistic < 1.95 / np.sqrt(z.size)
        shares.append((z < -1.645).mean())
    assert np.abs(np.array(shares) - 0.05).max() < 0.007 and shares[1] > shares[0]


def test_leaving_out_is_a_reference_without_that_year():
    pr = gamma_rain(3, 10, 0.1)
    found = spi(pr, 3, (1951, 1990), leave_out=True)
    for year in (1951, 1977):
        others = pr.copy()
        others[pr["time.year"].values == year] = np.nan
        kept = calibrate(pr, 3, (1951, 1990)).attrs
        assert kept["reference_years"] == 40
        sums = accumulate(pr, 3)
        without = sums.where(sums["time.year"] != year)
        table = calibrate(without.assign_attrs(units="mm"), 1, (1951, 1990))
        rows = pr["time.year"].values == year
        np.testing.assert_allclose(found[rows], standardise(sums[rows], table), atol=1e-9)
    outside = pr["time.year"].values > 1990
    np.testing.assert_array_equal(found[outside], spi(pr, 3, (1951, 1990))[outside])
    daily = daily_rain(2)
    left = spi(daily, "30D", (1981, 2010), leave_out=True)
    late = DAYS.year > 2011
    np.testing.assert_array_equal(left[late], spi(daily, "30D", (1981, 2010))[late])
    assert float(np.abs(left).mean()) > float(np.abs(spi(daily, "30D", (1981, 2010))).mean())


@pytest.mark.parametrize("scale", [1, 3, "90D"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_day_alone_is_the_whole_record_bit_for_bit(scale, kind):
    pr = daily_rain(37).astype(kind)
    pr[4000:4200, 5] = 0.0
    table = calibrate(pr, scale, (1981, 2010), threads=2)
    whole = spi(pr, scale, (1981, 2010), threads=1)
    assert whole.dtype == kind
    np.testing.assert_array_equal(whole, spi(pr, scale, table))
    sums = accumulate(pr, scale)
    for row in (200, 300, len(sums) - 1):
        alone = standardise(sums[row : row + 1], table)
        np.testing.assert_array_equal(alone.values[0].astype(kind), whole.values[row])
    assert {**table.attrs, "index": "spi"} == table.attrs and whole.attrs["reference_years"] == 30


@pytest.mark.parametrize("scale", [3, "30D"])
def test_a_calibration_comes_back_from_a_file(scale, tmp_path):
    pr = daily_rain(3)
    table = calibrate(pr, scale)
    table.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "table.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(spi(pr, scale, again), spi(pr, scale))


@pytest.mark.parametrize(("index", "scale"), [("spi", "90D"), ("spi", 3), ("ssmi", "30D")])
def test_amounts_that_are_there_already_can_be_calibrated(index, scale):
    """Only where the pentads have their middle, as they are gathered from a record too long to hold."""
    values = daily_rain(2) if index == "spi" else soil(2)
    amounts = accumulate(values, scale, index=index)
    middles = climatology.pentad_of(amounts["time"].values)[1] == 0.0
    some = amounts if scale == 3 else amounts[middles]
    found = calibrate(some, scale, index=index, accumulated=True)
    whole = calibrate(values, scale, index=index)
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])
    with pytest.raises(TimeError, match="time of the amounts: expected rising times"):
        calibrate(some[::-1], scale, index=index, accumulated=True)


def test_days_and_months_agree_at_the_end_of_the_month():
    """A window of 90 days against three months (90 to 92 days): of the same rain, by fits at most five days apart:
    correlated by more than 0.99, a tenth apart in the mean."""
    pr = daily_rain(8)
    monthly, daily = spi(pr, 3), spi(pr, "90D")
    ends = pd.DatetimeIndex(monthly["time"].values) + pd.offsets.MonthEnd(0)
    a, b = monthly.values[2:], daily.sel(time=ends[2:]).values
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98
    assert np.abs(a - b).mean() < 0.12


def test_an_amount_that_stays_does_not_jump():
    """90 mm, day after day: the index follows the season; at the turn of a pentad no more than within one."""
    table = calibrate(daily_rain(4), "90D")
    days = pd.date_range("2021-01-01", "2021-12-31")
    z = standardise(xr.DataArray(np.full((365, 4), 90.0), {"time": days}, ("time", "cell")), table).values
    assert np.abs(np.diff(z, axis=0)).max() < 0.25
    assert np.abs(z[0] - z[-1]).max() < 0.25


# --- soil moisture ----------------------------------------------------------------------------------------------------
def soil(cells: int, seed: int = 0, days=DAYS) -> xr.DataArray:
    """Soil moisture of a seasonal climate that forgets within 45 days, m3 m-3."""
    rng, memory = np.random.default_rng(seed), np.exp(-1.0 / 45.0)
    now, values = rng.standard_normal(cells), np.empty((len(days), cells))
    season = np.sin(2 * np.pi * days.day_of_year.to_numpy() / 365.25)
    for row in range(len(days)):
        values[row] = 0.25 + 0.06 * season[row] + 0.03 * now
        now = memory * now + np.sqrt(1 - memory**2) * rng.standard_normal(cells)
    return xr.DataArray(values, {"time": days}, ("time", "cell"), "theta", {"units": "m3 m-3"})


@pytest.mark.parametrize("scale", [1, "1D", "30D"])
def test_the_soil_moisture_index_is_standard_normal(scale):
    theta = soil(30)
    z = ssmi(theta, scale)
    assert abs(float(z.mean())) < 0.05 and float(z.std()) == pytest.approx(1.03, abs=0.06)  # the own year is left out
    assert float((z < -1.645).mean()) == pytest.approx(0.055, abs=0.015)
    assert z.attrs["leave_out"] == 1 and z.attrs["distribution"] == "beta"
    again = ssmi(theta, scale, calibrate(theta, scale, index="ssmi"), leave_out=False)
    np.testing.assert_array_equal(again, ssmi(theta, scale, leave_out=False))


def test_the_scale_of_soil_moisture_is_a_mean():
    theta = soil(2)
    sums = accumulate(theta, 3, index="ssmi")
    expected = theta.sel(time=slice("1990-03-01", "1990-05-31")).mean("time")
    np.testing.assert_allclose(sums.sel(time="1990-05-01"), expected, rtol=1e-12)
    np.testing.assert_allclose(accumulate(theta, "30D", index="ssmi")[100], theta[71:101].mean("time"), rtol=1e-12)


def test_the_empirical_index_is_the_percentile():
    theta = soil(3)
    fitted, ranked = ssmi(theta, "1D"), ssmi(theta, "1D", distribution="empirical")
    assert np.corrcoef(fitted.values.ravel(), ranked.values.ravel())[0, 1] > 0.97
    assert float(np.abs(ranked).max()) <= special.normal_quantile(1 - 0.5 / 40) + 1e-5  # 39 others: no further
    with pytest.raises(SettingsError, match="expected '1D', found 3"):
        ssmi(theta, 3, distribution="empirical")


# --- classes, and what is refused -------------------------------------------------------------------------------------
def test_classes_of_mckee():
    z = np.array([2.0, 1.99, 1.5, 1.0, 0.99, -0.99, -1.0, -1.5, -2.0, -2.01, np.nan])
    assert standard_class(z).tolist() == [-3, -2, -2, -1, 0, 0, 1, 2, 3, 3, -128]
    named = standard_class(xr.DataArray(z[None], dims=("time", "cell"), attrs={"long_name": "SPI"}))
    assert named.dtype == np.int8 and named.attrs["flag_meanings"].split() == list(STANDARD_CLASSES)


def test_thirty_years_or_a_refusal():
    pr = gamma_rain(2)
    assert spi(pr.isel(time=slice(0, 360)), 3).notnull().sum() == 2 * 358
    with pytest.raises(TimeError, match=r"reference years: expected 30 or more of every month, found 29"):
        spi(pr.isel(time=slice(0, 359)), 3)
    with pytest.raises(TimeError, match=r"found 29 \(reference 1961 to 1989\)"):
        spi(pr, 3, (1961, 1989))
    with pytest.raises(TimeError, match="expected 30 or more of every pentad, found 9"):
        calibrate(daily_rain(1), "90D", ("2011-06-01", "2020-12-31"))
    holes = pr.copy()
    holes[: 12 * 37, 1] = np.nan
    assert spi(holes, 1).isnull().all("time").values.tolist() == [False, True]


def test_what_makes_no_index_is_refused():
    pr = gamma_rain(2)
    with pytest.raises(SettingsError, match=r"distribution of spi: expected gamma, .*, found 'beta'"):
        spi(pr, distribution="beta")
    with pytest.raises(SettingsError, match="method of pearson3: expected lmoments, found 'thom'"):
        spi(pr, distribution="pearson3", method="thom")
    with pytest.raises(SettingsError, match="zero: expected centre or upper"):
        spi(pr, zero="lower")
    for scale in (0, "90", "3M", 1.5, True):
        with pytest.raises(SettingsError, match="scale: expected months"):
            spi(pr, scale)
    with pytest.raises(TimeError, match="window of 90D: expected consecutive days, found months"):
        spi(pr, "90D")
    with pytest.raises(SettingsError, match=r"reference: expected .first, last., years or ISO dates"):
        spi(pr, 3, ("the", "past"))
    with pytest.raises(VariableError, match="units of 'pr'"):
        spi(pr.assign_attrs(units="K"))
    with pytest.raises(RangeError):
        spi(-pr)
    table = calibrate(pr, 3)
    with pytest.raises(SettingsError, match="calibration: expected spi over 6 months, found spi over 3 months"):
        spi(pr, 6, table)
    with pytest.raises(SettingsError, match="leave_out with a calibration"):
        spi(pr, 3, table, leave_out=True)
    with pytest.raises(VariableError, match="amounts: expected 2 cells, found 1"):
        standardise(accumulate(pr[:, :1], 3), table)
    with pytest.raises(SettingsError, match="expected what calibrate returns"):
        spi(pr, 3, table.assign_attrs(index="other"))
    with pytest.raises(SettingsError, match="standardised index: expected spi, spei, ssmi"):
        calibrate(pr, 3, index="pdsi")
    with pytest.raises(VariableError, match="potential evapotranspiration"):
        water_balance(pr, pr[:-1])


def test_threads_and_blocks_do_not_matter():
    pr = gamma_rain(1300, 11, 0.05)[: 12 * 31]
    xr.testing.assert_identical(spi(pr, 2, threads=1), spi(pr, 2, threads=2))
    np.testing.assert_array_equal(spi(pr[:, 700:720], 2), spi(pr, 2)[:, 700:720])


def test_the_fit_says_how_good_it_is():
    """Kolmogorov's distance of 60 values from a gamma they were drawn from is below 0.1 in the mean; that of years of
    two kinds, all alike within each, is large."""
    pr = gamma_rain(30, 12)
    table = calibrate(pr, 1)
    assert float(table["kolmogorov_distance"].mean()) < 0.1
    assert (table["years"] == 60).all() and table["kolmogorov_distance"].dims == ("month", "cell")
    pr[:, 0] = np.where(np.arange(len(pr)) // 12 % 2 == 0, 10.0, 11.0) + 0.01 * np.random.default_rng(0).random(len(pr))
    assert (calibrate(pr, 1)["kolmogorov_distance"][:, 0] > 0.2).all()
