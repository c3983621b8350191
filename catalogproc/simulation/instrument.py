"""From a spectrum to what Gaia and 2MASS report: XP coefficients and magnitudes.

The DR3 externally calibrated instrument (Montegriffo et al. 2023; line-spread functions of
Weiler et al. 2023): photons N = R(λ) λ S(λ) land at pseudo-wavelength u(λ), spread by the
line-spread function; the mean spectrum is expanded in Hermite functions of x = (u - b)/a and
rotated into the archive's basis. All of it is linear in the flux, so the instrument is one
matrix from flux at the wavelengths of the atmospheres to the coefficients of both bands.

Response and line-spread function come from different authors and fit each other, and real
spectra, to 10 % only. What ships as xp_instrument.npz is that matrix corrected so that real
stars' twins give the real coefficients and GaiaXPy's calibration returns what went in
(science/reality/twins.py, science/reality/calibrate.py).
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
from catalogproc.resources import shipped

Float = NDArray[np.float64]

STEP = 0.25
"""Wavelength step of the integral, nm."""


@dataclass(frozen=True)
class Band:
    """Files of a photometer, its scale x = (u - origin)/width, and a constant shift of u.

    Origin and width are those of GaiaXPy's configuration. The shift is fitted with the
    response correction.
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
"""Added to J, H and Ks: an offset, and a slope with J - Ks - 0.7 (constant beyond 0.4 and 1.1).

Fitted, against G, on 1,747 Kepler red giants (Li et al. 2024) of known Teff, log g, [M/H],
luminosity and E(B-V): ATLAS9 makes H too bright and J too faint."""

TENSORS = ("xp", "tmass", "gaia", "gaia_zero_points")


@dataclass(frozen=True)
class Instrument:
    """Matrices from flux in W m-2 nm-1 at ``wavelength`` (W,) nm.

    ``xp`` (W, n_bp + n_rp) gives coefficients in electrons per second, ``tmass`` (W, 3) the
    flux in J, H and Ks over that of magnitude zero, ``gaia`` (n_bp + n_rp, 3) the flux in G,
    BP and RP from the coefficients, ``gaia_zero_points`` (3,) their zero-points in mag.
    """

    wavelength: Float
    xp: Tensor
    tmass: Tensor
    gaia: Tensor
    gaia_zero_points: Tensor
    n_bp: int

    def to(self, device: str | torch.device) -> Instrument:
        moved = {name: getattr(self, name).to(device) for name in TENSORS}
        return replace(self, **moved)

    def gaia_magnitudes(self, coefficients: Tensor) -> Tensor:
        """G, BP and RP (N, 3) in mag from the coefficients of both bands (N, n_bp + n_rp)."""
        return self.gaia_zero_points - 2.5 * torch.log10(coefficients @ self.gaia)

    def tmass_magnitudes(self, flux: Tensor) -> Tensor:
        """J, H and Ks (N, 3) in mag from flux in W m-2 nm-1 (N, W)."""
        raw = -2.5 * torch.log10(torch.matmul(flux, self.tmass))
        offset, slope = torch.tensor(TMASS_CORRECTION, device=flux.device).T
        j_k = (raw[:, :1] - raw[:, 2:]).clamp(0.4, 1.1)
        return torch.as_tensor(raw + offset + slope * (j_k - 0.7))


def hermite(n: int, x: Float) -> Float:
    """The first ``n`` orthonormal Hermite functions at x (n, X), by their recurrence."""
    values = np.zeros((n, len(x)))
    values[0] = np.pi**-0.25 * np.exp(-0.5 * x * x)
    values[1] = np.sqrt(2.0) * x * values[0]
    for k in range(2, n):
        values[k] = np.sqrt(2 / k) * x * values[k - 1] - np.sqrt((k - 1) / k) * values[k - 2]
    return values


def interpolation(nodes: Float, x: Float) -> Float:
    """The matrix (X, nodes) of linear interpolation, constant beyond the ends."""
    i = np.clip(np.searchsorted(nodes, x) - 1, 0, len(nodes) - 2)
    t = np.clip((x - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0)
    matrix = np.zeros((len(x), len(nodes)))
    rows = np.arange(len(x))
    matrix[rows, i] = 1 - t
    matrix[rows, i + 1] += t
    return matrix


def band_matrix(band: Band, wavelength: Float, folder: Path) -> Float:
    """Coefficients (n,) of one band from flux at ``wavelength`` (W,), as a matrix (n, W).

    Up to a constant of the band, which the corrections of science/reality/twins.py supply.
    """
    from scipy.interpolate import CubicSpline

    def table(name: str) -> Float:
        return np.genfromtxt(folder / name, delimiter=",")

    response, dispersion = (
        table(f"{band.model}_{what}.csv") for what in ("response", "dispersion")
    )
    lit = response[0][response[1] > 1e-6 * response[1].max()]
    fine = np.arange(lit[0], lit[-1] + STEP / 2, STEP)
    photons = np.clip(CubicSpline(*response)(fine), 0.0, None) * fine * STEP
    spread = table(f"LSFModel_{band.name}.csv")  # (n, n_wide)
    u = CubicSpline(*dispersion)(fine) + band.shift
    waves = hermite(spread.shape[1], (u - band.origin) / band.width)
    rotation = table(f"BasisTransformationMatrix_{band.name}.csv")
    at_nodes = (waves * photons) @ interpolation(wavelength, fine)
    return np.asarray(rotation @ spread @ at_nodes)


def tmass_matrix(wavelength: Float, path: Path) -> Float:
    """Flux in J, H, Ks over that of magnitude zero, as a matrix (3, W).

    The response curves are for integrals over flux, not photons (Cohen et al. 2003).
    """
    text = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    rows = []
    for name, zero_point in TMASS_ZERO_POINTS.items():
        curve = text[text["band"] == name]
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
    system = passbands()
    bands = [system.names.index(name) for name in ("G", "BP", "RP")]
    # Fluxes are near 1e-15 W m-2 nm-1: scaled so that float32 keeps clear of its small end.
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
    """The shipped instrument for flux at these wavelengths (W,) in nm, on the CPU.

    Raises
    ------
    CatalogprocError
        The shipped matrix is for other wavelengths.
    """
    return _load(tuple(float(x) for x in wavelength))


def _tensor(values: Float) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
