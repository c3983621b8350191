"""Comparison of simulated with real spectra of the same colour, coefficient by coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.features.extinction import TRUE_PER_SFD
from catalogproc.release import load_release
from catalogproc.simulation.build_grids import RealSpectra
from catalogproc.simulation.instrument import BANDS
from catalogproc.simulation.simulator import Simulator

Float = NDArray[np.float64]

FIRST = 20
"""Number of coefficients of each band that are compared."""

COLOURS = (0.8, 2.2)
"""Range of BP - RP, mag."""

NEIGHBOURS = 7
"""Number of simulated stars, the nearest in colour, that are compared with each real one."""

GIANTS = 0.3
"""Approximate fraction of giants among the real stars of these colours, a random sample of Gaia to
G = 17.65: the log g of their matched models (instrument_fit.py) gives 0.57 to G = 12 and 0.30 at
16."""

DWARF_TEFF, DWARF_LOGG, DWARF_M_H, DWARF_EBV = (3600.0, 6200.0), (4.6, 0.3), (-0.2, 0.25), 0.06
"""Dwarfs: range of uniform Teff in K; log g to 4500 K and its decrease per 1000 K above; mean and
standard deviation of [M/H]; median true E(B-V) in mag, with a scatter of 0.8 in its natural log."""


@dataclass(frozen=True)
class Comparison:
    """Difference between simulated and real coefficients, the first of both bands (2 FIRST,).

    Attributes
    ----------
    names
        Names of the coefficients.
    real, simulated
        Medians.
    spread
        1.4826 MAD of the real ones.
    ratio
        Spread of the simulated ones over that of the real ones.
    stars
        Number of real stars.
    """

    names: tuple[str, ...]
    real: Float
    simulated: Float
    spread: Float
    ratio: Float
    stars: int

    @property
    def shift(self) -> Float:
        """Simulated minus real median, in units of the real spread."""
        return (self.simulated - self.real) / self.spread

    def markdown(self) -> str:
        """Return the shifts and ratios of spread as a Markdown table."""
        lines = ["| coefficient | shift of the median | ratio of the spreads |", "|---|---|---|"]
        lines += [
            f"| {name} | {shift:+.2f} | {ratio:.2f} |"
            for name, shift, ratio in zip(self.names, self.shift, self.ratio, strict=True)
        ]
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Plot the shifts, with limits of half the spread.

        Parameters
        ----------
        path
            The PNG file.
        """
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        # Importing GaiaXPy makes matplotlib use LaTeX.
        with rc_context({"text.usetex": False}):
            figure = Figure(figsize=(8, 4), layout="constrained")
            axes = figure.subplots(len(BANDS), 1, sharex=True, sharey=True)
            for panel, band, shift in zip(axes, BANDS, np.split(self.shift, 2), strict=True):
                panel.axhspan(-0.5, 0.5, color="0.9")
                panel.axhline(0, color="0.5", linewidth=0.8)
                panel.bar(np.arange(len(shift)), shift, color=_COLOUR[band.name])
                panel.set_ylabel(f"{band.name} shift / spread")
            axes[-1].set_xlabel("coefficient")
            figure.suptitle(f"Simulated minus real, {self.stars} real spectra, colours matched")
            figure.savefig(path, dpi=120)


_COLOUR = {"BP": "tab:blue", "RP": "tab:red"}


@dataclass(frozen=True)
class Sample:
    """N stars: coefficients over the G flux (N, n) and BP - RP (N,) in mag."""

    coefficients: Float
    bp_rp: Float


