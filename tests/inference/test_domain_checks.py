"""Out-of-domain checks of a spectrum against their definitions, star by star."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.bundles import tiny_bundle

from catalogproc.inference.domain_checks import (
    HELD_OUT,
    beyond_box,
    checkable,
    held_out,
    spectrum_chi2,
)
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

typical = StarTokens.typical

N = 6


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def stars(predictor):
    """Tokens of N stars that scatter as training stars do, and errors of a fifth of that."""
    rng = np.random.default_rng(11)
    scale = predictor.bundle.standardisation.scale
    values = predictor.bundle.standardisation.center + scale * rng.normal(size=(N, len(scale)))
    errors = scale * rng.uniform(0.1, 0.3, size=values.shape)
    return values, errors


def columns(predictor) -> np.ndarray:
    return predictor.bundle.vocabulary.columns(held_out(predictor.bundle.vocabulary))


def test_the_held_out_coefficients_are_five_of_each_band(predictor):
    names = [f"{band}{index}" for band in ("bp", "rp") for index in HELD_OUT]
    assert held_out(predictor.bundle.vocabulary) == names
    assert checkable(predictor.bundle)
    assert not checkable(replace(predictor.bundle, requestable=("teff", *names[1:])))


def test_chi2_is_that_of_predictions_from_the_other_tokens(predictor, stars):
    """By its definition: residuals over network sigma and published error, one star at a time."""
    values, errors = stars
    found = spectrum_chi2(predictor, typical(values), errors)
    for row in range(N):
        others = values[row : row + 1].copy()
        others[:, columns(predictor)] = np.nan
        terms = []
        for name, column in zip(
            held_out(predictor.bundle.vocabulary), columns(predictor), strict=True
        ):
            predicted = predictor.predict(typical(others), [name])
            residual = values[row, column] - predicted.mean[0, 0]
            terms.append(residual**2 / (predicted.sigma[0, 0] ** 2 + errors[row, column] ** 2))
        assert found[row] == pytest.approx(np.mean(terms), rel=1e-3)


def test_a_held_out_coefficient_does_not_change_its_own_prediction(predictor, stars):
    """So chi-square is a parabola in each of them: its third difference is zero."""
    values, errors = stars
    column = columns(predictor)[3]
    steps = []
    for step in range(4):
        moved = values.copy()
        moved[:, column] += step * predictor.bundle.standardisation.scale[column]
        steps.append(spectrum_chi2(predictor, typical(moved), errors))
    third = steps[3] - 3 * steps[2] + 3 * steps[1] - steps[0]
    second = steps[2] - 2 * steps[1] + steps[0]
    assert (second > 0).all()
    assert np.abs(third / second).max() < 1e-3


def test_larger_errors_of_held_out_coefficients_lower_chi2_and_of_others_do_not(predictor, stars):
    values, errors = stars
    chi2 = spectrum_chi2(predictor, typical(values), errors)
    held = np.zeros(errors.shape[1], dtype=bool)
    held[columns(predictor)] = True
    assert (
        spectrum_chi2(predictor, typical(values), np.where(held, 1e3 * errors, errors)) < 1e-3
    ).all()
    same = spectrum_chi2(predictor, typical(values), np.where(held, errors, 1e3 * errors))
    np.testing.assert_allclose(same, chi2, rtol=1e-9)


def test_chi2_needs_four_of_the_coefficients(predictor, stars):
    values, errors = stars
    for row, count in enumerate((0, 3, 4, 10)):
        values[row, columns(predictor)[count:]] = np.nan
    known = np.isfinite(spectrum_chi2(predictor, typical(values), errors))
    assert known.tolist() == [False, False, True, True, True, True]


def test_distance_outside_the_range_is_in_widths_of_the_range(predictor):
    bundle = predictor.bundle
    low, high = bundle.domain.low, bundle.domain.high
    values = np.tile((low + high) / 2, (4, 1))
    bp0 = bundle.vocabulary.column("bp0")
    rp3 = bundle.vocabulary.column("rp3")
    values[0, bp0] = high[bp0] + 0.5 * (high - low)[bp0]
    values[1, rp3] = low[rp3] - 2.0 * (high - low)[rp3]
    values[2, rp3] = np.nan
    beyond = beyond_box(bundle, values, 5)
    assert beyond.shape == (4, 10)
    wanted = np.zeros((4, 10))
    wanted[0, 0], wanted[1, 5 + 3] = 0.5, 2.0
    np.testing.assert_allclose(beyond, wanted, atol=1e-9)
