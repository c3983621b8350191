"""A matrix of tokens, one column each, that is filled token by token."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.coefficients import Coefficients
from catalogproc.job import Job
from catalogproc.vocabulary import Vocabulary

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DenseTokens:
    """Values and errors (N, V) that are filled token by token; NaN where absent."""

    vocabulary: Vocabulary
    values: Float
    errors: Float

    def set_input(self, name: str, value: Float, error: Float) -> None:
        """Write a token; a value that is unknown has no error.

        Parameters
        ----------
        name
            The token.
        value, error
            (N,), in its unit; NaN where unknown.
        """
        column = self.vocabulary.column(name)
        self.values[:, column] = value
        self.errors[:, column] = np.where(np.isfinite(value), error, np.nan)

    def present(self, names: Collection[str]) -> Mask:
        """Return where some tokens are present (N, V); False for all others.

        Parameters
        ----------
        names
            The tokens; those that the vocabulary lacks count as absent.
        """
        named = np.isin(self.vocabulary.names, tuple(names))
        return named & np.isfinite(self.values)

    def set_spectrum(self, band: str, read: Coefficients, g_flux: Float, job: Job) -> Mask:
        """Write the coefficients of a band, and return which stars have any (N,).

        Parameters
        ----------
        band
            bp or rp.
        read
            The coefficients of N stars.
        g_flux
            G flux (N,), electrons per second.
        job
            How many coefficients are read, and whether irrelevant ones are.
        """
        columns = self.vocabulary.coefficient_columns(band)[: job.coefficients]
        present = np.zeros(len(self.values), dtype=bool)
        if not len(columns):
            return present
        at: slice | NDArray[np.int64] = columns
        if np.all(np.diff(columns) == 1):
            at = slice(int(columns[0]), int(columns[-1]) + 1)
        first = slice(0, len(columns))
        coefficients, errors = read.values[band], read.errors[band]
        for rows in spectra.blocks(len(present)):
            value, error = spectra.normalise(
                coefficients[rows, first], errors[rows, first], g_flux[rows]
            )
            absent = ~((value != 0) & np.isfinite(value) & read.measured[band][first])
            if job.mask_irrelevant:
                absent |= ~read.relevant(band, rows)[:, first]
            value[absent] = np.nan
            error[absent] = np.nan
            self.values[rows, at], self.errors[rows, at] = value, error
            present[rows] = ~absent.all(axis=1)
        return present
