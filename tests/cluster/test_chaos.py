"""Chaos tests: a run of sixty chunks with faults gives the catalog of an uninterrupted run.

Each fault is real: a process is killed, a system call fails, a file is damaged. The table in
docs/faults.md lists each of them, what is promised, and its test.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.fault_injection import STEPS, FaultInjection
from support.runs import CHUNKS, ROWS, Kit, Uninterrupted, assert_same, workers_of

from catalogproc.cluster.run import run
from catalogproc.cluster.scheduler import TRIES
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import VerifyError
from catalogproc.rundir.verify import verify

Inject = Callable[..., FaultInjection]
DONE = (0, CHUNKS, (), "")
ALWAYS = 1_000
"""Tries that a fault spoils: more than any chunk is given."""


def outcome(result: object) -> tuple[object, ...]:
    return tuple(
        getattr(result, name) for name in ("exit_code", "chunks_done", "failures", "stopped")
    )


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(("part named", "receipt to be named"), marks=pytest.mark.slow),
        pytest.param(STEPS, marks=pytest.mark.slow),
    ],
    ids=["two steps", "every step"],
)
def test_workers_killed_while_they_write(
    kit: Kit,
    uninterrupted: Uninterrupted,
    existing_cluster: ClusterConfig,
    inject: Inject,
    tmp_path: Path,
    steps: tuple[str, ...],
) -> None:
    plan = kit.plan(tmp_path / "out", existing_cluster)
    # Chunks with a rejected row, so that each has all the steps.
    rejecting = [chunk for chunk in plan.chunks if chunk.pieces[0].first_row % 100 == 50]
    faults = {chunk.id: (step, 1) for chunk, step in zip(rejecting, steps, strict=False)}
    injection = inject(faults)
    result = run(plan)
    assert injection.injected() == set(faults)
    assert outcome(result) == DONE
    assert_same(tmp_path / "out", uninterrupted.output)
    assert not list((tmp_path / "out").glob("**/.*.tmp"))  # unfinished files are removed
    assert verify(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path, seed: int
) -> None:
    generator, killed, due = random.Random(seed), [], [0]
    others = workers_of(os.getpid())

    def kill(rows: int, total: int | None, note: str) -> None:
        alive = [worker for worker in workers_of(os.getpid()) if worker not in others]
        if len(killed) < 6 and alive and rows >= due[0] and generator.random() < 0.5:
            victim = generator.choice(alive)
            victim.kill()
            killed.append(victim.pid)
            due[0] = rows + 4 * ROWS

    result = kit.run(tmp_path / "out", progress=kill)
    assert len(killed) == 6
    assert outcome(result) == DONE
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")


def test_a_full_disk_stops_the_run_and_space_lets_it_resume(
    kit: Kit,
    uninterrupted: Uninterrupted,
    existing_cluster: ClusterConfig,
    inject: Inject,
    tmp_path: Path,
) -> None:
    plan = kit.plan(tmp_path / "out", existing_cluster)
    injection = inject({plan.chunks[20].id: ("disk full", 1)})
    result = run(plan)
    assert injection.injected() == {plan.chunks[20].id}
    assert result.exit_code == 1
    assert "there is no space left to write" in result.stopped
    assert "free some space, then run the same command again" in "\n".join(result.lines())
    assert 10 < result.chunks_done < CHUNKS
    again = kit.run(tmp_path / "out", existing_cluster)
    assert outcome(again) == DONE
    assert 0 < again.chunks_run <= CHUNKS - result.chunks_done  # some were still in flight
    assert_same(tmp_path / "out", uninterrupted.output)


@pytest.mark.slow
def test_a_small_disk_that_is_full(
    kit: Kit, uninterrupted: Uninterrupted, existing_cluster: ClusterConfig, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=1500k none {disk} 2>/dev/null"):
        pytest.skip("only root may mount a small disk")
    try:
        result = kit.run(disk / "out", existing_cluster)
        assert result.exit_code == 1
        assert "there is no space left to write" in result.stopped
        assert 0 < result.chunks_done < CHUNKS
        assert os.system(f"mount -o remount,size=64m {disk}") == 0
        assert outcome(kit.run(disk / "out", existing_cluster)) == DONE
        assert_same(disk / "out", uninterrupted.output)
        assert verify(disk / "out")
    finally:
        os.system(f"umount {disk}")


def nine_files(kit: Kit, folder: Path) -> list[Path]:
    """Write the same stars in nine files, of 1, 1, 1, 2, 2, 2, 11, 20 and 20 chunks."""
    folder.mkdir()
    first, *whole = sorted(kit.inputs.iterdir())
    spectra, row = pq.read_table(first), 0
    for number, chunks in enumerate((1, 1, 1, 2, 2, 2, 11)):
        part = spectra.slice(row * ROWS, chunks * ROWS)
        pq.write_table(part, folder / f"a{number}.parquet", row_group_size=ROWS)
        row += chunks
    for path in whole:
        shutil.copyfile(path, folder / path.name)
    return sorted(folder.iterdir())


def stars_in(*files: Path) -> set[int]:
    return {star for file in files for star in pq.read_table(file)["source_id"].to_pylist()}


def test_a_damaged_input_costs_only_its_own_chunks(
    kit: Kit,
    uninterrupted: Uninterrupted,
    existing_cluster: ClusterConfig,
    inject: Inject,
    tmp_path: Path,
) -> None:
    """Damaged before the start and after it; transient read errors, and a lasting one."""
    truncated, empty, garbage, swapped, vanished, shrunk, *whole = nine_files(kit, tmp_path / "xp")
    lost = stars_in(truncated, empty, garbage, swapped, vanished, shrunk)
    os.truncate(truncated, truncated.stat().st_size // 2)
    os.truncate(empty, 0)
    garbage.write_bytes(random.Random(0).randbytes(garbage.stat().st_size))
    plan = replace(kit, inputs=tmp_path / "xp").plan(tmp_path / "out", existing_cluster)
    assert [Path(fault.file) for fault in plan.faults] == [truncated, empty, garbage]
    assert len(plan.chunks) == CHUNKS
    shutil.copyfile(whole[0], swapped)  # another good file of spectra
    vanished.unlink()
    os.truncate(shrunk, shrunk.stat().st_size - 1)
    of_first = [chunk for chunk in plan.chunks if chunk.pieces[0].file == whole[0]]
    transient, lasting, stale = of_first[2:5]
    lost |= set(pq.read_table(whole[0])["source_id"].to_pylist()[3 * ROWS : 4 * ROWS])
    injection = inject(
        {
            transient.id: ("read error", TRIES - 1),
            lasting.id: ("read error", 99),
            stale.id: ("stale", TRIES - 1),
        }
    )
    result = run(plan)
    assert injection.injected() == {transient.id, lasting.id, stale.id}
    causes: dict[str, set[str]] = {}
    for failure in result.failures:
        causes.setdefault(Path(failure.file).name, set()).add(failure.cause.splitlines()[0])
    changed = {"the input file is not the one that the run was planned with"}
    damaged = {"the file cannot be read as Parquet"}
    assert causes == {
        truncated.name: damaged,
        empty.name: {"the file is empty"},
        garbage.name: {"the file is not what its name says"},
        swapped.name: changed,
        shrunk.name: changed,
        vanished.name: {"the file cannot be read"},
        whole[0].name: damaged,
    }
    assert {failure.kind for failure in result.failures} == {"InputError", "TransientError"}
    assert result.chunks_done == CHUNKS - 3 - 6 - 1
    assert result.exit_code == 1
    differing = ("run_id", "file", "row")
    assert_same(tmp_path / "out", uninterrupted.output, missing=lost, differing=differing)
    with pytest.raises(VerifyError):
        verify(tmp_path / "out")


@pytest.mark.slow
def test_a_chunk_that_kills_its_workers_costs_only_itself(
    kit: Kit,
    uninterrupted: Uninterrupted,
    existing_cluster: ClusterConfig,
    inject: Inject,
    tmp_path: Path,
) -> None:
    """Too little memory, noticed by the nanny or by the process; a crash in a library; a failed
    GPU, here only by torch's own error."""
    plan = kit.plan(tmp_path / "out", existing_cluster)
    hungry, large, once, crash, gpu, gpu_once = (
        plan.chunks[number] for number in (5, 17, 33, 50, 41, 26)
    )
    faults = {
        hungry.id: ("hungry", ALWAYS),
        large.id: ("too large", ALWAYS),
        once.id: ("too large", 1),
        crash.id: ("crash", ALWAYS),
        gpu.id: ("gpu fails", ALWAYS),
        gpu_once.id: ("gpu fails", 1),
    }
    injection = inject(faults)
    result = run(plan)
    assert injection.injected() == set(faults)
    assert result.stopped == ""
    causes = {failure.chunk: failure.cause for failure in result.failures}
    died = causes[hungry.id]
    assert died.startswith("its worker process died twice, the second time with no other chunk")
    assert causes == {
        hungry.id: died, crash.id: died, gpu.id: died, large.id: "MemoryError",
    }  # fmt: skip
    lost = {
        star
        for chunk in (hungry, large, crash, gpu)
        for star in pq.read_table(chunk.pieces[0].file)["source_id"].to_pylist()[
            chunk.pieces[0].first_row : chunk.pieces[0].first_row + ROWS
        ]
    }
    assert_same(tmp_path / "out", uninterrupted.output, missing=lost)
    assert outcome(kit.run(tmp_path / "out", existing_cluster))[1:2] == (CHUNKS - 4,)
