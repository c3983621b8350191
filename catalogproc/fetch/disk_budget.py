"""Space on the disk for what is being fetched; a download waits until there is some."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from catalogproc.fetch.retries import Stopped
from catalogproc.io.free_space import format_bytes

LOOK_AGAIN = 10.0
"""Seconds between two looks at a disk that has no space."""


@dataclass
class DiskBudget:
    """Lets downloads begin one after the other, as long as there is space for them.

    Parameters
    ----------
    folder
        Where they are written.
    limit
        Bytes that the folder may hold, with what is being fetched; None for no limit.
    keep_free
        Bytes of the disk that stay free.
    announce
        Is told when a download waits, and when it goes on.
    stop
        Set to stop waiting.
    """

    folder: Path
    limit: int | None = None
    keep_free: int = 0
    announce: Callable[[str], None] = lambda line: None
    stop: threading.Event = field(default_factory=threading.Event)
    _reserved: int = field(default=0, init=False)
    _waiting: bool = field(default=False, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Wait for space, and hold it during the block.

        Parameters
        ----------
        size
            Bytes that will be written.

        Raises
        ------
        Stopped
            The caller asked to stop.
        """
        with self._changed:
            while lacking := self._lacking(size):
                if not self._waiting:
                    self.announce(f"paused: {lacking}")
                self._waiting = True
                self._changed.wait(LOOK_AGAIN)
                if self.stop.is_set():
                    raise Stopped
            if self._waiting:
                self.announce("there is space again: the downloads go on")
            self._waiting = False
            self._reserved += size
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= size
                self._changed.notify_all()

    def wake(self) -> None:
        """Let those that wait look whether they should stop."""
        with self._changed:
            self._changed.notify_all()

    def _lacking(self, size: int) -> str:
        """Return what stands against a download of a size; empty for nothing."""
        free = shutil.disk_usage(self.folder).free - self._reserved
        if free - size < self.keep_free:
            words = f"{format_bytes(size)} and {format_bytes(self.keep_free)} to stay free"
            return f"{format_bytes(max(free, 0))} are free of the disk, wanted {words}"
        if self.limit is None:
            return ""
        held = self._finished() + self._reserved
        if held + size <= self.limit:
            return ""
        words = f"{format_bytes(held)} of the budget of {format_bytes(self.limit)} are in use"
        return f"{words}, the next file takes {format_bytes(size)}; move finished files away"

    def _finished(self) -> int:
        """Bytes of finished files; those that are being fetched are in what is reserved."""
        held = 0
        for path in self.folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):  # the user moves it away
                held += path.stat().st_size
        return held
