"""Metrics of a run for Prometheus, served at /metrics of the dashboard beside Dask's own.

Names begin with ``catalogproc_``; each metric has the run's identifier as a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from catalogproc.cluster.scheduler import ChunkScheduler


class RunMetrics:
    """A Prometheus collector of what a run has done so far.

    Parameters
    ----------
    run_id
        Identifier of the run.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._counted = 0
        self._rows: Counter[str] = Counter({"written": 0})
        self._reasons: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._chunks: Counter[str] = Counter({"done": 0, "failed": 0})
        self._memory: Mapping[str, int] = {}

    def update(self, scheduler: ChunkScheduler) -> None:
        """Count what was done since the last call.

        Parameters
        ----------
        scheduler
            The run's scheduler.
        """
        for receipt in scheduler.receipts[self._counted :]:
            self._rows["written"] += receipt.rows_written
            self._reasons.update(receipt.rejected_by_reason)
            self._stages.update(receipt.stage_seconds)
        self._counted = len(scheduler.receipts)
        self._chunks = Counter(done=self._counted, failed=len(scheduler.failures))
        self._memory = scheduler.memory

    def describe(self) -> list[Metric]:
        """Return nothing: two runs in one process may have the same metric names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; Prometheus's client calls this."""
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
        memory = GaugeMetricFamily(
            "catalogproc_device_memory_bytes",
            "Memory of the device that a worker uses; on the CPU, that of its process.",
            labels=["run", "worker"],
        )
        for worker, value in dict(self._memory).items():
            memory.add_metric([run, worker], value)
        yield memory

    def _counter(self, name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
        counter = CounterMetricFamily(name, help, labels=["run", label])
        for key, value in dict(values).items():
            counter.add_metric([self.run_id, key], value)
        return counter


@contextmanager
def served_metrics(run_id: str) -> Iterator[RunMetrics]:
    """Yield metrics that this process serves to Prometheus during the block.

    Parameters
    ----------
    run_id
        Identifier of the run.
    """
    metrics = RunMetrics(run_id)
    prometheus_client.REGISTRY.register(metrics)
    try:
        yield metrics
    finally:
        prometheus_client.REGISTRY.unregister(metrics)
