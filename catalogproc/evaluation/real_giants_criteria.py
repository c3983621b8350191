"""What is wanted of a model on real giants, and whether it is so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from catalogproc.evaluation.panel_scores import MODEL, TREES
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.evaluation.real_giants_result import (
    CELL,
    WITH_PARALLAX,
    BinCoverage,
    QuantityScores,
    RealGiants,
)
from catalogproc.evaluation.scorecard import decimals, figure
from catalogproc.evaluation.scores import Score

CRITERIA = ("teff", "logg", "m_h", "alpha_m")
"""Quantities whose true values are measurements of APOGEE, which have to pass."""

AIMS = {"teff": 38.0, "logg": 0.150, "m_h": 0.090, "alpha_m": 0.036}
"""Scatters that networks have reached on these spectra, or nearly."""

MAX_BIAS = 0.1
"""Largest accepted bias over the scatter."""
Z_RANGE = (0.95, 1.05)
WITHIN_1_SIGMA, MAX_OFF, MAX_OFF_IN_BINS, MAX_OFF_IN_CELLS = 0.6827, 0.02, 0.05, 0.08
"""Share of a Gaussian within 1 sigma, and the largest accepted difference."""
MAX_GOOD = 0.02
"""Largest accepted share of the stars that are no giants with ``good_params``."""
MAX_WITH_PARALLAX = 0.8
"""Largest accepted scatter of log g with the parallax over that without."""


@dataclass(frozen=True)
class Criterion:
    """A number with what is wanted of it."""

    words: str
    value: str
    wanted: str
    passed: bool


@dataclass(frozen=True)
class SeismicAim:
    """What is wanted of masses or ages: scatter, r, absolute bias, slope of true on predicted."""

    scatter: float
    correlation: float
    bias: float
    slope: tuple[float, float] = (0.8, 1.2)


SEISMIC_AIMS = {"mass": SeismicAim(0.18, 0.70, 0.05), "log_age": SeismicAim(0.22, 0.50, 0.05)}


def criteria(found: RealGiants) -> Iterator[Criterion]:
    """Yield what a usable model fulfils.

    Parameters
    ----------
    found
        The evaluation.
    """
    for row in found.scores:
        if row.quantity in CRITERIA:
            yield from _criteria_of(found, row)
    for kind in found.good:
        if not kind.giants and kind.stars:
            share = kind.good / kind.stars
            yield Criterion(
                f"good_params, {kind.kind}", f"{100 * share:.1f} %", f"≤ {100 * MAX_GOOD:.0f} %",
                share <= MAX_GOOD,
            )  # fmt: skip
    for label, scores in found.seismic.items():
        for seismic in scores:
            if seismic.method == MODEL and seismic.score.stars:
                yield from _seismic_criteria(label, seismic.score)
    plain, with_parallax = (found.parallax[method].scatter for method in (MODEL, WITH_PARALLAX))
    if plain > 0:
        ratio = with_parallax / plain
        yield Criterion(
            "log g: scatter with the parallax over that without", decimals(ratio),
            f"≤ {MAX_WITH_PARALLAX}", ratio <= MAX_WITH_PARALLAX,
        )  # fmt: skip


def _seismic_criteria(label: str, one: Score) -> Iterator[Criterion]:
    item, aim = QUANTITIES[label], SEISMIC_AIMS[label]
    words = f"seismic {item.text}, {one.stars:,} stars"
    low, high = aim.slope
    yield Criterion(
        f"{words}: scatter [{item.unit}]", figure(one.scatter), f"≤ {aim.scatter:.2f}",
        one.scatter <= aim.scatter,
    )  # fmt: skip
    yield Criterion(
        f"{words}: r", decimals(one.correlation), f"≥ {aim.correlation:.2f}",
        one.correlation >= aim.correlation,
    )  # fmt: skip
    yield Criterion(
        f"{words}: size of the bias [{item.unit}]", figure(abs(one.bias), one.scatter),
        f"≤ {aim.bias:.2f}",
        abs(one.bias) <= aim.bias,
    )  # fmt: skip
    yield Criterion(
        f"{words}: slope of truth", decimals(one.slope_of_truth), f"{low} to {high}",
        low <= one.slope_of_truth <= high,
    )  # fmt: skip


def _criteria_of(found: RealGiants, row: QuantityScores) -> Iterator[Criterion]:
    item, model = QUANTITIES[row.quantity], row.by_method[MODEL]
    if TREES in row.by_method:
        trees = row.by_method[TREES]
        yield Criterion(
            f"{item.text}: scatter [{item.unit}]", figure(model.scatter),
            f"≤ {figure(trees.scatter)}, {TREES}", model.scatter <= trees.scatter,
        )  # fmt: skip
        yield Criterion(
            f"{item.text}: R2", decimals(model.r2, 3), f"≥ {decimals(trees.r2, 3)}, {TREES}",
            model.r2 >= trees.r2,
        )  # fmt: skip
    aim = AIMS[row.quantity]
    yield Criterion(
        f"{item.text}: scatter [{item.unit}], aim", figure(model.scatter), f"≤ {aim:g}",
        model.scatter <= aim,
    )  # fmt: skip
    ratio = abs(model.bias) / model.scatter
    yield Criterion(
        f"{item.text}: bias over scatter", decimals(ratio), f"≤ {MAX_BIAS}", ratio <= MAX_BIAS
    )
    low, high = Z_RANGE
    yield Criterion(
        f"{item.text}: sd of z", decimals(model.z_std), f"{low} to {high}",
        low <= model.z_std <= high,
    )  # fmt: skip
    off = abs(model.within_1_sigma - WITHIN_1_SIGMA)
    yield Criterion(
        f"{item.text}: within 1 sigma", share_text(model.within_1_sigma),
        f"{100 * (WITHIN_1_SIGMA - MAX_OFF):.1f} to {100 * (WITHIN_1_SIGMA + MAX_OFF):.1f} %",
        off <= MAX_OFF,
    )  # fmt: skip
    for bins, words, limit in (
        (found.bins, "worst bin", MAX_OFF_IN_BINS),
        (found.cells, "worst cell of the latent space", MAX_OFF_IN_CELLS),
        (found.faint, "noise added, worst bin", MAX_OFF_IN_BINS),
    ):
        worst = worst_bin(bins, row.quantity)
        if worst is None:
            continue
        share = worst.score.within_1_sigma
        yield Criterion(
            f"{item.text}: within 1 sigma, {words} ({bin_text(worst)})", share_text(share),
            f"{100 * (WITHIN_1_SIGMA - limit):.1f} to {100 * (WITHIN_1_SIGMA + limit):.1f} %",
            abs(share - WITHIN_1_SIGMA) <= limit,
        )  # fmt: skip


def worst_bin(bins: Sequence[BinCoverage], quantity: str) -> BinCoverage | None:
    """Return the bin whose share within 1 sigma is farthest from a Gaussian's.

    Parameters
    ----------
    bins, quantity
        Of an evaluation, and one of its quantities.
    """
    bins = [one for one in bins if one.quantity == quantity and one.score.stars]
    if not bins:
        return None
    return max(bins, key=lambda one: abs(one.score.within_1_sigma - WITHIN_1_SIGMA))


def bin_text(one: BinCoverage) -> str:
    """Return the column and the edges of a bin, or the number of a cell.

    Parameters
    ----------
    one
        The bin.
    """
    if one.column == CELL:
        return f"{one.low:.0f} of {one.high:.0f}"
    names = {"phot_g_mean_mag": "G"} | {name: item.text for name, item in QUANTITIES.items()}
    return f"{names[one.column]} {one.low:.2f} to {one.high:.2f}"


def share_text(share: float) -> str:
    """Return a share in per cent; "" for NaN.

    Parameters
    ----------
    share
        0 to 1, or NaN.
    """
    return "" if math.isnan(share) else f"{100 * share:.1f} %"
