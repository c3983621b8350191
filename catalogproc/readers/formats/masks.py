"""Masks that a table keeps in columns of their own: ``NAME.mask`` beside ``NAME``.

astropy writes a masked column so to Parquet, and to ECSV with ``serialize_method="data_mask"``;
behind the mask stands whatever was there before, after a join another row's value. A masked
value is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import list_array

SUFFIX = ".mask"

_WORDS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def mask_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the mask column of each masked column.

    Parameters
    ----------
    names
        All columns of a table.
    """
    known = set(names)
    return {name: name + SUFFIX for name in known if name + SUFFIX in known}


def masked(values: pa.Array, mask: pa.Array) -> pa.Array:
    """Return a column with null where its mask is true.

    Parameters
    ----------
    values
        The column (N,): numbers, text, lists of numbers, or lists written out as text.
    mask
        Its mask (N,): one truth value per row, or, for lists, one per element. Null means
        not masked.

    Returns
    -------
    Array
        (N,); an element of a list that is masked is null, and so is the whole list where all
        of its elements are masked.

    Raises
    ------
    ValueError
        The mask is neither, or a list and its mask have different lengths.
    """
    values, mask = coerce.plain(values), coerce.plain(mask)
    if coerce.is_text(mask.type):
        mask = _from_text(mask)
    if coerce.is_list(mask.type):
        return _masked_lists(values, mask)
    if not coerce.is_number(mask.type):
        raise ValueError(f"a mask of type {mask.type}")
    hidden = pc.fill_null(coerce.numbers(mask, pa.bool_())[0], False)
    return pc.if_else(hidden, pa.scalar(None, values.type), values)


def _from_text(mask: pa.Array) -> pa.Array:
    """A mask from text: words such as True and False, or lists of them as JSON."""
    texts = [None if text is None else text.strip().lower() for text in _decoded(mask)]
    if any(text and text.startswith("[") for text in texts):
        rows = [json.loads(text) if text else None for text in texts]
        return pa.array(rows, pa.list_(pa.bool_()))
    unknown = sorted({text for text in texts if text and text not in _WORDS})
    if unknown:
        raise ValueError(f"a mask that holds {unknown[0]!r}, not True or False")
    return pa.array([_WORDS[text] if text else None for text in texts], pa.bool_())


def _decoded(text: pa.Array) -> list[str | None]:
    return [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for value in text.to_pylist()
    ]


def _masked_lists(values: pa.Array, mask: pa.Array) -> pa.Array:
    lists, _ = coerce.lists(values, pa.float64())
    flags, _ = coerce.lists(mask, pa.float64())
    counts, flag_counts = _lengths(lists), _lengths(flags)
    unequal = np.flatnonzero((counts != flag_counts) & (counts > 0) & (flag_counts > 0))
    if len(unequal):
        row = int(unequal[0])
        raise ValueError(f"a list of {counts[row]} elements with a mask of {flag_counts[row]}")
    # A list without a mask has none of its elements masked; a mask without a list has no use.
    hidden = np.zeros(int(counts.sum()), bool)
    hidden[np.repeat(flag_counts > 0, counts)] = _flat(flags)[
        np.repeat(counts > 0, flag_counts)
    ].astype(bool)
    numbers = np.where(hidden, np.nan, _flat(lists))
    starts = np.cumsum(counts) - counts
    seen = np.add.reduceat(~hidden, starts[counts > 0]) if len(hidden) else np.zeros(0)
    kept = counts.copy()
    kept[np.flatnonzero(counts > 0)[seen == 0]] = 0
    return list_array(numbers[np.repeat(kept > 0, counts)], kept, pa.float64())


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(counts.to_numpy(zero_copy_only=False), dtype=np.int64)


def _flat(lists: pa.Array) -> NDArray[np.float64]:
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
