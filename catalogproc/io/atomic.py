"""Files that appear whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, and only
then given its name; a reader never sees half of one, and a killed process leaves nothing
but a temporary file that :func:`clear_debris` removes at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from catalogproc.errors import CatalogprocError, masked

if TYPE_CHECKING:
    pass

BUFFER = 1 << 20
DEBRIS_AGE = 86_400.0
"""Seconds after which a temporary file is taken for debris, whoever wrote it."""

_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)@(?P<host>[\w.-]+)\.[0-9a-f]{8}\.tmp$")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDERS_NOT_SYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


def write_error(error: OSError, where: Path) -> CatalogprocError:
    """An operating system's refusal to write, in the user's words."""
    full = error.errno in _FULL
    return CatalogprocError(
        "there is no space left to write" if full else "a file cannot be written",
        found=error.strerror or error,
        where=where,
        todo="make room, then give the same command again: what is done is kept"
        if full
        else "make the folder writable, or give another --output",
    )


class WholeFile:
    """A file to write to from start to end, that exists under its name only when complete.

    Leaving the ``with`` block normally flushes it to the disk and renames it; leaving it by
    an exception removes it. ``bytes`` and ``sha256`` describe what was written.

    Parameters
    ----------
    path
        The name it gets. Missing folders are made.
    overwrite
        Whether a file of that name may be replaced.

    Raises
    ------
    CatalogprocError
        The disk is full, the folder cannot be written, or the name is taken.
    """

    closed = False

    def __init__(self, path: Path, *, overwrite: bool = True) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._temporary = temporary_path(self.path)
        self._file: BinaryIO

    def __enter__(self) -> Self:
        if not self.overwrite and os.path.lexists(self.path):
            raise _taken(self.path)
        try:
            _make_folder(self.path.parent)
            self._file = open(self._temporary, "xb", buffering=BUFFER)
        except OSError as error:
            raise write_error(error, self.path) from None
        return self

    def write(self, data: Any) -> int:
        """Append bytes, or anything that has the buffer interface."""
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            raise write_error(error, self.path) from None
        self._digest.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        """Asked for by Arrow; what counts is the flush when the file is complete."""

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the bytes written so far."""
        return self._digest.hexdigest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def commit(self) -> None:
        """Flush the file to the disk and give it its name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self.overwrite:
                os.replace(self._temporary, self.path)
            else:
                _rename_to_new(self._temporary, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise write_error(error, self.path) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file; nothing happens once it has its name."""
        with contextlib.suppress(OSError):  # on a full disk close fails a second time
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, overwrite: bool = True) -> str:
    """Write a small file whole or not at all; its SHA-256 (hex). Raises CatalogprocError."""
    with WholeFile(path, overwrite=overwrite) as file:
        file.write(data)
    return file.sha256


def as_json(content: object) -> bytes:
    """JSON as this project writes it: sorted, indented, UTF-8, finite numbers, no credentials."""
    text = json.dumps(
        content, indent=2, sort_keys=True, ensure_ascii=False, default=str, allow_nan=False
    )
    return f"{masked(text)}\n".encode()


def clear_debris(folders: Iterable[Path], now: float | None = None) -> list[Path]:
    """Remove the temporary files that killed processes left in folders; those removed.

    One is debris when its process no longer runs on this host, or when it has not been
    touched for a day. A file that somebody is still writing is left alone.
    """
    now = time.time() if now is None else now
    removed = []
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            match = _TEMPORARY.match(path.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                old = now - path.stat().st_mtime > DEBRIS_AGE
                dead = match["host"] == _host() and not is_running(int(match["pid"]))
                if old or dead:
                    path.unlink()
                    removed.append(path)
    return removed


def is_temporary(path: Path) -> bool:
    """Whether a file is one of this module's temporary files."""
    return _TEMPORARY.match(path.name) is not None


@lru_cache(maxsize=1)
def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname()) or "host"


def temporary_path(path: Path) -> Path:
    """A name beside a file or folder to write it under first; :func:`clear_debris` knows it."""
    return path.with_name(f".{path.name}.{os.getpid()}@{_host()}.{secrets.token_hex(4)}.tmp")


def this_process() -> dict[str, Any]:
    """What a lock says of the process that holds it."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def process_named(stated: str | bytes) -> str:
    """Who wrote itself into a lock, in words."""
    try:
        held: dict[str, Any] = json.loads(stated)
        return f"process {held['pid']} on {held['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


def has_ended(stated: str | bytes) -> bool:
    """Whether who wrote itself into a lock ran on this host, and does no more."""
    try:
        held: dict[str, Any] = json.loads(stated)
        return held["host"] == socket.gethostname() and not is_running(int(held["pid"]))
    except (ValueError, KeyError, TypeError):
        return False


def is_running(pid: int) -> bool:
    """Whether a process of that number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is there, and somebody else's
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk; some network file systems cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDERS_NOT_SYNCED:
            raise
    finally:
        os.close(descriptor)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Give a file its name unless the name is taken, also by one who came in between."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _taken(path) from None
    except OSError:
        # A file system without hard links: the check is no longer atomic, the rename is.
        if os.path.lexists(path):
            raise _taken(path) from None
        os.replace(temporary, path)


def _taken(path: Path) -> CatalogprocError:
    return CatalogprocError(
        "the file exists already",
        where=path,
        todo="give another name, or say that it may be overwritten",
    )
