"""Calibrate a model's uncertainties on stars that it was not trained on.

The sigma that the network predicts is scaled until 68.27 % of stars lie within it (70 % where
residuals have wide tails), whatever their predicted sigma, magnitude, reddening, gravity,
metallicity and place in the latent space: ln(true sigma / predicted sigma) is a sum of piecewise
linear functions of the former, fitted as the conditional quantile of ln|true - mean| and monotone
in the predicted sigma, and of a function of the place (local_fit.py). The distribution of the
residuals over this sigma then gives the percentiles (Kuleshov, Fenner & Ermon 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import Holdout
from catalogproc.features.input_errors import inflate_errors
from catalogproc.inference.catalog_columns import (
    CONTEXT,
    INDEPENDENT,
    LABEL_COLUMNS,
    luminosity_context,
)
from catalogproc.inference.domain_checks import (
    beyond_box,
    checkable,
    held_out_residuals,
    reduced_chi2,
)
from catalogproc.inference.label_distribution import POSITIVE
from catalogproc.job import Job
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.local_calibration import CLOSENESS, LocalTerm
from catalogproc.network.mixture import Mixture
from catalogproc.network.predictor import Prediction, Predictor
from catalogproc.network.questions import Questions
from catalogproc.network.uncertainty_calibration import (
    LEVELS,
    SIGMA,
    LabelCalibration,
    Latent,
    Term,
    UncertaintyCalibration,
)
from catalogproc.training.latent_fit import fit_latent
from catalogproc.training.local_fit import fit_local_term, fit_places
from catalogproc.training.quantile_regression import quantile_regression
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]

AT_MOST = 0.70
"""Largest fraction of stars within one sigma: where residuals have wider tails than a
Gaussian, sigma is larger, up to their standard deviation, but no more stars are within it."""

TAIL = 6.0
"""Residuals beyond this many sigmas count as this many in their standard deviation."""

KNOTS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.42, 0.55, 0.68, 0.8, 0.9, 0.96, 0.99)
"""Knots of the functions, as quantiles of the stars."""

SMOOTHNESS = 20.0
"""Weight of the functions' second differences, divided by the number of stars."""

COMMON_BOX, COMMON_CHI2 = 0.995, 0.998
"""Fractions of giants within the limits of the out-of-domain checks. Most spectra of other objects
are far beyond each limit (tests/evaluation/test_coverage.py); together with that of the latent
distance the limits exclude 1 % of clean giants."""

COMMON_RESIDUAL = 0.99
"""Fraction of giants whose held-out residuals determine the covariance."""

CHI2_RIDGE = 1e-2
"""Fraction of the mean variance of the held-out residuals that is added in each direction: some
hardly vary."""

FEWEST = 500
"""Smallest number of stars for a calibration."""

FEWEST_RESIDUALS = 200
"""Smallest number of stars for the covariance of the ten held-out residuals."""

CARD = "CARD.md"


def fit_uncertainties(predictor: Predictor, holdout: Holdout) -> UncertaintyCalibration:
    """Return the calibration of a model's uncertainties and the limits of its domain checks.

    Parameters
    ----------
    predictor
        The model.
    holdout
        Stars that it was not trained on. Fewer than FEWEST give no calibration.
    """
    if holdout.default_read.sum() < FEWEST:
        return UncertaintyCalibration()
    bundle = predictor.bundle
    latent, closeness = _latent(predictor, holdout)
    by_label = fit_label_calibrations(predictor, holdout, closeness)
    beyond = beyond_box(bundle, holdout.values[holdout.default_read], Job("default").coefficients)
    margin = float(np.quantile(beyond.max(axis=1), COMMON_BOX))
    covariance, chi2 = _fit_chi2(predictor, holdout) if checkable(bundle) else (None, 0.0)
    return UncertaintyCalibration(by_label, latent, margin, chi2, residual_covariance=covariance)


def fit_label_calibrations(
    predictor: Predictor, holdout: Holdout, closeness: Floats | None = None
) -> dict[str, LabelCalibration]:
    """Return the calibrations of the labels of which enough stars are known.

    Parameters
    ----------
    predictor, holdout
        As for :func:`fit_uncertainties`.
    closeness
        (N, M) of the stars to the places of a local calibration; None for none.
    """
    bundle = predictor.bundle
    labels = [label for label in LABEL_COLUMNS if label in bundle.requestable]
    questions = Questions(predictor, holdout.by_parallax(bundle.vocabulary), INDEPENDENT)
    if bundle.reads_errors:  # its sigma is the total, and has no lower limit
        prediction = questions.predict(holdout.inputs, labels)
        input_sigma = np.zeros(prediction.mean.shape)
    else:
        prediction, jacobian = questions.differentiate(holdout.inputs, labels)
        errors = np.where(np.isnan(holdout.values), np.nan, holdout.errors)
        input_sigma = jacobian.propagate(InputNoise(errors)).sigma
    names = luminosity_context(labels)
    apart = questions.without_hidden(holdout.inputs, prediction, names)
    at = bundle.vocabulary.columns(labels)
    by_label = {}
    for k, label in enumerate(labels):
        predictions = LabelPredictions(
            mean=prediction.mean[:, k].astype(np.float64),
            sigma=prediction.sigma[:, k].astype(np.float64),
            input_sigma=input_sigma[:, k],
            truth=np.where(holdout.default_read, holdout.truth[:, at[k]], np.nan),
            truth_error=holdout.truth_errors[:, at[k]],
            ids=holdout.ids,
        )
        mixture = prediction.mixtures.get(label)
        if mixture is not None:
            predictions = _as_gaussian(predictions, mixture)
        logarithmic = label in POSITIVE and mixture is None
        context = _context(apart if label in INDEPENDENT else prediction, holdout)
        if closeness is not None and label not in INDEPENDENT:
            context[CLOSENESS] = closeness
        fitted = fit_label_calibration(predictions, context, logarithmic)
        if fitted is not None:
            by_label[label] = fitted
    return by_label


