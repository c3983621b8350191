"""The posterior mean against closed forms and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from catalogproc.evaluation.importance_sampling import (
    Library,
    SamplingConfig,
    build_library,
    posterior,
)

MATRIX = torch.tensor(
    [[1.0, 0.4, -0.2], [0.3, 1.1, 0.0], [0.0, -0.5, 0.9], [0.7, 0.2, 0.2], [-0.4, 0.6, 1.0]]
)
WIDTH = 0.2


def linear(coordinates: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens A θ + 1; labels θ and the sum of θ."""
    labels = torch.cat([coordinates, coordinates.sum(1, keepdim=True)], dim=1)
    return coordinates @ MATRIX.T + 1.0, labels


def gaussian_library(n: int = 20_000, seed: int = 1) -> Library:
    random = torch.Generator().manual_seed(seed)
    coordinates = torch.randn(n, 3, generator=random)
    return build_library(
        coordinates, torch.ones(n, dtype=torch.long), linear, WIDTH * torch.ones(3)
    )


def covariance(level: float) -> np.ndarray:
    """Correlated noise, of a different level in each token."""
    factor = np.tril(np.random.default_rng(3).normal(0, 0.3, (5, 5)), -1) + np.eye(5)
    factor *= level * np.array([1.0, 2.0, 0.5, 1.5, 1.0])[:, None]
    return factor @ factor.T


def exact(x: np.ndarray, noise: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and sigma of the labels where prior and noise are Gaussian."""
    present = np.isfinite(x)
    a = MATRIX.numpy().astype(float)[present]
    inverse = np.linalg.inv(noise[np.ix_(present, present)])
    cov = np.linalg.inv(a.T @ inverse @ a + np.eye(3) / prior)
    mean = cov @ a.T @ inverse @ (x[present] - 1.0)
    total = np.ones(3) @ cov @ np.ones(3)
    return np.append(mean, mean.sum()), np.sqrt(np.append(np.diag(cov), total))


def noisy_tokens(noise: np.ndarray, n: int) -> np.ndarray:
    random = np.random.default_rng(5)
    theta = random.normal(size=(n, 3))
    values = theta @ MATRIX.numpy().T + 1.0
    values += random.multivariate_normal(np.zeros(5), noise, n)
    values[random.random(values.shape) < 0.15] = np.nan
    return values


@pytest.mark.parametrize("level", [1.0, 0.1, 0.005])
def test_linear_gaussian_posterior_equals_the_closed_form(level: float) -> None:
    noise = covariance(level)
    values = noisy_tokens(noise, 40)
    # In the second stage the prior is that of the library, smoothed.
    found = posterior(gaussian_library(), values, lambda _: noise)
    refined = np.isfinite(found.patches)
    assert refined.all() or level == 1.0
    for i, x in enumerate(values):
        mean, sigma = exact(x, noise, 1.0 + WIDTH**2 * refined[i])
        # A finite library samples the prior with so many stars.
        n_prior = found.patches[i] if refined[i] else found.library[i]
        tolerance = 4.0 * np.sqrt(1 / n_prior + 1 / found.effective[i])
        assert np.abs((found.mean[i] - mean) / sigma).max() < tolerance
        assert np.abs(found.sigma[i] / sigma - 1).max() < tolerance
    assert np.median(found.effective) > 400


def test_small_noise_needs_the_second_stage() -> None:
    noise = covariance(0.005)
    found = posterior(gaussian_library(), noisy_tokens(noise, 10), lambda _: noise)
    assert found.library.max() < 5
    assert found.effective.min() > 100
    assert found.patches.min() > 5


def curved(coordinates: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """One coordinate from 0 to 1; two kinds with different curves; none of kind 1 above 0.9."""
    x = coordinates[:, 0].clamp(0, 1)
    first = torch.stack([x**2, torch.sin(3 * x)], dim=1)
    second = torch.stack([1 - 0.8 * x, 0.2 + x**3], dim=1)
    tokens = torch.where(kind[:, None] == 1, first, second)
    gone = (kind == 1) & (x > 0.9)
    return tokens.masked_fill(gone[:, None], torch.nan), torch.stack([x, kind.float()], dim=1)


@pytest.mark.parametrize("width", [0.01, 0.05])
def test_nonlinear_posterior_equals_quadrature(width: float) -> None:
    random = torch.Generator().manual_seed(2)
    places = torch.rand(30_000, 1, generator=random)
    kind = 1 + (torch.rand(30_000, generator=random) < 0.3).long()
    library = build_library(places, kind, curved, torch.tensor([width]))
    grid = torch.linspace(0, 1, 200_001)[:, None]
    for level in (0.3, 0.03, 0.003):
        noise = level**2 * np.array([[1.0, 0.3], [0.3, 0.8]])
        inverse = np.linalg.inv(noise)
        values = np.array([[0.2, 0.9], [0.5, 0.7], [0.64, 0.72], [0.257, 0.999]])  # curves meet
        found = posterior(
            library, values, lambda _, noise=noise: noise, SamplingConfig(min_effective=3000)
        )
        for i, x in enumerate(values):
            weights, points = [], []
            for which, share in ((1, 0.7), (2, 0.3)):
                tokens, _ = curved(grid, torch.full((len(grid),), which))
                residual = tokens.double().numpy() - x
                chi2 = np.einsum("ni,ij,nj->n", residual, inverse, residual)
                weights.append(share * np.exp(-0.5 * np.nan_to_num(chi2, nan=np.inf)))
                points.append(grid[:, 0].double().numpy())
            weight, point = np.concatenate(weights), np.concatenate(points)
            mean = (weight @ point) / weight.sum()
            sigma = np.sqrt(weight @ (point - mean) ** 2 / weight.sum())
            of_second = weights[1].sum() / weight.sum()
            assert abs(found.mean[i, 0] - mean) < 0.15 * sigma + 0.002
            assert found.sigma[i, 0] == pytest.approx(sigma, rel=0.2, abs=0.002)
            assert found.mean[i, 1] - 1 == pytest.approx(of_second, abs=0.06)


def test_the_library_has_no_stars_with_nan_tokens() -> None:
    places, kind = torch.linspace(0, 1, 1000)[:, None], torch.ones(1000, dtype=torch.long)
    library = build_library(places, kind, curved, torch.tensor([0.01]))
    assert library.coordinates.max() <= 0.9
    assert library.slopes.isfinite().all()


def test_posterior_without_tokens_is_the_prior() -> None:
    library = gaussian_library(5000)
    nothing = np.full((1, 5), np.nan)
    found = posterior(library, nothing, lambda _: np.eye(5))
    assert found.library[0] == pytest.approx(len(library))
    np.testing.assert_allclose(found.mean[0], library.labels.double().mean(0), atol=1e-6)
    np.testing.assert_allclose(found.sigma[0], library.labels.double().std(0), rtol=1e-3)


def test_the_same_seed_gives_the_same_posterior() -> None:
    noise = covariance(0.05)
    values, library = noisy_tokens(noise, 3), gaussian_library(5000)
    one, same, other = (
        posterior(library, values, lambda _: noise, SamplingConfig(seed=s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.mean, same.mean)
    assert (one.mean != other.mean).any()
    # Within the sampling error of the effective sample.
    assert np.abs((one.mean - other.mean) / one.sigma).max() < 4 * np.sqrt(2 / one.effective.min())
