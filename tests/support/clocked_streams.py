"""Streams and events that find out whether two accesses to the same memory may race.

Each stream, and the host, has a vector clock: what it knows to have happened on the others. An
event carries the clock of its stream to those that wait for it. Two accesses to one buffer, one of
them writing, must be ordered: the later one's clock knows the earlier one (Lamport 1978; Mattern
1989). Operations run at once, as they do on the CPU; only their order is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Clock = dict[object, int]


class Races(TorchDispatchMode):
    """Stands for ``torch.cuda``, and sees every operation of torch.

    Attributes
    ----------
    found
        Pairs of accesses that no event orders.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host: Clock = {"host": 0}
        self.found: list[str] = []
        self._accesses: dict[int, list[tuple[object, int, bool]]] = {}
        self._current = self.Stream()

    def Stream(self) -> _Stream:
        return _Stream()

    def Event(self) -> _Event:
        return _Event(self)

    def current_stream(self) -> _Stream:
        return self._current

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def by_host(self, table: NDArray[Any], *, writes: bool) -> None:
        """Note that the host reads or writes a buffer."""
        self.host["host"] += 1
        self._access(table.ctypes.data, "host", self.host, writes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.is_view:  # touches no memory
            return func(*args, **(kwargs or {}))
        stream = self._current
        _join(stream.clock, self.host)  # it begins after the host has asked for it
        stream.clock[stream] = stream.clock.get(stream, 0) + 1
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if isinstance(value, Tensor) and value.numel():
                alias = argument.alias_info
                place = value.untyped_storage().data_ptr()
                self._access(place, stream, stream.clock, bool(alias and alias.is_write))
        return func(*args, **(kwargs or {}))

    def _access(self, place: int, by: object, clock: Clock, writes: bool) -> None:
        seen = self._accesses.setdefault(place, [])
        for other, time, wrote in seen:
            if (wrote or writes) and clock.get(other, 0) < time:
                self.found.append(f"{other} and {by}")
        seen.append((by, clock[by], writes))


class _Stream:
    def __init__(self) -> None:
        self.clock: Clock = {}

    def wait_event(self, event: _Event) -> None:
        _join(self.clock, event.clock)

    def wait_stream(self, stream: _Stream) -> None:
        _join(self.clock, stream.clock)


class _Event:
    def __init__(self, races: Races) -> None:
        self._races = races
        self.clock: Clock = {}

    def record(self, stream: _Stream) -> None:
        self.clock = dict(stream.clock)

    def synchronize(self) -> None:
        _join(self._races.host, self.clock)


def _join(clock: Clock, other: Clock) -> None:
    for stream, time in other.items():
        clock[stream] = max(clock.get(stream, 0), time)
