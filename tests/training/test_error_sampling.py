"""Errors drawn in a training, and what a network learns from them: exact posteriors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from catalogproc.errors import JobError, ResumeError
from catalogproc.network.bundle import Standardisation
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.statistics import ErrorScaling
from catalogproc.training.config import Settings
from catalogproc.training.error_sampling import (
    ErrorDraws,
    ErrorOptions,
    ErrorSampler,
    fit_error_scaling,
)
from catalogproc.training.token_sampling import TrainingStars
from catalogproc.training.trainer import Trainer

CPU = torch.device("cpu")
SPECTRUM = np.array([True, True, False, False])
SCALE = np.array([2.0, 5.0, 1.0, 10.0])
OPTIONS = ErrorOptions(spectrum=8.0, least=0.01, largest=3.0, original=0.4, unstated=0.1)


@pytest.fixture(autouse=True)
def one_thread():
    """Such small networks are fastest on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(n=40_000):
    """Standardised originals, and the tokens with noise: the last value is exact."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(n, 4, generator=generator)
    errors = torch.tensor([0.2, 0.5, 0.1, 0.0]).expand(n, 4).clone()
    scaling = fit_error_scaling(errors.numpy() * SCALE, SCALE, SPECTRUM, OPTIONS)
    sampler = ErrorSampler(ErrorDraws(OPTIONS, SPECTRUM, scaling), SCALE, CPU)
    return values, errors, sampler.add_noise(values, errors, generator), sampler, scaling


def test_the_noise_is_what_the_stated_error_says():
    """(shown - original)^2 + e^2 has the expectation of the stated error, at any size of it."""
    values, errors, noisy, _, _ = drawn()
    added = (noisy.errors.square() - errors.square()).clamp(min=0).sqrt()
    z = ((noisy.values - values) / added).numpy()
    for column in range(4):
        e = added[:, column].numpy()
        edges = np.nanquantile(e[e > 1e-3], [0.1, 0.4, 0.7, 0.95])
        for low, high in pairwise(edges):
            some = z[(e > low) & (e < high), column]
            assert stats.kstest(some, "norm").pvalue > 1e-3


def test_factors_and_sizes_have_their_ranges_and_shares():
    values, errors, noisy, _, _ = drawn()
    factor = noisy.errors[:, :2] / errors[:, :2]
    stated = ~noisy.errors.isnan()
    assert torch.equal(stated[:, 0], stated[:, 1])
    torch.testing.assert_close(factor[:, 0], factor[:, 1], equal_nan=True, rtol=1e-4, atol=0)
    assert factor[stated[:, 0]].min() >= 1 - 1e-6
    assert 7.5 < factor[stated[:, 0]].max() <= 8
    same = (noisy.values == values).float().mean(0)
    np.testing.assert_allclose(same[[0, 2, 3]], 0.4, atol=0.02)
    np.testing.assert_allclose((~stated).float().mean(0), 0.1, atol=0.01)
    exact = noisy.errors[:, 3][stated[:, 3]]
    assert (exact == 0).float().mean() == pytest.approx(0.4 / 0.9, abs=0.02)
    positive = exact[exact > 0].log()
    uniform = stats.uniform(np.log(0.01), np.log(300))
    assert stats.kstest(positive.numpy(), uniform.cdf).pvalue > 1e-3


def test_an_error_that_is_not_stated_is_typical_and_read_as_0():
    values, _, noisy, sampler, scaling = drawn()
    typical = np.exp(scaling.center) / SCALE
    r = sampler.standardise(noisy.errors)
    unstated = noisy.errors[:, 3].isnan()
    assert (r[:, 3][unstated] == 0).all()
    difference = (noisy.values - values)[:, 3][unstated]  # the original has no error
    assert difference.std() == pytest.approx(typical[3], rel=0.05)
    unknown = torch.full((9, 4), torch.nan)
    generator = torch.Generator().manual_seed(2)
    kept = ErrorOptions(original=1.0, unstated=0.0)
    same = ErrorSampler(ErrorDraws(kept, SPECTRUM, scaling), SCALE, CPU)
    found = same.add_noise(torch.zeros(9, 4), unknown, generator)
    np.testing.assert_allclose(found.errors, np.tile(typical, (9, 1)), rtol=1e-5)
    np.testing.assert_allclose(same.standardise(found.errors), 0.0, atol=1e-5)


def test_a_training_reads_errors_as_a_run_does():
    """Two routes to r: the sampler's in float32, and ErrorScaling's of physical errors."""
    _, _, noisy, sampler, scaling = drawn(2000)
    wanted = scaling.standardise(noisy.errors.double().numpy() * SCALE)
    np.testing.assert_allclose(sampler.standardise(noisy.errors), wanted, atol=2e-5)
    quantiles = np.quantile(wanted, [0.16, 0.84], axis=0)
    assert (quantiles[0] < -0.2).sum() >= 1
    assert (np.abs(wanted) < 12).all()
    none = fit_error_scaling(np.full((5, 4), np.nan), SCALE, SPECTRUM, OPTIONS)
    assert (none.standardise(np.array([[0.0, 1.0, 1e9, np.nan]])) == 0).all()


Z = 0.35
"""Error of the original values in the toy problem, in every token."""


def toy(seed, n):
    """z ~ N(0, 1), three measurements of it with known errors, and z itself, the label."""
    rng = np.random.default_rng(seed)
    z, errors = rng.normal(size=(n, 1)), np.full((n, 4), Z)
    errors[:, 3] = 0.0
    values = np.hstack([z + Z * rng.normal(size=(n, 3)), z])
    return values, errors


def toy_training(options=OPTIONS):
    one = Standardisation(np.zeros(4), np.ones(4))
    scaling = fit_error_scaling(toy(5, 5000)[1], one.scale, SPECTRUM, options)
    errors = ErrorDraws(options, SPECTRUM, scaling)
    return TrainingStars(toy, one, np.array([0, 0, 0, 1.0]), errors=errors)


SHAPE = Shape(4, 32, ((2, 64),), ((2, 64),), (64,), dropout=0.0, reads_errors=True)
SETTINGS = Settings(steps=500, batch=384, rate=1e-2, restart_steps=500, min_tokens=1, max_tokens=3,
                    targets=1, repeat=0.0, parts=1, average=0.98, weight_decay=0.0,
                    report_steps=100, checkpoint_steps=500)  # fmt: skip


def test_the_exact_posterior_is_found_as_a_function_of_the_stated_errors(tmp_path):
    """Mean and sigma of a Gaussian posterior: the precisions 1 / e^2 of the measurements add."""
    stars = replace(toy_training(), labels=np.array([False, False, False, True]))
    settings = Settings(**{**vars(SETTINGS), "unlabelled": 1.0})
    network = Trainer(SHAPE, stars, settings).fit(tmp_path).network
    scaling, rng, n = stars.errors.scaling, np.random.default_rng(9), 3000
    sigmas = {}
    for e_spectrum, e_other in ((0.35, 0.35), (0.7, 0.35), (0.35, 1.5), (0.7, 0.7), (1.5, 2.5)):
        e = np.array([e_spectrum, e_spectrum, e_other])
        z = rng.normal(size=(n, 1))
        x = z + e * rng.normal(size=(n, 3))
        r = scaling.standardise(np.tile([*e, np.nan], (n, 1)))[:, :3]
        ids = torch.arange(1, 4).expand(n, 3)
        packed = PackedTokens(ids, torch.tensor(x).float(), torch.tensor(r).float())
        with torch.inference_mode():
            mean, log_variance = (out[:, 0].numpy() for out in network(packed, torch.tensor([4])))
        precision = 1 + (1 / e**2).sum()
        expected, sigma = (x / e**2).sum(axis=1) / precision, precision**-0.5
        assert np.sqrt(np.mean((mean - expected) ** 2)) < 0.4 * sigma, e
        assert np.exp(np.median(log_variance) / 2) == pytest.approx(sigma, rel=0.1), e
        sigmas[e_spectrum, e_other] = np.exp(np.median(log_variance) / 2)
    assert sigmas[0.7, 0.7] > 1.3 * sigmas[0.35, 0.35]  # twice the errors; exactly, 1.68


def test_a_resumed_training_draws_the_same_errors_and_another_one_is_refused(tmp_path):
    brief = Settings(**{**vars(SETTINGS), "steps": 8, "report_steps": 2, "checkpoint_steps": 4})
    whole = Trainer(SHAPE, toy_training(), brief).fit(tmp_path / "whole").network
    half = Settings(**{**vars(brief), "steps": 4})
    Trainer(SHAPE, toy_training(), half).fit(tmp_path / "parts")
    resumed = Trainer(SHAPE, toy_training(), brief).fit(tmp_path / "parts", resume=True).network
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert whole.error_weight.abs().max() > 0
    other = toy_training(replace(OPTIONS, largest=2.0))
    with pytest.raises(ResumeError, match=r"errors\.largest"):
        Trainer(SHAPE, other, brief).fit(tmp_path / "parts", resume=True)


def test_networks_and_errors_that_do_not_fit_are_refused(tmp_path):
    plain = replace(SHAPE, reads_errors=False)
    for shape, stars in ((plain, toy_training()), (SHAPE, replace(toy_training(), errors=None))):
        with pytest.raises(JobError, match="errors are drawn for networks that read them"):
            Trainer(shape, stars, SETTINGS).fit(tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"spectrum": 0.5}, "errors do not become smaller"),
        ({"original": 1.5}, "not a probability"),
        ({"original": 0.8, "unstated": 0.3}, "more than all stars"),
        ({"least": 0.0}, "no range"),
        ({"noise": 1.0}, "unknown field"),
    ],
)
def test_wrong_options_are_refused(table, words):
    with pytest.raises(JobError, match=words):
        ErrorOptions.from_dict(table)


def test_scaling_is_the_median_and_the_spread_of_the_drawn_errors():
    rng = np.random.default_rng(3)
    errors = np.exp(rng.normal(-2.0, 0.5, (20_000, 1)))
    kept = ErrorOptions(original=1.0, unstated=0.0)
    found = fit_error_scaling(errors, np.array([3.0]), np.array([False]), kept)
    assert isinstance(found, ErrorScaling)
    assert found.center[0] == pytest.approx(-2.0, abs=0.02)
    assert found.scale[0] == pytest.approx(0.5, rel=0.03)
    np.testing.assert_allclose([found.low[0], found.high[0]], -2 + 0.5 * np.array([-2.88, 2.88]),
                               atol=0.06)  # fmt: skip
