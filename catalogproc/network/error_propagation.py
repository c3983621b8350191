"""What the errors of a star's tokens do to its answers, by two routes behind one signature.

``first_order``  J C J^T: the answers' derivatives times the tokens' covariance
``sampled``      the scatter of answers to tokens to which errors were added, drawn from it

Where the network is linear across the errors both give the same; where it is not, the first
is wrong and the second right, to the noise of its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.input_covariance import InputNoise, draw
from catalogproc.network.predictor import Prediction, Predictor

ROUTES = ("first_order", "sampled")

# One star costs a reverse pass as much as so many of its own size do the forward pass.
LOAD = {"cpu": 3, "cuda": 8}

ROWS = 8192
"""Draws of a small table are answered together, at least so many rows at a time."""

NONLINEAR = 0.3
"""Standard deviations that differ by a larger share are not of a linear network. Where it is
linear the routes agree within 5 % (tests/network/test_error_propagation.py); across the noise
of faint stars' high coefficients no network is, and differences of 20 % are common."""


@dataclass(frozen=True)
class Propagated:
    """The covariance of K answers of N stars that the errors of their tokens cause.

    ``covariance`` (N, K, K), in the answers' units; NaN for a star with an infinite input.
    ``draws`` is how many it was made from, 0 if not from draws.
    """

    labels: tuple[str, ...]
    covariance: NDArray[np.float64]
    draws: int = 0

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Standard deviations (N, K)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=1, axis2=2), 0.0))

    def correlation(self, one: str, other: str) -> NDArray[np.float64]:
        """Between two of the labels (N,); NaN where one of them has no such error."""
        i, j = self.labels.index(one), self.labels.index(other)
        sigma = self.sigma
        product = sigma[:, i] * sigma[:, j]
        safe = np.where(product > 0, product, np.nan)
        return np.clip(self.covariance[:, i, j] / safe, -1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Jacobian:
    """How K answers of N stars change with V tokens.

    ``values`` (N, K, V) are derivatives of standardised answers with respect to standardised
    tokens, 0 where a token is absent; ``scale`` (V,) and ``units`` (K,) are the scales.
    """

    labels: tuple[str, ...]
    values: NDArray[np.float32]
    scale: NDArray[np.float32]
    units: NDArray[np.float64]

    def propagate(self, noise: InputNoise) -> Propagated:
        """J C J^T, with C the covariance of the tokens."""
        moved = self.values * (noise.known() / self.scale)[:, None, :]  # (N, K, V)
        covariance = moved @ moved.transpose(0, 2, 1)
        for group in noise.correlated:
            part = moved[:, :, group.columns]  # (N, K, n)
            matrix = np.nan_to_num(group.matrix).astype(np.float32)
            at = np.arange(len(group.columns))
            matrix[:, at, at] = 0.0  # the diagonal's part is there already
            covariance += part @ matrix @ part.transpose(0, 2, 1)
        physical = covariance.astype(np.float64) * self.units[:, None] * self.units
        return Propagated(self.labels, physical)


def propagate(
    predictor: Predictor,
    values: NDArray[np.floating],
    noise: InputNoise,
    labels: Sequence[str],
    route: str = "first_order",
    *,
    keys: NDArray[np.int64] | None = None,
    draws: int = 128,
) -> tuple[Prediction, Propagated]:
    """Answer ``labels`` for each star, and say what the errors of its tokens do to the answers.

    Parameters
    ----------
    values
        Tokens (N, V) in their units, NaN where absent, as :meth:`Predictor.predict` has them.
    noise
        Their errors.
    keys
        What identifies each star (N,), for the draws; its place in the table if not given.
    draws
        How many; a standard deviation from n of them is good to 1 in sqrt(2 n).

    Raises
    ------
    JobError
        No such route.
    """
    if route == "first_order":
        return first_order(predictor, values, noise, labels)
    if route == "sampled":
        keys = np.arange(len(values)) if keys is None else keys
        return sampled(predictor, values, noise, labels, keys, draws)
    raise JobError("no such route for errors", wanted=" | ".join(ROUTES), found=route)


def first_order(
    predictor: Predictor,
    values: NDArray[np.floating],
    noise: InputNoise,
    labels: Sequence[str],
) -> tuple[Prediction, Propagated]:
    """J C J^T, with C the covariance of a star's tokens and J the answers' derivatives."""
    prediction, jacobian = differentiate(predictor, values, labels)
    return prediction, jacobian.propagate(noise)


def differentiate(
    predictor: Predictor, values: NDArray[np.floating], labels: Sequence[str]
) -> tuple[Prediction, Jacobian]:
    """Answers, and their derivatives with respect to the tokens, from one forward pass."""
    requests = predictor.requests(labels)
    count, width = len(requests), values.shape[-1]

    def ask(_: NDArray[np.int64], ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        found = predictor.reverse(ids, x, requests)
        # Dense, by token number; number 0 takes what was padded.
        dense = found.jacobian.new_zeros(len(ids), count, width + 1)
        dense.scatter_(2, ids[:, None, :].expand_as(found.jacobian), found.jacobian)
        distance = predictor.distance(found.summary, ids)
        return found.mean, found.log_variance, distance, dense[:, :, 1:]

    shapes = ((count,), (count,), (), (count, width))
    load = LOAD.get(predictor.device.type, LOAD["cuda"])
    *answers, dense = predictor.gather(values, shapes, ask, count, load)
    scale = predictor.bundle.standardisation.scale
    units = scale[predictor.bundle.vocabulary.columns(labels)]
    return (
        predictor.prediction(labels, *answers),
        Jacobian(tuple(labels), dense, scale.astype(np.float32), units),
    )


def sampled(
    predictor: Predictor,
    values: NDArray[np.floating],
    noise: InputNoise,
    labels: Sequence[str],
    keys: NDArray[np.int64],
    draws: int,
) -> tuple[Prediction, Propagated]:
    """The covariance of the answers to ``draws`` tables of tokens with errors added."""
    if draws < 2:
        raise JobError("a scatter needs draws", wanted="2 or more", found=draws)
    answer = predictor.predict(values, labels)
    factors, size, count = noise.factors(), len(values), len(labels)
    first = np.zeros((size, count))
    second = np.zeros((size, count, count))
    together = max(1, ROWS // max(1, size))
    for start in range(0, draws, together):
        numbers = range(start, min(start + together, draws))
        shifted = np.concatenate([values + draw(noise, factors, keys, n) for n in numbers])
        mean = predictor.predict(shifted, labels).mean.astype(np.float64)
        off = mean.reshape(len(numbers), size, count) - answer.mean
        first += off.sum(0)
        second += np.einsum("sni,snj->nij", off, off)
    covariance = (second - first[:, :, None] * first[:, None, :] / draws) / (draws - 1)
    return answer, Propagated(tuple(labels), covariance, draws)


def disagree(one: Propagated, drawn: Propagated) -> NDArray[np.bool_]:
    """Stars (N,) for which the routes differ by more than 30 % and four sigma of the draws."""
    tolerance = NONLINEAR + 4.0 / np.sqrt(2.0 * drawn.draws)
    a, b = one.sigma, drawn.sigma
    return np.asarray((np.abs(a - b) > tolerance * np.maximum(a, b)).any(axis=1))
