"""Objects of remote stores, opened to read ranges of their bytes: by Arrow, or over HTTP."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa
import requests
from pyarrow import fs

from catalogproc.io.http import ServedFile, file_session, passes

_CONNECTIONS = 32
_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and to wait for the next bytes."""


class StoredObject(Protocol):
    """An open object: how large it is, which version it has, and its bytes.

    ``version`` is what the store says of the version: its ETag, else the time of its last change;
    empty where it says neither. ``changed`` is that time in ns since 1970, 0 where unknown.
    """

    size: int
    version: str
    changed: int

    def read(self, begin: int, end: int) -> bytes:
        """Return a range of bytes. Raises OSError where the store does not hand it out."""
        ...


@dataclass
class ArrowObject:
    """An object of a file system of Arrow."""

    size: int
    version: str
    changed: int
    _file: pa.NativeFile
    # Of a file system written in Python, a range is a seek and a read.
    _turn: threading.Lock | None = field(default=None, repr=False)

    @classmethod
    def open(cls, files: fs.FileSystem, path: str) -> ArrowObject:
        """Open an object.

        Parameters
        ----------
        files, path
            The file system, and the object's path in it.

        Raises
        ------
        OSError
            It cannot be opened.
        """
        file = files.open_input_file(path)
        in_python = files.type_name.startswith("py::")
        told, changed = _etag_of(files, path, file), 0
        if not told:
            changed = files.get_file_info(path).mtime_ns or 0
        version = told or (f"changed {changed}" if changed else "")
        return cls(file.size(), version, changed, file, threading.Lock() if in_python else None)

    def read(self, begin: int, end: int) -> bytes:
        """Return a range of bytes."""
        if self._turn is None:
            return bytes(self._file.read_at(end - begin, begin))
        with self._turn:
            return bytes(self._file.read_at(end - begin, begin))


def _etag_of(files: fs.FileSystem, path: str, file: pa.NativeFile) -> str:
    """Return the ETag of an object, empty where the store has none."""
    if isinstance(files, fs.PyFileSystem) and isinstance(files.handler, fs.FSSpecHandler):
        told: Any = files.handler.fs.info(path)
    else:
        try:
            told = file.metadata() or {}
        except (OSError, pa.ArrowException):
            return ""
    names = {_text(name).lower(): value for name, value in dict(told).items()}
    return _text(names.get("etag") or "").strip('"')


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@dataclass
class HttpObject:
    """A file of a web server that hands out ranges."""

    size: int
    version: str
    changed: int
    _url: str

    @classmethod
    def open(cls, url: str) -> HttpObject:
        """Ask a server for the size and the version of a file.

        Parameters
        ----------
        url
            Its address.

        Raises
        ------
        OSError
            The server does not have it, refuses, or does not say its size.
        """
        with _session().head(url, timeout=_TIMEOUT, allow_redirects=True) as answer:
            said = ServedFile.of(answer)
            if answer.ok and said.size is not None:
                return cls(said.size, said.version, said.changed, url)
            if answer.status_code in (404, 410):
                _raise(answer)
        # Some servers answer no HEAD.
        with _ranged(url, 0, 1) as answer:
            said = ServedFile.of(answer)
            if said.size is None:
                raise OSError("the server does not say how large the file is")
            return cls(said.size, said.version, said.changed, url)

    def read(self, begin: int, end: int) -> bytes:
        """Return a range of bytes. A file of another version is an error."""
        with _ranged(self._url, begin, end) as answer:
            if ServedFile.of(answer).version != self.version:
                raise OSError("the file was changed while it was read")
            return bytes(answer.content)


def exists_over_http(url: str) -> bool:
    """Return whether a server has a file.

    Parameters
    ----------
    url
        Its address.

    Raises
    ------
    OSError
        The server does not answer.
    """
    try:
        HttpObject.open(url)
    except FileNotFoundError:
        return False
    return True


def _ranged(url: str, begin: int, end: int) -> requests.Response:
    """Return the answer to a request for a range. Raises OSError where it is another one."""
    wanted = {"Range": f"bytes={begin}-{end - 1}"}
    answer = _session().get(url, headers=wanted, timeout=_TIMEOUT, stream=True)
    if answer.status_code == 206:
        told = answer.headers.get("Content-Range", "")
        if told.startswith(f"bytes {begin}-"):
            return answer
        answer.close()
        raise OSError(f"the server sent another range: {told}")
    answer.close()
    if answer.ok:
        raise OSError(
            errno.ENOTSUP, "the server does not hand out parts of files; download the file first"
        )
    _raise(answer)
    raise AssertionError


def _raise(answer: requests.Response) -> None:
    """Raise OSError for an answer that is no success."""
    words = f"the server answers {answer.status_code} {answer.reason or ''}".rstrip()
    if answer.status_code in (404, 410):
        raise FileNotFoundError(errno.ENOENT, words)
    if answer.status_code in (401, 403):
        raise PermissionError(errno.EACCES, words)
    raise OSError(errno.EAGAIN if passes(answer.status_code) else errno.EINVAL, words)


@lru_cache(maxsize=1)
def _session() -> requests.Session:
    return file_session(_CONNECTIONS)
