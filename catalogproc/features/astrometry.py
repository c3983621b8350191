"""Positions; the parallax and its zero-point; luminosity and distance from it.

The pseudo-luminosity is ``F = ϖ 10^(0.2 G) = 10^(0.2 M_G + 2)``, ϖ in mas (Anderson et al. 2018;
Leung & Bovy 2019). It is linear in the parallax, so its error is Gaussian, and it is finite where
the parallax is zero or negative.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

PARALLAX_SOLVED, PSEUDOCOLOUR_SOLVED = 4, 64
"""Bits of astrometric_params_solved of Gaia DR3; a release declares its own (parallax.py)."""

FIVE_PARAMETERS, SIX_PARAMETERS = 31, 95
"""astrometric_params_solved of the two solutions of DR3 that have a parallax."""

NU_EFF_RANGE, PSEUDOCOLOUR_RANGE = (1.1, 1.9), (1.24, 1.72)
"""Colours for which Lindegren et al. (2021) give a zero-point, 1/µm."""

MAX_PARALLAX_ERROR, MAX_RUWE = 0.1, 1.4
"""A parallax is read by the model only within these, mas and 1 (Leung & Bovy 2024)."""

SUN_M_G = 4.67
"""Absolute G magnitude of the Sun (Leung & Bovy 2024; 4.67 in Casagrande & VandenBerg 2018)."""

GALACTIC_FROM_ICRS = np.array(
    [
        [-0.0548755604, -0.8734370902, -0.4838350155],
        [+0.4941094279, -0.4448296300, +0.7469822445],
        [-0.8676661490, -0.1980763734, +0.4559837762],
    ]
)
"""Hipparcos and Tycho Catalogues, vol. 1, eq. 1.5.11: Gaia's definition too."""

OBLIQUITY = np.deg2rad(84381.411 / 3600.0)
"""Of the ecliptic coordinates in gaia_source, radians."""


def zero_point(
    g_mag: ArrayLike,
    nu_eff: ArrayLike,
    pseudocolour: ArrayLike,
    ecl_lat: ArrayLike,
    params_solved: ArrayLike,
) -> Float:
    """Return the zero-point of the parallax in mas (N,), to be subtracted from the published one.

    Lindegren et al. (2021) by the ``gaiadr3-zeropoint`` package, plus
    ``0.005 clip(G - 13, 0, 4)`` of Leung et al. (2023). NaN where a needed value is unknown, where
    no parallax was solved for, and outside the relation's range: 6 < G < 21; 1.1 < nu_eff < 1.9
    (five parameters); 1.24 < pseudocolour < 1.72 (six).

    Parameters
    ----------
    g_mag
        G (N,), mag.
    nu_eff, pseudocolour
        Effective wavenumbers (N,), 1/µm.
    ecl_lat
        Ecliptic latitude (N,), degrees.
    params_solved
        astrometric_params_solved (N,), by its bits: five parameters with PARALLAX_SOLVED, six
        with PSEUDOCOLOUR_SOLVED too.
    """
    g, nu, pseudo, latitude, solved = (
        np.asarray(item, dtype=np.float64)
        for item in (g_mag, nu_eff, pseudocolour, ecl_lat, params_solved)
    )
    five, six = five_parameters(solved), six_parameters(solved)
    known = np.isfinite(g) & np.isfinite(latitude)
    known &= (five & np.isfinite(nu)) | (six & np.isfinite(pseudo))
    result = np.full(g.shape, np.nan)
    if known.any():
        result[known] = _lindegren().get_zpt(
            g[known], nu[known], pseudo[known], latitude[known],
            np.where(six, SIX_PARAMETERS, FIVE_PARAMETERS)[known], _warnings=False,
        )  # fmt: skip
    return result + 0.005 * np.clip(g - 13.0, 0.0, 4.0)


