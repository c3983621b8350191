"""What a predicted distribution that is no Gaussian tells more than a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.mixture import Mixture

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DistributionGain:
    """Mean log likelihood of true values by the mixtures less that by Gaussians.

    Attributes
    ----------
    label
        Name of the token.
    stars
        Number of stars.
    gain, error
        Mean difference, nats per star, and its standard error.
    """

    label: str
    stars: int
    gain: float
    error: float


def distribution_gain(
    label: str, mixture: Mixture, true: Floats, true_error: Floats
) -> DistributionGain:
    """Compare the predicted mixtures with Gaussians of the same mean and standard deviation.

    Parameters
    ----------
    label
        Name of the token.
    mixture
        Predicted distributions of N stars.
    true, true_error
        True values (N,), NaN where unknown, and their errors, by which both are widened.
    """
    error = np.nan_to_num(true_error)[:, None]
    wide = replace(mixture, sigmas=np.hypot(mixture.sigmas, error))
    mean = (wide.weights * wide.means).sum(axis=1)
    variance = (wide.weights * (wide.sigmas**2 + (wide.means - mean[:, None]) ** 2)).sum(axis=1)
    one = Mixture(np.ones((len(mean), 1)), mean[:, None], np.sqrt(variance)[:, None])
    gains = wide.log_likelihood(true) - one.log_likelihood(true)
    gains = gains[np.isfinite(gains)]
    if len(gains) < 2:
        return DistributionGain(label, len(gains), np.nan, np.nan)
    spread = float(gains.std(ddof=1)) / len(gains) ** 0.5
    return DistributionGain(label, len(gains), float(gains.mean()), spread)
