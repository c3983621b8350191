"""A run in numbers, for Prometheus: on /metrics of the dashboard's address.

Dask's own numbers stand there too. Names begin with ``catalogproc_``; each has the run's
identifier as a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from catalogproc.cluster.scheduler import Dispatch


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
