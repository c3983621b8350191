"""Bytes of a remote file by ranges, as Python's binary files have them.

Large ranges are fetched in parts at the same time. Where it is known what will be read (row groups
of Parquet), the next range is fetched while the last one is worked on.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

END = 64 << 10
"""Bytes of the begin of a file that are read at once, and kept for a while; of the end at most."""
_LEAST_END, _END_SHARE = 4 << 10, 64
PART = 4 << 20
"""Largest number of bytes of one request."""
GAP = 16 << 10
"""Bytes between two wanted ranges that are read with them rather than by one more request."""
THREADS = 4
"""Requests of one reader at the same time."""
AHEAD = 128 << 20
"""A window larger than this is not fetched before it is wanted: it bounds the memory."""
_KEPT_ENDS = 64

Span = tuple[int, int]
"""Begin and end of some bytes."""
Heard = Callable[[int, bytes], None]
"""Called with the place of the first byte, and the bytes."""


class Ranged(Hashable, Protocol):
    """A file whose bytes can be read by ranges; equal ones have the same content."""

    @property
    def size(self) -> int: ...

    def read(self, begin: int, end: int) -> bytes:
        """Return a range of bytes."""
        ...


Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The values that were used last, up to a number of them; threads may share it.

    Parameters
    ----------
    limit
        How many values are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return a value, None where it is not kept."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value."""
        with self._lock:
            self._held[key] = value
            while len(self._held) > self._limit:
                self._held.popitem(last=False)


_ENDS: Recent[tuple[Ranged, int], bytes] = Recent(_KEPT_ENDS)


class RangeReader(io.RawIOBase):
    """A file at an address as Python's binary files are; it can be searched.

    Parameters
    ----------
    file
        The file.
    heard
        Is told of the content as it is read, in the order of the file: of all bytes of a stream,
        else of the windows (:meth:`expect`).
    sequential
        Whether it is read from begin to end; else its end is read first, as of Parquet.
    """

    def __init__(
        self, file: Ranged, heard: Heard | None = None, *, sequential: bool = False
    ) -> None:
        self._sequential = sequential
        self._file = file
        self._heard = heard
        self._at = 0
        self._windows: list[list[Span]] = []
        self._coming: dict[int, list[tuple[int, Future[bytes]]]] = {}
        self._window = -1
        self._held: list[tuple[int, bytes]] = []  # of the window
        self._block: tuple[int, bytes] = (0, b"")  # of the stream
        self._step = END

    def expect(self, windows: Iterable[Sequence[Span]]) -> None:
        """State what will be read: windows in their order, each of some ranges of bytes.

        Parameters
        ----------
        windows
            The ranges of each window, by their begin. While one is used the next one is fetched;
            one that was used is forgotten.
        """
        self._windows = [_joined(spans) for spans in windows]

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; as of Python's files."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes; return their number."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._at < self._file.size:
            place, data = self._around(self._at, self._at + len(view) - filled)
            skip = self._at - place
            count = min(len(view) - filled, len(data) - skip)
            view[filled : filled + count] = memoryview(data)[skip : skip + count]
            filled += count
            self._at += count
        return filled

    def read(self, size: int | None = -1) -> bytes:
        """Return bytes: as many as are asked for, unless the file ends."""
        left = max(self._file.size - self._at, 0)
        buffer = bytearray(left if size is None or size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def close(self) -> None:
        """End the requests that nobody waits for any more."""
        for parts in self._coming.values():
            for _, part in parts:
                part.cancel()
        self._coming.clear()
        self._held, self._block = [], (0, b"")
        super().close()

    def _around(self, begin: int, end: int) -> tuple[int, bytes]:
        """Return some bytes that include the first one, with their place."""
        size = self._file.size
        if self._within(begin):
            return next(held for held in self._held if held[0] <= begin < held[0] + len(held[1]))
        if begin >= _end_begin(size) and not self._sequential:
            return _end_begin(size), _end_of(self._file, _end_begin(size))
        if begin < min(END, size):
            data = _end_of(self._file, 0)
            if self._sequential:
                self._hear(0, data)
            return 0, data
        place, data = self._block
        if not place <= begin < place + len(data):
            # A stream is read in larger and larger blocks; what is looked up here and there is not.
            follows = begin in (END, place + len(data))
            self._step = min(self._step * 4, THREADS * PART) if follows else END
            until = min(max(begin + self._step, min(end, begin + THREADS * PART)), size)
            self._block = begin, b"".join(part.result() for _, part in self._ask(begin, until))
            if self._sequential:
                self._hear(*self._block)
        return self._block

    def _within(self, begin: int) -> bool:
        """Return whether a byte is in a window, which is then fetched."""
        found = next(
            (
                number
                for number in range(max(self._window, 0), len(self._windows))
                if any(low <= begin < high for low, high in self._windows[number])
            ),
            None,
        )
        if found is None:
            return False
        while self._window < found:
            self._window += 1
            parts = self._coming.pop(self._window, None) or self._start(self._window)
            following = self._window + 1
            if following < len(self._windows) and _size(self._windows[following]) <= AHEAD:
                self._coming[following] = self._start(following)
            self._held = [(place, part.result()) for place, part in parts]
            for place, data in self._held:
                self._hear(place, data)
        return True

    def _start(self, number: int) -> list[tuple[int, Future[bytes]]]:
        return [part for low, high in self._windows[number] for part in self._ask(low, high)]

    def _ask(self, begin: int, end: int) -> list[tuple[int, Future[bytes]]]:
        return [
            (low, _pool().submit(_read, self._file, low, min(low + PART, end)))
            for low in range(begin, end, PART)
        ]

    def _hear(self, place: int, data: bytes) -> None:
        if self._heard is not None:
            self._heard(place, data)


def _end_begin(size: int) -> int:
    """Return where the end of a file begins: a 64th of the file, so that little is read of which
    nothing is needed; 4 to 64 KiB."""
    return max(size - min(max(size // _END_SHARE, _LEAST_END), END), 0)


def _end_of(file: Ranged, begin: int) -> bytes:
    """Return the bytes of the begin or of the end of a file, by their first one."""
    data = _ENDS.get((file, begin))
    if data is None:
        data = file.read(begin, min(begin + END, file.size))
        _ENDS.put((file, begin), data)
    return data


def _read(file: Ranged, begin: int, end: int) -> bytes:
    """Return a range of bytes; what is kept of the end of the file is not asked for again."""
    place = _end_begin(file.size)
    kept = _ENDS.get((file, place)) if end > place else None
    if kept is None:
        return file.read(begin, end)
    before = file.read(begin, place) if begin < place else b""
    return before + kept[max(begin - place, 0) : end - place]


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Return ranges of bytes, those with small gaps between them as one."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin - joined[-1][1] <= GAP:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def _size(spans: Sequence[Span]) -> int:
    return sum(end - begin for begin, end in spans)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2 * THREADS, "catalogproc-remote")
