"""Nanny, scheduler and driver killed, the clock set back and forth, two starts at once.

Each in a run of sixty chunks, whose catalog must be that of the uninterrupted run, row for row.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from support import runs
from support.runs import CHUNKS, WORKERS, Kit, Uninterrupted, assert_same, at_first_chunk

from catalogproc.cluster.dask_cluster import cores
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.rundir.receipts import receipt_files
from catalogproc.rundir.summary import read_summary
from catalogproc.rundir.verify import verify

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@contextmanager
def processes(folder: Path) -> Iterator[tuple[str, psutil.Process, list[psutil.Process]]]:
    """Start `dask scheduler` and `dask worker`; yield address, scheduler and nannies."""
    started: list[subprocess.Popen[Any]] = []

    def start(*words: str) -> psutil.Process:
        with (folder / f"{words[0]}-{len(started)}.log").open("w") as log:
            command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:]]
            started.append(subprocess.Popen(command, stderr=log, stdout=log, env=ENVIRONMENT))
        return psutil.Process(started[-1].pid)

    try:
        place = folder / "scheduler.json"
        first = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                      "--scheduler-file", str(place))  # fmt: skip
        deadline = time.monotonic() + 60
        while not (place.exists() and place.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        threads = str(max(1, cores() // WORKERS))
        nannies = [
            start("worker", address, "--nthreads", threads, "--host", "127.0.0.1",
                  "--no-dashboard", "--local-directory", str(folder))
            for _ in range(WORKERS)
        ]  # fmt: skip
        yield address, first, nannies
    finally:
        family = []
        for process in started:
            if psutil.pid_exists(process.pid):
                family += [psutil.Process(process.pid).children(recursive=True)]
            process.kill()
            process.wait()
        for child in (child for children in family for child in children if child.is_running()):
            child.kill()


def test_a_killed_nanny_ends_its_worker_and_the_others_do_its_chunks(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    with processes(tmp_path) as (address, _, nannies):
        cluster = ClusterConfig(scheduler=address, device="cpu")
        progress = at_first_chunk(nannies[0].kill)
        result = kit.run(tmp_path / "out", cluster, progress=progress)
        assert not nannies[0].is_running() or nannies[0].status() == psutil.STATUS_ZOMBIE
    assert (result.exit_code, result.chunks_done, result.failures) == (0, CHUNKS, ())
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")


def test_a_killed_scheduler_ends_the_run_with_a_message_and_the_next_resumes(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    with processes(tmp_path) as (address, scheduler, _):
        cluster = ClusterConfig(scheduler=address, device="cpu")
        begin = time.monotonic()
        progress = at_first_chunk(scheduler.kill)
        result = kit.run(tmp_path / "out", cluster, progress=progress)
        assert time.monotonic() - begin < 120
    assert result.exit_code == 1
    assert result.stopped == "the scheduler does not answer any more"
    assert 0 < result.chunks_done < CHUNKS
    assert "run the same command again to resume" in result.lines()[-1]
    again = kit.run(tmp_path / "out")
    assert (again.exit_code, again.chunks_done) == (0, CHUNKS)
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")


def started(kit: Kit, output: Path, end: str, **more: str) -> subprocess.Popen[str]:
    """Start a run in a process of its own, which ends in the way that ``end`` names."""
    words = [str(word) for word in (output, kit.inputs, kit.gaia_source, kit.job, kit.bundle, end)]
    return subprocess.Popen(
        [sys.executable, runs.__file__, *words], env=ENVIRONMENT | more, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_a_run_whose_driver_was_killed_at_any_step_resumes(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    output, receipts = tmp_path / "out", []
    for step in ("run.json", "first chunk", "summary.json", "provenance.json"):
        process = started(kit, output, f"killed at {step}")
        _, errors = process.communicate(timeout=200)
        assert process.returncode == -9, errors
        receipts.append(len(receipt_files(output)))
        assert not (output / "provenance.json").exists()
    assert receipts[0] == 0
    assert 0 < receipts[1] < CHUNKS
    assert receipts[2] == receipts[3] == CHUNKS
    result = kit.run(output)
    assert (result.exit_code, result.chunks_done, result.chunks_run) == (0, CHUNKS, 0)
    assert_same(output, uninterrupted.output)
    assert not list(output.glob("**/.*.tmp"))
    assert verify(output)


def test_of_two_starts_at_once_the_second_is_refused(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    both = [started(kit, tmp_path / "out", "uninterrupted") for _ in range(2)]
    errors = [process.communicate(timeout=200)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], errors
    message = errors[codes.index(2)]
    winner = both[codes.index(0)]
    assert "another run is using the output folder" in message
    assert f"process {winner.pid} on" in message
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")


@pytest.mark.parametrize("seconds", [-18_000, 259_200], ids=["five hours back", "three days on"])
def test_a_wall_clock_that_jumps_changes_nothing(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path, seconds: int
) -> None:
    """The clock of driver, scheduler and workers is changed by a library loaded before libc."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and Linux")
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(runs.__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    offset.touch()
    process = started(
        kit, tmp_path / "out", f"clock {seconds}",
        LD_PRELOAD=str(library), CATALOGPROC_CLOCK=str(offset),
    )  # fmt: skip
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert offset.read_text() == str(seconds)
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    hours = {line["time"][:13] for line in log}
    assert len(hours) >= 2  # the clock did jump
    summary = read_summary(tmp_path / "out")
    assert summary is not None
    assert 0 < summary["seconds"] < 600  # durations are not taken from the wall clock
