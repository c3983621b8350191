"""Local calibration: how a star's uncertainty depends on its place in the latent space.

Places are points of the latent space, each with the stars that calibrated it. A star is near to
some of them, and its uncertainty is scaled by their factors, as in localised conformal prediction
(Guan 2023); where calibration stars are few, it is larger, as Student's t is wider than a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import BundleError
from catalogproc.network.statistics import freeze_arrays

CLOSENESS = "closeness"
"""The quantity (N, M) that local terms depend on: how close N stars are to M places."""

FARTHEST = 30.0
"""Logarithm of 1 / closeness that is not exceeded: far from all places, a star has their mean."""

SHARE = 0.682689
"""Fraction of stars within one sigma."""

FEWEST_NEAR = 1.0
"""Number of near stars below which a sigma grows no more: there it is 1.84 times as large."""

POLYNOMIAL = 20
"""Degree of the polynomial for :func:`growth`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Places:
    """M places in the latent space, of stars with a spectrum.

    A star without any coefficient, or with a token that no calibration star has, is at none: its
    closeness is NaN.

    Attributes
    ----------
    projection
        From the latent space to the d directions in which stars differ most (D, d).
    centres
        Of the places (M, d), in these directions.
    widths
        Root mean square distance (M,) of the stars of a place to its centre.
    known
        1 for each token (V,) that a calibration star has, otherwise 0.
    coefficients
        1 for each token (V,) that is a coefficient, otherwise 0.
    """

    projection: Floats
    centres: Floats
    widths: Floats
    known: Floats
    coefficients: Floats

    def __post_init__(self) -> None:
        freeze_arrays(self, "projection", "centres", "widths", "known", "coefficients")
        fits = self.projection.shape[1:] == self.centres.shape[1:]
        fits &= self.widths.shape == self.centres.shape[:1]
        if not (fits and (self.widths > 0).all()):
            raise BundleError(
                "the arrays of the places in the latent space do not fit each other",
                found=self.centres.shape,
            )

    def closeness(self, residuals: Floats, present: NDArray[np.bool_]) -> Floats:
        """Return how close stars are to the places: exp(-distance^2 / (2 width^2)).

        Parameters
        ----------
        residuals
            What the latent Gaussian does not expect of the stars (N, D), see
            :meth:`~catalogproc.network.uncertainty_calibration.Latent.residual`.
        present
            Which tokens each star has (N, V).

        Returns
        -------
        (N, M), from exp(-FARTHEST) to 1, or NaN.
        """
        somewhere = (present @ self.coefficients > 0) & (present @ (1.0 - self.known) == 0)
        at = residuals @ self.projection
        squares = (at**2).sum(1)[:, None] - 2 * at @ self.centres.T + (self.centres**2).sum(1)
        scaled = np.clip(squares / (2.0 * self.widths**2), 0.0, FARTHEST)
        return np.where(somewhere[:, None], np.exp(-scaled), np.nan)


@dataclass(frozen=True, eq=False)
class LocalTerm:
    """The term of ln(calibrated sigma / network's sigma) that depends on a star's place.

    Attributes
    ----------
    values
        Of the places (M,): near several, a star has their mean, weighted by closeness.
    stars
        Number of calibration stars with this label at each place (M,).
    """

    values: Floats
    stars: Floats
    name: ClassVar[str] = CLOSENESS

    def __post_init__(self) -> None:
        freeze_arrays(self, "values", "stars")
        finite = np.isfinite(self.values).all() and (self.stars >= 0).all()
        if not (finite and self.values.ndim == 1 and self.values.shape == self.stars.shape):
            raise BundleError("a local calibration has one value and one number for each place")

    def __call__(self, closeness: ArrayLike) -> Floats:
        """Return the term (N,) for stars of a closeness (N, M); NaN for a star at no place."""
        near = np.asarray(closeness, dtype=np.float64)
        return np.asarray(near @ self.values / near.sum(axis=1) + growth(near @ self.stars))


def growth(near: ArrayLike) -> Floats:
    """Return ln of the factor by which sigma is larger because few stars calibrated it.

    A standard deviation that n residuals tell is itself uncertain: new stars are distributed as
    Student's t with n degrees of freedom, whose interval of 68 % is wider than one sigma.

    Parameters
    ----------
    near
        n, the number of near calibration stars (N,).
    """
    n = np.maximum(np.asarray(near, dtype=np.float64), FEWEST_NEAR)
    return np.asarray(_growth_by_inverse()(1.0 / n))


@cache
def _growth_by_inverse() -> Chebyshev:
    """Return :func:`growth` as a polynomial of 1 / n, to 1e-12: 30 times as fast."""
    from scipy.special import stdtrit

    return Chebyshev.interpolate(
        lambda inverse: np.log(stdtrit(1.0 / inverse, 0.5 + 0.5 * SHARE)),
        POLYNOMIAL,
        domain=[0.0, 1.0 / FEWEST_NEAR],
    )
