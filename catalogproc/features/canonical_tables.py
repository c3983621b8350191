"""Operators of the canonical coefficients, and the error template of sampled spectra, as data.

They ship as grids/xp_canonical.npz; canonical_build.py writes the file. The design matrices are
GaiaXPy's (gaiaxpy_tables.py); the prior factor is the Cholesky factor of the second moments of
real coefficients.

The inverse of a design matrix D (L, n) under the prior factor A is

    P = A V_r S_r^-1 U_r^T,   D A = U S V^T,

with the r largest singular values, so that P D P = P: r is 45 for each band.

P is the same for every Gaia release. D is the release's own, so that coefficients of any release
with design matrices become the same canonical ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import CatalogprocError, ReleaseError
from catalogproc.features.flux_calibration import calibration
from catalogproc.release import Release, load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS, CANONICAL_RELEASE

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

FILE = "xp_canonical.npz"
NOISE_FILE = "xp_noise.npz"

RANK = {"both": 90, "bp": 45, "rp": 45}
"""Number of singular values kept: those past it are below 2e-7 of the largest, what a flux in
float32 cannot tell."""

PURE_PRIOR = 0.3
"""A coefficient for which the diagonal of P D is below this is nearly determined by the prior."""

VISIBLE = 1e-6
"""Singular values of a design matrix below this share of the largest are left out where the
coefficients of one release are compared with those of another."""

FLOOR = 1e-9
"""Added to the diagonal of correlations that are carried over, so that they have a factor."""


@dataclass(frozen=True)
class Operator:
    """The projection of m coefficients of a release to n canonical ones, of both bands or of one.

    Attributes
    ----------
    pixels
        Which of the L wavelengths are read (L,).
    inverse
        P (n, pixels): canonical coefficients from flux in W m-2 nm-1.
    projection
        P D (n, m): canonical coefficients from coefficients as published.
    error_weights
        W (n, m): the squared errors of canonical coefficients from squared errors as
        published, under the mean correlations of real spectra.
    factor
        T (m, m) with T T^T the mean correlations of real spectra.
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


def operators(release: Release | None = None) -> dict[str, Operator]:
    """Return the operators by name: ``both``, and ``bp`` or ``rp`` for a star with one band.

    Parameters
    ----------
    release
        The release of the coefficients; by default the one whose basis canonical ones have.

    Raises
    ------
    ReleaseError
        Its design matrices are not known, or not for the wavelengths of P.
    """
    return _operators(release or load_release(CANONICAL_RELEASE))


@cache
def _operators(release: Release) -> dict[str, Operator]:
    arrays, found = read_arrays(), {}
    triangle, shape = _mean_errors(release)
    for name, (design, pixels) in designs(release).items():
        part = columns(name, release)
        inverse = arrays[f"inverse_{name}"]
        # einsum: the digits do not depend on the number of threads.
        projection = np.einsum("il,lj->ij", inverse, design)
        correlations = triangle[part] @ triangle[part].T
        weights = projection * ((projection * shape[part]) @ correlations) / shape[part]
        factor = np.asarray(np.linalg.cholesky(correlations), dtype=np.float64)
        found[name] = Operator(pixels, inverse, projection, weights, factor)
    return found


@cache
def measured() -> NDArray[np.bool_]:
    """Return which of all coefficients, BP before RP, are measured rather than pure prior."""
    return np.asarray(np.diag(operators()["both"].projection) >= PURE_PRIOR)


def columns(name: str, release: Release | None = None) -> slice:
    """Return the place of an operator's coefficients among those of both bands.

    Parameters
    ----------
    name
        The operator.
    release
        The release whose coefficients are counted; by default canonical ones are.
    """
    counted = release or load_release(CANONICAL_RELEASE)
    bp, rp = (counted.coefficients(band) for band in BANDS)
    return {"both": slice(0, bp + rp), "bp": slice(0, bp), "rp": slice(bp, bp + rp)}[name]


def designs(
    release: Release | None = None,
) -> dict[str, tuple[Float, NDArray[np.bool_]]]:
    """Return by operator the design matrix (pixels, m) and which wavelengths it reads (L,).

    A band alone is read where the merged spectrum is that band's: coefficients and sampled
    flux of one band then give the same numbers.

    Parameters
    ----------
    release
        The release; by default the one whose basis canonical coefficients have.
    """
    return _designs(release or load_release(CANONICAL_RELEASE))


