"""What a Dask worker does with a chunk, and which of its errors may be gone at the next try."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import get_worker
from distributed.metrics import context_meter

from catalogproc.cluster.gpu import device_error
from catalogproc.cluster.worker_plugin import context_of, use_threads
from catalogproc.errors import CatalogprocError, TransientError

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk
    from catalogproc.rundir.receipts import Receipt

TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
"""System errors of shared disks that may be gone at the next try."""


def process_on_worker(name: str, output: Path, chunk: Chunk, halvings: int = 0) -> Receipt:
    """Process one chunk on a Dask worker. Only paths are sent there, and only counts return.

    Parameters
    ----------
    name
        The name of the run's plugin.
    output
        The run's folder.
    chunk, halvings
        The chunk, and how often its batch is halved before it begins.

    Raises
    ------
    WorkerError
        This worker has no working model.
    TransientError
        A disk or file server failed.
    CatalogprocError, MemoryError
        As :func:`catalogproc.inference.process_chunk.process_chunk`.
    """
    from catalogproc.inference.process_chunk import ChunkWorker, process_chunk
    from catalogproc.network.memory import is_out_of_memory

    worker = get_worker()
    context = context_of(worker, name)
    rows = context.rows_done

    def progress(count: int) -> None:
        rows[chunk.id] = rows.get(chunk.id, 0) + count

    with context.turn:
        use_threads(context.threads)
        worked = ChunkWorker(str(worker.name), context.device, progress, halvings)
        try:
            receipt = process_chunk(context.engine, chunk, context.auxiliary, output, worked)
        except CatalogprocError as error:
            raise as_transient(error) or error from None
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from None
            if device_error(error, context.device) is not None:
                # Its nanny restarts it: on its GPU, or without a model if the GPU is lost.
                os.kill(os.getpid(), signal.SIGKILL)
            raise
        finally:
            rows.pop(chunk.id, None)
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
