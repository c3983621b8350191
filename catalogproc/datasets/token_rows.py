"""Stars as a run reads them, as columns of the contract ``training``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.features import canonical
from catalogproc.features.coefficients import Coefficients
from catalogproc.features.star_batch import StarBatch
from catalogproc.features.tokens import READABLE, Tokens, from_stars
from catalogproc.job import Job
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.vocabulary import BANDS, Vocabulary


def every_token(vocabulary: Vocabulary) -> Job:
    """Return a job that reads every token: a training selects from them later.

    Parameters
    ----------
    vocabulary
        The tokens.
    """
    inputs = tuple(name for name in READABLE if name in vocabulary)
    count = max(vocabulary.coefficients(band) for band in BANDS)
    return Job("dataset", inputs=inputs, coefficients=count, mask_irrelevant=False)


def tokens_for_labels(stars: StarBatch, vocabulary: Vocabulary) -> Tokens:
    """Return the tokens of stars, without parallaxes that are too uncertain for labels.

    A mean zero-point is good enough for an input with its error, and not for a label.

    Parameters
    ----------
    stars
        N stars.
    vocabulary
        The tokens.
    """
    found = from_stars(stars, vocabulary, every_token(vocabulary))
    return replace(found, parallax_usable=found.parallax_usable & ~found.zero_point_assumed)


def token_rows(stars: StarBatch, found: Tokens, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return spectra, colours, reddening and parallaxes of stars, by column (N,).

    Parameters
    ----------
    stars
        N stars.
    found
        Their tokens, of :func:`tokens_for_labels`.
    vocabulary
        The tokens.
    """
    rows: dict[str, Any] = {}
    for name in every_token(vocabulary).inputs:
        column = vocabulary.column(name)
        rows[name] = found.values[:, column].copy()
        rows[f"e_{name}"] = found.errors[:, column].copy()
    if "g_fakemag" in rows:
        for name in ("g_fakemag", "e_g_fakemag"):
            rows[name][~found.parallax_usable] = np.nan
    for band, parts in _spectra(stars, found, vocabulary).items():
        absent = np.asarray(~np.isfinite(parts[0]).any(axis=1))
        for what, matrix in zip(("coefficients", "coefficient_errors"), parts, strict=True):
            part = np.ascontiguousarray(matrix, dtype=np.float32)
            rows[f"{band}_{what}"] = matrix_lists(part, pa.float32(), absent)
    rows["bp_n_relevant_bases"] = found.n_bp_relevant
    rows["rp_n_relevant_bases"] = found.n_rp_relevant
    usable = found.parallax_usable
    rows["parallax_zpc"] = np.where(usable, found.parallax_zpc, np.nan)
    rows["e_parallax"] = np.where(usable, found.e_parallax, np.nan)
    rows["phot_g_mean_mag"] = found.g_mag
    if vocabulary.basis == "canonical":
        rows["basis"] = [canonical.BASIS_ID] * len(found)
    return rows


def _spectra(
    stars: StarBatch, found: Tokens, vocabulary: Vocabulary
) -> dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Return by band coefficients over the G flux, and their errors (N, n)."""
    if vocabulary.basis == "canonical":
        # All of them: a training that moves stars needs those that are no tokens too.
        read, flux = Coefficients.of(stars, vocabulary), found.g_flux[:, None]
        return {band: (read.values[band] / flux, read.errors[band] / flux) for band in BANDS}
    at = {band: vocabulary.coefficient_columns(band) for band in BANDS}
    return {band: (found.values[:, own], found.errors[:, own]) for band, own in at.items()}
