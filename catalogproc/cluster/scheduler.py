"""Submit chunks to Dask workers, and handle what comes back: receipts, errors, lost workers."""

from __future__ import annotations

import errno
import math
import os
import queue
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client, Future, KilledWorker, get_worker
from distributed.metrics import context_meter

from catalogproc.cluster.device_memory import memory_by_worker
from catalogproc.cluster.gpu import device_error
from catalogproc.cluster.result import WORKER_DIED, Failure, describe_error
from catalogproc.cluster.worker_plugin import (
    WorkerStatus,
    context_of,
    use_threads,
    worker_statuses,
)
from catalogproc.errors import CatalogprocError, DiskFullError, TransientError, WorkerError

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk
    from catalogproc.rundir.receipts import Receipt

CHUNKS_PER_WORKER = 2
"""Chunks submitted per worker: one that is processed and one that waits for it."""
TRIES = 3
"""How often a chunk is tried if its files could not be read or written."""
TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
"""System errors of shared disks that may be gone at the next try."""
WORKER_TIMEOUT = 60.0
"""Seconds to wait for a worker if there is none."""
ANSWER_TIMEOUT = 30.0
"""Seconds to wait for the scheduler's list of workers."""
INTERVAL = 0.5
"""Seconds between two requests for the list of workers."""


def process_on_worker(name: str, output: Path, chunk: Chunk) -> Receipt:
    """Process one chunk on a Dask worker. Only paths are sent there, and only counts return.

    Parameters
    ----------
    name
        The name of the run's plugin.
    output
        The run's folder.
    chunk
        The chunk.

    Raises
    ------
    WorkerError
        This worker has no working model.
    TransientError
        A disk or file server failed.
    CatalogprocError
        As :func:`catalogproc.inference.process_chunk.process_chunk`.
    """
    from catalogproc.inference.process_chunk import ChunkWorker, process_chunk

    worker = get_worker()
    context = context_of(worker, name)
    with context.turn:
        use_threads(context.threads)
        try:
            receipt = process_chunk(
                context.engine,
                chunk,
                context.auxiliary,
                output,
                ChunkWorker(str(worker.name), context.device),
            )
        except CatalogprocError as error:
            raise as_transient(error) or error from None
        except RuntimeError as error:
            if device_error(error, context.device) is not None:
                # Its nanny restarts it: on its GPU, or without a model if the GPU is lost.
                os.kill(os.getpid(), signal.SIGKILL)
            raise
    for stage, seconds in receipt.stage_seconds.items():
        # Shown on the dashboard's page "Fine performance metrics".
        context_meter.digest_metric(stage, seconds, "seconds")
    return receipt


def as_transient(error: CatalogprocError) -> TransientError | None:
    """Return a TransientError if a system error behind this one is of that kind, else None.

    This is decided on the worker because Dask sends errors without their causes.

    Parameters
    ----------
    error
        An error with its causes.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in TRANSIENT:
            found = f"[Errno {cause.errno}] {os.strerror(cause.errno)}"
            return TransientError(
                error.message, wanted=error.wanted, found=error.found or found, where=error.where
            )
        cause = cause.__cause__ or cause.__context__
    return None


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
    """

    chunk: Chunk
    tries: int = 0
    quarantined: bool = False
    workers: frozenset[str] = frozenset()


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
        Processes one chunk on a worker; sent there by pickle.
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
        Identifiers of the chunks of several files that failed and were divided, so that only
        the file that is to blame fails.
    rows
        Rows read by the chunks that are done.
    memory
        Bytes of its device that each worker uses; of the host's memory on the CPU.
    notes
        Workers that are not used, and why, in order.
    stopped
        Why the run stopped before the last chunk; empty if it did not.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        chunks: Iterable[Chunk],
        process: Callable[[Chunk], Receipt],
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
            self._process, task.chunk,
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
        elif isinstance(error, KilledWorker):
            cause = (
                "its worker process died twice, the second time with no other chunk running: out "
                "of memory, a crash, or a GPU failure"
            )
            self._fail(task, Failure.of_chunk(task.chunk, error, WORKER_DIED, cause))
        elif isinstance(error, DiskFullError):
            self._stop(str(error))
        elif isinstance(error, TransientError | OSError):
            self._retry(task, error)
        else:
            self._fail(task, Failure.of_chunk(task.chunk, error))

    def _retry(self, task: ChunkTask, error: BaseException) -> None:
        if task.tries + 1 < TRIES:
            self.retries.append(Failure.of_chunk(task.chunk, error))
            self.waiting.append(replace(task, tries=task.tries + 1))
        else:
            cause = f"{describe_error(error)} (tried {TRIES} times)"
            self._fail(task, Failure.of_chunk(task.chunk, error, cause=cause))

    def _fail(self, task: ChunkTask, failure: Failure) -> None:
        """Count a chunk as failed; one of several files is divided and tried again."""
        halves = task.chunk.divided()
        if len(halves) == 1:
            self.failures.append(failure)
            return
        self.retries.append(failure)
        self.divided.add(task.chunk.id)
        tasks = [ChunkTask(half, quarantined=task.quarantined) for half in halves]
        (self.quarantined if task.quarantined else self.waiting).extend(tasks)

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
