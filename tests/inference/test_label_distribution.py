"""Uncertainties of models that read errors, and of distributions that are no Gaussian."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from support import real_stars

from catalogproc.datasets.holdout import Holdout
from catalogproc.errors import JobError
from catalogproc.features.table_inputs import TableInputs
from catalogproc.inference.engine import Engine
from catalogproc.inference.label_distribution import PropagatedPrediction, label_distribution
from catalogproc.inference.table_prediction import predict_table
from catalogproc.job import Job
from catalogproc.network.bundle import Domain, ErrorScaling, Standardisation
from catalogproc.network.bundle_writer import BundleContent, rewrite_bundle, write_bundle
from catalogproc.network.mixture import Mixture
from catalogproc.network.predictor import Prediction, Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.training.fit_calibration import fit_label_calibrations
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
V = len(VOCABULARY)
MIXED = tuple(int(n) + 1 for n in VOCABULARY.columns(["mass", "log_age"]))
SHAPE = Shape(V, 16, ((4, 24),), ((4, 32),), (24,), reads_errors=True, components=2, mixture=MIXED)
JOB = Job("test", labels=("teff", "logg", "mass", "log_age"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A network whose sigma of every label depends on the errors, with masses about 1.5."""
    rng = np.random.default_rng(5)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        network = Transformer(SHAPE)
        torch.nn.init.normal_(network.error_weight, std=0.3)
        torch.nn.init.normal_(network.error_bias, std=0.3)
    center, scale = np.zeros(V), np.ones(V)
    center[VOCABULARY.column("mass")], scale[VOCABULARY.column("mass")] = 5.0, 0.5
    content = BundleContent(
        name="reads errors", description="random weights", network=network, vocabulary=VOCABULARY,
        standardisation=Standardisation(center, scale),
        domain=Domain(np.full(V, np.nan), np.full(V, np.nan)), training={},
        check_tokens=StarTokens.exact(rng.normal(size=(2, V))), check_labels=JOB.labels,
        error_scaling=ErrorScaling(*np.tile([[-5.0], [2.0], [-9.0], [0.0]], (1, V))),
    )  # fmt: skip
    return write_bundle(tmp_path_factory.mktemp("bundle"), content)


def catalog(bundle, **changes):
    engine = Engine(bundle, replace(JOB, **changes))
    table = engine.process(real_stars.bright(), real_stars.bright_auxiliary())
    tokens = engine.features(real_stars.bright(), real_stars.bright_auxiliary())
    return {name: table[name].to_numpy() for name in table.column_names}, tokens


def test_the_sigma_of_a_network_that_reads_errors_is_the_total_uncertainty(bundle):
    columns, tokens = catalog(bundle)
    prediction = Predictor(bundle).predict(tokens.network_inputs, JOB.labels)
    np.testing.assert_allclose(columns["e_teff"], prediction.sigma[:, 0], rtol=1e-5)
    for name in ("e_teff_input", "corr_teff_logg"):
        assert np.isnan(columns[name]).all()
    linear, _ = catalog(bundle, propagation="first_order")
    np.testing.assert_allclose(linear["e_teff"], columns["e_teff"], rtol=1e-4)
    assert np.isfinite(linear["e_teff_input"]).all()


def test_percentiles_of_mass_and_age_are_those_of_the_mixture(bundle):
    """By drawing from the Gaussians."""
    columns, tokens = catalog(bundle)
    mixtures = Predictor(bundle).predict(tokens.network_inputs, JOB.labels).mixtures
    rng = np.random.default_rng(1)
    for star in range(0, 30, 6):
        for label, names in (("mass", ("mass_16", "mass_84")), ("log_age", ("age_16", "age_84"))):
            mixed = mixtures[label]
            which = rng.choice(2, 200_000, p=mixed.weights[star] / mixed.weights[star].sum())
            drawn = rng.normal(mixed.means[star][which], mixed.sigmas[star][which])
            low, high = (np.quantile(drawn, q) for q in (0.158655, 0.841345))
            found = [columns[name][star] for name in names]
            wanted = [low, high] if label == "mass" else [10 ** (x - 9) for x in (low, high)]
            np.testing.assert_allclose(np.log(found), np.log(wanted), atol=0.05)
    half = (columns["mass_84"] - columns["mass_16"]) / 2
    np.testing.assert_allclose(columns["e_mass"], half, rtol=1e-4)


