"""A whole sky of tiny partitions, as many as the archive has, through fetch and run.

Memory and open files of the processes are measured ten times a second, and may not grow while
partitions are fetched and chunks processed. Set CATALOGPROC_SKY to the number of partitions; ``make
soak`` takes all 3,386.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
from support.archive_server import PREFIXES, XP, Fault, LocalArchive, serving
from support.bundles import tiny_bundle
from support.runs import assert_same
from support.xp_files import COLUMNS, csv_bytes, real

from catalogproc.rundir.verify import verify

PARTITIONS = int(os.environ.get("CATALOGPROC_SKY", "3386"))
STARS = 2
"""Of each partition."""
PIXELS = 12 << 16
GROWTH, FILES = 1.1, 4
"""Memory of the last quarter may be that of the second times GROWTH; FILES more may be open."""
JOB = "kind = 'run'\ndescription = 'sky'\nchunk_rows = 200\npropagation = 'none'\n"

Samples = dict[str, list[tuple[float, int, int]]]
"""Time, bytes of memory and open files, by process."""


def whole_sky(partitions: int = PARTITIONS) -> LocalArchive:
    """The archive's layout with real spectra under made-up identifiers of each pixel range."""
    archive = LocalArchive()
    kinds = real(50).to_pylist()
    cuts = np.linspace(0, PIXELS, partitions + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(cuts)):
        stars = [
            kinds[(number * STARS + k) % len(kinds)] | {"source_id": (int(low) << 43) + 7 * k + 1}
            for k in range(STARS)
        ]
        name = f"{PREFIXES[XP]}{low:06d}-{high - 1:06d}.csv.gz"
        archive.put(XP, name, gzip.compress(csv_bytes(stars, COLUMNS, ecsv=True), 1))
    archive.publish(XP)
    return archive


def small(partitions: int) -> LocalArchive:
    """A part of the whole sky."""
    archive = whole_sky(partitions)
    assert len(archive.files) == partitions + 1
    return archive


def start(*words: str, limit: int = 0) -> subprocess.Popen[str]:
    """Start a command, with a largest size of the files that it may write, in bytes."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "catalogproc", *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limited if limit else None,
    )  # fmt: skip


def finished(*words: str) -> None:
    process = start(*words)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output


def killed_at(folder: Path, pattern: str, *words: str) -> None:
    """Start a command, and kill it with its workers when the first file of a pattern is there."""
    process = start(*words)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_faults_on_the_way_change_nothing(tmp_path: Path) -> None:
    """From nothing to a verified catalog, with faults and without: the same numbers."""
    (tmp_path / "job.toml").write_text(JOB.replace("200", "20"))
    model = str(tiny_bundle(tmp_path / "bundle").path)

    def fetch(archive: LocalArchive, folder: Path) -> tuple[str, ...]:
        return ("fetch", "--base-url", archive.url, "--output", str(folder))

    def run(folder: Path, output: Path) -> tuple[str, ...]:
        return (
            "run",
            "--input",
            str(folder),
            "--output",
            str(output),
            "--workers",
            "2",
            "--job",
            str(tmp_path / "job.toml"),
            "--model",
            model,
            "--device",
            "cpu",
        )

    with serving(small(40)) as archive:
        finished(*fetch(archive, tmp_path / "xp"))
    finished(*run(tmp_path / "xp", tmp_path / "plain"))
    with serving(small(40)) as archive:
        paths = [path for path in sorted(archive.files) if path.endswith(".gz")]
        folder, output = tmp_path / "faulty", tmp_path / "disturbed"
        # A disk that takes no file of 4 kB; then a kill; then transfers that break.
        full = start(*fetch(archive, folder), limit=4096)
        full.communicate(timeout=600)
        assert full.returncode not in (0, None)
        killed_at(folder, "*.parquet", *fetch(archive, folder))
        for number, path in enumerate(paths[20:35]):
            archive.faults[path] = [Fault(break_after=500)] if number % 2 else [Fault(status=503)]
        finished(*fetch(archive, folder))
    full = start(*run(folder, output), limit=4096)
    full.communicate(timeout=600)
    assert full.returncode not in (0, None)
    killed_at(output, "receipts/*.json", *run(folder, output))
    finished(*run(folder, output))
    assert verify(output).rows_written + verify(output).rows_rejected == 40 * STARS
    assert_same(output, tmp_path / "plain", differing={"run_id", "file"})


def watched(*words: str) -> tuple[str, Samples]:
    """Run a command of catalogproc; return its output, and memory and open files by process."""
    samples: Samples = defaultdict(list)
    with subprocess.Popen(
        [sys.executable, "-m", "catalogproc", *words], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        main = psutil.Process(process.pid)
        while process.poll() is None:
            for one in (main, *main.children(recursive=True)):
                try:
                    state = time.time(), one.memory_info().rss, one.num_fds()
                    name = "main" if one == main else f"{one.pid}"
                except psutil.Error:
                    continue
                samples[name].append(state)
            time.sleep(0.1)
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    return output, samples


def assert_flat(what: str, samples: Samples, begin: float = 0.0, end: float = np.inf) -> None:
    """Assert that the last quarter of a time needs no more than the second one."""
    checked = 0
    for name, all_states in samples.items():
        states = [state for state in all_states if begin <= state[0] <= end]
        step = len(states) // 4
        if step < 10:
            continue  # a process of some seconds
        checked += 1
        for place, unit in ((1, "bytes"), (2, "open files")):
            before = fmean(state[place] for state in states[step : 2 * step])
            after = fmean(state[place] for state in states[-step:])
            print(f"{what}, {name}: {before:,.0f} {unit}, then {after:,.0f}")
            assert after <= (before * GROWTH if place == 1 else before + FILES), (what, name, unit)
    assert checked


def chunks_done(output: Path) -> tuple[float, float]:
    """Return when the first and the last chunk were done."""
    events = map(json.loads, (output / "log.jsonl").read_text().splitlines())
    times = [
        datetime.fromisoformat(event["time"]).timestamp()
        for event in events
        if event["event"] == "chunk done"
    ]
    return min(times), max(times)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_whole_sky_passes_with_flat_memory_and_files(tmp_path: Path) -> None:
    total = PARTITIONS * STARS
    with serving(whole_sky()) as archive:
        fetch = ("fetch", "--base-url", archive.url, "--output", str(tmp_path / "xp"))
        _, samples = watched(*fetch)
        assert_flat("fetch", samples)
        before = len(archive.asked)
        watched(*fetch)  # nothing is missing: only the list is asked for
        assert len(archive.asked) - before < 5
    assert len(list((tmp_path / "xp").glob("*.parquet"))) == PARTITIONS
    (tmp_path / "job.toml").write_text(JOB)
    model = tiny_bundle(tmp_path / "bundle").path
    output = tmp_path / "catalog"
    told, samples = watched(
        "run", "--input", str(tmp_path / "xp"), "--output", str(output), "--workers", "2",
        "--job", str(tmp_path / "job.toml"), "--model", str(model), "--device", "cpu",
    )  # fmt: skip
    assert_flat("run", samples, *chunks_done(output))
    assert f"{total:,} stars" in told
    assert verify(output).rows_written + verify(output).rows_rejected == total
    ids = [pq.read_table(path, columns=["source_id"])["source_id"].to_numpy()
           for path in (output / "catalog").glob("*.parquet")]  # fmt: skip
    pixels = np.concatenate(ids) >> 43
    cuts = np.linspace(0, PIXELS, PARTITIONS + 1).astype(int)[:-1]
    assert set(cuts) >= set(pixels.tolist())
    assert len(pixels) == verify(output).rows_written
