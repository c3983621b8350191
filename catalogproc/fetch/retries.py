"""Requests that are tried again after faults that may pass, after longer and longer pauses."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catalogproc.errors import DownloadError, masked


class Stopped(Exception):
    """The caller asked to stop; what was fetched is kept and resumed by the next call."""


class Passing(Exception):
    """A fault that may be gone at the next try, and when the server asks for it (s).

    It does not leave this folder: :func:`retried` makes it a DownloadError.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    Attributes
    ----------
    tries
        Number of tries without a byte of progress before a file is given up.
    pause
        Seconds before the second try; each later pause is twice as long.
    longest_pause
        Seconds of a pause at most, also where the server asks for more.
    connect, silence
        Seconds until a connection stands; without a byte before it counts as broken.
    """

    tries: int = 8
    pause: float = 1.0
    longest_pause: float = 300.0
    connect: float = 30.0
    silence: float = 60.0


def retried(
    url: str,
    retries: Retries,
    do: Callable[[], Any],
    size: Callable[[], int] = lambda: 0,
    stop: threading.Event | None = None,
) -> Any:
    """Return the result of a request that is tried again after faults that may pass.

    Parameters
    ----------
    url
        The address, for messages.
    retries
        How often, and after which pauses.
    do
        The request; it raises Passing for such a fault.
    size
        The progress so far; where it grew, the tries are counted anew.
    stop
        Set to stop.

    Raises
    ------
    DownloadError
        It failed too often.
    Stopped
        The caller asked to stop.
    """
    stop = stop or threading.Event()
    failures = 0
    while True:
        before = size()
        if stop.is_set():
            raise Stopped
        try:
            return do()
        except Passing as fault:
            failures = 1 if size() > before else failures + 1
            if failures >= retries.tries:
                raise DownloadError(
                    "the archive does not hand out a file",
                    found=f"{fault}, {failures} times", where=masked(url),
                    advice="run the same command again later: it resumes",
                ) from fault  # fmt: skip
            # Different clients do not come back in the same second.
            pause = retries.pause * 2.0 ** (failures - 1) * random.uniform(0.8, 1.2)
            if stop.wait(min(max(pause, fault.wait or 0.0), retries.longest_pause)):
                raise Stopped from None