def test_a_table_s_errors_reach_the_network(bundle):
    table = {"teff": [0.3], "m_h": [-0.2]}
    predictor, sigma = Predictor(bundle), []
    for errors in ({}, {"e_teff": [0.001]}, {"e_teff": [1.0]}):
        inputs = TableInputs.of(pa.table(table | errors), VOCABULARY, JOB)
        sigma.append(predict_table(predictor, inputs, ("logg", "mass")).sigma["logg"][0])
    assert len({round(float(x), 6) for x in sigma}) == 3


def test_the_job_decides_and_an_older_model_is_refused_by_name(bundle, tmp_path):
    assert Job("x").propagation_of(True) == "network"
    assert Job("x").propagation_of(False) == "first_order"
    assert Job("x", propagation="sampled").propagation_of(True) == "sampled"
    older = replace(bundle, shape=replace(SHAPE, reads_errors=False), error_scaling=None)
    with pytest.raises(JobError, match=r"does not read errors(.|\n)*model reads errors"):
        Engine(older, replace(JOB, propagation="network"))


def test_a_wrong_mixture_is_calibrated_to_the_right_percentiles():
    """The stated Gaussians are half as wide as the truth: the calibrated percentiles are not."""
    rng, n = np.random.default_rng(4), 20_000
    weights = np.tile([0.3, 0.7], (n, 1))
    means = rng.normal(size=(n, 1)) + np.array([-2.0, 1.0])
    sigmas = np.full((n, 2), 0.4)
    which = rng.random(n) < 0.3
    truth = np.where(which, means[:, 0], means[:, 1]) + 0.4 * rng.normal(size=n)
    stated = Mixture(weights, means, sigmas / 2)
    mean = (weights * means).sum(axis=1)
    sigma = np.sqrt((weights * (stated.sigmas**2 + means**2)).sum(axis=1) - mean**2)
    prediction = Prediction(("mass",), mean[:, None], sigma[:, None], mixtures={"mass": stated})

    class Fixed:
        bundle = type("bundle", (), {
            "requestable": ("mass",), "reads_errors": True, "vocabulary": VOCABULARY,
        })  # fmt: skip

        def predict(self, tokens, labels):
            return prediction

    truths = np.full((n, V), np.nan)
    truths[:, VOCABULARY.column("mass")] = truth
    holdout = Holdout(np.zeros((n, V)), np.zeros((n, V)), truths, np.zeros((n, V)),
                      rng.uniform(10, 15, n), np.ones(n, dtype=bool), np.arange(n))  # fmt: skip
    fitted = fit_label_calibrations(Fixed(), holdout)
    found = PropagatedPrediction(prediction, None, None, np.zeros(n, dtype=bool))
    context = {"phot_g_mean_mag": holdout.g_mag}
    plain, calibrated = (
        label_distribution(found, "mass", by_label, context) for by_label in ({}, fitted)
    )
    for level in (0.05, 0.158655, 0.5, 0.841345, 0.95):
        assert np.mean(truth < calibrated.percentile(level)) == pytest.approx(level, abs=0.02)
    inside = [np.mean((truth > d.percentile(0.025)) & (truth < d.percentile(0.975)))
              for d in (plain, calibrated)]  # fmt: skip
    assert inside[0] < 0.8
    assert inside[1] == pytest.approx(0.95, abs=0.015)


def test_a_rewritten_bundle_keeps_errors_and_mixtures(bundle, tmp_path):
    copy = rewrite_bundle(bundle, tmp_path / "copy", dtype="float16")
    assert copy.shape == SHAPE
    assert copy.reads_errors
    Predictor(copy).self_check()
