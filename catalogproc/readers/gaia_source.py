"""gaia_source and 2MASS columns beside the spectra, joined by source_id.

Tables of all formats are read. Column names, other names and crossmatch suffixes are matched
without regard to case (see schemas/gaia_source.toml); units that a file states are converted.
Columns that the contract does not have are ignored, those that a file does not have are null;
masked values, NaN and null are all null. Several tables are joined column by column: a value of
a star is that of the first file that has it.

A table can have as many rows as Gaia has stars and is never held in memory. Of Parquet files
that are sorted by source_id only the row groups are read whose range, as the footer states it,
includes a wanted star. Any other file is rewritten so once. For sorted spectra, as the archive
has them, each row group is then read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.contract import load_contract
from catalogproc.errors import InputError, JobError, masked
from catalogproc.io.remote_file import File, as_file
from catalogproc.io.staging import named
from catalogproc.readers import coerce
from catalogproc.readers.auxiliary_rows import UsedColumn, conform, used_columns
from catalogproc.readers.formats import Rows, open_table
from catalogproc.readers.joined_rows import Joined, Piece, join
from catalogproc.readers.sorted_tables import (
    Ids,
    SortedPart,
    as_sorted,
    read_group,
    sort_rows,
    sorted_copies,
)
from catalogproc.release import Release

SCANNED = 20_000_000
"""Rows of a table that is not sorted that are read to look up stars before a run."""

_SCANNED_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class AuxiliaryTable:
    """Auxiliary tables, in which stars are looked up. Holds paths and ranges only.

    Attributes
    ----------
    files
        The files as they were named, in the order in which their values count.
    parts
        The Parquet files in which stars are looked up.
    unready
        Files that must be staged before stars can be looked up in them.
    tables
        The name of each file's table, for the account: files of one folder with the same columns
        are one table.
    release
        What columns are called comes from here first.
    """

    files: tuple[File, ...] = ()
    parts: tuple[SortedPart, ...] = ()
    unready: tuple[File, ...] = ()
    tables: tuple[str, ...] = ()
    release: Release | None = None

    def match(self, source_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
        """Look up stars.

        Parameters
        ----------
        source_ids
            Identifiers (N,), int64, in any order.

        Returns
        -------
        Table
            N rows in the order of the identifiers; ``source_id`` as given, everything else
            null where no file has the star or the file does not have the column.

        Raises
        ------
        InputError
            A file cannot be read, or has rows of one star that differ.
        JobError
            The table was opened without a folder for staging, and needs one.
        """
        return self.join(source_ids).rows

    def join(
        self,
        source_ids: pa.Array | pa.ChunkedArray,
        own: pa.Table | None = None,
        *,
        scan: bool = False,
    ) -> Joined:
        """Look up stars, and count what was found in which table.

        Parameters
        ----------
        source_ids
            Identifiers (N,), int64, in any order.
        own
            Columns that stand beside the spectra (joined_rows.join), which count last.
        scan
            Read tables that are not sorted from their begin, up to SCANNED rows.

        Raises
        ------
        InputError
            A file cannot be read, or has rows of one star that differ.
        JobError
            The table was opened without a folder for staging, and needs one.
        """
        if self.unready and not scan:
            raise JobError(
                "an auxiliary table must be sorted before stars are looked up in it",
                wanted="Parquet sorted by source_id, or a folder to write such a copy to",
                found=", ".join(map(str, self.unready)),
            )
        if isinstance(source_ids, pa.ChunkedArray):
            source_ids = source_ids.combine_chunks()
        wanted = np.unique(source_ids.drop_null().to_numpy(zero_copy_only=False))
        pieces = sorted(self._pieces(wanted), key=lambda piece: self.tables.index(piece.table))
        joined = join(source_ids, pieces, own)
        none: dict[str, Mapping[str, int]] = {table: {} for table in self.tables}
        return replace(joined, account=none | dict(joined.account))

    def _pieces(self, wanted: Ids) -> Iterator[Piece]:
        """Yield the rows of the wanted (sorted) stars, file by file."""
        if not len(wanted):
            return
        table = dict(zip(self.files, self.tables, strict=True))
        for part in self.parts:
            begin = np.searchsorted(wanted, part.low)
            end = np.searchsorted(wanted, part.high, side="right")
            for group in np.flatnonzero(begin < end):
                rows = read_group(part, int(group))
                found = _rows_of(rows, wanted[begin[group] : end[group]])
                if found.num_rows:
                    yield Piece(found, named(part.origin), table[part.origin])
        for path in self.unready:
            yield Piece(_scanned(path, wanted, self.release), named(path), table[path])


NO_TABLES = AuxiliaryTable()
"""No auxiliary table."""


def _rows_of(rows: pa.Table, wanted: Ids) -> pa.Table:
    """Return the rows (sorted) of some stars (sorted)."""
    ids = rows.column("source_id").to_numpy()
    if not len(ids):
        return rows
    place = np.searchsorted(ids, wanted)
    hit = ids[np.minimum(place, len(ids) - 1)] == wanted
    return rows.take(pa.array(place[hit]))


def open_auxiliary(
    files: Sequence[str | File], staging: str | Path | None, release: Release | None = None
) -> AuxiliaryTable:
    """Open auxiliary tables, and write sorted copies of those that are not sorted.

    Parameters
    ----------
    files
        Files in any format; where several have a value, that of the first one counts.
    staging
        A folder for sorted copies of the files that need one; a copy that is there
        already is used again. None writes nothing: the files are checked, and stars can
        be looked up if all of them are Parquet in order.
    release
        What columns are called comes from here first.

    Raises
    ------
    InputError
        A file cannot be read, lacks source_id or anything else that is of use, or keeps
        its source_id as a float.
    """
    paths = tuple(dict.fromkeys(map(as_file, files)))
    parts: list[SortedPart] = []
    unready: list[File] = []
    read: list[Sequence[UsedColumn]] = []
    for path in paths:
        table = open_table(path)
        columns = used_columns(table, release)
        read.append(columns)
        part = as_sorted(table, path, columns)
        if part is not None:
            parts.append(part)
        elif staging is None:
            unready.append(path)
        else:
            parts += sorted_copies(table, columns, Path(staging))
    return AuxiliaryTable(paths, tuple(parts), tuple(unready), table_names(paths, read), release)


def table_names(files: Sequence[File], columns: Sequence[Sequence[UsedColumn]]) -> tuple[str, ...]:
    """Return a name of each file's table: files of one folder with the same columns are one.

    Parameters
    ----------
    files
        The files (N).
    columns
        The columns that are read of each (N).
    """
    kinds = [
        (path.parent, tuple(column.stored for column in used))
        for path, used in zip(files, columns, strict=True)
    ]
    members: dict[object, list[File]] = {}
    for path, kind in zip(files, kinds, strict=True):
        members.setdefault(kind, []).append(path)
    names = {
        kind: masked(named(paths[0])) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        for kind, paths in members.items()
    }
    return tuple(names[kind] for kind in kinds)


def _scanned(path: File, wanted: Ids, release: Release | None) -> pa.Table:
    """Return the rows of the wanted stars that are among the first SCANNED rows of a table."""
    table = open_table(path)
    columns = used_columns(table, release)
    stored = [column.stored for column in columns]
    stars = pa.array(wanted)
    found = []
    for part in table.batches(stored, batch_rows=_SCANNED_AT_ONCE, stop=SCANNED):
        ids, _ = coerce.identifiers(part.columns.column(0))
        wanted_rows = pc.is_in(ids, value_set=stars)
        if pc.any(wanted_rows).as_py():
            # Only the wanted rows are converted, which are few.
            some = Rows(part.first, part.columns.filter(wanted_rows))
            try:
                found.append(conform(some, columns, path))
            except InputError:
                conform(part, columns, path)  # raises it with the row's number in the file
                raise
    if not found:
        found = [load_contract("gaia_source").arrow_schema().empty_table().select(["source_id"])]
    return sort_rows(pa.concat_tables(found), path)
