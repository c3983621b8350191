"""Stars of a training of which a band is hidden.

In a run the canonical coefficients of a star with one band are made by that band's own operator,
and differ from those of the same band beside the other one (canonical.py). A network that has only
seen the latter answers for one band with a bias, and too certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import COLOURS, MEASURED
from catalogproc.features import canonical
from catalogproc.features.canonical_tables import columns
from catalogproc.features.one_band import OTHER
from catalogproc.training.mixed_stars import DrawnStars
from catalogproc.vocabulary import BANDS, Vocabulary

COLOURS_HIDDEN, MEASURED_HIDDEN = 0.3, 0.5
"""Fractions of these stars that are read without colours, and without what else is measured."""


def hide_bands(
    stars: DrawnStars, which: NDArray[np.bool_], vocabulary: Vocabulary, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Hide one band of some stars: the other's tokens become those of that band alone, in place.

    The hidden band may be requested, and so may the labels, which are not shown.

    Parameters
    ----------
    stars
        N stars of a step.
    which
        The stars (N,) of which a band is hidden; all have a spectrum.
    vocabulary
        Defines the V tokens.
    random
        Source of which band it is, and of what else is hidden.

    Returns
    -------
    (N, V), True for tokens that are hidden.
    """
    hidden = np.zeros(stars.values.shape, dtype=bool)
    labels = vocabulary.named("label")
    hidden[np.ix_(which, vocabulary.columns(labels))] = True
    for names, share in ((COLOURS, COLOURS_HIDDEN), (MEASURED, MEASURED_HIDDEN)):
        unread = random.random(len(which)) < share
        hidden[np.ix_(which, vocabulary.columns(list(names)))] = unread[which, None]
    band_of = random.integers(len(BANDS), size=len(which))
    for place, band in enumerate(BANDS):
        rows = which & (band_of == place)
        if rows.any():
            _show_alone(stars, rows, band, vocabulary)
            hidden[np.ix_(rows, vocabulary.coefficient_columns(OTHER[band]))] = True
    return hidden


def _show_alone(
    stars: DrawnStars, rows: NDArray[np.bool_], band: str, vocabulary: Vocabulary
) -> None:
    """Replace the tokens of a band by those of its own operator, in place."""
    values, errors = (
        {name: part[rows, columns(name)] if name == band
         else np.full((rows.sum(), vocabulary.coefficients(name)), np.nan) for name in BANDS}
        for part in (stars.coefficients, stars.coefficient_errors)
    )  # fmt: skip
    made = canonical.from_coefficients(values, errors, release=vocabulary.basis_release)
    present = made.relevant()[band]
    at = np.ix_(rows, vocabulary.coefficient_columns(band))
    stars.values[at] = np.where(present, made.values[band], np.nan)
    stars.errors[at] = np.where(present, made.errors[band], np.nan)
