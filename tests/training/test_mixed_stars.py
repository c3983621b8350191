"""Mixtures of stars that are alike, as stars of a training."""

from __future__ import annotations

import numpy as np
import torch

from catalogproc.datasets.star_table import StarTable
from catalogproc.features import canonical_signal
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.augmented_stars import AugmentationOptions, AugmentedStars
from catalogproc.training.mixed_stars import (
    ALIKE,
    NEIGHBOURS,
    NO_NEIGHBOUR,
    DrawnStars,
    alike,
    mixed,
)
from catalogproc.vocabulary import BANDS, load_vocabulary

VOCABULARY = load_vocabulary(basis="canonical")
LABELS = VOCABULARY.columns(list(ALIKE))
SPECTRUM = np.concatenate([VOCABULARY.coefficient_columns(band) for band in BANDS])
N = 400


def labelled(seed: int) -> np.ndarray:
    """Tokens of N stars with labels, close to each other."""
    random = np.random.default_rng(seed)
    values = np.full((N, len(VOCABULARY)), np.nan)
    values[:, LABELS] = random.normal(
        [4800, 2.5, -0.2, 0.1, np.log(0.1)], [150, 0.3, 0.15, 0.05, 0.3], (N, len(ALIKE))
    )
    return values


def dataset(**options: float) -> AugmentedStars:
    """Stars with labels and a spectrum that grows with Teff."""
    values = labelled(1)
    coefficients = np.outer(values[:, VOCABULARY.column("teff")] / 4800, np.geomspace(1, 1e-4, 110))
    errors = np.full_like(coefficients, 3e-4)
    start = 0
    for band in BANDS:
        at = VOCABULARY.coefficient_columns(band)
        own = slice(start, start + len(at))
        present = canonical_signal.relevance(band, coefficients[:, own], errors[:, own])
        values[:, at] = np.where(present, coefficients[:, own], np.nan)
        start = own.stop
    table = StarTable(np.arange(N), values, np.where(np.isfinite(values), 1e-3, np.nan))
    magnitudes = np.full((N, 6), 12.0)
    return AugmentedStars(
        table, coefficients, errors, magnitudes, VOCABULARY, AugmentationOptions(**options)
    )


def test_the_mean_of_two_spectra_is_the_spectrum_of_the_mean_labels() -> None:
    """The simulator without noise, for pairs as different as mixed stars may be."""
    random = np.random.default_rng(3)
    first = random.uniform([4300, 1.6, -0.6, 0.12], [5000, 3.0, 0.2, 0.4], (200, 4))
    step = random.normal(size=(200, 4))
    step *= np.array([150.0, 0.3, 0.15, 0.1]) / np.linalg.norm(step, axis=1, keepdims=True)
    second = first + step
    simulator = Simulator()

    def coefficients(labels: np.ndarray) -> np.ndarray:
        teff, logg, m_h, ebv = torch.from_numpy(labels.astype(np.float32)).T.contiguous()
        ones = torch.ones_like(teff)
        found, gaia, _ = simulator.spectra(
            m_h, teff, logg, 1.5 * ones, 0.01 * ones, ebv, 3.1 * ones
        )
        return (found / 10 ** (-0.4 * gaia[:, :1])).double().numpy()

    one, other, middle = (coefficients(x) for x in (first, second, (first + second) / 2))
    typical = np.median(np.linalg.norm(one - other, axis=1))
    curvature = np.linalg.norm((one + other) / 2 - middle, axis=1)
    # A mixture is wrong by a fiftieth of the difference of the two: of 150 K, by 3 K.
    assert np.median(curvature) < 0.02 * typical
    assert np.quantile(curvature, 0.95) < 0.06 * typical


def test_values_are_weighted_means_and_errors_those_of_independent_stars() -> None:
    random = np.random.default_rng(4)

    def drawn() -> DrawnStars:
        parts = [random.normal(size=(5, k)) for k in (7, 7, 110, 110, 6)]
        return DrawnStars(*(np.abs(x) for x in parts))

    one, other, weight = drawn(), drawn(), np.array([0.0, 1.0, 0.5, 0.25, 0.9])
    one.values[4, 2] = np.nan
    found = mixed(one, other, weight)
    np.testing.assert_allclose(found.values[0], other.values[0])
    np.testing.assert_allclose(found.coefficients[1], one.coefficients[1])
    np.testing.assert_allclose(found.magnitudes[2], (one.magnitudes[2] + other.magnitudes[2]) / 2)
    wanted = np.sqrt(0.25**2 * one.errors[3] ** 2 + 0.75**2 * other.errors[3] ** 2)
    np.testing.assert_allclose(found.errors[3], wanted)
    assert np.isnan(found.values).sum() == 1


def test_neighbours_are_the_stars_with_the_most_similar_labels() -> None:
    values = labelled(2)
    values[0, VOCABULARY.column("alpha_m")] = np.nan
    values[1, VOCABULARY.column("teff")] = 7000.0
    found = alike(values, VOCABULARY)
    assert found.shape == (N, NEIGHBOURS)
    assert (found[:2] == NO_NEIGHBOUR).all()
    labels = values[:, LABELS].copy()
    labels[:, -1] = np.exp(labels[:, -1])
    for star in range(2, 40):
        distance = np.linalg.norm((labels - labels[star]) / list(ALIKE.values()), axis=1)
        distance[star] = np.inf
        near = np.flatnonzero(distance < 1.0)
        wanted = near[np.argsort(distance[near])][:NEIGHBOURS]
        assert found[star][found[star] != NO_NEIGHBOUR].tolist() == wanted.tolist()


def test_mixed_stars_lie_between_stars_and_their_labels_with_them() -> None:
    plain, mixing = dataset(), dataset(mixed=1.0)
    (values, _), (found, errors) = (stars.sample(7, 300) for stars in (plain, mixing))
    teff, mixed_teff = (x[:, VOCABULARY.column("teff")] for x in (values, found))
    changed = teff != mixed_teff
    assert 0.6 < changed.mean() <= 1.0
    assert np.abs(teff - mixed_teff)[changed].max() < ALIKE["teff"]
    # The spectrum grows with Teff, and does so after mixing.
    bright = found[:, SPECTRUM[0]]
    np.testing.assert_allclose(bright, mixed_teff / 4800, rtol=1e-6)
    # Two spectra together have less noise, and no coefficient without signal is shown.
    own = errors[changed][:, SPECTRUM[0]]
    assert (own <= 3e-4 + 1e-12).all()
    assert np.median(own) < 2.9e-4
    assert (np.isfinite(found[:, SPECTRUM]) == np.isfinite(errors[:, SPECTRUM])).all()
    assert 0 < np.isfinite(found[:, SPECTRUM]).mean() < 1


def test_a_star_with_a_parallax_is_mixed_with_such_alone() -> None:
    mixing = dataset(mixed=1.0)
    column = VOCABULARY.column("g_fakemag")
    near = np.arange(N) % 3 == 0
    mixing.table.values[near, column] = 50.0
    found, _ = mixing.sample(7, 600)
    rows = np.random.default_rng(7).integers(N, size=600)
    assert np.isfinite(found[near[rows], column]).all()
    teff = mixing.table.values[rows, VOCABULARY.column("teff")]
    changed = found[:, VOCABULARY.column("teff")] != teff
    assert changed[near[rows]].any()
    assert changed[~near[rows]].mean() > 0.6
