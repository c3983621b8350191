"""Scores of probabilities, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from catalogproc.datasets.probability_scores import area_under_curve, scores


def test_the_area_is_the_chance_that_a_pair_is_ranked_rightly() -> None:
    random = np.random.default_rng(1)
    truth = (random.random(300) < 0.3).astype(float)
    # Rounded, so that many are equal: such a pair counts half.
    probability = np.round(np.clip(0.3 * truth + 0.5 * random.random(300), 0, 1), 1)
    one, other = probability[truth == 1][:, None], probability[truth == 0]
    pairs = np.mean((one > other) + 0.5 * (one == other))
    assert area_under_curve(truth, probability) == pytest.approx(pairs)
    assert area_under_curve(truth, truth) == 1.0
    assert area_under_curve(truth, np.full(300, 0.4)) == 0.5
    assert np.isnan(area_under_curve(np.ones(4), np.ones(4)))


def test_the_score_is_its_decomposition_by_murphy() -> None:
    # Brier = reliability - resolution + uncertainty, exact where all of a bin are equal.
    random = np.random.default_rng(2)
    probability = random.integers(0, 10, 5000) / 10 + 0.05
    truth = (random.random(5000) < probability**1.3).astype(float)
    found = scores(truth, probability)
    count, mean, share = np.array(found.reliability).T
    assert count.sum() == found.stars == 5000
    assert found.share == truth.mean()
    reliability = np.sum(count * (mean - share) ** 2) / 5000
    resolution = np.sum(count * (share - found.share) ** 2) / 5000
    assert found.brier == pytest.approx(reliability - resolution + found.brier_chance)
    assert found.skill == pytest.approx((resolution - reliability) / found.brier_chance)
    assert scores(truth, np.full(5000, found.share)).skill == pytest.approx(0.0)
    assert scores(truth, truth).skill == 1.0
    assert np.isnan(scores(np.zeros(3), np.full(3, 0.1)).skill)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    found = scores(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert found.reliability == ((1, 0.0, 0.0), (1, 1.0, 1.0))
