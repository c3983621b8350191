"""Models that look like real stars, and the instrument that makes their spectra from them.

Each real star gets a twin: the ATLAS9 spectrum, reddened, that fits its calibrated spectrum.
A twin reaches over all wavelengths that the instrument sees, so what is left between its
simulated and the star's real coefficients is the instrument's error, and it turns out to be
nearly the same for all stars. Two linear corrections take it up; science/reality/calibrate.py runs
this and writes the result into grids/.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.features.photometry import MODEL
from catalogproc.simulation.atmospheres import Atmospheres, Grid
from catalogproc.simulation.instrument import BANDS, Band, band_matrix, interpolation

Float = NDArray[np.float64]

LIBRARY, SEED = 60_000, 5
"""Models to choose from, and what they are drawn with."""

NEAREST = 15
"""A twin is the weighted mean of so many models that fit best."""

TWIN_RANGE = (400.0, 980.0)
"""Where spectra are compared, nm."""

TOLERANCE = ((330.0, 0.03), (449.0, 0.03), (451.0, 0.012), (1050.0, 0.012))
"""Relative difference that counts as one sigma, by wavelength in nm."""

WIDTH = {"BP": 0.5, "RP": 0.6}
"""Standard deviation in pseudo-wavelength of the resolution of a calibrated spectrum."""

ALONE = {"BP": (380.0, 636.0), "RP": (642.0, 1010.0)}
"""Where the calibrated spectrum comes from one band alone and is not all noise, nm."""

SMOOTHING, ITERATIONS = 10.0, 15
"""Scale in nm below which the response's correction has no structure; steps to find it."""

HATS = {"BP": (330.0, 690.0, 8), "RP": (600.0, 1060.0, 8)}
"""First and last centre, nm, and number of the broad bins of the coefficients' correction."""

RIDGE = 1e-3

LOOSENESS, PRECISION = 0.1, 0.003
"""Of the last correction: how far a coefficient may move, in units of its spread among real
stars, and how closely the calibrated flux shall then agree."""


@dataclass(frozen=True)
class Calibrator:
    """GaiaXPy's calibration as a matrix: flux (L,) at ``wavelength`` nm from coefficients (n,).

    ``bands`` are those of one band alone, ``merge`` their weights (L,).
    """

    wavelength: Float
    matrix: Float
    bands: dict[str, Float]
    merge: dict[str, Float]


@dataclass(frozen=True)
class Twins:
    """Twins' flux (N, W) over the stars' G flux, misfit (N,), and residual flux (N, L') at
    ``wavelength`` (L',): real over twin, less 1."""

    flux: Float
    misfit: Float
    wavelength: Float
    residual: Float


def load_calibrator() -> Calibrator:
    """GaiaXPy's default sampling, design matrices and merging weights.

    Read from the installed GaiaXPy as data: to import it silences warnings in the process.
    """
    package = find_spec("gaiaxpy")
    folder = Path(next(iter((package and package.submodule_search_locations) or ("",))))
    root = ElementTree.parse(folder / "config" / "filters" / f"XpFilter_{MODEL}.xml").getroot()

    def numbers(place: str) -> Float:
        return np.array([float(item.text or "nan") for item in root.findall(f"{place}/*")])

    wavelength = numbers("XpMerge/sampleMeanWavelengths")
    names = {band.name: band.name.lower() for band in BANDS}
    bands = {
        name: numbers(f"XpSampling/{low}SampledBases").reshape(len(wavelength), -1)
        for name, low in names.items()
    }
    merge = {name: numbers(f"XpMerge/{low}Weights") for name, low in names.items()}
    matrix = np.concatenate([bands[name] * merge[name][:, None] for name in names], axis=1)
    return Calibrator(wavelength, matrix, bands, merge)


