"""Information limit: the posterior mean, by importance sampling over a library of stars.

Where stars, noise and prior are known, as in a simulation, the posterior mean has the least mean
square error of all estimators: the ratio of a model's scatter to it shows how much could still be
learned. Nothing is shared with the network but the input tokens.

A library holds stars drawn from the prior, as coordinates θ (age, metallicity, dust, …) and a
discrete kind (the phase of evolution), with their noiseless tokens t(θ). For a star with tokens x
of covariance C their weights are N(x; t(θ_i), C). Where the covariance is large many library
stars carry weight and give the posterior. Where it is small no library star is near enough; then
each stands for a patch of the prior around it, N(θ_i, H):

1.  if t were linear over the patch, its evidence Z_i and its posterior, a Gaussian, would have
    closed forms;
2.  patches are picked in proportion to Z_i^temper, and the Gaussian of each pick is moved by one
    Gauss-Newton step with the exact t;
3.  one new star is drawn from it, a little widened, with the weight
    likelihood × N(θ; θ_i, H) / (density of the draw × probability of picking i),
    with the exact t.

The linear approximation is only the proposal and adds no bias: the sum over patches is exact for
the library's prior smoothed by H, which is narrow compared with the prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function of coordinates (n, P) and kinds (n,) to noiseless tokens (n, D) and labels (n, K).

Coordinates outside their limits are set to the limit; tokens are NaN where no such star exists.
"""

Progress = Callable[[int, int, str], None]

BLOCK = 8_192
"""Library stars in one block: their residuals fit in the processor's cache."""


@dataclass(frozen=True)
class SamplingConfig:
    """Size of the computation for each star.

    Attributes
    ----------
    min_effective
        Effective number of library stars above which the library alone gives the posterior.
    patches
        Number of nearest library stars whose patches are considered.
    samples
        Number of new stars drawn.
    temper
        Power of the evidence by which patches are picked: below 1, so that patches over which
        the tokens are not linear are not missed.
    widening
        Factor on the standard deviation of the proposal.
    seed
        Random seed of the new stars.
    """

    min_effective: float = 1000.0
    patches: int = 8192
    samples: int = 1024
    temper: float = 0.7
    widening: float = 1.2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Library:
    """M stars drawn from the prior.

    Attributes
    ----------
    coordinates, kind
        (M, P) and (M,).
    tokens, labels
        Noiseless tokens (M, D) and labels (M, K).
    slopes
        Change of the tokens over one width of each coordinate (M, P, D).
    widths
        Standard deviations of a patch (P,).
    forward
        The function behind tokens and labels.
    """

    coordinates: Tensor
    kind: Tensor
    tokens: Tensor
    labels: Tensor
    slopes: Tensor
    widths: Tensor
    forward: Forward

    def __len__(self) -> int:
        return len(self.tokens)

    def select_tokens(self, columns: NDArray[np.int64], forward: Forward) -> Library:
        """Return the same library with some of its tokens.

        Parameters
        ----------
        columns
            Columns (d,) of ``tokens``.
        forward
            The function that gives these tokens.
        """
        at = torch.from_numpy(columns)
        return replace(
            self, tokens=self.tokens[:, at], slopes=self.slopes[:, :, at], forward=forward
        )


@dataclass(frozen=True, eq=False)
class Posterior:
    """Posterior of the labels of N stars.

    Attributes
    ----------
    mean, sigma
        Mean and standard deviation (N, K), in the labels' units.
    effective
        Effective sample size (Kish 1965) behind the posterior (N,).
    library
        Effective number of library stars (N,).
    patches
        Effective number of patches (N,), that is of library stars that sample the prior; NaN
        where the library alone gave the posterior.
    """

    mean: NDArray[np.float64]
    sigma: NDArray[np.float64]
    effective: NDArray[np.float64]
    library: NDArray[np.float64]
    patches: NDArray[np.float64]


def build_library(
    coordinates: Tensor,
    kind: Tensor,
    forward: Forward,
    widths: Tensor,
    progress: Progress | None = None,
) -> Library:
    """Return a library; its slopes are secants from one width below to one above.

    Parameters
    ----------
    coordinates, kind
        A sample of the prior, (M, P) and (M,).
    forward
        The function that gives tokens and labels.
    widths
        Standard deviations of a patch (P,).
    progress
        Called with (stars done, all stars, note).
    """
    tokens, labels, slopes = [], [], []
    for start in range(0, len(coordinates), BLOCK):
        block, kinds = coordinates[start : start + BLOCK], kind[start : start + BLOCK]
        block_tokens, block_labels = forward(block, kinds)
        secants = []
        for step in torch.diag(widths):
            up, down = (forward(block + sign * step, kinds)[0] for sign in (1, -1))
            up = torch.where(up.isnan(), block_tokens, up)
            down = torch.where(down.isnan(), block_tokens, down)
            secants.append(0.5 * (up - down))
        tokens.append(block_tokens)
        labels.append(block_labels)
        slopes.append(torch.stack(secants, dim=1))
        if progress is not None:
            progress(start + len(block), len(coordinates), "library stars")
    t, y, s = torch.cat(tokens), torch.cat(labels), torch.cat(slopes)
    exists = t.isfinite().all(1)
    return Library(
        coordinates[exists], kind[exists], t[exists], y[exists], s[exists], widths, forward
    )


