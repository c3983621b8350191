"""The forward pass of CPUs against the network that it stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import real_stars

from catalogproc.inference.engine import Engine
from catalogproc.job import load_job
from catalogproc.network import packed_linear
from catalogproc.network.bundle import load_bundle
from catalogproc.network.inference_pass import InferencePass
from catalogproc.network.packed_linear import ROWS, PackedLinear, rounded_rows
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer

SHAPES = {
    "giants": Shape(40, 96, ((4, 64),) * 2, ((4, 96),) * 2, (64, 32), 0.0, True, 3, (37, 38), (7,)),
    "one head": Shape(40, 16, ((1, 32),), ((1, 32),), (24,), 0.0),
    "no encoder": Shape(40, 24, (), ((2, 32), (3, 16)), (24,), 0.0, True),
    "published": Shape(40, 32, ((8, 64), (4, 32)), ((8, 96), (4, 48), (2, 24)), (96, 48), 0.0),
}


def network(name: str, dtype: torch.dtype = torch.float64) -> Transformer:
    torch.manual_seed(3)
    made = Transformer(SHAPES[name]).eval().to(dtype)
    with torch.no_grad():
        for weight in made.parameters():  # biases and what starts as zero, too
            weight.add_(0.1 * torch.randn_like(weight))
        for table in (made.weight, made.bias):
            table[0] = 0.0
    return made


def stars(shape: Shape, n: int = 50, dtype: torch.dtype = torch.float64) -> PackedTokens:
    rng = np.random.default_rng(5)
    ids = np.zeros((n, 14), dtype=np.int64)
    for row in ids[1:]:  # the first has no token
        count = rng.integers(1, 15)
        row[:count] = np.sort(rng.choice(np.arange(1, 41), count, replace=False))
    values, errors = rng.normal(size=(2, n, 14)) * (ids != 0)
    tensors = (torch.from_numpy(x).to(dtype) for x in (values, errors))
    values, errors = tensors
    return PackedTokens(torch.from_numpy(ids), values, errors if shape.reads_errors else None)


def both(name: str, dtype: torch.dtype, by_request: bool = False, scale: float = 1.0):  # type: ignore[no-untyped-def]
    """Return what the network and the pass make of the same stars."""
    made, shape = network(name, dtype), SHAPES[name]
    with torch.no_grad():
        for block in (*made.encoder, *made.decoder):
            block.attention.query.weight.mul_(scale)
    tokens, requests = stars(shape, dtype=dtype), torch.tensor([37, 3, 38, 40, 1])
    found = []
    with torch.inference_mode():
        for forward in (made, InferencePass(made)):
            memory, present = forward.encode(tokens)
            shown = present
            if by_request:
                apart = torch.tensor([True, False, False, True, True])
                shown = torch.where(
                    apart[:, None], tokens.without((7, 12))[:, None], present[:, None]
                )
            components = forward.decode_components(memory, shown, requests)
            found.append((memory * present[..., None], *components.moments()))
    return found


@pytest.mark.parametrize("many", [48, 3])
@pytest.mark.parametrize("by_request", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_the_pass_computes_what_the_network_does(
    monkeypatch: pytest.MonkeyPatch, name: str, by_request: bool, many: int
) -> None:
    monkeypatch.setattr("catalogproc.network.inference_pass.MANY_TOKENS", many)
    for one, other in zip(*both(name, torch.float64, by_request), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_in_float32_the_pass_is_as_exact_as_the_network(name: str) -> None:
    exact = both(name, torch.float64)[0]
    theirs, ours = both(name, torch.float32)
    for wanted, one, other in zip(exact, theirs, ours, strict=True):
        error, ours_error = ((x.double() - wanted).abs().max() for x in (one, other))
        assert 0 < ours_error < 3 * error + 1e-6


@pytest.mark.parametrize("scale", [300.0, 1e4])
def test_scores_beyond_the_range_of_exponentials_are_shifted(scale: float) -> None:
    """exp(1e4) is infinite: the largest score must be subtracted, and nothing else changes."""
    for by_request in (False, True):
        for one, other in zip(*both("giants", torch.float64, by_request, scale), strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_the_shift_changes_nothing_for_real_stars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = load_bundle("giants")
    tokens = Engine(bundle, load_job("demo")).features(real_stars.bright()).network_inputs
    labels = ("teff", "mass", "log_age")
    wanted = Predictor(bundle, precision="float64").predict(tokens, labels)
    monkeypatch.setattr("catalogproc.network.few_keys_attention.LARGEST_SCORE", -1e9)
    shifted = Predictor(bundle, precision="float64").predict(tokens, labels)
    np.testing.assert_allclose(shifted.mean, wanted.mean, rtol=1e-6)
    np.testing.assert_allclose(shifted.sigma, wanted.sigma, rtol=1e-6)


def test_a_star_with_an_infinite_value_changes_no_other() -> None:
    made = network("giants")
    tokens, requests = stars(made.shape), torch.tensor([37, 3])
    spoilt = replace(tokens, values=tokens.values.clone())
    spoilt.values[5, 0] = torch.inf
    with torch.inference_mode():
        forward = InferencePass(made)
        wanted, found = (
            forward.decode_components(*forward.encode(each), requests).moments()[0]
            for each in (tokens, spoilt)
        )
    assert not found[5].isfinite().any()
    others = torch.arange(len(found)) != 5
    torch.testing.assert_close(found[others], wanted[others], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("rows", [1, ROWS, 3 * ROWS])
def test_packed_products_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, gelu: bool, rows: int
) -> None:
    torch.manual_seed(1)
    weight, bias, x = torch.randn(24, 40), torch.randn(24), torch.randn(rows, 40)
    fused = PackedLinear(weight, bias, gelu)
    monkeypatch.setattr(packed_linear, "_fused", lambda: False)
    plain = PackedLinear(weight, bias, gelu)
    assert plain._packed is None
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-5, atol=1e-5)
    other = torch.randn(rows, 24)
    torch.testing.assert_close(
        fused.added(other.clone(), x), plain.added(other.clone(), x), rtol=1e-5, atol=1e-5
    )


def test_rows_are_rounded_up() -> None:
    assert [rounded_rows(n) for n in (0, 1, ROWS, ROWS + 1)] == [0, ROWS, ROWS, 2 * ROWS]


def test_torch_has_the_products_of_onednn() -> None:
    """What is installed here must not lose the fast products without notice."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    assert packed_linear._fused()
