"""Of which release and basis the spectra of a file are: whether a model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.readers.xp import read_spectra, spectra_columns
from catalogproc.vocabulary import BANDS, Vocabulary

# Rows that are looked at to learn how many coefficients a file's spectra have.
_LOOK = 1024


def release(path: str | Path) -> dict[str, int]:
    """Return the number of coefficients of a file's first spectra, by band.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        ``{"bp": n, "rp": n}``: the number that most spectra have, 0 where a band is missing.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    return {
        band: int(np.bincount(found).argmax()) if len(found) else 0
        for band, found in _counts(Path(path)).items()
    }


def check_release(path: str | Path, vocabulary: Vocabulary) -> None:
    """Check that a file's spectra have as many coefficients as the model reads.

    Parameters
    ----------
    path
        The file. Single rows with another number are rejected later, one by one.
    vocabulary
        The model's tokens.

    Raises
    ------
    ReleaseError
        None of the first rows has the number that the vocabulary has; or the spectra are sampled
        or canonical, and the vocabulary's basis is the archive's.
    InputError
        The file cannot be read.
    """
    other = {"flux": "XP sampled spectra (XP_SAMPLED)", "basis_id": "canonical coefficients"}
    columns = spectra_columns(path) if vocabulary.basis == "archive" else ()
    for name, words in other.items():
        if name in columns:
            raise ReleaseError(
                f"{words} are not read by this model",
                wanted="XP continuous spectra, coefficients as the archive publishes them",
                found=", ".join(columns),
                where=path,
                advice="get the product XP_CONTINUOUS of the same stars, or use a model whose "
                "basis is canonical (--model)",
            )
    counts = _counts(Path(path))
    wanted = {band: vocabulary.coefficients(band) for band in BANDS}
    if any(len(counts[band]) and wanted[band] not in counts[band] for band in BANDS):
        found = {
            band: int(np.bincount(counts[band]).argmax()) if len(counts[band]) else 0
            for band in BANDS
        }
        raise ReleaseError(
            "the spectra are of a Gaia release that the model does not read",
            wanted=_in_words(wanted),
            found=_in_words(found),
            where=path,
            advice="use a model that was trained on that release (--model)",
        )


def _counts(path: Path) -> dict[str, NDArray[np.int64]]:
    """Lengths of the coefficient arrays in a file's first rows, a band; missing ones left out."""
    parts: dict[str, list[NDArray[np.int64]]] = {band: [] for band in BANDS}
    for batch in read_spectra(path, batch_rows=_LOOK, rows=_LOOK):
        for band in BANDS:
            lengths = pc.list_value_length(batch.column(f"{band}_coefficients")).drop_null()
            parts[band].append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
    return {band: np.concatenate(found or [np.empty(0, np.int64)]) for band, found in parts.items()}


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {band.upper()}" for band, count in counts.items())
