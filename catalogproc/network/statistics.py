"""What a bundle is made of besides its weights: how tokens are scaled, where they were seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import BundleError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Standardisation:
    """How a token's value v becomes what the network reads: (v - center) / scale.

    ``center`` and ``scale``, float64 (V,), in the tokens' units; every scale is positive.
    """

    center: Floats
    scale: Floats

    def __post_init__(self) -> None:
        own(self, "center", "scale")
        if self.center.shape != self.scale.shape or self.center.ndim != 1:
            raise BundleError("center and scale must be two lists of the same length")
        good = np.isfinite(self.center) & np.isfinite(self.scale) & (self.scale > 0)
        if not good.all():
            raise BundleError(
                "a token cannot be standardised",
                wanted="a finite center and a positive scale",
                found=f"tokens number {(np.flatnonzero(~good) + 1).tolist()}",
            )


@dataclass(frozen=True, eq=False)
class Domain:
    """Where the training stars lay, in the tokens' units: float64 (V,), NaN where unknown.

    For what was measured the box that holds 0.2 % to 99.8 % of them, for labels all.
    """

    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        own(self, "low", "high")


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """Questions with known answers: a device that gives others is not to be trusted.

    ``values`` (R, V) in the tokens' units, NaN where a token is absent; ``mean`` and
    ``sigma`` (R, K) as float64 arithmetic gives them. ``tolerance`` is in units of sigma.
    """

    labels: tuple[str, ...]
    values: Floats
    mean: Floats
    sigma: Floats
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        own(self, "values", "mean", "sigma")


def own(instance: object, *names: str) -> None:
    """Make a frozen dataclass's arrays its own: float64 and read-only."""
    for name in names:
        array = np.array(getattr(instance, name), dtype=np.float64)
        array.setflags(write=False)
        object.__setattr__(instance, name, array)
