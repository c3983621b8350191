"""Shares of giants, other stars and rows of labels in a training, and its holdout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import JobError
from catalogproc.training.augmented_stars import AugmentationOptions, AugmentedStars
from catalogproc.training.dataset_stars import READINGS, DatasetOptions, DatasetStars
from catalogproc.vocabulary import BANDS, load_vocabulary

VOCABULARY = load_vocabulary(basis="canonical")
SPECTRUM = np.concatenate([VOCABULARY.coefficient_columns(band) for band in BANDS])
N = 400


def stars(**options: float) -> DatasetStars:
    """A quarter giants, half dwarfs, a quarter giants without a spectrum; mass by a teacher."""
    random = np.random.default_rng(2)
    values = np.full((N, len(VOCABULARY)), np.nan)
    errors = np.full(values.shape, np.nan)
    number = np.arange(N)
    giant, labels_only = number % 4 == 0, number % 4 == 3
    values[~labels_only[:, None] & np.isin(np.arange(len(VOCABULARY)), SPECTRUM)] = 1.0
    for name, value in (
        ("teff", np.where(giant | labels_only, 4500.0, 5500.0)),
        ("logg", np.where(giant | labels_only, 2.0, 4.5)),
        ("mass", np.full(N, 1.0)),
        ("bprp", random.normal(1.2, 0.1, N)),
    ):
        values[:, VOCABULARY.column(name)] = value
        errors[:, VOCABULARY.column(name)] = 0.1
    errors[:, SPECTRUM] = np.where(np.isfinite(values[:, SPECTRUM]), 0.01, np.nan)
    predicted = {VOCABULARY.column("mass"): np.ones(N, dtype=bool)}
    table = StarTable(number, values, errors, predicted)
    return DatasetStars(
        VOCABULARY, DatasetOptions(**options), table, table, table, np.full(N, 12.0)
    )  # fmt: skip


def fractions(found: DatasetStars) -> tuple[float, float]:
    """Giants with a spectrum, and stars without one, in a large batch."""
    values, *_ = (np.asarray(x) for x in found.sampler()(7, 4000))
    spectrum = np.isfinite(values[:, SPECTRUM]).any(axis=1)
    giant = spectrum & (values[:, VOCABULARY.column("logg")] < 3.5)
    return float(giant.mean()), float((~spectrum).mean())


def test_without_shares_every_row_is_as_likely() -> None:
    giants, labels_only = fractions(stars())
    assert giants == pytest.approx(0.25, abs=0.03)
    assert labels_only == pytest.approx(0.25, abs=0.03)


def test_shares_are_those_of_the_job() -> None:
    assert fractions(stars(giants=0.7, labels_only=0.1)) == pytest.approx((0.7, 0.1), abs=1e-3)


def test_giants_with_a_parallax_have_a_share_of_their_own() -> None:
    found = stars(giants=0.5, with_parallax=0.2)
    column = VOCABULARY.column("g_fakemag")
    few = np.arange(N) % 40 == 0  # one giant in ten
    found.training.values[few, column] = 200.0
    values = np.asarray(found.sampler()(7, 4000)[0])
    assert np.isfinite(values[:, column]).mean() == pytest.approx(0.2 + 0.5 / 10, abs=0.02)


def test_rows_without_a_spectrum_hide_mass_and_age_and_no_other_rows_do() -> None:
    values, _, hidden = (
        np.asarray(x) for x in stars(giants=0.6, labels_only=0.2).sampler()(7, 4000)
    )
    spectrum = np.isfinite(values[:, SPECTRUM]).any(axis=1)
    assert not hidden[spectrum].any()
    share = hidden[~spectrum].mean(axis=0)
    asked = VOCABULARY.columns(["mass", "log_age"])
    assert share[asked] == pytest.approx(0.7, abs=0.05)
    assert np.delete(share, asked) == pytest.approx(0.25, abs=0.07)


def test_more_than_all_stars_are_refused() -> None:
    with pytest.raises(JobError, match="more than all stars"):
        DatasetOptions(giants=0.8, labels_only=0.4)


def moving(found: DatasetStars, **options: float) -> AugmentedStars:
    """The same stars, all with G = 12 and the typical colours of a giant."""
    magnitudes = np.tile([12.0, 12.6, 11.3, 10.0, 9.4, 9.3], (N, 1))
    coefficients = found.training.values[:, SPECTRUM].copy()
    return AugmentedStars(
        found.training, coefficients, found.training.errors[:, SPECTRUM].copy(), magnitudes,
        VOCABULARY, AugmentationOptions(**options),
    )  # fmt: skip


def test_the_holdout_has_stars_as_they_are_moved_and_with_one_band() -> None:
    found = stars()
    moved = moving(found, fainter=1.0, mixed=1.0)  # mixtures are for training alone
    holdout = replace(found, moving=moved, moving_validation=moved).holdout()
    as_they_are = slice(READINGS * N)
    moved_stars = slice(as_they_are.stop, as_they_are.stop + READINGS * (3 * N // 4))
    assert (holdout.g_mag[as_they_are] == 12.0).all()
    np.testing.assert_array_equal(holdout.ids[as_they_are], np.tile(holdout.ids[:N], READINGS))
    read = np.isfinite(holdout.values[as_they_are]).reshape(READINGS, N, -1)
    assert (read[0] != read[1]).any(axis=1).mean() > 0.3  # each time read otherwise
    teff = holdout.truth[:, VOCABULARY.column("teff")]
    assert set(teff[moved_stars]) <= set(teff[:N])
    assert holdout.g_mag[moved_stars].min() >= 12.0
    assert np.median(holdout.g_mag[moved_stars]) == pytest.approx(14.8, abs=0.4)
    # Once more with one band, for the latent statistics.
    one_band = slice(moved_stars.stop, None)
    assert len(teff[one_band]) == len(teff[moved_stars])
    assert not holdout.default_read[one_band].any()
    bp, rp = (
        np.isfinite(holdout.values[one_band][:, VOCABULARY.coefficient_columns(band)]).any(axis=1)
        for band in BANDS
    )
    assert (bp != rp).all()
    assert 0.3 < bp.mean() < 0.7
    # The truth of what a teacher predicted is drawn: it scatters, and is exact.
    at = VOCABULARY.column("mass")
    assert holdout.truth[:N, at].std() == pytest.approx(0.1, rel=0.15)
    assert (holdout.truth_errors[:N, at] == 0).all()


def test_moved_stars_keep_the_shares_of_the_job() -> None:
    found = stars(giants=0.6, labels_only=0.2)
    both = replace(found, moving=moving(found, fainter=0.5))
    assert fractions(both) == pytest.approx((0.6, 0.2), abs=1e-3)


def test_the_stars_of_the_prior_are_each_once_and_read_alike() -> None:
    found = replace(stars(), moving_validation=None).prior_stars()
    assert len(found.values) == N
    coefficients = np.isfinite(found.values[:, SPECTRUM]).sum(axis=1)
    # Of a star without a spectrum a run reads nothing that tells its labels.
    assert (found.default_read == (coefficients > 0)).all()
    assert set(coefficients.tolist()) == {0, 60}
    assert np.isfinite(found.values[:, VOCABULARY.column("bprp")]).all()
    mass = found.truth[:, VOCABULARY.column("mass")]
    # The truth scatters about the teacher's predictions, and is exact then.
    assert mass.std() == pytest.approx(0.1, rel=0.2)