def giants(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Simulate giants without noise.

    Parameters
    ----------
    simulator
        The simulator.
    stars
        Number of stars.
    seed
        Seed of the simulation.
    """
    sample = simulator.draw(stars, seed)
    names = ("m_h", "teff", "logg", "log_l", "distance")
    ebv, r_v = TRUE_PER_SFD * sample["ebv"], sample["r_v"]
    return _sample(simulator, [*(sample[name] for name in names), ebv, r_v])


def dwarfs(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Simulate nearby dwarfs without noise, for this comparison only.

    Parameters
    ----------
    simulator
        The simulator.
    stars
        Number of stars.
    seed
        Seed of the simulation.
    """
    random = torch.Generator().manual_seed(seed)
    u = torch.rand(stars, generator=random)
    z = torch.randn(2, stars, generator=random)
    teff = DWARF_TEFF[0] + (DWARF_TEFF[1] - DWARF_TEFF[0]) * u
    logg = DWARF_LOGG[0] - DWARF_LOGG[1] * ((teff - 4500) / 1000).clamp(min=0)
    m_h = (DWARF_M_H[0] + DWARF_M_H[1] * z[0]).clamp(-2.0, 0.5)
    one = torch.ones(stars)
    ebv = DWARF_EBV * torch.exp(0.8 * z[1])
    inputs = [m_h, teff, logg, 0 * one, one, ebv, 3.1 * one]
    return _sample(simulator, [item.to(simulator.device) for item in inputs])


def _sample(simulator: Simulator, parameters: list[Tensor]) -> Sample:
    coefficients, gaia, _ = simulator.spectra(*parameters)
    normalised = coefficients / 10 ** (
        0.4 * (load_release().magnitude("G").zero_point - gaia[:, :1])
    )
    return Sample(
        normalised.double().cpu().numpy(), (gaia[:, 1] - gaia[:, 2]).double().cpu().numpy()
    )


def field(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Simulate giants and dwarfs mixed as in a random sample of Gaia, a fraction GIANTS of giants.

    Parameters
    ----------
    simulator
        The simulator.
    stars
        Number of stars.
    seed
        Seed of the simulation.
    """
    number = round(GIANTS * stars)
    parts = giants(simulator, number, seed), dwarfs(simulator, stars - number, seed)
    return Sample(
        np.concatenate([part.coefficients for part in parts]),
        np.concatenate([part.bp_rp for part in parts]),
    )


def compare(real: RealSpectra, simulated: Sample, faintest: float = np.inf) -> Comparison:
    """Compare medians and spreads of the first coefficients of real and simulated stars.

    Each real star within COLOURS is compared with the NEIGHBOURS simulated stars nearest in
    BP - RP, to which noise with the errors of the real star is added.

    Parameters
    ----------
    real
        Real spectra.
    simulated
        Simulated stars without noise.
    faintest
        Faintest G of the real stars, mag.
    """
    used = (real.bp_rp > COLOURS[0]) & (real.bp_rp < COLOURS[1]) & (real.g < faintest)
    order = np.argsort(simulated.bp_rp)
    place = np.searchsorted(simulated.bp_rp[order], real.bp_rp[used])
    near = place[:, None] + np.arange(NEIGHBOURS) - NEIGHBOURS // 2
    matched = order[np.clip(near, 0, len(order) - 1)].ravel()
    n_bp = real.coefficients.shape[1] // 2
    columns = np.r_[:FIRST, n_bp : n_bp + FIRST]
    observed, errors = (values[used][:, columns] for values in real.normalised)
    noisy = simulated.coefficients[matched][:, columns]
    unit = np.random.default_rng(0).normal(size=noisy.shape)
    noisy += np.repeat(errors, NEIGHBOURS, axis=0) * unit
    spread = _spread(observed)
    return Comparison(
        names=tuple(f"{band.name.lower()}{i}" for band in BANDS for i in range(FIRST)),
        real=np.median(observed, axis=0),
        simulated=np.median(noisy, axis=0),
        spread=spread,
        ratio=_spread(noisy) / spread,
        stars=int(used.sum()),
    )


def _spread(values: Float) -> Float:
    middle = np.median(values, axis=0)
    return np.asarray(1.4826 * np.median(np.abs(values - middle), axis=0))
