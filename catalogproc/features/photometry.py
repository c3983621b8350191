"""Colours and their errors; synthetic magnitudes from XP coefficients.

The flux in a pass-band is a linear function of the XP coefficients, one weight per coefficient
(Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33). The weights and zero-points are
GaiaXPy's (gaiaxpy_tables.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features import gaiaxpy_tables
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

MAGNITUDE_PER_RELATIVE = 2.5 / np.log(10.0)
"""Error in magnitudes of a relative error in flux."""

NO_MAGNITUDE = 99.0
"""2MASS files write 99.999 for a magnitude that was not measured."""


@dataclass(frozen=True)
class Passbands:
    """K pass-bands as linear functions of the XP coefficients.

    The flux in pass-band k is ``bp @ weights["bp"][k] + rp @ weights["rp"][k]``, its magnitude
    ``zero_points[k] - 2.5 log10(flux)``.

    Attributes
    ----------
    names
        Names of the pass-bands.
    wavelengths
        Mean wavelengths (K,), nm.
    zero_points
        Zero-points (K,), mag.
    weights
        By band (bp, rp): weights (K, n), W m-2 nm-1 per electron per second.
    """

    names: tuple[str, ...]
    wavelengths: Float  # (K,)
    zero_points: Float  # (K,)
    weights: dict[str, Float]  # band: (K, n)


@dataclass(frozen=True)
class Magnitudes:
    """G, BP and RP magnitudes (N,) and their standard errors (N,) in mag; NaN is unknown."""

    g: Float
    bp: Float
    rp: Float
    e_g: Float
    e_bp: Float
    e_rp: Float


@cache
def passbands(release: Release) -> Passbands:
    """Read the pass-bands G, BP and RP of a release.

    Parameters
    ----------
    release
        The release.

    Raises
    ------
    ReleaseError
        They are not known, or their file is missing.
    """
    names = (f"passband_{name}" for name in ("wavelengths", "zero_points", *BANDS))
    tables = gaiaxpy_tables.tables_for(release, "its pass-bands", *names)
    return Passbands(
        gaiaxpy_tables.PASSBANDS,
        tables["passband_wavelengths"],
        tables["passband_zero_points"],
        {band: tables[f"passband_{band}"] for band in BANDS},
    )


def synthetic_photometry(
    bp: NDArray[np.floating],
    rp: NDArray[np.floating],
    release: Release,
    errors: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    correlations: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Magnitudes:
    """Return G, BP and RP (Vega system) computed from XP coefficients alone.

    The result equals that of ``gaiaxpy.generate`` (Gaia Collaboration, Montegriffo et al. 2023,
    A&A 674, A33) without truncation and without ``error_correction``.

    Parameters
    ----------
    bp, rp
        Coefficients as published (N, n), electrons per second.
    release
        The release that published them.
    errors
        Errors as published, of BP (N, n) and of RP. Without them the magnitudes' errors are NaN.
    correlations
        Correlations as published, of BP, packed (N, n(n-1)/2), and of RP. Without them the
        errors are treated as independent.

    Returns
    -------
    Magnitudes
        Where a band is missing (a row of NaN) all three magnitudes are NaN, as in GaiaXPy,
        because each pass-band overlaps both BP and RP. A flux that is not positive gives NaN.

    Raises
    ------
    ReleaseError
        The number of coefficients is not that of the release, or its pass-bands are not known.
    """
    system = passbands(release)
    _check_count("bp", bp.shape[1], system)
    _check_count("rp", rp.shape[1], system)
    flux = _project(bp, system.weights["bp"]) + _project(rp, system.weights["rp"])
    flux[~(flux > 0)] = np.nan
    magnitudes = system.zero_points[:, None] - 2.5 * np.log10(flux)  # (K, N)
    e_magnitudes = np.full_like(flux, np.nan)
    if errors is not None:
        bp_packed, rp_packed = correlations or (None, None)
        variance = _variance(errors[0], bp_packed, system.weights["bp"])
        variance += _variance(errors[1], rp_packed, system.weights["rp"])
        e_magnitudes = MAGNITUDE_PER_RELATIVE * np.sqrt(variance) / flux
    at = [system.names.index(name) for name in ("G", "BP", "RP")]
    return Magnitudes(*magnitudes[at], *e_magnitudes[at])


def _check_count(band: str, found: int, system: Passbands) -> None:
    """Raise ReleaseError unless the weights fit the number of coefficients."""
    wanted = system.weights[band].shape[1]
    if found != wanted:
        raise ReleaseError(
            f"no synthetic photometry for {band.upper()} spectra of another release",
            wanted=f"{wanted} coefficients",
            found=found,
            advice="give the stars' photometry with --gaia-source",
        )


def _project(values: NDArray[np.floating], weights: Float) -> Float:
    """Return the products (K, N) of weights (K, n) and values (N, n)."""
    # einsum, not a matrix product: with BLAS the rounding of a row depends on the other rows.
    return np.asarray(np.einsum("kj,ij->ki", weights, values, dtype=np.float64))


def _variance(
    errors: NDArray[np.floating], correlations: NDArray[np.floating] | None, weights: Float
) -> Float:
    """Return the variances w C w (K, N) of weights w (K, n), C the coefficients' covariance."""
    squares = np.square(errors, dtype=np.float64)
    variance = _project(squares, np.square(weights))
    if correlations is not None:
        row, column = np.tril_indices(errors.shape[1], -1)
        terms = np.asarray(errors, dtype=np.float64)[:, row] * errors[:, column] * correlations
        variance += _project(terms, 2.0 * weights[:, row] * weights[:, column])
    return variance


