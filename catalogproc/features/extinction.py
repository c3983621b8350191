"""Extinction by dust: scales of E(B-V), extinction in V and in G, the curve.

``ebv`` is always on the scale of Schlegel, Finkbeiner & Davis (1998), as in the maps and in the
labels of Leung & Bovy (2024); the true E(B-V) is 0.884 of it (Schlafly & Finkbeiner 2011).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import CatalogprocError
from catalogproc.resources import optional_module

Float = NDArray[np.float64]

TRUE_PER_SFD = 0.884
R_V = 3.1

LN_EBV_FLOOR = -7.0
"""ln E(B-V) that stands for no dust at all, 9e-4 mag (Leung & Bovy 2024)."""

MAX_EBV = 10.0
"""A larger E(B-V) is no measurement (Leung & Bovy 2024)."""

CURVES = ("F99", "F19")

# k_G = A_G / A_0 as a polynomial in X = Teff / 5040 K and A = A_0, for the upper part of the
# Hertzsprung-Russell diagram: the relation that goes with the Gaia EDR3 pass-bands (Riello et
# al. 2021), made with Castelli & Kurucz spectra and the curve of Fitzpatrick et al. (2019) by
# the method of Danielski et al. (2018); https://www.cosmos.esa.int/web/gaia/edr3-extinction-law,
# table HRDTop, TeffNorm, kG. Good to 3.5 %.
_K_G = (
    (0.235975767531247, 0, 0),  # (coefficient, power of X, power of A)
    (0.974642001154732, 1, 0),
    (-0.454849105677279, 2, 0),
    (0.0809472883012553, 3, 0),
    (0.00143267173083805, 0, 1),
    (0.000711522982426832, 0, 2),
    (-2.43558666819971e-05, 0, 3),
    (-0.0330300302504699, 1, 1),
    (0.00626996185287723, 2, 1),
    (0.000448105647489681, 1, 2),
)
_K_G_TEFF, _K_G_A_0 = (3500.0, 10000.0), (0.01, 20.0)  # its range, K and mag


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


def g_extinction(ebv: ArrayLike, teff: ArrayLike) -> Float:
    """Return A_G in mag (N,).

    The Gaia EDR3 relation for giants (see the constants above), with A_0 = A_V. Outside its range,
    3500 to 10000 K and A_0 to 20 mag, the ratio A_G/A_0 is that at the edge.

    Parameters
    ----------
    ebv
        E(B-V) on the SFD scale (N,), mag.
    teff
        Effective temperature (N,), K.
    """
    a_0 = v_extinction(ebv)
    x = np.clip(np.asarray(teff, dtype=np.float64), *_K_G_TEFF) / 5040.0
    a = np.clip(a_0, *_K_G_A_0)
    powers = [[np.ones_like(q), q, q * q, q * q * q] for q in (x, a)]
    ratio = sum(c * powers[0][i] * powers[1][j] for c, i, j in _K_G)
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
