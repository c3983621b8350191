"""Spectra that a catalog meets and that are not of giants: what its flags must tell apart.

Made with the simulator, from atmospheres that it has (dwarfs) or deformed ones: stars hotter
than its grid by the ratio of black bodies, white dwarfs with broad Balmer lines besides,
quasars as a power law with broad lines at a redshift, giants with strong emission lines, and
spectra that hold nothing but noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalogproc.simulation.simulator import SimulatedStars, Simulator

KINDS = ("dwarf", "hot star", "white dwarf", "quasar", "emission lines", "noise")

# hc / k in nm K; Balmer lines and those of quasars in nm, with widths (relative) and strengths.
HC_OVER_K = 1.4387769e7
BALMER = (656.28, 486.13, 434.05, 410.17)
QUASAR_LINES = ((121.6, 0.02, 3.0), (154.9, 0.02, 1.0), (190.9, 0.025, 0.6), (279.8, 0.015, 0.5),
                (486.1, 0.012, 0.5), (656.3, 0.012, 2.0))  # fmt: skip

Deform = Callable[[Tensor, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class _Given:
    """A population of stars of given parameters, for the simulator to draw from."""

    make: Callable[[int, torch.Generator], dict[str, Tensor]]

    def draw(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        star = self.make(n, random)
        zero = torch.zeros(n)
        return {
            "m_h": zero, "log_age": zero + 9.7, "mass": zero + 1.0, "phase": zero.long() + 2,
            "place": zero, "component": zero.long(),
        } | star  # fmt: skip


@dataclass(frozen=True)
class _Atmospheres:
    """The simulator's atmospheres, their log flux (N, W) changed at wavelengths (W,) in nm."""

    real: Any
    change: Callable[[Tensor, Tensor], Tensor]
    wavelength: Tensor

    def log_flux(self, m_h: Tensor, teff: Tensor, logg: Tensor) -> Tensor:
        return self.change(self.real.log_flux(m_h, teff, logg), teff)

    def extinction(self, ebv: Tensor, r_v: Tensor) -> Tensor:
        extinction: Tensor = self.real.extinction(ebv, r_v)
        return extinction


def strangers(kind: str, n: int, seed: int) -> SimulatedStars:
    """``n`` spectra of a kind of KINDS, as Gaia and 2MASS would report them; on the CPU."""
    simulator = Simulator()
    edge = float(np.max(_grid_teff(simulator)))
    wavelength = torch.as_tensor(np.asarray(simulator.atmospheres.wavelength), dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    change: Callable[[Tensor, Tensor], Tensor] | None = None
    if kind == "dwarf":
        simulator.population = _Given(_dwarfs)  # type: ignore[assignment]
    elif kind in ("hot star", "white dwarf"):
        white = kind == "white dwarf"
        simulator.population = _Given(_white_dwarfs if white else _hot_stars)  # type: ignore[assignment]

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            hotter = _black_body(wavelength, teff) - _black_body(wavelength, teff.clamp(max=edge))
            return log_flux + hotter - (_broad_lines(wavelength) if white else 0.0)

    elif kind == "quasar":

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            level = log_flux.mean(1, keepdim=True)
            return level + _quasars(wavelength, len(teff), random)

    elif kind == "emission lines":

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            return log_flux + _emission(wavelength, len(teff), random)

    if change is not None:
        simulator.atmospheres = _Atmospheres(simulator.atmospheres, change, wavelength)  # type: ignore[assignment]
    stars = simulator.draw(n, seed)
    if kind == "noise":
        errors = stars["coefficient_errors"]
        drawn = torch.randn(errors.shape, generator=random) * errors
        stars = replace(stars, columns=stars.columns | {"coefficients": drawn})
    return stars


def _grid_teff(simulator: Simulator) -> Any:
    return simulator.atmospheres.knots[1].numpy()


def _uniform(n: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=random)


def _dwarfs(n: int, random: torch.Generator) -> dict[str, Tensor]:
    """The main sequence from K to F: log g from 4.2 to 4.8."""
    teff = _uniform(n, 4000.0, 6800.0, random)
    logg = 4.75 - 0.5 * (teff - 4000.0) / 2800.0 + 0.05 * torch.randn(n, generator=random)
    mass = (teff / 5772.0) ** 1.3
    m_h = (-0.1 + 0.25 * torch.randn(n, generator=random)).clamp(-1.5, 0.4)
    return {"teff": teff, "logg": logg, "mass": mass, "m_h": m_h,
            "log_l": _log_l(teff, logg, mass)}  # fmt: skip


def _hot_stars(n: int, random: torch.Generator) -> dict[str, Tensor]:
    teff = 10 ** _uniform(n, 4.0, 4.5, random)
    logg = _uniform(n, 3.6, 4.4, random)
    mass = 2.5 * (teff / 1e4) ** 1.5
    return {"teff": teff, "logg": logg, "mass": mass, "log_l": _log_l(teff, logg, mass)}


def _white_dwarfs(n: int, random: torch.Generator) -> dict[str, Tensor]:
    teff = 10 ** _uniform(n, 3.9, 4.6, random)
    logg = torch.full((n,), 8.0)
    mass = torch.full((n,), 0.6)
    return {"teff": teff, "logg": logg, "mass": mass, "log_l": _log_l(teff, logg, mass)}


def _log_l(teff: Tensor, logg: Tensor, mass: Tensor) -> Tensor:
    return torch.log10(mass) + 4 * torch.log10(teff / 5772.0) - (logg - 4.438)


def _black_body(wavelength: Tensor, teff: Tensor) -> Tensor:
    """Natural log of Planck's function over wavelength (N, W), but for constants."""
    return -torch.log(torch.expm1((HC_OVER_K / (wavelength * teff[:, None])).clamp(max=80.0)))


def _broad_lines(wavelength: Tensor) -> Tensor:
    depth = torch.zeros_like(wavelength)
    for line in BALMER:
        depth += 0.6 * torch.exp(-0.5 * ((wavelength - line) / 8.0) ** 2)
    return depth


def _quasars(wavelength: Tensor, n: int, random: torch.Generator) -> Tensor:
    """Natural log of a power law of index -1.5 in wavelength, with broad lines, at z 0.2 to 4."""
    z = _uniform(n, 0.2, 4.0, random)[:, None]
    index = -1.5 + 0.3 * torch.randn(n, 1, generator=random)
    flux = (wavelength / 500.0) ** index
    for line, width, strength in QUASAR_LINES:
        place = line * (1 + z)
        flux = flux * (1 + strength * torch.exp(-0.5 * ((wavelength / place - 1) / width) ** 2))
    return torch.log(flux)


def _emission(wavelength: Tensor, n: int, random: torch.Generator) -> Tensor:
    """H alpha and H beta, and [O III] for half of them; equivalent widths 10 to 100 nm in all."""
    width = 10 ** _uniform(n, 1.0, 2.0, random)[:, None]
    oxygen = (torch.rand(n, 1, generator=random) < 0.5).float()
    shares = ((656.28, 1 - 0.5 * oxygen), (486.13, 0.3 - 0.1 * oxygen), (500.7, 0.6 * oxygen))
    extra = torch.zeros(n, len(wavelength))
    for line, share in shares:
        profile = torch.exp(-0.5 * ((wavelength - line) / 1.5) ** 2) / (1.5 * np.sqrt(2 * np.pi))
        extra = extra + share * width * profile
    return torch.log1p(extra)
