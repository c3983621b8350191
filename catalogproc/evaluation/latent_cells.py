"""Cells of the latent space: groups of stars that a network sees as alike.

Coverage in them is a test of the uncertainties that no choice of columns can evade.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

Floats = NDArray[np.float64]

AXES = 16
"""Number of directions of largest scatter among which the stars are divided."""


def latent_cells(predictor: Predictor, tokens: StarTokens, count: int) -> NDArray[np.int64]:
    """Divide stars into cells of the latent space, of equally many stars.

    The stars are divided along the direction in which they scatter most, then each part along its
    own, and so on, as in a k-d tree along principal axes.

    Parameters
    ----------
    predictor
        The model; what its latent Gaussian expects of stars with their tokens is subtracted, if it
        has one.
    tokens
        Of N stars.
    count
        Number of cells.

    Returns
    -------
    (N,), the number of each star's cell, from 0.
    """
    summaries = predictor.summaries(tokens).astype(np.float64)
    latent = predictor.bundle.calibration.latent
    if latent is not None:
        summaries = latent.residual(summaries, tokens.present)
    _, _, axes = np.linalg.svd(summaries - summaries.mean(axis=0), full_matrices=False)
    at = summaries @ axes[:AXES].T
    cells = np.zeros(len(at), dtype=np.int64)
    parts = [np.arange(len(at))]
    for factor in _prime_factors(count):
        parts = [some for part in parts for some in _divided(at, part, factor)]
    for number, part in enumerate(parts):
        cells[part] = number
    return cells


def _divided(at: Floats, part: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Divide some stars into equal parts along the direction in which they scatter most."""
    residual = at[part] - at[part].mean(axis=0)
    _, axes = np.linalg.eigh(residual.T @ residual)
    return np.array_split(part[np.argsort(residual @ axes[:, -1], kind="stable")], count)


def _prime_factors(count: int) -> list[int]:
    """Return the prime factors of a number, the largest first."""
    factors, divisor = [], 2
    while count > 1:
        while count % divisor == 0:
            factors.append(divisor)
            count //= divisor
        divisor += 1
    return factors[::-1]
