"""What the simulator learns from real spectra and from GaiaXPy, written into grids/.

Run once, by whoever changes the grids or the real sample; what it writes ships:

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
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation import instrument_fit, noise
from catalogproc.simulation.atmospheres import build, read_grid
from catalogproc.simulation.instrument import BANDS, band_matrix

Float = NDArray[np.float64]

NOISE_COMPONENTS = 8
"""Ways kept in which the errors of stars of one magnitude and colour differ."""

FAINTEST, COLOURS, MISFIT = 16.0, (0.45, 3.0), 9.0
"""Real stars that calibrate the instrument: G, BP - RP, and the largest misfit of a twin."""

REDDEST = 1100.0
"""The instrument's matrix ends here, nm: no photon beyond reaches BP or RP."""

ROUNDS = 3
"""Twins are sought again after the flux correction that they gave, so many times in all."""


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

    @property
    def normalised(self) -> tuple[Float, Float]:
        """Coefficients and errors over the G flux."""
        return spectra.normalise(self.coefficients, self.errors, spectra.g_flux(self.g))


@dataclass(frozen=True)
class FittedInstrument:
    """What :func:`fit_instrument` finds.

    ``matrix`` (n, W) at ``wavelength`` (W,) nm, the correction of the models' flux (W,), and
    of the real stars that were used, which they are (N,), and their twins' flux.
    """

    wavelength: Float
    matrix: Float
    flux_factor: Float
    stars: NDArray[np.bool_]
    twins: Float


def read_real(files: Sequence[Path]) -> RealSpectra:
    """Real spectra from files of the input contract."""
    table = pa.Table.from_batches([batch for file in files for batch in read_spectra(file)])

    def both(what: str) -> Float:
        parts = [_matrix(table, f"{band.name.lower()}_{what}") for band in BANDS]
        return np.concatenate(parts, axis=1)

    bp, rp = (_matrix(table, f"{band.name.lower()}_coefficients") for band in BANDS)
    magnitudes = synthetic_photometry(bp, rp)
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
    """The mean correlation matrix (n, n) of the real stars in a file; zero between the bands."""
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
    """The simulator's Noise as arrays, from real spectra and a correlation matrix (n, n)."""
    logs = np.log(real.normalised[1])
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
        "factor": np.linalg.cholesky(correlation),
    }


def fit_instrument(real: RealSpectra, grids: Path) -> FittedInstrument:
    """The instrument's matrix and the correction of the models' flux, from real spectra."""
    grid = read_grid(grids / "ck04_atlas9.fits.gz")
    wavelength, folder = grid.wavelength, grids / "instrument"
    calibrator = instrument_fit.load_calibrator()
    models, candidates = instrument_fit.giant_models(grid), instrument_fit.library(build(grid))
    smooth = instrument_fit.both_resolutions(calibrator, wavelength, folder)
    stars = (real.g < FAINTEST) & (real.bp_rp > COLOURS[0]) & (real.bp_rp < COLOURS[1])
    seen = real.normalised[0][stars]
    factor = np.ones_like(wavelength)
    found = instrument_fit.find_twins(seen, calibrator, candidates, smooth, factor)
    for _ in range(ROUNDS - 1):
        factor = factor * instrument_fit.flux_correction(found, wavelength)
        found = instrument_fit.find_twins(seen, calibrator, candidates, smooth, factor)
    good = found.misfit < MISFIT
    flux, seen = found.flux[good], seen[good]
    parts, start = [], 0
    for band in BANDS:
        response = instrument_fit.response_correction(band, wavelength, models, calibrator, folder)
        matrix = band_matrix(band, wavelength, folder) * response
        own = seen[:, start : start + len(matrix)]
        matrix += instrument_fit.coefficient_correction(band, matrix, wavelength, flux, own)
        parts.append(matrix)
        start += len(matrix)
    matrix = instrument_fit.agree_with_calibration(np.concatenate(parts), calibrator, smooth, seen)
    kept = wavelength <= REDDEST
    stars[stars] = good
    return FittedInstrument(wavelength[kept], matrix[:, kept], factor[kept], stars, flux[:, kept])


def write_grids(grids: Path, files: Sequence[Path], correlated: Path) -> None:
    """Make xp_instrument.npz, flux_correction.csv and xp_noise.npz in ``grids`` anew.

    From real spectra in ``files``, and from the correlations in ``correlated``.
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