def _context(prediction: Prediction, holdout: Holdout) -> dict[str, Floats]:
    """Return the columns (N,) that the uncertainty of a label may depend on."""
    means = prediction.mean.T.astype(np.float64)
    columns = dict(zip((LABEL_COLUMNS[name] for name in prediction.labels), means, strict=True))
    columns["phot_g_mean_mag"] = holdout.g_mag
    return {name: columns[name] for name in CONTEXT if name in columns}


def _latent(predictor: Predictor, holdout: Holdout) -> tuple[Latent, Floats | None]:
    """Return the latent Gaussian with its places, and the closeness (N, M) of the stars to them."""
    vocabulary = predictor.bundle.vocabulary
    summaries, present = predictor.summaries(holdout.inputs), np.isfinite(holdout.values)
    bp, rp = (present[:, vocabulary.coefficient_columns(band)].any(axis=1) for band in BANDS)
    latent = fit_latent(summaries, present, one_band=bp != rp)
    residuals = latent.residual(summaries.astype(np.float64), present)
    coefficients = np.array([token.kind == "coefficient" for token in vocabulary.tokens])
    rows = holdout.default_read & present[:, coefficients].any(axis=1)
    places = fit_places(residuals[rows], present[rows], coefficients, holdout.ids[rows])
    if places is None:
        return latent, None
    return replace(latent, places=places), places.closeness(residuals, present)


def _fit_chi2(predictor: Predictor, holdout: Holdout) -> tuple[Floats | None, float]:
    """Return the covariance of the held-out residuals, and the limit of their chi-square."""
    rows, vocabulary = holdout.default_read, predictor.bundle.vocabulary
    _, errors = inflate_errors(holdout.values, holdout.errors, holdout.g_mag, vocabulary)
    residuals = held_out_residuals(predictor, holdout.inputs.rows(rows), errors[rows])
    covariance = residual_covariance(residuals)
    return covariance, float(np.nanquantile(reduced_chi2(residuals, covariance), COMMON_CHI2))


def residual_covariance(residuals: Floats) -> Floats | None:
    """Return the covariance (n, n) of the residuals of held-out coefficients.

    The stars with the largest residuals are left out: these are what the test is to find.

    Parameters
    ----------
    residuals
        (N, n), over their errors; NaN where unknown.

    Returns
    -------
    None from fewer than FEWEST_RESIDUALS stars that have all of them.
    """
    known = residuals[np.isfinite(residuals).all(axis=1)]
    if len(known) < FEWEST_RESIDUALS:
        return None
    largest = np.abs(known).max(axis=1)
    usual = known[largest <= np.quantile(largest, COMMON_RESIDUAL)]
    covariance = usual.T @ usual / len(usual)
    ridge = CHI2_RIDGE * np.trace(covariance) / len(covariance)
    return np.asarray(covariance + ridge * np.eye(len(covariance)))


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """Predictions of one label for N stars.

    Attributes
    ----------
    mean, sigma
        (N,) mean and sigma of the network.
    input_sigma
        (N,) input uncertainty: sigma from the errors of the inputs.
    truth, truth_error
        (N,) true value, NaN where unknown, and its error, 0 where it is exact.
    ids
        (N,) identifiers: a star may be among them twice, read differently.
    """

    mean: Floats
    sigma: Floats
    input_sigma: Floats
    truth: Floats
    truth_error: Floats
    ids: NDArray[np.int64]

    def rows(self, which: NDArray[np.bool_]) -> LabelPredictions:
        """Return the predictions of some stars.

        Parameters
        ----------
        which
            (N,) mask.
        """
        return LabelPredictions(*(value[which] for value in vars(self).values()))


def _as_gaussian(predictions: LabelPredictions, mixture: Mixture) -> LabelPredictions:
    """Return predictions whose residuals over sigma are the normal scores of the truth.

    Scores of a calibrated distribution are standard normal numbers, whatever its shape; the error
    of the truth widens the distribution.
    """
    error = predictions.truth_error
    widened = replace(mixture, sigmas=np.hypot(mixture.sigmas, np.nan_to_num(error)[:, None]))
    score = widened.score(predictions.truth)
    truth = predictions.mean + predictions.sigma * score
    return replace(predictions, truth=truth, truth_error=np.zeros_like(error))


