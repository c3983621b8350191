"""The command `catalogproc run` in its own processes, from the start to the catalog."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import tomli_w

from bench.kit import EXAMPLES, Kit
from bench.machine import ROOT
from bench.measure import Absent, Figures, Noted, Row, Target, cores, seconds
from catalogproc.network.star_tokens import StarTokens

TITLE = "run, end to end"
ROWS = (
    Row("stars, chunks only", "stars/s"),
    Row("chunks against the predictor's own time", "× its time", Target(1.15, at_most=True)),
    Row("chunks against their own predict stage", "× its time", Target(1.15, at_most=True)),
    Row("stars, whole command", "stars/s"),
    Row("peak memory of a worker", "GB", Target(2, at_most=True)),
    Row("peak memory of all processes", "GB"),
    Row("memory of a chunk, four times its stars", "× as much"),
    Row("peak memory without the model, the larger chunk", "GB", Target(2, at_most=True)),
)


@dataclass(frozen=True)
class Command:
    """Duration and memory of a command.

    Attributes
    ----------
    seconds, first
        Seconds until its end, and until its first part of a catalog.
    worker, together
        Peak memory in bytes of the largest child process, and of all processes.
    """

    seconds: float
    first: float
    worker: int
    together: int


def measure(kit: Kit) -> Figures:
    labels, sizes = kit.job.labels, kit.sizes
    tokens = StarTokens.typical(kit.real(2 * sizes.predict))
    each = seconds(lambda: kit.predictor.predict(tokens, labels), sizes.repeats, sizes.budget)
    each /= len(tokens)
    # Long enough for the extra time of each worker's first chunk to be negligible.
    n, chunks = max(sizes.run, int(sizes.budget / each)), 2 * cores()
    rows = max(1, -(-n // chunks))
    file = kit.spectra(n, rows)
    job = job_file(kit, rows)
    output = kit.folder / "run"
    found = command(kit, [file], output, job)
    summary = json.loads((output / "summary.json").read_text())
    busy, predict = 0.0, 0.0
    for path in (output / "receipts").glob("[!.]*"):
        receipt = json.loads(path.read_text())
        busy += receipt["seconds"]
        predict += receipt["stage_seconds"]["predict"]
    shutil.rmtree(output)
    small, large = (without_model(kit, size) for size in (kit.sizes.table, 4 * kit.sizes.table))
    return {
        "stars, chunks only": Noted(
            n / summary["seconds"], f"{n:,} real stars, once; errors not propagated"
        ),
        "chunks against the predictor's own time": summary["seconds"] / (n * each),
        "chunks against their own predict stage": busy / predict,
        "stars, whole command": Noted(n / found.seconds, "start and end of the cluster included"),
        "peak memory of a worker": found.worker / 1e9
        if found.worker
        else Absent("not measured: the run is too short"),
        "peak memory of all processes": found.together / 1e9,
        "memory of a chunk, four times its stars": Noted(
            large / small, f"{kit.sizes.table:,} and {4 * kit.sizes.table:,} stars in a chunk"
        ),
        "peak memory without the model, the larger chunk": large / 1e9,
    }


def job_file(kit: Kit, chunk_rows: int) -> Path:
    """Write the kit's job with another number of rows per chunk."""
    content = replace(kit.job, chunk_rows=chunk_rows).to_dict()
    path = kit.folder / f"bench-{chunk_rows}.toml"
    path.write_text(tomli_w.dumps({"kind": "run", **content}))
    return path


def command(kit: Kit, inputs: list[Path], output: Path, job: str | Path) -> Command:
    """Run catalogproc and measure it.

    Raises
    ------
    RuntimeError
        The command failed; the message is its output.
    """
    shutil.rmtree(output, ignore_errors=True)
    words = ["-m", "catalogproc", "run", "--input", *map(str, inputs), "--output", str(output)]
    words += ["--job", str(job), "--model", str(kit.bundle.path)]
    begun = time.perf_counter()
    first = worker = together = 0.0
    # Output goes to a file: a full pipe would block the process.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, cwd=ROOT)
        while process.poll() is None:
            sizes = family_memory(process.pid)
            together = max(together, sum(sizes))
            worker = max([worker, *sizes[1:]])
            if not first and any((output / "catalog").glob("[!.]*.parquet")):
                first = time.perf_counter() - begun
            time.sleep(0.05)
        total = time.perf_counter() - begun
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read().decode(errors="replace"))
    return Command(total, first or total, int(worker), int(together))


def without_model(kit: Kit, n: int) -> int:
    """Return the peak memory in bytes of one chunk of n stars without the model."""
    file = kit.spectra(n, min(n, 25_000))
    words = [
        sys.executable,
        "-m",
        "bench.peak_memory",
        str(file),
        str(kit.folder),
        str(kit.bundle.path),
    ]
    environment = dict(os.environ)
    done = subprocess.run(
        words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.split()[-1])


def first_stars(kit: Kit) -> Command:
    """Run the demo job on the 1,500 shipped spectra."""
    output = kit.folder / "demo"
    found = command(kit, sorted(EXAMPLES.glob("*.parquet")), output, "demo")
    shutil.rmtree(output)
    return found


def family_memory(pid: int) -> list[int]:
    """Return the resident bytes of a process and of each of its descendants.

    Parameters
    ----------
    pid
        Of the process.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return [0]
    found = []
    for member in family:
        try:
            found.append(member.memory_info().rss)
        except psutil.Error:
            found.append(0)
    return found
