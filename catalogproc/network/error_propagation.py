"""Uncertainties of the predictions caused by the errors of the tokens, by two methods.

``first_order``  J C J^T: the predictions' derivatives times the tokens' covariance
``sampled``      the covariance of predictions from tokens with random errors added

Where the network is linear across the errors both give the same; where it is not, only the
second is right, to the statistical error of its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.batch_function import BatchFunction
from catalogproc.network.input_covariance import InputNoise, draw_errors
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Prediction, Predictor
from catalogproc.network.star_tokens import StarTokens

# The cost of a forward and a reverse pass relative to a forward pass, for the size of a batch.
REVERSE_COST = {"cpu": 3, "cuda": 8}

MIN_ROWS = 8192
"""Draws of a small table are predicted together, in tables of about this many rows."""

NONLINEAR = 0.3
"""Relative difference of the two standard deviations above which the network is not linear.
Where it is linear the methods agree within 5 % (tests/network/test_error_propagation.py);
across the noise of faint stars' high coefficients differences of 20 % are common."""


@dataclass(frozen=True)
class Propagated:
    """The covariance of K predictions of N stars caused by the errors of their tokens.

    ``covariance`` (N, K, K), in the predictions' units; NaN for a star with an infinite
    input. ``draws`` is the number of draws, 0 for the first-order method.
    """

    labels: tuple[str, ...]
    covariance: NDArray[np.float64]
    draws: int = 0

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Standard deviations (N, K)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=1, axis2=2), 0.0))

    def correlation(self, one: str, other: str) -> NDArray[np.float64]:
        """Return the correlation of two predictions.

        Parameters
        ----------
        one, other
            Two of the labels.

        Returns
        -------
        (N,); NaN where one of the standard deviations is zero.
        """
        i, j = self.labels.index(one), self.labels.index(other)
        sigma = self.sigma
        product = sigma[:, i] * sigma[:, j]
        safe = np.where(product > 0, product, np.nan)
        return np.clip(self.covariance[:, i, j] / safe, -1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Jacobian:
    """Derivatives of K predictions of N stars with respect to V tokens.

    ``values`` (N, K, V) are derivatives of standardised predictions with respect to
    standardised tokens, 0 where a token is absent; ``scale`` (V,) and ``units`` (K,) are the
    scales of the tokens and of the labels.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float32]
    scale: NDArray[np.float32]
    units: NDArray[np.float64]

    def propagate(self, noise: InputNoise) -> Propagated:
        """Return J C J^T.

        Parameters
        ----------
        noise
            The covariance C of the tokens.
        """
        scaled = self.values * (noise.filled() / self.scale)[:, None, :]  # (N, K, V)
        covariance = scaled @ scaled.transpose(0, 2, 1)
        for group in noise.correlated:
            part = scaled[:, :, group.columns]  # (N, K, n)
            matrix = np.nan_to_num(group.matrix).astype(np.float32)
            diagonal = np.arange(len(group.columns))
            matrix[:, diagonal, diagonal] = 0.0  # is in the covariance already
            covariance += part @ matrix @ part.transpose(0, 2, 1)
        physical = covariance.astype(np.float64) * self.units[:, None] * self.units
        return Propagated(self.labels, physical)


@dataclass(frozen=True, eq=False)
class Draws:
    """Which random errors :func:`sampled` adds.

    Attributes
    ----------
    keys
        What identifies each star (N,): the errors of a star follow from its key.
    count
        How many draws, 2 or more; a standard deviation from n of them has a relative error
        of 1 / sqrt(2 n).
    """

    keys: NDArray[np.int64]
    count: int = 128

    def __post_init__(self) -> None:
        if self.count < 2:
            raise JobError("too few draws for a covariance", wanted="2 or more", found=self.count)


def first_order(
    predictor: Predictor,
    tokens: StarTokens,
    noise: InputNoise,
    labels: Sequence[str],
) -> tuple[Prediction, Propagated]:
    """Predict labels, and propagate the errors of the tokens by J C J^T.

    Parameters
    ----------
    predictor
        The model.
    tokens
        Of N stars.
    noise
        The errors to propagate, with their correlations.
    labels
        Names of the K tokens to predict.
    """
    prediction, jacobian = differentiate(predictor, tokens, labels)
    return prediction, jacobian.propagate(noise)


def differentiate(
    predictor: Predictor, tokens: StarTokens, labels: Sequence[str]
) -> tuple[Prediction, Jacobian]:
    """Predict labels, with the derivatives with respect to the tokens, in one pass.

    Parameters
    ----------
    predictor, tokens, labels
        As for :func:`first_order`.
    """
    requests, reverse_pass = predictor.requests(labels), predictor.reverse_pass
    count, width = len(requests), tokens.values.shape[1]

    def forward(packed: PackedTokens) -> tuple[Tensor, ...]:
        ids, found = packed.ids, reverse_pass(packed, requests)
        # Dense, by token number; column 0 takes the padding.
        dense = found.jacobian.new_zeros(len(ids), count, width + 1)
        dense.scatter_(2, ids[:, None, :].expand_as(found.jacobian), found.jacobian)
        latent = predictor.latent(found.summary, ids)
        return *predictor.outputs(found.components), latent, dense[:, :, 1:]

    shapes = (*predictor.prediction_shapes(count), (count, width))
    cost = REVERSE_COST.get(predictor.device.type, REVERSE_COST["cuda"])
    function = BatchFunction(("differentiate", tuple(labels)), forward, shapes, count, cost)
    *standardised, dense = predictor.map_batches(tokens, function)
    scale = predictor.bundle.standardisation.scale
    units = scale[predictor.bundle.vocabulary.columns(labels)]
    return (
        predictor.prediction(labels, *standardised),
        Jacobian(tuple(labels), dense, scale.astype(np.float32), units),
    )


class Predicts(Protocol):
    """What predicts labels from tokens: a predictor, or one of several questions."""

    def predict(self, tokens: StarTokens, labels: Sequence[str]) -> Prediction:
        """Predict labels for each star."""
        ...


def sampled(
    predictor: Predicts,
    tokens: StarTokens,
    noise: InputNoise,
    labels: Sequence[str],
    draws: Draws,
) -> tuple[Prediction, Propagated]:
    """Predict labels, and the covariance of predictions from tokens with errors added.

    Parameters
    ----------
    predictor
        The model.
    tokens, noise, labels
        As for :func:`first_order`. The errors that the model reads stay the stated ones.
    draws
        Which errors are added.
    """
    prediction = predictor.predict(tokens, labels)
    factors, size, count = noise.cholesky(), len(tokens), len(labels)
    first = np.zeros((size, count))
    second = np.zeros((size, count, count))
    per_table = max(1, MIN_ROWS // max(1, size))
    for start in range(0, draws.count, per_table):
        numbers = range(start, min(start + per_table, draws.count))
        noisy = np.concatenate(
            [tokens.values + draw_errors(noise, factors, draws.keys, number) for number in numbers]
        )
        drawn = StarTokens(noisy, np.tile(tokens.errors, (len(numbers), 1)))
        mean = predictor.predict(drawn, labels).mean.astype(np.float64)
        # Deviations from the prediction itself, not from zero, so that no digits are lost.
        deviation = mean.reshape(len(numbers), size, count) - prediction.mean
        first += deviation.sum(0)
        second += np.einsum("sni,snj->nij", deviation, deviation)
    n = draws.count
    covariance = (second - first[:, :, None] * first[:, None, :] / n) / (n - 1)
    return prediction, Propagated(tuple(labels), covariance, n)


def disagree(linear: Propagated, drawn: Propagated) -> NDArray[np.bool_]:
    """Return the stars for which the two methods disagree for any of the labels.

    Parameters
    ----------
    linear, drawn
        From :func:`first_order` and from :func:`sampled`, for the same N stars and labels.

    Returns
    -------
    (N,), True where standard deviations differ by more than 30 % and four standard errors
    of the draws.
    """
    tolerance = NONLINEAR + 4.0 / np.sqrt(2.0 * drawn.draws)
    a, b = linear.sigma, drawn.sigma
    return np.asarray((np.abs(a - b) > tolerance * np.maximum(a, b)).any(axis=1))
