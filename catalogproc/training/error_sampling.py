"""Errors and noise of the tokens that a training shows, for networks that read errors.

Each star is seen under many errors: noise is added to its values, and the stated error is that of
the value with its noise. Of the requested tokens the truth stays the original value with the
original error.

All coefficients of a spectrum get one factor f >= 1, drawn log-uniformly up to a limit: their
stated error is f e, and noise of sqrt(f^2 - 1) e is added. Every other token gets a noise of its
own, drawn log-uniformly between two sizes, from negligible to useless, which is added in
quadrature; so it is for exact values (e = 0) too. An unknown error is the typical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.statistics import ErrorScaling
from catalogproc.training.config import JobTable

QUANTILES = (0.002, 0.998)
"""Of the drawn errors: the range beyond which a network reads the limit."""

LEAST_SPREAD = 1e-6
"""A smaller spread of ln errors is rounding: all errors are equal."""


@dataclass(frozen=True)
class ErrorOptions(JobTable):
    """Errors that a training shows, table ``errors`` of its job.

    Attributes
    ----------
    spectrum
        Largest factor by which the errors of a spectrum are multiplied.
    least, largest
        Range of the noise that is added to other tokens, in units of the token's scale in the
        standardisation.
    original
        Probability that a spectrum, or another token, keeps its original value and error.
    unstated
        Probability that its error is not stated. It is then at least the typical one, which is
        what the network takes an unknown error for.
    """

    TABLE: ClassVar[str] = "errors"

    spectrum: float = 10.0
    least: float = 0.003
    largest: float = 3.0
    original: float = 0.5
    unstated: float = 0.05

    def __post_init__(self) -> None:
        if self.spectrum < 1:
            raise self.invalid(
                "spectrum", self.spectrum, "errors do not become smaller", "1 or more"
            )
        for name in ("original", "unstated"):
            if not 0 <= getattr(self, name) <= 1:
                raise self.invalid(name, getattr(self, name), "not a probability", "0 to 1")
        if self.original + self.unstated > 1:
            raise JobError(
                "more than all stars", wanted="original + unstated up to 1",
                found=f"{self.original} + {self.unstated}", where=f"[{self.TABLE}]",
            )  # fmt: skip
        if not 0 < self.least <= self.largest:
            raise JobError(
                "the sizes of the noise are no range", wanted="0 < least <= largest",
                found=(self.least, self.largest), where=f"[{self.TABLE}]",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ErrorDraws:
    """How errors are drawn and read in a training.

    Attributes
    ----------
    options
        Sizes of the noise.
    spectrum
        (V,) True for coefficients of the spectrum, which share a factor.
    scaling
        Scaling of the tokens' errors.
    """

    options: ErrorOptions
    spectrum: NDArray[np.bool_]
    scaling: ErrorScaling


@dataclass(frozen=True, eq=False)
class NoisyTokens:
    """Tokens with noise: values and stated errors (N, V), standardised; NaN is not stated."""

    values: Tensor
    errors: Tensor


class ErrorSampler:
    """Draws errors and noise of standardised tokens, on their device.

    Parameters
    ----------
    draws
        How errors are drawn.
    scale
        (V,) scale of each token in the standardisation.
    device
        Where the tokens are.
    """

    def __init__(self, draws: ErrorDraws, scale: NDArray[np.float64], device: torch.device) -> None:
        self._options = draws.options
        shift = np.log(scale)
        scaling = draws.scaling
        low, high, center = (x - shift for x in (scaling.low, scaling.high, scaling.center))
        self._low, self._high, self._center, self._scale = (
            torch.tensor(x, dtype=torch.float32, device=device)
            for x in (low, high, center, scaling.scale)
        )
        self._spectrum = torch.tensor(draws.spectrum, device=device)

    def add_noise(self, values: Tensor, errors: Tensor, generator: torch.Generator) -> NoisyTokens:
        """Draw noise, and add it.

        Parameters
        ----------
        values, errors
            (N, V), standardised; NaN where a star lacks a token, and where an error is unknown.
        generator
            Source of random numbers, on the same device.
        """
        typical = self._center.exp()
        known = torch.where(errors.isnan(), typical, errors)
        kind = self._by_group(values, generator)
        noise = noise_size(known, self._by_group(values, generator), self._spectrum, self._options)
        noise = noise.masked_fill(kind < self._options.original, 0.0)
        unstated = kind >= 1 - self._options.unstated
        to_typical = (typical.square() - known.square()).clamp(min=0.0).sqrt()
        noise = torch.where(unstated, to_typical, noise)
        deviates = torch.randn(values.shape, generator=generator, device=values.device)
        stated = torch.hypot(known, noise).masked_fill(unstated, torch.nan)
        return NoisyTokens(values + noise * deviates, stated)

    def standardise(self, stated: Tensor) -> Tensor:
        """Return what the network reads (N, V) of stated errors, as ``ErrorScaling`` does.

        Parameters
        ----------
        stated
            (N, V), over the token's scale; NaN where not stated.
        """
        log = stated.log().clamp(self._low, self._high)
        return ((log - self._center) / self._scale).nan_to_num(nan=0.0)

    def _by_group(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return uniform numbers (N, V); all coefficients of a star have the same one."""
        u = torch.rand(values.shape, generator=generator, device=values.device)
        shared = torch.rand(len(values), 1, generator=generator, device=values.device)
        return torch.where(self._spectrum, shared, u)


def noise_size(errors: Tensor, u: Tensor, spectrum: Tensor, options: ErrorOptions) -> Tensor:
    """Return the standard deviation (N, V) of the noise to add.

    Parameters
    ----------
    errors
        (N, V) original errors, over the token's scale.
    u
        (N, V) uniform numbers, which choose the size.
    spectrum
        (V,) True for coefficients.
    options
        Sizes of the noise.
    """
    factor = options.spectrum**u
    size = options.least * (options.largest / options.least) ** u
    return torch.where(spectrum, (factor.square() - 1).clamp(min=0.0).sqrt() * errors, size)


def fit_error_scaling(
    errors: NDArray[np.floating],
    scale: NDArray[np.float64],
    spectrum: NDArray[np.bool_],
    options: ErrorOptions,
) -> ErrorScaling:
    """Return the scaling of the errors that a training draws.

    The centre is the median of the logarithms of errors, and so the typical error; the scale is
    their standard deviation within the limits, or 1 where all are equal.

    Parameters
    ----------
    errors
        (n, V) original errors of training stars, in the tokens' units; NaN where absent.
    scale
        (V,) scale of each token in the standardisation.
    spectrum
        (V,) True for coefficients.
    options
        How errors are drawn.
    """
    generator = torch.Generator().manual_seed(0)
    known = torch.tensor(np.asarray(errors, dtype=np.float64) / scale).clamp(min=0.0)
    u, kind = (torch.rand(known.shape, generator=generator, dtype=known.dtype) for _ in range(2))
    noise = noise_size(known, u, torch.tensor(spectrum), options)
    noise[kind < options.original] = 0.0
    drawn = torch.hypot(known, noise).log().numpy()
    fitted = np.tile([[0.0], [1.0], [0.0], [0.0]], (1, len(scale)))
    for column in range(len(scale)):
        x = drawn[:, column]
        x = x[np.isfinite(x)]
        if not x.size:
            continue
        limits = np.quantile(x, QUANTILES)
        spread = np.clip(x, *limits).std()
        fitted[:, column] = np.median(x), spread if spread > LEAST_SPREAD else 1.0, *limits
    center, width, low, high = fitted
    shift = np.log(scale)
    return ErrorScaling(center + shift, width, low + shift, high + shift)
