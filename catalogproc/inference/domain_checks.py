"""Whether a spectrum is one that the model knows: within the box, and of a piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Predictor

Float = NDArray[np.float64]

HELD_OUT = (1, 2, 4, 6, 8)
"""Coefficients of a band that are predicted from the others: of high signal to noise, and so
low that nearly every spectrum has them."""

FEWEST = 4
"""Fewer than so many of them say nothing of a spectrum."""


def beyond_box(bundle: Bundle, values: NDArray[np.floating], coefficients: int) -> Float:
    """How far outside the training stars' range each coefficient lies, in widths of the range.

    (N, n) of the first ``coefficients`` of both bands of dense tokens (N, V); 0 where it lies
    inside, is absent, or the range is not known.
    """
    columns = [bundle.vocabulary.coefficient_columns(band)[:coefficients] for band in BANDS]
    at = np.concatenate(columns)
    low, high = bundle.domain.low[at], bundle.domain.high[at]
    width = np.where((high > low) & np.isfinite(high - low), high - low, 1.0)
    read = values[:, at]
    beyond = np.maximum(low - read, read - high)
    beyond /= width
    return np.fmax(beyond, 0.0, out=beyond)  # NaN is 0


def held_out(vocabulary: Vocabulary) -> list[str]:
    """The names of the coefficients that are predicted from the others."""
    return [
        token.name
        for token in vocabulary.tokens
        if token.kind == "coefficient" and token.index in HELD_OUT
    ]


def checkable(bundle: Bundle) -> bool:
    """Whether the model was trained to predict them."""
    return set(held_out(bundle.vocabulary)) <= set(bundle.requestable)


def spectrum_chi2(
    predictor: Predictor, values: NDArray[np.floating], errors: NDArray[np.floating]
) -> Float:
    """Reduced chi-square (N,) of some coefficients, predicted from all else that was read.

    ``values`` and ``errors`` are dense tokens (N, V). NaN for a star that has fewer than four
    of these coefficients.
    """
    names = held_out(predictor.bundle.vocabulary)
    columns = predictor.bundle.vocabulary.columns(names)
    shown = np.array(values, dtype=np.float64)
    shown[:, columns] = np.nan
    predicted = predictor.predict(shown, names)
    with np.errstate(over="ignore", invalid="ignore"):
        variance = predicted.sigma.astype(np.float64) ** 2 + errors[:, columns] ** 2
        terms = (values[:, columns] - predicted.mean) ** 2 / variance
    known = np.isfinite(terms)
    count = known.sum(axis=1)
    total = np.where(known, terms, 0.0).sum(axis=1)
    return np.where(count >= FEWEST, total / np.maximum(count, 1), np.nan)
