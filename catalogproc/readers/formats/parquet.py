"""Parquet files, read row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.readers.formats.base import Rows, Table, reading, unique_names
from catalogproc.readers.formats.nested import nested_fields
from catalogproc.readers.formats.stated_units import schema_units
from catalogproc.readers.formats.stream import is_gzip


@dataclass(frozen=True)
class ParquetTable(Table):
    """A Parquet file; ``row_groups`` holds the number of rows of each of its row groups."""

    path: Path
    schema: pa.Schema
    row_groups: tuple[int, ...]
    units: Mapping[str, str]
    kind: str = "Parquet"

    @cached_property
    def stored_types(self) -> Mapping[str, pa.DataType]:
        own = dict(zip(self.schema.names, self.schema.types, strict=True))
        return own | {
            name: own[column].field(child).type for name, (column, child) in self.nested.items()
        }

    @cached_property
    def nested(self) -> Mapping[str, tuple[str, str]]:
        """Columns that are fields of a struct; see :func:`nested_fields`."""
        return nested_fields(zip(self.schema.names, self.schema.types, strict=True))

    @property
    def rows(self) -> int:
        return sum(self.row_groups)

    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        ends = np.cumsum(self.row_groups, dtype=np.int64)
        stop = self.rows if stop is None else min(stop, self.rows)
        # Whole row groups are read; what is outside of the rows asked for is cut away.
        low = int(np.searchsorted(ends, first, side="right"))
        high = int(np.searchsorted(ends, stop, side="left")) + 1
        row = int(ends[low - 1]) if low else 0
        with reading(self.path, self.kind):
            if first < stop:
                with open_parquet_file(self.path) as file:
                    stored = [".".join(self.nested.get(name, (name,))) for name in names]
                    drawn = file.iter_batches(
                        batch_rows, range(low, high), stored, use_threads=False
                    )
                    for batch in drawn:
                        begin, end = max(first - row, 0), min(len(batch), stop - row)
                        if begin < end:
                            inside = self._selected(batch, names).slice(begin, end - begin)
                            yield Rows(row + begin, inside)
                        row += len(batch)
                    _check_count(self.path, int(ends[high - 1]), row)

    def _selected(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
        """The columns of a batch in their order, fields of structs among them."""
        arrays = [
            pc.struct_field(batch.column(self.nested[name][0]), self.nested[name][1])
            if name in self.nested
            else batch.column(name)
            for name in names
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(names))


def open_parquet_file(path: Path) -> pq.ParquetFile:
    """Open a Parquet file for streaming, with checks of the pages' checksums.

    Parameters
    ----------
    path
        The file.
    """
    return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)


def open_parquet(path: Path) -> ParquetTable:
    """Read the footer of a Parquet file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file is damaged.
    """
    if is_gzip(path):
        raise InputError(
            "a Parquet file is compressed as a whole", wanted="Parquet", found="gzip", where=path,
            advice="decompress it: gunzip FILE; Parquet is compressed inside",
        )  # fmt: skip
    with reading(path, "Parquet"), open_parquet_file(path) as file:
        schema, footer = file.schema_arrow, file.metadata
        unique_names(schema.names, path)
        groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
        if any(rows < 0 for rows in groups):
            raise ValueError("a negative number of rows")
        _check_count(path, footer.num_rows, sum(groups))
        return ParquetTable(path, schema, groups, schema_units(schema))


def ranges(path: Path, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the least and greatest value of an integer column in each row group.

    Parameters
    ----------
    path
        The file.
    name
        The column.

    Returns
    -------
    (row groups,) and (row groups,) or None
        From the footer; None where it does not state them for every row group. The range of an
        empty row group includes no value.
    """
    low, high = [], []
    with reading(path, "Parquet"), open_parquet_file(path) as file:
        footer = file.metadata
        index = file.schema_arrow.names.index(name)
        if footer.num_columns != len(file.schema_arrow.names):
            paths = [file.schema.column(i).path for i in range(footer.num_columns)]
            index = paths.index(name)
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            if group.num_rows == 0:
                low.append(1)
                high.append(0)
                continue
            told = group.column(index).statistics
            if told is None or not told.has_min_max or not isinstance(told.min, int):
                return None
            low.append(told.min)
            high.append(told.max)
    return np.array(low, np.int64), np.array(high, np.int64)


def byte_range(path: Path, begin: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of bytes of some row groups and of the footer.

    Parameters
    ----------
    path
        The file.
    begin, end
        The first row group, and the first one that is not included.
    """
    size = path.stat().st_size
    with reading(path, "Parquet"), open_parquet_file(path) as file:
        footer = file.metadata
        # A file ends in its footer, that one's length (4 bytes) and PAR1.
        spans = [(size - footer.serialized_size - 8, size)]
        low, high = size, 0
        for number in range(begin, end):
            group = footer.row_group(number)
            for index in range(group.num_columns):
                column = group.column(index)
                start = column.data_page_offset
                if column.has_dictionary_page:
                    start = min(start, column.dictionary_page_offset)
                low = min(low, start)
                high = max(high, start + column.total_compressed_size)
        return [(max(low, 0), min(high, size)), *spans] if low < high else spans


def _check_count(path: Path, wanted: int, found: int) -> None:
    if wanted != found:
        raise InputError(
            "the file does not hold as many rows as it says",
            wanted=f"{wanted} rows, as its footer says",
            found=f"{found} rows",
            where=path,
            advice="it is damaged: fetch it again",
        )
