"""The XGBoost baseline."""

from __future__ import annotations

import numpy as np
import pytest

from catalogproc.errors import JobError
from catalogproc.evaluation.xgboost_baseline import TreeData, TreeSettings, fit_baseline

FEW = TreeSettings(trees=150, rate=0.1, depth=4, columns=1.0, threads=1)


def stars(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (n, 5), of which column 4 is noise; labels in units of very different size."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 5))
    labels = np.stack([4800 + 300 * values[:, 0], 1 + 0.1 * values[:, 1] * values[:, 2]], axis=1)
    return values, labels


def test_labels_of_any_unit_are_fitted() -> None:
    (values, labels), (others, truth) = stars(4000, 1), stars(1000, 2)
    fitted = fit_baseline(TreeData(values, labels, ("teff", "mass"), np.arange(5)), FEW)
    answer = fitted.predict(others)
    assert answer.shape == (1000, 2)
    assert answer.dtype == np.float32
    # Both to a fifth of their spread, though one is three thousand times the other.
    assert (np.std(answer - truth, axis=0) < 0.2 * truth.std(axis=0)).all()
    assert np.std(answer[:, 0] - truth[:, 0]) < 30


def test_absent_tokens_are_missing_values() -> None:
    (values, labels), (others, truth) = stars(6000, 1), stars(2000, 2)
    random = np.random.default_rng(3)
    for matrix in (values, others):
        matrix[:, 3] = matrix[:, 0]  # the same information twice
        matrix[random.random(len(matrix)) < 0.5, 0] = np.nan
    fitted = fit_baseline(TreeData(values, labels[:, :1], ("teff",), np.arange(5)), FEW)
    lacking = np.isnan(others[:, 0])
    error = fitted.predict(others)[:, 0] - truth[:, 0]
    assert np.std(error[lacking]) < 40


def test_only_the_given_columns_are_read() -> None:
    values, labels = stars(2000, 1)
    fitted = fit_baseline(TreeData(values, labels[:, :1], ("teff",), np.array([0, 4])), FEW)
    changed = values.copy()
    changed[:, 1:4] = 1e6
    np.testing.assert_array_equal(fitted.predict(values), fitted.predict(changed))


def test_the_same_seed_gives_the_same_trees() -> None:
    values, labels = stars(1000, 1)
    data = TreeData(values, labels[:, :1], ("teff",), np.arange(5))
    one, same, other = (
        fit_baseline(data, TreeSettings(trees=20, rate=0.3, depth=3, threads=1, seed=seed)).predict(
            values
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_stars_without_a_label_are_left_out_for_it() -> None:
    values, labels = stars(2000, 1)
    wrong = labels.copy()
    wrong[::2] = np.nan
    half = fit_baseline(TreeData(values[1::2], labels[1::2], ("teff", "mass"), np.arange(5)), FEW)
    some = fit_baseline(TreeData(values, wrong, ("teff", "mass"), np.arange(5)), FEW)
    np.testing.assert_array_equal(half.predict(values), some.predict(values))
    wrong[:, 1] = np.nan
    with pytest.raises(JobError, match=r"no star has a label to train on\n.*mass"):
        fit_baseline(TreeData(values, wrong, ("teff", "mass"), np.arange(5)), FEW)


def test_progress_counts_every_tree() -> None:
    values, labels = stars(200, 1)
    progress_calls: list[tuple[int, int, str]] = []
    few = TreeSettings(trees=3, threads=1)
    fit_baseline(
        TreeData(values, labels, ("teff", "mass"), np.arange(5)),
        few,
        lambda *x: progress_calls.append(x),
    )
    assert [done for done, _, _ in progress_calls] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in progress_calls} == {6}
    assert "mass" in progress_calls[-1][2]
    with pytest.raises(JobError, match="needs at least one tree"):
        TreeSettings(trees=0)
