"""The design matrix of flux calibration at any wavelength, as GaiaXPy's external instrument model.

    D_lj = h c / (A R(lambda_l) lambda_l) sum_n M_jn H_n(s u(lambda_l) + o)

with the response R, the dispersion u, the telescope's pupil A and Hermite functions H_n. Cubic
splines go through the tables of R and u (Montegriffo et al. 2023, A&A 674, A3). M, s and o ship in
grids/xp_canonical.npz, R and u in grids/instrument.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from catalogproc.features.canonical_tables import read_arrays
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

HC = 1e9 * 2.99792458e8 * 6.62607004e-34
"""Planck's constant times the speed of light, J nm."""

PUPIL = 0.7278
"""Area of the telescope's pupil, m2."""

JOINED = (635.0, 643.0)
"""Between these wavelengths, nm, the merged spectrum passes linearly from BP to RP."""

_FILES = {band: f"{band}C03_{load_release().bands[band].instrument}" for band in BANDS}


def design_at(wavelengths: Float, band: str) -> Float:
    """Return the flux of one band from its coefficients (L, n), W m-2 nm-1.

    Parameters
    ----------
    wavelengths
        (L,), nm.
    band
        "bp" or "rp".
    """
    from scipy.interpolate import splev, splrep

    tables = read_arrays()
    functions = tables[f"functions_{band}"]
    scale, offset = tables[f"axis_{band}"]
    at, response = _curve(f"{_FILES[band]}_response.csv")
    place, axis = _curve(f"{_FILES[band]}_dispersion.csv")
    r = np.asarray(splev(wavelengths, splrep(at, response, s=0)))
    u = np.asarray(splev(wavelengths, splrep(place, axis, s=0)))
    norm = np.where(r > 0, HC / (PUPIL * np.where(r > 0, r, 1.0) * wavelengths), 0.0)
    hermite = hermite_functions(scale * u + offset, functions.shape[1])
    return np.asarray(norm[:, None] * (hermite @ functions.T))


def merge_at(wavelengths: Float) -> dict[str, Float]:
    """Return by band its weight (L,) in the merged spectrum.

    Parameters
    ----------
    wavelengths
        (L,), nm.
    """
    rp = np.clip((wavelengths - JOINED[0]) / (JOINED[1] - JOINED[0]), 0.0, 1.0)
    return {"bp": 1.0 - rp, "rp": rp}


def hermite_functions(x: Float, count: int) -> Float:
    """Return the first orthonormal Hermite functions (L, count).

    Parameters
    ----------
    x
        (L,).
    count
        Their number, 2 or more.
    """
    found = np.empty((len(x), count))
    found[:, 0] = np.pi**-0.25 * np.exp(-(x**2) / 2.0)
    found[:, 1] = np.sqrt(2.0) * x * found[:, 0]
    for n in range(2, count):
        found[:, n] = (
            np.sqrt(2.0 / n) * x * found[:, n - 1] - np.sqrt((n - 1) / n) * found[:, n - 2]
        )
    return found


def functions_of_gaiaxpy() -> Mapping[str, Float]:
    """Return ``functions_<b>`` M (n, m) and ``axis_<b>`` (s, o) of the installed GaiaXPy."""
    from gaiaxpy.calibrator.external_instrument_model import ExternalInstrumentModel
    from gaiaxpy.config.paths import config_path

    found = {}
    for band in BANDS:
        paths = [f"{config_path}/{_FILES[band]}_{kind}.csv" for kind in
                 ("dispersion", "response", "bases")]  # fmt: skip
        bases = ExternalInstrumentModel.from_config_csv(*paths).bases
        low, high = bases["normRangeMin"], bases["normRangeMax"]
        first, last = bases["pwlRangeMin"], bases["pwlRangeMax"]
        scale = (high - low) / (last - first)
        found[f"axis_{band}"] = np.array([scale, low - first * scale])
        found[f"functions_{band}"] = (
            bases["transformationMatrix"] @ bases["inverseBasesCoefficients"]
        )
    return found


@cache
def _curve(name: str) -> Float:
    return np.asarray(np.genfromtxt(shipped("grids") / "instrument" / name, delimiter=","))
