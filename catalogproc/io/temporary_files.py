"""Names of files that are being written; removal of those that killed processes left."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from catalogproc.io.processes import host_name, is_running

STALE_AGE = 86_400.0
"""Seconds without a change after which a temporary file is stale, whichever process wrote it."""

_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)@(?P<host>[\w.-]+)\.[0-9a-f]{8}\.tmp$")


def remove_stale(folders: Iterable[Path], now: float | None = None) -> list[Path]:
    """Remove the temporary files and folders that killed processes left.

    One is stale when its process no longer runs on this host, or when nothing in it has
    changed for a day. What a process is still writing is kept.

    Parameters
    ----------
    folders
        Where to look.
    now
        Seconds since 1970; the present where None.

    Returns
    -------
    list of Path
        What was removed.
    """
    now = time.time() if now is None else now
    removed = []
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            match = _TEMPORARY.match(path.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                dead = match["host"] == host_name() and not is_running(int(match["pid"]))
                if dead or now - _changed(path) > STALE_AGE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed.append(path)
    return removed


def is_temporary(path: Path) -> bool:
    """Return whether a file has the name of one of this module's temporary files.

    Parameters
    ----------
    path
        The file.
    """
    return _TEMPORARY.match(path.name) is not None


def temporary_path(path: Path) -> Path:
    """Return a name in the same folder under which a file or folder can be written first.

    Parameters
    ----------
    path
        The final name.
    """
    return path.with_name(f".{path.name}.{os.getpid()}@{host_name()}.{secrets.token_hex(4)}.tmp")


def _changed(path: Path) -> float:
    """Return when a file, or anything in a folder, was last changed, in s since 1970."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
