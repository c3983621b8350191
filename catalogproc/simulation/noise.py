"""Errors of simulated spectra, photometry and parallaxes.

The errors of the coefficients are those of real stars of the same magnitude and colour, their
correlations the mean of real stars; errors of photometry and parallaxes follow the papers of the
data releases. build_grids.py fits the model of the spectra's errors and writes grids/xp_noise.npz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from catalogproc.resources import shipped

Float = NDArray[np.float64]

NEIGHBOURS = 12
"""Errors follow those of one of this many real stars, the nearest in magnitude and colour."""

NEAR_G, NEAR_COLOUR = 0.5, 0.15
"""Units of the distance to these stars in G and BP - RP, mag."""

G_KNOTS = (9.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0)
"""Knots of the errors' linear splines in G; linear extrapolation beyond."""

CALIBRATION_NODES = 24
"""Number of principal components of the smooth errors of the flux calibration."""

CALIBRATION_LENGTH = 45.0
"""Correlation length of these errors, nm (Montegriffo et al. 2023, figures 25 to 27)."""

CALIBRATION_LEVEL = ((330.0, 0.03), (400.0, 0.012), (450.0, 0.008), (500.0, 0.006), (1050.0, 0.006))
"""Relative standard deviation of these errors, by wavelength in nm (Montegriffo et al. 2023;
Huang et al. 2024)."""

PHOTOMETRY = {
    "G": ((6.0, 3e-4), (13.0, 3e-4), (17.0, 1e-3), (20.0, 6e-3)),
    "BP": ((6.0, 9e-4), (13.0, 9e-4), (17.0, 1.2e-2), (20.0, 1.08e-1)),
    "RP": ((6.0, 6e-4), (13.0, 6e-4), (17.0, 6e-3), (20.0, 5.2e-2)),
}
"""Errors in mag by G (Gaia Collaboration, Brown et al. 2021, table 4)."""

PARALLAX = (
    (6.0, 0.022),
    (9.0, 0.016),
    (12.0, 0.014),
    (14.0, 0.018),
    (15.0, 0.027),
    (16.0, 0.042),
    (17.0, 0.069),
    (18.0, 0.116),
)
"""Median parallax error in mas by G (Lindegren et al. 2021, figure 7; Kepler's stars have 0.010 at
9 to 12.5, because Gaia observed that field more often than average)."""

PARALLAX_SPREAD = 0.25
"""Standard deviation of the logarithm of the parallax error at one magnitude."""

TMASS_FLOOR, TMASS_LIMIT = (0.021, 0.020, 0.017), (15.8, 15.1, 14.3)
"""Error in mag in J, H and Ks of bright stars (Kepler's red giants), and magnitude of S/N 10
(Skrutskie et al. 2006)."""

NO_PARALLAX, NO_TMASS = 0.03, 0.04
"""Fractions of stars without a parallax and without 2MASS photometry, at any magnitude."""


