"""Canonical coefficients: one vector for archive coefficients and for sampled flux.

Sampled flux is F = D c of the archive's coefficients c. Canonical coefficients are
k = P F = P D c with a fixed inverse P, P D P = P (canonical_tables.py); D is that of the
coefficients' own release. So k of canonical
coefficients is k again, and D k is the flux of D c to 1.4e-6. A star with one band has that band's
own operator, because a band set to zero moves the other one's coefficients by 12 to 18 errors.

All coefficients are projected first and masked afterwards (canonical_signal.py): a mask applied
before would move the coefficients that are left by 0.2 of their error. Their covariances are in
canonical_correlations.py.

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
from catalogproc.features.canonical_correlations import covariance_factor
from catalogproc.features.canonical_signal import followed_noise, relevance, relevant_number
from catalogproc.features.canonical_tables import bands_of, by_operator, columns, kinds, operators
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.sampled_errors import canonical_errors
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS, CANONICAL_RELEASE

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
ByBand = Mapping[str, NDArray[np.floating]]

BASIS_ID = "canonical-dr3-1"
"""Identifies the operators in files of canonical coefficients."""


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
    noise = (
        {band: np.ones(len(values)) for band in BANDS}
        if release is not None and release.bridge is not None
        else {}
    )
    for name, rows in kinds(values, release).items():
        part, place = columns(name), columns(name, release)
        at = slice(None) if rows.all() else rows  # without a copy where there is one kind
        own = values[at, place], published[at, place]
        if release is not None and release.bridge is not None:
            found = read_bridge(release)[name]
            result[at, part] = found.values(own[0])
            by_band = {band: published[at, columns(band, release)] for band in bands_of(name)}
            result_errors[at, part] = found.errors(name, by_band, result[at, part])
            for band in bands_of(name):
                noise[band][at] = found.noise[band]
            continue
        operator = operators(release)[name]
        result[at, part] = spectra.project(own[0], operator.projection)
        result_errors[at, part] = _deviations(own[1], operator.error_weights)
        known = _with_correlations(correlations, name, rows)
        if correlations is not None and known.any():
            packed = {band: correlations[band][rows][known] for band in bands_of(name)}
            matrix = covariance_factor(name, own[1][known], packed, release)
            deviations = np.sqrt(np.square(matrix).sum(axis=2))
            result_errors[np.flatnonzero(rows)[known], part] = deviations
    if already is not None:
        result[already], result_errors[already] = values[already], published[already]
    return CanonicalSpectra(_split(result), _split(result_errors), noise)


def _deviations(published: NDArray[np.floating], weights: Float) -> Float:
    """Return the errors of canonical coefficients (N, n) from published ones (N, m).

    Of errors unlike any real spectrum's a variance may be negative: there errors stay as published,
    or are of the size of the sum where the release has other coefficients.
    """
    found = np.empty((len(published), len(weights)))
    for rows in spectra.blocks(len(published)):
        own = published[rows]
        variance = spectra.project(np.square(own), weights)
        size = np.sqrt(np.abs(variance))
        found[rows] = np.where(variance > 0, size, own if own.shape == size.shape else size)
    return found


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
    for name, rows in by_operator(*bands_of_flux(values)).items():
        operator = operators()[name]
        result[rows, columns(name)] = spectra.project(
            values[rows][:, operator.pixels], operator.inverse
        )
        for band in bands_of(name):
            result_errors[rows, columns(band)] = canonical_errors(
                np.asarray(errors[rows], dtype=np.float64), band, alone=name != "both"
            )
    return CanonicalSpectra(_split(result), _split(result_errors))


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


def _with_correlations(correlations: ByBand | None, name: str, rows: Mask) -> Mask:
    """Return which of the chosen rows have correlations of at least one band."""
    known = np.zeros(int(rows.sum()), dtype=bool)
    for band in bands_of(name):
        if correlations and band in correlations:
            known |= np.isfinite(correlations[band][rows]).all(axis=1)
    return known


def _split(values: Float) -> dict[str, Float]:
    return {band: values[:, columns(band)] for band in BANDS}
