"""The network against a reference implementation and against PyTorch's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_network import reference_prediction

from catalogproc.errors import JobError
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Attention, Transformer, attention_by_products

PAPER = Shape(tokens=120)
SMALL = Shape(9, 12, ((4, 20), (2, 10)), ((6, 24), (3, 8)), (16, 8), dropout=0.1)


def network(shape: Shape, seed: int = 0) -> Transformer:
    """A network in which no weight is left at its initial 0 or 1, so that each has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Transformer(shape)
        with torch.no_grad():
            for weight in made.parameters():
                if weight.dim() == 1:
                    weight += 0.1 * torch.randn_like(weight)
    return made.eval()


def plain(made: Transformer, tokens, requests):
    weights = {key: value.double().numpy() for key, value in made.state_dict().items()}
    heads = [[h for h, _ in blocks] for blocks in (made.shape.encoder, made.shape.decoder)]
    return reference_prediction(weights, *heads, tokens, requests)


def star(shape: Shape, count: int, seed: int):
    """``count`` different tokens with values, in random order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(shape.tokens)[:count] + 1
    return torch.tensor(ids), torch.tensor(rng.normal(size=count))


@torch.inference_mode()
def answer(made: Transformer, ids, values, requests):
    """(2, K): mean and log variance of one star, alone in its batch."""
    dtype = made.mean.weight.dtype
    out = made(PackedTokens(ids[None], values[None].to(dtype)), torch.as_tensor(requests))
    return torch.stack(out)[:, 0].double().numpy()


def test_the_weights_of_a_shape_are_nearly_those_of_its_network() -> None:
    """Without the tokens' embeddings, biases and norms."""
    for shape in (PAPER, Shape(122, 96, ((4, 256),) * 2, ((4, 384),) * 2, (512, 256))):
        number = sum(weight.numel() for weight in Transformer(shape).parameters())
        assert 0.9 * number < shape.weights < number


def test_the_papers_shape_has_its_number_of_parameters_in_each_part():
    made = Transformer(PAPER)
    counts = {"embedding": 0, "encoder": 0, "decoder": 0, "head": 0}
    for name, weight in made.named_parameters():
        part = name.split(".")[0]
        part = {"weight": "embedding", "bias": "embedding"}.get(part, part)
        counts[part if part in counts else "head"] += weight.numel()
    assert counts == {
        "embedding": 30_976,
        "encoder": 528_640,
        "decoder": 1_593_258,
        "head": 6_693_167,
    }
    assert sum(counts.values()) == 8_846_041


@pytest.mark.parametrize("count", [1, 13, 63])
def test_the_papers_network_equals_the_reference_to_float32_rounding(count):
    made = network(PAPER)
    ids, values = star(PAPER, count, seed=count)
    requests = [114, 115, 116, 119, 120, 1, 110]
    wanted = np.stack(plain(made, list(zip(ids.tolist(), values.tolist(), strict=True)), requests))
    given_ = answer(made, ids, values, requests)
    # Against the label's own sigma, which is what an error has to be small beside.
    sigma = np.exp(0.5 * wanted[1])
    assert np.abs(given_[0] - wanted[0]).max() < 2e-5 * sigma.min()
    np.testing.assert_allclose(given_[1], wanted[1], atol=2e-5)
    np.testing.assert_allclose(answer(made.double(), ids, values, requests), wanted, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 12),
    heads=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3),
    inner=st.integers(1, 9),
    head=st.lists(st.integers(1, 9), max_size=3),
    count=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_any_shape_equals_the_reference(tokens, heads, inner, head, count, seed):
    blocks = tuple((h, inner) for h in heads)
    shape = Shape(tokens, 8, blocks[1:], blocks, tuple(head))
    made = network(shape, seed).double()
    ids, values = star(shape, min(count, tokens), seed)
    requests = list(range(1, tokens + 1))
    wanted = plain(made, list(zip(ids.tolist(), values.tolist(), strict=True)), requests)
    if len(ids) == 0:
        ids, values = torch.zeros(1, dtype=torch.long), torch.zeros(1)
    np.testing.assert_allclose(answer(made, ids, values, requests), wanted, atol=1e-10)


