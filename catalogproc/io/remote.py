"""Object storage and other distant file systems: what lies there is staged on a disk here.

Readers know files alone, and so do writers. What has an address (``s3://bucket/xp/*.parquet``) is
fetched whole before it is read, into a folder that $CATALOGPROC_STAGE names. Arrow speaks s3, gs,
abfs and hdfs; ``fsspec+NAME://`` is any file system of fsspec, where that is installed.
Credentials, regions and endpoints are found where these look for them: in the environment
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and their like) and in their own files, never in an address.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from catalogproc.errors import CatalogprocError, InputError, Refusal, masked
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.output import existing_parent

STAGE = "CATALOGPROC_STAGE"
THREADS = 8
TRIES = 3
PAUSE = 1.0
"""Seconds before the second try, twice as many before the third."""
_BLOCK = 8 << 20
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# A file there appears whole or not at all; elsewhere it is written under another name first.
_WHOLE = {"s3", "gcs", "abfs"}
_T = TypeVar("_T")


def is_address(word: str | Path) -> bool:
    """Whether a word names something in a distant file system: ``scheme://…``."""
    return isinstance(word, str) and _ADDRESS.match(word) is not None


def stage() -> Path:
    """Where distant files are staged: $CATALOGPROC_STAGE, or a folder among the user's caches.

    On a cluster of several hosts it must be on storage that they share.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(STAGE) or f"{caches}/catalogproc").expanduser()


def named(path: Path) -> str:
    """A file as the user named it: by its address where it was staged."""
    if not path.is_relative_to(stage()):
        return str(path)
    scheme, *rest = path.relative_to(stage()).parts
    return f"{scheme}://{'/'.join(rest)}"


def local(name: str | Path) -> Path:
    """Where the file of a name lies here: it is staged first where the name is an address.

    Raises CatalogprocError where an address cannot be read, or no file lies there.
    """
    if not is_address(name):
        return Path(name).expanduser()
    address = Address(str(name))
    found = address.files()
    if len(found) != 1:
        raise InputError("no such file at an address", found=f"{len(found)} files", where=name)
    return address.fetch(found)[0]


@dataclass(frozen=True)
class Entry:
    """A file at an address: its path in its file system, its bytes, when it was changed (ns)."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Address:
    """A place in a distant file system, a file or a folder, and what can be done there.

    Every method raises CatalogprocError, in the user's words, where the other side refuses.
    """

    text: str

    def __post_init__(self) -> None:
        if masked(self.text) != self.text:
            raise Refusal(
                "an address with credentials in it",
                wanted="an address alone",
                found=masked(self.text),
                advice="give them by the environment or the vendor's own file: an address is "
                "written down with the catalog",
            )
        _refuse_leaving(self.text, self.text)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        scheme, _, rest = self.text.partition("://")
        path, mark, options = rest.partition("?")
        # Arrow takes addresses as the standard writes them, fsspec as they stand.
        plain = path if scheme.startswith("fsspec+") else quote(path)
        try:
            files, path = fs.FileSystem.from_uri(f"{scheme}://{plain}{mark}{options}")
        except OSError as error:
            raise _refused(self.text, "cannot be reached", error) from error
        except (pa.ArrowException, ImportError, ValueError) as error:
            raise Refusal(
                "an address of no file system that can be used",
                wanted="s3://, gs://, abfs://, hdfs://, or fsspec+NAME:// with fsspec installed",
                found=error,
                where=self.text,
            ) from None
        return files, path.rstrip("/")

    @property
    def path(self) -> str:
        """The path in its file system; of s3 it begins with the bucket."""
        return self._place[1]

    @property
    def folder(self) -> Path:
        """Where it is staged."""
        return self._staged(self.path)

    def files(self) -> list[Entry]:
        """The files that it stands for: itself, those in it and below, or those of a pattern."""
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

        held, skip = self._try(listed, "cannot be listed"), len(_parts(base))
        fits = [one for one in held if not pattern or _fits(_parts(one.path)[skip:], pattern)]
        return sorted((_entry(one) for one in fits), key=lambda entry: entry.path)

    def fetch(self, entries: Sequence[Entry]) -> list[Path]:
        """Stage files, those that are here already left out; where they are, in order.

        A file is here when a file of its size and its time of change is. It appears whole.
        """
        paths = [self._staged(entry.path) for entry in entries]
        missing = [
            (entry, path) for entry, path in zip(entries, paths, strict=True)
            if not in_step(path, entry)
        ]  # fmt: skip
        _refuse_room(self.text, sum(entry.size for entry, _ in missing))
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda one: self._fetch(*one), missing):
                pass
        return paths

    def put(self, file: Path, name: str) -> Entry:
        """Copy a file to a name below this address, and see that all of it came there.

        The file is given the time that its copy has there, so that :func:`in_step` holds.
        """
        files, target = self._place[0], f"{self.path}/{name}"
        written = target if files.type_name in _WHOLE else f"{target}.{secrets.token_hex(4)}.tmp"

        def copy() -> Entry:
            if files.type_name not in _WHOLE:
                files.create_dir(str(PurePosixPath(target).parent), recursive=True)
            with file.open("rb") as source, files.open_output_stream(written) as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            if written != target:
                files.move(written, target)
            came = _entry(files.get_file_info(target))
            if came.size != file.stat().st_size:
                raise OSError(f"{came.size} bytes came there of {file.stat().st_size}")
            os.utime(file, ns=(came.changed, came.changed))
            return came

        return self._try(copy, f"cannot be written: {name}")

    def read(self, name: str) -> tuple[bytes, Entry] | None:
        """A small file below this address, and what is known of it; None where there is none."""
        files, path = self._place[0], f"{self.path}/{name}"

        def look() -> tuple[bytes, Entry] | None:
            found = files.get_file_info(path)
            if not found.is_file:
                return None
            with files.open_input_stream(path) as source:
                return bytes(source.read()), _entry(found)

        return self._try(look, f"cannot be read: {name}")

    def write(self, name: str, data: bytes) -> Entry:
        """Write a small file below this address."""
        files, path = self._place[0], f"{self.path}/{name}"

        def put() -> Entry:
            if files.type_name not in _WHOLE:
                files.create_dir(self.path, recursive=True)
            with files.open_output_stream(path) as sink:
                sink.write(data)
            return _entry(files.get_file_info(path))

        return self._try(put, f"cannot be written: {name}")

    def remove(self, name: str) -> None:
        """Remove a file below this address."""
        files, path = self._place[0], f"{self.path}/{name}"
        self._try(lambda: files.delete_file(path), f"cannot be removed: {name}")

    def _fetch(self, entry: Entry, path: Path) -> None:
        def copy() -> None:
            with (
                self._place[0].open_input_stream(entry.path) as source,
                AtomicFile(path, modified=entry.changed) as file,
            ):
                shutil.copyfileobj(source, file, _BLOCK)
                if file.bytes != entry.size:
                    raise OSError(f"{file.bytes} bytes came of {entry.size}")

        self._try(copy, f"cannot be fetched: {entry.path}")

    def _try(self, do: Callable[[], _T], words: str) -> _T:
        """Do it, three times where need be: a network's faults pass."""
        for number in range(TRIES):
            try:
                return do()
            except OSError as error:
                if number == TRIES - 1:
                    raise _refused(self.text, words, error) from error
                time.sleep(PAUSE * 2**number)
        raise AssertionError

    def _staged(self, path: str) -> Path:
        scheme = self.text.split("://")[0].lower()
        _refuse_leaving(path, self.text)
        return stage().joinpath(scheme, *_parts(path))


