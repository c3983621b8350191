"""A clock that does not jump, for Dask's waits.

Dask and tornado wait until moments of the wall clock. If that is set back by an hour while
chunks are under way, the next message of a worker waits for an hour; if it is set forward, the
scheduler takes every worker for dead. Of workers of our own, and of the process that drives them,
both follow the monotonic clock instead.
"""

from __future__ import annotations

import time

import distributed.batched
import distributed.scheduler
from tornado.ioloop import IOLoop

_ANCHOR = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970 as the wall clock had it when this process began, and steady since."""
    return _ANCHOR + time.monotonic()


def steady() -> None:
    """Let the waits of Dask in this process follow :func:`now`. Once is as good as twice."""
    distributed.batched.time = now
    distributed.scheduler.time = now
    IOLoop.time = lambda self: now()  # type: ignore[method-assign]
