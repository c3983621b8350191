"""Simulated out-of-distribution objects: spectra that are not of giants and must be flagged.

They are made by the simulator with other stellar parameters or changed atmospheres: dwarfs; stars
hotter than the grid, by the ratio of black bodies; white dwarfs, with broad Balmer lines; quasars,
as a redshifted power law with broad lines; giants with strong emission lines; and pure noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from catalogproc.simulation.atmospheres import Atmospheres
from catalogproc.simulation.simulator import SimulatedStars, Simulator

KINDS = ("dwarf", "hot star", "white dwarf", "quasar", "emission lines", "noise")
"""Kinds of out-of-distribution objects."""

HC_OVER_K = 1.4387769e7
"""h c / k in nm K."""

BALMER = (656.28, 486.13, 434.05, 410.17)
"""Balmer lines, nm."""

QUASAR_LINES = ((121.6, 0.02, 3.0), (154.9, 0.02, 1.0), (190.9, 0.025, 0.6), (279.8, 0.015, 0.5),
                (486.1, 0.012, 0.5), (656.3, 0.012, 2.0))  # fmt: skip
"""Lines of quasars: rest wavelength in nm, relative width, and peak over the continuum."""


@dataclass(frozen=True)
class _OtherStars:
    """A population with other stellar parameters, in place of the simulator's giants."""

    draw_parameters: Callable[[int, torch.Generator], dict[str, Tensor]]

    def draw(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        parameters = self.draw_parameters(n, random)
        zero = torch.zeros(n)
        return {
            "m_h": zero, "log_age": zero + 9.7, "mass": zero + 1.0, "phase": zero.long() + 2,
            "place": zero, "component": zero.long(),
        } | parameters  # fmt: skip


@dataclass(frozen=True)
class _ChangedAtmospheres:
    """The simulator's atmospheres with a changed log flux (N, W)."""

    original: Atmospheres
    change: Callable[[Tensor, Tensor], Tensor]  # from log flux (N, W) and Teff (N,)

    def log_flux(self, m_h: Tensor, teff: Tensor, logg: Tensor) -> Tensor:
        return self.change(self.original.log_flux(m_h, teff, logg), teff)

    def extinction(self, ebv: Tensor, r_v: Tensor) -> Tensor:
        return self.original.extinction(ebv, r_v)


def simulate_ood(kind: str, n: int, seed: int) -> SimulatedStars:
    """Simulate out-of-distribution objects as Gaia and 2MASS would observe them, on the CPU.

    Parameters
    ----------
    kind
        One of KINDS.
    n
        Number of objects.
    seed
        The same seed gives the same objects.
    """
    simulator = Simulator()
    hottest = float(simulator.atmospheres.knots[1].max())
    wavelength = torch.as_tensor(np.asarray(simulator.atmospheres.wavelength), dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    change: Callable[[Tensor, Tensor], Tensor] | None = None
    if kind == "dwarf":
        simulator.population = _OtherStars(_dwarfs)  # type: ignore[assignment]
    elif kind in ("hot star", "white dwarf"):
        white = kind == "white dwarf"
        parameters = _white_dwarfs if white else _hot_stars
        simulator.population = _OtherStars(parameters)  # type: ignore[assignment]

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            in_grid = teff.clamp(max=hottest)
            ratio = _log_black_body(wavelength, teff) - _log_black_body(wavelength, in_grid)
            return log_flux + ratio - (_broad_lines(wavelength) if white else 0.0)

    elif kind == "quasar":

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            level = log_flux.mean(1, keepdim=True)
            return level + _quasars(wavelength, len(teff), random)

    elif kind == "emission lines":

        def change(log_flux: Tensor, teff: Tensor) -> Tensor:
            return log_flux + _emission(wavelength, len(teff), random)

    if change is not None:
        changed = _ChangedAtmospheres(simulator.atmospheres, change)
        simulator.atmospheres = changed  # type: ignore[assignment]
    stars = simulator.draw(n, seed)
    if kind == "noise":
        errors = stars["coefficient_errors"]
        pure_noise = torch.randn(errors.shape, generator=random) * errors
        stars = replace(stars, columns=stars.columns | {"coefficients": pure_noise})
    return stars


def _uniform(n: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=random)


def _dwarfs(n: int, random: torch.Generator) -> dict[str, Tensor]:
    """Draw main-sequence stars from K to F, log g 4.2 to 4.8."""
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


def _log_black_body(wavelength: Tensor, teff: Tensor) -> Tensor:
    """Return the natural log of Planck's function (N, W) up to terms without Teff."""
    return -torch.log(torch.expm1((HC_OVER_K / (wavelength * teff[:, None])).clamp(max=80.0)))


def _broad_lines(wavelength: Tensor) -> Tensor:
    depth = torch.zeros_like(wavelength)
    for line in BALMER:
        depth += 0.6 * torch.exp(-0.5 * ((wavelength - line) / 8.0) ** 2)
    return depth


def _quasars(wavelength: Tensor, n: int, random: torch.Generator) -> Tensor:
    """Return the natural log of a power law in wavelength with broad lines, redshift 0.2 to 4."""
    z = _uniform(n, 0.2, 4.0, random)[:, None]
    index = -1.5 + 0.3 * torch.randn(n, 1, generator=random)
    flux = (wavelength / 500.0) ** index
    for rest, width, peak in QUASAR_LINES:
        observed = rest * (1 + z)
        flux = flux * (1 + peak * torch.exp(-0.5 * ((wavelength / observed - 1) / width) ** 2))
    return torch.log(flux)


def _emission(wavelength: Tensor, n: int, random: torch.Generator) -> Tensor:
    """Return ln(1 + line flux): H alpha and H beta, [O III] for half of the stars.

    The equivalent widths of all lines together are 10 to 100 nm.
    """
    width = 10 ** _uniform(n, 1.0, 2.0, random)[:, None]
    oxygen = (torch.rand(n, 1, generator=random) < 0.5).float()
    shares = ((656.28, 1 - 0.5 * oxygen), (486.13, 0.3 - 0.1 * oxygen), (500.7, 0.6 * oxygen))
    extra = torch.zeros(n, len(wavelength))
    for line, share in shares:
        profile = torch.exp(-0.5 * ((wavelength - line) / 1.5) ** 2) / (1.5 * np.sqrt(2 * np.pi))
        extra = extra + share * width * profile
    return torch.log1p(extra)
