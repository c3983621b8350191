"""XP continuous mean spectra, from every archive format and every Parquet dialect.

xp_columns.py lists the layouts and names under which the columns are found, xp_layout.py finds
them in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from catalogproc.contract import load_contract
from catalogproc.io.remote_file import File, as_file
from catalogproc.readers.formats import Table
from catalogproc.readers.joined_rows import FAULT
from catalogproc.readers.star_rows import open_spectra
from catalogproc.readers.xp_layout import layout_of
from catalogproc.release import Release

BATCH_ROWS = 8192
"""Number of rows of a batch."""
CORRELATED_ROWS = 1024
"""The same with correlations, with which a row takes 15 times the memory."""


def read_spectra(
    path: str | File,
    *,
    correlations: bool = False,
    batch_rows: int = BATCH_ROWS,
    skip: int = 0,
    rows: int | None = None,
    own: bool = False,
    release: Release | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the spectra of a file, in its order, in batches.

    Parameters
    ----------
    path
        A file in any format or dialect.
    correlations
        Whether to read the correlations too, 15 times the size of everything else.
    batch_rows
        Rows a batch at most; memory does not grow with the file.
    skip, rows
        Rows to leave out at the begin, and how many to read then (None: all). Rows of a
        Parquet file that are not asked for are not read.
    own
        Whether to read the columns of the contract gaia_source that the file has too.
    release
        What columns are called comes from here first.

    Yields
    ------
    RecordBatch
        The columns of the contract xp_continuous, in its order (the correlations only if
        asked for, null where the file has none; OCCASIONAL ones only if the file has them), of
        its types, all nullable; then ``row``
        (int64), the number of the row in the file, from 0; and ``fault`` (string), null or
        why something in this row could not be read: that field is null then. Lists are as
        long as they were found; a missing band is null, with no elements. Then, where asked for
        and found, columns of the contract gaia_source, null where a value cannot be read, and
        ``own_fault``, their names (see :func:`split_own`).

    Raises
    ------
    InputError
        The file is missing, damaged, empty, not a table, lacks a column, or keeps its
        source_id as a float, which cannot hold it.

    Examples
    --------
    >>> import catalogproc
    >>> spectra = catalogproc.read_spectra("examples/gaia_xp/xp_continuous_000.parquet")
    >>> sum(batch.num_rows for batch in spectra)
    500
    """
    table = open_spectra(as_file(path))
    layout = layout_of(table, correlations, own, release)
    if correlations:
        batch_rows = min(batch_rows, CORRELATED_ROWS)
    stop = None if rows is None else skip + rows
    drawn = table.batches(layout.names, batch_rows=batch_rows, first=skip, stop=stop)
    yield from _rebatched((layout.conform(part) for part in drawn), batch_rows)


def table_spectra(
    table: Table, *, correlations: bool = False, release: Release | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the spectra of an open table, with the columns beside them; see :func:`read_spectra`.

    Parameters
    ----------
    table
        A table of one row per star.
    correlations, release
        As of ``read_spectra``.

    Raises
    ------
    InputError
        As of ``read_spectra``.
    """
    layout = layout_of(table, correlations, True, release)
    limit = CORRELATED_ROWS if correlations else BATCH_ROWS
    drawn = table.batches(layout.names, batch_rows=limit)
    yield from _rebatched((layout.conform(part) for part in drawn), limit)


def spectra_columns(
    path: str | File, *, correlations: bool = False, release: Release | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the columns of the contract that a file has: of coefficients, or of sampled flux.

    By each of them the columns of the file that hold it: several where each holds one element.

    Parameters
    ----------
    path
        The file.
    correlations, release
        As of ``read_spectra``.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    layout = layout_of(open_spectra(as_file(path)), correlations, False, release)
    contract = load_contract("xp_continuous")
    return {
        name: layout.holders.get(name, ())
        for name in layout.schema.names
        if name in contract and not (layout.sampled and name.startswith(("bp_", "rp_")))
    }


def assumed_units(path: str | File, release: Release | None = None) -> str:
    """Return the columns of the spectra whose unit a file does not state.

    Parameters
    ----------
    path
        The file.
    release
        What columns are called comes from here first.

    Returns
    -------
    str
        Columns of the contract with its unit, which is assumed, such as ``flux, flux_error
        [W.m**-2.nm**-1]``; empty where every unit is stated.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    table = open_spectra(as_file(path))
    holders = layout_of(table, False, False, release).holders
    by_unit: dict[str, list[str]] = {}
    for column in load_contract("xp_continuous").columns:
        held = holders.get(column.name)
        if column.unit and held and not any(table.units.get(name, "").strip() for name in held):
            by_unit.setdefault(column.unit, []).append(column.name)
    return ", ".join(f"{', '.join(names)} [{unit}]" for unit, names in by_unit.items())


def split_own(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Table | None]:
    """Return spectra without what stands beside them, and that as a table of its own.

    Parameters
    ----------
    batch
        N rows as :func:`read_spectra` yields them, or some of them.

    Returns
    -------
    spectra, own
        The columns of spectra; those of gaia_source and their faults (N rows, as
        joined_rows.join takes them), None where the file has none.
    """
    names = batch.schema.names
    if FAULT not in names:
        return batch, None
    first = names.index("fault") + 1
    return batch.select(names[:first]), pa.Table.from_batches([batch.select(names[first:])])


def _rebatched(parts: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows, ``batch_rows`` at a time: text and XML come in smaller pieces."""
    held: list[pa.RecordBatch] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        while count >= batch_rows:
            whole = pa.concat_batches(held) if len(held) > 1 else held[0]
            yield whole.slice(0, batch_rows)
            count -= batch_rows
            held = [whole.slice(batch_rows)] if count else []
    if count:
        yield pa.concat_batches(held)
