"""What errors of tokens do to answers: two routes to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.bundles import tiny_bundle

from catalogproc.errors import ContractError, JobError
from catalogproc.network.error_propagation import Propagated, disagree, propagate
from catalogproc.network.input_covariance import Correlated, InputNoise, draw, normals
from catalogproc.network.predictor import Predictor

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("bundle")))


def stars(predictor, n, seed=0):
    """Tokens of which some are absent, and errors of a part of the training stars' scatter."""
    rng = np.random.default_rng(seed)
    scale = predictor.bundle.standardisation.scale
    values = predictor.bundle.standardisation.center + scale * rng.normal(size=(n, len(scale)))
    values[rng.random(values.shape) < 0.6] = np.nan
    errors = np.where(np.isnan(values), np.nan, scale * rng.uniform(0.5, 1.5, values.shape))
    return values, errors


def correlated(n, columns, seed=1):
    """Correlations as strong as those of XP coefficients, a matrix a star."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, len(columns), len(columns) + 2))
    matrix = factor @ factor.transpose(0, 2, 1)
    sd = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    return Correlated(np.asarray(columns), matrix / sd[:, :, None] / sd[:, None, :])


def test_first_order_is_the_sum_over_tokens_of_what_each_does_alone(predictor):
    """Small steps of one token at a time, by the public prediction alone."""
    values, errors = stars(predictor, 4)
    _, found = propagate(predictor, values, InputNoise(errors * 1e-2), LABELS)
    total = np.zeros((4, 5, 5))
    for column in range(values.shape[1]):
        step = np.zeros_like(values)
        step[:, column] = np.nan_to_num(errors[:, column])
        up, down = (predictor.predict(values + 0.05 * s * step, LABELS).mean.astype(float)
                    for s in (1, -1))  # fmt: skip
        slope = (up - down) / 0.1 * 1e-2
        total += slope[:, :, None] * slope[:, None, :]
    units = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
    scaled = (found.covariance - total) / units[:, :, None] / units[:, None, :]
    assert np.abs(scaled).max() < 0.02, np.abs(scaled)


@pytest.mark.parametrize("together", [False, True], ids=["independent", "correlated"])
def test_both_routes_agree_within_5_percent_where_the_network_is_linear(predictor, together):
    values, errors = stars(predictor, 12)
    groups = (correlated(12, range(40)), correlated(12, range(55, 90), 2)) if together else ()
    noise = InputNoise(errors * 0.05, groups)
    answer, one = propagate(predictor, values, noise, LABELS)
    again, drawn = propagate(predictor, values, noise, LABELS, "sampled", draws=2000)
    assert (np.abs(answer.mean - again.mean) < 1e-4 * answer.sigma).all()
    np.testing.assert_allclose(answer.sigma, again.sigma, rtol=1e-4)
    ratio = drawn.sigma / one.sigma
    assert np.abs(np.median(ratio, axis=0) - 1).max() < 0.05
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * 2000) + 0.02
    for pair in (("teff", "logg"), ("mass", "log_age")):
        difference = one.correlation(*pair) - drawn.correlation(*pair)
        assert np.abs(difference).max() < 5 / np.sqrt(2000)
    assert not disagree(one, drawn).any()
    if together:  # and correlations do matter
        plain = propagate(predictor, values, InputNoise(errors * 0.05), LABELS)[1]
        assert np.abs(one.sigma / plain.sigma - 1).max() > 0.1


def test_where_the_network_bends_the_routes_disagree_and_it_is_seen(predictor):
    values, errors = stars(predictor, 12)
    one = propagate(predictor, values, InputNoise(errors * 8), LABELS)[1]
    drawn = propagate(predictor, values, InputNoise(errors * 8), LABELS, "sampled", draws=300)[1]
    assert disagree(one, drawn).mean() > 0.5


def test_draws_follow_from_the_star_whatever_its_company(predictor):
    values, errors = stars(predictor, 9)
    keys = np.arange(9, dtype=np.int64) * 10**15 + 4_295_806_720
    order = np.random.default_rng(3).permutation(9)
    whole = propagate(
        predictor, values, InputNoise(errors), LABELS, "sampled", keys=keys, draws=16
    )[1]
    turned = propagate(
        predictor, values[order], InputNoise(errors[order]), LABELS, "sampled",
        keys=keys[order], draws=16,
    )[1]  # fmt: skip
    np.testing.assert_allclose(turned.sigma, whole.sigma[order], rtol=1e-4)
    alone = propagate(
        predictor, values[4:5], InputNoise(errors[4:5]), LABELS, "sampled", keys=keys[4:5], draws=16
    )[1]
    np.testing.assert_allclose(alone.sigma, whole.sigma[4:5], rtol=1e-4)
    other = propagate(
        predictor, values, InputNoise(errors), LABELS, "sampled", keys=keys + 1, draws=16
    )[1]
    assert (np.abs(other.sigma / whole.sigma - 1) > 1e-3).all()


def test_first_order_does_not_depend_on_company_either(predictor):
    values, errors = stars(predictor, 40)
    group = correlated(40, range(30))
    whole = propagate(predictor, values, InputNoise(errors, (group,)), LABELS)[1].sigma
    for rows in ([3], [39, 0, 7], list(range(20))):
        part = InputNoise(errors[rows], (Correlated(group.columns, group.matrix[rows]),))
        found = propagate(predictor, values[rows], part, LABELS)[1].sigma
        np.testing.assert_allclose(found, whole[rows], rtol=1e-4)


def test_normals_are_normal_and_independent():
    keys = np.arange(2000, dtype=np.int64) + 5_853_498_713_190_525_696
    z = np.stack([normals(keys, number, 20) for number in range(5)])
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(z[0, :, 3], "norm").pvalue > 1e-3
    flat = z.transpose(1, 0, 2).reshape(2000, -1)
    correlation = np.corrcoef(flat.T) - np.eye(100)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    neighbours = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(flat.size)
    assert (normals(keys[:1], 0, 20) == z[0, :1]).all()
    assert np.isfinite(normals(np.array([-1, 0, 2**63 - 1]), 10**6, 4)).all()


def test_drawn_errors_have_the_covariance_that_was_asked_for():
    errors = np.array([[1.0, 2.0, np.nan, 0.5]])
    matrix = np.array([[[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    noise = InputNoise(errors, (Correlated(np.array([0, 1, 2]), matrix),))
    drawn = np.concatenate(
        [draw(noise, noise.factors(), np.array([7]), number) for number in range(8000)]
    )
    assert (drawn[:, 2] == 0).all()
    np.testing.assert_allclose(drawn.std(0), [1, 2, 0, 0.5], rtol=0.03)
    correlation = np.corrcoef(drawn[:, [0, 1, 3]].T)
    assert correlation[0, 1] == pytest.approx(0.9, abs=0.02)
    assert abs(correlation[0, 2]) < 0.05


def test_a_matrix_that_is_none_counts_as_no_correlation():
    broken = np.array([[[1.0, 3.0], [3.0, 1.0]], [[1.0, 0.5], [0.5, 1.0]]])
    noise = InputNoise(np.ones((2, 2)), (Correlated(np.array([0, 1]), broken),))
    (factor,) = noise.factors()
    np.testing.assert_allclose(factor[0], np.eye(2), atol=1e-3)
    assert factor[1] @ factor[1].T == pytest.approx(broken[1], abs=1e-3)


def test_an_unknown_error_is_none_and_an_infinite_value_spoils_its_own_star(predictor):
    values, errors = stars(predictor, 3)
    silent = propagate(predictor, values, InputNoise(np.full_like(errors, np.nan)), LABELS)[1]
    assert (silent.sigma == 0).all()
    assert np.isnan(silent.correlation("teff", "logg")).all()
    values[1, np.flatnonzero(~np.isnan(values[1]))[0]] = np.inf
    for route in ("first_order", "sampled"):
        sigma = propagate(predictor, values, InputNoise(errors), LABELS, route, draws=4)[1].sigma
        assert np.isnan(sigma[1]).all()
        assert np.isfinite(sigma[[0, 2]]).all()


def test_no_stars(predictor):
    values, errors = stars(predictor, 0)
    for route in ("first_order", "sampled"):
        answer, found = propagate(predictor, values, InputNoise(errors), LABELS, route, draws=2)
        assert answer.mean.shape == (0, 5)
        assert found.covariance.shape == (0, 5, 5)


def test_correlation_is_bounded():
    covariance = np.array([[[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]]])
    assert Propagated(("a", "b"), covariance).correlation("a", "b") == [1.0]


def test_what_makes_no_sense_is_refused(predictor):
    values, errors = stars(predictor, 2)
    with pytest.raises(JobError, match=r"no such route(.|\n)*first_order \| sampled"):
        propagate(predictor, values, InputNoise(errors), LABELS, "guessed")
    with pytest.raises(JobError, match="a scatter needs draws"):
        propagate(predictor, values, InputNoise(errors), LABELS, "sampled", draws=1)
    with pytest.raises(ContractError, match="does not fit its tokens"):
        InputNoise(errors, (Correlated(np.arange(3), np.zeros((2, 2, 2))),))
