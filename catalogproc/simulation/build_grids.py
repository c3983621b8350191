"""Fit the instrument and the noise model to real spectra, and write them into grids/.

To write the three files again, in half a minute:

    from catalogproc.simulation.build_grids import write_grids
    write_grids(Path("grids"), sorted(Path("examples/gaia_xp").glob("*.parquet")),
                Path("tests/data/gaia_xp_correlated/xp_continuous_30.parquet"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.io.remote_file import File
from catalogproc.readers.xp import read_spectra
from catalogproc.release import load_release
from catalogproc.simulation import instrument_fit, noise
from catalogproc.simulation.atmospheres import build, read_grid
from catalogproc.simulation.instrument import BANDS, band_matrix

Float = NDArray[np.float64]

NOISE_COMPONENTS = 8
"""Number of principal components of the errors at given magnitude and colour."""

FAINTEST, COLOURS, MISFIT = 16.0, (0.45, 3.0), 9.0
"""Real stars that are used: faintest G, range of BP - RP, largest misfit of the matched model."""

REDDEST = 1100.0
"""Longest wavelength of the instrument's matrix, nm: BP and RP detect nothing beyond."""

ROUNDS = 3
"""Rounds of matching; the flux correction found in each is applied in the next."""


@dataclass(frozen=True)
class RealSpectra:
    """N real spectra with both bands.

    Attributes
    ----------
    coefficients, errors
        Coefficients and their errors (N, n_bp + n_rp), electrons per second.
    relevant
        Numbers of relevant bases in BP and RP (N, 2).
    g, bp_rp
        Synthetic photometry from the spectra (N,), mag.
    """

    coefficients: Float
    errors: Float
    relevant: NDArray[np.int64]
    g: Float
    bp_rp: Float

    @property
    def normalised(self) -> tuple[Float, Float]:
        """Coefficients and errors over the G flux."""
        return spectra.normalise(
            self.coefficients,
            self.errors,
            spectra.g_flux(self.g, load_release().magnitude("G").zero_point),
        )


@dataclass(frozen=True)
class FittedInstrument:
    """Result of :func:`fit_instrument`.

    Attributes
    ----------
    wavelength
        Wavelengths (W,), nm.
    matrix
        From flux to the coefficients of both bands (n_bp + n_rp, W).
    flux_factor
        Correction of the models' flux (W,).
    stars
        Which of the N real stars were used (N,).
    matched_flux
        Flux of the models matched with these stars, over their G flux, (stars, W).
    """

    wavelength: Float
    matrix: Float
    flux_factor: Float
    stars: NDArray[np.bool_]
    matched_flux: Float


def read_real(files: Sequence[File]) -> RealSpectra:
    """Read real spectra.

    Parameters
    ----------
    files
        Files of the input contract ``xp_continuous``.
    """
    table = pa.Table.from_batches([batch for file in files for batch in read_spectra(file)])

    def both(quantity: str) -> Float:
        parts = [_matrix(table, f"{band.name.lower()}_{quantity}") for band in BANDS]
        return np.concatenate(parts, axis=1)

    bp, rp = (_matrix(table, f"{band.name.lower()}_coefficients") for band in BANDS)
    magnitudes = synthetic_photometry(bp, rp, load_release())
    relevant = [table[f"{band.name.lower()}_n_relevant_bases"].to_numpy() for band in BANDS]
    return RealSpectra(
        coefficients=both("coefficients"),
        errors=both("coefficient_errors"),
        relevant=np.stack(relevant, axis=-1).astype(np.int64),
        g=magnitudes.g,
        bp_rp=magnitudes.bp - magnitudes.rp,
    )


def _matrix(table: pa.Table, name: str) -> Float:
    count = len(table[name][0])
    return spectra.matrix(table[name], count).astype(np.float64)


def read_correlations(file: Path) -> Float:
    """Return the mean correlation matrix (n_bp + n_rp squared) of real stars.

    Parameters
    ----------
    file
        A file of the input contract with correlations. Those between BP and RP are zero.
    """
    table = pa.Table.from_batches(list(read_spectra(file, correlations=True)))
    blocks = [
        spectra.correlation_matrix(
            _matrix(table, f"{band.name.lower()}_coefficient_correlations")
        ).mean(0)
        for band in BANDS
    ]
    size = len(blocks[0]) + len(blocks[1])
    mean = np.zeros((size, size))
    mean[: len(blocks[0]), : len(blocks[0])] = blocks[0]
    mean[len(blocks[0]) :, len(blocks[0]) :] = blocks[1]
    return mean


