"""SHA-256 of bytes and of files, as hexadecimal text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(pieces: bytes | Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of bytes.

    Parameters
    ----------
    pieces
        The bytes, or pieces of them in order; pieces of an iterator are read one at a time.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
        digest.update(piece)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Parameters
    ----------
    path
        The file; it is read in blocks.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
