"""Check before a run that the disk has room for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from catalogproc.errors import Refusal
from catalogproc.io.output import existing_parent
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
    place = existing_parent(output)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise Refusal(
            "too little disk space for the catalog",
            wanted=f"about {format_bytes(needed)}",
            found=f"{format_bytes(free)} free",
            where=place,
            advice="give an --output on a larger disk",
        )
    return needed, free


def format_bytes(number: int) -> str:
    """Return a number of bytes with a unit, for messages.

    Parameters
    ----------
    number
        Bytes.
    """
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min((max(number, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{number / 1024**power:,.{min(power, 1)}f} {units[power]}"
