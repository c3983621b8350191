"""Weights are stored with 16 bits where predictions hardly change, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.network.bundle import load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.training import weight_precision
from catalogproc.training.weight_precision import choose_dtype

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


def test_half_the_bytes_give_the_same_predictions(tmp_path: Path) -> None:
    bundle = load_bundle("tiny")  # its weights are float32
    stars = simulated(Simulated(500, 21), bundle.vocabulary).values
    dtype, change = choose_dtype(bundle, StarTokens.typical(stars), LABELS)
    assert dtype in ("float16", "bfloat16")
    assert 0 < change < 0.01
    plain = rewrite_bundle(bundle, tmp_path / "plain", dtype="float32")
    half = rewrite_bundle(bundle, tmp_path / "half", dtype=dtype, training={"data": "of a test"})
    sizes = [(b.path / "weights.safetensors").stat().st_size for b in (half, plain)]
    assert sizes[0] < 0.55 * sizes[1]
    assert half.hash != plain.hash
    assert half.training == {"data": "of a test"}
    Predictor(half).self_check()
    # On other stars than those of the choice.
    others = simulated(Simulated(500, 22), bundle.vocabulary).values
    one, other = (Predictor(b).predict(StarTokens.typical(others), LABELS) for b in (plain, half))
    change = np.abs(other.mean - one.mean) / one.sigma
    assert np.quantile(change, 0.99) < 0.01
    assert half.network().mean.weight.dtype is torch.float32


def test_float32_is_kept_where_predictions_change(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle("tiny")
    monkeypatch.setattr(weight_precision, "LARGEST_CHANGE", 1e-9)
    stars = simulated(Simulated(50, 23), bundle.vocabulary).values
    assert choose_dtype(bundle, StarTokens.typical(stars), LABELS) == ("float32", 0.0)
