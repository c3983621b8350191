"""The training prior of a bundle, from stars that the network was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.contract import load_contract
from catalogproc.inference.catalog_columns import (
    INDEPENDENT,
    LABEL_COLUMNS,
    label_columns,
    label_distributions,
)
from catalogproc.inference.label_distribution import PropagatedPrediction
from catalogproc.network.questions import Questions

if TYPE_CHECKING:
    from catalogproc.datasets.holdout import Holdout
    from catalogproc.network.predictor import Predictor

TRUE = ("mass", "log_age", "m_h")
"""Labels whose true values are in the table."""

TMASS = ("jh", "jk")

MOST = 30_000
"""Largest number of stars: a megabyte."""


def prior_sample(predictor: Predictor, holdout: Holdout) -> pa.Table:
    """Return rows of the contract prior.

    A network that sees a spectrum knows that the star is of those with a spectrum, and which it was
    taught: its prior is that of training stars with a spectrum. Stars without one are left out,
    and so are simulated ones that a training on real stars replays, which the network recognises.

    Parameters
    ----------
    predictor
        The model, calibrated: a place in the latent space is that of its own calibration.
    holdout
        Stars of the distribution that it was trained on, which it has not seen, each once and read
        alike.
    """
    vocabulary = predictor.bundle.vocabulary
    at = {label: vocabulary.column(label) for label in TRUE if label in vocabulary}
    spectrum = [token.number - 1 for token in vocabulary.tokens if token.kind == "coefficient"]
    known = np.isfinite(holdout.truth[:, list(at.values())]).any(axis=1)
    known &= holdout.default_read & np.isfinite(holdout.values[:, spectrum]).any(axis=1)
    rows = np.flatnonzero(known)[:MOST]
    labels = [label for label in LABEL_COLUMNS if label in predictor.bundle.requestable]
    found = _predicted(predictor, holdout, rows, labels)
    columns = label_columns(found.prediction) | {"phot_g_mean_mag": holdout.g_mag[rows]}
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        distributions = label_distributions(found, predictor.bundle.calibration.by_label, columns)
    read = np.isfinite(holdout.values[rows])
    tmass = [vocabulary.column(name) for name in TMASS if name in vocabulary]
    has_tmass = read[:, tmass].all(axis=1) if tmass else np.zeros(len(rows), dtype=bool)
    columns |= {"n_tokens": read.sum(axis=1), "has_tmass": np.asarray(has_tmass)}
    columns |= {f"true_{label}": holdout.truth[rows, column] for label, column in at.items()}
    columns |= {f"e_{label}": distributions[label].sigma for label in TRUE}
    contract = load_contract("prior")
    stored = {
        column.name: columns[column.name].astype(column.type)
        for column in contract.columns
        if column.name in columns
    }
    return contract.assemble(stored, len(rows))


def _predicted(
    predictor: Predictor, holdout: Holdout, rows: np.ndarray, labels: list[str]
) -> PropagatedPrediction:
    """Return the predictions of some stars.

    For networks that do not read errors, without the few stars whose published errors alone are
    larger than the calibrated sigma: derivatives would take five times as long.
    """
    inputs, nonlinear = holdout.inputs.rows(rows), np.zeros(len(rows), dtype=bool)
    hidden = holdout.by_parallax(predictor.bundle.vocabulary)[rows]
    prediction = Questions(predictor, hidden, INDEPENDENT).predict(inputs, labels)
    return PropagatedPrediction(prediction, None, None, nonlinear)
