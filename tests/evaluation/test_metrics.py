"""Scores, quantities and input sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundles import tiny_bundle

from catalogproc.evaluation.metrics import (
    INPUT_SETS,
    Predictions,
    evaluate_input_sets,
    markdown,
    predict,
    select_inputs,
)
from catalogproc.evaluation.quantities import QUANTITIES, labels_of
from catalogproc.evaluation.scores import score
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import load_vocabulary

typical = StarTokens.typical

VOCABULARY = load_vocabulary()


def test_a_score_of_gaussian_errors_is_their_sigma() -> None:
    random = np.random.default_rng(1)
    true = random.normal(4800, 300, 200_000)
    error = random.normal(10, 50, true.size)
    found = score("teff", true + error, true, np.full(true.size, 50.0))
    assert found.stars == true.size
    assert found.scatter == pytest.approx(50, rel=0.01)
    assert found.bias == pytest.approx(10, abs=0.5)
    assert found.rms == pytest.approx(np.hypot(10, 50), rel=0.01)
    assert (found.p16, found.p84) == pytest.approx((10 - 49.7, 10 + 49.7), abs=0.8)
    assert found.z_std == pytest.approx(1, rel=0.01)
    # 68.3 and 95.4 % of a Gaussian that is 0.2 sigma off.
    assert found.within_1_sigma == pytest.approx(0.673, abs=0.005)
    assert found.within_2_sigma == pytest.approx(0.950, abs=0.005)


def test_one_outlier_does_not_change_the_scatter() -> None:
    true = np.zeros(1001)
    answer = np.linspace(-1, 1, 1001)
    before = score("logg", answer, true)
    answer[0] = -1e9
    after = score("logg", answer, true)
    assert after.scatter == pytest.approx(before.scatter, rel=0.01)
    assert after.rms > 1e7
    assert np.isnan(after.z_std)


def test_stars_without_truth_or_prediction_are_left_out() -> None:
    true = np.array([1.0, np.nan, 1.0, 1.0])
    answer = np.array([1.1, 1.0, np.nan, 0.9])
    assert score("mass", answer, true).stars == 2
    nothing = score("mass", np.full(4, np.nan), true)
    assert nothing.stars == 0
    assert np.isnan(nothing.scatter)


def test_quantities_are_computed_from_tokens() -> None:
    def residual(name: str, predicted: float, true: float) -> float:
        return float(QUANTITIES[name].residual(np.array([predicted]), np.array([true]))[0])

    assert residual("age", 10.0, 9.0) == pytest.approx(9.0)  # 10 Gyr for 1 Gyr
    assert residual("ebv", np.log(0.5), np.log(0.2)) == pytest.approx(0.3)
    # Twice the pseudo-luminosity is half the distance, whatever the magnitude.
    assert residual("dist", 200.0, 100.0) == pytest.approx(-50.0)
    assert np.isnan(residual("dist", -3.0, 100.0))
    assert residual("teff", 5000, 4900) == 100
    assert labels_of(("age", "log_age", "dist")) == ("log_age", "g_fakemag")


@pytest.mark.parametrize(
    ("name", "tokens"), [("b", 63), ("c", 13), ("d", 64), ("e", 60), ("f", 65)]
)
def test_input_sets_are_those_of_the_paper(name: str, tokens: int) -> None:
    stars = np.random.default_rng(1).normal(size=(50, len(VOCABULARY)))
    given = INPUT_SETS[name].select(stars, VOCABULARY)
    present = np.isfinite(given)
    assert (present.sum(axis=1) == tokens).all()
    np.testing.assert_array_equal(given[present], stars[present])
    labels = VOCABULARY.columns(VOCABULARY.named("label"))
    assert present[:, labels].any() == (name == "f")


def test_random_tokens_differ_by_star_and_are_reproducible() -> None:
    stars = np.ones((300, len(VOCABULARY)))
    one, same = (np.isfinite(INPUT_SETS["d"].select(stars, VOCABULARY)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(one, axis=0)) == 300
    at = [i for i, token in enumerate(VOCABULARY.tokens) if token.kind != "label"]
    assert len(at) == 113
    often = one[:, at].mean(axis=0)
    assert often.mean() == pytest.approx(64 / 113)
    assert often.min() > 0.4


def test_labels_among_the_inputs_come_from_the_truth() -> None:
    absent = np.full((4, len(VOCABULARY)), np.nan)
    inputs = typical(absent)
    truth = StarTokens(np.full_like(absent, 3.0), np.full_like(absent, 0.5))
    at = VOCABULARY.column("teff")
    given = select_inputs("f", inputs, truth, VOCABULARY)
    assert (given.values[:, at] == 3.0).all()
    assert (given.errors[:, at] == 0.5).all()
    assert not select_inputs("b", inputs, truth, VOCABULARY).present.any()


def test_predictions_are_scored_by_name() -> None:
    truth = np.full((3, len(VOCABULARY)), np.nan)
    truth[:, VOCABULARY.column("log_age")] = 9.0
    predictions = Predictions(("log_age",), np.full((3, 1), 9.3), np.full((3, 1), 0.1))
    given = StarTokens.exact(truth)
    age, log_age, mass = predictions.scores(given, VOCABULARY, ("age", "log_age", "mass"))
    assert age.bias == pytest.approx(10**0.3 - 1)
    assert log_age.bias == pytest.approx(0.3)
    assert log_age.within_1_sigma == age.within_1_sigma == 0.0
    assert mass.stars == 0
    assert predictions.rows(slice(2)).mean.shape == (2, 1)


def test_scores_of_a_model_are_those_of_its_predictions(tmp_path: Path) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "bundle"))
    random = np.random.default_rng(2)
    scale = predictor.bundle.standardisation
    stars = scale.center + scale.scale * random.normal(size=(40, len(VOCABULARY)))
    inputs = stars.copy()
    inputs[:, VOCABULARY.columns(VOCABULARY.named("label"))] = np.nan
    scores = evaluate_input_sets(predictor, typical(inputs), typical(stars), ("teff", "age"), "bf")
    given = INPUT_SETS["b"].select(inputs, VOCABULARY)
    direct = (
        predictor.predict(typical(given), ["teff"]).mean[:, 0] - stars[:, VOCABULARY.column("teff")]
    )
    assert scores["b"][0].bias == pytest.approx(np.median(direct), rel=1e-5)
    assert [row.label for row in scores["f"]] == ["teff", "age"]
    assert predict(predictor, typical(given), ("age", "dist")).labels == (
        "log_age",
        "g_fakemag",
    )
    table = markdown(scores).splitlines()
    # A heading, an empty line, the header's two, and a row for each input set, of two quantities.
    assert len(table) == 2 * (4 + 2) + 1
    assert [line for line in table if line.startswith("### ")] == [table[0], table[7]]
    assert table[4].startswith("| 63 tokens")
