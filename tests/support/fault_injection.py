"""Fault injection: real faults on workers that otherwise run unchanged code.

A :class:`FaultInjection` replaces ``process_on_worker``. It is sent to the worker, and there
injects a fault into the first tries of chosen chunks: the process is killed at a step of
writing, or a system call fails as the operating system would let it fail.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import torch
from support.tasks import attempt

from catalogproc.cluster.chunk_on_worker import process_on_worker
from catalogproc.io import atomic
from catalogproc.network.predictor import Predictor
from catalogproc.rundir.receipts import Receipt

STEPS = (
    "begun",
    "part opened",
    "part half written",
    "part to be flushed",
    "part to be named",
    "part named",
    "rejected to be named",
    "rejected named",
    "receipt opened",
    "receipt to be named",
    "receipt named",
)
"""The steps at which a worker can die while it writes a chunk, in order."""


@dataclass(frozen=True)
class FaultInjection:
    """Process chunks with faults.

    ``faults`` names, for a chunk's identifier, the fault and the number of tries that meet it.
    ``tries`` is a folder that counts the tries, because the worker may not survive them.
    """

    faults: Mapping[str, tuple[str, int]]
    tries: Path

    def __call__(self, name: str, output: Path, chunk: Any, halvings: int = 0) -> Receipt:
        fault, times = self.faults.get(chunk.id, ("", 0))
        with _TURN:  # chunks in several slots of a worker must not share a fault
            if not times or attempt(self.tries, chunk.id) >= times:
                return process_on_worker(name, output, chunk, halvings)
            with _FAULTS[fault](chunk.pieces[0].file):
                return process_on_worker(name, output, chunk, halvings)

    def injected(self) -> set[str]:
        """Return the chunks that were tried with their fault."""
        return {path.name.split(".")[0] for path in self.tries.iterdir()}


_TURN = threading.Lock()


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def killed_at(step: str) -> Iterator[None]:
    """Kill this process when it comes to a step of writing."""
    word, _, moment = step.partition(" ")
    folder = {"part": "/catalog/", "rejected": "/rejected/", "receipt": "/receipts/"}.get(word, "")
    if step == "begun":
        die()

    def is_chosen(path: object) -> bool:
        return folder in str(path)

    def enter(file: atomic.AtomicFile) -> Any:
        opened = _enter(file)
        if moment == "opened" and is_chosen(file.path):
            die()
        return opened

    def write(file: atomic.AtomicFile, data: Any) -> int:
        if moment == "half written" and is_chosen(file.path):
            view = memoryview(data).cast("B")
            file._file.write(view[: len(view) // 2])
            file._file.flush()
            die()
        return _write(file, data)

    def fsync(descriptor: int) -> None:
        if moment == "to be flushed" and is_chosen(os.readlink(f"/proc/self/fd/{descriptor}")):
            die()
        _fsync(descriptor)

    def replace(before: Any, after: Any) -> None:
        if moment == "to be named" and is_chosen(after):
            die()
        _replace(before, after)
        if moment == "named" and is_chosen(after):
            die()

    with (
        patch.object(atomic.AtomicFile, "__enter__", enter),
        patch.object(atomic.AtomicFile, "write", write),
        patch.object(os, "fsync", fsync),
        patch.object(os, "replace", replace),
    ):
        yield


_enter, _write = atomic.AtomicFile.__enter__, atomic.AtomicFile.write
_fsync, _replace, _open = os.fsync, os.replace, builtins.open


@contextmanager
def _full(file: Path) -> Iterator[None]:
    """The disk is full when a part is flushed, the last moment at which a system reports it."""
    with patch.object(os, "fsync", _raises(errno.ENOSPC)):
        yield


@contextmanager
def _unreadable(file: Path) -> Iterator[None]:
    """The rows of the file cannot be read from the disk."""
    with patch.object(pq.ParquetFile, "iter_batches", _raises(errno.EIO)):
        yield


@contextmanager
def _stale(file: Path) -> Iterator[None]:
    """The file handle is stale, as on NFS."""

    def opened(path: Path, *words: Any, **more: Any) -> Any:
        if path == file:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return _path_open(path, *words, **more)

    with patch.object(Path, "open", opened):
        yield


_path_open = Path.open


@contextmanager
def _hungry(file: Path) -> Iterator[None]:
    """The process takes more memory than it may, until its nanny kills it."""
    memory = bytearray(2 << 30)
    memory[::4096] = b"x" * len(memory[::4096])
    time.sleep(60)
    yield


@contextmanager
def _too_large(file: Path) -> Iterator[None]:
    """The system does not give the memory."""
    bytearray(1 << 60)
    yield


@contextmanager
def _crash(file: Path) -> Iterator[None]:
    """A library reads an invalid address: SIGSEGV."""
    ctypes.string_at(0)
    yield


@contextmanager
def _gpu_fails(file: Path) -> Iterator[None]:
    """CUDA fails within the network, with torch's own error."""

    def fails(*words: Any, **more: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with patch.object(Predictor, "map_batches", fails):
        yield


def _raises(number: int) -> Callable[..., Any]:
    def fails(*words: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


_FAULTS: dict[str, Callable[[Path], Any]] = {
    **{step: (lambda file, step=step: killed_at(step)) for step in STEPS},
    "disk full": _full,
    "read error": _unreadable,
    "stale": _stale,
    "hungry": _hungry,
    "too large": _too_large,
    "crash": _crash,
    "gpu fails": _gpu_fails,
}
