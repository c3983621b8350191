"""Join the rows of several auxiliary tables, star by star and column by column, with an account.

A value of a star is taken from the first table that has it. A later table that has another value
of the same column is counted, and so is each row that repeats another one of its file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import InputError, plural
from catalogproc.io.remote_file import File, RemoteFile

Mask = NDArray[np.bool_]
Account = Mapping[str, Mapping[str, int]]
"""By table: ``STARS`` and ``REPEATED``; by column, the values taken from it; by ``CONTRADICTS`` and
``UNREADABLE`` with a column, the values that differ from the one taken, and that cannot be read."""

COPIES = "copies"
"""Column with the number of rows that a row stands for."""

OWN = "the spectra's own columns"
STARS, REPEATED = "stars", "repeated rows"
CONTRADICTS, UNREADABLE = "contradicts: ", "unreadable: "

FAULT = "own_fault"
"""Column with the names of a star's own columns that cannot be read, ``;`` between them."""

_ROUNDING = 2e-7  # relative; a float32 and a float64 of the same number are the same value


@dataclass(frozen=True)
class Piece:
    """Rows of one file, in the contract's columns and COPIES, and the name of its table."""

    rows: pa.Table
    file: str
    table: str


@dataclass(frozen=True)
class Joined:
    """Columns of N stars.

    Attributes
    ----------
    rows
        N rows of the contract gaia_source.
    found
        The star is in an auxiliary table (N,).
    account
        What was taken from each table.
    """

    rows: pa.Table
    found: Mask
    account: Account


def join(source_ids: pa.Array, pieces: Sequence[Piece], own: pa.Table | None = None) -> Joined:
    """Join rows to stars.

    Parameters
    ----------
    source_ids
        Identifiers (N,), int64, in any order.
    pieces
        Rows of the auxiliary tables, in the order in which these count.
    own
        Columns of the contract that stand beside the spectra, and FAULT: N rows, the stars of
        ``source_ids``. They count after the auxiliary tables.

    Raises
    ------
    InputError
        Rows of one table and star differ.
    """
    columns = _Columns(len(source_ids))
    for layer in _layers(pieces):
        columns.add_layer(layer, source_ids)
    if own is not None:
        columns.add_own(own)
    values = columns.values | {"source_id": source_ids}
    rows = load_contract("gaia_source").assemble(values, len(source_ids))
    return Joined(rows, columns.found, columns.full_account())


@dataclass(frozen=True)
class _Layer:
    """Rows of which each star has one at most, and the table of each."""

    rows: pa.Table
    tables: NDArray[np.object_]


