"""Rows of a catalog of any size, taken by ranges of an integer key, in bounded memory.

Where the files lie nearly in the order of the key, as Gaia's do on the sky, the row groups
that a range needs are read from where they are; else the rows are first written out in
sorted runs, so that each range touches few row groups of each run.
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

RUN = 1 << 19
"""Rows that are sorted at a time."""
GROUP = 1 << 12
"""Rows of a row group of a sorted run: the fewer, the less is read in vain."""
MOST_READS = 4
"""How many times the catalog may be read in all, before sorting it first is cheaper."""
SMALL = 1 << 22
"""Up to so many rows in all are read without asking."""

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """Row groups of Parquet files, and the range of the key that each of them holds.

    Attributes
    ----------
    key
        The column of the key.
    columns
        The columns that are wanted.
    condition
        Which rows are wanted; all where None.
    schema
        That of the files.
    files, groups
        Of each row group.
    low, high
        Least and greatest key of each row group.
    rows
        Rows of each row group.
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

    def between(self, low: int, high: int) -> pa.Table:
        """The rows with low <= key <= high, in no order."""
        found = np.flatnonzero((self.low <= high) & (self.high >= low))
        wanted = (pc.field(self.key) >= low) & (pc.field(self.key) <= high)
        needed = [*self.columns, self.key]
        if self.condition is not None:
            wanted &= self.condition.expression
            needed += self.condition.columns
        tables = [self.schema.empty_table().select([*self.columns])]
        for path in dict.fromkeys(self.files[i] for i in found):
            groups = [self.groups[i] for i in found if self.files[i] == path]
            with pq.ParquetFile(path) as file:
                table = file.read_row_groups(groups, columns=list(dict.fromkeys(needed)))
            tables.append(table.filter(wanted).select([*self.columns]))
        return pa.concat_tables(tables)

    def cost(self, low: Keys, high: Keys) -> int:
        """Rows that are read to take each of some ranges, sorted and apart from each other."""
        first = np.searchsorted(high, self.low)
        last = np.searchsorted(low, self.high, side="right")
        return int((self.rows * np.maximum(last - first, 0)).sum())


def pieces(
    files: Iterable[Path], key: str, columns: Sequence[str], condition: Condition | None = None
) -> Pieces:
    """The row groups of files. One whose footer tells no range may hold any key."""
    held: list[tuple[Path, int, int, int, int]] = []
    schema = pa.schema([])
    for path in files:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow.remove_metadata()
        place = schema.names.index(key)
        for group in range(metadata.num_row_groups):
            told = metadata.row_group(group).column(place).statistics
            known = told is not None and told.has_min_max
            limits = (told.min, told.max) if known else (-(1 << 63), (1 << 63) - 1)
            held.append((path, group, *limits, metadata.row_group(group).num_rows))
    paths, groups, low, high, rows = zip(*held, strict=True) if held else ((), (), (), (), ())
    numbers = (np.array(values, dtype=np.int64) for values in (low, high, rows))
    return Pieces(key, tuple(columns), condition, schema, paths, groups, *numbers)


def is_cheap(held: Pieces, low: Keys, high: Keys) -> bool:
    """Whether ranges may be taken from files as they are, or should be from sorted runs."""
    return held.cost(low, high) <= max(MOST_READS * int(held.rows.sum()), SMALL)


class Sorter:
    """Rows in, in any order; sorted runs of them in a folder.

    Memory holds at most :data:`RUN` rows, and as many again while they are sorted.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.rows = 0
        self._files: list[Path] = []
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self.rows += table.num_rows
        if self._waiting_rows >= RUN:
            self._write()

    def _write(self) -> None:
        run = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self._files):05d}.parquet"
        order = np.argsort(run.column(self.key).to_numpy(), kind="stable")
        pq.write_table(run.take(pa.array(order)), path, row_group_size=GROUP, compression="lz4")
        self._files.append(path)

    def pieces(self, columns: Sequence[str]) -> Pieces:
        """All rows that were added."""
        if self._waiting:
            self._write()
        return pieces(self._files, self.key, columns)
