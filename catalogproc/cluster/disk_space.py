"""Check before a run that the disk has room for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogproc.io.free_space import require_space
from catalogproc.readers.chunks import Chunk

BYTES_PER_ROW = 300
"""Approximate size of one star in the output folder."""


def refuse_disk(chunks: Sequence[Chunk], output: Path) -> tuple[int, int]:
    """Refuse a run whose catalog does not fit on the disk.

    Parameters
    ----------
    chunks
        The chunks to process.
    output
        The output folder; it need not exist.

    Returns
    -------
    needed, free : int
        Bytes that the remaining chunks will take, approximately, and bytes that are free.

    Raises
    ------
    Refusal
        ``free`` is less than ``needed``.
    """
    rows = sum(piece.probable_rows for chunk in chunks for piece in chunk.pieces)
    needed = rows * BYTES_PER_ROW
    advice = "give an --output on a larger disk"
    return needed, require_space(output, needed, "too little disk space for the catalog", advice)
