"""External validation of a catalog: clusters by member list, repeated spectra.

No model is needed: the stars of a cluster share one age and one composition, and two spectra of a
star have one set of labels. All functions take plain
arrays, so that they work for any catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.evaluation.external_tables import Members

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

MAD_TO_SIGMA = 1.482602218505602
MIN_MEMBERS = 3
"""Clusters with fewer stars are left out."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Values of one label and their 1-sigma uncertainties, both (N,)."""

    value: Floats
    error: Floats

    def rows(self, which: Ids | NDArray[np.bool_] | slice) -> Measured:
        """Return some of the stars.

        Parameters
        ----------
        which
            Rows.
        """
        return Measured(self.value[which], self.error[which])


@dataclass(frozen=True)
class ClusterScore:
    """Agreement of the members of a cluster in one label.

    Attributes
    ----------
    value, error
        Weighted mean and its uncertainty.
    scatter
        1.4826 times the median absolute deviation.
    intrinsic
        Scatter that the uncertainties do not explain; 0 where they explain all.
    chi2_red
        Reduced chi-square about the mean.
    known, bias
        Value from the literature, and the median minus it; NaN without.
    slope, e_slope
        Trend with log g, which a cluster cannot have, and its uncertainty; NaN without log g.
    """

    cluster: str
    label: str
    stars: int
    value: float
    error: float
    scatter: float
    intrinsic: float
    chi2_red: float
    known: float
    bias: float
    slope: float
    e_slope: float


@dataclass(frozen=True)
class RepeatScore:
    """Statistics of the differences of two measurements of the same stars.

    Attributes
    ----------
    scatter, bias
        1.4826 times the median absolute deviation, and median, of the differences.
    z_scatter, z_std
        The same scatter, and the standard deviation, of z: differences over their joint
        uncertainties. 1 where the uncertainties are those of the noise alone; smaller where they
        include the model's own, which both measurements share.
    within_1_sigma
        Share with absolute z below 1; 0.683 where z_scatter is 1.
    """

    label: str
    pairs: int
    scatter: float
    bias: float
    z_scatter: float
    z_std: float
    within_1_sigma: float


def clusters(
    members: Members,
    source_id: Ids,
    labels: Mapping[str, Measured],
    known: Mapping[str, Mapping[str, float]] | None = None,
    logg: Floats | None = None,
) -> list[ClusterScore]:
    """Return the agreement of the members of each cluster, by label.

    Parameters
    ----------
    members
        The member list.
    source_id
        Identifiers of the catalog's stars (N,).
    labels
        What the stars of a cluster share, (N,) by label: ``m_h``, ``log_age``.
    known
        Values from the literature by cluster and label.
    logg
        log g (N,), to look for a trend along the giant branch.
    """
    order = np.argsort(source_id, kind="stable")
    place = np.minimum(
        np.searchsorted(source_id, members.source_id, sorter=order), max(len(order) - 1, 0)
    )
    row = order[place] if len(order) else np.zeros(len(members.source_id), dtype=np.int64)
    found = source_id[row] == members.source_id if len(order) else np.zeros(len(row), dtype=bool)
    scores = []
    for name in np.unique(members.cluster[found]):
        rows = np.unique(row[found & (members.cluster == name)])
        for label, measured in labels.items():
            good = rows[np.isfinite(measured.value[rows]) & (measured.error[rows] > 0)]
            if len(good) >= MIN_MEMBERS:
                literature = (known or {}).get(str(name), {}).get(label, np.nan)
                x = None if logg is None else logg[good]
                scores.append(_cluster(str(name), label, measured.rows(good), literature, x))
    return scores


def repeats(label: str, first: Measured, second: Measured) -> RepeatScore:
    """Return statistics of first minus second, for stars where both are known.

    The noise of both must be independent, as of two spectra of a star, or of two catalogs.

    Parameters
    ----------
    label
        Name of the label.
    first, second
        Two measurements of the same stars (N,).
    """
    difference = np.asarray(first.value, dtype=np.float64) - second.value
    joint = np.hypot(first.error, second.error)
    good = np.isfinite(difference) & (joint > 0)
    difference, joint = difference[good], joint[good]
    if not len(difference):
        return RepeatScore(label, 0, *[float("nan")] * 5)
    z = difference / joint
    return RepeatScore(
        label, len(z), _mad(difference), float(np.median(difference)), _mad(z), float(np.std(z)),
        float(np.mean(np.abs(z) < 1)),
    )  # fmt: skip


def pairs(identifier: Ids) -> tuple[Ids, Ids]:
    """Return the rows of the first and of each further entry of repeated identifiers.

    Parameters
    ----------
    identifier
        Identifiers (N,).
    """
    order = np.argsort(identifier, kind="stable")
    ordered = identifier[order]
    start = np.r_[True, ordered[1:] != ordered[:-1]]
    first = order[np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))]
    return first[~start], order[~start]


def _cluster(
    name: str, label: str, measured: Measured, known: float, logg: Floats | None
) -> ClusterScore:
    values, weight = measured.value, measured.error**-2
    mean = float(np.average(values, weights=weight))
    chi2 = float(np.sum(weight * (values - mean) ** 2)) / (len(values) - 1)
    slope, e_slope = float("nan"), float("nan")
    if logg is not None and np.ptp(logg) > 0:
        x = logg - np.average(logg, weights=weight)
        norm = float(np.sum(weight * x**2))
        slope, e_slope = float(np.sum(weight * x * values) / norm), norm**-0.5
    return ClusterScore(
        cluster=name,
        label=label,
        stars=len(values),
        value=mean,
        error=float(weight.sum() ** -0.5),
        scatter=_mad(values),
        intrinsic=_intrinsic(values, measured.error),
        chi2_red=chi2,
        known=known,
        bias=float(np.median(values)) - known,
        slope=slope,
        e_slope=e_slope,
    )


def _intrinsic(values: Floats, errors: Floats) -> float:
    """Scatter that makes chi2 equal to the degrees of freedom, 0 where chi2 is smaller.

    Paule & Mandel (1982), the iterated form of DerSimonian & Laird (1986), by bisection.
    """

    def excess(extra: float) -> float:
        weight = 1.0 / (errors**2 + extra**2)
        mean = np.average(values, weights=weight)
        return float(np.sum(weight * (values - mean) ** 2)) - (len(values) - 1)

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(np.ptp(values)) + 1e-12
    while excess(high) > 0:
        high *= 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


def _mad(values: Floats) -> float:
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))
