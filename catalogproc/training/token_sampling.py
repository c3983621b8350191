"""Batches of a training: which tokens of each star are shown to the network, and which requested.

Every step shows a random subset of a star's tokens and requests another one, which may overlap.
Whole batches are processed at once, on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.datasets.star_table import StarSampler, StarTable, as_tensor
from catalogproc.network.bundle import Standardisation
from catalogproc.network.packed_tokens import PADDING, PackedTokens
from catalogproc.training.config import Settings
from catalogproc.training.error_sampling import ErrorDraws, ErrorSampler
from catalogproc.training.stars_ahead import StarsAhead

LABELS_SHOWN = 0.75
"""Fraction of the labels shown in labels-only mode."""


@dataclass(frozen=True, eq=False)
class TrainingStars:
    """The stars of a training, as tokens of any vocabulary.

    Attributes
    ----------
    sampler
        Gives the stars of a step.
    standardisation
        Centre and scale of each token.
    weights
        (V,) relative probability of requesting each token that a star has; None for equal ones.
    labels
        (V,) True for tokens that are labels, for ``Settings.unlabelled``; None if there are none.
    read
        (V,) True for tokens that the default job reads, for ``Settings.as_run``; None for all.
    validation
        Stars that ``sampler`` never gives, for the validation loss.
    errors
        How errors are drawn, for a network that reads them; None for another.
    least_errors
        (V,) smallest error of the true value of each token, in its unit; None for 0.
    """

    sampler: StarSampler
    standardisation: Standardisation
    weights: NDArray[np.floating] | None = None
    labels: NDArray[np.bool_] | None = None
    read: NDArray[np.bool_] | None = None
    validation: StarTable | None = None
    errors: ErrorDraws | None = None
    least_errors: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class TokenBatch:
    """One step's tokens, standardised: N stars, T tokens shown, K tokens requested.

    Attributes
    ----------
    shown
        The shown tokens (N, T); stars with more tokens come first.
    requests, truth, error
        (N, K) numbers, values and errors of the requested tokens.
    requested
        (N, K) False where a star has no further token to request.
    """

    shown: PackedTokens
    requests: Tensor
    truth: Tensor
    error: Tensor
    requested: Tensor

    def rows(self, which: slice) -> TokenBatch:
        """Return some of the stars.

        Parameters
        ----------
        which
            Rows.
        """
        others = (self.requests, self.truth, self.error, self.requested)
        return TokenBatch(self.shown.rows(which), *(part[which] for part in others))


def standardise(
    values: Any, errors: Any, standardisation: Standardisation, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return values and errors over the tokens' scales: computed in float64, then float32.

    Parameters
    ----------
    values, errors
        (n, V) in the tokens' units, NaN where absent or unknown.
    standardisation
        Centre and scale of each token.
    device
        Where the results are.
    """
    x, e = (as_tensor(item).to(device, torch.float64) for item in (values, errors))
    center, scale = (
        torch.tensor(item, device=device)
        for item in (standardisation.center, standardisation.scale)
    )
    z = (x - center) / scale
    error = (e / scale).clamp(min=0.0)
    finite = (x.masked_fill(~x.isfinite(), torch.nan).float() for x in (z, error))
    return next(finite), next(finite)


