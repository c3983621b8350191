"""Convert columns of files to the types of our contracts.

All dialects end here: lists of several kinds, lists written out as text, dictionaries, wide and
narrow numbers, numbers as text. A value that cannot be read becomes null and is marked; it never
becomes another value, and an identifier is never converted to a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# How text tables, pandas, R, astropy and JSON write that a value is missing.
_NOTHING = pa.array(
    [
        b"",
        b"null",
        b"NULL",
        b"None",
        b"nan",
        b"NaN",
        b"NAN",
        b"--",
        b"[]",
        b"()",
        b"\\N",
        b"NA",
        b"N/A",
        b"n/a",
        b"<NA>",
    ],
    pa.binary(),
)
_LONGEST_NOTHING = 4
_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?|[nN]a[nN])$"
_INTEGER = r"^-?\d{1,19}$"
_COMMA, _SPACE = ord(","), ord(" ")
_OPEN, _CLOSE = np.frombuffer(b"[(", np.uint8), np.frombuffer(b"])", np.uint8)
_LIST_TYPES = (
    pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view,
)  # fmt: skip


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type below dictionaries, run-ends and extensions.

    Parameters
    ----------
    kind
        The type of a column.
    """
    while True:
        if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def is_text(kind: pa.DataType) -> bool:
    kind = stored_type(kind)
    return bool(
        pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
        or pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)
    )  # fmt: skip


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of numbers, or a list of such lists."""
    kind = stored_type(kind)
    if not any(test(kind) for test in _LIST_TYPES):
        return False
    return is_number(kind.value_type) or is_list(kind.value_type)


def is_integer(kind: pa.DataType) -> bool:
    kind = stored_type(kind)
    return bool(pt.is_integer(kind) or (pt.is_decimal(kind) and kind.scale == 0))


def is_number(kind: pa.DataType) -> bool:
    kind = stored_type(kind)
    return bool(
        pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind)
        or pt.is_null(kind)
    )  # fmt: skip


def identifiers(array: pa.Array) -> tuple[pa.Array, Mask]:
    """Return Gaia source identifiers as int64, without a float on the way.

    Parameters
    ----------
    array
        Integers or text (N,): digits, or a designation such as ``Gaia DR3 4295806720``.

    Returns
    -------
    Array
        (N,); null where there is none (null, empty, 0 or negative) or it cannot be read.
    Mask
        (N,), true where there is something that cannot be read.
    """
    array = _plain(array)
    if pt.is_null(array.type):
        return array.cast(pa.int64()), np.zeros(len(array), bool)
    if is_text(array.type):
        ids, bad = _integers_from_text(_without_designation(_as_binary(array)))
    else:
        ids, bad = _cast_or_mark(array, pa.int64())
    return pc.if_else(pc.less_equal(ids, 0), pa.scalar(None, pa.int64()), ids), bad


def _without_designation(text: pa.Array) -> pa.Array:
    """The digits of designations of EDR3 and DR3, which share their identifiers."""
    starts = pc.fill_null(pc.starts_with(text, b"Gaia "), False)
    if not pc.any(starts).as_py():
        return text
    return pc.replace_substring_regex(text, rb"^\s*Gaia E?DR3 (\d+)\s*$", rb"\1")


def numbers(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Convert numbers or text to a numeric or boolean type.

    Parameters
    ----------
    array
        Numbers or text (N,).
    kind
        The wanted type.

    Returns
    -------
    Array
        (N,); null where the value is null, NaN, missing, or cannot be read.
    Mask
        (N,), true where there is something that cannot be read.
    """
    array = _plain(array)
    if pt.is_null(array.type):
        return array.cast(kind), np.zeros(len(array), bool)
    if is_text(array.type):
        if pt.is_integer(kind):
            # "31.0" is how pandas writes a 31 that has nulls beside it.
            array = pc.replace_substring_regex(_as_string(array), r"\.0*$", "")
            array, bad = _integers_from_text(array)
            array, wide = _cast_or_mark(array, kind)
            return array, bad | wide
        array, bad = _floats_from_text(array)
    else:
        bad = np.zeros(len(array), bool)
    if pt.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if pt.is_floating(kind):
        return array.cast(kind, safe=False), bad
    array, unfit = _cast_or_mark(array, kind)
    return array, bad | unfit


