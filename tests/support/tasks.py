"""What workers do in tests of the scheduler; importable in their processes."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from distributed import get_worker

from catalogproc.errors import DiskFullError, InputError
from catalogproc.readers.chunks import Chunk
from catalogproc.readers.pieces import Piece
from catalogproc.rundir.receipts import Receipt


def fake_chunk(name: str, *kinds: str, rows: int = 10) -> Chunk:
    """Return a chunk of one file, or several, each named after what happens to it."""
    numbers = range(len(kinds))
    names = [name] if len(kinds) == 1 else [f"{name}.{number}" for number in numbers]
    pieces = zip(names, kinds, strict=True)
    return Chunk(tuple(Piece(one, Path(kind), one, 0, rows) for one, kind in pieces))


def attempt(output: Path, name: str) -> int:
    """Return how often this name was used before, on any worker."""
    number = 0
    while True:
        try:
            (output / f"{name}.{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def receipt(chunk: Any) -> Receipt:
    """Return a receipt that names the chunk and this worker."""
    numbers = {
        "first_row": chunk.pieces[0].first_row,
        "rows_read": chunk.rows,
        "rows_written": 0,
        "rows_rejected": 0,
    }
    numbers |= {"rows_matched": 0, "memory_halvings": 0}
    more = {"seconds": 0.0, "stage_seconds": {}, "rejected_by_reason": {}, "versions": {}}
    more |= {"auxiliary": {}, "zero_point_differences": {}, "files": ()}
    words = dict.fromkeys(set(Receipt.__dataclass_fields__) - set(numbers) - set(more), "")
    words |= {"chunk_id": chunk.id, "worker": str(get_worker().name)}
    return Receipt(**(words | numbers | more))


def _end(piece: Piece) -> int:
    return piece.first_row + (piece.rows or 0)


def process(output: Path, chunk: Any, halvings: int = 0) -> Receipt:
    """Fail in the way that the chunk's file names, or return a receipt."""
    kinds = [piece.file.name for piece in chunk.pieces if piece.file.name != "good"]
    kind = kinds[0] if kinds else "good"
    number = attempt(output, chunk.id)
    if kind == "transient" and number < 2:
        raise OSError(errno.EIO, "a transient read error")
    if kind == "lasting":
        raise OSError(errno.EIO, "a lasting read error")
    if kind == "broken":
        raise InputError("the file is truncated", wanted="a footer", found="nothing", where="x")
    if kind == "defect":
        raise ValueError("a defect")
    if kind == "full":
        raise DiskFullError("no space is left to write", where=output)
    if kind == "hungry":
        memory = bytearray(800_000_000)
        memory[::4096] = b"x" * len(memory[::4096])
        time.sleep(60)
    if kind == "large":
        raise MemoryError
    if kind == "large batch" and halvings < 3:
        raise MemoryError
    if kind == "many rows" and chunk.rows > 300:
        raise MemoryError
    if kind == "bad row" and chunk.pieces[0].first_row <= 555 < _end(chunk.pieces[0]):
        raise MemoryError
    if kind == "hungry batch":
        memory = bytearray(800_000_000 >> halvings)
        memory[::4096] = b"x" * len(memory[::4096])
        time.sleep(3)  # until the nanny looks
    if kind == "killed once" and number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt(chunk)
