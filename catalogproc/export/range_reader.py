"""Rows of a catalog of any size by ranges of an integer key, in bounded memory.

Where the files are nearly in the order of the key, as Gaia's are on the sky, the row groups
of a range are read from the files as they are. Otherwise the rows are first written to sorted
files, so that each range overlaps few row groups of each file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.export.where import Condition

ROWS_PER_SORT = 1 << 19
"""Rows that are sorted at a time, in memory."""
ROWS_PER_GROUP = 1 << 12
"""Rows of each row group of a sorted file: the fewer, the fewer are read in vain."""
MAX_READS = 4
"""Up to so many readings of the whole catalog are cheaper than sorting it."""
MIN_ROWS_TO_SORT = 1 << 22
"""Reading fewer rows than this is always cheaper than sorting."""

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class RowGroups:
    """Row groups of Parquet files, and the range of the key in each of them.

    Attributes
    ----------
    key
        The column of the key.
    columns
        The selected columns.
    condition
        Which rows are selected; all where None.
    schema
        Schema of the files.
    files, groups
        File, and number in the file, of each row group (N,).
    low, high
        Least and greatest key of each row group (N,).
    rows
        Number of rows of each row group (N,).
    """

    key: str
    columns: tuple[str, ...]
    condition: Condition | None
    schema: pa.Schema
    files: tuple[Path, ...]
    groups: tuple[int, ...]
    low: Keys
    high: Keys
    rows: Keys

    def read_range(self, low: int, high: int) -> pa.Table:
        """Read the selected rows with low <= key <= high, in any order.

        Parameters
        ----------
        low, high
            The range, both ends included.
        """
        overlapping = np.flatnonzero((self.low <= high) & (self.high >= low))
        selection = (pc.field(self.key) >= low) & (pc.field(self.key) <= high)
        needed = [*self.columns, self.key]
        if self.condition is not None:
            selection &= self.condition.expression
            needed += self.condition.columns
        tables = [self.schema.empty_table().select([*self.columns])]
        for path in dict.fromkeys(self.files[i] for i in overlapping):
            groups = [self.groups[i] for i in overlapping if self.files[i] == path]
            with pq.ParquetFile(path) as file:
                table = file.read_row_groups(groups, columns=list(dict.fromkeys(needed)))
            tables.append(table.filter(selection).select([*self.columns]))
        return pa.concat_tables(tables)

    def rows_to_read(self, low: Keys, high: Keys) -> int:
        """Return how many rows are read in all to take each of several ranges.

        Parameters
        ----------
        low, high
            The ranges (M,), both ends included, sorted and without overlap.
        """
        first = np.searchsorted(high, self.low)
        last = np.searchsorted(low, self.high, side="right")
        return int((self.rows * np.maximum(last - first, 0)).sum())


def list_row_groups(
    files: Iterable[Path], key: str, columns: Sequence[str], condition: Condition | None = None
) -> RowGroups:
    """List the row groups of files. One without statistics may hold any key.

    Parameters
    ----------
    files
        Parquet files of one schema.
    key
        The column of the key, an int64.
    columns
        The columns to read.
    condition
        Which rows to read; all where None.
    """
    listed: list[tuple[Path, int, int, int, int]] = []
    schema = pa.schema([])
    for path in files:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow.remove_metadata()
        index = schema.names.index(key)
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(index).statistics
            known = statistics is not None and statistics.has_min_max
            limits = (statistics.min, statistics.max) if known else (-(1 << 63), (1 << 63) - 1)
            listed.append((path, group, *limits, metadata.row_group(group).num_rows))
    paths, groups, low, high, rows = zip(*listed, strict=True) if listed else ((), (), (), (), ())
    numbers = (np.array(values, dtype=np.int64) for values in (low, high, rows))
    return RowGroups(key, tuple(columns), condition, schema, paths, groups, *numbers)


def needs_no_sorting(row_groups: RowGroups, low: Keys, high: Keys) -> bool:
    """Return whether taking ranges from the files as they are is cheaper than sorting first.

    Parameters
    ----------
    row_groups
        The row groups of the files.
    low, high
        The ranges (M,), as in :meth:`RowGroups.rows_to_read`.
    """
    all_rows = int(row_groups.rows.sum())
    return row_groups.rows_to_read(low, high) <= max(MAX_READS * all_rows, MIN_ROWS_TO_SORT)


class Sorter:
    """Writes rows that come in any order to sorted files.

    Memory holds at most :data:`ROWS_PER_SORT` rows, twice while they are sorted.

    Parameters
    ----------
    folder
        Where the files are written.
    key
        The column of the key.

    Attributes
    ----------
    rows
        Rows that were added.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.rows = 0
        self._files: list[Path] = []
        self._buffer: list[pa.Table] = []
        self._buffered_rows = 0

    def add(self, table: pa.Table) -> None:
        """Add rows.

        Parameters
        ----------
        table
            Any number of rows of one schema.
        """
        if not table.num_rows:
            return
        self._buffer.append(table)
        self._buffered_rows += table.num_rows
        self.rows += table.num_rows
        if self._buffered_rows >= ROWS_PER_SORT:
            self._write()

    def _write(self) -> None:
        table = pa.concat_tables(self._buffer)
        self._buffer, self._buffered_rows = [], 0
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self._files):05d}.parquet"
        order = np.argsort(table.column(self.key).to_numpy(), kind="stable")
        pq.write_table(
            table.take(pa.array(order)), path, row_group_size=ROWS_PER_GROUP, compression="lz4"
        )
        self._files.append(path)

    def row_groups(self, columns: Sequence[str]) -> RowGroups:
        """Return the row groups of all rows that were added.

        Parameters
        ----------
        columns
            The columns to read.
        """
        if self._buffer:
            self._write()
        return list_row_groups(self._files, self.key, columns)
