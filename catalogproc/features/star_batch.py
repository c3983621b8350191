"""Spectra and auxiliary columns as numpy arrays, one row per star."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import CountError, ReleaseError
from catalogproc.features.canonical import BASIS_ID, from_flux
from catalogproc.features.sampled_flux import sampled_flux
from catalogproc.features.spectra import matrix, relevant_number
from catalogproc.readers.release_check import OTHER_KINDS, check_batch, check_kind
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class StarBatch:
    """One batch of N screened stars as numpy arrays, observed or simulated.

    Attributes
    ----------
    coefficients, errors
        By band ("bp", "rp"), as published: (N, n), electrons per second; a row of NaN where
        the band is missing.
    n_relevant
        By band, the number of relevant coefficients (N,); 0 where the band is missing.
    auxiliary
        Columns (N,) of the contract gaia_source, by name, NaN where unknown; an absent column
        is unknown for all stars.
    tmass_good
        The 2MASS magnitudes may be used (N,).
    multiple_or_variable
        Gaia lists the star as non-single or variable (N,).
    correlations
        By band, where read: packed as published (N, n(n-1)/2); a row of NaN where a star has
        none.
    source_id
        Gaia source identifiers (N,).
    canonical
        The coefficients and errors are canonical ones already (N,); None for no star.
    release
        The Gaia release of spectra and photometry.
    has_spectra
        False for a table without spectra: every coefficient is NaN, and no photometry is
        synthesised.
    """

    coefficients: Mapping[str, NDArray[np.floating]]
    errors: Mapping[str, NDArray[np.floating]]
    n_relevant: Mapping[str, NDArray[np.integer]]
    auxiliary: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    tmass_good: Mask | None = None
    multiple_or_variable: Mask | None = None
    correlations: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    source_id: NDArray[np.int64] | None = None
    has_spectra: bool = True
    canonical: Mask | None = None
    release: Release = field(default_factory=load_release)

    def __len__(self) -> int:
        return len(self.coefficients[BANDS[0]])

    def column(self, name: str) -> Float:
        """Return an auxiliary column (N,), NaN where unknown.

        Parameters
        ----------
        name
            A column of the contract gaia_source.
        """
        if name not in self.auxiliary:
            return self._unknown
        return np.asarray(self.auxiliary[name], dtype=np.float64)

    @cached_property
    def _unknown(self) -> Float:
        nan = np.full(len(self), np.nan)
        nan.flags.writeable = False  # many columns share it
        return nan


def read(
    spectra: pa.RecordBatch | pa.Table, auxiliary: pa.Table | None, vocabulary: Vocabulary
) -> StarBatch:
    """Convert screened spectra and the auxiliary columns of the same stars to numpy arrays.

    Parameters
    ----------
    spectra
        N rows of the contract xp_continuous.
    auxiliary
        Columns of the contract gaia_source, the same stars row by row; None where there are
        none.
    vocabulary
        Gives the number of coefficients per band.

    Raises
    ------
    ReleaseError
        The spectra have another length or basis than those of the vocabulary's release.
    CountError
        The auxiliary rows are not those of the spectra.
    """
    coefficients, errors, n_relevant = {}, {}, {}
    correlations: dict[str, NDArray[np.floating]] = {}
    names = spectra.schema.names
    check_batch(spectra, vocabulary)
    for band in BANDS:
        count = vocabulary.spectrum_length(band)
        column = spectra.column(f"{band}_coefficients")
        coefficients[band] = matrix(column, count)
        errors[band] = matrix(spectra.column(f"{band}_coefficient_errors"), count)
        n_relevant[band] = _number_relevant(spectra, band, count)
        name = f"{band}_coefficient_correlations"
        if name in names:
            packed = _correlations(spectra.column(name), count * (count - 1) // 2)
            correlations |= {} if packed is None else {band: packed}
    stars = StarBatch(
        coefficients,
        errors,
        n_relevant,
        correlations=correlations,
        source_id=_identifiers(spectra.column("source_id")) if "source_id" in names else None,
        canonical=_canonical(spectra, vocabulary),
        release=vocabulary.data_release,
    )
    if "flux" in names and spectra.column("flux").null_count < len(spectra.column("flux")):
        stars = _with_sampled(stars, spectra, vocabulary)
    if auxiliary is None:
        return stars
    _check_rows(spectra, auxiliary)
    return _with_auxiliary(stars, auxiliary)


def without_spectra(auxiliary: pa.Table, vocabulary: Vocabulary) -> StarBatch:
    """Convert the auxiliary columns of stars without spectra to numpy arrays.

    Parameters
    ----------
    auxiliary
        N rows of the contract gaia_source.
    vocabulary
        Gives the number of coefficients per band; all are NaN.
    """
    rows = auxiliary.num_rows
    absent = {
        band: np.broadcast_to(np.nan, (rows, vocabulary.spectrum_length(band))) for band in BANDS
    }
    none = {band: np.zeros(rows, dtype=np.int16) for band in BANDS}
    stars = StarBatch(absent, absent, none, has_spectra=False, release=vocabulary.data_release)
    return _with_auxiliary(stars, auxiliary)


def _with_auxiliary(stars: StarBatch, auxiliary: pa.Table) -> StarBatch:
    return replace(
        stars,
        auxiliary={name: _numbers(auxiliary.column(name)) for name in _numeric(auxiliary)},
        tmass_good=_tmass_good(auxiliary),
        multiple_or_variable=_multiple_or_variable(auxiliary),
    )


def _number_relevant(
    spectra: pa.RecordBatch | pa.Table, band: str, count: int
) -> NDArray[np.integer]:
    """Numbers of relevant bases (N,): as published, else all of a band that is there."""
    present = pc.is_valid(spectra.column(f"{band}_coefficients")).to_numpy(zero_copy_only=False)
    name = f"{band}_n_relevant_bases"
    published = spectra.column(name) if name in spectra.schema.names else None
    return relevant_number(published, present, count)


def _correlations(column: pa.Array | pa.ChunkedArray, pairs: int) -> NDArray[np.floating] | None:
    """Packed correlations (N, pairs), NaN where missing or of another length; None if none."""
    complete = pc.fill_null(pc.equal(pc.list_value_length(column), pairs), False)
    if not pc.any(complete).as_py():
        return None
    if not pc.all(complete).as_py():
        column = pc.if_else(complete, column, pa.scalar(None, column.type))
    return matrix(column, pairs)


def _identifiers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False), dtype=np.int64)


def _canonical(spectra: pa.RecordBatch | pa.Table, vocabulary: Vocabulary) -> Mask | None:
    """Return which spectra (N,) are canonical coefficients; None for none."""
    if "basis_id" not in spectra.schema.names:
        return None
    column = spectra.column("basis_id")
    if column.null_count == len(column):
        return None
    for found in pc.unique(column).drop_null().to_pylist():
        if found != BASIS_ID:
            raise ReleaseError(
                "spectra in a basis that is not known", wanted=BASIS_ID, found=found,
                advice="leave out the column basis_id only if these are the archive's coefficients",
            )  # fmt: skip
    check_kind(vocabulary, OTHER_KINDS["basis_id"])
    return _true(pc.is_valid(column))


def _with_sampled(
    stars: StarBatch, spectra: pa.RecordBatch | pa.Table, vocabulary: Vocabulary
) -> StarBatch:
    """Return the stars with canonical coefficients of sampled flux, where there is one."""
    check_kind(vocabulary, OTHER_KINDS["flux"])
    rows, flux, flux_errors = sampled_flux(spectra)
    made = from_flux(flux, flux_errors)
    coefficients = {band: np.array(x, np.float64) for band, x in stars.coefficients.items()}
    errors = {band: np.array(x, np.float64) for band, x in stars.errors.items()}
    for band in BANDS:
        coefficients[band][rows] = made.values[band]
        errors[band][rows] = made.errors[band]
    already = rows if stars.canonical is None else rows | stars.canonical
    return replace(stars, coefficients=coefficients, errors=errors, canonical=already)


def _check_rows(spectra: pa.RecordBatch | pa.Table, auxiliary: pa.Table) -> None:
    """Raise CountError unless the auxiliary rows are those of the spectra."""
    if auxiliary.num_rows != spectra.num_rows:
        raise CountError(
            "the gaia_source rows are not the spectra's",
            wanted=spectra.num_rows, found=auxiliary.num_rows,
        )  # fmt: skip
    if "source_id" in auxiliary.column_names:
        # A star without a gaia_source row may be null there.
        ids = pa.chunked_array(spectra.column("source_id"))
        if pc.all(pc.equal(ids, auxiliary.column("source_id"))).as_py() is False:
            raise CountError("the gaia_source source_ids are not the spectra's, row by row")


def _numeric(auxiliary: pa.Table) -> list[str]:
    return [
        column.name
        for column in load_contract("gaia_source").columns
        if column.name in auxiliary.column_names
        and column.type != "string"
        and column.name != "source_id"
    ]


def _numbers(column: pa.ChunkedArray) -> Float:
    numbers: Float = column.cast(pa.float64()).to_numpy()
    return numbers


def _true(condition: pa.Array | pa.ChunkedArray) -> Mask:
    mask = np.asarray(pc.fill_null(condition, False).to_numpy(zero_copy_only=False), dtype=bool)
    return mask


def _tmass_good(auxiliary: pa.Table) -> Mask | None:
    """Quality AAA, or no quality stated."""
    if "ph_qual" not in auxiliary.column_names:
        return None
    quality = pc.fill_null(auxiliary.column("ph_qual"), "")
    return _true(pc.is_in(quality, pa.array(["AAA", ""])))


def _multiple_or_variable(auxiliary: pa.Table) -> Mask:
    mask = np.zeros(auxiliary.num_rows, dtype=bool)
    if "non_single_star" in auxiliary.column_names:
        mask |= _true(pc.not_equal(auxiliary.column("non_single_star"), 0))
    if "phot_variable_flag" in auxiliary.column_names:
        mask |= _true(pc.equal(auxiliary.column("phot_variable_flag"), "VARIABLE"))
    return mask
