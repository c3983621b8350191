"""Tokens as the network reads them: standardised, and without those that are absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

PADDING = 0
"""The number of a slot without a token."""


@dataclass(frozen=True, eq=False)
class PackedTokens:
    """Tokens of N stars in T slots each.

    Attributes
    ----------
    ids
        (N, T) token numbers, :data:`PADDING` where a slot is empty.
    values
        (N, T) standardised values.
    errors
        (N, T) standardised logarithms of the errors, 0 where typical or unknown; None if the
        network does not read errors.
    """

    ids: Tensor
    values: Tensor
    errors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def present(self) -> Tensor:
        """Which slots hold a token (N, T)."""
        return self.ids != PADDING

    def without(self, numbers: Sequence[int]) -> Tensor:
        """Return which slots hold another token than some (N, T).

        Parameters
        ----------
        numbers
            Token numbers.
        """
        others = self.present
        for number in numbers:
            others = others & (self.ids != number)
        return others

    def rows(self, which: Any, width: int | None = None) -> PackedTokens:
        """Return some stars.

        Parameters
        ----------
        which
            Row numbers or a slice.
        width
            How many slots are kept; all by default.
        """
        slots = slice(width)
        errors = None if self.errors is None else self.errors[which, slots]
        return PackedTokens(self.ids[which, slots], self.values[which, slots], errors)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> PackedTokens:
        """Return a copy on a device, with numbers of a type.

        Parameters
        ----------
        device, dtype
            As torch names them.
        """
        errors = None if self.errors is None else self.errors.to(device, dtype)
        return PackedTokens(self.ids.to(device), self.values.to(device, dtype), errors)


def attention_mask(present: Tensor) -> Tensor | None:
    """Return the mask of keys to attend to, True where present; None if all are.

    Parameters
    ----------
    present
        (N, T), True for the tokens to attend to; (N, K, T) if requests attend to different ones.

    Returns
    -------
    (N, 1, 1, T + 1) or (N, 1, K, T + 1). The last key is the learned one, which is always present.
    """
    # Without a mask the CPU kernel is faster; on a GPU, this test would wait for the queue.
    if present.device.type == "cpu" and bool(present.all()):
        return None
    mask = F.pad(present, (0, 1), value=True).unsqueeze(1)
    return mask if present.dim() == 3 else mask.unsqueeze(2)


def pack(values: NDArray[np.floating], errors: NDArray[np.floating] | None = None) -> PackedTokens:
    """Drop absent tokens: from a dense table (N, V) to numbers and values (N, T).

    Parameters
    ----------
    values
        (N, V), standardised; NaN where a token is absent.
    errors
        (N, V) what the network reads of their errors; None if it does not read them.

    Returns
    -------
    The tokens in the vocabulary's order, float32. T is the largest number of tokens of a star, at
    least 1; shorter rows are padded with number 0 and value 0.
    """
    present = ~np.isnan(values)
    counts = np.count_nonzero(present, axis=1)
    width = max(1, int(counts.max(initial=0)))
    filled = np.arange(width) < counts[:, None]  # (N, T); each row has as many True as present
    numbers = np.broadcast_to(np.arange(1, values.shape[1] + 1), values.shape)
    ids = np.full(filled.shape, PADDING, dtype=np.int64)
    ids[filled] = numbers[present]
    packed = []
    for dense in (values, errors):
        if dense is not None:
            packed.append(np.zeros(filled.shape, dtype=np.float32))
            packed[-1][filled] = dense[present]
    return PackedTokens(torch.from_numpy(ids), *map(torch.from_numpy, packed))
