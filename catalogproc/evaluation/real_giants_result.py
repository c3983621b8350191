"""What the evaluation on real giants finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalogproc.evaluation.scores import DecileScore, Score
from catalogproc.evaluation.seismic_scores import SeismicScore

WITH_PARALLAX, GOOD = "model, with the parallax", "model, good_params"
GOOD_TREES = "XGBoost, the same stars"
"""Methods besides MODEL and TREES."""

CELL = "latent cell"
"""What bins by cells of the latent space have for a column; their edges are number and count."""


@dataclass(frozen=True)
class QuantityScores:
    """Scores of one quantity by method, and in deciles of its true value."""

    quantity: str
    by_method: Mapping[str, Score]
    deciles: Mapping[str, tuple[DecileScore, ...]]


@dataclass(frozen=True)
class BinCoverage:
    """Coverage of one quantity in one bin of stars.

    Attributes
    ----------
    quantity, column, low, high
        The quantity, the column of the catalog that is binned, and the edges of the bin.
    score
        Of the stars in it.
    """

    quantity: str
    column: str
    low: float
    high: float
    score: Score


@dataclass(frozen=True)
class GoodShare:
    """How many stars of one kind pass ``good_params``.

    Attributes
    ----------
    kind
        The stars, and what is read of them.
    stars, good, unflagged
        Their number, how many pass, and how many of these have no flag NOT_GIANT either.
    giants
        Whether they are giants.
    """

    kind: str
    stars: int
    good: int
    unflagged: int
    giants: bool


@dataclass(frozen=True, eq=False)
class RealGiants:
    """Everything about a model on a test part.

    Attributes
    ----------
    model, hash, dataset
        Names, and the hash of the bundle.
    stars, giants, seen
        Numbers: stars of the test part, giants among them that are evaluated, and stars that
        were left out because the model may have been trained on them.
    tree_stars
        Number of giants that XGBoost is fitted to.
    scores, bins, good
        By quantity, by bin, by kind of star.
    cells
        By cell of the latent space.
    faint
        Giants with noise added as if they were at the magnitudes of FAINT, by bin.
    parallax
        log g without and with the parallax, of giants whose parallax S/N is above PARALLAX_SN.
    seismic
        By label of SOURCES.
    """

    model: str
    hash: str
    dataset: str
    stars: int
    giants: int
    seen: int
    tree_stars: int
    scores: tuple[QuantityScores, ...]
    bins: tuple[BinCoverage, ...]
    cells: tuple[BinCoverage, ...]
    faint: tuple[BinCoverage, ...]
    good: tuple[GoodShare, ...]
    parallax: Mapping[str, Score]
    seismic: Mapping[str, list[SeismicScore]]
