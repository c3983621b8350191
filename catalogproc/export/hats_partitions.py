"""How a catalog is parted on the sky: HEALPix pixels, nested, none with too many stars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

INDEX_ORDER = 29
MAP_ORDER = 8
"""Order of the sky map, and the highest of a partition: 786,432 pixels of 0.05 square degrees."""
MARGIN_ORDER = 14
"""The highest order whose pixels (12.9 arcsec) are nowhere narrower than the margin."""
MARGIN_ARCSEC = 5.0

Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Partitions:
    """Pixels that hold all stars, sorted by where they lie; orders and pixels are (P,)."""

    orders: Pixels
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def low(self) -> Pixels:
        """The least index of order 29 in each."""
        return np.asarray(self.pixels << 2 * (INDEX_ORDER - self.orders))

    @cached_property
    def high(self) -> Pixels:
        """The greatest index of order 29 in each."""
        return np.asarray(((self.pixels + 1) << 2 * (INDEX_ORDER - self.orders)) - 1)

    @cached_property
    def sky_fraction(self) -> float:
        return float((0.25**self.orders / 12.0).sum())

    def path(self, number: int) -> str:
        """Where the file of a partition lies in a HATS catalog."""
        order, pixel = int(self.orders[number]), int(self.pixels[number])
        return f"dataset/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"

    def holding(self, index: Pixels) -> Pixels:
        """The partition of each index of order 29; -1 where none is."""
        place = np.searchsorted(self.low, index, side="right") - 1
        inside = (place >= 0) & (index <= self.high[place])
        return np.where(inside, place, -1)

    def near(self, index: Pixels, own: int) -> tuple[Pixels, Pixels]:
        """Stars of one partition that lie in the margin of others.

        A star is in the margin of a partition if a pixel of :data:`MARGIN_ORDER` beside its
        own belongs to it: then every star within :data:`MARGIN_ARCSEC` of the partition is,
        and some up to about 25 arcsec away.

        Parameters
        ----------
        index
            Indices of order 29 of the stars (N,).
        own
            Their own partition.

        Returns
        -------
        rows, partitions
            (M,) each: which star, in the margin of which partition.
        """
        from astropy_healpix import neighbours

        shift = 2 * (INDEX_ORDER - MARGIN_ORDER)
        cells, inverse = np.unique(index >> shift, return_inverse=True)
        beside = neighbours(cells, 1 << MARGIN_ORDER, order="nested").astype(np.int64)  # (8, C)
        other = np.where(beside < 0, -1, self.holding(np.maximum(beside, 0) << shift))
        other[other == own] = -1
        foreign = other >= 0
        if not foreign.any():
            return np.empty(0, np.int64), np.empty(0, np.int64)
        pairs = np.unique(np.column_stack([np.nonzero(foreign)[1], other[foreign]]), axis=0)
        rows = np.argsort(inverse, kind="stable")
        begin = np.searchsorted(inverse[rows], pairs[:, 0], side="left")
        end = np.searchsorted(inverse[rows], pairs[:, 0], side="right")
        stars = [rows[a:b] for a, b in zip(begin, end, strict=True)]
        return np.concatenate(stars), np.repeat(pairs[:, 1], end - begin)


def count_stars(indices: Iterable[Pixels]) -> Pixels:
    """Stars in each pixel of :data:`MAP_ORDER`, from their indices of order 29."""
    total = np.zeros(12 << 2 * MAP_ORDER, dtype=np.int64)
    for index in indices:
        total += np.bincount(index >> 2 * (INDEX_ORDER - MAP_ORDER), minlength=len(total))
    return total


def partitions(counts: Pixels, most: int) -> Partitions:
    """The largest pixels with at most so many stars, or of :data:`MAP_ORDER`.

    ``counts`` are the stars in each pixel of that order. Pixels without stars are left out.
    """
    chosen: list[tuple[Pixels, Pixels]] = []
    left = np.arange(12, dtype=np.int64)
    for order in range(MAP_ORDER + 1):
        stars = counts.reshape(12 << 2 * order, -1).sum(axis=1)[left]
        fits = (stars <= most) | (order == MAP_ORDER)
        found = left[fits & (stars > 0)]
        chosen.append((np.full(len(found), order, dtype=np.int64), found))
        left = (left[~fits][:, None] * 4 + np.arange(4)).ravel()
    orders, pixels = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    sorting = np.argsort(pixels << 2 * (INDEX_ORDER - orders))
    return Partitions(orders[sorting], pixels[sorting])
