"""Copies between host and device that run while the device computes.

Each direction has a stream of its own and two pairs of buffers, used in turn: one of the host, in
memory that is never moved (pinned), so that the device can read and write it by itself, and one
of the device. While one pair is copied, the other is filled or read. On the CPU the same code
runs with plain memory, one copy after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.floating]


class _Pair:
    """A buffer of the host and one of the device, of the same shape, and when they are free."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        module: Any = torch.get_device_module(device)
        self.device, self.dtype = device, dtype
        self.copied, self.computed = module.Event(), module.Event()
        self._host, self._device = torch.empty(0, dtype=dtype), torch.empty(0, dtype=dtype)

    def reserve(self, rows: int, columns: int) -> bool:
        """Make room for a table; return whether the memory is new."""
        size = rows * columns
        new = len(self._host) < size
        if new:
            pinned = self.device.type == "cuda"
            self._host = torch.empty(size, dtype=self.dtype, pin_memory=pinned)
            self._device = torch.empty(size, dtype=self.dtype, device=self.device)
        self.host = self._host[:size].view(rows, columns)
        self.on_device = self._device[:size].view(rows, columns)
        return new


class ToDevice:
    """Tables that are copied to a device ahead of the computation.

    Parameters
    ----------
    device, dtype
        Where to, and the number type.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._module: Any = torch.get_device_module(device)
        self._stream = self._module.Stream()
        self._pairs = cycle([_Pair(device, dtype) for _ in range(2)])

    def buffer(self, rows: int, columns: int) -> Numbers:
        """Return a table of the host to be filled; waits until its last content has been copied.

        Parameters
        ----------
        rows, columns
            Its shape.
        """
        self._pair = next(self._pairs)
        self._pair.copied.synchronize()
        if self._pair.reserve(rows, columns):
            # What used the new memory of the device before may still be running.
            self._stream.wait_stream(self._module.current_stream())
        filled: Numbers = self._pair.host.numpy()
        return filled

    def send(self, target: Tensor) -> None:
        """Start the copy of the filled table, and let the computation go on behind it.

        Parameters
        ----------
        target
            Tensor of the device, of the table's shape, that what is computed next reads.
        """
        pair, computing = self._pair, self._module.current_stream()
        self._stream.wait_event(pair.computed)
        with self._module.stream(self._stream):
            pair.on_device.copy_(pair.host, non_blocking=True)
            pair.copied.record(self._stream)
        computing.wait_event(pair.copied)
        target.copy_(pair.on_device)
        pair.computed.record(computing)


@dataclass
class _Expected:
    """A table that is on its way to the host."""

    pair: _Pair
    deliver: Callable[[Numbers], None]


class ToHost:
    """Tables that are copied to the host while the computation goes on.

    Parameters
    ----------
    device
        Where from.
    """

    def __init__(self, device: torch.device) -> None:
        self._module: Any = torch.get_device_module(device)
        self._stream = self._module.Stream()
        self._free = [_Pair(device, torch.float32) for _ in range(2)]
        self._expected: list[_Expected] = []

    def take(self, table: Tensor, deliver: Callable[[Numbers], None]) -> None:
        """Start the copy of a table that is being computed.

        Parameters
        ----------
        table
            Float32, on the device; it may be overwritten by what is computed next.
        deliver
            Called with the table of the host when it is there: at the next call but one, or by
            :meth:`finish`. The table is valid during the call only.
        """
        if not self._free:
            self._deliver_first()
        pair, computing = self._free.pop(), self._module.current_stream()
        pair.reserve(*table.shape)
        pair.on_device.copy_(table)
        pair.computed.record(computing)
        self._stream.wait_event(pair.computed)
        with self._module.stream(self._stream):
            pair.host.copy_(pair.on_device, non_blocking=True)
            pair.copied.record(self._stream)
        self._expected.append(_Expected(pair, deliver))

    def finish(self) -> None:
        """Deliver all tables that are on their way."""
        while self._expected:
            self._deliver_first()

    def _deliver_first(self) -> None:
        first = self._expected.pop(0)
        first.pair.copied.synchronize()
        first.deliver(first.pair.host.numpy())
        self._free.append(first.pair)
