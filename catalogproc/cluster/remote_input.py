"""Which input files are looked at before a run: those at addresses are left to the workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogproc.io.remote_file import File, RemoteFile

SHARE = 100
"""A file at an address is looked at if it is at most this part (one in so many) of all of them."""
SMALL = 4 << 20
"""So is one of at most so many bytes."""


def looked_at(files: Sequence[File]) -> list[File]:
    """Return the files whose first rows are read before a run starts.

    Parameters
    ----------
    files
        The input. To read rows of a thousand objects, or most of a single one, would delay the
        first chunk.

    Returns
    -------
    list of Path or RemoteFile
        The local files; of those at addresses the first one, if it is small or one of many.
    """
    remote = [file for file in files if isinstance(file, RemoteFile)]
    allowed = max(sum(file.size for file in remote) // SHARE, SMALL)
    first = [file for file in remote[:1] if file.size <= allowed]
    return [file for file in files if isinstance(file, Path) or file in first]
