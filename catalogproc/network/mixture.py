"""Predicted distributions that are no Gaussian: weighted sums of Gaussians, in physical units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

STEPS = 100
"""Steps after which the search for a percentile ends; it takes 6 to 12."""

CLOSE = 1e-14
"""The search ends at steps below this share of the range in which the percentile lies."""

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

        By Newton's steps between the smallest and the largest of the Gaussians' own percentiles,
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

        level = np.broadcast_to(np.asarray(level, dtype=np.float64), len(self.means))
        each = self.means + ndtri(level)[:, None] * self.sigmas
        counts = self.weights > NO_WEIGHT
        low = np.where(counts, each, np.inf).min(axis=1)
        high = np.where(counts, each, -np.inf).max(axis=1)
        found = self._solved(level, low, high)
        known = np.isfinite(self.means).all(axis=1)
        return np.where(known, found, np.nan)

    def _solved(self, level: Floats, low: Floats, high: Floats) -> Floats:
        """Return x with cdf(x) = level, which lies from low to high, all (N,)."""
        from scipy.special import ndtr

        root = np.sqrt(2 * np.pi)
        with np.errstate(invalid="ignore"):  # a probability of 1 is reached at infinity alone
            last = high - low
        enough = CLOSE * last
        x = 0.5 * (low + high)
        going = np.flatnonzero(np.isfinite(x))
        for _ in range(STEPS):
            weights, means, sigmas = self.weights[going], self.means[going], self.sigmas[going]
            z = (x[going, None] - means) / sigmas
            excess = (weights * ndtr(z)).sum(axis=1) - level[going]
            density = (weights / sigmas * np.exp(-0.5 * z * z)).sum(axis=1) / root
            low[going] = np.where(excess < 0, x[going], low[going])
            high[going] = np.where(excess < 0, high[going], x[going])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                step = -excess / density
            newton = x[going] + step
            good = (newton >= low[going]) & (newton <= high[going])
            good &= np.abs(step) <= 0.5 * np.abs(last[going])
            moved = np.where(good, newton, 0.5 * (low[going] + high[going]))
            last[going], x[going] = moved - x[going], moved
            going = going[np.abs(last[going]) > enough[going]]
            if not len(going):
                break
        return x

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
