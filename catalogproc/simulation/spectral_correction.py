"""How real giants differ from simulated ones with the same labels: learned from real spectra.

Scaled-solar model atmospheres have neither the alpha elements nor the carbon and nitrogen of real
giants, and they and the instrument have faults of their own. The difference is described by the
natural log of real over simulated flux at the wavelengths of sampled spectra, and by differences of
J - G, H - G and Ks - G, each a polynomial in Teff, log g, [Fe/H], [alpha/Fe] and E(B-V) that
datasets/spectral_correction_fit.py fitted to giants of the training folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catalogproc.resources import shipped

LABELS = ("teff", "logg", "m_h", "alpha_m", "ebv")
"""Arguments of the polynomials; E(B-V) on the SFD scale."""

DEGREE = 3
"""Highest degree of the polynomials."""

LARGEST = 1.0
"""Largest absolute log of a flux ratio: the fit is not to be trusted beyond."""

TENSORS = ("low", "high", "flux", "tmass")


@dataclass(frozen=True, eq=False)
class SpectralCorrection:
    """Polynomials of J terms.

    Attributes
    ----------
    low, high
        Range of the labels (5,) in the fit; labels beyond it are set to its edge.
    flux
        Coefficients (J, W) of the log of real over simulated flux, at W wavelengths.
    tmass
        Coefficients (J, 3) of the differences in J - G, H - G and Ks - G, mag.
    """

    low: Tensor
    high: Tensor
    flux: Tensor
    tmass: Tensor

    def to(self, device: str | torch.device) -> SpectralCorrection:
        """Return a copy on a device.

        Parameters
        ----------
        device
            The device in torch's notation.
        """
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def __call__(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log flux ratio (N, W) and the differences in J, H and Ks (N, 3) in mag.

        Parameters
        ----------
        labels
            LABELS of N stars (N, 5): K, dex, dex, dex, mag.
        """
        terms = polynomial_terms(labels.clamp(self.low, self.high))
        return (terms @ self.flux).clamp(-LARGEST, LARGEST), terms @ self.tmass


def polynomial_terms(labels: Tensor) -> Tensor:
    """Return the terms of the polynomials (N, J).

    Parameters
    ----------
    labels
        LABELS of N stars (N, 5).

    Notes
    -----
    [alpha/Fe] and E(B-V) enter cubic terms at most once.
    """
    teff, logg, m_h, alpha_m, ebv = labels.unbind(-1)
    x = torch.stack(
        [
            (5040.0 / teff - 1.08) / 0.1,
            (logg - 2.0) / 0.8,
            (m_h + 0.4) / 0.5,
            (alpha_m - 0.1) / 0.1,
            torch.log1p(3.0 * ebv) - 0.6,
        ]
    )
    terms = [torch.ones_like(teff)]
    for degree in range(1, DEGREE + 1):
        for factors in combinations_with_replacement(range(len(LABELS)), degree):
            if degree < DEGREE or sum(factor >= 3 for factor in factors) < 2:
                terms.append(x[list(factors)].prod(dim=0))
    return torch.stack(terms, dim=-1)


@lru_cache(maxsize=2)
def load_correction(wavelengths: tuple[float, ...], path: Path | None = None) -> SpectralCorrection:
    """Read the correction, with the flux ratio at given wavelengths.

    Beyond 336 to 1020 nm the ratio is that at the nearest of these.

    Parameters
    ----------
    wavelengths
        Wavelengths (W,), nm.
    path
        The file; by default the shipped one.
    """
    with np.load(path or shipped("grids") / "xp_correction.npz") as file:
        arrays = {name: file[name].astype(np.float64) for name in file.files}
    wanted = np.asarray(wavelengths)
    flux = [np.interp(wanted, arrays["wavelength"], row) for row in arrays["flux"]]
    arrays["flux"] = np.stack(flux)
    return SpectralCorrection(**{name: torch.from_numpy(arrays[name]).float() for name in TENSORS})
