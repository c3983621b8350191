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
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.network.noise import InputNoise, draw
from catalogproc.network.predictor import Prediction, Predictor

ROUTES = ("first_order", "sampled")

# One star costs a reverse pass as much as so many of its own size do the forward pass.
LOAD = {"cpu": 4, "cuda": 8}

ROWS = 8192
"""Draws of a small table are answered together, at least so many rows at a time."""

NONLINEAR = 0.3
"""Standard deviations that differ by a larger share are not of a linear network. Where it is
linear the routes agree within 5 % (tests/test_propagate.py); across the noise of faint stars'
high coefficients no network is, and differences of 20 % are common."""


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
    """J C J^T, with C the covariance of a star's tokens and J the answers' derivatives.

    The answers come from the same forward pass, so plain inference is not needed beside it.
    """
    requests = predictor.requests(labels)
    count, width = len(requests), values.shape[-1]
    scale = torch.tensor(predictor.bundle.standardisation.scale, device=predictor.device)
    known = noise.known()

    def ask(rows: NDArray[np.int64], ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        found = predictor.reverse(ids, x, requests)
        errors = (torch.from_numpy(known[rows]).to(x.device) / scale).to(x.dtype)  # (n, V)
        moved = found.jacobian * errors.gather(1, (ids - 1).clamp(min=0))[:, None, :]  # (n, K, T)
        covariance = moved @ moved.transpose(1, 2)
        if noise.correlated:
            # Column 0 takes what was padded.
            dense = moved.new_zeros(len(rows), count, width + 1)
            dense.scatter_(2, ids[:, None, :].expand_as(moved), moved)
            for group in noise.correlated:
                part = dense[:, :, torch.from_numpy(group.columns + 1)]  # (n, K, n_group)
                matrix = torch.from_numpy(np.nan_to_num(group.matrix[rows])).to(part)
                matrix.diagonal(dim1=1, dim2=2).zero_()  # that part is there already
                covariance += part @ matrix @ part.transpose(1, 2)
        return (
            found.mean,
            found.log_variance,
            predictor.distance(found.summary, ids),
            covariance,
        )

    shapes = ((count,), (count,), (), (count, count))
    load = LOAD.get(predictor.device.type, LOAD["cuda"])
    *answers, covariance = predictor.gather(values, shapes, ask, count, load)
    units = predictor.bundle.standardisation.scale[predictor.bundle.vocabulary.columns(labels)]
    physical = covariance.astype(np.float64) * units[:, None] * units
    return predictor.prediction(labels, *answers), Propagated(tuple(labels), physical)


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
