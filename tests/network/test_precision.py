"""Products in bfloat16: what stays in float32, how far predictions move, who chooses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import real_stars
from support.bundles import LABELS, tiny_bundle
from torch import nn

from catalogproc.errors import JobError
from catalogproc.inference.engine import Engine
from catalogproc.inference.precision_check import FEW, check_precision
from catalogproc.job import Job
from catalogproc.network import bfloat16_check
from catalogproc.network import precision as module
from catalogproc.network.bfloat16_check import PrecisionCheck
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.precision import choose_precision, float32_products
from catalogproc.network.predictor import Prediction, Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.training.weight_precision import check_products

GOOD = PrecisionCheck(stars=1000, within=1.0, flags=0.0, batches=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), late=("g_fakemag",), errors=True)


def stars(bundle: Bundle, n: int = 300) -> StarTokens:
    rng = np.random.default_rng(0)
    scale, center = bundle.standardisation.scale, bundle.standardisation.center
    values = center + scale * rng.normal(size=(n, len(bundle.vocabulary)))
    values[rng.random(values.shape) < 0.6] = np.nan
    return StarTokens.typical(values)


def test_rounding_of_bfloat16_shows_and_is_small(bundle: Bundle) -> None:
    tokens = stars(bundle)
    exact, single, half = (
        Predictor(bundle, precision=name).predict(tokens, LABELS)
        for name in ("float64", "float32", "bfloat16")
    )
    scale = bundle.standardisation.scale[bundle.vocabulary.columns(LABELS)]
    for found, least, most in ((single, 0.0, 1e-5), (half, 1e-4, 0.2)):
        change = np.abs(found.mean - exact.mean) / scale
        assert least < change.max() < most
        assert np.abs(np.log(found.sigma / exact.sigma)).max() < most


def test_norms_residuals_embeddings_and_outputs_stay_in_float32(bundle: Bundle) -> None:
    network = Predictor(bundle, precision="bfloat16").network
    types = {name: weight.dtype for name, weight in network.named_parameters()}
    half = {name for name, dtype in types.items() if dtype is torch.bfloat16}
    products = {
        f"{name}.{part}"
        for name, layer in network.named_modules() if isinstance(layer, nn.Linear)
        for part in ("weight", "bias") if name not in ("mean", "log_variance")
    }  # fmt: skip
    assert half == products
    seen = []
    for layer in (network.encoder[0].norm_attention, network.decoder[-1].norm_feed_forward,
                  network.mean):  # fmt: skip
        layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    requests = torch.from_numpy(bundle.vocabulary.columns(LABELS) + 1)
    with torch.inference_mode():
        network(bundle.pack(stars(bundle, 4)), requests)
    assert {x.dtype for pair in seen for x in pair} == {torch.float32}


def test_derivatives_and_the_self_check_work_in_bfloat16(bundle: Bundle) -> None:
    predictor = Predictor(bundle, precision="bfloat16")
    predictor.self_check()
    assert predictor.reverse_pass.network.mean.weight.dtype is torch.float32
    assert predictor.reverse_pass.network.head[0].weight.dtype is torch.float32


def test_an_answer_in_bfloat16_hardly_depends_on_its_batch(bundle: Bundle) -> None:
    predictor, tokens = Predictor(bundle, precision="bfloat16"), stars(bundle)
    together = predictor.predict(tokens, LABELS)
    alone = predictor.predict(tokens.rows(slice(0, 7)), LABELS)
    assert (np.abs(alone.mean - together.mean[:7]) < 0.2 * together.sigma[:7]).all()


@pytest.mark.parametrize(
    ("wanted", "check", "fast", "device", "chosen"),
    [
        ("auto", GOOD, True, "cpu", "bfloat16"),
        ("auto", GOOD, False, "cpu", "float32"),
        ("auto", None, True, "cpu", "float32"),
        ("auto", replace(GOOD, within=0.998), True, "cpu", "float32"),
        ("auto", replace(GOOD, flags=0.002), True, "cpu", "float32"),
        ("auto", replace(GOOD, batches=0.998), True, "cpu", "float32"),
        ("auto", PrecisionCheck(1000, 1.0, 0.0), True, "cpu", "float32"),  # older bundles
        ("auto", replace(GOOD, stars=0), True, "cpu", "float32"),
        ("auto", GOOD, True, "cuda", "bfloat16"),
        ("auto", None, True, "cuda", "tf32"),
        ("float32", GOOD, True, "cpu", "float32"),
        ("float32", GOOD, True, "cuda", "float32"),
        ("bfloat16", None, False, "cpu", "bfloat16"),
    ],
)
def test_bfloat16_is_chosen_where_it_was_accepted_and_is_fast(
    monkeypatch: pytest.MonkeyPatch, wanted: str, check: PrecisionCheck | None, fast: bool,
    device: str, chosen: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "fast_in_bfloat16", lambda device: fast)
    assert choose_precision(wanted, check, device) == chosen


def test_a_bundle_states_its_check_until_it_is_recalibrated(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = rewrite_bundle(bundle, tmp_path / "checked", precision_check=GOOD)
    assert load_bundle(checked.path).precision_check == GOOD
    assert rewrite_bundle(checked, tmp_path / "again").precision_check is None
    monkeypatch.setattr(module, "fast_in_bfloat16", lambda device: True)
    assert Engine(checked, Job("test")).precision == "bfloat16"
    assert Engine(checked, Job("test", precision="float32")).precision == "float32"
    assert Engine(bundle, Job("test")).precision == "float32"


def test_float32_passes_the_check_and_a_coarser_type_does_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job("test")
    tokens = Engine(bundle, job).features(real_stars.bright(), real_stars.bright_auxiliary())
    single = check_precision(bundle, job, tokens, "float32")
    assert single == PrecisionCheck(len(tokens), 1.0, 0.0, 1.0)
    assert single.accepted
    monkeypatch.setattr(bfloat16_check, "SIGMA", 1e-6)
    half = check_precision(bundle, job, tokens)
    assert half.within < 0.5
    assert half.batches < 1.0
    assert not half.accepted


def test_the_check_measures_what_the_batch_changes(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predictor whose numbers depend on how many stars it gets at once is not accepted."""
    tokens = Engine(bundle, Job("test")).features(real_stars.bright(), None)
    predict = Predictor.predict

    def uneven(self: Predictor, stars: StarTokens, labels: Sequence[str]) -> Prediction:
        found = predict(self, stars, labels)
        return replace(found, mean=found.mean + 0.2 * found.sigma * (len(stars) <= FEW))

    monkeypatch.setattr(Predictor, "predict", uneven)
    found = check_precision(bundle, Job("test"), tokens, "float32")
    assert (found.within, found.batches) == (1.0, 0.0)
    assert not found.accepted


