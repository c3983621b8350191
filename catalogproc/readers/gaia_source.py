"""gaia_source and 2MASS columns beside the spectra, joined by source_id.

Tables of all formats are read. Column names, other names and crossmatch suffixes are matched
without regard to case (see schemas/gaia_source.toml); units that a file states are converted.
Columns that the contract does not have are ignored, those that a file does not have are null;
masked values, NaN and null are all null.

A table can have as many rows as Gaia has stars and is never held in memory. Of Parquet files
that are sorted by source_id only the row groups are read whose range, as the footer states it,
includes a wanted star. Any other file is rewritten so once. For sorted spectra, as the archive
has them, each row group is then read once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Column, Contract, load_contract
from catalogproc.errors import InputError, JobError
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.readers import coerce
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.column_lookup import check_identifier, find_column, shortened
from catalogproc.readers.formats import ParquetTable, Rows, Table, open_table
from catalogproc.readers.formats.base import reading
from catalogproc.readers.formats.parquet import ranges
from catalogproc.readers.units import unit_factor

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
class _Part:
    """A Parquet file in order: which columns are ours, and the range of each row group."""

    table: ParquetTable = field(compare=False)
    origin: Path  # the file that the user named
    columns: tuple[UsedColumn, ...]
    low: Ids = field(compare=False)
    high: Ids = field(compare=False)

    @property
    def path(self) -> Path:
        return self.table.path


@dataclass(frozen=True)
class AuxiliaryTable:
    """Auxiliary tables, in which stars are looked up. Holds paths and ranges only.

    Attributes
    ----------
    files
        The files as they were named.
    parts
        The Parquet files in which stars are looked up.
    unready
        Files that must be staged before stars can be looked up in them.
    """

    files: tuple[Path, ...]
    parts: tuple[_Part, ...]
    unready: tuple[Path, ...] = ()

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
            A file cannot be read, or a star stands twice in the files.
        JobError
            The table was opened without a folder for staging, and needs one.
        """
        if self.unready:
            raise JobError(
                "an auxiliary table must be sorted before stars are looked up in it",
                wanted="Parquet sorted by source_id, or a folder to write such a copy to",
                found=", ".join(map(str, self.unready)),
            )
        if isinstance(source_ids, pa.ChunkedArray):
            source_ids = source_ids.combine_chunks()
        wanted = np.unique(source_ids.drop_null().to_numpy(zero_copy_only=False))
        contract = load_contract("gaia_source")
        none = contract.arrow_schema().empty_table().select(["source_id"])
        found = pa.concat_tables([none, *self._found(wanted)], promote_options="default")
        if pc.count_distinct(found.column("source_id")).as_py() < found.num_rows:
            found = _distinct(found.sort_by("source_id"), self._holding(found))
        known = found.column("source_id").combine_chunks()
        aligned = found.take(pc.index_in(source_ids, value_set=known))
        values = dict(zip(aligned.column_names, aligned.columns, strict=True))
        return contract.assemble(values | {"source_id": source_ids}, len(source_ids))

    def _found(self, wanted: Ids) -> Iterator[pa.Table]:
        """The rows (in no order) of all row groups that hold some of the wanted (sorted) stars."""
        if not len(wanted):
            return
        for part in self.parts:
            begin = np.searchsorted(wanted, part.low)
            end = np.searchsorted(wanted, part.high, side="right")
            for group in np.flatnonzero(begin < end):
                rows = _group(part, int(group))
                ids = rows.column("source_id").to_numpy()
                asked = wanted[begin[group] : end[group]]
                place = np.searchsorted(ids, asked)
                hit = ids[np.minimum(place, len(ids) - 1)] == asked if len(ids) else place < 0
                if hit.any():
                    yield rows.take(pa.array(place[hit]))

    def _holding(self, found: pa.Table) -> str:
        """The files whose ranges include a star that was found more than once."""
        counts = pc.value_counts(found.column("source_id"))
        more = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_numpy()
        holding = [
            str(part.origin)
            for part in self.parts
            if any(((part.low <= star) & (star <= part.high)).any() for star in more[:100])
        ]
        return " and ".join(dict.fromkeys(holding))


