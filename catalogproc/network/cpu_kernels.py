"""Linear layers by oneDNN on a CPU, in float32 as before.

PyTorch gives float32 products to MKL, which leaves AVX-512 unused on processors of other
makers than Intel. oneDNN does not: measured on one core of an AMD Zen 5, 220 against 90
GFLOP/s on the network's own shapes, with the same rounding errors.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN, and PyTorch above it, keep a compiled product for each shape that they have met: 1,024 by
# default, a megabyte each, and batches of stars have hundreds of shapes. Stars come in the order of
# their tokens, so that a shape is asked for again soon or not at all: 256 are about as fast, 64 a
# quarter slower where tokens are left out. Read at the first product.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "256")


class OneDnnLinear(nn.Module):
    """A linear layer's own weight and bias, multiplied by oneDNN; can be trained."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


@cache
def has_onednn() -> bool:
    """Whether this build of PyTorch has it."""
    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b by oneDNN where it can, without gradients; like torch's own elsewhere."""
    known = x.dtype in (torch.float32, torch.bfloat16)
    if known and not x.is_cuda and weight.shape[0] > 1 and has_onednn():
        return _linear(x, weight, bias)
    return F.linear(x, weight, bias)


def use_onednn(network: nn.Module) -> None:
    """Put oneDNN under every linear layer, where this build of PyTorch has it."""
    if not has_onednn():
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            # A single output is a product with a vector, which the usual route does as well.
            if isinstance(child, nn.Linear) and child.out_features > 1:
                setattr(module, name, OneDnnLinear(child))


class _Product(torch.autograd.Function):
    """x W^T + b and its gradients: three products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        flat = gradient.flatten(0, -2)
        to_weight = _linear(flat.t().contiguous(), x.flatten(0, -2).t().contiguous(), None)
        to_x = _linear(gradient, weight.t().contiguous(), None) if ctx.needs_input_grad[0] else None
        return to_x, to_weight, flat.sum(0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
