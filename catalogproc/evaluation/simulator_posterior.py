"""Information limit of simulated giants: :mod:`importance_sampling` with the simulator.

The coordinates of a giant are [M/H], log age, its place along its phase of evolution, the
logarithm of E(B-V), and R_V; its kind is the phase. Its tokens do not depend on its distance:
they are colours, and coefficients over the G flux.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.evaluation.importance_sampling import (
    Library,
    Posterior,
    Progress,
    build_library,
    posterior,
)
from catalogproc.features.extinction import LN_EBV_FLOOR, TRUE_PER_SFD
from catalogproc.release import load_release
from catalogproc.simulation import simulator
from catalogproc.simulation.isochrones import LOG_AGE, LOGG, M_H, TEFF
from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.floating]

LABELS = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")

WIDTHS = (0.04, 0.03, 0.02, 0.15, 0.1)
"""Widths of a patch, in the coordinates' units, for a library of WIDTHS_AT stars."""

WIDTHS_AT = 200_000

LIMITS = (M_H, LOG_AGE, (0.0, 1.0), (-14.0, float(np.log(simulator.MAX_EBV))), simulator.R_V_RANGE)

TEN_PARSEC = 0.01
"""Distance in kpc at which the apparent magnitude is the absolute one."""

SEARCHED = 20_000
"""Library stars that are searched for one like a star, for the effect of calibration faults."""

E_G = 5e-4
"""Error of G in mag, which scales all coefficients together; no token holds it."""


