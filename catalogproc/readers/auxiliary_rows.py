"""Columns of the contract gaia_source in a file: under which names, in which units, and their rows.

Auxiliary tables and the spectra's own files are read by the same rules. In an auxiliary table a
value that cannot be read is an error; in a spectra's own file it is missing, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.contract import Column, load_contract
from catalogproc.errors import InputError
from catalogproc.io.remote_file import File
from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import Mask
from catalogproc.readers.column_lookup import (
    check_identifier,
    find_column,
    meant,
    names_in_use,
    shortened,
)
from catalogproc.readers.formats import Rows, Table
from catalogproc.readers.units import unit_factor
from catalogproc.release import Release


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

    @property
    def words(self) -> str:
        """The name, and the name in the file where that is another one."""
        return self.name if self.name == self.stored else f"{self.name} (as {self.stored})"


def used_columns(table: Table, release: Release | None = None) -> tuple[UsedColumn, ...]:
    """Return the columns of the contract that an auxiliary table has, source_id first.

    Parameters
    ----------
    table
        The table of a file.
    release
        What columns are called comes from here first.

    Raises
    ------
    InputError
        It lacks source_id or has nothing else of use, or a unit cannot be converted.
    """
    found = _found_columns(table, load_contract("gaia_source").columns, release)
    if not found or found[0].name != "source_id" or len(found) == 1:
        first, *others = load_contract("gaia_source").columns
        lacking = others if found and found[0].name == "source_id" else [first]
        names = [name for column in lacking for name in (column.name, *column.also)]
        raise InputError(
            "the file is not an auxiliary table",
            wanted="source_id and at least one column of photometry, astrometry or 2MASS",
            found=shortened(table.types),
            where=table.path,
            advice=meant(table.types, names)
            or "`catalogproc describe gaia_source` lists the columns",
        )
    check_identifier(table, found[0].stored)
    return found


def own_columns(
    table: Table, release: Release | None = None, taken: Sequence[str] = ()
) -> tuple[UsedColumn, ...]:
    """Return the columns of the contract, besides source_id, that a file of spectra has.

    Parameters
    ----------
    table
        The table of a file.
    release
        What columns are called comes from here first.
    taken
        Columns of the file that are part of the spectra.

    Raises
    ------
    InputError
        A unit cannot be converted.
    """
    columns = load_contract("gaia_source").columns[1:]
    called = {_called(column, release) for column in columns}
    if (_names() | called).isdisjoint(name.lower() for name in table.types):
        return ()  # nearly every file: the names are not looked up one by one
    found = _found_columns(table, columns, release)
    return tuple(column for column in found if column.stored not in taken)


@cache
def _names() -> frozenset[str]:
    columns = load_contract("gaia_source").columns[1:]
    return frozenset(name for column in columns for name in names_in_use(column))


def _called(column: Column, release: Release | None) -> str | None:
    """What a release calls a column, in small letters; None where it does not say."""
    called = None if release is None else release.column(column.name)
    return None if called is None else called.lower()


def _found_columns(
    table: Table, columns: Sequence[Column], release: Release | None
) -> tuple[UsedColumn, ...]:
    pairs = ((column, find_column(table, column, _called(column, release))) for column in columns)
    return tuple(_used(table, column, stored) for column, stored in pairs if stored is not None)


def _used(table: Table, column: Column, stored: str) -> UsedColumn:
    """A column with the conversion of its unit. Raises InputError where there is none."""
    if not column.type.startswith("float"):
        return UsedColumn(column.name, stored)
    where = f"{table.path}, column {stored}"
    factor = unit_factor(table.units.get(stored, ""), column.unit, where)
    assumed = factor is None and bool(column.unit)
    return UsedColumn(column.name, stored, 1.0 if factor is None else factor, assumed)


def read_column(column: UsedColumn, held: pa.Array) -> tuple[pa.Array, Mask]:
    """Return a column in the contract's type and unit, and which values (N,) cannot be read.

    Parameters
    ----------
    column
        Which column of the contract it is.
    held
        Its values as the file has them (N,).
    """
    kind = load_contract("gaia_source")[column.name].arrow_type
    if column.name == "source_id":
        return coerce.identifiers(held)
    if pa.types.is_string(kind):
        return coerce.words(held), np.zeros(len(held), bool)
    array, bad = coerce.numbers(held, kind)
    if pa.types.is_floating(kind):  # NaN is missing: another table may have the value
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if column.factor != 1.0:
        array = pc.multiply(array, pa.scalar(column.factor, array.type))
    return array, bad


def conform(part: Rows, columns: Sequence[UsedColumn], path: File) -> pa.Table:
    """Return the rows of an auxiliary table that have a source_id, in types and units of ours.

    Parameters
    ----------
    part
        Rows as the file has them: these columns in this order.
    columns
        Which columns of the contract they are.
    path
        The file, for messages.

    Raises
    ------
    InputError
        A value cannot be read; file, row, column and value are named.
    """
    contract = load_contract("gaia_source")
    if part.fault is not None and part.fault.null_count < len(part.fault):
        row = int(np.flatnonzero(np.asarray(pc.is_valid(part.fault)))[0])
        raise _unreadable(path, "", part.first + row, "a whole row", part.fault[row].as_py())
    arrays = []
    for column, held in zip(columns, part.columns.columns, strict=True):
        try:
            array, bad = read_column(column, held)
        except pa.ArrowInvalid as error:
            raise _unreadable(path, column.name, part.first, "text in UTF-8", error) from error
        if bad.any():
            place = np.flatnonzero(bad)[:1]
            found = coerce.samples(held, place)[0]
            number = contract[column.name].type.startswith("float")
            wanted = "a number" if number else "an integer"
            raise _unreadable(path, column.name, part.first + int(place[0]), wanted, found)
        arrays.append(array)
    fields = [contract[column.name].arrow_field() for column in columns]
    table = pa.table(arrays, schema=pa.schema(fields))
    nameless = table.column("source_id").null_count
    return table.filter(pc.is_valid(table.column("source_id"))) if nameless else table


def _unreadable(path: File, column: str, row: int, wanted: str, found: object) -> InputError:
    return InputError(
        "a value of the auxiliary table cannot be read",
        wanted=wanted,
        found=found,
        where=f"{path}, row {row}" + (f", column {column}" if column else ""),
        advice="correct it, or leave it empty where it is missing" if column else None,
    )
