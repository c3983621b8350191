"""Decode the rows of bytes of VOTable's BINARY and BINARY2 serialisations."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.readers.arrow_lists import list_array, matrix_lists
from catalogproc.readers.formats.stream import LONGEST_ROW

Index = NDArray[np.int64]

_DTYPES = {
    "boolean": "u1", "bit": "u1", "unsignedByte": "u1", "short": ">i2", "int": ">i4",
    "long": ">i8", "char": "S1", "unicodeChar": ">u2", "float": ">f4", "double": ">f8",
    "floatComplex": ">c8", "doubleComplex": ">c16",
}  # fmt: skip
_TEXT = ("char", "unicodeChar")
_BYTE = np.dtype(np.uint8)
_OTHER = ("bit", "floatComplex", "doubleComplex")


@dataclass(frozen=True)
class Field:
    """A column as VOTable declares it; ``count`` is None for arrays of variable length."""

    name: str
    datatype: str
    array: bool
    count: int | None
    null_text: str | None = None

    @classmethod
    def declared(cls, name: str, datatype: str, arraysize: str) -> Field:
        """Build a column from the attributes of a FIELD.

        Parameters
        ----------
        name, datatype, arraysize
            The attributes; empty where the FIELD has none.

        Raises
        ------
        ValueError
            The datatype is not one of VOTable's.
        """
        if datatype not in _DTYPES:
            raise ValueError(f"column {name!r} has datatype {datatype!r}, which VOTable has not")
        if not arraysize:
            return cls(name, datatype, False, 1)
        if arraysize.endswith("*"):
            return cls(name, datatype, True, None)
        return cls(name, datatype, True, int(np.prod([int(n) for n in arraysize.split("x")])))

    def with_null(self, text: str) -> Field:
        """Return the column with the text that stands for null."""
        return replace(self, null_text=text.strip())

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_DTYPES[self.datatype])

    def size(self, count: Any) -> Any:
        """Return the number of bytes of ``count`` elements."""
        return (count + 7) // 8 if self.datatype == "bit" else count * self.dtype.itemsize

    @property
    def element(self) -> pa.DataType:
        if self.datatype == "boolean":
            return pa.bool_()
        return pa.from_numpy_dtype(self.dtype.newbyteorder("="))

    @property
    def type(self) -> pa.DataType:
        if self.datatype in _OTHER:
            return pa.struct([])  # no column of ours is one of these
        if self.datatype in _TEXT:
            return pa.binary()
        return pa.list_(self.element) if self.array else self.element


class Decoder:
    """Decodes columns from a stream of rows that comes in pieces of any size.

    Parameters
    ----------
    fields
        All columns of a row, in order.
    wanted
        Numbers of the columns to decode.
    masked
        Whether a row starts with one bit per column that marks null (BINARY2).
    """

    def __init__(self, fields: Sequence[Field], wanted: Sequence[int], masked: bool) -> None:
        if not fields:
            raise ValueError("a table without columns")
        self._fields, self._wanted, self._masked = fields, wanted, masked
        self._rest = b""
        # A row is stretches of fixed length between columns of variable length: of each
        # column, the stretch that it stands in and how far from that one's begin.
        self._places: list[tuple[int, int]] = []
        self._variable: list[tuple[int, Field]] = []
        at = (len(fields) + 7) // 8 if masked else 0
        for field in fields:
            if field.count is None:
                self._variable.append((at, field))
                self._places.append((len(self._variable), 0))
                at = 0
            else:
                self._places.append((len(self._variable), at))
                at += field.size(field.count)
        self._tail = at
        if not self._variable and not at:
            raise ValueError("rows without a byte")

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream."""
        self._rest += data

    def rows(self, batch_rows: int) -> Iterator[list[pa.Array]]:
        """Yield the wanted columns of all complete rows so far, in batches of ``batch_rows``."""
        begins, counts, used = self._walk()
        data = np.frombuffer(self._rest, np.uint8)
        for low in range(0, len(begins), batch_rows):
            part = slice(low, low + batch_rows)
            yield [self._column(data, index, begins[part], counts[part]) for index in self._wanted]
        self._rest = self._rest[used:]

    def finish(self) -> None:
        """Raise ValueError if the stream ends in the middle of a row."""
        if self._rest:
            raise ValueError(f"{len(self._rest)} bytes after the last whole row")

    def _walk(self) -> tuple[Index, Index, int]:
        """Where the stretches of each row begin (N, S), how many elements each of its
        variable columns has (N, S-1), and how many bytes make whole rows."""
        data, end = self._rest, len(self._rest)
        read = struct.Struct(">i").unpack_from
        begins: list[list[int]] = []
        counts: list[list[int]] = []
        row = 0
        while True:
            at, begin, count = row, [row], []
            for gap, field in self._variable:
                at += gap
                if at + 4 > end:
                    break
                (number,) = read(data, at)
                if not 0 <= number <= LONGEST_ROW:
                    raise ValueError(f"an array of {number} elements in {field.name}")
                at += 4
                begin.append(at)
                count.append(number)
                at += field.size(number)
            else:
                at += self._tail
                if at <= end and at > row:
                    begins.append(begin)
                    counts.append(count)
                    row = at
                    continue
            if at - row > LONGEST_ROW:
                raise ValueError(f"a row of {at - row} bytes")
            # The begin of a stretch after a variable column is the column's own, plus its size.
            shape = (len(begins), len(self._variable))
            return (
                np.array(begins, np.int64).reshape(shape[0], shape[1] + 1),
                np.array(counts, np.int64).reshape(shape),
                row,
            )

    def _column(self, data: NDArray[np.uint8], index: int, begins: Index, counts: Index) -> Any:
        field, (stretch, offset) = self._fields[index], self._places[index]
        at = begins[:, stretch] + offset
        if stretch and field.count is not None:
            at = at + self._variable[stretch - 1][1].size(counts[:, stretch - 1])
        null = np.zeros(len(at), bool)
        if self._masked:
            null = (data[begins[:, 0] + index // 8] >> (7 - index % 8)) & 1 == 1
        many = counts[:, stretch - 1] if field.count is None else np.full(len(at), field.count)
        if field.datatype in _TEXT:
            return _text(field, data, at, np.where(null, 0, many), null)
        if not field.array:
            return _elements(field, gather(data, at, many, field.dtype), null)
        if field.datatype in ("float", "double") and field.count is not None:
            values = gather(data, at, many, field.dtype).reshape(len(at), field.count)
            return matrix_lists(native(values), field.element, lost=null)
        many = np.where(null, 0, many)
        values = gather(data, at, many, field.dtype)
        return list_array(
            _elements(field, values, np.zeros(len(values), bool)), many, field.element
        )


def gather(data: NDArray[np.uint8], at: Index, counts: Index, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return all elements of arrays in a block of bytes, one array after the other.

    Parameters
    ----------
    data
        The bytes.
    at
        Position (N,) of the first byte of each array.
    counts
        Number of elements (N,) of each array.
    dtype
        The type of an element.

    Raises
    ------
    ValueError
        An array reaches outside of the data.
    """
    size = dtype.itemsize
    held = counts > 0
    if (counts < 0).any() or (at[held] < 0).any() or ((at + counts * size)[held] > len(data)).any():
        raise ValueError("an array that lies outside of the file")
    parts = np.empty(int(counts.sum()), dtype)
    place = np.cumsum(counts) - counts
    for count in np.unique(counts[held]):  # one length, as a rule
        rows = np.flatnonzero(counts == count)
        windows = np.lib.stride_tricks.sliding_window_view(data, int(count) * size)
        taken = windows[at[rows]].view(dtype)
        if len(rows) == len(counts):
            return taken.ravel()
        parts[place[rows, None] + np.arange(count)] = taken
    return parts


def native(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the machine's own byte order."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _elements(field: Field, values: NDArray[Any], null: NDArray[np.bool_]) -> pa.Array:
    if field.datatype == "boolean":
        true, false = np.isin(values, list(b"Tt1")), np.isin(values, list(b"Ff0"))
        return pa.array(true, mask=null | ~(true | false))
    values = native(values)
    if field.null_text is not None and values.dtype.kind in "iu":
        null = null | (values == int(field.null_text, 0))
    return pa.array(values, mask=null)


def _text(
    field: Field, data: NDArray[np.uint8], at: Index, counts: Index, null: NDArray[np.bool_]
) -> pa.Array:
    characters = gather(data, at, counts, field.dtype if field.dtype.kind == "u" else _BYTE)
    if characters.dtype != _BYTE:  # UCS-2; none of our words has a letter outside of ASCII
        characters = np.where(characters < 128, characters, ord("?")).astype(_BYTE)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    text = pa.StringArray.from_buffers(len(counts), pa.py_buffer(offsets), pa.py_buffer(characters))
    text = pc.ascii_rtrim(text, "\0 ").view(pa.binary())
    return pc.if_else(pa.array(null), pa.scalar(None, pa.binary()), text)
