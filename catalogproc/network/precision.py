"""The number type in which the network multiplies: float32, bfloat16, TF32 or float64.

bfloat16 has three significant digits, and processors with instructions for it multiply about twice
as fast as in float32. Products are added up in float32, and embeddings, residuals, norms and the
outputs of the head stay in float32. Whether that suffices depends on the model, so it is measured
for each (inference/precision_check.py), and its bundle states the result.

TF32 is what GPUs make of float32 products: the range of float32 with the digits of float16.
float64 is what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from catalogproc.network.bfloat16_check import PrecisionCheck
from catalogproc.network.transformer import Transformer

PRECISIONS = ("float32", "bfloat16", "tf32", "float64")

OUTPUTS = ("mean", "log_variance", "component_weight")
"""Layers of the network that multiply in float32 whatever the precision."""


def choose_precision(wanted: str, check: PrecisionCheck | None, device: str) -> str:
    """Return the precision for a model on a device, one of PRECISIONS.

    Parameters
    ----------
    wanted
        ``auto``, or what a job asks for.
    check
        What a bundle states of bfloat16; None where it was not measured.
    device
        As torch names it.
    """
    if wanted != "auto":
        return wanted
    if check is not None and check.accepted and fast_in_bfloat16(device):
        return "bfloat16"
    return "tf32" if torch.device(device).type == "cuda" else "float32"


def fast_in_bfloat16(device: str) -> bool:
    """Return whether a device has instructions for products in bfloat16.

    Parameters
    ----------
    device
        As torch names it.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def with_precision(network: Transformer, precision: str) -> Transformer:
    """Return a network that multiplies in a precision; the same object, changed.

    Parameters
    ----------
    network
        In float32.
    precision
        One of PRECISIONS.
    """
    if precision == "float64":
        return network.double()
    if precision == "bfloat16":
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Linear) and name not in OUTPUTS:
                layer.to(torch.bfloat16)
    return network


@contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Let a GPU compute float32 products as TF32 while the block runs, if the precision allows it.

    In bfloat16 these are the outputs of the head, and the forward pass of derivatives.

    Parameters
    ----------
    precision
        One of PRECISIONS.
    device
        Where the products are computed.
    """
    half_on_gpu = precision == "bfloat16" and device.type == "cuda"
    if precision != "tf32" and not half_on_gpu:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
