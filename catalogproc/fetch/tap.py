"""Queries by TAP: a job at the archive, with a table of stars where there is one."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from catalogproc.errors import DownloadError, Refusal, masked
from catalogproc.fetch.adql import UPLOAD
from catalogproc.fetch.http import HttpClient, forget
from catalogproc.fetch.retries import Passing, Retries, retried
from catalogproc.io.http import passes
from catalogproc.readers.sorted_tables import Ids

LONGEST_JOB = 7200.0
"""Seconds that a query may take; the archive ends its own jobs at that time."""
_END = 4096
_GZIP = b"\x1f\x8b"
_SMALL = 1 << 16  # bytes; the head of an empty result is smaller


class _Adapter(HTTPAdapter):
    """Connections with a timeout for requests that state none."""

    def __init__(self, retries: Retries) -> None:
        self._timeout = (retries.connect, retries.silence)
        super().__init__()

    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or self._timeout
        return super().send(*arguments, **options)


def tap_query(url: str, adql: str, path: Path, retries: Retries, ids: Ids | None = None) -> bool:
    """Run a query, and write its result to a file.

    Parameters
    ----------
    url
        Address of the service.
    adql
        The query; an uploaded table is called ``tap_upload.ids``.
    path
        The file, a VOTable.
    retries
        How patient the requests are.
    ids
        source_id (N,) to upload; None for no table.

    Returns
    -------
    bool
        Whether the result has rows: a VOTable without rows may have no data at all.

    Raises
    ------
    DownloadError
        The archive does not answer, refuses the query, or cut the result off.
    """

    def run() -> None:
        with _errors(url):
            _run(url, adql, path, retries, ids)

    retried(url, retries, run)
    _decompress(path)
    content = path.read_bytes() if path.stat().st_size < 2 * _END else _ends(path)
    if b'"OVERFLOW"' in content:
        raise DownloadError(
            "the archive cut off the result of a query",
            where=url,
            advice="ask for fewer stars: a stricter --select, or a part of the sky by --healpix",
        )
    return path.stat().st_size > _SMALL or _rows(path) > 0


def _rows(path: Path) -> int:
    from astropy.io.votable import parse_single_table

    return len(parse_single_table(path).array)


def _run(url: str, adql: str, path: Path, retries: Retries, ids: Ids | None) -> None:
    """Submit a job, wait for its end, and download its result; the job is removed."""
    from astropy.table import Table

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(retries))
    uploads = None if ids is None else {UPLOAD: Table({"source_id": ids})}
    with contextlib.ExitStack() as opened:
        opened.callback(session.close)

        def close_later(answer: requests.Response, **_: Any) -> None:
            opened.callback(answer.close)  # pyvo leaves its answers open

        session.hooks["response"].append(close_later)
        service = _pyvo().dal.TAPService(url, session=session)
        with service.submit_job(adql, uploads=uploads) as job:
            job.run().wait(timeout=LONGEST_JOB)
            job.raise_if_error()
            forget(path)
            with closing(HttpClient(retries)) as client:
                client.download(job.result_uri, path)


def _pyvo() -> Any:
    try:
        import pyvo
    except ImportError:
        raise Refusal(
            "queries to the archive need pyvo",
            advice="pip install 'catalogproc[fetch]'",
        ) from None
    return pyvo


def _decompress(path: Path) -> None:
    """Replace a result that was sent compressed, also unasked, by what it holds."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return
    plain = path.with_name(f"{path.name}.plain")
    try:
        with gzip.open(path) as source, plain.open("wb") as sink:
            shutil.copyfileobj(source, sink, _SMALL)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError("a result of the archive is damaged", found=error) from error
    plain.replace(path)


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Raise errors of pyvo as ours."""
    dal = _pyvo().dal
    try:
        yield
    except dal.DALQueryError as error:
        raise DownloadError(
            "the archive refuses a query",
            found=masked(str(error)),
            where=url,
            advice="`--show-adql` prints it",
        ) from error
    except (dal.DALServiceError, requests.RequestException) as error:
        code = getattr(error, "code", None)
        if isinstance(code, int) and 400 <= code < 500 and not passes(code):
            raise DownloadError("the archive refuses a query", found=masked(str(error)),
                                where=url, advice="check the address") from error  # fmt: skip
        raise Passing(masked(str(error))) from error


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(_END)
        file.seek(-_END, 2)
        return start + file.read()
