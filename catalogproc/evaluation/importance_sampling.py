"""The best possible answer: the posterior mean, by importance sampling over a library of stars.

Where stars, noise and prior are known, as in a simulation, the posterior mean is the answer of
least mean square error: no model can do better, and how far one is from it says what is left to
learn. It shares nothing with the network but the tokens that it is given.

A library holds stars drawn from the prior, as coordinates θ (age, metallicity, dust, …) and a
discrete kind (the phase of evolution), with their noiseless tokens t(θ). For a star seen as x
with covariance C their weights are N(x; t(θ_i), C). Where the data are loose many library stars
carry weight, and the answer is theirs. Where the data are sharp no library star is close enough;
there each stands for a patch of the prior about it, N(θ_i, H):

1.  if t were linear over the patch, its evidence Z_i and its posterior, a Gaussian, would have
    closed forms;
2.  patches are picked in proportion to Z_i^temper, and each pick's Gaussian is moved by a step
    of Gauss and Newton's with the exact t;
3.  one new star is drawn from it, a little widened, and gets the weight
    likelihood × N(θ; θ_i, H) / (density that it was drawn with × share that i was picked with),
    with the exact t.

Linearity proposes and biases nothing: the sum over patches is exact for the library's prior
smoothed by H, which is small beside what the prior varies over.
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
"""Coordinates (n, P) and kinds (n,) to noiseless tokens (n, D) and labels (n, K).

Coordinates beyond their limits count as at the limit; a row of NaN tokens says that there is no
such star.
"""

Progress = Callable[[int, int, str], None]

BLOCK = 8_192
"""Library stars at a time: their residuals stay in the processor's cache."""


@dataclass(frozen=True)
class Effort:
    """How much is done for each star.

    enough
        Effective number of library stars above which the library alone answers.
    patches
        Nearest library stars whose patches are looked at.
    samples
        New stars drawn.
    temper
        Power of the evidence by which patches are picked: below 1, so that a patch over which
        the tokens are not linear is not overlooked.
    widening
        Factor on the standard deviation that new stars are drawn with.
    """

    enough: float = 1000.0
    patches: int = 8192
    samples: int = 1024
    temper: float = 0.7
    widening: float = 1.2


@dataclass(frozen=True, eq=False)
class Library:
    """M stars drawn from the prior.

    ``coordinates`` (M, P), ``kind`` (M,), noiseless ``tokens`` (M, D), ``labels`` (M, K);
    ``slopes`` (M, P, D), how the tokens change over one width of each coordinate; ``widths``
    (P,), standard deviations of a patch.
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

    def reading(self, columns: NDArray[np.int64], forward: Forward) -> Library:
        """The same library with some of its tokens (d,) alone, which ``forward`` gives."""
        at = torch.from_numpy(columns)
        return replace(
            self, tokens=self.tokens[:, at], slopes=self.slopes[:, :, at], forward=forward
        )


@dataclass(frozen=True, eq=False)
class Posterior:
    """Posterior mean and standard deviation (N, K), in the labels' units.

    ``effective`` (N,) is the effective sample size (Kish 1965) of the stars that give the
    answer, ``library`` (N,) that of the library's, ``patches`` (N,) that of the patches, which
    is how many library stars make the prior there (NaN where the library alone answered).
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
    """A library from a draw of the prior (M, P) and (M,), with patches of widths (P,).

    Slopes are secants from one width below to one above.
    """
    tokens, labels, slopes = [], [], []
    for start in range(0, len(coordinates), BLOCK):
        here, what = coordinates[start : start + BLOCK], kind[start : start + BLOCK]
        seen, known = forward(here, what)
        secants = []
        for step in torch.diag(widths):
            up, down = (forward(here + side * step, what)[0] for side in (1, -1))
            up, down = torch.where(up.isnan(), seen, up), torch.where(down.isnan(), seen, down)
            secants.append(0.5 * (up - down))
        tokens.append(seen)
        labels.append(known)
        slopes.append(torch.stack(secants, dim=1))
        if progress is not None:
            progress(start + len(here), len(coordinates), "library stars")
    t, y, s = torch.cat(tokens), torch.cat(labels), torch.cat(slopes)
    real = t.isfinite().all(1)
    return Library(coordinates[real], kind[real], t[real], y[real], s[real], widths, forward)


