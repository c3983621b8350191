"""The covariance of the errors of a star's tokens, and reproducible draws from it.

Draws are counter-based: a number depends on the star's key, on the number of the draw and on
the token alone, so that a star's draws do not depend on the other stars of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ContractError

Floats = NDArray[np.floating]
Words = NDArray[np.uint64]

SHRINKAGE = 1e-4
"""Share of the unit matrix mixed into a correlation matrix: stored in float32, it may not be
positive definite without."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Correlated:
    """Tokens with correlated errors.

    Attributes
    ----------
    columns
        Columns (n,) of the table.
    matrix
        Correlations of each star (N, n, n), with a diagonal of 1.
    factor
        A (N, n, m) where the correlations are A A^T off the diagonal, and the rest of each
        diagonal element, 1 - |A_i|^2, is independent noise of that token. The matrix may be
        singular then. None: the matrix is factorised.
    sources
        Columns (m,) of the table whose random numbers drive the factor.
    """

    columns: NDArray[np.int64]
    matrix: Floats
    factor: Floats | None = None
    sources: NDArray[np.int64] | None = None

    @classmethod
    def by_factor(
        cls, columns: NDArray[np.int64], factor: Floats, sources: NDArray[np.int64]
    ) -> Correlated:
        """Build the group of a factor; see the attributes."""
        matrix = factor @ factor.transpose(0, 2, 1)
        diagonal = np.arange(len(columns))
        matrix[:, diagonal, diagonal] = 1.0
        return cls(columns, matrix, factor, sources)


@dataclass(frozen=True)
class InputNoise:
    """The errors of N stars' tokens.

    ``errors`` (N, V): one standard deviation in the tokens' units; NaN (unknown, or of an
    absent token) counts as 0. Errors are independent except within the groups of
    ``correlated``; no token is in two groups.
    """

    errors: Floats
    correlated: tuple[Correlated, ...] = ()

    def __post_init__(self) -> None:
        rows, n = len(self.errors), [len(group.columns) for group in self.correlated]
        for group, size in zip(self.correlated, n, strict=True):
            if group.matrix.shape != (rows, size, size):
                raise ContractError(
                    "a correlation matrix does not fit its tokens",
                    wanted=(rows, size, size),
                    found=group.matrix.shape,
                )

    def __len__(self) -> int:
        return len(self.errors)

    def filled(self) -> NDArray[np.float32]:
        """Return the errors (N, V), 0 where unknown."""
        return np.nan_to_num(self.errors, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)

    def cholesky(self) -> tuple[Floats, ...]:
        """Return for each correlated group L (N, n, n) with L L^T the correlation matrix.

        The unit matrix for a star whose matrix is not positive definite; a group's own factor
        where it has one.
        """
        return tuple(
            _factor(group.matrix) if group.factor is None else group.factor
            for group in self.correlated
        )


def _factor(matrix: Floats) -> Floats:
    n = matrix.shape[-1]
    shrunk = (1.0 - SHRINKAGE) * np.nan_to_num(matrix) + SHRINKAGE * np.eye(n)
    try:
        return np.asarray(np.linalg.cholesky(shrunk))
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(shrunk)[:, 0]
        shrunk[lowest < SHRINKAGE / 2] = np.eye(n)
        return np.asarray(np.linalg.cholesky(shrunk))


def draw_errors(
    noise: InputNoise, factors: tuple[Floats, ...], keys: NDArray[np.int64], number: int
) -> Floats:
    """Return random errors (N, V), in the tokens' units.

    Parameters
    ----------
    noise
        Their covariance.
    factors
        ``noise.cholesky()``, computed once for all draws.
    keys
        What identifies each star (N,).
    number
        The number of the draw.
    """
    count = noise.errors.shape[1]
    own = any(group.sources is not None for group in noise.correlated)
    normals = standard_normals(keys, number, 2 * count if own else count)
    z = normals[:, :count].copy()
    for group, factor in zip(noise.correlated, factors, strict=True):
        sources = group.columns if group.sources is None else group.sources
        drawn = np.einsum("nij,nj->ni", factor, normals[:, sources])
        if group.sources is not None:
            rest = np.maximum(1.0 - np.square(factor).sum(axis=2), 0.0)
            drawn += np.sqrt(rest) * normals[:, count + group.columns]
        z[:, group.columns] = drawn
    return np.asarray(noise.filled() * z)


def standard_normals(keys: NDArray[np.int64], number: int, count: int) -> NDArray[np.float64]:
    """Return standard normal numbers that follow from each key and the draw's number.

    Parameters
    ----------
    keys
        (N,).
    number
        The number of the draw.
    count
        Numbers per key.

    Returns
    -------
    (N, count).
    """
    from scipy.special import ndtri

    with np.errstate(over="ignore"):
        seed = _mix(_mix(keys.astype(np.int64).view(np.uint64)) + GOLDEN * np.uint64(number + 1))
        words = _mix(seed[:, None] + GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    # 53 bits, never exactly 0 or 1.
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.asarray(ndtri(uniform))


def _mix(x: Words) -> Words:
    """Apply the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
