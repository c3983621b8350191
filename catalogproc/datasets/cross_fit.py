"""Trees (XGBoost) on APOGEE's labels, fitted once without each part of their stars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Parts = NDArray[np.integer[Any]]

UNITS = (100.0, 0.2, 0.15, 0.06)
"""Teff in K, log g, [Fe/H] and [alpha/M] in dex that count as equal distances between stars."""

NEAR, NEAR_STARS = 1.5, 5
"""A star is in the domain if so many stars of the fit are within this distance."""

TREES = {
    "tree_method": "hist", "learning_rate": 0.06, "max_depth": 5, "min_child_weight": 5.0,
    "subsample": 0.7, "lambda": 5.0, "verbosity": 0, "nthread": 1, "seed": 1,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class FitStars:
    """N stars of a fit.

    Attributes
    ----------
    inputs
        (N, 4) Teff in K, log g, [Fe/H] and [alpha/M] in dex.
    part
        (N,) part of each star; all rows of a star are in one part.
    """

    inputs: Floats
    part: Parts


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Trees by part: those that were fitted without it.

    Attributes
    ----------
    stars
        The stars of the fit.
    fits
        The trees by part.
    unseen
        (N,) predictions for the stars of the fit by trees that were fitted without them.
    """

    stars: FitStars
    fits: dict[int, Any]
    unseen: Floats

    def predict(self, inputs: Floats, part: Parts) -> Floats:
        """Return predictions (M,), NaN outside the domain and where a label is missing.

        Parameters
        ----------
        inputs
            (M, 4) Teff in K, log g, [Fe/H] and [alpha/M] in dex.
        part
            (M,) part of each star: it is predicted without the stars of this part. The mean of
            all fits predicts stars of a part that no star of the fit has.
        """
        values = np.full(len(inputs), np.nan)
        known = np.flatnonzero(np.isfinite(inputs).all(axis=1))
        known = known[self.covers(inputs[known])]
        if not known.size:
            return values
        found = {number: _predict(fit, inputs[known]) for number, fit in self.fits.items()}
        values[known] = np.mean(list(found.values()), axis=0)
        for number, prediction in found.items():
            own = part[known] == number
            values[known[own]] = prediction[own]
        return values

    def covers(self, inputs: Floats) -> NDArray[np.bool_]:
        """Return which stars (M,) have NEAR_STARS stars of the fit within NEAR.

        Parameters
        ----------
        inputs
            (M, 4) as in :meth:`predict`, all known.
        """
        distance, _ = self.neighbours(inputs, NEAR_STARS)
        return np.asarray(distance[:, -1] < NEAR)

    def neighbours(self, inputs: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return distances and numbers (M, count) of the most similar stars of the fit.

        Parameters
        ----------
        inputs
            (M, 4) as in :meth:`predict`, all known.
        count
            How many stars.
        """
        distance, near = self._tree.query(inputs / UNITS, k=np.arange(count) + 1)
        return distance, np.minimum(near, len(self.stars.inputs) - 1)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.stars.inputs / UNITS)


def cross_fit(
    stars: FitStars, truth: Floats, weight: Floats, options: Mapping[str, Any], rounds: int
) -> CrossFit:
    """Fit trees, once without each part of the stars.

    Parameters
    ----------
    stars
        At least two parts.
    truth, weight
        (N,) what is fitted, and weights of the stars.
    options
        Of XGBoost, in addition to TREES: the objective at least.
    rounds
        Number of trees.
    """
    import xgboost

    unseen = np.full(len(truth), np.nan)
    fits = {}
    for number in np.unique(stars.part).tolist():
        out = stars.part == number
        data = xgboost.DMatrix(stars.inputs[~out], truth[~out], weight=weight[~out])
        fits[number] = xgboost.train(TREES | dict(options), data, rounds)
        unseen[out] = _predict(fits[number], stars.inputs[out])
    return CrossFit(stars, fits, unseen)


def _predict(fit: Any, inputs: Floats) -> Floats:
    import xgboost

    return np.asarray(fit.predict(xgboost.DMatrix(inputs)), dtype=np.float64)
