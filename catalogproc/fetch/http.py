"""HTTP requests that go on after faults: tried again, and resumed where they broke off.

What passes is tried again: refused and broken connections, timeouts, answers 408, 429 and 5xx,
which may say when (Retry-After). Every other answer but success is an error at once.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import requests
import urllib3

from catalogproc.errors import DownloadError, masked
from catalogproc.fetch.retries import Passing, Retries, Stopped, retried
from catalogproc.io.atomic import write_atomic, write_error
from catalogproc.io.http import ServedFile, file_session, first_byte, passes

BLOCK = 1 << 14
"""Number of bytes that are read at once; a request to stop is heard between two of them."""

Watch = Callable[[int, int | None], None]


@dataclass
class HttpClient:
    """A client of one server, for one thread.

    Parameters
    ----------
    retries
        How patient it is.
    stop
        Set to stop: requests end with Stopped, pauses at once.
    """

    retries: Retries = field(default_factory=Retries)
    stop: threading.Event = field(default_factory=threading.Event)
    _session: requests.Session = field(default_factory=file_session, init=False)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def text(self, url: str) -> str:
        """Return a small text file.

        Parameters
        ----------
        url
            Its address.

        Raises
        ------
        DownloadError
            The server does not hand it out.
        """

        def read() -> str:
            with self._answer("GET", url) as answer:
                return b"".join(self._blocks(answer, decode=True)).decode("utf-8", "replace")

        text: str = self._retried(url, read, lambda: 0)
        return text

    def size(self, url: str) -> int | None:
        """Return the size of a file in bytes; None where the server does not say.

        Parameters
        ----------
        url
            Its address.

        Raises
        ------
        DownloadError
            The server does not answer.
        """

        def look() -> int | None:
            try:
                with self._answer("HEAD", url) as answer:
                    return ServedFile.of(answer).size
            except DownloadError:  # a mirror without HEAD; a missing file is told by GET
                return None

        size: int | None = self._retried(url, look, lambda: 0)
        return size

    def download(self, url: str, path: Path, watch: Watch | None = None) -> ServedFile:
        """Fetch a file, from where an earlier call broke off if it is still the same file.

        Parameters
        ----------
        url
            Its address.
        path
            Where it is written; what is there already is resumed. Beside it stands
            ``NAME.json`` with the version that it is of.
        watch
            Called with (bytes that are there, bytes of the file or None) as it comes.

        Returns
        -------
        ServedFile
            What the server says of it. The file has that size; its content is not checked.

        Raises
        ------
        DownloadError
            The server does not hand it out, or breaks off without progress too often.
        DiskFullError
            There is no space left.
        Stopped
            The caller asked to stop.
        """
        remote: ServedFile = self._retried(
            url, lambda: self._resume(url, path, watch), lambda: _size(path)
        )
        return remote

    def post(self, url: str, form: Mapping[str, str], path: Path) -> None:
        """Write the answer to a form to a file, whole.

        Parameters
        ----------
        url
            The address.
        form
            The fields of the form.
        path
            The file.

        Raises
        ------
        DownloadError
            The server does not answer, or refuses.
        """

        def fetch() -> None:
            with self._answer("POST", url, data=form) as answer, _writing(path, 0) as file:
                for block in self._blocks(answer, decode=True):
                    _write(file, block, path)

        self._retried(url, fetch, lambda: 0)

    def _resume(self, url: str, path: Path, watch: Watch | None) -> ServedFile:
        begun, known = _size(path), _known(path)
        headers = {}
        if begun and known is not None:
            headers["Range"] = f"bytes={begun}-"
            if known.validator is not None:
                headers["If-Range"] = known.validator
        with self._answer("GET", url, headers=headers) as answer:
            start, remote = first_byte(answer), ServedFile.of(answer)
            if answer.status_code == 416 or (start and not remote.is_same(known or ServedFile())):
                # The file became shorter, or the server does not know If-Range.
                whole = begun == remote.size and known is not None and known.is_same(remote)
                if answer.status_code == 416 and whole:
                    return remote
                forget(path)
                raise Passing("the file changed while it was fetched")
            write_atomic(_mark(path), json.dumps(asdict(remote)).encode())
            with _writing(path, start) as file:
                done = start
                for block in self._blocks(answer):
                    _write(file, block, path)
                    done += len(block)
                    if watch is not None:
                        watch(done, remote.size)
        if remote.size is not None and done != remote.size:
            raise Passing(f"{done:,} bytes of {remote.size:,} came")
        return remote

    @contextmanager
    def _answer(self, method: str, url: str, **options: Any) -> Iterator[requests.Response]:
        """Yield an answer of success or 416. Raise Passing or DownloadError for another."""
        timeout = (self.retries.connect, self.retries.silence)
        try:
            answer = self._session.request(method, url, stream=True, timeout=timeout, **options)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Passing(_reason(error)) from error
        except requests.RequestException as error:
            raise _refused(url, error) from error
        with answer:
            code = answer.status_code
            if passes(code):
                raise Passing(f"{code} {answer.reason}", _retry_after(answer))
            if code >= 400 and code != 416:
                found = f"{code} {answer.reason}"
                raise _refused(url, f"{found} {_words(answer)}".strip())
            yield answer

    def _blocks(self, answer: requests.Response, decode: bool = False) -> Iterator[bytes]:
        """Yield the bytes of an answer: of the file, or of what a server compressed unasked."""
        try:
            for block in answer.raw.stream(BLOCK, decode_content=decode):
                if self.stop.is_set():
                    raise Stopped
                yield block
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            raise Passing(_reason(error)) from error

    def _retried(self, url: str, do: Callable[[], Any], size: Callable[[], int]) -> Any:
        return retried(url, self.retries, do, size, self.stop)


def forget(path: Path) -> None:
    """Remove a downloaded file, and what is known of it.

    Parameters
    ----------
    path
        The file.
    """
    path.unlink(missing_ok=True)
    _mark(path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _known(path: Path) -> ServedFile | None:
    """Return the version that an interrupted download is of."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return ServedFile(**json.loads(_mark(path).read_bytes()))
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _writing(path: Path, start: int) -> Iterator[Any]:
    """Open a file to write from a byte on; what stood behind it is cut off."""
    try:
        with path.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            yield file
    except OSError as error:
        raise write_error(error, path) from error


def _write(file: Any, block: bytes, path: Path) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise write_error(error, path) from error


def _retry_after(answer: requests.Response) -> float | None:
    """Return the seconds that a server asks to wait, also where it states a date."""
    stated = answer.headers.get("Retry-After")
    with contextlib.suppress(urllib3.exceptions.InvalidHeader):
        return urllib3.Retry().parse_retry_after(stated) if stated else None
    return None


def _reason(error: BaseException) -> str:
    return masked(f"{type(error).__name__}: {error}")


def _words(answer: requests.Response) -> str:
    """The first words of an answer, for a message."""
    with contextlib.suppress(Exception):
        return " ".join(answer.raw.read(300, decode_content=True).decode("utf-8").split())
    return ""


def _refused(url: str, found: object) -> DownloadError:
    return DownloadError(
        "the archive refuses a request",
        found=masked(str(found)),
        where=masked(url),
        advice="check the address",
    )
