"""One chunk, all but the model, in a process of its own; prints its peak memory in bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bench.kit import TINY, Kit
from bench.stages import answered
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.readers import chunks


def main(file: str, folder: str, model: str) -> None:
    engine = answered(Kit(Path(folder), model, TINY))
    [chunk] = chunks.cut([Path(file)], 10**9)
    process_chunk(engine, chunk, None, Path(folder) / "alone")
    print(_peak())


def _peak() -> int:
    """Peak resident memory in bytes of this program alone.

    What getrusage tells on Linux begins with the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
