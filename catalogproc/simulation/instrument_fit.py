"""Corrections of the instrument's matrix and of the model fluxes, fitted to real spectra.

Each real star is matched with reddened ATLAS9 models that fit its calibrated spectrum. The matched
model covers all wavelengths of the instrument, so the difference between its simulated
coefficients and the star's real ones is an error of the instrument model; it is nearly the same
for all stars. Linear corrections of the response and of the coefficients remove it.
build_grids.py calls these functions and writes the result into grids/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.features.flux_calibration import Calibration
from catalogproc.simulation.atmospheres import Atmospheres, Grid
from catalogproc.simulation.instrument import BANDS, Band, band_matrix, interpolation

Float = NDArray[np.float64]

LIBRARY_SIZE, LIBRARY_SEED = 60_000, 5
"""Number of models to match with, and the seed of their parameters."""

NEAREST = 15
"""Number of best-fitting models whose weighted mean is the matched model."""

MATCH_RANGE = (400.0, 980.0)
"""Wavelengths over which spectra are compared, nm."""

TOLERANCE = ((330.0, 0.03), (449.0, 0.03), (451.0, 0.012), (1050.0, 0.012))
"""Relative difference of one sigma, by wavelength in nm."""

RESOLUTION = {"BP": 0.5, "RP": 0.6}
"""Resolution of a calibrated spectrum: standard deviation in pseudo-wavelength."""

SINGLE_BAND_RANGE = {"BP": (380.0, 636.0), "RP": (642.0, 1010.0)}
"""Wavelengths where the calibrated spectrum comes from one band and is not dominated by noise,
nm."""

SMOOTHING, ITERATIONS = 10.0, 15
"""Smoothing scale of the response correction in nm; number of iterations to find it."""

BINS = {"BP": (330.0, 690.0, 8), "RP": (600.0, 1060.0, 8)}
"""First and last centre, nm, and number of the broad bins of the coefficients' correction."""

RIDGE = 1e-3
"""Ridge penalty of the coefficients' correction, per star."""

PRIOR_WIDTH, PRECISION = 0.1, 0.003
"""Last correction: prior standard deviation of a coefficient, in units of its spread among real
stars, and relative error of the calibrated flux."""


@dataclass(frozen=True)
class MatchedPairs:
    """N real stars and the models matched with them.

    Attributes
    ----------
    flux
        Flux of the matched models (N, W) over the G flux of the stars.
    misfit
        Mean squared difference (N,) in units of TOLERANCE.
    wavelength
        Wavelengths (L',) of ``residual``, nm.
    residual
        Relative difference (N, L') of the real calibrated flux from that of the model.
    """

    flux: Float
    misfit: Float
    wavelength: Float
    residual: Float


def design_matrix(calibration: Calibration) -> Float:
    """Return the matrix (L, n_bp + n_rp) from the coefficients of both bands to merged flux.

    Parameters
    ----------
    calibration
        GaiaXPy's flux calibration.
    """
    return np.concatenate([calibration.weights[band.name.lower()] for band in BANDS], axis=1)


