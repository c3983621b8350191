"""Measure whether bfloat16 suffices for a model: predictions and flags against float64's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.inference.catalog_columns import LABEL_COLUMNS
from catalogproc.inference.engine import Engine

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bfloat16_check import PrecisionCheck
    from catalogproc.network.bundle import Bundle


FEW = 3
"""Stars of the other batches: products of so few rows are rounded otherwise than those of many."""


def check_precision(
    bundle: Bundle, job: Job, tokens: Tokens, precision: str = "bfloat16"
) -> PrecisionCheck:
    """Compare the catalog of some stars with that in float64, and with that of other batches.

    Parameters
    ----------
    bundle, job
        The model, and what is predicted.
    tokens
        The inputs of N stars.
    precision
        What is compared, one of :data:`~catalogproc.network.precision.PRECISIONS`.
    """
    from catalogproc.network.bfloat16_check import PrecisionCheck

    engine = Engine(bundle, replace(job, dust="", precision="float32"))
    rounded = engine.in_precision(precision)
    exact, together = _catalog(engine.in_precision("float64"), tokens), _catalog(rounded, tokens)
    few = [tokens.rows(slice(start, start + FEW)) for start in range(0, len(tokens), FEW)]
    apart = pa.concat_tables([_catalog(rounded, some) for some in few]) if few else together
    flags = [table["quality_flags"].to_numpy() for table in (exact, together, apart)]
    other = (flags[0] != flags[1]) | (flags[1] != flags[2])
    within, batches = (_close(exact, one, together) for one in (exact, apart))
    return PrecisionCheck(len(tokens), *(float(x.mean()) for x in (within, other, batches)))


def _close(exact: pa.Table, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
    """Return the stars (N,) of which no label differs by more than SIGMA of its uncertainty.

    Parameters
    ----------
    exact
        The catalog that has the uncertainties.
    one, other
        The catalogs that are compared.
    """
    from catalogproc.network.bfloat16_check import SIGMA

    close = np.ones(len(exact), dtype=bool)
    for name in LABEL_COLUMNS.values():
        wanted, found, sigma = (
            table[column].to_numpy().astype(np.float64)
            for table, column in ((one, name), (other, name), (exact, f"e_{name}"))
        )
        known = np.isfinite(wanted) & np.isfinite(sigma)
        close &= ~known | (np.abs(found - wanted) <= SIGMA * sigma)
    return close


def _catalog(engine: Engine, tokens: Tokens) -> pa.Table:
    ids = pa.array(np.asarray(tokens.source_id, dtype=np.int64))
    return engine.to_catalog(ids, tokens, engine.predict(tokens))
