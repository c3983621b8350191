"""Errors as real spectra, photometry and parallaxes have them.

Level and shape of the coefficients' errors come from real stars of the same magnitude and
colour, their correlations from the real stars that have any; the photometry's and parallax's
errors from the releases' papers. grids/xp_noise.npz holds what was learned
(science/reality/calibrate.py makes it).
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
"""A star takes its errors after one of so many real stars nearest in magnitude and colour."""

NEAR_G, NEAR_COLOUR = 0.5, 0.15
"""What counts as one step of distance to those, mag."""

G_KNOTS = (9.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0)
"""Knots of the errors' linear splines in G; straight on beyond."""

CALIBRATION_NODES = 24
"""Principal components kept of the smooth calibration faults."""

CALIBRATION_LENGTH = 45.0
"""Correlation length of the faults, nm (Montegriffo et al. 2023, figures 25 to 27)."""

CALIBRATION_LEVEL = ((330.0, 0.03), (400.0, 0.012), (450.0, 0.008), (500.0, 0.006), (1050.0, 0.006))
"""Their standard deviation by wavelength in nm (Montegriffo et al. 2023; Huang et al. 2024)."""

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
"""Median parallax error in mas by G (as Lindegren et al. 2021, figure 7; Kepler's stars have 0.010
at 9 to 12.5, where Gaia looked more often than on average)."""

PARALLAX_SPREAD = 0.25
"""Standard deviation of the logarithm of the parallax error at one magnitude."""

TMASS_FLOOR, TMASS_LIMIT = (0.021, 0.020, 0.017), (15.8, 15.1, 14.3)
"""Error in J, H and Ks of bright stars (Kepler's red giants), and magnitude of S/N 10
(Skrutskie et al. 2006)."""

NO_PARALLAX, NO_TMASS = 0.03, 0.04
"""Shares of stars without them, at any magnitude."""


@dataclass(frozen=True)
class Noise:
    """What real stars' errors look like; R real stars, n coefficients (both bands), C components.

    ``coefficients`` (D, n) gives ln(error / G flux) from the design of G and BP-RP,
    ``components`` (C, n) how stars differ from it; ``scores`` (R, C), ``relevant`` (R, 2) and
    ``place`` (R, 2: G, BP-RP) are the real stars'. ``factor`` (n, n) is the Cholesky factor of
    the mean correlation matrix.
    """

    coefficients: Tensor
    components: Tensor
    scores: Tensor
    relevant: Tensor
    place: Tensor
    factor: Tensor

    def to(self, device: str | torch.device) -> Noise:
        return Noise(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def errors(self, g: Tensor, bp_rp: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Errors over G flux (N, n), and relevant bases (N, 2), for G and BP-RP (N,)."""
        step = torch.tensor([NEAR_G, NEAR_COLOUR], device=g.device)
        here = torch.stack([g, bp_rp], dim=-1) / step
        near = torch.cdist(here, self.place / step).topk(NEIGHBOURS, largest=False).indices
        pick = torch.randint(NEIGHBOURS, (len(g), 1), generator=random, device=g.device)
        star = near.gather(1, pick)[:, 0]
        expected = design(g, bp_rp) @ self.coefficients
        return torch.exp(expected + self.scores[star] @ self.components), self.relevant[star]

    def spectra(self, errors: Tensor, random: torch.Generator) -> Tensor:
        """Correlated noise of these errors (N, n)."""
        z = torch.randn(errors.shape, generator=random, device=errors.device)
        return errors * (z @ self.factor.T)


def design(g: Any, bp_rp: Any) -> Any:
    """The regressors (N, D) of ln(error / G flux): a linear spline in G, a quadratic in colour.

    For tensors and arrays alike.
    """
    stack = torch.stack if isinstance(g, torch.Tensor) else np.stack
    hinges = [(g - knot).clip(min=0.0) for knot in G_KNOTS]
    colour = bp_rp - 1.1
    terms = [g * 0 + 1, g - 13, *hinges, colour, colour**2, colour * (g - 13)]
    return stack(terms, -1)


@lru_cache(maxsize=1)
def load_noise() -> Noise:
    """The shipped noise model, on the CPU."""
    with np.load(shipped("grids") / "xp_noise.npz", allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    tensors["relevant"] = tensors["relevant"].long()
    return Noise(**tensors)


def calibration_modes(wavelength: ArrayLike) -> Tensor:
    """Smooth faults of the flux calibration (modes, W): natural log of flux, times N(0, 1) each.

    A Gaussian process in wavelength with a squared-exponential kernel.
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    nodes, levels = np.array(CALIBRATION_LEVEL).T
    level = np.interp(wavelength, nodes, levels)
    lag = (wavelength[:, None] - wavelength) / CALIBRATION_LENGTH
    values, vectors = np.linalg.eigh(level[:, None] * np.exp(-0.5 * lag**2) * level)
    kept = slice(-CALIBRATION_NODES, None)
    modes = vectors[:, kept] * np.sqrt(np.clip(values[kept], 0, None))
    return torch.from_numpy(np.ascontiguousarray(modes.T)).float()


def by_magnitude(table: tuple[tuple[float, float], ...], magnitude: Tensor) -> Tensor:
    """A value (N,) that is log-linear in the magnitude between the table's points."""
    x, y = torch.tensor(table, device=magnitude.device).T.contiguous()
    i = torch.searchsorted(x, magnitude.contiguous()).clamp(1, len(x) - 1)
    t = ((magnitude - x[i - 1]) / (x[i] - x[i - 1])).clamp(min=0.0)
    return torch.exp(torch.lerp(y[i - 1].log(), y[i].log(), t))


def tmass_errors(magnitudes: Tensor) -> Tensor:
    """Errors of J, H, Ks (N, 3): a floor, and the sky's noise."""
    floor, limit = torch.tensor((TMASS_FLOOR, TMASS_LIMIT), device=magnitudes.device)
    return torch.hypot(floor, 0.1086 * 10 ** (0.4 * (magnitudes - limit)))


def parallax_error(g: Tensor, random: torch.Generator) -> Tensor:
    """Error of the parallax in mas (N,)."""
    z = torch.randn(g.shape, generator=random, device=g.device)
    return by_magnitude(PARALLAX, g) * torch.exp(PARALLAX_SPREAD * z)
