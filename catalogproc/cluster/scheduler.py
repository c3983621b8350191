"""Submit chunks to Dask workers, and handle what comes back: receipts, errors, lost workers."""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distributed import Client, Future, KilledWorker

from catalogproc.cluster.device_memory import memory_by_worker
from catalogproc.cluster.progress import rows_in_flight
from catalogproc.cluster.result import WORKER_DIED, Failure, describe_error, files_in
from catalogproc.cluster.worker_plugin import WorkerStatus, worker_statuses
from catalogproc.errors import DiskFullError, TransientError, WorkerError

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk
    from catalogproc.rundir.receipts import Receipt

CHUNKS_PER_WORKER = 2
"""Chunks submitted per worker: one that is processed and one that waits for it."""
TRIES = 3
"""How often a chunk is tried if its files could not be read or written."""
BATCH_ROWS = 8192
"""Rows of the largest batch that a worker takes."""
SMALLEST_BATCH = 64
"""A chunk of at most so many rows is neither divided nor given smaller batches."""
WORKER_TIMEOUT = 60.0
"""Seconds to wait for a worker if there is none."""
ANSWER_TIMEOUT = 30.0
"""Seconds to wait for the scheduler's list of workers."""
INTERVAL = 0.5
"""Seconds between two requests for the list of workers."""


@dataclass(frozen=True)
class ChunkTask:
    """A chunk to be processed.

    Attributes
    ----------
    chunk
        The chunk.
    tries
        Number of tries that failed because files could not be read or written.
    quarantined
        It is processed only while no other chunk is: a worker died with it among others. If
        one dies again, it was because of this chunk.
    workers
        Addresses of the workers that may process it; empty means any.
    halvings
        How often its batch is halved before it begins, because a worker died with it.
    """

    chunk: Chunk
    tries: int = 0
    quarantined: bool = False
    workers: frozenset[str] = frozenset()
    halvings: int = 0

    def with_smaller_batch(self) -> ChunkTask | None:
        """Return the task with half the batch; None where that is the smallest one already."""
        rows = self.chunk.rows
        halvings = self.halvings + 1
        while rows is not None and BATCH_ROWS >> halvings >= rows > SMALLEST_BATCH:
            halvings += 1  # the chunk has fewer rows
        if BATCH_ROWS >> halvings < SMALLEST_BATCH or (rows or BATCH_ROWS) <= SMALLEST_BATCH:
            return None
        return replace(self, halvings=halvings)


