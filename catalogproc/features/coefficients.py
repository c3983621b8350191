"""The spectral coefficients that a model reads: the archive's, or canonical ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import canonical, canonical_signal, spectra
from catalogproc.features.star_batch import StarBatch
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS, Vocabulary

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The coefficients of N stars that a model reads, in the basis of its vocabulary.

    Attributes
    ----------
    values, errors
        By band (N, n), electrons per second.
    n_relevant
        By band, the number of relevant coefficients (N,).
    measured
        By band, the coefficients (n,) that are measured rather than pure prior.
    basis
        Of the vocabulary: "archive" or "canonical".
    release
        The release in whose basis and on whose scale they are (Vocabulary.basis_release).
    """

    values: Mapping[str, NDArray[np.floating]]
    errors: Mapping[str, NDArray[np.floating]]
    n_relevant: Mapping[str, NDArray[np.integer]]
    measured: Mapping[str, Mask]
    basis: str
    release: Release

    @classmethod
    def of(cls, stars: StarBatch, vocabulary: Vocabulary) -> Coefficients:
        """Return the coefficients of stars.

        Parameters
        ----------
        stars
            N stars.
        vocabulary
            The model's tokens.
        """
        if vocabulary.basis != "canonical":
            every = {band: np.ones(stars.coefficients[band].shape[1], dtype=bool) for band in BANDS}
            own = (stars.coefficients, stars.errors, stars.n_relevant)
            return cls(*own, every, vocabulary.basis, stars.release)
        made = canonical.from_coefficients(
            stars.coefficients, stars.errors, stars.correlations, stars.canonical, stars.release
        )
        number = made.relevant_numbers()
        measured = canonical_signal.measured_by_band()
        basis = (vocabulary.basis, vocabulary.basis_release)
        return cls(made.values, made.errors, number, measured, *basis)

    def relevant(self, band: str, rows: slice) -> Mask:
        """Return which coefficients of some rows carry signal (rows, n).

        Parameters
        ----------
        band
            "bp" or "rp".
        rows
            The rows.
        """
        number, count = self.n_relevant[band][rows], self.values[band].shape[1]
        if self.basis == "canonical":
            return np.asarray(np.arange(count) < number[:, None])
        return spectra.relevance(number, count)
