"""Columns of the catalog from predictions: uncertainties, and predictions that are unphysical."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import real_stars
from support.bundles import LABELS, tiny_bundle

from catalogproc.contract import load_contract
from catalogproc.features.input_errors import input_noise
from catalogproc.flags import load_flags
from catalogproc.inference.catalog_columns import (
    LABEL_COLUMNS,
    label_columns,
    label_distributions,
    predicted_labels,
)
from catalogproc.inference.engine import Engine
from catalogproc.inference.label_distribution import PropagatedPrediction
from catalogproc.job import Job
from catalogproc.network.error_propagation import Propagated, first_order
from catalogproc.network.predictor import Prediction, Predictor

JOB = Job("test", labels=LABELS)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(tiny_bundle(tmp_path_factory.mktemp("bundle")), JOB)


@pytest.fixture(scope="module")
def tokens(engine):
    """Of 30 stars of G 6 to 8, whose errors are inflated by factors of 4 to 6."""
    return engine.features(real_stars.bright(), real_stars.bright_auxiliary())


def test_total_uncertainty_is_at_least_that_of_the_published_errors():
    prediction = Prediction(("mass",), np.full((3, 1), 1.2), np.full((3, 1), 0.2))
    published = np.array([0.1, 0.2, 0.5])
    inflated = 3 * published
    used, known = (
        Propagated(("mass",), sigma[:, None, None] ** 2) for sigma in (inflated, published)
    )
    nonlinear = np.zeros(len(prediction.mean), dtype=bool)
    output = PropagatedPrediction(prediction, used, known, nonlinear)
    columns = label_columns(prediction)
    columns = predicted_labels(output, label_distributions(output, {}, columns))
    np.testing.assert_allclose(columns["e_mass"], [0.2, 0.2, 0.5])
    np.testing.assert_allclose(columns["e_mass_input"], [0.2, 0.2, 0.5])


def test_published_errors_are_propagated_besides_the_inflated_ones(engine, tokens):
    """The published part is what a job without inflation has; the job's own part is larger."""
    output = engine.predict(tokens)
    plain = replace(JOB, inflate_errors=False)
    predictor, vocabulary = Predictor(engine.bundle), engine.bundle.vocabulary
    for found, job in ((output.propagated, JOB), (output.published, plain)):
        noise = input_noise(tokens, vocabulary, job)
        _, wanted = first_order(predictor, tokens.network_inputs, noise, JOB.labels)
        np.testing.assert_allclose(found.sigma, wanted.sigma, rtol=1e-4)
    assert (output.propagated.sigma > 2 * output.published.sigma).any()
    assert (output.propagated.sigma >= output.published.sigma).all()


def test_the_catalog_s_total_uncertainty_has_the_published_errors_in_it(engine, tokens):
    """A bundle whose own sigma is far too small: the published errors are the total."""
    output = engine.predict(tokens)
    small = replace(output.prediction, sigma=1e-6 * output.prediction.sigma)
    rows = engine.to_catalog(tokens.source_id, tokens, replace(output, prediction=small))
    for place, label in enumerate(output.prediction.labels):
        total = rows.column(f"e_{LABEL_COLUMNS[label]}").to_numpy()
        np.testing.assert_allclose(total, output.published.sigma[:, place], rtol=1e-5)


def test_a_mass_that_is_not_positive_is_nan_and_flagged(engine, tokens):
    output = engine.predict(tokens)
    mean = output.prediction.mean.copy()
    place = output.prediction.labels.index("mass")
    mean[:, place] = 1.2
    mean[3, place], mean[4, place] = 0.0, -0.4
    changed = replace(output, prediction=replace(output.prediction, mean=mean))
    rows = engine.to_catalog(tokens.source_id, tokens, changed)
    unphysical = np.isin(np.arange(30), (3, 4))
    for name in ("mass", "mass_16", "mass_84"):
        assert (np.isnan(rows.column(name).to_numpy()) == unphysical).all(), name
    failed = rows.column("quality_flags").to_numpy() & load_flags()["INFER_FAIL"].value > 0
    assert (failed == unphysical).all()
    assert not rows.column("good_mass_age").to_numpy(zero_copy_only=False)[unphysical].any()
    for name in ("teff", "logg", "log_age"):
        assert np.isfinite(rows.column(name).to_numpy()).all(), name


def test_a_probability_is_one_column_between_0_and_1(tmp_path):
    job = Job("test", labels=(*LABELS, "rc_prob"))
    engine = Engine(tiny_bundle(tmp_path), job)
    tokens = engine.features(real_stars.bright(), real_stars.bright_auxiliary())
    output = engine.predict(tokens)
    mean = output.prediction.mean.copy()
    place = output.prediction.labels.index("rc_prob")
    mean[:5, place] = [-0.02, 0.0, 0.37, 1.0, 1.04]
    changed = replace(output, prediction=replace(output.prediction, mean=mean))
    rows = engine.to_catalog(tokens.source_id, tokens, changed)
    load_contract("catalog").check(rows)
    np.testing.assert_allclose(rows["rc_prob"].to_numpy()[:5], [0, 0, 0.37, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(
        rows["rc_prob"].to_numpy()[5:], np.clip(mean[5:, place], 0, 1), rtol=1e-6
    )
    assert [name for name in rows.column_names if "rc_prob" in name] == ["rc_prob"]
    # It changes no flag, and a job that does not ask for it has none.
    other = engine.to_catalog(tokens.source_id, tokens, output)
    assert rows["quality_flags"].equals(other["quality_flags"])
    plain = Engine(engine.bundle, JOB).process(real_stars.bright())
    assert np.isnan(plain["rc_prob"].to_numpy()).all()
    assert "rc_prob" not in JOB.labels