@dataclass(frozen=True, eq=False)
class TokenSampler:
    """Chooses shown and requested tokens by the rules of :class:`Settings`.

    Attributes
    ----------
    weights
        (V,) relative probability of requesting each token; 0 is never.
    labels
        (V,) True for labels; None if there are none.
    read
        (V,) True for tokens that the default job reads; None for all.
    settings
        min_tokens to max_tokens tokens are shown, uniformly chosen, or all that a star has if it
        has fewer; ``targets`` are requested without replacement, or fewer if a star has fewer.
    errors
        Draws errors and noise of the shown tokens, for a network that reads errors.
    least_errors
        (V,) smallest error of a requested value, standardised; None for 0.
    """

    weights: Tensor
    labels: Tensor | None = None
    read: Tensor | None = None
    settings: Settings = field(default_factory=Settings)
    errors: ErrorSampler | None = None
    least_errors: Tensor | None = None

    def sample(
        self,
        values: Tensor,
        errors: Tensor,
        generator: torch.Generator,
        hidden: Tensor | None = None,
    ) -> TokenBatch:
        """Choose the shown and the requested tokens of each star.

        Parameters
        ----------
        values, errors
            (N, V), standardised; NaN where a star lacks a token, and where an error is unknown:
            that of a truth then counts as 0.
        generator
            Source of random numbers, on the same device.
        hidden
            (N, V), True for tokens that must not be shown. All other tokens of a star with
            hidden ones may be shown, whatever ``unlabelled`` and ``labels_alone`` say.
        """
        n, v = values.shape
        least, most = self.settings.min_tokens, min(self.settings.max_tokens, v)
        present = ~values.isnan()  # (N, V)
        showable = self._showable(present, hidden, generator)
        sizes = torch.randint(least, most + 1, (n,), generator=generator, device=values.device)
        sizes, order = torch.minimum(sizes, showable.sum(1)).sort(descending=True, stable=True)
        values, errors = values[order], errors[order]
        present, showable = present[order], showable[order]

        keys = torch.rand(n, v, generator=generator, device=values.device)
        keys = keys.masked_fill(~showable, -1.0)
        shown = keys.topk(max(1, int(sizes[0])), dim=1).indices  # (N, T), in random order
        filled = torch.arange(shown.shape[1], device=values.device) < sizes[:, None]
        ids = torch.where(filled, shown + 1, PADDING)
        x, r = values, None
        if self.errors is not None:
            noisy = self.errors.add_noise(values, errors, generator)
            x, r = noisy.values, self.errors.standardise(noisy.errors)
            r = torch.where(filled, r.gather(1, shown), 0.0)
        x = torch.where(filled, x.gather(1, shown), 0.0)

        weights = torch.where(present, self.weights, 0.0)  # (N, V)
        repeated = weights.gather(1, shown) * torch.where(filled, self.settings.repeat, 1.0)
        chosen, requested = self._requests(weights.scatter(1, shown, repeated), generator)
        truth = torch.where(requested, values.gather(1, chosen), 0.0)
        error = errors.gather(1, chosen).nan_to_num(nan=0.0)
        if self.least_errors is not None:
            error = torch.maximum(error, self.least_errors[chosen])
        error = torch.where(requested, error, 0.0)
        return TokenBatch(PackedTokens(ids, x, r), chosen + 1, truth, error, requested)

    def _showable(
        self, present: Tensor, hidden: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return which tokens (N, V) may be shown."""
        settings, (n, v) = self.settings, present.shape

        def uniform(columns: int = 1) -> Tensor:
            return torch.rand(n, columns, generator=generator, device=present.device)

        showable = present
        if self.read is not None and settings.as_run > 0:
            allowed = self.read if self.labels is None else self.read | self.labels
            showable = showable & (allowed | (uniform() >= settings.as_run))
        if self.labels is not None and settings.unlabelled + settings.labels_alone > 0:
            u = uniform()
            without, alone = u < settings.unlabelled, u >= 1 - settings.labels_alone
            alone = alone & (present & self.labels).any(1, keepdim=True)
            if hidden is not None:
                free = ~hidden.any(1, keepdim=True)
                without, alone = without & free, alone & free
            absent = without & self.labels
            if self.read is not None and settings.measured > 0:
                absent = absent & ~(self.read & (uniform(v) < settings.measured))
            showable = showable & ~absent
            if settings.labels_alone > 0:
                showable &= ~alone | (self.labels & (uniform(v) < LABELS_SHOWN))
        return showable if hidden is None else showable & ~hidden

    def _requests(self, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return columns (N, K) drawn by weights (N, V), and whether each is valid.

        The largest of log(u) / w are a weighted draw without replacement
        (Efraimidis & Spirakis 2006, Inf. Process. Lett. 97, 181).
        """
        u = torch.rand(weights.shape, generator=generator, device=weights.device).clamp(min=1e-38)
        keys = (u.log() / weights).masked_fill(weights <= 0, -torch.inf)
        best, chosen = keys.topk(min(self.settings.targets, weights.shape[1]), dim=1)
        return chosen, best > -torch.inf


class BatchSource:
    """Batches of a training, each determined by the seed and the step number alone.

    Parameters
    ----------
    stars
        The stars, with weights.
    settings
        Seed, batch size and rules of the token choice.
    device
        Where the batches are.
    threads
        Number of threads that draw the stars of the next steps beforehand.
    """

    def __init__(
        self, stars: TrainingStars, settings: Settings, device: torch.device, threads: int = 0
    ) -> None:
        self._stars, self._settings, self._device = stars, settings, device
        self._drawn = StarsAhead(self._draw, threads)
        weights = torch.tensor(stars.weights, dtype=torch.float32, device=device)
        labels = None if stars.labels is None else torch.tensor(stars.labels, device=device)
        errors = None
        if stars.errors is not None:
            errors = ErrorSampler(stars.errors, stars.standardisation.scale, device)
        read = None if stars.read is None else torch.tensor(stars.read, device=device)
        least = None
        if stars.least_errors is not None:
            scaled = stars.least_errors / stars.standardisation.scale
            least = torch.tensor(scaled, dtype=torch.float32, device=device)
        self._tokens = TokenSampler(weights, labels, read, settings, errors, least)
        self.validation = None
        """Standardised values and errors (M, V) of the validation stars."""
        if stars.validation is not None:
            self.validation = self._standardise(stars.validation.values, stars.validation.errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drawn.__exit__(kind, error, trace)

    def _draw(self, step: int) -> tuple[Any, ...]:
        """Return the stars of a step, as the sampler gives them."""
        return self._stars.sampler(
            derived_seeds(self._settings.seed, step)[0], self._settings.batch
        )

    def batch(self, step: int) -> tuple[TokenBatch, int]:
        """Return the tokens of a step, and a seed for its other random numbers.

        Parameters
        ----------
        step
            Number of the step, from 0.
        """
        _, token_seed, network_seed = derived_seeds(self._settings.seed, step)
        values, errors, *rest = self._drawn(step)
        hidden = torch.as_tensor(rest[0]).to(self._device) if rest else None
        batch = self.tokens(*self._standardise(values, errors), token_seed, hidden)
        return batch, network_seed

    def tokens(
        self, values: Tensor, errors: Tensor, seed: int, hidden: Tensor | None = None
    ) -> TokenBatch:
        """Choose tokens of given stars; see :meth:`TokenSampler.sample`.

        Parameters
        ----------
        values, errors
            (N, V), standardised.
        seed
            Seed of the choice.
        hidden
            (N, V), True for tokens that must not be shown.
        """
        generator = torch.Generator(self._device).manual_seed(seed)
        return self._tokens.sample(values, errors, generator, hidden)

    def _standardise(self, values: Any, errors: Any) -> tuple[Tensor, Tensor]:
        return standardise(values, errors, self._stars.standardisation, self._device)


def derived_seeds(*numbers: int) -> list[int]:
    """Return three seeds, independent of those of any other numbers.

    Parameters
    ----------
    numbers
        A seed, and numbers that tell its uses apart.
    """
    state = np.random.SeedSequence(numbers).generate_state(3, np.uint64) >> np.uint64(1)
    return [int(seed) for seed in state]
