"""Canonical coefficients: one vector for archive coefficients and for sampled flux.

Sampled flux is F = D c of the archive's coefficients c. Canonical coefficients are
k = P F = P D c with a fixed inverse P, P D P = P (canonical_tables.py); D is that of the
coefficients' own release. So k of canonical
coefficients is k again, and D k is the flux of D c to 1.4e-6. A star with one band has that band's
own operator, because a band set to zero moves the other one's coefficients by 12 to 18 errors.

All coefficients are projected first and masked afterwards: a mask applied before would move the
coefficients that are left by 0.2 of their error. The covariance P D Sigma D^T P^T is singular
and crosses bands, so that it is used through a factor and never inverted.

A star's numbers do not depend on the other stars of the batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features import spectra
from catalogproc.features.bridge import read_bridge
from catalogproc.features.canonical_tables import columns, measured, operators, read_arrays
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.sampled_errors import canonical_errors
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS, CANONICAL_RELEASE

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
ByBand = Mapping[str, NDArray[np.floating]]

BASIS_ID = "canonical-dr3-1"
"""Identifies the operators in files of canonical coefficients."""

TAIL_RMS = 1.2
"""Coefficients past n carry no signal where the rms of value over error is below this; noise
alone gives 1, and 1.2 allows for errors that are known to 20 %."""

LAST = 25
"""So many measured coefficients at the end of a band are noise alone in most stars."""

_BLOCK = 512  # stars whose covariances are made at a time


@dataclass(frozen=True)
class CanonicalSpectra:
    """Canonical coefficients of N stars and their errors, electrons per second.

    Attributes
    ----------
    values, errors
        By band (N, n), all coefficients, none masked; a row of NaN where the band is missing,
        or the error is unknown.
    noise
        By band: smallest scatter of coefficients without signal over their errors (N,); empty where
        it is 1. A bridge does not follow all noise.
    """

    values: Mapping[str, Float]
    errors: Mapping[str, Float]
    noise: Mapping[str, Float] = field(default_factory=dict)

    def relevant(self) -> dict[str, Mask]:
        """Return by band which coefficients (N, n) are measured and carry signal."""
        return {band: relevance(band, self.values[band], self.errors[band]) for band in self.values}

    def relevant_numbers(self) -> dict[str, NDArray[np.int16]]:
        """Return by band the number of coefficients up to the end of the signal (N,)."""
        found = {}
        for band, errors in self.errors.items():
            values = self.values[band]
            if self.noise:
                noise = followed_noise(band, values, errors, self.noise[band])
                errors = errors * noise[:, None]
            found[band] = relevant_number(band, values, errors)
        return found


def from_coefficients(
    coefficients: ByBand,
    errors: ByBand,
    correlations: ByBand | None = None,
    already: Mask | None = None,
    release: Release | None = None,
) -> CanonicalSpectra:
    """Return the canonical coefficients of published ones.

    Parameters
    ----------
    coefficients, errors
        By band, as published (N, m), electrons per second; a row with a NaN is a missing band.
    correlations
        By band, packed as published (N, m(m-1)/2); the mean ones of real spectra are assumed
        for a star without.
    already
        Stars (N,) whose coefficients and errors are canonical: they stay as they are.
    release
        The release of the coefficients; by default the one whose basis canonical ones have.

    Raises
    ------
    ReleaseError
        The number of coefficients is not that of the release, or its design matrices are not
        known.
    """
    values, published = (
        np.concatenate([_checked(band, by_band[band], release) for band in BANDS], axis=1)
        for by_band in (coefficients, errors)
    )
    result = np.full((len(values), columns("both").stop), np.nan)
    result_errors = np.full(result.shape, np.nan)
    noise = {band: np.ones(len(values)) for band in BANDS} if _is_bridged(release) else {}
    for name, rows in _kinds(values, release).items():
        part, place = columns(name), columns(name, release)
        at = slice(None) if rows.all() else rows  # without a copy where there is one kind
        own = values[at, place], published[at, place]
        if release is not None and release.bridge is not None:
            found = read_bridge(release)[name]
            result[at, part] = found.values(own[0])
            by_band = {band: published[at, columns(band, release)] for band in _bands(name)}
            result_errors[at, part] = found.errors(name, by_band, result[at, part])
            for band in _bands(name):
                noise[band][at] = found.noise[band]
            continue
        operator = operators(release)[name]
        result[at, part] = spectra.project(own[0], operator.projection)
        result_errors[at, part] = _deviations(
            spectra.project(np.square(own[1]), operator.error_weights), own[1]
        )
        known = _with_correlations(correlations, name, rows)
        if correlations is not None and known.any():
            packed = {band: correlations[band][rows][known] for band in _bands(name)}
            matrix = covariance_factor(name, own[1][known], packed, release)
            deviations = np.sqrt(np.square(matrix).sum(axis=2))
            result_errors[np.flatnonzero(rows)[known], part] = deviations
    if already is not None:
        result[already], result_errors[already] = values[already], published[already]
    return CanonicalSpectra(_split(result), _split(result_errors), noise)


def _deviations(variance: Float, published: NDArray[np.floating]) -> Float:
    """Return the errors of canonical coefficients (N, n) from their variances.

    Of errors unlike any real spectrum's a variance may be negative: there errors stay as published,
    or are of the size of the sum where the release has other coefficients.
    """
    size = np.sqrt(np.abs(variance))
    instead = published if published.shape == variance.shape else size
    return np.asarray(np.where(variance > 0, size, instead))


def _is_bridged(release: Release | None) -> bool:
    return release is not None and release.bridge is not None


def from_flux(flux: NDArray[np.floating], errors: NDArray[np.floating]) -> CanonicalSpectra:
    """Return the canonical coefficients of sampled flux.

    Parameters
    ----------
    flux, errors
        Flux and its errors (N, L) in W m-2 nm-1 at the 343 wavelengths of GaiaXPy's default
        sampling, 336 to 1020 nm. A band is missing where the flux of its own pixels has a NaN.

    Raises
    ------
    ReleaseError
        Another number of wavelengths.
    """
    wanted = len(calibration(load_release(CANONICAL_RELEASE)).wavelengths)
    for found in (flux.shape[1], errors.shape[1]):
        if found != wanted:
            raise ReleaseError(
                "sampled spectra on another grid",
                wanted=f"{wanted} wavelengths, 336 to 1020 nm",
                found=found,
            )
    values = np.asarray(flux, dtype=np.float64)
    result = np.full((len(values), columns("both").stop), np.nan)
    result_errors = np.full(result.shape, np.nan)
    for name, rows in _by_operator(*bands_of_flux(values)).items():
        operator = operators()[name]
        result[rows, columns(name)] = spectra.project(
            values[rows][:, operator.pixels], operator.inverse
        )
        for band in _bands(name):
            result_errors[rows, columns(band)] = canonical_errors(
                np.asarray(errors[rows], dtype=np.float64), band, alone=name != "both"
            )
    return CanonicalSpectra(_split(result), _split(result_errors))


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
        As of :func:`from_coefficients`.
    """
    triangle = _triangles(name, release, len(errors), correlations)
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
        As of :func:`from_coefficients`.
    """
    both = np.concatenate([errors[band] for band in BANDS], axis=1)
    if _is_bridged(release):
        return _mean_correlation_factor(_kinds(both, release), len(both))
    found = np.zeros((len(both), columns("both").stop, both.shape[1]), dtype=np.float32)
    for name, rows in _kinds(both, release).items():
        part, own = columns(name), columns(name, release)
        for block in np.array_split(np.flatnonzero(rows), 1 + int(rows.sum()) // _BLOCK):
            packed = {b: correlations[b][block] for b in _bands(name) if b in correlations}
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


def _checked(
    band: str, values: NDArray[np.floating], release: Release | None
) -> NDArray[np.floating]:
    part = columns(band, release)
    if values.shape[1] != part.stop - part.start:
        raise ReleaseError(
            f"no canonical coefficients of {band.upper()} spectra of another release",
            wanted=f"{part.stop - part.start} coefficients",
            found=values.shape[1],
        )
    return values


def _kinds(values: NDArray[np.floating], release: Release | None) -> dict[str, Mask]:
    """Return which stars (N,) have both bands, BP alone and RP alone."""
    bp, rp = (
        np.asarray(np.isfinite(values[:, columns(band, release)]).all(axis=1)) for band in BANDS
    )
    return _by_operator(bp, rp)


def bands_of_flux(flux: NDArray[np.floating]) -> tuple[Mask, Mask]:
    """Return which sampled spectra have BP, and which RP (N,).

    A band is there where the flux at all wavelengths that are its own is finite; between the
    bands it must be finite where both are there, else neither counts.

    Parameters
    ----------
    flux
        (N, L).
    """
    finite = np.isfinite(flux)
    bp, rp = (finite[:, operators()[band].pixels].all(axis=1) for band in BANDS)
    broken = bp & rp & ~finite.all(axis=1)
    return np.asarray(bp & ~broken), np.asarray(rp & ~broken)


def _by_operator(bp: Mask, rp: Mask) -> dict[str, Mask]:
    kinds = {"both": bp & rp, "bp": bp & ~rp, "rp": rp & ~bp}
    return {name: rows for name, rows in kinds.items() if rows.any()}


def _bands(name: str) -> tuple[str, ...]:
    return BANDS if name == "both" else (name,)


def _with_correlations(correlations: ByBand | None, name: str, rows: Mask) -> Mask:
    """Return which of the chosen rows have correlations of at least one band."""
    known = np.zeros(int(rows.sum()), dtype=bool)
    for band in _bands(name):
        if correlations and band in correlations:
            known |= np.isfinite(correlations[band][rows]).all(axis=1)
    return known


def _triangles(name: str, release: Release | None, size: int, correlations: ByBand) -> Float:
    """Return T (N, m, m) with T T^T the correlations of each star."""
    factor = operators(release)[name].factor
    triangle = np.broadcast_to(factor, (size, *factor.shape)).copy()
    start = columns(name, release).start
    for band in _bands(name):
        packed = correlations.get(band)
        if packed is None:
            continue
        place = columns(band, release)
        own = slice(place.start - start, place.stop - start)
        known = np.flatnonzero(np.isfinite(packed).all(axis=1))
        matrix = spectra.correlation_matrix(packed[known])
        triangle[known, own, own] = spectra.correlation_factor(matrix)
    return triangle


def _split(values: Float) -> dict[str, Float]:
    return {band: values[:, columns(band)] for band in BANDS}
