"""Object storage and other remote file systems.

Arrow has s3, gs, abfs and hdfs; ``fsspec+NAME://`` is any file system of fsspec; files of web
servers are ``https://``. Credentials, regions and endpoints come from where these libraries look
for them: the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and others) and their own files,
never from an address.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from catalogproc.errors import CatalogprocError, InputError, Refusal, TransientError, masked
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.path_patterns import fits, is_pattern
from catalogproc.io.path_patterns import steps as path_steps
from catalogproc.io.stores import ArrowObject, HttpObject, StoredObject

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

    def __reduce__(self) -> tuple[Any, ...]:
        return Address, (self.text,)  # a file system of Arrow would take its keys along

    @property
    def is_web(self) -> bool:
        """Whether it is of a web server, which lists no files and takes none."""
        return self.text.lower().startswith(("http://", "https://"))

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        scheme, _, rest = self.text.partition("://")
        if self.is_web:
            raise Refusal(
                "a web server takes no files", wanted="s3://, gs://, abfs:// or hdfs://",
                where=self.text,
            )  # fmt: skip
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
                wanted="s3://, gs://, abfs://, hdfs://, https://, or fsspec+NAME://",
                found=error,
                where=self.text,
            ) from None
        return files, path.rstrip("/")

    @property
    def path(self) -> str:
        """The path in its file system; it begins with the bucket, or the web server."""
        if self.is_web:
            return self.text.partition("://")[2].rstrip("/")
        return self._place[1]

    def name_of(self, path: str) -> str:
        """Return the address of a path in its file system.

        Parameters
        ----------
        path
            The path.
        """
        return f"{self.text.partition('://')[0].lower()}://{path}"

    def open(self, path: str) -> StoredObject:
        """Open a file to read ranges of it.

        Parameters
        ----------
        path
            Its path in the file system.

        Raises
        ------
        InputError
            There is no such file.
        TransientError
            The store does not answer.
        """

        def look() -> StoredObject:
            if self.is_web:
                return HttpObject.open(self.name_of(path))
            return ArrowObject.open(self._place[0], path)

        return self.tried(look, f"cannot be opened: {path}")

    def entry(self, path: str) -> Entry | None:
        """Return a file of the file system, None where there is none.

        Parameters
        ----------
        path
            Its path.
        """

        def look() -> Entry | None:
            if self.is_web:
                try:
                    found = HttpObject.open(self.name_of(path))
                except FileNotFoundError:
                    return None
                return Entry(path, found.size, found.changed)
            info = self._place[0].get_file_info(path)
            return _entry(info) if info.is_file else None

        return self.tried(look, f"cannot be looked up: {path}")

    def files(self) -> list[Entry]:
        """Return the files of the address: itself, those in and below it, or of a pattern.

        A web server lists no files: there it is the file of the address, or none.
        """
        if self.is_web:
            if any(map(is_pattern, PurePosixPath(self.path).parts)):
                raise Refusal(
                    "a web server lists no files", wanted="the addresses of single files",
                    found="a pattern", where=self.text,
                )  # fmt: skip
            one = self.entry(self.path)
            return [] if one is None else [one]
        files, names = self._place[0], PurePosixPath(self.path).parts
        fixed = next((i for i, name in enumerate(names) if is_pattern(name)), len(names))
        base, pattern = str(PurePosixPath(*names[:fixed])), names[fixed:]
        deep = len(pattern) != 1 or "**" in pattern
        selector = fs.FileSelector(base, allow_not_found=True, recursive=deep)

        def listed() -> list[fs.FileInfo]:
            found = files.get_file_info(base)
            if found.is_file:
                return [] if pattern else [found]
            return [one for one in files.get_file_info(selector) if one.is_file]

        found, skip = self.tried(listed, "cannot be listed"), len(path_steps(base))
        chosen = [one for one in found if not pattern or fits(path_steps(one.path)[skip:], pattern)]
        return sorted((_entry(one) for one in chosen), key=lambda entry: entry.path)

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
                self._place[0].open_input_stream(entry.path, compression=None) as source,
                AtomicFile(path, modified=entry.changed) as file,
            ):
                shutil.copyfileobj(source, file, _BLOCK)
                if file.bytes != entry.size:
                    raise OSError(f"{file.bytes} bytes of {entry.size} were fetched")

        self.tried(copy, f"cannot be fetched: {entry.path}")

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
            with (
                file.open("rb") as source,
                files.open_output_stream(written, compression=None) as sink,
            ):
                shutil.copyfileobj(source, sink, _BLOCK)
            if written != target:
                files.move(written, target)
            uploaded = _entry(files.get_file_info(target))
            if uploaded.size != file.stat().st_size:
                raise OSError(f"{uploaded.size} bytes of {file.stat().st_size} were uploaded")
            os.utime(file, ns=(uploaded.changed, uploaded.changed))
            return uploaded

        return self.tried(copy, f"cannot be written: {name}")

    def read(self, name: str) -> tuple[bytes, Entry] | None:
        """Return a small file's content and its entry, None if it does not exist.

        Parameters
        ----------
        name
            Its name below this address.
        """
        path = f"{self.path}/{name}"
        found = self.entry(path)
        if found is None:
            return None

        def look() -> tuple[bytes, Entry] | None:
            try:
                held = self.open(path)
            except InputError:
                return None  # removed meanwhile
            return held.read(0, held.size) if held.size else b"", found

        return self.tried(look, f"cannot be read: {name}")

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

        return self.tried(put, f"cannot be written: {name}")

    def remove(self, name: str) -> None:
        """Remove a file.

        Parameters
        ----------
        name
            Its name below this address.
        """
        files, path = self._place[0], f"{self.path}/{name}"
        self.tried(lambda: files.delete_file(path), f"cannot be removed: {name}")

    def tried(self, do: Callable[[], _T], words: str) -> _T:
        """Return the result of a call; it is tried three times, since network faults may pass.

        Parameters
        ----------
        do, words
            What is called; what cannot be done if it fails.

        Raises
        ------
        InputError
            There is no such file.
        TransientError
            The remote side refuses.
        """
        for number in range(TRIES):
            try:
                return do()
            except FileNotFoundError as error:
                raise InputError(
                    f"an address {words}", found=masked(str(error)), where=self.text
                ) from error
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
        return self.text.split("://")[0].lower(), *path_steps(path)


def _refused(where: str, words: str, error: OSError) -> CatalogprocError:
    return TransientError(
        f"an address {words}",
        found=masked(str(error)),
        where=where,
        advice="check the address, the credentials in the environment and the network, then run "
        "the same command again",
    )


def _refuse_leaving(path: str, where: str) -> None:
    """Refuse a path with steps that would lead out of a folder."""
    if {".", ".."} & set(path_steps(path)):
        raise Refusal("a path that leaves its folder", found=path, where=where)


def _entry(found: fs.FileInfo) -> Entry:
    return Entry(found.path, found.size or 0, found.mtime_ns or 0)
