"""Uncertainties of the predictions from errors of the tokens, by two methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.bundles import tiny_bundle

from catalogproc.errors import ContractError, JobError
from catalogproc.network.error_propagation import (
    Draws,
    Propagated,
    disagree,
    first_order,
    sampled,
)
from catalogproc.network.input_covariance import (
    Correlated,
    InputNoise,
    draw_errors,
    standard_normals,
)
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

typical = StarTokens.typical

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("bundle")))


def stars(predictor, n, seed=0):
    """Tokens of which some are absent, and errors of the size of the training stars' scatter."""
    rng = np.random.default_rng(seed)
    scale = predictor.bundle.standardisation.scale
    values = predictor.bundle.standardisation.center + scale * rng.normal(size=(n, len(scale)))
    values[rng.random(values.shape) < 0.6] = np.nan
    errors = np.where(np.isnan(values), np.nan, scale * rng.uniform(0.5, 1.5, values.shape))
    return values, errors


def draws(n, count):
    """Draws for stars that are identified by their row."""
    return Draws(np.arange(n), count)


def correlated(n, columns, seed=1):
    """Correlations as strong as those of XP coefficients, one matrix per star."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, len(columns), len(columns) + 2))
    matrix = factor @ factor.transpose(0, 2, 1)
    sd = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    return Correlated(np.asarray(columns), matrix / sd[:, :, None] / sd[:, None, :])


def test_first_order_is_the_sum_over_tokens_of_finite_differences(predictor):
    """Finite differences of the predictions, one token at a time."""
    values, errors = stars(predictor, 4)
    _, found = first_order(predictor, typical(values), InputNoise(errors * 1e-2), LABELS)
    total = np.zeros((4, 5, 5))
    for column in range(values.shape[1]):
        step = np.zeros_like(values)
        step[:, column] = np.nan_to_num(errors[:, column])
        up, down = (predictor.predict(typical(values + 0.05 * s * step), LABELS).mean.astype(float)
                    for s in (1, -1))  # fmt: skip
        slope = (up - down) / 0.1 * 1e-2
        total += slope[:, :, None] * slope[:, None, :]
    units = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
    scaled = (found.covariance - total) / units[:, :, None] / units[:, None, :]
    assert np.abs(scaled).max() < 0.02, np.abs(scaled)


@pytest.mark.parametrize("together", [False, True], ids=["independent", "correlated"])
def test_both_methods_agree_within_5_percent_where_the_network_is_linear(predictor, together):
    values, errors = stars(predictor, 12)
    groups = (correlated(12, range(40)), correlated(12, range(55, 90), 2)) if together else ()
    noise = InputNoise(errors * 0.05, groups)
    first, linear = first_order(predictor, typical(values), noise, LABELS)
    second, drawn = sampled(predictor, typical(values), noise, LABELS, draws(12, 2000))
    assert (np.abs(first.mean - second.mean) < 1e-4 * first.sigma).all()
    np.testing.assert_allclose(first.sigma, second.sigma, rtol=1e-4)
    ratio = drawn.sigma / linear.sigma
    assert np.abs(np.median(ratio, axis=0) - 1).max() < 0.05
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * 2000) + 0.02
    for pair in (("teff", "logg"), ("mass", "log_age")):
        difference = linear.correlation(*pair) - drawn.correlation(*pair)
        assert np.abs(difference).max() < 5 / np.sqrt(2000)
    assert not disagree(linear, drawn).any()
    if together:  # and correlations change the result
        plain = first_order(predictor, typical(values), InputNoise(errors * 0.05), LABELS)[1]
        assert np.abs(linear.sigma / plain.sigma - 1).max() > 0.1


def test_the_methods_disagree_where_the_network_is_not_linear(predictor):
    values, errors = stars(predictor, 12)
    linear = first_order(predictor, typical(values), InputNoise(errors * 8), LABELS)[1]
    drawn = sampled(predictor, typical(values), InputNoise(errors * 8), LABELS, draws(12, 300))[1]
    assert disagree(linear, drawn).mean() > 0.5


def test_sampled_covariance_is_that_of_the_predictions_about_their_own_mean(predictor):
    """By numpy, draw by draw, where the network is far from linear and the mean is shifted."""
    values, errors = stars(predictor, 5)
    noise, count = InputNoise(errors * 4), 60
    prediction, drawn = sampled(predictor, typical(values), noise, LABELS, draws(5, count))
    keys = np.arange(5)
    each = np.stack([
        predictor.predict(typical(values + draw_errors(noise, (), keys, number)), LABELS).mean
        for number in range(count)
    ]).astype(float)  # fmt: skip
    for star in range(5):
        np.testing.assert_allclose(drawn.covariance[star], np.cov(each[:, star].T), rtol=1e-3,
                                   atol=1e-4 * drawn.covariance[star].max())  # fmt: skip
    shift = np.abs(each.mean(0) - prediction.mean) / drawn.sigma
    assert np.median(shift) > 0.3


def test_one_label_is_enough_for_the_methods_to_disagree():
    """For 800 draws the tolerance is 0.3 + 4 / sqrt(1600) = 0.4 of the larger sigma."""
    sigma = np.tile([100.0, 0.2, 0.1], (4, 1))
    linear = Propagated(LABELS[:3], np.stack([np.diag(row**2) for row in sigma]))
    sigma[1, 2] *= 1.7  # 0.41 of the larger one
    sigma[2, 0] *= 1.6  # 0.375
    sigma[3] *= 0.5
    drawn = Propagated(LABELS[:3], np.stack([np.diag(row**2) for row in sigma]), 800)
    assert disagree(linear, drawn).tolist() == [False, True, False, True]


def test_draws_of_a_star_do_not_depend_on_the_other_stars(predictor):
    values, errors = stars(predictor, 9)
    keys = np.arange(9, dtype=np.int64) * 10**15 + 4_295_806_720
    order = np.random.default_rng(3).permutation(9)

    def sigma(rows, keys):
        noise = InputNoise(errors[rows])
        return sampled(predictor, typical(values[rows]), noise, LABELS, Draws(keys, 16))[1].sigma

    every = np.arange(9)
    together = sigma(every, keys)
    np.testing.assert_allclose(sigma(order, keys[order]), together[order], rtol=1e-4)
    np.testing.assert_allclose(sigma([4], keys[[4]]), together[[4]], rtol=1e-4)
    assert (np.abs(sigma(every, keys + 1) / together - 1) > 1e-3).all()


def test_first_order_does_not_depend_on_the_other_stars(predictor):
    values, errors = stars(predictor, 40)
    group = correlated(40, range(30))
    whole = first_order(predictor, typical(values), InputNoise(errors, (group,)), LABELS)[1].sigma
    for rows in ([3], [39, 0, 7], list(range(20))):
        part = InputNoise(errors[rows], (Correlated(group.columns, group.matrix[rows]),))
        found = first_order(predictor, typical(values[rows]), part, LABELS)[1].sigma
        np.testing.assert_allclose(found, whole[rows], rtol=1e-4)


def test_standard_normals_are_normal_and_independent():
    keys = np.arange(2000, dtype=np.int64) + 5_853_498_713_190_525_696
    z = np.stack([standard_normals(keys, number, 20) for number in range(5)])
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(z[0, :, 3], "norm").pvalue > 1e-3
    flat = z.transpose(1, 0, 2).reshape(2000, -1)
    correlation = np.corrcoef(flat.T) - np.eye(100)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    neighbours = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(flat.size)
    assert (standard_normals(keys[:1], 0, 20) == z[0, :1]).all()
    assert np.isfinite(standard_normals(np.array([-1, 0, 2**63 - 1]), 10**6, 4)).all()


def test_drawn_errors_have_the_requested_covariance():
    errors = np.array([[1.0, 2.0, np.nan, 0.5]])
    matrix = np.array([[[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    noise = InputNoise(errors, (Correlated(np.array([0, 1, 2]), matrix),))
    drawn = np.concatenate(
        [draw_errors(noise, noise.cholesky(), np.array([7]), number) for number in range(8000)]
    )
    assert (drawn[:, 2] == 0).all()
    np.testing.assert_allclose(drawn.std(0), [1, 2, 0, 0.5], rtol=0.03)
    correlation = np.corrcoef(drawn[:, [0, 1, 3]].T)
    assert correlation[0, 1] == pytest.approx(0.9, abs=0.02)
    assert abs(correlation[0, 2]) < 0.05


def test_an_invalid_correlation_matrix_counts_as_no_correlation():
    broken = np.array([[[1.0, 3.0], [3.0, 1.0]], [[1.0, 0.5], [0.5, 1.0]]])
    noise = InputNoise(np.ones((2, 2)), (Correlated(np.array([0, 1]), broken),))
    (factor,) = noise.cholesky()
    np.testing.assert_allclose(factor[0], np.eye(2), atol=1e-3)
    assert factor[1] @ factor[1].T == pytest.approx(broken[1], abs=1e-3)


def test_an_unknown_error_is_zero_and_an_infinite_value_makes_only_its_own_star_nan(predictor):
    values, errors = stars(predictor, 3)
    silent = first_order(
        predictor, typical(values), InputNoise(np.full_like(errors, np.nan)), LABELS
    )[1]
    assert (silent.sigma == 0).all()
    assert np.isnan(silent.correlation("teff", "logg")).all()
    values[1, np.flatnonzero(~np.isnan(values[1]))[0]] = np.inf
    for method, more in ((first_order, ()), (sampled, (draws(3, 4),))):
        sigma = method(predictor, typical(values), InputNoise(errors), LABELS, *more)[1].sigma
        assert np.isnan(sigma[1]).all()
        assert np.isfinite(sigma[[0, 2]]).all()


def test_no_stars(predictor):
    values, errors = stars(predictor, 0)
    for method, more in ((first_order, ()), (sampled, (draws(0, 2),))):
        prediction, found = method(predictor, typical(values), InputNoise(errors), LABELS, *more)
        assert prediction.mean.shape == (0, 5)
        assert found.covariance.shape == (0, 5, 5)


def test_correlation_is_bounded():
    covariance = np.array([[[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]]])
    assert Propagated(("a", "b"), covariance).correlation("a", "b") == [1.0]


def test_invalid_arguments_are_refused(predictor):
    _, errors = stars(predictor, 2)
    with pytest.raises(JobError, match="too few draws for a covariance"):
        draws(2, 1)
    with pytest.raises(ContractError, match="does not fit its tokens"):
        InputNoise(errors, (Correlated(np.arange(3), np.zeros((2, 2, 2))),))