def posterior(
    library: Library,
    values: Floats,
    covariance: Callable[[int], Floats],
    config: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> Posterior:
    """Return the posterior mean and standard deviation of the library's labels for each star.

    Parameters
    ----------
    library
        Sample of the prior.
    values
        Tokens (N, D) of the stars, NaN where absent.
    covariance
        Function that returns the covariance (D, D) of star number i about its noiseless tokens;
        rows of absent tokens are ignored.
    config
        Size of the computation.
    progress
        Called with (stars done, all stars, note).
    """
    config = config or SamplingConfig()
    n, k = len(values), library.labels.shape[1]
    mean, sigma = np.empty((n, k)), np.empty((n, k))
    effective, from_library, patches = np.empty(n), np.empty(n), np.full(n, np.nan)
    random = torch.Generator().manual_seed(config.seed)
    for i, tokens in enumerate(values):
        star = _WhitenedStar.of(tokens, covariance(i))
        distance = star.distances(library)
        weight, labels = _normalised(-0.5 * distance), library.labels
        from_library[i] = _effective(weight)
        if from_library[i] < config.min_effective:
            weight, labels, patches[i] = _refined(library, star, distance, config, random)
        effective[i] = _effective(weight)
        centre = weight @ labels.double()
        mean[i] = centre
        sigma[i] = (weight @ (labels - centre).double().square()).sqrt()
        if progress is not None:
            progress(i + 1, n, "posteriors")
    return Posterior(mean, sigma, effective, from_library, patches)


@dataclass(frozen=True, eq=False)
class _WhitenedStar:
    """Tokens (D,), zero where absent, and a matrix (D, d) that makes their noise white."""

    tokens: Tensor
    root: Tensor

    @classmethod
    def of(cls, tokens: Floats, covariance: Floats) -> _WhitenedStar:
        present = np.flatnonzero(np.isfinite(tokens))
        part = np.asarray(covariance, dtype=np.float64)[np.ix_(present, present)]
        root = np.zeros((len(tokens), len(present)))
        root[present] = np.linalg.inv(np.linalg.cholesky(part)).T
        return cls(torch.from_numpy(np.nan_to_num(tokens)).float(), torch.from_numpy(root).float())

    def residual(self, tokens: Tensor) -> Tensor:
        """Whitened difference (n, d) of this star from noiseless tokens (n, D)."""
        return (self.tokens - tokens) @ self.root

    def distances(self, library: Library) -> Tensor:
        """Squared Mahalanobis distances (M,) of the library's stars."""
        parts = torch.split(library.tokens, BLOCK)
        return torch.cat([self.residual(part).square().sum(1) for part in parts])


def _normalised(log_weight: Tensor) -> Tensor:
    return torch.softmax(log_weight.double(), dim=0)


def _effective(weight: Tensor) -> float:
    return float(1.0 / weight.square().sum())


def _refined(
    library: Library,
    star: _WhitenedStar,
    distance: Tensor,
    config: SamplingConfig,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, float]:
    """Weights (S,) and labels (S, K) of new stars; effective number of patches behind them.

    Offsets within a patch are in its widths, so that its prior is a standard Gaussian.
    """
    near = distance.topk(min(config.patches, len(library)), largest=False).indices
    slopes = library.slopes[near] @ star.root  # (K, P, d)
    factor = torch.linalg.cholesky(slopes @ slopes.mT + torch.eye(slopes.shape[1]))
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    residual = star.residual(library.tokens[near])  # (K, d)
    gradient = _times(slopes, residual)
    offset = _solve(factor, gradient)
    evidence = -0.5 * (residual.square().sum(1) - (gradient * offset).sum(1)) - log_det

    share = _normalised(config.temper * evidence)
    pick = _systematic(share, config.samples, random)
    place, kind = library.coordinates[near[pick]], library.kind[near[pick]]
    slopes, factor, offset = slopes[pick], factor[pick], offset[pick]
    tokens, _ = library.forward(place + offset * library.widths, kind)
    residual = star.residual(tokens).nan_to_num()
    offset = offset + _solve(factor, _times(slopes, residual) - offset)

    z = torch.randn(offset.shape, generator=random)
    scattered = torch.linalg.solve_triangular(factor.mT, z[:, :, None], upper=True)[:, :, 0]
    offset = offset + config.widening * scattered
    tokens, labels = library.forward(place + offset * library.widths, kind)
    likelihood = -0.5 * star.residual(tokens).square().sum(1)
    prior = -0.5 * offset.square().sum(1)
    density = log_det[pick] - 0.5 * z.square().sum(1)
    log_weight = likelihood + prior - density - share[pick].log()
    weight = _normalised(log_weight.masked_fill(tokens.isnan().any(1), -math.inf))
    return weight, labels, _effective(_normalised(evidence))


def _times(slopes: Tensor, vector: Tensor) -> Tensor:
    """(K, P, d) by (K, d): (K, P)."""
    return (slopes @ vector[:, :, None])[:, :, 0]


def _solve(factor: Tensor, vector: Tensor) -> Tensor:
    """Solutions (K, P) of A y = vector, for Cholesky factors (K, P, P) of A."""
    return torch.cholesky_solve(vector[:, :, None], factor)[:, :, 0]


def _systematic(share: Tensor, n: int, random: torch.Generator) -> Tensor:
    """n indices, each drawn n times its share, to within one (Kitagawa 1996)."""
    points = (torch.arange(n) + torch.rand(1, generator=random)) / n
    return torch.searchsorted(share.cumsum(0), points.double()).clamp(max=len(share) - 1)
