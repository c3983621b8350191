"""Columns of a table of Python, found by name as in files, as numbers of a wanted unit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Column, load_contract
from catalogproc.errors import ContractError, InputError
from catalogproc.features.table_arrays import TableArrays
from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import matrix_lists, scaled
from catalogproc.readers.units import conversion
from catalogproc.readers.xp_columns import array_columns

Float = NDArray[np.float64]

SHOWN = 30
"""Column names in a message at most."""


@dataclass(frozen=True, eq=False)
class TableColumns:
    """The columns of a table of N rows, found by the same rules as those of a file.

    Attributes
    ----------
    arrays
        The columns as Arrow arrays.
    units
        Their units, "" where none is known.
    where
        The table's name in error messages.
    """

    arrays: TableArrays
    units: tuple[str, ...]
    where: object = None

    @classmethod
    def of(
        cls, table: Any, units: Mapping[str, str] | None = None, where: object = None
    ) -> TableColumns:
        """Return the columns of a table.

        Parameters
        ----------
        table
            A table of pyarrow, pandas or astropy, or one with the Arrow C stream interface.
        units
            Units of columns, by name; they come before those that the table states.
        where
            The table's name in error messages.

        Raises
        ------
        ContractError
            An object of another type.
        """
        arrays = TableArrays.of(table, where)
        known = units or {}
        stated = zip(arrays.names, arrays.units, strict=True)
        return cls(arrays, tuple(known.get(name, unit) for name, unit in stated), where)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, without those of masks."""
        return self.arrays.names

    @property
    def rows(self) -> int:
        """N."""
        return self.arrays.rows

    def position(self, word: str, what: str = "") -> int | None:
        """Return the position of the column of a name in any case, None where there is none.

        Parameters
        ----------
        word
            The name as it is declared.
        what
            What two columns of the name are, in the error message.

        Raises
        ------
        ContractError
            Two columns have the name.
        """
        found = [i for i, name in enumerate(self.names) if word in (name, name.lower())]
        if len(found) > 1:
            raise self.twice(what or f"the same as {word}", found)
        return found[0] if found else None

    def holders(self, column: Column, reserved: Collection[str] = ()) -> tuple[int, ...]:
        """Return the positions of the columns that hold a contract's column.

        Parameters
        ----------
        column
            The column, which is found under any of its names, as in a file.
        reserved
            Names, in small letters, that mean something else here.

        Returns
        -------
        tuple of int
            One position, or one for each element of an array; () for none.

        Raises
        ------
        ContractError
            Two columns have one of its names; an element of an array is missing.
        """
        names = dict.fromkeys(name for name in self.names if name.lower() not in reserved)
        try:
            found = array_columns(_Names(names, self.where or "the table"), column)
        except InputError as error:
            raise ContractError.of(error) from None
        return tuple(self._only(name) for name in found)

    def _only(self, name: str) -> int:
        same = [position for position, found in enumerate(self.names) if found == name]
        if len(same) > 1:
            raise self.twice(f"the same as {name}", same)
        return same[0]

    def twice(self, what: str, positions: list[int]) -> ContractError:
        """Return the error for several columns of one quantity.

        Parameters
        ----------
        what
            The quantity.
        positions
            Positions of the columns.
        """
        found = " and ".join(self.names[i] for i in positions)
        return ContractError(f"two columns are {what}", wanted="one", found=found, where=self.where)

    def summary(self) -> str:
        """Return the first column names, for messages."""
        return shown(self.names) or "no columns"

    def numbers(
        self, position: int, unit: str, logarithm: str = "", *, difference: bool = False
    ) -> Float:
        """Return a column as numbers (N,) in a unit, NaN where missing.

        Parameters
        ----------
        position
            Of the column.
        unit
            The wanted unit: a unit of Astropy, "dex", or "" for a pure number.
        logarithm
            For a logarithm of a quantity: its unit, such as "dex(yr)".
        difference
            The numbers are differences, such as errors: no zero-point is added.

        Raises
        ------
        ContractError
            The column does not hold numbers, or its unit cannot be converted.
        """
        factor, offset = self._conversion(position, unit, logarithm)
        array = self._array(position, "numbers, or nothing where a value is not known")
        kind = coerce.stored_type(array.type)
        if pa.types.is_boolean(kind) or not (coerce.is_number(kind) or coerce.is_text(kind)):
            raise self._not_numbers(position, array, 0)
        numbers, bad = coerce.numbers(array, pa.float64())
        if bad.any():
            raise self._not_numbers(position, array, int(np.flatnonzero(bad)[0]))
        plain = np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
        return plain * factor + (0.0 if difference else offset)

    def conformed(self, contract: str, positions: Mapping[str, tuple[int, ...]]) -> pa.Table:
        """Return columns as a contract has them; those that are not named are null.

        Parameters
        ----------
        contract
            Name of the contract.
        positions
            By the contract's name of a column: the positions of the columns that hold it.

        Raises
        ------
        ContractError
            A column of another type, or in a unit that cannot be converted.
        """
        columns = load_contract(contract).columns
        arrays = []
        for column in columns:
            if column.name == "source_id":
                ids = self.identifiers()
                arrays.append(pa.nulls(self.rows, pa.int64()) if ids is None else ids)
            elif positions.get(column.name):
                arrays.append(self._conformed(positions[column.name], column))
            elif column.name.endswith("_correlations"):
                continue  # a thousand nulls per star
            else:
                arrays.append(pa.nulls(self.rows, column.arrow_type))
        names = [
            column.name
            for column in columns
            if positions.get(column.name) or not column.name.endswith("_correlations")
        ]
        return pa.table(arrays, names=names)

    def identifiers(self) -> pa.Array | None:
        """Return the source_id (N,), null where missing; None where there is no such column.

        Raises
        ------
        ContractError
            The column holds something else than integers or text.
        """
        found = self.holders(load_contract("xp_continuous")["source_id"])
        if not found:
            return None
        array = self._array(found[0], "64-bit integers")
        kind = coerce.stored_type(array.type)
        empty = array.null_count == len(array)
        if not (coerce.is_integer(kind) or coerce.is_text(kind) or empty):
            raise ContractError(
                "the source_id is a float: its last digits are lost"
                if pa.types.is_floating(kind)
                else "identifiers must be integers",
                wanted="64-bit integers, or text", found=array.type, where=self._place(found[0]),
                advice="read it as an integer; pandas makes a float of it where any is missing, "
                "unless its type is Int64",
            )  # fmt: skip
        return pa.nulls(self.rows, pa.int64()) if empty else coerce.identifiers(array)[0]

    def _conformed(self, positions: tuple[int, ...], column: Column) -> pa.Array:
        if len(positions) > 1:
            return self._gathered(positions, column)
        position, kind = positions[0], column.arrow_type
        array = self._array(position, column.type)
        stored = coerce.stored_type(array.type)
        if pa.types.is_string(kind):
            return coerce.words(array)
        factor, _ = self._conversion(position, column.unit, "")
        listed, text = pa.types.is_list(kind), coerce.is_text(stored) or pa.types.is_null(stored)
        if not (text or (coerce.is_list(stored) if listed else coerce.is_number(stored))):
            raise self._other_type(position, column, array, 0)
        if column.name.endswith("_correlations"):
            made, bad = coerce.triangles(array, kind.value_type)
        elif listed:
            made, bad = coerce.lists(array, kind.value_type)
        else:
            made, bad = coerce.numbers(array, kind)
        if bad.any():
            raise self._other_type(position, column, array, int(np.flatnonzero(bad)[0]))
        if listed or factor == 1.0:
            return scaled(made, factor) if listed else made
        return pc.multiply(made.cast(pa.float64()), factor).cast(kind)

    def _gathered(self, positions: tuple[int, ...], column: Column) -> pa.Array:
        """An array of which every element has a column of its own."""
        elements = [self.numbers(position, column.unit) for position in positions]
        kind = column.arrow_type.value_type
        return matrix_lists(np.stack(elements, axis=1).astype(kind.to_pandas_dtype()), kind)

    def _array(self, position: int, wanted: str) -> pa.Array:
        try:
            return self.arrays.array(position)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise ContractError(
                "a column cannot be read", wanted=wanted, found=error, where=self._place(position)
            ) from None

    def _conversion(self, position: int, unit: str, logarithm: str) -> tuple[float, float]:
        """Factor and zero-point from the column's unit to another one. Raises ContractError."""
        stated = self.units[position]
        found = conversion(stated, unit, logarithm)
        if found is None:
            raise ContractError(
                "the unit of a column cannot be converted",
                wanted=logarithm or unit or "a pure number", found=stated,
                where=self._place(position),
                advice="convert the column, or remove its unit if the numbers are right",
            )  # fmt: skip
        return found

    def _not_numbers(self, position: int, array: pa.Array, row: int) -> ContractError:
        return ContractError(
            "a column of that name must hold numbers",
            wanted="numbers, or nothing where a value is not known",
            found=f"{array.type}, such as {_sample(array, row)}",
            where=self._place(position),
        )

    def _other_type(
        self, position: int, column: Column, array: pa.Array, row: int
    ) -> ContractError:
        return ContractError(
            "a column of another type", wanted=column.type,
            found=f"{array.type}, such as {_sample(array, row)}", where=self._place(position),
        )  # fmt: skip

    def _place(self, position: int) -> str:
        column = f"column {self.names[position]}"
        return column if self.where is None else f"{self.where}, {column}"


def shown(names: tuple[str, ...] | list[str]) -> str:
    """Return names as a list in a message, the first SHOWN of them.

    Parameters
    ----------
    names
        Column names or the like.
    """
    text = ", ".join(names[:SHOWN])
    return f"{text} and {len(names) - SHOWN} more" if len(names) > SHOWN else text


@dataclass(frozen=True)
class _Names:
    """Column names, as the functions of column_lookup want them."""

    types: Collection[str]
    path: object


def _sample(array: pa.Array, row: int) -> str:
    """A value of a column, for messages."""
    valid = np.flatnonzero(pc.is_valid(array).to_numpy(zero_copy_only=False))
    if row == 0 and len(valid):
        row = int(valid[0])
    return coerce.samples(array, np.array([row]))[0] if len(array) else "nothing"
