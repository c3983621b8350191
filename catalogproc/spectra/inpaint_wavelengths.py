"""Completion of a range of wavelengths from the others.

A coefficient belongs to all wavelengths of a band, so with a gap in a band none of its coefficients
is known. The model predicts them from complete parts (the other band, colours), with errors and
correlations; the flux at the wavelengths that are read then updates the prediction, as a
measurement updates a Gaussian prior (Kalman filter).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from catalogproc.features.flux_calibration import calibration
from catalogproc.features.input_errors import inflate_errors
from catalogproc.features.tokens import Tokens
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.release import Release
from catalogproc.spectra.correlations import correlations
from catalogproc.spectra.generated import Spectra, generate_spectra
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]
Ranges = tuple[tuple[float, float], ...]

BATCH = 256
"""Stars at a time: each has a matrix of a hundred coefficients squared."""

ROUNDING = 1e-4
"""Error of each wavelength's flux by itself, in the largest flux."""


def without_range(ranges: Ranges, gap: tuple[float, float]) -> Ranges:
    """Return the parts of ranges outside of a gap.

    Parameters
    ----------
    ranges
        Ranges of wavelengths, nm.
    gap
        A range, nm.
    """
    parts: list[tuple[float, float]] = []
    for low, high in ranges:
        parts += [(low, min(high, gap[0])), (max(low, gap[1]), high)]
    return tuple((low, high) for low, high in parts if low < high)


def contains_band(ranges: Ranges, edges: tuple[float, float]) -> bool:
    """Return whether a band lies in one of the ranges.

    Parameters
    ----------
    ranges
        Ranges of wavelengths, nm.
    edges
        Of the band, nm.
    """
    return any(low <= edges[0] and high >= edges[1] for low, high in ranges)


def fill_wavelengths(
    predictor: Predictor, shown: StarTokens, made: Tokens, read: Ranges
) -> tuple[Spectra, NDArray[np.bool_]]:
    """Return spectra (over the G flux) with some wavelengths known, and the stars (N,) with inputs.

    A band with tokens in ``shown`` is read completely: its coefficients are kept as measured.
    Of the others the flux is read, with errors as a run takes them (features/input_errors.py):
    published ones are underestimated, and no flux is calibrated better than to half a percent.
    Irrelevant coefficients are taken as predicted, with the model's errors.

    Parameters
    ----------
    predictor
        The model.
    shown
        Tokens that the model reads.
    made
        All tokens of the N stars.
    read
        Ranges of wavelengths that are known, nm.
    """
    vocabulary = predictor.bundle.vocabulary
    columns = [vocabulary.coefficient_columns(band) for band in BANDS]
    at, sizes = np.concatenate(columns), [len(band) for band in columns]
    predicted = generate_spectra(predictor, shown)
    mean, sigma = _joined(predicted.coefficients), _joined(predicted.errors)
    known = np.isfinite(shown.values[:, at])
    mean = np.where(known, shown.values[:, at], mean)
    sigma = np.where(known, shown.errors[:, at], sigma)
    matrix = correlations(predictor, shown)
    band_is_read = [band.any() for band in np.split(known, sizes[:1], axis=1)]
    part = np.flatnonzero(~np.repeat(band_is_read, sizes))
    design = _design(read, part, vocabulary.basis_release)
    present = np.isfinite(made.values[:, at])
    values = np.where(present, made.values[:, at], mean)
    larger = inflate_errors(made.values, made.errors, made.g_mag, vocabulary)[1][:, at]
    errors = np.where(present, larger, sigma)
    measured = np.asarray(present[:, part].any(axis=1) & (len(design) > 0))
    for row in range(len(shown)):
        after = matrix[row][np.ix_(part, part)] * np.outer(sigma[row, part], sigma[row, part])
        if measured[row]:
            mean[row, part], after = kalman_update(
                mean[row, part], after, design, values[row, part], errors[row, part]
            )
        sigma[row, part] = np.sqrt(np.maximum(np.diagonal(after), 1e-30))
        matrix[row] = np.eye(len(at), dtype=np.float32)
        matrix[row][np.ix_(part, part)] = after / np.outer(sigma[row, part], sigma[row, part])
    means, sigmas = _by_band(mean, sizes[0]), _by_band(sigma, sizes[0])
    spectra = Spectra(
        means,
        sigmas,
        np.full(len(shown), np.nan),
        matrix,
        vocabulary.basis,
        vocabulary.basis_release,
    )
    return spectra, np.asarray(np.isfinite(shown.values).any(axis=1) | measured)


def _joined(by_band: Mapping[str, Floats]) -> Floats:
    return np.asarray(np.concatenate([by_band[band] for band in BANDS], axis=1))


def _by_band(both: Floats, first: int) -> dict[str, Floats]:
    return dict(zip(BANDS, np.split(both, [first], axis=1), strict=True))


def _design(read: Ranges, part: NDArray[np.int64], release: Release) -> Floats:
    """Return the flux (L, C) at the wavelengths that are read, by C of the coefficients.

    Left out are wavelengths at which the two bands are joined, where not both are among these
    coefficients: a band of which nothing is to be read has a share in them.
    """
    bases = calibration(release)
    read_at = np.any(
        [(bases.wavelengths >= low) & (bases.wavelengths <= high) for low, high in read], axis=0
    )
    design = np.abs(every := _joined(bases.weights)[read_at])
    others = np.setdiff1d(np.arange(every.shape[1]), part)
    alone = (design[:, part].max(axis=1) > 0) & (design[:, others].sum(axis=1) == 0)
    return np.asarray(every[alone][:, part])


def kalman_update(
    mean: Floats, prior: Floats, design: Floats, value: Floats, error: Floats
) -> tuple[Floats, Floats]:
    """Return the mean (C,) and covariance (C, C) given the flux ``design @ value``.

    Parameters
    ----------
    mean, prior
        Predicted mean (C,) and covariance (C, C).
    design
        Flux at L wavelengths from C coefficients (L, C).
    value, error
        Coefficients that made the flux, and their errors (C,).
    """
    flux = design @ value
    scaled = design * error
    # More wavelengths than coefficients: their errors depend on each other, but for rounding.
    noise = scaled @ scaled.T + np.square(ROUNDING * np.abs(flux).max()) * np.eye(len(flux))
    expected = design @ prior
    gain = np.linalg.solve(expected @ design.T + noise, expected).T  # (C, L)
    left = np.eye(len(mean)) - gain @ design
    # Joseph's form stays symmetric and positive, whatever the rounding.
    after = left @ prior @ left.T + gain @ noise @ gain.T
    return mean + gain @ (flux - design @ mean), after
