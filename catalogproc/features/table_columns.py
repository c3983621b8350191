"""Columns of a pyarrow, pandas or astropy table, with their units, as numbers of a wanted unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Column, load_contract
from catalogproc.errors import ContractError
from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import list_array, matrix_lists
from catalogproc.readers.column_lookup import names_in_use
from catalogproc.readers.units import conversion

Float = NDArray[np.float64]

SHOWN = 30
"""Column names in a message at most."""


@dataclass(frozen=True, eq=False)
class TableColumns:
    """The columns of a table of N rows.

    Attributes
    ----------
    names
        Column names.
    units
        Their units as the table states them, "" where it states none.
    rows
        N.
    array
        Returns the column at a position as an Arrow array (N,).
    where
        The table's name in error messages.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    rows: int
    array: Callable[[int], pa.Array]
    where: object = None

    @classmethod
    def of(
        cls, table: Any, units: Mapping[str, str] | None = None, where: object = None
    ) -> TableColumns:
        """Return the columns of a table.

        Parameters
        ----------
        table
            A pyarrow Table or RecordBatch, a pandas DataFrame or an astropy Table.
        units
            Units of columns, by name; they come before those that the table states.
        where
            The table's name in error messages.

        Raises
        ------
        ContractError
            An object of another type.
        """
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if isinstance(table, pa.Table):
            names = table.column_names
            stated = [_stated_unit(field) for field in table.schema]
            array = partial(_arrow_array, table)
        elif hasattr(table, "colnames"):
            names = table.colnames
            stated = [str(getattr(table[name], "unit", None) or "") for name in names]
            array = partial(_astropy_array, table)
        elif hasattr(table, "iloc"):
            names = [str(name) for name in table.columns]
            stated = [""] * len(names)
            array = partial(_pandas_array, table)
        else:
            raise ContractError(
                "not a table", wanted="a table of pyarrow, pandas or astropy",
                found=type(table).__name__, where=where,
            )  # fmt: skip
        rows = table.num_rows if isinstance(table, pa.Table) else len(table)
        known = units or {}
        merged = (known.get(name, unit) for name, unit in zip(names, stated, strict=True))
        return cls(tuple(names), tuple(merged), rows, array, where)

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

    def column_position(self, column: Column) -> int | None:
        """Return the position of a contract's column, under any of its names.

        Parameters
        ----------
        column
            The column. Names of one letter are matched with their case: B is a magnitude.

        Raises
        ------
        ContractError
            Two columns have one of its names.
        """
        if len(column.name) == 1:
            return self.names.index(column.name) if column.name in self.names else None
        found = (self.position(name) for name in names_in_use(column))
        return next((position for position in found if position is not None), None)

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

    def conformed(self, contract: str, positions: Mapping[str, int]) -> pa.Table:
        """Return columns as a contract has them; those that are not named are null.

        Parameters
        ----------
        contract
            Name of the contract.
        positions
            By the contract's name of a column: its position.

        Raises
        ------
        ContractError
            A column of another type, or in a unit that cannot be converted.
        """
        columns = load_contract(contract).columns
        arrays = []
        for column in columns:
            if column.name == "source_id":
                ids = self.identifiers(column.name)
                arrays.append(pa.nulls(self.rows, pa.int64()) if ids is None else ids)
            elif column.name in positions:
                arrays.append(self._conformed(positions[column.name], column))
            elif column.name.endswith("_correlations"):
                continue  # a thousand nulls per star
            else:
                arrays.append(pa.nulls(self.rows, column.arrow_type))
        names = [
            column.name
            for column in columns
            if column.name in positions or not column.name.endswith("_correlations")
        ]
        return pa.table(arrays, names=names)

    def identifiers(self, word: str) -> pa.Array | None:
        """Return a column of integers (N,), null where missing; None where there is no column.

        Parameters
        ----------
        word
            The column's name, in any case.

        Raises
        ------
        ContractError
            The column holds something else.
        """
        position = self.position(word)
        if position is None:
            return None
        array = self._array(position, "64-bit integers")
        kind = coerce.stored_type(array.type)
        if coerce.is_integer(kind):
            return coerce.numbers(array, pa.int64())[0]
        if coerce.is_text(kind) or pa.types.is_null(kind):
            return coerce.identifiers(array)[0]
        try:
            return array.cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractError(
                "identifiers must be integers", wanted="64-bit integers", found=error,
                where=self._place(position),
            ) from None  # fmt: skip

    def _conformed(self, position: int, column: Column) -> pa.Array:
        kind = column.arrow_type
        array = self._array(position, column.type)
        stored = coerce.stored_type(array.type)
        if pa.types.is_string(kind):
            return coerce.words(array)
        factor, _ = self._conversion(position, column.unit, "")
        listed, text = pa.types.is_list(kind), coerce.is_text(stored) or pa.types.is_null(stored)
        if not (text or (coerce.is_list(stored) if listed else coerce.is_number(stored))):
            raise self._other_type(position, column, array, 0)
        made, bad = coerce.lists(array, kind.value_type) if listed else coerce.numbers(array, kind)
        if bad.any():
            raise self._other_type(position, column, array, int(np.flatnonzero(bad)[0]))
        if factor == 1.0:
            return made
        if not listed:
            return pc.multiply(made.cast(pa.float64()), factor).cast(kind)
        counts = pc.fill_null(pc.list_value_length(made), 0).to_numpy(zero_copy_only=False)
        values = pc.multiply(made.flatten().cast(pa.float64()), factor).cast(kind.value_type)
        return list_array(values, counts.astype(np.int64), kind.value_type)

    def _array(self, position: int, wanted: str) -> pa.Array:
        try:
            return self.array(position)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
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


