"""Out-of-domain checks: coefficient range and held-out chi-square."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Predictor
    from catalogproc.network.star_tokens import StarTokens

Float = NDArray[np.float64]

HELD_OUT = (1, 2, 4, 6, 8)
"""Coefficients of a band that are predicted from the others: of high signal to noise, and of so
low order that nearly every spectrum has them."""

MIN_HELD_OUT = 4
"""A chi-square of fewer coefficients is not meaningful: NaN."""


def beyond_box(bundle: Bundle, values: NDArray[np.floating], coefficients: int) -> Float:
    """Return how far each coefficient lies outside the training stars' range.

    Parameters
    ----------
    bundle
        The model, with the range.
    values
        Tokens (N, V) in their units, NaN where absent.
    coefficients
        How many coefficients of each band are checked.

    Returns
    -------
    (N, n) in widths of the range; 0 if the coefficient is within the range or absent, or if
    the range is unknown.
    """
    checked = [bundle.vocabulary.coefficient_columns(band)[:coefficients] for band in BANDS]
    columns = np.concatenate(checked)
    low, high = bundle.domain.low[columns], bundle.domain.high[columns]
    width = np.where((high > low) & np.isfinite(high - low), high - low, 1.0)
    found = values[:, columns]
    beyond = np.maximum(low - found, found - high)
    beyond /= width
    return np.fmax(beyond, 0.0, out=beyond)  # NaN becomes 0


def held_out(vocabulary: Vocabulary) -> list[str]:
    """Return the names of the coefficients that are predicted from the others.

    Parameters
    ----------
    vocabulary
        The model's tokens.
    """
    return [
        token.name
        for token in vocabulary.tokens
        if token.kind == "coefficient" and token.index in HELD_OUT
    ]


def checkable(bundle: Bundle) -> bool:
    """Return whether the model was trained to predict the held-out coefficients.

    Parameters
    ----------
    bundle
        The model.
    """
    return set(held_out(bundle.vocabulary)) <= set(bundle.requestable)


def held_out_residuals(
    predictor: Predictor, tokens: StarTokens, errors: NDArray[np.floating]
) -> Float:
    """Return residuals of the held-out coefficients, predicted from the others, over their error.

    Parameters
    ----------
    predictor
        The model.
    tokens
        Of N stars.
    errors
        Errors (N, V) of the coefficients that they are compared with, in the tokens' units.

    Returns
    -------
    (N, n); NaN where a coefficient is absent. The error is the quadratic sum of the network's
    sigma and the coefficient's error.
    """
    names = held_out(predictor.bundle.vocabulary)
    columns = predictor.bundle.vocabulary.columns(names)
    predicted = predictor.predict(tokens.without(columns), names)
    with np.errstate(over="ignore", invalid="ignore"):
        sigma = np.hypot(predicted.sigma.astype(np.float64), errors[:, columns])
        residuals = (tokens.values[:, columns] - predicted.mean) / sigma
    return np.where(np.isfinite(residuals), residuals, np.nan)


def reduced_chi2(residuals: Float, covariance: Float | None) -> Float:
    """Return the reduced chi-square of residuals (N,); NaN for a star with fewer than four.

    Parameters
    ----------
    residuals
        (N, n), over their errors; NaN where unknown.
    covariance
        Their covariance (n, n) over clean stars; None where it was not measured: independent
        residuals.

    Notes
    -----
    The errors of coefficients are correlated, and those of the network's predictions more so:
    a star that is too bright in RP is off in all of them together. So the residuals are divided
    by a factor of their covariance, of those that the star has.
    """
    from scipy.linalg import solve_triangular

    known = ~np.isnan(residuals)
    chi2 = np.full(len(residuals), np.nan)
    kind = known @ (1 << np.arange(residuals.shape[1]))  # one number for those that a star has
    for number in np.unique(kind):
        rows = np.flatnonzero(kind == number)
        pattern = known[rows[0]]
        if pattern.sum() < MIN_HELD_OUT:
            continue
        scaled = residuals[rows][:, pattern]
        if covariance is not None:
            factor = np.linalg.cholesky(covariance[np.ix_(pattern, pattern)])
            scaled = solve_triangular(factor, scaled.T, lower=True).T
        with np.errstate(over="ignore"):
            chi2[rows] = np.square(scaled).sum(axis=1) / pattern.sum()
    return chi2


def spectrum_chi2(predictor: Predictor, tokens: StarTokens, errors: NDArray[np.floating]) -> Float:
    """Return the reduced chi-square of the held-out coefficients, predicted from the others.

    Parameters
    ----------
    predictor
        The model, whose calibration has the covariance of the residuals.
    tokens
        Of N stars.
    errors
        Errors (N, V) of the coefficients that they are compared with, in the tokens' units.

    Returns
    -------
    (N,); NaN for a star with fewer than four of these coefficients.
    """
    residuals = held_out_residuals(predictor, tokens, errors)
    return reduced_chi2(residuals, predictor.bundle.calibration.residual_covariance)
