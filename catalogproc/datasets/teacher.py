"""Masses, ages and stages of giants without asteroseismology, learned from those that have it.

Trees (XGBoost) predict mass, log age and the probability of the red clump from APOGEE's labels
(Teff, log g, [Fe/H], [alpha/M]), fitted on seismic stars. A star is predicted by trees that were
fitted without it. The error of a mass or an age is the scatter of the truth about the predictions
among the most similar stars, found from stars that the trees had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.cross_fit import CrossFit, FitStars, Floats, Parts, cross_fit
from catalogproc.datasets.probability_scores import scores

NEIGHBOURS = 200
"""The error of a prediction is the scatter of this many stars, the most similar ones."""

LEAST = 0.5
"""The error is at least this fraction of the scatter: errors of measurements may be overstated."""

REGRESSION = {"objective": "reg:squarederror", "base_score": 0.0}
CLASSES = {"objective": "binary:logistic"}
ROUNDS, CLASS_ROUNDS = 200, 400


@dataclass(frozen=True, eq=False)
class Measured(FitStars):
    """N stars with APOGEE's labels and a measured quantity.

    Attributes
    ----------
    values, errors
        (N,) the quantity, and its error.
    """

    values: Floats
    errors: Floats


@dataclass(frozen=True, eq=False)
class Teacher:
    """Trees fitted on N stars, and how far they are off.

    Attributes
    ----------
    stars
        The stars of the fit.
    trees
        Predict the quantity less ``center``.
    center
        Added to the predictions of the trees.
    """

    stars: Measured
    trees: CrossFit
    center: float

    @property
    def residual(self) -> Floats:
        """What was measured minus the prediction by trees fitted without the star (N,)."""
        return self.stars.values - (self.trees.unseen + self.center)

    @property
    def facts(self) -> dict[str, float]:
        """Number of stars, and their scatter about predictions by trees fitted without them."""
        residual = self.residual - np.median(self.residual)
        return {
            "stars": len(residual),
            "bias": float(np.median(self.residual)),
            "scatter": float(1.4826 * np.median(np.abs(residual))),
            "standard deviation": float(residual.std()),
        }

    def predict(self, inputs: Floats, part: Parts) -> tuple[Floats, Floats]:
        """Return predictions and their errors (M,), NaN where :class:`CrossFit` predicts nothing.

        Parameters
        ----------
        inputs, part
            As :meth:`CrossFit.predict` takes them.
        """
        values = self.trees.predict(inputs, part) + self.center
        known = np.isfinite(values)
        errors = np.full(len(inputs), np.nan)
        errors[known] = self.error(inputs[known])
        return values, errors

    def error(self, inputs: Floats) -> Floats:
        """Return the error (M,): the scatter of similar stars less their errors of measurement.

        The scatter is the range that holds 68 % of the absolute residuals; the errors are taken
        off in quadrature, to not less than LEAST of the scatter.

        Parameters
        ----------
        inputs
            (M, 4) as in :meth:`predict`, all known.
        """
        if not len(inputs):
            return np.empty(0)
        residual = self.residual
        _, near = self.trees.neighbours(inputs, min(NEIGHBOURS, len(residual)))
        scatter = np.quantile(np.abs(residual[near]), 0.6827, axis=1)
        measured = np.median(self.stars.errors[near], axis=1)
        own = np.sqrt(np.maximum(scatter**2 - measured**2, 0.0))
        return np.asarray(np.maximum(own, LEAST * scatter))


@dataclass(frozen=True, eq=False)
class Classifier:
    """Trees that tell two kinds of stars apart, fitted on N stars.

    Attributes
    ----------
    is_one
        (N,) 1 for stars of the kind, else 0.
    fair
        (N,) whether stars of both kinds could be in the star's sample. The others widen the
        domain, and the trees are fitted without them.
    trees
        Predict the probability of the kind.
    """

    is_one: Floats
    fair: NDArray[np.bool_]
    trees: CrossFit

    @property
    def facts(self) -> dict[str, Any]:
        """How good the probabilities of trees fitted without the star are."""
        return scores(self.is_one[self.fair], self.trees.unseen[self.fair]).to_dict()

    def predict(self, inputs: Floats, part: Parts) -> tuple[Floats, Floats]:
        """Return probabilities (M,) and errors of zero; NaN where nothing is predicted.

        With an error of zero, the mean that a network learns with a Gaussian likelihood is the
        mean of these numbers, which is the probability.

        Parameters
        ----------
        inputs, part
            As :meth:`CrossFit.predict` takes them.
        """
        values = self.trees.predict(inputs, part)
        return values, np.where(np.isfinite(values), 0.0, np.nan)


def fit_teacher(stars: Measured) -> Teacher:
    """Fit trees to a measured quantity.

    Parameters
    ----------
    stars
        At least two parts. Stars with large relative errors weigh less.
    """
    center = float(np.median(stars.values))
    # Relative errors: those of masses grow with mass, and weights that do so bias the mean.
    relative = stars.errors / stars.values
    weight = 1.0 / (1.0 + np.square(relative / np.median(relative)))
    trees = cross_fit(stars, stars.values - center, weight, REGRESSION, ROUNDS)
    return Teacher(stars, trees, center)


def fit_classifier(stars: FitStars, is_one: Floats, fair: NDArray[np.bool_]) -> Classifier:
    """Fit trees that tell stars of a kind from others.

    Parameters
    ----------
    stars
        At least two parts.
    is_one, fair
        (N,) as the attributes of :class:`Classifier`.
    """
    trees = cross_fit(stars, is_one, fair.astype(np.float64), CLASSES, CLASS_ROUNDS)
    return Classifier(is_one, fair, trees)
