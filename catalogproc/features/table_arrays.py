"""Columns of the tables of Python (pyarrow, pandas, astropy, polars, …) as Arrow arrays.

The rules are those of files: a column ``NAME.mask`` masks ``NAME``, fields of structs are columns,
and units are read from wherever a table states them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.errors import ContractError
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.readers.formats.masks import mask_columns, masked
from catalogproc.readers.formats.nested import nested_fields
from catalogproc.readers.formats.stated_units import schema_units

TABLES = "a table of pyarrow, pandas, astropy or polars, or any with the Arrow C stream interface"


@dataclass(frozen=True, eq=False)
class TableArrays:
    """The columns of a table of N rows; each is converted when it is asked for.

    Attributes
    ----------
    names
        Column names, without those of masks.
    units
        Their units as the table states them, "" where it states none.
    masks
        The column that masks each masked column.
    rows
        N.
    array
        Returns the column at a position as an Arrow array (N,).
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    masks: Mapping[str, str]
    rows: int
    array: Callable[[int], pa.Array]

    @classmethod
    def of(cls, table: Any, where: object = None) -> TableArrays:
        """Return the columns of a table.

        Parameters
        ----------
        table
            A table of pyarrow, pandas or astropy, or an object that exports the Arrow C stream
            (``__arrow_c_stream__``), such as a DataFrame of polars.
        where
            The table's name in error messages.

        Raises
        ------
        ContractError
            An object of another type.
        """
        if hasattr(table, "colnames"):
            return cls._made(table.colnames, _astropy_units(table), len(table), partial(
                _astropy_array, table))  # fmt: skip
        if hasattr(table, "iloc") and hasattr(table, "columns"):
            return _of_pandas(table)
        return _of_arrow(_arrow_table(table, where))

    @classmethod
    def _made(
        cls, names: Sequence[str], units: Mapping[str, str], rows: int,
        array: Callable[[int], pa.Array],
    ) -> TableArrays:  # fmt: skip
        """The columns without those of masks, each with its mask applied."""
        masks = mask_columns(names)
        hidden = set(masks.values())
        shown = [position for position, name in enumerate(names) if name not in hidden]
        first = {name: position for position, name in reversed(list(enumerate(names)))}

        def unmasked(position: int) -> pa.Array:
            name = names[shown[position]]
            values = array(shown[position])
            return masked(values, array(first[masks[name]])) if name in masks else values

        kept = tuple(names[position] for position in shown)
        return cls(kept, tuple(units.get(name, "") for name in kept), masks, rows, unmasked)


def _arrow_table(table: Any, where: object) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if hasattr(table, "__arrow_c_stream__"):
        try:
            return pa.table(table)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ContractError(
                "the table cannot be read through the Arrow C stream", wanted=TABLES,
                found=f"{type(table).__name__}: {error}", where=where,
            ) from error  # fmt: skip
    lazy = next((word for word in ("collect", "compute") if hasattr(table, word)), None)
    raise ContractError(
        "not a table", wanted=TABLES, found=type(table).__name__, where=where,
        advice=f"call its method {lazy}() first, which reads it into memory" if lazy else None,
    )  # fmt: skip


def _of_arrow(table: pa.Table) -> TableArrays:
    columns = list(zip(table.schema.names, table.schema.types, strict=True))
    names, array = _with_fields(columns, lambda position: table.column(position).combine_chunks())
    return TableArrays._made(names, schema_units(table.schema), table.num_rows, array)


def _of_pandas(table: Any) -> TableArrays:
    if any(name is not None and name not in table.columns for name in table.index.names):
        table = table.reset_index()  # a source_id is often the index
    kinds = [getattr(kind, "pyarrow_dtype", None) or pa.null() for kind in table.dtypes]
    columns = list(zip(map(str, table.columns), kinds, strict=True))
    names, array = _with_fields(columns, lambda position: _pandas_array(table, position))
    return TableArrays._made(names, {}, len(table), array)


def _with_fields(
    columns: Sequence[tuple[str, pa.DataType]], column: Callable[[int], pa.Array]
) -> tuple[list[str], Callable[[int], pa.Array]]:
    """Return the names of columns and of the fields of structs among them, and what gives the
    array of each by its position."""
    nested = nested_fields(columns)
    places = [
        (field, position, child)
        for position, (name, _) in enumerate(columns)
        for field, child in [
            (name, ""),
            *((field, child) for field, (parent, child) in nested.items() if parent == name),
        ]
    ]

    def array(number: int) -> pa.Array:
        _, position, child = places[number]
        values = column(position)
        return pc.struct_field(values, child) if child else values

    return [field for field, _, _ in places], array


def _pandas_array(table: Any, position: int) -> pa.Array:
    column = table.iloc[:, position]
    if column.dtype == object:
        first = next((value for value in column if isinstance(value, np.ndarray)), None)
        if first is not None and first.ndim > 1:
            return pa.array([_element(value) for value in column])
        column = [_element(value) if np.ma.isMaskedArray(value) else value for value in column]
    made = pa.array(column, from_pandas=True)
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _astropy_units(table: Any) -> dict[str, str]:
    return {name: str(getattr(table[name], "unit", None) or "") for name in table.colnames}


def _astropy_array(table: Any, position: int) -> pa.Array:
    column = table[table.colnames[position]]
    mask = getattr(column, "mask", None)
    values = np.asarray(getattr(column, "unmasked", column))
    mask = np.zeros(values.shape, bool) if mask is None else np.asarray(mask)
    native = values.astype(values.dtype.newbyteorder("="))
    if values.ndim > 1 and values.dtype.kind in "iuf":
        single = values.dtype == np.float32
        kind = np.float32 if single else np.float64
        array = np.where(mask, np.nan, native).astype(kind)
        if values.ndim == 2:
            return matrix_lists(array, pa.float32() if single else pa.float64())
        return pa.array([_element(row) for row in array])
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
    """An element of a column of objects: masked numbers are NaN, matrices are lists of rows."""
    if not isinstance(value, np.ndarray):
        # None and NaN, which is how pandas says that there is no array
        return None if isinstance(value, float) and np.isnan(value) else value
    if value.ndim > 1:
        return [_element(row) for row in value]
    if value.dtype.kind not in "iuf":
        return np.asarray(value)
    return np.where(np.ma.getmaskarray(value), np.nan, np.ma.getdata(value))
