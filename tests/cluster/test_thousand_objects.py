"""A run over a thousand objects begins within seconds, copies nothing and reads what it needs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bucket import Bucket
from support.runs import WORKERS, Kit
from support.xp_files import COLUMNS, needed_bytes, real

from catalogproc.cluster.event_log import LOG_FILE
from catalogproc.cluster.plan import STAGING
from catalogproc.rundir.receipts import iterate_receipts
from catalogproc.rundir.verify import verify

STARS = 100
"""Of each object."""
JOB = "kind = 'run'\ndescription = 'objects'\npropagation = 'none'\n"
SECONDS = 120.0
"""Within which the first chunk begins; the figure itself is printed."""


def objects(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and Parquet files of real spectra, with a column that nobody reads."""
    table = real()
    picture = np.random.default_rng(1).integers(0, 256, (STARS, 500), dtype=np.uint8)
    extra = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(500), STARS, [None, pa.py_buffer(picture.tobytes())]
    )
    for number in range(count):
        part = table.slice(number * STARS % (len(table) - STARS), STARS)
        ids = pa.array(np.arange(STARS, dtype=np.int64) + (number << 36) + 1)
        file = io.BytesIO()
        pq.write_table(part.set_column(0, "source_id", ids).append_column("picture", extra), file)
        yield f"xp/part_{number:04d}.parquet", file.getvalue()


def bytes_in(*folders: Path) -> int:
    """Return the bytes of the files below some folders, which others may remove meanwhile."""
    total = 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        with suppress(OSError):
            total += path.stat().st_size * path.is_file()
    return total


@dataclass
class Ended:
    """A run that ended: when it was started, and the largest size of its temporary files."""

    begin: float
    temporary: int


def run_over(kit: Kit, output: Path, folder: Path) -> Ended:
    """Run over the objects in a process of its own, and watch its temporary folders."""
    job, temporary = folder / "job.toml", folder / "temporary"
    job.write_text(JOB)
    temporary.mkdir()
    words = ["run", "--input", "s3://gaia/xp/*.parquet", "--output", output, "--job", job,
             "--model", kit.bundle, "--workers", WORKERS, "--device", "cpu"]  # fmt: skip
    begin, largest = time.time(), 0
    with (folder / "printed").open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "catalogproc", *map(str, words)], stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)},
        )  # fmt: skip
        while process.poll() is None:
            largest = max(largest, bytes_in(temporary, folder / "stage", output / STAGING))
            time.sleep(0.1)
    assert process.returncode == 0, (folder / "printed").read_text()
    return Ended(begin, largest)


def first_chunk(output: Path) -> float:
    """Return when the first chunk began (s since 1970), by the run's own log."""
    events = [json.loads(line) for line in (output / LOG_FILE).read_text().splitlines()]
    return min(
        datetime.fromisoformat(event["time"]).timestamp() - event["seconds"]
        for event in events
        if event["event"] == "chunk done"
    )


def first_read(asked: list[dict[str, Any]]) -> float:
    """Return when a worker first asked for a part of an object, by the server's log.

    The plan reads stars of the first object, and asks for the end of each other one once.
    """
    seen = set[str]()
    first = min(answer["path"] for answer in asked)
    for answer in asked:
        if answer["path"] in seen and answer["path"] != first:
            return float(answer["time"])
        seen.add(answer["path"])
    raise AssertionError("no worker read an object")


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_run_over_many_objects(count: int, kit: Kit, bucket: Bucket, tmp_path: Path) -> None:
    needed = footers = 0

    def upload(item: tuple[str, bytes]) -> tuple[int, int]:
        bucket.write(*item)
        file = pa.BufferReader(item[1])
        return needed_bytes(file, COLUMNS), pq.read_metadata(file).serialized_size + 8

    with ThreadPoolExecutor(4) as pool:
        for columns, footer in pool.map(upload, objects(count)):
            needed, footers = needed + columns, footers + footer
    output = tmp_path / "out"
    ended = run_over(kit, output, tmp_path)
    assert verify(output)
    receipts = list(iterate_receipts(output))
    assert sum(receipt.rows_read for receipt in receipts) == count * STARS
    assert sum(len(receipt.each_file()) for receipt in receipts) == count

    answers = bucket.answers("xp/")
    asked = [answer for answer in answers if answer["method"] == "GET"]
    begun, again = first_chunk(output), first_read(asked)
    read = sum(answer["bytes"] for answer in asked)
    print(
        f"\n{count:,} objects: the first chunk begins {begun - ended.begin:.1f} s after the "
        f"command, its first bytes come after {again - ended.begin:.1f} s; {read / 1e6:,.1f} MB in "
        f"{len(asked):,} requests, {read / needed:.3f} of the needed columns; temporary files "
        f"{ended.temporary / 1e3:,.1f} kB"
    )
    # One list, then version and footer of each object.
    planned = [line for line in answers if ended.begin < line["time"] < begun]
    assert count <= len(planned) <= 2 * count + 10
    assert begun - ended.begin < SECONDS
    assert again - ended.begin < SECONDS
    assert needed + footers <= read <= 1.05 * (needed + footers)
    # What Dask and the plan keep on the disk has no input in it: less than a single object.
    assert ended.temporary < needed / count