@dataclass(frozen=True, eq=False)
class NoiselessGiants:
    """The simulator without noise, for tokens at some columns (D,) of the vocabulary."""

    simulator: Simulator
    vocabulary: Vocabulary
    columns: NDArray[np.int64]

    def __call__(self, coordinates: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and LABELS: an :data:`importance_sampling.Forward`."""
        return self.with_faults(coordinates, kind, None)

    def with_faults(
        self, coordinates: Tensor, kind: Tensor, faults: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (n, D) and LABELS (n, K) with faults of the calibration.

        Parameters
        ----------
        coordinates, kind
            (n, P) and (n,).
        faults
            Added to the log of the flux (n, W), or None.
        """
        low, high = torch.tensor(LIMITS, device=coordinates.device).T
        m_h, log_age, place, ln_ebv, r_v = coordinates.clamp(low, high).unbind(1)
        star = self.simulator.population.at(m_h, log_age, kind, place)
        distance = torch.full_like(m_h, TEN_PARSEC)
        coefficients, gaia, tmass = self.simulator.spectra(
            m_h, star["teff"], star["logg"], star["log_l"], distance,
            TRUE_PER_SFD * ln_ebv.exp(), r_v, faults,
        )  # fmt: skip
        dense = torch.full((len(m_h), len(self.vocabulary)), torch.nan)
        flux = 10 ** (0.4 * (load_release().magnitude("G").zero_point - gaia[:, :1]))
        n_bp = self.simulator.instrument.n_bp
        both = {"bp": coefficients[:, :n_bp] / flux, "rp": coefficients[:, n_bp:] / flux}
        for band in BANDS:
            at = torch.from_numpy(self.vocabulary.coefficient_columns(band))
            dense[:, at] = both[band][:, : len(at)]
        colours = {
            "bprp": gaia[:, 1] - gaia[:, 2],
            "jh": tmass[:, 0] - tmass[:, 1],
            "jk": tmass[:, 0] - tmass[:, 2],
        }
        labels = star | {
            "m_h": m_h,
            "log_age": log_age,
            "logebv": ln_ebv.clamp(min=LN_EBV_FLOOR),
            "g_fakemag": 10 ** (0.2 * gaia[:, 0] + 2),
        }
        for name, value in (colours | {name: labels[name] for name in LABELS}).items():
            if name in self.vocabulary:
                dense[:, self.vocabulary.column(name)] = value
        real = (star["teff"] > TEFF[0]) & (star["teff"] < TEFF[1])
        real &= (star["logg"] > LOGG[0]) & (star["logg"] < LOGG[1])
        tokens = dense[:, torch.from_numpy(self.columns)].masked_fill(~real[:, None], torch.nan)
        return tokens, torch.stack([labels[name] for name in LABELS], dim=1)

    def token_positions(self) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
        """Return positions in ``columns`` of the coefficients by band, of other tokens by name."""
        tokens = [self.vocabulary.tokens[column] for column in self.columns]
        spectrum = {
            band: np.array([i for i, token in enumerate(tokens) if token.band == band], dtype=int)
            for band in BANDS
        }
        return spectrum, {token.name: i for i, token in enumerate(tokens) if not token.band}

    def correlation(self) -> NDArray[np.float64]:
        """Return the noise correlation of the coefficients in ``columns``, BP before RP."""
        first = {"bp": 0, "rp": self.simulator.instrument.n_bp}
        tokens = [self.vocabulary.tokens[column] for column in self.columns]
        rows = [first[band] + t.index for band in BANDS for t in tokens if t.band == band]
        factor = self.simulator.noise.factor.double().numpy()[rows]
        return np.asarray(factor @ factor.T)


def build_giant_library(
    giants: NoiselessGiants, stars: int, seed: int, progress: Progress | None = None
) -> Library:
    """Return a library of giants drawn from the simulator's prior.

    Parameters
    ----------
    giants
        The simulator and the tokens of the library.
    stars
        Number of stars.
    seed
        Random seed of the stars.
    progress
        Called with (stars done, all stars, note).
    """
    drawn = giants.simulator.draw(stars, seed)
    coordinates = torch.stack(
        [drawn[name] for name in ("m_h", "log_age", "place")] + [drawn["ebv"].log(), drawn["r_v"]],
        dim=1,
    )
    # The optimal width of a density estimate shrinks with the sample size (Silverman 1986).
    shrink = (stars / WIDTHS_AT) ** (-1 / (len(WIDTHS) + 4))
    widths = torch.tensor(WIDTHS) * shrink
    return build_library(coordinates, drawn["phase"], giants, widths, progress)


@dataclass(frozen=True, eq=False)
class TokenNoise:
    """Covariance of observed tokens about the noiseless ones: the simulator's noise.

    The terms are the errors of the coefficients with their correlations, the level of each band,
    faults of the calibration (also in the magnitudes), the error of G (which scales all
    coefficients), and the errors of the photometry.

    Attributes
    ----------
    library, giants
        The library and its simulator.
    values, errors
        Observed tokens (N, D) and their errors, at the library's columns.
    """

    library: Library
    giants: NoiselessGiants
    values: Floats
    errors: Floats

    def __call__(self, i: int) -> NDArray[np.float64]:
        """Return the covariance (D, D) of star i; absent tokens have some finite variance."""
        error = np.nan_to_num(self.errors[i].astype(np.float64), nan=1.0)
        model, faults = self._model_and_faults(i)
        spectrum, colour = self.giants.token_positions()
        both = np.concatenate(list(spectrum.values()))
        levels = [(at, simulator.BAND_LEVEL_ERROR) for at in spectrum.values()]
        levels += [(both, 0.4 * np.log(10.0) * np.hypot(simulator.PHOTOMETRIC_ERROR, E_G))]
        covariance = faults.T @ faults
        for at, relative in levels:
            covariance[np.ix_(at, at)] += relative**2 * np.outer(model[at], model[at])
        covariance[np.ix_(both, both)] += self.giants.correlation() * np.outer(
            error[both], error[both]
        )
        variance = error**2
        if "bprp" in colour:
            bprp = colour["bprp"]
            # The published error includes that of the zero-points, which all stars share.
            zero_points = sum(
                load_release().magnitude(name).zero_point_error ** 2 for name in ("BP", "RP")
            )
            without = max(variance[bprp] - zero_points, 1e-7)
            variance[bprp] = without + 2 * simulator.PHOTOMETRIC_ERROR**2
        if "jh" in colour and "jk" in colour:
            pair = [colour["jh"], colour["jk"]]
            # J is in both colours; its error, unknown here, is about that of H and K.
            covariance[pair, pair[::-1]] += 0.5 * variance[pair].min()
        others = np.setdiff1d(np.arange(len(error)), both)
        covariance[others, others] += variance[others]
        return np.asarray(covariance)

    def _model_and_faults(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Noiseless tokens (D,) of a star like this one; their change by each fault (F, D)."""
        x, e = self.values[i].astype(np.float64), self.errors[i].astype(np.float64)
        weight = np.nan_to_num(1.0 / np.hypot(e, 0.01 * np.abs(x) + 1e-9))
        offset = self.library.tokens[:SEARCHED] - torch.from_numpy(np.nan_to_num(x)).float()
        best = int((offset * torch.from_numpy(weight).float()).square().sum(1).argmin())
        modes = self.giants.simulator.calibration_modes
        star = self.library.coordinates[best].expand(len(modes), -1)
        model = self.library.tokens[best]
        kind = self.library.kind[best].expand(len(modes))
        changed, _ = self.giants.with_faults(star, kind, modes)
        return model.double().numpy(), (changed - model).double().numpy()


def information_limit(
    library: Library,
    giants: NoiselessGiants,
    inputs: Floats,
    errors: Floats,
    progress: Progress | None = None,
) -> Posterior:
    """Return the posterior of LABELS for simulated giants, under the simulator's prior.

    Parameters
    ----------
    library, giants
        The library and its simulator.
    inputs, errors
        Dense tokens (N, V) and their errors, NaN where absent; the library's columns are read.
    progress
        Called with (stars done, all stars, note).
    """
    used = np.flatnonzero(np.isfinite(inputs[:, giants.columns]).any(axis=0))
    selected = replace(giants, columns=giants.columns[used])
    part = library.select_tokens(used, selected)
    x, e = inputs[:, selected.columns], errors[:, selected.columns]
    return posterior(part, x, TokenNoise(part, selected, x, e), progress=progress)
