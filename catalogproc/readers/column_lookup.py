"""Find the columns of a contract in a file: by name, whatever the case, and by type."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from catalogproc.contract import Column, load_contract
from catalogproc.errors import InputError, did_you_mean
from catalogproc.readers import coerce
from catalogproc.readers.formats import Table

SUFFIXES = ("_gaia", "_xp", "_dr3", "_gaiadr3", "_gaia_source")
"""What a crossmatch adds to a name that two tables have; the first one found is read."""


class Named(Protocol):
    """A table with named columns: of a file, or of Python."""

    @property
    def types(self) -> Collection[str]:
        """The names of its columns."""

    @property
    def path(self) -> object:
        """The file, or another name of the table in messages."""


_NUMBER = r"(?:(\d{1,4})|[\[(](\d{1,4})[\])])"


def named(table: Named, name: str) -> str | None:
    """Return the table's column of a name, whatever its case; None where there is none.

    Parameters
    ----------
    table
        The table.
    name
        The name, in small letters.

    Raises
    ------
    InputError
        Two columns differ in case alone, and neither is ``name`` exactly.
    """
    if name in table.types:
        return name
    same = [found for found in table.types if found.lower() == name]
    if len(same) > 1:
        raise InputError(
            "two columns differ in case alone",
            wanted=name,
            found=" and ".join(same),
            where=table.path,
        )
    return same[0] if same else None


def find_column(table: Named, column: Column, called: str | None = None) -> str | None:
    """Return the table's column that is one of a contract, under any of its names.

    Parameters
    ----------
    table
        The table of a file.
    column
        The column of the contract. Its own name comes first, then its other names
        (``also``), then all of these with a suffix of a crossmatch. Case does not matter, but
        for names of one letter: B and L are magnitudes and luminosities.
    called
        What the release calls it: this name comes before all others.

    Returns
    -------
    str or None
        None where the table has no such column.

    Raises
    ------
    InputError
        Two columns differ in case alone.
    """
    names = names_in_use(column) if called is None else (called, *names_in_use(column))
    found = (_held(table, name) for name in names)
    return next((name for name in found if name is not None), None)


def _held(table: Named, name: str) -> str | None:
    """The table's column of a name, whatever its case unless it is of one letter."""
    if len(name) == 1:
        return name if name in table.types else None
    return named(table, name.lower())


def names_in_use(column: Column) -> Iterator[str]:
    """Yield the names under which a column is found, the first one preferred.

    A name of one letter has no other forms.

    Parameters
    ----------
    column
        The column of a contract.
    """
    for suffix in ("", *(SUFFIXES if len(column.name) > 1 else ())):
        for name in (column.name, *column.also):
            yield name + suffix


def numbered(table: Named, name: str, pattern: str) -> tuple[str, ...]:
    """Return the columns that hold one element each of an array, in order; () for none.

    Parameters
    ----------
    table
        The table of a file.
    name
        The array, for messages.
    pattern
        A regular expression of the text before the number, in small letters. The numbers start
        at 0 or 1.

    Raises
    ------
    InputError
        An element is missing, or has two columns.
    """
    whole = re.compile(pattern + _NUMBER)
    found: dict[int, str] = {}
    for column in table.types:
        matched = whole.fullmatch(column.lower())
        if matched is None:
            continue
        number = int(matched[1] or matched[2])
        if number in found:
            raise InputError(
                f"two columns for one element of {name}",
                wanted="one",
                found=f"{found[number]} and {column}",
                where=table.path,
            )
        found[number] = column
    order = sorted(found)
    first = min(order, default=0)
    expected = range(min(first, 1), min(first, 1) + len(order))
    for number, place in zip(order, expected, strict=True):
        if number != place:
            raise InputError(
                f"{name} has one column per element, and one is missing",
                wanted=f"element {place}",
                found=shortened(found[number] for number in order),
                where=table.path,
            )
    return tuple(found[number] for number in order)


def source_id_column(table: Table) -> str:
    """Return the column of a table that is its source_id.

    Parameters
    ----------
    table
        The table of a file.

    Raises
    ------
    InputError
        The table has none, or it is a float.
    """
    held = find_column(table, load_contract("xp_continuous")["source_id"])
    if held is None:
        raise InputError(
            "a column is missing",
            wanted="source_id",
            found=shortened(table.types),
            where=table.path,
        )
    check_identifier(table, held)
    return held


def check_identifier(table: Table, name: str) -> None:
    """Check that a column's type can hold a source_id; a float loses its last digits.

    Parameters
    ----------
    table
        The table of a file.
    name
        The column.

    Raises
    ------
    InputError
        The type is a float, or neither an integer nor text.
    """
    kind = table.types[name]
    if pa.types.is_floating(coerce.stored_type(kind)):
        raise InputError(
            "the source_id is a float: its last digits are lost",
            wanted="an integer of 64 bits, or text",
            found=kind,
            where=f"{table.path}, column {name}",
            advice="write the file again from one in which source_id is an integer; "
            "pandas makes a float of it where any is missing",
        )
    good = coerce.is_integer(kind) or coerce.is_text(kind) or pa.types.is_null(kind)
    check_type(table, name, "an integer", good)


def check_type(table: Table, name: str, wanted: str, good: bool) -> None:
    """Raise InputError unless a column has a type that can be read.

    Parameters
    ----------
    table, name
        The table of a file and the column.
    wanted
        What can be read, in words.
    good
        Whether the type can be read.
    """
    if not good:
        raise InputError(
            "a column has a type that cannot be read",
            wanted=wanted,
            found=table.types[name],
            where=f"{table.path}, column {name}",
        )


def meant(found: Iterable[str], wanted: Iterable[str]) -> str | None:
    """Return advice on columns whose names are close to wanted ones; None where none is.

    Parameters
    ----------
    found
        Columns that a table has and of which no use is known.
    wanted
        Names of columns that it lacks.
    """
    names = [name for name in wanted if len(name) > 1]
    near = ((name, did_you_mean(name, names)) for name in found)
    return "; ".join([f"{name}: {advice}" for name, advice in near if advice][:3]) or None


def shortened(names: Iterable[str]) -> str:
    """Return the first thirty names of columns, for a message.

    Parameters
    ----------
    names
        All names.
    """
    known = list(names)
    more = f" and {len(known) - 30} more" if len(known) > 30 else ""
    return (", ".join(known[:30]) or "no columns") + more
