"""The parallax of each star: which zero-point is subtracted, and the error that this adds.

Three rules, the first that a star has the columns for:

1. ``tentative_parallax_bias`` of gaia_source (Gaia DR4), the zero-point of the release itself;
2. the relation of Lindegren et al. (2021), :func:`~catalogproc.features.astrometry.zero_point`;
3. a mean zero-point, where a column that the relation needs was not given.

A solution without a parallax, and a colour outside of the relation's range, have none: what the
third rule would assume is then known to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import astrometry
from catalogproc.features.star_batch import StarBatch

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

ASSUMED_ZERO_POINT, ASSUMED_ERROR = -0.04, 0.02
"""Zero-point and its 1-sigma uncertainty where it cannot be computed, mas."""

SOURCES: tuple[str, ...] = (
    "parallax", "parallax_error", "nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat",
    "astrometric_params_solved", "tentative_parallax_bias", "ra", "dec",
)  # fmt: skip
"""Columns of gaia_source that a parallax is made of."""


@dataclass(frozen=True)
class Parallaxes:
    """Parallaxes of N stars, mas.

    Attributes
    ----------
    zero_point
        What was subtracted from the published parallax (N,); NaN where there is no valid one.
    corrected, error
        The parallax less its zero-point, and its error (N,).
    assumed
        The zero-point is the mean one (N,); its uncertainty is in the error.
    published
        The zero-point is that of the release, tentative_parallax_bias (N,).
    relation
        The zero-point by Lindegren et al. (2021) (N,), used or not; NaN where it has none.
    """

    zero_point: Float
    corrected: Float
    error: Float
    assumed: Mask
    published: Mask
    relation: Float


def parallaxes(stars: StarBatch, g_mag: Float) -> Parallaxes:
    """Return the parallaxes of stars, corrected for their zero-points.

    Parameters
    ----------
    stars
        N stars, with the columns :data:`SOURCES` as far as they are known.
    g_mag
        G (N,), mag.
    """
    parallax, error = stars.column("parallax"), stars.column("parallax_error")
    latitude = _ecliptic_latitude(stars)
    nu_eff = stars.column("nu_eff_used_in_astrometry")
    pseudocolour = stars.column("pseudocolour")
    solved = _solved(stars)
    relation = astrometry.zero_point(g_mag, nu_eff, pseudocolour, latitude, solved)
    with_parallax = np.isfinite(parallax) & (np.isnan(solved) | astrometry.has_parallax(solved))
    bias = stars.column("tentative_parallax_bias")
    published = with_parallax & np.isfinite(bias)
    five, six = astrometry.five_parameters(solved), astrometry.six_parameters(solved)
    absent = np.isnan(solved) | np.isnan(latitude) | np.isnan(g_mag)
    absent |= (five & np.isnan(nu_eff)) | (six & np.isnan(pseudocolour))
    outside = ~six & _outside(nu_eff, astrometry.NU_EFF_RANGE)
    outside |= ~five & _outside(pseudocolour, astrometry.PSEUDOCOLOUR_RANGE)
    assumed = with_parallax & absent & ~outside & ~published
    zero_point = np.where(published, bias, np.where(assumed, ASSUMED_ZERO_POINT, relation))
    return Parallaxes(
        zero_point=zero_point,
        corrected=parallax - zero_point,
        error=np.where(assumed, np.hypot(error, ASSUMED_ERROR), error),
        assumed=assumed,
        published=published,
        relation=relation,
    )


def _solved(stars: StarBatch) -> Float:
    """Return which parameters were solved (N,), in the bits of DR3; NaN where unknown."""
    column, declared = stars.column("astrometric_params_solved"), stars.release.parallax
    bits = np.nan_to_num(column).astype(np.int64)
    parallax = np.where(bits & declared.parallax_bit, astrometry.PARALLAX_SOLVED, 0)
    colour = np.where(bits & declared.pseudocolour_bit, astrometry.PSEUDOCOLOUR_SOLVED, 0)
    return np.where(np.isnan(column), np.nan, parallax | colour)


def _outside(colour: Float, limits: tuple[float, float]) -> Mask:
    """Return the stars (N,) whose colour is known and outside of a range."""
    return np.asarray((colour <= limits[0]) | (colour >= limits[1]))


def _ecliptic_latitude(stars: StarBatch) -> Float:
    """Return the ecliptic latitude (N,), degrees; from the position where it is not given."""
    latitude = stars.column("ecl_lat")
    rows = np.isnan(latitude) & np.isfinite(stars.column("ra"))
    if not rows.any():
        return latitude
    latitude = latitude.copy()
    latitude[rows] = astrometry.ecliptic_latitude(
        stars.column("ra")[rows], stars.column("dec")[rows]
    )
    return latitude
