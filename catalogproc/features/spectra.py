"""XP spectra as matrices: which coefficients count, on what scale, with what covariance.

Everything works on all stars of a batch at once, and row by row the same: a star's
numbers do not depend on which stars stand beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import ReleaseError

Float = NDArray[np.float64]

G_ZERO_POINT = 25.6873668671
"""G magnitude (Vega) of one electron per second in DR3 (Riello et al. 2021)."""

TAIL = 3
"""The last so many coefficients are relevant where the one before them is."""


def matrix(column: pa.Array | pa.ChunkedArray, count: int) -> NDArray[np.floating[Any]]:
    """A column of lists of ``count`` numbers as a matrix (N, count), in the column's own type.

    A null list becomes a row of NaN, a null inside a list becomes NaN. Without nulls the
    matrix is a read-only view of Arrow's memory.

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


def relevant_number(
    n_relevant: pa.Array | pa.ChunkedArray | None, present: NDArray[np.bool_], count: int
) -> NDArray[np.int16]:
    """How many coefficients of a band carry signal (N,).

    As published in ``n_relevant``; where it is null, or no such column was given, all
    ``count`` of them; 0 where the band is not ``present``.
    """
    if n_relevant is None:
        published = np.full(len(present), count, dtype=np.int16)
    else:
        published = pc.fill_null(n_relevant.cast(pa.int16()), count).to_numpy(zero_copy_only=False)
    return np.where(present, published, 0).astype(np.int16)


def relevance(n_relevant: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Which coefficients are relevant (N, count), from the number of relevant bases (N,).

    Coefficient i is relevant where i < n_relevant; the last three are relevant where the
    one before them is, and only there. So Leung & Bovy (2024) trained, and with 55
    coefficients this is their ``rel[52:55] = rel[51]``.
    """
    number = np.asarray(n_relevant)
    if count > TAIL:
        before_tail = count - TAIL
        number = np.where(number >= before_tail, count, number)
    return np.asarray(np.arange(count) < number[:, None])


def g_flux(magnitude: ArrayLike, flux: ArrayLike | None = None) -> Float:
    """G flux in electrons per second (N,): as given, else from the magnitude.

    ``F_G = 10^((25.6873668671 - G) / 2.5)`` (Leung & Bovy 2024, eq. 8). A given flux that
    is not positive counts as not given. NaN where neither is known.
    """
    derived = 10.0 ** (0.4 * (G_ZERO_POINT - np.asarray(magnitude, dtype=np.float64)))
    if flux is None:
        return np.asarray(derived)
    given = np.asarray(flux, dtype=np.float64)
    return np.where(given > 0, given, derived)


def g_magnitude(flux: ArrayLike) -> Float:
    """G magnitude (N,) of a G flux in electrons per second; NaN where that is not positive."""
    flux = np.asarray(flux, dtype=np.float64)
    return G_ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def normalise(coefficients: ArrayLike, errors: ArrayLike, flux: ArrayLike) -> tuple[Float, Float]:
    """Coefficients and their errors (N, n) divided by the G flux (N,) (Leung & Bovy 2024, eq. 8).

    The error of the G flux is not added, as in training: it is common to all coefficients
    of a star.
    """
    scale = np.asarray(flux, dtype=np.float64)[:, None]
    return np.asarray(coefficients) / scale, np.asarray(errors) / scale


def correlation_matrix(packed: ArrayLike) -> Float:
    """Correlation matrices (N, n, n) from their strict lower triangles, row by row (N, n(n-1)/2).

    Raises
    ------
    ReleaseError
        The number of values is no triangle's.
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


def covariance(errors: ArrayLike, packed: ArrayLike) -> Float:
    """Covariances (N, n, n) of coefficients: diag(e) R diag(e).

    ``errors`` (N, n) are as published: they already hold the standard deviation of the fit,
    by which GaiaXPy divides to get its formal covariance. ``packed`` (N, n(n-1)/2) are the
    correlations R as published.
    """
    e = np.asarray(errors, dtype=np.float64)
    return np.asarray(e[:, :, None] * e[:, None, :] * correlation_matrix(packed))
