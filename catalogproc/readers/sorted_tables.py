"""Parquet tables sorted by source_id, in which single stars are found by row group.

A table that is not sorted is rewritten so once, in runs of a million rows. The row groups that were
read last are kept in memory, up to a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Contract, load_contract
from catalogproc.errors import InputError
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import Mask
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.formats import ParquetTable, Rows, Table, open_table
from catalogproc.readers.formats.base import reading
from catalogproc.readers.formats.parquet import ranges

Ids = NDArray[np.int64]


# A staged file is sorted this many rows at a time, and written in row groups of so many.
_RUN_ROWS, _GROUP_ROWS = 1 << 20, 1 << 15


# A row group of more rows than this takes too much memory to be read at once.
_LARGEST_GROUP = 1 << 20


# A file is in order if, in the middle of its row groups, no more than so many overlap.
_MOST_OVERLAP = 4


_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class UsedColumn:
    """A column of a file that is one of the contract gaia_source.

    ``factor`` converts its unit to the contract's; ``unit_assumed`` says that the file states
    no unit that is known, so that the contract's was assumed.
    """

    name: str
    stored: str
    factor: float = 1.0
    unit_assumed: bool = False


@dataclass(frozen=True)
class SortedPart:
    """A Parquet file in order: which columns are ours, and the range of each row group."""

    table: ParquetTable = field(compare=False)
    origin: Path  # the file that the user named
    columns: tuple[UsedColumn, ...]
    low: Ids = field(compare=False)
    high: Ids = field(compare=False)

    @property
    def path(self) -> Path:
        return self.table.path


def as_sorted(table: Table, origin: Path, columns: tuple[UsedColumn, ...]) -> SortedPart | None:
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
    target = folder / f"{fingerprint(table.path)[:16]}-{contract.version}"
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
        parts.append(part)
    return parts


def _runs(table: Table, columns: tuple[UsedColumn, ...]) -> Iterator[pa.Table]:
    """All rows of a table as our contract has them, a million at a time, each run sorted."""
    held: list[pa.Table] = []
    count = 0
    stored = [column.stored for column in columns]
    for part in table.batches(stored, batch_rows=_RUN_ROWS >> 3):
        held.append(_conform(part, columns, table.path))
        count += held[-1].num_rows
        if count >= _RUN_ROWS:
            yield _sorted(pa.concat_tables(held), table.path)
            held, count = [], 0
    if count:
        yield _sorted(pa.concat_tables(held), table.path)


def _sorted(rows: pa.Table, origin: Path) -> pa.Table:
    """The rows by source_id, each star once, in one piece. Raises InputError; see distinct_rows."""
    ids = rows.column("source_id").to_numpy()
    if len(ids) and not (ids[1:] > ids[:-1]).all():
        rows = distinct_rows(rows.take(pa.array(np.argsort(ids, kind="stable"))), origin)
    return rows.combine_chunks()


def distinct_rows(rows: pa.Table, where: object) -> pa.Table:
    """Remove rows that repeat another one in every column.

    Parameters
    ----------
    rows
        Rows sorted by source_id.
    where
        The files, for the message.

    Raises
    ------
    InputError
        Two rows of a star differ.
    """
    ids = rows.column("source_id").to_numpy()
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if not len(again):
        return rows
    first, second = (rows.take(pa.array(place)) for place in (again, again + 1))
    same = np.ones(len(again), bool)
    for name in rows.column_names:
        one, other = first.column(name), second.column(name)
        equal = pc.or_(
            pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other))
        )
        same &= equal.to_numpy()
    if not same.all():
        differing = np.unique(ids[again[~same]])
        raise _twice(int(differing[0]), len(differing), where)
    kept = np.ones(len(ids), bool)
    kept[again + 1] = False
    return rows.filter(pa.array(kept))


def _twice(star: int, stars: int, where: object) -> InputError:
    return InputError(
        f"{stars} star{'s' if stars > 1 else ''} with different rows in the gaia_source table",
        wanted="each source_id once, or rows that agree in every column",
        found=f"source_id {star} more than once",
        where=where,
        advice="keep one row per star; columns of several tables must be joined into one",
    )


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
    rows = part.table.batches(
        [column.stored for column in part.columns],
        batch_rows=groups[number], first=first, stop=first + groups[number],
    )  # fmt: skip
    found = pa.concat_tables([_conform(piece, part.columns, part.path) for piece in rows])
    return _sorted(found, part.origin)


def _conform(part: Rows, columns: tuple[UsedColumn, ...], path: Path) -> pa.Table:
    """Rows that have a source_id, in the contract's types and units."""
    contract = load_contract("gaia_source")
    if part.fault is not None and part.fault.null_count < len(part.fault):
        row = int(np.flatnonzero(np.asarray(pc.is_valid(part.fault)))[0])
        raise _unreadable(path, "", part.first + row, "a whole row", part.fault[row].as_py())
    arrays = []
    for column, held in zip(columns, part.columns.columns, strict=True):
        name = column.name
        try:
            array, bad = _read(contract, name, held)
        except pa.ArrowInvalid as error:
            raise _unreadable(path, name, part.first, "text in UTF-8", error) from error
        if bad.any():
            place = np.flatnonzero(bad)[:1]
            found = coerce.samples(held, place)[0]
            wanted = contract[name].type
            raise _unreadable(path, name, part.first + int(place[0]), wanted, found)
        if column.factor != 1.0:
            array = pc.multiply(array, pa.scalar(column.factor, array.type))
        arrays.append(array)
    fields = [contract[column.name].arrow_field() for column in columns]
    table = pa.table(arrays, schema=pa.schema(fields))
    nameless = table.column("source_id").null_count
    return table.filter(pc.is_valid(table.column("source_id"))) if nameless else table


def _read(contract: Contract, name: str, array: Any) -> tuple[pa.Array, Mask]:
    kind = contract[name].arrow_type
    if name == "source_id":
        return coerce.identifiers(array)
    if pa.types.is_string(kind):
        return coerce.words(array), np.zeros(len(array), bool)
    return coerce.numbers(array, kind)


def _unreadable(path: Path, column: str, row: int, wanted: str, found: object) -> InputError:
    return InputError(
        "a value of the auxiliary table cannot be read",
        wanted=wanted,
        found=found,
        where=f"{path}, row {row}" + (f", column {column}" if column else ""),
    )
