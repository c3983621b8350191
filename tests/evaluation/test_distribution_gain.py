"""What mixtures tell more than Gaussians of the same mean and standard deviation."""

from __future__ import annotations

import numpy as np
import pytest

from catalogproc.evaluation.distribution_gain import distribution_gain
from catalogproc.network.mixture import Mixture

N = 40_000


def mixture(weights: list[float], means: list[float], sigmas: list[float]) -> Mixture:
    return Mixture(*(np.tile(np.array(x), (N, 1)) for x in (weights, means, sigmas)))


def drawn(shape: Mixture, random: np.random.Generator) -> np.ndarray:
    place = (random.random((N, 1)) > np.cumsum(shape.weights, axis=1)).sum(axis=1)
    rows = np.arange(N)
    return random.normal(shape.means[rows, place], shape.sigmas[rows, place])


def test_stars_that_follow_a_skewed_mixture_gain_its_negative_entropy() -> None:
    """The mean gain is the Kullback-Leibler divergence, here by quadrature."""
    shape = mixture([0.8, 0.2], [1.0, 2.0], [0.1, 0.4])
    x = np.linspace(-1, 5, N)
    density = np.exp(shape.log_likelihood(x))
    mean, step = np.average(x, weights=density), x[1] - x[0]
    variance = np.average((x - mean) ** 2, weights=density)
    gaussian = -0.5 * (x - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    divergence = float((density * (np.log(density) - gaussian)).sum() * step)
    found = distribution_gain("mass", shape, drawn(shape, np.random.default_rng(1)), np.zeros(N))
    assert found.stars == N
    assert found.gain == pytest.approx(divergence, abs=4 * found.error)
    assert found.gain > 0.3


def test_one_gaussian_gains_nothing_and_unknown_values_are_left_out() -> None:
    shape = mixture([0.5, 0.5], [1.0, 1.0], [0.2, 0.2])
    true = drawn(shape, np.random.default_rng(2))
    true[::4] = np.nan
    found = distribution_gain("mass", shape, true, np.full(N, 0.1))
    assert found.stars == 3 * N // 4
    assert found.gain == pytest.approx(0.0, abs=1e-12)
    nothing = distribution_gain("mass", shape, np.full(N, np.nan), np.zeros(N))
    assert nothing.stars == 0
    assert np.isnan(nothing.gain)
