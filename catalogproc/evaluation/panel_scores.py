"""Scores of the methods in each panel, of all stars and of samples of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.benchmark_stars import OUTSIDE, Benchmark
from catalogproc.evaluation.metrics import INPUT_SETS, Predictions
from catalogproc.evaluation.scores import Score
from catalogproc.network.bundle import Bundle
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

EVALUATED = ("teff", "logg", "m_h", "alpha_m", "mass", "age", "log_age", "ebv", "dist")

MODEL, TREES, LIMIT, GRAVITY = "model", "XGBoost", "information limit", "g R²"

PANELS = {"a": f"{TREES} on the inputs of b"} | {key: s.name for key, s in INPUT_SETS.items()}
KEPLER = "k"
KEPLER_PANEL = "Kepler giants: 3 colours, Teff, log g, [M/H], pseudo-luminosity"

ALL, CLEAN = "all", "neither"
TRAINED_ON, EXTRAPOLATED = "trained on", "labels extrapolated"
SAMPLES = {
    ALL: "all stars",
    CLEAN: "stars in neither of the next two samples",
    TRAINED_ON: "stars of the model's training set",
    EXTRAPOLATED: "labels outside the training range of DistMass: [M/H] < -0.5 or its bit 2",
}
"""Samples of real stars that get scores of their own."""


@dataclass(frozen=True)
class PanelScore:
    """Score of one method for one quantity in one panel.

    Attributes
    ----------
    inputs
        Description of the panel's inputs.
    limit_ratio
        Scatter over that of the information limit, on the same stars; NaN where it is unknown.
    sample
        Key of SAMPLES.
    """

    panel: str
    inputs: str
    method: str
    score: Score
    limit_ratio: float = float("nan")
    sample: str = ALL


@dataclass(frozen=True, eq=False)
class Panel:
    """Predictions by method for the stars of a panel, and their true tokens."""

    key: str
    predictions: dict[str, Predictions]
    truth: StarTokens


def score_panel(panel: Panel, vocabulary: Vocabulary) -> list[PanelScore]:
    """Return the scores of all methods in a panel; trees of panel b are also panel a.

    Parameters
    ----------
    panel
        Predictions and truth.
    vocabulary
        The model's tokens.
    """
    names = ("mass",) if panel.key == KEPLER else EVALUATED
    inputs = KEPLER_PANEL if panel.key == KEPLER else PANELS[panel.key]
    limit = panel.predictions.get(LIMIT)
    limits: dict[str, Score] = {}
    if limit is not None:
        limits = {score.label: score for score in limit.scores(panel.truth, vocabulary, names)}
    found = []
    for method, predictions in panel.predictions.items():
        common = _stars_with_limit(predictions, limit)
        for score, common_score in zip(
            predictions.scores(panel.truth, vocabulary, names),
            common.scores(panel.truth, vocabulary, names),
            strict=True,
        ):
            if not score.stars:
                continue
            at_limit = limits.get(score.label)
            ratio = float("nan")
            if at_limit is not None and at_limit.stars:
                ratio = common_score.scatter / at_limit.scatter
            found.append(PanelScore(panel.key, inputs, method, score, ratio))
    if panel.key == "b":
        found += [replace(x, panel="a", inputs=PANELS["a"]) for x in found if x.method == TREES]
    return found


def sample_rows(stars: Benchmark, bundle: Bundle) -> dict[str, NDArray[np.bool_]]:
    """Return the rows (N,) of each of SAMPLES; empty where the stars are not divided.

    Parameters
    ----------
    stars
        N test stars.
    bundle
        The model; knows the stars of its training set.
    """
    if not stars.real:
        return {}
    trained_on = bundle.calibration.in_training(stars.ids)
    outside = stars.extra.get(OUTSIDE, np.zeros(len(stars))) > 0
    if not (trained_on | outside).any():
        return {}
    return {
        ALL: np.ones(len(stars), dtype=bool),
        CLEAN: ~(trained_on | outside),
        TRAINED_ON: trained_on,
        EXTRAPOLATED: outside,
    }


def score_samples(
    panel: Panel, vocabulary: Vocabulary, samples: Mapping[str, NDArray[np.bool_]]
) -> list[PanelScore]:
    """Return the scores of every sample but ALL, without ratios to the information limit.

    Parameters
    ----------
    panel
        Predictions and truth.
    vocabulary
        The model's tokens.
    samples
        Rows (N,) of each sample.
    """
    found = []
    for sample, rows in samples.items():
        if sample != ALL:
            part = replace(panel, truth=panel.truth.only(rows[:, None]))
            found += [
                replace(score, sample=sample, limit_ratio=float("nan"))
                for score in score_panel(part, vocabulary)
            ]
    return found


def _stars_with_limit(predictions: Predictions, limit: Predictions | None) -> Predictions:
    """Predictions for stars that have an information limit, NaN for the others."""
    if limit is None:
        return predictions
    known = np.isfinite(limit.mean).all(axis=1, keepdims=True)
    return replace(predictions, mean=np.where(known, predictions.mean, np.nan))