def test_attention_equals_pytorchs_with_add_bias_kv():
    torch.manual_seed(1)
    ours = Attention(12, 3, dropout=0.0).double().eval()
    theirs = torch.nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.bias_k.copy_(ours.bias_key_value[:12].view(1, 1, 12))
        theirs.bias_v.copy_(ours.bias_key_value[12:].view(1, 1, 12))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x, memory = torch.randn(5, 4, 12).double(), torch.randn(5, 7, 12).double()
        absent = torch.rand(5, 7) < 0.5
        absent[0] = True  # not one token: only the learned key is left
        wanted, _ = theirs(x, memory, memory, key_padding_mask=absent, need_weights=False)
        mask = F.pad(~absent, (0, 1), value=True)[:, None, None, :]
        torch.testing.assert_close(ours(x, memory, mask), wanted, rtol=0, atol=1e-12)


def test_attention_weights_sum_to_one_over_the_present_keys():
    """The weighted mean of equal values is that value."""
    torch.manual_seed(2)
    attention = Attention(8, 2, dropout=0.0).eval()
    constant = torch.randn(8)
    with torch.no_grad():
        attention.key_value.weight[8:] = 0.0
        attention.key_value.bias[8:] = constant
        attention.bias_key_value[8:] = constant
        present = torch.rand(6, 5) < 0.5
        present[0] = False
        mask = F.pad(present, (0, 1), value=True)[:, None, None, :]
        y = attention(torch.randn(6, 3, 8), torch.randn(6, 5, 8), mask)
        wanted = attention.out(constant).expand_as(y)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-6)


