"""Faults put in the way of workers that otherwise do what they always do.

A :class:`Sabotage` takes the place of ``dispatch.work``. It travels to the worker, and there puts
a fault in the way of the chunks that it is told, each the first times that they are tried: the
process is killed at a step of writing, a system call fails as the system would have it. Nothing
of catalogproc is told.
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

from catalogproc.cluster.scheduler import work
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
"""The steps at which a worker can die while it writes a chunk, in their order."""


@dataclass(frozen=True)
class Sabotage:
    """``faults`` names the fault of a chunk, and how many tries of it are to meet it.

    ``diary`` is a folder that remembers the tries, since the worker may not live to.
    """

    faults: Mapping[str, tuple[str, int]]
    diary: Path

    def __call__(self, name: str, chunk: Any, output: Path) -> Receipt:
        fault, times = self.faults.get(chunk.id, ("", 0))
        with _TURN:  # a worker of several slots must not share a fault between chunks
            if not times or attempt(self.diary, chunk.id) >= times:
                return work(name, chunk, output)
            with _FAULTS[fault](Path(chunk.file)):
                return work(name, chunk, output)

    def befell(self) -> set[str]:
        """The chunks that were tried with their fault in the way."""
        return {path.name.split(".")[0] for path in self.diary.iterdir()}


_TURN = threading.Lock()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def killed_at(step: str) -> Iterator[None]:
    """This process dies when it comes to a step of writing."""
    word, _, moment = step.partition(" ")
    folder = {"part": "/catalog/", "rejected": "/rejected/", "receipt": "/receipts/"}.get(word, "")
    if step == "begun":
        die()

    def here(path: object) -> bool:
        return folder in str(path)

    def entered(file: atomic.AtomicFile) -> Any:
        made = _enter(file)
        if moment == "opened" and here(file.path):
            die()
        return made

    def wrote(file: atomic.AtomicFile, data: Any) -> int:
        if moment == "half written" and here(file.path):
            view = memoryview(data).cast("B")
            file._file.write(view[: len(view) // 2])
            file._file.flush()
            die()
        return _write(file, data)

    def flushed(descriptor: int) -> None:
        if moment == "to be flushed" and here(os.readlink(f"/proc/self/fd/{descriptor}")):
            die()
        _fsync(descriptor)

    def named(before: Any, after: Any) -> None:
        if moment == "to be named" and here(after):
            die()
        _replace(before, after)
        if moment == "named" and here(after):
            die()

    with (
        patch.object(atomic.AtomicFile, "__enter__", entered),
        patch.object(atomic.AtomicFile, "write", wrote),
        patch.object(os, "fsync", flushed),
        patch.object(os, "replace", named),
    ):
        yield


_enter, _write = atomic.AtomicFile.__enter__, atomic.AtomicFile.write
_fsync, _replace, _open = os.fsync, os.replace, builtins.open


@contextmanager
def _full(file: Path) -> Iterator[None]:
    """The disk is full when a part is flushed to it, which is when a system may first say so."""
    with patch.object(os, "fsync", _raises(errno.ENOSPC)):
        yield


@contextmanager
def _unreadable(file: Path) -> Iterator[None]:
    """The disk does not give the rows of the file."""
    with patch.object(pq.ParquetFile, "iter_batches", _raises(errno.EIO)):
        yield


@contextmanager
def _stale(file: Path) -> Iterator[None]:
    """The file server forgot the file: the error of NFS."""

    def opened(path: Path, *words: Any, **more: Any) -> Any:
        if path == file:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return _path_open(path, *words, **more)

    with patch.object(Path, "open", opened):
        yield


_path_open = Path.open


@contextmanager
def _hungry(file: Path) -> Iterator[None]:
    """The process takes more memory than it has, until its nanny ends it."""
    held = bytearray(2 << 30)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)
    yield


@contextmanager
def _too_large(file: Path) -> Iterator[None]:
    """The system refuses memory."""
    bytearray(1 << 60)
    yield


@contextmanager
def _crash(file: Path) -> Iterator[None]:
    """A library reads where nothing is: SIGSEGV."""
    ctypes.string_at(0)
    yield


@contextmanager
def _gpu_fails(file: Path) -> Iterator[None]:
    """CUDA fails in the middle of the network, as torch tells it."""

    def fails(*words: Any, **more: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with patch.object(Predictor, "gather", fails):
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
