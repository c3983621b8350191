"""Colours and their errors; magnitudes from the spectrum itself where none are given.

A magnitude is a linear functional of the XP coefficients: GaiaXPy's filter tables hold, for
each pass-band, one weight a coefficient and a zero-point. They are read from the installed
GaiaXPy as data; importing it would cost 1.4 s and silence warnings in the whole process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import CatalogprocError, ReleaseError

Float = NDArray[np.float64]

MAGNITUDE_PER_RELATIVE = 2.5 / np.log(10.0)
"""Error in magnitudes of a relative error in flux."""

BP_ZERO_POINT_ERROR, RP_ZERO_POINT_ERROR = 0.0027901700, 0.0037793818
"""Errors of the DR3 zero-points in the Vega system, mag (Riello et al. 2021)."""

NO_MAGNITUDE = 99.0
"""2MASS files write 99.999 for a magnitude that was not measured."""

SYSTEM = "GaiaDr3Vega"
MODEL = "v375wiv142r"  # the instrument model of the archive's DR3 spectra, GaiaXPy's default


@dataclass(frozen=True)
class Passbands:
    """The pass-bands of a photometric system as functionals of XP coefficients.

    The flux in a band is ``bp @ weights["bp"][k] + rp @ weights["rp"][k]`` (W m-2 nm-1), its
    magnitude ``zero_points[k] - 2.5 log10(flux)``. ``wavelengths`` are mean wavelengths, nm.
    """

    names: tuple[str, ...]
    wavelengths: Float  # (K,)
    zero_points: Float  # (K,)
    weights: dict[str, Float]  # band: (K, n)


@dataclass(frozen=True)
class Magnitudes:
    """G, BP and RP magnitudes (N,) and their standard errors (N,), NaN where unknown."""

    g: Float
    bp: Float
    rp: Float
    e_g: Float
    e_bp: Float
    e_rp: Float


@cache
def passbands(system: str = SYSTEM) -> Passbands:
    """A photometric system of GaiaXPy, by the name in its filter files.

    Raises
    ------
    CatalogprocError
        The installed GaiaXPy has no such filter file.
    """
    package = find_spec("gaiaxpy")
    folder = Path(next(iter((package and package.submodule_search_locations) or ("",))))
    path = folder / "config" / "filters" / f"XpFilter_{system}_{MODEL}.xml"
    if not path.is_file():
        raise CatalogprocError(
            "GaiaXPy's filter table is not there",
            wanted=path,
            todo="install GaiaXPy 2.1.5, or give the stars' photometry with --gaia-source",
        )
    root = ElementTree.parse(path).getroot()

    def numbers(place: str) -> Float:
        return np.array([float(item.text or "nan") for item in root.findall(f"{place}/*")])

    names = tuple(item.text or "" for item in root.findall("bands/item"))
    weights = {}
    for band in ("bp", "rp"):
        sampled = numbers(f"XpSampling/{band}SampledBases").reshape(len(names), -1)
        weights[band] = sampled * numbers(f"XpMerge/{band}Weights")[:, None]
    return Passbands(
        names, numbers("XpMerge/sampleMeanWavelengths"), numbers("zeropoints"), weights
    )


def can_synthesise(bp_count: int, rp_count: int) -> bool:
    """Whether GaiaXPy's filter tables are for spectra of so many coefficients."""
    weights = passbands().weights
    return (bp_count, rp_count) == (weights["bp"].shape[1], weights["rp"].shape[1])


