"""A run in numbers, for Prometheus: on /metrics of the dashboard's address.

Dask's own numbers stand there too. Names begin with ``catalogproc_``; each has the run's
identifier as a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from catalogproc.cluster.dispatch import Dispatch

DEVICE_MEMORY = "catalogproc_device_memory"
"""The name by which workers tell Dask how much memory of their device they hold."""


class Numbers:
    """What a run did so far; given to Prometheus whenever it asks.

    ``see`` is called with the dispatcher as it stands. Receipts are counted once.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._counted = 0
        self._rows: Counter[str] = Counter({"written": 0})
        self._reasons: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._chunks: Counter[str] = Counter({"done": 0, "failed": 0})
        self._memory: Mapping[str, int] = {}

    def see(self, now: Dispatch) -> None:
        """Take in what has come since the last call."""
        for receipt in now.receipts[self._counted :]:
            self._rows["written"] += receipt.rows_written
            self._reasons.update(receipt.rejected_by_reason)
            self._stages.update(receipt.stage_seconds)
        self._counted = len(now.receipts)
        self._chunks = Counter(done=self._counted, failed=len(now.failures))
        self._memory = now.memory

    def describe(self) -> list[Metric]:
        """Nothing: two runs in one process may both give the same names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As Prometheus's client asks for it."""
        run = self.run_id
        written = CounterMetricFamily("catalogproc_stars", "Stars written.", labels=["run"])
        written.add_metric([run], self._rows["written"])
        yield written
        yield self._counter(
            "catalogproc_rows_rejected", "Rows rejected, by reason.", "reason", self._reasons
        )
        yield self._counter("catalogproc_chunks", "Chunks, by outcome.", "outcome", self._chunks)
        yield self._counter(
            "catalogproc_stage_seconds", "Seconds of work, by stage.", "stage", self._stages
        )
        held = GaugeMetricFamily(
            "catalogproc_device_memory_bytes",
            "Memory of its device that a worker holds; on the CPU, that of its process.",
            labels=["run", "worker"],
        )
        for worker, value in dict(self._memory).items():
            held.add_metric([run, worker], value)
        yield held

    def _counter(self, name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
        made = CounterMetricFamily(name, help, labels=["run", label])
        for key, value in dict(values).items():
            made.add_metric([self.run_id, key], value)
        return made


@contextmanager
def served(run_id: str) -> Iterator[Numbers]:
    """Numbers that Prometheus is given for the time of the block, if it asks this process."""
    numbers = Numbers(run_id)
    prometheus_client.REGISTRY.register(numbers)
    try:
        yield numbers
    finally:
        prometheus_client.REGISTRY.unregister(numbers)


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
