"""How the answers of the default model follow the errors that are stated, on real stars.

Skipped for a model that does not read errors. CATALOGPROC_TEST_MODEL names another model;
``python -m support.error_reading MODEL`` in tests/ prints all numbers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support import error_reading
from support.error_reading import KEPLER, LABELS, Asked, Stars

KINDS = ("bright", "giants")


@cache
def asked() -> Asked:
    """The model; skips where it does not read errors."""
    bundle = error_reading.model()
    if not bundle.reads_errors or bundle.vocabulary.basis != "canonical":
        pytest.skip(f"{bundle.name} does not read errors of canonical coefficients")
    return Asked(bundle)


@cache
def stars(kind: str) -> Stars:
    """30 stars of G 6 to 8 with correlations; the giants of examples/."""
    return error_reading.bright() if kind == "bright" else error_reading.giants(asked())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_redrawn_coefficients_scatter_answers_by_no_more_than_the_uncertainty(kind: str) -> None:
    """Default uncertainties, by the network alone, hold what the errors of the inputs cause."""
    ratio = error_reading.scatter_over_sigma(asked(), stars(kind))
    for label in LABELS:
        assert np.median(ratio[label]) < 0.8, label
        # 50 draws know a scatter to 10 %.
        assert np.quantile(ratio[label], 0.9) < 1.1, label


@pytest.mark.parametrize("kind", KINDS)
def test_stated_errors_move_sigma_and_hardly_the_answer(kind: str) -> None:
    base, half, double = (
        error_reading.scaled_errors(asked(), stars(kind), factor) for factor in (1.0, 0.5, 2.0)
    )
    for label in LABELS:
        (y, e), (y_half, e_half), (y_double, e_double) = base[label], half[label], double[label]
        for moved in (y_half, y_double):
            # Wanted is 0.3: the sigmas of stars of G 6 to 8 are small.
            assert np.median(np.abs(moved - y) / e) < (0.35 if kind == "bright" else 0.3), label
        ratio = e_double / e_half
        assert np.median(ratio) > 1.0, label


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_spectra_give_the_answers_of_coefficients(kind: str) -> None:
    roads = error_reading.two_roads(asked(), stars(kind))
    assert np.nanmax(roads.values) < 0.02
    for label in LABELS:
        assert roads.same[label].max() < 0.01, label
        # The errors of sampled spectra are a template's, so that the tokens differ in number.
        assert np.median(roads.own[label]) < 0.2, label
        assert np.quantile(roads.own[label], 0.95) < 0.5, label


@pytest.mark.parametrize("names", [KEPLER, (*KEPLER, "logg")])
def test_a_temperature_to_100_k_makes_a_mass_no_better_than_that(names: tuple[str, ...]) -> None:
    """infer on Kepler's giants: sigma holds what an error of 100 K makes of the mass.

    For most of them: wanted is a ratio of 0.9 for each; few rows without a spectrum are trained on.
    """
    ratio = error_reading.teff_to_100_k(asked().bundle, names)
    assert np.median(ratio) > 0.8


@pytest.mark.parametrize(("names", "scatter"), [(KEPLER, np.inf), ((*KEPLER, "logg"), 0.07)])
def test_masses_of_keplers_giants_by_infer(names: tuple[str, ...], scatter: float) -> None:
    found = error_reading.kepler_masses(asked().bundle, names)
    assert found["stars"] > 400
    assert found["scatter"] <= scatter
    assert 0.8 <= found["sd of z"] <= 1.3
