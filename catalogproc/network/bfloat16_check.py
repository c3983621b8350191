"""Whether bfloat16 suffices for a model, as its bundle states it."""

from __future__ import annotations

from dataclasses import dataclass

SIGMA, SHARE, FLAGS = 0.05, 0.999, 0.001
"""bfloat16 is accepted if all labels of SHARE of the stars are within SIGMA of their total
uncertainty of float64's, and of those that the star gets in another batch, and at most FLAGS of
the stars get other quality flags than in float64 or in another batch."""


@dataclass(frozen=True)
class PrecisionCheck:
    """How far predictions in bfloat16 are from those in float64 and in other batches.

    Attributes
    ----------
    stars
        Number of stars that were predicted in both.
    within
        Share of them of which every label is within SIGMA of its total uncertainty.
    flags
        Share of them that get other quality flags than in float64, or in another batch.
    batches
        Share of them of which no label changes by more than SIGMA with the batch. 0 in bundles
        of which it was not measured.
    """

    stars: int
    within: float
    flags: float
    batches: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether bfloat16 suffices for the model."""
        close = min(self.within, self.batches) >= SHARE
        return self.stars > 0 and close and self.flags <= FLAGS