def _stated_unit(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"unit", b""), "utf-8", "replace")


def _arrow_array(table: pa.Table, position: int) -> pa.Array:
    return table.column(position).combine_chunks()


def _astropy_array(table: Any, position: int) -> pa.Array:
    return _of_astropy(table[table.colnames[position]])


def _pandas_array(table: Any, position: int) -> pa.Array:
    made = pa.array(table.iloc[:, position], from_pandas=True)
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _of_astropy(column: Any) -> pa.Array:
    """A column of an astropy Table: masked values are null, arrays are lists."""
    mask = getattr(column, "mask", None)
    values = np.asarray(getattr(column, "unmasked", column))
    mask = np.zeros(values.shape, bool) if mask is None else np.asarray(mask)
    native = values.astype(values.dtype.newbyteorder("="))
    if values.ndim == 2 and values.dtype.kind in "iuf":
        single = values.dtype == np.float32
        matrix = np.where(mask, np.nan, native).astype(np.float32 if single else np.float64)
        return matrix_lists(matrix, pa.float32() if single else pa.float64())
    if values.dtype.kind == "O":
        # Arrays of any length, as VOTables have them, or plain objects.
        elements = [
            None if absent or value is np.ma.masked else _element(value)
            for value, absent in zip(values, mask, strict=True)
        ]
        return pa.array(elements)
    if values.dtype.kind in "US":
        plain = native.astype(str).tolist()
        return pa.array([None if m else v for v, m in zip(plain, mask, strict=True)], pa.string())
    if values.ndim != 1:
        raise pa.ArrowInvalid(f"an array of {values.ndim} dimensions")
    return pa.array(native, mask=mask)


def _element(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "iuf":
        return np.asarray(value)
    return np.where(np.ma.getmaskarray(value), np.nan, np.ma.getdata(value))


def _sample(array: pa.Array, row: int) -> str:
    """A value of a column, for messages."""
    valid = np.flatnonzero(pc.is_valid(array).to_numpy(zero_copy_only=False))
    if row == 0 and len(valid):
        row = int(valid[0])
    return coerce.samples(array, np.array([row]))[0] if len(array) else "nothing"
