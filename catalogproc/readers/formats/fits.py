"""Tables of FITS files: binary ones, by row or by column, and ASCII ones.

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
from catalogproc.io.remote_file import File
from catalogproc.readers.formats.base import Rows, Table, reading
from catalogproc.readers.formats.fits_ascii import AsciiPart, ascii_part
from catalogproc.readers.formats.fits_binary import BinaryPart, binary_part
from catalogproc.readers.formats.stream import is_gzip, open_bytes

_BLOCK, _CARD = 2880, 80
# In blocks: 999 columns with ten cards each take less than a tenth of it.
_LONGEST_HEADER = 5000

Part = BinaryPart | AsciiPart


@dataclass(frozen=True)
class FitsTable(Table):
    """The tables of a FITS file, one after the other; all have the same columns."""

    path: File
    parts: tuple[Part, ...]
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
                if len(file) < part.end:
                    raise _truncated(self.path, part.end, len(file))
                wanted = range(max(first - begin, 0), stop - begin, batch_rows)
                for low, columns in part.columns(file, names, wanted):
                    batch = pa.RecordBatch.from_arrays(columns, names=list(names))
                    yield Rows(begin + low, batch)
                begin += part.rows


def open_fits(path: File) -> FitsTable:
    """Read the headers of a FITS file.

    Parameters
    ----------
    path
        The file. Tables with the columns of the first one are read as its continuation;
        the others are named in ``unread``.

    Raises
    ------
    InputError
        The file is damaged, or has no table.
    """
    with reading(path, "FITS"), open_bytes(path) as file:
        parts: list[Part] = []
        units: dict[str, str] = {}
        unread: list[str] = []
        number = 0
        while (header := _header(file)) is not None:
            start, size = file.tell(), _data_size(header)
            if (part := _part(header, path, start)) is not None:
                stated = _units(header, part)
                if not parts or (part.types, stated) == (parts[0].types, units):
                    parts.append(part)
                    units = stated
                else:
                    name = header.get("EXTNAME", number)
                    unread.append(f"table {name} of {plural(part.rows, 'row')}")
            file.seek(start + -(-size // _BLOCK) * _BLOCK)
            number += 1
        if not parts:
            raise InputError(
                "the file has no table",
                wanted="a binary table, or an ASCII table",
                found=f"{number} parts, none of them a table",
                where=path,
            )
        return FitsTable(path, tuple(parts), units, tuple(unread))


def _part(header: Mapping[str, Any], path: File, start: int) -> Part | None:
    """The table of an extension; None where it is none."""
    kind = header.get("XTENSION")
    if kind == "TABLE":
        part: Part = ascii_part(header, path, start)
    elif kind == "BINTABLE" and header.get("ZIMAGE") is not True:
        part = binary_part(header, path, start)
    else:
        return None
    if not is_gzip(path) and path.stat().st_size < part.end:
        raise _truncated(path, part.end, path.stat().st_size)
    return part


def _units(header: Mapping[str, Any], part: Part) -> dict[str, str]:
    """The units that the header of a table states, by column."""
    stated = {name: header.get(f"TUNIT{n}") for n, name in enumerate(part.types, start=1)}
    return {name: str(unit) for name, unit in stated.items() if unit}


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


def _content(path: File) -> NDArray[np.uint8]:
    """The bytes of the file: mapped, or read whole where it is compressed or at an address."""
    if isinstance(path, Path) and not is_gzip(path):
        return np.memmap(path, np.uint8, mode="r")
    with open_bytes(path, whole=True) as file:
        return np.frombuffer(file.read(), np.uint8)


def _truncated(path: File, wanted: int, found: int) -> InputError:
    return InputError(
        "the file is truncated",
        wanted=f"{wanted} bytes, as its header says",
        found=f"{found} bytes",
        where=path,
        advice="fetch it again",
    )
