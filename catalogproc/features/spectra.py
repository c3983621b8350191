"""XP coefficients as matrices: relevance, normalisation, covariance.

Functions work on all stars of a batch; a star's numbers do not depend on the other stars.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import ReleaseError

Float = NDArray[np.float64]

BLOCK = 1024
"""Rows of a pass over coefficients."""

PRODUCT_ROWS = 8
"""Rows of a product with an operator."""

TAIL = 3
"""The last so many coefficients are relevant where the one before them is."""


def matrix(column: pa.Array | pa.ChunkedArray, count: int) -> NDArray[np.floating[Any]]:
    """Convert a column of lists to a matrix (N, count) of the column's type.

    A null list becomes a row of NaN, a null in a list becomes NaN. Without nulls the matrix is a
    read-only view of Arrow's memory.

    Parameters
    ----------
    column
        N lists of numbers.
    count
        The length of each list.

    Raises
    ------
    ReleaseError
        A list of another length.
    """
    if isinstance(column, pa.ChunkedArray):
        # combine_chunks copies even what is in one piece.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    for found in (lengths["min"], lengths["max"]):
        if found not in (None, count):
            raise ReleaseError(
                "a spectrum with another number of coefficients", wanted=count, found=found
            )
    flat: NDArray[np.floating[Any]] = column.flatten().to_numpy(zero_copy_only=False)
    if not column.null_count:
        return flat.reshape(-1, count)
    if not np.issubdtype(flat.dtype, np.floating):  # a column of nulls alone has no numbers
        flat = flat.astype(np.float64)
    rows = np.full((len(column), count), np.nan, dtype=flat.dtype)
    rows[pc.is_valid(column).to_numpy(zero_copy_only=False)] = flat.reshape(-1, count)
    return rows


def project(values: NDArray[np.floating[Any]], operator: Float) -> Float:
    """Return an operator times the values of each star (N, m).

    Parameters
    ----------
    values
        (N, n).
    operator
        (m, n).
    """
    # Products of equally many rows, so that a row's rounding is always the same: a product of all
    # rows at once rounds a row by its place among them.
    turned = np.ascontiguousarray(operator.T)
    size = PRODUCT_ROWS if _round_alike(turned.shape) else 1
    rows = np.ascontiguousarray(values, dtype=np.float64)
    if lacking := -len(rows) % size:
        rows = np.concatenate([rows, np.zeros((lacking, rows.shape[1]))])
    found = rows.reshape(-1, size, rows.shape[1]) @ turned
    return np.asarray(found.reshape(-1, turned.shape[1])[: len(values)])


@cache
def _round_alike(shape: tuple[int, ...]) -> bool:
    """Return whether the BLAS of this process rounds rows alike at each place of a product."""
    random = np.random.default_rng(0)
    rows, matrix = random.normal(size=(PRODUCT_ROWS, shape[0])), random.normal(size=shape)
    first = rows @ matrix
    moved = (np.roll(np.roll(rows, n, axis=0) @ matrix, -n, axis=0) for n in range(PRODUCT_ROWS))
    return all(np.array_equal(first, found) for found in moved)


def blocks(size: int) -> Iterator[slice]:
    """Yield consecutive rows whose coefficients stay in the processor's cache.

    Parameters
    ----------
    size
        Number of rows.
    """
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))


def relevant_number(
    n_relevant: pa.Array | pa.ChunkedArray | None, present: NDArray[np.bool_], count: int
) -> NDArray[np.int16]:
    """Return the number of relevant coefficients of a band (N,).

    Parameters
    ----------
    n_relevant
        As published (N,); where null, or None, all coefficients are relevant.
    present
        The band is there (N,); else the number is 0.
    count
        Number of coefficients of the band.
    """
    if n_relevant is None:
        published = np.full(len(present), count, dtype=np.int16)
    else:
        published = pc.fill_null(n_relevant.cast(pa.int16()), count).to_numpy(zero_copy_only=False)
    return np.where(present, published, 0).astype(np.int16)


def relevance(n_relevant: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Return which coefficients are relevant (N, count).

    Coefficient i is relevant where i < n_relevant; the last three exactly where the one before
    them is. Leung & Bovy (2024) trained so; with 55 coefficients this is their
    ``rel[52:55] = rel[51]``.

    Parameters
    ----------
    n_relevant
        Number of relevant bases (N,).
    count
        Number of coefficients of the band.
    """
    number = np.asarray(n_relevant)
    if count > TAIL:
        before_tail = count - TAIL
        number = np.where(number >= before_tail, count, number)
    return np.asarray(np.arange(count) < number[:, None])


