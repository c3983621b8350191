"""Skill of predictions, compared with other formulas and with known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, median_abs_deviation, norm, pearsonr

from catalogproc.evaluation.scores import MAX_Z, by_decile, robust_spread, score
from catalogproc.evaluation.scores import bootstrap as resampled


@pytest.fixture(scope="module")
def stars() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True masses, observed ones with an error of 0.1, and the posterior mean from them."""
    random = np.random.default_rng(3)
    true = random.normal(1.2, 0.3, 40_000)
    error = np.full(true.size, 0.1)
    observed = true + 0.2 * random.normal(size=true.size)
    weight = 0.3**2 / (0.3**2 + 0.2**2)
    posterior = 1.2 + weight * (observed - 1.2)
    return true + error * random.normal(size=true.size), posterior, error, true


def test_skill_is_that_of_other_formulas(stars: tuple[np.ndarray, ...]) -> None:
    true, predicted, _, _ = stars
    found = score("mass", predicted, true)
    assert found.correlation == pytest.approx(pearsonr(true, predicted).statistic)
    assert found.slope == pytest.approx(linregress(true, predicted).slope)
    assert found.slope_of_truth == pytest.approx(linregress(predicted, true).slope)
    residual = predicted - true
    assert found.r2 == pytest.approx(1 - (residual**2).sum() / ((true - true.mean()) ** 2).sum())
    assert found.spread == pytest.approx(median_abs_deviation(true, scale=1 / 1.4826))
    assert found.scatter == pytest.approx(median_abs_deviation(residual, scale=1 / 1.4826))


def test_a_posterior_mean_has_a_slope_of_r2_and_a_slope_of_truth_of_one(
    stars: tuple[np.ndarray, ...],
) -> None:
    """Variances 0.3^2 of the stars and 0.2^2 of the observation: R2 is 0.09 / 0.13."""
    _, predicted, _, exact = stars
    found = score("mass", predicted, exact)
    assert found.r2 == pytest.approx(0.09 / 0.13, abs=0.01)
    assert found.slope == pytest.approx(found.r2, abs=0.01)
    assert found.slope_of_truth == pytest.approx(1.0, abs=0.01)
    # The mean of all stars is no knowledge, whatever its scatter.
    nothing = score("mass", np.full(len(exact), exact.mean()) + 1e-9 * predicted, exact)
    assert nothing.scatter == pytest.approx(nothing.spread, rel=0.01)
    assert (nothing.r2, nothing.slope) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_sigma_and_the_error_of_the_true_value_are_added_in_quadrature(
    stars: tuple[np.ndarray, ...],
) -> None:
    true, predicted, error, _ = stars
    sigma = np.full(true.size, np.sqrt(0.09 * 0.04 / 0.13))
    found = score("mass", predicted, true, sigma, error)
    assert found.z_std == pytest.approx(1.0, abs=0.01)
    assert found.within_1_sigma == pytest.approx(0.6827, abs=0.01)
    assert found.within_2_sigma == pytest.approx(0.9545, abs=0.005)
    assert score("mass", predicted, true, sigma).z_std > 1.1
    unknown = score("mass", predicted, true, sigma, np.full(true.size, np.nan))
    assert unknown == score("mass", predicted, true, sigma)


def test_z_is_limited() -> None:
    true = np.zeros(100)
    predicted = np.zeros(100)
    predicted[0] = 1e6
    found = score("logg", predicted, true, np.ones(100))
    assert found.z_std == pytest.approx(MAX_Z * np.sqrt(0.01 * 0.99))


def test_deciles_of_the_true_value_show_the_pull_to_the_mean(
    stars: tuple[np.ndarray, ...],
) -> None:
    _, predicted, _, exact = stars
    sigma = np.full(exact.size, np.sqrt(0.09 * 0.04 / 0.13))
    found = by_decile("mass", predicted, exact, sigma)
    assert [one.stars for one in found] == [4000] * 10
    assert found[0].low == exact.min()
    assert found[-1].high == exact.max()
    bias = np.array([one.bias for one in found])
    assert (np.diff(bias) < 0).all()
    # In the first decile true masses are 1.755 sigma below the mean on average.
    mean = norm.pdf(norm.ppf(0.1)) / 0.1
    assert bias[0] == pytest.approx(0.3 * mean * 0.04 / 0.13, rel=0.05)
    inside = [one.within_1_sigma for one in found]
    assert inside[0] < inside[4]
    assert np.mean(inside) == pytest.approx(score("mass", predicted, exact, sigma).within_1_sigma)


def test_bootstrap_intervals_are_standard_errors() -> None:
    random = np.random.default_rng(5)
    true = random.normal(size=400)
    predicted = true + 0.5 * random.normal(size=400)
    low, high = resampled("logg", predicted, true, draws=400)["correlation"]
    r = pearsonr(true, predicted).statistic
    assert 0.5 * (high - low) == pytest.approx((1 - r**2) / np.sqrt(400), rel=0.25)
    assert low < r < high
    assert np.isnan(resampled("logg", np.full(3, np.nan), np.zeros(3))["bias"]).all()


def test_skill_of_distances_is_that_of_their_logarithms() -> None:
    """The token is proportional to 1 / distance."""
    random = np.random.default_rng(7)
    distance = np.exp(random.normal(1, 0.5, 500))
    ratio = np.exp(random.normal(0, 0.1, 500))
    found = score("dist", 1 / (distance * ratio), 1 / distance)
    assert found.spread == pytest.approx(100 * robust_spread(np.log(distance)))
    slope = linregress(np.log(distance), np.log(distance * ratio)).slope
    assert found.slope == pytest.approx(slope)


def test_few_and_equal_stars_have_no_skill() -> None:
    found = score("logg", np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    assert found.stars == 2
    assert np.isnan([found.r2, found.slope, found.slope_of_truth, found.correlation]).all()
    assert by_decile("logg", np.array([np.nan]), np.array([1.0])) == ()
