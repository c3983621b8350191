"""Checks that a referee asks for: clusters by member list, repeats, asteroseismology.

A catalog's answers against what must be true of stars without any model: the stars of a cluster
are of one age and one composition; a star measured twice is the same star; and oscillations tell
masses from physics alone. Each takes plain arrays, so that any catalog can be asked.
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
LEAST_MEMBERS = 3


@dataclass(frozen=True)
class ClusterScore:
    """How the answers for a cluster's stars agree, and with what is known of it.

    ``value`` is their weighted mean and ``error`` its own; ``scatter`` 1.4826 times the median
    absolute deviation; ``intrinsic`` the scatter that the stated errors leave unexplained, 0
    where they explain all; ``chi2_red`` of the answers about their mean. ``known`` is the
    literature's value and ``bias`` the median of the answers minus it, NaN where it has none.
    ``slope`` is the change of the answers per unit of ``against`` (log g, where it is given), a
    trend along the giant branch that a cluster cannot have; NaN without.
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
    """Differences of pairs of answers for the same stars, over their joint errors.

    ``z_scatter`` (1.4826 times the median absolute deviation) is 1 where the errors are those of
    the noise; ``within_1_sigma`` then is 0.683. Errors that hold more than noise (the model's own,
    which both answers share) make it smaller.
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
    answers: Mapping[str, tuple[Floats, Floats]],
    known: Mapping[str, Mapping[str, float]] | None = None,
    *,
    against: Floats | None = None,
    least: int = LEAST_MEMBERS,
) -> list[ClusterScore]:
    """How the answers for the members of each cluster agree.

    Parameters
    ----------
    source_id
        Of the catalog's stars (N,).
    answers
        Values and errors (N,) of what a cluster's stars share, by label: ``m_h``, ``log_age``.
    known
        By cluster and label, what the literature says.
    against
        (N,), log g, to look for a trend along the giant branch.
    least
        Clusters with fewer answers are left out.
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
        for label, (values, errors) in answers.items():
            good = rows[np.isfinite(values[rows]) & (errors[rows] > 0)]
            if len(good) >= least:
                literature = (known or {}).get(str(name), {}).get(label, np.nan)
                x = None if against is None else against[good]
                scores.append(_cluster(str(name), label, values[good], errors[good], literature, x))
    return scores


def repeats(label: str, one: Floats, e_one: Floats, other: Floats, e_other: Floats) -> RepeatScore:
    """How two answers (N,) for each star differ, over their errors; NaN do not count.

    Two spectra of a star, or the same star in two catalogs: then the noise is independent.
    """
    difference = np.asarray(one, dtype=np.float64) - other
    joint = np.hypot(e_one, e_other)
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
    """Rows of the first and the second answer of each identifier (N,) that has several.

    Of more than two the first is paired with each of the others.
    """
    order = np.argsort(identifier, kind="stable")
    ordered = identifier[order]
    start = np.r_[True, ordered[1:] != ordered[:-1]]
    first = order[np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))]
    return first[~start], order[~start]


def seismic(
    identifier: Ids,
    mass: Floats,
    e_mass: Floats,
    seismic_id: Ids,
    seismic_mass: Floats,
    e_seismic_mass: Floats,
) -> RepeatScore:
    """A catalog's masses (N,) against seismic ones (M,), of the stars that both have.

    The table of Kepler giants at hand is science.kepler's, with ``seismic_mass``; identifiers
    must be of one kind.
    """
    _, ours, theirs = np.intersect1d(identifier, seismic_id, return_indices=True)
    return repeats("mass", mass[ours], e_mass[ours], seismic_mass[theirs], e_seismic_mass[theirs])


def _cluster(
    name: str, label: str, values: Floats, errors: Floats, known: float, against: Floats | None
) -> ClusterScore:
    weight = errors**-2
    mean = float(np.average(values, weights=weight))
    chi2 = float(np.sum(weight * (values - mean) ** 2)) / (len(values) - 1)
    slope, e_slope = float("nan"), float("nan")
    if against is not None and np.ptp(against) > 0:
        x = against - np.average(against, weights=weight)
        norm = float(np.sum(weight * x**2))
        slope, e_slope = float(np.sum(weight * x * values) / norm), norm**-0.5
    return ClusterScore(
        cluster=name,
        label=label,
        stars=len(values),
        value=mean,
        error=float(weight.sum() ** -0.5),
        scatter=_mad(values),
        intrinsic=_intrinsic(values, errors),
        chi2_red=chi2,
        known=known,
        bias=float(np.median(values)) - known,
        slope=slope,
        e_slope=e_slope,
    )


def _intrinsic(values: Floats, errors: Floats) -> float:
    """The scatter beyond the errors with which chi2 is as it should be, 0 where it is less.

    DerSimonian & Laird's (1986) iterated: Paule & Mandel (1982), by bisection.
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
