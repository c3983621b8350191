"""The record of each fetched partition, written last: with it the partition is done."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from catalogproc.errors import JobError
from catalogproc.io.atomic import as_json, write_atomic

FOLDER = "_receipts"
"""The folder of the receipts; readers of a folder pass over names with an underscore."""


@dataclass(frozen=True)
class FetchReceipt:
    """What was fetched, from where, and what became of its rows.

    Attributes
    ----------
    url, md5, bytes, etag, modified
        The archive's file: address, MD5 sum (hex) that was found and stated, size, version.
    file, file_bytes, sha256
        The Parquet file: name, size, SHA-256 (hex).
    rows_read, rows_written, rows_rejected, rows_left_out
        rows_read is the sum of the others. Left out are rows without spectra, or not selected.
    settings
        What was asked for, by name.
    release, release_hash, version
        The release, and the version of catalogproc.
    fetched
        When, UTC.
    """

    url: str
    md5: str
    bytes: int
    etag: str | None
    modified: str | None
    file: str
    file_bytes: int
    sha256: str
    rows_read: int
    rows_written: int
    rows_rejected: int
    rows_left_out: int
    settings: dict[str, str]
    release: str
    release_hash: str
    version: str
    fetched: str


def receipt_path(folder: Path, stem: str) -> Path:
    """Return the place of a partition's receipt.

    Parameters
    ----------
    folder
        The output folder.
    stem
        The partition's name without ending.
    """
    return folder / FOLDER / f"{stem}.json"


def write_receipt(folder: Path, stem: str, receipt: FetchReceipt) -> None:
    """Write a receipt, atomically.

    Parameters
    ----------
    folder, stem
        As of ``receipt_path``.
    receipt
        The receipt.
    """
    write_atomic(receipt_path(folder, stem), as_json(asdict(receipt)))


def finished(folder: Path, stem: str, md5: str, settings: dict[str, str]) -> FetchReceipt | None:
    """Return the receipt of a partition that is done; None where it must be fetched.

    It must be fetched where there is no receipt, the Parquet file is missing or has another
    size, or the archive has another file by now.

    Parameters
    ----------
    folder, stem
        As of ``receipt_path``.
    md5
        The MD5 sum that the archive states now.
    settings
        What is asked for now.

    Raises
    ------
    JobError
        The folder holds the partition with other settings.
    """
    receipt = None
    with contextlib.suppress(OSError, ValueError, TypeError):
        receipt = FetchReceipt(**json.loads(receipt_path(folder, stem).read_bytes()))
    if receipt is None:
        return None
    if receipt.settings != settings:
        raise JobError(
            "the folder holds what was fetched with other settings",
            wanted=_words(settings),
            found=_words(receipt.settings),
            where=receipt_path(folder, stem),
            advice="choose another folder, or give the same options",
        )
    path = folder / receipt.file
    whole = path.is_file() and path.stat().st_size == receipt.file_bytes
    return receipt if whole and receipt.md5 == md5 else None


def _words(settings: dict[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(settings.items()))
