"""Locks that die with the process that holds them."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from catalogproc.io.atomic import process_named, this_process


def lock(path: Path) -> int:
    """Lock a file, write into it who holds it, and return its descriptor.

    The lock lives as long as the descriptor is open, at most as long as this process. The
    file stays: removing it would let two processes lock two files of one name.

    Raises
    ------
    BlockingIOError
        Another process holds the lock.
    OSError
        The file cannot be made, or its file system has no locks.
    """
    guarded = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle, mine = os.open(path, os.O_RDWR | os.O_CREAT | guarded, 0o644), True
    except PermissionError:  # another user's: it can be locked all the same
        handle, mine = os.open(path, os.O_RDONLY | guarded), False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if mine:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(this_process()).encode(), 0)
    except OSError:
        os.close(handle)
        raise
    return handle


def owner(path: Path) -> str:
    """Who wrote itself into a lock file, in words."""
    try:
        return process_named(path.read_bytes())
    except OSError:
        return process_named("")
