"""Weights of half the bits are stored where no answer can tell, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from catalogproc.datasets.test_sets import simulated
from catalogproc.network.bundle import load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.training import weight_precision
from catalogproc.training.weight_precision import storage_type

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


def test_half_the_bytes_and_the_same_answers(tmp_path: Path) -> None:
    bundle = load_bundle("tiny")  # whose weights are whole
    stars = simulated(500, 21, bundle.vocabulary).values
    dtype, change = storage_type(bundle, stars, LABELS)
    assert dtype in ("float16", "bfloat16")
    assert 0 < change < 0.01
    plain = rewrite_bundle(bundle, tmp_path / "plain", dtype="float32")
    half = rewrite_bundle(bundle, tmp_path / "half", dtype=dtype, training={"data": "of a test"})
    sizes = [(b.path / "weights.safetensors").stat().st_size for b in (half, plain)]
    assert sizes[0] < 0.55 * sizes[1]
    assert half.hash != plain.hash
    assert half.training == {"data": "of a test"}
    Predictor(half).self_check()
    # On other stars than the choice was made on.
    others = simulated(500, 22, bundle.vocabulary).values
    one, other = (Predictor(b).predict(others, LABELS) for b in (plain, half))
    change = np.abs(other.mean - one.mean) / one.sigma
    assert np.quantile(change, 0.99) < 0.01
    assert half.network().mean.weight.dtype is torch.float32


def test_whole_weights_where_halves_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle("tiny")
    monkeypatch.setattr(weight_precision, "LARGEST", 1e-9)
    stars = simulated(50, 23, bundle.vocabulary).values
    assert storage_type(bundle, stars, LABELS) == ("float32", 0.0)
