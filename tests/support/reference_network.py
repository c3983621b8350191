"""A reference implementation of the network from its published description: NumPy, float64.

One star, one label, one head at a time, with no batches, no padding and no masks. It
shares nothing with catalogproc.network but the names under which weights are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erf, exp, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

_erf = np.vectorize(erf, otypes=[np.float64])


def reference_prediction(
    weights: Weights,
    encoder_heads: Sequence[int],
    decoder_heads: Sequence[int],
    tokens: Sequence[tuple[int, float] | tuple[int, float, float]],
    requests: Sequence[int],
) -> tuple[Array, Array]:
    """Mean and log variance (K,) for one star's tokens: (number, standardised value), and the
    standardised log error where the network reads errors.
    """
    width = weights["weight"].shape[1]
    memory = np.zeros((len(tokens), width))
    for row, (number, value, *error) in enumerate(tokens):
        x = weights["weight"][number] * value + weights["bias"][number]
        for r in error:
            x = x + weights["error_bias"][number] * r + weights["error_weight"][number] * r * value
        memory[row] = gelu(x)
    for block, heads in enumerate(encoder_heads):
        memory = _block(weights, f"encoder.{block}", heads, memory, memory)
    means, log_variances = [], []
    for number in requests:
        x = weights["weight"][number][None, :]
        for block, heads in enumerate(decoder_heads):
            x = _block(weights, f"decoder.{block}", heads, x, memory)
        layer = 0
        while f"head.{layer}.weight" in weights:
            x = gelu(_linear(weights, f"head.{layer}", x))
            layer += 1
        mean, variance = _moments(weights, x)
        means.append(mean)
        log_variances.append(np.log(variance))
    return np.array(means), np.array(log_variances)


def _moments(weights: Weights, x: Array) -> tuple[float, float]:
    """Mean and variance of the weighted Gaussians: E[y] and E[y^2] - E[y]^2."""
    mu = _linear(weights, "mean", x)[0]
    variance = np.exp(_linear(weights, "log_variance", x)[0])
    if len(mu) == 1:
        return mu[0], variance[0]
    shares = np.exp(_linear(weights, "component_weight", x)[0])
    shares /= shares.sum()
    mean = float(shares @ mu)
    return mean, float(shares @ (variance + mu**2)) - mean**2


def gelu(x: Array) -> Array:
    """x times the standard normal's cumulative distribution."""
    return x * 0.5 * (1.0 + _erf(x / sqrt(2.0)))


def _linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normalised(weights: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _block(weights: Weights, name: str, heads: int, x: Array, memory: Array) -> Array:
    x = x + _attention(weights, f"{name}.attention", heads, x, memory)
    x = _normalised(weights, f"{name}.norm_attention", x)
    y = _linear(weights, f"{name}.narrow", gelu(_linear(weights, f"{name}.widen", x)))
    return _normalised(weights, f"{name}.norm_feed_forward", x + y)


def _attention(weights: Weights, name: str, heads: int, x: Array, memory: Array) -> Array:
    """Every row of x attends to every row of memory and to one learned key and value."""
    width = x.shape[1]
    size = width // heads
    query = _linear(weights, f"{name}.query", x)
    both = _linear(weights, f"{name}.key_value", memory)
    both = np.vstack([both, weights[f"{name}.bias_key_value"][None, :]])
    key, value = both[:, :width], both[:, width:]
    out = np.zeros_like(x)
    for row in range(len(x)):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = [float(query[row, part] @ k) / sqrt(size) for k in key[:, part]]
            top = max(scores)
            shares = np.array([exp(score - top) for score in scores])
            out[row, part] = shares @ value[:, part] / shares.sum()
    return _linear(weights, f"{name}.out", out)
