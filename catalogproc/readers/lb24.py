"""The public training and test sets of Leung & Bovy (2024), Zenodo record 12738256.

HDF5, as their Dataset_Reduction writes it: ``gaia_source_id`` (N,) big-endian int64, 0 where
Gaia has no such star; ``2mass_designation`` (N, 1) of 16 bytes, "0" where the APOGEE_ID had
no known form; and a group ``raw`` of float64 and float32 columns, each with ``_err``, NaN
where not measured. Rows are APOGEE spectra, so that a star may have several; part of them
have no XP spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.errors import InputError, ReleaseError
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.readers.formats.base import check_regular
from catalogproc.readers.surveys import NOT_MEASURED

Float = NDArray[np.float64]

SCALARS = {
    "bprp": "bprp",
    "jh": "jh",
    "jk": "jk",
    "teff": "teff",
    "logg": "logg",
    "m_h": "m_h",
    "logebv": "logc19",
    "g_fakemag": "g_fakemag",
    "parallax_zpc": "parallax",
}
"""Our names and theirs; each has its error in a column of the same name with ``_err``."""

NO_COLOUR = 8.0
"""J - H or J - Ks in mag beyond which a magnitude was none: 99.999, or 0. Dust does not do that."""


def read_lb24(
    path: str | Path, counts: tuple[int, int], batch_rows: int = 16_384
) -> Iterator[pa.RecordBatch]:
    """One of the two files, a row a spectrum of APOGEE, in the file's order.

    Parameters
    ----------
    path
        training_set.h5 or testing_set.h5.
    counts
        How many BP and RP coefficients the model reads.
    batch_rows
        Rows a batch at most; memory does not grow with the file.

    Yields
    ------
    RecordBatch
        ``source_id`` (int64, null where there is none) and ``designation`` (string, null);
        ``bp_coefficients``, ``bp_coefficient_errors`` and RP's, over the G flux (lists of
        float32, null where there is no spectrum); ``bp_n_relevant_bases`` and RP's (int16);
        the columns of SCALARS and their errors ``e_*``, ``phot_g_mean_mag`` (float64, NaN
        where not measured; an error is NaN where its value is).

    Raises
    ------
    InputError
        The file cannot be read, lacks a dataset, or its datasets differ in length.
    ReleaseError
        Another number of coefficients.
    """
    import h5py

    path = Path(path)
    check_regular(path)
    with _reading(path), h5py.File(path, "r") as file:
        rows = _check(file, path, sum(counts))
        for start in range(0, rows, batch_rows):
            yield _batch(file, slice(start, min(start + batch_rows, rows)), counts)


def _datasets() -> list[str]:
    raw = ["xp_coeffs_gnorm", "xp_coeffs_gnorm_err", "xp_relevancy", "phot_g_mean_mag"]
    raw += [name for theirs in SCALARS.values() for name in (theirs, f"{theirs}_err")]
    return ["gaia_source_id", "2mass_designation", *(f"raw/{name}" for name in raw)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what h5py says of a broken file into an InputError."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "the file cannot be read as HDF5",
            wanted="training_set.h5 or testing_set.h5 of Zenodo record 12738256",
            found=error,
            where=path,
            advice="fetch it again",
        ) from error


def _check(file: Any, path: Path, coefficients: int) -> int:
    """How many rows there are. Raises InputError or ReleaseError."""
    missing = [name for name in _datasets() if name not in file]
    if missing:
        raise InputError(
            "datasets are missing: this is none of Leung & Bovy's sets",
            wanted=", ".join(missing), found=", ".join(file), where=path,
        )  # fmt: skip
    rows = {name: len(file[name]) for name in _datasets()}
    if len(set(rows.values())) != 1:
        raise InputError("datasets of different lengths", found=rows, where=path)
    found = file["raw/xp_coeffs_gnorm"].shape[1:]
    if found != (coefficients,):
        raise ReleaseError(
            "spectra of another release than the model's",
            wanted=f"{coefficients} coefficients", found=found, where=path,
        )  # fmt: skip
    if file["gaia_source_id"].dtype.kind not in "iu":
        raise InputError(
            "the source_id is a float, in which its last digits are lost",
            wanted="int64", found=file["gaia_source_id"].dtype, where=path,
        )  # fmt: skip
    return next(iter(rows.values()))


def _batch(file: Any, rows: slice, counts: tuple[int, int]) -> pa.RecordBatch:
    raw = file["raw"]
    ids = file["gaia_source_id"][rows].astype(np.int64)
    names = np.char.strip(file["2mass_designation"][rows].reshape(len(ids)).astype("U16"))
    content: dict[str, Any] = {
        "source_id": pa.array(ids, mask=ids <= 1),
        "designation": pa.array(names, mask=np.char.str_len(names) != 16),
    }
    content |= _spectra(raw, rows, counts)
    for ours, theirs in SCALARS.items():
        value, error = (_measured(raw[name][rows]) for name in (theirs, f"{theirs}_err"))
        if ours in ("jh", "jk"):
            value[np.abs(value) > NO_COLOUR] = np.nan
        if ours == "teff":
            value[value <= 0] = np.nan
        content[ours] = value
        # An error below zero is none; and one beside a value that is not there.
        content[f"e_{ours}"] = np.where(np.isnan(value) | (error < 0), np.nan, error)
    content["phot_g_mean_mag"] = _measured(raw["phot_g_mean_mag"][rows])
    return pa.RecordBatch.from_pydict(content)


def _measured(values: Any) -> Float:
    value = np.array(values, dtype=np.float64)
    value[~np.isfinite(value) | (value <= NOT_MEASURED)] = np.nan
    return value


def _spectra(raw: Any, rows: slice, counts: tuple[int, int]) -> dict[str, pa.Array]:
    """Coefficients and their errors, and how many are relevant, a band."""
    both = {
        "coefficients": np.asarray(raw["xp_coeffs_gnorm"][rows], dtype=np.float32),
        "coefficient_errors": np.asarray(raw["xp_coeffs_gnorm_err"][rows], dtype=np.float32),
    }
    relevant = np.asarray(raw["xp_relevancy"][rows]).astype(bool)
    content: dict[str, pa.Array] = {}
    for band, first, count in (("bp", 0, counts[0]), ("rp", counts[0], counts[1])):
        part = slice(first, first + count)
        absent = np.asarray(np.isnan(both["coefficients"][:, part]).all(axis=1))
        for name, matrix in both.items():
            own = np.ascontiguousarray(matrix[:, part])
            content[f"{band}_{name}"] = matrix_lists(own, pa.float32(), absent)
        # Up to the first that is not: relevance has no holes.
        leading = np.logical_and.accumulate(relevant[:, part], axis=1).sum(axis=1)
        content[f"{band}_n_relevant_bases"] = pa.array(
            np.where(absent, 0, leading).astype(np.int16)
        )
    return content
