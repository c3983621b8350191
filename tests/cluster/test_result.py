"""A run ends with words that say what to do about each failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalogproc.cluster.result import Account, Failure
from catalogproc.errors import CountError, InputError


@pytest.mark.parametrize(
    ("kind", "cause", "advice"),
    [
        ("WorkerDied", "its worker died of it, also alone", "more memory .fewer --workers"),
        ("MemoryError", "MemoryError", "smaller chunk_rows"),
        ("OSError", "OSError: [Errno 5] … (tried 3 times)", "see to the disk or the file server"),
        ("InputError", str(InputError("a file", todo="send it by post")), "send it by post$"),
        ("InputError", str(InputError("a file")), "fetch the file again"),
        ("CountError", str(CountError("rows in and rows out disagree")), "a defect of catalogproc"),
        ("ValueError", "ValueError: nobody thought of this", "a defect of catalogproc"),
    ],
)
def test_each_failure_says_what_to_do(kind: str, cause: str, advice: str) -> None:
    failure = Failure("0123", "a.parquet", "rows 0 to 9", kind, cause)
    (line,) = (line for line in failure.lines() if "what to do: " in line)
    assert re.search(advice, line)
    account = Account(Path("out"), 2, 1, 1, 9, 9, 0, failures=(failure,))
    *_, before, last = account.lines()
    assert before == line
    assert last == "the same command again does what is missing"
