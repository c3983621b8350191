"""Interpolated isochrones of giants, and the prior over age and [M/H].

PARSEC isochrones (Bressan et al. 2012) are ordered by phase (subgiant, red giant, core helium,
early AGB) and, within a phase, by the fraction f of its interval of initial mass. On an isochrone
stars are distributed over initial mass by the IMF, which is nearly constant over so small an
interval, so uniform f gives each evolutionary state its real frequency. Isochrones are
interpolated at equal phase and equal f, that is at equal evolutionary state, so that all
parameters are continuous.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.resources import shipped

PHASES = {1: "subgiant", 2: "red giant", 3: "core helium", 4: "early AGB"}
QUANTITIES = ("mass", "log_l", "log_teff", "logg")
"""Columns that are interpolated: Msun, dex(Lsun), dex(K), dex(cm s-2)."""

Z_OVER_X_SUN = 0.0207
"""Solar Z/X of PARSEC (Bressan et al. 2012, section 4): Z = 0.01524, Y = 0.2485 + 1.78 Z."""

IMF_SLOPE = -2.3
"""Kroupa (2001) above 0.5 Msun, dN/dm ∝ m^-2.3."""

NODES = 160
"""Points per phase of an isochrone, denser towards the end, where evolution is fast."""

SHARES = {1: 0.5, 2: 1.0, 3: 1.0, 4: 1.0}
"""Fraction of the stars in each phase that is simulated. Subgiants are included only so that the
limit of giants at log g 3.5 lies within the range of the training data."""

HELIUM_START = 2e-3
"""First f of core helium burning, the zero-age horizontal branch: PARSEC's first point is the RGB
tip."""

TEFF, LOGG, M_H, LOG_AGE = (3500.0, 8000.0), (0.0, 3.8), (-2.18, 0.5), (8.0, 10.1)
"""Ranges of the simulated giants: K, dex(cm s-2), dex, dex(yr)."""


@dataclass(frozen=True)
class Component:
    """A component of the prior: stars formed per Gyr and dex.

    Attributes
    ----------
    name
        Name of the component.
    share
        Its fraction of the simulated giants.
    age, age_sigma
        Mean and standard deviation of the Gaussian in age, Gyr; uniform where infinite.
    m_h, slope, m_h_sigma
        [M/H] is Gaussian about m_h + slope * age, in dex, dex per Gyr and dex.
    scale_height
        Scale height, kpc.
    """

    name: str
    share: float
    age: float
    age_sigma: float
    m_h: float
    slope: float
    m_h_sigma: float
    scale_height: float

    def density(self, age: NDArray[np.float64], m_h: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the density over log age and [M/H], not normalised.

        Parameters
        ----------
        age, m_h
            Age in Gyr and [M/H] in dex, of shapes that broadcast.
        """
        in_age = np.exp(-0.5 * ((age - self.age) / self.age_sigma) ** 2) * age
        in_m_h = np.exp(-0.5 * ((m_h - self.m_h - self.slope * age) / self.m_h_sigma) ** 2)
        return np.asarray(in_age * in_m_h)


PRIOR = (
    Component("thin disk", 0.55, 0.0, np.inf, 0.08, -0.02, 0.22, 0.3),
    Component("thick disk", 0.22, 10.5, 1.8, -0.5, 0.0, 0.25, 0.9),
    Component("halo", 0.10, 12.0, 1.2, -1.4, 0.0, 0.5, 4.0),
    Component("broad", 0.13, 0.0, np.inf, -0.5, 0.0, 1.2, 1.0),
)
"""Shares are fractions of the simulated giants, not of the stars formed.

Thin disk: constant star formation and a gentle age-metallicity relation; thick disk and halo:
old, [M/H] about -0.5 and -1.4 (Bland-Hawthorn & Gerhard 2016). The broad component covers all
ages and [M/H], so that the prior excludes no combination.
"""

AGE_CELL, M_H_CELL = 0.01, 0.02
"""Cells of the prior in log age and [M/H], dex."""


