"""Real stars as they would be behind more dust, and fainter: canonical spectra and photometry.

The spectra with labels end at G = 15 and the catalog at 17.65. Dust multiplies the flux D k by an
extinction curve, and P brings it back to coefficients; noise has the errors of real spectra at the
fainter magnitude (grids/xp_noise.npz) and their mean correlations. Coefficients are over the G
flux, so that distance changes nothing but the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.features import canonical_tables
from catalogproc.features.extinction import TRUE_PER_SFD
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.photometry import passbands
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.simulation import noise
from catalogproc.simulation.atmospheres import extinction_curves, polynomial_in_r_v
from catalogproc.simulation.instrument import tmass_matrix
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

MAGNITUDES = ("g", "bp", "rp", "j", "h", "ks")

MAGNITUDE = -0.4 * math.log(10.0)
"""Natural log of the flux per magnitude."""

DUST_MODES = 6
"""Number of functions of wavelength that describe all transmissions: those of MODE_EBV and
R_V_NODES by singular values. The curve's own shape is needed, because P amplifies the rest."""

MODE_EBV = np.linspace(0.0, 2.5, 26)

TYPICAL_G, TYPICAL_BP_RP = 14.0, 1.5
"""Magnitude and colour of the star whose errors show how dust changes errors."""


@dataclass(frozen=True, eq=False)
class ObservedStars:
    """N stars as observed, float64.

    Attributes
    ----------
    values, errors
        Canonical coefficients over the G flux and their errors (N, 110), BP before RP, all of
        them: masks come afterwards.
    magnitudes, magnitude_errors
        MAGNITUDES and their errors (N, 6), mag; NaN where unknown.
    """

    values: Tensor
    errors: Tensor
    magnitudes: Tensor
    magnitude_errors: Tensor

    def colours(self) -> tuple[Tensor, Tensor]:
        """Return BP - RP, J - H and J - Ks (N, 3), and their errors."""
        first, second = [1, 3, 3], [2, 4, 5]
        values = self.magnitudes[:, first] - self.magnitudes[:, second]
        errors = self.magnitude_errors
        return values, torch.hypot(errors[:, first], errors[:, second])


@dataclass(frozen=True, eq=False)
class _Tables:
    """What dust and noise need.

    Attributes
    ----------
    design, inverse
        D (L, 110) transposed and P (110, L) transposed: products of rows.
    dust, tmass_dust
        Polynomials in R_V - 3.1 of the extinction per mag of true E(B-V) at the L wavelengths
        (3, L), and in J, H and Ks (3, 3).
    passbands
        Weights of G, BP and RP on the coefficients (110, 3).
    onto
        Amplitudes of M modes from a transmission (L, M).
    error_modes
        (M * M, 110) how products of two amplitudes change the squared errors.
    projection, error_weights
        P D and W transposed (110, 110).
    """

    design: Tensor
    inverse: Tensor
    dust: Tensor
    tmass_dust: Tensor
    passbands: Tensor
    onto: Tensor
    error_modes: Tensor
    projection: Tensor
    error_weights: Tensor


def reddened(stars: ObservedStars, ebv: Tensor, r_v: Tensor) -> ObservedStars:
    """Return stars behind further dust, with the noise that they have.

    Parameters
    ----------
    stars
        N stars.
    ebv
        E(B-V) on the SFD scale that is added (N,), mag.
    r_v
        R_V of the added dust (N,), from 2.6 to 3.6.
    """
    tables = _tables()
    x = r_v.double() - 3.1
    powers = TRUE_PER_SFD * ebv.double()[:, None] * torch.stack([x**0, x, x * x], dim=-1)
    transmission = torch.exp(powers @ (MAGNITUDE * tables.dust))
    values = ((stars.values @ tables.design) * transmission) @ tables.inverse
    before, after = stars.values @ tables.passbands, values @ tables.passbands
    gaia = -2.5 * torch.log10(after / before)
    fading = torch.exp(MAGNITUDE * gaia[:, :1])
    amplitudes = transmission @ tables.onto
    pairs = (amplitudes[:, :, None] * amplitudes[:, None, :]).flatten(1)
    squares = pairs @ tables.error_modes
    dimming = torch.cat([gaia, powers @ tables.tmass_dust], dim=1)
    return replace(
        stars,
        values=values / fading,
        errors=stars.errors * squares.clamp(min=0.0).sqrt() / fading,
        magnitudes=stars.magnitudes + dimming,
    )


