"""Where the work is done: workers of this machine's own, or a Dask cluster that stands."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask
import psutil  # type: ignore[import-untyped]
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from catalogproc.cluster.gpu import Device, choose
from catalogproc.errors import Refusal, WorkerError

LOOPBACK = "127.0.0.1"
WORKER_BYTES = 1.5e9
"""Memory that a worker should have: torch, a model, a chunk with its tokens."""

_SETTINGS = {
    # A chunk that kills its worker is tried alone after this; see run.py.
    "distributed.scheduler.allowed-failures": 1,
    "distributed.worker.daemon": True,
    # A worker would remember where each second of the last hour went, in tens of megabytes.
    "distributed.worker.profile.enabled": False,
    # Tasks hand over paths: nothing of Dask's is in memory that could be spilt, and a worker
    # that pauses would never go on. One that takes too much is ended.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


@dataclass(frozen=True)
class Where:
    """Where and how a run is carried out; nothing here changes a number in the catalog.

    Attributes
    ----------
    scheduler
        The address of a Dask scheduler that stands, or None for workers of our own.
    workers
        How many workers of our own; None fits them to the machine.
    device
        ``auto``, ``cpu`` or ``cuda``.
    dashboard
        Where the dashboard of our own scheduler listens; another port if this one is taken.
    share_gpu
        Several workers may use one GPU.
    cpu_workers
        So many workers on the CPU beside those on GPUs.
    """

    scheduler: str | None = None
    workers: int | None = None
    device: str = "auto"
    dashboard: str = f"{LOOPBACK}:8787"
    share_gpu: bool = False
    cpu_workers: int = 0


@dataclass(frozen=True)
class Crew:
    """The workers to start on this machine: the device of each, and its share of the rest."""

    devices: tuple[Device, ...]
    threads: int
    memory: int

    def line(self) -> str:
        """For the user: how many, with what."""
        count = len(self.devices)
        kinds = ", ".join(dict.fromkeys(device.label for device in self.devices))
        plural = "" if count == 1 else "s"
        return (
            f"{count} worker{plural} of {self.threads} thread{'' if self.threads == 1 else 's'} "
            f"and {self.memory / 2**30:.1f} GiB, on {kinds}"
        )


def cores() -> int:
    """Physical cores that this process may use, by affinity and control group."""
    return int(min(CPU_COUNT, psutil.cpu_count(logical=False) or CPU_COUNT))


def crew(where: Where, chunks: int, remaining: int | None = None) -> Crew:
    """The workers that fit this machine and this many chunks, of which so many remain.

    Without a GPU that is one a core, so long as each has memory: chunks are independent, and
    a core that works on its own chunk waits for no other. Threads a worker follow from all
    chunks, not from what remains: the network's last digits depend on them, and what a
    second start does must equal what the first would have done.

    Raises
    ------
    Refusal
        What :func:`catalogproc.cluster.gpu.choose` refuses.
    """
    fitting = max(1, min(cores(), int(MEMORY_LIMIT // WORKER_BYTES), chunks))
    devices = choose(
        where.device, where.workers, fitting, share=where.share_gpu, beside=where.cpu_workers
    )
    if where.workers is None:
        devices = devices[: max(1, chunks)]
    threads = max(1, cores() // len(devices))
    devices = devices[: max(1, chunks if remaining is None else remaining)]
    return Crew(devices, threads, int(MEMORY_LIMIT // len(devices)))


@contextmanager
def embedded(team: Crew, dashboard: str) -> Iterator[Client]:
    """A client of a scheduler and workers of our own, which end with the block.

    They listen on the loopback alone. Each worker is a process; its environment holds its
    device before anything in it can touch CUDA.

    Raises
    ------
    WorkerError
        The processes do not start.
    """
    workers = {
        index: {"cls": Nanny, "options": _worker_options(device, team)}
        for index, device in enumerate(team.devices)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": LOOPBACK,
            "protocol": "tcp://",
            "port": 0,
            "dashboard": True,
            "dashboard_address": _free(dashboard),
        },
    }
    with dask.config.set(_SETTINGS), _environment_kept():
        try:
            with warnings.catch_warnings():
                # Another program may take the dashboard's port after we looked.
                warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
                cluster = SpecCluster(
                    workers, scheduler, name="catalogproc", silence_logs=logging.CRITICAL
                )
        except (RuntimeError, OSError, TimeoutError) as error:
            raise WorkerError(
                "the workers did not start",
                found=f"{type(error).__name__}: {error}",
                todo='a script that calls run() needs: if __name__ == "__main__"',
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def _worker_options(device: Device, team: Crew) -> dict[str, object]:
    threads = {name: str(team.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {
        "nthreads": 1,  # one chunk at a time; the network uses the threads
        "memory_limit": team.memory,
        "host": LOOPBACK,
        "dashboard": False,  # bokeh in each worker; the scheduler's shows them all
        "dashboard_address": f"{LOOPBACK}:0",
        "env": threads | device.environment,
        "silence_logs": logging.CRITICAL,
    }


@contextmanager
def standing(address: str, timeout: float = 30.0) -> Iterator[Client]:
    """A client of a scheduler that stands already. Dask's settings give TLS and the like.

    Raises
    ------
    Refusal
        No scheduler answers at the address, or it wants TLS and there is no certificate.
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
    """Dask itself tells of it by a TypeError, and waits a minute before that."""
    if not address.startswith("tls://"):
        return
    cause: object = "none in Dask's settings"
    try:
        if Security().get_connection_args("client")["ssl_context"] is not None:
            return
    except OSError as error:
        cause = error
    raise Refusal(
        "no certificate to show to a scheduler that wants TLS",
        wanted="ca-file, and cert and key of client, in distributed.comm.tls",
        found=cause,
        where=address,
        todo="put them into ~/.config/dask/*.yaml, or into DASK_DISTRIBUTED__COMM__TLS__…",
    )


def _free(address: str) -> str:
    """The address, or one with another port where the port is taken."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
        except ValueError:
            raise Refusal(
                "no address for a dashboard", wanted=f"{LOOPBACK}:8787", found=address
            ) from None
    return address


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what starting workers does to this process's own environment."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
