"""Simulated giants with known parameters, as Gaia and 2MASS would observe them.

Isochrones (isochrones.py), atmospheres and dust (atmospheres.py), the instrument (instrument.py)
and errors (noise.py), each a few array operations on any device. The grids are only megabytes, so
a training simulates its stars continuously on its own device.

The same seed gives the same stars on the same kind of device; the generators of CUDA and of the
CPU give different numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalogproc.features.astrometry import GALACTIC_FROM_ICRS, OBLIQUITY
from catalogproc.features.extinction import LN_EBV_FLOOR, TRUE_PER_SFD
from catalogproc.release import load_release
from catalogproc.simulation import noise
from catalogproc.simulation.alpha_elements import draw_alpha, iron_abundance
from catalogproc.simulation.atmospheres import dilution, load_atmospheres
from catalogproc.simulation.even_population import EvenPopulation
from catalogproc.simulation.instrument import load_instrument
from catalogproc.simulation.isochrones import PRIOR, load_population
from catalogproc.simulation.simulated_stars import CORE_HELIUM, SimulatedStars, write_stars
from catalogproc.simulation.spectral_correction import SpectralCorrection, load_correction

__all__ = ["SimulatedStars", "Simulator", "write_stars"]

BLOCK = 4096
"""Number of stars simulated at a time."""

Progress = Callable[[int, int, str], None]

G_LIMITS, G_MEAN, G_SIGMA = (6.0, 17.5), 14.0, 2.3
"""G magnitudes are drawn from a Gaussian between limits, as wide as in surveys of giants."""

DISTANCE = (0.05, 40.0)
"""Smallest and largest distance, kpc; a G magnitude that needs another one is changed."""

DUST_DENSITY, DUST_HEIGHT, DUST_SCATTER = 0.22, 0.11, 0.8
"""True E(B-V) in mag per kpc in the plane, scale height in kpc, scatter of its natural log."""

ANY_DUST, ANY_DUST_RANGE = 0.12, (1e-3, 2.0)
"""Fraction of stars whose E(B-V) is log-uniform at any position, and its range in mag."""

MAX_EBV = 2.5
"""Upper limit on the SFD scale, mag, approached smoothly: more would redden giants beyond
BP - RP = 4."""

R_V_RANGE = (2.8, 3.4)
"""R_V is uniform in this range."""

REFERENCE_DILUTION = math.log(1e-12)
"""Natural log of the dilution (R/d)^2 at which fluxes are computed."""

BAND_LEVEL_ERROR = 0.003
"""Relative error of the level of each band's spectrum with respect to the photometry."""

PHOTOMETRIC_ERROR = 0.002
"""Error in mag of G, BP and RP with respect to the spectrum, added to the published errors."""

E_LN_EBV, E_EBV = 0.15, 0.02
"""Errors of a dust map: relative, and in mag (SFD scale)."""

CORRECTED = "simulation_corrected"
"""The fact of a training that says whether its simulated stars were corrected by real ones."""


