"""A small map of exactly mwdust's layout, and mwdust's own answers on it."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NSIDES = (2, 4, 8, 16)
"""Coarsest to finest; the real map has 64 to 1024."""

Float = NDArray[np.float64]


def write_combine19(path: Path, seed: int = 1) -> None:
    """combine19.h5 as combine_dustmaps19.py of mwdust writes it, of 1,400 pixels.

    As in the real one the parts follow each other, not the pixels: a plane at the finest
    level (Marshall), then a tree of all levels (Green), then what those leave (Drimmel); some
    coarse pixels lie over fine ones, and a piece of the sky is missing.
    """
    import h5py

    random = np.random.default_rng(seed)
    nside, pixel = [], []
    open_ = np.arange(12 * NSIDES[0] ** 2)
    open_ = open_[open_ != 5]  # a piece of the sky without a map
    for level in NSIDES:
        last = level == NSIDES[-1]
        kept = np.ones(len(open_), bool) if last else random.random(len(open_)) < 0.4
        nside += [level] * int(kept.sum())
        pixel += open_[kept].tolist()
        open_ = (4 * open_[~kept][:, None] + np.arange(4)).ravel()
    # Fine pixels under coarse ones, of another value.
    under = [4**3 * p for n, p in zip(nside, pixel, strict=True) if n == NSIDES[0]][:6]
    nside += [NSIDES[-1]] * len(under)
    pixel += under
    order = random.permutation(len(pixel))
    info = np.recarray(len(pixel), dtype=[("nside", "uint32"), ("healpix_index", "uint64")])
    info["nside"], info["healpix_index"] = np.array(nside)[order], np.array(pixel)[order]
    rises = random.exponential(0.004, (len(pixel), 120)) * (random.random((len(pixel), 120)) < 0.6)
    rises[:, 1] += 0.02  # so that a straight line through the first two falls below zero
    curves = np.cumsum(rises, axis=1) * random.lognormal(0.0, 1.2, (len(pixel), 1))
    curves[:7] = 0.0  # lines of sight without dust
    curves[7:9] += 11.0  # and with more than is believed
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("pixel_info", data=info)
        file.create_dataset("best_fit", data=curves)


def mwdust_map(folder: Path, **options: Any) -> Any:
    """mwdust.Combined19 on ``folder/combined19/combine19.h5``, which must be there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.setdefault("DUST_DIR", str(folder))  # else it makes ~/.mwdust
        import mwdust

        module = sys.modules["mwdust.Combined19"]
        module.dust_dir, module._combineddir = str(folder), str(folder / "combined19")
        return mwdust.Combined19(**options)


def directions(count: int, seed: int = 2) -> tuple[Float, Float]:
    """Galactic positions in degrees, all over the sky."""
    random = np.random.default_rng(seed)
    return random.uniform(0, 360, count), np.rad2deg(np.arcsin(random.uniform(-1, 1, count)))
