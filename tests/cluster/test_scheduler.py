"""What the scheduler does with chunks that fail and workers that are lost, on real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from distributed import Client
from support import tasks

from catalogproc.cluster import scheduler as module
from catalogproc.cluster.chunk_on_worker import as_transient
from catalogproc.cluster.dask_cluster import WorkerSpec, local_cluster
from catalogproc.cluster.gpu import CPU
from catalogproc.cluster.scheduler import ChunkScheduler
from catalogproc.cluster.worker_plugin import WorkerStatus
from catalogproc.errors import InputError


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(WorkerSpec((CPU, CPU), 1, 2**29), "127.0.0.1:0") as client:
        yield client


def scheduler(
    client: Client,
    folder: Path,
    kinds: list[str],
    report: Callable[[ChunkScheduler], None] | None = None,
) -> ChunkScheduler:
    chunks = [tasks.fake_chunk(f"{number:02}-{kind}", kind) for number, kind in enumerate(kinds)]
    process = partial(tasks.process, folder)
    return ChunkScheduler(client, "test", chunks, process, report)


def finished(client: Client, folder: Path, kinds: list[str]) -> ChunkScheduler:
    made = scheduler(client, folder, kinds)
    made.run()
    return made


def test_every_chunk_is_done_once(client: Client, tmp_path: Path) -> None:
    made = finished(client, tmp_path, ["good"] * 40)
    assert sorted(receipt.chunk_id for receipt in made.receipts) == [
        f"{number:02}-good" for number in range(40)
    ]
    assert len(list(tmp_path.iterdir())) == 40
    assert made.rows == 400
    assert not made.failures
    assert not made.stopped
    assert {receipt.worker for receipt in made.receipts} == {"0", "1"}


def test_few_chunks_are_in_flight_at_a_time(client: Client, tmp_path: Path) -> None:
    counts: list[int] = []
    made = scheduler(
        client, tmp_path, ["good"] * 60, report=lambda now: counts.append(len(now.in_flight))
    )
    made.run()
    assert len(made.receipts) == 60
    assert max(counts) == 2 * module.CHUNKS_PER_WORKER


def test_a_transient_error_is_tried_again_and_a_lasting_one_fails(
    client: Client, tmp_path: Path
) -> None:
    made = finished(client, tmp_path, ["good", "transient", "lasting", "good"])
    assert len(made.receipts) == 3
    (failure,) = made.failures
    assert failure.file == "lasting"
    assert failure.rows == "rows 0 to 9"
    assert "a lasting read error" in failure.cause
    assert failure.cause.endswith("(tried 3 times)")
    assert len(list(tmp_path.glob("*-lasting.*"))) == 3


def test_a_read_error_behind_an_input_error_is_transient() -> None:
    def input_error(number: int) -> InputError:
        try:
            try:
                raise OSError(number, "from the disk")
            except OSError as error:
                raise InputError("the file cannot be read", where="a.csv") from error
        except InputError as error:
            return error

    found = as_transient(input_error(errno.EIO))
    assert found is not None
    assert (found.message, found.where) == ("the file cannot be read", "a.csv")
    assert "[Errno 5] Input/output error" in str(found)
    assert as_transient(input_error(errno.ENOENT)) is None
    assert as_transient(InputError("the file is truncated")) is None


def test_a_bad_file_is_tried_once_and_its_cause_is_reported(client: Client, tmp_path: Path) -> None:
    made = finished(client, tmp_path, ["broken", "defect", "good"])
    broken, defect = sorted(made.failures, key=lambda failure: failure.chunk)
    assert broken.kind == "InputError"
    assert broken.cause.splitlines()[:2] == ["the file is truncated", "  wanted: a footer"]
    assert defect.cause == "ValueError: a defect"
    assert len(list(tmp_path.glob("*-broken.*"))) == 1
    assert len(made.receipts) == 1


def test_a_full_disk_stops_the_run_at_once(client: Client, tmp_path: Path) -> None:
    made = finished(client, tmp_path, ["good", "full", *["good"] * 60])
    assert "no space is left to write" in made.stopped
    assert not made.failures
    assert len(made.receipts) < 60
    # Wait for chunks in flight before the next test uses the workers.
    client.run(time.sleep, 0)


def test_a_chunk_that_kills_its_workers_costs_only_itself(client: Client, tmp_path: Path) -> None:
    made = finished(client, tmp_path, ["good", "hungry", "large", "killed once", *["good"] * 8])
    assert {failure.file for failure in made.failures} == {"hungry", "large"}
    causes = {failure.file: failure.cause for failure in made.failures}
    assert "died twice, the second time with no other chunk running" in causes["hungry"]
    assert causes["large"] == "MemoryError"
    assert len(made.receipts) == 10
    # Twice, the second time alone; once if its worker died of another chunk before it began.
    assert len(list(tmp_path.glob("*-large.*"))) in (1, 2)


def of_rows(client: Client, folder: Path, kind: str, rows: int) -> ChunkScheduler:
    """A finished scheduler of one chunk of so many rows."""
    chunks = [tasks.fake_chunk("chunk", kind, rows=rows)]
    made = ChunkScheduler(client, "test", chunks, partial(tasks.process, folder))
    made.run()
    return made


def test_memory_that_does_not_suffice_halves_the_batch(client: Client, tmp_path: Path) -> None:
    made = of_rows(client, tmp_path, "large batch", 20_000)
    assert not made.failures
    (receipt,) = made.receipts
    assert receipt.rows_read == made.rows == 20_000
    assert len(made.retries) == 4  # among others, alone, with 1/2 and with 1/4 of the batch
    assert list(made.notes) == ["chunk chunk of large batch: out of memory: the batch is halved"]


def test_then_the_chunk_is_halved(client: Client, tmp_path: Path) -> None:
    made = of_rows(client, tmp_path, "many rows", 1000)
    assert not made.failures
    rows = sorted((receipt.first_row, receipt.rows_read) for receipt in made.receipts)
    assert rows == [(0, 250), (250, 250), (500, 250), (750, 250)]
    assert len(made.divided) == 3
    assert any(note.endswith("it is divided") for note in made.notes)


def test_rows_that_never_fit_fail_alone(client: Client, tmp_path: Path) -> None:
    made = of_rows(client, tmp_path, "bad row", 1000)
    (failure,) = made.failures
    assert made.rows == 1000 - 62
    assert failure.rows == "rows 500 to 561"
    assert "memory" in failure.advice


@pytest.mark.slow
def test_a_worker_that_the_batch_kills_is_given_half(client: Client, tmp_path: Path) -> None:
    made = of_rows(client, tmp_path, "hungry batch", 20_000)
    assert not made.failures
    assert made.rows == 20_000
    assert any("its worker died: the batch is halved" in note for note in made.notes)


def exclude_worker_0(made: ChunkScheduler) -> None:
    """Exclude worker 0, as one whose model cannot be loaded."""
    workers = made.client.scheduler_info(n_workers=-1)["workers"]
    (address,) = (address for address, worker in workers.items() if worker["name"] == 0)
    made.exclude({address: WorkerStatus("0", "here", "", 0, "no model")})


def test_a_worker_without_a_model_gets_no_chunk(client: Client, tmp_path: Path) -> None:
    client.wait_for_workers(2, timeout=60)
    counts: list[int] = []
    made = scheduler(
        client, tmp_path, ["good"] * 20, report=lambda now: counts.append(len(now.workers))
    )
    made.workers = frozenset(client.scheduler_info(n_workers=-1)["workers"])
    exclude_worker_0(made)
    assert len(made.workers) == 1  # at once, not only when the workers are asked for again
    made.run()
    assert {receipt.worker for receipt in made.receipts} == {"1"}
    assert len(made.receipts) == 20
    assert set(counts) == {1}
    assert list(made.notes) == ["worker 0 on here is not used: no model"]


@pytest.mark.timeout(120)
def test_a_chunk_for_a_worker_that_has_left_is_given_to_another(
    client: Client, tmp_path: Path
) -> None:
    """Worker 1 dies with the chunks that only it may process, and returns at another address."""
    client.wait_for_workers(2, timeout=60)
    made = scheduler(client, tmp_path, ["good", "killed once", *["good"] * 6])
    exclude_worker_0(made)
    made.run()
    assert not made.failures
    assert not made.stopped
    assert len(made.receipts) == 8
    assert {receipt.worker for receipt in made.receipts} == {"1"}
    assert len(list(tmp_path.glob("*-killed once.*"))) == 2


def test_without_workers_the_run_ends(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKER_TIMEOUT", 0.0)
    made = scheduler(client, tmp_path, ["good"])
    made.refused = set(client.scheduler_info(n_workers=-1)["workers"])
    made.run()
    assert made.stopped == "no worker with a working model is left"


def test_a_scheduler_that_does_not_answer_ends_the_run(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_answer(n_workers: int) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(client.scheduler, "identity", no_answer, raising=False)
    made = scheduler(client, tmp_path, ["good"])
    made.run()
    assert made.stopped == "the scheduler does not answer any more"


def grouped(client: Client, folder: Path, *kinds: str) -> ChunkScheduler:
    """A finished scheduler of one chunk of several files, each named after what happens to it."""
    chunks = [tasks.fake_chunk("group", *kinds)]
    made = ChunkScheduler(client, "test", chunks, partial(tasks.process, folder))
    made.run()
    return made


def test_one_bad_file_of_a_chunk_fails_alone(client: Client, tmp_path: Path) -> None:
    kinds = ["good"] * 16
    kinds[11] = "broken"
    made = grouped(client, tmp_path, *kinds)
    (failure,) = made.failures
    assert (failure.file, failure.chunk, failure.kind) == ("broken", "group.11", "InputError")
    assert made.rows == 150
    assert len(made.receipts) == 4  # of 8, 4, 2 and 1 files
    assert made.total == 5
    assert len(made.divided) == len(made.retries) == 4
    assert made.retries[0].file == "good and 15 more files"


def test_a_lasting_read_error_and_one_of_memory_fail_alone(client: Client, tmp_path: Path) -> None:
    made = grouped(client, tmp_path, "good", "lasting", "good")
    assert [failure.file for failure in made.failures] == ["lasting"]
    assert made.rows == 20
    made = grouped(client, tmp_path, "good", "large", "good", "good")
    assert [(failure.file, failure.kind) for failure in made.failures] == [("large", "MemoryError")]
    assert made.rows == 30


@pytest.mark.slow
def test_a_worker_that_has_just_died_again_is_started_again() -> None:
    """Dask looks 15 s after a death whether the worker is back, and gives it up if it is not."""

    def killed(client: Client) -> float:
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    with local_cluster(WorkerSpec((CPU,), 1, 2**29), "127.0.0.1:0") as client:
        first = killed(client)
        time.sleep(2.0)  # until the scheduler knows
        client.wait_for_workers(1, timeout=10)
        time.sleep(first + 14.7 - time.monotonic())
        killed(client)
        time.sleep(2.0)
        client.wait_for_workers(1, timeout=20)
        assert len(client.run(os.getpid)) == 1
