"""From labels to spectra: what the model expects of a star's XP coefficients.

Any subset of the vocabulary may be known of a star: labels, colours, some of the coefficients.
Coefficients are divided by the G flux, as the model reads them (features/spectra.py), so a
spectrum has a shape; how bright it is follows from the pseudo-luminosity F and a distance
(features/astrometry.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.features import astrometry, dust, spectra
from catalogproc.features.calibration import calibration
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

LUMINOSITY = "g_fakemag"
TEN_PARSEC = 0.01
"""The distance of absolute magnitudes, kpc."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Coefficients of N stars, both bands side by side as in the vocabulary, C in all.

    Attributes
    ----------
    mean, sigma
        Coefficients divided by the G flux, and their errors (N, C); a coefficient that was
        given has the error that was given with it, or none.
    luminosity, luminosity_sigma
        The pseudo-luminosity F and its error (N,), given or answered; NaN where the model
        was not trained to answer it.
    bands
        Which columns (n,) are those of "bp" and "rp", in the order of their bases.
    """

    mean: Floats
    sigma: Floats
    luminosity: Floats
    luminosity_sigma: Floats
    bands: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.mean)

    def magnitude(self, distance: ArrayLike = TEN_PARSEC) -> tuple[Floats, Floats]:
        """G as seen from a distance in kpc, behind the star's own dust, and its error (N,), mag.

        At 10 pc it is the absolute magnitude. NaN where F is not positive.
        """
        m_g, error = astrometry.absolute_magnitude(self.luminosity, self.luminosity_sigma)
        away = np.asarray(distance, dtype=np.float64) / TEN_PARSEC
        return m_g + 5.0 * np.log10(np.where(away > 0, away, np.nan)), error


@dataclass(frozen=True, eq=False)
class Sampled:
    """Flux of N stars over L wavelengths [nm], in W m-2 nm-1.

    ``sigma`` is the error at each wavelength. Where a spectrum stands at a distance, its
    level has an error too, ``level`` (N,), relative, the same at all wavelengths; it is not
    in ``sigma``. :attr:`total` has both.
    """

    wavelengths: Floats
    flux: Floats
    sigma: Floats
    level: Floats

    @property
    def total(self) -> Floats:
        """The error of the flux (N, L), its level's with it."""
        return np.hypot(self.sigma, self.flux * self.level[:, None])


def generate_spectra(
    predictor: Predictor,
    labels: Mapping[str, ArrayLike] | NDArray[np.floating],
    errors: NDArray[np.floating] | None = None,
) -> Spectra:
    """The spectra that a model expects of stars.

    Parameters
    ----------
    predictor
        The model.
    labels
        What is known: columns by name (tokens, or ``age`` in Gyr and ``ebv`` in mag on the SFD
        scale), each (N,) or one number for all; or dense tokens (N, V), NaN where absent.
    errors
        Of coefficients that are given among dense tokens (N, V).

    Raises
    ------
    ContractError
        A column that the vocabulary does not have.
    BundleError
        The model was not trained to answer the coefficients that are asked for.
    """
    vocabulary = predictor.bundle.vocabulary
    values = labels if isinstance(labels, np.ndarray) else tokens_of(labels, vocabulary)
    at = np.concatenate([vocabulary.coefficient_columns(band) for band in BANDS])
    names = [vocabulary.names[column] for column in at]
    wanted = [name for name in (LUMINOSITY,) if name in predictor.bundle.requestable]
    answer = predictor.predict(values, [*names, *wanted])
    mean, sigma = answer.mean.astype(np.float64), answer.sigma.astype(np.float64)
    given = np.isfinite(values[:, at])
    error = np.zeros(given.shape) if errors is None else np.nan_to_num(errors[:, at])
    f, e_f = _luminosity(values, vocabulary, mean[:, len(at) :], sigma[:, len(at) :])
    counts = [vocabulary.coefficients(band) for band in BANDS]
    places = np.split(np.arange(len(at)), np.cumsum(counts)[:-1])
    return Spectra(
        mean=np.where(given, values[:, at], mean[:, : len(at)]),
        sigma=np.where(given, error, sigma[:, : len(at)]),
        luminosity=f,
        luminosity_sigma=e_f,
        bands=dict(zip(BANDS, places, strict=True)),
    )


def sample(
    made: Spectra, distance: ArrayLike | None = None, magnitude: ArrayLike | None = None
) -> Sampled:
    """Spectra over wavelength, through the bases of GaiaXPy's ``calibrate``.

    Of G flux 1 electron/s; or as seen from a ``distance`` in kpc (0.01 is 10 pc), or as bright
    as an apparent G ``magnitude`` says, each (N,) or one for all. The error of each wavelength
    is that of coefficients whose errors are independent of each other.

    Raises
    ------
    ReleaseError
        Coefficients of a release that GaiaXPy's bases are not for.
    """
    scale, level = g_flux(made, distance, magnitude)
    bases = calibration()
    mean, sigma = (
        {band: matrix[:, at] for band, at in made.bands.items()}
        for matrix in (made.mean, made.sigma)
    )
    return Sampled(
        bases.wavelengths, bases.flux(mean) * scale[:, None], bases.error(sigma) * scale[:, None],
        level,
    )  # fmt: skip


def g_flux(
    made: Spectra, distance: ArrayLike | None = None, magnitude: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """G flux in electrons/s of generated stars, and its relative error (N,); see :func:`sample`."""
    none = np.zeros(len(made))
    if magnitude is not None:
        return spectra.g_flux(np.broadcast_to(magnitude, none.shape)), none
    if distance is None:
        return np.ones(len(made)), none
    g_mag, error = made.magnitude(distance)
    return spectra.g_flux(g_mag), error * np.log(10.0) / 2.5


def tokens_of(labels: Mapping[str, ArrayLike], vocabulary: Vocabulary) -> Floats:
    """Dense tokens (N, V) from columns by name; see :func:`generate_spectra`."""
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in labels.values()))
    rows = columns[0].size if columns else 0
    values = np.full((rows, len(vocabulary)), np.nan)
    for name, column in zip(labels, columns, strict=True):
        word, given = token(name, column)
        values[:, vocabulary.column(word)] = given
    return values


def token(name: str, value: ArrayLike) -> tuple[str, Floats]:
    """``age`` [Gyr] and ``ebv`` [mag] as the tokens they are; tokens as they stand."""
    given = np.asarray(value, dtype=np.float64)
    if name == "age":
        with np.errstate(divide="ignore", invalid="ignore"):
            return "log_age", np.log10(np.where(given > 0, given, np.nan)) + 9.0
    return ("logebv", dust.ln_ebv(given)) if name == "ebv" else (name, given)


def _luminosity(
    values: NDArray[np.floating], vocabulary: Vocabulary, mean: Floats, sigma: Floats
) -> tuple[Floats, Floats]:
    """F and its error (N,): given, else answered, in a column or none, else NaN."""
    f, e_f = (m[:, 0] if m.shape[1] else np.full(len(values), np.nan) for m in (mean, sigma))
    if LUMINOSITY not in vocabulary:
        return f, e_f
    known = values[:, vocabulary.column(LUMINOSITY)]
    return np.where(np.isfinite(known), known, f), np.where(np.isfinite(known), 0.0, e_f)
