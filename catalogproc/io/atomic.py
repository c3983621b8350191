"""Atomic writes: a file or folder exists complete under its name, or not at all.

Everything is written under a temporary name in the same folder, flushed to the disk (fsync)
and then renamed; the folder's list of names is flushed too. A reader never sees half of a
file, and a process that is killed leaves only temporary files, which
:func:`catalogproc.io.temporary_files.remove_stale` deletes at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from catalogproc.errors import CatalogprocError, DiskFullError, masked
from catalogproc.io.temporary_files import temporary_path

BUFFER = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDERS_NOT_SYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


def write_error(error: OSError, where: Path) -> CatalogprocError:
    """Return the error for the user when the operating system refuses to write.

    Parameters
    ----------
    error
        The operating system's error.
    where
        The file or folder to be written.

    Returns
    -------
    CatalogprocError
        A DiskFullError where the disk or a quota is full.
    """
    found = error.strerror or error
    if error.errno in _FULL:
        return DiskFullError(
            "there is no space left to write",
            found=found,
            where=where,
            advice="free some space, then run the same command again: what is finished is kept",
        )
    return CatalogprocError(
        "a file cannot be written",
        found=found,
        where=where,
        advice="make the folder writable, or give another --output",
    )


class AtomicFile:
    """A file, written from start to end, that exists under its name only when complete.

    Leaving the ``with`` block normally flushes it to the disk and renames it; leaving it by
    an exception removes it. ``bytes`` and ``sha256`` describe what was written.

    Parameters
    ----------
    path
        The name of the finished file. Missing folders are created.
    overwrite
        Whether a file of that name may be replaced.
    modified
        The finished file's time of change in ns since 1970; the present where None.

    Raises
    ------
    DiskFullError
        No space is left on the disk.
    CatalogprocError
        The folder cannot be written, or the name is taken.
    """

    closed = False

    def __init__(self, path: Path, *, overwrite: bool = True, modified: int | None = None) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.modified = modified
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
        """Append bytes.

        Parameters
        ----------
        data
            Bytes, or an object with the buffer interface.

        Returns
        -------
        int
            The number of bytes.
        """
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            raise write_error(error, self.path) from None
        self._digest.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Do nothing: Arrow calls it; the data are flushed when the file is complete."""

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
        """Flush the file to the disk and rename it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self.modified is not None:
                os.utime(self._temporary, ns=(self.modified, self.modified))
            _rename(self._temporary, self.path, overwrite=self.overwrite)
        except OSError as error:
            raise write_error(error, self.path) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file, if it has not been renamed."""
        with contextlib.suppress(OSError):  # on a full disk close fails a second time
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, *, overwrite: bool = True) -> str:
    """Write a small file atomically.

    Parameters
    ----------
    path
        The file. Missing folders are created.
    data
        Its content.
    overwrite
        Whether a file of that name may be replaced.

    Returns
    -------
    str
        SHA-256 (hex) of the content.

    Raises
    ------
    CatalogprocError
        The file cannot be written, or the name is taken.
    """
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(data)
    return file.sha256


@contextmanager
def scratch_folder(folder: Path, stem: str) -> Iterator[Path]:
    """Create a temporary folder inside of ``folder`` and remove it after the block.

    Parameters
    ----------
    folder
        The folder that holds it; created where missing.
    stem
        A word for its name.

    Yields
    ------
    Path
        The temporary folder. What is to be kept is moved out of it by :func:`publish`, which
        is one rename because both are on one file system.

    Raises
    ------
    CatalogprocError
        The folder cannot be written.
    """
    scratch = temporary_path(folder / stem)
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise write_error(error, folder) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish(temporary: Path, path: Path, *, overwrite: bool = False) -> Path:
    """Flush a finished file or folder to the disk and rename it.

    Parameters
    ----------
    temporary
        The file or folder, on the same file system.
    path
        Its final name. Missing folders above it are created.
    overwrite
        Whether a folder of that name that is not empty may be replaced. A file is always
        replaced.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OSError
        The name is taken, or cannot be written.
    """
    if temporary.is_dir():
        for inside in temporary.rglob("*"):
            sync(inside)
    sync(temporary)
    _make_folder(path.parent)
    if overwrite and temporary.is_dir() and path.is_dir():
        old = temporary_path(path)
        os.replace(path, old)
        try:
            _rename(temporary, path)
        except OSError:
            os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        _rename(temporary, path)
    return path


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk.

    Some network file systems cannot do so for folders; that is ignored.

    Parameters
    ----------
    path
        The file or folder.

    Raises
    ------
    OSError
        The operating system could not write.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDERS_NOT_SYNCED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def as_json(content: object) -> bytes:
    """Return JSON as this project writes it.

    Parameters
    ----------
    content
        Tables, lists and values; others are written as their text.

    Returns
    -------
    bytes
        Sorted, indented, UTF-8, with finite numbers and without credentials.
    """
    text = json.dumps(
        content, indent=2, sort_keys=True, ensure_ascii=False, default=str, allow_nan=False
    )
    return f"{masked(text)}\n".encode()


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sync(folder.parent)


def _rename(temporary: Path, path: Path, *, overwrite: bool = True) -> None:
    """Rename to the final name, and flush the folder's list of names to the disk."""
    if overwrite:
        os.replace(temporary, path)
    else:
        _rename_to_new(temporary, path)
    sync(path.parent)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename a file unless the name is taken, also by a process that was faster."""
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
        advice="give another name, or allow it to be overwritten",
    )
