"""Read the bytes of a file in blocks, ahead in a thread, and decompress gzip."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.io.remote_file import File, RemoteFile

Bytes = NDArray[np.uint8]

# Large enough to make a block's overhead small, small enough to stay near the cache.
BLOCK = 8 << 20
# A row longer than this is no row of a table.
LONGEST_ROW = 64 << 20
# To start a thread takes longer than to read a file of this size.
_SMALL = 256 << 10
_GZIP = b"\x1f\x8b"
_NEWLINE = 10


def is_gzip(path: File) -> bool:
    """Return whether the content is gzip.

    Parameters
    ----------
    path
        The file. Its name does not decide: browsers decompress and leave the ending .gz.
    """
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def open_bytes(path: File, *, whole: bool = False) -> BinaryIO:
    """Open a file for reading, decompressed where its content is gzip.

    Parameters
    ----------
    path
        The file.
    whole
        Whether the content will be read, and not only looked at.
    """
    file = path.stream() if whole and isinstance(path, RemoteFile) else path.open("rb")
    compressed = file.read(2) == _GZIP
    file.seek(0)
    if not compressed:
        return file
    from isal import igzip

    # igzip reads all members of a file and checks each one's length and CRC. It closes only what it
    # has opened itself; a file at an address holds nothing open.
    if isinstance(path, Path):
        file.close()
        return cast(BinaryIO, igzip.open(path, "rb"))
    return cast(BinaryIO, igzip.open(file, "rb"))


def head(path: File, size: int = 4096) -> bytes:
    """Return the first bytes of the decompressed content.

    Parameters
    ----------
    path
        The file.
    size
        Largest number of bytes.
    """
    with open_bytes(path) as file:
        return file.read(size)


def blocks(path: File, size: int = BLOCK, room: int = 0) -> Iterator[Bytes]:
    """Yield the decompressed content in blocks.

    The next block is read and decompressed meanwhile, in a thread; a small file is read at once.

    Parameters
    ----------
    path
        The file.
    size
        Largest number of bytes of content in a block.
    room
        Number of unused bytes before the content of each block.

    Yields
    ------
    array of bytes
        Valid until the next one is requested.
    """
    if path.stat().st_size <= _SMALL:
        yield from _small_blocks(path, size, room)
        return
    buffers = [np.zeros(room + size, np.uint8) for _ in range(2)]
    with open_bytes(path, whole=True) as file, ThreadPoolExecutor(1, "catalogproc-read") as pool:

        def fill(buffer: Bytes) -> int:
            return cast(int, file.readinto(buffer[room:]))  # type: ignore[attr-defined]

        ahead = pool.submit(fill, buffers[0])
        while length := ahead.result():
            full = buffers[0]
            buffers.reverse()
            ahead = pool.submit(fill, buffers[0])
            yield full[: room + length]


def _small_blocks(path: File, size: int, room: int) -> Iterator[Bytes]:
    """Yield the content of a small file, which may be large when decompressed, in blocks."""
    with open_bytes(path, whole=True) as file:
        while content := file.read(size):
            block = np.empty(room + len(content), np.uint8)
            block[room:] = np.frombuffer(content, np.uint8)
            yield block


def lines(path: File, start: int = 0) -> Iterator[tuple[Bytes, bool]]:
    """Yield complete lines as blocks that end in a newline.

    Parameters
    ----------
    path
        The file.
    start
        First byte of the decompressed content.

    Yields
    ------
    (array of bytes, bool)
        A block, valid until the next one is requested, and whether the file itself ends its last
        line; where it does not, a newline is added.

    Raises
    ------
    InputError
        A line is longer than 64 MiB.
    """
    room = 1 << 20
    skip, rest = start, np.empty(0, np.uint8)
    for block in blocks(path, BLOCK, room):
        begin = room + min(skip, len(block) - room)
        skip -= begin - room
        newline = _last_newline(block, begin)
        if newline < begin:
            rest = np.concatenate([rest, block[begin:]])
            if len(rest) > LONGEST_ROW:
                raise InputError(
                    "a line is too long",
                    wanted=f"lines of at most {LONGEST_ROW >> 20} MiB",
                    found="a longer one",
                    where=path,
                )
            continue
        if len(rest) <= begin:
            # What was left over goes right in front, which spares copying the block.
            block[begin - len(rest) : begin] = rest
            yield block[begin - len(rest) : newline + 1], True
        else:
            yield np.concatenate([rest, block[begin : newline + 1]]), True
        rest = block[newline + 1 :].copy()
    if len(rest):
        yield np.append(rest, np.uint8(_NEWLINE)), False


def _last_newline(block: Bytes, begin: int) -> int:
    """Position of the last newline at or after ``begin``; less than ``begin`` where none is."""
    step = 1 << 16
    for high in range(len(block), begin, -step):
        low = max(high - step, begin)
        found = np.flatnonzero(block[low:high] == _NEWLINE)
        if len(found):
            return low + int(found[-1])
    return begin - 1