@dataclass(frozen=True)
class Noise:
    """Errors of the n coefficients of both bands, fitted to R real stars.

    Attributes
    ----------
    coefficients
        Regression of ln(error / G flux) on :func:`design` (D, n).
    components, scores
        Principal components of the residuals (C, n), and their values for the real stars (R, C).
    relevant
        Numbers of relevant bases in BP and RP of the real stars (R, 2).
    place
        G and BP - RP of the real stars (R, 2), mag.
    factor
        Cholesky factor of the mean correlation matrix (n, n).
    """

    coefficients: Tensor
    components: Tensor
    scores: Tensor
    relevant: Tensor
    place: Tensor
    factor: Tensor

    def to(self, device: str | torch.device) -> Noise:
        """Return a copy with the tensors on a device.

        Parameters
        ----------
        device
            The device in torch's notation.
        """
        return Noise(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def errors(self, g: Tensor, bp_rp: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return errors over the G flux (N, n), and numbers of relevant bases (N, 2).

        Parameters
        ----------
        g, bp_rp
            G and BP - RP (N,), mag.
        random
            Generator on the device of the tensors.
        """
        unit = torch.tensor([NEAR_G, NEAR_COLOUR], device=g.device)
        place = torch.stack([g, bp_rp], dim=-1) / unit
        near = torch.cdist(place, self.place / unit).topk(NEIGHBOURS, largest=False).indices
        pick = torch.randint(NEIGHBOURS, (len(g), 1), generator=random, device=g.device)
        star = near.gather(1, pick)[:, 0]
        expected = design(g, bp_rp) @ self.coefficients
        return torch.exp(expected + self.scores[star] @ self.components), self.relevant[star]

    def spectra(self, errors: Tensor, random: torch.Generator) -> Tensor:
        """Return correlated Gaussian noise (N, n).

        Parameters
        ----------
        errors
            Its standard deviations (N, n).
        random
            Generator on the device of the errors.
        """
        z = torch.randn(errors.shape, generator=random, device=errors.device)
        return errors * (z @ self.factor.T)


def design(g: Any, bp_rp: Any) -> Any:
    """Return the regressors (N, D) of ln(error / G flux): linear spline in G, quadratic in colour.

    Parameters
    ----------
    g, bp_rp
        G and BP - RP (N,) in mag, tensors or arrays.
    """
    stack = torch.stack if isinstance(g, torch.Tensor) else np.stack
    hinges = [(g - knot).clip(min=0.0) for knot in G_KNOTS]
    colour = bp_rp - 1.1
    terms = [g * 0 + 1, g - 13, *hinges, colour, colour**2, colour * (g - 13)]
    return stack(terms, -1)


@lru_cache(maxsize=1)
def load_noise() -> Noise:
    """Read the shipped noise model, on the CPU."""
    with np.load(shipped("grids") / "xp_noise.npz", allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    tensors["relevant"] = tensors["relevant"].long()
    return Noise(**tensors)


def calibration_modes(wavelength: ArrayLike) -> Tensor:
    """Return smooth errors of the flux calibration as modes (modes, W).

    The error of the natural log of the flux is the sum of the modes, each multiplied by a
    standard normal variate: a Gaussian process with a squared-exponential kernel.

    Parameters
    ----------
    wavelength
        Wavelengths (W,), nm.
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    nodes, levels = np.array(CALIBRATION_LEVEL).T
    level = np.interp(wavelength, nodes, levels)
    lag = (wavelength[:, None] - wavelength) / CALIBRATION_LENGTH
    values, vectors = np.linalg.eigh(level[:, None] * np.exp(-0.5 * lag**2) * level)
    largest = slice(-CALIBRATION_NODES, None)
    modes = vectors[:, largest] * np.sqrt(np.clip(values[largest], 0, None))
    return torch.from_numpy(np.ascontiguousarray(modes.T)).float()


def by_magnitude(table: tuple[tuple[float, float], ...], magnitude: Tensor) -> Tensor:
    """Interpolate the log of a quantity linearly in magnitude (N,).

    Parameters
    ----------
    table
        Pairs of a magnitude and the quantity; constant below the first, extrapolated beyond the
        last.
    magnitude
        Magnitudes (N,).
    """
    x, y = torch.tensor(table, device=magnitude.device).T.contiguous()
    i = torch.searchsorted(x, magnitude.contiguous()).clamp(1, len(x) - 1)
    t = ((magnitude - x[i - 1]) / (x[i] - x[i - 1])).clamp(min=0.0)
    return torch.exp(torch.lerp(y[i - 1].log(), y[i].log(), t))


def tmass_errors(magnitudes: Tensor) -> Tensor:
    """Return the errors of J, H, Ks (N, 3) in mag: a constant and the sky noise in quadrature.

    Parameters
    ----------
    magnitudes
        J, H and Ks (N, 3), mag.
    """
    floor, limit = torch.tensor((TMASS_FLOOR, TMASS_LIMIT), device=magnitudes.device)
    return torch.hypot(floor, 0.1086 * 10 ** (0.4 * (magnitudes - limit)))


def parallax_error(g: Tensor, random: torch.Generator) -> Tensor:
    """Return random errors of the parallax (N,) in mas.

    Parameters
    ----------
    g
        G magnitudes (N,).
    random
        Generator on the device of ``g``.
    """
    z = torch.randn(g.shape, generator=random, device=g.device)
    return by_magnitude(PARALLAX, g) * torch.exp(PARALLAX_SPREAD * z)
