"""How good predictions of one quantity are: scatter, skill, errors; over all stars, by decile.

The scatter alone does not tell what a prediction knows: one that is the same for all stars
scatters by no more than the stars do. So every score has the spread of the true values, R2, and
the slopes of both regressions, and :func:`by_decile` the bias along the true values: it is that of
a method that pulls every star towards the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.evaluation.quantities import QUANTITIES, Quantity

Floats = NDArray[np.floating]

MAX_Z = 6.0
"""Larger values of z are set to this one, so that one outlier does not make the result."""

DECILES = 10
NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """Statistics of predicted minus true for one quantity, in its unit.

    Attributes
    ----------
    scatter
        1.4826 times the median absolute deviation.
    bias, p16, p84
        Median, 16th and 84th percentile.
    rms
        Root mean square.
    z_std
        Standard deviation of z = (predicted - true) / sigma, where sigma includes the error of
        the true value, of the token; NaN without sigma. At most MAX_Z either way.
    within_1_sigma, within_2_sigma
        Shares of stars whose absolute z is below 1 and 2; NaN without sigma.
    spread
        1.4826 times the median absolute deviation of the true values; of their natural logarithm
        for relative quantities, in per cent.
    r2
        1 minus the mean square residual over the variance of the true values.
    correlation
        Pearson's, of predicted and true.
    slope, slope_of_truth
        Of the regression of predicted on true, and of true on predicted. A prediction that is the
        mean of the true values at its inputs has a slope of R2, and a slope of the truth of 1.
    """

    label: str
    stars: int
    scatter: float = NAN
    bias: float = NAN
    p16: float = NAN
    p84: float = NAN
    rms: float = NAN
    z_std: float = NAN
    within_1_sigma: float = NAN
    within_2_sigma: float = NAN
    spread: float = NAN
    r2: float = NAN
    correlation: float = NAN
    slope: float = NAN
    slope_of_truth: float = NAN


@dataclass(frozen=True)
class DecileScore:
    """Predictions of the stars in one range of true values.

    Attributes
    ----------
    low, median, high
        Smallest, median and largest true value, in the quantity's unit.
    stars, bias, scatter, within_1_sigma
        As in :class:`Score`.
    """

    low: float
    median: float
    high: float
    stars: int
    bias: float
    scatter: float
    within_1_sigma: float


def score(
    label: str,
    predicted: Floats,
    true: Floats,
    sigma: Floats | None = None,
    true_error: Floats | None = None,
) -> Score:
    """Return the score of predictions of one label or quantity.

    Parameters
    ----------
    label
        Key of QUANTITIES, or the name of a token.
    predicted, true
        Tokens (N,) in their unit; stars where either is NaN are left out.
    sigma
        Uncertainties (N,) of the predicted tokens.
    true_error
        Errors (N,) of the true tokens; NaN is 0.
    """
    quantity = QUANTITIES.get(label, Quantity(label, label, "", label))
    residual = quantity.residual(predicted, true)
    known = np.isfinite(residual)
    if not known.any():
        return Score(label, 0)
    good = residual[known]
    p16, bias, p84 = np.percentile(good, (16, 50, 84))
    z = _z(predicted, true, sigma, true_error)[known]
    shares = [NAN if sigma is None else float(np.mean(np.abs(z) < limit)) for limit in (1, 2)]
    return Score(
        label, int(known.sum()), robust_spread(good), float(bias), float(p16), float(p84),
        float(np.sqrt(np.mean(good**2))), float(np.std(z)), *shares,
        **_skill(quantity, predicted[known], true[known]),
    )  # fmt: skip


def by_decile(
    label: str,
    predicted: Floats,
    true: Floats,
    sigma: Floats | None = None,
    true_error: Floats | None = None,
) -> tuple[DecileScore, ...]:
    """Return scores in DECILES ranges of the true values with equally many stars each.

    Parameters
    ----------
    label, predicted, true, sigma, true_error
        As for :func:`score`.
    """
    quantity = QUANTITIES.get(label, Quantity(label, label, "", label))
    value = quantity.from_token(true)
    known = np.flatnonzero(np.isfinite(quantity.residual(predicted, true)))
    order = known[np.argsort(value[known], kind="stable")]
    found = []
    for rows in np.array_split(order, DECILES):
        if not len(rows):
            continue
        errors = [None if x is None else x[rows] for x in (sigma, true_error)]
        part = score(label, predicted[rows], true[rows], *errors)
        found.append(
            DecileScore(
                float(value[rows[0]]), float(np.median(value[rows])), float(value[rows[-1]]),
                part.stars, part.bias, part.scatter, part.within_1_sigma,
            )
        )  # fmt: skip
    return tuple(found)


def bootstrap(
    label: str, predicted: Floats, true: Floats, draws: int = 1000, seed: int = 1
) -> dict[str, tuple[float, float]]:
    """Return the 16th and 84th percentile of each statistic of a score over resampled stars.

    Parameters
    ----------
    label, predicted, true
        As for :func:`score`.
    draws
        Number of samples, drawn with replacement.
    seed
        Random seed.
    """
    known = np.flatnonzero(np.isfinite(predicted) & np.isfinite(true))
    random, found = np.random.default_rng(seed), []
    for _ in range(draws if len(known) else 0):
        rows = random.choice(known, len(known))
        found.append(score(label, predicted[rows], true[rows]))
    names = ("scatter", "bias", "spread", "r2", "correlation", "slope", "slope_of_truth")
    columns = {name: np.array([getattr(one, name) for one in found]) for name in names}
    return {name: _range(column[np.isfinite(column)]) for name, column in columns.items()}


def _range(values: Floats) -> tuple[float, float]:
    """The 16th and 84th percentile of finite numbers; NaN without any."""
    if not len(values):
        return NAN, NAN
    low, high = np.percentile(values, (16, 84))
    return float(low), float(high)


def robust_spread(values: Floats) -> float:
    """Return 1.4826 times the median absolute deviation from the median.

    Parameters
    ----------
    values
        Finite numbers (N,).
    """
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _z(predicted: Floats, true: Floats, sigma: Floats | None, error: Floats | None) -> Floats:
    """Residuals of the tokens over their uncertainties (N,); NaN without uncertainties."""
    if sigma is None:
        return np.full(len(true), np.nan)
    total = np.hypot(sigma, 0.0 if error is None else np.nan_to_num(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (predicted - true) / total
    return np.asarray(np.clip(z.astype(np.float64), -MAX_Z, MAX_Z))


def _skill(quantity: Quantity, predicted: Floats, true: Floats) -> dict[str, Any]:
    """Spread, R2, correlation and slopes of stars whose values are all known."""
    x, y = (np.asarray(quantity.from_token(token), dtype=np.float64) for token in (true, predicted))
    if quantity.relative:
        x, y = 100.0 * np.log(x), 100.0 * np.log(y)
    found = {"spread": robust_spread(x)}
    if len(x) < 3 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return found
    covariance = np.cov(x, y, bias=True)
    (var_x, both), (_, var_y) = covariance
    return found | {
        "r2": float(1.0 - np.mean((y - x) ** 2) / var_x),
        "correlation": float(both / np.sqrt(var_x * var_y)),
        "slope": float(both / var_x),
        "slope_of_truth": float(both / var_y),
    }
