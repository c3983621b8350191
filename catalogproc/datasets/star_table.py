"""Training stars as tokens: fixed tables of stars, and samplers that give batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.bundle import Domain, Standardisation
from catalogproc.network.star_tokens import StarTokens

StarSampler = Callable[[int, int], tuple[Any, ...]]
"""(seed, n) to values and errors (n, V), NumPy or PyTorch, in the tokens' units.

NaN means that a star lacks a token, or that an error is unknown (it then counts as 0).
A third array (n, V), if given, is True for tokens that are hidden from the network but may be
requested. The same seed and n must give the same stars.
"""


OTHERS_HIDDEN = 0.25
"""Probability that a token of a row without a spectrum is hidden."""


@dataclass(frozen=True, eq=False)
class StarTable:
    """A fixed set of n stars as tokens.

    Attributes
    ----------
    ids
        (n,) identifiers; several rows may belong to one star.
    values, errors
        (n, V), in the tokens' units; NaN where absent.
    predicted
        By column: which rows (n,) hold a prediction, about which the truth scatters by the
        error. :meth:`sample` draws the truth, and its error is then 0: taken for a measurement,
        a prediction would make a network too certain.
    """

    ids: NDArray[np.int64]
    values: NDArray[np.floating]
    errors: NDArray[np.floating]
    predicted: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.shape != self.errors.shape or len(self.ids) != len(self.values):
            raise JobError(
                "ids, values and errors of a star table must have the same length",
                found=(self.ids.shape, self.values.shape, self.errors.shape),
            )

    @property
    def tokens(self) -> StarTokens:
        """Values and errors together."""
        return StarTokens(self.values, self.errors)

    def sample(self, seed: int, n: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return n rows, uniformly and with replacement (a :data:`StarSampler`).

        Parameters
        ----------
        seed
            Seed of the random choice.
        n
            Number of rows; it may exceed the number of rows of the table.

        Returns
        -------
        values, errors
            (n, V) each.
        """
        random = np.random.default_rng(seed)
        return self.drawn(random.integers(len(self.ids), size=n), random)

    def drawn(
        self, rows: NDArray[np.integer], random: np.random.Generator
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return given rows with predictions replaced by draws of the truth.

        Parameters
        ----------
        rows
            Row numbers (n,).
        random
            Source of the draws.

        Returns
        -------
        values, errors
            (n, V) each, copies.
        """
        values, errors = self.values[rows], self.errors[rows]
        for column, predicted in self.predicted.items():
            at = np.flatnonzero(predicted[rows])
            values[at, column] += errors[at, column] * random.standard_normal(len(at))
            errors[at, column] = 0.0
        return values, errors

    def rows(self, which: NDArray[np.bool_]) -> StarTable:
        """Return some of the rows.

        Parameters
        ----------
        which
            (n,) mask.
        """
        predicted = {column: rows[which] for column, rows in self.predicted.items()}
        return StarTable(self.ids[which], self.values[which], self.errors[which], predicted)

    def sampler_hiding(self, columns: NDArray[np.integer], share: float) -> StarSampler:
        """Return a :data:`StarSampler` of these rows that hides tokens.

        Rows without a spectrum have few tokens, of which a training would show all: each token is
        hidden with probability :data:`OTHERS_HIDDEN`, so that other ones are shown each time.

        Parameters
        ----------
        columns
            Columns of the tokens to hide together.
        share
            Fraction of the rows in which they are hidden.
        """
        together = np.isin(np.arange(self.values.shape[1]), columns)

        def sample(seed: int, n: int) -> tuple[NDArray[Any], ...]:
            values, errors = self.sample(seed, n)
            random = np.random.default_rng([seed, *columns])
            asked = random.random((n, 1)) < share
            others = random.random(values.shape) < OTHERS_HIDDEN
            return values, errors, np.where(together, asked, others)

        return sample

    def split(self, fraction: float, seed: int) -> tuple[StarTable, StarTable]:
        """Split by star into two tables, the second with about ``fraction`` of the stars.

        The part of a star follows from its identifier and the seed alone: all rows of a star
        are in the same part, whatever the order and number of rows.

        Parameters
        ----------
        fraction
            Fraction of the stars in the second table.
        seed
            Seed of the division.
        """
        second = in_second_part(self.ids, fraction, seed)
        return self.rows(~second), self.rows(second)


def in_second_part(ids: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which stars (n,) :meth:`StarTable.split` puts in its second table.

    Parameters
    ----------
    ids
        (n,) identifiers.
    fraction, seed
        Those of the division.
    """
    return np.asarray(_uniform(ids, seed) < fraction)


def mixture(parts: Sequence[tuple[StarSampler, float]]) -> StarSampler:
    """Return a :data:`StarSampler` that takes a fixed share of every batch from each part.

    Parameters
    ----------
    parts
        Samplers and their relative shares.
    """
    shares = np.cumsum([0.0] + [share for _, share in parts])

    def sample(seed: int, n: int) -> tuple[Tensor, ...]:
        counts = np.diff(np.round(shares / shares[-1] * n).astype(int))
        seeds = np.random.SeedSequence(seed).generate_state(len(parts), np.uint64) >> np.uint64(1)
        batches = [
            sampler(int(part_seed), int(count))
            for (sampler, _), part_seed, count in zip(parts, seeds, counts, strict=True)
        ]
        values, errors = (
            torch.cat([as_tensor(batch[item]).to(torch.float64) for batch in batches])
            for item in (0, 1)
        )
        if all(len(batch) == 2 for batch in batches):
            return values, errors
        hidden = [
            as_tensor(batch[2]) if len(batch) > 2 else torch.zeros(batch[0].shape, dtype=torch.bool)
            for batch in batches
        ]
        return values, errors, torch.cat(hidden)

    return sample


GAUSSIAN_80 = 2.5631
"""Width of the middle 80 % of a Gaussian, in standard deviations."""

TWO_VALUES = 0.1
"""A spread about the median that is smaller, relative to the middle 80 %, is that of two values."""


def fit_standardisation(
    values: NDArray[np.floating], labels: NDArray[np.bool_]
) -> tuple[Standardisation, Domain]:
    """Return the standardisation and the domain of training stars, in the tokens' units.

    The centre is the median and the scale 1.4826 times the median absolute deviation, as in
    Leung & Bovy (2024). Of values that are mostly near one of two, as a probability, the scale is
    that of the range of the middle 80 %; it is the standard deviation where more than half of the
    values are equal, and 1 where all are. The domain is defined in :class:`Domain`.

    Parameters
    ----------
    values
        (n, V), NaN where absent.
    labels
        (V,), True for tokens that are labels.
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
        spread = 1.4826 * np.median(np.abs(x - center[column]))
        middle = np.subtract(*np.quantile(x, (0.9, 0.1))) / GAUSSIAN_80
        if 0 < spread < TWO_VALUES * middle:
            spread = middle
        spreads = (spread, x.std(), 1.0)
        scale[column] = next(spread for spread in spreads if spread > 0)
        edges = (0.0, 1.0) if labels[column] else (0.002, 0.998)
        low[column], high[column] = np.quantile(x, edges)
    return Standardisation(center, scale), Domain(low, high)


def as_tensor(x: Any) -> Tensor:
    """Return an array as a tensor; tensors are returned as they are.

    Parameters
    ----------
    x
        A NumPy array or a tensor.
    """
    # Copied, because PyTorch warns about read-only memory, which Arrow's is.
    return x if isinstance(x, Tensor) else torch.tensor(x)


def _uniform(ids: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each identifier: SplitMix64 (Steele et al. 2014)."""
    mix = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    x = ids.astype(np.int64).view(np.uint64) ^ mix
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
