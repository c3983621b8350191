"""Whether bfloat16 suffices for a model, as its bundle states it."""

from __future__ import annotations

from dataclasses import dataclass

SIGMA, SHARE, FLAGS = 0.05, 0.999, 0.001
"""bfloat16 is accepted if all labels of SHARE of the stars are within SIGMA of their total
uncertainty of float64's, and at most FLAGS of the stars get other quality flags."""


@dataclass(frozen=True)
class PrecisionCheck:
    """How far predictions in bfloat16 are from those in float64.

    Attributes
    ----------
    stars
        Number of stars that were predicted in both.
    within
        Share of them of which every label is within SIGMA of its total uncertainty.
    flags
        Share of them that get other quality flags.
    """

    stars: int
    within: float
    flags: float

    @property
    def accepted(self) -> bool:
        """Whether bfloat16 suffices for the model."""
        return self.stars > 0 and self.within >= SHARE and self.flags <= FLAGS
