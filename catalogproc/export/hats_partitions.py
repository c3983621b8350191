"""Partitions of a catalog on the sky: nested HEALPix pixels with a limited number of stars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

INDEX_ORDER = 29
"""HEALPix order of the column _healpix_29."""
MAP_ORDER = 8
"""Order of the sky map, and the highest of a partition: 786,432 pixels of 0.05 square degrees."""
MARGIN_ORDER = 14
"""The highest order whose pixels (12.9 arcsec) are nowhere narrower than the margin."""
MARGIN_ARCSEC = 5.0

Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Partitions:
    """Pixels without overlap that hold all stars, sorted by their indices of order 29.

    Attributes
    ----------
    orders, pixels
        HEALPix order and nested pixel of each (P,).
    """

    orders: Pixels
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def low(self) -> Pixels:
        """Least index of order 29 in each (P,)."""
        return np.asarray(self.pixels << 2 * (INDEX_ORDER - self.orders))

    @cached_property
    def high(self) -> Pixels:
        """Greatest index of order 29 in each (P,)."""
        return np.asarray(((self.pixels + 1) << 2 * (INDEX_ORDER - self.orders)) - 1)

    @cached_property
    def sky_fraction(self) -> float:
        """Their share of the sphere."""
        return float((0.25**self.orders / 12.0).sum())

    def path(self, number: int) -> str:
        """Return the path of a partition's file in a HATS catalog.

        Parameters
        ----------
        number
            Which partition.
        """
        order, pixel = int(self.orders[number]), int(self.pixels[number])
        return f"dataset/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"

    def partition_of(self, index: Pixels) -> Pixels:
        """Return the partition that holds each index; -1 where none does.

        Parameters
        ----------
        index
            Indices of order 29, of any shape.
        """
        number = np.searchsorted(self.low, index, side="right") - 1
        inside = (number >= 0) & (index <= self.high[number])
        return np.where(inside, number, -1)

    def margin_stars(self, index: Pixels, number: int) -> tuple[Pixels, Pixels]:
        """Find the stars of one partition that are in the margins of others.

        A star is in the margin of a partition if a neighbour of its pixel of
        :data:`MARGIN_ORDER` belongs to it. That includes every star within
        :data:`MARGIN_ARCSEC` of the partition, and some up to about 25 arcsec away.

        Parameters
        ----------
        index
            Indices of order 29 of the partition's stars (N,).
        number
            The partition.

        Returns
        -------
        rows, partitions
            (M,) each: which star, in the margin of which partition.
        """
        from astropy_healpix import neighbours

        shift = 2 * (INDEX_ORDER - MARGIN_ORDER)
        cells, cell_of_star = np.unique(index >> shift, return_inverse=True)
        adjacent = neighbours(cells, 1 << MARGIN_ORDER, order="nested").astype(np.int64)  # (8, C)
        other = np.where(adjacent < 0, -1, self.partition_of(np.maximum(adjacent, 0) << shift))
        other[other == number] = -1
        foreign = other >= 0
        if not foreign.any():
            return np.empty(0, np.int64), np.empty(0, np.int64)
        pairs = np.unique(np.column_stack([np.nonzero(foreign)[1], other[foreign]]), axis=0)
        rows = np.argsort(cell_of_star, kind="stable")
        begin = np.searchsorted(cell_of_star[rows], pairs[:, 0], side="left")
        end = np.searchsorted(cell_of_star[rows], pairs[:, 0], side="right")
        stars = [rows[a:b] for a, b in zip(begin, end, strict=True)]
        return np.concatenate(stars), np.repeat(pairs[:, 1], end - begin)


def count_stars(indices: Iterable[Pixels]) -> Pixels:
    """Return the number of stars in each pixel of :data:`MAP_ORDER`.

    Parameters
    ----------
    indices
        Indices of order 29 of the stars, in batches.
    """
    counts = np.zeros(12 << 2 * MAP_ORDER, dtype=np.int64)
    for index in indices:
        counts += np.bincount(index >> 2 * (INDEX_ORDER - MAP_ORDER), minlength=len(counts))
    return counts


def choose_partitions(counts: Pixels, max_stars: int) -> Partitions:
    """Return the largest pixels with at most so many stars; pixels without stars are left out.

    Parameters
    ----------
    counts
        Stars in each pixel of :data:`MAP_ORDER` (786432,).
    max_stars
        The limit; only pixels of :data:`MAP_ORDER` may exceed it.
    """
    chosen: list[tuple[Pixels, Pixels]] = []
    candidates = np.arange(12, dtype=np.int64)
    for order in range(MAP_ORDER + 1):
        stars = counts.reshape(12 << 2 * order, -1).sum(axis=1)[candidates]
        small_enough = (stars <= max_stars) | (order == MAP_ORDER)
        pixels = candidates[small_enough & (stars > 0)]
        chosen.append((np.full(len(pixels), order, dtype=np.int64), pixels))
        candidates = (candidates[~small_enough][:, None] * 4 + np.arange(4)).ravel()
    all_orders, all_pixels = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    sorting = np.argsort(all_pixels << 2 * (INDEX_ORDER - all_orders))
    return Partitions(all_orders[sorting], all_pixels[sorting])
