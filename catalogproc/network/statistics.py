"""Per-token statistics that a bundle stores besides its weights: scaling, range, self-check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import BundleError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Standardisation:
    """The scaling from a token's value v to the network's input: (v - center) / scale.

    ``center`` and ``scale``, float64 (V,), in the tokens' units; every scale is positive.
    """

    center: Floats
    scale: Floats

    def __post_init__(self) -> None:
        freeze_arrays(self, "center", "scale")
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
    """The range of each token among the training stars: float64 (V,) in the tokens' units.

    For inputs the 0.2 to 99.8 % range, for labels the full range; NaN where unknown.
    """

    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        freeze_arrays(self, "low", "high")


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """Stars with stored predictions, by which each device is checked before it is used.

    ``values`` (R, V) in the tokens' units, NaN where a token is absent; ``mean`` and
    ``sigma`` (R, K) as computed in float64. ``tolerance`` is in units of sigma.
    """

    labels: tuple[str, ...]
    values: Floats
    mean: Floats
    sigma: Floats
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        freeze_arrays(self, "values", "mean", "sigma")


def freeze_arrays(instance: object, *names: str) -> None:
    """Replace fields of a frozen dataclass by read-only float64 copies.

    Parameters
    ----------
    instance
        The dataclass, in its ``__post_init__``.
    names
        The fields.
    """
    for name in names:
        array = np.array(getattr(instance, name), dtype=np.float64)
        array.setflags(write=False)
        object.__setattr__(instance, name, array)
