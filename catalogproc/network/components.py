"""The distribution that the network states: one Gaussian, or a weighted sum of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Components:
    """M Gaussians for each of K requests of N stars, standardised.

    Attributes
    ----------
    means, log_variances
        (N, K, M).
    log_weights
        (N, K, M) logarithms of the weights, whose sum is 1; minus infinity where a request has
        fewer Gaussians. None for M = 1.
    """

    means: Tensor
    log_variances: Tensor
    log_weights: Tensor | None = None

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (N, K) of the sum.

        The variance is that of the Gaussians, and that of their means about the mean.
        """
        if self.log_weights is None:
            return self.means[..., 0], self.log_variances[..., 0]
        weights = self.log_weights.exp()
        mean = (weights * self.means).sum(-1)
        spread = (self.means - mean.unsqueeze(-1)).square()
        variance = (weights * (self.log_variances.exp() + spread)).sum(-1)
        return mean, variance.log()

    def float(self) -> Components:
        """Return a copy in single precision."""
        weights = None if self.log_weights is None else self.log_weights.float()
        return Components(self.means.float(), self.log_variances.float(), weights)

    def surprise(self, truth: Tensor, error: Tensor) -> Tensor:
        """Return the negative log likelihood (N, K) of true values, up to a constant.

        The error of the truth widens each Gaussian: 0.5 [(y - mu)^2 / (exp(s) + e^2) +
        ln(exp(s) + e^2)] with s the log variance, y the true value and e its error
        (Leung & Bovy 2024); of several the likelihoods are added with their weights.

        Parameters
        ----------
        truth, error
            (N, K).
        """
        error = error.unsqueeze(-1)
        total = torch.logaddexp(self.log_variances, 2 * error.log())  # (N, K, M)
        residual = truth.unsqueeze(-1) - self.means
        each = 0.5 * (residual.square() * torch.exp(-total) + total)
        if self.log_weights is None:
            return each[..., 0]
        return -torch.logsumexp(self.log_weights - each, dim=-1)

    def mean_gradient(self, mean_weight: Tensor, weight_weight: Tensor | None) -> Tensor:
        """Return the derivative of the mean with respect to the last hidden layer (N, K, D).

        Parameters
        ----------
        mean_weight, weight_weight
            Weights (M, D) of the layers that give the means and the logits of the weights.
        """
        if self.log_weights is None or weight_weight is None:
            return mean_weight.expand(*self.means.shape[:2], -1)
        weights = self.log_weights.exp()
        mean = (weights * self.means).sum(-1, keepdim=True)
        return weights @ mean_weight + (weights * (self.means - mean)) @ weight_weight


def joined(parts: Sequence[Components]) -> Components:
    """Return the distributions of the stars of all parts, in their order.

    Parameters
    ----------
    parts
        Of the same requests and number of Gaussians.
    """
    weights = [part.log_weights for part in parts if part.log_weights is not None]
    return Components(
        torch.cat([part.means for part in parts]),
        torch.cat([part.log_variances for part in parts]),
        torch.cat(weights) if weights else None,
    )