@cache
def _designs(release: Release) -> dict[str, tuple[Float, NDArray[np.bool_]]]:
    own, gaia = calibration(load_release(CANONICAL_RELEASE)), calibration(release)
    check_wavelengths(gaia.wavelengths, release.title)
    both = np.concatenate([gaia.weights[band] for band in BANDS], axis=1)
    found = {"both": (both, np.ones(len(both), dtype=bool))}
    for band in BANDS:
        pixels = own.merge[band] == 1.0  # those of P, whatever the release
        found[band] = (gaia.design[band][pixels], pixels)
    return found


def check_wavelengths(found: Float, title: str) -> None:
    """Check that design matrices are for the wavelengths of P.

    Parameters
    ----------
    found
        Their wavelengths (L,), nm.
    title
        The release, for messages.

    Raises
    ------
    ReleaseError
        They are for others.
    """
    wanted = calibration(load_release(CANONICAL_RELEASE)).wavelengths
    if wanted.shape != found.shape or not np.allclose(wanted, found, rtol=0, atol=1e-3):
        words = (f"{len(x)} wavelengths, {x[0]:.6g} to {x[-1]:.6g} nm" for x in (wanted, found))
        raise ReleaseError(
            f"the design matrices of {title} have another sampling than canonical coefficients",
            wanted=next(words), found=next(words),
            advice="give the file of GaiaXPy's default sampling: catalogproc release add --design",
        )  # fmt: skip


def _mean_errors(release: Release) -> tuple[Float, Float]:
    """Return T (m, m), T T^T the mean correlations of real spectra, and the errors' shape (m,).

    They were measured on coefficients of one release, and are carried over by
    :func:`carried_over`.
    """
    triangle = np.asarray(_arrays(NOISE_FILE)["factor"], dtype=np.float64)
    shape = read_arrays()["error_shape"]
    if release.same_basis(load_release(CANONICAL_RELEASE)):
        return triangle, shape
    moved = np.zeros((columns("both", release).stop, len(shape)))
    for band, matrix in carried_over(release).items():
        moved[columns(band, release), columns(band)] = matrix
    spread = moved @ (shape[:, None] * triangle)
    deviations = np.sqrt(np.square(spread).sum(axis=1))
    correlations = (spread @ spread.T) / np.outer(deviations, deviations)
    factor = np.linalg.cholesky(correlations + FLOOR * np.eye(len(moved)))
    return np.asarray(factor, dtype=np.float64), np.asarray(deviations, dtype=np.float64)


@cache
def carried_over(release: Release) -> dict[str, Float]:
    """Return by band M (m, n): coefficients of a release from those of CANONICAL_RELEASE.

    M c is the smallest change of c that gives the same flux: nothing is changed in directions of
    which the flux tells nothing.

    Parameters
    ----------
    release
        The release.

    Raises
    ------
    ReleaseError
        Its design matrices are not known.
    """
    old, new = (calibration(x).weights for x in (load_release(CANONICAL_RELEASE), release))
    found = {}
    for band in BANDS:
        kept = np.eye(new[band].shape[1], old[band].shape[1])
        change = np.linalg.pinv(new[band], rcond=VISIBLE) @ (old[band] - new[band] @ kept)
        found[band] = kept + change
    return found


def mean_factor() -> Float:
    """Return T (n, n) with T T^T the mean correlations of real spectra, of CANONICAL_RELEASE."""
    return operators()["both"].factor


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


def kinds(values: NDArray[np.floating], release: Release | None) -> dict[str, Mask]:
    """Return by operator which stars (N,) it is for: both bands, BP alone, RP alone.

    Parameters
    ----------
    values
        Coefficients (N, m), BP first; a band with a NaN is missing.
    release
        Their release.
    """
    bp, rp = (
        np.asarray(np.isfinite(values[:, columns(band, release)]).all(axis=1)) for band in BANDS
    )
    return by_operator(bp, rp)


def by_operator(bp: Mask, rp: Mask) -> dict[str, Mask]:
    """Return by operator which stars (N,) it is for, without operators for none.

    Parameters
    ----------
    bp, rp
        Which stars have the band (N,).
    """
    kinds = {"both": bp & rp, "bp": bp & ~rp, "rp": rp & ~bp}
    return {name: rows for name, rows in kinds.items() if rows.any()}


def bands_of(name: str) -> tuple[str, ...]:
    """Return the bands that an operator reads.

    Parameters
    ----------
    name
        The operator: "both", "bp" or "rp".
    """
    return BANDS if name == "both" else (name,)
