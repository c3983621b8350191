"""Predicted distributions that are no Gaussian: weighted sums of Gaussians, in physical units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

STEPS = 100
"""Steps after which the search for a percentile ends; it takes 3 to 5."""

CLOSE = 1e-14
"""Halving ends at steps below this share of the range in which the percentile lies."""

CLOSE_STEP = 1e-4
"""Halley's steps end below this share of the narrowest Gaussian's sigma: what is left is of the
order of its cube."""

NO_WEIGHT = 1e-9
"""Gaussians of a smaller weight do not count where a percentile is searched."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """The predicted distribution of one label for N stars: M Gaussians each.

    Attributes
    ----------
    weights, means, sigmas
        (N, M); the weights of a star sum to 1.
    """

    weights: Floats
    means: Floats
    sigmas: Floats

    def cdf(self, x: ArrayLike) -> Floats:
        """Return the probability of a smaller value.

        Parameters
        ----------
        x
            One value per star (N,).
        """
        from scipy.special import ndtr

        z = (np.asarray(x, dtype=np.float64)[:, None] - self.means) / self.sigmas
        return np.asarray((self.weights * ndtr(z)).sum(axis=1))

    def score(self, x: ArrayLike) -> Floats:
        """Return the normal score: the standard normal's value of the same probability.

        (x - mean) / sigma for one Gaussian.

        Parameters
        ----------
        x
            One value per star (N,).
        """
        from scipy.special import ndtri

        tiny = np.finfo(np.float64).tiny
        return np.asarray(ndtri(np.clip(self.cdf(x), tiny, 1.0 - 1e-16)))

    def percentile(self, level: ArrayLike) -> Floats:
        """Return the value below which the truth lies with a given probability.

        By Halley's steps between the smallest and the largest of the Gaussians' own percentiles,
        and by halving where these do not at least halve the step before. A star's value does not
        depend on the others.

        Parameters
        ----------
        level
            The probability, 0 to 1: a number, or one per star (N,).

        Returns
        -------
        (N,); NaN where a star has no finite prediction.
        """
        from scipy.special import ndtri

        weights, means, sigmas = parts = self._by_gaussian
        level = np.broadcast_to(np.asarray(level, dtype=np.float64), len(self.means))
        score, counts = ndtri(level), weights > NO_WEIGHT
        each = means + score * sigmas
        low = np.where(counts, each, np.inf).min(axis=0)
        high = np.where(counts, each, -np.inf).max(axis=0)
        with np.errstate(invalid="ignore"):  # a probability of 1 is reached at infinity alone
            mean = (weights * means).sum(axis=0)
            spread = np.sqrt((weights * (sigmas**2 + (means - mean) ** 2)).sum(axis=0))
            begin = np.clip(mean + score * spread, low, high)
            narrowest = np.where(counts, sigmas, np.inf).min(axis=0)
            search = _Search(parts, level, begin, low, high, high - low, narrowest)
        found = np.array(begin)
        going = np.flatnonzero(np.isfinite(begin))
        if len(going) < len(begin):
            search = search.rows(going)
        for _ in range(STEPS):
            done = search.step()
            if not done.any():
                continue
            found[going[done]] = search.x[done]
            going, search = going[~done], search.rows(np.flatnonzero(~done))
            if not len(going):
                break
        found[going] = search.x
        return np.where(np.isfinite(means).all(axis=0), found, np.nan)

    @cached_property
    def _by_gaussian(self) -> tuple[Floats, Floats, Floats]:
        """Weights, means and sigmas (M, N): sums over the Gaussians are many times as fast so."""
        weights, means, sigmas = (
            np.ascontiguousarray(x.T) for x in (self.weights, self.means, self.sigmas)
        )
        return weights, means, sigmas

    def log_likelihood(self, x: ArrayLike) -> Floats:
        """Return the logarithm of the probability density.

        Parameters
        ----------
        x
            One value per star (N,).
        """
        from scipy.special import logsumexp

        z = (np.asarray(x, dtype=np.float64)[:, None] - self.means) / self.sigmas
        each = -0.5 * (z**2 + np.log(2 * np.pi)) - np.log(self.sigmas)
        return np.asarray(logsumexp(each, b=self.weights, axis=1))


@dataclass(eq=False)
class _Search:
    """The search for the x (n,) at which n stars' probabilities of smaller values are ``level``.

    Attributes
    ----------
    parts
        Weights, means and sigmas (M, n).
    level, x, low, high
        (n,); the truth is between ``low`` and ``high``.
    last
        The step before (n,).
    narrowest
        The smallest sigma (n,).
    """

    parts: tuple[Floats, Floats, Floats]
    level: Floats
    x: Floats
    low: Floats
    high: Floats
    last: Floats
    narrowest: Floats

    def __post_init__(self) -> None:
        self.smallest = CLOSE * (self.high - self.low)

    def rows(self, chosen: NDArray[np.int64]) -> _Search:
        """Return the search for some of the stars."""
        # Not by an index: that would change the order of the axes in memory.
        weights, means, sigmas = (np.take(part, chosen, axis=1) for part in self.parts)
        others = (self.level, self.x, self.low, self.high, self.last, self.narrowest)
        made = _Search((weights, means, sigmas), *(x[chosen] for x in others))
        made.smallest = self.smallest[chosen]
        return made

    def step(self) -> NDArray[np.bool_]:
        """Move each x, and return which are found (n,)."""
        from scipy.special import ndtr

        weights, means, sigmas = self.parts
        z = (self.x - means) / sigmas
        excess = (weights * ndtr(z)).sum(axis=0) - self.level
        each = weights / sigmas * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        density, slope = each.sum(axis=0), -(each * z / sigmas).sum(axis=0)
        below = excess < 0
        self.low = np.where(below, self.x, self.low)
        self.high = np.where(below, self.high, self.x)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moved = self.x - excess / (density - 0.5 * excess * slope / density)
            good = (moved >= self.low) & (moved <= self.high)
            good &= np.abs(moved - self.x) <= 0.5 * np.abs(self.last)
        moved = np.where(good, moved, 0.5 * (self.low + self.high))
        self.last, self.x = moved - self.x, moved
        enough = np.where(good, CLOSE_STEP * self.narrowest, self.smallest)
        return np.abs(self.last) <= enough
