"""How many floating point operations a star takes: a product and a sum are two.

Matrix products alone; what is computed once a batch, such as a request's first query, is
left out, and so is everything that is not a matrix product.
"""

from __future__ import annotations

from itertools import pairwise

from catalogproc.network.transformer import Shape


def encode(shape: Shape, tokens: float) -> float:
    """Of the encoder, for one star with so many tokens."""
    d = shape.width
    total = 0.0
    for _, inner in shape.encoder:
        total += tokens * 2 * (4 * d * d + 2 * d * inner)
        total += 4 * tokens * (tokens + 1) * d  # queries times keys, shares times values
    return total


def keys_and_values(shape: Shape, tokens: float) -> float:
    """Of the decoder's keys and values, once a star."""
    return len(shape.decoder) * tokens * 4 * shape.width**2


def answer(shape: Shape, tokens: float) -> float:
    """Of one request to one star: the decoder's blocks and the head."""
    d = shape.width
    total = -2.0 * d * d  # a request's first query is the same for all stars
    for _, inner in shape.decoder:
        total += 2 * (2 * d * d + 2 * d * inner) + 4 * (tokens + 1) * d
    return total + head(shape)


def head(shape: Shape) -> float:
    """Of the head, for one answer."""
    widths = (shape.width, *shape.head)
    return 2.0 * sum(a * b for a, b in pairwise(widths)) + 4.0 * widths[-1]


def star(shape: Shape, tokens: float, labels: int) -> float:
    """Of one star: encoded once, keys and values once, so many answers."""
    return encode(shape, tokens) + keys_and_values(shape, tokens) + labels * answer(shape, tokens)
