"""Batches of few fixed shapes, as GPUs compute them.

A shape is a number of stars, a power of two, and of tokens. Stars are sorted by their number of
tokens; a batch is padded to the next shape by stars without tokens and by empty slots, which
nothing attends to, so that a star's prediction does not change. The pass of each shape is captured
once (network/captured.py), and copies run beside it (network/device_copies.py).

Standardising and packing are part of the pass: they take 4 microseconds a star on a core, and a
GPU needs one for the network.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.network.batch_function import BatchFunction
from catalogproc.network.bundle import Bundle
from catalogproc.network.captured import capture_on
from catalogproc.network.device_copies import Numbers, ToDevice, ToHost
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.star_tokens import StarTokens

SORTED_ROWS = 16_384
"""Rows that are sorted by their number of tokens at a time."""
FEWEST_STARS = 64
"""Smaller batches are padded to so many stars."""
WIDTH_STEP = 16
"""With the learned key, numbers of tokens are multiples of this: what attention on GPUs likes."""
MOST_CAPTURES = 32
"""Captures that are kept: those that were used last. A job needs some ten."""

Floats = NDArray[np.float32]


def static_width(tokens: int) -> int:
    """Return the slots of a batch.

    Parameters
    ----------
    tokens
        The largest number of tokens of a star.
    """
    return -(-(tokens + 1) // WIDTH_STEP) * WIDTH_STEP - 1


def static_stars(most: int, waiting: int) -> int:
    """Return the stars of a batch with its padding: a power of two.

    Parameters
    ----------
    most
        Stars that a batch may have.
    waiting
        Stars that are left.
    """
    largest = 1 << max(0, most.bit_length() - 1)
    return min(largest, max(FEWEST_STARS, 1 << (waiting - 1).bit_length()))


class DeviceTokens:
    """Standardises and packs dense tokens on a device, as :meth:`Bundle.pack` does on the host.

    Parameters
    ----------
    bundle
        It has the scaling.
    device, dtype
        Where, and the number type of the result.
    """

    def __init__(self, bundle: Bundle, device: torch.device, dtype: torch.dtype) -> None:
        def on_device(numbers: NDArray[np.float64]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64, device=device)

        scales, errors = bundle.standardisation, bundle.error_scaling
        self.dtype = dtype
        self._scales = on_device(scales.center), on_device(scales.scale)
        self._errors = tuple(map(on_device, vars(errors).values())) if errors else ()
        self._numbers = torch.arange(1, len(scales.center) + 1, device=device)
        self.columns = len(scales.center) * (2 if errors else 1)
        """Columns of a dense table: a value for each token, then, where they are read, errors."""

    def fill(self, table: Numbers, tokens: StarTokens) -> None:
        """Fill a dense table of the host.

        Parameters
        ----------
        table
            (n, columns); its rows after those of the tokens get no token.
        tokens
            Of at most n stars.
        """
        count, width = len(tokens), tokens.values.shape[1]
        with np.errstate(over="ignore"):
            table[:count, :width] = tokens.values
            if self._errors:
                table[:count, width:] = tokens.errors
        table[count:] = np.nan

    def __call__(self, table: Tensor, width: int) -> PackedTokens:
        """Return the tokens as the network reads them.

        Parameters
        ----------
        table
            Dense (n, columns), on the device.
        width
            Slots, at least the largest number of tokens of a star.
        """
        center, scale = self._scales
        values = table[:, : len(center)].double()
        present = ~values.isnan()
        # Absent tokens go to one slot more, which is cut off; 0 is the number of an empty slot.
        slots = (present.cumsum(1) - 1).masked_fill(~present, width)

        def packed(dense: Tensor) -> Tensor:
            return dense.new_zeros(len(table), width + 1).scatter(1, slots, dense)[:, :width]

        ids = packed(self._numbers.expand_as(slots))
        numbers = [(values - center) / scale]
        if self._errors:
            center, scale, low, high = self._errors
            log = table[:, len(center) :].double().log().clamp(low, high)
            numbers.append(torch.where(log.isnan(), 0.0, (log - center) / scale))
        return PackedTokens(ids, *(packed(part.float().to(self.dtype)) for part in numbers))


@dataclass(frozen=True)
class _Captured:
    """A captured pass: its fixed tensors, and what replays it.

    ``function`` is kept because its tensors are read at each replay.
    """

    function: BatchFunction
    inputs: Tensor
    outputs: Tensor
    replay: Callable[[], None]


class StaticBatches:
    """Applies functions to stars in batches of few fixed shapes; one thread at a time.

    Parameters
    ----------
    bundle
        The model.
    device, dtype
        Where, and the number type of the network.
    budget
        Tokens and predictions of a batch at most.
    """

    def __init__(
        self, bundle: Bundle, device: torch.device, dtype: torch.dtype, budget: tuple[int, int]
    ) -> None:
        self.device, self.dtype, self.budget = device, dtype, budget
        self._tokens = DeviceTokens(bundle, device, dtype)
        self._turn = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Begin without captures and buffers; the memory of former ones is released."""
        self.captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._capture = capture_on(self.device)
        self._up, self._down = ToDevice(self.device, self.dtype), ToHost(self.device)

    def _wait(self) -> None:
        """Wait until the device has finished, so that nothing uses memory that is released."""
        torch.get_device_module(self.device).synchronize()

    def map(self, tokens: StarTokens, function: BatchFunction) -> list[Floats]:
        """Return what a function computes of stars, in their order.

        Parameters
        ----------
        tokens
            Of N stars.
        function
            What to compute.

        Returns
        -------
        One float32 array (N, *shape) for each of ``function.shapes``.
        """
        results = function.results(len(tokens))
        is_gpu = self.device.type == "cuda"
        with self._turn, torch.cuda.device(self.device) if is_gpu else nullcontext():
            try:
                for rows, shape in self._batches(tokens, function):
                    self._start(tokens.rows(rows), shape, function, _into(results, rows))
                self._down.finish()
            except BaseException:
                with suppress(RuntimeError):  # of a device that failed
                    self._wait()
                self._begin()  # memory may be what was missing
                raise
        return results

    def _batches(
        self, tokens: StarTokens, function: BatchFunction
    ) -> Iterator[tuple[NDArray[np.int64], tuple[int, int]]]:
        """Yield the rows of each batch, and its numbers of stars and slots."""
        most_tokens, most_predictions = (most // function.cost for most in self.budget)
        for first in range(0, len(tokens), SORTED_ROWS):
            counts = np.count_nonzero(
                tokens.rows(slice(first, first + SORTED_ROWS)).present, axis=1
            )
            order = np.argsort(-counts, kind="stable")
            start = 0
            while start < len(order):
                width = static_width(int(counts[order[start]]))
                most = min(most_tokens // width, most_predictions // max(1, function.requests))
                stars = static_stars(most, len(order) - start)
                yield first + order[start : start + stars], (stars, width)
                start += stars

    def _start(
        self,
        tokens: StarTokens,
        shape: tuple[int, int],
        function: BatchFunction,
        deliver: Callable[[Numbers], None],
    ) -> None:
        """Start a batch, and wait for the last but one."""
        captured = self._pass(function, *shape)
        self._tokens.fill(self._up.buffer(*captured.inputs.shape), tokens)
        self._up.send(captured.inputs)
        captured.replay()
        self._down.take(captured.outputs, deliver)

    def _pass(self, function: BatchFunction, stars: int, width: int) -> _Captured:
        """Return the captured pass of a shape; captures it if it is not among those kept."""
        key = (function.key, stars, width)
        if key not in self.captured:
            if len(self.captured) == MOST_CAPTURES:
                self._wait()
                self.captured.popitem(last=False)
            self.captured[key] = self._new(function, stars, width)
        self.captured.move_to_end(key)
        return self.captured[key]

    def _new(self, function: BatchFunction, stars: int, width: int) -> _Captured:
        size = (stars, self._tokens.columns)
        inputs = torch.full(size, torch.nan, dtype=self.dtype, device=self.device)

        def work() -> Tensor:
            parts = function.forward(self._tokens(inputs, width))
            return torch.cat([part.float().reshape(stars, -1) for part in parts], dim=1)

        replay, outputs = self._capture(work)
        return _Captured(function, inputs, outputs, replay)


def _into(results: list[Floats], rows: NDArray[np.int64]) -> Callable[[Numbers], None]:
    """Return what divides a batch's table into the rows of results; its padding is left out."""

    def deliver(table: Numbers) -> None:
        column = 0
        for result in results:
            size = int(np.prod(result.shape[1:]))
            part = table[: len(rows), column : column + size]
            result[rows] = part.reshape(len(rows), *result.shape[1:])
            column += size

    return deliver
