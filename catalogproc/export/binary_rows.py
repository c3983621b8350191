"""Arrow batches as big-endian records: the rows of FITS binary tables and VOTable BINARY2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import Column, Contract
from catalogproc.errors import ContractError

_NUMBERS = {"int64": ">i8", "int32": ">i4", "int16": ">i2", "float64": ">f8", "float32": ">f4"}


@dataclass(frozen=True)
class RecordTable:
    """A table to be written as records.

    Attributes
    ----------
    contract
        The columns, in order.
    batches
        The rows; they are read once.
    rows
        Number of rows.
    widths
        Bytes of each string column, as :func:`string_widths` returns them.
    """

    contract: Contract
    batches: Iterable[pa.RecordBatch]
    rows: int
    widths: Mapping[str, int]


def string_widths(contract: Contract, batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Return the bytes of the longest string of each string column, at least 1.

    Parameters
    ----------
    contract
        The columns.
    batches
        All rows, with at least the string columns.
    """
    widths = {column.name: 1 for column in contract.columns if column.type == "string"}
    for batch in batches:
        for name in widths:
            longest = pc.max(pc.binary_length(batch.column(name))).as_py()
            widths[name] = max(widths[name], longest or 0)
    return widths


def null_integer(column: Column) -> int | None:
    """Return the value for nulls of an integer column (TNULL): the lowest integer of its type.

    Parameters
    ----------
    column
        Any column; None is returned where it is no integer or cannot be null.
    """
    if column.nullable and column.type.startswith("int"):
        return int(np.iinfo(column.type).min)
    return None


def record_dtype(
    contract: Contract, widths: Mapping[str, int], null_bytes: int = 0
) -> np.dtype[np.void]:
    """Return the dtype of one row, packed and big-endian.

    Parameters
    ----------
    contract
        The columns.
    widths
        Bytes of each string column.
    null_bytes
        Bytes of the field ``nulls``, which comes first; no such field where 0.

    Raises
    ------
    ContractError
        A column holds lists.
    """
    first = [("nulls", f"({null_bytes},)u1")] if null_bytes else []
    return np.dtype(first + [(column.name, _format(column, widths)) for column in contract.columns])


def _format(column: Column, widths: Mapping[str, int]) -> str:
    if column.type == "bool":
        return "u1"
    if column.type == "string":
        return f"S{widths[column.name]}"
    try:
        return _NUMBERS[column.type]
    except KeyError:
        raise ContractError(
            "only flat columns can be exported", wanted=", ".join((*_NUMBERS, "bool", "string")),
            found=column.type, where=column.name,
        ) from None  # fmt: skip


def to_records(
    batch: pa.RecordBatch, contract: Contract, dtype: np.dtype[np.void]
) -> NDArray[np.void]:
    """Convert rows to records.

    Integers and floats keep every bit. A bool becomes the letter T or F, or 0 where it is
    null; a null float NaN, a null string empty, a null integer :func:`null_integer`. In the
    field ``nulls`` bit i, the most significant first, is set where column i is null
    (VOTable 1.4, section 5.4).

    Parameters
    ----------
    batch
        The rows (N).
    contract
        The columns.
    dtype
        What :func:`record_dtype` returned; (N,) records of it are returned.

    Raises
    ------
    ContractError
        A string holds characters other than ASCII, which neither format allows.
    """
    rows = np.zeros(batch.num_rows, dtype=dtype)
    for column in contract.columns:
        rows[column.name] = _values(batch.column(column.name), column)
    if "nulls" in (dtype.names or ()):
        _mark_nulls(rows, batch, contract)
    return rows


def _values(values: pa.Array, column: Column) -> NDArray[np.generic]:
    if column.type == "string":
        return _strings(values, column)
    if column.type == "bool":
        letters = pc.if_else(values, pa.scalar(ord("T"), pa.uint8()), ord("F"))
        return _numpy(pc.fill_null(letters, 0))
    if values.null_count:
        filler = column.null_value() if (null := null_integer(column)) is None else null
        values = pc.fill_null(values, filler)
    return _numpy(values)


def _strings(values: pa.Array, column: Column) -> NDArray[np.bytes_]:
    """Encode each distinct string once: a catalog has few."""
    encoded = pc.fill_null(values, "").dictionary_encode()
    try:
        distinct = np.array(
            [text.encode("ascii") for text in encoded.dictionary.to_pylist()], dtype="S"
        )
    except UnicodeEncodeError as error:
        raise ContractError(
            "FITS and VOTable hold ASCII strings only", found=error.object, where=column.name
        ) from None
    return distinct[_numpy(encoded.indices)] if len(distinct) else np.empty(0, dtype="S1")


def _mark_nulls(rows: NDArray[np.void], batch: pa.RecordBatch, contract: Contract) -> None:
    columns = [batch.column(name) for name in contract.names]
    if any(column.null_count for column in columns):
        bits = np.stack([_numpy(column.is_null()) for column in columns], axis=1)
        rows["nulls"] = np.packbits(bits, axis=1)


def _numpy(values: pa.Array) -> NDArray[np.generic]:
    array: NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
    return array
