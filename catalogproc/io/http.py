"""Web servers: sessions with them, and what they say of a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Self

import requests

from catalogproc import __version__

_PASSING = {408, 425, 429}
_NEVER = {501, 505}  # not implemented


@dataclass(frozen=True)
class ServedFile:
    """What a server says of a file: its size (bytes) and the marks of its version."""

    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @classmethod
    def of(cls, answer: requests.Response) -> Self:
        """Return what an answer says of the whole file, also where it brings a part of it.

        Parameters
        ----------
        answer
            The answer.
        """
        headers = answer.headers
        size = headers.get("Content-Length")
        if answer.status_code in (206, 416):
            size = headers.get("Content-Range", "").rpartition("/")[2]
        known = int(size) if size is not None and size.isdecimal() else None
        return cls(known, headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """The mark by which a range is asked for only of the same version."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.modified

    @property
    def version(self) -> str:
        """The ETag, else the time of the last change; empty where the server says neither."""
        return (self.etag or "").removeprefix("W/").strip('"') or self.modified or ""

    @property
    def changed(self) -> int:
        """Time of the last change in ns since 1970, 0 where unknown."""
        try:
            moment = parsedate_to_datetime(self.modified or "")
        except ValueError:
            return 0
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 10**9

    def is_same(self, other: ServedFile) -> bool:
        """Return whether nothing says that two answers are of different versions.

        Parameters
        ----------
        other
            What another answer said.
        """
        pairs = ((self.size, other.size), (self.etag, other.etag), (self.modified, other.modified))
        return all(one == two for one, two in pairs if one is not None and two is not None)


def first_byte(answer: requests.Response) -> int:
    """Return the place in the file of the first byte of an answer; 0 for a whole file.

    Parameters
    ----------
    answer
        The answer.
    """
    if answer.status_code not in (206, 416):
        return 0
    begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(begin) if begin.isdecimal() else 0


def passes(code: int) -> bool:
    """Return whether an HTTP status is that of a fault that may be gone at the next try.

    Parameters
    ----------
    code
        The status.
    """
    return code in _PASSING or (code >= 500 and code not in _NEVER)


def file_session(connections: int = 10) -> requests.Session:
    """Return a session that asks for files as they are, not compressed on their way.

    Parameters
    ----------
    connections
        Number of connections to a server that are kept open.
    """
    session = requests.Session()
    session.headers["User-Agent"] = f"catalogproc/{__version__}"
    session.headers["Accept-Encoding"] = "identity"
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
