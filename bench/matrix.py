"""Rate of matrix products with the shapes of the network's head: the limit of this machine."""

from __future__ import annotations

from itertools import pairwise

import torch

from bench.kit import Kit
from bench.measure import Figures, Row, race, seconds
from catalogproc.network.shape import Shape

TITLE = "matrix products"
PREDICTIONS = 1024
"""Rows of the left matrix on a CPU; 64 times as many on a GPU."""

ROWS = (
    Row("float32, torch.mm", "GFLOP/s"),
    Row("bfloat16, torch.mm", "GFLOP/s"),
)


def measure(kit: Kit) -> Figures:
    return {row.name: kit.rates[row.name] / 1e9 for row in ROWS}


def rates(
    shape: Shape, repeats: int, budget: float, device: str = "cpu", *, cpu: bool = False
) -> dict[str, float]:
    """Return operations per second by precision, for all layers of the head in sequence.

    Parameters
    ----------
    shape
        Shape of the network.
    repeats, budget
        See :func:`bench.measure.times`.
    device
        Where the products are computed.
    cpu
        Count CPU time, as :func:`bench.measure.race` does.
    """
    predictions = PREDICTIONS if device == "cpu" else 64 * PREDICTIONS
    generator = torch.Generator(device).manual_seed(0)
    operations = 2.0 * predictions * sum(a * b for a, b in pairwise((shape.width, *shape.head)))
    found: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        pairs = [
            (
                torch.randn(predictions, a, generator=generator, device=device).to(dtype),
                torch.randn(b, a, generator=generator, device=device).to(dtype),
            )
            for a, b in pairwise((shape.width, *shape.head))
        ]
        name = str(dtype).removeprefix("torch.")

        def products(pairs: list[tuple[torch.Tensor, torch.Tensor]] = pairs) -> None:
            for x, weight in pairs:
                torch.mm(x, weight.t())

        with torch.inference_mode():
            if cpu:
                took = min(race(products, products, repeats, budget, cpu=True))
            else:
                took = seconds(products, repeats, budget)
            found[f"{name}, torch.mm"] = operations / took
    return found


def best(found: dict[str, float], dtype: str) -> float:
    """Return the highest rate of a precision."""
    return max(rate for name, rate in found.items() if name.startswith(dtype))
