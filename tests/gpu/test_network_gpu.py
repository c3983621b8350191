"""The network on a GPU gives the CPU's numbers, and trains in half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle

from catalogproc.network.bundle import Standardisation
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.training.checkpoint import load_checkpoint
from catalogproc.training.config import Settings
from catalogproc.training.token_sampling import TrainingStars
from catalogproc.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


def test_a_gpu_gives_the_cpus_answers(tmp_path):
    bundle = tiny_bundle(tmp_path / "bundle")
    rng = np.random.default_rng(0)
    scale, center = bundle.standardisation.scale, bundle.standardisation.center
    values = center + scale * rng.normal(size=(5000, len(bundle.vocabulary)))
    values[rng.random(values.shape) < 0.6] = np.nan
    on_gpu = Predictor(bundle, "cuda:0")
    on_gpu.self_check()
    tokens = StarTokens.typical(values)
    wanted, found = Predictor(bundle).predict(tokens, LABELS), on_gpu.predict(tokens, LABELS)
    assert (np.abs(found.mean - wanted.mean) < 1e-3 * wanted.sigma).all()
    np.testing.assert_allclose(found.sigma, wanted.sigma, rtol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_and_resumes(tmp_path, precision):
    def draw(seed, n):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 6))
        values[rng.random((n, 6)) < 0.3] = np.nan
        return values, np.full((n, 6), 0.1)

    shape = Shape(6, 8, ((2, 16),), ((2, 16),), (16,))
    settings = Settings(steps=40, batch=256, rate=1e-2, restart_steps=80, min_tokens=1,
                        max_tokens=6, precision=precision, average=0.9, clip=1.0,
                        report_steps=20, checkpoint_steps=20)  # fmt: skip
    stars = TrainingStars(draw, Standardisation(np.zeros(6), np.ones(6)))
    Trainer(shape, stars, settings, "cuda:0").fit(tmp_path)
    longer = Settings(**{**vars(settings), "steps": 80})
    trained = Trainer(shape, stars, longer, "cuda:0").fit(tmp_path, resume=True)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    scaler = load_checkpoint(tmp_path)[1]["scaler"]
    assert bool(scaler) == (precision == "float16")
