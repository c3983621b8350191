"""Real stars in a training on simulated ones: which they are, and which tokens are hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import real_stars
from support.paths import EXAMPLES

from catalogproc.datasets import kepler
from catalogproc.datasets.star_table import StarTable, mixture
from catalogproc.errors import JobError
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.job import TrainingJob, load_training_job
from catalogproc.release import load_release
from catalogproc.training.config import Settings, TrainSpec
from catalogproc.training.real_data import RealOptions, load_real_stars, split_spectra
from catalogproc.training.token_sampling import TokenSampler
from catalogproc.training.training_data import load_training_data
from catalogproc.vocabulary import load_vocabulary

DR3 = load_release("dr3")

VOCABULARY = load_vocabulary()
FILES = sorted(EXAMPLES.glob("*.parquet"))
LABELS = VOCABULARY.columns(VOCABULARY.named("label"))


def test_every_real_spectrum_is_trained_on_or_held_out_and_has_no_label() -> None:
    training, held_out = split_spectra(FILES, VOCABULARY, RealOptions())
    real = real_stars.faint()
    ids = real["source_id"].to_numpy()
    assert sorted([*training.ids, *held_out.ids]) == sorted(ids)
    assert 0.2 < len(held_out.ids) / len(ids) < 0.3
    assert np.isnan(training.values[:, LABELS]).all()
    # bp0 over the G flux, computed independently for one star.
    row = int(np.flatnonzero(ids == training.ids[0])[0])
    bp, rp = (np.array([real[f"{band}_coefficients"][row].as_py()]) for band in ("bp", "rp"))
    g = synthetic_photometry(bp, rp, DR3).g[0]
    flux = 10 ** ((25.6873668671 - g) / 2.5)
    assert training.values[0, VOCABULARY.column("bp0")] == pytest.approx(bp[0, 0] / flux, rel=1e-6)


def test_held_out_giants_are_not_trained_on() -> None:
    values, errors = load_real_stars(RealOptions(kepler=1e-9), [], VOCABULARY).samplers[0][0](
        3, 5000
    )[:2]
    mass = VOCABULARY.column("mass")
    training, held_out = (set(part.truth[:, mass]) for part in kepler.parts(VOCABULARY))
    assert set(values[:, mass]) <= training
    assert not set(values[:, mass]) & (held_out - training)
    assert np.isfinite(errors[:, mass]).all()
    assert (errors[:, mass] > 0).all()


def test_a_hidden_mass_is_requested_and_other_labels_are_mostly_shown() -> None:
    part = load_real_stars(RealOptions(kepler=0.5, mass_hidden=1.0), [], VOCABULARY).samplers[0][0]
    values, errors, hidden = (torch.as_tensor(x) for x in part(1, 400))
    labels = torch.tensor([token.kind == "label" for token in VOCABULARY.tokens])
    settings = Settings(min_tokens=64, targets=12, repeat=0.0, unlabelled=1.0)
    sampler = TokenSampler(torch.ones(len(VOCABULARY)), labels, settings=settings)
    generator = torch.Generator().manual_seed(1)
    batch = sampler.sample(values.float(), errors.float(), generator, hidden)
    mass, teff = (VOCABULARY.column(name) + 1 for name in ("mass", "teff"))
    assert not (batch.shown.ids == mass).any()
    assert (batch.requests == mass).any(1).all()
    # Without a hidden token, `unlabelled` would hide Teff in all rows.
    assert (batch.shown.ids == teff).any(1).float().mean() == pytest.approx(0.75, abs=0.07)


def test_hidden_tokens_have_their_shares_and_depend_on_the_seed() -> None:
    table = StarTable(np.arange(9), np.ones((9, 4)), np.zeros((9, 4)))
    sampler = table.sampler_hiding(np.array([2, 3]), 0.7)
    hidden = sampler(5, 20_000)[2]
    assert hidden.mean(axis=0) == pytest.approx([0.25, 0.25, 0.7, 0.7], abs=0.015)
    assert (hidden[:, 2] == hidden[:, 3]).all()
    # The others are hidden one by one.
    assert (hidden[:, 0] & hidden[:, 1]).mean() == pytest.approx(0.25**2, abs=0.01)
    np.testing.assert_array_equal(sampler(5, 20_000)[2], hidden)
    assert (sampler(6, 20_000)[2] != hidden).any()


def test_in_a_mixture_only_the_tokens_of_the_hiding_part_are_hidden() -> None:
    plain = StarTable(np.arange(3), np.full((3, 4), 1.0), np.zeros((3, 4))).sample
    other = StarTable(np.arange(3), np.full((3, 4), 2.0), np.zeros((3, 4)))
    hiding = other.sampler_hiding(np.array([0]), 1.0)
    values, _, hidden = mixture([(plain, 0.9), (hiding, 0.1)])(1, 100)
    assert hidden[:, 0].sum() == 10
    assert (values[hidden] == 2.0).all()


def test_each_type_of_star_has_its_share_of_a_batch(tmp_path: Path) -> None:
    job = TrainingJob(
        "mixed", "mixed",
        simulation={"statistics_stars": 500, "test_stars": 50, "stars": 500},
        real={"spectra": 0.1, "kepler": 0.2},
    )  # fmt: skip
    spec = TrainSpec(job, tmp_path, spectra=tuple(FILES))
    data = load_training_data(spec, None, "cpu")
    values, _, hidden = data.stars.sampler(1, 1000)
    real = np.isin(np.asarray(values), split_spectra(FILES, VOCABULARY, RealOptions())[0].values)
    assert real[:, 0].sum() == 100
    giants = np.isnan(np.asarray(values)[:, VOCABULARY.column("bp0")])
    assert giants.sum() >= 200
    assert hidden[giants, VOCABULARY.column("mass")].sum() == pytest.approx(140, abs=40)
    assert data.trained_on is not None
    assert len(data.trained_on) > 1000
    assert "1,1" in data.facts["real_spectra"]
    assert "Kepler red giants" in data.facts["real_labels"]


def test_spectra_are_refused_or_required_by_the_job() -> None:
    with pytest.raises(JobError, match=r"needs them(.|\n)*--spectra FILE(.|\n)*none"):
        load_real_stars(RealOptions(spectra=0.1), [], VOCABULARY)
    with pytest.raises(JobError, match=r"uses no real spectra(.|\n)*xp_continuous_000"):
        load_real_stars(RealOptions(), FILES, VOCABULARY)
    with pytest.raises(JobError, match=r"no room for simulated stars(.|\n)*1\.2"):
        RealOptions(spectra=0.6, kepler=0.6)
    with pytest.raises(JobError, match=r"not a fraction(.|\n)*-0\.1(.|\n)*\[real\], kepler"):
        RealOptions(kepler=-0.1)


def test_the_shipped_jobs_use_kepler_s_giants() -> None:
    for name in ("train-giants-real", "train-giants-noisy", "train-giants-mixed", "train-giants"):
        assert RealOptions.from_dict(load_training_job(name).real).kepler > 0
