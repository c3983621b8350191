"""The model on a Dask worker: pinned, loaded, checked, handed out.

Dask swallows what a plugin's ``setup`` raises on a worker that joins late, and goes on to
hand it tasks. Hence ``setup`` raises nothing here: it keeps its error, and whoever asks the
worker for its engine gets that error.
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

from distributed import WorkerPlugin

from catalogproc import __version__
from catalogproc.cluster.clock import steady
from catalogproc.cluster.device_memory import DEVICE_MEMORY, device_memory
from catalogproc.cluster.gpu import Claim, pin
from catalogproc.cluster.result import words
from catalogproc.errors import WorkerError
from catalogproc.job import Job
from catalogproc.rundir.manifest import RUN_FILE

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.gaia_source import Companion


@dataclass(frozen=True)
class Bench:
    """What one worker works with, made once."""

    engine: Engine
    companion: Companion | None
    device: str
    threads: int
    turn: threading.Lock = field(default_factory=threading.Lock)
    """A worker with several slots still does one chunk at a time: the network uses them all."""


@dataclass(frozen=True)
class Report:
    """How a worker stands: the device it works on, or why it cannot."""

    worker: str
    host: str
    device: str
    threads: int
    error: str


class ModelPlugin(WorkerPlugin):
    """Gives each worker one engine, for the time of one run.

    It travels as paths and a job; each worker loads the model itself.

    Parameters
    ----------
    name
        Of this run alone: two runs on one cluster must not take each other's engines.
    run_id
        What the catalog says of the run.
    bundle, bundle_hash
        The folder of the trained model, and what it must hold.
    job
        What is computed.
    output
        The run's folder, which must be there already: a worker that makes its own would
        write where nobody looks.
    companion
        The companion table's files, already in a form that can be read in parts.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads of the network; None takes the worker's own.
    share_gpu
        Several workers may use one GPU.
    ours
        The worker is a child of this run's own process, which alone answers Ctrl-C.
    dust
        The folder of the staged dust map and the hash that it must have, if the job reads one.
    """

    idempotent = False

    def __init__(
        self,
        name: str,
        run_id: str,
        bundle: Path,
        bundle_hash: str,
        job: Job,
        output: Path,
        companion: Companion | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        share_gpu: bool = False,
        ours: bool = False,
        dust: tuple[Path, str] | None = None,
    ) -> None:
        self.name = name
        self.run_id = run_id
        self.version = __version__
        self.bundle = bundle
        self.bundle_hash = bundle_hash
        self.job = job
        self.output = output
        self.companion = companion
        self.device = device
        self.threads = threads
        self.share_gpu = share_gpu
        self.ours = ours
        self.dust = dust
        self.bench: Bench | None = None
        self.error: Exception | None = None
        self._claim: Claim | None = None

    async def setup(self, worker: Any) -> None:
        """Make the bench; raise nothing, keep the error."""
        if self.ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            steady()
        try:
            # In a thread: the worker must go on answering its scheduler meanwhile.
            self.bench = await asyncio.to_thread(self._make, int(worker.state.nthreads))
            worker.metrics[DEVICE_MEMORY] = device_memory
        except Exception as error:
            self.error = error
            self._let_go()

    def teardown(self, worker: Any) -> None:
        """Give back the model's memory and the device."""
        self.bench = None
        self._let_go()

    def _make(self, nthreads: int) -> Bench:
        from catalogproc.inference.engine import Engine
        from catalogproc.network.bundle import load_bundle

        if self.version != __version__:
            raise WorkerError(
                "this worker has another version of catalogproc",
                wanted=self.version, found=__version__, where=socket.gethostname(),
            )  # fmt: skip
        if not (self.output / RUN_FILE).is_file():
            raise WorkerError(
                "this worker does not see the output folder of the run",
                wanted=self.output / RUN_FILE, found="nothing", where=socket.gethostname(),
            )  # fmt: skip
        self._claim = pin(self.device, share=self.share_gpu)
        bundle = load_bundle(self.bundle)
        if bundle.hash != self.bundle_hash:
            raise WorkerError(
                "this worker finds another model at the same place",
                wanted=self.bundle_hash, found=bundle.hash, where=self.bundle,
            )  # fmt: skip
        engine = Engine(bundle, self.job, self._claim.device.kind, self.run_id, self._map())
        engine.self_check()
        return Bench(engine, self.companion, self._claim.device.label, self.threads or nthreads)

    def _map(self) -> DustMap | None:
        from catalogproc.features.dust_map import open_dust_map

        if self.dust is None:
            return None
        folder, wanted = self.dust
        found = open_dust_map(folder)
        if found.hash != wanted:
            raise WorkerError(
                "this worker finds another dust map at the same place",
                wanted=wanted, found=found.hash, where=folder,
            )  # fmt: skip
        return found

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None


def bench_of(worker: Any, name: str) -> Bench:
    """The bench of a worker, or the reason why it has none.

    Raises
    ------
    WorkerError
        The plugin is not there, or its setup failed on this worker.
    """
    plugin = worker.plugins.get(name)
    if isinstance(plugin, ModelPlugin) and plugin.bench is not None:
        return plugin.bench
    error = getattr(plugin, "error", None)
    raise WorkerError(
        "a worker without a working model was handed work",
        wanted="a loaded and checked model",
        found=words(error) if error is not None else "no plugin of this run",
        where=f"{worker.address} on {socket.gethostname()}",
    ) from error


def report_of(worker: Any, name: str) -> Report:
    """How a worker stands."""
    try:
        bench = bench_of(worker, name)
        device, threads, error = bench.device, bench.threads, ""
    except WorkerError as refused:
        device, threads, error = "", 0, str(refused.details["found"])
    return Report(str(worker.name), socket.gethostname(), device, threads, error)


def use_threads(bench: Bench) -> None:
    """Let torch use the bench's threads in the thread that calls; torch counts a thread."""
    import torch

    if torch.get_num_threads() != bench.threads:
        torch.set_num_threads(bench.threads)


def sees(probe: Path, token: str, files: Sequence[Path]) -> str:
    """Why this process does not see what another does, or an empty string.

    It shows a driver whether a worker works in the same folders: the probe must hold the
    token, its folder be open for writing, and the files be there.
    """
    try:
        found = probe.read_text(encoding="utf-8")
        for file in files:
            file.stat()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if found != token:
        return f"{probe} holds something else there"
    return "" if os.access(probe.parent, os.W_OK | os.X_OK) else f"{probe.parent} is not writable"