@dataclass(frozen=True)
class Population:
    """Isochrones and prior; P phases, Z metallicities, A ages, K nodes.

    Attributes
    ----------
    m_h, log_age
        [M/H] (Z,) and log10 of the age in years (A,) of the isochrones.
    tracks
        QUANTITIES along the isochrones (P, Z, A, K, 4).
    log_yield
        Natural log of the number of stars in a phase per star formed (P, Z, A).
    cumulative
        Cumulative prior over cells of component, log age and [M/H].
    cells
        Numbers of cells along these three.
    """

    m_h: Tensor
    log_age: Tensor
    tracks: Tensor
    log_yield: Tensor
    cumulative: Tensor
    cells: tuple[int, int, int]

    def to(self, device: str | torch.device) -> Population:
        """Return a copy with the tensors on a device.

        Parameters
        ----------
        device
            The device in torch's notation.
        """
        m_h, log_age, tracks, log_yield, cumulative = (
            item.to(device)
            for item in (self.m_h, self.log_age, self.tracks, self.log_yield, self.cumulative)
        )
        return Population(m_h, log_age, tracks, log_yield, cumulative, self.cells)

    def draw(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        """Draw giants from the prior, within TEFF and LOGG.

        Parameters
        ----------
        n
            Number of stars.
        random
            Generator on the population's device.

        Returns
        -------
        dict
            ``m_h, log_age, phase, component, place`` and the columns of :meth:`at`, (n,).
        """
        parts: list[dict[str, Tensor]] = []
        found = 0
        while found < n:
            stars = self._propose(int(1.25 * (n - found)) + 64, random)
            inside = (
                (stars["teff"] > TEFF[0])
                & (stars["teff"] < TEFF[1])
                & (stars["logg"] > LOGG[0])
                & (stars["logg"] < LOGG[1])
            )
            parts.append({name: value[inside] for name, value in stars.items()})
            found += int(inside.sum())
        return {name: torch.cat([part[name] for part in parts])[:n] for name in parts[0]}

    def _propose(self, n: int, random: torch.Generator) -> dict[str, Tensor]:
        device = self.tracks.device
        u = torch.rand(5, n, generator=random, device=device)
        cell = torch.searchsorted(self.cumulative, u[0]).clamp(max=len(self.cumulative) - 1)
        component = cell // (self.cells[1] * self.cells[2])
        age_cell = cell // self.cells[2] % self.cells[1]
        log_age = LOG_AGE[0] + AGE_CELL * (age_cell + u[1])
        m_h = M_H[0] + M_H_CELL * (cell % self.cells[2] + u[2])
        log_yield = sum(self.log_yield[:, p, q] * w for p, q, w in self._corners(m_h, log_age))
        share = torch.softmax(torch.as_tensor(log_yield), dim=0).cumsum(0)  # (P, n)
        phase = (u[3] > share[:-1]).sum(0) + 1
        place = 1 - (1 - u[4]) ** (1 / 3)  # the inverse of _resample's spacing
        given = {"m_h": m_h, "log_age": log_age, "phase": phase, "place": place}
        return given | {"component": component} | self.at(m_h, log_age, phase, place)

    def at(self, m_h: Tensor, log_age: Tensor, phase: Tensor, place: Tensor) -> dict[str, Tensor]:
        """Interpolate the isochrones.

        Parameters
        ----------
        m_h, log_age
            [M/H] and log10 of the age in years (n,); values outside the isochrones are set to
            their edge.
        phase
            Keys of PHASES (n,).
        place
            Position along the phase (n,), 0 to 1, uniform in the nodes.

        Returns
        -------
        dict
            mass in Msun, log_l in dex(Lsun), teff in K and logg, (n,).
        """
        row = phase - 1
        node = place * (NODES - 1)
        k = node.long().clamp(0, NODES - 2)
        t = (node - k)[:, None]
        state = sum(
            w[:, None] * torch.lerp(self.tracks[row, p, q, k], self.tracks[row, p, q, k + 1], t)
            for p, q, w in self._corners(m_h, log_age)
        )
        mass, log_l, log_teff, logg = torch.as_tensor(state).unbind(-1)
        return {"mass": mass, "log_l": log_l, "teff": 10**log_teff, "logg": logg}

    def _corners(self, m_h: Tensor, log_age: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the four isochrones around each star: indices of [M/H] and age, and weights."""
        i, ti = _bracket(self.m_h, m_h)
        j, tj = _bracket(self.log_age, log_age)
        return [
            (i + a, j + b, (ti if a else 1 - ti) * (tj if b else 1 - tj))
            for a in (0, 1)
            for b in (0, 1)
        ]


def _bracket(axis: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the node at or below x, and the fraction of the way to the next."""
    i = (torch.searchsorted(axis, x.contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
    return i, ((x - axis[i]) / (axis[i + 1] - axis[i])).clamp(0, 1)


def metallicity(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [M/H] = log10(Z/X) - log10(Z/X)_sun of PARSEC's compositions.

    Parameters
    ----------
    z
        Mass fraction of metals.
    """
    x = 1.0 - (0.2485 + 1.78 * z) - z
    return np.asarray(np.log10(z / x / Z_OVER_X_SUN))


@lru_cache(maxsize=1)
def load_population(path: Path | None = None) -> Population:
    """Read the isochrones and compute the prior PRIOR on them, on the CPU.

    Parameters
    ----------
    path
        The Parquet file; by default the shipped one.
    """
    table = pq.read_table(path or shipped("grids") / "parsec_evolved.parquet")
    column = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    z, log_age = np.unique(column["z"]), np.unique(column["log_age"])
    tracks = np.empty((len(PHASES), len(z), len(log_age), NODES, len(QUANTITIES)))
    log_yield = np.empty(tracks.shape[:3])
    key = np.rec.fromarrays([column["z"], column["log_age"], column["phase"]])
    order = np.lexsort((column["mass_initial"], column["phase"], column["log_age"], column["z"]))
    starts = np.flatnonzero(np.r_[True, key[order][1:] != key[order][:-1]])
    for rows in np.split(order, starts[1:]):
        phase = int(column["phase"][rows[0]])
        if phase not in PHASES:
            continue
        at = (
            list(PHASES).index(phase),
            int(np.searchsorted(z, column["z"][rows[0]])),
            int(np.searchsorted(log_age, column["log_age"][rows[0]])),
        )
        initial = column["mass_initial"][rows]
        values = np.stack([column[name][rows] for name in QUANTITIES], axis=-1)
        tracks[at] = _resample(initial, values, HELIUM_START if phase == 3 else 0.0)
        number = SHARES[phase] * (initial[-1] - initial[0]) * initial.mean() ** IMF_SLOPE
        log_yield[at] = np.log(max(number, 1e-12))
    m_h = metallicity(z)
    cumulative, cells = _prior(m_h, log_age, log_yield)
    return Population(
        m_h=torch.from_numpy(m_h).float(),
        log_age=torch.from_numpy(log_age).float(),
        tracks=torch.from_numpy(tracks).float(),
        log_yield=torch.from_numpy(log_yield).float(),
        cumulative=torch.from_numpy(cumulative),
        cells=cells,
    )


def _resample(
    initial: NDArray[np.float64], values: NDArray[np.float64], start: float
) -> NDArray[np.float64]:
    """Interpolate a phase at NODES points f = 1 - (1 - t)^3, t uniform."""
    f = (initial - initial[0]) / max(initial[-1] - initial[0], 1e-12)
    t = np.linspace(0, 1, NODES)
    wanted = np.maximum(1 - (1 - t) ** 3, start)
    return np.stack([np.interp(wanted, f, value) for value in values.T], axis=-1)


def _prior(
    m_h: NDArray[np.float64], log_age: NDArray[np.float64], log_yield: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Return the cumulative probability of cells of component, log age and [M/H].

    It is the number of stars formed times the number of giants per star formed.
    """
    ages = np.arange(LOG_AGE[0] + AGE_CELL / 2, LOG_AGE[1], AGE_CELL)
    metals = np.arange(M_H[0] + M_H_CELL / 2, M_H[1], M_H_CELL)
    giants = np.exp(log_yield).sum(0)  # (Z, A)
    along_age = np.stack([np.interp(ages, log_age, np.log(row)) for row in giants])
    evolved = np.exp(np.stack([np.interp(metals, m_h, row) for row in along_age.T]))
    density = np.stack(
        [part.density(10 ** (ages - 9.0)[:, None], metals[None, :]) * evolved for part in PRIOR]
    )
    share = np.array([part.share for part in PRIOR])
    density *= (share / density.sum((1, 2)))[:, None, None]
    cumulative = density.ravel().cumsum()
    return cumulative / cumulative[-1], (len(PRIOR), len(ages), len(metals))
