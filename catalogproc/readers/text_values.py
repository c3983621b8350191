"""Read numbers, identifiers and lists that are written out as text."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.readers.arrow_lists import Mask, list_array
from catalogproc.release import load_release, shipped_releases

MISSING_WORDS = (
    "", "null", "NULL", "None", "nan", "NaN", "NAN", "--", "[]", "()", "\\N", "NA", "N/A", "n/a",
    "<NA>",
)  # fmt: skip
"""How text tables, pandas, R, astropy and JSON write that a value is missing."""

_MISSING = pa.array([word.encode() for word in MISSING_WORDS], pa.binary())
_LONGEST_MISSING = 4


_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?|[nN]a[nN])$"


_INTEGER = r"^-?\d{1,19}$"


_COMMA, _SPACE = ord(","), ord(" ")


_OPEN, _CLOSE = np.frombuffer(b"[(", np.uint8), np.frombuffer(b"])", np.uint8)


def without_designation(text: pa.Array) -> pa.Array:
    """The digits of designations of the releases that ship ("Gaia DR3 4295806720")."""
    starts = pc.fill_null(pc.starts_with(text, b"Gaia "), False)
    if not pc.any(starts).as_py():
        return text
    return pc.replace_substring_regex(text, _designation(), rb"\1")


@cache
def _designation() -> bytes:
    known = (name for r in map(load_release, shipped_releases()) for name in r.designations)
    words = "|".join(re.escape(name) for name in known)
    return rf"^\s*(?:{words}) (\d+)\s*$".encode()


def as_binary(text: pa.Array) -> pa.Array:
    """Return text of any type as binary."""
    return text if text.type == pa.binary() else text.cast(pa.binary())


def as_string(text: pa.Array) -> pa.Array:
    """View text as strings without checking the encoding; only ASCII is used of it."""
    return as_binary(text).view(pa.string())


def is_missing(text: pa.Array) -> pa.Array:
    """Return which entries (N,) are null or a word for a missing value; never null itself."""
    text = as_binary(text)
    nothing = np.asarray(pc.is_null(text))
    short = pc.fill_null(pc.less_equal(pc.binary_length(text), _LONGEST_MISSING), False)
    where = np.flatnonzero(short)
    if len(where):
        nothing = nothing.copy()
        nothing[where] |= np.asarray(pc.is_in(text.take(pa.array(where)), _MISSING))
    return pa.array(nothing)


def _missing_as_null(text: pa.Array) -> pa.Array:
    return pc.if_else(is_missing(text), pa.scalar(None, text.type), text)


def kept_positions(kept: Mask) -> pa.Array:
    """Return the place of each row among the kept ones; null for the others."""
    return pa.array(np.cumsum(kept) - 1, mask=~kept)


def integers_from_text(text: pa.Array) -> tuple[pa.Array, Mask]:
    """Read integers.

    Parameters
    ----------
    text
        Text (N,) of any type.

    Returns
    -------
    Array
        int64 (N,); null where the text is missing or cannot be read.
    Mask
        (N,), true where the text cannot be read.
    """
    text = as_string(text)
    try:
        return _missing_as_null(text).cast(pa.int64()), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        text = pc.ascii_trim_whitespace(text)
    nothing = np.asarray(is_missing(text))
    digits = np.asarray(pc.fill_null(pc.match_substring_regex(text, _INTEGER), False))
    # 19 digits can pass 2^63: of equal length, text orders as numbers do.
    unsigned = pc.ascii_ltrim(text, "-")
    wide = np.asarray(pc.fill_null(pc.equal(pc.binary_length(unsigned), 19), False))
    beyond = np.asarray(pc.fill_null(pc.greater(unsigned, "9223372036854775807"), False))
    fits = digits & ~(wide & beyond)
    return text.filter(pa.array(fits)).cast(pa.int64()).take(kept_positions(fits)), ~fits & ~nothing


def floats_from_text(text: pa.Array) -> tuple[pa.Array, Mask]:
    """Read numbers as float64, as :func:`integers_from_text` does integers."""
    text = as_string(text)
    try:
        return _missing_as_null(text).cast(pa.float64()), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        text = pc.ascii_trim_whitespace(text)
    nothing = np.asarray(is_missing(text))
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False))
    return text.filter(pa.array(fits)).cast(pa.float64()).take(
        kept_positions(fits)
    ), ~fits & ~nothing


def lists_from_text(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Read lists of numbers, split at commas, or at spaces where no row has a comma.

    Parameters
    ----------
    text
        Text (N,) of any type: ``[1, 2]``, ``(1,2)``, ``1 2``.
    kind
        The type of an element.

    Returns
    -------
    Array
        list<kind> (N,); null where the text is missing or cannot be read.
    Mask
        (N,), true where the text cannot be read.
    """
    text = as_binary(text)
    present = ~np.asarray(is_missing(text))
    if not present.all():
        text = text.filter(pa.array(present))
    _, offsets_buffer, data_buffer = text.buffers()
    bad = np.zeros(len(present), bool)
    if len(text) == 0 or data_buffer is None:
        return list_array(np.empty(0), np.zeros(len(present), np.int64), kind), bad
    offsets = np.frombuffer(offsets_buffer, np.int32)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    begin, end = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
    bracket = np.isin(data[begin], _OPEN) & np.isin(data[end - 1], _CLOSE) & (end - begin >= 2)
    begin, end = begin + bracket, end - bracket
    commas = np.flatnonzero(data[offsets[0] : offsets[-1]] == _COMMA) + int(offsets[0])
    if len(commas):
        begins = np.sort(np.concatenate([begin, commas + 1]), kind="stable")
        ends = np.sort(np.concatenate([commas, end]), kind="stable")
        begins += (data[np.minimum(begins, len(data) - 1)] == _SPACE) & (begins < ends)
        counts = np.searchsorted(commas, end) - np.searchsorted(commas, begin) + 1
        values, unread = _tokens(begins, ends, data_buffer)
    else:
        values, unread, counts = _spaced(text)
    wrong = np.zeros(len(text), bool)
    if unread.any():
        wrong[np.repeat(np.arange(len(text)), counts)[unread]] = True
        values = values[~np.repeat(wrong, counts)]
        counts = np.where(wrong, 0, counts)
    lengths = np.zeros(len(present), np.int64)
    lengths[present] = counts
    bad[present] = wrong
    return list_array(pa.array(values).cast(kind, safe=False), lengths, kind), bad


