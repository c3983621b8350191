"""What the simulator learns from real data and from GaiaXPy, written into grids/.

Run once, by whoever changes the grids or the real sample; what it writes ships, and
tests/test_simulate_calibration.py repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.features.photometry import synthetic_photometry
from catalogproc.features.spectra import g_flux
from catalogproc.science import instrument, noise
from catalogproc.science.atmospheres import Grid

Float = NDArray[np.float64]

RANGE = {"BP": (380.0, 636.0), "RP": (642.0, 1010.0)}
"""Where GaiaXPy's calibrated spectrum comes from one band alone and is not all noise, nm."""

WIDTH = {"BP": 0.3, "RP": 0.3}
"""Standard deviation of the resolution that a calibrated spectrum has, in pseudo-wavelength."""

SMOOTHING = 10.0
"""Scale below which the correction has no structure, nm."""

ITERATIONS = 15

NOISE_COMPONENTS = 8
"""Ways kept in which the errors of stars of one magnitude and colour differ."""

WHAT = ("coefficients", "coefficient_errors", "n_relevant_bases")


def design_matrices() -> tuple[Float, dict[str, Float]]:
    """GaiaXPy's sampling in nm (L,), and by band the matrix (L, n) from coefficients to flux."""
    from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

    sampling, _ = load_xpmerge_from_xml()
    matrices = load_xpsampling_from_xml()
    return np.asarray(sampling), {
        band.name: np.asarray(matrices[band.name.lower()]).T for band in instrument.BANDS
    }


def smooth(band: instrument.Band, wavelength: Float, flux: Float, at: Float, folder: Path) -> Float:
    """Flux (N, W) at the resolution of a calibrated spectrum, at wavelengths ``at`` (L,)."""
    from scipy.interpolate import CubicSpline

    dispersion = np.genfromtxt(folder / f"{band.model}_dispersion.csv", delimiter=",")
    slope = np.abs(CubicSpline(*dispersion)(at, 1))
    fine = np.arange(wavelength[0], 1100.0, 2.0)
    kernel = np.exp(-0.5 * ((fine - at[:, None]) * slope[:, None] / WIDTH[band.name]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.asarray(flux @ (kernel @ instrument.interpolation(wavelength, fine)).T)


def fit_response(grid: Grid, folder: Path) -> dict[str, Float]:
    """The response correction of each band at the grid's wavelengths (W,).

    The factor, smooth in wavelength, by which GaiaXPy's calibration of simulated coefficients
    returns ATLAS9 spectra of giants in the median; found by iteration.
    """
    from scipy.ndimage import gaussian_filter1d

    sampling, matrices = design_matrices()
    hot, cool = grid.teff <= 7250, grid.teff >= 4000
    models = grid.log_flux[:, hot & cool][:, :, 2:8]
    flux = np.exp(models.reshape(-1, models.shape[-1]).astype(np.float64))
    flux /= flux[:, (grid.wavelength > 600) & (grid.wavelength < 800)].mean(1, keepdims=True)
    corrections = {}
    for band in instrument.BANDS:
        low, high = RANGE[band.name]
        kept = (sampling >= low) & (sampling <= high)
        at, matrix = sampling[kept], matrices[band.name][kept]
        target = smooth(band, grid.wavelength, flux, at, folder)
        correction = np.ones_like(grid.wavelength)
        for _ in range(ITERATIONS):
            forward = instrument.band_matrix(band, grid.wavelength, correction, folder)
            ratio = np.median(target / (flux @ forward.T @ matrix.T), axis=0)
            ratio = gaussian_filter1d(ratio, SMOOTHING / 2.0, mode="nearest")
            correction = correction * np.interp(grid.wavelength, at, ratio)
        corrections[band.name] = correction
    return corrections


@dataclass(frozen=True)
class RealSpectra:
    """Real spectra with both bands: coefficients, errors (N, n_bp + n_rp), relevant bases (N, 2).

    G and BP-RP (N,) are synthesised from the spectra.
    """

    coefficients: Float
    errors: Float
    relevant: NDArray[np.int64]
    g: Float
    bp_rp: Float


def read_real(files: Sequence[Path]) -> RealSpectra:
    """Real spectra from Parquet files of the input contract with lists of numbers."""
    table = pa.concat_tables(
        [
            pq.read_table(file, columns=[f"{b}_{w}" for b in ("bp", "rp") for w in WHAT])
            for file in files
        ]
    ).combine_chunks()

    def both(what: str) -> Float:
        return np.concatenate(
            [np.stack(table[f"{b}_{what}"].to_numpy()).astype(np.float64) for b in ("bp", "rp")], 1
        )

    c, e = both("coefficients"), both("coefficient_errors")
    relevant = np.stack([table[f"{b}_n_relevant_bases"].to_numpy() for b in ("bp", "rp")], -1)
    n_bp = len(table["bp_coefficients"][0])
    magnitudes = synthetic_photometry(c[:, :n_bp], c[:, n_bp:])
    return RealSpectra(c, e, relevant, magnitudes.g, magnitudes.bp - magnitudes.rp)


def fit_noise(real: RealSpectra, correlations: Float) -> dict[str, Float]:
    """The arrays of science/noise.py's Noise, from real spectra.

    ``correlations`` (M, n, n) are those of stars that have them (both bands, zero between).
    """
    flux = g_flux(real.g)[:, None]
    logs = np.log(real.errors / flux)
    regressors = noise.design(real.g, real.bp_rp)
    weights = np.ones(len(logs))
    for _ in range(5):  # re-weighted, so that stars with unusual errors do not bend the mean
        root = np.sqrt(weights)[:, None]
        fitted = np.linalg.lstsq(regressors * root, logs * root, rcond=None)[0]
        off = np.abs(np.median(logs - regressors @ fitted, axis=1))
        weights = 1.0 / (1.0 + (off / 0.1) ** 2)
    residual = logs - regressors @ fitted
    _, _, vectors = np.linalg.svd(residual, full_matrices=False)
    components = vectors[:NOISE_COMPONENTS]
    return {
        "coefficients": fitted,
        "components": components,
        "scores": residual @ components.T,
        "relevant": real.relevant.astype(np.float64),
        "place": np.stack([real.g, real.bp_rp], -1),
        "factor": np.linalg.cholesky(correlations.mean(0)),
    }