def fit_noise(real: RealSpectra, correlation: Float) -> dict[str, Float]:
    """Fit the noise model.

    Parameters
    ----------
    real
        Real spectra.
    correlation
        Correlation matrix of the coefficients (n, n).

    Returns
    -------
    dict
        The arrays of :class:`catalogproc.simulation.noise.Noise` by name.
    """
    logs = np.log(real.normalised[1])
    regressors = noise.design(real.g, real.bp_rp)
    weights = np.ones(len(logs))
    for _ in range(5):  # re-weighted, so that stars with unusual errors do not bias the mean
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
        "factor": np.linalg.cholesky(correlation),
    }


def fit_instrument(real: RealSpectra, grids: Path) -> FittedInstrument:
    """Fit the instrument's matrix and the correction of the models' flux.

    Parameters
    ----------
    real
        Real spectra; those within FAINTEST, COLOURS and MISFIT are used.
    grids
        Folder of the ATLAS9 grid and of the instrument's tables.
    """
    grid = read_grid(grids / "ck04_atlas9.fits.gz")
    wavelength, folder = grid.wavelength, grids / "instrument"
    calibrated = calibration(load_release())
    models, candidates = instrument_fit.giant_models(grid), instrument_fit.library(build(grid))
    smooth = instrument_fit.merged_resolution(calibrated, wavelength, folder)
    stars = (real.g < FAINTEST) & (real.bp_rp > COLOURS[0]) & (real.bp_rp < COLOURS[1])
    coefficients = real.normalised[0][stars]
    factor = np.ones_like(wavelength)
    pairs = instrument_fit.match_stars(coefficients, calibrated, candidates, smooth, factor)
    for _ in range(ROUNDS - 1):
        factor = factor * instrument_fit.flux_correction(pairs, wavelength)
        pairs = instrument_fit.match_stars(coefficients, calibrated, candidates, smooth, factor)
    good = pairs.misfit < MISFIT
    flux, coefficients = pairs.flux[good], coefficients[good]
    parts, start = [], 0
    for band in BANDS:
        response = instrument_fit.response_correction(band, wavelength, models, calibrated, folder)
        part = band_matrix(band, wavelength, folder) * response
        in_band = coefficients[:, start : start + len(part)]
        part += instrument_fit.coefficient_correction(band, part, wavelength, flux, in_band)
        parts.append(part)
        start += len(part)
    matrix = instrument_fit.agree_with_calibration(
        np.concatenate(parts), calibrated, smooth, coefficients
    )
    used = wavelength <= REDDEST
    stars[stars] = good
    return FittedInstrument(wavelength[used], matrix[:, used], factor[used], stars, flux[:, used])


def write_grids(grids: Path, files: Sequence[File], correlated: Path) -> None:
    """Write xp_instrument.npz, flux_correction.csv and xp_noise.npz.

    Parameters
    ----------
    grids
        Folder of the grids; the three files in it are overwritten.
    files
        Real spectra, files of the input contract ``xp_continuous``.
    correlated
        Such a file with correlations.
    """
    real = read_real(files)
    fitted = fit_instrument(real, grids)
    np.savez_compressed(
        grids / "xp_instrument.npz",
        wavelength=fitted.wavelength,
        matrix=fitted.matrix.astype(np.float32),
    )
    rows = np.stack([fitted.wavelength, fitted.flux_factor], axis=1)
    np.savetxt(
        grids / "flux_correction.csv", rows, delimiter=",", fmt=("%g", "%.5f"),
        header="wavelength_nm,factor", comments="",
    )  # fmt: skip
    arrays = fit_noise(real, read_correlations(correlated))
    small = {name: value.astype(np.float32) for name, value in arrays.items()}
    np.savez_compressed(grids / "xp_noise.npz", allow_pickle=False, **small)
