"""SHA-256 of bytes and of files, as hexadecimal text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

BLOCK = 1 << 20


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


def file_blocks(path: Path, spans: Sequence[tuple[int, int]] | None = None) -> Iterator[bytes]:
    """Yield a file's content in blocks of at most :data:`BLOCK` bytes.

    Parameters
    ----------
    path
        The file.
    spans
        Begin and end of the bytes to read, in order; all where None.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        for begin, end in spans or [(0, path.stat().st_size)]:
            file.seek(begin)
            for place in range(begin, end, BLOCK):
                yield file.read(min(BLOCK, end - place))


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
    return sha256(file_blocks(path))
