"""Wavelengths that are missing in a spectrum, from those that are there.

A coefficient belongs to all of a band's wavelengths, so a gap in a band leaves none of its
coefficients known. The model answers them from what is whole (the other band, colours), with
errors and how these go together; the flux at the wavelengths that are read then corrects the
answer, as a measurement does a Gaussian prior (a Kalman filter's update). The rest follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.features.flux_calibration import calibration
from catalogproc.features.input_errors import inflate_errors
from catalogproc.features.tokens import Tokens
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.correlations import correlations
from catalogproc.spectra.generated import Spectra, generate_spectra
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]
Ranges = tuple[tuple[float, float], ...]

BATCH = 256
"""Stars at a time: each has a matrix of a hundred coefficients squared."""

ROUNDING = 1e-4
"""Error of each wavelength's flux by itself, in the largest flux."""


def outside(ranges: Ranges, gap: tuple[float, float]) -> Ranges:
    """What of some ranges [nm] lies outside of a gap."""
    parts: list[tuple[float, float]] = []
    for low, high in ranges:
        parts += [(low, min(high, gap[0])), (max(low, gap[1]), high)]
    return tuple((low, high) for low, high in parts if low < high)


def whole(ranges: Ranges, edges: tuple[float, float]) -> bool:
    """Whether a band of these edges [nm] lies in one of the ranges."""
    return any(low <= edges[0] and high >= edges[1] for low, high in ranges)


def fill(
    predictor: Predictor, shown: Floats, made: Tokens, read: Ranges
) -> tuple[Spectra, NDArray[np.bool_]]:
    """Spectra (over the G flux) of which ``read`` wavelengths are known, and which stars (N,)
    have anything to go by.

    ``shown`` are the tokens (N, V) that the model is shown; a band of which it is shown some is
    read whole: its coefficients stand as they were measured. Of the others the flux is read,
    with errors as a run takes them (features/uncertainty.py): the published ones are too small,
    and no flux is calibrated better than to half a percent. Coefficients that carry no signal
    are taken as the model expects them, with its errors.
    """
    vocabulary, bases = predictor.bundle.vocabulary, calibration()
    columns = {band: vocabulary.coefficient_columns(band) for band in BANDS}
    at = np.concatenate([columns[band] for band in BANDS])
    answered = generate_spectra(predictor, shown)
    mean, sigma = (
        np.concatenate([part[band] for band in BANDS], axis=1)
        for part in (answered.coefficients, answered.errors)
    )
    known = np.isfinite(shown[:, at])
    mean, sigma = np.where(known, shown[:, at], mean), np.where(known, made.errors[:, at], sigma)
    matrix = correlations(predictor, shown)
    in_whole = np.concatenate(
        [np.full(len(columns[band]), np.isfinite(shown[:, columns[band]]).any()) for band in BANDS]
    )
    read_at = np.any(
        [(bases.wavelengths >= low) & (bases.wavelengths <= high) for low, high in read], axis=0
    )
    part = np.flatnonzero(~in_whole)
    design = np.concatenate([bases.weights[band] for band in BANDS], axis=1)[read_at][:, part]
    design = design[np.abs(design).max(axis=1) > 0]  # where these bands make some of the flux
    there = np.isfinite(made.values[:, at])
    values = np.where(there, made.values[:, at], mean)
    _, larger = inflate_errors(made.values, made.errors, made.g_mag, vocabulary)
    errors = np.where(there, larger[:, at], sigma)
    measured = np.asarray(there[:, part].any(axis=1) & (len(design) > 0))
    independent = np.eye(len(at), dtype=np.float32)
    for row in range(len(shown)):
        prior = matrix[row][np.ix_(part, part)] * np.outer(sigma[row, part], sigma[row, part])
        after = prior
        if measured[row]:
            mean[row, part], after = updated(
                mean[row, part], prior, design, values[row, part], errors[row, part]
            )
        sigma[row, part] = np.sqrt(np.maximum(np.diagonal(after), 1e-30))
        matrix[row] = independent
        matrix[row][np.ix_(part, part)] = after / np.outer(sigma[row, part], sigma[row, part])
    edge = [len(columns[BANDS[0]])]
    spectra = Spectra(
        dict(zip(BANDS, np.split(mean, edge, axis=1), strict=True)),
        dict(zip(BANDS, np.split(sigma, edge, axis=1), strict=True)),
        np.full(len(shown), np.nan),
        matrix,
    )
    return spectra, np.asarray(np.isfinite(shown).any(axis=1) | measured)


def updated(
    mean: Floats, prior: Floats, design: Floats, value: Floats, error: Floats
) -> tuple[Floats, Floats]:
    """Mean (C,) and covariance (C, C) of coefficients, once the flux ``design @ value`` is known.

    ``error`` (C,) are those of the coefficients that made that flux.
    """
    flux = design @ value
    moved = design * error
    # More wavelengths than coefficients: their errors depend on each other, but for rounding.
    noise = moved @ moved.T + np.square(ROUNDING * np.abs(flux).max()) * np.eye(len(flux))
    expected = design @ prior
    gain = np.linalg.solve(expected @ design.T + noise, expected).T  # (C, L)
    left = np.eye(len(mean)) - gain @ design
    # Joseph's form stays symmetric and positive, whatever the rounding.
    after = left @ prior @ left.T + gain @ noise @ gain.T
    return mean + gain @ (flux - design @ mean), after