def test_fused_attention_is_used_in_every_block(monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    made = network(SMALL)
    answer(made, *star(SMALL, 5, 0), [1, 2, 3])
    assert len(calls) == len(SMALL.encoder) + len(SMALL.decoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_tokens_does_not_change_the_prediction(dtype):
    made = network(PAPER).to(dtype)
    ids, values = star(PAPER, 40, seed=3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    first = answer(made, ids, values, [114, 119])
    second = answer(made, ids[order], values[order], [114, 119])
    np.testing.assert_allclose(first, second, atol=5e-6 if dtype is torch.float32 else 1e-13)


def test_padding_does_not_change_the_prediction():
    made = network(PAPER)
    ids, values = star(PAPER, 20, seed=5)
    alone = answer(made, ids, values, [114, 119])
    padded_ids, padded = F.pad(ids, (3, 41)), F.pad(values, (3, 41))
    np.testing.assert_allclose(answer(made, padded_ids, padded, [114, 119]), alone, atol=5e-6)


def test_another_star_does_not_change_the_prediction_even_if_it_is_nan():
    made = network(SMALL)
    ids, values = zip(*(star(SMALL, 6, seed) for seed in range(4)), strict=True)
    ids, values = torch.stack(ids), torch.stack(values).float()
    with torch.inference_mode():
        together = torch.stack(made(PackedTokens(ids, values), torch.arange(1, 10)))
        broken = values.clone()
        broken[1] = torch.nan
        beside = torch.stack(made(PackedTokens(ids, broken), torch.arange(1, 10)))
    for row in (0, 2, 3):
        alone = answer(made, ids[row], values[row], range(1, 10))
        np.testing.assert_allclose(together[:, row], alone, atol=2e-6)
        assert torch.equal(beside[:, row], together[:, row])
    assert beside[:, 1].isnan().all()


def test_a_request_does_not_change_the_others_predictions():
    made = network(SMALL)
    ids, values = star(SMALL, 6, seed=7)
    together = answer(made, ids, values, range(1, 10))
    alone = np.hstack([answer(made, ids, values, [number]) for number in range(1, 10)])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_requests_may_differ_from_star_to_star():
    made = network(SMALL)
    ids, values = zip(*(star(SMALL, 6, seed) for seed in range(3)), strict=True)
    requests = torch.tensor([[1, 5], [9, 1], [2, 2]])
    with torch.inference_mode():
        rows = torch.stack(
            made(PackedTokens(torch.stack(ids), torch.stack(values).float()), requests)
        )
    for row in range(3):
        alone = answer(made, ids[row], values[row], requests[row])
        np.testing.assert_allclose(rows[:, row], alone, atol=2e-6)


def test_a_star_without_tokens_gets_a_finite_prior_with_any_padding():
    made = network(PAPER)
    wanted = np.stack(plain(made, [], [114, 119]))
    for width in (1, 7, 64):
        ids, values = torch.zeros(width, dtype=torch.long), torch.zeros(width)
        np.testing.assert_allclose(answer(made, ids, values, [114, 119]), wanted, atol=5e-6)


def test_every_weight_is_trained_but_for_the_padding_rows():
    made = network(SMALL)
    ids, values = zip(*(star(SMALL, 9, seed) for seed in range(3)), strict=True)
    ids, values = torch.stack(ids), torch.stack(values).float()
    ids[0, 5:] = 0
    mean, log_variance = made(PackedTokens(ids, values), torch.arange(1, 10))
    (mean.square() + log_variance.square()).sum().backward()
    for name, weight in made.named_parameters():
        # A key's bias shifts all scores of a query alike, but for the learned key's.
        assert weight.grad.abs().max() > 0, name
        if name in ("weight", "bias"):
            assert (weight.grad[0] == 0).all()
            assert (weight.grad[1:].abs().sum(1) > 0).all()


def test_padding_rows_start_at_zero_and_dropout_is_off_in_inference():
    made = Transformer(SMALL)
    assert (made.weight[0] == 0).all()
    assert (made.bias[0] == 0).all()
    ids, values = star(SMALL, 6, seed=8)
    made.eval()
    assert np.array_equal(answer(made, ids, values, [1]), answer(made, ids, values, [1]))
    made.train()
    assert not np.array_equal(answer(made, ids, values, [1]), answer(made, ids, values, [1]))


def test_a_shape_is_stored_and_read_and_invalid_ones_are_refused():
    assert Shape.from_dict(PAPER.to_dict()) == PAPER
    assert Shape.from_dict(SMALL.to_dict()) == SMALL
    assert Shape.from_dict({"tokens": 120}) == PAPER
    for fault, content in {
        "unknown fields of a network(.|\n)*depth": {"tokens": 3, "depth": 2},
        "missing or wrong": {"width": 8},
        "missing or wrong(.|\n)*unpack": {"tokens": 3, "encoder": [[1, 2, 3]]},
        "positive integer sizes": {"tokens": 0},
        "divide the width(.|\n)*found: 5": {"tokens": 3, "encoder": [[5, 8]]},
        "dropout is a probability": {"tokens": 3, "dropout": 1.0},
    }.items():
        with pytest.raises(JobError, match=fault):
            Shape.from_dict(content)


def test_attention_by_products_is_that_of_pytorch():
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(5, 2, n, 6, generator=generator).double() for n in (3, 7, 7))
    mask = (torch.rand(5, 1, 1, 7, generator=generator) < 0.6).logical_or(torch.arange(7) == 6)
    for one in (None, mask):
        wanted = F.scaled_dot_product_attention(q, k, v, one)
        found = attention_by_products(q, k, v, one, 0.0)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)  # a softmax in float32
    torch.manual_seed(1)
    same = torch.stack([attention_by_products(q, k, v, mask, 0.5) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(same, wanted, rtol=0, atol=0.15)


def test_gradients_in_bfloat16_are_those_of_single_precision():
    """To the rounding of bfloat16, 0.4 %, in each direction that matters."""
    ids, values = zip(*(star(SMALL, 9, seed) for seed in range(64)), strict=True)
    packed = PackedTokens(torch.stack(ids), torch.stack(values).float())
    gradients = []
    for half in (False, True):
        made = network(SMALL).train()
        made.load_state_dict(network(SMALL).state_dict())
        for module in made.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.0
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            mean, log_variance = made(packed, torch.arange(1, 10))
        (mean.float().square() + log_variance.float()).sum().backward()
        gradients.append(torch.cat([w.grad.flatten() for w in made.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.999
    assert gradients[1].norm() == pytest.approx(float(gradients[0].norm()), rel=0.02)
