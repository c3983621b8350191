"""Real stars among the simulated ones of a training: who they are, and what is kept from whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import real_stars
from support.paths import EXAMPLES

from catalogproc.datasets import kepler
from catalogproc.datasets.star_table import Table, mixture
from catalogproc.errors import JobError
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.job import TrainingJob, load_training_job
from catalogproc.training.real_data import RealRows, real_rows, split_spectra
from catalogproc.training.token_sampling import sample
from catalogproc.training.training_data import simulated
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
FILES = sorted(EXAMPLES.glob("*.parquet"))
LABELS = VOCABULARY.columns(VOCABULARY.named("label"))


def test_spectra_are_the_real_ones_on_one_side_each_and_without_labels() -> None:
    seen, held = split_spectra(FILES, VOCABULARY, RealRows())
    real = real_stars.faint()
    ids = real["source_id"].to_numpy()
    assert sorted([*seen.ids, *held.ids]) == sorted(ids)
    assert 0.2 < len(held.ids) / len(ids) < 0.3
    assert np.isnan(seen.values[:, LABELS]).all()
    # bp0 over the G flux, the long way round, for one star.
    row = int(np.flatnonzero(ids == seen.ids[0])[0])
    bp, rp = (np.array([real[f"{band}_coefficients"][row].as_py()]) for band in ("bp", "rp"))
    g = synthetic_photometry(bp, rp).g[0]
    flux = 10 ** ((25.6873668671 - g) / 2.5)
    assert seen.values[0, VOCABULARY.column("bp0")] == pytest.approx(bp[0, 0] / flux, rel=1e-6)


def test_no_giant_held_out_is_trained_on() -> None:
    drawn = real_rows(RealRows(kepler=1e-9), [], VOCABULARY).parts[0][0](3, 5000)
    mass = VOCABULARY.column("mass")
    held = kepler.parts(VOCABULARY)[1]
    truths = held.truth[:, mass]
    kept = set(kepler.parts(VOCABULARY)[0].truth[:, mass])
    assert set(drawn[0][:, mass]) <= kept
    assert not set(drawn[0][:, mass]) & (set(truths) - kept)
    assert np.isfinite(drawn[1][:, mass]).all()
    assert (drawn[1][:, mass] > 0).all()


def test_a_mass_that_is_hidden_is_asked_and_the_other_labels_are_shown() -> None:
    part = real_rows(RealRows(kepler=0.5, mass_hidden=1.0), [], VOCABULARY).parts[0][0]
    values, errors, hidden = (torch.as_tensor(x) for x in part(1, 400))
    labels = torch.tensor([token.kind == "label" for token in VOCABULARY.tokens])
    drawn = sample(
        values.float(), errors.float(), torch.ones(len(VOCABULARY)), tokens=(64, 64), targets=1,
        repeat=0.0, labels=labels, unlabelled=1.0, hidden=hidden,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    mass, teff = (VOCABULARY.column(name) + 1 for name in ("mass", "teff"))
    assert not (drawn.ids == mass).any()
    assert drawn.asked.all()
    assert (drawn.requests == mass).all()
    # Without the hidden mass, `unlabelled` would have taken Teff away.
    assert (drawn.ids == teff).any(1).all()


def test_the_share_of_masses_hidden_is_as_asked_and_follows_the_seed() -> None:
    table = Table(np.arange(9), np.ones((9, 4)), np.zeros((9, 4)))
    draw = table.draw_without(2, 0.7)
    hidden = draw(5, 20_000)[2]
    assert hidden[:, 2].mean() == pytest.approx(0.7, abs=0.015)
    assert not hidden[:, [0, 1, 3]].any()
    np.testing.assert_array_equal(draw(5, 20_000)[2], hidden)
    assert (draw(6, 20_000)[2] != hidden).any()


def test_in_a_mixture_nothing_of_the_others_is_hidden() -> None:
    plain = Table(np.arange(3), np.full((3, 4), 1.0), np.zeros((3, 4))).draw
    other = Table(np.arange(3), np.full((3, 4), 2.0), np.zeros((3, 4))).draw_without(0, 1.0)
    values, _, hidden = mixture([(plain, 0.9), (other, 0.1)])(1, 100)
    assert hidden.sum() == 10
    assert (values[hidden] == 2.0).all()


def test_a_lesson_has_each_kind_in_its_share(tmp_path: Path) -> None:
    job = TrainingJob(
        "mixed", "mixed",
        simulation={"statistics_stars": 500, "test_stars": 50, "stars": 500},
        real={"spectra": 0.1, "kepler": 0.2},
    )  # fmt: skip
    lesson = simulated(job, None, "cpu", FILES)
    values, _, hidden = lesson.draw(1, 1000)
    real = np.isin(np.asarray(values), split_spectra(FILES, VOCABULARY, RealRows())[0].values)
    assert real[:, 0].sum() == 100
    giants = np.isnan(np.asarray(values)[:, VOCABULARY.column("bp0")])
    assert giants.sum() >= 200
    assert hidden[giants].sum() == pytest.approx(140, abs=40)
    assert lesson.trained_on is not None
    assert len(lesson.trained_on) > 1000
    assert "1,1" in lesson.facts["real_spectra"]
    assert "Kepler red giants" in lesson.facts["real_labels"]


def test_a_job_and_its_spectra_belong_together() -> None:
    with pytest.raises(JobError, match=r"needs them(.|\n)*--spectra FILE(.|\n)*none"):
        real_rows(RealRows(spectra=0.1), [], VOCABULARY)
    with pytest.raises(JobError, match=r"takes no real spectra(.|\n)*xp_continuous_000"):
        real_rows(RealRows(), FILES, VOCABULARY)
    with pytest.raises(JobError, match=r"no room for simulated stars(.|\n)*1\.2"):
        RealRows(spectra=0.6, kepler=0.6)
    with pytest.raises(JobError, match=r"a share(.|\n)*-0\.1(.|\n)*\[real\], kepler"):
        RealRows(kepler=-0.1)


def test_the_shipped_recipe_mixes_both_in() -> None:
    options = RealRows.from_dict(load_training_job("train-giants").real)
    assert options.spectra > 0
    assert options.kepler > 0