class _Columns:
    """Columns of N stars, filled layer by layer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: dict[str, pa.Array] = {}
        self.found = np.zeros(size, dtype=bool)
        self.account: dict[str, Counter[str]] = {}
        self._in_table: dict[str, Mask] = {}

    def full_account(self) -> Account:
        """Return the account with the number of stars of each table."""
        for table, stars in self._in_table.items():
            self._count(table, STARS, int(stars.sum()))
        return {table: dict(counts) for table, counts in self.account.items()}

    def add_layer(self, layer: _Layer, source_ids: pa.Array) -> None:
        known = layer.rows.column("source_id").combine_chunks()
        index = pc.index_in(source_ids, value_set=known)
        place = pc.fill_null(index, -1).to_numpy(zero_copy_only=False)
        hit = place >= 0
        self.found |= hit
        copies = layer.rows.column(COPIES).to_numpy()
        by_table = {}
        for table in dict.fromkeys(layer.tables):
            here = hit.copy()
            here[hit] = layer.tables[place[hit]] == table
            by_table[table] = here
            self._in_table[table] = self._in_table.get(table, False) | here
            self._count(table, REPEATED, int((copies[np.unique(place[here])] - 1).sum()))
        self._add(layer.rows.take(index).drop_columns(["source_id", COPIES]), by_table)

    def add_own(self, own: pa.Table) -> None:
        for fault in pc.drop_null(own.column(FAULT)).to_pylist():
            for name in fault.split(";"):
                self._count(OWN, UNREADABLE + name, 1)
        self._add(own.drop_columns([FAULT]), {OWN: np.ones(self.size, dtype=bool)})

    def _add(self, aligned: pa.Table, by_table: Mapping[str, Mask]) -> None:
        """Take the values (N,) that no earlier layer has, and count them by table."""
        for name, column in zip(aligned.column_names, aligned.columns, strict=True):
            new = column.combine_chunks()
            taken = valid = _numpy(pc.is_valid(new))
            if not valid.any():
                continue
            differs = None
            if name not in self.values:
                self.values[name] = new
            else:
                old = self.values[name]
                known = _numpy(pc.is_valid(old))
                taken, both = valid & ~known, valid & known
                if both.any():
                    differs = both.copy()
                    differs[both] = ~_agree(old.filter(pa.array(both)), new.filter(pa.array(both)))
                self.values[name] = pc.coalesce(old, new)
            for table, rows in by_table.items():
                self._count(table, name, int((taken & rows).sum()))
                if differs is not None:
                    self._count(table, CONTRADICTS + name, int((differs & rows).sum()))

    def _count(self, table: str, what: str, number: int) -> None:
        if number:
            self.account.setdefault(table, Counter())[what] += number


def _layers(pieces: Sequence[Piece]) -> Iterator[_Layer]:
    """Yield the first row of each star, then the second one, and so on, in the tables' order."""
    if not pieces:
        return
    rows = pa.concat_tables([piece.rows for piece in pieces], promote_options="default")
    sizes = [piece.rows.num_rows for piece in pieces]
    tables = np.repeat(np.array([piece.table for piece in pieces], dtype=object), sizes)
    ids = rows.column("source_id").to_numpy()
    if len(np.unique(ids)) == len(ids):
        yield _Layer(rows, tables)
        return
    numbers = {table: n for n, table in enumerate(dict.fromkeys(p.table for p in pieces))}
    number = np.repeat([numbers[piece.table] for piece in pieces], sizes)
    files = np.repeat(np.array([piece.file for piece in pieces], dtype=object), sizes)
    order = np.lexsort((number, ids))
    rows, tables, number, ids = rows.take(pa.array(order)), tables[order], number[order], ids[order]
    first = np.append(True, (ids[1:] != ids[:-1]) | (number[1:] != number[:-1]))
    if not first.all():
        rows = distinct_rows(rows, first, files[order])
        tables, ids = tables[first], ids[first]
    number = np.arange(len(ids))
    begin = np.maximum.accumulate(np.where(np.append(True, ids[1:] != ids[:-1]), number, 0))
    for rank in range(int((number - begin).max()) + 1):
        some = number - begin == rank
        yield _Layer(rows.filter(pa.array(some)), tables[some])


def distinct_rows(rows: pa.Table, first: Mask, files: NDArray[np.object_] | File) -> pa.Table:
    """Merge rows that repeat the one before in every column, and add up their COPIES.

    Parameters
    ----------
    rows
        N rows, those of one star and table together.
    first
        The row is the first of its star and table (N,).
    files
        The file of each row (N,), or of all, for the message.

    Raises
    ------
    InputError
        Two rows of a star and table differ.
    """
    again = np.flatnonzero(~first)
    if not len(again):
        return rows
    one, other = (rows.take(pa.array(place)) for place in (again - 1, again))
    same = np.ones(len(again), bool)
    for name in rows.column_names:
        if name != COPIES:
            same &= _identical(one.column(name), other.column(name))
    if not same.all():
        differing = np.unique(rows.column("source_id").to_numpy()[again[~same]])
        wrong = again[~same]
        if isinstance(files, Path | RemoteFile):
            files = np.full(len(first), str(files), dtype=object)
        where = " and ".join(sorted({*files[wrong], *files[wrong - 1]}))
        raise _twice(int(differing[0]), len(differing), where)
    copies = np.add.reduceat(rows.column(COPIES).to_numpy(), np.flatnonzero(first))
    kept = rows.filter(pa.array(first))
    return kept.set_column(kept.column_names.index(COPIES), COPIES, pa.array(copies, pa.int64()))


def _identical(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    equal = pc.fill_null(pc.equal(one, other), False)
    return _numpy(pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(other))))


def _agree(one: pa.Array, other: pa.Array) -> Mask:
    """Return which values (N,), none of them null, are the same."""
    if pa.types.is_floating(one.type):
        return np.asarray(np.isclose(one.to_numpy(), other.to_numpy(), rtol=_ROUNDING, atol=0.0))
    return _numpy(pc.equal(one, other))


def _numpy(mask: pa.Array | pa.ChunkedArray) -> Mask:
    array = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def _twice(star: int, stars: int, where: object) -> InputError:
    return InputError(
        f"{plural(stars, 'star')} with different rows in the gaia_source table",
        wanted="each source_id once, or rows that agree in every column",
        found=f"source_id {star} more than once",
        where=where,
        advice="keep one row per star; columns of other tables are joined to them",
    )
