"""What the network sees of a star in one training step, and where the stars come from.

A step shows the network a random few of a star's tokens and asks it for a random few,
which may be among those it saw. All of it is done on whole batches, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.bundle import Domain, Standardisation
from catalogproc.network.transformer import PADDING

LABEL_KEPT = 0.75
"""Share of the labels that are shown of a star of which nothing else is."""

Draw = Callable[[int, int], tuple[Any, ...]]
"""(seed, n) to values and errors (n, V), NumPy or PyTorch, in the tokens' units.

NaN is a token that a star lacks, or an error that is not known (then it is taken as 0).
A third array (n, V), if there is one, is True where a token is kept from the network, which
may be asked for it all the same. The same seed and n must give the same stars.
"""


@dataclass(frozen=True)
class Sample:
    """One step's questions: N stars, T tokens shown, K tokens asked; all standardised.

    ``ids`` and ``values`` (N, T) are what is shown, 0 where padded, stars with more tokens
    first. ``requests``, ``truth``, ``error`` and ``asked`` (N, K) are what is asked;
    where ``asked`` is False there is no question, because the star has no more tokens.
    """

    ids: Tensor
    values: Tensor
    requests: Tensor
    truth: Tensor
    error: Tensor
    asked: Tensor


def standardise(
    values: Any, errors: Any, standardisation: Standardisation, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Values and errors (n, V) as the network reads them: by float64, to float32."""
    given = [_tensor(x).to(device, torch.float64) for x in (values, errors)]
    center, scale = (
        torch.tensor(x, device=device) for x in (standardisation.center, standardisation.scale)
    )
    z = (given[0] - center) / scale
    error = (given[1] / scale).nan_to_num(nan=0.0).clamp(min=0.0)
    return z.masked_fill(~z.isfinite(), torch.nan).float(), error.float()


def sample(
    values: Tensor,
    errors: Tensor,
    weights: Tensor,
    *,
    tokens: tuple[int, int],
    targets: int,
    repeat: float = 1.0,
    labels: Tensor | None = None,
    unlabelled: float = 0.0,
    labels_alone: float = 0.0,
    hidden: Tensor | None = None,
    generator: torch.Generator,
) -> Sample:
    """Draw what is shown and what is asked of each star.

    Parameters
    ----------
    values, errors
        (N, V), standardised; NaN where a star lacks a token.
    weights
        (V,): how likely each token is to be asked beside the others; 0 is never.
    tokens
        The number of tokens shown is uniform between these two, both included, or all
        that a star has if it has fewer; which ones is uniform.
    targets
        How many are asked, drawn without replacement; fewer if a star has fewer.
    repeat
        How likely a token that is shown is asked, beside one that is not; 0 is never.
    labels, unlabelled
        (V,), which tokens are labels; and how likely a star is shown without any of them, as
        a run shows it. They may be asked all the same.
    labels_alone
        How likely a star is shown by its labels alone, LABEL_KEPT of them.
    hidden
        (N, V), True for tokens that must not be shown. A star of which something is hidden
        keeps all others.
    """
    n, v = values.shape
    device = values.device
    present = ~values.isnan()  # (N, V)
    showable = present
    if labels is not None and unlabelled + labels_alone > 0:
        u = torch.rand(n, 1, generator=generator, device=device)
        bare, alone = u < unlabelled, u >= 1 - labels_alone
        alone = alone & (present & labels).any(1, keepdim=True)
        if hidden is not None:
            whole = ~hidden.any(1, keepdim=True)
            bare, alone = bare & whole, alone & whole
        showable = present & ~(bare & labels)
        if labels_alone > 0:
            kept = torch.rand(n, v, generator=generator, device=device) < LABEL_KEPT
            showable &= ~alone | (labels & kept)
    if hidden is not None:
        showable = showable & ~hidden
    least, most = tokens[0], min(tokens[1], v)
    sizes = torch.randint(least, most + 1, (n,), generator=generator, device=device)
    sizes, order = torch.minimum(sizes, showable.sum(1)).sort(descending=True, stable=True)
    values, errors = values[order], errors[order]
    present, showable = present[order], showable[order]

    keys = torch.rand(n, v, generator=generator, device=device).masked_fill(~showable, -1.0)
    shown = keys.topk(max(1, int(sizes[0])), dim=1).indices  # (N, T), in random order
    filled = torch.arange(shown.shape[1], device=device) < sizes[:, None]
    ids = torch.where(filled, shown + 1, PADDING)
    x = torch.where(filled, values.gather(1, shown), 0.0)

    # The largest of log(u) / w are a weighted draw without replacement
    # (Efraimidis & Spirakis 2006, Inf. Process. Lett. 97, 181).
    likely = torch.where(present, weights, 0.0)  # (N, V)
    likely = likely.scatter(1, shown, likely.gather(1, shown) * torch.where(filled, repeat, 1.0))
    u = torch.rand(n, v, generator=generator, device=device).clamp(min=1e-38)
    keys = (u.log() / likely).masked_fill(likely <= 0, -torch.inf)
    best, chosen = keys.topk(min(targets, v), dim=1)  # (N, K)
    asked = best > -torch.inf
    truth = torch.where(asked, values.gather(1, chosen), 0.0)
    error = torch.where(asked, errors.gather(1, chosen), 0.0)
    return Sample(ids, x, chosen + 1, truth, error, asked)


