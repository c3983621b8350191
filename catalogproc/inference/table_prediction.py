"""Predictions with total uncertainties from tokens, for catalogs and for any table.

``run`` predicts the labels of a job from spectra; ``infer`` and ``Model.predict`` predict any
labels from any table. All of them propagate errors by :func:`propagate` and state the same
total uncertainty (catalog_columns.total_uncertainty).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import plural
from catalogproc.features.input_errors import input_noise
from catalogproc.features.table_inputs import default_job
from catalogproc.inference.catalog_columns import (
    CONTEXT,
    INDEPENDENT,
    LABEL_COLUMNS,
    PROBABILITIES,
    calibration_context,
    label_columns,
    luminosity_context,
    requested_labels,
)
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
    from catalogproc.vocabulary import Vocabulary

Float = NDArray[np.float64]

PIECE = 8_192
"""Rows predicted at a time, of up to LABELS labels; fewer of more, as derivatives take memory."""

LABELS = 16


def propagate(
    predictor: Predictor, tokens: Tokens, labels: Sequence[str], job: Job
) -> PropagatedPrediction:
    """Predict labels and propagate the errors of the tokens.

    Labels that are compared with the parallax are predicted without it, in a second question
    about the stars that have tokens made of it.

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
    from catalogproc.network.error_propagation import Draws, disagree, sampled
    from catalogproc.network.questions import Questions

    vocabulary, inputs = predictor.bundle.vocabulary, tokens.network_inputs
    questions = Questions(predictor, tokens.by_parallax, INDEPENDENT)
    context = luminosity_context(labels)
    nonlinear = np.zeros(len(tokens), dtype=bool)
    method = job.propagation_of(predictor.bundle.reads_errors)
    if method in ("network", "none"):
        prediction, without_parallax = questions.ask(inputs, labels, context)
        return PropagatedPrediction(prediction, None, None, nonlinear, without_parallax)
    prediction, jacobian = questions.differentiate(inputs, labels)
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
        prediction, propagated = sampled(questions, inputs, noise, labels, draws)
        nonlinear = disagree(linear, propagated)
    without_parallax = questions.without_hidden(inputs, prediction, context)
    return PropagatedPrediction(prediction, propagated, published, nonlinear, without_parallax)


@dataclass(frozen=True, eq=False)
class TablePrediction:
    """Predictions for the N rows of a table, in the tokens' units.

    Attributes
    ----------
    labels
        Names of the predicted tokens.
    mean, sigma, low, high
        By label (N,): the prediction, its total 1-sigma uncertainty, and the 16th and the 84th
        percentile; NaN for a row without a token that the label is predicted from, and where a
        mass is not positive.
    g_mag
        G magnitudes (N,) as observed or synthesised, NaN where unknown.
    read
        Rows (N,) that have a token.
    typical_errors
        Of a model that reads errors: by input, the number of rows that have its value without
        an error, so that the typical one of the training was taken. Inputs are tokens, or the
        coefficients of a band together. Empty for other models.
    """

    labels: tuple[str, ...]
    mean: dict[str, Float]
    sigma: dict[str, Float]
    low: dict[str, Float]
    high: dict[str, Float]
    g_mag: Float
    read: NDArray[np.bool_]
    typical_errors: dict[str, int]


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
        for label in requested_labels(job, predictor.bundle)
        if LABEL_COLUMNS.get(label) in CONTEXT
    ]
    requested = tuple(dict.fromkeys((*labels, *context)))
    rows = len(inputs)
    numbers = [{label: np.full(rows, np.nan) for label in labels} for _ in range(4)]
    g_mag, read = np.full(rows, np.nan), np.zeros(rows, dtype=bool)
    unstated = np.zeros(len(inputs.vocabulary), dtype=np.int64)
    step = max(1, PIECE * LABELS // max(LABELS, len(requested)))
    for start in range(0, rows, step):
        some = slice(start, start + step)
        tokens = inputs.tokens(start, step)
        present = ~np.isnan(tokens.values)
        g_mag[some], read[some] = tokens.g_mag, present.any(axis=1)
        unstated += (present & np.isnan(tokens.errors)).sum(axis=0)
        apart = (present & ~tokens.by_parallax).any(axis=1)
        columns = _predict(predictor, tokens, requested, job)
        for label in labels:
            known = apart if label in INDEPENDENT else read[some]
            for by_label, values in zip(numbers, columns[label], strict=True):
                by_label[label][some] = np.where(known, values, np.nan)
        if progress is not None:
            progress(min(start + step, rows), rows, "")
    mean, sigma, low, high = numbers
    typical = _by_input(unstated, inputs.vocabulary) if predictor.bundle.reads_errors else {}
    return TablePrediction(tuple(labels), mean, sigma, low, high, g_mag, read, typical)


def _by_input(counts: NDArray[np.int64], vocabulary: Vocabulary) -> dict[str, int]:
    """Numbers of rows by input: the coefficients of a band together, by the largest of theirs."""
    found: dict[str, int] = {}
    for token, count in zip(vocabulary.tokens, counts, strict=True):
        if count:
            name = f"{token.band.upper()} coefficients" if token.band else token.name
            found[name] = max(found.get(name, 0), int(count))
    return found


def counts_text(counts: Mapping[str, int]) -> str:
    """Return numbers of rows by name as text.

    Parameters
    ----------
    counts
        By name.
    """
    return ", ".join(f"{name} ({plural(count, 'row')})" for name, count in counts.items())


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
        made: dict[str, tuple[Float, ...]] = {}
        for k, label in enumerate(labels):
            if label in PROBABILITIES:
                unknown = np.full(len(tokens), np.nan)
                made[label] = (columns[label], unknown, unknown, unknown)
                continue
            name = LABEL_COLUMNS.get(label, "")
            value = columns[name] if name else found.prediction.mean[:, k].astype(np.float64)
            context = calibration_context(found, label, columns)
            stated = replace(label_distribution(found, label, calibration, context), mean=value)
            percentiles = (stated.percentile(level) for level in (LOW, HIGH))
            made[label] = (value, stated.sigma, *percentiles)
    return made
