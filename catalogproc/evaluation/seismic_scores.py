"""Masses and ages of test stars with asteroseismology, by a model, by trees and by the teacher.

The teacher (datasets/teacher.py) predicts masses and ages from APOGEE's labels; most masses and
ages that models are trained on are its own, so it says how good these labels are. It is fitted
here on the seismic stars of the training part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.dataset import TEST, TRAIN, dataset_columns
from catalogproc.datasets.giant_labels import HASSELQUIST, SOURCE_COLUMNS, TAUGHT_BY, TEACHER
from catalogproc.datasets.seismic import ATMOSPHERE
from catalogproc.datasets.teacher import Measured, Teacher, fit_teacher
from catalogproc.evaluation.quantities import RELATIVE
from catalogproc.evaluation.scores import Score, bootstrap, score

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SOURCES = {label: SOURCE_COLUMNS[label] for label in ("mass", "log_age")}

AGES = (8.0 + np.log10(3.0), 9.0 + np.log10(14.0))
"""Log ages are clipped to 0.3 to 14 Gyr: some papers give ages beyond that of the universe."""

TEACHER_METHOD = "teacher, from APOGEE's labels"


@dataclass(frozen=True)
class SeismicScore:
    """Score of one method for mass or log age, on seismic values.

    Attributes
    ----------
    method, score
        Name of the method, and the score.
    per_cent
        Scatter of the relative residuals of mass or age.
    interval
        By statistic, its 16th and 84th percentile over bootstrap samples of the stars.
    """

    method: str
    score: Score
    per_cent: float
    interval: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class MethodValues:
    """Predicted values (N,) of one label by one method, and their uncertainties if it has any."""

    method: str
    mean: Floats
    sigma: Floats | None = None


def measured(folder: Path, label: str) -> Mask:
    """Return which stars (N,) of the test part have a seismic value.

    Parameters
    ----------
    folder
        The dataset.
    label
        Key of SOURCE_COLUMNS.
    """
    return np.asarray(~np.isin(_sources(folder, label), ("None", TEACHER, HASSELQUIST)))


def of_teacher(folder: Path, label: str) -> Mask:
    """Return which stars (N,) of the test part have a value of the teacher.

    Parameters
    ----------
    folder, label
        As for :func:`measured`.
    """
    return np.asarray(_sources(folder, label) == TEACHER)


def _sources(folder: Path, label: str) -> NDArray[np.str_]:
    """Return where the values of a label (N,) are from."""
    column = SOURCE_COLUMNS[label]
    return dataset_columns(folder, TEST, [column])[column].astype(str)


def seismic_scores(
    label: str, values: list[MethodValues], true: Floats, true_error: Floats
) -> list[SeismicScore]:
    """Return the scores of several methods, each on the stars that it predicts.

    Parameters
    ----------
    label
        Key of SOURCES.
    values
        Predictions of N stars.
    true, true_error
        Seismic values (N,) and their errors, NaN for other stars.
    """
    if label == "log_age":
        true = np.clip(true, *AGES)
    return [
        SeismicScore(
            one.method,
            score(label, one.mean, true, one.sigma, true_error),
            score(RELATIVE[label], one.mean, true).scatter,
            bootstrap(label, one.mean, true),
        )
        for one in values
    ]


def teacher_values(folder: Path, label: str, stars: Floats) -> MethodValues:
    """Return the teacher's predictions, fitted on the seismic stars of the training part.

    Parameters
    ----------
    folder
        The dataset.
    label
        Key of SOURCES.
    stars
        (N, 4) Teff, log g, [Fe/H] and [alpha/M] of the stars to predict; NaN where unknown.
    """
    teacher = _fit(folder, label)
    nan = np.full(len(stars), np.nan)
    if teacher is None:
        return MethodValues(TEACHER_METHOD, nan)
    no_part = np.full(len(stars), -1)  # the mean of all fits
    values, errors = teacher.predict(stars, no_part)
    return MethodValues(TEACHER_METHOD, values, errors)


def _fit(folder: Path, label: str) -> Teacher | None:
    """Return the teacher; None for a dataset without seismic stars to fit it to."""
    source = SOURCES[label]
    columns = dataset_columns(
        folder, TRAIN, [*ATMOSPHERE, label, f"e_{label}", source, "fold"], repeats=False
    )
    inputs = np.stack([columns[name].astype(np.float64) for name in ATMOSPHERE], axis=1)
    value, error = (columns[name].astype(np.float64) for name in (label, f"e_{label}"))
    known = np.isin(columns[source].astype(str), TAUGHT_BY[label])
    known &= np.isfinite(inputs).all(axis=1) & np.isfinite(value) & np.isfinite(error)
    fold = columns["fold"][known].astype(np.int64)
    if len(np.unique(fold)) < 2:
        return None
    return fit_teacher(Measured(inputs[known], fold, value[known], error[known]))
