"""Pieces of input files: the rows of one file that a chunk processes.

A file is divided where its format allows it: Parquet at its row groups. A file of another format
can only be read from its start, and is one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from catalogproc.errors import InputError
from catalogproc.io.hashes import sha256
from catalogproc.io.remote_file import File, RemoteFile
from catalogproc.readers import coerce
from catalogproc.readers.column_lookup import source_id_column
from catalogproc.readers.formats import ParquetTable, Table, is_named_parquet
from catalogproc.readers.star_rows import open_spectra
from catalogproc.readers.xp import BATCH_ROWS, read_spectra
from catalogproc.release import Release

BYTES_PER_ROW = 2000
"""Approximate size of a star in a file that does not state its number of rows; most are larger."""
PIECE_BYTES = 256 << 20
"""Compressed bytes of a piece, of all columns: with correlations a star has 40 kB."""
ALL_ROWS = 1 << 62
"""Number of rows that asks for one piece of a file."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one input file.

    Attributes
    ----------
    id
        Hash (16 hex digits) of the file's fingerprint and the rows.
    file
        The input file.
    fingerprint
        Of the file when it was planned; empty where the file could not be read.
    first_row, rows
        The rows of the file, from 0; ``rows`` is None where only reading the file tells.
    row_groups
        The Parquet row groups that hold them, begin and end; None for other formats.
    opened
        Whether the file could be opened when it was planned.
    """

    id: str
    file: File
    fingerprint: str
    first_row: int
    rows: int | None
    row_groups: tuple[int, int] | None = None
    opened: bool = True

    @property
    def probable_rows(self) -> int:
        """Number of rows; estimated from the file's size where only reading it tells."""
        if self.rows is not None:
            return self.rows
        try:
            return self.file.stat().st_size // BYTES_PER_ROW
        except OSError:
            return 0

    def part(self, first: int, count: int) -> Piece:
        """Return a part of the rows; its identifier is that of these rows of the file.

        Parameters
        ----------
        first, count
            Its first row in the file, and its number of rows.
        """
        if (first, count) == (self.first_row, self.rows):
            return self
        return replace(self, id=_id(self.fingerprint, first, count), first_row=first, rows=count)


def _id(named: str, first: int, count: int | None) -> str:
    return sha256(f"{named}\n{first}\n{count}".encode())[:16]


def pieces_of(path: File, mark: str, named: str, rows: int) -> list[Piece]:
    """Divide a file into pieces, in their order.

    Parameters
    ----------
    path, mark
        The file and its fingerprint. One that cannot be opened is one piece, which fails with
        its cause when it is read. Of a file at an address that is not Parquet nothing is read.
    named
        What the identifiers are made of in place of the path; it depends on the content.
    rows
        Approximate number of rows of a piece, which has at most PIECE_BYTES too. Row groups are not
        divided: a larger one is a piece of its own. ALL_ROWS makes one piece of the file.

    Returns
    -------
    list of Piece
        At least one.
    """

    def piece(first: int, count: int | None, *more: Any) -> Piece:
        return Piece(_id(named, first, count), path, mark, first, count, *more)

    if isinstance(path, RemoteFile) and not is_named_parquet(path):
        return [piece(0, None)]
    try:
        table = open_spectra(path)
    except InputError:
        return [piece(0, None, None, False)]
    return [piece(*span) for span in _spans(table, rows)]


def _spans(table: Table, rows: int) -> Iterator[tuple[int, int | None, tuple[int, int] | None]]:
    """Yield first row, number of rows and row groups of each piece of a file."""
    if not isinstance(table, ParquetTable):
        yield 0, table.rows, None
        return
    ends = np.cumsum((0, *table.row_groups), dtype=np.int64)
    sizes = np.cumsum((0, *table.group_bytes), dtype=np.float64)
    begin = 0
    while begin < len(table.row_groups) or begin == 0:
        # As many row groups as fit into the wanted rows and bytes, and at least one.
        end = int(np.searchsorted(ends, ends[begin] + rows, side="right")) - 1
        if rows < ALL_ROWS:
            last = int(np.searchsorted(sizes, sizes[begin] + PIECE_BYTES, side="right")) - 1
            end = min(end, last)
        end = min(max(end, begin + 1), len(table.row_groups))
        yield int(ends[begin]), int(ends[end] - ends[begin]), (begin, end)
        begin = max(end, begin + 1)


def spectra(
    piece: Piece,
    *,
    correlations: bool = False,
    batch_rows: int = BATCH_ROWS,
    own: bool = False,
    release: Release | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the spectra of a piece; see :func:`~catalogproc.readers.xp.read_spectra`.

    Parameters
    ----------
    piece
        The rows of a file.
    correlations, batch_rows, own, release
        As of ``read_spectra``.
    """
    return read_spectra(
        piece.file,
        correlations=correlations,
        batch_rows=batch_rows,
        skip=piece.first_row,
        rows=piece.rows,
        own=own,
        release=release,
    )


def source_ids_before(piece: Piece) -> pa.Array:
    """Return the source_ids (int64) of the rows of the file before a piece.

    With them a star that is twice in a file is found where its rows are in two pieces.

    Parameters
    ----------
    piece
        The rows of a file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if piece.first_row == 0:
        return pa.array([], pa.int64())
    table = open_spectra(piece.file)
    name = source_id_column(table)
    parts = [
        coerce.identifiers(part.columns.column(0))[0]
        for part in table.batches([name], batch_rows=1 << 20, stop=piece.first_row)
    ]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.int64())
