"""Masses and ages of giants without asteroseismology, learned from those that have it.

Trees (XGBoost) predict mass and log age from APOGEE's labels (Teff, log g, [Fe/H], [alpha/M]),
fitted on stars with seismic masses and ages. A star is predicted by trees that were fitted without
it. The error of a prediction is the scatter of the truth about the predictions among the most
similar stars, found from stars that the trees had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Parts = NDArray[np.integer[Any]]

UNITS = (100.0, 0.2, 0.15, 0.06)
"""Teff in K, log g, [Fe/H] and [alpha/M] in dex that count as equal distances between stars."""

NEIGHBOURS = 200
"""The error of a prediction is the scatter of this many stars, the most similar ones."""

NEAR, NEAR_STARS = 1.5, 5
"""A star is in the teacher's domain if so many stars of the fit are within this distance."""

LEAST = 0.5
"""The error is at least this fraction of the scatter: errors of measurements may be overstated."""

TREES = {
    "objective": "reg:squarederror", "tree_method": "hist", "learning_rate": 0.06, "max_depth": 5,
    "min_child_weight": 5.0, "subsample": 0.7, "lambda": 5.0, "base_score": 0.0, "verbosity": 0,
    "nthread": 1, "seed": 1,
}  # fmt: skip
ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Measured:
    """N stars with APOGEE's labels and a measured quantity.

    Attributes
    ----------
    inputs
        (N, 4) Teff in K, log g, [Fe/H] and [alpha/M] in dex.
    values, errors
        (N,) the quantity, and its error.
    part
        (N,) part of each star; all rows of a star are in one part.
    """

    inputs: Floats
    values: Floats
    errors: Floats
    part: Parts


@dataclass(frozen=True, eq=False)
class Teacher:
    """Trees fitted on N stars, and how far they are off.

    Attributes
    ----------
    stars
        The stars of the fit.
    residual
        (N,) what was measured minus the prediction by trees that were fitted without the star.
    center
        Added to the predictions of the trees.
    fits
        By part: the trees that were fitted without it.
    """

    stars: Measured
    residual: Floats
    center: float
    fits: dict[int, Any]

    def predict(self, inputs: Floats, part: Parts) -> tuple[Floats, Floats]:
        """Return predictions and their errors (M,).

        Parameters
        ----------
        inputs
            (M, 4) Teff in K, log g, [Fe/H] and [alpha/M] in dex.
        part
            (M,) part of each star: it is predicted without the stars of this part. The mean of
            all fits predicts stars of a part that no star of the fit has.

        Returns
        -------
        values, errors
            NaN outside the domain, and where a label is missing.
        """
        values, errors = np.full((2, len(inputs)), np.nan)
        known = np.flatnonzero(np.isfinite(inputs).all(axis=1))
        known = known[self.covers(inputs[known])]
        if not known.size:
            return values, errors
        found = {number: _predict(fit, inputs[known]) for number, fit in self.fits.items()}
        values[known] = np.mean(list(found.values()), axis=0) + self.center
        for number, prediction in found.items():
            own = part[known] == number
            values[known[own]] = prediction[own] + self.center
        errors[known] = self.error(inputs[known])
        return values, errors

    def covers(self, inputs: Floats) -> NDArray[np.bool_]:
        """Return which stars (M,) have NEAR_STARS stars of the fit within NEAR.

        Parameters
        ----------
        inputs
            (M, 4) as in :meth:`predict`, all known.
        """
        distance, _ = self._neighbours(inputs, NEAR_STARS)
        return np.asarray(distance[:, -1] < NEAR)

    def error(self, inputs: Floats) -> Floats:
        """Return the error (M,): the scatter of similar stars less their errors of measurement.

        The scatter is the range that holds 68 % of the absolute residuals; the errors are taken
        off in quadrature, to not less than LEAST of the scatter.

        Parameters
        ----------
        inputs
            (M, 4) as in :meth:`predict`, all known.
        """
        _, near = self._neighbours(inputs, min(NEIGHBOURS, len(self.residual)))
        scatter = np.quantile(np.abs(self.residual[near]), 0.6827, axis=1)
        measured = np.median(self.stars.errors[near], axis=1)
        own = np.sqrt(np.maximum(scatter**2 - measured**2, 0.0))
        return np.asarray(np.maximum(own, LEAST * scatter))

    def _neighbours(self, inputs: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        distance, near = self._tree.query(inputs / UNITS, k=np.arange(count) + 1)
        return distance, np.minimum(near, len(self.residual) - 1)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.stars.inputs / UNITS)


def fit_teacher(stars: Measured) -> Teacher:
    """Fit trees, once without each part of the stars.

    Parameters
    ----------
    stars
        At least two parts. Stars with large relative errors weigh less.
    """
    center = float(np.median(stars.values))
    # Relative errors: those of masses grow with mass, and weights that do so bias the mean.
    relative = stars.errors / stars.values
    weight = 1.0 / (1.0 + np.square(relative / np.median(relative)))
    predicted = np.full(len(stars.values), np.nan)
    fits = {}
    for number in np.unique(stars.part).tolist():
        out = stars.part == number
        fits[number] = _fit(stars.inputs[~out], stars.values[~out] - center, weight[~out])
        predicted[out] = _predict(fits[number], stars.inputs[out]) + center
    return Teacher(stars, stars.values - predicted, center, fits)


def _fit(inputs: Floats, values: Floats, weight: Floats) -> Any:
    import xgboost

    return xgboost.train(dict(TREES), xgboost.DMatrix(inputs, values, weight=weight), ROUNDS)


def _predict(fit: Any, inputs: Floats) -> Floats:
    import xgboost

    return np.asarray(fit.predict(xgboost.DMatrix(inputs)), dtype=np.float64)
