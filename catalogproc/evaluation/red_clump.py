"""Is the probability of the red clump right, by seismic stars that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.dataset import TEST, dataset_columns
from catalogproc.datasets.giant_labels import TEACHER
from catalogproc.datasets.probability_scores import ProbabilityScores, area_under_curve, scores
from catalogproc.errors import plural

Floats = NDArray[np.float64]

DRAWS = 500
"""Number of bootstrap samples."""


@dataclass(frozen=True)
class ClumpScores:
    """Scores on N stars, and 68 % intervals of them from bootstrap samples of the stars.

    Attributes
    ----------
    found
        Area under the ROC curve, Brier score and skill, reliability by bin of probability.
    auc, skill
        16th and 84th percentiles.
    """

    found: ProbabilityScores
    auc: tuple[float, float]
    skill: tuple[float, float]

    def lines(self) -> list[str]:
        """Return the scores as lines of text."""
        found = self.found
        low, high = self.auc
        text = [
            f"{plural(found.stars, 'star')}, {found.share:.0%} in the red clump",
            f"area under the ROC curve {found.auc:.3f} ({low:.3f} to {high:.3f}), chance 0.5",
            f"Brier score {found.brier:.3f}, chance {found.brier_chance:.3f}: "
            f"skill {found.skill:.2f} ({self.skill[0]:.2f} to {self.skill[1]:.2f})",
        ]
        for stars, mean, share in found.reliability:
            text.append(f"  probability {mean:.2f}: {share:.2f} of {stars:,} in the red clump")
        return text


def seismic_stage(folder: Path | str, part: str = TEST) -> Floats:
    """Return which stars of a dataset are in the red clump by a seismic paper.

    Parameters
    ----------
    folder
        A dataset of ``catalogproc dataset apogee-xp``, with ``--hold-out-seismic`` for many
        stars.
    part
        Its part; the stars of the test part are held out.

    Returns
    -------
    Floats
        (n,) 1 or 0 in the row order of ``load_dataset``; NaN where no paper says so, and
        where the teacher predicted it.
    """
    columns = dataset_columns(folder, part, ["rc_prob", "rc_source"])
    source = columns["rc_source"]
    measured = np.array([name is not None and name != TEACHER for name in source], dtype=bool)
    return np.where(measured, columns["rc_prob"].astype(np.float64), np.nan)


def clump_scores(is_clump: Floats, probability: Floats, seed: int = 0) -> ClumpScores:
    """Return the scores of predicted probabilities of the red clump.

    Parameters
    ----------
    is_clump
        (n,) 1 in the red clump, 0 outside it, NaN unknown: :func:`seismic_stage`.
    probability
        (n,) predicted; NaN where there is none. Values beyond 0 and 1 count as these.
    seed
        Of the bootstrap samples.
    """
    known = np.isfinite(is_clump) & np.isfinite(probability)
    truth, stated = is_clump[known], np.clip(probability[known], 0.0, 1.0)
    random = np.random.default_rng(seed)
    auc, skill = [], []
    for _ in range(DRAWS):
        at = random.integers(len(truth), size=len(truth))
        auc.append(area_under_curve(truth[at], stated[at]))
        skill.append(scores(truth[at], stated[at]).skill)
    return ClumpScores(scores(truth, stated), _interval(auc), _interval(skill))


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.16, 0.84))
    return float(low), float(high)
