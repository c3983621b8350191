"""Fit the difference between real and simulated giants, and write grids/xp_correction.npz.

    python -m catalogproc.datasets.spectral_correction_fit DATASET OUTPUT.npz

DATASET is one of `catalogproc dataset apogee-xp`; only its training part is read. Each real giant
is simulated with its own labels; the ratio of real to simulated flux is fitted by polynomials in
the labels (simulation/spectral_correction.py). APOGEE's A_K is too inaccurate for the blue
spectrum: the E(B-V) of each star is fitted together with the polynomials, so that on average over
stars with similar labels it stays that of A_K.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from catalogproc.datasets.dataset import TRAIN
from catalogproc.features import canonical_tables, spectra
from catalogproc.features.extinction import R_V, TRUE_PER_SFD
from catalogproc.features.flux_calibration import calibration
from catalogproc.io.atomic import write_atomic
from catalogproc.release import load_release
from catalogproc.simulation.simulator import Simulator
from catalogproc.simulation.spectral_correction import (
    LABELS,
    SpectralCorrection,
    polynomial_terms,
)
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TMASS = ("j_m", "h_m", "ks_m")

HOTTEST, DENSEST = 8000.0, 3.8
"""Stars that are used: those that the simulator makes, in Teff (K) and log g."""

ROUNDS = 6
"""Rounds of fitting E(B-V) and the polynomials."""

DUST_STEP, LARGEST_STEP = 0.05, 0.2
"""E(B-V) of the finite difference, and its largest change in a round, mag."""

INDEPENDENT = 12
"""Independent faults of a model spectrum: those at neighbouring wavelengths are the same."""

FAINTEST, FLOOR, SKY = 0.004, 0.015, 0.003
"""Flux below this fraction of the largest one is not divided by; error of the model spectra, as a
fraction of the flux, and of the largest flux."""

OUTLIER, TMASS_OUTLIER = 4.0, 4.0
"""Stars are left out beyond this many times the typical misfit, and the typical difference."""

RANGE = (0.002, 0.998)
"""Range of the labels in the fit, as quantiles; beyond it the edge's correction is used."""


