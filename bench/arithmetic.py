"""Number of floating point operations per star; a multiplication and an addition count as two.

Only matrix products are counted, without those computed once per batch, such as the first query of
a requested label.
"""

from __future__ import annotations

from itertools import pairwise

from catalogproc.network.shape import Shape


def encode(shape: Shape, tokens: float) -> float:
    """Return the operations of the encoder for one star.

    Parameters
    ----------
    shape
        Shape of the network.
    tokens
        Number of tokens of the star.
    """
    d = shape.width
    total = 0.0
    for _, inner in shape.encoder:
        total += tokens * 2 * (4 * d * d + 2 * d * inner)
        total += 4 * tokens * (tokens + 1) * d  # queries times keys, shares times values
    return total


def keys_and_values(shape: Shape, tokens: float) -> float:
    """Return the operations of the decoder's keys and values, computed once per star."""
    return len(shape.decoder) * tokens * 4 * shape.width**2


def label(shape: Shape, tokens: float) -> float:
    """Return the operations of one label of one star: the decoder's blocks and the head."""
    d = shape.width
    total = -2.0 * d * d  # the first query of a label is the same for all stars
    for _, inner in shape.decoder:
        total += 2 * (2 * d * d + 2 * d * inner) + 4 * (tokens + 1) * d
    return total + head(shape)


def head(shape: Shape) -> float:
    """Return the operations of the head for one label."""
    widths = (shape.width, *shape.head)
    return 2.0 * sum(a * b for a, b in pairwise(widths)) + 4.0 * widths[-1]


def star(shape: Shape, tokens: float, labels: int) -> float:
    """Return the operations of one star: encoder, keys and values once, then each label."""
    return encode(shape, tokens) + keys_and_values(shape, tokens) + labels * label(shape, tokens)
