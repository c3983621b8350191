"""[alpha/Fe] of simulated giants, and [Fe/H] at a given [M/H].

The two sequences of the disk and the halo as giants of APOGEE DR17 show them (the training folds
of `catalogproc dataset apogee-xp`; Hayden et al. 2015, ApJ 808, 132).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from catalogproc.simulation.isochrones import PRIOR


@dataclass(frozen=True)
class Sequence:
    """[alpha/Fe] = level + slope [M/H] with [M/H] within limits, and a Gaussian scatter; dex."""

    level: float
    slope: float
    limits: tuple[float, float]
    scatter: float

    def mean(self, m_h: Tensor) -> Tensor:
        """Return the mean [alpha/Fe] (N,) at some [M/H] (N,)."""
        return self.level + self.slope * m_h.clamp(*self.limits)


LOW = Sequence(0.03, -0.05, (-0.8, 0.3), 0.03)
HIGH = Sequence(0.10, -0.27, (-0.7, 0.1), 0.04)
HALO = Sequence(0.25, 0.0, (0.0, 0.0), 0.07)

BY_COMPONENT = {"thin disk": (LOW, LOW), "thick disk": (HIGH, HIGH), "halo": (HALO, HALO),
                "broad": (LOW, HIGH)}  # fmt: skip
"""Two sequences of each component of the prior; a star is on either with equal probability."""


def draw_alpha(m_h: Tensor, component: Tensor, random: torch.Generator) -> Tensor:
    """Return random [alpha/Fe] of giants (N,), dex.

    Parameters
    ----------
    m_h
        [M/H] (N,), dex.
    component
        Numbers of the components in PRIOR (N,).
    random
        Source of random numbers, on the same device.
    """
    either = torch.rand(len(m_h), generator=random, device=m_h.device) < 0.5
    z = torch.randn(len(m_h), generator=random, device=m_h.device)
    alpha = torch.zeros_like(m_h)
    for number, part in enumerate(PRIOR):
        first, second = (
            sequence.mean(m_h) + sequence.scatter * z for sequence in BY_COMPONENT[part.name]
        )
        alpha = torch.where(component == number, torch.where(either, first, second), alpha)
    return alpha


def iron_abundance(m_h: Tensor, alpha_m: Tensor) -> Tensor:
    """Return [Fe/H] (N,) at a mass fraction of metals: Salaris et al. (1993, ApJ 414, 580).

    Isochrones depend on all metals, APOGEE's metallicity is that of iron.

    Parameters
    ----------
    m_h, alpha_m
        [M/H] of all metals and [alpha/Fe] (N,), dex.
    """
    return m_h - torch.log10(0.638 * 10**alpha_m + 0.362)