def test_a_star_s_tokens_are_the_same_alone(bundle: Bundle) -> None:
    engine = Engine(bundle, Job("test"))
    whole = engine.features(real_stars.bright(), real_stars.bright_auxiliary())
    part, star = whole.rows(slice(2, 3)), real_stars.bright().slice(2, 1)
    alone = engine.features(star, real_stars.bright_auxiliary().slice(2, 1))
    for name, value in vars(alone).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(part, name), value, err_msg=name)


def test_a_training_checks_its_network(bundle: Bundle) -> None:
    tokens = stars(bundle, 50)
    found = check_products(bundle, tokens)
    assert found is not None
    assert found.stars == 50
    assert found.within > 0.9


@pytest.mark.parametrize(
    ("precision", "device", "tf32"),
    [
        ("tf32", "cpu", True),
        ("float32", "cuda", False),
        ("float64", "cuda", False),
        ("bfloat16", "cuda", True),
        ("bfloat16", "cpu", False),
    ],
)
def test_float32_products_are_tf32_only_where_allowed(
    precision: str, device: str, tf32: bool
) -> None:
    before = torch.get_float32_matmul_precision()
    with float32_products(precision, torch.device(device)):
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else before)
    assert torch.get_float32_matmul_precision() == before


def test_a_job_names_a_precision_and_the_default_keeps_its_hash() -> None:
    assert "precision" not in Job("test").to_dict()
    assert Job("test", precision="bfloat16").hash != Job("test").hash
    with pytest.raises(JobError, match="precision"):
        Job("test", precision="float16")