class ChunkScheduler:
    """Submit chunks, a bounded number at a time, until none is left or the run must stop.

    Parameters
    ----------
    client
        Client of the cluster, whose workers have the plugin ``name``.
    name
        The name of the run's plugin.
    chunks
        The chunks to process.
    process
        Processes one chunk on a worker, with its batch halved so often; sent there by pickle.
    report
        Called with this object about twice per second and after each chunk.

    Attributes
    ----------
    waiting, quarantined, in_flight
        Tasks that are not submitted yet; that wait to be alone; that are submitted.
    refused
        Addresses of the workers that have no working model.
    workers
        Addresses of the workers that get chunks now.
    receipts, failures
        Of the chunks that are done, and of those that failed.
    retries
        What happened to chunks that were then tried again.
    divided
        Identifiers of the chunks that failed and were divided: those of several files, so that
        only the file that is to blame fails, and those for which memory did not suffice.
    rows
        Rows read by the chunks that are done.
    memory
        Bytes of its device that each worker uses; of the host's memory on the CPU.
    notes
        For the user: workers that are not used, chunks for which memory did not suffice.
    stopped
        Why the run stopped before the last chunk; empty if it did not.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        chunks: Iterable[Chunk],
        process: Callable[[Chunk, int], Receipt],
        report: Callable[[ChunkScheduler], None] | None = None,
    ) -> None:
        self.client, self.name = client, name
        self.waiting = deque(ChunkTask(chunk) for chunk in chunks)
        self.quarantined: deque[ChunkTask] = deque()
        self.in_flight: dict[Future, ChunkTask] = {}
        self.refused: set[str] = set()
        self.workers: frozenset[str] = frozenset()
        self.receipts: list[Receipt] = []
        self.failures: list[Failure] = []
        self.retries: list[Failure] = []
        self.divided: set[str] = set()
        self.memory: dict[str, int] = {}
        self.notes: dict[str, None] = {}
        self.stopped = ""
        self.rows = 0
        self._rows_in_flight: dict[str, int] = {}
        self._process = process
        self._report = report or (lambda _: None)
        self._finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._submitted = 0
        self._last_update = -math.inf
        self._last_worker = time.monotonic()

    @property
    def total(self) -> int:
        """Number of chunks, those that are done among them."""
        remaining = len(self.waiting) + len(self.quarantined) + len(self.in_flight)
        return len(self.receipts) + len(self.failures) + remaining

    @property
    def rows_now(self) -> int:
        """Rows done now: those of chunks that are done, and of batches of the others."""
        chunks = (task.chunk.id for task in self.in_flight.values())
        return self.rows + sum(self._rows_in_flight.get(chunk, 0) for chunk in chunks)

    def run(self) -> None:
        """Process until every chunk is done or has failed, or the run must stop."""
        try:
            while not self.stopped and (self.waiting or self.quarantined or self.in_flight):
                if time.monotonic() - self._last_update >= INTERVAL:
                    self._update_workers()
                self._submit_tasks()
                self._report(self)
                self._collect()
        finally:
            if self.in_flight and self.client.status == "running":
                with suppress(OSError):  # the scheduler may have died without the client knowing
                    self.client.cancel(list(self.in_flight), force=True)
        self._report(self)

    def exclude(self, statuses: Mapping[str, WorkerStatus]) -> None:
        """Submit no chunk to workers that have no working model.

        Parameters
        ----------
        statuses
            The status of each worker, by address.
        """
        for address, status in statuses.items():
            if status.error and address not in self.refused:
                self.refused.add(address)
                place = f"worker {status.worker} on {status.host}"
                self.notes[f"{place} is not used: {status.error}"] = None
        self.workers -= self.refused

    def _update_workers(self) -> None:
        """Ask for the workers; take back chunks that wait for workers that have left."""
        self._last_update = time.monotonic()
        if self.client.status != "running":
            self._stop("the scheduler does not answer any more")
            return
        try:
            # scheduler_info() would wait for ever for a scheduler that has just died.
            identity = self.client.scheduler.identity
            answer = self.client.sync(identity, n_workers=-1, callback_timeout=ANSWER_TIMEOUT)
        except (OSError, RuntimeError):
            self._stop("the scheduler does not answer any more")
            return
        present = answer["workers"]
        self.workers = frozenset(present) - self.refused
        self.memory = memory_by_worker(present)
        self._rows_in_flight = rows_in_flight(present)
        if self.workers:
            self._last_worker = self._last_update
        elif self._last_update - self._last_worker > WORKER_TIMEOUT:
            self._stop("no worker with a working model is left")
        for future, task in list(self.in_flight.items()):
            if task.workers and not task.workers & self.workers:
                del self.in_flight[future]
                future.cancel(force=True)
                self.waiting.appendleft(task)

    def _submit_tasks(self) -> None:
        free = CHUNKS_PER_WORKER * len(self.workers) - len(self.in_flight)
        while self.waiting and free > 0:
            self._submit(self.waiting.popleft())
            free -= 1
        if self.quarantined and self.workers and not self.in_flight and not self.waiting:
            self._submit(self.quarantined.popleft())

    def _submit(self, task: ChunkTask) -> None:
        # Dask moves a chunk to another worker if its own dies. If some worker has no model, the
        # others are named: it fails at once, so Dask would give it all chunks.
        task = replace(task, workers=self.workers if self.refused else frozenset())
        self._submitted += 1
        future = self.client.submit(
            self._process, task.chunk, task.halvings,
            key=f"chunk-{task.chunk.id}-{self._submitted}",
            pure=False,
            workers=sorted(task.workers) or None,
        )  # fmt: skip
        self.in_flight[future] = task
        future.add_done_callback(self._finished.put)

    def _collect(self) -> None:
        """Wait at most INTERVAL for one chunk, then take all that are finished."""
        timeout = INTERVAL
        while True:
            try:
                future = self._finished.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0.0
            task = self.in_flight.pop(future, None)
            if task is not None:
                self._settle(future, task)

    def _settle(self, future: Future, task: ChunkTask) -> None:
        if future.status == "finished":
            try:
                receipt: Receipt = future.result(timeout=WORKER_TIMEOUT)
            except Exception as error:
                self._handle_error(error, task)
                return
            if receipt.memory_halvings > task.halvings:
                self._note(task, "memory did not suffice for a batch of stars: it was halved")
            self.receipts.append(receipt)
            self.rows += receipt.rows_read
        elif future.status == "error":
            self._handle_error(future.exception(), task)
        else:  # cancelled by the scheduler
            self._retry(task, TransientError("the scheduler lost the chunk"))

    def _handle_error(self, error: BaseException, task: ChunkTask) -> None:
        """Try the chunk again, on other workers or alone, or count it as failed."""
        if isinstance(error, WorkerError):
            self.exclude(worker_statuses(self.client, self.name))
            if task.workers:  # workers that had a model were named, and yet it failed
                self._retry(task, error)
            else:
                self.waiting.append(task)
        elif isinstance(error, KilledWorker | MemoryError) and not task.quarantined:
            self.retries.append(Failure.of_chunk(task.chunk, error))
            self.quarantined.append(replace(task, quarantined=True))
        elif isinstance(error, KilledWorker | MemoryError):
            self._retry_smaller(error, task)
        elif isinstance(error, DiskFullError):
            self._stop(str(error))
        elif isinstance(error, TransientError | OSError):
            self._retry(task, error)
        else:
            self._fail(task, Failure.of_chunk(task.chunk, error), task.chunk.divided())

    def _retry_smaller(self, error: BaseException, task: ChunkTask) -> None:
        """Try a chunk with half the batch, then its halves, and count it as failed at last."""
        smaller = task.with_smaller_batch()
        if smaller is not None:
            words = "its worker died" if isinstance(error, KilledWorker) else "out of memory"
            self._note(task, f"{words}: the batch is halved")
            self.retries.append(Failure.of_chunk(task.chunk, error))
            self.quarantined.appendleft(smaller)
            return
        failure = Failure.of_chunk(task.chunk, error)
        if isinstance(error, KilledWorker):
            cause = (
                "its worker process died twice, the second time with no other chunk running: out "
                "of memory, a crash, or a GPU failure"
            )
            failure = Failure.of_chunk(task.chunk, error, WORKER_DIED, cause)
        parts = task.chunk.divided()
        if len(parts) == 1:
            parts = task.chunk.halved(SMALLEST_BATCH)
        if len(parts) > 1:
            self._note(task, "it is divided")
        self._fail(task, failure, parts)

    def _retry(self, task: ChunkTask, error: BaseException) -> None:
        if task.tries + 1 < TRIES:
            self.retries.append(Failure.of_chunk(task.chunk, error))
            self.waiting.append(replace(task, tries=task.tries + 1))
        else:
            cause = f"{describe_error(error)} (tried {TRIES} times)"
            failure = Failure.of_chunk(task.chunk, error, cause=cause)
            self._fail(task, failure, task.chunk.divided())

    def _fail(self, task: ChunkTask, failure: Failure, halves: Sequence[Chunk]) -> None:
        """Count a chunk as failed, or try its parts if it has several."""
        if len(halves) == 1:
            self.failures.append(failure)
            return
        self.retries.append(failure)
        self.divided.add(task.chunk.id)
        tasks = [ChunkTask(half, 0, task.quarantined, halvings=task.halvings) for half in halves]
        (self.quarantined if task.quarantined else self.waiting).extend(tasks)

    def _note(self, task: ChunkTask, words: str) -> None:
        self.notes[f"chunk {task.chunk.id[:8]} of {files_in(task.chunk)}: {words}"] = None

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
