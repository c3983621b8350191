"""Find where a dataset's stars have masses, by the rule of the teacher that gave them most."""

from __future__ import annotations

import numpy as np

from catalogproc.datasets.cross_fit import NEAR_STARS, UNITS
from catalogproc.datasets.star_table import StarTable
from catalogproc.network.teacher_domain import INPUTS, TeacherDomain
from catalogproc.vocabulary import Vocabulary

NEAR = 1.0
"""Distance in UNITS. It is smaller than the teacher's, which predicts stars that are themselves
some distance from those with a measured mass."""


def fit_teacher_domain(stars: StarTable, vocabulary: Vocabulary) -> TeacherDomain | None:
    """Return the domain of the masses and ages that a network is taught.

    A cell is in it if NEAR_STARS training stars with a mass are within NEAR of its centre, in
    UNITS, which are also the size of a cell.

    Parameters
    ----------
    stars
        The training stars.
    vocabulary
        Defines the tokens.

    Returns
    -------
    TeacherDomain or None
        None where fewer than NEAR_STARS training stars have a mass.
    """
    from scipy.spatial import cKDTree

    labels = stars.values[:, vocabulary.columns(list(INPUTS))].astype(np.float64)
    mass = stars.values[:, vocabulary.column("mass")]
    labels = labels[np.isfinite(labels).all(axis=1) & np.isfinite(mass)]
    if len(labels) < NEAR_STARS:
        return None
    step = np.array(UNITS)
    low = (np.floor(labels.min(axis=0) / step) - np.ceil(NEAR)) * step
    shape = np.ceil((labels.max(axis=0) - low) / step + NEAR).astype(int)
    centres = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, len(step)) + 0.5 + low / step
    distance, _ = cKDTree(labels / step).query(centres, k=[NEAR_STARS], distance_upper_bound=NEAR)
    return TeacherDomain(low, step, np.isfinite(distance).reshape(shape))
