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

from catalogproc.readers.arrow_lists import Mask, list_array, matrix_lists
from catalogproc.readers.text_values import (
    as_binary,
    as_string,
    floats_from_text,
    integers_from_text,
    is_missing,
    kept_positions,
    lists_from_text,
    without_designation,
)

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
    array = plain(array)
    if pt.is_null(array.type):
        return array.cast(pa.int64()), np.zeros(len(array), bool)
    if is_text(array.type):
        ids, bad = integers_from_text(without_designation(as_binary(array)))
    else:
        ids, bad = _cast_or_mark(array, pa.int64())
    return pc.if_else(pc.less_equal(ids, 0), pa.scalar(None, pa.int64()), ids), bad


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
    array = plain(array)
    if pt.is_null(array.type):
        return array.cast(kind), np.zeros(len(array), bool)
    if is_text(array.type):
        if pt.is_integer(kind):
            # "31.0" is how pandas writes a 31 that has nulls beside it.
            array = pc.replace_substring_regex(as_string(array), r"\.0*$", "")
            array, bad = integers_from_text(array)
            array, wide = _cast_or_mark(array, kind)
            return array, bad | wide
        array, bad = floats_from_text(array)
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
    array = plain(array)
    if not is_text(array.type):
        return array.cast(pa.string())
    array = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(is_missing(array), pa.scalar(None, pa.string()), array)


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
    array = plain(array)
    none = np.zeros(len(array), bool)
    if pt.is_null(array.type):
        return list_array(np.empty(0), np.zeros(len(array), np.int64), kind), none
    if is_text(array.type):
        return lists_from_text(array, kind)
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    counts = counts.astype(np.int64)
    elements = plain(array.flatten())
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


def triangles(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Convert correlations of n numbers to list<kind> of the n (n - 1) / 2 below the diagonal.

    Parameters
    ----------
    array
        Such lists (N,) in any form that :func:`lists` reads, or symmetric matrices as lists of n
        lists of n numbers, as GaiaXPy has them in memory.
    kind
        The wanted type of an element.

    Returns
    -------
    Array
        (N,), row by row of the matrix; null where missing.
    Mask
        (N,), true for what is neither.
    """
    array = plain(array)
    if not (is_list(array.type) and is_list(array.type.value_type)):
        return lists(array, kind)
    packed: list[Any] = []
    bad = np.zeros(len(array), bool)
    for row, rows in enumerate(array.to_pylist()):
        packed.append(None)
        if rows is None:
            continue
        if len(rows) == 1:
            packed[-1] = rows[0]
            continue
        lengths = {-1 if numbers is None else len(numbers) for numbers in rows}
        matrix = np.array(rows, np.float64) if lengths == {len(rows)} else np.zeros((1, 2))
        bad[row] = matrix.T.shape != matrix.shape or not np.allclose(
            matrix, matrix.T, rtol=0, atol=1e-5, equal_nan=True
        )
        if not bad[row]:
            packed[-1] = matrix[np.tril_indices(len(rows), -1)]
    made = pa.array(packed, pa.list_(pa.float64()))
    return lists(made, kind)[0], bad


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


def samples(array: pa.Array, rows: NDArray[np.int64]) -> list[str]:
    """Return the values of some rows as short texts, for messages.

    Parameters
    ----------
    array
        The column (N,).
    rows
        The numbers of the rows.
    """
    array = plain(array)
    if is_text(array.type):
        array = as_binary(array)
    shown = []
    for row in rows:
        value = array[int(row)].as_py()
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        shown.append(repr(text if len(text) <= 40 else text[:37] + "..."))
    return shown


def plain(array: Any) -> Any:
    """Return an array without dictionary, run-ends, extension, views or chunks.

    Parameters
    ----------
    array
        An Array or ChunkedArray (N,).
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    while array.type != stored_type(array.type):
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif pt.is_dictionary(array.type):
            # Arrow takes nothing from views, as polars has them in its categories.
            array = plain(array.dictionary).take(array.indices)
        else:
            array = pc.run_end_decode(array)
    if pt.is_string_view(array.type):
        return array.cast(pa.string())
    return array.cast(pa.binary()) if pt.is_binary_view(array.type) else array


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
    return array.filter(pa.array(fits)).cast(kind).take(kept_positions(fits)), present & ~fits
