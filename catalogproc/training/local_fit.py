"""Fit the local calibration: places in the latent space, and the factor of sigma at each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.local_calibration import LocalTerm, Places
from catalogproc.training.quantile_regression import pinball, quantile_regression

Floats = NDArray[np.float64]

DIRECTIONS = 16
"""Number of directions of the latent space in which stars are near or far."""

PER_PLACE, MOST_PLACES = 50, 200
"""Stars for each place, and the largest number of places."""

WIDTH = 0.7
"""Width of a place over the root mean square distance of its stars: nine tenths of stars are close
to more than one."""

RIDGES = (3.0, 10.0, 30.0, 100.0)
"""Weights of the squared values of the places that are tried, in stars."""

FOLDS = 5
"""Parts of the stars, each of which judges values that are fitted to the others."""

FEWEST_OF_PLACE = 5
"""Smallest number of stars of a place."""


def fit_places(
    residuals: Floats,
    present: NDArray[np.bool_],
    coefficients: NDArray[np.bool_],
    ids: NDArray[np.int64],
) -> Places | None:
    """Return places in the latent space, by k-means in its directions of largest scatter.

    Parameters
    ----------
    residuals
        What the latent Gaussian does not expect of the calibration stars (n, D).
    present
        Which tokens each of them has (n, V).
    coefficients
        Which tokens (V,) are coefficients.
    ids
        Of the stars (n,): one that appears twice is one star.

    Returns
    -------
    None from too few stars for two places.
    """
    from scipy.cluster.vq import kmeans2

    wanted = min(len(np.unique(ids)) // PER_PLACE, MOST_PLACES)
    if wanted < 2:
        return None
    _, _, axes = np.linalg.svd(residuals - residuals.mean(axis=0), full_matrices=False)
    projection = axes[:DIRECTIONS].T
    at = residuals @ projection
    centres, place = kmeans2(at, wanted, minit="++", seed=1)
    stars = np.bincount(place, minlength=wanted)
    centres = centres[stars >= FEWEST_OF_PLACE]
    distances = np.linalg.norm(at[:, None] - centres, axis=2)
    place = distances.argmin(axis=1)
    widths = np.array(
        [np.sqrt(np.mean(distances[place == k, k] ** 2)) for k in range(len(centres))]
    )
    tokens = [x.astype(np.float64) for x in (np.asarray(present.any(axis=0)), coefficients)]
    return Places(projection, centres, WIDTH * widths, *tokens)


def fit_local_term(
    log_ratio: Floats, closeness: Floats, ids: NDArray[np.int64]
) -> tuple[LocalTerm, ...]:
    """Fit the factors of sigma at places, after the other terms of a label's calibration.

    The values of the places are the conditional quantile of what the other terms leave; their
    ridge is chosen by cross-validation, in which a star that appears twice is in one part. Where no
    values predict better than none, they are 0: sigma then only grows where stars are few.

    Parameters
    ----------
    log_ratio
        ln(abs(true - mean) / sigma) of n stars, sigma with the other terms.
    closeness
        (n, M); NaN for stars at no place, which are left out.
    ids
        Of the stars (n,).

    Returns
    -------
    One term; none without any star at a place.
    """
    there = np.isfinite(closeness).all(axis=1)
    if not there.any():
        return ()
    near, left = closeness[there], log_ratio[there]
    weights = near / near.sum(axis=1, keepdims=True)
    _, star, copies = np.unique(ids[there], return_inverse=True, return_counts=True)
    own = np.bincount(near.argmax(axis=1), 1.0 / copies[star], near.shape[1]).astype(np.float64)
    part = np.random.default_rng(1).integers(0, FOLDS, len(copies))[star]
    losses = {ridge: _loss_of_others(left, weights, part, ridge) for ridge in RIDGES}
    best = min(RIDGES, key=lambda ridge: losses[ridge])
    values = np.zeros(near.shape[1])
    if losses[best] < pinball(left).mean():
        values = _values(left, weights, best)
    return (LocalTerm(values, own),)


def _loss_of_others(left: Floats, weights: Floats, part: NDArray[np.int64], ridge: float) -> float:
    """Return the mean loss of stars under values that were fitted without their part."""
    losses = np.empty_like(left)
    for number in range(FOLDS):
        others = part != number
        values = _values(left[others], weights[others], ridge)
        losses[~others] = pinball(left[~others] - weights[~others] @ values)
    return float(losses.mean())


def _values(left: Floats, weights: Floats, ridge: float) -> Floats:
    return quantile_regression(left, weights, np.sqrt(ridge) * np.eye(weights.shape[1]))
