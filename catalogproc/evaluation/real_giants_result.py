"""What the evaluation on real giants finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalogproc.datasets.probability_scores import ProbabilityScores
from catalogproc.evaluation.distribution_gain import DistributionGain
from catalogproc.evaluation.known_populations import KnownPopulation
from catalogproc.evaluation.mass_age_selections import SelectedStars
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
class OneBandScore:
    """Score of one quantity from the coefficients of one band, bp or rp, and the colours."""

    band: str
    quantity: str
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


@dataclass(frozen=True)
class TaughtShare:
    """How many giants have the input flag TEACHER_DOMAIN.

    Attributes
    ----------
    stars
        Giants whose Teff, log g, [M/H] and [alpha/M] are known.
    taught
        Those with the flag, which is by the predicted labels.
    same
        Those for which the true labels give the same.
    """

    stars: int
    taught: int
    same: int


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
    gains
        What distributions that are no Gaussians tell more, by label.
    faint
        Giants with noise added as if they were at the magnitudes of FAINT, by bin.
    one_band
        By band and quantity.
    selected
        Errors of mass and log age along the true values, of all giants and of selected ones.
    taught
        Giants in the teacher's domain; None for a model without one.
    populations
        Age distributions of samples of the giants; none of a model without a prior.
    parallax
        log g without and with the parallax, of giants whose parallax S/N is above PARALLAX_SN.
    red_clump
        Scores of ``rc_prob``, by what the true stage is from.
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
    gains: tuple[DistributionGain, ...]
    faint: tuple[BinCoverage, ...]
    one_band: tuple[OneBandScore, ...]
    good: tuple[GoodShare, ...]
    selected: tuple[SelectedStars, ...]
    taught: TaughtShare | None
    populations: tuple[KnownPopulation, ...]
    parallax: Mapping[str, Score]
    red_clump: Mapping[str, ProbabilityScores]
    seismic: Mapping[str, list[SeismicScore]]
