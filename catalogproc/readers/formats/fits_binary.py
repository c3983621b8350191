"""Binary tables of FITS: columns by slices of the file in memory.

STIL also writes them column by column (colfits): one row, of which every field is an array over
all stars. Such a table is read as the rows that it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.io.remote_file import File
from catalogproc.readers.arrow_lists import list_array, matrix_lists
from catalogproc.readers.formats.base import unique_names
from catalogproc.readers.formats.binary import gather, native

_FORMAT = re.compile(r"(\d*)(?:([LXBIJKAEDCM])\d*|([PQ])([LXBIJKAEDCM])(?:\(\d*\))?)")
_DTYPES = {
    "L": "u1", "X": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "A": "S1",
    "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16", "P": ">i4", "Q": ">i8",
}  # fmt: skip
# FITS has no unsigned integers of more than 8 bits, nor signed ones of 8: they are stored
# with the first bit turned over, and TZERO says so.
_UNSIGNED = {
    "B": (-(1 << 7), pa.int8()),
    "I": (1 << 15, pa.uint16()),
    "J": (1 << 31, pa.uint32()),
    "K": (1 << 63, pa.uint64()),
}


@dataclass(frozen=True)
class Field:
    """One column: where it lies in a row, and what its numbers mean."""

    name: str
    code: str  # FITS's letter for the type of its elements
    repeat: int  # elements a row
    offset: int  # bytes from the row's begin
    heap: bool  # elements lie in the heap, a descriptor in the row
    descriptor: str  # dtype of that descriptor
    null: int | None
    scale: float
    zero: float

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_DTYPES[self.code])

    @property
    def width(self) -> int:
        if self.heap:
            return 2 * np.dtype(self.descriptor).itemsize * self.repeat
        return (self.repeat + 7) // 8 if self.code == "X" else self.dtype.itemsize * self.repeat

    @property
    def element(self) -> pa.DataType:
        """Arrow's type of one element."""
        if self.code == "L":
            return pa.bool_()
        if self.scale == 1 and self.zero in (0, _UNSIGNED.get(self.code, (0,))[0]):
            if self.zero:
                return _UNSIGNED[self.code][1]
            return pa.from_numpy_dtype(self.dtype.newbyteorder("="))
        return pa.float64()

    @property
    def type(self) -> pa.DataType:
        if self.code in "XCM":
            return pa.struct([])  # no column of ours is one of these
        if self.code == "A":
            return pa.binary()
        return pa.list_(self.element) if self.heap or self.repeat != 1 else self.element


@dataclass(frozen=True)
class BinaryPart:
    """One binary table: its columns, and where its bytes are in the file.

    Attributes
    ----------
    fields
        The columns.
    rows, width
        Number of rows, and bytes per row.
    start, heap, end
        First byte of the first row and of the heap, and one past the last byte.
    by_column
        The bytes of a column lie together, not those of a row.
    """

    fields: tuple[Field, ...]
    rows: int
    width: int
    start: int
    heap: int
    end: int
    by_column: bool = False

    @property
    def types(self) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in self.fields}

    def columns(
        self, file: NDArray[np.uint8], names: Sequence[str], wanted: range
    ) -> Iterator[tuple[int, list[pa.Array]]]:
        """Yield the number of a row, and the columns from there on, for each step of the range.

        Parameters
        ----------
        file
            All bytes of the file.
        names
            The columns.
        wanted
            The first row, the first one not to read, and the rows of a batch.
        """
        by_name = {field.name: field for field in self.fields}
        heap = file[self.heap : self.end]
        stop = min(wanted.stop, self.rows)
        for low in range(wanted.start, stop, wanted.step):
            high = min(low + wanted.step, stop)
            yield (
                low,
                [
                    _column(by_name[n], self._bytes(file, by_name[n], low, high), heap)
                    for n in names
                ],
            )

    def _bytes(
        self, file: NDArray[np.uint8], field: Field, low: int, high: int
    ) -> NDArray[np.uint8]:
        """The bytes (N, width) of a column in some rows."""
        if self.by_column:
            begin = self.start + field.offset * self.rows
            block = file[begin + low * field.width : begin + high * field.width]
            return block.reshape(high - low, field.width)
        table = file[self.start + low * self.width : self.start + high * self.width]
        rows = table.reshape(high - low, self.width)
        return rows[:, field.offset : field.offset + field.width]


