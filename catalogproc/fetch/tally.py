"""How far a bulk download is: bytes, stars, files, and the time that is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from catalogproc.errors import plural

Progress = Callable[[int, int | None, str], None]
"""Called with (MB that are fetched, MB of all files or None, what else is known)."""

_MB = 1_000_000
_BETWEEN = 0.2  # s between two reports, but for files that end


@dataclass
class Tally:
    """Counts what several threads fetch.

    Sizes of files are known when their download begins; those of the others are taken as the
    mean of the known ones.

    Parameters
    ----------
    files
        Number of files to fetch.
    progress
        Is told how far it is.
    """

    files: int
    progress: Progress | None = None
    _done: dict[str, int] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _stars: dict[str, int] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=dict)
    _finished: int = 0
    _start: float = field(default_factory=time.monotonic)
    _last: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetched(self, name: str, done: int, size: int | None) -> None:
        """Count the bytes of a file that are there.

        Parameters
        ----------
        name
            The file.
        done, size
            Its bytes so far, and all of them.
        """
        with self._lock:
            self._begun.setdefault(name, done)
            self._done[name] = done
            if size is not None:
                self._sizes[name] = size
            self._tell()

    def converted(self, name: str, stars: int) -> None:
        """Count the stars of a file that are converted.

        Parameters
        ----------
        name
            The file.
        stars
            Their number so far.
        """
        with self._lock:
            self._stars[name] = stars
            self._tell()

    def finished(self) -> None:
        """Count a file that is done, or has failed."""
        with self._lock:
            self._finished += 1
            self._tell(now=True)

    @property
    def total(self) -> int | None:
        """Bytes of all files, estimated; None before the first is known."""
        if not self._sizes:
            return None
        return round(sum(self._sizes.values()) / len(self._sizes) * self.files)

    def _tell(self, now: bool = False) -> None:
        moment = time.monotonic()
        if self.progress is None or not (now or moment - self._last >= _BETWEEN):
            return
        self._last = moment
        done, total = sum(self._done.values()), self.total
        stars = plural(sum(self._stars.values()), "star")
        words = f"{self._finished:,} of {plural(self.files, 'file')}, {stars}"
        passed = moment - self._start
        here = done - sum(self._begun.values())
        if total and here > 0 and passed > 1.0:
            words += f", about {duration((total - done) / here * passed)} left"
        self.progress(done // _MB, None if total is None else total // _MB, words)


def duration(seconds: float) -> str:
    """Return a time in words: "3 h 20 min".

    Parameters
    ----------
    seconds
        The time.
    """
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
