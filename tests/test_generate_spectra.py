"""Spectra from labels: the model's answers, GaiaXPy's sampling, brightness as physics has it."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pytest
from bundles import tiny_bundle

from catalogproc.errors import ContractError
from catalogproc.features import astrometry
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.features.spectra import G_ZERO_POINT
from catalogproc.network.bundle import load_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.science.generate.spectra import (
    Spectra,
    generate_spectra,
    sample,
    tokens_of,
)
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
GIANT = {"teff": 4750.0, "logg": 2.5, "m_h": 0.0}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor(load_bundle("default"))


def photometry(made: Spectra) -> tuple[np.ndarray, np.ndarray]:
    """G and BP - RP (N,) of generated coefficients, by GaiaXPy's pass-bands."""
    seen = synthetic_photometry(*(made.mean[:, made.bands[band]] for band in ("bp", "rp")))
    return seen.g, seen.bp - seen.rp


def test_coefficients_are_the_predictors_answers(plain: Predictor) -> None:
    made = generate_spectra(plain, GIANT | {"age": [2.0, 8.0], "ebv": 0.1})
    values = np.full((2, len(VOCABULARY)), np.nan)
    known = {"teff": 4750.0, "logg": 2.5, "m_h": 0.0, "logebv": np.log(0.1)}
    for name, value in known.items():
        values[:, VOCABULARY.column(name)] = value
    values[:, VOCABULARY.column("log_age")] = np.log10([2e9, 8e9])
    names = [f"{band}{i}" for band in ("bp", "rp") for i in range(55)]
    answer = plain.predict(values, [*names, "g_fakemag"])
    np.testing.assert_allclose(made.mean, answer.mean[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(made.sigma, answer.sigma[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(made.luminosity, answer.mean[:, -1], rtol=1e-6)
    assert made.mean.shape == (2, 110)


def test_what_is_given_stays(plain: Predictor) -> None:
    values = tokens_of(GIANT | {"rp3": [0.01, np.nan], "g_fakemag": [130.0, np.nan]}, VOCABULARY)
    errors = np.where(np.isfinite(values), 1e-4, np.nan)
    made = generate_spectra(plain, values, errors)
    rp3 = made.bands["rp"][3]
    assert (made.mean[0, rp3], made.sigma[0, rp3]) == (0.01, 1e-4)
    assert (made.luminosity[0], made.luminosity_sigma[0]) == (130.0, 0.0)
    assert made.sigma[1, rp3] > 1e-4
    assert made.luminosity_sigma[1] > 0.0
    with pytest.raises(ContractError, match=r"no such token.*\n.*\n.*vsini"):
        generate_spectra(plain, {"vsini": [3.0]})


def test_sampled_spectra_are_gaiaxpys(plain: Predictor) -> None:
    """Flux and its error, by GaiaXPy's calibrate on the coefficients that were made."""
    import pandas as pd

    made = generate_spectra(plain, GIANT | {"mass": [0.9, 1.4, 2.0], "g_fakemag": 120.0})
    ours = sample(made, distance=0.5)
    flux = 10 ** (0.4 * (G_ZERO_POINT - made.magnitude(0.5)[0]))[:, None]
    frame = pd.DataFrame({"source_id": np.arange(1, 4)})
    for band, at in made.bands.items():
        frame[f"{band}_coefficients"] = list(made.mean[:, at] * flux)
        frame[f"{band}_coefficient_errors"] = list(made.sigma[:, at] * flux)
        frame[f"{band}_coefficient_correlations"] = [np.zeros(55 * 54 // 2)] * 3
        frame[f"{band}_n_parameters"] = 55
        frame[f"{band}_standard_deviation"] = 1.0
    # To import GaiaXPy silences warnings, and has matplotlib ask for LaTeX, for good.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        from gaiaxpy import calibrate

        theirs, grid = calibrate(frame, save_file=False)
    np.testing.assert_allclose(ours.wavelengths, grid)
    np.testing.assert_allclose(ours.flux, np.stack(theirs["flux"]), rtol=1e-8, atol=1e-24)
    np.testing.assert_allclose(ours.sigma, np.stack(theirs["flux_error"]), rtol=1e-8)
    assert (ours.level == 0).all()  # the luminosity was given


def test_brightness_follows_from_luminosity_and_distance(plain: Predictor) -> None:
    made = generate_spectra(plain, GIANT | {"mass": [0.9, 1.4, 2.0]})
    near, far = sample(made, distance=0.01), sample(made, distance=1.0)
    np.testing.assert_allclose(near.flux, 1e4 * far.flux, rtol=1e-10)
    m_g = astrometry.absolute_magnitude(made.luminosity, made.luminosity_sigma)[0]
    known = np.isfinite(m_g)
    assert known.any()
    np.testing.assert_allclose(made.magnitude()[0], m_g)
    np.testing.assert_allclose(near.flux, sample(made, magnitude=m_g).flux, rtol=1e-10)
    # Flux goes with F to the power of -2: the error of the level follows from draws of F.
    draws = np.random.default_rng(0).normal(100.0, 2.0, 20_000)
    f = Spectra(
        np.ones((1, 110)), np.zeros((1, 110)), np.array([100.0]), np.array([2.0]), made.bands
    )
    assert sample(f, distance=1.0).level[0] == pytest.approx(np.std((draws / 100) ** -2), rel=0.03)
    one = sample(f, distance=1.0)
    np.testing.assert_allclose(one.total, np.abs(one.flux) * one.level[0], rtol=1e-10)


def test_a_generated_spectrum_has_the_brightness_that_it_is_normalised_to(
    shipped: Predictor,
) -> None:
    """G by GaiaXPy's pass-band is that of one electron a second, and a magnitude is itself."""
    made = generate_spectra(shipped, GIANT | {"teff": [4300.0, 4600.0, 4900.0], "ebv": 0.05})
    np.testing.assert_allclose(photometry(made)[0], G_ZERO_POINT, atol=0.1)
    level = 10 ** (0.4 * (G_ZERO_POINT - 12.0))
    bright = sample(made, magnitude=12.0)
    np.testing.assert_allclose(bright.flux, sample(made).flux * level, rtol=1e-10)


def test_spectra_answer_to_labels_as_stars_do(shipped: Predictor) -> None:
    """Hot is blue, dust and metals redden, massive stars of one Teff and log g are luminous."""

    def colour(**labels: object) -> np.ndarray:
        return photometry(generate_spectra(shipped, GIANT | {"ebv": 0.02} | labels))[1]

    assert (np.diff(colour(ebv=[0.01, 0.1, 0.3, 0.6, 1.0])) > 0.03).all()
    assert (np.diff(colour(m_h=[-1.5, -1.0, -0.5, 0.0])) > 0.0).all()
    cool, hot = colour(teff=[4300.0, 5100.0])
    assert cool - hot > 0.1
    massive = generate_spectra(shipped, GIANT | {"mass": [0.9, 2.0]})
    light, heavy = massive.magnitude()[0]
    # 4 pi G M sigma T^4 / g: 2.5 log10(2.0 / 0.9) = 0.87 mag.
    assert 0.3 < light - heavy < 1.5
