"""Which source_ids stand twice in a catalog, in bounded memory.

The ids are counted in bins of their leading bits while the parts are read anyway; then the
bins are gone through in groups that fit into memory, reading the source_id column again,
of the row groups that can hold such ids only. Gaia's files are sorted by source_id, so
that altogether each row group is read about once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BINS_LOG2 = 16
SHIFT = 63 - BINS_LOG2
LIMIT = 8_000_000
"""Ids that are sorted at a time: about 0.3 GB."""
NAMED = 5


@dataclass(frozen=True)
class _Part:
    path: Path
    file: int


class DuplicateSearch:
    """Count ids with :meth:`count`, name their parts with :meth:`add`, then :meth:`run`."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._bins = np.zeros(1 << BINS_LOG2, dtype=np.int64)
        self._parts: list[_Part] = []
        self._files: dict[str, int] = {}
        self._names: list[str] = []

    def count(self, source_ids: pa.ChunkedArray) -> None:
        """Note how many ids there are, by their leading bits."""
        bins = _bins(source_ids.to_numpy())
        self._bins += np.bincount(bins, minlength=len(self._bins))

    def add(self, part: Path, fingerprint: str, name: str) -> None:
        """Name a part of the catalog whose ids were counted, and the input file it answers."""
        number = self._files.setdefault(fingerprint, len(self._files))
        if number == len(self._names):
            self._names.append(name)
        self._parts.append(_Part(part, number))

    def run(self) -> tuple[int, list[str]]:
        """(ids that stand in more than one file, a sentence for each file with ids twice)."""
        across = 0
        within: dict[int, list[int]] = {}
        for low, high in self._groups():
            ids, files = self._gather(low, high)
            order = np.lexsort((files, ids))
            ids, files = ids[order], files[order]
            same = ids[1:] == ids[:-1]
            same_file = same & (files[1:] == files[:-1])
            across += len(np.unique(ids[1:][same & ~same_file]))
            for file in np.unique(files[1:][same_file]):
                twice = np.unique(ids[1:][same_file & (files[1:] == file)])
                within.setdefault(int(file), []).extend(twice.tolist())
        return across, sorted(self._sentence(file, ids) for file, ids in within.items())

    def _sentence(self, file: int, ids: list[int]) -> str:
        named = ", ".join(map(str, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
        words = "source_id stands" if len(ids) == 1 else "source_ids stand"
        return f"input {self._names[file]}: {len(ids)} {words} twice: {named}"

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Ranges of bins, the upper one exclusive, of at most ``limit`` ids where they can be."""
        start, held = 0, 0
        for number in np.flatnonzero(self._bins):
            if held and held + self._bins[number] > self._limit:
                yield start, int(number)
                start, held = int(number), 0
            held += int(self._bins[number])
        if held:
            yield start, len(self._bins)

    def _gather(self, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        ids: list[NDArray[np.int64]] = []
        files: list[NDArray[np.int32]] = []
        for part in self._parts:
            for found in _ids_in(part.path, low, high):
                ids.append(found)
                files.append(np.full(len(found), part.file, dtype=np.int32))
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        return np.concatenate(ids), np.concatenate(files)


def _bins(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.maximum(ids, 0) >> SHIFT


def _ids_in(path: Path, low: int, high: int) -> Iterator[NDArray[np.int64]]:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("source_id")
        for number in range(file.num_row_groups):
            statistics = file.metadata.row_group(number).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                first, last = _bins(np.array([statistics.min, statistics.max]))
                if last < low or first >= high:
                    continue
            ids = file.read_row_group(number, columns=["source_id"]).column(0).to_numpy()
            bins = _bins(ids)
            inside = ids[(bins >= low) & (bins < high)]
            if len(inside):
                yield inside
