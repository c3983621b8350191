"""Fit the distribution of training stars in the encoder's output, for OOD_LATENT."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.uncertainty_calibration import Latent

COMMON_LATENT = 0.99
"""Fraction of stars within the limit of the distance."""

FEWEST_ONE_BAND = 300
"""Smallest number of stars with one band for a limit of their own."""

RIDGE = 1e-3
"""Fraction of the mean variance that is added in each direction: some hardly vary."""


def fit_latent(
    summaries: NDArray[np.float32],
    present: NDArray[np.bool_],
    one_band: NDArray[np.bool_] | None = None,
) -> Latent:
    """Fit the distribution of the network's summaries of giants.

    Parameters
    ----------
    summaries
        (N, D) summaries.
    present
        (N, V) True where a star has a token.
    one_band
        (N,) True where a star has one band; None for none.
    """
    s = summaries.astype(np.float64)
    design = np.column_stack([np.ones(len(s)), present])
    # Regularised: the shift of tokens that all stars have, or none, is not determined.
    normal = design.T @ design + np.diag([0.0] + [0.1] * present.shape[1])
    expected = np.linalg.solve(normal, design.T @ s)
    residual = s - design @ expected
    covariance = residual.T @ residual / len(s)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    distance = np.linalg.norm(residual @ factor.T, axis=1)
    log_sizes = np.linalg.solve(normal, design.T @ np.log(distance))[1:]
    latent = Latent(expected[0], expected[1:], factor, log_sizes, limit=np.inf)
    found = latent.distance(s, present)
    alone = np.zeros(len(s), dtype=bool) if one_band is None else one_band
    limit = float(np.quantile(found[~alone], COMMON_LATENT))
    if alone.sum() < FEWEST_ONE_BAND:
        return replace(latent, limit=limit)
    return replace(
        latent, limit=limit, one_band_limit=float(np.quantile(found[alone], COMMON_LATENT))
    )
