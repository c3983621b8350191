"""Linear layers of an inference on a CPU, with weights packed beforehand where oneDNN does that.

torch's own products copy and pack the weights at each call, and apply GELU in a second pass.
oneDNN, which torch contains, does both in one pass with weights that are packed once: 1.1 to 1.2
times as fast. Its operator is that of torch's compiler (``torch.compile``); where a torch does not
have it, or numbers are not float32, torch's own functions compute the same.

oneDNN compiles a product for each number of rows, which takes a millisecond: callers round their
numbers of rows up by :func:`rounded_rows`, so that there are few.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 64
"""Numbers of rows are multiples of this."""


class PackedLinear:
    """x W^T + b of weights (outputs, inputs) and biases (outputs,), optionally with GELU.

    Parameters
    ----------
    weight, bias
        They are only read.
    gelu
        Whether GELU is applied to the result.
    """

    def __init__(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> None:
        self.weight, self.bias, self.gelu = weight.detach(), bias.detach(), gelu
        self._packed: Tensor | None = None
        if weight.dtype is torch.float32 and _fused():
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._packed = pack(self.weight.contiguous(), 16 * ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layer's output (rows, outputs).

        Parameters
        ----------
        x
            (rows, inputs).
        """
        if self._packed is None:
            out = F.linear(x, self.weight, self.bias)
            return torch.ops.aten.gelu_(out) if self.gelu else out
        operation: tuple[Any, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
        fused: Any = torch.ops.mkldnn._linear_pointwise
        return fused(x, self._packed, self.bias, *operation)  # type: ignore[no-any-return]

    def added(self, other: Tensor, x: Tensor) -> Tensor:
        """Return the layer's output of x, without GELU, added to another tensor.

        Parameters
        ----------
        other, x
            (rows, outputs), which may be overwritten, and (rows, inputs).
        """
        if self._packed is None:
            return other.add_(self.bias).addmm_(x, self.weight.t())
        fused: Any = torch.ops.mkldnn._linear_pointwise
        return fused.binary(x, other, self._packed, self.bias, "add")  # type: ignore[no-any-return]


def rounded_rows(rows: int) -> int:
    """Return the least multiple of ROWS that is not smaller.

    Parameters
    ----------
    rows
        0 or more.
    """
    return -(-rows // ROWS) * ROWS


@cache
def _fused() -> bool:
    """Return whether oneDNN's operators exist and compute what torch's functions do."""
    x, weight, bias = torch.linspace(-1, 1, 8).view(2, 4), torch.ones(3, 4), torch.ones(3)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        fused: Any = torch.ops.mkldnn._linear_pointwise
        found = fused(x, packed, bias, "gelu", [], "none")
        added = fused.binary(x, found, packed, bias, "add")
    except (AttributeError, RuntimeError):
        return False
    wanted = F.linear(x, weight, bias)
    return torch.allclose(found, F.gelu(wanted)) and torch.allclose(added, found + wanted)
