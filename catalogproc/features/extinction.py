"""Extinction by dust: scales of E(B-V), extinction in V and in G, the curve.

``ebv`` is always on the scale of Schlegel, Finkbeiner & Davis (1998), as in the maps and in the
labels of Leung & Bovy (2024); the true E(B-V) is 0.884 of it (Schlafly & Finkbeiner 2011).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import CatalogprocError
from catalogproc.release import Release
from catalogproc.resources import optional_module

Float = NDArray[np.float64]

TRUE_PER_SFD = 0.884
R_V = 3.1

LN_EBV_FLOOR = -7.0
"""ln E(B-V) that stands for no dust at all, 9e-4 mag (Leung & Bovy 2024)."""

MAX_EBV = 10.0
"""A larger E(B-V) is no measurement (Leung & Bovy 2024)."""

CURVES = ("F99", "F19")


def true_ebv(ebv: ArrayLike) -> Float:
    """Return the true E(B-V) in mag (N,).

    Parameters
    ----------
    ebv
        E(B-V) on the SFD scale (N,), mag.
    """
    return TRUE_PER_SFD * np.asarray(ebv, dtype=np.float64)


def v_extinction(ebv: ArrayLike) -> Float:
    """Return A_V in mag (N,): 3.1 times the true E(B-V).

    Parameters
    ----------
    ebv
        E(B-V) on the SFD scale (N,), mag.
    """
    return R_V * true_ebv(ebv)


def g_extinction(ebv: ArrayLike, teff: ArrayLike, release: Release) -> Float:
    """Return A_G in mag (N,).

    The relation for giants of the release's G, with A_0 = A_V. Outside its range of Teff and A_0
    the ratio A_G/A_0 is that at the edge.

    Parameters
    ----------
    ebv
        E(B-V) on the SFD scale (N,), mag.
    teff
        Effective temperature (N,), K.
    release
        It states the relation.

    Raises
    ------
    ReleaseError
        It does not.
    """
    law = release.extinction_relation()
    a_0 = v_extinction(ebv)
    x = np.clip(np.asarray(teff, dtype=np.float64), *law.teff) / 5040.0
    a = np.clip(a_0, *law.a_0)
    powers = [[np.ones_like(q), q, q * q, q * q * q] for q in (x, a)]
    ratio = sum(c * powers[0][i] * powers[1][j] for c, i, j in law.terms)
    return np.asarray(ratio * a_0)


def ln_ebv(ebv: ArrayLike) -> Float:
    """Return the natural logarithm of E(B-V) (N,), the model's token.

    Values below e^-7, also zero and negative ones, mean no dust: -7. Values above 10 mag are not
    measurements: NaN.

    Parameters
    ----------
    ebv
        E(B-V) on the SFD scale (N,), mag.
    """
    value = np.asarray(ebv, dtype=np.float64)
    value = np.where(value > MAX_EBV, np.nan, value)
    return np.log(np.maximum(value, np.exp(LN_EBV_FLOOR)))


def curve(wavelength: ArrayLike, r_v: float = R_V, law: str = "F99") -> Float:
    """Return the extinction in mag per mag of true E(B-V) (any shape).

    Parameters
    ----------
    wavelength
        Wavelengths (any shape), nm.
    r_v
        Ratio of total to selective extinction.
    law
        "F99" (Fitzpatrick 1999; 100 to 3333 nm) or "F19" (Fitzpatrick et al. 2019; 115 to 3333
        nm), by the dust_extinction package.

    Raises
    ------
    CatalogprocError
        Another law, or a wavelength or ``r_v`` outside the curve's range.
    """
    from astropy import units

    parameter_averages = optional_module("dust_extinction.parameter_averages", "train")
    if law not in CURVES:
        raise CatalogprocError("no such extinction curve", wanted=" | ".join(CURVES), found=law)
    inverse_micron = 1000.0 / np.asarray(wavelength, dtype=np.float64)
    try:
        ratio = getattr(parameter_averages, law)(Rv=r_v)(inverse_micron.ravel() / units.micron)
    except ValueError as error:
        raise CatalogprocError(
            f"outside the range of the extinction curve {law}", found=error
        ) from None
    return np.asarray(r_v * ratio, dtype=np.float64).reshape(inverse_micron.shape)
