"""Keep memory that a pass of the network frees in the process, on Linux with glibc.

A pass allocates and frees some megabytes per layer. glibc returns such blocks to the system,
which then clears and maps every page again: with the threshold that Dask sets for its workers
(``MALLOC_TRIM_THRESHOLD_`` of 64 KiB) this happens in every pass: without the thresholds below
a pass takes 1.5 times as long (the model giants, one thread; 1.8 times the CPU time).
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

# Parameter numbers of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
FREE_AT_TOP = 128 * 1024**2
"""Free bytes at the top of the heap that are not returned."""
LARGEST_BLOCK = 32 * 1024**2
"""Larger blocks are mapped and unmapped one by one; the maximum of glibc, bytes."""


@cache
def keep_freed_memory() -> bool:
    """Raise glibc's thresholds for this process; do nothing with another C library.

    They stay for the life of the process, because the C library cannot report their old values.

    Returns
    -------
    Whether they were raised.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(TRIM_THRESHOLD, FREE_AT_TOP))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory did not suffice, of the host or of a GPU.

    Parameters
    ----------
    error
        Raised by Python, numpy, Arrow or torch.
    """
    import torch

    # torch has a class for GPUs; of the CPU its text is all there is.
    of_host = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or of_host


def release_device_memory() -> None:
    """Return memory of a GPU that torch keeps for later to the device; nothing without a GPU."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
