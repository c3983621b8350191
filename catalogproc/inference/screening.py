"""Rows that get no answer, and why.

Every row of the input is written or rejected, never dropped: each rejected one keeps its
source_id, its file, its row and a reason. A row is used whole or not at all: where one
band is broken the other is not used either, for a number that stands beside a broken one
is not to be trusted. A band that is absent is another matter: the archive publishes such
spectra, and the model reads what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.vocabulary import BANDS, Vocabulary

REASONS = (
    "unreadable",
    "no_source_id",
    "duplicate",
    "wrong_length",
    "bad_value",
    "bad_error",
    "no_coefficients",
    "no_tokens",
)
"""Why a row is rejected; where several reasons hold, the first of these is given."""

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


class Duplicates:
    """The source_ids that a file has shown so far: the first row of each is the one that counts.

    Parameters
    ----------
    earlier
        Identifiers (M,) in rows of the same file that other chunks hold.
    """

    def __init__(self, earlier: NDArray[np.int64] | None = None) -> None:
        # Sorted blocks of at least halving length, so that remembering n identifiers
        # costs n log n in all, in whatever pieces they come.
        self._blocks: list[NDArray[np.int64]] = []
        if earlier is not None and len(earlier):
            self._blocks.append(np.sort(earlier))

    def later(self, identifiers: NDArray[np.int64]) -> Mask:
        """True (N,) where an identifier came before, here or in an earlier call; remembers all."""
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
    """One reason: the rows (N,) that it holds for, and what to say of those at indices (M,)."""

    reason: str
    rows: Mask
    detail: Callable[[Rows], pa.Array]


def screen(
    batch: pa.RecordBatch, vocabulary: Vocabulary, seen: Duplicates, file: str
) -> tuple[pa.RecordBatch, pa.Table]:
    """Part a batch of spectra into rows that the model can read and rows that it cannot.

    Parameters
    ----------
    batch
        Rows of the contract xp_continuous with ``row`` (place in the file, from 0) and
        ``fault`` (null, or why the row could not be read), as sources.xp yields them.
    vocabulary
        Says how many coefficients a band must have.
    seen
        Identifiers of the file's earlier rows; those of this batch are added to it.
        Every row with an identifier counts, whatever else is wrong with it, so that the
        answer does not depend on how the file is cut into chunks.
    file
        Name of the input file, for the rejected rows.

    Returns
    -------
    good, rejected
        The batch without the rejected rows, in its order, absent bands null whatever
        they were before, and a table of the contract rejected. Their lengths add up to
        that of the batch.

    Notes
    -----
    A band is absent where its coefficients and errors are both null, empty, or NaN
    throughout (fixed-length formats know no null). An error of exactly zero would weigh
    infinitely much, so it is refused, unless its coefficient is exactly zero too: that is
    how truncated spectra mark what was left out.
    """
    identifiers = batch.column("source_id")
    unknown = ~_true(pc.greater(identifiers, 0))
    plain = pc.fill_null(identifiers, 0).to_numpy(zero_copy_only=False)
    duplicate = np.zeros(len(batch), dtype=bool)
    duplicate[~unknown] = seen.later(plain[~unknown])
    bands = [_inspect(batch, band, vocabulary.coefficients(band)) for band in BANDS]
    absent = np.logical_and.reduce([band.absent for band in bands])

    def identifier_found(at: Rows) -> pa.Array:
        return _sentence("source_id", "a positive integer", identifiers.take(pa.array(at)))

    faults = [
        _Fault(
            "unreadable",
            _true(pc.is_valid(batch.column("fault"))),
            lambda at: batch.column("fault").take(pa.array(at)),
        ),
        _Fault("no_source_id", unknown, identifier_found),
        _Fault("duplicate", duplicate, _always("an earlier row of the file has this source_id")),
        *(band.faults[0] for band in bands),
        *(band.faults[1] for band in bands),
        *(band.faults[2] for band in bands),
        _Fault("no_coefficients", absent, _always("BP and RP are both absent")),
    ]
    return _part(_without_absent(batch, bands), faults, file)


def screen_tokens(
    spectra: pa.RecordBatch, readable: Mask, g_known: Mask, file: str
) -> tuple[pa.RecordBatch, pa.Table]:
    """Part off the spectra of which, with all that is known of the star, nothing can be read.

    A spectrum is divided by the G flux. That of a star of which one band is absent cannot
    be made from the spectrum, and where no G magnitude was given either, no token remains:
    an answer would be the model's prior, and none of this star's.

    Parameters
    ----------
    spectra
        Rows that :func:`screen` found good.
    readable, g_known
        The model has at least one token to read; the G flux is known (N,).
    file
        Name of the input file.

    Returns
    -------
    good, rejected
        As :func:`screen` gives them.
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
    return _part(spectra, faults, file)


@dataclass(frozen=True)
class _Band:
    """Where a band is absent (N,), and its wrong lengths, bad values and bad errors."""

    absent: Mask
    faults: tuple[_Fault, _Fault, _Fault]