def posterior(
    library: Library,
    values: Floats,
    covariance: Callable[[int], Floats],
    effort: Effort | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    """Posterior mean and standard deviation of the library's labels, star by star.

    Parameters
    ----------
    values
        What was seen of N stars, (N, D), NaN where a token is absent.
    covariance
        Gives the covariance (D, D) of star number i about its noiseless tokens; what it says
        of absent tokens does not matter.
    seed
        Of the new stars.
    """
    effort = effort or Effort()
    n, k = len(values), library.labels.shape[1]
    mean, sigma = np.empty((n, k)), np.empty((n, k))
    effective, alone, patches = np.empty(n), np.empty(n), np.full(n, np.nan)
    random = torch.Generator().manual_seed(seed)
    for i, seen in enumerate(values):
        x, root = _whitener(seen, covariance(i))
        distance = _distances(library, x, root)
        weight, labels = _normalised(-0.5 * distance), library.labels
        alone[i] = _effective(weight)
        if alone[i] < effort.enough:
            weight, labels, patches[i] = _refined(library, x, root, distance, effort, random)
        effective[i] = _effective(weight)
        centre = weight @ labels.double()
        mean[i] = centre
        sigma[i] = (weight @ (labels - centre).double().square()).sqrt()
        if progress is not None:
            progress(i + 1, n, "posteriors")
    return Posterior(mean, sigma, effective, alone, patches)


def _whitener(seen: Floats, covariance: Floats) -> tuple[Tensor, Tensor]:
    """x (D,) with zeros where absent, and a matrix (D, d) that makes its noise white."""
    present = np.flatnonzero(np.isfinite(seen))
    part = np.asarray(covariance, dtype=np.float64)[np.ix_(present, present)]
    root = np.zeros((len(seen), len(present)))
    root[present] = np.linalg.inv(np.linalg.cholesky(part)).T
    return torch.from_numpy(np.nan_to_num(seen)).float(), torch.from_numpy(root).float()


def _distances(library: Library, x: Tensor, root: Tensor) -> Tensor:
    """Squared Mahalanobis distances (M,) of the library's stars."""
    parts = torch.split(library.tokens, BLOCK)
    return torch.cat([((part - x) @ root).square().sum(1) for part in parts])


def _normalised(log_weight: Tensor) -> Tensor:
    return torch.softmax(log_weight.double(), dim=0)


def _effective(weight: Tensor) -> float:
    return float(1.0 / weight.square().sum())


def _refined(
    library: Library,
    x: Tensor,
    root: Tensor,
    distance: Tensor,
    effort: Effort,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, float]:
    """Weights (S,) and labels (S, K) of new stars; effective number of patches behind them.

    Offsets within a patch are in its widths, so that its prior is a standard Gaussian.
    """
    near = distance.topk(min(effort.patches, len(library)), largest=False).indices
    slopes = library.slopes[near] @ root  # (K, P, d)
    factor = torch.linalg.cholesky(slopes @ slopes.mT + torch.eye(slopes.shape[1]))
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    residual = (x - library.tokens[near]) @ root  # (K, d)
    pull = _times(slopes, residual)
    offset = _solve(factor, pull)
    evidence = -0.5 * (residual.square().sum(1) - (pull * offset).sum(1)) - log_det

    share = _normalised(effort.temper * evidence)
    pick = _systematic(share, effort.samples, random)
    place, kind = library.coordinates[near[pick]], library.kind[near[pick]]
    slopes, factor, offset = slopes[pick], factor[pick], offset[pick]
    tokens, _ = library.forward(place + offset * library.widths, kind)
    residual = ((x - tokens) @ root).nan_to_num()
    offset = offset + _solve(factor, _times(slopes, residual) - offset)

    z = torch.randn(offset.shape, generator=random)
    drawn = torch.linalg.solve_triangular(factor.mT, z[:, :, None], upper=True)[:, :, 0]
    offset = offset + effort.widening * drawn
    tokens, labels = library.forward(place + offset * library.widths, kind)
    likelihood = -0.5 * ((x - tokens) @ root).square().sum(1)
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
    """n indices, each as often as n times its share says, to within one (Kitagawa 1996)."""
    points = (torch.arange(n) + torch.rand(1, generator=random)) / n
    return torch.searchsorted(share.cumsum(0), points.double()).clamp(max=len(share) - 1)
