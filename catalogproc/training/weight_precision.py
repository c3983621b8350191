"""Choose the number types of a bundle: 16 bits where predictions hardly change."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.errors import ReleaseError
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.inference.precision_check import check_precision
from catalogproc.network.bfloat16_check import PrecisionCheck
from catalogproc.network.bundle import Bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

HALF_PRECISION = ("float16", "bfloat16")

PRECISION_STARS = 2_000
"""Stars on which number types are compared."""

LARGEST_CHANGE, SHARE_OF_STARS = 0.01, 0.999
"""16 bits suffice if this share of the predictions changes by less than this many sigma."""


def choose_dtype(bundle: Bundle, tokens: StarTokens, labels: tuple[str, ...]) -> tuple[str, float]:
    """Return the number type for the weights of a bundle, and the change that it causes.

    Parameters
    ----------
    bundle
        The model, with float32 weights.
    tokens
        Of stars to test the types on.
    labels
        Labels to predict.

    Returns
    -------
    dtype
        float16 or bfloat16 if one suffices, else float32.
    change
        Change of the predictions in units of sigma that SHARE_OF_STARS of them stay below.
    """
    full = Predictor(bundle).predict(tokens, labels)
    for dtype in HALF_PRECISION:
        with tempfile.TemporaryDirectory() as folder:
            rounded = rewrite_bundle(bundle, Path(folder) / bundle.name, dtype=dtype)
            predictions = Predictor(rounded).predict(tokens, labels)
        changes = np.abs(predictions.mean - full.mean) / full.sigma
        change = float(np.quantile(changes[np.isfinite(changes)], SHARE_OF_STARS))
        if change < LARGEST_CHANGE:
            return dtype, change
    return "float32", 0.0


def check_products(bundle: Bundle, tokens: StarTokens) -> PrecisionCheck | None:
    """Measure whether bfloat16 suffices for the products of a bundle's network.

    None where the release does not state yet what a catalog needs: bfloat16 is then not chosen.

    Parameters
    ----------
    bundle
        The model, calibrated.
    tokens
        Of stars that it was not trained on, without labels.
    """
    columns = {}
    for place, name in enumerate(bundle.vocabulary.names):
        columns[name] = tokens.values[:, place]
        columns[f"e_{name}"] = tokens.errors[:, place]
    # The errors are those of the tokens: nothing is left to inflate.
    job = replace(default_job(bundle.vocabulary), inflate_errors=False)
    inputs = TableInputs.of(pa.table(columns), bundle.vocabulary, job)
    try:
        return check_precision(bundle, job, inputs.tokens(0, len(tokens)))
    except ReleaseError:
        return None
