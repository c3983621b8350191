"""Chunks handed to workers, and what becomes of each."""

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
from typing import TYPE_CHECKING, Any

from distributed import Client, Future, KilledWorker, get_worker
from distributed.metrics import context_meter

from catalogproc.cluster.device_memory import memory_of
from catalogproc.cluster.gpu import cuda_failed
from catalogproc.cluster.result import Failure, words
from catalogproc.cluster.worker_plugin import Report, bench_of, report_of, use_threads
from catalogproc.errors import CatalogprocError, WorkerError

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk
    from catalogproc.rundir.receipts import Receipt

AHEAD = 2
"""Chunks a worker has at hand: one in work and one to go on with."""
TRIES = 3
"""How often a chunk is tried whose files could not be read or written just then."""
MAY_PASS = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
"""System errors of shared disks that may be gone a moment later."""
PATIENCE = 60.0
"""Seconds to wait for a worker where there is none."""
ANSWER = 30.0
"""Seconds that a scheduler may take to say who is there."""
TICK = 0.5
"""Seconds between two looks at the workers."""


def work(name: str, chunk: Chunk, output: Path) -> Receipt:
    """One chunk, on a worker. Only paths came here, and only counts go back."""
    from catalogproc.inference.process_chunk import process_chunk

    worker = get_worker()
    bench = bench_of(worker, name)
    with bench.turn:
        use_threads(bench)
        try:
            receipt = process_chunk(
                bench.engine, chunk, bench.companion, output, str(worker.name), bench.device
            )
        except CatalogprocError as error:
            raise passing(error) or error from None
        except RuntimeError as error:
            if cuda_failed(error):
                # Its nanny begins it anew: on its GPU, or, where that is lost, without a model.
                os.kill(os.getpid(), signal.SIGKILL)
            raise
    for stage, seconds in receipt.stage_seconds.items():
        # On the dashboard they stand under "Fine performance metrics".
        context_meter.digest_metric(stage, seconds, "seconds")
    return receipt