def open_auxiliary(files: Sequence[str | Path], staging: str | Path | None) -> AuxiliaryTable:
    """Open auxiliary tables, and write sorted copies of those that are not sorted.

    Parameters
    ----------
    files
        Files in any format.
    staging
        A folder for sorted copies of the files that need one; a copy that is there
        already is used again. None writes nothing: the files are checked, and stars can
        be looked up if all of them are Parquet in order.

    Raises
    ------
    InputError
        A file cannot be read, lacks source_id or anything else that is of use, or keeps
        its source_id as a float.
    """
    paths = tuple(map(Path, files))
    parts: list[_Part] = []
    unready: list[Path] = []
    for path in paths:
        table = open_table(path)
        columns = _used_columns(table)
        part = _in_order(table, path, columns)
        if part is not None:
            parts.append(part)
        elif staging is None:
            unready.append(path)
        else:
            parts += _staged(table, columns, Path(staging))
    return AuxiliaryTable(paths, tuple(parts), tuple(unready))


def _used_columns(table: Table) -> tuple[UsedColumn, ...]:
    """The columns of the contract that a table has. Raises InputError."""
    contract = load_contract("gaia_source")
    found: list[UsedColumn] = []
    for column in contract.columns:
        stored = find_column(table, column)
        if stored is not None:
            found.append(_used(table, column, stored))
    if not found or found[0].name != "source_id" or len(found) == 1:
        raise InputError(
            "the file is not an auxiliary table",
            wanted="source_id and at least one of "
            + ", ".join(column.name for column in contract.columns[1:]),
            found=shortened(table.types),
            where=table.path,
        )
    check_identifier(table, found[0].stored)
    return tuple(found)


def _used(table: Table, column: Column, stored: str) -> UsedColumn:
    """A column with the conversion of its unit. Raises InputError where there is none."""
    if not column.type.startswith("float"):
        return UsedColumn(column.name, stored)
    where = f"{table.path}, column {stored}"
    factor = unit_factor(table.units.get(stored, ""), column.unit, where)
    assumed = factor is None and bool(column.unit)
    return UsedColumn(column.name, stored, 1.0 if factor is None else factor, assumed)


def _in_order(table: Table, origin: Path, columns: tuple[UsedColumn, ...]) -> _Part | None:
    """The table as a part, if it is Parquet whose row groups have distinct ranges."""
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
    return _Part(table, origin, columns, low, high)


def _staged(table: Table, columns: tuple[UsedColumn, ...], folder: Path) -> list[_Part]:
    """Sorted copies of a file, of a million rows each; those of an earlier run if there are."""
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
        part = _in_order(open_table(path), table.path, ours)
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
    """The rows by source_id, each star once, in one piece. Raises InputError; see _distinct."""
    ids = rows.column("source_id").to_numpy()
    if len(ids) and not (ids[1:] > ids[:-1]).all():
        rows = _distinct(rows.take(pa.array(np.argsort(ids, kind="stable"))), origin)
    return rows.combine_chunks()


def _distinct(rows: pa.Table, where: object) -> pa.Table:
    """Rows sorted by source_id without those that repeat another one in every column.

    Raises InputError where two rows of a star differ.
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


def _group(part: _Part, number: int) -> pa.Table:
    """One row group of a part as our contract has it, sorted by source_id, in one piece."""
    with reading(part.path, "Parquet"):
        status = part.path.stat()
        key = (part.path, status.st_mtime_ns, status.st_size, number)
        return _RECENT.get(key, lambda: _read_group(part, number))


def _read_group(part: _Part, number: int) -> pa.Table:
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


def _read(contract: Contract, name: str, array: Any) -> tuple[pa.Array, coerce.Mask]:
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