def binary_part(header: Mapping[str, Any], path: File, start: int) -> BinaryPart:
    """Return the binary table that a header describes.

    Parameters
    ----------
    header
        The cards of an extension BINTABLE.
    path
        The file, for messages.
    start
        The first byte after the header.

    Raises
    ------
    ValueError
        The header contradicts itself.
    InputError
        Two columns have the same name.
    """
    rows, width = header["NAXIS2"], header["NAXIS1"]
    fields = _fields(header, path)
    size = rows * width
    heap = header.get("THEAP", size)
    end = start + size + header.get("PCOUNT", 0)
    if rows < 0 or sum(field.width for field in fields) != width or heap < size:
        raise ValueError("a header that contradicts itself")
    part = BinaryPart(fields, rows, width, start, start + heap, end)
    stars = _stars(header, fields) if rows == 1 else 1
    return _by_column(part, stars) if stars > 1 else part


def _stars(header: Mapping[str, Any], fields: Sequence[Field]) -> int:
    """The rows that a table of one row stands for: the last dimension that all columns have."""
    counts = set()
    for number, field in enumerate(fields, start=1):
        # The characters of one text are no dimension of their own.
        whole = 1 if field.code == "A" else field.repeat
        shape = re.findall(r"\d+", str(header.get(f"TDIM{number}", ""))) or [whole]
        counts.add(1 if field.heap or field.code == "X" else int(shape[-1]))
        if field.repeat % max(int(shape[-1]), 1):
            raise ValueError(f"TDIM{number} is not the shape of {field.repeat} elements")
    return counts.pop() if len(counts) == 1 else 1


def _by_column(part: BinaryPart, stars: int) -> BinaryPart:
    fields, offset = [], 0
    for field in part.fields:
        fields.append(replace(field, repeat=field.repeat // stars, offset=offset))
        offset += fields[-1].width
    return replace(part, fields=tuple(fields), rows=stars, width=offset, by_column=True)


def _fields(header: Any, path: File) -> tuple[Field, ...]:
    fields, offset = [], 0
    for number in range(1, min(header["TFIELDS"], 999) + 1):
        form = str(header[f"TFORM{number}"]).strip()
        matched = _FORMAT.fullmatch(form)
        if matched is None:
            raise ValueError(f"TFORM{number} = {form!r} is no format of FITS")
        repeat, code, pointer, element = matched.groups()
        field = Field(
            name=str(header.get(f"TTYPE{number}", f"column {number}")).strip(),
            code=element or code,
            repeat=int(repeat) if repeat else 1,
            offset=offset,
            heap=pointer is not None,
            descriptor=_DTYPES[pointer or code],
            null=header.get(f"TNULL{number}"),
            scale=header.get(f"TSCAL{number}", 1),
            zero=header.get(f"TZERO{number}", 0),
        )
        if field.heap and field.repeat > 1:
            raise ValueError(f"TFORM{number} = {form!r} is not read")
        fields.append(field)
        offset += field.width
    unique_names([field.name for field in fields], path)
    return tuple(fields)


def _column(field: Field, rows: NDArray[np.uint8], heap: NDArray[np.uint8]) -> pa.Array:
    """A column from its bytes (N, bytes of a field) as Arrow has it."""
    raw = np.ascontiguousarray(rows)
    if field.heap:
        if field.repeat == 0:
            return pa.nulls(len(rows), field.type)
        described = raw.view(field.descriptor).astype(np.int64)
        return _from_heap(field, described[:, 0], described[:, 1], heap)
    if field.code == "A":
        return pa.array(raw.view(f"S{field.width}").ravel(), pa.binary())
    values = raw.view(field.dtype)
    if field.repeat == 1:
        return _elements(field, values.ravel())
    if field.code in "ED":
        return matrix_lists(native(values), field.element)
    counts = np.full(len(rows), field.repeat)
    return list_array(_elements(field, values.ravel()), counts, field.element)


def _from_heap(
    field: Field, counts: NDArray[np.int64], offsets: NDArray[np.int64], heap: NDArray[np.uint8]
) -> pa.Array:
    """Arrays of the given lengths (N,) at the given bytes (N,) of the heap."""
    values = gather(heap, offsets, counts, field.dtype)
    return list_array(_elements(field, values), counts, field.element)


def _elements(field: Field, values: NDArray[Any]) -> pa.Array:
    """Numbers (N,) as FITS stores them, as what they mean."""
    if field.code == "L":
        known = (values == ord("T")) | (values == ord("F"))
        return pa.array(values == ord("T"), mask=~known)
    values = native(values)
    mask = values == field.null if field.null is not None and field.code not in "ED" else None
    kind = field.element
    if kind == pa.from_numpy_dtype(values.dtype):
        return pa.array(values, mask=mask)
    if pa.types.is_integer(kind):
        flipped = values ^ values.dtype.type(np.iinfo(values.dtype).min or 1 << 7)
        return pa.array(flipped.view(kind.to_pandas_dtype()), mask=mask)
    return pa.array(values * field.scale + field.zero, kind, mask=mask)
