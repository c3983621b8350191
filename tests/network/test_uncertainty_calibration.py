"""Uncertainty calibration: fitted on stars with known labels, applied to others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.bundles import tiny_bundle
from typer.testing import CliRunner

from catalogproc.cli.main import app
from catalogproc.errors import BundleError
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.uncertainty_calibration import LabelCalibration
from catalogproc.training.fit_calibration import LabelPredictions, fit_label_calibration
from catalogproc.training.latent_fit import fit_latent
from catalogproc.training.recalibration import recalibrate

N = 24_000
IDS = np.arange(N)
LOW, HIGH = 0.158655, 0.841345


def drawn(
    seed: int, student: bool = False
) -> tuple[LabelPredictions, dict[str, np.ndarray], np.ndarray]:
    """Predictions whose sigma is wrong by factors of magnitude and gravity; the true sigma."""
    random = np.random.default_rng(seed)
    logg, magnitude = random.uniform(0.0, 3.5, N), random.uniform(8.0, 17.0, N)
    stated = np.exp(random.normal(4.0, 0.6, N))
    sigma = stated * np.exp(0.5 * (logg - 2.0) + 0.15 * np.maximum(magnitude - 14.0, 0.0))
    unit = random.standard_t(4.0, N) / 1.1415 if student else random.normal(size=N)
    mean = random.normal(4800.0, 300.0, N)
    answers = LabelPredictions(mean, stated, np.zeros(N), mean + sigma * unit, np.zeros(N), IDS)
    return answers, {"logg": logg, "phot_g_mean_mag": magnitude}, sigma


@pytest.fixture(scope="module")
def found() -> LabelCalibration:
    calibration = fit_label_calibration(*drawn(1)[:2])
    assert calibration is not None
    return calibration


def test_calibrated_sigma_is_the_true_one_at_any_magnitude_and_gravity(
    found: LabelCalibration,
) -> None:
    answers, context, sigma = drawn(2)
    ratio = found.sigma(answers.sigma, context) / sigma
    assert abs(np.median(ratio) - 1.0) < 0.02
    assert np.quantile(np.abs(ratio - 1.0), 0.95) < 0.12
    # And as a share of stars, bin by bin, on stars that the calibration was not found on.
    inside = np.abs(answers.truth - answers.mean) < found.sigma(answers.sigma, context)
    assert inside.mean() == pytest.approx(0.6827, abs=0.02)
    for name, edges in (("logg", (0, 1, 2, 3, 3.5)), ("phot_g_mean_mag", (8, 11, 14, 16, 17))):
        place = np.digitize(context[name], edges)
        for one in np.unique(place):
            assert inside[place == one].mean() == pytest.approx(0.6827, abs=0.05), (name, one)
    # Without it, nothing of this holds: the check can fail.
    plain = np.abs(answers.truth - answers.mean) < answers.sigma
    assert abs(plain[context["logg"] < 1].mean() - 0.6827) > 0.1


def test_heavy_tails_widen_the_95_percent_interval_and_not_the_68_percent_one() -> None:
    fitted = fit_label_calibration(*drawn(3, student=True)[:2])
    assert fitted is not None
    answers, context, _ = drawn(4, student=True)
    sigma = fitted.sigma(answers.sigma, context)
    low, high = (fitted.percentile(answers.mean, sigma, p) for p in (0.025, 0.975))
    inside = (answers.truth > low) & (answers.truth < high)
    assert inside.mean() == pytest.approx(0.95, abs=0.01)
    # Twice sigma, as of a Gaussian, would hold too few.
    assert (np.abs(answers.truth - answers.mean) < 1.96 * sigma).mean() < 0.94


def test_calibrated_sigma_increases_with_the_network_s_sigma(found: LabelCalibration) -> None:
    stated = np.geomspace(1.0, 5_000.0, 500)
    assert (np.diff(found.sigma(stated, {})) > 0).all()


def test_errors_of_the_true_labels_are_not_counted_as_the_model_s() -> None:
    answers, context, sigma = drawn(5)
    measured = LabelPredictions(
        answers.mean, answers.sigma, answers.input_sigma,
        answers.truth + np.random.default_rng(6).normal(size=N) * answers.sigma, answers.sigma,
        IDS,
    )  # fmt: skip
    fitted = fit_label_calibration(measured, context)
    exact = replace(measured, truth_error=np.zeros(N))
    naive = fit_label_calibration(exact, context)
    assert fitted is not None
    assert naive is not None
    ratio = np.median(fitted.sigma(answers.sigma, context) / sigma)
    assert abs(ratio - 1.0) < 0.1
    assert np.median(naive.sigma(answers.sigma, context) / sigma) > 1.25


def test_wide_tails_widen_sigma_but_not_beyond_70_per_cent_of_stars() -> None:
    answers, context, _ = drawn(11, student=True)
    fitted = fit_label_calibration(answers, context)
    assert fitted is not None
    others, other_context, _ = drawn(12, student=True)
    z = (others.truth - others.mean) / fitted.sigma(others.sigma, other_context)
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.70, abs=0.01)
    # Student's t of four degrees is scaled here to 68.27 % within 1, where its deviation is 1.24.
    assert 1.0 < np.clip(z, -6, 6).std() < 1.19
    # Percentiles are those of the residuals all the same.
    median = others.mean
    low, high = (fitted.percentile(median, fitted.sigma(others.sigma, other_context), p)
                 for p in (LOW, HIGH))  # fmt: skip
    assert np.mean((others.truth > low) & (others.truth < high)) == pytest.approx(0.6827, abs=0.01)


def test_input_uncertainty_is_part_of_the_total_and_not_added_to_it() -> None:
    # The stated sigma has the inputs' share in it, as a network has that was trained on noisy
    # stars: the whole is neither larger for it, nor smaller than it.
    answers, context, sigma = drawn(7)
    share = LabelPredictions(
        answers.mean, answers.sigma, 0.6 * sigma, answers.truth, answers.truth_error, IDS
    )
    fitted = fit_label_calibration(share, context)
    assert fitted is not None
    whole = np.maximum(fitted.sigma(answers.sigma, context), share.input_sigma)
    inside = np.abs(answers.truth - answers.mean) < whole
    assert inside.mean() == pytest.approx(0.6827, abs=0.01)
    added = np.hypot(whole, share.input_sigma)
    assert (np.abs(answers.truth - answers.mean) < added).mean() > 0.73


def test_mass_percentiles_are_positive_and_have_their_coverage() -> None:
    random = np.random.default_rng(8)
    truth = np.exp(random.normal(0.0, 0.5, N))
    mean = truth * np.exp(random.normal(0.0, 0.35, N))
    answers = LabelPredictions(mean, 0.3 * mean, np.zeros(N), truth, np.zeros(N), IDS)
    fitted = fit_label_calibration(answers, {}, logarithmic=True)
    assert fitted is not None
    assert fitted.logarithmic
    sigma = fitted.sigma(answers.sigma, {})
    assert (fitted.percentile(mean, 30 * sigma, 0.005) > 0).all()
    below, above = (fitted.percentile(mean, sigma, p) for p in (LOW, HIGH))
    assert np.mean(truth < below) == pytest.approx(LOW, abs=0.01)
    assert np.mean(truth > above) == pytest.approx(LOW, abs=0.01)


def test_too_few_stars_give_no_calibration() -> None:
    answers, context, _ = drawn(9)
    few = answers.rows(np.arange(N) < 499)
    assert fit_label_calibration(few, {name: x[:499] for name, x in context.items()}) is None


def test_one_percent_of_stars_exceed_the_latent_limit_with_any_missing_tokens() -> None:
    random = np.random.default_rng(10)
    present = random.random((N, 6)) < 0.7
    moved = present @ random.normal(0.0, 3.0, (6, 4))
    mixed = random.normal(size=(4, 4))
    summaries = moved + random.normal(size=(N, 4)) @ mixed
    latent = fit_latent(summaries.astype(np.float32), present)
    far = latent.distance(summaries, present)
    assert (far > latent.limit).mean() == pytest.approx(0.01, abs=0.002)
    # Chi of four degrees of freedom: its mean, and the distance that 1 % exceed.
    assert latent.limit == pytest.approx(np.sqrt(13.277), rel=0.05)
    few = present.sum(axis=1) <= 2
    assert (far[few] > latent.limit).mean() < 0.03
    odd = latent.distance(summaries + 6.0 * mixed[0], present)
    assert (odd > latent.limit).mean() > 0.95


def test_stars_with_one_band_have_a_limit_of_their_own() -> None:
    random = np.random.default_rng(11)
    one_band = random.random(N) < 0.2
    present = np.column_stack([np.ones(N, dtype=bool), ~one_band, random.random(N) < 0.5])
    summaries = random.standard_t(3, size=(N, 4)) * np.where(one_band, 0.7, 0.5)[:, None]
    latent = fit_latent(summaries.astype(np.float32), present, one_band)
    beyond = latent.distance(summaries, present) > latent.limits(one_band)
    for kind in (one_band, ~one_band):
        assert beyond[kind].mean() == pytest.approx(0.01, abs=0.001)
    few = fit_latent(summaries.astype(np.float32), present, one_band & (np.cumsum(one_band) < 100))
    assert np.isnan(few.one_band_limit)
    assert (few.limits(one_band) == few.limit).all()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = tiny_bundle(tmp_path_factory.mktemp("plain"))
    (bundle.path / "CARD.md").write_text(f"| hash | {bundle.hash} |\n")
    (bundle.path / "learning_curve.csv").write_text("step,loss\n")
    return bundle


@pytest.fixture(scope="module")
def calibrated(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("made") / "calibrated"
    command = ["calibrate", "--model", str(plain.path), "--output", str(folder)]
    result = CliRunner().invoke(app, [*command, "--stars", "2000", "--seed", "3"])
    assert result.exit_code == 0, result.output
    return load_bundle(folder)


def test_a_bundle_is_calibrated_without_training_it_again(
    plain: Bundle, calibrated: Bundle
) -> None:
    made, folder = calibrated, calibrated.path
    assert set(made.calibration.by_label) >= {"teff", "logg", "m_h", "log_age"}
    # What is 0 or 1 has no Gaussian sigma to calibrate.
    assert "rc_prob" in made.requestable
    assert "rc_prob" not in made.calibration.by_label
    assert made.calibration.latent is not None
    assert made.calibration.chi2 > 0
    covariance = made.calibration.residual_covariance
    assert covariance is not None
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert made.hash != plain.hash
    weights = "weights.safetensors"
    assert (folder / weights).read_bytes() == (plain.path / weights).read_bytes()
    assert made.hash in (folder / "CARD.md").read_text()
    assert plain.hash not in (folder / "CARD.md").read_text()
    assert (folder / "learning_curve.csv").is_file()
    assert made.training["calibration_seed"] == 3
    assert made.precision_check is not None  # of the new calibration
    assert 0 < made.precision_check.stars <= 2000
    with pytest.raises(BundleError, match="holds a bundle already"):
        recalibrate(plain, folder, 2000, 3)


def test_a_prior_is_that_of_the_new_calibration(
    plain: Bundle, calibrated: Bundle, tmp_path: Path
) -> None:
    """Not with the places of the calibration before: there may be more or fewer of them."""
    priors = [
        recalibrate(bundle, tmp_path / name, 1000, 5).prior()
        for bundle, name in ((calibrated, "again"), (plain, "once"))
    ]
    pd.testing.assert_frame_equal(*(prior.to_pandas() for prior in priors))


def test_what_cannot_be_calibrated_is_refused(plain: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="too few stars"):
        recalibrate(plain, tmp_path / "few", 100, 1)
    of_real = Bundle(**vars(plain) | {"training": {"data": "APOGEE", "dataset_sha256": "0"}})
    with pytest.raises(BundleError, match="trained on real stars"):
        recalibrate(of_real, tmp_path / "real", 2000, 1)
    assert not list(tmp_path.iterdir())
