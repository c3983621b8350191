"""Which canonical coefficients of a spectrum carry signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.canonical_tables import columns, measured
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

TAIL_RMS = 1.2
"""Coefficients past n carry no signal where the rms of value over error is below this; noise
alone gives 1, and 1.2 allows for errors that are known to 20 %."""

LAST = 25
"""So many measured coefficients at the end of a band are noise alone in most stars."""


def relevance(band: str, values: NDArray[np.floating], errors: NDArray[np.floating]) -> Mask:
    """Return which canonical coefficients of a band are measured and carry signal (N, n).

    Parameters
    ----------
    band
        "bp" or "rp".
    values, errors
        Canonical coefficients and errors (N, n), of any common unit.

    Notes
    -----
    Signal ends at the smallest n for which the rms of value over error past n is below
    TAIL_RMS. Coefficients that are nearly pure prior are absent and do not count.
    """
    number = relevant_number(band, values, errors)
    return np.asarray((np.arange(values.shape[1]) < number[:, None]) & measured()[columns(band)])


def measured_by_band() -> dict[str, Mask]:
    """Return by band which coefficients (n,) are measured rather than pure prior."""
    return {band: measured()[columns(band)] for band in BANDS}


def relevant_number(
    band: str, values: NDArray[np.floating], errors: NDArray[np.floating]
) -> NDArray[np.int16]:
    """Return the number of canonical coefficients of a band up to the end of the signal (N,).

    Parameters
    ----------
    band
        "bp" or "rp".
    values, errors
        Canonical coefficients and errors (N, n). Where errors are unknown all coefficients
        count, and none where the band is missing.
    """
    found = np.empty(len(values), dtype=np.int16)
    for rows in spectra.blocks(len(values)):
        found[rows] = _relevant_number(band, values[rows], errors[rows])
    return found


def _relevant_number(
    band: str, values: NDArray[np.floating], errors: NDArray[np.floating]
) -> NDArray[np.int16]:
    count = values.shape[1]
    use = measured()[columns(band)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        squares = np.where(use, np.square(values / errors), 0.0)
        tail = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1]
        left = np.maximum(np.cumsum(use[::-1])[::-1], 1)
        quiet = tail < TAIL_RMS**2 * left
    number = np.where(quiet.any(axis=1), quiet.argmax(axis=1), count)
    return np.where(np.isfinite(values).all(axis=1), number, 0).astype(np.int16)


def followed_noise(
    band: str,
    values: NDArray[np.floating],
    errors: NDArray[np.floating],
    least: NDArray[np.floating] | float,
) -> Float:
    """Return the scatter of a band's noise over its errors (N,), where a map follows part of it.

    It is the rms of the last coefficients, where few stars have signal, from ``least`` to 1.
    What a map follows of the noise are few directions, so that it differs from star to star.

    Parameters
    ----------
    band
        "bp" or "rp".
    values, errors
        Canonical coefficients and errors (N, n), of any common unit.
    least
        Smallest scatter.
    """
    last = np.flatnonzero(measured()[columns(band)])[-LAST:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rms = np.sqrt(np.mean(np.square(values[:, last] / errors[:, last]), axis=1))
    return np.asarray(np.clip(np.nan_to_num(rms, nan=1.0), least, 1.0))
