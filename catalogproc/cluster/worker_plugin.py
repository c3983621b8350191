"""A Dask worker plugin that loads the model and keeps it for the chunks of one run.

Dask ignores what a plugin's ``setup`` raises on a worker that joins late, and then gives it
tasks. Therefore ``setup`` raises nothing: it keeps the error, and a task that asks for the
worker's context gets that error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client, WorkerPlugin

from catalogproc import __version__
from catalogproc.cluster.device_memory import DEVICE_MEMORY, device_memory
from catalogproc.cluster.gpu_claim import Claim, pin
from catalogproc.cluster.progress import ROWS_DONE
from catalogproc.cluster.result import describe_error
from catalogproc.errors import CatalogprocError, WorkerError
from catalogproc.io.remote_file import File
from catalogproc.job import Job
from catalogproc.rundir.manifest import RUN_FILE

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.release import Release


@dataclass(frozen=True)
class WorkerContext:
    """What one worker needs for its chunks; made once per run.

    Attributes
    ----------
    engine, auxiliary
        The model with the job, and the gaia_source table if the run has one.
    device
        Label of the device, as in receipts.
    threads
        Threads of the network.
    turn
        Held during a chunk: a worker with several slots still processes one at a time, since
        the network uses all threads.
    rows_done
        Rows that are done of the chunk that is processed, by the chunk's identifier.
    """

    engine: Engine
    auxiliary: AuxiliaryTable | None
    device: str
    threads: int
    turn: threading.Lock = field(default_factory=threading.Lock)
    rows_done: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerStatus:
    """The device of a worker, or the error that prevents it from working."""

    worker: str
    host: str
    device: str
    threads: int
    error: str


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is set up with. It is sent as paths; each worker loads the model itself.

    Attributes
    ----------
    run_id
        Identifier of the run, for the catalog.
    bundle, bundle_hash
        Folder of the trained model, and the hash that it must have.
    job
        What is computed.
    output
        The run's folder. It must exist, else a worker would write where nobody looks.
    auxiliary
        The gaia_source table, already in files that can be read in parts.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads of the network; None takes the worker's own number.
    share_gpu
        Several workers may use one GPU.
    local
        The worker is a child process of this run. It then ignores Ctrl-C, which the run handles.
    dust
        Folder and hash of the staged dust map, if the job reads one.
    release
        The Gaia release of the spectra; None is the model's.
    """

    run_id: str
    bundle: Path
    bundle_hash: str
    job: Job
    output: Path
    auxiliary: AuxiliaryTable | None = None
    device: str = "auto"
    threads: int | None = None
    share_gpu: bool = False
    local: bool = False
    dust: tuple[Path, str] | None = None
    release: Release | None = None


class ModelPlugin(WorkerPlugin):
    """Give each worker one context, for the time of one run.

    Parameters
    ----------
    name
        Of this start only: two runs on one cluster must not use each other's models.
    setup
        What each worker loads.
    """

    idempotent = False

    def __init__(self, name: str, setup: WorkerSetup) -> None:
        self.name = name
        self.spec = setup
        self.version = __version__
        self.context: WorkerContext | None = None
        self.error: Exception | None = None
        self._claim: Claim | None = None

    async def setup(self, worker: Any) -> None:
        """Make the context; an error is kept and not raised.

        Parameters
        ----------
        worker
            The Dask worker that this runs on.
        """
        if self.spec.local:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            # In a thread, because the worker must go on answering its scheduler.
            self.context = await asyncio.to_thread(self._make, int(worker.state.nthreads))
            worker.metrics[DEVICE_MEMORY] = device_memory
            worker.metrics[ROWS_DONE] = rows_done
        except Exception as error:
            self.error = error
            self._release()

    def teardown(self, worker: Any) -> None:
        """Free the model's memory and the device.

        Parameters
        ----------
        worker
            The Dask worker that this runs on.
        """
        self.context = None
        self._release()

    def _make(self, nthreads: int) -> WorkerContext:
        from catalogproc.inference.engine import Engine
        from catalogproc.network.bundle import load_bundle

        spec = self.spec
        if self.version != __version__:
            raise WorkerError(
                "this worker has another version of catalogproc",
                wanted=self.version, found=__version__, where=socket.gethostname(),
            )  # fmt: skip
        if not (spec.output / RUN_FILE).is_file():
            raise WorkerError(
                "this worker does not see the output folder of the run",
                wanted=spec.output / RUN_FILE, found="nothing", where=socket.gethostname(),
            )  # fmt: skip
        self._claim = pin(spec.device, share=spec.share_gpu)
        bundle = load_bundle(spec.bundle)
        if bundle.hash != spec.bundle_hash:
            raise WorkerError(
                "this worker finds another model at the same path",
                wanted=spec.bundle_hash, found=bundle.hash, where=spec.bundle,
            )  # fmt: skip
        bundle = bundle.for_release(spec.release)
        device = self._claim.device
        engine = Engine(bundle, spec.job, device.kind, spec.run_id, self._dust_map())
        engine.self_check()
        return WorkerContext(engine, spec.auxiliary, device.label, spec.threads or nthreads)

    def _dust_map(self) -> DustMap | None:
        from catalogproc.features.dust_map import open_dust_map

        if self.spec.dust is None:
            return None
        folder, wanted = self.spec.dust
        found = open_dust_map(folder)
        if found.hash != wanted:
            raise WorkerError(
                "this worker finds another dust map at the same path",
                wanted=wanted, found=found.hash, where=folder,
            )  # fmt: skip
        return found

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None


