"""Reject rows that cannot be processed, with a reason.

Every row of the input is written or rejected, never dropped: a rejected one keeps its
source_id, file, row and a reason. If one band is invalid, the whole row is rejected, because
the other band of a damaged row cannot be trusted. An absent band is not invalid: the archive
publishes such spectra, and the model reads the other band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.features.canonical import bands_of_flux
from catalogproc.features.sampled_flux import sampled_flux
from catalogproc.readers.xp_sampled import GRID
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS, Vocabulary

REASONS = (
    "unreadable",
    "no_source_id",
    "duplicate",
    "wrong_length",
    "other_basis",
    "bad_value",
    "bad_error",
    "no_coefficients",
    "no_tokens",
)
"""Why a row is rejected; if several reasons apply, the first of these is reported."""

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Detail = Callable[[Rows], pa.Array]
"""From the indices (M,) of rejected rows, a text for each."""


class Duplicates:
    """The source_ids of a file so far: the first row of each is accepted.

    Parameters
    ----------
    earlier
        Identifiers (M,) in rows of the same file that belong to earlier chunks.
    """

    def __init__(self, earlier: NDArray[np.int64] | None = None) -> None:
        # Sorted blocks, each at most half as long as the one before, so that adding n
        # identifiers costs n log n in all, in pieces of any size.
        self._blocks: list[NDArray[np.int64]] = []
        if earlier is not None and len(earlier):
            self._blocks.append(np.sort(earlier))

    def repeated(self, identifiers: NDArray[np.int64]) -> Mask:
        """Return the identifiers that occurred before, in this call or an earlier one.

        Parameters
        ----------
        identifiers
            (N,); all are remembered.

        Returns
        -------
        (N,).
        """
        found = np.zeros(len(identifiers), dtype=bool)
        if not len(identifiers):
            return found
        ordered = identifiers
        if not (identifiers[1:] > identifiers[:-1]).all():
            order = np.argsort(identifiers, kind="stable")
            ordered = identifiers[order]
            found[order[1:]] = ordered[1:] == ordered[:-1]
        for block in self._blocks:
            if block[0] <= ordered[-1] and ordered[0] <= block[-1]:
                place = np.minimum(np.searchsorted(block, identifiers), len(block) - 1)
                found |= block[place] == identifiers
        self._blocks.append(ordered)
        while len(self._blocks) > 1 and len(self._blocks[-2]) < 2 * len(self._blocks[-1]):
            last = self._blocks.pop()
            self._blocks[-1] = np.sort(np.concatenate((self._blocks[-1], last)), kind="stable")
        return found


@dataclass(frozen=True)
class _Fault:
    """One reason: the rows (N,) it applies to, and a function from indices (M,) to details."""

    reason: str
    rows: Mask
    detail: Detail


def screen(
    batch: pa.RecordBatch, vocabulary: Vocabulary, seen: Duplicates, file: str
) -> tuple[pa.RecordBatch, pa.Table]:
    """Divide a batch of spectra into accepted and rejected rows.

    A band is absent if its coefficients and errors are both null, empty, or all NaN
    (fixed-length formats have no null). An error of exactly zero would have infinite weight,
    so it is rejected, unless its coefficient is exactly zero too: so truncated spectra mark
    coefficients that were left out.

    Parameters
    ----------
    batch
        Rows of the contract xp_continuous with ``row`` (number in the file, from 0) and
        ``fault`` (null, or why the row could not be read), as readers.xp yields them.
    vocabulary
        It defines how many coefficients a band has.
    seen
        Identifiers of the file's earlier rows; those of this batch are added. Every row with
        an identifier counts, also a rejected one, so that the result does not depend on how
        the file is divided into chunks.
    file
        Name of the input file, for the rejected rows.

    Returns
    -------
    good, rejected
        The batch without the rejected rows, in its order, absent bands as null, and a table of
        the contract rejected. Their lengths add up to that of the batch.
    """
    identifiers = batch.column("source_id")
    unknown = ~_true(pc.greater(identifiers, 0))
    plain = pc.fill_null(identifiers, 0).to_numpy(zero_copy_only=False)
    duplicate = np.zeros(len(batch), dtype=bool)
    duplicate[~unknown] = seen.repeated(plain[~unknown])
    bands = [_inspect(batch, band, vocabulary.spectrum_length(band)) for band in BANDS]
    sampled, flux_faults = _inspect_flux(batch)
    absent = np.logical_and.reduce([band.absent for band in bands]) & ~sampled
    unreadable = _true(pc.is_valid(batch.column("fault")))
    faults = [
        _Fault("unreadable", unreadable, lambda rows: batch.column("fault").take(pa.array(rows))),
        _Fault("no_source_id", unknown, _found_identifier(identifiers)),
        _Fault("duplicate", duplicate, _always("an earlier row of the file has this source_id")),
        *(band.faults[0] for band in bands),
        *_other_bases(batch, bands, vocabulary.data_release),
        *(band.faults[1] for band in bands),
        *(band.faults[2] for band in bands),
        *flux_faults,
        _Fault("no_coefficients", absent, _always("BP and RP are both absent")),
    ]
    files = pa.repeat(pa.scalar(file), len(batch))
    return _divide(_without_absent(batch, bands), faults, files)


def screen_tokens(
    spectra: pa.RecordBatch, readable: Mask, g_known: Mask, files: pa.Array
) -> tuple[pa.RecordBatch, pa.Table]:
    """Reject the spectra of stars without any token.

    Coefficients are divided by the G flux. For a star with only one band it cannot be computed
    from the spectrum; without a G magnitude in the input no token remains, and the prediction
    would be the model's prior.

    Parameters
    ----------
    spectra
        Rows that :func:`screen` accepted.
    readable, g_known
        The star has at least one token; its G flux is known (N,).
    file
        Name of the input file.

    Returns
    -------
    good, rejected
        As :func:`screen` returns them.
    """
    without_g = _always(
        "no G magnitude was given, and none can be made of the spectrum: a band is absent, "
        "or its flux is not positive"
    )
    without_signal = _always("no coefficient is relevant, and no colour is known")
    faults = [
        _Fault("no_tokens", ~readable & ~g_known, without_g),
        _Fault("no_tokens", ~readable, without_signal),
    ]
    return _divide(spectra, faults, files)


@dataclass(frozen=True)
class _Band:
    """Which rows lack a band (N,), and its wrong lengths, invalid values and invalid errors."""

    absent: Mask
    faults: tuple[_Fault, _Fault, _Fault]


def _inspect(batch: pa.RecordBatch, band: str, wanted: int) -> _Band:
    """Find what is wrong with one band of each row."""
    names = (f"{band}_coefficients", f"{band}_coefficient_errors")
    columns = [batch.column(name) for name in names]
    lengths = [_lengths(column) for column in columns]
    empty = (lengths[0] == 0) & (lengths[1] == 0)
    complete = (lengths[0] == wanted) & (lengths[1] == wanted)
    values, errors = (_dense(column, complete, wanted) for column in columns)
    not_finite, nan = _finiteness(values)
    _, error_nan = _finiteness(errors)
    blank = (nan == wanted) & (error_nan == wanted)

    def per_row(count: NDArray[np.int64]) -> NDArray[np.int64]:
        full = np.zeros(len(batch), dtype=np.int64)
        full[complete] = np.where(blank, 0, count)
        return full

    bad_values, bad_errors = per_row(not_finite), per_row(_bad_errors(values, errors))
    absent = empty.copy()
    absent[complete] |= blank
    error_wish = "finite numbers above zero"
    return _Band(
        absent,
        (
            _Fault("wrong_length", ~empty & ~complete, _found_lengths(band, lengths, wanted)),
            _Fault(
                "bad_value",
                bad_values > 0,
                _found_count(names[0], "finite numbers", bad_values, wanted),
            ),
            _Fault(
                "bad_error", bad_errors > 0, _found_count(names[1], error_wish, bad_errors, wanted)
            ),
        ),
    )


def _inspect_flux(batch: pa.RecordBatch) -> tuple[Mask, list[_Fault]]:
    """Find the rows with a sampled spectrum, and what is wrong with them."""
    if "flux" not in batch.schema.names:
        return np.zeros(len(batch), dtype=bool), []
    rows, values, stated = sampled_flux(batch)
    bp, rp = bands_of_flux(values)
    known = np.isfinite(values) & (bp | rp)[:, None]
    counts = np.zeros((2, len(batch)), dtype=np.int64)
    counts[0, rows] = np.where(bp | rp, 0, (~np.isfinite(values)).sum(axis=1))
    counts[1, rows] = (known & ~(np.isfinite(stated) & (stated > 0))).sum(axis=1)
    wishes = ("finite numbers at all wavelengths of a band", "finite numbers above zero")
    return rows, [
        _Fault(reason, count > 0, _found_count(name, wish, count, len(GRID)))
        for reason, count, name, wish in zip(
            ("bad_value", "bad_error"), counts, ("flux", "flux_error"), wishes, strict=True
        )
    ]


def _other_bases(batch: pa.RecordBatch, bands: list[_Band], release: Release) -> Iterator[_Fault]:
    """Yield for each band the rows whose coefficients are of other basis functions."""
    names = batch.schema.names
    for band, inspected in zip(BANDS, bands, strict=True):
        wanted, name = release.basis_function_id(band), f"{band}_basis_function_id"
        if wanted is None or name not in names or batch.column(name).null_count == len(batch):
            continue
        ids = batch.column(name)
        rows = ~inspected.absent & _true(pc.not_equal(ids, wanted))
        yield _Fault("other_basis", rows, _found_basis(name, wanted, ids))


def _found_basis(name: str, wanted: int, ids: pa.Array) -> Detail:
    return lambda rows: _sentence(name, str(wanted), ids.take(pa.array(rows)))


def _bad_errors(values: NDArray[np.floating], errors: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count the errors of each row that are not finite or not positive."""
    bad, _ = _finiteness(errors)
    if len(errors) and not errors.min() > 0:  # also if the minimum is NaN
        zero = (errors == 0) & (values != 0)
        negative = (errors < 0) & np.isfinite(errors)
        bad = bad + (negative | zero).sum(axis=1)
    return bad