def resolution(band: Band, wavelength: Float, at: Float, folder: Path) -> Float:
    """Return the matrix (L, W) that smooths flux to the resolution of a calibrated spectrum.

    Parameters
    ----------
    band
        BP or RP.
    wavelength
        Wavelengths of the flux to smooth (W,), nm.
    at
        Wavelengths of the result (L,), nm.
    folder
        Folder of the instrument's tables (grids/instrument).
    """
    from scipy.interpolate import CubicSpline

    dispersion = np.genfromtxt(folder / f"{band.model}_dispersion.csv", delimiter=",")
    slope = np.abs(CubicSpline(*dispersion)(at, 1))
    fine = np.arange(wavelength[0], 1100.0, 2.0)
    offset = (fine - at[:, None]) * slope[:, None]  # in pseudo-wavelength
    kernel = np.exp(-0.5 * (offset / RESOLUTION[band.name]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.asarray(kernel @ interpolation(wavelength, fine))


def merged_resolution(calibration: Calibration, wavelength: Float, folder: Path) -> Float:
    """Return the matrix (L, W) that smooths flux, both bands merged as GaiaXPy does.

    Parameters
    ----------
    calibration
        GaiaXPy's flux calibration, at L wavelengths.
    wavelength
        Wavelengths of the flux to smooth (W,), nm.
    folder
        Folder of the instrument's tables (grids/instrument).
    """
    at, merge = calibration.wavelengths, calibration.merge
    parts = [
        resolution(band, wavelength, at, folder) * merge[band.name.lower()][:, None]
        for band in BANDS
    ]
    return np.asarray(np.sum(parts, axis=0))


def giant_models(grid: Grid) -> Float:
    """Return the flux (M, W) of the grid's models of giants, with mean 1 from 600 to 800 nm.

    Parameters
    ----------
    grid
        The ATLAS9 grid; models of 4000 to 7000 K and log g 1 to 3.5 are used.
    """
    in_teff = (grid.teff >= 4000) & (grid.teff <= 7000)
    in_logg = (grid.logg >= 1) & (grid.logg <= 3.5)
    flux = np.exp(grid.log_flux[:, in_teff][:, :, in_logg].astype(np.float64))
    return _unit_level(flux.reshape(-1, flux.shape[-1]), grid.wavelength)


def _unit_level(flux: Float, wavelength: Float) -> Float:
    middle = (wavelength > 600) & (wavelength < 800)
    return np.asarray(flux / flux[:, middle].mean(1, keepdims=True))


def library(atmospheres: Atmospheres) -> Float:
    """Return the flux (LIBRARY_SIZE, W) of reddened stars, with mean 1 from 600 to 800 nm.

    Parameters
    ----------
    atmospheres
        Interpolated model atmospheres; Teff is 3500 to 8000 K, log g 0 to 5, [M/H] -2.2 to
        0.5, true E(B-V) 0.003 to 1.5 mag, R_V 2.8 to 3.4.
    """
    random = torch.Generator().manual_seed(LIBRARY_SEED)
    u = torch.rand(5, LIBRARY_SIZE, generator=random)
    teff, logg, m_h = 3500 + 4500 * u[0] ** 1.3, 5 * u[1], -2.2 + 2.7 * u[2].sqrt()
    ebv, r_v = 3e-3 * 500 ** u[3], 2.8 + 0.6 * u[4]
    log_flux = atmospheres.log_flux(m_h, teff, logg)
    log_flux -= 0.4 * np.log(10.0) * atmospheres.extinction(ebv, r_v)
    return _unit_level(torch.exp(log_flux).numpy().astype(np.float64), atmospheres.wavelength)


def match_stars(
    coefficients: Float, calibration: Calibration, models: Float, smooth: Float, factor: Float
) -> MatchedPairs:
    """Match real stars with the models that fit their calibrated spectra best.

    Parameters
    ----------
    coefficients
        Real coefficients over the G flux (N, n_bp + n_rp).
    calibration
        GaiaXPy's flux calibration, at L wavelengths.
    models
        Flux of the models (M, W).
    smooth
        The matrix (L, W) of :func:`merged_resolution`.
    factor
        Known correction of the models' flux (W,).
    """
    from scipy.special import softmax

    at = calibration.wavelengths
    used = (at >= MATCH_RANGE[0]) & (at <= MATCH_RANGE[1])
    real = (coefficients @ design_matrix(calibration).T)[:, used]
    model = (models * factor) @ smooth[used].T
    weight = 1 / np.interp(at[used], *np.array(TOLERANCE).T) ** 2
    weight /= weight.sum()
    y, x = np.log(np.maximum(real, 1e-3 * real.max(1, keepdims=True))), np.log(model)
    y_level, x_level = y @ weight, x @ weight
    square = ((y - y_level[:, None]) ** 2 @ weight)[:, None] + (
        (x - x_level[:, None]) ** 2
    ) @ weight
    square -= 2 * ((y - y_level[:, None]) * weight) @ (x - x_level[:, None]).T  # (N, M)
    nearest = np.argpartition(square, NEAREST, axis=1)[:, :NEAREST]
    distance = np.take_along_axis(square, nearest, axis=1)
    share = softmax(-0.5 * distance / distance.min(1, keepdims=True), axis=1)
    level = np.exp(y_level[:, None] - x_level[nearest]) * share
    flux = np.einsum("nk,nkw->nw", level, models[nearest] * factor)
    residual = real / (flux @ smooth[used].T) - 1
    mean_tolerance = 1 / np.mean(1 / np.interp(at[used], *np.array(TOLERANCE).T) ** 2)
    return MatchedPairs(flux, distance.min(1) / mean_tolerance, at[used], residual)


def flux_correction(pairs: MatchedPairs, wavelength: Float) -> Float:
    """Return the factor (W,) of real stars' calibrated flux over that of their matched models.

    Parameters
    ----------
    pairs
        Real stars and matched models.
    wavelength
        Wavelengths (W,), nm; outside those of the pairs the factor is 1.
    """
    from scipy.ndimage import gaussian_filter1d

    typical = gaussian_filter1d(np.median(pairs.residual, axis=0), 4.0)
    return np.asarray(1 + np.interp(wavelength, pairs.wavelength, typical, left=0, right=0))


def response_correction(
    band: Band, wavelength: Float, models: Float, calibration: Calibration, folder: Path
) -> Float:
    """Return the smooth factor (W,) on a band's response that GaiaXPy's calibration requires.

    With it the calibrated flux of simulated coefficients equals the models' flux in the median.
    It is found by iteration.

    Parameters
    ----------
    band
        BP or RP.
    wavelength
        Wavelengths (W,), nm.
    models
        Flux of the models (M, W).
    calibration
        GaiaXPy's flux calibration.
    folder
        Folder of the instrument's tables (grids/instrument).
    """
    from scipy.ndimage import gaussian_filter1d

    low, high = SINGLE_BAND_RANGE[band.name]
    used = (calibration.wavelengths >= low) & (calibration.wavelengths <= high)
    at, matrix = calibration.wavelengths[used], calibration.design[band.name.lower()][used]
    target = models @ resolution(band, wavelength, at, folder).T
    forward = band_matrix(band, wavelength, folder)
    factor = np.ones_like(wavelength)
    for _ in range(ITERATIONS):
        ratio = np.median(target / (models * factor @ forward.T @ matrix.T), axis=0)
        factor = factor * np.interp(wavelength, at, gaussian_filter1d(ratio, SMOOTHING / 2))
    return factor


def coefficient_correction(
    band: Band, matrix: Float, wavelength: Float, flux: Float, coefficients: Float
) -> Float:
    """Return the correction (n, W) to add to a band's matrix, by ridge regression.

    With it the matched models' flux gives the real coefficients. The regressors are the flux in
    broad bins.

    Parameters
    ----------
    band
        BP or RP.
    matrix
        The band's matrix (n, W).
    wavelength
        Wavelengths (W,), nm.
    flux
        Flux of the matched models (N, W) over the G flux of the stars.
    coefficients
        Real coefficients of the band over the G flux (N, n).
    """
    centres = np.linspace(*BINS[band.name])
    width = centres[1] - centres[0]
    bins = np.clip(1 - np.abs(wavelength - centres[:, None]) / width, 0, None)
    bins = bins * np.gradient(wavelength)
    binned = flux @ bins.T
    typical = binned.mean(0)
    binned = binned / typical
    normal = binned.T @ binned + RIDGE * len(binned) * np.eye(len(bins))
    slopes = np.linalg.solve(normal, binned.T @ (coefficients - flux @ matrix.T))
    return np.asarray(slopes.T @ (bins / typical[:, None]))


def agree_with_calibration(
    matrix: Float, calibration: Calibration, smooth: Float, coefficients: Float
) -> Float:
    """Return the matrix (n, W) updated so that GaiaXPy's calibration recovers the flux.

    The least-squares update of a Gaussian prior about ``matrix`` (standard deviation:
    PRIOR_WIDTH times the spread of the real coefficients) by the calibrated flux, with the
    relative error PRECISION.

    Parameters
    ----------
    matrix
        From flux to the coefficients of both bands (n, W).
    calibration
        GaiaXPy's flux calibration, at L wavelengths.
    smooth
        The matrix (L, W) of :func:`merged_resolution`.
    coefficients
        Real coefficients over the G flux (N, n).
    """
    at = calibration.wavelengths
    used = (at >= 390) & (at <= 1000)
    design, target = design_matrix(calibration)[used], smooth[used]
    middle = np.median(coefficients, axis=0)
    spread = 1.4826 * np.median(np.abs(coefficients - middle), axis=0)
    prior = (PRIOR_WIDTH * spread) ** 2
    error = PRECISION * np.median(coefficients @ design.T, axis=0)
    covariance = (design * prior) @ design.T + np.diag(error**2)
    gain = (prior[:, None] * design.T) @ np.linalg.inv(covariance)
    return np.asarray(matrix + gain @ (target - design @ matrix))