def resolution(band: Band, wavelength: Float, at: Float, folder: Path) -> Float:
    """The matrix (L, W) that smooths flux to the resolution of a calibrated spectrum."""
    from scipy.interpolate import CubicSpline

    dispersion = np.genfromtxt(folder / f"{band.model}_dispersion.csv", delimiter=",")
    slope = np.abs(CubicSpline(*dispersion)(at, 1))
    fine = np.arange(wavelength[0], 1100.0, 2.0)
    kernel = np.exp(-0.5 * ((fine - at[:, None]) * slope[:, None] / WIDTH[band.name]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.asarray(kernel @ interpolation(wavelength, fine))


def both_resolutions(calibrator: Calibrator, wavelength: Float, folder: Path) -> Float:
    """The same (L, W) for both bands together, merged as GaiaXPy does."""
    at = calibrator.wavelength
    parts = [
        resolution(b, wavelength, at, folder) * calibrator.merge[b.name][:, None] for b in BANDS
    ]
    return np.asarray(np.sum(parts, axis=0))


def giant_models(grid: Grid) -> Float:
    """Flux (M, W) of the grid's models from 4000 to 7000 K and log g 1 to 3.5, of level 1."""
    warm = (grid.teff >= 4000) & (grid.teff <= 7000)
    low = (grid.logg >= 1) & (grid.logg <= 3.5)
    flux = np.exp(grid.log_flux[:, warm][:, :, low].astype(np.float64))
    return _level(flux.reshape(-1, flux.shape[-1]), grid.wavelength)


def _level(flux: Float, wavelength: Float) -> Float:
    middle = (wavelength > 600) & (wavelength < 800)
    return np.asarray(flux / flux[:, middle].mean(1, keepdims=True))


def library(atmospheres: Atmospheres) -> Float:
    """Flux (LIBRARY, W) of stars of every kind behind any dust, of level 1."""
    random = torch.Generator().manual_seed(SEED)
    u = torch.rand(5, LIBRARY, generator=random)
    teff, logg, m_h = 3500 + 4500 * u[0] ** 1.3, 5 * u[1], -2.2 + 2.7 * u[2].sqrt()
    ebv, r_v = 3e-3 * 500 ** u[3], 2.8 + 0.6 * u[4]
    log_flux = atmospheres.log_flux(m_h, teff, logg)
    log_flux -= 0.4 * np.log(10.0) * atmospheres.extinction(ebv, r_v)
    return _level(torch.exp(log_flux).numpy().astype(np.float64), atmospheres.wavelength)


def find_twins(
    coefficients: Float, calibrator: Calibrator, models: Float, smooth: Float, factor: Float
) -> Twins:
    """Twins among ``models`` (M, W) of stars with these coefficients (N, n) over the G flux.

    ``smooth`` (L, W) is the calibrated spectra's resolution, ``factor`` (W,) the correction of
    the models' flux that is known already.
    """
    from scipy.special import softmax

    at = calibrator.wavelength
    kept = (at >= TWIN_RANGE[0]) & (at <= TWIN_RANGE[1])
    seen = (coefficients @ calibrator.matrix.T)[:, kept]
    made = (models * factor) @ smooth[kept].T
    weight = 1 / np.interp(at[kept], *np.array(TOLERANCE).T) ** 2
    weight /= weight.sum()
    y, x = np.log(np.maximum(seen, 1e-3 * seen.max(1, keepdims=True))), np.log(made)
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
    residual = seen / (flux @ smooth[kept].T) - 1
    mean_tolerance = 1 / np.mean(1 / np.interp(at[kept], *np.array(TOLERANCE).T) ** 2)
    return Twins(flux, distance.min(1) / mean_tolerance, at[kept], residual)


def flux_correction(twins: Twins, wavelength: Float) -> Float:
    """The factor (W,) by which real stars' calibrated flux differs from their twins'; 1 outside."""
    from scipy.ndimage import gaussian_filter1d

    typical = gaussian_filter1d(np.median(twins.residual, axis=0), 4.0)
    return np.asarray(1 + np.interp(wavelength, twins.wavelength, typical, left=0, right=0))


def response_correction(
    band: Band, wavelength: Float, models: Float, calibrator: Calibrator, folder: Path
) -> Float:
    """The smooth factor (W,) on a band's response by which GaiaXPy's calibration of simulated
    coefficients returns the models, in the median; found by iteration."""
    from scipy.ndimage import gaussian_filter1d

    low, high = ALONE[band.name]
    kept = (calibrator.wavelength >= low) & (calibrator.wavelength <= high)
    at, matrix = calibrator.wavelength[kept], calibrator.bands[band.name][kept]
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
    """What to add to a band's matrix (n, W) so that twins' flux (N, W) gives the real
    coefficients (N, n): a ridge regression on the flux in broad bins."""
    centres = np.linspace(*HATS[band.name])
    width = centres[1] - centres[0]
    hats = np.clip(1 - np.abs(wavelength - centres[:, None]) / width, 0, None)
    hats = hats * np.gradient(wavelength)
    seen = flux @ hats.T
    typical = seen.mean(0)
    seen = seen / typical
    normal = seen.T @ seen + RIDGE * len(seen) * np.eye(len(hats))
    slopes = np.linalg.solve(normal, seen.T @ (coefficients - flux @ matrix.T))
    return np.asarray(slopes.T @ (hats / typical[:, None]))


def agree_with_calibration(
    matrix: Float, calibrator: Calibrator, smooth: Float, coefficients: Float
) -> Float:
    """The matrix (n, W) moved so that GaiaXPy's calibration returns what went in.

    The least-squares update of a Gaussian prior about ``matrix`` (variance: LOOSENESS of the
    real coefficients' (N, n) spread) by the calibrated flux to a PRECISION.
    """
    kept = (calibrator.wavelength >= 390) & (calibrator.wavelength <= 1000)
    a, target = calibrator.matrix[kept], smooth[kept]
    middle = np.median(coefficients, axis=0)
    spread = 1.4826 * np.median(np.abs(coefficients - middle), axis=0)
    prior = (LOOSENESS * spread) ** 2
    error = PRECISION * np.median(coefficients @ a.T, axis=0)
    gain = (prior[:, None] * a.T) @ np.linalg.inv((a * prior) @ a.T + np.diag(error**2))
    return np.asarray(matrix + gain @ (target - a @ matrix))
