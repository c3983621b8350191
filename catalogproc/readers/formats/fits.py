"""FITS binary tables: fixed and variable-length arrays, by slices of the file in memory.

Rows are taken from the mapped file as they lie, where astropy builds variable-length columns
row by row in Python. The header is read here too: a damaged one (NAXIS = 2000000000) keeps
astropy busy for hours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.errors import InputError, plural
from catalogproc.readers.arrow_lists import list_array, matrix_lists
from catalogproc.readers.formats.base import Rows, Table, reading, unique_names
from catalogproc.readers.formats.binary import gather, native
from catalogproc.readers.formats.stream import is_gzip, open_bytes

_BLOCK, _CARD = 2880, 80
# In blocks: 999 columns with ten cards each take less than a tenth of it.
_LONGEST_HEADER = 5000
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
class _Field:
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
class _Part:
    """One binary table: its columns, and where its bytes are in the file."""

    fields: tuple[_Field, ...]
    rows: int
    width: int  # bytes per row
    start: int  # of the first row
    heap: int  # of the heap
    end: int  # of table and heap

    @property
    def types(self) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in self.fields}

    def columns(
        self, file: NDArray[np.uint8], path: Path, names: Sequence[str], wanted: range
    ) -> Iterator[tuple[int, list[pa.Array]]]:
        """Yield the number of a row, and the columns from there on, for each step of the range."""
        if len(file) < self.end:
            raise _truncated(path, self.end, len(file))
        by_name = {field.name: field for field in self.fields}
        table = file[self.start : self.start + self.rows * self.width]
        table = table.reshape(self.rows, self.width)
        heap = file[self.heap : self.end]
        stop = min(wanted.stop, self.rows)
        for low in range(wanted.start, stop, wanted.step):
            rows = table[low : min(low + wanted.step, stop)]
            yield low, [_column(by_name[name], rows, heap) for name in names]


@dataclass(frozen=True)
class FitsTable(Table):
    """The binary tables of a FITS file, one after the other; all have the same columns."""

    path: Path
    parts: tuple[_Part, ...]
    units: Mapping[str, str]
    unread: tuple[str, ...]
    kind: str = "FITS"

    @cached_property
    def stored_types(self) -> Mapping[str, pa.DataType]:
        return self.parts[0].types

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        stop = self.rows if stop is None else min(stop, self.rows)
        with reading(self.path, self.kind):
            if first >= stop:
                return
            file = _content(self.path)
            begin = 0
            for part in self.parts:
                for low, columns in part.columns(
                    file, self.path, names, range(max(first - begin, 0), stop - begin, batch_rows)
                ):
                    batch = pa.RecordBatch.from_arrays(columns, names=list(names))
                    yield Rows(begin + low, batch)
                begin += part.rows


def open_fits(path: Path) -> FitsTable:
    """Read the headers of a FITS file.

    Parameters
    ----------
    path
        The file. Binary tables with the columns of the first one are read as its continuation;
        the others are named in ``unread``.

    Raises
    ------
    InputError
        The file is damaged, or has no binary table.
    """
    with reading(path, "FITS"), open_bytes(path) as file:
        parts: list[_Part] = []
        units: dict[str, str] = {}
        unread: list[str] = []
        number = 0
        while (header := _header(file)) is not None:
            start, size = file.tell(), _data_size(header)
            if header.get("XTENSION") == "BINTABLE" and header.get("ZIMAGE") is not True:
                part, stated = _table(header, path, start)
                if not parts:
                    parts, units = [part], stated
                elif part.types == parts[0].types and stated == units:
                    parts.append(part)
                else:
                    name = header.get("EXTNAME", number)
                    unread.append(f"table {name} of {plural(part.rows, 'row')}")
            file.seek(start + -(-size // _BLOCK) * _BLOCK)
            number += 1
        if not parts:
            raise InputError(
                "the file has no table",
                wanted="a binary table",
                found=f"{number} parts, none a binary table",
                where=path,
            )
        return FitsTable(path, tuple(parts), units, tuple(unread))


def _table(header: Mapping[str, Any], path: Path, start: int) -> tuple[_Part, dict[str, str]]:
    rows, width = header["NAXIS2"], header["NAXIS1"]
    fields = _fields(header, path)
    size = rows * width
    heap = header.get("THEAP", size)
    end = start + size + header.get("PCOUNT", 0)
    if rows < 0 or sum(field.width for field in fields) != width or heap < size:
        raise ValueError("a header that contradicts itself")
    if not is_gzip(path) and path.stat().st_size < end:
        raise _truncated(path, end, path.stat().st_size)
    units = {
        field.name: str(header[f"TUNIT{number}"])
        for number, field in enumerate(fields, start=1)
        if header.get(f"TUNIT{number}")
    }
    return _Part(fields, rows, width, start, start + heap, end), units


def _header(file: BinaryIO) -> dict[str, Any] | None:
    """The next header, up to its END and the end of that block; None where the file ends."""
    cards: dict[str, Any] = {}
    for _ in range(_LONGEST_HEADER):
        block = file.read(_BLOCK)
        if not block.strip(b" \0") and not cards:
            return None
        if len(block) < _BLOCK:
            raise ValueError("the file ends in the middle of a header")
        for place in range(0, _BLOCK, _CARD):
            card = block[place : place + _CARD].decode("latin-1")
            if card[:8] == "END     ":
                if "SIMPLE" in cards and "XTENSION" in cards:
                    raise ValueError("two headers in one, the first without an end")
                return cards
            if card[8:10] == "= ":
                cards.setdefault(card[:8].rstrip(), _value(card[10:]))
    raise ValueError("a header without an end")


def _value(text: str) -> Any:
    """What a card says: text, a truth value, an integer or a float; None where it is none."""
    if matched := re.match(r" *'((?:[^']|'')*)'", text):
        return matched[1].replace("''", "'").rstrip()
    word = text.partition("/")[0].strip()
    if word in ("T", "F"):
        return word == "T"
    for kind in (int, float):
        try:
            return kind(word.replace("D", "E"))
        except ValueError:
            continue
    return None


def _data_size(header: Mapping[str, Any]) -> int:
    """Bytes of the data after a header, without what fills up their last block."""
    count = header["NAXIS"]
    if not 0 <= count <= 999:
        raise ValueError(f"NAXIS = {count}")
    axes = [header[f"NAXIS{number}"] for number in range(1, count + 1)]
    if header.get("GROUPS") is True and axes and axes[0] == 0:
        axes = axes[1:]
    elements = math.prod(axes) if axes else 0
    size = abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1)
    size *= header.get("PCOUNT", 0) + elements
    if min(axes, default=0) < 0 or not 0 <= size < 1 << 60:
        raise ValueError("a header with an impossible size")
    return int(size)


def _content(path: Path) -> NDArray[np.uint8]:
    """The bytes of the file: mapped, or read whole where it is compressed."""
    if not is_gzip(path):
        return np.memmap(path, np.uint8, mode="r")
    with open_bytes(path) as file:
        return np.frombuffer(file.read(), np.uint8)


def _truncated(path: Path, wanted: int, found: int) -> InputError:
    return InputError(
        "the file is truncated",
        wanted=f"{wanted} bytes, as its header says",
        found=f"{found} bytes",
        where=path,
        advice="fetch it again",
    )


def _fields(header: Any, path: Path) -> tuple[_Field, ...]:
    fields, offset = [], 0
    for number in range(1, min(header["TFIELDS"], 999) + 1):
        form = str(header[f"TFORM{number}"]).strip()
        matched = _FORMAT.fullmatch(form)
        if matched is None:
            raise ValueError(f"TFORM{number} = {form!r} is no format of FITS")
        repeat, code, pointer, element = matched.groups()
        field = _Field(
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


def _column(field: _Field, rows: NDArray[np.uint8], heap: NDArray[np.uint8]) -> pa.Array:
    """A column of some rows (N, bytes a row) as Arrow has it."""
    raw = np.ascontiguousarray(rows[:, field.offset : field.offset + field.width])
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
    field: _Field, counts: NDArray[np.int64], offsets: NDArray[np.int64], heap: NDArray[np.uint8]
) -> pa.Array:
    """Arrays of the given lengths (N,) at the given bytes (N,) of the heap."""
    values = gather(heap, offsets, counts, field.dtype)
    return list_array(_elements(field, values), counts, field.element)


def _elements(field: _Field, values: NDArray[Any]) -> pa.Array:
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
