"""Start a local Dask cluster, or connect to an existing one."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import psutil  # type: ignore[import-untyped]
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from catalogproc.cluster.dashboard import free_address, serve_when_asked
from catalogproc.cluster.gpu import Device, choose_devices
from catalogproc.cluster.spec import LOOPBACK, ClusterConfig
from catalogproc.errors import Refusal, WorkerError, plural

WORKER_BYTES = 1.5e9
"""Memory of one worker: torch, a model, and a chunk with its tokens."""

_SETTINGS = {
    # A chunk that kills its worker is then tried with no other chunk running (scheduler.py).
    "distributed.scheduler.allowed-failures": 1,
    "distributed.worker.daemon": True,
    # The profiler's history of the last hour takes tens of megabytes in each worker.
    "distributed.worker.profile.enabled": False,
    # Tasks exchange paths: there is no data of Dask's to spill, and a paused worker would never
    # continue. A worker that takes too much memory is killed.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # A nanny starts its worker again. Dask closes the nanny for good if the worker is away this
    # long after it died, also if it was back in the meantime and has just died again.
    "distributed.deploy.lost-worker-timeout": "3650 days",
}


@dataclass(frozen=True)
class WorkerSpec:
    """The workers of a local cluster.

    Attributes
    ----------
    devices
        The device of each worker.
    threads
        Threads of each.
    memory
        Bytes of each.
    """

    devices: tuple[Device, ...]
    threads: int
    memory: int

    def line(self) -> str:
        """Return the workers for the user: number, threads, memory and devices."""
        devices = ", ".join(dict.fromkeys(device.label for device in self.devices))
        return (
            f"{plural(len(self.devices), 'worker')} with {plural(self.threads, 'thread')} "
            f"and {self.memory / 2**30:.1f} GiB{' each' if len(self.devices) > 1 else ''}, "
            f"on {devices}"
        )


def cores() -> int:
    """Return the number of physical cores that this process may use (affinity, control group)."""
    return int(min(CPU_COUNT, psutil.cpu_count(logical=False) or CPU_COUNT))


def fit_workers(config: ClusterConfig, chunks: int, remaining: int | None = None) -> WorkerSpec:
    """Fit the workers of a local cluster to this machine and to the number of chunks.

    Without GPUs that is one worker per core, as far as memory allows. The threads of a worker
    follow from all chunks and not from those that remain: the last digits of the network's
    predictions depend on them, and a resumed run must give the catalog of an uninterrupted one.

    Parameters
    ----------
    config
        What the user asked for.
    chunks, remaining
        Number of chunks in the run, and of those to process; None means all.

    Raises
    ------
    Refusal
        As :func:`catalogproc.cluster.gpu.choose_devices`.
    """
    fitting = max(1, min(cores(), int(MEMORY_LIMIT // WORKER_BYTES), chunks))
    devices = choose_devices(config, fitting)
    if config.workers is None:
        devices = devices[: max(1, chunks)]
    threads = max(1, cores() // len(devices))
    devices = devices[: max(1, chunks if remaining is None else remaining)]
    return WorkerSpec(devices, threads, int(MEMORY_LIMIT // len(devices)))


@contextmanager
def local_cluster(workers: WorkerSpec, dashboard: str) -> Iterator[Client]:
    """Yield a client of a scheduler and workers that are started here and end with the block.

    They listen on the loopback interface only. Each worker is a process whose environment
    names its device before CUDA is initialised.

    Parameters
    ----------
    workers
        The workers to start.
    dashboard
        Address of the dashboard; another port is used if this one is taken.

    Raises
    ------
    WorkerError
        The processes do not start.
    """
    nannies = {
        index: {"cls": Nanny, "options": _worker_options(device, workers)}
        for index, device in enumerate(workers.devices)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": LOOPBACK,
            "protocol": "tcp://",
            "port": 0,
            "dashboard": False,  # its pages are loaded when one is asked for
            "dashboard_address": free_address(dashboard),
        },
    }
    with dask.config.set(_SETTINGS), _restored_environment():
        try:
            with warnings.catch_warnings():
                # Another program may take the dashboard's port after it was found to be free.
                warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
                cluster = SpecCluster(
                    nannies, scheduler, name="catalogproc", silence_logs=logging.CRITICAL
                )
        except (RuntimeError, OSError, TimeoutError) as error:
            raise WorkerError(
                "the workers did not start",
                found=f"{type(error).__name__}: {error}",
                advice='a script that calls run() needs: if __name__ == "__main__"',
            ) from error
        serve_when_asked(cluster.scheduler)
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def refuse_temporary_directory() -> None:
    """Refuse to start workers here where Dask's folder for temporary files cannot be written.

    Raises
    ------
    Refusal
        The folder that Dask's configuration names cannot be written.
    """
    folder = dask.config.get("temporary-directory", None)
    if not folder:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(
            "Dask's folder for temporary files cannot be written",
            wanted="a folder that can be written",
            found=error.strerror or error,
            where=folder,
            advice="set DASK_TEMPORARY_DIRECTORY to a folder on a local disk, or unset it",
        ) from None


def _worker_options(device: Device, workers: WorkerSpec) -> dict[str, object]:
    threads = {name: str(workers.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {
        "nthreads": 1,  # one chunk at a time: the network uses the threads
        "memory_limit": workers.memory,
        "host": LOOPBACK,
        "dashboard": False,  # the scheduler's dashboard shows all workers
        "dashboard_address": f"{LOOPBACK}:0",
        "env": threads | device.environment,
        "silence_logs": logging.CRITICAL,
    }


@contextmanager
def connect(address: str, timeout: float = 30.0) -> Iterator[Client]:
    """Yield a client of an existing scheduler. TLS is configured in Dask's settings.

    Parameters
    ----------
    address
        As tcp://host:8786 or tls://host:8786.
    timeout
        Seconds to wait for its answer.

    Raises
    ------
    Refusal
        No scheduler answers, or it requires TLS and no certificate is configured.
    """
    _refuse_without_certificate(address)
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise Refusal(
            "no Dask scheduler answers",
            wanted="an address such as tcp://host:8786",
            found=f"{address}: {error}",
            where="--scheduler",
        ) from None
    with client:
        yield client


def _refuse_without_certificate(address: str) -> None:
    """Refuse a TLS address without a certificate: Dask waits a minute, then raises TypeError."""
    if not address.startswith("tls://"):
        return
    cause: object = "none in Dask's settings"
    try:
        if Security().get_connection_args("client")["ssl_context"] is not None:
            return
    except OSError as error:
        cause = error
    raise Refusal(
        "the scheduler requires TLS and no certificate is configured",
        wanted="distributed.comm.tls with ca-file, and with cert and key of client",
        found=cause,
        where=address,
        advice="set them in ~/.config/dask/*.yaml, or by DASK_DISTRIBUTED__COMM__TLS__…",
    )


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Undo the changes that starting workers makes to this process's environment."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
