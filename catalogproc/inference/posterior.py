"""The posterior of each star, for the part that is written beside the catalog.

The distributions of the network are calibrated in their probabilities, so that they are no
Gaussians and no sums of Gaussians any more. What holds any of them is values of equal probability:
the percentiles at the levels (i + 1/2) / N. They are the same in every run, and a mean over them
is closer to that of the distribution than the mean over as many random draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.contract import load_contract

if TYPE_CHECKING:
    from catalogproc.inference.label_distribution import LabelDistribution

POSTERIOR_LABELS = ("mass", "log_age", "m_h")
"""Labels of the contract posterior."""


def posterior_rows(
    source_ids: pa.Array | pa.ChunkedArray,
    distributions: Mapping[str, LabelDistribution],
    count: int,
) -> pa.Table:
    """Return rows of the contract posterior.

    Parameters
    ----------
    source_ids
        Identifiers of the N stars.
    distributions
        By label.
    count
        Number of values of each label, which are NaN where the label was not predicted.
    """
    levels = (np.arange(count) + 0.5) / count
    columns: dict[str, object] = {"source_id": source_ids}
    offsets = pa.array(np.arange(len(source_ids) + 1, dtype=np.int32) * count)
    for label in POSTERIOR_LABELS:
        found = [distributions[label].percentile(level) for level in levels]
        values = np.stack(found, axis=1).astype(np.float32)
        columns[label] = pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))
    return load_contract("posterior").assemble(columns, len(source_ids))
