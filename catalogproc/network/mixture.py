"""Predicted distributions that are no Gaussian: weighted sums of Gaussians, in physical units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

HALVINGS = 50
"""Steps of the bisection for a percentile: to 1e-15 of the range in which it lies."""

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

        By bisection between the smallest and the largest of the Gaussians' own percentiles.

        Parameters
        ----------
        level
            The probability, 0 to 1: a number, or one per star (N,).

        Returns
        -------
        (N,); NaN where a star has no finite prediction.
        """
        from scipy.special import ndtri

        level = np.broadcast_to(np.asarray(level, dtype=np.float64), len(self.means))
        each = self.means + ndtri(level)[:, None] * self.sigmas
        counts = self.weights > NO_WEIGHT
        low = np.where(counts, each, np.inf).min(axis=1)
        high = np.where(counts, each, -np.inf).max(axis=1)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        found = 0.5 * (low + high)
        known = np.isfinite(self.means).all(axis=1)
        return np.where(known, found, np.nan)

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