def in_step(path: Path, entry: Entry) -> bool:
    """Whether a file here is the one there: by its size and its time of change."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.changed)


def _refused(where: str, words: str, error: OSError) -> CatalogprocError:
    return CatalogprocError(
        f"an address {words}",
        found=masked(str(error)),
        where=where,
        advice="see to the address, the credentials in the environment and the network, then give "
        "the same command again",
    )


def _refuse_leaving(path: str, where: str) -> None:
    """Names there are free: one with steps that lead elsewhere on a disk is not followed."""
    if {".", ".."} & set(_parts(path)):
        raise Refusal("a path that leaves its folder", found=path, where=where)


def _refuse_room(where: str, needed: int) -> None:
    place = existing_parent(stage())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise Refusal(
            "too little room to stage what lies at an address",
            wanted=f"{needed / 1e9:.1f} GB",
            found=f"{free / 1e9:.1f} GB free at {place}",
            where=where,
            advice=f"make room, name a folder on a larger disk in ${STAGE}, or take fewer files at "
            "a time",
        )


def _entry(found: fs.FileInfo) -> Entry:
    return Entry(found.path, found.size or 0, found.mtime_ns or 0)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*[")


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the steps of a path fit those of a pattern, in which ** is any number of steps."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    hidden = bool(names) and names[0].startswith(".")
    here = bool(names) and not hidden and fnmatchcase(names[0], pattern[0])
    return here and _fits(names[1:], pattern[1:])
