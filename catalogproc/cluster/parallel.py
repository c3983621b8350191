"""A function of many files, in threads: opening files on a shared disk is slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


def map_parallel(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Return the function of each item, in their order.

    Parameters
    ----------
    function
        What is called, in :data:`THREADS` threads.
    items
        Its arguments.
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))
