"""Correlations between the coefficients of generated spectra.

The model predicts an error for each coefficient alone. Unknown properties of the star change all
coefficients together: unknown dust tilts the whole spectrum. So the missing tokens are drawn from
the model, one after the other, each given those before it; the covariance is that of the
coefficients over the draws, plus the network's errors, which are independent. Errors of flux, and
of any other combination of coefficients, follow.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.spectra.generated import predictable_coefficients
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]

DRAWS = 64
"""An error from n draws is good to 1 in sqrt(2 n): 9 %."""

ROWS = 4_096
"""Draws predicted together: a hundred coefficients each."""


def correlations(
    predictor: Predictor, tokens: StarTokens, draws: int = DRAWS
) -> NDArray[np.float32]:
    """Return correlations (N, C, C) between all coefficients, BP's before RP's.

    The draws of a star do not depend on the other stars: all stars share the same deviates.

    Parameters
    ----------
    predictor
        The model.
    tokens
        Known tokens of N stars.
    draws
        Monte Carlo draws per star.

    Raises
    ------
    JobError
        Too few draws.
    """
    hidden = _hidden(predictor)
    fewest = len(hidden) + 2
    if draws < fewest:
        raise JobError("correlations need draws", wanted=f"{fewest} or more", found=draws)
    deviates = _deviates(draws, len(hidden))
    vocabulary = predictor.bundle.vocabulary
    at = np.concatenate([vocabulary.coefficient_columns(band) for band in BANDS])
    kept = predictable_coefficients(vocabulary)  # all others are zero, without error
    names = [vocabulary.names[column] for column in at[kept]]
    result = np.zeros((len(tokens), len(at), len(at)), dtype=np.float32)
    diagonal, place = np.arange(len(names)), np.flatnonzero(kept)
    together = max(1, ROWS // draws)
    for start in range(0, len(tokens), together):
        some = tokens.rows(slice(start, start + together))
        drawn = _drawn(predictor, some, hidden, deviates)
        prediction = predictor.predict(drawn, names)
        mean, sigma = (
            x.astype(np.float64).reshape(len(some), draws, len(names))
            for x in (prediction.mean, prediction.sigma)
        )
        off = mean - mean.mean(axis=1, keepdims=True)
        covariance = off.transpose(0, 2, 1) @ off / (draws - 1)
        covariance[:, diagonal, diagonal] += np.mean(np.square(sigma), axis=1)
        scale = np.sqrt(covariance[:, diagonal, diagonal])
        rows = slice(start, start + together)
        result[rows, place[:, None], place] = covariance / (scale[:, :, None] * scale[:, None, :])
    result[:, np.arange(len(at)), np.arange(len(at))] = 1.0
    return result


def _hidden(predictor: Predictor) -> list[str]:
    """Tokens that may be drawn: all but coefficients, colours before labels."""
    bundle = predictor.bundle
    names = (*bundle.vocabulary.named("colour"), *bundle.vocabulary.named("label"))
    return [name for name in names if name in bundle.requestable]


def _drawn(
    predictor: Predictor, tokens: StarTokens, hidden: list[str], deviates: Floats
) -> StarTokens:
    """Tokens of N * draws stars, star by star, with the missing ones drawn, without error."""
    bundle, draws = predictor.bundle, len(deviates)
    errors = np.where(tokens.present, tokens.errors, 0.0)
    full = StarTokens(
        np.repeat(np.asarray(tokens.values, dtype=np.float64), draws, axis=0),
        np.repeat(errors, draws, axis=0),
    )
    for name, deviate in zip(hidden, deviates.T, strict=True):
        column = bundle.vocabulary.column(name)
        absent = np.isnan(full.values[:, column])
        if absent.any():
            prediction = predictor.predict(full.rows(absent), (name,))
            shift = np.tile(deviate, len(tokens))[absent]
            drawn = prediction.mean[:, 0] + shift * prediction.sigma[:, 0]
            low, high = bundle.domain.low[column], bundle.domain.high[column]
            full.values[absent, column] = np.clip(drawn, low, high)
    return full


@cache
def _deviates(draws: int, count: int) -> Floats:
    """Normal deviates (draws, count) of exactly zero mean and unit covariance, so that errors of a
    linear network are exact with few draws.
    """
    deviates = np.random.default_rng(9).normal(size=(draws, count))
    deviates -= deviates.mean(axis=0)
    factor = np.linalg.cholesky(deviates.T @ deviates / (draws - 1))
    return np.asarray(np.linalg.solve(factor, deviates.T).T)