def _inspect(batch: pa.RecordBatch, band: str, wanted: int) -> _Band:
    """What is wrong with one band of each row."""
    names = (f"{band}_coefficients", f"{band}_coefficient_errors")
    columns = [batch.column(name) for name in names]
    lengths = [_lengths(column) for column in columns]
    empty = (lengths[0] == 0) & (lengths[1] == 0)
    whole = (lengths[0] == wanted) & (lengths[1] == wanted)
    values, errors = (_dense(column, whole, wanted) for column in columns)

    not_finite, nan = _finiteness(values)
    error_not_finite, error_nan = _finiteness(errors)
    blank = (nan == wanted) & (error_nan == wanted)
    bad_errors = error_not_finite
    if len(errors) and not errors.min() > 0:  # NaN fails this too
        unweighted = (errors == 0) & (values != 0)
        negative = (errors < 0) & np.isfinite(errors)
        bad_errors = error_not_finite + (negative | unweighted).sum(axis=1)

    def spread(per_whole_row: NDArray[np.int64]) -> NDArray[np.int64]:
        full = np.zeros(len(batch), dtype=np.int64)
        full[whole] = np.where(blank, 0, per_whole_row)
        return full

    value_count, error_count = spread(not_finite), spread(bad_errors)
    absent = empty.copy()
    absent[whole] |= blank

    def lengths_found(at: Rows) -> pa.Array:
        counts = [pa.array(length[at]).cast(pa.string()) for length in lengths]
        found = pc.binary_join_element_wise(counts[0], " coefficients, ", counts[1], " errors", "")
        return _sentence(band, f"{wanted} coefficients, {wanted} errors", found)

    def counted(name: str, wish: str, count: NDArray[np.int64]) -> Callable[[Rows], pa.Array]:
        def detail(at: Rows) -> pa.Array:
            found = pc.binary_join_element_wise(
                pa.array(count[at]).cast(pa.string()), f" of {wanted} are not", ""
            )
            return _sentence(name, wish, found)

        return detail

    return _Band(
        absent,
        (
            _Fault("wrong_length", ~empty & ~whole, lengths_found),
            _Fault("bad_value", value_count > 0, counted(names[0], "finite numbers", value_count)),
            _Fault(
                "bad_error",
                error_count > 0,
                counted(names[1], "finite numbers above zero", error_count),
            ),
        ),
    )


def _without_absent(batch: pa.RecordBatch, bands: list[_Band]) -> pa.RecordBatch:
    """The batch with absent bands as nulls; itself where they are already."""
    for name, band in zip(BANDS, bands, strict=True):
        for column in (f"{name}_coefficients", f"{name}_coefficient_errors"):
            at = batch.schema.get_field_index(column)
            values = batch.column(at)
            written = band.absent & _true(values.is_valid())
            if written.any():
                nothing = pa.scalar(None, values.type)
                cleared = pc.if_else(pa.array(written), nothing, values)
                batch = batch.set_column(at, batch.schema.field(at), cleared)
    return batch


def _part(
    batch: pa.RecordBatch, faults: list[_Fault], file: str
) -> tuple[pa.RecordBatch, pa.Table]:
    remaining = np.ones(len(batch), dtype=bool)
    at: list[Rows] = []
    reasons: list[pa.Array] = []
    details: list[pa.Array] = []
    for fault in faults:
        rows = np.flatnonzero(fault.rows & remaining)
        if len(rows):
            remaining[rows] = False
            at.append(rows)
            reasons.append(pa.repeat(pa.scalar(fault.reason), len(rows)))
            details.append(fault.detail(rows).cast(pa.string()))
    contract = load_contract("rejected")
    if not at:
        return batch, contract.assemble({}, 0)
    places = np.concatenate(at)
    order = np.argsort(places)  # back to the order of the file
    rows_out, back = pa.array(places[order]), pa.array(order)
    rejected = contract.assemble(
        {
            "source_id": batch.column("source_id").take(rows_out),
            "file": pa.repeat(pa.scalar(file), len(places)),
            "row": batch.column("row").take(rows_out),
            "reason": pa.concat_arrays(reasons).take(back),
            "detail": pa.concat_arrays(details).take(back),
        },
        len(places),
    )
    return batch.filter(pa.array(remaining)), rejected


def _true(condition: pa.Array) -> Mask:
    """Where a condition holds; null counts as no."""
    mask: Mask = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    """How many values each list holds; 0 for null."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _dense(column: pa.Array, rows: Mask, width: int) -> NDArray[np.floating]:
    """The lists of the rows asked for, all of one length, as a matrix; nulls become NaN."""
    kept = column if rows.all() else column.filter(pa.array(rows))
    values: NDArray[np.floating] = kept.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(kept), width)


def _finiteness(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many numbers of each row are not finite, and how many are NaN."""
    none = np.zeros(len(values), dtype=np.int64)
    # One sum says whether any is not finite (an overflow only sends us the long way).
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return none, none
    return (~np.isfinite(values)).sum(axis=1), np.isnan(values).sum(axis=1)


def _always(text: str) -> Callable[[Rows], pa.Array]:
    return lambda at: pa.repeat(pa.scalar(text), len(at))


def _sentence(what: str, wanted: str, found: pa.Array) -> pa.Array:
    """What was wanted and what was found, a sentence for each thing found."""
    text = pc.fill_null(found.cast(pa.string()), "null")
    return pc.binary_join_element_wise(f"{what}: wanted {wanted}, found ", text, "")