def passing(error: CatalogprocError) -> OSError | None:
    """The system's error behind one of ours, if it is of those that may pass by themselves.

    It is looked for here because Dask carries errors without their causes.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in MAY_PASS:
            return OSError(cause.errno, str(error))
        cause = cause.__cause__ or cause.__context__
    return None


def ask(name: str, dask_worker: Any) -> Report:
    """How the worker stands that this runs on."""
    return report_of(dask_worker, name)


def reports(client: Client, name: str) -> dict[str, Report]:
    """How each worker stands, by address; one that does not answer is left out."""
    found = client.run(ask, name, on_error="return")
    return {address: report for address, report in found.items() if isinstance(report, Report)}


@dataclass(frozen=True)
class Errand:
    """A chunk to be done: how often it was tried, and whether it must be alone.

    A chunk is alone once a worker died with it: if one dies again, it was this chunk.
    """

    chunk: Chunk
    tries: int = 0
    alone: bool = False
    on: frozenset[str] = frozenset()


class Dispatch:
    """Hands out chunks, a bounded number at a time, until none is left or nothing can go on.

    Parameters
    ----------
    client
        Of the cluster, whose workers have the plugin ``name``.
    chunks, output
        What to do and where to write it.
    report
        Called with this object about twice a second and after each chunk.
    do
        What a worker does: (name, chunk, output) to the chunk's receipt.

    Attributes
    ----------
    receipts, failures
        Of the chunks that are done, and of those that cannot be.
    retries
        What befell chunks that were then tried again.
    rows
        Rows read by the chunks that are done.
    memory
        Bytes that each worker holds of its device, or of the host where that is the CPU.
    workers
        Addresses of the workers that take chunks now.
    notes
        What the user should know: workers that are left out, and why. In order.
    stopped
        Why it ended before the last chunk; empty where it did not.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        chunks: Iterable[Chunk],
        output: Path,
        report: Callable[[Dispatch], None] | None = None,
        do: Callable[[str, Chunk, Path], Receipt] = work,
    ) -> None:
        self.client, self.name, self.output = client, name, output
        self.waiting = deque(Errand(chunk) for chunk in chunks)
        self.suspects: deque[Errand] = deque()
        self.flying: dict[Future, Errand] = {}
        self.refused: set[str] = set()
        self.workers: frozenset[str] = frozenset()
        self.receipts: list[Receipt] = []
        self.failures: list[Failure] = []
        self.retries: list[Failure] = []
        self.memory: dict[str, int] = {}
        self.notes: dict[str, None] = {}
        self.stopped = ""
        self.rows = 0
        self._do = do
        self._report = report or (lambda _: None)
        self._landed: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._handed_out = 0
        self._looked = -math.inf
        self._deserted = time.monotonic()

    def run(self) -> None:
        """Until every chunk is done or has failed, or nothing can go on."""
        try:
            while not self.stopped and (self.waiting or self.suspects or self.flying):
                if time.monotonic() - self._looked >= TICK:
                    self._look_at_workers()
                self._hand_out()
                self._report(self)
                self._take_back()
        finally:
            if self.flying and self.client.status == "running":
                with suppress(OSError):  # the scheduler may have died, and the client not know
                    self.client.cancel(list(self.flying), force=True)
        self._report(self)

    def _look_at_workers(self) -> None:
        """Who is there; chunks that wait for workers that are gone are called back."""
        self._looked = time.monotonic()
        if self.client.status != "running":
            self._stop("the scheduler cannot be reached any more")
            return
        try:
            # scheduler_info() would wait for ever for a scheduler that has just died.
            asked = self.client.scheduler.identity
            told = self.client.sync(asked, n_workers=-1, callback_timeout=ANSWER)
        except (OSError, RuntimeError):
            self._stop("the scheduler cannot be reached any more")
            return
        known = told["workers"]
        self.workers = frozenset(known) - self.refused
        self.memory = memory_of(known)
        if self.workers:
            self._deserted = self._looked
        elif self._looked - self._deserted > PATIENCE:
            self._stop("no worker with a working model is left")
        for future, errand in list(self.flying.items()):
            if errand.on and not errand.on & self.workers:
                del self.flying[future]
                future.cancel(force=True)
                self.waiting.appendleft(errand)

    def _hand_out(self) -> None:
        room = AHEAD * len(self.workers) - len(self.flying)
        while self.waiting and room > 0:
            self._send(self.waiting.popleft())
            room -= 1
        if self.suspects and self.workers and not self.flying and not self.waiting:
            self._send(self.suspects.popleft())

    def _send(self, errand: Errand) -> None:
        # Dask moves a chunk to another worker when its own dies. Where some worker is known
        # to have no model, the others are named, or it would take all and do none.
        errand = replace(errand, on=self.workers if self.refused else frozenset())
        self._handed_out += 1
        future = self.client.submit(
            self._do, self.name, errand.chunk, self.output,
            key=f"chunk-{errand.chunk.id}-{self._handed_out}",
            pure=False,
            workers=sorted(errand.on) or None,
        )  # fmt: skip
        self.flying[future] = errand
        future.add_done_callback(self._landed.put)

    def _take_back(self) -> None:
        """Wait for one chunk at most a tick, then take all that are there."""
        wait = TICK
        while True:
            try:
                future = self._landed.get(timeout=wait)
            except queue.Empty:
                return
            wait = 0.0
            errand = self.flying.pop(future, None)
            if errand is not None:
                self._settle(future, errand)

    def _settle(self, future: Future, errand: Errand) -> None:
        if future.status == "finished":
            try:
                receipt: Receipt = future.result(timeout=PATIENCE)
            except Exception as error:
                self._fault(error, errand)
                return
            self.receipts.append(receipt)
            self.rows += receipt.rows_read
        elif future.status == "error":
            self._fault(future.exception(), errand)
        else:  # cancelled: the scheduler lost it
            self._again(errand, "the scheduler lost the chunk")

    def _fault(self, error: BaseException, errand: Errand) -> None:
        """A chunk came back with an error: again, elsewhere, alone, or never."""
        if isinstance(error, WorkerError):
            self.leave_out(reports(self.client, self.name))
            if errand.on:  # refused where it should not have been
                self._again(errand, words(error))
            else:
                self.waiting.append(errand)
        elif isinstance(error, KilledWorker | MemoryError) and not errand.alone:
            self.retries.append(Failure.of_chunk(errand.chunk, type(error).__name__, words(error)))
            self.suspects.append(replace(errand, alone=True))
        elif isinstance(error, CatalogprocError) and error.message.startswith("there is no space"):
            self._stop(str(error))
        elif isinstance(error, OSError) and not isinstance(error, CatalogprocError):
            self._again(errand, words(error))
        elif isinstance(error, KilledWorker):
            self._fail(
                errand, "its worker died of it, also alone: out of memory, a crash, or its GPU"
            )
        else:
            self._fail(errand, words(error), type(error).__name__)

    def leave_out(self, stand: Mapping[str, Report]) -> None:
        """Hand nothing to workers that have no model."""
        for address, report in stand.items():
            if report.error and address not in self.refused:
                self.refused.add(address)
                place = f"worker {report.worker} on {report.host}"
                self.notes[f"{place} is left out: {report.error}"] = None
        self.workers -= self.refused

    def _again(self, errand: Errand, cause: str) -> None:
        if errand.tries + 1 < TRIES:
            self.retries.append(Failure.of_chunk(errand.chunk, "OSError", cause))
            self.waiting.append(replace(errand, tries=errand.tries + 1))
        else:
            self._fail(errand, f"{cause} (tried {TRIES} times)", "OSError")

    def _fail(self, errand: Errand, cause: str, kind: str = "WorkerDied") -> None:
        self.failures.append(Failure.of_chunk(errand.chunk, kind, cause))

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why
