"""What is computed of each batch of stars."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.network.packed_tokens import PackedTokens


@dataclass(frozen=True)
class BatchFunction:
    """What :meth:`~catalogproc.network.predictor.Predictor.map_batches` computes of a batch.

    Attributes
    ----------
    key
        Names the function: two with the same key compute the same with one network.
    forward
        From the tokens of n stars, float tensors of n rows each. It may be captured once and
        replayed (network/captured.py): what it does must not depend on the numbers in a tensor,
        and it must not copy from or to the host.
    shapes
        The shape of one star's row of each of these tensors.
    requests, cost
        Predictions per star, and the cost of the pass relative to plain inference: both
        limit the number of stars in a batch.
    """

    key: Hashable
    forward: Callable[[PackedTokens], tuple[Tensor, ...]]
    shapes: Sequence[tuple[int, ...]]
    requests: int = 1
    cost: int = 1

    def results(self, stars: int) -> list[NDArray[np.float32]]:
        """Return empty float32 arrays (stars, *shape) for what is computed, one for each shape.

        Parameters
        ----------
        stars
            Their number.
        """
        return [np.empty((stars, *shape), dtype=np.float32) for shape in self.shapes]
