"""How good probabilities of a yes or no are: does it rank, is it sharp, is it honest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10
"""Bins of equal width of :attr:`ProbabilityScores.reliability`."""


@dataclass(frozen=True)
class ProbabilityScores:
    """Scores of the probabilities of N stars.

    Attributes
    ----------
    stars
        Number N of stars.
    share
        Fraction of the stars that are of the kind.
    auc
        Probability that a star of the kind has a larger probability than one that is not: 0.5
        by chance, 1 at best. NaN where all stars are of one kind.
    brier
        Mean squared difference of probability and truth (Brier 1950), 0 at best.
    brier_chance
        The same if every star had ``share``.
    reliability
        For each bin of probability: number of stars, mean probability, fraction of the kind.
    """

    stars: int
    share: float
    auc: float
    brier: float
    brier_chance: float
    reliability: tuple[tuple[int, float, float], ...]

    @property
    def skill(self) -> float:
        """1 - brier / brier_chance: 0 by chance, 1 at best; NaN where all are of one kind."""
        return 1.0 - self.brier / self.brier_chance if self.brier_chance else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as they are written into files of facts."""
        return {
            "stars": self.stars, "share": self.share, "area under the ROC curve": self.auc,
            "Brier score": self.brier, "Brier score of chance": self.brier_chance,
            "Brier skill": self.skill,
        }  # fmt: skip


def scores(is_one: Floats, probability: Floats) -> ProbabilityScores:
    """Return the scores of probabilities.

    Parameters
    ----------
    is_one
        (N,) 1 for stars of the kind, else 0; all known.
    probability
        (N,) between 0 and 1; all known.
    """
    share = float(is_one.mean())
    place = np.clip((probability * BINS).astype(int), 0, BINS - 1)
    bins = tuple(
        (int(own.sum()), float(probability[own].mean()), float(is_one[own].mean()))
        for own in (place == number for number in range(BINS))
        if own.any()
    )
    brier = float(np.square(probability - is_one).mean())
    auc = area_under_curve(is_one, probability)
    return ProbabilityScores(len(is_one), share, auc, brier, share * (1.0 - share), bins)


def area_under_curve(is_one: Floats, probability: Floats) -> float:
    """Return the area under the ROC curve, from the sum of ranks (Mann & Whitney 1947).

    Parameters
    ----------
    is_one, probability
        (N,) as in :func:`scores`; equal probabilities share their ranks.

    Returns
    -------
    float
        NaN where all stars are of one kind.
    """
    _, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[place]
    ones = float(is_one.sum())
    others = len(is_one) - ones
    if not ones or not others:
        return float("nan")
    return float((rank[is_one > 0.5].sum() - ones * (ones + 1) / 2) / (ones * others))
