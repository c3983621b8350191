"""XP coefficients and magnitudes of Gaia and 2MASS from a spectrum.

The DR3 externally calibrated instrument (Montegriffo et al. 2023, A&A 674, A3; line-spread
functions of Weiler et al. 2023): photons N = R(λ) λ S(λ) are detected at pseudo-wavelength u(λ),
broadened by the line-spread function; the mean spectrum is expanded in Hermite functions of
x = (u - b)/a and rotated into the archive's basis. All steps are linear in the flux, so the
instrument is one matrix from flux at the wavelengths of the atmospheres to the coefficients of
both bands.

Response and line-spread function come from different authors and agree with each other, and with
real spectra, to 10 % only. The shipped xp_instrument.npz is that matrix corrected so that the
models matched with real stars give the real coefficients and GaiaXPy's calibration recovers the
flux (instrument_fit.py, build_grids.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import CatalogprocError
from catalogproc.features.photometry import passbands
from catalogproc.release import load_release
from catalogproc.resources import shipped

Float = NDArray[np.float64]

STEP = 0.25
"""Wavelength step of the integral, nm."""


@dataclass(frozen=True)
class Band:
    """A photometer (BP or RP).

    Attributes
    ----------
    name
        "BP" or "RP".
    model
        Prefix of its files in grids/instrument.
    width, origin
        Scale of the Hermite functions, x = (u - origin) / width, from GaiaXPy's configuration.
    shift
        Constant shift of the pseudo-wavelength u, fitted with the response correction.
    """

    name: str
    model: str
    width: float
    origin: float
    shift: float


BANDS = (
    Band("BP", "bpC03_v375wi", 3.062231, 30.00986, 0.1),
    Band("RP", "rpC03_v142r", 3.020529, 30.00292, 0.0),
)

TMASS_ZERO_POINTS = {"J": 3.129e-12, "H": 1.133e-12, "Ks": 4.283e-13}
"""F_lambda of magnitude zero, W m-2 nm-1 (Cohen, Wheaton & Megeath 2003, table 2)."""


TMASS_CORRECTION = ((-0.024, -0.056), (0.027, 0.010), (-0.004, -0.015))
"""Added to J, H and Ks: an offset in mag, and a slope with J - Ks - 0.7, which is limited to
J - Ks from 0.4 to 1.1.