def fainter(stars: ObservedStars, g_mag: Tensor, random: torch.Generator) -> ObservedStars:
    """Return stars at a larger distance, with the noise that real stars have there.

    Noise is added so that the errors become those of real spectra of the magnitude and colour,
    which scatter from star to star; a star whose errors are larger already gets none. Errors of
    the magnitudes likewise.

    Parameters
    ----------
    stars
        N stars.
    g_mag
        G (N,) at the new distance, mag; a smaller one than the star has leaves it where it is.
    random
        Source of the noise.
    """
    further = (g_mag.double() - stars.magnitudes[:, 0]).clamp(min=0.0)
    far = stars.magnitudes + further[:, None]
    model, tables = noise.load_noise(), _tables()
    colour = (far[:, 1] - far[:, 2]).nan_to_num(nan=TYPICAL_BP_RP)
    archive, _ = model.errors(far[:, 0].float(), colour.float(), random)
    wanted = (archive.double().square() @ tables.error_weights).sqrt()
    ratio = (stars.errors / wanted).square().nanmean(dim=1).clamp(max=1.0)
    share = torch.where(further > 0, 1 - ratio, 0.0)[:, None]
    drawn = model.spectra(archive, random).double() @ tables.projection
    errors = photometric_errors(far)
    added = torch.randn(far.shape, generator=random, dtype=torch.float64)
    missing = (errors.square() - stars.magnitude_errors.square()).clamp(min=0.0)
    missing = torch.where(further[:, None] > 0, missing, 0.0)
    return ObservedStars(
        values=stars.values + share.sqrt() * drawn,
        errors=(stars.errors.square() + share * wanted.square()).sqrt(),
        magnitudes=far + missing.sqrt() * added,
        magnitude_errors=(stars.magnitude_errors.square() + missing).sqrt(),
    )


def photometric_errors(magnitudes: Tensor) -> Tensor:
    """Return typical errors of magnitudes (N, 6), mag, with those of BP's and RP's zero-points.

    Parameters
    ----------
    magnitudes
        MAGNITUDES (N, 6), mag.
    """
    single = magnitudes.float()
    gaia = [noise.by_magnitude(noise.PHOTOMETRY[band], single[:, 0]) for band in ("G", "BP", "RP")]
    for place, band in enumerate(("BP", "RP"), start=1):
        zero_point = load_release().magnitude(band).zero_point_error
        gaia[place] = torch.hypot(gaia[place], torch.tensor(zero_point))
    return torch.cat([torch.stack(gaia, dim=1), noise.tmass_errors(single[:, 3:])], dim=1).double()


@cache
def _tables() -> _Tables:
    wavelengths = calibration(load_release()).wavelengths
    operator = canonical_tables.operators()["both"]
    design, _ = canonical_tables.designs()["both"]
    system = passbands(load_release())
    weights = np.concatenate([system.weights[band] for band in BANDS], axis=1)
    order = [system.names.index(name) for name in ("G", "BP", "RP")]
    modes = _modes(extinction_curves(wavelengths))
    arrays = {
        "design": design.T,
        "inverse": operator.inverse.T,
        "dust": polynomial_in_r_v(extinction_curves(wavelengths)),
        "tmass_dust": polynomial_in_r_v(_tmass_curves()),
        "passbands": weights[order].T,
        "onto": modes,
        "error_modes": _error_modes(operator, design, modes),
        "projection": operator.projection.T,
        "error_weights": operator.error_weights.T,
    }
    return _Tables(
        **{name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
    )


def _modes(curves: Float) -> Float:
    """Return orthonormal functions of wavelength (L, DUST_MODES) for transmissions."""
    transmissions = np.exp(MAGNITUDE * TRUE_PER_SFD * MODE_EBV[:, None, None] * curves)
    _, _, vectors = np.linalg.svd(transmissions.reshape(-1, curves.shape[1]), full_matrices=False)
    return np.asarray(vectors[:DUST_MODES].T)


def _tmass_curves() -> Float:
    """Return the extinction (R, 3) in J, H and Ks of a spectrum that falls as wavelength^-4."""
    wavelengths = np.arange(1000.0, 2500.0, 2.0)
    response = tmass_matrix(wavelengths, shipped("grids") / "twomass_rsr.csv")
    weights = response * wavelengths**-4
    return np.asarray(extinction_curves(wavelengths) @ weights.T / weights.sum(axis=1))


def _error_modes(operator: canonical_tables.Operator, design: Float, modes: Float) -> Float:
    """Return how amplitudes of the modes change squared errors (M * M, n), for a typical star."""
    model = noise.load_noise()
    g, colour = (torch.tensor([value]) for value in (TYPICAL_G, TYPICAL_BP_RP))
    errors = torch.exp(noise.design(g, colour) @ model.coefficients)[0].double().numpy()
    factor = operator.projection @ (errors[:, None] * operator.factor)
    flux = design @ factor
    parts = np.stack([operator.inverse @ (mode[:, None] * flux) for mode in modes.T])
    squares = np.einsum("mci,kci->mkc", parts, parts) / np.square(factor).sum(axis=1)
    return np.asarray(squares.reshape(-1, squares.shape[-1]))
