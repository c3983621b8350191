"""Surface fluxes interpolated between ATLAS9 models, and their extinction by dust.

Models of Castelli & Kurucz (2004). The logarithm of the flux is expanded in principal components,
and their amplitudes are interpolated by a tensor product of cubic splines in [M/H], Teff and
log g: twice continuously differentiable, exact at the models. flux_correction.csv then puts the
models on the flux scale of Gaia's calibrated spectra; it is the median ratio of real stars to the
models that fit them best, within 2 % of 1 (instrument_fit.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.features.extinction import curve
from catalogproc.resources import shipped

Float = NDArray[np.float64]

COMPONENTS = 64
"""Number of principal components; the residual is below 0.1 %
(tests/simulation/test_instrument.py)."""

R_V_NODES = np.linspace(2.6, 3.6, 11)
"""Values of R_V at which the extinction curve is fitted by a quadratic, per wavelength."""

LONGEST = 2490.0
"""Longest wavelength read, nm: the end of the Ks pass-band."""

SOLAR_LUMINOSITY, STEFAN_BOLTZMANN, KILOPARSEC = 3.828e26, 5.670374419e-8, 3.0856775814913673e19
"""W, W m-2 K-4 and m (IAU 2015, CODATA 2018)."""


@dataclass(frozen=True)
class Grid:
    """The ATLAS9 models, without holes.

    Attributes
    ----------
    m_h, teff, logg
        Axes: [M/H] (M,) in dex, Teff (T,) in K, log g (G,) in dex of cm s-2.
    wavelength
        Wavelengths (W,), nm.
    log_flux
        Natural log of the surface flux in W m-2 nm-1 (M, T, G, W).
    """

    m_h: Float
    teff: Float
    logg: Float
    wavelength: Float
    log_flux: NDArray[np.float32]


@dataclass(frozen=True)
class Atmospheres:
    """Interpolated model atmospheres and the extinction curve.

    Attributes
    ----------
    wavelength
        Wavelengths (W,), nm.
    knots
        Knots of the splines in [M/H], Teff and log g.
    sizes
        Numbers M, T, G of models along these axes.
    coefficients
        Spline coefficients of the amplitudes (M T G, C).
    mean, components
        Mean log flux (W,) and its principal components (C, W).
    dust
        Polynomial in R_V - 3.1 (3, W) of the extinction in mag per mag of true E(B-V).
    """

    wavelength: Float
    knots: tuple[Tensor, Tensor, Tensor]
    sizes: tuple[int, int, int]
    coefficients: Tensor
    mean: Tensor
    components: Tensor
    dust: Tensor

    def to(self, device: str | torch.device) -> Atmospheres:
        """Return a copy with the tensors on a device.

        Parameters
        ----------
        device
            The device in torch's notation.
        """
        a, b, c = (knots.to(device) for knots in self.knots)
        tensors = (self.coefficients, self.mean, self.components, self.dust)
        return Atmospheres(
            self.wavelength, (a, b, c), self.sizes, *(item.to(device) for item in tensors)
        )

    def log_flux(self, m_h: Tensor, teff: Tensor, logg: Tensor) -> Tensor:
        """Return the natural log of the surface flux in W m-2 nm-1 (N, W).

        Parameters
        ----------
        m_h, teff, logg
            [M/H] in dex, Teff in K, log g (N,); values outside the grid are set to its edge.
        """
        first, weights = zip(
            *(_basis(knots, x) for knots, x in zip(self.knots, (m_h, teff, logg), strict=True)),
            strict=True,
        )
        step = torch.arange(4, device=m_h.device)
        _, t, g = self.sizes
        rows = (
            (first[0][:, None, None, None] + step[:, None, None]) * (t * g)
            + (first[1][:, None, None, None] + step[:, None]) * g
            + (first[2][:, None, None, None] + step)
        )
        weight = torch.einsum("ni,nj,nk->nijk", *weights)
        amplitudes: Tensor = torch.nn.functional.embedding_bag(
            rows.flatten(1), self.coefficients, per_sample_weights=weight.flatten(1), mode="sum"
        )
        return torch.addmm(self.mean, amplitudes, self.components)

    def extinction(self, ebv: Tensor, r_v: Tensor) -> Tensor:
        """Return the extinction in mag (N, W), by the curve of Fitzpatrick (1999).

        Parameters
        ----------
        ebv
            True E(B-V) (N,) in mag, not on the scale of SFD.
        r_v
            R_V (N,).
        """
        x = r_v - 3.1
        powers = torch.stack([torch.ones_like(x), x, x * x], dim=-1)
        return torch.matmul(ebv[:, None] * powers, self.dust)


def dilution(log_l: Tensor, teff: Tensor, distance: Tensor) -> Tensor:
    """Return the natural log of (R/d)^2 (N,), with L = 4 pi R^2 sigma Teff^4.

    Parameters
    ----------
    log_l
        log10 of the luminosity in Lsun (N,).
    teff
        Teff (N,), K.
    distance
        Distance (N,), kpc.
    """
    surface = math.log(4 * math.pi * STEFAN_BOLTZMANN * KILOPARSEC**2 / SOLAR_LUMINOSITY)
    return math.log(10.0) * log_l - 4 * torch.log(teff) - 2 * torch.log(distance) - surface


def read_grid(path: Path | None = None) -> Grid:
    """Read the ATLAS9 grid; missing models (hot, of low gravity) get the next higher log g.

    Parameters
    ----------
    path
        The FITS file; by default the shipped one.
    """
    from astropy.io import fits

    with fits.open(path or shipped("grids") / "ck04_atlas9.fits.gz") as file:
        axes = [file[name].data[name].astype(np.float64) for name in ("MH", "TEFF", "LOGG", "WAVE")]
        flux = file[0].data.astype(np.float32)
    for g in range(flux.shape[2] - 2, -1, -1):
        missing = np.isnan(flux[:, :, g, 0])
        flux[:, :, g][missing] = flux[:, :, g + 1][missing]
    wavelength = axes[3] / 10.0
    used = wavelength <= LONGEST
    # erg s-1 cm-2 A-1 is 0.01 W m-2 nm-1.
    return Grid(axes[0], axes[1], axes[2], wavelength[used], np.log(0.01 * flux[..., used]))


@lru_cache(maxsize=1)
def load_atmospheres() -> Atmospheres:
    """Read the shipped grid and flux correction, on the CPU."""
    table = np.genfromtxt(shipped("grids") / "flux_correction.csv", delimiter=",", skip_header=1)
    return build(read_grid(), factor=table)


def extinction_curves(wavelengths: Float) -> Float:
    """Return the extinction per mag of true E(B-V) at the R_V_NODES (R, W), mag.

    Parameters
    ----------
    wavelengths
        Wavelengths (W,), nm.
    """
    return np.stack([curve(wavelengths, r_v) for r_v in R_V_NODES])


def polynomial_in_r_v(curves: Float) -> Float:
    """Return polynomials in R_V - 3.1 (3, K) through curves.

    Parameters
    ----------
    curves
        Values at the R_V_NODES (R, K).
    """
    powers = (R_V_NODES - 3.1)[:, None] ** np.arange(3)
    return np.asarray(np.linalg.lstsq(powers, curves, rcond=None)[0])


def build(grid: Grid, components: int = COMPONENTS, factor: Float | None = None) -> Atmospheres:
    """Fit splines to the principal components of a grid's log flux.

    Parameters
    ----------
    grid
        The models.
    components
        Number of principal components.
    factor
        Wavelengths in nm and factors on the flux (F, 2); 1 outside these wavelengths.
    """
    from scipy.interpolate import make_interp_spline

    shape = grid.log_flux.shape
    flat = grid.log_flux.reshape(-1, shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
    basis = vectors[:, ::-1][:, :components]
    table = ((flat - mean) @ basis).reshape(*shape[:-1], -1)
    knots = []
    for axis, nodes in enumerate((grid.m_h, grid.teff, grid.logg)):
        spline = make_interp_spline(nodes, table, k=3, axis=axis)
        table = np.moveaxis(spline.c, 0, axis)  # scipy puts the interpolated axis first
        knots.append(torch.from_numpy(np.ascontiguousarray(spline.t)).float())
    level = np.ones(len(mean))
    if factor is not None:
        level = np.interp(grid.wavelength, factor[:, 0], factor[:, 1], left=1.0, right=1.0)
    dust = polynomial_in_r_v(extinction_curves(grid.wavelength))
    return Atmospheres(
        grid.wavelength,
        (knots[0], knots[1], knots[2]),
        (shape[0], shape[1], shape[2]),
        torch.from_numpy(table.reshape(-1, components)).float().contiguous(),
        torch.from_numpy(mean + np.log(level)).float(),
        torch.from_numpy(np.ascontiguousarray(basis.T)).float(),
        torch.from_numpy(dust).float(),
    )


def _basis(knots: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first of the four non-zero cubic B-splines at x (N,), and their values (N, 4).

    De Boor (1978), algorithm BSPLVB.
    """
    x = x.clamp(knots[3], knots[-4]).contiguous()
    span = (torch.searchsorted(knots, x, right=True) - 1).clamp(3, len(knots) - 5)
    values = [torch.ones_like(x)]
    for degree in (1, 2, 3):
        carried = torch.zeros_like(x)
        raised = []
        for i, value in enumerate(values):
            right, left = knots[span + i + 1], knots[span + i + 1 - degree]
            term = value / (right - left)
            raised.append(carried + (right - x) * term)
            carried = (x - left) * term
        values = [*raised, carried]
    return span - 3, torch.stack(values, dim=-1)