def words(array: pa.Array) -> pa.Array:
    """Convert text to strings without surrounding blanks; null where it is missing.

    Parameters
    ----------
    array
        Text of any type (N,).

    Raises
    ------
    ArrowInvalid
        The text is not UTF-8.
    """
    array = _plain(array)
    if not is_text(array.type):
        return array.cast(pa.string())
    array = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(_is_nothing(array), pa.scalar(None, pa.string()), array)


def lists(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Convert lists of numbers, or lists written out as text, to list<kind>.

    Parameters
    ----------
    array
        Lists of any type (N,), lists of one list each, or text such as ``"(a, b)"``, ``"[a,b]"``
        and ``"a b"``.
    kind
        The wanted type of an element.

    Returns
    -------
    Array
        (N,); a list that is missing, empty or without any number is null and has no elements,
        a missing element is NaN.
    Mask
        (N,), true for a list that cannot be read.
    """
    array = _plain(array)
    none = np.zeros(len(array), bool)
    if pt.is_null(array.type):
        return list_array(np.empty(0), np.zeros(len(array), np.int64), kind), none
    if is_text(array.type):
        return _lists_from_text(array, kind)
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    counts = counts.astype(np.int64)
    elements = _plain(array.flatten())
    if is_list(elements.type):
        return _nested_lists(elements, counts, kind)
    return list_array(elements.cast(kind, safe=False), counts, kind), none


def _nested_lists(
    inner: pa.Array, counts: NDArray[np.int64], kind: pa.DataType
) -> tuple[pa.Array, Mask]:
    """Lists of one list each, as their only list; one of several lists cannot be read."""
    flat, _ = lists(inner, kind)
    lengths = pc.fill_null(pc.list_value_length(flat), 0).to_numpy(zero_copy_only=False)
    bad = counts > 1
    single = np.repeat(~bad, counts)
    own = np.zeros(len(counts), np.int64)
    own[counts == 1] = lengths[single]
    return list_array(flat.filter(pa.array(single)).flatten(), own, kind), bad


def gathered(columns: Sequence[pa.Array], kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Combine columns of one element each to lists.

    Parameters
    ----------
    columns
        The columns (N,), in the order of the elements.
    kind
        The wanted type of an element.

    Returns
    -------
    Array
        Lists (N,); null where no element is known, which is how such a table says that a band is
        missing.
    Mask
        (N,), true for a row that cannot be read.
    """
    matrix = np.empty((len(columns[0]), len(columns)), kind.to_pandas_dtype())
    bad = np.zeros(len(matrix), bool)
    for position, column in enumerate(columns):
        values, unread = numbers(column, kind)
        matrix[:, position] = values.to_numpy(zero_copy_only=False)
        bad |= unread
    return matrix_lists(matrix, kind, lost=bad), bad


def matrix_lists(matrix: NDArray[Any], kind: pa.DataType, lost: Mask | None = None) -> pa.Array:
    """Convert the rows of a matrix to lists.

    Parameters
    ----------
    matrix
        Numbers (N, C).
    kind
        The type of an element.
    lost
        Rows (N,) that become null; so do rows with nothing but NaN.
    """
    absent = np.isnan(matrix).all(axis=1)
    if lost is not None:
        absent |= lost
    counts = np.where(absent, 0, matrix.shape[1])
    return list_array(matrix[~absent].ravel() if absent.any() else matrix.ravel(), counts, kind)


def list_array(values: Any, counts: NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    """Build lists from all their elements.

    Parameters
    ----------
    values
        The elements of all lists, one list after the other.
    counts
        The number of elements (N,) of each list. A list without elements, or with nothing but
        NaN, becomes null.
    kind
        The type of an element.
    """
    if not isinstance(values, pa.Array):
        values = pa.array(values, kind)
    if values.null_count:
        values = pc.fill_null(values, float("nan"))
    if pt.is_floating(values.type):
        values, counts = _without_missing(values, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    empty = counts == 0
    mask = pa.array(empty) if empty.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _without_missing(
    values: pa.Array, counts: NDArray[np.int64]
) -> tuple[pa.Array, NDArray[np.int64]]:
    """Elements and lengths without the lists that hold nothing but NaN."""
    numbers = values.to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[rows]
    if not np.isnan(numbers[starts]).any():
        return values, counts
    missing = rows[np.add.reduceat(~np.isnan(numbers), starts) == 0]
    kept = np.ones(len(counts), bool)
    kept[missing] = False
    return values.filter(pa.array(np.repeat(kept, counts))), np.where(kept, counts, 0)


def samples(array: pa.Array, rows: NDArray[np.int64]) -> list[str]:
    """Return the values of some rows as short texts, for messages.

    Parameters
    ----------
    array
        The column (N,).
    rows
        The numbers of the rows.
    """
    array = _plain(array)
    if is_text(array.type):
        array = _as_binary(array)
    said = []
    for row in rows:
        value = array[int(row)].as_py()
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        said.append(repr(text if len(text) <= 40 else text[:37] + "..."))
    return said


def _plain(array: Any) -> Any:
    """Return the array without dictionary, run-ends, extension or chunks."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    while array.type != stored_type(array.type):
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif pt.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            array = pc.run_end_decode(array)
    return array


def _as_binary(text: pa.Array) -> pa.Array:
    return text if text.type == pa.binary() else text.cast(pa.binary())


def _as_string(text: pa.Array) -> pa.Array:
    """View text as strings without checking the encoding; only ASCII is used of it."""
    return _as_binary(text).view(pa.string())


def _is_nothing(text: pa.Array) -> pa.Array:
    """Return which entries (N,) are null or a word for a missing value; never null itself."""
    text = _as_binary(text)
    nothing = np.asarray(pc.is_null(text))
    short = pc.fill_null(pc.less_equal(pc.binary_length(text), _LONGEST_NOTHING), False)
    where = np.flatnonzero(short)
    if len(where):
        nothing = nothing.copy()
        nothing[where] |= np.asarray(pc.is_in(text.take(pa.array(where)), _NOTHING))
    return pa.array(nothing)


def _without_nothing(text: pa.Array) -> pa.Array:
    return pc.if_else(_is_nothing(text), pa.scalar(None, text.type), text)


def _cast_or_mark(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Cast the values that fit; the others become null and are marked."""
    try:
        return array.cast(kind), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        pass
    bounds = np.iinfo(kind.to_pandas_dtype())
    # Element by element, and as Python's own numbers, which are exact: this is the path of
    # the odd file that has such values at all.
    fits = np.array(
        [
            value is not None and bounds.min <= value <= bounds.max and value == int(value)
            for value in array.to_pylist()
        ],
        bool,
    )
    present = np.asarray(pc.is_valid(array))
    return array.filter(pa.array(fits)).cast(kind).take(_positions(fits)), present & ~fits


def _positions(kept: Mask) -> pa.Array:
    """Return the place of each row among the kept ones; null for the others."""
    return pa.array(np.cumsum(kept) - 1, mask=~kept)


def _integers_from_text(text: pa.Array) -> tuple[pa.Array, Mask]:
    text = _as_string(text)
    try:
        return _without_nothing(text).cast(pa.int64()), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        text = pc.ascii_trim_whitespace(text)
    nothing = np.asarray(_is_nothing(text))
    digits = np.asarray(pc.fill_null(pc.match_substring_regex(text, _INTEGER), False))
    # 19 digits can pass 2^63: of equal length, text orders as numbers do.
    unsigned = pc.ascii_ltrim(text, "-")
    wide = np.asarray(pc.fill_null(pc.equal(pc.binary_length(unsigned), 19), False))
    beyond = np.asarray(pc.fill_null(pc.greater(unsigned, "9223372036854775807"), False))
    fits = digits & ~(wide & beyond)
    return text.filter(pa.array(fits)).cast(pa.int64()).take(_positions(fits)), ~fits & ~nothing


def _floats_from_text(text: pa.Array) -> tuple[pa.Array, Mask]:
    text = _as_string(text)
    try:
        return _without_nothing(text).cast(pa.float64()), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        text = pc.ascii_trim_whitespace(text)
    nothing = np.asarray(_is_nothing(text))
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False))
    return text.filter(pa.array(fits)).cast(pa.float64()).take(_positions(fits)), ~fits & ~nothing


def _lists_from_text(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Split at commas, or at spaces where no row has a comma, and read all numbers at once."""
    text = _as_binary(text)
    present = ~np.asarray(_is_nothing(text))
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
    plain = pc.ascii_trim(_as_string(text), "[]() \t\r\n")
    split = pc.ascii_split_whitespace(plain)
    counts = pc.list_value_length(split).to_numpy(zero_copy_only=False).astype(np.int64)
    floats, unread = _floats_from_text(split.flatten())
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
        floats, unread = _floats_from_text(pieces.take(pa.array(np.arange(0, 2 * count, 2))))
        return floats.to_numpy(zero_copy_only=False), unread
