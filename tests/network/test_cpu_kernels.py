"""oneDNN under the linear layers: the same numbers and gradients as PyTorch's own route."""

from __future__ import annotations

import pytest
import torch

from catalogproc.network import cpu_kernels
from catalogproc.network.cpu_kernels import OneDnnLinear, use_onednn
from catalogproc.network.transformer import Shape, Transformer


@pytest.mark.parametrize("rows", [(), (1,), (5, 3)])
def test_products_and_gradients_are_those_of_float64(rows):
    torch.manual_seed(0)
    layer = torch.nn.Linear(130, 70)
    x = torch.randn(*rows, 130, requires_grad=True)
    weighting = torch.randn(*rows, 70)
    if not rows:
        x = torch.randn(1, 130, requires_grad=True)
        weighting = torch.randn(1, 70)
    ours = OneDnnLinear(layer)(x)
    (ours * weighting).sum().backward()
    found = [x.grad, layer.weight.grad, layer.bias.grad]
    exact = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
    wanted = torch.nn.functional.linear(*exact)
    (wanted * weighting.double()).sum().backward()
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-5)
    for gradient, reference in zip(found, exact, strict=True):
        torch.testing.assert_close(gradient.double(), reference.grad, rtol=0, atol=2e-5)


def test_a_network_keeps_its_weights_their_names_and_its_answers():
    torch.manual_seed(0)
    plain = Transformer(Shape(5, 8, ((2, 16),), ((2, 16),), (8,), dropout=0.0)).eval()
    names, ids, values = list(plain.state_dict()), torch.tensor([[1, 2]]), torch.randn(1, 2)
    with torch.inference_mode():
        before = torch.stack(plain(ids, values, torch.tensor([3, 4])))
        use_onednn(plain)
        after = torch.stack(plain(ids, values, torch.tensor([3, 4])))
    assert any(isinstance(module, OneDnnLinear) for module in plain.modules())
    assert list(plain.state_dict()) == names
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_a_build_without_it_goes_on_as_before(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "has_onednn", lambda: False)
    network = Transformer(Shape(5, 8, (), ((2, 16),), (8,)))
    use_onednn(network)
    assert not any(isinstance(module, OneDnnLinear) for module in network.modules())