@dataclass(frozen=True, eq=False)
class Table:
    """A fixed set of stars to draw from: values and errors (n, V), and their identifiers."""

    ids: NDArray[np.int64]
    values: NDArray[np.floating]
    errors: NDArray[np.floating]

    def __post_init__(self) -> None:
        if self.values.shape != self.errors.shape or len(self.ids) != len(self.values):
            raise JobError(
                "a training table's parts must be of one length",
                found=(self.ids.shape, self.values.shape, self.errors.shape),
            )

    def draw(self, seed: int, n: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """A :data:`Draw`: n rows, uniformly and with replacement."""
        rows = np.random.default_rng(seed).integers(len(self.ids), size=n)
        return self.values[rows], self.errors[rows]

    def draw_without(self, column: int, share: float) -> Draw:
        """A :data:`Draw` of these rows that hides a column of this share of them."""

        def draw(seed: int, n: int) -> tuple[NDArray[Any], ...]:
            values, errors = self.draw(seed, n)
            hidden = np.zeros(values.shape, dtype=bool)
            hidden[:, column] = np.random.default_rng([seed, column]).random(n) < share
            return values, errors, hidden

        return draw

    def split(self, fraction: float, seed: int) -> tuple[Table, Table]:
        """Two tables, the second with about ``fraction`` of the stars.

        A star's side follows from its identifier and the seed alone: rows of the same
        star stand on the same side, in whatever order and company they come.
        """
        held = _uniform(self.ids, seed) < fraction
        first, second = (
            Table(self.ids[rows], self.values[rows], self.errors[rows]) for rows in (~held, held)
        )
        return first, second


def mixture(parts: Sequence[tuple[Draw, float]]) -> Draw:
    """A :data:`Draw` that takes from each part its share of every batch."""
    shares = np.cumsum([0.0] + [share for _, share in parts])

    def draw(seed: int, n: int) -> tuple[Tensor, ...]:
        counts = np.diff(np.round(shares / shares[-1] * n).astype(int))
        seeds = np.random.SeedSequence(seed).generate_state(len(parts), np.uint64) >> np.uint64(1)
        drawn = [
            part(int(each), int(count))
            for (part, _), each, count in zip(parts, seeds, counts, strict=True)
        ]
        values, errors = (
            torch.cat([_tensor(stars[side]).to(torch.float64) for stars in drawn])
            for side in (0, 1)
        )
        if all(len(stars) == 2 for stars in drawn):
            return values, errors
        hidden = [
            _tensor(stars[2]) if len(stars) > 2 else torch.zeros(stars[0].shape, dtype=torch.bool)
            for stars in drawn
        ]
        return values, errors, torch.cat(hidden)

    return draw


def describe(
    values: NDArray[np.floating], labels: NDArray[np.bool_]
) -> tuple[Standardisation, Domain]:
    """Standardisation and domain of training stars, in the tokens' units.

    ``values`` (n, V), NaN where absent; ``labels`` (V,) says which tokens are labels.
    Median and 1.4826 times the median absolute deviation, as Leung & Bovy (2024) scale;
    the standard deviation where most values are the same, and 1 where all are. The
    domain is as :class:`Domain` says.
    """
    v = values.shape[1]
    center, scale = np.zeros(v), np.ones(v)
    low, high = np.full((2, v), np.nan)
    for column in range(v):
        x = values[:, column].astype(np.float64)
        x = x[np.isfinite(x)]
        if not x.size:
            continue
        center[column] = np.median(x)
        spreads = (1.4826 * np.median(np.abs(x - center[column])), x.std(), 1.0)
        scale[column] = next(spread for spread in spreads if spread > 0)
        edges = (0.0, 1.0) if labels[column] else (0.002, 0.998)
        low[column], high[column] = np.quantile(x, edges)
    return Standardisation(center, scale), Domain(low, high)


def _tensor(x: Any) -> Tensor:
    # Copied, because PyTorch warns of memory that is read-only, as Arrow's is.
    return x if isinstance(x, Tensor) else torch.tensor(x)


def _uniform(ids: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each identifier: SplitMix64 (Steele et al. 2014)."""
    mix = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    x = ids.astype(np.int64).view(np.uint64) ^ mix
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
