"""What becomes of a chunk that meets trouble, on real worker processes."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from support import tasks

from catalogproc.cluster import scheduler as module
from catalogproc.cluster.dask_cluster import Crew, embedded
from catalogproc.cluster.gpu import CPU
from catalogproc.cluster.scheduler import Dispatch
from catalogproc.errors import InputError


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with embedded(Crew((CPU, CPU), 1, 2**29), "127.0.0.1:0") as client:
        yield client


def dispatched(client: Client, folder: Path, kinds: list[str]) -> Dispatch:
    pieces = [tasks.Piece(f"{number:02}-{kind}", kind) for number, kind in enumerate(kinds)]
    made = Dispatch(client, "test", pieces, folder, do=tasks.do)  # type: ignore[arg-type]
    made.run()
    return made


def test_every_chunk_is_done_once(client: Client, tmp_path: Path) -> None:
    made = dispatched(client, tmp_path, ["good"] * 40)
    assert sorted(receipt.chunk_id for receipt in made.receipts) == [
        f"{number:02}-good" for number in range(40)
    ]
    assert len(list(tmp_path.iterdir())) == 40
    assert made.rows == 400
    assert not made.failures
    assert not made.stopped
    assert {receipt.worker for receipt in made.receipts} == {"0", "1"}


def test_few_chunks_are_out_at_a_time(client: Client, tmp_path: Path) -> None:
    flying = []
    pieces = [tasks.Piece(f"{number:02}", "good") for number in range(60)]
    made = Dispatch(
        client, "test", pieces, tmp_path, do=tasks.do,  # type: ignore[arg-type]
        report=lambda now: flying.append(len(now.flying)),
    )  # fmt: skip
    made.run()
    assert len(made.receipts) == 60
    assert max(flying) == 2 * module.AHEAD


def test_what_passes_is_tried_again_and_what_stays_fails(client: Client, tmp_path: Path) -> None:
    made = dispatched(client, tmp_path, ["good", "passes", "stays", "good"])
    assert len(made.receipts) == 3
    (failure,) = made.failures
    assert failure.file == "stays"
    assert failure.rows == "rows 0 to 9"
    assert "a read error that stays" in failure.cause
    assert failure.cause.endswith("(tried 3 times)")
    assert len(list(tmp_path.glob("*-stays.*"))) == 3


def test_a_read_error_behind_ours_is_known_as_one_that_may_pass() -> None:
    def told(number: int) -> InputError:
        try:
            try:
                raise OSError(number, "from the disk")
            except OSError as error:
                raise InputError("the file cannot be read", where="a.csv") from error
        except InputError as error:
            return error

    found = module.passing(told(errno.EIO))
    assert found is not None
    assert "the file cannot be read\n  where: a.csv" in str(found)
    assert module.passing(told(errno.ENOENT)) is None
    assert module.passing(InputError("the file is truncated")) is None


def test_a_bad_file_is_tried_once_and_tells_its_cause(client: Client, tmp_path: Path) -> None:
    made = dispatched(client, tmp_path, ["broken", "bug", "good"])
    broken, bug = sorted(made.failures, key=lambda failure: failure.chunk)
    assert broken.kind == "InputError"
    assert broken.cause.splitlines()[:2] == ["the file is truncated", "  wanted: a footer"]
    assert bug.cause == "ValueError: nobody thought of this"
    assert len(list(tmp_path.glob("*-broken.*"))) == 1
    assert len(made.receipts) == 1


def test_a_full_disk_ends_the_run_at_once(client: Client, tmp_path: Path) -> None:
    made = dispatched(client, tmp_path, ["good", "full", *["good"] * 60])
    assert "no space left" in made.stopped
    assert not made.failures
    assert len(made.receipts) < 60
    # Let what is still on its way land before the next test takes the workers.
    client.run(time.sleep, 0)


def test_a_chunk_that_kills_its_workers_costs_itself_alone(client: Client, tmp_path: Path) -> None:
    made = dispatched(client, tmp_path, ["good", "hungry", "large", "crowded", *["good"] * 8])
    assert {failure.file for failure in made.failures} == {"hungry", "large"}
    causes = {failure.file: failure.cause for failure in made.failures}
    assert "died of it, also alone: out of memory" in causes["hungry"]
    assert causes["large"] == "MemoryError"
    assert len(made.receipts) == 10
    # Twice, the second time alone; once where its worker died of a neighbour before it began.
    assert len(list(tmp_path.glob("*-large.*"))) in (1, 2)


def test_without_workers_the_run_ends(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    made = Dispatch(client, "test", [tasks.Piece("0", "good")], tmp_path)  # type: ignore[list-item]
    made.refused = set(client.scheduler_info(n_workers=-1)["workers"])
    made.run()
    assert made.stopped == "no worker with a working model is left"


def test_a_scheduler_that_says_nothing_ends_the_run(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(n_workers: int) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "ANSWER", 0.2)
    monkeypatch.setattr(client.scheduler, "identity", silent, raising=False)
    made = Dispatch(client, "test", [tasks.Piece("0", "good")], tmp_path)  # type: ignore[list-item]
    made.run()
    assert made.stopped == "the scheduler cannot be reached any more"
