"""Memory that one pass of the network frees stays in the process for the next.

A pass makes and frees some megabytes a layer. glibc returns such pieces to the system, which
then clears and maps every page again: with the threshold that Dask sets for its workers
(``MALLOC_TRIM_THRESHOLD_`` of 64 KiB) a pass on a CPU takes twice as long for it.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

# Numbers of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT = 128 * 1024**2
"""Bytes at the top of the heap that are not returned."""
LARGEST = 32 * 1024**2
"""From so many bytes on a piece is mapped by itself and unmapped again; glibc allows no more."""


@cache
def keep_freed_memory() -> bool:
    """Raise glibc's thresholds in this process; False, and nothing done, with another library.

    The C library has no way to ask what they were: they are those of the whole process, and
    stay.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, KEPT))
