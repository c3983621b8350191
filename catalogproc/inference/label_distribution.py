"""Calibrated distributions of predicted labels: total uncertainties and percentiles.

A Gaussian has the total uncertainty that the bundle's calibration gives; a distribution of
several Gaussians half of the difference of its 16th and 84th percentiles, whose probabilities are
calibrated (network/uncertainty_calibration.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.uncertainty_calibration import LabelCalibration

if TYPE_CHECKING:
    from catalogproc.network.error_propagation import Propagated
    from catalogproc.network.mixture import Mixture
    from catalogproc.network.predictor import Prediction

Floats = NDArray[np.float64]

POSITIVE = ("mass", "g_fakemag")
"""Labels whose percentiles are computed in the logarithm, because they are positive."""

LOW, HIGH = 0.158655, 0.841345  # -1 and +1 sigma of a Gaussian


@dataclass(frozen=True, eq=False)
class PropagatedPrediction:
    """Predictions of N stars with the uncertainties that the errors of their tokens cause.

    Attributes
    ----------
    prediction
        The model's.
    propagated, published
        By the errors as the job takes them, and to first order by the errors as published;
        None where none are propagated. A model that reads errors has no ``published``: its sigma
        is the total uncertainty, whatever the errors.
    nonlinear
        Stars (N,) for which first order and draws disagree, if both were computed.
    without_parallax
        Predictions without the tokens that are made of the parallax: of the labels that are
        compared with it, and of those that these are interpreted with. None where no label is.
    """

    prediction: Prediction
    propagated: Propagated | None
    published: Propagated | None
    nonlinear: NDArray[np.bool_]
    without_parallax: Prediction | None = None


@dataclass(frozen=True, eq=False)
class LabelDistribution:
    """The distribution of one label for N stars.

    Attributes
    ----------
    calibration
        Of the label.
    mean, sigma
        (N,) prediction, and total 1-sigma uncertainty.
    mixture
        The network's distribution, if it is no single Gaussian.
    factor
        (N,) by which the calibration multiplies normal scores of ``mixture``.
    computed
        Percentiles of ``mixture`` (N,) by level, as far as they were computed.
    """

    calibration: LabelCalibration
    mean: Floats
    sigma: Floats
    mixture: Mixture | None = None
    factor: Floats | None = None
    computed: dict[float, Floats] = field(default_factory=dict)

    def percentile(self, level: float) -> Floats:
        """Return the value (N,) below which the truth lies with a given probability.

        Parameters
        ----------
        level
            The probability, 0 to 1.
        """
        if self.mixture is None or self.factor is None:
            return self.calibration.percentile(self.mean, self.sigma, level)
        if level not in self.computed:
            from scipy.special import ndtr

            z = float(np.interp(level, self.calibration.levels, self.calibration.quantiles))
            self.computed[level] = self.mixture.percentile(ndtr(z * self.factor))
        return np.where(np.isnan(self.mean), np.nan, self.computed[level])


def label_distribution(
    found: PropagatedPrediction,
    label: str,
    calibration: Mapping[str, LabelCalibration],
    columns: Mapping[str, NDArray[Any]],
) -> LabelDistribution:
    """Return the calibrated distribution of a label.

    Parameters
    ----------
    found
        Predictions of N stars.
    label
        One of the predicted labels.
    calibration
        By label.
    columns
        Columns (N,) that calibrations may depend on.
    """
    prediction, published = found.prediction, found.published
    k, used = prediction.labels.index(label), calibration_of(calibration, label)
    mean, network_sigma = (x[:, k].astype(np.float64) for x in (prediction.mean, prediction.sigma))
    total, factor = used.sigma(network_sigma, columns), None
    mixture = prediction.mixtures.get(label)
    computed: dict[float, Floats] = {}
    if mixture is not None:
        factor = total / network_sigma
        shape = LabelDistribution(used, mean, total, mixture, factor, computed)
        total = 0.5 * (shape.percentile(HIGH) - shape.percentile(LOW))
    if published is not None:
        total = np.maximum(total, published.sigma[:, k])
    return LabelDistribution(used, mean, total, mixture, factor, computed)


def calibration_of(calibration: Mapping[str, LabelCalibration], label: str) -> LabelCalibration:
    """Return a label's calibration; without one, that of a Gaussian.

    Parameters
    ----------
    calibration
        By label.
    label
        A label; those of :data:`POSITIVE` get a Gaussian in the logarithm.
    """
    found = calibration.get(label, LabelCalibration())
    return found if found.terms else replace(found, logarithmic=label in POSITIVE)
