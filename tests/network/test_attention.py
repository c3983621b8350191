"""Attention against torch.nn.MultiheadAttention with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalogproc.network.attention import attention
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer


@pytest.fixture(scope="module")
def network() -> Transformer:
    torch.manual_seed(4)
    shape = Shape(20, 16, ((4, 32),), ((2, 32), (4, 32)), (32, 16), dropout=0.0)
    return Transformer(shape).eval()


def question(tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(tokens)
    ids = np.sort(rng.choice(np.arange(1, 21), tokens, replace=False))
    return ids, rng.normal(size=tokens).astype(np.float32), np.array([3, 11, 20])


def packed(ids: np.ndarray, x: np.ndarray) -> PackedTokens:
    return PackedTokens(torch.from_numpy(ids[None]), torch.from_numpy(x[None]))


@torch.no_grad()
def by_torch(
    network: Transformer, ids: np.ndarray, x: np.ndarray, requests: np.ndarray
) -> np.ndarray:
    block, width = network.decoder[-1], 16
    module = block.attention
    other = torch.nn.MultiheadAttention(width, module.heads, add_bias_kv=True, batch_first=True)
    other.in_proj_weight.copy_(torch.cat([module.query.weight, module.key_value.weight]))
    other.in_proj_bias.copy_(torch.cat([module.query.bias, module.key_value.bias]))
    key, value = module.bias_key_value.split(width)
    other.bias_k.copy_(key.view(1, 1, -1))
    other.bias_v.copy_(value.view(1, 1, -1))
    memory, present = network.encode(packed(ids, x))
    query = torch.nn.functional.embedding(torch.from_numpy(requests), network.weight)[None]
    for earlier in network.decoder[:-1]:
        query = earlier(query, memory, None)
    assert present.all()
    return other.eval()(query, memory, memory, average_attn_weights=True)[1][0].numpy()


@pytest.mark.parametrize("tokens", [1, 5, 20])
def test_weights_equal_those_of_torch_and_sum_to_one(network: Transformer, tokens: int) -> None:
    ids, x, requests = question(tokens)
    found = attention(network, packed(ids, x), requests)
    assert found.shape == (3, tokens + 1)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found, by_torch(network, ids, x, requests), atol=1e-6)


def test_the_network_is_left_without_hooks(network: Transformer) -> None:
    ids, x, requests = question(5)
    attention(network, packed(ids, x), requests)
    assert not network.decoder[-1].attention._forward_pre_hooks
