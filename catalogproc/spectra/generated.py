"""XP spectra that a model makes from whatever is known of stars, and their flux over wavelength.

The model answers coefficients over the G flux. On that scale a spectrum has no distance;
:meth:`Spectra.at_magnitude` gives it one. Errors are the model's own, one coefficient at a
time; how they go together, generation/correlation.py finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import BundleError
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.spectra import G_ZERO_POINT
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]

TEN_PARSEC = 0.01
"""kpc."""

SLICE = 8_192
"""Stars asked at a time: a hundred coefficients each."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """Flux and its error (N, L) at ``wavelength`` (L,) nm, in W m-2 nm-1, or that over the
    electrons per second of G."""

    wavelength: Floats
    flux: Floats
    error: Floats


@dataclass(frozen=True, eq=False)
class Spectra:
    """N spectra: coefficients and errors (N, n) by band, and the G magnitude (N,) of their scale.

    The magnitude is NaN where coefficients are over the G flux, without a scale; else they are
    in electrons per second. ``correlations`` (N, C, C) are between all coefficients, BP's
    before RP's; where they are not known, errors count as independent.
    """

    coefficients: Mapping[str, Floats]
    errors: Mapping[str, Floats]
    g_mag: Floats
    correlations: NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.g_mag)

    def at_magnitude(self, g_mag: Floats) -> Spectra:
        """The same on the scale of stars of such G magnitudes (N,)."""
        flux = 10.0 ** (0.4 * (G_ZERO_POINT - np.asarray(g_mag, dtype=np.float64)))[:, None]
        return replace(
            self,
            coefficients={band: flux * values for band, values in self.coefficients.items()},
            errors={band: flux * values for band, values in self.errors.items()},
            g_mag=np.asarray(g_mag, dtype=np.float64),
        )

    def rows(self, which: NDArray[np.bool_]) -> Spectra:
        """Some of the spectra."""
        return Spectra(
            {band: values[which] for band, values in self.coefficients.items()},
            {band: values[which] for band, values in self.errors.items()},
            self.g_mag[which],
            None if self.correlations is None else self.correlations[which],
        )

    def sampled(self) -> Sampled:
        """Flux over wavelength, 336 to 1020 nm, by GaiaXPy's calibration."""
        by = calibration()
        return Sampled(
            by.wavelengths, by.flux(self.coefficients), by.error(self.errors, self.correlations)
        )


def generate_spectra(predictor: Predictor, values: Floats) -> Spectra:
    """Spectra (over the G flux) of stars of which tokens (N, V) are known, NaN where not.

    Raises
    ------
    BundleError
        The model was not trained to answer coefficients.
    """
    bundle = predictor.bundle
    vocabulary = bundle.vocabulary
    names = {
        band: [vocabulary.names[i] for i in vocabulary.coefficient_columns(band)] for band in BANDS
    }
    asked = [name for band in BANDS for name in names[band]]
    unknown = [name for name in asked if name not in bundle.requestable]
    if unknown:
        raise BundleError(
            "the model was not trained to answer every coefficient",
            wanted=f"{len(asked)} coefficients", found=f"{len(asked) - len(unknown)} of them",
            where=bundle.path,
        )  # fmt: skip
    mean, sigma = np.empty((2, len(values), len(asked)))
    for start in range(0, len(values), SLICE):
        rows = slice(start, start + SLICE)
        answer = predictor.predict(values[rows], asked)
        mean[rows], sigma[rows] = answer.mean, answer.sigma
    edge = np.cumsum([len(names[band]) for band in BANDS])[:-1]
    return Spectra(
        dict(zip(BANDS, np.split(mean, edge, axis=1), strict=True)),
        dict(zip(BANDS, np.split(sigma, edge, axis=1), strict=True)),
        np.full(len(values), np.nan),
    )


def apparent_magnitude(
    predictor: Predictor, values: Floats, distance: float
) -> tuple[Floats, Floats]:
    """G magnitude and its error (N,) of such stars at a distance in kpc, dimmed by their dust.

    From the pseudo-luminosity, as known or as the model answers it: M_G = 5 (log10 F - 2). NaN
    where that is not positive.
    """
    column = predictor.bundle.vocabulary.column("g_fakemag")
    answer = predictor.predict(values, ("g_fakemag",))
    known = np.isfinite(values[:, column])
    luminosity = np.where(known, values[:, column], answer.mean[:, 0].astype(np.float64))
    sigma = np.where(known, 0.0, answer.sigma[:, 0].astype(np.float64))
    positive = np.where(luminosity > 0, luminosity, np.nan)
    absolute = 5.0 * (np.log10(positive) - 2.0)
    magnitude = absolute + 5.0 * np.log10(distance / TEN_PARSEC)
    return magnitude, 5.0 / np.log(10.0) * sigma / positive
