"""The columns that a table gets for each requested label: value, uncertainty, percentiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.features import astrometry
from catalogproc.features.derived_labels import DERIVED, described, token_of
from catalogproc.features.table_columns import shown
from catalogproc.features.table_inputs import GIGAYEAR, TableInputs
from catalogproc.inference.catalog_columns import PROBABILITIES
from catalogproc.inference.table_prediction import TablePrediction
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.float64]
Numbers = dict[str, tuple[Floats, tuple[str, str]]]
"""By name of a column: numbers (N,), and their unit and meaning."""


def requested_tokens(
    labels: Sequence[str], inputs: TableInputs, found: Sequence[str], where: object = None
) -> tuple[str, ...]:
    """Return the tokens that labels are computed from.

    Parameters
    ----------
    labels
        Declared names.
    inputs
        What the table holds.
    found, where
        The columns of the table, and its name, for messages.

    Raises
    ------
    JobError
        A distance is requested of a table without magnitudes.
    """
    if "dist" in labels and not inputs.has_magnitudes:
        raise JobError(
            "a distance needs the apparent magnitude", wanted="a column phot_g_mean_mag",
            found=shown(list(found)), where=where,
        )  # fmt: skip
    return tuple(dict.fromkeys(token_of(label) for label in labels))


def predicted_columns(
    labels: Sequence[str], prediction: TablePrediction, vocabulary: Vocabulary
) -> Numbers:
    """Return the columns of labels, in their order.

    Parameters
    ----------
    labels
        Declared names.
    prediction
        Of their tokens, for N rows.
    vocabulary
        The model's tokens.

    Returns
    -------
    dict
        For each label ``label`` and ``e_label`` (total 1-sigma uncertainty, as in a catalog); for
        a derived one also ``label_16`` and ``label_84``, percentiles; for a probability the
        first alone.
    """
    made: Numbers = {}
    for label in labels:
        made |= _columns(label, prediction, vocabulary)
    return made


def _columns(label: str, prediction: TablePrediction, vocabulary: Vocabulary) -> Numbers:
    token = token_of(label)
    mean, sigma = prediction.mean[token], prediction.sigma[token]
    unit, meaning = described(label, vocabulary)
    error = (unit, f"total 1-sigma uncertainty of the {meaning}")
    if label in PROBABILITIES:
        return {label: (mean, (unit, meaning))}
    if label not in DERIVED:
        return {label: (mean, (unit, meaning)), f"e_{label}": (sigma, error)}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, middle, high = _percentiles(label, prediction)
        if label == "age":
            e_middle = (high - low) / 2.0  # as in a catalog
        else:  # to first order
            e_middle = (
                middle * sigma / (1.0 if label == "ebv" else np.where(mean > 0, mean, np.nan))
            )
    return {
        label: (middle, (unit, meaning)),
        f"e_{label}": (e_middle, error),
        f"{label}_16": (low, (unit, f"16th percentile of the {meaning}")),
        f"{label}_84": (high, (unit, f"84th percentile of the {meaning}")),
    }


def _percentiles(label: str, prediction: TablePrediction) -> tuple[Floats, Floats, Floats]:
    """16th percentile, prediction and 84th percentile (N,) of a derived label, as in a catalog."""
    token = token_of(label)
    low, mean, high = (part[token] for part in (prediction.low, prediction.mean, prediction.high))
    if label == "dist":
        far, middle, near = (
            astrometry.distance(f, 0.0, prediction.g_mag)[1] for f in (low, mean, high)
        )
        return near, middle, far
    if label == "age":
        young, middle, old = (10.0 ** (value - GIGAYEAR) for value in (low, mean, high))
        return young, middle, old
    return np.exp(low), np.exp(mean), np.exp(high)
