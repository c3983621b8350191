"""Masses and ages of selected stars along the true values: what a selection does to them.

A rule on a prediction or its uncertainty keeps the stars whose prediction scattered to where the
rule is met, so that at each true value the selected stars are biased otherwise than all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.flags import load_flags

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALL, GOOD, BY_PREDICTION = "all", "good_mass_age", "and rules on the prediction"
"""The selections."""

RULES = ("UNC_MASS", "UNC_AGE", "EVOL_DOMAIN", "LABEL_EDGE", "AGE_LIMIT")
"""Flags that depend on the predicted mass and age, and are therefore not in good_mass_age."""

EDGES = {
    "mass": (0.0, 0.95, 1.1, 1.25, 1.5, np.inf),
    "log_age": tuple(9.0 + np.log10([1e-3, 2.0, 4.0, 6.0, 9.0, np.inf])),
}
"""Edges of the bins of true mass, Msun, and true log age, dex."""


@dataclass(frozen=True)
class SelectedStars:
    """Stars of one bin of true mass or log age that a selection keeps.

    Attributes
    ----------
    label, selection
        mass or log_age, and ALL, GOOD or BY_PREDICTION.
    low, high
        Edges of the bin, in the label's unit.
    stars
        Number of stars.
    bias
        Median of predicted minus true.
    within
        Share of stars whose true value is between the 16th and 84th percentiles.
    """

    label: str
    selection: str
    low: float
    high: float
    stars: int
    bias: float
    within: float


def selected_stars(label: str, catalog: pa.Table, true: Floats) -> Iterator[SelectedStars]:
    """Yield the errors of mass or log age by bin of the true value and selection.

    Parameters
    ----------
    label
        mass or log_age.
    catalog
        Rows of the contract catalog, of N stars.
    true
        True values (N,), Msun or dex; stars without one are left out.
    """
    low_16, value, high_84 = _percentiles(catalog, label)
    known = np.isfinite(true) & np.isfinite(value)
    for low, high in pairwise(EDGES[label]):
        in_bin = known & (true >= low) & (true < high)
        for selection, kept in _selections(catalog).items():
            rows = in_bin & kept
            if not rows.any():
                yield SelectedStars(label, selection, low, high, 0, np.nan, np.nan)
                continue
            within = (low_16[rows] <= true[rows]) & (true[rows] <= high_84[rows])
            bias = float(np.median(value[rows] - true[rows]))
            count = int(rows.sum())
            yield SelectedStars(label, selection, low, high, count, bias, float(within.mean()))


def _percentiles(catalog: pa.Table, label: str) -> list[Floats]:
    """Return the 16th percentile, the value and the 84th percentile (N,) of a label."""

    def column(name: str) -> Floats:
        return np.asarray(catalog[name].to_numpy(), dtype=np.float64)

    if label == "mass":
        return [column(name) for name in ("mass_16", "mass", "mass_84")]
    return [9.0 + np.log10(column(name)) for name in ("age_16", "age", "age_84")]


def _selections(catalog: pa.Table) -> dict[str, Mask]:
    """Return which stars (N,) each selection keeps."""
    good = np.asarray(catalog["good_mass_age"].to_numpy(zero_copy_only=False), dtype=bool)
    by_prediction = (catalog["quality_flags"].to_numpy() & load_flags().mask(*RULES)) != 0
    return {ALL: np.ones_like(good), GOOD: good, BY_PREDICTION: good & ~by_prediction}
