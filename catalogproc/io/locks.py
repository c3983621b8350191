"""Locks between processes, released when the process that holds them ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import lock_descriptor

from catalogproc.errors import LockedError
from catalogproc.io.processes import describe_process, this_process


class Lock:
    """A lock on a file, held from construction until :meth:`release` or the process's end.

    The file states the process that holds the lock. It is never removed: else two processes
    could lock two files of one name. It is the lock of :class:`filelock.FileLock` (flock), on
    a descriptor opened here, because FileLock refuses files of other users in folders like
    /tmp, where the locks of GPUs are.

    Parameters
    ----------
    path
        The file; a symbolic link is not followed. Its folder must exist.
    wait
        Whether to wait until another process releases the lock.

    Raises
    ------
    LockedError
        Another process holds the lock; ``found`` names it.
    OSError
        The file cannot be opened, or its file system has no locks.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = Path(path)
        options = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor, writable = os.open(path, os.O_RDWR | os.O_CREAT | options, 0o644), True
        except PermissionError:  # another user's file can be locked, but not written
            descriptor, writable = os.open(path, os.O_RDONLY | options), False
        self._descriptor = descriptor
        try:
            if not lock_descriptor(descriptor, blocking=wait):
                raise LockedError(
                    "another process holds the lock",
                    found=lock_holder(path),
                    where=path,
                    advice="wait for it to end, or stop it",
                )
            if writable:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(this_process()).encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lock_holder(path: Path) -> str:
    """Return the process that a lock file states, in words.

    Parameters
    ----------
    path
        The lock file.
    """
    try:
        return describe_process(path.read_bytes())
    except OSError:
        return describe_process("")
