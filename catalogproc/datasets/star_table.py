"""Tables of stars to train on: values and errors of every token, and how batches are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.bundle import Domain, Standardisation

Draw = Callable[[int, int], tuple[Any, ...]]
"""(seed, n) to values and errors (n, V), NumPy or PyTorch, in the tokens' units.

NaN is a token that a star lacks, or an error that is not known (then it is taken as 0).
A third array (n, V), if there is one, is True where a token is kept from the network, which
may be asked for it all the same. The same seed and n must give the same stars.
"""


@dataclass(frozen=True, eq=False)
class Table:
    """A fixed set of stars to draw from: values and errors (n, V), and their identifiers."""

    ids: NDArray[np.int64]
    values: NDArray[np.floating]
    errors: NDArray[np.floating]

    def __post_init__(self) -> None:
        if self.values.shape != self.errors.shape or len(self.ids) != len(self.values):
            raise JobError(
                "a training table's parts must be of one length",
                found=(self.ids.shape, self.values.shape, self.errors.shape),
            )

    def draw(self, seed: int, n: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """A :data:`Draw`: n rows, uniformly and with replacement."""
        rows = np.random.default_rng(seed).integers(len(self.ids), size=n)
        return self.values[rows], self.errors[rows]

    def draw_without(self, column: int, share: float) -> Draw:
        """A :data:`Draw` of these rows that hides a column of this share of them."""

        def draw(seed: int, n: int) -> tuple[NDArray[Any], ...]:
            values, errors = self.draw(seed, n)
            hidden = np.zeros(values.shape, dtype=bool)
            hidden[:, column] = np.random.default_rng([seed, column]).random(n) < share
            return values, errors, hidden

        return draw

    def split(self, fraction: float, seed: int) -> tuple[Table, Table]:
        """Two tables, the second with about ``fraction`` of the stars.

        A star's side follows from its identifier and the seed alone: rows of the same
        star stand on the same side, in whatever order and company they come.
        """
        held = _uniform(self.ids, seed) < fraction
        first, second = (
            Table(self.ids[rows], self.values[rows], self.errors[rows]) for rows in (~held, held)
        )
        return first, second


def mixture(parts: Sequence[tuple[Draw, float]]) -> Draw:
    """A :data:`Draw` that takes from each part its share of every batch."""
    shares = np.cumsum([0.0] + [share for _, share in parts])

    def draw(seed: int, n: int) -> tuple[Tensor, ...]:
        counts = np.diff(np.round(shares / shares[-1] * n).astype(int))
        seeds = np.random.SeedSequence(seed).generate_state(len(parts), np.uint64) >> np.uint64(1)
        drawn = [
            part(int(each), int(count))
            for (part, _), each, count in zip(parts, seeds, counts, strict=True)
        ]
        values, errors = (
            torch.cat([_tensor(stars[side]).to(torch.float64) for stars in drawn])
            for side in (0, 1)
        )
        if all(len(stars) == 2 for stars in drawn):
            return values, errors
        hidden = [
            _tensor(stars[2]) if len(stars) > 2 else torch.zeros(stars[0].shape, dtype=torch.bool)
            for stars in drawn
        ]
        return values, errors, torch.cat(hidden)

    return draw


def describe(
    values: NDArray[np.floating], labels: NDArray[np.bool_]
) -> tuple[Standardisation, Domain]:
    """Standardisation and domain of training stars, in the tokens' units.

    ``values`` (n, V), NaN where absent; ``labels`` (V,) says which tokens are labels.
    Median and 1.4826 times the median absolute deviation, as Leung & Bovy (2024) scale;
    the standard deviation where most values are the same, and 1 where all are. The
    domain is as :class:`Domain` says.
    """
    v = values.shape[1]
    center, scale = np.zeros(v), np.ones(v)
    low, high = np.full((2, v), np.nan)
    for column in range(v):
        x = values[:, column].astype(np.float64)
        x = x[np.isfinite(x)]
        if not x.size:
            continue
        center[column] = np.median(x)
        spreads = (1.4826 * np.median(np.abs(x - center[column])), x.std(), 1.0)
        scale[column] = next(spread for spread in spreads if spread > 0)
        edges = (0.0, 1.0) if labels[column] else (0.002, 0.998)
        low[column], high[column] = np.quantile(x, edges)
    return Standardisation(center, scale), Domain(low, high)


def _tensor(x: Any) -> Tensor:
    # Copied, because PyTorch warns of memory that is read-only, as Arrow's is.
    return x if isinstance(x, Tensor) else torch.tensor(x)


def _uniform(ids: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each identifier: SplitMix64 (Steele et al. 2014)."""
    mix = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    x = ids.astype(np.int64).view(np.uint64) ^ mix
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