async def rows_done(worker: Any) -> dict[str, int]:
    """Return the rows that are done of the chunks that a worker processes, of all runs.

    Parameters
    ----------
    worker
        The Dask worker, given by Dask.
    """
    rows: dict[str, int] = {}
    for plugin in list(worker.plugins.values()):
        if isinstance(plugin, ModelPlugin) and plugin.context is not None:
            rows |= plugin.context.rows_done
    return rows


def context_of(worker: Any, name: str) -> WorkerContext:
    """Return the context of a worker.

    Parameters
    ----------
    worker
        A Dask worker, in its own process.
    name
        The name of the run's plugin.

    Raises
    ------
    WorkerError
        The plugin is missing, or its setup failed on this worker; ``found`` says why.
    """
    plugin = worker.plugins.get(name)
    if isinstance(plugin, ModelPlugin) and plugin.context is not None:
        return plugin.context
    error = getattr(plugin, "error", None)
    raise WorkerError(
        "a worker without a working model received a chunk",
        wanted="a loaded and checked model",
        found=describe_error(error) if error is not None else "no plugin of this run",
        where=f"{worker.address} on {socket.gethostname()}",
    ) from error


def worker_status(name: str, dask_worker: Any) -> WorkerStatus:
    """Return the status of a worker; to be called on it by ``Client.run``.

    Parameters
    ----------
    name
        The name of the run's plugin.
    dask_worker
        The Dask worker, given by Dask.
    """
    try:
        context = context_of(dask_worker, name)
        device, threads, error = context.device, context.threads, ""
    except WorkerError as refused:
        device, threads, error = "", 0, str(refused.found)
    return WorkerStatus(str(dask_worker.name), socket.gethostname(), device, threads, error)


def worker_statuses(client: Client, name: str) -> dict[str, WorkerStatus]:
    """Return the status of each worker by address, without those that do not answer.

    Parameters
    ----------
    client
        Client of the cluster.
    name
        The name of the run's plugin.
    """
    found = client.run(worker_status, name, on_error="return")
    return {address: status for address, status in found.items()
            if isinstance(status, WorkerStatus)}  # fmt: skip


def use_threads(threads: int) -> None:
    """Set torch's number of threads in the calling thread; torch keeps it per thread.

    Parameters
    ----------
    threads
        Number of threads.
    """
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def shared_folder_error(probe: Path, token: str, files: Sequence[File]) -> str:
    """Return why a worker does not see the folders of the run, or an empty string if it does.

    Parameters
    ----------
    probe
        A file in the output folder, which must be writable.
    token
        What the probe must contain.
    files
        Input files that must exist; one at an address must be readable from here.
    """
    try:
        found = probe.read_text(encoding="utf-8")
        for file in files:
            if isinstance(file, Path):
                file.stat()
            else:
                file.now()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except CatalogprocError as error:
        return error.text(advice=False)
    if found != token:
        return f"{probe} has other content there"
    return "" if os.access(probe.parent, os.W_OK | os.X_OK) else f"{probe.parent} is not writable"
