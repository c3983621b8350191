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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Column, load_contract
from catalogproc.errors import InputError, JobError, did_you_mean
from catalogproc.readers import coerce
from catalogproc.readers.column_lookup import check_identifier, find_column, shortened
from catalogproc.readers.formats import Table, open_table
from catalogproc.readers.sorted_tables import (
    Ids,
    SortedPart,
    UsedColumn,
    as_sorted,
    distinct_rows,
    read_group,
    sorted_copies,
)
from catalogproc.readers.units import unit_factor

SCANNED = 20_000_000
"""Rows of a table that is not sorted that are read to count stars before a run."""

_SAMPLE, _FEW = 1000, 5
_ROUNDED, _EXACT = 512, 1 << 53  # floats hold all integers up to the latter


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
    parts: tuple[SortedPart, ...]
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
            found = distinct_rows(found.sort_by("source_id"), self._holding(found))
        known = found.column("source_id").combine_chunks()
        aligned = found.take(pc.index_in(source_ids, value_set=known))
        values = dict(zip(aligned.column_names, aligned.columns, strict=True))
        return contract.assemble(values | {"source_id": source_ids}, len(source_ids))

    def contains(self, source_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return which stars the tables have.

        Parameters
        ----------
        source_ids
            Identifiers (N,), int64, in any order.

        Returns
        -------
        (N,) bool
            Rows of a table that is not sorted are read one by one, up to SCANNED of them.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        ids = np.asarray(pc.fill_null(source_ids, -1).to_numpy(zero_copy_only=False))
        wanted = np.unique(ids[ids > 0])
        known = [rows.column("source_id").to_numpy() for rows in self._found(wanted)]
        known += [_scanned(path, wanted) for path in self.unready]
        return np.isin(ids, np.concatenate([np.empty(0, np.int64), *known]))

    def _found(self, wanted: Ids) -> Iterator[pa.Table]:
        """The rows (in no order) of all row groups that hold some of the wanted (sorted) stars."""
        if not len(wanted):
            return
        for part in self.parts:
            begin = np.searchsorted(wanted, part.low)
            end = np.searchsorted(wanted, part.high, side="right")
            for group in np.flatnonzero(begin < end):
                rows = read_group(part, int(group))
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
    parts: list[SortedPart] = []
    unready: list[Path] = []
    for path in paths:
        table = open_table(path)
        columns = _used_columns(table)
        part = as_sorted(table, path, columns)
        if part is not None:
            parts.append(part)
        elif staging is None:
            unready.append(path)
        else:
            parts += sorted_copies(table, columns, Path(staging))
    return AuxiliaryTable(paths, tuple(parts), tuple(unready))


def _scanned(path: Path, wanted: Ids) -> Ids:
    """The wanted stars that are among the first SCANNED rows of a table."""
    table = open_table(path)
    name = _used_columns(table)[0].stored
    found = []
    for part in table.batches([name], batch_rows=1 << 18, stop=SCANNED):
        ids = coerce.identifiers(part.columns.column(0))[0].drop_null().to_numpy()
        found.append(ids[np.isin(ids, wanted)])
    return np.concatenate([np.empty(0, np.int64), *found])


@dataclass(frozen=True)
class AuxiliaryColumns:
    """Which columns of an auxiliary table are used, for the user.

    Attributes
    ----------
    path
        The file.
    used
        The columns of the contract gaia_source that it has.
    ignored
        All other columns.
    unread
        Other tables of the file, which are not read.
    rounded
        Its identifiers look as if they had been stored as floats.
    """

    path: Path
    used: tuple[UsedColumn, ...]
    ignored: tuple[str, ...]
    unread: tuple[str, ...]
    rounded: bool

    def lines(self) -> list[str]:
        """Return the columns as lines of text."""
        used = [
            column.name if column.name == column.stored else f"{column.name} (as {column.stored})"
            for column in self.used[1:]
        ]
        lines = [f"{self.path}: columns used: {', '.join(used)}"]
        if self.ignored:
            lines.append(f"  ignored: {', '.join(map(self._with_suggestion, self.ignored))}")
        assumed = [column.name for column in self.used if column.unit_assumed]
        if assumed:
            contract = load_contract("gaia_source")
            units = ", ".join(f"{name} [{contract[name].unit}]" for name in assumed)
            lines.append(f"  no unit stated, assumed: {units}")
        lines += [f"  not read: {other}" for other in self.unread]
        return lines

    def warnings(self) -> list[str]:
        """Return what is probably a mistake."""
        if not self.rounded:
            return []
        return [
            f"{self.path}: the source_id look rounded, all of them are multiples of "
            f"{_ROUNDED}: were they stored as floats?"
        ]

    def _with_suggestion(self, name: str) -> str:
        used = {column.name for column in self.used}
        columns = [c for c in load_contract("gaia_source").columns if c.name not in used]
        names = [word for c in columns for word in (c.name, *c.also) if len(word) > 1]
        near = did_you_mean(name, names)
        return f"{name} ({near})" if near else name


def auxiliary_columns(path: str | Path) -> AuxiliaryColumns:
    """Look which columns of an auxiliary table are used.

    Parameters
    ----------
    path
        A file in any format.

    Raises
    ------
    InputError
        The file cannot be read, or is not an auxiliary table.
    """
    table = open_table(Path(path))
    used = _used_columns(table)
    stored = {column.stored for column in used}
    ignored = tuple(name for name in table.types if name not in stored)
    return AuxiliaryColumns(Path(path), used, ignored, table.unread, _is_rounded(table, used[0]))


def _is_rounded(table: Table, source_id: UsedColumn) -> bool:
    """Whether the first identifiers are multiples of more than Gaia's own are (128)."""
    part = next(iter(table.batches([source_id.stored], batch_rows=_SAMPLE, stop=_SAMPLE)), None)
    if part is None:
        return False
    ids = coerce.identifiers(part.columns.column(0))[0].drop_null().to_numpy()
    ids = ids[ids > _EXACT]
    return len(ids) >= _FEW and not (ids % _ROUNDED).any()


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
