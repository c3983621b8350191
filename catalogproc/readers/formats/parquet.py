"""Parquet files, read row group by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.io.range_reader import RangeReader, Span
from catalogproc.io.remote_file import File, RemoteFile
from catalogproc.readers.formats.base import Rows, Table, reading, unique_names
from catalogproc.readers.formats.nested import nested_fields
from catalogproc.readers.formats.stated_units import schema_units
from catalogproc.readers.formats.stream import is_gzip

_MAGIC = b"PAR1"
_TRAILER = 8
"""Bytes at the end of a file: the length of the footer, and the magic word."""
# Row groups are fetched from an address in windows of at least so many bytes.
_WINDOW = 4 << 20
_KEPT_FOOTERS = 4096


@dataclass(frozen=True)
class ParquetTable(Table):
    """A Parquet file; of each of its row groups the number of rows and the compressed bytes."""

    path: File
    schema: pa.Schema
    row_groups: tuple[int, ...]
    units: Mapping[str, str]
    group_bytes: tuple[int, ...] = ()
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
                stored = [".".join(self.nested.get(name, (name,))) for name in names]
                groups = range(low, high)
                with open_parquet_file(self.path, groups, stored) as file:
                    for batch in _batches(file, groups, stored, batch_rows):
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


def _batches(
    file: pq.ParquetFile, groups: range, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield batches of one row group after the other, as they are fetched from an address."""
    for group in groups:
        yield from file.iter_batches(batch_rows, [group], columns, use_threads=False)


@contextmanager
def open_parquet_file(
    path: File, groups: range = range(0), columns: Sequence[str] = ()
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for streaming, with checks of the pages' checksums.

    Parameters
    ----------
    path
        The file.
    groups, columns
        The row groups and the columns that will be read, in this order; of a file at an address
        nothing else is fetched.
    """
    checked = {"pre_buffer": False, "page_checksum_verification": True}
    if isinstance(path, Path):
        with pq.ParquetFile(path, **checked) as file:
            yield file
        return
    with path.searched() as reader:
        footer = pq.read_metadata(pa.BufferReader(_footer_in(reader)))
        with pq.ParquetFile(reader, metadata=footer, **checked) as file:
            reader.expect(_windows(footer, groups, columns))
            yield file


def _windows(footer: Any, groups: range, columns: Sequence[str]) -> Iterator[list[Span]]:
    """Yield the bytes of columns by row group; small row groups are fetched together."""
    window: list[Span] = []
    size = 0
    for number in groups:
        group = footer.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            path = column.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in columns):
                window.append(_span(column))
                size += column.total_compressed_size
        if size >= _WINDOW or number == groups[-1]:
            yield window
            window, size = [], 0


def _bytes_of(group: Any) -> int:
    sizes = (group.column(i).total_compressed_size for i in range(group.num_columns))
    return sum(max(size, 0) for size in sizes)


def _span(column: Any) -> Span:
    """Return the bytes of a column in a row group."""
    start = column.data_page_offset
    if column.has_dictionary_page:
        start = min(start, column.dictionary_page_offset)
    return start, start + column.total_compressed_size


def is_remote_parquet(path: File) -> bool:
    """Return whether a file at an address ends as Parquet does: its end is needed anyhow.

    Parameters
    ----------
    path
        The file.
    """
    return isinstance(path, RemoteFile) and path.size >= len(_MAGIC) and _ends_as_parquet(path)


@lru_cache(maxsize=_KEPT_FOOTERS)
def _ends_as_parquet(path: RemoteFile) -> bool:
    with path.searched() as reader:
        reader.seek(-len(_MAGIC), os.SEEK_END)
        return reader.read(len(_MAGIC)) == _MAGIC


def open_parquet(path: File) -> ParquetTable:
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
    if isinstance(path, Path):
        return _open_parquet(path)
    return replace(_open_remote(path), path=path)  # the file may be told of what is read


def _open_parquet(path: File) -> ParquetTable:
    if not is_remote_parquet(path) and is_gzip(path):
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
        sizes = tuple(_bytes_of(footer.row_group(i)) for i in range(footer.num_row_groups))
        return ParquetTable(path, schema, groups, schema_units(schema), sizes)


@lru_cache(maxsize=_KEPT_FOOTERS)
def _open_remote(path: RemoteFile) -> ParquetTable:
    """Read the footer of a file at an address, once: a plan looks at every file several times."""
    return _open_parquet(path)


def ranges(path: File, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
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
        spans = [(size - footer.serialized_size - _TRAILER, size)]
        low, high = size, 0
        for number in range(begin, end):
            group = footer.row_group(number)
            for index in range(group.num_columns):
                begin_of, end_of = _span(group.column(index))
                low, high = min(low, begin_of), max(high, end_of)
        return [(max(low, 0), min(high, size)), *spans] if low < high else spans


def footer_bytes(path: RemoteFile) -> bytes:
    """Return the footer of a file at an address, with its length and the magic word.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    with reading(path, "Parquet"), path.searched() as reader:
        return _footer_in(reader)


def _footer_in(file: RangeReader) -> bytes:
    """Read a footer by its stated length: Arrow asks for 64 KiB, or all of a small file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TRAILER, 0))
    begin = size - _TRAILER - int.from_bytes(file.read(4), "little")
    # Of a damaged file, Arrow tells what is wrong with the end.
    file.seek(begin if begin >= len(_MAGIC) else max(size - _TRAILER, 0))
    return file.read()


def _check_count(path: File, wanted: int, found: int) -> None:
    if wanted != found:
        raise InputError(
            "the file does not hold as many rows as it says",
            wanted=f"{wanted} rows, as its footer says",
            found=f"{found} rows",
            where=path,
            advice="it is damaged: fetch it again",
        )
