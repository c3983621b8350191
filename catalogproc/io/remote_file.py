"""Files at addresses, read where they lie: by ranges of bytes, never copied whole.

A :class:`RemoteFile` has what readers use of a path: name, size, ``open``. Its bytes come by
requests for ranges (range_reader.py).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from catalogproc.errors import InputError, masked
from catalogproc.io.hashes import sha256
from catalogproc.io.range_reader import END, Heard, RangeReader, Recent
from catalogproc.io.remote import Address, Entry
from catalogproc.io.stores import StoredObject

_KEPT_OBJECTS = 4096


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address.

    Parameters
    ----------
    address
        The address that the user named; credentials and options come with it.
    path
        The file's path in that file system.
    size
        Bytes.
    version
        What the store says of the version: its ETag, or the time of the last change.
    heard
        Is told of the content as it is read, in order (see :meth:`hearing`).
    """

    address: Address
    path: str
    size: int
    version: str
    changed: int = 0
    heard: Heard | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, address: Address, entry: Entry) -> RemoteFile:
        """Return a file of an address, as it is now.

        Parameters
        ----------
        address, entry
            The address and one of its files.

        Raises
        ------
        CatalogprocError
            It cannot be opened.
        """
        found = address.open(entry.path)
        changed = found.changed or entry.changed
        file = cls(address, entry.path, found.size, found.version, changed)
        _OBJECTS.put(file, found)
        return file

    def __str__(self) -> str:
        return self.address.name_of(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFile, (self.address, self.path, self.size, self.version, self.changed)

    @property
    def name(self) -> str:
        """The last step of the path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> PurePosixPath:
        """The folder, as it is named."""
        return PurePosixPath(str(self)).parent

    def as_posix(self) -> str:
        """Return the address of the file."""
        return str(self)

    def absolute(self) -> RemoteFile:
        """Return the file: an address is absolute."""
        return self

    def exists(self) -> bool:
        """Return True: the file was there when it was listed."""
        return True

    is_file = exists

    def is_dir(self) -> bool:
        """Return False."""
        return False

    def stat(self) -> os.stat_result:
        """Return size and time of change as they were when the file was listed."""
        return os.stat_result((0, 0, 0, 0, 0, 0, self.size, 0, self.changed // 10**9, 0))

    def beside(self, name: str) -> RemoteFile | None:
        """Return the file of another name in the same folder, None where there is none.

        Parameters
        ----------
        name
            The other name.
        """
        path = str(PurePosixPath(self.path).with_name(name))
        entry = self.address.entry(path)
        return None if entry is None else RemoteFile.of(self.address, entry)

    @property
    def fingerprint(self) -> str:
        """Hash (hex) of the size and the version.

        Where a store has no ETag, the path is hashed too: files that were copied together may have
        the same size and time of change.
        """
        place = f"\n{self}" if not self.version or self.version.startswith("changed ") else ""
        return sha256(f"{self.size}\n{self.version}{place}\n".encode())

    def now(self) -> RemoteFile:
        """Return the file as it is at this moment.

        Raises
        ------
        CatalogprocError
            It cannot be opened.
        """
        found = self.address.open(self.path)
        current = replace(self, size=found.size, version=found.version)
        _OBJECTS.put(current, found)
        return current

    def hearing(self, heard: Heard) -> RemoteFile:
        """Return the same file, which tells of its content as it is read.

        Parameters
        ----------
        heard
            Is called in the order of the file: with all bytes of a file that is read as a stream,
            with the planned windows of one that is read by ranges.
        """
        return replace(self, heard=heard)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file to read a part of it, such as its head; nobody is told of the bytes.

        Parameters
        ----------
        mode
            ``rb``.
        """
        return cast(BinaryIO, io.BufferedReader(RangeReader(self, sequential=True), END))

    def searched(self) -> RangeReader:
        """Open the file to read ranges that are stated before (:meth:`RangeReader.expect`)."""
        return RangeReader(self, self.heard)

    def stream(self) -> BinaryIO:
        """Open the file to read its content from begin to end."""
        return cast(
            BinaryIO, io.BufferedReader(RangeReader(self, self.heard, sequential=True), END)
        )

    def read(self, begin: int, end: int) -> bytes:
        """Return a range of bytes, by one request; it is tried three times.

        Parameters
        ----------
        begin, end
            The range.

        Raises
        ------
        InputError
            The file is gone or shorter than it was.
        TransientError
            The store does not answer.
        """

        def fetch() -> bytes:
            data = self._object().read(begin, end)
            if len(data) != end - begin:
                raise OSError(f"{len(data)} bytes of {end - begin} came")
            return data

        return self.address.tried(fetch, f"cannot be read: {masked(str(self))}")

    def _object(self) -> StoredObject:
        kept = _OBJECTS.get(self)
        if kept is not None:
            return kept
        found = self.address.open(self.path)
        if (found.size, found.version) != (self.size, self.version):
            raise InputError(
                "the file at an address was changed",
                wanted=f"{self.size:,} bytes, version {self.version or 'unknown'}",
                found=f"{found.size:,} bytes, version {found.version or 'unknown'}",
                where=str(self),
                advice="let nothing write to the input while a run reads it; start again with a "
                "new --output to use the file as it is now",
            )
        _OBJECTS.put(self, found)
        return found


_OBJECTS: Recent[RemoteFile, StoredObject] = Recent(_KEPT_OBJECTS)

File = Path | RemoteFile
"""An input file: a local one, or one at an address."""


def as_file(path: str | File) -> File:
    """Return a path as a file: text names a local one.

    Parameters
    ----------
    path
        A path, or a file at an address.
    """
    return Path(path) if isinstance(path, str) else path
