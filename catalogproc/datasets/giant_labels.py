"""Masses, ages and stages of stars: measured where they are, else of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.cross_fit import FitStars
from catalogproc.datasets.folds import TEST_FOLD
from catalogproc.datasets.seismic import ATMOSPHERE, SeismicStars
from catalogproc.datasets.teacher import (
    Classifier,
    Measured,
    Teacher,
    fit_classifier,
    fit_teacher,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Names = NDArray[np.object_]

TEACHER, HASSELQUIST = "teacher", "Hasselquist+20"
"""Sources of values that are not seismic."""

TAUGHT_BY = {
    "mass": (
        "APO-K2", "APO-K2 ages RGB", "APO-K2 ages low [Fe/H]", "APOKASC-2 RGB (Warfield+24)",
        "Miglio+21", "Montalban+21", "APOKASC-2 (astroNN_ages)", "APO-K2 ages RC",
    ),
    "log_age": (
        "APO-K2 ages RGB", "APO-K2 ages low [Fe/H]", "APOKASC-2 RGB (Warfield+24)",
        "Miglio+21", "Montalban+21",
    ),
    "rc_prob": ("APO-K2", "APOKASC-2 RGB (Warfield+24)", "Montalban+21"),
}  # fmt: skip
"""Papers on which the teacher is fitted: those with APOGEE's labels on today's scale, and ages that
allow for mass loss or need none."""

BOTH_STAGES = "APO-K2"
"""The trees of the stage are fitted on this paper's stars: others with APOGEE's labels are on the
giant branch alone, would make clump stars too rare, and widen the domain only."""

HASSELQUIST_ERROR = 0.35
"""Error in dex of ages of Hasselquist et al. (2020): their scatter about the ages of 343 giants
with asteroseismology is 0.40 dex, of which the seismic ages have 0.19; they state 0.24."""

SOURCE_COLUMNS = {"mass": "mass_source", "log_age": "age_source", "rc_prob": "rc_source"}
"""By quantity: the column that says where it is from."""

Teachers = dict[str, Teacher | Classifier]


@dataclass(frozen=True, eq=False)
class Stars:
    """S stars under all of their names.

    Attributes
    ----------
    fold
        (S,) fold of each star.
    teaches
        (S,) whether the teacher may be fitted on the star.
    inputs
        (S, 4) ATMOSPHERE by APOGEE, NaN where unknown.
    seismic
        What asteroseismology says of them.
    hasselquist
        (S,) log age by Hasselquist et al. (2020) and its stated error, NaN where unknown.
    """

    fold: NDArray[np.int8]
    teaches: Mask
    inputs: Floats
    seismic: SeismicStars
    hasselquist: tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class Labels:
    """One label (S,) of all stars: values, errors, and where they are from, None if unknown."""

    values: Floats
    errors: Floats
    source: Names


def fit_teachers(stars: Stars) -> Teachers:
    """Fit the teachers of mass, log age and the probability of the red clump.

    Parameters
    ----------
    stars
        All stars; those of the test fold are left out whatever ``teaches`` says.
    """
    teachers: Teachers = {}
    for name in SOURCE_COLUMNS:
        paper = np.isin(stars.seismic.source[name].astype(str), TAUGHT_BY[name])
        known = np.isfinite(stars.inputs).all(axis=1) & paper
        row = np.flatnonzero(known & stars.teaches & (stars.fold != TEST_FOLD))
        inputs, fold = stars.inputs[row], stars.fold[row]
        values, errors = stars.seismic.values[name][row], stars.seismic.errors[name][row]
        if name == "rc_prob":
            fair = stars.seismic.source[name][row] == BOTH_STAGES
            teachers[name] = fit_classifier(FitStars(inputs, fold), values, fair)
        else:
            teachers[name] = fit_teacher(Measured(inputs, fold, values, errors))
    return teachers


def evolution_labels(stars: Stars, teachers: Teachers) -> dict[str, Labels]:
    """Return masses, log ages and probabilities of the red clump.

    They are seismic, else of the teacher; log ages else of Hasselquist et al.

    Parameters
    ----------
    stars
        All stars.
    teachers
        By :func:`fit_teachers`.
    """
    labels = {}
    for name in SOURCE_COLUMNS:
        values, errors = (
            store[name].copy() for store in (stars.seismic.values, stars.seismic.errors)
        )
        source = stars.seismic.source[name].copy()
        row = np.flatnonzero(~np.isfinite(values))
        values[row], errors[row] = teachers[name].predict(stars.inputs[row], stars.fold[row])
        source[row[np.isfinite(values[row])]] = TEACHER
        if name == "log_age":
            age, error = stars.hasselquist
            row = np.flatnonzero(~np.isfinite(values) & np.isfinite(age))
            values[row], errors[row] = age[row], np.fmax(error[row], HASSELQUIST_ERROR)
            source[row] = HASSELQUIST
        labels[name] = Labels(values, errors, source)
    return labels


def atmospheres(seismic: SeismicStars, rows: NDArray[np.int64]) -> Floats:
    """Return APOGEE's labels (n, 4) of some stars from the tables of asteroseismology.

    Parameters
    ----------
    seismic
        What the tables say of all stars.
    rows
        (n,) numbers of the stars.
    """
    values = []
    for name in ATMOSPHERE:
        taught = np.isin(seismic.source[name][rows].astype(str), TAUGHT_BY["mass"])
        values.append(np.where(taught, seismic.values[name][rows], np.nan))
    return np.stack(values, axis=1)
