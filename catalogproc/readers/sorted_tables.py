"""Parquet tables sorted by source_id, in which single stars are found by row group.

A table that is not sorted is rewritten so once, in runs of a million rows. The row groups that were
read last are kept in memory, up to a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.io.remote_file import File
from catalogproc.readers.auxiliary_rows import UsedColumn, conform
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.formats import ParquetTable, Rows, Table, open_table
from catalogproc.readers.formats.base import reading
from catalogproc.readers.formats.parquet import ranges
from catalogproc.readers.joined_rows import COPIES, distinct_rows

Ids = NDArray[np.int64]


# A staged file is sorted this many rows at a time, and written in row groups of so many.
_RUN_ROWS, _GROUP_ROWS = 1 << 20, 1 << 15


# Of staged files; those of another layout are not read.
_LAYOUT = 2


# A row group of more rows than this takes too much memory to be read at once.
_LARGEST_GROUP = 1 << 20


# A file is in order if, in the middle of its row groups, no more than so many overlap.
_MOST_OVERLAP = 4


_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class SortedPart:
    """A Parquet file in order: which columns are ours, and the range of each row group.

    A ``staged`` one was written here, and has the column COPIES too.
    """

    table: ParquetTable = field(compare=False)
    origin: File  # the file that the user named
    columns: tuple[UsedColumn, ...]
    low: Ids = field(compare=False)
    high: Ids = field(compare=False)
    staged: bool = False

    @property
    def path(self) -> File:
        return self.table.path


def as_sorted(table: Table, origin: File, columns: tuple[UsedColumn, ...]) -> SortedPart | None:
    """Return the table as a sorted part, if it is Parquet whose row groups have distinct ranges.

    Parameters
    ----------
    table
        The table of a file.
    origin
        The file that the user named, for messages.
    columns
        The columns to read; the first is source_id.

    Returns
    -------
    SortedPart or None
        None where the table is not sorted.
    """
    if not isinstance(table, ParquetTable):
        return None
    if max(table.row_groups, default=0) > _LARGEST_GROUP:
        return None
    limits = ranges(table.path, columns[0].stored)
    if limits is None:
        return None
    low, high = limits
    begun = np.searchsorted(np.sort(low), low, side="right")
    ended = np.searchsorted(np.sort(high), low, side="left")
    if len(low) and np.median(begun - ended) > _MOST_OVERLAP:
        return None
    return SortedPart(table, origin, columns, low, high)


def sorted_copies(table: Table, columns: tuple[UsedColumn, ...], folder: Path) -> list[SortedPart]:
    """Return sorted copies of a table, of a million rows each; an earlier run's are used again.

    Parameters
    ----------
    table
        The table of a file.
    columns
        The columns to read; the first is source_id.
    folder
        Where copies are kept.

    Raises
    ------
    InputError
        A value cannot be read, or rows of a star differ.
    """
    contract = load_contract("gaia_source")
    target = folder / f"{fingerprint(table.path)[:16]}-{contract.version}.{_LAYOUT}"
    if not target.is_dir():
        with scratch_folder(folder, target.name) as scratch:
            copy = scratch / "sorted"
            copy.mkdir()
            for number, run in enumerate(_runs(table, columns)):
                path = copy / f"{number:05d}.parquet"
                with parquet_writer(path, run.schema, split_floats=True) as writer:
                    writer.write_table(run, row_group_size=_GROUP_ROWS)
            try:
                publish(copy, target)
            except OSError:
                # Another process was faster: its copy is as good.
                if not target.is_dir():
                    raise
    parts = []
    ours = tuple(UsedColumn(column.name, column.name) for column in columns)
    for path in sorted(target.iterdir()):
        part = as_sorted(open_table(path), table.path, ours)
        if part is None:
            raise InputError("a staged copy is damaged", where=path, advice="remove its folder")
        parts.append(replace(part, staged=True))
    return parts


def _runs(table: Table, columns: tuple[UsedColumn, ...]) -> Iterator[pa.Table]:
    """All rows of a table as our contract has them, a million at a time, each run sorted."""
    held: list[pa.Table] = []
    count = 0
    stored = [column.stored for column in columns]
    for part in table.batches(stored, batch_rows=_RUN_ROWS >> 3):
        held.append(conform(part, columns, table.path))
        count += held[-1].num_rows
        if count >= _RUN_ROWS:
            yield sort_rows(pa.concat_tables(held), table.path)
            held, count = [], 0
    if count:
        yield sort_rows(pa.concat_tables(held), table.path)


def sort_rows(rows: pa.Table, origin: File) -> pa.Table:
    """Return rows by source_id, each star once, in one piece.

    Parameters
    ----------
    rows
        Columns of the contract; with COPIES where a row may stand for several.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        Two rows of a star differ.
    """
    if COPIES not in rows.column_names:
        rows = rows.append_column(COPIES, pa.array(np.ones(rows.num_rows, np.int64)))
    ids = rows.column("source_id").to_numpy()
    if len(ids) and not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind="stable")
        first = np.append(True, np.diff(ids[order]) != 0)
        rows = distinct_rows(rows.take(pa.array(order)), first, origin)
    return rows.combine_chunks()


class _Recent:
    """The row groups that were read last, up to a number of bytes.

    The batches of a chunk are neighbours on the sky and need the same row groups. No result
    depends on what is kept here.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[object, ...], pa.Table] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[object, ...], read: Callable[[], pa.Table]) -> pa.Table:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        rows = read()
        with self._lock:
            self._held[key] = rows
            while sum(table.nbytes for table in self._held.values()) > self._limit:
                self._held.popitem(last=False)
        return rows


_RECENT = _Recent(_CACHE_BYTES)


def read_group(part: SortedPart, number: int) -> pa.Table:
    """Return one row group in the contract's types and units, sorted by source_id.

    Parameters
    ----------
    part
        The sorted file.
    number
        The row group.
    """
    with reading(part.path, "Parquet"):
        status = part.path.stat()
        key = (part.path, status.st_mtime_ns, status.st_size, number)
        return _RECENT.get(key, lambda: _read_group(part, number))


def _read_group(part: SortedPart, number: int) -> pa.Table:
    groups = part.table.row_groups
    first = sum(groups[:number])
    stored = [column.stored for column in part.columns]
    rows = part.table.batches(
        [*stored, COPIES] if part.staged else stored,
        batch_rows=groups[number], first=first, stop=first + groups[number],
    )  # fmt: skip
    return sort_rows(pa.concat_tables([_conform(piece, part) for piece in rows]), part.origin)


def _conform(piece: Rows, part: SortedPart) -> pa.Table:
    if not part.staged:
        return conform(piece, part.columns, part.path)
    last = piece.columns.num_columns - 1
    ours = Rows(piece.first, piece.columns.select(range(last)), piece.fault)
    copies = piece.columns.column(last)
    return conform(ours, part.columns, part.path).append_column(COPIES, copies)
