"""Room on the disk, before something large is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from catalogproc.errors import Refusal
from catalogproc.io.output import existing_parent


def require_space(
    folder: Path, needed: int, problem: str, advice: str, where: object = None
) -> int:
    """Refuse to write more than a disk has room for; return the bytes that are free.

    Parameters
    ----------
    folder
        Where it would be written; it need not exist.
    needed
        Bytes.
    problem, advice
        What there is too little space for, and what to do.
    where
        What would be written, if that says more than the folder.

    Raises
    ------
    Refusal
        Fewer bytes are free.
    """
    place = existing_parent(folder)
    free = shutil.disk_usage(place).free
    if needed > free:
        at = "" if where is None else f" at {place}"
        raise Refusal(
            problem,
            wanted=f"about {format_bytes(needed)}",
            found=f"{format_bytes(free)} free{at}",
            where=where or place,
            advice=advice,
        )
    return free


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
