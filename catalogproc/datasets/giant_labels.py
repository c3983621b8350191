"""Masses, ages and parallaxes of stars: measured where they are, else of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.folds import TEST_FOLD
from catalogproc.datasets.seismic import ATMOSPHERE, SeismicStars
from catalogproc.datasets.teacher import Measured, Teacher, fit_teacher

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Names = NDArray[np.object_]

TEACHER, HASSELQUIST = "teacher", "Hasselquist+20"
"""``mass_source`` and ``age_source`` of values that are not seismic."""

TAUGHT_BY = {
    "mass": (
        "APO-K2", "APO-K2 ages RGB", "APO-K2 ages low [Fe/H]", "APOKASC-2 RGB (Warfield+24)",
        "Miglio+21", "Montalban+21", "APOKASC-2 (astroNN_ages)", "APO-K2 ages RC",
    ),
    "log_age": (
        "APO-K2 ages RGB", "APO-K2 ages low [Fe/H]", "APOKASC-2 RGB (Warfield+24)",
        "Miglio+21", "Montalban+21",
    ),
}  # fmt: skip
"""Papers on which the teacher is fitted: those with APOGEE's labels on today's scale, and ages
that allow for mass loss or need none."""

HASSELQUIST_ERROR = 0.35
"""Error in dex of ages of Hasselquist et al. (2020): their scatter about the ages of 343 giants
with asteroseismology is 0.40 dex, of which the seismic ages have 0.19; they state 0.24."""

QUANTITIES = ("mass", "log_age")


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


def fit_teachers(stars: Stars) -> dict[str, Teacher]:
    """Fit the teachers of mass and log age.

    Parameters
    ----------
    stars
        All stars; those of the test fold are left out whatever ``teaches`` says.
    """
    teachers = {}
    for name in QUANTITIES:
        paper = np.isin(stars.seismic.source[name].astype(str), TAUGHT_BY[name])
        known = np.isfinite(stars.inputs).all(axis=1) & paper
        row = np.flatnonzero(known & stars.teaches & (stars.fold != TEST_FOLD))
        measured = (stars.seismic.values[name][row], stars.seismic.errors[name][row])
        teachers[name] = fit_teacher(Measured(stars.inputs[row], *measured, stars.fold[row]))
    return teachers


def masses_and_ages(stars: Stars, teachers: dict[str, Teacher]) -> dict[str, Labels]:
    """Return masses and log ages: seismic, else of the teacher, else of Hasselquist et al.

    Parameters
    ----------
    stars
        All stars.
    teachers
        By :func:`fit_teachers`.
    """
    labels = {}
    for name in QUANTITIES:
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
