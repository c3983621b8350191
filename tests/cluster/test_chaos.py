"""Sixty chunks under fire: what comes out is what would have come out in peace, row for row.

Each fault is really there: a process is killed, a system call fails, a file is damaged. The
table in docs/faults.md names each of them, what is promised, and its test.
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
from support.fault_injection import STEPS, Sabotage
from support.runs import CHUNKS, ROWS, Kit, Undisturbed, assert_same, workers_of

from catalogproc.cluster.dask_cluster import Where
from catalogproc.cluster.run import run
from catalogproc.cluster.scheduler import TRIES
from catalogproc.errors import VerifyError
from catalogproc.rundir.verify import verify

Sabotaged = Callable[..., Sabotage]
DONE = (0, CHUNKS, (), "")


def outcome(account: object) -> tuple[object, ...]:
    return tuple(
        getattr(account, name) for name in ("exit_code", "chunks_done", "failures", "stopped")
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
    undisturbed: Undisturbed,
    crowd: Where,
    sabotaged: Sabotaged,
    tmp_path: Path,
    steps: tuple[str, ...],
) -> None:
    plan = kit.plan(tmp_path / "out")
    # Chunks with a rejected row, so that each has all the steps.
    rejecting = [chunk for chunk in plan.chunks if chunk.first_row % 100 == 50][: len(steps)]
    faults = {chunk.id: (step, 1) for chunk, step in zip(rejecting, steps, strict=True)}
    sabotage = sabotaged(faults)
    account = run(plan, crowd)
    assert sabotage.befell() == set(faults)
    assert outcome(account) == DONE
    assert_same(tmp_path / "out", undisturbed.output)
    assert not list((tmp_path / "out").glob("**/.*.tmp"))  # what they had begun is gone
    assert verify(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random(
    kit: Kit, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    dice, killed, due = random.Random(seed), [], [0]
    others = workers_of(os.getpid())

    def shoot(rows: int, total: int | None, note: str) -> None:
        alive = [worker for worker in workers_of(os.getpid()) if worker not in others]
        if len(killed) < 6 and alive and rows >= due[0] and dice.random() < 0.5:
            victim = dice.choice(alive)
            victim.kill()
            killed.append(victim.pid)
            due[0] = rows + 4 * ROWS

    account = kit.run(tmp_path / "out", progress=shoot)
    assert len(killed) == 6
    assert outcome(account) == DONE
    assert_same(tmp_path / "out", undisturbed.output)
    assert verify(tmp_path / "out")


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    kit: Kit, undisturbed: Undisturbed, crowd: Where, sabotaged: Sabotaged, tmp_path: Path
) -> None:
    plan = kit.plan(tmp_path / "out")
    sabotage = sabotaged({plan.chunks[20].id: ("disk full", 1)})
    account = run(plan, crowd)
    assert sabotage.befell() == {plan.chunks[20].id}
    assert account.exit_code == 1
    assert "there is no space left to write" in account.stopped
    assert "free some space, then run the same command again" in "\n".join(account.lines())
    assert 10 < account.chunks_done < CHUNKS
    again = run(kit.plan(tmp_path / "out"), crowd)
    assert outcome(again) == DONE
    assert 0 < again.chunks_run <= CHUNKS - account.chunks_done  # some were still on their way
    assert_same(tmp_path / "out", undisturbed.output)


@pytest.mark.slow
def test_a_disk_that_is_really_full(
    kit: Kit, undisturbed: Undisturbed, crowd: Where, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=1500k none {disk} 2>/dev/null"):
        pytest.skip("only root may mount a small disk")
    try:
        account = kit.run(disk / "out", crowd)
        assert account.exit_code == 1
        assert "there is no space left to write" in account.stopped
        assert 0 < account.chunks_done < CHUNKS
        assert os.system(f"mount -o remount,size=64m {disk}") == 0
        assert outcome(kit.run(disk / "out", crowd)) == DONE
        assert_same(disk / "out", undisturbed.output)
        assert verify(disk / "out")
    finally:
        os.system(f"umount {disk}")


def laid_out(kit: Kit, folder: Path) -> list[Path]:
    """The same stars in nine files, of 1, 1, 1, 2, 2, 2, 11, 20 and 20 chunks."""
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


def test_what_befalls_an_input_costs_its_chunks_alone(
    kit: Kit, undisturbed: Undisturbed, crowd: Where, sabotaged: Sabotaged, tmp_path: Path
) -> None:
    """Damaged before the start, and after it; read errors that pass, and one that stays."""
    truncated, empty, garbage, swapped, vanished, shrunk, *whole = laid_out(kit, tmp_path / "xp")
    lost = stars_in(truncated, empty, garbage, swapped, vanished, shrunk)
    os.truncate(truncated, truncated.stat().st_size // 2)
    os.truncate(empty, 0)
    garbage.write_bytes(random.Random(0).randbytes(garbage.stat().st_size))
    plan = replace(kit, inputs=tmp_path / "xp").plan(tmp_path / "out")
    assert [Path(fault.file) for fault in plan.faults] == [truncated, empty, garbage]
    assert len(plan.chunks) == CHUNKS
    shutil.copyfile(whole[0], swapped)  # another good file of spectra
    vanished.unlink()
    os.truncate(shrunk, shrunk.stat().st_size - 1)
    passes, stays, stale = [chunk for chunk in plan.chunks if chunk.file == whole[0]][2:5]
    lost |= set(pq.read_table(whole[0])["source_id"].to_pylist()[3 * ROWS : 4 * ROWS])
    sabotage = sabotaged(
        {
            passes.id: ("read error", TRIES - 1),
            stays.id: ("read error", 99),
            stale.id: ("stale", TRIES - 1),
        }
    )
    account = run(plan, crowd)
    assert sabotage.befell() == {passes.id, stays.id, stale.id}
    told: dict[str, set[str]] = {}
    for failure in account.failures:
        told.setdefault(Path(failure.file).name, set()).add(failure.cause.splitlines()[0])
    changed = {"the input file is not the one that the run was planned with"}
    damaged = {"the file cannot be read as Parquet"}
    assert told == {
        truncated.name: damaged,
        empty.name: {"the file is empty"},
        garbage.name: {"the file is not what its name says"},
        swapped.name: changed,
        shrunk.name: changed,
        vanished.name: {"the file cannot be read"},
        whole[0].name: {"OSError: [Errno 5] the file cannot be read as Parquet"},
    }
    assert account.chunks_done == CHUNKS - 3 - 6 - 1
    assert account.exit_code == 1
    unlike = ("run_id", "file", "row")
    assert_same(tmp_path / "out", undisturbed.output, lost=lost, unlike=unlike)
    with pytest.raises(VerifyError):
        verify(tmp_path / "out")


@pytest.mark.slow
def test_a_poisoned_chunk_costs_itself(
    kit: Kit, undisturbed: Undisturbed, crowd: Where, sabotaged: Sabotaged, tmp_path: Path
) -> None:
    """Too little memory, found by the nanny or by the process; a crash in a library; a GPU's
    failure, in which only what follows is real here: torch's own error."""
    plan = kit.plan(tmp_path / "out")
    hungry, large, once, crash, gpu, gpu_once = (
        plan.chunks[number] for number in (5, 17, 33, 50, 41, 26)
    )
    faults = {
        hungry.id: ("hungry", 9),
        large.id: ("too large", 9),
        once.id: ("too large", 1),
        crash.id: ("crash", 9),
        gpu.id: ("gpu fails", 9),
        gpu_once.id: ("gpu fails", 1),
    }
    sabotage = sabotaged(faults)
    account = run(plan, crowd)
    assert sabotage.befell() == set(faults)
    causes = {failure.chunk: failure.cause for failure in account.failures}
    died = "its worker died of it, also alone: out of memory, a crash, or its GPU"
    assert causes == {
        hungry.id: died, crash.id: died, gpu.id: died, large.id: "MemoryError",
    }  # fmt: skip
    lost = {
        star
        for chunk in (hungry, large, crash, gpu)
        for star in pq.read_table(chunk.file)["source_id"].to_pylist()[
            chunk.first_row : chunk.first_row + ROWS
        ]
    }
    assert_same(tmp_path / "out", undisturbed.output, lost=lost)
    assert outcome(run(kit.plan(tmp_path / "out"), crowd))[1:2] == (CHUNKS - 4,)
