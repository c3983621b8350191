"""Giants spread evenly over log g and [M/H], for the training of models of real stars.

Half of all giants are in the clump, and few are luminous or metal-poor. A model that has seen only
the natural mixture draws real stars towards its mean. Isochrones also tie Teff to log g and [M/H]
more closely than real giants are, and are mostly hotter: a scatter of Teff at constant mass and
luminosity makes the model read the spectrum instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from catalogproc.simulation.isochrones import LOGG, M_H, Population

EVEN = 0.7
"""Fraction of the giants that are spread evenly; the others have their natural mixture."""

PROPOSALS = 8
"""Giants of the natural mixture for each one that is drawn."""

CELLS = (15, 14)
"""Cells in log g and in [M/H] whose natural frequencies are compensated."""

COUNTED, FEWEST = 100_000, (50.0, 1500.0)
"""Stars that are counted; a cell counts as if it had this many more, so that no isochrone point
is drawn too often."""

TEFF_SCATTER = 100.0
"""Standard deviation of the scatter of Teff, K."""


@dataclass(frozen=True, eq=False)
class EvenPopulation:
    """The giants of a population, spread evenly.

    Attributes
    ----------
    population
        Isochrones and the natural mixture.
    """

    population: Population

    def draw(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        """Draw giants; see :meth:`~catalogproc.simulation.isochrones.Population.draw`.

        Parameters
        ----------
        n
            Number of stars.
        random
            Generator on the population's device.
        """
        proposed = self.population.draw(PROPOSALS * n, random)
        weights = self.weights(proposed)
        chosen = torch.multinomial(weights, n, replacement=True, generator=random)
        even = torch.rand(n, generator=random, device=weights.device) < EVEN
        chosen = torch.where(even, chosen, torch.arange(n, device=weights.device))
        stars = {name: value[chosen] for name, value in proposed.items()}
        z = torch.randn(n, generator=random, device=weights.device)
        teff = stars["teff"] + TEFF_SCATTER * z
        stars["logg"] = stars["logg"] + 4.0 * torch.log10(teff / stars["teff"])
        return stars | {"teff": teff}

    def weights(self, stars: dict[str, Tensor]) -> Tensor:
        """Return the inverse of the natural frequency (n,) of giants like these.

        Parameters
        ----------
        stars
            Columns logg and m_h (n,).
        """
        weights = torch.ones_like(stars["logg"])
        for name, counts in self._counts.items():
            weights = weights / counts.to(weights.device)[_cells(name, stars[name])]
        return weights

    @cached_property
    def _counts(self) -> dict[str, Tensor]:
        """Numbers of stars by cell."""
        random = torch.Generator(self.population.tracks.device).manual_seed(0)
        stars = self.population.draw(COUNTED, random)
        return {
            name: torch.bincount(_cells(name, stars[name]), minlength=size) + fewest
            for name, size, fewest in zip(_RANGES, CELLS, FEWEST, strict=True)
        }


_RANGES = {"logg": LOGG, "m_h": M_H}


def _cells(name: str, x: Tensor) -> Tensor:
    """Return the number of the cell of each star (n,)."""
    (low, high), size = _RANGES[name], CELLS[list(_RANGES).index(name)]
    return ((x - low) / (high - low) * size).long().clamp(0, size - 1)
