"""Measure whether bfloat16 suffices for a model: predictions and flags against float64's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.inference.catalog_columns import LABEL_COLUMNS
from catalogproc.inference.engine import Engine

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bfloat16_check import PrecisionCheck
    from catalogproc.network.bundle import Bundle


def check_precision(
    bundle: Bundle, job: Job, tokens: Tokens, precision: str = "bfloat16"
) -> PrecisionCheck:
    """Compare the catalog of some stars with that in float64.

    Parameters
    ----------
    bundle, job
        The model, and what is predicted.
    tokens
        The inputs of N stars.
    precision
        What is compared, one of :data:`~catalogproc.network.precision.PRECISIONS`.
    """
    from catalogproc.network.bfloat16_check import SIGMA, PrecisionCheck

    engine = Engine(bundle, replace(job, dust="", precision="float32"))
    exact, rounded = (
        _catalog(engine.in_precision(name), tokens) for name in ("float64", precision)
    )
    close = np.ones(len(tokens), dtype=bool)
    for name in (column for column in LABEL_COLUMNS.values()):
        wanted, found, sigma = (
            table[column].to_numpy().astype(np.float64)
            for table, column in ((exact, name), (rounded, name), (exact, f"e_{name}"))
        )
        known = np.isfinite(wanted) & np.isfinite(sigma)
        close &= ~known | (np.abs(found - wanted) <= SIGMA * sigma)
    flags = exact["quality_flags"].to_numpy() != rounded["quality_flags"].to_numpy()
    return PrecisionCheck(len(tokens), float(close.mean()), float(flags.mean()))


def _catalog(engine: Engine, tokens: Tokens) -> pa.Table:
    ids = pa.array(np.asarray(tokens.source_id, dtype=np.int64))
    return engine.to_catalog(ids, tokens, engine.predict(tokens))
