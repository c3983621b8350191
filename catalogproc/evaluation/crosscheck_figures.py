"""Figures of a comparison with a published catalog, as SVG for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.evaluation.quantities import QUANTITIES, label_of
from catalogproc.evaluation.reference_comparison import ALL, SHOWN, Comparison, PartScore
from catalogproc.evaluation.scores import DecileScore
from catalogproc.report.canvas import (
    ACCENT,
    BLUE,
    INK,
    LOW_HEIGHT,
    MAP,
    ORANGE,
    SKY,
    Canvas,
    finite_range,
    with_style,
)
from catalogproc.report.page import Figure

Floats = NDArray[np.float64]

POINTS = 4_000
"""With more stars the density is drawn."""


def figures(found: Comparison, prefix: str) -> Iterator[Figure]:
    """Yield the pictures of a comparison: values against values, and the bias.

    Parameters
    ----------
    found
        The comparison.
    prefix
        Of the identifiers, which are unique in a page.
    """
    for name in SHOWN:
        if name not in found.shown:
            continue
        item, unit = QUANTITIES[name], f"[{QUANTITIES[name].unit}]"
        true, ours = _pairs(found, name)
        kind = {ALL: "matched stars, good and bad"}.get(
            found.shown[name], f"stars with {found.shown[name]}"
        )
        labels = (f"{found.reference.title} {unit}", f"this catalog {unit}")
        yield (
            f"{prefix}-{name}", f"{item.text}: values",
            _values(f"{prefix}-{name}", true, ours, labels),
            f"{len(true):,} {kind}. Solid: equal values; dashed: a catalog that knows nothing; "
            "orange: median and central 68 % in ranges of equally many stars.",
        )  # fmt: skip
        if name in found.deciles:
            yield (
                f"{prefix}-{name}-bias", f"{item.text}: bias",
                _bias(f"{prefix}-{name}-bias", found.deciles[name], item.text, unit),
                f"{len(true):,} {kind}. Median of this catalog minus the reference in ten ranges "
                "of the reference, bars: scatter; dashed: a catalog that knows nothing.",
            )  # fmt: skip
        bins = [one for one in found.of("G") if one.quantity == name]
        if len(bins) > 1:
            yield (
                f"{prefix}-{name}-g", f"{item.text}: magnitude",
                _magnitudes(f"{prefix}-{name}-g", bins, unit),
                f"Bias (points; bars: scatter) and spread of the reference (band) by G, {kind}.",
            )  # fmt: skip


def _pairs(found: Comparison, name: str) -> tuple[Floats, Floats]:
    """Values of the reference and of this catalog, of the stars that are shown."""
    stars, label, sample = found.stars, label_of(name), found.shown[name]
    rows = stars.known(label)
    if sample != ALL:
        rows = rows & stars.samples[sample]
    sides = (stars.theirs[label].value[rows], stars.ours[label].value[rows])
    true, ours = (QUANTITIES[name].from_token(side) for side in sides)
    return np.asarray(true, dtype=np.float64), np.asarray(ours, dtype=np.float64)


@with_style
def _values(name: str, true: Floats, ours: Floats, labels: tuple[str, str]) -> str:
    canvas = Canvas(name)
    axes = canvas.axes
    low, high = finite_range(np.concatenate([true, ours]), 0.005, 0.05)
    size = float(np.clip(3_000 / len(true), 4, 16))
    if len(true) <= POINTS:
        axes.scatter(true, ours, s=size, c=BLUE, alpha=0.5, linewidths=0, rasterized=True)
    else:
        axes.hexbin(
            true, ours, gridsize=60, extent=(low, high, low, high), bins="log", mincnt=1,
            cmap=MAP, linewidths=0, rasterized=True,
        )  # fmt: skip
    axes.plot((low, high), (low, high), color=INK, linewidth=0.8)
    axes.axhline(float(np.median(true)), color=INK, linewidth=0.8, linestyle="--")
    groups = np.array_split(np.argsort(true, kind="stable"), min(10, max(1, len(true) // 10)))
    middle = np.array([np.median(true[rows]) for rows in groups])
    p16, p50, p84 = np.array([np.percentile(ours[rows], (16, 50, 84)) for rows in groups]).T
    axes.fill_between(middle, p16, p84, color=ORANGE, alpha=0.25, linewidth=0)
    axes.plot(middle, p50, color=ORANGE, linewidth=1.4)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(low, high), ylim=(low, high))
    return canvas.svg()


@with_style
def _bias(name: str, deciles: tuple[DecileScore, ...], text: str, unit: str) -> str:
    canvas = Canvas(name, LOW_HEIGHT)
    axes: Any = canvas.axes
    middle, bias, scatter = (
        np.array([getattr(one, field) for one in deciles])
        for field in ("median", "bias", "scatter")
    )
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.plot(middle, np.median(middle) - middle, color=INK, linewidth=0.8, linestyle="--")
    axes.errorbar(middle, bias, scatter, fmt="o", color=ACCENT, markersize=3.5, elinewidth=1)
    largest = 1.15 * float(np.max(np.abs(bias) + scatter)) or 1.0
    axes.set(xlabel=f"reference {text} {unit}", ylabel=f"bias {unit}", ylim=(-largest, largest))
    return canvas.svg()


@with_style
def _magnitudes(name: str, bins: Sequence[PartScore], unit: str) -> str:
    canvas = Canvas(name, LOW_HEIGHT)
    axes: Any = canvas.axes
    edges = np.array([[one.low, one.high] for one in bins])
    scores = [one.score for one in bins]
    bias, scatter, spread = (
        np.array([getattr(score, field) for score in scores])
        for field in ("bias", "scatter", "spread")
    )
    for (low, high), width in zip(edges, spread, strict=True):
        axes.fill_between((low, high), -width, width, color=SKY, alpha=0.3, linewidth=0)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.errorbar(
        edges.mean(axis=1), bias, scatter, fmt="o", color=ACCENT, markersize=3.5, elinewidth=1
    )
    axes.set(xlabel="G [mag]", ylabel=f"bias {unit}")
    return canvas.svg()
