"""What web servers say of files, and which faults may pass."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
import requests

from catalogproc.io.http import ServedFile, file_session, first_byte, passes

CHANGED = int(time.time())


def answer(code: int = 200, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = code
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


def test_a_file_is_known_by_its_etag_else_by_the_time_of_its_change() -> None:
    modified = formatdate(CHANGED, usegmt=True)
    both = ServedFile.of(answer(ETag='W/"a-1"', Last_Modified=modified, Content_Length="12"))
    assert (both.size, both.version, both.changed) == (12, "a-1", CHANGED * 10**9)
    assert both.validator == modified  # a weak mark does not tell that bytes are the same
    assert ServedFile.of(answer(ETag='"b"')).validator == '"b"'
    assert ServedFile.of(answer(Last_Modified=modified)).version == modified
    neither = ServedFile.of(answer(Last_Modified="yesterday"))
    assert (neither.size, neither.changed) == (None, 0)
    assert not ServedFile.of(answer(ETag='"a"')).is_same(ServedFile.of(answer(ETag='"b"')))
    assert ServedFile.of(answer(ETag='"a"')).is_same(ServedFile.of(answer(Content_Length="1")))


@pytest.mark.parametrize(
    ("code", "told", "begin", "size"),
    [
        (206, "bytes 20-29/100", 20, 100),
        (206, "bytes 20-29/*", 20, None),
        (416, "bytes */100", 0, 100),
        (206, "nonsense", 0, None),
    ],
)
def test_a_part_says_where_it_begins_and_how_large_the_file_is(
    code: int, told: str, begin: int, size: int | None
) -> None:
    part = answer(code, Content_Range=told, Content_Length="10")
    assert (first_byte(part), ServedFile.of(part).size) == (begin, size)


def test_faults_that_may_pass() -> None:
    assert [code for code in (200, 403, 404, 408, 429, 500, 501, 503, 505) if passes(code)] == [
        408, 429, 500, 503,
    ]  # fmt: skip


def test_files_are_asked_for_as_they_are() -> None:
    with file_session() as session:
        assert session.headers["Accept-Encoding"] == "identity"
        assert str(session.headers["User-Agent"]).startswith("catalogproc/")
