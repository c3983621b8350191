"""The result of a run says what to do about each failure, and whether all is done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalogproc.cluster.result import WORKER_DIED, Failure, RunResult
from catalogproc.errors import CountError, InputError, TransientError, WorkerError
from catalogproc.readers.chunks import Chunk
from catalogproc.readers.pieces import Piece

CHUNK = Chunk((Piece("0123", Path("a.parquet"), "fingerprint", 0, 10),))


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (RuntimeError("killed"), WORKER_DIED, "more memory .fewer --workers"),
        (MemoryError(), "", "smaller chunk_rows"),
        (OSError(5, "Input/output error"), "", "check the disk or the file server"),
        (FileNotFoundError(2, "No such file"), "", "check the disk or the file server"),
        (TransientError("a file"), "", "check the disk or the file server"),
        (WorkerError("no model"), "", "repair the workers"),
        (InputError("a file", advice="send it by post"), "", "send it by post$"),
        (InputError("a file"), "", "download the file again"),
        (CountError("rows read and written disagree"), "", "a defect of catalogproc"),
        (ValueError("a defect"), "", "a defect of catalogproc"),
    ],
)
def test_each_failure_says_what_to_do(error: Exception, kind: str, advice: str) -> None:
    failure = Failure.of_chunk(CHUNK, error, kind)
    (line,) = (line for line in failure.lines() if "what to do: " in line)
    assert re.search(advice, line)
    result = RunResult(Path("out"), 2, 1, 1, 9, 9, 0, failures=(failure,))
    *_, before, last = result.lines()
    assert before == line
    assert last == "run the same command again to resume"


@pytest.mark.parametrize(
    ("done", "failures", "stopped", "unfinished", "exit_code"),
    [
        (3, 0, "", 0, 0),
        (2, 1, "", 0, 1),
        (2, 0, "", 1, 1),  # a chunk that is neither done nor failed
        (3, 0, "the scheduler does not answer any more", 0, 1),
        (1, 1, "", 1, 1),
    ],
)
def test_only_a_run_with_every_chunk_done_exits_with_0(
    done: int, failures: int, stopped: str, unfinished: int, exit_code: int
) -> None:
    failed = (Failure.of_chunk(CHUNK, MemoryError()),) * failures
    result = RunResult(Path("out"), 3, done, done, 9, 9, 0, failures=failed, stopped=stopped)
    assert result.unfinished == result.to_dict()["unfinished"] == unfinished
    assert result.exit_code == result.to_dict()["exit_code"] == exit_code
    assert ("not started" in result.lines()[-1]) == bool(unfinished)
    assert ("resume" in result.lines()[-1]) == bool(exit_code)


def test_an_unreadable_file_is_a_failure_and_no_chunk() -> None:
    failure = Failure.of_file(Path("a.parquet"), InputError("the file is empty"))
    result = RunResult(Path("out"), 3, 2, 2, 9, 9, 0, failures=(failure,))
    assert (result.unfinished, result.exit_code) == (1, 1)
