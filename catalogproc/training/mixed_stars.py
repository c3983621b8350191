"""Mixtures of stars that are alike: the mean of two spectra is that of the mean of their labels.

A network that sees the same 18,000 giants in every step learns their labels by heart. Between two
giants with nearly the same labels spectra change linearly, so that each pair gives new ones
(C-Mixup, Yao et al. 2022, with neighbours in the labels in place of a kernel).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.float64]

NEIGHBOURS = 8
"""Number of stars, the most alike, of which one is mixed with a star."""

ALIKE = {"teff": 150.0, "logg": 0.3, "m_h": 0.15, "alpha_m": 0.06, "logebv": 0.1}
"""By label, the difference in its unit that makes stars unlike alone; of dust, that of E(B-V)."""

NO_NEIGHBOUR = -1


@dataclass(frozen=True, eq=False)
class DrawnStars:
    """N stars in one step of a training.

    Attributes
    ----------
    values, errors
        Tokens (N, V) and their errors.
    coefficients, coefficient_errors
        Canonical coefficients over the G flux and their errors (N, 110), none masked.
    magnitudes
        MAGNITUDES of simulation/augmentation.py (N, 6), mag.
    """

    values: NDArray[np.floating]
    errors: NDArray[np.floating]
    coefficients: Floats
    coefficient_errors: Floats
    magnitudes: Floats

    def rows(self, which: NDArray[Any]) -> DrawnStars:
        """Return copies of some of the stars.

        Parameters
        ----------
        which
            Row numbers or mask (N,).
        """
        return DrawnStars(*(getattr(self, part.name)[which] for part in fields(self)))

    def set_rows(self, which: NDArray[Any], others: DrawnStars) -> None:
        """Replace some of the stars, in place.

        Parameters
        ----------
        which
            Row numbers (n,) or mask (N,) of those that are replaced.
        others
            The n stars that take their places.
        """
        for part in fields(self):
            getattr(self, part.name)[which] = getattr(others, part.name)


def mixed(one: DrawnStars, other: DrawnStars, weight: Floats) -> DrawnStars:
    """Return weighted means of pairs of stars.

    A token that one star of a pair lacks, the mixture lacks. Errors of the two are independent.

    Parameters
    ----------
    one, other
        N stars each.
    weight
        That of the first (N,), 0 to 1.
    """
    first, second = weight[:, None], 1.0 - weight[:, None]

    def mean(name: str) -> Floats:
        return np.asarray(first * getattr(one, name) + second * getattr(other, name))

    def error(name: str) -> Floats:
        return np.asarray(np.hypot(first * getattr(one, name), second * getattr(other, name)))

    return DrawnStars(
        mean("values"), error("errors"),
        mean("coefficients"), error("coefficient_errors"), mean("magnitudes"),
    )  # fmt: skip


def alike(values: NDArray[np.floating], vocabulary: Vocabulary) -> NDArray[np.intp]:
    """Return the stars with the most similar labels.

    Parameters
    ----------
    values
        Tokens of N stars (N, V).
    vocabulary
        Defines the tokens.

    Returns
    -------
    (N, NEIGHBOURS) row numbers; NO_NEIGHBOUR where stars are unlike or labels are unknown.
    """
    from scipy.spatial import cKDTree

    labels = values[:, vocabulary.columns(list(ALIKE))].astype(np.float64)
    dust = list(ALIKE).index("logebv")
    labels[:, dust] = np.nan_to_num(np.exp(labels[:, dust]))
    places = labels / np.array(list(ALIKE.values()))
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    found = np.full((len(values), NEIGHBOURS), NO_NEIGHBOUR)
    if not len(known):
        return found
    tree = cKDTree(places[known])
    # The nearest is the star itself.
    _, near = tree.query(places[known], k=NEIGHBOURS + 1, distance_upper_bound=1.0)
    found[known] = np.append(known, NO_NEIGHBOUR)[near[:, 1:]]
    return found
