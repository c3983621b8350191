"""Simulated spectra beside real ones of the same colour, coefficient by coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.features.extinction import TRUE_PER_SFD
from catalogproc.features.spectra import G_ZERO_POINT
from catalogproc.simulation.build_grids import RealSpectra
from catalogproc.simulation.instrument import BANDS
from catalogproc.simulation.simulator import Simulator

Float = NDArray[np.float64]

FIRST = 20
"""Coefficients of each band that are compared."""

COLOURS = (0.8, 2.2)
"""Range of BP - RP, mag."""

NEIGHBOURS = 7
"""Simulated stars of the nearest colours that stand beside each real one."""

GIANTS = 0.3
"""Share of giants among the real sample's stars of these colours, roughly: it is Gaia's sky to
G = 17.65, and the log g of their twins (twins.py) says 0.57 to G = 12 and 0.30 at 16."""

DWARF_TEFF, DWARF_LOGG, DWARF_M_H, DWARF_EBV = (3600.0, 6200.0), (4.6, 0.3), (-0.2, 0.25), 0.06
"""Dwarfs: uniform Teff; log g at 4500 K and its fall per 1000 K above; mean and sigma of [M/H];
median true E(B-V), of a scatter of 0.8 in its logarithm."""


@dataclass(frozen=True)
class Comparison:
    """Of the first coefficients of both bands (2 FIRST,): how simulated and real ones differ.

    ``shift`` is the difference of the medians, simulated less real, over the ``spread`` (1.4826
    MAD) of the real ones; ``ratio`` the simulated spread over the real one. ``stars`` real
    stars went in.
    """

    names: tuple[str, ...]
    real: Float
    simulated: Float
    spread: Float
    ratio: Float
    stars: int

    @property
    def shift(self) -> Float:
        return (self.simulated - self.real) / self.spread

    def markdown(self) -> str:
        """The shifts and ratios of spread as a Markdown table."""
        lines = ["| coefficient | shift of the median | ratio of the spreads |", "|---|---|---|"]
        lines += [
            f"| {name} | {shift:+.2f} | {ratio:.2f} |"
            for name, shift, ratio in zip(self.names, self.shift, self.ratio, strict=True)
        ]
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """The shifts as a PNG, with the limits of half the spread."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        # GaiaXPy, where it was imported, asks matplotlib for LaTeX.
        with rc_context({"text.usetex": False}):
            figure = Figure(figsize=(8, 4), layout="constrained")
            axes = figure.subplots(len(BANDS), 1, sharex=True, sharey=True)
            for panel, band, shift in zip(axes, BANDS, np.split(self.shift, 2), strict=True):
                panel.axhspan(-0.5, 0.5, color="0.9")
                panel.axhline(0, color="0.5", linewidth=0.8)
                panel.bar(np.arange(len(shift)), shift, color=_COLOUR[band.name])
                panel.set_ylabel(f"{band.name} shift / spread")
            axes[-1].set_xlabel("coefficient")
            figure.suptitle(f"Simulated less real, {self.stars} real spectra, colours matched")
            figure.savefig(path, dpi=120)


_COLOUR = {"BP": "tab:blue", "RP": "tab:red"}


@dataclass(frozen=True)
class Sample:
    """Coefficients over the G flux (N, n) and BP - RP (N,) of stars."""

    coefficients: Float
    bp_rp: Float


def giants(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Simulated giants, without noise."""
    drawn = simulator.draw(stars, seed)
    names = ("m_h", "teff", "logg", "log_l", "distance")
    ebv, r_v = TRUE_PER_SFD * drawn["ebv"], drawn["r_v"]
    return _sample(simulator, [*(drawn[name] for name in names), ebv, r_v])


def dwarfs(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Simulated nearby dwarfs, without noise: for comparison alone, no model is trained on them."""
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
    normalised = coefficients / 10 ** (0.4 * (G_ZERO_POINT - gaia[:, :1]))
    return Sample(
        normalised.double().cpu().numpy(), (gaia[:, 1] - gaia[:, 2]).double().cpu().numpy()
    )


def field(simulator: Simulator, stars: int, seed: int) -> Sample:
    """Giants and dwarfs as they stand in Gaia's sky: a share GIANTS of giants."""
    number = round(GIANTS * stars)
    parts = giants(simulator, number, seed), dwarfs(simulator, stars - number, seed)
    return Sample(
        np.concatenate([part.coefficients for part in parts]),
        np.concatenate([part.bp_rp for part in parts]),
    )


def compare(real: RealSpectra, simulated: Sample, faintest: float = np.inf) -> Comparison:
    """Medians and spreads of the first coefficients of real and simulated stars.

    Each real star within COLOURS and brighter than ``faintest`` in G is matched by the
    NEIGHBOURS simulated stars nearest to it in BP - RP, with the errors of the real star.
    """
    kept = (real.bp_rp > COLOURS[0]) & (real.bp_rp < COLOURS[1]) & (real.g < faintest)
    order = np.argsort(simulated.bp_rp)
    place = np.searchsorted(simulated.bp_rp[order], real.bp_rp[kept])
    near = place[:, None] + np.arange(NEIGHBOURS) - NEIGHBOURS // 2
    matched = order[np.clip(near, 0, len(order) - 1)].ravel()
    n_bp = real.coefficients.shape[1] // 2
    columns = np.r_[:FIRST, n_bp : n_bp + FIRST]
    seen, errors = (values[kept][:, columns] for values in real.normalised)
    made = simulated.coefficients[matched][:, columns]
    made += np.repeat(errors, NEIGHBOURS, axis=0) * np.random.default_rng(0).normal(size=made.shape)
    spread, made_spread = _spread(seen), _spread(made)
    return Comparison(
        names=tuple(f"{band.name.lower()}{i}" for band in BANDS for i in range(FIRST)),
        real=np.median(seen, axis=0),
        simulated=np.median(made, axis=0),
        spread=spread,
        ratio=made_spread / spread,
        stars=int(kept.sum()),
    )


def _spread(values: Float) -> Float:
    middle = np.median(values, axis=0)
    return np.asarray(1.4826 * np.median(np.abs(values - middle), axis=0))
