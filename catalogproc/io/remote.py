"""Object storage and other remote file systems.

Arrow has s3, gs, abfs and hdfs; ``fsspec+NAME://`` is any file system of fsspec. Credentials,
regions and endpoints come from where these libraries look for them: the environment
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and others) and their own files, never from an address.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from catalogproc.errors import CatalogprocError, Refusal, masked
from catalogproc.io.atomic import AtomicFile

TRIES = 3
PAUSE = 1.0
"""Seconds before the second try; before the third, twice as many."""
_BLOCK = 8 << 20
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Their writes are atomic; elsewhere a file is written under another name first.
_ATOMIC = {"s3", "gcs", "abfs"}
_T = TypeVar("_T")


def is_address(word: str | Path) -> bool:
    """Return whether a text is the address of a remote file system: ``scheme://…``.

    Parameters
    ----------
    word
        A text or a path; paths are local.
    """
    return isinstance(word, str) and _ADDRESS.match(word) is not None


@dataclass(frozen=True)
class Entry:
    """A file at an address.

    Attributes
    ----------
    path
        In its file system.
    size
        Number of bytes.
    changed
        Time of its last change, in ns since 1970.
    """

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Address:
    """A file or folder in a remote file system.

    Every method raises CatalogprocError if the remote side refuses.

    Parameters
    ----------
    text
        The address, without credentials.
    """

    text: str

    def __post_init__(self) -> None:
        if masked(self.text) != self.text:
            raise Refusal(
                "an address contains credentials",
                wanted="an address without them",
                found=masked(self.text),
                advice="give them in the environment or in the provider's own file: an address is "
                "stored with the catalog",
            )
        _refuse_leaving(self.text, self.text)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        scheme, _, rest = self.text.partition("://")
        path, mark, options = rest.partition("?")
        # Arrow takes quoted addresses, fsspec plain ones.
        plain = path if scheme.startswith("fsspec+") else quote(path)
        try:
            files, path = fs.FileSystem.from_uri(f"{scheme}://{plain}{mark}{options}")
        except OSError as error:
            raise _refused(self.text, "cannot be reached", error) from error
        except (pa.ArrowException, ImportError, ValueError) as error:
            raise Refusal(
                "the address is not of a supported file system",
                wanted="s3://, gs://, abfs://, hdfs://, or fsspec+NAME:// with fsspec installed",
                found=error,
                where=self.text,
            ) from None
        return files, path.rstrip("/")

    @property
    def path(self) -> str:
        """The path in its file system; for s3 it begins with the bucket."""
        return self._place[1]

    def files(self) -> list[Entry]:
        """Return the files of the address: itself, those in and below it, or of a pattern."""
        files, names = self._place[0], PurePosixPath(self.path).parts
        fixed = next((i for i, name in enumerate(names) if _is_pattern(name)), len(names))
        base, pattern = str(PurePosixPath(*names[:fixed])), names[fixed:]
        deep = len(pattern) != 1 or "**" in pattern
        chosen = fs.FileSelector(base, allow_not_found=True, recursive=deep)

        def listed() -> list[fs.FileInfo]:
            found = files.get_file_info(base)
            if found.is_file:
                return [] if pattern else [found]
            return [one for one in files.get_file_info(chosen) if one.is_file]

        found, skip = self._try(listed, "cannot be listed"), len(_parts(base))
        fits = [one for one in found if not pattern or _fits(_parts(one.path)[skip:], pattern)]
        return sorted((_entry(one) for one in fits), key=lambda entry: entry.path)

    def download(self, entry: Entry, path: Path) -> None:
        """Copy a file to a local disk, with its time of change, and check the number of bytes.

        Parameters
        ----------
        entry
            The remote file.
        path
            The local file; it appears when it is complete.
        """

        def copy() -> None:
            with (
                self._place[0].open_input_stream(entry.path) as source,
                AtomicFile(path, modified=entry.changed) as file,
            ):
                shutil.copyfileobj(source, file, _BLOCK)
                if file.bytes != entry.size:
                    raise OSError(f"{file.bytes} bytes of {entry.size} were fetched")

        self._try(copy, f"cannot be fetched: {entry.path}")

    def put(self, file: Path, name: str) -> Entry:
        """Upload a file, and check the number of bytes.

        The local file is given the time of change of the remote one, so that it is not
        fetched again.

        Parameters
        ----------
        file
            The local file.
        name
            Its name below this address.

        Returns
        -------
        Entry
            The remote file.
        """
        files, target = self._place[0], f"{self.path}/{name}"
        # Not io.atomic's write: it renames on a local disk.
        written = target if files.type_name in _ATOMIC else f"{target}.{secrets.token_hex(4)}.tmp"

        def copy() -> Entry:
            if files.type_name not in _ATOMIC:
                files.create_dir(str(PurePosixPath(target).parent), recursive=True)
            with file.open("rb") as source, files.open_output_stream(written) as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            if written != target:
                files.move(written, target)
            uploaded = _entry(files.get_file_info(target))
            if uploaded.size != file.stat().st_size:
                raise OSError(f"{uploaded.size} bytes of {file.stat().st_size} were uploaded")
            os.utime(file, ns=(uploaded.changed, uploaded.changed))
            return uploaded

        return self._try(copy, f"cannot be written: {name}")

    def read(self, name: str) -> tuple[bytes, Entry] | None:
        """Return a small file's content and its entry, None if it does not exist.

        Parameters
        ----------
        name
            Its name below this address.
        """
        files, path = self._place[0], f"{self.path}/{name}"

        def look() -> tuple[bytes, Entry] | None:
            found = files.get_file_info(path)
            if not found.is_file:
                return None
            with files.open_input_stream(path) as source:
                return bytes(source.read()), _entry(found)

        return self._try(look, f"cannot be read: {name}")

    def write(self, name: str, data: bytes) -> Entry:
        """Write a small file.

        Parameters
        ----------
        name
            Its name below this address.
        data
            Its content.
        """
        files, path = self._place[0], f"{self.path}/{name}"

        def put() -> Entry:
            if files.type_name not in _ATOMIC:
                files.create_dir(self.path, recursive=True)
            with files.open_output_stream(path) as sink:
                sink.write(data)
            return _entry(files.get_file_info(path))

        return self._try(put, f"cannot be written: {name}")

    def remove(self, name: str) -> None:
        """Remove a file.

        Parameters
        ----------
        name
            Its name below this address.
        """
        files, path = self._place[0], f"{self.path}/{name}"
        self._try(lambda: files.delete_file(path), f"cannot be removed: {name}")

    def _try(self, do: Callable[[], _T], words: str) -> _T:
        """Return the result of a call; it is tried three times, since network faults may pass."""
        for number in range(TRIES):
            try:
                return do()
            except OSError as error:
                if number == TRIES - 1:
                    raise _refused(self.text, words, error) from error
                time.sleep(PAUSE * 2**number)
        raise AssertionError

    def steps(self, path: str) -> tuple[str, ...]:
        """Return the scheme, in small letters, and the steps of a path in the file system.

        Parameters
        ----------
        path
            The path.

        Raises
        ------
        Refusal
            The path has steps that lead out of a folder.
        """
        _refuse_leaving(path, self.text)
        return self.text.split("://")[0].lower(), *_parts(path)


def _refused(where: str, words: str, error: OSError) -> CatalogprocError:
    return CatalogprocError(
        f"an address {words}",
        found=masked(str(error)),
        where=where,
        advice="check the address, the credentials in the environment and the network, then run "
        "the same command again",
    )


def _refuse_leaving(path: str, where: str) -> None:
    """Refuse a path with steps that would lead out of a folder."""
    if {".", ".."} & set(_parts(path)):
        raise Refusal("a path that leaves its folder", found=path, where=where)


def _entry(found: fs.FileInfo) -> Entry:
    return Entry(found.path, found.size or 0, found.mtime_ns or 0)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*[")


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether path steps match a pattern's; ** matches any number of steps."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    hidden = bool(names) and names[0].startswith(".")
    here = bool(names) and not hidden and fnmatchcase(names[0], pattern[0])
    return here and _fits(names[1:], pattern[1:])