def synthetic_photometry(
    bp: NDArray[np.floating],
    rp: NDArray[np.floating],
    bp_errors: NDArray[np.floating] | None = None,
    rp_errors: NDArray[np.floating] | None = None,
    bp_correlations: NDArray[np.floating] | None = None,
    rp_correlations: NDArray[np.floating] | None = None,
) -> Magnitudes:
    """G, BP and RP (Vega, Gaia DR3) of spectra, from their coefficients alone.

    What ``gaiaxpy.generate`` gives (Gaia Collaboration, Montegriffo et al. 2023), without
    truncation and without its ``error_correction``.

    Parameters
    ----------
    bp, rp
        Coefficients as published (N, n), electrons per second.
    bp_errors, rp_errors
        Their errors as published (N, n). Without them the magnitudes' errors are NaN.
    bp_correlations, rp_correlations
        Their correlations as published, packed (N, n(n-1)/2). Without them the errors are
        taken for independent.

    Where a band is missing (a row of NaN) all three magnitudes are NaN, as in GaiaXPy: the
    pass-bands reach over both. A flux that is not positive gives NaN.

    Raises
    ------
    ReleaseError
        Spectra of another release: the tables are for another number of coefficients.
    """
    system = passbands()
    for name, coefficients in (("bp", bp), ("rp", rp)):
        if coefficients.shape[1] != system.weights[name].shape[1]:
            raise ReleaseError(
                f"no synthetic photometry for {name.upper()} spectra of another release",
                wanted=f"{system.weights[name].shape[1]} coefficients",
                found=coefficients.shape[1],
                todo="give the stars' photometry with --gaia-source",
            )
    flux = _project(bp, system.weights["bp"]) + _project(rp, system.weights["rp"])
    flux[~(flux > 0)] = np.nan
    magnitudes = system.zero_points[:, None] - 2.5 * np.log10(flux)  # (K, N)
    errors = np.full_like(flux, np.nan)
    if bp_errors is not None and rp_errors is not None:
        variance = _variance(bp_errors, bp_correlations, system.weights["bp"])
        variance += _variance(rp_errors, rp_correlations, system.weights["rp"])
        errors = MAGNITUDE_PER_RELATIVE * np.sqrt(variance) / flux
    at = [system.names.index(name) for name in ("G", "BP", "RP")]
    return Magnitudes(*magnitudes[at], *errors[at])


def _project(values: NDArray[np.floating], weights: Float) -> Float:
    """weights (K, n) times values (N, n): (K, N)."""
    # einsum, not a matrix product: BLAS rounds a row in ways that depend on its neighbours.
    return np.asarray(np.einsum("kj,ij->ki", weights, values, dtype=np.float64))


def _variance(
    errors: NDArray[np.floating], correlations: NDArray[np.floating] | None, weights: Float
) -> Float:
    """w C w (K, N) for weights w (K, n) and the covariance C of the coefficients."""
    squares = np.square(errors, dtype=np.float64)
    variance = _project(squares, np.square(weights))
    if correlations is not None:
        row, column = np.tril_indices(errors.shape[1], -1)
        terms = np.asarray(errors, dtype=np.float64)[:, row] * errors[:, column] * correlations
        variance += _project(terms, 2.0 * weights[:, row] * weights[:, column])
    return variance


def magnitude_error(flux_over_error: ArrayLike, zero_point_error: float) -> Float:
    """Error of a magnitude (N,) from the flux's signal to noise (N,) and the zero-point's error."""
    snr = np.asarray(flux_over_error, dtype=np.float64)
    relative = MAGNITUDE_PER_RELATIVE / np.where(snr > 0, snr, np.nan)
    return np.asarray(np.hypot(relative, zero_point_error))


def bp_rp_error(bp_flux_over_error: ArrayLike, rp_flux_over_error: ArrayLike) -> Float:
    """Error of BP - RP in mag (N,), with the zero-points' errors; NaN where a flux's is unknown."""
    return np.hypot(
        magnitude_error(bp_flux_over_error, BP_ZERO_POINT_ERROR),
        magnitude_error(rp_flux_over_error, RP_ZERO_POINT_ERROR),
    )


def tmass_magnitude(magnitude: ArrayLike, good: NDArray[np.bool_]) -> Float:
    """A 2MASS magnitude, or its error (N,), NaN where it is a filler or not ``good`` (N,)."""
    value = np.asarray(magnitude, dtype=np.float64)
    return np.where(good & (value < NO_MAGNITUDE), value, np.nan)


def colour(first: Float, second: Float, e_first: Float, e_second: Float) -> tuple[Float, Float]:
    """A colour and its error (N,), mag; errors in quadrature."""
    return first - second, np.hypot(e_first, e_second)