class Simulator:
    """Simulates giants, with the grids on one device.

    Parameters
    ----------
    device
        Where the tensors are: "cpu", "cuda", "cuda:1".
    corrected
        Whether the stars have [alpha/Fe], and spectra and colours as real giants
        (spectral_correction.py), and are spread evenly (even_population.py); [M/H] is then that
        of iron, as in APOGEE's labels.

    Examples
    --------
    >>> import catalogproc
    >>> stars = catalogproc.Simulator().draw(3, seed=1)
    >>> len(stars.columns["teff"])
    3
    """

    def __init__(self, device: str | torch.device = "cpu", corrected: bool = False) -> None:
        self.device = torch.device(device)
        atmospheres = load_atmospheres()
        self.population = load_population().to(self.device)
        self.atmospheres = atmospheres.to(self.device)
        self.instrument = load_instrument(atmospheres.wavelength).to(self.device)
        self.noise = noise.load_noise().to(self.device)
        self.calibration_modes = noise.calibration_modes(atmospheres.wavelength).to(self.device)
        self.correction: SpectralCorrection | None = None
        self.even: EvenPopulation | None = None
        if corrected:
            wavelengths = tuple(np.asarray(atmospheres.wavelength).tolist())
            self.correction = load_correction(wavelengths).to(self.device)
            self.even = EvenPopulation(self.population)

    def draw(self, n: int, seed: int, progress: Progress | None = None) -> SimulatedStars:
        """Simulate giants, including noise.

        Parameters
        ----------
        n
            Number of stars.
        seed
            The same seed, n and kind of device give the same stars.
        progress
            Called with (stars done, n, "").
        """
        random = torch.Generator(device=self.device).manual_seed(seed)
        blocks = []
        with torch.no_grad(), exact_products(self.device):
            for start in range(0, max(n, 1), BLOCK):
                blocks.append(self._block(min(BLOCK, n - start), random))
                if progress is not None:
                    progress(min(start + BLOCK, n), n, "")
        merged = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
        return SimulatedStars(n_bp_coefficients=self.instrument.n_bp, seed=seed, columns=merged)

    def spectra(
        self,
        m_h: Tensor,
        teff: Tensor,
        logg: Tensor,
        log_l: Tensor,
        distance: Tensor,
        ebv: Tensor,
        r_v: Tensor,
        flux_errors: Tensor | None = None,
        alpha_m: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the coefficients and magnitudes of stars without noise.

        Parameters
        ----------
        m_h, teff, logg
            [M/H] in dex, Teff in K and log g (N,).
        log_l
            log10 of the luminosity in Lsun (N,).
        distance
            Distance (N,), kpc.
        ebv, r_v
            True E(B-V) in mag, not on the scale of SFD, and R_V (N,).
        flux_errors
            Errors of the flux calibration (N, W), added to the natural log of the flux.
        alpha_m
            [alpha/Fe] in dex (N,), which a corrected simulator needs.

        Returns
        -------
        coefficients, gaia, tmass
            Coefficients of both bands (N, n_bp + n_rp) in electrons per second; G, BP, RP and
            J, H, Ks (N, 3) in mag.
        """
        # Near 1e-12 of the surface flux, the flux and its products with the instrument's matrix
        # are well within the range of float32.
        level = dilution(log_l, teff, distance) - REFERENCE_DILUTION
        with exact_products(self.device):
            log_flux = self.atmospheres.log_flux(m_h, teff, logg) + REFERENCE_DILUTION
            log_flux -= 0.4 * math.log(10.0) * self.atmospheres.extinction(ebv, r_v)
            if flux_errors is not None:
                log_flux += flux_errors
            shift = torch.zeros((), device=self.device)
            if self.correction is not None and alpha_m is not None:
                labels = torch.stack([teff, logg, m_h, alpha_m, ebv / TRUE_PER_SFD], dim=-1)
                ratio, shift = self.correction(labels)
                log_flux += ratio
            flux = torch.exp(log_flux)
            coefficients = (flux @ self.instrument.xp) * torch.exp(level)[:, None]
            gaia = self.instrument.gaia_magnitudes(coefficients)
            tmass = self.instrument.tmass_magnitudes(flux) + shift
        return coefficients, gaia, tmass - 2.5 / math.log(10.0) * level[:, None]

    def _block(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        star = (self.even or self.population).draw(n, random)
        if self.correction is not None:
            star["alpha_m"] = draw_alpha(star["m_h"], star["component"], random)
            star["m_h"] = iron_abundance(star["m_h"], star["alpha_m"])
        star["rc_prob"] = (star["phase"] == CORE_HELIUM).to(star["teff"].dtype)
        star |= self._place(star, random)
        z = torch.randn(n, len(self.calibration_modes), generator=random, device=self.device)
        coefficients, gaia, tmass = self.spectra(
            m_h=star["m_h"],
            teff=star["teff"],
            logg=star["logg"],
            log_l=star["log_l"],
            distance=star["distance"],
            ebv=TRUE_PER_SFD * star["ebv"],
            r_v=star["r_v"],
            flux_errors=z @ self.calibration_modes,
            alpha_m=star.get("alpha_m"),
        )
        # Correct the estimated distance to the one that gives the wanted magnitude.
        shift = (star["g_wanted"] - gaia[:, 0]).clamp(-5, 5)
        star["distance"] = star["distance"] * 10 ** (0.2 * shift)
        coefficients = coefficients * 10 ** (-0.4 * shift)[:, None]
        star["mg"] = gaia[:, 0] - 5 * torch.log10(star["distance"]) - 10 + shift
        return (
            {name: value for name, value in star.items() if name != "g_wanted"}
            | self._photometry(gaia + shift[:, None], tmass + shift[:, None], random)
            | self._noisy_spectra(coefficients, gaia + shift[:, None], random)
            | self._parallax(star["distance"], star["g_wanted"], random)
            | self._dust_map(star["ebv"], random)
        )

    def _place(self, star: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """Draw G magnitude, distance (an estimate), position and dust from the constants above."""
        n, device = len(star["m_h"]), self.device
        u = torch.rand(6, n, generator=random, device=device)
        z = torch.randn(n, generator=random, device=device)
        mean, sigma = torch.tensor(G_MEAN), torch.tensor(G_SIGMA)
        low, high = (torch.special.ndtr((limit - mean) / sigma).item() for limit in G_LIMITS)
        g = G_MEAN + G_SIGMA * torch.special.ndtri(low + (high - low) * u[0])
        absolute = 4.74 - 2.5 * star["log_l"] - _bolometric_correction(star["teff"])
        heights = torch.tensor([part.scale_height for part in PRIOR], device=device)
        height = heights[star["component"]]
        extinction = torch.zeros_like(g)
        for _ in range(3):  # fixed point: more extinction means a smaller distance
            distance = (10 ** (0.2 * (g - absolute - extinction) - 2)).clamp(*DISTANCE)
            above = -height * torch.log1p(-u[1] * (1 - torch.exp(-distance / height)))
            sin_b = (above / distance).clamp(1e-4, 1.0)
            column = DUST_HEIGHT / sin_b * (1 - torch.exp(-distance * sin_b / DUST_HEIGHT))
            ebv = DUST_DENSITY * column * torch.exp(DUST_SCATTER * z) / TRUE_PER_SFD
            first, last = (float(np.log(limit)) for limit in ANY_DUST_RANGE)
            log_uniform = torch.exp(first + (last - first) * u[2] / ANY_DUST)
            ebv = torch.where(u[2] < ANY_DUST, log_uniform, ebv).clamp(min=1e-6)
            ebv = ebv / (1 + (ebv / MAX_EBV) ** 4) ** 0.25
            extinction = 2.4 * TRUE_PER_SFD * ebv
        g = (
            5 * torch.log10(distance) + 10 + absolute + extinction
        )  # changed where the distance was limited
        longitude = 360 * u[3]
        latitude = torch.rad2deg(torch.asin(torch.where(u[4] < 0.5, -sin_b, sin_b)))
        return {
            "g_wanted": g.clamp(*G_LIMITS),
            "distance": distance,
            "ebv": ebv,
            "r_v": R_V_RANGE[0] + (R_V_RANGE[1] - R_V_RANGE[0]) * u[5],
            "l": longitude,
            "b": latitude,
        } | _equatorial(longitude, latitude)

    def _photometry(
        self, gaia: Tensor, tmass: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        z = torch.randn(9, len(gaia), generator=random, device=self.device)
        lost = torch.rand(len(gaia), generator=random, device=self.device) < noise.NO_TMASS
        columns: dict[str, Tensor] = {}
        for i, name in enumerate(("g", "bp", "rp")):
            by_g = noise.PHOTOMETRY[name.upper()]
            error = noise.by_magnitude(by_g, gaia[:, 0])
            columns[f"{name}_mag"] = gaia[:, i] + error * z[i] + PHOTOMETRIC_ERROR * z[6 + i]
            columns[f"e_{name}_mag"] = error
        errors = noise.tmass_errors(tmass)
        # Quality A in all three bands requires S/N > 10.
        lost |= (errors > 0.1086).any(dim=1)
        for i, name in enumerate(("j", "h", "ks")):
            observed = tmass[:, i] + errors[:, i] * z[3 + i]
            columns[f"{name}_mag"] = observed.masked_fill(lost, torch.nan)
            columns[f"e_{name}_mag"] = errors[:, i].masked_fill(lost, torch.nan)
        return columns

    def _noisy_spectra(
        self, coefficients: Tensor, gaia: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        bp_rp = gaia[:, 1] - gaia[:, 2]
        relative, relevant = self.noise.errors(gaia[:, 0], bp_rp, random)
        errors = relative * 10 ** (0.4 * (load_release().magnitude("G").zero_point - gaia[:, :1]))
        level = torch.randn(len(gaia), 2, generator=random, device=self.device) * BAND_LEVEL_ERROR
        n_bp = self.instrument.n_bp
        band = (torch.arange(coefficients.shape[1], device=self.device) >= n_bp).long()
        observed = coefficients * (1 + level[:, band]) + self.noise.spectra(errors, random)
        return {
            "coefficients": observed,
            "coefficient_errors": errors,
            "n_bp_relevant": relevant[:, 0],
            "n_rp_relevant": relevant[:, 1],
        }

    def _parallax(self, distance: Tensor, g: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        error = noise.parallax_error(g, random)
        z = torch.randn(len(g), generator=random, device=self.device)
        lost = torch.rand(len(g), generator=random, device=self.device) < noise.NO_PARALLAX
        return {
            "parallax": (1 / distance + error * z).masked_fill(lost, torch.nan),
            "e_parallax": error.masked_fill(lost, torch.nan),
        }

    def _dust_map(self, ebv: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        true = torch.log(ebv).clamp(min=LN_EBV_FLOOR)
        error = torch.hypot(torch.full_like(ebv, E_LN_EBV), E_EBV / torch.exp(true)).clamp(max=1.0)
        z = torch.randn(len(ebv), generator=random, device=self.device)
        return {"ln_ebv_seen": (true + error * z).clamp(min=LN_EBV_FLOOR), "e_ln_ebv": error}


def corrected_stars(training: Mapping[str, Any]) -> bool:
    """Return whether the simulated stars of a training were corrected by real ones.

    Parameters
    ----------
    training
        Facts that the training's bundle records.
    """
    return bool(training.get(CORRECTED, False))


def simulator_as_trained(training: Mapping[str, Any]) -> Simulator:
    """Return a simulator on the CPU of stars such as the simulated ones of a training.

    Parameters
    ----------
    training
        As for :func:`corrected_stars`.
    """
    return Simulator(corrected=corrected_stars(training))


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Compute matrix products in full float32, whatever precision a training has set.

    A coefficient is a small difference of large fluxes; TF32 or bfloat16 would lose it.

    Parameters
    ----------
    device
        The device of the products.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _bolometric_correction(teff: Tensor) -> Tensor:
    """Return BC in G (N,) from Teff (N,): Andrae et al. (2018), table 4; for the first distance."""
    x = teff - 5772.0
    warm = 0.06 + x * (6.731e-5 + x * (-6.647e-8 + x * (2.859e-11 - 7.197e-15 * x)))
    cool = 1.749 + x * (1.977e-3 + x * (3.737e-7 + x * (-8.966e-11 - 4.183e-14 * x)))
    return torch.where(teff > 4000.0, warm, cool)


def _equatorial(longitude: Tensor, latitude: Tensor) -> dict[str, Tensor]:
    """Return ra, dec (ICRS) and ecliptic latitude (N,) in degrees from galactic degrees (N,)."""
    # float64: positions need more than seven digits.
    l, b = (torch.deg2rad(angle.double()) for angle in (longitude, latitude))  # noqa: E741
    direction = torch.stack([b.cos() * l.cos(), b.cos() * l.sin(), b.sin()])
    x, y, z = torch.from_numpy(GALACTIC_FROM_ICRS.T).to(direction) @ direction
    pole = np.cos(OBLIQUITY) * z - np.sin(OBLIQUITY) * y
    return {
        "ra": torch.rad2deg(torch.atan2(y, x)) % 360.0,
        "dec": torch.rad2deg(torch.asin(z.clamp(-1, 1))),
        "ecl_lat": torch.rad2deg(torch.asin(pole.clamp(-1, 1))),
    }
