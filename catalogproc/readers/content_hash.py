"""SHA-256 of what a chunk reads: of local files afterwards, of those at addresses as it streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalogproc.errors import InputError
from catalogproc.io.hashes import BLOCK, file_blocks
from catalogproc.io.remote_file import RemoteFile
from catalogproc.readers.formats.parquet import byte_range, footer_bytes

if TYPE_CHECKING:
    from catalogproc.readers.pieces import Piece


class ContentHash:
    """The hash of the bytes of pieces, one after the other.

    Of a local file that is all of it, or of Parquet the piece's row groups and the footer. Of a
    file at an address it is the same, but of Parquet the columns that are read: the others are
    not fetched. Local files are hashed in a thread, while their stars are predicted.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._heard = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashed: list[tuple[Piece, Future[None]]] = []

    def hearing(self, piece: Piece) -> Piece:
        """Return a piece whose file, if it is at an address, is hashed while it is read.

        Parameters
        ----------
        piece
            The next piece.
        """
        self._heard = 0
        if isinstance(piece.file, RemoteFile):
            self.wait()  # the pieces are hashed in their order
            return replace(piece, file=piece.file.hearing(self._hear))
        return piece

    def finish(self, piece: Piece) -> None:
        """Hash what is left of a piece that was read; of a local one in a thread.

        Parameters
        ----------
        piece
            The piece.

        Raises
        ------
        InputError
            The file cannot be read; of a local one :meth:`hexdigest` raises it.
        """
        self._hashed.append((piece, self._thread.submit(self._update, piece, self._heard)))
        if isinstance(piece.file, RemoteFile):
            self.wait()

    def hexdigest(self) -> str:
        """Return the hash of all pieces, as 64 hexadecimal digits, when it is ready.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        self.wait()
        self._thread.shutdown()
        return self._sha.hexdigest()

    def _update(self, piece: Piece, heard: int) -> None:
        for block in _blocks(piece, heard):
            self._sha.update(block)

    def wait(self) -> None:
        """Wait for the pieces that are being hashed.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        while self._hashed:
            piece, hashed = self._hashed.pop(0)
            try:
                hashed.result()
            except OSError as error:
                raise InputError(
                    "the file cannot be read", found=error, where=piece.file
                ) from error

    def _hear(self, place: int, data: bytes) -> None:
        new = memoryview(data)[max(self._heard - place, 0) :]  # the begin may be read twice
        self._sha.update(new)
        self._heard = max(self._heard, place + len(data))


def _blocks(piece: Piece, heard: int) -> Iterator[bytes]:
    """Yield what is to be hashed: all of a local piece, of one at an address what is left."""
    file, groups = piece.file, piece.row_groups
    if isinstance(file, Path):
        spans = None if groups is None else byte_range(file, *groups)
        yield from file_blocks(file, spans)
        return
    if groups is not None:
        yield footer_bytes(file)
        return
    for place in range(heard, file.size, BLOCK):
        yield file.read(place, min(place + BLOCK, file.size))
