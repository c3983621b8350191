"""Operators of the canonical coefficients, and the error template of sampled spectra, as data.

They ship as grids/xp_canonical.npz; canonical_build.py writes the file. The design matrices are
GaiaXPy's (gaiaxpy_tables.py); the prior factor is the Cholesky factor of the second moments of
real coefficients.

The inverse of a design matrix D (L, n) under the prior factor A is

    P = A V_r S_r^-1 U_r^T,   D A = U S V^T,

with the r largest singular values, so that P D P = P: r is 45 for each band.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import CatalogprocError
from catalogproc.features.flux_calibration import calibration
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

FILE = "xp_canonical.npz"
NOISE_FILE = "xp_noise.npz"

RANK = {"both": 90, "bp": 45, "rp": 45}
"""Number of singular values kept: those past it are below 2e-7 of the largest, what a flux in
float32 cannot tell."""

PURE_PRIOR = 0.3
"""A coefficient for which the diagonal of P D is below this is nearly determined by the prior."""


@dataclass(frozen=True)
class Operator:
    """The projection of n coefficients to canonical ones, for both bands or for one alone.

    Attributes
    ----------
    pixels
        Which of the L wavelengths are read (L,).
    inverse
        P (n, pixels): canonical coefficients from flux in W m-2 nm-1.
    projection
        P D (n, n): canonical coefficients from coefficients as published.
    error_weights
        W (n, n): the squared errors of canonical coefficients from squared errors as
        published, under the mean correlations of real spectra.
    factor
        T (n, n) with T T^T the mean correlations of real spectra.
    """

    pixels: NDArray[np.bool_]
    inverse: Float
    projection: Float
    error_weights: Float
    factor: Float


@cache
def read_arrays() -> Mapping[str, Float]:
    """Read the shipped file.

    Raises
    ------
    CatalogprocError
        The file does not exist.
    """
    return _arrays(FILE)


@cache
def operators() -> dict[str, Operator]:
    """Return the operators by name: ``both``, and ``bp`` or ``rp`` for a star with one band."""
    arrays = read_arrays()
    triangle = np.asarray(_arrays(NOISE_FILE)["factor"], dtype=np.float64)
    found = {}
    for name, (design, pixels) in designs().items():
        part = columns(name)
        inverse = arrays[f"inverse_{name}"]
        # einsum: the digits do not depend on the number of threads.
        projection = np.einsum("il,lj->ij", inverse, design)
        correlations = triangle[part] @ triangle[part].T
        shape = arrays["error_shape"][part]
        weights = projection * ((projection * shape) @ correlations) / shape
        factor = np.asarray(np.linalg.cholesky(correlations), dtype=np.float64)
        found[name] = Operator(pixels, inverse, projection, weights, factor)
    return found


@cache
def measured() -> NDArray[np.bool_]:
    """Return which of all coefficients, BP before RP, are measured rather than pure prior."""
    return np.asarray(np.diag(operators()["both"].projection) >= PURE_PRIOR)


def columns(name: str) -> slice:
    """Return the place of an operator's coefficients among those of both bands."""
    counts = {band: calibration(load_release()).design[band].shape[1] for band in BANDS}
    total = sum(counts.values())
    return {
        "both": slice(0, total),
        "bp": slice(0, counts["bp"]),
        "rp": slice(counts["bp"], total),
    }[name]


@cache
def designs() -> dict[str, tuple[Float, NDArray[np.bool_]]]:
    """Return by operator the design matrix (pixels, n) and which wavelengths it reads (L,).

    A band alone is read where the merged spectrum is that band's: coefficients and sampled
    flux of one band then give the same numbers.
    """
    gaia = calibration(load_release())
    both = np.concatenate([gaia.weights[band] for band in BANDS], axis=1)
    found = {"both": (both, np.ones(len(both), dtype=bool))}
    for band in BANDS:
        pixels = gaia.merge[band] == 1.0
        found[band] = (gaia.design[band][pixels], pixels)
    return found


def inverse_of(design: Float, prior_factor: Float, rank: int) -> Float:
    """Return P (n, L) with P D P = P.

    Parameters
    ----------
    design
        D (L, n).
    prior_factor
        A (n, n), lower triangular.
    rank
        Number of singular values kept.
    """
    u, s, vt = np.linalg.svd(design @ prior_factor, full_matrices=False)
    return np.asarray(prior_factor @ (vt[:rank].T / s[:rank]) @ u[:, :rank].T)


def _arrays(name: str) -> dict[str, Float]:
    path = shipped("grids") / name
    if not path.is_file():
        raise CatalogprocError(
            "the operators of canonical coefficients that ship with catalogproc are missing",
            wanted=path,
            advice="install catalogproc again: pip install --force-reinstall catalogproc",
        )
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
