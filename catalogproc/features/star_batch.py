"""Arrow tables of spectra and companion as numpy arrays, one row a star."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import CountError
from catalogproc.features import spectra
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class StarTable:
    """One batch of N screened stars as numpy arrays, wherever they come from.

    Attributes
    ----------
    coefficients, errors
        Of each band ("bp", "rp"), as published: (N, n), electrons per second; a row of NaN
        where the band is missing.
    n_relevant
        Of each band, how many coefficients carry signal (N,); 0 where the band is missing.
    companion
        Columns (N,) of the contract gaia_source, by name, NaN where unknown; a column that is
        not there is unknown for all.
    tmass_good
        The 2MASS magnitudes may be used (N,).
    multiple_or_variable
        Gaia says non-single star, or variable (N,).
    correlations
        Of each band whose correlations were read, packed as published (N, n(n-1)/2); a row
        of NaN where a star has none.
    source_id
        Gaia's identifier (N,).
    """

    coefficients: Mapping[str, NDArray[np.floating]]
    errors: Mapping[str, NDArray[np.floating]]
    n_relevant: Mapping[str, NDArray[np.integer]]
    companion: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    tmass_good: Mask | None = None
    multiple_or_variable: Mask | None = None
    correlations: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    source_id: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.coefficients[BANDS[0]])

    def column(self, name: str) -> Float:
        """A companion column (N,), NaN where unknown."""
        if name not in self.companion:
            return self._unknown
        return np.asarray(self.companion[name], dtype=np.float64)

    @cached_property
    def _unknown(self) -> Float:
        nan = np.full(len(self), np.nan)
        nan.flags.writeable = False  # many columns share it
        return nan


def read(
    batch: pa.RecordBatch | pa.Table, companion: pa.Table | None, vocabulary: Vocabulary
) -> StarTable:
    """Screened spectra and their companion, row by row the same stars, as a StarTable.

    Raises
    ------
    ReleaseError
        Spectra of another number of coefficients than the vocabulary's.
    CountError
        The companion's rows are not the batch's.
    """
    coefficients, errors, n_relevant = {}, {}, {}
    correlations: dict[str, NDArray[np.floating]] = {}
    names = batch.schema.names
    for band in BANDS:
        count = vocabulary.coefficients(band)
        column = batch.column(f"{band}_coefficients")
        coefficients[band] = spectra.matrix(column, count)
        errors[band] = spectra.matrix(batch.column(f"{band}_coefficient_errors"), count)
        present = pc.is_valid(column).to_numpy(zero_copy_only=False)
        published = f"{band}_n_relevant_bases"
        given = batch.column(published) if published in names else None
        n_relevant[band] = spectra.relevant_number(given, present, count)
        published = f"{band}_coefficient_correlations"
        if published in names:
            found = _correlations(batch.column(published), count * (count - 1) // 2)
            correlations |= {} if found is None else {band: found}
    stars = StarTable(
        coefficients,
        errors,
        n_relevant,
        correlations=correlations,
        source_id=_identifiers(batch.column("source_id")) if "source_id" in names else None,
    )
    if companion is None:
        return stars
    _check_rows(batch, companion)
    return replace(
        stars,
        companion={name: _numbers(companion.column(name)) for name in _numeric(companion)},
        tmass_good=_tmass_good(companion),
        multiple_or_variable=_multiple_or_variable(companion),
    )


def _correlations(column: pa.Array | pa.ChunkedArray, pairs: int) -> NDArray[np.floating] | None:
    """Packed correlations (N, pairs), NaN for a star without, or of another length; or None."""
    whole = pc.fill_null(pc.equal(pc.list_value_length(column), pairs), False)
    if not pc.any(whole).as_py():
        return None
    if not pc.all(whole).as_py():
        column = pc.if_else(whole, column, pa.scalar(None, column.type))
    return spectra.matrix(column, pairs)


def _identifiers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False), dtype=np.int64)


def _check_rows(batch: pa.RecordBatch | pa.Table, companion: pa.Table) -> None:
    """Raise CountError unless the companion's rows are those of the batch."""
    if companion.num_rows != batch.num_rows:
        raise CountError(
            "the companion's rows are not the spectra's",
            wanted=batch.num_rows, found=companion.num_rows,
        )  # fmt: skip
    if "source_id" in companion.column_names:
        # A star that the companion lacks may be null there.
        same = pc.equal(pa.chunked_array(batch.column("source_id")), companion.column("source_id"))
        if pc.all(same).as_py() is False:
            raise CountError("the companion's source_ids are not the spectra's, row by row")


def _numeric(companion: pa.Table) -> list[str]:
    return [
        column.name
        for column in load_contract("gaia_source").columns
        if column.name in companion.column_names
        and column.type != "string"
        and column.name != "source_id"
    ]


def _numbers(column: pa.ChunkedArray) -> Float:
    numbers: Float = column.cast(pa.float64()).to_numpy()
    return numbers


def _true(condition: pa.ChunkedArray) -> Mask:
    mask: Mask = pc.fill_null(condition, False).to_numpy()
    return mask


def _tmass_good(companion: pa.Table) -> Mask | None:
    """Quality AAA, or no quality stated."""
    if "ph_qual" not in companion.column_names:
        return None
    quality = pc.fill_null(companion.column("ph_qual"), "")
    return _true(pc.is_in(quality, pa.array(["AAA", ""])))


def _multiple_or_variable(companion: pa.Table) -> Mask:
    found = np.zeros(companion.num_rows, dtype=bool)
    if "non_single_star" in companion.column_names:
        found |= _true(pc.not_equal(companion.column("non_single_star"), 0))
    if "phot_variable_flag" in companion.column_names:
        found |= _true(pc.equal(companion.column("phot_variable_flag"), "VARIABLE"))
    return found
