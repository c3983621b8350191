"""Correlations of canonical coefficients: factors of their covariance.

The covariance P D Sigma D^T P^T is singular and crosses bands, so that it is used through a factor
and never inverted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.canonical_tables import (
    bands_of,
    columns,
    kinds,
    operators,
    read_arrays,
)
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
ByBand = Mapping[str, NDArray[np.floating]]

_BLOCK = 512  # stars whose covariances are made at a time


def covariance_factor(
    name: str, errors: Float, correlations: ByBand, release: Release | None = None
) -> Float:
    """Return A (N, n, m) with A A^T the covariance of canonical coefficients.

    Parameters
    ----------
    name
        The operator: "both" (n and m count BP, then RP), "bp" or "rp".
    errors
        Errors as published (N, m), electrons per second.
    correlations
        By band, packed as published (N, b(b-1)/2); a row with a NaN, or a band that is absent,
        gets the mean correlations of real spectra.
    release
        The release of the coefficients; by default the one whose basis canonical ones have.
    """
    triangle = triangles(name, release, len(errors), correlations)
    operator = operators(release)[name]
    return np.asarray(operator.projection @ (errors[:, :, None] * triangle))


def correlation_factor(
    errors: ByBand, correlations: ByBand, release: Release | None = None
) -> NDArray[np.float32]:
    """Return A (N, C, M) with A A^T the correlations of all C canonical coefficients, BP first.

    Parameters
    ----------
    errors
        By band, errors as published (N, m), M in both bands, NaN where the band is missing: its
        rows are 0. Of canonical coefficients their own errors are as good, as both agree to some
        per cent.
    correlations
        As of :func:`covariance_factor`.
    release
        As of :func:`covariance_factor`.
    """
    both = np.concatenate([errors[band] for band in BANDS], axis=1)
    if release is not None and release.bridge is not None:
        return _mean_correlation_factor(kinds(both, release), len(both))
    found = np.zeros((len(both), columns("both").stop, both.shape[1]), dtype=np.float32)
    for name, rows in kinds(both, release).items():
        part, own = columns(name), columns(name, release)
        for block in np.array_split(np.flatnonzero(rows), 1 + int(rows.sum()) // _BLOCK):
            packed = {b: correlations[b][block] for b in bands_of(name) if b in correlations}
            matrix = covariance_factor(name, both[block, own].astype(np.float64), packed, release)
            length = np.sqrt(np.square(matrix).sum(axis=2, keepdims=True))
            found[block, part, own] = matrix / np.where(length > 0, length, 1.0)
    return found


def _mean_correlation_factor(kinds: Mapping[str, Mask], size: int) -> NDArray[np.float32]:
    """Return A (N, C, C) of the mean correlations of real spectra, of which no errors are known."""
    width = columns("both").stop
    found = np.zeros((size, width, width), dtype=np.float32)
    shape = read_arrays()["error_shape"]
    for name, rows in kinds.items():
        part = columns(name)
        matrix = covariance_factor(name, shape[None, part], {})[0]
        length = np.sqrt(np.square(matrix).sum(axis=1, keepdims=True))
        found[np.flatnonzero(rows), part, part] = matrix / np.where(length > 0, length, 1.0)
    return found


def triangles(name: str, release: Release | None, size: int, correlations: ByBand) -> Float:
    """Return T (N, m, m) with T T^T the correlations of each star."""
    factor = operators(release)[name].factor
    triangle = np.broadcast_to(factor, (size, *factor.shape)).copy()
    start = columns(name, release).start
    for band in bands_of(name):
        packed = correlations.get(band)
        if packed is None:
            continue
        place = columns(band, release)
        own = slice(place.start - start, place.stop - start)
        known = np.flatnonzero(np.isfinite(packed).all(axis=1))
        matrix = spectra.correlation_matrix(packed[known])
        triangle[known, own, own] = spectra.correlation_factor(matrix)
    return triangle
