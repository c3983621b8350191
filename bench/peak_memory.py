"""Process one chunk with stored predictions, without the model; print the peak memory in bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bench.kit import TINY, Kit
from bench.stages import stored_predictions
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.readers import chunks


def main(file: str, folder: str, model: str) -> None:
    engine = stored_predictions(Kit(Path(folder), model, TINY))
    [chunk] = chunks.cut([Path(file)], 10**9)
    process_chunk(engine, chunk, None, Path(folder) / "without-model")
    print(_peak())


def _peak() -> int:
    """Return the peak resident memory of this process in bytes.

    On Linux getrusage starts with the peak of the parent process, so /proc is read instead.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
