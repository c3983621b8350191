"""Checks of an output before any work: can it be written?"""

from __future__ import annotations

import os
from pathlib import Path

from catalogproc.errors import Refusal
from catalogproc.io.temporary_files import temporary_path


def existing_parent(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists: its disk and rights count.

    Parameters
    ----------
    path
        A file or folder that need not exist.
    """
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def check_output_folder(folder: Path, *, writable: bool = True) -> None:
    """Refuse an output folder that cannot be written, before any work.

    Nothing is created: a temporary folder shows whether one can be, and is removed.

    Parameters
    ----------
    folder
        The folder to write into; it need not exist.
    writable
        Whether it must be writable.

    Raises
    ------
    Refusal
        It is a file, or it cannot be written.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise Refusal(
            "the output is not a folder",
            wanted="a folder, or a name that is not in use",
            found="a file",
            where=folder,
            advice="give another --output",
        )
    if writable:
        _check_writable(folder)


def check_output_file(path: Path) -> None:
    """Refuse an output file that cannot be written, before any work.

    Parameters
    ----------
    path
        The file to write; it need not exist, and is replaced if it does.

    Raises
    ------
    Refusal
        It is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise Refusal(
            "the output is a folder",
            wanted="the name of a file",
            found="a folder",
            where=path,
            advice="give another --output",
        )
    _check_writable(path.parent)


def _check_writable(folder: Path) -> None:
    place = existing_parent(folder)
    probe = temporary_path(place / "probe")
    try:
        # Rights alone do not tell: root may write everywhere, but not in /proc.
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise Refusal(
            "the output cannot be written",
            found=error.strerror or error,
            where=place,
            advice="make the folder writable, or give another --output",
        ) from None