def _found_identifier(identifiers: pa.Array) -> Detail:
    return lambda rows: _sentence(
        "source_id", "a positive integer", identifiers.take(pa.array(rows))
    )


def _found_lengths(band: str, lengths: list[NDArray[np.int64]], wanted: int) -> Detail:
    def detail(rows: Rows) -> pa.Array:
        counts = [pa.array(length[rows]).cast(pa.string()) for length in lengths]
        found = pc.binary_join_element_wise(counts[0], " coefficients, ", counts[1], " errors", "")
        return _sentence(band, f"{wanted} coefficients, {wanted} errors", found)

    return detail


def _found_count(name: str, wish: str, count: NDArray[np.int64], wanted: int) -> Detail:
    def detail(rows: Rows) -> pa.Array:
        found = pc.binary_join_element_wise(
            pa.array(count[rows]).cast(pa.string()), f" of {wanted} are not", ""
        )
        return _sentence(name, wish, found)

    return detail


def _without_absent(batch: pa.RecordBatch, bands: list[_Band]) -> pa.RecordBatch:
    """Return the batch with absent bands as null; the batch itself if they are null already."""
    for name, band in zip(BANDS, bands, strict=True):
        for column in (f"{name}_coefficients", f"{name}_coefficient_errors"):
            index = batch.schema.get_field_index(column)
            values = batch.column(index)
            not_null = band.absent & _true(values.is_valid())
            if not_null.any():
                null = pa.scalar(None, values.type)
                cleared = pc.if_else(pa.array(not_null), null, values)
                batch = batch.set_column(index, batch.schema.field(index), cleared)
    return batch