@dataclass(frozen=True, eq=False)
class RealGiants:
    """N real giants with their labels.

    Attributes
    ----------
    flux
        Sampled flux over the G flux (N, L).
    tmass
        J - G, H - G and Ks - G (N, 3), mag, NaN where unknown.
    labels
        LABELS (N, 5).
    e_ebv
        Error of E(B-V) (N,), mag.
    fold
        Fold of each star (N,).
    """

    flux: Floats
    tmass: Floats
    labels: Floats
    e_ebv: Floats
    fold: NDArray[np.int64]

    def rows(self, which: Mask) -> RealGiants:
        """Return some of the stars, by a mask (N,)."""
        return RealGiants(*(value[which] for value in vars(self).values()))

    @classmethod
    def read(cls, dataset: Path) -> RealGiants:
        """Read the training part of a dataset: stars of which all labels are known."""
        table = pq.read_table(dataset / f"{TRAIN}.parquet")
        table = table.filter(pc.is_valid(table["basis"]))
        column = {
            name: table[name].to_numpy().astype(np.float64)
            for name in (*LABELS[:4], "logebv", "e_logebv", "phot_g_mean_mag", *TMASS)
        }
        both = [spectra.matrix(table[f"{b}_coefficients"], 55).astype(np.float64) for b in BANDS]
        design, _ = canonical_tables.designs()["both"]
        ebv = np.exp(column["logebv"])
        giants = cls(
            flux=np.concatenate(both, axis=1) @ design.T,
            tmass=np.stack([column[band] - column["phot_g_mean_mag"] for band in TMASS], axis=1),
            labels=np.stack([*(column[name] for name in LABELS[:4]), ebv], axis=1),
            e_ebv=column["e_logebv"] * ebv,
            fold=table["fold"].to_numpy(),
        )  # fmt: skip
        known = np.isfinite(giants.labels).all(1) & np.isfinite(giants.flux).all(1)
        used = known & (column["logg"] < DENSEST) & (column["teff"] < HOTTEST)
        return giants.rows(used)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted correction, and how well it describes stars that it was not fitted to.

    Attributes
    ----------
    correction
        The polynomials, at the wavelengths of sampled spectra.
    before, after
        Scatter of real over simulated flux, without and with the correction, (L,).
    """

    correction: SpectralCorrection
    before: Floats
    after: Floats


def fit_correction(giants: RealGiants, fitted: Mask) -> Fit:
    """Fit the correction.

    Parameters
    ----------
    giants
        Real giants.
    fitted
        Which of them (N,) the polynomials are fitted to; the others measure the scatter.
    """
    simulation = _Simulation()
    labels = giants.labels.copy()
    low, high = np.quantile(labels[fitted], RANGE, axis=0)
    low[LABELS.index("ebv")] = 0.0
    terms = _terms(labels, low, high)
    correction = _correction(low, high, np.zeros((terms.shape[1], giants.flux.shape[1])))
    for round_ in range(ROUNDS):
        ratio, dust, error = _ratios(simulation, giants, labels, correction)
        if round_:
            change = _dust_change(giants, labels, ratio, dust, error, low, high)
            ratio -= dust * change[:, None]
            labels[:, -1] += change
        # At first E(B-V) is that of A_K, whose errors would look like a dependence on it.
        terms = _terms(labels if round_ else _at_one_ebv(labels), low, high)
        found = _polynomials(terms, ratio, error, fitted)
        correction = _correction(low, high, correction.flux.numpy() + found)
    uncorrected = _correction(low, high, np.zeros(found.shape))
    before, after = (
        _scatter(_ratios(simulation, giants, labels, item)[0][~fitted])
        for item in (uncorrected, correction)
    )
    _, gaia, tmass = simulation.observe(labels, correction)
    shifts = _tmass_polynomials(terms, giants.tmass - (tmass - gaia[:, :1]), fitted)
    return Fit(_correction(low, high, correction.flux.numpy(), shifts), before, after)


class _Simulation:
    """Simulated spectra at given labels, as sampled flux over the G flux."""

    def __init__(self) -> None:
        self.simulator = Simulator()
        self.wavelengths = calibration(load_release()).wavelengths
        self.design, _ = canonical_tables.designs()["both"]
        self.projection = canonical_tables.operators()["both"].projection

    def observe(
        self, labels: Floats, correction: SpectralCorrection
    ) -> tuple[Floats, Floats, Floats]:
        """Return flux (N, L), and G, BP, RP and J, H, Ks (N, 3), of stars with some labels."""
        parts = [
            self._observe(labels[start : start + 4096], correction)
            for start in range(0, len(labels), 4096)
        ]
        flux, gaia, tmass = (np.concatenate(items) for items in zip(*parts, strict=True))
        return flux, gaia, tmass

    def _observe(
        self, labels: Floats, correction: SpectralCorrection
    ) -> tuple[Floats, Floats, Floats]:
        x = torch.from_numpy(labels).float()
        teff, logg, m_h, _, ebv = x.unbind(-1)
        one = torch.ones_like(teff)
        ratio = self._at_atmospheres(correction(x)[0].double().numpy())
        found = self.simulator.spectra(
            m_h, teff, logg, log_l=0 * one, distance=one, ebv=TRUE_PER_SFD * ebv, r_v=R_V * one,
            flux_errors=torch.from_numpy(ratio).float(),
        )  # fmt: skip
        coefficients, gaia, tmass = (item.double().numpy() for item in found)
        scale = spectra.g_flux(gaia[:, 0], load_release().magnitude("G").zero_point)
        canonical = coefficients @ self.projection.T / scale[:, None]
        return canonical @ self.design.T, gaia, tmass

    def _at_atmospheres(self, log_ratio: Floats) -> Floats:
        wanted = np.asarray(self.simulator.atmospheres.wavelength)
        return np.stack([np.interp(wanted, self.wavelengths, row) for row in log_ratio])


def _ratios(
    simulation: _Simulation,
    giants: RealGiants,
    labels: Floats,
    correction: SpectralCorrection,
) -> tuple[Floats, Floats, Floats]:
    """Return (real - simulated) / simulated flux, its change per mag of E(B-V), and its error."""
    here = simulation.observe(labels, correction)[0]
    dustier = labels.copy()
    dustier[:, -1] += DUST_STEP
    there = simulation.observe(dustier, correction)[0]
    top = here.max(axis=1, keepdims=True)
    level = np.maximum(here, FAINTEST * top)
    error = FLOOR + SKY * top / level
    return (giants.flux - here) / level, (there - here) / DUST_STEP / level, error


def _dust_change(
    giants: RealGiants, labels: Floats, ratio: Floats, dust: Floats, error: Floats,
    low: Floats, high: Floats,
) -> Floats:  # fmt: skip
    """Return by how much the E(B-V) of each star changes (N,), on average not at all."""
    weight = INDEPENDENT / ratio.shape[1] / error**2
    prior = 1.0 / giants.e_ebv**2
    off = giants.labels[:, -1] - labels[:, -1]
    change = (weight * ratio * dust).sum(axis=1) + prior * off
    change /= (weight * dust**2).sum(axis=1) + prior
    change = np.clip(change, -LARGEST_STEP, LARGEST_STEP)
    # What depends on the other labels is a fault of the spectra, not dust.
    terms = _terms(_at_one_ebv(labels), low, high)[:, : 1 + 5 + 15]
    total = np.clip(change - off, -3 * giants.e_ebv, 3 * giants.e_ebv)
    mean = terms @ _least_squares(terms, total, 1.0 / np.maximum(giants.e_ebv, 0.03) ** 2)
    return np.asarray(np.maximum(labels[:, -1] + change - mean, 0.0) - labels[:, -1])


def _at_one_ebv(labels: Floats) -> Floats:
    """Return labels with the median E(B-V) for all stars."""
    same = labels.copy()
    same[:, -1] = np.median(labels[:, -1])
    return same


def _terms(labels: Floats, low: Floats, high: Floats) -> Floats:
    return polynomial_terms(torch.from_numpy(np.clip(labels, low, high))).numpy()


def _polynomials(terms: Floats, ratio: Floats, error: Floats, fitted: Mask) -> Floats:
    """Fit each wavelength (J, L), without stars whose whole spectrum disagrees."""
    used = fitted.copy()
    for _ in range(3):
        columns = [
            _least_squares(terms[used], ratio[used, k], 1.0 / error[used, k] ** 2)
            for k in range(ratio.shape[1])
        ]
        flux = np.stack(columns, axis=1)
        misfit = np.median(np.abs(ratio - terms @ flux) / error, axis=1)
        used = fitted & (misfit < OUTLIER * np.median(misfit))
    return flux


def _tmass_polynomials(terms: Floats, difference: Floats, fitted: Mask) -> Floats:
    """Fit J - G, H - G and Ks - G (J, 3)."""
    columns = []
    for y in difference.T:
        used = fitted & np.isfinite(y)
        for _ in range(3):
            solution = _least_squares(terms[used], y[used], np.ones(int(used.sum())))
            off = np.abs(y - terms @ solution)
            used &= off < TMASS_OUTLIER * 1.4826 * np.median(off[used])
        columns.append(solution)
    return np.stack(columns, axis=1)


def _least_squares(terms: Floats, y: Floats, weight: Floats) -> Floats:
    """Return the weighted solution (J,), slightly regularised."""
    scaled = terms * weight[:, None]
    ridge = 0.1 * weight.mean() * np.eye(terms.shape[1])
    return np.asarray(np.linalg.solve(scaled.T @ terms + ridge, scaled.T @ y))


def _scatter(x: Floats) -> Floats:
    """Return the scatter of columns (L,); NaN without rows."""
    if not len(x):
        return np.full(x.shape[1], np.nan)
    return np.asarray(1.4826 * np.median(np.abs(x - np.median(x, axis=0)), axis=0))


def _correction(
    low: Floats, high: Floats, flux: Floats, tmass: Floats | None = None
) -> SpectralCorrection:
    tmass = np.zeros((len(flux), 3)) if tmass is None else tmass
    return SpectralCorrection(*(torch.from_numpy(x).double() for x in (low, high, flux, tmass)))


def report(fit: Fit) -> str:
    """Return the scatter of real over simulated flux, without and with the correction.

    Parameters
    ----------
    fit
        A fit that left stars out.
    """
    wavelengths = calibration(load_release()).wavelengths
    lines = ["     nm     without    with"]
    for start in range(340, 1000, 60):
        at = (wavelengths >= start) & (wavelengths < start + 60)
        before, after = (np.median(x[at]) for x in (fit.before, fit.after))
        lines.append(f"{start:4d}-{start + 60:4d}  {before:8.3f}{after:8.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Fit, report the scatter of one fold that was left out, and write the file.

    Parameters
    ----------
    arguments
        The dataset and the file.
    """
    dataset, output = map(Path, arguments)
    giants = RealGiants.read(dataset)
    left_out = giants.fold == giants.fold.max()
    fit = fit_correction(giants, ~left_out)
    sys.stdout.write(
        f"{len(giants.fold):,} giants; scatter of real over simulated flux in a fold left out of "
        f"the fit:\n{report(fit)}\n"
    )
    correction = fit_correction(giants, np.ones(len(giants.fold), dtype=bool)).correction
    arrays = {name: value.numpy().astype(np.float32) for name, value in vars(correction).items()}
    buffer = io.BytesIO()
    wavelengths = calibration(load_release()).wavelengths
    np.savez_compressed(buffer, allow_pickle=False, wavelength=wavelengths, **arrays)
    write_atomic(output, buffer.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
