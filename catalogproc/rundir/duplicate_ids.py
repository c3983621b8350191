"""Find the source_ids that occur more than once in a catalog, in bounded memory.

The ids are counted in bins of their leading bits while the parts are read for other checks.
Then the bins are taken in groups that fit into memory: the source_id column is read again, of
those row groups whose range meets the group's. Gaia files are sorted by source_id, so each row
group is read about once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.rundir.receipts import FileRows

BINS_LOG2 = 16
SHIFT = 63 - BINS_LOG2
LIMIT = 8_000_000
"""Number of ids that are sorted at a time: about 0.3 GB."""
SHOWN = 5
"""Number of ids that a finding names."""


@dataclass(frozen=True)
class _Part:
    """A part, the numbers (P,) of its input files, and where the rows of each end (P,)."""

    path: Path
    files: NDArray[np.int32]
    ends: NDArray[np.int64]


class DuplicateSearch:
    """Search for duplicates: :meth:`count` the ids, :meth:`add` their parts, then :meth:`run`.

    Parameters
    ----------
    limit
        Number of ids held in memory at a time, unless one bin has more.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._bins = np.zeros(1 << BINS_LOG2, dtype=np.int64)
        self._parts: list[_Part] = []
        self._files: dict[str, int] = {}
        self._names: list[str] = []

    def count(self, source_ids: pa.ChunkedArray) -> None:
        """Count ids by their leading bits.

        Parameters
        ----------
        source_ids
            Ids (N,) of a part.
        """
        bins = _bins(source_ids.to_numpy())
        self._bins += np.bincount(bins, minlength=len(self._bins))

    def add(self, part: Path, files: Sequence[FileRows]) -> None:
        """Add a part of the catalog whose ids were counted.

        Parameters
        ----------
        part
            The Parquet file.
        files
            The input files that its rows come from, in their order.
        """
        numbers = []
        for one in files:
            numbers.append(self._files.setdefault(one.fingerprint, len(self._files)))
            if numbers[-1] == len(self._names):
                self._names.append(one.file)
        ends = np.cumsum([one.rows_written for one in files], dtype=np.int64)
        self._parts.append(_Part(part, np.array(numbers, np.int32), ends))

    def run(self) -> tuple[int, list[str]]:
        """Return the number of ids in several files, and a finding per file with duplicates."""
        across = 0
        within: dict[int, list[int]] = {}
        for low, high in self._groups():
            ids, files = self._read(low, high)
            order = np.lexsort((files, ids))
            ids, files = ids[order], files[order]
            same = ids[1:] == ids[:-1]
            same_file = same & (files[1:] == files[:-1])
            across += len(np.unique(ids[1:][same & ~same_file]))
            for file in np.unique(files[1:][same_file]):
                twice = np.unique(ids[1:][same_file & (files[1:] == file)])
                within.setdefault(int(file), []).extend(twice.tolist())
        return across, sorted(self._finding(file, ids) for file, ids in within.items())

    def _finding(self, file: int, ids: list[int]) -> str:
        shown = ", ".join(map(str, ids[:SHOWN])) + (", …" if len(ids) > SHOWN else "")
        words = "source_id occurs" if len(ids) == 1 else "source_ids occur"
        return f"input {self._names[file]}: {len(ids)} {words} more than once: {shown}"

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of bins, end exclusive, with at most ``limit`` ids where possible."""
        start, size = 0, 0
        for number in np.flatnonzero(self._bins):
            if size and size + self._bins[number] > self._limit:
                yield start, int(number)
                start, size = int(number), 0
            size += int(self._bins[number])
        if size:
            yield start, len(self._bins)

    def _read(self, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the ids of a range of bins, and the number of the input file of each."""
        ids: list[NDArray[np.int64]] = []
        files: list[NDArray[np.int32]] = []
        for part in self._parts:
            for found, rows in _ids_in(part.path, low, high):
                ids.append(found)
                files.append(part.files[np.searchsorted(part.ends, rows, side="right")])
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        return np.concatenate(ids), np.concatenate(files)


def _bins(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.maximum(ids, 0) >> SHIFT


def _ids_in(
    path: Path, low: int, high: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield a part's ids in the bins ``low`` to ``high - 1`` and their rows, by row group."""
    first_row = 0
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("source_id")
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            statistics, begin = group.column(column).statistics, first_row
            first_row += group.num_rows
            if statistics is not None and statistics.has_min_max:
                first, last = _bins(np.array([statistics.min, statistics.max]))
                if last < low or first >= high:
                    continue
            ids = file.read_row_group(number, columns=["source_id"]).column(0).to_numpy()
            bins = _bins(ids)
            inside = np.flatnonzero((bins >= low) & (bins < high))
            if len(inside):
                yield ids[inside], begin + inside
