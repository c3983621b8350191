"""Memory of a worker process and of its GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEVICE_MEMORY = "catalogproc_device_memory"
"""Name of the Dask metric that holds the bytes of the device that a worker uses."""


def memory_by_worker(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the bytes that each worker uses, by its name.

    Parameters
    ----------
    workers
        The workers by address, as in ``Client.scheduler_info()["workers"]``.
    """
    used = {}
    for address, worker in workers.items():
        metrics = worker.get("metrics") or {}
        value = metrics.get(DEVICE_MEMORY) or metrics.get("memory") or 0
        used[str(worker.get("name", address))] = int(value)
    return used


async def device_memory(worker: Any) -> int:
    """Return the bytes that this process has reserved on its GPU; 0 without one.

    Parameters
    ----------
    worker
        The Dask worker, given by Dask.
    """
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return 0
    return int(torch.cuda.memory_reserved())