def _divide(
    batch: pa.RecordBatch, faults: list[_Fault], files: pa.Array
) -> tuple[pa.RecordBatch, pa.Table]:
    """Divide a batch into rows without a fault and the rejected rows, in the order of the file."""
    remaining = np.ones(len(batch), dtype=bool)
    found: list[Rows] = []
    reasons: list[pa.Array] = []
    details: list[pa.Array] = []
    for fault in faults:
        rows = np.flatnonzero(fault.rows & remaining)
        if len(rows):
            remaining[rows] = False
            found.append(rows)
            reasons.append(pa.repeat(pa.scalar(fault.reason), len(rows)))
            details.append(fault.detail(rows).cast(pa.string()))
    contract = load_contract("rejected")
    if not found:
        return batch, contract.assemble({}, 0)
    by_reason = np.concatenate(found)
    order = np.argsort(by_reason)
    in_file_order, permutation = pa.array(by_reason[order]), pa.array(order)
    rejected = contract.assemble(
        {
            "source_id": batch.column("source_id").take(in_file_order),
            "file": files.take(in_file_order),
            "row": batch.column("row").take(in_file_order),
            "reason": pa.concat_arrays(reasons).take(permutation),
            "detail": pa.concat_arrays(details).take(permutation),
        },
        len(by_reason),
    )
    return batch.filter(pa.array(remaining)), rejected


def _true(condition: pa.Array) -> Mask:
    """Return a condition as a mask; null counts as False."""
    mask: Mask = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    """Return the length of each list; 0 for null."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _dense(column: pa.Array, rows: Mask, width: int) -> NDArray[np.floating]:
    """Return the lists of some rows, all of one length, as a matrix; nulls become NaN."""
    chosen = column if rows.all() else column.filter(pa.array(rows))
    values: NDArray[np.floating] = chosen.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(chosen), width)


def _finiteness(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the numbers of each row that are not finite, and that are NaN."""
    none = np.zeros(len(values), dtype=np.int64)
    # A finite sum means that all are finite; if it overflows, they are counted all the same.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return none, none
    return (~np.isfinite(values)).sum(axis=1), np.isnan(values).sum(axis=1)


def _always(text: str) -> Detail:
    return lambda rows: pa.repeat(pa.scalar(text), len(rows))


def _sentence(what: str, wanted: str, found: pa.Array) -> pa.Array:
    """Return a text with what was wanted and what was found, for each row."""
    text = pc.fill_null(found.cast(pa.string()), "null")
    return pc.binary_join_element_wise(f"{what}: wanted {wanted}, found ", text, "")
