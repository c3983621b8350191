"""Simulated giants: deterministic, complete, and by the input contract."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from catalogproc.science.simulate import SimulatedStars, Simulator, write_stars
from catalogproc.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    torch.set_num_threads(1)
    return Simulator()


@pytest.fixture(scope="module")
def stars(simulator: Simulator) -> SimulatedStars:
    return simulator.draw(6000, seed=7)


def test_same_seed_same_stars(simulator: Simulator) -> None:
    one, same, other = (simulator.draw(300, seed).columns for seed in (3, 3, 4))
    for name, values in one.items():
        assert torch.equal(values.nan_to_num(-1), same[name].nan_to_num(-1)), name
    assert not torch.equal(one["teff"], other["teff"])


def test_truths_stay_within_their_limits(stars: SimulatedStars) -> None:
    limits = {
        "logg": (0, 3.8),
        "teff": (3500, 8000),
        "m_h": (-2.2, 0.51),
        "log_age": (8, 10.11),
        "mass": (0.4, 8),
        "g_mag": (5.9, 17.6),
        "ebv": (0, 2.51),
        "r_v": (2.8, 3.4),
    }
    for name, (low, high) in limits.items():
        assert low <= stars[name].min(), name
        assert stars[name].max() <= high, name
    assert all(torch.isfinite(stars[name]).all() for name in ("coefficients", "coefficient_errors"))


def test_files_and_direct_tokens_agree(stars: SimulatedStars, tmp_path: object) -> None:
    from catalogproc.features.tokens import tokens
    from catalogproc.job import Job

    vocabulary = load_vocabulary()
    paths = write_stars(stars, tmp_path)  # type: ignore[arg-type]
    spectra, source, truth = (pq.read_table(path) for path in paths)
    assert spectra["source_id"].equals(source["source_id"])
    assert spectra["source_id"].equals(truth["source_id"])
    assert len(set(spectra["source_id"].to_pylist())) == len(stars)
    inputs = ("bprp", "jh", "jk", "logebv", "g_fakemag")
    job = Job("test", inputs=inputs, coefficients=99)
    read = tokens(spectra, source, vocabulary, job)
    values, errors = (matrix.numpy() for matrix in stars.tokens(vocabulary))
    direct = [*vocabulary.named("coefficient"), *inputs]
    columns = vocabulary.columns(direct)
    # Published ruwe and the zero-point's range can only take parallaxes away.
    scale = errors[:, columns]
    off = (read.values[:, columns] - values[:, columns]) / np.maximum(scale, 1e-9)
    assert np.nanmax(np.abs(off)) < 0.05
    np.testing.assert_array_equal(
        np.isnan(read.values[:, columns[:-1]]), np.isnan(values[:, columns[:-1]])
    )
