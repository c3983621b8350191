"""A function of many files: in threads where it mostly waits, as on a slow shared disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8
FIRST = 8
"""Items that tell whether the function waits or computes."""
COMPUTING = 0.5
"""Share of the time from which it computes: threads would then wait for each other, and three times
the processor time is used."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_parallel(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Return the function of each item, in their order.

    Parameters
    ----------
    function
        What is called, after the first items in :data:`THREADS` threads if it mostly waits.
    items
        Its arguments.
    """
    began, computed = time.monotonic(), time.thread_time()
    found = [function(item) for item in items[:FIRST]]
    rest = items[FIRST:]
    share = (time.thread_time() - computed) / max(time.monotonic() - began, 1e-9)
    if not rest or share > COMPUTING:
        return found + [function(item) for item in rest]
    with ThreadPoolExecutor(THREADS) as pool:
        return found + list(pool.map(function, rest))
