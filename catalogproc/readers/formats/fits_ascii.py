"""ASCII tables of FITS (XTENSION = 'TABLE'): numbers written out as text, in fixed places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.io.remote_file import File
from catalogproc.readers.formats.base import unique_names

_FORMAT = re.compile(r"([AIFED])(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class _Field:
    """One column: its place in a row, and what its text means."""

    name: str
    code: str  # A, I, F, E or D
    offset: int
    width: int
    decimals: int  # of a number without a decimal point
    null: bytes | None
    scale: float
    zero: float

    @property
    def scaled(self) -> bool:
        return (self.scale, self.zero) != (1, 0)

    @property
    def type(self) -> pa.DataType:
        """Text, so that no digit is lost and a number that is none costs its row alone."""
        if self.code == "A":
            return pa.binary()
        return pa.float64() if self.scaled else pa.string()


@dataclass(frozen=True)
class AsciiPart:
    """One ASCII table: its columns, and where its bytes are in the file.

    Attributes
    ----------
    fields
        The columns.
    rows, width
        Number of rows, and bytes per row.
    start, end
        First byte of the first row, and one past the last byte.
    """

    fields: tuple[_Field, ...]
    rows: int
    width: int
    start: int
    end: int

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
        table = file[self.start : self.start + self.rows * self.width]
        table = table.reshape(self.rows, self.width)
        stop = min(wanted.stop, self.rows)
        for low in range(wanted.start, stop, wanted.step):
            rows = table[low : min(low + wanted.step, stop)]
            yield low, [_column(by_name[name], rows) for name in names]


def ascii_part(header: Mapping[str, Any], path: File, start: int) -> AsciiPart:
    """Return the ASCII table that a header describes.

    Parameters
    ----------
    header
        The cards of an extension TABLE.
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
    fields = tuple(_field(header, n) for n in range(1, min(header["TFIELDS"], 999) + 1))
    unique_names([field.name for field in fields], path)
    outside = any(not 0 <= field.offset <= width - field.width for field in fields)
    if rows < 0 or width < 0 or outside:
        raise ValueError("a header that contradicts itself")
    return AsciiPart(fields, rows, width, start, start + rows * width)


def _field(header: Mapping[str, Any], number: int) -> _Field:
    form = str(header[f"TFORM{number}"]).strip()
    matched = _FORMAT.fullmatch(form)
    if matched is None:
        raise ValueError(f"TFORM{number} = {form!r} is no format of an ASCII table")
    code, width, decimals = matched.groups()
    null = header.get(f"TNULL{number}")
    return _Field(
        name=str(header.get(f"TTYPE{number}", f"column {number}")).strip(),
        code=code,
        offset=header[f"TBCOL{number}"] - 1,
        width=int(width),
        decimals=int(decimals or 0),
        null=None if null is None else str(null).strip().encode("latin-1"),
        scale=header.get(f"TSCAL{number}", 1),
        zero=header.get(f"TZERO{number}", 0),
    )


def _column(field: _Field, rows: NDArray[np.uint8]) -> pa.Array:
    """A column of some rows (N, bytes a row) as Arrow has it; blank fields are null."""
    if not field.width:
        return pa.nulls(len(rows), field.type)
    raw = np.ascontiguousarray(rows[:, field.offset : field.offset + field.width])
    plain = np.char.strip(raw.view(f"S{field.width}").ravel())
    missing = plain == b""
    if field.null is not None:
        missing |= plain == field.null[: field.width].strip()
    text = pa.array(plain, pa.binary(), mask=missing)
    if field.code == "A":
        return text
    numbers = text.cast(pa.string()) if field.code == "I" else _plain_floats(field, text)
    if not field.scaled:
        return numbers
    values = numbers.cast(pa.float64())
    return pc.add(pc.multiply(values, float(field.scale)), float(field.zero))


def _plain_floats(field: _Field, text: pa.Array) -> pa.Array:
    """Numbers as Fortran writes them, as everybody reads them.

    An exponent has an E, a D, or no letter. Where there is no decimal point, the format says how
    many of the digits come after it.
    """
    plain = pc.replace_substring(pc.ascii_upper(text.cast(pa.string())), "D", "E")
    plain = pc.replace_substring_regex(plain, r"^([+-]?[\d.]+)([+-]\d+)$", r"\1E\2")
    if field.decimals:
        pattern = rf"^([+-]?\d*)(\d{{{field.decimals}}})E"
        plain = pc.replace_substring_regex(plain, pattern, r"\1.\2E")
        plain = pc.replace_substring_regex(plain, r"^([+-]?\d+)$", rf"\1E-{field.decimals}")
    return plain
