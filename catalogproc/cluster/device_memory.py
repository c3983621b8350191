"""Memory of a worker process and of its GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEVICE_MEMORY = "catalogproc_device_memory"
"""The name by which workers tell Dask how much memory of their device they hold."""


def memory_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Bytes that each worker holds, by its name, from what the scheduler knows of them."""
    held = {}
    for address, known in workers.items():
        metrics = known.get("metrics") or {}
        value = metrics.get(DEVICE_MEMORY) or metrics.get("memory") or 0
        held[str(known.get("name", address))] = int(value)
    return held


async def device_memory(worker: Any) -> int:
    """Bytes that this process holds of its GPU; 0 where it uses none."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return 0
    return int(torch.cuda.memory_reserved())