def magnitude_error(flux_over_error: ArrayLike, zero_point_error: float) -> Float:
    """Return the errors of magnitudes (N,) in mag; NaN where the flux's error is unknown.

    Parameters
    ----------
    flux_over_error
        Signal-to-noise ratios of the fluxes (N,).
    zero_point_error
        Error of the zero-point, mag.
    """
    snr = np.asarray(flux_over_error, dtype=np.float64)
    relative = MAGNITUDE_PER_RELATIVE / np.where(snr > 0, snr, np.nan)
    return np.asarray(np.hypot(relative, zero_point_error))


def bp_rp_error(
    bp_flux_over_error: ArrayLike, rp_flux_over_error: ArrayLike, release: Release
) -> Float:
    """Return the errors of BP - RP (N,) in mag, including those of the zero-points.

    Parameters
    ----------
    bp_flux_over_error, rp_flux_over_error
        Signal-to-noise ratios of the fluxes (N,); an unknown one gives NaN.
    release
        The release, for the errors of the zero-points.
    """
    return np.hypot(
        magnitude_error(bp_flux_over_error, release.magnitude("BP").zero_point_error),
        magnitude_error(rp_flux_over_error, release.magnitude("RP").zero_point_error),
    )


def tmass_magnitude(magnitude: ArrayLike, good: NDArray[np.bool_]) -> Float:
    """Return 2MASS magnitudes, or their errors, with NaN for those not measured.

    Parameters
    ----------
    magnitude
        Magnitudes or errors (N,), mag; values of 99 and more mean "not measured".
    good
        Which ones have usable photometry (N,).
    """
    value = np.asarray(magnitude, dtype=np.float64)
    return np.where(good & (value < NO_MAGNITUDE), value, np.nan)


def colour(first: Float, second: Float, e_first: Float, e_second: Float) -> tuple[Float, Float]:
    """Return a colour and its error (N,) in mag; errors are added in quadrature.

    Parameters
    ----------
    first, second
        Magnitudes (N,).
    e_first, e_second
        Their errors (N,), mag.
    """
    return first - second, np.hypot(e_first, e_second)
