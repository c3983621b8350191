"""How many bits a bundle's weights need: half of them, where no answer can tell."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.bundle import Bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor

HALVES = ("float16", "bfloat16")

LARGEST, OF_STARS = 0.01, 0.999
"""Halves will do if so many of the answers change by less than this much of their own sigma."""


def storage_type(
    bundle: Bundle, values: NDArray[np.floating], labels: tuple[str, ...]
) -> tuple[str, float]:
    """The type for the weights of a bundle: float16 or bfloat16 if they will do, else float32.

    ``values`` (N, V) are stars to try it on. With it comes the change, in units of sigma, that
    OF_STARS of the answers stay below.
    """
    plain = Predictor(bundle).predict(values, labels)
    for half in HALVES:
        with tempfile.TemporaryDirectory() as folder:
            rounded = rewrite_bundle(bundle, Path(folder) / bundle.name, dtype=half)
            answers = Predictor(rounded).predict(values, labels)
        change = np.abs(answers.mean - plain.mean) / plain.sigma
        worst = float(np.quantile(change[np.isfinite(change)], OF_STARS))
        if worst < LARGEST:
            return half, worst
    return "float32", 0.0