def g_flux(magnitude: ArrayLike, zero_point: float, flux: ArrayLike | None = None) -> Float:
    """Return the G flux in electrons per second (N,), as given, else from the magnitude.

    ``F_G = 10^((zero_point - G) / 2.5)`` (Leung & Bovy 2024, eq. 8).

    Parameters
    ----------
    magnitude
        G (N,), mag.
    zero_point
        G of one electron per second, mag.
    flux
        G flux (N,), electrons per second; values that are not positive are ignored.
    """
    derived = 10.0 ** (0.4 * (zero_point - np.asarray(magnitude, dtype=np.float64)))
    if flux is None:
        return np.asarray(derived)
    given = np.asarray(flux, dtype=np.float64)
    return np.where(given > 0, given, derived)


def g_magnitude(flux: ArrayLike, zero_point: float) -> Float:
    """Return the G magnitude (N,); NaN where the flux is not positive.

    Parameters
    ----------
    flux
        G flux (N,), electrons per second.
    zero_point
        G of one electron per second, mag.
    """
    flux = np.asarray(flux, dtype=np.float64)
    return zero_point - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def normalise(coefficients: ArrayLike, errors: ArrayLike, flux: ArrayLike) -> tuple[Float, Float]:
    """Divide coefficients and their errors by the G flux (Leung & Bovy 2024, eq. 8).

    The error of the G flux is not added, as in training: all coefficients of a star share it.

    Parameters
    ----------
    coefficients, errors
        (N, n), electrons per second.
    flux
        G flux (N,), electrons per second.
    """
    scale = np.asarray(flux, dtype=np.float64)[:, None]
    return np.asarray(coefficients) / scale, np.asarray(errors) / scale


def correlation_matrix(packed: ArrayLike) -> Float:
    """Return correlation matrices (N, n, n).

    Parameters
    ----------
    packed
        Strict lower triangles, row by row (N, n(n-1)/2).

    Raises
    ------
    ReleaseError
        The number of values is not that of a triangle.
    """
    values = np.asarray(packed, dtype=np.float64)
    pairs = values.shape[-1]
    count = round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    if count * (count - 1) // 2 != pairs:
        raise ReleaseError(
            "correlations that are no strict triangle of a matrix",
            wanted=f"{count * (count - 1) // 2} for {count} coefficients",
            found=pairs,
        )
    full = np.empty((len(values), count, count))
    row, column = np.tril_indices(count, -1)
    full[:, row, column] = values
    full[:, column, row] = values
    diagonal = np.arange(count)
    full[:, diagonal, diagonal] = 1.0
    return full


def correlation_factor(matrix: Float) -> Float:
    """Return T (N, n, n) with T T^T the correlation matrices.

    Parameters
    ----------
    matrix
        Correlation matrices (N, n, n). Stored in float32, one may have eigenvalues slightly
        below 0: they count as 0.
    """
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return np.stack([_factor_of_one(one) for one in matrix])


def _factor_of_one(matrix: Float) -> Float:
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def covariance(errors: ArrayLike, packed: ArrayLike) -> Float:
    """Return covariances (N, n, n) of coefficients: diag(e) R diag(e).

    Parameters
    ----------
    errors
        As published (N, n): they include the standard deviation of the fit, by which GaiaXPy
        divides to get its formal covariance.
    packed
        Correlations R as published (N, n(n-1)/2).
    """
    e = np.asarray(errors, dtype=np.float64)
    return np.asarray(e[:, :, None] * e[:, None, :] * correlation_matrix(packed))
