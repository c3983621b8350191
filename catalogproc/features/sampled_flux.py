"""Sampled spectra at any wavelengths as flux at the archive's 343.

Coefficients are fitted to the flux with the design matrix at its own wavelengths and the prior
of canonical coefficients, and give the flux at the archive's: interpolation would not do, because
the calibrated flux has the structure of the response between 2 nm, and canonical coefficients of
high order would move by many of their errors.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.canonical_tables import (
    columns,
    designs,
    inverse_of,
    read_arrays,
)
from catalogproc.features.design_functions import design_at, merge_at
from catalogproc.readers.xp_sampled import GRID
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

OWN_RANK = {"both": 100, "bp": 50, "rp": 50}
"""Singular values kept in the fit. With the 90 of the canonical coefficients, these move by up to
7 errors of very bright stars; with 100, by 0.007 (float64 flux) and 0.04 (float32)."""


def sampled_flux(batch: pa.RecordBatch | pa.Table) -> tuple[NDArray[np.bool_], Float, Float]:
    """Return which rows have a sampled spectrum (N,), and flux and errors of these (M, 343).

    Parameters
    ----------
    batch
        Columns ``flux``, ``flux_error`` and, for rows at other wavelengths, ``wavelength``, as
        readers.xp yields them.
    """
    flux, errors = (_whole(batch.column(name)) for name in ("flux", "flux_error"))
    rows = np.asarray(pc.is_valid(flux))
    place = np.flatnonzero(rows)
    found = np.full((2, len(place), len(GRID)), np.nan)
    other = np.zeros(len(rows), dtype=bool)
    if "wavelength" in batch.schema.names:
        wavelength = _whole(batch.column("wavelength"))
        other = rows & np.asarray(pc.is_valid(wavelength))
    usual = pa.array(rows & ~other)
    for made, column in zip(found, (flux, errors), strict=True):
        made[~other[place]] = spectra.matrix(column.filter(usual), len(GRID))
    for row in np.flatnonzero(other):
        own = (np.asarray(column[int(row)].values, dtype=np.float64) for column in
               (wavelength, flux, errors))  # fmt: skip
        found[:, np.searchsorted(place, row)] = _at_archive_grid(*own)
    return rows, found[0], found[1]


def _at_archive_grid(wavelength: Float, flux: Float, errors: Float) -> tuple[Float, Float]:
    """Return flux and errors (343,) of one spectrum at other wavelengths."""
    weights = merge_at(wavelength)
    finite = np.isfinite(flux)
    has = {band: bool(finite[weights[band] == 1.0].all()) for band in BANDS}
    name = "both" if finite.all() else next((band for band in BANDS if has[band]), "")
    if not name or (all(has.values()) and name != "both"):
        return np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    operator, used, pixels = _operator(wavelength.tobytes(), name)
    made = np.full(len(GRID), np.nan)
    made[pixels] = spectra.project(flux[None, used], operator)[0]
    known = errors > 0
    if not known[used].all():
        return made, np.full(len(GRID), np.nan)
    logs = np.interp(GRID, wavelength[used], np.log(errors[used]))
    return made, np.where(pixels, np.exp(logs), np.nan)


@lru_cache(maxsize=16)
def _operator(wavelengths: bytes, name: str) -> tuple[Float, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the matrix from flux at wavelengths to that of the archive's, and both pixels."""
    own = np.frombuffer(wavelengths)
    weights = merge_at(own)
    used = np.ones(len(own), dtype=bool) if name == "both" else weights[name] == 1.0
    bands = BANDS if name == "both" else (name,)
    design = np.concatenate(
        [design_at(own[used], band) * weights[band][used, None] for band in bands], axis=1
    )
    factor = read_arrays()["prior_factor"]
    part = columns(name)
    factor = np.asarray(np.linalg.cholesky((factor @ factor.T)[part, part]), dtype=np.float64)
    usual, pixels = designs()[name]
    return usual @ inverse_of(design, factor, OWN_RANK[name]), used, pixels


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