def fit_label_calibration(
    predictions: LabelPredictions, context: Mapping[str, Floats], logarithmic: bool = False
) -> LabelCalibration | None:
    """Fit the calibration of one label.

    The catalog's uncertainty is the calibrated sigma or the input uncertainty, whichever is
    larger: stars within the latter do not constrain the former. Where the truth is a
    measurement, the residual is reduced by the share of its error in the quadratic sum with the
    predicted sigma.

    Parameters
    ----------
    predictions
        Predictions and true values.
    context
        Columns (N,) by name that the calibration may depend on, besides sigma; and CLOSENESS
        (N, M), if it may depend on the place in the latent space.
    logarithmic
        Whether percentiles are those of the logarithm of the label.

    Returns
    -------
    The calibration; None from fewer than FEWEST known stars.
    """
    p = predictions
    known = np.isfinite(p.mean) & np.isfinite(p.truth) & (p.sigma > 0)
    if logarithmic:
        known &= (p.mean > 0) & (p.truth > 0)
    if known.sum() < FEWEST:
        return None
    p = p.rows(known)
    residual = (p.truth - p.mean) * p.sigma / np.hypot(p.sigma, p.truth_error)
    variables = {SIGMA: np.log(p.sigma)} | {
        name: x[known]
        for name, x in context.items()
        if name != CLOSENESS and np.isfinite(x[known]).all()
    }
    covered = np.abs(residual) < p.input_sigma
    log_ratio = np.log(np.maximum(np.where(covered, 0.0, np.abs(residual)) / p.sigma, 1e-6))
    terms = _terms(log_ratio, variables)
    local: tuple[LocalTerm, ...] = ()
    if CLOSENESS in context:
        variables[CLOSENESS] = context[CLOSENESS][known]
        left = log_ratio - np.log(LabelCalibration(terms).sigma(p.sigma, variables) / p.sigma)
        local = fit_local_term(left, variables[CLOSENESS], p.ids)
    before = LabelCalibration((*terms, *local)).sigma(p.sigma, variables)
    widening = _widening(residual / np.maximum(before, p.input_sigma))
    first = replace(terms[0], values=terms[0].values + np.log(widening))
    all_terms: tuple[Term | LocalTerm, ...] = (first, *terms[1:], *local)
    total = np.maximum(LabelCalibration(all_terms).sigma(p.sigma, variables), p.input_sigma)
    if logarithmic:
        z = np.log1p(np.maximum(residual / p.mean, 1e-6 - 1.0)) / (total / p.mean)
    else:
        z = residual / total
    return LabelCalibration(all_terms, np.array(LEVELS), np.quantile(z, LEVELS), logarithmic)


def _widening(z: Floats) -> float:
    """Return the factor of sigma for the tails of residuals over sigma (n,): at least 1."""
    deviation = float(np.clip(z, -TAIL, TAIL).std())
    return max(1.0, min(deviation, float(np.quantile(np.abs(z), AT_MOST))))


def _terms(log_ratio: Floats, variables: Mapping[str, Floats]) -> tuple[Term, ...]:
    """Fit the functions whose sum is the conditional quantile of ln(|residual| / sigma)."""
    knots = {name: np.unique(np.quantile(x, KNOTS)) for name, x in variables.items()}
    designs = [_hats(x, knots[name]) for name, x in variables.items()]
    # The function of sigma is parametrised by its first value and its steps: a bound on each
    # step keeps sigma times its exponential monotone.
    steps = np.tril(np.ones((len(knots[SIGMA]), len(knots[SIGMA]))))
    design = np.hstack([designs[0] @ steps, *designs[1:]])
    sizes = [len(item) for item in knots.values()]
    starts = np.cumsum([0, *sizes])
    bounds: list[tuple[float | None, float | None]] = [(None, None)]
    bounds += [(-gap, None) for gap in np.diff(knots[SIGMA])]
    bounds += [(-3.0, 3.0)] * (design.shape[1] - len(bounds))
    penalty = np.sqrt(SMOOTHNESS) * _roughness(sizes, steps)
    solution = quantile_regression(log_ratio, design, penalty, bounds)
    values = [solution[a:b] for a, b in pairwise(starts)]
    values[0] = steps @ values[0]
    return tuple(Term(name, knots[name], v) for name, v in zip(variables, values, strict=True))


def _hats(x: Floats, knots: Floats) -> Floats:
    """Return the weight (N, M) of each knot in a piecewise linear function at x."""
    return np.stack([np.interp(x, knots, unit) for unit in np.eye(len(knots))], axis=1)


def _roughness(sizes: Sequence[int], steps: Floats) -> Floats:
    """Return the matrix of the penalty: second differences, and weakly all functions but one."""
    blocks = []
    for place, size in enumerate(sizes):
        rows = np.vstack([np.diff(np.eye(size), 2, axis=0), 0.1 * np.eye(size)[:, :]])
        if place == 0:
            rows = np.diff(np.eye(size), 2, axis=0) @ steps
        blocks.append(rows)
    matrix = np.zeros((sum(len(b) for b in blocks), sum(sizes)))
    row = column = 0
    for block in blocks:
        matrix[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return matrix
