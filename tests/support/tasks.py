"""What workers are told to do in tests of the dispatcher: importable in their processes."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import get_worker

from catalogproc.errors import DiskFullError, InputError
from catalogproc.rundir.receipts import Receipt


@dataclass(frozen=True)
class Piece:
    """What the dispatcher reads of a chunk; ``file`` says what befalls it."""

    id: str
    file: str
    rows: int = 10
    first_row: int = 0


def attempt(output: Path, name: str) -> int:
    """How often this name was called before, on whatever worker."""
    number = 0
    while True:
        try:
            (output / f"{name}.{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def receipt(chunk: Any) -> Receipt:
    numbers = {"first_row": 0, "rows_read": chunk.rows, "rows_written": 0, "rows_rejected": 0}
    more = {"seconds": 0.0, "stage_seconds": {}, "rejected_by_reason": {}, "versions": {}}
    words = dict.fromkeys(set(Receipt.__dataclass_fields__) - set(numbers) - set(more), "")
    words |= {"chunk_id": chunk.id, "worker": str(get_worker().name)}
    return Receipt(**(words | numbers | more))


def do(name: str, chunk: Any, output: Path) -> Receipt:
    """Fail in the way that the chunk's file says."""
    kind = chunk.file
    number = attempt(output, chunk.id)
    if kind == "passes" and number < 2:
        raise OSError(errno.EIO, "a read error that passes")
    if kind == "stays":
        raise OSError(errno.EIO, "a read error that stays")
    if kind == "broken":
        raise InputError("the file is truncated", wanted="a footer", found="nothing", where="x")
    if kind == "bug":
        raise ValueError("nobody thought of this")
    if kind == "full":
        raise DiskFullError("there is no space left to write", where=output)
    if kind == "hungry":
        held = bytearray(800_000_000)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(60)
    if kind == "large":
        raise MemoryError
    if kind == "crowded" and number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt(chunk)