def has_parallax(params_solved: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a parallax was solved for (N,); False where that is unknown.

    Parameters
    ----------
    params_solved
        astrometric_params_solved (N,), NaN where unknown.
    """
    return _bit(params_solved, PARALLAX_SOLVED)


def five_parameters(params_solved: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a parallax was solved for with a known colour (N,).

    Parameters
    ----------
    params_solved
        astrometric_params_solved (N,), NaN where unknown.
    """
    return has_parallax(params_solved) & ~_bit(params_solved, PSEUDOCOLOUR_SOLVED)


def six_parameters(params_solved: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a parallax and a pseudocolour were solved for (N,).

    Parameters
    ----------
    params_solved
        astrometric_params_solved (N,), NaN where unknown.
    """
    return has_parallax(params_solved) & _bit(params_solved, PSEUDOCOLOUR_SOLVED)


def _bit(params_solved: ArrayLike, bit: int) -> NDArray[np.bool_]:
    known = np.nan_to_num(np.asarray(params_solved, dtype=np.float64)).astype(np.int64)
    return np.asarray(known & bit != 0)


@cache
def _lindegren() -> Any:
    from zero_point import zpt

    zpt.load_tables()
    return zpt


def parallax_usable(zp: ArrayLike, error: ArrayLike, ruwe: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a parallax may be a token (N,).

    Its zero-point is known, its error at most 0.1 mas, ruwe at most 1.4 or unknown (Leung & Bovy
    2024).

    Parameters
    ----------
    zp, error
        Zero-point and error of the parallax (N,), mas.
    ruwe
        Renormalised unit weight error (N,).
    """
    precise = np.asarray(error) <= MAX_PARALLAX_ERROR
    return np.asarray(np.isfinite(zp) & precise & ~(np.asarray(ruwe) > MAX_RUWE))


def pseudo_luminosity(
    parallax: ArrayLike, error: ArrayLike, g_mag: ArrayLike
) -> tuple[Float, Float]:
    """Return F and its error (N,).

    Parameters
    ----------
    parallax, error
        Parallax and its error (N,), mas.
    g_mag
        Apparent G (N,), mag.
    """
    scale = 10.0 ** (0.2 * np.asarray(g_mag, dtype=np.float64))
    return np.asarray(parallax) * scale, np.asarray(error) * scale


def model_parallax(f: ArrayLike, sigma: ArrayLike, g_mag: ArrayLike) -> tuple[Float, Float]:
    """Return the parallax of a pseudo-luminosity, and its error (N,), mas.

    Parameters
    ----------
    f, sigma
        F and its error (N,).
    g_mag
        Apparent G (N,), mag.
    """
    scale = 10.0 ** (-0.2 * np.asarray(g_mag, dtype=np.float64))
    return np.asarray(f) * scale, np.asarray(sigma) * scale


def distance(f: ArrayLike, sigma: ArrayLike, g_mag: ArrayLike) -> tuple[Float, Float, Float]:
    """Return the 16th, 50th and 84th percentile of the distance in kpc (N,).

    Exact for a Gaussian F, and independent of extinction, which F includes as G does. NaN where
    the percentile of the parallax is not positive: the distance has no such upper limit.

    Parameters
    ----------
    f, sigma
        F and its error (N,).
    g_mag
        Apparent G (N,), mag.
    """
    scale = 10.0 ** (0.2 * np.asarray(g_mag, dtype=np.float64))
    f, sigma = np.asarray(f, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    near, middle, far = (scale / _positive(value) for value in (f + sigma, f, f - sigma))
    return near, middle, far


def absolute_magnitude(f: ArrayLike, sigma: ArrayLike) -> tuple[Float, Float]:
    """Return M_G = 5 (log10 F - 2) and its error 5/ln 10 sigma/F (N,), mag.

    Not corrected for extinction; NaN where F is not positive.

    Parameters
    ----------
    f, sigma
        F and its error (N,).
    """
    positive = _positive(np.asarray(f, dtype=np.float64))
    return 5.0 * (np.log10(positive) - 2.0), 5.0 / np.log(10.0) * np.asarray(sigma) / positive


def log_luminosity(m_g: ArrayLike) -> Float:
    """Return log10 of the luminosity in the G band, in solar units (N,).

    Parameters
    ----------
    m_g
        Absolute magnitude (N,).
    """
    return 0.4 * (SUN_M_G - np.asarray(m_g, dtype=np.float64))


def combine(
    f_a: ArrayLike, sigma_a: ArrayLike, f_b: ArrayLike, sigma_b: ArrayLike
) -> tuple[Float, Float]:
    """Return the inverse-variance mean of two pseudo-luminosities, and its error (N,).

    Where one of the two is unknown the other is returned. For independent values only: not where
    the parallax was an input of the model.

    Parameters
    ----------
    f_a, sigma_a, f_b, sigma_b
        The two and their errors (N,).
    """
    pairs = [
        (np.asarray(f, dtype=np.float64), np.asarray(s, dtype=np.float64))
        for f, s in ((f_a, sigma_a), (f_b, sigma_b))
    ]
    weight, total = np.zeros(pairs[0][0].shape), np.zeros(pairs[0][0].shape)
    for f, sigma in pairs:
        known = np.isfinite(f) & (sigma > 0)
        share = np.divide(1.0, sigma**2, out=np.zeros_like(weight), where=known)
        weight += share
        total += share * np.where(known, f, 0.0)
    weight[weight == 0] = np.nan
    return np.asarray(total / weight), np.asarray(1.0 / np.sqrt(weight))


def tension(f_a: ArrayLike, sigma_a: ArrayLike, f_b: ArrayLike, sigma_b: ArrayLike) -> Float:
    """Return (F_a - F_b) in units of their joint error (N,).

    Parameters
    ----------
    f_a, sigma_a, f_b, sigma_b
        The two and their errors (N,).
    """
    return np.asarray(
        (np.asarray(f_a) - np.asarray(f_b)) / np.hypot(np.asarray(sigma_a), np.asarray(sigma_b))
    )


def _positive(values: Float) -> Float:
    return np.where(values > 0, values, np.nan)


def galactic(ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
    """Return galactic longitude (0 to 360) and latitude in degrees (N,).

    Parameters
    ----------
    ra, dec
        ICRS positions (N,), degrees.
    """
    x, y, z = _direction(ra, dec)
    # Written out, not a matrix product: BLAS rounds a row in ways that depend on its neighbours.
    u, v, w = (a * x + b * y + c * z for a, b, c in GALACTIC_FROM_ICRS)
    return np.rad2deg(np.arctan2(v, u)) % 360.0, np.rad2deg(np.arctan2(w, np.hypot(u, v)))


def ecliptic_latitude(ra: ArrayLike, dec: ArrayLike) -> Float:
    """Return the ecliptic latitude in degrees (N,).

    Parameters
    ----------
    ra, dec
        ICRS positions (N,), degrees.
    """
    _, y, z = _direction(ra, dec)
    return np.asarray(np.rad2deg(np.arcsin(np.cos(OBLIQUITY) * z - np.sin(OBLIQUITY) * y)))


def healpix(ra: ArrayLike, dec: ArrayLike, order: int = 29) -> NDArray[np.int64]:
    """Return the nested HEALPix pixel (N,); -1 where a position is unknown.

    Parameters
    ----------
    ra, dec
        Positions (N,), degrees.
    order
        Of the pixelisation.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    known = np.isfinite(ra) & (np.abs(dec) <= 90.0)
    pixel = np.full(ra.shape, -1, dtype=np.int64)
    if known.any():
        # Loaded where there are positions only: it takes half a second.
        from astropy import units
        from astropy_healpix import lonlat_to_healpix

        pixel[known] = lonlat_to_healpix(
            ra[known] * units.deg, dec[known] * units.deg, 2**order, order="nested"
        )
    return pixel


def _direction(ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float, Float]:
    alpha, delta = np.deg2rad(np.asarray(ra)), np.deg2rad(np.asarray(dec))
    return np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)
