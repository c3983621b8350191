"""Tokens of stars of which a band is hidden: nothing of that band reaches them.

Canonical coefficients of one band change with the other band, by up to 18 of their errors where
that is set to zero, so that leaving out its tokens is not enough: those of the band that is shown
are made by its own operator (canonical.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.features.coefficients import Coefficients
from catalogproc.features.dense_tokens import DenseTokens
from catalogproc.features.design_functions import merge_at
from catalogproc.features.star_batch import StarBatch, read
from catalogproc.features.tokens import Tokens
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers.xp_sampled import GRID
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]

OTHER = {"bp": "rp", "rp": "bp"}
"""The other band."""


def hide_band(
    made: Tokens, spectra: pa.RecordBatch | pa.Table, band: str, vocabulary: Vocabulary
) -> Tokens:
    """Return the tokens without a band; canonical ones of the other are of that band alone.

    The G flux stays that of ``made``: a measurement of another instrument, unless it was
    synthesised from the spectrum. Colours stay too.

    Parameters
    ----------
    made
        Tokens of N stars.
    spectra
        The stars' spectra, as for :func:`catalogproc.features.tokens.tokens`.
    band
        The band that is hidden.
    vocabulary
        The model's tokens.
    """
    none = np.zeros(len(made), dtype=bool)
    flags = {"bp": none, "rp": made.rp} if band == "bp" else {"bp": made.bp, "rp": none}
    if vocabulary.basis == "canonical":
        stars = read(without_band(spectra, band), None, vocabulary)
        kept = _filled(stars, made.network_inputs, made.g_flux, vocabulary)
    else:
        hidden = np.isin(np.arange(len(vocabulary)), vocabulary.coefficient_columns(band))
        kept = made.network_inputs.only(~hidden)
    return replace(
        made,
        values=np.asarray(kept.values, np.float64),
        errors=np.asarray(kept.errors, np.float64),
        bp=flags["bp"],
        rp=flags["rp"],
    )


def one_band_tokens(
    every: StarTokens, tokens: StarTokens, band: str, vocabulary: Vocabulary
) -> StarTokens:
    """Return tokens without a band, from the canonical coefficients of both bands.

    Parameters
    ----------
    every
        Tokens (N, V) with all canonical coefficients of both bands, none masked.
    tokens
        Tokens of the same stars: those that are no coefficients stay.
    band
        The band that is hidden.
    vocabulary
        The model's tokens, of the canonical basis.
    """
    values, errors = (
        {name: np.array(part[:, vocabulary.coefficient_columns(name)], np.float64)
         for name in BANDS} for part in (every.values, every.errors)
    )  # fmt: skip
    values[band][:] = errors[band][:] = np.nan
    none = {name: np.zeros(len(every), dtype=np.int16) for name in BANDS}
    # Not marked as canonical: the band's own operator is to be applied, P D k of one band alone.
    stars = StarBatch(values, errors, none, release=vocabulary.basis_release)
    return _filled(stars, tokens, np.ones(len(every)), vocabulary)


def _filled(
    stars: StarBatch, tokens: StarTokens, g_flux: Float, vocabulary: Vocabulary
) -> StarTokens:
    """Return tokens with the relevant coefficients of spectra of one band."""
    dense = DenseTokens(
        vocabulary, np.array(tokens.values, np.float64), np.array(tokens.errors, np.float64)
    )
    coefficients = Coefficients.of(stars, vocabulary)
    job = Job("one band", inputs=(), coefficients=max(map(vocabulary.coefficients, BANDS)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for name in BANDS:
            dense.set_spectrum(name, coefficients, g_flux, job)
    return StarTokens(dense.values, dense.errors)


def without_band(spectra: pa.RecordBatch | pa.Table, band: str) -> pa.Table:
    """Return spectra of which a band is missing, of coefficients and of sampled flux.

    Canonical coefficients lose the column basis_id: those of the other band were made together
    with the band that is hidden, and are to be projected by their own operator.

    Parameters
    ----------
    spectra
        Columns of the contract xp_continuous.
    band
        The band that is hidden.
    """
    table = spectra if isinstance(spectra, pa.Table) else pa.Table.from_batches([spectra])
    missing = [f"{band}_coefficient{what}" for what in ("s", "_errors", "_correlations")]
    for place, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        if name in (*missing, "basis_id"):
            table = table.set_column(place, name, pa.nulls(len(table), kind))
        elif name == "flux":
            flux = pa.array(_shown_flux(table, OTHER[band]), pa.list_(pa.float64()))
            table = table.set_column(place, name, flux.cast(kind))
    return table


def _shown_flux(table: pa.Table, band: str) -> list[Float | None]:
    """Return the flux of each star, NaN outside of a band's own wavelengths."""
    usual = merge_at(GRID)[band] == 1.0
    wavelengths = table["wavelength"] if "wavelength" in table.column_names else None
    shown: list[Float | None] = []
    for row, flux in enumerate(table["flux"]):
        if not flux.is_valid:
            shown.append(None)
            continue
        at = usual
        if wavelengths is not None and wavelengths[row].is_valid:
            at = merge_at(np.asarray(wavelengths[row].values, np.float64))[band] == 1.0
        shown.append(np.where(at, np.asarray(flux.values, np.float64), np.nan))
    return shown
