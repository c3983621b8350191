"""Per-token statistics that a bundle stores besides its weights: scaling, range, self-check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import BundleError
from catalogproc.network.star_tokens import StarTokens

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
class ErrorScaling:
    """The scaling from a token's error to the network's input, in networks that read errors.

    It is (ln e - center) / scale, with ln e limited to ``low`` to ``high``, the range of the
    training stars: an exact value is read as the most exact one of the training, a useless one as
    the least exact. An unknown error is read as the typical one, 0. All are float64 (V,), natural
    logarithms of errors in the tokens' units.
    """

    center: Floats
    scale: Floats
    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        freeze_arrays(self, "center", "scale", "low", "high")
        columns = np.array(list(vars(self).values()))
        good = np.isfinite(columns).all() and (self.scale > 0).all()
        if columns.ndim != 2 or not good or not (self.low <= self.high).all():
            raise BundleError(
                "errors cannot be standardised",
                wanted="finite centers and limits, and positive scales, one for each token",
            )

    def standardise(self, errors: NDArray[np.floating]) -> Floats:
        """Return the network's inputs.

        Parameters
        ----------
        errors
            (N, V) in the tokens' units; NaN or negative where unknown.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.clip(np.log(np.asarray(errors, dtype=np.float64)), self.low, self.high)
        return np.where(np.isnan(log), 0.0, (log - self.center) / self.scale)


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

    ``tokens`` of R stars; ``mean`` and ``sigma`` (R, K) as computed in float64. ``tolerance``
    is in units of sigma.
    """

    labels: tuple[str, ...]
    tokens: StarTokens
    mean: Floats
    sigma: Floats
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        freeze_arrays(self, "mean", "sigma")


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
