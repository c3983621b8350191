"""Build Arrow lists: coefficients of a spectrum, one list per star."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


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


def scaled(array: pa.Array, factor: float) -> pa.Array:
    """Return lists of numbers times a factor.

    Parameters
    ----------
    array
        Lists (N,), or numbers (N,) where the factor is 1.
    factor
        The factor.
    """
    if factor == 1.0:
        return array
    values = array.values
    return pa.ListArray.from_arrays(
        array.offsets,
        pc.multiply(values, pa.scalar(factor, values.type)),
        mask=pc.is_null(array) if array.null_count else None,
    )


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
