"""Predictions with total uncertainties from tokens, for catalogs and for any table.

``run`` predicts the labels of a job from spectra; ``infer`` and ``Model.predict`` predict any
labels from any table. All of them propagate errors by :func:`propagate` and state the same
total uncertainty (catalog_columns.total_uncertainty).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.features.input_errors import input_noise
from catalogproc.features.table_inputs import default_job
from catalogproc.inference.catalog_columns import CONTEXT, LABEL_COLUMNS, label_columns
from catalogproc.inference.label_distribution import (
    HIGH,
    LOW,
    PropagatedPrediction,
    label_distribution,
)

if TYPE_CHECKING:
    from catalogproc.features.table_inputs import TableInputs
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.error_propagation import Propagated
    from catalogproc.network.predictor import Predictor

Float = NDArray[np.float64]

PIECE = 8_192
"""Rows predicted at a time, of up to LABELS labels; fewer of more, as derivatives take memory."""

LABELS = 16


def propagate(
    predictor: Predictor, tokens: Tokens, labels: Sequence[str], job: Job
) -> PropagatedPrediction:
    """Predict labels and propagate the errors of the tokens.

    Parameters
    ----------
    predictor
        The model.
    tokens
        Of N stars.
    labels
        Names of the tokens to predict.
    job
        How errors are taken and propagated.
    """
    from catalogproc.network.error_propagation import Draws, differentiate, disagree, sampled
    from catalogproc.network.star_tokens import StarTokens

    vocabulary, inputs = predictor.bundle.vocabulary, tokens.network_inputs
    nonlinear = np.zeros(len(tokens), dtype=bool)
    method = job.propagation_of(predictor.bundle.reads_errors)
    if method in ("network", "none"):
        prediction, exact_sigma = predictor.predict(inputs, labels), None
        if method == "network" and job.split_errors:
            exact_sigma = predictor.predict(StarTokens.exact(inputs.values), labels).sigma
        return PropagatedPrediction(prediction, None, None, nonlinear, exact_sigma)
    prediction, jacobian = differentiate(predictor, inputs, labels)
    noise = input_noise(tokens, vocabulary, job)
    propagated = jacobian.propagate(noise)
    published: Propagated | None = propagated
    if predictor.bundle.reads_errors:
        published = None  # the network's sigma is the total
    elif job.inflate_errors:
        plain = replace(job, inflate_errors=False)
        published = jacobian.propagate(input_noise(tokens, vocabulary, plain))
    if method == "sampled":
        linear = propagated
        draws = Draws(tokens.source_id, job.draws)
        prediction, propagated = sampled(predictor, inputs, noise, labels, draws)
        nonlinear = disagree(linear, propagated)
    return PropagatedPrediction(prediction, propagated, published, nonlinear, None)


@dataclass(frozen=True, eq=False)
class TablePrediction:
    """Predictions for the N rows of a table, in the tokens' units.

    Attributes
    ----------
    labels
        Names of the predicted tokens.
    mean, sigma, low, high
        By label (N,): the prediction, its total 1-sigma uncertainty, and the 16th and the 84th
        percentile; NaN for a row without a token, and where a mass is not positive.
    g_mag
        G magnitudes (N,) as observed or synthesised, NaN where unknown.
    read
        Rows (N,) that have a token.
    """

    labels: tuple[str, ...]
    mean: dict[str, Float]
    sigma: dict[str, Float]
    low: dict[str, Float]
    high: dict[str, Float]
    g_mag: Float
    read: NDArray[np.bool_]


def predict_table(
    predictor: Predictor,
    inputs: TableInputs,
    labels: Sequence[str],
    progress: Callable[[int, int, str], None] | None = None,
) -> TablePrediction:
    """Predict labels for each row of a table.

    Parameters
    ----------
    predictor
        The model.
    inputs
        What the table of N rows holds.
    labels
        Names of the tokens to predict.
    progress
        Called with the number of rows predicted, N, and an empty text.

    Raises
    ------
    ContractError
        A label that the vocabulary does not have.
    BundleError
        A label that the model was not trained to predict.
    ReleaseError
        Spectra of a release that the model does not read.
    """
    job = inputs.job or default_job(inputs.vocabulary)
    predictor.requests(labels)  # refused before any work
    context = [
        label
        for label, name in LABEL_COLUMNS.items()
        if name in CONTEXT and label in job.labels and label in predictor.bundle.requestable
    ]
    requested = tuple(dict.fromkeys((*labels, *context)))
    rows = len(inputs)
    numbers = [{label: np.full(rows, np.nan) for label in labels} for _ in range(4)]
    g_mag, read = np.full(rows, np.nan), np.zeros(rows, dtype=bool)
    step = max(1, PIECE * LABELS // max(LABELS, len(requested)))
    for start in range(0, rows, step):
        some = slice(start, start + step)
        tokens = inputs.tokens(start, step)
        g_mag[some], read[some] = tokens.g_mag, ~np.isnan(tokens.values).all(axis=1)
        columns = _predict(predictor, tokens, requested, job)
        for label in labels:
            for by_label, values in zip(numbers, columns[label], strict=True):
                by_label[label][some] = np.where(read[some], values, np.nan)
        if progress is not None:
            progress(min(start + step, rows), rows, "")
    mean, sigma, low, high = numbers
    return TablePrediction(tuple(labels), mean, sigma, low, high, g_mag, read)


def _predict(
    predictor: Predictor, tokens: Tokens, labels: tuple[str, ...], job: Job
) -> dict[str, tuple[Float, ...]]:
    """Predictions, total uncertainties, 16th and 84th percentiles (n,), by label."""
    if not (tokens.errors > 0).any():
        job = replace(job, propagation="none")  # derivatives cost more than the prediction
    found = propagate(predictor, tokens, labels, job)
    calibration = predictor.bundle.calibration.by_label
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        columns = label_columns(found.prediction)
        columns["phot_g_mean_mag"] = tokens.g_mag
        context = {name: columns[name] for name in CONTEXT}
        made = {}
        for k, label in enumerate(labels):
            name = LABEL_COLUMNS.get(label, "")
            value = columns[name] if name else found.prediction.mean[:, k].astype(np.float64)
            stated = replace(label_distribution(found, label, calibration, context), mean=value)
            percentiles = (stated.percentile(level) for level in (LOW, HIGH))
            made[label] = (value, stated.sigma, *percentiles)
    return made
