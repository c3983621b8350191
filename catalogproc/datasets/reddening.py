"""E(B-V) of stars from the extinction in K that APOGEE's targeting took from their colours.

The Rayleigh-Jeans colour excess (Majewski et al. 2011): H - [4.5 um] is nearly the same for all
stars without dust.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalogproc.features.extinction import ln_ebv

Floats = NDArray[np.float64]

A_K_PER_EBV = 0.312
"""A_K per mag of E(B-V) on the SFD scale at R_V = 3.1. Checked by the reddening of BP - RP of the
library's giants: tests/datasets/test_reddening.py."""

SCALE_ERROR = 0.07
"""Relative uncertainty of that ratio."""

A_K_ERROR = ((0.0, 0.012), (0.05, 0.020), (0.15, 0.036), (0.3, 0.040), (2.0, 0.05))
"""Pairs of A_K and its error, mag: scatter of the colour excess of BP - RP and G - Ks about A_K
among the library's giants, less the scatter of giants without dust."""

MOST_A_K, HOTTEST = 2.0, 7000.0
"""A larger A_K is no measurement for stars of G < 15, and hotter stars have other colours."""


def ln_ebv_from_a_k(a_k: Floats, teff: Floats) -> tuple[Floats, Floats]:
    """Return ln E(B-V) on the SFD scale and its error (N,), NaN where there is no measurement.

    Parameters
    ----------
    a_k
        (N,) extinction in K, mag. Values that are not positive are no measurement.
    teff
        (N,) effective temperature in K.
    """
    with np.errstate(invalid="ignore"):
        known = (a_k > 0) & (a_k < MOST_A_K) & (teff < HOTTEST)
    a_k = np.where(known, a_k, np.nan)
    nodes, errors = np.array(A_K_ERROR).T
    relative = np.hypot(np.interp(np.where(known, a_k, 0.0), nodes, errors) / a_k, SCALE_ERROR)
    value = ln_ebv(a_k / A_K_PER_EBV)
    return np.where(known, value, np.nan), np.where(known, relative, np.nan)
