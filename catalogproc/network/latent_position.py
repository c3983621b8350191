"""Where stars are in the latent space, computed on the device of the network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from catalogproc.network.local_calibration import FARTHEST
from catalogproc.network.uncertainty_calibration import Latent


class LatentPosition:
    """The distance from the training stars, and the closeness to the places of the calibration.

    What :class:`~catalogproc.network.uncertainty_calibration.Latent` and
    :class:`~catalogproc.network.local_calibration.Places` compute, of a batch of stars.

    Parameters
    ----------
    latent
        Of the bundle; None where it has none.
    device, dtype
        Of the network.
    """

    def __init__(self, latent: Latent | None, device: torch.device, dtype: torch.dtype) -> None:
        def on_device(*arrays: ArrayLike) -> list[Tensor]:
            return [torch.tensor(x, dtype=dtype, device=device) for x in arrays]

        places = latent.places if latent else None
        self._latent, self._places = [], []
        if latent:
            # What a star's tokens add up to, and what its residual is multiplied with.
            tokens = [latent.shifts, latent.log_sizes[:, None]]
            directions = [latent.factor.T]
            if places:
                tokens += [places.coefficients[:, None], 1.0 - places.known[:, None]]
                directions.append(places.projection)
                self._places = on_device(places.centres, -0.5 / places.widths**2)
            columns = (np.concatenate(parts, axis=1) for parts in (tokens, directions))
            self._latent = on_device(latent.mean, *columns)
        self.columns = 1 + (len(places.widths) if places else 0)
        """Number of columns of the result."""

    def __call__(self, summaries: Tensor, ids: Tensor) -> Tensor:
        """Return the distance, and then the closeness to each place.

        Parameters
        ----------
        summaries
            Mean encoder output (n, D) of each star.
        ids
            Token numbers (n, T), 0 where padded.

        Returns
        -------
        (n, columns); the distance is NaN if the bundle has no latent Gaussian.
        """
        if not self._latent:
            return torch.full_like(summaries[:, :1], torch.nan)
        mean, tokens, directions = self._latent
        d = len(mean)
        present = summaries.new_zeros(len(ids), len(tokens) + 1).scatter_(1, ids, 1.0)[:, 1:]
        sums = present @ tokens
        residual = (summaries - mean - sums[:, :d]) / torch.exp(sums[:, d : d + 1])
        at = residual @ directions
        distance: Tensor = torch.linalg.vector_norm(at[:, :d], dim=1, keepdim=True)
        if not self._places:
            return distance
        centres, steepness = self._places
        somewhere = (sums[:, d + 1] > 0) & (sums[:, d + 2] == 0)
        squares = torch.cdist(
            at[:, d:], centres, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        closeness = torch.exp((squares * steepness).clamp(min=-FARTHEST))
        return torch.cat([distance, closeness.masked_fill(~somewhere[:, None], torch.nan)], dim=1)
