"""The held-out chi-square: by a factor of the covariance of the residuals."""

from __future__ import annotations

import numpy as np
import pytest
from support.bundles import tiny_bundle

from catalogproc.inference.domain_checks import held_out_residuals, reduced_chi2, spectrum_chi2
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.uncertainty_calibration import UncertaintyCalibration
from catalogproc.training.fit_calibration import CHI2_RIDGE, FEWEST_RESIDUALS, residual_covariance

N = 10


@pytest.fixture(scope="module")
def true() -> np.ndarray:
    """A covariance of ten residuals that have a common part, as those of a colour."""
    rng = np.random.default_rng(2)
    common = rng.normal(size=(N, 2))
    return np.diag(rng.uniform(0.2, 1.0, N)) + common @ common.T


def drawn(covariance: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(np.zeros(N), covariance, count)


def test_chi2_is_the_quadratic_form_of_the_inverse_covariance(true: np.ndarray) -> None:
    """By the other route, for every set of coefficients that a star may have."""
    residuals = drawn(true, 40)
    residuals[5:9, 3:] = np.nan
    residuals[9:20, [0, 4]] = np.nan
    found = reduced_chi2(residuals, true)
    for row, value in enumerate(residuals):
        known = np.flatnonzero(np.isfinite(value))
        if len(known) < 4:
            assert np.isnan(found[row])
            continue
        inverse = np.linalg.inv(true[np.ix_(known, known)])
        wanted = value[known] @ inverse @ value[known] / len(known)
        assert found[row] == pytest.approx(wanted, rel=1e-9)
    independent = reduced_chi2(residuals, None)
    np.testing.assert_allclose(independent, reduced_chi2(residuals, np.eye(N)), rtol=1e-12)
    # A star's chi-square does not depend on the others.
    np.testing.assert_allclose(reduced_chi2(residuals[9:10], true), found[9:10], rtol=1e-12)


def test_chi2_of_clean_stars_is_one_and_of_faults_larger_than_independent(true: np.ndarray) -> None:
    measured = residual_covariance(drawn(true, 4000))
    assert measured is not None
    clean = drawn(true, 4000, seed=5)
    assert np.mean(reduced_chi2(clean, measured)) == pytest.approx(1.0, abs=0.1)
    # A fault against the common part: of the size of one error.
    lowest = np.linalg.eigh(true)[1][:, 0]
    off = clean + 3.0 * lowest
    by_factor, alone = (
        np.mean(reduced_chi2(off, c) > np.quantile(reduced_chi2(clean, c), 0.998))
        for c in (measured, np.diag(np.diag(measured)))
    )
    assert by_factor > 5 * alone


def test_outliers_do_not_enter_the_covariance(true: np.ndarray) -> None:
    residuals = drawn(true, 4000)
    before = residual_covariance(residuals)
    residuals[:20] = 1e3
    residuals[20:30, 4] = np.nan
    after = residual_covariance(residuals)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after, before, atol=0.15 * np.diag(before).max())
    assert np.linalg.eigvalsh(after)[0] > 0.9 * CHI2_RIDGE * np.diag(after).mean() / (
        1 + CHI2_RIDGE
    )
    assert residual_covariance(residuals[: FEWEST_RESIDUALS - 1]) is None


def test_the_bundle_holds_the_covariance(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = tiny_bundle(tmp_path_factory.mktemp("chi2"))
    scale = bundle.standardisation.scale
    rng = np.random.default_rng(3)
    values = bundle.standardisation.center + scale * rng.normal(size=(30, len(scale)))
    tokens, errors = StarTokens.typical(values), np.broadcast_to(0.2 * scale, values.shape)
    covariance = np.diag(np.arange(1.0, 11.0))
    object.__setattr__(
        bundle, "calibration", UncertaintyCalibration(residual_covariance=covariance)
    )
    predictor = Predictor(bundle)
    residuals = held_out_residuals(predictor, tokens, errors)
    np.testing.assert_allclose(
        spectrum_chi2(predictor, tokens, errors),
        np.mean(residuals**2 / np.arange(1.0, 11.0), axis=1), rtol=1e-12,
    )  # fmt: skip
