"""Where stars are in the latent space, computed on the device of the network."""

from __future__ import annotations

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
        self._latent = (
            on_device(latent.mean, latent.shifts, latent.factor, latent.log_sizes) if latent else []
        )
        self._places = on_device(*vars(places).values()) if places else []
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
        mean, shifts, factor, log_sizes = self._latent
        present = summaries.new_zeros(len(ids), len(shifts) + 1).scatter_(1, ids, 1.0)[:, 1:]
        residual = summaries - mean - present @ shifts
        size = torch.exp(present @ log_sizes)[:, None]
        distance: Tensor = torch.linalg.vector_norm(residual @ factor.T, dim=1, keepdim=True) / size
        if not self._places:
            return distance
        projection, centres, widths, known, coefficients = self._places
        somewhere = (present @ coefficients > 0) & (present @ (1.0 - known) == 0)
        at = (residual / size) @ projection
        squares = torch.cdist(at, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        scaled = (squares / (2.0 * widths.square())).clamp(max=FARTHEST)
        closeness = torch.where(somewhere[:, None], torch.exp(-scaled), torch.nan)
        return torch.cat([distance, closeness], dim=1)
