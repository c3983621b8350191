"""One process for an output folder, which ends in order when a batch system ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from catalogproc.errors import LockedError, Refusal
from catalogproc.io.atomic import write_error
from catalogproc.io.locks import Lock
from catalogproc.rundir.manifest import LOCK_FILE


@contextmanager
def exclusive(output: Path) -> Iterator[None]:
    """Hold the output folder's lock: no other run can use it during the block.

    Parameters
    ----------
    output
        The folder; it is made.

    Raises
    ------
    LockedError
        Another run is using it.
    Refusal
        It cannot be written.
    """
    path = output / LOCK_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = Lock(path)
    except LockedError as error:
        raise LockedError(
            "another run is using the output folder",
            wanted="one run per folder at a time",
            found=error.found,
            where=output,
            advice="wait for it to end, or stop it",
        ) from None
    except OSError as error:
        raise Refusal.of(write_error(error, path)) from None
    with lock:
        yield


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, by which batch systems end a job."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
