"""What the network sees of a star in one training step, and where the stars come from.

A step shows the network a random few of a star's tokens and asks it for a random few,
which may be among those it saw. All of it is done on whole batches, on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from catalogproc.datasets.star_table import _tensor
from catalogproc.network.bundle import Standardisation
from catalogproc.network.transformer import PADDING

LABEL_KEPT = 0.75
"""Share of the labels that are shown of a star of which nothing else is."""


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
