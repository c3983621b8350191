"""Scores of the probability of the red clump on held-out seismic stars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.apogee_library import ROWS

from catalogproc.datasets.apogee_xp import Options, dataset_from_apogee_xp
from catalogproc.datasets.dataset import load_dataset
from catalogproc.evaluation.red_clump import clump_scores, seismic_stage
from catalogproc.io.hashes import file_blocks, sha256


def test_scores_of_gaussian_evidence_are_those_of_theory() -> None:
    # x is normal about 0 or d: the area is Phi(d / sqrt(2)), and p = 1 / (1 + exp(...)) is right.
    from scipy.special import ndtr

    random = np.random.default_rng(4)
    d, share = 2.0, 0.3
    truth = (random.random(40_000) < share).astype(float)
    x = random.normal(truth * d)
    probability = 1 / (1 + (1 - share) / share * np.exp(-d * x + d * d / 2))
    made = clump_scores(truth[:4000], probability[:4000], 1)
    assert (
        made.auc[0] < ndtr(d / np.sqrt(2)) < made.auc[1]
        or abs(made.found.auc - ndtr(d / np.sqrt(2))) < 0.01
    )
    whole = clump_scores(truth, probability).found
    assert whole.auc == pytest.approx(ndtr(d / np.sqrt(2)), abs=0.005)
    # A right probability has the Brier score E[p (1 - p)].
    assert whole.brier == pytest.approx(np.mean(probability * (1 - probability)), abs=0.003)
    for stars, mean, found in whole.reliability:
        assert found == pytest.approx(mean, abs=4 * np.sqrt(0.25 / stars))
    assert 0 < made.skill[1] - made.skill[0] < 0.05
    # Unknown stars do not count, and values beyond the limits count as these.
    some = np.where(np.arange(4000) < 100, np.nan, truth[:4000])
    assert clump_scores(some, probability[:4000]).found.stars == 3900
    beyond = np.where(truth > 0.5, 1.2, -0.2)
    assert clump_scores(truth[:500], beyond[:500]).found.brier == 0.0
    assert "skill 1.00 (1.00 to 1.00)" in "\n".join(clump_scores(truth, beyond).lines())


def test_truth_is_what_seismic_papers_say_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    options = Options(ROWS, True, sha256(file_blocks(ROWS)))
    dataset_from_apogee_xp(tmp_path / "stars", options)
    stage, (_, test) = seismic_stage(tmp_path / "stars"), load_dataset(tmp_path / "stars")
    assert len(stage) == len(test.ids)
    table = pq.read_table(tmp_path / "stars" / "test.parquet")
    said = dict(zip(table["source_id"].to_pylist(), table["rc_source"].to_pylist(), strict=True))
    value = dict(zip(table["source_id"].to_pylist(), table["rc_prob"].to_pylist(), strict=True))
    known = np.isfinite(stage)
    assert known.sum() >= 10
    assert set(stage[known]) == {0.0, 1.0}
    for star, found in zip(test.ids.tolist(), stage, strict=True):
        if said[star] in (None, "teacher"):
            assert np.isnan(found)
        else:
            assert found == value[star]