Fitted, relative to G, on 1,747 Kepler red giants (Li et al. 2024) of known Teff, log g, [M/H],
luminosity and E(B-V): ATLAS9 makes H too bright and J too faint."""

TENSORS = ("xp", "tmass", "gaia", "gaia_zero_points")
"""Fields of :class:`Instrument` that move between devices."""


@dataclass(frozen=True)
class Instrument:
    """The instruments of Gaia and 2MASS as matrices.

    Attributes
    ----------
    wavelength
        Wavelengths of the flux (W,), nm.
    xp
        From flux in W m-2 nm-1 to coefficients in electrons per second (W, n_bp + n_rp).
    tmass
        From flux to flux in J, H and Ks over that of magnitude zero (W, 3).
    gaia
        From coefficients to flux in G, BP and RP, 1e-15 W m-2 nm-1, (n_bp + n_rp, 3).
    gaia_zero_points
        Zero-points of that flux (3,), mag.
    n_bp
        Number of BP coefficients.
    """

    wavelength: Float
    xp: Tensor
    tmass: Tensor
    gaia: Tensor
    gaia_zero_points: Tensor
    n_bp: int

    def to(self, device: str | torch.device) -> Instrument:
        """Return a copy with the tensors on a device.

        Parameters
        ----------
        device
            The device in torch's notation.
        """
        moved = {name: getattr(self, name).to(device) for name in TENSORS}
        return replace(self, **moved)

    def gaia_magnitudes(self, coefficients: Tensor) -> Tensor:
        """Return G, BP and RP (N, 3) in mag.

        Parameters
        ----------
        coefficients
            Coefficients of both bands (N, n_bp + n_rp), electrons per second.
        """
        return self.gaia_zero_points - 2.5 * torch.log10(coefficients @ self.gaia)

    def tmass_magnitudes(self, flux: Tensor) -> Tensor:
        """Return J, H and Ks (N, 3) in mag, corrected by TMASS_CORRECTION.

        Parameters
        ----------
        flux
            Flux at the star's distance (N, W), W m-2 nm-1.
        """
        raw = -2.5 * torch.log10(torch.matmul(flux, self.tmass))
        offset, slope = torch.tensor(TMASS_CORRECTION, device=flux.device).T
        j_k = (raw[:, :1] - raw[:, 2:]).clamp(0.4, 1.1)
        return torch.as_tensor(raw + offset + slope * (j_k - 0.7))


def hermite(n: int, x: Float) -> Float:
    """Return the first orthonormal Hermite functions (n, X), by their recurrence.

    Parameters
    ----------
    n
        Number of functions.
    x
        Where they are evaluated (X,).
    """
    values = np.zeros((n, len(x)))
    values[0] = np.pi**-0.25 * np.exp(-0.5 * x * x)
    values[1] = np.sqrt(2.0) * x * values[0]
    for k in range(2, n):
        values[k] = np.sqrt(2 / k) * x * values[k - 1] - np.sqrt((k - 1) / k) * values[k - 2]
    return values


def interpolation(nodes: Float, x: Float) -> Float:
    """Return the matrix (X, nodes) of linear interpolation, constant beyond the ends.

    Parameters
    ----------
    nodes
        Where a function is given (nodes,), ascending.
    x
        Where it is wanted (X,).
    """
    i = np.clip(np.searchsorted(nodes, x) - 1, 0, len(nodes) - 2)
    t = np.clip((x - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0)
    matrix = np.zeros((len(x), len(nodes)))
    rows = np.arange(len(x))
    matrix[rows, i] = 1 - t
    matrix[rows, i + 1] += t
    return matrix


def band_matrix(band: Band, wavelength: Float, folder: Path) -> Float:
    """Return the published instrument of one band as a matrix (n, W) from flux to coefficients.

    It lacks a constant factor per band, which the corrections of instrument_fit.py supply.

    Parameters
    ----------
    band
        BP or RP.
    wavelength
        Wavelengths of the flux (W,), nm; the flux is interpolated linearly between them.
    folder
        Folder of the instrument's tables (grids/instrument).
    """
    from scipy.interpolate import CubicSpline

    def table(name: str) -> Float:
        return np.genfromtxt(folder / name, delimiter=",")

    response, dispersion = (
        table(f"{band.model}_{name}.csv") for name in ("response", "dispersion")
    )
    sensitive = response[0][response[1] > 1e-6 * response[1].max()]
    fine = np.arange(sensitive[0], sensitive[-1] + STEP / 2, STEP)
    photons = np.clip(CubicSpline(*response)(fine), 0.0, None) * fine * STEP
    line_spread = table(f"LSFModel_{band.name}.csv")  # (n, n_wide)
    u = CubicSpline(*dispersion)(fine) + band.shift
    waves = hermite(line_spread.shape[1], (u - band.origin) / band.width)
    rotation = table(f"BasisTransformationMatrix_{band.name}.csv")
    at_nodes = (waves * photons) @ interpolation(wavelength, fine)
    return np.asarray(rotation @ line_spread @ at_nodes)


def tmass_matrix(wavelength: Float, path: Path) -> Float:
    """Return the matrix (3, W) from flux to flux in J, H and Ks over that of magnitude zero.

    The response curves are for integrals over energy, not photons (Cohen et al. 2003), so they
    are not multiplied by the wavelength.

    Parameters
    ----------
    wavelength
        Wavelengths of the flux (W,), nm.
    path
        Table of the response curves (twomass_rsr.csv).
    """
    curves = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    rows = []
    for name, zero_point in TMASS_ZERO_POINTS.items():
        curve = curves[curves["band"] == name]
        fine = np.arange(curve["wavelength_nm"][0], curve["wavelength_nm"][-1] + 0.5, 1.0)
        response = np.interp(fine, curve["wavelength_nm"], curve["response"])
        rows.append(response @ interpolation(wavelength, fine) / response.sum() / zero_point)
    return np.stack(rows)


@lru_cache(maxsize=2)
def _load(wavelength: tuple[float, ...]) -> Instrument:
    grids = shipped("grids")
    nodes = np.array(wavelength)
    with np.load(grids / "xp_instrument.npz", allow_pickle=False) as file:
        at, xp = file["wavelength"], file["matrix"].astype(np.float64)
    if not np.allclose(at, nodes[: len(at)]):
        raise CatalogprocError(
            "grids/xp_instrument.npz was made for other wavelengths",
            wanted=f"{nodes[0]:g} to {nodes[-1]:g} nm", found=f"{at[0]:g} to {at[-1]:g} nm",
            advice="make it again: catalogproc.simulation.build_grids.write_grids()",
        )  # fmt: skip
    system = passbands(load_release())
    bands = [system.names.index(name) for name in ("G", "BP", "RP")]
    # Fluxes are near 1e-15 W m-2 nm-1: scaled to avoid underflow of float32.
    gaia = np.concatenate([system.weights["bp"][bands], system.weights["rp"][bands]], axis=1)
    return Instrument(
        wavelength=nodes,
        xp=_tensor(np.pad(xp, ((0, 0), (0, len(nodes) - len(at)))).T),
        tmass=_tensor(tmass_matrix(nodes, grids / "twomass_rsr.csv").T),
        gaia=_tensor(gaia.T * 1e15),
        gaia_zero_points=_tensor(system.zero_points[bands] + 2.5 * 15),
        n_bp=system.weights["bp"].shape[1],
    )


def load_instrument(wavelength: Float) -> Instrument:
    """Read the shipped instrument, on the CPU.

    Parameters
    ----------
    wavelength
        Wavelengths of the flux (W,), nm.

    Raises
    ------
    CatalogprocError
        The shipped matrix is for other wavelengths.
    """
    return _load(tuple(float(x) for x in wavelength))


def _tensor(values: Float) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
