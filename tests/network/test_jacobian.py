"""Derivatives of the predictions against automatic differentiation and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalogproc.network.jacobian import ReversePass
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer

V = 120
SMALL = Shape(V, 16, ((4, 24), (2, 16)), ((4, 32), (2, 16)), (24, 12))
REQUESTS = torch.tensor([114, 115, 3, 119, 120])


def network(shape: Shape, seed: int = 0) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Transformer(shape).eval().requires_grad_(False)


def stars(counts: list[int], seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    ids = np.zeros((len(counts), max([*counts, 1])), dtype=np.int64)
    for row, count in zip(ids, counts, strict=True):
        row[:count] = rng.choice(V, count, replace=False) + 1
    values = rng.normal(size=ids.shape) * (ids > 0)
    return torch.from_numpy(ids), torch.from_numpy(values)


def by_autograd(net: Transformer, ids: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    values = values.clone().requires_grad_(True)
    mean, _ = net(PackedTokens(ids, values), REQUESTS)
    rows = [torch.autograd.grad(mean[:, k].sum(), values, retain_graph=True)[0]
            for k in range(len(REQUESTS))]  # fmt: skip
    return torch.stack(rows, 1).masked_fill((ids == 0)[:, None, :], 0.0)


@pytest.mark.parametrize(
    "shape",
    [SMALL, Shape(V), Shape(V, 8, (), ((1, 8),), ()), Shape(V, 8, ((2, 8),), ((2, 4),) * 3, (5,))],
    ids=["small", "paper", "no encoder, no head", "deep decoder"],
)
@pytest.mark.parametrize("counts", [[9, 9], [12, 7, 1]], ids=["alike", "padded"])
def test_derivatives_equal_those_of_automatic_differentiation(shape, counts):
    net = network(shape).double()
    ids, values = stars(counts)
    found = ReversePass(net)(PackedTokens(ids, values), REQUESTS)
    mean, log_variance = net(PackedTokens(ids, values), REQUESTS)
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.log_variance, log_variance, rtol=1e-12, atol=1e-12)
    wanted = by_autograd(net, ids, values)
    torch.testing.assert_close(found.jacobian, wanted, rtol=1e-9, atol=1e-12)
    assert found.jacobian.shape == (len(counts), len(REQUESTS), ids.shape[1])


def test_derivatives_equal_finite_differences():
    net = network(SMALL).double()
    ids, values = stars([8, 5])
    jacobian = ReversePass(net)(PackedTokens(ids, values), REQUESTS).jacobian
    for token in range(8):
        step = torch.zeros_like(values)
        step[:, token] = 1e-5 * (ids[:, token] > 0)
        up, down = (net(PackedTokens(ids, values + sign * step), REQUESTS)[0] for sign in (1, -1))
        slope = (up - down) / 2e-5
        torch.testing.assert_close(jacobian[:, :, token], slope, rtol=1e-6, atol=1e-9)


def test_a_star_without_tokens_has_zero_derivatives():
    net = network(SMALL).double()
    ids, values = stars([0, 4])
    found = ReversePass(net)(PackedTokens(ids, values), REQUESTS)
    assert (found.jacobian[0] == 0).all()
    assert (found.summary[0] == 0).all()
    assert found.mean.isfinite().all()


def test_the_summary_is_the_mean_over_a_star_s_own_tokens():
    net = network(SMALL).double()
    ids, values = stars([8, 5])
    found = ReversePass(net)(PackedTokens(ids, values), REQUESTS).summary
    for star, count in enumerate((8, 5)):
        alone, _ = net.encode(PackedTokens(ids, values).rows(slice(star, star + 1), count))
        torch.testing.assert_close(found[star], alone[0].mean(0), rtol=1e-10, atol=1e-12)


def test_single_precision_gives_the_same():
    net = network(SMALL)
    ids, values = stars([9, 9, 9, 4])
    wanted = ReversePass(network(SMALL).double())(PackedTokens(ids, values), REQUESTS)
    found = ReversePass(net)(PackedTokens(ids, values.float()), REQUESTS)
    error = (found.jacobian - wanted.jacobian).norm(dim=-1) / wanted.jacobian.norm(dim=-1)
    assert error.max() < 1e-4


def test_half_precision_is_good_to_a_few_percent_and_does_not_change_the_means():
    net = network(SMALL)
    ids, values = stars([9] * 50)
    whole, half = (
        ReversePass(net, half)(PackedTokens(ids, values.float()), REQUESTS)
        for half in (False, True)
    )
    assert (whole.mean == half.mean).all()
    lengths = half.jacobian.norm(dim=-1) / whole.jacobian.norm(dim=-1) - 1
    assert lengths.abs().median() < 0.01
    assert lengths.abs().max() < 0.1