def _spaced(text: pa.Array) -> tuple[NDArray[np.float64], Mask, NDArray[np.int64]]:
    """Numbers (T,) with blanks between, which of them are none, and how many a row (N,) has."""
    plain = pc.ascii_trim(as_string(text), "[]() \t\r\n")
    split = pc.ascii_split_whitespace(plain)
    counts = pc.list_value_length(split).to_numpy(zero_copy_only=False).astype(np.int64)
    floats, unread = floats_from_text(split.flatten())
    return floats.to_numpy(zero_copy_only=False), unread, counts


def _tokens(
    begins: NDArray[np.int64], ends: NDArray[np.int64], data: pa.Buffer
) -> tuple[NDArray[np.float64], Mask]:
    """The numbers (T,) written between each begin and end, and a mask (T,) of what is none."""
    count = len(begins)
    if count == 0:
        return np.empty(0), np.zeros(0, bool)
    offsets = np.empty(2 * count, np.int32)
    # Token, gap, token, gap, …: the gaps are null, so that nothing is copied or read there.
    offsets[0::2], offsets[1::2] = begins, ends
    valid = np.full((2 * count - 1 + 7) // 8, 0b01010101, np.uint8)
    pieces = pa.StringArray.from_buffers(
        2 * count - 1, pa.py_buffer(offsets), data, pa.py_buffer(valid)
    )
    try:
        values = np.frombuffer(pieces.cast(pa.float64()).buffers()[1], np.float64)
        return values[: 2 * count - 1 : 2], np.zeros(count, bool)
    except pa.ArrowInvalid:
        floats, unread = floats_from_text(pieces.take(pa.array(np.arange(0, 2 * count, 2))))
        return floats.to_numpy(zero_copy_only=False), unread
